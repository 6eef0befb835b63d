//! What systemd is to know of an instance, as text: the units that every instance shares, and the
//! one file that the config of an instance asks for.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{Installation, Instance, ServiceError};

/// The unit of the instance without a name.
const ALONE: &str = include_str!("../../../packaging/linux/patchdrop.service");
/// The unit of all that have one.
const TEMPLATE: &str = include_str!("../../../packaging/linux/patchdrop@.service");

/// Where the units expect the program, the configs and the state.
const PROGRAM: &str = "/usr/bin/patchdrop";
const CONFIGS: &str = "/etc/patchdrop";
const STATES: &str = "/var/lib";
/// The account of the units.
pub(super) const ACCOUNT: &str = "patchdrop";

/// `TimeoutStopSec` of the units, and what a stop needs beside the drain.
const STOPS_WITHIN: Duration = Duration::from_mins(2);
const STOP_RESERVE: Duration = Duration::from_secs(30);

/// What `ProtectHome=true` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// What `PrivateTmp=true` has another one of.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The file that a package would have brought, with its name.
pub(super) fn unit(instance: &Instance) -> (&'static str, &'static str) {
    match instance.name() {
        None => ("patchdrop.service", ALONE),
        Some(_) => ("patchdrop@.service", TEMPLATE),
    }
}

/// What systemd calls the instance.
pub(super) fn service(instance: &Instance) -> String {
    match instance.name() {
        None => "patchdrop.service".to_owned(),
        Some(name) => format!("patchdrop@{name}.service"),
    }
}

/// The folder that systemd makes for the state of the instance.
pub(super) fn state_dir(instance: &Instance) -> PathBuf {
    Path::new(STATES).join(match instance.name() {
        None => "patchdrop".to_owned(),
        Some(name) => format!("patchdrop-{name}"),
    })
}

fn config(instance: &Instance) -> PathBuf {
    Path::new(CONFIGS).join(format!("{}.toml", instance.name().unwrap_or("config")))
}

/// Everything that the service writes beside the folder that systemd makes for it.
pub(super) fn writes(installation: &Installation) -> Vec<PathBuf> {
    let own = state_dir(&installation.instance);
    let others = installation.writes.iter().filter(|tree| !tree.starts_with(&own));
    let state = Some(&installation.state_dir).filter(|state| {
        !state.starts_with(&own) && !installation.writes.iter().any(|tree| state.starts_with(tree))
    });
    others.chain(state).cloned().collect()
}

/// The settings that this instance needs beside the unit's: `group` is that of `account`, both
/// `None` for the unit's own.
pub(super) fn drop_in(
    installation: &Installation,
    group: Option<&str>,
) -> Result<String, ServiceError> {
    let writes = writes(installation);
    let mut text = String::from(
        "# Written by `patchdrop service install`, which writes it anew each time. Settings of your\n\
         # own belong into another file beside this one.\n[Service]\n",
    );
    let mut put = |line: String| writeln!(text, "{line}").unwrap_or_default();
    let reads = [&installation.config, &installation.program];
    for path in writes.iter().chain(reads) {
        if let Some(within) = TEMPORARY.iter().find(|within| path.starts_with(within)) {
            return Err(ServiceError::Unfit {
                what: format!(
                    "{} lies in {within}, and the service has a {within} of its own",
                    path.display()
                ),
                hint: "move it to a folder that stays: drop folders to /srv/patchdrop, the config \
                       to /etc/patchdrop, the program to /usr/local/bin"
                    .to_owned(),
            });
        }
    }
    if !writes.is_empty() {
        put("# What it may write beside its state. Each entry is a mount of its own, and no file can\n\
             # be renamed from one to another."
            .to_owned());
    }
    for tree in &writes {
        put(format!("ReadWritePaths={}", quoted(tree)?));
    }
    let is_home = |path: &&PathBuf| HOMES.iter().any(|home| path.starts_with(home));
    if writes.iter().chain(reads).any(|path| is_home(&path)) {
        put("# What it needs lies where people have their homes.".to_owned());
        put("ProtectHome=read-only".to_owned());
    }
    if let (Some(account), Some(group)) = (&installation.account, group) {
        put(format!("User={account}\nGroup={group}"));
    }
    let stops_within = installation.drain.saturating_add(STOP_RESERVE);
    if stops_within > STOPS_WITHIN {
        put(format!(
            "# `drain_for` and some time to write things down.\nTimeoutStopSec={}s",
            stops_within.as_secs()
        ));
    }
    let usual = config(&installation.instance);
    if installation.config != usual || installation.program != Path::new(PROGRAM) {
        let program = quoted(&installation.program)?;
        let config = quoted(&installation.config)?.replace('$', "$$");
        put(format!("ExecStart=\nExecStart={program} --config {config} run"));
    }
    Ok(text)
}

