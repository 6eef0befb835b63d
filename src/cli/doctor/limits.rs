//! What the system lets a service have: watches, open files, room.
#![expect(clippy::disallowed_methods, reason = "Linux tells its limits in files")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::findings::{Finding, Level, Section};
use crate::cli::screen::{counted, shown_bytes};
use crate::journey::room;
use crate::model::room::Room;
use crate::world::folder::Disk;

/// Fewer open files than this run out as soon as many files are on their way.
const OPEN_FILES_MIN: u64 = 4_096;
/// Other programs watch, too.
const WATCHES_OF_OTHERS: u64 = 1_024;

/// `folders`: how many are watched. `pid`: the service's process, where it runs.
pub(super) fn section(folders: u64, pid: Option<u32>) -> Section {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    let watches = number("/proc/sys/fs/inotify/max_user_watches");
    let instances = number("/proc/sys/fs/inotify/max_user_instances");
    let whose = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let open = fs::read_to_string(format!("/proc/{whose}/limits")).ok();
    let open = open.as_deref().and_then(open_files_in);
    let findings =
        [watched(folders, watches), queues(instances), open.map(|most| files(most, pid.is_some()))];
    Section { title: "Limits", findings: findings.into_iter().flatten().collect() }
}

fn watched(folders: u64, most: Option<u64>) -> Option<Finding> {
    let most = most?;
    let needed = folders + WATCHES_OF_OTHERS;
    let text = format!(
        "{} to be watched; the system allows {most} watches an account",
        counted(folders, "folder")
    );
    if most >= needed {
        return Some(Finding::ok("watches", text));
    }
    let wanted = (needed * 2).next_power_of_two();
    let remedy = format!(
        "echo fs.inotify.max_user_watches={wanted} > /etc/sysctl.d/60-patchdrop.conf && sysctl \
         --system; until then folders without a watch are polled"
    );
    Some(Finding::new(Level::Warning, "watches", text, remedy))
}

fn queues(most: Option<u64>) -> Option<Finding> {
    let most = most.filter(|most| *most < 16)?;
    let text = format!("the system allows {most} programs of an account to watch folders");
    let remedy = "echo fs.inotify.max_user_instances=128 > /etc/sysctl.d/60-patchdrop.conf && \
                  sysctl --system";
    Some(Finding::new(Level::Warning, "watches", text, remedy))
}

/// The hard limit, to which the service raises its own.
fn open_files_in(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let hard = line.split_whitespace().nth(1)?;
    if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }
}

fn files(most: u64, is_of_service: bool) -> Finding {
    let whose = if is_of_service { "the service" } else { "this shell" };
    if most >= OPEN_FILES_MIN {
        let most =
            if most == u64::MAX { "as many as it likes".to_owned() } else { most.to_string() };
        return Finding::ok("open files", format!("{whose} may have {most} open"));
    }
    let text = format!("{whose} may have {most} open");
    let remedy = "LimitNOFILE=65536 in the unit, ulimit -Hn 65536 in a shell";
    Finding::new(Level::Warning, "open files", text, remedy)
}

/// Room on the volumes of these folders, each volume once.
pub(super) async fn room(folders: Vec<PathBuf>, disk: &impl Disk) -> Section {
    let mut volumes: BTreeMap<(u64, u64), (PathBuf, Room)> = BTreeMap::new();
    for folder in folders {
        let there = folder.ancestors().find(|path| path.is_dir()).map(Arc::from);
        let Some(there) = there else { continue };
        let Ok(Some(seen)) = disk.inspect(Arc::clone(&there)).await else { continue };
        for (_, room) in disk.rooms(vec![there]).await {
            // Shares number their folders as they like; their sizes tell them apart.
            let volume = if seen.is_local { seen.volume } else { 0 };
            volumes.entry((volume, room.total_bytes)).or_insert((folder.clone(), room));
        }
    }
    let findings = volumes.into_values().map(|(folder, room)| of_volume(&folder, &room));
    Section { title: "Room", findings: findings.collect() }
}

fn of_volume(folder: &std::path::Path, room: &Room) -> Finding {
    let files = room.free_files.map_or_else(String::new, |files| format!(" and for {files} files"));
    let text = format!(
        "room for {} of {}{files}; nothing new is begun below {}",
        shown_bytes(room.free_bytes),
        shown_bytes(room.total_bytes),
        shown_bytes(room::floor_bytes(room))
    );
    let subject = folder.display().to_string();
    let remedy = "free space there, or have patchdrop's folders on a larger volume";
    match room::assess(room, false) {
        room::Level::Ample => Finding::ok(subject, text),
        room::Level::Low => Finding::new(Level::Warning, subject, text, remedy),
        room::Level::Short => Finding::new(Level::Away, subject, text, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_and_open_files_are_compared_with_what_is_needed() {
        let check = |finding: Option<Finding>, level: Option<Level>, remedy: &str| {
            assert_eq!(finding.as_ref().map(|it| it.level), level, "{finding:?}");
            let said = finding.map_or_else(String::new, |it| it.remedy);
            assert!(said.contains(remedy), "{said}");
        };
        check(watched(100, Some(8_192)), Some(Level::Ok), "");
        check(watched(8_000, Some(8_192)), Some(Level::Warning), "max_user_watches=32768");
        check(watched(100, None), None, "");
        check(queues(Some(128)), None, "");
        check(queues(Some(8)), Some(Level::Warning), "max_user_instances");
        check(Some(files(65_536, true)), Some(Level::Ok), "");
        check(Some(files(1_024, true)), Some(Level::Warning), "LimitNOFILE=65536");
        let limits = "Max processes   1  2  processes\nMax open files   1024   524288   files\n";
        assert_eq!(open_files_in(limits), Some(524_288));
        assert_eq!(open_files_in("Max open files   1   unlimited   files"), Some(u64::MAX));
        assert_eq!(open_files_in(""), None);
    }

    #[test]
    fn a_full_volume_is_a_fault_before_it_keeps_files_waiting() {
        let check = |free_bytes, level: Level| {
            let room = Room { free_bytes, total_bytes: 100 << 30, free_files: None };
            let found = of_volume(std::path::Path::new("/srv"), &room);
            assert_eq!(found.level, level, "{found:?}");
            assert_eq!(found.remedy.is_empty(), level == Level::Ok);
        };
        check(50 << 30, Level::Ok);
        check(500 << 20, Level::Warning);
        check(1 << 20, Level::Away);
    }
}
