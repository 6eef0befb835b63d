//! The ledger's conformance suite, one for every backend, and what is special to each.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may touch files, and end where something is not as they claim"
)]

mod cuts;
mod marks;
mod sqlite;
mod suite;
mod words;
