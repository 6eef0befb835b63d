//! Where a file on record lies after a restart, and what that means (promises P1, P3, P9).

use super::settle::CHANGED;
use crate::model::file::{Digest, Identity};
use crate::model::step::{Entry, State, Step, Verdict};
use crate::model::time::Wall;

/// What was found of an unsettled entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What has its claimed name in `sending/`.
    pub sending: Option<Identity>,
    /// The digest of that, read only where its identity is not the one on record.
    pub sending_digest: Option<Digest>,
    /// What has the name of its recorded target, with its digest.
    pub target: Option<(Identity, Digest)>,
    /// What has the name that it was dropped under, with its digest.
    pub source: Option<(Identity, Digest)>,
}

/// What is known about the last attempt on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptTrace {
    /// `Some(true)`: its first byte may have left in this boot; `Some(false)`: it has not;
    /// `None`: another boot, nobody knows.
    pub had_begun: Option<bool>,
    /// Renames on this volume can be made durable before the first byte leaves.
    pub renames_are_durable: bool,
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It lies in `sending/`: go on from the record.
    GoOn(LastAttempt),
    /// It lies where it was dropped: the rename was lost. Rename it under the same id and go on.
    RenameAgain(LastAttempt),
    /// File (and so its sidecar, which is written first) are at the target.
    Settled,
    /// Another file took its claimed name, and nothing was sent: rename that back, and start anew.
    PutBack,
    /// What has its claimed name is not what was checked, and that may have been sent: a person
    /// decides.
    Changed(LastAttempt),
    /// Nothing was sent and the name now belongs to a new file.
    Cancelled,
    /// Its end was decided, and somebody took it away before or after its last move.
    Removed,
    /// It is nowhere.
    Missing,
}

/// What the last attempt on record may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastAttempt {
    /// It has an end on record, or there was none.
    Ended,
    /// It never reached its first byte.
    NotSent,
    /// It may have been accepted.
    InDoubt,
}

/// Decides. The places are looked at in this order: `sending/`, the recorded target if an outcome
/// is on record, the recorded source.
#[must_use]
pub fn resume(entry: &Entry, found: &Found, trace: AttemptTrace) -> Resume {
    let in_sending = last_attempt(entry, trace);
    if let Some(identity) = found.sending {
        let digest_agrees = entry.digest.is_some() && found.sending_digest == entry.digest;
        // Of a file that is accepted or whose end is decided its last move tells whether it is the
        // one on record.
        let was_judged = entry.confirming_since.is_some() || entry.decided_at.is_some();
        return if identity.is_same(&entry.identity) || digest_agrees || was_judged {
            Resume::GoOn(in_sending)
        } else if nothing_can_have_been_sent(entry, in_sending) {
            Resume::PutBack
        } else {
            Resume::Changed(in_sending)
        };
    }
    if entry.decided_at.is_some()
        && let Some((identity, digest)) = found.target
        && (is_recorded(entry, &identity, digest) || is_held_as_changed(entry))
    {
        return Resume::Settled;
    }
    match found.source {
        Some((identity, digest))
            if identity.is_same(&entry.identity) && is_recorded(entry, &identity, digest) =>
        {
            Resume::RenameAgain(at_source(in_sending, entry, trace))
        }
        Some(_) if nothing_can_have_been_sent(entry, in_sending) => Resume::Cancelled,
        _ => nowhere(entry),
    }
}

fn nowhere(entry: &Entry) -> Resume {
    if entry.decided_at.is_some() { Resume::Removed } else { Resume::Missing }
}

/// Whether a file is the one on record. One refused by its size alone has no digest on record:
/// then its identity decides.
fn is_recorded(entry: &Entry, identity: &Identity, digest: Digest) -> bool {
    match entry.digest {
        Some(recorded) => recorded == digest,
        None => {
            identity.size == entry.identity.size && identity.mtime_ns == entry.identity.mtime_ns
        }
    }
}

/// Of a file that is held because it is not what was checked no digest can tell; its target was
/// free when it was put on record.
fn is_held_as_changed(entry: &Entry) -> bool {
    entry.state == State::Held && entry.cause.as_ref().is_some_and(|it| it.code.0 == CHANGED)
}

