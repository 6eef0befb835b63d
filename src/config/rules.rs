//! What a route does with its files, wherever its folder is: `[defaults]` and `[route.NAME]`,
//! checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use glob::{MatchOptions, Pattern};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::address::{self, UrlRules};
use super::page::{At, Sink, bare};
use super::raw::{Deliver, RawRoute};
use super::section::{OrOff, Written};
use super::span::{show_size, show_span};
use super::vault::{self, Vault};
use super::{Notice, flow, folders, suggest};
use crate::model::route::{
    Backoff, CheckRules, Credential, Delivery, Encoding, Folders, Format, Hmac, HmacEncoding,
    InDoubt, JudgeRules, Ordered, Priority, ReadyRules, Route, RouteName, Select,
};
use crate::model::secret::Secret;
use crate::model::step::Wrap;

/// What programs call a file that they are still writing.
const TEMP_NAMES: [&str; 6] = [".*", "*.tmp", "*.part", "*.filepart", "~*", "*~"];
/// Base of Patchworks' inbound API.
pub(super) const BASE_URL: &str = "https://inbound.pwks.co/v1";
/// What Patchworks' APIs take at most; beyond it the answer is 413.
const PATCHWORKS_BODY_MAX: u64 = 8_000_000;
const SCHEMA_MAX: u64 = 8_000_000;
/// A schema file is a document a person wrote.
const SCHEMA_FILE_MAX: u64 = 16 * 1024 * 1024;
/// The header that Patchworks' webhooks read a signature from (documented).
const HMAC_HEADER: &str = "X-HMAC-HASH";
const JSON_ALONE: &str = "JSON alone is checked in this way";
const IDEMPOTENCY_HEADER: &str = "Idempotency-Key";
const SUCCESS: [u16; 4] = [200, 201, 202, 204];
const FILE_FAULTS: [u16; 4] = [400, 409, 413, 422];
const DOUBTFUL: [u16; 4] = [502, 504, 520, 524];

/// What stands at the top of the file and routes may replace, and the means to check with.
pub(super) struct Setting<'a> {
    pub(super) sink: &'a Sink,
    pub(super) urls: UrlRules<'a>,
    pub(super) vault: &'a Vault<'a>,
    /// What relative paths are relative to.
    pub(super) base: &'a Path,
    pub(super) company: Option<&'a At<String>>,
    pub(super) base_url: Option<&'a At<String>>,
    pub(super) start_url: Option<&'a At<String>>,
    pub(super) core_url: Option<&'a At<String>>,
    pub(super) first_sweep_max_age: Option<Duration>,
    pub(super) credentials: &'a BTreeMap<Arc<str>, Credential>,
    /// Names of all credentials that are written, whether right or wrong.
    pub(super) credential_names: &'a [String],
}

/// A route but for its name, its folder and its vanity.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    select: Select,
    ready: ReadyRules,
    check: CheckRules,
    judge: JudgeRules,
    in_doubt: InDoubt,
    retry: Backoff,
    concurrency: usize,
    order: Option<Ordered>,
    priority: Priority,
    receipts: bool,
    /// For `inbound` its URL ends where the vanity is to follow.
    delivery: Delivery,
    pub(super) is_inbound: bool,
    /// `sent`, `failed`, `held` as written: absolute, or below the drop folder.
    pub(super) targets: [PathBuf; 3],
    /// The schema's file.
    pub(super) schema_file: Option<At<PathBuf>>,
}

impl Rules {
    /// The route of one folder.
    pub(super) fn route(&self, name: &str, inbox: &Path, vanity: &str) -> Route {
        let mut deliver = self.delivery.clone();
        if self.is_inbound {
            deliver.url = Secret::new(format!("{}/{vanity}", deliver.url.reveal()));
        }
        let [sent, failed, held] = self.targets(inbox);
        Route {
            name: RouteName::new(name),
            folders: Folders {
                inbox: Arc::from(inbox),
                sending: Arc::from(inbox.join("sending")),
                sent: Arc::from(sent),
                failed: Arc::from(failed),
                held: Arc::from(held),
            },
            select: self.select.clone(),
            ready: self.ready.clone(),
            check: self.check.clone(),
            deliver,
            judge: self.judge.clone(),
            in_doubt: self.in_doubt,
            retry: self.retry,
            concurrency: self.concurrency,
            order: self.order,
            priority: self.priority,
            receipts: self.receipts,
        }
    }

