//! The transport cipher and the handshake, and the same work in `wacore-noise`.
//!
//! Both sides have the same keys. A frame is sealed, cut out of the stream and opened; handshakes end with the same hash, so
//! every byte of them was the same. The peer's key pairs are types of another crate, and its certificates go back to the
//! production root only; so its side of a handshake is made of its `NoiseHandshake` and `HandshakeUtils`, as its documentation
//! shows, and the certificates of XX are not verified on either side.

use std::hint::black_box;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use buffa::Message as _;
use bytes::{Bytes, BytesMut};
use wacore_noise::framing::{FrameDecoder, append_frame_header_into, append_frame_into};
use wacore_noise::{HandshakeUtils, NoiseHandshake};
use wamd::crypto::{KeyPair, PrivateKey, PublicKey, Secret, x25519};
use wamd::noise::{
    CertificatePolicy, FrameBuffer, HEADER, Handshake, MessageBuffer, Protocol, SymmetricState, Transport,
    VerifiedChain, frame, transport::FRAME_OVERHEAD,
};
use wamd::proto::Message as _;
use wamd::proto::wa6::HandshakeMessage;
use wamd::proto::wa6::handshake_message::{ClientFinish, ClientHello, ServerHello};

use crate::measure::{Case, run};

pub fn run_all() {
    let mut cases = vec![];
    for len in [200, 1024, 16 * 1024] {
        frames(&mut cases, len);
    }
    run("Transport: wamd and wacore-noise 0.7.0", cases);
    run("Transport: wamd and aes-gcm alone", [200, 1024, 16 * 1024].map(alone).into());

    let cast = Cast::new();
    run(
        "Handshake: wamd and wacore-noise 0.7.0",
        vec![xx_client(&cast), xx_server(&cast), ik_client(&cast), ik_server(&cast)],
    );
}

// ---- transport ------------------------------------------------------------------------------------------------

fn frames(cases: &mut Vec<Case<'_>>, len: usize) {
    let plaintext: Vec<u8> = (0..len).map(|place| place as u8).collect();
    let case = Case::new(format!("{len} bytes: seal, frame, open"), seal_and_open(plaintext.clone())).agree();

    let cipher = || wacore_noise::NoiseCipher::new(&[1; 32]).expect("a key");
    let open = |decoder: &mut FrameDecoder, cipher: &wacore_noise::NoiseCipher, counter: u32, message: &[u8]| {
        decoder.feed(message);
        let mut payload = decoder.decode_frame().expect("whole");
        cipher.decrypt_in_place_with_counter(counter, &mut payload).expect("authentic");
        checksum(&payload.freeze())
    };
    let (one, text, mut decoder, mut counter, mut scratch) =
        (cipher(), plaintext.clone(), FrameDecoder::new(), 0, Vec::new());
    let case = case.theirs("encrypt in a kept buffer, then frame", move || {
        scratch.clear();
        scratch.extend_from_slice(&text);
        one.encrypt_in_place_with_counter(counter, &mut scratch).expect("a counter");
        let mut message = BytesMut::new();
        append_frame_into(&scratch, None, &mut message).expect("fits");
        let sum = open(&mut decoder, &one, counter, &message);
        counter += 1;
        sum
    });
    let (one, text, mut decoder, mut counter) = (cipher(), plaintext, FrameDecoder::new(), 0);
    let case = case.theirs("encrypt behind the header", move || {
        let mut message = BytesMut::new();
        append_frame_header_into(text.len() + 16, None, &mut message).expect("fits");
        let mut body = message.split_off(message.len());
        body.extend_from_slice(&text);
        one.encrypt_in_place_with_counter(counter, &mut body).expect("a counter");
        message.unsplit(body);
        let sum = open(&mut decoder, &one, counter, &message);
        counter += 1;
        sum
    });
    cases.push(case);
}

/// The cipher alone on the same bytes: it encrypts and decrypts in a buffer that is there, without frames and counters.
fn alone<'a>(len: usize) -> Case<'a> {
    let cipher = Aes256Gcm::new(&[1; 32].into());
    let (mut buffer, mut counter) = (vec![7; len], 0u64);
    Case::new(format!("{len} bytes: seal, frame, open"), seal_and_open(vec![7; len])).theirs("in place", move || {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        counter += 1;
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], (&mut buffer[..]).into()).expect("short");
        let opened = cipher.decrypt_inout_detached(&nonce.into(), &[], (&mut buffer[..]).into(), &tag);
        opened.expect("authentic");
        checksum(&buffer)
    })
}

