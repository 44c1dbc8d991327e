//! The bytes of `msg` and `pkmsg` (spec 03 §2.2), and the few rules of protobuf that they need.
//!
//! ```text
//! msg     33 | 0a 21 ratchetKey[33]  10 counter  18 previousCounter  22 len ciphertext | mac[8]
//! pkmsg   33 | [08 preKeyId]  12 21 baseKey[33]  1a 21 identityKey[33]  22 len msg  28 registrationId  30 signedPreKeyId
//! ```
//!
//! Decoding borrows from the input and allocates nothing. Fields may come in any order, the last of equal ones counts,
//! unknown ones are skipped; the MAC is therefore over the bytes as received, never over a re-encoding.

use crate::crypto::PublicKey;

use super::{PreKeyId, SignalError, SignedPreKeyId};

/// The version byte: message version 3 in the high nibble, highest supported version 3 in the low one.
pub const VERSION: u8 = 0x33;
/// Bytes of the MAC at the end of a msg.
pub const MAC_LEN: usize = 8;
/// Ciphertexts are whole blocks of so many bytes.
pub(super) const BLOCK_LEN: usize = 16;

/// A `msg`, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhisperMessage<'a> {
    /// The sender's ratchet key.
    pub ratchet: PublicKey,
    /// The number of the message in its chain, from 0.
    pub counter: u32,
    /// The last counter of the sender's previous chain. Old clients underflow it; nobody acts on it.
    pub previous_counter: u32,
    /// AES-256-CBC.
    pub ciphertext: &'a [u8],
    /// The bytes under the MAC: version byte and protobuf.
    pub body: &'a [u8],
    /// The MAC received.
    pub mac: &'a [u8; MAC_LEN],
}

impl<'a> WhisperMessage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// [`SignalError::Version`], [`SignalError::Key`] or [`SignalError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SignalError> {
        let (body, mac) = bytes.split_last_chunk().ok_or(SignalError::Malformed("message shorter than its MAC"))?;
        let (mut ratchet, mut counter, mut previous_counter, mut ciphertext) = (None, None, 0, None);
        let mut fields = Fields::new(after_version(body)?);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => ratchet = Some(value.key()?),
                2 => counter = Some(value.uint32()?),
                3 => previous_counter = value.truncated()?,
                4 => ciphertext = Some(value.bytes()?),
                _ => {}
            }
        }
        let ratchet = ratchet.ok_or(SignalError::Malformed("ratchet key is missing"))?;
        let counter = counter.ok_or(SignalError::Malformed("counter is missing"))?;
        let ciphertext = ciphertext.ok_or(SignalError::Malformed("ciphertext is missing"))?;
        // Cheap to see here, before any key is touched.
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK_LEN) {
            return Err(SignalError::Malformed("ciphertext is not made of whole blocks"));
        }
        if counter == u32::MAX {
            return Err(SignalError::Malformed("counter at the end of its range"));
        }
        Ok(Self { ratchet, counter, previous_counter, ciphertext, body, mac })
    }

    /// Writes a message in canonical form up to its ciphertext, of which `len` bytes go behind it, and then the MAC over all
    /// that. The buffer has exactly the room for them.
    pub fn begin(ratchet: &PublicKey, counter: u32, previous_counter: u32, len: usize) -> Vec<u8> {
        let numbers = [u64::from(counter), previous_counter.into(), len as u64].map(raw_len).into_iter().sum::<usize>();
        let fixed = const { 1 + 2 + 33 + 1 + 1 + 1 + MAC_LEN };
        let mut out = Vec::with_capacity(fixed.saturating_add(numbers).saturating_add(len));
        out.push(VERSION);
        put_bytes(&mut out, 1, &ratchet.to_typed());
        put_varint(&mut out, 2, counter.into());
        put_varint(&mut out, 3, previous_counter.into());
        put_len(&mut out, 4, len);
        out
    }

    /// Writes the message in canonical form with the MAC that it has.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Self::begin(&self.ratchet, self.counter, self.previous_counter, self.ciphertext.len());
        out.extend_from_slice(self.ciphertext);
        out.extend_from_slice(self.mac);
        out
    }
}

