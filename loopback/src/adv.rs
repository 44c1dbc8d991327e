//! Device identities as the phone makes and checks them (spec 01 §4.4, §4.5, §7.3; spec 03 §4.9).
//!
//! ```text
//! D         = ADVDeviceIdentity{rawId, timestamp, keyIndex, accountType, deviceType}
//! signed    = ADVSignedDeviceIdentity{details D, accountSignatureKey A, accountSignature over 06 00 || D || I}
//! container = ADVSignedDeviceIdentityHMAC{details signed, hmac HMAC-SHA-256(adv secret, signed)}
//! answer    = ADVSignedDeviceIdentity with deviceSignature over 06 01 || D || I || A, by I
//! ```
//!
//! `A` is the account key, `I` the companion's identity key.

use bytes::Bytes;
use prost::Message as _;
use wamd::crypto::{KeyPair, PublicKey, hkdf_sha256, hmac_sha256, xeddsa};
use wamd::proto::adv::{
    AdvDeviceIdentity, AdvEncryptionType, AdvKeyIndexList, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac,
    AdvSignedKeyIndexList,
};

/// What the phone claims about a new companion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) raw_id: u32,
    pub(crate) timestamp: u64,
    pub(crate) key_index: u32,
    pub(crate) hosted: bool,
}

/// A companion's identity, signed by the account and not yet by the companion.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    companion: PublicKey,
    signed: AdvSignedDeviceIdentity,
}

impl Offer {
    /// Signs `claim` for the companion. The signature is deterministic.
    pub(crate) fn sign(account: &KeyPair, companion: PublicKey, claim: Claim) -> Self {
        let kind = if claim.hosted { AdvEncryptionType::Hosted } else { AdvEncryptionType::E2ee };
        let details = AdvDeviceIdentity {
            raw_id: Some(claim.raw_id),
            timestamp: Some(claim.timestamp),
            key_index: Some(claim.key_index),
            account_type: Some(kind.into()),
            device_type: Some(kind.into()),
        };
        let details = Bytes::from(details.encode_to_vec());
        let prefix = if claim.hosted { HOSTED_ACCOUNT } else { ACCOUNT };
        let signature = sign(account, &[&prefix, &details, companion.as_bytes()]);
        let signed = AdvSignedDeviceIdentity {
            details: Some(details),
            account_signature_key: Some(Bytes::copy_from_slice(account.public().as_bytes())),
            account_signature: Some(Bytes::copy_from_slice(&signature)),
            device_signature: None,
        };
        Self { companion, signed }
    }

    fn is_hosted(&self) -> bool {
        let details = self.signed.details.clone().map(AdvDeviceIdentity::decode);
        details.is_some_and(|details| details.is_ok_and(|details| details.device_type() == AdvEncryptionType::Hosted))
    }

    /// Spoils the account signature: the companion must refuse it.
    pub(crate) fn spoil_signature(&mut self) {
        self.signed.account_signature = self.signed.account_signature.as_deref().map(flip_last);
    }

    /// The bytes of `device-identity` in pair-success.
    pub(crate) fn container(&self, adv_secret: &[u8; 32], hosted: bool, spoil_hmac: bool) -> Vec<u8> {
        let signed = Bytes::from(self.signed.encode_to_vec());
        let prefix: &[u8] = if hosted { &HOSTED_ACCOUNT } else { &[] };
        let hmac = Bytes::copy_from_slice(&hmac_sha256(adv_secret, &[prefix, &signed]));
        let container = AdvSignedDeviceIdentityHmac {
            details: Some(signed),
            hmac: Some(if spoil_hmac { flip_last(&hmac) } else { hmac }),
            account_type: hosted.then(|| AdvEncryptionType::Hosted.into()),
        };
        container.encode_to_vec()
    }

    /// Checks the companion's answer and gives the complete identity, as peers get it with the key bundle.
    ///
    /// The answer may hold the account key or leave it out; everything else must be what was offered.
    pub(crate) fn accept(&self, answer: &[u8]) -> Result<Bytes, AnswerError> {
        let answer = AdvSignedDeviceIdentity::decode(answer).map_err(|_| AnswerError::Malformed)?;
        let same_key =
            answer.account_signature_key.is_none() || answer.account_signature_key == self.signed.account_signature_key;
        if answer.details != self.signed.details
            || answer.account_signature != self.signed.account_signature
            || !same_key
        {
            return Err(AnswerError::Changed);
        }
        let details = self.signed.details.as_deref().unwrap_or_default();
        let account = self.signed.account_signature_key.as_deref().unwrap_or_default();
        let signature = answer.device_signature.as_deref().unwrap_or_default();
        let signed_with = |prefix: &[u8; 2]| {
            let message: [&[u8]; 4] = [prefix, details, self.companion.as_bytes(), account];
            xeddsa::verify(&self.companion, &message, signature).is_ok()
        };
        // Clients differ in the prefix for hosted accounts (spec 01 §4.4).
        let accepted = signed_with(&DEVICE) || self.is_hosted() && signed_with(&HOSTED_DEVICE);
        if !accepted {
            return Err(AnswerError::Signature);
        }
        let complete = AdvSignedDeviceIdentity { device_signature: answer.device_signature, ..self.signed.clone() };
        Ok(complete.encode_to_vec().into())
    }
}

/// Why the phone does not accept a `pair-device-sign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("the device identity does not decode")]
    Malformed,
    #[error("the device identity is not the one that was offered")]
    Changed,
    #[error("the device signature does not verify")]
    Signature,
}

