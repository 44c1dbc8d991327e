//! HKDF-SHA-256 (RFC 5869) of very many short inputs under one info: everything that does not depend on the input is computed
//! once, and blocks are laid out by hand.
//!
//! ```text
//! extract   2 compressions     the key of this HMAC, a salt of zeros, is two states that are made once
//! key       2                  the states of the HMAC that expands
//! expand    2 + 3 * 3          T(1) = HMAC(info, 1), T(i) = HMAC(T(i-1), info, i)
//! ```
//!
//! 15 compressions of SHA-256 for 128 bytes; by way of a general HMAC it is 17 and the handling of its buffers.

use std::fmt;

use sha2::block_api::compress256;

type State = [u32; 8];
type Block = [u8; 64];

/// The initial state of SHA-256 (FIPS 180-4 §5.3.3).
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// What the key of an HMAC is combined with for the inner and the outer hash (RFC 2104 §2).
const IPAD: u8 = 0x36;
const OPAD: u8 = 0x5c;

/// HKDF-SHA-256 without salt, from 32 bytes to 128, under an info of 24 bytes.
#[derive(Clone)]
pub struct Hkdf128 {
    /// The states behind the key of the extracting HMAC.
    extract: Hmac,
    /// The inner message of T(1).
    first: Block,
    /// That of T(2) to T(4), whose first 32 bytes and counter are filled in.
    next: [Block; 2],
}

/// Where the counter stands in the message of T(2) and later.
const COUNTER: usize = 32 + 24;

impl Hkdf128 {
    /// Prepares everything that depends on the info alone.
    pub fn new(info: &[u8; 24]) -> Self {
        let mut first = [0; 64];
        fill(&mut first, &[info, &[1, 0x80]]);
        end(&mut first, 25);
        let mut next = [[0; 64]; 2];
        let [message, tail] = &mut next;
        fill(message, &[&[0; 32], info, &[0, 0x80]]);
        end(tail, 57);
        Self { extract: Hmac::new(&[0; 32]), first, next }
    }

    /// The 128 bytes of one input.
    pub fn expand(&self, input: &[u8; 32]) -> [u8; 128] {
        let mut block = [0; 64];
        fill(&mut block, &[input, &[0x80]]);
        end(&mut block, 32);
        let key = Hmac::new(&self.extract.mac(&[block]));
        let mut out = [0; 128];
        let mut next = self.next;
        for (i, part) in (1_u8..).zip(out.chunks_exact_mut(32)) {
            let digest = if i == 1 {
                key.mac(&[self.first])
            } else {
                if let Some(counter) = next[0].get_mut(COUNTER) {
                    *counter = i;
                }
                key.mac(&next)
            };
            part.copy_from_slice(&digest);
            if let Some(previous) = next[0].first_chunk_mut() {
                *previous = digest;
            }
        }
        out
    }
}

impl fmt::Debug for Hkdf128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hkdf128")
    }
}

/// A key of HMAC as the states that it leads to.
#[derive(Clone)]
struct Hmac {
    inner: State,
    outer: State,
}

impl Hmac {
    fn new(key: &[u8; 32]) -> Self {
        let [inner, outer] = [IPAD, OPAD].map(|pad| {
            let (mut state, mut block) = (INITIAL, [pad; 64]);
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            compress256(&mut state, &[block]);
            state
        });
        Self { inner, outer }
    }

    /// The MAC of a message that is laid out in blocks with its ending.
    fn mac(&self, message: &[Block]) -> [u8; 32] {
        let (mut inner, mut outer) = (self.inner, self.outer);
        compress256(&mut inner, message);
        let mut block = [0; 64];
        fill(&mut block, &[&bytes(&inner), &[0x80]]);
        end(&mut block, 32);
        compress256(&mut outer, &[block]);
        bytes(&outer)
    }
}

fn bytes(state: &State) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(4).zip(state).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_be_bytes()));
    bytes
}

/// Writes `parts` to the front.
fn fill(block: &mut Block, parts: &[&[u8]]) {
    let bytes = parts.iter().copied().flatten();
    block.iter_mut().zip(bytes).for_each(|(byte, from)| *byte = *from);
}

/// Writes the length, in bits, of a message of `len` bytes behind the block of the key (FIPS 180-4 §5.1.1).
fn end(block: &mut Block, len: u64) {
    if let Some(end) = block.last_chunk_mut() {
        *end = (len.saturating_add(64).saturating_mul(8)).to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hkdf_sha256;

    #[test]
    fn it_is_hkdf() {
        for (info, fill) in [(b"WhatsApp Patch Integrity", 0), (b"WhatsApp Patch Integrity", 0xff), (&[0; 24], 7)] {
            let mut input = [fill; 32];
            for round in 0..50 {
                let expanded = Hkdf128::new(info).expand(&input);
                assert_eq!(expanded, hkdf_sha256::<128>(None, &input, info), "round {round}");
                input.copy_from_slice(&expanded[96..]);
            }
        }
    }
}
