//! The promises, checked at rest and after every cut.

use patchdrop::model::step::{Entry, State as FileState, UNCLEAN_BOOT, Verdict};

use crate::stories::{Home, ROOT, Story, places_of};
use crate::world::State;

/// After a cut, before anything runs again: no file of the story is lost or doubled (P1).
pub fn check_one_place(state: &mut State, story: &Story, present: &[&'static str]) {
    for (content, home) in &story.homes {
        let places = places_of(state, content);
        let may_be_gone =
            matches!(home, Home::Nowhere | Home::SentIfThere | Home::SentOrHeldIfThere)
                || !present.contains(content);
        // A move to another volume may show two for a moment, never none.
        let most = if story.elsewhere.is_empty() { 1 } else { 2 };
        if places.len() > most || places.is_empty() && !may_be_gone {
            state.violates("P1", &format!("{content} is in {} places: {places:?}", places.len()));
        }
    }
}

/// After a kill of the process alone: whatever is in `failed/` or `held/` has its why (P5).
pub fn check_explained(state: &mut State) {
    for folder in ["failed", "held"] {
        let Some(names) = state.disk.folders.get(std::path::Path::new(&format!("{ROOT}/{folder}")))
        else {
            continue;
        };
        let alone: Vec<String> = names
            .keys()
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| !name.ends_with(".why.txt"))
            .filter(|name| {
                let why = format!("{name}.why.txt");
                !names.keys().any(|other| *other == *why)
            })
            .collect();
        for name in alone {
            state.violates("P5", &format!("{folder}/{name} has no why"));
        }
    }
}

/// At rest.
pub fn check_rest(state: &mut State, story: &Story) {
    check_homes(state, story);
    check_explained(state);
    check_sent(state);
    check_doubts(state);
    check_server(state, story);
    check_order(state, story);
    check_strangers(state, story);
    let open: Vec<String> = state
        .record
        .entries
        .values()
        .filter(|entry| !entry.settled)
        .map(|entry| format!("{} {:?}", entry.id, entry.state))
        .collect();
    if !open.is_empty() {
        state.violates("P12", &format!("still open at rest: {open:?}"));
    }
    let sending = state.disk.folders[std::path::Path::new(&format!("{ROOT}/sending"))].len();
    if sending > 0 {
        state.violates("P12", &format!("{sending} files left in sending/"));
    }
}

/// At rest after a power cut under a record that was not synced: whatever the record has lost,
/// nothing was sent again, every file is somewhere, and the route waits for a person.
pub fn check_unsure_rest(state: &mut State, story: &Story) {
    for (content, _, most) in &story.stored {
        check_times(state, content, *most);
    }
    for route in state.record.routes.values().cloned().collect::<Vec<_>>() {
        if route.pause_code.as_ref().is_none_or(|code| code.0 != UNCLEAN_BOOT) {
            state.violates("P3", "the route goes on although its record may be too old");
        }
    }
    check_not_lost(state, story);
    // Only what a person has let go, or the route's own rule, waits for the route.
    let below = state.record.unsure_below;
    let is_under_way =
        |entry: &&Entry| entry.id.0 < below && !entry.settled && entry.state == FileState::Sending;
    let under_way = state.record.entries.values().filter(is_under_way).count();
    if under_way > 0 && !story.resends_in_doubt {
        state.violates("P6", &format!("{under_way} files in doubt are not held"));
    }
}

/// What lies in the drop folder, was stored, and has no record: only a person can know.
pub fn take_away_what_nobody_recorded(state: &mut State) {
    let inbox = std::sync::Arc::<std::path::Path>::from(std::path::Path::new(ROOT));
    let names: Vec<_> = state.disk.folders[&*inbox].keys().cloned().collect();
    for name in names {
        let place = patchdrop::model::file::Place::new(&inbox, name);
        let Some(content) = state.disk.content(&place) else { continue };
        let digest = crate::state::digest(content);
        let is_stored = state.server.stored.iter().any(|stored| stored.digest == digest);
        let is_on_record = state.record.entries.values().any(|it| it.digest == Some(digest));
        if is_stored && !is_on_record {
            state.disk.person_removes(&place);
        }
    }
}

