//! A disk that refuses one kind of operation for a while, in use: a quota that is used up, a bad
//! block, a file system that turns read-only. Sending pauses and says so, nothing is lost or sent
//! twice, and it goes on by itself.

use std::time::Duration;

use fuser::Errno;

use super::forgetful::{Forgetful, Refusal};
use super::judge::in_folder;
use super::scene::{Plan, Scene, beat, files, names};

/// Files that are dropped while the disk refuses.
const FILES: usize = 30;

/// One kind of operation that is refused.
struct Trouble {
    what: &'static str,
    refusal: Refusal,
    said: Said,
}

/// How that is said.
enum Said {
    /// The code of the route's pause.
    Pause(&'static str),
    /// A part of an alert.
    Alert(&'static str),
    /// A part of the log: nothing need wait for it.
    Log(&'static str),
}

const UNRECORDED: Said = Said::Alert("sending is paused, nothing can be put on record");

const UNSURE: Said = Said::Log("it is not sure that a power cut would not undo it");

fn trouble(what: &'static str, with: Errno, of: fn(&str) -> bool, said: Said) -> Trouble {
    Trouble { what, refusal: Refusal { with, of }, said }
}

fn is_claim(what: &str) -> bool {
    what.starts_with("rename ") && what.ends_with(" sending")
}

fn makes_sidecar(what: &str) -> bool {
    what.starts_with("make ") && what.ends_with(" sent")
}

fn is_last_move(what: &str) -> bool {
    what.starts_with("rename ") && what.contains('~') && what.ends_with(" sent")
}

fn syncs_sidecar(what: &str) -> bool {
    what.starts_with("fsync file ") && what.contains(".part")
}

fn syncs_claims(what: &str) -> bool {
    what.starts_with("fsync folder ") && what.ends_with(" sending")
}

fn syncs_target(what: &str) -> bool {
    what.starts_with("fsync folder ") && what.ends_with(" sent")
}

fn writes_record(what: &str) -> bool {
    what.starts_with("write ") && what.ends_with(" ledger.db-wal")
}

fn syncs_record(what: &str) -> bool {
    what.starts_with("fsync file ") && what.ends_with(" ledger.db-wal")
}

fn play(trouble: &Trouble) {
    let disk = Forgetful::new();
    let mut scene = Scene::of(Plan {
        top: "poll_every = '1s'\nsweep_every = '1s'\n",
        defaults: "quiet_for = '100ms'\nreceipts = true\n\
                   retry = { first = '50ms', factor = 1.5, max = '300ms', give_up_after = '1h' }\n",
        within: Some(disk.path().to_owned()),
        ..Plan::default()
    });
    scene.start();
    let put = |name: &str, body: &str| {
        let inbox = scene.inbox();
        disk.put(inbox.strip_prefix(disk.path()).unwrap(), name, body.as_bytes());
    };
    put("before.json", "{\"n\": -1}");
    scene.until("it works", |scene| in_folder(scene, "sent") == ["before.json"]);
    disk.refuse_only(Some(trouble.refusal));
    for number in 0..FILES {
        put(&format!("{number}.json"), &format!("{{\"n\": {number}}}"));
    }
    scene.until(trouble.what, |scene| match trouble.said {
        Said::Pause(code) => {
            let pause = scene.route("orders").and_then(|route| route.pause);
            pause.is_some_and(|pause| pause.code == code)
        }
        Said::Alert(text) => {
            let alerts = scene.status().map(|status| status.alerts).unwrap_or_default();
            alerts.iter().any(|alert| alert.contains(text))
        }
        Said::Log(text) => scene.log().contains(text),
    });
    // It tries several times by itself.
    beat(Duration::from_secs(1));
    if !matches!(trouble.said, Said::Log(_)) {
        assert!(scene.posts() <= FILES as u64, "{} sends on\n{}", trouble.what, scene.story());
    }
    disk.refuse_only(None);
    scene.until("all are sent", |scene| in_folder(scene, "sent").len() == FILES + 1);
    let arrivals = scene.arrivals();
    assert_eq!(arrivals.len(), FILES + 1, "{}", scene.story());
    assert!(arrivals.values().all(|times| *times == 1), "{}\n{arrivals:?}", trouble.what);
    assert_eq!(files(&scene.inbox()), [""; 0]);
    for end in ["failed", "held"] {
        assert_eq!(names(&scene.inbox().join(end)), [""; 0], "{}", scene.story());
    }
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

/// Each in a thread of its own: most of it is waiting.
fn play_all(troubles: Vec<Trouble>) {
    let played: Vec<_> = troubles
        .into_iter()
        .map(|trouble| (trouble.what, std::thread::spawn(move || play(&trouble))))
        .collect();
    for (what, played) in played {
        assert!(played.join().is_ok(), "{what}");
    }
}

#[test]
fn a_disk_that_refuses_one_operation_on_files_pauses_the_route_and_costs_none() {
    let (quota, bad, read_only) = (Errno::EDQUOT, Errno::EIO, Errno::EROFS);
    play_all(vec![
        trouble("a claim over quota", quota, is_claim, Said::Pause("disk-full")),
        trouble("a claim on a bad block", bad, is_claim, Said::Pause("folder-fault")),
        trouble("claims that cannot be synced", bad, syncs_claims, Said::Pause("folder-fault")),
        trouble("a receipt over quota", quota, makes_sidecar, Said::Pause("disk-full")),
        trouble("a receipt not synced", bad, syncs_sidecar, Said::Pause("folder-fault")),
        trouble("a last move over quota", quota, is_last_move, Said::Pause("disk-full")),
        trouble("a last move refused", read_only, is_last_move, Said::Pause("read-only")),
        trouble("sent/ cannot be synced", bad, syncs_target, UNSURE),
    ]);
}

#[test]
fn a_disk_that_refuses_the_ledgers_writes_or_syncs_pauses_all_sending_and_costs_no_file() {
    play_all(vec![
        trouble("the record on a bad block", Errno::EIO, writes_record, UNRECORDED),
        trouble("the record read-only", Errno::EROFS, writes_record, UNRECORDED),
        trouble("the record over quota", Errno::EDQUOT, writes_record, UNRECORDED),
        trouble("the record not synced", Errno::EIO, syncs_record, UNRECORDED),
    ]);
}
