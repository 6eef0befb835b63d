//! What is put round a file's text to make the body, and the way through it a second time.

use std::io::{self, Read};

use bytes::Bytes;

use super::encoding::{self, converted_reader};
use crate::model::step::{Conversion, Wrap};

/// So much text is escaped at a time; it becomes six times as much at most.
const PIECE_BYTES: usize = 8 * 1024;

/// What stands before and behind the text.
pub(super) fn ends(wrap: Wrap) -> (&'static [u8], &'static [u8]) {
    match wrap {
        Wrap::Payload => (b"{\"payload\":\"", b"\"}"),
    }
}

/// Bytes that are put round a text of any length.
pub(super) fn overhead(wrap: Wrap) -> u64 {
    let (before, behind) = ends(wrap);
    (before.len() + behind.len()) as u64
}

/// Appends a piece of UTF-8 as it stands in a JSON string (RFC 8259): quotes, backslashes and
/// control characters escaped, everything else as it is. A character may be cut at either end.
pub(super) fn escape(piece: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(piece.len());
    let mut rest = piece;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = from[0];
        let short = match byte {
            b'"' | b'\\' => Some(byte),
            b'\n' => Some(b'n'),
            b'\r' => Some(b'r'),
            b'\t' => Some(b't'),
            0x08 => Some(b'b'),
            0x0c => Some(b'f'),
            _ => None,
        };
        if let Some(letter) = short {
            out.extend_from_slice(&[b'\\', letter]);
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
        rest = &from[1..];
    }
    out.extend_from_slice(rest);
}

/// A whole text in its wrap.
pub(super) fn around(wrap: Wrap, text: &[u8]) -> Bytes {
    let (before, behind) = ends(wrap);
    let mut body = before.to_vec();
    escape(text, &mut body);
    body.extend_from_slice(behind);
    Bytes::from(body)
}

/// Streams the body of a file again for sending: exactly the bytes that `validate` hashed as the
/// body, as long as the file is the one it read.
///
/// # Errors
/// Those of `input`, and `InvalidData` if the file can no longer be converted: then it was changed.
pub fn body_reader<R: Read + Send>(
    input: R,
    conversion: Option<Conversion>,
    wrap: Option<Wrap>,
) -> impl Read + Send {
    let pending = wrap.map(|wrap| ends(wrap).0.to_vec()).unwrap_or_default();
    let block = vec![0; if wrap.is_some() { PIECE_BYTES } else { 0 }];
    Body { text: converted_reader(input, conversion), wrap, block, pending, at: 0 }
}

struct Body<R> {
    text: R,
    /// `None` also once the text has ended.
    wrap: Option<Wrap>,
    block: Vec<u8>,
    /// Escaped bytes; those from `at` on are to be handed out.
    pending: Vec<u8>,
    at: usize,
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.at == self.pending.len() {
            let Some(wrap) = self.wrap else {
                return if self.block.is_empty() { self.text.read(out) } else { Ok(0) };
            };
            let length = encoding::fill(&mut self.text, &mut self.block)?;
            self.pending.clear();
            self.at = 0;
            escape(&self.block[..length], &mut self.pending);
            if length < self.block.len() {
                self.pending.extend_from_slice(ends(wrap).1);
                self.wrap = None;
            }
        }
        let length = out.len().min(self.pending.len() - self.at);
        out[..length].copy_from_slice(&self.pending[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
