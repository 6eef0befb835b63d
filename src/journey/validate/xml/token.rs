//! What may stand in one token of an XML document. A token is given as it stands there, from `<`.

use super::XmlFlaw;

/// A flaw in a token, at this index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) flaw: XmlFlaw,
}

impl Wrong {
    pub(super) fn grammar<T>(at: usize, what: &'static str) -> Result<T, Self> {
        Err(Self { at, flaw: XmlFlaw::NotXml(what) })
    }
}

pub(super) const NO_REFERENCE: &str =
    "an & that begins no reference (XML writes the character itself &amp;)";

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Where the white space ends that begins at `from`.
fn spaces(token: &[u8], from: usize) -> usize {
    let rest = token.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| is_space(**byte)).count()
}

/// Where the name ends that begins at `from`; `from` itself if none does.
fn name(token: &[u8], from: usize) -> usize {
    let rest = token.get(from..).unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b":_-.".contains(byte);
    let end = rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
    let is_plain = rest.get(end).is_none_or(u8::is_ascii);
    match rest.first() {
        Some(first) if is_plain && (first.is_ascii_alphabetic() || b":_".contains(first)) => {
            return from + end;
        }
        Some(first) if first.is_ascii() && is_plain => return from,
        Some(_) => {}
        None => return from,
    }
    // The reader of tokens has made sure of UTF-8.
    let text = rest.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut letters = text.char_indices();
    match letters.next() {
        Some((_, first)) if begins_name(first) => {}
        Some(_) | None => return from,
    }
    let end = letters.find(|(_, letter)| !continues_name(*letter)).map_or(text.len(), |(at, _)| at);
    from + end
}

/// `NameStartChar` of XML 1.0.
fn begins_name(letter: char) -> bool {
    matches!(letter,
        ':' | '_' | 'A'..='Z' | 'a'..='z'
        | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}'
        | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}'
        | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

