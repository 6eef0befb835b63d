//! The file as written: every key with its place, types and ranges checked, nothing else.
//!
//! The lists of keys are what is read, what is suggested for a misspelt one, and what the tests
//! look for in `examples/config.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::de::DeTable;

use super::page::{At, Page, Sink};
use super::section::{Keys, OrOff, Section, Written};
use super::{LogFormat, WatchMode};
use crate::model::durability::Durability;
use crate::model::route::{
    CredentialsIn, Duplicates, Encoding, Format, HmacEncoding, InDoubt, Late, OnFailed, OrderBy,
    Priority, Rate, TokenMethod,
};

/// Keys of the file itself.
pub(super) const TOP: Keys = Keys {
    accepted: &[
        "root",
        "company",
        "base_url",
        "start_url",
        "core_url",
        "state_dir",
        "auto_routes",
        "first_sweep_max_age",
        "watch",
        "poll_every",
        "sweep_every",
        "drain_for",
        "allow_http",
        "proxy",
        "no_proxy",
        "ca_file",
        "heartbeat_url",
        "ledger",
        "log",
        "credential",
        "destination",
        "defaults",
        "route",
    ],
    planned: &["web"],
};

/// Keys of `[ledger]`.
pub(super) const LEDGER: Keys = Keys { accepted: &["durability"], planned: &["url"] };

/// Keys of `[log]`.
pub(super) const LOG: Keys =
    Keys { accepted: &["level", "format", "file", "roll_at", "keep"], planned: &[] };

/// Keys of `[credential.NAME]`.
pub(super) const CREDENTIAL: Keys = Keys {
    accepted: &[
        "kind",
        "token_url",
        "login_url",
        "method",
        "credentials_in",
        "scope",
        "extra",
        "token_field",
        "user_field",
        "password_field",
        "client_id",
        "client_secret",
        "email",
        "password",
        "api_key",
        "token",
        "user",
        "refresh_before",
        "lifetime",
        "keep_token",
        "hosts",
    ],
    planned: &[],
};

/// Keys of `[destination."HOST"]`.
pub(super) const DESTINATION: Keys =
    Keys { accepted: &["rate", "concurrency", "retry_after_max"], planned: &[] };

/// Keys of `[defaults]` and `[route.NAME]`.
pub(super) const ROUTE: Keys = Keys {
    accepted: &[
        "folder",
        "include",
        "exclude",
        "temp_names",
        "format",
        "max_depth",
        "strict",
        "schema",
        "schema_max",
        "encoding",
        "quiet_for",
        "truncated_after",
        "done_marker",
        "deliver",
        "company",
        "base_url",
        "vanity",
        "start_url",
        "core_url",
        "flow_id",
        "flow_version",
        "trigger",
        "body",
        "virtual_environment",
        "flow_variables",
        "url",
        "method",
        "hmac",
        "credential",
        "headers",
        "content_type",
        "max_body",
        "connect_timeout",
        "timeout",
        "concurrency",
        "order",
        "on_failed",
        "priority",
        "success",
        "success_when",
        "success_type",
        "file_faults",
        "in_doubt",
        "doubtful",
        "retry",
        "confirm",
        "run_id_field",
        "confirm_every",
        "confirm_for",
        "confirm_late",
        "confirm_partial",
        "idempotency_header",
        "sent",
        "failed",
        "held",
        "receipts",
        "duplicates",
    ],
    planned: &["keep_sent", "keep_failed"],
};

/// Keys of `success_when`.
pub(super) const SUCCESS_WHEN: Keys = Keys { accepted: &["field", "equals"], planned: &[] };

/// Keys of `hmac`.
pub(super) const HMAC: Keys =
    Keys { accepted: &["key", "algorithm", "header", "encoding"], planned: &[] };

/// Keys of `retry`.
pub(super) const RETRY: Keys =
    Keys { accepted: &["first", "factor", "max", "give_up_after"], planned: &[] };

const ZERO: Duration = Duration::ZERO;
const SHORTEST: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(24 * 366);

