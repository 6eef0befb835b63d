//! A soak: the real program at 200 files a second, two in a hundred of which meet a fault, for as long
//! as is asked for. What must stay flat is printed by quarters and judged: resident memory, open
//! files, the time from the drop to `sent/`.
//!
//!     cargo test --test soak -- --seconds 600
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a load of its own, with a clock and files")]
#![expect(clippy::unwrap_used, reason = "a surprise ends the run")]
#![expect(clippy::print_stdout, reason = "the figures are what the run is for")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use patchdrop::simulator::{Act, Match, Rule, SimulatorOptions};
use scene::{Plan, Scene, beat, files, names};

#[path = "../e2e/scene.rs"]
#[expect(dead_code, reason = "the end-to-end tests need all of it")]
mod scene;

/// Files that are dropped in a second.
const FILES_A_SECOND: u64 = 200;

/// How often files are dropped: so many at a time that the rate is kept.
const STROKE: Duration = Duration::from_millis(50);

/// Growth of resident memory from the second quarter to the last that may be chance.
const MEMORY_SLACK_KIB: u64 = 6 * 1_024;

/// The same for open files: connections come and go.
const HANDLES_SLACK: u64 = 16;

/// The same for the time that 99 of 100 files take.
const LATENCY_SLACK: Duration = Duration::from_millis(250);

/// What was seen of the process at one moment.
struct Sample {
    at: Duration,
    memory_kib: u64,
    handles: u64,
}

/// One quarter of the time.
#[derive(Debug, Default)]
struct Quarter {
    memory_kib: u64,
    handles: u64,
    files: usize,
    median: Duration,
    p99: Duration,
    worst: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments
        .iter()
        .position(|argument| argument == "--seconds")
        .and_then(|place| arguments.get(place + 1))
        .map_or(600, |text| text.parse().expect("--seconds takes a whole number"));
    let quarters = soak(Duration::from_secs(seconds));
    println!("quarter  memory KiB  handles   files   median      p99    worst");
    for (number, quarter) in quarters.iter().enumerate() {
        println!(
            "{:>7}  {:>10}  {:>7}  {:>6}  {:>4} ms  {:>4} ms  {:>4} ms",
            number + 1,
            quarter.memory_kib,
            quarter.handles,
            quarter.files,
            quarter.median.as_millis(),
            quarter.p99.as_millis(),
            quarter.worst.as_millis(),
        );
    }
    judge(&quarters)
}

/// The second quarter is the measure: in the first everything warms up.
fn judge(quarters: &[Quarter; 4]) -> ExitCode {
    let [_, second, _, last] = quarters;
    let mut faults = Vec::new();
    if last.memory_kib > second.memory_kib + second.memory_kib / 5 + MEMORY_SLACK_KIB {
        faults.push("memory grows");
    }
    if last.handles > second.handles + HANDLES_SLACK {
        faults.push("open files grow");
    }
    if last.p99 > second.p99 * 2 + LATENCY_SLACK {
        faults.push("files take ever longer");
    }
    if faults.is_empty() {
        println!("flat");
        return ExitCode::SUCCESS;
    }
    println!("NOT FLAT: {}", faults.join(", "));
    ExitCode::FAILURE
}

/// One file in a hundred finds the server busy at first, one in two hundred is not wanted, and one
/// in two hundred is answered late.
fn rules() -> Vec<Rule> {
    let rule = |text: &str, first, act| Rule {
        when: Match { contains: Some(text.to_owned()), ..Match::default() },
        first,
        act,
        ..Rule::default()
    };
    let answer = |status| Act::Answer { status, message: None, retry_after: None };
    vec![
        rule("\"busy\"", Some(1), answer(503)),
        rule("\"unwanted\"", None, answer(422)),
        rule("\"late\"", None, Act::Slow { millis: 300 }),
    ]
}

fn kind_of(number: u64) -> &'static str {
    match number % 200 {
        50 | 150 => "busy",
        100 => "unwanted",
        199 => "late",
        _ => "good",
    }
}

