//! The client's side of the handshake: XX, IK, and the fallback from IK to XX (spec 01 §2.1–2.4).
//!
//! ```text
//!        xx()                                        ik(chain)
//!         │ ClientHello: e                            │ ClientHello: e, [s], [payload]
//!         ▼                                           ▼
//!    ┌─ AwaitServerHello::Xx ─┐              ┌─ AwaitServerHello::Ik ──────────────────┐
//!    └─────────┬──────────────┘              └──────┬──────────────────────────┬───────┘
//!              │ ServerHello: e, [s], [certs]       │ with a static key        │ ServerHello: e, [certs]
//!              │                                    ▼                          │
//!              │                            XXfallback, same e                 │
//!              ▼                                    ▼                          ▼
//!         certificates verified by the policy, s authentic              [certs] authentic, not read
//!              │ ClientFinish: [s], [payload]       │                          │
//!              ▼                                    ▼                          ▼
//!         Finished { client_finish, chain }    Finished { client_finish, chain }    Finished { }
//! ```
//!
//! `[x]` = encrypted. A machine waits for exactly one message, so reading it consumes the machine; every error is
//! final for the connection. Nothing that identifies the client leaves before the server is authenticated: by its
//! certificates in XX and XXfallback, by the key of a chain verified earlier in IK.

use std::fmt;

use bytes::Bytes;
use wamd_proto::{
    Message as _,
    wa6::{
        HandshakeMessage,
        handshake_message::{ClientFinish, ClientHello, ServerHello},
    },
};

use super::{
    certificate::{CertificateError, CertificatePolicy, VerifiedChain},
    symmetric::{Protocol, SymmetricError, SymmetricState},
    transport::Transport,
};
use crate::crypto::{KeyPair, PublicKey, cipher::TAG_LEN, x25519};

/// Bytes of an encrypted static key: the key and its tag.
const SEALED_KEY_LEN: usize = 32 + TAG_LEN;

/// A part of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The server's ephemeral key.
    ServerEphemeral,
    /// The server's static key.
    ServerStatic,
    /// The server's payload: its certificates.
    ServerPayload,
    /// Our static key.
    ClientStatic,
    /// Our payload.
    ClientPayload,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerEphemeral => "server ephemeral",
            Self::ServerStatic => "server static",
            Self::ServerPayload => "server payload",
            Self::ClientStatic => "client static",
            Self::ClientPayload => "client payload",
        })
    }
}

/// What went wrong in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFault {
    /// The server's answer is not a handshake message.
    #[error("answer does not decode")]
    Undecodable,
    /// The server's answer is another handshake message.
    #[error("answer is not a server hello")]
    NotServerHello,
    /// A part is absent or empty.
    #[error("{0} is missing")]
    Missing(Part),
    /// A part has the wrong length.
    #[error("{part} has {len} bytes, {expected} expected")]
    Length {
        /// Which part.
        part: Part,
        /// Bytes received.
        len: usize,
        /// Bytes required.
        expected: usize,
    },
    /// A part could not be decrypted (or encrypted).
    #[error("{part}: {error}")]
    Cipher {
        /// Which part.
        part: Part,
        /// Why.
        error: SymmetricError,
    },
    /// A key of the server has small order: the Diffie-Hellman result would be known to everybody.
    #[error("{0} has small order")]
    SmallOrder(Part),
    /// The server's certificates are refused.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
}

/// A failed handshake: what went wrong, and in which pattern. The connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{during:?} handshake: {fault}")]
pub struct HandshakeError {
    /// The pattern that ran when it failed; `XxFallback` from the server hello that took the fallback.
    pub during: Protocol,
    /// What went wrong.
    #[source]
    pub fault: HandshakeFault,
}

