//! `patchdrop run --dry-run`: for every file in a drop folder where it would go, or why it would
//! not. Nothing is touched: no folder is made, no ledger, no lock.

mod line;

use std::io;

use serde::Serialize;

use super::check::shown_url;
use super::exit_code::Exit;
use super::failure::{Failure, Kind, write_notice};
use super::load;
use super::preview::{self, Depth, Fate, Inbox, Looker, Ruled};
use super::records;
use super::screen::{Screen, counted, shown_bytes, shown_span};
use crate::config::Config;
use crate::daemon;
use crate::journey::twins::{DUPLICATE, WAITS};
use crate::model::file::{Sighting, shown};
use crate::model::route::Duplicates;

use line::{Equal, Heads, Twin};

/// One file, as `--json` shows it. Names are part of the interface.
#[derive(Serialize)]
struct Line {
    route: Option<String>,
    path: String,
    /// `sent`, `failed`, `stays`; `skipped` or `held` for one whose twin was accepted or goes
    /// first.
    fate: &'static str,
    url: Option<String>,
    /// Why it fails (a cause's code) or stays (a reason's name).
    code: Option<String>,
    text: Option<String>,
    remedy: Option<String>,
    bytes: Option<u64>,
    sha256: Option<String>,
    /// Milliseconds until it may be ready, where time alone helps.
    wait_ms: Option<u64>,
}

/// How many there are of each.
#[derive(Default)]
struct Sums {
    sent: u64,
    failed: u64,
    stay: u64,
    /// Not sent, since equal ones were, or are before them.
    duplicates: u64,
    unlisted: u64,
}

pub(super) async fn run(
    config: &Config,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let ledger = records::open_ledger(config)?;
    let looker = Looker::new(&ledger, Depth::Through);
    let mut sums = Sums::default();
    let mut equal = Equal::default();
    let mut between = "[\n";
    for inbox in preview::inboxes(config, &ledger)? {
        let sightings = match looker.list(&inbox).await {
            Ok(sightings) => sightings,
            Err(error) => {
                sums.unlisted += 1;
                let what = format!("what lies in {} is not known", inbox.folder.display());
                Failure::because(Kind::Machine, what, error).write(&mut io::stderr().lock())?;
                continue;
            }
        };
        let mut is_first = true;
        let mut heads = Heads::default();
        for sighting in sightings {
            let Some((index, fate)) = looker.fate(&inbox, &sighting).await? else { continue };
            let ruled = inbox.routes.get(index);
            let twin = match ruled {
                Some(ruled) => {
                    heads.add(index, ruled, &sighting, &fate);
                    equal.twin(&ledger, ruled, &sighting, &fate)?
                }
                None => None,
            };
            sums.count(&fate, twin.as_ref());
            if json {
                let line = line(&inbox, ruled, &sighting, &fate).with(twin);
                write!(screen.out, "{between}")?;
                serde_json::to_writer(&mut *screen.out, &line).map_err(io::Error::from)?;
                between = ",\n";
                continue;
            }
            if std::mem::take(&mut is_first) {
                head(&inbox, screen)?;
            }
            match &twin {
                Some(twin) => tell_twin(&sighting, twin, screen)?,
                None => tell(&sighting, &fate, screen)?,
            }
        }
        if !json {
            for text in heads.tell(&ledger, &inbox.routes)? {
                writeln!(screen.out, "  {text}")?;
            }
        }
        if is_first && !json && !inbox.routes.is_empty() {
            head(&inbox, screen)?;
            writeln!(screen.out, "  nothing lies there")?;
        }
    }
    if json {
        writeln!(screen.out, "{}]", if between == "[\n" { "[" } else { "\n" })?;
    } else {
        no_routes(config, screen)?;
        sums.tell(screen)?;
    }
    Ok(match sums {
        Sums { unlisted: 1.., .. } => Exit::Unavailable,
        Sums { failed: 1.., .. } => Exit::SomeFailed,
        _ => Exit::Done,
    })
}

/// What holds for all files of a folder.
fn head(inbox: &Inbox, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    let folder = inbox.folder.display();
    if inbox.routes.is_empty() {
        writeln!(screen.out, "{}", style.bold(&format!("no route: {folder}")))?;
    }
    for Ruled { route, paused_at, pause_code, .. } in &inbox.routes {
        writeln!(screen.out, "{}", style.bold(&format!("route {}: {folder}", route.name)))?;
        writeln!(screen.out, "  to {} {}", route.deliver.method, shown_url(&route.deliver))?;
        if let Some(at) = paused_at {
            let since = style.time(*at);
            let by = match pause_code {
                Some(code) => format!("({code})"),
                None => "by a person".to_owned(),
            };
            let text = format!(
                "  paused {by} since {since}: nothing goes until patchdrop resume {}",
                route.name
            );
            writeln!(screen.out, "{}", style.alarm(&text))?;
        }
    }
    Ok(())
}

