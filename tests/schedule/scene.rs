//! Routes, a clock that only the test moves, and the loop's part in short: what it tells the
//! schedule after each start.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use patchdrop::journey::detect::Reason;
use patchdrop::journey::runs::Errand;
use patchdrop::journey::schedule::{Change, Limits, Refused, Schedule, Start};
use patchdrop::journey::send::Judged;
use patchdrop::journey::settle::Next;
use patchdrop::model::file::FileId;
use patchdrop::model::outcome::{Blame, Cause, Code, Outcome};
use patchdrop::model::route::{
    Backoff, CheckRules, Delivery, Destination, Duplicates, Encoding, Folders, Format, InDoubt,
    JudgeRules, Priority, ReadyRules, Route, RouteName, Select,
};
use patchdrop::model::secret::Secret;
use patchdrop::model::step::State;
use patchdrop::model::time::{Now, Tick, Wall};

/// More than any test here fills, unless it is about the bound.
pub(crate) const WIDE: Limits = Limits { active_max: 1000, parked_max: 1000 };

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn name_of(route: &str) -> RouteName {
    RouteName::new(route)
}

pub(crate) fn route(name: &str, host: &str, concurrency: usize) -> Route {
    let folder = |part: &str| -> Arc<Path> { Arc::from(Path::new("/r").join(part)) };
    Route {
        name: name_of(name),
        folders: Folders {
            inbox: folder(name),
            sending: folder("sending"),
            sent: folder("sent"),
            failed: folder("failed"),
            held: folder("held"),
        },
        select: Select { include: vec![], exclude: vec![], temp_names: vec![] },
        ready: ReadyRules {
            quiet_for: SECOND,
            truncated_after: SECOND,
            done_marker: None,
            first_sweep_max_age: None,
        },
        check: CheckRules {
            format: Format::Json,
            max_depth: 512,
            strict: false,
            schema: None,
            schema_max_bytes: 0,
            encoding: Encoding::Auto,
            wrap: None,
            body_max_bytes: None,
        },
        deliver: Delivery {
            kind: "http",
            url: Secret::new("https://server.example/"),
            host: Arc::from(host),
            method: "POST",
            content_type: "application/json".into(),
            headers: vec![],
            idempotency_header: None,
            hmac: None,
            flow: None,
            credential: None,
            connect_timeout: SECOND,
            timeout: SECOND,
        },
        judge: JudgeRules {
            success: BTreeSet::new(),
            success_when: None,
            html_is_success: false,
            file_faults: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            run_id_fields: Vec::new(),
        },
        in_doubt: InDoubt::Hold,
        retry: Backoff {
            first: SECOND,
            factor: 2.0,
            max: Duration::from_mins(5),
            give_up_after: Duration::from_hours(120),
        },
        concurrency,
        order: None,
        priority: Priority::Normal,
        receipts: false,
        duplicates: Duplicates::Send,
    }
}

pub(crate) fn judged(outcome: Outcome) -> Judged {
    Judged::unanswered(outcome, Cause::new(Code::of("for-the-test"), "the test says so"))
}

/// The schedule with the test's clock.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) schedule: Schedule,
    pub(crate) tick: u64,
    last_id: u64,
    /// The dice of every answer.
    pub(crate) dice: f64,
}

impl Scene {
    pub(crate) fn new(limits: Limits, routes: &[Route]) -> Self {
        let mut scene =
            Self { schedule: Schedule::new(limits), tick: 10_000, last_id: 0, dice: 0.0 };
        for route in routes {
            scene.schedule.add_route(route, None, scene.now());
        }
        scene
    }

    /// One route, `orders`.
    pub(crate) fn of_one(concurrency: usize) -> Self {
        Self::new(WIDE, &[route("orders", "server.example", concurrency)])
    }

    pub(crate) fn now(&self) -> Now {
        let wall = Wall(1_700_000_000_000 + i64::try_from(self.tick).expect("a short test"));
        Now { wall, tick: Tick(self.tick) }
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.tick = Tick(self.tick).plus(span).0;
    }

    pub(crate) fn next_id(&mut self) -> FileId {
        self.last_id += 1;
        FileId(self.last_id)
    }

    pub(crate) fn may_claim(&self, route: &str, name: &str) -> Result<(), Reason> {
        self.schedule.may_claim(&name_of(route), OsStr::new(name), Tick(self.tick))
    }

