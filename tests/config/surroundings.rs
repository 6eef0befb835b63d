//! What lies round the config file: schemas, secrets, links.
#![expect(clippy::disallowed_methods, reason = "the tests write what the config names")]

use std::fs;
use std::path::Path;

use patchdrop::config::{
    self, Config, ConfigFaults, Environment, LoadOptions, NoSecret, Secret, Store,
};
use tempfile::TempDir;

use super::{CREDENTIAL, oauth2, options};

fn scratch() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

fn load(folder: &Path, text: &str) -> Result<Config, ConfigFaults> {
    let path = folder.join("config.toml");
    fs::write(&path, text).expect("the folder is ours");
    config::load(&path, &LoadOptions { base: None, ..options(folder) })
}

fn start() -> String {
    format!("root = 'drop'\ncompany = 'acme'\nstate_dir = 'state'{CREDENTIAL}")
}

#[test]
fn relative_paths_start_at_the_file_or_at_base() {
    let scratch = scratch();
    let config = load(scratch.path(), &start()).unwrap();
    assert_eq!(config.root.as_deref(), Some(&*scratch.path().join("drop")));
    assert_eq!(&*config.state_dir, scratch.path().join("state"));
    let path = scratch.path().join("config.toml");
    let elsewhere = config::load(&path, &options(Path::new("/nowhere/etc/.."))).unwrap();
    assert_eq!(elsewhere.root.as_deref(), Some(Path::new("/nowhere/drop")));
    assert!(!scratch.path().join("drop").exists(), "reading a config makes no folder");
}

#[test]
fn a_file_that_is_not_there_is_a_fault_of_the_file() {
    let scratch = scratch();
    let path = scratch.path().join("none.toml");
    let faults = config::load(&path, &options(scratch.path())).unwrap_err();
    assert_eq!(faults.notices.len(), 1);
    assert_eq!(faults.notices[0].key, "");
    assert!(faults.notices[0].text.starts_with("cannot be read: "), "{faults}");
}

