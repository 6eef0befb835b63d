//! From what is written to what is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::address::{self, UrlRules, VANITY_FORM, is_vanity};
use super::delivery;
use super::discovery::Template;
use super::drives;
use super::flow;
use super::folders::{self, DATE, Shape, VANITY};
use super::network;
use super::page::{At, Sink, bare};
use super::raw::{Deliver, Raw, RawLog, RawRoute};
use super::rules::{self, Rules, Setting};
use super::section::OrOff;
use super::span::show_span;
use super::territory::{self, Claim, Private};
use super::vault::Vault;
use super::{
    BrokenRoute, Config, Discovery, LogFormat, LogRules, Notice, WatchMode, credential, destination,
};
use crate::model::durability::Durability;
use crate::model::route::Credential;

/// One route or discovery on its way to what is meant.
struct Draft {
    /// The table's name; `None` for `auto_routes`.
    name: Option<String>,
    claim: Claim,
    rules: Option<Rules>,
    broken: Option<Notice>,
    /// The vanity of a route with a fixed folder.
    vanity: String,
}

/// Checks everything. `None` where anything is at fault.
pub(super) fn check(
    sink: &Sink,
    vault: &Vault<'_>,
    path: &Path,
    raw: &Raw,
    state_dir: &At<PathBuf>,
) -> Option<Config> {
    let base = vault.base;
    let urls =
        UrlRules { sink, allow_http: raw.allow_http.as_ref().is_some_and(|allow| allow.value) };
    let root =
        raw.root.as_ref().map(|root| root.with(folders::absolute(base, root.value.as_ref())));
    let credentials = credentials(sink, urls, vault, raw);
    let names: Vec<String> = raw.credentials.iter().map(|(name, _)| name.value.clone()).collect();
    let setting = Setting {
        sink,
        urls,
        vault,
        base,
        company: raw.company.as_ref(),
        base_url: raw.base_url.as_ref(),
        start_url: raw.start_url.as_ref(),
        core_url: raw.core_url.as_ref(),
        first_sweep_max_age: match raw.first_sweep_max_age.as_ref().map(|age| age.value) {
            Some(OrOff::Off) => None,
            Some(OrOff::Is(age)) => Some(age),
            None => Some(Duration::from_hours(24)),
        },
        credentials: &credentials,
        credential_names: &names,
    };
    check_top(&setting, raw);
    let network = network::check(sink, vault, raw);
    let heartbeat_url = network::heartbeat(urls, vault, raw);
    let mut drafts = drafts(&setting, raw, root.as_ref());
    let log = log(sink, base, &raw.log);
    let claims = check_folders(&setting, raw, root.as_ref(), state_dir, &log, &mut drafts);
    let of_routes = drafts.iter().flat_map(|draft| draft.claim.paths());
    drives::check(sink, root.iter().chain([state_dir]).chain(of_routes));
    let drain_for = raw.drain_for.as_ref().map_or(Duration::from_secs(90), |span| span.value);
    let destinations = destination::check(urls, &raw.destinations);
    warn(sink, raw, drain_for, &drafts);
    let rules = drafts.iter().filter_map(|draft| draft.rules.as_ref());
    let hosts = rules.map(|rules| rules.host().to_owned()).collect();
    destination::warn(sink, urls, &raw.destinations, &hosts);
    if !sink.is_clean() {
        return None;
    }
    let mut config = Config {
        path: path.to_owned(),
        root: root.as_ref().map(|root| Arc::from(root.value.as_path())),
        state_dir: Arc::from(state_dir.value.as_path()),
        routes: Vec::new(),
        discoveries: Vec::new(),
        broken: Vec::new(),
        credentials: credentials.into_iter().map(|(name, one)| (name, Arc::new(one))).collect(),
        network,
        heartbeat_url,
        destinations,
        durability: raw.ledger.durability.as_ref().map_or_else(Durability::default, |it| it.value),
        watch: raw.watch.as_ref().map_or(WatchMode::Auto, |watch| watch.value),
        poll_every: raw.poll_every.as_ref().map_or(Duration::from_secs(10), |span| span.value),
        sweep_every: raw.sweep_every.as_ref().map_or(Duration::from_mins(1), |span| span.value),
        drain_for,
        log,
        marked: marked(root.as_ref(), &claims),
        warnings: Vec::new(),
        secrets: vault.found.borrow().clone(),
        written: super::changes::Written::default(),
    };
    place_routes(&mut config, raw, drafts, &claims);
    Some(config)
}

