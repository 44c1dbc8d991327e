//! The edge to storage, in the words of this layer.

use crate::crypto::{KeyPair, PublicKey};

use super::{Address, ArchiveIndex, PageId, PreKeyId, Session, SignedPreKeyId, SkippedPage, State, StateId};

/// The records that a step reads and writes.
///
/// A getter answers from what is at hand: `Ok(None)` says that the record does not exist, `Err` that it is not loaded.
/// The step then stops without an effect, and the caller runs it again when the record is there. A step asks for
/// everything of one round before it gives up, so an implementation that notes its misses needs at most four rounds
/// (session; archive and prekeys; archived states; pages), and one or two when it loads what [`super::peek`] names beforehand.
///
/// The effects are called only after all reads and checks, and cannot fail. They belong into one durable batch.
pub trait SignalStore {
    /// "This record is not loaded yet."
    type Miss;

    /// The session with a device.
    ///
    /// # Errors
    /// The record is not loaded.
    fn session(&mut self, address: &Address) -> Result<Option<Session>, Self::Miss>;

    /// The list of the archived states of a device.
    ///
    /// # Errors
    /// The record is not loaded.
    fn archive_index(&mut self, address: &Address) -> Result<Option<ArchiveIndex>, Self::Miss>;

    /// One archived state.
    ///
    /// # Errors
    /// The record is not loaded.
    fn archived_state(&mut self, address: &Address, id: StateId) -> Result<Option<State>, Self::Miss>;

    /// One page of skipped message keys.
    ///
    /// # Errors
    /// The record is not loaded.
    fn skipped_page(&mut self, address: &Address, id: PageId) -> Result<Option<SkippedPage>, Self::Miss>;

    /// The identity last seen of a device.
    ///
    /// # Errors
    /// The record is not loaded.
    fn identity(&mut self, address: &Address) -> Result<Option<PublicKey>, Self::Miss>;

    /// One of our one-time prekeys.
    ///
    /// # Errors
    /// The record is not loaded.
    fn pre_key(&mut self, id: PreKeyId) -> Result<Option<KeyPair>, Self::Miss>;

    /// One of our signed prekeys, also of former ones.
    ///
    /// # Errors
    /// The record is not loaded.
    fn signed_pre_key(&mut self, id: SignedPreKeyId) -> Result<Option<KeyPair>, Self::Miss>;

    /// Writes the session with a device.
    fn put_session(&mut self, address: &Address, session: Session);

    /// Removes the session with a device.
    fn delete_session(&mut self, address: &Address);

    /// Writes the list of the archived states of a device.
    fn put_archive_index(&mut self, address: &Address, index: ArchiveIndex);

    /// Removes the list of the archived states of a device.
    fn delete_archive_index(&mut self, address: &Address);

    /// Writes one archived state under its [`State::id`].
    fn put_archived_state(&mut self, address: &Address, state: State);

    /// Removes one archived state.
    fn delete_archived_state(&mut self, address: &Address, id: StateId);

    /// Writes one page of skipped message keys.
    fn put_skipped_page(&mut self, address: &Address, id: PageId, page: SkippedPage);

    /// Removes one page of skipped message keys.
    fn delete_skipped_page(&mut self, address: &Address, id: PageId);

    /// Remembers the identity of a device.
    fn put_identity(&mut self, address: &Address, identity: PublicKey);

    /// Forgets the identity of a device.
    fn delete_identity(&mut self, address: &Address);

    /// Removes one of our one-time prekeys: a session consumed it.
    fn delete_pre_key(&mut self, id: PreKeyId);
}