/// At rest after that.
pub fn check_resumed(state: &mut State, story: &Story) {
    for (content, _, most) in &story.stored {
        check_times(state, content, *most);
    }
    check_not_lost(state, story);
    let open = state.record.entries.values().filter(|entry| !entry.settled);
    let open: Vec<String> = open.map(|entry| format!("{} {:?}", entry.id, entry.state)).collect();
    if !open.is_empty() {
        state.violates("P12", &format!("still open at rest: {open:?}"));
    }
    let inbox = std::path::PathBuf::from(ROOT);
    for (content, _) in &story.homes {
        if places_of(state, content).iter().any(|place| *place.folder == *inbox) {
            state.violates("P12", &format!("{content} was left in the drop folder"));
        }
    }
}

fn check_times(state: &mut State, content: &str, most: usize) {
    let digest = crate::state::digest(content.as_bytes());
    let times = state.server.stored.iter().filter(|stored| stored.digest == digest).count();
    if times > most {
        state.violates("P3", &format!("{content} was stored {times} times, more than {most}"));
    }
}

/// Each file is in one place; only what the server has may have been taken away by the person.
fn check_not_lost(state: &mut State, story: &Story) {
    for (content, _) in &story.homes {
        let places = places_of(state, content);
        let digest = crate::state::digest(content.as_bytes());
        let is_stored = state.server.stored.iter().any(|stored| stored.digest == digest);
        // Of a copy whose record is lost the original may be back in `sending/`, and is held.
        let most = if story.elsewhere.is_empty() { 1 } else { 2 };
        if places.len() > most || places.is_empty() && !is_stored {
            state.violates("P1", &format!("{content} is in {} places: {places:?}", places.len()));
        }
    }
}

fn check_homes(state: &mut State, story: &Story) {
    for (content, home) in &story.homes {
        let places = places_of(state, content);
        let folder = |name: &str| format!("{ROOT}/{name}");
        let allowed: Vec<String> = match home {
            Home::Inbox => vec![ROOT.to_owned()],
            Home::SentIfThere | Home::SentOrHeldIfThere if places.is_empty() => Vec::new(),
            Home::Sent | Home::SentIfThere => vec![folder("sent")],
            Home::Failed => vec![folder("failed")],
            Home::Held => vec![folder("held")],
            Home::SentOrHeld | Home::SentOrHeldIfThere => vec![folder("sent"), folder("held")],
            Home::FailedOrHeld => vec![folder("failed"), folder("held")],
            Home::Settled => vec![folder("sent"), folder("failed"), folder("held")],
            Home::Nowhere => Vec::new(),
        };
        let fits = match places.as_slice() {
            [] => allowed.is_empty(),
            [place] => allowed.iter().any(|folder| *place.folder == *std::path::Path::new(folder)),
            _ => false,
        };
        if !fits {
            let promise = if places.len() > 1 { "P1" } else { "P12" };
            state.violates(promise, &format!("{content} should be {home:?}, is in {places:?}"));
        }
    }
}

/// P4: nothing in `sent/` without an acceptance on record.
fn check_sent(state: &mut State) {
    let names = state.disk.folders[std::path::Path::new(&format!("{ROOT}/sent"))].clone();
    for (name, node) in names {
        let content = state.disk.nodes[&node].content.clone();
        let digest = crate::state::digest(&content);
        let shown = name.to_string_lossy().into_owned();
        if shown.ends_with(".receipt.json") || content.starts_with(b"a") {
            continue;
        }
        let accepted = state.record.entries.values().any(|entry| {
            entry.digest == Some(digest)
                && entry.state == FileState::Sent
                && (state.record.has_delivered(entry.id)
                    || entry.confirming_since.is_some()
                    || entry.cause.as_ref().is_some_and(|cause| {
                        matches!(&*cause.code.0, "marked-sent" | "duplicate-of")
                    }))
        });
        if !accepted {
            state.violates("P4", &format!("{shown} is in sent/ without an acceptance on record"));
        }
        let by_a_person = state.record.entries.values().any(|entry| {
            let marked = entry.cause.as_ref().is_some_and(|cause| cause.code.0 == "marked-sent");
            entry.digest == Some(digest) && marked
        });
        let bare = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&content);
        let body = crate::state::digest(bare);
        let has_it = state.server.stored.iter().any(|stored| stored.digest == body);
        if !has_it && !by_a_person {
            state.violates("P4", &format!("{shown} is in sent/, and the server never stored it"));
        }
    }
}