    /// `sent`, `failed` and `held` of one folder.
    pub(super) fn targets(&self, inbox: &Path) -> [PathBuf; 3] {
        self.targets.each_ref().map(|target| folders::absolute(inbox, target))
    }

    /// Where it sends to: host, and port where it is not the default.
    pub(super) fn host(&self) -> &str {
        &self.delivery.host
    }

    /// How long an attempt may be silent.
    pub(super) fn timeout(&self) -> Duration {
        self.delivery.timeout
    }
}

/// Checks the rules of one route (`raw` has the defaults in it already). The second value is a
/// fault in its surroundings, which stops this route alone.
pub(super) fn check(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
) -> (Option<Rules>, Option<Notice>) {
    let deliver = raw.deliver.as_ref().map_or(Deliver::Inbound, |deliver| deliver.value);
    let sink = setting.sink;
    let format = value(raw.format.as_ref(), Format::Json);
    let wrap = (deliver == Deliver::Flow && !flow::is_raw(raw)).then_some(Wrap::Payload);
    if deliver == Deliver::Flow {
        check_flow_format(sink, raw.format.as_ref(), wrap);
    }
    let select = Select {
        include: globs(sink, raw.include.as_ref(), &[endings(format)]),
        exclude: globs(sink, raw.exclude.as_ref(), &[]),
        temp_names: globs(sink, raw.temp_names.as_ref(), &TEMP_NAMES),
    };
    check_marker(sink, raw, &select);
    let ready = ReadyRules {
        quiet_for: span(raw.quiet_for.as_ref(), quiet_seconds(format)),
        truncated_after: span(raw.truncated_after.as_ref(), 30),
        done_marker: raw.done_marker.as_ref().map(|marker| marker.value.clone()),
        first_sweep_max_age: setting.first_sweep_max_age,
    };
    // What does not fit the format and comes from [defaults] is meant for other routes.
    let is_json = format == Format::Json;
    let (schema, schema_file, broken) =
        if is_json { schema(setting, raw) } else { (None, None, None) };
    let has_encoding = matches!(format, Format::Json | Format::Text);
    let check = CheckRules {
        format,
        max_depth: value(raw.max_depth.as_ref(), 512),
        strict: is_json && value(raw.strict.as_ref(), false),
        schema,
        schema_max_bytes: value(raw.schema_max.as_ref(), SCHEMA_MAX),
        encoding: value(raw.encoding.as_ref().filter(|_| has_encoding), Encoding::Auto),
        wrap,
        body_max_bytes: body_max(sink, raw, deliver),
    };
    let judge = judge(sink, raw, deliver);
    let retry = retry(sink, raw);
    let targets = [(&raw.sent, "sent"), (&raw.failed, "failed"), (&raw.held, "held")].map(
        |(target, name)| {
            PathBuf::from(target.as_ref().map_or(name, |target| target.value.as_str()))
        },
    );
    let delivery = delivery(setting, table, raw, deliver, wrap);
    let rules = delivery.map(|delivery| Rules {
        select,
        ready,
        check,
        judge,
        in_doubt: in_doubt(sink, raw, deliver),
        retry,
        concurrency: value(raw.concurrency.as_ref(), 4),
        order: order(sink, raw),
        priority: value(raw.priority.as_ref(), Priority::Normal),
        receipts: value(raw.receipts.as_ref(), false),
        delivery,
        is_inbound: deliver == Deliver::Inbound,
        targets,
        schema_file,
    });
    (rules, broken)
}

/// The names that files of a format have.
fn endings(format: Format) -> &'static str {
    match format {
        Format::Json => "*.json",
        Format::Xml => "*.xml",
        Format::Text => "*.txt",
        Format::Binary => "*",
    }
}

/// How long a file must be unchanged. One that stops in the middle shows it in JSON and XML, and
/// in nothing else.
fn quiet_seconds(format: Format) -> u64 {
    match format {
        Format::Json | Format::Xml => 1,
        Format::Text | Format::Binary => 10,
    }
}

