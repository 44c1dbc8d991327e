//! A connection after the handshake: from stanzas to messages of the websocket, and the keys for it.
//!
//! ```text
//! stanza, stanza, …  ──seal──▶  [ frame | frame | … ]  one message: at most 16 frames, at most 64 KiB unless it is one frame
//! ```
//!
//! What is sealed here has used its counter, whether the message arrives or not. So there is no second attempt: a message
//! that cannot be written, or a frame that cannot be sealed, is the end of the connection. The wire goes with it, keys and all, and
//! the next connection agrees on others.

use bytes::BytesMut;

use crate::{
    node::Decoder,
    noise::{FrameBuffer, MessageBuffer, Transport, TransportError, transport::FRAME_OVERHEAD},
};

/// How many frames one message has at most: one write then carries what a burst of receipts needs.
const MAX_FRAMES: usize = 16;
/// Bytes of one message at most, if it has more than one frame: what goes first should not wait for too much else.
const MAX_BYTES: usize = 64 * 1024;

/// A connection after the handshake.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(super) frames: FrameBuffer,
    pub(super) transport: Transport,
    pub(super) decoder: Decoder,
    message: MessageBuffer,
    failure: Option<TransportError>,
}

impl Wire {
    pub(super) fn new(frames: FrameBuffer, transport: Transport, decoder: Decoder) -> Self {
        Self { frames, transport, decoder, message: MessageBuffer::new(), failure: None }
    }

    /// Seals a stanza, and as many behind it as one message takes. `next` gives the next one if it has no more than that
    /// many bytes. Empty when nothing was sealed.
    ///
    /// After a failure nothing more is sealed; what was sealed before it is good.
    pub(crate) fn seal<S: AsRef<[u8]>>(&mut self, first: &[u8], mut next: impl FnMut(usize) -> Option<S>) -> BytesMut {
        self.append(first);
        let mut used = first.len().saturating_add(FRAME_OVERHEAD);
        for _ in 1..MAX_FRAMES {
            used = used.saturating_add(FRAME_OVERHEAD);
            let (None, Some(room)) = (self.failure, MAX_BYTES.checked_sub(used)) else { break };
            let Some(stanza) = next(room) else { break };
            self.append(stanza.as_ref());
            used = used.saturating_add(stanza.as_ref().len());
        }
        self.message.take()
    }

    /// Why nothing can be sealed any more.
    pub(super) const fn failure(&self) -> Option<TransportError> {
        self.failure
    }

