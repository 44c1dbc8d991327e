//! The dictionary: words that have a number of one or two bytes on the wire (spec 02 §3, version 3).
//!
//! A [`Token`] is the number. Reading one is an index into [`table::WORDS`]; finding the token of a text is one probe of a
//! perfect hash table. `tokens/table.rs` is generated from the two `.tsv` files next to it, and a test holds it to them.

#[cfg(test)]
mod generate;
mod table;

use super::wire::DICTIONARY_0;
use table::{SEEDS, SLOTS, WORDS};

/// Version of the dictionary, announced in the connection header.
pub const DICTIONARY_VERSION: u8 = 3;

/// A word of the dictionary: 1..=235 of the single-byte table, 236.. of the four two-byte tables in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u16);

impl Token {
    /// The token of a tag byte 01..=EB.
    pub(super) const fn single(byte: u8) -> Self {
        Self(byte as u16)
    }

    /// The token of a tag byte EC..=EF and its index byte.
    pub(super) const fn double(tag: u8, index: u8) -> Self {
        let dictionary = tag.wrapping_sub(DICTIONARY_0) as u16;
        Self((SINGLE_WORDS as u16).wrapping_add(dictionary << 8).wrapping_add(index as u16))
    }

    /// The token of a text, if it is a word of the dictionary.
    pub(super) fn find(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > LONGEST {
            return None;
        }
        let hash = hash(text.as_bytes());
        let seed = SEEDS.get(bucket(hash)).copied()?;
        let number = SLOTS.get(slot(hash, seed)).copied()?;
        (WORDS.get(usize::from(number)).copied()? == text).then_some(Self(number))
    }

    /// The word.
    pub(super) fn text(self) -> &'static str {
        WORDS.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    /// Writes the one or two bytes of the token.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self.0.checked_sub(SINGLE_WORDS as u16) {
            None => {
                let [_, index] = self.0.to_be_bytes();
                out.push(index);
            }
            Some(number) => {
                let [dictionary, index] = number.to_be_bytes();
                out.extend_from_slice(&[DICTIONARY_0.wrapping_add(dictionary), index]);
            }
        }
    }
}

/// Mixes the length with eight bytes each from the head, the middle and the tail; no two words share them all.
fn hash(text: &[u8]) -> u64 {
    let middle = text.get((text.len() / 2).saturating_sub(4)..).and_then(<[u8]>::first_chunk);
    let (head, tail) = match (text.first_chunk(), middle, text.last_chunk()) {
        (Some(head), Some(middle), Some(tail)) => {
            let middle = u64::from_le_bytes(*middle).rotate_left(17);
            (u64::from_le_bytes(*head) ^ middle, u64::from_le_bytes(*tail))
        }
        _ => (text.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0),
    };
    let mixed = (head ^ tail.rotate_left(29) ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Which seed a text uses.
fn bucket(hash: u64) -> usize {
    (hash >> 40) as usize % SEED_COUNT
}

/// Which slot a text has under its seed.
fn slot(hash: u64, seed: u16) -> usize {
    ((hash ^ u64::from(seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % SLOT_COUNT
}

/// Words of the single-byte table, with the empty one at 0.
const SINGLE_WORDS: usize = 236;
/// All words: four dictionaries of 256 follow.
const WORD_COUNT: usize = SINGLE_WORDS + 4 * 256;
/// Length of the longest word.
const LONGEST: usize = 48;
/// Size of the seed table.
const SEED_COUNT: usize = 512;
/// Size of the slot table; about 1.6 slots per word keep the search for seeds short.
const SLOT_COUNT: usize = 2048;
