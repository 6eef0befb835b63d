//! The clients that requests go through: directly, or through a proxy.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

use super::target::Targets;
use crate::model::network::{Network, Proxy};

/// A pooled connection is not used again after this: many servers close theirs after five seconds,
/// and a POST on a stale one can be read by the server without an answer reaching us.
const IDLE_FOR: Duration = Duration::from_secs(3);

/// What an endpoint needs to know.
#[derive(Clone, Debug, Default)]
pub struct EndpointOptions {
    /// Proxy and authorities; loopback is always reached directly.
    pub network: Network,
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

/// HTTP/1.1 through reqwest, TLS by rustls with ring, certificates from the system's store and
/// the config's `ca_file`. Clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpEndpoint {
    direct: reqwest::Client,
    proxied: Option<Proxied>,
    trust: Trust,
    targets: Targets,
}

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The system has a certificate store with at least one certificate in it.
    pub has_store: bool,
    /// How many certificates `ca_file` adds.
    pub added: usize,
}

/// The client that takes a proxy, and which hosts it is for.
#[derive(Clone, Debug)]
struct Proxied {
    client: reqwest::Client,
    proxies: Arc<Matcher>,
    /// Says of everything but `no_proxy` that it takes a proxy.
    outside: Arc<Matcher>,
}

impl HttpEndpoint {
    /// Reads the system's certificate store. A system without one is no error here, since plain
    /// `http://` needs none; HTTPS requests then end with code `tls` and say so.
    ///
    /// # Errors
    /// The proxy's URL, a certificate or the user agent cannot be used.
    pub fn new(options: EndpointOptions) -> Result<Self, EndpointError> {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider was installed before");
        }
        let EndpointOptions { network, user_agent } = options;
        let added = network
            .authorities
            .iter()
            .map(|der| reqwest::Certificate::from_der(der))
            .collect::<Result<Vec<_>, _>>()
            .map_err(EndpointError::Client)?;
        let direct = || client(&user_agent).no_proxy();
        let plain = direct().build();
        // Most likely no certificate was found; any other reason stands in the way again below.
        let trust = Trust { has_store: plain.is_ok(), added: added.len() };
        let build = |builder: reqwest::ClientBuilder| {
            let certificates = added.iter().cloned();
            let builder = if trust.has_store {
                builder.tls_certs_merge(certificates)
            } else {
                builder.tls_certs_only(certificates)
            };
            builder.build().map_err(|error| EndpointError::Client(error.without_url()))
        };
        let direct = match plain {
            Ok(plain) if added.is_empty() => plain,
            Ok(_) | Err(_) => build(direct())?,
        };
        let targets = Targets::default();
        let (builder, proxies) = match &network.proxy {
            Proxy::None => return Ok(Self { direct, proxied: None, trust, targets }),
            Proxy::System => (client(&user_agent), Matcher::from_system()),
            Proxy::Url(url) => {
                // Both readers of this URL are stricter than the one that checks it.
                let url = Url::parse(url.reveal()).map_err(|_| EndpointError::ProxyUrl)?;
                let proxies = Matcher::builder().all(url.as_str()).build();
                if proxies.intercept(&hyper::Uri::from_static("http://any/")).is_none() {
                    return Err(EndpointError::ProxyUrl);
                }
                let proxy =
                    reqwest::Proxy::all(url.as_str()).map_err(|_| EndpointError::ProxyUrl)?;
                (client(&user_agent).proxy(proxy), proxies)
            }
        };
        let outside = Matcher::builder().all("http://proxy").no(network.no_proxy.join(",")).build();
        let (proxies, outside) = (Arc::new(proxies), Arc::new(outside));
        let around = Proxied { client: build(builder)?, proxies, outside };
        Ok(Self { direct, proxied: Some(around), trust, targets })
    }

    /// Whose certificates are believed.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// What is known of where requests go.
    pub(super) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The proxy that requests to `url` take, fit to be shown: scheme, host and port. `None` where
    /// they go there directly.
    pub fn proxy_to(&self, url: &Url) -> Option<String> {
        let proxied = self.proxied.as_ref().filter(|_| !is_loopback(url))?;
        let uri: hyper::Uri = url.as_str().parse().ok()?;
        proxied.outside.intercept(&uri)?;
        let proxy = proxied.proxies.intercept(&uri)?;
        // User and password are kept apart from it.
        Some(proxy.uri().to_string().trim_end_matches('/').to_owned())
    }

    /// The client for a URL, and the proxy that it takes.
    pub(super) fn client_for(&self, url: &Url) -> (&reqwest::Client, Option<String>) {
        let proxy = self.proxy_to(url);
        match (&self.proxied, &proxy) {
            (Some(proxied), Some(_)) => (&proxied.client, proxy),
            _ => (&self.direct, None),
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
        .tls_info(true)
        .user_agent(user_agent)
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
