//! Looks, reads, sweeps: what is there, and that nothing else is touched.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use patchdrop::model::durability::Durability;
use patchdrop::model::file::{Identity, Kind, Place};
use patchdrop::world::folder::{Disk, FolderError, MoveError, RealDisk, Volume, volume_kind};
use rustix::fs::{CWD, Mode, inotify};
use tokio::sync::mpsc;

use crate::scene::{Scene, child_folder, content, grants_leases, names, odd_names, run_in_child};

fn fifo(place: &Place) {
    rustix::fs::mkfifoat(CWD, place.path(), Mode::from_raw_mode(0o600)).unwrap();
}

#[tokio::test]
async fn an_examination_yields_content_and_identity_of_one_open_file() {
    let scene = Scene::new();
    let place = scene.drop_file("a.json", "{}");
    let examined = scene.examined(&place).await;
    let metadata = fs::metadata(place.path()).unwrap();
    assert_eq!(examined.findings, "{}");
    let mtime_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
    let (volume, number) = (metadata.dev(), metadata.ino());
    assert_eq!(examined.identity, Identity { volume, number, size: 2, mtime_ns });
    assert_eq!(examined.changed_at.0, metadata.ctime() * 1_000 + metadata.ctime_nsec() / 1_000_000);
    let seen = scene.disk.look(place).await.unwrap().unwrap();
    assert_eq!((seen.identity, seen.changed_at), (examined.identity, examined.changed_at));
}

#[tokio::test]
async fn what_is_no_regular_file_is_never_opened() {
    let scene = Scene::new();
    let target = scene.drop_file("target", "secret");
    let elsewhere = scene.inbox("fifo");
    fifo(&elsewhere);
    symlink(target.path(), scene.inbox("link").path()).unwrap();
    symlink("nowhere", scene.inbox("dangling").path()).unwrap();
    symlink(elsewhere.path(), scene.inbox("link-to-fifo").path()).unwrap();
    fs::create_dir(scene.inbox("folder.json").path()).unwrap();
    let _socket = UnixListener::bind(scene.inbox("socket").path()).unwrap();

    let opened = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    for watched in [&target, &elsewhere, &scene.inbox("folder.json")] {
        inotify::add_watch(&opened, watched.path(), inotify::WatchFlags::OPEN).unwrap();
    }
    let cases = ["link", "dangling", "link-to-fifo", "fifo", "folder.json", "socket"];
    for name in cases {
        let place = scene.inbox(name);
        let refused = |error: FolderError| {
            assert!(matches!(error, FolderError::NotAFile { .. }), "{name}: {error:?}");
        };
        refused(scene.examine(&place).await.err().unwrap());
        refused(scene.disk.digest(place.clone()).await.unwrap_err());
        refused(scene.disk.open(&place).err().unwrap());
    }
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(opened, &mut buffer);
    assert_eq!(events.next().err(), Some(rustix::io::Errno::WOULDBLOCK), "something was opened");
}

#[tokio::test]
async fn a_name_that_nothing_has_is_gone_and_a_folder_away_is_an_error() {
    let scene = Scene::new();
    let place = scene.inbox("none");
    assert!(matches!(scene.examine(&place).await, Err(FolderError::Gone { .. })));
    assert!(matches!(scene.disk.open(&place), Err(FolderError::Gone { .. })));
    assert_eq!(scene.disk.look(place.clone()).await.unwrap(), None);
    assert_eq!(scene.disk.digest(place.clone()).await.unwrap(), None);
    scene.disk.remove(place).await.unwrap();

    let away: Arc<Path> = Arc::from(scene.root.path().join("away"));
    let place = Place::new(&away, "a.json");
    let is_away = |error: FolderError| match error {
        FolderError::Gone { path } => assert_eq!(path, &*away),
        other => panic!("{other:?}"),
    };
    is_away(scene.disk.look(place.clone()).await.unwrap_err());
    is_away(scene.disk.digest(place.clone()).await.unwrap_err());
    is_away(scene.examine(&place).await.err().unwrap());
    is_away(scene.disk.remove(place.clone()).await.unwrap_err());
    is_away(scene.disk.write(place, vec![]).await.unwrap_err());
    is_away(scene.sweep(&away).await.unwrap_err());
    is_away(scene.disk.subfolders(Arc::clone(&away)).await.unwrap_err());
    is_away(scene.disk.sync(Arc::clone(&away)).await.unwrap_err());
}

