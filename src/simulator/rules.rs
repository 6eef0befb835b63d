//! What goes wrong, and for which requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::options::{Door, RunEnd};

/// One fault: which requests it meets and what happens to them. The first rule that fits wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests.
    #[serde(default)]
    pub when: Match,
    /// Only the first so many requests that fit; `None`: all of them.
    #[serde(default)]
    pub first: Option<u64>,
    /// What `first` counts by.
    #[serde(default)]
    pub per: Per,
    /// What happens.
    pub act: Act,
}

/// Which requests a rule meets: everything that is given must fit. Without `door` and `path` it
/// meets requests that bring payloads, not those for tokens or runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The door.
    pub door: Option<Door>,
    /// How the path begins, without the query.
    pub path: Option<String>,
    /// The vanity, the flow's, run's or webhook's id, or the name of the plain door.
    pub vanity: Option<String>,
    /// The file's name as its header has it.
    pub name: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// A text in the body. Such a rule is looked at when the whole body has been read.
    pub contains: Option<String>,
    /// Bodies of at least so many bytes by their `Content-Length`.
    pub bytes_min: Option<u64>,
    /// Only while no more tokens than this have been given out.
    pub until_token: Option<u64>,
}

/// What the count of a rule's `first` goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each idempotency key (without one: each file name, else each vanity) for itself.
    #[default]
    Key,
    /// Each vanity for itself.
    Vanity,
    /// All requests together.
    All,
}

/// What happens to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// Nothing out of the ordinary.
    #[default]
    Store,
    /// Stores the payload, then gives another answer, e.g. 504.
    StoreThenAnswer {
        /// The status.
        status: u16,
    },
    /// Stores the payload, then cuts the connection.
    StoreThenCut,
    /// Stores the payload and never answers.
    StoreThenHang,
    /// Cuts the connection when about half of the body is there.
    CutMidBody,
    /// Answers before it has read any of the body, and closes.
    AnswerEarly {
        /// The status.
        status: u16,
    },
    /// Reads the body, stores nothing, answers.
    Answer {
        /// The status.
        status: u16,
        /// `message` in the JSON that it answers.
        #[serde(default)]
        message: Option<String>,
        /// Seconds for `Retry-After`.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// An HTML page with status 200, as a proxy gives it; stores nothing.
    Html,
    /// A redirect to a login page; stores nothing.
    Redirect,
    /// Any answer at all.
    Reply {
        /// The status.
        status: u16,
        /// `Content-Type`.
        content_type: String,
        /// The body.
        body: String,
        /// Further headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Whether it does what is ordinary first.
        #[serde(default)]
        stores: bool,
    },
    /// At the token endpoint or the login: a token, but not as it should be.
    OddToken {
        /// What is odd.
        how: OddToken,
    },
    /// At the Start API: the ordinary answer, and a run of its own kind.
    Run {
        /// How it ends.
        ends: RunEnd,
        /// Milliseconds before it begins; else as the options say.
        #[serde(default)]
        queue_millis: Option<u64>,
        /// Milliseconds that it takes; else as the options say.
        #[serde(default)]
        takes_millis: Option<u64>,
        /// Why it fails, for its log.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Reads the body and never answers; stores nothing.
    Hang,
    /// Reads nothing of the body and never answers.
    HangUnread,
    /// Waits, then does what is ordinary.
    Slow {
        /// Milliseconds.
        millis: u64,
    },
}

/// What is odd about an answer that gives a token out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OddToken {
    /// It does not say how long the token lives.
    NoLifetime,
    /// It says that the token lives for no time.
    NoTime,
    /// It says so with a string.
    LifetimeAsText,
    /// There is a control character in the token.
    ControlCharacter,
    /// The token is empty.
    Empty,
    /// There is no token in it.
    Absent,
    /// It stops in the middle.
    CutShort,
}

impl Act {
    /// Whether it does what is ordinary at that door, whatever the answer is.
    pub(super) fn stores(&self) -> bool {
        match self {
            Self::Store
            | Self::Slow { .. }
            | Self::StoreThenAnswer { .. }
            | Self::StoreThenCut
            | Self::StoreThenHang
            | Self::OddToken { .. }
            | Self::Run { .. } => true,
            Self::Reply { stores, .. } => *stores,
            Self::CutMidBody
            | Self::AnswerEarly { .. }
            | Self::Answer { .. }
            | Self::Html
            | Self::Redirect
            | Self::Hang
            | Self::HangUnread => false,
        }
    }
}

/// What a rule sees of a request.
pub(super) struct View<'a> {
    pub(super) door: Door,
    pub(super) path: &'a str,
    pub(super) vanity: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) bytes: u64,
    pub(super) tokens_issued: u64,
    /// The texts of `contains` found in the body; `None` before it has been read.
    pub(super) found: Option<&'a [String]>,
}

/// How often each rule was met, by what it counts by.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(usize, String), u64>);

impl Match {
    fn fits(&self, view: &View<'_>) -> bool {
        let same = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        let contained = match (&self.contains, view.found) {
            (None, None) => true,
            (Some(text), Some(found)) => found.contains(text),
            (None, Some(_)) | (Some(_), None) => false,
        };
        let is_meant = self.door.is_some() || self.path.is_some() || view.door.takes_payloads();
        contained
            && is_meant
            && self.door.is_none_or(|door| door == view.door)
            && self.path.as_ref().is_none_or(|start| view.path.starts_with(start.as_str()))
            && same(&self.vanity, Some(view.vanity))
            && same(&self.name, view.name)
            && same(&self.key, view.key)
            && self.bytes_min.is_none_or(|min| view.bytes >= min)
            && self.until_token.is_none_or(|last| view.tokens_issued <= last)
    }
}

/// The act for a request, and the tally it leaves.
pub(super) fn act(rules: &[Rule], tally: &mut Tally, view: &View<'_>) -> Option<Act> {
    rules.iter().enumerate().find_map(|(place, rule)| {
        if !rule.when.fits(view) {
            return None;
        }
        let Some(first) = rule.first else { return Some(rule.act.clone()) };
        let by = match rule.per {
            Per::Key => view.key.or(view.name).unwrap_or(view.vanity),
            Per::Vanity => view.vanity,
            Per::All => "",
        };
        let count = tally.0.entry((place, by.to_owned())).or_default();
        *count += 1;
        (*count <= first).then(|| rule.act.clone())
    })
}
