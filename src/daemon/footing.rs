//! The loop's part about disks that are full, read-only or without rights: what stumbles over its
//! folders pauses its route, and room is looked after before it is used up.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Daemon;
use super::carry::Stumble;
use super::event::{Ticket, Work};
use super::files::say;
use super::folders::chain;
use crate::journey::room::{self, Level};
use crate::journey::schedule::Reach;
use crate::model::file::FileId;
use crate::model::outcome::{Cause, Code};
use crate::model::room::Room;
use crate::model::route::RouteName;
use crate::model::time::{Now, Tick};
use crate::world::World;
use crate::world::folder::{Disk, FolderError, MoveError};

/// How often room is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How often where nothing is under way.
const LOOK_AT_REST: Duration = Duration::from_mins(1);

/// How often where the volume does not tell.
const LOOK_SELDOM: Duration = Duration::from_mins(10);

/// How often while there is little.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One line a route in this time about files that stumble one by one.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// Whose volumes: a route's, or with none those of the record.
pub(super) type Whose = Option<RouteName>;

/// The room on volumes.
#[derive(Default)]
pub(super) struct Rooms {
    /// When it is looked after next; none while a look is under way.
    due: BTreeMap<Whose, Option<Tick>>,
    /// Where there is little, and what is said of it.
    little: BTreeMap<Whose, (Level, String)>,
    /// So many had a time when they were last counted.
    known: usize,
}

impl Rooms {
    pub(super) fn next_at(&self) -> Option<Tick> {
        self.due.values().copied().flatten().min()
    }

    /// A file of this route begins: room is looked after as often as it is where files go.
    pub(super) fn hurry(&mut self, route: &RouteName, now: Tick) {
        if let Some(Some(due)) = self.due.get_mut(&Some(route.clone())) {
            *due = (*due).min(now.plus(LOOK_EVERY));
        }
    }

    /// What a person should know although it keeps nothing up yet, in sentences.
    pub(super) fn alerts(&self) -> impl Iterator<Item = &String> {
        let low = self.little.values().filter(|(level, _)| *level != Level::Short);
        low.map(|(_, text)| text)
    }

    /// What keeps files from being sent.
    pub(super) fn grave(&self) -> impl Iterator<Item = &String> {
        let short = self.little.values().filter(|(level, _)| *level == Level::Short);
        short.map(|(_, text)| text)
    }
}

impl<W: World> Daemon<W> {
    /// Looks after room where it is time.
    pub(super) fn look_after_room(&mut self, now: Tick) {
        if self.mode == super::Mode::OneCommand {
            return;
        }
        if self.rooms.known < self.equipped.len() + 1 {
            self.rooms.known = self.equipped.len() + 1;
            for whose in self.equipped.keys().cloned().map(Some).chain([None]) {
                self.rooms.due.entry(whose).or_insert(Some(now));
            }
        } else if self.rooms.next_at().is_none_or(|next| next > now) {
            return;
        }
        let is_due = |due: &Option<Tick>| due.is_some_and(|due| due <= now);
        let due: Vec<Whose> = self
            .rooms
            .due
            .iter_mut()
            .filter(|(_, due)| is_due(due))
            .map(|(whose, due)| {
                *due = None;
                whose.clone()
            })
            .collect();
        for whose in due {
            let folders = self.folders_of(&whose);
            let ctx = Arc::clone(&self.ctx);
            self.spawn(Ticket::Room(whose), async move {
                Work::Rooms(ctx.world.disk().rooms(folders).await)
            });
        }
    }

    fn is_at_rest(&self, whose: &Whose) -> bool {
        whose.as_ref().is_some_and(|route| self.schedule.is_at_rest(route))
    }

    fn folders_of(&self, whose: &Whose) -> Vec<Arc<Path>> {
        let Some(route) = whose else { return vec![Arc::from(&*self.config.state_dir)] };
        let Some(equipped) = self.equipped.get(route) else { return Vec::new() };
        let folders = &equipped.route.folders;
        let mut found: Vec<Arc<Path>> = Vec::new();
        for folder in [&folders.sending, &folders.sent, &folders.failed, &folders.held] {
            // A dated folder may not be there yet; what it will lie in is.
            let is_dated = |path: &&Path| path.to_string_lossy().contains("{date}");
            let there = folder.ancestors().find(|path| !is_dated(path));
            let there: Arc<Path> = there.map_or_else(|| Arc::clone(folder), Arc::from);
            if !found.contains(&there) {
                found.push(there);
            }
        }
        found
    }

    /// How much room there is.
    pub(super) fn room_found(&mut self, whose: Whose, rooms: Vec<(Arc<Path>, Room)>) {
        let now = self.now();
        let is_told = !rooms.is_empty();
        let was = self.rooms.little.get(&whose).map_or(Level::Ample, |(level, _)| *level);
        let judged = rooms
            .into_iter()
            .map(|(folder, room)| (room::assess(&room, was == Level::Short), folder, room));
        let (level, cause) = match judged.max_by_key(|(level, _, _)| *level) {
            Some((level, folder, room)) => (level, little_room(&folder, &room)),
            None => (Level::Ample, Cause::new(Code::of("disk-nearly-full"), "")),
        };
        let text = &cause.plain;
        if level == Level::Low && was == Level::Ample {
            tracing::warn!("{text}; nothing new is begun there when it is nearly full");
        }
        let short = (level == Level::Short).then(|| cause.clone());
        match &whose {
            Some(route) => {
                let change = self.schedule.set_short(route, short, now);
                change.iter().for_each(say);
            }
            None if self.schedule.set_all_short(short, now) => {
                if level == Level::Short {
                    tracing::error!(why = %text, "sending paused on all routes: what is begun could soon not be put on record; free space there, patchdrop goes on by itself");
                } else {
                    tracing::info!("sending goes on: there is room for the record again");
                }
            }
            None => {}
        }
        let again = match level {
            Level::Ample if is_told && self.is_at_rest(&whose) => LOOK_AT_REST,
            Level::Ample if is_told => LOOK_EVERY,
            Level::Ample => LOOK_SELDOM,
            Level::Low | Level::Short => LOOK_AGAIN,
        };
        self.rooms.due.insert(whose.clone(), Some(now.tick.plus(again)));
        match level {
            Level::Ample => self.rooms.little.remove(&whose),
            Level::Low | Level::Short => self.rooms.little.insert(whose, (level, cause.plain)),
        };
    }

