//! A service of its own for each test: root, config, simulator, and the program as a child.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, FileTimes};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use patchdrop::model::command::{Command as Asked, CommandAnswer};
use patchdrop::model::secret::Secret;
use patchdrop::model::status::{RouteStatus, Status};
use patchdrop::simulator::{Simulator, SimulatorOptions};
use patchdrop::world::control;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Only a failed test waits as long as this.
pub(crate) const GUARD: Duration = Duration::from_mins(1);

pub(crate) const SECRET: &str = "e2e-secret-7f3a";

/// Runs the simulators of all tests.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// A short wait between two looks at a condition; it decides nothing.
pub(crate) fn beat(span: Duration) {
    let end = Instant::now() + span;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// A service that need not outlive more than its own end.
pub(crate) const UNSYNCED: &str = "[ledger]\ndurability = 'process-crash'\n";

/// What a test wants to be different.
pub(crate) struct Plan {
    /// Keys at the top of the config.
    pub(crate) top: &'static str,
    /// Keys of `[defaults]`.
    pub(crate) defaults: &'static str,
    /// Tables at the end. `{sim}` is the simulator's URL, `{dir}` the scene's folder.
    pub(crate) tables: &'static str,
    pub(crate) simulator: SimulatorOptions,
    /// The account that the program runs as, if not ours.
    pub(crate) account: Option<u32>,
    /// Where the scene's own folder is made; the system's place for such things if nowhere else.
    pub(crate) within: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            top: "",
            defaults: "",
            tables: "",
            simulator: SimulatorOptions { keep_bodies: true, ..SimulatorOptions::default() },
            account: None,
            within: None,
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    pub(crate) sim: Simulator,
    plan: Plan,
    state_dir: &'static str,
    /// What the service finds in its environment besides.
    pub(crate) environment: Vec<(&'static str, String)>,
    service: Option<Child>,
}

impl Scene {
    /// A scene whose service does not run yet, with one route: `orders`.
    pub(crate) fn of(plan: Plan) -> Self {
        let options = options_of(&plan);
        let sim = runtime().block_on(Simulator::start(options)).expect("a free port");
        let dir = match &plan.within {
            Some(within) => tempfile::tempdir_in(within),
            None => tempfile::tempdir(),
        };
        let dir = dir.expect("a folder of its own");
        let scene =
            Self { dir, sim, plan, state_dir: "state", environment: Vec::new(), service: None };
        for folder in ["root", "root/orders", "outside"] {
            fs::create_dir(scene.path(folder)).unwrap();
        }
        fs::write(scene.path("secret"), SECRET).unwrap();
        scene.configure(scene.plan.top, scene.plan.defaults, scene.plan.tables);
        if let Some(account) = scene.plan.account {
            for path in ["", "root", "root/orders", "outside", "secret", "config.toml"] {
                std::os::unix::fs::chown(scene.path(path), Some(account), Some(account)).unwrap();
            }
        }
        scene
    }

    /// The same with the service running and its first sweep of `orders` done.
    pub(crate) fn running(plan: Plan) -> Self {
        let mut scene = Self::of(plan);
        scene.start();
        scene
    }

    /// Writes the config anew.
    pub(crate) fn configure(&self, top: &str, defaults: &str, tables: &str) {
        let own_defaults = ["quiet_for", "truncated_after", "headers"]
            .iter()
            .zip(["'300ms'", "'700ms'", "{ X-File-Name = '{name}' }"])
            .filter(|(key, _)| !defaults.contains(*key))
            .fold(String::new(), |text, (key, value)| text + key + " = " + value + "\n");
        let mut text = String::new();
        for (key, value) in [
            ("root", "'root'".to_owned()),
            ("company", "'demo'".to_owned()),
            ("base_url", format!("'{}'", self.sim.base_url())),
            ("state_dir", "'state'".to_owned()),
            // Nothing here may be rescued by the safety net.
            ("sweep_every", "'10m'".to_owned()),
        ] {
            if !top.lines().any(|line| line.starts_with(key)) {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        writeln!(
            text,
            "{top}\n[credential.inbound]\nkind = 'oauth2'\ntoken_url = '{}'\n\
             client_id = 'demo-client'\nclient_secret = {{ file = 'secret' }}\n\
             [log]\nformat = 'text'\nlevel = 'info'\n\
             [defaults]\n{own_defaults}{defaults}\n{tables}",
            self.sim.token_url()
        )
        .unwrap();
        let text = text.replace("{sim}", &self.sim.url());
        let text = text.replace("{dir}", &self.dir.path().display().to_string());
        fs::write(self.path("config.toml"), text).unwrap();
    }

    /// Says where the state folder is, if the plan puts it elsewhere.
    pub(crate) fn sits_in(&mut self, state_dir: &'static str) {
        self.state_dir = state_dir;
    }

    /// Cuts the simulator off and puts one that has seen nothing, with no rules, in its place.
    pub(crate) fn revive(&mut self) {
        let port = self.sim.addr().port();
        self.sim.stop();
        let options = SimulatorOptions { port, rules: Vec::new(), ..options_of(&self.plan) };
        let since = Instant::now();
        // The old one leaves its port a moment after it was told to.
        self.sim = loop {
            match runtime().block_on(Simulator::start(options.clone())) {
                Ok(sim) => break sim,
                Err(error) => assert!(since.elapsed() < GUARD, "{error:?}"),
            }
            beat(Duration::from_millis(10));
        };
    }

    /// A path in the scene's own folder.
    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The drop folder of `orders`.
    pub(crate) fn inbox(&self) -> PathBuf {
        self.path("root/orders")
    }

    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchdrop"));
        if let Some(account) = self.plan.account {
            // The account need not be able to reach the folder that the program was built in.
            let copy = self.path("patchdrop");
            if !copy.exists() {
                fs::copy(env!("CARGO_BIN_EXE_patchdrop"), &copy).unwrap();
            }
            command = Command::new(copy);
            command.uid(account).gid(account);
        }
        command
            .arg("--config")
            .arg(self.path("config.toml"))
            .env_remove("PATCHDROP_CONFIG")
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        let output = self.program().args(arguments).output().expect("the program starts");
        Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts the service without waiting for anything.
    pub(crate) fn launch(&mut self) -> u32 {
        self.launch_with(&[])
    }

    /// The same with arguments.
    pub(crate) fn launch_with(&mut self, arguments: &[&str]) -> u32 {
        assert!(self.service.is_none(), "it runs already");
        let log = File::options().append(true).create(true).open(self.path("log")).unwrap();
        let child = self
            .program()
            .arg("run")
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the service starts");
        let pid = child.id();
        self.service = Some(child);
        pid
    }

    /// Starts the service and waits until it has swept `orders`.
    pub(crate) fn start(&mut self) -> u32 {
        let pid = self.launch();
        self.until("the service has swept orders", |scene| {
            scene.route("orders").is_some_and(|route| route.swept_at.is_some())
        });
        pid
    }

    /// Asks the service to stop and waits for it; its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Asks the service to stop; it does so in order, and what it leaves agrees.
    pub(crate) fn stop_and_verify(&mut self) {
        assert_eq!(self.stop(), Some(0), "{}", self.story());
        self.verify();
    }

    /// As a power cut ends it.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.service.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, signal).expect("our own child");
    }

    /// Waits for the service's end; its exit code, none if a signal ended it.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut child = self.service.take().expect("it runs");
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if GUARD < since.elapsed() {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the service does not end\n{}", self.story());
            }
            beat(Duration::from_millis(5));
        }
    }

    /// Whether the service's process is there.
    pub(crate) fn is_up(&mut self) -> bool {
        self.service.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// How the running service stands; none if it does not answer.
    pub(crate) fn status(&self) -> Option<Status> {
        let state_dir = self.path(self.state_dir);
        match runtime().block_on(control::ask(&state_dir, &Asked::Status)) {
            Ok(CommandAnswer::Status(status)) => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn route(&self, name: &str) -> Option<RouteStatus> {
        self.status()?.routes.into_iter().find(|route| route.name == name)
    }

    /// How many files of `orders` wait under a reason.
    pub(crate) fn waiting(&self, reason: &str) -> u64 {
        self.route("orders")
            .and_then(|route| route.waiting.get(reason).map(|waiting| waiting.files))
            .unwrap_or(0)
    }

    /// Waits for a condition.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < GUARD, "waited in vain: {what}\n{}", self.story());
            beat(Duration::from_millis(15));
        }
    }

    /// Puts a whole file into `orders` by a rename.
    pub(crate) fn drop_file(&self, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        self.drop_into(&self.inbox(), name, content);
    }

    /// Puts a whole file into `orders`, which may be on another volume than the scene.
    pub(crate) fn drop_into_by_copy(&self, name: &str, content: impl AsRef<[u8]>) {
        let temporary = self.inbox().join(format!(".{name}"));
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, self.inbox().join(name)).unwrap();
    }

    /// Puts a whole file into a folder by a rename.
    pub(crate) fn drop_into(
        &self,
        folder: &Path,
        name: impl AsRef<OsStr>,
        content: impl AsRef<[u8]>,
    ) {
        let outside = self.path("outside").join(name.as_ref());
        fs::write(&outside, content).unwrap();
        fs::rename(outside, folder.join(name.as_ref())).unwrap();
    }

    /// What the simulator stored: vanity, name and body, in the order of acceptance.
    pub(crate) fn arrived(&self) -> Vec<(String, String, Vec<u8>)> {
        let (seen, bodies) = (self.sim.seen(), self.sim.bodies());
        let name = |name: Option<Box<str>>| name.map(String::from).unwrap_or_default();
        seen.payloads
            .into_iter()
            .zip(bodies)
            .map(|(seen, body)| (String::from(seen.vanity), name(seen.name), body.to_vec()))
            .collect()
    }

    /// How often each name arrived.
    pub(crate) fn arrivals(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for payload in self.sim.seen().payloads {
            let name = payload.name.map(String::from).unwrap_or_default();
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    /// Requests that were no token requests.
    pub(crate) fn posts(&self) -> u64 {
        let seen = self.sim.counts();
        seen.requests - seen.token_requests
    }

    /// Waits until exactly these names are in a folder of `orders`.
    pub(crate) fn until_in(&self, folder: &str, expected: &[&str]) {
        let path = self.inbox().join(folder);
        self.until(&format!("{expected:?} in {folder}"), |_| names(&path) == expected);
    }

    /// The code in a sidecar.
    pub(crate) fn code_of(&self, folder: &str, name: &str) -> String {
        let why = fs::read_to_string(self.inbox().join(folder).join(format!("{name}.why.txt")));
        let why = why.unwrap_or_else(|error| panic!("{name}: no sidecar: {error}"));
        let code = why.lines().find_map(|line| line.strip_prefix("code"));
        code.unwrap_or_else(|| panic!("no code in\n{why}")).trim().to_owned()
    }

    /// Ledger and folders agree, and nothing that is not ours lies where claims are.
    pub(crate) fn verify(&self) {
        let ended = self.ask(&["verify"]);
        assert_eq!(ended.code, Some(0), "verify: {ended:?}\n{}", self.story());
    }

    /// What a failed test shows.
    pub(crate) fn story(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let tail = log.lines().count().saturating_sub(60);
        let log: String =
            log.lines().skip(tail).fold(String::new(), |text, line| text + line + "\n");
        let mut tree = String::new();
        list(&self.path("root"), &mut tree);
        format!(
            "--- log (its end)\n{log}--- files\n{tree}--- simulator\n{:?}\n--- status\n{:?}",
            self.sim.counts(),
            self.status()
        )
    }

    /// Everything that the service has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.service.take() {
            let ended = child.kill().and_then(|()| child.wait());
            if let Err(error) = ended {
                eprintln!("a service of a test did not end: {error}");
            }
        }
    }
}

fn options_of(plan: &Plan) -> SimulatorOptions {
    SimulatorOptions { client_secret: Secret::new(SECRET), ..plan.simulator.clone() }
}

fn list(folder: &Path, text: &mut String) {
    for name in names(folder).into_iter().take(40) {
        let path = folder.join(&name);
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|it| it.is_dir());
        writeln!(text, "{}", path.display()).unwrap();
        if is_folder {
            list(&path, text);
        }
    }
}

/// The names in a folder, sorted; none if it is not there.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The names of what is no folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| fs::symlink_metadata(folder.join(name)).is_ok_and(|it| !it.is_dir()));
    names
}

/// Sets a file's modification time this far back.
pub(crate) fn age(path: &Path, span: Duration) {
    let then = SystemTime::now() - span;
    let file = File::open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
}

/// A number from the environment, or what it is scaled to by default.
pub(crate) fn scale(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a whole number"))
}
