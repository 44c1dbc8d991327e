//! Entry points of the fuzz targets, which an ordinary test replays, too: one for each kind of remote bytes.

use std::{iter, sync::LazyLock};

use bytes::{Bytes, BytesMut};
use wamd_proto::{
    Message as _,
    cert::{
        CertChain,
        cert_chain::{NoiseCertificate, noise_certificate::Details},
    },
    wa6::{HandshakeMessage, handshake_message::ServerHello},
};

use super::{
    CertificatePolicy, FrameBuffer, Handshake, HandshakeFault, Intro, IntroReader, Protocol, SymmetricState, Transport,
    TransportError, VerifiedChain,
};
use crate::crypto::{KeyPair, PrivateKey, PublicKey, Secret, x25519, xeddsa};

/// Inside the validity of the certificates that [`good_chain`] and the vectors have.
const NOW: u64 = 1_700_000_100;
/// Largest payload in the streams.
const MAX: usize = 0x4000;

/// Reads `data` as a stream in chunks of any sizes.
///
/// ```text
/// data = mode (1) | count (1) | chunk sizes (count; the last ones come again from the first) | stream
/// mode : low two bits 0 frames, 1 the intro of a client, 2 payloads to seal, 3 frames that nobody sealed
///        bit 2 (of payloads to seal) one bit of the sealed stream turns over, at the place that the high bits choose
/// ```
///
/// # Panics
/// When frames depend on how the stream was cut, or something opens that was not sealed, which is what the fuzzer looks for.
pub fn frame_stream(data: &[u8]) {
    let Some((&[mode, count], data)) = data.split_first_chunk() else { return };
    let (sizes, stream) = data.split_at_checked(usize::from(count)).unwrap_or((data, &[]));
    match mode % 4 {
        0 => frames(stream, sizes),
        1 => intro(stream, sizes),
        2 => sealed(stream, sizes, (mode & 4 != 0).then_some(usize::from(mode >> 3))),
        _ => unsealed(stream, sizes),
    }
}

