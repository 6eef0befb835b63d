//! What the simulator has seen.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::options::Door;
use crate::model::file::Digest;

/// How many names are counted one by one.
const NAMES_MAX: usize = 1_000;

/// Everything seen so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Requests of all kinds but those of `/_simulator/`.
    pub requests: u64,
    /// Requests for a token at the token endpoint, refused ones too.
    pub token_requests: u64,
    /// Tokens given out, those of logins too.
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
    /// The same by door.
    pub doors: BTreeMap<Door, DoorSeen>,
    /// Runs that were started.
    pub runs_started: u64,
    /// Starts that were accepted without what their body held, because it was no envelope.
    pub payloads_ignored: u64,
    /// Payloads stored that came without a `Content-Length`.
    pub unannounced: u64,
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
            doors: self.doors.clone(),
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

/// What one door has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DoorSeen {
    /// Requests.
    pub requests: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
}

impl DoorSeen {
    /// Answers of 429.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.by_status.get(&429).copied().unwrap_or(0)
    }
}

/// One stored payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// Where it came in.
    pub door: Door,
    /// The vanity, the flow's or webhook's id, or the name of the plain door.
    pub vanity: Box<str>,
    /// The method of the request.
    pub method: Box<str>,
    /// The idempotency key.
    pub key: Option<Box<str>>,
    /// The file's name, where a header has it.
    pub name: Option<Box<str>>,
    /// SHA-256 of the body.
    #[serde(serialize_with = "hex")]
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
    /// Its length as `Content-Length` announced it.
    pub announced_bytes: Option<u64>,
    /// Its type; empty if none was given.
    pub content_type: Box<str>,
    /// Whether `Content-Type` says JSON. If not, the real inbound API stores an empty payload.
    pub is_json: bool,
    /// The virtual environment, by number (Start API) or prefix (webhook).
    pub environment: Option<Box<str>>,
    /// What only starts of a flow have.
    pub start: Option<Box<Started>>,
}

/// What a start of a flow has besides its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The last parts of the path: `start`, or `manual`.
    pub trigger: Box<str>,
    /// Whether the body was the payload itself.
    pub is_raw: bool,
    /// The version asked for.
    pub version: Option<Box<str>>,
    /// The flow variables, as they were sent.
    pub variables: Option<Box<str>>,
    /// The id of its run.
    pub run: Box<str>,
    /// SHA-256 of what the flow gets: of an envelope the string in it, unescaped; of a raw body the
    /// body. `None`: it gets nothing.
    #[serde(serialize_with = "hex_if_any")]
    pub payload_sha256: Option<Digest>,
    /// Its length.
    pub payload_bytes: u64,
    /// Whether there was a body, but no envelope: the flow gets nothing of it.
    pub is_payload_ignored: bool,
}

fn hex<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn hex_if_any<S: Serializer>(digest: &Option<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
    match digest {
        Some(digest) => serializer.collect_str(digest),
        None => serializer.serialize_none(),
    }
}
