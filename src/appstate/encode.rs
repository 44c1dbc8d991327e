//! Outgoing patches (spec 05 §A7.7).
//!
//! ```text
//! changes ── index_macs() ──► entries to load ── build_patch() ──► Outgoing { form, state', changes of entries }
//!                                                                      │
//!                          Inline: the patch itself       External: what is uploaded first, then finish(reference)
//! ```
//!
//! On a conflict the patches that came with the answer are applied, and a new patch is built from the same changes and the new
//! state: nothing of an old one is used again.
//!
//! An entry that was made with an older key stands under another index MAC. What is written replaces it: a SET comes with the
//! REMOVE of the old one in the same patch, which readers know as the turn to a newer key.

use bytes::Bytes;

use super::{
    Action, AppStateError, CollectionName, CollectionState, Entries, EntryChange, IndexMac, Keyring, LtHash,
    MutationKeys, Operation, ValueMac,
    apply::{self, Sum},
    mutation::{Sealed, Sealer},
    wire,
};
use crate::{
    crypto::{HmacSha256, Rng},
    proto::{Message as _, server_sync::ExternalBlobReference},
};

/// Most mutations of a patch that are inside of it (spec 05 §A7.7).
pub const MAX_INLINE_MUTATIONS: usize = 100;
/// Most bytes of a patch that has them inside.
pub const MAX_INLINE_LEN: usize = 10_000;
/// Most changes of one patch.
pub const MAX_CHANGES: usize = 10_000;

/// The first byte of the record of a change.
const CHANGE_VERSION: u8 = 1;

/// A change to be sent, in the form in which it is sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// Whether it sets or removes.
    pub operation: Operation,
    /// The index, JSON.
    pub index: Vec<u8>,
    /// The encoded `SyncActionValue`.
    pub value: Vec<u8>,
    /// The schema version.
    pub version: i32,
}

impl Change {
    /// Sets what `action` says. `None` for an action that is not sent: of an unknown schema version (spec 05 §A8).
    pub fn set(action: &Action, timestamp_ms: i64) -> Option<Self> {
        Self::new(Operation::Set, action, timestamp_ms)
    }

    /// Removes the index of `action`.
    pub fn remove(action: &Action, timestamp_ms: i64) -> Option<Self> {
        Self::new(Operation::Remove, action, timestamp_ms)
    }

    /// Its record: 01, 1 for a REMOVE, schema version (i32), length of the index (u32), index, value; big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let head = [CHANGE_VERSION, u8::from(self.operation == Operation::Remove)];
        let len = u32::try_from(self.index.len()).unwrap_or(u32::MAX);
        [&head[..], &self.version.to_be_bytes(), &len.to_be_bytes(), &self.index, &self.value].concat()
    }

    /// Reads its record.
    ///
    /// # Errors
    /// [`AppStateError::Record`] when it is damaged.
    pub fn decode(record: &[u8]) -> Result<Self, AppStateError> {
        let damaged = || AppStateError::Record { what: "change", reason: "it is cut off or of an unknown version" };
        let Some(([CHANGE_VERSION, removes @ 0..=1], rest)) = record.split_first_chunk() else {
            return Err(damaged());
        };
        let (version, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (len, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| damaged())?;
        let (index, value) = rest.split_at_checked(len).ok_or_else(damaged)?;
        Ok(Self {
            operation: if *removes == 1 { Operation::Remove } else { Operation::Set },
            index: index.to_vec(),
            value: value.to_vec(),
            version: i32::from_be_bytes(*version),
        })
    }

    fn new(operation: Operation, action: &Action, timestamp_ms: i64) -> Option<Self> {
        let version = action.schema()?.version?;
        Some(Self {
            operation,
            index: action.index()?.into_bytes(),
            value: action.value(timestamp_ms)?.encode_to_vec(),
            version,
        })
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change")
            .field("operation", &self.operation)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A patch that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What is sent.
    pub form: PatchForm,
    /// The state behind it, if the server takes it.
    pub state: CollectionState,
    /// What becomes of entries then.
    pub changes: Vec<EntryChange>,
}

/// How the mutations of a patch travel.
#[derive(Clone, PartialEq, Eq)]
pub enum PatchForm {
    /// The whole patch: content of `<patch>`.
    Inline(Vec<u8>),
    /// They are too many: uploaded as `md-app-state` first.
    External(ExternalPatch),
}

impl std::fmt::Debug for PatchForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inline(_) => "Inline",
            Self::External(_) => "External",
        })
    }
}

/// A patch whose mutations are uploaded first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPatch {
    /// The plaintext of the file: a `SyncdMutations`.
    pub mutations: Bytes,
    tail: Vec<u8>,
}

impl ExternalPatch {
    /// The patch, with where the file is.
    pub fn finish(&self, uploaded: &ExternalBlobReference) -> Vec<u8> {
        let mut patch = Vec::new();
        wire::put_bytes(&mut patch, 3, &uploaded.encode_to_vec());
        patch.extend_from_slice(&self.tail);
        patch
    }
}

/// The indexes whose entries are needed to build a patch: of every change, under every key.
pub fn index_macs(changes: &[Change], keys: &Keyring) -> Vec<IndexMac> {
    let states: Vec<HmacSha256> = keys.iter().map(|(_, keys)| HmacSha256::new(keys.index.expose())).collect();
    changes.iter().flat_map(|change| states.iter().map(|key| key.mac(&[&change.index]))).collect()
}

