//! Message keys of counters that were skipped: the index that a receiver chain keeps, and the pages with the keys.
//!
//! Counters are grouped by 64. The index has a bitmap per page and stays in the session; it alone says which keys
//! exist. The keys themselves stand in [`SkippedPage`] records, so a message in order touches none of them.

use bytes::BufMut;

use crate::crypto::Secret;

use super::{
    SignalError, StateId,
    chain::MessageKeys,
    codec::{Put, Reader, VERSION},
};

/// Skipped keys kept per chain; the oldest are dropped (spec 03 §2.9).
pub(super) const MAX_SKIPPED: u32 = 2_000;
/// Pages kept per chain, so that a peer who skips in wide steps cannot grow the session; 2,000 in a row take 33.
pub(super) const MAX_PAGES: usize = 128;
const PAGE: u32 = 64;

/// The key of a [`SkippedPage`] among the records of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId {
    /// The state, current or archived, that the page belongs to.
    pub state: StateId,
    /// The receiver chain within the state, by its serial number.
    pub chain: u32,
    /// The counters: `page * 64 .. (page + 1) * 64`.
    pub page: u32,
}

/// A skipped message key: the seed, or the expanded keys when another store kept only those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SkippedKey {
    Seed(Secret<32>),
    Expanded(Box<Secret<80>>),
}

impl SkippedKey {
    pub(super) fn message_keys(&self) -> MessageKeys {
        match self {
            Self::Seed(seed) => MessageKeys::derive(seed),
            Self::Expanded(keys) => MessageKeys::from_expanded(keys),
        }
    }
}

/// Up to 64 skipped message keys of one receiver chain, or of one sender key.
///
/// Stored form: version, which counters are there (64 bits), which of them are expanded (64 bits), the keys in order of
/// their counters, 32 or 80 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedPage {
    bitmap: u64,
    keys: Vec<SkippedKey>,
}

impl SkippedPage {
    /// Writes the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.len().saturating_mul(32).saturating_add(17));
        self.write_to(&mut out);
        out
    }

    /// Writes the record behind what `out` holds.
    pub fn write_to(&self, out: &mut impl BufMut) {
        let mut expanded = 0;
        for (slot, key) in slots(self.bitmap).zip(&self.keys) {
            expanded |= u64::from(matches!(key, SkippedKey::Expanded(_))) << slot;
        }
        out.put_u8(VERSION);
        out.put_u64(self.bitmap);
        out.put_u64(expanded);
        for key in &self.keys {
            match key {
                SkippedKey::Seed(seed) => out.put_slice(seed.expose()),
                SkippedKey::Expanded(keys) => out.put_slice(keys.expose()),
            }
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`SignalError::RecordVersion`] or [`SignalError::Record`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let mut reader = Reader::new("skipped page", bytes)?;
        let (bitmap, expanded) = (reader.u64()?, reader.u64()?);
        reader.ensure(bitmap != 0 && expanded & !bitmap == 0, "bitmaps disagree")?;
        let keys = slots(bitmap).map(|slot| match expanded >> slot & 1 {
            0 => reader.secret().map(SkippedKey::Seed),
            _ => reader.secret().map(|keys| SkippedKey::Expanded(Box::new(keys))),
        });
        let keys = keys.collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { bitmap, keys })
    }

    /// Keys on the page.
    pub const fn len(&self) -> usize {
        self.bitmap.count_ones() as usize
    }

    /// No key is left.
    pub const fn is_empty(&self) -> bool {
        self.bitmap == 0
    }

    pub(super) const fn bitmap(&self) -> u64 {
        self.bitmap
    }

    /// The key of a counter.
    pub(super) fn key(&self, counter: u32) -> Option<&SkippedKey> {
        if self.bitmap & bit(counter) == 0 { None } else { self.keys.get(self.position(counter)) }
    }

    /// Puts a key in; one that is there already stays.
    pub(super) fn insert(&mut self, counter: u32, key: SkippedKey) {
        let position = self.position(counter);
        if self.bitmap & bit(counter) == 0 && position <= self.keys.len() {
            self.bitmap |= bit(counter);
            self.keys.insert(position, key);
        }
    }

    /// Drops all keys but those in `bitmap`.
    pub(super) fn retain(&mut self, bitmap: u64) {
        let mut slots = slots(self.bitmap);
        self.keys.retain(|_| slots.next().is_some_and(|slot| bitmap >> slot & 1 == 1));
        self.bitmap &= bitmap;
    }

    fn position(&self, counter: u32) -> usize {
        (self.bitmap & bit(counter).wrapping_sub(1)).count_ones() as usize
    }
}

/// The bit of a counter in the bitmap of its page.
const fn bit(counter: u32) -> u64 {
    1 << (counter % PAGE)
}

/// The page of a counter.
pub(super) const fn page_of(counter: u32) -> u32 {
    counter / PAGE
}

