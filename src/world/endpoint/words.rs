//! What the libraries say about the network, in words for people.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::Limits;
use crate::model::exchange::Progress;
use crate::model::outcome::{Cause, Code};

/// Turns what the libraries say into one plain sentence and a stable code.
pub(super) struct Words<'a> {
    pub(super) host: &'a str,
    pub(super) proxied: bool,
    pub(super) no_roots: bool,
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
            let text = if self.proxied {
                format!("a name does not resolve: the proxy's, or {name}")
            } else {
                format!("the name {name} does not resolve")
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
        } else if says("proxy authorization required") {
            ("connect", "the proxy asks for a name and a password".to_owned())
        } else if says("tunnel error") {
            ("connect", format!("the proxy does not connect to {}", self.host))
        } else if kind == Some(io::ErrorKind::UnexpectedEof) {
            ("connect", format!("{peer} ended the connection while it was being set up"))
        } else {
            ("connect", format!("no connection to {peer}"))
        };
        Cause::new(Code::of(code), text)
    }

    fn of_tls(&self, error: &rustls::Error) -> String {
        let host = self.host;
        if let rustls::Error::InvalidCertificate(certificate) = error {
            let why = of_certificate(certificate, self.no_roots);
            return format!("the certificate of {host} is not trusted: {why}");
        }
        if matches!(error, rustls::Error::InvalidMessage(_)) {
            return format!("{host} does not speak TLS on this port");
        }
        if let rustls::Error::AlertReceived(alert) = error {
            return format!("{host} refused the TLS connection ({alert:?})");
        }
        format!("no TLS connection with {host} could be agreed on")
    }

    /// Whom the connection goes to.
    fn peer(&self) -> String {
        if self.proxied { format!("the proxy for {}", self.host) } else { self.host.to_owned() }
    }
}

fn of_certificate(error: &CertificateError, no_roots: bool) -> &'static str {
    if no_roots {
        return "this machine has no certificate store; install the package ca-certificates";
    }
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
    } else if matches!(error, CertificateError::Revoked) {
        "it has been revoked"
    } else if matches!(error, CertificateError::UnknownIssuer) {
        "its issuer is unknown; if an intercepting proxy or a private authority signs it, that \
         authority must be in this machine's certificate store"
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
        let words = Words { host: "shop.example", proxied: false, no_roots: false };
        let of = |error| words.of_tls(&rustls::Error::InvalidCertificate(error));
        for (error, part) in [
            (CertificateError::Expired, "it has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::NotValidForName, "for another host name; an intercepting proxy"),
            (CertificateError::UnknownIssuer, "issuer is unknown; if an intercepting proxy"),
            (CertificateError::Revoked, "has been revoked"),
            (CertificateError::BadSignature, "did not pass the check"),
        ] {
            let text = of(error);
            assert!(text.starts_with("the certificate of shop.example is not trusted: "), "{text}");
            assert!(text.contains(part), "{text}");
        }
        let bare = Words { no_roots: true, ..words };
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
