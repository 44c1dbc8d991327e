//! How the entries of a collection are stored: in pages, so that a patch reads and writes a few records, and so that a
//! collection is dropped without looking for what it has (linear hashing, Litwin 1980).
//!
//! ```text
//! page     index MAC, its first four bytes as a number h:   h mod 2^(k+1) if there is such a page, else h mod 2^k
//! growth   more than 32 entries per page on average: the next page in turn is split in two, one page at a time
//! record   01, then index MAC (32), value MAC (32), ascending by index MAC
//! ```
//!
//! 10,000 contacts are 313 pages of some 2 KB. A patch of one mutation touches one page, and one in 32 of those that add an
//! entry splits another. Pages are numbered from 0 without gaps, so dropping a collection deletes known keys.
//!
//! Pages never become fewer but by a snapshot, which lays everything out anew.

use std::collections::{BTreeMap, BTreeSet};

use super::{AppStateError, CollectionState, Entries, EntryChange, IndexMac, ValueMac};

/// Entries that a page has on average, at most.
pub const TARGET: u64 = 32;
/// Most pages: half of all numbers, so that they can be doubled.
const MAX_PAGES: u32 = 1 << 31;
/// The first byte of a page.
const VERSION: u8 = 1;
/// Bytes of an entry.
const ENTRY: usize = 64;

/// How many entries and pages a collection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    entries: u64,
    pages: u32,
}

impl Layout {
    /// Bytes of its stored form.
    pub const LEN: usize = 12;

    /// Entries in all pages.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// The numbers of all pages: what is deleted when the collection is dropped.
    pub const fn page_numbers(&self) -> std::ops::Range<u32> {
        0..self.pages
    }

    /// Lays out the entries of a snapshot. The pages of the old layout that are not among the new ones are for the caller to
    /// delete.
    pub fn of_snapshot(entries: &[(IndexMac, ValueMac)]) -> PageWrites {
        let pages = u64::try_from(entries.len()).unwrap_or(u64::MAX).div_ceil(TARGET);
        let layout = Self { entries: 0, pages: u32::try_from(pages).unwrap_or(u32::MAX) };
        let mut loaded = LoadedPages::new(layout);
        entries.iter().for_each(|(index, value)| loaded.put(*index, *value));
        loaded.finish()
    }

    /// The pages that a patch with these indexes reads or splits.
    pub fn pages_of<'a>(&self, indexes: impl IntoIterator<Item = &'a IndexMac>) -> BTreeSet<u32> {
        let (mut pages, mut grown) = (BTreeSet::new(), *self);
        for index in indexes {
            pages.extend(self.page_of(index));
            grown.entries = grown.entries.saturating_add(1);
        }
        while let Some(split) = grown.next_split() {
            if split < self.pages {
                pages.insert(split);
            }
            grown.pages = grown.pages.saturating_add(1);
        }
        pages
    }

    /// The page of an index; `None` without pages.
    fn page_of(&self, index: &IndexMac) -> Option<u32> {
        let hash = u32::from_be_bytes(*index.first_chunk()?);
        let small = self.half()?;
        let page = hash & (small << 1).wrapping_sub(1);
        Some(if page < self.pages { page } else { hash & small.wrapping_sub(1) })
    }

    /// The greatest power of two that is not above the number of pages.
    fn half(&self) -> Option<u32> {
        self.pages.checked_ilog2().map(|log| 1 << log)
    }

    fn is_full(&self) -> bool {
        self.entries > u64::from(self.pages).saturating_mul(TARGET)
    }

    /// The page that is split next, if there are too many entries. The first page comes out of nothing, as page 0.
    fn next_split(&self) -> Option<u32> {
        (self.is_full() && self.pages < MAX_PAGES).then(|| self.pages.saturating_sub(self.half().unwrap_or_default()))
    }
}

/// What is stored of a collection in one record: its state and its layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCollection {
    /// Its state.
    pub state: CollectionState,
    /// How its entries are stored.
    pub layout: Layout,
}

impl StoredCollection {
    /// Its record: that of the state, entries (u64 big-endian), pages (u32 big-endian).
    pub fn encode(&self) -> Vec<u8> {
        [&self.state.encode()[..], &self.layout.entries.to_be_bytes(), &self.layout.pages.to_be_bytes()].concat()
    }