/// The whole file.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) root: Option<At<String>>,
    pub(super) company: Option<At<String>>,
    pub(super) base_url: Option<At<String>>,
    pub(super) start_url: Option<At<String>>,
    pub(super) core_url: Option<At<String>>,
    pub(super) state_dir: Option<At<String>>,
    pub(super) auto_routes: Option<At<bool>>,
    pub(super) first_sweep_max_age: Option<At<OrOff<Duration>>>,
    pub(super) watch: Option<At<WatchMode>>,
    pub(super) poll_every: Option<At<Duration>>,
    pub(super) sweep_every: Option<At<Duration>>,
    pub(super) drain_for: Option<At<Duration>>,
    pub(super) allow_http: Option<At<bool>>,
    pub(super) proxy: Option<At<Written>>,
    pub(super) no_proxy: Texts,
    pub(super) ca_file: Option<At<String>>,
    pub(super) heartbeat_url: Option<At<Written>>,
    pub(super) ledger: RawLedger,
    pub(super) log: RawLog,
    pub(super) credentials: Vec<(At<String>, RawCredential)>,
    pub(super) destinations: Vec<(At<String>, RawDestination)>,
    pub(super) defaults: RawRoute,
    pub(super) routes: Vec<(At<String>, RawRoute)>,
}

/// `[ledger]`.
#[derive(Debug)]
pub(super) struct RawLedger {
    pub(super) durability: Option<At<Durability>>,
}

/// `[log]`.
#[derive(Debug)]
pub(super) struct RawLog {
    pub(super) level: Option<At<String>>,
    pub(super) format: Option<At<LogFormat>>,
    pub(super) file: Option<At<String>>,
    pub(super) roll_at: Option<At<u64>>,
    pub(super) keep: Option<At<usize>>,
}

/// `[credential.NAME]`.
#[derive(Debug)]
pub(super) struct RawCredential {
    pub(super) kind: Option<At<Kind>>,
    pub(super) token_url: Option<At<String>>,
    pub(super) login_url: Option<At<String>>,
    pub(super) method: Option<At<TokenMethod>>,
    pub(super) credentials_in: Option<At<CredentialsIn>>,
    pub(super) scope: Option<At<String>>,
    pub(super) extra: BTreeMap<String, At<String>>,
    pub(super) token_field: Option<At<String>>,
    pub(super) user_field: Option<At<String>>,
    pub(super) password_field: Option<At<String>>,
    pub(super) client_id: Option<At<Written>>,
    pub(super) client_secret: Option<At<Written>>,
    pub(super) email: Option<At<Written>>,
    pub(super) password: Option<At<Written>>,
    pub(super) api_key: Option<At<Written>>,
    pub(super) token: Option<At<Written>>,
    pub(super) user: Option<At<Written>>,
    pub(super) refresh_before: Option<At<Duration>>,
    pub(super) lifetime: Option<At<Duration>>,
    pub(super) keep_token: Option<At<bool>>,
    pub(super) hosts: Option<At<Vec<At<String>>>>,
}

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    OAuth2,
    Login,
    ApiKey,
    Bearer,
    Basic,
}

/// The kinds as they are written.
pub(super) const KINDS: [(&str, Kind); 5] = [
    ("oauth2", Kind::OAuth2),
    ("login", Kind::Login),
    ("api_key", Kind::ApiKey),
    ("bearer", Kind::Bearer),
    ("basic", Kind::Basic),
];

/// `[destination."HOST"]`.
#[derive(Debug)]
pub(super) struct RawDestination {
    pub(super) rate: Option<At<Rate>>,
    pub(super) concurrency: Option<At<usize>>,
    pub(super) retry_after_max: Option<At<Duration>>,
}

/// How files are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deliver {
    Inbound,
    Flow,
    Webhook,
    Http,
}

/// How a flow is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    Start,
    Manual,
}

/// What a flow's start is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowBody {
    Envelope,
    Raw,
}

type Texts = Option<At<Vec<At<String>>>>;
type Statuses = Option<At<BTreeSet<u16>>>;

