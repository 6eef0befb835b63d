//! Decisions: total, pure functions, in the order of a file's journey. `now` and dice are
//! arguments; nothing here opens, waits or asks.
#![warn(missing_docs)]

pub mod grounds;

pub mod detect;

pub mod ready;

pub mod order;
pub mod twins;

pub mod validate;

pub mod send;

pub mod settle;

pub mod runs;

pub mod resume;

pub mod room;

pub mod pace;

pub mod schedule;

pub mod health;