impl HandshakeError {
    /// Whether an attempt to resume failed before the server took the fallback. The caller then counts the failure,
    /// drops the cached chain and connects with XX next time (spec 01 §2.4). Time-outs and transport errors, which
    /// never come from here, do not count.
    pub fn is_ik_failure(&self) -> bool {
        self.during == Protocol::Ik
    }
}

/// What a handshake ends with.
#[derive(Debug)]
pub struct Finished {
    /// The keys of both directions.
    pub transport: Transport,
    /// The payload of the frame that must be sent first, before any sealed frame. `None` in IK.
    pub client_finish: Option<Vec<u8>>,
    /// The server's chain when this handshake brought one; to be cached if the device is registered. `None` in IK:
    /// the cached one stays.
    pub chain: Option<VerifiedChain>,
    /// The pattern that succeeded.
    pub kind: Protocol,
}

/// The initiator between its hello and the server's.
pub struct Handshake {
    local: Local,
    state: AwaitServerHello,
}

/// What the client brings along.
struct Local {
    static_keys: KeyPair,
    ephemeral: KeyPair,
    payload: Vec<u8>,
    policy: CertificatePolicy,
}

/// What was said so far. XXfallback is not a state to wait in: the server hello that starts it also completes it.
enum AwaitServerHello {
    Xx(SymmetricState),
    Ik(SymmetricState),
}

impl Handshake {
    /// Starts XX. Returns the machine and the payload of the first frame (a `ClientHello`; the caller adds intro and
    /// length).
    ///
    /// `static_keys` is the device's noise key, `ephemeral` fresh for this connection, `payload` the encoded
    /// `ClientPayload`.
    pub fn xx(
        static_keys: KeyPair,
        ephemeral: KeyPair,
        payload: Vec<u8>,
        policy: CertificatePolicy,
    ) -> (Self, Vec<u8>) {
        let mut symmetric = SymmetricState::new(Protocol::Xx);
        symmetric.mix_hash(ephemeral.public().as_bytes());
        let hello = encode_client_hello(ClientHello { ephemeral: Some(key_bytes(&ephemeral)), ..Default::default() });
        let local = Local { static_keys, ephemeral, payload, policy };
        (Self { local, state: AwaitServerHello::Xx(symmetric) }, hello)
    }

    /// Starts IK with the server key of an earlier handshake. Arguments and result as in [`xx`](Self::xx). The caller
    /// decides when to try, [`VerifiedChain::usable_at`] among others (spec 01 §2.4).
    ///
    /// # Errors
    /// A chain whose root `policy` does not trust (any more), and a leaf key of small order. Both are
    /// [IK failures](HandshakeError::is_ik_failure).
    pub fn ik(
        static_keys: KeyPair,
        ephemeral: KeyPair,
        chain: &VerifiedChain,
        payload: Vec<u8>,
        policy: CertificatePolicy,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let local = Local { static_keys, ephemeral, payload, policy };
        let (symmetric, hello) =
            local.ik_hello(chain).map_err(|fault| HandshakeError { during: Protocol::Ik, fault })?;
        Ok((Self { local, state: AwaitServerHello::Ik(symmetric) }, hello))
    }

