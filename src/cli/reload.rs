//! `patchdrop reload`, and a reload as the service does it: the config is read and checked first; a
//! bad one changes nothing. A good one is taken over once what is in flight has ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::Globals;
use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load::Secrets;
use super::screen::Screen;
use super::serve;
use crate::config::Config;
use crate::daemon::{Stop, chain};
use crate::model::command::{Command, CommandAnswer, Done};
use crate::model::secret::Secret;
use crate::model::time::Wall;
use crate::service::{News, tell};
use crate::world::clock::{Clock, SystemClock};
use crate::world::control::{self, ControlError};
use crate::world::ledger::sqlite::SqliteLedger;

/// Have the running service read its config again; a bad one changes nothing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is in flight ends under the old config first. SIGHUP does the same.\n\n\
    Example:\n  \
    patchdrop check && patchdrop reload"
)]
pub(super) struct Arguments {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    // Every fault is said here, with its line; secrets are those of the service.
    let config = globals.load(Secrets::MayBeMissing)?;
    match control::ask(&config.state_dir, &Command::Reload).await {
        Ok(CommandAnswer::Done(done)) => {
            if arguments.json {
                screen.json(&done)?;
            } else {
                for one in &done {
                    writeln!(screen.out, "{}", one.text)?;
                }
                writeln!(
                    screen.out,
                    "The service goes on with it once what is in flight has ended."
                )?;
            }
            Ok(Exit::Done)
        }
        Ok(CommandAnswer::Refused(why)) => {
            Err(Failure::new(Kind::Config, why)
                .hint("the service goes on with the config that it has"))
        }
        Ok(CommandAnswer::Status(_)) => {
            Err(Failure::new(Kind::Bug, "the service answered with its status"))
        }
        Err(ControlError::NoService { .. }) => {
            let text = format!("no service runs with {}", config.state_dir.display());
            Err(Failure::machine(text).hint(
                "the config is read at each start; a service that runs with another state_dir has \
                 to be restarted",
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// How a service reads its config again.
pub(super) struct Reader<'r> {
    /// Reads and checks the file.
    pub(super) read: &'r (dyn Fn() -> Result<Config, Failure> + Send + Sync),
    /// Keeps the secrets of a newer config out of the log.
    pub(super) learn: &'r (dyn Fn(&[Secret]) + Send + Sync),
}

/// The wish to go on with a newer config.
pub(super) struct Reloading<'r> {
    config: Arc<Config>,
    ledger: Arc<SqliteLedger>,
    reader: Option<&'r Reader<'r>>,
    next: Mutex<Option<Arc<Config>>>,
    /// Why the newest config was not taken.
    refused: Mutex<Option<String>>,
}

impl<'r> Reloading<'r> {
    pub(super) fn new(
        config: &Arc<Config>,
        ledger: &Arc<SqliteLedger>,
        reader: Option<&'r Reader<'r>>,
    ) -> Self {
        let (config, ledger) = (Arc::clone(config), Arc::clone(ledger));
        Self { config, ledger, reader, next: Mutex::default(), refused: Mutex::default() }
    }

    /// What a person should know about a config that was not taken.
    pub(super) fn alert(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let why = refused.as_ref()?;
        Some(format!("the changed config was not taken, the older one stays: {why}"))
    }

    /// The config to go on with, if there is one.
    pub(super) fn next(self) -> Option<Arc<Config>> {
        self.next.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and checks the config; a good one is asked for. What it changes, or why not.
    pub(super) async fn begin(&self, stop: &mpsc::Sender<Stop>) -> CommandAnswer {
        let newer = self.read_anew().await;
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) =
            newer.as_ref().err().cloned();
        let newer = match newer {
            Ok(newer) => newer,
            Err(why) => {
                tracing::error!(%why, "the changed config cannot be used; the old one stays");
                return CommandAnswer::Refused(why);
            }
        };
        let at = SystemClock::new().now().wall;
        let changes = self.config.changes(&newer);
        for change in &changes {
            tracing::info!(%change, "the config was read again");
        }
        for notice in &newer.warnings {
            serve::warn(notice, &newer.path);
        }
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(newer));
        tell(&[News::Reloading]);
        // A loop that has ended goes on with nothing.
        stop.send(Stop::Reload).await.ok();
        CommandAnswer::Done(changes.into_iter().map(|text| done(text, at)).collect())
    }

    async fn read_anew(&self) -> Result<Config, String> {
        let Some(reader) = self.reader else {
            return Err(
                "this patchdrop was started without a config that could be read again".into()
            );
        };
        let newer = (reader.read)().map_err(|failure| in_one_line(&failure))?;
        let fixed = self.config.needs_restart(&newer);
        if !fixed.is_empty() {
            return Err(format!(
                "{} cannot change while the service runs: restart it for that; nothing else of the \
                 changed config was taken either",
                fixed.join(" and ")
            ));
        }
        let known = serve::marked_folders(&self.config);
        let mut folders = serve::marked_folders(&newer);
        folders.retain(|folder| !known.contains(folder));
        if !folders.is_empty() {
            self.ledger.check_marks(folders).await.map_err(|error| chain(&error))?;
        }
        (reader.learn)(&newer.all_secrets());
        Ok(newer)
    }
}

fn done(text: String, at: Wall) -> Done {
    Done { subject: "config".to_owned(), ok: true, text, at }
}

fn in_one_line(failure: &Failure) -> String {
    let notices = failure.notices.iter().map(|notice| {
        let line = notice.line.map_or_else(String::new, |line| format!("line {line}: "));
        let key = if notice.key.is_empty() { String::new() } else { format!("{}: ", notice.key) };
        format!("; {line}{key}{}", notice.text)
    });
    std::iter::once(failure.error.to_string()).chain(notices).collect()
}
