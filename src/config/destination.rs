//! `[destination."HOST"]`: what the routes that send to one host share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::address::UrlRules;
use super::page::{At, Sink};
use super::raw::RawDestination;
use super::suggest;
use crate::model::route::{PaceRules, Rate};

/// Documented limits of Patchworks' own hosts.
const KNOWN: [(&str, u32); 2] =
    [("start.wearepatchworks.com", 240), ("webhooks.wearepatchworks.com", 120)];

/// The rules by host: those that are written, and those that hold anyway.
pub(super) fn check(
    urls: UrlRules<'_>,
    written: &[(At<String>, RawDestination)],
) -> BTreeMap<Arc<str>, PaceRules> {
    let known = KNOWN.iter().map(|(host, count)| {
        let rate = Some(Rate { count: *count, per: Duration::from_mins(1) });
        (Arc::from(*host), PaceRules { rate, ..PaceRules::default() })
    });
    let mut rules: BTreeMap<Arc<str>, PaceRules> = known.collect();
    let mut places: BTreeMap<String, &At<String>> = BTreeMap::new();
    for (name, own) in written {
        let Some(host) = urls.host(name) else { continue };
        if let Some(first) = places.insert(host.clone(), name) {
            let text = format!("this is the host of {} in line {}", first.key, first.line);
            urls.sink.fault(name.notice(text, "put their keys into one table"));
            continue;
        }
        let rule: &mut PaceRules = rules.entry(Arc::from(host)).or_default();
        rule.rate = own.rate.as_ref().map(|rate| rate.value).or(rule.rate);
        rule.concurrency = own.concurrency.as_ref().map(|most| most.value);
        if let Some(most) = &own.retry_after_max {
            rule.retry_after_max = most.value;
        }
    }
    rules
}

/// Says which tables are for hosts that nothing is sent to.
pub(super) fn warn(
    sink: &Sink,
    urls: UrlRules<'_>,
    written: &[(At<String>, RawDestination)],
    hosts: &BTreeSet<String>,
) {
    for (name, _) in written {
        let Some(host) = urls.host(name) else { continue };
        if !hosts.contains(&host) {
            let near = suggest::nearest(&host, hosts.iter().map(String::as_str));
            let hint = near.map(|near| format!("did you mean {near}?"));
            sink.warn(name.notice(
                format!("no route sends to {host}"),
                hint.unwrap_or_else(|| "take it out, or write the host of a route".to_owned()),
            ));
        }
    }
}
