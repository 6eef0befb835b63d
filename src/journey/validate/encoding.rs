//! Encodings: what a file's first bytes say, and the way to UTF-8.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::model::outcome::Fault;
use crate::model::route::{Encoding, RouteName};
use crate::model::step::Conversion;

use super::flaw;

/// So many bytes tell an encoding.
pub(super) const HEAD_BYTES: usize = 8;

const BOM_8: &[u8] = b"\xef\xbb\xbf";
const BOM_LE: &[u8] = b"\xff\xfe";
const BOM_BE: &[u8] = b"\xfe\xff";

/// What a file's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Text from byte `skip` on.
    Text {
        /// What is done to it.
        conversion: Option<Conversion>,
        /// Length of the byte order mark.
        skip: usize,
    },
    /// The file stops within a byte order mark.
    Stops,
    /// It is in another encoding than the route says; what the file looks like.
    Misfit(Misfit),
}

/// What a file looks like that does not fit its route's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// A UTF-8 byte order mark where the route takes UTF-8 without.
    BomRefused,
    Utf8Bom,
    Utf16Bom,
    Utf32,
    Utf16NoBom,
    Utf16BeNoBom,
    EightBit,
}

impl Misfit {
    /// The fault in full.
    pub(super) fn fault(self, route: &RouteName) -> Fault {
        let (plain, remedy) = match self {
            Self::BomRefused => (
                format!("the file begins with a byte order mark, which route {route} refuses"),
                format!("Set encoding = 'auto' for route {route} to have it dropped."),
            ),
            Self::Utf8Bom => (
                format!(
                    "the file begins with a UTF-8 byte order mark, but route {route} expects \
                     another encoding"
                ),
                format!("Set encoding = 'auto' for route {route}."),
            ),
            Self::Utf16Bom => (
                format!(
                    "the file begins with a UTF-16 byte order mark, but route {route} expects \
                     another encoding"
                ),
                format!("Set encoding = 'auto' or 'utf-16' for route {route}."),
            ),
            Self::Utf32 => (
                "the file looks like UTF-32, which patchdrop does not read".to_owned(),
                "Have the file written in UTF-8.".to_owned(),
            ),
            Self::Utf16NoBom => (
                format!(
                    "the file looks like UTF-16 without a byte order mark; set encoding = \
                     'utf-16' for route {route}"
                ),
                format!(
                    "Set encoding = 'utf-16' for route {route}, or have the file written in UTF-8."
                ),
            ),
            Self::Utf16BeNoBom => (
                "the file looks like big-endian UTF-16 without a byte order mark".to_owned(),
                "Have the file written with a byte order mark, or in UTF-8.".to_owned(),
            ),
            Self::EightBit => (
                format!("the file does not look like UTF-16, which route {route} expects"),
                format!("Set encoding = 'auto' for route {route} if its files are in UTF-8."),
            ),
        };
        let code = if self == Self::BomRefused { "bom-refused" } else { "wrong-encoding" };
        flaw::fault(code, plain, remedy)
    }
}

/// Reads the first bytes; `whole`: the file has no others. At least [`HEAD_BYTES`] unless whole.
pub(super) fn recognise(encoding: Encoding, head: &[u8], whole: bool) -> Head {
    let text = |conversion, skip| Head::Text { conversion, skip };
    if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
        return Head::Misfit(Misfit::Utf32);
    }
    if head.starts_with(BOM_8) {
        return match encoding {
            Encoding::Auto => text(Some(Conversion::Utf8BomDropped), BOM_8.len()),
            Encoding::Utf8 => Head::Misfit(Misfit::BomRefused),
            Encoding::Utf16 | Encoding::Windows1252 => Head::Misfit(Misfit::Utf8Bom),
        };
    }
    for (mark, conversion) in [(BOM_LE, Conversion::Utf16Le), (BOM_BE, Conversion::Utf16Be)] {
        if head.starts_with(mark) {
            return match encoding {
                Encoding::Auto | Encoding::Utf16 => text(Some(conversion), mark.len()),
                Encoding::Utf8 | Encoding::Windows1252 => Head::Misfit(Misfit::Utf16Bom),
            };
        }
    }
    let begins_mark = whole && matches!(head, b"\xef" | b"\xef\xbb" | b"\xff" | b"\xfe");
    match encoding {
        Encoding::Auto if begins_mark => Head::Stops,
        Encoding::Utf16 if begins_mark && head.len() == 1 => Head::Stops,
        Encoding::Auto | Encoding::Utf8 => wide(head).map_or(text(None, 0), Head::Misfit),
        Encoding::Windows1252 => {
            wide(head).map_or(text(Some(Conversion::Windows1252), 0), Head::Misfit)
        }
        Encoding::Utf16 => match head {
            [0, low, ..] if *low != 0 => Head::Misfit(Misfit::Utf16BeNoBom),
            [low, high, ..] if *low != 0 && *high != 0 => Head::Misfit(Misfit::EightBit),
            _ => text(Some(Conversion::Utf16Le), 0),
        },
    }
}

/// Whether the pattern of NUL bytes is that of wide characters. A document followed by nothing
/// but NUL bytes is none: its writer may have reserved the space.
fn wide(head: &[u8]) -> Option<Misfit> {
    match head {
        [0, 0, 0, low, ..] if *low != 0 => Some(Misfit::Utf32),
        [low, 0, 0, 0, next, ..] if *low != 0 && *next != 0 => Some(Misfit::Utf32),
        [0, low, 0, next, ..] if *low != 0 && *next != 0 => Some(Misfit::Utf16BeNoBom),
        [low, 0, next, 0, ..] if *low != 0 && *next != 0 => Some(Misfit::Utf16NoBom),
        _ => None,
    }
}

