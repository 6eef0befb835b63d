//! The network: one attempt, no retries, no judgement.

use std::future::Future;

use crate::model::exchange::{Reply, Request};

/// Sends requests.
pub trait Endpoint: Send + Sync + 'static {
    /// One attempt: connects, hands over the body, reads the answer. Never follows a redirect,
    /// never tries again, never says what an answer means.
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send;
}
