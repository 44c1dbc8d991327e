//! Hosted business accounts: which prefix stands in front of what, in every combination (spec 01 §4.4).
//!
//! The HMAC follows the outer account type, the account's signature the signed inner device type, and our own signature is
//! always that of an ordinary device. Identities of others are accepted under the prefixes of both kinds.

use bytes::Bytes;
use wamd::{
    crypto::{KeyPair, PrivateKey, Secret, hmac_sha256, xeddsa},
    pairing::{PairError, adv},
    proto::{
        Message as _,
        adv::{AdvDeviceIdentity, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac},
    },
};

const ORDINARY: i32 = 0;
const HOSTED: i32 = 1;
/// What an account type or device type may be.
const KINDS: [Option<i32>; 3] = [None, Some(ORDINARY), Some(HOSTED)];
const PREFIXES: [[u8; 2]; 4] = [[6, 0], [6, 1], [6, 5], [6, 6]];

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes([seed; 32]))
}

/// Details of a device, signed by the account under a prefix.
fn signed(device_type: Option<i32>, inner_account_type: Option<i32>, prefix: [u8; 2]) -> AdvSignedDeviceIdentity {
    let (account, device) = (pair(1), pair(2));
    let details = AdvDeviceIdentity {
        raw_id: Some(7),
        timestamp: Some(1_716_894_200),
        key_index: Some(3),
        account_type: inner_account_type,
        device_type,
    };
    let details = details.encode_to_vec();
    let message: [&[u8]; 3] = [&prefix, &details, device.public().as_bytes()];
    let signature = xeddsa::sign_with(account.private(), &message, &[0; 64]);
    AdvSignedDeviceIdentity {
        details: Some(details.into()),
        account_signature_key: Some(Bytes::copy_from_slice(account.public().as_bytes())),
        account_signature: Some(Bytes::copy_from_slice(&signature)),
        device_signature: None,
    }
}

#[test]
fn pair_success_in_every_combination() {
    let (secret, device) = (Secret::new([9; 32]), pair(2));
    let mut accepted = 0;
    for outer in KINDS {
        for hmac_prefix in [&[][..], &[6, 0], &[6, 5]] {
            for device_type in KINDS {
                for inner_account_type in KINDS {
                    for prefix in PREFIXES {
                        let content = signed(device_type, inner_account_type, prefix).encode_to_vec();
                        let container = AdvSignedDeviceIdentityHmac {
                            hmac: Some(hmac_sha256(secret.expose(), &[hmac_prefix, &content]).to_vec().into()),
                            details: Some(content.into()),
                            account_type: outer,
                        };
                        let verified = adv::verify(&container.encode_to_vec(), &secret, device.public());
                        let hmac = if outer == Some(HOSTED) { &[6, 5][..] } else { &[] };
                        let hosted = device_type == Some(HOSTED);
                        let account = if hosted { [6, 5] } else { [6, 0] };
                        let case =
                            format!("{outer:?} {hmac_prefix:?} {device_type:?} {inner_account_type:?} {prefix:?}");
                        match verified {
                            _ if hmac_prefix != hmac => assert_eq!(verified, Err(PairError::HmacMismatch), "{case}"),
                            _ if prefix != account => assert_eq!(verified, Err(PairError::AccountSignature), "{case}"),
                            Ok(verified) => {
                                accepted += 1;
                                assert_eq!(verified.is_hosted(), hosted);
                                own_signature_is_ordinary(verified, &device);
                            }
                            Err(error) => panic!("{case}: {error}"),
                        }
                    }
                }
            }
        }
    }
    assert_eq!(accepted, 27, "one prefix each is right");
}

fn own_signature_is_ordinary(verified: adv::VerifiedIdentity, device: &KeyPair) {
    let account = *verified.account_key();
    let ours = verified.sign_with(device, &[0; 64]).expect("our key");
    let ours = AdvSignedDeviceIdentity::decode(&*ours.to_bytes()).expect("decodes");
    let (details, signature) = (ours.details.expect("there"), ours.device_signature.expect("there"));
    let message: [&[u8]; 4] = [&[6, 1], &details, device.public().as_bytes(), account.as_bytes()];
    assert_eq!(xeddsa::verify(device.public(), &message, &signature), Ok(()));
}

#[test]
fn fetched_identities_in_every_combination() {
    let (account, device) = (pair(1), pair(2));
    for device_type in KINDS {
        for account_prefix in PREFIXES {
            for device_prefix in PREFIXES {
                let mut signed = signed(device_type, None, account_prefix);
                let details = signed.details.clone().unwrap();
                let message: [&[u8]; 4] =
                    [&device_prefix, &details, device.public().as_bytes(), account.public().as_bytes()];
                let signature = xeddsa::sign_with(device.private(), &message, &[0; 64]);
                signed.device_signature = Some(Bytes::copy_from_slice(&signature));
                let verified = adv::verify_device(&signed.encode_to_vec(), device.public(), None);
                let case = format!("{device_type:?} {account_prefix:?} {device_prefix:?}");
                if !matches!(account_prefix, [6, 0 | 5]) {
                    assert_eq!(verified, Err(PairError::AccountSignature), "{case}");
                } else if !matches!(device_prefix, [6, 1 | 6]) {
                    assert_eq!(verified, Err(PairError::DeviceSignature), "{case}");
                } else {
                    let verified = verified.unwrap_or_else(|error| panic!("{case}: {error}"));
                    assert_eq!(verified.is_hosted(), device_type == Some(HOSTED));
                }
            }
        }
    }
}