#[tokio::test]
async fn a_folder_that_is_a_link_or_a_file_is_refused() {
    let scene = Scene::new();
    scene.drop_file("a.json", "{}");
    let link: Arc<Path> = Arc::from(scene.root.path().join("link"));
    symlink(&scene.inbox, &link).unwrap();
    let file: Arc<Path> = Arc::from(scene.drop_file("plain", "").path());
    for folder in [link, file] {
        let place = Place::new(&folder, "a.json");
        scene.sweep(&folder).await.unwrap_err();
        scene.disk.look(place.clone()).await.unwrap_err();
        assert!(scene.examine(&place).await.is_err());
        scene.disk.write(place.clone(), vec![]).await.unwrap_err();
        scene.disk.remove(place).await.unwrap_err();
        scene.disk.sync(Arc::clone(&folder)).await.unwrap_err();
        scene.disk.make_folder(folder).await.unwrap_err();
    }
    assert_eq!(content(&scene.inbox("a.json")).as_deref(), Some("{}"));
}

#[tokio::test]
async fn a_name_that_would_leave_the_folder_is_refused() {
    let scene = Scene::new();
    let place = scene.drop_file("a.json", "{}");
    for name in ["", ".", "..", "../inbox/a.json", "/etc/passwd", "sending/"] {
        let stray = scene.inbox(name);
        assert!(scene.examine(&stray).await.is_err(), "{name}");
        scene.disk.look(stray.clone()).await.unwrap_err();
        scene.disk.remove(stray.clone()).await.unwrap_err();
        scene.disk.write(stray.clone(), vec![]).await.unwrap_err();
        scene.disk.move_new(place.clone(), stray).await.unwrap_err();
    }
    assert_eq!(content(&place).as_deref(), Some("{}"));
}

#[tokio::test]
async fn a_file_open_for_writing_is_in_use_until_it_is_closed() {
    let scene = Scene::new();
    if !grants_leases(&scene.inbox) {
        return;
    }
    let place = scene.drop_file("a.json", "{}");
    let writer = File::options().append(true).open(place.path()).unwrap();
    assert!(matches!(scene.examine(&place).await, Err(FolderError::InUse { .. })));
    drop(writer);
    assert!(scene.examined(&place).await.lease_granted);
    let _reader = File::open(place.path()).unwrap();
    assert!(scene.examined(&place).await.lease_granted, "readers do no harm");
}

#[tokio::test]
async fn a_writer_that_comes_during_the_grip_waits_and_then_gets_through() {
    let scene = Scene::new();
    if !grants_leases(&scene.inbox) {
        return;
    }
    let place = scene.drop_file("a.json", "{}");
    let examined = scene.examined(&place).await;
    let at_once = |path: &Path| {
        File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).map(drop)
    };
    let refused = at_once(&place.path()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);

    let path = place.path();
    let writer = std::thread::spawn(move || File::options().append(true).open(path).map(drop));
    // The kernel has sent its signal by then; a process that takes it badly is no more.
    let broken = format!(":{} ", examined.identity.number);
    while !fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .any(|lock| lock.contains("BREAKING") && lock.contains(&broken))
    {
        std::thread::yield_now();
    }
    assert!(!writer.is_finished());
    let claimed = scene.sending("1~a.json");
    scene.disk.claim(examined.grip, place, claimed.clone()).await.unwrap();
    writer.join().unwrap().unwrap();
    at_once(&claimed.path()).unwrap();
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_in_use() {
    let scene = Scene::new();
    let place = scene.drop_file("a.json", "{}");
    let path = place.path();
    let touch = move |_: &mut dyn Read, _: &Identity| {
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        File::open(&path).unwrap().set_times(times).unwrap();
    };
    let outcome = scene.disk.examine(place.clone(), touch).await;
    assert!(matches!(outcome, Err(FolderError::InUse { .. })));
    assert_eq!(scene.examined(&place).await.findings, "{}");
}

#[tokio::test]
async fn a_digest_is_the_sha_256_of_the_bytes() {
    let scene = Scene::new();
    let place = scene.drop_file("abc", "abc");
    let (identity, digest) = scene.disk.digest(place.clone()).await.unwrap().unwrap();
    assert_eq!(
        digest.to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(identity, scene.disk.look(place).await.unwrap().unwrap().identity);
    let large = scene.drop_file("large", &"a".repeat(1_000_000));
    let (_, digest) = scene.disk.digest(large.clone()).await.unwrap().unwrap();
    assert_eq!(
        digest.to_string(),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    );
    let mut text = String::new();
    scene.disk.open(&large).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), 1_000_000);
}

