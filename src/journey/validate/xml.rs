//! Whether a file is a well-formed XML 1.0 document (fifth edition). `quick-xml` cuts it into
//! tokens; what stands in a token is checked here, and text between tags is never gathered. No
//! entity is expanded and nothing is fetched: what a DOCTYPE declares is not looked at, but for its
//! characters. Namespaces are not checked: they are a specification of their own.

mod feed;
mod token;
mod words;

use std::io::BufRead as _;

use quick_xml::events::Event;
use quick_xml::{Error, Reader};

use self::feed::Feed;
use self::token::{Reference, Wrong};
use super::flaw::Kind;
use super::{Halt, Pass, Sound, Source};

/// The largest token (tag, comment, CDATA section, DOCTYPE, ...) in bytes; it is held in memory.
pub(super) const TOKEN_MAX: usize = 16 * 1024 * 1024;
/// Tokens up to this size may be held beside others; larger ones one at a time.
pub(super) const TOKEN_FREE: usize = 1024 * 1024;
/// The names of all open elements together may take this part of what a token may: they are held
/// however many files are checked at once.
const OPEN_NAMES: usize = 16;
/// A reference longer than this is none.
const REFERENCE_MAX: usize = 1024;

/// What is wrong with an XML document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XmlFlaw {
    /// Against the grammar; what stands there.
    NotXml(&'static str),
    /// An end tag for another element than the open one, which began on this line.
    EndTag(u64),
    SecondRoot,
    TrailingContent,
    /// A character that XML does not allow anywhere.
    Character(u32),
    /// Bytes that are not in the file's encoding; its name.
    Bytes(&'static str),
    /// The declaration names an encoding that is not known.
    UnknownEncoding,
    /// The declaration names another encoding than the one the file is in, which is this.
    OtherEncoding(&'static str),
    /// In an envelope a document is a text in UTF-8, and this one is in this encoding.
    EnvelopeEncoding(&'static str),
    TooDeep(usize),
    TokenTooLarge,
    /// The document stops in the middle, with this many elements open.
    Stops(usize),
}

/// Reads a document to its end.
pub(super) fn run(pass: &Pass<'_>, source: &mut Source<'_>) -> Result<Sound, Halt> {
    let feed = Feed::open(pass, source)?;
    let mut document = Document {
        reader: Reader::from_reader(feed),
        depth_max: pass.checker.limits.depth_max,
        token_max: pass.checker.token_max,
        token: Vec::new(),
        stage: Stage::Start,
        has_doctype: false,
        open: Vec::new(),
        open_bytes: 0,
        names: Vec::new(),
    };
    while document.step()? {}
    document.reader.into_inner().finish()
}

/// How far the document has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was read.
    Start,
    /// White space alone was read.
    Blank,
    /// Something, but not the root element.
    Prolog,
    /// Within the root element.
    Root,
    /// The root element has ended.
    Epilog,
}

/// An element that has not ended.
struct Open {
    line: u64,
    name_bytes: usize,
}

/// What a token is.
#[derive(Clone, Copy)]
enum Token {
    Start,
    Empty,
    End,
    CData,
    Comment,
    Declaration,
    Instruction,
    Doctype,
    /// None of these: the reader of tokens and this one do not agree.
    Other,
}

struct Document<'p, 's> {
    reader: Reader<Feed<'p, 's>>,
    depth_max: usize,
    token_max: usize,
    /// The token that was read last, as it stands in the document.
    token: Vec<u8>,
    stage: Stage,
    has_doctype: bool,
    open: Vec<Open>,
    open_bytes: usize,
    /// Where the names of a tag's attributes stand, for finding one that occurs twice.
    names: Vec<(usize, usize)>,
}

impl<'p, 's> Document<'p, 's> {
    fn feed(&mut self) -> &mut Feed<'p, 's> {
        self.reader.get_mut()
    }

    /// Reads the text up to the next token, and the token. Whether there was one.
    fn step(&mut self) -> Result<bool, Halt> {
        if !self.text()? {
            return self.end().map(|()| false);
        }
        self.feed().begin_token();
        self.token.clear();
        let read = match self.reader.read_event_into(&mut self.token) {
            Ok(event) => Ok(kind_of(&event)),
            Err(error) => Err(error),
        };
        let token = match read {
            Ok(token) => token,
            Err(error) => return Err(self.unread(&error)),
        };
        if self.token.len() > self.token_max {
            return Err(self.feed().at_token(&[], 0, Kind::Xml(XmlFlaw::TokenTooLarge)));
        }
        let judged = self.take(token);
        if let Err(Wrong { at, flaw }) = judged {
            let token = std::mem::take(&mut self.token);
            return Err(self.feed().at_token(&token, at, Kind::Xml(flaw)));
        }
        self.feed().end_token();
        if self.token.capacity() > TOKEN_FREE {
            self.token = Vec::new();
            self.names = Vec::new();
        }
        Ok(true)
    }

    /// The file has ended.
    fn end(&mut self) -> Result<(), Halt> {
        let kind = match self.stage {
            Stage::Epilog => return Ok(()),
            Stage::Start | Stage::Blank => Kind::Empty,
            Stage::Prolog | Stage::Root => Kind::Xml(XmlFlaw::Stops(self.open.len())),
        };
        Err(self.feed().here(kind))
    }

    /// Why no token could be read.
    fn unread(&mut self, error: &Error) -> Halt {
        let open = self.open.len();
        let token = std::mem::take(&mut self.token);
        let line = self.open.last().map_or(0, |open| open.line);
        let feed = self.feed();
        if let Some(halt) = feed.take_halt() {
            return halt;
        }
        if feed.is_at_end() {
            return feed.here(Kind::Xml(XmlFlaw::Stops(open)));
        }
        let flaw = match error {
            Error::IllFormed(_) if token.starts_with(b"</") && open > 0 => XmlFlaw::EndTag(line),
            Error::IllFormed(_) if token.starts_with(b"</") => {
                XmlFlaw::NotXml("an end tag where no element is open")
            }
            Error::IllFormed(_)
            | Error::Io(_)
            | Error::Syntax(_)
            | Error::InvalidAttr(_)
            | Error::Encoding(_)
            | Error::Escape(_)
            | Error::Namespace(_) => {
                XmlFlaw::NotXml("markup that begins like a tag and is none that XML has")
            }
        };
        feed.at_token(&token, 0, Kind::Xml(flaw))
    }

    /// Takes the text up to the next `<`; `false` if the file ends before.
    fn text(&mut self) -> Result<bool, Halt> {
        // How many of the last characters are closing brackets, up to two.
        let mut brackets = 0_u8;
        loop {
            let stage = self.stage;
            let feed = self.reader.get_mut();
            let Ok(piece) = feed.fill_buf() else { return Err(feed.halted()) };
            if piece.is_empty() {
                return Ok(false);
            }
            let stop = match stage {
                Stage::Root => in_element(piece, &mut brackets),
                Stage::Start | Stage::Blank | Stage::Prolog | Stage::Epilog => {
                    piece.iter().position(|byte| !token::is_space(*byte))
                }
            };
            let length = stop.unwrap_or(piece.len());
            let byte = piece.get(length).copied();
            feed.consume(length);
            if length > 0 && stage == Stage::Start {
                self.stage = Stage::Blank;
            }
            match byte {
                None => {}
                Some(b'<') => return Ok(true),
                Some(b'&') if stage == Stage::Root => self.reference()?,
                Some(_) => return Err(self.not_here()),
            }
        }
    }

    /// Something stands where it must not, outside the root element or after `]]`.
    fn not_here(&mut self) -> Halt {
        let flaw = match self.stage {
            Stage::Root => XmlFlaw::NotXml("]]> outside a CDATA section, which XML writes ]]&gt;,"),
            Stage::Epilog => XmlFlaw::TrailingContent,
            Stage::Start | Stage::Blank | Stage::Prolog => {
                XmlFlaw::NotXml("something other than markup before the root element")
            }
        };
        self.feed().here(Kind::Xml(flaw))
    }

    /// Takes a reference in the text; the next byte is its `&`.
    fn reference(&mut self) -> Result<(), Halt> {
        let mut text: Vec<u8> = Vec::new();
        let has_doctype = self.has_doctype;
        let open = self.open.len();
        let feed = self.reader.get_mut();
        // Nearly always it is there as a whole.
        if let Ok(piece) = feed.fill_buf()
            && let Reference::Sound(length) = token::reference(piece, has_doctype)
            && length <= REFERENCE_MAX
        {
            feed.consume(length);
            return Ok(());
        }
        feed.begin_token();
        loop {
            let Ok(piece) = feed.fill_buf() else { return Err(feed.halted()) };
            let Some(byte) = piece.first().copied() else {
                return Err(feed.here(Kind::Xml(XmlFlaw::Stops(open))));
            };
            text.push(byte);
            let read = match token::reference(&text, has_doctype) {
                Reference::Unfinished | Reference::Sound(_) if text.len() > REFERENCE_MAX => {
                    Err(token::NO_REFERENCE)
                }
                Reference::Unfinished => Ok(false),
                Reference::Sound(_) => Ok(true),
                Reference::Wrong(what) => Err(what),
            };
            match read {
                Ok(is_whole) => {
                    feed.consume(1);
                    if is_whole {
                        feed.end_token();
                        return Ok(());
                    }
                }
                Err(what) => {
                    return Err(feed.at_token(&text, 0, Kind::Xml(XmlFlaw::NotXml(what))));
                }
            }
        }
    }

    /// Checks a token, and what it is in the document.
    fn take(&mut self, token: Token) -> Result<(), Wrong> {
        let is_first = self.stage == Stage::Start;
        if self.stage == Stage::Start || self.stage == Stage::Blank {
            self.stage = Stage::Prolog;
        }
        match token {
            Token::Start => self.start_tag(1),
            Token::Empty => self.start_tag(2),
            Token::End => {
                let open = self.open.pop();
                self.open_bytes -= open.map_or(0, |open| open.name_bytes);
                if self.open.is_empty() {
                    self.stage = Stage::Epilog;
                }
                Ok(())
            }
            Token::CData if self.stage == Stage::Root => Ok(()),
            Token::CData if self.stage == Stage::Epilog => {
                Err(Wrong { at: 0, flaw: XmlFlaw::TrailingContent })
            }
            Token::CData => Wrong::grammar(0, "a CDATA section before the root element"),
            Token::Comment => token::comment(&self.token),
            Token::Declaration if is_first => self.declaration(),
            Token::Declaration => {
                Wrong::grammar(0, "an XML declaration that is not the very first of the file")
            }
            Token::Instruction => token::instruction(&self.token),
            Token::Doctype if self.stage != Stage::Prolog => {
                Wrong::grammar(0, "a DOCTYPE that does not stand before the root element")
            }
            Token::Doctype if self.has_doctype => Wrong::grammar(0, "a second DOCTYPE"),
            Token::Doctype => {
                self.has_doctype = true;
                token::doctype(&self.token)
            }
            Token::Other => Wrong::grammar(0, "markup that XML does not have"),
        }
    }

    fn declaration(&mut self) -> Result<(), Wrong> {
        let label = token::declaration(&self.token)?;
        let label = label.map(|(from, to)| (from, &self.token[from..to]));
        let feed = self.reader.get_ref();
        match label {
            Some((at, label)) => feed.judge_label(label).map_err(|flaw| Wrong { at, flaw }),
            None => Ok(()),
        }
    }

    /// A start tag, which `closing` bytes end: two where the element is empty.
    fn start_tag(&mut self, closing: usize) -> Result<(), Wrong> {
        if self.stage == Stage::Epilog {
            return Err(Wrong { at: 0, flaw: XmlFlaw::SecondRoot });
        }
        let end = self.token.len() - closing;
        let name_end = token::tag(&self.token[..end], self.has_doctype, &mut self.names)?;
        if self.open.len() >= self.depth_max {
            return Err(Wrong { at: 0, flaw: XmlFlaw::TooDeep(self.depth_max) });
        }
        self.stage = Stage::Root;
        if closing == 1 {
            let name_bytes = name_end - 1;
            self.open_bytes += name_bytes;
            if self.open_bytes > self.token_max / OPEN_NAMES {
                return Err(Wrong { at: 0, flaw: XmlFlaw::TokenTooLarge });
            }
            let line = self.reader.get_ref().token_line();
            self.open.push(Open { line, name_bytes });
        } else if self.open.is_empty() {
            self.stage = Stage::Epilog;
        }
        Ok(())
    }
}

/// Where text within an element is at its end, begins a reference, or breaks the rule about `]]>`.
fn in_element(piece: &[u8], brackets: &mut u8) -> Option<usize> {
    piece.iter().position(|byte| match byte {
        b'<' | b'&' => {
            *brackets = 0;
            true
        }
        b'>' => std::mem::take(brackets) == 2,
        b']' => {
            *brackets = 2.min(*brackets + 1);
            false
        }
        _ => {
            *brackets = 0;
            false
        }
    })
}

fn kind_of(event: &Event<'_>) -> Token {
    match event {
        Event::Start(_) => Token::Start,
        Event::Empty(_) => Token::Empty,
        Event::End(_) => Token::End,
        Event::CData(_) => Token::CData,
        Event::Comment(_) => Token::Comment,
        Event::Decl(_) => Token::Declaration,
        Event::PI(_) => Token::Instruction,
        Event::DocType(_) => Token::Doctype,
        Event::Text(_) | Event::GeneralRef(_) | Event::Eof => Token::Other,
    }
}
