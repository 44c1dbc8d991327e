//! XAES-256-GCM (C2SP): AES-256-GCM with nonces of 24 bytes, for more values under one key than 12 bytes are good for.
//!
//! The first 12 bytes of the nonce and the key give a key of this message alone (one CMAC per half, as a KDF in counter mode, NIST
//! SP 800-108r1 §4.1), the other 12 are the nonce under it. Nonces drawn at random are safe for 2⁸⁰ values of one key.

use std::fmt;

use aes::{
    Aes256, Block,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use zeroize::{Zeroize, Zeroizing};

use super::{AesGcm, CryptoError};

/// XAES-256-GCM with its key schedule, built once per key.
#[derive(Clone)]
pub struct XAesGcm {
    cipher: Aes256,
    /// What CMAC mixes into a last block that is whole (NIST SP 800-38B §6.1).
    subkey: Zeroizing<[u8; 16]>,
}

impl XAesGcm {
    /// Expands the key.
    pub fn new(key: &[u8; 32]) -> Self {
        let cipher = Aes256::new(key.into());
        let mut block = Block::default();
        cipher.encrypt_block(&mut block);
        let doubled = u128::from_be_bytes(block.into()) << 1;
        let carry = (u128::from_be_bytes(block.into()) >> 127) * 0x87;
        block.as_mut_slice().zeroize();
        Self { cipher, subkey: Zeroizing::new((doubled ^ carry).to_be_bytes()) }
    }

    /// Encrypts `buffer` in place and appends the 16-byte tag. The caller never uses a nonce twice with one key.
    pub fn seal(&self, nonce: &[u8; 24], aad: &[u8], buffer: &mut Vec<u8>) {
        let (gcm, nonce) = self.of_message(nonce);
        gcm.seal(&nonce, aad, buffer);
    }

    /// As [`seal`](Self::seal), with the tag as the answer.
    pub fn seal_detached(&self, nonce: &[u8; 24], aad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
        let (gcm, nonce) = self.of_message(nonce);
        gcm.seal_detached(&nonce, aad, buffer)
    }

    /// Checks the tag at the end of `buffer`, decrypts in place and returns the plaintext part.
    ///
    /// # Errors
    /// [`CryptoError::Tag`] when the tag does not match or is not there; the buffer is then unspecified.
    pub fn open<'a>(&self, nonce: &[u8; 24], aad: &[u8], buffer: &'a mut [u8]) -> Result<&'a mut [u8], CryptoError> {
        let (gcm, nonce) = self.of_message(nonce);
        gcm.open(&nonce, aad, buffer)
    }

    /// The cipher of one message, and its nonce.
    fn of_message(&self, nonce: &[u8; 24]) -> (AesGcm, [u8; 12]) {
        let [n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, rest @ ..] = *nonce;
        // Counter, the label "X", a zero byte, and the first half of the nonce.
        let half = |counter: u8| {
            let message = [0, counter, b'X', 0, n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11];
            let mixed = u128::from_be_bytes(message) ^ u128::from_be_bytes(*self.subkey);
            let mut block = Block::from(mixed.to_be_bytes());
            self.cipher.encrypt_block(&mut block);
            block
        };
        let mut key = Zeroizing::new([0; 32]);
        let (left, right) = key.split_at_mut(16);
        left.copy_from_slice(&half(1));
        right.copy_from_slice(&half(2));
        (AesGcm::new(&key), rest)
    }
}

impl fmt::Debug for XAesGcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("XAesGcm([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two vectors of the specification (c2sp.org/XAES-256-GCM); the key's top bit decides how the subkey is made.
    #[test]
    fn vectors_of_the_specification() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        for (key, aad, expected) in [
            ([1; 32], &b""[..], "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            ([3; 32], b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let xaes = XAesGcm::new(&key);
            let mut buffer = b"XAES-256-GCM".to_vec();
            xaes.seal(nonce, aad, &mut buffer);
            assert_eq!(hex::encode(&buffer), expected);
            assert_eq!(xaes.open(nonce, aad, &mut buffer).as_deref(), Ok(&b"XAES-256-GCM"[..]));
        }
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let (xaes, nonce) = (XAesGcm::new(&[7; 32]), [5; 24]);
        let mut sealed = b"attack at dawn".to_vec();
        xaes.seal(&nonce, b"aad", &mut sealed);
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert_eq!(xaes.open(&nonce, b"aad", &mut bad).err(), Some(CryptoError::Tag));
        }
        for i in 0..nonce.len() {
            let mut bad = nonce;
            bad[i] ^= 1;
            assert_eq!(xaes.open(&bad, b"aad", &mut sealed.clone()).err(), Some(CryptoError::Tag));
        }
        assert_eq!(xaes.open(&nonce, b"other", &mut sealed.clone()).err(), Some(CryptoError::Tag));
        assert_eq!(xaes.open(&nonce, b"aad", &mut [0; 15]).err(), Some(CryptoError::Tag));
    }
}