/// What is put on record of entries whose record may be older than the truth: power was cut, and it
/// had not been synced. Whatever may be sent may have been sent since, so each such entry has had
/// one more attempt that nobody knows anything about. What is accepted or decided stays so.
#[must_use]
pub fn doubt_all(entries: &[Entry], at: Wall) -> Vec<Step> {
    let may_be_sent = |entry: &&Entry| {
        !entry.settled && entry.decided_at.is_none() && entry.confirming_since.is_none()
    };
    let doubted = entries.iter().filter(may_be_sent).flat_map(|entry| {
        let (id, attempt) = (entry.id, entry.attempt + 1);
        let text = "the system was started anew before the record was on the disk: an attempt may \
                    have been made that is not on record"
            .to_owned();
        [Step::AttemptBegun { id, attempt, at }, Step::Noted { id, at, text }]
    });
    doubted.collect()
}

/// What the attempt that has no end on record may have done.
fn last_attempt(entry: &Entry, trace: AttemptTrace) -> LastAttempt {
    match (entry.attempt_open_since, trace.had_begun) {
        (None, _) => LastAttempt::Ended,
        (Some(_), Some(false)) => LastAttempt::NotSent,
        (Some(_), Some(true) | None) => LastAttempt::InDoubt,
    }
}

/// The same for a file that still lies at its source: its rename comes before its first byte, so
/// where renames are made durable (or no power was cut) a first attempt was not sent.
fn at_source(last: LastAttempt, entry: &Entry, trace: AttemptTrace) -> LastAttempt {
    let rename_tells = trace.renames_are_durable || trace.had_begun.is_some();
    if last == LastAttempt::InDoubt && entry.attempt == 1 && rename_tells {
        LastAttempt::NotSent
    } else {
        last
    }
}

