//! Flows and webhooks: what their keys mean, and what is said about wrong ones.

use std::time::Duration;

use patchdrop::config::Config;
use patchdrop::model::route::{Confirm, HmacEncoding, InDoubt, Late, Route};

use crate::{CREDENTIAL, read, right};

fn flows(text: &str) -> Config {
    right(&format!("root = '/srv/drop'\nauto_routes = false\n{text}\n{CREDENTIAL}"))
}

fn route<'c>(config: &'c Config, name: &str) -> &'c Route {
    config.routes.iter().find(|route| &*route.name.0 == name).expect("the route is there")
}

#[test]
fn a_flow_has_the_documented_url_whatever_is_chosen() {
    let base = "https://start.wearepatchworks.com/api/v1/flows";
    let check = |keys: &str, url: &str| {
        let config = flows(&format!("[route.orders]\ndeliver = 'flow'\n{keys}"));
        let orders = route(&config, "orders");
        assert_eq!(orders.deliver.url.reveal(), url, "{keys}");
        assert_eq!(orders.deliver.kind, "flow");
        assert_eq!(
            &*orders.deliver.core().expect("a flow has runs").host,
            "core.wearepatchworks.com"
        );
        assert_eq!(orders.deliver.credential.as_deref(), Some("inbound"));
    };
    check("flow_id = 1234", &format!("{base}/1234/start"));
    check("flow_id = 'a-b_c'", &format!("{base}/a-b_c/start"));
    check("flow_id = 1\ntrigger = 'manual'", &format!("{base}/1/manual"));
    check("flow_id = 1\nflow_version = 9", &format!("{base}/1/start/9"));
    check("flow_id = 1\nbody = 'raw'", &format!("{base}/1/start/raw"));
    let all = "flow_id = 1\nbody = 'raw'\ntrigger = 'manual'\nflow_version = '9'\nvirtual_environment = 2";
    check(all, &format!("{base}/1/manual/raw/9?virtual_environment_id=2"));
    let config = flows(
        "start_url = 'https://pw.example.com/core-start/'\n\
         core_url = 'https://pw.example.com/core-main'\n\
         [route.orders]\ndeliver = 'flow'\nflow_id = 1",
    );
    let orders = route(&config, "orders");
    assert_eq!(orders.deliver.url.reveal(), "https://pw.example.com/core-start/flows/1/start");
    let flow = orders.deliver.flow.as_ref().expect("it is one");
    assert_eq!(&*flow.core_url, "https://pw.example.com/core-main");
    assert!(config.credentials["inbound"].may_go_to("pw.example.com"));
}

#[test]
fn a_flow_is_accepted_unless_its_run_is_asked_for() {
    let config = flows("[route.orders]\ndeliver = 'flow'\nflow_id = 1\nin_doubt = 'lookup'");
    let orders = route(&config, "orders");
    assert_eq!(orders.deliver.flow.as_ref().expect("a flow").confirm, None);
    assert_eq!(orders.in_doubt, InDoubt::Lookup);
    assert_eq!(orders.check.body_max_bytes, Some(8_000_000));
    let fields = ["flow_run_id", "run_id", "id", "data.flow_run_id", "data.run_id", "data.id"];
    assert_eq!(orders.judge.run_id_fields, fields);
    let config = flows("[route.orders]\ndeliver = 'flow'\nflow_id = 1\nconfirm = 'run'");
    let confirm = Confirm {
        every: Duration::from_secs(30),
        within: Duration::from_hours(24),
        late: Late::Hold,
        partial_is_success: false,
    };
    assert_eq!(
        route(&config, "orders").deliver.flow.as_ref().expect("a flow").confirm,
        Some(confirm)
    );
    let config = flows(
        "[defaults]\nconfirm_every = '5s'\nconfirm_late = 'sent'\n\
         [route.orders]\ndeliver = 'flow'\nflow_id = 1\nconfirm = 'run'\nconfirm_for = '1h'\n\
         confirm_partial = 'sent'\nrun_id_field = ['run.number']",
    );
    let confirm = Confirm {
        every: Duration::from_secs(5),
        within: Duration::from_hours(1),
        late: Late::Sent,
        partial_is_success: true,
    };
    let orders = route(&config, "orders");
    assert_eq!(orders.deliver.flow.as_ref().expect("a flow").confirm, Some(confirm));
    assert_eq!(orders.judge.run_id_fields, ["run.number", "data.run.number"]);
}

#[test]
fn a_webhook_is_signed_as_its_table_says_and_uses_no_credential_of_its_own_accord() {
    let config = flows(
        "[route.stock]\ndeliver = 'webhook'\nurl = { env = 'STOCK_HOOK_URL' }\n\
         hmac = { key = { env = 'STOCK_HOOK_KEY' } }\n\
         [route.other]\ndeliver = 'http'\nurl = 'https://stock.example.com/in'\n\
         hmac = { key = { env = 'STOCK_HOOK_KEY' }, algorithm = 'sha256', header = 'X-Sig', encoding = 'base64' }",
    );
    let stock = &route(&config, "stock").deliver;
    assert_eq!((stock.kind, stock.method), ("webhook", "POST"));
    assert_eq!(stock.credential, None);
    let hmac = stock.hmac.as_ref().expect("it is signed");
    assert_eq!((hmac.header.as_str(), hmac.encoding), ("X-HMAC-HASH", HmacEncoding::Hex));
    assert_eq!(hmac.key.reveal(), "shared-hook-word");
    let hmac = route(&config, "other").deliver.hmac.as_ref().expect("it is signed");
    assert_eq!((hmac.header.as_str(), hmac.encoding), ("X-Sig", HmacEncoding::Base64));
    let known: Vec<&str> = config
        .all_secrets()
        .iter()
        .map(|secret| secret.reveal().to_owned().leak() as &str)
        .collect();
    assert!(known.contains(&"9f8e7d6c5b4a3210"), "the signature alone is a secret too");
    assert!(known.contains(&"shared-hook-word"));
    assert_eq!(config.warnings, []);
}

#[test]
fn what_is_wrong_with_a_flow_or_a_webhook_is_said_all_at_once() {
    let faults = read(&format!(
        "root = '/srv/drop'\n\
         [route.a]\ndeliver = 'flow'\n\
         [route.b]\ndeliver = 'flow'\nflow_id = '../x'\nflow_version = 1.5\nvanity = 'abc'\nurl = 'https://x.example/'\n\
         [route.c]\ndeliver = 'inbound'\ncompany = 'acme'\nflow_id = 1\nconfirm = 'run'\nin_doubt = 'lookup'\n\
         [route.d]\ndeliver = 'webhook'\nflow_id = 1\nmethod = 'PUT'\n\
         [route.e]\ndeliver = 'http'\nurl = 'https://x.example/'\nhmac.header = 'X'\n\
         [route.f]\ndeliver = 'http'\nurl = 'https://x.example/'\nhmac.key = 'plain'\nhmac.algorithm = 'md5'\n\
         [route.g]\ndeliver = 'flow'\nflow_id = 1\nrun_id_field = []\nflow_variables = {{ a = '{{when}}' }}\nhmac.key = {{ env = 'API_WORD' }}\n\
         {CREDENTIAL}"
    ))
    .expect_err("nearly everything in it is wrong");
    insta::assert_snapshot!(faults.to_string());
}
