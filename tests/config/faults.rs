//! Every kind of fault, as a person reads it.

use std::path::Path;

use proptest::prelude::*;

use super::{CREDENTIAL, options, read};

/// A config and what is said about it, for a snapshot.
fn check(text: &str) -> String {
    let text = text.trim_matches('\n');
    let Err(faults) = read(text) else { panic!("no fault in:\n{text}") };
    let lines: Vec<String> =
        text.lines().enumerate().map(|(at, line)| format!("{:>2} | {line}", at + 1)).collect();
    format!("{}\n\n{faults}\n\n\n", lines.join("\n"))
}

/// The same below a root, a company and a credential, which the snapshot leaves out.
fn check_below(text: &str) -> String {
    let start = format!("root = '/nowhere/drop'\ncompany = 'acme'{CREDENTIAL}\n");
    let whole = check(&format!("{start}{}", text.trim_matches('\n')));
    whole.split_inclusive('\n').skip(start.lines().count()).collect()
}

#[test]
fn syntax_is_reported_with_line_and_column() {
    let mut said = String::new();
    said += &check("root = '/srv\n");
    said += &check("company = 'acme'\nroot = \"C:\\data\"\n");
    said += &check("root = \"C:\\temp\\new\"\nx y\n");
    said += &check("root = '/a'\nroot = '/b'\n");
    insta::assert_snapshot!(said);
}

#[test]
fn a_path_in_double_quotes_gets_the_hint_to_use_single_ones() {
    let mut said = String::new();
    said += &check("root = \"C:\\temp\\new\"\n");
    said += &check("state_dir = \"..\\top\"\n");
    said += &check("root = 'D:\\drop'\nstate_dir = '\\\\server\\state'\n");
    insta::assert_snapshot!(said);
}

