//! Which trees of folders a service must be able to write. Where each becomes a mount of its own,
//! as with systemd, no file can be renamed from one to another: the folders of one route belong
//! into one tree, and strangers out of it.
#![expect(clippy::disallowed_methods, reason = "configs beside this one are looked at")]

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::load;
use crate::config::Config;
use crate::model::route::Route;

/// Folders of a system that nobody's drop folders are worth opening as a whole.
const OF_THE_SYSTEM: [&str; 21] = [
    "bin",
    "boot",
    "dev",
    "etc",
    "home",
    "lib",
    "lib32",
    "lib64",
    "media",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
    "Users",
    "Windows",
    "ProgramData",
];

/// Stands for the folder of any route: a name that no folder has.
const ANY: &str = "any-route-that-is-to-come";

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trees {
    /// The folders, absolute; none lies inside another.
    pub(super) trees: Vec<PathBuf>,
    /// Where the folders of one route could not be kept together.
    pub(super) notes: Vec<String>,
}

/// Where another config beside this one, or in the usual place, keeps its state in the same folder:
/// two services of one `state_dir` are kept from running at once, and each would take the other's
/// files for its own.
pub(super) fn shared_state(state_dir: &Path, path: &Path) -> Vec<String> {
    let usual = super::default_config_path();
    let folders = BTreeSet::from([path.parent(), usual.parent()]);
    let beside = folders.into_iter().flatten().filter_map(|folder| std::fs::read_dir(folder).ok());
    let others = beside.flatten().flatten().map(|entry| entry.path());
    let is_other =
        |other: &PathBuf| other.extension().is_some_and(|ending| ending == "toml") && other != path;
    let shares = |other: PathBuf| {
        // Whatever else is wrong with it.
        let found = load::shelf(&other).ok()?;
        (*found.state_dir == *state_dir).then(|| {
            format!(
                "{} keeps its state in {} too: only one of the two can run at a time, so give each \
                 a `state_dir` of its own",
                other.display(),
                state_dir.display()
            )
        })
    };
    let mut notes: Vec<String> = others.filter(is_other).filter_map(shares).collect();
    notes.sort();
    notes
}

/// The trees of a config with these routes, those discovered by now included. `volume` tells what a
/// folder lies on, where that can be told.
pub(super) fn of(
    config: &Config,
    routes: &[Arc<Route>],
    volume: &dyn Fn(&Path) -> Option<u64>,
) -> Trees {
    let mut groups: Vec<(String, Vec<PathBuf>)> = Vec::new();
    groups.extend(config.root.iter().map(|root| ("root".to_owned(), vec![root.to_path_buf()])));
    for discovery in &config.discoveries {
        let name = discovery.name.clone().unwrap_or_else(|| "auto_routes".to_owned());
        let mut all = vec![discovery.parent.to_path_buf()];
        // What a folder that is yet to come would need.
        if let Ok(route) = discovery.route_of(ANY) {
            let folders = &route.folders;
            let targets = [&folders.sent, &folders.failed, &folders.held];
            all.extend(targets.into_iter().map(|folder| fixed(folder)));
        }
        groups.push((name, all));
    }
    for route in routes {
        let folders = &route.folders;
        // `sending` lies in the drop folder.
        let all = [&folders.inbox, &folders.sent, &folders.failed, &folders.held];
        let all = all.into_iter().map(|folder| fixed(folder)).collect();
        groups.push((format!("route {}", route.name), all));
    }
    if let Some(folder) = config.log.file.as_deref().and_then(Path::parent) {
        groups.push(("log".to_owned(), vec![folder.to_owned()]));
    }
    join(groups, volume)
}

/// The folder that stays the same from day to day and from route to route.
fn fixed(folder: &Path) -> PathBuf {
    let is_fixed = |part: &Component<'_>| {
        let name = part.as_os_str().to_string_lossy();
        !name.contains('{') && !name.contains(ANY)
    };
    folder.components().take_while(is_fixed).collect()
}

fn join(groups: Vec<(String, Vec<PathBuf>)>, volume: &dyn Fn(&Path) -> Option<u64>) -> Trees {
    let mut trees: Vec<PathBuf> = Vec::new();
    let mut apart = Vec::new();
    for (name, folders) in groups {
        let kept: Vec<PathBuf> = outermost(folders);
        if let Some(tree) = common(&kept, volume) {
            trees.push(tree);
        } else {
            apart.push((name, kept.clone()));
            trees.extend(kept);
        }
    }
    let trees = outermost(trees);
    let tree_of = |folder: &Path| trees.iter().position(|tree| folder.starts_with(tree));
    let notes = apart
        .into_iter()
        .filter(|(_, folders)| {
            folders.iter().map(|folder| tree_of(folder)).collect::<BTreeSet<_>>().len() > 1
        })
        .map(|(name, folders)| {
            let shown: Vec<String> =
                folders.iter().map(|folder| folder.display().to_string()).collect();
            format!(
                "{name}: {} lie in trees of their own; files are copied from one to the other, \
                 which takes longer than a rename and is as safe",
                shown.join(" and ")
            )
        })
        .collect();
    Trees { trees, notes }
}

