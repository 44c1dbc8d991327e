//! Signed device identities ("ADV"): the account's promise that a device belongs to it (spec 01 §4.4, spec 03 §1.6).
//!
//! ```text
//! container = { details = signed, hmac = HMAC(adv secret, [06 05] || signed), accountType }       pair-success only
//! signed    = { details = D, accountSignatureKey = A, accountSignature, deviceSignature }
//! D         = { rawId, timestamp, keyIndex, accountType, deviceType }
//!
//! accountSignature by A over   06 00 || D || device identity            06 05 for a hosted device
//! deviceSignature by device    06 01 || D || device identity || A       06 06 for a hosted device
//! ```
//!
//! Signatures cover `D` as it was received, never a re-encoding. Which prefix applies where: the HMAC follows the outer
//! account type, the account signature follows the signed inner device type, and our own device signature is always under
//! `06 01`.

use bytes::Bytes;

use super::{PairError, limit};
use crate::crypto::{CryptoError, KeyPair, PublicKey, Rng, Secret, constant_time_eq, hmac_sha256, xeddsa};
use crate::proto::{
    Message as _,
    adv::{AdvDeviceIdentity, AdvEncryptionType, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac},
};

/// A container has about 160 bytes; a larger one than this is refused before decoding.
pub const MAX_IDENTITY_LEN: usize = 4_096;

/// A pair-success whose HMAC and account signature were checked. Made by [`verify`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedIdentity {
    details: Bytes,
    identity: PublicKey,
    account_key: PublicKey,
    account_signature: Bytes,
    key_index: u32,
    raw_id: u32,
    timestamp: u64,
    hosted: bool,
}

/// Our own device identity with both signatures. Made by [`VerifiedIdentity::sign`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIdentity {
    signed: AdvSignedDeviceIdentity,
    account_key: PublicKey,
    key_index: u32,
}

/// The identity of somebody else's device, of which both signatures were checked. Made by [`verify_device`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedDevice {
    account_key: PublicKey,
    key_index: u32,
    hosted: bool,
}

/// Checks the device identity of a pair-success (spec 01 §4.4, steps 1 to 4).
///
/// `container` is the content of `<device-identity>`, `adv_secret` the secret of the QR code on the screen, `identity` our
/// own identity key.
///
/// # Errors
/// [`PairError::TooLong`], [`PairError::Missing`] and [`PairError::Malformed`] for what cannot be read,
/// [`PairError::HmacMismatch`], [`PairError::AccountSignature`].
pub fn verify(container: &[u8], adv_secret: &Secret<32>, identity: &PublicKey) -> Result<VerifiedIdentity, PairError> {
    limit("device identity", container.len(), MAX_IDENTITY_LEN)?;
    let container = AdvSignedDeviceIdentityHmac::decode(container)
        .map_err(|_| PairError::Malformed("container of the device identity"))?;
    let signed = container.details.as_ref().ok_or(PairError::Missing("details of the container"))?;
    let hmac = container.hmac.as_ref().ok_or(PairError::Missing("HMAC of the container"))?;

    let prefix: &[u8] = if is_hosted(container.account_type) { &HOSTED_ACCOUNT } else { &[] };
    let expected = hmac_sha256(adv_secret.expose(), &[prefix, signed]);
    if !constant_time_eq(&expected, hmac) {
        return Err(PairError::HmacMismatch);
    }

    let (signed, inner) = decode_signed(signed)?;
    let key = signed.account_signature_key.ok_or(PairError::Missing("account key of the device identity"))?;
    // A key or signature of the wrong length verifies nothing, which the server is told in the same words.
    let account_key = PublicKey::from_slice(&key).map_err(|_| PairError::AccountSignature)?;
    let account_signature = signed.account_signature.ok_or(PairError::Missing("account signature"))?;
    let hosted = is_hosted(inner.device_type);
    let prefix = if hosted { &HOSTED_ACCOUNT } else { &ACCOUNT };
    let details = signed.details.unwrap_or_default();
    verify_account(prefix, &details, identity, &account_key, &account_signature)
        .map_err(|_| PairError::AccountSignature)?;

    Ok(VerifiedIdentity {
        details,
        identity: *identity,
        account_key,
        account_signature,
        key_index: inner.key_index.unwrap_or_default(),
        raw_id: inner.raw_id.unwrap_or_default(),
        timestamp: inner.timestamp.unwrap_or_default(),
        hosted,
    })
}

