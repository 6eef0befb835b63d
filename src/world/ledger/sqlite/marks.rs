//! The ledger's part about marks: whose roots these are, told by the ledger to each root and by
//! each root to the ledger. Keeps promise P3 from a ledger that was copied, restored or lost.
//!
//! What a mark tells is on record before any mark is written, so that a cut between the two is
//! found again. A mount that hangs keeps one thread and nobody else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use super::super::{LedgerError, LedgerId};
use super::writer::{Change, Marking};
use super::{SqliteLedger, lock, now, read};
use crate::model::outcome::chain;
use crate::model::time::Wall;
use crate::world::instance::{
    MarkError, MarkFinding, Number, Standing, Tidings, find, number, patiently, put, renew,
};

/// How the writing of a mark ended.
type Written = Result<(), MarkError>;

/// A finding and the number of its folder.
type Look = (MarkFinding, Option<Number>);

impl SqliteLedger {
    /// Compares the marks in these folders (roots and absolute route folders) with this ledger and
    /// writes ours where that is right. From then on they are kept up to date. May be called again
    /// for folders that have come back.
    ///
    /// # Errors
    /// [`MarkError`]: another instance's mark, or one that can't be read or written. Then no mark
    /// was changed, unless it is the writing that failed.
    pub async fn check_marks(
        &self,
        folders: Vec<Arc<Path>>,
    ) -> Result<Vec<MarkFinding>, MarkError> {
        let looks = self.look_at(folders).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        let tidings = Tidings::of(looks.iter().map(|(finding, _)| finding));
        self.take(looks, tidings).await
    }

