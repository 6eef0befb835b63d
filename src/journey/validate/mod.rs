//! The one pass over a file's bytes: is it what its route sends, how long is it, what is its
//! digest. In constant memory, from any reader; nothing is opened here (promises P8 and P10).
//!
//! # Codes
//!
//! | code | what is wrong |
//! |---|---|
//! | `empty` | no byte, or only white space; may still be written |
//! | `truncated` | the document stops in the middle, or the file ends in NUL bytes; may still be written |
//! | `not-json` | against the grammar of RFC 8259 |
//! | `not-xml` | not well-formed as XML 1.0 has it |
//! | `trailing-content` | something follows the document |
//! | `several-documents` | another document follows (NDJSON), or another root element |
//! | `invalid-utf8`, `invalid-utf16` | bytes that stand for no character |
//! | `wrong-encoding` | the file is in another encoding than the route, or its XML declaration, says; or in one that no envelope can carry |
//! | `bom-refused` | a byte order mark on a route with `encoding = 'utf-8'` |
//! | `control-character` | a control character in a string, or anywhere in XML |
//! | `too-deep` | nested deeper than `max_depth`, or than a schema is applied to (127) |
//! | `duplicate-key`, `number-too-large`, `lone-surrogate` | not I-JSON (RFC 7493); faults with `strict`, else remarks. A schema makes the last a fault too, and numbers beyond a double's range |
//! | `schema-violation` | not what the route's schema says |
//! | `schema-too-large` | larger than a schema is applied to |
//! | `body-too-large` | larger than `max_body`; an envelope is counted as it is sent |
//! | `xml-token-too-large` | a tag, comment or CDATA section that is too large to be held in memory |
//!
//! A fault's plain sentence never shows content of the file; its excerpt does (promise P11).

mod encoding;
mod flaw;
mod json;
mod keys;
mod number;
mod plain;
mod schema;
mod text;
mod wrap;
mod xml;

use std::io::{self, Read};
use std::sync::MutexGuard;

use bytes::Bytes;
use encoding_rs::{Decoder, DecoderResult};
use sha2::{Digest as _, Sha256};

use self::encoding::{HEAD_BYTES, Head, Misfit, Utf8Watch};
use self::flaw::Kind;
use self::json::Limits;
use self::plain::{Letters, Octets};
use self::schema::Schema;
use self::text::{Flaw, Scan, Spot, Text};
use crate::model::file::Digest;
use crate::model::outcome::Fault;
use crate::model::route::{CheckRules, Encoding, Format, RouteName};
use crate::model::step::{Conversion, Envelope, Wrap};

pub use self::schema::SchemaFault;
pub use self::wrap::body_reader;

/// Files are read in blocks of this many bytes; small files in one that fits them.
const BLOCK_BYTES: usize = 64 * 1024;
/// So much of a text is escaped at a time for an envelope.
const ESCAPE_BYTES: usize = 8 * 1024;
/// A document up to this size may be kept for its schema beside others; larger ones one at a time.
const SCHEMA_FREE_BYTES: usize = 256 * 1024;

/// Checks the files of one route.
pub struct Checker {
    format: Format,
    wrap: Option<Wrap>,
    encoding: Encoding,
    body_max_bytes: Option<u64>,
    limits: Limits,
    /// The largest token of an XML document, in bytes; it is held in memory.
    token_max: usize,
    schema: Option<Schema>,
    schema_max_bytes: usize,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What one pass found.
#[derive(Debug)]
pub struct Findings {
    /// SHA-256 of the file; `None` if it was not read to its end.
    pub digest: Option<Digest>,
    /// So many bytes were read.
    pub read_bytes: u64,
    /// What the file is.
    pub result: Checked,
}

/// What a file is.
pub enum Checked {
    /// It can be sent.
    Sound {
        /// The body.
        envelope: Envelope,
        /// The body itself, if it is small enough to be kept.
        body: Option<Bytes>,
    },
    /// It stops in the middle, or is empty: it may still be being written. The fault holds if it
    /// stays so for `truncated_after`.
    Truncated(Fault),
    /// It will not be sent.
    Faulty(Fault),
    /// It could not be read.
    Unread(io::Error),
}

/// Shows no content of the file: a body by its length, a fault without its excerpt.
impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sound { envelope, body } => f
                .debug_struct("Sound")
                .field("envelope", envelope)
                .field("kept_bytes", &body.as_ref().map(Bytes::len))
                .finish(),
            Self::Truncated(fault) => {
                write!(f, "Truncated({}: {})", fault.cause.code, fault.cause.plain)
            }
            Self::Faulty(fault) => write!(f, "Faulty({}: {})", fault.cause.code, fault.cause.plain),
            Self::Unread(error) => write!(f, "Unread({error})"),
        }
    }
}

