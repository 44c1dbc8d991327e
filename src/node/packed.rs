//! Packed texts: two characters per byte (spec 02 §4).

use super::tokens::Ends;
use super::wire::{HEX_8, NIBBLE_8};

/// Longest text that is packed on encode, in bytes. Decoding takes up to 254 characters.
pub(super) const MAX_PACKED: usize = 127;

/// Packed bytes that are unpacked at once.
pub(super) const CHUNK: usize = 8;

/// The two alphabets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Digits, `-` and `.`.
    Nibble,
    /// Digits and `A` to `F`.
    Hex,
}

impl Alphabet {
    /// The alphabet that packs all of `text`, which is at most [`MAX_PACKED`] bytes long; digits prefer `Nibble`.
    pub(super) fn of(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_PACKED {
            return None;
        }
        let (mut nibble, mut hex) = (true, true);
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' => {}
                b'-' | b'.' => hex = false,
                b'A'..=b'F' => nibble = false,
                _ => return None,
            }
            if !nibble && !hex {
                return None;
            }
        }
        Some(if nibble { Self::Nibble } else { Self::Hex })
    }

    /// The tag byte.
    pub(super) fn tag(self) -> u8 {
        match self {
            Self::Nibble => NIBBLE_8,
            Self::Hex => HEX_8,
        }
    }

    /// Whether of eight packed bytes the first `chars` halves are in the alphabet.
    #[inline(always)]
    pub(super) fn is_valid(self, packed: [u8; CHUNK], chars: usize) -> bool {
        match self {
            Self::Hex => true,
            // 12 and above have the upper two bits set.
            Self::Nibble => {
                let halves = u64::from_be_bytes(packed);
                let unused = 64usize.saturating_sub(chars.saturating_mul(4)) as u32;
                halves & halves << 1 & 0x8888_8888_8888_8888 & u64::MAX.checked_shl(unused).unwrap_or(0) == 0
            }
        }
    }

    /// The characters of eight packed bytes; `?` for halves that are not in the alphabet. Look-ups take fewer instructions
    /// than doing all bytes at once by shifts.
    #[inline(always)]
    pub(super) fn unpack(self, packed: &[u8; CHUNK], text: &mut [u8; 2 * CHUNK]) {
        let pairs = match self {
            Self::Nibble => &NIBBLE_PAIRS,
            Self::Hex => &HEX_PAIRS,
        };
        for (pair, &byte) in text.as_chunks_mut().0.iter_mut().zip(packed) {
            *pair = pairs.get(usize::from(byte)).copied().unwrap_or_default();
        }
    }

    /// The index of the first byte that has a value outside of the alphabet among the first `chars` halves.
    pub(super) fn first_bad(self, packed: &[u8], chars: usize) -> Option<usize> {
        let halves = packed.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]).take(chars);
        halves.map(|half| self == Self::Nibble && half >= 12).position(|bad| bad).map(|index| index / 2)
    }
}

/// The number of packed bytes of a text of so many characters, and the byte that says so.
#[inline(always)]
pub(super) fn header(chars: usize) -> (usize, u8) {
    let count = chars.div_ceil(2);
    (count, count as u8 | if chars.is_multiple_of(2) { 0 } else { 0x80 })
}

/// Packs a text of 1 to 16 bytes if an alphabet has all of its characters; digits prefer [`Alphabet::Nibble`]. Of the
/// result, half of the length counts, rounded up.
#[inline(always)]
pub(super) fn pack_short(ends: Ends, len: usize) -> Option<(Alphabet, [u8; CHUNK])> {
    // What is behind the text becomes digits, so that it does not count.
    let digits = |len: usize| DIGITS.checked_shl(len.wrapping_mul(8) as u32).unwrap_or(0);
    let head = Halves::of(ends.head | digits(len));
    let tail = match len {
        0 => return None,
        1..=8 => Halves { values: 0, nibble: true, hex: true },
        _ => Halves::of(ends.tail | digits(len.wrapping_sub(8))),
    };
    let alphabet = match (head.nibble && tail.nibble, head.hex && tail.hex) {
        (true, _) => Alphabet::Nibble,
        (_, true) => Alphabet::Hex,
        _ => return None,
    };
    let mut packed = u64::from(head.pack()) | u64::from(tail.pack()) << 32;
    if len % 2 == 1 {
        packed |= 0x0f << len.wrapping_div(2).wrapping_mul(8);
    }
    Some((alphabet, packed.to_le_bytes()))
}

