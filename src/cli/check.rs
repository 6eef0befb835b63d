//! `patchdrop check`: is the config right, and what does it mean? Is this file right?
#![expect(clippy::disallowed_methods, reason = "it reads a file that a person names")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Globals;
use super::change;
use super::exit_code::Exit;
use super::failure::{Failure, Kind, write_notice};
use super::findings;
use super::load::{self, Secrets};
use super::online::{self, Outlook};
use super::preview;
use super::screen::{Align, Screen, Table, counted, shown_bytes};
use crate::config::Config;
use crate::journey::grounds::{self, Role};
use crate::journey::validate::Checked;
use crate::model::file::Kind as FileKind;
use crate::model::outcome::Fault;
use crate::model::route::{Delivery, Route};
use crate::model::step::Envelope;

/// Check the config and show what it means, or check one file by a route's rules
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It touches nothing. With --online it asks each credential for a token, which is not \
    kept, and\nreaches each server, without a request to any path that a route sends to; it then ends with 69\nif \
    something is not there, with 78 if a credential or a URL is refused.\n\n\
    Examples:\n  \
    patchdrop --config ./config.toml check\n  \
    patchdrop check --online\n  \
    patchdrop check order-17.json --route orders"
)]
pub(super) struct Arguments {
    /// A file to check
    #[arg(requires = "route")]
    file: Option<PathBuf>,
    /// The route whose rules it must meet
    #[arg(long, requires = "file")]
    route: Option<String>,
    /// Relative paths in the config are relative to this folder [default: the config's]
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Try the credentials and reach the servers too, without sending anything
    #[arg(long, conflicts_with = "file")]
    online: bool,
    /// Print the routes as JSON
    #[arg(long, conflicts_with = "file")]
    json: bool,
}

pub(super) async fn run(
    globals: &Globals,
    arguments: &Arguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let secrets = if arguments.file.is_some() { Secrets::MayBeMissing } else { Secrets::Needed };
    let config = load::load_config(&globals.config_path(), arguments.base.as_deref(), secrets)?;
    if let (Some(file), Some(name)) = (&arguments.file, &arguments.route) {
        let route = change::known_route(&config, name)?;
        let found = validate(&route, file)?;
        return render_file(&route, &file.display().to_string(), &found, screen);
    }
    let routes = load::routes(&config);
    let unfit = unfit(&config, &routes);
    let routes: Vec<_> = routes.iter().map(|route| as_json(route, &unfit)).collect();
    let is_sound = config.broken.is_empty() && unfit.is_empty();
    let ends = if is_sound { Exit::Done } else { Exit::SomeFailed };
    if !arguments.online {
        if arguments.json {
            screen.json(&routes)?;
        } else {
            render(&config, screen)?;
        }
        return Ok(ends);
    }
    if !arguments.json {
        render(&config, screen)?;
        writeln!(screen.out)?;
        screen.out.flush()?;
    }
    let Outlook { credentials, servers, runs, .. } = online::look(&config, &screen.style).await?;
    let sections = [credentials, servers, runs];
    if arguments.json {
        let online = findings::as_json(&sections);
        screen.json(&serde_json::json!({ "routes": routes, "online": online }))?;
    } else {
        findings::render(&sections, screen)?;
    }
    Ok(ends.max(findings::exit(&sections)))
}

/// Folders in which the service would refuse to work for what they are, each with why: the root,
/// and those of routes. One that is not there yet may come.
fn unfit(config: &Config, routes: &[Arc<Route>]) -> BTreeMap<Arc<Path>, String> {
    let drop_folders = routes.iter().map(|route| (Role::Inbox, &route.folders.inbox));
    let own = routes.iter().flat_map(|route| {
        let folders = &route.folders;
        [
            (Role::Sending, &folders.sending),
            (Role::Target, &folders.sent),
            (Role::Target, &folders.failed),
            (Role::Target, &folders.held),
        ]
    });
    let all = config.root.iter().map(|root| (Role::Root, root)).chain(drop_folders).chain(own);
    let unfit = all.filter_map(|(role, folder)| {
        let kind = fs::symlink_metadata(folder).ok()?.file_type();
        let kind = match () {
            () if kind.is_symlink() => FileKind::Link,
            () if kind.is_dir() => FileKind::Folder,
            () => FileKind::Special,
        };
        grounds::is_fit(role, kind).err().map(|why| (Arc::clone(folder), why.to_string()))
    });
    unfit.collect()
}

