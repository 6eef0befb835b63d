//! What became of an attempt or a file, and why: findings, with codes that never change.

use std::fmt;

/// A finding's stable code, e.g. `body-too-large`, `http-503`. The same in ledger, log, sidecar
/// and commands. Kebab case, ASCII, at most 40 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub std::borrow::Cow<'static, str>);

impl Code {
    /// A code known when the program was written.
    #[must_use]
    pub const fn of(code: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(code))
    }

    /// `http-NNN`.
    #[must_use]
    pub fn http(status: u16) -> Self {
        Self(std::borrow::Cow::Owned(format!("http-{status}")))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something is as it is.
///
/// `plain` may go into ledger and log: it never holds content of a file or of an answer.
/// `excerpt` is such content, for the sidecar beside the file and nowhere else (promise P11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Stable code.
    pub code: Code,
    /// One sentence for an administrator, without content of the file or the answer, without full
    /// stop.
    pub plain: String,
    /// At most 80 characters round a fault in a file, or 2 KB of an answer; control characters
    /// escaped.
    pub excerpt: Option<String>,
    /// What the administrator can do about this very fault, one sentence with a full stop. For the
    /// sidecar; the ledger does not keep it.
    pub remedy: Option<String>,
}

impl Cause {
    /// A cause without an excerpt.
    #[must_use]
    pub fn new(code: Code, plain: impl Into<String>) -> Self {
        Self { code, plain: plain.into(), excerpt: None, remedy: None }
    }

    /// The same without what only the sidecar may hold.
    #[must_use]
    pub fn for_the_record(&self) -> Self {
        Self::new(self.code.clone(), self.plain.clone())
    }

    /// The same with an excerpt for the sidecar.
    #[must_use]
    pub fn with_excerpt(mut self, excerpt: Option<String>) -> Self {
        self.excerpt = excerpt;
        self
    }
}

/// Why patchdrop itself would not send a file: found before any request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub cause: Cause,
    /// What the administrator can do, one sentence with a full stop.
    pub remedy: String,
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted, on the receiver's word.
    Delivered,
    /// Not accepted, and that is nobody's last word: try again.
    Deferred(Blame),
    /// Not accepted, and the file is at fault.
    Rejected,
    /// It may have been accepted; no answer says so.
    InDoubt,
    /// Not accepted because the route is set up wrongly (URL, rights): the file is unspent.
    RouteFault,
    /// Not accepted because the access token was refused.
    TokenRefused,
    /// The bytes in `sending/` were no longer those on record; nothing was completed.
    Changed,
}

/// Whom a deferral speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The destination as a whole, at once: DNS, connect, TLS, 429, `Retry-After`, token.
    Destination,
    /// Perhaps the destination: it pauses after three of different files in a row.
    Attempt,
}

/// An error with its causes, for one log line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
