//! Hints: which come, which do not, and that they never pile up.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use patchdrop::world::folder::Disk;
use patchdrop::world::watch::{
    Hint, HintReceiver, HintSender, NAMES_MAX, NoWatch, Watch, WatchError, Watcher, mailbox,
};

use crate::scene::{GIVE_UP_AFTER, Scene, odd_names};

pub(crate) fn moved_in(folder: &Arc<Path>, name: impl Into<std::ffi::OsString>) -> Hint {
    Hint::MovedIn { folder: Arc::clone(folder), name: name.into() }
}

fn touched(folder: &Arc<Path>) -> Hint {
    Hint::Touched { folder: Arc::clone(folder) }
}

fn lost(folder: &Arc<Path>) -> Hint {
    Hint::Lost { folder: Some(Arc::clone(folder)) }
}

async fn next(receiver: &mut HintReceiver) -> Vec<Hint> {
    tokio::time::timeout(GIVE_UP_AFTER, receiver.next()).await.expect("no hint came")
}

/// All hints up to and with `last`.
pub(crate) async fn until(receiver: &mut HintReceiver, last: &Hint) -> Vec<Hint> {
    let mut hints = Vec::new();
    while !hints.contains(last) {
        hints.extend(next(receiver).await);
    }
    hints
}

fn watching(folders: &[&Arc<Path>]) -> (Watcher, HintReceiver) {
    let (sender, receiver) = mailbox();
    let mut watcher = Watcher::new(sender);
    for folder in folders {
        watcher.arm(folder).unwrap();
    }
    (watcher, receiver)
}

/// Events come in order: what was to be hinted at before this has been.
async fn fence(scene: &Scene, folder: &Arc<Path>, receiver: &mut HintReceiver) -> Vec<Hint> {
    let outside = scene.root.path().join("fence");
    fs::write(&outside, "").unwrap();
    fs::rename(outside, folder.join("fence")).unwrap();
    let mut hints = until(receiver, &moved_in(folder, "fence")).await;
    hints.retain(|hint| *hint != moved_in(folder, "fence"));
    // How often the mailbox was emptied meanwhile is chance.
    hints.dedup();
    hints
}

#[tokio::test]
async fn a_rename_into_the_folder_is_told_by_name_and_a_write_is_not() {
    let scene = Scene::new();
    let (_watcher, mut receiver) = watching(&[&scene.inbox]);
    let outside = scene.root.path().join("outside");
    fs::write(&outside, "{}").unwrap();
    fs::rename(&outside, scene.inbox("in.json").path()).unwrap();
    let hints = until(&mut receiver, &moved_in(&scene.inbox, "in.json")).await;
    assert_eq!(hints, [moved_in(&scene.inbox, "in.json")]);

    scene.drop_file("written.json", "{}");
    assert_eq!(fence(&scene, &scene.inbox, &mut receiver).await, [touched(&scene.inbox)]);

    scene.drop_file("a.tmp", "{}");
    fs::rename(scene.inbox("a.tmp").path(), scene.inbox("a.json").path()).unwrap();
    let mut hints = fence(&scene, &scene.inbox, &mut receiver).await;
    hints.retain(|hint| *hint != touched(&scene.inbox));
    assert_eq!(hints, [moved_in(&scene.inbox, "a.json")]);
}

#[tokio::test]
async fn names_arrive_byte_for_byte() {
    let scene = Scene::new();
    let (_watcher, mut receiver) = watching(&[&scene.inbox]);
    for name in odd_names() {
        let outside = scene.root.path().join("outside");
        fs::write(&outside, "{}").unwrap();
        fs::rename(&outside, scene.inbox(&name).path()).unwrap();
        until(&mut receiver, &moved_in(&scene.inbox, name)).await;
    }
}

#[tokio::test]
async fn our_own_claims_and_what_leaves_give_no_hint() {
    let scene = Scene::new();
    let (place, other) = (scene.drop_file("a.json", "{}"), scene.drop_file("b.json", "{}"));
    let (_watcher, mut receiver) = watching(&[&scene.inbox]);
    scene.sweep(&scene.inbox).await.unwrap();
    let examined = scene.examined(&place).await;
    scene.disk.claim(examined.grip, place, scene.sending("1~a.json")).await.unwrap();
    scene.disk.digest(scene.sending("1~a.json")).await.unwrap();
    scene.disk.sync(Arc::clone(&scene.inbox)).await.unwrap();
    fs::remove_file(other.path()).unwrap();
    assert_eq!(fence(&scene, &scene.inbox, &mut receiver).await, []);
}