/// `[defaults]` or `[route.NAME]`.
#[derive(Clone, Debug)]
pub(super) struct RawRoute {
    pub(super) folder: Option<At<String>>,
    pub(super) include: Texts,
    pub(super) exclude: Texts,
    pub(super) temp_names: Texts,
    pub(super) format: Option<At<Format>>,
    pub(super) max_depth: Option<At<usize>>,
    pub(super) strict: Option<At<bool>>,
    pub(super) schema: Option<At<String>>,
    pub(super) schema_max: Option<At<u64>>,
    pub(super) encoding: Option<At<Encoding>>,
    pub(super) quiet_for: Option<At<Duration>>,
    pub(super) truncated_after: Option<At<Duration>>,
    pub(super) done_marker: Option<At<String>>,
    pub(super) deliver: Option<At<Deliver>>,
    pub(super) company: Option<At<String>>,
    pub(super) base_url: Option<At<String>>,
    pub(super) vanity: Option<At<String>>,
    pub(super) flow: RawFlow,
    pub(super) hmac: RawHmac,
    pub(super) url: Option<At<Written>>,
    pub(super) method: Option<At<&'static str>>,
    pub(super) credential: Option<At<String>>,
    pub(super) headers: BTreeMap<String, At<Written>>,
    pub(super) content_type: Option<At<String>>,
    pub(super) max_body: Option<At<OrOff<u64>>>,
    pub(super) connect_timeout: Option<At<Duration>>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) concurrency: Option<At<usize>>,
    /// None within: no order.
    pub(super) order: Option<At<Option<OrderBy>>>,
    pub(super) on_failed: Option<At<OnFailed>>,
    pub(super) priority: Option<At<Priority>>,
    pub(super) success: Statuses,
    pub(super) success_field: Option<At<String>>,
    pub(super) success_equals: Option<At<serde_json::Value>>,
    pub(super) html_is_success: Option<At<bool>>,
    pub(super) file_faults: Statuses,
    pub(super) in_doubt: Option<At<InDoubt>>,
    pub(super) doubtful: Statuses,
    pub(super) retry_first: Option<At<Duration>>,
    pub(super) retry_factor: Option<At<f64>>,
    pub(super) retry_max: Option<At<Duration>>,
    pub(super) give_up_after: Option<At<Duration>>,
    pub(super) idempotency_header: Option<At<String>>,
    pub(super) sent: Option<At<String>>,
    pub(super) failed: Option<At<String>>,
    pub(super) held: Option<At<String>>,
    pub(super) receipts: Option<At<bool>>,
    pub(super) duplicates: Option<At<Duplicates>>,
}

/// What only a flow has, in `[defaults]` or `[route.NAME]`.
#[derive(Clone, Debug)]
pub(super) struct RawFlow {
    pub(super) start_url: Option<At<String>>,
    pub(super) core_url: Option<At<String>>,
    pub(super) id: Option<At<serde_json::Value>>,
    pub(super) version: Option<At<serde_json::Value>>,
    pub(super) trigger: Option<At<Trigger>>,
    pub(super) body: Option<At<FlowBody>>,
    pub(super) environment: Option<At<serde_json::Value>>,
    pub(super) variables: BTreeMap<String, At<String>>,
    pub(super) confirm: Option<At<bool>>,
    pub(super) run_id_field: Texts,
    pub(super) confirm_every: Option<At<Duration>>,
    pub(super) confirm_for: Option<At<Duration>>,
    pub(super) confirm_late: Option<At<Late>>,
    pub(super) confirm_partial: Option<At<bool>>,
}

/// `hmac`.
#[derive(Clone, Debug)]
pub(super) struct RawHmac {
    pub(super) key: Option<At<Written>>,
    pub(super) algorithm: Option<At<()>>,
    pub(super) header: Option<At<String>>,
    pub(super) encoding: Option<At<HmacEncoding>>,
}

/// Takes each field that is left open from the other one.
macro_rules! inherit {
    ($merged:ident from $defaults:ident: $($field:ident)*) => {
        $($merged.$field = $merged.$field.or_else(|| $defaults.$field.clone());)*
    };
}

impl RawFlow {
    fn read(section: &Section<'_>) -> Self {
        Self {
            start_url: section.text("start_url"),
            core_url: section.text("core_url"),
            id: section.scalar("flow_id"),
            version: section.scalar("flow_version"),
            trigger: section.choice(
                "trigger",
                &[("start", Trigger::Start), ("manual", Trigger::Manual)],
                &[],
            ),
            body: section.choice(
                "body",
                &[("envelope", FlowBody::Envelope), ("raw", FlowBody::Raw)],
                &[],
            ),
            environment: section.scalar("virtual_environment"),
            variables: section.named_texts("flow_variables"),
            confirm: section.choice("confirm", &[("accepted", false), ("run", true)], &[]),
            run_id_field: section.texts("run_id_field"),
            confirm_every: section.span("confirm_every", Duration::from_millis(100)..=DAY),
            confirm_for: section.span("confirm_for", SHORTEST..=DAY * 30),
            confirm_late: section.choice(
                "confirm_late",
                &[("hold", Late::Hold), ("sent", Late::Sent)],
                &[],
            ),
            confirm_partial: section.choice(
                "confirm_partial",
                &[("failed", false), ("sent", true)],
                &[],
            ),
        }
    }

