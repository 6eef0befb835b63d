//! Step 5: one attempt, on record before its first byte.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::super::twins::{Turn, turn};
use super::{
    Carried, Context, Equipped, Report, Unconcluded, folder_is_there, missing, sending_place,
};
use crate::journey::runs::Errand;
use crate::journey::send::{self, Judged, Signer};
use crate::journey::settle::Next;
use crate::journey::validate::body_reader;
use crate::model::blot::Blotter;
use crate::model::exchange::{Body, Stream, Token, TokenRefusal};
use crate::model::file::Place;
use crate::model::outcome::Outcome;
use crate::model::route::Route;
use crate::model::secret::Secret;
use crate::model::step::{AttemptEnd, Entry, Envelope, Step};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::endpoint::Endpoint;
use crate::world::folder::{Disk, FolderError};
use crate::world::ledger::{Ledger, LedgerError};
use crate::world::token::Tokens;

/// Step 5: one attempt on record before its first byte, the recorded bytes and nothing else; at
/// most one more with a fresh token, on record as well.
pub(in crate::daemon) async fn attempt<W: World>(
    ctx: &Arc<Context<W>>,
    equipped: &Equipped,
    carried: Box<Carried>,
) -> Report {
    let route = &equipped.route;
    let id = carried.entry.id;
    let mut carried = match Box::pin(turn(ctx, equipped, carried)).await {
        Turn::Mine(carried) => carried,
        Turn::NotMine(report) => return *report,
    };
    if carried.entry.attempt_open_since.is_none()
        && let Err(error) = begin_attempt(ctx, &mut carried.entry, None).await
    {
        return Report::Stumbled(id, error.into());
    }
    let mut may_refresh = true;
    loop {
        let token = match token_for(ctx, route).await {
            Ok(token) => token,
            Err(refusal) => return Report::Answered(carried, no_token(&refusal)),
        };
        let body = match body_of(ctx, route, &carried).await {
            Ok(Some(body)) => body,
            Ok(None) => return Box::pin(missing(ctx, carried.entry)).await,
            Err(error) => return Report::Stumbled(id, error.into()),
        };
        let signature = match signature_of(ctx, route, &carried).await {
            Ok(signature) => signature,
            Err(error) => return Report::Stumbled(id, error.into()),
        };
        let request =
            send::request(&carried.entry, &route.deliver, body, signature.as_ref(), token.as_ref());
        if let Err(error) = ctx.world.ledger().begun(id, carried.entry.attempt) {
            return Report::Stumbled(id, error.into());
        }
        let secrets = send::secrets_in(&request);
        let reply = ctx.world.endpoint().send(request).await;
        let mut judged = send::judge(&route.judge, &reply, ctx.world.clock().now().wall);
        if route.deliver.credential.is_none() {
            judged = judged.without_credential();
        }
        if judged.says_something() {
            judged = judged.blotted(&[&ctx.blotter, &Blotter::new(&secrets)]);
        }
        let refused = judged.outcome == Outcome::TokenRefused;
        if let (Some(token), Some(credential)) = (&token, &route.deliver.credential)
            && judged.outcome == Outcome::Delivered
        {
            ctx.world.tokens().taken(credential, token.generation);
        }
        let Some(token) =
            token.filter(|_| may_refresh && (refused || judged.may_hide_a_refused_token))
        else {
            return Report::Answered(carried, judged);
        };
        may_refresh = false;
        let renewed = refresh(ctx, route, &token).await;
        if !(refused && renewed) {
            return Report::Answered(carried, judged);
        }
        if let Err(error) = begin_attempt(ctx, &mut carried.entry, Some(judged.end())).await {
            let next = Next::Park { wait: Duration::ZERO, errand: Errand::Attempt };
            return Unconcluded::report(carried, judged, next, error);
        }
    }
}

