//! The symmetric state of a Noise handshake (Noise rev. 34 §5.2, as spec 01 §2.2 changes it).
//!
//! Both roles run the same steps in the same order, so this type does not know which one it serves: the client's
//! [`Handshake`](super::Handshake) and a test server's responder are both written on it.
//!
//! One difference to stock Noise: message 1 of XX has no payload at all here. Stock Noise would hash the empty string
//! there; a generic library therefore disagrees from message 2 on.

use zeroize::{Zeroize, Zeroizing};

use super::HEADER;
use crate::crypto::{AesGcm, Secret, hkdf_sha256, sha256};

/// Which handshake pattern runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Full handshake: both static keys travel encrypted, the client's after the server is authenticated.
    Xx,
    /// Resumption: the client knows the server's static key and sends its payload in the first message.
    Ik,
    /// The server could not use an IK hello and turned the connection into XX.
    XxFallback,
}

impl Protocol {
    /// `h` and `ck` before the prologue: the name itself when it has 32 bytes, its SHA-256 when it is longer.
    pub fn initial_hash(self) -> [u8; 32] {
        match self {
            Self::Xx => *b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0",
            Self::Ik => *b"Noise_IK_25519_AESGCM_SHA256\0\0\0\0",
            Self::XxFallback => sha256(&[b"Noise_XXfallback_25519_AESGCM_SHA256"]),
        }
    }
}

/// What the symmetric state refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SymmetricError {
    /// Encryption before the first [`SymmetricState::mix_key`]: a fault of the caller.
    #[error("no key has been mixed in yet")]
    NoKey,
    /// All nonces of the current key are used up: a fault of the caller.
    #[error("nonces of the key are used up")]
    Exhausted,
    /// The ciphertext is not authentic, or shorter than its tag.
    #[error("authentication tag does not match")]
    Tag,
}

/// Hash `h`, chaining key `ck`, cipher key `k` and its counter `n`.
#[derive(Debug)]
pub struct SymmetricState {
    h: [u8; 32],
    ck: Secret<32>,
    key: Option<Secret<32>>,
    n: u32,
}

impl SymmetricState {
    /// Starts `protocol` and mixes in the prologue, which is the connection [`HEADER`].
    pub fn new(protocol: Protocol) -> Self {
        let h = protocol.initial_hash();
        let mut state = Self { h, ck: Secret::new(h), key: None, n: 0 };
        state.mix_hash(&HEADER);
        state
    }

    /// `h = SHA-256(h || data)`.
    pub fn mix_hash(&mut self, data: &[u8]) {
        self.h = sha256(&[&self.h, data]);
    }

    /// Derives the next chaining key and cipher key from a Diffie-Hellman result; the counter starts again at 0.
    pub fn mix_key(&mut self, shared: &Secret<32>) {
        let (ck, key) = expand(&self.ck, shared.expose());
        self.ck = ck;
        self.key = Some(key);
        self.n = 0;
    }