impl VerifiedIdentity {
    /// Adds our signature (spec 01 §4.4, step 5). `identity` is the pair whose public half was verified.
    ///
    /// # Errors
    /// [`PairError::OtherIdentity`] for another key pair.
    pub fn sign(self, identity: &KeyPair, rng: &mut impl Rng) -> Result<SignedIdentity, PairError> {
        let mut random = [0; 64];
        rng.fill_bytes(&mut random);
        self.sign_with(identity, &random)
    }

    /// Signs with the 64 bytes of nonce input given. Deterministic: for vectors; elsewhere [`VerifiedIdentity::sign`] is
    /// right.
    ///
    /// # Errors
    /// [`PairError::OtherIdentity`] for another key pair.
    pub fn sign_with(self, identity: &KeyPair, random: &[u8; 64]) -> Result<SignedIdentity, PairError> {
        if identity.public() != &self.identity {
            return Err(PairError::OtherIdentity);
        }
        let message: [&[u8]; 4] = [&DEVICE, &self.details, self.identity.as_bytes(), self.account_key.as_bytes()];
        let signature = xeddsa::sign_with(identity.private(), &message, random);
        Ok(SignedIdentity {
            signed: AdvSignedDeviceIdentity {
                details: Some(self.details),
                account_signature_key: Some(Bytes::copy_from_slice(self.account_key.as_bytes())),
                account_signature: Some(self.account_signature),
                device_signature: Some(Bytes::copy_from_slice(&signature)),
            },
            account_key: self.account_key,
            key_index: self.key_index,
        })
    }

    /// The account's key: the Signal identity of the primary device.
    pub fn account_key(&self) -> &PublicKey {
        &self.account_key
    }

    /// Our place in the account's list of devices.
    pub fn key_index(&self) -> u32 {
        self.key_index
    }

    /// Which registration of the account this is; changes when the phone registers again.
    pub fn raw_id(&self) -> u32 {
        self.raw_id
    }

    /// When the phone made the identity, unix seconds of its clock.
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Whether the device is of a hosted business account.
    pub fn is_hosted(&self) -> bool {
        self.hosted
    }
}

impl SignedIdentity {
    /// The content of `<device-identity>` in pair-device-sign: without the account key, as the server expects it.
    pub fn reply_bytes(&self) -> Vec<u8> {
        AdvSignedDeviceIdentity { account_signature_key: None, ..self.signed.clone() }.encode_to_vec()
    }

    /// The complete identity with the account key: to be persisted before the reply is sent, and the `device-identity` of
    /// every prekey message that we send.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.signed.encode_to_vec()
    }

    /// The account's key: to be persisted as the Signal identity of the primary device.
    pub fn account_key(&self) -> &PublicKey {
        &self.account_key
    }

    /// The `key-index` of pair-device-sign.
    pub fn key_index(&self) -> u32 {
        self.key_index
    }
}

