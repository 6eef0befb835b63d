//! Files with the same bytes for the same URL: whether one of them has been accepted, or may have
//! been (promises P3 and P4, where a route asks for it with `duplicates`).

use sha2::{Digest as _, Sha256};

use crate::model::file::{Digest, FileId};
use crate::model::outcome::{Cause, Code};
use crate::model::route::Delivery;
use crate::model::step::{Entry, State, Twin};

/// The code of a file that was not sent since its twin was.
pub const DUPLICATE: &str = "duplicate-of";

/// The code of a file that waits for its twin.
pub const WAITS: &str = "twin-under-way";

/// What twins have in common: method, URL and body. A digest, since the URL may be a secret.
#[must_use]
pub fn twin_of(deliver: &Delivery, body: &Digest) -> Digest {
    let mut sha256 = Sha256::new();
    for part in [deliver.method, deliver.url.reveal()] {
        sha256.update(part.as_bytes());
        // Neither holds one, so no two pairs read alike.
        sha256.update([0]);
    }
    sha256.update(body.0);
    Digest(sha256.finalize().into())
}

/// How a file's twins on record stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Twins {
    /// None was accepted, none may have been.
    Free,
    /// This one was.
    Accepted(FileId),
    /// This one is being sent, or was and nobody knows yet what became of it: it goes on by itself.
    UnderWay(FileId),
    /// This one may have been; a person decides.
    InDoubt(FileId),
}

/// Judges a file's twins: `twins` is itself and the others, in any order. `had_begun` says of an
/// attempt without an end whether its first byte had been handed over; `None`: nobody knows. Twins
/// that this process is sending now are not its business: they hold their turn.
///
/// Of several in doubt that are sent again, the oldest goes first: they cannot all wait for each
/// other.
pub fn judge(id: FileId, twins: &[Twin], had_begun: impl Fn(&Entry) -> Option<bool>) -> Twins {
    let is_own = |twin: &&Twin| twin.entry.id == id;
    let own_was_in_doubt = twins.iter().find(is_own).is_some_and(|own| own.was_in_doubt);
    let others = || twins.iter().filter(|twin| !is_own(twin));
    let is_duplicate =
        |entry: &Entry| entry.cause.as_ref().is_some_and(|cause| &*cause.code.0 == DUPLICATE);
    let is_accepted = |twin: &&Twin| matches!(twin.entry.state, State::Sent | State::Confirming);
    let mut accepted = others().filter(is_accepted).map(|twin| &twin.entry);
    // One of them was accepted itself, the others may be its duplicates.
    if let Some(twin) = accepted.clone().find(|entry| !is_duplicate(entry)).or(accepted.next()) {
        return Twins::Accepted(twin.id);
    }
    let may_have_been = |twin: &&Twin| match twin.entry.state {
        State::Sending | State::Deferred => {
            let is_open =
                twin.entry.attempt_open_since.is_some() && had_begun(&twin.entry) != Some(false);
            let goes_after = own_was_in_doubt && id < twin.entry.id;
            is_open || twin.was_in_doubt && !goes_after
        }
        State::Held => twin.was_in_doubt,
        // A person has said that it was not, or patchdrop has given it up, or nobody will ever
        // know.
        State::Failed | State::Missing | State::Cancelled | State::Sent | State::Confirming => {
            false
        }
    };
    match others().find(may_have_been).map(|twin| &twin.entry) {
        None => Twins::Free,
        Some(twin) if twin.state == State::Held => Twins::InDoubt(twin.id),
        Some(twin) => Twins::UnderWay(twin.id),
    }
}

/// Why a file was not sent.
#[must_use]
pub fn duplicate_of(twin: FileId) -> Cause {
    let plain = format!(
        "not sent: the same bytes were accepted at the same URL before, as {twin}; \
         `patchdrop explain {twin}` tells when"
    );
    Cause::new(Code::of(DUPLICATE), plain)
}

