//! The snapshot that the phone sends when nothing else helps (spec 05 §A7.8). Its records are plaintext, and what protects it
//! is that it came from our own phone, end to end.

use std::io::Read as _;

use bytes::Bytes;

use super::{
    AppStateError, CollectionName, CollectionState, KeyId, Keyring, LtHash, Mutation, Operation, Trust,
    apply::{AppliedSnapshot, drop_repeated, hash_of},
    index::Index,
    wire::MAX_LEN,
};
use crate::proto::{Message as _, syncd_recovery::SyncdSnapshotRecovery};

/// Most times that an inflated snapshot is larger than what was received, beyond a mebibyte.
const MAX_RATIO: usize = 64;

/// Reads the content of an answer of the phone.
///
/// # Errors
/// [`AppStateError::Malformed`] when it cannot be read, [`AppStateError::TooLarge`] when it is more than
/// [`MAX_LEN`](super::MAX_LEN) or than 64 times what was received.
pub fn decode_recovery(bytes: &[u8], is_compressed: bool) -> Result<SyncdSnapshotRecovery, AppStateError> {
    let max = bytes.len().saturating_mul(MAX_RATIO).saturating_add(1 << 20).min(MAX_LEN);
    let mut plain = Vec::new();
    let read = if is_compressed {
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        flate2::read::GzDecoder::new(bytes).take(limit).read_to_end(&mut plain)
    } else {
        plain.extend_from_slice(bytes.get(..max.saturating_add(1)).unwrap_or(bytes));
        Ok(plain.len())
    };
    read.map_err(|_| AppStateError::Malformed("recovery snapshot cannot be inflated"))?;
    if plain.len() > max {
        return Err(AppStateError::TooLarge { len: plain.len(), max });
    }
    SyncdSnapshotRecovery::decode(Bytes::from(plain)).map_err(|_| AppStateError::Malformed("recovery snapshot"))
}

/// The keys that it needs, each once.
///
/// # Errors
/// [`AppStateError::NoKeyId`] when a record has no usable one.
pub fn recovery_keys(snapshot: &SyncdSnapshotRecovery) -> Result<Vec<KeyId>, AppStateError> {
    let ids = snapshot.mutation_records.iter().map(|record| KeyId::new(record.key_id.as_deref().unwrap_or_default()));
    let mut ids = ids.collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Applies it: all old state of the collection is dropped for it.
///
/// # Errors
/// [`AppStateError`]: it is of another collection, incomplete, needs keys that are not there, or its hash is not that of its
/// records. Nothing is to be changed then.
pub fn apply_recovery(
    collection: CollectionName,
    snapshot: SyncdSnapshotRecovery,
    keys: &Keyring,
) -> Result<AppliedSnapshot, AppStateError> {
    if snapshot.collection_name.as_deref() != Some(collection.as_str()) {
        return Err(AppStateError::Malformed("recovery snapshot of another collection"));
    }
    let version = snapshot.version.as_ref().and_then(|version| version.version).unwrap_or_default();
    let missing = keys.missing(&recovery_keys(&snapshot)?);
    if !missing.is_empty() {
        return Err(AppStateError::MissingKeys(missing));
    }
    let lthash = snapshot.collection_lthash.as_deref().and_then(|hash| hash.try_into().ok());
    let lthash = LtHash::from_bytes(lthash.ok_or(AppStateError::LtHash)?);
    let mut mutations = Vec::with_capacity(snapshot.mutation_records.len());
    for record in snapshot.mutation_records {
        let key_id = KeyId::new(record.key_id.as_deref().unwrap_or_default())?;
        let keys = keys.get(&key_id).ok_or(AppStateError::NoKeyId)?;
        let mac = record.mac.as_deref().and_then(|mac| mac.try_into().ok());
        let value_mac = mac.ok_or(AppStateError::ValueMac)?;
        let action = record.value.ok_or(AppStateError::Malformed("record without an action"))?;
        let index = action.index.ok_or(AppStateError::Malformed("action without an index"))?;
        if !Index::is_well_formed(&index) {
            return Err(AppStateError::Malformed("index is no array of texts"));
        }
        mutations.push(Mutation {
            operation: Operation::Set,
            index_mac: keys.index_mac(&index),
            index,
            value: action.value.map(|value| value.encode_to_vec().into()).unwrap_or_default(),
            version: action.version.unwrap_or_default(),
            key_id,
            value_mac,
            superseded: false,
        });
    }
    if hash_of(mutations.iter().map(|mutation| &mutation.value_mac)) != lthash {
        return Err(AppStateError::LtHash);
    }
    let duplicates = drop_repeated(&mut mutations);
    let entries = mutations.iter().map(|mutation| (mutation.index_mac, mutation.value_mac)).collect();
    let state = CollectionState { version, lthash, trust: Trust::Verified };
    Ok(AppliedSnapshot { state, entries, mutations, duplicates })
}
