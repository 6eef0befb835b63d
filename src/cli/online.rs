//! A look at everything outside that the config names, without sending anything.
//!
//! What is asked is harmless: a token; `HEAD /` of each host, never a path that a route sends to,
//! since a webhook may start its flow on any request; a list of runs, one at most. Where a route
//! sends to `/` itself, its host gets no HTTP request at all. Nothing is kept: the service's token
//! cache is read and never written, and the state's lock is not taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future;
use reqwest::Url;

use super::failure::Failure;
use super::findings::{Finding, Level, Section};
use super::load;
use super::screen::{Style, shown_span};
use super::serve;
use crate::config::Config;
use crate::model::exchange::{
    Answer, Body, CredentialName, Progress, Reply, Request, Token, TokenRefusal, percent_encoded,
};
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Credential, Flow, InDoubt, Route};
use crate::model::secret::Secret;
use crate::model::time::Wall;
use crate::world::clock::{Clock as _, SystemClock};
use crate::world::endpoint::{Endpoint, HttpEndpoint};
use crate::world::token::{Glimpse, TokenDesk, Tokens as _};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No progress for this long ends a request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Hosts that are looked at together.
const AT_ONCE: usize = 8;

/// Everything that was found.
pub(super) struct Outlook {
    /// One for each credential.
    pub(super) credentials: Section,
    /// One for each host.
    pub(super) servers: Section,
    /// One for each flow whose runs are asked for.
    pub(super) runs: Section,
    /// What the hosts showed beside that, by host.
    pub(super) visits: Vec<Visit>,
    /// The network as it was gone through.
    pub(super) endpoint: HttpEndpoint,
}

/// Why a host is asked at all, and how.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Scheme, host and port.
    pub(super) origin: Url,
    /// Whose it is, in words.
    users: BTreeSet<String>,
    /// A route that sends to `/`: no request goes there.
    guarded_by: Option<String>,
}

/// One host, looked at.
#[derive(Debug)]
pub(super) struct Visit {
    /// Scheme, host and port.
    pub(super) origin: Url,
    /// Host, with a port where it is not the scheme's own.
    pub(super) host: String,
    /// The proxy that it is reached by.
    pub(super) proxy: Option<String>,
    /// What its clock said, and what ours did then.
    pub(super) clocks: Option<(Wall, Wall)>,
    /// When its certificate ends.
    pub(super) certificate_ends: Option<Wall>,
}

/// Looks at every credential, every host, and every flow whose runs are asked for.
pub(super) async fn look(config: &Config, style: &Style) -> Result<Outlook, Failure> {
    let endpoint = serve::endpoint(config)?;
    let routes = load::routes(config);
    let asked = futures_util::stream::iter(config.credentials.values().cloned())
        .map(|credential| {
            let endpoint = endpoint.clone();
            async move {
                let token = token(config, &credential, endpoint, style).await;
                (Arc::clone(&credential.name), token)
            }
        })
        .buffered(AT_ONCE)
        .collect::<Vec<_>>();
    let seen = futures_util::stream::iter(places(config, &routes))
        .map(|place| visit(&endpoint, place))
        .buffered(AT_ONCE)
        .collect::<Vec<_>>();
    let (asked, seen) = future::join(asked, seen).await;
    let mut tokens = BTreeMap::new();
    let mut credentials = Vec::new();
    for (name, (finding, token)) in asked {
        credentials.push(finding);
        tokens.extend(token.map(|token| (name, token)));
    }
    let (servers, visits) = seen.into_iter().unzip();
    let runs = look_at_runs(config, &routes, &tokens, &endpoint).await;
    Ok(Outlook {
        credentials: Section { title: "Credentials", findings: credentials },
        servers: Section { title: "Servers", findings: servers },
        runs: Section { title: "Runs of flows", findings: runs },
        visits,
        endpoint,
    })
}

/// Every host that patchdrop speaks to, once each, in order.
fn places(config: &Config, routes: &[Arc<Route>]) -> Vec<Place> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut add = |url: &str, user: String, guard: Option<String>| {
        let Ok(url) = Url::parse(url) else { return };
        let Ok(origin) = Url::parse(&url.origin().ascii_serialization()) else { return };
        let place = places.entry(origin.to_string()).or_insert_with(|| Place {
            origin,
            users: BTreeSet::new(),
            guarded_by: None,
        });
        place.users.insert(user);
        if url.path() == "/" {
            place.guarded_by = place.guarded_by.take().or(guard);
        }
    };
    for credential in config.credentials.values() {
        let user = format!("credential {}", credential.name);
        if let Some(url) = credential.kind.asked_at() {
            add(url, user.clone(), Some(user));
        }
    }
    for route in routes {
        let user = format!("route {}", route.name);
        add(route.deliver.url.reveal(), user.clone(), Some(user.clone()));
        if let Some(flow) = &route.deliver.flow
            && asks_for_runs(route)
        {
            add(&flow.core_url, format!("the runs of {user}"), None);
        }
    }
    places.into_values().collect()
}

