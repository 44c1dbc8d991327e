//! The simulated phone: device 0 of every account (spec 01 §7.7).
//!
//! It has the keys of a real device and Signal stores of its own: its identity is the account key, and one-time keys are
//! made when somebody asks for them. It decrypts what it is sent, answers with delivery or retry receipts, sends to users,
//! groups and audiences when it is told to, resends on retry receipts, gives every freshly linked companion the app state
//! keys, and answers its companions' requests for them and for messages that they could not read.

mod peer;
mod receive;
mod resend;
mod send;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wamd::crypto::{KeyPair, Rng, keys::Secret};
use wamd::jid::Jid;
use wamd::proto::e2e;
use wamd::signal::memory::MemorySignalStore;
use wamd::signal::sender_key::memory::MemorySenderKeyStore;
use wamd::signal::{self, PreKeyId, SignedPreKeyId};

pub(crate) use peer::greet;
pub(crate) use receive::receive;
pub(crate) use resend::receive_receipt;
pub(crate) use send::{send_content, send_text, send_to_audience};

use crate::adv;
use crate::control::ReceivedMessage;
use crate::directory::{Address, Bundle, SignedPreKey};

/// Keys, sessions and mailbox of a phone.
#[derive(Clone, Debug)]
pub(crate) struct Phone {
    registration_id: u32,
    signed_prekey: SignedPreKey,
    next_prekey: u32,
    store: MemorySignalStore,
    sender_keys: MemorySenderKeyStore,
    /// The broadcast lists that sender keys came for.
    lists: BTreeSet<Jid>,
    /// The devices that have the phone's sender key, by chat.
    marks: BTreeMap<Jid, BTreeSet<Address>>,
    app_state_key: Secret<32>,
    pub(crate) received: Vec<ReceivedMessage>,
    /// How often each message was asked for again.
    retries: BTreeMap<(Address, String), u32>,
    /// What was sent, by id, for retry receipts and for companions that ask.
    sent: BTreeMap<String, Sent>,
}

/// A message that a phone has sent.
#[derive(Clone, Debug)]
struct Sent {
    to: Jid,
    message: e2e::Message,
    /// Unix seconds.
    at: u64,
}

impl Phone {
    pub(crate) fn new(identity: &KeyPair, rng: &mut impl Rng) -> Self {
        let pair = KeyPair::generate(rng);
        let signature = adv::sign(identity, &[&pair.public().to_typed()]);
        let signed_prekey =
            SignedPreKey { id: 1, public: *pair.public(), signature: Bytes::copy_from_slice(&signature) };
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(signed_prekey.id), pair);
        Self {
            registration_id: rng.next_u32() % 16_380 + 1,
            signed_prekey,
            next_prekey: 1,
            store,
            sender_keys: MemorySenderKeyStore::new(),
            lists: BTreeSet::new(),
            marks: BTreeMap::new(),
            app_state_key: Secret::random(rng),
            received: Vec::new(),
            retries: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// The phone of somebody who registers again: new keys, no sessions, the same mailbox.
    pub(crate) fn registered_again(&mut self, identity: &KeyPair, rng: &mut impl Rng) {
        let received = std::mem::take(&mut self.received);
        *self = Self { received, ..Self::new(identity, rng) };
    }

    /// The bundle of the phone, with a fresh one-time key.
    pub(crate) fn take_bundle(&mut self, identity: &KeyPair, rng: &mut impl Rng) -> Bundle {
        let pair = KeyPair::generate(rng);
        let id = self.next_prekey;
        self.next_prekey = if id >= LAST_PREKEY { 1 } else { id + 1 };
        let public = *pair.public();
        self.store.put_pre_key(PreKeyId(id), pair);
        Bundle {
            registration_id: self.registration_id,
            identity: *identity.public(),
            signed_prekey: self.signed_prekey.clone(),
            prekey: Some((id, public)),
            device_identity: None,
        }
    }

    /// Forgets the sessions with a device, and that it has any sender key.
    pub(crate) fn forget(&mut self, address: Address) {
        let Ok(()) = signal::forget(&mut self.store, &signal_address(address));
        for marked in self.marks.values_mut() {
            marked.remove(&address);
        }
    }
}

/// One name per device, whatever JID it is called by.
fn signal_address(address: Address) -> signal::Address {
    signal::Address::new(&format!("{}.{}", address.number, address.device))
}

/// 32 hex digits, as Android phones make them.
fn message_id(rng: &mut impl Rng) -> String {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    hex::encode_upper(bytes)
}

/// Appends 1 to 16 bytes of that value (spec 03 §4.1).
fn pad(mut message: Vec<u8>, rng: &mut impl Rng) -> Vec<u8> {
    let length = u8::try_from(rng.next_u32() % 16 + 1).unwrap_or(1);
    message.extend(std::iter::repeat_n(length, usize::from(length)));
    message
}

fn unpad(message: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*message.last()?);
    if length == 0 {
        return None;
    }
    message.get(..message.len().checked_sub(length)?)
}

/// Ids have three bytes, and 0 means absent.
const LAST_PREKEY: u32 = 0xFF_FFFF;

/// How often one message is asked for or sent again.
const MAX_RETRIES: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_comes_off() {
        assert_eq!(unpad(b"ab\x01"), Some(&b"ab"[..]));
        assert_eq!(unpad(b"\x03\x03\x03"), Some(&b""[..]));
        assert_eq!(unpad(b"ab\x04"), None);
        assert_eq!(unpad(b"ab\x00"), None);
        assert_eq!(unpad(b""), None);
    }
}
