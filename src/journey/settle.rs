//! What a verdict leads to, where the file goes, and what is written beside it.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::resume::LastAttempt;
use super::runs::{self, Errand};
use super::send::{self, Judged};
use crate::model::file::{FileId, shown};
use crate::model::outcome::{Cause, Code, Outcome};
use crate::model::route::{Backoff, InDoubt, Route};
use crate::model::step::{Attempt, AttemptEnd, Entry, Envelope, State, Verdict};
use crate::model::time::Wall;

/// What follows a verdict.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The journey ends here.
    Settle {
        /// `sent`, `failed` or `held`.
        state: State,
        /// Why.
        cause: Cause,
    },
    /// It is accepted; its run is asked for.
    Confirm,
    /// It waits in `sending/`.
    Park {
        /// How long.
        wait: Duration,
        /// For what.
        errand: Errand,
    },
}

/// What the schedule knows beyond the file itself.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The route has delivered another file since this one was first refused for the route's
    /// fault, and this attempt began after that.
    pub delivered_since_refusal: bool,
    /// Time this file has waited, paused time not counted.
    pub waited_for: Duration,
    /// In `[0, 1)`, for jitter.
    pub dice: f64,
}

/// Decides what follows a verdict (house.md, "What an answer means").
#[must_use]
pub fn decide(entry: &Entry, judged: &Judged, route: &Route, standing: Standing) -> Next {
    let settle = |state: State| Next::Settle { state, cause: judged.cause.clone() };
    match judged.outcome {
        Outcome::Delivered => delivered(judged, route),
        Outcome::Rejected => settle(State::Failed),
        Outcome::Changed => settle(State::Held),
        Outcome::InDoubt if route.in_doubt == InDoubt::Hold => settle(State::Held),
        Outcome::RouteFault if standing.delivered_since_refusal => Next::Settle {
            state: State::Failed,
            cause: Cause::new(
                Code::of("refused-again"),
                format!(
                    "{}, and again after the route had delivered another file: it is this file",
                    judged.cause.plain
                ),
            )
            .with_excerpt(judged.cause.excerpt.clone()),
        },
        Outcome::InDoubt | Outcome::Deferred(_) | Outcome::RouteFault | Outcome::TokenRefused => {
            park_or_give_up(entry, judged, route, standing)
        }
    }
}

/// A missing run id never turns an accepted file into a failed one.
fn delivered(judged: &Judged, route: &Route) -> Next {
    let confirms = route.deliver.flow.as_ref().is_some_and(|flow| flow.confirm.is_some());
    let cause = match (&judged.run, confirms) {
        (Some(_), true) => return Next::Confirm,
        (None, true) => Cause::new(
            Code::of("unconfirmed"),
            format!(
                "{}, unconfirmed: the answer names no run in any of {}",
                judged.cause.plain,
                route.judge.run_id_fields.join(", ")
            ),
        ),
        (_, false) => judged.cause.clone(),
    };
    Next::Settle { state: State::Sent, cause }
}

fn park_or_give_up(entry: &Entry, judged: &Judged, route: &Route, standing: Standing) -> Next {
    if standing.waited_for < route.retry.give_up_after {
        if judged.outcome == Outcome::InDoubt && route.in_doubt == InDoubt::Lookup {
            return Next::Park { wait: runs::FIRST_LOOK_AFTER, errand: Errand::LookUp };
        }
        let wait = backoff(&route.retry, entry.attempt, standing.dice);
        let wait = wait.max(judged.retry_after.unwrap_or_default());
        return Next::Park { wait, errand: Errand::Attempt };
    }
    let state = if judged.outcome == Outcome::InDoubt { State::Held } else { State::Failed };
    Next::Settle {
        state,
        cause: Cause::new(
            Code::of(GAVE_UP),
            format!(
                "given up after {} attempts in {}; the last one: {}",
                entry.attempt,
                spoken(standing.waited_for),
                judged.cause.plain
            ),
        )
        .with_excerpt(judged.cause.excerpt.clone()),
    }
}

/// Full jitter: anything from nothing to `first * factor^(attempt - 1)`, at most `max`. `attempt`
/// counts from 1, `dice` is in `[0, 1)`.
#[must_use]
pub fn backoff(rules: &Backoff, attempt: u32, dice: f64) -> Duration {
    ceiling(rules, attempt).mul_f64(dice.clamp(0.0, 1.0))
}

