//! A service of systemd: its unit where no package brought it, one drop-in with what the config
//! asks for, and `systemctl`.
#![expect(clippy::disallowed_methods, reason = "unit files are written where systemd looks")]

#[cfg(test)]
mod tests;
mod units;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Installation, Instance, Report, Runs, ServiceError, Standing, Step};
use crate::model::quoted::quoted;

/// Where packages put units; the last one is read by systemd only where the others have none.
const PACKAGED: [&str; 3] =
    ["usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
/// Where an administrator's units are.
const OWN: &str = "etc/systemd/system";
/// The drop-in's name in the folder of its service.
const DROP_IN: &str = "root.conf";

/// What a program answered.
struct Said {
    is_well: bool,
    out: String,
    err: String,
}

/// The machine: its files, from `root` on, and its programs.
struct Host<'h> {
    root: PathBuf,
    is_administrator: bool,
    run: &'h dyn Fn(&str, &[&str]) -> io::Result<Said>,
}

pub(super) fn draft(installation: &Installation) -> Result<String, ServiceError> {
    this_machine().draft(installation)
}

pub(super) fn install(installation: &Installation) -> Result<Report, ServiceError> {
    this_machine().install(installation)
}

pub(super) fn uninstall(instance: &Instance) -> Result<Report, ServiceError> {
    this_machine().uninstall(instance)
}

pub(super) fn start(instance: &Instance) -> Result<Report, ServiceError> {
    this_machine().turn("start", instance)
}

pub(super) fn stop(instance: &Instance) -> Result<Report, ServiceError> {
    this_machine().turn("stop", instance)
}

pub(super) fn status(instance: &Instance) -> Result<Standing, ServiceError> {
    this_machine().status(instance)
}

