//! The edge to storage, in the words of this layer.

use super::{OwnSenderKey, SenderKeyName, SenderKeyPageId, SenderKeyRecord};
use crate::signal::SkippedPage;

/// The records that a step reads and writes.
///
/// As with [`SignalStore`](crate::signal::SignalStore): `Ok(None)` says that a record does not exist, `Err` that it is not
/// loaded. The step then stops without an effect, and the caller runs it again when the record is there. A step asks for
/// everything of one round before it gives up.
///
/// The effects are called only after all reads and checks, and cannot fail. They belong into one durable batch.
pub trait SenderKeyStore {
    /// "This record is not loaded yet."
    type Miss;

    /// Our own key for a group.
    ///
    /// # Errors
    /// The record is not loaded.
    fn own_sender_key(&mut self, name: &SenderKeyName) -> Result<Option<OwnSenderKey>, Self::Miss>;

    /// The keys of another device in a group.
    ///
    /// # Errors
    /// The record is not loaded.
    fn sender_key(&mut self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>, Self::Miss>;

    /// One page of skipped message keys.
    ///
    /// # Errors
    /// The record is not loaded.
    fn sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId)
    -> Result<Option<SkippedPage>, Self::Miss>;

    /// Writes our own key for a group.
    fn put_own_sender_key(&mut self, name: &SenderKeyName, key: OwnSenderKey);

    /// Removes our own key for a group.
    fn delete_own_sender_key(&mut self, name: &SenderKeyName);

    /// Writes the keys of another device in a group.
    fn put_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord);

    /// Removes the keys of another device in a group.
    fn delete_sender_key(&mut self, name: &SenderKeyName);

    /// Writes one page of skipped message keys.
    fn put_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId, page: SkippedPage);

    /// Removes one page of skipped message keys.
    fn delete_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId);
}
