//! What a verification found, and how it is told.

use serde::Serialize;

use super::super::failure::Failure;
use super::super::screen::{Screen, counted};
use super::Finding;

/// Faults that are listed; all are counted.
const FAULTS_MAX: usize = 1_000;

/// What is wrong. The names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Disagreement {
    /// It is in none of its places.
    Missing,
    /// It is settled and still in `sending/`, or lies a second time where files end.
    Doubled,
    /// What came along with a settled file is still in `sending/`.
    LeftBehind,
    /// The file in `sending/` is not the one that was checked.
    Changed,
    /// The file in `sent/` is not the one that was sent.
    Altered,
    /// It is in `sent/`, and no acceptance is on record.
    NotAccepted,
    /// Two attempts of it were accepted.
    AcceptedTwice,
    /// It is settled, and an attempt of it has no end on record.
    Unended,
    /// It is in `failed/` for what is not its own fault, and was not given up.
    NotItsFault,
    /// It is in `failed/` or `held/` without a sidecar, or with an empty one.
    Unexplained,
    /// It is in `sending/` under an id of this ledger that the ledger does not know.
    Unrecorded,
    /// A folder cannot be listed, or a root's mark not be read.
    Unreadable,
    /// A root bears the mark of another ledger than the one in `state_dir`, or there is none there.
    OtherLedger,
    /// A root's mark knows of a later copy of this ledger.
    OlderCopy,
    /// A root that this ledger has marked bears no mark.
    Unmarked,
}

impl Disagreement {
    fn remedy(self) -> &'static str {
        match self {
            Self::Missing => {
                "patchdrop explain ID says when it was last seen; look for it in backups"
            }
            Self::Doubled => "compare both; the one that is left over is never sent: remove it",
            Self::LeftBehind => "it came along with a file whose end is settled: move it there",
            Self::Changed => {
                "somebody wrote into sending/; the service holds such a file, or says beside it \
                 that it was sent as it was before"
            }
            Self::Altered => {
                "somebody wrote into sent/, or into sending/ while it was sent; the receiver has \
                 what patchdrop explain ID names by its digest"
            }
            Self::NotAccepted => "do not trust that the server has it: look there, then mark it",
            Self::AcceptedTwice => "look at the receiver for a double, and report this, please",
            Self::Unended => "patchdrop explain ID; look at the receiver, and report this, please",
            Self::NotItsFault => {
                "to have it sent, move it into the drop folder, and report this, please"
            }
            Self::Unexplained => "patchdrop explain ID says what the sidecar said",
            Self::Unrecorded => "the ledger has lost it: start the service, it holds such files",
            Self::Unreadable => "see that the folder is there and this account may list it",
            Self::OtherLedger => {
                "that ledger knows what was sent from here, and it is not the one in state_dir: put \
                 it back, or start the service, which says how it goes on; never drop again what \
                 is in sent/"
            }
            Self::OlderCopy => {
                "the ledger in state_dir is an older copy: what was sent since is not on its \
                 record; put the newer one back, or start the service, which pauses every route \
                 until a person has resumed it"
            }
            Self::Unmarked => {
                "see whether its volume is mounted; if the folder was made anew, patchdrop adopt \
                 marks it again"
            }
        }
    }
}

/// One disagreement, as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    #[serde(rename = "fault")]
    pub(super) kind: Disagreement,
    pub(super) id: Option<String>,
    /// Of a root, none.
    pub(super) route: Option<String>,
    pub(super) name: String,
    /// Where it should be, or what cannot be read.
    pub(super) path: String,
}

/// What a verification found. Names are part of the interface of `--json`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) on_record: u64,
    pub(super) in_place: u64,
    pub(super) unfinished: u64,
    pub(super) moved_on: u64,
    pub(super) removed_since: u64,
    pub(super) missed_before: u64,
    pub(super) cancelled: u64,
    pub(super) foreign_in_sending: u64,
    pub(super) unrecorded_in_sent: u64,
    pub(super) unrecorded_in_failed: u64,
    pub(super) unrecorded_in_held: u64,
    /// In other folders than on record, which are those of the route today: counted above, too.
    pub(super) found_elsewhere: u64,
    /// Missing on record, and lying where files end: the record of their end was lost.
    pub(super) found_again: u64,
    /// Given up sooner than `give_up_after` says now.
    pub(super) gave_up_sooner: u64,
    /// `.why.txt` and receipts whose file somebody has taken away.
    pub(super) sidecars_alone: u64,
    /// What a stop in the middle of a copy has left; the next start removes it.
    pub(super) half_written: u64,
    /// Files may have been sent that are on no record here: an earlier ledger was lost or taken
    /// over, this one is or was an older copy, or a root knows another one.
    pub(super) ledger_was_lost: bool,
    /// Contents were compared, too.
    pub(super) deep: bool,
    pub(super) faults_total: u64,
    /// The first 1,000.
    pub(super) faults: Vec<Fault>,
}

