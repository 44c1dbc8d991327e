//! HMAC-SHA-256 (RFC 2104) and HKDF (RFC 5869) on the compression function of `sha2`; HMAC-SHA-512 from its crate.
//!
//! The ratchets hash keys of 32 bytes and messages of one block, dozens of times per message. A MAC here is two states of the
//! hash, inner and outer, and a message is put straight into its blocks; what the general crates do around that costs a fifth
//! of a message. The tests hold these functions against the `hmac` and `hkdf` crates.

use std::{fmt, sync::LazyLock};

use ::hmac::{KeyInit as _, Mac as _};
use sha2::block_api::compress256;
use zeroize::optimization_barrier;

use super::sha256;

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;
/// Bytes behind the message in its last block: the bit `1` and a length of 64 bits.
const LENGTH_AT: usize = BLOCK - 8;

/// HMAC-SHA-256 with a key that may be used more than once: half of a short MAC is the key.
#[derive(Clone)]
pub struct HmacSha256 {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl HmacSha256 {
    /// Takes a key of any length; one above 64 bytes counts as its hash.
    pub fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        match block.get_mut(..key.len()) {
            Some(head) => head.copy_from_slice(key),
            None => block[..32].copy_from_slice(&sha256(&[key])),
        }
        let mut mac = Self { inner: INITIAL, outer: INITIAL };
        block.iter_mut().for_each(|byte| *byte ^= INNER_PAD);
        compress256(&mut mac.inner, &[block]);
        block.iter_mut().for_each(|byte| *byte ^= INNER_PAD ^ OUTER_PAD);
        compress256(&mut mac.outer, &[block]);
        wipe(&mut block);
        mac
    }

    /// The MAC over the concatenation of `parts`.
    #[inline]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        if let Some(block) = only_block(parts) {
            return self.mac_block(&block);
        }
        let mut hash = Hash { state: self.inner, block: [0; BLOCK], filled: 0, total: BLOCK as u64 };
        parts.iter().for_each(|part| hash.update(part));
        self.finish(&hash.finish())
    }

    /// The MAC over a message that fits into one block, padded.
    #[inline]
    fn mac_block(&self, block: &[u8; BLOCK]) -> [u8; 32] {
        let mut state = self.inner;
        compress256(&mut state, std::slice::from_ref(block));
        self.finish(&state)
    }

    /// The outer hash, over the inner one.
    #[inline]
    fn finish(&self, inner: &[u32; 8]) -> [u8; 32] {
        let mut block = OUTER_MESSAGE;
        block[..32].copy_from_slice(&to_bytes(inner));
        let mut state = self.outer;
        compress256(&mut state, &[block]);
        to_bytes(&state)
    }
}

impl Drop for HmacSha256 {
    fn drop(&mut self) {
        (self.inner, self.outer) = ([0; 8], [0; 8]);
        optimization_barrier(self);
    }
}

impl fmt::Debug for HmacSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacSha256([redacted])")
    }
}

/// HMAC-SHA-512 with a key that is used more than once.
#[derive(Clone)]
pub struct HmacSha512(::hmac::Hmac<sha2::Sha512>);

impl HmacSha512 {
    /// Takes a key of any length.
    pub fn new(key: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104)")]
        Self(::hmac::Hmac::new_from_slice(key).expect("HMAC takes keys of every length"))
    }

    /// The MAC over the concatenation of `parts`.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 64] {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for HmacSha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacSha512([redacted])")
    }
}

/// HMAC-SHA-256 over the concatenation of `parts`.
#[inline]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    HmacSha256::new(key).mac(parts)
}

/// HKDF-SHA-256 (RFC 5869): `N` bytes from `ikm`. An absent salt is 32 zero bytes. `N` is at most 8,160.
pub fn hkdf_sha256<const N: usize>(salt: Option<&[u8]>, ikm: &[u8], info: &[u8]) -> [u8; N] {
    const { assert!(N <= 255 * 32, "HKDF gives at most 255 blocks") };
    let prk = match salt {
        Some(salt) => HmacSha256::new(salt).mac(&[ikm]),
        None => WITHOUT_SALT.mac(&[ikm]),
    };
    let key = HmacSha256::new(&prk);
    // From the second block on, messages differ in the block before them and in their number.
    let mut next = only_block(&[&[0; 32], info, &[0]]);
    let (mut okm, mut previous) = ([0; N], [0; 32]);
    for (number, block) in (1..=u8::MAX).zip(okm.chunks_mut(32)) {
        previous = match &mut next {
            _ if number == 1 => key.mac(&[info, &[number]]),
            None => key.mac(&[&previous, info, &[number]]),
            Some(message) => {
                message[..32].copy_from_slice(&previous);
                message[32 + info.len()] = number;
                key.mac_block(message)
            }
        };
        block.copy_from_slice(&previous[..block.len()]);
    }
    wipe(&mut previous);
    next.iter_mut().for_each(|message| wipe(message));
    okm
}

