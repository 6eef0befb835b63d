//! Whatever happens in whatever order: slots and bounds hold, names keep their order, no file is
//! lost, and with a server that accepts everything all files end.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::Duration;

use patchdrop::journey::runs::Errand;
use patchdrop::journey::schedule::{Limits, Refused, Start};
use patchdrop::journey::settle::Next;
use patchdrop::model::file::FileId;
use patchdrop::model::outcome::Outcome;
use patchdrop::model::route::OrderBy;
use patchdrop::model::time::Tick;
use proptest::prelude::*;

use crate::order::ordered;
use crate::scene::{CUT, DOWN, Scene, judged, name_of, route};

const ROUTES: [(&str, &str, usize); 4] =
    [("a", "one", 1), ("b", "one", 3), ("c", "two", 4), (IN_ORDER, "two", 1)];
/// Its files leave by name.
const IN_ORDER: &str = "d";
const LIMITS: Limits = Limits { active_max: 6, parked_max: 5 };

/// Where the test itself believes a file to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ready,
    Sending,
    Settling,
    Parked,
    Resuming,
}

#[derive(Clone, Copy, Debug)]
struct Believed {
    route: usize,
    name: u8,
    stage: Stage,
    is_retry: bool,
}

/// One thing that happens to the schedule. `nth` picks among the files to which it can happen.
#[derive(Clone, Debug)]
enum Event {
    Look { route: usize, name: u8 },
    LookClaims { nth: usize },
    LookFails { nth: usize },
    OnRecord { route: usize, name: u8, wait_ms: u64, refused: Refused },
    Resumed { nth: usize },
    Answered { nth: usize, outcome: Outcome, retry_after_ms: Option<u64>, dice: f64 },
    SettledEnds { nth: usize },
    SettledParks { nth: usize, wait_ms: u64 },
    Stumbles { nth: usize },
    Vanishes { nth: usize },
    PausedByPerson { route: usize },
    ResumedByPerson { route: usize },
    Suspended { for_ms: u64 },
    Passes { ms: u64 },
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Delivered),
        1 => Just(Outcome::Rejected),
        2 => Just(Outcome::RouteFault),
        1 => Just(Outcome::TokenRefused),
        2 => Just(CUT),
        1 => Just(DOWN),
        1 => Just(Outcome::InDoubt),
        1 => Just(Outcome::Changed),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let nth = 0..100_usize;
    let route = 0..ROUTES.len();
    let refused = prop_oneof![
        Just(Refused::Never),
        Just(Refused::BeforeDelivery),
        Just(Refused::SinceDelivery)
    ];
    let after = proptest::option::weighted(0.1, 1..60_000_u64);
    prop_oneof![
        8 => (route.clone(), 0..12_u8).prop_map(|(route, name)| Event::Look { route, name }),
        8 => nth.clone().prop_map(|nth| Event::LookClaims { nth }),
        1 => nth.clone().prop_map(|nth| Event::LookFails { nth }),
        2 => (route.clone(), 0..12_u8, 0..60_000_u64, refused).prop_map(
            |(route, name, wait_ms, refused)| Event::OnRecord { route, name, wait_ms, refused }
        ),
        6 => nth.clone().prop_map(|nth| Event::Resumed { nth }),
        8 => (nth.clone(), outcome(), after, 0.0..1.0_f64).prop_map(
            |(nth, outcome, retry_after_ms, dice)| {
                Event::Answered { nth, outcome, retry_after_ms, dice }
            }
        ),
        6 => nth.clone().prop_map(|nth| Event::SettledEnds { nth }),
        4 => (nth.clone(), 0..300_000_u64)
            .prop_map(|(nth, wait_ms)| Event::SettledParks { nth, wait_ms }),
        1 => nth.clone().prop_map(|nth| Event::Stumbles { nth }),
        1 => nth.prop_map(|nth| Event::Vanishes { nth }),
        1 => route.clone().prop_map(|route| Event::PausedByPerson { route }),
        1 => route.prop_map(|route| Event::ResumedByPerson { route }),
        1 => (0..10_000_u64).prop_map(|for_ms| Event::Suspended { for_ms }),
        4 => (0..20_000_u64).prop_map(|ms| Event::Passes { ms }),
    ]
}

/// The schedule beside what the test believes.
struct Pair {
    scene: Scene,
    files: BTreeMap<FileId, Believed>,
    looks: Vec<(usize, u8)>,
    stopped_by_person: BTreeSet<usize>,
    suspended_until: u64,
    /// Files whose next step is their last.
    decided: BTreeSet<FileId>,
}

