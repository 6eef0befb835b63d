//! A JSON document read piece by piece: whether it is one, what it is, and what one field of its
//! top object holds. In constant memory, and apart from the service's own code, so that one checks
//! the other.

use sha2::{Digest as _, Sha256};

use crate::model::file::Digest;

/// PHP's `json_decode` goes no deeper.
const DEPTH_MAX: usize = 512;

/// What a document is, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// Nothing but white space.
    Nothing,
    Object,
    Array,
    Scalar,
}

/// What the field holds that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Absent,
    /// A string, by what it means, not as it is escaped.
    Text {
        sha256: Digest,
        bytes: u64,
    },
    Other,
}

/// What a whole document turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document {
    /// Valid from its first to its last byte.
    pub(super) is_valid: bool,
    pub(super) root: Root,
    pub(super) field: Field,
}

#[derive(Clone, Copy)]
enum Expects {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Text { is_key: bool },
    Escape { is_key: bool },
    Hex { is_key: bool, left: u8, value: u16 },
    Number(Number),
    Word(&'static [u8]),
}

/// What of a number has been read.
#[derive(Clone, Copy)]
enum Number {
    Minus,
    Zero,
    Whole,
    Dot,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    /// What it is with one more byte; `None`: the byte does not belong to it.
    fn with(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Zero | Self::Whole, b'.') => Self::Dot,
            (Self::Dot | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::Exponent)
    }
}

/// The document so far.
pub(super) struct Reader {
    wanted: Vec<u8>,
    expects: Expects,
    /// The open brackets; true for an object.
    open: Vec<bool>,
    root: Root,
    field: Field,
    /// The key of the top object that is being read, as far as it can be the wanted one.
    key: Vec<u8>,
    /// Whether the value to come, or being read, is that of the wanted field.
    is_wanted: bool,
    text: Option<(Sha256, u64)>,
    /// The first half of a pair of `\u` escapes.
    high: Option<u16>,
    /// The begun character at the end of the last piece.
    partial: Vec<u8>,
    is_broken: bool,
}

impl Reader {
    /// A reader that looks for one field of the top object.
    pub(super) fn new(wanted: &str) -> Self {
        Self {
            wanted: wanted.as_bytes().to_vec(),
            expects: Expects::Value,
            open: Vec::new(),
            root: Root::Nothing,
            field: Field::Absent,
            key: Vec::new(),
            is_wanted: false,
            text: None,
            high: None,
            partial: Vec::new(),
            is_broken: false,
        }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.check_utf8(piece);
        let mut rest = piece;
        while !self.is_broken && !rest.is_empty() {
            if let Expects::Text { is_key } = self.expects {
                let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
                let plain = rest.iter().position(is_special).unwrap_or(rest.len());
                let (run, after) = rest.split_at(plain);
                self.is_broken |= self.high.is_some() && !run.is_empty();
                self.take(is_key, run);
                rest = after;
            }
            if let Some((byte, after)) = rest.split_first() {
                self.byte(*byte);
                rest = after;
            }
        }
    }

    pub(super) fn finish(mut self) -> Document {
        if let Expects::Number(number) = self.expects {
            self.is_broken |= !number.is_whole();
            self.expects = Expects::CommaOrEnd;
        }
        let is_whole = self.open.is_empty() && matches!(self.expects, Expects::CommaOrEnd);
        let is_valid = is_whole && !self.is_broken && self.partial.is_empty();
        Document { is_valid, root: self.root, field: self.field }
    }

    fn check_utf8(&mut self, piece: &[u8]) {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(piece);
        if let Err(error) = std::str::from_utf8(&all) {
            self.is_broken |= error.error_len().is_some();
            self.partial = all.split_off(error.valid_up_to());
        }
    }

    /// A piece of a string, unescaped.
    fn take(&mut self, is_key: bool, bytes: &[u8]) {
        if is_key {
            let room = (self.wanted.len() + 1).saturating_sub(self.key.len());
            self.key.extend_from_slice(&bytes[..bytes.len().min(room)]);
        } else if let Some((hasher, length)) = &mut self.text {
            hasher.update(bytes);
            *length += bytes.len() as u64;
        }
    }

