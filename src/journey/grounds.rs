//! May patchdrop work in a folder as it is? Whoever else can write there can take files away, put
//! others in, or put another folder in its place. Decided from one look at each folder, and from
//! what it was before (promises P1, P4, P12).

use std::fmt;

use crate::model::file::{FolderSeen, Kind};

/// What a folder is to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Files are dropped there: others may write.
    Inbox,
    /// What the drop folder lies in.
    AboveInbox,
    /// What bears the mark of whose it is, or has drop folders listed in it.
    Root,
    /// Claimed files: nobody else's.
    Sending,
    /// `sent`, `failed` or `held`. Their group may tidy up there, where an administrator lets it.
    Target,
}

/// Who patchdrop is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its number, where the system has such numbers.
    pub number: Option<u32>,
    /// Whether it may work as root where others can write (`--allow-root`).
    pub allows_root: bool,
}

/// What is wrong with a folder. Shown after its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A link.
    Link,
    /// A file, a device.
    NoFolder,
    /// Another account's.
    Foreign {
        /// Whose.
        owner: u32,
    },
    /// Others may write there.
    Writable {
        /// Its mode.
        mode: u32,
    },
    /// Others may write there, and patchdrop is root.
    RootAmongOthers,
    /// On another volume than before.
    OtherVolume,
    /// Not the folder that it was.
    Replaced,
    /// Not there at a start, and files on record lie in it.
    Lost {
        /// How many.
        files: usize,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str(
                "is a link, and links are not followed: put a folder in its place, or write the folder that it leads to into the config",
            ),
            Self::NoFolder => f.write_str("is no folder: put one in its place"),
            Self::Foreign { owner } => write!(
                f,
                "belongs to account {owner}, which could take files out or put others in: chown it to the account that patchdrop runs as"
            ),
            Self::Writable { mode } => write!(
                f,
                "can be written by others (mode {mode:04o}), who could take files out or put others in: take that right away with chmod"
            ),
            Self::RootAmongOthers => f.write_str(
                "can be written by others, and patchdrop runs as root, which could be made to send or move any file: run it under an account of its own, or with --allow-root",
            ),
            Self::OtherVolume => f.write_str(
                "is on another volume than before: something was mounted there or unmounted; patchdrop goes on by itself when it is back",
            ),
            Self::Replaced => f.write_str(
                "was replaced by another folder, and files under way are in the old one: put that back in its place; if it is lost, move this one away, and patchdrop makes a new one and says which files are missing",
            ),
            Self::Lost { files } => write!(
                f,
                "is not there, and it should hold what is under way (files on record: {files}): mount its volume or put it back; if it is lost for good make an empty one, and patchdrop says which files are missing"
            ),
        }
    }
}

const ROOT: u32 = 0;
const GROUP_OR_OTHERS: u32 = 0o022;
const OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Whether something of this kind can be what it is to be at all.
///
/// # Errors
/// What is wrong with it.
pub fn is_fit(role: Role, kind: Kind) -> Result<(), Unfit> {
    match kind {
        Kind::Folder => Ok(()),
        // Links between root and drop folder are the administrator's business.
        _ if role == Role::AboveInbox => Ok(()),
        Kind::Link => Err(Unfit::Link),
        Kind::File | Kind::Special | Kind::Unknown => Err(Unfit::NoFolder),
    }
}

/// Whether patchdrop may work in a folder, by its kind, owner and mode. On volumes of other
/// machines owner and mode may mean nothing, and only the kind counts.
///
/// # Errors
/// What is wrong with it.
pub fn may_work_in(role: Role, seen: &FolderSeen, account: Account) -> Result<(), Unfit> {
    is_fit(role, seen.kind)?;
    let (Some(owner), Some(number)) = (seen.owner, account.number) else { return Ok(()) };
    if !seen.is_local {
        return Ok(());
    }
    let may_write = |bits: u32| seen.mode & bits != 0;
    match role {
        Role::Inbox | Role::AboveInbox | Role::Root if number != ROOT || account.allows_root => {
            Ok(())
        }
        Role::Inbox if owner != ROOT || may_write(GROUP_OR_OTHERS) => Err(Unfit::RootAmongOthers),
        // With the sticky bit others can add names there and not move ours.
        Role::AboveInbox | Role::Root if may_write(GROUP_OR_OTHERS) && !may_write(STICKY) => {
            Err(Unfit::RootAmongOthers)
        }
        Role::Sending | Role::Target if owner != number && owner != ROOT => {
            Err(Unfit::Foreign { owner })
        }
        Role::Sending if may_write(GROUP_OR_OTHERS) => Err(Unfit::Writable { mode: seen.mode }),
        Role::Target if may_write(OTHERS) => Err(Unfit::Writable { mode: seen.mode }),
        Role::Inbox | Role::AboveInbox | Role::Root | Role::Sending | Role::Target => Ok(()),
    }
}

/// Whether another folder has come to stand under a path, as far as its volume tells: whatever was
/// known of the old one, its watch and its mark, says nothing about this one.
#[must_use]
pub fn is_another(before: &FolderSeen, now: &FolderSeen) -> bool {
    let is_told = before.is_local && now.is_local;
    is_told && (before.volume, before.number) != (now.volume, now.number)
}