impl Checker {
    /// Compiles the rules.
    ///
    /// # Errors
    /// The schema is no valid schema, or refers to another document.
    pub fn new(rules: &CheckRules) -> Result<Self, SchemaFault> {
        let schema = rules.schema.as_deref().filter(|_| rules.format == Format::Json);
        let schema = schema.map(Schema::new).transpose()?;
        let depth_by_schema = schema.is_some() && rules.max_depth > schema::DEPTH_MAX;
        let depth_max = if depth_by_schema { schema::DEPTH_MAX } else { rules.max_depth };
        let tree = schema.is_some();
        Ok(Self {
            format: rules.format,
            wrap: rules.wrap,
            encoding: rules.encoding,
            body_max_bytes: rules.body_max_bytes,
            limits: Limits { depth_max, depth_by_schema, strict: rules.strict, tree },
            token_max: xml::TOKEN_MAX,
            schema,
            schema_max_bytes: usize::try_from(rules.schema_max_bytes).unwrap_or(usize::MAX),
        })
    }

    /// Reads `input` to its end and says what it is. A faulty file is still read to its end, so
    /// that the digest covers all of it; one larger than `max_body` is not.
    ///
    /// `size` is what the file system tells, in bytes; `keep_max`: a body of at most so many bytes
    /// is kept in memory. On a route with a schema, up to `schema_max_bytes` more are held
    /// meanwhile (above 256 KiB by one call at a time, which others then wait for).
    pub fn validate(
        &self,
        route: &RouteName,
        input: &mut dyn Read,
        size: u64,
        keep_max: usize,
    ) -> Findings {
        self.in_blocks(route, input, size, keep_max, BLOCK_BYTES)
    }

    fn in_blocks(
        &self,
        route: &RouteName,
        input: &mut dyn Read,
        size: u64,
        keep_max: usize,
        block_bytes: usize,
    ) -> Findings {
        let mut source = Source { input, hash: Sha256::new(), read_bytes: 0 };
        if self.body_max_bytes.is_some_and(|max| self.least_body(size) > max) {
            let result = Checked::Faulty(self.too_large(size, size, route));
            return Findings { digest: None, read_bytes: 0, result };
        }
        let turn = self.early_turn(size, keep_max);
        let keep_for_schema = match (&self.schema, &turn) {
            (None, _) => 0,
            (Some(_), None) => self.schema_max_bytes.min(SCHEMA_FREE_BYTES),
            (Some(_), Some(_)) => self.schema_max_bytes,
        };
        let pass = Pass {
            checker: self,
            size,
            block_bytes: usize::try_from(size.saturating_add(1))
                .unwrap_or(block_bytes)
                .clamp(2 * HEAD_BYTES, block_bytes),
            keep_max: keep_max.max(keep_for_schema),
        };
        match pass.run(&mut source) {
            Ok(sound) => source.whole(self.sound(sound, route, keep_max, turn, source.digest())),
            Err(halt) => self.halted(halt, route, size, source),
        }
    }