/// Our side, as the engine does it: a message is sealed in the buffer of its connection, goes to the socket as it is, and comes
/// from it as it is.
fn seal_and_open(text: Vec<u8>) -> impl FnMut() -> u64 {
    let keys = || (Secret::new([1; 32]), Secret::new([2; 32]));
    let (mut sender, mut receiver) = (Transport::initiator(keys()).sender, Transport::responder(keys()).receiver);
    let (mut outgoing, mut buffer) = (MessageBuffer::new(), FrameBuffer::new(frame::MAX_PAYLOAD));
    move || {
        sender.seal_into(&text, outgoing.room(text.len() + FRAME_OVERHEAD)).expect("fits");
        buffer.push_owned(outgoing.take().freeze());
        let payload = buffer.next_frame().expect("below the limit").expect("whole");
        checksum(&receiver.open(payload).expect("authentic"))
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let ends = bytes.first().into_iter().chain(bytes.last()).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    ends << 32 | bytes.len() as u64
}

// ---- handshake ------------------------------------------------------------------------------------------------

/// The same keys and messages for both sides.
struct Cast {
    client: KeyPair,
    client_ephemeral: KeyPair,
    server: KeyPair,
    server_ephemeral: KeyPair,
    payload: Vec<u8>,
    certificates: Vec<u8>,
    chain: VerifiedChain,
    policy: CertificatePolicy,
    xx: Recorded,
    ik: Recorded,
}

/// What goes over the wire in a handshake: the client's ciphertexts without their message, and the server's message.
#[derive(Default)]
struct Recorded {
    client_static: Vec<u8>,
    client_payload: Vec<u8>,
    server_hello: Vec<u8>,
}

impl Cast {
    fn new() -> Self {
        let keys = |seed| KeyPair::from_private(PrivateKey::from_bytes([seed; 32]));
        let certificates = wamd::noise::fuzz::good_chain();
        let root = wamd::noise::fuzz::root();
        let policy = CertificatePolicy { roots: vec![root], check_validity: true };
        let server = keys(4);
        let chain = policy.verify(&certificates, server.public(), 1_700_000_100).expect("a good chain");
        let mut cast = Self {
            client: keys(1),
            client_ephemeral: keys(2),
            server,
            server_ephemeral: keys(3),
            payload: vec![7; 250],
            certificates,
            chain,
            policy,
            xx: Recorded::default(),
            ik: Recorded::default(),
        };
        cast.xx = cast.record_xx();
        cast.ik = cast.record_ik();
        cast
    }

    fn record_xx(&self) -> Recorded {
        let mut state = ours_start(Protocol::Xx, &[self.client_ephemeral.public(), self.server_ephemeral.public()]);
        ours_mix(&mut state, &self.client_ephemeral, self.server_ephemeral.public());
        let server_static = seal(&mut state, self.server.public().as_bytes());
        ours_mix(&mut state, &self.client_ephemeral, self.server.public());
        let server_payload = seal(&mut state, &self.certificates);
        let client_static = seal(&mut state, self.client.public().as_bytes());
        ours_mix(&mut state, &self.client, self.server_ephemeral.public());
        let client_payload = seal(&mut state, &self.payload);
        let server_hello = self.hello(Some(&server_static), &server_payload);
        Recorded { client_static, client_payload, server_hello }
    }

    fn record_ik(&self) -> Recorded {
        let mut state = ours_start(Protocol::Ik, &[self.server.public(), self.client_ephemeral.public()]);
        ours_mix(&mut state, &self.client_ephemeral, self.server.public());
        let client_static = seal(&mut state, self.client.public().as_bytes());
        ours_mix(&mut state, &self.client, self.server.public());
        let client_payload = seal(&mut state, &self.payload);
        state.mix_hash(self.server_ephemeral.public().as_bytes());
        ours_mix(&mut state, &self.client_ephemeral, self.server_ephemeral.public());
        ours_mix(&mut state, &self.client, self.server_ephemeral.public());
        let server_payload = seal(&mut state, &self.certificates);
        let server_hello = self.hello(None, &server_payload);
        Recorded { client_static, client_payload, server_hello }
    }

    fn hello(&self, server_static: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
        let hello = ServerHello {
            ephemeral: Some(Bytes::copy_from_slice(self.server_ephemeral.public().as_bytes())),
            r#static: server_static.map(Bytes::copy_from_slice),
            payload: Some(Bytes::copy_from_slice(payload)),
            ..Default::default()
        };
        HandshakeMessage { server_hello: Some(Box::new(hello)), ..Default::default() }.encode_to_vec()
    }
}

fn ours_start(protocol: Protocol, hashed: &[&PublicKey]) -> SymmetricState {
    let mut state = SymmetricState::new(protocol);
    hashed.iter().for_each(|key| state.mix_hash(key.as_bytes()));
    state
}

fn ours_mix(state: &mut SymmetricState, ours: &KeyPair, theirs: &PublicKey) {
    state.mix_key(&x25519(ours.private(), theirs).expect("full order"));
}

fn seal(state: &mut SymmetricState, plaintext: &[u8]) -> Vec<u8> {
    state.encrypt_and_hash(plaintext).expect("a key was mixed in")
}

fn open(state: &mut SymmetricState, ciphertext: &[u8]) -> Vec<u8> {
    state.decrypt_and_hash(ciphertext).expect("authentic")
}

fn theirs_start(pattern: &str, hashed: &[&PublicKey]) -> NoiseHandshake {
    let mut state = NoiseHandshake::new(pattern, &HEADER).expect("a pattern");
    hashed.iter().for_each(|key| state.authenticate(key.as_bytes()));
    state
}

fn theirs_mix(state: &mut NoiseHandshake, ours: &KeyPair, theirs: &PublicKey) {
    state.mix_shared_secret(ours.private().expose(), theirs.as_bytes()).expect("full order");
}

/// The end of both: the keys are made, and the hash tells that the messages were the same.
fn ours_end(state: SymmetricState) -> u64 {
    let sum = first(state.hash());
    black_box(Transport::initiator(state.split()));
    sum
}

fn theirs_end(state: NoiseHandshake) -> u64 {
    let sum = first(state.hash());
    black_box(state.finish().expect("keys"));
    sum
}

fn first(hash: &[u8; 32]) -> u64 {
    hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

const XX: &str = "Noise_XX_25519_AESGCM_SHA256\0\0\0\0";
const IK: &str = "Noise_IK_25519_AESGCM_SHA256\0\0\0\0";

fn xx_client(cast: &Cast) -> Case<'_> {
    let ours = move || {
        let (client, ephemeral) = (&cast.client, &cast.client_ephemeral);
        let mut state = ours_start(Protocol::Xx, &[ephemeral.public()]);
        let hello = ClientHello {
            ephemeral: Some(Bytes::copy_from_slice(ephemeral.public().as_bytes())),
            ..Default::default()
        };
        black_box(HandshakeMessage { client_hello: Some(Box::new(hello)), ..Default::default() }.encode_to_vec());
        let answer = HandshakeMessage::decode(&cast.xx.server_hello[..]).expect("a message");
        let answer = answer.server_hello.expect("a hello");
        let theirs = PublicKey::from_slice(&answer.ephemeral.unwrap_or_default()).expect("a key");
        state.mix_hash(theirs.as_bytes());
        ours_mix(&mut state, ephemeral, &theirs);
        let server = open(&mut state, &answer.r#static.unwrap_or_default());
        ours_mix(&mut state, ephemeral, &PublicKey::from_slice(&server).expect("a key"));
        black_box(open(&mut state, &answer.payload.unwrap_or_default()));
        let sealed_static = seal(&mut state, client.public().as_bytes());
        ours_mix(&mut state, client, &theirs);
        let sealed_payload = seal(&mut state, &cast.payload);
        let finish = ClientFinish {
            r#static: Some(sealed_static.into()),
            payload: Some(sealed_payload.into()),
            ..Default::default()
        };
        black_box(HandshakeMessage { client_finish: Some(Box::new(finish)), ..Default::default() }.encode_to_vec());
        ours_end(state)
    };
    let theirs = move || {
        let (client, ephemeral) = (&cast.client, &cast.client_ephemeral);
        let mut state = theirs_start(XX, &[ephemeral.public()]);
        black_box(HandshakeUtils::build_client_hello(ephemeral.public().as_bytes()).encode_to_vec());
        let (theirs, sealed_static, sealed_payload) =
            HandshakeUtils::parse_server_hello(&cast.xx.server_hello).expect("a hello");
        let theirs = PublicKey::from_slice(&theirs).expect("a key");
        state.authenticate(theirs.as_bytes());
        theirs_mix(&mut state, ephemeral, &theirs);
        let server = state.decrypt(&sealed_static).expect("authentic");
        theirs_mix(&mut state, ephemeral, &PublicKey::from_slice(&server).expect("a key"));
        black_box(state.decrypt(&sealed_payload).expect("authentic"));
        let sealed_static = state.encrypt(client.public().as_bytes()).expect("a key");
        theirs_mix(&mut state, client, &theirs);
        let sealed_payload = state.encrypt(&cast.payload).expect("a key");
        black_box(HandshakeUtils::build_client_finish(sealed_static, sealed_payload).encode_to_vec());
        theirs_end(state)
    };
    Case::new("XX, client, certificates apart", ours).theirs("NoiseHandshake", theirs).agree()
}

fn xx_server(cast: &Cast) -> Case<'_> {
    let hashed = [cast.client_ephemeral.public(), cast.server_ephemeral.public()];
    let ours = move || {
        let (ephemeral, client) = (&cast.server_ephemeral, cast.client_ephemeral.public());
        let mut state = ours_start(Protocol::Xx, &hashed);
        ours_mix(&mut state, ephemeral, client);
        black_box(seal(&mut state, cast.server.public().as_bytes()));
        ours_mix(&mut state, &cast.server, client);
        black_box(seal(&mut state, &cast.certificates));
        let client_static = open(&mut state, &cast.xx.client_static);
        ours_mix(&mut state, ephemeral, &PublicKey::from_slice(&client_static).expect("a key"));
        black_box(open(&mut state, &cast.xx.client_payload));
        ours_end(state)
    };
    let theirs = move || {
        let (ephemeral, client) = (&cast.server_ephemeral, cast.client_ephemeral.public());
        let mut state = theirs_start(XX, &hashed);
        theirs_mix(&mut state, ephemeral, client);
        black_box(state.encrypt(cast.server.public().as_bytes()).expect("a key"));
        theirs_mix(&mut state, &cast.server, client);
        black_box(state.encrypt(&cast.certificates).expect("a key"));
        let client_static = state.decrypt(&cast.xx.client_static).expect("authentic");
        theirs_mix(&mut state, ephemeral, &PublicKey::from_slice(&client_static).expect("a key"));
        black_box(state.decrypt(&cast.xx.client_payload).expect("authentic"));
        theirs_end(state)
    };
    Case::new("XX, server, without its messages", ours).theirs("NoiseHandshake", theirs).agree()
}

fn ik_client(cast: &Cast) -> Case<'_> {
    let ours = move || {
        let (client, ephemeral) = (cast.client.clone(), cast.client_ephemeral.clone());
        let (machine, hello) =
            Handshake::ik(client, ephemeral, &cast.chain, cast.payload.clone(), cast.policy.clone()).expect("a chain");
        black_box(hello);
        black_box(machine.read_server_hello(&cast.ik.server_hello, 1_700_000_100).expect("authentic"));
        0
    };
    let theirs = move || {
        let (client, ephemeral) = (&cast.client, &cast.client_ephemeral);
        let mut state = theirs_start(IK, &[cast.chain.leaf_key(), ephemeral.public()]);
        theirs_mix(&mut state, ephemeral, cast.chain.leaf_key());
        let sealed_static = state.encrypt(client.public().as_bytes()).expect("a key");
        theirs_mix(&mut state, client, cast.chain.leaf_key());
        let sealed_payload = state.encrypt(&cast.payload).expect("a key");
        let hello = HandshakeUtils::build_ik_client_hello(ephemeral.public().as_bytes(), sealed_static, sealed_payload);
        black_box(hello.encode_to_vec());
        let answer = HandshakeUtils::parse_server_hello_body(&cast.ik.server_hello).expect("a hello");
        let theirs = PublicKey::from_slice(&answer.ephemeral.unwrap_or_default()).expect("a key");
        state.authenticate(theirs.as_bytes());
        theirs_mix(&mut state, ephemeral, &theirs);
        theirs_mix(&mut state, client, &theirs);
        black_box(state.decrypt(&answer.payload.unwrap_or_default()).expect("authentic"));
        theirs_end(state);
        0
    };
    Case::new("IK, client, whole", ours).theirs("NoiseHandshake", theirs)
}

