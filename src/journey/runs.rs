//! What became of a run: which one an answer names, how the Core API is asked, what its answer
//! means, and what follows for the file that started it (promises P3, P4 and P6). A file that has
//! started a run is accepted: whatever is asked or answered here, it is never sent again.

mod core_api;

use std::collections::BTreeSet;
use std::time::Duration;

pub use core_api::{
    PAGES_MAX, Progress, Run, RunsPage, Told, log_request, log_told, run_named, run_request,
    run_told, runs_request, runs_told,
};

use super::settle::spoken;
use crate::model::outcome::{Cause, Code};
use crate::model::route::{Confirm, Flow, InDoubt, Late};
use crate::model::step::{Entry, State, Verdict};
use crate::model::time::Wall;

/// What is next for a file that waits in `sending/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Another attempt.
    Attempt,
    /// Asking for its run: it is accepted.
    Confirm,
    /// Looking its flow's runs up: the last attempt may have been accepted.
    LookUp,
    /// Its last move: its end is decided, and nothing is sent any more.
    Finish,
}

/// What is next for an entry on record that is in no attempt, by what its route
/// says now of attempts without an answer.
#[must_use]
pub fn errand(entry: &Entry, in_doubt: InDoubt) -> Errand {
    if entry.decided_at.is_some() {
        return Errand::Finish;
    }
    if entry.confirming_since.is_some() {
        return Errand::Confirm;
    }
    // A file that a person let go has no cause on record: it is sent.
    let is_in_doubt = entry.state == State::Deferred
        && entry.last_verdict == Some(Verdict::InDoubt)
        && entry.cause.is_some();
    // The config may have changed since the attempt: what nobody has looked up yet is never sent
    // again unless the route says so now.
    if is_in_doubt && in_doubt != InDoubt::Resend { Errand::LookUp } else { Errand::Attempt }
}

/// Runs reach the queue about every 30 s (documented); they are looked up this long after the
/// attempt for the first time.
pub const FIRST_LOOK_AFTER: Duration = Duration::from_secs(90);

/// And this long after it for the second.
pub const SECOND_LOOK_AFTER: Duration = Duration::from_mins(3);

/// A run that started later than this after an attempt's end is not that attempt's.
pub const STARTS_WITHIN: Duration = Duration::from_mins(1);

/// Start times may be in whole seconds, cut off.
const CLOCK_GRAIN: Duration = Duration::from_secs(1);

/// So many questions in a row must have come to nothing before their failing makes a file late.
const FAILURES_BEFORE_LATE: u32 = 3;

/// A wait between two questions that could not be asked grows up to this.
const ASK_AGAIN_MAX: Duration = Duration::from_mins(10);

/// And no server is believed that asks for more than this: the file's time is not its.
const ASKED_MAX: Duration = Duration::from_hours(1);

/// What follows for an accepted file from what is known of its run.
#[derive(Clone, Debug, PartialEq)]
pub enum Confirmed {
    /// Ask again after this wait.
    AskAgain(Duration),
    /// The journey ends.
    Settle {
        /// `sent`, `failed` or `held`.
        state: State,
        /// Why.
        cause: Cause,
    },
}