fn this_machine() -> Host<'static> {
    Host {
        root: PathBuf::from("/"),
        is_administrator: rustix::process::geteuid().is_root(),
        run: &|program, arguments| {
            let output = Command::new(program)
                .args(arguments)
                .env("LC_ALL", "C")
                .stdin(Stdio::null())
                .output()?;
            Ok(Said {
                is_well: output.status.success(),
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        },
    }
}

/// Everything that an installation changes, decided before anything is.
struct Plan {
    /// The account is made: it is the units' own, and no package has made it.
    makes_account: bool,
    /// Files to write, whole.
    files: Vec<(PathBuf, String)>,
    /// What is worth saying.
    notes: Vec<String>,
}

/// An account as the system knows it.
struct Account {
    name: String,
    number: u32,
    groups: Vec<u32>,
}

impl Host<'_> {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// As it is called on the machine itself.
    fn shown(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        Path::new("/").join(below).display().to_string()
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> Result<Said, ServiceError> {
        (self.run)(program, arguments).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound && program == "systemctl" {
                ServiceError::Absent { why: "this machine has no systemd (no systemctl)" }
            } else {
                ServiceError::Io { doing: "run", path: program.into(), source }
            }
        })
    }

    /// Asks for something to be done.
    fn tell(&self, program: &str, arguments: &[&str], hint: &str) -> Result<(), ServiceError> {
        let said = self.ask(program, arguments)?;
        if said.is_well {
            return Ok(());
        }
        let what = format!("{program} {}", arguments.join(" "));
        let said = said.err.trim().replace('\n', "; ");
        Err(ServiceError::Refused { what, said, hint: hint.to_owned() })
    }

    fn is_booted(&self) -> bool {
        self.path("run/systemd/system").is_dir()
    }

    fn needs_rights(&self, doing: &'static str) -> Result<(), ServiceError> {
        if self.is_administrator { Ok(()) } else { Err(ServiceError::NoRights { doing }) }
    }

    fn account(&self, name: &str) -> Result<Option<Account>, ServiceError> {
        let said = self.ask("getent", &["passwd", name])?;
        let Some(number) = said.out.split(':').nth(2).and_then(|number| number.parse().ok()) else {
            return Ok(None);
        };
        let groups = self.ask("id", &["-G", name])?;
        let groups = groups.out.split_whitespace().filter_map(|group| group.parse().ok()).collect();
        Ok(Some(Account { name: name.to_owned(), number, groups }))
    }

    fn drop_in_path(&self, instance: &Instance) -> PathBuf {
        self.path(OWN).join(format!("{}.d", units::service(instance))).join(DROP_IN)
    }

    fn plan(&self, installation: &Installation) -> Result<Plan, ServiceError> {
        let mut plan = Plan { makes_account: false, files: Vec::new(), notes: Vec::new() };
        let mut group = None;
        match &installation.account {
            None => plan.makes_account = self.account(units::ACCOUNT)?.is_none(),
            Some(name) => {
                if self.account(name)?.is_none() {
                    return Err(ServiceError::Unfit {
                        what: format!("there is no account {name}"),
                        hint: format!("make it: {}", make_account(name).join(" ")),
                    });
                }
                group = Some(self.ask("id", &["-gn", name])?.out.trim().to_owned());
            }
        }
        let (name, unit) = units::unit(&installation.instance);
        let own = self.path(OWN).join(name);
        let packaged = PACKAGED.map(|folder| self.path(folder).join(name));
        match fs::read_to_string(&own) {
            Ok(found) if found != unit => plan.notes.push(format!(
                "{} differs from the unit that this patchdrop brings, and stays as it is; to have \
                 the new one remove it and install again",
                self.shown(&own)
            )),
            Ok(_) => {}
            Err(_) if packaged.iter().any(|path| path.exists()) => {}
            Err(_) => plan.files.push((own, unit.to_owned())),
        }
        let drop_in = units::drop_in(installation, group.as_deref())?;
        plan.files.push((self.drop_in_path(&installation.instance), drop_in));
        if units::writes(installation).len() > 1 {
            plan.notes.push(
                "the service writes in more than one tree of folders: files that go from one to \
                 another are copied, not renamed"
                    .to_owned(),
            );
        }
        Ok(plan)
    }

    fn draft(&self, installation: &Installation) -> Result<String, ServiceError> {
        let plan = self.plan(installation)?;
        let mut parts = Vec::new();
        if plan.makes_account {
            parts.push(format!("$ {}\n", make_account(units::ACCOUNT).join(" ")));
        }
        for (path, text) in &plan.files {
            parts.push(format!("── {}\n{text}", self.shown(path)));
        }
        let service = units::service(&installation.instance);
        parts.push(format!("$ systemctl daemon-reload\n$ systemctl enable {service}\n"));
        parts.extend(plan.notes.iter().map(|note| format!("({note})\n")));
        let account = installation.account.as_deref().unwrap_or(units::ACCOUNT);
        let left = self.left_to_do(installation, account)?;
        parts.extend(left.iter().map(|step| format!("({})\n$ {}\n", step.why, step.command)));
        Ok(parts.join("\n"))
    }

    fn install(&self, installation: &Installation) -> Result<Report, ServiceError> {
        self.needs_rights("install")?;
        let plan = self.plan(installation)?;
        let mut report = Report::default();
        if plan.makes_account {
            let command = make_account(units::ACCOUNT);
            let arguments: Vec<&str> = command.iter().skip(1).map(String::as_str).collect();
            self.tell(&command[0], &arguments, "make the account and install again")?;
            report.done.push(format!("the account {} is made", units::ACCOUNT));
        }
        for (path, text) in &plan.files {
            let is_new = write(path, text)?;
            let state = if is_new { "is written" } else { "is there already, with this content" };
            report.done.push(format!("{} {state}", self.shown(path)));
        }
        let service = units::service(&installation.instance);
        if self.is_booted() {
            self.tell("systemctl", &["daemon-reload"], "run it by hand to see more")?;
        }
        self.tell("systemctl", &["enable", &service], "run it by hand to see more")?;
        report.done.push(format!("{service} starts with the system"));
        report.done.extend(plan.notes);
        let account = installation.account.as_deref().unwrap_or(units::ACCOUNT);
        report.next = self.left_to_do(installation, account)?;
        Ok(report)
    }

    /// What keeps the account from its work, as far as owner and mode tell.
    fn left_to_do(
        &self,
        installation: &Installation,
        account: &str,
    ) -> Result<Vec<Step>, ServiceError> {
        let mut steps = Vec::new();
        let Some(account) = self.account(account)? else { return Ok(steps) };
        let name = &account.name;
        let reads = [installation.config.clone(), installation.program.clone()];
        for path in units::writes(installation).iter().chain(&reads) {
            let Some(closed) = self.closed_above(path, &account) else { continue };
            steps.push(Step {
                why: format!(
                    "{name} cannot go through {}, and has to reach {}",
                    closed.display(),
                    path.display()
                ),
                command: format!("chmod o+x {}", quoted(&closed)),
            });
        }
        for tree in units::writes(installation) {
            let here = self.root.join(tree.strip_prefix("/").unwrap_or(&tree));
            let shown = tree.display();
            match fs::metadata(&here) {
                Err(_) => steps.push(Step {
                    why: format!("{shown} is not there, and the service cannot start without it"),
                    command: format!("install -d -m 3770 -o {name} -g {name} {}", quoted(&tree)),
                }),
                Ok(found) if account.may(&found, 0o3) => {}
                Ok(found) => steps.push(Step {
                    why: format!(
                        "{name} may not write in {shown} (owner {}, mode {:04o})",
                        found.uid(),
                        found.mode() & 0o7777
                    ),
                    command: format!("chown {name}: {0} && chmod 3770 {0}", quoted(&tree)),
                }),
            }
        }
        let config = &installation.config;
        let here = self.root.join(config.strip_prefix("/").unwrap_or(config));
        if fs::metadata(here).is_ok_and(|found| !account.may(&found, 0o4)) {
            let shown = config.display();
            steps.push(Step {
                why: format!("{name} may not read {shown}"),
                command: format!("chgrp {name} {0} && chmod 640 {0}", quoted(config)),
            });
        }
        let program = &installation.program;
        let here = self.root.join(program.strip_prefix("/").unwrap_or(program));
        if fs::metadata(here).is_ok_and(|found| !account.may(&found, 0o1)) {
            let program = quoted(program);
            steps.push(Step {
                why: format!("{name} may not run {program}"),
                command: format!("chmod 755 {program}"),
            });
        }
        steps.dedup();
        Ok(steps)
    }

    /// The first folder above a path that an account cannot go through, as the machine calls it.
    fn closed_above(&self, path: &Path, account: &Account) -> Option<PathBuf> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        let is_closed = |folder: &&Path| {
            let below = folder.strip_prefix("/").unwrap_or(folder);
            let found = fs::metadata(self.root.join(below));
            !below.as_os_str().is_empty() && found.is_ok_and(|found| !account.may(&found, 0o1))
        };
        above.into_iter().find(is_closed).map(Path::to_owned)
    }

    fn uninstall(&self, instance: &Instance) -> Result<Report, ServiceError> {
        self.needs_rights("uninstall")?;
        let service = units::service(instance);
        let drop_in = self.drop_in_path(instance);
        let (name, unit) = units::unit(instance);
        let own = self.path(OWN).join(name);
        let is_own = fs::read_to_string(&own).is_ok_and(|found| found == unit);
        if !drop_in.exists() && !is_own {
            return Err(ServiceError::NotInstalled { service });
        }
        let mut report = Report::default();
        let disable: &[&str] =
            if self.is_booted() { &["disable", "--now", &service] } else { &["disable", &service] };
        self.tell("systemctl", disable, "run it by hand to see more")?;
        report.done.push(format!("{service} is stopped and does not start with the system"));
        if remove(&drop_in)? {
            report.done.push(format!("{} is removed", self.shown(&drop_in)));
        }
        // With settings of the administrator's own in it, it stays.
        if let Some(folder) = drop_in.parent() {
            fs::remove_dir(folder).ok();
        }
        if is_own && !self.others_use(name) && remove(&own)? {
            report.done.push(format!("{} is removed", self.shown(&own)));
        }
        if self.is_booted() {
            self.tell("systemctl", &["daemon-reload"], "run it by hand to see more")?;
            // One that has failed is forgotten; one that has not is nothing to forget.
            self.ask("systemctl", &["reset-failed", &service])?;
        }
        report.done.push("config, state, drop folders and account stay".to_owned());
        Ok(report)
    }

    /// Whether another instance still has its drop-in beside the unit that they share.
    fn others_use(&self, unit: &str) -> bool {
        let Some((stem, _)) = unit.split_once("@.") else { return false };
        let Ok(found) = fs::read_dir(self.path(OWN)) else { return false };
        let stem = format!("{stem}@");
        found.flatten().any(|entry| {
            let name = entry.file_name();
            let ends = Path::new(&name).extension().is_some_and(|ending| ending == "d");
            ends && name.to_str().is_some_and(|name| name.starts_with(&stem))
        })
    }

    fn turn(&self, verb: &'static str, instance: &Instance) -> Result<Report, ServiceError> {
        self.needs_rights(verb)?;
        let service = units::service(instance);
        if !self.is_booted() {
            return Err(ServiceError::Absent { why: "systemd does not run on this machine" });
        }
        if self.status(instance)?.runs == Runs::NotInstalled {
            return Err(ServiceError::NotInstalled { service });
        }
        self.tell("systemctl", &[verb, &service], &format!("journalctl -u {service} -n 30"))?;
        let end = if verb == "start" { "runs" } else { "is stopped" };
        Ok(Report { done: vec![format!("{service} {end}")], ..Report::default() })
    }

    fn status(&self, instance: &Instance) -> Result<Standing, ServiceError> {
        let service = units::service(instance);
        if !self.is_booted() {
            return Err(ServiceError::Absent { why: "systemd does not run on this machine" });
        }
        let properties = "--property=LoadState,ActiveState,UnitFileState,StatusText,MainPID,\
                          ActiveEnterTimestamp,Result,ExecMainStatus,ReadWritePaths";
        let said = self.ask("systemctl", &["show", &service, properties])?;
        Ok(standing(service, &said.out))
    }
}

