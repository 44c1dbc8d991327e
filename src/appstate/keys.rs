//! Keys of app state: ids, what the phone shares, and the five keys that each expands to (spec 05 §A2).

use std::{collections::BTreeMap, fmt};

use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::{AppStateError, CollectionName, IndexMac, LtHash};
use crate::{
    crypto::{AesCbc, HmacSha256, HmacSha512, Secret, hkdf_sha256, hmac_sha256},
    proto::{
        Message as _,
        e2e::{AppStateSyncKeyData, AppStateSyncKeyId, AppStateSyncKeyRequest, AppStateSyncKeyShare},
    },
};

/// The name of a key: six bytes in practice, opaque when something is decrypted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(SmallVec<[u8; 16]>);

impl KeyId {
    /// Longest id that is taken.
    pub const MAX_LEN: usize = 64;

    /// From its bytes.
    ///
    /// # Errors
    /// [`AppStateError::NoKeyId`] when there are none, or more than [`MAX_LEN`](Self::MAX_LEN).
    pub fn new(id: &[u8]) -> Result<Self, AppStateError> {
        if id.is_empty() || id.len() > Self::MAX_LEN {
            return Err(AppStateError::NoKeyId);
        }
        Ok(Self(SmallVec::from_slice(id)))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Epoch, and the device that made the key; only an id of six bytes has them.
    pub fn epoch_and_device(&self) -> Option<(u32, u16)> {
        let [a, b, c, d, e, f] = *self.0.as_slice() else { return None };
        Some((u32::from_be_bytes([c, d, e, f]), u16::from_be_bytes([a, b])))
    }

    /// The key to send with: of the highest epoch, and there of the lowest device (spec 05 §A2.2). Ids of an unusual length
    /// are never chosen.
    pub fn newest<'a>(ids: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        let usual = ids.into_iter().filter_map(|id| id.epoch_and_device().map(|order| (order, id)));
        usual.max_by_key(|((epoch, device), _)| (*epoch, u16::MAX.saturating_sub(*device))).map(|(_, id)| id)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// One entry of a key share.
#[derive(Clone, Debug)]
pub enum SharedKey {
    /// A key, as it is stored: an encoded `AppStateSyncKeyData`. An id that is known already keeps the key that it has.
    Key(KeyId, Zeroizing<Vec<u8>>),
    /// The sender does not have this key.
    Absent(KeyId),
}

/// Most keys of one share that are looked at.
pub const MAX_SHARED_KEYS: usize = 1_024;

/// What a key share says (spec 05 §A2.3). Entries without a usable id, and keys that are not 32 bytes, are left out. That the
/// sender is an own device is for the caller to check.
pub fn shared_keys(share: &AppStateSyncKeyShare) -> impl Iterator<Item = SharedKey> + '_ {
    share.keys.iter().take(MAX_SHARED_KEYS).filter_map(|key| {
        let id = KeyId::new(key.key_id.as_ref()?.key_id.as_ref()?).ok()?;
        match &key.key_data {
            None => Some(SharedKey::Absent(id)),
            Some(data) if data.key_data.as_ref().is_some_and(|data| data.len() == 32) => {
                Some(SharedKey::Key(id, Zeroizing::new(data.encode_to_vec())))
            }
            Some(_) => None,
        }
    })
}

/// Asks other devices for keys (spec 05 §A2.4).
pub fn key_request<'a>(ids: impl IntoIterator<Item = &'a KeyId>) -> AppStateSyncKeyRequest {
    let id = |id: &KeyId| AppStateSyncKeyId { key_id: Some(id.as_bytes().to_vec().into()) };
    AppStateSyncKeyRequest { key_ids: ids.into_iter().map(id).collect() }
}

/// What a key expands to. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct MutationKeys {
    /// Of the MAC of indexes.
    pub index: Secret<32>,
    /// Of the encryption of values.
    pub value_encryption: Secret<32>,
    /// Of the MAC of values.
    pub value_mac: Secret<32>,
    /// Of the MAC over a collection.
    pub snapshot_mac: Secret<32>,
    /// Of the MAC of patches.
    pub patch_mac: Secret<32>,
}

