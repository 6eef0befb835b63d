//! The Start API: what begins a run of a flow, with an envelope or with a raw body.

use std::collections::BTreeMap;

use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::{
    Cut, Response, invalid, json_answer, message, not_found, too_large, wrong_method,
};
use super::body::{Read, Wanted};
use super::caller::{self, Takes};
use super::document::{Field, Root};
use super::door::{Visit, content_length, is_json};
use super::login::put;
use super::options::IdForm;
use super::record::Started;
use super::rules::Act;
use super::run;
use super::text::{is_number, pairs};
use crate::model::file::Digest;

/// What the path and the query ask for.
struct Asked {
    trigger: &'static str,
    is_raw: bool,
    version: Option<String>,
    environment: Option<String>,
    variables: Option<String>,
}

impl Asked {
    /// `None` if there is no such path.
    fn of(rest: &[&str], query: &BTreeMap<String, String>) -> Option<Self> {
        let (trigger, is_raw, version) = match rest {
            [trigger] => (trigger, false, None),
            [trigger, "raw"] => (trigger, true, None),
            [trigger, version] => (trigger, false, Some(*version)),
            [trigger, "raw", version] => (trigger, true, Some(*version)),
            _ => return None,
        };
        let trigger = match *trigger {
            "start" => "start",
            "manual" => "manual",
            _ => return None,
        };
        if version.is_some_and(|version| !is_number(version)) {
            return None;
        }
        let given = |name: &str| query.get(name).cloned();
        Some(Self {
            trigger,
            is_raw,
            version: version.map(str::to_owned),
            environment: given("virtual_environment_id"),
            variables: given("flow_variables"),
        })
    }

    /// What is wrong with the query.
    fn fault(&self) -> Option<Response> {
        if self.environment.as_deref().is_some_and(|id| !is_number(id)) {
            let text = "The virtual environment id field must be an integer.";
            return Some(invalid(&[("virtual_environment_id", text.to_owned())]));
        }
        let is_object =
            |text: &str| serde_json::from_str(text).is_ok_and(|value: Value| value.is_object());
        if self.variables.as_deref().is_some_and(|text| !is_object(text)) {
            let text = "The flow variables field must be a JSON object.";
            return Some(invalid(&[("flow_variables", text.to_owned())]));
        }
        None
    }
}

pub(super) async fn answer(
    visit: &Visit<'_>,
    rest: &[&str],
    body: Incoming,
) -> Result<Response, Cut> {
    let options = &visit.state.options.start;
    let most = options.body_max_bytes;
    let query = pairs(visit.head.uri.query().unwrap_or_default());
    let Some(asked) = Asked::of(rest, &query) else {
        return visit.turn_away(body, most, not_found()).await;
    };
    if content_length(visit.head) > most {
        return Ok(too_large());
    }
    if visit.head.method != Method::POST {
        return visit.turn_away(body, most, wrong_method("POST")).await;
    }
    let stranger = caller::refuse(visit.state, visit.head, Takes::Core);
    if let Some(answer) = stranger.or_else(|| visit.too_early()) {
        return visit.turn_away(body, most, answer).await;
    }
    let is_known = match &options.flows {
        Some(flows) => flows.contains(visit.place),
        None => is_number(visit.place),
    };
    let refused = if !is_known {
        Some(not_found())
    } else if options.undeployed.contains(visit.place) && asked.version.is_none() {
        let text = "The flow has no deployed version.";
        Some(message(StatusCode::UNPROCESSABLE_ENTITY, text))
    } else {
        asked.fault()
    };
    if let Some(answer) = refused {
        return visit.turn_away(body, most, answer).await;
    }
    let field = Some(options.envelope_field.as_str());
    let wanted = Wanted { bytes_max: Some(most), field, ..Wanted::default() };
    visit.serve(body, wanted, |act, read| take(visit, &asked, act, read)).await
}

/// What the flow gets.
enum Content {
    Nothing,
    Payload {
        sha256: Digest,
        bytes: u64,
    },
    /// There was a body, but nothing in it where the payload is looked for.
    Ignored,
}

/// Begins a run.
fn take(visit: &Visit<'_>, asked: &Asked, act: &Act, read: Read) -> Response {
    let content = match content(visit, asked, &read) {
        Ok(content) => content,
        Err(answer) => return answer,
    };
    let run = run::begin(
        visit.state,
        visit.place,
        asked.version.as_deref(),
        asked.environment.as_deref(),
        if asked.trigger == "manual" { "Manual" } else { "API" },
        act,
    );
    let is_payload_ignored = matches!(content, Content::Ignored);
    let (payload_sha256, payload_bytes) = match content {
        Content::Payload { sha256, bytes } => (Some(sha256), bytes),
        Content::Nothing | Content::Ignored => (None, 0),
    };
    visit.state.inner().seen.payloads_ignored += u64::from(is_payload_ignored);
    let started = Started {
        trigger: Box::from(asked.trigger),
        is_raw: asked.is_raw,
        version: asked.version.as_deref().map(Box::from),
        variables: asked.variables.as_deref().map(Box::from),
        run: run.to_string().into(),
        payload_sha256,
        payload_bytes,
        is_payload_ignored,
    };
    visit.store(read, asked.environment.as_deref(), Some(Box::new(started)));
    let options = &visit.state.options.start;
    let mut body = json!({ "message": "Flow initialised." });
    if let Some(field) = &options.run_id_field {
        let id = match options.run_ids {
            IdForm::Number => json!(run),
            IdForm::Text => json!(run.to_string()),
        };
        put(&mut body, field, id);
    }
    json_answer(StatusCode::OK, &body)
}

/// What the flow gets of a body.
///
/// # Errors
/// The answer to a body that is not taken.
fn content(visit: &Visit<'_>, asked: &Asked, read: &Read) -> Result<Content, Response> {
    if read.bytes == 0 {
        return Ok(Content::Nothing);
    }
    let field = visit.state.options.start.envelope_field.as_str();
    let not = |text: &str| Err(invalid(&[(field, text.to_owned())]));
    let Some(document) = &read.document else { return Ok(Content::Nothing) };
    let is_json = is_json(visit.head);
    if asked.is_raw {
        if is_json && document.is_valid && matches!(document.root, Root::Object | Root::Array) {
            return Ok(Content::Payload { sha256: read.sha256, bytes: read.bytes });
        }
        return not("The body must be a JSON object or array.");
    }
    // Laravel reads no field out of a body that is not said to be JSON.
    if !is_json {
        return Ok(Content::Ignored);
    }
    if !document.is_valid {
        return not("The body must be valid JSON.");
    }
    match document.field {
        Field::Text { sha256, bytes } => Ok(Content::Payload { sha256, bytes }),
        Field::Other => not(&format!("The {field} field must be a string.")),
        Field::Absent => Ok(Content::Ignored),
    }
}
