//! Every door of Patchworks: flows by envelope and raw, webhooks, runs that are asked for.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use patchdrop::model::secret::Secret;
use patchdrop::simulator::{
    Act, Door, HmacEncoding, HmacOptions, Match, Payload, Per, Rule, RunEnd, SimulatorOptions,
    StartOptions, WebhookOptions,
};
use sha2::{Digest, Sha256};

use super::scene::{Plan, Scene, files, names};

/// Routes that start flow 12 as an API key may, and wait for its runs.
const CONFIRMING: &str = "
[credential.core]
kind = 'api_key'
api_key = { file = 'key' }
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

fn plan(simulator: SimulatorOptions) -> Plan {
    let simulator = SimulatorOptions { keep_bodies: true, ..simulator };
    Plan { tables: CONFIRMING, top: "auto_routes = false", simulator, ..Plan::default() }
}

fn scene(plan: Plan) -> Scene {
    let scene = Scene::of(plan);
    fs::write(scene.path("key"), KEY).unwrap();
    scene
}

fn never_ending() -> SimulatorOptions {
    SimulatorOptions {
        start: StartOptions { run_ends: RunEnd::Never, ..StartOptions::default() },
        ..SimulatorOptions::default()
    }
}

/// The one rule: runs of files whose body holds this end so.
fn run_rule(contains: &str, ends: RunEnd, reason: &str) -> Rule {
    Rule {
        when: Match { contains: Some(contains.to_owned()), ..Match::default() },
        act: Act::Run {
            ends,
            queue_millis: None,
            takes_millis: None,
            reason: Some(reason.to_owned()),
        },
        first: None,
        per: Per::default(),
    }
}

fn why(scene: &Scene, folder: &str, name: &str) -> String {
    fs::read_to_string(scene.inbox().join(folder).join(format!("{name}.why.txt"))).unwrap()
}

