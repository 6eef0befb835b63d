//! The simulator's own pages, below `/_simulator/`.

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::answer::{Cut, Response, json_answer, message};
use super::body::collect;
use super::options::RunEnd;
use super::rules::Rule;
use super::{State, run};

/// How runs are to end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    ends: RunEnd,
    #[serde(default)]
    reason: Option<String>,
}

pub(super) async fn answer(
    page: &str,
    head: &Parts,
    body: Incoming,
    state: &State,
) -> Result<Response, Cut> {
    let body = collect(body).await?;
    let refused = |error: &serde_json::Error| message(StatusCode::BAD_REQUEST, &error.to_string());
    let answer = match (&head.method, page) {
        (&Method::GET, "seen") => {
            let seen = state.inner().seen.clone();
            json_answer(StatusCode::OK, &seen)
        }
        (&Method::GET, "counts") => {
            let counts = state.inner().seen.counts();
            json_answer(StatusCode::OK, &counts)
        }
        (&Method::GET, "rules") => {
            let rules = state.inner().rules.clone();
            json_answer(StatusCode::OK, &rules)
        }
        (&Method::POST, "rules") => match serde_json::from_slice::<Vec<Rule>>(&body) {
            Ok(rules) => {
                state.inner().set_rules(rules);
                message(StatusCode::OK, "Rules set.")
            }
            Err(error) => refused(&error),
        },
        (&Method::GET, "runs") => {
            let runs = state.inner().runs.clone();
            json_answer(StatusCode::OK, &runs)
        }
        (&Method::POST, "end-runs") => match serde_json::from_slice::<End>(&body) {
            Ok(End { ends, reason }) => {
                let count = run::end_all(state, ends, reason.as_deref());
                message(StatusCode::OK, &format!("Runs ended: {count}."))
            }
            Err(error) => refused(&error),
        },
        (&Method::POST, "revoke") => {
            state.inner().tokens.clear();
            message(StatusCode::OK, "All tokens have ended.")
        }
        (&Method::POST, "stop") => {
            state.stopped.cancel();
            message(StatusCode::OK, "Stopped.")
        }
        _ => {
            let text = "There is seen, counts, rules, runs, end-runs, revoke and stop.";
            message(StatusCode::NOT_FOUND, text)
        }
    };
    Ok(answer)
}
