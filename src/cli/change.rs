//! How a command that changes something is carried out: by the running service, or, where none
//! runs, by ourselves under its lock.

use std::io::{self, Write as _};
use std::sync::Arc;

use super::Globals;
use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::load;
use super::screen::Screen;
use super::serve;
use crate::config::Config;
use crate::model::command::{Command, CommandAnswer, Done};
use crate::model::route::Route;
use crate::world::control::{self, ControlError};

/// Ids in one command: keeps a line well below [`control::REQUEST_MAX`].
pub(super) const IDS_MAX: usize = 20_000;

/// Carries commands out in turn, prints what was done to each file or route. The end is
/// [`Exit::SomeFailed`] where something was not done.
pub(super) async fn carry_out(
    config: &Config,
    commands: Vec<Command>,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let mut done = Vec::new();
    for command in commands {
        match answer(config, command).await? {
            CommandAnswer::Done(more) => done.extend(more),
            CommandAnswer::Refused(why) => {
                report(&done, json, screen)?;
                return Err(Failure::machine(why));
            }
            CommandAnswer::Status(_) => {
                let what = "the service answered with its status instead of what it did";
                return Err(Failure::new(Kind::Bug, what));
            }
        }
    }
    report(&done, json, screen)
}

async fn answer(config: &Config, command: Command) -> Result<CommandAnswer, Failure> {
    match control::ask(&config.state_dir, &command).await {
        Err(ControlError::NoService { .. }) => serve::carry_out(config.clone(), command).await,
        answered => Ok(answered?),
    }
}

/// Has the running service carry out what needs nothing of a config, beside one that has been
/// broken since.
pub(super) async fn carry_out_in_spite_of(
    globals: &Globals,
    broken: Failure,
    command: Command,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let why = broken.error.to_string();
    match load::ask_in_spite_of(globals, broken, &command).await? {
        CommandAnswer::Done(done) => {
            let exit = report(&done, json, screen)?;
            // Standard output is for what was done.
            writeln!(
                io::stderr(),
                "note: {why}; the running service goes on under its last good one: patchdrop{} check",
                globals.flag()
            )?;
            Ok(exit)
        }
        CommandAnswer::Refused(why) => Err(Failure::machine(why)),
        CommandAnswer::Status(_) => {
            Err(Failure::new(Kind::Bug, "the service answered with its status"))
        }
    }
}

fn report(done: &[Done], json: bool, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let all_done = done.iter().all(|one| one.ok);
    if json {
        screen.json(&done)?;
    } else {
        for one in done {
            let text = format!("{}: {}", one.subject, one.text);
            let text = if one.ok { text } else { screen.style.alarm(&text) };
            writeln!(screen.out, "{text}")?;
        }
    }
    Ok(if all_done { Exit::Done } else { Exit::SomeFailed })
}

/// The route of that name.
pub(super) fn known_route(config: &Config, name: &str) -> Result<Arc<Route>, Failure> {
    let routes = load::routes(config);
    if let Some(route) = routes.iter().find(|route| &*route.name.0 == name) {
        return Ok(Arc::clone(route));
    }
    let failure = Failure::usage(format!("there is no route {name:?}"));
    let near = routes
        .iter()
        .map(|route| (strsim::damerau_levenshtein(name, &route.name.0), &route.name))
        // Two slips in a short word already make any other short word of it.
        .filter(|(slips, route)| *slips <= 2 && *slips < name.len().min(route.0.len()))
        .min();
    Err(match near {
        Some((_, near)) => failure.hint(format!("did you mean {near}?")),
        None if routes.is_empty() => {
            failure.hint("no route has a folder yet: patchdrop check shows what the config says")
        }
        None => {
            let names: Vec<&str> = routes.iter().take(10).map(|route| &*route.name.0).collect();
            let more = if routes.len() > 10 { ", …" } else { "" };
            failure.hint(format!("there are: {}{more}", names.join(", ")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;
    use crate::model::time::Wall;

    fn done(subject: &str, ok: bool, text: &str) -> Done {
        Done { subject: subject.to_owned(), ok, text: text.to_owned(), at: Wall(0) }
    }

    #[test]
    fn what_was_not_done_shows_in_text_and_in_the_exit_code() {
        let some = [done("1kq8z7x2ab", true, "released"), done("1kq8z7x2ac", false, "it is sent")];
        let (text, exit) = fixture::shown(|screen| report(&some, false, screen).unwrap());
        assert_eq!(text, "1kq8z7x2ab: released\n1kq8z7x2ac: it is sent\n");
        assert_eq!(exit, Exit::SomeFailed);

        let (text, exit) = fixture::shown(|screen| report(&some[..1], true, screen).unwrap());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value[0]["subject"], "1kq8z7x2ab");
        assert_eq!(exit, Exit::Done);
    }

    #[test]
    fn a_misspelt_route_is_answered_with_the_nearest() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders", "stock"]);
        assert_eq!(&*known_route(&config, "orders").unwrap().name.0, "orders");
        let check = |name: &str, hint: &str| {
            let failure = known_route(&config, name).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage);
            assert_eq!(failure.hints, [hint]);
        };
        check("order", "did you mean orders?");
        check("zz", "there are: orders, stock");
        check("invoices", "there are: orders, stock");
    }

    #[tokio::test]
    async fn the_running_service_is_asked_and_its_answer_printed() {
        let root = tempfile::tempdir().unwrap();
        let config = fixture::config(root.path(), &["orders"]);
        let mut server = control::ControlServer::bind(&config.state_dir).unwrap();
        let service = tokio::spawn(async move {
            let mut heard = Vec::new();
            for answer in [
                CommandAnswer::Done(vec![done("orders", true, "paused")]),
                CommandAnswer::Refused("the ledger is unavailable".to_owned()),
            ] {
                let (command, sender) = server.next().await.unwrap();
                heard.push(command);
                sender.send(answer).unwrap();
            }
            heard
        });
        let pause = Command::Pause { route: "orders".to_owned() };
        let resume = Command::Resume { route: "orders".to_owned() };
        let mut out = Vec::new();
        let mut screen = fixture::screen(&mut out);
        let both = vec![pause.clone(), resume.clone()];
        let failure = carry_out(&config, both, false, &mut screen).await.unwrap_err();
        assert_eq!(failure.error.to_string(), "the ledger is unavailable");
        assert_eq!(failure.kind, Kind::Machine);
        assert_eq!(String::from_utf8(out).unwrap(), "orders: paused\n");
        assert_eq!(service.await.unwrap(), [pause, resume]);
    }
}
