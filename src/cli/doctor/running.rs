//! The service itself: does it run, is it this version, what keeps its files, and may it write
//! where it must?

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::findings::{Finding, Level, Section};
use crate::cli::records::{self, Records as _};
use crate::cli::screen::Style;
use crate::config::Config;
use crate::daemon::chain;
use crate::journey::health::{self, Lately, MAX_WAIT};
use crate::model::command::{Command, CommandAnswer};
use crate::model::route::Route;
use crate::model::status::Status;
use crate::world::control::{self, ControlError};

/// A question to systemd.
const SYSTEMD_FOR: Duration = Duration::from_secs(5);

/// Asks the service how things stand; `None` with the finding that says why not.
pub(super) async fn ask(config: &Config) -> (Option<Status>, Finding) {
    let subject = "service";
    match control::ask(&config.state_dir, &Command::Status).await {
        Ok(CommandAnswer::Status(status)) => {
            let finding = of_version(&status);
            (Some(*status), finding)
        }
        Ok(CommandAnswer::Refused(why)) => {
            (None, Finding::new(Level::Away, subject, why, "patchdrop status"))
        }
        Ok(CommandAnswer::Done(_)) | Err(ControlError::Garbled { .. }) => {
            let text = "the service that runs is another version";
            (None, Finding::new(Level::Warning, subject, text, "restart the service"))
        }
        Err(error @ (ControlError::Hangs { .. } | ControlError::Ended { .. })) => {
            (None, Finding::new(Level::Away, subject, chain(&error), "see its log; restart it"))
        }
        Err(ControlError::NoService { path }) => {
            let text = if has_ended_uncleanly(&config.state_dir, &path) {
                "no service runs: nothing is sent; the last one did not end in order (killed, or \
                 the power went), and the next start goes on from the record"
            } else {
                "no service runs: nothing is sent"
            };
            let remedy = "patchdrop service start, or patchdrop run";
            (None, Finding::new(Level::Warning, subject, text, remedy))
        }
        Err(error) => {
            let remedy = "run this as the service's account or as root";
            (None, Finding::new(Level::Warning, subject, chain(&error), remedy))
        }
    }
}

/// An end in order takes the socket away and puts all of the ledger's WAL into its database.
#[expect(clippy::disallowed_methods, reason = "what a service has left behind is looked at")]
fn has_ended_uncleanly(state_dir: &Path, socket: &Path) -> bool {
    let wal = std::fs::metadata(state_dir.join("ledger/ledger.db-wal"));
    std::fs::symlink_metadata(socket).is_ok() || wal.is_ok_and(|wal| wal.len() > 0)
}

/// What the record says of itself for good.
pub(super) fn of_record(config: &Config) -> Option<Finding> {
    let has_lost = records::open_ledger(config).ok()?.has_lost().ok()?;
    let text = "was lost, or an older copy, once: what was sent meanwhile is on no record";
    has_lost.then(|| Finding::ok("record", text))
}

fn of_version(status: &Status) -> Finding {
    let (theirs, ours) = (&status.version, env!("CARGO_PKG_VERSION"));
    let pid = status.pid;
    if theirs == ours {
        return Finding::ok("service", format!("version {theirs} runs as process {pid}"));
    }
    let text = format!("version {theirs} runs as process {pid}, and this is {ours}");
    Finding::new(Level::Warning, "service", text, "restart the service")
}

/// What keeps files, as `health` judges it.
pub(super) fn symptoms(status: &Status, style: &Style) -> Vec<Finding> {
    let health = health::judge(status, Lately::default(), MAX_WAIT, style.now);
    let finding = |symptom: health::Symptom| {
        let level = match symptom.level {
            health::Level::Ok => Level::Ok,
            health::Level::Warning => Level::Warning,
            health::Level::Critical | health::Level::Unknown => Level::Away,
        };
        // What doctor is named for stands in its other sections.
        let remedy = match symptom.remedy.split_once(": patchdrop doctor") {
            Some((what, _)) => format!("{what}: see Limits above"),
            None => symptom.remedy,
        };
        Finding::new(level, "files", symptom.text, remedy)
    };
    let found: Vec<Finding> = health.symptoms.into_iter().map(finding).collect();
    if found.is_empty() {
        return vec![Finding::ok("files", "nothing keeps them from being sent")];
    }
    found
}