/// What every table and `auto_routes` would make.
fn drafts(setting: &Setting<'_>, raw: &Raw, root: Option<&At<PathBuf>>) -> Vec<Draft> {
    let tables = raw.routes.iter();
    let named = tables.filter_map(|(name, route)| route_draft(setting, raw, root, name, route));
    named.chain(auto_draft(setting, raw, root)).collect()
}

fn check_top(setting: &Setting<'_>, raw: &Raw) {
    if let Some(company) = &raw.company {
        delivery::is_company(setting.sink, company);
    }
    for base in [&raw.base_url, &raw.start_url, &raw.core_url].into_iter().flatten() {
        setting.urls.base(base);
    }
    for (key, written) in [("folder", &raw.defaults.folder), ("vanity", &raw.defaults.vanity)] {
        if let Some(written) = written {
            let text = format!("{key} belongs to one route, and [defaults] are for all");
            setting.sink.fault(written.notice(text, "move it into a [route.NAME]"));
        }
    }
}

/// The credentials that are right, each with every host that it may go to.
fn credentials(
    sink: &Sink,
    urls: UrlRules<'_>,
    vault: &Vault<'_>,
    raw: &Raw,
) -> BTreeMap<Arc<str>, Credential> {
    let mut credentials: BTreeMap<Arc<str>, Credential> = BTreeMap::new();
    for (name, written) in &raw.credentials {
        check_name(sink, name, "credential");
        if let Some(credential) = credential::check(sink, urls, vault, name, written) {
            credentials.insert(Arc::clone(&credential.name), credential);
        }
    }
    let bases = [
        (&raw.base_url, delivery::BASE_URL),
        (&raw.start_url, flow::START_URL),
        (&raw.core_url, flow::CORE_URL),
    ];
    for (written, default) in bases {
        let default = At { value: default.to_owned(), line: 0, key: String::new() };
        let Some(base) = urls.base(written.as_ref().unwrap_or(&default)) else { continue };
        for credential in credentials.values_mut() {
            credential.hosts.insert(address::host(&base));
        }
    }
    let only = match raw.credentials.as_slice() {
        [(only, _)] => Some(&only.value),
        _ => None,
    };
    let own = raw.routes.iter().map(|(_, route)| route.over(&raw.defaults));
    for route in own.chain([raw.defaults.clone()]) {
        let bases = match route.deliver.as_ref().map(|deliver| deliver.value) {
            None | Some(Deliver::Inbound) => vec![&route.base_url],
            Some(Deliver::Flow) => vec![&route.flow.start_url, &route.flow.core_url],
            Some(Deliver::Webhook | Deliver::Http) => continue,
        };
        let name = route.credential.as_ref().map(|name| &name.value).or(only);
        let Some(credential) = name.and_then(|name| credentials.get_mut(name.as_str())) else {
            continue;
        };
        for base in bases.into_iter().flatten().filter_map(|base| urls.base(base)) {
            credential.hosts.insert(address::host(&base));
        }
    }
    credentials
}

/// Names become names of folders, files and arguments, on every system.
fn check_name(sink: &Sink, name: &At<String>, what: &str) -> bool {
    let stem = name.value.split('.').next().unwrap_or_default().to_uppercase();
    let is_device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")).is_some_and(|digit| {
            matches!(digit, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9")
        });
    let has_bad_letter = |letter: char| letter.is_control() || "/\\<>:\"|?*{}.".contains(letter);
    let fault = if is_device {
        format!("{:?} is the name of a device on Windows", name.value)
    } else if name.value.is_empty() || name.value.chars().count() > 64 {
        "a name has 1 to 64 letters".to_owned()
    } else if name.value.contains(has_bad_letter) {
        format!("{:?} holds one of / \\ < > : \" | ? * {{ }} . or a control character", name.value)
    } else if name.value.trim() != name.value {
        format!("{:?} begins or ends with a space", name.value)
    } else {
        return true;
    };
    sink.fault(name.notice(fault, format!("choose another name for the {what}")));
    false
}