fn asks_for_runs(route: &Route) -> bool {
    let flow = route.deliver.flow.as_ref();
    flow.is_some_and(|flow| flow.confirm.is_some() || route.in_doubt == InDoubt::Lookup)
}

fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// No request leaves by this one: what is kept is read, and nothing is asked for.
struct Unplugged;

impl Endpoint for Unplugged {
    async fn send(&self, _request: Request) -> Reply {
        let cause = Cause::new(Code::of("connect"), "nothing was asked");
        Reply::NoAnswer { progress: Progress::Nothing, cause }
    }
}

/// The token that the service keeps, else a new one that is thrown away.
async fn token(
    config: &Config,
    credential: &Arc<Credential>,
    endpoint: HttpEndpoint,
    style: &Style,
) -> (Finding, Option<Token>) {
    let name = &credential.name;
    let desk_of = |keep_token| {
        let credential = Credential {
            keep_token,
            refresh_before: Duration::ZERO,
            ..Credential::clone(credential)
        };
        BTreeMap::from([(CredentialName::clone(name), Arc::new(credential))])
    };
    let end = |glimpse: &Glimpse| {
        let assumed = if glimpse.is_assumed { ", reckoned with lifetime" } else { "" };
        format!("{}{assumed}", style.time(glimpse.expires_at))
    };
    let clock = || Arc::new(SystemClock::new());
    let kept =
        TokenDesk::new(desk_of(credential.keep_token), &config.state_dir, clock(), Unplugged);
    if credential.kind.asked_at().is_none() {
        let kind = credential.kind.word();
        let text = format!("kind = \"{kind}\" goes out as the config has it; nothing to fetch");
        return (Finding::ok(&**name, text), kept.current(name).await.ok());
    }
    if let Some(glimpse) = kept.peek(name).filter(|glimpse| glimpse.in_force)
        && let Ok(token) = kept.current(name).await
    {
        let text = format!("the kept token is good until {}; nothing was asked for", end(&glimpse));
        return (Finding::ok(&**name, text), Some(token));
    }
    let fresh = TokenDesk::new(desk_of(false), &config.state_dir, clock(), endpoint);
    match fresh.current(name).await {
        Ok(token) => {
            let glimpse = fresh.peek(name);
            let text = glimpse.map_or_else(String::new, |glimpse| {
                format!(" by {}, good until {}", glimpse.way, end(&glimpse))
            });
            let text = format!("a token was given{text}; it is not kept");
            (Finding::ok(&**name, text), Some(token))
        }
        Err(TokenRefusal { cause, remedy, .. }) => {
            let level = match cause.code.0.as_ref() {
                "token-tls" | "token-unreachable" | "token-unavailable" | "token-throttled"
                | "token-stopped" => Level::Away,
                _ => Level::Refused,
            };
            (Finding::new(level, &**name, cause.plain, remedy), None)
        }
    }
}

/// Reaches one host without asking it for anything.
async fn visit(endpoint: &HttpEndpoint, place: Place) -> (Finding, Visit) {
    let host = shown_host(&place.origin);
    let proxy = endpoint.proxy_to(&place.origin);
    let users = place.users.iter().cloned().collect::<Vec<_>>().join(", ");
    let users = format!("for {users}");
    let mut visit = Visit {
        origin: place.origin.clone(),
        host: host.clone(),
        proxy,
        clocks: None,
        certificate_ends: None,
    };
    if let Some(guard) = place.guarded_by {
        let text = format!(
            "not asked: {guard} sends to its front page, where any request could start \
             something; {users}"
        );
        return (Finding::ok(host, text), visit);
    }
    let clock = SystemClock::new();
    let begun = clock.now();
    let request = get("HEAD", place.origin.as_str(), Vec::new());
    let glance = endpoint.glance(request).await;
    let ended = clock.now();
    let took = shown_span(ended.tick.since(begun.tick));
    visit.certificate_ends = glance.certificate_ends;
    let finding = match glance.reply {
        Reply::Answer(answer) => {
            visit.clocks = answer.server_now().map(|theirs| (theirs, ended.wall));
            let by = visit
                .proxy
                .as_ref()
                .map_or_else(|| "directly".to_owned(), |proxy| format!("through {proxy}"));
            let text =
                format!("reached {by} in {took}: HEAD / is answered by {}; {users}", answer.status);
            Finding::ok(host, text)
        }
        Reply::NoAnswer { cause, .. } => {
            let text = format!("{} (after {took}); {users}", cause.plain);
            Finding::new(level_of(&cause), host, text, remedy_of(&cause, visit.proxy.is_some()))
        }
        Reply::Changed => unreachable!("an empty body is what it is"),
    };
    (finding, visit)
}

