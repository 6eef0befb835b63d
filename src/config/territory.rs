//! Whose folder is whose: no route in another's way, nothing of ours where files are dropped.

use std::path::{Path, PathBuf};

use super::folders::Shape;
use super::page::{At, Sink};

/// What a route or a discovery takes up on disk.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// `route orders`, `auto_routes`.
    pub(super) label: String,
    /// The drop folder; may hold `{vanity}`.
    pub(super) inbox: At<PathBuf>,
    /// `sent`, `failed`, `held`, absolute; may hold `{date}`.
    pub(super) targets: [At<PathBuf>; 3],
    /// Whether it may share its folder, because an `include` of its own tells files apart.
    pub(super) has_include: bool,
    /// Whether it is `auto_routes`, which gives way to everything.
    pub(super) is_auto: bool,
}

impl Claim {
    /// Every path that it names.
    pub(super) fn paths(&self) -> impl Iterator<Item = &At<PathBuf>> {
        std::iter::once(&self.inbox).chain(&self.targets)
    }
}

/// A folder that somebody takes up, as the disk sees it.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) label: String,
    pub(super) shape: Shape,
}

const TARGETS: [&str; 3] = ["sent", "failed", "held"];

struct Seen<'a> {
    claim: &'a Claim,
    inbox: Shape,
    sending: Shape,
    targets: [Shape; 3],
}

impl<'a> Seen<'a> {
    fn of(claim: &'a Claim) -> Self {
        let inbox = Shape::of(&claim.inbox.value);
        // Links below a drop folder are the doing of those who may write there, and are not
        // followed: the route stops when it finds one, and no other does.
        let target_of = |target: &At<PathBuf>| match target.value.strip_prefix(&claim.inbox.value) {
            Ok(rest) => inbox.below(rest),
            Err(_) => Shape::of(&target.value),
        };
        let targets = claim.targets.each_ref().map(target_of);
        Self { claim, sending: inbox.below(Path::new("sending")), targets, inbox }
    }
}

impl Seen<'_> {
    /// Whether a target of its own lies below each drop folder that it stands for. One fixed
    /// folder does not, even where a pattern would match it.
    fn keeps(&self, target: &Shape) -> bool {
        self.inbox.has_vanity() == target.has_vanity() && self.inbox.holds(target)
    }
}

/// Reports every pair that is in one another's way.
pub(super) fn check(sink: &Sink, claims: &[Claim]) {
    let seen: Vec<Seen<'_>> = claims.iter().map(Seen::of).collect();
    for (at, one) in seen.iter().enumerate() {
        check_own(sink, one);
        for (other_at, other) in seen.iter().enumerate() {
            if at != other_at {
                check_inboxes(sink, one, other, at > other_at);
                check_targets(sink, one, other);
            }
        }
    }
}

/// The folders of one route among themselves.
fn check_own(sink: &Sink, one: &Seen<'_>) {
    for (at, name) in TARGETS.iter().enumerate() {
        let (place, shape) = (&one.claim.targets[at], &one.targets[at]);
        let is_fixed = one.inbox.has_vanity() && !shape.has_vanity();
        if shape.holds(&if is_fixed { one.inbox.parent() } else { one.inbox.clone() }) {
            sink.fault(place.notice(
                format!("{name} is the drop folder itself, or holds it"),
                "choose another folder, or leave it out",
            ));
        } else if one.sending.holds(shape) {
            let text = format!("{name} lies inside sending/, which is for claimed files alone");
            sink.fault(place.notice(text, "choose another folder, or leave it out"));
        }
        for (other_at, other_name) in TARGETS.iter().enumerate().skip(at + 1) {
            if *shape == one.targets[other_at] {
                sink.fault(one.claim.targets[other_at].notice(
                    format!("{name} and {other_name} are the same folder"),
                    "choose different folders: where a file lies says what became of it",
                ));
            }
        }
    }
}

fn check_inboxes(sink: &Sink, one: &Seen<'_>, other: &Seen<'_>, is_later: bool) {
    // What auto_routes cannot have it leaves to others, folder by folder.
    if one.claim.is_auto && !other.inbox.holds(&one.inbox.parent()) {
        return;
    }
    let (label, place) = (&other.claim.label, &one.claim.inbox);
    let shown = place.value.display();
    if one.inbox.meets(&other.inbox) {
        let differ = one.inbox.has_vanity() != other.inbox.has_vanity();
        let share = one.claim.has_include && other.claim.has_include;
        if is_later && !differ && !share {
            sink.fault(place.notice(
                format!("the folder {shown} is also that of {label}"),
                "give both routes an include that tells their files apart, or a folder each",
            ));
        }
    } else if other.inbox.holds(&one.inbox) {
        // One folder of many that a pattern stands for: that one is left to the route.
        if !other.inbox.has_vanity() || one.inbox.has_vanity() && !other.claim.is_auto {
            sink.fault(place.notice(
                format!(
                    "the folder {shown} lies inside that of {label} ({})",
                    other.claim.inbox.value.display()
                ),
                if one.claim.is_auto {
                    "write auto_routes = false, or move that route's folder"
                } else {
                    "drop folders stand beside one another: move one of them"
                },
            ));
        }
    }
}

