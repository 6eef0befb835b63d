//! What a right config means.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use patchdrop::config::{self, Config, Discovery, WatchMode};
use patchdrop::model::durability::Durability;
use patchdrop::model::route::{
    CredentialsIn, Duplicates, Encoding, Format, InDoubt, OnFailed, OrderBy, Ordered, PaceRules,
    Priority, Rate, Route, TokenMethod,
};

use super::{CREDENTIAL, oauth2, options, read, right};

fn below(text: &str) -> Config {
    right(&format!("root = '/nowhere/drop'\ncompany = 'acme'{CREDENTIAL}\n{text}"))
}

fn route<'c>(config: &'c Config, name: &str) -> &'c Arc<Route> {
    config.routes.iter().find(|route| &*route.name.0 == name).expect("the route is there")
}

fn auto(config: &Config) -> &Discovery {
    config.discoveries.iter().find(|found| found.name.is_none()).expect("auto_routes are on")
}

/// Hosts that every credential may go to.
const PATCHWORKS: [&str; 3] =
    ["core.wearepatchworks.com", "inbound.pwks.co", "start.wearepatchworks.com"];

#[test]
fn what_the_record_outlives_is_chosen_by_a_word() {
    let chosen = |word| below(&format!("[ledger]\ndurability = '{word}'\n")).durability;
    assert_eq!(chosen("power-loss"), Durability::PowerLoss);
    assert_eq!(chosen("process-crash"), Durability::ProcessCrash);
}

#[test]
fn the_least_config_has_the_documented_defaults() {
    let config = below("");
    assert_eq!(config.root.as_deref(), Some(Path::new("/nowhere/drop")));
    assert_eq!(&*config.state_dir, Path::new("/var/lib/patchdrop"));
    assert_eq!(config.watch, WatchMode::Auto);
    assert_eq!(config.poll_every, Duration::from_secs(10));
    assert_eq!(config.sweep_every, Duration::from_mins(1));
    assert_eq!(config.durability, Durability::PowerLoss);
    assert_eq!(config.drain_for, Duration::from_secs(90));
    assert_eq!(config.log.level, "info");
    assert!(config.marked.is_empty());
    let route = auto(&config).route_of("Orders").unwrap();
    assert_eq!(&*route.name.0, "Orders");
    assert_eq!(&*route.folders.inbox, Path::new("/nowhere/drop/Orders"));
    assert_eq!(&*route.folders.sending, Path::new("/nowhere/drop/Orders/sending"));
    assert_eq!(&*route.folders.sent, Path::new("/nowhere/drop/Orders/sent"));
    assert_eq!(&*route.folders.failed, Path::new("/nowhere/drop/Orders/failed"));
    assert_eq!(&*route.folders.held, Path::new("/nowhere/drop/Orders/held"));
    assert_eq!(route.select.include, ["*.json"]);
    assert!(route.select.exclude.is_empty());
    assert_eq!(route.select.temp_names, [".*", "*.tmp", "*.part", "*.filepart", "~*", "*~"]);
    assert_eq!(route.ready.quiet_for, Duration::from_secs(1));
    assert_eq!(route.ready.truncated_after, Duration::from_secs(30));
    assert_eq!(route.ready.first_sweep_max_age, Some(Duration::from_hours(24)));
    assert_eq!(route.check.max_depth, 512);
    assert_eq!(route.check.encoding, Encoding::Auto);
    assert_eq!(route.check.body_max_bytes, Some(8_000_000));
    assert_eq!(route.check.schema_max_bytes, 8_000_000);
    assert_eq!(route.deliver.kind, "inbound");
    assert_eq!(route.deliver.url.reveal(), "https://inbound.pwks.co/v1/acme/orders");
    assert_eq!(&*route.deliver.host, "inbound.pwks.co");
    assert_eq!(route.deliver.method, "POST");
    assert_eq!(route.deliver.content_type, "application/json");
    assert_eq!(route.deliver.idempotency_header.as_deref(), Some("Idempotency-Key"));
    assert_eq!(route.deliver.credential.as_deref(), Some("inbound"));
    assert_eq!(route.deliver.connect_timeout, Duration::from_secs(10));
    assert_eq!(route.deliver.timeout, Duration::from_mins(1));
    assert_eq!(route.judge.success, [200, 201, 202, 204].into());
    assert_eq!(route.judge.file_faults, [400, 409, 413, 422].into());
    assert_eq!(route.judge.doubtful, [502, 504, 520, 524].into());
    assert_eq!(route.in_doubt, InDoubt::Hold);
    assert_eq!(route.duplicates, Duplicates::Send);
    assert_eq!(route.retry.first, Duration::from_secs(1));
    assert!((route.retry.factor - 2.0).abs() < f64::EPSILON);
    assert_eq!(route.retry.max, Duration::from_mins(5));
    assert_eq!(route.retry.give_up_after, Duration::from_hours(5 * 24));
    assert_eq!(route.concurrency, 4);
    assert_eq!((route.order, route.priority), (None, Priority::Normal));
    assert!(!route.receipts && !route.check.strict && !route.judge.html_is_success);
    let credential = &config.credentials["inbound"];
    let oauth2 = oauth2(credential);
    assert_eq!(oauth2.method, TokenMethod::Auto);
    assert_eq!(oauth2.credentials_in, None);
    assert_eq!(oauth2.scope.as_deref(), Some("access-inbound"));
    assert_eq!(oauth2.token_field, None);
    assert_eq!(oauth2.client_secret.reveal(), "correct horse battery");
    assert_eq!(credential.refresh_before, Duration::from_mins(10));
    assert_eq!(credential.lifetime, Duration::from_hours(24));
    assert!(credential.keep_token);
    assert_eq!(credential.hosts, PATCHWORKS.map(str::to_owned).into());
}

