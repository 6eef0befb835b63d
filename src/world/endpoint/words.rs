//! What the libraries say about the network, in words for people.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::{Limits, Trust};
use crate::model::exchange::Progress;
use crate::model::outcome::{Cause, Code};

/// Turns what the libraries say into one plain sentence and a stable code.
pub(super) struct Words<'a> {
    pub(super) host: &'a str,
    /// The proxy in between, without its password.
    pub(super) proxy: Option<&'a str>,
    pub(super) trust: Trust,
}

impl Words<'_> {
    pub(super) fn of_stall(&self, progress: Progress, limits: &Limits) -> Cause {
        let host = self.host;
        let stall = limits.stall.as_secs_f64();
        let (code, text) = match progress {
            Progress::Nothing => (
                "connect-timeout",
                format!(
                    "no connection to {} within {} s",
                    self.peer(),
                    limits.connect.as_secs_f64()
                ),
            ),
            Progress::Partial => {
                ("send-stalled", format!("{host} took nothing more of the body for {stall} s"))
            }
            Progress::Whole => (
                "no-answer-timeout",
                format!("the whole body was sent, and {host} did not answer for {stall} s"),
            ),
        };
        Cause::new(Code::of(code), text)
    }

    pub(super) fn of_error(&self, error: &reqwest::Error, progress: Progress) -> Cause {
        let causes = chain(error);
        if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            return Cause::new(Code::of("tls"), self.of_tls(tls));
        }
        if error.is_dns() {
            let name = self.host.rsplit_once(':').map_or(self.host, |(name, _)| name);
            let text = match self.proxy {
                // What is behind a proxy is looked up by the proxy.
                Some(proxy) => {
                    format!("the name of the proxy {proxy} does not resolve; see the key proxy")
                }
                None => format!("the name {name} does not resolve"),
            };
            return Cause::new(Code::of("dns"), text);
        }
        let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>());
        if error.is_connect() {
            return self.of_connect(io.map(io::Error::kind), &causes);
        }
        if causes
            .iter()
            .filter_map(|c| c.downcast_ref::<hyper::Error>())
            .any(hyper::Error::is_parse)
        {
            let text = format!("{} did not answer in HTTP/1.1", self.host);
            return Cause::new(Code::of("not-http"), text);
        }
        let text = match progress {
            Progress::Whole => {
                format!(
                    "the connection to {} ended after the whole body, without an answer",
                    self.host
                )
            }
            Progress::Nothing | Progress::Partial => {
                format!("the connection to {} ended before the whole body was sent", self.host)
            }
        };
        Cause::new(Code::of("cut"), text)
    }

    fn of_connect(
        &self,
        kind: Option<io::ErrorKind>,
        causes: &[&(dyn StdError + 'static)],
    ) -> Cause {
        let peer = self.peer();
        let says = |words: &str| causes.iter().any(|cause| cause.to_string().contains(words));
        let (code, text) = if kind == Some(io::ErrorKind::ConnectionRefused) {
            ("connect-refused", format!("connection refused by {peer}"))
        } else if kind == Some(io::ErrorKind::TimedOut) {
            ("connect-timeout", format!("no connection to {peer}: it does not respond"))
        } else if kind == Some(io::ErrorKind::NetworkUnreachable) {
            ("connect", format!("no network leads to {peer}"))
        } else if kind == Some(io::ErrorKind::HostUnreachable) {
            ("connect", format!("no way leads to {peer}"))
        } else if let (Some(_), true) = (self.proxy, says("proxy authorization required")) {
            return self.of_proxy_login();
        } else if let (Some(proxy), true) = (self.proxy, says("tunnel error: unsuccessful")) {
            let text = format!(
                "the proxy {proxy} does not connect to {}: it may not allow that host, or not \
                 reach it itself; see the keys proxy and no_proxy",
                self.host
            );
            ("connect", text)
        } else if let (Some(proxy), true) = (self.proxy, says("tunnel error: unexpected end")) {
            let text = format!(
                "{proxy} ended the connection when it was asked to connect to {}: it may be no \
                 proxy; see the key proxy",
                self.host
            );
            ("connect", text)
        } else if kind == Some(io::ErrorKind::UnexpectedEof) {
            ("connect", format!("{peer} ended the connection while it was being set up"))
        } else {
            ("connect", format!("no connection to {peer}"))
        };
        Cause::new(Code::of(code), text)
    }

    /// The proxy wants to know who asks.
    pub(super) fn of_proxy_login(&self) -> Cause {
        let proxy = self.proxy.unwrap_or_default();
        let text = format!(
            "the proxy {proxy} asks for a name and a password, or refuses those it was given \
             (407); write them into the URL of the key proxy"
        );
        Cause::new(Code::of("connect"), text)
    }

    fn of_tls(&self, error: &rustls::Error) -> String {
        let host = match self.proxy.filter(|proxy| proxy.starts_with("https:")) {
            // Both are asked for a certificate, and the error does not say whose it was.
            Some(proxy) => format!("{} (or of the proxy {proxy})", self.host),
            None => self.host.to_owned(),
        };
        if let rustls::Error::InvalidCertificate(certificate) = error {
            let why = of_certificate(certificate, self.trust);
            return format!("the certificate of {host} is not trusted: {why}");
        }
        if matches!(error, rustls::Error::InvalidMessage(_)) {
            return format!(
                "{} does not speak TLS on this port; see whether the URL must begin with http://",
                self.peer()
            );
        }
        if let rustls::Error::AlertReceived(alert) = error {
            return format!("{} refused the TLS connection ({alert:?})", self.host);
        }
        format!("no TLS connection with {} could be agreed on; it takes TLS 1.2 or 1.3", self.host)
    }

    /// Whom the connection goes to.
    fn peer(&self) -> String {
        match self.proxy {
            Some(proxy) => {
                format!("the proxy {proxy} for {} (see the key proxy)", self.host)
            }
            None => self.host.to_owned(),
        }
    }
}

fn of_certificate(error: &CertificateError, trust: Trust) -> &'static str {
    if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "it has expired, or this machine's clock is wrong"
    } else if matches!(
        error,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
    ) {
        "it is not valid yet, or this machine's clock is wrong"
    } else if matches!(
        error,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ) {
        "it is for another host name; an intercepting proxy may be in between"
    } else if matches!(error, CertificateError::BadSignature) {
        "its signature does not fit its issuer's certificate; if an intercepting proxy or a private \
         authority has renewed its own, ca_file must hold the new one"
    } else if matches!(error, CertificateError::Revoked) {
        "it has been revoked"
    } else if matches!(error, CertificateError::UnknownIssuer) {
        match trust {
            Trust { has_store: false, .. } => {
                "this machine has no certificate store; install the package ca-certificates"
            }
            Trust { added: 0, .. } => {
                "its issuer is unknown; if an intercepting proxy or a private authority signs it, \
                 ask for that authority's certificate as a PEM file and name the file by ca_file"
            }
            Trust { .. } => {
                "its issuer is unknown, and ca_file does not hold it; ask for the certificate of \
                 the authority that signs it now (an intercepting proxy's, or a private one) and \
                 add it to that file"
            }
        }
    } else {
        "it did not pass the check"
    }
}

