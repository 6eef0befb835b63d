//! `patchdrop demo`: the whole road on sample files, against the simulator. What it shows is read
//! from the service's record, its status and the simulator's list; at the end the demo compares
//! them with what it expects.
#![expect(clippy::disallowed_methods, reason = "it drops files as people and programs do")]

mod journeys;
mod samples;
mod verdict;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load::{self, Secrets};
use super::records;
use super::screen::Screen;
use super::serve;
use super::wishes::{Wishes, stop_by_signal};
use crate::config::Config;
use crate::daemon::{Mode, Stop};
use crate::model::command::{Command, CommandAnswer};
use crate::model::time::Wall;
use crate::simulator::{Simulator, SimulatorOptions};
use crate::telemetry;
use crate::world::clock::{Clock, SystemClock};
use crate::world::control;
use journeys::{Journeys, line};
use samples::{Arrival, Sample};

/// See it work: a simulated server, a service, sample files, and what becomes of each
#[derive(Debug, clap::Args)]
#[command(after_help = "Everything happens in a temporary folder and on this machine's loopback \
    address.\n\nExamples:\n  \
    patchdrop demo\n  \
    patchdrop demo --stay   keeps running: drop files of your own")]
pub(super) struct Arguments {
    /// Keep running afterwards, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

/// Between two looks at the record.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks between two drops, and between two pieces of the slow writer.
const LOOKS_A_DROP: u64 = 3;
/// Bytes that the slow writer writes at once: it takes about as long as the other drops.
const SLOW_BYTES: usize = 200;
/// Looks until the demo gives up on files that have not arrived: 60 s.
const LOOKS_MAX: u64 = 600;

pub(super) async fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let options = SimulatorOptions { rules: samples::rules(), ..SimulatorOptions::default() };
    let secret = options.client_secret.reveal().to_owned();
    let simulator = Simulator::start(options).await.map_err(Failure::machine)?;
    let stage = Stage::build(simulator, &secret, screen)?;
    let config = load::load_config(&stage.config_path, None, Secrets::Needed)?;
    let _telemetry =
        telemetry::start(&config.log, &config.all_secrets(), None).map_err(Failure::machine)?;
    let (stop, stop_in) = mpsc::channel(2);
    let serving = serve::serve(config.clone(), Mode::Service, true, Wishes::to_stop(stop_in), None);
    tokio::pin!(serving);
    let played = tokio::select! {
        end = &mut serving => {
            end?;
            return Err(Failure::new(Kind::Bug, "the service ended before the demo"));
        }
        played = play(&stage, &config, arguments.stay, screen) => played,
    };
    // A service that has ended by itself needs no stop.
    stop.send(Stop::Drain).await.ok();
    serving.await?;
    let is_right = played?;
    if !arguments.stay {
        stage.say_what_to_try(screen)?;
    }
    Ok(if is_right { Exit::Done } else { Exit::Bug })
}

/// Drops the samples, shows what happens, judges it; whether all was right.
async fn play(
    stage: &Stage,
    config: &Config,
    stay: bool,
    screen: &mut Screen<'_>,
) -> Result<bool, Failure> {
    stage.introduce(screen)?;
    let samples = samples::all();
    let mut journeys = Journeys::default();
    stage.drop_all(&samples, config, &mut journeys, screen).await?;
    let seen = stage.simulator.seen();
    writeln!(screen.out)?;
    verdict::show(&samples, &journeys, &seen, screen)?;
    let wrong = verdict::differences(&samples, &stage.root, &journeys, &seen);
    writeln!(screen.out)?;
    if wrong.is_empty() {
        let text = format!(
            "All as it should be: the record, the folders and the server's own list agree, byte \
             for byte.\nThe server was asked for a token {}.",
            if seen.token_requests == 1 { "once" } else { "more than once" }
        );
        writeln!(screen.out, "{}", screen.style.well(&text))?;
    } else {
        writeln!(screen.out, "{}", screen.style.alarm("Not as it should be:"))?;
        for text in &wrong {
            writeln!(screen.out, "  {text}")?;
        }
    }
    screen.out.flush()?;
    if stay {
        stage.stay(config, &mut journeys, screen).await?;
    }
    Ok(wrong.is_empty())
}

