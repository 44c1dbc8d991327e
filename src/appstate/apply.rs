//! Applying snapshots and patches: `(state, entries, patch) → (state', changes of entries, mutations)` (spec 05 §A7.4, §A7.5).
//!
//! Order of the checks of a patch: version, that nobody aborted, MACs and key ids are there, all keys are there, patch MAC,
//! every mutation, duplicate indexes, snapshot MAC. One bad mutation refuses the whole. The snapshot MAC comes last, so that
//! one that does not match says that the states differ, and nothing else.
//!
//! All REMOVEs of a patch count as before all of its SETs. A REMOVE of an index that has no entry subtracts nothing.

use std::collections::{HashMap, HashSet};

use super::{
    AppStateError, CollectionName, CollectionState, IndexMac, KeyId, Keyring, LtHash, Mutation, Operation, Patch,
    Snapshot, Trust, ValueMac, mutation, wire::Record,
};
use crate::crypto::constant_time_eq;

/// The entries of a collection, as far as they are at hand: value MACs by index MACs.
pub trait Entries {
    /// The value MAC of an index; `None` when it has no entry.
    fn value_mac(&self, index: &IndexMac) -> Option<ValueMac>;
}

impl Entries for std::collections::BTreeMap<IndexMac, ValueMac> {
    fn value_mac(&self, index: &IndexMac) -> Option<ValueMac> {
        self.get(index).copied()
    }
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryChange {
    /// It has this value MAC now.
    Put(IndexMac, ValueMac),
    /// It is gone.
    Delete(IndexMac),
}

/// What a patch comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The new state.
    pub state: CollectionState,
    /// What becomes of entries; each index once.
    pub changes: Vec<EntryChange>,
    /// What it says, in its order.
    pub mutations: Vec<Mutation>,
    /// REMOVEs of indexes that had no entry. Harmless; for a log.
    pub missing_removes: usize,
    /// Whether this patch made the state [`Trust::Mismatched`]: worth a diagnostic.
    pub mismatched: bool,
}

/// What a snapshot comes to: it replaces everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedSnapshot {
    /// The new state.
    pub state: CollectionState,
    /// All entries; each index once.
    pub entries: Vec<(IndexMac, ValueMac)>,
    /// What it says, in its order; of an index that it has twice, what stands last.
    pub mutations: Vec<Mutation>,
    /// Records whose index stands there again further on. They count in the hash, as they do for who made the snapshot.
    pub duplicates: usize,
}

/// Applies a snapshot. `local` is the state so far; one that was dropped has version 0.
///
/// The trust of a state that was dropped for a mismatch stays [`Trust::Refetched`], so that a second mismatch is known for
/// one.
///
/// # Errors
/// [`AppStateError`]; nothing is to be changed then. [`AppStateError::Version`] for one that is not newer than the state.
pub fn apply_snapshot(
    collection: CollectionName,
    local: &CollectionState,
    snapshot: &Snapshot<'_>,
    keys: &Keyring,
) -> Result<AppliedSnapshot, AppStateError> {
    let version = snapshot.version;
    if version <= local.version {
        return Err(AppStateError::Version { version, local: local.version });
    }
    let mac = snapshot.mac.ok_or(AppStateError::SnapshotMac)?;
    let own = check_keys(&snapshot.key_ids()?, snapshot.key_id, keys)?;
    let mut lthash = LtHash::new();
    snapshot.records.iter().for_each(|record| lthash.add(record.value_mac));
    if !constant_time_eq(&own.snapshot_mac(collection, version, &lthash), mac) {
        return Err(AppStateError::SnapshotMac);
    }
    let mut mutations = mutation::open_all(&snapshot.records, keys)?;
    let duplicates = drop_repeated(&mut mutations);
    let entries = mutations.iter().map(|mutation| (mutation.index_mac, mutation.value_mac)).collect();
    let trust = if local.trust == Trust::Refetched { Trust::Refetched } else { Trust::Verified };
    Ok(AppliedSnapshot { state: CollectionState { version, lthash, trust }, entries, mutations, duplicates })
}

/// Keeps the last of the mutations of an index, and returns how many it dropped.
pub(super) fn drop_repeated(mutations: &mut Vec<Mutation>) -> usize {
    let mut last = HashMap::with_capacity(mutations.len());
    for (at, mutation) in mutations.iter().enumerate() {
        last.insert(mutation.index_mac, at);
    }
    let before = mutations.len();
    if last.len() < before {
        let mut at = 0..;
        mutations.retain(|mutation| last.get(&mutation.index_mac).copied() == at.next());
    }
    before.saturating_sub(mutations.len())
}

