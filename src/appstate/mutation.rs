//! One mutation, sealed and opened (spec 05 §A3).
//!
//! ```text
//! index MAC   HMAC-SHA256( index key, index )
//! value MAC   HMAC-SHA512( value MAC key, operation 01/02 || key id || IV || ciphertext || L )[0..32]
//!             L = 8 bytes, 1 + length of the key id in the last
//! ciphertext  AES-256-CBC( value key, IV, action data )
//! ```

use std::fmt;

use bytes::Bytes;

use super::{
    Action, AppStateError, Change, IndexMac, KeyId, Keyring, MutationKeys, ValueMac,
    index::Index,
    keys::Prepared,
    wire::{self, ActionData, Record},
};
use crate::{
    crypto::{Rng, aes256_cbc_append, constant_time_eq},
    proto::{Message as _, sync_action::SyncActionValue},
};

/// What a mutation does with its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Gives it a value.
    Set,
    /// Takes it out.
    Remove,
}

impl Operation {
    /// The byte that the value MAC covers.
    const fn mac_byte(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Remove => 2,
        }
    }
}

/// A mutation that was verified and decrypted. Its bytes share a buffer with the others of its patch or snapshot.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mutation {
    /// What it does.
    pub operation: Operation,
    /// The index as it stood there: a JSON array of texts.
    pub index: Bytes,
    /// The encoded `SyncActionValue` as it stood there; may be empty.
    pub value: Bytes,
    /// The schema version of the value.
    pub version: i32,
    /// The key that it was made with.
    pub key_id: KeyId,
    /// The MAC of the index under that key.
    pub index_mac: IndexMac,
    /// The MAC of the value.
    pub value_mac: ValueMac,
    /// A REMOVE of an index that the same patch sets: an entry was encrypted anew with a newer key. It is bookkeeping, and
    /// tells nothing (spec 05 §A7.5).
    pub superseded: bool,
}

impl Mutation {
    /// The action of it. [`Action::Unknown`] for what this version does not know, and for what does not fit its index.
    pub fn action(&self) -> Action {
        Action::parse(self.operation, &self.index, &self.value)
    }

    /// When it was made, in milliseconds since the Unix epoch; `None` when the value does not say.
    pub fn timestamp(&self) -> Option<i64> {
        SyncActionValue::decode(&*self.value).ok()?.timestamp
    }
}

impl fmt::Debug for Mutation {
    /// Without index and value: they hold phone numbers and names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutation")
            .field("operation", &self.operation)
            .field("version", &self.version)
            .field("key_id", &self.key_id)
            .field("superseded", &self.superseded)
            .finish_non_exhaustive()
    }
}

