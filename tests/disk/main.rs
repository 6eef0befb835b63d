//! The real folders, files and hints, on real file systems.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "the tests make and look at the files themselves")]
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a surprise ends a test")]

mod elsewhere;
mod looking;
mod moving;
mod scene;
mod watching;
