//! `patchdrop doctor`: is everything round the service as it must be, and what mends what is not?
//!
//! A list of sections, each found by a function of its own.

#[cfg(unix)]
mod account;
#[cfg(unix)]
mod folders;
mod limits;
#[cfg(unix)]
mod own;
mod running;
#[cfg(windows)]
mod windows;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::Globals;
use super::exit_code::Exit;
use super::failure::Failure;
use super::findings::{self, Finding, Level, Section};
use super::load::{self, Secrets};
use super::online::{self, Outlook, Visit};
use super::screen::{Screen, Style, counted, shown_span};
use super::secret;
use crate::config::{Config, NoSecret, Notice};
use crate::model::network::{Network, Proxy};
use crate::model::route::Route;
use crate::model::time::Wall;
use crate::world::endpoint::Trust;
use crate::world::folder::RealDisk;

/// Ends of tokens and the times between which runs are looked up bear as much.
const CLOCKS_MAY_DIFFER: Duration = Duration::from_mins(1);
/// A certificate that ends sooner is spoken of.
const CERTIFICATE_LASTS: Duration = Duration::from_hours(14 * 24);

/// A name that takes longer does not resolve.
const RESOLVED_WITHIN: Duration = Duration::from_secs(10);
const SET_CLOCK: &str = if cfg!(windows) { "w32tm /resync" } else { "timedatectl set-ntp true" };

/// Look at everything that sending depends on, and say what mends what is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "It sends no file, changes nothing, and may be used while the service \
    runs.\nNo request goes to a path that a route sends to. A token that it asks for is not kept.\n\n\
    Examples:\n  \
    patchdrop doctor\n  \
    patchdrop doctor --json")]
pub(super) struct Arguments {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let (config, missing) = match globals.load(Secrets::Needed) {
        Ok(config) => (config, Vec::new()),
        // A secret may be where only the service finds it. Without any other fault the rest can be
        // looked at.
        Err(failure) => match globals.load(Secrets::MayBeMissing) {
            Ok(config) => (config, failure.notices),
            Err(_) => return Err(failure),
        },
    };
    let kept = kept(&config);
    let mut sections = vec![surroundings(&config, &missing, &kept), secrets(&kept)];
    sections.extend(here(&config, &screen.style, &globals.flag()).await);
    if missing.is_empty() {
        sections.extend(outside(&config, &screen.style).await?);
    }
    if arguments.json {
        screen.json(&serde_json::json!({ "sections": findings::as_json(&sections) }))?;
    } else {
        findings::render(&sections, screen)?;
    }
    Ok(findings::exit(&sections))
}

/// What of this machine the service depends on.
#[cfg_attr(not(unix), expect(unused_variables, reason = "folders are looked at on Unix"))]
async fn here(config: &Config, style: &Style, flag: &str) -> Vec<Section> {
    let disk = RealDisk::new(Arc::new(AtomicUsize::new(0)), config.durability);
    let routes = load::routes(config);
    let mut sections = Vec::new();
    #[cfg(unix)]
    {
        let judged = account::Judged::of(&config.state_dir);
        sections.push(folders::section(config, &routes, &judged, &disk, flag).await);
    }
    sections.push(limits::room(all_folders(config, &routes), &disk).await);
    let (status, answer) = running::ask(config).await;
    let pid = status.as_ref().map(|status| status.pid);
    if cfg!(target_os = "linux") {
        let parents = config.root.iter().count() + config.discoveries.len();
        sections.push(limits::section((routes.len() + parents) as u64, pid));
    }
    let mut service = vec![answer];
    service.extend(running::of_record(config));
    if let Some(unit) = running::unit(pid).await {
        service.extend(running::of_unit(&unit, config, &routes));
    }
    service.extend(status.iter().flat_map(|status| running::symptoms(status, style)));
    sections.push(running::section(service));
    #[cfg(windows)]
    sections.extend(windows::sections(config, &routes));
    sections
}