/// One file: its fate first, so that equal ones stand below each other.
fn tell(sighting: &Sighting, fate: &Fate, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    let name = sighting.shown();
    match fate {
        Fate::Goes(envelope) => {
            let bytes = envelope.as_ref().map_or(sighting.identity.size, |it| it.bytes);
            writeln!(screen.out, "  would be sent  {name} ({})", shown_bytes(bytes))?;
            for remark in envelope.iter().flat_map(|it| &it.remarks) {
                writeln!(screen.out, "                 remark: {remark}")?;
            }
        }
        Fate::Fails(fault) => {
            let cause = &fault.cause;
            let text = format!("  would fail     {name}: {} ({})", cause.plain, cause.code);
            writeln!(screen.out, "{}", style.alarm(&text))?;
            writeln!(screen.out, "                 {}", fault.remedy)?;
        }
        Fate::Stays(reason, wait) => {
            let again = match wait {
                Some(wait) => format!("; next look in {}", shown_span(*wait)),
                None => String::new(),
            };
            let plain = reason.plain();
            writeln!(screen.out, "  stays          {name}: {plain} ({}){again}", reason.name())?;
        }
    }
    Ok(())
}

/// One whose bytes were, or are, somebody else's too.
fn tell_twin(sighting: &Sighting, twin: &Twin, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let name = sighting.shown();
    match twin {
        Twin::Not(Duplicates::Hold, other) => {
            writeln!(screen.out, "  would be held  {name}: the same bytes as {other}")?;
        }
        Twin::Not(_, other) => {
            writeln!(screen.out, "  would be skipped  {name}: the same bytes as {other}")?;
        }
        Twin::Waits(id) => {
            writeln!(
                screen.out,
                "  would wait     {name}: the same bytes as {id}, see there first"
            )?;
        }
    }
    Ok(())
}

impl Line {
    fn with(self, twin: Option<Twin>) -> Self {
        let (fate, code, other) = match twin {
            None => return self,
            Some(Twin::Not(Duplicates::Hold, other)) => ("held", DUPLICATE, other),
            Some(Twin::Not(_, other)) => ("skipped", DUPLICATE, other),
            Some(Twin::Waits(id)) => (self.fate, WAITS, id),
        };
        let text = Some(format!("the same bytes as {other}"));
        Self { fate, code: Some(code.to_owned()), text, ..self }
    }
}

fn line(inbox: &Inbox, ruled: Option<&Ruled>, sighting: &Sighting, fate: &Fate) -> Line {
    let path = inbox.folder.join(&sighting.name);
    let mut line = Line {
        route: ruled.map(|ruled| ruled.route.name.to_string()),
        path: shown(path.as_os_str()),
        fate: "stays",
        url: None,
        code: None,
        text: None,
        remedy: None,
        bytes: None,
        sha256: None,
        wait_ms: None,
    };
    match fate {
        Fate::Goes(envelope) => {
            line.fate = "sent";
            line.url = ruled.map(|ruled| shown_url(&ruled.route.deliver));
            line.bytes = envelope.as_ref().map(|envelope| envelope.bytes);
            line.sha256 = envelope.as_ref().map(|envelope| envelope.digest.to_string());
        }
        Fate::Fails(fault) => {
            line.fate = "failed";
            line.code = Some(fault.cause.code.to_string());
            line.text = Some(fault.cause.plain.clone());
            line.remedy = Some(fault.remedy.clone());
        }
        Fate::Stays(reason, wait) => {
            line.code = Some(reason.name().to_owned());
            line.text = Some(reason.plain().to_owned());
            line.remedy = Some(reason.remedy().to_owned());
            line.wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
    }
    line
}

/// Routes that cannot run, and folders that are no routes.
fn no_routes(config: &Config, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    if !config.broken.is_empty() {
        writeln!(screen.out, "{}", style.alarm("These routes cannot run; the others can:"))?;
        for broken in &config.broken {
            write_notice(screen.out, &broken.notice)?;
        }
    }
    for (folder, not) in load::not_routes(config) {
        writeln!(screen.out, "{}", daemon::no_route_alert(&folder, &not.text))?;
    }
    Ok(())
}

impl Sums {
    fn count(&mut self, fate: &Fate, twin: Option<&Twin>) {
        match fate {
            Fate::Goes(_) if matches!(twin, Some(Twin::Not(..))) => self.duplicates += 1,
            Fate::Goes(_) => self.sent += 1,
            Fate::Fails(_) => self.failed += 1,
            Fate::Stays(..) => self.stay += 1,
        }
    }

    fn tell(&self, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let Self { sent, failed, stay, duplicates, .. } = self;
        let stays = if *stay == 1 { "stays" } else { "stay" };
        let equal = match duplicates {
            0 => String::new(),
            many => format!("{many} would not, since equal ones are, "),
        };
        writeln!(
            screen.out,
            "\n{} would be sent, {equal}{failed} would fail, {stay} {stays}. Nothing was touched.",
            counted(*sent, "file"),
        )?;
        Ok(())
    }
}
