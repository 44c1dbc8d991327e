//! A party of `wacore-libsignal`: its records in memory behind its store traits, its steps as its documentation shows them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use wacore_libsignal::protocol::{
    CiphertextMessage, CiphertextMessageType, DeviceId, Direction, GenericSignedPreKey, IdentityChange, IdentityKey,
    IdentityKeyPair, IdentityKeyStore, KeyPair, OwnedCiphertextMessage, PreKeyBundle, PreKeyId, PreKeyRecord,
    PreKeySignalMessage, PreKeyStore, ProtocolAddress, SenderKeyDistributionMessage, SenderKeyRecord, SenderKeyStore,
    SessionCheckoutKey, SessionRecord, SessionStore, SignalMessage, SignalProtocolError, SignedPreKeyId,
    SignedPreKeyRecord, SignedPreKeyStore, Timestamp, UsePQRatchet, create_sender_key_distribution_message,
    group_decrypt, group_encrypt, message_decrypt, message_decrypt_owned, message_encrypt, process_prekey_bundle,
    process_sender_key_distribution_message,
};
use wacore_libsignal::store::sender_key_name::SenderKeyName;
use wamd::signal::CiphertextKind;

type Result<T> = std::result::Result<T, SignalProtocolError>;

/// A device: keys, records, randomness.
#[derive(Clone)]
pub struct Theirs {
    pub identity: IdentityKeyPair,
    pub signed_pre_key: KeyPair,
    pub signature: Vec<u8>,
    sessions: Sessions,
    identities: Identities,
    pre_keys: PreKeys,
    signed_pre_keys: SignedPreKeys,
    sender_keys: SenderKeys,
    next_pre_key: u32,
    /// The device that [`Self::establish`], [`Self::encrypt`] and [`Self::decrypt`] are about.
    pub peer: ProtocolAddress,
    pub rng: ChaCha20Rng,
}

