//! A file that no record knows yet: what keeps it, and what comes next.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::check::shown_url;
use super::super::failure::Failure;
use super::super::preview::{self, Depth, Fate, Looker};
use super::super::records::Records;
use super::super::screen::{Screen, Style, shown_span};
use crate::config::Config;
use crate::daemon;
use crate::journey::detect::Reason;
use crate::model::command::{Command, CommandAnswer};
use crate::model::file::{Place, shown};
use crate::model::route::Route;
use crate::model::status::{Pause, RouteStatus};
use crate::model::time::Wall;
use crate::world::control;

/// A file that nobody has claimed yet.
pub(super) struct Waiting {
    path: PathBuf,
    route: Arc<Route>,
    fate: Option<Fate>,
    pause: Option<Pause>,
    /// What the running service says about the folder; none without one.
    service: Option<RouteStatus>,
}

impl Waiting {
    pub(super) async fn gather(
        config: &Config,
        ledger: &impl Records,
        path: PathBuf,
        route: Arc<Route>,
    ) -> Result<Self, Failure> {
        let looker = Looker::new(ledger, Depth::Through);
        let inboxes = preview::inboxes(config, ledger)?;
        let inbox = inboxes.iter().find(|inbox| inbox.folder == route.folders.inbox);
        let seen = match inbox.zip(Place::of_path(&path)) {
            Some((inbox, place)) => looker.fate_of(inbox, place).await?,
            None => None,
        };
        let ruled =
            inbox.and_then(|inbox| inbox.routes.iter().find(|it| it.route.name == route.name));
        let by_person = ruled.and_then(|ruled| {
            let since = ruled.paused_at?;
            Some(daemon::pause_on_record(&route, since, ruled.pause_code.as_ref()))
        });
        let status = match control::ask(&config.state_dir, &Command::Status).await {
            Ok(CommandAnswer::Status(status)) => Some(status),
            // What the service cannot say now, ledger and folder tell.
            _ => None,
        };
        let of_destination = status.iter().flat_map(|status| &status.destinations).find(|it| {
            *it.host == *route.deliver.host
                && it.credential.as_deref() == route.deliver.credential.as_deref()
        });
        let of_destination = of_destination.and_then(|it| it.pause.clone());
        let mut services = status.iter().flat_map(|status| &status.routes);
        let service = services.find(|it| it.name == *route.name.0).cloned();
        let of_route = service.as_ref().and_then(|status| status.pause.clone());
        let pause = by_person.or(of_route).or(of_destination);
        Ok(Self { path, route, fate: seen.map(|(_, fate)| fate), pause, service })
    }

    /// What comes next, in sentences.
    fn next(&self, style: Option<&Style>) -> Vec<String> {
        let until = |at: Wall| match style {
            Some(style) => style.until(at),
            None => format!("at {at}"),
        };
        let name = &self.route.name;
        let (reason, mut sentences) = match &self.fate {
            None => return vec!["It has gone while it was looked at.".to_owned()],
            Some(Fate::Goes(_)) => {
                let url = shown_url(&self.route.deliver);
                (Reason::Ready, vec![format!("It is complete and in order: it goes to {url}.")])
            }
            Some(Fate::Fails(fault)) => {
                let cause = &fault.cause;
                let text = format!("It goes to failed/: {} ({}).", cause.plain, cause.code);
                (Reason::Ready, vec![text, fault.remedy.clone()])
            }
            Some(Fate::Stays(reason, wait)) => {
                let (plain, code) = (reason.plain(), reason.name());
                let mut text = format!("It stays where it is, route {name}: {plain} ({code})");
                if let Some(wait) = wait {
                    text.push_str("; it may be ready in ");
                    text.push_str(&shown_span(*wait));
                }
                text.push('.');
                let remedy = reason.remedy().replace("--route NAME", &format!("--route {name}"));
                let has_remedy = reason.needs_a_person() || self.service.is_some();
                (*reason, if has_remedy { vec![text, remedy] } else { vec![text] })
            }
        };
        if let Some(pause) = self.pause.as_ref().filter(|_| reason.is_to_be_sent()) {
            let probe = pause.next_probe_at.map(|at| format!("; tried again {}", until(at)));
            let (text, probe) = (&pause.text, probe.unwrap_or_default());
            sentences.push(format!("Its route or destination is paused: {text}{probe}."));
            sentences.push(pause.remedy.clone());
        }
        match &self.service {
            None => sentences.push("No service is running: nothing happens until one does.".into()),
            Some(status) => {
                let waiting = status.waiting.get(reason.name());
                let at = waiting.and_then(|waiting| waiting.next_look_at);
                let next = at.map(|at| format!("The service looks at it again {}.", until(at)));
                sentences.extend(next.filter(|_| reason.is_to_be_sent()));
            }
        }
        sentences.retain(|sentence| !sentence.is_empty());
        sentences
    }

    pub(super) fn record(&self) -> serde_json::Value {
        let (reason, code) = match &self.fate {
            Some(Fate::Stays(reason, _)) => (Some(reason.name()), None),
            Some(Fate::Fails(fault)) => (None, Some(fault.cause.code.to_string())),
            Some(Fate::Goes(_)) => (Some(Reason::Ready.name()), None),
            None => (None, None),
        };
        serde_json::json!({
            "state": "waiting",
            "route": self.route.name.to_string(),
            "path": shown(self.path.as_os_str()),
            "reason": reason,
            "code": code,
            "pause": self.pause,
            "next": self.next(None),
        })
    }

    pub(super) fn tell(&self, flag: &str, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let style = screen.style.clone();
        let heading =
            format!("{}, route {}: waiting", shown(self.path.as_os_str()), self.route.name);
        writeln!(screen.out, "{}\n", style.bold(&heading))?;
        writeln!(screen.out, "It lies in its drop folder and is on no record yet.")?;
        for sentence in self.next(Some(&style)) {
            writeln!(screen.out, "{sentence}")?;
        }
        if self.service.is_none() {
            writeln!(screen.out, "{}\n  patchdrop{flag} run", style.bold("You can:"))?;
        }
        Ok(())
    }
}
