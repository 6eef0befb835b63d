//! `patchdrop demo`: the whole road on sample files, against the simulator.

use super::exit_code::Exit;
use super::failure::Failure;
use super::screen::Screen;
use super::seam;

/// See it work: a simulated server, a service, sample files, and what becomes of each
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everything happens in a temporary folder and on this machine's loopback address.\n\n\
    Examples:\n  \
    patchdrop demo\n  \
    patchdrop demo --stay   keeps running: drop files of your own"
)]
pub(super) struct Arguments {
    /// Keep running afterwards, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

pub(super) async fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    seam::demo(arguments.stay, screen).await
}