    fn byte(&mut self, byte: u8) {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.expects {
            Expects::Text { is_key } => self.end_of_run(byte, is_key),
            Expects::Escape { is_key } => self.escape(byte, is_key),
            Expects::Hex { is_key, left, value } => self.hex(byte, is_key, left, value),
            Expects::Number(number) => match number.with(byte) {
                Some(number) => self.expects = Expects::Number(number),
                None if number.is_whole() => {
                    self.expects = Expects::CommaOrEnd;
                    self.byte(byte);
                }
                None => self.is_broken = true,
            },
            Expects::Word(word) => match word.split_first() {
                Some((first, rest)) if *first == byte => {
                    let is_over = rest.is_empty();
                    self.expects = if is_over { Expects::CommaOrEnd } else { Expects::Word(rest) };
                }
                _ => self.is_broken = true,
            },
            _ if is_space => {}
            Expects::ValueOrEnd if byte == b']' => self.close(false),
            Expects::Value | Expects::ValueOrEnd => self.value(byte),
            Expects::KeyOrEnd if byte == b'}' => self.close(true),
            Expects::Key | Expects::KeyOrEnd if byte == b'"' => {
                self.key.clear();
                self.expects = Expects::Text { is_key: true };
            }
            Expects::Colon if byte == b':' => {
                self.is_wanted = self.open.len() == 1 && self.key == self.wanted;
                self.expects = Expects::Value;
            }
            Expects::CommaOrEnd if byte == b',' && !self.open.is_empty() => {
                let is_object = self.open.last() == Some(&true);
                self.expects = if is_object { Expects::Key } else { Expects::Value };
            }
            Expects::CommaOrEnd if byte == b'}' => self.close(true),
            Expects::CommaOrEnd if byte == b']' => self.close(false),
            Expects::Key | Expects::KeyOrEnd | Expects::Colon | Expects::CommaOrEnd => {
                self.is_broken = true;
            }
        }
    }

    fn value(&mut self, byte: u8) {
        if self.open.is_empty() {
            self.root = match byte {
                b'{' => Root::Object,
                b'[' => Root::Array,
                _ => Root::Scalar,
            };
        }
        if std::mem::take(&mut self.is_wanted) {
            if byte == b'"' {
                self.text = Some((Sha256::new(), 0));
            } else {
                self.field = Field::Other;
            }
        }
        self.expects = match byte {
            b'{' | b'[' => {
                self.open.push(byte == b'{');
                self.is_broken |= self.open.len() > DEPTH_MAX;
                if byte == b'{' { Expects::KeyOrEnd } else { Expects::ValueOrEnd }
            }
            b'"' => Expects::Text { is_key: false },
            b'-' => Expects::Number(Number::Minus),
            b'0' => Expects::Number(Number::Zero),
            b'1'..=b'9' => Expects::Number(Number::Whole),
            b't' => Expects::Word(b"rue"),
            b'f' => Expects::Word(b"alse"),
            b'n' => Expects::Word(b"ull"),
            _ => {
                self.is_broken = true;
                return;
            }
        };
    }

    fn close(&mut self, is_object: bool) {
        self.is_broken |= self.open.pop() != Some(is_object);
        self.expects = Expects::CommaOrEnd;
    }

    /// What ends a run of plain characters in a string.
    fn end_of_run(&mut self, byte: u8, is_key: bool) {
        match byte {
            b'\\' => self.expects = Expects::Escape { is_key },
            b'"' => {
                self.is_broken |= self.high.is_some();
                if let Some((hasher, bytes)) = self.text.take() {
                    let sha256 = Digest(hasher.finalize().into());
                    self.field = Field::Text { sha256, bytes };
                }
                self.expects = if is_key { Expects::Colon } else { Expects::CommaOrEnd };
            }
            // A control character must be escaped.
            _ => self.is_broken = true,
        }
    }

    fn escape(&mut self, byte: u8, is_key: bool) {
        let plain = match byte {
            b'u' => {
                self.expects = Expects::Hex { is_key, left: 4, value: 0 };
                return;
            }
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => {
                self.is_broken = true;
                return;
            }
        };
        self.is_broken |= self.high.is_some();
        self.take(is_key, &[plain]);
        self.expects = Expects::Text { is_key };
    }