#[tokio::test]
async fn a_sweep_tells_files_folders_links_and_the_rest_apart() {
    let scene = Scene::new();
    let file = scene.drop_file("file", "12345");
    symlink(file.path(), scene.inbox("link").path()).unwrap();
    fifo(&scene.inbox("fifo"));
    let mut seen = scene.sweep(&scene.inbox).await.unwrap();
    seen.sort_by(|one, other| one.name.cmp(&other.name));
    let kinds: Vec<_> = seen.iter().map(|one| (one.name.to_str().unwrap(), one.kind)).collect();
    let expected = [
        ("fifo", Kind::Special),
        ("file", Kind::File),
        ("link", Kind::Link),
        ("sending", Kind::Folder),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(seen[1].identity.size, 5);
    for sighting in seen {
        let place = scene.inbox(&sighting.name);
        assert_eq!(scene.disk.look(place).await.unwrap(), Some(sighting));
    }
    let folders = scene.disk.subfolders(Arc::clone(&scene.inbox)).await.unwrap();
    assert_eq!(folders, ["sending"]);
}

#[tokio::test]
async fn a_sweep_of_20_000_files_sees_each_once() {
    let scene = Scene::new();
    let folder = scene.folder("many");
    let expected: BTreeSet<_> = (0..20_000).map(|number| format!("{number}.json")).collect();
    for name in &expected {
        File::create(folder.join(name)).unwrap();
    }
    let seen = scene.sweep(&folder).await.unwrap();
    assert_eq!(seen.len(), 20_000);
    let names: BTreeSet<_> =
        seen.into_iter().map(|sighting| sighting.name.into_string().unwrap()).collect();
    assert_eq!(names, expected);

    let (sender, mut receiver) = mpsc::channel(1);
    let sweep = scene.disk.sweep(folder, sender);
    let take_one = async {
        assert_eq!(receiver.recv().await.unwrap().len(), 256);
        drop(receiver);
    };
    let (swept, ()) = tokio::join!(sweep, take_one);
    swept.unwrap();
}

#[tokio::test]
async fn files_that_stay_are_seen_while_others_come_and_go() {
    let scene = Scene::new();
    let folder = scene.folder("busy");
    for number in 0..3_000 {
        File::create(folder.join(format!("stays-{number}"))).unwrap();
        File::create(folder.join(format!("goes-{number}"))).unwrap();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, busy) = (Arc::clone(&is_over), Arc::clone(&folder));
    let mover = std::thread::spawn(move || {
        let mut rounds = 0;
        while !over.load(Ordering::SeqCst) {
            for number in 0..3_000 {
                let (one, other) = (format!("goes-{number}"), format!("went-{number}-{rounds}"));
                fs::rename(busy.join(&one), busy.join(&other)).unwrap();
                fs::rename(busy.join(&other), busy.join(&one)).unwrap();
            }
            rounds += 1;
        }
    });
    for _ in 0..5 {
        let seen = scene.sweep(&folder).await.unwrap();
        let stays: BTreeSet<_> = seen
            .iter()
            .filter(|sighting| sighting.name.to_str().unwrap().starts_with("stays-"))
            .map(|sighting| &sighting.name)
            .collect();
        assert_eq!(stays.len(), 3_000);
    }
    is_over.store(true, Ordering::SeqCst);
    mover.join().unwrap();
}

#[tokio::test]
async fn odd_names_go_the_whole_way() {
    let scene = Scene::new();
    let done = scene.folder("done");
    for name in odd_names() {
        scene.drop_file(&name, "{}");
    }
    let seen: BTreeSet<_> =
        scene.sweep(&scene.inbox).await.unwrap().into_iter().map(|one| one.name).collect();
    for (number, name) in odd_names().into_iter().enumerate() {
        assert!(seen.contains(&name), "{name:?}");
        let (place, claimed) = (scene.inbox(&name), scene.sending(format!("{number}~")));
        let examined = scene.examined(&place).await;
        scene.disk.claim(examined.grip, place, claimed.clone()).await.unwrap();
        scene.disk.move_new(claimed, Place::new(&done, name)).await.unwrap();
    }
    assert_eq!(names(&done).len(), odd_names().len());
    assert_eq!(names(&scene.inbox), ["sending"]);
}

#[tokio::test]
async fn temporary_files_of_an_earlier_process_are_swept_and_no_others() {
    let scene = Scene::new();
    let stale = scene.drop_file(".patchdrop-0123-4.part", "");
    let others = [".patchdrop-x", "x.part", ".patchdrop", "my.patchdrop-1.part"];
    for name in others {
        scene.drop_file(name, "");
    }
    fs::create_dir(scene.inbox(".patchdrop-folder.part").path()).unwrap();
    let born = fs::metadata(stale.path()).unwrap().modified().unwrap();
    while SystemTime::now().duration_since(born).unwrap_or_default() < Duration::from_millis(50) {
        std::thread::yield_now();
    }
    let disk = RealDisk::new(Arc::default(), Durability::PowerLoss);
    let fresh = scene.drop_file(".patchdrop-0123-5.part", "");
    assert_eq!(disk.temporary_names_swept(Arc::clone(&scene.inbox)).await.unwrap(), 1);
    let left = names(&scene.inbox);
    assert!(!left.contains(&".patchdrop-0123-4.part".to_owned()));
    assert!(fresh.path().exists());
    assert_eq!(left.len(), others.len() + 3);
}

#[tokio::test]
async fn the_kernel_s_own_file_systems_are_local() {
    assert!(
        RealDisk::new(Arc::default(), Durability::PowerLoss)
            .is_local(Arc::from(Path::new("/proc")))
            .await
    );
    assert_eq!(volume_kind(Path::new("/proc")), Volume::Local);
    assert_eq!(volume_kind(Path::new("/no/such/path")), Volume::Local);
}

/// Run as root this goes through a child of another account: root may do everything.
#[tokio::test]
async fn what_this_account_may_not_is_denied() {
    let Some(folder) = child_folder() else {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let foreign = root.path().join("foreign.json");
        fs::write(&foreign, "{}").unwrap();
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o644)).unwrap();
        let test = "looking::what_this_account_may_not_is_denied";
        let another: &[&str] =
            &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        run_in_child(test, root.path(), if crate::scene::is_root() { another } else { &["env"] });
        return;
    };
    assert!(!crate::scene::is_root());
    let scene = Scene::new();
    let denied = |error: FolderError, path: &Path| match error {
        FolderError::Denied { path: denied, .. } => assert_eq!(denied, path),
        other => panic!("{other:?}"),
    };
    let allow = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let place = scene.drop_file("a.json", "{}");
    allow(&place.path(), 0o000);
    denied(scene.examine(&place).await.err().unwrap(), &place.path());
    denied(scene.disk.digest(place.clone()).await.unwrap_err(), &place.path());
    allow(&place.path(), 0o600);
    for mode in [0o000, 0o400] {
        allow(&scene.inbox, mode);
        denied(scene.sweep(&scene.inbox).await.unwrap_err(), &scene.inbox);
        scene.disk.look(place.clone()).await.unwrap_err();
    }
    allow(&scene.inbox, 0o700);
    let target = Place::new(&scene.folder("target"), "a.json");
    allow(&target.folder, 0o500);
    let refused = |error| match error {
        MoveError::Folder(error) => error,
        other => panic!("{other:?}"),
    };
    let error = scene.disk.move_new(place.clone(), target.clone()).await.unwrap_err();
    denied(refused(error), &target.path());
    denied(scene.disk.write(target.clone(), vec![]).await.unwrap_err(), &target.path());
    let below: Arc<Path> = Arc::from(target.folder.join("below"));
    denied(scene.disk.make_folder(Arc::clone(&below)).await.unwrap_err(), &below);
    allow(&target.folder, 0o700);
    allow(&scene.inbox, 0o500);
    let error = scene.disk.move_new(place.clone(), target).await.unwrap_err();
    denied(refused(error), &place.path());
    allow(&scene.inbox, 0o700);

    let foreign = Place::of_path(&folder.join("foreign.json")).unwrap();
    if fs::metadata(foreign.path()).unwrap().uid() == rustix::process::geteuid().as_raw() {
        crate::scene::not_run("leases on foreign files", "not run as root, no foreign file");
    } else {
        let examined = scene.examined(&foreign).await;
        assert!(!examined.lease_granted);
        assert_eq!(examined.findings, "{}");
    }
}

