//! One fact (a step), a file's facts (an entry): what the ledger keeps.

use std::borrow::Cow;
use std::ffi::OsString;
use std::time::Duration;

use super::file::{Digest, FileId, Identity, Place};
use super::outcome::{Cause, Code};
use super::route::RouteName;
use super::time::Wall;

/// A durable fact. Steps committed together become durable together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file is taken over. Committed before its rename into `sending/`.
    Claimed(Box<Claim>),
    /// An attempt is about to begin. Committed before its first byte.
    AttemptBegun {
        /// The file.
        id: FileId,
        /// 1 for the first.
        attempt: u32,
        /// When.
        at: Wall,
    },
    /// An attempt ended without settling the file; the entry is parked until `due_at`.
    AttemptEnded {
        /// The file.
        id: FileId,
        /// Which attempt.
        attempt: u32,
        /// How it ended.
        end: AttemptEnd,
        /// When.
        at: Wall,
        /// When to look at it next.
        due_at: Wall,
        /// Time waited so far, paused time not counted.
        waited_for: Duration,
    },
    /// The server has accepted the file; what becomes of its run is still to be asked, or is
    /// decided by the next step of the same commit. From here on it is never attempted again.
    Accepted {
        /// The file.
        id: FileId,
        /// The attempt that was accepted, with its end; `None`: the flow's runs were looked up.
        attempt: Option<(u32, AttemptEnd)>,
        /// The server's id of the run, where it named one.
        run: Option<String>,
        /// When.
        at: Wall,
        /// When its run is asked for.
        due_at: Wall,
    },
    /// The end is decided: `sent`, `failed` or `held`. Committed before the move.
    Decided {
        /// The file.
        id: FileId,
        /// The attempt that decided it, with its end; `None` for a file never attempted since.
        attempt: Option<(u32, AttemptEnd)>,
        /// What it is now.
        state: State,
        /// Why.
        cause: Cause,
        /// Where it goes.
        target: Place,
        /// When.
        at: Wall,
    },
    /// The target was found taken; this is the new one. Committed before the second try.
    Retargeted {
        /// The file.
        id: FileId,
        /// Where it goes now.
        target: Place,
    },
    /// File and sidecar are at the target, durably.
    Settled {
        /// The file.
        id: FileId,
    },
    /// The claim came to nothing: nothing was sent, the name belongs to nobody or to a new file.
    Cancelled {
        /// The file.
        id: FileId,
        /// Why.
        cause: Cause,
        /// When.
        at: Wall,
    },
    /// The file is nowhere.
    Missing {
        /// The file.
        id: FileId,
        /// Last seen where and when, in words.
        cause: Cause,
        /// When it was missed.
        at: Wall,
    },
    /// A person let a held file go: same id, same key. It is to be moved from `source` into
    /// `sending/` and attempted again.
    Released {
        /// The file.
        id: FileId,
        /// Where it lies now.
        source: Place,
        /// Its identity there.
        identity: Identity,
        /// When.
        at: Wall,
    },
    /// Its route keeps an order and pauses when a file fails: it is paused from now on, like by a
    /// person. Committed with the step that says that the file fails.
    RoutePaused {
        /// The file that fails.
        id: FileId,
        /// Its route.
        route: RouteName,
        /// When; the same as the file's decision.
        at: Wall,
    },
    /// A person said what became of it, or something else worth telling.
    Noted {
        /// The file.
        id: FileId,
        /// When.
        at: Wall,
        /// One sentence.
        text: String,
    },
}

impl Step {
    /// The file that it is about.
    #[must_use]
    pub fn id(&self) -> FileId {
        match self {
            Self::Claimed(claim) => claim.id,
            Self::AttemptBegun { id, .. }
            | Self::AttemptEnded { id, .. }
            | Self::Accepted { id, .. }
            | Self::Decided { id, .. }
            | Self::Retargeted { id, .. }
            | Self::Settled { id }
            | Self::Cancelled { id, .. }
            | Self::Missing { id, .. }
            | Self::Released { id, .. }
            | Self::RoutePaused { id, .. }
            | Self::Noted { id, .. } => *id,
        }
    }
}

