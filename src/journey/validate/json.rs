//! The grammar of JSON (RFC 8259) as a state machine: it takes pieces of valid UTF-8, cut
//! anywhere, and its memory grows with neither their length nor their nesting.

use super::flaw::{At, Defect, Kind};
use super::keys::Keys;
use super::number::{self, Number};

/// What is checked beside the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Deepest nesting.
    pub(super) depth_max: usize,
    /// Whether it is the schema that sets `depth_max`.
    pub(super) depth_by_schema: bool,
    /// Whether duplicate keys, numbers beyond a double and lone surrogates are faults.
    pub(super) strict: bool,
    /// Whether the document will be built as a tree, for a schema: that can hold neither lone
    /// surrogates nor numbers beyond a double's range.
    pub(super) tree: bool,
}

/// Something that a receiver may change, seen `count` times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    /// Where the first is, relative to the piece it was seen in.
    pub(super) first: Option<At>,
}

impl Tally {
    fn note(&mut self, at: At) {
        self.first.get_or_insert(at);
        self.count += 1;
    }
}

/// What a value stands after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Nothing,
    Bracket,
    Colon,
    Comma,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value, or after a bracket the array's end.
    Value(After),
    /// After an opening brace: a key, or the object's end.
    FirstKey,
    /// After a comma in an object.
    Key,
    Colon,
    /// After a value in an array or object.
    Next,
    /// After the document.
    Done,
    String,
    Escape,
    Hex,
    Number,
    Word,
}

/// The reader of one document.
pub(super) struct Parser {
    limits: Limits,
    state: State,
    /// One bit for each open array (0) or object (1).
    nesting: Vec<u64>,
    depth: usize,
    number: Number,
    /// The rest of `true`, `false` or `null`.
    word: &'static [u8],
    is_key: bool,
    /// Where the current string or number began; none if before this piece.
    token_at: Option<usize>,
    /// The same of the current escape, or of the first of two that may be a surrogate pair.
    escape_at: Option<usize>,
    hex: u16,
    hex_digits: u8,
    /// The first half of a surrogate pair, waiting for the second.
    high: Option<u16>,
    /// Whether a line ended since the document.
    line_ended: bool,
    keys: Keys,
    pub(super) duplicates: Tally,
    pub(super) numbers: Tally,
    pub(super) surrogates: Tally,
}