    /// What the marks in these folders say; nothing is changed, neither there nor here.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn look_at_marks(
        &self,
        folders: Vec<Arc<Path>>,
    ) -> Result<Vec<Result<MarkFinding, MarkError>>, LedgerError> {
        let looks = self.look_at(folders).await?;
        Ok(looks.into_iter().map(|look| look.map(|(finding, _)| finding)).collect())
    }

    /// Writes our mark into these folders, whatever they say. For a person who knows that the
    /// instance that marked them is gone for good, or that a vanished root was made anew. Ids that
    /// another instance has given out count as lost: its files in `sending/` are held.
    ///
    /// # Errors
    /// [`MarkError`] if one can't be read or written.
    pub async fn adopt(&self, folders: Vec<Arc<Path>>) -> Result<(), MarkError> {
        let mut tidings = Tidings::default();
        let mut looks = Vec::new();
        let found = self.look_at(folders.clone()).await?;
        for (folder, look) in folders.into_iter().zip(found) {
            match look {
                Ok((MarkFinding::Unreachable { folder, error }, _)) => {
                    let (doing, path) = ("read", folder.to_path_buf());
                    return Err(MarkError::Io { doing, path, source: error });
                }
                Ok((MarkFinding::Behind { mark, .. }, _)) => tidings.fall_behind(&mark),
                Ok((MarkFinding::Lost { mark, .. }, _)) | Err(MarkError::Foreign { mark, .. }) => {
                    tidings.lose(&mark);
                }
                Err(MarkError::Elsewhere { mark, .. }) => {
                    let is_newer = mark.epoch > self.shared.epoch.load(Ordering::Acquire)
                        || mark.reserved_end > self.shared.reserved().end;
                    if is_newer {
                        tidings.fall_behind(&mark);
                    }
                }
                Err(error @ (MarkError::Io { .. } | MarkError::Ledger(_))) => return Err(error),
                Ok(_)
                | Err(
                    MarkError::Unreadable { .. }
                    | MarkError::NoMark { .. }
                    | MarkError::Vanished { .. },
                ) => {}
            }
            let folder_number = number(&folder);
            looks.push((MarkFinding::Restored { folder }, folder_number));
        }
        self.take(looks, tidings).await.map(drop)
    }

    /// Since when this ledger is known to be an old copy of itself; `None`: it is not, or a person
    /// has let every route go on.
    #[must_use]
    pub fn behind_since(&self) -> Option<Wall> {
        *lock(&self.shared.behind_at)
    }

    /// To be called about once a minute, and at an end: brings the marks up to date if anything
    /// came on record since, so that a copy of the ledger that is put back later shows as old.
    ///
    /// # Errors
    /// Another instance has taken a root over: nothing may be sent any more. Whatever else is in
    /// the way is tried again the next time.
    pub async fn keep_marks(&self) -> Result<(), MarkError> {
        let has_changed = self.shared.has_changed.swap(false, Ordering::AcqRel);
        if has_changed && let Err(error) = self.next_epoch(Marking::default()).await {
            self.shared.has_changed.store(true, Ordering::Release);
            tracing::debug!(%error, "could not raise the ledger's epoch");
        }
        let (_, errors) = self.renew_marks(!has_changed).await;
        for error in errors {
            if error.is_somebody_elses() {
                return Err(error);
            }
            tracing::warn!(error = %chain(&error), "could not bring a mark up to date");
        }
        Ok(())
    }

    /// After ids were reserved. One mark that can't be written is skipped, for the others tell the
    /// same; if none can, that is an error.
    pub(super) async fn tell_marks(&self) -> Result<(), MarkError> {
        let (written, mut errors) = self.renew_marks(false).await;
        if written == 0
            && let Some(last) = errors.pop()
        {
            return Err(last);
        }
        for error in errors {
            tracing::warn!(error = %chain(&error), "could not bring a mark up to date");
        }
        Ok(())
    }

    /// The mark at or above this folder is looked at again, if it has not been seen to be ours, or
    /// `anew`.
    pub(super) async fn admit_below(&self, folder: &Path, anew: bool) -> Result<bool, MarkError> {
        let Some(root) = lock(&self.marks).above(folder, anew) else { return Ok(false) };
        for finding in self.check_marks(vec![root]).await? {
            match finding {
                MarkFinding::Vanished { folder } => {
                    return Err(MarkError::Vanished { folder: folder.to_path_buf() });
                }
                MarkFinding::Unreachable { folder, error } => {
                    let (doing, path) = ("read", folder.to_path_buf());
                    return Err(MarkError::Io { doing, path, source: error });
                }
                MarkFinding::Ours { .. }
                | MarkFinding::New { .. }
                | MarkFinding::Restored { .. }
                | MarkFinding::Lost { .. }
                | MarkFinding::Behind { .. } => {}
            }
        }
        Ok(true)
    }

    async fn look_at(
        &self,
        folders: Vec<Arc<Path>>,
    ) -> Result<Vec<Result<Look, MarkError>>, LedgerError> {
        let standing = self.standing().await?;
        Ok(join_all(folders.into_iter().map(|folder| self.look(folder, &standing))).await)
    }

    async fn look(&self, folder: Arc<Path>, standing: &Standing) -> Result<Look, MarkError> {
        let turn = lock(&self.marks).begin(&folder);
        let looked = match turn {
            Ok(turn) => {
                let (folder, standing) = (Arc::clone(&folder), standing.clone());
                patiently(turn, move |_| {
                    let folder_number = number(&folder);
                    find(folder, &standing).map(|finding| (finding, folder_number))
                })
                .await
            }
            Err(error) => Err(error),
        };
        looked.unwrap_or_else(|error| Ok((MarkFinding::Unreachable { folder, error }, None)))
    }

    /// Puts on record what was found, then writes the marks.
    async fn take(
        &self,
        looks: Vec<Look>,
        tidings: Tidings,
    ) -> Result<Vec<MarkFinding>, MarkError> {
        let to_mark = looks.iter().filter(|(finding, _)| finding.is_to_be_marked());
        let folders: Vec<_> = to_mark
            .map(|(finding, number)| (finding.folder().as_os_str().to_owned(), *number))
            .collect();
        if !folders.is_empty() {
            self.next_epoch(Marking { folders, tidings, ..Marking::default() }).await?;
        }
        let standing = self.standing().await?;
        let at = now();
        let writes = looks.iter().filter(|(finding, _)| finding.is_to_be_marked()).map(
            async |(finding, _)| {
                let folder = finding.folder();
                let written = self.at_mark(folder, &standing, move |_, folder, standing| {
                    put(folder, standing, at)
                });
                match written.await {
                    Err(error) if finding.must_be_marked() => Err(error),
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "could not bring a mark up to date");
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                }
            },
        );
        join_all(writes).await.into_iter().collect::<Result<(), MarkError>>()?;
        let mut marks = lock(&self.marks);
        for (finding, folder_number) in &looks {
            marks.remember(finding, *folder_number);
        }
        drop(marks);
        Ok(looks.into_iter().map(|(finding, _)| finding).collect())
    }

    /// Puts a marking on record under a new epoch.
    async fn next_epoch(&self, marking: Marking) -> Result<(), LedgerError> {
        let (at, shared) = (now(), &self.shared);
        let seen = marking.tidings.behind.as_ref().map_or(0, |(epoch, _)| *epoch);
        let epoch = shared.epoch.load(Ordering::Acquire).max(seen).saturating_add(1);
        let is_behind = marking.tidings.behind.is_some();
        let lost = marking.tidings.lost.clone();
        self.change(Change::Marked(Marking { at, epoch, ..marking })).await?;
        shared.epoch.fetch_max(epoch, Ordering::AcqRel);
        if is_behind {
            lock(&shared.behind_at).get_or_insert(at);
        }
        lock(&shared.lost).extend(lost);
        Ok(())
    }

    /// Brings all marks of ours up to date; how many were, and what was in the way of the others.
    async fn renew_marks(&self, only_look: bool) -> (usize, Vec<MarkError>) {
        let (at, standing) = (now(), self.shared.standing(BTreeMap::new()));
        let ours = lock(&self.marks).ours();
        let renewals = ours.iter().map(|folder| {
            self.at_mark(folder, &standing, move |number, folder, standing| {
                renew(folder, standing, number, at, only_look)
            })
        });
        let all = join_all(renewals).await;
        for (folder, renewed) in ours.iter().zip(&all) {
            if matches!(renewed, Err(MarkError::Vanished { .. })) {
                lock(&self.marks).doubt(folder);
            }
        }
        let written = all.iter().filter(|renewed| renewed.is_ok()).count();
        (written, all.into_iter().filter_map(Result::err).collect())
    }

    /// Works at one folder's mark, on a thread that may hang.
    async fn at_mark(
        &self,
        folder: &Arc<Path>,
        standing: &Standing,
        work: impl FnOnce(Option<Number>, &Path, &Standing) -> Written + Send + 'static,
    ) -> Written {
        let fail = |source| MarkError::Io { doing: "write", path: folder.to_path_buf(), source };
        let turn = lock(&self.marks).begin(folder).map_err(fail)?;
        let (at, standing) = (Arc::clone(folder), standing.clone());
        patiently(turn, move |turn| work(turn.number, &at, &standing)).await.map_err(fail)?
    }

    async fn standing(&self) -> Result<Standing, LedgerError> {
        Ok(self.shared.standing(self.read(read::marked).await?))
    }
}

impl super::Shared {
    fn standing(&self, marked: BTreeMap<PathBuf, Option<Number>>) -> Standing {
        let lost: Vec<LedgerId> = lock(&self.lost).iter().map(|(id, _)| *id).collect();
        Standing {
            ledger: self.id,
            lost,
            reserved: self.reserved(),
            epoch: self.epoch.load(Ordering::Acquire),
            state_dir: self.home.state_dir.clone(),
            here: self.here.clone(),
            marked,
        }
    }
}