/// A path as systemd reads it as one word.
fn quoted(path: &Path) -> Result<String, ServiceError> {
    let unfit = |why: &str| ServiceError::Unfit {
        what: format!("{} cannot be written into a unit: {why}", path.display()),
        hint: "rename that folder".to_owned(),
    };
    let text = path.to_str().ok_or_else(|| unfit("it is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(unfit("it holds control characters"));
    }
    let text = text.replace('%', "%%");
    if text.contains([' ', '"', '\'', '\\']) {
        return Ok(format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")));
    }
    Ok(text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn installation(name: Option<&str>) -> Installation {
        let instance = Instance::of(name).unwrap();
        Installation {
            config: config(&instance),
            program: PROGRAM.into(),
            account: None,
            password: None,
            state_dir: state_dir(&instance),
            closes: Vec::new(),
            writes: vec!["/srv/patchdrop".into()],
            drain: Duration::from_secs(90),
            instance,
        }
    }

    /// The settings without comments, below `[Service]`.
    fn settings(installation: &Installation, group: Option<&str>) -> Vec<String> {
        let text = drop_in(installation, group).unwrap();
        let (head, settings) = text.split_once("\n[Service]\n").unwrap();
        assert!(head.lines().all(|line| line.starts_with('#')), "{text}");
        settings.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn the_units_differ_in_what_an_instance_has_of_its_own_and_in_nothing_else() {
        let own = TEMPLATE
            .replace("%i.toml", "config.toml")
            .replace("patchdrop-%i", "patchdrop")
            .replace("patchdrop (%i)", "patchdrop")
            .replace("patchdrop@NAME", "patchdrop");
        let without_head = |text: &str| text.split_once("#\n").unwrap().1.to_owned();
        assert_eq!(without_head(&own), without_head(ALONE));
        assert_eq!(TEMPLATE.matches("%i").count(), 3);
    }

    #[test]
    fn one_root_is_one_entry() {
        for name in [None, Some("shop7")] {
            assert_eq!(settings(&installation(name), None), ["ReadWritePaths=/srv/patchdrop"]);
        }
    }

    #[test]
    fn what_lies_elsewhere_is_said_to_systemd() {
        let moved = Installation {
            config: "/opt/erp 5/100%$.toml".into(),
            program: "/usr/local/bin/patchdrop".into(),
            account: Some("erp".to_owned()),
            state_dir: "/opt/state".into(),
            writes: vec!["/srv/a b".into(), Path::new(HOMES[0]).join("erp")],
            drain: Duration::from_mins(10),
            ..installation(None)
        };
        assert_eq!(
            settings(&moved, Some("staff")),
            [
                "ReadWritePaths=\"/srv/a b\"",
                &format!("ReadWritePaths={}/erp", HOMES[0]),
                "ReadWritePaths=/opt/state",
                "ProtectHome=read-only",
                "User=erp",
                "Group=staff",
                "TimeoutStopSec=630s",
                "ExecStart=",
                "ExecStart=/usr/local/bin/patchdrop --config \"/opt/erp 5/100%%$$.toml\" run",
            ]
        );
    }

    #[test]
    fn a_state_within_another_entry_or_in_its_usual_place_is_no_entry() {
        let check = |name: Option<&str>, state: &str, entries: usize| {
            let installation = Installation { state_dir: state.into(), ..installation(name) };
            assert_eq!(writes(&installation).len(), entries, "{name:?} {state}");
        };
        check(None, "/var/lib/patchdrop", 1);
        check(None, "/var/lib/patchdrop/deeper", 1);
        check(None, "/srv/patchdrop/.state", 1);
        check(None, "/var/lib/patchdrop-shop7", 2);
        check(Some("shop7"), "/var/lib/patchdrop-shop7", 1);
        check(Some("shop7"), "/var/lib/patchdrop", 2);
    }

    #[test]
    fn what_the_service_cannot_see_or_a_unit_cannot_say_is_refused() {
        let check = |tree: &str, complaint: &str| {
            let installation = Installation { writes: vec![tree.into()], ..installation(None) };
            let error = drop_in(&installation, None).unwrap_err().to_string();
            assert!(error.contains(complaint), "{tree}: {error}");
        };
        check("/tmp/drop", "lies in /tmp");
        check("/var/tmp/drop", "lies in /var/tmp");
        check("/srv/a\nExecStart=/bin/sh", "control characters");
    }
}