/// Every folder that files may be moved into, and our own.
fn all_folders(config: &Config, routes: &[Arc<Route>]) -> Vec<PathBuf> {
    let own = [config.state_dir.to_path_buf()].into_iter();
    let of_route = |route: &Arc<Route>| {
        let folders = &route.folders;
        [&folders.inbox, &folders.sent, &folders.failed, &folders.held].map(|it| it.to_path_buf())
    };
    own.chain(routes.iter().flat_map(of_route)).collect()
}

/// What servers and network are like from here.
async fn outside(config: &Config, style: &Style) -> Result<Vec<Section>, Failure> {
    let outlook = online::look(config, style).await?;
    let names = names(&outlook.visits).await;
    let network = network(&config.network, outlook.endpoint.trust(), &outlook.visits, names);
    let certificates = certificates(&outlook.visits, style);
    let clock = clock(&outlook.visits);
    let Outlook { credentials, servers, runs, .. } = outlook;
    Ok(vec![network, clock, credentials, servers, runs, certificates])
}

/// A stored secret that the config uses: its name, the keys that use it, why it is not to be had.
type Kept = (String, BTreeSet<String>, Option<NoSecret>);

/// Secrets that patchdrop keeps: is each there that the config uses, and can it be read?
fn kept(config: &Config) -> Vec<Kept> {
    let Ok(shelf) = load::shelf(&config.path) else { return Vec::new() };
    let look_up = |name: &String| secret::look_up(&config.state_dir, name).err();
    let kept = shelf.used.into_iter().map(|(name, keys)| {
        let why = look_up(&name);
        (name, keys, why)
    });
    kept.collect()
}

fn secrets(kept: &[Kept]) -> Section {
    let finding = |(name, keys, why): &Kept| {
        let keys = keys.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match why {
            None => Finding::ok(name, format!("can be read; for {keys}")),
            Some(why) => {
                let text = format!("{}; for {keys}", why.text);
                Finding::new(Level::Refused, name, text, &why.hint)
            }
        }
    };
    Section { title: "Stored secrets", findings: kept.iter().map(finding).collect() }
}

/// What the config itself warns of, and which secrets are not to be had here; those that are stored
/// have a section of their own.
fn surroundings(config: &Config, missing: &[Notice], kept: &[Kept]) -> Section {
    let warning = |level, notice: &Notice| {
        let remedy = notice.hint.clone().unwrap_or_default();
        let key = if notice.key.is_empty() { "the file" } else { &notice.key };
        Finding::new(level, key, &notice.text, remedy)
    };
    let is_told = |notice: &Notice| {
        kept.iter().any(|(_, keys, why)| why.is_some() && keys.contains(&notice.key))
    };
    let mut findings: Vec<Finding> =
        config.warnings.iter().map(|notice| warning(Level::Warning, notice)).collect();
    let untold = missing.iter().filter(|notice| !is_told(notice));
    findings.extend(untold.map(|notice| warning(Level::Refused, notice)));
    findings.extend(config.broken.iter().map(|broken| warning(Level::Refused, &broken.notice)));
    if findings.is_empty() {
        findings.push(Finding::ok("the file", format!("{} is in order", config.path.display())));
    }
    if !missing.is_empty() {
        // What mends it stands with the secret.
        let text = "servers and credentials were not looked at, for want of a secret";
        findings.push(Finding::ok("outside", text));
    }
    Section { title: "Config", findings }
}

/// A name and what it stands for; nothing where it does not resolve.
type Named = (String, Vec<std::net::IpAddr>);