/// The signed list of key indexes that stands next to a device list.
pub(crate) fn key_index_list(account: &KeyPair, list: &AdvKeyIndexList) -> Vec<u8> {
    let details = Bytes::from(list.encode_to_vec());
    let signature = sign(account, &[&KEY_INDEX_LIST, &details]);
    let signed = AdvSignedKeyIndexList {
        details: Some(details),
        account_signature: Some(Bytes::copy_from_slice(&signature)),
        account_signature_key: Some(Bytes::copy_from_slice(account.public().as_bytes())),
    };
    signed.encode_to_vec()
}

/// Signs with a nonce derived from key and message, as the simulated phone has no randomness to spare in queries.
pub(crate) fn sign(key: &KeyPair, parts: &[&[u8]]) -> [u8; 64] {
    let nonce: [u8; 64] = hkdf_sha256(Some(key.private().expose()), &parts.concat(), b"wamd-loopback signature");
    xeddsa::sign_with(key.private(), parts, &nonce)
}

/// The same bytes with one bit changed.
pub(crate) fn flip_last(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

const ACCOUNT: [u8; 2] = [0x06, 0x00];
const DEVICE: [u8; 2] = [0x06, 0x01];
const KEY_INDEX_LIST: [u8; 2] = [0x06, 0x02];
const HOSTED_ACCOUNT: [u8; 2] = [0x06, 0x05];
const HOSTED_DEVICE: [u8; 2] = [0x06, 0x06];

#[cfg(test)]
mod tests {
    use wamd::crypto::PrivateKey;

    use super::*;

    fn pair(byte: u8) -> KeyPair {
        KeyPair::from_private(PrivateKey::from_bytes([byte; 32]))
    }

    fn offer() -> Offer {
        let claim = Claim { raw_id: 7, timestamp: 1_700_000_000, key_index: 5, hosted: false };
        Offer::sign(&pair(1), *pair(2).public(), claim)
    }

    /// What a companion answers, as spec 01 §4.4 step 5 says.
    fn answer(offer: &Offer, by: &KeyPair) -> AdvSignedDeviceIdentity {
        let details = offer.signed.details.clone().unwrap();
        let (companion, account) = (pair(2), pair(1));
        let message: [&[u8]; 4] = [&[6, 1], &details, companion.public().as_bytes(), account.public().as_bytes()];
        let signature = xeddsa::sign_with(by.private(), &message, &[0; 64]);
        AdvSignedDeviceIdentity {
            device_signature: Some(Bytes::copy_from_slice(&signature)),
            account_signature_key: None,
            ..offer.signed.clone()
        }
    }

    #[test]
    fn answer_of_the_companion_is_checked() {
        let offer = offer();
        let good = answer(&offer, &pair(2));
        let complete = offer.accept(&good.encode_to_vec()).unwrap();
        let complete = AdvSignedDeviceIdentity::decode(complete).unwrap();
        assert_eq!(complete.account_signature_key.as_deref(), Some(&pair(1).public().as_bytes()[..]));
        assert_eq!(complete.device_signature, good.device_signature);

        let forged = answer(&offer, &pair(3));
        assert_eq!(offer.accept(&forged.encode_to_vec()), Err(AnswerError::Signature));
        let other = AdvSignedDeviceIdentity { details: Some(Bytes::from_static(b"x")), ..good };
        assert_eq!(offer.accept(&other.encode_to_vec()), Err(AnswerError::Changed));
        assert_eq!(offer.accept(&[0xFF]), Err(AnswerError::Malformed));
    }

    #[test]
    fn container_is_authentic_unless_spoiled() {
        let offer = offer();
        let read = |bytes: Vec<u8>| AdvSignedDeviceIdentityHmac::decode(&bytes[..]).unwrap();
        let good = read(offer.container(&[9; 32], false, false));
        let details = good.details.clone().unwrap();
        assert_eq!(good.hmac.as_deref(), Some(&hmac_sha256(&[9; 32], &[&details])[..]));
        let bad = read(offer.container(&[9; 32], false, true));
        assert_eq!(bad.details, good.details);
        assert_ne!(bad.hmac, good.hmac);
        let signed = AdvSignedDeviceIdentity::decode(details).unwrap();
        let companion = pair(2);
        let message: [&[u8]; 3] = [&[6, 0], signed.details.as_deref().unwrap(), companion.public().as_bytes()];
        assert_eq!(xeddsa::verify(pair(1).public(), &message, &signed.account_signature.unwrap()), Ok(()));
    }

    /// Container and answer of spec 01 §8, for an ordinary and a hosted account.
    #[test]
    fn vectors_of_the_specification() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/adv_pairing.json");
        let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let secret: [u8; 32] = bytes(&vector["adv_secret"]).try_into().unwrap();
        let companion = PublicKey::from_slice(&bytes(&vector["companion_identity"]["public"])).unwrap();
        for (name, hosted) in [("e2ee", false), ("hosted", true)] {
            let case = &vector[name];
            let signed = bytes(&case["signed_device_identity_from_primary"]);
            let offer = Offer { companion, signed: AdvSignedDeviceIdentity::decode(&signed[..]).unwrap() };
            let container = offer.container(&secret, hosted, false);
            assert_eq!(container, bytes(&case["device_identity_content_of_pair_success"]), "{name}");
            let answer = bytes(&case["pair_device_sign_device_identity"]);
            assert_eq!(offer.accept(&answer).unwrap(), bytes(&case["stored_account_with_signature_key"]), "{name}");
        }
    }
}