#[test]
fn unknown_keys_are_told_from_planned_ones() {
    let mut said = String::new();
    said += &check(
        "
auto_route = true
banana = 1
[ledger]
durability = 'power_loss'
duribility = 'power-loss'
url = 'postgres://x'
[log]
levle = 'info'
company = 'acme'
[web]
listen = 'off'
[destination.'x.example.com']
rat = '60/min'
",
    );
    said += &check_below(
        "
[route.orders]
Quiet-for = '2s'
keep_sent = '30d'
retry = { frist = '1s', max_wait = '2s' }
success_when = { feild = 'x' }
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn a_destination_is_a_host_with_a_rate() {
    let mut said = String::new();
    said += &check_below(
        "
[destination.'https://inbound.pwks.co']
[destination.'inbound.pwks.co']
rate = 60
[destination.'INBOUND.pwks.co:443']
rate = '0/min'
concurrency = 0
retry_after_max = '90d'
[destination.'inbound.pwks.co:8443']
rate = '60 per minute'
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn an_order_wants_to_know_what_follows_a_failure() {
    let mut said = String::new();
    said += &check_below(
        "
[route.orders]
order = 'name'
[route.stock]
order = 'size'
on_failed = 'stop'
priority = 'urgent'
[route.fine]
order = 'arrival'
on_failed = 'skip'
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn wrong_types_and_values_say_what_is_allowed() {
    let mut said = String::new();
    said += &check_below(
        "
[route.orders]
quiet_for = 5
timeout = '1 fortnight'
connect_timeout = '3h'
max_body = 8000000
schema_max = '8mb'
max_depth = 0
strict = 'true'
concurrency = 5000
include = '*.json'
success = 200
file_faults = [400, 200, 'x']
format = 'csv'
encoding = 'utf8'
deliver = 'inbuond'
in_doubt = 'lookup'
receipts = 1
folder = ''
done_marker = ['x']
retry = { factor = 0.5, first = '10m', max = '1m' }
headers = 'X: y'
",
    );
    said += &check(
        "
root = 5
first_sweep_max_age = 'never'
watch = 'inotify'
poll_every = '1ms'
credential = 1
log = { level = 'infoo', format = 'xml' }
route = []
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn a_secret_never_stands_in_the_config_nor_in_a_fault() {
    let mut said = String::new();
    let text = "
root = '/nowhere/drop'
company = 'acme'
[credential.one]
kind = 'oauth2'
token_url = 'https://user:hunter2-hunter2@auth.example.com/token'
client_id = 'me'
client_secret = 'hunter2-hunter2'
[credential.two]
kind = 'oauth2'
token_url = 'http://auth.example.com/token?hunter2-hunter2'
client_id = { env = 'NOT_SET' }
client_secret = { env = 'EMPTY' }
[credential.three]
kind = 'login'
token_url = 5
client_secret = { stored = 'x' }
password = { stored = 'not/a name' }
[credential.four]
client_secret = { file = '/nowhere/secret' }
[credential.five]
client_secret = 123456
[credential.six]
client_secret = { env = 'A', file = 'b' }
[credential.seven]
client_secret = { evn = 'A' }
[credential.eight]
client_secret = \"\"
";
    said += &check(text);
    assert!(!read(text).unwrap_err().to_string().contains("hunter2"));
    insta::assert_snapshot!(said);
}

#[test]
fn a_format_has_its_own_keys_and_ways() {
    let mut said = String::new();
    said += &check_below("[route.orders]\nformat = 'xml'\n");
    said += &check_below("[defaults]\nformat = 'text'\n[route.orders]\n");
    said += &check_below("[route.orders]\nformat = 'xlm'\n");
    for format in ["xml", "text", "binary"] {
        said += &check_below(&format!(
            "
[route.orders]
deliver = 'http'
url = 'https://h.example/in'
format = '{format}'
schema = 'a.json'
schema_max = '1MB'
strict = false
max_depth = 10
encoding = 'windows-1252'
done_marker = '{{name}}'
"
        ));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_credential_must_make_sense() {
    let mut said = String::new();
    said += &check(
        "
root = '/nowhere/drop'
company = 'acme'
[credential.inbound]
kind = 'oauth2'
token_url = 'https://auth.example.com/token'
client_id = ''
client_secret = { env = 'PATCHDROP_CLIENT_SECRET' }
method = 'GET'
credentials_in = 'form'
refresh_before = '2h'
lifetime = '1h'
extra = { scope = 'x', other = 1 }
token_field = ''
hosts = ['https://x.example.com', 'ok.example.com']
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn an_inbound_route_needs_company_vanity_and_credential() {
    let mut said = String::new();
    said += &check("root = '/nowhere/drop'\n[route.orders]\n");
    said += &check("root = '/nowhere/drop'\ncompany = 'acme'\n");
    said += &check("root = '/nowhere/drop'\ncompany = 'a/b'\n[credential]");
    said += &check("company = 'acme'\nauto_routes = true\n[route.orders]\n");
    said += &check_below("[route.ab]\n");
    said += &check_below("[route.'Order Export']\n");
    said += &check_below("[route.orders]\nvanity = 'Orders!'\ncredential = 'inbuond'\n");
    said += &check_below("[route.orders]\nurl = 'https://x.example.com'\nmethod = 'PUT'\n");
    said += &check_below("[route.orders]\ncontent_type = 'text/plain'\n");
    said += &check(&format!(
        "root = '/nowhere/drop'\ncompany = 'acme'{CREDENTIAL}{}",
        CREDENTIAL.replace("inbound", "second")
    ));
    insta::assert_snapshot!(said);
}

#[test]
fn an_http_route_needs_a_url_that_its_credential_may_go_to() {
    let mut said = String::new();
    said += &check_below("[route.stock]\ndeliver = 'http'\n");
    said += &check_below(
        "
[route.stock]
deliver = 'http'
url = 'https://stock.example.com/in'
credential = 'inbound'
",
    );
    said += &check_below(
        "
[route.a]
deliver = 'http'
url = 'http://stock.example.com/in'
[route.b]
deliver = 'http'
url = 'https://me:word@stock.example.com/in'
[route.c]
deliver = 'http'
url = 'https://stock.example.com/in#part'
[route.d]
deliver = 'http'
url = 'stock.example.com/in'
vanity = 'abc'
[route.e]
deliver = 'http'
url = 'ftp://stock.example.com/in'
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn headers_are_headers_and_not_our_own() {
    let mut said = String::new();
    said += &check_below(
        "
[route.orders]
idempotency_header = 'X-Key'
headers.'not a name' = 'x'
headers.Content-Length = '5'
headers.content-type = 'text/plain'
headers.Authorization = 'Bearer x'
headers.X-Key = 'x'
headers.X-File = '{nmae}'
headers.X-Lines = \"a\\nb\"
headers.X-Secret = { env = 'NOT_SET' }
headers.X-Number = 5
",
    );
    // One key for all files would make all but the first of them doubles of it.
    for header in
        ["headers.idempotency-key = 'same'", "idempotency_header = 'X-Key'\nheaders.x-key = 'same'"]
    {
        said += &check_below(&format!("[route.orders]\n{header}\n"));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn patterns_and_markers_are_checked() {
    let mut said = String::new();
    said += &check_below(
        "
[route.orders]
include = ['***.json', 'sub/*.json', '', '*.json']
done_marker = 'ready.flag'
[route.b]
vanity = 'bbb'
include = ['*']
done_marker = '{name}.done'
[route.c]
vanity = 'ccc'
include = []
exclude = ['[z-a]*.json', '[]-a]', '[a-]', '[!]]x[9-0]']
done_marker = '{nmae}{stem}.ok'
[route.d]
vanity = 'ddd'
done_marker = '../{stem}.ok'
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn a_status_means_one_thing() {
    let mut said = String::new();
    said += &check_below(
        "
[route.orders]
success = [200, 502]
file_faults = [401, 422, 504]
success_when = { field = 'a..b' }
",
    );
    said += &check_below("[route.orders]\nsuccess_when = { equals = 1 }\nsuccess = []\n");
    insta::assert_snapshot!(said);
}

#[test]
fn names_fit_every_system() {
    let mut said = String::new();
    said += &check_below("[route.con]\n[route.'a/b']\n[route.'COM1']\n[route.' x']\n[route.'']\n");
    insta::assert_snapshot!(said);
}

#[test]
fn placeholders_stand_where_they_mean_something() {
    let mut said = String::new();
    said += &check_below(
        "
[route.one]
folder = 'erp/x{vanity}/export'
[route.two]
folder = '{vanity}/{vanity}'
[route.three]
folder = 'x/{date}'
[route.four]
folder = 'y/{venity}'
[route.five]
folder = 'five/{vanity}'
vanity = 'five'
[route.six]
folder = 'six/{vanity}/..'
[route.seven]
sent = '{vanity}/sent'
",
    );
    said += &check_below("[defaults]\nfolder = 'x'\nvanity = 'xyz'\n");
    insta::assert_snapshot!(said);
}

#[test]
fn folders_keep_out_of_one_anothers_way() {
    let mut said = String::new();
    // Two routes on one folder, only one of which says which files are its own.
    said += &check_below(
        "
[route.orders]
include = ['o*.json']
[route.others]
folder = './orders/../orders'
",
    );
    // One below the other, and inside what the other keeps its files in.
    said += &check_below("[route.orders]\n[route.sub]\nfolder = 'orders/sub'\n");
    said +=
        &check_below("[route.orders]\n[route.abc]\nfolder = 'orders/sending'\nvanity = 'abc'\n");
    // The root inside a drop folder, and a drop folder that is the root.
    said += &check_below("[route.all]\nfolder = '/nowhere'\nvanity = 'all'\n");
    said += &check_below("[route.all]\nfolder = '.'\n");
    // Patterns.
    said += &check_below(
        "
[route.one]
folder = 'erp/{vanity}'
[route.two]
folder = 'erp/{vanity}/export'
[route.erp]
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn targets_keep_out_of_drop_folders() {
    let mut said = String::new();
    said += &check_below(
        "
[route.orders]
sent = '.'
failed = 'sending/x'
held = '/nowhere/drop/stock'
[route.stock]
sent = '/nowhere/drop/orders/sent'
failed = '/nowhere/done'
held = '/nowhere/done'
[route.third]
sent = '/nowhere'
",
    );
    said += &check_below("[defaults]\nsent = '/nowhere/drop'\n");
    said += &check_below("[defaults]\nsent = '/nowhere/drop/archive/sent'\n[route.archive]\n");
    insta::assert_snapshot!(said);
}

#[test]
fn nothing_of_ours_lies_where_files_are_dropped() {
    let mut said = String::new();
    said += &check(&format!(
        "root = '/nowhere/drop'\ncompany = 'acme'\nstate_dir = '/nowhere/drop/.state'
[log]
file = '/nowhere/drop/patchdrop.log'
[route.out]
folder = '/nowhere/etc'
{}",
        CREDENTIAL.replace("env = 'PATCHDROP_CLIENT_SECRET'", "file = 'secret'")
    ));
    said += &check(&format!(
        "root = '/nowhere/drop'\ncompany = 'acme'\nauto_routes = false
state_dir = '/nowhere/drop'\n[route.orders]{CREDENTIAL}"
    ));
    said += &check(&format!(
        "root = '/nowhere/drop'\ncompany = 'acme'\nauto_routes = false
state_dir = '/nowhere/state'\n[route.orders]\nsent = '/nowhere/state'
failed = '../../state/failed'{CREDENTIAL}"
    ));
    insta::assert_snapshot!(said);
}

#[test]
fn an_encoding_that_is_none_is_named() {
    let check = |bytes: &[u8], rendered: &str| {
        let faults = patchdrop::config::read(bytes, Path::new("c.toml"), &options(Path::new("/x")));
        assert_eq!(faults.unwrap_err().to_string(), rendered);
    };
    check(
        b"root = '/a'\n# M\xfcller\n",
        "c.toml:2: column 4: byte FC is not UTF-8\n  hint: save the file as UTF-8",
    );
    check(
        b"\xff\xfea",
        "c.toml: the file begins as UTF-16 and is not UTF-16\n  hint: save the file as UTF-8",
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(patchdrop::config::read(&bytes, Path::new("c"), &options(Path::new("/nowhere"))));
    }

    #[test]
    fn arbitrary_values_never_panic(lines in proptest::collection::vec(line(), 0..20)) {
        drop(read(&lines.join("\n")));
    }
}

/// Lines that come close to being a config.
fn line() -> impl Strategy<Value = String> {
    let keys = proptest::sample::select(vec![
        "root",
        "company",
        "state_dir",
        "folder",
        "include",
        "sent",
        "url",
        "done_marker",
        "max_body",
        "quiet_for",
        "success",
        "headers",
        "retry",
        "schema",
        "client_secret",
        "hosts",
        "vanity",
        "deliver",
        "base_url",
        "content_type",
        "success_when",
        "watch",
        "level",
    ]);
    let values = prop_oneof![
        "'[^'\n]{0,12}'",
        "\"[a-z\\\\{}:/*\\[\\]é]{0,12}\"",
        "'(/nowhere|\\{vanity\\}|\\{date\\}|\\.\\.|x|/){0,5}'",
        "[0-9]{1,20}",
        "[0-9.eE+-]{1,8}",
        "\\['[^']{0,6}', [0-9]{1,4}\\]",
        "\\{ (env|file|x) = '[A-Z_]{0,4}' \\}",
        "true|'[0-9]{1,22}(s|d|MB|GiB)'|'off'|'http'|'inbound'|'poll'",
    ];
    let tables = "\\[(log|defaults|route\\.[a-z{}']{1,4}|credential\\.x)\\]";
    prop_oneof![
        4 => (keys, values).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => tables,
    ]
}
