//! The simulated phone: device 0 of every account (spec 01 §7.7).
//!
//! It has the keys of a real device. Its identity is the account key; one-time keys are made when somebody asks for them.

use bytes::Bytes;
use wamd::crypto::{KeyPair, Rng};
use wamd::node::Node;

use crate::adv;
use crate::control::ReceivedMessage;
use crate::core::Core;
use crate::directory::{Address, Bundle, SignedPreKey};
use crate::queue::Entry;

/// Keys and mailbox of a phone.
#[derive(Clone, Debug)]
pub(crate) struct Phone {
    registration_id: u32,
    signed_prekey: SignedPreKey,
    pub(crate) received: Vec<ReceivedMessage>,
    next_prekey: u32,
}

impl Phone {
    pub(crate) fn new(identity: &KeyPair, rng: &mut impl Rng) -> Self {
        let pair = KeyPair::generate(rng);
        let signature = adv::sign(identity, &[&pair.public().to_typed()]);
        Self {
            registration_id: rng.next_u32() % 16_380 + 1,
            signed_prekey: SignedPreKey { id: 1, public: *pair.public(), signature: Bytes::copy_from_slice(&signature) },
            received: Vec::new(),
            next_prekey: 1,
        }
    }

    pub(crate) fn take_bundle(&mut self, identity: &KeyPair, rng: &mut impl Rng) -> Bundle {
        let pair = KeyPair::generate(rng);
        let id = self.next_prekey;
        self.next_prekey = self.next_prekey.saturating_add(1);
        Bundle {
            registration_id: self.registration_id,
            identity: *identity.public(),
            signed_prekey: self.signed_prekey.clone(),
            prekey: Some((id, *pair.public())),
            device_identity: None,
        }
    }

    pub(crate) fn forget(&mut self, _: Address) {}
}

pub(crate) fn greet(_: &mut Core, _: Address) {}
pub(crate) fn receive(_: &mut Core, _: u64, _: &Entry) {}
pub(crate) fn receive_receipt(_: &mut Core, _: u64, _: &Node) {}
