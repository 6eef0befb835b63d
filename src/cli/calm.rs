//! What goes out to a terminal and steers it no further than a colour does. Whatever commands show,
//! some of it was written by others: names of files, answers of servers, a record that lies where
//! the service's account may write, shown to root.

use std::io::{self, Write};

/// No colour takes more bytes.
const COLOUR_MAX: usize = 24;

/// Shows what would steer a terminal as it is written: `\u{1b}`. Line ends, tabs and colours pass.
pub(crate) struct Calm<W> {
    inner: W,
    /// The beginning of what may be a colour or a letter; its end is still to come.
    held: Vec<u8>,
}

/// What begins at a place in the text.
enum Next {
    /// So many bytes that may pass.
    Passes(usize),
    /// A control character of so many bytes.
    Control(u8, usize),
    /// What cannot be told before more has come.
    Unfinished,
}

impl<W: Write> Calm<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, held: Vec::new() }
    }
}

fn next(text: &[u8]) -> Next {
    match text {
        [b'\n' | b'\t', ..] => Next::Passes(1),
        [0x1b, rest @ ..] => colour(rest),
        [control @ (0..=0x1f | 0x7f), ..] => Next::Control(*control, 1),
        // The control characters beyond ASCII, as UTF-8 writes them.
        [0xc2] => Next::Unfinished,
        [0xc2, control @ 0x80..=0x9f, ..] => Next::Control(*control, 2),
        text => {
            let is_odd = |byte: &u8| matches!(byte, 0..=0x1f | 0x7f | 0xc2);
            let plain = text.iter().skip(1).position(is_odd).map_or(text.len(), |at| at + 1);
            Next::Passes(plain)
        }
    }
}

/// After an escape: numbers between `[` and `m` are a colour.
fn colour(rest: &[u8]) -> Next {
    let control = Next::Control(0x1b, 1);
    match rest {
        [] => Next::Unfinished,
        [b'[', numbers @ ..] => {
            let end = numbers.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';'));
            match end.map(|end| (end, numbers.get(end))) {
                Some((end, Some(b'm'))) if end < COLOUR_MAX => Next::Passes(end + 3),
                None if numbers.len() < COLOUR_MAX => Next::Unfinished,
                _ => control,
            }
        }
        _ => control,
    }
}

impl<W: Write> Write for Calm<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        let (mut calm, mut rest) = (Vec::with_capacity(text.len()), text.as_slice());
        while !rest.is_empty() {
            let taken = match next(rest) {
                Next::Passes(taken) => {
                    calm.extend_from_slice(rest.get(..taken).unwrap_or_default());
                    taken
                }
                Next::Control(control, taken) => {
                    write!(calm, "\\u{{{control:x}}}")?;
                    taken
                }
                Next::Unfinished => {
                    self.held = rest.to_vec();
                    break;
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        self.inner.write_all(&calm)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What has not been ended by now is no colour.
        for byte in std::mem::take(&mut self.held) {
            match byte {
                0x1b => write!(self.inner, "\\u{{1b}}")?,
                other => self.inner.write_all(&[other])?,
            }
        }
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut calm = Calm::new(Vec::new());
        for piece in pieces {
            calm.write_all(piece).unwrap();
        }
        calm.flush().unwrap();
        String::from_utf8(calm.inner).unwrap()
    }

    #[test]
    fn colours_pass_and_nothing_else_that_steers() {
        let check = |text: &str, expected: &str| {
            assert_eq!(shown(&[text.as_bytes()]), expected);
            // However it is cut into pieces.
            for at in 1..text.len() {
                let (one, other) = text.as_bytes().split_at(at);
                assert_eq!(shown(&[one, other]), expected, "{text:?} cut at {at}");
            }
        };
        check("a\tb\nzwölf «x»\n", "a\tb\nzwölf «x»\n");
        check("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m");
        check("\x1b[2Jgone", "\\u{1b}[2Jgone");
        check("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}");
        check("over\rwritten\x08", "over\\u{d}written\\u{8}");
        check("\u{9b}2J\u{a0}.", "\\u{9b}2J\u{a0}.");
        check("end\x1b[1", "end\\u{1b}[1");
        check("\x1b\x1b[0m", "\\u{1b}\x1b[0m");
        let long = format!("\x1b[{}m", "1;".repeat(40));
        check(&long, &format!("\\u{{1b}}[{}m", "1;".repeat(40)));
    }
}
