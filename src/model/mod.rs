//! Words: plain data that every layer may speak of. No I/O, no clock, no async.
#![warn(missing_docs)]

pub mod blot;
pub mod command;
pub mod durability;
pub mod exchange;
pub mod file;
pub mod network;
pub mod outcome;
pub mod quoted;
pub mod room;
pub mod route;
pub mod secret;
pub mod status;
pub mod step;
pub mod time;