/// Builds a patch on top of `local`, under the newest key. `entries` has those of [`index_macs`].
///
/// Of several changes of one index the last one counts. A REMOVE of what has no entry is left out, as nothing is there to be
/// removed.
///
/// # Errors
/// [`AppStateError::Unsendable`] when nothing is left to send, there are more than [`MAX_CHANGES`], or no key to send with.
pub fn build_patch(
    collection: CollectionName,
    local: &CollectionState,
    changes: &[Change],
    keys: &Keyring,
    entries: &impl Entries,
    rng: &mut impl Rng,
) -> Result<Outgoing, AppStateError> {
    if changes.len() > MAX_CHANGES {
        return Err(AppStateError::Unsendable("too many changes for one patch"));
    }
    let (id, own) = keys.newest().ok_or(AppStateError::Unsendable("there is no key to send with"))?;
    let version = local.version.checked_add(1).ok_or(AppStateError::Unsendable("no version is above"))?;
    let sealers: Vec<Sealer<'_>> =
        keys.iter().filter(|(other, _)| *other != id).map(|(id, keys)| Sealer::new(id, keys)).collect();
    let newest = Sealer::new(id, own);
    let mut sealed: Vec<(Operation, Sealed)> = Vec::with_capacity(changes.len());
    for change in last_of_each_index(changes) {
        if change.operation == Operation::Set {
            sealed.push((Operation::Set, newest.seal(Operation::Set, change, rng)));
        }
        let with_entry = |sealer: &&Sealer<'_>| entries.value_mac(&sealer.index_mac(&change.index)).is_some();
        let removed = sealers.iter().filter(with_entry);
        sealed.extend(removed.map(|sealer| (Operation::Remove, sealer.seal(Operation::Remove, change, rng))));
        if change.operation == Operation::Remove && with_entry(&&newest) {
            sealed.push((Operation::Remove, newest.seal(Operation::Remove, change, rng)));
        }
    }
    if sealed.is_empty() {
        return Err(AppStateError::Unsendable("nothing to change"));
    }
    let pieces = sealed.iter().map(|(operation, sealed)| (*operation, &sealed.index_mac, &sealed.value_mac));
    let Sum { lthash, changes, .. } = apply::sum(local.lthash, pieces, entries)?;
    let snapshot_mac = own.snapshot_mac(collection, version, &lthash);
    let value_macs = sealed.iter().map(|(_, sealed)| &sealed.value_mac[..]);
    let patch_mac = own.patch_mac(collection, version, &snapshot_mac, value_macs);
    let mut tail = Vec::with_capacity(100);
    wire::put_bytes(&mut tail, 4, &snapshot_mac);
    wire::put_bytes(&mut tail, 5, &patch_mac);
    wire::put_bytes(&mut tail, 6, &wire::nested(id.as_bytes()));
    let form = form(&sealed, tail);
    Ok(Outgoing { form, state: CollectionState { version, lthash, trust: local.trust }, changes })
}

fn form(sealed: &[(Operation, Sealed)], tail: Vec<u8>) -> PatchForm {
    let field = |number| {
        let len =
            sealed.iter().fold(tail.len(), |sum, (_, sealed)| sum.saturating_add(sealed.bytes.len()).saturating_add(4));
        let mut out = Vec::with_capacity(len);
        sealed.iter().for_each(|(_, sealed)| wire::put_bytes(&mut out, number, &sealed.bytes));
        out
    };
    let mut patch = field(2);
    patch.extend_from_slice(&tail);
    if sealed.len() <= MAX_INLINE_MUTATIONS && patch.len() <= MAX_INLINE_LEN {
        return PatchForm::Inline(patch);
    }
    PatchForm::External(ExternalPatch { mutations: field(1).into(), tail })
}

/// The changes in their order, without those that a later one of the same index undoes.
fn last_of_each_index(changes: &[Change]) -> impl Iterator<Item = &Change> {
    let last: std::collections::HashMap<&[u8], usize> =
        changes.iter().enumerate().map(|(at, change)| (&change.index[..], at)).collect();
    changes
        .iter()
        .enumerate()
        .filter(move |(at, change)| last.get(&change.index[..]) == Some(at))
        .map(|(_, change)| change)
}

/// A snapshot as the primary would write it: every change set under one key, and the MAC over all. For simulated phones and
/// tests; a companion never sends one.
pub fn build_snapshot(
    collection: CollectionName,
    version: u64,
    changes: &[Change],
    (id, keys): (&super::KeyId, &MutationKeys),
    rng: &mut impl Rng,
) -> (Vec<u8>, Vec<(IndexMac, ValueMac)>) {
    let (sealer, mut lthash) = (Sealer::new(id, keys), LtHash::new());
    let (mut snapshot, mut entries) = (Vec::new(), Vec::new());
    let mut number = Vec::new();
    wire::put_number(&mut number, 1, version);
    wire::put_bytes(&mut snapshot, 1, &number);
    for change in last_of_each_index(changes) {
        let sealed = sealer.seal(Operation::Set, change, rng);
        lthash.add(&sealed.value_mac);
        wire::put_bytes(&mut snapshot, 2, sealed.record());
        entries.push((sealed.index_mac, sealed.value_mac));
    }
    wire::put_bytes(&mut snapshot, 3, &keys.snapshot_mac(collection, version, &lthash));
    wire::put_bytes(&mut snapshot, 4, &wire::nested(id.as_bytes()));
    (snapshot, entries)
}