/// A message that fits into one block with its padding, behind the block of a key.
#[inline]
fn only_block(parts: &[&[u8]]) -> Option<[u8; BLOCK]> {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    if len >= LENGTH_AT {
        return None;
    }
    let (mut block, mut at) = ([0; BLOCK], 0);
    for part in parts {
        block[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    block[len] = 0x80;
    block[LENGTH_AT..].copy_from_slice(&((BLOCK + len) as u64 * 8).to_be_bytes());
    Some(block)
}

/// A hash under way.
struct Hash {
    state: [u32; 8],
    /// Its first `filled` bytes wait for the rest of their block; fewer than a block.
    block: [u8; BLOCK],
    filled: usize,
    /// Bytes hashed, the waiting ones included.
    total: u64,
}

impl Hash {
    #[inline]
    fn update(&mut self, mut bytes: &[u8]) {
        self.total = self.total.wrapping_add(bytes.len() as u64);
        if self.filled + bytes.len() < BLOCK {
            self.block[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
            self.filled += bytes.len();
            return;
        }
        if self.filled > 0 {
            let (head, rest) = bytes.split_at(BLOCK - self.filled);
            self.block[self.filled..].copy_from_slice(head);
            compress256(&mut self.state, &[self.block]);
            bytes = rest;
        }
        let (blocks, tail) = bytes.as_chunks::<BLOCK>();
        compress256(&mut self.state, blocks);
        self.block[..tail.len()].copy_from_slice(tail);
        self.filled = tail.len();
    }

    /// Pads (FIPS 180-4 §5.1.1) and gives the last state.
    #[inline]
    fn finish(mut self) -> [u32; 8] {
        self.block[self.filled] = 0x80;
        self.block[self.filled + 1..].fill(0);
        if self.filled >= LENGTH_AT {
            compress256(&mut self.state, &[self.block]);
            self.block = [0; BLOCK];
        }
        self.block[LENGTH_AT..].copy_from_slice(&self.total.wrapping_mul(8).to_be_bytes());
        compress256(&mut self.state, &[self.block]);
        self.state
    }
}

impl Drop for Hash {
    fn drop(&mut self) {
        self.block = [0; BLOCK];
        optimization_barrier(&self.block);
    }
}

#[inline]
fn to_bytes(state: &[u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.as_chunks_mut().0.iter_mut().zip(state).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
    bytes
}

#[inline]
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

/// The key of an absent salt, which takes two of the compressions of a message.
static WITHOUT_SALT: LazyLock<HmacSha256> = LazyLock::new(|| HmacSha256::new(&[0; 32]));

const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5C;

/// FIPS 180-4 §5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The padded block for 32 bytes behind a block, which go to its front.
const OUTER_MESSAGE: [u8; BLOCK] = {
    let mut block = [0; BLOCK];
    block[32] = 0x80;
    let bits = (BLOCK + 32) * 8;
    block[BLOCK - 2] = (bits >> 8) as u8;
    block[BLOCK - 1] = bits as u8;
    block
};

#[cfg(test)]
mod tests {
    use ::hmac::Hmac;
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    #[test]
    fn rfc5869_case_1() {
        let okm: [u8; 42] = hkdf_sha256(
            Some(&hex::decode("000102030405060708090a0b0c").unwrap()),
            &[0x0b; 22],
            &hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap(),
        );
        assert_eq!(
            hex::encode(okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }

    #[test]
    fn rfc4231_case_2() {
        assert_eq!(
            hex::encode(hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    fn check(key: &[u8], salt: Option<&[u8]>, parts: &[&[u8]]) {
        let mut expected = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| expected.update(part));
        assert_eq!(hmac_sha256(key, parts)[..], expected.finalize().into_bytes()[..]);
        let info = parts.concat();
        let mut okm = [0; 100];
        hkdf::Hkdf::<Sha256>::new(salt, key).expand(&info, &mut okm).unwrap();
        assert_eq!(hkdf_sha256::<100>(salt, key, &info), okm);
        assert_eq!(hkdf_sha256::<7>(salt, key, &info), okm[..7]);
    }

    /// Around every place where another block begins.
    #[test]
    fn every_length_of_three_blocks() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..=200 {
            check(&bytes[..len], None, &[&bytes[..len]]);
            check(b"key", Some(&bytes[..len]), &[&bytes[..len / 3], &[], &bytes[len / 3..len]]);
        }
    }

    proptest! {
        #[test]
        fn as_the_general_crates(
            key in proptest::collection::vec(any::<u8>(), 0..150),
            salt in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..150)),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..150), 0..5),
        ) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            check(&key, salt.as_deref(), &parts);
        }
    }

    #[test]
    fn rfc4231_case_2_with_sha_512() {
        assert_eq!(
            hex::encode(HmacSha512::new(b"Jefe").mac(&[b"what do ya want ", b"for nothing?"])),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        );
    }
}
