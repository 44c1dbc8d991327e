//! A party of `wamd`, with its records in memory.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use wamd::crypto::{KeyPair, xeddsa};
use wamd::signal::memory::MemorySignalStore;
use wamd::signal::{
    self, Address, Ciphertext, CiphertextKind, Own, PreKeyBundle, PreKeyId, SignalError, SignalStore, SignedPreKeyId,
    StepError,
};

/// A device: keys, records, randomness.
#[derive(Clone)]
pub struct Ours {
    pub identity: KeyPair,
    pub signed_pre_key: KeyPair,
    pub signature: [u8; 64],
    pub store: MemorySignalStore,
    next_pre_key: u32,
    /// The device that [`Self::establish`], [`Self::encrypt`] and [`Self::decrypt`] are about.
    pub peer: Address,
    pub rng: ChaCha20Rng,
}

impl Ours {
    /// A device with a signed prekey of id 1, which talks to one other.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (identity, signed_pre_key) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let signature = xeddsa::sign(identity.private(), &[&signed_pre_key.public().to_typed()], &mut rng);
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(1), signed_pre_key.clone());
        let peer = Address::new("4915112345678:3@s.whatsapp.net");
        Self { identity, signed_pre_key, signature, store, next_pre_key: 1, peer, rng }
    }

    /// A fresh one-time prekey.
    pub fn pre_key(&mut self) -> (u32, KeyPair) {
        let (id, pair) = (self.next_pre_key, KeyPair::generate(&mut self.rng));
        self.next_pre_key += 1;
        self.store.put_pre_key(PreKeyId(id), pair.clone());
        (id, pair)
    }

    pub fn establish(&mut self, bundle: &PreKeyBundle) {
        let own = Own { identity: &self.identity, registration_id: 1 };
        signal::establish(&mut self.store, &own, &self.peer, bundle, &mut self.rng).expect("a good bundle");
    }

    pub fn has_session(&mut self) -> bool {
        let Ok(session) = self.store.session(&self.peer);
        session.is_some()
    }

    pub fn encrypt(&mut self, plaintext: &[u8]) -> Ciphertext {
        let own = Own { identity: &self.identity, registration_id: 1 };
        signal::encrypt(&mut self.store, &own, &self.peer, plaintext, &mut self.rng).expect("a session")
    }

    /// As [`Self::encrypt`], for one of several.
    pub fn encrypt_to(&mut self, address: &Address, plaintext: &[u8]) -> Ciphertext {
        let own = Own { identity: &self.identity, registration_id: 1 };
        signal::encrypt(&mut self.store, &own, address, plaintext, &mut self.rng).expect("a session")
    }

    pub fn decrypt(&mut self, kind: CiphertextKind, bytes: &[u8]) -> Result<Vec<u8>, SignalError> {
        let own = Own { identity: &self.identity, registration_id: 1 };
        match signal::decrypt(&mut self.store, &own, &self.peer, kind, bytes) {
            Ok(found) => Ok(found.plaintext),
            Err(StepError::Signal(refusal)) => Err(refusal),
            Err(StepError::Miss(never)) => match never {},
        }
    }

    /// Writes the records and reads them back.
    pub fn reload(&mut self) {
        self.store.reload().expect("records decode");
    }
}