impl Pair {
    fn new() -> Self {
        let routes: Vec<_> = ROUTES
            .iter()
            .map(|(name, host, slots)| match *name {
                IN_ORDER => ordered(name, host, OrderBy::Name),
                _ => route(name, host, *slots),
            })
            .collect();
        Self {
            scene: Scene::new(LIMITS, &routes),
            files: BTreeMap::new(),
            looks: Vec::new(),
            stopped_by_person: BTreeSet::new(),
            suspended_until: 0,
            decided: BTreeSet::new(),
        }
    }

    /// A file in one of these stages.
    fn pick(&self, nth: usize, stages: &[Stage]) -> Option<FileId> {
        let fit: Vec<FileId> = self
            .files
            .iter()
            .filter(|(_, file)| stages.contains(&file.stage))
            .map(|(id, _)| *id)
            .collect();
        (!fit.is_empty()).then(|| fit[nth % fit.len()])
    }

    fn put(&mut self, id: FileId, stage: Stage) {
        let file = self.files.get_mut(&id).expect("only files that are known are moved");
        file.is_retry |= stage == Stage::Parked;
        file.stage = stage;
    }

    fn park(&mut self, id: FileId, wait_ms: u64) {
        let wait = Duration::from_millis(wait_ms);
        self.scene.schedule.park(id, wait, Errand::Attempt, Tick(self.scene.tick));
        self.put(id, Stage::Parked);
    }

    fn happen(&mut self, event: Event) {
        let tick = Tick(self.scene.tick);
        match event {
            Event::Look { route, name } => self.look(route, name),
            Event::LookClaims { nth } if !self.looks.is_empty() => {
                let (route, name) = self.looks.remove(nth % self.looks.len());
                self.claimed(route, name);
            }
            Event::LookFails { nth } if !self.looks.is_empty() => {
                let (route, name) = self.looks.remove(nth % self.looks.len());
                let named = name.to_string();
                self.scene.schedule.look_ended(&name_of(ROUTES[route].0), OsStr::new(&named));
            }
            Event::LookClaims { .. } | Event::LookFails { .. } => {}
            Event::OnRecord { route, name, wait_ms, refused } => {
                self.on_record(route, name, wait_ms, refused);
            }
            Event::Resumed { nth } => {
                if let Some(id) = self.pick(nth, &[Stage::Resuming]) {
                    self.scene.schedule.resumed(id);
                    self.put(id, Stage::Ready);
                }
            }
            Event::Answered { nth, outcome, retry_after_ms, dice } => {
                if let Some(id) = self.pick(nth, &[Stage::Sending]) {
                    self.answered(id, outcome, retry_after_ms, dice);
                }
            }
            Event::SettledEnds { nth } => {
                if let Some(id) = self.pick(nth, &[Stage::Settling]) {
                    self.end(id);
                }
            }
            Event::SettledParks { nth, wait_ms } => {
                if let Some(id) = self.pick(nth, &[Stage::Settling, Stage::Resuming]) {
                    self.park(id, wait_ms);
                }
            }
            Event::Stumbles { nth } => {
                if let Some(id) = self.pick(nth, &[Stage::Settling, Stage::Resuming]) {
                    self.scene.schedule.stumbled(id, tick);
                    self.put(id, Stage::Parked);
                }
            }
            Event::Vanishes { nth } => {
                if let Some(id) = self.pick(nth, &[Stage::Parked, Stage::Resuming]) {
                    self.end(id);
                }
            }
            Event::PausedByPerson { route } => {
                self.scene.schedule.pause_by_person(&name_of(ROUTES[route].0), self.scene.now());
                self.stopped_by_person.insert(route);
            }
            Event::ResumedByPerson { route } => {
                self.scene.schedule.resume_by_person(&name_of(ROUTES[route].0), self.scene.now());
                self.stopped_by_person.remove(&route);
            }
            Event::Suspended { for_ms } => {
                self.scene.schedule.suspend(Duration::from_millis(for_ms), tick);
                self.suspended_until = tick.0 + for_ms;
            }
            Event::Passes { ms } => self.scene.tick += ms,
        }
    }