/// The Content-Type of a body.
fn media_type(format: Format, wrap: Option<Wrap>) -> &'static str {
    match (format, wrap) {
        (_, Some(Wrap::Payload)) | (Format::Json, None) => "application/json",
        (Format::Xml, None) => "application/xml",
        (Format::Text, None) => "text/plain; charset=utf-8",
        (Format::Binary, None) => "application/octet-stream",
    }
}

/// An envelope carries text; a raw start takes a JSON document and nothing else.
fn check_flow_format(sink: &Sink, format: Option<&At<Format>>, wrap: Option<Wrap>) {
    let Some(format) = format else { return };
    match (format.value, wrap) {
        (Format::Json, _) | (Format::Xml | Format::Text, Some(Wrap::Payload)) => {}
        (Format::Binary, Some(Wrap::Payload)) => sink.fault(format.notice(
            "an envelope carries a text, and binary files are none",
            "write format = \"text\" if they are text; else deliver = \"webhook\" or \"http\"",
        )),
        (Format::Xml | Format::Text | Format::Binary, None) => sink.fault(format.notice(
            "a raw start takes JSON documents alone",
            "write body = \"envelope\": it carries any text",
        )),
    }
}

/// A format that this way of delivery does not take, and keys of the route's own table that mean
/// nothing for its format. `merged` has the defaults in it.
pub(super) fn check_format(
    sink: &Sink,
    table: &At<String>,
    own: &RawRoute,
    merged: &RawRoute,
    deliver: Deliver,
) {
    let format = value(merged.format.as_ref(), Format::Json);
    if let (Deliver::Inbound, Some(written)) = (deliver, &merged.format)
        && format != Format::Json
    {
        let name = &table.value;
        let hint = if own.format.is_some() {
            "take it out, or choose another way of delivery, e.g. deliver = \"http\"".to_owned()
        } else {
            format!("write format = \"json\" in [route.{name}], or move it into other routes")
        };
        let text = format!("route {name} delivers to the inbound API, which takes JSON alone");
        sink.fault(written.notice(text, hint));
        return;
    }
    let place = |is_odd: bool, place: Option<At<()>>| place.filter(|_| is_odd);
    let is_json = format == Format::Json;
    let has_depth = matches!(format, Format::Json | Format::Xml);
    let not_auto = own.encoding.as_ref().filter(|encoding| encoding.value != Encoding::Auto);
    let keys = [
        (place(!is_json, bare(own.schema.as_ref())), JSON_ALONE),
        (place(!is_json, bare(own.schema_max.as_ref())), JSON_ALONE),
        (place(!is_json, bare(own.strict.as_ref())), JSON_ALONE),
        (place(!has_depth, bare(own.max_depth.as_ref())), "nesting is a matter of JSON and XML"),
        (
            place(format == Format::Xml, bare(not_auto)),
            "an XML file says itself how it is encoded, and is sent so",
        ),
        (
            place(format == Format::Binary, bare(own.encoding.as_ref())),
            "binary files are sent as they are, whatever is in them",
        ),
    ];
    for (place, text) in keys {
        if let Some(place) = place {
            sink.fault(place.notice(text, "take it out, or choose another format"));
        }
    }
}

fn value<T: Copy>(written: Option<&At<T>>, default: T) -> T {
    written.map_or(default, |written| written.value)
}

fn span(written: Option<&At<Duration>>, default_seconds: u64) -> Duration {
    value(written, Duration::from_secs(default_seconds))
}

fn globs(sink: &Sink, written: Option<&At<Vec<At<String>>>>, default: &[&str]) -> Vec<String> {
    let Some(written) = written else {
        return default.iter().map(|&glob| glob.to_owned()).collect();
    };
    for glob in &written.value {
        if glob.value.is_empty() {
            sink.fault(glob.notice("an empty pattern matches nothing", "take it out"));
        } else if glob.value.contains(['/', '\\']) {
            let hint = "write a pattern for the name alone; folder says where";
            sink.fault(glob.notice("a pattern is matched with the file name, not a path", hint));
        } else if let Err(error) = Pattern::new(&glob.value) {
            sink.fault(glob.notice(
                format!("{:?} is not a pattern: {}", glob.value, error.msg),
                "* stands for any text, ? for one letter, [abc] for one of these",
            ));
        }
    }
    if written.value.is_empty() && written.key.ends_with(".include") {
        sink.fault(written.notice("an empty list matches no file", "write e.g. ['*.json']"));
    }
    written.value.iter().map(|glob| glob.value.clone()).collect()
}

