//! What the config says, and what it says about its faults.

mod credential;
mod deliveries;
mod example;
mod faults;
mod meaning;
mod network;
mod surroundings;

use std::collections::BTreeMap;
use std::path::Path;

use patchdrop::config::{self, Config, ConfigFaults, Environment, LoadOptions, Store};
use patchdrop::model::route::{Credential, CredentialKind, OAuth2};

/// The environment that all tests see.
fn options(base: &Path) -> LoadOptions {
    let variables = [
        ("PATCHDROP_CLIENT_SECRET", "correct horse battery"),
        ("SIGNED_URL", "https://hooks.example.com/in?signature=0123456789abcdef"),
        (
            "STOCK_HOOK_URL",
            "https://hooks.example.com/acme/7?patchworks_signature=9f8e7d6c5b4a3210",
        ),
        ("STOCK_HOOK_KEY", "shared-hook-word"),
        ("API_WORD", "staple-4711"),
        ("PROXY", "http://me:pa%2Fss@proxy.example.com:3128"),
        ("PATCHDROP_PASSWORD", "over the hedge"),
        ("PATCHDROP_API_KEY", "0123|abcdefghijkl"),
        ("PATCHDROP_TOKEN", "header.claims.signature"),
        ("WITH_BEARER", "Bearer header.claims.signature"),
        ("UMLAUT", "ümlaut"),
        ("EMPTY", ""),
    ];
    let variables: BTreeMap<String, String> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    LoadOptions {
        base: Some(base.to_owned()),
        environment: Environment::Given(variables),
        store: Store::Given(
            [("kept", "kept-4711-staple"), ("heartbeat", "https://alive.example.com/ping/0815")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        ),
        secrets_may_be_missing: false,
    }
}

/// Reads a config that lies nowhere.
fn read(text: &str) -> Result<Config, ConfigFaults> {
    config::read(text.as_bytes(), Path::new("config.toml"), &options(Path::new("/nowhere/etc")))
}

/// Reads one that must be right.
fn right(text: &str) -> Config {
    match read(text) {
        Ok(config) => config,
        Err(faults) => panic!("{faults}"),
    }
}

/// What is exchanged for tokens.
fn oauth2(credential: &Credential) -> &OAuth2 {
    let CredentialKind::OAuth2(oauth2) = &credential.kind else { panic!("{credential:?}") };
    oauth2
}

/// A credential, to put behind what a test is about.
const CREDENTIAL: &str = "
[credential.inbound]
kind = 'oauth2'
token_url = 'https://auth.example.com/token'
client_id = 'me'
client_secret = { env = 'PATCHDROP_CLIENT_SECRET' }
";