fn soak(span: Duration) -> [Quarter; 4] {
    let simulator = SimulatorOptions {
        rules: rules(),
        payloads_max: 0,
        token_uses_max: Some(5_000),
        ..SimulatorOptions::default()
    };
    let defaults = "concurrency = 16\n\
                    retry = { first = '200ms', factor = 2.0, max = '2s', give_up_after = '1h' }";
    let mut scene = Scene::of(Plan { defaults, simulator, ..Plan::default() });
    let pid = scene.start();
    let (began, mut dropped_at, mut samples) = (Instant::now(), Vec::new(), Vec::new());
    while began.elapsed() < span {
        let wanted = u64::try_from(began.elapsed().as_millis()).unwrap() * FILES_A_SECOND / 1_000;
        while (dropped_at.len() as u64) < wanted {
            let number = dropped_at.len() as u64;
            let body = format!("{{\"n\": {number}, \"is\": \"{}\"}}", kind_of(number));
            scene.drop_file(format!("{number}.json"), body);
            dropped_at.push(SystemTime::now());
        }
        let is_due = |last: &Sample| last.at + Duration::from_secs(1) <= began.elapsed();
        if samples.last().is_none_or(is_due) {
            samples.push(sample(pid, began.elapsed()));
        }
        beat(STROKE);
    }
    finish(&mut scene, &dropped_at);
    let mut quarters: [Quarter; 4] = Default::default();
    let quarter = span / 4;
    for sample in samples {
        let number = (sample.at.as_nanos() / quarter.as_nanos()).min(3) as usize;
        quarters[number].memory_kib = quarters[number].memory_kib.max(sample.memory_kib);
        quarters[number].handles = quarters[number].handles.max(sample.handles);
    }
    take_times(&scene, &dropped_at, &mut quarters);
    quarters
}

/// Everything comes to its right end.
fn finish(scene: &mut Scene, dropped_at: &[SystemTime]) {
    let inbox = scene.inbox();
    scene.until("all have come to an end", |_| {
        beat(Duration::from_millis(200));
        files(&inbox).is_empty() && names(&inbox.join("sending")).is_empty()
    });
    let unwanted = (0..dropped_at.len() as u64).filter(|number| kind_of(*number) == "unwanted");
    let unwanted = unwanted.count();
    let accepted = scene.sim.counts().accepted;
    assert_eq!(scene.stop(), Some(0));
    assert_eq!(names(&inbox.join("sent")).len(), dropped_at.len() - unwanted);
    assert_eq!(names(&inbox.join("failed")).len(), unwanted * 2, "each with its sidecar");
    assert_eq!(names(&inbox.join("held")), [""; 0]);
    assert_eq!(accepted, (dropped_at.len() - unwanted) as u64, "each was sent once");
    scene.verify();
}

/// The time of a file's last rename is that of its move into `sent/`.
fn take_times(scene: &Scene, dropped_at: &[SystemTime], quarters: &mut [Quarter; 4]) {
    let sent = scene.inbox().join("sent");
    let size = dropped_at.len().div_ceil(4).max(1);
    for (quarter, (part, times)) in quarters.iter_mut().zip(dropped_at.chunks(size).enumerate()) {
        let mut took = Vec::new();
        for (place, dropped_at) in times.iter().enumerate() {
            let path = sent.join(format!("{}.json", part * size + place));
            let Ok(found) = fs::symlink_metadata(path) else { continue };
            let moved_at = SystemTime::UNIX_EPOCH
                + Duration::new(
                    u64::try_from(found.ctime()).unwrap(),
                    u32::try_from(found.ctime_nsec()).unwrap(),
                );
            took.push(moved_at.duration_since(*dropped_at).unwrap_or_default());
        }
        took.sort();
        quarter.files = took.len();
        let at = |share: usize| took.get((took.len() * share / 100).min(took.len() - 1)).copied();
        quarter.median = at(50).unwrap_or_default();
        quarter.p99 = at(99).unwrap_or_default();
        quarter.worst = took.last().copied().unwrap_or_default();
    }
}

fn sample(pid: u32, at: Duration) -> Sample {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory_kib = resident.trim().trim_end_matches(" kB").trim().parse().unwrap();
    let handles = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    Sample { at, memory_kib, handles }
}