impl MutationKeys {
    /// Expands a key (spec 05 §A2.1).
    pub fn expand(key: &Secret<32>) -> Self {
        let expanded = Zeroizing::new(hkdf_sha256::<160>(None, key.expose(), b"WhatsApp Mutation Keys"));
        let mut parts = expanded.as_chunks::<32>().0.iter().copied().map(Secret::new);
        let mut next = || parts.next().unwrap_or_else(|| Secret::new([0; 32]));
        Self { index: next(), value_encryption: next(), value_mac: next(), snapshot_mac: next(), patch_mac: next() }
    }

    /// Expands a stored key: an encoded `AppStateSyncKeyData`.
    ///
    /// # Errors
    /// [`AppStateError::Record`] when it is damaged.
    pub fn from_record(record: &[u8]) -> Result<Self, AppStateError> {
        let damaged = |reason| AppStateError::Record { what: "app state key", reason };
        let data = AppStateSyncKeyData::decode(record).map_err(|_| damaged("it is no protobuf"))?;
        let key = Secret::from_slice(data.key_data.as_deref().unwrap_or_default());
        key.map(|key| Self::expand(&key)).map_err(|_| damaged("the key is not 32 bytes"))
    }

    /// The MAC under which the set of a collection files an index.
    pub fn index_mac(&self, index: &[u8]) -> IndexMac {
        hmac_sha256(self.index.expose(), &[index])
    }

    /// The MAC over a collection of this version and content (spec 05 §A5).
    pub fn snapshot_mac(&self, collection: CollectionName, version: u64, lthash: &LtHash) -> [u8; 32] {
        let parts: [&[u8]; 3] = [&lthash.to_bytes(), &version.to_be_bytes(), collection.as_str().as_bytes()];
        hmac_sha256(self.snapshot_mac.expose(), &parts)
    }

    /// The MAC of a patch (spec 05 §A5): over the snapshot MAC that it has, the value MACs in its order, the version behind it
    /// and the name of the collection.
    pub fn patch_mac<'a>(
        &self,
        collection: CollectionName,
        version: u64,
        snapshot_mac: &[u8],
        value_macs: impl IntoIterator<Item = &'a [u8]>,
    ) -> [u8; 32] {
        let mut message = snapshot_mac.to_vec();
        value_macs.into_iter().for_each(|mac| message.extend_from_slice(mac));
        hmac_sha256(self.patch_mac.expose(), &[&message, &version.to_be_bytes(), collection.as_str().as_bytes()])
    }
}

impl fmt::Debug for MutationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MutationKeys([redacted])")
    }
}

/// The keys at hand, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Keyring(BTreeMap<KeyId, MutationKeys>);

impl Keyring {
    /// One without keys.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a key.
    pub fn insert(&mut self, id: KeyId, keys: MutationKeys) {
        self.0.insert(id, keys);
    }

    /// The keys of an id.
    pub fn get(&self, id: &KeyId) -> Option<&MutationKeys> {
        self.0.get(id)
    }

    /// The key to send with.
    pub fn newest(&self) -> Option<(&KeyId, &MutationKeys)> {
        self.0.get_key_value(KeyId::newest(self.0.keys())?)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&KeyId, &MutationKeys)> {
        self.0.iter()
    }

    /// Those of `needed` that are not here; each once.
    pub fn missing<'a>(&self, needed: impl IntoIterator<Item = &'a KeyId>) -> Vec<KeyId> {
        needed.into_iter().filter(|id| !self.0.contains_key(*id)).cloned().collect()
    }
}

impl FromIterator<(KeyId, MutationKeys)> for Keyring {
    fn from_iter<I: IntoIterator<Item = (KeyId, MutationKeys)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// The states that reading and writing many values under one key share.
pub(super) struct Prepared {
    pub(super) index: HmacSha256,
    pub(super) value_mac: HmacSha512,
    pub(super) cipher: AesCbc,
}

impl Prepared {
    pub(super) fn new(keys: &MutationKeys) -> Self {
        Self {
            index: HmacSha256::new(keys.index.expose()),
            value_mac: HmacSha512::new(keys.value_mac.expose()),
            cipher: AesCbc::new(keys.value_encryption.expose()),
        }
    }
}