/// What is on record before a file is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its id.
    pub id: FileId,
    /// The route.
    pub route: RouteName,
    /// The name it was dropped under.
    pub name: OsString,
    /// Where it lies.
    pub source: Place,
    /// Its done-marker's name, which moves along.
    pub marker: Option<OsString>,
    /// What the file system says it is.
    pub identity: Identity,
    /// SHA-256 of the file; `None` for a file refused by its size alone.
    pub digest: Option<Digest>,
    /// What is sent; `None` for a refused file.
    pub envelope: Option<Envelope>,
    /// Idempotency key.
    pub key: String,
    /// The file that this one follows (resend, moved back by hand).
    pub previous: Option<FileId>,
    /// What it has in common with files of the same bytes for the same URL, on routes that look
    /// for them.
    pub twin: Option<Digest>,
    /// When.
    pub at: Wall,
    /// What comes next.
    pub intent: Intent,
}

/// What comes after a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Attempt 1.
    Attempt,
    /// It is refused: straight to `failed/`.
    Refuse {
        /// Why.
        cause: Cause,
        /// Where to.
        target: Place,
    },
    /// It was found in `sending/` without a record: straight to `held/`, in doubt, with no attempt
    /// on record, because nobody knows of one.
    Found {
        /// Why.
        cause: Cause,
        /// Where to.
        target: Place,
    },
}

/// A body that passed validation: what is posted, exactly (promise P8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// SHA-256 of the body; the file's own where nothing was converted.
    pub digest: Digest,
    /// Length of the body in bytes.
    pub bytes: u64,
    /// What was done to the file's bytes, e.g. `utf-8 BOM dropped`, `utf-16le to utf-8`.
    pub conversion: Option<Conversion>,
    /// What was then put round its text.
    pub wrap: Option<Wrap>,
    /// What a receiver may change, e.g. duplicate keys, numbers beyond a double. For the record.
    pub remarks: Vec<String>,
}

impl Envelope {
    /// The names of conversion and wrap as ledger, receipts and `--json` have them: `utf-16le`,
    /// `payload`, `utf-16le+payload`; `None` where the body is the file as it is.
    #[must_use]
    pub fn changes(&self) -> Option<Cow<'static, str>> {
        match (self.conversion, self.wrap) {
            (None, None) => None,
            (Some(conversion), None) => Some(conversion.name().into()),
            (None, Some(wrap)) => Some(wrap.name().into()),
            (Some(conversion), Some(wrap)) => {
                Some(format!("{}+{}", conversion.name(), wrap.name()).into())
            }
        }
    }

    /// Reads [`Envelope::changes`]; `None` if a word is unknown.
    #[must_use]
    pub fn parse_changes(text: &str) -> Option<(Option<Conversion>, Option<Wrap>)> {
        match text.split_once('+') {
            Some((conversion, wrap)) => {
                Some((Some(Conversion::parse(conversion)?), Some(Wrap::parse(wrap)?)))
            }
            None => match Wrap::parse(text) {
                Some(wrap) => Some((None, Some(wrap))),
                None => Some((Some(Conversion::parse(text)?), None)),
            },
        }
    }
}

/// What is put round a file's text to make the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// `{"payload":"<the text as a JSON string>"}`: what the Start API of Patchworks takes
    /// (documented, "Preparing your data").
    Payload,
}

impl Wrap {
    /// Stable name, for the ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
        }
    }

    /// Reads [`Wrap::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Payload].into_iter().find(|known| known.name() == name)
    }
}

/// A declared change between file and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// A UTF-8 byte order mark was dropped.
    Utf8BomDropped,
    /// UTF-16, little-endian, to UTF-8.
    Utf16Le,
    /// UTF-16, big-endian, to UTF-8.
    Utf16Be,
    /// Windows-1252 to UTF-8.
    Windows1252,
}

