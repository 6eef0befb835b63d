//! Every door of Patchworks: flows by envelope and raw, webhooks, runs that are asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use patchdrop::model::secret::Secret;
use patchdrop::simulator::{
    Act, Door, DoorSeen, HmacEncoding, HmacOptions, LoginOptions, Match, Payload, Per, Rule,
    RunEnd, SimulatorOptions, StartOptions, WebhookOptions,
};
use sha2::{Digest, Sha256};

use super::scene::{Plan, Scene, files, names};

/// The credential of the Core API, an API key.
const CORE: &str = "
[credential.core]
kind = 'api_key'
api_key = { file = 'key' }
";

/// A route that starts flow 12 and waits for its runs.
const CONFIRMING: &str = "
[route.orders]
deliver = 'flow'
credential = 'core'
flow_id = 12
start_url = '{sim}/api/v1'
core_url = '{sim}/api/v1'
confirm = 'run'
confirm_every = '200ms'
";

const KEY: &str = "demo-key";

/// A scene with these routes and [`CORE`]; its service does not run yet.
fn scene(routes: &str, simulator: SimulatorOptions) -> Scene {
    let scene = Scene::of(Plan { simulator, ..Plan::default() });
    scene.configure("auto_routes = false", "", &format!("{CORE}{routes}"));
    fs::write(scene.path("key"), KEY).unwrap();
    scene
}

/// The same with [`CONFIRMING`].
fn confirming(simulator: SimulatorOptions) -> Scene {
    scene(CONFIRMING, simulator)
}

fn never_ending() -> SimulatorOptions {
    SimulatorOptions {
        start: StartOptions { run_ends: RunEnd::Never, ..StartOptions::default() },
        ..SimulatorOptions::default()
    }
}

/// Runs of files whose body holds this end so.
fn run_rule(contains: &str, ends: RunEnd, reason: &str) -> Rule {
    let when = Match { contains: Some(contains.to_owned()), ..Match::default() };
    let reason = Some(reason.to_owned());
    let act = Act::Run { ends, queue_millis: None, takes_millis: None, reason };
    Rule { when, act, first: None, per: Per::default() }
}

/// A door answers so.
fn answer_rule(door: Door, status: u16) -> Rule {
    let when = Match { door: Some(door), ..Match::default() };
    let act = Act::Answer { status, message: None, retry_after: None };
    Rule { when, act, first: None, per: Per::default() }
}

/// A webhook that wants an HMAC under this key.
fn signed(key: Secret) -> WebhookOptions {
    let (header, encoding) = ("X-HMAC-HASH".to_owned(), HmacEncoding::Hex);
    let hmac = Some(HmacOptions { key, header, encoding, status: 401 });
    WebhookOptions { hmac, ..WebhookOptions::default() }
}

/// What was dropped arrived, as long as it was announced.
fn check_arrived(payload: &Payload, content: &str) {
    let digest = patchdrop::model::file::Digest(Sha256::digest(content.as_bytes()).into());
    let said = format!("{:?} at {:?}", payload.name, payload.door);
    assert_eq!(payload.announced_bytes, Some(payload.bytes), "{said}");
    let arrived = payload.start.as_ref().map_or(Some(payload.sha256), |it| it.payload_sha256);
    assert_eq!(arrived, Some(digest), "{said}");
}

/// Waits until so many files are accepted and wait for their runs.
fn until_confirming(scene: &Scene, files: u64) {
    scene.until("the runs are asked for", |scene| {
        scene.route("orders").is_some_and(|route| route.confirming == files)
    });
}

fn why(scene: &Scene, folder: &str, name: &str) -> String {
    fs::read_to_string(scene.inbox().join(folder).join(format!("{name}.why.txt"))).unwrap()
}

