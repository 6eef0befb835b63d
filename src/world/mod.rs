//! Effects: a trait for each part of the world, and its real implementation. None of them decides
//! anything; the tests put fakes in their place and cut the power between any two effects.
#![warn(missing_docs)]

mod boot;
pub mod clock;
pub mod control;
pub mod endpoint;
pub mod folder;
pub mod gather;
pub mod instance;
pub mod keeper;
pub mod ledger;
mod own_files;
pub mod rights;
mod room;
pub mod secrets;
pub mod token;
pub mod watch;

use clock::Clock;
use endpoint::Endpoint;
use folder::Disk;
use ledger::Ledger;
use token::Tokens;

/// The real world: the system's clock, real folders, the embedded ledger, HTTP.
pub struct RealWorld {
    /// Both clocks.
    pub clock: std::sync::Arc<clock::SystemClock>,
    /// Folders and files.
    pub disk: folder::RealDisk,
    /// The durable record.
    pub ledger: std::sync::Arc<ledger::sqlite::SqliteLedger>,
    /// The network.
    pub endpoint: endpoint::HttpEndpoint,
    /// Access tokens.
    pub tokens: token::TokenDesk<clock::SystemClock, endpoint::HttpEndpoint>,
}

impl World for RealWorld {
    type Clock = clock::SystemClock;
    type Disk = folder::RealDisk;
    type Ledger = ledger::sqlite::SqliteLedger;
    type Endpoint = endpoint::HttpEndpoint;
    type Tokens = token::TokenDesk<clock::SystemClock, endpoint::HttpEndpoint>;

    fn clock(&self) -> &Self::Clock {
        &self.clock
    }
    fn disk(&self) -> &Self::Disk {
        &self.disk
    }
    fn ledger(&self) -> &Self::Ledger {
        &self.ledger
    }
    fn endpoint(&self) -> &Self::Endpoint {
        &self.endpoint
    }
    fn tokens(&self) -> &Self::Tokens {
        &self.tokens
    }
}

/// Everything outside, bundled, so that what is carried names one parameter.
pub trait World: Send + Sync + 'static {
    /// Both clocks and waiting.
    type Clock: Clock;
    /// Folders and files.
    type Disk: Disk;
    /// The durable record.
    type Ledger: Ledger;
    /// The network.
    type Endpoint: Endpoint;
    /// Access tokens.
    type Tokens: Tokens;

    /// Both clocks and waiting.
    fn clock(&self) -> &Self::Clock;
    /// Folders and files.
    fn disk(&self) -> &Self::Disk;
    /// The durable record.
    fn ledger(&self) -> &Self::Ledger;
    /// The network.
    fn endpoint(&self) -> &Self::Endpoint;
    /// Access tokens.
    fn tokens(&self) -> &Self::Tokens;
}
