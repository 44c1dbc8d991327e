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
    /// Who is who, in a stanza that is owed an ack and nothing else.
    People(Vec<(Jid, Jid)>, AckTarget, bool),
}

impl Stanza {
    /// The chat that decides the order.
    pub(crate) fn lane(&self) -> Jid {
        match self {
            Self::Message(message) => message.chat.clone(),
            Self::Receipt(receipt, _) => receipt.recipient.as_ref().unwrap_or(&receipt.from).to_account(),
            Self::Ack(ack) => ack.from.to_account(),
            Self::Notification(_, ack, _) | Self::People(_, ack, _) => ack.from.to_account(),
        }
    }
}

/// A place in a lane.
#[derive(Debug)]
struct Place {
    /// Absent while the stanza is being handled.
    stanza: Option<Stanza>,
    size: usize,
    /// Counts all stanzas in the order of their arrival.
    number: u64,
}

/// All lanes of the account.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: BTreeMap<Jid, VecDeque<Place>>,
    bytes: usize,
    len: usize,
    arrived: u64,
}

impl Lanes {
    /// Queues a stanza that took `size` bytes; true when its lane was empty, so that it may run now.
    pub(crate) fn push(&mut self, lane: Jid, stanza: Stanza, size: usize) -> bool {
        let queue = self.lanes.entry(lane).or_default();
        self.bytes = self.bytes.saturating_add(size);
        self.len += 1;
        self.arrived += 1;
        queue.push_back(Place { stanza: Some(stanza), size, number: self.arrived });
        queue.len() == 1
    }

    /// Takes the stanza out whose turn it is; its place in the lane stays taken until [`pop`](Self::pop).
    pub(crate) fn take_head(&mut self, lane: &Jid) -> Option<Stanza> {
        self.lanes.get_mut(lane)?.front_mut()?.stanza.take()
    }

    /// Puts the head back: it waits for records.
    pub(crate) fn put_head(&mut self, lane: &Jid, stanza: Stanza) {
        if let Some(head) = self.lanes.get_mut(lane).and_then(VecDeque::front_mut) {
            head.stanza = Some(stanza);
        }
    }

    /// The head is done.
    pub(crate) fn pop(&mut self, lane: &Jid) {
        let Some(queue) = self.lanes.get_mut(lane) else { return };
        if let Some(place) = queue.pop_front() {
            self.bytes = self.bytes.saturating_sub(place.size);
            self.len = self.len.saturating_sub(1);
        }
        if queue.is_empty() {
            self.lanes.remove(lane);
        }
    }

    /// Bytes of all stanzas that wait.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many stanzas wait.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The number of the newest stanza.
    pub(crate) const fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Whether every stanza up to this number was handled.
    pub(crate) fn is_through(&self, number: u64) -> bool {
        let heads = self.lanes.values().filter_map(VecDeque::front);
        heads.map(|place| place.number).min().is_none_or(|oldest| oldest > number)
    }

    /// Drops everything: what was not acknowledged comes again.
    pub(crate) fn clear(&mut self) {
        *self = Self { arrived: self.arrived, ..Self::default() };
    }
}
