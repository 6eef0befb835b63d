//! What the simulator is to be. Where a wire fact is uncertain it is an option, with what is
//! documented (else: most likely) as its default.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::oauth::TokenWay;
use super::rules::Rule;
use crate::model::secret::Secret;

/// The doors, each with its own count, and its own rate if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// The token endpoint, `/oauth/token`.
    Token,
    /// The login of the Core API, `/api/v1/login`.
    Login,
    /// The inbound API, `/v1/{company}/{vanity}`.
    Inbound,
    /// The Start API, `/api/v1/flows/{flow}/…`.
    Start,
    /// What the Core API says of runs, `/api/v1/flow-runs…`.
    Runs,
    /// Webhooks and callbacks, `/api/v1/{company}/{id}`.
    Webhook,
    /// A plain door that takes anything, `/hook/{name}`.
    Hook,
    /// Every other path: 404.
    Nowhere,
}

impl Door {
    /// Whether a body that comes here is a payload. Rules that name neither door nor path meet
    /// requests of these doors alone.
    #[must_use]
    pub fn takes_payloads(self) -> bool {
        matches!(self, Self::Inbound | Self::Start | Self::Webhook | Self::Hook)
    }
}

/// What the simulator is to be.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The one company it knows.
    pub company: String,
    /// The vanities it knows; `None`: every well-formed one.
    pub vanities: Option<BTreeSet<String>>,
    /// The client id it accepts.
    pub client_id: String,
    /// The secret it accepts.
    pub client_secret: Secret,
    /// How a token may be asked for.
    pub token_ways: BTreeSet<TokenWay>,
    /// How long a token lives, one from a login too.
    pub token_lifetime: Duration,
    /// After how many accepted payloads a token ends early; `None` for never.
    pub token_uses_max: Option<u64>,
    /// The login of the Core API.
    pub login: LoginOptions,
    /// Keys that Start and Core API take bare in `Authorization`.
    pub api_keys: Vec<Secret>,
    /// A token that never ends and is good at every door, as `Bearer`; `None`: there is none.
    pub bearer: Option<Secret>,
    /// User and password that are good at every door by Basic; `None`: Basic is refused.
    pub basic: Option<(String, Secret)>,
    /// Whether the plain door, too, wants a credential: any that another door takes.
    pub hook_is_closed: bool,
    /// Flows and their runs.
    pub start: StartOptions,
    /// Webhooks and callbacks.
    pub webhook: WebhookOptions,
    /// Largest body of the inbound API in bytes.
    pub body_max_bytes: u64,
    /// Requests of the inbound API in a span of time; `None` for no limit.
    pub rate: Option<(u32, Duration)>,
    /// The same for any door. The window is fixed and begins with the first request in it.
    pub rates: BTreeMap<Door, (u32, Duration)>,
    /// What `X-RateLimit-Reset` counts.
    pub rate_reset: RateReset,
    /// By how much every answer is late. Nobody else waits for it.
    pub latency: Duration,
    /// At most so many requests in flight; one more gets the status (429 or 503).
    pub capacity: Option<(u64, u16)>,
    /// The header by which a sender names the file.
    pub name_header: String,
    /// The header that holds the idempotency key.
    pub key_header: String,
    /// Whether bodies are kept. All of them, in memory: for small tests only.
    pub keep_bodies: bool,
    /// How many payloads, and how many runs, are kept on record; later payloads are counted only,
    /// and later runs are not found.
    pub payloads_max: usize,
    /// What goes wrong.
    pub rules: Vec<Rule>,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            port: 0,
            company: "demo".to_owned(),
            vanities: None,
            client_id: "demo-client".to_owned(),
            client_secret: Secret::new("demo-secret"),
            token_ways: TokenWay::ALL.into(),
            token_lifetime: Duration::from_hours(24),
            token_uses_max: None,
            login: LoginOptions::default(),
            api_keys: vec![Secret::new("demo-key")],
            bearer: None,
            basic: None,
            hook_is_closed: false,
            start: StartOptions::default(),
            webhook: WebhookOptions::default(),
            body_max_bytes: 8_000_000,
            rate: None,
            rates: BTreeMap::new(),
            rate_reset: RateReset::Epoch,
            latency: Duration::ZERO,
            capacity: None,
            name_header: "x-file-name".to_owned(),
            key_header: "idempotency-key".to_owned(),
            keep_bodies: false,
            payloads_max: 1_000_000,
            rules: Vec::new(),
        }
    }
}

/// What `X-RateLimit-Reset` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateReset {
    /// Seconds since 1970, as Laravel has it.
    Epoch,
    /// Seconds from now, as others have it.
    FromNow,
}

/// The login of the Core API.
#[derive(Clone, Debug)]
pub struct LoginOptions {
    /// The e-mail address, or user name, that it knows.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// The field of the user; documented are `email` and `username`.
    pub user_field: String,
    /// The field of the password.
    pub password_field: String,
    /// Where the answer has the token: `token`, `access_token`, or below another field, such as
    /// `data.token`.
    pub token_place: String,
    /// Whether the answer says how long the token lives.
    pub says_lifetime: bool,
}