#[test]
fn a_route_wins_over_the_defaults_and_tables_merge_key_by_key() {
    let config = below(
        "
[defaults]
include = ['a*.json']
exclude = ['*.bak']
retry = { first = '2s', max = '1m' }
headers = { X-Source = 'erp', X-File = '{name}' }
success_when = { field = 'state', equals = 1 }
timeout = '20s'
[route.orders]
include = ['o*.json']
exclude = ['old*']
retry.first = '3s'
headers.x-source = 'wms'
success_when.equals = 'ok'
[route.stock]
deliver = 'http'
url = 'https://stock.example.com/in'
",
    );
    let orders = route(&config, "orders");
    assert_eq!(orders.select.include, ["o*.json"]);
    assert_eq!(orders.select.exclude, ["*.bak", "old*"]);
    assert_eq!(orders.retry.first, Duration::from_secs(3));
    assert_eq!(orders.retry.max, Duration::from_mins(1));
    let headers: Vec<_> = orders
        .deliver
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.reveal()))
        .collect();
    assert_eq!(headers, [("X-File", "{name}"), ("x-source", "wms")]);
    assert_eq!(orders.judge.success_when, Some(("state".to_owned(), "ok".into())));
    assert_eq!(orders.deliver.timeout, Duration::from_secs(20));
    let stock = route(&config, "stock");
    assert_eq!(stock.select.include, ["a*.json"]);
    assert_eq!(stock.judge.success_when, Some(("state".to_owned(), 1.into())));
}

#[test]
fn an_http_route_has_no_limit_and_no_credential_of_its_own_accord() {
    let config = below(
        "
[route.stock]
deliver = 'http'
url = { env = 'SIGNED_URL' }
method = 'PUT'
[route.named]
deliver = 'http'
url = 'https://Api.example.com:8443/in'
credential = 'second'
max_body = '1GiB'
[route.orders]
credential = 'inbound'
max_body = 'off'
[credential.second]
kind = 'oauth2'
token_url = 'http://127.0.0.1:1/token'
client_id = { env = 'API_WORD' }
client_secret = { env = 'API_WORD' }
hosts = ['api.example.com:8443']
scope = ''
method = 'POST'
credentials_in = 'json'
[defaults]
credential = 'inbound'
[route.bare]
deliver = 'http'
url = 'https://inbound.pwks.co/x'
",
    );
    let stock = route(&config, "stock");
    assert_eq!(stock.check.body_max_bytes, None);
    assert_eq!(&*stock.deliver.host, "hooks.example.com");
    assert_eq!(stock.deliver.method, "PUT");
    assert_eq!(stock.deliver.credential, None);
    let named = route(&config, "named");
    assert_eq!(named.check.body_max_bytes, Some(1 << 30));
    assert_eq!(&*named.deliver.host, "api.example.com:8443");
    let second = &config.credentials["second"];
    let hosts = PATCHWORKS.into_iter().chain(["api.example.com:8443"]);
    assert_eq!(second.hosts, hosts.map(str::to_owned).collect());
    let second = oauth2(second);
    assert_eq!(second.scope, None);
    assert_eq!(second.client_id, "staple-4711");
    assert_eq!(second.credentials_in, Some(CredentialsIn::Json));
    assert_eq!(route(&config, "orders").check.body_max_bytes, None);
}