    /// Disk or ledger did not let a file go on. One line for the route, not one for each file.
    pub(super) fn stumbled(&mut self, id: FileId, stumble: &Stumble, now: Now) {
        let text = chain(stumble);
        self.stumbles.insert(id, text.clone());
        if let Stumble::Folder(error) | Stumble::Move(MoveError::Folder(error)) = stumble
            && matches!(error, FolderError::Replaced { .. } | FolderError::Unfit { .. })
        {
            self.doubt_the_folders_of(id);
        }
        let pauses = match stumble {
            Stumble::Ledger(error) => {
                self.ledger_refused(error, now);
                self.schedule.stumbled(id, now.tick);
                return;
            }
            Stumble::Folder(error) | Stumble::Move(MoveError::Folder(error)) => trouble(error),
            Stumble::Move(_) => None,
        };
        let route = self.schedule.route_of(id).cloned();
        let change = if let Some(pauses) = pauses {
            self.schedule.folder_refused(id, pauses, now)
        } else {
            self.schedule.stumbled(id, now.tick);
            None
        };
        change.iter().for_each(say);
        let Some(route) = route else { return };
        let said_at = self.stumbled_at.get(&route);
        let is_news = said_at.is_none_or(|at| at.plus(SAY_EVERY) <= now.tick);
        if change.is_some() || self.schedule.is_stuck(&route) || !is_news {
            tracing::debug!(%route, file = %id, error = %text, "a file could not go on");
            return;
        }
        self.stumbled_at.insert(route.clone(), now.tick);
        tracing::warn!(%route, file = %id, error = %text, "a file could not go on; it stays on record and is taken up again by itself");
    }

    /// A stage went well: what had paused the route may be over.
    pub(super) fn worked(&mut self, id: FileId, is_moved: bool, now: Tick) {
        let change = self.schedule.folders_worked(id, is_moved, now);
        change.iter().for_each(say);
    }
}

fn little_room(folder: &Path, room: &Room) -> Cause {
    let folder = folder.display();
    let plain = match room.free_files {
        Some(files) if room.free_bytes >= 2 * room::floor_bytes(room) && files < 8_192 => {
            format!("the volume of {folder} can hold {files} more files only")
        }
        _ => format!(
            "the volume of {folder} has {} kB left of {} kB",
            room.free_bytes / 1_000,
            room.total_bytes / 1_000
        ),
    };
    let remedy = "Free space there; files wait meanwhile, and patchdrop goes on by itself.";
    let cause = Cause::new(Code::of("disk-nearly-full"), plain);
    Cause { remedy: Some(remedy.to_owned()), ..cause }
}

/// Whether a fault of a folder speaks against more than one file.
fn trouble(error: &FolderError) -> Option<(Cause, Reach)> {
    let (code, reach, remedy) = match error {
        FolderError::Full { .. } => (
            "disk-full",
            Reach::Volume,
            "Free space there, or raise the quota; patchdrop goes on by itself.",
        ),
        FolderError::Io { source, .. }
            if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
        {
            (
                "read-only",
                Reach::Volume,
                "Make the volume writable again (a file system turns read-only after a disk error); patchdrop goes on by itself.",
            )
        }
        FolderError::Denied { .. } => (
            "no-permission",
            Reach::Perhaps,
            "Give the account of the service the right to write there; patchdrop goes on by itself.",
        ),
        FolderError::Gone { .. } => (
            "folder-gone",
            Reach::Perhaps,
            "Mount the volume, or make the folder again; patchdrop goes on by itself.",
        ),
        error if error.lacks_handles() => (
            "too-many-open-files",
            Reach::Volume,
            "Raise the limit of open files (LimitNOFILE in the unit, ulimit -Hn in a shell) to 4096 or more and restart; patchdrop goes on by itself meanwhile.",
        ),
        FolderError::Io { .. } => (
            "folder-fault",
            Reach::Perhaps,
            "Look at the disk and at the log of the system; patchdrop goes on by itself.",
        ),
        // The file's own; or the folders are no longer those that they were, which is looked into
        // for all of the route's files.
        FolderError::NotAFile { .. }
        | FolderError::InUse { .. }
        | FolderError::Replaced { .. }
        | FolderError::Unfit { .. } => return None,
    };
    let cause = Cause::new(Code::of(code), chain(error));
    Some((Cause { remedy: Some(remedy.to_owned()), ..cause }, reach))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_file_handles_is_no_fault_of_the_disk() {
        let source = std::io::Error::from_raw_os_error(24);
        let error = FolderError::Io { doing: "sync", path: "/r/sending".into(), source };
        let (cause, _) = trouble(&error).unwrap();
        assert_eq!(&*cause.code.0, "too-many-open-files");
    }
}
