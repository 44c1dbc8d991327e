//! The hash of a set that can be added to and subtracted from (spec 05 §A4).
//!
//! 128 bytes as 64 little-endian lanes of 16 bits, each a sum modulo 65,536. The order of operations does not matter, and
//! nothing is secret.

use std::fmt;

use super::ValueMac;
use crate::crypto::hkdf_sha256;

/// What a value is expanded under.
const INFO: &[u8] = b"WhatsApp Patch Integrity";

/// The sum of all current value MACs of a collection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LtHash([u16; 64]);

impl LtHash {
    /// Bytes of its stored form.
    pub const LEN: usize = 128;

    /// The hash of an empty set.
    pub const fn new() -> Self {
        Self([0; 64])
    }

    /// From its 128 bytes.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut lanes = [0; 64];
        lanes.iter_mut().zip(bytes.as_chunks().0).for_each(|(lane, bytes)| *lane = u16::from_le_bytes(*bytes));
        Self(lanes)
    }

    /// Its 128 bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes.as_chunks_mut().0.iter_mut().zip(self.0).for_each(|(bytes, lane)| *bytes = lane.to_le_bytes());
        bytes
    }

    /// Takes a value into the set.
    pub fn add(&mut self, value: &ValueMac) {
        self.combine(value, u16::wrapping_add);
    }

    /// Takes a value out of the set.
    pub fn subtract(&mut self, value: &ValueMac) {
        self.combine(value, u16::wrapping_sub);
    }

    fn combine(&mut self, value: &ValueMac, operation: impl Fn(u16, u16) -> u16) {
        let expanded: [u8; Self::LEN] = hkdf_sha256(None, value, INFO);
        for (lane, bytes) in self.0.iter_mut().zip(expanded.as_chunks().0) {
            *lane = operation(*lane, u16::from_le_bytes(*bytes));
        }
    }
}

impl Default for LtHash {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LtHash {
    /// The first lane, enough to tell two apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LtHash({:04x}…)", self.0.first().copied().unwrap_or_default())
    }
}