/// The error and everything below it. An I/O error that wraps another hides it from `source`.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        causes.push(cause);
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => cause.source(),
        };
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_why() {
        let trust = Trust { has_store: true, added: 0 };
        let words = Words { host: "shop.example", proxy: None, trust };
        let of = |error| words.of_tls(&rustls::Error::InvalidCertificate(error));
        for (error, part) in [
            (CertificateError::Expired, "it has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::NotValidForName, "for another host name; an intercepting proxy"),
            (CertificateError::UnknownIssuer, "issuer is unknown; if an intercepting proxy"),
            (CertificateError::Revoked, "has been revoked"),
            (CertificateError::BadSignature, "ca_file must hold the new one"),
            (CertificateError::BadEncoding, "did not pass the check"),
        ] {
            let text = of(error);
            assert!(text.starts_with("the certificate of shop.example is not trusted: "), "{text}");
            assert!(text.contains(part), "{text}");
        }
        let bare = Words { trust: Trust { has_store: false, added: 0 }, ..words };
        let error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(bare.of_tls(&error).contains("no certificate store"));
    }

    #[test]
    fn an_error_hidden_in_an_io_error_is_found() {
        let inner = rustls::Error::HandshakeNotComplete;
        let outer = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, inner));
        assert!(chain(&outer).iter().any(|cause| cause.is::<rustls::Error>()));
    }
}