/// Verifies and decrypts records into one buffer, in their order. All keys are there.
pub(super) fn open_all(records: &[Record<'_>], keys: &Keyring) -> Result<Vec<Mutation>, AppStateError> {
    let total = records.iter().fold(0_usize, |sum, record| sum.saturating_add(record.ciphertext.len()));
    let (mut plaintexts, mut ends) = (Vec::with_capacity(total), Vec::with_capacity(records.len()));
    for_each_with_keys(records, keys, |record, _, keys| {
        decrypt(record, keys, &mut plaintexts)?;
        ends.push(plaintexts.len());
        Ok(())
    })?;
    let (plaintexts, mut ends, mut start) = (Bytes::from(plaintexts), ends.into_iter(), 0);
    let mut mutations = Vec::with_capacity(records.len());
    for_each_with_keys(records, keys, |record, key_id, keys| {
        let end = ends.next().unwrap_or(start);
        let action = ActionData::decode(plaintexts.get(start..end).unwrap_or_default())?;
        start = end;
        if !constant_time_eq(&keys.index.mac(&[action.index]), record.index_mac) {
            return Err(AppStateError::IndexMac);
        }
        if !Index::is_well_formed(action.index) {
            return Err(AppStateError::Malformed("index is no array of texts"));
        }
        mutations.push(Mutation {
            operation: record.operation,
            index: plaintexts.slice_ref(action.index),
            value: plaintexts.slice_ref(action.value),
            version: action.version,
            key_id: key_id.clone(),
            index_mac: *record.index_mac,
            value_mac: *record.value_mac,
            superseded: false,
        });
        Ok(())
    })?;
    Ok(mutations)
}

/// Runs `work` on each record with the states of its key, which neighbours nearly always share.
fn for_each_with_keys(
    records: &[Record<'_>],
    keys: &Keyring,
    mut work: impl FnMut(&Record<'_>, &KeyId, &Prepared) -> Result<(), AppStateError>,
) -> Result<(), AppStateError> {
    for run in records.chunk_by(|a, b| a.key_id == b.key_id) {
        let Some(first) = run.first() else { continue };
        let id = KeyId::new(first.key_id)?;
        let states = keys.get(&id).map(Prepared::new);
        let states = states.ok_or_else(|| AppStateError::MissingKeys(vec![id.clone()]))?;
        run.iter().try_for_each(|record| work(record, &id, &states))?;
    }
    Ok(())
}

/// Verifies the value of a record and appends its plaintext.
fn decrypt(record: &Record<'_>, keys: &Prepared, out: &mut Vec<u8>) -> Result<(), AppStateError> {
    let expected = value_mac(keys, record.operation, record.key_id, record.iv, record.ciphertext);
    if !constant_time_eq(&expected, record.value_mac) {
        return Err(AppStateError::ValueMac);
    }
    let start = out.len();
    out.extend_from_slice(record.ciphertext);
    let buffer = out.get_mut(start..).unwrap_or_default();
    let len = keys.cipher.decrypt(record.iv, buffer).map_err(|_| AppStateError::Decrypt)?;
    out.truncate(start.saturating_add(len));
    Ok(())
}

fn value_mac(
    keys: &Prepared,
    operation: Operation,
    key_id: &[u8],
    iv: &[u8; wire::IV_LEN],
    ciphertext: &[u8],
) -> ValueMac {
    let mut length = [0; 8];
    if let Some(last) = length.last_mut() {
        *last = (key_id.len() as u8).wrapping_add(1);
    }
    let mac = keys.value_mac.mac(&[&[operation.mac_byte()], key_id, iv, ciphertext, &length]);
    mac.first_chunk().copied().unwrap_or_default()
}

/// A mutation that is sealed for sending.
pub(super) struct Sealed {
    pub(super) index_mac: IndexMac,
    pub(super) value_mac: ValueMac,
    /// The encoded `SyncdMutation`.
    pub(super) bytes: Vec<u8>,
    /// How many bytes at its end are the `SyncdRecord`.
    record_len: usize,
}

impl Sealed {
    /// The encoded `SyncdRecord`.
    pub(super) fn record(&self) -> &[u8] {
        let start = self.bytes.len().saturating_sub(self.record_len);
        self.bytes.get(start..).unwrap_or_default()
    }
}

/// Seals mutations under one key.
pub(super) struct Sealer<'a> {
    id: &'a KeyId,
    keys: &'a MutationKeys,
    states: Prepared,
}

impl<'a> Sealer<'a> {
    pub(super) fn new(id: &'a KeyId, keys: &'a MutationKeys) -> Self {
        Self { id, keys, states: Prepared::new(keys) }
    }

    /// The MAC under which this key files an index.
    pub(super) fn index_mac(&self, index: &[u8]) -> IndexMac {
        self.states.index.mac(&[index])
    }

    /// Seals a mutation with a fresh IV.
    pub(super) fn seal(&self, operation: Operation, change: &Change, rng: &mut impl Rng) -> Sealed {
        let Change { index, value, version, .. } = change;
        let mut action = Vec::with_capacity(index.len().saturating_add(value.len()).saturating_add(24));
        wire::put_bytes(&mut action, 1, index);
        wire::put_bytes(&mut action, 2, value);
        wire::put_bytes(&mut action, 3, &[]);
        wire::put_number(&mut action, 4, i64::from(*version) as u64);
        self.seal_plaintext(operation, self.index_mac(index), &action, rng)
    }

    /// Seals any plaintext, under any index MAC.
    pub(super) fn seal_plaintext(
        &self,
        operation: Operation,
        index_mac: IndexMac,
        action: &[u8],
        rng: &mut impl Rng,
    ) -> Sealed {
        let mut iv = [0; wire::IV_LEN];
        rng.fill_bytes(&mut iv);
        let mut blob = Vec::with_capacity(action.len().saturating_add(64));
        blob.extend_from_slice(&iv);
        aes256_cbc_append(self.keys.value_encryption.expose(), &iv, action, &mut blob);
        let ciphertext = blob.get(wire::IV_LEN..).unwrap_or_default();
        let value_mac = value_mac(&self.states, operation, self.id.as_bytes(), &iv, ciphertext);
        blob.extend_from_slice(&value_mac);
        let mut record = Vec::with_capacity(blob.len().saturating_add(64));
        wire::put_bytes(&mut record, 1, &wire::nested(&index_mac));
        wire::put_bytes(&mut record, 2, &wire::nested(&blob));
        wire::put_bytes(&mut record, 3, &wire::nested(self.id.as_bytes()));
        let mut bytes = Vec::with_capacity(record.len().saturating_add(8));
        wire::put_number(&mut bytes, 1, u64::from(operation == Operation::Remove));
        wire::put_bytes(&mut bytes, 2, &record);
        Sealed { index_mac, value_mac, bytes, record_len: record.len() }
    }
}
