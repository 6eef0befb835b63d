//! A server that misbehaves and SIGKILL at random moments, round after round.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use patchdrop::simulator::{Act, Match, Per, Rule, SimulatorOptions};

use super::dice::{Dice, seed};
use super::judge::{Dropped, Judgement, UNWANTED, in_folder, judge, rest, unfinished};
use super::scene::{Plan, Scene, beat, scale};

/// Rounds of all scenes together.
const ROUNDS: u64 = 200;

/// Scenes at a time; most of a round is waiting.
const SCENES: u64 = 4;

/// Files that are dropped in a round.
const FILES_A_ROUND: u64 = 16;

/// How many files may be waiting at the beginning of a round. The others would make every round
/// longer than the one before.
const UNFINISHED_MAX: usize = 60;

/// A wait for acceptances that do not come ends here, with a kill all the same.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What was seen of the kills.
#[derive(Default)]
struct Kills {
    killed: u64,
    /// Files that the server had accepted and that still lay in `sending/` after the kill.
    between_acceptance_and_move: u64,
}

struct Chaos {
    scene: Scene,
    dice: Dice,
    dropped: Dropped,
    kills: Kills,
    may_resend: bool,
}

#[test]
fn whatever_the_server_does_and_whenever_it_is_killed_nothing_is_lost_or_sent_twice() {
    let rounds = scale("PATCHDROP_CHAOS_ROUNDS", ROUNDS);
    let seed = seed();
    let began = Instant::now();
    let scenes: Vec<_> = (0..SCENES)
        .map(|number| {
            let rounds = rounds / SCENES + u64::from(number < rounds % SCENES);
            std::thread::spawn(move || {
                let mut chaos = Chaos::new(number % 2 == 1, Dice::new(seed.wrapping_add(number)));
                for _ in 0..rounds {
                    chaos.round();
                }
                chaos.end()
            })
        })
        .collect();
    let ended: Vec<(Kills, Judgement)> = scenes
        .into_iter()
        .map(|scene| scene.join().unwrap_or_else(|_| panic!("PATCHDROP_CHAOS_SEED={seed}")))
        .collect();
    let sum = |of: fn(&(Kills, Judgement)) -> u64| ended.iter().map(of).sum::<u64>();
    let killed = sum(|(kills, _)| kills.killed);
    let between = sum(|(kills, _)| kills.between_acceptance_and_move);
    let doubts = sum(|(_, judgement)| judgement.doubts as u64);
    println!(
        "{rounds} rounds in {} s: killed {killed} times; {doubts} attempts in doubt; {between} kills \
         between acceptance and move",
        began.elapsed().as_secs()
    );
    for (number, (_, judgement)) in ended.iter().enumerate() {
        println!("scene {number}: {judgement:?}");
    }
    assert_eq!(killed, rounds, "a round in which nothing was killed shows nothing");
    assert!(doubts > 0, "no attempt was ever in doubt");
    assert!(between > 0, "no kill hit a file between its acceptance and its move");
}

impl Chaos {
    fn new(may_resend: bool, dice: Dice) -> Self {
        let defaults = if may_resend {
            "concurrency = 6\nin_doubt = 'resend'\ntimeout = '700ms'\n\
             retry = { first = '20ms', factor = 1.5, max = '150ms', give_up_after = '1h' }"
        } else {
            "concurrency = 6\nin_doubt = 'hold'\ntimeout = '700ms'\n\
             retry = { first = '20ms', factor = 1.5, max = '150ms', give_up_after = '1h' }"
        };
        let simulator = SimulatorOptions {
            keep_bodies: true,
            token_uses_max: Some(40),
            latency: Duration::from_millis(8),
            rules: rules(None),
            ..SimulatorOptions::default()
        };
        let scene = Scene::of(Plan { defaults, simulator, ..Plan::default() });
        Self { scene, dice, dropped: Dropped::new(), kills: Kills::default(), may_resend }
    }