/// The longest wait after `attempt` failures; the schedule of probes.
#[must_use]
pub fn ceiling(rules: &Backoff, attempt: u32) -> Duration {
    let power = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = rules.first.as_secs_f64() * rules.factor.powi(power);
    let most = rules.max.as_secs_f64();
    Duration::from_secs_f64(if seconds.is_finite() { seconds.min(most) } else { most })
}

/// A span in words, for messages: `3 min`, `2 h 5 min`.
#[must_use]
pub fn spoken(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => format!("{} ms", span.as_millis()),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Longest file name in bytes that common file systems take.
pub const NAME_MAX_BYTES: usize = 255;

/// The names to try in a target folder, in order: the name itself, `name~2.json` to `name~9.json`,
/// then one with the file's id, which nothing else can have.
pub fn targets(name: &OsStr, id: FileId) -> impl Iterator<Item = OsString> {
    let (stem, ending) = split(name);
    let numbered = (2..=9).map(|number| format!("~{number}"));
    std::iter::once(String::new())
        .chain(numbered)
        .chain(std::iter::once(format!("~{id}")))
        .map(move |insert| joined(&stem, &insert, &ending))
}

/// A name's stem and its ending with the dot; a leading dot is no ending.
fn split(name: &OsStr) -> (OsString, OsString) {
    let path = Path::new(name);
    match (path.file_stem(), path.extension()) {
        (Some(stem), Some(ending)) => {
            let mut dotted = OsString::from(".");
            dotted.push(ending);
            (stem.to_owned(), dotted)
        }
        _ => (name.to_owned(), OsString::new()),
    }
}

/// Joins the parts; a stem too long for the file system is cut at a character.
fn joined(stem: &OsStr, insert: &str, ending: &OsStr) -> OsString {
    let room = NAME_MAX_BYTES.saturating_sub(insert.len() + ending.len());
    let mut name = if stem.len() <= room || insert.is_empty() {
        stem.to_owned()
    } else {
        OsString::from(cut(stem, room))
    };
    name.push(insert);
    name.push(ending);
    name
}

/// The first `bytes` bytes of a name, cut at a character; what is no text becomes `?`.
fn cut(name: &OsStr, bytes: usize) -> String {
    let mut text = String::new();
    for letter in name.to_string_lossy().chars() {
        let letter = if letter == '\u{fffd}' { '?' } else { letter };
        if text.len() + letter.len_utf8() > bytes {
            break;
        }
        text.push(letter);
    }
    text
}

/// How much of a name a shortened sidecar's name keeps, in bytes.
const SIDECAR_STEM_BYTES: usize = 180;

/// The name of a file that stands beside another: `NAME.why.txt`, or a shortened one with the id
/// where that is too long for the file system.
#[must_use]
pub fn beside(name: &OsStr, id: FileId, ending: &str) -> OsString {
    if name.len() + ending.len() <= NAME_MAX_BYTES {
        let mut whole = name.to_owned();
        whole.push(ending);
        whole
    } else {
        OsString::from(format!("{}~{id}{ending}", cut(name, SIDECAR_STEM_BYTES)))
    }
}

/// Code of a file that was tried for as long as its route says.
pub const GAVE_UP: &str = "gave-up";

/// Ending of the file that says why another is in `failed/` or `held/`.
pub const WHY: &str = ".why.txt";

/// Ending of a receipt.
pub const RECEIPT: &str = ".receipt.json";

/// The name of a claimed file in `sending/`: `<id>~<name>`. Where that is too long for the file
/// system the name is cut; the ledger has the whole.
#[must_use]
pub fn claimed_name(id: FileId, name: &OsStr) -> OsString {
    let mut claimed = OsString::from(format!("{id}~"));
    if claimed.len() + name.len() <= NAME_MAX_BYTES {
        claimed.push(name);
    } else {
        let (stem, ending) = split(name);
        let room = NAME_MAX_BYTES.saturating_sub(claimed.len() + ending.len());
        claimed.push(cut(&stem, room));
        claimed.push(ending);
    }
    claimed
}

/// The id in a name as [`claimed_name`] makes it.
#[must_use]
pub fn claimed_id(name: &OsStr) -> Option<FileId> {
    let bytes = name.as_encoded_bytes();
    let at = bytes.iter().position(|byte| *byte == b'~')?;
    std::str::from_utf8(bytes.get(..at)?).ok().and_then(FileId::parse)
}

/// The name in a name as [`claimed_name`] makes it (cut, where that had to cut it).
#[must_use]
pub fn name_of_claimed(claimed: &OsStr) -> OsString {
    match claimed_id(claimed) {
        Some(_) => without_front(claimed, ID_AND_TILDE),
        None => claimed.to_owned(),
    }
}

/// Length of an id and its `~`.
const ID_AND_TILDE: usize = 11;

#[cfg(unix)]
fn without_front(name: &OsStr, bytes: usize) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(name.as_bytes().get(bytes..).unwrap_or_default()).to_owned()
}