/// A route for every way of delivery, and, with [`CORE`], a credential of every kind.
const DOORS: &str = "
[credential.login]
kind = 'login'
login_url = '{sim}/api/v1/login'
email = 'demo@example.com'
password = { file = 'password' }
[credential.basic]
kind = 'basic'
user = 'erp'
password = { file = 'password' }
hosts = ['{host}']
[credential.bearer]
kind = 'bearer'
token = { file = 'token' }
hosts = ['{host}']
[route.orders]
credential = 'inbound'
[route.envelope]
deliver = 'flow'
flow_id = 12
credential = 'core'
flow_variables = { file = '{name}', digest = '{sha256}' }
confirm = 'run'
confirm_every = '200ms'
[route.manual]
deliver = 'flow'
flow_id = 13
flow_version = 9
trigger = 'manual'
virtual_environment = 2
credential = 'login'
[route.raw]
deliver = 'flow'
flow_id = 14
body = 'raw'
credential = 'core'
[route.manual-raw]
deliver = 'flow'
flow_id = 15
body = 'raw'
trigger = 'manual'
credential = 'core'
[route.hook]
deliver = 'webhook'
url = { file = 'hook' }
hmac = { key = { file = 'hook-key' } }
[route.basic]
deliver = 'http'
url = '{sim}/hook/basic'
credential = 'basic'
[route.put]
deliver = 'http'
method = 'PUT'
url = '{sim}/hook/put'
credential = 'bearer'
hmac = { key = { file = 'hook-key' }, header = 'X-Sig', encoding = 'base64' }
";

const ROUTES: [&str; 8] =
    ["orders", "envelope", "manual", "raw", "manual-raw", "hook", "basic", "put"];

/// The secrets behind [`DOORS`], by the file that holds each; the webhook's URL has one more.
const WORDS: [(&str, &str); 4] = [
    ("key", "marked-api-key/+9"),
    ("password", "marked password?&"),
    ("token", "marked-long-lived-token"),
    ("hook-key", "marked-shared-word"),
];
const SIGNATURE: &str = "marked-signature-5e1f";

/// A scene with [`DOORS`]; its service does not run yet.
fn doors(rules: Vec<Rule>) -> Scene {
    let word = |name: &str| {
        WORDS.iter().find(|(file, _)| *file == name).map(|(_, word)| Secret::new(*word)).unwrap()
    };
    let simulator = SimulatorOptions {
        keep_bodies: true,
        hook_is_closed: true,
        api_keys: vec![word("key")],
        login: LoginOptions { password: word("password"), ..LoginOptions::default() },
        bearer: Some(word("token")),
        basic: Some(("erp".to_owned(), word("password"))),
        webhook: WebhookOptions { signature: Secret::new(SIGNATURE), ..signed(word("hook-key")) },
        rules,
        ..SimulatorOptions::default()
    };
    let scene = Scene::of(Plan { simulator, ..Plan::default() });
    let tables = format!("{CORE}{DOORS}").replace("{host}", &scene.sim.addr().to_string());
    let top = format!(
        "start_url = '{0}/api/v1'\ncore_url = '{0}/api/v1'\nauto_routes = false",
        scene.sim.url()
    );
    scene.configure(&top, "", &tables);
    for (file, secret) in WORDS {
        fs::write(scene.path(file), secret).unwrap();
    }
    fs::write(scene.path("hook"), scene.sim.webhook_url("77").reveal()).unwrap();
    for route in ROUTES {
        fs::create_dir_all(scene.path("root").join(route)).unwrap();
    }
    scene
}

/// Drops a file of its own name into every route.
fn drop_everywhere(scene: &Scene, content: &str) {
    for route in ROUTES {
        scene.drop_into(&scene.path("root").join(route), format!("{route}.json"), content);
    }
}

