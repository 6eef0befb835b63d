//! The real folders, files and hints, on real file systems.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "the tests make and look at the files themselves")]

mod elsewhere;
mod looking;
mod moving;
mod scene;
mod watching;
