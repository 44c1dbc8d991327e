//! Primitives, as free functions over library implementations (RustCrypto, dalek): nothing else in the crate names
//! a cipher or a curve crate, so that another backend is a change to this module alone: for X25519, to the three functions of
//! `x25519.rs`. `tests/layering.rs` holds it.
//!
//! In: keys as the types of [`keys`], bytes as slices. Out: arrays and vectors. Randomness is always an argument
//! ([`Rng`]); nothing here reads a clock or the operating system.
//!
//! | file | what |
//! |---|---|
//! | [`keys`] | `PrivateKey`, `PublicKey`, `KeyPair`, `Secret<N>`, and X25519 on them |
//! | `x25519` | the curve behind it, on bare bytes (RFC 7748) |
//! | [`xeddsa`] | signatures by X25519 keys (spec 03 §1.2) |
//! | [`hash`] | SHA-256, SHA-1, MD5, PBKDF2 |
//! | `hmac` | HMAC-SHA-256, HMAC-SHA-512, HKDF-SHA-256 (RFC 5869) |
//! | [`cipher`] | AES-256-GCM, AES-256-CBC with PKCS#7, AES-256-CTR |
//! | [`xaes`] | AES-256-GCM with nonces of 24 bytes |

pub mod cipher;
pub mod hash;
mod hmac;
pub mod keys;
mod x25519;
pub mod xaes;
pub mod xeddsa;

pub use cipher::{AesCbc, AesGcm, aes256_cbc_append, aes256_cbc_decrypt, aes256_cbc_encrypt, aes256_ctr};
pub use hash::{constant_time_eq, md5, pbkdf2_hmac_sha256, sha1, sha256};
pub use hmac::{HmacSha256, HmacSha512, hkdf_sha256, hmac_sha256};
pub use keys::{KeyPair, PrivateKey, PublicKey, Secret, x25519};
pub use rand_core::{CryptoRng, Rng};
pub use xaes::XAesGcm;

/// What a primitive refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// A key, signature or nonce has the wrong number of bytes.
    #[error("{what} of {len} bytes, {expected} expected")]
    Length {
        /// Which value.
        what: &'static str,
        /// Bytes received.
        len: usize,
        /// Bytes required.
        expected: usize,
    },
    /// A serialised public key does not start with the type byte `05`.
    #[error("public key of type {0:#04x}, 0x05 expected")]
    KeyType(u8),
    /// The Diffie-Hellman result is all zero: the other side sent a point of small order.
    #[error("Diffie-Hellman with a point of small order")]
    SmallOrder,
    /// A signature does not verify.
    #[error("signature does not verify")]
    Signature,
    /// An AEAD tag does not match.
    #[error("authentication tag does not match")]
    Tag,
    /// A CBC ciphertext is empty, not a multiple of 16 bytes, or its padding is wrong.
    #[error("block cipher padding is wrong")]
    Padding,
}
