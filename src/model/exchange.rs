//! What goes out and what comes back. `world::endpoint` speaks these and judges nothing.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::file::Digest;
use super::outcome::Cause;
use super::secret::Secret;
use super::time::Wall;

/// What RFC 3986 (2.3) calls unreserved stays as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes one value of a query or a form, or one part of a path.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// One request, complete but for the connection.
#[derive(Debug)]
pub struct Request {
    /// `POST` or `PUT`; `GET` or `HEAD` for what only asks.
    pub method: &'static str,
    /// The URL.
    pub url: Secret,
    /// All headers but `Content-Length` and `Host`, the token among them.
    pub headers: Vec<(String, Secret)>,
    /// The body; its length is known beforehand.
    pub body: Body,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// No progress for this long, in either direction, ends the attempt.
    pub timeout: Duration,
}

/// A request body. Both kinds have a known length and digest from the one validating pass.
pub enum Body {
    /// Small enough to be kept.
    Bytes(Bytes),
    /// Read from disk while it is sent; hashed again, the last block withheld until it matches.
    Stream(Stream),
}

/// A body that does not fit the byte budget.
pub struct Stream {
    /// Yields exactly the body's bytes (conversions done). Reading blocks.
    pub reader: Box<dyn Read + Send>,
    /// How many bytes it must yield.
    pub bytes: u64,
    /// What they must hash to.
    pub digest: Digest,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(stream) => write!(f, "Stream({})", stream.bytes),
        }
    }
}

/// What came back. Not a `Result`: a dead server is news, not an error.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A complete response head.
    Answer(Answer),
    /// No complete response head.
    NoAnswer {
        /// How far the request had come.
        progress: Progress,
        /// Why, with a stable code: `dns`, `connect-refused`, `connect-timeout`, `connect`, `tls`,
        /// `cut`, `not-http`, `no-answer-timeout`, `send-stalled`, `read-error` (the file itself),
        /// `request-invalid` (URL or header). Never a URL or a token in the text.
        cause: Cause,
    },
    /// The bytes on disk were not those on record. The last block was withheld and the connection
    /// dropped, so the receiver cannot have a whole body.
    Changed,
}

/// How far a request had come when its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No connection: nothing can have been handed to a socket.
    Nothing,
    /// The body was not handed over to its last byte.
    Partial,
    /// The last byte of the body was handed over.
    Whole,
}

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`, lower case.
    pub content_type: String,
    /// `Retry-After` as it came: seconds or an HTTP date.
    pub retry_after: Option<String>,
    /// `Date` as it came: the server's clock, for a `Retry-After` or a reset that is a date.
    pub date: Option<String>,
    /// What it says about its rate limit.
    pub rate: RateHeaders,
    /// `WWW-Authenticate`, all of them joined with `, `.
    pub www_authenticate: String,
    /// The server's id of the request, where it names one (`X-Request-Id` and the like).
    pub request_id: Option<String>,
    /// The first 64 KiB of the body.
    pub body: Bytes,
}

impl Answer {
    /// The server's clock, where it says it; in whole seconds.
    #[must_use]
    pub fn server_now(&self) -> Option<Wall> {
        Wall::of_http_date(self.date.as_deref()?)
    }

    /// How long `Retry-After` asks for, in seconds or until a date. `now` stands in for the clock
    /// of a server that does not say it.
    #[must_use]
    pub fn asked_wait(&self, now: Wall) -> Option<Duration> {
        let text = self.retry_after.as_deref()?.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        Some(Wall::of_http_date(text)?.since(self.server_now().unwrap_or(now)))
    }
}

/// What a server says about its rate limit, each as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateHeaders {
    /// `X-RateLimit-Limit` or `RateLimit-Limit`.
    pub limit: Option<String>,
    /// `X-RateLimit-Remaining` or `RateLimit-Remaining`.
    pub remaining: Option<String>,
    /// `X-RateLimit-Reset` or `RateLimit-Reset`: seconds from now, or seconds since 1970.
    pub reset: Option<String>,
    /// `RateLimit`, all of it in one: `limit=60, remaining=3, reset=20`.
    pub summary: Option<String>,
}

/// An access token as `world::token` hands it out.
#[derive(Clone, Debug)]
pub struct Token {
    /// The value of `Authorization`.
    pub authorization: Secret,
    /// Grows by one with each exchange; one forced refresh a generation.
    pub generation: u64,
}

/// Why there is no token.
#[derive(Clone, Debug)]
pub struct TokenRefusal {
    /// What happened, e.g. `token-invalid-client`, `token-unreachable`.
    pub cause: Cause,
    /// What the administrator can do.
    pub remedy: String,
    /// Do not ask again before this long.
    pub retry_after: Option<Duration>,
}

/// Shared name of a credential.
pub type CredentialName = Arc<str>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unreserved_stays_as_it_is() {
        assert_eq!(percent_encoded("a/b?c=1&d"), "a%2Fb%3Fc%3D1%26d");
        assert_eq!(percent_encoded("01ab-c_.~"), "01ab-c_.~");
        assert_eq!(percent_encoded("ä +"), "%C3%A4%20%2B");
    }
}
