//! Hashes, and the slow derivation of keys from passwords.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Secret;

/// SHA-256 over the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// SHA-1 over the concatenation of `parts` (prekey digest only, spec 03 §1.5).
pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hash = sha1::Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// MD5 (build hash of the registration payload only, spec 01 §3.3).
pub fn md5(data: &[u8]) -> [u8; 16] {
    md5::Md5::digest(data).into()
}

/// PBKDF2-HMAC-SHA-256 (RFC 8018 §5.2): 32 bytes from a password. `iterations` counts from 1; 0 counts as 1.
///
/// The cost is two compressions per iteration: 131,072 of them, as linking by code wants (spec 01 §5.3), take tens of
/// milliseconds. Callers that serve more than one account run it off their event loop.
pub fn pbkdf2_hmac_sha256(password: &[u8], salt: &[u8], iterations: u32) -> Secret<32> {
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations.max(1), &mut *key);
    Secret::new(*key)
}

/// Compares two byte strings without telling where they differ. Strings of different lengths are unequal.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7914_pbkdf2() {
        // RFC 7914 §11, the first 32 bytes of each.
        let check = |password: &[u8], salt: &[u8], iterations, expected| {
            assert_eq!(hex::encode(pbkdf2_hmac_sha256(password, salt, iterations).expose()), expected);
        };
        check(b"passwd", b"salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
        check(b"Password", b"NaCl", 80_000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56");
        assert_eq!(pbkdf2_hmac_sha256(b"p", b"s", 0), pbkdf2_hmac_sha256(b"p", b"s", 1));
    }

    #[test]
    fn build_hash_of_a_version() {
        assert_eq!(hex::encode(md5(b"2.3000.1045649367")), "9fa53af9421567b114e33c9bb1ef7db2");
    }
}
