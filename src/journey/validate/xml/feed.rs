//! An XML file as the reader of tokens sees it: text in UTF-8 without byte order mark, every
//! character allowed; and what is counted, hashed and kept while it goes by.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::MutexGuard;

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::super::encoding::{self as shared, Misfit};
use super::super::flaw::{Defect, Kind};
use super::super::schema::Schema;
use super::super::text::{Spot, Trail};
use super::super::{Block, Growing, Halt, Pass, Sound, Source};
use super::{TOKEN_FREE, XmlFlaw, token};
use crate::model::step::Conversion;

/// A declaration that names an encoding ends within so many bytes.
const HEAD_BYTES: usize = 1024;

/// A part of UTF-8, and of windows-1252, for which `encoding_rs` takes it.
const ASCII: &str = "US-ASCII";

/// The encoding that a file is in.
#[derive(Clone, Copy)]
struct Charset {
    encoding: &'static Encoding,
    /// Length of the byte order mark.
    skip: usize,
    /// Bytes that stand for nothing in it, though `encoding_rs` takes them.
    foreign: Option<fn(u8) -> bool>,
    /// What it is called.
    name: &'static str,
}

impl Charset {
    fn new(encoding: &'static Encoding, skip: usize) -> Self {
        Self { encoding, skip, foreign: None, name: encoding.name() }
    }
}

pub(super) struct Feed<'p, 's> {
    source: &'p mut Source<'s>,
    block: Block,
    charset: Charset,
    /// `None` for UTF-8, which needs none.
    decoder: Option<Decoder>,
    decoded: Vec<u8>,
    /// What is to be handed out, of the block or of what is decoded; at most so much at a time.
    piece: Range<usize>,
    step: usize,
    /// What is wrong behind it.
    pending: Option<Halt>,
    halt: Option<Halt>,
    is_at_end: bool,
    is_drained: bool,
    body: Growing,
    /// The text is put into an envelope, without byte order mark; else the file is the body.
    is_wrapped: bool,
    trail: Trail,
    /// The trail at the beginning of the token under way.
    token: Trail,
    /// Bytes of it that were handed out; `None` between tokens.
    token_bytes: Option<usize>,
    token_max: usize,
    turn: Option<MutexGuard<'static, ()>>,
}

impl<'p, 's> Feed<'p, 's> {
    /// Reads the first block and finds out the encoding.
    pub(super) fn open(pass: &Pass<'_>, source: &'p mut Source<'s>) -> Result<Self, Halt> {
        let is_wrapped = pass.checker.wrap.is_some();
        let least = if is_wrapped { pass.size.saturating_sub(3) } else { pass.size };
        let mut body = pass.body(false, least)?;
        let mut bytes = vec![0; pass.block_bytes.max(HEAD_BYTES)];
        let to = source.fill(&mut bytes)?;
        let ended = to < bytes.len();
        let head = bytes.get(..to).unwrap_or_default();
        let charset = charset(head)?;
        if !is_wrapped {
            body.put(head.get(..charset.skip).unwrap_or_default())?;
        }
        let start = Spot::start(conversion_of(charset.encoding), charset.skip as u64);
        let is_utf8 = charset.encoding == UTF_8;
        let decoder = (!is_utf8).then(|| charset.encoding.new_decoder_without_bom_handling());
        let mut feed = Self {
            source,
            decoded: vec![0; if is_utf8 { 0 } else { 3 * bytes.len() + 16 }],
            block: Block { bytes, from: charset.skip, to, ended },
            charset,
            decoder,
            piece: charset.skip..charset.skip,
            step: pass.block_bytes,
            pending: None,
            halt: None,
            is_at_end: false,
            is_drained: false,
            body,
            is_wrapped,
            token: Trail::new(start),
            trail: Trail::new(start),
            token_bytes: None,
            token_max: pass.checker.token_max,
            turn: None,
        };
        if !is_utf8 {
            feed.piece = 0..0;
            if is_wrapped && charset.name != ASCII {
                let flaw = XmlFlaw::EnvelopeEncoding(charset.name);
                return Err(feed.here(Kind::Xml(flaw)));
            }
        }
        Ok(feed)
    }

    /// The document is sound.
    pub(super) fn finish(self) -> Result<Sound, Halt> {
        let dropped = self.is_wrapped && self.charset.skip > 0;
        let conversion = dropped.then_some(Conversion::Utf8BomDropped);
        Ok(Sound { body: self.body.finish()?, conversion, remarks: Vec::new() })
    }

    /// Whether the encoding that the declaration names is the file's.
    pub(super) fn judge_label(&self, label: &[u8]) -> Result<(), XmlFlaw> {
        let Some(named) = known(label) else { return Err(XmlFlaw::UnknownEncoding) };
        let actual = self.charset.encoding;
        // "UTF-16" leaves the order of bytes to the byte order mark.
        let is_wide = label.eq_ignore_ascii_case(b"utf-16") && actual == UTF_16BE;
        let is_same = named.name == self.charset.name;
        if is_same || is_wide { Ok(()) } else { Err(XmlFlaw::OtherEncoding(self.charset.name)) }
    }

