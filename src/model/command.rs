//! What a person asks of the service, and what it answers: one JSON line each way over the
//! control socket, or carried out directly where no service runs.

use serde::{Deserialize, Serialize};

use super::status::Status;
use super::time::Wall;

/// A request. Ids are written as [`super::file::FileId`] displays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// How things stand.
    Status,
    /// Start no more attempts on a route, until `resume`. Survives a restart.
    Pause {
        /// The route.
        route: String,
    },
    /// Lift a pause by a person, and try again at once what patchdrop itself has paused.
    Resume {
        /// The route.
        route: String,
    },
    /// Start no more attempts at all, until [`Self::ResumeAll`]. Survives a restart.
    PauseAll,
    /// Lift [`Self::PauseAll`]: what was paused before it, or by itself, stays so.
    ResumeAll,
    /// Let the files go that were too old at a route's first sweep; with `held`, its held ones too.
    ReleaseRoute {
        /// The route.
        route: String,
        /// Whether held files go too.
        held: bool,
    },
    /// Let held files go: same id, same key.
    Release {
        /// The files.
        ids: Vec<String>,
    },
    /// Take failed files up again: new ids that remember the old ones.
    Resend {
        /// The files.
        ids: Vec<String>,
    },
    /// Put on record what a person found out about a held (or failed) file.
    Mark {
        /// The file.
        id: String,
        /// True: it was accepted, to `sent/`. False: it was not, to `failed/`.
        sent: bool,
        /// The person's words.
        note: String,
    },
    /// Look into every folder now.
    Sweep,
    /// Read the config again, and go on with it once what is in flight has ended.
    Reload,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandAnswer {
    /// How things stand.
    Status(Box<Status>),
    /// What was done, one line a file or route.
    Done(Vec<Done>),
    /// Nothing was done: why, in one sentence.
    Refused(String),
}

/// What was done to one file or route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The file's id or the route's name.
    pub subject: String,
    /// Whether it worked.
    pub ok: bool,
    /// One sentence: what was done, or why not.
    pub text: String,
    /// When.
    pub at: Wall,
}