    fn over(&self, defaults: &Self) -> Self {
        let mut merged = self.clone();
        merged.variables = defaults.variables.clone();
        merged.variables.extend(self.variables.clone());
        inherit! { merged from defaults:
            start_url core_url id version trigger body environment confirm run_id_field
            confirm_every confirm_for confirm_late confirm_partial
        }
        merged
    }
}

impl RawHmac {
    fn read(section: Section<'_>) -> Self {
        let hmac = Self {
            key: section.secret("key"),
            algorithm: section.choice("algorithm", &[("sha256", ())], &[]),
            header: section.text("header"),
            encoding: section.choice(
                "encoding",
                &[("hex", HmacEncoding::Hex), ("base64", HmacEncoding::Base64)],
                &[],
            ),
        };
        section.finish();
        hmac
    }

    fn over(&self, defaults: &Self) -> Self {
        let mut merged = self.clone();
        inherit! { merged from defaults: key algorithm header encoding }
        merged
    }
}

impl Raw {
    /// Reads the whole file.
    pub(super) fn read(page: &Page, sink: &Sink, table: &DeTable<'_>) -> Self {
        let top = Section::top(page, sink, table, &TOP);
        let credentials = top.sections("credential", &CREDENTIAL);
        let destinations = top.sections("destination", &DESTINATION);
        let routes = top.sections("route", &ROUTE);
        let raw = Self {
            root: top.path("root"),
            company: top.text("company"),
            base_url: top.text("base_url"),
            start_url: top.text("start_url"),
            core_url: top.text("core_url"),
            state_dir: top.path("state_dir"),
            auto_routes: top.flag("auto_routes"),
            first_sweep_max_age: top.span_or_off("first_sweep_max_age", ZERO..=YEAR * 100),
            watch: top.choice(
                "watch",
                &[
                    ("auto", WatchMode::Auto),
                    ("events", WatchMode::Events),
                    ("poll", WatchMode::Poll),
                ],
                &[],
            ),
            poll_every: top.span("poll_every", Duration::from_millis(10)..=DAY),
            sweep_every: top.span("sweep_every", Duration::from_millis(10)..=DAY),
            drain_for: top.span("drain_for", ZERO..=DAY),
            allow_http: top.flag("allow_http"),
            proxy: top.text_or_secret("proxy"),
            no_proxy: top.texts("no_proxy"),
            ca_file: top.path("ca_file"),
            heartbeat_url: top.text_or_secret("heartbeat_url"),
            ledger: RawLedger::read(top.section("ledger", &LEDGER)),
            log: RawLog::read(top.section("log", &LOG)),
            credentials: credentials
                .into_iter()
                .map(|(name, section)| (name, RawCredential::read(section)))
                .collect(),
            destinations: destinations
                .into_iter()
                .map(|(host, section)| (host, RawDestination::read(section)))
                .collect(),
            defaults: RawRoute::read(top.section("defaults", &ROUTE)),
            routes: routes
                .into_iter()
                .map(|(name, section)| (name, RawRoute::read(section)))
                .collect(),
        };
        top.finish();
        raw
    }
}

impl RawLedger {
    fn read(section: Section<'_>) -> Self {
        let words =
            [("power-loss", Durability::PowerLoss), ("process-crash", Durability::ProcessCrash)];
        let ledger = Self { durability: section.choice("durability", &words, &[]) };
        section.finish();
        ledger
    }
}

impl RawLog {
    fn read(section: Section<'_>) -> Self {
        let log = Self {
            level: section.text("level"),
            format: section.choice(
                "format",
                &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)],
                &[],
            ),
            file: section.path("file"),
            roll_at: section.size("roll_at"),
            keep: section.whole("keep", 1..=1000),
        };
        section.finish();
        log
    }
}