    pub(super) fn begin_token(&mut self) {
        self.token.copy_from(&self.trail);
        self.token_bytes = Some(0);
    }

    pub(super) fn end_token(&mut self) {
        self.token_bytes = None;
        self.turn = None;
    }

    /// The line that the token under way begins on.
    pub(super) fn token_line(&self) -> u64 {
        self.token.here.line()
    }

    /// A flaw in the token under way, at this index of what was read of it.
    pub(super) fn at_token(&self, token: &[u8], at: usize, kind: Kind) -> Halt {
        self.token.flaw(Defect::new(at, kind), token).into()
    }

    /// A flaw in what comes next.
    pub(super) fn here(&self, kind: Kind) -> Halt {
        self.trail.flaw(Defect::new(0, kind), self.left()).into()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// Why reading ended early, if it did.
    pub(super) fn take_halt(&mut self) -> Option<Halt> {
        self.halt.take()
    }

    /// The same after a read that failed.
    pub(super) fn halted(&mut self) -> Halt {
        self.halt.take().unwrap_or_else(|| Halt::Unread(io::Error::other("no reason is known")))
    }

    fn text(&self) -> &[u8] {
        if self.decoder.is_some() { &self.decoded } else { &self.block.bytes }
    }

    fn left(&self) -> &[u8] {
        self.text().get(self.piece.clone()).unwrap_or_default()
    }

    /// Makes the next piece; it stays empty at the end of the file.
    fn advance(&mut self) -> Result<(), Halt> {
        while self.piece.is_empty() && !self.is_drained {
            if let Some(halt) = self.pending.take() {
                return Err(halt);
            }
            self.block.refill(self.source)?;
            if self.decoder.is_some() { self.decode()? } else { self.take_utf8()? }
        }
        Ok(())
    }

    /// The next piece of a file in UTF-8: what is left of the block, as far as it is sound.
    fn take_utf8(&mut self) -> Result<(), Halt> {
        let Block { from, to, ended, .. } = self.block;
        let left = self.block.left();
        let (valid, cut) = match std::str::from_utf8(left) {
            Ok(_) => (left.len(), None),
            Err(error) => (error.valid_up_to(), Some(error.error_len().is_none())),
        };
        let wrong = match cut {
            Some(false) => Some(Kind::Xml(XmlFlaw::Bytes(UTF_8.name()))),
            Some(true) if ended => Some(Kind::StopsInCharacter),
            Some(true) | None => None,
        };
        let (good, kind) = match illegal(left.get(..valid).unwrap_or_default()) {
            Some((at, letter)) => (at, Some(Kind::Xml(XmlFlaw::Character(letter)))),
            None => (valid, wrong),
        };
        self.piece = from..from + good;
        self.pending = kind.map(|kind| self.behind(kind, from..to));
        self.is_drained = ended && kind.is_none();
        let piece = self.block.bytes.get(self.piece.clone()).unwrap_or_default();
        self.body.put(piece)?;
        self.block.from += good;
        Ok(())
    }

    /// The next piece of a file in another encoding.
    fn decode(&mut self) -> Result<(), Halt> {
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        let raw = self.block.left();
        let is_last = raw.is_empty() && self.block.ended;
        let foreign = self.charset.foreign;
        let strange = foreign.and_then(|foreign| raw.iter().position(|byte| foreign(*byte)));
        let good = raw.get(..strange.unwrap_or(raw.len())).unwrap_or_default();
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(good, &mut self.decoded, is_last);
        let malformed = matches!(result, DecoderResult::Malformed(..));
        let name = self.charset.name;
        let wrong = match malformed {
            true if is_last => Some(Kind::StopsInCharacter),
            true => Some(Kind::Xml(XmlFlaw::Bytes(name))),
            false if strange.is_some() && read == good.len() => {
                Some(Kind::Xml(XmlFlaw::Bytes(name)))
            }
            false => None,
        };
        let text = self.decoded.get(..written).unwrap_or_default();
        let (length, kind) = match illegal(text) {
            Some((at, letter)) => (at, Some(Kind::Xml(XmlFlaw::Character(letter)))),
            None => (written, wrong),
        };
        self.body.put(raw.get(..read).unwrap_or_default())?;
        self.block.from += read;
        self.piece = 0..length;
        self.pending = kind.map(|kind| self.behind(kind, 0..written));
        self.is_drained = is_last && kind.is_none();
        Ok(())
    }

    /// A flaw behind the piece; `all` is the text that was found with it.
    fn behind(&self, kind: Kind, all: Range<usize>) -> Halt {
        let all = self.text().get(all).unwrap_or_default();
        let defect = Defect::new(self.piece.len(), kind);
        let flaw = self.trail.flaw(defect, all);
        let is_raw_nul = self.decoder.is_none() || self.block.left().iter().all(|byte| *byte == 0);
        let nul_so_far = flaw.nul_follows && is_raw_nul;
        Halt::Flaw { flaw, nul_so_far }
    }

    /// Waits for its turn if the token under way is large; a token may be only so large.
    fn watch_token(&mut self) -> Result<(), Halt> {
        let bytes = self.token_bytes.unwrap_or_default();
        if bytes > self.token_max {
            return Err(self.at_token(&[], 0, Kind::Xml(XmlFlaw::TokenTooLarge)));
        }
        if bytes > TOKEN_FREE && self.turn.is_none() {
            self.turn = Some(Schema::turn());
        }
        Ok(())
    }
}

impl BufRead for Feed<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let ready = self.watch_token().and_then(|()| self.advance());
        if let Err(halt) = ready {
            self.halt = Some(halt);
            return Err(io::Error::other("the document cannot be read on"));
        }
        self.is_at_end = self.piece.is_empty();
        let end = self.piece.end.min(self.piece.start + self.step);
        Ok(self.text().get(self.piece.start..end).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        let read = self.piece.start..self.piece.start + length;
        let text = if self.decoder.is_some() { &self.decoded } else { &self.block.bytes };
        self.trail.advance(text.get(read.clone()).unwrap_or_default());
        self.piece.start = read.end;
        if let Some(bytes) = &mut self.token_bytes {
            *bytes += length;
        }
    }
}

