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

/// Where the service keeps its state that runs beside a config that has been broken since: it goes
/// on with the one that it has, and can be asked.
///
/// # Errors
/// That the config is broken, where it does not say so much.
pub(super) fn state_dir_in_spite_of(
    globals: &Globals,
    broken: Failure,
) -> Result<(PathBuf, Failure), Failure> {
    match config::state_dir_in(&globals.config_path(), &LoadOptions::default()) {
        Ok(Some(state_dir)) => Ok((state_dir, broken)),
        Ok(None) => Err(broken.hint(NOT_FOUND)),
        // That is what is broken.
        Err(_) => Err(broken),
    }
}

/// What to do where a broken config does not say where the service is.
pub(super) const NOT_FOUND: &str = "where the running service is cannot be made out: state_dir \
     stands in what is not understood; mend that line, or name an older copy of the file: --config \
     COPY";

/// What is said of a service that runs beside a config that has been broken since.
pub(super) fn goes_on_without(globals: &Globals, broken: &Failure) -> String {
    format!(
        "{}, and the service goes on with the last good one until it ends; it could not start \
         again: patchdrop{} check",
        broken.error,
        globals.flag()
    )
}

/// Asks the service that runs beside a config that has been broken since.
///
/// # Errors
/// That the config is broken, if no service runs there, or the config does not say where that is;
/// or that the service does not answer.
pub(super) async fn ask_in_spite_of(
    globals: &Globals,
    broken: Failure,
    command: &Command,
) -> Result<CommandAnswer, Failure> {
    let (state_dir, broken) = state_dir_in_spite_of(globals, broken)?;
    match control::ask(&state_dir, command).await {
        Err(ControlError::NoService { .. }) => Err(broken),
        Err(error) => {
            let mut failure = Failure::from(error);
            failure.hints.push(format!("{}, too", broken.error));
            Err(failure)
        }
        Ok(answer) => Ok(answer),
    }
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
