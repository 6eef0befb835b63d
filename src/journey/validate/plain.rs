//! Files that have no grammar: plain text, and any bytes.

use super::flaw::{Defect, Kind};
use super::text::{Flaw, Scan, Spot, Trail};

/// The reader of a plain text, piece by piece: valid UTF-8 (conversions done), not empty, and not
/// ending in NUL bytes, which a writer that reserves space leaves behind.
pub(super) struct Letters {
    trail: Trail,
    /// Nothing but white space so far.
    blank: bool,
    /// Nothing but NUL bytes since here.
    nul_since: Option<Flaw>,
}

impl Letters {
    pub(super) fn new(start: Spot) -> Self {
        Self { trail: Trail::new(start), blank: true, nul_since: None }
    }

    /// Notes where the NUL bytes begin that the text may end in.
    fn note_end(&mut self, text: &[u8]) {
        let Some(last) = text.iter().rposition(|byte| *byte != 0) else {
            if self.nul_since.is_none() && !text.is_empty() {
                self.nul_since = Some(self.trail.flaw(Defect::new(0, Kind::NulTail), text));
            }
            return;
        };
        self.nul_since = (last + 1 < text.len())
            .then(|| self.trail.flaw(Defect::new(last + 1, Kind::NulTail), text));
    }
}

impl Scan for Letters {
    fn take(&mut self, piece: &[u8], last: bool) -> Result<usize, Flaw> {
        let (valid, wrong) = match std::str::from_utf8(piece) {
            Ok(_) => (piece.len(), None),
            Err(error) => (error.valid_up_to(), Some(error.error_len().is_none())),
        };
        let text = &piece[..valid];
        self.blank = self.blank && text.iter().all(|byte| b" \t\r\n".contains(byte));
        match wrong {
            Some(false) => {
                let byte = piece.get(valid).copied().unwrap_or_default();
                let letter = super::text::in_windows_1252(byte);
                let kind = Kind::InvalidUtf8(byte, letter);
                return Err(self.trail.flaw(Defect::new(valid, kind), piece));
            }
            Some(true) if last => {
                let defect = Defect::new(valid, Kind::StopsInCharacter);
                return Err(self.trail.flaw(defect, piece));
            }
            Some(true) | None => {}
        }
        self.note_end(text);
        self.trail.advance(text);
        if last {
            if self.blank {
                return Err(self.unconvertible(Kind::Empty));
            }
            if let Some(flaw) = self.nul_since.take() {
                return Err(flaw);
            }
        }
        Ok(valid)
    }

    fn unconvertible(&self, kind: Kind) -> Flaw {
        self.trail.flaw(Defect::new(0, kind), b"")
    }

    fn stops(&mut self) -> Flaw {
        self.unconvertible(Kind::StopsInCharacter)
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The reader of a file that may hold anything.
pub(super) struct Octets {
    empty: bool,
}

impl Octets {
    pub(super) fn new() -> Self {
        Self { empty: true }
    }
}

impl Scan for Octets {
    fn take(&mut self, piece: &[u8], last: bool) -> Result<usize, Flaw> {
        self.empty = self.empty && piece.is_empty();
        if last && self.empty { Err(self.stops()) } else { Ok(piece.len()) }
    }

    fn unconvertible(&self, kind: Kind) -> Flaw {
        Trail::new(Spot::start(None, 0)).flaw(Defect::new(0, kind), b"")
    }

    fn stops(&mut self) -> Flaw {
        self.unconvertible(Kind::Empty)
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}