impl Conversion {
    /// Stable name, for the ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8BomDropped => "utf-8-bom-dropped",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
            Self::Windows1252 => "windows-1252",
        }
    }

    /// Reads [`Conversion::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Utf8BomDropped, Self::Utf16Le, Self::Utf16Be, Self::Windows1252]
            .into_iter()
            .find(|known| known.name() == name)
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// `delivered`, `deferred`, `rejected`, `in-doubt`, `route-fault`, `token-refused`, `changed`,
    /// `not-sent`.
    pub verdict: Verdict,
    /// Why.
    pub code: Code,
    /// HTTP status, where there was one.
    pub status: Option<u16>,
    /// The server's id of the request, where it named one.
    pub request_id: Option<String>,
    /// One sentence for `explain`, without content of the answer.
    pub plain: String,
}

/// An attempt's verdict as the ledger keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Delivered,
    /// Try again.
    Deferred,
    /// The file's fault.
    Rejected,
    /// Perhaps accepted.
    InDoubt,
    /// The route's fault; the file is unspent.
    RouteFault,
    /// The token was refused.
    TokenRefused,
    /// The bytes were not those on record.
    Changed,
    /// It never reached its first byte.
    NotSent,
}

impl Verdict {
    const ALL: [Self; 8] = [
        Self::Delivered,
        Self::Deferred,
        Self::Rejected,
        Self::InDoubt,
        Self::RouteFault,
        Self::TokenRefused,
        Self::Changed,
        Self::NotSent,
    ];

    /// Stable name, for the ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Rejected => "rejected",
            Self::InDoubt => "in-doubt",
            Self::RouteFault => "route-fault",
            Self::TokenRefused => "token-refused",
            Self::Changed => "changed",
            Self::NotSent => "not-sent",
        }
    }

    /// Reads [`Verdict::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// Where a file stands, as the ledger has it. (`waiting` files are not in the ledger.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Claimed; an attempt is on record and has no end.
    Sending,
    /// An attempt ended, another follows.
    Deferred,
    /// Accepted; its run has not ended yet.
    Confirming,
    /// Accepted.
    Sent,
    /// At fault, or given up.
    Failed,
    /// A person decides.
    Held,
    /// It is nowhere.
    Missing,
    /// The claim came to nothing.
    Cancelled,
}

impl State {
    const ALL: [Self; 8] = [
        Self::Sending,
        Self::Deferred,
        Self::Confirming,
        Self::Sent,
        Self::Failed,
        Self::Held,
        Self::Missing,
        Self::Cancelled,
    ];

