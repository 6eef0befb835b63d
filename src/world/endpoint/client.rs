//! The clients that requests go through: directly, or through a proxy.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;

use crate::model::secret::Secret;

/// A pooled connection is not used again after this: many servers close theirs after five seconds,
/// and a POST on a stale one can be read by the server without an answer reaching us.
const IDLE_FOR: Duration = Duration::from_secs(3);

/// Which proxy requests take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// What the system says (environment, or the system's settings).
    System,
    /// None.
    #[default]
    None,
    /// This one. A secret, since it may hold a name and a password.
    Url(Secret),
}

/// How the network is reached.
#[derive(Clone, Debug, Default)]
pub struct EndpointOptions {
    /// Which proxy; loopback is always reached directly.
    pub proxy: Proxy,
    /// The value of `User-Agent`.
    pub user_agent: String,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The proxy's URL is none. (It may hold a password, so it is not shown.)
    #[error("the proxy's URL cannot be used")]
    ProxyUrl,
    /// The client could not be built.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// HTTP/1.1 through reqwest, TLS by rustls with ring, certificates from the system's store. Clones
/// share their connections.
#[derive(Clone, Debug)]
pub struct HttpEndpoint {
    pub(super) direct: reqwest::Client,
    proxied: Option<reqwest::Client>,
    /// The system has no certificate store: every HTTPS request will fail, and is told why.
    pub(super) no_roots: bool,
}

impl HttpEndpoint {
    /// Reads the system's certificate store once. A system without one is no error here, since
    /// plain `http://` needs none; HTTPS requests then end with code `tls` and say so.
    ///
    /// # Errors
    /// The proxy's URL or the user agent cannot be used.
    pub fn new(options: EndpointOptions) -> Result<Self, EndpointError> {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider was installed before");
        }
        let EndpointOptions { proxy, user_agent } = options;
        let direct = || client(&user_agent).no_proxy();
        let (direct, no_roots) = match direct().build() {
            Ok(direct) => (direct, false),
            // Most likely no certificate was found; any other reason stands in the way again.
            Err(_) => (build(direct().tls_certs_only(Vec::new()))?, true),
        };
        let proxied = match proxy {
            Proxy::None => None,
            Proxy::System => Some(client(&user_agent)),
            Proxy::Url(url) => {
                let proxy =
                    reqwest::Proxy::all(url.reveal()).map_err(|_| EndpointError::ProxyUrl)?;
                Some(client(&user_agent).proxy(proxy))
            }
        };
        let proxied = proxied.map(|builder| {
            build(if no_roots { builder.tls_certs_only(Vec::new()) } else { builder })
        });
        Ok(Self { direct, proxied: proxied.transpose()?, no_roots })
    }

    pub(super) fn client_for(&self, url: &Url) -> (&reqwest::Client, bool) {
        match &self.proxied {
            Some(proxied) if !is_loopback(url) => (proxied, true),
            _ => (&self.direct, false),
        }
    }
}

fn client(user_agent: &str) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .http1_only()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .pool_idle_timeout(IDLE_FOR)
        .tcp_nodelay(true)
        .user_agent(user_agent)
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, EndpointError> {
    builder.build().map_err(|error| EndpointError::Client(error.without_url()))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost") || bare.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (url, is_so) in [
            ("http://127.0.0.1:8080/x", true),
            ("http://127.8.9.1/", true),
            ("http://[::1]:80/", true),
            ("http://localhost/", true),
            ("http://LOCALHOST/", true),
            ("http://a.localhost/", true),
            ("http://localhost.example/", false),
            ("http://notlocalhost/", false),
            ("http://10.0.0.1/", false),
            ("http://127.0.0.1.example/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), is_so, "{url}");
        }
    }
}
