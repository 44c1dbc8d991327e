//! A [`SignalStore`] in memory, for tests, benches and simulated phones. Nothing is ever missing.

use std::{collections::BTreeMap, convert::Infallible};

use crate::crypto::{KeyPair, PublicKey};

use super::{
    Address, ArchiveIndex, PageId, PreKeyId, Session, SignalError, SignalStore, SignedPreKeyId, SkippedPage, State,
    StateId,
};

/// All records of one device as values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemorySignalStore {
    sessions: BTreeMap<Address, Session>,
    indexes: BTreeMap<Address, ArchiveIndex>,
    states: BTreeMap<(Address, StateId), State>,
    pages: BTreeMap<(Address, PageId), SkippedPage>,
    identities: BTreeMap<Address, PublicKey>,
    pre_keys: BTreeMap<PreKeyId, KeyPair>,
    signed_pre_keys: BTreeMap<SignedPreKeyId, KeyPair>,
}

impl MemorySignalStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a one-time prekey.
    pub fn put_pre_key(&mut self, id: PreKeyId, pair: KeyPair) {
        self.pre_keys.insert(id, pair);
    }

    /// Adds a signed prekey.
    pub fn put_signed_pre_key(&mut self, id: SignedPreKeyId, pair: KeyPair) {
        self.signed_pre_keys.insert(id, pair);
    }

    /// The one-time prekeys that no session has consumed, in order.
    pub fn pre_key_ids(&self) -> impl Iterator<Item = PreKeyId> {
        self.pre_keys.keys().copied()
    }

    /// Pages of skipped keys of a device.
    pub fn page_count(&self, address: &Address) -> usize {
        self.pages.keys().filter(|(owner, _)| owner == address).count()
    }

    /// Writes every record of the sessions and reads it back, as a restart does.
    ///
    /// # Errors
    /// A record does not decode, which is a defect of its encoding.
    pub fn reload(&mut self) -> Result<(), SignalError> {
        for session in self.sessions.values_mut() {
            *session = Session::decode(&session.encode())?;
        }
        for index in self.indexes.values_mut() {
            *index = ArchiveIndex::decode(&index.encode())?;
        }
        for state in self.states.values_mut() {
            *state = State::decode(&state.encode())?;
        }
        for page in self.pages.values_mut() {
            *page = SkippedPage::decode(&page.encode())?;
        }
        Ok(())
    }

    /// Every record that sessions write, encoded, in a fixed order: equal exactly when the stores are.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let name =
            |kind: &str, address: &Address, id: &[u32]| format!("{kind} {} {id:?}", address.as_str()).into_bytes();
        let mut out = Vec::new();
        for (address, session) in &self.sessions {
            out.extend([name("session", address, &[]), session.encode()]);
        }
        for (address, index) in &self.indexes {
            out.extend([name("index", address, &[]), index.encode()]);
        }
        for ((address, id), state) in &self.states {
            out.extend([name("state", address, &[id.0]), state.encode()]);
        }
        for ((address, id), page) in &self.pages {
            out.extend([name("page", address, &[id.state.0, id.chain, id.page]), page.encode()]);
        }
        for (address, identity) in &self.identities {
            out.extend([name("identity", address, &[]), identity.as_bytes().to_vec()]);
        }
        out.extend(self.pre_keys.keys().map(|id| id.0.to_be_bytes().to_vec()));
        out
    }
}

impl SignalStore for MemorySignalStore {
    type Miss = Infallible;

    fn session(&mut self, address: &Address) -> Result<Option<Session>, Infallible> {
        Ok(self.sessions.get(address).cloned())
    }

    fn archive_index(&mut self, address: &Address) -> Result<Option<ArchiveIndex>, Infallible> {
        Ok(self.indexes.get(address).cloned())
    }

    fn archived_state(&mut self, address: &Address, id: StateId) -> Result<Option<State>, Infallible> {
        Ok(self.states.get(&(address.clone(), id)).cloned())
    }

    fn skipped_page(&mut self, address: &Address, id: PageId) -> Result<Option<SkippedPage>, Infallible> {
        Ok(self.pages.get(&(address.clone(), id)).cloned())
    }

    fn identity(&mut self, address: &Address) -> Result<Option<PublicKey>, Infallible> {
        Ok(self.identities.get(address).copied())
    }

    fn pre_key(&mut self, id: PreKeyId) -> Result<Option<KeyPair>, Infallible> {
        Ok(self.pre_keys.get(&id).cloned())
    }

    fn signed_pre_key(&mut self, id: SignedPreKeyId) -> Result<Option<KeyPair>, Infallible> {
        Ok(self.signed_pre_keys.get(&id).cloned())
    }

    fn put_session(&mut self, address: &Address, session: Session) {
        match self.sessions.get_mut(address) {
            Some(old) => *old = session,
            None => drop(self.sessions.insert(address.clone(), session)),
        }
    }

    fn delete_session(&mut self, address: &Address) {
        self.sessions.remove(address);
    }

    fn put_archive_index(&mut self, address: &Address, index: ArchiveIndex) {
        self.indexes.insert(address.clone(), index);
    }

    fn delete_archive_index(&mut self, address: &Address) {
        self.indexes.remove(address);
    }

    fn put_archived_state(&mut self, address: &Address, state: State) {
        self.states.insert((address.clone(), state.id()), state);
    }

    fn delete_archived_state(&mut self, address: &Address, id: StateId) {
        self.states.remove(&(address.clone(), id));
    }

    fn put_skipped_page(&mut self, address: &Address, id: PageId, page: SkippedPage) {
        self.pages.insert((address.clone(), id), page);
    }

    fn delete_skipped_page(&mut self, address: &Address, id: PageId) {
        self.pages.remove(&(address.clone(), id));
    }

    fn put_identity(&mut self, address: &Address, identity: PublicKey) {
        self.identities.insert(address.clone(), identity);
    }

    fn delete_identity(&mut self, address: &Address) {
        self.identities.remove(address);
    }

    fn delete_pre_key(&mut self, id: PreKeyId) {
        self.pre_keys.remove(&id);
    }
}