/// What stands in front is ASCII, a unit of UTF-16 a byte; the rest may be any units.
#[cfg(windows)]
fn without_front(name: &OsStr, bytes: usize) -> OsString {
    use std::os::windows::ffi::{OsStrExt, OsStringExt};
    OsString::from_wide(&name.encode_wide().skip(bytes).collect::<Vec<_>>())
}

/// Puts the local date of the outcome into a target folder that asks for it.
#[must_use]
pub fn dated(folder: &Path, at: Wall) -> PathBuf {
    let text = folder.to_string_lossy();
    if !text.contains("{date}") {
        return folder.to_owned();
    }
    let date = jiff::Timestamp::from_millisecond(at.0)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d")
        .to_string();
    PathBuf::from(text.replace("{date}", &date))
}

/// The text beside a file in `failed/` or `held/`: a plain sentence first, then the code, what was
/// seen, the attempts, and what to do.
#[must_use]
pub fn why(entry: &Entry, state: State, cause: &Cause, attempts: &[Attempt], at: Wall) -> String {
    let name = shown(&entry.name);
    let lead = match (state, entry.last_verdict) {
        (State::Held, Some(Verdict::InDoubt)) => "may or may not have been accepted",
        (State::Held, _) => "is held until a person decides",
        (State::Sent, _) => "is not what was sent",
        (_, Some(Verdict::Delivered)) => "failed after it was sent",
        _ => "was not sent",
    };
    let mut text = format!("{name} {lead}: {}.\n\n", cause.plain);
    let mut line = |label: &str, value: &str| {
        writeln!(text, "{label:<12}{value}").expect("a String takes every write");
    };
    line("code", &cause.code.to_string());
    line("route", &entry.route.to_string());
    line("file id", &entry.id.to_string());
    line("dropped as", &entry.source.path().display().to_string().escape_default().to_string());
    line("claimed", &entry.claimed_at.to_string());
    line("decided", &at.to_string());
    line("size", &format!("{} bytes", entry.identity.size));
    if let Some(digest) = entry.digest {
        line("sha-256", &digest.to_string());
    }
    line("key", &entry.key);
    if let Some(previous) = entry.previous {
        line("follows", &format!("{previous} (an earlier journey of this file)"));
    }
    for attempt in attempts {
        line(&format!("attempt {}", attempt.number), &attempt_line(attempt));
    }
    if let Some(excerpt) = &cause.excerpt {
        let label = if attempts.is_empty() { "Where in the file" } else { "The server said" };
        write!(text, "\n{label}:\n  {}\n", excerpt.replace('\n', "\n  "))
            .expect("a String takes every write");
    }
    write!(text, "\nWhat you can do:\n{}", what_to_do(entry, state, cause))
        .expect("a String takes every write");
    text
}

fn attempt_line(attempt: &Attempt) -> String {
    match &attempt.end {
        None => format!("begun {}, no end on record", attempt.begun_at),
        Some(AttemptEnd { verdict, plain, .. }) => {
            format!("begun {}, {}: {plain}", attempt.begun_at, verdict.name())
        }
    }
}

/// The code of a file that is not the one that was checked any more.
pub const CHANGED: &str = "changed-after-claim";

