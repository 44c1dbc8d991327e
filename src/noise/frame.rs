//! Frames, and what stands in front of the first one (spec 01 §1.2–1.4).
//!
//! ```text
//! client:  [ 45 44 00 01 | length (3) | routing info ]  57 41 06 03   frame  frame …
//! server:                                                             frame  frame …
//! frame:   length (3, big-endian) | payload, 0 ..= 0xFF_FFFF bytes
//! ```
//!
//! In: chunks of any size, cut anywhere. Out: whole payloads that own their bytes. The announced length is checked
//! against a limit before anything is buffered for it, and memory grows with what arrived, never with what was announced.

use std::{fmt, mem};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    HEADER,
    buffer::{MessageBuffer, SHORT},
};

/// The longest payload that a 3-byte length can announce.
pub const MAX_PAYLOAD: usize = 0xFF_FFFF;

/// A sensible limit while the other side is not authenticated yet. Hellos have a few hundred bytes; post-quantum ones
/// would have a few thousand.
pub const MAX_HANDSHAKE_PAYLOAD: usize = 0x1_0000;

/// Bytes of a length.
pub(super) const LENGTH_LEN: usize = 3;

/// Announces edge-routing info: `ED`, version 1 (spec 01 §1.3).
const PRE_INTRO: [u8; 4] = [0x45, 0x44, 0x00, 0x01];

/// What the frame layer refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The announced or given length is above the limit. Of a received frame: the peer is broken or hostile, and the
    /// stream cannot go on.
    #[error("frame of {len} bytes, at most {max} allowed")]
    TooLong {
        /// Bytes of the payload.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// Takes chunks of the stream and gives whole payloads.
///
/// ```
/// use wamd::noise::FrameBuffer;
///
/// let mut frames = FrameBuffer::new(1024);
/// frames.push(&[0, 0, 2, b'h']);
/// assert_eq!(frames.next_frame(), Ok(None));
/// frames.push(&[b'i', 0]);
/// assert_eq!(frames.next_frame().unwrap().unwrap(), b"hi"[..]);
/// assert_eq!(frames.next_frame(), Ok(None));
/// ```
pub struct FrameBuffer {
    buf: MessageBuffer,
    max: usize,
}

impl FrameBuffer {
    /// Accepts payloads of at most `max` bytes; more than [`MAX_PAYLOAD`] cannot be announced anyway.
    pub fn new(max: usize) -> Self {
        Self { buf: MessageBuffer::new(), max }
    }

    /// Changes the limit, for frames not yet taken: small during the handshake, [`MAX_PAYLOAD`] afterwards.
    pub const fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Appends a copy of the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buf.room(chunk.len()).extend_from_slice(chunk);
    }

    /// Appends the next bytes of the stream. More than 2 KiB are taken over without a copy when nothing waits and nobody
    /// else holds them; copying less than that costs less than the allocation that goes with it.
    pub fn push_owned(&mut self, chunk: Bytes) {
        if !self.buf.bytes().is_empty() || chunk.len() <= SHORT {
            return self.push(&chunk);
        }
        match chunk.try_into_mut() {
            Ok(owned) => self.buf.set(owned),
            Err(shared) => self.push(&shared),
        }
    }

    /// Takes the next whole payload; `None` until more bytes have arrived.
    ///
    /// # Errors
    /// [`FrameError::TooLong`], and again on every further call: there is no way to find the next frame.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let waiting = self.buf.bytes();
        let Some(&length) = waiting.first_chunk() else { return Ok(None) };
        let len = decode_length(length);
        if len > self.max {
            return Err(FrameError::TooLong { len, max: self.max });
        }
        let end = len.saturating_add(LENGTH_LEN);
        if waiting.len() < end {
            return Ok(None);
        }
        let mut frame = self.buf.take_first(end);
        frame.advance(LENGTH_LEN);
        Ok(Some(frame))
    }

    /// Bytes that wait for the rest of their frame or for [`next_frame`](Self::next_frame).
    pub fn buffered(&self) -> usize {
        self.buf.bytes().len()
    }
}

impl fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuffer").field("buffered", &self.buf.bytes().len()).field("max", &self.max).finish()
    }
}

/// Appends the frame of `payload` to `out`.
///
/// # Errors
/// [`FrameError::TooLong`] above [`MAX_PAYLOAD`]; `out` is then unchanged.
pub fn encode(payload: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
    let length = encode_length(payload.len())?;
    out.reserve(payload.len().saturating_add(LENGTH_LEN));
    out.extend_from_slice(&length);
    out.extend_from_slice(payload);
    Ok(())
}

/// What a client sends in front of its first frame: the pre-intro if it has routing info, and the header.
///
/// Routing info is only a hint, so an empty one, or one that no 3-byte length can announce, is left out.
pub fn intro(routing_info: Option<&[u8]>) -> Vec<u8> {
    let routed =
        routing_info.filter(|info| !info.is_empty()).and_then(|info| Some((info, encode_length(info.len()).ok()?)));
    match routed {
        Some((info, length)) => [&PRE_INTRO[..], &length, info, &HEADER].concat(),
        None => HEADER.to_vec(),
    }
}

