//! URLs, read once: every file of a route goes to the same one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;

use crate::model::secret::Secret;

/// URLs that are remembered. A route whose URL differs from file to file fills this alone, so it is
/// emptied and not searched for what can go.
const TARGETS_MAX: usize = 256;

/// Where a request goes.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) url: Url,
    /// Host and port, fit to be shown.
    pub(super) host: Arc<str>,
}

/// Reads URLs and remembers them.
#[derive(Clone, Default)]
pub(super) struct Targets {
    known: Arc<Mutex<HashMap<Secret, Target>>>,
}

impl Targets {
    /// Where a URL leads, or what is wrong with it.
    pub(super) fn of(&self, text: &Secret) -> Result<Target, &'static str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = known.get(text) {
            return Ok(target.clone());
        }
        let target = read(text)?;
        if known.len() >= TARGETS_MAX {
            known.clear();
        }
        known.insert(text.clone(), target.clone());
        Ok(target)
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // URLs may be signed.
        f.debug_struct("Targets").finish_non_exhaustive()
    }
}

fn read(text: &Secret) -> Result<Target, &'static str> {
    let url = Url::parse(text.reveal())
        .map_err(|_| "the URL cannot be used: it is no complete http:// or https:// URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the URL cannot be used: it is neither http:// nor https://");
    }
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}").into(),
        None => host.into(),
    };
    Ok(Target { url, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(targets: &Targets, text: &str, expected: Result<(&str, &str), &str>) {
        let target = targets.of(&Secret::new(text));
        let seen = target.as_ref().map(|target| (target.url.as_str(), &*target.host));
        assert_eq!(seen.map_err(|fault| *fault), expected, "{text}");
    }

    #[test]
    fn a_url_leads_to_the_same_place_each_time() {
        let targets = Targets::default();
        for _ in 0..2 {
            check(&targets, "http://a.test/x?y=1", Ok(("http://a.test/x?y=1", "a.test")));
            check(&targets, "http://a.test/x?y=2", Ok(("http://a.test/x?y=2", "a.test")));
            check(&targets, "https://[::1]:8443/", Ok(("https://[::1]:8443/", "[::1]:8443")));
            let incomplete = "the URL cannot be used: it is no complete http:// or https:// URL";
            check(&targets, "/x", Err(incomplete));
            let other = "the URL cannot be used: it is neither http:// nor https://";
            check(&targets, "ftp://a.test/", Err(other));
        }
    }

    #[test]
    fn the_memory_for_urls_is_bounded_and_shows_none() {
        let targets = Targets::default();
        for number in 0..=TARGETS_MAX {
            assert!(targets.of(&Secret::new(format!("http://a.test/{number}"))).is_ok());
        }
        assert!(targets.known.lock().unwrap().len() <= TARGETS_MAX);
        assert!(!format!("{targets:?}").contains("a.test"));
    }
}
