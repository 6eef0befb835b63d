//! Access tokens: asked for once, kept, refreshed early, never hammered.

use std::future::Future;

use crate::model::exchange::{CredentialName, Token, TokenRefusal};

/// The one owner of access tokens.
pub trait Tokens: Send + Sync + 'static {
    /// The token in force; asks for one if there is none. Concurrent callers share one exchange. A
    /// refusal is remembered until its `retry_after`, so that a refused secret is not hammered.
    fn current(
        &self,
        credential: &CredentialName,
    ) -> impl Future<Output = Result<Token, TokenRefusal>> + Send;

    /// Forces a new token because that of `generation` was refused. Does nothing but hand out the
    /// newer one if there is one already: one forced refresh a generation.
    fn refresh(
        &self,
        credential: &CredentialName,
        generation: u64,
    ) -> impl Future<Output = Result<Token, TokenRefusal>> + Send;
}
