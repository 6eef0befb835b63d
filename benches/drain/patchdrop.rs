//! One round of `patchdrop run --once` on a prepared folder, and what it costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::prepare::DropFolder;
use crate::sink::{Sink, TOKEN_PATH};
use crate::{Options, Outcome, Round, count};

/// The binary under test.
pub(crate) struct Program {
    path: PathBuf,
}

impl Program {
    /// The one that Cargo built beside this bench, with the same profile.
    pub(crate) fn built() -> Self {
        Self::at(env!("CARGO_BIN_EXE_patchdrop").into())
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }
}

/// What one drain took.
pub(crate) struct Drain {
    /// From the start of the process to its end.
    pub(crate) whole: Round,
    /// The same less what a drain of an empty folder takes.
    pub(crate) net: Round,
    /// User and system time of the process.
    pub(crate) cpu: Duration,
    /// Largest resident size; `None` where the system does not say.
    pub(crate) memory_peak_bytes: Option<u64>,
}

/// One timed drain, checked: every file arrived once and lies in `sent/`.
pub(crate) fn round(program: &Program, sink: &Sink, options: &Options) -> Outcome<Drain> {
    let empty = DropFolder::prepare(0)?;
    let start = run_once(Command::new(&program.path), &empty, sink, options)?;

    let drop_folder = DropFolder::prepare(options.files)?;
    let before = sink.seen();
    let cost = run_once(Command::new(&program.path), &drop_folder, sink, options)?;
    drop_folder.check_drained()?;
    sink.check_since(before, options.files)?;

    let round = |took| Round { took, files: options.files };
    let net = cost.took.saturating_sub(start.took).max(Duration::from_micros(1));
    Ok(Drain {
        whole: round(cost.took),
        net: round(net),
        cpu: cost.cpu,
        memory_peak_bytes: cost.memory_peak_bytes,
    })
}

/// Counts fsyncs in a drain of its own, untimed, under `strace`, which stops the process for the
/// counted calls alone. `None` where there is no strace.
pub(crate) fn fsyncs_per_1000(
    program: &Program,
    sink: &Sink,
    options: &Options,
) -> Outcome<Option<f64>> {
    let has_strace = Command::new("strace")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_strace {
        return Ok(None);
    }
    let drop_folder = DropFolder::prepare(options.files)?;
    let calls = drop_folder.path().join("calls.txt");
    let mut command = Command::new("strace");
    command
        .args(["-f", "--seccomp-bpf", "-qq", "--signal=none"])
        .args(["--trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync", "--output"])
        .arg(&calls)
        .arg(&program.path);
    run_once(command, &drop_folder, sink, options)?;
    drop_folder.check_drained()?;
    let calls = fs::read_to_string(calls)?;
    // A call that another thread interrupted is written as "unfinished" and "resumed".
    let number = calls.lines().filter(|line| !line.contains(" resumed>")).count();
    Ok(Some(count(number) * 1000.0 / count(options.files)))
}

struct Cost {
    took: Duration,
    cpu: Duration,
    memory_peak_bytes: Option<u64>,
}

/// Runs `COMMAND run --once --config FILE` to its end.
fn run_once(
    mut command: Command,
    drop_folder: &DropFolder,
    sink: &Sink,
    options: &Options,
) -> Outcome<Cost> {
    let config = drop_folder.path().join("config.toml");
    fs::write(&config, config_text(drop_folder, sink, options))?;
    let log = drop_folder.path().join("patchdrop.log");
    command
        .args(["run", "--once", "--config"])
        .arg(&config)
        .env("PATCHDROP_BENCH_SECRET", "bench-secret")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let (took, cpu, memory_peak_bytes) = observe(&child, started);
    let status = child.wait()?;
    let took = took.unwrap_or_else(|| started.elapsed());
    if status.success() {
        return Ok(Cost { took, cpu: cpu.unwrap_or_default(), memory_peak_bytes });
    }
    let said = last_lines(&log)?;
    Err(format!("`patchdrop run --once` ended with {status}; it said:\n{said}").into())
}

/// Waits for the end without reaping the child, so that its times can still be read; meanwhile
/// looks now and then at its largest resident size.
#[cfg(target_os = "linux")]
fn observe(child: &Child, started: Instant) -> (Option<Duration>, Option<Duration>, Option<u64>) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    /// Often enough to catch the peak, which only grows, shortly before the end.
    const LOOK_EVERY: Duration = Duration::from_millis(20);

    let pid = Pid::from_child(child);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let (ended, end) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let result = waitid(WaitId::Pid(pid), options);
        ended.send(Instant::now()).ok();
        result
    });
    let mut peak = None;
    let ended_at = loop {
        peak = status_bytes(child.id(), "VmHWM:").max(peak);
        match end.recv_timeout(LOOK_EVERY) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Ok(at) => break Some(at),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break None,
        }
    };
    let is_waited = waiter.join().is_ok_and(|result| result.is_ok());
    let took = ended_at.filter(|_| is_waited).map(|at| at.duration_since(started));
    (took, cpu_time(child.id()), peak)
}

#[cfg(not(target_os = "linux"))]
fn observe(_: &Child, _: Instant) -> (Option<Duration>, Option<Duration>, Option<u64>) {
    (None, None, None)
}

/// A size from `/proc/PID/status`, which counts in KiB.
#[cfg(target_os = "linux")]
fn status_bytes(pid: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// `USER_HZ`, the same on every Linux that we build for.
#[cfg(target_os = "linux")]
const TICKS_PER_S: u64 = 100;

/// User and system time of a process that has ended and is not reaped yet.
#[cfg(target_os = "linux")]
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
}

/// The user's defaults, but for where things are and how many connections there may be.
fn config_text(drop_folder: &DropFolder, sink: &Sink, options: &Options) -> String {
    let (address, connections) = (sink.address(), options.connections);
    format!(
        "root      = '{root}'\n\
         state_dir = '{state}'\n\
         company   = 'bench'\n\
         base_url  = 'http://{address}/v1'\n\
         \n\
         [credential.inbound]\n\
         kind          = 'oauth2'\n\
         token_url     = 'http://{address}{TOKEN_PATH}'\n\
         client_id     = 'bench'\n\
         client_secret = {{ env = 'PATCHDROP_BENCH_SECRET' }}\n\
         \n\
         [defaults]\n\
         concurrency = {connections}\n",
        root = drop_folder.root().display(),
        state = drop_folder.path().join("state").display(),
    )
}

fn last_lines(log: &Path) -> Outcome<String> {
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(20)..].join("\n"))
}
