//! Folders: are they there, may the service work in them, may others, and on which volumes are
//! they? Judged as the service itself judges them before it works.

use std::path::Path;
use std::sync::Arc;

use super::account::{Judged, Rights, Wanted};
use super::own;
use crate::cli::findings::{Finding, Level, Section};
use crate::cli::serve;
use crate::config::Config;
use crate::journey::grounds::{self, Role, Unfit};
use crate::model::file::FolderSeen;
use crate::model::quoted::quoted;
use crate::model::route::Route;
use crate::world::folder::{Disk, Volume, volume_kind};

const GROUP_OR_OTHERS: u32 = 0o022;
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// Looks at everything that the service works with on disk.
pub(super) async fn section(
    config: &Config,
    routes: &[Arc<Route>],
    judged: &Judged,
    disk: &impl Disk,
    flag: &str,
) -> Section {
    let title = "Folders";
    if let Some(keeper) = &judged.stranger_to {
        return Section { title, findings: vec![not_judged(config, judged, keeper, flag)] };
    }
    let mut findings = vec![whose(config, judged), of_config(config, judged)];
    findings.push(of_state_dir(&config.state_dir, judged));
    findings.extend(own::findings(config, &serve::marked_folders(config), judged));
    if let Some(root) = &config.root {
        findings.extend(of_root(root, judged, disk).await);
    }
    for route in routes {
        findings.extend(of_route(route, judged, disk).await);
    }
    Section { title, findings }
}

/// What this account may or may not do says nothing about the service.
fn not_judged(config: &Config, judged: &Judged, keeper: &str, flag: &str) -> Finding {
    let text = format!(
        "this runs as {}, and {} belongs to {keeper}: rights and folders were not judged",
        judged.name,
        config.state_dir.display()
    );
    let remedy =
        format!("run doctor as the service's account: sudo -u {keeper} patchdrop{flag} doctor");
    Finding::new(Level::Warning, "account", text, remedy)
}

fn whose(config: &Config, judged: &Judged) -> Finding {
    let name = &judged.name;
    let text = format!("rights are judged for {name}, the account that works in state_dir");
    if judged.number != 0 {
        return Finding::ok("account", text);
    }
    let remedy = if config.state_dir.exists() {
        "run the service under an account of its own, and give it state_dir and the drop folders"
    } else {
        "run this again when the service has run once, or as its account (sudo -u ACCOUNT)"
    };
    Finding::new(Level::Warning, "account", text, remedy)
}

fn of_config(config: &Config, judged: &Judged) -> Finding {
    let path = config.path.display();
    let Some(rights) = Rights::of(&config.path) else {
        return Finding::ok("config", format!("{path} is read"));
    };
    if rights.mode & 0o002 != 0 {
        let text =
            format!("{path} can be written by everybody, who could have files sent elsewhere");
        return Finding::new(
            Level::Refused,
            "config",
            text,
            format!("chmod o-w {}", quoted(&config.path)),
        );
    }
    if !judged.may(Wanted::Read, &config.path) {
        let text = format!("{path} cannot be read by {}", judged.name);
        let remedy = format!("chgrp {} {1} && chmod 640 {1}", judged.name, quoted(&config.path));
        return Finding::new(Level::Refused, "config", text, remedy);
    }
    Finding::ok("config", format!("{path} can be read by {}", judged.name))
}

fn of_state_dir(state_dir: &Path, judged: &Judged) -> Finding {
    let (shown, name) = (state_dir.display(), &judged.name);
    let Some(rights) = Rights::of(state_dir) else {
        let text = format!("{shown} is not there yet; the service makes it where it may");
        return Finding::ok("state_dir", text);
    };
    if rights.mode & OTHERS != 0 {
        let text = format!(
            "{shown} is open to other accounts (mode {:04o}): ledger and token are in it",
            rights.mode
        );
        return Finding::new(
            Level::Warning,
            "state_dir",
            text,
            format!("chmod 700 {}", quoted(state_dir)),
        );
    }
    if !may_work(judged, state_dir) {
        let text = format!("{name} cannot work in {shown}");
        return Finding::new(Level::Refused, "state_dir", text, give(judged, state_dir));
    }
    if let Volume::Remote { kind } = volume_kind(state_dir) {
        let text = format!("{shown} is on a volume of another machine ({kind}), where locks fail");
        let remedy = "set state_dir to a folder on a local disk";
        return Finding::new(Level::Refused, "state_dir", text, remedy);
    }
    Finding::ok("state_dir", format!("{shown} is for {name} alone"))
}

async fn of_root(root: &Arc<Path>, judged: &Judged, disk: &impl Disk) -> Option<Finding> {
    let shown = root.display();
    let seen = disk.inspect(Arc::clone(root)).await;
    Some(match seen {
        Err(error) => Finding::new(Level::Away, "root", crate::daemon::chain(&error), LOOK),
        Ok(None) => {
            let text = format!("{shown} is not there");
            Finding::new(Level::Away, "root", text, make(judged, root))
        }
        Ok(Some(seen)) => {
            if let Some(finding) = unfit("root", Role::Root, root, &seen, judged) {
                return Some(finding);
            }
            if !may_work(judged, root) {
                let text = format!("{} cannot work in {shown}", judged.name);
                return Some(Finding::new(Level::Refused, "root", text, give(judged, root)));
            }
            Finding::ok("root", format!("{shown} can be worked in"))
        }
    })
}