/// Eight characters as the values that they stand for.
struct Halves {
    /// A value in each byte, in the order of the characters from the lowest one. Without meaning if no alphabet has all.
    values: u64,
    nibble: bool,
    hex: bool,
}

impl Halves {
    /// From eight characters, the first one lowest. Works on all at once: each byte has seven bits and a carry.
    #[inline(always)]
    fn of(characters: u64) -> Self {
        let ascii = characters & HIGH == 0;
        // The high bit of each byte that is at least `low` and less than `high`.
        let at_least = |low: u8| (characters | HIGH).wrapping_sub(ONES.wrapping_mul(u64::from(low)));
        let between = |low: u8, high: u8| at_least(low) & !at_least(high) & HIGH;
        let digits = between(b'0', b'9' + 1);
        let signs = between(b'-', b'.' + 1);
        let letters = between(b'A', b'F' + 1);
        let low = characters & 0x0f0f_0f0f_0f0f_0f0f;
        // A sign's low half is its value and 3, a letter's low half is 9 less than its value.
        let values = low.wrapping_sub((signs >> 7).wrapping_mul(3)).wrapping_add((letters >> 7).wrapping_mul(9));
        Self { values, nibble: ascii && digits | signs == HIGH, hex: ascii && digits | letters == HIGH }
    }

    /// Four bytes, the first one lowest, each with the earlier value in its upper half.
    #[inline(always)]
    fn pack(&self) -> u32 {
        let pairs = (self.values << 4 | self.values >> 8) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
        (fours | fours >> 16) as u32
    }
}

/// The bits that no ASCII character has, in each of eight.
const HIGH: u64 = 0x8080_8080_8080_8080;
const ONES: u64 = 0x0101_0101_0101_0101;
/// Eight times the digit 0.
const DIGITS: u64 = 0x3030_3030_3030_3030;

/// The two characters of each packed byte.
static NIBBLE_PAIRS: [[u8; 2]; 256] = pairs(b"0123456789-.????");
static HEX_PAIRS: [[u8; 2]; 256] = pairs(b"0123456789ABCDEF");