#[test]
fn the_url_of_the_heartbeat_is_secret_with_its_path_even_where_it_is_written() {
    let check = |written: &str, url: &str, part: &str| {
        let config = right(&format!("heartbeat_url = {written}\nstate_dir = '/s'\n"));
        assert_eq!(config.heartbeat_url.as_ref().map(config::Secret::reveal), Some(url));
        let secrets = config.all_secrets();
        let secrets: Vec<&str> = secrets.iter().map(config::Secret::reveal).collect();
        assert!(secrets.contains(&url) && secrets.contains(&part), "{secrets:?}");
    };
    let stored = "https://alive.example.com/ping/0815";
    check("{ stored = 'heartbeat' }", stored, stored);
    let plain = "https://alive.example.com/4711-0815-beats?key=4711-0815-0816";
    check(&format!("'{plain}'"), plain, "4711-0815-beats");
    check(&format!("'{plain}'"), plain, "4711-0815-0816");
    let faults = read("heartbeat_url = 'http://beat.example.com/x'\nstate_dir = '/s'\n");
    assert!(faults.unwrap_err().notices[0].text.contains("plain http://"));
}

#[test]
fn every_secret_and_the_parts_of_a_signed_url_are_known() {
    let config = below(
        "
[route.stock]
deliver = 'http'
url = { env = 'SIGNED_URL' }
headers.X-Word = { env = 'API_WORD' }
headers.X-Kept = { stored = 'kept' }
headers.X-Plain = 'plain'
",
    );
    let secrets = config.all_secrets();
    let secrets: Vec<&str> = secrets.iter().map(config::Secret::reveal).collect();
    for secret in [
        "correct horse battery",
        "me:correct horse battery",
        "https://hooks.example.com/in?signature=0123456789abcdef",
        "signature=0123456789abcdef",
        "0123456789abcdef",
        "staple-4711",
        "kept-4711-staple",
    ] {
        assert!(secrets.contains(&secret), "{secret} in {secrets:?}");
        assert!(!format!("{config:?}").contains(secret), "{secret} is in the Debug text");
    }
    assert!(!secrets.contains(&"plain"));
}

#[test]
fn base_url_and_company_may_be_a_routes_own() {
    let config = right(&format!(
        "root = '/nowhere/drop'\ncompany = 'acme'\nbase_url = 'http://127.0.0.1:8080/v1/'
[route.orders]
company = 'other'
base_url = 'https://Inbound.example.com:444/v2'
{CREDENTIAL}"
    ));
    let orders = route(&config, "orders");
    assert_eq!(orders.deliver.url.reveal(), "https://inbound.example.com:444/v2/other/orders");
    let stock = auto(&config).route_of("stock").unwrap();
    assert_eq!(stock.deliver.url.reveal(), "http://127.0.0.1:8080/v1/acme/stock");
    assert_eq!(&*stock.deliver.host, "127.0.0.1:8080");
    assert_eq!(
        config.credentials["inbound"].hosts,
        [
            "127.0.0.1:8080",
            "core.wearepatchworks.com",
            "inbound.example.com:444",
            "start.wearepatchworks.com"
        ]
        .map(str::to_owned)
        .into()
    );
}

