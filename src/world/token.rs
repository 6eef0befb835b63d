//! Access tokens: asked for once, kept, refreshed early, never hammered.
//!
//! One seat for each credential holds the token in force and the last refusal. A seat's gate lets
//! one exchange run at a time; it runs in a task of its own, so a caller that goes away does not
//! tear it. Expiry is counted twice, by the wall clock (kept across restarts, goes on in a sleeping
//! machine) and in ticks (cannot be turned back); a token is in force while both agree.
#![expect(clippy::disallowed_methods, reason = "the token cache is written here, owner only")]

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::exchange::{Answer, Body, CredentialName, Reply, Request, Token, TokenRefusal};
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Credential, CredentialsIn, OAuth2, TokenMethod};
use crate::model::secret::Secret;
use crate::model::time::{Now, Tick, Wall};

use super::clock::Clock;
use super::endpoint::Endpoint;

/// The one owner of access tokens.
pub trait Tokens: Send + Sync + 'static {
    /// The token in force; asks for one if there is none. Concurrent callers share one exchange. A
    /// refusal is remembered until its `retry_after`, so that a refused secret is not hammered.
    fn current(
        &self,
        credential: &CredentialName,
    ) -> impl Future<Output = Result<Token, TokenRefusal>> + Send;

    /// Forces a new token because that of `generation` was refused. Does nothing but hand out the
    /// newer one if there is one already: one forced refresh a generation.
    fn refresh(
        &self,
        credential: &CredentialName,
        generation: u64,
    ) -> impl Future<Output = Result<Token, TokenRefusal>> + Send;
}

/// Longest wait for a connection to a token endpoint.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No progress for this long ends a token request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Waits after a refusal: nobody mends a secret within seconds.
const REFUSED_WAIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(15));
/// Waits while a token endpoint is away.
const AWAY_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// A server's `Retry-After` is believed up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);
/// No token is believed to live longer.
const LIFETIME_MAX: Duration = Duration::from_hours(24 * 365);
/// A cached token from further in the future than this is not believed: the clock was wrong once.
const CLOCK_SLACK: Duration = Duration::from_mins(5);
/// Longest token; servers refuse headers beyond 8 to 32 KB anyway.
const TOKEN_MAX: usize = 16 * 1024;

/// Every credential's token. Clones are the same desk.
pub struct TokenDesk<C, E> {
    desk: Arc<Desk<C, E>>,
}

impl<C, E> Clone for TokenDesk<C, E> {
    fn clone(&self) -> Self {
        Self { desk: Arc::clone(&self.desk) }
    }
}

impl<C, E> std::fmt::Debug for TokenDesk<C, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.desk.seats.keys()).finish()
    }
}

struct Desk<C, E> {
    seats: BTreeMap<CredentialName, Arc<Seat>>,
    clock: Arc<C>,
    endpoint: E,
}

/// What may be shown of a token. The token itself is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// When it was asked for.
    pub fetched_at: Wall,
    /// When it ends by the server's word.
    pub expires_at: Wall,
    /// Grows by one with each exchange.
    pub generation: u64,
    /// How it was asked for, e.g. `GET, credentials in the Basic header`.
    pub way: &'static str,
    /// Whether it can still be used.
    pub in_force: bool,
}

impl<C: Clock, E: Endpoint> TokenDesk<C, E> {
    /// Reads the token cache in `state_dir/tokens`. A cache that is damaged, or was made with
    /// another secret, id or URL, is passed over with a warning.
    #[must_use]
    pub fn new(
        credentials: BTreeMap<CredentialName, Arc<Credential>>,
        state_dir: &Path,
        clock: Arc<C>,
        endpoint: E,
    ) -> Self {
        let folder = state_dir.join("tokens");
        let now = clock.now();
        let seats = credentials
            .into_iter()
            .map(|(name, credential)| {
                let seat = Seat::new(credential, folder.join(file_name(&name)), now);
                (name, Arc::new(seat))
            })
            .collect();
        Self { desk: Arc::new(Desk { seats, clock, endpoint }) }
    }

    /// What is known of a credential's token; `None` without a token.
    #[must_use]
    pub fn peek(&self, credential: &CredentialName) -> Option<Glimpse> {
        let seat = self.desk.seats.get(credential)?;
        let state = seat.state();
        let held = state.held.as_ref()?;
        Some(Glimpse {
            fetched_at: held.kept.fetched_at,
            expires_at: held.kept.expires_at,
            generation: held.kept.generation,
            way: held.kept.way.plain(),
            in_force: held.in_force(self.desk.clock.now()),
        })
    }

