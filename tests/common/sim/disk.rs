//! What is durable of one account.

use std::collections::BTreeMap;

use bytes::Bytes;
use wamd::{
    event::Envelope,
    signal::{Session, sender_key::OwnSenderKey},
    store::{Batch, Key, RecordKind},
};

/// Records and outbox.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<Key, Bytes>,
    pub(crate) outbox: BTreeMap<u64, Envelope>,
    /// The number of the first event of the present link.
    pub(super) first: u64,
    /// How many batches it took.
    pub(super) batches: u64,
    /// The counters that no process takes again: for each chain, with how many batches all below one of them were passed over.
    passed: BTreeMap<Vec<u8>, Vec<(u64, u32)>>,
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
        self.batches += 1;
        for (chain, counter) in batch.puts.iter().filter_map(next_counter) {
            self.passed.entry(chain).or_default().push((self.batches, counter));
        }
        for event in &batch.events {
            let envelope = Envelope::from_json(&event.body).expect("an envelope");
            assert_eq!(envelope.seq, Some(event.seq));
            let last = self.outbox.keys().next_back().copied().unwrap_or(0);
            assert_eq!(event.seq, last + 1, "the outbox has no gap and no repeat");
            self.outbox.insert(event.seq, envelope);
        }
    }

    /// Whether a message key could not be taken again after a crash at the time when the disk had so many batches.
    pub(super) fn is_passed(&self, chain: &[u8], counter: u32, batches: u64) -> bool {
        let mut passed = self.passed.get(chain).into_iter().flatten();
        passed.any(|(since, next)| *since <= batches && counter < *next)
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

/// The chain that a record sends on, by its ratchet key or its key id, and where a new process goes on with it.
fn next_counter((key, value): &(Key, Bytes)) -> Option<(Vec<u8>, u32)> {
    const ANOTHER_RUN: u32 = u32::MAX;
    match key.kind {
        RecordKind::Session => {
            let session = Session::decode(value).and_then(|session| session.resume(ANOTHER_RUN, 0)).expect("a session");
            let sender = session.current()?.sender()?;
            Some((sender.ratchet.as_bytes().to_vec(), sender.counter))
        }
        RecordKind::OwnSenderKey => {
            let key = OwnSenderKey::decode(value).and_then(|key| key.resume(ANOTHER_RUN)).expect("a sender key");
            let position = key.position();
            Some((position.id.0.to_be_bytes().to_vec(), position.iteration))
        }
        _ => None,
    }
}