    fn look(&mut self, route: usize, name: u8) {
        let named = name.to_string();
        if self.scene.may_claim(ROUTES[route].0, &named).is_ok() {
            let tick = Tick(self.scene.tick);
            assert!(!self.is_borne(route, name), "P13: {named} is on its way already");
            assert!(self.suspended_until <= tick.0, "claimed, and it can't be put on record");
            assert!(!self.stopped_by_person.contains(&route), "claimed against a person's will");
            self.scene.schedule.look_begun(&name_of(ROUTES[route].0), OsStr::new(&named), tick);
            self.looks.push((route, name));
        }
    }

    fn is_borne(&self, route: usize, name: u8) -> bool {
        self.looks.contains(&(route, name))
            || self.files.values().any(|file| file.route == route && file.name == name)
    }

    fn claimed(&mut self, route: usize, name: u8) {
        let id = self.scene.next_id();
        let named = name.to_string();
        self.scene.schedule.claimed(id, &name_of(ROUTES[route].0), OsStr::new(&named));
        self.files.insert(id, Believed { route, name, stage: Stage::Ready, is_retry: false });
    }

    fn on_record(&mut self, route: usize, name: u8, wait_ms: u64, refused: Refused) {
        let id = self.scene.next_id();
        let named = name.to_string();
        self.scene.schedule.parked_on_record(
            id,
            &name_of(ROUTES[route].0),
            OsStr::new(&named),
            Duration::ZERO,
            refused,
            (Duration::from_millis(wait_ms), Errand::Attempt),
            Tick(self.scene.tick),
        );
        self.files.insert(id, Believed { route, name, stage: Stage::Parked, is_retry: true });
    }

    fn answered(&mut self, id: FileId, outcome: Outcome, after_ms: Option<u64>, dice: f64) {
        let mut judged = judged(outcome);
        judged.retry_after = after_ms.map(Duration::from_millis);
        let next = self.scene.next_of(id, &judged);
        let now = self.scene.now();
        self.scene.schedule.answered(id, &judged, &next, now, dice);
        if matches!(next, Next::Settle { .. }) {
            self.decided.insert(id);
        }
        self.put(id, Stage::Settling);
    }

    fn end(&mut self, id: FileId) {
        self.scene.schedule.ended(id);
        self.files.remove(&id);
    }

    /// Starts what can be started; each start must be lawful.
    fn start(&mut self) -> usize {
        let tick = self.scene.tick;
        let were_paused: Vec<bool> =
            ROUTES.iter().map(|(name, _, _)| self.scene.is_paused(name)).collect();
        let starts = self.scene.starts();
        let wake = self.scene.next_wake();
        assert!(wake.is_none_or(|wake| wake.0 > tick), "a wake in the past: {wake:?} at {tick}");
        for start in &starts {
            let (Start::Attempt(id) | Start::Resume(id) | Start::Ask(id) | Start::Shelve(id)) =
                *start;
            let file = self.files[&id];
            // Its last move is nobody's wish to stop, and passes nobody.
            let is_decided = self.decided.contains(&id);
            let is_lawful = tick >= self.suspended_until
                && (is_decided || !self.stopped_by_person.contains(&file.route))
                && self.is_oldest_of_its_name(id);
            match start {
                Start::Attempt(_) => {
                    assert_eq!(file.stage, Stage::Ready, "{start:?}");
                    assert!(is_lawful, "{start:?} of {file:?} at {tick}");
                    self.put(id, Stage::Sending);
                }
                Start::Ask(_) => unreachable!("no route here starts flows"),
                Start::Resume(_) => {
                    let ahead = self.files.iter().filter(|(_, other)| other.route == file.route);
                    let ahead = ahead.min_by_key(|(id, other)| (other.name, **id));
                    let is_ahead = ahead.is_some_and(|(ahead, _)| *ahead == id);
                    assert!(
                        ROUTES[file.route].0 != IN_ORDER || is_decided || is_ahead,
                        "{start:?} is not ahead"
                    );
                    assert_eq!(file.stage, Stage::Parked, "{start:?}");
                    assert!(is_lawful, "{start:?} of {file:?} at {tick}");
                    self.put(id, Stage::Resuming);
                }
                Start::Shelve(_) => {
                    assert_eq!(file.stage, Stage::Ready, "{start:?}");
                    self.put(id, Stage::Settling);
                }
            }
            if *start == Start::Attempt(id) && file.is_retry && !were_paused[file.route] {
                self.check_share_of_retries(file.route);
            }
        }
        starts.len()
    }

