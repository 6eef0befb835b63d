//! `patchdrop completions`: what the shell needs to complete our commands.

use clap_complete::Shell;

use super::exit_code::Exit;
use super::failure::Failure;
use super::screen::Screen;

/// Write the completions for a shell to standard output
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    patchdrop completions bash > /etc/bash_completion.d/patchdrop")]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    // Into memory first: clap_complete panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::command_line(), "patchdrop", &mut script);
    screen.out.write_all(&script)?;
    Ok(Exit::Done)
}