#[test]
fn the_same_file_goes_through_every_door() {
    let mut scene = doors(Vec::new());
    scene.start();
    let content = "{\"name\": \"Zoë \\\"\u{1F600}\\\" \\\\ \\u0000\",\r\n\t\"lines\": [1, 2]}";
    drop_everywhere(&scene, content);
    scene.until("every door has let its file in", |scene| {
        ROUTES.iter().all(|route| {
            names(&scene.path("root").join(route).join("sent")) == [format!("{route}.json")]
        })
    });
    let seen = scene.sim.seen();
    assert_eq!(seen.payloads.len(), ROUTES.len());
    let by_name: BTreeMap<String, Payload> = seen
        .payloads
        .into_iter()
        .map(|payload| (payload.name.clone().unwrap().into(), payload))
        .collect();
    for payload in by_name.values() {
        check_arrived(payload, content);
    }
    let start = |route: &str| by_name[&format!("{route}.json")].start.clone().unwrap();
    let envelope = start("envelope");
    assert!(!envelope.is_raw && &*envelope.trigger == "start");
    let variables: serde_json::Value =
        serde_json::from_str(envelope.variables.as_deref().unwrap()).unwrap();
    assert_eq!(variables["file"], "envelope.json");
    assert_eq!(variables["digest"], by_name["envelope.json"].sha256.to_string());
    let manual = start("manual");
    assert_eq!((&*manual.trigger, manual.version.as_deref()), ("manual", Some("9")));
    assert_eq!(by_name["manual.json"].environment.as_deref(), Some("2"));
    assert!(start("raw").is_raw && start("manual-raw").is_raw);
    assert_eq!(by_name["hook.json"].door, Door::Webhook);
    assert_eq!(&*by_name["put.json"].method, "PUT");
    scene.stop_and_verify();
}

/// Everything that was written but the files that the secrets are in, with where it lies.
fn written(folder: &Path, texts: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        let is_secret = WORDS.iter().any(|(file, _)| path.ends_with(file))
            || path.ends_with("hook")
            || path.ends_with("secret")
            || path.ends_with("state/tokens");
        if kind.is_dir() && !is_secret {
            written(&path, texts);
        } else if kind.is_file() && !is_secret {
            texts.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
}

/// A secret as it may be written: raw, in base64, percent-encoded.
fn forms(secret: &str) -> Vec<String> {
    use base64::Engine as _;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
    let percent = secret.bytes().fold(String::new(), |text, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => text + &char::from(byte).to_string(),
        other => format!("{text}%{other:02X}"),
    });
    // A base64 of a pair begins in the middle of a group: two more offsets show it.
    let pair = format!("erp:{secret}");
    vec![secret.to_owned(), base64(secret), base64(&pair), percent]
}

