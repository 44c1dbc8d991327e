//! Types for X25519 keys, the Diffie-Hellman function on them (RFC 7748), and fixed-size secrets.
//!
//! A private key is 32 bytes, clamped. A public key is the 32-byte little-endian u-coordinate; the 33-byte form with
//! the type byte `05` in front exists on the wire only (spec 03 §1.1).

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize as _, ZeroizeOnDrop, optimization_barrier};

use super::{CryptoError, Rng, x25519 as curve};

/// The type byte in front of a serialised public key.
pub const KEY_TYPE: u8 = 0x05;

/// `N` secret bytes: wiped when dropped, never printed, compared in constant time.
#[derive(Clone)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Drop for Secret<N> {
    /// A message passes two dozen secrets along; wiped byte by byte, as `Zeroize` does it, they cost more than its protobuf.
    fn drop(&mut self) {
        self.0 = [0; N];
        optimization_barrier(self);
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> Secret<N> {
    /// Takes the bytes over.
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// Draws fresh bytes.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut bytes = [0; N];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Copies a slice of exactly `N` bytes.
    ///
    /// # Errors
    /// [`CryptoError::Length`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        array("secret", bytes).map(Self)
    }

    /// The bytes, for handing to a primitive or to the store.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

/// An X25519 private key, clamped.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Secret<32>);

impl PrivateKey {
    /// Takes 32 bytes and clamps them (RFC 7748 §5).
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::new(curve::clamp(bytes)))
    }

    /// Takes a slice of exactly 32 bytes and clamps it.
    ///
    /// # Errors
    /// [`CryptoError::Length`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        array("private key", bytes).map(Self::from_bytes)
    }

    /// The clamped bytes, for the store.
    pub const fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// The public key that belongs to this one.
    pub fn public(&self) -> PublicKey {
        PublicKey(curve::public(self.expose()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// An X25519 public key: 32 bytes, without the type byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the bare 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes a slice of exactly 32 bytes, as stanzas and ADV blobs carry it.
    ///
    /// # Errors
    /// [`CryptoError::Length`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        array("public key", bytes).map(Self)
    }

    /// Reads the 33-byte form of Signal messages: `05` and the key.
    ///
    /// # Errors
    /// [`CryptoError::Length`] unless there are 33 bytes, [`CryptoError::KeyType`] for another type byte.
    pub fn from_typed(bytes: &[u8]) -> Result<Self, CryptoError> {
        match bytes.split_first() {
            Some((&KEY_TYPE, key)) if key.len() == 32 => Self::from_slice(key),
            Some((&kind, key)) if key.len() == 32 => Err(CryptoError::KeyType(kind)),
            _ => Err(CryptoError::Length { what: "typed public key", len: bytes.len(), expected: 33 }),
        }
    }

    /// The bare 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 33-byte form: `05` and the key.
    pub fn to_typed(&self) -> [u8; 33] {
        let mut typed = [KEY_TYPE; 33];
        typed[1..].copy_from_slice(&self.0);
        typed
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:02x}{:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// A private key with its public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    private: PrivateKey,
    public: PublicKey,
}

impl KeyPair {
    /// Draws a fresh pair.
    pub fn generate(rng: &mut impl Rng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        let pair = Self::from_private(PrivateKey::from_bytes(bytes));
        bytes.zeroize();
        pair
    }

    /// Completes a private key by its public key (one fixed-base multiplication).
    pub fn from_private(private: PrivateKey) -> Self {
        let public = private.public();
        Self { private, public }
    }

    /// Puts a stored pair together without the multiplication. The caller vouches that they belong together.
    pub const fn from_parts(private: PrivateKey, public: PublicKey) -> Self {
        Self { private, public }
    }

    /// The private half.
    pub const fn private(&self) -> &PrivateKey {
        &self.private
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// X25519 (RFC 7748): the shared secret of our private and their public key.
///
/// # Errors
/// [`CryptoError::SmallOrder`] when the result is all zero.
pub fn x25519(private: &PrivateKey, public: &PublicKey) -> Result<Secret<32>, CryptoError> {
    let shared = Secret::new(curve::shared(private.expose(), &public.0));
    if bool::from(shared.expose().ct_eq(&[0; 32])) {
        return Err(CryptoError::SmallOrder);
    }
    Ok(shared)
}

fn array<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], CryptoError> {
    bytes.try_into().map_err(|_| CryptoError::Length { what, len: bytes.len(), expected: N })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        let (a, b) = (PrivateKey::from_bytes([7; 32]), PrivateKey::from_bytes([9; 32]));
        assert_eq!(x25519(&a, &b.public()), x25519(&b, &a.public()));
        assert_ne!(x25519(&a, &b.public()), x25519(&a, &a.public()));
    }

    #[test]
    fn small_order_points_are_refused() {
        let key = PrivateKey::from_bytes([1; 32]);
        assert_eq!(x25519(&key, &PublicKey::from_bytes([0; 32])), Err(CryptoError::SmallOrder));
    }

    #[test]
    fn typed_form_checks_length_and_type() {
        let key = PrivateKey::from_bytes([1; 32]).public();
        assert_eq!(PublicKey::from_typed(&key.to_typed()), Ok(key));
        assert_eq!(
            PublicKey::from_typed(key.as_bytes()),
            Err(CryptoError::Length { what: "typed public key", len: 32, expected: 33 })
        );
        let mut wrong = key.to_typed();
        wrong[0] = 6;
        assert_eq!(PublicKey::from_typed(&wrong), Err(CryptoError::KeyType(6)));
    }

    #[test]
    fn secrets_do_not_print() {
        let pair = KeyPair::from_private(PrivateKey::from_bytes([0xAB; 32]));
        assert!(!format!("{pair:?}").contains("ab"));
        assert_eq!(format!("{:?}", Secret::new([1u8; 4])), "[redacted]");
    }
}