impl Account {
    /// Whether owner and mode let it do all of `wanted` (4 read, 2 write, 1 enter).
    fn may(&self, found: &fs::Metadata, wanted: u32) -> bool {
        let mode = found.permissions().mode();
        let shift = if found.uid() == self.number {
            6
        } else if self.groups.contains(&found.gid()) {
            3
        } else {
            0
        };
        self.number == 0 || (mode >> shift) & wanted == wanted
    }
}

fn standing(service: String, shown: &str) -> Standing {
    let value = |key: &str| {
        let mut lines = shown.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == key).map_or("", |(_, value)| value)
    };
    let runs = match (value("LoadState"), value("ActiveState")) {
        ("not-found", _) => Runs::NotInstalled,
        (_, "active" | "reloading" | "refreshing") => Runs::Running,
        (_, "activating") => Runs::Starting,
        (_, "deactivating") => Runs::Stopping,
        (_, "failed") => Runs::Failed,
        _ => Runs::Stopped,
    };
    let mut facts = Vec::new();
    let mut fact = |what: &str, key: &str| {
        if !value(key).is_empty() {
            facts.push(format!("{what}{}", value(key)));
        }
    };
    if runs == Runs::Running {
        fact("", "StatusText");
        fact("since ", "ActiveEnterTimestamp");
        fact("process ", "MainPID");
    }
    if runs == Runs::Failed {
        fact("ended with exit code ", "ExecMainStatus");
        fact("systemd says: ", "Result");
    }
    fact("may write: ", "ReadWritePaths");
    let starts_with_system = value("UnitFileState") == "enabled";
    Standing { service, runs, starts_with_system, facts }
}

/// The command that makes an account for a service.
fn make_account(name: &str) -> Vec<String> {
    let home = "/var/lib/patchdrop";
    let shell = "/usr/sbin/nologin";
    ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell"]
        .into_iter()
        .chain([shell, name])
        .map(str::to_owned)
        .collect()
}

/// Writes a file whole or not at all; whether that changed anything.
fn write(path: &Path, text: &str) -> Result<bool, ServiceError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| ServiceError::Io { doing, path, source }
    };
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failed("make", folder))?;
    let part = path.with_extension("part");
    let written = fs::File::create(&part).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).map_err(failed("write", path))?;
    Ok(true)
}

/// Removes a file; whether it was there.
fn remove(path: &Path) -> Result<bool, ServiceError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(ServiceError::Io { doing: "remove", path: path.to_owned(), source }),
    }
}
