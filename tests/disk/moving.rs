//! Claims, moves and files of ours: nothing is replaced, nothing is lost.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use patchdrop::model::file::Place;
use patchdrop::world::folder::{Disk, FolderError, MoveError};
use tempfile::TempDir;

use crate::scene::{Scene, content, names, not_run};

fn set_mtime(place: &Place, seconds: u64) -> SystemTime {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let times = FileTimes::new().set_modified(time);
    File::open(place.path()).unwrap().set_times(times).unwrap();
    time
}

fn mtime(place: &Place) -> SystemTime {
    fs::metadata(place.path()).unwrap().modified().unwrap()
}

#[tokio::test]
async fn a_claim_moves_the_examined_file_and_keeps_its_times() {
    let scene = Scene::new();
    let (place, target) = (scene.drop_file("a.json", "{}"), scene.sending("1~a.json"));
    let time = set_mtime(&place, 1_000_000_000);
    let examined = scene.examined(&place).await;
    scene.disk.claim(examined.grip, place.clone(), target.clone()).await.unwrap();
    assert_eq!((content(&place), content(&target).as_deref()), (None, Some("{}")));
    assert_eq!(mtime(&target), time);
    let seen = scene.disk.look(target).await.unwrap().unwrap();
    assert_eq!(seen.identity, examined.identity, "a claim leaves the identity alone");
}

#[tokio::test]
async fn a_claim_never_replaces() {
    let scene = Scene::new();
    let (place, target) = (scene.drop_file("a.json", "new"), scene.sending("1~a.json"));
    fs::write(target.path(), "old").unwrap();
    let examined = scene.examined(&place).await;
    let error = scene.disk.claim(examined.grip, place.clone(), target.clone()).await.unwrap_err();
    assert!(matches!(error, MoveError::Taken { target: taken } if taken == target.path()));
    assert_eq!(content(&place).as_deref(), Some("new"));
    assert_eq!(content(&target).as_deref(), Some("old"));
}

#[tokio::test]
async fn a_claim_tells_when_another_file_was_moved() {
    let scene = Scene::new();
    let target = scene.sending("1~a.json");
    let place = scene.drop_file("a.json", "examined");
    let examined = scene.examined(&place).await;
    let other = scene.drop_file("other", "same len");
    fs::rename(other.path(), place.path()).unwrap();
    let error = scene.disk.claim(examined.grip, place.clone(), target.clone()).await.unwrap_err();
    assert!(matches!(error, MoveError::Swapped { target: at } if at == target.path()));
    assert_eq!(content(&target).as_deref(), Some("same len"), "it lies at the target");
    assert_eq!(content(&place), None);

    let (place, target) = (scene.drop_file("b.json", "{}"), scene.sending("2~b.json"));
    let examined = scene.examined(&place).await;
    set_mtime(&place, 1);
    let error = scene.disk.claim(examined.grip, place, target.clone()).await.unwrap_err();
    assert!(matches!(error, MoveError::Swapped { .. }), "changed since: {error:?}");
    assert!(target.path().exists());
}

#[tokio::test]
async fn a_claim_of_a_file_that_has_gone_says_so() {
    let scene = Scene::new();
    let (place, target) = (scene.drop_file("a.json", "{}"), scene.sending("1~a.json"));
    let examined = scene.examined(&place).await;
    fs::remove_file(place.path()).unwrap();
    let error = scene.disk.claim(examined.grip, place, target).await.unwrap_err();
    assert!(matches!(error, MoveError::Gone { .. }));
}

#[tokio::test]
async fn a_move_that_cannot_be_leaves_everything_where_it_was() {
    let scene = Scene::new();
    let place = scene.drop_file("a.json", "{}");
    let away: Arc<Path> = Arc::from(scene.root.path().join("away"));
    let link: Arc<Path> = Arc::from(scene.root.path().join("link"));
    symlink(&scene.sending, &link).unwrap();
    let taken = ["file", "folder", "dangling"].map(|name| scene.sending(name));
    fs::write(taken[0].path(), "old").unwrap();
    fs::create_dir(taken[1].path()).unwrap();
    symlink("nowhere", taken[2].path()).unwrap();

    let moved = |from: &Place, to: &Place| scene.disk.move_new(from.clone(), to.clone());
    for target in &taken {
        let error = moved(&place, target).await.unwrap_err();
        assert!(matches!(error, MoveError::Taken { target: at } if at == target.path()));
    }
    assert_eq!(content(&taken[0]).as_deref(), Some("old"));
    let to_away = moved(&place, &Place::new(&away, "x")).await.unwrap_err();
    assert!(matches!(to_away, MoveError::Folder(FolderError::Gone { path }) if path == *away));
    let from_away = moved(&Place::new(&away, "x"), &place).await.unwrap_err();
    assert!(matches!(from_away, MoveError::Folder(FolderError::Gone { path }) if path == *away));
    let through_link = moved(&place, &Place::new(&link, "x")).await.unwrap_err();
    assert!(matches!(through_link, MoveError::Folder(FolderError::Io { .. })));
    let too_long = moved(&place, &scene.sending("l".repeat(256))).await.unwrap_err();
    assert!(matches!(too_long, MoveError::Folder(FolderError::Io { .. })));
    let none = moved(&scene.inbox("none"), &scene.sending("x")).await.unwrap_err();
    assert!(matches!(none, MoveError::Gone { .. }));
    assert_eq!(content(&place).as_deref(), Some("{}"));
    assert_eq!(names(&scene.sending), ["dangling", "file", "folder"]);
}