impl Parser {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Value(After::Nothing),
            nesting: Vec::new(),
            depth: 0,
            number: Number::begin(b'0'),
            word: b"",
            is_key: false,
            token_at: None,
            escape_at: None,
            hex: 0,
            hex_digits: 0,
            high: None,
            line_ended: false,
            keys: Keys::new(),
            duplicates: Tally::default(),
            numbers: Tally::default(),
            surrogates: Tally::default(),
        }
    }

    /// Whether some keys were too many to be compared.
    pub(super) fn keys_uncompared(&self) -> bool {
        self.keys.gave_up
    }

    /// Where the current string or number began.
    pub(super) fn token(&self) -> At {
        self.token_at.map_or(At::Token, At::Index)
    }

    /// Where the current escape began, or the first of two.
    pub(super) fn escape_began(&self) -> At {
        self.escape_at.map_or(At::Escape, At::Index)
    }

    /// Whether the next byte belongs to a string.
    pub(super) fn is_in_string(&self) -> bool {
        matches!(self.state, State::String | State::Escape | State::Hex)
    }

    /// Whether the next byte may belong to a string or number that has begun.
    pub(super) fn is_in_token(&self) -> bool {
        self.is_in_string() || self.state == State::Number
    }

    /// Whether the next byte may belong to an escape that has begun, or to the second of two.
    pub(super) fn is_in_escape(&self) -> bool {
        self.high.is_some() || matches!(self.state, State::Escape | State::Hex)
    }

    /// Takes the next piece: valid UTF-8 as a whole.
    pub(super) fn take(&mut self, text: &[u8]) -> Result<(), Defect> {
        self.token_at = None;
        self.escape_at = None;
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            at = match self.state {
                State::String => self.string(text, at)?,
                State::Number => self.digits(text, at)?,
                State::Word => self.letters(byte, at)?,
                State::Escape => self.escape(byte, at)?,
                State::Hex => self.hex_digit(byte, at)?,
                State::Value(_)
                | State::FirstKey
                | State::Key
                | State::Colon
                | State::Next
                | State::Done => {
                    if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                        self.white_space(text, at)
                    } else {
                        self.structure(text, at, byte)?
                    }
                }
            };
        }
        Ok(())
    }

    /// The text has ended, `at` bytes into its last piece. Whether the document is whole.
    pub(super) fn finish(&mut self, at: usize) -> Result<(), Defect> {
        if self.state == State::Number && self.depth == 0 && self.number.may_end() {
            self.number_ended()?;
        }
        if self.state == State::Done {
            return Ok(());
        }
        let nothing = self.state == State::Value(After::Nothing);
        let kind = if nothing { Kind::Empty } else { Kind::Stops(self.depth) };
        Err(Defect::new(at, kind))
    }

    #[inline]
    fn white_space(&mut self, text: &[u8], from: usize) -> usize {
        let mut at = from;
        loop {
            while text.get(at..at + 8) == Some(b"        ") {
                at += 8;
            }
            match text.get(at) {
                Some(b' ' | b'\r' | b'\t') => {}
                Some(b'\n') => self.line_ended = true,
                _ => return at,
            }
            at += 1;
        }
    }

    #[inline]
    fn structure(&mut self, text: &[u8], at: usize, byte: u8) -> Result<usize, Defect> {
        match (self.state, byte) {
            (State::Value(_) | State::FirstKey | State::Key, b'"') => {
                self.is_key = matches!(self.state, State::FirstKey | State::Key);
                self.token_at = Some(at);
                self.state = State::String;
                return self.string(text, at + 1);
            }
            (State::Value(_), b'-' | b'0'..=b'9') => {
                if let Some(length) = number::plain(&text[at..]) {
                    self.value_ended();
                    return Ok(at + length);
                }
                self.token_at = Some(at);
                self.number = Number::begin(byte);
                self.state = State::Number;
                return self.digits(text, at + 1);
            }
            (State::Value(_), b'{') => {
                self.open(true, at)?;
                self.state = State::FirstKey;
            }
            (State::Value(_), b'[') => {
                self.open(false, at)?;
                self.state = State::Value(After::Bracket);
            }
            (State::Value(_), b't' | b'f' | b'n') => return Ok(self.word(text, at, byte)),
            (State::Colon, b':') => self.state = State::Value(After::Colon),
            (State::Next, b',') => {
                let in_object = self.is_in_object();
                self.state = if in_object { State::Key } else { State::Value(After::Comma) };
            }
            (State::Next | State::FirstKey, b'}') if self.is_in_object() => self.close(),
            (State::Next | State::Value(After::Bracket), b']') if !self.is_in_object() => {
                self.close();
            }
            _ => return Err(self.misfit(text, at, byte)),
        }
        Ok(at + 1)
    }

    fn is_in_object(&self) -> bool {
        self.depth.checked_sub(1).is_some_and(|top| self.nesting[top / 64] >> (top % 64) & 1 == 1)
    }

    fn open(&mut self, object: bool, at: usize) -> Result<(), Defect> {
        let Limits { depth_max, depth_by_schema, .. } = self.limits;
        if self.depth >= depth_max {
            return Err(Defect::new(at, Kind::TooDeep(depth_max, depth_by_schema)));
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.nesting.len() {
            self.nesting.push(0);
        }
        self.nesting[word] = self.nesting[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        if object {
            self.keys.open_object();
        }
        Ok(())
    }

    fn close(&mut self) {
        if self.is_in_object() {
            self.keys.close_object();
        }
        self.depth -= 1;
        self.value_ended();
    }

    #[inline]
    fn value_ended(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::Next };
        self.line_ended = false;
    }

    #[inline]
    fn digits(&mut self, text: &[u8], from: usize) -> Result<usize, Defect> {
        let mut at = from;
        while let Some(&byte) = text.get(at) {
            match self.number.take(byte) {
                Ok(true) => at += 1,
                Ok(false) => {
                    self.number_ended()?;
                    break;
                }
                Err(what) => return Err(Defect::new(at, Kind::NotJson(what))),
            }
        }
        Ok(at)
    }

    #[inline]
    fn number_ended(&mut self) -> Result<(), Defect> {
        if self.number.is_too_large() {
            if self.limits.strict || (self.limits.tree && self.number.overflows()) {
                return Err(Defect { at: self.token(), kind: Kind::NumberTooLarge });
            }
            self.numbers.note(self.token());
        }
        self.value_ended();
        Ok(())
    }

    #[inline]
    fn word(&mut self, text: &[u8], at: usize, first: u8) -> usize {
        self.word = match first {
            b't' => b"rue",
            b'f' => b"alse",
            _ => b"ull",
        };
        let end = at + 1 + self.word.len();
        if text.get(at + 1..end) == Some(self.word) {
            self.value_ended();
            return end;
        }
        self.state = State::Word;
        at + 1
    }

    fn letters(&mut self, byte: u8, at: usize) -> Result<usize, Defect> {
        match self.word.split_first() {
            Some((expected, rest)) if *expected == byte => {
                self.word = rest;
                if rest.is_empty() {
                    self.value_ended();
                }
                Ok(at + 1)
            }
            _ => Err(Defect::new(at, Kind::NotJson("a word other than true, false and null"))),
        }
    }

    #[inline]
    fn string(&mut self, text: &[u8], from: usize) -> Result<usize, Defect> {
        let rest = text.get(from..).unwrap_or_default();
        let length = plain_run(rest);
        let (run, rest) = rest.split_at(length);
        let at = from + length;
        let next = rest.first().copied();
        if let Some(high) = self.high
            && (!run.is_empty() || next.is_some_and(|byte| byte != b'\\'))
        {
            self.high = None;
            self.lone_surrogate(high)?;
        }
        match next {
            Some(b'"') => {
                self.string_ended(run)?;
                // The colon mostly follows at once, which saves a turn.
                if self.state == State::Colon && rest.get(1) == Some(&b':') {
                    self.state = State::Value(After::Colon);
                    return Ok(at + 2);
                }
                Ok(at + 1)
            }
            Some(b'\\') => {
                if self.is_key {
                    self.keys.add(run);
                }
                if self.high.is_none() {
                    self.escape_at = Some(at);
                }
                self.state = State::Escape;
                Ok(at + 1)
            }
            Some(byte) => Err(Defect::new(at, Kind::ControlCharacter(byte))),
            None => {
                if self.is_key {
                    self.keys.add(run);
                }
                Ok(at)
            }
        }
    }

    #[inline]
    fn string_ended(&mut self, run: &[u8]) -> Result<(), Defect> {
        if !self.is_key {
            self.value_ended();
            return Ok(());
        }
        if self.keys.end(run) {
            if self.limits.strict {
                return Err(Defect { at: self.token(), kind: Kind::DuplicateKey });
            }
            self.duplicates.note(self.token());
        }
        self.state = State::Colon;
        Ok(())
    }

    fn escape(&mut self, byte: u8, at: usize) -> Result<usize, Defect> {
        if byte == b'u' {
            self.hex = 0;
            self.hex_digits = 0;
            self.state = State::Hex;
            return Ok(at + 1);
        }
        let meant = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => {
                let what = "a backslash before a character that needs none, or a single backslash,";
                return Err(Defect::new(at, Kind::NotJson(what)));
            }
        };
        if let Some(high) = self.high.take() {
            self.lone_surrogate(high)?;
        }
        if self.is_key {
            self.keys.add(&[meant]);
        }
        self.state = State::String;
        Ok(at + 1)
    }

    fn hex_digit(&mut self, byte: u8, at: usize) -> Result<usize, Defect> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            let what = "an escape \\u without four hexadecimal digits";
            return Err(Defect::new(at, Kind::NotJson(what)));
        };
        self.hex = self.hex << 4 | u16::try_from(digit).unwrap_or_default();
        self.hex_digits += 1;
        if self.hex_digits == 4 {
            self.state = State::String;
            self.unit()?;
        }
        Ok(at + 1)
    }

    /// An escape `\uXXXX` is complete.
    fn unit(&mut self) -> Result<(), Defect> {
        let unit = self.hex;
        let letter = match (self.high.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                char::decode_utf16([high, unit]).next().and_then(Result::ok)
            }
            (high, _) => {
                if let Some(high) = high {
                    self.lone_surrogate(high)?;
                }
                match unit {
                    0xd800..=0xdbff => self.high = Some(unit),
                    0xdc00..=0xdfff => self.lone_surrogate(unit)?,
                    _ => {}
                }
                char::from_u32(unit.into())
            }
        };
        if let Some(letter) = letter.filter(|_| self.is_key) {
            self.keys.add(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }

    fn lone_surrogate(&mut self, unit: u16) -> Result<(), Defect> {
        if self.limits.strict || self.limits.tree {
            return Err(Defect { at: self.escape_began(), kind: Kind::LoneSurrogate });
        }
        self.surrogates.note(self.escape_began());
        if self.is_key {
            // FF occurs in no UTF-8, so this stands for no other key.
            let [upper, lower] = unit.to_be_bytes();
            self.keys.add(&[0xff, upper, lower]);
        }
        Ok(())
    }

    /// What is wrong with a byte that does not fit here.
    fn misfit(&self, text: &[u8], at: usize, byte: u8) -> Defect {
        let rest = text.get(at..).unwrap_or_default();
        let kind = match (self.state, byte) {
            (State::Done, b'{' | b'[') => Kind::SeveralDocuments,
            (State::Done, b'"' | b'-' | b'0'..=b'9') if self.line_ended => Kind::SeveralDocuments,
            (State::Done, _) => Kind::TrailingContent,
            (State::Value(After::Nothing), b'<') => {
                Kind::NotJson("markup such as HTML or XML, which is not JSON,")
            }
            _ => Kind::NotJson(foreign(rest).unwrap_or_else(|| self.misplaced(byte))),
        };
        Defect::new(at, kind)
    }

    fn misplaced(&self, byte: u8) -> &'static str {
        match (self.state, byte) {
            (State::Value(After::Comma), b']') | (State::Key, b'}') => {
                "a comma with nothing after it (trailing comma)"
            }
            (State::Value(After::Colon), b',' | b'}' | b']') => "a key without a value",
            (State::Value(_) | State::Key | State::FirstKey, b',') => {
                "a comma with nothing before it"
            }
            (State::Value(_), b'+') => "a number with a plus sign",
            (State::Value(_), b'.') => "a number without a digit before its point",
            (State::Value(_), byte) if byte.is_ascii_alphabetic() => {
                "a word other than true, false and null, or text without quotes,"
            }
            (State::FirstKey | State::Key | State::Next, b']') => "a ] that closes an object",
            (State::FirstKey | State::Key, byte) if byte.is_ascii_alphanumeric() => {
                "a key without double quotes"
            }
            (State::Value(_), _) => "something that begins no value",
            (State::FirstKey | State::Key, _) => "something that is no key",
            (State::Colon, _) => "a key without a colon after it",
            (State::Next, b'}') => "a } that closes an array",
            (State::Next, b':') => "a colon that belongs to no key",
            (State::Next, b'"' | b'{' | b'[' | b'-' | b'0'..=b'9') => {
                "a comma is missing between two values"
            }
            _ => "something other than a comma or a closing bracket after a value",
        }
    }
}