/// The demo's folder and server.
struct Stage {
    simulator: Simulator,
    folder: PathBuf,
    root: PathBuf,
    config_path: PathBuf,
    clock: SystemClock,
}

impl Stage {
    /// A new folder with a config, a secret and drop folders.
    fn build(simulator: Simulator, secret: &str, screen: &Screen<'_>) -> Result<Self, Failure> {
        let folder = new_folder(screen).map_err(|error| {
            Failure::because(Kind::Machine, "no folder can be made for the demo", error)
                .hint("the demo needs a folder for temporary files (TMPDIR) that it may write")
        })?;
        let root = folder.join("drop");
        let config_path = folder.join("config.toml");
        let stage = Self { simulator, folder, root, config_path, clock: SystemClock::new() };
        stage.furnish(secret).map_err(|error| {
            let text = format!("{} cannot be filled", stage.folder.display());
            Failure::because(Kind::Machine, text, error)
        })?;
        Ok(stage)
    }

    fn furnish(&self, secret: &str) -> io::Result<()> {
        for sample in samples::all() {
            fs::create_dir_all(self.root.join(sample.route))?;
        }
        private_file(&self.folder.join("client-secret"))?.write_all(secret.as_bytes())?;
        fs::write(&self.config_path, self.config_text())
    }

    fn config_text(&self) -> String {
        format!(
            "# The demo's config. Its times are short, so that you need not wait.\n\
             root      = 'drop'        # every folder in it is a route\n\
             company   = 'demo'\n\
             base_url  = '{}'          # the simulator; left out, Patchworks' own\n\
             state_dir = 'state'\n\n\
             [credential.inbound]\n\
             kind          = 'oauth2'\n\
             token_url     = '{}'\n\
             client_id     = 'demo-client'\n\
             client_secret = {{ file = 'client-secret' }}\n\n\
             [log]\n\
             file = 'patchdrop.log'\n\n\
             [defaults]\n\
             quiet_for       = '400ms'\n\
             truncated_after = '2s'\n\
             retry           = {{ first = '500ms' }}\n\
             headers         = {{ X-File-Name = '{{name}}' }}\n\n\
             [route.old-erp]\n\
             encoding = 'windows-1252'\n",
            self.simulator.base_url(),
            self.simulator.token_url()
        )
    }

    fn introduce(&self, screen: &mut Screen<'_>) -> Result<(), Failure> {
        writeln!(
            screen.out,
            "A simulated server listens at {}, patchdrop watches\n{}.\n",
            self.simulator.url(),
            self.root.display()
        )?;
        Ok(screen.out.flush()?)
    }

    fn now(&self) -> Wall {
        self.clock.now().wall
    }

    /// Drops one sample after the other until each has ended or is given up.
    async fn drop_all(
        &self,
        samples: &[Sample],
        config: &Config,
        journeys: &mut Journeys,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        let mut rest = samples.iter();
        let mut slow: Option<Slow<'_>> = None;
        for look in 0..LOOKS_MAX {
            if look % LOOKS_A_DROP == 0 {
                slow = match slow {
                    Some(slow) => slow.write_more(self.now(), screen)?,
                    None => None,
                };
                if let Some(sample) = rest.next() {
                    let what = match sample.arrival {
                        Arrival::Slowly => "begun",
                        Arrival::Renamed | Arrival::Written => "dropped",
                    };
                    line(screen, self.now(), &sample.title(), &format!("{what}: {}", sample.what))?;
                    let begun = self.put(sample).map_err(|error| cannot_drop(sample, error))?;
                    slow = begun.or(slow);
                }
            }
            self.clock.sleep(LOOK_EVERY).await;
            self.look(config, journeys, screen).await?;
            let has_ended = |sample: &Sample| verdict::has_ended(sample, journeys);
            if rest.len() == 0 && slow.is_none() && samples.iter().all(has_ended) {
                break;
            }
        }
        Ok(())
    }