    /// The turn of a document that is to be kept for its schema and may be large.
    fn early_turn(&self, size: u64, keep_max: usize) -> Option<MutexGuard<'static, ()>> {
        let largest = if self.encoding == Encoding::Utf8 { size } else { size.saturating_mul(3) };
        let free = u64::try_from(keep_max.max(SCHEMA_FREE_BYTES)).unwrap_or(u64::MAX);
        let max = u64::try_from(self.schema_max_bytes).unwrap_or(u64::MAX);
        let is_kept = self.least_text(size) <= max;
        (self.schema.is_some() && largest > free && is_kept).then(Schema::turn)
    }

    /// A sound text: applies the schema. `digest` is the file's.
    fn sound(
        &self,
        sound: Sound,
        route: &RouteName,
        keep_max: usize,
        turn: Option<MutexGuard<'static, ()>>,
        digest: Digest,
    ) -> Checked {
        let Sound { body, conversion, remarks } = sound;
        if let Some(schema) = &self.schema {
            let fits = body.text_bytes <= u64::try_from(self.schema_max_bytes).unwrap_or(u64::MAX);
            let Some(kept) = body.kept.as_ref().filter(|_| fits) else {
                return Checked::Faulty(self.too_large_for_schema(body.text_bytes, route));
            };
            let turn = turn.unwrap_or_else(Schema::turn);
            if let Err(fault) = schema.check(kept, route, turn) {
                return Checked::Faulty(fault);
            }
        }
        let digest = body.hash.map_or(digest, digest_of);
        let envelope = Envelope { digest, bytes: body.bytes, conversion, wrap: self.wrap, remarks };
        let fits = body.bytes <= keep_max as u64;
        let kept = body.kept.filter(|_| fits).map(|text| match self.wrap {
            None => text,
            Some(wrap) => wrap::around(wrap, &text),
        });
        Checked::Sound { envelope, body: kept }
    }

    /// The text is not sound: reads the rest for the digest.
    fn halted(&self, halt: Halt, route: &RouteName, size: u64, mut source: Source<'_>) -> Findings {
        let (mut flaw, nul_so_far) = match halt {
            Halt::Unread(error) => return source.partial(Checked::Unread(error)),
            Halt::TooLarge(bytes) => {
                return source.partial(Checked::Faulty(self.too_large(size, bytes, route)));
            }
            Halt::Misfit(misfit) => {
                return match source.drain() {
                    Ok(_) => source.whole(Checked::Faulty(misfit.fault(route))),
                    Err(error) => source.partial(Checked::Unread(error)),
                };
            }
            Halt::Flaw { flaw, nul_so_far } => (flaw, nul_so_far),
        };
        match source.drain() {
            Ok(nul_to_end) if nul_so_far && nul_to_end => flaw.kind = Kind::NulTail,
            Ok(_) => {}
            Err(error) => return source.partial(Checked::Unread(error)),
        }
        let fault = flaw.fault(route);
        let unfinished = flaw.kind.is_unfinished();
        source.whole(if unfinished { Checked::Truncated(fault) } else { Checked::Faulty(fault) })
    }

    /// `size` is the file's; the body has `bytes` or more.
    fn too_large(&self, size: u64, bytes: u64, route: &RouteName) -> Fault {
        let max = self.body_max_bytes.unwrap_or(u64::MAX);
        let large = match self.wrap {
            None => format!("{bytes} bytes or more"),
            Some(Wrap::Payload) => {
                let bytes = bytes.max(self.least_body(size));
                format!("its {size} bytes become {bytes} or more in an envelope")
            }
        };
        flaw::fault(
            "body-too-large",
            format!("the file is too large: {large}, route {route} sends up to {max}"),
            format!(
                "Raise max_body of route {route} if the receiver takes more, or split the file."
            ),
        )
    }

    /// No body made of a file of `size` bytes is smaller.
    fn least_body(&self, size: u64) -> u64 {
        self.least_text(size).saturating_add(self.wrap.map_or(0, wrap::overhead))
    }

    /// Nor is its text.
    fn least_text(&self, size: u64) -> u64 {
        match (self.format, self.wrap) {
            (Format::Json | Format::Text, _) => least_text(self.encoding, size),
            (Format::Xml, Some(_)) => size.saturating_sub(3),
            (Format::Xml, None) | (Format::Binary, _) => size,
        }
    }

    fn too_large_for_schema(&self, bytes: u64, route: &RouteName) -> Fault {
        let max = self.schema_max_bytes;
        flaw::fault(
            "schema-too-large",
            format!("the document has {bytes} bytes, a schema is applied to up to {max}"),
            format!("Raise schema_max of route {route}, remove its schema, or split the file."),
        )
    }
}

