//! The real program on real disks, sending to the simulator over loopback: what issue and README
//! promise, seen from outside.
//!
//! Everything waits for what it waits for, with a guard that only a failed test reaches. Sizes that
//! take minutes are scaled by the environment; README.md here says how to run them whole.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "tests make files of their own and read a clock")]
#![expect(clippy::unwrap_used, reason = "a surprise ends a test")]

mod bad_input;
mod cuts;
mod disk;
mod duplicates;
mod flows;
mod folders;
mod hostile;
mod kills;
mod lost;
mod memory;
mod notify;
mod odd_files;
mod orders;
mod pauses;
mod refused;
mod reload;
mod rights;
mod scene;
mod stops;
mod volume;
mod writing;