/// A `pkmsg`, as received or to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreKeyMessage<'a> {
    /// The one-time prekey that the session consumes.
    pub pre_key_id: Option<PreKeyId>,
    /// The sender's base key, by which a session is recognised: the top bit, which X25519 ignores, is cleared.
    pub base_key: PublicKey,
    /// The sender's identity key.
    pub identity: PublicKey,
    /// The whole msg inside.
    pub message: &'a [u8],
    /// The sender's registration id, 0 if it sent none.
    pub registration_id: u32,
    /// The signed prekey that the session was built on.
    pub signed_pre_key_id: SignedPreKeyId,
}

impl<'a> PreKeyMessage<'a> {
    /// Reads a message; the one inside stays as bytes.
    ///
    /// # Errors
    /// [`SignalError::Version`], [`SignalError::Key`] or [`SignalError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, SignalError> {
        let (mut pre_key_id, mut base_key, mut identity, mut message) = (None, None, None, None);
        let (mut registration_id, mut signed_pre_key_id) = (0, None);
        let mut fields = Fields::new(after_version(bytes)?);
        while let Some((number, value)) = fields.next()? {
            match number {
                // Zero is how some clients write "absent".
                1 => pre_key_id = Some(value.uint32()?).filter(|&id| id != 0).map(PreKeyId),
                2 => base_key = Some(without_ignored_bit(&value.key()?)),
                3 => identity = Some(value.key()?),
                4 => message = Some(value.bytes()?),
                5 => registration_id = value.uint32()?,
                6 => signed_pre_key_id = Some(SignedPreKeyId(value.uint32()?)),
                _ => {}
            }
        }
        Ok(Self {
            pre_key_id,
            base_key: base_key.ok_or(SignalError::Malformed("base key is missing"))?,
            identity: identity.ok_or(SignalError::Malformed("identity key is missing"))?,
            message: message.ok_or(SignalError::Malformed("inner message is missing"))?,
            registration_id,
            signed_pre_key_id: signed_pre_key_id.ok_or(SignalError::Malformed("signed prekey id is missing"))?,
        })
    }

    /// Writes the message in canonical form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.message.len().saturating_add(104));
        out.push(VERSION);
        if let Some(PreKeyId(id)) = self.pre_key_id {
            put_varint(&mut out, 1, id.into());
        }
        put_bytes(&mut out, 2, &self.base_key.to_typed());
        put_bytes(&mut out, 3, &self.identity.to_typed());
        put_bytes(&mut out, 4, self.message);
        put_varint(&mut out, 5, self.registration_id.into());
        put_varint(&mut out, 6, self.signed_pre_key_id.0.into());
        out
    }
}

/// Clears the top bit of a key, which X25519 ignores (RFC 7748 §5).
///
/// The base key of a pkmsg names the session, but no MAC covers it. Were both forms different names, whoever flips the bit
/// could have a pkmsg without one-time prekey read twice.
fn without_ignored_bit(key: &PublicKey) -> PublicKey {
    let mut bytes = *key.as_bytes();
    bytes[31] &= 0x7F;
    PublicKey::from_bytes(bytes)
}

/// Takes the version byte off.
pub(super) fn after_version(bytes: &[u8]) -> Result<&[u8], SignalError> {
    match bytes.split_first() {
        Some((version, rest)) if version >> 4 == VERSION >> 4 => Ok(rest),
        Some((version, _)) => Err(SignalError::Version(version >> 4)),
        None => Err(SignalError::Malformed("message is empty")),
    }
}

/// The value of a protobuf field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which none of our messages uses.
    Fixed,
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], SignalError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(SignalError::Malformed("field of another wire type")),
        }
    }

    pub(super) fn key(self) -> Result<PublicKey, SignalError> {
        PublicKey::from_typed(self.bytes()?).map_err(SignalError::Key)
    }

    pub(super) fn uint32(self) -> Result<u32, SignalError> {
        match self {
            Self::Varint(value) => value.try_into().map_err(|_| SignalError::Malformed("number above 32 bits")),
            _ => Err(SignalError::Malformed("field of another wire type")),
        }
    }

    /// A number of which only the low 32 bits matter, as protobuf reads an `int32`.
    pub(super) fn truncated(self) -> Result<u32, SignalError> {
        match self {
            Self::Varint(value) => Ok((value & u64::from(u32::MAX)) as u32),
            _ => Err(SignalError::Malformed("field of another wire type")),
        }
    }
}

