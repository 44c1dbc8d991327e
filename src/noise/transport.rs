//! The transport phase: every frame is one AES-256-GCM ciphertext (spec 01 §2.6).
//!
//! ```text
//! frame = length (3) | ciphertext | tag (16)        key per direction, from the split
//! nonce = 8 zero bytes | counter (4, big-endian)    0 for the first frame, then +1, never again for that key
//! ```
//!
//! Sealing takes `&mut self` and writes the frame at once, so the order of frames is the order of counters. A frame
//! that does not open means that the stream is corrupt or tampered with: the connection is over.

use bytes::{Bytes, BytesMut};

use super::{
    frame::{LENGTH_LEN, MAX_PAYLOAD, encode_length},
    symmetric::nonce,
};
use crate::crypto::{AesGcm, Secret, cipher::TAG_LEN};

/// The longest plaintext that fits a frame.
pub const MAX_PLAINTEXT: usize = MAX_PAYLOAD - TAG_LEN;

/// Bytes that a frame has besides its plaintext: the length and the tag.
pub const FRAME_OVERHEAD: usize = LENGTH_LEN + TAG_LEN;

/// What the transport cipher refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The counter of this direction is used up: connect again.
    #[error("frame counter is used up")]
    Exhausted,
    /// The plaintext does not fit a frame.
    #[error("plaintext of {len} bytes, at most {max} fit a frame")]
    TooLong {
        /// Bytes of the plaintext.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A received frame is not authentic, or one before it was not. The connection is over.
    #[error("frame does not authenticate")]
    Tag,
}

/// Both directions of a connection after the handshake. The fields are public so that they can go separate ways.
#[derive(Debug)]
pub struct Transport {
    /// Seals what we send.
    pub sender: SealingKey,
    /// Opens what we receive.
    pub receiver: OpeningKey,
}

impl Transport {
    /// For the client, from [`SymmetricState::split`](super::SymmetricState::split).
    pub fn initiator((write, read): (Secret<32>, Secret<32>)) -> Self {
        Self { sender: SealingKey::new(&write), receiver: OpeningKey::new(&read) }
    }

    /// For the server, from [`SymmetricState::split`](super::SymmetricState::split).
    pub fn responder((read, write): (Secret<32>, Secret<32>)) -> Self {
        Self { sender: SealingKey::new(&write), receiver: OpeningKey::new(&read) }
    }
}

/// The key of the sending direction with its counter.
#[derive(Debug)]
pub struct SealingKey {
    cipher: AesGcm,
    counter: u32,
}

impl SealingKey {
    fn new(key: &Secret<32>) -> Self {
        Self { cipher: AesGcm::new(key.expose()), counter: 0 }
    }

    /// Appends one whole frame with the sealed `plaintext` to `out`.
    ///
    /// # Errors
    /// [`TransportError::TooLong`] above [`MAX_PLAINTEXT`]; [`TransportError::Exhausted`] when the counter would wrap.
    /// Then `out` and the counter are unchanged.
    pub fn seal_into(&mut self, plaintext: &[u8], out: &mut BytesMut) -> Result<(), TransportError> {
        let too_long = TransportError::TooLong { len: plaintext.len(), max: MAX_PLAINTEXT };
        let length = encode_length(plaintext.len().saturating_add(TAG_LEN)).map_err(|_| too_long)?;
        let next = self.counter.checked_add(1).ok_or(TransportError::Exhausted)?;

        out.reserve(plaintext.len().saturating_add(FRAME_OVERHEAD));
        out.extend_from_slice(&length);
        let start = out.len();
        out.extend_from_slice(plaintext);
        let (_, data) = out.split_at_mut(start);
        let tag = self.cipher.seal_detached(&nonce(self.counter), &[], data);
        out.extend_from_slice(&tag);
        self.counter = next;
        Ok(())
    }

    /// Frames sealed so far.
    pub const fn counter(&self) -> u32 {
        self.counter
    }
}

/// The key of the receiving direction with its counter.
#[derive(Debug)]
pub struct OpeningKey {
    cipher: AesGcm,
    counter: u32,
    broken: bool,
}

impl OpeningKey {
    fn new(key: &Secret<32>) -> Self {
        Self { cipher: AesGcm::new(key.expose()), counter: 0, broken: false }
    }

    /// Opens the payload of the next frame in place.
    ///
    /// # Errors
    /// [`TransportError::Tag`] for a payload that is not authentic, and from then on for every payload;
    /// [`TransportError::Exhausted`] when the counter would wrap.
    pub fn open(&mut self, mut payload: BytesMut) -> Result<Bytes, TransportError> {
        if self.broken {
            return Err(TransportError::Tag);
        }
        let next = self.counter.checked_add(1).ok_or(TransportError::Exhausted)?;
        let Ok(plaintext) = self.cipher.open(&nonce(self.counter), &[], &mut payload) else {
            self.broken = true;
            return Err(TransportError::Tag);
        };
        let len = plaintext.len();
        payload.truncate(len);
        self.counter = next;
        Ok(payload.freeze())
    }

