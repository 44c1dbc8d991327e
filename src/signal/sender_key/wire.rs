//! The bytes of distribution messages and of `skmsg` (spec 03 §3.1).
//!
//! ```text
//! distribution   33 | 08 id  10 iteration  1a 20 chainKey[32]  22 21 signingKey[33]
//! skmsg          33 | 08 id  10 iteration  1a len ciphertext | signature[64]
//! ```
//!
//! Fields may come in any order, the last of equal ones counts, unknown ones are skipped; the signature is therefore over the
//! bytes as received.

use std::fmt;

use super::SenderKeyId;
use crate::{
    crypto::{
        CryptoRng, PublicKey, Secret,
        xeddsa::{self, SigningKey, VerifyingKey},
    },
    signal::{
        SignalError,
        wire::{BLOCK_LEN, Fields, VERSION, after_version, put_bytes, put_len, put_varint, raw_len},
    },
};

pub use xeddsa::SIGNATURE_LEN;

/// A distribution message (SKDM): a sender key from some iteration on. Who has it can read, not write.
#[derive(Clone, PartialEq, Eq)]
pub struct DistributionMessage {
    /// The id of the key.
    pub id: SenderKeyId,
    /// The iteration that the chain key stands at: the first message that can be read.
    pub iteration: u32,
    /// The chain key.
    pub chain_key: Secret<32>,
    /// Verifies the messages.
    pub signing: PublicKey,
}

impl DistributionMessage {
    /// Reads a message. All four fields must be there.
    ///
    /// # Errors
    /// [`SignalError::Version`], [`SignalError::Key`] for a signing key that is not 33 bytes of type 5, otherwise
    /// [`SignalError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let (mut id, mut iteration, mut chain_key, mut signing) = (None, None, None, None);
        let mut fields = Fields::new(after_version(bytes)?);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => id = Some(SenderKeyId(value.uint32()?)),
                2 => iteration = Some(value.uint32()?),
                3 => {
                    let key = Secret::from_slice(value.bytes()?);
                    chain_key = Some(key.map_err(|_| SignalError::Malformed("chain key is not 32 bytes"))?);
                }
                4 => signing = Some(value.key()?),
                _ => {}
            }
        }
        Ok(Self {
            id: id.ok_or(SignalError::Malformed("sender key id is missing"))?,
            iteration: iteration.ok_or(SignalError::Malformed("iteration is missing"))?,
            chain_key: chain_key.ok_or(SignalError::Malformed("chain key is missing"))?,
            signing: signing.ok_or(SignalError::Malformed("signing key is missing"))?,
        })
    }

    /// Writes the message: secret bytes, for `axolotlSenderKeyDistributionMessage` inside a pairwise message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(82);
        out.push(VERSION);
        put_varint(&mut out, 1, self.id.0.into());
        put_varint(&mut out, 2, self.iteration.into());
        put_bytes(&mut out, 3, self.chain_key.expose());
        put_bytes(&mut out, 4, &self.signing.to_typed());
        out
    }
}

impl fmt::Debug for DistributionMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributionMessage")
            .field("id", &self.id)
            .field("iteration", &self.iteration)
            .finish_non_exhaustive()
    }
}

/// A `skmsg`, as received. Borrows from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderKeyMessage<'a> {
    /// The key that encrypted it.
    pub id: SenderKeyId,
    /// The number of the message in its chain.
    pub iteration: u32,
    /// AES-256-CBC.
    pub ciphertext: &'a [u8],
    /// The bytes under the signature: version byte and protobuf.
    pub body: &'a [u8],
    /// XEdDSA by the signing key.
    pub signature: &'a [u8; SIGNATURE_LEN],
}

