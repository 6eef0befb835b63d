//! URLs and hosts: what may be sent where.

use std::net::IpAddr;

use reqwest::Url;

use super::page::{At, Sink};

/// What makes a URL fit or unfit.
#[derive(Clone, Copy, Debug)]
pub(super) struct UrlRules<'a> {
    pub(super) sink: &'a Sink,
    /// Whether plain `http://` may go to other hosts than loopback.
    pub(super) allow_http: bool,
}

impl UrlRules<'_> {
    /// Reads a URL. No message repeats it, since it may carry a signature.
    pub(super) fn url(&self, written: &At<String>) -> Option<Url> {
        let fault = |text: &str, hint: &str| {
            self.sink.fault(written.notice(text, hint));
            None
        };
        let url = match Url::parse(&written.value) {
            Ok(url) if url.has_host() => url,
            Ok(_) => return fault("not a URL with a host", "write https://HOST/PATH"),
            Err(error) => {
                return fault(&format!("not a URL: {error}"), "write https://HOST/PATH");
            }
        };
        if !matches!(url.scheme(), "http" | "https") {
            return fault("only https:// and http:// can be sent to", "write https://HOST/PATH");
        }
        if !url.username().is_empty() || url.password().is_some() {
            let hint = "take user and password out of the URL and write a [credential.NAME]";
            return fault("the URL holds a user name or a password", hint);
        }
        if url.fragment().is_some() {
            return fault("the URL holds a fragment (#...), which is never sent", "take it out");
        }
        if url.scheme() == "http" && !self.allow_http && !is_loopback(&url) {
            let hint = "write https://, or allow_http = true if everything between is yours";
            return fault("plain http:// to another machine shows token and files", hint);
        }
        Some(url)
    }

    /// Reads the base of an API: a URL without query; a slash at its end is dropped.
    pub(super) fn base(&self, written: &At<String>) -> Option<Url> {
        let mut url = self.url(written)?;
        if url.query().is_some() {
            self.sink.fault(written.notice("a base URL holds no query (?...)", "take it out"));
            return None;
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Some(url)
    }

    /// Reads a host, with a port where it is not the default.
    pub(super) fn host(&self, written: &At<String>) -> Option<String> {
        let text = written.value.trim();
        let url = Url::parse(&format!("https://{text}/")).ok();
        let url = url.filter(|url| {
            let is_bare = !text.contains(['/', '?', '#', '@', '*', '\\']);
            is_bare && url.has_host() && !text.is_empty()
        });
        if url.is_none() {
            self.sink.fault(written.notice(
                format!("{text:?} is not a host"),
                "write the host alone, e.g. 'api.example.com' or 'api.example.com:8443'",
            ));
        }
        url.map(|url| host(&url))
    }
}

/// Host and port of a URL as destinations are named: lower case, the port only where it is not
/// the scheme's own.
pub(super) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default().to_lowercase();
    match url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

fn is_loopback(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether a text can be the last part of an inbound URL.
pub(super) fn is_vanity(text: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    (3..=36).contains(&text.len()) && text.bytes().all(fits)
}

/// What a vanity looks like, for messages.
pub(super) const VANITY_FORM: &str = "3 to 36 of a-z, 0-9, - and _";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> At<String> {
        At { value: text.to_owned(), line: 1, key: "url".to_owned() }
    }

    #[test]
    fn only_a_safe_url_is_a_url() {
        let check = |text: &str, allow_http: bool, named: Option<&str>| {
            let sink = Sink::default();
            let url = UrlRules { sink: &sink, allow_http }.url(&at(text));
            assert_eq!(url.as_ref().map(host).as_deref(), named, "{text}");
            assert_eq!(sink.is_clean(), named.is_some(), "{text}");
        };
        check("https://Api.Example.COM/x", false, Some("api.example.com"));
        check("https://api.example.com:443/x", false, Some("api.example.com"));
        check("https://api.example.com:8443/x", false, Some("api.example.com:8443"));
        check("http://127.0.0.1:8080/x", false, Some("127.0.0.1:8080"));
        check("http://127.3.2.1/x", false, Some("127.3.2.1"));
        check("http://[::1]:80/x", false, Some("[::1]"));
        check("http://localhost/x", false, Some("localhost"));
        check("http://localhost.example.com/x", false, None);
        check("http://127.0.0.1.example.com/x", false, None);
        check("http://api.example.com/x", false, None);
        check("http://api.example.com/x", true, Some("api.example.com"));
        check("https://user:word@api.example.com/x", false, None);
        check("https://user@api.example.com/x", false, None);
        check("https://api.example.com/x#part", false, None);
        check("ftp://api.example.com/x", false, None);
        check("file:///etc/passwd", false, None);
        check("api.example.com/x", false, None);
        check("", false, None);
    }

    #[test]
    fn a_host_is_bare() {
        let check = |text: &str, named: Option<&str>| {
            let sink = Sink::default();
            let host = UrlRules { sink: &sink, allow_http: false }.host(&at(text));
            assert_eq!(host.as_deref(), named, "{text}");
        };
        check("Api.example.com", Some("api.example.com"));
        check("api.example.com:443", Some("api.example.com"));
        check("api.example.com:8443", Some("api.example.com:8443"));
        check("https://api.example.com", None);
        check("api.example.com/x", None);
        check("*.example.com", None);
        check("me@example.com", None);
        check("", None);
    }
}