#[tokio::test]
async fn a_folder_that_goes_is_lost_and_can_be_armed_again() {
    let scene = Scene::new();
    let folder = scene.folder("orders");
    let (mut watcher, mut receiver) = watching(&[&folder]);
    for round in 0..3 {
        fs::remove_dir_all(&folder).unwrap();
        until(&mut receiver, &lost(&folder)).await;
        assert!(matches!(watcher.arm(&folder), Err(WatchError::Other { .. })), "round {round}");
        fs::create_dir(&folder).unwrap();
        watcher.arm(&folder).unwrap();
        fence(&scene, &folder, &mut receiver).await;
    }
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_armed_anew_and_the_old_one_forgotten() {
    let scene = Scene::new();
    let folder = scene.folder("orders");
    let (mut watcher, mut receiver) = watching(&[&folder]);
    let away = scene.root.path().join("away");
    fs::rename(&folder, &away).unwrap();
    until(&mut receiver, &lost(&folder)).await;
    fs::create_dir(&folder).unwrap();
    watcher.arm(&folder).unwrap();
    fs::write(away.join("stray"), "").unwrap();
    assert_eq!(fence(&scene, &folder, &mut receiver).await, []);
}

#[tokio::test]
async fn a_disarmed_folder_gives_no_hint() {
    let scene = Scene::new();
    let (one, other) = (scene.folder("one"), scene.folder("other"));
    let (mut watcher, mut receiver) = watching(&[&one, &other]);
    fence(&scene, &one, &mut receiver).await;
    watcher.disarm(&one);
    watcher.disarm(&one);
    fs::write(one.join("a"), "").unwrap();
    fs::rename(one.join("a"), one.join("b")).unwrap();
    assert_eq!(fence(&scene, &other, &mut receiver).await, []);
    watcher.arm(&one).unwrap();
    fence(&scene, &one, &mut receiver).await;

    // The folder above tells of it, too.
    watcher.arm(&scene.inbox).unwrap();
    watcher.arm(&scene.sending).unwrap();
    watcher.disarm(&scene.sending);
    fs::remove_dir(&scene.sending).unwrap();
    assert_eq!(fence(&scene, &scene.inbox, &mut receiver).await, []);
}

#[tokio::test]
async fn only_folders_are_watched_and_no_links() {
    let scene = Scene::new();
    let link: Arc<Path> = Arc::from(scene.root.path().join("link"));
    symlink(&scene.inbox, &link).unwrap();
    let missing: Arc<Path> = Arc::from(scene.root.path().join("missing"));
    let file: Arc<Path> = Arc::from(scene.drop_file("plain", "").path());
    let (mut watcher, _receiver) = watching(&[]);
    for folder in [link, missing, file] {
        match watcher.arm(&folder) {
            Err(WatchError::Other { folder: refused, .. }) => assert_eq!(refused, *folder),
            other => panic!("{other:?}"),
        }
    }
    NoWatch.arm(&scene.inbox).unwrap();
    NoWatch.disarm(&scene.inbox);
}

#[tokio::test]
async fn twenty_thousand_renames_never_pile_up() {
    let scene = Scene::new();
    let outside = scene.folder("outside");
    for number in 0..20_000 {
        fs::write(outside.join(number.to_string()), "").unwrap();
    }
    let (_watcher, mut receiver) = watching(&[&scene.inbox]);
    for number in 0..20_000 {
        fs::rename(outside.join(number.to_string()), scene.inbox.join(number.to_string())).unwrap();
    }
    let mut named = 0;
    let mut is_complete = false;
    while !is_complete {
        let hints = next(&mut receiver).await;
        let count = hints.iter().filter(|hint| matches!(hint, Hint::MovedIn { .. })).count();
        assert!(count <= NAMES_MAX, "{count} names at once");
        named += count;
        is_complete = named == 20_000
            || hints.contains(&touched(&scene.inbox))
            || hints.contains(&Hint::Lost { folder: None });
    }
}

#[tokio::test]
async fn what_waits_in_the_mailbox_is_merged() {
    let folder: Arc<Path> = Arc::from(Path::new("/drop/orders"));
    let (sender, mut receiver) = mailbox();
    let post_names = |sender: &HintSender, count: usize| {
        for number in 0..count {
            sender.post(moved_in(&folder, number.to_string()));
            sender.post(moved_in(&folder, number.to_string()));
        }
    };
    post_names(&sender, NAMES_MAX);
    let hints = receiver.next().await;
    assert_eq!(hints.len(), NAMES_MAX, "{:?}", hints.first());

    post_names(&sender, 20_000);
    for _ in 0..1_000 {
        sender.post(touched(&folder));
        sender.post(Hint::Lost { folder: None });
        sender.post(lost(&folder));
    }
    let hints = receiver.next().await;
    let first = [Hint::Lost { folder: None }, lost(&folder), touched(&folder)];
    assert_eq!(hints.get(..3), Some(first.as_slice()));
    assert_eq!(hints.len(), 3 + NAMES_MAX);

    tokio::select! {
        biased;
        _ = receiver.next() => unreachable!("the mailbox is empty"),
        () = std::future::ready(()) => {}
    }
    post_names(&sender, 1);
    assert_eq!(next(&mut receiver).await, [moved_in(&folder, "0")], "a dropped wait loses nothing");
}