const fn pairs(characters: &[u8; 16]) -> [[u8; 2]; 256] {
    let mut pairs = [[0; 2]; 256];
    let (mut rows, mut highs) = (pairs.as_mut_slice(), characters.as_slice());
    while let (Some((row, more)), Some((&high, rest))) = (rows.split_first_chunk_mut::<16>(), highs.split_first()) {
        let (mut row, mut lows) = (row.as_mut_slice(), characters.as_slice());
        while let (Some((pair, left)), Some((&low, rest))) = (row.split_first_mut(), lows.split_first()) {
            *pair = [high, low];
            (row, lows) = (left, rest);
        }
        (rows, highs) = (more, rest);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, alphabet: Alphabet, packed: &[u8]) {
        assert_eq!(Alphabet::of(text), Some(alphabet), "{text}");
        assert_eq!(pack(text), Some((alphabet, packed.to_vec())), "{text}");
        assert_eq!(unpack(alphabet, &packed[1..], packed[0] & 0x80 != 0), Ok(text.to_owned()));
    }

    /// As the encoder does it: the alphabet, the length byte and the packed bytes.
    fn pack(text: &str) -> Option<(Alphabet, Vec<u8>)> {
        let alphabet = Alphabet::of(text)?;
        let mut packed = vec![header(text.len()).1];
        for chunk in text.as_bytes().chunks(16) {
            let (_, bytes) = pack_short(Ends::of(chunk), chunk.len())?;
            packed.extend_from_slice(&bytes[..header(chunk.len()).0]);
        }
        Some((alphabet, packed))
    }

    #[test]
    fn short_texts_are_classified_like_long_ones() {
        for len in 1..=16 {
            for at in 0..len {
                for byte in 0..128u8 {
                    let mut text = vec![b'7'; len];
                    text[at] = byte;
                    let text = String::from_utf8(text).unwrap();
                    let short = pack_short(Ends::of(text.as_bytes()), len).map(|(alphabet, _)| alphabet);
                    assert_eq!(short, Alphabet::of(&text), "{text:?}");
                }
            }
        }
        for text in ["é", "1234567é", "12345678é", "12345678901234é"] {
            assert_eq!(pack_short(Ends::of(text.as_bytes()), text.len()), None, "{text}");
        }
        assert_eq!(pack_short(Ends::of(b""), 0), None);
    }

    /// As the decoder does it.
    fn unpack(alphabet: Alphabet, packed: &[u8], odd: bool) -> Result<String, usize> {
        let chars = packed.len() * 2 - usize::from(odd);
        let mut text = vec![];
        for (index, chunk) in packed.chunks(CHUNK).enumerate() {
            let mut padded = [0xff; CHUNK];
            padded[..chunk.len()].copy_from_slice(chunk);
            if !alphabet.is_valid(padded, chars - 2 * CHUNK * index) {
                return Err(alphabet.first_bad(packed, chars).unwrap());
            }
            let mut unpacked = [0; 2 * CHUNK];
            alphabet.unpack(&padded, &mut unpacked);
            text.extend_from_slice(&unpacked);
        }
        text.truncate(chars);
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn texts_pack_and_unpack() {
        check("12", Alphabet::Nibble, &[0x01, 0x12]);
        check("1-.", Alphabet::Nibble, &[0x82, 0x1a, 0xbf]);
        check("3EB0F", Alphabet::Hex, &[0x83, 0x3e, 0xb0, 0xff]);
        let long = "1234567".repeat(18) + "8";
        let out = pack(&long).unwrap().1;
        assert_eq!((out[0], out.len()), (0xc0, 65));
        check(&long, Alphabet::Nibble, &out);
    }

    #[test]
    fn other_texts_are_not_packed() {
        for text in ["", "ab", "A-", "1 ", "é", "١", &"1".repeat(128)] {
            assert_eq!(Alphabet::of(text), None, "{text:?}");
        }
    }

    #[test]
    fn values_outside_of_the_alphabet_are_refused_but_not_as_padding() {
        let nibble = |packed: &[u8], odd| unpack(Alphabet::Nibble, packed, odd);
        for bad in 12..16 {
            assert_eq!(nibble(&[0x12, 0x30 | bad], false), Err(1));
            assert_eq!(nibble(&[0x12, bad << 4], true), Err(1));
            assert_eq!(nibble(&[0x10 | bad, 0x33], false), Err(0));
            assert_eq!(nibble(&[0x30 | bad], true), Ok("3".into()));
            assert_eq!(nibble(&[&[0x12; 11][..], &[0x10 | bad]].concat(), false), Err(11));
        }
        assert_eq!(nibble(&[0x98; 127], false), Ok("98".repeat(127)));
    }

    #[test]
    fn every_value_has_its_character() {
        for (alphabet, characters) in [(Alphabet::Nibble, "0123456789-."), (Alphabet::Hex, "0123456789ABCDEF")] {
            for (high, first) in characters.chars().enumerate() {
                for (low, second) in characters.chars().enumerate() {
                    let packed = [(high << 4 | low) as u8];
                    assert_eq!(unpack(alphabet, &packed, false), Ok(format!("{first}{second}")));
                }
            }
        }
    }
}