/// Why a file waits.
#[must_use]
pub fn waits_for(twin: FileId, in_doubt: bool) -> String {
    if in_doubt {
        format!(
            "waits in sending/: the same bytes may have been accepted as {twin}, which is held; \
             find out at the receiver, then `patchdrop mark {twin}` or `patchdrop release {twin}`"
        )
    } else {
        format!(
            "waits in sending/ until it is known what becomes of {twin}, which has the same bytes"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::file::{Identity, Place};
    use crate::model::route::RouteName;
    use crate::model::secret::Secret;
    use crate::model::step::{Claim, Intent};
    use crate::model::time::Wall;

    fn deliver(method: &'static str, url: &str) -> Delivery {
        Delivery {
            kind: "http",
            url: Secret::new(url.to_owned()),
            host: Arc::from("a"),
            method,
            content_type: String::new(),
            headers: Vec::new(),
            idempotency_header: None,
            hmac: None,
            flow: None,
            credential: None,
            connect_timeout: Duration::ZERO,
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn twins_share_method_url_and_body() {
        let (one, other) = (Digest([1; 32]), Digest([2; 32]));
        let post = deliver("POST", "https://a/x");
        assert_eq!(twin_of(&post, &one), twin_of(&deliver("POST", "https://a/x"), &one));
        assert_ne!(twin_of(&post, &one), twin_of(&post, &other));
        assert_ne!(twin_of(&post, &one), twin_of(&deliver("PUT", "https://a/x"), &one));
        assert_ne!(twin_of(&post, &one), twin_of(&deliver("POST", "https://a/y"), &one));
    }

    fn twin(id: u64, state: State, change: impl Fn(&mut Twin)) -> Twin {
        let folder: Arc<std::path::Path> = Arc::from(std::path::Path::new("/drop"));
        let mut entry = Entry::of(&Claim {
            id: FileId(id),
            route: RouteName::new("orders"),
            name: "a.json".into(),
            source: Place { folder, name: "a.json".into() },
            marker: None,
            identity: Identity { volume: 1, number: id, size: 2, mtime_ns: 3 },
            digest: None,
            envelope: None,
            key: String::new(),
            previous: None,
            twin: None,
            at: Wall(0),
            intent: Intent::Attempt,
        });
        entry.state = state;
        entry.attempt_open_since = None;
        let mut twin = Twin { entry, was_in_doubt: false };
        change(&mut twin);
        twin
    }

    #[test]
    fn what_may_have_been_accepted_holds_its_twins_back() {
        let open = |twin: &mut Twin| twin.entry.attempt_open_since = Some(Wall(1));
        let doubt = |twin: &mut Twin| twin.was_in_doubt = true;
        let again = |twin: &mut Twin| {
            doubt(twin);
            open(twin);
        };
        let not_sent = |twin: &mut Twin| twin.entry.cause = Some(duplicate_of(FileId(9)));
        let as_it_is = |_: &mut Twin| {};
        let check = |others: &[Twin], had_begun: Option<bool>, expected: Twins| {
            let own = twin(5, State::Sending, open);
            let twins: Vec<Twin> = [&[own], others].concat();
            assert_eq!(judge(FileId(5), &twins, |_| had_begun), expected, "{others:?}");
        };
        check(&[], None, Twins::Free);
        check(&[twin(1, State::Sent, as_it_is)], None, Twins::Accepted(FileId(1)));
        check(&[twin(1, State::Confirming, as_it_is)], None, Twins::Accepted(FileId(1)));
        let both = [twin(1, State::Sent, not_sent), twin(2, State::Sent, as_it_is)];
        check(&both, None, Twins::Accepted(FileId(2)));
        check(&[twin(1, State::Sent, not_sent)], None, Twins::Accepted(FileId(1)));
        check(&[twin(1, State::Sending, open)], Some(true), Twins::UnderWay(FileId(1)));
        check(&[twin(1, State::Sending, open)], None, Twins::UnderWay(FileId(1)));
        check(&[twin(1, State::Sending, open)], Some(false), Twins::Free);
        check(&[twin(1, State::Sending, again)], Some(false), Twins::UnderWay(FileId(1)));
        check(&[twin(1, State::Deferred, as_it_is)], None, Twins::Free);
        check(&[twin(1, State::Deferred, doubt)], None, Twins::UnderWay(FileId(1)));
        check(&[twin(9, State::Deferred, doubt)], None, Twins::UnderWay(FileId(9)));
        check(&[twin(1, State::Held, doubt)], None, Twins::InDoubt(FileId(1)));
        check(&[twin(1, State::Held, as_it_is)], None, Twins::Free);
        check(&[twin(1, State::Failed, doubt)], None, Twins::Free);
        check(&[twin(1, State::Missing, doubt)], None, Twins::Free);
        let mixed = [twin(1, State::Held, doubt), twin(2, State::Sent, as_it_is)];
        check(&mixed, None, Twins::Accepted(FileId(2)));
        let both = [twin(1, State::Deferred, doubt), twin(2, State::Deferred, doubt)];
        assert_eq!(judge(FileId(1), &both, |_| None), Twins::Free);
        assert_eq!(judge(FileId(2), &both, |_| None), Twins::UnderWay(FileId(1)));
    }
}
