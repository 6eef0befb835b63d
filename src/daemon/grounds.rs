//! Whether a route's folders are those that they were, and nobody else's: looked at when a route
//! is made ready, before each sweep, and before a folder is made again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::carry::{Context, Equipped};
use super::event::SweepFault;
use super::folders::undated;
use crate::journey::grounds::{Account, Role, Unfit, is_another, is_still, may_work_in};
use crate::journey::settle;
use crate::model::file::{FolderSeen, Kind};
use crate::model::route::Route;
use crate::model::time::Wall;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, FolderError};
use crate::world::ledger::Ledger;

const DAY: Duration = Duration::from_hours(24);

/// Dated folders of these days before today need no pin any more. More than one, since a machine
/// may have slept.
const PAST_DAYS: std::ops::RangeInclusive<u32> = 2..=8;

/// Looks at a route's folders as far as they are there, and pins each: from then on no operation
/// works in another one under its path.
pub(super) async fn stand<W: World>(ctx: &Context<W>, route: &Route) -> Result<(), FolderError> {
    let disk = ctx.world.disk();
    let folders = &route.folders;
    let inbox = &*folders.inbox;
    let mut all = vec![
        (Role::Inbox, Arc::clone(&folders.inbox)),
        (Role::Sending, Arc::clone(&folders.sending)),
    ];
    let today = ctx.world.clock().now().wall;
    for target in [&folders.sent, &folders.failed, &folders.held] {
        all.extend(of_today(target, inbox, today).into_iter().map(|folder| (Role::Target, folder)));
    }
    let mut seen = Vec::with_capacity(all.len());
    for (role, folder) in all {
        match disk.inspect(Arc::clone(&folder)).await? {
            Some(now) => {
                look_at(ctx, role, &folder, now)?;
                seen.push((folder, now));
            }
            None if role == Role::Inbox => {
                return Err(FolderError::Gone { path: folder.to_path_buf() });
            }
            // It is made when it is needed.
            None => {}
        }
    }
    stand_above(ctx, &folders.inbox).await?;
    for target in [&folders.sent, &folders.failed, &folders.held] {
        if undated(target) != *target {
            let past = PAST_DAYS.flat_map(|days| of_today(target, inbox, today.minus(DAY * days)));
            past.for_each(|folder| disk.unpin(&folder));
        }
    }
    for (folder, now) in seen {
        disk.pin(&folder, now);
    }
    Ok(())
}

/// A target folder; one with a date in its path as it is called today, after those that it lies in
/// as far as their paths have the date in them.
fn of_today(target: &Arc<Path>, inbox: &Path, today: Wall) -> Vec<Arc<Path>> {
    let undated = undated(target);
    if undated == *target {
        return vec![undated];
    }
    let folder = settle::dated(target, today);
    let mut folders: Vec<Arc<Path>> =
        folder.ancestors().take_while(|path| **path != *undated).map(Arc::from).collect();
    // What lies in the drop folder was made for this route alone.
    if undated.starts_with(inbox) && *undated != *inbox {
        folders.push(undated);
    }
    folders.reverse();
    folders
}

/// Looks at what a drop folder lies in, and at the root.
async fn stand_above<W: World>(ctx: &Context<W>, inbox: &Path) -> Result<(), FolderError> {
    let disk = ctx.world.disk();
    let root = ctx.root.as_deref().filter(|root| *root != inbox && inbox.starts_with(root));
    if let Some(root) = root
        && let Some(now) = disk.inspect(Arc::from(root)).await?
    {
        may_work_in(Role::Root, &now, ctx.account).map_err(|why| unfit(root, &why))?;
    }
    let Some(above) = inbox.parent().filter(|above| Some(*above) != root) else { return Ok(()) };
    let mut seen = disk.inspect(Arc::from(above)).await?;
    if seen.is_some_and(|now| now.kind == Kind::Link) {
        // Owner and mode of a link mean nothing; those of the folder that it leads to do.
        seen = disk.inspect(Arc::from(above.join("."))).await?;
    }
    let judged = seen.map_or(Ok(()), |now| may_work_in(Role::AboveInbox, &now, ctx.account));
    judged.map_err(|why| unfit(above, &why))
}

/// Before a folder is listed: whether it is as it must be, and ours. Which one it is now; `before`
/// is the one that was listed last.
pub(super) async fn before_listing<W: World>(
    ctx: &Context<W>,
    folder: &Arc<Path>,
    before: Option<FolderSeen>,
    routes: &[Arc<Equipped>],
) -> Result<Option<FolderSeen>, SweepFault> {
    let now = ctx.world.disk().inspect(Arc::clone(folder)).await?;
    for equipped in routes {
        stand(ctx, &equipped.route).await?;
    }
    let Some(seen) = now else {
        return Err(FolderError::Gone { path: folder.to_path_buf() }.into());
    };
    if routes.is_empty() {
        may_work_in(Role::Root, &seen, Account { allows_root: true, ..ctx.account })
            .map_err(|why| unfit(folder, &why))?;
    }
    // The mark of another folder may not be ours, or nobody's.
    let is_another = before.is_some_and(|before| is_another(&before, &seen));
    ctx.world.ledger().admit(folder, is_another).await?;
    Ok(now)
}

/// `sending/` is not made while so many files on record should lie in it: where it is not there,
/// its volume may not be, and an empty one in its place would say that they are missing.
pub(super) async fn keeps_claims<W: World>(
    ctx: &Context<W>,
    route: &Route,
    claimed: usize,
) -> Result<(), FolderError> {
    let sending = &route.folders.sending;
    if claimed == 0 || ctx.world.disk().inspect(Arc::clone(sending)).await?.is_some() {
        return Ok(());
    }
    Err(unfit(sending, &Unfit::Lost { files: claimed }))
}

fn look_at<W: World>(
    ctx: &Context<W>,
    role: Role,
    folder: &Path,
    now: FolderSeen,
) -> Result<(), FolderError> {
    let before = ctx.world.disk().pinned(folder);
    let still = before.map_or(Ok(()), |before| is_still(role, &before, &now));
    still.and_then(|()| may_work_in(role, &now, ctx.account)).map_err(|why| unfit(folder, &why))
}

fn unfit(folder: &Path, why: &impl ToString) -> FolderError {
    FolderError::Unfit { path: folder.to_owned(), why: why.to_string() }
}
