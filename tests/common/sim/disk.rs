//! What is durable of one account.

use std::collections::BTreeMap;

use bytes::Bytes;
use wamd::event::Envelope;
use wamd::store::{Batch, Key};

/// Records and outbox.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<Key, Bytes>,
    pub(crate) outbox: BTreeMap<u64, Envelope>,
    /// The number of the first event of the present link.
    pub(super) first: u64,
}

impl Disk {
    pub(super) fn apply(&mut self, batch: &Batch) {
        if batch.clear {
            self.records.clear();
        }
        for key in &batch.deletes {
            self.records.remove(key);
        }
        self.records.extend(batch.puts.iter().cloned());
        for event in &batch.events {
            let envelope = Envelope::from_json(&event.body).expect("an envelope");
            assert_eq!(envelope.seq, Some(event.seq));
            let last = self.outbox.keys().next_back().copied().unwrap_or(0);
            assert_eq!(event.seq, last + 1, "the outbox has no gap and no repeat");
            self.outbox.insert(event.seq, envelope);
        }
    }

    /// The messages of the durable events of a kind.
    pub(crate) fn messages(&self, event: &str) -> impl Iterator<Item = &serde_json::Value> {
        let events = self
            .outbox
            .range(self.first..)
            .map(|(_, envelope)| envelope)
            .filter(move |envelope| envelope.event == event);
        events.flat_map(|envelope| envelope.data["messages"].as_array().into_iter().flatten())
    }

    /// Why a message of ours failed, as its event says.
    pub(crate) fn failure(&self, id: &str) -> Option<String> {
        let failed = self.messages("message.failed").find(|message| message["key"]["id"] == id)?;
        Some(failed["error"]["code"].to_string())
    }

    /// How many durable events of a kind there are about a message.
    pub(crate) fn count(&self, event: &str, id: &str) -> usize {
        self.messages(event).filter(|message| message["key"]["id"] == id).count()
    }
}
