//! Key-index lists: which companions an account still has, signed by its primary (spec 03 §4.9, spec 01 §4.4).
//!
//! ```text
//! signed  = { details = D, accountSignature, accountSignatureKey }
//! D       = { rawId, timestamp, currentIndex, validIndexes, accountType }
//!
//! accountSignature by the account key over   06 02 || D
//! ```
//!
//! A device list from the server is only the server's word. The key index that each companion has there must be one of
//! [`KeyIndexList::accepts`], else the account has unlinked the device, or never linked it.
//!
//! **The signed form is that of spec 01, and not confirmed by an observation.** [`decode`] therefore reports what the signature is
//! worth ([`ListSignature`]) and leaves it to the caller what to do about one that does not verify.

use super::{PairError, limit};
use crate::crypto::{PublicKey, xeddsa};
use crate::proto::{
    Message as _,
    adv::{AdvEncryptionType, AdvKeyIndexList, AdvSignedKeyIndexList},
};
use crate::stanza::iq::usync::Device;

/// A list has about 150 bytes; a larger one than this is refused before decoding.
pub const MAX_LIST_LEN: usize = 4_096;

/// In front of what a primary signs about its companions (spec 01 §4.4, prefix summary).
const KEY_INDEX_LIST: [u8; 2] = [0x06, 0x02];

/// A key-index list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyIndexList {
    raw_id: u32,
    timestamp: u64,
    current_index: u32,
    /// Ascending.
    valid: Vec<u32>,
    hosted: bool,
    signature: ListSignature,
}

/// What the signature of a list is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListSignature {
    /// It verifies with the account key that was known.
    Verified,
    /// No account key was known, and it verifies with the one in the list.
    FirstUse(PublicKey),
    /// It verifies with the key in the list, which is not the one that was known: the account registered again, or somebody
    /// else made the list.
    OtherKey(PublicKey),
    /// It does not verify.
    Mismatch,
    /// There is no signature.
    Missing,
    /// There is a signature, but no key: nothing was checked.
    NoKey,
}

impl ListSignature {
    /// Nothing speaks against the list: it verifies with the known key, or with the first one seen.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Verified | Self::FirstUse(_))
    }
}

/// How a list relates to the one known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListChange {
    /// None was known.
    First,
    /// It is newer, or as old: take it.
    Current,
    /// It is older than the one known: keep that.
    Older,
    /// The account registered again: sessions with its companions and the marks of sender keys are void.
    Registered,
}

/// What is known of a user's list: to be stored with the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownList {
    /// [`KeyIndexList::raw_id`].
    pub raw_id: u32,
    /// [`KeyIndexList::timestamp`].
    pub timestamp: u64,
}

/// The devices of a user that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidDevices {
    /// Device 0, and the companions that the list accepts, in the order given.
    pub devices: Vec<Device>,
    /// The devices that do not count.
    pub dropped: Vec<Device>,
    /// There were companions but no list to judge them by: the hash of this answer must not be stored, so that the server
    /// sends it all again the next time.
    pub forget_hash: bool,
}

/// Reads a list, the content of `<key-index-list>`. `account_key` is the stored identity of that user's device 0.
///
/// # Errors
/// [`PairError::TooLong`], [`PairError::Malformed`], [`PairError::Missing`] for one without details. What the signature is
/// worth is no error, see [`KeyIndexList::signature`].
pub fn decode(bytes: &[u8], account_key: Option<&PublicKey>) -> Result<KeyIndexList, PairError> {
    limit("key-index list", bytes.len(), MAX_LIST_LEN)?;
    let signed = AdvSignedKeyIndexList::decode(bytes).map_err(|_| PairError::Malformed("signed key-index list"))?;
    let details = signed.details.as_deref().ok_or(PairError::Missing("details of the key-index list"))?;
    let inner = AdvKeyIndexList::decode(details).map_err(|_| PairError::Malformed("details of the key-index list"))?;
    let mut valid = inner.valid_indexes;
    valid.sort_unstable();
    valid.dedup();
    Ok(KeyIndexList {
        raw_id: inner.raw_id.unwrap_or_default(),
        timestamp: inner.timestamp.unwrap_or_default(),
        current_index: inner.current_index.unwrap_or_default(),
        valid,
        hosted: inner.account_type == Some(AdvEncryptionType::Hosted as i32),
        signature: check(
            details,
            signed.account_signature.as_deref(),
            signed.account_signature_key.as_deref(),
            account_key,
        ),
    })
}

