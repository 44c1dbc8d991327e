//! The curve and hash operations of a step and nothing else, straight from the libraries: what no implementation on them can
//! be faster than.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use sha2::{Digest, Sha512};
use wamd::crypto::{hkdf_sha256, hmac_sha256};

/// Key material of any value: the cost does not depend on it.
pub struct Material {
    scalar: [u8; 32],
    point: [u8; 32],
    signature_r: [u8; 32],
    s: Scalar,
}

impl Material {
    pub fn new() -> Self {
        let scalar = [0x48; 32];
        let point = MontgomeryPoint::mul_base_clamped([0x51; 32]).to_bytes();
        Self { scalar, point, signature_r: [9; 32], s: Scalar::from_bytes_mod_order([0x33; 32]) }
    }

    /// An exchange.
    fn exchange(&self) -> u8 {
        x25519_dalek::x25519(self.scalar, self.point)[0]
    }

    /// A key pair.
    fn key_pair(&self) -> u8 {
        MontgomeryPoint::mul_base_clamped(self.scalar).to_bytes()[0]
    }

    /// A signature by a key in its Montgomery form over `len` bytes.
    fn sign(&self, message: &[u8]) -> u8 {
        let key = Scalar::from_bytes_mod_order(self.scalar);
        let public = EdwardsPoint::mul_base(&key).compress();
        let nonce = Sha512::new().chain_update([0xFE; 32]).chain_update(self.scalar).chain_update(message);
        let nonce = Scalar::from_bytes_mod_order_wide(&nonce.chain_update([7; 64]).finalize().into());
        let point = EdwardsPoint::mul_base(&nonce).compress();
        let hash = Sha512::new().chain_update(point.as_bytes()).chain_update(public.as_bytes()).chain_update(message);
        let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.finalize().into()) * key;
        s.as_bytes()[0]
    }

    /// Checks one.
    fn verify(&self, message: &[u8]) -> u8 {
        let public = MontgomeryPoint(self.point).to_edwards(0).expect("on the curve");
        let hash = Sha512::new()
            .chain_update(self.signature_r)
            .chain_update(public.compress().as_bytes())
            .chain_update(message);
        let hash = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        EdwardsPoint::vartime_double_scalar_mul_basepoint(&-hash, &public, &self.s).compress().as_bytes()[0]
    }

    /// A key derivation of the root chain.
    fn derive(&self) -> u8 {
        hkdf_sha256::<64>(Some(&self.scalar), &self.point, b"WhisperRatchet")[0]
    }

    /// A session to be started: a signature checked, two key pairs, four exchanges, one more with the new ratchet key.
    pub fn initiate(&self) -> u64 {
        let curve = [self.verify(&[5; 33]), self.key_pair(), self.key_pair()];
        let exchanges = [(); 5].map(|()| self.exchange());
        sum(&curve) + sum(&exchanges) + sum(&[self.derive(), self.derive()])
    }

    /// The other side of it: four exchanges, one for the ratchet; then one message is decrypted.
    pub fn respond(&self, len: usize) -> u64 {
        let exchanges = [(); 5].map(|()| self.exchange());
        sum(&exchanges) + sum(&[self.derive(), self.derive()]) + self.message(len)
    }

    /// What a message costs beside its signature or its MAC: two steps of the chain, the message keys, the cipher.
    fn message(&self, len: usize) -> u64 {
        let keys = [hmac_sha256(&self.scalar, &[&[1]]), hmac_sha256(&self.scalar, &[&[2]])];
        let expanded: [u8; 80] = hkdf_sha256(None, &keys[0], b"WhisperMessageKeys");
        let (key, iv) = (expanded[..32].try_into().expect("32"), expanded[64..].try_into().expect("16"));
        let sealed = wamd::crypto::aes256_cbc_encrypt(key, iv, &vec![1; len]);
        sum(&keys[1]) + sealed.len() as u64
    }

    /// A group message written.
    pub fn group_encrypt(&self, len: usize) -> u64 {
        self.message(len) + sum(&[self.sign(&vec![3; len + 32])])
    }

    /// A group message read.
    pub fn group_decrypt(&self, len: usize) -> u64 {
        self.message(len) + sum(&[self.verify(&vec![3; len + 32])])
    }

    /// A group key of our own: its signing pair.
    pub fn group_key(&self) -> u64 {
        sum(&[self.key_pair()])
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}
