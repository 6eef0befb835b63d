#![expect(clippy::disallowed_methods, reason = "the tests make and look at the files themselves")]

use super::*;
use crate::model::durability::Durability;

fn own() -> Own {
    Own::new(Durability::PowerLoss)
}

fn place(root: &tempfile::TempDir, name: &str) -> Place {
    Place::new(&Arc::from(root.path()), name)
}

fn content(place: &Place) -> Option<String> {
    std::fs::read_to_string(long(&place.path())).ok()
}

fn put(place: &Place, text: &str) {
    std::fs::write(long(&place.path()), text).unwrap();
}

#[test]
fn a_rename_replaces_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (one, two, three) = (place(&root, "one"), place(&root, "two"), place(&root, "three"));
    put(&one, "1");
    put(&two, "2");
    std::fs::create_dir(root.path().join("folder")).unwrap();
    let moved = |from: &Place, to: &Place| move_new(from, to, &own());
    assert!(matches!(moved(&one, &two), Err(MoveError::Taken { .. })));
    assert!(matches!(moved(&one, &place(&root, "TWO")), Err(MoveError::Taken { .. })));
    assert!(matches!(moved(&one, &place(&root, "folder")), Err(MoveError::Taken { .. })));
    assert_eq!((content(&one).as_deref(), content(&two).as_deref()), (Some("1"), Some("2")));
    assert!(matches!(moved(&three, &one), Err(MoveError::Gone { .. })));
    let before = look(&one, &own()).unwrap().unwrap().identity;
    assert_eq!(moved(&one, &three).unwrap(), before);
    assert_eq!((content(&one), content(&three).as_deref()), (None, Some("1")));
    assert_eq!(look(&three, &own()).unwrap().unwrap().identity, before);
}

#[test]
fn what_was_read_is_what_is_claimed_and_nobody_can_change_it_between() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (place(&root, "from"), place(&root, "to"));
    put(&from, "read");
    let mut text = String::new();
    let read = |input: &mut dyn Read, _: &Identity| input.read_to_string(&mut text).unwrap();
    let examined = examine(&from, &own(), read).unwrap();
    assert!(examined.lease_granted);
    assert_eq!(examined.links, 1);
    assert!(OpenOptions::new().append(true).open(from.path()).is_err(), "a writer got in");
    assert!(std::fs::remove_file(from.path()).is_err(), "it was removed");
    assert!(std::fs::rename(from.path(), to.path()).is_err(), "it was renamed");
    claim(examined.grip, &from, &to, &own()).unwrap();
    assert_eq!(text, "read");
    assert_eq!((content(&from), content(&to).as_deref()), (None, Some("read")));
}

#[test]
fn a_file_that_is_open_for_writing_is_in_use_however_its_writer_shares_it() {
    let root = tempfile::tempdir().unwrap();
    let file = place(&root, "file");
    for share in [SHARE_ALL, FILE_SHARE_READ, 0] {
        let writer =
            OpenOptions::new().create(true).append(true).share_mode(share).open(file.path());
        let mut writer = writer.unwrap();
        writer.write_all(b"half").unwrap();
        let examined = examine(&file, &own(), |_, _| ());
        assert!(matches!(examined, Err(FolderError::InUse { .. })), "{share}");
        drop(writer);
        examine(&file, &own(), |_, _| ()).unwrap();
    }
}

#[test]
fn a_file_that_another_program_shares_with_nobody_is_seen_and_neither_read_nor_moved() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (place(&root, "from"), place(&root, "to"));
    put(&from, "1");
    let holder = OpenOptions::new().read(true).share_mode(0).open(from.path()).unwrap();
    let seen = look(&from, &own()).unwrap().unwrap();
    assert_eq!((seen.kind, seen.identity.size), (Kind::File, 1));
    let in_use = |error: Option<FolderError>| {
        assert!(matches!(error, Some(FolderError::InUse { .. })), "{error:?}");
    };
    in_use(examine(&from, &own(), |_, _| ()).err());
    in_use(digest(&from, &own()).err());
    in_use(open(&from, &own()).err());
    in_use(remove(&from, &own()).err());
    let moved = move_new(&from, &to, &own());
    assert!(matches!(moved, Err(MoveError::Folder(FolderError::InUse { .. }))), "{moved:?}");
    drop(holder);
    move_new(&from, &to, &own()).unwrap();
    assert_eq!((content(&from), content(&to).as_deref()), (None, Some("1")));
}

#[test]
fn what_the_system_says_of_locked_and_dying_files_is_sorted() {
    let of = |code: i32| of("open", "file".into(), io::Error::from_raw_os_error(code));
    assert!(matches!(of(32), FolderError::InUse { .. }));
    assert!(matches!(of(33), FolderError::InUse { .. }));
    assert!(matches!(of(5), FolderError::Denied { .. }));
    assert!(matches!(of(303), FolderError::Gone { .. }));
    assert!(matches!(of(2), FolderError::Gone { .. }));
    assert!(matches!(of(112), FolderError::Full { .. }));
    assert!(of(4).lacks_handles());
}

