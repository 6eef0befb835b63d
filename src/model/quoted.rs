//! A word of a command line that we suggest, written so that the shell of the system takes it for
//! one word and for nothing else.

use std::path::Path;

/// A path, or another word, as it is to be typed. What needs no quotes gets none. On Windows the
/// quotes are those that both shells there know.
#[must_use]
pub fn quoted(word: impl AsRef<Path>) -> String {
    let word = word.as_ref().to_string_lossy();
    if !word.is_empty() && word.chars().all(is_plain) && !word.starts_with('-') {
        return word.into_owned();
    }
    in_quotes(&word)
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric()
        || "/.,_+-@:=".contains(letter)
        || cfg!(windows) && letter == '\\'
}

/// Between single quotes nothing is special but their end.
#[cfg(not(windows))]
fn in_quotes(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// No name holds a double quote there. A backslash before the last one would be taken for a part of
/// it.
#[cfg(windows)]
fn in_quotes(word: &str) -> String {
    let end = if word.ends_with('\\') { "\\" } else { "" };
    format!("\"{word}{end}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_is_one_word_for_the_shell() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("/srv/drop/orders", "/srv/drop/orders");
        check("patchdrop@shop7.service", "patchdrop@shop7.service");
        if cfg!(windows) {
            check(r"D:\drop", r"D:\drop");
            check(r"D:\ERP drop", "\"D:\\ERP drop\"");
            check(r"D:\ERP drop\", "\"D:\\ERP drop\\\\\"");
        } else {
            check("/srv/ERP drop", "'/srv/ERP drop'");
            check("/srv/it's", r"'/srv/it'\''s'");
            check("/srv/$(reboot)", "'/srv/$(reboot)'");
            check("~root", "'~root'");
            check("-rf", "'-rf'");
            check("", "''");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_shell_itself_reads_them_back() {
        fn said(word: &str) -> String {
            let script = format!("printf %s {}", quoted(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        }
        for word in ["a b", "it's", "\"x\"", "$HOME `id` \\ * ? ; & |", "grün\tund\nbreit", "!x"] {
            assert_eq!(said(word), word);
        }
    }
}
