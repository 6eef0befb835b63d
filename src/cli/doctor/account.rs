//! The account that the service works as, and what the system lets it do: our own, or, for root,
//! the one that `state_dir` belongs to.
#![expect(clippy::disallowed_methods, reason = "accounts and groups stand in files of the system")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Gid, accessat};
use rustix::process::{getegid, geteuid, getgroups};

const ROOT: u32 = 0;
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Whose rights are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// Its number.
    pub(super) number: u32,
    /// Its name, as far as it has one; else its number.
    pub(super) name: String,
    groups: Vec<u32>,
    /// Whether it is the account that this process runs as: then the system itself can be asked.
    is_own: bool,
    /// The account that `state_dir` belongs to, where it is not this one and we may not judge for
    /// it.
    pub(super) stranger_to: Option<String>,
}

/// What is wanted of a folder or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To list it, and to add, move and remove what is in it.
    Work,
    /// To go through it.
    Pass,
    /// To read it.
    Read,
}

impl Wanted {
    /// As `rwx` bits.
    fn bits(self) -> u32 {
        match self {
            Self::Work => 0o7,
            Self::Pass => 0o1,
            Self::Read => 0o4,
        }
    }
}

/// What the system says of who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    /// Whose it is.
    pub(super) owner: u32,
    group: u32,
    /// The bits of its mode.
    pub(super) mode: u32,
}

impl Rights {
    /// Of what has this name itself, be it a link.
    pub(super) fn of_itself(path: &Path) -> Option<Self> {
        let seen = fs::symlink_metadata(path).ok()?;
        Some(Self { owner: seen.uid(), group: seen.gid(), mode: seen.mode() & 0o7777 })
    }

    /// Of what has this name, links followed.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let seen = fs::metadata(path).ok()?;
        Some(Self { owner: seen.uid(), group: seen.gid(), mode: seen.mode() & 0o7777 })
    }
}

impl Judged {
    /// The account of the service that keeps its state there.
    pub(super) fn of(state_dir: &Path) -> Self {
        let own = geteuid().as_raw();
        let owner = Rights::of(state_dir).map(|rights| rights.owner);
        let number = owner.filter(|_| own == ROOT).unwrap_or(own);
        let accounts = fs::read_to_string(PASSWD).unwrap_or_default();
        let (name, group) = named(&accounts, number);
        let is_own = number == own;
        let groups = if is_own {
            let mut groups: Vec<u32> =
                getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
            groups.push(getegid().as_raw());
            groups
        } else {
            let more = fs::read_to_string(GROUP).unwrap_or_default();
            group.into_iter().chain(groups_of(&more, &name)).collect()
        };
        let keeper = owner.filter(|owner| *owner != number);
        let stranger_to = keeper.map(|keeper| named(&accounts, keeper).0);
        Self { number, name, groups, is_own, stranger_to }
    }

    /// Whether it may. Access lists count where the system can be asked, and not where another
    /// account is judged by owner and mode.
    pub(super) fn may(&self, wanted: Wanted, path: &Path) -> bool {
        if self.is_own {
            let access = match wanted {
                Wanted::Work => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
                Wanted::Pass => Access::EXEC_OK,
                Wanted::Read => Access::READ_OK,
            };
            return accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
        }
        Rights::of(path).is_some_and(|rights| self.may_by(wanted, rights))
    }

    /// Whether owner and mode allow it.
    fn may_by(&self, wanted: Wanted, rights: Rights) -> bool {
        let shift = if self.number == rights.owner {
            6
        } else if self.groups.contains(&rights.group) {
            3
        } else {
            0
        };
        self.number == ROOT || (rights.mode >> shift) & wanted.bits() == wanted.bits()
    }

    /// The first folder above a path that it cannot go through.
    pub(super) fn is_stopped_at<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        above.into_iter().find(|folder| folder.exists() && !self.may(Wanted::Pass, folder))
    }
}

/// Name and group of an account.
fn named(passwd: &str, number: u32) -> (String, Option<u32>) {
    let found = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_it = fields.get(2)?.parse() == Ok(number);
        is_it.then(|| (fields[0].to_owned(), fields.get(3).and_then(|group| group.parse().ok())))
    });
    found.unwrap_or_else(|| (number.to_string(), None))
}

/// The groups that have an account for a member.
fn groups_of(group: &str, name: &str) -> Vec<u32> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_member = fields.get(3)?.split(',').any(|member| member == name);
        fields.get(2)?.parse().ok().filter(|_| is_member)
    };
    group.lines().filter_map(of).collect()
}

#[cfg(test)]
impl Judged {
    /// An account that is not this process's.
    pub(super) fn other(number: u32, groups: Vec<u32>) -> Self {
        let name = number.to_string();
        Self { number, name, groups, is_own: false, stranger_to: None }
    }

    /// One who has nothing to do with the service.
    pub(super) fn stranger(keeper: &str) -> Self {
        Self { stranger_to: Some(keeper.to_owned()), ..Self::other(65_534, Vec::new()) }
    }

    /// This process under a number.
    pub(super) fn own(number: u32) -> Self {
        Self { is_own: true, ..Self::other(number, Vec::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_mode_say_what_another_account_may() {
        fn check(account: (u32, &[u32]), rights: (u32, u32, u32), wanted: Wanted, may: bool) {
            let judged = Judged::other(account.0, account.1.to_vec());
            let (owner, group, mode) = rights;
            let said = judged.may_by(wanted, Rights { owner, group, mode });
            assert_eq!(said, may, "{account:?} {rights:?} {wanted:?}");
        }
        check((900, &[900]), (900, 900, 0o700), Wanted::Work, true);
        check((900, &[900]), (900, 900, 0o500), Wanted::Work, false);
        check((900, &[900]), (0, 900, 0o770), Wanted::Work, true);
        check((900, &[900]), (0, 0, 0o755), Wanted::Work, false);
        check((900, &[900]), (0, 0, 0o755), Wanted::Pass, true);
        check((900, &[900]), (0, 0, 0o711), Wanted::Read, false);
        // What the owner is denied, a group does not give.
        check((900, &[900]), (900, 900, 0o070), Wanted::Read, false);
        check((0, &[]), (900, 900, 0o000), Wanted::Work, true);
    }

    #[test]
    fn accounts_and_groups_are_found_by_number_and_name() {
        let passwd = "root:x:0:0:root:/:/bin/sh\npatchdrop:x:900:901::/:/usr/sbin/nologin\nbad\n";
        assert_eq!(named(passwd, 900), ("patchdrop".to_owned(), Some(901)));
        assert_eq!(named(passwd, 7), ("7".to_owned(), None));
        let group = "root:x:0:\nerp:x:950:anna,patchdrop\nother:x:951:patchdrops\nbad:x\n";
        assert_eq!(groups_of(group, "patchdrop"), [950]);
    }
}