fn route_draft(
    setting: &Setting<'_>,
    raw: &Raw,
    root: Option<&At<PathBuf>>,
    name: &At<String>,
    own: &RawRoute,
) -> Option<Draft> {
    let is_name = check_name(setting.sink, name, "route");
    let mut merged = own.over(&raw.defaults);
    let deliver = merged.deliver.as_ref().map_or(Deliver::Inbound, |deliver| deliver.value);
    if matches!(deliver, Deliver::Http | Deliver::Webhook) {
        // A token goes to another host only where the route itself says so.
        merged.credential.clone_from(&own.credential);
    }
    check_kind(setting.sink, own, deliver);
    rules::check_format(setting.sink, name, own, &merged, deliver);
    let (rules, broken) = rules::check(setting, name, &merged);
    let inbox = inbox(setting.sink, root, name, own).filter(|_| is_name);
    let vanity = vanity(setting.sink, name, own, deliver, inbox.as_ref());
    let inbox = inbox?;
    let claim = Claim {
        label: format!("route {}", name.value),
        targets: targets(setting.sink, &merged, &inbox),
        inbox,
        has_include: own.include.is_some(),
        is_auto: false,
    };
    Some(Draft { name: Some(name.value.clone()), claim, rules, broken, vanity })
}

/// Keys that mean nothing for this way of delivery, in the route's own table.
fn check_kind(sink: &Sink, own: &RawRoute, deliver: Deliver) {
    let place = |written: Option<At<()>>, name: &'static str| written.map(|place| (place, name));
    let inbound = [
        place(bare(own.vanity.as_ref()), "inbound"),
        place(bare(own.company.as_ref()), "inbound"),
        place(bare(own.base_url.as_ref()), "inbound"),
    ];
    let url = [place(bare(own.url.as_ref()), "webhook\" or \"http")];
    let method = own.method.as_ref().filter(|method| method.value != "POST");
    let method = [place(bare(method), "http")];
    let hmac = bare(own.hmac.key.as_ref()).or(bare(own.hmac.header.as_ref()));
    let signed = [place(hmac, "webhook\" or \"http")];
    let flow = flow::own_keys(own).map(|written| place(written, "flow"));
    let strange: Vec<_> = match deliver {
        Deliver::Inbound => url.into_iter().chain(method).chain(signed).chain(flow).collect(),
        Deliver::Flow => inbound.into_iter().chain(url).chain(method).chain(signed).collect(),
        Deliver::Webhook => inbound.into_iter().chain(method).chain(flow).collect(),
        Deliver::Http => inbound.into_iter().chain(flow).collect(),
    };
    let kind = match deliver {
        Deliver::Inbound => "an inbound route's URL is made of base_url, company and vanity",
        Deliver::Flow => "a flow route's URL is made of start_url, flow_id, trigger and body",
        Deliver::Webhook => "a webhook route's URL is what url says, and it is sent to by POST",
        Deliver::Http => "an http route's URL is what url says",
    };
    for (place, meant_for) in strange.into_iter().flatten() {
        let key = place.key.rsplit('.').next().unwrap_or_default().to_owned();
        sink.fault(place.notice(
            format!("{key} means nothing here: {kind}"),
            format!("take it out, or write deliver = \"{meant_for}\""),
        ));
    }
}

