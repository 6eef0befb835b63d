//! What only a `flow` route has: which flow, how it is started, how its runs are asked for.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::address;
use super::page::{At, Sink, bare};
use super::raw::{FlowBody, RawRoute, Trigger};
use super::rules::{Setting, unknown_placeholder};
use super::span::show_span;
use crate::model::route::{Confirm, Flow, Late};
use crate::model::secret::Secret;

/// Base of Patchworks' Start API.
pub(super) const START_URL: &str = "https://start.wearepatchworks.com/api/v1";
/// Base of Patchworks' Core API.
pub(super) const CORE_URL: &str = "https://core.wearepatchworks.com/api/v1";

/// Where an accepting answer may name its run: the documentation shows the field in a picture only,
/// and clients of the vendor use these.
const RUN_ID_FIELDS: [&str; 3] = ["flow_run_id", "run_id", "id"];
const CONFIRM_EVERY: Duration = Duration::from_secs(30);
const CONFIRM_FOR: Duration = Duration::from_hours(24);
/// Payloads of runs are kept for 72 hours (documented): after that a run is hard to judge.
const PAYLOADS_KEPT_FOR: Duration = Duration::from_hours(72);

const ID_FORM: &str = "letters, digits, - and _";

/// The places of a route's own keys that only a flow has.
pub(super) fn own_keys(own: &RawRoute) -> [Option<At<()>>; 14] {
    [
        bare(own.flow.start_url.as_ref()),
        bare(own.flow.core_url.as_ref()),
        bare(own.flow.id.as_ref()),
        bare(own.flow.version.as_ref()),
        bare(own.flow.trigger.as_ref()),
        bare(own.flow.body.as_ref()),
        bare(own.flow.environment.as_ref()),
        bare(own.flow.variables.values().next()),
        bare(own.flow.confirm.as_ref()),
        bare(own.flow.run_id_field.as_ref()),
        bare(own.flow.confirm_every.as_ref()),
        bare(own.flow.confirm_for.as_ref()),
        bare(own.flow.confirm_late.as_ref()),
        bare(own.flow.confirm_partial.as_ref()),
    ]
}

/// The start URL but for the flow's variables, and its host.
pub(super) fn url(
    setting: &Setting<'_>,
    table: &At<String>,
    raw: &RawRoute,
) -> Option<(Secret, String)> {
    let sink = setting.sink;
    if raw.flow.id.is_none() {
        let hint = "write flow_id = '...': the number in the flow's address in the dashboard";
        sink.missing(table, "flow_id", hint);
    }
    let id = raw.flow.id.as_ref().and_then(|id| part(sink, id));
    let version = raw.flow.version.as_ref().map(|version| part(sink, version));
    let environment = raw.flow.environment.as_ref().map(|one| part(sink, one));
    let base = base(setting, raw.flow.start_url.as_ref().or(setting.start_url), START_URL)?;
    let host = address::host(&base);
    let mut url = format!("{}/flows/{}", base.as_str().trim_end_matches('/'), id?);
    url.push_str(match raw.flow.trigger.as_ref().map_or(Trigger::Start, |trigger| trigger.value) {
        Trigger::Start => "/start",
        Trigger::Manual => "/manual",
    });
    if is_raw(raw) {
        url.push_str("/raw");
    }
    if let Some(version) = version {
        url = format!("{url}/{}", version?);
    }
    if let Some(environment) = environment {
        url = format!("{url}?virtual_environment_id={}", environment?);
    }
    Some((Secret::new(url), host))
}

/// Whether the file itself is the body.
pub(super) fn is_raw(raw: &RawRoute) -> bool {
    raw.flow.body.as_ref().is_some_and(|body| body.value == FlowBody::Raw)
}

/// Everything but the URL. Faults are reported; what is given back is whole.
pub(super) fn check(setting: &Setting<'_>, raw: &RawRoute) -> Option<Flow> {
    let sink = setting.sink;
    for (name, value) in &raw.flow.variables {
        if let Some(unknown) = unknown_placeholder(&value.value, &["name", "id", "sha256"]) {
            let text = format!("{{{unknown}}} in {name} stands for nothing");
            sink.fault(value.notice(text, "known are {name}, {id} and {sha256}"));
        }
    }
    let core = base(setting, raw.flow.core_url.as_ref().or(setting.core_url), CORE_URL)?;
    let variables = raw.flow.variables.iter();
    Some(Flow {
        id: Arc::from(raw.flow.id.as_ref().and_then(|id| text(&id.value))?),
        variables: variables.map(|(name, value)| (name.clone(), value.value.clone())).collect(),
        core_host: Arc::from(address::host(&core)),
        core_url: Arc::from(core.as_str().trim_end_matches('/')),
        confirm: confirm(sink, raw),
    })
}

/// Fields that may name a run, each also looked for below `data`.
pub(super) fn run_id_fields(sink: &Sink, raw: &RawRoute) -> Vec<String> {
    let written: Vec<String> = match &raw.flow.run_id_field {
        None => RUN_ID_FIELDS.map(str::to_owned).to_vec(),
        Some(list) => {
            if list.value.is_empty() {
                sink.fault(list.notice("an empty list names no field", "take it out"));
            }
            for field in &list.value {
                if field.value.split('.').any(str::is_empty) {
                    let hint = "write names with dots between them, e.g. 'data.run.id'";
                    sink.fault(field.notice("not a field", hint));
                }
            }
            list.value.iter().map(|field| field.value.clone()).collect()
        }
    };
    let below = written.iter().map(|field| format!("data.{field}"));
    written.iter().cloned().chain(below).collect()
}

fn confirm(sink: &Sink, raw: &RawRoute) -> Option<Confirm> {
    let asks = raw.flow.confirm.as_ref().is_some_and(|confirm| confirm.value);
    let within = raw.flow.confirm_for.as_ref().map_or(CONFIRM_FOR, |span| span.value);
    if let Some(written) = raw.flow.confirm_for.as_ref().filter(|_| within > PAYLOADS_KEPT_FOR) {
        sink.warn(written.notice(
            format!(
                "Patchworks keeps what a run was given for {}: later nobody can tell what it was",
                show_span(PAYLOADS_KEPT_FOR)
            ),
            "make it shorter",
        ));
    }
    asks.then(|| Confirm {
        every: raw.flow.confirm_every.as_ref().map_or(CONFIRM_EVERY, |span| span.value),
        within,
        late: raw.flow.confirm_late.as_ref().map_or(Late::Hold, |late| late.value),
        partial_is_success: raw.flow.confirm_partial.as_ref().is_some_and(|partial| partial.value),
    })
}

fn base(setting: &Setting<'_>, written: Option<&At<String>>, default: &str) -> Option<Url> {
    match written {
        Some(written) => setting.urls.base(written),
        None => Some(Url::parse(default).expect("the constant is a URL")),
    }
}

/// An id that can stand in a URL as it is.
fn part(sink: &Sink, written: &At<serde_json::Value>) -> Option<String> {
    let text = text(&written.value);
    if text.is_none() {
        let hint = "write the number or the text that the dashboard shows";
        sink.fault(written.notice(format!("not an id ({ID_FORM})"), hint));
    }
    text
}

fn text(value: &serde_json::Value) -> Option<String> {
    let number = || value.as_u64().map(|number| number.to_string());
    let text = value.as_str().map(str::to_owned).or_else(number)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then_some(text)
}
