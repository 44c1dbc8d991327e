//! The consumer's end of the outbox.
//!
//! An event stays in the store until it is acknowledged; after a restart everything that was not comes again, with the
//! same `eventId` and `seq`. [`Events::recv`] acknowledges an event when the next one is asked for;
//! [`Events::next`] leaves it to the caller.

use tokio::sync::mpsc;

use crate::event::Envelope;

/// The events of one account, in order. Not cloneable: there is one consumer.
#[derive(Debug)]
pub struct Events {
    pub(super) queue: mpsc::Receiver<Delivery>,
    pub(super) acknowledged: mpsc::UnboundedSender<u64>,
    /// Given out by `recv` and not acknowledged yet.
    pub(super) handled: Option<u64>,
}

/// An event that waits for its acknowledgement.
#[derive(Clone, Debug)]
pub struct Delivery {
    // Boxed: a channel has room for some dozens of them from the start.
    pub(super) envelope: Box<Envelope>,
    pub(super) acknowledged: mpsc::UnboundedSender<u64>,
}

impl Events {
    /// The next event; the one before is acknowledged by asking. `None` when the account was stopped.
    ///
    /// A crash while an event is handled brings it again: handle it before asking for the next.
    pub async fn recv(&mut self) -> Option<Envelope> {
        if let Some(seq) = self.handled.take() {
            let _ = self.acknowledged.send(seq);
        }
        let envelope = self.queue.recv().await?.into_envelope();
        self.handled = envelope.seq;
        Some(envelope)
    }

    /// The next event, to be acknowledged by [`Delivery::acknowledge`]. `None` when the account was stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.queue.recv().await
    }

    /// Acknowledges every event up to and including `seq`.
    pub fn acknowledge(&self, seq: u64) {
        let _ = self.acknowledged.send(seq);
    }
}

impl Drop for Events {
    /// The event that `recv` gave out last was handled, if the program goes on to drop this in good order.
    fn drop(&mut self) {
        if let Some(seq) = self.handled.take().filter(|_| !std::thread::panicking()) {
            let _ = self.acknowledged.send(seq);
        }
    }
}

impl Delivery {
    /// The event.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Takes the event out; acknowledge it by [`Events::acknowledge`].
    pub fn into_envelope(self) -> Envelope {
        *self.envelope
    }

    /// The consumer has this event and all before it for good. Ephemeral events need none.
    pub fn acknowledge(&self) {
        if let Some(seq) = self.envelope.seq {
            let _ = self.acknowledged.send(seq);
        }
    }
}