/// A folder on another volume than the temporary one, if there is one.
fn other_volume(scene: &Scene) -> Option<TempDir> {
    let volume = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let candidates = ["/dev/shm", "/run", "/var/tmp"];
    let other = candidates.into_iter().find_map(|candidate| {
        let is_other = volume(candidate.as_ref())? != volume(&scene.inbox)?;
        is_other.then(|| tempfile::tempdir_in(candidate).ok()).flatten()
    });
    if other.is_none() {
        not_run("moves to another volume", "no second volume that can be written to");
    }
    other
}

#[tokio::test]
async fn a_move_to_another_volume_keeps_bytes_mode_and_times() {
    let scene = Scene::new();
    let Some(volume) = other_volume(&scene) else { return };
    let sent: Arc<Path> = Arc::from(volume.path());
    let large = "x".repeat(3_000_000);
    let (place, target) = (scene.drop_file("a.json", &large), Place::new(&sent, "a.json"));
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o604)).unwrap();
    let time = set_mtime(&place, 1_234_567_890);
    scene.disk.move_new(place.clone(), target.clone()).await.unwrap();
    assert_eq!((content(&place), content(&target)), (None, Some(large)));
    assert_eq!(mtime(&target), time);
    assert_eq!(fs::metadata(target.path()).unwrap().mode() & 0o7777, 0o604);
    assert_eq!(names(&sent), ["a.json"]);
    assert_eq!(scene.disk.fsyncs(), 2, "the copy and its folder, before the source is removed");

    let again = scene.drop_file("a.json", "second");
    let error = scene.disk.move_new(again.clone(), target.clone()).await.unwrap_err();
    assert!(matches!(error, MoveError::Taken { .. }));
    assert_eq!(content(&again).as_deref(), Some("second"));
    assert_eq!(content(&target).map(|text| text.len()), Some(3_000_000));
    assert_eq!(names(&sent), ["a.json"], "no temporary file stays");

    symlink(again.path(), scene.inbox("link").path()).unwrap();
    let link = scene.disk.move_new(scene.inbox("link"), Place::new(&sent, "link")).await;
    assert!(matches!(link, Err(MoveError::Folder(FolderError::NotAFile { .. }))));
    let none = scene.disk.move_new(scene.inbox("none"), Place::new(&sent, "none")).await;
    assert!(matches!(none, Err(MoveError::Gone { .. })));
    assert_eq!(names(&sent), ["a.json"]);
}

#[tokio::test]
async fn a_file_of_ours_replaces_an_older_one_and_leaves_no_temporary_file() {
    let scene = Scene::new();
    let place = scene.inbox("a.json.why.txt");
    scene.disk.write(place.clone(), b"first".to_vec()).await.unwrap();
    scene.disk.write(place.clone(), b"second".to_vec()).await.unwrap();
    assert_eq!(content(&place).as_deref(), Some("second"));
    assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o137, 0, "at most 0640");
    let victim = scene.drop_file("victim", "untouched");
    let link = scene.inbox("link");
    symlink(victim.path(), link.path()).unwrap();
    scene.disk.write(link.clone(), b"ours".to_vec()).await.unwrap();
    assert_eq!(content(&victim).as_deref(), Some("untouched"), "a link is replaced, not followed");
    assert_eq!(names(&scene.inbox), ["a.json.why.txt", "link", "sending", "victim"]);

    fs::create_dir(scene.inbox("folder").path()).unwrap();
    scene.disk.write(scene.inbox("folder"), vec![]).await.unwrap_err();
    scene.disk.write(scene.inbox("l".repeat(256)), vec![]).await.unwrap_err();
    scene.disk.remove(place.clone()).await.unwrap();
    scene.disk.remove(place).await.unwrap();
    scene.disk.remove(link).await.unwrap();
    assert_eq!(names(&scene.inbox), ["folder", "sending", "victim"]);
}

#[tokio::test]
async fn a_folder_is_made_with_its_parents_and_again_without_complaint() {
    let scene = Scene::new();
    let folder: Arc<Path> = Arc::from(scene.inbox.join("sent/2026/11"));
    scene.disk.make_folder(Arc::clone(&folder)).await.unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o027, 0, "at most 0750");
    assert_eq!(scene.disk.fsyncs(), 3, "each parent that a folder was made in");
    scene.disk.make_folder(Arc::clone(&folder)).await.unwrap();
    assert!(folder.is_dir());
    let below_a_file = scene.drop_file("plain", "").path().join("x");
    scene.disk.make_folder(Arc::from(below_a_file)).await.unwrap_err();
    // Links above the folders that patchdrop works in are the administrator's business.
    let link = scene.root.path().join("link");
    symlink(&scene.inbox, &link).unwrap();
    scene.disk.make_folder(Arc::from(link.join("held"))).await.unwrap();
    assert!(scene.inbox.join("held").is_dir());
}

#[tokio::test]
async fn every_sync_is_answered_after_an_fsync() {
    let scene = Scene::new();
    scene.disk.sync(Arc::clone(&scene.inbox)).await.unwrap();
    assert_eq!(scene.disk.fsyncs(), 1);
    let both = [&scene.inbox, &scene.sending].map(|folder| scene.disk.sync(Arc::clone(folder)));
    let [one, other] = both;
    let (one, other) = tokio::join!(one, other);
    one.unwrap();
    other.unwrap();
    assert_eq!(scene.disk.fsyncs(), 3);
    assert!(scene.disk.syncs_folders());
}
