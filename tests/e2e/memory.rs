//! Memory does not grow with the size of a file or with how many wait (promise P10).

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use patchdrop::simulator::{Act, Rule, SimulatorOptions};

use super::scene::{Plan, Scene, names, scale};

const PEAK_MAX_BYTES: u64 = 64_000_000;

/// Most memory that a process has ever had resident, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1024
}

fn check_peak(scene: &Scene, pid: u32, what: &str) {
    let peak = peak(pid);
    eprintln!("{what}: peak of {} kB", peak / 1_000);
    assert!(peak < PEAK_MAX_BYTES, "{what}: {peak} bytes\n{}", scene.story());
}

/// A JSON document of one string, so that nothing can be dropped on the way.
fn write_document(path: &Path, bytes: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(b"\"").unwrap();
    let block = vec![b'a'; 65_536];
    let mut left = bytes - 2;
    while left > 0 {
        let part = usize::try_from(left.min(block.len() as u64)).unwrap();
        file.write_all(&block[..part]).unwrap();
        left -= part as u64;
    }
    file.write_all(b"\"").unwrap();
    file.into_inner().unwrap();
}

#[test]
fn a_huge_file_is_streamed() {
    let megabytes = scale("PATCHDROP_E2E_HUGE_MB", 96);
    let mut scene = Scene::of(Plan {
        tables: "[route.orders]\ndeliver = 'http'\nurl = '{sim}/hook/huge'",
        simulator: SimulatorOptions::default(),
        ..Plan::default()
    });
    let pid = scene.start();
    let outside = scene.path("outside/huge.json");
    write_document(&outside, megabytes * 1_000_000);
    fs::rename(outside, scene.inbox().join("huge.json")).unwrap();
    scene.until_in("sent", &["huge.json"]);
    let seen = scene.sim.seen();
    assert_eq!((seen.accepted, seen.accepted_bytes), (1, megabytes * 1_000_000));
    check_peak(&scene, pid, &format!("one file of {megabytes} MB"));
    scene.verify();
}

#[test]
fn many_bodies_in_flight_share_one_budget() {
    let count = scale("PATCHDROP_E2E_IN_FLIGHT", 96);
    let stuck = Rule { act: Act::HangUnread, ..Rule::default() };
    let mut scene = Scene::of(Plan {
        defaults: "concurrency = 256\nin_doubt = 'resend'\n\
                   retry = { first = '100ms', max = '500ms' }",
        simulator: SimulatorOptions { rules: vec![stuck], ..SimulatorOptions::default() },
        ..Plan::default()
    });
    let pid = scene.start();
    let document = scene.path("document.json");
    write_document(&document, 1024 * 1024);
    for number in 0..count {
        let name = format!("{number}.json");
        fs::copy(&document, scene.path("outside").join(&name)).unwrap();
        fs::rename(scene.path("outside").join(&name), scene.inbox().join(name)).unwrap();
    }
    scene.until("all are in flight at once", |scene| scene.sim.counts().concurrency_peak >= count);
    check_peak(&scene, pid, &format!("{count} files of 1 MiB in flight"));
    // A server that reads them takes its place.
    scene.revive();
    scene.until("all are sent", |scene| names(&scene.inbox().join("sent")).len() as u64 == count);
    check_peak(&scene, pid, &format!("{count} files of 1 MiB sent again"));
    assert_eq!(scene.arrivals().len() as u64, count);
    scene.verify();
}

#[test]
fn files_that_wait_cost_nothing() {
    let count = scale("PATCHDROP_E2E_WAITING", 20_000);
    let mut scene = Scene::of(Plan::default());
    let pid = scene.start();
    assert_eq!(scene.ask(&["pause", "orders"]).code, Some(0));
    for number in 0..count {
        scene.drop_file(format!("{number}.json"), "{}");
    }
    scene.until("all are counted", |scene| scene.waiting("paused") == count);
    check_peak(&scene, pid, &format!("{count} files waiting"));
    assert_eq!(scene.posts(), 0);
}