/// What a server refuses in front of the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntroError {
    /// The stream starts neither with the header nor with the pre-intro.
    #[error("connection starts with {0:02x?}, not with a WhatsApp header")]
    Magic([u8; 4]),
    /// Another protocol version or token dictionary.
    #[error("protocol {protocol}, dictionary {dictionary}; 6 and 3 expected")]
    Version {
        /// Third byte of the header.
        protocol: u8,
        /// Fourth byte of the header.
        dictionary: u8,
    },
    /// The routing info is above the limit.
    #[error("routing info of {len} bytes, at most {max} allowed")]
    RoutingInfoTooLong {
        /// Bytes announced.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// What a client sent in front of its first frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Intro {
    /// The edge-routing info, when there was a pre-intro. Opaque.
    pub routing_info: Option<Bytes>,
    /// What arrived after the header: the first bytes for a [`FrameBuffer`].
    pub rest: Bytes,
}

impl fmt::Debug for Intro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routing_info = self.routing_info.as_ref().map(Bytes::len);
        f.debug_struct("Intro").field("routing_info", &routing_info).field("rest", &self.rest.len()).finish()
    }
}

/// The server's side of [`intro`]: takes chunks of the stream until the header is complete.
pub struct IntroReader {
    buf: BytesMut,
    routing_info: Option<Bytes>,
    max_routing_info: usize,
}

impl IntroReader {
    /// Accepts routing info of at most `max_routing_info` bytes.
    pub fn new(max_routing_info: usize) -> Self {
        Self { buf: BytesMut::new(), routing_info: None, max_routing_info }
    }

    /// Appends the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buf.extend_from_slice(chunk);
    }

    /// The intro, once it is complete; `None` until more bytes have arrived. Afterwards the reader is spent.
    ///
    /// # Errors
    /// [`IntroError`] when this is not a client of this protocol, and again on every further call.
    pub fn next_intro(&mut self) -> Result<Option<Intro>, IntroError> {
        let Some(&start) = self.buf.first_chunk() else { return Ok(None) };
        if start == PRE_INTRO && self.routing_info.is_none() {
            let Some(&[_, _, _, _, a, b, c]) = self.buf.first_chunk() else { return Ok(None) };
            let (len, max) = (decode_length([a, b, c]), self.max_routing_info);
            if len > max {
                return Err(IntroError::RoutingInfoTooLong { len, max });
            }
            let start = PRE_INTRO.len().saturating_add(LENGTH_LEN);
            let end = start.saturating_add(len);
            if self.buf.len() < end {
                return Ok(None);
            }
            let mut pre_intro = self.buf.split_to(end);
            pre_intro.advance(start);
            self.routing_info = Some(pre_intro.freeze());
        }
        let Some(&start) = self.buf.first_chunk() else { return Ok(None) };
        match start {
            HEADER => {
                self.buf.advance(HEADER.len());
                Ok(Some(Intro { routing_info: self.routing_info.take(), rest: mem::take(&mut self.buf).freeze() }))
            }
            [0x57, 0x41, protocol, dictionary] => Err(IntroError::Version { protocol, dictionary }),
            other => Err(IntroError::Magic(other)),
        }
    }
}

impl fmt::Debug for IntroReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntroReader").field("buffered", &self.buf.len()).finish_non_exhaustive()
    }
}

/// The length in front of a payload.
pub(super) fn encode_length(len: usize) -> Result<[u8; LENGTH_LEN], FrameError> {
    match u32::try_from(len).map(u32::to_be_bytes) {
        Ok([0, a, b, c]) => Ok([a, b, c]),
        _ => Err(FrameError::TooLong { len, max: MAX_PAYLOAD }),
    }
}

