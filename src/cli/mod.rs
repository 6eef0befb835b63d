//! The commands: what a person types and sees. One file per command; each parses its own
//! arguments and writes through a `screen::Screen`; whatever goes wrong is a
//! `failure::Failure`; how it ended is an [`exit_code::Exit`].

pub mod exit_code;

mod adopt;
mod calm;
mod change;
mod check;
mod completions;
mod demo;
mod doctor;
mod dry_run;
mod explain;
mod failure;
mod findings;
mod health;
mod heartbeat;
#[cfg(windows)]
mod hosted;
mod init;
mod list;
mod load;
mod man;
mod mark;
mod online;
mod pause;
mod preview;
mod records;
mod release;
mod reload;
mod resend;
mod resolve;
mod run;
mod screen;
mod secret;
mod send;
mod serve;
mod service;
mod simulator;
#[cfg(unix)]
mod stand_in;
mod status;
mod token;
mod trees;
mod verify;
mod when;
mod wishes;

#[cfg(test)]
mod fixture;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use calm::Calm;
use exit_code::Exit;
use failure::{Failure, Kind};
use screen::{Patient, Screen, Style};

use crate::config::Config;
use crate::journey::health::Level;
use crate::model::quoted::quoted;

/// Watches drop folders, checks each file that lands there, sends it to the URL its folder stands
/// for, and moves it to sent/ or failed/.
#[derive(Debug, Parser)]
#[command(
    name = "patchdrop",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    after_help = after_help()
)]
struct Arguments {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn after_help() -> String {
    format!(
        "{}\nFirst steps:\n  patchdrop demo       see it work, nothing to set up\n  \
         patchdrop init DIR   write a config to start from",
        Exit::table()
    )
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
struct Globals {
    /// The config [default: /etc/patchdrop/config.toml, on Windows
    /// %ProgramData%\patchdrop\config.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PATCHDROP_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    Doctor(doctor::Arguments),
    Init(init::Arguments),
    Demo(demo::Arguments),
    Send(send::Arguments),
    Status(status::Arguments),
    Health(health::Arguments),
    List(list::Arguments),
    Explain(explain::Arguments),
    Resend(resend::Arguments),
    Release(release::Arguments),
    Mark(mark::Arguments),
    Pause(pause::PauseArguments),
    Resume(pause::ResumeArguments),
    Reload(reload::Arguments),
    Service(service::Arguments),
    Verify(verify::Arguments),
    Adopt(adopt::Arguments),
    Token(token::Arguments),
    Secret(secret::Arguments),
    Simulator(simulator::Arguments),
    Completions(completions::Arguments),
    #[command(hide = true)]
    Man(man::Arguments),
}

impl Command {
    /// Whether it may write below `state_dir` or in the folders of routes.
    #[cfg(unix)]
    fn works_in_the_services_place(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Check(_)
                | Self::Send(_)
                | Self::Resend(_)
                | Self::Release(_)
                | Self::Mark(_)
                | Self::Pause(_)
                | Self::Resume(_)
                | Self::Verify(_)
                | Self::Adopt(_)
                | Self::Token(_)
        )
    }

    /// Whether it does without a `state_dir`, or makes one for the account that it runs as.
    #[cfg(unix)]
    fn begins_without_a_state_dir(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Check(_) | Self::Verify(_))
            || matches!(self, Self::Token(arguments) if !arguments.changes())
    }
}

/// Runs the command line.
pub fn run() -> ExitCode {
    std::panic::set_hook(Box::new(report_bug));
    let outcome = std::panic::catch_unwind(|| {
        let mut out = Patient::new(Calm::new(io::stdout()));
        let exit = match Arguments::try_parse() {
            Ok(arguments) => finish(carry_out(&arguments, &mut out), &mut out),
            Err(error) => show_parse_result(&error, &mut out),
        };
        exit.into()
    });
    outcome.unwrap_or_else(|_| Exit::Bug.into())
}

/// Help and version come as errors too, for standard output.
fn show_parse_result(error: &clap::Error, out: &mut dyn Write) -> Exit {
    if error.use_stderr() {
        error.print().ok();
        // Monitoring takes 2 for something that is critical.
        let is_health = std::env::args_os().any(|argument| argument == "health");
        return if is_health { Level::Unknown.into() } else { Exit::Usage };
    }
    let ansi = Style::of_terminal().colours;
    let text = error.render();
    let written = if ansi { write!(out, "{}", text.ansi()) } else { write!(out, "{text}") };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) => finish(Err(error.into()), out),
    }
}

fn finish(result: Result<Exit, Failure>, out: &mut dyn Write) -> Exit {
    let failure = match result.and_then(|exit| Ok(out.flush().map(|()| exit)?)) {
        Ok(exit) => return exit,
        Err(failure) => failure,
    };
    // Where even standard error is gone, the exit code is all that is left to say.
    out.flush().ok();
    failure.write(&mut io::stderr().lock()).ok();
    failure.kind.exit()
}

