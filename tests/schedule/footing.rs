//! Folders that cannot be worked in, and volumes that are nearly full: who waits, who tries, and
//! that one file's own trouble is nobody else's.

use std::time::Duration;

use patchdrop::journey::detect::Reason;
use patchdrop::journey::schedule::{Change, Reach, Start};
use patchdrop::model::file::FileId;
use patchdrop::model::outcome::{Cause, Code, Outcome};
use patchdrop::model::time::Tick;

use crate::scene::{SECOND, Scene, WIDE, judged, name_of, route};

fn full() -> (Cause, Reach) {
    (Cause::new(Code::of("disk-full"), "no space left"), Reach::Volume)
}

fn denied() -> (Cause, Reach) {
    (Cause::new(Code::of("no-permission"), "no permission"), Reach::Perhaps)
}

fn refuse(scene: &mut Scene, id: FileId, fault: (Cause, Reach)) -> Option<Change> {
    let now = scene.now();
    scene.schedule.folder_refused(id, fault, now)
}

/// A file whose attempt was accepted and whose move into `sent/` does not work.
fn sent_and_stuck(
    scene: &mut Scene,
    name: &str,
    fault: (Cause, Reach),
) -> (FileId, Option<Change>) {
    let id = scene.claim("orders", name).expect("there is room");
    assert_eq!(scene.starts(), [Start::Attempt(id)]);
    let verdict = judged(Outcome::Delivered);
    let next = scene.next_of(id, &verdict);
    scene.schedule.answered(id, &verdict, &next, scene.now(), 0.0);
    (id, refuse(scene, id, fault))
}

#[test]
fn a_full_disk_pauses_the_route_at_once_and_one_file_tries_ever_more_seldom() {
    let mut scene = Scene::of_one(2);
    let (stuck, change) = sent_and_stuck(&mut scene, "a.json", full());
    assert_eq!(change, Some(Change::RoutePaused(name_of("orders"), full().0)));
    assert_eq!(scene.may_claim("orders", "b.json"), Err(Reason::Paused));
    let begin = scene.tick;
    let mut tries = Vec::new();
    while scene.tick < begin + 600_000 {
        for start in scene.starts() {
            assert_eq!(start, Start::Resume(stuck), "nothing is sent, one file tries");
            tries.push((scene.tick - begin) / 1_000);
            assert_eq!(refuse(&mut scene, stuck, full()), None, "one line in all");
        }
        scene.pass_to_wake();
    }
    assert_eq!(tries[..6], [1, 3, 7, 15, 31, 63]);
    assert!(tries.len() <= 16, "{tries:?}");
    assert_eq!(scene.schedule.waited_for(stuck), Duration::ZERO, "it does not count");
    let view = scene.schedule.view(&name_of("orders")).pause.expect("a person sees it");
    assert_eq!(view.cause, full().0);

    scene.pass(Duration::from_mins(1));
    assert_eq!(scene.starts(), [Start::Resume(stuck)]);
    let tick = Tick(scene.tick);
    let change = scene.schedule.folders_worked(stuck, true, tick);
    assert_eq!(change, Some(Change::RouteResumed(name_of("orders"))));
    scene.schedule.ended(stuck);
    assert_eq!(scene.may_claim("orders", "b.json"), Ok(()));
}

#[test]
fn files_that_stumbled_with_the_first_go_on_at_once_when_it_works_again() {
    let mut scene = Scene::of_one(3);
    let claimed = scene.claim_many(3);
    let changes: Vec<bool> =
        claimed.iter().map(|id| refuse(&mut scene, *id, full()).is_some()).collect();
    assert_eq!(changes, [true, false, false], "one line for all of them");
    scene.pass(SECOND);
    let [Start::Resume(trying)] = scene.starts()[..] else { panic!("one tries") };
    assert_eq!(scene.starts(), [], "one at a time");
    let tick = Tick(scene.tick);
    assert!(scene.schedule.folders_worked(trying, false, tick).is_some());
    scene.schedule.resumed(trying);
    assert_eq!(scene.starts().len(), 3, "it is sent, and the others are taken up");
}

