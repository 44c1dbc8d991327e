//! The containers on the wire (spec 05 §A6), read in place: what is found are slices of what was received.
//!
//! ```text
//! patch      version 1 { 1 }  mutation* 2  external 3  snapshot MAC 4  patch MAC 5  key id 6 { 1 }  exit code 7 { 1 }
//! snapshot   version 1 { 1 }  record* 2  MAC 3  key id 4 { 1 }
//! mutations  mutation* 1
//! mutation   operation 1  record 2
//! record     index MAC 1 { 1 }  value 2 { 1 }  key id 3 { 1 }           value = IV 16, ciphertext, value MAC 32
//! action     index 1  value 2  padding 3  schema version 4
//! ```
//!
//! The depth is that of the schema, and an element of a list is taken only when it is complete, so 80 bytes of input cost some
//! 60 bytes of memory. Unknown fields are skipped.

use bytes::Bytes;

use super::{AppStateError, IndexMac, KeyId, Operation, ValueMac};
use crate::proto::{Message as _, server_sync::ExternalBlobReference};

/// Bytes of the IV in front of a ciphertext.
pub(super) const IV_LEN: usize = 16;
/// Most bytes of a patch, of external mutations or of a snapshot. A contact takes some 250 bytes.
pub const MAX_LEN: usize = 64 << 20;

/// One record as it was received, of the right shape and not verified.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) operation: Operation,
    pub(super) index_mac: &'a IndexMac,
    pub(super) iv: &'a [u8; IV_LEN],
    pub(super) ciphertext: &'a [u8],
    pub(super) value_mac: &'a ValueMac,
    pub(super) key_id: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8], operation: Operation) -> Result<Self, AppStateError> {
        let (mut index, mut value, mut key_id) = (None, None, None);
        for field in fields(bytes) {
            match field? {
                (1, field) => index = inner(field)?,
                (2, field) => value = inner(field)?,
                (3, field) => key_id = inner(field)?,
                _ => {}
            }
        }
        let blob = value.ok_or(AppStateError::Malformed("record without a value"))?;
        let (iv, rest) = blob.split_first_chunk().ok_or(AppStateError::Malformed("value is too short"))?;
        let (ciphertext, value_mac) = rest.split_last_chunk().ok_or(AppStateError::Malformed("value is too short"))?;
        let index_mac = index.ok_or(AppStateError::Malformed("record without an index"))?;
        let index_mac = index_mac.try_into().map_err(|_| AppStateError::IndexMac)?;
        let key_id = key_id.ok_or(AppStateError::NoKeyId)?;
        Ok(Self { operation, index_mac, iv, ciphertext, value_mac, key_id })
    }

    fn read_mutation(bytes: &'a [u8]) -> Result<Self, AppStateError> {
        let (mut operation, mut record) = (0, None);
        for field in fields(bytes) {
            match field? {
                (1, field) => operation = field.varint()?,
                (2, field) => record = Some(field.bytes()?),
                _ => {}
            }
        }
        let operation = match operation {
            0 => Operation::Set,
            1 => Operation::Remove,
            _ => return Err(AppStateError::Malformed("unknown operation")),
        };
        Self::read(record.ok_or(AppStateError::Malformed("mutation without a record"))?, operation)
    }
}

/// A patch as it was received, not verified.
pub struct Patch<'a> {
    pub(super) version: Option<u64>,
    pub(super) mutations: Vec<Record<'a>>,
    pub(super) external: Option<ExternalBlobReference>,
    pub(super) snapshot_mac: Option<&'a [u8]>,
    pub(super) patch_mac: Option<&'a [u8]>,
    pub(super) key_id: Option<&'a [u8]>,
    pub(super) exit_code: Option<u64>,
}

