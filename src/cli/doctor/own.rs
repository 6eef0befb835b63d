//! What patchdrop keeps for itself, in `state_dir` and as marks in roots: is all of it the
//! service's, and nobody else's to read or write?
#![expect(clippy::disallowed_methods, reason = "files of ours are looked at")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::account::{Judged, Rights};
use crate::cli::findings::{Finding, Level};
use crate::cli::records::{self, Records};
use crate::config::Config;
use crate::model::quoted::quoted;
use crate::world::instance::{Whose, mark_in};

const OTHERS: u32 = 0o077;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// Those in `state_dir` by name; folders with all that is in them. Secrets are looked at for
/// themselves.
const IN_STATE_DIR: [&str; 6] =
    ["lock", "lock.owner", "begun", "ledger", "tokens", crate::world::control::SOCKET_NAME];
/// These hold what others may not even read.
const PRIVATE: [&str; 3] = ["ledger", "tokens", crate::world::control::SOCKET_NAME];

/// One finding for all that is wrong in a place, and none where all is well.
pub(super) fn findings(config: &Config, marked: &[Arc<Path>], judged: &Judged) -> Vec<Finding> {
    let state_dir = &*config.state_dir;
    let all: Vec<PathBuf> =
        IN_STATE_DIR.iter().flat_map(|name| with_content(&state_dir.join(name))).collect();
    let private = |path: &Path| PRIVATE.iter().any(|name| path.starts_with(state_dir.join(name)));
    let open =
        |path: &Path, bits: u32| Rights::of_itself(path).is_some_and(|it| it.mode & bits != 0);
    let mut findings = Vec::new();
    findings.extend(foreign("state_dir", state_dir, &all, judged));
    let exposed = all.iter().filter(|path| private(path) && open(path, OTHERS));
    findings.extend(opened("state_dir", exposed, "go="));
    let records = records::open_ledger(config).ok();
    for root in marked {
        findings.extend(records.as_ref().and_then(|records| of_another(root, records)));
        let own = root.join(".patchdrop");
        let mark = with_content(&own);
        findings.extend(foreign("root", &own, &mark, judged));
        let exposed = mark.iter().filter(|path| open(path, GROUP_OR_OTHERS_WRITE));
        findings.extend(opened("root", exposed, "go-w"));
    }
    findings
}

/// A root whose mark would keep the service from starting, or from sending.
fn of_another(root: &Path, records: &impl Records) -> Option<Finding> {
    let mark = mark_in(root).ok()?;
    let whose = records.whose(root, mark.as_ref()).ok()?;
    let shown = root.display();
    let said = mark.map_or_else(String::new, |mark| format!(": {mark}"));
    let adopt = "once that one has ended for good: patchdrop adopt --yes";
    let (text, remedy) = match whose {
        Whose::Ours | Whose::Nobodys | Whose::Lost => return None,
        Whose::Anothers => (format!("{shown} belongs to another patchdrop{said}"), adopt),
        Whose::Elsewhere => {
            (format!("{shown} is in use by another copy of this patchdrop{said}"), adopt)
        }
        Whose::Unmarked => (
            format!("the mark of patchdrop in {shown} is gone"),
            "see whether its volume is mounted; if the folder was made anew: patchdrop adopt --yes",
        ),
        Whose::Later => (
            format!("{shown} knows of a later ledger than this one, which is an older copy{said}"),
            "compare sent/ with the receiver, then patchdrop resume each route",
        ),
    };
    // Where the folder is the one that held it, the next start writes it again.
    let level = if whose == Whose::Unmarked { Level::Warning } else { Level::Refused };
    Some(Finding::new(level, "root", text, remedy))
}

/// A file, or a folder and what is in it; nothing where it is not there.
fn with_content(path: &Path) -> Vec<PathBuf> {
    if Rights::of_itself(path).is_none() {
        return Vec::new();
    }
    let within = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    [path.to_owned()].into_iter().chain(within).collect()
}

/// What another account has made there, most often root by a command. Root itself may do all.
fn foreign(subject: &str, below: &Path, all: &[PathBuf], judged: &Judged) -> Option<Finding> {
    let of = |path: &PathBuf| Some((path.clone(), Rights::of_itself(path)?.owner));
    let mut theirs = all
        .iter()
        .filter_map(of)
        .filter(|(_, owner)| judged.number != 0 && *owner != judged.number);
    let (path, owner) = theirs.next()?;
    let more = match theirs.count() {
        0 => String::new(),
        more => format!(", and {more} more there"),
    };
    let text = format!(
        "{} belongs to account {owner} and not to {}, who cannot write it{more}",
        path.display(),
        judged.name
    );
    let remedy = format!("chown -R {} {}", judged.name, quoted(below));
    Some(Finding::new(Level::Refused, subject, text, remedy))
}

/// What is open to others, who `state_dir` alone keeps out as long as it is closed.
fn opened<'p>(
    subject: &str,
    exposed: impl Iterator<Item = &'p PathBuf>,
    takes: &str,
) -> Option<Finding> {
    let exposed: Vec<&PathBuf> = exposed.collect();
    let first = exposed.first()?;
    let mode = Rights::of_itself(first).map_or(0, |it| it.mode);
    let words: Vec<String> = exposed.iter().map(quoted).collect();
    let text = format!("{} is open to other accounts (mode {mode:04o})", first.display());
    let remedy = format!("chmod {takes} {}", words.join(" "));
    Some(Finding::new(Level::Warning, subject, text, remedy))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::fixture;

    #[test]
    fn what_is_not_the_services_or_open_to_others_stands_with_the_command_that_mends_it() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let me = rustix::process::geteuid().as_raw();
        let at = |name: &str| config.state_dir.join(name);
        let marked: [Arc<Path>; 1] = [Arc::from(root.path())];
        for folder in [at("ledger"), at("tokens"), root.path().join(".patchdrop")] {
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
        }
        let files = [at("lock"), at("ledger/ledger.db"), root.path().join(".patchdrop/owner.json")];
        for file in &files {
            fs::write(file, "").unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
        }
        let check = |judged: &Judged, expected: &[(Level, &str, &str)]| {
            let found = findings(&config, &marked, judged);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, (level, text, remedy)) in found.iter().zip(expected) {
                assert_eq!(found.level, *level, "{found:?}");
                assert!(found.text.contains(text), "{found:?}");
                assert!(found.remedy.starts_with(remedy), "{found:?}");
            }
        };
        let own = Judged::own(me);
        check(&own, &[]);
        let mode =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(&files[0], 0o644);
        check(&own, &[]);
        mode(&files[1], 0o640);
        check(&own, &[(Level::Warning, "ledger.db is open", "chmod go= ")]);
        mode(&files[1], 0o600);
        mode(&files[2], 0o664);
        check(&own, &[(Level::Warning, "owner.json is open", "chmod go-w ")]);
        mode(&files[2], 0o644);
        let service = Judged::other(4_711, vec![]);
        check(
            &service,
            &[
                (Level::Refused, "lock belongs to account", "chown -R 4711 "),
                (Level::Refused, ".patchdrop belongs to account", "chown -R 4711 "),
            ],
        );
        check(&Judged::other(0, vec![]), &[]);
    }
}