impl RawCredential {
    fn read(section: Section<'_>) -> Self {
        let credential = Self {
            kind: section.choice("kind", &KINDS, &[]),
            token_url: section.text("token_url"),
            login_url: section.text("login_url"),
            method: section.choice(
                "method",
                &[
                    ("auto", TokenMethod::Auto),
                    ("GET", TokenMethod::Get),
                    ("POST", TokenMethod::Post),
                ],
                &[],
            ),
            credentials_in: section.choice(
                "credentials_in",
                &[
                    ("basic", CredentialsIn::Basic),
                    ("form", CredentialsIn::Form),
                    ("json", CredentialsIn::Json),
                    ("query", CredentialsIn::Query),
                ],
                &[],
            ),
            scope: section.text("scope"),
            extra: section.named_texts("extra"),
            token_field: section.text("token_field"),
            user_field: section.text("user_field"),
            password_field: section.text("password_field"),
            client_id: section.text_or_secret("client_id"),
            client_secret: section.secret("client_secret"),
            email: section.text_or_secret("email"),
            password: section.secret("password"),
            api_key: section.secret("api_key"),
            token: section.secret("token"),
            user: section.text_or_secret("user"),
            refresh_before: section.span("refresh_before", ZERO..=YEAR),
            lifetime: section.span("lifetime", Duration::from_secs(1)..=YEAR),
            keep_token: section.flag("keep_token"),
            hosts: section.texts("hosts"),
        };
        section.finish();
        credential
    }
}

impl RawDestination {
    fn read(section: Section<'_>) -> Self {
        let destination = Self {
            rate: section.rate("rate"),
            concurrency: section.whole("concurrency", 1..=10_000),
            retry_after_max: section.span("retry_after_max", Duration::from_secs(1)..=DAY * 30),
        };
        section.finish();
        destination
    }
}

impl RawRoute {
    fn read(section: Section<'_>) -> Self {
        let success_when = section.section("success_when", &SUCCESS_WHEN);
        let retry = section.section("retry", &RETRY);
        let route = Self {
            folder: section.path("folder"),
            include: section.texts("include"),
            exclude: section.texts("exclude"),
            temp_names: section.texts("temp_names"),
            format: section.choice("format", &FORMATS, &["csv", "ndjson"]),
            max_depth: section.whole("max_depth", 1..=10_000),
            strict: section.flag("strict"),
            schema: section.path("schema"),
            schema_max: section.size("schema_max"),
            encoding: section.choice("encoding", &ENCODINGS, &[]),
            quiet_for: section.span("quiet_for", ZERO..=DAY),
            truncated_after: section.span("truncated_after", ZERO..=DAY * 7),
            done_marker: section.text("done_marker"),
            deliver: section.choice("deliver", &DELIVERS, &[]),
            company: section.text("company"),
            base_url: section.text("base_url"),
            vanity: section.text("vanity"),
            flow: RawFlow::read(&section),
            hmac: RawHmac::read(section.section("hmac", &HMAC)),
            url: section.text_or_secret("url"),
            method: section.choice("method", &[("POST", "POST"), ("PUT", "PUT")], &[]),
            credential: section.text("credential"),
            headers: section.named_values("headers"),
            content_type: section.text("content_type"),
            max_body: section.size_or_off("max_body"),
            connect_timeout: section.span("connect_timeout", SHORTEST..=HOUR),
            timeout: section.span("timeout", SHORTEST..=DAY),
            concurrency: section.whole("concurrency", 1..=1024),
            order: section.choice("order", &ORDERS, &[]),
            on_failed: section.choice("on_failed", &ON_FAILED, &[]),
            priority: section.choice("priority", &PRIORITIES, &[]),
            success: section.statuses("success", 200..=399),
            success_field: success_when.text("field"),
            success_equals: success_when.scalar("equals"),
            html_is_success: section.choice("success_type", &[("auto", false), ("any", true)], &[]),
            file_faults: section.statuses("file_faults", 400..=599),
            in_doubt: section.choice("in_doubt", &IN_DOUBTS, &[]),
            doubtful: section.statuses("doubtful", 200..=599),
            retry_first: retry.span("first", SHORTEST..=DAY),
            retry_factor: retry.number("factor", 1.0..=100.0),
            retry_max: retry.span("max", SHORTEST..=DAY * 30),
            give_up_after: retry.span("give_up_after", SHORTEST..=YEAR),
            idempotency_header: section.text("idempotency_header"),
            sent: section.path("sent"),
            failed: section.path("failed"),
            held: section.path("held"),
            receipts: section.flag("receipts"),
            duplicates: section.choice("duplicates", &DUPLICATES, &[]),
        };
        success_when.finish();
        retry.finish();
        section.finish();
        route
    }