/// Validates one file by a route's rules: what would be sent, or why not.
fn validate(route: &Route, path: &Path) -> Result<Result<Envelope, Fault>, Failure> {
    let unread = |error: io::Error| {
        Failure::because(Kind::Usage, format!("{} cannot be read", path.display()), error)
    };
    let mut file = fs::File::open(path).map_err(unread)?;
    let metadata = file.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!("{} is not a file", path.display())));
    }
    let checker = preview::checker(route)?;
    match checker.validate(&route.name, &mut file, metadata.len(), 0).result {
        Checked::Sound { envelope, .. } => Ok(Ok(envelope)),
        Checked::Truncated(fault) | Checked::Faulty(fault) => Ok(Err(fault)),
        Checked::Unread(error) => Err(unread(error)),
    }
}

/// A URL fit to be shown: no user, no query; where it may be a webhook's whole secret, its host.
pub(super) fn shown_url(delivery: &Delivery) -> String {
    let url = delivery.url.reveal();
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let path = rest.split(['?', '#']).next().and_then(|rest| rest.split_once('/'));
    match path {
        None | Some((_, "")) => format!("{scheme}://{}/", delivery.host),
        Some((_, path)) if matches!(delivery.kind, "inbound" | "flow") => {
            format!("{scheme}://{}/{path}", delivery.host)
        }
        Some(_) => format!("{scheme}://{}/…", delivery.host),
    }
}

fn as_json(route: &Route, unfit: &BTreeMap<Arc<Path>, String>) -> serde_json::Value {
    let folders = &route.folders;
    let all = [&folders.inbox, &folders.sending, &folders.sent, &folders.failed, &folders.held];
    let at_fault =
        unfit.iter().find(|(folder, _)| folders.inbox.starts_with(folder) || all.contains(folder));
    let fault = at_fault.map(|(folder, why)| format!("{} {why}", folder.display()));
    serde_json::json!({
        "route": route.name.to_string(),
        "folder": route.folders.inbox.display().to_string(),
        "sent": route.folders.sent.display().to_string(),
        "failed": route.folders.failed.display().to_string(),
        "held": route.folders.held.display().to_string(),
        "deliver": route.deliver.kind,
        "method": route.deliver.method,
        "url": shown_url(&route.deliver),
        "credential": route.deliver.credential.as_deref(),
        "include": route.select.include,
        "exclude": route.select.exclude,
        "fault": fault,
    })
}

/// What is wrong, or that nothing is.
fn render_findings(
    config: &Config,
    unfit: &BTreeMap<Arc<Path>, String>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let style = screen.style.clone();
    let path = config.path.display();
    if config.warnings.is_empty() {
        writeln!(screen.out, "{}", style.well(&format!("{path} is in order")))?;
    } else {
        let number = u64::try_from(config.warnings.len()).unwrap_or(u64::MAX);
        let warnings = counted(number, "warning");
        writeln!(screen.out, "{}", style.alarm(&format!("{path} can be used, with {warnings}")))?;
        for notice in &config.warnings {
            write_notice(screen.out, notice)?;
        }
    }
    if !config.broken.is_empty() {
        writeln!(screen.out, "{}", style.alarm("These routes cannot run; the others can:"))?;
        for broken in &config.broken {
            write_notice(screen.out, &broken.notice)?;
        }
    }
    if !unfit.is_empty() {
        let text = "Nothing is sent from below these folders as they are:";
        writeln!(screen.out, "{}", style.alarm(text))?;
        for (folder, why) in unfit {
            writeln!(screen.out, "  {} {why}", folder.display())?;
        }
    }
    Ok(())
}

fn render(config: &Config, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let routes = load::routes(config);
    let unfit = unfit(config, &routes);
    render_findings(config, &unfit, screen)?;
    writeln!(screen.out)?;
    if routes.is_empty() {
        writeln!(screen.out, "No folder is a route yet.")?;
    } else {
        let mut table = Table::new(&[
            ("route", Align::Left),
            ("files", Align::Left),
            ("in", Align::Left),
            ("go to", Align::Left),
            ("as", Align::Left),
        ]);
        for route in &routes {
            table.row(vec![
                route.name.to_string(),
                route.select.include.join(" "),
                route.folders.inbox.display().to_string(),
                format!("{} {}", route.deliver.method, shown_url(&route.deliver)),
                route.deliver.credential.as_deref().unwrap_or("nobody").to_owned(),
            ]);
        }
        table.write(screen, "")?;
    }
    for discovery in &config.discoveries {
        let mut pattern = discovery.parent.join("*");
        pattern.extend(&discovery.suffix);
        writeln!(screen.out, "\nEvery new folder {} becomes a route.", pattern.display())?;
    }
    writeln!(screen.out, "State is kept in {}.", config.state_dir.display())?;
    Ok(())
}

