//! One connection: intro, frames, handshake, then sealed stanzas.
//!
//! ```text
//!  Handshake ──registration payload──▶ Linking ──device signed──▶ Closing (515)
//!      └──────login payload──────────▶ Online  ──stream error───▶ Closing ──delay──▶ gone
//! ```
//!
//! Whatever is wrong with what a client sends ends that client's connection, with a line in the log, and nothing else.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use wamd::node::NodeRef;
use wamd::noise::frame::{self, FrameBuffer, FrameError, IntroError, IntroReader, MAX_HANDSHAKE_PAYLOAD};
use wamd::noise::{Transport, TransportError};

use crate::core::Core;
use crate::directory::Address;
use crate::handshake::{Credentials, HandshakeError, Pattern, Responder, Step};
use crate::linking::Linking;
use crate::{ConnId, Output, linking, login, stanza};

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    opened: Duration,
    intro: Option<IntroReader>,
    frames: FrameBuffer,
    pub(crate) transport: Option<Transport>,
    pub(crate) phase: Phase,
}

/// Where a connection stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Waits for the client's next handshake message.
    Handshake(Option<Responder>),
    /// A client without account shows its QR codes.
    Linking(Box<Linking>),
    /// A device is logged in.
    Online(Session),
    /// The last stanza is out; closed at this time.
    Closing(Duration),
}

/// A device that is logged in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) address: Address,
    pub(crate) pattern: Pattern,
    /// Whether the backlog was sent, so that stanzas go out as they come.
    pub(crate) live: bool,
    /// When the next ping is due.
    pub(crate) ping_at: Option<Duration>,
    /// The oldest ping that was not answered, and until when it must be.
    pub(crate) unanswered_ping: Option<(String, Duration)>,
}

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error(transparent)]
    Intro(#[from] IntroError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("a stanza does not decode: {0}")]
    Node(wamd::node::NodeError),
    #[error("the client payload does not decode")]
    Payload,
}

impl Connection {
    pub(crate) fn new(opened: Duration) -> Self {
        Self {
            opened,
            intro: Some(IntroReader::new(MAX_ROUTING_INFO)),
            frames: FrameBuffer::new(MAX_HANDSHAKE_PAYLOAD),
            transport: None,
            phase: Phase::Handshake(Some(Responder::AwaitHello)),
        }
    }

    /// When something is due on this connection if nothing arrives.
    pub(crate) fn deadline(&self, handshake_timeout: Duration) -> Option<Duration> {
        match &self.phase {
            Phase::Handshake(_) => Some(self.opened.saturating_add(handshake_timeout)),
            Phase::Linking(linking) => Some(linking.deadline()),
            Phase::Online(session) => {
                let answer = session.unanswered_ping.as_ref().map(|(_, due)| *due);
                [session.ping_at, answer].into_iter().flatten().min()
            }
            Phase::Closing(at) => Some(*at),
        }
    }

    /// Takes the next frame out of what has arrived, opened if the handshake is done.
    fn next_payload(&mut self) -> Result<Option<BytesMut>, ConnectionError> {
        if let Some(reader) = &mut self.intro {
            let Some(intro) = reader.next_intro()? else { return Ok(None) };
            self.frames.push_owned(intro.rest);
            self.intro = None;
        }
        Ok(self.frames.next_frame()?)
    }
}

/// Takes bytes of the stream and handles every whole frame.
pub(crate) fn receive(core: &mut Core, id: ConnId, chunk: Bytes) {
    let Some(connection) = core.connections.get_mut(&id) else { return };
    match &mut connection.intro {
        Some(reader) => reader.push(&chunk),
        None => connection.frames.push_owned(chunk),
    }
    loop {
        let Some(connection) = core.connections.get_mut(&id) else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        let handled = match connection.next_payload() {
            Ok(None) => return,
            Ok(Some(payload)) => handle_payload(core, id, payload),
            Err(error) => Err(error),
        };
        if let Err(error) = handled {
            tracing::debug!(conn = id.0, %error, "connection refused");
            core.close(id);
            return;
        }
    }
}

/// Does what is due on a connection.
pub(crate) fn expire(core: &mut Core, id: ConnId) {
    let Some(connection) = core.connections.get_mut(&id) else { return };
    match &mut connection.phase {
        Phase::Handshake(_) | Phase::Closing(_) | Phase::Linking(_) => core.close(id),
        Phase::Online(session) if session.unanswered_ping.as_ref().is_some_and(|(_, due)| *due <= core.now.mono) => {
            core.close(id);
        }
        Phase::Online(session) => {
            session.ping_at = core.config.ping_every.map(|every| core.now.mono.saturating_add(every));
            stanza::ping(core, id);
        }
    }
}

fn handle_payload(core: &mut Core, id: ConnId, payload: BytesMut) -> Result<(), ConnectionError> {
    let Some(connection) = core.connections.get_mut(&id) else { return Ok(()) };
    if let Phase::Handshake(responder) = &mut connection.phase {
        let responder = responder.take().unwrap_or(Responder::AwaitHello);
        return handshake(core, id, responder, &payload);
    }
    let Some(transport) = connection.transport.as_mut() else { return Ok(()) };
    let plaintext = transport.receiver.open(payload)?;
    let mut decoder = std::mem::take(&mut core.decoder);
    let handled = match decoder.decode(plaintext) {
        Ok(node) => {
            if let Some(recorded) = &mut core.recorded {
                recorded.push((id, node.to_node()));
            }
            handle_stanza(core, id, node);
            Ok(())
        }
        Err(error) => Err(ConnectionError::Node(error)),
    };
    core.decoder = decoder;
    handled
}

fn handle_stanza(core: &mut Core, id: ConnId, node: NodeRef<'_>) {
    match core.connections.get(&id).map(|connection| &connection.phase) {
        Some(Phase::Linking(_)) => linking::handle(core, id, node),
        Some(Phase::Online(session)) => {
            let address = session.address;
            stanza::handle(core, id, address, node);
        }
        Some(Phase::Handshake(_) | Phase::Closing(_)) | None => {}
    }
}

fn handshake(core: &mut Core, id: ConnId, responder: Responder, payload: &[u8]) -> Result<(), ConnectionError> {
    let chain = if core.faults.forged_certificate { core.authority.forged_chain() } else { core.authority.chain() };
    let credentials = Credentials { server: core.authority.server_static(), chain: &chain };
    let step = responder.step(payload, credentials, &mut core.rng)?;
    let (reply, established) = match step {
        Step::Reply(reply, next) => {
            if let Some(connection) = core.connections.get_mut(&id) {
                connection.phase = Phase::Handshake(Some(next));
            }
            (Some(reply), None)
        }
        Step::Done(reply, established) => (reply, Some(established)),
    };
    if let Some(reply) = reply {
        let mut framed = BytesMut::new();
        frame::encode(&reply, &mut framed)?;
        core.outputs.push_back(Output::Send(id, framed.freeze()));
    }
    let Some(established) = established else { return Ok(()) };
    if let Some(connection) = core.connections.get_mut(&id) {
        connection.transport = Some(established.transport);
        connection.frames.set_max(core.config.max_frame);
    }
    login::begin(core, id, established.client, established.pattern, &established.payload)
}

/// Routing info is a few bytes in practice; this only bounds what a client can make us hold.
const MAX_ROUTING_INFO: usize = 0x1_0000;