fn matches_any(globs: &[String], name: &str) -> bool {
    let options = MatchOptions { case_sensitive: false, ..MatchOptions::new() };
    globs
        .iter()
        .filter_map(|glob| Pattern::new(glob).ok())
        .any(|glob| glob.matches_with(name, options))
}

/// A done-marker must name its file, and must not be taken for a file itself.
fn check_marker(sink: &Sink, raw: &RawRoute, select: &Select) {
    let Some(marker) = &raw.done_marker else { return };
    let hint = "write e.g. '{name}.done' or '{stem}.ok'";
    if !marker.value.contains("{name}") && !marker.value.contains("{stem}") {
        sink.fault(
            marker.notice("must hold {name} or {stem}, so that each file has its own", hint),
        );
    } else if marker.value.contains(['/', '\\']) || marker.value.chars().any(char::is_control) {
        sink.fault(marker.notice("must be a name in the same folder", hint));
    } else if let Some(unknown) = unknown_placeholder(&marker.value, &["name", "stem"]) {
        sink.fault(marker.notice(format!("{{{unknown}}} stands for nothing"), hint));
    } else {
        // Binary files may have every name; a marker is told from them by its own form.
        let has_form = !matches!(marker.value.as_str(), "{name}" | "{stem}");
        let is_any = value(raw.format.as_ref(), Format::Json) == Format::Binary && has_form;
        let named = select.include.iter().filter(|glob| !is_any || *glob != "*");
        let taken = named.map(|glob| example_of(glob)).find(|name| {
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
            let marker = marker.value.replace("{name}", name).replace("{stem}", stem);
            matches_any(&select.include, &marker)
                && !matches_any(&select.exclude, &marker)
                && !matches_any(&select.temp_names, &marker)
        });
        if let Some(name) = taken {
            sink.fault(marker.notice(
                format!("the marker of {name} would itself be sent, since include matches it"),
                "give it another ending, or add it to exclude",
            ));
        }
    }
}

/// A name that a pattern matches.
fn example_of(glob: &str) -> String {
    let mut name = String::new();
    let mut letters = glob.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '*' | '?' => name.push('x'),
            '[' => name.extend(letters.by_ref().take_while(|letter| *letter != ']').last()),
            other => name.push(other),
        }
    }
    name
}

/// The first `{word}` that is not among the known ones.
pub(super) fn unknown_placeholder<'t>(text: &'t str, known: &[&str]) -> Option<&'t str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(word, _)| word).find(
        |word| {
            let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_word && !known.contains(word)
        },
    )
}

type Schema = (Option<Arc<serde_json::Value>>, Option<At<PathBuf>>, Option<Notice>);

/// Reads the schema. What is wrong with it is wrong with this route alone.
fn schema(setting: &Setting<'_>, raw: &RawRoute) -> Schema {
    let Some(written) = &raw.schema else { return (None, None, None) };
    let path = folders::absolute(setting.base, Path::new(&written.value));
    let shown = path.display();
    let read = vault::read(&path, SCHEMA_FILE_MAX)
        .map_err(|error| format!("the schema {shown} cannot be read: {error}"))
        .and_then(|bytes| {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            serde_json::from_slice::<serde_json::Value>(bytes)
                .map_err(|error| format!("the schema {shown} is not JSON: {error}"))
        })
        .and_then(|document| match jsonschema::validator_for(&document) {
            Ok(_) => Ok(document),
            Err(error) => Err(format!("{shown} is not a JSON Schema: {error}")),
        });
    let file = Some(written.with(path.clone()));
    match read {
        Ok(document) => (Some(Arc::new(document)), file, None),
        Err(text) => {
            let hint = "mend the file, or take the key out; until then nothing of it is sent";
            (None, file, Some(written.notice(text, hint)))
        }
    }
}

