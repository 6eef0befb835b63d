//! A route: a drop folder, the URL it stands for, and its rules. Plain data, checked by `config`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::secret::Secret;
use super::step::Wrap;

/// The name of a route: its table's name in the config, or its folder's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteName(pub Arc<str>);

impl RouteName {
    /// Wraps a name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteName({})", self.0)
    }
}

/// Everything patchdrop needs to know about one route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name; unique.
    pub name: RouteName,
    /// Where its files are.
    pub folders: Folders,
    /// Which names in the drop folder are meant.
    pub select: Select,
    /// What counts as evidence that a file is complete.
    pub ready: ReadyRules,
    /// What a file must be to be sent.
    pub check: CheckRules,
    /// Where and how it is sent.
    pub deliver: Delivery,
    /// What an answer means.
    pub judge: JudgeRules,
    /// What happens when the body went out and no answer came.
    pub in_doubt: InDoubt,
    /// When to try again, and when to give up.
    pub retry: Backoff,
    /// Attempts in flight at once, 1 to 1,024; the POST alone counts.
    pub concurrency: usize,
    /// What happens to a file whose bytes were accepted before at the same URL.
    pub duplicates: Duplicates,
    /// The order in which its files leave, one at a time; `None`: as they come.
    pub order: Option<Ordered>,
    /// Its share of the turns among the routes of its destination.
    pub priority: Priority,
    /// Whether `NAME.receipt.json` is written beside each sent file.
    pub receipts: bool,
}

/// What happens to a file whose bytes were accepted before at the same URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// It is sent like any other.
    Send,
    /// It is not sent, and goes to `sent/`, with the one that was on record.
    Skip,
    /// It is not sent, and a person decides.
    Hold,
}

/// A route whose files leave in an order: one at a time, and none before the one ahead of it has
/// gone its way. One that is deferred, in doubt or held keeps those behind it waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// What says which one is ahead.
    pub by: OrderBy,
    /// What follows when one fails.
    pub on_failed: OnFailed,
}

/// What says which of two files is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// Its name, with numbers in it as numbers: 9 before 10.
    Name,
    /// When it was first seen, then its mtime, then its name.
    Arrival,
}

/// What becomes of those behind a file that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailed {
    /// The next one goes.
    Skip,
    /// They wait until a person resumes the route.
    Pause,
}

/// A route's share of the turns where the routes of a destination have to take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A turn where the others have two or four.
    Low,
    /// Two turns.
    #[default]
    Normal,
    /// Four turns.
    High,
}

impl Priority {
    /// Turns in a round.
    #[must_use]
    pub fn turns(self) -> u32 {
        match self {
            Self::Low => 1,
            Self::Normal => 2,
            Self::High => 4,
        }
    }
}

/// The folders of a route, all absolute. The last three may hold `{date}`: the local date of the
/// outcome, e.g. 2026-11-21.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// Where files are dropped.
    pub inbox: Arc<Path>,
    /// Claimed files, `<id>~<name>`; always on the inbox's volume.
    pub sending: Arc<Path>,
    /// Accepted files.
    pub sent: Arc<Path>,
    /// Files at fault.
    pub failed: Arc<Path>,
    /// Files a person must decide about.
    pub held: Arc<Path>,
}

impl Folders {
    /// The names that the folders which patchdrop keeps for this route have in `folder`.
    pub fn own_names_in<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a OsStr> + 'a {
        [&self.sending, &self.sent, &self.failed, &self.held].into_iter().filter_map(move |own| {
            let below = own.strip_prefix(folder).ok()?;
            Some(below.components().next()?.as_os_str())
        })
    }
}

/// Which names are candidates. Globs, case-insensitive, on the file name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// A candidate matches at least one of these.
    pub include: Vec<String>,
    /// And none of these.
    pub exclude: Vec<String>,
    /// Nor any of these: what programs call a file that they are still writing.
    pub temp_names: Vec<String>,
}

/// What counts as evidence that a file is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyRules {
    /// Unchanged for this long, by change time.
    pub quiet_for: Duration,
    /// A document that stops in the middle is not ready until this long after its last change.
    pub truncated_after: Duration,
    /// `{name}.done` or `{stem}.ok`: ready only when this name exists beside it.
    pub done_marker: Option<String>,
    /// Files older than this before the route's first sweep wait for a person; `None` takes all.
    pub first_sweep_max_age: Option<Duration>,
}

/// What the files of a route are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document a file.
    Json,
    /// One well-formed XML document a file.
    Xml,
    /// Text, in the route's encoding.
    Text,
    /// Any bytes.
    Binary,
}

/// The character encoding that files of a route arrive in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8; a BOM is dropped, UTF-16 with a BOM is converted, both on record.
    Auto,
    /// UTF-8 and nothing else; a BOM is a fault.
    Utf8,
    /// UTF-16, by BOM, else little-endian.
    Utf16,
    /// Windows code page 1252.
    Windows1252,
}

