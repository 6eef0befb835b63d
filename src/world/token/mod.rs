//! Access tokens: asked for once, kept, refreshed early, never hammered.
//!
//! One seat for each credential holds the token in force and the last refusal. A seat's gate lets
//! one exchange run at a time; it runs in a task of its own, so a caller that goes away does not
//! tear it. Expiry is counted twice, by the wall clock (kept across restarts, goes on in a sleeping
//! machine) and in ticks (cannot be turned back); a token is in force while both agree. Keys and
//! passwords that go out as they are need no exchange: their seat always hands out the same.
#![expect(clippy::disallowed_methods, reason = "the token cache is written here, owner only")]

mod answer;
mod cache;
mod ways;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::exchange::{CredentialName, Token, TokenRefusal};
use crate::model::outcome::{Cause, Code};
use crate::model::route::Credential;
use crate::model::secret::Secret;
use crate::model::time::{Now, Tick, Wall};

use super::clock::Clock;
use super::endpoint::Endpoint;
use answer::{Asked, Grant, Refusal};
use cache::Kept;
pub use cache::TokenCacheError;
use ways::Way;

/// The one owner of access tokens.
pub trait Tokens: Send + Sync + 'static {
    /// The token in force; asks for one if there is none. Concurrent callers share one exchange. A
    /// refusal is remembered until its `retry_after`, so that a refused secret is not hammered.
    fn current(
        &self,
        credential: &CredentialName,
    ) -> impl Future<Output = Result<Token, TokenRefusal>> + Send;

    /// Forces a new token because that of `generation` was refused. Does nothing but hand out the
    /// newer one if there is one already: one forced refresh a generation. Where a token that was
    /// forced like this is refused as well and nobody took it in between, the next one is forced
    /// only after a wait, and the refusal says so; the token stays in use for probes.
    fn refresh(
        &self,
        credential: &CredentialName,
        generation: u64,
    ) -> impl Future<Output = Result<Token, TokenRefusal>> + Send;

    /// Somebody took the token of `generation`: its refusal later on is news, and not the same
    /// fault once more.
    fn taken(&self, _credential: &CredentialName, _generation: u64) {}
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
/// A fixed credential that goes on being refused is said this seldom.
const FIXED_SAID_EVERY: Duration = Duration::from_mins(15);

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
    /// The answer named no lifetime: `expires_at` is reckoned with the config's.
    pub is_assumed: bool,
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
                let seat = Seat::new(credential, folder.join(cache::file_name(&name)), now);
                (name, Arc::new(seat))
            })
            .collect();
        Self { desk: Arc::new(Desk { seats, clock, endpoint }) }
    }

    /// What is known of a credential's token; `None` without a token, and where none is asked
    /// for.
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
            is_assumed: held.kept.is_assumed,
            in_force: held.in_force(self.desk.clock.now()),
        })
    }

    /// Forgets a credential's token, the way that worked and the last refusal, in memory and on
    /// disk.
    ///
    /// # Errors
    /// The cache file could not be removed; the token is forgotten in memory all the same.
    pub async fn forget(&self, credential: &CredentialName) -> Result<(), TokenCacheError> {
        let Some(seat) = self.desk.seats.get(credential) else { return Ok(()) };
        let _gate = seat.gate.lock().await;
        {
            let mut state = seat.state();
            state.held = None;
            state.way = None;
            state.refused = None;
            state.futile = 0;
        }
        cache::remove(&seat.path)
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
        let (known, generation, is_forced) = {
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
            let is_forced = held.is_some_and(|held| held.is_refused);
            (state.way, held.map_or(0, |held| held.kept.generation), is_forced)
        };
        let desk = Arc::clone(&self.desk);
        let seat = Arc::clone(seat);
        let task = tokio::spawn(async move {
            let result = desk.ask(&seat, known, generation + 1, is_forced).await;
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
        if let Some(token) = seat.fixed_token() {
            return Ok(token);
        }
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
        let now = self.desk.clock.now();
        if seat.fixed.is_some() {
            return Err(seat.fixed_is_refused(now));
        }
        {
            let mut state = seat.state();
            if let Some(held) =
                state.held.as_ref().filter(|held| held.kept.generation <= generation)
                && !held.is_refused
            {
                if let Some(until) = held.next_force(state.futile).filter(|until| now.tick < *until)
                {
                    return Err(refused_again(&seat.credential, until.since(now.tick)));
                }
                state.refuse_held();
            }
        }
        self.exchange(seat, |held, now| !held.in_force(now)).await
    }

    fn taken(&self, credential: &CredentialName, generation: u64) {
        let Some(seat) = self.desk.seats.get(credential) else { return };
        let mut state = seat.state();
        state.fixed_said_at = None;
        if let Some(held) = state.held.as_mut().filter(|held| held.kept.generation == generation) {
            held.is_taken = true;
            state.futile = 0;
        }
    }
}

/// A new token was refused like the one before it: it is not the token's age.
fn refused_again(credential: &Credential, wait: Duration) -> TokenRefusal {
    let name = &credential.name;
    let remedy = format!(
        "Check that [credential.{name}] belongs to this API, and its scope; patchdrop goes on \
         trying."
    );
    let plain = format!("a token of {name} that had just been fetched was refused too");
    let mut cause = Cause::new(Code::of("token-refused-again"), plain);
    cause.remedy = Some(remedy.clone());
    TokenRefusal { cause, remedy, retry_after: Some(wait) }
}

/// One credential.
struct Seat {
    credential: Arc<Credential>,
    path: PathBuf,
    fingerprint: String,
    /// The value of `Authorization` where nothing is asked for.
    fixed: Option<Secret>,
    gate: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<SeatState>,
}

#[derive(Default)]
struct SeatState {
    held: Option<Held>,
    refused: Option<Refused>,
    /// The way that worked last; it outlives the token.
    way: Option<Way>,
    is_refreshing: bool,
    /// How often in a row a forced token was refused without having been taken.
    futile: u32,
    /// When it was said last that a fixed credential is refused.
    fixed_said_at: Option<Tick>,
}

struct Held {
    token: Token,
    kept: Kept,
    expires_at: Tick,
    refresh_at: Tick,
    fetched_at: Tick,
    /// A server has refused it: it is handed out no more.
    is_refused: bool,
    /// It replaced one that was refused.
    is_forced: bool,
    /// A server has taken it.
    is_taken: bool,
}

struct Refused {
    refusal: TokenRefusal,
    until: Tick,
    times: u32,
    is_away: bool,
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
            fetched_at: now.tick,
            expires_at: now.tick.plus(left),
            refresh_at: now.tick.plus(left.saturating_sub(early)),
            kept,
            is_refused: false,
            is_forced: false,
            is_taken: false,
        }
    }

    /// When it may be replaced at the earliest if it is refused; `None` for at once.
    fn next_force(&self, futile: u32) -> Option<Tick> {
        let is_futile = self.is_forced && !self.is_taken;
        is_futile.then(|| self.fetched_at.plus(grown(REFUSED_WAIT, futile)))
    }

    fn in_force(&self, now: Now) -> bool {
        !self.is_refused && now.tick < self.expires_at && now.wall < self.kept.expires_at
    }
}