#[test]
fn auto_routes_leave_out_what_is_no_route_of_theirs() {
    let config = below(
        "
[route.invoices]
folder = 'billing'
[route.deep]
folder = 'erp/orders/out'
vanity = 'deep'
sent = '/nowhere/drop/archive/{date}'
[route.far]
folder = '/nowhere/far'
[route.pattern]
folder = 'shops/{vanity}/export'
",
    );
    let check = |folder: &str, code: Option<&str>| {
        let found = auto(&config).route_of(folder);
        assert_eq!(found.err().map(|not| not.code), code, "{folder}");
    };
    check("orders", None);
    check("ORDERS-2", None);
    check("far", Some("name-taken"));
    check("invoices", Some("name-taken"));
    check("billing", Some("folder-taken"));
    check("erp", Some("folder-taken"));
    check("archive", Some("folder-taken"));
    check("shops", Some("folder-taken"));
    check(".patchdrop", Some("hidden-folder"));
    check("$RECYCLE.BIN", Some("system-folder"));
    check("lost+found", Some("system-folder"));
    check("sending", Some("reserved-name"));
    check("Sent", Some("reserved-name"));
    check("ab", Some("no-vanity"));
    check("Order Export", Some("no-vanity"));
    check("müller", Some("no-vanity"));
    check("etc/..", Some("no-vanity"));
    check("", Some("no-vanity"));
    assert_eq!(
        config.marked.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
        ["/nowhere/far"]
    );
}

#[test]
fn a_vanity_pattern_makes_a_route_of_each_folder() {
    let config = below(
        "
[route.shop]
folder = 'shops/{vanity}/export'
sent = '../done/{date}'
[route.own]
folder = 'shops/berlin/export'
vanity = 'berlin-shop'
",
    );
    let shops = config.discoveries.iter().find(|found| found.name.is_some()).unwrap();
    assert_eq!(&*shops.parent, Path::new("/nowhere/drop/shops"));
    assert_eq!(shops.suffix, Path::new("export"));
    let paris = shops.route_of("Paris").unwrap();
    assert_eq!(&*paris.name.0, "shop.Paris");
    assert_eq!(&*paris.folders.inbox, Path::new("/nowhere/drop/shops/Paris/export"));
    assert_eq!(&*paris.folders.sent, Path::new("/nowhere/drop/shops/Paris/done/{date}"));
    assert_eq!(paris.deliver.url.reveal(), "https://inbound.pwks.co/v1/acme/paris");
    assert_eq!(shops.route_of("berlin").unwrap_err().code, "folder-taken");
    assert_eq!(shops.route_of("x").unwrap_err().code, "no-vanity");
    assert_eq!(
        route(&config, "own").deliver.url.reveal(),
        "https://inbound.pwks.co/v1/acme/berlin-shop"
    );
}

#[test]
fn two_routes_share_a_folder_when_both_say_which_files_are_theirs() {
    let config = below(
        "
[route.orders]
include = ['o*.json']
folder = 'drop'
vanity = 'orders'
[route.stock]
include = ['s*.json']
folder = 'drop'
vanity = 'stock'
",
    );
    assert_eq!(route(&config, "orders").folders.inbox, route(&config, "stock").folders.inbox);
}

#[test]
fn one_archive_outside_may_serve_all_routes() {
    let config =
        below("[defaults]\nsent = '/nowhere/archive/{date}'\n[route.orders]\n[route.stock]");
    assert_eq!(&*route(&config, "stock").folders.sent, Path::new("/nowhere/archive/{date}"));
    assert_eq!(
        &*auto(&config).route_of("other").unwrap().folders.sent,
        Path::new("/nowhere/archive/{date}")
    );
}

#[test]
fn what_is_sent_is_never_taken_for_something_to_send() {
    let config = below(
        "
[defaults]
sent = '/nowhere/drop/archive'
failed = '/nowhere/drop/{date}'
held = '/nowhere/drop/attic/held'
[route.shop]
folder = '/nowhere/shops/{vanity}/export'
sent = '/nowhere/shops/done/export'
",
    );
    let check = |found: &Discovery, folder: &str, code: Option<&str>| {
        assert_eq!(found.route_of(folder).err().map(|not| not.code), code, "{folder}");
    };
    check(auto(&config), "orders", None);
    check(auto(&config), "archive", Some("folder-taken"));
    check(auto(&config), "attic", Some("folder-taken"));
    check(auto(&config), "2026-11-21", Some("folder-taken"));
    let shops = config.discoveries.iter().find(|found| found.name.is_some()).unwrap();
    check(shops, "paris", None);
    check(shops, "done", Some("folder-taken"));
}