fn ik_server(cast: &Cast) -> Case<'_> {
    let hashed = [cast.server.public(), cast.client_ephemeral.public()];
    let ours = move || {
        let (ephemeral, client) = (&cast.server_ephemeral, cast.client_ephemeral.public());
        let mut state = ours_start(Protocol::Ik, &hashed);
        ours_mix(&mut state, &cast.server, client);
        let client_static = open(&mut state, &cast.ik.client_static);
        let client_static = PublicKey::from_slice(&client_static).expect("a key");
        ours_mix(&mut state, &cast.server, &client_static);
        black_box(open(&mut state, &cast.ik.client_payload));
        state.mix_hash(ephemeral.public().as_bytes());
        ours_mix(&mut state, ephemeral, client);
        ours_mix(&mut state, ephemeral, &client_static);
        black_box(seal(&mut state, &cast.certificates));
        ours_end(state)
    };
    let theirs = move || {
        let (ephemeral, client) = (&cast.server_ephemeral, cast.client_ephemeral.public());
        let mut state = theirs_start(IK, &hashed);
        theirs_mix(&mut state, &cast.server, client);
        let client_static = state.decrypt(&cast.ik.client_static).expect("authentic");
        let client_static = PublicKey::from_slice(&client_static).expect("a key");
        theirs_mix(&mut state, &cast.server, &client_static);
        black_box(state.decrypt(&cast.ik.client_payload).expect("authentic"));
        state.authenticate(ephemeral.public().as_bytes());
        theirs_mix(&mut state, ephemeral, client);
        theirs_mix(&mut state, ephemeral, &client_static);
        black_box(state.encrypt(&cast.certificates).expect("a key"));
        theirs_end(state)
    };
    Case::new("IK, server, without its messages", ours).theirs("NoiseHandshake", theirs).agree()
}
