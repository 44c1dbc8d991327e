//! The bounded cache of records: what handlers read, in front of the store.
//!
//! Two generations: a read moves an entry into the young one; when that is full, it becomes the old one and what the
//! old one still held is dropped. An entry is never dropped while the store does not have it, while an older value of it
//! may still arrive from a load, or while a job that waits for other records has read it: however many jobs wait, each
//! finds everything together in the end.
//!
//! Values that are written stand one behind the other in pieces of memory: one of its own would cost two allocations, for its bytes
//! and for the count of its holders. A piece stays as long as any of its values does. So everything written counts until its
//! generation goes, what was written over included, and a value that goes on to the next one is copied out of its piece.
//!
//! ```text
//!   fill / write ──► young ──(full)──► old ──(young full again)──► dropped, unless needed still
//!                      ▲                │
//!                      └────── read ────┘
//! ```

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::{
    engine::{points::Points, records::Value},
    store::Key,
};

/// What an entry costs besides key and value.
const ENTRY_OVERHEAD: usize = 96;
/// Bytes of a piece; a value that is longer than the rest of one begins another.
const PIECE: usize = 4_096;

#[derive(Clone, Debug)]
struct Entry {
    /// `None`: known to be absent.
    value: Option<Bytes>,
    /// Batch that wrote it; 0 when it came from the store.
    batch: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    young_bytes: usize,
    /// What jobs that wait have read, each with the number of jobs.
    pinned: HashMap<Key, u32>,
    /// Bytes per generation.
    capacity: usize,
    /// The rest of the newest piece.
    piece: BytesMut,
    /// What the keys of senders are as points.
    pub(super) points: Points,
}