    /// Frames opened so far.
    pub const fn counter(&self) -> u32 {
        self.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::FrameBuffer;

    fn pair() -> (Transport, Transport) {
        let keys = || (Secret::new([1; 32]), Secret::new([2; 32]));
        (Transport::initiator(keys()), Transport::responder(keys()))
    }

    fn payload(frame: &BytesMut) -> BytesMut {
        let mut frames = FrameBuffer::new(MAX_PAYLOAD);
        frames.push(frame);
        frames.next_frame().unwrap().unwrap()
    }

    #[test]
    fn both_directions_have_their_own_key_and_counter() {
        let (mut client, mut server) = pair();
        for message in [&b"one"[..], b"", b"three"] {
            let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
            client.sender.seal_into(message, &mut up).unwrap();
            server.sender.seal_into(message, &mut down).unwrap();
            assert_ne!(up, down);
            assert_eq!(server.receiver.open(payload(&up)).unwrap(), message);
            assert_eq!(client.receiver.open(payload(&down)).unwrap(), message);
        }
        assert_eq!((client.sender.counter(), client.receiver.counter()), (3, 3));
    }

    #[test]
    fn one_bad_frame_ends_the_connection() {
        let (mut client, mut server) = pair();
        let (mut first, mut second) = (BytesMut::new(), BytesMut::new());
        client.sender.seal_into(b"first", &mut first).unwrap();
        client.sender.seal_into(b"second", &mut second).unwrap();
        assert_eq!(server.receiver.open(payload(&second)), Err(TransportError::Tag), "out of order");
        assert_eq!(server.receiver.open(payload(&first)), Err(TransportError::Tag), "the failure stays");
        assert_eq!(server.receiver.counter(), 0);
        assert_eq!(pair().1.receiver.open(BytesMut::new()), Err(TransportError::Tag), "shorter than a tag");
    }

    #[test]
    fn counters_never_wrap() {
        let (mut client, mut server) = pair();
        client.sender.counter = u32::MAX - 1;
        server.receiver.counter = u32::MAX - 1;
        let mut out = BytesMut::new();
        client.sender.seal_into(b"last", &mut out).unwrap();
        assert_eq!(server.receiver.open(payload(&out)).unwrap(), b"last"[..]);
        let last = out.clone();
        assert_eq!(client.sender.seal_into(b"x", &mut out), Err(TransportError::Exhausted));
        assert_eq!(out, last, "nothing is written");
        assert_eq!(server.receiver.open(payload(&last)), Err(TransportError::Exhausted));
        assert_eq!((client.sender.counter(), server.receiver.counter()), (u32::MAX, u32::MAX));
    }

    #[test]
    fn what_does_not_fit_a_frame_is_refused() {
        let (mut client, _) = pair();
        let mut out = BytesMut::new();
        let refused = client.sender.seal_into(&vec![0; MAX_PLAINTEXT + 1], &mut out);
        assert_eq!(refused, Err(TransportError::TooLong { len: MAX_PLAINTEXT + 1, max: MAX_PLAINTEXT }));
        assert_eq!((out.len(), client.sender.counter()), (0, 0));
        client.sender.seal_into(&vec![0; MAX_PLAINTEXT], &mut out).unwrap();
        assert_eq!(out.len(), 3 + MAX_PAYLOAD);
    }

    /// The plaintext lies where the ciphertext arrived, for every frame of a message; what is sealed is allocated once.
    #[test]
    fn frames_are_opened_where_they_arrived() {
        let (mut client, mut server) = pair();
        let mut out = BytesMut::new();
        client.sender.seal_into(&[7; 5_000], &mut out).unwrap();
        assert!(out.capacity() < 5_000 + 2 * FRAME_OVERHEAD, "{}", out.capacity());
        client.sender.seal_into(b"second", &mut out).unwrap();
        let message = out.freeze();
        let arrived = message.as_ptr() as usize;
        let mut frames = FrameBuffer::new(MAX_PAYLOAD);
        frames.push_owned(message);
        let mut place = arrived + LENGTH_LEN;
        for len in [5_000, 6] {
            let opened = server.receiver.open(frames.next_frame().unwrap().unwrap()).unwrap();
            assert_eq!((opened.as_ptr() as usize, opened.len()), (place, len));
            place += len + FRAME_OVERHEAD;
        }
    }

    #[test]
    fn frames_are_appended() {
        let (mut client, mut server) = pair();
        let mut out = BytesMut::new();
        client.sender.seal_into(b"a", &mut out).unwrap();
        client.sender.seal_into(b"b", &mut out).unwrap();
        let mut frames = FrameBuffer::new(MAX_PAYLOAD);
        frames.push_owned(out.freeze());
        for expected in [&b"a"[..], b"b"] {
            let payload = frames.next_frame().unwrap().unwrap();
            assert_eq!(server.receiver.open(payload).unwrap(), expected);
        }
    }
}