/// Looks up every name that this machine itself has to look up: hosts that are reached directly,
/// and proxies.
async fn names(visits: &[Visit]) -> Vec<Named> {
    let of_visit = |visit: &Visit| match &visit.proxy {
        Some(proxy) => proxy.parse().ok(),
        None => Some(visit.origin.clone()),
    };
    let mut asked: Vec<reqwest::Url> = visits.iter().filter_map(of_visit).collect();
    asked.sort_by(|one, other| one.host_str().cmp(&other.host_str()));
    asked.dedup_by(|one, other| one.host_str() == other.host_str());
    let named = asked.into_iter().filter_map(|url| {
        let name = url.domain()?.to_owned();
        let port = url.port_or_known_default()?;
        Some(async move {
            let looked = tokio::net::lookup_host((name.as_str(), port));
            let found = match tokio::time::timeout(RESOLVED_WITHIN, looked).await {
                Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            (name, found)
        })
    });
    futures_util::future::join_all(named).await
}

/// The way out: proxy, names, certificate store.
fn network(network: &Network, trust: Trust, visits: &[Visit], names: Vec<Named>) -> Section {
    let mut findings = vec![proxy(network, visits)];
    for (name, found) in names {
        let shown: Vec<String> = found.iter().take(3).map(ToString::to_string).collect();
        let more = if found.len() > shown.len() { ", and more" } else { "" };
        findings.push(if found.is_empty() {
            let text = "the name does not resolve";
            let remedy = "check the name in the config, and this machine's DNS; where only a proxy \
                          knows names, name it by the key proxy";
            Finding::new(Level::Away, name, text, remedy)
        } else {
            Finding::ok(name, format!("resolves to {}{more}", shown.join(", ")))
        });
    }
    findings.push(store(network, trust, visits.iter().any(|it| it.origin.scheme() == "https")));
    Section { title: "Network", findings }
}

fn proxy(network: &Network, visits: &[Visit]) -> Finding {
    let set = match &network.proxy {
        Proxy::System => "proxy = \"system\"",
        Proxy::None => "proxy = \"none\"",
        Proxy::Url(_) => "proxy is set",
    };
    let mut ways: Vec<&str> = visits.iter().filter_map(|visit| visit.proxy.as_deref()).collect();
    ways.sort_unstable();
    ways.dedup();
    let direct: Vec<&str> =
        visits.iter().filter(|it| it.proxy.is_none()).map(|it| it.host.as_str()).collect();
    let text = match (ways.as_slice(), direct.as_slice()) {
        ([], _) => format!("{set}; every server is reached directly"),
        (ways, []) => format!("{set}; every server is reached through {}", ways.join(", ")),
        (ways, direct) => {
            format!("{set}: {}; directly: {}", ways.join(", "), direct.join(", "))
        }
    };
    Finding::ok("proxy", text)
}

fn store(network: &Network, trust: Trust, is_needed: bool) -> Finding {
    let added = match &network.ca_file {
        Some(path) => format!(
            "; ca_file {} adds {}",
            path.display(),
            counted(trust.added as u64, "certificate")
        ),
        None => String::new(),
    };
    let subject = "certificate store";
    if trust.has_store {
        return Finding::ok(subject, format!("the system has one{added}"));
    }
    let level = match (is_needed, trust.added) {
        (false, _) => Level::Ok,
        (true, 0) => Level::Away,
        (true, _) => Level::Warning,
    };
    let text = format!("the system has none, or an empty one{added}");
    let remedy = match level {
        Level::Ok => "",
        Level::Warning | Level::Away | Level::Refused => "install the package ca-certificates",
    };
    Finding::new(level, subject, text, remedy)
}

/// Our clock beside those of the servers.
fn clock(visits: &[Visit]) -> Section {
    let skew = |&(theirs, ours): &(Wall, Wall)| theirs.since(ours).max(ours.since(theirs));
    let clocks = visits.iter().filter_map(|visit| Some((visit, visit.clocks?)));
    let worst = clocks.clone().max_by_key(|(_, clocks)| skew(clocks));
    let finding = match worst {
        None => Finding::ok("clock", "no server said what time it is"),
        Some((_, clocks)) if skew(&clocks) <= CLOCKS_MAY_DIFFER => Finding::ok(
            "clock",
            format!("agrees within a minute with {}", counted(count(clocks_of(visits)), "server")),
        ),
        Some((visit, (theirs, ours))) => {
            let word = if theirs > ours { "behind" } else { "ahead of" };
            let text = format!(
                "this machine's clock is {} {word} that of {}: ends of tokens and the look for \
                 lost runs depend on it",
                shown_span(skew(&(theirs, ours))),
                visit.host
            );
            Finding::new(Level::Warning, "clock", text, format!("have it set: {SET_CLOCK}"))
        }
    };
    Section { title: "Clock", findings: vec![finding] }
}

fn clocks_of(visits: &[Visit]) -> usize {
    visits.iter().filter(|visit| visit.clocks.is_some()).count()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Certificates that end soon.
fn certificates(visits: &[Visit], style: &Style) -> Section {
    let ends = visits.iter().filter_map(|visit| Some((visit, visit.certificate_ends?)));
    let findings = ends.map(|(visit, end)| {
        let text = format!("ends {} ({})", style.time(end), style.until(end));
        if end.since(style.now) >= CERTIFICATE_LASTS {
            return Finding::ok(&visit.host, text);
        }
        let remedy = format!("tell whoever runs {}: nothing is sent once it has ended", visit.host);
        Finding::new(Level::Warning, &visit.host, text, remedy)
    });
    Section { title: "Certificates", findings: findings.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture::{self, START};

    const MINUTE: Duration = Duration::from_mins(1);

    fn visit(host: &str, clocks: Option<(Wall, Wall)>, ends: Option<Wall>) -> Visit {
        Visit {
            origin: format!("https://{host}/").parse().unwrap(),
            host: host.to_owned(),
            proxy: None,
            clocks,
            certificate_ends: ends,
        }
    }

    #[test]
    fn a_clock_may_differ_by_a_minute() {
        let check = |theirs: &[Wall], level: Level, part: &str| {
            let clocks = theirs.iter().map(|theirs| Some((*theirs, START)));
            let visits: Vec<Visit> =
                clocks.chain([None]).map(|clocks| visit("a.example", clocks, None)).collect();
            let found = clock(&visits).findings.remove(0);
            assert_eq!(found.level, level, "{}", found.text);
            assert!(found.text.contains(part), "{}", found.text);
        };
        let late = Duration::from_secs(61);
        check(&[], Level::Ok, "no server said");
        check(&[START.plus(MINUTE), START.minus(MINUTE)], Level::Ok, "with 2 servers");
        check(&[START, START.plus(late)], Level::Warning, "1m 1s behind that of a.example");
        check(&[START.minus(late), START], Level::Warning, "1m 1s ahead of that of a.example");
    }

    #[test]
    fn a_certificate_is_spoken_of_two_weeks_before_its_end() {
        let style = fixture::style();
        let days = |days: u64| Some(style.now.plus(Duration::from_hours(24 * days)));
        let visits = [
            visit("good.example", None, days(15)),
            visit("soon.example", None, days(13)),
            visit("plain.example", None, None),
        ];
        let found = certificates(&visits, &style).findings;
        let levels: Vec<_> = found.iter().map(|it| (it.subject.as_str(), it.level)).collect();
        let expected = [("good.example", Level::Ok), ("soon.example", Level::Warning)];
        assert_eq!(levels, expected);
        assert_eq!(found[1].text, "ends 2026-12-04 09:00:00 (in 13d)");
    }

    #[test]
    fn a_missing_store_is_a_fault_only_where_tls_needs_it() {
        let network = Network { ca_file: Some("/etc/ours.pem".into()), ..Network::default() };
        let check = |has_store, added, is_needed, level: Level| {
            let found = store(&network, Trust { has_store, added }, is_needed);
            assert_eq!(found.level, level, "{}", found.text);
            assert_eq!(found.remedy.is_empty(), level == Level::Ok);
        };
        check(true, 0, true, Level::Ok);
        check(false, 0, false, Level::Ok);
        check(false, 1, true, Level::Warning);
        check(false, 0, true, Level::Away);
        let found = store(&network, Trust { has_store: true, added: 2 }, true);
        assert_eq!(found.text, "the system has one; ca_file /etc/ours.pem adds 2 certificates");
    }
}