/// Tries the known key first, then the one in the list. A key of the wrong length verifies nothing.
fn check(details: &[u8], signature: Option<&[u8]>, carried: Option<&[u8]>, known: Option<&PublicKey>) -> ListSignature {
    let Some(signature) = signature else { return ListSignature::Missing };
    let verifies = |key: &PublicKey| xeddsa::verify(key, &[&KEY_INDEX_LIST, details], signature).is_ok();
    match (carried.map(PublicKey::from_slice), known) {
        (_, Some(known)) if verifies(known) => ListSignature::Verified,
        (Some(Ok(key)), None) if verifies(&key) => ListSignature::FirstUse(key),
        (Some(Ok(key)), Some(known)) if key != *known && verifies(&key) => ListSignature::OtherKey(key),
        (None, None) => ListSignature::NoKey,
        _ => ListSignature::Mismatch,
    }
}

/// Which devices of a user count, by the list that came with them (spec 03 §4.9).
///
/// The first device always does. A companion does if it has a key index that the list accepts; without a list none does.
pub fn valid_devices(devices: impl IntoIterator<Item = Device>, list: Option<&KeyIndexList>) -> ValidDevices {
    let counts = |device: &Device| {
        device.id == 0 || device.key_index.is_some_and(|index| list.is_some_and(|list| list.accepts(index)))
    };
    let (devices, dropped): (Vec<_>, Vec<_>) = devices.into_iter().partition(counts);
    let forget_hash = list.is_none() && !dropped.is_empty();
    ValidDevices { devices, dropped, forget_hash }
}

impl KeyIndexList {
    /// Whether a companion with this key index is linked: the list names it, or is older than it.
    pub fn accepts(&self, key_index: u32) -> bool {
        key_index > self.current_index || self.valid.binary_search(&key_index).is_ok()
    }

    /// How the list relates to the one known before.
    ///
    /// A list of the same registration with an earlier timestamp is a late or repeated one. It could bring a device back that
    /// was unlinked since.
    pub fn change(&self, known: Option<&KnownList>) -> ListChange {
        match known {
            None => ListChange::First,
            Some(known) if known.raw_id != self.raw_id => ListChange::Registered,
            Some(known) if self.timestamp < known.timestamp => ListChange::Older,
            Some(_) => ListChange::Current,
        }
    }

    /// What to store, for [`KeyIndexList::change`].
    pub const fn known(&self) -> KnownList {
        KnownList { raw_id: self.raw_id, timestamp: self.timestamp }
    }

    /// Which registration of the account this is.
    pub const fn raw_id(&self) -> u32 {
        self.raw_id
    }

    /// When the primary made the list, unix seconds of its clock.
    pub const fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// The highest index that the primary had given out when it made the list.
    pub const fn current_index(&self) -> u32 {
        self.current_index
    }

    /// The indexes of the linked companions, ascending.
    pub fn valid_indexes(&self) -> &[u32] {
        &self.valid
    }

    /// Whether the account is hosted.
    pub const fn is_hosted(&self) -> bool {
        self.hosted
    }