    /// Stable name, for ledger, commands and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Deferred => "deferred",
            Self::Confirming => "confirming",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Missing => "missing",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`State::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// A file's facts, folded from its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: FileId,
    /// The route.
    pub route: RouteName,
    /// The name it was dropped under.
    pub name: OsString,
    /// Where it lay before it was (last) moved into `sending/`.
    pub source: Place,
    /// Its done-marker's name.
    pub marker: Option<OsString>,
    /// Its identity.
    pub identity: Identity,
    /// SHA-256 of the file.
    pub digest: Option<Digest>,
    /// What is sent.
    pub envelope: Option<Envelope>,
    /// Idempotency key.
    pub key: String,
    /// The file that this one follows.
    pub previous: Option<FileId>,
    /// When it was claimed.
    pub claimed_at: Wall,
    /// Where it stands.
    pub state: State,
    /// Whether file and sidecar are where `state` says, durably: nothing is left to do.
    pub settled: bool,
    /// Why it stands there; none while nothing has gone wrong. Read back it has no excerpt: the
    /// ledger never keeps one (promise P11).
    pub cause: Option<Cause>,
    /// Where it goes or went.
    pub target: Option<Place>,
    /// When that was decided.
    pub decided_at: Option<Wall>,
    /// Number of the last attempt on record; 0 for none.
    pub attempt: u32,
    /// When the last attempt began, if it has no end on record.
    pub attempt_open_since: Option<Wall>,
    /// Verdict of the last attempt that has an end; `in-doubt` without any for a file whose record
    /// was lost.
    pub last_verdict: Option<Verdict>,
    /// The server's id of the run that the file started, where it named one.
    pub run: Option<String>,
    /// Since when its run is asked for: its acceptance, or when a person let it go on. A file that
    /// has this is accepted, and never attempted again.
    pub confirming_since: Option<Wall>,
    /// When the file was first refused for the route's fault (it is unspent since).
    pub unspent_since: Option<Wall>,
    /// When to look at it next.
    pub due_at: Option<Wall>,
    /// Time waited so far, paused time not counted.
    pub waited_for: Duration,
}

/// A file with what its twins must know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The file.
    pub entry: Entry,
    /// One of its attempts ended in doubt, whatever came after it.
    pub was_in_doubt: bool,
}

impl Entry {
    /// A new entry, from its first step.
    #[must_use]
    pub fn of(claim: &Claim) -> Self {
        let (state, decided) = match &claim.intent {
            Intent::Attempt => (State::Sending, None),
            Intent::Refuse { cause, target } => (State::Failed, Some((cause, target))),
            Intent::Found { cause, target } => (State::Held, Some((cause, target))),
        };
        let attempts = decided.is_none();
        let is_found = matches!(claim.intent, Intent::Found { .. });
        let (cause, target) = decided.unzip();
        let (cause, target) = (cause.cloned(), target.cloned());
        Self {
            id: claim.id,
            route: claim.route.clone(),
            name: claim.name.clone(),
            source: claim.source.clone(),
            marker: claim.marker.clone(),
            identity: claim.identity,
            digest: claim.digest,
            envelope: claim.envelope.clone(),
            key: claim.key.clone(),
            previous: claim.previous,
            claimed_at: claim.at,
            state,
            settled: false,
            cause,
            decided_at: target.is_some().then_some(claim.at),
            target,
            attempt: u32::from(attempts),
            attempt_open_since: attempts.then_some(claim.at),
            last_verdict: is_found.then_some(Verdict::InDoubt),
            run: None,
            confirming_since: None,
            unspent_since: None,
            due_at: None,
            waited_for: Duration::ZERO,
        }
    }

    /// Folds one more step in. Every ledger folds as this does; a test compares them.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::AttemptBegun { attempt, at, .. } => {
                self.state = State::Sending;
                self.attempt = *attempt;
                self.attempt_open_since = Some(*at);
                self.due_at = None;
            }
            Step::AttemptEnded { end, at, due_at, waited_for, .. } => {
                self.state = State::Deferred;
                self.close_attempt(end, *at);
                self.cause = Some(Cause::new(end.code.clone(), end.plain.clone()));
                self.due_at = Some(*due_at);
                self.waited_for = *waited_for;
            }
            Step::Accepted { attempt, run, at, due_at, .. } => {
                if let Some((_, end)) = attempt {
                    self.close_attempt(end, *at);
                }
                self.state = State::Confirming;
                self.run.clone_from(run);
                self.confirming_since = Some(*at);
                self.cause = None;
                self.due_at = Some(*due_at);
            }
            Step::Decided { attempt, state, cause, target, at, .. } => {
                if let Some((_, end)) = attempt {
                    self.close_attempt(end, *at);
                }
                self.state = *state;
                self.cause = Some(cause.clone());
                self.target = Some(target.clone());
                self.decided_at = Some(*at);
                self.unspent_since = None;
                self.due_at = None;
            }
            Step::Retargeted { target, .. } => self.target = Some(target.clone()),
            Step::Settled { .. } => self.settled = true,
            Step::Cancelled { cause, at, .. } => self.end_as(State::Cancelled, cause, *at),
            Step::Missing { cause, at, .. } => self.end_as(State::Missing, cause, *at),
            Step::Released { source, identity, at, .. } => {
                // What was accepted is never attempted again: its run is asked for again.
                // What was accepted is never attempted again: its run is asked for once more.
                self.confirming_since = self.confirming_since.map(|_| *at);
                let is_accepted = self.confirming_since.is_some();
                self.state = if is_accepted { State::Confirming } else { State::Deferred };
                self.settled = false;
                self.source = source.clone();
                self.identity = *identity;
                self.cause = None;
                self.target = None;
                self.decided_at = None;
                self.unspent_since = None;
                self.waited_for = Duration::ZERO;
                self.due_at = Some(*at);
            }
            Step::Claimed(_) | Step::RoutePaused { .. } | Step::Noted { .. } => {}
        }
    }

    fn close_attempt(&mut self, end: &AttemptEnd, at: Wall) {
        self.attempt_open_since = None;
        self.last_verdict = Some(end.verdict);
        if end.verdict == Verdict::RouteFault {
            self.unspent_since.get_or_insert(at);
        }
    }

    fn end_as(&mut self, state: State, cause: &Cause, at: Wall) {
        self.state = state;
        self.settled = true;
        self.cause = Some(cause.clone());
        self.decided_at = Some(at);
        self.unspent_since = None;
        self.due_at = None;
    }
}

/// One attempt as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When it was put on record.
    pub begun_at: Wall,
    /// When it ended.
    pub ended_at: Option<Wall>,
    /// How.
    pub end: Option<AttemptEnd>,
}

/// Something on record about a file that is no attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// When.
    pub at: Wall,
    /// One sentence.
    pub text: String,
}

/// A file's whole history, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// How it stands.
    pub entry: Entry,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Everything else, oldest first.
    pub remarks: Vec<Remark>,
}

/// What the ledger knows about a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRecord {
    /// Its name.
    pub name: RouteName,
    /// When its folder was first swept.
    pub first_sweep_at: Option<Wall>,
    /// Whether a person let the old files go (`release --route`).
    pub released: bool,
    /// Since when it is paused until a person resumes it: by a person, by a file that failed where
    /// the order is to wait for a person then ([`Step::RoutePaused`]), or for what the code says.
    pub paused_at: Option<Wall>,
    /// Why, where no person has paused this route alone: [`ALL_PAUSED`], [`LEDGER_BEHIND`],
    /// [`UNCLEAN_BOOT`].
    pub pause_code: Option<Code>,
}

/// The code of the pause by which a person has paused every route at once.
pub const ALL_PAUSED: &str = "all-paused";

/// The code of the pause in which every route starts when the ledger is an old copy.
pub const LEDGER_BEHIND: &str = "ledger-behind";

/// The code of the pause in which every route starts when the system was started anew while the
/// ledger was not synced ([`super::durability::Durability::ProcessCrash`]) and had no clean end.
pub const UNCLEAN_BOOT: &str = "unclean-boot";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_to_a_body_is_read_as_it_was_written() {
        let check = |conversion, wrap, expected: Option<&str>| {
            let digest = Digest([0; 32]);
            let envelope = Envelope { digest, bytes: 1, conversion, wrap, remarks: Vec::new() };
            let changes = envelope.changes();
            assert_eq!(changes.as_deref(), expected);
            if let Some(text) = changes {
                assert_eq!(Envelope::parse_changes(&text), Some((conversion, wrap)));
            }
        };
        let payload = Some(Wrap::Payload);
        check(None, None, None);
        check(None, payload, Some("payload"));
        check(Some(Conversion::Utf16Le), None, Some("utf-16le"));
        check(Some(Conversion::Utf16Le), payload, Some("utf-16le+payload"));
        check(Some(Conversion::Utf16Be), payload, Some("utf-16be+payload"));
        check(Some(Conversion::Windows1252), payload, Some("windows-1252+payload"));
        check(Some(Conversion::Utf8BomDropped), payload, Some("utf-8-bom-dropped+payload"));
        for unknown in ["", "+", "zip", "utf-16le+", "+payload", "payload+utf-16le", "utf-16le+zip"]
        {
            assert_eq!(Envelope::parse_changes(unknown), None, "{unknown}");
        }
    }
}