fn nothing_can_have_been_sent(entry: &Entry, last: LastAttempt) -> bool {
    let first_attempt_unsent = entry.attempt <= 1
        && match last {
            LastAttempt::NotSent => true,
            LastAttempt::Ended => matches!(entry.last_verdict, None | Some(Verdict::NotSent)),
            LastAttempt::InDoubt => false,
        };
    entry.decided_at.is_none() && first_attempt_unsent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file::{FileId, Place};
    use crate::model::route::RouteName;
    use crate::model::step::{Claim, Intent};
    use std::path::Path;
    use std::sync::Arc;

    const MINE: Digest = Digest([1; 32]);
    const OTHER: Digest = Digest([2; 32]);
    const SAME_BOOT_BEGUN: AttemptTrace =
        AttemptTrace { had_begun: Some(true), renames_are_durable: true };
    const SAME_BOOT_UNSENT: AttemptTrace =
        AttemptTrace { had_begun: Some(false), renames_are_durable: true };
    const OTHER_BOOT: AttemptTrace = AttemptTrace { had_begun: None, renames_are_durable: true };
    const WINDOWS: AttemptTrace = AttemptTrace { had_begun: None, renames_are_durable: false };

    fn identity(number: u64) -> Identity {
        Identity { volume: 1, number, size: 5, mtime_ns: 9 }
    }

    fn place(folder: &str, name: &str) -> Place {
        Place::new(&Arc::from(Path::new(folder)), name)
    }

    fn entry() -> Entry {
        Entry::of(&Claim {
            id: FileId(7),
            route: RouteName::new("orders"),
            name: "a.json".into(),
            source: place("/r/orders", "a.json"),
            marker: None,
            identity: identity(1),
            digest: Some(MINE),
            envelope: None,
            key: "k".into(),
            previous: None,
            twin: None,
            at: Wall(0),
            intent: Intent::Attempt,
        })
    }

    fn decided() -> Entry {
        let mut entry = entry();
        entry.apply(&Step::Decided {
            id: FileId(7),
            attempt: None,
            state: State::Sent,
            cause: crate::model::outcome::Cause::new(crate::model::outcome::Code::http(200), ""),
            target: place("/r/orders/sent", "a.json"),
            at: Wall(1),
        });
        entry.attempt_open_since = None;
        entry
    }

    fn check(entry: &Entry, found: Found, trace: AttemptTrace, expected: Resume) {
        assert_eq!(resume(entry, &found, trace), expected, "{found:?} {trace:?}");
    }

    fn in_sending(number: u64) -> Found {
        Found { sending: Some(identity(number)), ..Found::default() }
    }

    fn at_source_with(number: u64, digest: Digest) -> Found {
        Found { source: Some((identity(number), digest)), ..Found::default() }
    }

    #[test]
    fn in_sending_it_goes_on_and_is_in_doubt_only_if_a_byte_may_have_left() {
        check(&entry(), in_sending(1), SAME_BOOT_BEGUN, Resume::GoOn(LastAttempt::InDoubt));
        check(&entry(), in_sending(1), OTHER_BOOT, Resume::GoOn(LastAttempt::InDoubt));
        check(&entry(), in_sending(1), SAME_BOOT_UNSENT, Resume::GoOn(LastAttempt::NotSent));
        check(&decided(), in_sending(1), OTHER_BOOT, Resume::GoOn(LastAttempt::Ended));
    }

    #[test]
    fn a_lost_claim_rename_keeps_the_id_and_was_not_sent_where_renames_are_durable() {
        let found = at_source_with(1, MINE);
        check(&entry(), found, OTHER_BOOT, Resume::RenameAgain(LastAttempt::NotSent));
        check(&entry(), found, SAME_BOOT_UNSENT, Resume::RenameAgain(LastAttempt::NotSent));
        check(&entry(), found, WINDOWS, Resume::RenameAgain(LastAttempt::InDoubt));
    }

    #[test]
    fn where_the_record_may_be_too_old_whatever_may_be_sent_has_an_attempt_that_nobody_knows() {
        let check = |entry: &Entry, expected: Option<u32>| {
            let steps = doubt_all(std::slice::from_ref(entry), Wall(8));
            let begun = steps.iter().find_map(|step| {
                let Step::AttemptBegun { attempt, at: Wall(8), .. } = step else { return None };
                Some(*attempt)
            });
            assert_eq!(begun, expected, "{entry:?}");
            let mut doubted = entry.clone();
            for step in &steps {
                doubted.apply(step);
            }
            for found in [in_sending(1), at_source_with(1, MINE)] {
                let last = match (begun, resume(&doubted, &found, SAME_BOOT_BEGUN)) {
                    (None, _) => continue,
                    (Some(_), Resume::GoOn(last) | Resume::RenameAgain(last)) => last,
                    (Some(_), other) => panic!("{other:?}"),
                };
                assert_eq!(last, LastAttempt::InDoubt, "{entry:?} {found:?}");
            }
        };
        check(&entry(), Some(2));
        let deferred = Entry { attempt_open_since: None, attempt: 3, ..entry() };
        check(&deferred, Some(4));
        check(&decided(), None);
        check(&Entry { confirming_since: Some(Wall(1)), ..deferred.clone() }, None);
        check(&Entry { settled: true, ..deferred }, None);
    }

    #[test]
    fn other_content_at_the_source_is_a_new_file_only_if_nothing_was_sent() {
        check(&entry(), at_source_with(2, OTHER), SAME_BOOT_UNSENT, Resume::Cancelled);
        check(&entry(), at_source_with(1, OTHER), SAME_BOOT_UNSENT, Resume::Cancelled);
        check(&entry(), at_source_with(2, OTHER), SAME_BOOT_BEGUN, Resume::Missing);
        check(&entry(), at_source_with(2, OTHER), OTHER_BOOT, Resume::Missing);
        check(&entry(), Found::default(), SAME_BOOT_UNSENT, Resume::Missing);
    }

    #[test]
    fn a_target_is_trusted_by_its_digest_alone() {
        let at_target = |digest| Found { target: Some((identity(1), digest)), ..Found::default() };
        check(&decided(), at_target(MINE), OTHER_BOOT, Resume::Settled);
        check(&decided(), at_target(OTHER), OTHER_BOOT, Resume::Removed);
        check(&entry(), at_target(MINE), SAME_BOOT_UNSENT, Resume::Missing);
        let changed = super::super::settle::changed_after_claim(LastAttempt::InDoubt);
        let held = Entry { state: State::Held, cause: Some(changed), ..decided() };
        check(&held, at_target(OTHER), OTHER_BOOT, Resume::Settled);
    }

    #[test]
    fn another_file_under_the_claimed_name_is_put_back_only_if_nothing_was_sent() {
        check(&entry(), in_sending(2), SAME_BOOT_UNSENT, Resume::PutBack);
        let in_doubt = LastAttempt::InDoubt;
        check(&entry(), in_sending(2), SAME_BOOT_BEGUN, Resume::Changed(in_doubt));
        check(&entry(), in_sending(2), OTHER_BOOT, Resume::Changed(in_doubt));
        check(&decided(), in_sending(2), OTHER_BOOT, Resume::GoOn(LastAttempt::Ended));
        let accepted =
            Entry { confirming_since: Some(Wall(1)), attempt_open_since: None, ..entry() };
        check(&accepted, in_sending(2), OTHER_BOOT, Resume::GoOn(LastAttempt::Ended));
        let touched = Found { sending_digest: Some(MINE), ..in_sending(2) };
        check(&entry(), touched, SAME_BOOT_UNSENT, Resume::GoOn(LastAttempt::NotSent));
    }
}
