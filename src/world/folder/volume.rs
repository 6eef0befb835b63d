//! Where a folder's volume is: by the type of its file system, or by the mount table alone, which
//! never blocks.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Volume;
#[cfg(target_os = "linux")]
use super::unix::unsigned;

/// Where a path's volume is, by the type of its file system; what cannot be asked or is unknown
/// counts as local. May block where a mount hangs.
pub fn volume_kind(path: &Path) -> Volume {
    #[cfg(target_os = "linux")]
    if let Ok(volume) = rustix::fs::statfs(path) {
        return volume_of_magic(unsigned(volume.f_type) & 0xFFFF_FFFF);
    }
    Volume::Local
}

pub(super) fn is_local(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    if let Ok(volume) = rustix::fs::fstatfs(file) {
        return volume_of_magic(unsigned(volume.f_type) & 0xFFFF_FFFF) == Volume::Local;
    }
    true
}

/// The numbers are those of `statfs(2)` and the kernel's `magic.h`.
#[cfg(target_os = "linux")]
fn volume_of_magic(magic: u64) -> Volume {
    let kind = match magic {
        0x6969 => "nfs",
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => "smb",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x00C3_6400 => "ceph",
        0x5346_414F | 0x6B41_4653 => "afs",
        0x0BD0_0BD0 => "lustre",
        0x4750_4653 => "gpfs",
        0x786F_4256 => "vboxsf",
        0xBACB_ACBC => "vmhgfs",
        _ => return Volume::Local,
    };
    Volume::Remote { kind }
}

/// A line of the mount table.
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) is_remote: bool,
}

/// The kernel's mount table. It is read again only when it has changed: the kernel writes it anew
/// for every reader, which costs more than all else in a look at a quiet folder.
#[derive(Default)]
pub(super) struct MountTable {
    file: Option<File>,
    text: Vec<u8>,
}

impl MountTable {
    /// The mount that a path lies in, by the mount table alone. Links in the path are not resolved,
    /// so it may be another; it only decides which threads do the work.
    pub(super) fn mount_of(&mut self, path: &Path) -> Mount {
        if !self.is_current() {
            self.text = self.read().unwrap_or_default();
        }
        let found = mount_in(&self.text, path);
        found.unwrap_or_else(|| Mount { point: PathBuf::from("/"), is_remote: false })
    }

    /// The kernel tells a change once to whoever has the table open, as an error to be polled.
    fn is_current(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let mut polled = [PollFd::new(file, PollFlags::PRI)];
        let at_once = Timespec::default();
        rustix::event::poll(&mut polled, Some(&at_once)).is_ok_and(|changed| changed == 0)
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut file = match self.file.take() {
            Some(file) => file,
            #[expect(clippy::disallowed_methods, reason = "the kernel's mount table, not a file")]
            None => File::open("/proc/self/mountinfo")?,
        };
        let mut text = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut text)?;
        self.file = Some(file);
        Ok(text)
    }
}

/// Fields of a line, by proc(5): number, parent, device, root, mount point, options, any number of
/// tags, `-`, type, source, options. The last line of the longest matching mount point counts.
fn mount_in(table: &[u8], path: &Path) -> Option<Mount> {
    let mut found: Option<Mount> = None;
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(point) = fields.nth(4).map(unescaped) else { continue };
        let kind = fields.skip_while(|field| *field != b"-").nth(1).unwrap_or_default();
        let is_longer = found
            .as_ref()
            .is_none_or(|found| point.as_os_str().len() >= found.point.as_os_str().len());
        if path.starts_with(&point) && is_longer {
            found = Some(Mount { point, is_remote: is_remote_type(kind) });
        }
    }
    found
}

fn is_remote_type(kind: &[u8]) -> bool {
    let exact: [&[u8]; 10] =
        [b"nfs", b"nfs4", b"cifs", b"smb3", b"9p", b"ceph", b"afs", b"lustre", b"gpfs", b"vboxsf"];
    exact.contains(&kind) || kind == b"fuse" || kind.starts_with(b"fuse.")
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let (b'\\', Some(code)) = (first, code) {
            path.push(code);
            rest = after.get(3..).unwrap_or_default();
        } else {
            path.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_last_mount_counts() {
        const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            30 22 0:26 / /srv rw - xfs /dev/vdb rw\n\
            31 30 0:40 / /srv/erp rw,relatime shared:7 master:2 - nfs4 host:/erp rw\n\
            32 30 0:41 / /srv/my\\040share rw - cifs //host/share rw\n\
            33 30 0:42 / /srv/fuse rw - ext4 /dev/vdc rw\n\
            34 33 0:43 / /srv/fuse rw - fuse.sshfs host: rw\n";
        fn check(path: &str, point: &str, is_remote: bool) {
            let mount = mount_in(TABLE, Path::new(path)).unwrap();
            assert_eq!((mount.point.as_path(), mount.is_remote), (Path::new(point), is_remote));
        }
        check("/var/drop", "/", false);
        check("/srv/orders", "/srv", false);
        check("/srv/erp/orders", "/srv/erp", true);
        check("/srv/erp2", "/srv", false);
        check("/srv/my share/x", "/srv/my share", true);
        check("/srv/fuse", "/srv/fuse", true);
        assert!(mount_in(b"", Path::new("/")).is_none());
    }

    #[test]
    fn the_table_is_read_once_as_long_as_nothing_is_mounted() {
        #[cfg(target_os = "linux")]
        {
            let mut table = MountTable::default();
            assert_eq!(table.mount_of(Path::new("/proc/self")).point, Path::new("/proc"));
            assert!(table.is_current());
            table.text = b"30 22 0:26 / /srv rw - nfs4 host:/srv rw\n".to_vec();
            assert!(table.mount_of(Path::new("/srv/in")).is_remote, "it is not read again");
            table.file = None;
            assert!(!table.mount_of(Path::new("/proc/self")).is_remote);
        }
    }

    #[test]
    fn file_systems_of_other_machines_are_told_by_their_number() {
        #[cfg(target_os = "linux")]
        {
            fn check(magic: u64, volume: Volume) {
                assert_eq!(volume_of_magic(magic), volume);
            }
            check(0xEF53, Volume::Local);
            check(0x0102_1994, Volume::Local);
            check(0x6969, Volume::Remote { kind: "nfs" });
            check(0xFF53_4D42, Volume::Remote { kind: "smb" });
            check(0x6573_5546, Volume::Remote { kind: "fuse" });
            check(0x0102_1997, Volume::Remote { kind: "9p" });
        }
    }
}
