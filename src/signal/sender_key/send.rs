//! The steps of the sending side (spec 03 §3.1, §3.4).

use bytes::Bytes;

use super::{
    OwnSenderKey, SenderKeyName, SenderKeyStore,
    record::GroupKeys,
    wire::{DistributionMessage, SenderKeyMessage},
};
use crate::{
    crypto::{CryptoRng, cipher::cbc_len},
    signal::{SignalError, StepError},
};

/// The distribution message of our key for a group; the key is made if there is none.
///
/// It shows the chain as it stands. **Whoever gets it must get it no later than the next message**, so distribute and encrypt
/// in one step: distribute first, and its receivers can read what is encrypted after it.
///
/// # Errors
/// The key is not loaded. Nothing is written then.
pub fn distribute<S: SenderKeyStore>(
    store: &mut S,
    own: &SenderKeyName,
    rng: &mut impl CryptoRng,
) -> Result<DistributionMessage, S::Miss> {
    if let Some(key) = store.own_sender_key(own)? {
        return Ok(key.distribution());
    }
    Ok(rotate(store, own, rng))
}

/// Replaces our key for a group by a fresh one, and gives its distribution message, for every receiver.
///
/// When to do it: [`crate::message::distribution`] in the layer above. Reads nothing, hence cannot fail.
pub fn rotate<S: SenderKeyStore>(store: &mut S, own: &SenderKeyName, rng: &mut impl CryptoRng) -> DistributionMessage {
    let key = OwnSenderKey::generate(rng);
    let message = key.distribution();
    store.put_own_sender_key(own, key);
    message
}

/// Drops our key for a group; the next [`distribute`] makes another.
pub fn discard<S: SenderKeyStore>(store: &mut S, own: &SenderKeyName) {
    store.delete_own_sender_key(own);
}

/// Encrypts a message (padded already, spec 03 §4.1) for all who have our key: the content of an `<enc type="skmsg">`.
///
/// The bytes may reach the wire only once the key written here is durable, or a lease covers its iteration.
///
/// # Errors
/// [`SignalError::NoSenderKey`] when nothing was distributed yet, [`SignalError::Exhausted`] after 2^32 - 1 messages;
/// [`StepError::Miss`] when the key is not loaded.
pub fn encrypt<S: SenderKeyStore>(
    store: &mut S,
    own: &SenderKeyName,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Bytes, StepError<S::Miss>> {
    let mut key = store.own_sender_key(own).map_err(StepError::Miss)?.ok_or(SignalError::NoSenderKey)?;
    let (seed, next) = key.chain.step()?;
    let mut bytes = SenderKeyMessage::begin(key.id, key.chain.index, cbc_len(plaintext.len()));
    GroupKeys::derive(&seed).append(plaintext, &mut bytes);
    SenderKeyMessage::sign(&mut bytes, &mut key.signing, rng);
    key.chain = next;
    store.put_own_sender_key(own, key);
    Ok(bytes.into())
}