/// Decides from the Core API's word on a run. `failures` counts questions in a row that came to
/// nothing, this one included; `dice` is in `[0, 1)`.
#[must_use]
pub fn confirm(
    entry: &Entry,
    rules: &Confirm,
    told: &Told<Progress>,
    failures: u32,
    now: Wall,
    dice: f64,
) -> Confirmed {
    let run = entry.run.as_deref().unwrap_or("unknown");
    let settle = |state: State, code: &'static str, plain: String| Confirmed::Settle {
        state,
        cause: Cause::new(Code::of(code), plain),
    };
    let failed = |what: &str| {
        settle(State::Failed, "run-failed", format!("accepted, but run {run} {what} at the server"))
    };
    let waits_for = match told {
        Told::Answer(Progress::Succeeded) => {
            return settle(State::Sent, "run-succeeded", format!("accepted, run {run} succeeded"));
        }
        Told::Answer(Progress::PartlySucceeded) if rules.partial_is_success => {
            let plain = format!("accepted, run {run} succeeded in part");
            return settle(State::Sent, "run-succeeded", plain);
        }
        Told::Answer(Progress::Failed) => return failed("failed"),
        Told::Answer(Progress::Stopped) => return failed("was stopped"),
        Told::Answer(Progress::PartlySucceeded) => return failed("succeeded only in part"),
        Told::Answer(Progress::Running) => "it has not ended".to_owned(),
        Told::Answer(Progress::NotThere) => {
            "the Core API knows no such run (404); check core_url and run_id_field".to_owned()
        }
        Told::Answer(Progress::Unknown(status)) => {
            format!("its status \"{status}\" is not understood")
        }
        Told::TokenRefused(cause) | Told::Refused(cause) | Told::Later { cause, .. } => {
            format!("it could not be asked for: {}", cause.plain)
        }
    };
    let since = entry.confirming_since.unwrap_or(now);
    let left = rules.within.saturating_sub(now.since(since));
    // After a long stop the first question may fail because the network is not there yet.
    let is_told = matches!(told, Told::Answer(_)) || failures >= FAILURES_BEFORE_LATE;
    if left.is_zero() && is_told {
        let state = match rules.late {
            Late::Hold => State::Held,
            Late::Sent => State::Sent,
        };
        let within = spoken(rules.within);
        let plain = format!("accepted, but run {run} is not confirmed after {within}: {waits_for}");
        return settle(state, "run-unconfirmed", plain);
    }
    let asked = match told {
        Told::Later { retry_after, .. } => retry_after.unwrap_or_default(),
        Told::Answer(_) | Told::TokenRefused(_) | Told::Refused(_) => Duration::ZERO,
    };
    let wait = again(rules.every, failures, asked, dice);
    Confirmed::AskAgain(if left.is_zero() { wait } else { wait.min(left) })
}

/// A wait that grows with each question in a row that came to nothing; jittered, so that many files
/// do not ask at once.
#[must_use]
pub fn again(every: Duration, failures: u32, asked: Duration, dice: f64) -> Duration {
    let grown = every.saturating_mul(2_u32.saturating_pow(failures.min(16)));
    let most = grown.min(ASK_AGAIN_MAX.max(every));
    most.mul_f64(0.75 + 0.5 * dice.clamp(0.0, 1.0)).max(asked.min(ASKED_MAX))
}

/// What a look at a flow's runs leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// No run fits so far: look once more after this wait.
    LookAgain(Duration),
    /// No run fits, both times: the attempt was not accepted.
    SendAgain,
    /// It was accepted, as this run.
    Accepted(String),
    /// A person decides.
    Hold(Cause),
}

/// The span in which a run of this attempt must have started, by our clock.
#[must_use]
pub fn window(begun_at: Wall, ended_at: Wall) -> (Wall, Wall) {
    (begun_at, ended_at.plus(STARTS_WITHIN))
}

/// The same by the server's clock, which is `server_now` where ours is `now`.
#[must_use]
pub fn by_server_clock(
    (from, to): (Wall, Wall),
    server_now: Option<Wall>,
    now: Wall,
) -> (Wall, Wall) {
    // A `Date` is in whole seconds, cut off: half a second more is the best guess.
    let ahead = server_now.map_or(0, |server| server.0 + 500 - now.0);
    let grain = i64::try_from(CLOCK_GRAIN.as_millis()).unwrap_or(0);
    let slack = if server_now.is_some() { grain } else { 0 };
    (Wall(from.0 + ahead - grain), Wall(to.0 + ahead + slack))
}

/// What is known when a flow's runs have been looked up.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    /// The runs that the API lists.
    pub runs: &'a [Run],
    /// Whether these are all there are.
    pub is_whole: bool,
    /// The span in which the run must have started, by the server's clock.
    pub window: (Wall, Wall),
    /// Ids of runs that are on record as those of other files.
    pub of_others: &'a BTreeSet<String>,
    /// Whether another file's attempt on this flow was under way in the span.
    pub others_attempted: bool,
    /// Whether this is the second look.
    pub is_second: bool,
    /// Time since the attempt's end.
    pub since_end: Duration,
}

