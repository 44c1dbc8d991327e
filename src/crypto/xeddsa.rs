//! XEdDSA in the Signal flavour (spec 03 §1.2): signatures made with X25519 keys.
//!
//! The Edwards key keeps its own sign bit, which travels in the top bit of the signature's last byte. A signature is
//! 64 bytes: `R || s`, `s[31] & 0x80` = sign of the Edwards key.
//!
//! Both sides need the public key in its Edwards form. Keys that are used again and again keep it: [`SigningKey`] spares half of
//! signing, [`VerifyingKey`] a fifth of verifying.

use std::sync::OnceLock;

use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    montgomery::MontgomeryPoint,
    scalar::Scalar,
};
use sha2::{Digest, Sha512};
use zeroize::Zeroize;

use super::{CryptoError, KeyPair, PrivateKey, PublicKey, Rng};

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
    let nonce = Nonce::new(private, parts, random);
    let [big_r, public] = EdwardsPoint::compress_batch(&[nonce.point, point(private)]);
    nonce.sign(private, big_r.as_bytes(), public.as_bytes(), parts)
}

/// Verifies a signature over the concatenation of `parts`. A scalar that is not reduced is refused.
///
/// # Errors
/// [`CryptoError::Length`] unless the signature has 64 bytes, [`CryptoError::Signature`] when it is not valid.
pub fn verify(public: &PublicKey, parts: &[&[u8]], signature: &[u8]) -> Result<(), CryptoError> {
    let (big_r, s, sign) = split(signature)?;
    let a = MontgomeryPoint(*public.as_bytes()).to_edwards(sign).ok_or(CryptoError::Signature)?;
    check(big_r, &s, &a, a.compress().as_bytes(), parts)
}

/// A key pair that signs often: it keeps its public key in Edwards form, too.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pair: KeyPair,
    edwards: Edwards,
}

/// The public key in Edwards form, with its sign. A fresh key has the point, whose bytes cost an inversion; its first
/// signature has one to make anyway, and gets both from it.
#[derive(Clone, Debug)]
enum Edwards {
    Point(EdwardsPoint),
    Bytes([u8; 32]),
}

impl SigningKey {
    /// Draws a fresh pair, with one multiplication for both forms of the public key.
    pub fn generate(rng: &mut impl Rng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        let private = PrivateKey::from_bytes(bytes);
        bytes.zeroize();
        let point = point(&private);
        let public = PublicKey::from_bytes(point.to_montgomery().to_bytes());
        Self { pair: KeyPair::from_parts(private, public), edwards: Edwards::Point(point) }
    }

    /// Completes a pair by one multiplication.
    pub fn new(pair: KeyPair) -> Self {
        let edwards = Edwards::Point(point(pair.private()));
        Self { pair, edwards }
    }

    /// Puts a stored key together. The caller vouches that its parts belong together.
    pub const fn from_parts(pair: KeyPair, edwards: [u8; 32]) -> Self {
        Self { pair, edwards: Edwards::Bytes(edwards) }
    }

    /// The pair.
    pub const fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The public key in Edwards form, with its sign: for the store. An inversion, unless the key has signed or was stored.
    pub fn edwards(&self) -> [u8; 32] {
        match &self.edwards {
            Edwards::Point(point) => point.compress().to_bytes(),
            Edwards::Bytes(bytes) => *bytes,
        }
    }

    /// Signs the concatenation of `parts`.
    pub fn sign(&mut self, parts: &[&[u8]], rng: &mut impl Rng) -> [u8; SIGNATURE_LEN] {
        let mut random = [0; 64];
        rng.fill_bytes(&mut random);
        let nonce = Nonce::new(self.pair.private(), parts, &random);
        random.zeroize();
        let (big_r, public) = match &self.edwards {
            Edwards::Bytes(public) => (nonce.point.compress(), *public),
            Edwards::Point(point) => {
                let [big_r, public] = EdwardsPoint::compress_batch(&[nonce.point, *point]);
                (big_r, public.to_bytes())
            }
        };
        self.edwards = Edwards::Bytes(public);
        nonce.sign(self.pair.private(), big_r.as_bytes(), &public, parts)
    }
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.pair == other.pair && self.edwards() == other.edwards()
    }
}

