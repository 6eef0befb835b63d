//! How the network is reached.

use std::path::PathBuf;

use super::secret::Secret;

/// Which proxy requests take. Loopback is always reached directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// What the system says: the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`,
    /// `NO_PROXY`), else the system's settings where it has some.
    #[default]
    System,
    /// None.
    None,
    /// This one. A secret, since it may hold a name and a password.
    Url(Secret),
}

/// How the network is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Which proxy requests take.
    pub proxy: Proxy,
    /// What is reached without it: hosts with everything below them, IP addresses, networks as
    /// `10.0.0.0/8`, or `*`. Holds for the system's proxy too, beside the system's own list.
    pub no_proxy: Vec<String>,
    /// The file that `authorities` are from.
    pub ca_file: Option<PathBuf>,
    /// Certificates (DER) that are trusted beside those in the system's store.
    pub authorities: Vec<Vec<u8>>,
}
