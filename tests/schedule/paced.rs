//! Pace: a server that is nothing but numbers, which counts in windows, minds how many are there at
//! once, or is slow; and how long a heap of files takes there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use patchdrop::journey::pace::{Allowance, Heard};
use patchdrop::journey::runs::Errand;
use patchdrop::journey::schedule::{Change, Schedule};
use patchdrop::journey::send::Judged;
use patchdrop::model::file::FileId;
use patchdrop::model::outcome::{Blame, Outcome};
use patchdrop::model::route::{PaceRules, Priority, Rate, Route};
use patchdrop::model::time::Tick;

use crate::scene::{SECOND, Scene, WIDE, destination, judged, name_of, route};

/// How a server rounds the seconds of a wait.
#[derive(Clone, Copy, Debug)]
enum Rounds {
    Up,
    Down,
}

/// When its windows begin.
#[derive(Clone, Copy, Debug)]
enum Windows {
    /// With the first request after the last one.
    AtFirst,
    /// At every multiple of their length.
    Aligned,
}

#[derive(Clone, Debug)]
struct Server {
    /// So many in a window of so many milliseconds.
    limit: Option<(u64, u64)>,
    windows: Windows,
    rounds: Rounds,
    tells_what_is_left: bool,
    tells_the_wait: bool,
    /// Milliseconds from arrival to answer.
    latency: u64,
    /// More than this at once are answered with 503.
    capacity: usize,
    /// Milliseconds to such an answer.
    refuses_after: u64,
    window: (u64, u64),
    present: usize,
    /// Arrivals, for the test's own count.
    seen: Vec<u64>,
    refused: usize,
    crowded: usize,
}

impl Server {
    fn new(latency: u64) -> Self {
        Self {
            limit: None,
            windows: Windows::AtFirst,
            rounds: Rounds::Up,
            tells_what_is_left: true,
            tells_the_wait: true,
            latency,
            capacity: usize::MAX,
            refuses_after: 1,
            window: (0, 0),
            present: 0,
            seen: Vec::new(),
            refused: 0,
            crowded: 0,
        }
    }

    /// Answers a request: what it says, and when.
    fn arrive(&mut self, at: u64) -> (u64, Judged) {
        let mut answer = judged(Outcome::Delivered);
        answer.status = Some(200);
        self.seen.push(at);
        self.present += 1;
        if let Some((limit, span)) = self.limit {
            let (mut since, mut count) = self.window;
            if count == 0 || at >= since + span {
                since = match self.windows {
                    Windows::AtFirst => at,
                    Windows::Aligned => at - at % span,
                };
                count = 0;
            }
            count += 1;
            self.window = (since, count);
            if self.tells_what_is_left {
                answer.allowance.limit = Some(limit);
                answer.allowance.remaining = Some(limit.saturating_sub(count));
            }
            if count > limit {
                self.refused += 1;
                let left = since + span - at;
                let seconds = match self.rounds {
                    Rounds::Up => left.div_ceil(1000),
                    Rounds::Down => left / 1000,
                };
                answer.outcome = Outcome::Deferred(Blame::Destination);
                answer.status = Some(429);
                answer.retry_after =
                    self.tells_the_wait.then(|| Duration::from_secs(seconds.max(1)));
                return (at + 1, answer);
            }
        }
        if self.present > self.capacity {
            self.crowded += 1;
            answer.outcome = Outcome::Deferred(Blame::Attempt);
            answer.status = Some(503);
            return (at + self.refuses_after, answer);
        }
        (at + self.latency, answer)
    }
}

/// Files on their way to one server, in the order of time.
struct Drive {
    scene: Scene,
    server: Server,
    routes: Vec<String>,
    waiting: BTreeMap<String, usize>,
    /// Arrivals and answers by time; a number keeps the order of equal times.
    ahead: BTreeMap<(u64, u64), (FileId, Option<Judged>)>,
    number: u64,
    /// Milliseconds on the way, one direction.
    travel: u64,
    begun_at: u64,
    delivered: Vec<(u64, FileId)>,
    changes: Vec<Change>,
    owners: BTreeMap<FileId, String>,
}