fn body_max(sink: &Sink, raw: &RawRoute, deliver: Deliver) -> Option<u64> {
    let patchworks = matches!(deliver, Deliver::Inbound | Deliver::Flow);
    let Some(written) = &raw.max_body else { return patchworks.then_some(PATCHWORKS_BODY_MAX) };
    let max = match written.value {
        OrOff::Off => None,
        OrOff::Is(bytes) => Some(bytes),
    };
    if patchworks && max.is_none_or(|bytes| bytes > PATCHWORKS_BODY_MAX) {
        sink.warn(written.notice(
            format!("Patchworks refuses more than {} with 413", show_size(PATCHWORKS_BODY_MAX)),
            "leave it out unless your contract says otherwise",
        ));
    }
    max
}

fn in_doubt(sink: &Sink, raw: &RawRoute, deliver: Deliver) -> InDoubt {
    let chosen = value(raw.in_doubt.as_ref(), InDoubt::Hold);
    if let (InDoubt::Lookup, Some(written)) = (chosen, &raw.in_doubt)
        && deliver != Deliver::Flow
    {
        sink.fault(written.notice(
            "only a flow has runs that could be looked up",
            "write in_doubt = \"hold\", or \"resend\" where the receiver knows the idempotency key",
        ));
    }
    chosen
}

/// With an order somebody has to say what becomes of it when a file fails; there is no answer that
/// is right for all.
fn order(sink: &Sink, raw: &RawRoute) -> Option<Ordered> {
    let written = raw.order.as_ref()?;
    let by = written.value?;
    match &raw.on_failed {
        Some(on_failed) => Some(Ordered { by, on_failed: on_failed.value }),
        None => {
            sink.fault(written.notice(
                "with an order `on_failed` must say what follows when a file fails",
                "write on_failed = \"pause\": later files wait until `patchdrop resume`; or \"skip\": the next one goes",
            ));
            None
        }
    }
}

fn judge(sink: &Sink, raw: &RawRoute, deliver: Deliver) -> JudgeRules {
    let statuses = |written: &Option<At<BTreeSet<u16>>>, default: [u16; 4]| match written {
        Some(written) => written.value.clone(),
        None => BTreeSet::from(default),
    };
    let rules = JudgeRules {
        success: statuses(&raw.success, SUCCESS),
        success_when: success_when(sink, raw),
        html_is_success: value(raw.html_is_success.as_ref(), false),
        file_faults: statuses(&raw.file_faults, FILE_FAULTS),
        doubtful: statuses(&raw.doubtful, DOUBTFUL),
        run_id_fields: match deliver {
            Deliver::Flow => flow::run_id_fields(sink, raw),
            Deliver::Inbound | Deliver::Webhook | Deliver::Http => Vec::new(),
        },
    };
    if let Some(written) = raw.success.as_ref().filter(|written| written.value.is_empty()) {
        sink.fault(written.notice("with no status that means accepted nothing is ever sent", ""));
    }
    if let Some(written) = &raw.file_faults {
        for status in [401, 408, 425, 429] {
            if written.value.contains(&status) {
                let text = format!("{status} never speaks about the file");
                sink.fault(written.notice(text, format!("take {status} out")));
            }
        }
    }
    let lists = [
        ("success", &rules.success, &raw.success),
        ("file_faults", &rules.file_faults, &raw.file_faults),
        ("doubtful", &rules.doubtful, &raw.doubtful),
    ];
    for (at, (one, statuses, written)) in lists.iter().enumerate() {
        for (other, other_statuses, other_written) in lists.iter().skip(at + 1) {
            let place = other_written.as_ref().or(written.as_ref());
            let both: Vec<_> = statuses.intersection(other_statuses).map(u16::to_string).collect();
            if let (Some(place), false) = (place, both.is_empty()) {
                let text = format!("{} is in {one} and in {other}", both.join(", "));
                sink.fault(place.notice(text, "a status means one thing: take it out of one"));
            }
        }
    }
    rules
}

