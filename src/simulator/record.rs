//! What the simulator has seen.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::model::file::Digest;

/// How many names are counted one by one.
const NAMES_MAX: usize = 1_000;

/// Everything seen so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Requests of all kinds but those of `/_simulator/`.
    pub requests: u64,
    /// Requests for a token, refused ones too.
    pub token_requests: u64,
    /// Tokens given out.
    pub tokens_issued: u64,
    /// Payloads stored.
    pub accepted: u64,
    /// Bytes of the payloads stored.
    pub accepted_bytes: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests whose connection the simulator cut on purpose.
    pub cut: u64,
    /// Requests whose sender went away in the middle of the body.
    pub broken_off: u64,
    /// Most requests that were in flight at once.
    pub concurrency_peak: u64,
    /// Requests that were let in, by the file's name, for the first names that came.
    pub by_name: BTreeMap<Box<str>, u64>,
    /// The stored payloads, in the order of their acceptance.
    pub payloads: Vec<Payload>,
}

impl Seen {
    /// The same without names and the list of payloads.
    #[must_use]
    pub fn counts(&self) -> Self {
        Self {
            by_status: self.by_status.clone(),
            by_name: BTreeMap::new(),
            payloads: Vec::new(),
            ..*self
        }
    }

    /// Counts a request under the name of its file.
    pub(super) fn count_name(&mut self, name: &str) {
        if let Some(count) = self.by_name.get_mut(name) {
            *count += 1;
        } else if self.by_name.len() < NAMES_MAX {
            self.by_name.insert(Box::from(name), 1);
        }
    }
}

/// One stored payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// The vanity, or the name of the plain door.
    pub vanity: Box<str>,
    /// The idempotency key.
    pub key: Option<Box<str>>,
    /// The file's name, where a header has it.
    pub name: Option<Box<str>>,
    /// SHA-256 of the body.
    #[serde(serialize_with = "hex")]
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
    /// Whether `Content-Type` says JSON. If not, the real inbound API stores an empty payload.
    pub is_json: bool,
}

fn hex<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}