#[test]
fn off_takes_files_of_any_age() {
    let config = right(&format!(
        "root = '/nowhere/drop'\ncompany = 'acme'\nfirst_sweep_max_age = 'off'{CREDENTIAL}"
    ));
    assert_eq!(auto(&config).route_of("orders").unwrap().ready.first_sweep_max_age, None);
}

#[test]
fn what_routes_to_one_host_share_is_told_by_its_host() {
    #[track_caller]
    fn check(text: &str, host: &str, expected: PaceRules) {
        let config = below(text);
        let rules = config.destinations.get(host).copied().unwrap_or_default();
        assert_eq!(rules, expected, "{text}");
    }
    let rate = |count, seconds| Some(Rate { count, per: Duration::from_secs(seconds) });
    let default = PaceRules::default();
    assert_eq!(default.retry_after_max, Duration::from_hours(1));
    check("", "inbound.pwks.co", default);
    check("", "start.wearepatchworks.com", PaceRules { rate: rate(240, 60), ..default });
    check("", "webhooks.wearepatchworks.com", PaceRules { rate: rate(120, 60), ..default });
    check(
        "[destination.'Inbound.PWKS.co:443']\nrate = '5/s'\nconcurrency = 7\nretry_after_max = '5m'",
        "inbound.pwks.co",
        PaceRules {
            rate: rate(5, 1),
            concurrency: Some(7),
            retry_after_max: Duration::from_mins(5),
        },
    );
    check(
        "[destination.'start.wearepatchworks.com']\nconcurrency = 2",
        "start.wearepatchworks.com",
        PaceRules { rate: rate(240, 60), concurrency: Some(2), ..default },
    );
    check(
        "[destination.'webhooks.wearepatchworks.com']\nrate = '300/h'",
        "webhooks.wearepatchworks.com",
        PaceRules { rate: rate(300, 3_600), ..default },
    );
}

#[test]
fn what_is_odd_and_stops_nothing_is_a_warning() {
    let check = |text: &str, rendered: &[&str]| {
        let config = right(text);
        let warnings: Vec<String> =
            config.warnings.iter().map(|notice| notice.at(Path::new("c"))).collect();
        assert_eq!(warnings, rendered, "{text}");
    };
    check(
        "",
        &["c: there is no route: nothing is watched\n  hint: write root and company, or a table \
           [route.NAME]"],
    );
    check(
        "root = '/nowhere/drop'\n[route.x]\ndeliver='http'\nurl='https://x.example.com'",
        &["c:1: root: without a company no subfolder of the root becomes a route by itself\n  \
           hint: write company = 'NAME', or auto_routes = false to say that it is meant"],
    );
    check(
        &format!(
            "root = '/nowhere/drop'\ncompany = 'acme'{CREDENTIAL}
[route.orders]
include = ['{{a,b}}*.json', '!a.json', '{{*}}.json', '[!a-c]*.json']"
        ),
        &[
            "c:10: route.orders.include: \"!a.json\" excludes nothing: it matches names that begin \
             with !\n  hint: to leave files out write exclude = ['a.json']",
            "c:10: route.orders.include: \"{a,b}*.json\" matches only names that hold these \
             braces: they are no alternatives\n  hint: write each as a pattern of its own: \
             ['a*.json', 'b*.json']",
        ],
    );
    check(
        &format!(
            "root = '/nowhere/drop'\ncompany = 'acme'{CREDENTIAL}
[destination.'inbound.pwks.com']\nrate = '60/min'\n[destination.'other.example.com']"
        ),
        &[
            "c:9: destination.inbound.pwks.com: no route sends to inbound.pwks.com\n  hint: did \
             you mean inbound.pwks.co?",
            "c:11: destination.other.example.com: no route sends to other.example.com\n  hint: \
             take it out, or write the host of a route",
        ],
    );
    check(
        &format!(
            "root = '/nowhere/drop'\ncompany = 'acme'\ndrain_for = '10s'
[defaults]
max_body = '9MB'{CREDENTIAL}"
        ),
        &[
            "c:3: drain_for: a stop waits 10s and an attempt may take 1m: what is cut off is in \
             doubt\n  hint: write drain_for = \"1m\" or more",
            "c:5: defaults.max_body: Patchworks refuses more than 8MB with 413\n  hint: leave it \
             out unless your contract says otherwise",
        ],
    );
}

