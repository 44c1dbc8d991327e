//! What waits for a device: one FIFO of messages, receipts and notifications, in the order in which they came
//! (spec 01 §6.8, §7.7).
//!
//! An entry stays until the device answers it: a message by a delivery receipt or an ack, everything else by an ack
//! (spec 01 §6.11). Whatever is unanswered when the device connects again is sent again, with the same content.

use std::collections::VecDeque;

use wamd::jid::Jid;
use wamd::node::Node;

/// The classes of stanzas that are owed an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Message,
    Receipt,
    Notification,
}

impl Class {
    /// The `class` of an ack, which is the tag of the stanza.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "message" => Some(Self::Message),
            "receipt" => Some(Self::Receipt),
            "notification" => Some(Self::Notification),
            _ => None,
        }
    }
}

/// A stanza that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) class: Class,
    pub(crate) id: String,
    /// The `from` of the stanza, which the answer names as `to`.
    pub(crate) from: Jid,
    /// The `type` of the stanza.
    pub(crate) kind: Option<String>,
    pub(crate) node: Node,
    /// Whether it was sent at least once: only then can an answer mean it.
    pub(crate) delivered: bool,
}

impl Entry {
    /// Whoever wrote the stanza: in a chat of many its participant.
    pub(crate) fn author(&self) -> Jid {
        self.node.attr_jid("participant").unwrap_or_else(|| self.from.clone())
    }
}

/// The stanzas that wait for one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
}

impl Queue {
    /// Adds a stanza. The oldest one goes when there are too many.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn count(&self, class: Class) -> usize {
        self.entries.iter().filter(|entry| entry.class == class).count()
    }

    /// Everything that waits, oldest first, marked as delivered.
    pub(crate) fn deliver_all(&mut self) -> Vec<Node> {
        self.entries
            .iter_mut()
            .map(|entry| {
                entry.delivered = true;
                entry.node.clone()
            })
            .collect()
    }

    /// Takes out what an `<ack>` answers: the entry with this class, id and sender, of the same type if there are
    /// several. `to` is the sender, and in a chat of many the author beside it.
    pub(crate) fn acknowledge(
        &mut self,
        class: Class,
        id: &str,
        to: (Option<&Jid>, Option<&Jid>),
        kind: Option<&str>,
    ) -> bool {
        let same = |entry: &Entry| {
            entry.delivered
                && entry.class == class
                && entry.id == id
                && to.0.is_none_or(|to| *to == entry.from)
                && to.1.is_none_or(|author| *author == entry.author())
        };
        let exact = self.entries.iter().position(|entry| same(entry) && entry.kind.as_deref() == kind);
        match exact.or_else(|| self.entries.iter().position(same)) {
            Some(index) => self.entries.remove(index).is_some(),
            None => false,
        }
    }

    /// Takes out the message that a delivery receipt answers. `is_meant` tells whether an entry comes from the chat and the
    /// account that the receipt is for.
    pub(crate) fn received(&mut self, id: &str, is_meant: impl Fn(&Entry) -> bool) -> bool {
        let found = self
            .entries
            .iter()
            .position(|entry| entry.delivered && entry.class == Class::Message && entry.id == id && is_meant(entry));
        found.is_some_and(|index| self.entries.remove(index).is_some())
    }
}

/// Stanzas that wait for one device at most, far more than a device can fall behind in a test.
const MAX_ENTRIES: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(class: Class, id: &str, from: &str, kind: Option<&str>) -> Entry {
        let (from, kind) = (from.parse().unwrap(), kind.map(str::to_owned));
        Entry { class, id: id.to_owned(), from, kind, node: Node::new("x"), delivered: false }
    }

    #[test]
    fn only_what_was_delivered_can_be_answered() {
        let mut queue = Queue::default();
        queue.push(entry(Class::Message, "A", "1:2@lid", None));
        assert!(!queue.acknowledge(Class::Message, "A", (None, None), None));
        assert_eq!(queue.deliver_all().len(), 1);
        assert!(!queue.received("A", |entry| entry.from.user() == "2"));
        assert!(!queue.received("B", |entry| entry.from.user() == "1"));
        assert!(queue.received("A", |entry| entry.from.user() == "1"));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn an_ack_takes_one_entry_and_prefers_its_type() {
        let mut queue = Queue::default();
        queue.push(entry(Class::Receipt, "A", "1:2@lid", None));
        queue.push(entry(Class::Receipt, "A", "1:2@lid", Some("read")));
        queue.push(entry(Class::Receipt, "A", "1:3@lid", Some("read")));
        queue.deliver_all();
        let to: Jid = "1:2@lid".parse().unwrap();
        assert!(queue.acknowledge(Class::Receipt, "A", (Some(&to), None), Some("read")));
        assert_eq!(queue.entries.iter().filter(|entry| entry.kind.is_none()).count(), 1);
        assert!(queue.acknowledge(Class::Receipt, "A", (Some(&to), None), Some("read")), "the type is a hint only");
        assert!(!queue.acknowledge(Class::Receipt, "A", (Some(&to), None), None));
        assert_eq!(queue.len(), 1);
    }
}
