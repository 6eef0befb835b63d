//! What the demo drops, and what it expects to become of each.

use encoding_rs::WINDOWS_1252;

use crate::model::step::State;
use crate::simulator::{Act, Match, Rule};

/// How a file comes to lie in its drop folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Written under a temporary name and renamed: complete from the first moment.
    Renamed,
    /// Written under its own name, all at once.
    Written,
    /// Written under its own name bit by bit.
    Slowly,
}

/// One sample.
pub(super) struct Sample {
    /// The route's folder.
    pub(super) route: &'static str,
    /// The file's name; it occurs once.
    pub(super) name: &'static str,
    /// What it is, in a few words.
    pub(super) what: &'static str,
    /// How it comes.
    pub(super) arrival: Arrival,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Where it must end; `None`: it stays where it was dropped.
    pub(super) end: Option<State>,
    /// The code that must be on record for that.
    pub(super) code: &'static str,
    /// How often the server must have been asked to take it.
    pub(super) requests: u64,
    /// What the server must have stored of it.
    pub(super) stored: Option<Vec<u8>>,
}

impl Sample {
    /// Where it is dropped, as it is shown: `orders/SO-1001.json`.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.route, self.name)
    }
}

/// The order that the server refuses.
const REFUSED: &str = "SO-1004.json";
/// The order whose answer is lost.
const LOST: &str = "SO-1005.json";
/// The stock list that meets a busy server.
const BUSY: &str = "stock-muenchen.json";

const TRUNCATED: &str = include_str!("../../../examples/demo/SO-1003.json");

/// All of them, in the order in which they are dropped.
pub(super) fn all() -> Vec<Sample> {
    let mut samples = good();
    samples.extend(odd());
    samples.extend(troubled());
    samples
}

fn good() -> Vec<Sample> {
    let large = include_str!("../../../examples/demo/SO-1002.json");
    vec![
        accepted("customers", "customers-all.json", "written slowly", {
            include_str!("../../../examples/demo/customers-all.json")
        })
        .arriving(Arrival::Slowly),
        accepted("orders", "SO-1001.json", "an order", {
            include_str!("../../../examples/demo/SO-1001.json")
        }),
        accepted("orders", "SO-1002.json", "an order", large).arriving(Arrival::Written),
        accepted("stock", "stock-berlin.json", "a stock list", {
            include_str!("../../../examples/demo/stock-berlin.json")
        }),
        accepted("customers", "K-4711.json", "a customer", {
            include_str!("../../../examples/demo/K-4711.json")
        }),
    ]
}

/// Files that are not what they should be.
fn odd() -> Vec<Sample> {
    let stock = include_str!("../../../examples/demo/stock-hamburg.json");
    let customer = include_str!("../../../examples/demo/K-4712.json");
    let invoice = include_str!("../../../examples/demo/invoice-88.json");
    let cut_at = TRUNCATED.floor_char_boundary(TRUNCATED.len() * 3 / 5);
    let truncated = TRUNCATED.as_bytes().get(..cut_at).unwrap_or_default().to_vec();
    let with_bom = [b"\xef\xbb\xbf", stock.as_bytes()].concat();
    vec![
        refused("orders", "SO-1003.json", "cut off in the middle", truncated, "truncated"),
        Sample {
            bytes: with_bom,
            ..accepted("stock", "stock-hamburg.json", "with a UTF-8 BOM", stock)
        },
        Sample {
            bytes: windows_1252(invoice),
            ..accepted("old-erp", "invoice-88.json", "windows-1252, declared", invoice)
        },
        refused(
            "customers",
            "K-4712.json",
            "windows-1252, undeclared",
            windows_1252(customer),
            "invalid-utf8",
        ),
        Sample {
            end: None,
            requests: 0,
            stored: None,
            ..accepted("orders", "README.txt", "no JSON file", "Drop orders here.\n")
        },
    ]
}

/// Good files with which something goes wrong on the way.
fn troubled() -> Vec<Sample> {
    let refused = include_str!("../../../examples/demo/SO-1004.json");
    let lost = include_str!("../../../examples/demo/SO-1005.json");
    let busy = include_str!("../../../examples/demo/stock-muenchen.json");
    vec![
        Sample {
            end: Some(State::Failed),
            code: "http-422",
            stored: None,
            ..accepted("orders", REFUSED, "the server refuses it", refused)
        },
        Sample {
            end: Some(State::Held),
            code: "cut",
            ..accepted("orders", LOST, "the answer is lost", lost)
        },
        Sample { requests: 2, ..accepted("stock", BUSY, "the server is busy", busy) },
    ]
}

/// What goes wrong at the server, and for which files.
pub(super) fn rules() -> Vec<Rule> {
    let rule = |name: &str, first: Option<u64>, act: Act| Rule {
        when: Match { name: Some(name.to_owned()), ..Match::default() },
        first,
        act,
        ..Rule::default()
    };
    let answer = |status: u16, message: &str| Act::Answer {
        status,
        message: Some(message.to_owned()),
        retry_after: None,
    };
    vec![
        rule(REFUSED, None, answer(422, "The customer K-9999 is unknown.")),
        rule(LOST, Some(1), Act::StoreThenCut),
        rule(BUSY, Some(1), answer(503, "Service Unavailable")),
    ]
}

fn accepted(
    route: &'static str,
    name: &'static str,
    what: &'static str,
    text: &'static str,
) -> Sample {
    Sample {
        route,
        name,
        what,
        arrival: Arrival::Renamed,
        bytes: text.into(),
        end: Some(State::Sent),
        code: "",
        requests: 1,
        stored: Some(text.into()),
    }
}

fn refused(
    route: &'static str,
    name: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
    code: &'static str,
) -> Sample {
    Sample {
        bytes,
        end: Some(State::Failed),
        code,
        requests: 0,
        stored: None,
        ..accepted(route, name, what, "")
    }
}

impl Sample {
    fn arriving(self, arrival: Arrival) -> Self {
        Self { arrival, ..self }
    }
}

fn windows_1252(text: &str) -> Vec<u8> {
    let (bytes, _, _) = WINDOWS_1252.encode(text);
    bytes.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_occurs_once_and_is_shown_with_its_route() {
        let samples = all();
        let names: std::collections::BTreeSet<&str> =
            samples.iter().map(|sample| sample.name).collect();
        assert_eq!(names.len(), samples.len());
        assert_eq!(samples[1].title(), "orders/SO-1001.json");
    }

    #[test]
    fn the_odd_samples_are_what_they_say() {
        let sample = |name: &str| all().into_iter().find(|sample| sample.name == name).unwrap();
        assert!(sample("stock-hamburg.json").bytes.starts_with(b"\xef\xbb\xbf"));
        for name in ["K-4712.json", "invoice-88.json"] {
            let bytes = sample(name).bytes;
            assert!(std::str::from_utf8(&bytes).is_err(), "{name}");
            assert!(!bytes.windows(2).any(|pair| pair == b"&#"), "{name} has an unmappable letter");
        }
        let cut = serde_json::from_slice::<serde_json::Value>(&sample("SO-1003.json").bytes);
        assert!(cut.unwrap_err().is_eof());
    }
}
