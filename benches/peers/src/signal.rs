//! Sessions and sender keys, and the same work in `wacore-libsignal`, as a black box: its documentation is all that was read.
//!
//! Each side talks to its own kind; that they understand each other is for [`transcripts`]. Records are values in memory on both
//! sides, which are cloned on reading; "with records" writes and reads them at every step, as a store does.

mod cases;
mod ours;
mod party;
mod primitives;
pub mod theirs;
pub mod transcripts;

use wacore_libsignal::protocol as peer;
use wamd::crypto::PublicKey;
use wamd::signal::{PreKeyBundle, PreKeyId, SignedPreKeyId};

pub use cases::{established, established_theirs, group_theirs, run_all};
pub use ours::Ours;
pub use party::Party;
pub use theirs::Theirs;

/// The published keys of a device of either kind.
#[derive(Clone, Copy)]
pub struct Bundle {
    identity: [u8; 32],
    signed_pre_key: [u8; 32],
    signature: [u8; 64],
    pre_key: Option<(u32, [u8; 32])>,
}

impl Bundle {
    fn of_ours(device: &mut Ours, with_pre_key: bool) -> Self {
        Self {
            identity: *device.identity.public().as_bytes(),
            signed_pre_key: *device.signed_pre_key.public().as_bytes(),
            signature: device.signature,
            pre_key: with_pre_key.then(|| device.pre_key()).map(|(id, pair)| (id, *pair.public().as_bytes())),
        }
    }

    fn of_theirs(device: &mut Theirs, with_pre_key: bool) -> Self {
        let bytes = |key: &peer::PublicKey| key.public_key_bytes().try_into().expect("32 bytes");
        Self {
            identity: bytes(device.identity.public_key()),
            signed_pre_key: bytes(&device.signed_pre_key.public_key),
            signature: device.signature[..].try_into().expect("64 bytes"),
            pre_key: with_pre_key.then(|| device.pre_key()).map(|(id, pair)| (id, bytes(&pair.public_key))),
        }
    }

    fn ours(&self) -> PreKeyBundle {
        PreKeyBundle {
            registration_id: 1,
            identity: PublicKey::from_bytes(self.identity),
            signed_pre_key_id: SignedPreKeyId(1),
            signed_pre_key: PublicKey::from_bytes(self.signed_pre_key),
            signature: self.signature,
            pre_key: self.pre_key.map(|(id, key)| (PreKeyId(id), PublicKey::from_bytes(key))),
        }
    }

    fn theirs(&self) -> peer::PreKeyBundle {
        let key = |bytes: &[u8; 32]| peer::PublicKey::from_djb_public_key_bytes(bytes).expect("a key");
        peer::PreKeyBundle::new(
            1,
            peer::DeviceId::new(3),
            self.pre_key.as_ref().map(|(id, bytes)| (peer::PreKeyId::from(*id), key(bytes))),
            peer::SignedPreKeyId::from(1),
            key(&self.signed_pre_key),
            self.signature.to_vec(),
            peer::IdentityKey::new(key(&self.identity)),
        )
        .expect("a bundle")
    }
}