impl Theirs {
    /// A device with a signed prekey of id 1, which talks to one other.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (identity, signed_pre_key) = (IdentityKeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let signed_bytes = signed_pre_key.public_key.serialize();
        let signature = identity.private_key().calculate_signature(&signed_bytes, &mut rng).expect("a key").to_vec();
        let (id, time) = (SignedPreKeyId::from(1), Timestamp::from_epoch_millis(0));
        let record = SignedPreKeyRecord::new(id, time, &signed_pre_key, &signature);
        Self {
            identities: Identities { own: identity.clone(), known: HashMap::new() },
            identity,
            signed_pre_key,
            signature,
            sessions: Sessions::default(),
            pre_keys: PreKeys::default(),
            signed_pre_keys: SignedPreKeys(HashMap::from([(1, record)])),
            sender_keys: SenderKeys::default(),
            next_pre_key: 1,
            peer: ProtocolAddress::new("4915112345678", DeviceId::new(3)),
            rng,
        }
    }

    /// A fresh one-time prekey.
    pub fn pre_key(&mut self) -> (u32, KeyPair) {
        let (id, pair) = (self.next_pre_key, KeyPair::generate(&mut self.rng));
        self.next_pre_key += 1;
        self.pre_keys.0.insert(id, PreKeyRecord::new(PreKeyId::from(id), &pair));
        (id, pair)
    }

    pub fn establish(&mut self, bundle: &PreKeyBundle) {
        let Self { peer, sessions, identities, rng, .. } = self;
        now(process_prekey_bundle(peer, sessions, identities, bundle, rng, UsePQRatchet::No)).expect("a good bundle");
    }

    pub fn has_session(&self) -> bool {
        self.sessions.records().contains_key(&self.peer)
    }

    pub fn encrypt(&mut self, plaintext: &[u8]) -> CiphertextMessage {
        let Self { peer, sessions, identities, .. } = self;
        now(message_encrypt(plaintext, peer, sessions, identities)).expect("a session")
    }

    /// As [`Self::encrypt`], for one of several.
    pub fn encrypt_to(&mut self, address: &ProtocolAddress, plaintext: &[u8]) -> CiphertextMessage {
        let Self { sessions, identities, .. } = self;
        now(message_encrypt(plaintext, address, sessions, identities)).expect("a session")
    }

    /// Reads a message from bytes that are kept.
    pub fn decrypt(&mut self, kind: CiphertextKind, bytes: &[u8]) -> Result<Vec<u8>> {
        let message = match kind {
            CiphertextKind::Whisper => CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes)?),
            CiphertextKind::PreKey => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(bytes)?),
        };
        let Self { peer, sessions, identities, pre_keys, signed_pre_keys, rng, .. } = self;
        let no = UsePQRatchet::No;
        let step = message_decrypt(&message, peer, sessions, identities, pre_keys, signed_pre_keys, rng, no);
        now(step).map(|found| found.plaintext)
    }

    /// Reads a msg from bytes that may be written over.
    pub fn decrypt_owned(&mut self, bytes: Bytes) -> Result<Vec<u8>> {
        let message = CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes)?);
        let mut message = OwnedCiphertextMessage::new(message);
        let Self { peer, sessions, identities, pre_keys, signed_pre_keys, rng, .. } = self;
        let no = UsePQRatchet::No;
        let step = message_decrypt_owned(&mut message, peer, sessions, identities, pre_keys, signed_pre_keys, rng, no);
        now(step).map(|found| found.plaintext)
    }

    /// Writes the session and reads it back. Whoever does so at every step makes it durable before a message leaves, and
    /// needs no reserved counters.
    pub fn reload(&mut self) {
        for record in self.sessions.records().values_mut() {
            *record = SessionRecord::deserialize(&record.serialize().expect("a record")).expect("a record");
            record.waive_counter_lease();
        }
    }

    /// As [`Self::reload`] for sender keys.
    pub fn reload_sender_keys(&mut self) {
        for record in self.sender_keys.0.values_mut() {
            *record = SenderKeyRecord::deserialize(&record.serialize().expect("a record")).expect("a record");
            record.waive_counter_lease().expect("a record");
        }
    }

    /// From now on a step gets the record itself instead of a copy. A refused message would lose it.
    pub fn handing_out(mut self) -> Self {
        self.sessions.hands_out = true;
        self
    }

    pub fn without_leases(mut self) -> Self {
        self.sessions.records().values_mut().for_each(SessionRecord::waive_counter_lease);
        self.sender_keys.0.values_mut().for_each(|record| record.waive_counter_lease().expect("a record"));
        self
    }

    pub fn distribute(&mut self, name: &SenderKeyName) -> SenderKeyDistributionMessage {
        now(create_sender_key_distribution_message(name, &mut self.sender_keys, &mut self.rng)).expect("a key")
    }

    pub fn process(&mut self, name: &SenderKeyName, bytes: &[u8]) -> Result<()> {
        let message = SenderKeyDistributionMessage::try_from(bytes)?;
        now(process_sender_key_distribution_message(name, &message, &mut self.sender_keys))
    }

    pub fn group_encrypt(&mut self, name: &SenderKeyName, plaintext: &[u8]) -> Box<[u8]> {
        let message = now(group_encrypt(&mut self.sender_keys, name, plaintext, &mut self.rng));
        message.expect("a key").into_serialized()
    }

    pub fn group_decrypt(&mut self, name: &SenderKeyName, bytes: &[u8]) -> Result<Vec<u8>> {
        now(group_decrypt(bytes, &mut self.sender_keys, name))
    }

    pub fn forget_sender_keys(&mut self) {
        self.sender_keys.0.clear();
    }
}

/// Of which kind a message is.
pub fn kind(message: &CiphertextMessage) -> CiphertextKind {
    match message.message_type() {
        CiphertextMessageType::Whisper => CiphertextKind::Whisper,
        CiphertextMessageType::PreKey => CiphertextKind::PreKey,
        other => panic!("{other:?} from a session"),
    }
}

/// Runs what never waits: the stores are in memory.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the stores answer at once"),
    }
}