#[tokio::test]
async fn a_pinned_folder_that_was_replaced_is_refused_by_every_operation() {
    let scene = Scene::new();
    let (disk, sending) = (&scene.disk, &scene.sending);
    let (place, inside) = (scene.drop_file("a.json", "{}"), scene.sending("1~b.json"));
    fs::write(inside.path(), "{}").unwrap();
    let seen = disk.inspect(Arc::clone(sending)).await.unwrap().unwrap();
    assert_eq!((seen.kind, seen.is_local), (Kind::Folder, true));
    disk.pin(sending, seen);
    assert!(disk.look(inside.clone()).await.unwrap().is_some());
    let examined = scene.examined(&place).await;

    let gone = scene.root.path().join("gone");
    fs::rename(sending, &gone).unwrap();
    fs::create_dir(sending).unwrap();
    fs::write(inside.path(), "planted").unwrap();
    let stale = rustix::io::Errno::STALE.raw_os_error();
    let is_refused = |error: FolderError| match error {
        FolderError::Replaced { path } => path == **sending,
        FolderError::Io { source, .. } => source.raw_os_error() == Some(stale),
        _ => false,
    };
    let moved = |error: MoveError| match error {
        MoveError::Folder(error) => is_refused(error),
        _ => false,
    };
    assert!(is_refused(disk.look(inside.clone()).await.unwrap_err()));
    assert!(is_refused(disk.digest(inside.clone()).await.unwrap_err()));
    assert!(is_refused(scene.examine(&inside).await.err().unwrap()));
    assert!(is_refused(disk.open(&inside).err().unwrap()));
    assert!(is_refused(scene.sweep(sending).await.unwrap_err()));
    assert!(is_refused(disk.subfolders(Arc::clone(sending)).await.unwrap_err()));
    assert!(is_refused(disk.sync(Arc::clone(sending)).await.unwrap_err()));
    assert!(is_refused(disk.make_folder(Arc::clone(sending)).await.unwrap_err()));
    assert!(is_refused(disk.clear_temporary(Arc::clone(sending)).await.unwrap_err()));
    assert!(is_refused(disk.write(inside.clone(), Vec::new()).await.unwrap_err()));
    assert!(is_refused(disk.remove(inside.clone()).await.unwrap_err()));
    assert!(moved(
        disk.claim(examined.grip, place.clone(), scene.sending("2~a")).await.unwrap_err()
    ));
    assert!(moved(disk.move_new(place.clone(), scene.sending("2~a")).await.unwrap_err()));
    assert!(moved(disk.move_new(inside.clone(), scene.inbox("b")).await.unwrap_err()));
    assert_eq!(content(&place).as_deref(), Some("{}"));
    assert_eq!(content(&inside).as_deref(), Some("planted"));

    fs::remove_dir_all(sending).unwrap();
    fs::rename(&gone, sending).unwrap();
    assert!(disk.look(inside.clone()).await.unwrap().is_some());
    // One that is gone and made anew is ours again.
    fs::remove_dir_all(sending).unwrap();
    disk.make_folder(Arc::clone(sending)).await.unwrap();
    assert!(disk.look(inside).await.unwrap().is_none());
}