impl Drive {
    fn new(server: Server, routes: &[Route], rules: PaceRules) -> Self {
        let mut scene = Scene::new(WIDE, &[]);
        scene.dice = 0.5;
        scene.schedule.set_pace_rules(BTreeMap::from([(Arc::from("server.example"), rules)]));
        for route in routes {
            scene.schedule.add_route(route, None, scene.now());
        }
        let begun_at = scene.tick;
        Self {
            scene,
            server,
            routes: routes.iter().map(|route| route.name.to_string()).collect(),
            waiting: BTreeMap::new(),
            ahead: BTreeMap::new(),
            number: 0,
            travel: 1,
            begun_at,
            delivered: Vec::new(),
            changes: Vec::new(),
            owners: BTreeMap::new(),
        }
    }

    fn of_one(server: Server, concurrency: usize, rules: PaceRules) -> Self {
        Self::new(server, &[route("orders", "server.example", concurrency)], rules)
    }

    fn drop_files(&mut self, route: &str, files: usize) {
        *self.waiting.entry(route.to_owned()).or_default() += files;
    }

    fn push(&mut self, at: u64, id: FileId, answer: Option<Judged>) {
        self.number += 1;
        self.ahead.insert((at, self.number), (id, answer));
    }

    fn start(&mut self) {
        for route in self.routes.clone() {
            while self.waiting.get(&route).is_some_and(|files| *files > 0) {
                self.number += 1;
                let name = format!("{}.json", self.number);
                let Ok(id) = self.scene.claim(&route, &name) else { break };
                self.owners.insert(id, route.clone());
                *self.waiting.get_mut(&route).expect("it was looked at") -= 1;
            }
        }
        for id in self.scene.attempts() {
            self.push(self.scene.tick + self.travel, id, None);
        }
    }

    /// Goes on until so many files are delivered; how long that took, in milliseconds.
    fn until_delivered(&mut self, files: usize) -> u64 {
        let mut turns = 0;
        while self.delivered.len() < files {
            turns += 1;
            assert!(turns < 200_000, "a busy loop at {}", self.scene.tick);
            self.start();
            let next = self.ahead.keys().next().map(|(at, _)| *at);
            let wake = self.scene.next_wake().map(|wake| wake.0);
            let at = [next, wake].into_iter().flatten().min();
            let at = at.unwrap_or_else(|| panic!("starves after {}", self.delivered.len()));
            assert!(at >= self.scene.tick, "a wake in the past");
            self.scene.tick = at;
            while let Some(entry) = self.ahead.first_entry().filter(|entry| entry.key().0 <= at) {
                let (id, answer) = entry.remove();
                match answer {
                    None => {
                        let (answered_at, answer) = self.server.arrive(at);
                        self.push(answered_at + self.travel, id, Some(answer));
                    }
                    Some(answer) => self.answer(id, answer),
                }
            }
        }
        self.scene.tick - self.begun_at
    }

    fn answer(&mut self, id: FileId, answer: Judged) {
        self.server.present -= 1;
        if answer.outcome == Outcome::Delivered {
            self.delivered.push((self.scene.tick, id));
        }
        let mut answer = self.scene.schedule.believed(id, answer);
        // A deferred file is tried again a moment later: what counts here is the pace.
        if answer.status == Some(503) {
            let next = patchdrop::journey::settle::Next::Park {
                wait: Duration::from_millis(500),
                errand: Errand::Attempt,
            };
            let now = self.scene.now();
            answer.retry_after = None;
            self.changes.extend(self.scene.schedule.answered(id, &answer, &next, now, 0.5));
            self.scene.schedule.park(
                id,
                Duration::from_millis(500),
                Errand::Attempt,
                Tick(self.scene.tick),
            );
        } else {
            self.changes.extend(self.scene.answer_with(id, &answer));
        }
    }
}

fn windowed(limit: u64, span: u64, latency: u64) -> Server {
    Server { limit: Some((limit, span)), ..Server::new(latency) }
}

