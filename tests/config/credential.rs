//! Every kind of credential: what it means, and what is said where it makes no sense.

use std::collections::BTreeMap;

use patchdrop::config::{self, Config};
use patchdrop::model::route::CredentialKind;

use super::{read, right};

/// A config with nothing but a credential and a route that uses it.
fn with(credential: &str) -> String {
    format!(
        "auto_routes = false\nroot = '/nowhere/drop'\ncompany = 'acme'\n[credential.core]\n\
         {credential}\n[route.orders]\n"
    )
}

fn kind(config: &Config) -> &CredentialKind {
    &config.credentials["core"].kind
}

#[test]
fn a_login_has_the_documented_defaults() {
    let config = right(&with(
        "kind = 'login'\nemail = 'robot@example.com'\npassword = { env = 'PATCHDROP_PASSWORD' }",
    ));
    let CredentialKind::Login(login) = kind(&config) else { panic!("{config:?}") };
    assert_eq!(login.login_url, "https://svc-fabric.pwks.co/api/v1/login");
    assert_eq!((&*login.user_field, &*login.password_field), ("email", "password"));
    assert_eq!(login.email, "robot@example.com");
    assert_eq!(login.password.reveal(), "over the hedge");
    assert_eq!((&login.extra, &login.token_field), (&BTreeMap::new(), &None));
}

#[test]
fn every_part_of_a_login_can_be_set() {
    let config = right(&with(
        "kind = 'login'\nlogin_url = 'https://app.example.com/fabric/api/login'\n\
         user_field = 'username'\npassword_field = 'pass'\nemail = { env = 'API_WORD' }\n\
         password = { env = 'PATCHDROP_PASSWORD' }\nextra = { tenant = 'a', password = 'b' }\n\
         token_field = 'auth.jwt'\nrefresh_before = '1m'\nlifetime = '1h'\nkeep_token = false",
    ));
    let CredentialKind::Login(login) = kind(&config) else { panic!("{config:?}") };
    assert_eq!(login.login_url, "https://app.example.com/fabric/api/login");
    assert_eq!((&*login.user_field, &*login.password_field), ("username", "pass"));
    assert_eq!((&*login.email, login.extra.len()), ("staple-4711", 2));
    assert_eq!(login.token_field.as_deref(), Some("auth.jwt"));
    assert!(!config.credentials["core"].keep_token);
}

#[test]
fn what_goes_out_as_it_is_needs_one_key_alone() {
    let check = |text: &str, word: &str, secret: &str| {
        let config = right(&with(text));
        let kind = kind(&config);
        assert_eq!((kind.word(), kind.asked_at()), (word, None));
        let held = match kind {
            CredentialKind::ApiKey(held) | CredentialKind::Bearer(held) => held.reveal(),
            CredentialKind::Basic { user, password } => {
                assert_eq!(user, "robot");
                password.reveal()
            }
            CredentialKind::OAuth2(_) | CredentialKind::Login(_) => panic!("{kind:?}"),
        };
        assert_eq!(held, secret);
        // It may go where an inbound route sends.
        assert!(config.credentials["core"].may_go_to("inbound.pwks.co"));
        assert!(!config.credentials["core"].may_go_to("elsewhere.example.com"));
    };
    check(
        "kind = 'api_key'\napi_key = { env = 'PATCHDROP_API_KEY' }",
        "api_key",
        "0123|abcdefghijkl",
    );
    check(
        "kind = 'bearer'\ntoken = { env = 'PATCHDROP_TOKEN' }",
        "bearer",
        "header.claims.signature",
    );
    check(
        "kind = 'basic'\nuser = 'robot'\npassword = { env = 'PATCHDROP_PASSWORD' }",
        "basic",
        "over the hedge",
    );
}

