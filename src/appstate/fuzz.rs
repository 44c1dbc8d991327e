//! One-line entries for fuzz targets. They hold on every input; a panic is a finding.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    AppStateError, Change, CollectionName, CollectionState, EntryChange, IndexMac, KeyId, Keyring, LtHash,
    MutationKeys, Operation, Patch, PatchForm, Snapshot, Trust, ValueMac, apply_patch, apply_snapshot, build_patch,
    external_blob,
    mutation::Sealer,
    pages::{LoadedPages, StoredCollection},
    recovery, wire,
};
use crate::{
    crypto::Secret,
    proto::{Message as _, server_sync},
};

const COLLECTION: CollectionName = CollectionName::RegularLow;
const KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];

type Set = BTreeMap<IndexMac, ValueMac>;

/// Arbitrary bytes as a patch; the first one chooses: as they are, as its mutations under good MACs, as changes to send.
///
/// # Panics
/// When a property does not hold, which is what the fuzzer looks for.
pub fn appstate_patch(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => raw_patch(bytes),
        1 => authentic_patch(bytes),
        _ => changes(bytes),
    }
}

/// Arbitrary bytes as a snapshot; the first one chooses: as they are, as its records under good MACs, as a snapshot of the
/// phone, as stored records.
///
/// # Panics
/// When a property does not hold, which is what the fuzzer looks for.
pub fn appstate_snapshot(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => raw_snapshot(bytes),
        1 => authentic_snapshot(bytes),
        2 | 3 => {
            let Ok(snapshot) = recovery::decode_recovery(bytes, kind % 5 == 3) else { return };
            let Ok(ids) = recovery::recovery_keys(&snapshot) else { return };
            let _ = recovery::apply_recovery(COLLECTION, snapshot, &keyring(ids));
        }
        _ => stored(bytes),
    }
}

fn keys() -> MutationKeys {
    MutationKeys::expand(&Secret::new([7; 32]))
}

/// Whatever the id, there is a key.
fn keyring(ids: impl IntoIterator<Item = KeyId>) -> Keyring {
    ids.into_iter().map(|id| (id, keys())).collect()
}

fn own_id() -> KeyId {
    KeyId::new(&KEY_ID).unwrap_or_else(|_| unreachable!("six bytes"))
}

fn raw_patch(bytes: &[u8]) {
    let _ = external_blob(bytes);
    let Ok(mut patch) = Patch::decode(bytes) else { return };
    // What we take, the reader of the schema takes, too, and finds the same.
    if let Ok(known) = server_sync::SyncdPatch::decode(bytes) {
        assert_eq!(known.mutations.len(), patch.mutations.len(), "mutations");
    }
    let keys = keyring(patch.key_ids().unwrap_or_default());
    let local = CollectionState { version: patch.version().unwrap_or(1).saturating_sub(1), ..Default::default() };
    let refused = apply_patch(COLLECTION, &local, &patch, &keys, &Set::new());
    assert!(refused.is_err(), "a patch without our keys");
    if patch.set_external_mutations(bytes).is_ok() {
        assert!(apply_patch(COLLECTION, &local, &patch, &keys, &Set::new()).is_err());
    }
}

/// Splits off pieces: a byte that says how, a length of 8 bits and so many bytes.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([how, len], rest) = bytes.split_first_chunk()?;
        let (piece, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        bytes = rest;
        Some((*how, piece))
    })
    .take(64)
}

/// Plaintexts that nobody honest would seal, in a patch that is otherwise perfect.
fn authentic_patch(bytes: &[u8]) {
    let (id, keys, mut rng) = (own_id(), keys(), ChaCha20Rng::from_seed([7; 32]));
    let sealer = Sealer::new(&id, &keys);
    let (mut patch, mut value_macs, mut lthash) = (Vec::new(), Vec::new(), LtHash::new());
    for (how, plaintext) in pieces(bytes) {
        let operation = if how & 1 == 1 { Operation::Remove } else { Operation::Set };
        let sealed = sealer.seal_plaintext(operation, index_mac_of(&keys, how, plaintext), plaintext, &mut rng);
        wire::put_bytes(&mut patch, 2, &sealed.bytes);
        value_macs.push(sealed.value_mac);
        if operation == Operation::Set {
            lthash.add(&sealed.value_mac);
        }
    }
    let snapshot_mac = keys.snapshot_mac(COLLECTION, 1, &lthash);
    let patch_mac = keys.patch_mac(COLLECTION, 1, &snapshot_mac, value_macs.iter().map(|mac| &mac[..]));
    wire::put_bytes(&mut patch, 4, &snapshot_mac);
    wire::put_bytes(&mut patch, 5, &patch_mac);
    wire::put_bytes(&mut patch, 6, &wire::nested(id.as_bytes()));
    let Ok(patch) = Patch::decode(&patch) else { return };
    let applied = apply_patch(COLLECTION, &CollectionState::default(), &patch, &keyring([id]), &Set::new());
    match applied {
        Ok(applied) => {
            assert_eq!((applied.state.version, applied.state.lthash), (1, lthash));
            check_mutations(&applied.mutations);
        }
        Err(error) => {
            let expected = [AppStateError::IndexMac, AppStateError::DuplicateIndex];
            assert!(expected.contains(&error) || matches!(error, AppStateError::Malformed(_)), "{error}");
        }
    }
}