/// The drop folder, absolute, perhaps with `{vanity}`.
fn inbox(
    sink: &Sink,
    root: Option<&At<PathBuf>>,
    name: &At<String>,
    own: &RawRoute,
) -> Option<At<PathBuf>> {
    let written = own.folder.clone().unwrap_or_else(|| name.clone());
    let path = Path::new(&written.value);
    let fault = |text: String, hint: &str| {
        sink.fault(written.notice(text, hint));
        None
    };
    let vanities = written.value.matches(VANITY).count();
    let whole = path.components().filter(|part| part.as_os_str() == VANITY).count();
    if vanities != whole || vanities > 1 {
        let hint = "write e.g. 'erp/{vanity}/export'";
        return fault("{vanity} stands for one whole part of the path, once".to_owned(), hint);
    }
    if written.value.contains(DATE) {
        return fault("{date} may stand in sent, failed and held alone".to_owned(), "take it out");
    }
    if let Some(unknown) = rules::unknown_placeholder(&written.value, &["vanity"]) {
        return fault(format!("{{{unknown}}} stands for nothing"), "known is {vanity}");
    }
    if path.is_absolute() {
        return Some(written.with(folders::absolute(Path::new("/"), path)));
    }
    let Some(root) = root else {
        let text = format!("the folder {:?} is not absolute, and there is no root", written.value);
        return fault(text, "write root = '/PATH' at the top, or an absolute folder");
    };
    let folder = folders::absolute(&root.value, path);
    let kept = folder.components().filter(|part| part.as_os_str() == VANITY).count();
    if kept != vanities {
        return fault(
            "{vanity} is lost by the .. after it".to_owned(),
            "write the path without ..",
        );
    }
    Some(written.with(folder))
}

/// The vanity of a route with a fixed folder; empty where it has none.
fn vanity(
    sink: &Sink,
    name: &At<String>,
    own: &RawRoute,
    deliver: Deliver,
    inbox: Option<&At<PathBuf>>,
) -> String {
    let is_pattern = inbox.is_some_and(|inbox| inbox.value.iter().any(|part| part == VANITY));
    match (&own.vanity, inbox) {
        (Some(written), _) if is_pattern => {
            sink.fault(
                written.notice(
                    "the folder's {vanity} already says the vanity",
                    "take one of them out",
                ),
            );
            String::new()
        }
        (Some(written), _) if deliver == Deliver::Inbound => {
            if !is_vanity(&written.value) {
                sink.fault(written.notice(
                    format!("{:?} is no vanity name ({VANITY_FORM})", written.value),
                    "write the last part of the inbound URL",
                ));
            }
            written.value.clone()
        }
        (None, Some(inbox)) if deliver == Deliver::Inbound && !is_pattern => {
            let folder = inbox.value.file_name().unwrap_or_default().to_string_lossy();
            let vanity = folder.to_lowercase();
            if !is_vanity(&vanity) {
                let place = own.folder.as_ref().unwrap_or(name);
                sink.fault(place.notice(
                    format!("the folder's name {folder:?} is no vanity name ({VANITY_FORM})"),
                    "write vanity = '...': the last part of the inbound URL",
                ));
            }
            vanity
        }
        (Some(_) | None, _) => String::new(),
    }
}

/// `sent`, `failed` and `held`, absolute.
fn targets(sink: &Sink, merged: &RawRoute, inbox: &At<PathBuf>) -> [At<PathBuf>; 3] {
    let written = [(&merged.sent, "sent"), (&merged.failed, "failed"), (&merged.held, "held")];
    written.map(|(written, default)| {
        let Some(written) = written else { return inbox.with(inbox.value.join(default)) };
        if let Some(unknown) = rules::unknown_placeholder(&written.value, &["date"]) {
            let text = format!("{{{unknown}}} stands for nothing here");
            sink.fault(written.notice(text, "known is {date}: the local date of the outcome"));
            return inbox.with(inbox.value.join(default));
        }
        written.with(folders::absolute(&inbox.value, Path::new(&written.value)))
    })
}