fn success_when(sink: &Sink, raw: &RawRoute) -> Option<(String, serde_json::Value)> {
    match (&raw.success_field, &raw.success_equals) {
        (Some(field), Some(equals)) => {
            if field.value.split('.').any(str::is_empty) {
                let hint = "write names with dots between them, e.g. 'data.state'";
                sink.fault(field.notice("not a field", hint));
            }
            Some((field.value.clone(), equals.value.clone()))
        }
        (None, None) => None,
        (Some(place), None) => {
            sink.fault(place.notice("field needs equals", "write { field = 'F', equals = 'V' }"));
            None
        }
        (None, Some(place)) => {
            sink.fault(place.notice("equals needs field", "write { field = 'F', equals = 'V' }"));
            None
        }
    }
}

fn retry(sink: &Sink, raw: &RawRoute) -> Backoff {
    let retry = Backoff {
        first: span(raw.retry_first.as_ref(), 1),
        factor: value(raw.retry_factor.as_ref(), 2.0),
        max: span(raw.retry_max.as_ref(), 5 * 60),
        give_up_after: span(raw.give_up_after.as_ref(), 5 * 24 * 3600),
    };
    if retry.max < retry.first
        && let Some(place) = raw.retry_max.as_ref().or(raw.retry_first.as_ref())
    {
        let text = format!(
            "max ({}) is shorter than first ({})",
            show_span(retry.max),
            show_span(retry.first)
        );
        sink.fault(place.notice(text, "make max at least as long as first"));
    }
    retry
}

fn delivery(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    deliver: Deliver,
    wrap: Option<Wrap>,
) -> Option<Delivery> {
    let (kind, url) = match deliver {
        Deliver::Inbound => ("inbound", inbound_url(setting, table, raw)),
        Deliver::Flow => ("flow", flow::url(setting, table, raw)),
        Deliver::Webhook => ("webhook", http_url(setting, table, raw, "webhook")),
        Deliver::Http => ("http", http_url(setting, table, raw, "http")),
    };
    let flow = (deliver == Deliver::Flow).then(|| flow::check(setting, raw));
    let hmac = hmac(setting, table, raw, deliver);
    let credential = credential(setting, table, raw, deliver);
    let headers = headers(setting, raw, matches!(credential, Ok(Some(_))));
    let content_type = content_type(setting.sink, raw, deliver, wrap);
    let idempotency_header = idempotency_header(setting.sink, raw);
    let (url, host) = url?;
    let credential = credential.ok()?;
    let flow = match flow {
        Some(flow) => Some(flow?),
        None => None,
    };
    // Hosts of base URLs are among a credential's hosts.
    if let (Deliver::Http | Deliver::Webhook, Some(name)) = (deliver, &credential)
        && let Some(known) = setting.credentials.get(name)
        && !known.hosts.contains(&host)
        && !url.reveal().is_empty()
    {
        let place = raw.credential.as_ref().unwrap_or(table);
        setting.sink.fault(place.notice(
            format!("the credential {name} may not go to {host}"),
            format!("write hosts = ['{host}'] in [credential.{name}] if it is meant to"),
        ));
    }
    Some(Delivery {
        kind,
        url,
        host: Arc::from(host),
        method: value(raw.method.as_ref(), "POST"),
        content_type,
        headers,
        idempotency_header,
        hmac,
        flow,
        credential,
        connect_timeout: span(raw.connect_timeout.as_ref(), 10),
        timeout: span(raw.timeout.as_ref(), 60),
    })
}

/// The inbound URL up to the vanity, and its host.
fn inbound_url(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
) -> Option<(Secret, String)> {
    let company = raw.company.as_ref().or(setting.company);
    if company.is_none() {
        setting.sink.fault(table.notice(
            "an inbound route needs a company",
            "write company = 'NAME' at the top: the part of the inbound URL after /v1/",
        ));
    }
    let company = company.filter(|company| is_company(setting.sink, company));
    let base = match raw.base_url.as_ref().or(setting.base_url) {
        Some(written) => setting.urls.base(written)?,
        None => Url::parse(BASE_URL).expect("the constant is a URL"),
    };
    let host = address::host(&base);
    Some((Secret::new(format!("{}/{}", base.as_str().trim_end_matches('/'), company?.value)), host))
}