#[test]
fn a_look_sees_what_a_writer_has_not_yet_closed() {
    let root = tempfile::tempdir().unwrap();
    let file = place(&root, "file");
    let mut writer = File::create(file.path()).unwrap();
    writer.write_all(b"12345").unwrap();
    let mut listing = Listing::open(Arc::clone(&file.folder), &own()).unwrap();
    let sightings = listing.read(256).unwrap();
    assert_eq!(sightings.iter().map(|seen| seen.identity.size).collect::<Vec<_>>(), [5]);
}

#[test]
fn names_that_mean_devices_and_paths_beyond_260_letters_are_names_like_any_other() {
    let root = tempfile::tempdir().unwrap();
    let deep: Arc<Path> = Arc::from(root.path().join("d".repeat(120)).join("e".repeat(120)));
    make_folder(&deep, &own()).unwrap();
    for name in ["orders.json", "aux", "ends with a dot.", "ä €"] {
        let (from, to) = (Place::new(&deep, name), Place::new(&deep, format!("{name} moved")));
        put(&from, name);
        let examined = examine(&from, &own(), |_, _| ()).unwrap();
        claim(examined.grip, &from, &to, &own()).unwrap();
        assert_eq!(content(&to).as_deref(), Some(name));
        remove(&to, &own()).unwrap();
    }
    assert!(Listing::open(deep, &own()).unwrap().read(9).unwrap().is_empty());
    for name in ["", "..", r"a\b", "a/b", "a:b"] {
        assert!(look(&Place::new(&Arc::from(root.path()), name), &own()).is_err(), "{name}");
    }
}

#[test]
fn a_folder_that_was_swapped_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder: Arc<Path> = Arc::from(root.path().join("in"));
    make_folder(&folder, &own()).unwrap();
    let own = own();
    let seen = inspect(&folder).unwrap().unwrap();
    own.pin(&folder, seen);
    put(&Place::new(&folder, "file"), "1");
    assert!(look(&Place::new(&folder, "file"), &own).unwrap().is_some());
    std::fs::rename(&folder, root.path().join("gone")).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let looked = look(&Place::new(&folder, "file"), &own);
    assert!(matches!(looked, Err(FolderError::Replaced { .. })), "{looked:?}");
}

#[test]
fn an_interrupted_copy_is_finished_only_for_the_file_that_was_copied() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (place(&root, "from"), place(&root, "to"));
    put(&from, "1");
    put(&to, "1");
    let copied = look(&from, &own()).unwrap().unwrap().identity;
    finish_move(&from, Identity { size: 2, ..copied }, &to, &own()).unwrap();
    assert_eq!(content(&from).as_deref(), Some("1"));
    finish_move(&from, copied, &to, &own()).unwrap();
    assert_eq!((content(&from), content(&to).as_deref()), (None, Some("1")));
    finish_move(&from, copied, &to, &own()).unwrap();
}

#[test]
fn a_move_to_another_volume_copies_whole_and_keeps_the_time() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (place(&root, "from"), place(&root, "to"));
    put(&from, "all of it");
    let before = look(&from, &own()).unwrap().unwrap().identity;
    assert_eq!(move_across(&from, &to, &own()).unwrap(), before);
    assert_eq!((content(&from), content(&to).as_deref()), (None, Some("all of it")));
    assert_eq!(look(&to, &own()).unwrap().unwrap().identity.mtime_ns, before.mtime_ns);
    put(&from, "another");
    assert!(matches!(move_across(&from, &to, &own()), Err(MoveError::Taken { .. })));
    let names = Listing::open(Arc::clone(&to.folder), &own()).unwrap().read(9).unwrap();
    assert_eq!(names.len(), 2, "no temporary file is left");
}

#[test]
fn paths_are_given_to_the_system_in_their_long_form() {
    let check = |path: &str, expected: &str| assert_eq!(long(Path::new(path)), Path::new(expected));
    check(r"C:\in\a", r"\\?\C:\in\a");
    check("C:/in/./a", r"\\?\C:\in\a");
    check(r"C:\", r"\\?\C:\");
    check(r"\\server\share\in", r"\\?\UNC\server\share\in");
    check(r"\\?\C:\in", r"\\?\C:\in");
    check(r"in\a", r"in\a");
    check(r"C:in", r"C:in");
    check(r"C:\in\..\a", r"C:\in\..\a");
}

#[test]
fn room_is_told_and_shares_are_remote() {
    let root = tempfile::tempdir().unwrap();
    let room = room(root.path()).unwrap();
    assert!(room.free_bytes > 0 && room.free_bytes <= room.total_bytes);
    assert_eq!(volume_kind(root.path()), Volume::Local);
    assert_eq!(volume_kind(Path::new(r"\\server\share\in")), Volume::Remote { kind: "smb" });
}