#[test]
fn a_bad_schema_breaks_its_route_and_leaves_the_others() {
    let scratch = scratch();
    fs::write(scratch.path().join("good.json"), br#"{"type": "object"}"#).unwrap();
    fs::write(scratch.path().join("text.json"), b"{").unwrap();
    fs::write(scratch.path().join("odd.json"), br#"{"type": "objekt"}"#).unwrap();
    let config = load(
        scratch.path(),
        &format!(
            "{}
[route.good]
schema = 'good.json'
[route.none]
schema = 'none.json'
[route.text]
schema = 'text.json'
[route.odd]
schema = 'odd.json'
",
            start()
        ),
    )
    .unwrap();
    let names: Vec<&str> = config.routes.iter().map(|route| &*route.name.0).collect();
    assert_eq!(names, ["good"]);
    assert!(config.routes[0].check.schema.is_some());
    let check = |name: &str, line: usize, text: &str| {
        let broken = config.broken.iter().find(|broken| broken.name == name).unwrap();
        assert_eq!(broken.notice.key, format!("route.{name}.schema"));
        assert_eq!(broken.notice.line, Some(line));
        assert!(broken.notice.text.contains(text), "{}", broken.notice.text);
        // Its folder is not taken over by auto_routes.
        let not = config.discoveries[0].route_of(name).unwrap_err();
        assert_eq!(not.code, "name-taken");
    };
    check("none", 13, "cannot be read");
    check("text", 15, "is not JSON");
    check("odd", 17, "is not a JSON Schema");
}

#[test]
fn a_bad_schema_in_the_defaults_stops_what_would_be_discovered() {
    let scratch = scratch();
    let config = load(scratch.path(), &format!("{}[defaults]\nschema = 'none.json'", start()));
    let config = config.unwrap();
    assert_eq!(config.broken.len(), 1);
    assert_eq!(config.broken[0].name, "auto_routes");
    let not = config.discoveries[0].route_of("orders").unwrap_err();
    assert_eq!(not.code, "route-broken");
    assert!(not.text.contains("none.json"), "{}", not.text);
}

#[test]
fn a_schema_in_a_drop_folder_is_refused() {
    let scratch = scratch();
    fs::create_dir_all(scratch.path().join("drop/orders")).unwrap();
    fs::write(scratch.path().join("drop/orders/schema.json"), b"true").unwrap();
    let text = format!("auto_routes = false\n{}", start());
    let faults =
        load(scratch.path(), &format!("{text}[route.orders]\nschema = 'drop/orders/schema.json'"));
    let faults = faults.unwrap_err();
    assert!(faults.notices[0].text.contains("lies inside the drop folder of route orders"));
}

#[test]
fn a_secret_is_read_from_a_file_without_its_line_break() {
    let scratch = scratch();
    let secret = scratch.path().join("secret");
    let text = start().replace("env = 'PATCHDROP_CLIENT_SECRET'", "file = 'secret'");
    let check = |content: &[u8], value: Result<&str, &str>| {
        fs::write(&secret, content).unwrap();
        match (load(scratch.path(), &text), value) {
            (Ok(config), Ok(value)) => {
                let credential = &config.credentials["inbound"];
                assert_eq!(oauth2(credential).client_secret.reveal(), value);
            }
            (Err(faults), Err(said)) => assert!(faults.to_string().contains(said), "{faults}"),
            (config, _) => panic!("{config:?}"),
        }
    };
    check(b"open sesame\n", Ok("open sesame"));
    check(b"open sesame\r\n", Ok("open sesame"));
    check(b"open sesame", Ok("open sesame"));
    check(b"\n", Err("is empty"));
    check(b"two\nlines\n", Err("holds line breaks"));
    check(b"\xff", Err("is not UTF-8"));
}

#[cfg(unix)]
#[test]
fn a_secret_that_all_may_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let secret = scratch.path().join("secret");
    fs::write(&secret, b"open sesame").unwrap();
    let text = start().replace("env = 'PATCHDROP_CLIENT_SECRET'", "file = 'secret'");
    let check = |mode: u32, warnings: usize| {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let config = load(scratch.path(), &text).unwrap();
        assert_eq!(config.warnings.len(), warnings, "{mode:o}: {:?}", config.warnings);
    };
    check(0o600, 0);
    check(0o640, 0);
    check(0o644, 1);
}

#[test]
fn a_command_that_sends_nothing_needs_no_secret() {
    let scratch = scratch();
    let path = scratch.path().join("config.toml");
    let text = format!(
        "{}[route.stock]\ndeliver = 'http'\nurl = {{ file = 'none' }}\ncredential = 'inbound'\n",
        start()
    );
    fs::write(&path, text).unwrap();
    let options = LoadOptions {
        environment: Environment::Given([].into()),
        secrets_may_be_missing: true,
        base: None,
        ..LoadOptions::default()
    };
    assert_eq!(config::load(&path, &options).unwrap().routes.len(), 1);
    let options = LoadOptions { secrets_may_be_missing: false, ..options };
    assert_eq!(config::load(&path, &options).unwrap_err().notices.len(), 2);
}

#[cfg(unix)]
#[test]
fn a_link_hides_no_overlap() {
    let scratch = scratch();
    fs::create_dir_all(scratch.path().join("drop/orders")).unwrap();
    std::os::unix::fs::symlink(scratch.path().join("drop/orders"), scratch.path().join("same"))
        .unwrap();
    let text = format!("{}[route.orders]\n[route.same]\nfolder = '../same'", start());
    let faults = load(scratch.path(), &text).unwrap_err();
    assert!(faults.to_string().contains("is also that of route orders"), "{faults}");
    let text = start().replace("'state'", "'same/state'");
    let faults = load(scratch.path(), &text).unwrap_err();
    assert!(faults.to_string().contains("lies inside the root"), "{faults}");
}

#[test]
fn a_config_that_an_editor_has_named_txt_is_noticed() {
    let scratch = scratch();
    let path = scratch.path().join("config.toml");
    let hint = |path: &Path| {
        let faults = config::load(path, &LoadOptions::default()).unwrap_err();
        faults.notices[0].hint.clone().unwrap()
    };
    assert!(hint(&path).starts_with("patchdrop init DIR"), "{}", hint(&path));
    fs::write(scratch.path().join("config.toml.txt"), start()).unwrap();
    let there = scratch.path().join("config.toml.txt").display().to_string();
    assert!(hint(&path).starts_with(&format!("{there} is there: rename it")), "{}", hint(&path));
    fs::create_dir(&path).unwrap();
    assert!(hint(&path).starts_with("patchdrop init DIR"), "{}", hint(&path));
}

#[test]
fn a_stored_secret_is_looked_up_in_state_dir_and_what_is_wrong_is_said_at_its_key() {
    fn look_up(state_dir: &Path, name: &str) -> Result<Secret, NoSecret> {
        match name {
            "where" => Ok(Secret::new(state_dir.display().to_string())),
            "empty" => Ok(Secret::new("")),
            "lines" => Ok(Secret::new("one\ntwo")),
            _ => Err(NoSecret {
                text: format!("{name} is elsewhere"),
                hint: format!("set {name} again"),
            }),
        }
    }
    let scratch = scratch();
    let path = scratch.path().join("config.toml");
    let load = |name: &str, may_be_missing| {
        let stored = format!("{{ stored = '{name}' }}");
        let text = start().replace("{ env = 'PATCHDROP_CLIENT_SECRET' }", &stored);
        fs::write(&path, text).unwrap();
        let store = Store::Opened(look_up);
        let secrets_may_be_missing = may_be_missing;
        let options = LoadOptions { store, secrets_may_be_missing, base: None, ..options(&path) };
        config::load(&path, &options)
    };
    let config = load("where", false).unwrap();
    let secret = &oauth2(&config.credentials["inbound"]).client_secret;
    assert_eq!(Path::new(secret.reveal()), scratch.path().join("state"));

    let check = |name: &str, text: &str, hint: &str| {
        let notices = load(name, false).unwrap_err().notices;
        let said: Vec<_> =
            notices.iter().map(|it| (it.text.as_str(), it.hint.as_deref())).collect();
        assert_eq!(said, [(text, Some(hint))]);
        assert_eq!(notices[0].key, "credential.inbound.client_secret");
        assert!(load(name, true).is_ok(), "whoever sends nothing needs no secret");
    };
    check("other", "other is elsewhere", "set other again");
    check("empty", "secret empty is empty", "set it again: patchdrop secret set empty");
    check(
        "lines",
        "secret lines holds line breaks or control characters",
        "the secret alone, on one line",
    );
}

#[test]
fn what_a_config_wants_of_the_store_is_told_whatever_else_is_wrong_with_it() {
    let scratch = scratch();
    let path = scratch.path().join("config.toml");
    let text = "
state_dir = 'own'
nonsense = true
proxy = { stored = 'way-out' }
[credential.inbound]
kind = 'none such'
client_secret = { stored = 'inbound' }
extra = { stored = 'no secret', audience = 'x' }
[route.stock]
url = { stored = 'hook' }
hmac = { key = { stored = 'hook' } }
headers = { stored = 'plain', X-Key = { stored = 'key' } }
";
    fs::write(&path, text).unwrap();
    let shelf = config::shelf(&path, &LoadOptions::default()).unwrap();
    assert_eq!(shelf.state_dir, scratch.path().join("own"));
    let used: Vec<String> = shelf
        .used
        .iter()
        .map(|(name, keys)| {
            format!("{name}: {}", keys.iter().cloned().collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        used,
        [
            "hook: route.stock.hmac.key route.stock.url",
            "inbound: credential.inbound.client_secret",
            "key: route.stock.headers.X-Key",
            "way-out: proxy",
        ]
    );
    fs::write(&path, "root = ").unwrap();
    assert_eq!(config::shelf(&path, &LoadOptions::default()).unwrap_err().notices.len(), 1);
}