/// The positions of the bits set, lowest first.
fn slots(mut bitmap: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let slot = (bitmap != 0).then(|| bitmap.trailing_zeros());
        bitmap &= bitmap.wrapping_sub(1);
        slot
    })
}

/// A page in the index of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageEntry {
    pub(super) page: u32,
    pub(super) bitmap: u64,
}

/// Which skipped keys a receiver chain has: pages in ascending order, none empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SkippedIndex(Vec<PageEntry>);

/// How the index changes when a chain jumps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SkipPlan {
    /// The first skipped counter whose key is kept.
    pub(super) keep_from: u32,
    /// The index after the jump.
    pub(super) index: SkippedIndex,
    /// Pages that get keys or lose some but not all: to be written. The flag says that the page exists already.
    pub(super) rewrites: Vec<(PageEntry, bool)>,
    /// Pages that lose their last key.
    pub(super) deletes: Vec<u32>,
}

impl SkippedIndex {
    /// Nothing was skipped.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The index of counters in ascending order, as far as the limits let them in.
    pub(super) fn of(counters: impl Iterator<Item = u32>) -> Self {
        let mut index = Self::new();
        counters.for_each(|counter| index.push(counter));
        index.trim();
        index
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|entry| {
            let first = entry.page.saturating_mul(PAGE);
            slots(entry.bitmap).map(move |slot| first.saturating_add(slot))
        })
    }

    pub(super) fn pages(&self) -> &[PageEntry] {
        &self.0
    }

    pub(super) fn contains(&self, counter: u32) -> bool {
        self.entry(page_of(counter)).is_some_and(|entry| entry.bitmap & bit(counter) != 0)
    }

    /// Sets what a page has; an empty bitmap removes it.
    pub(super) fn set(&mut self, page: u32, bitmap: u64) {
        match self.0.binary_search_by_key(&page, |entry| entry.page) {
            Ok(at) if bitmap == 0 => drop(self.0.remove(at)),
            Ok(at) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.bitmap = bitmap;
                }
            }
            Err(at) if bitmap != 0 => self.0.insert(at, PageEntry { page, bitmap }),
            Err(_) => {}
        }
    }

    /// The bitmap of the page of `counter` without that counter.
    pub(super) fn bitmap_without(&self, counter: u32) -> u64 {
        self.entry(page_of(counter)).map_or(0, |entry| entry.bitmap & !bit(counter))
    }

    /// Decides which keys stay when the counters `from..to` are skipped; `None` if there are none.
    pub(super) fn plan(&self, from: u32, to: u32) -> Option<SkipPlan> {
        if from >= to {
            return None;
        }
        let keep_from = from.max(to.saturating_sub(MAX_SKIPPED));
        let mut index = self.clone();
        (keep_from..to).for_each(|counter| index.push(counter));
        index.trim();
        let before = |page| self.entry(page).map(|entry| entry.bitmap);
        let rewrites = index
            .0
            .iter()
            .filter(|entry| before(entry.page) != Some(entry.bitmap))
            .map(|entry| (*entry, before(entry.page).is_some()))
            .collect();
        let deletes = self.0.iter().map(|entry| entry.page).filter(|&page| index.entry(page).is_none()).collect();
        Some(SkipPlan { keep_from, index, rewrites, deletes })
    }

    /// Adds a counter above all others.
    fn push(&mut self, counter: u32) {
        match self.0.last_mut() {
            Some(last) if last.page == page_of(counter) => last.bitmap |= bit(counter),
            _ => self.0.push(PageEntry { page: page_of(counter), bitmap: bit(counter) }),
        }
    }

    /// Drops the oldest keys above the limits.
    fn trim(&mut self) {
        let seeds: u32 = self.0.iter().map(|entry| entry.bitmap.count_ones()).sum();
        let mut excess = seeds.saturating_sub(MAX_SKIPPED);
        for entry in &mut self.0 {
            while excess > 0 && entry.bitmap != 0 {
                entry.bitmap &= entry.bitmap.wrapping_sub(1);
                excess = excess.saturating_sub(1);
            }
        }
        self.0.retain(|entry| entry.bitmap != 0);
        let excess = self.0.len().saturating_sub(MAX_PAGES);
        self.0.drain(..excess);
    }

    fn entry(&self, page: u32) -> Option<&PageEntry> {
        self.0.binary_search_by_key(&page, |entry| entry.page).ok().and_then(|at| self.0.get(at))
    }

    pub(super) fn encode_into(&self, out: &mut impl BufMut) {
        out.put_count(self.0.len());
        for entry in &self.0 {
            out.put_u32(entry.page);
            out.put_u64(entry.bitmap);
        }
    }

    /// Reads an index whose counters all lie below `next`.
    pub(super) fn decode_from(reader: &mut Reader<'_>, next: u32) -> Result<Self, SignalError> {
        let count = reader.count(MAX_PAGES)?;
        let mut pages = Vec::with_capacity(count);
        let mut seeds = 0u32;
        for _ in 0..count {
            let entry = PageEntry { page: reader.u32()?, bitmap: reader.u64()? };
            let ordered = pages.last().is_none_or(|last: &PageEntry| last.page < entry.page);
            reader.ensure(ordered && entry.bitmap != 0, "skipped pages are out of order or empty")?;
            let highest = u64::from(entry.page).saturating_mul(PAGE.into()).saturating_add(entry.bitmap.ilog2().into());
            reader.ensure(highest < u64::from(next), "a skipped counter is still to come")?;
            seeds = seeds.saturating_add(entry.bitmap.count_ones());
            pages.push(entry);
        }
        reader.ensure(seeds <= MAX_SKIPPED, "too many skipped keys")?;
        Ok(Self(pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(byte: u8) -> SkippedKey {
        SkippedKey::Seed(Secret::new([byte; 32]))
    }

    fn counters(index: &SkippedIndex) -> Vec<u32> {
        index.counters().collect()
    }

    #[test]
    fn pages_keep_order_and_survive_encoding() {
        let mut page = SkippedPage::default();
        for counter in [70, 64, 127, 65] {
            page.insert(counter, seed(counter as u8));
        }
        page.insert(66, SkippedKey::Expanded(Box::new(Secret::new([6; 80]))));
        page.insert(64, seed(0));
        assert_eq!((page.len(), page.key(64)), (5, Some(&seed(64))));
        assert_eq!((page.key(127), page.key(71)), (Some(&seed(127)), None));
        assert_eq!(SkippedPage::decode(&page.encode()), Ok(page.clone()));
        assert_eq!(page.encode().len(), 17 + 4 * 32 + 80);
        page.retain(bit(66) | bit(127) | bit(80));
        assert_eq!((page.len(), page.key(127), page.key(64)), (2, Some(&seed(127)), None));
        assert_eq!(SkippedPage::decode(&page.encode()), Ok(page));
    }

    #[test]
    fn damaged_pages_are_refused() {
        let mut page = SkippedPage::default();
        page.insert(3, seed(3));
        let bytes = page.encode();
        for len in 0..bytes.len() {
            assert!(SkippedPage::decode(&bytes[..len]).is_err());
        }
        assert!(SkippedPage::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert_eq!(SkippedPage::decode(&[9]), Err(SignalError::RecordVersion { what: "skipped page", version: 9 }));
        assert!(SkippedPage::decode(&[[1].as_slice(), &[0; 16]].concat()).is_err(), "empty page");
    }

    #[test]
    fn jumps_extend_the_index() {
        let mut index = SkippedIndex::default();
        assert_eq!(index.plan(5, 5), None);
        let plan = index.plan(60, 70).unwrap();
        assert_eq!(counters(&plan.index), (60..70).collect::<Vec<_>>());
        assert_eq!(plan.rewrites.iter().map(|(e, old)| (e.page, *old)).collect::<Vec<_>>(), [(0, false), (1, false)]);
        index = plan.index;
        let plan = index.plan(71, 72).unwrap();
        assert_eq!(plan.rewrites.iter().map(|(e, old)| (e.page, *old)).collect::<Vec<_>>(), [(1, true)]);
        assert!(plan.index.contains(71) && !plan.index.contains(70) && plan.deletes.is_empty());
        assert_eq!(index.bitmap_without(64), bit(65) | bit(66) | bit(67) | bit(68) | bit(69));
    }

    #[test]
    fn the_oldest_keys_are_dropped() {
        let index = SkippedIndex::default().plan(10, 110).unwrap().index;
        let plan = index.plan(120, 2_100).unwrap();
        let kept = counters(&plan.index);
        assert_eq!((kept.len(), kept[0], kept[20]), (2_000, 90, 120));
        assert_eq!(plan.deletes, [0]);
        assert!(plan.rewrites[0].1, "page 1 loses its older half");
        let plan = index.plan(110, 30_000).unwrap();
        assert_eq!((plan.keep_from, counters(&plan.index).len(), plan.deletes), (28_000, 2_000, vec![0, 1]));
    }

    #[test]
    fn pages_are_bounded_when_skips_are_sparse() {
        let mut index = SkippedIndex::default();
        for page in 0..200 {
            index = index.plan(page * PAGE, page * PAGE + 1).unwrap().index;
        }
        assert_eq!((index.pages().len(), index.pages()[0].page), (MAX_PAGES, 200 - MAX_PAGES as u32));
    }

    #[test]
    fn the_highest_counters_do_not_overflow() {
        let plan = SkippedIndex::default().plan(u32::MAX - 3, u32::MAX).unwrap();
        assert_eq!(counters(&plan.index), [u32::MAX - 3, u32::MAX - 2, u32::MAX - 1]);
    }
}