    /// Looks at a file and claims it, if it may.
    pub(crate) fn claim(&mut self, route: &str, name: &str) -> Result<FileId, Reason> {
        self.may_claim(route, name)?;
        let (route, name) = (name_of(route), OsStr::new(name));
        self.schedule.look_begun(&route, name, Tick(self.tick));
        let id = self.next_id();
        self.schedule.claimed(id, &route, name);
        Ok(id)
    }

    /// Claims files of `orders` with names of their own while that goes.
    pub(crate) fn claim_many(&mut self, most: usize) -> Vec<FileId> {
        let mut claimed = Vec::new();
        while claimed.len() < most {
            let name = format!("{}.json", self.last_id);
            match self.claim("orders", &name) {
                Ok(id) => claimed.push(id),
                Err(_) => break,
            }
        }
        claimed
    }

    /// A file of an earlier run, due after `wait`.
    pub(crate) fn recorded(&mut self, route: &str, name: &str, wait: Duration) -> FileId {
        let id = self.next_id();
        let (route, tick) = (name_of(route), Tick(self.tick));
        self.schedule.parked_on_record(
            id,
            &route,
            OsStr::new(name),
            Duration::ZERO,
            Refused::Never,
            (wait, Errand::Attempt),
            tick,
        );
        id
    }

    pub(crate) fn starts(&mut self) -> Vec<Start> {
        self.schedule.starts(Tick(self.tick))
    }

    /// Starts what can be started, takes parked files up and shelves, until only attempts are
    /// left; returns their files.
    pub(crate) fn attempts(&mut self) -> Vec<FileId> {
        let mut attempts = Vec::new();
        loop {
            let starts = self.starts();
            if starts.is_empty() {
                return attempts;
            }
            for start in starts {
                match start {
                    Start::Attempt(id) => attempts.push(id),
                    Start::Resume(id) => self.schedule.resumed(id),
                    Start::Ask(_) => unreachable!("no route here starts flows"),
                    Start::Shelve(id) => {
                        self.schedule.park(id, Duration::ZERO, Errand::Attempt, Tick(self.tick));
                    }
                }
            }
        }
    }

    /// An attempt ends, and what follows is done at once: a deferred file waits for a minute.
    pub(crate) fn answer(&mut self, id: FileId, outcome: Outcome) -> Vec<Change> {
        self.answer_with(id, &judged(outcome))
    }

    pub(crate) fn answer_with(&mut self, id: FileId, judged: &Judged) -> Vec<Change> {
        let next = self.next_of(id, judged);
        let changes = self.schedule.answered(id, judged, &next, self.now(), self.dice);
        match next {
            Next::Settle { .. } => self.schedule.ended(id),
            Next::Confirm => unreachable!("no route here starts flows"),
            Next::Park { wait, errand } => {
                self.schedule.park(id, wait, errand, Tick(self.tick));
            }
        }
        changes
    }

    /// As `settle::decide` has it, without an entry.
    pub(crate) fn next_of(&self, id: FileId, judged: &Judged) -> Next {
        let settle = |state, cause| Next::Settle { state, cause };
        match judged.outcome {
            Outcome::Delivered => settle(State::Sent, judged.cause.clone()),
            Outcome::Rejected => settle(State::Failed, judged.cause.clone()),
            Outcome::Changed | Outcome::InDoubt => settle(State::Held, judged.cause.clone()),
            Outcome::RouteFault if self.schedule.delivered_since_refusal(id) => {
                settle(State::Failed, Cause::new(Code::of("refused-again"), "it is this file"))
            }
            Outcome::RouteFault | Outcome::TokenRefused | Outcome::Deferred(_) => {
                let wait = judged.retry_after.unwrap_or(Duration::from_mins(1));
                Next::Park { wait, errand: Errand::Attempt }
            }
        }
    }

    pub(crate) fn is_paused(&self, route: &str) -> bool {
        self.schedule.is_paused(&name_of(route), Tick(self.tick))
    }

    pub(crate) fn next_wake(&self) -> Option<Tick> {
        self.schedule.next_wake(Tick(self.tick))
    }

    /// Moves the clock to the next time at which something may start.
    pub(crate) fn pass_to_wake(&mut self) {
        let wake = self.next_wake().expect("something is going to start by itself");
        assert!(wake.0 > self.tick, "a wake in the past: {} at {}", wake.0, self.tick);
        self.tick = wake.0;
    }
}

pub(crate) fn destination(host: &str) -> Destination {
    Destination { host: Arc::from(host), credential: None }
}

/// Speaks against the attempt.
pub(crate) const CUT: Outcome = Outcome::Deferred(Blame::Attempt);

/// Speaks against the destination at once.
pub(crate) const DOWN: Outcome = Outcome::Deferred(Blame::Destination);
