//! Bodies: read to their end without being kept, unless that is wanted.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};

use super::State;
use super::answer::Cut;
use super::document::{Document, Reader};
use super::hmac::Hmac;
use crate::model::file::Digest;

/// What is to be found out of a body, besides length and digest.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// Longest body; a longer one is not read on.
    pub(super) bytes_max: Option<u64>,
    /// The body itself.
    pub(super) is_kept: bool,
    /// Whether it is JSON, and this field of it.
    pub(super) field: Option<&'a str>,
    /// Its HMAC under this key.
    pub(super) hmac_key: Option<&'a [u8]>,
}

/// What is remembered of a body.
pub(super) struct Read {
    pub(super) sha256: Digest,
    pub(super) bytes: u64,
    /// The texts in it that rules look for.
    pub(super) found: Vec<String>,
    pub(super) kept: Option<Bytes>,
    pub(super) document: Option<Document>,
    pub(super) mac: Option<[u8; 32]>,
}

/// Reads a body to its end; `None` if it is too long.
pub(super) async fn read(
    mut body: Incoming,
    state: &State,
    wanted: Wanted<'_>,
) -> Result<Option<Read>, Cut> {
    let mut search = Search::new(state);
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    let mut kept = wanted.is_kept.then(BytesMut::new);
    let mut reader = wanted.field.map(Reader::new);
    let mut hmac = wanted.hmac_key.map(Hmac::new);
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|_| Cut::BySender)?.into_data() else { continue };
        bytes += chunk.len() as u64;
        if wanted.bytes_max.is_some_and(|max| bytes > max) {
            return Ok(None);
        }
        hasher.update(&chunk);
        search.push(&chunk);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(&chunk);
        }
        if let Some(reader) = &mut reader {
            reader.push(&chunk);
        }
        if let Some(hmac) = &mut hmac {
            hmac.update(&chunk);
        }
    }
    Ok(Some(Read {
        sha256: Digest(hasher.finalize().into()),
        bytes,
        found: search.found,
        kept: kept.map(BytesMut::freeze),
        document: reader.map(Reader::finish),
        mac: hmac.map(Hmac::finish),
    }))
}

/// Looks for the texts of the rules, over the borders of the pieces too.
struct Search {
    wanted: Vec<String>,
    overlap: usize,
    window: BytesMut,
    found: Vec<String>,
}

impl Search {
    fn new(state: &State) -> Self {
        let wanted: Vec<String> =
            state.inner().rules.iter().filter_map(|rule| rule.when.contains.clone()).collect();
        let overlap = wanted.iter().map(String::len).max().unwrap_or(0);
        Self { wanted, overlap, window: BytesMut::new(), found: Vec::new() }
    }

    fn push(&mut self, chunk: &[u8]) {
        if self.overlap == 0 {
            return;
        }
        self.window.extend_from_slice(chunk);
        for text in &self.wanted {
            if !self.found.contains(text) && holds(&self.window, text.as_bytes()) {
                self.found.push(text.clone());
            }
        }
        let keep_from = self.window.len().saturating_sub(self.overlap);
        self.window = self.window.split_off(keep_from);
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

/// Reads up to so many bytes and drops them.
pub(super) async fn swallow(mut body: Incoming, bytes_max: u64) -> Result<(), Cut> {
    let mut bytes = 0;
    while bytes < bytes_max
        && let Some(frame) = body.frame().await
    {
        if let Ok(chunk) = frame.map_err(|_| Cut::BySender)?.into_data() {
            bytes += chunk.len() as u64;
        }
    }
    Ok(())
}

pub(super) async fn collect(body: Incoming) -> Result<Bytes, Cut> {
    let limited = http_body_util::Limited::new(body, 1024 * 1024);
    Ok(limited.collect().await.map_err(|_| Cut::BySender)?.to_bytes())
}