    /// Takes the payload of the server's first frame and ends the handshake.
    ///
    /// `unix_seconds` is the wall clock, for the certificates.
    ///
    /// # Errors
    /// [`HandshakeError`] for anything that is not an authentic hello of a trusted server.
    pub fn read_server_hello(self, payload: &[u8], unix_seconds: u64) -> Result<Finished, HandshakeError> {
        let Self { local, state } = self;
        let started = match state {
            AwaitServerHello::Xx(_) => Protocol::Xx,
            AwaitServerHello::Ik(_) => Protocol::Ik,
        };
        let hello = Hello::decode(payload).map_err(|fault| HandshakeError { during: started, fault })?;
        let (kind, finished) = match (state, hello.sealed_static.is_empty()) {
            (AwaitServerHello::Ik(symmetric), true) => (Protocol::Ik, local.finish_ik(symmetric, &hello)),
            (AwaitServerHello::Ik(_), false) => {
                let mut symmetric = SymmetricState::new(Protocol::XxFallback);
                symmetric.mix_hash(local.ephemeral.public().as_bytes());
                (Protocol::XxFallback, local.finish_xx(symmetric, &hello, Protocol::XxFallback, unix_seconds))
            }
            (AwaitServerHello::Xx(symmetric), _) => {
                (Protocol::Xx, local.finish_xx(symmetric, &hello, Protocol::Xx, unix_seconds))
            }
        };
        finished.map_err(|fault| HandshakeError { during: kind, fault })
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The payload holds the phone number.
        f.write_str(match self.state {
            AwaitServerHello::Xx(_) => "Handshake(Xx, awaits server hello)",
            AwaitServerHello::Ik(_) => "Handshake(Ik, awaits server hello)",
        })
    }
}

impl Local {
    /// Steps 0 to 5 of IK.
    fn ik_hello(&self, chain: &VerifiedChain) -> Result<(SymmetricState, Vec<u8>), HandshakeFault> {
        if !self.policy.trusts(chain) {
            return Err(CertificateError::UntrustedRoot.into());
        }
        let server_static = chain.leaf_key();
        let mut symmetric = SymmetricState::new(Protocol::Ik);
        symmetric.mix_hash(server_static.as_bytes());
        symmetric.mix_hash(self.ephemeral.public().as_bytes());
        mix_dh(&mut symmetric, &self.ephemeral, server_static, Part::ServerStatic)?;
        let sealed_static = seal(&mut symmetric, Part::ClientStatic, self.static_keys.public().as_bytes())?;
        mix_dh(&mut symmetric, &self.static_keys, server_static, Part::ServerStatic)?;
        let sealed_payload = seal(&mut symmetric, Part::ClientPayload, &self.payload)?;
        let hello = encode_client_hello(ClientHello {
            ephemeral: Some(key_bytes(&self.ephemeral)),
            r#static: Some(sealed_static.into()),
            payload: Some(sealed_payload.into()),
            ..Default::default()
        });
        Ok((symmetric, hello))
    }

    /// Steps 6 to 10 of IK.
    fn finish_ik(&self, mut symmetric: SymmetricState, hello: &Hello) -> Result<Finished, HandshakeFault> {
        symmetric.mix_hash(hello.ephemeral.as_bytes());
        mix_dh(&mut symmetric, &self.ephemeral, &hello.ephemeral, Part::ServerEphemeral)?;
        mix_dh(&mut symmetric, &self.static_keys, &hello.ephemeral, Part::ServerEphemeral)?;
        // The server proved that it owns the key of the cached chain; what it certifies this time adds nothing.
        open(&mut symmetric, Part::ServerPayload, &hello.sealed_payload)?;
        Ok(Finished {
            transport: Transport::initiator(symmetric.split()),
            client_finish: None,
            chain: None,
            kind: Protocol::Ik,
        })
    }

    /// Steps 2 to 10 of XX, from a state that has seen our ephemeral key.
    fn finish_xx(
        &self,
        mut symmetric: SymmetricState,
        hello: &Hello,
        kind: Protocol,
        unix_seconds: u64,
    ) -> Result<Finished, HandshakeFault> {
        symmetric.mix_hash(hello.ephemeral.as_bytes());
        mix_dh(&mut symmetric, &self.ephemeral, &hello.ephemeral, Part::ServerEphemeral)?;
        check_sealed_static(&hello.sealed_static)?;
        let server_static =
            read_key(Part::ServerStatic, &open(&mut symmetric, Part::ServerStatic, &hello.sealed_static)?)?;
        mix_dh(&mut symmetric, &self.ephemeral, &server_static, Part::ServerStatic)?;
        let certificates = open(&mut symmetric, Part::ServerPayload, &hello.sealed_payload)?;
        let chain = self.policy.verify(&certificates, &server_static, unix_seconds)?;

        let sealed_static = seal(&mut symmetric, Part::ClientStatic, self.static_keys.public().as_bytes())?;
        mix_dh(&mut symmetric, &self.static_keys, &hello.ephemeral, Part::ServerEphemeral)?;
        let sealed_payload = seal(&mut symmetric, Part::ClientPayload, &self.payload)?;
        let finish = ClientFinish {
            r#static: Some(sealed_static.into()),
            payload: Some(sealed_payload.into()),
            ..Default::default()
        };
        Ok(Finished {
            transport: Transport::initiator(symmetric.split()),
            client_finish: Some(
                HandshakeMessage { client_finish: Some(Box::new(finish)), ..Default::default() }.encode_to_vec(),
            ),
            chain: Some(chain),
            kind,
        })
    }
}

