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

/// Looks at a route's folders as far as they are there, and at what they lie in, and pins each:
/// from then on no operation works in another one under its path. What the drop folder is now.
pub(super) async fn stand<W: World>(
    ctx: &Context<W>,
    route: &Route,
) -> Result<FolderSeen, FolderError> {
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
    let above = what_it_lies_in(ctx, inbox);
    let asked = all.iter().chain(&above).map(|(_, folder)| Arc::clone(folder)).collect();
    let seen = disk.inspect_all(asked).await?;
    let Some(Some(inbox_now)) = seen.first().copied() else {
        return Err(FolderError::Gone { path: inbox.to_path_buf() });
    };
    let (own, around) = seen.split_at(all.len());
    // What is not there is made when it is needed.
    let is_there = |(it, now): (&(Role, Arc<Path>), &Option<FolderSeen>)| {
        now.map(|now| (it.0, Arc::clone(&it.1), now))
    };
    let own: Vec<_> = all.iter().zip(own).filter_map(is_there).collect();
    for (role, folder, now) in &own {
        look_at(ctx, *role, folder, *now)?;
    }
    for (role, folder, mut now) in above.iter().zip(around).filter_map(is_there) {
        // Owner and mode of a link mean nothing; those of the folder that it leads to do.
        if role == Role::AboveInbox && now.kind == Kind::Link {
            let Some(behind) = disk.inspect(Arc::from(folder.join("."))).await? else { continue };
            now = behind;
        }
        may_work_in(role, &now, ctx.account).map_err(|why| unfit(&folder, &why))?;
    }
    for target in [&folders.sent, &folders.failed, &folders.held] {
        if undated(target) != *target {
            let past = PAST_DAYS.flat_map(|days| of_today(target, inbox, today.minus(DAY * days)));
            past.for_each(|folder| disk.unpin(&folder));
        }
    }
    for (_, folder, now) in &own {
        disk.pin(folder, *now);
    }
    Ok(inbox_now)
}

/// What a drop folder lies in: the root, and the folder above it where that is another one.
fn what_it_lies_in<W: World>(ctx: &Context<W>, inbox: &Path) -> Vec<(Role, Arc<Path>)> {
    let root = ctx.root.as_ref().filter(|root| ***root != *inbox && inbox.starts_with(root));
    let above = inbox.parent().filter(|above| root.is_none_or(|root| **root != **above));
    let root = root.map(|root| (Role::Root, Arc::clone(root)));
    root.into_iter().chain(above.map(|above| (Role::AboveInbox, Arc::from(above)))).collect()
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

/// Before a folder is listed: whether it is as it must be, and ours. Which one it is now; `before`
/// is the one that was listed last.
pub(super) async fn before_listing<W: World>(
    ctx: &Context<W>,
    folder: &Arc<Path>,
    before: Option<FolderSeen>,
    routes: &[Arc<Equipped>],
) -> Result<Option<FolderSeen>, SweepFault> {
    let mut now = None;
    for equipped in routes {
        now = Some(stand(ctx, &equipped.route).await?);
    }
    let seen = match now {
        Some(seen) => seen,
        None => parent(ctx, folder).await?,
    };
    // The mark of another folder may not be ours, or nobody's.
    let is_another = before.is_some_and(|before| is_another(&before, &seen));
    ctx.world.ledger().admit(folder, is_another).await?;
    Ok(Some(seen))
}

/// A folder that is listed for its subfolders alone.
async fn parent<W: World>(ctx: &Context<W>, folder: &Arc<Path>) -> Result<FolderSeen, FolderError> {
    let Some(seen) = ctx.world.disk().inspect(Arc::clone(folder)).await? else {
        return Err(FolderError::Gone { path: folder.to_path_buf() });
    };
    may_work_in(Role::Root, &seen, Account { allows_root: true, ..ctx.account })
        .map_err(|why| unfit(folder, &why))?;
    Ok(seen)
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
