//! The judgement at the end: every file in exactly one right place, and as often at the server as
//! the route allows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::scene::{Scene, beat, files, names};

/// The files of a scene by their content, each with its name. No two have the same content.
pub(crate) type Dropped = BTreeMap<Vec<u8>, String>;

/// A text in the body of a file that the server does not want.
pub(crate) const UNWANTED: &str = "unwanted";

/// What became of the files.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) sent: usize,
    pub(crate) held: usize,
    pub(crate) failed: usize,
    /// Arrivals above one of a file.
    pub(crate) again: usize,
    /// Attempts of which the record says that they are, or were, in doubt.
    pub(crate) doubts: usize,
}

/// The places where files end; each holds files and what explains them.
const ENDS: [&str; 3] = ["sent", "held", "failed"];

/// Where a folder of `orders` is: below `elsewhere` in the scene's own folder, if it is there.
fn folder_of(scene: &Scene, folder: &str) -> PathBuf {
    let elsewhere = scene.path("elsewhere").join(folder);
    if !folder.is_empty() && elsewhere.exists() { elsewhere } else { scene.inbox().join(folder) }
}

/// The files in a folder of `orders`, without sidecars.
pub(crate) fn in_folder(scene: &Scene, folder: &str) -> Vec<String> {
    let mut names = files(&folder_of(scene, folder));
    names.retain(|name| !name.ends_with(".why.txt") && !name.ends_with(".receipt.json"));
    names
}

/// How many files of `orders` have not come to an end.
pub(crate) fn unfinished(scene: &Scene) -> usize {
    files(&scene.inbox()).len() + files(&scene.inbox().join("sending")).len()
}

/// Attempts in doubt on record, by the file's name.
pub(crate) fn doubts(scene: &Scene) -> BTreeMap<String, usize> {
    let path = scene.path("state/ledger/ledger.db");
    let ledger = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = ledger
        .prepare(
            "SELECT file.name, count(*) FROM attempt JOIN file ON file.id = attempt.file
             WHERE attempt.verdict = 'in-doubt' GROUP BY file.name",
        )
        .unwrap();
    let rows =
        query.query_map([], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Waits until nothing is under way.
pub(crate) fn rest(scene: &Scene, dropped: &Dropped) {
    scene.until("all have come to an end", |scene| {
        let is_at_rest = is_at_rest(scene, dropped);
        if !is_at_rest {
            // Listing thousands of files must not be what the machine is busy with.
            beat(Duration::from_millis(40));
        }
        is_at_rest
    });
}

fn is_at_rest(scene: &Scene, dropped: &Dropped) -> bool {
    unfinished(scene) == 0
        && ENDS.iter().map(|end| in_folder(scene, end).len()).sum::<usize>() >= dropped.len()
}

/// How a panic begins that tells of a route which has stopped.
pub(crate) const STOPPED: &str = "the route has stopped: ";

/// How often a route is seen to be stopped, with nothing else happening, until that is believed.
const STOPPED_LOOKS: u32 = 20;

/// The same, for a disk after which a route may rightly stop until a person has looked at it.
///
/// # Panics
/// With [`STOPPED`] and why, if it has.
pub(crate) fn rest_or_stop(scene: &Scene, dropped: &Dropped) {
    let mut looks = 0;
    scene.until("all have come to an end, or the route has stopped", |scene| {
        let alerts = scene.status().map(|status| status.alerts).unwrap_or_default();
        let stop = alerts.into_iter().find(|alert| alert.starts_with("route orders is stopped"));
        looks = if stop.is_some() { looks + 1 } else { 0 };
        if let Some(stop) = stop.filter(|_| looks >= STOPPED_LOOKS) {
            panic!("{STOPPED}{stop}");
        }
        beat(Duration::from_millis(40));
        is_at_rest(scene, dropped)
    });
}

/// Judges a stopped service's folders, ledger and server. `may_resend` is what the route says about
/// attempts in doubt.
pub(crate) fn judge(scene: &Scene, dropped: &Dropped, may_resend: bool) -> Judgement {
    let arrived: Vec<(String, Vec<u8>)> =
        scene.arrived().into_iter().map(|(_, name, body)| (name, body)).collect();
    judge_all(scene, dropped, may_resend, &arrived, &doubts(scene))
}

/// The same with what arrived told by another server: names and bodies.
pub(crate) fn judge_all(
    scene: &Scene,
    dropped: &Dropped,
    may_resend: bool,
    arrived: &[(String, Vec<u8>)],
    doubts: &BTreeMap<String, usize>,
) -> Judgement {
    let mut judgement = Judgement { doubts: doubts.values().sum(), ..Judgement::default() };
    let places = places(scene, dropped);
    for (_, body) in arrived {
        assert!(dropped.contains_key(body), "P8 bit-exact: nobody dropped what arrived");
    }
    for (body, name) in dropped {
        let [(folder, lies_as)] = places.get(body).map(Vec::as_slice).unwrap_or_default() else {
            panic!("P1 one place: {name} is in {:?}\n{}", places.get(body), scene.story());
        };
        let times = arrived.iter().filter(|(_, arrived)| arrived == body).count();
        let doubts = doubts.get(name).copied().unwrap_or(0);
        let most = if may_resend { 1 + doubts } else { 1 };
        let told = format!("{name} is in {folder}/, arrived {times} times, {doubts} doubts");
        assert!(times <= most, "P3 no second send: {told}\n{}", scene.story());
        judgement.again += times.saturating_sub(1);
        let is_unwanted = String::from_utf8_lossy(body).contains(UNWANTED);
        if *folder != "sent" {
            let sidecar = scene.inbox().join(folder).join(format!("{lies_as}.why.txt"));
            let told = || format!("no sidecar: {told}\n{}", scene.story());
            assert!(sidecar.exists(), "P5 failed means explained: {}", told());
        }
        match *folder {
            "sent" => {
                assert!(times > 0, "P4 sent means accepted: {told}");
                judgement.sent += 1;
            }
            "failed" => {
                let is_explained = is_unwanted && (times == 0 || doubts > 0);
                assert!(is_explained, "P5 failed means explained: {told}");
                assert_eq!(scene.code_of("failed", lies_as), "http-422", "P5: {told}");
                judgement.failed += 1;
            }
            "held" => {
                let code = scene.code_of("held", lies_as);
                assert!(doubts > 0, "P5 failed means explained: {told}: {code}");
                judgement.held += 1;
            }
            _ => panic!("P12 nothing is forgotten: {told}"),
        }
    }
    let left = names(&scene.inbox().join("sending"));
    assert!(left.is_empty(), "P1 one place: {left:?} is left in sending/");
    scene.verify();
    judgement
}

/// Where each body lies: folder and name.
fn places<'a>(
    scene: &Scene,
    dropped: &'a Dropped,
) -> BTreeMap<&'a Vec<u8>, Vec<(&'static str, String)>> {
    let mut places = BTreeMap::<&Vec<u8>, Vec<_>>::new();
    for folder in ["", "sending", "sent", "held", "failed"] {
        for name in in_folder(scene, folder) {
            let body = std::fs::read(folder_of(scene, folder).join(&name)).unwrap();
            let Some((body, _)) = dropped.get_key_value(&body) else {
                panic!("P1 one place: nobody dropped {folder}/{name}\n{}", scene.story());
            };
            places.entry(body).or_default().push((folder, name));
        }
    }
    places
}
