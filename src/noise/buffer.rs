//! A buffer for one message after the other.

use std::mem;

use bytes::BytesMut;

/// Takes the bytes of a message, and gives them away as a whole.
///
/// Short messages share one allocation, which is used again when those before are gone: a steady stream of them allocates
/// nothing. A longer one takes its allocation with it, so that an idle connection holds at most 4 KiB.
///
/// ```
/// use wamd::noise::MessageBuffer;
///
/// let mut buffer = MessageBuffer::new();
/// buffer.room(5).extend_from_slice(b"hello");
/// assert_eq!(buffer.take(), b"hello"[..]);
/// assert!(buffer.take().is_empty());
/// ```
#[derive(Debug, Default)]
pub struct MessageBuffer {
    bytes: BytesMut,
    /// Whether the allocation is one of [`KEPT`] bytes.
    is_kept: bool,
}

impl MessageBuffer {
    /// A buffer without memory; the first message brings it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The message so far, to which `len` bytes can be appended without an allocation.
    #[inline]
    pub fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.bytes.capacity().saturating_sub(self.bytes.len()) < len {
            self.grow(len);
        }
        &mut self.bytes
    }

    /// The whole message.
    pub fn take(&mut self) -> BytesMut {
        if self.is_kept { self.bytes.split() } else { mem::take(&mut self.bytes) }
    }

    /// The first bytes of the message, as many as `len`, which it must have.
    pub(super) fn take_first(&mut self, len: usize) -> BytesMut {
        if self.bytes.len() <= len { self.take() } else { self.bytes.split_to(len) }
    }

    /// Begins with a message that is there.
    pub(super) fn set(&mut self, message: BytesMut) {
        *self = Self { bytes: message, is_kept: false };
    }

    /// The message so far.
    pub(super) const fn bytes(&self) -> &BytesMut {
        &self.bytes
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        self.is_kept = self.bytes.is_empty() && len <= SHORT;
        self.bytes.reserve(if self.is_kept { KEPT } else { len });
    }
}

/// Bytes of the allocation that short messages share.
const KEPT: usize = 4_096;
/// Messages up to this length are short: copying them costs less than an allocation.
pub(super) const SHORT: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_messages_use_the_same_memory() {
        let mut buffer = MessageBuffer::new();
        let mut places = Vec::new();
        for round in 0..100 {
            buffer.room(500).extend_from_slice(&[round; 500]);
            let message = buffer.take();
            assert_eq!(message, [round; 500][..]);
            places.push(message.as_ptr() as usize);
        }
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), KEPT / 500);
    }

    #[test]
    fn what_was_given_away_is_not_written_over() {
        let mut buffer = MessageBuffer::new();
        let mut held = Vec::new();
        for round in 0..100u8 {
            let len = usize::from(round) * 40;
            buffer.room(len).extend_from_slice(&vec![round; len]);
            held.push(buffer.take());
        }
        for (round, message) in held.into_iter().enumerate() {
            assert_eq!(message, vec![round as u8; round * 40]);
        }
    }

    #[test]
    fn no_more_than_4_kib_stay() {
        let mut buffer = MessageBuffer::new();
        for len in [10, 100_000, 2_000, 2_049, 4_000, 10] {
            buffer.room(len).extend_from_slice(&vec![7; len]);
            assert_eq!(buffer.take().len(), len);
            assert!(buffer.bytes.capacity() <= KEPT);
            // In pieces, which let the allocation grow.
            for _ in 0..len {
                buffer.room(1).extend_from_slice(&[7]);
            }
            assert_eq!(buffer.take().len(), len);
            assert!(buffer.bytes.capacity() <= KEPT);
        }
    }
}