/// Pieces of `stream` of those sizes, over and over; 0 counts as 1. All of it without sizes.
fn chunks<'a>(mut stream: &'a [u8], sizes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    iter::from_fn(move || {
        let size = sizes.next().map_or(usize::MAX, |size| usize::from(*size).max(1));
        let (chunk, rest) = stream.split_at(size.min(stream.len()));
        stream = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// However a stream is cut, and whether chunks are copied or taken over, its frames are the same.
fn frames(stream: &[u8], sizes: &[u8]) {
    let (mut whole, mut cut, mut owned) = (FrameBuffer::new(MAX), FrameBuffer::new(MAX), FrameBuffer::new(MAX));
    whole.push_owned(Bytes::copy_from_slice(stream));
    for chunk in chunks(stream, sizes) {
        cut.push(chunk);
        owned.push_owned(Bytes::copy_from_slice(chunk));
        while let Ok(Some(payload)) = cut.next_frame() {
            assert!(payload.len() <= MAX);
            assert_eq!(whole.next_frame().as_ref(), Ok(&Some(payload.clone())));
            assert_eq!(owned.next_frame(), Ok(Some(payload)));
        }
    }
    let end = cut.next_frame();
    assert!(matches!(end, Ok(None) | Err(_)));
    assert_eq!((whole.next_frame(), owned.next_frame()), (end.clone(), end));
    assert_eq!((whole.buffered(), owned.buffered()), (cut.buffered(), cut.buffered()));
}

/// An intro that is read and written again is the same, and nothing behind it is lost.
fn intro(stream: &[u8], sizes: &[u8]) {
    let mut reader = IntroReader::new(0x1000);
    let mut pushed = 0_usize;
    for chunk in chunks(stream, sizes) {
        reader.push(chunk);
        pushed = pushed.saturating_add(chunk.len());
        match reader.next_intro() {
            Ok(None) => {}
            Err(error) => return assert_eq!(reader.next_intro(), Err(error)),
            // Empty routing info is read, but never written.
            Ok(Some(Intro { routing_info: Some(info), .. })) if info.is_empty() => return,
            Ok(Some(Intro { routing_info, rest })) => {
                let written = [&super::frame::intro(routing_info.as_deref())[..], &rest].concat();
                return assert_eq!(stream.get(..pushed), Some(&written[..]));
            }
        }
    }
}

/// The payloads of the stream, sealed, cut and opened, are the same. After damage not one more opens.
fn sealed(stream: &[u8], sizes: &[u8], damage: Option<usize>) {
    let keys = || (Secret::new([1; 32]), Secret::new([2; 32]));
    let (mut sender, mut receiver) = (Transport::initiator(keys()).sender, Transport::responder(keys()).receiver);
    let mut plain = FrameBuffer::new(MAX);
    plain.push(stream);
    let (mut payloads, mut wire) = (Vec::new(), BytesMut::new());
    while let Ok(Some(payload)) = plain.next_frame() {
        assert_eq!(sender.seal_into(&payload, &mut wire), Ok(()));
        payloads.push(payload);
    }
    let place = damage.and_then(|place| place.saturating_mul(wire.len()).checked_div(32)).unwrap_or_default();
    let damaged = match wire.get_mut(place) {
        Some(byte) if damage.is_some() => {
            *byte ^= 1;
            true
        }
        _ => false,
    };
    let (mut frames, mut opened) = (FrameBuffer::new(super::frame::MAX_PAYLOAD), Vec::new());
    for chunk in chunks(&wire, sizes) {
        frames.push(chunk);
        while let Ok(Some(frame)) = frames.next_frame() {
            match receiver.open(frame) {
                Ok(payload) => opened.push(payload),
                Err(error) => assert!(damaged && error == TransportError::Tag, "{error}"),
            }
        }
    }
    assert!(iter::zip(&opened, &payloads).all(|(opened, payload)| opened == payload));
    assert_eq!(opened.len() < payloads.len(), damaged, "{} of {}", opened.len(), payloads.len());
    assert_eq!(u64::from(receiver.counter()), opened.len() as u64);
}

/// No frame that the sender did not seal opens.
fn unsealed(stream: &[u8], sizes: &[u8]) {
    let keys = || (Secret::new([1; 32]), Secret::new([2; 32]));
    let mut receiver = Transport::initiator(keys()).receiver;
    for chunk in chunks(stream, sizes) {
        assert_eq!(receiver.open(chunk.into()), Err(TransportError::Tag));
    }
    assert_eq!(receiver.counter(), 0);
}

/// Reads `data` as the server's hello: as it arrives, or as what a server that holds the keys would have sealed.
///
/// ```text
/// data = mode (1) | rest
/// mode : 0 the rest is the hello, for XX and for IK     2 the rest is the payload of an IK hello
///        1 static key and payload of an XX hello        3 static key and payload of a fallback
///        where two parts are: length of the first (1) | first | second
/// ```
///
/// # Panics
/// When a hello is accepted that should not be, or refused that should, which is what the fuzzer looks for.
pub fn handshake_server_hello(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    match mode % 4 {
        0 => {
            assert!(xx().read_server_hello(rest, NOW).is_err(), "nobody sealed it for the keys of this client");
            assert!(ik().read_server_hello(rest, NOW).is_err());
        }
        1 => sealed_xx(xx(), Protocol::Xx, rest),
        2 => sealed_ik(rest),
        _ => sealed_xx(ik(), Protocol::XxFallback, rest),
    }
}

/// Everybody's keys, made once.
struct Cast {
    client_static: KeyPair,
    client_ephemeral: KeyPair,
    server_ephemeral: KeyPair,
    server_static: KeyPair,
    root: KeyPair,
    intermediate: KeyPair,
}

static CAST: LazyLock<Cast> = LazyLock::new(|| {
    let keys = |seed| KeyPair::from_private(PrivateKey::from_bytes([seed; 32]));
    Cast {
        client_static: keys(1),
        client_ephemeral: keys(2),
        server_ephemeral: keys(3),
        server_static: keys(4),
        root: keys(5),
        intermediate: keys(6),
    }
});

fn policy() -> CertificatePolicy {
    CertificatePolicy { roots: vec![*CAST.root.public()], check_validity: true }
}

fn xx() -> Handshake {
    Handshake::xx(CAST.client_static.clone(), CAST.client_ephemeral.clone(), b"payload".to_vec(), policy()).0
}

fn ik() -> Handshake {
    static CHAIN: LazyLock<Option<VerifiedChain>> =
        LazyLock::new(|| policy().verify(&good_chain(), CAST.server_static.public(), NOW).ok());
    let (client, ephemeral) = (CAST.client_static.clone(), CAST.client_ephemeral.clone());
    let started = CHAIN.as_ref().map(|chain| Handshake::ik(client, ephemeral, chain, b"payload".to_vec(), policy()));
    match started {
        Some(Ok((machine, _))) => machine,
        other => unreachable!("a good chain: {other:?}"),
    }
}

fn hello(sealed_static: Option<Vec<u8>>, sealed_payload: Vec<u8>) -> Vec<u8> {
    let hello = ServerHello {
        ephemeral: Some(Bytes::copy_from_slice(CAST.server_ephemeral.public().as_bytes())),
        r#static: sealed_static.map(Bytes::from),
        payload: Some(sealed_payload.into()),
        ..Default::default()
    };
    HandshakeMessage { server_hello: Some(Box::new(hello)), ..Default::default() }.encode_to_vec()
}

/// A server whose static key and certificates are whatever the fuzzer wants.
fn sealed_xx(machine: Handshake, protocol: Protocol, data: &[u8]) {
    let Some((&len, data)) = data.split_first() else { return };
    let (server_static, certificates) = data.split_at_checked(usize::from(len)).unwrap_or((data, &[]));
    let mut symmetric = SymmetricState::new(protocol);
    symmetric.mix_hash(CAST.client_ephemeral.public().as_bytes());
    symmetric.mix_hash(CAST.server_ephemeral.public().as_bytes());
    let mix = |symmetric: &mut SymmetricState, theirs: &PublicKey| {
        let shared = x25519(CAST.client_ephemeral.private(), theirs);
        shared.map(|shared| symmetric.mix_key(&shared)).is_ok()
    };
    assert!(mix(&mut symmetric, CAST.server_ephemeral.public()));
    let Ok(sealed_static) = symmetric.encrypt_and_hash(server_static) else { unreachable!("a key was mixed in") };
    // What the key of the server leads to is computed with the client's half: nobody has the other one.
    let server_static = PublicKey::from_slice(server_static);
    let usable = server_static.is_ok_and(|key| mix(&mut symmetric, &key));
    let Ok(sealed_payload) = symmetric.encrypt_and_hash(certificates) else { unreachable!("a key was mixed in") };

    let finished = machine.read_server_hello(&hello(Some(sealed_static), sealed_payload), NOW);
    let verified = server_static.ok().map(|key| policy().verify(certificates, &key, NOW));
    match (finished, verified) {
        (Ok(finished), Some(Ok(chain))) => {
            assert!(usable);
            assert_eq!((finished.kind, finished.chain), (protocol, Some(chain)));
            assert!(finished.client_finish.is_some());
        }
        (Err(error), Some(Err(refused))) if usable => assert_eq!(error.fault, HandshakeFault::Certificate(refused)),
        (finished, _) => assert!(!usable && finished.is_err(), "{finished:?}"),
    }
}

/// A server that owns the key of the cached chain: whatever it certifies, the client is content.
fn sealed_ik(certificates: &[u8]) {
    let (machine, mut symmetric) = (ik(), SymmetricState::new(Protocol::Ik));
    let mix = |symmetric: &mut SymmetricState, ours: &KeyPair, theirs: &KeyPair| match x25519(
        ours.private(),
        theirs.public(),
    ) {
        Ok(shared) => symmetric.mix_key(&shared),
        Err(error) => unreachable!("keys of full order: {error}"),
    };
    symmetric.mix_hash(CAST.server_static.public().as_bytes());
    symmetric.mix_hash(CAST.client_ephemeral.public().as_bytes());
    mix(&mut symmetric, &CAST.server_static, &CAST.client_ephemeral);
    assert!(symmetric.encrypt_and_hash(CAST.client_static.public().as_bytes()).is_ok());
    mix(&mut symmetric, &CAST.server_static, &CAST.client_static);
    assert!(symmetric.encrypt_and_hash(b"payload").is_ok());
    symmetric.mix_hash(CAST.server_ephemeral.public().as_bytes());
    mix(&mut symmetric, &CAST.server_ephemeral, &CAST.client_ephemeral);
    mix(&mut symmetric, &CAST.server_ephemeral, &CAST.client_static);
    let Ok(sealed_payload) = symmetric.encrypt_and_hash(certificates) else { unreachable!("a key was mixed in") };
    let finished = machine.read_server_hello(&hello(None, sealed_payload), NOW);
    assert!(finished.is_ok_and(|finished| finished.kind == Protocol::Ik && finished.chain.is_none()));
}

/// Reads `data` as a certificate chain: as it arrives, as details that the right key signed, or as the cached form.
///
/// ```text
/// data = mode (1) | rest
/// mode : 0 the rest is the chain                    2 details of the intermediate certificate, signed by the root
///        1 details of the leaf, signed by it        3 the cached form
/// ```
///
/// # Panics
/// When a chain is accepted that does not certify the key, which is what the fuzzer looks for.
pub fn cert_chain(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let chain = match mode % 4 {
        0 => rest.to_vec(),
        1 => encode_chain(&intermediate_details(), rest),
        2 => encode_chain(rest, &leaf_details()),
        _ => {
            if let Some(chain) = VerifiedChain::decode(rest) {
                assert_eq!(chain.encode(), rest);
                let _ = (chain.usable_at(NOW), policy().trusts(&chain));
            }
            return;
        }
    };
    let server_static = *CAST.server_static.public();
    let Ok(verified) = policy().verify(&chain, &server_static, NOW) else { return };
    assert_eq!((verified.leaf_key(), verified.root()), (&server_static, CAST.root.public()));
    for validity in [verified.leaf_validity(), verified.intermediate_validity()] {
        assert!(validity.not_before <= NOW && NOW <= validity.not_after);
    }
    assert!(policy().verify(&chain, CAST.client_static.public(), NOW).is_err(), "another key is not certified");
    assert_eq!(VerifiedChain::decode(&verified.encode()), Some(verified));
}

fn details(serial: u32, issuer_serial: u32, key: &KeyPair) -> Vec<u8> {
    let details = Details {
        serial: Some(serial),
        issuer_serial: Some(issuer_serial),
        key: Some(Bytes::copy_from_slice(key.public().as_bytes())),
        not_before: Some(1_700_000_000),
        not_after: Some(1_800_000_000),
    };
    details.encode_to_vec()
}

/// What the good intermediate certificate says.
pub fn intermediate_details() -> Vec<u8> {
    details(7, 0, &CAST.intermediate)
}

/// What the good leaf says.
pub fn leaf_details() -> Vec<u8> {
    details(8, 7, &CAST.server_static)
}

/// The root that the fuzzed client trusts.
pub fn root() -> PublicKey {
    *CAST.root.public()
}

/// The key that the good chain certifies.
pub fn server_static() -> PublicKey {
    *CAST.server_static.public()
}

/// A chain that certifies the server's static key.
pub fn good_chain() -> Vec<u8> {
    encode_chain(&intermediate_details(), &leaf_details())
}

/// A chain of these details with good signatures.
fn encode_chain(intermediate: &[u8], leaf: &[u8]) -> Vec<u8> {
    let certificate = |details: &[u8], issuer: &KeyPair| {
        let signature = xeddsa::sign_with(issuer.private(), &[details], &[0; 64]);
        Some(Box::new(NoiseCertificate {
            details: Some(Bytes::copy_from_slice(details)),
            signature: Some(Bytes::copy_from_slice(&signature)),
        }))
    };
    CertChain { leaf: certificate(leaf, &CAST.intermediate), intermediate: certificate(intermediate, &CAST.root) }
        .encode_to_vec()
}