    /// Forgets a credential's token and its last refusal, in memory and on disk.
    ///
    /// # Errors
    /// The cache file could not be removed; the token is forgotten in memory all the same.
    pub async fn forget(&self, credential: &CredentialName) -> Result<(), TokenCacheError> {
        let Some(seat) = self.desk.seats.get(credential) else { return Ok(()) };
        let _gate = seat.gate.lock().await;
        {
            let mut state = seat.state();
            state.held = None;
            state.refused = None;
        }
        match std::fs::remove_file(&seat.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(TokenCacheError { path: seat.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Whether a credential's token may be sent to this host (with port where it is not the
    /// default). Never, for a credential that is not known.
    #[must_use]
    pub fn may_go_to(&self, credential: &CredentialName, host: &str) -> bool {
        self.desk.seats.get(credential).is_some_and(|seat| seat.credential.may_go_to(host))
    }

    /// One exchange at a time; `is_stale` says whether the held token is to be replaced, asked
    /// again once the gate is open.
    async fn exchange(
        &self,
        seat: &Arc<Seat>,
        is_stale: impl Fn(&Held, Now) -> bool + Send,
    ) -> Result<Token, TokenRefusal> {
        let gate = Arc::clone(&seat.gate).lock_owned().await;
        let now = self.desk.clock.now();
        let (known, generation) = {
            let state = seat.state();
            if let Some(held) = &state.held
                && !is_stale(held, now)
            {
                return Ok(held.token.clone());
            }
            if let Some(refusal) = state.refusal(now) {
                return Err(refusal);
            }
            let held = state.held.as_ref();
            (held.map(|held| held.kept.way), held.map_or(0, |held| held.kept.generation))
        };
        let desk = Arc::clone(&self.desk);
        let seat = Arc::clone(seat);
        let task = tokio::spawn(async move {
            let result = desk.ask(&seat, known, generation + 1).await;
            drop(gate);
            result
        });
        task.await.unwrap_or_else(|_| {
            let cause = Cause::new(Code::of("token-stopped"), "asking for a token was broken off");
            let remedy = "Nothing to do if patchdrop is being stopped.".to_owned();
            Err(TokenRefusal { cause, remedy, retry_after: Some(AWAY_WAIT.0) })
        })
    }

    fn seat(&self, credential: &CredentialName) -> Result<&Arc<Seat>, TokenRefusal> {
        self.desk.seats.get(credential).ok_or_else(|| TokenRefusal {
            cause: Cause::new(
                Code::of("token-no-credential"),
                format!("there is no credential {credential}"),
            ),
            remedy: format!("Add a table [credential.{credential}] to the config."),
            retry_after: None,
        })
    }
}

impl<C: Clock, E: Endpoint> Tokens for TokenDesk<C, E> {
    async fn current(&self, credential: &CredentialName) -> Result<Token, TokenRefusal> {
        let seat = self.seat(credential)?;
        let now = self.desk.clock.now();
        let ready = {
            let mut state = seat.state();
            match &state.held {
                Some(held) if held.in_force(now) => {
                    let token = held.token.clone();
                    let is_due = now.tick >= held.refresh_at
                        && !state.is_refreshing
                        && state.refusal(now).is_none();
                    state.is_refreshing |= is_due;
                    Some((token, is_due))
                }
                _ => None,
            }
        };
        match ready {
            Some((token, false)) => Ok(token),
            Some((token, true)) => {
                let (desk, seat) = (self.clone(), Arc::clone(seat));
                tokio::spawn(async move {
                    let is_stale = |held: &Held, now: Now| now.tick >= held.refresh_at;
                    let result = desk.exchange(&seat, is_stale).await;
                    seat.state().is_refreshing = false;
                    if let Err(refusal) = result {
                        tracing::warn!(
                            credential = %seat.credential.name,
                            code = %refusal.cause.code,
                            reason = %refusal.cause.plain,
                            "could not refresh the token early; the old one is used to its end"
                        );
                    }
                });
                Ok(token)
            }
            None => self.exchange(seat, |held, now| !held.in_force(now)).await,
        }
    }

    async fn refresh(
        &self,
        credential: &CredentialName,
        generation: u64,
    ) -> Result<Token, TokenRefusal> {
        let seat = self.seat(credential)?;
        {
            let mut state = seat.state();
            if let Some(held) = &mut state.held {
                held.is_refused |= held.kept.generation <= generation;
            }
        }
        self.exchange(seat, |held, now| !held.in_force(now)).await
    }
}

/// The token cache could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {}", .path.display())]
pub struct TokenCacheError {
    /// Which file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// One credential.
struct Seat {
    credential: Arc<Credential>,
    path: PathBuf,
    fingerprint: String,
    gate: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<SeatState>,
}

#[derive(Default)]
struct SeatState {
    held: Option<Held>,
    refused: Option<Refused>,
    is_refreshing: bool,
}

struct Held {
    token: Token,
    kept: Kept,
    expires_at: Tick,
    refresh_at: Tick,
    /// A server has refused it: it is handed out no more.
    is_refused: bool,
}

struct Refused {
    refusal: TokenRefusal,
    until: Tick,
    times: u32,
}

/// A token as the cache file has it.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    fingerprint: String,
    fetched_at: Wall,
    expires_at: Wall,
    generation: u64,
    way: Way,
    token: String,
}

impl Held {
    fn new(kept: Kept, credential: &Credential, now: Now, dice: f64) -> Self {
        let left = kept.expires_at.since(now.wall.max(kept.fetched_at));
        let whole = kept.expires_at.since(kept.fetched_at);
        let early = credential.refresh_before.mul_f64(1.0 + 0.1 * dice).min(whole / 2);
        Self {
            token: Token {
                authorization: Secret::new(format!("Bearer {}", kept.token)),
                generation: kept.generation,
            },
            expires_at: now.tick.plus(left),
            refresh_at: now.tick.plus(left.saturating_sub(early)),
            kept,
            is_refused: false,
        }
    }

    fn in_force(&self, now: Now) -> bool {
        !self.is_refused && now.tick < self.expires_at && now.wall < self.kept.expires_at
    }
}

impl SeatState {
    fn refusal(&self, now: Now) -> Option<TokenRefusal> {
        let refused = self.refused.as_ref().filter(|refused| now.tick < refused.until)?;
        let mut refusal = refused.refusal.clone();
        refusal.retry_after = Some(refused.until.since(now.tick));
        Some(refusal)
    }
}

impl Seat {
    fn new(credential: Arc<Credential>, path: PathBuf, now: Now) -> Self {
        let fingerprint = fingerprint(&credential.oauth2);
        let mut held = None;
        if credential.keep_token {
            match read_kept(&path) {
                Ok(Some(kept)) if kept.fingerprint != fingerprint => {
                    tracing::info!(credential = %credential.name, "passed over a token of other settings");
                }
                Ok(Some(kept)) if kept.fetched_at > now.wall.plus(CLOCK_SLACK) => {
                    tracing::warn!(credential = %credential.name, "passed over a token from the future");
                }
                Ok(Some(kept)) if !is_token(&kept.token) => {
                    tracing::warn!(credential = %credential.name, "passed over a damaged token cache");
                }
                Ok(Some(kept)) => held = Some(Held::new(kept, &credential, now, 0.0)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(credential = %credential.name, %error, "passed over a damaged token cache");
                }
            }
        }
        Self {
            credential,
            path,
            fingerprint,
            gate: Arc::default(),
            state: Mutex::new(SeatState { held, ..SeatState::default() }),
        }
    }

    fn state(&self) -> MutexGuard<'_, SeatState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock, E: Endpoint> Desk<C, E> {
    /// Walks the ways until one works, and puts the result on the seat.
    async fn ask(
        &self,
        seat: &Arc<Seat>,
        known: Option<Way>,
        generation: u64,
    ) -> Result<Token, TokenRefusal> {
        let credential = &seat.credential;
        let mut worst: Option<Refusal> = None;
        let walk = ways(&credential.oauth2);
        let known = known.filter(|known| walk.contains(known));
        let others = walk.into_iter().filter(|way| Some(*way) != known);
        for way in known.into_iter().chain(others) {
            let asked_at = self.clock.now();
            let reply = self.endpoint.send(way.request(&credential.oauth2)).await;
            match understand(&reply, credential) {
                Ok(grant) => return Ok(self.keep(seat, grant, way, generation, asked_at).await),
                Err(refusal) => {
                    let goes_on = refusal.goes_on;
                    if worst.as_ref().is_none_or(|worst| worst.rank <= refusal.rank) {
                        worst = Some(refusal);
                    }
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        let worst = worst.expect("there is always at least one way to ask");
        Err(self.refused(seat, worst))
    }

    fn refused(&self, seat: &Seat, refusal: Refusal) -> TokenRefusal {
        let now = self.clock.now();
        let mut state = seat.state();
        let times = state.refused.as_ref().map_or(0, |refused| refused.times);
        let (first, max) = if refusal.is_away { AWAY_WAIT } else { REFUSED_WAIT };
        let wait = first.saturating_mul(2_u32.saturating_pow(times.min(16))).min(max);
        let wait = wait.max(refusal.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
        let refusal =
            TokenRefusal { cause: refusal.cause, remedy: refusal.remedy, retry_after: Some(wait) };
        state.refused = Some(Refused {
            refusal: refusal.clone(),
            until: now.tick.plus(wait),
            times: times + 1,
        });
        refusal
    }

    async fn keep(
        &self,
        seat: &Arc<Seat>,
        grant: Grant,
        way: Way,
        generation: u64,
        asked_at: Now,
    ) -> Token {
        let kept = Kept {
            fingerprint: seat.fingerprint.clone(),
            fetched_at: asked_at.wall,
            expires_at: asked_at.wall.plus(grant.lifetime),
            generation,
            way,
            token: grant.token,
        };
        // Reckoned from the question, not from the answer: never later than the server's end.
        let held = Held::new(kept.clone(), &seat.credential, asked_at, self.clock.dice());
        let token = held.token.clone();
        {
            let mut state = seat.state();
            state.held = Some(held);
            state.refused = None;
        }
        let credential = &seat.credential;
        tracing::info!(credential = %credential.name, generation, way = way.plain(), "fetched a token");
        if credential.keep_token {
            let path = seat.path.clone();
            let written = tokio::task::spawn_blocking(move || write_kept(&path, &kept)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(
                    credential = %credential.name,
                    path = %seat.path.display(),
                    %error,
                    "could not keep the token; a restart will ask for another"
                );
            }
        }
        token
    }
}

/// How a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    GetBasic,
    GetQuery,
    GetForm,
    GetJson,
    PostBasic,
    PostQuery,
    PostForm,
    PostJson,
}

fn ways(oauth2: &OAuth2) -> Vec<Way> {
    let get = |credentials_in| match credentials_in {
        CredentialsIn::Basic => Way::GetBasic,
        CredentialsIn::Query => Way::GetQuery,
        CredentialsIn::Form => Way::GetForm,
        CredentialsIn::Json => Way::GetJson,
    };
    let post = |credentials_in| match credentials_in {
        CredentialsIn::Basic => Way::PostBasic,
        CredentialsIn::Query => Way::PostQuery,
        CredentialsIn::Form => Way::PostForm,
        CredentialsIn::Json => Way::PostJson,
    };
    match (oauth2.method, oauth2.credentials_in) {
        (TokenMethod::Auto, None) => vec![Way::GetBasic, Way::PostForm, Way::PostJson],
        (TokenMethod::Auto, Some(CredentialsIn::Form)) => vec![Way::PostForm],
        (TokenMethod::Auto, Some(CredentialsIn::Json)) => vec![Way::PostJson],
        (TokenMethod::Auto, Some(both)) => vec![get(both), post(both)],
        (TokenMethod::Get, place) => vec![get(place.unwrap_or(CredentialsIn::Basic))],
        (TokenMethod::Post, place) => vec![post(place.unwrap_or(CredentialsIn::Form))],
    }
}

impl Way {
    fn plain(self) -> &'static str {
        match self {
            Self::GetBasic => "GET, credentials in the Basic header",
            Self::GetQuery => "GET, credentials in the query",
            Self::GetForm => "GET, credentials in a form body",
            Self::GetJson => "GET, credentials in a JSON body",
            Self::PostBasic => "POST, credentials in the Basic header",
            Self::PostQuery => "POST, credentials in the query",
            Self::PostForm => "POST, credentials in a form body",
            Self::PostJson => "POST, credentials in a JSON body",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::GetBasic | Self::GetQuery | Self::GetForm | Self::GetJson => "GET",
            Self::PostBasic | Self::PostQuery | Self::PostForm | Self::PostJson => "POST",
        }
    }

    fn request(self, oauth2: &OAuth2) -> Request {
        let mut fields: BTreeMap<&str, &str> =
            oauth2.extra.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.insert("grant_type", "client_credentials");
        if let Some(scope) = oauth2.scope.as_deref().filter(|scope| !scope.is_empty()) {
            fields.insert("scope", scope);
        }
        let mut headers = vec![("Accept".to_owned(), Secret::new("application/json"))];
        if matches!(self, Self::GetBasic | Self::PostBasic) {
            let pair = format!("{}:{}", oauth2.client_id, oauth2.client_secret.reveal());
            let value = Secret::new(format!("Basic {}", base64(pair.as_bytes())));
            headers.push(("Authorization".to_owned(), value));
        } else {
            fields.insert("client_id", &oauth2.client_id);
            fields.insert("client_secret", oauth2.client_secret.reveal());
        }
        let mut url = oauth2.token_url.clone();
        let (content_type, body) = match self {
            Self::GetBasic | Self::GetQuery | Self::PostQuery => {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&form(&fields));
                (None, String::new())
            }
            Self::GetForm | Self::PostForm | Self::PostBasic => {
                (Some("application/x-www-form-urlencoded"), form(&fields))
            }
            Self::GetJson | Self::PostJson => {
                let json = serde_json::to_string(&fields).expect("a map of strings is JSON");
                (Some("application/json"), json)
            }
        };
        if let Some(content_type) = content_type {
            headers.push(("Content-Type".to_owned(), Secret::new(content_type)));
        }
        Request {
            method: self.method(),
            url: Secret::new(url),
            headers,
            body: Body::Bytes(Bytes::from(body)),
            connect_timeout: CONNECT_TIMEOUT,
            timeout: TIMEOUT,
        }
    }
}

/// `application/x-www-form-urlencoded`.
fn form(fields: &BTreeMap<&str, &str>) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.extend(hex(byte).map(|digit| digit.to_ascii_uppercase()));
        }
    }
    escaped
}

/// Two digits.
fn hex(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0'))
}

/// RFC 4648 base64 with padding, for the one Basic header.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4_usize {
            let letter = LETTERS[usize::try_from(group >> (18 - 6 * place) & 63).unwrap_or(0)];
            text.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

/// What a token endpoint gave.
struct Grant {
    token: String,
    lifetime: Duration,
}

/// Why it gave nothing.
struct Refusal {
    cause: Cause,
    remedy: String,
    retry_after: Option<Duration>,
    /// The next way may work.
    goes_on: bool,
    /// The endpoint could not be asked, as opposed to: it said no.
    is_away: bool,
    /// Of several refusals the one of the highest rank is told, of equal ones the last.
    rank: u8,
}

impl Refusal {
    fn new(code: &'static str, plain: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            cause: Cause::new(Code::of(code), plain),
            remedy: remedy.into(),
            retry_after: None,
            goes_on: false,
            is_away: false,
            rank: 3,
        }
    }

    fn away(mut self, retry_after: Option<Duration>) -> Self {
        self.is_away = true;
        self.retry_after = retry_after;
        self
    }

    fn goes_on(mut self, rank: u8) -> Self {
        self.goes_on = true;
        self.rank = rank;
        self
    }
}

fn understand(reply: &Reply, credential: &Credential) -> Result<Grant, Refusal> {
    let answer = match reply {
        Reply::Answer(answer) => answer,
        Reply::NoAnswer { cause, .. } => return Err(unreachable(cause, credential)),
        Reply::Changed => {
            let cause = Cause::new(Code::of("cut"), "the request was broken off");
            return Err(unreachable(&cause, credential));
        }
    };
    let status = answer.status;
    if (300..400).contains(&status) {
        return Err(Refusal::new(
            "token-redirect",
            format!("the token URL answered {status}, a redirect, as a login page does"),
            format!(
                "Check [credential.{}] token_url: it must be the connector's token endpoint itself.",
                credential.name
            ),
        )
        .goes_on(1));
    }
    if status >= 500 || status == 429 || status == 408 {
        return Err(busy(answer, credential));
    }
    let json = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
    if json.is_none() && looks_like_html(answer) {
        return Err(Refusal::new(
            "token-html",
            format!("the token URL answered {status} with an HTML page instead of a token"),
            format!(
                "Check [credential.{}] token_url, and whether a proxy or login page is in between.",
                credential.name
            ),
        )
        .goes_on(1));
    }
    if (200..300).contains(&status) {
        return grant(json.as_ref(), credential);
    }
    Err(refusal_of_status(answer, json.as_ref(), credential))
}

fn unreachable(cause: &Cause, credential: &Credential) -> Refusal {
    let (code, plain) = if cause.code == Code::of("tls") {
        ("token-tls", format!("no secure connection to the token URL: {}", cause.plain))
    } else if cause.code == Code::of("request-invalid") {
        ("token-request-invalid", format!("the token cannot be asked for: {}", cause.plain))
    } else {
        ("token-unreachable", format!("the token URL cannot be reached: {}", cause.plain))
    };
    let remedy = format!(
        "Check [credential.{}] token_url and the network; patchdrop goes on trying.",
        credential.name
    );
    Refusal::new(code, plain, remedy).away(None)
}

fn busy(answer: &Answer, credential: &Credential) -> Refusal {
    let asked = answer.retry_after.as_deref().and_then(|text| text.trim().parse().ok());
    let retry_after = asked.map(Duration::from_secs);
    if answer.status == 429 {
        return Refusal::new(
            "token-throttled",
            "the token URL answered 429: too many token requests",
            "Nothing to do if it passes; else see who else uses these credentials.",
        )
        .away(Some(retry_after.unwrap_or(REFUSED_WAIT.0)));
    }
    Refusal::new(
        "token-unavailable",
        format!("the token URL answered {}: the server is in trouble", answer.status),
        format!(
            "Nothing to do if it passes; else ask whoever runs the token URL of [credential.{}].",
            credential.name
        ),
    )
    .away(retry_after)
}

fn looks_like_html(answer: &Answer) -> bool {
    let start = answer.body.trim_ascii_start();
    answer.content_type.contains("html")
        || start.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"<html"))
        || start.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"<!doctype"))
}