/// What systemd says of the unit, where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    name: String,
    is_strict: bool,
    writable: Vec<PathBuf>,
}

/// The unit of the running service, else the one that a package installs.
#[expect(clippy::disallowed_methods, reason = "Linux tells in a file which unit a process is of")]
pub(super) async fn unit(pid: Option<u32>) -> Option<Unit> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let groups = pid.map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")));
    let own = groups.and_then(Result::ok).and_then(|groups| unit_in(&groups));
    let name = own.unwrap_or_else(|| "patchdrop.service".to_owned());
    let asked = name.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let properties = ["-p", "LoadState", "-p", "ProtectSystem", "-p", "ReadWritePaths"];
        let mut command = std::process::Command::new("systemctl");
        command.arg("show").args(properties).arg(asked).stdin(std::process::Stdio::null());
        command.output().ok()
    });
    let told = tokio::time::timeout(SYSTEMD_FOR, asking).await.ok()?.ok()??;
    unit_of(name, &String::from_utf8_lossy(&told.stdout))
}

/// The unit that a process is of, by its control groups.
fn unit_in(groups: &str) -> Option<String> {
    let last = |line: &str| Some(line.rsplit(['/', ':']).next()?.to_owned());
    groups.lines().filter_map(last).find(|name| name.ends_with(".service"))
}

fn unit_of(name: String, told: &str) -> Option<Unit> {
    let value = |key: &str| told.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if value("LoadState")? != "loaded" {
        return None;
    }
    let is_strict = value("ProtectSystem").is_some_and(|how| how == "strict");
    let listed = value("ReadWritePaths").unwrap_or_default().split_whitespace();
    // A minus says that it need not be there, a plus that it is below another root.
    let writable = listed.map(|path| path.trim_start_matches(['-', '+']).into()).collect();
    Some(Unit { name, is_strict, writable })
}

/// Whether the unit lets the service write into its drop folders, each route's as one mount.
pub(super) fn of_unit(unit: &Unit, config: &Config, routes: &[Arc<Route>]) -> Vec<Finding> {
    let name = &unit.name;
    if !unit.is_strict {
        return vec![Finding::ok("unit", format!("{name} lets the service write everywhere"))];
    }
    let entry = |path: &Path| {
        let covering = unit.writable.iter().filter(|entry| path.starts_with(entry));
        covering.max_by_key(|entry| entry.as_os_str().len())
    };
    let remedy = "patchdrop service install writes the ReadWritePaths that the config needs; then \
                  systemctl daemon-reload and restart the service";
    let mut findings = Vec::new();
    for root in config.root.iter().filter(|root| entry(root).is_none()) {
        let text = format!("{name} does not let the service write into {}", root.display());
        findings.push(Finding::new(Level::Refused, "unit", text, remedy));
    }
    for route in routes {
        let folders = &route.folders;
        let all = [&folders.inbox, &folders.sent, &folders.failed, &folders.held];
        if let Some(missing) = all.into_iter().find(|folder| entry(folder).is_none()) {
            let is_said = config.root.as_ref().is_some_and(|it| missing.starts_with(it));
            if !is_said || config.root.as_ref().is_some_and(|root| entry(root).is_some()) {
                let missing = missing.display();
                let text = format!("{name} does not let the service write into {missing}");
                findings.push(Finding::new(Level::Refused, "unit", text, remedy));
            }
        } else if all.into_iter().any(|folder| entry(folder) != entry(&folders.inbox)) {
            let text = format!(
                "ReadWritePaths of {name} has the folders of route {} in several entries, each a \
                 mount of its own: files are copied from one to another",
                route.name
            );
            findings.push(Finding::new(Level::Warning, "unit", text, remedy));
        }
    }
    if findings.is_empty() {
        let text = format!("{name} lets the service write where it must");
        findings.push(Finding::ok("unit", text));
    }
    findings
}

