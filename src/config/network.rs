//! `proxy`, `no_proxy` and `ca_file`, checked.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use reqwest::Url;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::address::UrlRules;
use super::folders;
use super::page::{At, Sink};
use super::raw::Raw;
use super::section::Written;
use super::vault::{self, Vault};
use crate::model::network::{Network, Proxy};
use crate::model::secret::Secret;

/// A whole store of authorities has a quarter of a megabyte.
const CA_FILE_MAX: u64 = 4 * 1024 * 1024;
const PROXY_FORM: &str = "write 'system', 'none', or a URL: 'http://HOST:PORT'";
/// Where the system's proxy may come from, and its password with it.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Checks how the network is reached.
pub(super) fn check(sink: &Sink, vault: &Vault<'_>, raw: &Raw) -> Network {
    let proxy = proxy(sink, vault, raw.proxy.as_ref());
    let no_proxy = raw.no_proxy.as_ref();
    if let (Some(list), Proxy::None) = (no_proxy, &proxy) {
        sink.warn(list.notice("no_proxy means nothing while there is no proxy", "take it out"));
    }
    let hosts = no_proxy.into_iter().flat_map(|list| &list.value);
    let no_proxy = hosts.filter_map(|host| outside(sink, host)).collect();
    let ca_file = raw.ca_file.as_ref().map(|written| written.with(path(vault.base, written)));
    let authorities =
        ca_file.as_ref().map(|file| authorities(sink, vault, file)).unwrap_or_default();
    Network { proxy, no_proxy, ca_file: ca_file.map(|file| file.value), authorities }
}

/// What is called while all is well. Whoever knows it could call it in our place, so that its path
/// is nobody's business, even where it stands in the config.
pub(super) fn heartbeat(urls: UrlRules<'_>, vault: &Vault<'_>, raw: &Raw) -> Option<Secret> {
    let url = vault.open_url(urls, raw.heartbeat_url.as_ref()?)?;
    vault.note(url.as_str());
    let parts = url.path_segments().into_iter().flatten();
    parts.filter(|part| part.len() >= 12).for_each(|part| vault.note(part));
    Some(Secret::new(url.as_str()))
}

/// Where a `ca_file` is.
pub(super) fn path(base: &Path, written: &At<String>) -> PathBuf {
    folders::absolute(base, Path::new(&written.value))
}

fn proxy(sink: &Sink, vault: &Vault<'_>, written: Option<&At<Written>>) -> Proxy {
    let is_plain = |word: &str| {
        written.is_none_or(|at| matches!(&at.value, Written::Plain(text) if text == word))
    };
    let (false, Some(written)) = (is_plain("system"), written) else {
        note_system(vault);
        return Proxy::System;
    };
    if is_plain("none") {
        return Proxy::None;
    }
    // What cannot be had where nothing is sent is empty.
    let Some(url) = vault.open(written).filter(|url| !url.reveal().is_empty() || vault.is_needed)
    else {
        return Proxy::None;
    };
    match proxy_url(url.reveal()) {
        Ok(parsed) => {
            if note_password(vault, &parsed) && matches!(written.value, Written::Plain(_)) {
                sink.warn(written.notice(
                    "the proxy's password stands in the config",
                    "write the whole URL elsewhere: proxy = { env = \"NAME\" }, { file = \"PATH\" } or { stored = \"NAME\" }",
                ));
            }
            Proxy::Url(Secret::new(parsed.as_str()))
        }
        // What is written is not repeated: it may hold a password.
        Err(text) => {
            sink.fault(written.notice(text, PROXY_FORM));
            Proxy::None
        }
    }
}

fn proxy_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "neither a word nor a URL that can be a proxy")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("a proxy is reached by http:// or https://, and by nothing else");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("a proxy's URL ends with its host and port");
    }
    Ok(url)
}

/// Notes what must not be shown of a proxy's URL; whether there is any.
fn note_password(vault: &Vault<'_>, url: &Url) -> bool {
    let Some(password) = url.password().filter(|password| !password.is_empty()) else {
        // A name alone may be a token.
        vault.note(url.username());
        return false;
    };
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    vault.note(password);
    vault.note(&plain(password));
    // What Basic puts into one base64 word.
    vault.note(&format!("{}:{}", plain(url.username()), plain(password)));
    true
}

fn note_system(vault: &Vault<'_>) {
    for url in PROXY_VARIABLES.iter().filter_map(|name| vault.variable(name)) {
        let url = if url.contains("://") { url } else { format!("http://{url}") };
        if let Ok(url) = Url::parse(&url) {
            note_password(vault, &url);
        }
    }
}

/// One entry of `no_proxy`, in lower case. A form that would match nothing is a fault.
fn outside(sink: &Sink, written: &At<String>) -> Option<String> {
    let text = written.value.trim().to_lowercase();
    let fits = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    let is_network = || {
        let (address, bits) = text.split_once('/')?;
        let widest = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        (bits.parse::<u8>().ok()? <= widest).then_some(())
    };
    let is_host = text.chars().all(fits) && text.contains(char::is_alphanumeric);
    if text == "*" || is_host || text.parse::<IpAddr>().is_ok() || is_network().is_some() {
        return Some(text);
    }
    let hint = match text.strip_prefix("*.") {
        Some(domain) if domain.chars().all(fits) => format!("write '.{domain}'"),
        _ => "write a host, '.example.com', an IP address or a network as '10.0.0.0/8', without \
              scheme and port"
            .to_owned(),
    };
    sink.fault(written.notice(format!("{:?} is no host or network", written.value), hint));
    None
}

/// The certificates in a PEM file. Where nothing is sent, a file that cannot be read is no fault.
fn authorities(sink: &Sink, vault: &Vault<'_>, file: &At<PathBuf>) -> Vec<Vec<u8>> {
    let shown = file.value.display();
    let fault = |text: String, hint: &str| {
        if vault.is_needed {
            sink.fault(file.notice(text, hint));
        }
        Vec::new()
    };
    let bytes = match vault::read(&file.value, CA_FILE_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            let hint = "the account that patchdrop runs as must be able to read it";
            return fault(format!("{shown} cannot be read: {error}"), hint);
        }
    };
    let has_key = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY-----");
    let hint = if has_key {
        "it holds a private key; name the file with the authority's certificate instead"
    } else {
        "it must be PEM text: -----BEGIN CERTIFICATE-----; a DER file is turned into it by \
         openssl x509 -inform der -in FILE -out FILE.pem"
    };
    let mut store = RootCertStore::empty();
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let Ok((der, true)) = certificate.map(|der| (der.to_vec(), store.add(der).is_ok())) else {
            let text = format!("certificate {} in {shown} is damaged", found.len() + 1);
            return fault(text, "export it again, as PEM");
        };
        found.push(der);
    }
    if found.is_empty() {
        return fault(format!("{shown} holds no certificate"), hint);
    }
    if has_key {
        sink.warn(file.notice(
            format!("{shown} holds a private key too, which is not used"),
            "keep keys apart from certificates that others read",
        ));
    }
    found
}