fn refusal_of_status(
    answer: &Answer,
    json: Option<&serde_json::Value>,
    credential: &Credential,
) -> Refusal {
    let name = &credential.name;
    let status = answer.status;
    let error = json.and_then(|json| json.get("error")).and_then(serde_json::Value::as_str);
    let refusal = match error {
        Some("invalid_client") => Refusal::new(
            "token-invalid-client",
            "the token URL refused the client id or the client secret (invalid_client)",
            format!(
                "Check client_id and client_secret of [credential.{name}]; a secret is shown once, \
                 so make a new one if in doubt."
            ),
        ),
        Some("invalid_scope") => Refusal::new(
            "token-invalid-scope",
            "the token URL refused the scope (invalid_scope)",
            format!("Check scope of [credential.{name}]; \"\" asks for none."),
        ),
        Some("unsupported_grant_type") => Refusal::new(
            "token-unsupported-grant",
            "the token URL does not take client credentials this way (unsupported_grant_type)",
            format!("Check token_url, method and credentials_in of [credential.{name}]."),
        ),
        Some("unauthorized_client") => Refusal::new(
            "token-unauthorized-client",
            "this client may not ask for a token with its credentials (unauthorized_client)",
            format!(
                "Check that the client of [credential.{name}] is meant for client credentials."
            ),
        ),
        Some(_) | None => of_bare_status(status, name),
    };
    let goes_on = matches!(status, 400 | 404 | 405 | 415 | 422) && error != Some("invalid_client");
    let rank = if error.is_some() { 2 } else { 1 };
    let excerpt = json.and_then(|json| description(json, credential));
    let refusal = if goes_on { refusal.goes_on(rank) } else { refusal };
    Refusal { cause: refusal.cause.with_excerpt(excerpt), ..refusal }
}

