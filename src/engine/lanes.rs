//! Lanes: stanzas of one chat are handled in the order of their arrival, those of different chats do not wait for each
//! other.
//!
//! ```text
//!   arrive ──► queue ──► head runs ──► done, next one
//!                          │  ▲
//!                   misses └──┘ records arrived
//! ```

use std::collections::{BTreeMap, VecDeque};

use crate::{
    jid::Jid,
    stanza::{
        ack::{AckTarget, MessageAck},
        message::InboundMessage,
        receipt::InboundReceipt,
        stream::Notification,
    },
};

/// A stanza whose handling reads records.
#[derive(Debug)]
pub(crate) enum Stanza {
    Message(InboundMessage),
    Receipt(InboundReceipt, AckTarget),
    Ack(MessageAck),
    Notification(Notification, AckTarget, bool),
}

impl Stanza {
    /// The chat that decides the order.
    pub(crate) fn lane(&self) -> Jid {
        match self {
            Self::Message(message) => message.chat.clone(),
            Self::Receipt(receipt, _) => receipt.recipient.as_ref().unwrap_or(&receipt.from).to_account(),
            Self::Ack(ack) => ack.from.to_account(),
            Self::Notification(_, ack, _) => ack.from.to_account(),
        }
    }
}

/// All lanes of the account.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// A lane whose head was taken out begins with `None`: it waits.
    lanes: BTreeMap<Jid, VecDeque<(Option<Stanza>, usize)>>,
    bytes: usize,
}

impl Lanes {
    /// Queues a stanza that took `size` bytes; true when its lane was empty, so that it may run now.
    pub(crate) fn push(&mut self, lane: Jid, stanza: Stanza, size: usize) -> bool {
        let queue = self.lanes.entry(lane).or_default();
        self.bytes = self.bytes.saturating_add(size);
        queue.push_back((Some(stanza), size));
        queue.len() == 1
    }

    /// Takes the stanza out whose turn it is; its place in the lane stays taken until [`pop`](Self::pop).
    pub(crate) fn take_head(&mut self, lane: &Jid) -> Option<Stanza> {
        self.lanes.get_mut(lane)?.front_mut()?.0.take()
    }

    /// Puts the head back: it waits for records.
    pub(crate) fn put_head(&mut self, lane: &Jid, stanza: Stanza) {
        if let Some((head, _)) = self.lanes.get_mut(lane).and_then(VecDeque::front_mut) {
            *head = Some(stanza);
        }
    }

    /// The head is done.
    pub(crate) fn pop(&mut self, lane: &Jid) {
        let Some(queue) = self.lanes.get_mut(lane) else { return };
        if let Some((_, size)) = queue.pop_front() {
            self.bytes = self.bytes.saturating_sub(size);
        }
        if queue.is_empty() {
            self.lanes.remove(lane);
        }
    }

    /// Bytes of all stanzas that wait.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops everything: what was not acknowledged comes again.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