const LOOK: &str = "see whether its volume is mounted, and its rights";

async fn of_route(route: &Route, judged: &Judged, disk: &impl Disk) -> Vec<Finding> {
    let subject = format!("route {}", route.name);
    let folders = &route.folders;
    let places = [
        (Role::Inbox, &folders.inbox),
        (Role::Sending, &folders.sending),
        (Role::Target, &folders.sent),
        (Role::Target, &folders.failed),
        (Role::Target, &folders.held),
    ];
    let mut findings = Vec::new();
    let mut there = Vec::new();
    for (role, folder) in places {
        match disk.inspect(Arc::clone(folder)).await {
            Ok(Some(seen)) => {
                there.push((role, folder));
                findings.extend(of_folder(&subject, role, folder, &seen, judged));
            }
            Ok(None) if role == Role::Inbox => {
                let text = format!("its folder {} is not there", folder.display());
                return vec![Finding::new(Level::Away, subject, text, make(judged, folder))];
            }
            // It is made when it is needed.
            Ok(None) => {}
            Err(error) => {
                let text = crate::daemon::chain(&error);
                findings.push(Finding::new(Level::Away, &subject, text, LOOK));
            }
        }
    }
    let copied = elsewhere(&subject, &folders.inbox, &there, disk).await;
    let is_well = findings.is_empty() && copied.iter().all(|it| it.level == Level::Ok);
    if is_well && copied.is_empty() {
        let text = format!("{} and its folders can be worked in", folders.inbox.display());
        findings.push(Finding::ok(subject, text));
    }
    findings.extend(copied);
    findings
}

fn of_folder(
    subject: &str,
    role: Role,
    folder: &Path,
    seen: &FolderSeen,
    judged: &Judged,
) -> Option<Finding> {
    if let Some(finding) = unfit(subject, role, folder, seen, judged) {
        return Some(finding);
    }
    let shown = folder.display();
    if !may_work(judged, folder) {
        let text = format!("{} cannot work in {shown}", judged.name);
        return Some(Finding::new(Level::Refused, subject, text, give(judged, folder)));
    }
    let is_open = seen.is_local && seen.mode & GROUP_OR_OTHERS != 0 && seen.mode & STICKY == 0;
    (role == Role::Inbox && is_open).then(|| {
        let text = format!(
            "whoever may drop files into {shown} may also move {}'s folders in it away (mode {:04o})",
            judged.name, seen.mode
        );
        let remedy = format!("chown {} {1} && chmod 3770 {1}", judged.name, quoted(folder));
        Finding::new(Level::Warning, subject, text, remedy)
    })
}

/// What the service itself would say of a folder.
fn unfit(
    subject: &str,
    role: Role,
    folder: &Path,
    seen: &FolderSeen,
    judged: &Judged,
) -> Option<Finding> {
    let account = grounds::Account { number: Some(judged.number), ..grounds::Account::default() };
    let why = grounds::may_work_in(role, seen, account).err()?;
    let (shown, name, path) = (folder.display(), &judged.name, quoted(folder));
    let remedy = match why {
        Unfit::Foreign { .. } => format!("chown -R {name} {path}"),
        Unfit::Writable { .. } if role == Role::Sending => format!("chmod go-w {path}"),
        Unfit::Writable { .. } => format!("chmod o-w {path}"),
        Unfit::RootAmongOthers => "patchdrop service install runs it under its own account".into(),
        Unfit::Link | Unfit::NoFolder => {
            let away = quoted(format!("{}.away", folder.display()));
            format!("mv {path} {away}")
        }
        Unfit::OtherVolume | Unfit::Replaced | Unfit::Lost { .. } => LOOK.to_owned(),
    };
    Some(Finding::new(Level::Refused, subject, format!("{shown} {why}"), remedy))
}

/// A file is claimed by a rename; the other moves may copy.
async fn elsewhere(
    subject: &str,
    inbox: &Arc<Path>,
    there: &[(Role, &Arc<Path>)],
    disk: &impl Disk,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (role, folder) in there.iter().filter(|(role, _)| *role != Role::Inbox) {
        if !disk.is_elsewhere(Arc::clone(inbox), Arc::clone(folder)).await {
            continue;
        }
        let shown = folder.display();
        findings.push(if *role == Role::Sending {
            let text = format!(
                "{shown} is on another mount than the drop folder: no file can be claimed by a rename"
            );
            let remedy = format!("umount {}: only the whole drop folder may be a mount", quoted(folder));
            Finding::new(Level::Refused, subject, text, remedy)
        } else {
            let text = format!("{shown} is on another mount: files are copied there, then removed");
            Finding::ok(subject, text)
        });
    }
    findings
}

