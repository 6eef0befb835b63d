//! The table "Bad input and what happens to it": files that are whole and not as they should be.

use std::fs;

use patchdrop::simulator::SimulatorOptions;

use super::scene::{Plan, Scene, files, names};

/// Drops a file by a rename and waits for it in `failed/` with this code; nothing was sent.
fn check_refused(scene: &Scene, name: &str, content: &[u8], code: &str, place: &str) {
    scene.drop_file(name, content);
    let failed = scene.inbox().join("failed");
    let sidecar = format!("{name}.why.txt");
    scene.until(&format!("{name} in failed/"), |_| failed.join(name).exists());
    assert!(failed.join(&sidecar).exists(), "{name} has no sidecar");
    assert_eq!(scene.code_of("failed", name), code, "{name}");
    let why = fs::read_to_string(failed.join(sidecar)).unwrap();
    assert!(why.lines().next().unwrap().contains(place), "{name}: {place:?} is not in\n{why}");
    assert_eq!(fs::read(failed.join(name)).unwrap(), content, "{name} was changed");
    assert_eq!(scene.posts(), 0, "{name} was sent");
}

#[test]
fn what_is_no_json_ends_in_failed_with_line_and_column_and_is_never_sent() {
    let mut scene = Scene::running(Plan::default());
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let check = |name: &str, content: &[u8], code: &str, place: &str| {
        check_refused(&scene, name, content, code, place);
    };
    check("trailing.json", b"{\"a\": 1}\nx", "trailing-content", "line 2, column 1");
    check("two.json", b"{\"a\": 1}\n{\"b\": 2}", "several-documents", "line 2, column 1");
    check("nan.json", b"{\"a\":\n  NaN}", "not-json", "line 2, column 3");
    check("utf8.json", b"{\"a\": \"\xff\xfe\"}", "invalid-utf8", "line 1, column 8");
    check("latin.json", b"{\"a\": \"M\xfcller\"}", "invalid-utf8", "windows-1252");
    check("cut-letter.json", b"{\"a\": \"\xe2\x82\"}", "invalid-utf8", "line 1, column 8");
    check("deep.json", deep.as_bytes(), "too-deep", "line 1, column 513");
    check("text.json", b"hello", "not-json", "line 1, column 1");
    assert!(scene.is_up(), "{}", scene.story());
    scene.drop_file("good.json", "{}");
    scene.until_in("sent", &["good.json"]);
    assert_eq!(scene.posts(), 1);
    scene.verify();
}

#[test]
fn what_may_be_unfinished_waits_for_truncated_after_and_then_ends_in_failed() {
    let scene = Scene::running(Plan { defaults: "truncated_after = '2s'", ..Plan::default() });
    scene.drop_file("cut.json", "{\"a\": [1, 2");
    scene.drop_file("empty.json", "");
    scene.until("both wait", |scene| scene.waiting("truncated") == 2);
    assert_eq!(names(&scene.inbox().join("failed")), [""; 0]);
    let expected = ["cut.json", "cut.json.why.txt", "empty.json", "empty.json.why.txt"];
    scene.until_in("failed", &expected);
    assert_eq!(scene.code_of("failed", "cut.json"), "truncated");
    assert_eq!(scene.code_of("failed", "empty.json"), "empty");
    assert_eq!(scene.posts(), 0);
    scene.verify();
}

#[test]
fn a_byte_order_mark_is_dropped_and_utf_16_converted_and_both_are_on_record() {
    let scene = Scene::running(Plan::default());
    let text = "{\"name\": \"Jürgen €\"}";
    let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        mark.into_iter().chain(text.encode_utf16().flat_map(bytes)).collect::<Vec<u8>>()
    };
    let check = |name: &str, content: &[u8], conversion: &str| {
        scene.drop_file(name, content);
        let sent = scene.inbox().join("sent").join(name);
        scene.until(&format!("{name} in sent/"), |_| sent.exists());
        let (_, arrived, body) = scene.arrived().pop().unwrap();
        assert_eq!((arrived.as_str(), body.as_slice()), (name, text.as_bytes()));
        assert_eq!(fs::read(&sent).unwrap(), content, "{name} was changed on disk");
        let explained = scene.ask(&["explain", name, "--json"]);
        assert!(explained.out.contains(conversion), "{name}: {explained:?}");
    };
    check("bom.json", &[b"\xef\xbb\xbf", text.as_bytes()].concat(), "bom");
    check("le.json", &utf16([0xff, 0xfe], u16::to_le_bytes), "utf-16");
    check("be.json", &utf16([0xfe, 0xff], u16::to_be_bytes), "utf-16");
    assert_eq!(scene.posts(), 3);
    scene.verify();
}

#[test]
fn a_file_larger_than_max_body_is_refused_by_its_size_alone() {
    let scene = Scene::running(Plan {
        defaults: "max_body = '1MB'",
        simulator: SimulatorOptions::default(),
        ..Plan::default()
    });
    // Reading a sparse 100 GB would take longer than any guard.
    let outside = scene.path("outside/huge.json");
    fs::File::create(&outside).unwrap().set_len(100_000_000_000).unwrap();
    fs::rename(&outside, scene.inbox().join("huge.json")).unwrap();
    scene.until_in("failed", &["huge.json", "huge.json.why.txt"]);
    assert_eq!(scene.code_of("failed", "huge.json"), "body-too-large");
    assert_eq!(scene.sim.counts().requests, 0);
    assert_eq!(files(&scene.inbox()), [""; 0]);
    scene.verify();
}
