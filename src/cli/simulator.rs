//! `patchdrop simulator`: a stand-in for the Patchworks APIs, for dry runs.

use std::time::Duration;

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::screen::Screen;
use crate::simulator::{Door, RunEnd, Simulator, SimulatorOptions, StartOptions};

/// Run a stand-in for the Patchworks APIs on this machine, until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It prints its URLs, the credentials that it takes, and a config for each of \
    its doors.\n\n\
    Examples:\n  \
    patchdrop simulator --port 8400\n  \
    patchdrop simulator --rate 60/60 --latency 200\n  \
    patchdrop simulator --run-takes 20000 --run-ends failure"
)]
pub(super) struct Arguments {
    /// The port on 127.0.0.1 [default: a free one]
    #[arg(long)]
    port: Option<u16>,
    /// The company that it knows
    #[arg(long, value_name = "NAME", default_value = "demo")]
    company: String,
    /// At each door so many requests in so many seconds, such as 60/60 [default: no limit]
    #[arg(long, value_name = "REQUESTS/SECONDS", value_parser = rate)]
    rate: Option<(u32, Duration)>,
    /// Milliseconds by which every answer is late
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// Answer 503 to more requests at once than this [default: no limit]
    #[arg(long, value_name = "N")]
    capacity: Option<u64>,
    /// Milliseconds before a started run begins
    #[arg(long, value_name = "MS", default_value_t = 0)]
    run_queue_delay: u64,
    /// Milliseconds that a run takes
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    run_takes: u64,
    /// How runs end
    #[arg(long, value_name = "HOW", default_value = "success")]
    run_ends: Ends,
}

/// How runs end.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Ends {
    Success,
    Failure,
    Stopped,
    Partial,
    Never,
}

impl From<Ends> for RunEnd {
    fn from(ends: Ends) -> Self {
        match ends {
            Ends::Success => Self::Success,
            Ends::Failure => Self::Failure,
            Ends::Stopped => Self::Stopped,
            Ends::Partial => Self::Partial,
            Ends::Never => Self::Never,
        }
    }
}

fn rate(text: &str) -> Result<(u32, Duration), String> {
    let parsed = text.split_once('/').and_then(|(requests, seconds)| {
        let rate: (u32, u64) = (requests.parse().ok()?, seconds.parse().ok()?);
        (rate.0 > 0 && rate.1 > 0).then_some((rate.0, Duration::from_secs(rate.1)))
    });
    parsed.ok_or_else(|| "write requests and seconds, such as 60/60".to_owned())
}

pub(super) async fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let simulated = start_simulator(arguments).await?;
    for (what, url) in &simulated.urls {
        writeln!(screen.out, "{what:<12} {url}")?;
    }
    writeln!(screen.out, "\nWhat it takes, for the environment of patchdrop:\n")?;
    for (name, value) in &simulated.environment {
        writeln!(screen.out, "{name}='{value}'")?;
    }
    writeln!(screen.out, "\nA config that uses it:\n\n{}", simulated.example)?;
    for (what, lines) in &simulated.more {
        writeln!(screen.out, "{what}, add:\n\n{lines}")?;
    }
    writeln!(screen.out, "Ctrl-C ends it.")?;
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
    urls: Vec<(&'static str, String)>,
    /// The credentials that it takes; a stand-in's, so no secrets.
    environment: Vec<(&'static str, String)>,
    /// A config that uses it.
    example: String,
    /// What to add to it for another door.
    more: Vec<(&'static str, String)>,
    simulator: Simulator,
}

impl Simulated {
    /// Ends it.
    async fn stop(self) {
        self.simulator.stop();
        self.simulator.stopped().await;
    }
}

fn options(arguments: &Arguments) -> SimulatorOptions {
    let doors = [
        Door::Token,
        Door::Login,
        Door::Inbound,
        Door::Start,
        Door::Runs,
        Door::Webhook,
        Door::Hook,
    ];
    SimulatorOptions {
        port: arguments.port.unwrap_or(0),
        company: arguments.company.clone(),
        rates: doors.into_iter().filter_map(|door| Some((door, arguments.rate?))).collect(),
        latency: Duration::from_millis(arguments.latency),
        capacity: arguments.capacity.map(|most| (most, 503)),
        start: StartOptions {
            run_queue_delay: Duration::from_millis(arguments.run_queue_delay),
            run_takes: Duration::from_millis(arguments.run_takes),
            run_ends: arguments.run_ends.into(),
            ..StartOptions::default()
        },
        ..SimulatorOptions::default()
    }
}

/// Starts the simulator on loopback; port 0 is a free one.
async fn start_simulator(arguments: &Arguments) -> Result<Simulated, Failure> {
    let options = options(arguments);
    let (company, client_id) = (options.company.clone(), options.client_id.clone());
    let email = options.login.user.clone();
    let revealed = |secret: &crate::model::secret::Secret| secret.reveal().to_owned();
    let key = options.api_keys.first().map(revealed).unwrap_or_default();
    let (secret, password) = (revealed(&options.client_secret), revealed(&options.login.password));
    let simulator = Simulator::start(options).await.map_err(|error| {
        Failure::machine(error).hint("give another port, or none for a free one")
    })?;
    let (base_url, token_url) = (simulator.base_url(), simulator.token_url());
    let (start_url, core_url) = (simulator.start_url(), simulator.core_url());
    let login_url = simulator.login_url();
    let example = format!(
        "root     = 'drop'\ncompany  = '{company}'\nbase_url = '{base_url}'\n\n\
         [credential.inbound]\nkind          = 'oauth2'\ntoken_url     = '{token_url}'\n\
         client_id     = '{client_id}'\n\
         client_secret = {{ env = 'PATCHDROP_CLIENT_SECRET' }}\n"
    );
    let flow = format!(
        "start_url = '{start_url}'       # above the first table\n\
         core_url  = '{core_url}'\n\n\
         # With two credentials an inbound route, too, says which: credential = 'inbound'\n\
         [credential.core]\nkind    = 'api_key'\n\
         api_key = {{ env = 'PATCHDROP_API_KEY' }}\n\n\
         [route.flow]\ndeliver    = 'flow'\nflow_id    = 1234\ncredential = 'core'\n"
    );
    let login = format!(
        "[credential.core]\nkind      = 'login'\nlogin_url = '{login_url}'\n\
         email     = '{email}'\npassword  = {{ env = 'PATCHDROP_PASSWORD' }}\n"
    );
    let webhook = "[route.webhook]\ndeliver = 'webhook'\n\
                   url     = { env = 'PATCHDROP_WEBHOOK_URL' }\n";
    let urls = vec![
        ("inbound API", format!("{base_url}/{company}/VANITY")),
        ("token", token_url),
        ("login", login_url),
        ("Start API", format!("{start_url}/flows/FLOW/start")),
        ("runs", format!("{core_url}/flow-runs")),
        ("webhook", format!("{start_url}/{company}/ID?patchworks_signature=...")),
        ("plain door", format!("{}/hook/NAME", simulator.url())),
        ("what it saw", format!("{}/_simulator/seen", simulator.url())),
    ];
    let environment = vec![
        ("PATCHDROP_CLIENT_SECRET", secret),
        ("PATCHDROP_API_KEY", key),
        ("PATCHDROP_PASSWORD", password),
        ("PATCHDROP_WEBHOOK_URL", revealed(&simulator.webhook_url("orders"))),
    ];
    let more = vec![
        ("For a route that starts a flow", flow),
        ("To log in instead of using a key", login),
        ("For a route to a webhook", webhook.to_owned()),
    ];
    Ok(Simulated { urls, environment, example, more, simulator })
}
