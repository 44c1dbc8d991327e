//! From bytes on the socket to sealed frames: framing, the Noise handshake, the server's certificates, and the transport
//! cipher (spec 01 §1.2–1.4, §2).
//!
//! ```text
//!  socket ──chunks──▶ FrameBuffer ──payload──▶ Handshake ──Finished──▶ Transport.receiver.open ──▶ plaintext of a node
//!  socket ◀──bytes─── intro + encode ◀─hello/finish─┘        └────────▶ Transport.sender.seal_into ◀── plaintext of a node
//! ```
//!
//! A connection starts with [`frame::intro`] and the framed client hello that [`Handshake::xx`] or [`Handshake::ik`]
//! returned. The server's answer is one frame; [`Handshake::read_server_hello`] consumes the machine and gives
//! [`Finished`]: the transport keys, perhaps a client finish to send, and perhaps a [`VerifiedChain`] to keep so that
//! the next connection can use IK. From then on every frame is one AES-256-GCM ciphertext.
//!
//! | file | what |
//! |---|---|
//! | [`buffer`] | [`MessageBuffer`]: one message after the other in the same memory |
//! | [`frame`] | 3-byte lengths, the connection header, the edge-routing pre-intro |
//! | [`symmetric`] | [`SymmetricState`]: hash, chaining key, cipher key; neutral of the role, so that a server is built on it, too |
//! | [`certificate`] | [`CertificatePolicy`] and [`VerifiedChain`] |
//! | [`handshake`] | [`Handshake`]: the initiator of XX, IK and XXfallback |
//! | [`transport`] | [`SealingKey`] and [`OpeningKey`] |
//!
//! Nothing here waits, draws randomness or reads a clock: ephemeral keys and the time are arguments. The post-quantum
//! fields of the handshake messages are ignored (spec 01 §2.1).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod buffer;
pub mod certificate;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod handshake;
pub mod symmetric;
pub mod transport;

pub use buffer::MessageBuffer;
pub use certificate::{Certificate, CertificateError, CertificatePolicy, PRODUCTION_ROOT, Validity, VerifiedChain};
pub use frame::{FrameBuffer, FrameError, Intro, IntroError, IntroReader};
pub use handshake::{Finished, Handshake, HandshakeError, HandshakeFault, Part};
pub use symmetric::{Protocol, SymmetricError, SymmetricState};
pub use transport::{OpeningKey, SealingKey, Transport, TransportError};

/// The first four bytes of a connection, and the Noise prologue: `WA`, protocol 6, token dictionary 3 (spec 01 §1.2).
pub const HEADER: [u8; 4] = [0x57, 0x41, 0x06, 0x03];
