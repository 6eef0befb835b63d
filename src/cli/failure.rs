//! What people see when a command fails: what happened, because of what, what to do.

use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, Write};

use super::exit_code::Exit;
use crate::config::Notice;
use crate::model::file::shown;
use crate::world::control::ControlError;
use crate::world::ledger::LedgerError;

/// Whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The person at the keyboard: the command line makes no sense.
    Usage,
    /// The administrator: the config is at fault.
    Config,
    /// Something outside: disk, network, rights, another instance.
    Machine,
    /// Ours.
    Bug,
}

impl Kind {
    /// How the program ends.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Usage => Exit::Usage,
            Self::Config => Exit::Config,
            Self::Machine => Exit::Unavailable,
            Self::Bug => Exit::Bug,
        }
    }
}

/// Why a command could not do what it was asked. Nothing else prints errors.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Whose move it is.
    pub(crate) kind: Kind,
    /// What happened; its sources are printed too.
    pub(crate) error: Box<dyn Error + Send + Sync>,
    /// Faults of the config, each with its place.
    pub(crate) notices: Vec<Notice>,
    /// What the reader can do, each naming a command or a key where there is one.
    pub(crate) hints: Vec<String>,
    /// Whether it may end by itself, as a full disk may: the service waits for that.
    pub(crate) may_pass: bool,
}

impl Failure {
    pub(crate) fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, error: error.into(), notices: Vec::new(), hints: Vec::new(), may_pass: false }
    }

    pub(crate) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Kind::Usage, error)
    }

    pub(crate) fn machine(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Kind::Machine, error)
    }

    /// A failure with a sentence of its own above the error that caused it.
    pub(crate) fn because(
        kind: Kind,
        what: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::new(kind, Because { what: what.into(), cause: cause.into() })
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn passing(mut self, may_pass: bool) -> Self {
        self.may_pass = may_pass;
        self
    }

    #[must_use]
    pub(crate) fn notices(mut self, notices: Vec<Notice>) -> Self {
        self.notices = notices;
        self
    }

    /// `error: …`, the chain below it, the faults, the hints.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "error: {}", on_one_line(&self.error.to_string()))?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            writeln!(out, "  because: {}", on_one_line(&error.to_string()))?;
            cause = error.source();
        }
        for notice in &self.notices {
            write_notice(out, notice)?;
        }
        for hint in &self.hints {
            writeln!(out, "  hint: {}", on_one_line(hint))?;
        }
        Ok(())
    }
}

/// One fault or warning of the config, with its place and what to do.
pub(crate) fn write_notice(out: &mut dyn Write, notice: &Notice) -> io::Result<()> {
    write!(out, "  ")?;
    if let Some(line) = notice.line {
        write!(out, "line {line}: ")?;
    }
    if !notice.key.is_empty() {
        write!(out, "{}: ", on_one_line(&notice.key))?;
    }
    writeln!(out, "{}", on_one_line(&notice.text))?;
    match &notice.hint {
        Some(hint) => writeln!(out, "    hint: {}", on_one_line(hint)),
        None => Ok(()),
    }
}

/// Names in a config may hold anything, and so may what lies in a folder; what would steer the
/// terminal is shown as it is written.
fn on_one_line(text: &str) -> String {
    shown(OsStr::new(text))
}

