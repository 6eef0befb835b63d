//! "Did you mean": the nearest of the words that are known.

/// The known word that `written` most likely was meant to be; `None` if none is near.
pub(super) fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // Two slips in a short word already make any other short word of it.
    let slips_max = match written.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    let lower = written.to_lowercase();
    let plain = lower.replace('-', "_");
    known
        .map(|word| {
            (strsim::damerau_levenshtein(&plain, &word.to_lowercase().replace('-', "_")), word)
        })
        .filter(|(slips, word)| *slips <= slips_max && *slips < word.chars().count())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, word)| word)
}

/// The hint for a word that is not among the known ones: the nearest, else all of them.
pub(super) fn hint(written: &str, known: &[&str]) -> String {
    match nearest(written, known.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("write one of {}", list(known)),
    }
}

/// Words in quotes, `"a", "b" or "c"`.
pub(super) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_stranger_is_not() {
        let known = ["quiet_for", "timeout", "root", "url", "failed", "include"];
        let check = |written: &str, meant: Option<&str>| {
            assert_eq!(nearest(written, known.into_iter()), meant, "{written}");
        };
        check("quiet-for", Some("quiet_for"));
        check("quietfor", Some("quiet_for"));
        check("Root", Some("root"));
        check("tiemout", Some("timeout"));
        check("includes", Some("include"));
        check("uri", Some("url"));
        check("banana", None);
        check("x", None);
        check("", None);
    }
}