impl<'a> Patch<'a> {
    /// Reads a `SyncdPatch`.
    ///
    /// # Errors
    /// [`AppStateError`] when it is too large or breaks its format.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, AppStateError> {
        check_len(bytes)?;
        let mut patch = Self {
            version: None,
            mutations: Vec::new(),
            external: None,
            snapshot_mac: None,
            patch_mac: None,
            key_id: None,
            exit_code: None,
        };
        for field in fields(bytes) {
            let (number, field) = field?;
            match number {
                1 => patch.version = inner_varint(field)?,
                2 => patch.mutations.push(Record::read_mutation(field.bytes()?)?),
                3 => patch.external = Some(external_blob(field.bytes()?)?),
                4 => patch.snapshot_mac = Some(field.bytes()?),
                5 => patch.patch_mac = Some(field.bytes()?),
                6 => patch.key_id = inner(field)?,
                7 => patch.exit_code = Some(inner_varint(field)?.unwrap_or_default()),
                _ => {}
            }
        }
        Ok(patch)
    }

    /// Puts mutations that were fetched, a `SyncdMutations`, in the place of those in the patch (spec 05 §A6).
    ///
    /// # Errors
    /// [`AppStateError`] when they are too large or break their format.
    pub fn set_external_mutations(&mut self, bytes: &'a [u8]) -> Result<(), AppStateError> {
        check_len(bytes)?;
        self.mutations.clear();
        for field in fields(bytes) {
            if let (1, field) = field? {
                self.mutations.push(Record::read_mutation(field.bytes()?)?);
            }
        }
        self.external = None;
        Ok(())
    }

    /// Where the mutations are, if they have to be fetched first.
    pub const fn external(&self) -> Option<&ExternalBlobReference> {
        self.external.as_ref()
    }

    /// The version behind the patch, if it says so.
    pub const fn version(&self) -> Option<u64> {
        self.version
    }

    /// The keys that the patch needs, each once.
    ///
    /// # Errors
    /// [`AppStateError::NoKeyId`] when one of them has no usable id.
    pub fn key_ids(&self) -> Result<Vec<KeyId>, AppStateError> {
        key_ids(self.key_id, &self.mutations)
    }

    /// The indexes whose entries are needed before the patch can be applied, in its order.
    pub fn index_macs(&self) -> impl Iterator<Item = &'a IndexMac> {
        self.mutations.iter().map(|record| record.index_mac)
    }
}

impl std::fmt::Debug for Patch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let external = self.external.is_some();
        f.debug_struct("Patch")
            .field("version", &self.version)
            .field("mutations", &self.mutations.len())
            .field("external", &external)
            .finish_non_exhaustive()
    }
}

/// A snapshot as it was received, not verified.
pub struct Snapshot<'a> {
    pub(super) version: u64,
    pub(super) records: Vec<Record<'a>>,
    pub(super) mac: Option<&'a [u8]>,
    pub(super) key_id: Option<&'a [u8]>,
}

impl<'a> Snapshot<'a> {
    /// Reads a `SyncdSnapshot`.
    ///
    /// # Errors
    /// [`AppStateError`] when it is too large or breaks its format.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, AppStateError> {
        check_len(bytes)?;
        let (mut version, mut mac, mut key_id, mut records) = (0, None, None, Vec::new());
        for field in fields(bytes) {
            match field? {
                (1, field) => version = inner_varint(field)?.unwrap_or_default(),
                (2, field) => records.push(Record::read(field.bytes()?, Operation::Set)?),
                (3, field) => mac = Some(field.bytes()?),
                (4, field) => key_id = inner(field)?,
                _ => {}
            }
        }
        Ok(Self { version, records, mac, key_id })
    }

    /// Its version.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// How many records it has.
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The keys that it needs, each once.
    ///
    /// # Errors
    /// [`AppStateError::NoKeyId`] when one of them has no usable id.
    pub fn key_ids(&self) -> Result<Vec<KeyId>, AppStateError> {
        key_ids(self.key_id, &self.records)
    }
}

