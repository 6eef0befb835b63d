//! `proxy`, `no_proxy`, `ca_file`.
#![expect(clippy::disallowed_methods, reason = "the tests write what the config names")]

use std::fs;
use std::path::Path;

use patchdrop::config::{self, Config, ConfigFaults, Environment, LoadOptions};
use patchdrop::model::network::Proxy;

use super::options;

fn read(keys: &str) -> Result<Config, ConfigFaults> {
    let text = format!("state_dir = '/s'\n{keys}\n[log]\nlevel = 'info'\n");
    config::read(text.as_bytes(), Path::new("config.toml"), &options(Path::new("/nowhere/etc")))
}

#[test]
fn the_proxy_is_a_word_or_a_url() {
    let check = |written: &str, means: Result<Option<&str>, &str>| {
        let read = read(&format!("proxy = {written}"));
        match (read, means) {
            (Ok(config), Ok(url)) => match (&config.network.proxy, url) {
                (Proxy::Url(found), Some(url)) => assert_eq!(found.reveal(), url),
                (found, url) => assert_eq!((found, url), (&Proxy::None, None), "{written}"),
            },
            (Err(faults), Err(text)) => {
                let said = faults.to_string();
                assert!(said.contains(text) && !said.contains("w0rd"), "{written}: {said}");
            }
            (read, _) => panic!("{written}: {read:?}"),
        }
    };
    check("'none'", Ok(None));
    check("'http://proxy.example.com:3128'", Ok(Some("http://proxy.example.com:3128/")));
    check("'https://proxy.example.com'", Ok(Some("https://proxy.example.com/")));
    check("{ env = 'PROXY' }", Ok(Some("http://me:pa%2Fss@proxy.example.com:3128/")));
    check("'http://me:w0rd@proxy.example.com/'", Ok(Some("http://me:w0rd@proxy.example.com/")));
    check("'proxy.example.com'", Err("neither a"));
    check("'me:w0rd@proxy.example.com:3128'", Err("by nothing else"));
    check("'socks5://me:w0rd@proxy.example.com'", Err("by nothing else"));
    check("'http://me:w0rd@proxy.example.com/proxy.pac'", Err("ends with its host and port"));
    check("{ env = 'EMPTY' }", Err("is empty"));
    check("true", Err("must be text in quotes or a secret"));
    for keys in ["", "proxy = 'system'"] {
        assert_eq!(read(keys).unwrap().network.proxy, Proxy::System);
    }
}

#[test]
fn a_proxys_password_is_a_secret_in_every_form_that_it_takes() {
    let secrets = |config: &Config| {
        let all = config.all_secrets();
        all.iter().map(|secret| secret.reveal().to_owned()).collect::<Vec<_>>()
    };
    let found = secrets(&read("proxy = { env = 'PROXY' }").unwrap());
    for form in ["pa%2Fss", "pa/ss", "me:pa/ss", "http://me:pa%2Fss@proxy.example.com:3128"] {
        assert!(found.iter().any(|secret| secret == form), "{form}");
    }
    let plain = read("proxy = 'http://me:w0rd@proxy.example.com'").unwrap();
    assert!(plain.warnings.iter().any(|warning| warning.text.contains("stands in the config")));
    assert!(secrets(&plain).contains(&"me:w0rd".to_owned()));

    // What the system says is read by the HTTP client itself; its password is hidden all the same.
    let variables = [("https_proxy".to_owned(), "me:w0rd@proxy.example.com:3128".to_owned())];
    let environment = Environment::Given(variables.into());
    let options = LoadOptions { environment, ..LoadOptions::default() };
    let config = config::read(b"state_dir = '/s'", Path::new("config.toml"), &options).unwrap();
    assert!(secrets(&config).contains(&"me:w0rd".to_owned()));
}

#[test]
fn no_proxy_takes_hosts_suffixes_addresses_and_networks() {
    let check = |entry: &str, means: Result<&str, &str>| {
        let keys = format!("proxy = 'http://p:1'\nno_proxy = ['{entry}']");
        match (read(&keys), means) {
            (Ok(config), Ok(means)) => assert_eq!(config.network.no_proxy, [means]),
            (Err(faults), Err(hint)) => {
                assert!(faults.to_string().contains(hint), "{entry}: {faults}");
            }
            (read, _) => panic!("{entry}: {read:?}"),
        }
    };
    check("Shop.Example.com", Ok("shop.example.com"));
    check(".example.com", Ok(".example.com"));
    check("10.0.0.0/8", Ok("10.0.0.0/8"));
    check("192.0.2.7", Ok("192.0.2.7"));
    check("2001:db8::/32", Ok("2001:db8::/32"));
    check("*", Ok("*"));
    check("*.example.com", Err("write '.example.com'"));
    check("shop.example.com:8443", Err("without scheme and port"));
    check("https://shop.example.com", Err("without scheme and port"));
    check("10.0.0.0/40", Err("is no host or network"));
    check("a, b", Err("is no host or network"));
    check("", Err("is no host or network"));
    let idle = read("proxy = 'none'\nno_proxy = ['a.example']").unwrap();
    assert!(idle.warnings.iter().any(|warning| warning.text.contains("means nothing")));
}

#[test]
fn ca_file_holds_certificates_or_is_a_fault() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let path = folder.join("config.toml");
    fs::write(&path, "state_dir = '/s'\nca_file = 'authority.pem'\n").unwrap();
    let certified = rcgen::generate_simple_self_signed(["ours.example".to_owned()]).unwrap();
    let (pem, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let damaged = pem.replacen("MII", "AAA", 1);
    let read = || config::load(&path, &LoadOptions { base: None, ..options(folder) });
    let needless = || {
        let options = LoadOptions { secrets_may_be_missing: true, base: None, ..options(folder) };
        config::load(&path, &options).unwrap().network.authorities.len()
    };
    let check = |text: &str, means: Result<usize, &str>, warns: bool| {
        fs::write(folder.join("authority.pem"), text).unwrap();
        match (read(), means) {
            (Ok(config), Ok(count)) => {
                assert_eq!(config.network.authorities.len(), count);
                let warned = config.warnings.iter().any(|at| at.text.contains("private key"));
                assert_eq!(warned, warns);
                assert_eq!(config.network.ca_file.as_deref(), Some(&*folder.join("authority.pem")));
            }
            (Err(faults), Err(words)) => {
                assert!(faults.to_string().contains(words), "{faults}");
                assert_eq!(faults.notices[0].line, Some(2));
                assert_eq!(needless(), 0);
            }
            (read, _) => panic!("{means:?}: {read:?}"),
        }
    };
    check(&pem, Ok(1), false);
    check(&format!("# ours\n{pem}\n# and again\n{pem}"), Ok(2), false);
    check(&format!("{pem}{key}"), Ok(1), true);
    check("", Err("holds no certificate"), false);
    check("words", Err("openssl x509 -inform der"), false);
    check(&key, Err("it holds a private key; name the file"), false);
    check(&format!("{pem}{damaged}"), Err("certificate 2 in"), false);
    fs::remove_file(folder.join("authority.pem")).unwrap();
    let said = read().unwrap_err().to_string();
    assert!(said.contains("authority.pem cannot be read: "), "{said}");
}
