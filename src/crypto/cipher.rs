//! AES-256 in the three modes that the protocol uses.

use std::fmt;

use aes::Aes256;
use aes_gcm::aead::{AeadInOut, KeyInit as _};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyIvInit, StreamCipher, block_padding::Pkcs7};

use super::CryptoError;

/// Bytes of an AES-GCM tag.
pub const TAG_LEN: usize = 16;

/// AES-256-GCM with its key schedule, built once per key.
pub struct AesGcm(aes_gcm::Aes256Gcm);

impl AesGcm {
    /// Expands the key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(aes_gcm::Aes256Gcm::new(key.into()))
    }

    /// Encrypts `buffer` in place and appends the 16-byte tag. The caller never uses a nonce twice with one key.
    pub fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut Vec<u8>) {
        let tag = self.seal_detached(nonce, aad, buffer);
        buffer.extend_from_slice(&tag);
    }

    /// Encrypts `buffer` in place and returns the tag.
    pub fn seal_detached(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        #[expect(clippy::expect_used, reason = "the only failure is a plaintext above 64 GiB, which no buffer holds")]
        self.0.encrypt_inout_detached(nonce.into(), aad, buffer.into()).expect("plaintext is far below 64 GiB").into()
    }

    /// Checks the tag at the end of `buffer`, decrypts in place and returns the plaintext part.
    ///
    /// # Errors
    /// [`CryptoError::Tag`] when the tag does not match or is not there; the buffer is then unspecified.
    pub fn open<'a>(&self, nonce: &[u8; 12], aad: &[u8], buffer: &'a mut [u8]) -> Result<&'a mut [u8], CryptoError> {
        let Some((data, tag)) = buffer.split_last_chunk_mut::<TAG_LEN>() else { return Err(CryptoError::Tag) };
        self.0
            .decrypt_inout_detached(nonce.into(), aad, (&mut *data).into(), (&*tag).into())
            .map_err(|_| CryptoError::Tag)?;
        Ok(data)
    }
}

impl fmt::Debug for AesGcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesGcm([redacted])")
    }
}

/// AES-256-CBC with PKCS#7 padding, behind what `out` holds already: [`cbc_len`] bytes.
pub fn aes256_cbc_append(key: &[u8; 32], iv: &[u8; 16], plaintext: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(plaintext);
    out.resize(start.saturating_add(cbc_len(plaintext.len())), 0);
    let block = out.get_mut(start..).unwrap_or_default();
    #[expect(clippy::expect_used, reason = "the only failure is a buffer without room for the padding")]
    cbc::Encryptor::<Aes256>::new(key.into(), iv.into())
        .encrypt_padded::<Pkcs7>(block, plaintext.len())
        .expect("there is room for the padding");
}

/// The length of a ciphertext: padding takes 1 to 16 bytes.
pub const fn cbc_len(plaintext: usize) -> usize {
    (plaintext / 16).saturating_add(1).saturating_mul(16)
}

/// AES-256-CBC with PKCS#7 padding.
pub fn aes256_cbc_encrypt(key: &[u8; 32], iv: &[u8; 16], plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(cbc_len(plaintext.len()));
    aes256_cbc_append(key, iv, plaintext, &mut out);
    out
}

/// Undoes [`aes256_cbc_encrypt`]. Only call it on ciphertext whose MAC was checked.
///
/// # Errors
/// [`CryptoError::Padding`] for an empty or ragged ciphertext or wrong padding.
pub fn aes256_cbc_decrypt(key: &[u8; 32], iv: &[u8; 16], ciphertext: &[u8]) -> Result<Vec<u8>, CryptoError> {
    cbc::Decryptor::<Aes256>::new(key.into(), iv.into())
        .decrypt_padded_vec::<Pkcs7>(ciphertext)
        .map_err(|_| CryptoError::Padding)
}

/// AES-256-CBC with PKCS#7 padding under a key that is used more than once. The key is wiped when it is dropped.
pub struct AesCbc(Aes256);

impl AesCbc {
    /// Expands the key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Aes256::new(key.into()))
    }

    /// Decrypts `buffer` in place and returns the length of the plaintext, which is at its front. Only call it on
    /// ciphertext whose MAC was checked.
    ///
    /// # Errors
    /// [`CryptoError::Padding`] for an empty or ragged ciphertext or wrong padding; the buffer is then unspecified.
    pub fn decrypt(&self, iv: &[u8; 16], buffer: &mut [u8]) -> Result<usize, CryptoError> {
        let plaintext = cbc::Decryptor::inner_iv_init(&self.0, iv.into()).decrypt_padded::<Pkcs7>(buffer);
        plaintext.map(<[u8]>::len).map_err(|_| CryptoError::Padding)
    }
}

impl fmt::Debug for AesCbc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesCbc([redacted])")
    }
}

/// AES-256-CTR with a 128-bit big-endian counter that starts at `iv`; encrypting and decrypting are the same.
pub fn aes256_ctr(key: &[u8; 32], iv: &[u8; 16], data: &mut [u8]) {
    ctr::Ctr128BE::<Aes256>::new(key.into(), iv.into()).apply_keystream(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gcm_detects_every_changed_byte() {
        let gcm = AesGcm::new(&[7; 32]);
        let mut sealed = b"attack at dawn".to_vec();
        gcm.seal(&[1; 12], b"aad", &mut sealed);
        assert_eq!(gcm.open(&[1; 12], b"aad", &mut sealed.clone()).as_deref(), Ok(&b"attack at dawn"[..]));
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert_eq!(gcm.open(&[1; 12], b"aad", &mut bad).err(), Some(CryptoError::Tag));
        }
        assert_eq!(gcm.open(&[1; 12], b"aad", &mut [0; 15]).err(), Some(CryptoError::Tag));
    }

    #[test]
    fn cbc_refuses_ragged_input() {
        let sealed = aes256_cbc_encrypt(&[1; 32], &[2; 16], b"hello");
        assert_eq!(aes256_cbc_decrypt(&[1; 32], &[2; 16], &sealed).as_deref(), Ok(&b"hello"[..]));
        let cbc = AesCbc::new(&[1; 32]);
        assert_eq!(cbc.decrypt(&[2; 16], &mut sealed.clone()), Ok(5));
        for bad in [&[][..], &sealed[..15]] {
            assert_eq!(aes256_cbc_decrypt(&[1; 32], &[2; 16], bad), Err(CryptoError::Padding));
            assert_eq!(cbc.decrypt(&[2; 16], &mut bad.to_vec()), Err(CryptoError::Padding));
        }
    }
}
