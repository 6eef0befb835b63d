//! What it is to be a service of the system, in words that fit every system.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// One patchdrop among those that run as services on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    name: Option<String>,
}

/// The longest name of an instance: it becomes part of names of services, folders and accounts.
const NAME_MAX: usize = 32;

impl Instance {
    /// The one without a name, or the one that is called so.
    ///
    /// # Errors
    /// A name with other letters than `a-z A-Z 0-9 - _`, with more than 32 of them, or `config`,
    /// which is what the config of the one without a name is called.
    pub fn of(name: Option<&str>) -> Result<Self, ServiceError> {
        let Some(name) = name else { return Ok(Self::default()) };
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        let is_name = (1..=NAME_MAX).contains(&name.len())
            && name.chars().all(is_letter)
            && !name.starts_with('-')
            && !name.eq_ignore_ascii_case("config");
        if is_name {
            return Ok(Self { name: Some(name.to_owned()) });
        }
        Err(ServiceError::Name { name: name.to_owned() })
    }

    /// What it is called, if anything.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// ` --name NAME`, as it stands on a command line that we suggest; empty without a name.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.as_ref().map(|name| format!(" --name {name}")).unwrap_or_default()
    }
}

/// The password of an account; it is never shown.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Wraps it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The password itself, for the system alone.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// What is to become a service.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Which one.
    pub instance: Instance,
    /// Its config, absolute.
    pub config: PathBuf,
    /// The program, absolute.
    pub program: PathBuf,
    /// The account that it runs as; the system's usual one if `None`.
    pub account: Option<String>,
    /// That account's password, where the system wants one.
    pub password: Option<Password>,
    /// Its own folder (`state_dir`), absolute.
    pub state_dir: PathBuf,
    /// What whoever installs it closes to all but its account, administrators and the system,
    /// absolute: nobody is told to see to the account's rights there.
    pub closes: Vec<PathBuf>,
    /// Whatever else it must be able to write, absolute: one folder for each tree within which
    /// files are renamed, none inside another.
    pub writes: Vec<PathBuf>,
    /// How long a stop may take for what is in flight.
    pub drain: Duration,
}

/// What was done, and what is left to a person, each line a sentence or a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was done, in order.
    pub done: Vec<String>,
    /// What is left to do before it works, in order: why, and the command.
    pub next: Vec<Step>,
    /// The account whose rights whoever installs it has to see to, where those are lists of
    /// accounts.
    pub account: Option<String>,
}

/// Something that is left to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Why, one sentence without full stop.
    pub why: String,
    /// What to type.
    pub command: String,
}

/// How a service stands with its service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the service manager calls it.
    pub service: String,
    /// Whether it works, or would.
    pub runs: Runs,
    /// Whether it starts with the system.
    pub starts_with_system: bool,
    /// Further facts, each in one line.
    pub facts: Vec<String>,
}

/// Whether a service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// There is no such service.
    NotInstalled,
    /// It is installed and does not run.
    Stopped,
    /// It has ended with an error, and is not started again.
    Failed,
    /// It is on its way up.
    Starting,
    /// It runs.
    Running,
    /// It runs and sends nothing, because the service manager was told so.
    Paused,
    /// It is on its way down.
    Stopping,
}

impl Runs {
    /// In words.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::NotInstalled => "not installed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
        }
    }
}

/// Why the service manager did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No instance can be called so.
    #[error("{name:?} is no name for an instance")]
    Name {
        /// What was given.
        name: String,
    },
    /// This system, or this machine, has no service manager that we know.
    #[error("{why}")]
    Absent {
        /// Which one is missing.
        why: &'static str,
    },
    /// It takes an administrator.
    #[error("only an administrator may {doing} a service")]
    NoRights {
        /// The verb: install, uninstall, start, stop.
        doing: &'static str,
    },
    /// There is no such service.
    #[error("the service {service} is not installed")]
    NotInstalled {
        /// What the service manager calls it.
        service: String,
    },
    /// The service cannot be what it is asked to be.
    #[error("{what}")]
    Unfit {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The service manager said no.
    #[error("{what} did not work: {said}")]
    Refused {
        /// What was asked of it.
        what: String,
        /// What it said, or how it ended.
        said: String,
        /// What to do.
        hint: String,
    },
    /// A file or a program could not be had.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// The verb: run, read, write, make, remove.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_a_name_that_fits_services_and_folders() {
        let check = |name: &str, is_name: bool| {
            assert_eq!(Instance::of(Some(name)).is_ok(), is_name, "{name:?}");
        };
        check("shop7", true);
        check("Shop_7-b", true);
        check(&"a".repeat(32), true);
        check(&"a".repeat(33), false);
        check("", false);
        check("-x", false);
        check("a b", false);
        check("a/b", false);
        check("a.b", false);
        check("ü", false);
        check("config", false);
        check("Config", false);
        assert_eq!(Instance::of(None).unwrap().flag(), "");
        assert_eq!(Instance::of(Some("shop7")).unwrap().flag(), " --name shop7");
    }

    #[test]
    fn a_password_is_never_shown() {
        let password = Password::new("s3cret".to_owned());
        assert!(!format!("{password:?}").contains("s3cret"));
        assert_eq!(password.reveal(), "s3cret");
    }
}