/// Checks the `device-identity` that comes with a key bundle, a retry receipt or a prekey message (spec 03 §1.6).
///
/// `identity` is the identity key that the bundle gives, `account_key` the stored identity of that user's device 0, used
/// when the blob has no account key of its own. Both the ordinary and the hosted prefixes are accepted: they cannot stand
/// for each other, because account and device prefixes all differ.
///
/// **A blob with a key of its own proves only that this key vouches for the device.** Compare
/// [`VerifiedDevice::account_key`] with the stored one to notice an identity change of the account.
///
/// # Errors
/// [`PairError::NoAccountKey`]: nothing was checked, log and go on. Anything else: refuse the bundle.
pub fn verify_device(
    blob: &[u8],
    identity: &PublicKey,
    account_key: Option<&PublicKey>,
) -> Result<VerifiedDevice, PairError> {
    limit("device identity", blob.len(), MAX_IDENTITY_LEN)?;
    let (signed, inner) = decode_signed(blob)?;
    let account_key = match signed.account_signature_key.as_deref() {
        Some(key) => PublicKey::from_slice(key).map_err(|_| PairError::AccountSignature)?,
        None => *account_key.ok_or(PairError::NoAccountKey)?,
    };
    let details = signed.details.unwrap_or_default();
    let account_signature = signed.account_signature.ok_or(PairError::Missing("account signature"))?;
    let device_signature = signed.device_signature.ok_or(PairError::Missing("device signature"))?;

    let hosted = is_hosted(inner.device_type);
    let (account_prefixes, device_prefixes) = if hosted {
        ([&HOSTED_ACCOUNT, &ACCOUNT], [&HOSTED_DEVICE, &DEVICE])
    } else {
        ([&ACCOUNT, &HOSTED_ACCOUNT], [&DEVICE, &HOSTED_DEVICE])
    };
    account_prefixes
        .iter()
        .find(|prefix| verify_account(prefix, &details, identity, &account_key, &account_signature).is_ok())
        .ok_or(PairError::AccountSignature)?;
    device_prefixes
        .iter()
        .find(|prefix| {
            let message: [&[u8]; 4] = [prefix.as_slice(), &details, identity.as_bytes(), account_key.as_bytes()];
            xeddsa::verify(identity, &message, &device_signature).is_ok()
        })
        .ok_or(PairError::DeviceSignature)?;
    Ok(VerifiedDevice { account_key, key_index: inner.key_index.unwrap_or_default(), hosted })
}

impl VerifiedDevice {
    /// The key that vouches for the device: the identity of the user's device 0.
    pub fn account_key(&self) -> &PublicKey {
        &self.account_key
    }

    /// The device's place in the account's list.
    pub fn key_index(&self) -> u32 {
        self.key_index
    }

    /// Whether the identity says that the device is hosted.
    pub fn is_hosted(&self) -> bool {
        self.hosted
    }
}

fn decode_signed(bytes: &[u8]) -> Result<(AdvSignedDeviceIdentity, AdvDeviceIdentity), PairError> {
    let signed = AdvSignedDeviceIdentity::decode(bytes).map_err(|_| PairError::Malformed("signed device identity"))?;
    let details = signed.details.as_deref().ok_or(PairError::Missing("details of the device identity"))?;
    let inner =
        AdvDeviceIdentity::decode(details).map_err(|_| PairError::Malformed("details of the device identity"))?;
    Ok((signed, inner))
}

fn verify_account(
    prefix: &[u8; 2],
    details: &[u8],
    identity: &PublicKey,
    account_key: &PublicKey,
    signature: &[u8],
) -> Result<(), CryptoError> {
    xeddsa::verify(account_key, &[prefix, details, identity.as_bytes()], signature)
}

fn is_hosted(kind: Option<i32>) -> bool {
    kind == Some(AdvEncryptionType::Hosted as i32)
}

/// In front of what an account signs about an ordinary device (spec 01 §4.4, prefix summary).
const ACCOUNT: [u8; 2] = [0x06, 0x00];
/// In front of what an ordinary device signs.
const DEVICE: [u8; 2] = [0x06, 0x01];
/// In front of what an account signs about a hosted device, and of what the HMAC of a hosted account covers.
pub(super) const HOSTED_ACCOUNT: [u8; 2] = [0x06, 0x05];
/// In front of what a hosted device signs.
const HOSTED_DEVICE: [u8; 2] = [0x06, 0x06];
