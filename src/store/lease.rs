//! Who runs an account: one store at a time, which a lease of the backend says.

use std::{
    fmt,
    future::{Future, pending, ready},
    pin::Pin,
};

use super::StoreFuture;

/// The right to run an account, until it is released, dropped, or lost ([`Store::acquire`](super::Store::acquire)).
///
/// Dropping it queues the release; [`release`](Self::release) waits for it, so that the next one finds the account free.
pub struct Lease {
    token: u64,
    give_back: Option<GiveBack>,
    loss: Option<Loss>,
}

/// Ready when the lease was lost.
type Loss = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// Queues the release when it is called, and answers when that is durable.
type GiveBack = Box<dyn FnOnce() -> StoreFuture<'static, ()> + Send + Sync>;

impl Lease {
    /// For backends: a lease with its fencing token. `give_back` is called once, at the latest when the lease is dropped; it
    /// queues the release before it returns, and a lease that was lost is not an error.
    pub fn new(token: u64, give_back: impl FnOnce() -> StoreFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { token, give_back: Some(Box::new(give_back)), loss: None }
    }

    /// For backends that notice by themselves when a lease is lost: `loss` is ready then, and only then.
    #[must_use]
    pub fn with_loss(mut self, loss: impl Future<Output = ()> + Send + Sync + 'static) -> Self {
        self.loss = Some(Box::pin(loss));
        self
    }

    /// The fencing token: every later lease of the same account has a higher one.
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Waits until the lease is lost: another store has the account. For ever with a backend that finds out only when something is written.
    pub async fn lost(&mut self) {
        if let Some(loss) = &mut self.loss {
            loss.await;
            // Not to be asked again.
            self.loss = None;
            return;
        }
        pending().await
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