    /// P13: none of its name is under way beside it, nor, if it is to be taken up, is an older one
    /// left. (An older one may be let go by a person while a newer one is being looked at.)
    fn is_oldest_of_its_name(&self, id: FileId) -> bool {
        let file = self.files[&id];
        let is_parked = file.stage == Stage::Parked;
        let same = |other: &Believed| other.route == file.route && other.name == file.name;
        !self.looks.contains(&(file.route, file.name))
            && self.files.iter().filter(|(_, other)| same(other)).all(|(other, believed)| {
                *other == id || (believed.stage == Stage::Parked && (*other > id || !is_parked))
            })
    }

    fn count(&self, route: usize, fits: impl Fn(&Believed) -> bool) -> usize {
        self.files.values().filter(|file| file.route == route && fits(file)).count()
    }

    /// A file that is tried again has just taken a slot.
    fn check_share_of_retries(&self, route: usize) {
        let slots = ROUTES[route].2;
        let old = self.count(route, |file| file.stage == Stage::Sending && file.is_retry);
        let new = self.count(route, |file| file.stage == Stage::Ready && !file.is_retry);
        let all = self.count(route, |file| file.stage == Stage::Sending);
        let has_room_for_new = slots - all >= new;
        assert!(
            old <= (slots / 2).max(1) || has_room_for_new,
            "{old} of {slots} slots for files tried again, {new} new ones wait"
        );
    }

    fn check(&self) {
        let mut active_in_all = 0;
        for (route, (name, _, slots)) in ROUTES.iter().enumerate() {
            let in_flight = self.count(route, |file| file.stage == Stage::Sending);
            assert!(in_flight <= *slots, "{in_flight} attempts in {slots} slots of {name}");
            let looks = self.looks.iter().filter(|look| look.0 == route).count();
            let active = looks + self.count(route, |file| file.stage != Stage::Parked);
            let parked = self.count(route, |file| file.stage == Stage::Parked);
            let view = self.scene.schedule.view(&name_of(name));
            assert_eq!((view.active, view.parked), (active, parked), "active and parked of {name}");
            assert!(active <= 65, "{active} files of {name} are under way");
            assert!(*name != IN_ORDER || active <= 1, "{active} at once where the order counts");
            active_in_all += active;
        }
        assert_eq!(self.scene.schedule.active(), active_in_all);
        // Each route may have its 8 places and a probe beyond the bound.
        assert!(active_in_all <= LIMITS.active_max + ROUTES.len() * 9, "{active_in_all} active");
        for id in self.files.keys() {
            assert!(self.scene.schedule.knows(*id), "{id} is forgotten");
        }
    }

    /// Everybody is willing from now on: people let go, the server accepts everything.
    fn drain(&mut self) {
        for route in 0..ROUTES.len() {
            self.happen(Event::ResumedByPerson { route });
        }
        let end = self.scene.tick + 3_600_000;
        while !self.files.is_empty() || !self.looks.is_empty() {
            let mut moved = self.start();
            while !self.looks.is_empty() {
                self.happen(Event::LookClaims { nth: 0 });
                moved += 1;
            }
            for (id, file) in self.files.clone() {
                moved += usize::from(matches!(
                    file.stage,
                    Stage::Resuming | Stage::Sending | Stage::Settling
                ));
                match file.stage {
                    Stage::Resuming => self.resumed(id),
                    Stage::Sending => self.answered(id, Outcome::Delivered, None, 0.5),
                    Stage::Settling => self.conclude(id),
                    Stage::Ready | Stage::Parked => {}
                }
            }
            if moved == 0 {
                assert!(self.scene.next_wake().is_some(), "starves: {:#?}", self.files);
                self.scene.pass_to_wake();
            }
            assert!(self.scene.tick < end, "after an hour there still wait: {:#?}", self.files);
            self.check();
        }
        assert!(self.scene.schedule.is_idle());
    }

    fn resumed(&mut self, id: FileId) {
        self.scene.schedule.resumed(id);
        self.put(id, Stage::Ready);
    }

    /// What was delivered or rejected ends; what was shelved or deferred is parked.
    fn conclude(&mut self, id: FileId) {
        if self.decided.contains(&id) { self.end(id) } else { self.park(id, 1000) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_bounds_hold_and_in_the_end_every_file_has_gone(
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut pair = Pair::new();
        for event in events {
            pair.happen(event);
            pair.check();
            pair.start();
            pair.check();
        }
        pair.drain();
    }
}