/// A cursor over the fields of a protobuf message.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The next field, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, SignalError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| SignalError::Malformed("field number too large"))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| SignalError::Malformed("field too long"))?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(SignalError::Malformed("unknown wire type")),
        };
        match tag >> 3 {
            0 => Err(SignalError::Malformed("field number 0")),
            number => Ok(Some((number, value))),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], SignalError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SignalError::Malformed("field is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, SignalError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(SignalError::Malformed("number is cut off"))?;
            self.rest = rest;
            if shift == 63 && byte > 1 {
                return Err(SignalError::Malformed("number above 64 bits"));
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(SignalError::Malformed("number above 64 bits"))
    }
}

/// Appends a number without its tag.
fn put_raw(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a number without its tag.
pub(super) const fn raw_len(value: u64) -> usize {
    match value.checked_ilog2() {
        None => 1,
        Some(highest) => (highest as usize / 7).saturating_add(1),
    }
}

/// Appends a number field.
pub(super) fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_raw(out, u64::from(number) << 3);
    put_raw(out, value);
}

/// Appends a bytes field.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_len(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends what stands before `len` bytes of a bytes field.
pub(super) fn put_len(out: &mut Vec<u8>, number: u32, len: usize) {
    put_raw(out, u64::from(number) << 3 | 2);
    put_raw(out, len as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PublicKey = PublicKey::from_bytes([7; 32]);

    fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = vec![VERSION];
        for &(number, bytes) in fields {
            put_bytes(&mut out, number, bytes);
        }
        out
    }

    #[test]
    fn canonical_messages_survive() {
        for (counter, previous) in [(0, 0), (1, 127), (128, 1 << 20), (u32::MAX - 1, u32::MAX)] {
            let mut bytes = WhisperMessage::begin(&KEY, counter, previous, 32);
            bytes.extend_from_slice(&[0xC1; 32]);
            bytes.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!(bytes.len(), bytes.capacity());
            let message = WhisperMessage::decode(&bytes).unwrap();
            assert_eq!((message.counter, message.previous_counter), (counter, previous));
            assert_eq!(message.encode(), bytes);
            let outer = PreKeyMessage {
                pre_key_id: (counter != 0).then_some(PreKeyId(counter)),
                base_key: KEY,
                identity: KEY,
                message: &bytes,
                registration_id: previous,
                signed_pre_key_id: SignedPreKeyId(counter),
            };
            assert_eq!(PreKeyMessage::decode(&outer.encode()), Ok(outer));
        }
    }

    #[test]
    fn a_prekey_id_of_zero_is_absent() {
        let outer = PreKeyMessage {
            pre_key_id: Some(PreKeyId(0)),
            base_key: KEY,
            identity: KEY,
            message: b"m",
            registration_id: 0,
            signed_pre_key_id: SignedPreKeyId(1),
        };
        assert_eq!(PreKeyMessage::decode(&outer.encode()).unwrap().pre_key_id, None);
    }

    #[test]
    fn malformed_fields_are_refused() {
        let check = |proto: &[u8], reason| {
            let bytes = [&[VERSION], proto].concat();
            assert_eq!(PreKeyMessage::decode(&bytes), Err(SignalError::Malformed(reason)));
        };
        check(&[0x08], "number is cut off");
        check(&[0x08, 0xFF], "number is cut off");
        check(&[0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02], "number above 64 bits");
        check(&[0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F], "number above 32 bits");
        check(&[0x12, 0x05, 0x05], "field is cut off");
        check(&[0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], "field is cut off");
        check(&[0x0B], "unknown wire type");
        check(&[0x02, 0x00], "field number 0");
        check(&[0x0A, 0x00], "field of another wire type");
        check(&[0x79, 1, 2, 3, 4, 5, 6, 7], "field is cut off");
        check(&[], "base key is missing");
    }

    #[test]
    fn the_last_of_equal_fields_counts_and_unknown_ones_are_skipped() {
        let (first, last) = (KEY.to_typed(), PublicKey::from_bytes([9; 32]).to_typed());
        let mut bytes = message(&[(1, &first), (9, b"?"), (1, &last), (4, &[0xC1; 16])]);
        bytes.extend_from_slice(&[0x10, 5, 0x7D, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend_from_slice(&[0; MAC_LEN]);
        let decoded = WhisperMessage::decode(&bytes).unwrap();
        assert_eq!((decoded.ratchet.to_typed(), decoded.counter, decoded.ciphertext), (last, 5, &[0xC1; 16][..]));
    }
}