    fn hex(&mut self, byte: u8, is_key: bool, left: u8, value: u16) {
        let Some(digit) = char::from(byte).to_digit(16).and_then(|it| u16::try_from(it).ok())
        else {
            self.is_broken = true;
            return;
        };
        let (left, value) = (left - 1, value << 4 | digit);
        if left > 0 {
            self.expects = Expects::Hex { is_key, left, value };
            return;
        }
        self.expects = Expects::Text { is_key };
        let halves: Vec<u16> = self.high.take().into_iter().chain([value]).collect();
        match char::decode_utf16(halves.iter().copied()).next() {
            Some(Ok(character)) if halves.len() == character.len_utf16() => {
                self.take(is_key, character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(Err(_)) if halves.len() == 1 && (0xd800..0xdc00).contains(&value) => {
                self.high = Some(value);
            }
            _ => self.is_broken = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8], piece: usize) -> Document {
        let mut reader = Reader::new("payload");
        for piece in text.chunks(piece) {
            reader.push(piece);
        }
        reader.finish()
    }

    fn text(text: &str) -> Field {
        Field::Text {
            sha256: Digest(Sha256::digest(text.as_bytes()).into()),
            bytes: text.len() as u64,
        }
    }

    #[test]
    fn what_is_no_json_is_found_out_and_the_field_is_unescaped() {
        let check = |document: &[u8], is_valid: bool, root: Root, field: Field| {
            for piece in [1, 2, 3, 1_000] {
                let read = read(document, piece);
                let shown = String::from_utf8_lossy(document);
                assert_eq!(read.is_valid, is_valid, "{shown}");
                assert!(!is_valid || (read.root, read.field) == (root, field), "{shown}: {read:?}");
            }
        };
        let (object, array, scalar) = (Root::Object, Root::Array, Root::Scalar);
        check(b"{\"payload\":\"a\"}", true, object, text("a"));
        check(br#"{"payload":"\u00e9\ud83d\ude00\n\"\/"}"#, true, object, text("é😀\n\"/"));
        check("{\"payload\":\"ä\"}".as_bytes(), true, object, text("ä"));
        check(br#" { "a" : [1, {"payload":"no"}] , "payload" : "" } "#, true, object, text(""));
        check(br#"{"\u0070ayload":"x"}"#, true, object, text("x"));
        check(br#"{"payload":"x","payload":"y"}"#, true, object, text("y"));
        check(br#"{"payload":{"a":1}}"#, true, object, Field::Other);
        check(br#"{"payload":null}"#, true, object, Field::Other);
        check(br#"{"payloads":"x"}"#, true, object, Field::Absent);
        check(br#"[{"payload":"x"}]"#, true, array, Field::Absent);
        check(b"[-0.5e+3, 10, true, false, null, []]", true, array, Field::Absent);
        check(b"12", true, scalar, Field::Absent);
        for broken in [
            &b"{\"payload\":\"a"[..],
            b"{\"payload\":\"a\"",
            b"{\"payload\":\"\xff\"}",
            b"{\"payload\":\"\xc3\"}",
            b"{\"payload\":\"a\nb\"}",
            br#"{"payload":"\x"}"#,
            br#"{"payload":"\ud83d"}"#,
            br#"{"payload":"\ud83dx"}"#,
            br#"{"payload":"\ud83d\n"}"#,
            br#"{"payload":"\ude00"}"#,
            br#"{"payload":"\ud83d\u0041"}"#,
            br#"{"payload" "a"}"#,
            br#"{"payload":"a",}"#,
            br#"{"payload":"a"}}"#,
            br#"{"payload":"a"]"#,
            b"{} {}",
        ] {
            check(broken, false, object, Field::Absent);
        }
        for broken in [&b"[1,]"[..], b"[01]", b"[1.]", b"[-]", b"[1e]", b"[nul]", b"[1 2]"] {
            check(broken, false, array, Field::Absent);
        }
        check(b"-", false, scalar, Field::Absent);
        check(b"\xef\xbb\xbf{}", false, scalar, Field::Absent);
        check(b"  ", false, Root::Nothing, Field::Absent);
        for (depth, is_valid) in [(512, true), (513, false)] {
            let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            check(nested.as_bytes(), is_valid, array, Field::Absent);
        }
    }

    proptest! {
        #[test]
        fn whatever_serde_writes_is_read_back(content: String, piece in 1_usize..40) {
            let document = serde_json::json!({ "a": [content.clone()], "payload": content.clone() });
            let read = read(document.to_string().as_bytes(), piece);
            prop_assert!(read.is_valid);
            prop_assert_eq!(read.field, text(&content));
        }
    }
}