/// From the first wait to the longest, twice as long each time.
fn grown((first, max): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times.min(16))).min(max)
}

impl SeatState {
    fn refuse_held(&mut self) {
        let Some(held) = &mut self.held else { return };
        if held.is_forced && !held.is_taken {
            self.futile += 1;
        }
        held.is_refused = true;
    }

    fn refusal(&self, now: Now) -> Option<TokenRefusal> {
        let refused = self.refused.as_ref().filter(|refused| now.tick < refused.until)?;
        let mut refusal = refused.refusal.clone();
        refusal.retry_after = Some(refused.until.since(now.tick));
        Some(refusal)
    }
}

impl Seat {
    fn new(credential: Arc<Credential>, path: PathBuf, now: Now) -> Self {
        let mut state = SeatState::default();
        let fixed = ways::fixed(&credential.kind);
        if credential.keep_token && fixed.is_none() {
            let remembered = cache::remember(&path, &credential, now.wall);
            state.way = remembered.way;
            state.held = remembered.kept.map(|kept| Held::new(kept, &credential, now, 0.0));
        }
        Self {
            fingerprint: cache::fingerprint(&credential),
            credential,
            path,
            fixed,
            gate: Arc::default(),
            state: Mutex::new(state),
        }
    }

    /// What is handed out where nothing is asked for. There is one generation only.
    fn fixed_token(&self) -> Option<Token> {
        Some(Token { authorization: self.fixed.clone()?, generation: 1 })
    }