fn decode_length([a, b, c]: [u8; LENGTH_LEN]) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = BytesMut::new();
        payloads.iter().for_each(|payload| encode(payload, &mut out).unwrap());
        out.to_vec()
    }

    fn drain(frames: &mut FrameBuffer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| frames.next_frame().unwrap()).map(|frame| frame.to_vec()).collect()
    }

    #[test]
    fn chunks_of_every_size_give_the_same_payloads() {
        let payloads = [&b""[..], b"a", &[7; 300], b"", &[0; 0x1_0001]];
        let stream = framed(&payloads);
        for size in [1, 2, 3, 4, 5, 299, 301, 1000, stream.len()] {
            let (mut copied, mut owned) = (FrameBuffer::new(MAX_PAYLOAD), FrameBuffer::new(MAX_PAYLOAD));
            let (mut from_copied, mut from_owned) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                copied.push(chunk);
                owned.push_owned(Bytes::copy_from_slice(chunk));
                from_copied.extend(drain(&mut copied));
                from_owned.extend(drain(&mut owned));
            }
            assert_eq!(from_copied, payloads, "chunks of {size}");
            assert_eq!(from_owned, payloads, "chunks of {size}");
            assert_eq!((copied.buffered(), owned.buffered()), (0, 0));
        }
    }

    #[test]
    fn a_long_owned_chunk_is_not_copied() {
        let mut frames = FrameBuffer::new(MAX_PAYLOAD);
        let chunk = Bytes::from(framed(&[&[7; SHORT]]));
        let address = chunk.as_ptr() as usize;
        frames.push_owned(chunk);
        assert_eq!(frames.next_frame().unwrap().unwrap().as_ptr() as usize, address + LENGTH_LEN);
    }

    #[test]
    fn a_shared_chunk_stays_as_it_is() {
        for len in [3, SHORT] {
            let mut frames = FrameBuffer::new(MAX_PAYLOAD);
            let chunk = Bytes::from(framed(&[&vec![7; len]]));
            frames.push_owned(chunk.clone());
            frames.next_frame().unwrap().unwrap().fill(0);
            assert_eq!(chunk, framed(&[&vec![7; len]]));
        }
    }

    #[test]
    fn the_limit_holds_before_the_payload_arrives_and_for_ever() {
        let mut frames = FrameBuffer::new(9);
        frames.push(&[0, 0, 10]);
        for _ in 0..3 {
            assert_eq!(frames.next_frame(), Err(FrameError::TooLong { len: 10, max: 9 }));
            frames.push(&[0; 20]);
        }
        frames.set_max(10);
        assert_eq!(frames.next_frame().unwrap().unwrap(), [0; 10][..]);
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut frames = FrameBuffer::new(MAX_PAYLOAD);
        frames.push(&[0xFF; 3]);
        assert_eq!(frames.next_frame(), Ok(None));
        assert!(frames.buf.bytes().capacity() <= 4_096);
    }

    #[test]
    fn an_idle_buffer_holds_little() {
        let mut frames = FrameBuffer::new(MAX_PAYLOAD);
        frames.push_owned(framed(&[&[1; 100_000], b"short"]).into());
        assert_eq!(drain(&mut frames).len(), 2);
        assert_eq!(frames.buf.bytes().capacity(), 0);
        frames.push(&framed(&[&[1; 100_000], b"short"]));
        assert_eq!(drain(&mut frames).len(), 2);
        assert_eq!(frames.buf.bytes().capacity(), 0);
        frames.push(&framed(&[b"short"]));
        assert_eq!(drain(&mut frames).len(), 1);
        assert!(frames.buf.bytes().capacity() <= 4_096);
    }

    #[test]
    fn too_long_a_payload_is_not_encoded() {
        let mut out = BytesMut::from(&b"x"[..]);
        let refused = encode(&vec![0; MAX_PAYLOAD + 1], &mut out);
        assert_eq!(refused, Err(FrameError::TooLong { len: MAX_PAYLOAD + 1, max: MAX_PAYLOAD }));
        assert_eq!(out, b"x"[..]);
        assert_eq!(encode(&vec![0; MAX_PAYLOAD], &mut out), Ok(()));
        assert_eq!(out[..4], *b"x\xFF\xFF\xFF");
    }

    fn read_intro(stream: &[u8], chunk: usize) -> Result<Option<Intro>, IntroError> {
        let mut reader = IntroReader::new(16);
        let mut rest = stream.chunks(chunk);
        while let Some(chunk) = rest.next() {
            reader.push(chunk);
            if let Some(mut intro) = reader.next_intro()? {
                intro.rest = [&intro.rest[..], &rest.flatten().copied().collect::<Vec<_>>()].concat().into();
                return Ok(Some(intro));
            }
        }
        Ok(None)
    }

    #[test]
    fn the_intro_comes_back_from_chunks_of_every_size() {
        for routing_info in [None, Some(&b"\x01"[..]), Some(&[0x45; 16])] {
            let stream = [&intro(routing_info)[..], b"rest"].concat();
            for chunk in 1..=stream.len() {
                let intro = read_intro(&stream, chunk).unwrap().unwrap();
                assert_eq!(intro.routing_info.as_deref(), routing_info);
                assert_eq!(intro.rest, b"rest"[..]);
            }
            assert_eq!(read_intro(&stream[..stream.len() - 5], 1), Ok(None));
        }
    }

    #[test]
    fn useless_routing_info_is_left_out() {
        assert_eq!(intro(Some(b"")), HEADER);
        assert_eq!(intro(Some(&vec![0; MAX_PAYLOAD + 1])), HEADER);
        assert_eq!(intro(Some(&vec![0; MAX_PAYLOAD])).len(), 4 + 3 + MAX_PAYLOAD + 4);
    }

    #[test]
    fn other_protocols_are_refused() {
        let check = |stream: &[u8], error| assert_eq!(read_intro(stream, 1), Err(error));
        check(b"GET / HTTP/1.1", IntroError::Magic(*b"GET "));
        check(b"WA\x06\x02", IntroError::Version { protocol: 6, dictionary: 2 });
        check(b"WA\x05\x03", IntroError::Version { protocol: 5, dictionary: 3 });
        check(b"ED\x00\x02", IntroError::Magic(*b"ED\x00\x02"));
        check(b"ED\x00\x01\x00\x00\x11", IntroError::RoutingInfoTooLong { len: 17, max: 16 });
        check(b"ED\x00\x01\x00\x00\x01xED\x00\x01\x00\x00\x01x", IntroError::Magic(*b"ED\x00\x01"));
    }
}