/// Whether a company fits into a URL as one part.
pub(super) fn is_company(sink: &Sink, company: &At<String>) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_part = !company.value.is_empty()
        && company.value.bytes().all(fits)
        && !company.value.bytes().all(|byte| byte == b'.');
    if !is_part {
        sink.fault(company.notice(
            format!("{:?} cannot be part of a URL", company.value),
            "write the part of the inbound URL after /v1/, e.g. 'acme'",
        ));
    }
    is_part
}

fn http_url(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    kind: &str,
) -> Option<(Secret, String)> {
    let Some(written) = &raw.url else {
        let hint = format!("deliver = \"{kind}\" needs the URL to send to");
        setting.sink.missing(table, "url", &hint);
        return None;
    };
    let secret = setting.vault.open(written)?;
    if secret.reveal().is_empty() && !setting.vault.is_needed {
        return Some((secret, "unknown".to_owned()));
    }
    let url = setting.urls.url(&written.with(secret.reveal().to_owned()))?;
    if !matches!(written.value, Written::Plain(_)) {
        setting.vault.note(url.as_str());
    }
    if kind == "webhook" && matches!(written.value, Written::Plain(_)) && url.query().is_some() {
        setting.sink.warn(written.notice(
            "a signed URL is a secret, and whoever may read this file may send with it",
            "write url = { env = \"NAME\" } or { file = \"PATH\" }",
        ));
    }
    // Signatures stand in queries.
    if let Some(query) = url.query() {
        setting.vault.note(query);
        for (_, value) in url.query_pairs().filter(|(_, value)| value.len() >= 12) {
            setting.vault.note(&value);
        }
    }
    let host = address::host(&url);
    Some((Secret::new(String::from(url)), host))
}

/// A fault has been reported.
struct Said;

/// The credential of a route, if it has one; an error is a fault that has been said.
fn credential(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    deliver: Deliver,
) -> Result<Option<Arc<str>>, Said> {
    let names: Vec<&str> = setting.credential_names.iter().map(String::as_str).collect();
    if let Some(written) = &raw.credential {
        if names.contains(&written.value.as_str()) {
            return Ok(Some(Arc::from(written.value.as_str())));
        }
        let hint = if names.is_empty() {
            format!("write a table [credential.{}]", written.value)
        } else {
            suggest::hint(&written.value, &names)
        };
        let text = format!("there is no credential {:?}", written.value);
        setting.sink.fault(written.notice(text, hint));
        return Err(Said);
    }
    match (deliver, names.as_slice()) {
        (Deliver::Http | Deliver::Webhook, _) => Ok(None),
        (Deliver::Inbound | Deliver::Flow, [only]) => Ok(Some(Arc::from(*only))),
        (Deliver::Inbound | Deliver::Flow, []) => {
            let hint = "write a table [credential.NAME]; examples/config.toml shows it";
            let text = format!("{} needs a credential", article(deliver));
            setting.sink.fault(table.notice(text, hint));
            Err(Said)
        }
        (Deliver::Inbound | Deliver::Flow, several) => {
            setting.sink.fault(table.notice(
                format!(
                    "there are several credentials, and {} needs one of them",
                    article(deliver)
                ),
                format!(
                    "write credential = {}, in its table or in [defaults]",
                    suggest::list(several)
                ),
            ));
            Err(Said)
        }
    }
}

fn article(deliver: Deliver) -> &'static str {
    match deliver {
        Deliver::Inbound => "an inbound route",
        Deliver::Flow => "a flow route",
        Deliver::Webhook => "a webhook route",
        Deliver::Http => "an http route",
    }
}