/// What a file must be to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRules {
    /// What it is.
    pub format: Format,
    /// Deepest nesting of arrays and objects, or of elements, 1 to 10,000.
    pub max_depth: usize,
    /// Whether JSON must be I-JSON (RFC 7493).
    pub strict: bool,
    /// The JSON Schema document, already read.
    pub schema: Option<Arc<serde_json::Value>>,
    /// Largest document in bytes that a schema is applied to.
    pub schema_max_bytes: u64,
    /// How it is encoded. For JSON and text; XML says it itself.
    pub encoding: Encoding,
    /// What is put round the file's text; `None` sends it as it is. Never with [`Format::Binary`],
    /// which is no text.
    pub wrap: Option<Wrap>,
    /// Largest request body in bytes; `None` for no limit.
    pub body_max_bytes: Option<u64>,
}

/// Where and how a file is sent.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The kind, as the config names it: `inbound`, `flow`, `webhook`, `http`.
    pub kind: &'static str,
    /// The URL, complete. A secret, since it may carry a signature.
    pub url: Secret,
    /// Host and port of the URL, for showing and for sharing a destination.
    pub host: Arc<str>,
    /// `POST` or `PUT`.
    pub method: &'static str,
    /// The value of `Content-Type`.
    pub content_type: String,
    /// Further headers; values may hold `{name}`, `{id}`, `{sha256}`.
    pub headers: Vec<(String, Secret)>,
    /// Header that carries the idempotency key; `None` turns it off.
    pub idempotency_header: Option<String>,
    /// How the body is signed, if it is.
    pub hmac: Option<Hmac>,
    /// What only a `flow` route has.
    pub flow: Option<Flow>,
    /// The credential, by name.
    pub credential: Option<Arc<str>>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// No progress for this long, in either direction, ends an attempt.
    pub timeout: Duration,
}

impl Delivery {
    /// Routes with an equal destination share pauses and `Retry-After`.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { host: Arc::clone(&self.host), credential: self.credential.clone() }
    }

    /// Where runs are asked for; none where there are none.
    #[must_use]
    pub fn core(&self) -> Option<Destination> {
        let host = Arc::clone(&self.flow.as_ref()?.core_host);
        Some(Destination { host, credential: self.credential.clone() })
    }
}

/// A signature of the body, in a header: HMAC with SHA-256.
#[derive(Clone, Debug)]
pub struct Hmac {
    /// The key that both sides know.
    pub key: Secret,
    /// The header that carries it.
    pub header: String,
    /// How it is written.
    pub encoding: HmacEncoding,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacEncoding {
    /// Lower-case hexadecimal digits.
    Hex,
    /// RFC 4648 base64 with padding.
    Base64,
}

/// A process flow: what is sent along, and how its runs are asked for.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The flow's id.
    pub id: Arc<str>,
    /// `flow_variables`; values may hold `{name}`, `{id}`, `{sha256}`.
    pub variables: BTreeMap<String, String>,
    /// Base of the Core API, without a slash at its end.
    pub core_url: Arc<str>,
    /// Host and port of the Core API.
    pub core_host: Arc<str>,
    /// Whether a file is sent only when its run has succeeded; `None`: when the start was accepted.
    pub confirm: Option<Confirm>,
}

/// How it is found out what became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// How often the run is asked for.
    pub every: Duration,
    /// How long after the acceptance at most.
    pub within: Duration,
    /// What becomes of a file whose run has not ended by then.
    pub late: Late,
    /// Whether a run that succeeded in part counts as one that succeeded.
    pub partial_is_success: bool,
}

/// What becomes of an accepted file whose run has not ended in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// To `held/`; a person decides.
    Hold,
    /// To `sent/`, with a remark.
    Sent,
}

/// A host together with the credential used there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// Host and port.
    pub host: Arc<str>,
    /// The credential, by name.
    pub credential: Option<Arc<str>>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.credential {
            Some(credential) => write!(f, "{} as {credential}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// At most so many requests in any span of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, 1 to 100,000.
    pub count: u32,
    /// The span, a second to a day.
    pub per: Duration,
}

/// What the routes of one destination share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceRules {
    /// At most so much; without it the pace is learnt from the server's answers.
    pub rate: Option<Rate>,
    /// Attempts in flight at once over all routes; `None`: as many as the routes allow.
    pub concurrency: Option<usize>,
    /// A server may ask for any wait; more than this is not believed.
    pub retry_after_max: Duration,
}

impl Default for PaceRules {
    fn default() -> Self {
        Self { rate: None, concurrency: None, retry_after_max: Duration::from_hours(1) }
    }
}

