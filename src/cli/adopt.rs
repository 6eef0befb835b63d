//! `patchdrop adopt`: takes roots over that bear another mark, or none any more. On purpose, by a
//! person, with the service stopped (promise P3: two services never send the same files).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use serde::Serialize;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::load::Secrets;
use super::screen::Screen;
use super::serve;
use crate::config::Config;
use crate::daemon::chain;
use crate::model::durability::Durability;
use crate::world::instance::{MarkError, MarkFinding};

/// Take over roots that another patchdrop has marked, or whose mark is gone
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Two patchdrops on one root would send every file twice, so each root bears the mark of one.\n\
    Without --yes it only says whose roots these are. The other patchdrop must have ended for good;\n\
    what it left in sending/ is held at the next start (patchdrop list --state held).\n\n\
    Example:\n  \
    patchdrop adopt --yes /srv/patchdrop"
)]
pub(super) struct Arguments {
    /// Only these roots [default: root and every absolute folder of the config]
    folders: Vec<PathBuf>,
    /// Do it: the other patchdrop has ended for good
    #[arg(long)]
    yes: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What the mark of one root says. Names are part of the interface.
#[derive(Debug, Serialize)]
struct Line {
    folder: String,
    /// `ours`, `none`, `foreign`, `elsewhere`, `lost`, `behind`, `gone`, `unreadable`,
    /// `unreachable`.
    mark: &'static str,
    text: String,
    adopted: bool,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let config = globals.load(Secrets::MayBeMissing)?;
    let folders = chosen(&config, &arguments.folders)?;
    let (lock, opened) =
        serve::open(&config, &Arc::new(AtomicUsize::new(0)), Durability::PowerLoss)?;
    let found = opened.ledger.look_at_marks(folders.clone()).await?;
    let mut lines: Vec<Line> =
        folders.iter().zip(&found).map(|(folder, found)| line(folder, found)).collect();
    let to_adopt: Vec<Arc<Path>> = folders
        .into_iter()
        .zip(&lines)
        .filter(|(_, line)| is_adopted(line.mark))
        .map(|(folder, _)| folder)
        .collect();
    let is_done = arguments.yes || to_adopt.is_empty();
    if arguments.yes && !to_adopt.is_empty() {
        opened.ledger.adopt(to_adopt).await.map_err(serve::no_mark)?;
        for line in &mut lines {
            line.adopted = is_adopted(line.mark);
        }
    }
    opened.ledger.close();
    lock.release();
    show(&lines, is_done, arguments.json, screen)?;
    let is_reached = lines.iter().all(|line| line.mark != "unreachable");
    Ok(if is_done && is_reached { Exit::Done } else { Exit::SomeFailed })
}

/// The roots of the config, or those of them that were named.
fn chosen(config: &Config, named: &[PathBuf]) -> Result<Vec<Arc<Path>>, Failure> {
    let all = serve::marked_folders(config);
    for name in named {
        if !all.iter().any(|folder| **folder == **name) {
            let roots: Vec<String> = all.iter().map(|it| it.display().to_string()).collect();
            return Err(Failure::usage(format!("{} is no root of this config", name.display()))
                .hint(format!("there are: {}", roots.join(", "))));
        }
    }
    Ok(all
        .into_iter()
        .filter(|folder| named.is_empty() || named.iter().any(|name| **name == **folder))
        .collect())
}

/// Whether such a root is taken over. Those that are ours, or that the next start marks by itself,
/// need nobody.
fn is_adopted(mark: &str) -> bool {
    matches!(mark, "foreign" | "elsewhere" | "gone" | "unreadable")
}

fn line(folder: &Path, found: &Result<MarkFinding, MarkError>) -> Line {
    let (mark, text) = match found {
        Ok(MarkFinding::Ours { .. }) => ("ours", "is ours".to_owned()),
        Ok(MarkFinding::New { .. }) => {
            ("none", "bears no mark; the next start marks it".to_owned())
        }
        Ok(MarkFinding::Restored { .. }) => {
            ("ours", "is ours; its mark was lost, and the next start writes it again".to_owned())
        }
        Ok(MarkFinding::Lost { mark, .. }) => {
            ("lost", format!("was marked by our own lost ledger; the next start goes on: {mark}"))
        }
        Ok(MarkFinding::Behind { mark, .. }) => {
            ("behind", format!("is ours, and knows of a later copy of our ledger: {mark}"))
        }
        Ok(MarkFinding::Vanished { .. }) => {
            ("gone", "was ours, and its mark is gone: see that its volume is mounted".to_owned())
        }
        Ok(MarkFinding::Unreachable { error, .. }) => {
            ("unreachable", format!("cannot be reached: {error}"))
        }
        Err(MarkError::Foreign { mark, .. }) => {
            ("foreign", format!("belongs to another patchdrop: {mark}"))
        }
        Err(MarkError::Elsewhere { mark, .. }) => {
            ("elsewhere", format!("is in use by another copy of this patchdrop: {mark}"))
        }
        Err(error @ (MarkError::Unreadable { .. } | MarkError::NoMark { .. })) => {
            ("unreadable", chain(error))
        }
        Err(error @ MarkError::Vanished { .. }) => ("gone", chain(error)),
        Err(error @ (MarkError::Io { .. } | MarkError::Ledger(_))) => ("unreachable", chain(error)),
    };
    Line { folder: folder.display().to_string(), mark, text, adopted: false }
}

fn show(lines: &[Line], is_done: bool, json: bool, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if json {
        return screen.json(&lines);
    }
    for line in lines {
        let text = format!("{} {}", line.folder, line.text);
        let text = if is_adopted(line.mark) { screen.style.alarm(&text) } else { text };
        writeln!(screen.out, "{text}")?;
        if line.adopted {
            writeln!(screen.out, "  adopted: it is ours from now on")?;
        }
    }
    if lines.iter().any(|line| line.adopted) {
        writeln!(
            screen.out,
            "\nAt its next start patchdrop holds what another one has left in sending/: \
             patchdrop list --state held"
        )?;
    } else if !is_done {
        writeln!(
            screen.out,
            "\nNothing was changed. See that the other patchdrop has ended for good, then: \
             patchdrop adopt --yes"
        )?;
    }
    Ok(())
}