    fn append(&mut self, stanza: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        let room = self.message.room(stanza.len().saturating_add(FRAME_OVERHEAD));
        if let Err(error) = self.transport.sender.seal_into(stanza, room) {
            tracing::warn!(%error, "a frame cannot be sealed");
            self.failure = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, time::Duration};

    use super::*;
    use crate::{
        clock::Now,
        crypto::Secret,
        engine::{Config, ConnectionId, Engine, Input, Loaded, Output, Queued, connection::State, link::Link},
        noise::{OpeningKey, transport::MAX_PLAINTEXT},
        store::AccountId,
    };

    fn wire() -> (Wire, OpeningKey) {
        let keys = || (Secret::new([1; 32]), Secret::new([2; 32]));
        let wire = Wire::new(FrameBuffer::new(0), Transport::initiator(keys()), Decoder::default());
        (wire, Transport::responder(keys()).receiver)
    }

    /// Seals all of `stanzas`; gives the sizes of the frames, message by message.
    fn messages(stanzas: &[usize]) -> Vec<Vec<usize>> {
        let (mut wire, mut receiver) = wire();
        let mut queue: VecDeque<Vec<u8>> = stanzas.iter().map(|len| vec![7; *len]).collect();
        let mut messages = Vec::new();
        while let Some(first) = queue.pop_front() {
            let message = wire.seal(&first, |room| queue.pop_front_if(|stanza| stanza.len() <= room));
            let mut frames = FrameBuffer::new(usize::MAX);
            frames.push_owned(message.freeze());
            let payloads = std::iter::from_fn(|| frames.next_frame().unwrap());
            messages.push(payloads.map(|payload| receiver.open(payload).unwrap().len()).collect());
            assert_eq!(frames.buffered(), 0);
        }
        assert_eq!(messages.concat(), stanzas, "all of them, in order");
        messages
    }

    #[test]
    fn a_message_has_at_most_16_frames() {
        assert_eq!(messages(&[10]), [[10]]);
        assert_eq!(messages(&[10; 16]), [[10; 16]]);
        assert_eq!(messages(&[10; 17]), [vec![10; 16], vec![10]]);
        assert_eq!(messages(&[10; 40]), [vec![10; 16], vec![10; 16], vec![10; 8]]);
    }

    #[test]
    fn a_message_has_at_most_64_kib_unless_it_is_one_frame() {
        const FULL: usize = MAX_BYTES - FRAME_OVERHEAD;
        assert_eq!(messages(&[FULL, 0]), [[FULL], [0]]);
        assert_eq!(messages(&[FULL - FRAME_OVERHEAD, 0, 0]), [vec![FULL - FRAME_OVERHEAD, 0], vec![0]]);
        assert_eq!(messages(&[FULL - FRAME_OVERHEAD - 5, 5]), [vec![FULL - FRAME_OVERHEAD - 5, 5]]);
        assert_eq!(messages(&[FULL - FRAME_OVERHEAD - 5, 6]), [[FULL - FRAME_OVERHEAD - 5], [6]]);
        assert_eq!(messages(&[1, 1, 200_000, 1, 1]), [vec![1, 1], vec![200_000], vec![1, 1]]);
        assert_eq!(messages(&[30_000; 5]), [vec![30_000; 2], vec![30_000; 2], vec![30_000]]);
    }

    #[test]
    fn after_a_failure_nothing_is_sealed() {
        let (mut wire, mut receiver) = wire();
        let mut queue = VecDeque::from([vec![0; MAX_PLAINTEXT + 1], b"after".to_vec()]);
        // One message ends with the frame that fails, although the queue says that it fits.
        let message = wire.seal(b"before", |_| queue.pop_front());
        assert_eq!(wire.failure(), Some(TransportError::TooLong { len: MAX_PLAINTEXT + 1, max: MAX_PLAINTEXT }));
        assert_eq!(queue.len(), 1, "what is behind it stays");
        let mut frames = FrameBuffer::new(usize::MAX);
        frames.push_owned(message.freeze());
        assert_eq!(receiver.open(frames.next_frame().unwrap().unwrap()).unwrap(), b"before"[..]);
        assert_eq!(frames.buffered(), 0);

        assert!(wire.seal(b"later", |_| queue.pop_front()).is_empty());
        assert_eq!((queue.len(), wire.transport.sender.counter()), (1, 1));
    }

    #[test]
    fn a_connection_that_cannot_seal_ends_at_once_and_another_follows() {
        let now = Now { mono: Duration::from_secs(5), wall_ms: 1_760_000_000_000 };
        let mut engine = Engine::new(Config::new(AccountId::new("a")), [1; 32]);
        while let Some(output) = engine.poll() {
            if let Output::Load { id, keys, .. } = output {
                let records = keys.into_iter().map(|key| (key, None)).collect();
                engine.handle(now, Input::Loaded(id, Loaded { records, scanned: Vec::new() }));
            }
        }
        let id = ConnectionId(7);
        let link = Link::new(now.mono + Duration::from_secs(60));
        engine.connection.state = State::Linking { id, wire: Box::new(wire().0), link };
        engine.gate.push_free(Queued::Frame(id, vec![0; MAX_PLAINTEXT + 1].into()));
        engine.gate.push_free(Queued::Frame(id, b"behind it".to_vec().into()));
        let mut outputs = || std::iter::from_fn(|| engine.poll()).collect::<Vec<_>>();
        assert!(!outputs().iter().any(|output| matches!(output, Output::Send(..))));

        assert_eq!(engine.deadline(), Some(Duration::ZERO));
        engine.handle(now, Input::Tick);
        let outputs: Vec<Output> = std::iter::from_fn(|| engine.poll()).collect();
        assert!(outputs.iter().any(|output| matches!(output, Output::Close(closed) if *closed == id)), "{outputs:?}");
        assert!(matches!(engine.connection.state, State::Backoff { .. }));
        assert!(engine.deadline() > Some(now.mono));
    }
}
