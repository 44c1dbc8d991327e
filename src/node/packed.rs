//! Packed texts: two characters per byte (spec 02 §4).

use super::wire::{HEX_8, NIBBLE_8};

/// Longest text that is packed on encode, in bytes. Decoding takes up to 254 characters.
pub(super) const MAX_PACKED: usize = 127;

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

    fn characters(self) -> &'static [u8; 16] {
        match self {
            Self::Nibble => b"0123456789-.\0\0\0\0",
            Self::Hex => b"0123456789ABCDEF",
        }
    }

    /// Appends the characters of `packed`; when `odd`, the last half byte is padding of any value.
    ///
    /// # Errors
    /// The index of the first byte with a value outside of the alphabet. `text` is not changed then.
    pub(super) fn unpack(self, packed: &[u8], odd: bool, text: &mut String) -> Result<(), usize> {
        let characters = self.characters();
        let character = |half: u8| characters.get(usize::from(half)).copied().unwrap_or_default();
        let mut buffer = [0; 2 * MAX_PACKED];
        let mut bad = false;
        for (pair, &byte) in buffer.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
            *pair = [character(byte >> 4), character(byte & 0x0f)];
            bad |= pair.contains(&0);
        }
        let len = packed.len().saturating_mul(2).saturating_sub(usize::from(odd));
        let unpacked = buffer.get(..len).and_then(|unpacked| str::from_utf8(unpacked).ok()).unwrap_or_default();
        // The padding may be what looked bad, so that only a NUL among the characters counts.
        if let Some(index) = bad.then(|| unpacked.bytes().position(|byte| byte == 0)).flatten() {
            return Err(index / 2);
        }
        text.push_str(unpacked);
        Ok(())
    }

    /// Writes the length byte and the packed bytes of a text that [`Alphabet::of`] accepted.
    pub(super) fn pack(self, text: &str, out: &mut Vec<u8>) {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let count = pairs.len().saturating_add(rest.len()) as u8;
        out.push(count | if rest.is_empty() { 0 } else { 0x80 });
        out.extend(pairs.iter().map(|&[high, low]| half(high) << 4 | half(low)));
        out.extend(rest.iter().map(|&last| half(last) << 4 | 0x0f));
    }
}

/// The half byte of a character; the alphabets agree where both have a value.
fn half(character: u8) -> u8 {
    match character {
        b'-' => 10,
        b'.' => 11,
        b'A'..=b'F' => character.wrapping_sub(b'A' - 10),
        _ => character & 0x0f,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, alphabet: Alphabet, packed: &[u8]) {
        assert_eq!(Alphabet::of(text), Some(alphabet), "{text}");
        let mut out = vec![];
        alphabet.pack(text, &mut out);
        assert_eq!(out, packed, "{text}");
        let mut back = String::from("|");
        assert_eq!(alphabet.unpack(&packed[1..], packed[0] & 0x80 != 0, &mut back), Ok(()));
        assert_eq!(back, format!("|{text}"));
    }

    #[test]
    fn texts_pack_and_unpack() {
        check("12", Alphabet::Nibble, &[0x01, 0x12]);
        check("1-.", Alphabet::Nibble, &[0x82, 0x1a, 0xbf]);
        check("3EB0F", Alphabet::Hex, &[0x83, 0x3e, 0xb0, 0xff]);
        let long = "1234567".repeat(18) + "8";
        let mut out = vec![];
        Alphabet::Nibble.pack(&long, &mut out);
        assert_eq!((out[0], out.len()), (0xc0, 65));
        check(&long, Alphabet::Nibble, &out.clone());
    }

    #[test]
    fn other_texts_are_not_packed() {
        for text in ["", "ab", "A-", "1 ", "é", "١", &"1".repeat(128)] {
            assert_eq!(Alphabet::of(text), None, "{text:?}");
        }
    }

    #[test]
    fn values_outside_of_the_alphabet_are_refused_but_not_as_padding() {
        let mut text = String::new();
        for bad in 12..16 {
            assert_eq!(Alphabet::Nibble.unpack(&[0x12, 0x30 | bad], false, &mut text), Err(1));
            assert_eq!(Alphabet::Nibble.unpack(&[0x12, bad << 4], true, &mut text), Err(1));
            assert_eq!(Alphabet::Nibble.unpack(&[0x10 | bad, 0x33], false, &mut text), Err(0));
            assert_eq!(text, "");
            let mut text = String::new();
            assert_eq!(Alphabet::Nibble.unpack(&[0x30 | bad], true, &mut text), Ok(()));
            assert_eq!(text, "3");
        }
        assert_eq!(Alphabet::Nibble.unpack(&[0x98; 127], false, &mut text), Ok(()));
        assert_eq!(text, "98".repeat(127));
    }
}
