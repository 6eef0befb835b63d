//! A folder of its own for each test, and children that run a test under other circumstances.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use patchdrop::model::durability::Durability;
use patchdrop::model::file::{Identity, Place, Sighting};
use patchdrop::world::folder::{Disk, Examined, FolderError, Grip, RealDisk};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Only a failed test waits as long as this.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_mins(1);

pub(crate) struct Scene {
    pub(crate) root: TempDir,
    pub(crate) disk: RealDisk,
    pub(crate) inbox: Arc<Path>,
    pub(crate) sending: Arc<Path>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    pub(crate) fn within(root: TempDir) -> Self {
        let inbox = root.path().join("inbox");
        let sending = inbox.join("sending");
        fs::create_dir_all(&sending).unwrap();
        Self {
            root,
            disk: RealDisk::new(Arc::default(), Durability::PowerLoss),
            inbox: Arc::from(inbox),
            sending: Arc::from(sending),
        }
    }

    /// A file in the inbox.
    pub(crate) fn drop_file(&self, name: impl AsRef<OsStr>, content: &str) -> Place {
        let place = self.inbox(name);
        fs::write(place.path(), content).unwrap();
        place
    }

    pub(crate) fn inbox(&self, name: impl AsRef<OsStr>) -> Place {
        Place::new(&self.inbox, name.as_ref())
    }

    pub(crate) fn sending(&self, name: impl AsRef<OsStr>) -> Place {
        Place::new(&self.sending, name.as_ref())
    }

    /// A folder below the scene's root.
    pub(crate) fn folder(&self, name: &str) -> Arc<Path> {
        let path = self.root.path().join(name);
        fs::create_dir_all(&path).unwrap();
        Arc::from(path)
    }

    pub(crate) async fn examine(
        &self,
        place: &Place,
    ) -> Result<Examined<Grip, String>, FolderError> {
        let read = |file: &mut dyn Read, _: &Identity| io::read_to_string(file).unwrap();
        self.disk.examine(place.clone(), read).await
    }

    /// As [`Self::examine`] of a file that nobody writes. A child that another test starts has all
    /// files of this process open until it is its own program, so it may have to be asked again.
    pub(crate) async fn examined(&self, place: &Place) -> Examined<Grip, String> {
        let ask_again = async {
            loop {
                match self.examine(place).await {
                    Err(FolderError::InUse { .. }) => tokio::task::yield_now().await,
                    other => return other.unwrap(),
                }
            }
        };
        tokio::time::timeout(GIVE_UP_AFTER, ask_again).await.expect("it stays in use")
    }

    /// All sightings of a folder.
    pub(crate) async fn sweep(&self, folder: &Arc<Path>) -> Result<Vec<Sighting>, FolderError> {
        let (sender, mut receiver) = mpsc::channel::<Vec<Sighting>>(1);
        let collect = async {
            let mut all = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                assert!((1..=256).contains(&chunk.len()), "a chunk of {}", chunk.len());
                all.extend(chunk);
            }
            all
        };
        let (swept, all) = tokio::join!(self.disk.sweep(Arc::clone(folder), sender), collect);
        swept.map(|()| all)
    }
}

pub(crate) fn content(place: &Place) -> Option<String> {
    fs::read_to_string(place.path()).ok()
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Names that a careless program stumbles over.
pub(crate) fn odd_names() -> Vec<std::ffi::OsString> {
    let long = "l".repeat(255);
    [
        b"not utf-8 \xff\xfe.json".as_slice(),
        b"two\nlines.json",
        long.as_bytes(),
        b"Order.json",
        b"order.json",
        b" ",
        b"...",
        b"-rf",
        b"back\\slash \x1b[31m.json",
    ]
    .map(|name| OsStr::from_bytes(name).to_owned())
    .to_vec()
}

/// Whether a file system is known to grant leases to a file's owner.
pub(crate) fn grants_leases(folder: &Path) -> bool {
    const EXT4: u64 = 0xEF53;
    const TMPFS: u64 = 0x0102_1994;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683E;
    let volume = rustix::fs::statfs(folder).unwrap();
    let magic = u64::try_from(volume.f_type).unwrap();
    let is_known = [EXT4, TMPFS, XFS, BTRFS].contains(&magic);
    if !is_known {
        not_run("leases", "the temporary folder's file system may not grant them");
    }
    is_known
}

/// Says that a test could not run here, so that nobody takes it for passed.
pub(crate) fn not_run(what: &str, why: &str) {
    use std::io::Write;
    // Past the capture of the test harness, which shows nothing of a test that succeeds.
    writeln!(io::stderr().lock(), "NOT RUN: {what}: {why}").unwrap();
}

/// Set in a child, to the folder that it works in.
const CHILD: &str = "PATCHDROP_TEST_CHILD";

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// In the child of [`run_in_child`]: the folder that it was given.
pub(crate) fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs one test of this binary again in a child that `wrapper` starts, with `folder` to work in.
/// The wrapper's last argument is followed by the program and its arguments. Returns whether the
/// wrapper can do that here.
pub(crate) fn run_in_child(test: &str, folder: &Path, wrapper: &[&str]) -> bool {
    let probe =
        Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").env(CHILD, folder).output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            not_run(test, String::from_utf8_lossy(&output.stderr).trim());
            return false;
        }
        Err(error) => {
            not_run(test, &format!("{}: {error}", wrapper[0]));
            return false;
        }
    }
    // Another account may not reach the folder that this program was built in.
    let program_folder = tempfile::tempdir().unwrap();
    fs::set_permissions(program_folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = program_folder.path().join("disk");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(&program)
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, folder)
        .env("TMPDIR", folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{test} in a child: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    true
}