/// Applies a patch to a state. `entries` has those of [`Patch::index_macs`].
///
/// # Errors
/// [`AppStateError`]; nothing is to be changed then.
/// - [`AppStateError::Version`]: not the next version. Below, it is a duplicate and of no interest; above, patches are missing.
/// - [`AppStateError::External`]: the mutations are fetched first, see [`Patch::set_external_mutations`].
/// - [`AppStateError::MissingKeys`]: the collection waits for keys.
/// - [`AppStateError::SnapshotMac`]: the state is not that of the sender, and should be dropped and fetched anew. Comes only
///   while the state is [`Trust::Verified`]; later ones are applied and told.
/// - any other: the patch is unusable.
pub fn apply_patch(
    collection: CollectionName,
    local: &CollectionState,
    patch: &Patch<'_>,
    keys: &Keyring,
    entries: &impl Entries,
) -> Result<Applied, AppStateError> {
    let next = local.version.checked_add(1).ok_or(AppStateError::Malformed("no version is above"))?;
    let version = patch.version.unwrap_or(next);
    if version != next {
        return Err(AppStateError::Version { version, local: local.version });
    }
    if let Some(code) = patch.exit_code {
        return Err(AppStateError::Aborted(code));
    }
    if patch.external.is_some() {
        return Err(AppStateError::External);
    }
    let patch_mac = patch.patch_mac.ok_or(AppStateError::PatchMac)?;
    let snapshot_mac = patch.snapshot_mac.ok_or(AppStateError::PatchMac)?;
    let own = check_keys(&patch.key_ids()?, patch.key_id, keys)?;
    let value_macs = patch.mutations.iter().map(|record| &record.value_mac[..]);
    if !constant_time_eq(&own.patch_mac(collection, version, snapshot_mac, value_macs), patch_mac) {
        return Err(AppStateError::PatchMac);
    }
    let mut mutations = mutation::open_all(&patch.mutations, keys)?;
    let pieces = patch.mutations.iter().map(|record| (record.operation, record.index_mac, record.value_mac));
    let Sum { lthash, changes, missing_removes } = sum(local.lthash, pieces, entries)?;
    let matches = constant_time_eq(&own.snapshot_mac(collection, version, &lthash), snapshot_mac);
    let trust = match (local.trust, matches) {
        (Trust::Mismatched, _) | (Trust::Refetched, false) => Trust::Mismatched,
        (Trust::Verified, false) => return Err(AppStateError::SnapshotMac),
        (Trust::Verified | Trust::Refetched, true) => Trust::Verified,
    };
    mark_superseded(&mut mutations);
    let mismatched = trust == Trust::Mismatched && local.trust != trust;
    Ok(Applied { state: CollectionState { version, lthash, trust }, changes, mutations, missing_removes, mismatched })
}

/// The keys of the whole, when all that are needed are there.
fn check_keys<'a>(
    needed: &[KeyId],
    own: Option<&[u8]>,
    keys: &'a Keyring,
) -> Result<&'a super::MutationKeys, AppStateError> {
    let missing = keys.missing(needed);
    if !missing.is_empty() {
        return Err(AppStateError::MissingKeys(missing));
    }
    keys.get(&KeyId::new(own.unwrap_or_default())?).ok_or(AppStateError::NoKeyId)
}

/// What a patch does to the hash and to the entries.
pub(super) struct Sum {
    pub(super) lthash: LtHash,
    pub(super) changes: Vec<EntryChange>,
    pub(super) missing_removes: usize,
}

/// Adds up a patch by the rule of spec 05 §A7.5, step 6.
pub(super) fn sum<'a>(
    mut lthash: LtHash,
    mutations: impl Iterator<Item = (Operation, &'a IndexMac, &'a ValueMac)> + Clone,
    entries: &impl Entries,
) -> Result<Sum, AppStateError> {
    let (mut set, mut removed) = (HashSet::new(), HashSet::new());
    for (operation, index, _) in mutations.clone() {
        let seen = match operation {
            Operation::Set => &mut set,
            Operation::Remove => &mut removed,
        };
        if !seen.insert(index) {
            return Err(AppStateError::DuplicateIndex);
        }
    }
    let (mut changes, mut missing_removes) = (Vec::new(), 0_usize);
    for (operation, index, value) in mutations {
        let old = entries.value_mac(index);
        match operation {
            Operation::Set => {
                lthash.add(value);
                if let Some(old) = old.filter(|_| !removed.contains(index)) {
                    lthash.subtract(&old);
                }
                changes.push(EntryChange::Put(*index, *value));
            }
            Operation::Remove => {
                match old {
                    Some(old) => lthash.subtract(&old),
                    None => missing_removes = missing_removes.saturating_add(1),
                }
                if !set.contains(index) {
                    changes.push(EntryChange::Delete(*index));
                }
            }
        }
    }
    Ok(Sum { lthash, changes, missing_removes })
}

/// Marks REMOVEs of a plaintext index that a SET of the same patch has, too.
fn mark_superseded(mutations: &mut [Mutation]) {
    if mutations.iter().all(|mutation| mutation.operation == Operation::Set) {
        return;
    }
    let set = mutations.iter().filter(|mutation| mutation.operation == Operation::Set);
    let set: HashSet<bytes::Bytes> = set.map(|mutation| mutation.index.clone()).collect();
    for mutation in mutations.iter_mut().filter(|mutation| mutation.operation == Operation::Remove) {
        mutation.superseded = set.contains(&mutation.index);
    }
}

/// The hash of a snapshot's entries, for who builds one.
pub fn hash_of<'a>(values: impl IntoIterator<Item = &'a ValueMac>) -> LtHash {
    let mut lthash = LtHash::new();
    values.into_iter().for_each(|value| lthash.add(value));
    lthash
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("operation", &self.operation).finish_non_exhaustive()
    }
}