#[test]
fn no_secret_is_in_anything_that_is_written() {
    let answer = |door: Door, status: u16| {
        let rule = answer_rule(door, status);
        Rule { first: Some(1), per: Per::Vanity, ..rule }
    };
    // Each door refuses before it lets in; one of them repeats what it was sent.
    let said = format!("refused {} {} {SIGNATURE}", WORDS[1].1, WORDS[2].1);
    let act = Act::Answer { status: 422, message: Some(said), retry_after: None };
    let blurt = Rule { act, ..answer(Door::Hook, 422) };
    let mut scene = doors(vec![
        answer(Door::Start, 401),
        answer(Door::Inbound, 503),
        answer(Door::Webhook, 404),
        blurt,
    ]);
    let config = fs::read_to_string(scene.path("config.toml")).unwrap();
    fs::write(scene.path("config.toml"), config.replace("level = 'info'", "level = 'trace'"))
        .unwrap();
    scene.start();
    drop_everywhere(&scene, "{\"n\": 1}");
    scene.until("all have come to an end", |scene| {
        ROUTES.iter().all(|route| {
            let folder = scene.path("root").join(route);
            !names(&folder.join("sent")).is_empty() || !names(&folder.join("failed")).is_empty()
        })
    });
    let mut texts: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["list", "--json"],
        &["explain", "basic.json"],
        &["explain", "hook.json", "--json"],
        &["token"],
        &["token", "--json"],
        &["check"],
        &["check", "--online"],
        &["doctor"],
        &["verify"],
    ] {
        let ended = scene.ask(command);
        texts.push((PathBuf::from(command.join(" ")), (ended.out + &ended.err).into_bytes()));
    }
    assert_eq!(scene.stop(), Some(0));
    written(scene.dir.path(), &mut texts);
    let log = scene.log();
    assert!(log.contains("DEBUG") && log.contains("attempt ended"), "{log}");
    assert!(texts.iter().any(|(path, _)| path.ends_with("ledger.db")));
    let tokens = scene.path("state/tokens");
    let kept: Vec<String> = names(&tokens)
        .iter()
        .map(|name| fs::read_to_string(tokens.join(name)).unwrap())
        .map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap())
        .filter_map(|kept| kept["token"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(kept.len(), 2, "one of oauth2, one of the login");
    let words = WORDS.iter().map(|(_, word)| (*word).to_owned());
    let secrets = words.chain([SIGNATURE.to_owned(), super::scene::SECRET.to_owned()]).chain(kept);
    for secret in secrets {
        for form in forms(&secret) {
            for (path, text) in &texts {
                let found = text.windows(form.len()).any(|window| window == form.as_bytes());
                assert!(!found, "{form} is in {}", path.display());
            }
        }
    }
}

#[test]
fn xml_text_and_binary_files_go_where_they_may() {
    const TABLES: &str = "
[defaults.retry]
first = '1s'
[route.orders]
credential = 'inbound'
[route.xml]
deliver = 'flow'
flow_id = 12
credential = 'core'
format = 'xml'
start_url = '{sim}/api/v1'
[route.text]
deliver = 'http'
url = '{sim}/hook/text'
format = 'text'
encoding = 'windows-1252'
quiet_for = '300ms'
[route.binary]
deliver = 'http'
url = '{sim}/hook/binary'
format = 'binary'
quiet_for = '300ms'
";
    let mut scene =
        scene(TABLES, SimulatorOptions { keep_bodies: true, ..SimulatorOptions::default() });
    for route in ["xml", "text", "binary"] {
        fs::create_dir_all(scene.path("root").join(route)).unwrap();
    }
    scene.start();
    let xml = "<?xml version=\"1.0\"?>\n<order id=\"1\"><name>Zoë &amp; Söhne</name></order>";
    scene.drop_into(&scene.path("root/xml"), "a.xml", xml);
    scene.drop_into(&scene.path("root/xml"), "b.xml", "<order><name></order>");
    scene.drop_into(&scene.path("root/text"), "a.txt", b"f\xfcr alle\r\n");
    scene.drop_into(&scene.path("root/binary"), "a.bin", [0, 159, 146, 150, 0, 255]);
    scene.until("all have come to an end", |scene| {
        let root = scene.path("root");
        names(&root.join("xml/sent")) == ["a.xml"]
            && names(&root.join("xml/failed")) == ["b.xml", "b.xml.why.txt"]
            && names(&root.join("text/sent")) == ["a.txt"]
            && names(&root.join("binary/sent")) == ["a.bin"]
    });
    let bodies: BTreeMap<String, Vec<u8>> =
        scene.arrived().into_iter().map(|(_, name, body)| (name, body)).collect();
    let envelope: serde_json::Value = serde_json::from_slice(&bodies["a.xml"]).unwrap();
    assert_eq!(envelope, serde_json::json!({ "payload": xml }));
    assert_eq!(bodies["a.txt"], "für alle\r\n".as_bytes());
    assert_eq!(bodies["a.bin"], [0, 159, 146, 150, 0, 255]);
    let types: BTreeMap<String, String> = scene
        .sim
        .seen()
        .payloads
        .into_iter()
        .map(|payload| (payload.name.unwrap().into(), payload.content_type.into()))
        .collect();
    assert_eq!(types["a.xml"], "application/json");
    assert_eq!(types["a.txt"], "text/plain; charset=utf-8");
    assert_eq!(types["a.bin"], "application/octet-stream");
    scene.stop_and_verify();
}

#[test]
fn a_file_goes_where_its_run_ends() {
    let rules = vec![
        run_rule("fails", RunEnd::Failure, "customer 4711 is unknown"),
        run_rule("stops", RunEnd::Stopped, "by hand"),
        run_rule("partly", RunEnd::Partial, "line 3"),
    ];
    let mut scene = confirming(SimulatorOptions { rules, ..SimulatorOptions::default() });
    scene.start();
    for name in ["good", "fails", "stops", "partly"] {
        scene.drop_file(format!("{name}.json"), format!("{{\"it\": \"{name}\"}}"));
    }
    scene.until_in("sent", &["good.json"]);
    scene.until("three have failed", |scene| files(&scene.inbox().join("failed")).len() == 6);
    for name in ["fails", "stops", "partly"] {
        let file = format!("{name}.json");
        assert_eq!(scene.code_of("failed", &file), "run-failed");
        let run = scene
            .sim
            .seen()
            .payloads
            .into_iter()
            .find(|payload| payload.name.as_deref() == Some(file.as_str()))
            .and_then(|payload| payload.start)
            .unwrap()
            .run;
        let why = why(&scene, "failed", &file);
        assert!(why.contains(&format!("run {run}")), "{why}");
    }
    assert!(why(&scene, "failed", "fails.json").contains("customer 4711 is unknown"));
    assert_eq!(scene.arrivals().values().sum::<usize>(), 4, "each was sent once");
    let said = scene.ask(&["explain", "fails.json"]).out;
    assert!(said.contains("failed at the server"), "{said}");
    // A run's reason is content: it stands in the sidecar alone.
    assert!(!scene.log().contains("customer 4711"));
    scene.stop_and_verify();
}

#[test]
fn a_service_killed_while_it_waits_for_a_run_sends_nothing_twice() {
    let mut scene = confirming(never_ending());
    scene.start();
    scene.drop_file("good.json", "{\"n\": 1}");
    scene.drop_file("bad.json", "{\"n\": 2}");
    until_confirming(&scene, 2);
    scene.until("both runs are asked for again", |scene| {
        scene.sim.seen().doors.get(&Door::Runs).is_some_and(|runs| runs.requests >= 4)
    });
    assert_eq!(files(&scene.inbox().join("sending")).len(), 2);
    let listed = scene.ask(&["list", "--state", "confirming"]).out;
    assert!(listed.contains("good.json") && listed.contains("bad.json"), "{listed}");
    scene.kill();
    let before = scene.sim.seen().doors[&Door::Runs].requests;
    scene.start();
    scene.until("the runs are asked for again", |scene| {
        scene.sim.seen().doors[&Door::Runs].requests >= before + 2
    });
    assert_eq!(scene.arrivals().values().copied().collect::<Vec<_>>(), [1, 1]);
    scene.kill();
    // They end while nobody watches.
    assert_eq!(scene.sim.end_runs(RunEnd::Success, None), 2);
    scene.start();
    scene.until_in("sent", &["bad.json", "good.json"]);
    assert_eq!(scene.arrivals().values().copied().collect::<Vec<_>>(), [1, 1]);
    scene.stop_and_verify();
}

#[test]
fn a_run_that_fails_while_nobody_watches_still_fails_its_file() {
    let mut scene = confirming(never_ending());
    scene.start();
    scene.drop_file("a.json", "{\"n\": 1}");
    until_confirming(&scene, 1);
    scene.kill();
    assert_eq!(scene.sim.end_runs(RunEnd::Failure, Some("stock is closed")), 1);
    scene.start();
    scene.until_in("failed", &["a.json", "a.json.why.txt"]);
    assert!(why(&scene, "failed", "a.json").contains("stock is closed"));
    assert_eq!(scene.arrivals()["a.json"], 1);
    // Sent again by a person it is a new file with a new key.
    scene.sim.set_rules(Vec::new());
    let ended = scene.ask(&["resend", "a.json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    scene.until("it is sent again", |scene| scene.arrivals()["a.json"] == 2);
    let keys: Vec<_> = scene.sim.seen().payloads.into_iter().map(|one| one.key).collect();
    assert_ne!(keys[0], keys[1]);
    scene.kill();
}

#[test]
fn an_answer_without_a_run_is_sent_and_said_to_be_unconfirmed() {
    let start = StartOptions { run_id_field: None, ..StartOptions::default() };
    let mut scene = confirming(SimulatorOptions { start, ..SimulatorOptions::default() });
    scene.start();
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    let said = scene.ask(&["explain", "a.json"]).out;
    assert!(said.contains("unconfirmed"), "{said}");
    scene.stop_and_verify();
}

#[test]
fn a_core_that_cannot_be_asked_holds_nothing_up_and_is_said_once() {
    let rules = vec![answer_rule(Door::Runs, 403)];
    let mut scene = confirming(SimulatorOptions { rules, ..SimulatorOptions::default() });
    scene.start();
    scene.drop_file("a.json", "{}");
    scene.until("the trouble is said", |scene| scene.log().contains("runs cannot be asked for"));
    scene.drop_file("b.json", "{}");
    scene.until("another goes out all the same", |scene| scene.arrivals().len() == 2);
    let status = scene.status().unwrap();
    assert!(
        status.alerts.iter().any(|alert| alert.contains("orders") && alert.contains("403")),
        "{:?}",
        status.alerts
    );
    scene.sim.set_rules(Vec::new());
    scene.until_in("sent", &["a.json", "b.json"]);
    assert_eq!(scene.log().matches("runs cannot be asked for").count(), 1);
    assert!(scene.log().contains("runs can be asked for again"));
    scene.stop_and_verify();
}

#[test]
fn a_large_body_is_signed_and_enveloped_without_being_held_in_memory() {
    const TABLES: &str = "
[route.orders]
credential = 'core'
deliver = 'flow'
flow_id = 12
start_url = '{sim}/api/v1'
max_body = 'off'
timeout = '30s'
[route.hook]
deliver = 'webhook'
url = { file = 'hook' }
hmac = { key = { file = 'key' } }
";
    let simulator = SimulatorOptions {
        start: StartOptions { body_max_bytes: u64::MAX, ..StartOptions::default() },
        webhook: signed(Secret::new(KEY)),
        ..SimulatorOptions::default()
    };
    let mut scene = scene(TABLES, simulator);
    fs::write(scene.path("hook"), scene.sim.webhook_url("7").reveal()).unwrap();
    fs::create_dir(scene.path("root/hook")).unwrap();
    scene.start();
    let line = "\"é \\\" \\n \u{1F600} \\\\ tab\\t\",\n";
    let mut content = String::from("[");
    while content.len() < 10_000_000 {
        content.push_str(line);
    }
    content.push_str("0]");
    scene.drop_file("large.json", &content);
    scene.drop_into(&scene.path("root/hook"), "large.json", &content);
    scene.until_in("sent", &["large.json"]);
    scene.until("the hook has it too", |scene| {
        names(&scene.path("root/hook/sent")) == ["large.json"]
    });
    for payload in scene.sim.seen().payloads {
        check_arrived(&payload, &content);
    }
    assert_eq!(scene.sim.seen().payloads.len(), 2);
    scene.stop_and_verify();
}

/// The rate that the simulator allows here: so many in a window.
const WINDOW: (u32, Duration) = (60, Duration::from_secs(6));

#[test]
fn a_limit_that_the_server_tells_of_is_kept_to_and_used() {
    let simulator = SimulatorOptions { rate: Some(WINDOW), ..SimulatorOptions::default() };
    let mut scene = Scene::of(Plan { simulator, defaults: "concurrency = 8", ..Plan::default() });
    let count = super::scene::scale("PATCHDROP_E2E_PACED", 150);
    for number in 0..count {
        scene.drop_file(format!("{number}.json"), format!("{{\"n\": {number}}}"));
    }
    scene.start();
    let inbox = scene.inbox();
    scene.until("all are sent", |_| names(&inbox.join("sent")).len() as u64 == count);
    let seen = scene.sim.seen();
    let refused = seen.doors.get(&Door::Inbound).map_or(0, DoorSeen::throttled);
    assert!(refused <= 2, "{refused} refusals\n{}", scene.story());
    assert_eq!(seen.payloads.len() as u64, count);
    scene.stop_and_verify();
}

#[test]
fn more_files_than_questions_at_once_are_all_confirmed() {
    let mut scene = confirming(SimulatorOptions::default());
    scene.start();
    let dropped: Vec<String> = (10..40).map(|number| format!("{number}.json")).collect();
    for name in &dropped {
        scene.drop_file(name, format!("{{\"n\": \"{name}\"}}"));
    }
    let dropped: Vec<&str> = dropped.iter().map(String::as_str).collect();
    scene.until_in("sent", &dropped);
    scene.stop_and_verify();
}
