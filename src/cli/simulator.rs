//! `patchdrop simulator`: a stand-in for the Patchworks APIs, for dry runs.

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::screen::Screen;
use crate::simulator::{Simulator, SimulatorOptions};

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
    let simulated = start_simulator(arguments.port.unwrap_or(0)).await?;
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

/// A running simulator.
struct Simulated {
    /// What and where.
    urls: Vec<(String, String)>,
    /// The client secret that it takes; a stand-in's, so no secret.
    client_secret: String,
    /// A config that uses it.
    example: String,
    simulator: Simulator,
}

impl Simulated {
    /// Ends it.
    async fn stop(self) {
        self.simulator.stop();
        self.simulator.stopped().await;
    }
}

/// Starts the simulator on loopback; port 0 is a free one.
async fn start_simulator(port: u16) -> Result<Simulated, Failure> {
    let options = SimulatorOptions { port, ..SimulatorOptions::default() };
    let (company, client_id) = (options.company.clone(), options.client_id.clone());
    let client_secret = options.client_secret.reveal().to_owned();
    let simulator = Simulator::start(options).await.map_err(|error| {
        Failure::machine(error).hint("give another port, or none for a free one")
    })?;
    let (base_url, token_url) = (simulator.base_url(), simulator.token_url());
    let example = format!(
        "root     = 'drop'\ncompany  = '{company}'\nbase_url = '{base_url}'\n\n\
         [credential.inbound]\nkind          = 'oauth2'\ntoken_url     = '{token_url}'\n\
         client_id     = '{client_id}'\n\
         client_secret = {{ env = 'PATCHDROP_CLIENT_SECRET' }}\n"
    );
    let urls = vec![
        ("inbound API".to_owned(), format!("{base_url}/{company}/VANITY")),
        ("token".to_owned(), token_url),
    ];
    Ok(Simulated { urls, client_secret, example, simulator })
}
