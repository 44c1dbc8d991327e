//! Verifying keys of senders, as points of the curve. A record has the bytes of a key only, and a tenth of reading a group message
//! would be to make the point of them, every time.

use std::collections::HashMap;

use crate::{crypto::xeddsa::VerifyingKey, signal::sender_key::SenderKeyRecord};

/// Keys that are kept, in a table of 8 KiB. One more, and it begins anew.
const MAX_KEPT: usize = 28;

/// The keys that were used lately, by their bytes.
#[derive(Debug, Default)]
pub(crate) struct Points(HashMap<[u8; 32], VerifyingKey>);

impl Points {
    /// Gives the keys of a record the points that are known.
    pub(crate) fn recall(&self, record: &mut SenderKeyRecord) {
        for key in record.verifying_keys_mut() {
            if let Some(known) = self.0.get(key.as_bytes()) {
                key.clone_from(known);
            }
        }
    }

    /// Keeps the points that a record was used with.
    pub(crate) fn keep(&mut self, record: &mut SenderKeyRecord) {
        for key in record.verifying_keys_mut() {
            if key.has_point() && !self.0.contains_key(key.as_bytes()) {
                if self.0.len() >= MAX_KEPT {
                    self.0.clear();
                }
                self.0.insert(*key.as_bytes(), key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::signal::{
        Address,
        sender_key::{self, SenderKeyName, SenderKeyStore as _, memory::MemorySenderKeyStore},
    };

    /// The record of a sender whose key was just taken over, as it is read from a store.
    fn record(rng: &mut ChaCha20Rng) -> (SenderKeyRecord, SenderKeyRecord) {
        let name = SenderKeyName::new("g", Address::new("a"));
        let key = sender_key::rotate(&mut MemorySenderKeyStore::new(), &name, rng);
        let mut theirs = MemorySenderKeyStore::new();
        sender_key::process(&mut theirs, &name, &key.encode()).unwrap();
        let record = theirs.sender_key(&name).unwrap().unwrap();
        let stored = SenderKeyRecord::decode(&record.encode()).unwrap();
        (record, stored)
    }

    fn has_point(record: &mut SenderKeyRecord) -> bool {
        record.verifying_keys_mut().all(|key| key.has_point())
    }

    #[test]
    fn a_point_is_made_once_and_few_are_kept() {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let (mut used, mut stored) = record(&mut rng);
        let mut points = Points::default();
        points.keep(&mut stored);
        points.recall(&mut stored);
        assert!(has_point(&mut used) && !has_point(&mut stored), "nobody has used it");
        points.keep(&mut used);
        points.recall(&mut stored);
        assert!(has_point(&mut stored));
        for _ in 0..MAX_KEPT {
            points.keep(&mut record(&mut rng).0);
            assert!(points.0.len() <= MAX_KEPT);
        }
        let (_, mut other) = record(&mut rng);
        points.recall(&mut other);
        assert!(!has_point(&mut other), "that of another key is none of it");
    }
}