#[test]
fn every_secret_and_every_pair_is_known_for_redaction() {
    let check = |text: &str, wanted: &[&str]| {
        let secrets = right(&with(text)).all_secrets();
        let secrets: Vec<&str> = secrets.iter().map(config::Secret::reveal).collect();
        for secret in wanted {
            assert!(secrets.contains(secret), "{secret} in {secrets:?}");
        }
    };
    check(
        "kind = 'basic'\nuser = 'robot'\npassword = { env = 'PATCHDROP_PASSWORD' }",
        &["over the hedge", "robot:over the hedge"],
    );
    check(
        "kind = 'login'\nemail = { env = 'API_WORD' }\npassword = { env = 'PATCHDROP_PASSWORD' }",
        &["over the hedge", "staple-4711"],
    );
    check("kind = 'api_key'\napi_key = { env = 'PATCHDROP_API_KEY' }", &["0123|abcdefghijkl"]);
    check("kind = 'bearer'\ntoken = { env = 'PATCHDROP_TOKEN' }", &["header.claims.signature"]);
}

/// A config and what is said about it, for a snapshot.
fn check(text: &str) -> String {
    let text = with(text.trim_matches('\n'));
    let Err(faults) = read(&text) else { panic!("no fault in:\n{text}") };
    let lines: Vec<String> =
        text.lines().enumerate().map(|(at, line)| format!("{:>2} | {line}", at + 1)).collect();
    let own = lines.get(4..lines.len() - 1).expect("a credential and a route").join("\n");
    format!("{own}\n\n{faults}\n\n\n")
}

#[test]
fn what_a_kind_misses_is_said_all_at_once() {
    let mut said = String::new();
    for kind in ["oauth2", "login", "api_key", "bearer", "basic"] {
        said += &check(&format!("kind = '{kind}'"));
    }
    said += &check("kind = 'apikey'");
    said += &check("api_key = { env = 'PATCHDROP_API_KEY' }");
    insta::assert_snapshot!(said);
}

#[test]
fn a_key_that_means_nothing_for_a_kind_is_a_fault() {
    let mut said = String::new();
    said += &check(
        "
kind = 'api_key'
api_key = { env = 'PATCHDROP_API_KEY' }
token_url = 'https://auth.example.com/token'
method = 'POST'
credentials_in = 'json'
scope = ''
extra = { a = 'b' }
token_field = 'x'
client_id = 'me'
client_secret = { env = 'PATCHDROP_CLIENT_SECRET' }
refresh_before = '1m'
lifetime = '1h'
keep_token = false
hosts = ['ok.example.com']
",
    );
    said += &check(
        "
kind = 'oauth2'
token_url = 'https://auth.example.com/token'
client_id = 'me'
client_secret = { env = 'PATCHDROP_CLIENT_SECRET' }
login_url = 'https://auth.example.com/login'
user_field = 'a'
password_field = 'b'
email = 'c'
password = { env = 'PATCHDROP_PASSWORD' }
api_key = { env = 'PATCHDROP_API_KEY' }
token = { env = 'PATCHDROP_TOKEN' }
user = 'd'
",
    );
    insta::assert_snapshot!(said);
}

#[test]
fn what_no_header_and_no_login_can_carry_is_a_fault() {
    let mut said = String::new();
    said += &check("kind = 'api_key'\napi_key = 'plain'");
    said += &check("kind = 'bearer'\ntoken = { env = 'PATCHDROP_PASSWORD' }");
    said += &check("kind = 'bearer'\ntoken = { env = 'WITH_BEARER' }");
    said += &check("kind = 'api_key'\napi_key = { env = 'UMLAUT' }");
    said += &check("kind = 'basic'\nuser = 'a:b'\npassword = { env = 'PATCHDROP_PASSWORD' }");
    said += &check("kind = 'basic'\nuser = ''\npassword = { env = 'EMPTY' }");
    said += &check(
        "
kind = 'login'
email = ''
password = { env = 'NOT_SET' }
login_url = 'http://login.example.com/'
user_field = 'x'
password_field = 'x'
token_field = ''
extra = { x = '1' }
",
    );
    assert!(!said.contains("hedge") && !said.contains("ümlaut"), "{said}");
    insta::assert_snapshot!(said);
}
