//! The real program under fire: a server that misbehaves, SIGKILL at random and at chosen moments,
//! disks that forget, hang, fill up and come back. README.md here says how it is run at length.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "tests make files of their own and read a clock")]
#![expect(clippy::unwrap_used, reason = "a surprise ends a test")]
#![expect(clippy::print_stdout, reason = "the figures are what the run is for")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers out of dice")]

mod cuts;
mod dice;
mod forgetful;
mod judge;
mod mounts;
mod receiver;
mod refusals;
mod rounds;
mod samples;
#[path = "../e2e/scene.rs"]
#[expect(dead_code, reason = "the end-to-end tests need all of it")]
mod scene;
mod speed;
