//! Short ways to say what a story puts on record.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use patchdrop::model::file::{Digest, FileId, Identity, Place};
use patchdrop::model::outcome::{Cause, Code};
use patchdrop::model::route::RouteName;
use patchdrop::model::step::{
    AttemptEnd, Claim, Conversion, Envelope, Intent, State, Step, Verdict,
};
use patchdrop::model::time::Wall;

pub(crate) fn place(folder: &str, name: &str) -> Place {
    Place::new(&Arc::from(Path::new(folder)), name)
}

pub(crate) fn identity(number: u64) -> Identity {
    Identity { volume: u64::MAX - 1, number, size: 2_048, mtime_ns: -5 }
}

pub(crate) fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

/// A file of route `orders` on its way, claimed at its id's own time.
pub(crate) fn claim(id: u64) -> Claim {
    Claim {
        id: FileId(id),
        route: RouteName::new("orders"),
        name: OsString::from(format!("{id}.json")),
        source: place("/srv/drop/orders", &format!("{id}.json")),
        marker: None,
        identity: identity(id),
        digest: Some(digest(7)),
        envelope: Some(Envelope {
            digest: digest(9),
            bytes: 2_045,
            conversion: Some(Conversion::Utf8BomDropped),
            wrap: None,
            remarks: vec!["key \"a\" is there twice".to_owned(), "ü".to_owned()],
        }),
        key: format!("key-{id}"),
        previous: None,
        twin: None,
        at: Wall(i64::try_from(id).unwrap()),
        intent: Intent::Attempt,
    }
}

pub(crate) fn claimed(id: u64) -> Step {
    Step::Claimed(Box::new(claim(id)))
}

pub(crate) fn refused(id: u64) -> Step {
    let intent = Intent::Refuse {
        cause: cause("json-syntax").with_excerpt(Some("secret content".to_owned())),
        target: place("/srv/drop/orders/failed", &format!("{id}.json")),
    };
    Step::Claimed(Box::new(Claim { envelope: None, intent, ..claim(id) }))
}

pub(crate) fn cause(code: &'static str) -> Cause {
    Cause::new(Code::of(code), format!("plain words about {code}"))
}

pub(crate) fn end(verdict: Verdict) -> AttemptEnd {
    AttemptEnd {
        verdict,
        code: Code::http(503),
        status: Some(503),
        request_id: Some("r-1".to_owned()),
        plain: "the server answered 503".to_owned(),
    }
}

pub(crate) fn begun(id: u64, attempt: u32, at: i64) -> Step {
    Step::AttemptBegun { id: FileId(id), attempt, at: Wall(at) }
}

pub(crate) fn ended(id: u64, attempt: u32, verdict: Verdict, at: i64) -> Step {
    Step::AttemptEnded {
        id: FileId(id),
        attempt,
        end: end(verdict),
        at: Wall(at),
        due_at: Wall(at + 1_000),
        waited_for: Duration::from_millis(1_500),
    }
}

pub(crate) fn decided(id: u64, attempt: Option<(u32, Verdict)>, state: State, at: i64) -> Step {
    Step::Decided {
        id: FileId(id),
        attempt: attempt.map(|(number, verdict)| (number, end(verdict))),
        state,
        cause: cause("http-200").with_excerpt(Some("secret content".to_owned())),
        target: place(&format!("/srv/drop/orders/{}", state.name()), &format!("{id}.json")),
        at: Wall(at),
    }
}

/// Accepted as run `31`, by attempt 1 or by a look at its flow's runs.
pub(crate) fn accepted(id: u64, by_attempt: bool, at: i64) -> Step {
    Step::Accepted {
        id: FileId(id),
        attempt: by_attempt.then(|| (1, end(Verdict::Delivered))),
        run: Some("31".to_owned()),
        at: Wall(at),
        due_at: Wall(at + 30_000),
    }
}

pub(crate) fn delivered(id: u64, at: i64) -> Step {
    decided(id, Some((1, Verdict::Delivered)), State::Sent, at)
}

pub(crate) fn settled(id: u64) -> Step {
    Step::Settled { id: FileId(id) }
}

/// A file that was claimed, decided and settled.
pub(crate) fn whole(id: u64, state: State) -> Vec<Step> {
    let at = i64::try_from(id).unwrap() + 1;
    vec![claimed(id), decided(id, Some((1, Verdict::Rejected)), state, at), settled(id)]
}
