//! Who runs an account: one store at a time, which a lease of the backend says.

use std::{fmt, future::ready};

use super::StoreFuture;

/// The right to run an account, until it is released, dropped, or lost ([`Store::acquire`](super::Store::acquire)).
///
/// Dropping it queues the release; [`release`](Self::release) waits for it, so that the next one finds the account free.
pub struct Lease {
    token: u64,
    give_back: Option<GiveBack>,
}

/// Queues the release when it is called, and answers when that is durable.
type GiveBack = Box<dyn FnOnce() -> StoreFuture<'static, ()> + Send + Sync>;

impl Lease {
    /// For backends: a lease with its fencing token. `give_back` is called once, at the latest when the lease is dropped; it
    /// queues the release before it returns, and a lease that was lost is not an error.
    pub fn new(token: u64, give_back: impl FnOnce() -> StoreFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { token, give_back: Some(Box::new(give_back)) }
    }

    /// The fencing token: every later lease of the same account has a higher one.
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Gives the account back. The future is ready when that is durable; dropping it does not take it back.
    ///
    /// # Errors
    /// Those of the backend; the account is then free when the lease has run out or the store is closed.
    pub fn release(mut self) -> StoreFuture<'static, ()> {
        self.give_back
            .take()
            .map_or_else(|| Box::pin(ready(Ok(()))) as StoreFuture<'static, ()>, |give_back| give_back())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            drop(give_back());
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("token", &self.token).finish_non_exhaustive()
    }
}
