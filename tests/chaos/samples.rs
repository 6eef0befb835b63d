//! Killed at single writes of the ledger, and killed again while it recovers from a kill. There are
//! too many such moments to try them all each time: a sample of them is tried, or all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cuts::{ACCEPTED, Disk, Run, SECOND_TRY, Story, Way, run};
use super::dice::{Dice, seed};
use super::forgetful::trap::{Counted, Moment};
use super::scene::scale;

/// Runs of a sample.
const RUNS: u64 = 40;

/// What is killed where, out of all that there is. `PATCHDROP_CHAOS_SAMPLE=0` stands for all.
fn sample<T>(mut all: Vec<T>, dice: &mut Dice) -> Vec<T> {
    let runs = scale("PATCHDROP_CHAOS_SAMPLE", RUNS) as usize;
    if runs == 0 {
        return all;
    }
    let mut chosen = Vec::with_capacity(runs);
    while chosen.len() < runs && !all.is_empty() {
        chosen.push(all.swap_remove(dice.below(all.len() as u64) as usize));
    }
    chosen
}

/// How many operations a story is long when nothing is killed.
fn length(story: &Story, counted: Counted, dice: &mut Dice) -> u64 {
    let at = (u64::MAX, Moment::Before);
    let way = Way { counted, at, disk_does: Disk::Keeps, again: None, is_deaf: false };
    run(story, way, dice).operations
}

fn tried(story: &Story, way: Way, dice: &mut Dice) -> Run {
    let ended = catch_unwind(AssertUnwindSafe(|| run(story, way, dice)));
    ended.unwrap_or_else(|_| panic!("story {:?}, {way:?}", story.name))
}

#[test]
fn a_file_survives_a_kill_or_a_power_cut_at_a_single_write_of_the_ledger() {
    let mut dice = Dice::new(seed());
    for story in [&ACCEPTED, &SECOND_TRY] {
        let writes = length(story, Counted::Ledger, &mut dice);
        assert!(writes > 20, "only {writes} writes and syncs of the ledger were seen");
        let disks = [Disk::Keeps, Disk::Forgets, Disk::ForgetsSome];
        let all = (1..=writes).flat_map(|n| disks.map(|disk| (n, disk))).collect();
        let (mut runs, mut kills) = (0, 0);
        for (n, disk_does) in sample(all, &mut dice) {
            // Before one is after another, except for the last.
            let at = (n, if n == writes { Moment::After } else { Moment::Before });
            let way = Way { counted: Counted::Ledger, at, disk_does, again: None, is_deaf: false };
            runs += 1;
            kills += u64::from(tried(story, way, &mut dice).killed_at.is_some());
        }
        println!("{}: {writes} writes of the ledger, {runs} runs, {kills} kills", story.name);
        // How many commits there are depends on what comes together.
        assert!(kills > runs / 2, "only {kills} of {runs} were killed");
    }
}

#[test]
fn a_file_survives_a_second_kill_or_cut_while_it_recovers_from_the_first() {
    let mut dice = Dice::new(seed());
    for story in [&ACCEPTED, &SECOND_TRY] {
        let steps = length(story, Counted::Steps, &mut dice);
        let disks = [Disk::Keeps, Disk::Forgets, Disk::ForgetsSome];
        let pairs = (1..=steps).flat_map(|n| (1..=steps).map(move |m| (n, m)));
        let all = pairs.flat_map(|(n, m)| disks.map(|disk| (n, m, disk))).collect();
        let (mut runs, mut kills) = (0, 0);
        for (n, m, disk_does) in sample(all, &mut dice) {
            let again = Some((m, Moment::Before));
            let at = (n, Moment::Before);
            let way = Way { counted: Counted::Steps, at, disk_does, again, is_deaf: false };
            runs += 1;
            kills += u64::from(tried(story, way, &mut dice).killed_again_at.is_some());
        }
        println!("{}: {steps} steps, {runs} runs, {kills} killed twice", story.name);
        // A recovery may be shorter than what it recovers.
        assert!(kills > runs / 4, "only {kills} of {runs} were killed twice");
    }
}