#[test]
fn the_same_file_goes_through_every_door() {
    const DOORS: &str = "
[credential.core]
kind = 'api_key'
api_key = { file = 'key' }
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
    let simulator = SimulatorOptions {
        keep_bodies: true,
        hook_is_closed: true,
        bearer: Some(Secret::new("long-lived-token")),
        basic: Some(("erp".to_owned(), Secret::new("demo-password"))),
        webhook: WebhookOptions {
            hmac: Some(HmacOptions {
                key: Secret::new("shared-word"),
                header: "X-HMAC-HASH".to_owned(),
                encoding: HmacEncoding::Hex,
                status: 401,
            }),
            ..WebhookOptions::default()
        },
        ..SimulatorOptions::default()
    };
    let mut scene = Scene::of(Plan { simulator, ..Plan::default() });
    let tables = DOORS.replace("{host}", &scene.sim.addr().to_string());
    let top = format!(
        "start_url = '{0}/api/v1'\ncore_url = '{0}/api/v1'\nauto_routes = false",
        scene.sim.url()
    );
    scene.configure(&top, "", &tables);
    for (file, secret) in [
        ("key", KEY),
        ("password", "demo-password"),
        ("token", "long-lived-token"),
        ("hook-key", "shared-word"),
        ("hook", scene.sim.webhook_url("77").reveal()),
    ] {
        fs::write(scene.path(file), secret).unwrap();
    }
    let routes = ["orders", "envelope", "manual", "raw", "manual-raw", "hook", "basic", "put"];
    for route in routes {
        fs::create_dir_all(scene.path("root").join(route)).unwrap();
    }
    scene.start();
    let content = "{\"name\": \"Zoë \\\"\u{1F600}\\\" \\\\ \\u0000\",\r\n\t\"lines\": [1, 2]}";
    for route in routes {
        scene.drop_into(&scene.path("root").join(route), format!("{route}.json"), content);
    }
    scene.until("every door has let its file in", |scene| {
        routes.iter().all(|route| {
            names(&scene.path("root").join(route).join("sent")) == [format!("{route}.json")]
        })
    });
    let seen = scene.sim.seen();
    assert_eq!(seen.payloads.len(), routes.len());
    let by_name: BTreeMap<String, Payload> = seen
        .payloads
        .into_iter()
        .map(|payload| (payload.name.clone().unwrap().into(), payload))
        .collect();
    let digest = patchdrop::model::file::Digest(Sha256::digest(content.as_bytes()).into());
    for (name, payload) in &by_name {
        assert_eq!(payload.announced_bytes, Some(payload.bytes), "{name}");
        let arrived = payload.start.as_ref().map_or(Some(payload.sha256), |it| it.payload_sha256);
        assert_eq!(arrived, Some(digest), "{name} arrived as it was dropped");
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
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn xml_text_and_binary_files_go_where_they_may() {
    const TABLES: &str = "
[credential.core]
kind = 'api_key'
api_key = { file = 'key' }
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
        Scene::of(Plan { tables: TABLES, top: "auto_routes = false", ..Plan::default() });
    fs::write(scene.path("key"), KEY).unwrap();
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
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_file_goes_where_its_run_ends() {
    let mut scene = scene(plan(SimulatorOptions {
        rules: vec![
            run_rule("fails", RunEnd::Failure, "customer 4711 is unknown"),
            run_rule("stops", RunEnd::Stopped, "by hand"),
            run_rule("partly", RunEnd::Partial, "line 3"),
        ],
        ..SimulatorOptions::default()
    }));
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
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_service_killed_while_it_waits_for_a_run_sends_nothing_twice() {
    let mut scene = scene(plan(never_ending()));
    scene.start();
    scene.drop_file("good.json", "{\"n\": 1}");
    scene.drop_file("bad.json", "{\"n\": 2}");
    scene.until("both runs are asked for", |scene| {
        scene.route("orders").is_some_and(|route| route.confirming == 2)
            && scene.sim.seen().doors.get(&Door::Runs).is_some_and(|runs| runs.requests >= 4)
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
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_run_that_fails_while_nobody_watches_still_fails_its_file() {
    let mut scene = scene(plan(never_ending()));
    scene.start();
    scene.drop_file("a.json", "{\"n\": 1}");
    scene.until("the run is asked for", |scene| {
        scene.route("orders").is_some_and(|route| route.confirming == 1)
    });
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
    let mut scene = scene(plan(SimulatorOptions { start, ..SimulatorOptions::default() }));
    scene.start();
    scene.drop_file("a.json", "{}");
    scene.until_in("sent", &["a.json"]);
    let said = scene.ask(&["explain", "a.json"]).out;
    assert!(said.contains("unconfirmed"), "{said}");
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_core_that_cannot_be_asked_holds_nothing_up_and_is_said_once() {
    let refuse = Rule {
        when: Match { door: Some(Door::Runs), ..Match::default() },
        act: Act::Answer { status: 403, message: None, retry_after: None },
        first: None,
        per: Per::default(),
    };
    let mut scene =
        scene(plan(SimulatorOptions { rules: vec![refuse], ..SimulatorOptions::default() }));
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
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}

#[test]
fn a_large_body_is_signed_and_enveloped_without_being_held_in_memory() {
    const TABLES: &str = "
[credential.core]
kind = 'api_key'
api_key = { file = 'key' }
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
        webhook: WebhookOptions {
            hmac: Some(HmacOptions {
                key: Secret::new(KEY),
                header: "X-HMAC-HASH".to_owned(),
                encoding: HmacEncoding::Hex,
                status: 401,
            }),
            ..WebhookOptions::default()
        },
        ..SimulatorOptions::default()
    };
    let mut scene = Scene::of(Plan {
        tables: TABLES,
        top: "auto_routes = false",
        simulator,
        ..Plan::default()
    });
    fs::write(scene.path("key"), KEY).unwrap();
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
    let digest = patchdrop::model::file::Digest(Sha256::digest(content.as_bytes()).into());
    for payload in scene.sim.seen().payloads {
        assert_eq!(payload.announced_bytes, Some(payload.bytes));
        let arrived = payload.start.as_ref().map_or(Some(payload.sha256), |it| it.payload_sha256);
        assert_eq!(arrived, Some(digest), "{:?}", payload.door);
    }
    assert_eq!(scene.sim.seen().payloads.len(), 2);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
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
    let refused = seen.doors.get(&Door::Inbound).map_or(0, |door| door.throttled());
    assert!(refused <= 2, "{refused} refusals\n{}", scene.story());
    assert_eq!(seen.payloads.len() as u64, count);
    assert_eq!(scene.stop(), Some(0));
    scene.verify();
}