fn render_file(
    route: &Route,
    file: &str,
    found: &Result<Envelope, Fault>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let style = screen.style.clone();
    match found {
        Ok(envelope) => {
            let text = format!(
                "{file} would be sent to {} ({})",
                shown_url(&route.deliver),
                shown_bytes(envelope.bytes)
            );
            writeln!(screen.out, "{}", style.well(&text))?;
            writeln!(screen.out, "  sha256 {}", envelope.digest)?;
            if let Some(conversion) = envelope.conversion {
                writeln!(screen.out, "  converted: {}", conversion.name())?;
            }
            if let Some(wrap) = envelope.wrap {
                writeln!(screen.out, "  in an envelope: {}", wrap.name())?;
            }
            for remark in &envelope.remarks {
                writeln!(screen.out, "  remark: {remark}")?;
            }
            Ok(Exit::Done)
        }
        Err(Fault { cause, remedy }) => {
            let text = format!("{file} would go to failed/: {} ({})", cause.plain, cause.code);
            writeln!(screen.out, "{}", style.alarm(&text))?;
            if let Some(excerpt) = &cause.excerpt {
                writeln!(screen.out, "  there: {excerpt}")?;
            }
            writeln!(screen.out, "  {remedy}")?;
            Ok(Exit::SomeFailed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;
    use crate::config::Notice;
    use crate::model::file::Digest;
    use crate::model::outcome::{Cause, Code};
    use crate::model::secret::Secret;
    use crate::model::step::Conversion;

    #[test]
    fn no_url_is_shown_with_what_may_be_secret_in_it() {
        let root = tempfile::tempdir().unwrap();
        let check = |kind: &'static str, url: &str, expected: &str| {
            let mut delivery = fixture::route(root.path(), "orders").deliver;
            delivery.kind = kind;
            delivery.host = "h.example:8443".into();
            delivery.url = Secret::new(url);
            assert_eq!(shown_url(&delivery), expected);
        };
        let inbound = "https://h.example:8443/v1/acme/orders";
        check("inbound", inbound, inbound);
        check(
            "inbound",
            "https://u:pw@h.example:8443/v1/a?sig=s3cret",
            "https://h.example:8443/v1/a",
        );
        let flow = "https://h.example:8443/api/v1/flows/12/start";
        check("flow", &format!("{flow}?virtual_environment_id=2"), flow);
        check(
            "webhook",
            "https://h.example:8443/hook/s3cret?sig=s3cret",
            "https://h.example:8443/…",
        );
        check("http", "https://h.example:8443/hook/s3cret?sig=s3cret", "https://h.example:8443/…");
        check("http", "http://h.example:8443/", "http://h.example:8443/");
        check("http", "http://h.example:8443?k=s3cret", "http://h.example:8443/");
    }

    #[test]
    fn the_table_says_what_goes_where_and_as_whom() {
        let root = tempfile::tempdir().unwrap();
        let mut config = fixture::config(root.path(), &["stock", "orders"]);
        config.warnings.push(Notice {
            key: "drain_for".to_owned(),
            line: Some(7),
            text: "shorter than a timeout of 60s".to_owned(),
            hint: Some("a stop may cut attempts short".to_owned()),
        });
        let (text, shown) = fixture::shown(|screen| render(&config, screen));
        shown.unwrap();
        // The root's length decides on the columns' widths.
        let words: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let text = fixture::portable(&words.join("\n"), root.path());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_file_is_judged_with_its_place_and_remedy() {
        let root = tempfile::tempdir().unwrap();
        let route = fixture::route(root.path(), "orders");
        let cause = Cause::new(Code::of("json-syntax"), "a comma is missing at line 3, column 17")
            .with_excerpt(Some("\"a\": 1 \"b\"".to_owned()));
        let remedy = "Correct the file or the program that writes it.".to_owned();
        let bad = Err(Fault { cause, remedy });
        let (text, exit) = fixture::shown(|screen| render_file(&route, "a.json", &bad, screen));
        assert_eq!(exit.unwrap(), Exit::SomeFailed);
        insta::assert_snapshot!(text, @r#"
        a.json would go to failed/: a comma is missing at line 3, column 17 (json-syntax)
          there: "a": 1 "b"
          Correct the file or the program that writes it.
        "#);
        let good = Ok(Envelope {
            digest: Digest([1; 32]),
            bytes: 2_048,
            conversion: Some(Conversion::Utf8BomDropped),
            wrap: None,
            remarks: vec!["a key occurs twice".to_owned()],
        });
        let (text, exit) = fixture::shown(|screen| render_file(&route, "a.json", &good, screen));
        assert_eq!(exit.unwrap(), Exit::Done);
        insta::assert_snapshot!(text, @r"
        a.json would be sent to https://inbound.pwks.co/v1/acme/orders (2.0 kB)
          sha256 0101010101010101010101010101010101010101010101010101010101010101
          converted: utf-8-bom-dropped
          remark: a key occurs twice
        ");
    }
}