/// The decoder of a conversion; none where bytes are only dropped.
pub(super) fn decoder(conversion: Conversion) -> Option<Decoder> {
    let encoding = match conversion {
        Conversion::Utf8BomDropped => return None,
        Conversion::Utf16Le => UTF_16LE,
        Conversion::Utf16Be => UTF_16BE,
        Conversion::Windows1252 => WINDOWS_1252,
    };
    Some(encoding.new_decoder_without_bom_handling())
}

/// Whether windows-1252 leaves this byte unassigned. (The WHATWG's table, which `encoding_rs`
/// follows, makes control characters of them.)
pub(super) fn is_unassigned(byte: u8) -> bool {
    matches!(byte, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d)
}

/// Whether a file that is taken for windows-1252 reads as UTF-8 too. Texts with letters beyond
/// ASCII hardly do so by chance: such a file's letters would come out as pairs of odd ones.
#[derive(Default)]
pub(super) struct Utf8Watch {
    /// Letters beyond ASCII were seen.
    beyond_ascii: bool,
    /// Something that is no UTF-8 was seen.
    other: bool,
    /// The last block ended within a letter.
    cut: bool,
}

impl Utf8Watch {
    /// Takes the next block of the file.
    pub(super) fn take(&mut self, block: &[u8]) {
        if self.other || (block.is_ascii() && !self.cut) {
            return;
        }
        let is_rest = |byte: &&u8| self.cut && matches!(byte, 0x80..=0xbf);
        let rest = block.iter().take(3).take_while(is_rest).count();
        let read = std::str::from_utf8(&block[rest..]);
        self.beyond_ascii = true;
        self.cut = read.is_err_and(|error| error.error_len().is_none());
        self.other = read.is_err() && !self.cut;
    }

    /// What is put on record at the end of the file.
    pub(super) fn remark(&self) -> Option<String> {
        (self.beyond_ascii && !self.other && !self.cut).then(|| {
            "the file was converted from windows-1252 but reads as UTF-8 too: if its letters come \
             out as pairs of odd ones, set encoding = 'auto'"
                .to_owned()
        })
    }
}

/// Streams a file's text: exactly the bytes that `validate` took for it.
pub(super) fn converted_reader<R: Read + Send>(
    input: R,
    conversion: Option<Conversion>,
) -> impl Read + Send {
    let mark: &[u8] = match conversion {
        None | Some(Conversion::Windows1252) => b"",
        Some(Conversion::Utf8BomDropped) => BOM_8,
        Some(Conversion::Utf16Le) => BOM_LE,
        Some(Conversion::Utf16Be) => BOM_BE,
    };
    let decoder = conversion.and_then(decoder);
    let block = vec![0; if decoder.is_some() { 32 * 1024 } else { HEAD_BYTES }];
    Converted {
        input,
        mark,
        decoder,
        block,
        from: 0,
        to: 0,
        ended: false,
        done: false,
        spare: [0; 4],
        spared: 0..0,
    }
}

struct Converted<R> {
    input: R,
    /// The byte order mark, until the first read.
    mark: &'static [u8],
    decoder: Option<Decoder>,
    /// Raw bytes; those from `from` to `to` are to be converted or handed out.
    block: Vec<u8>,
    from: usize,
    to: usize,
    /// The file has ended.
    ended: bool,
    /// And everything of it is converted.
    done: bool,
    /// Converted bytes that did not fit a reader's small buffer.
    spare: [u8; 4],
    spared: std::ops::Range<usize>,
}

impl<R: Read> Read for Converted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if !self.mark.is_empty() {
            let mark = std::mem::take(&mut self.mark);
            let length = fill(&mut self.input, &mut self.block[..mark.len()])?;
            (self.from, self.to) = (0, length);
            if self.block[..length] == *mark {
                self.from = length;
            }
        }
        if self.decoder.is_some() {
            return self.convert(out);
        }
        if self.from < self.to {
            let length = out.len().min(self.to - self.from);
            out[..length].copy_from_slice(&self.block[self.from..self.from + length]);
            self.from += length;
            return Ok(length);
        }
        self.input.read(out)
    }
}

impl<R: Read> Converted<R> {
    fn convert(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.spared.is_empty() {
                let length = out.len().min(self.spared.len());
                let end = self.spared.start + length;
                out[..length].copy_from_slice(&self.spare[self.spared.start..end]);
                self.spared.start = end;
                return Ok(length);
            }
            let Some(decoder) = self.decoder.as_mut().filter(|_| !self.done) else { return Ok(0) };
            if self.from == self.to && !self.ended {
                (self.from, self.to) = (0, fill(&mut self.input, &mut self.block)?);
                self.ended = self.to < self.block.len();
            }
            let spare = out.len() < self.spare.len();
            let target = if spare { &mut self.spare[..] } else { &mut *out };
            let raw = &self.block[self.from..self.to];
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(raw, target, self.ended);
            self.from += read;
            self.done = match result {
                DecoderResult::InputEmpty => self.ended,
                DecoderResult::OutputFull => false,
                DecoderResult::Malformed(..) => {
                    let what = "the file can no longer be converted";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            };
            if spare {
                self.spared = 0..written;
            } else if written > 0 {
                return Ok(written);
            }
        }
    }
}

/// Reads until `buffer` is full or the file ends.
pub(super) fn fill(input: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