    /// This route with what it leaves open taken from `defaults`. `exclude` adds up, tables merge
    /// key by key, everything else is the route's where the route says it.
    pub(super) fn over(&self, defaults: &Self) -> Self {
        let mut merged = self.clone();
        merged.folder = merged.folder.or_else(|| defaults.folder.clone());
        merged.exclude = added(self.exclude.clone(), defaults.exclude.clone());
        let mut headers = defaults.headers.clone();
        // Header names are case-insensitive: the route's spelling wins.
        headers.retain(|name, _| !self.headers.keys().any(|own| own.eq_ignore_ascii_case(name)));
        headers.extend(self.headers.clone());
        merged.headers = headers;
        merged.flow = self.flow.over(&defaults.flow);
        merged.hmac = self.hmac.over(&defaults.hmac);
        inherit! { merged from defaults:
            include temp_names format max_depth strict schema schema_max encoding quiet_for
            truncated_after done_marker deliver company base_url vanity url method credential
            content_type max_body connect_timeout timeout concurrency order on_failed priority
            success success_field success_equals html_is_success file_faults in_doubt doubtful
            retry_first retry_factor retry_max give_up_after idempotency_header sent failed held
            receipts duplicates
        }
        merged
    }
}

const FORMATS: [(&str, Format); 4] = [
    ("json", Format::Json),
    ("xml", Format::Xml),
    ("text", Format::Text),
    ("binary", Format::Binary),
];

const DUPLICATES: [(&str, Duplicates); 3] =
    [("send", Duplicates::Send), ("skip", Duplicates::Skip), ("hold", Duplicates::Hold)];

const DELIVERS: [(&str, Deliver); 4] = [
    ("inbound", Deliver::Inbound),
    ("flow", Deliver::Flow),
    ("webhook", Deliver::Webhook),
    ("http", Deliver::Http),
];

const ORDERS: [(&str, Option<OrderBy>); 3] =
    [("none", None), ("name", Some(OrderBy::Name)), ("arrival", Some(OrderBy::Arrival))];

const ON_FAILED: [(&str, OnFailed); 2] = [("skip", OnFailed::Skip), ("pause", OnFailed::Pause)];

const PRIORITIES: [(&str, Priority); 3] =
    [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];

const IN_DOUBTS: [(&str, InDoubt); 3] =
    [("hold", InDoubt::Hold), ("resend", InDoubt::Resend), ("lookup", InDoubt::Lookup)];

const ENCODINGS: [(&str, Encoding); 4] = [
    ("auto", Encoding::Auto),
    ("utf-8", Encoding::Utf8),
    ("utf-16", Encoding::Utf16),
    ("windows-1252", Encoding::Windows1252),
];

fn added(own: Texts, inherited: Texts) -> Texts {
    match (own, inherited) {
        (Some(mut own), Some(inherited)) => {
            own.value.splice(0..0, inherited.value);
            Some(own)
        }
        (own, inherited) => own.or(inherited),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_key_is_in_the_example() {
        let sections =
            [&TOP, &LEDGER, &LOG, &CREDENTIAL, &DESTINATION, &ROUTE, &SUCCESS_WHEN, &HMAC, &RETRY];
        for key in sections.into_iter().flat_map(|keys| keys.accepted) {
            let is_there = super::super::EXAMPLE.lines().any(|line| {
                let setting = line.strip_prefix('#').unwrap_or(line);
                let is_table = [format!("[{key}]"), format!("[{key}.")]
                    .iter()
                    .any(|table| setting.starts_with(table.as_str()));
                let is_inline = [format!("{{ {key} = "), format!(", {key} = ")]
                    .iter()
                    .any(|inline| !setting.starts_with(' ') && setting.contains(inline.as_str()));
                is_table || is_inline || setting.starts_with(&format!("{key} = "))
            });
            assert!(is_there, "{key} is not in examples/config.toml");
        }
    }

    #[test]
    fn no_key_is_both_accepted_and_planned() {
        for keys in [&TOP, &CREDENTIAL, &ROUTE] {
            assert!(keys.planned.iter().all(|key| !keys.accepted.contains(key)), "{keys:?}");
        }
    }
}