/// What `auto_routes` makes of the root's subfolders.
fn auto_draft(setting: &Setting<'_>, raw: &Raw, root: Option<&At<PathBuf>>) -> Option<Draft> {
    let written = raw.auto_routes.as_ref();
    if written.is_some_and(|auto| !auto.value) {
        return None;
    }
    let Some(root) = root else {
        if let Some(auto) = written {
            let text = "there is no root whose subfolders could be routes";
            setting.sink.fault(auto.notice(text, "write root = '/PATH', or auto_routes = false"));
        }
        return None;
    };
    // The defaults' way of delivery and its keys are for routes that have a table, and so is a
    // format: inbound routes send JSON.
    let mut defaults = raw.defaults.clone();
    defaults.format = None;
    defaults.deliver = None;
    defaults.url = None;
    defaults.method = None;
    let has_company = raw.company.is_some() || defaults.company.is_some();
    if !has_company && written.is_none() {
        setting.sink.warn(root.notice(
            "without a company no subfolder of the root becomes a route by itself",
            "write company = 'NAME', or auto_routes = false to say that it is meant",
        ));
        return None;
    }
    let place = written.map_or_else(|| root.with(()), |auto| auto.with(()));
    let place = At { value: "auto_routes".to_owned(), ..place.with(String::new()) };
    let (rules, broken) = rules::check(setting, &place, &defaults);
    let inbox = root.with(root.value.join(VANITY));
    let claim = Claim {
        label: "auto_routes".to_owned(),
        targets: targets(setting.sink, &defaults, &inbox),
        inbox,
        has_include: false,
        is_auto: true,
    };
    Some(Draft { name: None, claim, rules, broken, vanity: String::new() })
}

/// Where the service keeps what is its own.
pub(super) fn state_dir(base: &Path, raw: &Raw) -> At<PathBuf> {
    match &raw.state_dir {
        Some(written) => written.with(folders::absolute(base, written.value.as_ref())),
        None => At { value: default_state_dir(), line: 0, key: "state_dir".to_owned() },
    }
}

#[cfg(not(windows))]
pub(super) fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/patchdrop")
}

#[cfg(windows)]
#[expect(clippy::disallowed_methods, reason = "Windows names its places by the environment")]
pub(super) fn default_state_dir() -> PathBuf {
    let program_data = std::env::var_os("ProgramData").unwrap_or_else(|| r"C:\ProgramData".into());
    PathBuf::from(program_data).join("patchdrop").join("state")
}

/// A size that any editor opens, and with the number that is kept days of an ordinary service.
const LOG_ROLL_AT: u64 = 10_000_000;
const LOG_KEEP: usize = 10;

fn log(sink: &Sink, base: &Path, raw: &RawLog) -> LogRules {
    if let Some(level) = &raw.level {
        check_level(sink, level);
    }
    LogRules {
        level: raw.level.as_ref().map_or_else(|| "info".to_owned(), |level| level.value.clone()),
        format: raw.format.as_ref().map_or(LogFormat::Auto, |format| format.value),
        file: raw.file.as_ref().map(|file| folders::absolute(base, file.value.as_ref())),
        roll_at_bytes: raw.roll_at.as_ref().map_or(LOG_ROLL_AT, |size| size.value),
        keep: raw.keep.as_ref().map_or(LOG_KEEP, |keep| keep.value),
    }
}

/// A filter that is not understood would be taken for the name of a part of the program, and
/// nothing would be logged.
fn check_level(sink: &Sink, level: &At<String>) {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for part in level.value.split(',') {
        let (target, word) = match part.trim().split_once('=') {
            Some((target, word)) => (Some(target), word),
            None => (None, part.trim()),
        };
        let is_target = |target: &str| {
            let fits = |letter: char| letter.is_ascii_alphanumeric() || "_:-".contains(letter);
            !target.is_empty() && target.chars().all(fits)
        };
        if !LEVELS.contains(&word) || !target.is_none_or(is_target) {
            sink.fault(
                level.notice(
                    format!("{part:?} is not a level"),
                    super::suggest::hint(word, &LEVELS),
                ),
            );
        }
    }
}