/// Without those that lie inside others, sorted.
fn outermost(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let all: BTreeSet<PathBuf> = folders.into_iter().collect();
    let is_inside =
        |folder: &&PathBuf| !all.iter().any(|other| other != *folder && folder.starts_with(other));
    all.iter().filter(is_inside).cloned().collect()
}

/// The one folder that holds them all and nothing of the system's, on the volume of them all.
fn common(folders: &[PathBuf], volume: &dyn Fn(&Path) -> Option<u64>) -> Option<PathBuf> {
    let (first, others) = folders.split_first()?;
    if others.is_empty() {
        return Some(first.clone());
    }
    let holds_all = |above: &&Path| others.iter().all(|other| other.starts_with(above));
    let tree = first.ancestors().find(holds_all)?;
    let names = tree.components().filter(|part| matches!(part, Component::Normal(_)));
    let names: Vec<String> =
        names.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let is_narrow = match names.as_slice() {
        [] => false,
        [only] => !OF_THE_SYSTEM.contains(&only.as_str()),
        _ => true,
    };
    let is_one_volume = folders.iter().all(|folder| volume(folder) == volume(tree));
    (is_narrow && is_one_volume).then(|| tree.to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Everything below /mnt/NAME is a volume of its own, and so is an archive.
    fn volume(folder: &Path) -> Option<u64> {
        if folder.starts_with("/srv/erp/archive") {
            return Some(7);
        }
        let mount = folder.strip_prefix("/mnt").ok()?.components().next()?;
        Some(mount.as_os_str().to_string_lossy().bytes().map(u64::from).sum())
    }

    fn check(groups: &[&[&str]], trees: &[&str], notes: usize) {
        let group = |(at, folders): (usize, &&[&str])| {
            (format!("route {at}"), folders.iter().map(PathBuf::from).collect())
        };
        let found = join(groups.iter().enumerate().map(group).collect(), &volume);
        let wanted: Vec<PathBuf> = trees.iter().map(PathBuf::from).collect();
        assert_eq!(found.trees, wanted, "{groups:?}");
        assert_eq!(found.notes.len(), notes, "{groups:?} {:?}", found.notes);
    }

    #[test]
    fn a_route_is_never_split_where_its_folders_can_be_kept_together() {
        check(&[&["/srv/drop"]], &["/srv/drop"], 0);
        check(&[&["/srv/drop"], &["/srv/drop/a", "/srv/drop/a/sent"]], &["/srv/drop"], 0);
        check(&[&["/srv/drop"], &["/data/erp"]], &["/data/erp", "/srv/drop"], 0);
        check(&[&["/srv/erp/out", "/srv/erp/sent"]], &["/srv/erp"], 0);
        check(&[&["/srv/out", "/srv/sent"]], &["/srv"], 0);
        let archived = ["/srv/erp/archive/sent", "/srv/erp/out"];
        check(&[&archived], &archived, 1);
        check(&[&["/var/lib/erp", "/var/spool/erp"]], &["/var/lib/erp", "/var/spool/erp"], 1);
        check(&[&["/srv/out", "/data/sent"]], &["/data/sent", "/srv/out"], 1);
        check(&[&["/mnt/a/out", "/mnt/b/sent"]], &["/mnt/a/out", "/mnt/b/sent"], 1);
        check(&[&["/mnt/a/out", "/mnt/a/sent"]], &["/mnt/a"], 0);
        check(&[&["/srv/out", "/mnt/a/sent"], &["/mnt/a"]], &["/mnt/a", "/srv/out"], 1);
        check(
            &[&["/var/a", "/var/b"], &["/srv/x", "/srv/y"], &["/srv/z"]],
            &["/srv", "/var/a", "/var/b"],
            1,
        );
    }

    #[test]
    fn two_configs_beside_each_other_with_one_state_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, state_dir: &str| {
            let text = format!("root = 'drop'\ncompany = 'x'\nstate_dir = '{state_dir}'\n");
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        let path = folder.path().join("config.toml");
        let told = || {
            let own = load::shelf(&path).unwrap();
            shared_state(&own.state_dir, &path)
        };
        write("config.toml", "state");
        write("shop7.toml", "other");
        std::fs::write(folder.path().join("broken.toml"), "root = ").unwrap();
        assert_eq!(told(), Vec::<String>::new());
        write("shop7.toml", "state");
        let said = told();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("shop7.toml keeps its state in "), "{said:?}");
    }

    #[test]
    fn a_date_in_a_folder_is_not_part_of_its_tree() {
        assert_eq!(fixed(Path::new("/srv/sent/{date}/x")), Path::new("/srv/sent"));
        assert_eq!(fixed(Path::new("/srv/sent-{date}")), Path::new("/srv"));
        assert_eq!(fixed(Path::new("/srv/sent")), Path::new("/srv/sent"));
    }
}