/// `NameChar` of XML 1.0.
fn continues_name(letter: char) -> bool {
    begins_name(letter)
        || matches!(letter,
            '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// `Char` of XML 1.0.
pub(super) fn is_allowed(letter: char) -> bool {
    matches!(letter,
        '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// What the beginning of a reference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// It may become one.
    Unfinished,
    /// It is one, of this length.
    Sound(usize),
    /// It is none that may stand there, and why.
    Wrong(&'static str),
}

/// Reads a reference, from its `&`. Entities beyond the five that XML has are believed to be
/// declared where there is a DOCTYPE to declare them.
pub(super) fn reference(text: &[u8], has_doctype: bool) -> Reference {
    let ends_it = |byte: &u8| is_space(*byte) || b"<>&;\"'=".contains(byte);
    let Some(end) = text.iter().skip(1).position(ends_it).map(|at| at + 1) else {
        return Reference::Unfinished;
    };
    if text.get(end) != Some(&b';') {
        return Reference::Wrong(NO_REFERENCE);
    }
    let inner = text.get(1..end).unwrap_or_default();
    if let Some(digits) = inner.strip_prefix(b"#") {
        let (digits, radix) = digits.strip_prefix(b"x").map_or((digits, 10), |hex| (hex, 16));
        let is_number =
            !digits.is_empty() && digits.iter().all(|byte| char::from(*byte).is_digit(radix));
        let number = std::str::from_utf8(digits).ok().filter(|_| is_number);
        let Some(number) = number else {
            return Reference::Wrong("a character reference that is no number");
        };
        let letter = u32::from_str_radix(number, radix).ok().and_then(char::from_u32);
        return if letter.is_some_and(is_allowed) {
            Reference::Sound(end + 1)
        } else {
            Reference::Wrong("a reference to a character that XML does not allow")
        };
    }
    match inner {
        b"amp" | b"lt" | b"gt" | b"apos" | b"quot" => Reference::Sound(end + 1),
        _ if inner.is_empty() || name(inner, 0) != inner.len() => Reference::Wrong(NO_REFERENCE),
        _ if has_doctype => Reference::Sound(end + 1),
        _ => Reference::Wrong("a reference to an entity that nothing declares"),
    }
}

/// Where an attribute's name begins and ends, and its value.
struct Attribute {
    name: (usize, usize),
    value: (usize, usize),
}

/// Reads the attribute that begins at `from`.
fn attribute(token: &[u8], from: usize) -> Result<Attribute, Wrong> {
    let name_end = name(token, from);
    if name_end == from {
        return Wrong::grammar(from, "something that is no attribute's name");
    }
    let equals = spaces(token, name_end);
    if token.get(equals) != Some(&b'=') {
        return Wrong::grammar(equals, "an attribute without a value");
    }
    let quote_at = spaces(token, equals + 1);
    let Some(quote @ (b'"' | b'\'')) = token.get(quote_at).copied() else {
        return Wrong::grammar(quote_at, "an attribute's value without quotes");
    };
    let begin = quote_at + 1;
    let rest = token.get(begin..).unwrap_or_default();
    let Some(length) = rest.iter().position(|byte| *byte == quote) else {
        return Wrong::grammar(quote_at, "an attribute's value that does not end");
    };
    Ok(Attribute { name: (from, name_end), value: (begin, begin + length) })
}

/// A start tag without what closes it: where its name ends. `names` is room to work in.
pub(super) fn tag(
    token: &[u8],
    has_doctype: bool,
    names: &mut Vec<(usize, usize)>,
) -> Result<usize, Wrong> {
    names.clear();
    let name_end = name(token, 1);
    if name_end == 1 {
        return Wrong::grammar(0, "a < that begins no tag (XML writes the character itself &lt;)");
    }
    let mut at = name_end;
    loop {
        let next = spaces(token, at);
        if next == token.len() {
            break;
        }
        if next == at {
            let what = if at == name_end {
                "a character that no element's name has"
            } else {
                "two attributes without white space between them"
            };
            return Wrong::grammar(at, what);
        }
        let Attribute { name, value: (from, to) } = attribute(token, next)?;
        value(token, from, to, has_doctype)?;
        names.push(name);
        at = to + 1;
    }
    match twice(token, names) {
        Some(at) => Wrong::grammar(at, "an attribute that occurs twice in one tag"),
        None => Ok(name_end),
    }
}

/// The value of an attribute.
fn value(token: &[u8], from: usize, to: usize, has_doctype: bool) -> Result<(), Wrong> {
    let value = token.get(from..to).unwrap_or_default();
    let mut at = 0;
    while let Some(found) = value[at..].iter().position(|byte| matches!(byte, b'<' | b'&')) {
        at += found;
        if value[at] == b'<' {
            let what = "a < in an attribute's value, which XML writes &lt;,";
            return Wrong::grammar(from + at, what);
        }
        // A reference is looked for no further than one can be long.
        let text = &value[at..value.len().min(at + super::REFERENCE_MAX)];
        match reference(text, has_doctype) {
            Reference::Sound(length) => at += length,
            Reference::Unfinished => return Wrong::grammar(from + at, NO_REFERENCE),
            Reference::Wrong(what) => return Wrong::grammar(from + at, what),
        }
    }
    Ok(())
}

/// Where a name stands the second time. In order of names, since a tag may have very many.
fn twice(token: &[u8], names: &mut [(usize, usize)]) -> Option<usize> {
    let text = |&(from, to): &(usize, usize)| token.get(from..to);
    if names.len() > 1 {
        names.sort_unstable_by(|one, other| text(one).cmp(&text(other)).then(one.cmp(other)));
    }
    names.windows(2).filter(|pair| text(&pair[0]) == text(&pair[1])).map(|pair| pair[1].0).min()
}

/// The XML declaration: where in it the encoding's name stands.
pub(super) fn declaration(token: &[u8]) -> Result<Option<(usize, usize)>, Wrong> {
    const ORDER: [&[u8]; 3] = [b"version", b"encoding", b"standalone"];
    let body = token.get(..token.len().saturating_sub(2)).unwrap_or_default();
    let mut encoding = None;
    let mut next_key = 0;
    let mut at = b"<?xml".len();
    loop {
        let next = spaces(body, at);
        if next == body.len() {
            break;
        }
        if next == at {
            return Wrong::grammar(at, "an XML declaration with white space missing");
        }
        let Attribute { name, value } = attribute(body, next)?;
        let key = ORDER.iter().position(|known| body.get(name.0..name.1) == Some(*known));
        let Some(key) = key.filter(|key| *key >= next_key && (*key == 0) == (next_key == 0)) else {
            let what = "an XML declaration that is not version, encoding and standalone in order";
            return Wrong::grammar(name.0, what);
        };
        let is_sound = is_declared(key, body.get(value.0..value.1).unwrap_or_default());
        if !is_sound {
            return Wrong::grammar(value.0, "a value that an XML declaration cannot have");
        }
        if key == 1 {
            encoding = Some(value);
        }
        next_key = key + 1;
        at = value.1 + 1;
    }
    if next_key == 0 {
        return Wrong::grammar(0, "an XML declaration without a version");
    }
    Ok(encoding)
}

/// Whether the version (0), encoding (1) or standalone (2) of a declaration can be this.
fn is_declared(key: usize, value: &[u8]) -> bool {
    match key {
        0 => value
            .strip_prefix(b"1.")
            .is_some_and(|minor| !minor.is_empty() && minor.iter().all(u8::is_ascii_digit)),
        1 => {
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
            value.first().is_some_and(u8::is_ascii_alphabetic) && value.iter().all(fits)
        }
        _ => matches!(value, b"yes" | b"no"),
    }
}

pub(super) fn instruction(token: &[u8]) -> Result<(), Wrong> {
    let body = token.get(..token.len().saturating_sub(2)).unwrap_or_default();
    let end = name(body, 2);
    if end == 2 {
        return Wrong::grammar(0, "a processing instruction without a name");
    }
    if body.get(2..end).is_some_and(|name| name.eq_ignore_ascii_case(b"xml")) {
        return Wrong::grammar(0, "an XML declaration that is not written <?xml");
    }
    if end < body.len() && spaces(body, end) == end {
        return Wrong::grammar(end, "a character that no processing instruction's name has");
    }
    Ok(())
}

pub(super) fn comment(token: &[u8]) -> Result<(), Wrong> {
    let from = b"<!--".len();
    // With the first of the two hyphens that end it, so that one before them counts too.
    let inner = token.get(from..token.len().saturating_sub(b"->".len())).unwrap_or_default();
    match inner.windows(2).position(|pair| pair == b"--") {
        Some(at) => Wrong::grammar(from + at, "two hyphens within a comment"),
        None => Ok(()),
    }
}

pub(super) fn doctype(token: &[u8]) -> Result<(), Wrong> {
    let key = b"<!DOCTYPE";
    if !token.starts_with(key) {
        return Wrong::grammar(0, "a DOCTYPE that is not written in capitals");
    }
    let from = spaces(token, key.len());
    if from == key.len() || name(token, from) == from {
        return Wrong::grammar(from, "a DOCTYPE without a name");
    }
    Ok(())
}

/// The label of the encoding that a file's first bytes declare, if they do. They are in an
/// encoding that writes such a declaration as ASCII does.
pub(super) fn declared_label(head: &[u8]) -> Option<&[u8]> {
    if !head.starts_with(b"<?xml") || !head.get(5).copied().is_some_and(is_space) {
        return None;
    }
    let end = head.windows(2).position(|pair| pair == b"?>")?;
    let (from, to) = declaration(head.get(..end + 2)?).ok()??;
    head.get(from..to)
}
