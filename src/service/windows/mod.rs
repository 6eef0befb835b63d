//! Windows' service manager.

mod host;
pub(super) mod install;

pub(super) use host::{host, listens, tell};