fn of_bare_status(status: u16, name: &str) -> Refusal {
    match status {
        404 => Refusal::new(
            "token-not-found",
            "the token URL answered 404: nothing is there",
            format!(
                "Check token_url of [credential.{name}] on the connector's authentication tab."
            ),
        ),
        401 | 403 => Refusal::new(
            "token-refused",
            format!("the token URL answered {status}: it refused the client id or the secret"),
            format!("Check client_id and client_secret of [credential.{name}]."),
        ),
        405 | 415 => Refusal::new(
            "token-method",
            format!("the token URL answered {status}: it does not take the request this way"),
            format!("Check token_url of [credential.{name}], or set method and credentials_in."),
        ),
        _ => Refusal::new(
            "token-refused",
            format!("the token URL answered {status} without a token"),
            format!("Check token_url, method and credentials_in of [credential.{name}]."),
        ),
    }
}

/// What the server says about its refusal, unless that repeats a secret.
fn description(json: &serde_json::Value, credential: &Credential) -> Option<String> {
    let text = ["error_description", "message", "hint"]
        .iter()
        .find_map(|key| json.get(key).and_then(serde_json::Value::as_str))?;
    let oauth2 = &credential.oauth2;
    let secret = oauth2.client_secret.reveal();
    let forms = [
        secret.to_owned(),
        escape(secret),
        base64(secret.as_bytes()),
        base64(format!("{}:{secret}", oauth2.client_id).as_bytes()),
    ];
    let repeats = forms.iter().any(|form| !form.is_empty() && text.contains(form.as_str()));
    (!repeats).then(|| text.chars().take(300).flat_map(char::escape_default).collect())
}