impl Eq for SigningKey {}

/// A public key that verifies often, in Edwards form. Its sign comes with each signature.
///
/// It decompresses its point once, and a clone has what its origin had by then.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    y: [u8; 32],
    /// With the sign 0; `None` inside if there is no such point.
    point: OnceLock<Option<EdwardsPoint>>,
}

impl VerifyingKey {
    /// Converts a key; `None` if it is no point of the curve, and verifies nothing.
    pub fn new(public: &PublicKey) -> Option<Self> {
        let point = MontgomeryPoint(*public.as_bytes()).to_edwards(0)?;
        Some(Self { y: point.compress().to_bytes(), point: Some(point).into() })
    }

    /// Takes what [`Self::as_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { y: bytes, point: OnceLock::new() }
    }

    /// The y-coordinate, for the store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.y
    }

    /// Verifies a signature, as [`verify`] does.
    ///
    /// # Errors
    /// As there.
    pub fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> Result<(), CryptoError> {
        let (big_r, s, sign) = split(signature)?;
        let mut public = self.y;
        public[31] &= 0x7F;
        let point = self.point.get_or_init(|| CompressedEdwardsY(public).decompress());
        let point = point.as_ref().ok_or(CryptoError::Signature)?;
        public[31] |= sign << 7;
        if sign == 0 { check(big_r, &s, point, &public, parts) } else { check(big_r, &s, &-point, &public, parts) }
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.y == other.y
    }
}

impl Eq for VerifyingKey {}

/// The secret scalar of one signature, and its product with the base point. Were it finished with another key's public form,
/// the signature would verify nowhere and give nothing away: no nonce comes twice, since each is of fresh random bytes.
struct Nonce {
    scalar: Scalar,
    point: EdwardsPoint,
}

impl Nonce {
    fn new(private: &PrivateKey, parts: &[&[u8]], random: &[u8; 64]) -> Self {
        let mut prefix = [0xFF; 32];
        prefix[0] = 0xFE;
        let mut hash = Sha512::new().chain_update(prefix).chain_update(private.expose());
        parts.iter().for_each(|part| hash.update(part));
        hash.update(random);
        let scalar = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        Self { scalar, point: EdwardsPoint::mul_base(&scalar) }
    }

    /// `big_r` is the point, `public` the key in Edwards form with its sign; both compressed.
    fn sign(self, private: &PrivateKey, big_r: &[u8; 32], public: &[u8; 32], parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        let mut k = Scalar::from_bytes_mod_order(*private.expose());
        let s = self.scalar + challenge(big_r, public, parts) * k;
        k.zeroize();
        let mut signature = [0; SIGNATURE_LEN];
        signature[..32].copy_from_slice(big_r);
        signature[32..].copy_from_slice(s.as_bytes());
        signature[63] = signature[63] & 0x7F | public[31] & 0x80;
        signature
    }
}

impl Drop for Nonce {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

/// Takes a signature apart: `R`, the reduced scalar, the sign of the key.
fn split(signature: &[u8]) -> Result<(&[u8; 32], Scalar, u8), CryptoError> {
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
    Ok((big_r, s, sign))
}

fn check(
    big_r: &[u8; 32],
    s: &Scalar,
    a: &EdwardsPoint,
    public: &[u8; 32],
    parts: &[&[u8]],
) -> Result<(), CryptoError> {
    let h = challenge(big_r, public, parts);
    let expected = EdwardsPoint::vartime_double_scalar_mul_basepoint(&-h, a, s).compress();
    if expected.as_bytes() == big_r { Ok(()) } else { Err(CryptoError::Signature) }
}

/// The public key as a point.
fn point(private: &PrivateKey) -> EdwardsPoint {
    let mut k = Scalar::from_bytes_mod_order(*private.expose());
    let point = EdwardsPoint::mul_base(&k);
    k.zeroize();
    point
}

fn challenge(big_r: &[u8; 32], public: &[u8; 32], parts: &[&[u8]]) -> Scalar {
    let mut hash = Sha512::new().chain_update(big_r).chain_update(public);
    parts.iter().for_each(|part| hash.update(part));
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}
