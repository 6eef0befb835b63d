//! `patchdrop simulator`: a stand-in for the Patchworks APIs, for dry runs.

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::screen::Screen;
use super::seam;

/// Run a stand-in for the Patchworks APIs on this machine, until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "It prints its URLs and a config that uses it.\n\n\
    Example:\n  \
    patchdrop simulator --port 8400")]
pub(super) struct Arguments {
    /// The port on 127.0.0.1 [default: a free one]
    #[arg(long)]
    port: Option<u16>,
}

pub(super) async fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let simulated = seam::start_simulator(arguments.port.unwrap_or(0)).await?;
    for (what, url) in &simulated.urls {
        writeln!(screen.out, "{what:<12} {url}")?;
    }
    write!(
        screen.out,
        "\nA config that uses it (PATCHDROP_CLIENT_SECRET={}):\n\n{}\nCtrl-C ends it.\n",
        simulated.client_secret, simulated.example
    )?;
    screen.out.flush()?;
    tokio::signal::ctrl_c()
        .await
        .map_err(|error| Failure::because(Kind::Machine, "Ctrl-C cannot be waited for", error))?;
    simulated.stop().await;
    Ok(Exit::Done)
}