/// Reports what is in one another's way on disk.
fn check_folders(
    setting: &Setting<'_>,
    raw: &Raw,
    root: Option<&At<PathBuf>>,
    state_dir: &At<PathBuf>,
    log: &LogRules,
    drafts: &mut [Draft],
) -> Vec<Claim> {
    let claims: Vec<Claim> = drafts.iter().map(|draft| draft.claim.clone()).collect();
    territory::check(setting.sink, &claims);
    let mut privates =
        vec![Private { name: "state_dir", place: state_dir.clone(), is_folder: true }];
    if let (Some(file), Some(written)) = (&log.file, &raw.log.file) {
        let place = written.with(file.clone());
        privates.push(Private { name: "the log file", place, is_folder: false });
    }
    for file in setting.vault.files.borrow().iter() {
        privates.push(Private { name: "the secret's file", place: file.clone(), is_folder: false });
    }
    if let Some(written) = &raw.ca_file {
        let place = written.with(network::path(setting.base, written));
        privates.push(Private { name: "ca_file", place, is_folder: false });
    }
    for schema in drafts.iter().filter_map(|draft| draft.rules.as_ref()?.schema_file.clone()) {
        privates.push(Private { name: "the schema", place: schema, is_folder: false });
    }
    let root = root.map(|root| root.value.as_path());
    territory::check_private(setting.sink, &claims, root, &privates);
    claims
}

fn warn(sink: &Sink, raw: &Raw, drain_for: Duration, drafts: &[Draft]) {
    let longest = drafts.iter().filter_map(|draft| draft.rules.as_ref()).map(Rules::timeout).max();
    if let Some(longest) = longest.filter(|longest| *longest > drain_for) {
        let written = raw.drain_for.as_ref().map(|span| span.with(()));
        let place = written.unwrap_or(At { value: (), line: 0, key: "drain_for".to_owned() });
        sink.warn(place.notice(
            format!(
                "a stop waits {} and an attempt may take {}: what is cut off is in doubt",
                show_span(drain_for),
                show_span(longest)
            ),
            format!("write drain_for = \"{}\" or more", show_span(longest)),
        ));
    }
    if raw.routes.is_empty() && drafts.is_empty() {
        sink.warn(Notice {
            key: String::new(),
            line: None,
            text: "there is no route: nothing is watched".to_owned(),
            hint: Some("write root and company, or a table [route.NAME]".to_owned()),
        });
    }
}

/// Absolute folders outside the root: each holds a mark of whose it is.
fn marked(root: Option<&At<PathBuf>>, claims: &[Claim]) -> Vec<Arc<Path>> {
    let root = root.map(|root| Shape::of(&root.value));
    let mut marked: BTreeSet<PathBuf> = BTreeSet::new();
    for claim in claims {
        let folder: PathBuf = claim.inbox.value.iter().take_while(|part| *part != VANITY).collect();
        if !root.as_ref().is_some_and(|root| root.holds(&Shape::of(&folder))) {
            marked.insert(folder);
        }
    }
    marked.into_iter().map(Arc::from).collect()
}

/// Puts every draft where it belongs: routes, discoveries, broken ones.
fn place_routes(config: &mut Config, raw: &Raw, drafts: Vec<Draft>, claims: &[Claim]) {
    let names: BTreeSet<String> = raw.routes.iter().map(|(name, _)| name.value.clone()).collect();
    for (at, draft) in drafts.into_iter().enumerate() {
        let Some(rules) = draft.rules else { continue };
        let folder = &draft.claim.inbox.value;
        if let Some(notice) = &draft.broken {
            config.broken.push(BrokenRoute {
                name: draft.name.clone().unwrap_or_else(|| "auto_routes".to_owned()),
                folder: Arc::from(folder.as_path()),
                notice: notice.clone(),
            });
        }
        let parent: PathBuf = folder.iter().take_while(|part| *part != VANITY).collect();
        if parent != *folder {
            let suffix = folder.iter().skip_while(|part| *part != VANITY).skip(1).collect();
            config.discoveries.push(Discovery {
                name: draft.name,
                suffix,
                template: Arc::new(Template {
                    rules,
                    broken: draft.broken,
                    parent: Shape::of(&parent),
                    taken: territory::taken(claims, at),
                    names: names.clone(),
                }),
                parent: Arc::from(parent),
            });
        } else if let (Some(name), None) = (&draft.name, &draft.broken) {
            config.routes.push(Arc::new(rules.route(name, folder, &draft.vanity)));
        }
    }
}