/// No text made of a file of `size` bytes is smaller.
fn least_text(encoding: Encoding, size: u64) -> u64 {
    match encoding {
        // UTF-16 takes two bytes where UTF-8 takes one.
        Encoding::Auto | Encoding::Utf16 => size.saturating_sub(2) / 2,
        Encoding::Utf8 | Encoding::Windows1252 => size,
    }
}

/// The same once the first bytes are known.
fn least_converted(conversion: Option<Conversion>, size: u64) -> u64 {
    match conversion {
        None | Some(Conversion::Windows1252) => size,
        Some(Conversion::Utf8BomDropped) => size.saturating_sub(3),
        Some(Conversion::Utf16Le | Conversion::Utf16Be) => size.saturating_sub(2) / 2,
    }
}

fn digest_of(hash: Sha256) -> Digest {
    Digest(hash.finalize().into())
}

/// The file as it is read: every byte is hashed.
struct Source<'a> {
    input: &'a mut dyn Read,
    hash: Sha256,
    read_bytes: u64,
}

impl Source<'_> {
    /// Reads until `buffer` is full or the file ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Halt> {
        let filled = encoding::fill(self.input, buffer).map_err(Halt::Unread)?;
        self.hash.update(&buffer[..filled]);
        self.read_bytes += filled as u64;
        Ok(filled)
    }

    /// Reads to the end; whether there were only NUL bytes, or none.
    fn drain(&mut self) -> io::Result<bool> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut only_nul = true;
        loop {
            let filled = encoding::fill(self.input, &mut block)?;
            if filled == 0 {
                return Ok(only_nul);
            }
            let read = &block[..filled];
            self.hash.update(read);
            self.read_bytes += filled as u64;
            only_nul = only_nul && read.iter().all(|byte| *byte == 0);
        }
    }

    fn digest(&self) -> Digest {
        digest_of(self.hash.clone())
    }

    /// The findings on a file that was read to its end.
    fn whole(&self, result: Checked) -> Findings {
        Findings { digest: Some(self.digest()), read_bytes: self.read_bytes, result }
    }

    /// The findings on a file that was not.
    fn partial(&self, result: Checked) -> Findings {
        Findings { digest: None, read_bytes: self.read_bytes, result }
    }
}

/// Why a pass ended early.
enum Halt {
    Unread(io::Error),
    /// The body has at least so many bytes.
    TooLarge(u64),
    Misfit(Misfit),
    Flaw {
        flaw: Flaw,
        /// What was read from the flaw on is NUL bytes and nothing else.
        nul_so_far: bool,
    },
}

impl From<Flaw> for Halt {
    fn from(flaw: Flaw) -> Self {
        let nul_so_far = flaw.nul_follows;
        Self::Flaw { flaw, nul_so_far }
    }
}

/// A sound text.
struct Sound {
    body: Body,
    conversion: Option<Conversion>,
    remarks: Vec<String>,
}

/// The body as it comes out of the pass.
struct Body {
    /// Where the body's bytes are not the file's.
    hash: Option<Sha256>,
    bytes: u64,
    text_bytes: u64,
    /// What is kept of the text in it: all, or nothing.
    kept: Option<Bytes>,
}

/// The body while it grows.
struct Growing {
    hash: Option<Sha256>,
    /// Of the body, and of the text in it: the same unless it is wrapped.
    bytes: u64,
    text_bytes: u64,
    kept: Option<Vec<u8>>,
    keep_max: usize,
    bytes_max: u64,
    wrap: Option<Wrap>,
    /// The last piece as it stands in the wrap.
    escaped: Vec<u8>,
}