/// Why a file is held whose content changed in `sending/` after it may have been sent.
#[must_use]
pub fn changed_after_claim(last: LastAttempt) -> Cause {
    let plain = match last {
        LastAttempt::InDoubt => {
            "it was changed in sending/ after an attempt that has no end on record; what lies here is not what may have been accepted"
        }
        LastAttempt::Ended | LastAttempt::NotSent => {
            "it was changed in sending/ after it was checked; what lies here was not sent"
        }
    };
    Cause::new(Code::of(CHANGED), plain)
}

/// What is on record, and said beside it, about a file that was changed in `sending/` before its
/// last move.
#[must_use]
pub fn changed_before_its_move(state: State) -> Cause {
    let plain = match state {
        State::Sent => {
            "the file was accepted as it was checked, and somebody changed it in sending/ before it was moved; what lies here is not what was accepted"
        }
        State::Held
        | State::Failed
        | State::Sending
        | State::Deferred
        | State::Confirming
        | State::Missing
        | State::Cancelled => {
            "somebody changed the file in sending/ before it was moved; what lies here is not what was checked"
        }
    };
    Cause::new(Code::of(CHANGED), plain)
}

fn what_to_do_about_a_changed_file(entry: &Entry, state: State) -> String {
    let (id, key) = (entry.id, &entry.key);
    let mut text = String::new();
    if state == State::Held && entry.last_verdict == Some(Verdict::InDoubt) {
        writeln!(text, "  Look at the receiver whether it has the file as it was (key {key}).")
            .expect("a String takes every write");
    }
    text.push_str(
        "  Nobody but patchdrop may write into sending/: find out who did.\n  \
         Send what lies here: move it back into its drop folder.\n",
    );
    if state == State::Held {
        writeln!(text, "  Don't send it: patchdrop mark {id} --failed --note \"why\"")
            .expect("a String takes every write");
    }
    text
}

fn what_to_do(entry: &Entry, state: State, cause: &Cause) -> String {
    let id = entry.id;
    let route = &entry.route;
    let in_doubt = entry.last_verdict == Some(Verdict::InDoubt);
    if cause.code.0 == CHANGED {
        return what_to_do_about_a_changed_file(entry, state);
    }
    if state == State::Held && in_doubt {
        format!(
            "  Look at the receiver whether it has this file (key {key}).\n  \
             It has it:     patchdrop mark {id} --sent --note \"who looked, where\"\n  \
             It hasn't:     patchdrop release {id}      (sends it under the same key)\n  \
             Don't send it: patchdrop mark {id} --failed --note \"why\"\n",
            key = entry.key
        )
    } else if state == State::Held && entry.confirming_since.is_some() {
        let run = entry.run.as_deref().unwrap_or("unknown");
        format!(
            "  It was accepted: look at run {run} in the dashboard.\n  \
             It went well:           patchdrop mark {id} --sent --note \"who looked, where\"\n  \
             Ask for its run again:  patchdrop release {id}      (sends nothing)\n  \
             It is to be sent again: patchdrop mark {id} --failed --note \"why\", then\n  \
             \u{20}                       patchdrop resend {id}\n"
        )
    } else if state == State::Held {
        format!(
            "  Look at the file. Send it as it is: patchdrop release {id}\n  \
             Don't send it: patchdrop mark {id} --failed --note \"why\"\n"
        )
    } else if entry.last_verdict == Some(Verdict::Rejected) {
        format!(
            "  Mend what the server objects to, and drop the file into its folder again;\n  \
             or, once the server would take it as it is: patchdrop resend {id}\n"
        )
    } else if entry.attempt > 0 {
        // What is said of a route at fault is said of files that wait; this one does not.
        let is_given_up = &*cause.code.0 == GAVE_UP;
        let first = if is_given_up {
            "It is not tried again by itself: see that the receiver is well again.".to_owned()
        } else {
            send::remedy(cause, Some(route))
        };
        format!(
            "  {first}\n  Send it again: patchdrop resend {id}\n  \
             or move the file back into its drop folder.\n"
        )
    } else {
        let remedy = cause.remedy.as_deref();
        let first = remedy.unwrap_or("Mend the file (or have it exported again).");
        format!("  {first}\n  As it is it would be refused again.\n")
    }
}

