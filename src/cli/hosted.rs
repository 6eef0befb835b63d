//! `patchdrop run --service`: what the service manager of Windows starts. It has no terminal: what
//! an administrator must see goes to the log file and to the Event Log.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Globals;
use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::run::serve;
use super::wishes::Wishes;
use crate::daemon::Mode;
use crate::service::{self, Instance};
use crate::telemetry;

/// A panic is seen by nobody on standard error.
fn log_panics() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        shown(panic);
        let (text, place) = (panic.payload_as_str(), panic.location().map(ToString::to_string));
        tracing::error!(
            text,
            place,
            "patchdrop has a bug; no file is lost by it, please report this"
        );
    }));
}

pub(super) fn run(
    globals: &Globals,
    instance: Option<&str>,
    allows_root: bool,
) -> Result<Exit, Failure> {
    let name: Arc<str> = service::windows_name(&Instance::of(instance)?).into();
    log_panics();
    let (wishes, heed) = Wishes::by_manager();
    let (runtime, globals, source) = (Handle::current(), globals.clone(), Arc::clone(&name));
    let work = move || {
        runtime.block_on(async {
            let end = serve(&globals, Mode::Service, allows_root, wishes, Some(&source)).await;
            let Err(failure) = end else { return Exit::Done as u8 };
            let mut text = Vec::new();
            failure.write(&mut text).ok();
            telemetry::say_why_it_ends(&source, &String::from_utf8_lossy(&text));
            failure.kind.exit() as u8
        })
    };
    service::host(&name, Box::new(heed), Box::new(work)).map_err(|error| {
        let what = "only the service manager starts it so";
        Failure::because(Kind::Usage, what, error)
            .hint("patchdrop service start, or patchdrop run for a service in this terminal")
    })?;
    Ok(Exit::Done)
}
