//! Whether a route's folders are those that they were, and nobody else's: looked at when a route
//! is made ready, before each sweep, and before a folder is made again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::carry::Context;
use super::folders::undated;
use crate::journey::grounds::{Role, Unfit, is_still, may_work_in};
use crate::journey::settle;
use crate::model::route::Route;
use crate::model::time::Wall;
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::folder::{Disk, FolderError};

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
    if let Some(above) = folders.inbox.parent()
        && let Some(now) = disk.inspect(Arc::from(above)).await?
    {
        let judged = may_work_in(Role::AboveInbox, &now, ctx.account);
        judged.map_err(|why| unfit(above, &why))?;
    }
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
    now: crate::model::file::FolderSeen,
) -> Result<(), FolderError> {
    let before = ctx.world.disk().pinned(folder);
    let still = before.map_or(Ok(()), |before| is_still(role, &before, &now));
    still.and_then(|()| may_work_in(role, &now, ctx.account)).map_err(|why| unfit(folder, &why))
}

fn unfit(folder: &Path, why: &impl ToString) -> FolderError {
    FolderError::Unfit { path: folder.to_owned(), why: why.to_string() }
}