#[test]
fn a_heap_of_files_goes_at_the_limit_that_the_server_tells_of() {
    #[track_caller]
    fn check(concurrency: usize, latency: u64, rounds: Rounds, windows: Windows) {
        let server = Server { windows, rounds, ..windowed(60, 6_000, latency) };
        let mut drive = Drive::of_one(server, concurrency, PaceRules::default());
        drive.drop_files("orders", 300);
        let took = drive.until_delivered(300);
        let said = format!("{concurrency} slots, {latency} ms, {rounds:?}, {windows:?}: {took} ms");
        assert!(drive.server.refused <= 2, "{} refused; {said}", drive.server.refused);
        // What the last window's files need one after the other is the server's own time.
        let burst = 60_u64.div_ceil(concurrency as u64) * (latency + 2);
        assert!(took <= (24_000 + burst) * 105 / 100, "{said}");
        let paused =
            drive.changes.iter().any(|change| matches!(change, Change::DestinationPaused(..)));
        assert!(!paused, "a limit is no fault: {:?}", drive.changes);
    }
    for latency in [1, 5, 12, 30, 63, 70] {
        check(4, latency, Rounds::Up, Windows::AtFirst);
        check(16, latency, Rounds::Up, Windows::AtFirst);
        check(4, latency, Rounds::Down, Windows::AtFirst);
        check(4, latency, Rounds::Up, Windows::Aligned);
    }
}

#[test]
fn a_limit_is_said_once_and_not_for_each_file() {
    let mut drive = Drive::of_one(windowed(60, 6_000, 5), 4, PaceRules::default());
    drive.drop_files("orders", 300);
    drive.until_delivered(300);
    let rate = Rate { count: 60, per: SECOND * 6 };
    let place = destination("server.example");
    let waits = |change: &Change| matches!(change, Change::DestinationWaits(..));
    let paced = Change::DestinationPaced(place, rate);
    assert_eq!(drive.changes.iter().filter(|change| waits(change)).count(), 1);
    assert_eq!(drive.changes.iter().filter(|change| **change == paced).count(), 1);
    assert_eq!(drive.changes.len(), 2, "{:?}", drive.changes);
}

#[test]
fn a_refusal_costs_the_wait_that_the_server_asks_for_and_no_more() {
    let server = Server { tells_what_is_left: false, ..windowed(20, 10_000, 10) };
    let mut drive = Drive::of_one(server, 4, PaceRules::default());
    drive.drop_files("orders", 60);
    let took = drive.until_delivered(60);
    assert!((20_000..22_000).contains(&took), "{took} ms");
}

#[test]
fn a_refusal_without_a_word_about_how_long_is_probed_by_one_file() {
    let server =
        Server { tells_what_is_left: false, tells_the_wait: false, ..windowed(10, 20_000, 10) };
    let mut drive = Drive::of_one(server, 2, PaceRules::default());
    drive.drop_files("orders", 20);
    drive.until_delivered(20);
    let pauses =
        drive.changes.iter().filter(|change| matches!(change, Change::DestinationPaused(..)));
    assert!(pauses.count() >= 1);
    assert!(drive.server.refused < 12, "{}", drive.server.refused);
}

#[test]
fn a_given_rate_holds_in_every_window_and_is_used() {
    for (count, per, latency) in [(60, SECOND * 60, 200), (5, SECOND, 30), (10, SECOND * 2, 900)] {
        let rules = PaceRules { rate: Some(Rate { count, per }), ..PaceRules::default() };
        let mut drive = Drive::of_one(Server::new(latency), 16, rules);
        let files = 5 * count as usize;
        drive.drop_files("orders", files);
        let took = drive.until_delivered(files);
        let span = u64::try_from(per.as_millis()).expect("short");
        for first in &drive.server.seen {
            let seen = drive.server.seen.iter().filter(|at| (*first..first + span).contains(at));
            assert!(seen.count() <= count as usize, "more than {count} in {per:?}");
        }
        assert!(took <= 4 * (span + span / 20) + 2 * latency + span / 20, "{took} ms at {per:?}");
    }
}

