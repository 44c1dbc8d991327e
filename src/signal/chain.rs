//! The key derivations of the double ratchet (spec 03 §2.3).

use crate::crypto::{
    HmacSha256, PrivateKey, PublicKey, Secret, aes256_cbc_append, aes256_cbc_decrypt, constant_time_eq, hkdf_sha256,
    hmac_sha256, x25519,
};

use super::{SignalError, wire::MAC_LEN};

/// The key of a chain at an index: yields the message key of the counter of that value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainKey {
    pub(super) key: Secret<32>,
    pub(super) index: u32,
}

impl ChainKey {
    /// The start of a chain.
    pub(super) const fn first(key: Secret<32>) -> Self {
        Self { key, index: 0 }
    }

    /// The seed of the message key at this index, and the chain key one index further.
    pub(super) fn step(&self) -> Result<(Secret<32>, Self), SignalError> {
        let index = self.next_index()?;
        let key = HmacSha256::new(self.key.expose());
        Ok((Secret::new(key.mac(&[&[0x01]])), Self { key: Secret::new(key.mac(&[&[0x02]])), index }))
    }

    /// The chain key one index further.
    pub(super) fn next(&self) -> Result<Self, SignalError> {
        let index = self.next_index()?;
        Ok(Self { key: Secret::new(hmac_sha256(self.key.expose(), &[&[0x02]])), index })
    }

    fn next_index(&self) -> Result<u32, SignalError> {
        self.index.checked_add(1).ok_or(SignalError::Exhausted("chain"))
    }
}

/// The seed of the message key that a chain key yields.
pub(super) fn message_seed(chain_key: &Secret<32>) -> Secret<32> {
    Secret::new(hmac_sha256(chain_key.expose(), &[&[0x01]]))
}

/// The three keys of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MessageKeys {
    cipher: Secret<32>,
    mac: Secret<32>,
    iv: Secret<16>,
}

impl MessageKeys {
    /// Expands the seed of a message.
    pub(super) fn derive(seed: &Secret<32>) -> Self {
        Self::from_expanded(&Secret::new(hkdf_sha256(None, seed.expose(), b"WhisperMessageKeys")))
    }

    /// Takes keys that were expanded before, as other stores keep them: cipher key, MAC key, IV.
    pub(super) fn from_expanded(keys: &Secret<80>) -> Self {
        let (mut cipher, mut mac, mut iv) = ([0; 32], [0; 32], [0; 16]);
        let bytes = keys.expose();
        cipher.copy_from_slice(&bytes[..32]);
        mac.copy_from_slice(&bytes[32..64]);
        iv.copy_from_slice(&bytes[64..]);
        Self { cipher: Secret::new(cipher), mac: Secret::new(mac), iv: Secret::new(iv) }
    }

    /// Cipher key, MAC key, IV.
    pub(super) const fn parts(&self) -> (&[u8; 32], &[u8; 32], &[u8; 16]) {
        (self.cipher.expose(), self.mac.expose(), self.iv.expose())
    }

    /// Encrypts behind what `out` holds.
    pub(super) fn append(&self, plaintext: &[u8], out: &mut Vec<u8>) {
        aes256_cbc_append(self.cipher.expose(), self.iv.expose(), plaintext, out);
    }

    /// Decrypts ciphertext whose MAC was checked.
    pub(super) fn decrypt(&self, ciphertext: &[u8]) -> Result<Vec<u8>, SignalError> {
        aes256_cbc_decrypt(self.cipher.expose(), self.iv.expose(), ciphertext).map_err(|_| SignalError::Padding)
    }

    /// The MAC that binds a message to the identities of its sender and its receiver.
    pub(super) fn mac(&self, sender: &PublicKey, receiver: &PublicKey, body: &[u8]) -> [u8; MAC_LEN] {
        let [a, b, c, d, e, f, g, h, ..] =
            hmac_sha256(self.mac.expose(), &[&sender.to_typed(), &receiver.to_typed(), body]);
        [a, b, c, d, e, f, g, h]
    }

    /// Compares the MAC in constant time.
    pub(super) fn verify(
        &self,
        sender: &PublicKey,
        receiver: &PublicKey,
        body: &[u8],
        mac: &[u8; MAC_LEN],
    ) -> Result<(), SignalError> {
        if constant_time_eq(&self.mac(sender, receiver, body), mac) { Ok(()) } else { Err(SignalError::BadMac) }
    }
}

/// A Diffie-Hellman step of the root chain: the next root key, and the first key of a new chain.
pub(super) fn root_step(
    root: &Secret<32>,
    ours: &PrivateKey,
    theirs: &PublicKey,
) -> Result<(Secret<32>, ChainKey), SignalError> {
    let shared = x25519(ours, theirs).map_err(SignalError::Key)?;
    let okm = Secret::new(hkdf_sha256(Some(root.expose()), shared.expose(), b"WhisperRatchet"));
    Ok(root_and_chain(&okm))
}

/// Splits 64 derived bytes into a root key and the start of a chain.
pub(super) fn root_and_chain(okm: &Secret<64>) -> (Secret<32>, ChainKey) {
    let (mut root, mut chain) = ([0; 32], [0; 32]);
    root.copy_from_slice(&okm.expose()[..32]);
    chain.copy_from_slice(&okm.expose()[32..]);
    (Secret::new(root), ChainKey::first(Secret::new(chain)))
}
