//! What needs a volume of its own: one that is full, one that is unmounted.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use patchdrop::model::file::Place;
use patchdrop::world::folder::{Disk, FolderError, MoveError};
use patchdrop::world::watch::{Hint, Watch, Watcher, mailbox};

use crate::scene::{Scene, child_folder, content, names, run_in_child};
use crate::watching::{moved_in, until};

/// Mounts a volume of 64 KiB in a mount namespace of the child's own; needs the rights to.
const OWN_VOLUME: [&str; 6] = [
    "unshare",
    "--mount",
    "--map-root-user",
    "sh",
    "-c",
    "mkdir -p \"$PATCHDROP_TEST_CHILD/v\" && \
     mount -t tmpfs -o size=64k none \"$PATCHDROP_TEST_CHILD/v\" && \"$0\" \"$@\"",
];

fn in_own_volume(test: &str) -> Option<Arc<Path>> {
    if let Some(folder) = child_folder() {
        return Some(Arc::from(folder.join("v")));
    }
    let root = tempfile::tempdir().unwrap();
    run_in_child(test, root.path(), &OWN_VOLUME);
    None
}

fn unmount(volume: &Path) -> bool {
    std::process::Command::new("umount").arg(volume).status().unwrap().success()
}

#[tokio::test]
async fn a_full_volume_is_said_and_leaves_nothing_half_written() {
    let test = "elsewhere::a_full_volume_is_said_and_leaves_nothing_half_written";
    let Some(volume) = in_own_volume(test) else { return };
    let scene = Scene::new();
    let large = "x".repeat(200_000);
    let (place, target) = (scene.drop_file("a.json", &large), Place::new(&volume, "a.json"));
    let error = scene.disk.move_new(place.clone(), target.clone()).await.unwrap_err();
    assert!(matches!(error, MoveError::Folder(FolderError::Full { .. })), "{error:?}");
    let error = scene.disk.write(target, large.clone().into_bytes()).await.unwrap_err();
    assert!(matches!(error, FolderError::Full { .. }), "{error:?}");
    assert_eq!(content(&place), Some(large));
    assert!(names(&volume).is_empty(), "{:?}", names(&volume));
}

#[tokio::test]
async fn a_move_to_another_volume_that_was_cut_off_is_ended_and_not_begun_anew() {
    let test = "elsewhere::a_move_to_another_volume_that_was_cut_off_is_ended_and_not_begun_anew";
    let Some(volume) = in_own_volume(test) else { return };
    let scene = Scene::new();
    assert!(scene.disk.is_elsewhere(Arc::clone(&scene.inbox), Arc::clone(&volume)).await);
    let neighbours = (Arc::clone(&scene.inbox), Arc::clone(&scene.sending));
    assert!(!scene.disk.is_elsewhere(neighbours.0, neighbours.1).await);

    // Cut off between the copy's name and the removal of the original.
    let (place, target) = (scene.drop_file("a.json", "{}"), Place::new(&volume, "a.json"));
    fs::copy(place.path(), target.path()).unwrap();
    let before = scene.disk.fsyncs();
    let taken = scene.disk.move_new(place.clone(), target.clone()).await;
    assert!(matches!(taken, Err(MoveError::Taken { .. })), "{taken:?}");
    assert_eq!(scene.disk.fsyncs(), before, "nothing is copied for a name that is taken");
    let identity = scene.disk.look(place.clone()).await.unwrap().unwrap().identity;

    // Another file has taken the original's name: it was not copied.
    fs::rename(place.path(), scene.inbox("kept").path()).unwrap();
    scene.drop_file("a.json", "{\"is\": \"another\"}");
    scene.disk.finish_move(place.clone(), identity, target.clone()).await.unwrap();
    assert!(content(&place).is_some());

    fs::rename(scene.inbox("kept").path(), place.path()).unwrap();
    scene.disk.finish_move(place.clone(), identity, target.clone()).await.unwrap();
    assert_eq!((content(&place), content(&target).as_deref()), (None, Some("{}")));
    assert_eq!(scene.disk.fsyncs(), before + 2, "the copy's name is durable first");
    scene.disk.finish_move(place, identity, target).await.unwrap();
    assert_eq!(names(&volume), ["a.json"]);
}

#[tokio::test]
async fn a_volume_in_use_can_be_unmounted_and_its_watch_says_so() {
    let test = "elsewhere::a_volume_in_use_can_be_unmounted_and_its_watch_says_so";
    let Some(volume) = in_own_volume(test) else { return };
    let scene = Scene::new();
    let (hints, mut receiver) = mailbox();
    let mut watcher = Watcher::new(hints);
    watcher.arm(&volume).unwrap();
    let (place, target) = (Place::new(&volume, "a.json"), Place::new(&volume, "b.json"));
    fs::write(place.path(), "{}").unwrap();
    let examined = scene.examined(&place).await;
    scene.disk.claim(examined.grip, place, target.clone()).await.unwrap();
    scene.disk.sync(Arc::clone(&volume)).await.unwrap();
    scene.disk.digest(target).await.unwrap();
    assert_eq!(scene.sweep(&volume).await.unwrap().len(), 1);
    assert!(unmount(&volume), "something of ours keeps the volume busy");
    until(&mut receiver, &Hint::Lost { folder: Some(Arc::clone(&volume)) }).await;

    watcher.arm(&volume).unwrap();
    fs::write(scene.inbox("c.json").path(), "{}").unwrap();
    fs::write(volume.join(".c"), "{}").unwrap();
    fs::rename(volume.join(".c"), volume.join("c.json")).unwrap();
    until(&mut receiver, &moved_in(&volume, "c.json")).await;
}

#[tokio::test]
async fn the_limit_of_watches_is_told_from_other_faults() {
    const FEW_WATCHES: [&str; 5] = ["unshare", "--user", "--map-root-user", "sh", "-c"];
    let test = "elsewhere::the_limit_of_watches_is_told_from_other_faults";
    if child_folder().is_none() {
        let root = tempfile::tempdir().unwrap();
        let script = "echo 1 > /proc/sys/user/max_inotify_watches && \"$0\" \"$@\"";
        let wrapper: Vec<&str> = FEW_WATCHES.into_iter().chain([script]).collect();
        run_in_child(test, root.path(), &wrapper);
        return;
    }
    let scene = Scene::new();
    let (hints, mut receiver) = mailbox();
    let mut watcher = Watcher::new(hints);
    watcher.arm(&scene.inbox).unwrap();
    let error = watcher.arm(&scene.sending).unwrap_err();
    assert!(matches!(error, patchdrop::world::watch::WatchError::Limit), "{error:?}");
    scene.drop_file(".a", "");
    fs::rename(scene.inbox(".a").path(), scene.inbox("a").path()).unwrap();
    until(&mut receiver, &moved_in(&scene.inbox, "a")).await;
}