    /// Encrypts with `h` as associated data and mixes the ciphertext (`plaintext.len() + 16` bytes) into `h`.
    ///
    /// # Errors
    /// [`SymmetricError::NoKey`] and [`SymmetricError::Exhausted`]; the state is then unchanged.
    pub fn encrypt_and_hash(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, SymmetricError> {
        let (cipher, next) = self.cipher()?;
        let mut ciphertext = Vec::with_capacity(plaintext.len().saturating_add(crate::crypto::cipher::TAG_LEN));
        ciphertext.extend_from_slice(plaintext);
        cipher.seal(&nonce(self.n), &self.h, &mut ciphertext);
        self.n = next;
        self.mix_hash(&ciphertext);
        Ok(ciphertext)
    }

    /// Decrypts with `h` as associated data and mixes the ciphertext into `h`.
    ///
    /// # Errors
    /// [`SymmetricError::Tag`] for a ciphertext that is not authentic, [`SymmetricError::NoKey`] and
    /// [`SymmetricError::Exhausted`]; the state is then unchanged.
    pub fn decrypt_and_hash(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, SymmetricError> {
        let (cipher, next) = self.cipher()?;
        let mut buffer = ciphertext.to_vec();
        let len = cipher.open(&nonce(self.n), &self.h, &mut buffer).map_err(|_| SymmetricError::Tag)?.len();
        buffer.truncate(len);
        self.n = next;
        self.mix_hash(ciphertext);
        Ok(buffer)
    }

    /// Ends the handshake: the initiator's write key and the responder's write key, for
    /// [`Transport::initiator`](super::Transport::initiator) or [`Transport::responder`](super::Transport::responder).
    pub fn split(self) -> (Secret<32>, Secret<32>) {
        expand(&self.ck, &[])
    }

    /// `h`: what both sides have seen so far. Not secret.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.h
    }

    /// `ck`, `k` and `n`, for comparing with vectors.
    #[doc(hidden)]
    pub fn secrets(&self) -> (&[u8; 32], Option<&[u8; 32]>, u32) {
        (self.ck.expose(), self.key.as_ref().map(Secret::expose), self.n)
    }

    /// The current cipher, and the counter after this use.
    fn cipher(&self) -> Result<(AesGcm, u32), SymmetricError> {
        // Built per use: a handshake key encrypts one or two short values, next to several curve operations.
        let key = self.key.as_ref().ok_or(SymmetricError::NoKey)?;
        let next = self.n.checked_add(1).ok_or(SymmetricError::Exhausted)?;
        Ok((AesGcm::new(key.expose()), next))
    }
}

/// Eight zero bytes and the counter, big-endian (spec 01 §2.2).
pub(super) fn nonce(counter: u32) -> [u8; 12] {
    let [a, b, c, d] = counter.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// HKDF to two keys, without info.
fn expand(ck: &Secret<32>, ikm: &[u8]) -> (Secret<32>, Secret<32>) {
    let okm = Zeroizing::new(hkdf_sha256::<64>(Some(ck.expose()), ikm, &[]));
    let (mut first, mut second) = ([0; 32], [0; 32]);
    for (to, from) in first.iter_mut().chain(&mut second).zip(okm.iter()) {
        *to = *from;
    }
    let keys = (Secret::new(first), Secret::new(second));
    first.zeroize();
    second.zeroize();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed() -> SymmetricState {
        let mut state = SymmetricState::new(Protocol::Xx);
        state.mix_key(&Secret::new([7; 32]));
        state
    }

    #[test]
    fn a_failed_decryption_changes_nothing() {
        let (mut ours, mut theirs) = (keyed(), keyed());
        let sealed = theirs.encrypt_and_hash(b"static key").unwrap();
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert_eq!(ours.decrypt_and_hash(&bad), Err(SymmetricError::Tag));
        }
        assert_eq!(ours.decrypt_and_hash(&sealed[..15]), Err(SymmetricError::Tag));
        assert_eq!(ours.hash(), keyed().hash());
        assert_eq!(ours.decrypt_and_hash(&sealed).as_deref(), Ok(&b"static key"[..]));
        assert_eq!(ours.hash(), theirs.hash());
    }

    #[test]
    fn without_a_key_nothing_is_encrypted() {
        let mut state = SymmetricState::new(Protocol::Ik);
        assert_eq!(state.encrypt_and_hash(b"x"), Err(SymmetricError::NoKey));
        assert_eq!(state.decrypt_and_hash(&[0; 32]), Err(SymmetricError::NoKey));
        assert_eq!(state.hash(), SymmetricState::new(Protocol::Ik).hash());
    }

    #[test]
    fn the_counter_never_wraps() {
        let mut state = keyed();
        state.n = u32::MAX - 1;
        assert!(state.encrypt_and_hash(b"last").is_ok());
        let h = *state.hash();
        assert_eq!(state.encrypt_and_hash(b"x"), Err(SymmetricError::Exhausted));
        assert_eq!(*state.hash(), h);
        state.mix_key(&Secret::new([1; 32]));
        assert!(state.encrypt_and_hash(b"x").is_ok());
    }

    #[test]
    fn keys_do_not_print() {
        let state = keyed();
        let ck = format!("{:?}", state.ck.expose());
        assert!(!format!("{state:?}").contains(&ck[1..20]));
    }
}