/// The panic hook. What is on record stays valid whatever happens here (promise P9).
fn report_bug(panic: &std::panic::PanicHookInfo<'_>) {
    let mut out = io::stderr().lock();
    let text = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    write!(
        out,
        "patchdrop has a bug: {text}\n  at: {place} in patchdrop {}\n  \
         hint: no file is lost and none is sent twice by this: start it again and it goes on \
         from its record\n  \
         hint: please report this text, and what you did before\n",
        env!("CARGO_PKG_VERSION")
    )
    .ok();
}

fn carry_out(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    // A config that cannot be used is what the command itself tells; it touches nothing then.
    #[cfg(unix)]
    if arguments.command.works_in_the_services_place()
        && let Ok(config) = arguments.globals.load(load::Secrets::MayBeMissing)
    {
        let begins = arguments.command.begins_without_a_state_dir();
        stand_in::for_the_keeper(&config.state_dir, begins)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .map_err(|error| Failure::because(Kind::Machine, "no threads can be started", error))?;
    let screen = &mut Screen { out, style: Style::of_terminal() };
    let globals = &arguments.globals;
    let exit = runtime.block_on(async {
        match &arguments.command {
            Command::Run(arguments) => run::run(globals, arguments, screen).await,
            Command::Check(arguments) => check::run(globals, arguments, screen).await,
            Command::Doctor(arguments) => doctor::run(globals, arguments, screen).await,
            Command::Init(arguments) => init::run(arguments, screen),
            Command::Demo(arguments) => demo::run(arguments, screen).await,
            Command::Send(arguments) => send::run(globals, arguments, screen).await,
            Command::Status(arguments) => status::run(globals, arguments, screen).await,
            Command::Health(arguments) => health::run(globals, arguments, screen).await,
            Command::List(arguments) => list::run(globals, arguments, screen),
            Command::Explain(arguments) => explain::run(globals, arguments, screen).await,
            Command::Resend(arguments) => resend::run(globals, arguments, screen).await,
            Command::Release(arguments) => release::run(globals, arguments, screen).await,
            Command::Mark(arguments) => mark::run(globals, arguments, screen).await,
            Command::Pause(arguments) => pause::run(globals, arguments, screen).await,
            Command::Resume(arguments) => pause::resume(globals, arguments, screen).await,
            Command::Reload(arguments) => reload::run(globals, arguments, screen).await,
            Command::Service(arguments) => service::run(globals, arguments, screen).await,
            Command::Verify(arguments) => verify::run(globals, arguments, screen),
            Command::Adopt(arguments) => adopt::run(globals, arguments, screen).await,
            Command::Token(arguments) => token::run(globals, arguments, screen).await,
            Command::Secret(arguments) => secret::run(globals, arguments, screen),
            Command::Simulator(arguments) => simulator::run(arguments, screen).await,
            Command::Completions(arguments) => completions::run(arguments, screen),
            Command::Man(arguments) => man::run(arguments, screen),
        }
    });
    // A thread that hangs in a dead mount must not keep the program alive.
    runtime.shutdown_background();
    exit
}

/// Attempts wait for the network, not for processors; two keep the memory small (promise P10).
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4)
}

impl Globals {
    /// Loads the config that was asked for, or the system's.
    fn load(&self, secrets: load::Secrets) -> Result<Config, Failure> {
        load::load_config(&self.config_path(), None, secrets)
    }

    fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(default_config_path)
    }

    /// How this config is named on a command line that we suggest; empty for the default one.
    fn flag(&self) -> String {
        match &self.config {
            Some(path) => format!(" --config {}", quoted(path)),
            None => String::new(),
        }
    }
}

#[cfg(not(windows))]
fn default_config_path() -> PathBuf {
    PathBuf::from("/etc/patchdrop/config.toml")
}

#[cfg(windows)]
#[expect(clippy::disallowed_methods, reason = "Windows says in the environment where it keeps it")]
fn default_config_path() -> PathBuf {
    let base = std::env::var_os("ProgramData").unwrap_or_else(|| r"C:\ProgramData".into());
    PathBuf::from(base).join("patchdrop").join("config.toml")
}

/// The whole command line as clap has it, for completions and tests.
fn command_line() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn a_suggested_line_names_the_config_in_one_word() {
        let check = |config: Option<&str>, flag: &str| {
            assert_eq!(Globals { config: config.map(PathBuf::from) }.flag(), flag);
        };
        check(None, "");
        check(Some("/etc/shop.toml"), " --config /etc/shop.toml");
        let (path, quoted) = if cfg!(windows) {
            (r"D:\our files\shop.toml", "\"D:\\our files\\shop.toml\"")
        } else {
            ("/srv/our files/shop.toml", "'/srv/our files/shop.toml'")
        };
        check(Some(path), &format!(" --config {quoted}"));
    }
}