/// Decides (house.md, "In doubt"). One run that nobody else can have started is this file's.
#[must_use]
pub fn look(flow: &Flow, look: &Look<'_>) -> Looked {
    let hold = |plain: String| Looked::Hold(Cause::new(Code::of("run-not-told-apart"), plain));
    let id = &flow.id;
    let fits = |run: &&Run| {
        let (from, to) = look.window;
        let is_of_that_time = run.started_at.is_none_or(|at| (from..=to).contains(&at));
        is_of_that_time && !look.of_others.contains(&run.id)
    };
    let fitting: Vec<&Run> = look.runs.iter().filter(fits).collect();
    if !look.is_whole {
        return hold(format!(
            "flow {id} had too many runs at that time to tell which is this file's"
        ));
    }
    match fitting.as_slice() {
        [] if look.is_second => Looked::SendAgain,
        [] => {
            Looked::LookAgain(SECOND_LOOK_AFTER.saturating_sub(look.since_end).max(
                // A first look that came late (a stop, a network that was away) is followed by a
                // second one all the same.
                SECOND_LOOK_AFTER.saturating_sub(FIRST_LOOK_AFTER),
            ))
        }
        [only] if only.started_at.is_none() => {
            hold(format!("flow {id} has run {}, and when it started is not understood", only.id))
        }
        [only] if look.others_attempted => hold(format!(
            "run {} of flow {id} may be this file's or that of another file sent at the same time",
            only.id
        )),
        [only] => Looked::Accepted(only.id.clone()),
        several => {
            let ids: Vec<&str> = several.iter().take(5).map(|run| run.id.as_str()).collect();
            hold(format!(
                "{} runs of flow {id} fit this attempt ({})",
                several.len(),
                ids.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "12";

    fn accepted() -> Entry {
        use crate::model::file::{FileId, Identity, Place};
        use crate::model::route::RouteName;
        use crate::model::step::{Claim, Intent, Step};
        use std::path::Path;
        use std::sync::Arc;
        let mut entry = Entry::of(&Claim {
            id: FileId(7),
            route: RouteName::new("orders"),
            name: "a.json".into(),
            source: Place::new(&Arc::from(Path::new("/r/orders")), "a.json"),
            marker: None,
            identity: Identity { volume: 1, number: 1, size: 5, mtime_ns: 9 },
            digest: None,
            envelope: None,
            key: "k".into(),
            previous: None,
            twin: None,
            at: Wall(0),
            intent: Intent::Attempt,
        });
        let run = Some("31".to_owned());
        let at = Wall(1_000);
        entry.apply(&Step::Accepted { id: FileId(7), attempt: None, run, at, due_at: at });
        entry
    }

    #[test]
    fn an_attempt_without_an_answer_is_repeated_only_where_the_route_says_so_now() {
        use crate::model::file::FileId;
        use crate::model::step::{AttemptEnd, Step};
        let mut entry = Entry { run: None, confirming_since: None, ..accepted() };
        let deferred = |verdict| Step::AttemptEnded {
            id: FileId(7),
            attempt: 1,
            end: AttemptEnd {
                verdict,
                code: Code::of("cut"),
                status: None,
                request_id: None,
                plain: "no answer".into(),
            },
            at: Wall(2_000),
            due_at: Wall(9_000),
            waited_for: Duration::ZERO,
        };
        let (doubted, refused) = (deferred(Verdict::InDoubt), deferred(Verdict::Deferred));
        entry.apply(&doubted);
        assert_eq!(errand(&entry, InDoubt::Lookup), Errand::LookUp);
        // It was to be looked up, and the config has changed before that.
        assert_eq!(errand(&entry, InDoubt::Hold), Errand::LookUp);
        assert_eq!(errand(&entry, InDoubt::Resend), Errand::Attempt);
        entry.apply(&refused);
        for in_doubt in [InDoubt::Lookup, InDoubt::Hold, InDoubt::Resend] {
            assert_eq!(errand(&entry, in_doubt), Errand::Attempt);
            assert_eq!(errand(&accepted(), in_doubt), Errand::Confirm);
        }
    }

    #[test]
    fn what_stands_beside_an_accepted_file_never_says_that_it_was_not_sent() {
        use crate::journey::settle::why;
        let check = |state, code: &'static str, lead: &str, way: &str| {
            let entry = Entry { last_verdict: Some(Verdict::Delivered), ..accepted() };
            let cause = Cause::new(Code::of(code), "accepted, but");
            let text = why(&entry, state, &cause, &[], Wall(9_000));
            assert!(text.starts_with(lead), "{text}");
            assert!(text.contains(way) && !text.contains("as it is"), "{text}");
        };
        check(State::Failed, "run-failed", "a.json failed after it was sent", "patchdrop resend");
        // Said of files that wait, and this one does not.
        let entry = Entry { attempt: 3, last_verdict: Some(Verdict::Deferred), ..accepted() };
        let cause = Cause::new(Code::of(crate::journey::settle::GAVE_UP), "given up");
        let text = why(&entry, State::Failed, &cause, &[], Wall(9_000));
        assert!(text.contains("It is not tried again by itself"), "{text}");
        assert!(!text.contains("tried again by themselves"), "{text}");
        let lead = "a.json is held until a person decides";
        check(State::Held, "run-unconfirmed", lead, "(sends nothing)");
        check(State::Held, "run-unconfirmed", lead, "look at run 31");
    }

    const RULES: Confirm = Confirm {
        every: Duration::from_secs(30),
        within: Duration::from_hours(1),
        late: Late::Hold,
        partial_is_success: false,
    };

    #[test]
    fn a_run_decides_where_its_file_goes_and_a_wait_has_an_end() {
        let rules = RULES;
        let with_three_failures = Told::TokenRefused(Cause::new(Code::of("http-401"), "refused"));
        let early = Wall(2_000);
        let late = Wall(1_000).plus(Duration::from_hours(1));
        let check = |rules: &Confirm, told: Told<Progress>, now: Wall, expected: &str| {
            let failures = if told == with_three_failures { 3 } else { 0 };
            let text = match confirm(&accepted(), rules, &told, failures, now, 0.5) {
                Confirmed::AskAgain(wait) => format!("again after {wait:?}"),
                Confirmed::Settle { state, cause } => {
                    format!("{} {}: {}", state.name(), cause.code, cause.plain)
                }
            };
            assert_eq!(text, expected, "{told:?}");
        };
        let unconfirmed = |rules: &Confirm, told, state: &str, but: &str| {
            let after = "run-unconfirmed: accepted, but run 31 is not confirmed after 1 h";
            check(rules, told, late, &format!("{state} {after}: {but}"));
        };
        let told = Told::Answer;
        let cause = Cause::new(Code::of("cut"), "the network is down");
        let away = Told::Later { cause, retry_after: None };
        let succeeded = "sent run-succeeded: accepted, run 31 succeeded";
        check(&rules, told(Progress::Succeeded), late, succeeded);
        for (progress, what) in [
            (Progress::Failed, "failed"),
            (Progress::Stopped, "was stopped"),
            (Progress::PartlySucceeded, "succeeded only in part"),
        ] {
            let failed = format!("failed run-failed: accepted, but run 31 {what} at the server");
            check(&rules, told(progress), early, &failed);
        }
        let lenient = Confirm { partial_is_success: true, late: Late::Sent, ..rules };
        let in_part = format!("{succeeded} in part");
        check(&lenient, told(Progress::PartlySucceeded), early, &in_part);
        check(&rules, told(Progress::Running), early, "again after 30s");
        check(&rules, away.clone(), early, "again after 30s");
        unconfirmed(&rules, told(Progress::Running), "held", "it has not ended");
        check(&rules, away, late, "again after 30s");
        let why = "it could not be asked for: refused";
        unconfirmed(&rules, with_three_failures.clone(), "held", why);
        let unknown = told(Progress::Unknown("9".into()));
        unconfirmed(&lenient, unknown, "sent", "its status \"9\" is not understood");
    }

    #[test]
    fn a_run_that_is_never_there_is_not_said_to_go_on() {
        let told = Told::Answer(Progress::NotThere);
        let late = Wall(1_000).plus(Duration::from_hours(1));
        let Confirmed::Settle { state, cause } = confirm(&accepted(), &RULES, &told, 0, late, 0.5)
        else {
            panic!("it waits no longer");
        };
        assert_eq!(state, State::Held);
        assert!(cause.plain.contains("knows no such run (404); check core_url"), "{}", cause.plain);
    }

    #[test]
    fn waits_between_questions_grow_while_they_come_to_nothing() {
        let every = Duration::from_secs(30);
        let wait = |failures, dice| again(every, failures, Duration::ZERO, dice);
        assert_eq!(wait(0, 0.5), every);
        assert_eq!(wait(2, 0.5), every * 4);
        assert_eq!(wait(20, 0.5), ASK_AGAIN_MAX);
        assert!(wait(0, 0.0) < every && wait(0, 1.0) > every);
        assert_eq!(again(every, 0, Duration::from_mins(2), 0.0), Duration::from_mins(2));
        assert_eq!(again(ASK_AGAIN_MAX * 2, 3, Duration::ZERO, 0.5), ASK_AGAIN_MAX * 2);
        assert_eq!(again(every, 0, Duration::from_hours(24_000), 0.5), ASKED_MAX);
    }

    fn flow() -> Flow {
        Flow {
            id: FLOW.into(),
            variables: std::collections::BTreeMap::new(),
            core_url: "https://core.example/api/v1".into(),
            core_host: "core.example".into(),
            confirm: None,
        }
    }

    #[test]
    fn one_run_that_nobody_else_can_have_started_is_the_files_own() {
        let started = |id: &str, at: i64| Run {
            id: id.to_owned(),
            started_at: Some(Wall(at)),
            progress: Progress::Running,
        };
        let odd = Run { started_at: None, ..started("5", 0) };
        let window = (Wall(1_000), Wall(70_000));
        let check =
            |runs: &[Run], others: &[&str], attempted: bool, second: bool, expected: &str| {
                let of_others = others.iter().map(ToString::to_string).collect();
                let found = look(
                    &flow(),
                    &Look {
                        runs,
                        is_whole: true,
                        window,
                        of_others: &of_others,
                        others_attempted: attempted,
                        is_second: second,
                        since_end: Duration::from_secs(95),
                    },
                );
                let text = match found {
                    Looked::LookAgain(wait) => format!("look again after {wait:?}"),
                    Looked::SendAgain => "send again".to_owned(),
                    Looked::Accepted(run) => format!("accepted as {run}"),
                    Looked::Hold(cause) => format!("hold: {}", cause.plain),
                };
                assert!(text.starts_with(expected), "{text} is not {expected}");
            };
        check(&[], &[], false, false, "look again after 90s");
        check(&[], &[], true, true, "send again");
        check(&[started("5", 2_000)], &[], false, false, "accepted as 5");
        check(&[started("5", 70_000)], &[], false, true, "accepted as 5");
        check(&[started("5", 999), started("6", 70_001)], &[], false, true, "send again");
        check(&[started("5", 2_000), started("6", 3_000)], &["6"], false, false, "accepted as 5");
        check(&[started("5", 2_000)], &["5"], false, true, "send again");
        check(&[started("5", 2_000)], &[], true, false, "hold: run 5 of flow 12 may be");
        check(
            &[started("5", 2_000), started("6", 3_000)],
            &[],
            false,
            true,
            "hold: 2 runs of flow 12",
        );
        check(&[odd], &[], false, false, "hold: flow 12 has run 5, and when it started");
    }

    #[test]
    fn a_list_that_is_not_whole_decides_nothing() {
        let found = look(
            &flow(),
            &Look {
                runs: &[],
                is_whole: false,
                window: (Wall(0), Wall(1)),
                of_others: &BTreeSet::new(),
                others_attempted: false,
                is_second: true,
                since_end: SECOND_LOOK_AFTER,
            },
        );
        assert!(matches!(found, Looked::Hold(_)), "{found:?}");
    }

    #[test]
    fn the_servers_clock_is_the_one_that_its_runs_go_by() {
        let ours = (Wall(100_000), Wall(170_000));
        assert_eq!(by_server_clock(ours, None, Wall(0)), (Wall(99_000), Wall(170_000)));
        let now = Wall(1_000_000);
        let ahead = by_server_clock(ours, Some(Wall(1_060_000)), now);
        assert_eq!(ahead, (Wall(159_500), Wall(231_500)));
        let behind = by_server_clock(ours, Some(Wall(940_000)), now);
        assert_eq!(behind, (Wall(39_500), Wall(111_500)));
    }
}
