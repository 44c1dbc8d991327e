//! The Noise responder: XX, IK, and XXfallback when an IK hello cannot be used (spec 01 §2.3, §2.4, §7.2).
//!
//! ```text
//!                        ┌── only ephemeral ────────────────▶ XX ──────────┐
//!  AwaitHello ──hello──▶ ┤                                                 ├─ ServerHello with static ─▶ AwaitFinish
//!                        └── static, payload too ─▶ IK ── cannot open ─▶ XXfallback                           │
//!                                                    └── ServerHello without static ─▶ Established  ◀─finish──┘
//! ```
//!
//! A hello or finish that does not decode or authenticate ends the connection.

use bytes::Bytes;
use prost::Message as _;
use wamd::crypto::{CryptoError, KeyPair, PublicKey, Rng, x25519};
use wamd::noise::{Protocol, SymmetricError, SymmetricState, Transport};
use wamd::proto::wa6::HandshakeMessage;
use wamd::proto::wa6::handshake_message::{ClientHello, ServerHello};

/// What the server shows: its static key and the chain for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials<'a> {
    pub(crate) server: &'a KeyPair,
    pub(crate) chain: &'a [u8],
}

/// How a connection was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// A full handshake.
    Xx,
    /// A resumed one, with the static key that the client had cached.
    Ik,
    /// A resumed one that fell back to the full handshake.
    XxFallback,
}

/// Why a handshake fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the handshake message does not decode")]
    Malformed,
    #[error("the handshake message has no {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Key(#[from] CryptoError),
    #[error(transparent)]
    Symmetric(#[from] SymmetricError),
}

/// The end of a handshake.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) transport: Transport,
    /// The client's noise key.
    pub(crate) client: PublicKey,
    /// The encoded `ClientPayload`.
    pub(crate) payload: Vec<u8>,
    pub(crate) pattern: Pattern,
}

/// Waits for a client's messages.
#[derive(Debug)]
pub(crate) enum Responder {
    AwaitHello,
    AwaitFinish(Box<AwaitFinish>),
}

/// A ServerHello with static key is out.
#[derive(Debug)]
pub(crate) struct AwaitFinish {
    state: SymmetricState,
    ephemeral: KeyPair,
    pattern: Pattern,
}

/// What follows a message of the client.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send the payload, wait for more.
    Reply(Vec<u8>, Responder),
    /// Done, perhaps with a last payload to send.
    Done(Option<Vec<u8>>, Box<Established>),
}

impl Responder {
    /// Takes the payload of the client's next frame.
    pub(crate) fn step(
        self,
        payload: &[u8],
        credentials: Credentials<'_>,
        rng: &mut impl Rng,
    ) -> Result<Step, HandshakeError> {
        let message = HandshakeMessage::decode(payload).map_err(|_| HandshakeError::Malformed)?;
        match self {
            Self::AwaitHello => {
                let hello = message.client_hello.ok_or(HandshakeError::Missing("client hello"))?;
                answer(&hello, credentials, rng)
            }
            Self::AwaitFinish(finish) => {
                let message = message.client_finish.ok_or(HandshakeError::Missing("client finish"))?;
                let client = message.r#static.unwrap_or_default();
                let payload = message.payload.unwrap_or_default();
                finish.finish(&client, &payload).map(|established| Step::Done(None, Box::new(established)))
            }
        }
    }
}

impl AwaitFinish {
    fn finish(mut self, client: &[u8], payload: &[u8]) -> Result<Established, HandshakeError> {
        let client = PublicKey::from_slice(&self.state.decrypt_and_hash(client)?)?;
        self.state.mix_key(&x25519(self.ephemeral.private(), &client)?);
        let payload = self.state.decrypt_and_hash(payload)?;
        let transport = Transport::responder(self.state.split());
        Ok(Established { transport, client, payload, pattern: self.pattern })
    }
}

fn answer(hello: &ClientHello, credentials: Credentials<'_>, rng: &mut impl Rng) -> Result<Step, HandshakeError> {
    let ephemeral = hello.ephemeral.as_deref().ok_or(HandshakeError::Missing("ephemeral key"))?;
    let theirs = PublicKey::from_slice(ephemeral)?;
    let ours = KeyPair::generate(rng);
    let filled = |field: &Option<Bytes>| field.clone().filter(|bytes| !bytes.is_empty());
    match (filled(&hello.r#static), filled(&hello.payload)) {
        (None, None) => full(Pattern::Xx, theirs, ours, credentials),
        (client, payload) => {
            let resumed = resume(theirs, &client.unwrap_or_default(), &payload.unwrap_or_default(), &ours, credentials);
            match resumed {
                Ok((reply, established)) => Ok(Step::Done(Some(reply), Box::new(established))),
                Err(_) => full(Pattern::XxFallback, theirs, ours, credentials),
            }
        }
    }
}

/// The answer to XX and XXfallback, which differ in the protocol name only.
fn full(
    pattern: Pattern,
    theirs: PublicKey,
    ours: KeyPair,
    credentials: Credentials<'_>,
) -> Result<Step, HandshakeError> {
    let protocol = if pattern == Pattern::Xx { Protocol::Xx } else { Protocol::XxFallback };
    let mut state = SymmetricState::new(protocol);
    state.mix_hash(theirs.as_bytes());
    state.mix_hash(ours.public().as_bytes());
    state.mix_key(&x25519(ours.private(), &theirs)?);
    let server = state.encrypt_and_hash(credentials.server.public().as_bytes())?;
    state.mix_key(&x25519(credentials.server.private(), &theirs)?);
    let payload = state.encrypt_and_hash(credentials.chain)?;
    let reply = server_hello(ours.public(), Some(server), payload);
    Ok(Step::Reply(reply, Responder::AwaitFinish(Box::new(AwaitFinish { state, ephemeral: ours, pattern }))))
}

/// The answer to IK; any failure means that the hello was not made for our static key.
fn resume(
    theirs: PublicKey,
    client: &[u8],
    payload: &[u8],
    ours: &KeyPair,
    credentials: Credentials<'_>,
) -> Result<(Vec<u8>, Established), HandshakeError> {
    let server = credentials.server;
    let mut state = SymmetricState::new(Protocol::Ik);
    state.mix_hash(server.public().as_bytes());
    state.mix_hash(theirs.as_bytes());
    state.mix_key(&x25519(server.private(), &theirs)?);
    let client = PublicKey::from_slice(&state.decrypt_and_hash(client)?)?;
    state.mix_key(&x25519(server.private(), &client)?);
    let payload = state.decrypt_and_hash(payload)?;
    state.mix_hash(ours.public().as_bytes());
    state.mix_key(&x25519(ours.private(), &theirs)?);
    state.mix_key(&x25519(ours.private(), &client)?);
    let reply = server_hello(ours.public(), None, state.encrypt_and_hash(credentials.chain)?);
    let transport = Transport::responder(state.split());
    Ok((reply, Established { transport, client, payload, pattern: Pattern::Ik }))
}

fn server_hello(ephemeral: &PublicKey, server: Option<Vec<u8>>, payload: Vec<u8>) -> Vec<u8> {
    let hello = ServerHello {
        ephemeral: Some(Bytes::copy_from_slice(ephemeral.as_bytes())),
        r#static: server.map(Bytes::from),
        payload: Some(payload.into()),
        ..ServerHello::default()
    };
    HandshakeMessage { server_hello: Some(Box::new(hello)), ..HandshakeMessage::default() }.encode_to_vec()
}

#[cfg(test)]
mod tests;
