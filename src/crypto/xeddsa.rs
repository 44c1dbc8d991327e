//! XEdDSA in the Signal flavour (spec 03 §1.2): signatures made with X25519 keys.
//!
//! The Edwards key keeps its own sign bit, which travels in the top bit of the signature's last byte. A signature is
//! 64 bytes: `R || s`, `s[31] & 0x80` = sign of the Edwards key.

use curve25519_dalek::{edwards::EdwardsPoint, montgomery::MontgomeryPoint, scalar::Scalar};
use sha2::{Digest, Sha512};
use zeroize::Zeroize;

use super::{CryptoError, PrivateKey, PublicKey, Rng};

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// Signs the concatenation of `parts`.
pub fn sign(private: &PrivateKey, parts: &[&[u8]], rng: &mut impl Rng) -> [u8; SIGNATURE_LEN] {
    let mut random = [0; 64];
    rng.fill_bytes(&mut random);
    let signature = sign_with(private, parts, &random);
    random.zeroize();
    signature
}

/// Signs with the 64 bytes of nonce input given. Deterministic: for vectors; elsewhere [`sign`] is right.
pub fn sign_with(private: &PrivateKey, parts: &[&[u8]], random: &[u8; 64]) -> [u8; SIGNATURE_LEN] {
    let mut k = Scalar::from_bytes_mod_order(*private.expose());
    let public = EdwardsPoint::mul_base(&k).compress();
    let sign = public.as_bytes()[31] & 0x80;

    let mut prefix = [0xFF; 32];
    prefix[0] = 0xFE;
    let mut hash = Sha512::new().chain_update(prefix).chain_update(private.expose());
    parts.iter().for_each(|part| hash.update(part));
    hash.update(random);
    let mut r = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    let big_r = EdwardsPoint::mul_base(&r).compress();

    let s = r + challenge(big_r.as_bytes(), public.as_bytes(), parts) * k;
    r.zeroize();
    k.zeroize();

    let mut signature = [0; SIGNATURE_LEN];
    signature[..32].copy_from_slice(big_r.as_bytes());
    signature[32..].copy_from_slice(s.as_bytes());
    signature[63] = signature[63] & 0x7F | sign;
    signature
}

/// Verifies a signature over the concatenation of `parts`. A scalar that is not reduced is refused.
///
/// # Errors
/// [`CryptoError::Length`] unless the signature has 64 bytes, [`CryptoError::Signature`] when it is not valid.
pub fn verify(public: &PublicKey, parts: &[&[u8]], signature: &[u8]) -> Result<(), CryptoError> {
    let signature: &[u8; SIGNATURE_LEN] = signature.try_into().map_err(|_| CryptoError::Length {
        what: "signature",
        len: signature.len(),
        expected: SIGNATURE_LEN,
    })?;
    let (big_r, s) = signature.split_first_chunk::<32>().ok_or(CryptoError::Signature)?;
    let mut s: [u8; 32] = s.try_into().map_err(|_| CryptoError::Signature)?;
    let sign = s[31] >> 7;
    s[31] &= 0x7F;
    let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)).ok_or(CryptoError::Signature)?;
    let a = MontgomeryPoint(*public.as_bytes()).to_edwards(sign).ok_or(CryptoError::Signature)?;
    let h = challenge(big_r, a.compress().as_bytes(), parts);
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&-h, &a, &s).compress();
    if expected.as_bytes() == big_r { Ok(()) } else { Err(CryptoError::Signature) }
}

fn challenge(big_r: &[u8; 32], public: &[u8; 32], parts: &[&[u8]]) -> Scalar {
    let mut hash = Sha512::new().chain_update(big_r).chain_update(public);
    parts.iter().for_each(|part| hash.update(part));
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}