    /// Nothing newer can be had; it is said, but not at each probe.
    fn fixed_is_refused(&self, now: Now) -> TokenRefusal {
        let (name, kind) = (&self.credential.name, self.credential.kind.word());
        let plain = format!("the server refused credential {name}, which patchdrop cannot renew");
        let remedy = format!(
            "Check [credential.{name}], kind = \"{kind}\": it may be revoked, or meant for another \
             API."
        );
        let is_due = {
            let mut state = self.state();
            let said_at = state.fixed_said_at;
            let is_due = said_at.is_none_or(|said_at| now.tick.since(said_at) >= FIXED_SAID_EVERY);
            if is_due {
                state.fixed_said_at = Some(now.tick);
            }
            is_due
        };
        if is_due {
            tracing::warn!(credential = %name, kind, hint = %remedy, "a fixed credential was refused");
        }
        let mut cause = Cause::new(Code::of("token-fixed"), plain);
        cause.remedy = Some(remedy.clone());
        TokenRefusal { cause, remedy, retry_after: None }
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
        is_forced: bool,
    ) -> Result<Token, TokenRefusal> {
        let credential = &seat.credential;
        let mut worst: Option<Refusal> = None;
        let walk = ways::ways(&credential.kind);
        let known = known.filter(|known| walk.contains(known));
        let others = walk.into_iter().filter(|way| Some(*way) != known);
        for way in known.into_iter().chain(others) {
            let Some(request) = ways::request(&credential.kind, way) else { continue };
            let asked_at = self.clock.now();
            let reply = self.endpoint.send(request).await;
            let asked = Asked { credential, way };
            match asked.understand(&reply, self.clock.now().wall) {
                Ok(grant) => {
                    let kept = kept(seat, grant, way, generation, asked_at);
                    return Ok(self.keep(seat, kept, asked_at, is_forced).await);
                }
                Err(refusal) => {
                    let goes_on = refusal.goes_on;
                    tracing::debug!(
                        credential = %credential.name,
                        way = way.plain(),
                        code = %refusal.cause.code,
                        goes_on,
                        "asked for a token in vain"
                    );
                    if worst.as_ref().is_none_or(|worst| worst.rank <= refusal.rank) {
                        worst = Some(refusal);
                    }
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        let worst = worst.expect("what is not fixed has at least one way to be asked for");
        Err(self.refused(seat, worst))
    }

    fn refused(&self, seat: &Seat, refusal: Refusal) -> TokenRefusal {
        let now = self.clock.now();
        let mut state = seat.state();
        let alike = state.refused.as_ref().filter(|last| last.is_away == refusal.is_away);
        let times = alike.map_or(0, |last| last.times);
        let wait = grown(if refusal.is_away { AWAY_WAIT } else { REFUSED_WAIT }, times);
        let wait = wait.max(refusal.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
        let mut cause = refusal.cause;
        cause.remedy = Some(refusal.remedy.clone());
        let is_away = refusal.is_away;
        let refusal = TokenRefusal { cause, remedy: refusal.remedy, retry_after: Some(wait) };
        let until = now.tick.plus(wait);
        state.refused =
            Some(Refused { refusal: refusal.clone(), until, times: times + 1, is_away });
        refusal
    }

    async fn keep(&self, seat: &Arc<Seat>, kept: Kept, asked_at: Now, is_forced: bool) -> Token {
        let credential = &seat.credential;
        // Reckoned from the question, not from the answer: never later than the server's end.
        let mut held = Held::new(kept.clone(), credential, asked_at, self.clock.dice());
        held.is_forced = is_forced;
        let token = held.token.clone();
        {
            let mut state = seat.state();
            state.way = Some(kept.way);
            state.held = Some(held);
            state.refused = None;
        }
        tracing::info!(
            credential = %credential.name,
            generation = kept.generation,
            way = kept.way.plain(),
            lifetime_s = kept.expires_at.since(kept.fetched_at).as_secs(),
            "fetched a token"
        );
        if kept.is_assumed {
            tracing::info!(
                credential = %credential.name,
                "the token's end was not told; the config's lifetime was taken"
            );
        }
        if credential.keep_token {
            let path = seat.path.clone();
            let written = tokio::task::spawn_blocking(move || cache::write(&path, &kept)).await;
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

fn kept(seat: &Seat, grant: Grant, way: Way, generation: u64, asked_at: Now) -> Kept {
    Kept {
        fingerprint: seat.fingerprint.clone(),
        endpoint: cache::endpoint_mark(&seat.credential),
        fetched_at: asked_at.wall,
        expires_at: asked_at.wall.plus(grant.lifetime),
        generation,
        way,
        is_assumed: grant.is_assumed,
        token: grant.token,
    }
}