    /// What the signature is worth.
    pub const fn signature(&self) -> ListSignature {
        self.signature
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::crypto::{KeyPair, PrivateKey};

    fn pair(seed: u8) -> KeyPair {
        KeyPair::from_private(PrivateKey::from_bytes([seed; 32]))
    }

    fn details() -> AdvKeyIndexList {
        AdvKeyIndexList {
            raw_id: Some(77),
            timestamp: Some(1_700_000_000),
            current_index: Some(9),
            valid_indexes: vec![7, 2, 7],
            account_type: Some(AdvEncryptionType::E2ee as i32),
        }
    }

    /// Signed by one key, with another one or none in it.
    fn signed(signer: u8, carried: Option<u8>) -> AdvSignedKeyIndexList {
        let details = details().encode_to_vec();
        let signature = xeddsa::sign_with(pair(signer).private(), &[&[6, 2], &details], &[0; 64]);
        AdvSignedKeyIndexList {
            details: Some(details.into()),
            account_signature: Some(Bytes::copy_from_slice(&signature)),
            account_signature_key: carried.map(|seed| Bytes::copy_from_slice(pair(seed).public().as_bytes())),
        }
    }

    fn signature(list: &AdvSignedKeyIndexList, known: Option<u8>) -> ListSignature {
        let known = known.map(|seed| *pair(seed).public());
        decode(&list.encode_to_vec(), known.as_ref()).unwrap().signature()
    }

    #[test]
    fn a_list_says_who_is_linked() {
        let list = decode(&signed(1, None).encode_to_vec(), Some(pair(1).public())).unwrap();
        assert_eq!((list.raw_id(), list.timestamp(), list.current_index()), (77, 1_700_000_000, 9));
        assert_eq!((list.valid_indexes(), list.is_hosted()), (&[2, 7][..], false));
        let accepted: Vec<u32> = (0..13).filter(|index| list.accepts(*index)).collect();
        assert_eq!(accepted, [2, 7, 10, 11, 12]);
        assert!(list.accepts(u32::MAX));
    }

    #[test]
    fn signatures_are_weighed() {
        use ListSignature::*;
        let key = |seed: u8| *pair(seed).public();
        let check = |signer, carried, known, expected: ListSignature| {
            assert_eq!(signature(&signed(signer, carried), known), expected);
            assert_eq!(expected.is_good(), matches!(expected, Verified | FirstUse(_)));
        };
        check(1, None, Some(1), Verified);
        check(1, Some(1), Some(1), Verified);
        check(1, Some(2), Some(1), Verified);
        check(1, Some(1), None, FirstUse(key(1)));
        check(1, Some(1), Some(2), OtherKey(key(1)));
        check(1, None, Some(2), Mismatch);
        check(1, Some(2), None, Mismatch);
        check(1, Some(2), Some(3), Mismatch);
        check(1, None, None, NoKey);
        assert_eq!(
            signature(&AdvSignedKeyIndexList { account_signature: None, ..signed(1, Some(1)) }, Some(1)),
            Missing
        );
    }

    #[test]
    fn every_byte_of_the_details_is_signed() {
        let good = signed(1, Some(1));
        let details = good.details.clone().unwrap();
        for at in 0..details.len() {
            let mut changed = details.to_vec();
            changed[at] ^= 1;
            let changed = AdvSignedKeyIndexList { details: Some(changed.into()), ..good.clone() };
            if let Ok(list) = decode(&changed.encode_to_vec(), None) {
                assert_eq!(list.signature(), ListSignature::Mismatch, "byte {at}");
            }
        }
        // What a primary signs about a device does not pass for a list.
        let signature = xeddsa::sign_with(pair(1).private(), &[&[6, 0], &details], &[0; 64]);
        let other = AdvSignedKeyIndexList { account_signature: Some(signature.to_vec().into()), ..good.clone() };
        assert_eq!(self::signature(&other, Some(1)), ListSignature::Mismatch);
        let short = AdvSignedKeyIndexList { account_signature_key: Some(vec![1; 31].into()), ..good };
        assert_eq!(self::signature(&short, None), ListSignature::Mismatch);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let check = |bytes: &[u8], error| assert_eq!(decode(bytes, None), Err(error));
        check(&[0x0A], PairError::Malformed("signed key-index list"));
        check(&[], PairError::Missing("details of the key-index list"));
        check(&[0x0A, 1, 8], PairError::Malformed("details of the key-index list"));
        let len = MAX_LIST_LEN + 1;
        check(&vec![0; len], PairError::TooLong { what: "key-index list", len, max: MAX_LIST_LEN });
    }

    #[test]
    fn lists_are_ordered() {
        let list = decode(&signed(1, Some(1)).encode_to_vec(), None).unwrap();
        let known = list.known();
        assert_eq!(list.change(None), ListChange::First);
        assert_eq!(list.change(Some(&known)), ListChange::Current);
        assert_eq!(list.change(Some(&KnownList { timestamp: 1, ..known })), ListChange::Current);
        assert_eq!(list.change(Some(&KnownList { timestamp: u64::MAX, ..known })), ListChange::Older);
        assert_eq!(list.change(Some(&KnownList { raw_id: 78, timestamp: u64::MAX })), ListChange::Registered);
    }

    #[test]
    fn devices_are_judged_by_the_list() {
        let list = decode(&signed(1, Some(1)).encode_to_vec(), None).unwrap();
        let device = |id, key_index| Device { id, key_index, hosted: false };
        let all = [
            device(0, None),
            device(1, Some(2)),
            device(2, Some(3)),
            device(3, None),
            device(4, Some(10)),
            device(5, Some(9)),
        ];
        let valid = valid_devices(all, Some(&list));
        assert_eq!(valid.devices, [all[0], all[1], all[4]]);
        assert_eq!((valid.dropped, valid.forget_hash), (vec![all[2], all[3], all[5]], false));
        let valid = valid_devices(all, None);
        assert_eq!((valid.devices, valid.dropped.len(), valid.forget_hash), (vec![all[0]], 5, true));
        let valid = valid_devices([all[0]], None);
        assert_eq!((valid.devices, valid.forget_hash), (vec![all[0]], false));
    }
}