impl Cache {
    /// A cache of about `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
            pinned: HashMap::new(),
            capacity: bytes / 2,
            piece: BytesMut::new(),
            points: Points::default(),
        }
    }

    /// Looks a record up: `None` when it must be loaded, `Some(None)` when it is known to be absent.
    pub(crate) fn read(&self, key: &Key) -> Option<Option<Bytes>> {
        self.young.get(key).or_else(|| self.old.get(key)).map(|entry| entry.value.clone())
    }

    /// Notes that a record was used.
    pub(crate) fn touch(&mut self, key: &Key) {
        if let Some((key, mut entry)) = self.old.remove_entry(key) {
            if entry.batch != 0 {
                entry.value = entry.value.map(|value| Bytes::copy_from_slice(&value));
            }
            self.fill_one(key, entry);
        }
    }

    /// Takes over what the store answered. A record that was written meanwhile keeps the newer value: what was written
    /// after `evictable` is still here.
    pub(crate) fn fill(&mut self, records: Vec<(Key, Option<Bytes>)>, evictable: u64) {
        if self.young_bytes > self.capacity {
            self.rotate(evictable);
        }
        for (key, value) in records {
            if self.read(&key).is_none() {
                self.fill_one(key, Entry { value, batch: 0 });
            }
        }
    }

    /// Writes a value, or something else that a batch or the connection holds.
    pub(crate) fn value(&mut self, value: &(impl Value + ?Sized)) -> Bytes {
        if self.piece.capacity() == 0 {
            self.piece = BytesMut::with_capacity(PIECE);
        }
        value.write_to(&mut self.piece);
        self.young_bytes += self.piece.len();
        self.piece.split().freeze()
    }

    /// Takes over what a step wrote, of [`Self::value`].
    pub(crate) fn write(&mut self, key: Key, value: Option<Bytes>, batch: u64) {
        self.old.remove(&key);
        self.insert(key, Entry { value, batch });
    }

    /// A job that has read these records waits for others.
    pub(crate) fn pin(&mut self, keys: &[Key]) {
        for key in keys {
            let jobs = self.pinned.entry(key.clone()).or_default();
            *jobs = jobs.saturating_add(1);
        }
    }

    /// It does not wait any more.
    pub(crate) fn unpin(&mut self, keys: &[Key]) {
        for key in keys {
            match self.pinned.get_mut(key) {
                Some(jobs) if *jobs > 1 => *jobs -= 1,
                _ => drop(self.pinned.remove(key)),
            }
        }
    }

    /// Drops the generation that was not used lately.
    fn rotate(&mut self, evictable: u64) {
        let old = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.young_bytes = 0;
        for (key, entry) in old {
            if entry.batch > evictable || self.pinned.contains_key(&key) {
                self.fill_one(key, entry);
            }
        }
    }

    /// An entry whose value is not counted in this generation yet.
    fn fill_one(&mut self, key: Key, entry: Entry) {
        self.young_bytes += entry.value.as_ref().map_or(0, Bytes::len);
        self.insert(key, entry);
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        let cost = key.id.len() + ENTRY_OVERHEAD;
        if self.young.insert(key, entry).is_none() {
            self.young_bytes += cost;
        }
    }

    /// Keeps the cache within its bound; called between steps.
    pub(crate) fn trim(&mut self, evictable: u64) {
        if self.young_bytes > self.capacity {
            self.rotate(evictable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RecordKind;

    fn key(i: u32) -> Key {
        Key::new(RecordKind::Session, i.to_be_bytes())
    }

    #[test]
    fn absent_is_not_unknown() {
        let mut cache = Cache::new(10_000);
        assert_eq!(cache.read(&key(1)), None);
        cache.fill(vec![(key(1), None)], 0);
        assert_eq!(cache.read(&key(1)), Some(None));
    }

    #[test]
    fn what_was_written_over_counts_and_what_goes_on_is_copied() {
        let mut cache = Cache::new(20_000);
        let kept = cache.value(&b"kept"[..]);
        let piece = kept.as_ptr();
        cache.write(key(0), Some(kept), 1);
        for batch in 1..=80 {
            let value = cache.value(&[0; 100][..]);
            cache.write(key(1), Some(value), batch);
            cache.trim(batch);
        }
        assert!(cache.old.is_empty(), "80 times 100 bytes, of 10,000");
        for batch in 81..=100 {
            let value = cache.value(&[0; 100][..]);
            cache.write(key(1), Some(value), batch);
            cache.trim(batch);
        }
        assert!(cache.old.contains_key(&key(0)), "two keys, and a generation is full");
        cache.touch(&key(0));
        let copied = cache.read(&key(0)).unwrap().unwrap();
        assert_eq!(copied, b"kept"[..]);
        assert_ne!(copied.as_ptr(), piece, "it does not hold all that was written with it");
    }

    #[test]
    fn a_late_answer_does_not_undo_a_write() {
        let mut cache = Cache::new(10_000);
        cache.write(key(1), Some(Bytes::from_static(b"new")), 1);
        cache.fill(vec![(key(1), Some(Bytes::from_static(b"old")))], 0);
        assert_eq!(cache.read(&key(1)), Some(Some(Bytes::from_static(b"new"))));
    }

    #[test]
    fn stays_bounded_and_keeps_what_is_not_durable() {
        let mut cache = Cache::new(20_000);
        cache.write(key(0), Some(Bytes::from_static(b"not durable")), 7);
        for i in 1..1_000 {
            cache.fill(vec![(key(i), Some(Bytes::from(vec![0; 100])))], 6);
            cache.trim(6);
        }
        assert!(cache.young.len() + cache.old.len() < 200);
        assert_eq!(cache.read(&key(0)), Some(Some(Bytes::from_static(b"not durable"))));
        for i in 1_000..2_000 {
            cache.fill(vec![(key(i), Some(Bytes::from(vec![0; 100])))], 7);
        }
        assert_eq!(cache.read(&key(0)), None, "durable and not used: dropped");
    }

    #[test]
    fn what_a_waiting_job_has_read_stays() {
        let mut cache = Cache::new(20_000);
        cache.fill(vec![(key(0), None)], 0);
        cache.pin(&[key(0)]);
        cache.pin(&[key(0)]);
        let flood = |cache: &mut Cache| {
            for i in 1..1_000 {
                cache.fill(vec![(key(i), Some(Bytes::from(vec![0; 100])))], 0);
            }
        };
        flood(&mut cache);
        cache.unpin(&[key(0)]);
        flood(&mut cache);
        assert!(cache.read(&key(0)).is_some(), "one job still waits");
        cache.unpin(&[key(0)]);
        flood(&mut cache);
        assert!(cache.read(&key(0)).is_none());
        assert!(cache.pinned.is_empty());
    }

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::new(20_000);
        cache.fill(vec![(key(0), Some(Bytes::from_static(b"hot")))], 0);
        for i in 1..1_000 {
            cache.fill(vec![(key(i), Some(Bytes::from(vec![0; 100])))], 0);
            cache.touch(&key(0));
        }
        assert!(cache.read(&key(0)).is_some());
    }
}