/// The section, from what was found.
pub(super) fn section(findings: Vec<Finding>) -> Section {
    Section { title: "Service", findings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;
    use crate::model::status::RouteStatus;

    #[test]
    fn a_unit_is_found_by_process_and_told_by_systemd() {
        let groups = "12:pids:/system.slice/patchdrop@shop7.service\n0::/init.scope\n";
        assert_eq!(unit_in(groups).as_deref(), Some("patchdrop@shop7.service"));
        assert_eq!(unit_in("0::/user.slice/session-1.scope\n"), None);
        let told = "LoadState=loaded\nProtectSystem=strict\nReadWritePaths=/srv/drop -/var/x\n";
        let unit = unit_of("a.service".to_owned(), told).unwrap();
        assert!(unit.is_strict);
        assert_eq!(unit.writable, [PathBuf::from("/srv/drop"), PathBuf::from("/var/x")]);
        assert_eq!(unit_of("a.service".to_owned(), "LoadState=not-found\n"), None);
    }

    #[test]
    fn a_unit_must_let_the_service_write_into_each_route_as_one_mount() {
        let root = tempfile::tempdir().unwrap();
        let mut config = fixture::config(root.path(), &["orders"]);
        config.root = None;
        let check = |writable: &[&str], is_strict, level: Level, text: &str| {
            let writable = writable.iter().map(|below| root.path().join(below)).collect();
            let unit = Unit { name: "patchdrop.service".to_owned(), is_strict, writable };
            let found = of_unit(&unit, &config, &config.routes);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].level, level, "{found:?}");
            assert!(found[0].text.contains(text), "{found:?}");
        };
        check(&[], false, Level::Ok, "everywhere");
        check(&[""], true, Level::Ok, "where it must");
        check(&["orders"], true, Level::Ok, "where it must");
        check(&["orders", "orders/sent"], true, Level::Warning, "each a mount of its own");
        check(&["elsewhere"], true, Level::Refused, "does not let the service write into");
    }

    #[tokio::test]
    async fn a_service_that_did_not_end_in_order_is_told() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let told = async || ask(&config).await.1.text;
        assert_eq!(told().await, "no service runs: nothing is sent");
        let socket = config.state_dir.join(control::SOCKET_NAME);
        #[cfg(unix)]
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        #[cfg(windows)]
        std::fs::write(&socket, r"\\.\pipe\patchdrop-of-a-dead-service").unwrap();
        let said = told().await;
        assert!(said.contains("did not end in order"), "{said}");
    }

    #[test]
    fn what_keeps_files_is_told_as_health_judges_it() {
        let style = fixture::style();
        let mut status = Status { version: "0.0.0".to_owned(), ..Status::default() };
        assert_eq!(symptoms(&status, &style)[0].level, Level::Ok);
        status.alerts = vec!["x".to_owned()];
        assert_eq!(symptoms(&status, &style)[0].level, Level::Warning);
        status.grave = status.alerts.clone();
        assert_eq!(symptoms(&status, &style)[0].level, Level::Away);
        assert_eq!(of_version(&status).level, Level::Warning);
        status.version = env!("CARGO_PKG_VERSION").to_owned();
        assert_eq!(of_version(&status).level, Level::Ok);

        let route = RouteStatus { watch_fault: Some("no more".into()), ..RouteStatus::default() };
        let status = Status { routes: vec![route], ..Status::default() };
        let remedy = symptoms(&status, &style).remove(0).remedy;
        assert!(remedy.ends_with(": see Limits above"), "{remedy}");
    }
}
