//! Padding of encrypted payloads (spec 03 §4.1): `n` bytes of value `n` behind the plaintext.

use super::MessageError;
use crate::crypto::Rng;

/// What we add at most; on read up to 255 is legal.
pub const MAX_PAD: u8 = 16;

/// Appends 1 to 16 bytes, each length equally likely.
pub fn pad(plaintext: &mut Vec<u8>, rng: &mut impl Rng) {
    let mut random = [0];
    rng.fill_bytes(&mut random);
    let [random] = random;
    // 256 is a multiple of 16, so the remainder is uniform.
    pad_with(plaintext, (random % MAX_PAD).saturating_add(1));
}

/// Appends `len` bytes. For vectors; elsewhere [`pad`] is right. 0 makes a payload that cannot be read.
pub fn pad_with(plaintext: &mut Vec<u8>, len: u8) {
    plaintext.resize(plaintext.len().saturating_add(len.into()), len);
}

/// Takes the padding off. `version` is the `v` of `<enc>`: 2 is padded; 3 is another envelope, which WhatsApp chats do not
/// use.
///
/// # Errors
/// [`MessageError::Version`] for anything but 2, [`MessageError::Empty`], [`MessageError::PaddingLength`],
/// [`MessageError::PaddingBytes`].
pub fn unpad(version: u8, padded: &[u8]) -> Result<&[u8], MessageError> {
    if version != PADDED_VERSION {
        return Err(MessageError::Version(version));
    }
    let &pad = padded.last().ok_or(MessageError::Empty)?;
    let len = padded.len();
    let start = len.checked_sub(pad.into()).filter(|_| pad != 0).ok_or(MessageError::PaddingLength { pad, len })?;
    let (plaintext, padding) = padded.split_at_checked(start).ok_or(MessageError::PaddingLength { pad, len })?;
    if padding.iter().any(|&byte| byte != pad) {
        return Err(MessageError::PaddingBytes);
    }
    Ok(plaintext)
}

/// The `v` of `<enc>` whose payload is padded.
const PADDED_VERSION: u8 = 2;