#[test]
fn a_slow_server_is_used_with_all_slots_from_the_start() {
    for slots in [4_usize, 32] {
        let mut drive = Drive::of_one(Server::new(200), slots, PaceRules::default());
        let files = slots * 50;
        drive.drop_files("orders", files);
        let took = drive.until_delivered(files);
        let least = u64::try_from(files / slots).expect("few") * 200;
        assert!(took <= least * 11 / 10, "{took} ms, and {least} is possible");
    }
}

#[test]
fn a_server_that_bears_few_at_once_gets_about_so_many() {
    #[track_caller]
    fn check(capacity: usize, slots: usize, refuses_after: u64) {
        let server = Server { capacity, refuses_after, ..Server::new(100) };
        let mut drive = Drive::of_one(server, slots, PaceRules::default());
        let files = capacity * 100;
        drive.drop_files("orders", files);
        let took = drive.until_delivered(files);
        let crowded = drive.server.crowded;
        let said = format!("{capacity} of {slots} slots, refuses after {refuses_after} ms");
        assert!(crowded <= 2 * slots + files / 20, "{crowded} of {files} were too many; {said}");
        assert!(took <= 100 * 102 * 3 / 2, "{took} ms; {said}");
        let paused = |change: &&Change| matches!(change, Change::DestinationPaused(..));
        assert_eq!(drive.changes.iter().filter(paused).count(), 0, "{:?}; {said}", drive.changes);
    }
    for refuses_after in [1, 40, 100] {
        check(2, 16, refuses_after);
        check(5, 16, refuses_after);
        check(9, 16, refuses_after);
        check(20, 64, refuses_after);
    }
}

#[test]
fn when_the_trouble_ends_all_slots_are_used_again_within_tens_of_answers() {
    let server = Server { capacity: 3, ..Server::new(100) };
    let mut drive = Drive::of_one(server, 16, PaceRules::default());
    drive.drop_files("orders", 2_000);
    drive.until_delivered(300);
    drive.server.capacity = usize::MAX;
    drive.until_delivered(390);
    let most = |drive: &mut Drive| {
        let before = drive.server.seen.len();
        drive.until_delivered(drive.delivered.len() + 64);
        drive.server.seen.len() - before
    };
    let from = drive.scene.tick;
    most(&mut drive);
    let took = drive.scene.tick - from;
    assert!(took <= 64 / 16 * 102 * 5 / 4, "64 files in {took} ms");
}

