//! A step as the store of the Signal layer: sessions, prekeys and sender keys are records as any other.

use bytes::BytesMut;

use crate::{
    crypto::{KeyPair, PrivateKey, PublicKey},
    engine::{
        keys,
        records::Value,
        step::{Miss, Step},
    },
    signal::{
        Address, ArchiveIndex, Leased, PageId, PreKeyId, Session, SignalStore, SignedPreKeyId, SkippedPage, State,
        StateId,
        sender_key::{OwnSenderKey, SenderKeyName, SenderKeyPageId, SenderKeyRecord, SenderKeyStore},
    },
};

/// The stored form of a prekey: private key, then public key, so that loading needs no curve work.
impl Value for KeyPair {
    fn write_to(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.private().expose());
        out.extend_from_slice(self.public().as_bytes());
    }
}

/// Reads a stored prekey; `None` when it is damaged.
pub(crate) fn pair_of(bytes: &[u8]) -> Option<KeyPair> {
    read_pair(bytes).ok()
}

fn read_pair(bytes: &[u8]) -> Result<KeyPair, &'static str> {
    let (private, public) = bytes.split_first_chunk::<32>().ok_or("too short")?;
    let public = PublicKey::from_slice(public).map_err(|_| "wrong length")?;
    Ok(KeyPair::from_parts(PrivateKey::from_bytes(*private), public))
}

/// Records of the Signal layer have a form of their own.
macro_rules! value {
    ($($name:ty),*) => {$(
        impl Value for $name {
            fn write_to(&self, out: &mut BytesMut) {
                self.write_to(out);
            }
        }
    )*};
}
value!(Session, State, SkippedPage, OwnSenderKey, SenderKeyRecord);

impl SignalStore for Step<'_> {
    type Miss = Miss;

    fn session(&mut self, address: &Address) -> Result<Option<Session>, Miss> {
        let (run, first) = (self.account().run, self.account().first_run);
        self.signal_record(&keys::session(address), |bytes| Session::decode(bytes)?.resume(run, first))
    }

    fn archive_index(&mut self, address: &Address) -> Result<Option<ArchiveIndex>, Miss> {
        self.signal_record(&keys::archive_index(address), ArchiveIndex::decode)
    }

    fn archived_state(&mut self, address: &Address, id: StateId) -> Result<Option<State>, Miss> {
        let (run, first) = (self.account().run, self.account().first_run);
        self.signal_record(&keys::archived_state(address, id), |bytes| State::decode(bytes)?.resume(run, first))
    }

    fn skipped_page(&mut self, address: &Address, id: PageId) -> Result<Option<SkippedPage>, Miss> {
        self.signal_record(&keys::skipped_page(address, id), SkippedPage::decode)
    }

    fn identity(&mut self, address: &Address) -> Result<Option<PublicKey>, Miss> {
        self.signal_record(&keys::identity(address), PublicKey::from_slice)
    }

    fn pre_key(&mut self, id: PreKeyId) -> Result<Option<KeyPair>, Miss> {
        self.signal_record(&keys::pre_key(id.0), read_pair)
    }

    fn signed_pre_key(&mut self, id: SignedPreKeyId) -> Result<Option<KeyPair>, Miss> {
        self.signal_record(&keys::signed_pre_key(id.0), read_pair)
    }

    fn put_session(&mut self, address: &Address, mut session: Session) {
        let run = self.account().run;
        self.note_lease(session.current_mut().map_or(Leased::Held, |state| state.lease(run)));
        self.put(keys::session(address), &session);
    }

    fn delete_session(&mut self, address: &Address) {
        self.delete(keys::session(address));
    }

    fn put_archive_index(&mut self, address: &Address, index: ArchiveIndex) {
        self.put(keys::archive_index(address), &index.encode()[..]);
    }

    fn delete_archive_index(&mut self, address: &Address) {
        self.delete(keys::archive_index(address));
    }

    fn put_archived_state(&mut self, address: &Address, state: State) {
        self.put(keys::archived_state(address, state.id()), &state);
    }

    fn delete_archived_state(&mut self, address: &Address, id: StateId) {
        self.delete(keys::archived_state(address, id));
    }

    fn put_skipped_page(&mut self, address: &Address, id: PageId, page: SkippedPage) {
        self.put(keys::skipped_page(address, id), &page);
    }

    fn delete_skipped_page(&mut self, address: &Address, id: PageId) {
        self.delete(keys::skipped_page(address, id));
    }

    fn put_identity(&mut self, address: &Address, identity: PublicKey) {
        self.put(keys::identity(address), &identity.as_bytes()[..]);
    }

    fn delete_identity(&mut self, address: &Address) {
        self.delete(keys::identity(address));
    }

    fn delete_pre_key(&mut self, id: PreKeyId) {
        self.delete(keys::pre_key(id.0));
    }
}

impl SenderKeyStore for Step<'_> {
    type Miss = Miss;

    fn own_sender_key(&mut self, name: &SenderKeyName) -> Result<Option<OwnSenderKey>, Miss> {
        let run = self.account().run;
        self.signal_record(&keys::own_sender_key(name), |bytes| OwnSenderKey::decode(bytes)?.resume(run))
    }

    fn sender_key(&mut self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>, Miss> {
        let mut record = self.signal_record(&keys::sender_key(name), SenderKeyRecord::decode)?;
        record.iter_mut().for_each(|record| self.points().recall(record));
        Ok(record)
    }

    fn sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId) -> Result<Option<SkippedPage>, Miss> {
        self.signal_record(&keys::sender_key_page(name, id), SkippedPage::decode)
    }

    fn put_own_sender_key(&mut self, name: &SenderKeyName, mut key: OwnSenderKey) {
        let run = self.account().run;
        self.note_lease(key.lease(run));
        self.put(keys::own_sender_key(name), &key);
    }

    fn delete_own_sender_key(&mut self, name: &SenderKeyName) {
        self.delete(keys::own_sender_key(name));
    }

    fn put_sender_key(&mut self, name: &SenderKeyName, mut record: SenderKeyRecord) {
        self.points().keep(&mut record);
        self.put(keys::sender_key(name), &record);
    }

    fn delete_sender_key(&mut self, name: &SenderKeyName) {
        self.delete(keys::sender_key(name));
    }

    fn put_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId, page: SkippedPage) {
        self.put(keys::sender_key_page(name, id), &page);
    }

    fn delete_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId) {
        self.delete(keys::sender_key_page(name, id));
    }
}