fn grant(json: Option<&serde_json::Value>, credential: &Credential) -> Result<Grant, Refusal> {
    let name = &credential.name;
    let wanted = credential.oauth2.token_field.as_str();
    let field =
        |name: &str| name.split('.').try_fold(json?, |value, part| value.get(part))?.as_str();
    let second = if wanted == "access_token" { field("token") } else { None };
    let Some(token) = field(wanted).or(second) else {
        return Err(Refusal::new(
            "token-no-field",
            format!("the token URL's answer has no text field {wanted}"),
            format!("Check token_url and token_field of [credential.{name}]."),
        ));
    };
    if !is_token(token) {
        return Err(Refusal::new(
            "token-malformed",
            "the token URL's answer holds a token that no header can carry",
            format!("Check token_url and token_field of [credential.{name}]."),
        ));
    }
    let seconds = json.and_then(|json| json.get("expires_in")).and_then(|value| {
        value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
    });
    let lifetime = match seconds {
        None => credential.lifetime,
        Some(seconds) if seconds >= 1.0 => {
            Duration::try_from_secs_f64(seconds).unwrap_or(LIFETIME_MAX)
        }
        Some(_) => {
            return Err(Refusal::new(
                "token-expired",
                "the token URL gave a token that has already ended (expires_in below 1)",
                "Ask whoever runs the token URL; its clock or its settings are wrong.",
            ));
        }
    };
    Ok(Grant { token: token.to_owned(), lifetime: lifetime.min(LIFETIME_MAX) })
}