/// How bodies are signed.
fn hmac(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
    deliver: Deliver,
) -> Option<Hmac> {
    let is_signed = matches!(deliver, Deliver::Webhook | Deliver::Http);
    let others = [
        raw.hmac.algorithm.as_ref().map(|written| written.with(())),
        raw.hmac.header.as_ref().map(|written| written.with(())),
        raw.hmac.encoding.as_ref().map(|written| written.with(())),
    ];
    let Some(written) = raw.hmac.key.as_ref().filter(|_| is_signed) else {
        if is_signed && others.iter().any(Option::is_some) {
            let hint = "write hmac = { key = { env = \"NAME\" } }: the secret that both sides know";
            setting.sink.missing(table, "hmac.key", hint);
        }
        return None;
    };
    let header = raw.hmac.header.as_ref();
    if let Some(header) = header {
        let lower = header.value.to_ascii_lowercase();
        if HeaderName::from_bytes(header.value.as_bytes()).is_err() {
            setting.sink.fault(header.notice("not a header name", "use letters, digits and -"));
        } else if lower == "authorization" || OWN_HEADERS.contains(&lower.as_str()) {
            let hint = "choose another name";
            setting.sink.fault(header.notice("this header is set to something else", hint));
        }
    }
    Some(Hmac {
        key: setting.vault.open(written)?,
        header: header.map_or_else(|| HMAC_HEADER.to_owned(), |header| header.value.clone()),
        encoding: value(raw.hmac.encoding.as_ref(), HmacEncoding::Hex),
    })
}

/// Headers that patchdrop or HTTP itself sets.
const OWN_HEADERS: [&str; 10] = [
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "host",
    "connection",
    "expect",
    "te",
    "trailer",
    "upgrade",
];

fn headers(setting: &Setting<'_>, raw: &RawRoute, has_token: bool) -> Vec<(String, Secret)> {
    let mut headers = Vec::new();
    for (name, written) in &raw.headers {
        let lower = name.to_ascii_lowercase();
        let fault = |text: &str, hint: &str| setting.sink.fault(written.notice(text, hint));
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            fault("not a header name", "use letters, digits and -");
            continue;
        }
        if lower == "content-type" {
            fault("this header has a key of its own", "write content_type = '...'");
        } else if OWN_HEADERS.contains(&lower.as_str()) {
            fault("patchdrop sets this header itself", "take it out");
        } else if lower == "authorization" && has_token {
            fault("the route's credential fills this header", "take it out, or the credential");
        } else if raw.idempotency_header.as_ref().is_some_and(|key| key.value == *name) {
            fault("this header carries the idempotency key", "take it out");
        }
        if let Written::Plain(text) = &written.value
            && let Some(unknown) = unknown_placeholder(text, &["name", "id", "sha256"])
        {
            let text = format!("{{{unknown}}} stands for nothing");
            fault(&text, "known are {name}, {id} and {sha256}");
        }
        let Some(value) = setting.vault.open(written) else { continue };
        if HeaderValue::from_str(value.reveal()).is_err() {
            fault("holds characters that a header cannot carry", "use one line of plain ASCII");
        }
        headers.push((name.clone(), value));
    }
    headers
}

fn content_type(sink: &Sink, raw: &RawRoute, deliver: Deliver, wrap: Option<Wrap>) -> String {
    let Some(written) = &raw.content_type else {
        return media_type(value(raw.format.as_ref(), Format::Json), wrap).to_owned();
    };
    if !written.value.contains('/') || HeaderValue::from_str(&written.value).is_err() {
        sink.fault(written.notice("not a content type", "write e.g. 'application/json'"));
    } else if matches!(deliver, Deliver::Inbound | Deliver::Flow)
        && !written.value.contains("/json")
        && !written.value.contains("+json")
    {
        sink.fault(written.notice(
            "Patchworks reads a body as JSON only if its type says so; else it stores nothing",
            "leave it out, or write 'application/json'",
        ));
    }
    written.value.clone()
}

fn idempotency_header(sink: &Sink, raw: &RawRoute) -> Option<String> {
    let Some(written) = &raw.idempotency_header else {
        return Some(IDEMPOTENCY_HEADER.to_owned());
    };
    if written.value.is_empty() {
        return None;
    }
    let lower = written.value.to_ascii_lowercase();
    if HeaderName::from_bytes(written.value.as_bytes()).is_err() {
        let hint = "use letters, digits and -; \"\" turns it off";
        sink.fault(written.notice("not a header name", hint));
    } else if lower == "authorization" || OWN_HEADERS.contains(&lower.as_str()) {
        sink.fault(written.notice("this header is set to something else", "choose another name"));
    }
    Some(written.value.clone())
}
