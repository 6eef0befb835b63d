//! Files with the same bytes for the same URL take turns: one is sent, and the others wait until
//! it is known what became of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::carry::{Carried, Context, Equipped, Report, Stumble, decide};
use crate::journey::runs::Errand;
use crate::journey::twins::{DUPLICATE, Twins, WAITS, duplicate_of, judge, twin_of, waits_for};
use crate::model::file::Digest;
use crate::model::outcome::Code;
use crate::model::route::{Duplicates, Route};
use crate::model::step::{AttemptEnd, Entry, Envelope, State, Step, Verdict};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::ledger::Ledger;

/// How long a file waits before it looks again what its twin does.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The same where a person must decide about the twin first.
const LOOK_AGAIN_IN_DOUBT: Duration = Duration::from_secs(5);

/// What is being sent now, by what twins have in common. Shared by the tasks, never held over a
/// wait; it decides nothing but who comes first.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    taken: Arc<Mutex<BTreeSet<Digest>>>,
}

/// A turn, which lasts until this is dropped: until the outcome is on record.
#[derive(Debug)]
pub(super) struct TurnTaken {
    turns: Turns,
    twin: Digest,
}

impl Turns {
    fn take(&self, twin: Digest) -> Option<TurnTaken> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(twin).then(|| TurnTaken { turns: self.clone(), twin })
    }
}

impl Drop for TurnTaken {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.twin);
    }
}

/// What a file has in common with its twins, where its route looks for them.
pub(super) fn twin_for(route: &Route, envelope: Option<&Envelope>) -> Option<Digest> {
    let envelope = envelope.filter(|_| route.duplicates != Duplicates::Send)?;
    Some(twin_of(&route.deliver, &envelope.digest))
}

/// What comes of asking for a turn.
pub(super) enum Turn {
    /// It may be sent.
    Mine(Box<Carried>),
    /// It is not sent now, and this is what becomes of it.
    NotMine(Box<Report>),
}

/// Before an attempt: whether this file's bytes may go out now. Files of routes without
/// `duplicates` always may.
pub(super) async fn turn<W: World>(
    ctx: &Context<W>,
    equipped: &Equipped,
    mut carried: Box<Carried>,
) -> Turn {
    let route = &equipped.route;
    let state = match route.duplicates {
        Duplicates::Send => return Turn::Mine(carried),
        Duplicates::Skip => State::Sent,
        Duplicates::Hold => State::Held,
    };
    let Some(envelope) = &carried.entry.envelope else { return Turn::Mine(carried) };
    let twin = twin_of(&route.deliver, &envelope.digest);
    let Some(taken) = ctx.turns.take(twin) else {
        let plain = "waits in sending/: the same bytes are being sent right now".to_owned();
        return Turn::NotMine(Box::new(wait(ctx, carried, LOOK_AGAIN, plain).await));
    };
    let id = carried.entry.id;
    let twins = match ctx.world.ledger().twins(id).await {
        Ok(twins) => twins,
        Err(error) => return Turn::NotMine(Box::new(Report::Stumbled(id, Stumble::Ledger(error)))),
    };
    let had_begun = |twin: &Entry| ctx.world.ledger().had_begun(twin.id, twin.attempt);
    let report = match judge(id, &twins, had_begun) {
        Twins::Free => {
            carried.turn = Some(taken);
            return Turn::Mine(carried);
        }
        Twins::Accepted(twin) => {
            let ended = carried
                .entry
                .attempt_open_since
                .map(|_| (carried.entry.attempt, not_sent(DUPLICATE, duplicate_of(twin).plain)));
            decide(ctx, equipped, carried, None, ended, (state, duplicate_of(twin))).await
        }
        Twins::UnderWay(twin) => wait(ctx, carried, LOOK_AGAIN, waits_for(twin, false)).await,
        Twins::InDoubt(twin) => {
            wait(ctx, carried, LOOK_AGAIN_IN_DOUBT, waits_for(twin, true)).await
        }
    };
    Turn::NotMine(Box::new(report))
}

fn not_sent(code: &'static str, plain: String) -> AttemptEnd {
    let code = Code::of(code);
    AttemptEnd { verdict: Verdict::NotSent, code, status: None, request_id: None, plain }
}

/// Parks a file until its twin has had its turn, and puts on record why, once.
async fn wait<W: World>(
    ctx: &Context<W>,
    carried: Box<Carried>,
    span: Duration,
    plain: String,
) -> Report {
    let Entry { id, attempt, attempt_open_since, waited_for, .. } = carried.entry;
    if attempt_open_since.is_some() {
        let at = ctx.world.clock().now().wall;
        let (end, due_at) = (not_sent(WAITS, plain), at.plus(span));
        let step = Step::AttemptEnded { id, attempt, end, at, due_at, waited_for };
        if let Err(error) = ctx.world.ledger().commit(vec![step]).await {
            return Report::Stumbled(id, error.into());
        }
    }
    Report::Parked(span, Errand::Attempt)
}