/// What an answer means on this route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgeRules {
    /// Statuses that mean accepted.
    pub success: BTreeSet<u16>,
    /// A field of the answer's JSON, dotted (`data.state`), and the value it must have.
    pub success_when: Option<(String, serde_json::Value)>,
    /// Whether an HTML page with a success status is believed (`success_type = "any"`).
    pub html_is_success: bool,
    /// Statuses that are the file's own fault.
    pub file_faults: BTreeSet<u16>,
    /// Answers of a gateway that may hide an acceptance.
    pub doubtful: BTreeSet<u16>,
    /// Fields of an accepting answer, dotted, that may hold the id of the run it started; the first
    /// that does counts. Empty where there are no runs.
    pub run_id_fields: Vec<String>,
}

/// What happens when the body went out and no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubt {
    /// To `held/`; a person decides.
    Hold,
    /// Sent again under the same idempotency key.
    Resend,
    /// The flow's runs are looked up 90 s and again 180 s after the attempt: none both times means
    /// send again, exactly one means accepted, anything else to `held/`.
    Lookup,
}

/// Waiting times between attempts: full jitter below `first * factor^n`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub first: Duration,
    /// Growth from one wait to the next, 1.0 to 100.
    pub factor: f64,
    /// Upper bound of every wait.
    pub max: Duration,
    /// After this long (paused time not counted) the file goes to `failed/`.
    pub give_up_after: Duration,
}

/// How patchdrop lets itself in somewhere.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name in the config.
    pub name: Arc<str>,
    /// What it is, with what it needs.
    pub kind: CredentialKind,
    /// Ask anew this long before the token's end. Means nothing where nothing is asked for.
    pub refresh_before: Duration,
    /// The token's life where the answer has no `expires_in`. Likewise.
    pub lifetime: Duration,
    /// Whether the token is kept in `state_dir`. Likewise.
    pub keep_token: bool,
    /// Hosts (with port where it is not the default) that it may go to, in lower case.
    pub hosts: BTreeSet<String>,
}

/// The kinds of credential. The first two are exchanged for a token that ends, the others go into
/// `Authorization` as they are.
#[derive(Clone, Debug)]
pub enum CredentialKind {
    /// `OAuth2` client credentials.
    OAuth2(OAuth2),
    /// E-mail address and password, as the Core API's login wants them.
    Login(Login),
    /// A key that stands bare in `Authorization`, as the Core API wants it.
    ApiKey(Secret),
    /// A token that somebody else has got, behind `Bearer `.
    Bearer(Secret),
    /// User and password, RFC 7617.
    Basic {
        /// Without colon.
        user: String,
        /// Any.
        password: Secret,
    },
}

impl CredentialKind {
    /// The kind as the config names it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::OAuth2(_) => "oauth2",
            Self::Login(_) => "login",
            Self::ApiKey(_) => "api_key",
            Self::Bearer(_) => "bearer",
            Self::Basic { .. } => "basic",
        }
    }

    /// Where a token is asked for; `None` where nothing is asked for.
    #[must_use]
    pub fn asked_at(&self) -> Option<&str> {
        match self {
            Self::OAuth2(oauth2) => Some(&oauth2.token_url),
            Self::Login(login) => Some(&login.login_url),
            Self::ApiKey(_) | Self::Bearer(_) | Self::Basic { .. } => None,
        }
    }
}

impl Credential {
    /// Whether it may go to this host (with port where it is not the scheme's default); in any
    /// case of letters.
    #[must_use]
    pub fn may_go_to(&self, host: &str) -> bool {
        self.hosts.contains(&host.to_ascii_lowercase())
    }
}

/// `OAuth2` client credentials.
#[derive(Clone, Debug)]
pub struct OAuth2 {
    /// Where the token is asked for.
    pub token_url: String,
    /// How it is asked for.
    pub method: TokenMethod,
    /// Where id and secret go; `None`: as the method has it (GET: Basic, POST: form).
    pub credentials_in: Option<CredentialsIn>,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Secret,
    /// Scope asked for; `None` asks for none.
    pub scope: Option<String>,
    /// Further parameters.
    pub extra: BTreeMap<String, String>,
    /// Field of the answer that holds the token, dotted; `None`: `access_token` or `token`, also
    /// under `data`.
    pub token_field: Option<String>,
}

/// A login with e-mail address and password.
#[derive(Clone, Debug)]
pub struct Login {
    /// Where the token is asked for.
    pub login_url: String,
    /// Field of the request that holds the e-mail address.
    pub user_field: String,
    /// Field of the request that holds the password.
    pub password_field: String,
    /// The e-mail address, or another name of the user.
    pub email: String,
    /// The password.
    pub password: Secret,
    /// Further fields of the request.
    pub extra: BTreeMap<String, String>,
    /// Field of the answer that holds the token, as with [`OAuth2`].
    pub token_field: Option<String>,
}

/// How a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenMethod {
    /// GET with Basic, then POST form, then POST JSON; what worked is remembered.
    Auto,
    /// As Patchworks documents it.
    Get,
    /// As stock `OAuth2` has it.
    Post,
}

/// Where id and secret go in a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsIn {
    /// `Authorization: Basic`.
    Basic,
    /// A form body.
    Form,
    /// A JSON body.
    Json,
    /// The query string.
    Query,
}