    fn drop_one(&mut self) {
        let number = self.dropped.len();
        let pad = "x".repeat(self.dice.below(3_000) as usize);
        let what = if self.dice.below(25) == 0 { UNWANTED } else { "wanted" };
        let body = format!("{{\"n\": {number}, \"is\": \"{what}\", \"pad\": \"{pad}\"}}");
        let name = format!("{number}.json");
        self.scene.drop_file(&name, &body);
        self.dropped.insert(body.into_bytes(), name);
    }

    fn round(&mut self) {
        let mood = mood(&mut self.dice);
        self.scene.sim.set_rules(rules(mood));
        if self.dice.below(6) == 0 {
            self.scene.sim.revoke_tokens();
        }
        let before = self.dice.below(FILES_A_ROUND);
        let room = unfinished(&self.scene) < UNFINISHED_MAX;
        for _ in 0..if room { before } else { 0 } {
            self.drop_one();
        }
        let accepted = self.scene.sim.counts().accepted;
        self.scene.launch();
        for _ in 0..if room { FILES_A_ROUND - before } else { 0 } {
            self.drop_one();
        }
        if self.dice.below(4) == 0 {
            beat(Duration::from_micros(self.dice.below(600_000)));
        } else {
            let awaited = accepted + self.dice.within(1, 5);
            let since = Instant::now();
            while self.scene.sim.counts().accepted < awaited && since.elapsed() < PATIENCE {
                beat(Duration::from_micros(300));
            }
            beat(Duration::from_micros(self.dice.below(12_000)));
        }
        // A kill over nothing would show nothing.
        while unfinished(&self.scene) < 4 {
            self.drop_one();
        }
        assert!(self.scene.is_up(), "it ended by itself\n{}", self.scene.story());
        self.scene.kill();
        self.look();
    }

    /// Where the kill has hit.
    fn look(&mut self) {
        if unfinished(&self.scene) > 0 {
            self.kills.killed += 1;
        }
        if self.may_resend {
            // What waits in `sending/` to be sent again may have been accepted long ago.
            return;
        }
        let accepted: BTreeSet<String> = self.scene.arrivals().into_keys().collect();
        let between = in_folder(&self.scene, "sending").into_iter().any(|name| {
            name.split_once('~').is_some_and(|(_, dropped_as)| accepted.contains(dropped_as))
        });
        self.kills.between_acceptance_and_move += u64::from(between);
    }

    fn end(mut self) -> (Kills, Judgement) {
        self.scene.sim.set_rules(rules(None));
        self.scene.start();
        rest(&self.scene, &self.dropped);
        assert_eq!(self.scene.stop(), Some(0));
        let judgement = judge(&self.scene, &self.dropped, self.may_resend);
        (self.kills, judgement)
    }
}

/// One rule for what the server never wants, and one for its mood.
fn rules(mood: Option<Rule>) -> Vec<Rule> {
    let unwanted = Rule {
        when: Match { contains: Some(UNWANTED.to_owned()), ..Match::default() },
        act: Act::Answer { status: 422, message: None, retry_after: None },
        ..Rule::default()
    };
    [unwanted].into_iter().chain(mood).collect()
}

/// What goes wrong in a round, and how often.
fn mood(dice: &mut Dice) -> Option<Rule> {
    let answer = |status, retry_after| Act::Answer { status, message: None, retry_after };
    let (act, most) = match dice.below(12) {
        0 => (answer(503, None), 12),
        1 => (answer(500, None), 4),
        2 => (answer(429, Some(1)), 2),
        3 => (Act::AnswerEarly { status: 503 }, 4),
        4 => (Act::CutMidBody, 6),
        5 => (Act::StoreThenCut, 4),
        6 => (Act::StoreThenAnswer { status: 504 }, 4),
        7 => (Act::StoreThenHang, 3),
        8 => (Act::Hang, 3),
        9 => (Act::HangUnread, 3),
        10 => (Act::Slow { millis: 60 }, 100),
        _ => return None,
    };
    let first = Some(dice.within(1, most));
    Some(Rule { when: Match::default(), first, per: Per::All, act })
}