    /// Reads its record.
    ///
    /// # Errors
    /// [`AppStateError::Record`] when it is damaged.
    pub fn decode(record: &[u8]) -> Result<Self, AppStateError> {
        let damaged = |reason| AppStateError::Record { what: "collection", reason };
        let (rest, pages) = record.split_last_chunk().ok_or_else(|| damaged("it is cut off"))?;
        let (state, entries) = rest.split_last_chunk().ok_or_else(|| damaged("it is cut off"))?;
        let layout = Layout { entries: u64::from_be_bytes(*entries), pages: u32::from_be_bytes(*pages) };
        // Pages are split until it is so; a damaged record must not make us split for ever.
        if layout.is_full() || layout.pages > MAX_PAGES {
            return Err(damaged("more entries than its pages have"));
        }
        Ok(Self { state: CollectionState::decode(state)?, layout })
    }
}

/// What becomes of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageWrites {
    /// The new layout.
    pub layout: Layout,
    /// Pages to be written, by their numbers.
    pub puts: Vec<(u32, Vec<u8>)>,
}

/// The pages that a patch needs, while it is applied.
#[derive(Clone, Debug)]
pub struct LoadedPages {
    layout: Layout,
    pages: BTreeMap<u32, BTreeMap<IndexMac, ValueMac>>,
    changed: BTreeSet<u32>,
}