/// The MAC of the index that a plaintext has, mostly.
fn index_mac_of(keys: &MutationKeys, how: u8, plaintext: &[u8]) -> IndexMac {
    let index = wire::ActionData::decode(plaintext).map_or(&[][..], |action| action.index);
    let mut mac = keys.index_mac(index);
    if how & 0xf0 == 0xf0
        && let Some(first) = mac.first_mut()
    {
        *first ^= 1;
    }
    mac
}

fn check_mutations(mutations: &[super::Mutation]) {
    for mutation in mutations {
        let action = mutation.action();
        let _ = mutation.timestamp();
        assert!(!format!("{mutation:?} {action:?}").contains('@'), "nothing of it is printed");
        // What is known is written as something that is read as the same.
        if let (Some(index), Some(value)) = (action.index(), action.value(1)) {
            let again = super::Action::parse(Operation::Set, index.as_bytes(), &value.encode_to_vec());
            // A float may be no number, which is not equal to itself.
            assert_eq!(again.schema(), action.schema());
        }
    }
}

fn raw_snapshot(bytes: &[u8]) {
    let Ok(snapshot) = Snapshot::decode(bytes) else { return };
    if let Ok(known) = server_sync::SyncdSnapshot::decode(bytes) {
        assert_eq!(known.records.len(), snapshot.len(), "records");
    }
    let keys = keyring(snapshot.key_ids().unwrap_or_default());
    let refused = apply_snapshot(COLLECTION, &CollectionState::default(), &snapshot, &keys);
    assert!(refused.is_err(), "a snapshot without our keys");
}

fn authentic_snapshot(bytes: &[u8]) {
    let (id, keys, mut rng) = (own_id(), keys(), ChaCha20Rng::from_seed([7; 32]));
    let sealer = Sealer::new(&id, &keys);
    let (mut snapshot, mut lthash, mut count) = (vec![0x0a, 2, 8, 1], LtHash::new(), 0);
    for (how, plaintext) in pieces(bytes) {
        let index = index_mac_of(&keys, how, plaintext);
        let sealed = sealer.seal_plaintext(Operation::Set, index, plaintext, &mut rng);
        wire::put_bytes(&mut snapshot, 2, sealed.record());
        lthash.add(&sealed.value_mac);
        count = usize::saturating_add(count, 1);
    }
    wire::put_bytes(&mut snapshot, 3, &keys.snapshot_mac(COLLECTION, 1, &lthash));
    wire::put_bytes(&mut snapshot, 4, &wire::nested(id.as_bytes()));
    let Ok(snapshot) = Snapshot::decode(&snapshot) else { return };
    let Ok(applied) = apply_snapshot(COLLECTION, &CollectionState::default(), &snapshot, &keyring([id])) else {
        return;
    };
    assert_eq!(applied.state.lthash, lthash);
    assert_eq!(applied.entries.len().saturating_add(applied.duplicates), count);
    let distinct: Set = applied.entries.iter().copied().collect();
    assert_eq!(distinct.len(), applied.entries.len(), "each index once");
    check_mutations(&applied.mutations);
}

/// Changes to a few indexes, several patches in a row: what is built is what is read.
fn changes(bytes: &[u8]) {
    let (id, mut rng) = (own_id(), ChaCha20Rng::from_seed([7; 32]));
    let keys: Keyring = [(id, keys())].into_iter().collect();
    let (mut state, mut set) = (CollectionState::default(), Set::new());
    for (how, value) in pieces(bytes) {
        let change = |index: u8| Change {
            operation: if how & 0x80 == 0 { Operation::Set } else { Operation::Remove },
            index: format!("[\"x\",\"{}\"]", index & 7).into_bytes(),
            value: value.to_vec(),
            version: i32::from(how),
        };
        let changes = [change(how), change(how >> 3)];
        let built = build_patch(COLLECTION, &state, &changes, &keys, &set, &mut rng);
        let Ok(built) = built else { continue };
        let PatchForm::Inline(patch) = &built.form else { unreachable!("two small changes") };
        let Ok(patch) = Patch::decode(patch) else { unreachable!("we wrote it") };
        let Ok(applied) = apply_patch(COLLECTION, &state, &patch, &keys, &set) else { unreachable!("we wrote it") };
        assert_eq!((&applied.state, &applied.changes), (&built.state, &built.changes));
        assert!(applied.mutations.iter().all(|mutation| mutation.value == value), "values are as they were");
        for change in applied.changes {
            match change {
                EntryChange::Put(index, value) => drop(set.insert(index, value)),
                EntryChange::Delete(index) => drop(set.remove(&index)),
            }
        }
        state = applied.state;
        assert_eq!(state.lthash, super::apply::hash_of(set.values()));
        assert_eq!(state.trust, Trust::Verified);
    }
}

fn stored(bytes: &[u8]) {
    if let Ok(collection) = StoredCollection::decode(bytes) {
        assert_eq!(collection.encode(), bytes);
        let mut pages = LoadedPages::new(collection.layout);
        let _ = pages.load(0, Some(bytes));
        let index = [9; 32];
        assert!(collection.layout.pages_of([&index]).len() <= 2);
    }
    let mut pages = LoadedPages::new(Default::default());
    if pages.load(0, Some(bytes)).is_ok() {
        let _ = pages.apply(&[EntryChange::Put([1; 32], [2; 32]), EntryChange::Delete([3; 32])]);
    }
    if let Ok(change) = Change::decode(bytes) {
        assert_eq!(change.encode(), bytes);
    }
    let _ = MutationKeys::from_record(bytes);
}