fn check_targets(sink: &Sink, one: &Seen<'_>, other: &Seen<'_>) {
    let label = &other.claim.label;
    let is_shared = one.inbox == other.inbox;
    for (at, name) in TARGETS.iter().enumerate() {
        let (place, shape) = (&one.claim.targets[at], &one.targets[at]);
        // Folders below one's own drop folder are judged by where that lies.
        if is_shared || one.keeps(shape) {
            continue;
        }
        // A folder that holds one of many is left out of auto_routes.
        if shape.holds(&other.inbox) && !other.claim.is_auto {
            sink.fault(place.notice(
                format!("{name} is the drop folder of {label}, or holds it"),
                "choose a folder that no route watches",
            ));
        } else if other.inbox.holds(shape) && !other.claim.is_auto {
            sink.fault(place.notice(
                format!("{name} lies inside the drop folder of {label}"),
                "choose a folder that no route watches",
            ));
        } else if shape.holds(&other.inbox.parent()) && other.claim.is_auto {
            sink.fault(place.notice(
                format!("{name} is the root, or holds it"),
                "choose a folder that no route watches",
            ));
        }
    }
}

/// A file or folder of ours that must not lie where files are dropped.
pub(super) struct Private {
    /// What it is, `state_dir`, `the log file`.
    pub(super) name: &'static str,
    pub(super) place: At<PathBuf>,
    /// Whether it must not be a watched folder itself, either.
    pub(super) is_folder: bool,
}

/// Reports what of ours lies where files are dropped.
pub(super) fn check_private(
    sink: &Sink,
    claims: &[Claim],
    root: Option<&Path>,
    privates: &[Private],
) {
    for private in privates {
        let shape = Shape::of(&private.place.value);
        if private.is_folder {
            check_not_inside(sink, claims, private.name, &shape);
        }
        let holder = claims.iter().find_map(|claim| {
            let inbox = Shape::of(&claim.inbox.value);
            let watched = if claim.is_auto { inbox.parent() } else { inbox };
            watched.holds(&shape).then_some(if claim.is_auto {
                "the root".to_owned()
            } else {
                format!("the drop folder of {}", claim.label)
            })
        });
        let is_root = private.is_folder && root.is_some_and(|root| Shape::of(root).meets(&shape));
        if let Some(holder) = holder.or_else(|| is_root.then(|| "the root".to_owned())) {
            sink.fault(private.place.notice(
                format!(
                    "{} ({}) lies inside {holder}, where files are dropped",
                    private.name,
                    private.place.value.display()
                ),
                "move it to a folder that only patchdrop uses",
            ));
        }
    }
}

/// Reports what would be moved in among files of ours.
fn check_not_inside(sink: &Sink, claims: &[Claim], ours: &str, shape: &Shape) {
    for claim in claims {
        let inbox = Shape::of(&claim.inbox.value);
        for (place, name) in claim.targets.iter().zip(TARGETS) {
            let target = Shape::of(&place.value);
            // Folders below one's own drop folder are judged by where that lies.
            if shape.holds(&target) && !inbox.holds(&target) {
                sink.fault(place.notice(
                    format!("{name} is {ours}, or lies inside it"),
                    "choose a folder that holds nothing else",
                ));
            }
        }
    }
}

/// All folders that are taken by others than `but`: none of them, nor what holds one, can be a
/// route of a discovery. Its own targets count where they stand apart from its drop folders.
pub(super) fn taken(claims: &[Claim], but: usize) -> Vec<Taken> {
    let mut taken = Vec::new();
    for (at, claim) in claims.iter().enumerate() {
        let seen = Seen::of(claim);
        let is_shared = claim.has_include
            && claims[but].has_include
            && seen.inbox == Shape::of(&claims[but].inbox.value);
        if is_shared {
            continue;
        }
        // auto_routes gives way to others, not they to it.
        if at != but && !claim.is_auto {
            taken.push(Taken { label: claim.label.clone(), shape: seen.inbox.clone() });
        }
        for target in &seen.targets {
            let is_fixed = !target.has_vanity();
            if (at != but || is_fixed) && !seen.keeps(target) {
                taken.push(Taken { label: claim.label.clone(), shape: target.clone() });
            }
        }
    }
    taken
}
