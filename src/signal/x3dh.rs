//! The X3DH key agreement, without Kyber (spec 03 §2.1).

use zeroize::Zeroizing;

use crate::crypto::{KeyPair, PublicKey, Secret, hkdf_sha256, keys::KEY_TYPE, x25519, xeddsa};

use super::{
    PreKeyBundle, SignalError,
    chain::{ChainKey, root_and_chain},
};

/// Checks that the signed prekey of a bundle is signed by its identity.
pub(super) fn verify_bundle(bundle: &PreKeyBundle) -> Result<(), SignalError> {
    xeddsa::verify(&bundle.identity, &[&[KEY_TYPE], bundle.signed_pre_key.as_bytes()], &bundle.signature)
        .map_err(|_| SignalError::BadSignature)
}

/// The initiator's side: our identity and base key against the bundle.
pub(super) fn initiate(
    own: &KeyPair,
    base: &KeyPair,
    bundle: &PreKeyBundle,
    pre_key: Option<&PublicKey>,
) -> Result<(Secret<32>, ChainKey), SignalError> {
    agree([
        Some((own, &bundle.signed_pre_key)),
        Some((base, &bundle.identity)),
        Some((base, &bundle.signed_pre_key)),
        pre_key.map(|key| (base, key)),
    ])
}

/// The responder's side: our identity and prekeys against the sender's identity and base key.
pub(super) fn respond(
    own: &KeyPair,
    signed_pre_key: &KeyPair,
    pre_key: Option<&KeyPair>,
    identity: &PublicKey,
    base_key: &PublicKey,
) -> Result<(Secret<32>, ChainKey), SignalError> {
    agree([
        Some((signed_pre_key, identity)),
        Some((own, base_key)),
        Some((signed_pre_key, base_key)),
        pre_key.map(|pair| (pair, base_key)),
    ])
}

/// Runs the exchanges in order and derives from `FF * 32 || dh1 || dh2 || dh3 [|| dh4]`.
fn agree(exchanges: [Option<(&KeyPair, &PublicKey)>; 4]) -> Result<(Secret<32>, ChainKey), SignalError> {
    // The whole capacity at once: growing would leave copies of the secret behind.
    let mut master = Zeroizing::new(Vec::with_capacity(32 * 5));
    master.extend_from_slice(&[0xFF; 32]);
    for (ours, theirs) in exchanges.into_iter().flatten() {
        master.extend_from_slice(x25519(ours.private(), theirs).map_err(SignalError::Key)?.expose());
    }
    Ok(root_and_chain(&Secret::new(hkdf_sha256(None, &master, b"WhisperText"))))
}
