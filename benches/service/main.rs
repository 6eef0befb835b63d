//! What a service costs that has nothing to do: its size, how soon it is ready, and the processor
//! time of a quiet minute.
//!
//! The program itself runs on an empty root and on one with many routes, and tells a socket of ours
//! by the notify protocol when it is ready.
//!
//! `cargo bench --bench service`; `cargo bench --bench service -- --help` for more.
#![expect(clippy::disallowed_methods, reason = "a bench prepares and measures real files")]
#![expect(clippy::print_stdout, reason = "the figures are for a person")]

use std::process::ExitCode;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(2)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn run() -> Outcome<bool> {
    println!("not measured: this bench reads /proc");
    Ok(true)
}

#[cfg(target_os = "linux")]
fn run() -> Outcome<bool> {
    linux::run(std::env::args().skip(1))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::os::unix::net::UnixDatagram;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::Outcome;

    const USAGE: &str = "\
usage: cargo bench --bench service -- [OPTIONS]
  --rounds N    starts that are timed (11)
  --routes N    routes of the quiet service (100)
  --seconds N   how long it is watched (60)
  --enforce     exit 1 above 15 MB, 100 ms to be ready, or 50 ms of processor time a minute";

    const PROGRAM: &str = env!("CARGO_BIN_EXE_patchdrop");

    const SIZE_MAX: u64 = 15_000_000;
    const READY_WITHIN: Duration = Duration::from_millis(100);
    const CPU_A_MINUTE_MAX: Duration = Duration::from_millis(50);

    /// What comes after the start, such as the first sweeps, is no part of a quiet minute.
    const AFTER_START: Duration = Duration::from_secs(15);
    /// Only a start that hangs takes as long as this.
    const GUARD: Duration = Duration::from_mins(1);
    /// `USER_HZ`, the same on every Linux that we build for.
    const TICKS_PER_S: u64 = 100;

    struct Options {
        rounds: usize,
        routes: usize,
        seconds: u64,
        is_enforced: bool,
    }

    pub(super) fn run(words: impl Iterator<Item = String>) -> Outcome<bool> {
        let Some(options) = options(words)? else { return Ok(true) };
        let size = fs::metadata(PROGRAM)?.len();
        println!("size of the program    {:.1} MB", to_f64(size) / 1e6);

        let (mut first, mut again) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds.max(1) {
            let place = Place::with_routes(0)?;
            for times in [&mut first, &mut again] {
                let service = place.start()?;
                times.push(service.ready_after);
                service.stop()?;
            }
        }
        let ready = shown("first start to ready   ", first);
        let ready = shown("next start to ready    ", again).max(ready);

        let place = Place::with_routes(options.routes)?;
        let service = place.start()?;
        std::thread::sleep(AFTER_START);
        let before = cpu_time(service.child.id())?;
        std::thread::sleep(Duration::from_secs(options.seconds));
        let cpu = cpu_time(service.child.id())?.saturating_sub(before);
        service.stop()?;
        println!(
            "{} s with {} routes and no file: {} ms of processor time",
            options.seconds,
            options.routes,
            cpu.as_millis()
        );

        let within = [
            (size < SIZE_MAX, "the program is too large"),
            (ready < READY_WITHIN, "it is ready too late"),
            // Shorter looks are for the eye: the kernel counts in hundredths of a second.
            (options.seconds != 60 || cpu <= CPU_A_MINUTE_MAX, "it does too much while quiet"),
        ];
        for (_, fault) in within.iter().filter(|(is_met, _)| options.is_enforced && !is_met) {
            println!("{fault}");
        }
        Ok(!options.is_enforced || within.iter().all(|(is_met, _)| *is_met))
    }

    fn options(mut words: impl Iterator<Item = String>) -> Outcome<Option<Options>> {
        let mut options = Options { rounds: 11, routes: 100, seconds: 60, is_enforced: false };
        while let Some(word) = words.next() {
            let mut number =
                || words.next().ok_or_else(|| format!("{word} wants a number: {USAGE}"));
            match word.as_str() {
                "--rounds" => options.rounds = number()?.parse()?,
                "--routes" => options.routes = number()?.parse()?,
                "--seconds" => options.seconds = number()?.parse()?,
                "--enforce" => options.is_enforced = true,
                // Cargo itself says this.
                "--bench" => {}
                "--help" => {
                    println!("{USAGE}");
                    return Ok(None);
                }
                _ => return Err(format!("{word} is not known\n{USAGE}").into()),
            }
        }
        Ok(Some(options))
    }

    /// A folder with a config, a root and what becomes of them.
    struct Place {
        folder: TempDir,
    }

    struct Service {
        child: Child,
        ready_after: Duration,
    }

    impl Place {
        fn with_routes(number: usize) -> Outcome<Self> {
            let folder = tempfile::tempdir()?;
            let root = folder.path().join("root");
            fs::create_dir(&root)?;
            for route in 1..=number {
                fs::create_dir(root.join(format!("route-{route}")))?;
            }
            // Nothing listens there, and nothing is sent.
            let config = "root = 'root'\nstate_dir = 'state'\ncompany = 'bench'\n\
                 base_url = 'http://127.0.0.1:9/v1'\n\n\
                 [credential.inbound]\nkind = 'bearer'\ntoken = { env = 'PATCHDROP_BENCH_TOKEN' }\n";
            fs::write(folder.path().join("config.toml"), config)?;
            Ok(Self { folder })
        }

        /// Starts the service and waits until it says that it is ready.
        fn start(&self) -> Outcome<Service> {
            let address = self.folder.path().join("notify");
            fs::remove_file(&address).ok();
            let socket = UnixDatagram::bind(&address)?;
            socket.set_read_timeout(Some(GUARD))?;
            let log = fs::File::create(self.folder.path().join("log"))?;
            let mut command = Command::new(PROGRAM);
            command
                .arg("--config")
                .arg(self.folder.path().join("config.toml"))
                .args(["run", "--allow-root"])
                .env("NOTIFY_SOCKET", &address)
                .env("PATCHDROP_BENCH_TOKEN", "bench-token")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            let began = Instant::now();
            let child = command.spawn()?;
            let mut service = Service { child, ready_after: Duration::ZERO };
            let mut message = [0; 4096];
            loop {
                let length = socket.recv(&mut message).map_err(|error| {
                    let log = fs::read_to_string(self.folder.path().join("log"));
                    format!("never ready ({error}): {}", log.unwrap_or_default())
                })?;
                let said = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                if said.lines().any(|line| line == "READY=1") {
                    service.ready_after = began.elapsed();
                    return Ok(service);
                }
            }
        }
    }

    impl Service {
        fn stop(mut self) -> Outcome<()> {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            let status = self.child.wait()?;
            if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }

    /// Prints median and worst; returns the median.
    fn shown(what: &str, mut times: Vec<Duration>) -> Duration {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let worst = times.last().copied().unwrap_or_default();
        println!("{what}{} ms, at worst {} ms", median.as_millis(), worst.as_millis());
        median
    }

    /// User and system time of a process, its threads that have ended included.
    fn cpu_time(pid: u32) -> Outcome<Duration> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th after it.
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat is not as it was")?;
        let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let mut next = || times.next().ok_or("/proc/PID/stat is short");
        let ticks = next()?? + next()??;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
    }

    #[expect(clippy::cast_precision_loss, reason = "a size is shown with one digit")]
    fn to_f64(number: u64) -> f64 {
        number as f64
    }
}