impl<'a> SenderKeyMessage<'a> {
    /// Reads a message. The signature is not checked here.
    ///
    /// # Errors
    /// [`SignalError::Version`] or [`SignalError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SignalError> {
        let (body, signature) =
            bytes.split_last_chunk().ok_or(SignalError::Malformed("message shorter than its signature"))?;
        let (mut id, mut iteration, mut ciphertext) = (None, None, None);
        let mut fields = Fields::new(after_version(body)?);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => id = Some(SenderKeyId(value.uint32()?)),
                2 => iteration = Some(value.uint32()?),
                3 => ciphertext = Some(value.bytes()?),
                _ => {}
            }
        }
        let id = id.ok_or(SignalError::Malformed("sender key id is missing"))?;
        let iteration = iteration.ok_or(SignalError::Malformed("iteration is missing"))?;
        let ciphertext = ciphertext.ok_or(SignalError::Malformed("ciphertext is missing"))?;
        // Cheap to see here, before any key is touched.
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK_LEN) {
            return Err(SignalError::Malformed("ciphertext is not made of whole blocks"));
        }
        if iteration == u32::MAX {
            return Err(SignalError::Malformed("iteration at the end of its range"));
        }
        Ok(Self { id, iteration, ciphertext, body, signature })
    }

    /// Writes a message in canonical form up to its ciphertext, of which `len` bytes go behind it, and then the signature (see
    /// [`Self::sign`]). The buffer has exactly the room for them.
    pub fn begin(id: SenderKeyId, iteration: u32, len: usize) -> Vec<u8> {
        let numbers = [u64::from(id.0), iteration.into(), len as u64].map(raw_len).into_iter().sum::<usize>();
        let fixed = const { 1 + 1 + 1 + 1 + SIGNATURE_LEN };
        let mut out = Vec::with_capacity(fixed.saturating_add(numbers).saturating_add(len));
        out.push(VERSION);
        put_varint(&mut out, 1, id.0.into());
        put_varint(&mut out, 2, iteration.into());
        put_len(&mut out, 3, len);
        out
    }

    /// Signs all that `out` holds. Draws the 64 bytes of nonce input of XEdDSA from `rng`.
    pub fn sign(out: &mut Vec<u8>, signing: &mut SigningKey, rng: &mut impl CryptoRng) {
        let signature = signing.sign(&[out], rng);
        out.extend_from_slice(&signature);
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`SignalError::BadSignature`].
    pub fn verify(&self, signing: &VerifyingKey) -> Result<(), SignalError> {
        signing.verify(&[self.body], self.signature).map_err(|_| SignalError::BadSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::CryptoError;

    fn distribution(fields: &[&[u8]]) -> Result<DistributionMessage, SignalError> {
        DistributionMessage::decode(&[&[VERSION], &fields.concat()[..]].concat())
    }

    const ID: &[u8] = &[0x08, 5];
    const ITERATION: &[u8] = &[0x10, 0];

    fn chain_key(len: u8) -> Vec<u8> {
        [&[0x1A, len], &vec![1; len.into()][..]].concat()
    }

    fn signing(kind: u8) -> Vec<u8> {
        [&[0x22, 33, kind], &[9; 32][..]].concat()
    }

    #[test]
    fn distribution_messages_survive() {
        let signing = PublicKey::from_bytes([9; 32]);
        for (id, iteration) in [(0, 0), (127, 128), (u32::MAX, u32::MAX)] {
            let chain_key = Secret::new([1; 32]);
            let message = DistributionMessage { id: SenderKeyId(id), iteration, chain_key, signing };
            assert_eq!(DistributionMessage::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn distribution_messages_are_checked() {
        let (key, signing_key) = (chain_key(32), signing(5));
        let check = |fields: &[&[u8]], error| assert_eq!(distribution(fields), Err(error));
        check(&[ITERATION, &key, &signing_key], SignalError::Malformed("sender key id is missing"));
        check(&[ID, &key, &signing_key], SignalError::Malformed("iteration is missing"));
        check(&[ID, ITERATION, &signing_key], SignalError::Malformed("chain key is missing"));
        check(&[ID, ITERATION, &key], SignalError::Malformed("signing key is missing"));
        for len in [0, 31, 33] {
            check(&[ID, ITERATION, &chain_key(len)], SignalError::Malformed("chain key is not 32 bytes"));
        }
        check(&[ID, ITERATION, &key, &signing(6)], SignalError::Key(CryptoError::KeyType(6)));
        assert_eq!(DistributionMessage::decode(&[0x23]), Err(SignalError::Version(2)));
        assert_eq!(DistributionMessage::decode(&[]), Err(SignalError::Malformed("message is empty")));
        // Order is free, the last of equal fields counts, unknown ones are skipped.
        let message = distribution(&[&signing_key, &key, &[0x08, 9], ITERATION, &[0x2A, 1, 7], ID]).unwrap();
        assert_eq!((message.id, message.iteration), (SenderKeyId(5), 0));
    }

    #[test]
    fn group_messages_are_checked() {
        let check = |body: &[u8], error| {
            let bytes = [body, &[0; SIGNATURE_LEN]].concat();
            assert_eq!(SenderKeyMessage::decode(&bytes), Err(error));
        };
        let block = [&[0x1A, 16], &[0xC1; 16][..]].concat();
        let with = |fields: &[&[u8]]| [&[VERSION], &fields.concat()[..]].concat();
        check(&[], SignalError::Malformed("message is empty"));
        check(&[0x23], SignalError::Version(2));
        check(&with(&[ITERATION, &block]), SignalError::Malformed("sender key id is missing"));
        check(&with(&[ID, &block]), SignalError::Malformed("iteration is missing"));
        check(&with(&[ID, ITERATION]), SignalError::Malformed("ciphertext is missing"));
        check(&with(&[ID, ITERATION, &[0x1A, 0]]), SignalError::Malformed("ciphertext is not made of whole blocks"));
        check(
            &with(&[ID, &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &block]),
            SignalError::Malformed("iteration at the end of its range"),
        );
        check(
            &with(&[ID, &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F], &block]),
            SignalError::Malformed("number above 32 bits"),
        );
        let short = [VERSION; SIGNATURE_LEN - 1];
        assert_eq!(SenderKeyMessage::decode(&short), Err(SignalError::Malformed("message shorter than its signature")));
    }

    #[test]
    fn distribution_messages_do_not_print_the_chain_key() {
        let message = distribution(&[ID, ITERATION, &chain_key(32), &signing(5)]).unwrap();
        assert_eq!(format!("{message:?}"), "DistributionMessage { id: SenderKeyId(5), iteration: 0, .. }");
    }
}