impl Report {
    pub(super) fn fault(&mut self, fault: impl FnOnce() -> Fault) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault());
        }
    }

    pub(super) fn count(&mut self, finding: Finding) {
        let counter = match finding {
            Finding::InPlace => &mut self.in_place,
            Finding::Unfinished => &mut self.unfinished,
            Finding::MovedOn => &mut self.moved_on,
            Finding::RemovedSince => &mut self.removed_since,
            Finding::MissedBefore => &mut self.missed_before,
            Finding::Cancelled => &mut self.cancelled,
            Finding::Fault(_) => return,
        };
        *counter += 1;
    }

    /// What was counted beside the files on record, each with what it means.
    fn beside(&self) -> [(u64, &'static str, &'static str); 9] {
        let in_sent = if self.ledger_was_lost {
            (
                "sent, record lost",
                "another ledger, or a later copy of this one, knew them; patchdrop never sends them \
                 again: do not drop them again",
            )
        } else {
            (
                "in sent/ without a record",
                "patchdrop did not put them there: do not take them for sent, and move them away",
            )
        };
        [
            (
                self.foreign_in_sending,
                "foreign in sending/, left alone",
                "to have them sent, move them into the drop folder",
            ),
            (self.unrecorded_in_sent, in_sent.0, in_sent.1),
            (
                self.unrecorded_in_failed,
                "in failed/ without a record",
                "to have them sent, move them into the drop folder",
            ),
            (
                self.unrecorded_in_held,
                "in held/ without a record",
                "look at the receiver before you move them into the drop folder",
            ),
            (
                self.found_elsewhere,
                "of those above in other folders than on record",
                "the root was moved, or the route's folders were changed: they are the same files",
            ),
            (
                self.found_again,
                "missing on record, and lying where files end",
                "the record of their end was lost: the folder tells it; they are never sent again",
            ),
            (
                self.gave_up_sooner,
                "given up sooner than give_up_after says now",
                "it said less then, or the clock was set; if neither, report this, please",
            ),
            (
                self.sidecars_alone,
                "texts whose file somebody has taken away",
                "they may be removed",
            ),
            (self.half_written, "left half-written by a stop", "the next start removes them"),
        ]
    }
}

pub(super) fn render(report: &Report, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    let heading = format!("{} on record", counted(report.on_record, "file"));
    writeln!(screen.out, "{}", style.bold(&heading))?;
    let lines = [
        (report.in_place, "where the record says"),
        (report.unfinished, "between two places; the service or its next start finishes that"),
        (report.moved_on, "taken up again, or moved back into the drop folder"),
        (report.removed_since, "sent, and later taken out of sent/ by somebody: no fault"),
        (report.missed_before, "missing, as the record says (patchdrop list --state missing)"),
        (report.cancelled, "claims that came to nothing"),
    ];
    for (number, text) in lines {
        if number > 0 {
            writeln!(screen.out, "  {:>14}  {text}", counted(number, "file"))?;
        }
    }
    let beside = report.beside();
    if beside.iter().any(|(number, ..)| *number > 0) {
        writeln!(screen.out, "{}", style.bold("beside these"))?;
    }
    for (number, text, means) in beside {
        if number > 0 {
            writeln!(screen.out, "  {:>14}  {text}", counted(number, "file"))?;
            writeln!(screen.out, "  {:>14}      {means}", "")?;
        }
    }
    if report.faults_total == 0 {
        writeln!(screen.out, "\n{}", style.well(verdict(report)))?;
        return Ok(());
    }
    faults(report, screen)
}

/// The last line where there is no fault: it claims no more than was looked at.
fn verdict(report: &Report) -> &'static str {
    let is_all_there = report.removed_since == 0 && report.missed_before == 0;
    let strangers = report.beside().iter().map(|(number, ..)| number).sum::<u64>();
    let has_no_strangers = strangers == report.found_elsewhere;
    match (is_all_there && has_no_strangers, report.deep) {
        (true, false) => "Ledger and folders agree.",
        (true, true) => "Ledger and folders agree, in every byte.",
        (false, _) => {
            "No fault: whatever is on record is where it should be, or was taken away by somebody."
        }
    }
}

fn faults(report: &Report, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    let heading = format!("Ledger and folders disagree: {}", counted(report.faults_total, "fault"));
    writeln!(screen.out, "\n{}", style.alarm(&heading))?;
    for fault in &report.faults {
        let kind = serde_json::to_value(fault.kind).unwrap_or_default();
        let kind = kind.as_str().unwrap_or_default();
        let id = fault.id.as_deref().unwrap_or("-");
        match &fault.route {
            Some(route) => {
                writeln!(screen.out, "  {kind}: {} ({id}, route {route})", fault.name)?;
            }
            None => writeln!(screen.out, "  {kind}: {}", fault.name)?,
        }
        writeln!(screen.out, "      {}", fault.path)?;
        writeln!(screen.out, "      {}", fault.kind.remedy().replace("ID", id))?;
    }
    if usize::try_from(report.faults_total).unwrap_or(usize::MAX) > report.faults.len() {
        writeln!(screen.out, "  and more, all of them counted above")?;
    }
    Ok(())
}