fn get(method: &'static str, url: &str, headers: Vec<(String, Secret)>) -> Request {
    Request {
        method,
        url: Secret::new(url),
        headers,
        body: Body::Bytes(Bytes::new()),
        connect_timeout: CONNECT_TIMEOUT,
        timeout: TIMEOUT,
    }
}

fn level_of(cause: &Cause) -> Level {
    if cause.code == Code::of("request-invalid") { Level::Refused } else { Level::Away }
}

fn remedy_of(cause: &Cause, is_proxied: bool) -> &'static str {
    match cause.code.0.as_ref() {
        "dns" if is_proxied => "check the name in the key proxy, and this machine's DNS",
        "dns" => "check the host in the config, and this machine's DNS",
        "tls" => {
            "the sentence names the key; the certificate is shown by: openssl s_client \
                  -connect HOST:443"
        }
        "not-http" => "check the port in the URL, and whether it must begin with https://",
        _ if is_proxied => "check the keys proxy and no_proxy, and ask whoever runs the proxy",
        _ => {
            "check host and port in the config, the firewall, and whether a proxy must be named \
              by the key proxy"
        }
    }
}

/// Asks for one run of each flow whose runs decide about files: reading only.
async fn look_at_runs(
    config: &Config,
    routes: &[Arc<Route>],
    tokens: &BTreeMap<CredentialName, Token>,
    endpoint: &HttpEndpoint,
) -> Vec<Finding> {
    let mut flows: BTreeMap<_, (Flow, BTreeSet<String>)> = BTreeMap::new();
    for route in routes.iter().filter(|route| asks_for_runs(route)) {
        let Some(flow) = &route.deliver.flow else { continue };
        let key = (flow.core_url.clone(), flow.id.clone(), route.deliver.credential.clone());
        let (_, names) = flows.entry(key).or_insert_with(|| (flow.clone(), BTreeSet::new()));
        names.insert(route.name.to_string());
    }
    let mut findings = Vec::new();
    for ((_, _, credential), (flow, names)) in flows {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let subject = format!("flow {}", flow.id);
        let credential = credential.and_then(|name| config.credentials.get(&name));
        let finding = match credential {
            Some(credential) if !credential.may_go_to(&flow.core_host) => Finding::new(
                Level::Refused,
                subject,
                format!(
                    "not asked: credential {} may not go to {}; for route {names}",
                    credential.name, flow.core_host
                ),
                format!("add {} to [credential.{}] hosts", flow.core_host, credential.name),
            ),
            Some(credential) if !tokens.contains_key(&credential.name) => Finding::new(
                Level::Warning,
                subject,
                format!(
                    "not asked, since credential {} has no token; for route {names}",
                    credential.name
                ),
                "mend the credential first",
            ),
            credential => {
                let token = credential.and_then(|credential| tokens.get(&credential.name));
                let url = format!(
                    "{}/flow-runs?filter%5Bflow_id%5D={}&per_page=1",
                    flow.core_url,
                    percent_encoded(&flow.id)
                );
                let header =
                    |token: &Token| ("Authorization".to_owned(), token.authorization.clone());
                let accept = ("Accept".to_owned(), Secret::new("application/json"));
                let headers = token.map(header).into_iter().chain([accept]).collect();
                let reply = endpoint.send(get("GET", &url, headers)).await;
                let name = credential.map_or("nobody", |credential| &*credential.name);
                let is_proxied =
                    Url::parse(&url).is_ok_and(|url| endpoint.proxy_to(&url).is_some());
                match reply {
                    Reply::Answer(answer) => run_finding(subject, &answer, name, &flow, &names),
                    Reply::NoAnswer { cause, .. } => {
                        let text = format!("{}; for route {names}", cause.plain);
                        Finding::new(level_of(&cause), subject, text, remedy_of(&cause, is_proxied))
                    }
                    Reply::Changed => unreachable!("an empty body is what it is"),
                }
            }
        };
        findings.push(finding);
    }
    findings
}