/// Puts the next attempt on record, with the end of the one before it where that was this one's.
async fn begin_attempt<W: World>(
    ctx: &Context<W>,
    entry: &mut Entry,
    ended: Option<AttemptEnd>,
) -> Result<(), LedgerError> {
    let at = ctx.world.clock().now().wall;
    let mut steps = Vec::new();
    if let Some(end) = ended {
        steps.push(Step::AttemptEnded {
            id: entry.id,
            attempt: entry.attempt,
            end,
            at,
            due_at: at,
            waited_for: entry.waited_for,
        });
    }
    steps.push(Step::AttemptBegun { id: entry.id, attempt: entry.attempt + 1, at });
    ctx.world.ledger().commit(steps.clone()).await?;
    for step in &steps {
        entry.apply(step);
    }
    Ok(())
}

async fn token_for<W: World>(
    ctx: &Context<W>,
    route: &Route,
) -> Result<Option<Token>, TokenRefusal> {
    match &route.deliver.credential {
        Some(credential) => ctx.world.tokens().current(credential).await.map(Some),
        None => Ok(None),
    }
}

/// One forced refresh a generation; whether there is a newer token now.
async fn refresh<W: World>(ctx: &Context<W>, route: &Route, refused: &Token) -> bool {
    let Some(credential) = &route.deliver.credential else { return false };
    match ctx.world.tokens().refresh(credential, refused.generation).await {
        Ok(token) => token.generation > refused.generation,
        Err(_) => false,
    }
}

fn no_token(refusal: &TokenRefusal) -> Judged {
    let judged = Judged::unanswered(Outcome::TokenRefused, refusal.cause.clone());
    Judged { retry_after: refusal.retry_after, ..judged }
}

/// The recorded bytes: from memory, or from `sending/`; `None` if the file is no longer there.
async fn body_of<W: World>(
    ctx: &Arc<Context<W>>,
    route: &Route,
    carried: &Carried,
) -> Result<Option<Body>, FolderError> {
    if let Some(bytes) = &carried.body {
        return Ok(Some(Body::Bytes(bytes.clone())));
    }
    let place = sending_place(route, &carried.entry);
    if ctx.world.disk().look(place.clone()).await?.is_none() {
        folder_is_there(ctx, &place.folder).await?;
        return Ok(None);
    }
    let Some(envelope) = carried.entry.envelope.clone() else { return Ok(None) };
    let Envelope { digest, bytes, conversion, wrap, .. } = envelope;
    let file = FromDisk { ctx: Arc::clone(ctx), place, open: None };
    let reader = Box::new(body_reader(file, conversion, wrap));
    Ok(Some(Body::Stream(Stream { reader, bytes, digest })))
}

/// The signature of exactly these bytes, where the route signs: a large body is read once more for
/// it, since a header goes before what it signs.
async fn signature_of<W: World>(
    ctx: &Arc<Context<W>>,
    route: &Route,
    carried: &Carried,
) -> Result<Option<Secret>, FolderError> {
    let Some(hmac) = &route.deliver.hmac else { return Ok(None) };
    let mut signer = Signer::new(hmac);
    if let Some(bytes) = &carried.body {
        signer.take(bytes);
        return Ok(Some(signer.finish()));
    }
    let Some(Body::Stream(mut stream)) = body_of(ctx, route, carried).await? else {
        return Ok(None);
    };
    let sign = move || {
        let mut block = vec![0; SIGN_BLOCK_BYTES];
        loop {
            match stream.reader.read(&mut block)? {
                0 => return Ok(signer.finish()),
                read => signer.take(&block[..read]),
            }
        }
    };
    let task: Result<io::Result<Secret>, _> = tokio::task::spawn_blocking(sign).await;
    let signature = task.unwrap_or_else(|error| Err(io::Error::other(error)));
    let path = sending_place(route, &carried.entry).path();
    signature.map(Some).map_err(|source| FolderError::Io { doing: "read", path, source })
}

/// A body that is signed is read in blocks of this size.
const SIGN_BLOCK_BYTES: usize = 64 << 10;

/// Opens its file at the first read, on the thread that may block.
struct FromDisk<W: World> {
    ctx: Arc<Context<W>>,
    place: Place,
    open: Option<Box<dyn Read + Send>>,
}

impl<W: World> Read for FromDisk<W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.open.is_none() {
            let open = self.ctx.world.disk().open(&self.place).map_err(io::Error::other)?;
            self.open = Some(open);
        }
        self.open.as_mut().map_or(Ok(0), |file| file.read(buffer))
    }
}
