//! Every command beside a running service and after it has stopped: the real program, the
//! simulator on loopback, folders of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use patchdrop::simulator::{Act, Match, Rule, Simulator, SimulatorOptions};
use serde_json::Value;

use crate::{Ended, program};

/// Whatever has not come after this long does not come.
const GUARD: Duration = Duration::from_mins(1);

/// One root with its config, and the server that it sends to.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) simulator: Simulator,
    runtime: tokio::runtime::Runtime,
    pub(crate) secret: String,
}

/// A service that runs; it is stopped in any case.
pub(crate) struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(SimulatorOptions::default())
    }

    pub(crate) fn with(options: SimulatorOptions) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let secret = options.client_secret.reveal().to_owned();
        let (company, client_id) = (options.company.clone(), options.client_id.clone());
        let simulator = runtime.block_on(Simulator::start(options)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "root = 'drop'\nstate_dir = 'state'\ncompany = '{company}'\nbase_url = '{}'\n\
             [credential.inbound]\nkind = 'oauth2'\ntoken_url = '{}'\nclient_id = '{client_id}'\n\
             client_secret = {{ env = 'LIVE_SECRET' }}\n\
             [defaults]\nquiet_for = '20ms'\n",
            simulator.base_url(),
            simulator.token_url(),
        );
        std::fs::create_dir_all(folder.path().join("drop/orders")).unwrap();
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder, simulator, runtime, secret }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn orders(&self, below: &str) -> PathBuf {
        self.path("drop/orders").join(below)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("--config").arg(self.path("config.toml")).args(arguments);
        command.env("LIVE_SECRET", &self.secret);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().expect("the program starts");
        Ended {
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
            code: output.status.code().expect("an end without a signal"),
        }
    }

    /// Runs a command that must end with this code.
    pub(crate) fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let Ended { out, err, code: ended } = self.run(arguments);
        assert_eq!(ended, code, "{arguments:?}\n{out}\n{err}");
        out
    }

    pub(crate) fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let out = self.ends(code, &[arguments, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{out}"))
    }

    /// Starts the service and waits until it answers for its route.
    pub(crate) fn start(&self) -> Service {
        let child = self
            .command(&["run"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path("log")).unwrap())
            .spawn()
            .unwrap();
        let service = Service(child);
        self.until("the route is swept", || {
            let ended = self.run(&["status", "--json"]);
            let status: Value = serde_json::from_str(&ended.out).unwrap_or_default();
            status["pid"] == service.0.id() && !status["routes"][0]["swept_at"].is_null()
        });
        service
    }

    pub(crate) fn stop(&self, mut service: Service) {
        let pid = i32::try_from(service.0.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = service.0.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < GUARD, "never: {what}\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Renames a file into the drop folder, as a careful program does.
    pub(crate) fn drop_in(&self, name: &str, content: &str) {
        let part = self.path("drop").join(format!("orders/{name}.tmp"));
        std::fs::write(&part, content).unwrap();
        std::fs::rename(part, self.orders(name)).unwrap();
    }

    pub(crate) fn rules(&self, act: Option<Act>) {
        let rule = |act| Rule { when: Match::default(), act, ..Rule::default() };
        self.simulator.set_rules(act.map(rule).into_iter().collect());
    }

    /// Drops a file and waits until it lies in that folder and the ledger says so.
    pub(crate) fn drop_until(&self, name: &str, content: &str, state: &str) -> Value {
        self.drop_in(name, content);
        self.until(&format!("{name} is {state}"), || self.orders(state).join(name).exists());
        self.listed(name, state)
    }

    fn listed(&self, name: &str, state: &str) -> Value {
        let mut found = Value::Null;
        self.until(&format!("{name} is listed as {state}"), || {
            let all = self.json(0, &["list", "--state", state]);
            let one = all.as_array().unwrap().iter().find(|line| line["name"] == name);
            found = one.cloned().unwrap_or_default();
            !found.is_null()
        });
        found
    }

    fn keys(&self) -> Vec<String> {
        let payloads = self.simulator.seen().payloads;
        payloads.iter().map(|it| it.key.as_deref().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.simulator.stop();
        self.runtime.block_on(self.simulator.stopped());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn refused() -> Act {
    Act::Answer { status: 422, message: None, retry_after: None }
}

#[test]
fn a_dry_run_says_where_each_file_would_go_and_touches_nothing() {
    let site = Site::new();
    std::fs::write(site.orders("a.json"), "{}").unwrap();
    std::fs::write(site.orders("b.json"), "{\"a\" 1}").unwrap();
    std::fs::write(site.orders("c.csv"), "1").unwrap();
    std::fs::write(site.path("drop/stray.json"), "{}").unwrap();
    std::fs::create_dir(site.path("drop/No Vanity")).unwrap();
    let fates = || {
        let lines = site.json(3, &["run", "--dry-run"]);
        let line = |line: &Value| format!("{} {} {}", line["path"], line["fate"], line["code"]);
        lines.as_array().unwrap().iter().map(line).collect::<Vec<_>>().join("\n")
    };
    // The change time must be a moment old.
    site.until("b.json is ready", || {
        let ended = site.run(&["run", "--dry-run"]);
        ended.code == 3 && ended.out.contains("would be sent  a.json (2 bytes)")
    });
    let fates = fates();
    for expected in [
        "a.json\" \"sent\" null",
        "b.json\" \"failed\" \"not-json\"",
        "c.csv\" \"stays\" \"ignored\"",
        "drop/stray.json\" \"stays\" \"no-route\"",
    ] {
        assert!(fates.contains(expected), "{expected} is not in\n{fates}");
    }
    let text = site.ends(3, &["run", "--dry-run"]);
    let summary = "1 file would be sent, 1 would fail, 2 stay. Nothing was touched.";
    assert!(text.contains(summary), "{text}");
    assert!(!text.contains(&site.secret), "{text}");
    let no_route = "No Vanity is no route, nothing in it is sent: ";
    assert!(text.contains(no_route), "{text}");
    assert!(site.ends(0, &["status"]).contains(no_route));
    assert_eq!(names(&site.path("drop/orders")), ["a.json", "b.json", "c.csv"]);
    assert!(!site.path("state").exists());
    assert!(!site.path("drop/.patchdrop").exists());

    let good =
        site.ends(0, &["check", site.orders("a.json").to_str().unwrap(), "--route", "orders"]);
    assert!(good.contains("would be sent to"), "{good}");
    let bad =
        site.ends(3, &["check", site.orders("b.json").to_str().unwrap(), "--route", "orders"]);
    assert!(bad.contains("line 1, column ") && bad.contains("there: "), "{bad}");
    let why = site.ends(0, &["explain", "c.csv"]);
    assert!(why.contains("(ignored)") && why.contains("No service is running"), "{why}");
}

#[test]
fn a_refused_file_is_resent_under_a_new_id_and_key() {
    let site = Site::new();
    site.rules(Some(refused()));
    let service = site.start();
    let old = site.drop_until("a.json", "{}", "failed");
    let note = "the shop says no";
    assert_eq!(site.json(0, &["mark", "a.json", "--failed", "--note", note])[0]["ok"], true);
    site.rules(None);
    assert_eq!(names(&site.orders("failed")), ["a.json", "a.json.why.txt"], "it stays there");
    assert_eq!(site.json(0, &["verify"])["faults_total"], 0);
    let done = site.json(0, &["resend", "a.json"]);
    assert_eq!((&done[0]["subject"], &done[0]["ok"]), (&old["id"], &Value::Bool(true)));
    let new = site.listed("a.json", "sent");
    assert_ne!(new["id"], old["id"]);
    assert_eq!(new["previous"], old["id"]);
    assert_ne!(new["idempotency_key"], old["idempotency_key"]);
    let old_id = old["id"].as_str().unwrap();
    for superseded in [vec!["resend", old_id], vec!["mark", old_id, "--sent", "--note", "x"]] {
        assert_ne!(site.run(&superseded).code, 0, "{superseded:?} is for the later journey");
    }
    assert_eq!(names(&site.orders("sent")), ["a.json"]);
    let story = site.json(0, &["explain", old_id]);
    assert_eq!(story["taken_up_again_as"], new["id"]);
    site.until("nothing counts as failed", || {
        let status = site.json(0, &["status"]);
        status["routes"][0]["failed"] == 0 && status["routes"][0]["sent"] == 1
    });
    site.stop(service);
    let status = site.json(0, &["status"]);
    assert_eq!((&status["pid"], &status["routes"][0]["failed"]), (&0.into(), &0.into()));
    assert_eq!(site.json(0, &["verify"])["faults_total"], 0);
}

#[test]
fn a_held_file_is_released_under_its_key_or_marked_by_what_a_person_knows() {
    let site = Site::new();
    site.rules(Some(Act::StoreThenCut));
    let service = site.start();
    let first = site.drop_until("a.json", "[1]", "held");
    let second = site.drop_until("b.json", "[2]", "held");
    let status = site.ends(0, &["status"]);
    assert!(status.contains("route orders: 2 files held, a person decides"), "{status}");
    site.rules(None);
    let done = site.json(0, &["release", first["id"].as_str().unwrap()]);
    assert_eq!(done[0]["ok"], true, "{done}");
    assert_eq!(site.listed("a.json", "sent")["id"], first["id"]);
    let key = first["idempotency_key"].as_str().unwrap();
    assert_eq!(site.keys().iter().filter(|seen| *seen == key).count(), 2);

    let note = "seen in the shop";
    let done = site.json(0, &["mark", "b.json", "--sent", "--note", note]);
    assert_eq!(done[0]["ok"], true, "{done}");
    assert_eq!(site.listed("b.json", "sent")["id"], second["id"]);
    site.until("b.json is in sent/", || site.orders("sent/b.json").exists());
    assert!(site.ends(0, &["explain", "b.json"]).contains(note));
    assert_eq!(site.json(0, &["verify"])["faults_total"], 0);
    site.stop(service);
    assert_eq!(site.json(0, &["verify"])["faults_total"], 0);
    assert_eq!(names(&site.orders("held")), Vec::<String>::new());
}

#[test]
fn what_is_changed_without_a_service_is_done_by_the_next_one() {
    let site = Site::new();
    site.rules(Some(refused()));
    let service = site.start();
    let failed = site.drop_until("a.json", "[1]", "failed");
    site.rules(Some(Act::StoreThenCut));
    let held = site.drop_until("b.json", "[2]", "held");
    let known = site.drop_until("c.json", "[3]", "held");
    site.stop(service);
    site.rules(None);
    let id = |line: &Value| line["id"].as_str().unwrap().to_owned();
    assert_eq!(site.json(0, &["resend", &id(&failed)])[0]["ok"], true);
    assert_eq!(site.json(0, &["release", &id(&held)])[0]["ok"], true);
    let marked = site.json(0, &["mark", &id(&known), "--sent", "--note", "it is there"]);
    assert_eq!(marked[0]["ok"], true);
    assert_eq!(names(&site.orders("sent")), ["c.json"]);
    assert_eq!(site.json(0, &["verify"])["faults_total"], 0);
    let service = site.start();
    site.until("all are sent", || names(&site.orders("sent")).len() == 3);
    site.stop(service);
    assert_eq!(site.json(0, &["list", "--state", "sent"]).as_array().unwrap().len(), 3);
    assert_eq!(site.json(0, &["verify"])["faults_total"], 0);
}

#[test]
fn a_pause_survives_a_restart_and_ends_with_resume() {
    let site = Site::new();
    let service = site.start();
    assert_eq!(site.json(0, &["pause", "orders"])[0]["ok"], true);
    site.stop(service);
    let status = site.json(0, &["status"]);
    assert_eq!(status["routes"][0]["pause"]["code"], "paused-by-person");
    let service = site.start();
    site.drop_in("a.json", "{}");
    site.until("the file waits for the pause", || {
        site.json(0, &["status"])["routes"][0]["waiting"]["paused"]["files"] == 1
    });
    let why = site.ends(0, &["explain", "a.json"]);
    assert!(why.contains("a person paused it"), "{why}");
    assert_eq!(site.simulator.seen().accepted, 0);
    assert_eq!(site.json(0, &["resume", "orders"])[0]["ok"], true);
    site.listed("a.json", "sent");
    site.stop(service);
    assert_eq!(site.json(0, &["pause", "orders"])[0]["ok"], true);
    assert_eq!(site.json(0, &["resume", "orders"])[0]["ok"], true);
    assert!(site.json(0, &["status"])["routes"][0]["pause"].is_null());
}

#[test]
fn send_waits_for_the_end_and_a_file_moved_back_by_hand_remembers() {
    let site = Site::new();
    std::fs::create_dir(site.path("state")).unwrap();
    let file = site.path("a.json");
    std::fs::write(&file, "{}").unwrap();
    let send = ["send", file.to_str().unwrap(), "--route", "orders"];
    let alone = site.run(&send);
    assert_eq!(alone.code, 69, "{}", alone.err);
    assert!(alone.err.contains("no service is running"), "{}", alone.err);
    let service = site.start();
    site.listed("a.json", "sent");
    let told = site.ends(0, &send);
    assert!(told.contains(") is sent: accepted"), "{told}");
    assert_eq!(site.ends(0, &["list", "--state", "sent"]).lines().count(), 3);

    site.rules(Some(refused()));
    std::fs::write(&file, "[7]").unwrap();
    let failed = site.ends(3, &send);
    assert!(failed.contains(") is failed: "), "{failed}");
    let old = site.listed("a.json", "failed");
    site.rules(None);
    std::fs::rename(site.orders("failed/a.json"), site.orders("a.json")).unwrap();
    site.until("it is sent", || {
        let all = site.json(0, &["list", "--state", "sent"]);
        all.as_array().unwrap().iter().any(|line| line["previous"] == old["id"])
    });
    let story = site.ends(0, &["explain", old["id"].as_str().unwrap()]);
    assert!(story.contains("taken up again as"), "{story}");
    assert_eq!(site.json(0, &["verify"])["faults_total"], 0);
    site.stop(service);
}

#[test]
fn a_token_is_shown_refreshed_and_forgotten_and_never_printed() {
    let site = Site::new();
    let none = site.json(0, &["token"]);
    assert!(none[0]["expires_at"].is_null(), "{none}");
    let service = site.start();
    site.drop_until("a.json", "{}", "sent");
    let kept = site.json(0, &["token"]);
    assert!(!kept[0]["expires_at"].is_null(), "{kept}");
    site.stop(service);
    assert_eq!(site.simulator.seen().tokens_issued, 1);
    let fresh = site.json(0, &["token", "inbound", "--refresh"]);
    assert_eq!(site.simulator.seen().tokens_issued, 2);
    assert!(!fresh.to_string().contains(&site.secret));
    assert!(site.ends(0, &["token", "--forget"]).contains("forgotten"));
    assert!(site.json(0, &["token"])[0]["expires_at"].is_null());
}

#[test]
fn a_second_instance_and_another_ledgers_root_are_refused() {
    let site = Site::new();
    let service = site.start();
    let second = site.run(&["run"]);
    assert_eq!(second.code, 69, "{}", second.err);
    assert!(second.err.contains(&service.0.id().to_string()), "who: {}", second.err);
    site.stop(service);
    let config = std::fs::read_to_string(site.path("config.toml")).unwrap();
    let other = config.replace("state_dir = 'state'", "state_dir = 'other'");
    std::fs::write(site.path("config.toml"), other).unwrap();
    let foreign = site.run(&["run"]);
    assert_eq!(foreign.code, 78, "{}", foreign.err);
    assert!(foreign.err.contains("patchdrop adopt"), "{}", foreign.err);
}

#[test]
fn a_config_at_fault_or_a_missing_secret_ends_with_78_and_touches_nothing() {
    let site = Site::new();
    let mut command = site.command(&["run"]);
    let output = command.env_remove("LIVE_SECRET").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("LIVE_SECRET") && text.contains("client_secret"), "{text}");
    let config = std::fs::read_to_string(site.path("config.toml")).unwrap();
    std::fs::write(site.path("config.toml"), config.replace("company", "compani")).unwrap();
    for command in ["run", "status", "check"] {
        let ended = site.run(&[command]);
        assert_eq!(ended.code, 78, "{command}: {}", ended.err);
        assert!(ended.err.contains("compani"), "{command}: {}", ended.err);
    }
    assert_eq!(names(&site.path("drop/orders")), Vec::<String>::new());
    assert!(!site.path("state").exists());
}

#[test]
fn all_routes_pause_at_once_and_what_was_paused_before_stays_so() {
    let site = Site::new();
    std::fs::create_dir(site.path("drop/invoices")).unwrap();
    let service = site.start();
    let pauses = || -> Vec<(String, bool)> {
        let status = site.json(0, &["status"]);
        let routes = status["routes"].as_array().unwrap().iter();
        routes.map(|it| (it["name"].as_str().unwrap().to_owned(), !it["pause"].is_null())).collect()
    };
    let stand = |expected: &[(&str, bool)]| {
        site.until("the routes stand so", || {
            pauses().iter().map(|(name, is)| (name.as_str(), *is)).eq(expected.iter().copied())
        });
    };
    stand(&[("invoices", false), ("orders", false)]);
    site.ends(0, &["pause", "invoices"]);
    let answer = site.json(0, &["pause", "--all"]);
    assert_eq!(
        (&answer[0]["subject"], &answer[1]["subject"]),
        (&"orders".into(), &"all routes".into())
    );
    assert!(!site.json(0, &["status"])["all_paused_since"].is_null());
    // A route that is found meanwhile does not send either, nor does a restart end it.
    std::fs::create_dir(site.path("drop/stock")).unwrap();
    stand(&[("invoices", true), ("orders", true), ("stock", true)]);
    site.drop_in("a.json", "{}");
    site.stop(service);
    let service = site.start();
    stand(&[("invoices", true), ("orders", true), ("stock", true)]);
    site.until("the file waits for the pause", || {
        site.json(0, &["status"])["routes"][1]["waiting"]["paused"]["files"] == 1
    });
    assert_eq!(site.simulator.seen().accepted, 0);
    let said = site.ends(0, &["status"]);
    assert_eq!(said.matches("a person paused all routes at once").count(), 1, "{said}");
    let health = site.run(&["health"]);
    assert_eq!(health.code, 1, "{}", health.out);
    assert!(health.out.contains("patchdrop resume --all"), "{}", health.out);
    // One may go alone, and all others stay.
    let alone = site.ends(0, &["resume", "stock"]);
    assert!(alone.contains("goes on alone"), "{alone}");
    stand(&[("invoices", true), ("orders", true), ("stock", false)]);
    assert!(!site.json(0, &["status"])["all_paused_since"].is_null());
    site.ends(0, &["pause", "--all"]);
    stand(&[("invoices", true), ("orders", true), ("stock", true)]);
    // Without a service the same.
    site.stop(service);
    assert_eq!(site.json(0, &["resume", "--all"]).as_array().unwrap().len(), 3);
    let service = site.start();
    stand(&[("invoices", true), ("orders", false), ("stock", false)]);
    site.listed("a.json", "sent");
    assert!(site.json(0, &["status"])["all_paused_since"].is_null());
    let nothing = site.json(0, &["resume", "--all"]);
    assert!(nothing[0]["text"].as_str().unwrap().starts_with("nothing to change"), "{nothing}");
    site.stop(service);
}

#[test]
fn a_route_that_goes_alone_is_named_and_comes_back_paused_once_it_has_left() {
    let site = Site::new();
    std::fs::create_dir(site.path("drop/stock")).unwrap();
    let service = site.start();
    let stands = |is_paused: bool| {
        site.until("stock stands so", || {
            let route = &site.json(0, &["status"])["routes"][1];
            route["name"] == "stock" && route["pause"].is_null() != is_paused
        });
    };
    stands(false);
    site.ends(0, &["pause", "--all"]);
    site.ends(0, &["resume", "stock"]);
    stands(false);
    for (code, command) in [(0, "status"), (1, "health")] {
        let said = site.ends(code, &[command]);
        assert!(said.contains("nothing is sent but by stock, which goes on alone"), "{said}");
    }
    // A restart is no leaving.
    site.stop(service);
    let service = site.start();
    stands(false);
    // An order keeps nobody waiting meanwhile.
    site.drop_in("a.json", "{}");
    let path = site.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let ordered = "[route.orders]\norder = 'name'\non_failed = 'skip'\n";
    std::fs::write(&path, format!("{text}{ordered}")).unwrap();
    site.ends(0, &["reload"]);
    site.until("the file waits for the pause all the same", || {
        site.json(0, &["status"])["routes"][0]["waiting"]["paused"]["files"] == 1
    });
    site.stop(service);
    std::fs::remove_dir_all(site.path("drop/stock")).unwrap();
    let service = site.start();
    assert_eq!(site.json(0, &["status"])["routes"].as_array().unwrap().len(), 1);
    std::fs::create_dir(site.path("drop/stock")).unwrap();
    stands(true);
    site.stop(service);
}

#[test]
fn a_pause_of_all_holds_where_there_is_no_route_yet_and_for_those_that_come() {
    let site = Site::new();
    std::fs::create_dir(site.path("state")).unwrap();
    std::fs::remove_dir(site.path("drop/orders")).unwrap();
    let paused = site.ends(0, &["pause", "--all"]);
    assert!(paused.starts_with("all routes: paused, also those that are found later"), "{paused}");
    let said = site.ends(0, &["status"]);
    assert!(said.contains("a person paused all routes at once"), "{said}");
    std::fs::create_dir(site.path("drop/orders")).unwrap();
    site.drop_in("a.json", "{}");
    site.until("without a service it is known to wait for the pause, too", || {
        site.json(0, &["status"])["routes"][0]["waiting"]["paused"]["files"] == 1
    });
    let said = site.run(&["run", "--once", "--allow-root"]).err;
    assert!(said.contains("a person has paused all routes"), "{said}");
    std::fs::write(site.path("b.json"), "{}").unwrap();
    let b = site.path("b.json");
    let sent = ["send", b.to_str().unwrap(), "--route", "orders", "--for", "1s"];
    std::fs::remove_file(site.path("drop/orders/b.json")).ok();
    let service = site.start();
    let said = site.run(&sent);
    assert!(said.out.contains("patchdrop resume --all"), "{}{}", said.out, said.err);
    std::fs::remove_file(site.path("drop/orders/b.json")).unwrap();
    let said = site.ends(0, &["release", "--route", "orders"]);
    assert!(said.contains("once it is not paused: patchdrop resume --all"), "{said}");
    site.until("the file waits for the pause", || {
        site.json(0, &["status"])["routes"][0]["waiting"]["paused"]["files"] == 1
    });
    assert_eq!(site.simulator.seen().accepted, 0);
    site.ends(0, &["resume", "--all"]);
    site.listed("a.json", "sent");
    site.stop(service);
}

#[test]
fn a_restart_and_a_reload_forget_neither_what_was_sent_last_nor_since_when_it_runs() {
    let site = Site::new();
    let service = site.start();
    site.drop_until("a.json", "{}", "sent");
    site.stop(service);
    let service = site.start();
    let status = || site.json(0, &["status"]);
    let before = status();
    assert!(!before["routes"][0]["last_sent_at"].is_null(), "{before}");
    site.ends(0, &["reload"]);
    site.until("the route is there again", || !status()["routes"][0]["swept_at"].is_null());
    let after = status();
    assert_eq!(after["started_at"], before["started_at"]);
    assert_eq!(after["routes"][0]["last_sent_at"], before["routes"][0]["last_sent_at"]);
    site.stop(service);
}

#[test]
fn a_log_file_that_cannot_be_opened_is_told_with_what_to_do() {
    let site = Site::new();
    let path = site.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}[log]\nfile = 'nowhere/patchdrop.log'\n")).unwrap();
    let ended = site.run(&["run"]);
    assert_eq!(ended.code, 78, "{}", ended.err);
    assert!(ended.err.contains("the file's folder must be there"), "{}", ended.err);
}
