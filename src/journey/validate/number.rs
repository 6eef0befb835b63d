//! The grammar of a number, and whether a double can hold it.

/// Where in a number the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// The largest integer up to which a double holds every one: 2^53 - 1 (RFC 7493, section 2.2).
const EXACT_MAX: u64 = (1 << 53) - 1;
/// The largest double is 0.179... times ten to this power.
const TOP_MAGNITUDE: i64 = 309;
/// So many significant digits are kept; they fit 64 bits.
const DIGITS_KEPT: i64 = 19;

/// The length of a number that begins here, ends in this piece and needs no second look: no
/// exponent and few enough digits for a double. `None` for any other, and for what is no number.
#[inline]
pub(super) fn plain(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        text.get(from..)
            .map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count())
    };
    let start = usize::from(text.first() == Some(&b'-'));
    let whole = digits(start);
    if whole == 0 || whole > 15 || (whole > 1 && text[start] == b'0') {
        return None;
    }
    let mut end = start + whole;
    if text.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    }
    matches!(text.get(end), Some(b',' | b']' | b'}' | b' ' | b'\r' | b'\n')).then_some(end)
}

/// A number as far as it has been read. Its size does not grow with the number's length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) part: Part,
    /// The first significant digits.
    digits: u64,
    /// How many significant digits there were in all.
    significant: i64,
    /// Decimal point relative to the first significant digit: the value is 0.DIGITS times ten to
    /// this power (and to the exponent's).
    magnitude: i64,
    exponent: i64,
    exponent_negative: bool,
    is_integer: bool,
}

impl Number {
    /// A number that begins with `byte`: a minus or a digit.
    pub(super) fn begin(byte: u8) -> Self {
        let mut number = Self {
            part: Part::Minus,
            digits: 0,
            significant: 0,
            magnitude: 0,
            exponent: 0,
            exponent_negative: false,
            is_integer: true,
        };
        match byte {
            b'-' => {}
            b'0' => number.part = Part::Zero,
            _ => {
                number.part = Part::Whole;
                number.whole_digit(byte);
            }
        }
        number
    }

    #[inline]
    fn keep(&mut self, digit: u8) {
        if self.significant < DIGITS_KEPT {
            self.digits = self.digits * 10 + u64::from(digit - b'0');
        }
        self.significant += 1;
    }

    #[inline]
    fn whole_digit(&mut self, digit: u8) {
        self.keep(digit);
        self.magnitude += 1;
    }

    /// Takes the next byte. `Ok(false)`: it is no part of the number, which ended before it.
    /// `Err`: what is wrong with it.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, &'static str> {
        match (self.part, byte) {
            (Part::Minus, b'0') => self.part = Part::Zero,
            (Part::Minus, b'1'..=b'9') | (Part::Whole, b'0'..=b'9') => {
                self.part = Part::Whole;
                self.whole_digit(byte);
            }
            (Part::Minus, b'I') => return Err("Infinity, which JSON does not have,"),
            (Part::Minus, _) => return Err("a minus without a digit after it"),
            (Part::Zero, b'0'..=b'9') => return Err("a number with a leading zero"),
            (Part::Zero, b'x' | b'X') => return Err("a hexadecimal number"),
            (Part::Zero | Part::Whole, b'.') => self.part = Part::Point,
            (Part::Point | Part::Fraction, b'0'..=b'9') => {
                self.part = Part::Fraction;
                self.is_integer = false;
                if self.significant == 0 && byte == b'0' {
                    self.magnitude -= 1;
                } else {
                    self.keep(byte);
                }
            }
            (Part::Point, _) => return Err("a number without a digit after its point"),
            (Part::Zero | Part::Whole | Part::Fraction, b'e' | b'E') => {
                self.part = Part::Exponent;
                self.is_integer = false;
            }
            (Part::Exponent, b'+' | b'-') => {
                self.part = Part::ExponentSign;
                self.exponent_negative = byte == b'-';
            }
            (Part::Exponent | Part::ExponentSign | Part::ExponentDigits, b'0'..=b'9') => {
                self.part = Part::ExponentDigits;
                self.exponent =
                    self.exponent.saturating_mul(10).saturating_add((byte - b'0').into());
            }
            (Part::Exponent | Part::ExponentSign, _) => {
                return Err("a number without a digit in its exponent");
            }
            (Part::Zero | Part::Whole | Part::Fraction | Part::ExponentDigits, _) => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it may end here.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.part, Part::Zero | Part::Whole | Part::Fraction | Part::ExponentDigits)
    }

    /// Whether no double comes near it: a parser into doubles makes it infinite or fails.
    pub(super) fn overflows(&self) -> bool {
        let exponent = if self.exponent_negative { -self.exponent } else { self.exponent };
        let magnitude = self.magnitude.saturating_add(exponent);
        if self.digits == 0 || magnitude < TOP_MAGNITUDE {
            return false;
        }
        magnitude > TOP_MAGNITUDE
            || format!("0.{}e{TOP_MAGNITUDE}", self.digits)
                .parse::<f64>()
                .is_ok_and(f64::is_infinite)
    }

    /// Whether a double may hold something else: an integer beyond 2^53 - 1, or beyond its range.
    #[inline]
    pub(super) fn is_too_large(&self) -> bool {
        if self.is_integer {
            self.significant > DIGITS_KEPT || self.digits > EXACT_MAX
        } else {
            self.overflows()
        }
    }
}
