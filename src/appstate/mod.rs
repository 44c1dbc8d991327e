//! App state: settings that the devices of an account keep alike (mutes, pins, contacts, labels …), as five collections, each
//! a log of encrypted patches over a set of entries (spec 05, part A).
//!
//! ```text
//! snapshot ─► Snapshot::decode ─► key_ids() ─► apply_snapshot(state, keys)           ─┐
//! patch    ─► Patch::decode ─► external()? ─► key_ids(), index_macs()                 ├─► state', entries', mutations
//!                              └► apply_patch(state, keys, entries)                  ─┘          │
//! changes  ─► index_macs() ─► build_patch(state, keys, entries) ─► Inline | External             ▼
//!                                                                                      Mutation::action() ─► event
//! ```
//!
//! Everything is a value: nothing is fetched, stored or sent here. What is missing is an answer of its type: keys by their ids
//! ([`AppStateError::MissingKeys`]), a file by its reference ([`Patch::external`]), entries by their indexes. What to do then
//! is decided by [`Ladder`], which carries out nothing either.
//!
//! | file | what |
//! |---|---|
//! | [`keys`] | ids of keys, what the phone shares, and the five keys that each expands to |
//! | [`lthash`] | the hash of a set |
//! | [`collection`] | the five collections, and the state of one |
//! | `wire` | patches and snapshots as they were received |
//! | `mutation` | one mutation, sealed and opened |
//! | [`apply`] | snapshots and patches applied |
//! | [`encode`] | patches for sending |
//! | [`index`], [`action`], `build` | what mutations say |
//! | [`pages`] | entries in records |
//! | [`recovery`] | a snapshot of the phone |
//! | [`ladder`] | what happens next |
//!
//! # Records
//!
//! | kind (proposed number) | id | bytes |
//! |---|---|---|
//! | `AppStateKey` (16, exists) | key id | encoded `AppStateSyncKeyData` |
//! | `AppStateCollection` (28) | [`CollectionName::number`], u8 | [`pages::StoredCollection::encode`], 150 bytes |
//! | `AppStatePage` (29) | the number of the collection, u8, and of the page, u32 big-endian | see [`pages`], some 2 KB |
//! | `AppStateChange` (30) | the number of the collection, u8, and a serial, u64 big-endian | [`Change::encode`]: a change that waits to be sent |
//!
//! A patch with one mutation reads and writes one page and the record of the collection. The values themselves are not kept:
//! they are events, and what the engine needs of them (push name, salts, LIDs) has records of its own.
//!
//! Limits: [`MAX_LEN`] bytes of a patch or a snapshot; memory is a small multiple of that, as a record is taken only when it is
//! complete. Nothing here recurses over what was received.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod action;
pub mod apply;
mod build;
pub mod collection;
pub mod encode;
mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod index;
pub mod keys;
pub mod ladder;
pub mod lthash;
mod mutation;
pub mod pages;
pub mod recovery;
mod wire;

pub use action::Action;
pub use apply::{Applied, AppliedSnapshot, Entries, EntryChange, apply_patch, apply_snapshot};
pub use build::{LastMessage, Mute};
pub use collection::{CollectionName, CollectionState, Trust};
pub use encode::{Change, ExternalPatch, Outgoing, PatchForm, build_patch};
pub use error::AppStateError;
pub use index::MessageRef;
pub use keys::{KeyId, Keyring, MutationKeys};
pub use ladder::Ladder;
pub use lthash::LtHash;
pub use mutation::{Mutation, Operation};
pub use wire::{MAX_LEN, Patch, Snapshot, external_blob};

/// The MAC of an index: the name of an entry.
pub type IndexMac = [u8; 32];
/// The MAC of a value: what an entry is.
pub type ValueMac = [u8; 32];
