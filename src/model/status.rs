//! How things stand: a copy of what the loop knows, for `status` and whoever else asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::time::Wall;

/// What is said of a route that was paused with all others.
pub const PAUSED_WITH_ALL: &str = "a person paused all routes at once";

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// patchdrop's version.
    pub version: String,
    /// Process id of the service; 0 if none runs.
    pub pid: u32,
    /// When the service started; none if it does not run.
    pub started_at: Option<Wall>,
    /// When this was taken.
    pub at: Option<Wall>,
    /// Every route, by name.
    pub routes: Vec<RouteStatus>,
    /// Every destination, by host.
    pub destinations: Vec<DestinationStatus>,
    /// What needs a person, in sentences: ledger unavailable, folder gone, ids of unknown files.
    pub alerts: Vec<String>,
    /// Those of them that keep files from being sent.
    #[serde(default)]
    pub grave: Vec<String>,
    /// Since when a person has paused all routes at once, those that are found later among them. A
    /// route that was let go since goes on alone.
    #[serde(default)]
    pub all_paused_since: Option<Wall>,
}

impl Status {
    /// While all routes are paused at once: those that go on alone, in words that follow "nothing
    /// is sent".
    #[must_use]
    pub fn but_for_those_alone(&self) -> String {
        let is_alone = |route: &&RouteStatus| {
            route.pause.as_ref().is_none_or(|pause| pause.next_probe_at.is_some())
        };
        let alone: Vec<&str> =
            self.routes.iter().filter(is_alone).map(|route| route.name.as_str()).collect();
        match alone.as_slice() {
            [] => String::new(),
            [one] => format!(" but by {one}, which goes on alone"),
            [first, .., last] if alone.len() > 3 => {
                format!(" but by {} routes that go on alone, {first} to {last}", alone.len())
            }
            [some @ .., last] => {
                format!(" but by {} and {last}, which go on alone", some.join(", "))
            }
        }
    }

    /// The shortest account of it.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let sum = |of: fn(&RouteStatus) -> u64| self.routes.iter().map(of).sum::<u64>();
        let paused = sum(|route| u64::from(route.pause.is_some()));
        let alerts = self.alerts.len() as u64;
        let counts = [
            (sum(|route| route.waiting.values().map(|waiting| waiting.files).sum()), "waiting"),
            (sum(|route| route.sending), "on their way"),
            (sum(|route| route.deferred), "deferred"),
            (sum(|route| route.confirming), "confirming"),
            (sum(|route| route.held), "held"),
            (sum(|route| route.failed), "failed"),
            (paused, if paused == 1 { "route paused" } else { "routes paused" }),
            (alerts, if alerts == 1 { "alert" } else { "alerts" }),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let pause = if self.all_paused_since.is_some() { "paused by a person, " } else { "" };
        let routes = match self.routes.len() {
            1 => "1 route".to_owned(),
            many => format!("{many} routes"),
        };
        std::iter::once(format!("{pause}{routes}"))
            .chain(counts.map(|(count, what)| format!(", {count} {what}")))
            .collect()
    }
}

/// How one route stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// Its drop folder.
    pub folder: String,
    /// Host and port that it sends to.
    pub host: String,
    /// The credential used there.
    #[serde(default)]
    pub credential: Option<String>,
    /// Whether it sends, and if not, why.
    pub pause: Option<Pause>,
    /// Files in the drop folder that are not on their journey, by reason; what `detect` calls
    /// them: `ready`, `not-ready`, `truncated`, `no-marker`, `paused`, `paced`,
    /// `older-than-first-sweep`, `ignored`, `temporary`, `in-a-subfolder`, `link`, `special`,
    /// `unreadable`, `sidecar`, ...
    pub waiting: BTreeMap<String, Waiting>,
    /// Files claimed, on their way.
    pub sending: u64,
    /// Files waiting for their next attempt.
    pub deferred: u64,
    /// Files accepted whose runs are being asked for.
    #[serde(default)]
    pub confirming: u64,
    /// How long the one of them has waited that has waited longest, milliseconds; pauses are not
    /// counted.
    #[serde(default)]
    pub deferred_for_ms: u64,
    /// Since when the oldest of them has been on its way, as the ledger has it: a restart changes
    /// nothing about it, and pauses are counted.
    #[serde(default)]
    pub deferred_since: Option<Wall>,
    /// When the next deferred file is due.
    pub next_due_at: Option<Wall>,
    /// Files in `held/` as the ledger has it.
    pub held: u64,
    /// Files in `failed/` as the ledger has it.
    pub failed: u64,
    /// Files accepted, as the ledger has it.
    pub sent: u64,
    /// When the last file was accepted.
    pub last_sent_at: Option<Wall>,
    /// When the folder was last listed to its end.
    pub swept_at: Option<Wall>,
    /// Why it can't be listed, if it can't.
    pub folder_fault: Option<String>,
    /// Why it is polled although it should be watched.
    #[serde(default)]
    pub watch_fault: Option<String>,
}

/// Files that wait, under one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// How many.
    pub files: u64,
    /// When they are looked at next.
    pub next_look_at: Option<Wall>,
    /// The change time of the oldest.
    pub oldest_at: Option<Wall>,
    /// One of them, as it may be shown.
    pub example: String,
}

/// Why nothing is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Stable code: `paused-by-person`, `http-404`, `connect-refused`, ...
    pub code: String,
    /// One sentence.
    pub text: String,
    /// What the administrator can do.
    pub remedy: String,
    /// Since when.
    pub since: Option<Wall>,
    /// When one file probes again.
    pub next_probe_at: Option<Wall>,
}

/// How one destination stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Host and port.
    pub host: String,
    /// The credential used there.
    pub credential: Option<String>,
    /// Why nothing is sent there.
    pub pause: Option<Pause>,
    /// How fast it is sent to, where something bounds that.
    #[serde(default)]
    pub pace: Option<Pace>,
}

/// How fast a destination is sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// At most so many requests
    pub requests: Option<u32>,
    /// in so many milliseconds.
    pub per_ms: Option<u64>,
    /// At most so many at once, because more were too many.
    pub at_once: Option<u64>,
    /// Nothing starts before this.
    pub until: Option<Wall>,
}
