//! Keys of the records that belong to other devices and to their sender keys, and of our prekeys.

use crate::{
    signal::{
        Address, PageId, StateId,
        sender_key::{SenderKeyName, SenderKeyPageId},
    },
    store::{Key, RecordKind},
};

pub(crate) fn session(address: &Address) -> Key {
    Key::new(RecordKind::Session, address.as_str())
}

pub(crate) fn identity(address: &Address) -> Key {
    Key::new(RecordKind::Identity, address.as_str())
}

pub(crate) fn archive_index(address: &Address) -> Key {
    Key::new(RecordKind::ArchiveIndex, address.as_str())
}

pub(crate) fn archived_state(address: &Address, id: StateId) -> Key {
    Key::joined(RecordKind::ArchivedState, &[address.as_str().as_bytes(), &id.0.to_be_bytes()])
}

pub(crate) fn skipped_page(address: &Address, id: PageId) -> Key {
    let mut page = [0; 12];
    for (out, byte) in page.iter_mut().zip([id.state.0, id.chain, id.page].iter().flat_map(|n| n.to_be_bytes())) {
        *out = byte;
    }
    Key::joined(RecordKind::SkippedPage, &[address.as_str().as_bytes(), &page])
}

fn sender_key_name(kind: RecordKind, name: &SenderKeyName) -> Key {
    Key::joined(kind, &[name.group().as_bytes(), name.sender().as_str().as_bytes()])
}

/// Our own sender key for a chat.
pub(crate) fn own_sender_key(name: &SenderKeyName) -> Key {
    sender_key_name(RecordKind::OwnSenderKey, name)
}

/// The sender keys of another device in a chat.
pub(crate) fn sender_key(name: &SenderKeyName) -> Key {
    sender_key_name(RecordKind::SenderKey, name)
}

/// In which chats there are sender keys of a device.
pub(crate) fn sender_key_chats(address: &Address) -> Key {
    Key::new(RecordKind::SenderKeyChats, address.as_str())
}

/// A page of skipped message keys of a sender key.
pub(crate) fn sender_key_page(name: &SenderKeyName, id: SenderKeyPageId) -> Key {
    let (group, sender) = (name.group().as_bytes(), name.sender().as_str().as_bytes());
    let (serial, page) = (id.serial.0.to_be_bytes(), id.page.to_be_bytes());
    Key::joined(RecordKind::SenderKeyPage, &[group, sender, &[serial, page].concat()])
}

pub(crate) fn pre_key(id: u32) -> Key {
    Key::new(RecordKind::PreKey, id.to_be_bytes())
}

pub(crate) fn signed_pre_key(id: u32) -> Key {
    Key::new(RecordKind::SignedPreKey, id.to_be_bytes())
}