#[test]
fn a_mark_and_utf_16_are_read() {
    let text = format!("# \u{fc}\nroot = '/nowhere/dr\u{f6}p'\ncompany = 'acme'{CREDENTIAL}");
    let utf8: Vec<u8> = [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let little: Vec<u8> =
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> =
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    let windows = text.replace('\n', "\r\n").into_bytes();
    for bytes in [utf8, little, big, windows] {
        let options = options(Path::new("/nowhere"));
        let config = config::read(&bytes, Path::new("c.toml"), &options).unwrap();
        assert_eq!(config.root.as_deref(), Some(Path::new("/nowhere/dr\u{f6}p")));
    }
}

#[test]
fn the_format_decides_what_the_route_leaves_open() {
    let check = |format: &str, include: &str, content_type: &str, quiet_for: u64| {
        let config = below(&format!(
            "
[route.orders]
deliver = 'http'
url = 'https://h.example/in'
format = '{format}'
"
        ));
        let route = route(&config, "orders");
        assert_eq!(route.select.include, [include]);
        assert_eq!(route.deliver.content_type, content_type);
        assert_eq!(route.ready.quiet_for, Duration::from_secs(quiet_for));
    };
    check("json", "*.json", "application/json", 1);
    check("xml", "*.xml", "application/xml", 1);
    check("text", "*.txt", "text/plain; charset=utf-8", 10);
    check("binary", "*", "application/octet-stream", 10);
    let config = below(
        "
[defaults]
format = 'xml'
encoding = 'windows-1252'
strict = true
max_depth = 7
schema = '/nowhere/order.schema.json'
[route.orders]
format = 'json'
schema = 'none.json'
[route.scans]
deliver = 'http'
url = 'https://h.example/in'
format = 'binary'
include = ['*']
done_marker = '{name}.done'
content_type = 'application/pdf'
quiet_for = '3s'
[route.invoices]
deliver = 'http'
url = 'https://h.example/in'
",
    );
    // Where a default does not fit the format it is meant for other routes.
    let invoices = route(&config, "invoices");
    assert_eq!(invoices.check.format, Format::Xml);
    assert_eq!(invoices.check.encoding, Encoding::Auto);
    assert_eq!((invoices.check.strict, invoices.check.max_depth), (false, 7));
    assert_eq!(invoices.check.schema, None);
    let scans = route(&config, "scans");
    assert_eq!(scans.check.format, Format::Binary);
    assert_eq!(scans.deliver.content_type, "application/pdf");
    assert_eq!(scans.ready.quiet_for, Duration::from_secs(3));
    // A schema that is not there stops the routes that apply it, and no others.
    let broken: Vec<_> = config.broken.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(broken, ["orders", "auto_routes"]);
}

#[test]
fn an_order_and_a_priority_are_taken_from_the_route_or_the_defaults() {
    #[track_caller]
    fn check(text: &str, order: Option<(OrderBy, OnFailed)>, priority: Priority) {
        let config = below(text);
        let route = route(&config, "orders");
        let order = order.map(|(by, on_failed)| Ordered { by, on_failed });
        assert_eq!((route.order, route.priority), (order, priority), "{text}");
    }
    check("[route.orders]\norder = 'none'\npriority = 'high'", None, Priority::High);
    check(
        "[route.orders]\norder = 'name'\non_failed = 'pause'\npriority = 'low'",
        Some((OrderBy::Name, OnFailed::Pause)),
        Priority::Low,
    );
    check(
        "[defaults]\norder = 'arrival'\non_failed = 'skip'\n[route.orders]",
        Some((OrderBy::Arrival, OnFailed::Skip)),
        Priority::Normal,
    );
    check(
        "[defaults]\norder = 'arrival'\non_failed = 'skip'\n[route.orders]\norder = 'none'",
        None,
        Priority::Normal,
    );
}