/// P6: what the server stored and no answer confirmed is visible as a doubt.
fn check_doubts(state: &mut State) {
    let mut doubts = Vec::new();
    for stored in &state.server.stored {
        let Some(entry) = state.record.entries.get(&stored.id) else { continue };
        let attempts = state.record.attempts.get(&stored.id).cloned().unwrap_or_default();
        let visible = attempts.iter().any(|attempt| match &attempt.end {
            Some(end) => matches!(end.verdict, Verdict::Delivered | Verdict::InDoubt),
            None => entry.state == FileState::Missing,
        });
        if !visible {
            doubts.push(format!("{} was stored; the record says {attempts:?}", stored.id));
        }
    }
    for text in doubts {
        state.violates("P6", &text);
    }
}

fn check_server(state: &mut State, story: &Story) {
    for (content, least, most) in &story.stored {
        let digest = crate::state::digest(content.as_bytes());
        let times = state.server.stored.iter().filter(|stored| stored.digest == digest).count();
        if times < *least {
            state.violates("P12", &format!("{content} was stored {times} times, not {least}"));
        }
        if times > *most {
            state.violates("P3", &format!("{content} was stored {times} times, more than {most}"));
        }
        // A key changes only after a recorded rejection.
        let rejected = state.record.attempts.values().flatten().any(|attempt| {
            attempt
                .end
                .as_ref()
                .is_some_and(|end| matches!(end.verdict, Verdict::Rejected | Verdict::RouteFault))
        });
        let keys =
            state.server.keys.get(content.as_bytes()).map_or(0, std::collections::BTreeSet::len);
        if keys > 1 && !rejected {
            state.violates("P6", &format!("{content} went out under {keys} keys"));
        }
    }
}

/// P13, and the route's order: the server stored files in the order in which the story tells them.
fn check_order(state: &mut State, story: &Story) {
    if story.order.is_none() {
        return;
    }
    let of = |digest| {
        story
            .homes
            .iter()
            .position(|(content, _)| crate::state::digest(content.as_bytes()) == digest)
    };
    let order: Vec<_> = state.server.stored.iter().map(|stored| of(stored.digest)).collect();
    if !order.is_sorted() {
        state.violates("P13", &format!("the server stored files in the order {order:?}"));
    }
}

/// What must come about where nothing is cut: a known answer never becomes a doubt, and nothing is
/// sent a second time.
pub fn check_whole(state: &mut State, story: &Story) {
    for content in &story.gone_if_whole {
        let places = places_of(state, content);
        if !places.is_empty() {
            state.violates("P5", &format!("{content} was taken half-written: {places:?}"));
        }
    }
    for content in &story.sent_if_whole {
        let sent = std::path::PathBuf::from(format!("{ROOT}/sent"));
        let places = places_of(state, content);
        if !matches!(places.as_slice(), [place] if *place.folder == *sent) {
            state.violates("P6", &format!("{content} was answered, and is in {places:?}"));
        }
        let digest = crate::state::digest(content.as_bytes());
        let times = state.server.stored.iter().filter(|stored| stored.digest == digest).count();
        if times != 1 {
            state.violates("P3", &format!("{content} was stored {times} times, uncut"));
        }
    }
}

/// P7: files that a person put into our folders are still there, unchanged.
fn check_strangers(state: &mut State, story: &Story) {
    for (_, act) in &story.script {
        if let crate::stories::Act::Put(path, content) = act
            && path.contains('/')
            && state.disk.content(&crate::stories::place(path)) != Some(content.as_bytes())
        {
            state.violates("P7", &format!("{path} was replaced or removed"));
        }
    }
}
