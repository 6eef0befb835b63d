//! A disk whose fsync takes long keeps its speed: what waits for it waits together.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::forgetful::Forgetful;
use super::scene::{GUARD, Plan, Scene, UNSYNCED, beat, names, scale};

/// What each fsync takes at the slow drain.
const SLOW_SYNC: Duration = Duration::from_millis(5);

/// Files of one drain.
const FILES: u32 = 1_500;

/// Pairs of drains; the best of each kind counts, since others use the machine too.
const PAIRS: usize = 2;

/// Drains files and says how many a second came to rest in `sent/`, and how often was synced.
fn drain(files: u32, sync: Duration, tables: &'static str) -> (f64, u64) {
    let disk = Forgetful::new();
    let mut scene = Scene::of(Plan {
        defaults: "concurrency = 128\nquiet_for = '100ms'",
        tables,
        within: Some(disk.path().to_owned()),
        ..Plan::default()
    });
    let inbox = scene.inbox();
    let folder = inbox.strip_prefix(disk.path()).unwrap();
    for number in 0..files {
        disk.put(folder, &format!("{number}.json"), format!("{{\"n\": {number}}}").as_bytes());
    }
    scene.launch();
    // The first files go before the clock starts: a start is not what is measured.
    let sent = inbox.join("sent");
    scene.until("the drain has begun", |_| names(&sent).len() > 20);
    disk.slow_syncs(sync);
    let sent_now = || u32::try_from(names(&sent).len()).unwrap();
    let (began, before) = (Instant::now(), sent_now());
    let syncs = disk.shared.syncs.load(Ordering::Relaxed);
    while sent_now() < files {
        assert!(began.elapsed() < GUARD, "the drain stands still\n{}", scene.story());
        beat(Duration::from_millis(20));
    }
    let speed = f64::from(files - before) / began.elapsed().as_secs_f64();
    let syncs = disk.shared.syncs.load(Ordering::Relaxed) - syncs;
    disk.slow_syncs(Duration::ZERO);
    assert_eq!(scene.arrivals().len(), files as usize);
    assert_eq!(scene.posts(), u64::from(files));
    assert_eq!(scene.stop(), Some(0));
    (speed, syncs)
}

#[test]
fn what_need_not_outlive_a_power_cut_asks_for_hardly_any_fsync() {
    let (_, synced) = drain(300, Duration::ZERO, "");
    let (_, unsynced) = drain(300, Duration::ZERO, UNSYNCED);
    println!("{synced} fsyncs, or {unsynced}");
    // A block of ids, and perhaps the room that the WAL gives back in an idle moment.
    assert!(unsynced <= 12 && unsynced < synced / 2, "{unsynced} fsyncs instead of {synced}");
}

#[test]
fn with_5_ms_in_every_fsync_a_drain_keeps_at_least_half_of_its_speed() {
    let files = scale("PATCHDROP_CHAOS_DRAIN", u64::from(FILES)) as u32;
    let (mut quick, mut slow) = (0_f64, 0_f64);
    for _ in 0..PAIRS {
        let (speed, syncs) = drain(files, Duration::ZERO, "");
        quick = quick.max(speed);
        println!("as it is: {speed:.0} files/s, {syncs} fsyncs");
        let (speed, syncs) = drain(files, SLOW_SYNC, "");
        slow = slow.max(speed);
        println!("with 5 ms in every fsync: {speed:.0} files/s, {syncs} fsyncs");
    }
    println!("{:.2} of the speed is left", slow / quick);
    assert!(slow >= quick / 2.0, "{slow:.0} of {quick:.0} files/s are less than half");
}