/// What often stands in files that are nearly JSON.
fn foreign(rest: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 14] = [
        (b"\0", "a NUL byte"),
        (b"'", "a single quote where JSON has double quotes"),
        (b"//", "a comment, which JSON does not have,"),
        (b"/*", "a comment, which JSON does not have,"),
        (b"#", "a comment, which JSON does not have,"),
        (b"NaN", "NaN, which JSON does not have,"),
        (b"Infinity", "Infinity, which JSON does not have,"),
        (b"undefined", "undefined, which JSON does not have,"),
        (b"True", "True, which JSON writes true,"),
        (b"False", "False, which JSON writes false,"),
        (b"None", "None, which JSON writes null,"),
        (b"\xef\xbb\xbf", "a byte order mark that is not at the beginning"),
        (b"\xe2\x80\x9c", "typographic quotes where JSON has plain double quotes"),
        (b"\xe2\x80\x9d", "typographic quotes where JSON has plain double quotes"),
    ];
    let known = KNOWN.iter().find(|(sign, _)| rest.starts_with(sign)).map(|(_, what)| *what);
    let beyond_ascii = rest.first().is_some_and(|byte| !byte.is_ascii());
    known.or_else(|| beyond_ascii.then_some("a character outside ASCII that is in no string"))
}

/// How many bytes of a string's inside come before a quote, a backslash or a control character.
/// Eight bytes at a time; a borrow can raise a false flag above a true one, never below it.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let special = control | quote | backslash;
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let plain = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
    words.len() * 8 + plain
}