impl std::fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.version).field("records", &self.records.len()).finish()
    }
}

/// Reads an `ExternalBlobReference`: the content of `<snapshot>`, and what a patch refers to.
///
/// # Errors
/// [`AppStateError::Malformed`] when it is no such message.
pub fn external_blob(bytes: &[u8]) -> Result<ExternalBlobReference, AppStateError> {
    // Its fields share the buffer, which is a copy, so that nothing keeps the whole stanza.
    ExternalBlobReference::decode(Bytes::copy_from_slice(bytes)).map_err(|_| AppStateError::Malformed("external blob"))
}

fn key_ids<'a>(first: Option<&'a [u8]>, records: &[Record<'a>]) -> Result<Vec<KeyId>, AppStateError> {
    let mut ids = vec![KeyId::new(first.unwrap_or_default())?];
    let mut last = first;
    for record in records {
        if last == Some(record.key_id) {
            continue;
        }
        last = Some(record.key_id);
        ids.push(KeyId::new(record.key_id)?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn check_len(bytes: &[u8]) -> Result<(), AppStateError> {
    if bytes.len() > MAX_LEN {
        return Err(AppStateError::TooLarge { len: bytes.len(), max: MAX_LEN });
    }
    Ok(())
}

/// A decrypted `SyncActionData`: where its index and its value are, and its schema version.
pub(super) struct ActionData<'a> {
    pub(super) index: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) version: i32,
}

impl<'a> ActionData<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, AppStateError> {
        let (mut index, mut value, mut version) = (None, &[][..], 0);
        for field in fields(bytes) {
            match field? {
                (1, field) => index = Some(field.bytes()?),
                (2, field) => value = field.bytes()?,
                (3, field) => drop(field.bytes()?),
                // An int32 is a varint of 64 bits whose upper half says nothing.
                (4, field) => version = field.varint()? as u32 as i32,
                _ => {}
            }
        }
        Ok(Self { index: index.ok_or(AppStateError::Malformed("action without an index"))?, value, version })
    }
}

/// One value of a protobuf field.
#[derive(Clone, Copy)]
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Field<'a> {
    const fn bytes(self) -> Result<&'a [u8], AppStateError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(AppStateError::Malformed("field of the wrong type")),
        }
    }

    const fn varint(self) -> Result<u64, AppStateError> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(AppStateError::Malformed("field of the wrong type")),
        }
    }
}

/// Field 1, bytes, of a message inside.
fn inner(field: Field<'_>) -> Result<Option<&[u8]>, AppStateError> {
    let mut found = None;
    for field in fields(field.bytes()?) {
        if let (1, field) = field? {
            found = Some(field.bytes()?);
        }
    }
    Ok(found)
}

/// Field 1, a number, of a message inside.
fn inner_varint(field: Field<'_>) -> Result<Option<u64>, AppStateError> {
    let mut found = None;
    for field in fields(field.bytes()?) {
        if let (1, field) = field? {
            found = Some(field.varint()?);
        }
    }
    Ok(found)
}

/// The fields of a message in their order. Ends after the first error.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Field<'_>), AppStateError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field.ok_or(AppStateError::Malformed("no protobuf")))
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(rest)?;
    let number = tag >> 3;
    if number == 0 || tag > u64::from(u32::MAX) {
        return None;
    }
    let value = match tag & 7 {
        0 => Field::Varint(varint(rest)?),
        1 => take(rest, 8).map(|_| Field::Fixed)?,
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(take(rest, len)?)
        }
        5 => take(rest, 4).map(|_| Field::Fixed)?,
        // Groups were never used in these messages.
        _ => return None,
    };
    Some((number, value))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Appends a field of bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A message with one field of bytes, number 1.
pub(super) fn nested(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().saturating_add(6));
    put_bytes(&mut out, 1, bytes);
    out
}

/// Appends a field with a number.
pub(super) fn put_number(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