    fn put<'a>(&self, sample: &'a Sample) -> io::Result<Option<Slow<'a>>> {
        let folder = self.root.join(sample.route);
        let path = folder.join(sample.name);
        match sample.arrival {
            Arrival::Written => fs::write(path, &sample.bytes)?,
            Arrival::Renamed => {
                let part = folder.join(format!("{}.part", sample.name));
                fs::write(&part, &sample.bytes)?;
                fs::rename(part, path)?;
            }
            Arrival::Slowly => {
                let (file, rest) = (File::create(path)?, sample.bytes.as_slice());
                return Ok(Some(Slow { sample, file, rest }));
            }
        }
        Ok(None)
    }

    /// Shows what is new on record, and what waits.
    async fn look(
        &self,
        config: &Config,
        journeys: &mut Journeys,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        // Where there is no socket, waiting files are not spoken of.
        if let Ok(CommandAnswer::Status(status)) =
            control::ask(&config.state_dir, &Command::Status).await
        {
            journeys.look_at_waiting(&status, screen)?;
        }
        journeys.look(&records::open_ledger(config)?, screen)
    }

    async fn stay(
        &self,
        config: &Config,
        journeys: &mut Journeys,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        self.say_commands(screen, &["explain SO-1005.json", "release SO-1005.json", "status"])?;
        writeln!(
            screen.out,
            "\nDrop a file here: {}\nCtrl-C ends the demo.\n",
            self.root.join("orders").display()
        )?;
        screen.out.flush()?;
        let mut stop = stop_by_signal();
        loop {
            tokio::select! {
                _ = stop.recv() => return Ok(()),
                () = self.clock.sleep(LOOK_EVERY * 2) => {}
            }
            self.look(config, journeys, screen).await?;
        }
    }

    fn say_what_to_try(&self, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let commands = [
            "explain SO-1005.json",
            "mark SO-1005.json --sent --note 'the shop has it'",
            "resend SO-1004.json",
            "verify",
        ];
        self.say_commands(screen, &commands)?;
        let (program, config) = (program(), self.config_path.display());
        let port = self.simulator.addr().port();
        writeln!(
            screen.out,
            "\nThe server has ended with the demo. To send what you resend, release or drop:\n  \
             {program} simulator --port {port} &\n  \
             {program} --config {config} run --once"
        )?;
        Ok(screen.out.flush()?)
    }

    fn say_commands(&self, screen: &mut Screen<'_>, commands: &[&str]) -> Result<(), Failure> {
        let (program, config) = (program(), self.config_path.display());
        writeln!(screen.out, "\nLook around in {}\nand try:", self.folder.display())?;
        for command in commands {
            writeln!(screen.out, "  {program} --config {config} {command}")?;
        }
        Ok(())
    }
}

/// A file that is being written.
struct Slow<'a> {
    sample: &'a Sample,
    file: File,
    rest: &'a [u8],
}

impl Slow<'_> {
    /// Writes the next piece; none when it was the last.
    fn write_more(mut self, at: Wall, screen: &mut Screen<'_>) -> Result<Option<Self>, Failure> {
        let (piece, rest) = self.rest.split_at(self.rest.len().min(SLOW_BYTES));
        self.file.write_all(piece).map_err(|error| cannot_drop(self.sample, error))?;
        self.rest = rest;
        if !rest.is_empty() {
            return Ok(Some(self));
        }
        line(screen, at, &self.sample.title(), "written to its end")?;
        Ok(None)
    }
}

fn cannot_drop(sample: &Sample, error: io::Error) -> Failure {
    Failure::because(Kind::Machine, format!("{} cannot be written", sample.title()), error)
}

/// A folder of our own among the temporary ones, e.g. `patchdrop-demo-20261122-081500`.
fn new_folder(screen: &Screen<'_>) -> io::Result<PathBuf> {
    let time = screen.style.time(screen.style.now).replace(['-', ':'], "").replace(' ', "-");
    let parent = fs::canonicalize(std::env::temp_dir())?;
    let mut number = 1;
    loop {
        let more = if number == 1 { String::new() } else { format!("-{number}") };
        let folder = parent.join(format!("patchdrop-demo-{time}{more}"));
        match private_folder(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "the mode is set on Unix alone"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// How this program is called from here.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "patchdrop".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    let below = path.strip_prefix(&here).map(|below| Path::new(".").join(below));
    below.unwrap_or(path).display().to_string()
}