#[test]
fn another_route_goes_on() {
    let routes = [route("orders", "server.example", 1), route("stock", "server.example", 1)];
    let mut scene = Scene::new(WIDE, &routes);
    let id = scene.claim("orders", "a.json").unwrap();
    refuse(&mut scene, id, full());
    assert_eq!(scene.may_claim("orders", "b.json"), Err(Reason::Paused));
    assert_eq!(scene.may_claim("stock", "b.json"), Ok(()));
}

#[test]
fn one_file_without_rights_is_its_own_trouble_and_several_in_a_row_are_the_folders() {
    let mut scene = Scene::of_one(4);
    let claimed = scene.claim_many(4);
    assert_eq!(refuse(&mut scene, claimed[0], denied()), None);
    assert_eq!(refuse(&mut scene, claimed[1], denied()), None);
    // One that works between them speaks for the folder.
    let tick = Tick(scene.tick);
    assert_eq!(scene.schedule.folders_worked(claimed[2], true, tick), None);
    scene.schedule.ended(claimed[2]);
    assert_eq!(refuse(&mut scene, claimed[3], denied()), None);
    for _ in 0..3 {
        scene.pass(Duration::from_mins(1));
        let Some(Start::Resume(id)) = scene.starts().first().copied() else { panic!("a retry") };
        assert_eq!(refuse(&mut scene, id, denied()), None, "the same ones again prove nothing");
    }
    let more = scene.claim_many(2);
    assert_eq!(refuse(&mut scene, more[0], denied()), None);
    assert!(refuse(&mut scene, more[1], denied()).is_some());
}

#[test]
fn files_nobody_can_move_never_keep_a_good_one_back_for_long() {
    let mut scene = Scene::of_one(1);
    for id in scene.claim_many(3) {
        refuse(&mut scene, id, denied());
    }
    assert!(scene.is_paused("orders"));
    let begin = scene.tick;
    let good = loop {
        assert!(scene.tick < begin + 120_000, "the good one is kept back");
        for start in scene.starts() {
            let Start::Resume(id) = start else { panic!("only stuck ones are there") };
            assert_eq!(refuse(&mut scene, id, denied()), None);
        }
        if let Ok(id) = scene.claim("orders", "good.json") {
            break id;
        }
        scene.pass_to_wake();
    };
    assert!(scene.claim("orders", "better.json").is_err(), "one at a time");
    assert_eq!(scene.starts(), [Start::Attempt(good)]);
    let tick = Tick(scene.tick);
    let change = scene.schedule.folders_worked(good, true, tick);
    assert_eq!(change, Some(Change::RouteResumed(name_of("orders"))));
}

#[test]
fn a_volume_that_is_nearly_full_begins_nothing_and_lets_go_by_itself() {
    let mut scene = Scene::of_one(2);
    let claimed = scene.claim("orders", "a.json").unwrap();
    let (now, name) = (scene.now(), name_of("orders"));
    let cause = Cause::new(Code::of("disk-nearly-full"), "little room");
    let change = scene.schedule.set_short(&name, Some(cause.clone()), now);
    assert_eq!(change, Some(Change::RoutePaused(name.clone(), cause.clone())));
    assert_eq!(scene.schedule.set_short(&name, Some(cause.clone()), now), None);
    assert_eq!(scene.starts(), [Start::Shelve(claimed)]);
    assert_eq!(scene.may_claim("orders", "b.json"), Err(Reason::Paused));
    let change = scene.schedule.set_short(&name, None, now);
    assert_eq!(change, Some(Change::RouteResumed(name)));
    assert!(scene.schedule.set_all_short(Some(cause), now));
    assert_eq!(scene.may_claim("orders", "b.json"), Err(Reason::Paused));
    assert!(scene.schedule.set_all_short(None, now));
    assert_eq!(scene.may_claim("orders", "b.json"), Ok(()));
}