impl Growing {
    /// Counts a piece of the body.
    fn count(&mut self, piece: &[u8]) -> Result<(), Halt> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(Halt::TooLarge(self.bytes));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(piece);
        }
        Ok(())
    }

    /// Takes a piece of the file's text.
    fn put(&mut self, piece: &[u8]) -> Result<(), Halt> {
        self.kept = self.kept.take().filter(|kept| kept.len() + piece.len() <= self.keep_max);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(piece);
        }
        self.text_bytes += piece.len() as u64;
        if self.wrap.is_none() {
            return self.count(piece);
        }
        let mut escaped = std::mem::take(&mut self.escaped);
        for piece in piece.chunks(ESCAPE_BYTES) {
            escaped.clear();
            wrap::escape(piece, &mut escaped);
            self.count(&escaped)?;
        }
        self.escaped = escaped;
        Ok(())
    }

    /// The text has ended.
    fn finish(mut self) -> Result<Body, Halt> {
        if let Some(wrap) = self.wrap {
            self.count(wrap::ends(wrap).1)?;
        }
        let Self { hash, bytes, text_bytes, kept, .. } = self;
        Ok(Body { hash, bytes, text_bytes, kept: kept.map(Bytes::from) })
    }
}

/// One pass over one file.
struct Pass<'a> {
    checker: &'a Checker,
    size: u64,
    block_bytes: usize,
    keep_max: usize,
}

/// The block that is being read: `bytes[from..to]` is still to be taken.
struct Block {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    /// The file has no more.
    ended: bool,
}

impl Block {
    /// Moves what is left to the front and fills up from the file.
    fn refill(&mut self, source: &mut Source<'_>) -> Result<(), Halt> {
        if self.from > 0 && self.to == self.bytes.len() {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if !self.ended && self.to < self.bytes.len() {
            self.to += source.fill(&mut self.bytes[self.to..])?;
            self.ended = self.to < self.bytes.len();
        }
        Ok(())
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }
}

impl Pass<'_> {
    fn run(&self, source: &mut Source<'_>) -> Result<Sound, Halt> {
        if self.checker.format == Format::Xml {
            return xml::run(self, source);
        }
        let max = self.checker.body_max_bytes.unwrap_or(u64::MAX);
        let mut bytes = vec![0; self.block_bytes];
        // A file that may be too large gives no more than what tells its encoding.
        let first = if self.size > max { HEAD_BYTES } else { bytes.len() };
        let to = source.fill(&mut bytes[..first])?;
        let ended = to < first;
        let head = match self.checker.format {
            Format::Xml | Format::Binary => Head::Text { conversion: None, skip: 0 },
            Format::Json | Format::Text => {
                encoding::recognise(self.checker.encoding, &bytes[..to], ended)
            }
        };
        let (conversion, skip) = match head {
            Head::Text { conversion, skip } => (conversion, skip),
            Head::Misfit(misfit) => return Err(Halt::Misfit(misfit)),
            Head::Stops => (None, to),
        };
        let least = least_converted(conversion, self.size);
        let block = Block { bytes, from: skip, to, ended };
        let body = self.body(conversion.is_some(), least)?;
        let start = Spot::start(conversion, skip as u64);
        match self.checker.format {
            Format::Json | Format::Xml => {
                let scan = Text::new(self.checker.limits, start);
                scanned(source, block, scan, body, conversion)
            }
            Format::Text => scanned(source, block, Letters::new(start), body, conversion),
            Format::Binary => scanned(source, block, Octets::new(), body, conversion),
        }
    }

    /// A body to be filled. `converted`: its text is not the bytes of the file. Its text has
    /// `least` bytes or more.
    fn body(&self, converted: bool, least: u64) -> Result<Growing, Halt> {
        let wrap = self.checker.wrap;
        let bytes_max = self.checker.body_max_bytes.unwrap_or(u64::MAX);
        let least_body = least.saturating_add(wrap.map_or(0, wrap::overhead));
        if least_body > bytes_max {
            return Err(Halt::TooLarge(least_body));
        }
        let mut body = Growing {
            hash: (converted || wrap.is_some()).then(Sha256::new),
            bytes: 0,
            text_bytes: 0,
            kept: Some(Vec::new()).filter(|_| least <= self.keep_max as u64),
            keep_max: self.keep_max,
            bytes_max,
            wrap,
            escaped: Vec::new(),
        };
        if let Some(wrap) = wrap {
            body.count(wrap::ends(wrap).0)?;
        }
        Ok(body)
    }
}

