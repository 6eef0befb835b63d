//! How close patchdrop comes to what a server allows: a limit that the server tells of, and slots
//! that a server with latency leaves.
//!
//! Two runs of `patchdrop run --once` against the simulator on loopback, each timed from the first
//! request that arrives to the last file that is accepted, and told as a ratio to the least time
//! that is possible.
//!
//! `cargo bench --bench pace`; `cargo bench --bench pace -- --help` for more.
#![expect(clippy::disallowed_methods, reason = "a bench prepares and measures real files")]
#![expect(clippy::print_stdout, reason = "the figures are for a person")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use patchdrop::simulator::{Door, DoorSeen, Simulator, SimulatorOptions};
use tempfile::TempDir;

const USAGE: &str = "\
usage: cargo bench --bench pace -- [OPTIONS]
  --windows N   windows of the limit that the files fill (5)
  --files N     files for the server with latency (400)
  --enforce     exit 1 above 2 refusals, 1.05 of the limit's time or below 0.90 of the slots'";

/// What the server allows: so many in a window.
const LIMIT: u32 = 60;
const WINDOW: Duration = Duration::from_secs(6);

/// The other server: no limit, but every answer is late.
const LATENCY: Duration = Duration::from_millis(200);
const CONCURRENCY: u32 = 8;

/// More refusals than this would be provoked ones: one tells of the limit, one of the window.
const REFUSALS_MAX: u64 = 2;
const OVER_LIMIT_MAX: f64 = 1.05;
const OF_SLOTS_MIN: f64 = 0.90;

/// Only a run that hangs takes as long as this.
const GUARD: Duration = Duration::from_mins(5);
/// Between two looks at what the simulator has seen.
const LOOK_EVERY: Duration = Duration::from_millis(2);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Options {
    windows: u32,
    files: u32,
    is_enforced: bool,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1))
        .and_then(|options| options.as_ref().map_or(Ok(true), run))
    {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(2)
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Outcome<Option<Options>> {
    let mut options = Options { windows: 5, files: 400, is_enforced: false };
    while let Some(word) = words.next() {
        let mut number = || -> Outcome<u32> {
            Ok(words.next().ok_or_else(|| format!("{word} wants a number"))?.parse()?)
        };
        match word.as_str() {
            "--windows" => options.windows = number()?.max(1),
            "--files" => options.files = number()?.max(1),
            "--enforce" => options.is_enforced = true,
            // Cargo itself says this.
            "--bench" => {}
            "--help" => {
                println!("{USAGE}");
                return Ok(None);
            }
            other => return Err(format!("{other} is no option\n{USAGE}").into()),
        }
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Outcome<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let files = options.windows * LIMIT;
    let limited = SimulatorOptions { rate: Some((LIMIT, WINDOW)), ..SimulatorOptions::default() };
    let drain = drain(&runtime, limited, files, 16)?;
    let least = WINDOW * (options.windows - 1);
    let over = drain.took.as_secs_f64() / least.as_secs_f64().max(f64::EPSILON);
    println!(
        "limit    {files} files at {LIMIT} in {} s: {:.2} s, {over:.3} of the least possible {} s; \
         {} refusals",
        WINDOW.as_secs(),
        drain.took.as_secs_f64(),
        least.as_secs(),
        drain.refusals,
    );
    let is_in_time = options.windows < 2 || over <= OVER_LIMIT_MAX;
    let keeps_limit = drain.refusals <= REFUSALS_MAX && is_in_time;

    let late = SimulatorOptions { latency: LATENCY, ..SimulatorOptions::default() };
    let drain = self::drain(&runtime, late, options.files, CONCURRENCY)?;
    let least = LATENCY.mul_f64(f64::from(options.files) / f64::from(CONCURRENCY));
    let of_slots = least.as_secs_f64() / drain.took.as_secs_f64();
    println!(
        "latency  {} files, {} ms, {CONCURRENCY} slots: {:.1} files/s, {of_slots:.3} of slots / latency",
        options.files,
        LATENCY.as_millis(),
        f64::from(options.files) / drain.took.as_secs_f64(),
    );
    let fills_slots = of_slots >= OF_SLOTS_MIN;
    Ok(!options.is_enforced || keeps_limit && fills_slots)
}

struct Drain {
    took: Duration,
    refusals: u64,
}

fn drain(
    runtime: &tokio::runtime::Runtime,
    options: SimulatorOptions,
    files: u32,
    concurrency: u32,
) -> Outcome<Drain> {
    let simulator = runtime.block_on(Simulator::start(options))?;
    let folder = prepare(&simulator, files, concurrency)?;
    let mut program = Running(
        Command::new(env!("CARGO_BIN_EXE_patchdrop"))
            .arg("--config")
            .arg(folder.path().join("config.toml"))
            .args(["run", "--once"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?,
    );
    let started = Instant::now();
    let mut first = None;
    loop {
        let inbound = inbound(&simulator);
        let now = Instant::now();
        let began = (inbound.requests > 0).then(|| *first.get_or_insert(now));
        let accepted = inbound.by_status.get(&200).copied().unwrap_or(0);
        if let Some(began) = began.filter(|_| accepted >= u64::from(files)) {
            let status = program.0.wait()?;
            if !status.success() {
                return Err(format!("patchdrop ended with {status}").into());
            }
            let sent = fs::read_dir(folder.path().join("root/orders/sent"))?.count();
            if sent != usize::try_from(files)? || accepted != u64::from(files) {
                return Err(format!("{accepted} accepted, {sent} in sent/, of {files}").into());
            }
            return Ok(Drain { took: now - began, refusals: inbound.throttled() });
        }
        if started.elapsed() > GUARD {
            return Err(format!("{accepted} of {files} after {} s", GUARD.as_secs()).into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn inbound(simulator: &Simulator) -> DoorSeen {
    simulator.counts().doors.get(&Door::Inbound).cloned().unwrap_or_default()
}

/// A program that does not outlive the bench.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None))
            && let Err(error) = self.0.kill()
        {
            eprintln!("patchdrop did not end: {error}");
        }
    }
}

fn prepare(simulator: &Simulator, files: u32, concurrency: u32) -> Outcome<TempDir> {
    let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&parent)?;
    let folder = TempDir::with_prefix_in("pace-", parent)?;
    let inbox = folder.path().join("root/orders");
    fs::create_dir_all(&inbox)?;
    for number in 0..files {
        fs::write(inbox.join(format!("order-{number:05}.json")), format!("{{\"n\": {number}}}"))?;
    }
    fs::write(folder.path().join("secret"), "demo-secret")?;
    let config = format!(
        "root = 'root'\ncompany = 'demo'\nbase_url = '{}'\nstate_dir = 'state'\n\
         [credential.inbound]\nkind = 'oauth2'\ntoken_url = '{}'\nclient_id = 'demo-client'\n\
         client_secret = {{ file = 'secret' }}\n[log]\nlevel = 'error'\n\
         [defaults]\nconcurrency = {concurrency}\n",
        simulator.base_url(),
        simulator.token_url(),
    );
    fs::write(folder.path().join("config.toml"), config)?;
    Ok(folder)
}