impl LoadedPages {
    /// None yet, of this layout.
    pub const fn new(layout: Layout) -> Self {
        Self { layout, pages: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// Adds a page that was loaded: every one of [`Layout::pages_of`]. One that was never written is empty.
    ///
    /// # Errors
    /// [`AppStateError::Record`] when it is damaged.
    pub fn load(&mut self, number: u32, record: Option<&[u8]>) -> Result<(), AppStateError> {
        let damaged = |reason| AppStateError::Record { what: "page", reason };
        let mut page = BTreeMap::new();
        if let Some(record) = record {
            let Some((&VERSION, entries)) = record.split_first() else { return Err(damaged("unknown version")) };
            let (entries, rest) = entries.as_chunks::<ENTRY>();
            if !rest.is_empty() {
                return Err(damaged("it is cut off"));
            }
            for entry in entries {
                let (Some(index), Some(value)) = (entry.first_chunk(), entry.last_chunk()) else { continue };
                page.insert(*index, *value);
            }
        }
        self.pages.insert(number, page);
        Ok(())
    }

    /// Carries out the changes of a patch.
    pub fn apply(mut self, changes: &[EntryChange]) -> PageWrites {
        for change in changes {
            match change {
                EntryChange::Put(index, value) => self.put(*index, *value),
                EntryChange::Delete(index) => self.delete(index),
            }
        }
        self.finish()
    }

    fn put(&mut self, index: IndexMac, value: ValueMac) {
        if self.layout.pages == 0 {
            self.layout.pages = 1;
        }
        let Some(page) = self.layout.page_of(&index) else { return };
        if self.pages.entry(page).or_default().insert(index, value).is_none() {
            self.layout.entries = self.layout.entries.saturating_add(1);
        }
        self.changed.insert(page);
        while let Some(split) = self.layout.next_split() {
            self.split(split);
        }
    }

    fn delete(&mut self, index: &IndexMac) {
        let Some(page) = self.layout.page_of(index) else { return };
        if self.pages.get_mut(&page).and_then(|entries| entries.remove(index)).is_some() {
            self.layout.entries = self.layout.entries.saturating_sub(1);
            self.changed.insert(page);
        }
    }

    /// Moves what belongs to the new last page out of page `from`.
    fn split(&mut self, from: u32) {
        let new = self.layout.pages;
        self.layout.pages = new.saturating_add(1);
        let layout = self.layout;
        let entries = self.pages.remove(&from).unwrap_or_default();
        let (moved, kept) = entries.into_iter().partition(|(index, _)| layout.page_of(index) == Some(new));
        self.pages.extend([(from, kept), (new, moved)]);
        self.changed.extend([from, new]);
    }

    fn finish(self) -> PageWrites {
        let encode = |entries: &BTreeMap<IndexMac, ValueMac>| {
            let mut record = Vec::with_capacity(entries.len().saturating_mul(ENTRY).saturating_add(1));
            record.push(VERSION);
            entries.iter().flat_map(|(index, value)| [index, value]).for_each(|part| record.extend_from_slice(part));
            record
        };
        let puts = self.changed.iter().filter_map(|page| Some((*page, encode(self.pages.get(page)?)))).collect();
        PageWrites { layout: self.layout, puts }
    }
}

impl Entries for LoadedPages {
    fn value_mac(&self, index: &IndexMac) -> Option<ValueMac> {
        self.pages.get(&self.layout.page_of(index)?)?.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u32) -> IndexMac {
        crate::crypto::sha256(&[&number.to_be_bytes()])
    }

    /// A store of pages against a map, with growth, deletions and snapshots; only the pages that are asked for are there.
    #[test]
    fn pages_are_a_map() {
        let (mut map, mut stored, mut layout) = (BTreeMap::new(), BTreeMap::new(), Layout::default());
        let mut most = 0;
        for round in 0..600_u32 {
            let changes: Vec<_> = (0..=round % 7)
                .map(|i| match (round * 7 + i) % 5 {
                    4 => EntryChange::Delete(mac(round / 2 + i)),
                    _ => EntryChange::Put(mac(round * 7 + i), mac(round)),
                })
                .collect();
            let indexes: Vec<IndexMac> =
                changes.iter().map(|(EntryChange::Put(index, _) | EntryChange::Delete(index))| *index).collect();
            let mut loaded = LoadedPages::new(layout);
            for page in layout.pages_of(&indexes) {
                loaded.load(page, stored.get(&page).map(|page: &Vec<u8>| &page[..])).unwrap();
            }
            indexes.iter().for_each(|index| assert_eq!(loaded.value_mac(index), map.get(index).copied()));
            let writes = loaded.apply(&changes);
            most = most.max(writes.puts.len() as u32 - (changes.len() as u32).min(writes.puts.len() as u32));
            layout = writes.layout;
            stored.extend(writes.puts);
            for change in changes {
                match change {
                    EntryChange::Put(index, value) => drop(map.insert(index, value)),
                    EntryChange::Delete(index) => drop(map.remove(&index)),
                }
            }
            assert_eq!(layout.entries(), map.len() as u64);
        }
        assert!(map.len() > 1_500 && most <= 2, "{} entries, {most} pages besides", map.len());
        let check = |stored: &BTreeMap<u32, Vec<u8>>, layout: Layout| {
            assert!(stored.keys().all(|page| layout.page_numbers().contains(page)));
            let mut loaded = LoadedPages::new(layout);
            stored.iter().for_each(|(page, record)| loaded.load(*page, Some(record)).unwrap());
            map.iter().for_each(|(index, value)| assert_eq!(loaded.value_mac(index), Some(*value)));
            let longest = stored.values().map(Vec::len).max().unwrap();
            assert!(longest <= 1 + 64 * 4 * TARGET as usize, "{longest}");
        };
        check(&stored, layout);
        let entries: Vec<_> = map.iter().map(|(index, value)| (*index, *value)).collect();
        let writes = Layout::of_snapshot(&entries);
        assert_eq!(writes.layout.page_numbers().len(), map.len().div_ceil(32));
        check(&writes.puts.into_iter().collect(), writes.layout);
    }

    #[test]
    fn a_record_survives_its_encoding() {
        let collection = StoredCollection {
            state: CollectionState { version: 7, ..CollectionState::dropped_for_mismatch() },
            layout: Layout { entries: 40, pages: 2 },
        };
        let record = collection.encode();
        assert_eq!(StoredCollection::decode(&record), Ok(collection));
        for at in 0..record.len() {
            assert!(StoredCollection::decode(&record[..at]).is_err(), "{at}");
        }
        let overfull = StoredCollection { layout: Layout { entries: 65, pages: 2 }, ..Default::default() };
        assert!(StoredCollection::decode(&overfull.encode()).is_err());
        let endless = StoredCollection { layout: Layout { entries: u64::MAX, pages: MAX_PAGES }, ..Default::default() };
        assert!(StoredCollection::decode(&endless.encode()).is_err());
    }
}
