//! What a route does with its files, wherever its folder is: `[defaults]` and `[route.NAME]`,
//! checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use glob::{MatchOptions, Pattern};

use super::address::UrlRules;
use super::page::{At, Sink, bare};
use super::raw::{Deliver, RawRoute};
use super::section::OrOff;
use super::span::{show_size, show_span};
use super::vault::{self, Vault};
use super::{Notice, delivery, flow, folders};
use crate::model::route::{
    Backoff, CheckRules, Credential, Delivery, Duplicates, Encoding, Folders, Format, InDoubt,
    JudgeRules, Ordered, Priority, ReadyRules, Route, RouteName, Select,
};
use crate::model::secret::Secret;
use crate::model::step::Wrap;

/// What programs call a file that they are still writing.
const TEMP_NAMES: [&str; 6] = [".*", "*.tmp", "*.part", "*.filepart", "~*", "*~"];
/// What Patchworks' APIs take at most; beyond it the answer is 413.
const PATCHWORKS_BODY_MAX: u64 = 8_000_000;
const SCHEMA_MAX: u64 = 8_000_000;
/// A schema file is a document a person wrote.
const SCHEMA_FILE_MAX: u64 = 16 * 1024 * 1024;
const JSON_ALONE: &str = "JSON alone is checked in this way";
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
    duplicates: Duplicates,
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
            duplicates: self.duplicates,
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
    let delivery = delivery::check(setting, table, raw, deliver, wrap);
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
        duplicates: value(raw.duplicates.as_ref(), Duplicates::Send),
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

pub(super) fn value<T: Copy>(written: Option<&At<T>>, default: T) -> T {
    written.map_or(default, |written| written.value)
}

pub(super) fn span(written: Option<&At<Duration>>, default_seconds: u64) -> Duration {
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
        } else {
            check_meaning(sink, glob);
        }
    }
    if written.value.is_empty() && written.key.ends_with(".include") {
        sink.fault(written.notice("an empty list matches no file", "write e.g. ['*.json']"));
    }
    written.value.iter().map(|glob| glob.value.clone()).collect()
}

/// Patterns that are none of ours in other programs, and say something else here.
fn check_meaning(sink: &Sink, glob: &At<String>) {
    let text = &*glob.value;
    if let Some(range) = empty_range(text) {
        let turned: String = range.chars().rev().collect();
        sink.fault(glob.notice(
            format!("{text:?} matches nothing: there is no letter in the range {range}"),
            format!("write [{turned}]"),
        ));
    }
    if let Some(rest) = text.strip_prefix('!').filter(|rest| !rest.is_empty()) {
        sink.warn(glob.notice(
            format!("{text:?} excludes nothing: it matches names that begin with !"),
            format!("to leave files out write exclude = ['{rest}']"),
        ));
    }
    let alternatives = text.split_once('{').and_then(|(before, rest)| {
        let (within, after) = rest.split_once('}')?;
        let all = within.split(',').map(|one| format!("'{before}{one}{after}'"));
        within.contains(',').then(|| all.collect::<Vec<_>>().join(", "))
    });
    if let Some(alternatives) = alternatives {
        sink.warn(glob.notice(
            format!("{text:?} matches only names that hold these braces: they are no alternatives"),
            format!("write each as a pattern of its own: [{alternatives}]"),
        ));
    }
}

/// The first range in brackets that ends before it begins.
fn empty_range(glob: &str) -> Option<String> {
    let mut rest = glob;
    while let Some((_, within)) = rest.split_once('[') {
        let within = within.strip_prefix('!').unwrap_or(within);
        // A bracket that comes first is one of the letters.
        let end = within.char_indices().skip(1).find(|(_, letter)| *letter == ']')?.0;
        let (class, after) = within.split_at_checked(end)?;
        let letters: Vec<char> = class.chars().collect();
        let mut at = 0;
        while let Some(&from) = letters.get(at) {
            match (letters.get(at + 1), letters.get(at + 2)) {
                (Some('-'), Some(&to)) if from > to => return Some(format!("{from}-{to}")),
                (Some('-'), Some(_)) => at += 3,
                _ => at += 1,
            }
        }
        rest = after;
    }
    None
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
    if raw.on_failed.is_none() {
        sink.fault(written.notice(
            "with an order `on_failed` must say what follows when a file fails",
            "write on_failed = \"pause\": later files wait until `patchdrop resume`; or \"skip\": the next one goes",
        ));
    }
    raw.on_failed.as_ref().map(|on_failed| Ordered { by, on_failed: on_failed.value })
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
