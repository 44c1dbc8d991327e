//! The plain binary form of stored records: fixed-size fields, big-endian, behind a version byte.

use crate::crypto::{KeyPair, PrivateKey, PublicKey, Secret};

use super::SignalError;

/// The version that every record starts with.
pub(super) const VERSION: u8 = 1;

/// A cursor over a stored record.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the version byte of the record `what`.
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self, SignalError> {
        let mut reader = Self { rest: bytes, what };
        match reader.u8()? {
            VERSION => Ok(reader),
            version => Err(SignalError::RecordVersion { what, version }),
        }
    }

    pub(super) const fn damaged(&self, reason: &'static str) -> SignalError {
        SignalError::Record { what: self.what, reason }
    }

    /// Refuses the record unless `condition` holds.
    pub(super) fn ensure(&self, condition: bool, reason: &'static str) -> Result<(), SignalError> {
        if condition { Ok(()) } else { Err(self.damaged(reason)) }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], SignalError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged("it is cut off"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, SignalError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, SignalError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, SignalError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, SignalError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn secret<const N: usize>(&mut self) -> Result<Secret<N>, SignalError> {
        self.array().map(Secret::new)
    }

    pub(super) fn public(&mut self) -> Result<PublicKey, SignalError> {
        self.array().map(PublicKey::from_bytes)
    }

    pub(super) fn pair(&mut self) -> Result<KeyPair, SignalError> {
        let private = PrivateKey::from_bytes(self.array()?);
        Ok(KeyPair::from_parts(private, self.public()?))
    }

    /// A count of at most `max`; each element takes bytes of the record, so a lying count fails at its end.
    pub(super) fn count(&mut self, max: usize) -> Result<usize, SignalError> {
        let count = usize::from(self.u16()?);
        self.ensure(count <= max, "a list is too long")?;
        Ok(count)
    }

    /// Whether everything was read.
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses what stands behind the record.
    pub(super) fn finish(self) -> Result<(), SignalError> {
        self.ensure(self.rest.is_empty(), "bytes behind its end")
    }
}

/// Appends big-endian fields to a record under construction.
pub(super) trait Put {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_pair(&mut self, pair: &KeyPair);
    /// A count that [`Reader::count`] reads; no list here is longer than its limit, and those fit.
    fn put_count(&mut self, count: usize);
}

impl Put for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_pair(&mut self, pair: &KeyPair) {
        self.extend_from_slice(pair.private().expose());
        self.extend_from_slice(pair.public().as_bytes());
    }

    fn put_count(&mut self, count: usize) {
        self.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
    }
}