fn may_work(judged: &Judged, folder: &Path) -> bool {
    judged.may(Wanted::Work, folder) && judged.is_stopped_at(folder).is_none()
}

/// What gives a folder to the account.
fn give(judged: &Judged, folder: &Path) -> String {
    match judged.is_stopped_at(folder) {
        Some(above) => format!("let {} through: chmod o+x {}", judged.name, quoted(above)),
        None => format!("chown {} {}", judged.name, quoted(folder)),
    }
}

fn make(judged: &Judged, folder: &Path) -> String {
    format!("mount its volume, or: install -d -m 3770 -o {} {}", judged.name, quoted(folder))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make the folders that are judged")]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::cli::fixture;
    use crate::model::durability::Durability;
    use crate::world::folder::RealDisk;

    fn disk() -> RealDisk {
        RealDisk::new(Arc::new(AtomicUsize::new(0)), Durability::PowerLoss)
    }

    async fn look(config: &Config, judged: &Judged) -> Vec<Finding> {
        let findings = section(config, &config.routes, judged, &disk(), "").await.findings;
        let ours = |finding: &Finding| finding.subject.starts_with("route");
        findings.into_iter().filter(ours).collect()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn each_fault_of_a_folder_stands_with_the_command_that_mends_it() {
        let root = tempfile::tempdir().unwrap();
        mode(root.path(), 0o755);
        let config = fixture::config(root.path(), &["orders"]);
        let me = rustix::process::geteuid().as_raw();
        let judged = Judged::own(me.max(1));
        let folders = config.routes[0].folders.clone();
        let check = async |level: Level, text: &str, remedy: &str| {
            let found = look(&config, &judged).await;
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].level, level, "{found:?}");
            assert!(found[0].text.contains(text), "{found:?}");
            assert!(found[0].remedy.contains(remedy), "{found:?}");
        };
        check(Level::Ok, "and its folders can be worked in", "").await;
        mode(&folders.sending, 0o770);
        check(Level::Refused, "can be written by others", "chmod go-w ").await;
        mode(&folders.sending, 0o700);
        mode(&folders.inbox, 0o777);
        check(Level::Warning, "may also move", "chmod 3770 ").await;
        mode(&folders.inbox, 0o3770);
        check(Level::Ok, "can be worked in", "").await;
        fs::rename(&folders.sent, root.path().join("away")).unwrap();
        std::os::unix::fs::symlink(root.path().join("away"), &folders.sent).unwrap();
        check(Level::Refused, "is a link", "mv ").await;
        fs::remove_file(&folders.sent).unwrap();
        check(Level::Ok, "can be worked in", "").await;
        fs::rename(&folders.inbox, root.path().join("gone")).unwrap();
        check(Level::Away, "is not there", "install -d -m 3770").await;
    }

    #[tokio::test]
    async fn rights_are_those_of_the_account_that_is_judged() {
        let root = tempfile::tempdir().unwrap();
        mode(root.path(), 0o700);
        let config = fixture::config(root.path(), &["orders"]);
        // Neither owner nor member of any group of these folders.
        let judged = Judged::other(4_711, vec![4_711]);
        let found = look(&config, &judged).await;
        assert!(found.iter().all(|it| it.level == Level::Refused), "{found:?}");
        assert!(found[0].text.starts_with("4711 cannot work in "), "{found:?}");
        let through = format!("let 4711 through: chmod o+x {}", root.path().display());
        assert_eq!(found[0].remedy, through);
        mode(root.path(), 0o755);
        let found = look(&config, &judged).await;
        assert!(found[0].remedy.starts_with("chown 4711 "), "{found:?}");
    }

    #[tokio::test]
    async fn a_third_account_is_told_so_and_finds_no_fault_with_the_service() {
        let root = tempfile::tempdir().unwrap();
        mode(root.path(), 0o700);
        let config = fixture::config(root.path(), &["orders"]);
        let judged = Judged::stranger("patchdrop");
        let found = section(&config, &config.routes, &judged, &disk(), " --config /c").await;
        let [only] = found.findings.as_slice() else { panic!("{found:?}") };
        assert_eq!(only.level, Level::Warning);
        let remedy = "run doctor as the service's account: sudo -u patchdrop patchdrop --config /c \
                      doctor";
        assert_eq!(only.remedy, remedy);
    }

    #[test]
    fn the_config_is_nobody_elses_to_write() {
        let root = tempfile::tempdir().unwrap();
        mode(root.path(), 0o755);
        let config = fixture::config(root.path(), &[]);
        fs::write(&config.path, "").unwrap();
        let check = |bits, judged: &Judged, level: Level, remedy: &str| {
            mode(&config.path, bits);
            let found = of_config(&config, judged);
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.remedy.starts_with(remedy), "{found:?}");
        };
        let own = Judged::of(&config.state_dir);
        check(0o640, &own, Level::Ok, "");
        check(0o646, &own, Level::Refused, "chmod o-w ");
        check(0o640, &Judged::other(4_711, vec![]), Level::Refused, "chgrp 4711 ");
    }
}