#[test]
fn routes_of_one_destination_take_turns_under_a_pace() {
    let rules = PaceRules { rate: Some(Rate { count: 7, per: SECOND }), ..PaceRules::default() };
    let routes = [
        route("a", "server.example", 4),
        route("b", "server.example", 8),
        route("c", "server.example", 16),
    ];
    let mut drive = Drive::new(Server::new(20), &routes, rules);
    for name in ["a", "b", "c"] {
        drive.drop_files(name, 200);
    }
    drive.until_delivered(210);
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, id) in &drive.delivered {
        *shares.entry(drive.owners[id].as_str()).or_default() += 1;
    }
    assert!(
        shares.len() == 3 && shares.values().all(|share| (69..=71).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn priorities_share_the_turns_as_4_to_2_to_1_and_leave_nobody_out() {
    let rules = PaceRules { rate: Some(Rate { count: 7, per: SECOND }), ..PaceRules::default() };
    let of = |name, priority| Route { priority, ..route(name, "server.example", 8) };
    let routes = [of("a", Priority::Low), of("b", Priority::High), of("c", Priority::Normal)];
    let mut drive = Drive::new(Server::new(20), &routes, rules);
    for name in ["a", "b", "c"] {
        drive.drop_files(name, 400);
    }
    drive.until_delivered(210);
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, id) in &drive.delivered {
        *shares.entry(drive.owners[id].as_str()).or_default() += 1;
    }
    let near = |route: &str, turns: usize| shares[route].abs_diff(turns * 30) <= 4;
    assert!(near("a", 1) && near("b", 4) && near("c", 2), "{shares:?}");
}

#[test]
fn no_more_are_in_flight_than_the_destination_may_have() {
    let rules = PaceRules { concurrency: Some(3), ..PaceRules::default() };
    let routes = [route("a", "server.example", 4), route("b", "server.example", 4)];
    let mut drive = Drive::new(Server { capacity: 3, ..Server::new(50) }, &routes, rules);
    drive.drop_files("a", 40);
    drive.drop_files("b", 40);
    drive.until_delivered(80);
    assert_eq!(drive.server.crowded, 0);
}

#[test]
fn a_wait_beyond_the_longest_is_not_believed() {
    let rules = PaceRules { retry_after_max: SECOND * 5, ..PaceRules::default() };
    let mut drive = Drive::of_one(Server::new(1), 1, rules);
    let id = drive.scene.claim("orders", "a").expect("there is room");
    assert_eq!(drive.scene.attempts(), [id]);
    let mut refused = judged(Outcome::Deferred(Blame::Destination));
    refused.status = Some(429);
    refused.retry_after = Some(SECOND * 900);
    refused.allowance.reset_in = Some(SECOND * 900);
    let believed = drive.scene.schedule.believed(id, refused);
    assert_eq!(believed.retry_after, Some(SECOND * 5));
    assert_eq!(believed.allowance.reset_in, Some(SECOND * 5));
}

#[test]
fn files_that_wait_for_the_pace_are_told_until_when() {
    let rules =
        PaceRules { rate: Some(Rate { count: 1, per: SECOND * 60 }), ..PaceRules::default() };
    let mut drive = Drive::of_one(Server::new(1), 2, rules);
    let tick = Tick(drive.scene.tick);
    assert_eq!(drive.scene.schedule.paced_until(&name_of("orders"), tick), None);
    drive.drop_files("orders", 2);
    drive.until_delivered(1);
    let tick = Tick(drive.scene.tick);
    let until = drive.scene.schedule.paced_until(&name_of("orders"), tick);
    assert!(until.is_some_and(|until| until > tick.plus(SECOND * 59)), "{until:?}");
    assert_eq!(drive.scene.next_wake(), until, "and that is when it wakes");
}

#[test]
fn questions_share_the_pace_of_a_destination_that_no_route_sends_to() {
    let mut schedule = Schedule::new(WIDE);
    let rules =
        PaceRules { rate: Some(Rate { count: 2, per: SECOND * 10 }), ..PaceRules::default() };
    schedule.set_pace_rules(BTreeMap::from([(Arc::from("core.example"), rules)]));
    let scene = Scene::of_one(1);
    let (core, now) = (destination("core.example"), scene.now());
    let heard = Heard { status: Some(200), ..Heard::default() };
    for _ in 0..2 {
        assert_eq!(schedule.may_ask(&core, now.tick), Ok(()));
        assert_eq!(schedule.asked(&core, &heard, now), []);
    }
    let again = schedule.may_ask(&core, now.tick).expect_err("two in ten seconds");
    assert_eq!(again, now.tick.plus(SECOND * 10));
    assert_eq!(schedule.may_ask(&core, again), Ok(()));

    let other = destination("other.example");
    assert_eq!(schedule.may_ask(&other, now.tick), Ok(()));
    let refused = Heard {
        status: Some(429),
        retry_after: Some(SECOND * 7),
        allowance: Allowance { limit: Some(60), remaining: Some(0), reset_in: None },
        is_trouble: false,
    };
    schedule.asked(&other, &refused, now);
    assert_eq!(schedule.may_ask(&other, now.tick), Err(now.tick.plus(SECOND * 7)));
}

#[test]
fn a_start_that_never_answers_leaves_no_slot_taken() {
    let mut scene = Scene::of_one(1);
    let ids: BTreeSet<FileId> = scene.claim_many(2).into_iter().collect();
    let begun = scene.attempts();
    scene.schedule.stumbled(begun[0], Tick(scene.tick));
    let next: Vec<FileId> = scene.attempts();
    assert_eq!(next.len(), 1, "the other one has the slot now");
    assert!(ids.contains(&next[0]) && next[0] != begun[0]);
}