impl Default for LoginOptions {
    fn default() -> Self {
        Self {
            user: "demo@example.com".to_owned(),
            password: Secret::new("demo-password"),
            user_field: "email".to_owned(),
            password_field: "password".to_owned(),
            token_place: "token".to_owned(),
            says_lifetime: true,
        }
    }
}

/// Flows and their runs.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The flows it knows; `None`: any number.
    pub flows: Option<BTreeSet<String>>,
    /// Flows of which no version is deployed: 422.
    pub undeployed: BTreeSet<String>,
    /// Largest body in bytes.
    pub body_max_bytes: u64,
    /// The one field of an envelope.
    pub envelope_field: String,
    /// Where the answer has the run's id, such as `flow_run_id`, `id` or `data.id`; `None`: it
    /// names none.
    pub run_id_field: Option<String>,
    /// How ids are written.
    pub run_ids: IdForm,
    /// How a run is written.
    pub run_form: RunForm,
    /// How its times are written.
    pub run_times: TimeForm,
    /// From acceptance to the beginning of a run. Until then no list has it.
    pub run_queue_delay: Duration,
    /// From its beginning to its end.
    pub run_takes: Duration,
    /// How runs end.
    pub run_ends: RunEnd,
    /// Whether a run can be asked for by its id before it has begun (it says 1, started, then).
    pub queued_runs_are_found: bool,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            flows: None,
            undeployed: BTreeSet::new(),
            body_max_bytes: 8_000_000,
            envelope_field: "payload".to_owned(),
            run_id_field: Some("flow_run_id".to_owned()),
            run_ids: IdForm::Number,
            run_form: RunForm::Flat,
            run_times: TimeForm::Iso,
            run_queue_delay: Duration::ZERO,
            run_takes: Duration::ZERO,
            run_ends: RunEnd::Success,
            queued_runs_are_found: true,
        }
    }
}

/// How an id is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdForm {
    /// As a number.
    Number,
    /// As a string.
    Text,
}

/// How a resource is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunForm {
    /// Its fields directly.
    Flat,
    /// Its fields below `attributes`, as JSON:API has it.
    Attributes,
}

/// How a time is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// `2026-11-22T03:04:05.678Z`.
    Iso,
    /// Milliseconds since 1970, a number.
    Millis,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// Status 2.
    #[default]
    Success,
    /// Status 3, with a reason in its log.
    Failure,
    /// Status 4.
    Stopped,
    /// Status 5.
    Partial,
    /// It stays at status 1, started.
    Never,
    /// Nobody knows of such a run: 404, and in no list.
    Missing,
    /// A status of which nobody knows the meaning.
    Status(i64),
}

/// Webhooks and callbacks.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The webhooks it knows; `None`: every one.
    pub ids: Option<BTreeSet<String>>,
    /// Those that are callbacks: they answer with an array.
    pub callbacks: BTreeSet<String>,
    /// The signature that the URL must have.
    pub signature: Secret,
    /// Whether the header `patchworks-signature` does as well.
    pub takes_signature_header: bool,
    /// What a wrong or missing signature is answered with; 401 or 403.
    pub signature_status: u16,
    /// How the body is to be signed; `None`: not at all.
    pub hmac: Option<HmacOptions>,
    /// Largest body in bytes; `None`: any.
    pub body_max_bytes: Option<u64>,
    /// The answer of a webhook.
    pub status: u16,
    /// Its type.
    pub content_type: String,
    /// Its body.
    pub body: String,
    /// The body that a callback answers with.
    pub callback_body: String,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            ids: None,
            callbacks: BTreeSet::new(),
            signature: Secret::new("demo-signature"),
            takes_signature_header: false,
            signature_status: 403,
            hmac: None,
            body_max_bytes: None,
            status: 200,
            content_type: "application/json".to_owned(),
            body: "{\"message\":\"Flow initialised.\"}".to_owned(),
            callback_body: "[{\"received\":true}]".to_owned(),
        }
    }
}

/// An HMAC with SHA-256 over the body.
#[derive(Clone, Debug)]
pub struct HmacOptions {
    /// The shared key.
    pub key: Secret,
    /// The header that holds it; Patchworks' is `X-HMAC-HASH`.
    pub header: String,
    /// How it is written there.
    pub encoding: HmacEncoding,
    /// What a wrong or missing one is answered with.
    pub status: u16,
}

impl Default for HmacOptions {
    fn default() -> Self {
        Self {
            key: Secret::new("demo-hmac-key"),
            header: "x-hmac-hash".to_owned(),
            encoding: HmacEncoding::Hex,
            status: 401,
        }
    }
}

/// How an HMAC is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacEncoding {
    /// 64 hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
}
