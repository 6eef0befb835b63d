//! Folders that become routes as they appear: `auto_routes` and `{vanity}`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::address::{VANITY_FORM, is_vanity};
use super::folders::Shape;
use super::rules::Rules;
use super::territory::Taken;
use super::{Discovery, Notice};
use crate::model::route::Route;

/// What a discovered route is made of.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(super) rules: Rules,
    /// What is wrong with the rules' surroundings: no route then.
    pub(super) broken: Option<Notice>,
    /// The folder whose subfolders are looked at, as the disk sees it.
    pub(super) parent: Shape,
    /// Folders of others.
    pub(super) taken: Vec<Taken>,
    /// Names of routes that have a table.
    pub(super) names: BTreeSet<String>,
}

/// Why a folder is not a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotARoute {
    /// Stable code: `hidden-folder`, `system-folder`, `reserved-name`, `no-vanity`, `name-taken`,
    /// `folder-taken`, `route-broken`.
    pub code: &'static str,
    /// One sentence for an administrator, without full stop.
    pub text: String,
}

impl NotARoute {
    /// Whether a person would expect a route there: not of a hidden or system folder, nor where
    /// another rule explains it already.
    #[must_use]
    pub fn is_news(&self) -> bool {
        !matches!(self.code, "hidden-folder" | "system-folder" | "folder-taken" | "name-taken")
    }
}

/// Folders that systems put into others.
const SYSTEM: [&str; 9] = [
    "$recycle.bin",
    "system volume information",
    "recycler",
    "lost+found",
    "#recycle",
    "#snapshot",
    "@eadir",
    "@recycle",
    "~snapshot",
];

/// What patchdrop itself puts beside dropped files.
const RESERVED: [&str; 4] = ["sending", "held", "sent", "failed"];

impl Discovery {
    /// The route of a subfolder of `parent` with this name, or why it is none. Asks the disk
    /// nothing.
    pub fn route_of(&self, folder_name: &str) -> Result<Arc<Route>, NotARoute> {
        let not = |code, text: String| Err(NotARoute { code, text });
        let lower = folder_name.to_lowercase();
        if folder_name.starts_with('.') {
            return not("hidden-folder", format!("{folder_name} is a hidden folder"));
        }
        if SYSTEM.contains(&lower.as_str()) {
            return not("system-folder", format!("{folder_name} belongs to the system"));
        }
        if RESERVED.contains(&lower.as_str()) {
            return not(
                "reserved-name",
                format!("{folder_name} is a name that patchdrop uses inside each route's folder"),
            );
        }
        if !is_vanity(&lower) {
            return not(
                "no-vanity",
                format!(
                    "{folder_name:?} is no vanity name ({VANITY_FORM}); rename the folder, or \
                     write a [route.NAME] with folder and vanity for it"
                ),
            );
        }
        let name = match &self.name {
            Some(table) => format!("{table}.{folder_name}"),
            None => folder_name.to_owned(),
        };
        if self.template.names.contains(&name) {
            return not("name-taken", format!("[route.{name}] names another folder"));
        }
        let here = self.template.parent.below(Path::new(folder_name));
        let inbox_shape = here.below(&self.suffix);
        let other = self
            .template
            .taken
            .iter()
            .find(|other| inbox_shape.holds(&other.shape) || other.shape.holds(&inbox_shape));
        if let Some(other) = other {
            return not(
                "folder-taken",
                format!("{folder_name} is, holds or lies inside a folder of {}", other.label),
            );
        }
        if let Some(broken) = &self.template.broken {
            return not("route-broken", format!("{}: {}", broken.key, broken.text));
        }
        let inbox = if self.suffix.as_os_str().is_empty() {
            self.parent.join(folder_name)
        } else {
            self.parent.join(folder_name).join(&self.suffix)
        };
        Ok(Arc::new(self.template.rules.route(&name, &inbox, &lower)))
    }
}