#[tokio::test]
async fn a_link_planted_between_look_and_open_is_never_followed() {
    let scene = Scene::new();
    let place = scene.drop_file("a.json", "mine");
    let secret = scene.root.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let (file, link) = (scene.inbox(".file").path(), scene.inbox(".link").path());
    symlink(&secret, &link).unwrap();
    fs::write(&file, "mine").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (path, over) = (place.path(), Arc::clone(&is_over));
    let planting = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            // Each takes the name in one step: there is always something to look at.
            for other in [&link, &file] {
                rustix::fs::renameat_with(
                    CWD,
                    other,
                    CWD,
                    &path,
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        }
    });
    for _ in 0..2_000 {
        match scene.examine(&place).await {
            Ok(examined) => assert_eq!(examined.findings, "mine"),
            Err(FolderError::NotAFile { .. } | FolderError::InUse { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    is_over.store(true, Ordering::Relaxed);
    planting.join().unwrap();
}

#[tokio::test]
async fn the_names_of_a_file_are_counted() {
    let scene = Scene::new();
    let place = scene.drop_file("a.json", "{}");
    assert_eq!(scene.examined(&place).await.links, 1);
    fs::hard_link(place.path(), scene.root.path().join("other")).unwrap();
    assert_eq!(scene.examined(&place).await.links, 2);
}