impl Read for Feed<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let text = self.fill_buf()?;
        let length = text.len().min(buffer.len());
        buffer[..length].copy_from_slice(&text[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// The first character that XML does not allow, and where it is. The text is valid UTF-8.
fn illegal(text: &[u8]) -> Option<(usize, u32)> {
    text.iter().enumerate().find_map(|(at, byte)| match byte {
        b'\t' | b'\n' | b'\r' => None,
        0..0x20 => Some((at, u32::from(*byte))),
        // U+FFFE and U+FFFF.
        0xef if text.get(at + 1) == Some(&0xbf) => match text.get(at + 2) {
            Some(0xbe) => Some((at, 0xfffe)),
            Some(0xbf) => Some((at, 0xffff)),
            Some(_) | None => None,
        },
        _ => None,
    })
}

/// An encoding that a declaration may name.
fn known(label: &[u8]) -> Option<Charset> {
    let encoding = Encoding::for_label_no_replacement(label)?;
    let is_one_of =
        |names: &[&str]| names.iter().any(|name| label.eq_ignore_ascii_case(name.as_bytes()));
    // The WHATWG's table, which `encoding_rs` follows, takes both for the same.
    let mut charset = Charset::new(encoding, 0);
    if is_one_of(&["us-ascii", "ascii", "ansi_x3.4-1968", "iso-ir-6"]) {
        charset.foreign = Some(|byte| !byte.is_ascii());
        charset.name = ASCII;
    } else if is_one_of(&["windows-1252", "cp1252", "x-cp1252"]) {
        charset.foreign = Some(shared::is_unassigned);
    }
    Some(charset)
}

/// The encoding: by the byte order mark, else by the pattern of a declaration, else as it says.
fn charset(head: &[u8]) -> Result<Charset, Halt> {
    let of = |encoding, skip| Ok(Charset::new(encoding, skip));
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, b'<', ..] => {
            Err(Halt::Misfit(Misfit::Utf32))
        }
        [b'<', 0, 0, 0, next, ..] if *next != 0 => Err(Halt::Misfit(Misfit::Utf32)),
        [0xef, 0xbb, 0xbf, ..] => of(UTF_8, 3),
        [0xff, 0xfe, ..] => of(UTF_16LE, 2),
        [0xfe, 0xff, ..] => of(UTF_16BE, 2),
        [b'<', 0, next, 0, ..] if *next != 0 => of(UTF_16LE, 0),
        [0, b'<', 0, next, ..] if *next != 0 => of(UTF_16BE, 0),
        _ => {
            let named = token::declared_label(head).and_then(known);
            // A declaration in ASCII that names a wide encoding is wrong: its token says so.
            let named = named.filter(|named| ![UTF_16LE, UTF_16BE].contains(&named.encoding));
            named.map_or_else(|| of(UTF_8, 0), Ok)
        }
    }
}

/// So that places are told in bytes of the file too.
fn conversion_of(encoding: &'static Encoding) -> Option<Conversion> {
    if encoding == UTF_16LE {
        Some(Conversion::Utf16Le)
    } else if encoding == UTF_16BE {
        Some(Conversion::Utf16Be)
    } else if encoding == WINDOWS_1252 {
        Some(Conversion::Windows1252)
    } else {
        None
    }
}
