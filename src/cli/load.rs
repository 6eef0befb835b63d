//! The config for a command: loaded, checked, and every route that it makes now.
#![expect(clippy::disallowed_methods, reason = "folders that become routes are listed here")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Globals;
use super::failure::{Failure, Kind};
use super::secret;
use crate::config::{self, Config, ConfigFaults, LoadOptions, NotARoute, Shelf, Store};
use crate::model::command::{Command, CommandAnswer};
use crate::model::route::Route;
use crate::model::status::Status;
use crate::world::control::{self, ControlError};

/// Whether a command needs the secrets that the config names. They are often in the service's
/// environment only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    /// It sends, or says whether sending would work.
    Needed,
    /// It sends nothing.
    MayBeMissing,
}

/// Loads and checks a config; relative paths are relative to `base`, else to the file's folder.
pub(super) fn load_config(
    path: &Path,
    base: Option<&Path>,
    secrets: Secrets,
) -> Result<Config, Failure> {
    let options = LoadOptions {
        base: base.map(Path::to_owned),
        secrets_may_be_missing: secrets == Secrets::MayBeMissing,
        store: Store::Opened(secret::look_up),
        ..LoadOptions::default()
    };
    config::load(path, &options).map_err(unusable)
}

/// What a config says about stored secrets, whatever else is wrong with it.
pub(super) fn shelf(path: &Path) -> Result<Shelf, Failure> {
    config::shelf(path, &LoadOptions::default()).map_err(unusable)
}

/// Asks the service that runs beside a config that has been broken since: it goes on with the one
/// that it has.
///
/// # Errors
/// That the config is broken, if no service runs there, or the config does not say where that is.
pub(super) async fn ask_in_spite_of(
    path: &Path,
    broken: Failure,
    command: &Command,
) -> Result<CommandAnswer, Failure> {
    let Some(state_dir) = config::state_dir_in(path, &LoadOptions::default()) else {
        return Err(broken.hint(
            "where the running service is cannot be made out: state_dir stands in what is not \
             understood; mend that line, or name an older copy of the file: --config COPY",
        ));
    };
    match control::ask(&state_dir, command).await {
        Err(ControlError::NoService { .. }) => Err(broken),
        answered => Ok(answered?),
    }
}

/// What the service that runs says of itself beside a config that has been broken since.
///
/// # Errors
/// As for [`ask_in_spite_of`].
pub(super) async fn status_in_spite_of(
    globals: &Globals,
    broken: Failure,
) -> Result<Status, Failure> {
    let why = broken.error.to_string();
    let path = globals.config_path();
    let answer = ask_in_spite_of(&path, broken, &Command::Status).await?;
    let CommandAnswer::Status(status) = answer else {
        let what = format!("{why}, and the service answered something else than its status");
        return Err(Failure::new(Kind::Bug, what));
    };
    let text = format!(
        "{why}, and the service goes on with the last good one until it ends; it could not start \
         again: patchdrop{} check",
        globals.flag()
    );
    let mut status = *status;
    status.alerts.push(text);
    Ok(status)
}

fn unusable(faults: ConfigFaults) -> Failure {
    let text = format!("{} cannot be used", faults.path.display());
    Failure::new(Kind::Config, text)
        .notices(faults.notices)
        .hint("nothing was touched; examples/config.toml explains every key")
}

/// Every route, those discovered among the folders of now included, by name.
pub(super) fn routes(config: &Config) -> Vec<Arc<Route>> {
    let mut routes = config.routes.clone();
    for discovery in &config.discoveries {
        let names = folders_in(&discovery.parent).into_iter();
        let found = names.filter_map(|name| discovery.route_of(&name).ok());
        routes.extend(found.filter(|route| route.folders.inbox.is_dir()));
    }
    routes.sort_by(|one, other| one.name.cmp(&other.name));
    routes
}

/// Folders that a person would expect to be routes and are none, each with why.
pub(super) fn not_routes(config: &Config) -> Vec<(PathBuf, NotARoute)> {
    let mut found = Vec::new();
    for discovery in &config.discoveries {
        for name in folders_in(&discovery.parent) {
            let why = discovery.route_of(&name).err().filter(NotARoute::is_news);
            found.extend(why.map(|why| (discovery.parent.join(&name), why)));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// The names of the folders in a parent. One that cannot be listed has none now; the service says
/// so.
fn folders_in(parent: &Path) -> Vec<String> {
    let Ok(found) = fs::read_dir(parent) else { return Vec::new() };
    let folders = found.flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
    folders.filter_map(|folder| folder.file_name().into_string().ok()).collect()
}