fn run_finding(
    subject: String,
    answer: &Answer,
    credential: &str,
    flow: &Flow,
    names: &str,
) -> Finding {
    let host = &flow.core_host;
    let status = answer.status;
    let (level, text, remedy) = match status {
        200..=299 if is_list(answer) => {
            let text = format!("its runs can be read at {host} as {credential}; for route {names}");
            return Finding::ok(subject, text);
        }
        200..=299 => (
            Level::Refused,
            "but not with a list of runs",
            "check core_url: it is the base of the Core API".to_owned(),
        ),
        401 => (
            Level::Refused,
            "the credential itself is refused",
            format!("check the key, token or password of [credential.{credential}]"),
        ),
        403 => (
            Level::Refused,
            "the credential has no right to read runs",
            format!(
                "give [credential.{credential}] the right to read runs, or do without: \
                 confirm = \"accepted\" and in_doubt = \"hold\" or \"resend\""
            ),
        ),
        408 | 429 | 500.. => (
            Level::Away,
            "the server is busy or in trouble",
            "nothing to do if it passes; else ask whoever runs it".to_owned(),
        ),
        _ => (
            Level::Refused,
            "there are no runs of this flow at that address",
            format!("check core_url and flow_id of route {names}"),
        ),
    };
    let text =
        format!("its runs cannot be read: {host} answers {status}, {text}; for route {names}");
    Finding::new(level, subject, text, remedy)
}

/// Resources are listed below `data`, or bare.
fn is_list(answer: &Answer) -> bool {
    let json = serde_json::from_slice::<serde_json::Value>(&answer.body);
    json.is_ok_and(|json| json.is_array() || json["data"].is_array())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;

    fn flow() -> Flow {
        Flow {
            id: "77".into(),
            variables: BTreeMap::new(),
            core_url: "https://core.example/api/v1".into(),
            core_host: "core.example".into(),
            confirm: None,
        }
    }

    #[test]
    fn an_answer_about_runs_is_told_as_whose_move_it_is() {
        let check = |status: u16, body: &'static str, level: Level, part: &str| {
            let answer = Answer { status, body: Bytes::from(body), ..Answer::default() };
            let found = run_finding("flow 77".into(), &answer, "flows", &flow(), "stock");
            assert_eq!(found.level, level, "{status} {body}");
            let whole = format!("{} {}", found.text, found.remedy);
            assert!(whole.contains(part) && found.text.ends_with("for route stock"), "{whole}");
        };
        check(200, r#"{"data": []}"#, Level::Ok, "can be read at core.example as flows");
        check(200, "[]", Level::Ok, "can be read");
        check(200, "<html>", Level::Refused, "not with a list of runs");
        check(200, r#"{"data": 1}"#, Level::Refused, "check core_url");
        check(401, "", Level::Refused, "check the key, token or password of [credential.flows]");
        check(
            403,
            "",
            Level::Refused,
            "[credential.flows] the right to read runs, or do without: confirm = \"accepted\"",
        );
        check(404, "", Level::Refused, "check core_url and flow_id of route stock");
        check(302, "", Level::Refused, "answers 302");
        check(429, "", Level::Away, "busy or in trouble");
        check(503, "", Level::Away, "busy or in trouble");
    }

    #[test]
    fn each_host_is_looked_at_once_and_a_front_page_never() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &[]);
        let route = |name: &str, url: &str| {
            let mut route = fixture::route(root.path(), name);
            route.deliver.url = Secret::new(url);
            Arc::new(route)
        };
        let mut asking = Route::clone(&route("runs", "https://start.example/flows/77/start"));
        asking.deliver.flow = Some(flow());
        asking.in_doubt = InDoubt::Lookup;
        let routes = [
            route("one", "https://shop.example/a?sig=s3cret"),
            route("two", "https://shop.example:443/b"),
            route("three", "https://shop.example:8443/b"),
            route("front", "https://front.example/?sig=s3cret"),
            route("front-too", "https://front.example?sig=s3cret"),
            route("behind", "https://front.example/in"),
            Arc::new(asking),
        ];
        let all: Vec<String> = places(&config, &routes)
            .iter()
            .map(|place| {
                let guard = place.guarded_by.as_deref().unwrap_or("-");
                let users: Vec<&str> = place.users.iter().map(String::as_str).collect();
                format!("{} {} ({guard})", place.origin, users.join(", "))
            })
            .collect();
        insta::assert_snapshot!(all.join("\n"), @r"
        https://core.example/ the runs of route runs (-)
        https://front.example/ route behind, route front, route front-too (route front)
        https://shop.example/ route one, route two (-)
        https://shop.example:8443/ route three (-)
        https://start.example/ route runs (-)
        ");
    }
}