/// Whether a folder is still where it was. The mount point of a volume that is away is a folder
/// too, and an empty one: it is not the truth about the route's files. A volume that comes back may
/// have another number, but its folders have theirs; shares number both as they like.
///
/// # Errors
/// What has changed.
pub fn is_still(role: Role, before: &FolderSeen, now: &FolderSeen) -> Result<(), Unfit> {
    if before.is_local != now.is_local {
        return Err(Unfit::OtherVolume);
    }
    if !now.is_local || before.number == now.number {
        return Ok(());
    }
    if before.volume != now.volume {
        return Err(Unfit::OtherVolume);
    }
    match role {
        Role::Sending => Err(Unfit::Replaced),
        // An administrator may make these anew: what lies in them is on record, or looked at anew.
        Role::Inbox | Role::AboveInbox | Role::Root | Role::Target => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 900;
    const MINE: FolderSeen = FolderSeen {
        kind: Kind::Folder,
        volume: 1,
        number: 7,
        is_local: true,
        owner: Some(ME),
        mode: 0o750,
    };

    fn check(role: Role, seen: FolderSeen, number: u32, expected: Result<(), Unfit>) {
        let account = Account { number: Some(number), ..Account::default() };
        assert_eq!(may_work_in(role, &seen, account), expected, "{role:?} {seen:?} as {number}");
    }

    #[test]
    fn folders_of_ours_are_ours_and_nobody_else_can_write_there() {
        let with = |mode| FolderSeen { mode, ..MINE };
        let of = |owner| FolderSeen { owner: Some(owner), ..MINE };
        for role in [Role::Sending, Role::Target] {
            check(role, MINE, ME, Ok(()));
            check(role, of(ROOT), ME, Ok(()));
            check(role, of(901), ME, Err(Unfit::Foreign { owner: 901 }));
            check(role, of(901), ROOT, Err(Unfit::Foreign { owner: 901 }));
            check(role, with(0o1777), ME, Err(Unfit::Writable { mode: 0o1777 }));
            check(role, with(0o752), ME, Err(Unfit::Writable { mode: 0o752 }));
            let link = FolderSeen { kind: Kind::Link, ..MINE };
            check(role, link, ME, Err(Unfit::Link));
            check(role, FolderSeen { kind: Kind::Special, ..MINE }, ME, Err(Unfit::NoFolder));
            let share = FolderSeen { is_local: false, mode: 0o777, ..of(901) };
            check(role, share, ME, Ok(()));
        }
        check(Role::Sending, with(0o770), ME, Err(Unfit::Writable { mode: 0o770 }));
        check(Role::Target, with(0o2770), ME, Ok(()));
        let unknown = FolderSeen { owner: None, mode: 0o777, ..MINE };
        check(Role::Sending, unknown, ME, Ok(()));
    }

    #[test]
    fn others_may_write_into_a_drop_folder_unless_patchdrop_is_root() {
        let inbox = |owner, mode| FolderSeen { owner: Some(owner), mode, ..MINE };
        for seen in [inbox(901, 0o777), inbox(ME, 0o3770), inbox(ROOT, 0o1777)] {
            check(Role::Inbox, seen, ME, Ok(()));
            check(Role::Inbox, seen, ROOT, Err(Unfit::RootAmongOthers));
            let account = Account { number: Some(ROOT), allows_root: true };
            assert_eq!(may_work_in(Role::Inbox, &seen, account), Ok(()));
        }
        check(Role::Inbox, inbox(901, 0o755), ROOT, Err(Unfit::RootAmongOthers));
        check(Role::Inbox, inbox(ROOT, 0o755), ROOT, Ok(()));
        check(Role::AboveInbox, inbox(ROOT, 0o1777), ROOT, Ok(()));
        check(Role::AboveInbox, inbox(ROOT, 0o777), ROOT, Err(Unfit::RootAmongOthers));
        let link = FolderSeen { kind: Kind::Link, ..MINE };
        check(Role::Inbox, link, ME, Err(Unfit::Link));
        check(Role::Root, link, ME, Err(Unfit::Link));
        check(Role::Root, inbox(ROOT, 0o777), ROOT, Err(Unfit::RootAmongOthers));
        check(Role::AboveInbox, link, ME, Ok(()));
    }

    #[test]
    fn a_folder_on_another_volume_is_not_the_one_that_it_was() {
        let check = |role, now: FolderSeen, expected| {
            assert_eq!(is_still(role, &MINE, &now), expected, "{role:?} {now:?}");
        };
        for role in [Role::Inbox, Role::Sending, Role::Target] {
            check(role, MINE, Ok(()));
            let mount_point = FolderSeen { volume: 2, number: 9, ..MINE };
            check(role, mount_point, Err(Unfit::OtherVolume));
            let remounted = FolderSeen { volume: 2, ..MINE };
            check(role, remounted, Ok(()));
            let share = FolderSeen { is_local: false, ..MINE };
            check(role, share, Err(Unfit::OtherVolume));
            assert_eq!(is_still(role, &share, &MINE), Err(Unfit::OtherVolume));
            let numbered_anew = FolderSeen { volume: 3, number: 4, ..share };
            assert_eq!(is_still(role, &share, &numbered_anew), Ok(()));
        }
        let other = FolderSeen { number: 8, ..MINE };
        let remounted = FolderSeen { volume: 2, ..MINE };
        for (now, is) in [(MINE, false), (other, true), (remounted, true)] {
            assert_eq!(is_another(&MINE, &now), is, "{now:?}");
            // Shares number their folders as they like.
            let on_share = |seen| FolderSeen { is_local: false, ..seen };
            assert!(!is_another(&on_share(MINE), &on_share(now)), "{now:?}");
        }
        check(Role::Sending, other, Err(Unfit::Replaced));
        check(Role::Inbox, other, Ok(()));
        check(Role::Target, other, Ok(()));
    }
}