/// Visible ASCII without spaces: what `Authorization` can carry after `Bearer `.
fn is_token(text: &str) -> bool {
    (1..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Each part with its length before it, so that no two settings give the same bytes.
fn fingerprint(oauth2: &OAuth2) -> String {
    let mut hasher = Sha256::new();
    let mut add = |part: &str| {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    };
    add(&oauth2.token_url);
    add(&oauth2.client_id);
    add(oauth2.client_secret.reveal());
    add(oauth2.scope.as_deref().unwrap_or_default());
    add(&oauth2.token_field);
    for (name, value) in &oauth2.extra {
        add(name);
        add(value);
    }
    hasher.finalize().into_iter().flat_map(hex).collect()
}

/// A file name for any credential name.
fn file_name(credential: &str) -> String {
    let mut name = String::new();
    for byte in credential.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.extend(hex(byte));
        }
    }
    name + ".json"
}

fn read_kept(path: &Path) -> io::Result<Option<Kept>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // The parser's own words could quote the token.
    let kept = serde_json::from_slice(&text)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not a token cache"))?;
    Ok(Some(kept))
}

/// Temporary name, fsync, rename over the older one, fsync of the folder. Owner only.
fn write_kept(path: &Path, kept: &Kept) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    owner_only::make_folder(folder)?;
    let temporary = path.with_extension("json.new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = owner_only::create(&temporary)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    owner_only::sync_folder(folder)
}

#[cfg(unix)]
mod owner_only {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    use std::path::Path;

    pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    /// Never opens what is there already, so no link is followed.
    pub(super) fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Elsewhere the access list of `state_dir` is inherited.
#[cfg(not(unix))]
mod owner_only {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::path::Path;

    pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).create(folder)
    }

    pub(super) fn create(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    pub(super) fn sync_folder(_folder: &Path) -> io::Result<()> {
        Ok(())
    }
}