/// Takes a file of any format that is read piece by piece.
fn scanned(
    source: &mut Source<'_>,
    block: Block,
    mut scan: impl Scan,
    body: Growing,
    conversion: Option<Conversion>,
) -> Result<Sound, Halt> {
    if block.ended && block.left().is_empty() && conversion.is_none() && block.to > 0 {
        return Err(scan.stops().into());
    }
    let decoder = conversion
        .and_then(|conversion| encoding::decoder(conversion).map(|decoder| (conversion, decoder)));
    let (body, remark) = match decoder {
        None => (plain(source, block, &mut scan, body)?, None),
        Some((from, decoder)) => converted(source, block, &mut scan, body, from, decoder)?,
    };
    let remarks = scan.remarks().into_iter().chain(remark).collect();
    Ok(Sound { body, conversion, remarks })
}

/// Takes a file whose bytes are the body's.
fn plain(
    source: &mut Source<'_>,
    mut block: Block,
    text: &mut impl Scan,
    mut body: Growing,
) -> Result<Body, Halt> {
    block.refill(source)?;
    if block.ended && body.wrap.is_none() {
        text.take(block.left(), true)?;
        body.count(block.left())?;
        body.text_bytes = body.bytes;
        let Block { mut bytes, from, to, .. } = block;
        let fits = to - from <= body.keep_max;
        let kept = fits.then(|| {
            bytes.truncate(to);
            Bytes::from(bytes).slice(from..)
        });
        return Ok(Body { kept, ..body.finish()? });
    }
    loop {
        let taken = text.take(block.left(), block.ended)?;
        let (taken, _) = block.left().split_at(taken);
        body.put(taken)?;
        if block.ended {
            return body.finish();
        }
        block.from += taken.len();
        block.refill(source)?;
    }
}

/// Takes a file that is converted to UTF-8.
fn converted(
    source: &mut Source<'_>,
    mut block: Block,
    text: &mut impl Scan,
    mut body: Growing,
    conversion: Conversion,
    mut decoder: Decoder,
) -> Result<(Body, Option<String>), Halt> {
    // A byte becomes three at most.
    let mut out = vec![0; 3 * block.bytes.len()];
    let mut watch = Utf8Watch::default();
    loop {
        block.refill(source)?;
        let western = conversion == Conversion::Windows1252 && !block.left().is_ascii();
        let looked_at = if western { block.left() } else { b"" };
        let wrong = looked_at.iter().position(|byte| encoding::is_unassigned(*byte));
        if conversion == Conversion::Windows1252 {
            watch.take(block.left());
        }
        let good_to = wrong.map_or(block.to, |at| block.from + at);
        while block.from < good_to {
            let raw = &block.bytes[block.from..good_to];
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(raw, &mut out, false);
            block.from += read;
            let piece = &out[..written];
            text.take(piece, false).map_err(|flaw| {
                let nul_so_far = flaw.nul_follows && block.left().iter().all(|byte| *byte == 0);
                Halt::Flaw { flaw, nul_so_far }
            })?;
            body.put(piece)?;
            if let DecoderResult::Malformed(..) = result {
                return Err(text.unconvertible(Kind::InvalidUtf16).into());
            }
        }
        if let Some(byte) = block.left().first() {
            return Err(text.unconvertible(Kind::UnassignedByte(*byte)).into());
        }
        if block.ended {
            break;
        }
    }
    let (result, _, written) = decoder.decode_to_utf8_without_replacement(b"", &mut out, true);
    if let DecoderResult::Malformed(..) = result {
        return Err(text.stops().into());
    }
    let piece = &out[..written];
    text.take(piece, false)?;
    body.put(piece)?;
    text.take(b"", true)?;
    Ok((body.finish()?, watch.remark()))
}

#[cfg(test)]
mod tests;