#[derive(Debug)]
struct Because {
    what: String,
    cause: Box<dyn Error + Send + Sync>,
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Because {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause.as_ref())
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let (kind, hint) = match &error {
            LedgerError::Unavailable(_) => (
                Kind::Machine,
                "the ledger lies in state_dir: run this as the service's account or as root, and \
                 see whether the disk is full",
            ),
            LedgerError::Damaged(_) => (
                Kind::Machine,
                "start the service: it sets a damaged ledger aside, holds what was on its way, \
                 and says so",
            ),
            LedgerError::Replaced => (
                Kind::Machine,
                "stop the service, put the ledger back or leave it away, start the service",
            ),
            LedgerError::Impossible { .. } => {
                (Kind::Bug, "please report this text; no file is lost by it")
            }
            LedgerError::Newer { .. } => {
                (Kind::Config, "install the newer patchdrop again; an older one never writes here")
            }
        };
        Self::new(kind, error).hint(hint)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let hint = match &error {
            ControlError::NoService { .. } => "start the service: patchdrop run",
            ControlError::Denied { .. } => "run this as the service's account or as root",
            ControlError::Hangs { .. } => {
                "see its log, then restart it: what it had begun is on record"
            }
            ControlError::Ended { .. } => {
                "patchdrop service status tells whether it runs again, its log why it ended"
            }
            ControlError::NoAnswer { .. } => {
                "see what has become of it: patchdrop status, patchdrop list"
            }
            ControlError::Garbled { .. } => {
                "the service may be another version: compare `patchdrop --version` with \
                 `patchdrop status`, restart the service"
            }
            ControlError::InTheWay { .. } => "move that file away and start the service again",
            ControlError::Io { .. } => "see whether the service runs: patchdrop status",
        };
        Self::machine(error).hint(hint)
    }
}

/// Writing the output failed (a reader that has gone is no failure, see `screen`).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::because(Kind::Machine, "the output cannot be written", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: &Failure) -> String {
        let mut out = Vec::new();
        failure.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_kind_ends_with_its_own_code() {
        let ends = [(Kind::Usage, 2), (Kind::Config, 78), (Kind::Machine, 69), (Kind::Bug, 1)];
        for (kind, number) in ends {
            assert_eq!(kind.exit() as u8, number);
        }
    }

    #[test]
    fn the_chain_is_walked_once_and_hints_come_last() {
        let disk = io::Error::other("disk on fire");
        let failure = Failure::from(LedgerError::Unavailable(disk.into()));
        insta::assert_snapshot!(text(&failure), @r"
        error: the ledger cannot be written
          because: disk on fire
          hint: the ledger lies in state_dir: run this as the service's account or as root, and see whether the disk is full
        ");
    }

    #[test]
    fn config_faults_are_all_shown_with_their_places() {
        let notice = |key: &str, line, text: &str, hint: Option<&str>| Notice {
            key: key.to_owned(),
            line,
            text: text.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let failure = Failure::new(Kind::Config, "2 faults in /etc/patchdrop/config.toml")
            .notices(vec![
                notice("route.orders.max_body", Some(12), "\"8 M\" is no size", Some("\"8MB\"")),
                notice("", None, "no route", None),
                notice("route.a\nb\u{1b}[2J", None, "no name", None),
            ])
            .hint("nothing was touched");
        insta::assert_snapshot!(text(&failure), @r#"
        error: 2 faults in /etc/patchdrop/config.toml
          line 12: route.orders.max_body: "8 M" is no size
            hint: "8MB"
          no route
          route.a\nb\u{1b}[2J: no name
          hint: nothing was touched
        "#);
    }

    #[test]
    fn every_ledger_error_and_control_error_tells_what_to_do() {
        let source = || io::Error::other("x");
        let path = || std::path::PathBuf::from("/s/control.sock");
        let failures = [
            (Failure::from(LedgerError::Damaged(source().into())), Kind::Machine),
            (Failure::from(LedgerError::Replaced), Kind::Machine),
            (Failure::from(LedgerError::Newer { found: 9, known: 1 }), Kind::Config),
            (Failure::from(ControlError::NoService { path: path() }), Kind::Machine),
            (Failure::from(ControlError::NoAnswer { path: path() }), Kind::Machine),
            (Failure::from(ControlError::Hangs { path: path() }), Kind::Machine),
            (Failure::from(ControlError::Ended { path: path() }), Kind::Machine),
            (Failure::from(ControlError::InTheWay { path: path() }), Kind::Machine),
            (Failure::from(ControlError::Denied { path: path(), source: source() }), Kind::Machine),
        ];
        for (failure, kind) in failures {
            assert_eq!(failure.kind, kind, "{failure:?}");
            assert!(text(&failure).contains("\n  hint: "), "{failure:?}");
        }
    }
}
