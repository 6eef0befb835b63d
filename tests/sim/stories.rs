//! Stories: what people and the server do, and where every file must be in the end.

use std::path::Path;
use std::sync::Arc;

use patchdrop::model::command::Command;
use patchdrop::model::file::Place;
use patchdrop::model::route::{OnFailed, OrderBy, Ordered};
use patchdrop::model::step::{State as FileState, Step};

use crate::state::{Asked, Behaviour, Rule};
use crate::world::State;

/// What a person does; each is done once, whatever is cut.
#[derive(Clone)]
pub enum Act {
    /// Drops a file, complete, by a rename.
    Drop(&'static str, &'static str),
    /// Puts a file anywhere below the route's folder.
    Put(&'static str, &'static str),
    /// The same, if nothing has that name.
    PutIfFree(&'static str, &'static str),
    /// Writes other content of the same length into a file in place and sets its mtime back.
    Rewrite(&'static str, &'static str),
    /// Writes this content in place into the file with that content in `sending/`.
    ChangeClaimed(&'static str, &'static str),
    /// Moves the (only) file with this content back into the drop folder under its name there.
    MoveBack { content: &'static str, name: &'static str },
    /// Takes the file with this content away, wherever it is.
    TakeAway(&'static str),
    /// Gives a command about the file with this content.
    Tell(&'static str, fn(String) -> Command),
    /// Waits until no file with this content is in the drop folder.
    AwaitClaimed(&'static str),
    /// Waits until the entry with this content is settled in this state.
    Await(&'static str, FileState),
}

impl Act {
    /// Whether it is done to the disk alone, so that it can be done while patchdrop is down.
    pub fn needs_nobody(&self) -> bool {
        matches!(self, Self::Drop(..) | Self::Put(..) | Self::PutIfFree(..) | Self::Rewrite(..))
    }
}

/// Where a file must be at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    Inbox,
    Sent,
    Failed,
    Held,
    /// Sent, or held because a cut left it in doubt.
    SentOrHeld,
    /// Failed, or held because a cut left it in doubt.
    FailedOrHeld,
    /// Any of the three.
    Settled,
    /// Sent, if it is there at all: a person may have replaced it, or never put it there.
    SentIfThere,
    /// Sent or held, if it is there at all.
    SentOrHeldIfThere,
    /// Taken away by a person.
    Nowhere,
}

/// A story's route starts a flow.
#[derive(Clone, Copy)]
pub struct StoryFlow {
    /// Files are sent when their runs have succeeded.
    pub confirms: bool,
    /// Whether an accepting answer names the run.
    pub names_runs: bool,
    /// How the run of a content ends: the Core API's status; none: never.
    pub run_ends: fn(&str) -> Option<u8>,
    /// Whether the Core API answers, by the number of questions before.
    pub core_is_up: fn(usize) -> bool,
}

impl Default for StoryFlow {
    fn default() -> Self {
        Self {
            confirms: true,
            names_runs: true,
            run_ends: |content| Some(if content.contains("bad") { 3 } else { 2 }),
            core_is_up: |_| true,
        }
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a trait of a story, told by name")]
pub struct Story {
    pub name: &'static str,
    /// Seconds after the begin, and what is done.
    pub script: Vec<(u64, Act)>,
    pub rule: Rule,
    /// Content and home of every file.
    pub homes: Vec<(&'static str, Home)>,
    /// Content and how often the server may have stored it: at least, at most.
    pub stored: Vec<(&'static str, usize, usize)>,
    /// Seconds that the run goes on after the last act.
    pub rest: u64,
    pub resends_in_doubt: bool,
    pub syncs_folders: bool,
    /// Neither folders nor ledger are synced (`durability = "process-crash"`).
    pub is_unsynced: bool,
    /// Those of the route's folders that are on another volume.
    pub elsewhere: &'static [&'static str],
    pub receipts: bool,
    pub skips_duplicates: bool,
    /// Its files leave in this order.
    pub order: Option<Ordered>,
    pub has_credential: bool,
    /// Doubts are looked up among its runs.
    pub flow: Option<StoryFlow>,
    /// Steps that the ledger refuses, by the seconds since the story's begin.
    pub ledger_refuses: fn(&Step, u64) -> bool,
    /// How far the wall clock is off, ms, by the seconds since the story's begin.
    pub clock: fn(u64) -> i64,
    /// Contents that, if nothing is cut, are nowhere in the end.
    pub gone_if_whole: Vec<&'static str>,
    /// Contents that, if nothing is cut, are stored exactly once and end in `sent/`.
    pub sent_if_whole: Vec<&'static str>,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            name: "",
            script: Vec::new(),
            rule: |_| Behaviour::Accept,
            homes: Vec::new(),
            stored: Vec::new(),
            rest: 900,
            resends_in_doubt: false,
            syncs_folders: true,
            is_unsynced: false,
            elsewhere: &[],
            receipts: false,
            skips_duplicates: false,
            order: None,
            has_credential: false,
            flow: None,
            ledger_refuses: |_, _| false,
            clock: |_| 0,
            gone_if_whole: Vec::new(),
            sent_if_whole: Vec::new(),
        }
    }
}

/// A path that begins with a slash is not absolute on Windows.
pub const ROOT: &str = if cfg!(windows) { "C:/r/orders" } else { "/r/orders" };

pub fn place(path: &str) -> Place {
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
    let folder = if folder.is_empty() { ROOT.to_owned() } else { format!("{ROOT}/{folder}") };
    Place::new(&Arc::from(Path::new(&folder)), name)
}

fn release(id: String) -> Command {
    Command::Release { ids: vec![id] }
}

fn resend(id: String) -> Command {
    Command::Resend { ids: vec![id] }
}

fn mark_sent(id: String) -> Command {
    Command::Mark { id, sent: true, note: "looked at the receiver".into() }
}

fn mark_failed(id: String) -> Command {
    Command::Mark { id, sent: false, note: "not wanted".into() }
}

const A: &str = r#"{"order":"A"}"#;
/// The same order, from a program that writes a byte order mark: another file, the same body.
const A_WITH_BOM: &str = "\u{feff}{\"order\":\"A\"}";
const B: &str = r#"{"order":"B"}"#;
const C: &str = r#"{"order":"C"}"#;
const D: &str = r#"{"order":"D"}"#;
const BAD: &str = r#"{"order":]"#;

/// A route that goes by name.
fn by_name(on_failed: OnFailed) -> Ordered {
    Ordered { by: OrderBy::Name, on_failed }
}

fn once_then_accept(asked: &Asked, first: Behaviour) -> Behaviour {
    if asked.before == 0 { first } else { Behaviour::Accept }
}

/// With `hold` a cut during an attempt may leave a file in doubt, and so in `held/`.
#[expect(clippy::too_many_lines, reason = "a table of stories")]
pub fn all() -> Vec<Story> {
    use Act::{
        Await, AwaitClaimed, ChangeClaimed, Drop, MoveBack, Put, PutIfFree, Rewrite, TakeAway, Tell,
    };
    use Behaviour::{Accept, AcceptAndHide, AcceptAndLose, Away, Status};
    use Home::{
        Failed, FailedOrHeld, Held, Inbox, Nowhere, Sent, SentIfThere, SentOrHeld,
        SentOrHeldIfThere, Settled,
    };
    vec![
        Story {
            name: "a good file",
            script: vec![(0, Drop("a.json", A))],
            homes: vec![(A, SentOrHeld)],
            stored: vec![(A, 0, 1)],
            receipts: true,
            ..Story::default()
        },
        Story {
            name: "sent and failed on another volume",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Drop("bad.json", BAD)),
                (0, Drop("c.json", C)),
            ],
            homes: vec![(A, SentOrHeld), (BAD, Failed), (C, SentOrHeld)],
            stored: vec![(A, 0, 1), (C, 0, 1)],
            elsewhere: &["/sent", "/failed"],
            ..Story::default()
        },
        Story {
            name: "a taken name in sent on another volume",
            script: vec![(0, Put("sent/a.json", "an older file")), (0, Drop("a.json", A))],
            homes: vec![(A, SentOrHeld)],
            stored: vec![(A, 0, 1)],
            elsewhere: &["/sent"],
            ..Story::default()
        },
        Story {
            name: "held on another volume, released and sent",
            script: vec![
                (0, Drop("a.json", A)),
                (1, Await(A, FileState::Held)),
                (1, Tell(A, release)),
                (5, Drop("b.json", B)),
            ],
            rule: |asked| {
                if asked.content.contains('A') {
                    once_then_accept(asked, AcceptAndLose)
                } else {
                    Accept
                }
            },
            homes: vec![(A, SentOrHeld), (B, SentOrHeld)],
            stored: vec![(A, 0, 2), (B, 0, 1)],
            elsewhere: &["/held"],
            ..Story::default()
        },
        Story {
            name: "failed on another volume, sent again",
            script: vec![
                (0, Drop("a.json", A)),
                (1, Await(A, FileState::Failed)),
                (1, Tell(A, resend)),
            ],
            rule: |asked| once_then_accept(asked, Status(400)),
            homes: vec![(A, Settled)],
            stored: vec![(A, 0, 1)],
            elsewhere: &["/failed"],
            ..Story::default()
        },
        Story {
            name: "a good file where folders cannot be synced",
            script: vec![(0, Drop("a.json", A)), (1, Drop("b.json", B))],
            homes: vec![(A, SentOrHeld), (B, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            syncs_folders: false,
            ..Story::default()
        },
        Story {
            name: "a bad file among good ones",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Drop("bad.json", BAD)),
                (0, Drop("c.json", C)),
            ],
            homes: vec![(A, SentOrHeld), (BAD, Failed), (C, SentOrHeld)],
            stored: vec![(A, 0, 1), (BAD, 0, 0), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "the token ends midway",
            script: vec![(0, Drop("a.json", A)), (5, Drop("b.json", B))],
            rule: |asked| if asked.stored >= 1 && asked.token < 2 { Status(401) } else { Accept },
            homes: vec![(A, SentOrHeld), (B, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            has_credential: true,
            ..Story::default()
        },
        Story {
            name: "deferred and then sent",
            script: vec![(0, Drop("a.json", A))],
            rule: |asked| if asked.before < 3 { Status(503) } else { Accept },
            homes: vec![(A, SentOrHeld)],
            stored: vec![(A, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "the server is away for an hour",
            script: vec![(0, Drop("a.json", A)), (3, Drop("b.json", B))],
            rest: 2 * 3_600,
            rule: |asked| if asked.at < 3_600 { Away } else { Accept },
            homes: vec![(A, SentOrHeld), (B, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "the answer is lost, hold",
            script: vec![(0, Drop("a.json", A)), (0, Drop("b.json", B))],
            rule: |asked| if asked.content.contains('A') { AcceptAndLose } else { Accept },
            homes: vec![(A, Held), (B, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "the answer is lost, resend",
            script: vec![(0, Drop("a.json", A))],
            rule: |asked| once_then_accept(asked, AcceptAndHide),
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 9)],
            resends_in_doubt: true,
            ..Story::default()
        },
        Story {
            name: "the same order twice, duplicates skipped",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Drop("a again.json", A_WITH_BOM)),
                (9, Drop("b.json", B)),
            ],
            homes: vec![(A, Sent), (A_WITH_BOM, Sent), (B, Sent)],
            stored: vec![(A, 1, 9), (B, 1, 9)],
            resends_in_doubt: true,
            skips_duplicates: true,
            ..Story::default()
        },
        Story {
            name: "the same order twice, the first answer lost",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Drop("a again.json", A_WITH_BOM)),
                (9, Drop("b.json", B)),
            ],
            rule: |asked| once_then_accept(asked, AcceptAndHide),
            homes: vec![(A, Sent), (A_WITH_BOM, Sent), (B, Sent)],
            stored: vec![(A, 1, 9), (B, 1, 9)],
            resends_in_doubt: true,
            skips_duplicates: true,
            ..Story::default()
        },
        Story {
            name: "held, released and sent",
            script: vec![
                (0, Drop("a.json", A)),
                (1, Await(A, FileState::Held)),
                (1, Tell(A, release)),
                (5, Drop("b.json", B)),
            ],
            rule: |asked| {
                if asked.content.contains('A') {
                    once_then_accept(asked, AcceptAndLose)
                } else {
                    Accept
                }
            },
            homes: vec![(A, SentOrHeld), (B, SentOrHeld)],
            stored: vec![(A, 0, 2), (B, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "held, marked as sent and as failed",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Drop("b.json", B)),
                (1, Await(A, FileState::Held)),
                (1, Await(B, FileState::Held)),
                (2, Tell(A, mark_sent)),
                (2, Tell(B, mark_failed)),
            ],
            rule: |_| AcceptAndLose,
            homes: vec![(A, Sent), (B, Failed)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "the same name three times, the first deferred",
            script: vec![
                (0, Drop("a.json", A)),
                (1, AwaitClaimed(A)),
                (1, Drop("a.json", B)),
                (40, AwaitClaimed(B)),
                (40, Drop("a.json", C)),
            ],
            rule: |asked| {
                if asked.content.contains('A') && asked.before < 4 { Status(503) } else { Accept }
            },
            homes: vec![(A, SentOrHeld), (B, SentOrHeld), (C, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "the same name twice, the first in doubt and resent",
            script: vec![(0, Drop("a.json", A)), (1, AwaitClaimed(A)), (1, Drop("a.json", B))],
            rule: |asked| {
                if asked.content.contains('A') && asked.before < 2 { AcceptAndHide } else { Accept }
            },
            homes: vec![(A, Sent), (B, Sent)],
            stored: vec![(A, 1, 9), (B, 1, 9)],
            resends_in_doubt: true,
            ..Story::default()
        },
        Story {
            name: "a taken name in sent and in failed",
            script: vec![
                (0, Put("sent/a.json", "an older file")),
                (0, Put("failed/bad.json.why.txt", "a note")),
                (0, Drop("a.json", A)),
                (0, Drop("bad.json", BAD)),
            ],
            homes: vec![(A, SentOrHeld), (BAD, Failed)],
            stored: vec![(A, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "a stranger takes the target's name while the file moves",
            script: vec![(0, Drop("a.json", A)), (0, Put("sent/a.json", "a stranger"))],
            homes: vec![(A, SentOrHeld)],
            stored: vec![(A, 0, 1)],
            syncs_folders: false,
            ..Story::default()
        },
        Story {
            name: "a stranger takes the recorded target's name while patchdrop is down",
            script: vec![(0, Drop("a.json", A)), (2, PutIfFree("sent/a.json", "a stranger"))],
            homes: vec![(A, SentOrHeld)],
            stored: vec![(A, 0, 1)],
            syncs_folders: false,
            ..Story::default()
        },
        Story {
            name: "rewritten in place while patchdrop is down",
            script: vec![(0, Drop("a.json", A)), (2, Rewrite("a.json", C))],
            homes: vec![(A, SentOrHeldIfThere), (C, SentIfThere)],
            stored: vec![(A, 0, 1), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "changed in sending/ while it is deferred",
            script: vec![(0, Drop("a.json", A)), (1, AwaitClaimed(A)), (1, ChangeClaimed(A, C))],
            rule: |asked| if asked.before < 5 { Status(503) } else { Accept },
            homes: vec![(A, SentOrHeldIfThere), (C, Settled)],
            stored: vec![(A, 0, 1), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "rejected, resent and sent",
            script: vec![
                (0, Drop("a.json", A)),
                (1, Await(A, FileState::Failed)),
                (1, Tell(A, resend)),
            ],
            rule: |asked| once_then_accept(asked, Status(422)),
            homes: vec![(A, Settled)],
            stored: vec![(A, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "rejected and moved back by hand",
            script: vec![
                (0, Drop("a.json", A)),
                (1, Await(A, FileState::Failed)),
                (1, MoveBack { content: A, name: "a.json" }),
            ],
            rule: |asked| once_then_accept(asked, Status(422)),
            homes: vec![(A, Settled)],
            stored: vec![(A, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "a poison file among good ones",
            script: vec![(0, Drop("a.json", A)), (0, Drop("b.json", B)), (2, Drop("c.json", C))],
            rule: |asked| if asked.content.contains('A') { Status(400) } else { Accept },
            homes: vec![(A, FailedOrHeld), (B, SentOrHeld), (C, SentOrHeld)],
            stored: vec![(A, 0, 0), (B, 0, 1), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "the route is wrong for a while",
            script: vec![(0, Drop("a.json", A)), (0, Drop("b.json", B)), (9, Drop("c.json", C))],
            rest: 1_500,
            rule: |asked| if asked.at < 600 { Status(404) } else { Accept },
            homes: vec![(A, SentOrHeld), (B, SentOrHeld), (C, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "one file alone is refused like a wrong route",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Drop("b.json", B)),
                (60, Drop("c.json", C)),
                (300, Drop("d.json", D)),
            ],
            rule: |asked| if asked.content.contains('B') { Status(404) } else { Accept },
            homes: vec![(A, SentOrHeld), (B, FailedOrHeld), (C, SentOrHeld), (D, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 0), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "two files are refused like a wrong route, and good ones come later",
            script: vec![
                (0, Drop("b.json", B)),
                (0, Drop("c.json", C)),
                (200, Drop("a.json", A)),
                (900, Drop("d.json", D)),
            ],
            rest: 1_500,
            rule: |asked| {
                let is_bad = asked.content.contains('B') || asked.content.contains('C');
                if is_bad { Status(404) } else { Accept }
            },
            homes: vec![(A, SentOrHeld), (B, FailedOrHeld), (C, FailedOrHeld), (D, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 0), (C, 0, 0), (D, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "taken away while deferred",
            script: vec![
                (0, Drop("a.json", A)),
                (2, AwaitClaimed(A)),
                (2, TakeAway(A)),
                (3, Drop("b.json", B)),
            ],
            rule: |asked| if asked.content.contains('A') { Status(503) } else { Accept },
            homes: vec![(A, Nowhere), (B, SentOrHeld)],
            stored: vec![(A, 0, 0), (B, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "overwritten before and after the claim",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Drop("a.json", B)),
                (4, AwaitClaimed(B)),
                (4, Drop("a.json", C)),
            ],
            homes: vec![(B, SentOrHeld), (C, SentOrHeld)],
            stored: vec![(B, 0, 1), (C, 0, 1)],
            ..Story::default()
        },
        Story {
            name: "a document that stops in the middle, and one that never goes on",
            script: vec![
                (0, Drop("slow.json", r#"{"order":"#)),
                (0, Drop("never.json", r#"{"never":"#)),
                (5, Put("slow.json", C)),
                (0, Put("note.txt", "not ours")),
            ],
            homes: vec![(C, SentOrHeld), (r#"{"never":"#, Failed), ("not ours", Inbox)],
            stored: vec![(C, 0, 1)],
            ..Story::default()
        },
    ]
}

/// Finds every place of a content.
/// Some of them where nothing is synced.
pub fn unsynced() -> Vec<Story> {
    const THOSE: [&str; 4] = [
        "a bad file among good ones",
        "held on another volume, released and sent",
        "deferred and then sent",
        "the answer is lost, resend",
    ];
    let mut stories = all();
    stories.retain(|story| THOSE.contains(&story.name));
    assert_eq!(stories.len(), THOSE.len(), "each of them is there");
    let loosen = |story: Story| {
        let name = Box::leak(format!("{}, unsynced", story.name).into_boxed_str());
        Story { name, is_unsynced: true, syncs_folders: false, ..story }
    };
    stories.into_iter().map(loosen).collect()
}

pub fn places_of(state: &State, content: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for (folder, names) in &state.disk.folders {
        for (name, node) in names {
            if state.disk.nodes[node].content == content.as_bytes() {
                places.push(Place::new(&Arc::from(folder.as_path()), name.clone()));
            }
        }
    }
    places
}

fn is_an_end(step: &Step) -> bool {
    matches!(step, Step::AttemptEnded { .. } | Step::Accepted { .. } | Step::Decided { .. })
}

/// Stories in which the ledger's disk is full for a while. An answer that a process has in hand is
/// put on record as soon as that is possible: only a cut makes a doubt of it.
pub fn refusals() -> Vec<Story> {
    use Act::Drop;
    use Behaviour::{Accept, AcceptAndLose, Status};
    use Home::{Held, Sent, SentOrHeld};
    vec![
        Story {
            name: "no answer can be put on record for a while, hold",
            script: vec![(0, Drop("a.json", A)), (0, Drop("b.json", B)), (30, Drop("c.json", C))],
            ledger_refuses: |step, at| at < 100 && is_an_end(step),
            homes: vec![(A, SentOrHeld), (B, SentOrHeld), (C, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1), (C, 0, 1)],
            sent_if_whole: vec![A, B, C],
            ..Story::default()
        },
        Story {
            name: "no answer can be put on record for a while, resend",
            script: vec![(0, Drop("a.json", A))],
            ledger_refuses: |step, at| at < 100 && is_an_end(step),
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 9)],
            resends_in_doubt: true,
            sent_if_whole: vec![A],
            ..Story::default()
        },
        Story {
            name: "nothing at all can be put on record for a while",
            script: vec![(0, Drop("a.json", A)), (0, Drop("b.json", B)), (30, Drop("b.json", C))],
            ledger_refuses: |_, at| (20..200).contains(&at),
            homes: vec![(A, SentOrHeld), (B, SentOrHeld), (C, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1), (C, 0, 1)],
            sent_if_whole: vec![A, B, C],
            ..Story::default()
        },
        Story {
            name: "a refused token while no answer can be put on record",
            script: vec![(0, Drop("a.json", A))],
            rule: |asked| if asked.token < 2 { Status(401) } else { Accept },
            ledger_refuses: |step, at| at < 100 && is_an_end(step),
            homes: vec![(A, SentOrHeld)],
            stored: vec![(A, 0, 1)],
            has_credential: true,
            sent_if_whole: vec![A],
            ..Story::default()
        },
        Story {
            name: "the clock jumps a day ahead and back",
            script: vec![
                (0, Drop("a.json", A)),
                (5, Drop("slow.json", r#"{"order":"#)),
                (25, Drop("slow.json", C)),
                (130, Drop("b.json", B)),
                (200, Drop("a.json", D)),
            ],
            rule: |asked| once_then_accept(asked, Status(503)),
            clock: |at| if (10..120).contains(&at) { 86_400_000 } else { 0 },
            homes: vec![(A, SentOrHeld), (B, SentOrHeld), (C, SentOrHeld), (D, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1), (C, 0, 1), (D, 0, 1)],
            // It looked unchanged for a day.
            gone_if_whole: vec![r#"{"order":"#],
            sent_if_whole: vec![A, B, C, D],
            ..Story::default()
        },
        Story {
            name: "a doubt while no answer can be put on record",
            script: vec![(0, Drop("a.json", A))],
            rule: |_| AcceptAndLose,
            ledger_refuses: |step, at| at < 100 && is_an_end(step),
            homes: vec![(A, Held)],
            stored: vec![(A, 0, 1)],
            ..Story::default()
        },
    ]
}

/// Stories of routes that start flows. A lone file's doubt is always cleared up by a look at the
/// flow's runs: it arrives exactly once, wherever it is cut.
#[expect(clippy::too_many_lines, reason = "a table of stories")]
pub fn flows() -> Vec<Story> {
    use Act::{Await, Drop, Tell};
    use Behaviour::{Accept, AcceptAndHide, AcceptAndLose, Status};
    use Home::{Failed, Held, Sent, SentOrHeld};
    const FAILS: &str = r#"{"order":"bad run"}"#;
    let flow = StoryFlow::default();
    let accepted = StoryFlow { confirms: false, ..flow };
    vec![
        Story {
            name: "a run that succeeds",
            script: vec![(0, Drop("a.json", A))],
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 1)],
            flow: Some(flow),
            ..Story::default()
        },
        Story {
            name: "a run that fails, where folders cannot be synced",
            script: vec![(0, Drop("a.json", FAILS))],
            homes: vec![(FAILS, Failed)],
            stored: vec![(FAILS, 1, 1)],
            syncs_folders: false,
            flow: Some(flow),
            ..Story::default()
        },
        Story {
            name: "an accepted file whose answer is lost is found among the runs",
            script: vec![(0, Drop("a.json", A))],
            rule: |asked| once_then_accept(asked, AcceptAndLose),
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 1)],
            flow: Some(accepted),
            ..Story::default()
        },
        Story {
            name: "a run found by a look is asked for as well",
            script: vec![(0, Drop("a.json", FAILS))],
            rule: |asked| once_then_accept(asked, AcceptAndHide),
            homes: vec![(FAILS, Failed)],
            stored: vec![(FAILS, 1, 1)],
            flow: Some(flow),
            ..Story::default()
        },
        Story {
            name: "a doubt about a file that was not accepted ends in a second attempt",
            script: vec![(0, Drop("a.json", A))],
            rule: |asked| once_then_accept(asked, Status(504)),
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 1)],
            flow: Some(accepted),
            ..Story::default()
        },
        Story {
            name: "two doubts at one time are not told apart",
            script: vec![(0, Drop("a.json", A)), (0, Drop("b.json", B))],
            rule: |asked| once_then_accept(asked, AcceptAndLose),
            homes: vec![(A, SentOrHeld), (B, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            flow: Some(accepted),
            ..Story::default()
        },
        Story {
            name: "the same name again while the first one's run goes on",
            script: vec![(0, Drop("a.json", A)), (10, Drop("a.json", B))],
            homes: vec![(A, SentOrHeld), (B, SentOrHeld)],
            stored: vec![(A, 1, 1), (B, 1, 1)],
            flow: Some(flow),
            ..Story::default()
        },
        Story {
            name: "an answer without a run",
            script: vec![(0, Drop("a.json", A))],
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 1)],
            flow: Some(StoryFlow { names_runs: false, ..flow }),
            ..Story::default()
        },
        Story {
            name: "a run that never ends, and a person",
            script: vec![
                (0, Drop("a.json", A)),
                (0, Await(A, FileState::Held)),
                (0, Tell(A, release)),
                (2_000, Await(A, FileState::Held)),
                (2_000, Tell(A, mark_sent)),
            ],
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 1)],
            flow: Some(StoryFlow { run_ends: |_| None, ..flow }),
            ..Story::default()
        },
        Story {
            name: "the core is away for a while",
            script: vec![(0, Drop("a.json", A))],
            rule: |asked| once_then_accept(asked, AcceptAndLose),
            homes: vec![(A, Sent)],
            stored: vec![(A, 1, 1)],
            rest: 3_600,
            flow: Some(StoryFlow { core_is_up: |before| before % 2 == 1, ..flow }),
            ..Story::default()
        },
        Story {
            name: "a run that never ends",
            script: vec![(0, Drop("a.json", A))],
            rule: |_| Accept,
            homes: vec![(A, Held)],
            stored: vec![(A, 1, 1)],
            rest: 1_800,
            flow: Some(StoryFlow { run_ends: |_| None, ..flow }),
            ..Story::default()
        },
    ]
}

/// Stories of routes that keep an order. Their homes are told in that order, and so must the server
/// have stored them.
#[expect(clippy::too_many_lines, reason = "a table of stories")]
pub fn in_order() -> Vec<Story> {
    use Act::{Await, Drop, TakeAway, Tell};
    use Behaviour::{Accept, AcceptAndHide, AcceptAndLose, Status};
    use Home::{Failed, Inbox, Nowhere, Sent, SentOrHeld};
    vec![
        Story {
            name: "an order by name, the first one deferred, the second one in doubt",
            script: vec![
                (0, Drop("10.json", C)),
                (0, Drop("9.json", B)),
                (0, Drop("1.json", A)),
                (2, Drop("100.json", D)),
            ],
            rule: |asked| match asked.before {
                0..2 if asked.content.contains('A') => Status(503),
                0 if asked.content.contains('B') => AcceptAndHide,
                _ => Accept,
            },
            homes: vec![(A, Sent), (B, Sent), (C, Sent), (D, Sent)],
            stored: vec![(A, 1, 9), (B, 1, 9), (C, 1, 9), (D, 1, 9)],
            resends_in_doubt: true,
            order: Some(by_name(OnFailed::Skip)),
            ..Story::default()
        },
        Story {
            name: "an order that pauses when a file is refused by us",
            script: vec![(0, Drop("3.json", C)), (0, Drop("2.json", BAD)), (0, Drop("1.json", A))],
            homes: vec![(A, Sent), (BAD, Failed), (C, Inbox)],
            stored: vec![(A, 1, 9), (BAD, 0, 0), (C, 0, 0)],
            resends_in_doubt: true,
            order: Some(by_name(OnFailed::Pause)),
            ..Story::default()
        },
        Story {
            name: "an order that pauses when a file is rejected",
            script: vec![(0, Drop("3.json", C)), (0, Drop("2.json", B)), (0, Drop("1.json", A))],
            rule: |asked| if asked.content.contains('B') { Status(422) } else { Accept },
            homes: vec![(A, Sent), (B, Failed), (C, Inbox)],
            stored: vec![(A, 1, 9), (B, 0, 0), (C, 0, 0)],
            resends_in_doubt: true,
            order: Some(by_name(OnFailed::Pause)),
            ..Story::default()
        },
        Story {
            name: "an order that a held file blocks until a person has decided",
            script: vec![
                (0, Drop("2.json", B)),
                (0, Drop("1.json", A)),
                (1, Await(A, FileState::Held)),
                (300, Tell(A, mark_sent)),
            ],
            // Nothing may pass the held one, however long the person takes.
            rule: |asked| match asked.content.contains('A') {
                true => AcceptAndLose,
                false if asked.at < 300 => Status(422),
                false => Accept,
            },
            homes: vec![(A, Sent), (B, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            order: Some(by_name(OnFailed::Skip)),
            ..Story::default()
        },
        Story {
            name: "an order that a held file blocks until somebody moves it away",
            script: vec![
                (0, Drop("2.json", B)),
                (0, Drop("1.json", A)),
                (1, Await(A, FileState::Held)),
                (200, TakeAway(A)),
            ],
            rule: |asked| match asked.content.contains('A') {
                true => AcceptAndLose,
                false if asked.at < 200 => Status(422),
                false => Accept,
            },
            homes: vec![(A, Nowhere), (B, SentOrHeld)],
            stored: vec![(A, 0, 1), (B, 0, 1)],
            order: Some(by_name(OnFailed::Skip)),
            ..Story::default()
        },
    ]
}