/// The receipt beside a sent file.
#[must_use]
pub fn receipt(entry: &Entry, end: Option<&AttemptEnd>, host: &str, at: Wall) -> Vec<u8> {
    let envelope = entry.envelope.as_ref();
    let document = serde_json::json!({
        "id": entry.id.to_string(),
        "route": entry.route.to_string(),
        "name": shown(&entry.name),
        "host": host,
        "key": entry.key,
        "size": entry.identity.size,
        "sha256": entry.digest.map(|digest| digest.to_string()),
        "body_bytes": envelope.map(|envelope| envelope.bytes),
        "body_sha256": envelope.map(|envelope| envelope.digest.to_string()),
        "conversion": envelope.and_then(Envelope::changes),
        "remarks": envelope.map(|envelope| &envelope.remarks),
        "claimed_at": entry.claimed_at,
        "accepted_at": at,
        "attempts": entry.attempt,
        "status": end.and_then(|end| end.status),
        "request_id": end.and_then(|end| end.request_id.clone()),
        "follows": entry.previous.map(|id| id.to_string()),
    });
    let mut text = serde_json::to_vec_pretty(&document).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: FileId = FileId(1_795_305_600_000);

    fn rules() -> Backoff {
        Backoff {
            first: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_mins(5),
            give_up_after: Duration::from_hours(120),
        }
    }

    #[test]
    fn names_are_tried_in_order_and_end_with_the_id() {
        let names: Vec<_> = targets(OsStr::new("a.b.json"), ID).collect();
        assert_eq!(names[0], "a.b.json");
        assert_eq!(names[1], "a.b~2.json");
        assert_eq!(names[8], "a.b~9.json");
        assert_eq!(names[9], OsString::from(format!("a.b~{ID}.json")));
        assert_eq!(names.len(), 10);
    }

    #[test]
    fn a_name_without_ending_or_with_a_leading_dot_keeps_its_form() {
        assert_eq!(targets(OsStr::new("orders"), ID).nth(1).unwrap(), "orders~2");
        assert_eq!(targets(OsStr::new(".env"), ID).nth(1).unwrap(), ".env~2");
    }

    #[test]
    fn the_wait_grows_to_its_bound_and_never_overflows() {
        assert_eq!(ceiling(&rules(), 1), Duration::from_secs(1));
        assert_eq!(ceiling(&rules(), 4), Duration::from_secs(8));
        assert_eq!(ceiling(&rules(), 40), Duration::from_mins(5));
        assert_eq!(ceiling(&rules(), u32::MAX), Duration::from_mins(5));
        assert_eq!(backoff(&rules(), 4, 0.0), Duration::ZERO);
        assert_eq!(backoff(&rules(), 4, 0.5), Duration::from_secs(4));
    }

    #[test]
    fn a_claimed_name_gives_its_id_back_and_foreign_ones_none() {
        assert_eq!(claimed_id(&claimed_name(ID, OsStr::new("x~y.json"))), Some(ID));
        for foreign in ["a.json", "~a", "1kq8~a", "1KQ8Z7X2AB~a", "iiiiiiiiii~a", ""] {
            assert_eq!(claimed_id(OsStr::new(foreign)), None, "{foreign}");
        }
    }

    /// What a folder takes as a name.
    const NAMES: &str = if cfg!(windows) { r"[^/\\:\x00]{1,80}" } else { r"[^/\x00]{1,80}" };

    proptest! {
        #[test]
        fn targets_never_repeat_leave_the_folder_or_grow_too_long(name in NAMES) {
            prop_assume!(name != "." && name != "..");
            prop_assume!(name.len() <= NAME_MAX_BYTES);
            let names: Vec<_> = targets(OsStr::new(&name), ID).collect();
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            prop_assert_eq!(distinct.len(), names.len());
            for target in &names {
                prop_assert!(target.len() <= NAME_MAX_BYTES);
                prop_assert_eq!(Path::new(target).components().count(), 1);
                let sidecar = beside(target, ID, WHY);
                prop_assert!(sidecar.len() <= NAME_MAX_BYTES);
            }
            prop_assert!(claimed_name(ID, OsStr::new(&name)).len() <= NAME_MAX_BYTES);
        }

        #[test]
        fn backoff_stays_within_its_bounds(attempt in 1_u32..200, dice in 0.0_f64..1.0) {
            let wait = backoff(&rules(), attempt, dice);
            prop_assert!(wait <= ceiling(&rules(), attempt));
            prop_assert!(wait <= rules().max);
        }
    }
}
