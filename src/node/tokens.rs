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

/// A word of the dictionary: 1..=235 of the single-byte table, 236.. of the four two-byte tables in order. 0 is the empty
/// text. The names of servers that the dictionary lacks have the numbers after it, for the decoder only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token(u16);

impl Token {
    /// How many words there are; their numbers are less than this.
    pub(super) const WORDS: u16 = WORD_COUNT as u16;
    /// `s.whatsapp.net`.
    pub(super) const PN: Self = Self(0x03);
    /// `lid`.
    pub(super) const LID: Self = Self(0x76);
    /// `g.us`.
    pub(super) const GROUP: Self = Self(0x1c);
    /// `msgr`.
    pub(super) const MSGR: Self = Self(0xcc);
    /// `hosted`, not in the dictionary.
    pub(super) const HOSTED: Self = Self(WORD_COUNT as u16);
    /// `hosted.lid`, not in the dictionary.
    pub(super) const HOSTED_LID: Self = Self(WORD_COUNT as u16 + 1);
    /// `interop`, not in the dictionary.
    pub(super) const INTEROP: Self = Self(WORD_COUNT as u16 + 2);

    /// The token of a tag byte 01..=EB; of 00 the empty text.
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
        match text.len() {
            ..=16 => Self::find_short(Ends::of(text.as_bytes()), text.len()),
            _ => Self::find_long(text),
        }
    }

    /// The token of a text of at most 16 bytes, which its ends and its length are all of.
    #[inline(always)]
    pub(super) fn find_short(ends: Ends, len: usize) -> Option<Self> {
        let number = lookup(ends.hash(len))?;
        let word = TEXTS.get(usize::from(number))?;
        (*ENDS.get(usize::from(number))? == ends && word.len() == len && len != 0).then_some(Self(number))
    }

    /// The token of a longer text.
    #[inline(never)]
    pub(super) fn find_long(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let number = lookup(Ends::with_middle(text.as_bytes()).hash(text.len()))?;
        (*TEXTS.get(usize::from(number))? == text).then_some(Self(number))
    }

    /// The word with this number, unless it is the empty one or a server.
    pub(super) const fn word(number: u16) -> Option<Self> {
        match number {
            1..Self::WORDS => Some(Self(number)),
            _ => None,
        }
    }

    pub(super) const fn number(self) -> u16 {
        self.0
    }

    /// The word.
    pub(super) fn text(self) -> &'static str {
        Self::text_of(usize::from(self.0))
    }

    /// The word with this number.
    #[inline(always)]
    pub(super) fn text_of(number: usize) -> &'static str {
        TEXTS.get(number % TEXT_COUNT).copied().unwrap_or_default()
    }

    /// The one or two bytes of the token, and how many they are.
    #[inline(always)]
    pub(super) fn bytes(self) -> ([u8; 2], usize) {
        match self.0.checked_sub(SINGLE_WORDS as u16) {
            None => {
                let [_, index] = self.0.to_be_bytes();
                ([index, 0], 1)
            }
            Some(number) => {
                let [dictionary, index] = number.to_be_bytes();
                ([DICTIONARY_0.wrapping_add(dictionary), index], 2)
            }
        }
    }
}

/// The first and the last eight bytes of a text as little-endian numbers. Of a text of at most 16 bytes they are all of
/// it: then the second one has only what is not in the first, and both are filled up with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) head: u64,
    pub(super) tail: u64,
}

impl Ends {
    #[inline(always)]
    pub(super) const fn of(text: &[u8]) -> Self {
        if let (Some(head), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            let (head, last) = (u64::from_le_bytes(*head), u64::from_le_bytes(*last));
            // 8 bytes: nothing is left for the tail. More than 16: all of the last eight.
            let shift = match text.len() {
                8 => return Self { head, tail: 0 },
                len @ 9..16 => 128u32.wrapping_sub(8u32.wrapping_mul(len as u32)),
                _ => 0,
            };
            return Self { head, tail: last >> shift };
        }
        let head = match (text.first_chunk(), text.last_chunk(), text) {
            (Some(first), Some(last), _) => {
                let (first, last) = (u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64);
                first | last << 8u32.wrapping_mul((text.len() as u32).wrapping_sub(4))
            }
            (_, _, &[a]) => a as u64,
            (_, _, &[a, b]) => u16::from_le_bytes([a, b]) as u64,
            (_, _, &[a, b, c]) => u32::from_le_bytes([a, b, c, 0]) as u64,
            _ => 0,
        };
        Self { head, tail: 0 }
    }

    /// For the hash of a text of more than 16 bytes: eight bytes from the middle are mixed in. No two words of the same
    /// length share head, middle and tail.
    fn with_middle(text: &[u8]) -> Self {
        let Self { head, tail } = Self::of(text);
        let middle = text.get((text.len() / 2).wrapping_sub(4)..).and_then(<[u8]>::first_chunk).copied();
        Self { head, tail: tail ^ u64::from_le_bytes(middle.unwrap_or_default()).rotate_left(17) }
    }

    #[inline(always)]
    const fn hash(self, len: usize) -> u64 {
        (self.head ^ self.tail.rotate_left(29) ^ len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The number of the only word that can have this hash; 0 for none.
#[inline(always)]
fn lookup(hash: u64) -> Option<u16> {
    let seed = SEEDS.get(bucket(hash)).copied()?;
    SLOTS.get(slot(hash, seed)).copied()
}

/// Which seed a text uses.
#[inline(always)]
fn bucket(hash: u64) -> usize {
    (hash >> 48) as usize % SEED_COUNT
}

/// Which slot a text has under its seed.
#[inline(always)]
fn slot(hash: u64, seed: u16) -> usize {
    let mixed = (hash ^ hash >> 32 ^ u64::from(seed)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 48) as usize % SLOT_COUNT
}

/// The words and the names of the servers that are none; then empty ones, so that a remainder is always an index.
static TEXTS: [&str; TEXT_COUNT] = {
    let mut texts = [""; TEXT_COUNT];
    let (words, others) = texts.split_at_mut(WORD_COUNT);
    words.copy_from_slice(&WORDS);
    let (servers, _) = others.split_at_mut(3);
    servers.copy_from_slice(&["hosted", "hosted.lid", "interop"]);
    texts
};

/// The ends of each text.
static ENDS: [Ends; TEXT_COUNT] = {
    let mut ends = [Ends { head: 0, tail: 0 }; TEXT_COUNT];
    let (mut left, mut texts) = (ends.as_mut_slice(), TEXTS.as_slice());
    while let (Some((end, rest)), Some((text, more))) = (left.split_first_mut(), texts.split_first()) {
        *end = Ends::of(text.as_bytes());
        (left, texts) = (rest, more);
    }
    ends
};

/// Words of the single-byte table, with the empty one at 0.
const SINGLE_WORDS: usize = 236;
/// All words: four dictionaries of 256 follow.
const WORD_COUNT: usize = SINGLE_WORDS + 4 * 256;
/// Words and servers, and up to the next power of two.
const TEXT_COUNT: usize = 2048;
/// Length of the longest word.
const LONGEST: usize = 48;
/// Size of the seed table.
const SEED_COUNT: usize = 512;
/// Size of the slot table; about 1.6 slots per word keep the search for seeds short.
const SLOT_COUNT: usize = 2048;