/// Sessions, of which a step gets a copy, or the record itself until it puts it back.
#[derive(Default)]
struct Sessions {
    records: Mutex<HashMap<ProtocolAddress, SessionRecord>>,
    hands_out: bool,
}

impl Sessions {
    fn records(&self) -> MutexGuard<'_, HashMap<ProtocolAddress, SessionRecord>> {
        self.records.lock().expect("one thread")
    }
}

impl Clone for Sessions {
    fn clone(&self) -> Self {
        Self { records: Mutex::new(self.records().clone()), hands_out: self.hands_out }
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> Result<Option<SessionRecord>> {
        Ok(self.records().get(address).cloned())
    }
    async fn load_session_for_update(
        &self,
        address: &ProtocolAddress,
    ) -> Result<(Option<SessionRecord>, Option<SessionCheckoutKey>)> {
        let found = if self.hands_out { self.records().remove(address) } else { self.records().get(address).cloned() };
        Ok((found, None))
    }
    async fn has_session(&self, address: &ProtocolAddress) -> Result<bool> {
        Ok(self.records().contains_key(address))
    }
    async fn store_session(&mut self, address: &ProtocolAddress, record: SessionRecord) -> Result<()> {
        let mut records = self.records();
        match records.get_mut(address) {
            Some(old) => *old = record,
            None => drop(records.insert(address.clone(), record)),
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Identities {
    own: IdentityKeyPair,
    known: HashMap<ProtocolAddress, IdentityKey>,
}

#[async_trait]
impl IdentityKeyStore for Identities {
    async fn get_identity_key_pair(&self) -> Result<IdentityKeyPair> {
        Ok(self.own.clone())
    }
    async fn get_local_registration_id(&self) -> Result<u32> {
        Ok(1)
    }
    async fn save_identity(&mut self, address: &ProtocolAddress, identity: &IdentityKey) -> Result<IdentityChange> {
        if self.known.get(address) == Some(identity) {
            return Ok(IdentityChange::from_changed(false));
        }
        let before = self.known.insert(address.clone(), *identity);
        Ok(IdentityChange::from_changed(before.is_some()))
    }
    async fn is_trusted_identity(&self, _: &ProtocolAddress, _: &IdentityKey, _: Direction) -> Result<bool> {
        Ok(true)
    }
    async fn get_identity(&self, address: &ProtocolAddress) -> Result<Option<IdentityKey>> {
        Ok(self.known.get(address).copied())
    }
}

#[derive(Clone, Default)]
struct PreKeys(HashMap<u32, PreKeyRecord>);

#[async_trait]
impl PreKeyStore for PreKeys {
    async fn get_pre_key(&self, id: PreKeyId) -> Result<PreKeyRecord> {
        self.0.get(&id.into()).cloned().ok_or(SignalProtocolError::InvalidPreKeyId)
    }
    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Result<()> {
        self.0.insert(id.into(), record.clone());
        Ok(())
    }
    async fn remove_pre_key(&mut self, id: PreKeyId) -> Result<()> {
        self.0.remove(&id.into());
        Ok(())
    }
}

#[derive(Clone)]
struct SignedPreKeys(HashMap<u32, SignedPreKeyRecord>);

#[async_trait]
impl SignedPreKeyStore for SignedPreKeys {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> Result<SignedPreKeyRecord> {
        self.0.get(&id.into()).cloned().ok_or(SignalProtocolError::InvalidSignedPreKeyId)
    }
    async fn save_signed_pre_key(&mut self, id: SignedPreKeyId, record: &SignedPreKeyRecord) -> Result<()> {
        self.0.insert(id.into(), record.clone());
        Ok(())
    }
}

#[derive(Clone, Default)]
struct SenderKeys(HashMap<SenderKeyName, SenderKeyRecord>);

#[async_trait]
impl SenderKeyStore for SenderKeys {
    async fn store_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) -> Result<()> {
        match self.0.get_mut(name) {
            Some(old) => *old = record,
            None => drop(self.0.insert(name.clone(), record)),
        }
        Ok(())
    }
    async fn load_sender_key(&self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>> {
        Ok(self.0.get(name).cloned())
    }
}