/// A server hello with what every pattern needs of it. `sealed_static` is empty when absent.
struct Hello {
    ephemeral: PublicKey,
    sealed_static: Bytes,
    sealed_payload: Bytes,
}

impl Hello {
    fn decode(payload: &[u8]) -> Result<Self, HandshakeFault> {
        let message = HandshakeMessage::decode(payload).map_err(|_| HandshakeFault::Undecodable)?;
        let hello = message.server_hello.ok_or(HandshakeFault::NotServerHello)?;
        let ServerHello { ephemeral, r#static, payload, .. } = *hello;
        let sealed_payload = payload.unwrap_or_default();
        if sealed_payload.is_empty() {
            return Err(HandshakeFault::Missing(Part::ServerPayload));
        }
        Ok(Self {
            ephemeral: read_key(Part::ServerEphemeral, &ephemeral.unwrap_or_default())?,
            sealed_static: r#static.unwrap_or_default(),
            sealed_payload,
        })
    }
}

/// Checks the encrypted static key before it is decrypted.
const fn check_sealed_static(bytes: &[u8]) -> Result<(), HandshakeFault> {
    const PART: Part = Part::ServerStatic;
    match bytes.len() {
        SEALED_KEY_LEN => Ok(()),
        0 => Err(HandshakeFault::Missing(PART)),
        len => Err(HandshakeFault::Length { part: PART, len, expected: SEALED_KEY_LEN }),
    }
}

fn read_key(part: Part, bytes: &[u8]) -> Result<PublicKey, HandshakeFault> {
    if bytes.is_empty() {
        return Err(HandshakeFault::Missing(part));
    }
    PublicKey::from_slice(bytes).map_err(|_| HandshakeFault::Length { part, len: bytes.len(), expected: 32 })
}

fn mix_dh(
    symmetric: &mut SymmetricState,
    ours: &KeyPair,
    theirs: &PublicKey,
    part: Part,
) -> Result<(), HandshakeFault> {
    let shared = x25519(ours.private(), theirs).map_err(|_| HandshakeFault::SmallOrder(part))?;
    symmetric.mix_key(&shared);
    Ok(())
}

fn seal(symmetric: &mut SymmetricState, part: Part, plaintext: &[u8]) -> Result<Vec<u8>, HandshakeFault> {
    symmetric.encrypt_and_hash(plaintext).map_err(|error| HandshakeFault::Cipher { part, error })
}

fn open(symmetric: &mut SymmetricState, part: Part, ciphertext: &[u8]) -> Result<Vec<u8>, HandshakeFault> {
    symmetric.decrypt_and_hash(ciphertext).map_err(|error| HandshakeFault::Cipher { part, error })
}

fn key_bytes(keys: &KeyPair) -> Bytes {
    Bytes::copy_from_slice(keys.public().as_bytes())
}

fn encode_client_hello(hello: ClientHello) -> Vec<u8> {
    HandshakeMessage { client_hello: Some(Box::new(hello)), ..Default::default() }.encode_to_vec()
}
