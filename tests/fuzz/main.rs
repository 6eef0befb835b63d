//! Garbage for everything that reads what others wrote: no panic, no hang, bounded memory. Each
//! target runs for a while, not for a number of cases; what it finds is shrunk and printed.
//!
//! `PATCHDROP_FUZZ_SECONDS` is the time of each target, 4 if not given.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may touch files and the clock, and end where something is not as they claim"
)]

use std::cell::Cell;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

mod answers;
mod records;
mod texts;

/// One case that takes longer hangs.
const CASE_MAX: Duration = Duration::from_secs(10);

/// The most resident memory, in KiB, that the whole run may ever take.
const MEMORY_MAX_KIB: u64 = 1_024 * 1_024;

/// Tries cases until the time is over.
fn fuzz<S>(strategy: S, mut try_one: impl FnMut(S::Value))
where
    S: Strategy,
    S::Value: Debug,
{
    let seconds = std::env::var("PATCHDROP_FUZZ_SECONDS").map_or(4, |text| text.parse().unwrap());
    let (began, budget) = (Instant::now(), Duration::from_secs(seconds));
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let cases = Cell::new(0_u64);
    let try_one = std::cell::RefCell::new(&mut try_one);
    while began.elapsed() < budget {
        let ended = runner.run(&strategy, |value| {
            let case_began = Instant::now();
            (try_one.borrow_mut())(value);
            cases.set(cases.get() + 1);
            prop_assert!(case_began.elapsed() < CASE_MAX, "it hangs");
            Ok(())
        });
        if let Err(error) = ended {
            panic!("{error}");
        }
    }
    assert!(cases.get() > 50, "only {} cases in {seconds} s", cases.get());
    assert!(peak_kib() < MEMORY_MAX_KIB, "{} KiB of memory", peak_kib());
}

#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[cfg(not(target_os = "linux"))]
fn peak_kib() -> u64 {
    0
}

/// A text with parts of it removed, doubled, or replaced by others.
fn mutated(text: Vec<u8>, others: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<u16>(), 0_usize..24, 0_usize..=others.len(), any::<[u8; 3]>());
    prop::collection::vec(edit, 0..6).prop_map(move |edits| {
        let mut text = text.clone();
        for (at, removed, other, noise) in edits {
            let at = usize::from(at) % (text.len() + 1);
            let end = (at + removed).min(text.len());
            let put = others.get(other).copied().unwrap_or(&noise);
            text.splice(at..end, put.iter().copied());
        }
        text
    })
}
