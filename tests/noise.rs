//! The handshake and the transport are those of `vectors/noise_{xx,ik,xxfallback}.json`, byte for byte; a client and a
//! server agree whatever their keys; and a hostile server gets a typed error and nothing else (spec 01 §1.2–2.6).

#[path = "noise/responder.rs"]
mod responder;

use bytes::BytesMut;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use responder::{Server, encode_hello, keys};
use serde_json::Value;
use wamd::{
    crypto::{KeyPair, PrivateKey, Secret},
    noise::{
        CertificateError, CertificatePolicy, Finished, FrameBuffer, Handshake, HandshakeError, HandshakeFault,
        IntroReader, Part, Protocol, SymmetricError, SymmetricState, Transport, TransportError, VerifiedChain, frame,
    },
};
use wamd_proto::{Message as _, wa6::HandshakeMessage};

const NOW: u64 = 1_700_000_100;

struct Vector(Value);

impl Vector {
    fn load(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("vector file is JSON"))
    }

    fn xx() -> Self {
        Self::load(include_str!("vectors/noise_xx.json"))
    }

    fn ik() -> Self {
        Self::load(include_str!("vectors/noise_ik.json"))
    }

    fn fallback() -> Self {
        Self::load(include_str!("vectors/noise_xxfallback.json"))
    }

    fn at(&self, path: &str) -> Vec<u8> {
        bytes(self.0.pointer(path).unwrap_or_else(|| panic!("no {path}")))
    }

    fn keys(&self, name: &str) -> KeyPair {
        let pair = KeyPair::from_private(PrivateKey::from_slice(&self.at(&format!("/keys/{name}/private"))).unwrap());
        assert_eq!(pair.public().as_bytes()[..], self.at(&format!("/keys/{name}/public")));
        pair
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex text")).expect("hex")
}

fn test_policy() -> CertificatePolicy {
    let file = Vector::load(include_str!("vectors/cert_chain.json"));
    let root = PrivateKey::from_slice(&file.at("/root/private")).unwrap().public();
    CertificatePolicy { roots: vec![root], check_validity: true }
}

fn test_chain(vector: &Vector) -> VerifiedChain {
    let server = vector.keys("server-static");
    test_policy().verify(&vector.at("/cert_chain_plaintext"), server.public(), NOW).unwrap()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(payload, &mut out).unwrap();
    out.to_vec()
}

/// Runs the operations of a vector on a bare state and compares it after each.
fn check_steps(protocol: Protocol, vector: &Vector) {
    let steps = vector.0["steps"].as_array().unwrap();
    assert!(steps.len() >= 11);
    assert_eq!(protocol.initial_hash()[..], bytes(&steps[0]["h"]));
    let mut state = SymmetricState::new(protocol);
    for (i, step) in steps.iter().enumerate().skip(1) {
        let name = step["step"].as_str().unwrap();
        if i == 1 {
            assert_eq!(name, "MixHash(prologue)");
        } else if step.get("ikm").is_some() {
            state.mix_key(&Secret::from_slice(&bytes(&step["ikm"])).unwrap());
        } else if step.get("ciphertext").is_some() {
            assert_eq!(state.hash()[..], bytes(&step["aad"]), "{name}");
            let (plaintext, ciphertext) = (bytes(&step["plaintext"]), bytes(&step["ciphertext"]));
            // The reader's state is the writer's: run both operations on equal states.
            let mut reader = SymmetricState::new(protocol);
            replay(&mut reader, &steps[2..i]);
            assert_eq!(reader.decrypt_and_hash(&ciphertext).unwrap(), plaintext, "{name}");
            assert_eq!(state.encrypt_and_hash(&plaintext).unwrap(), ciphertext, "{name}");
            assert_eq!(reader.hash(), state.hash(), "{name}");
        } else {
            state.mix_hash(&bytes(&step["data"]));
        }
        let (ck, k, n) = state.secrets();
        assert_eq!(state.hash()[..], bytes(&step["h"]), "h after {name}");
        assert_eq!(ck[..], bytes(&step["ck"]), "ck after {name}");
        // Before the first key the vectors hold a placeholder, we hold nothing.
        let placeholder = protocol.initial_hash();
        assert_eq!(k.unwrap_or(&placeholder)[..], bytes(&step["k"]), "k after {name}");
        assert_eq!(Some(u64::from(n)), step["n"].as_u64(), "n after {name}");
    }
    let (write, read) = state.split();
    assert_eq!(write.expose()[..], vector.at("/split/client_write__server_read"));
    assert_eq!(read.expose()[..], vector.at("/split/client_read__server_write"));
}

fn replay(state: &mut SymmetricState, steps: &[Value]) {
    for step in steps {
        if step.get("ikm").is_some() {
            state.mix_key(&Secret::from_slice(&bytes(&step["ikm"])).unwrap());
        } else if step.get("ciphertext").is_some() {
            state.decrypt_and_hash(&bytes(&step["ciphertext"])).unwrap();
        } else {
            state.mix_hash(&bytes(&step["data"]));
        }
    }
}

/// Seals and opens the transport frames of a vector with the keys of a finished handshake.
fn check_transport(mut client: Transport, vector: &Vector) {
    let split = || {
        let key = |name| Secret::from_slice(&vector.at(&format!("/split/{name}"))).unwrap();
        (key("client_write__server_read"), key("client_read__server_write"))
    };
    let mut server = Transport::responder(split());
    let frames = vector.0["transport"].as_array().unwrap();
    assert!(frames.len() >= 5);
    for case in frames {
        let (plaintext, frame) = (bytes(&case["plaintext"]), bytes(&case["frame"]));
        let (sender, receiver) = match case["direction"].as_str().unwrap() {
            "client_to_server" => (&mut client.sender, &mut server.receiver),
            "server_to_client" => (&mut server.sender, &mut client.receiver),
            other => panic!("{other}"),
        };
        assert_eq!(Some(u64::from(sender.counter())), case["counter"].as_u64());
        let mut out = BytesMut::new();
        sender.seal_into(&plaintext, &mut out).unwrap();
        assert_eq!(out, frame[..]);
        let mut frames = FrameBuffer::new(frame::MAX_PAYLOAD);
        frames.push(&frame);
        let payload = frames.next_frame().unwrap().unwrap();
        assert_eq!(payload, bytes(&case["ciphertext"])[..]);
        assert_eq!(receiver.open(payload).unwrap(), plaintext[..]);
    }
}

fn start_xx(vector: &Vector) -> (Handshake, Vec<u8>) {
    let payload = vector.at("/client_payload_plaintext");
    Handshake::xx(vector.keys("client-noise-static"), vector.keys("client-ephemeral"), payload, test_policy())
}

fn start_ik(vector: &Vector) -> (Handshake, Vec<u8>) {
    let payload = vector.at("/client_payload_plaintext");
    let (static_keys, ephemeral) = (vector.keys("client-noise-static"), vector.keys("client-ephemeral"));
    Handshake::ik(static_keys, ephemeral, &test_chain(vector), payload, test_policy()).unwrap()
}

#[test]
fn every_step_of_the_vectors() {
    check_steps(Protocol::Xx, &Vector::xx());
    check_steps(Protocol::Ik, &Vector::ik());
    check_steps(Protocol::XxFallback, &Vector::fallback());
}

#[test]
fn xx_is_reproduced() {
    let vector = Vector::xx();
    let (machine, hello) = start_xx(&vector);
    assert_eq!(hello, vector.at("/client_hello/proto"));
    assert_eq!([frame::intro(None), framed(&hello)].concat(), vector.at("/client_hello/wire_first_message"));
    assert_eq!(
        [frame::intro(Some(&[0x0a, 0x0b, 0x0c])), framed(&hello)].concat(),
        vector.at("/client_hello/wire_first_message_with_edge_routing_0a0b0c")
    );

    let mut frames = FrameBuffer::new(frame::MAX_HANDSHAKE_PAYLOAD);
    vector.at("/server_hello/wire").iter().for_each(|byte| frames.push(&[*byte]));
    let server_hello = frames.next_frame().unwrap().unwrap();
    assert_eq!(server_hello, vector.at("/server_hello/proto")[..]);

    let Finished { transport, client_finish, chain, kind } = machine.read_server_hello(&server_hello, NOW).unwrap();
    assert_eq!(kind, Protocol::Xx);
    assert_eq!(chain.unwrap().leaf_key(), vector.keys("server-static").public());
    let client_finish = client_finish.unwrap();
    assert_eq!(client_finish, vector.at("/client_finish/proto"));
    assert_eq!(framed(&client_finish), vector.at("/client_finish/wire"));
    check_transport(transport, &vector);
}

#[test]
fn ik_is_reproduced() {
    let vector = Vector::ik();
    let (machine, hello) = start_ik(&vector);
    assert_eq!(hello, vector.at("/client_hello/proto"));
    assert_eq!([frame::intro(None), framed(&hello)].concat(), vector.at("/client_hello/wire_first_message"));

    let finished = machine.read_server_hello(&vector.at("/server_hello/proto"), NOW).unwrap();
    assert_eq!((finished.kind, finished.client_finish, finished.chain), (Protocol::Ik, None, None));
    check_transport(finished.transport, &vector);
}

#[test]
fn the_fallback_is_reproduced() {
    let (ik, vector) = (Vector::ik(), Vector::fallback());
    let (machine, hello) = start_ik(&ik);
    assert_eq!(hello, vector.at("/client_hello_already_sent"));

    let finished = machine.read_server_hello(&vector.at("/server_hello/proto"), NOW).unwrap();
    assert_eq!(finished.kind, Protocol::XxFallback);
    assert_eq!(finished.client_finish.as_deref(), Some(&vector.at("/client_finish/proto")[..]));
    assert_eq!(framed(&finished.client_finish.unwrap()), vector.at("/client_finish/wire"));
    assert!(finished.chain.is_some());
    check_transport(finished.transport, &vector);
}

/// Exchanges frames in both directions.
fn talk(client: &mut Transport, server: &mut Transport, messages: &[Vec<u8>]) {
    for message in messages {
        for (sender, receiver) in
            [(&mut client.sender, &mut server.receiver), (&mut server.sender, &mut client.receiver)]
        {
            let mut out = BytesMut::new();
            sender.seal_into(message, &mut out).unwrap();
            let mut frames = FrameBuffer::new(frame::MAX_PAYLOAD);
            frames.push(&out);
            assert_eq!(receiver.open(frames.next_frame().unwrap().unwrap()).unwrap(), message[..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn clients_and_servers_agree(
        seed: u64,
        payload in prop::collection::vec(any::<u8>(), 0..400),
        routing_info in prop::option::of(prop::collection::vec(any::<u8>(), 1..20)),
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4),
        chunk in 1_usize..200,
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let (root, client_static) = (KeyPair::generate(rng), KeyPair::generate(rng));
        let server = Server::new(&root, KeyPair::generate(rng));
        let moved = Server::new(&root, KeyPair::generate(rng));
        let policy = CertificatePolicy { roots: vec![keys(1).public().to_owned(), *root.public()], check_validity: true };

        // XX, then IK with the chain it brought, then IK against a server with another key, then IK with that one's.
        let (mut cached, mut kinds) = (None::<VerifiedChain>, Vec::new());
        for server in [&server, &server, &moved, &moved] {
            let (ephemeral, ours) = (KeyPair::generate(rng), client_static.clone());
            let (machine, hello) = match &cached {
                None => Handshake::xx(ours, ephemeral, payload.clone(), policy.clone()),
                Some(chain) => Handshake::ik(ours, ephemeral, chain, payload.clone(), policy.clone()).unwrap(),
            };
            // The stream reaches the server in chunks.
            let stream = [frame::intro(routing_info.as_deref()), framed(&hello)].concat();
            let (mut intro, mut frames) = (IntroReader::new(64), None::<FrameBuffer>);
            for chunk in stream.chunks(chunk) {
                let Some(frames) = &mut frames else {
                    intro.push(chunk);
                    if let Some(intro) = intro.next_intro().unwrap() {
                        prop_assert_eq!(intro.routing_info.as_deref(), routing_info.as_deref());
                        let mut buffer = FrameBuffer::new(frame::MAX_HANDSHAKE_PAYLOAD);
                        buffer.push_owned(intro.rest);
                        frames = Some(buffer);
                    }
                    continue;
                };
                frames.push(chunk);
            }
            let received = frames.unwrap().next_frame().unwrap().unwrap();
            let answer = server.answer(&received, KeyPair::generate(rng));

            let mut finished = machine.read_server_hello(&answer.encode(), 1_500).unwrap();
            let (seen_static, seen_payload, mut transport) = answer.next.finish(finished.client_finish.as_deref());
            prop_assert_eq!(&seen_static, client_static.public());
            prop_assert_eq!(&seen_payload, &payload);
            talk(&mut finished.transport, &mut transport, &messages);
            kinds.push(finished.kind);
            if let Some(chain) = finished.chain {
                prop_assert!(chain.usable_at(1_500));
                cached = VerifiedChain::decode(&chain.encode());
                prop_assert_eq!(cached.as_ref(), Some(&chain));
            }
            prop_assert_eq!(cached.as_ref().unwrap().leaf_key(), server.static_keys.public());
        }
        prop_assert_eq!(kinds, [Protocol::Xx, Protocol::Ik, Protocol::XxFallback, Protocol::Ik]);
    }

    #[test]
    fn no_changed_byte_of_a_server_hello_is_accepted(seed: u64, position: prop::sample::Index, flip in 1_u8..) {
        let (server, policy, chain) = hostile_set_up();
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let ephemeral = KeyPair::generate(rng);
        let starts: [(Handshake, Vec<u8>); 2] = [
            Handshake::xx(keys(2), ephemeral.clone(), b"payload".to_vec(), policy.clone()),
            Handshake::ik(keys(2), ephemeral, &chain, b"payload".to_vec(), policy).unwrap(),
        ];
        for (machine, hello) in starts {
            let answer = server.answer(&hello, KeyPair::generate(rng));
            let mut hello = answer.hello;
            // The values; a changed tag or length may still be the same protobuf.
            let mut parts = [hello.ephemeral().to_vec(), hello.r#static().to_vec(), hello.payload().to_vec()];
            let mut at = position.index(parts.iter().map(Vec::len).sum());
            let mut part = 0;
            while at >= parts[part].len() {
                at -= parts[part].len();
                part += 1;
            }
            parts[part][at] ^= flip;
            // X25519 ignores the top bit of a public key, but the transcript does not.
            let [ephemeral, sealed_static, payload] = parts;
            hello.ephemeral = Some(ephemeral.into());
            hello.r#static = hello.r#static.is_some().then(|| sealed_static.into());
            hello.payload = Some(payload.into());
            prop_assert!(machine.read_server_hello(&encode_hello(&hello), 1_500).is_err());
        }
    }

    #[test]
    fn the_fuzz_targets_hold_for_random_bytes(data in prop::collection::vec(any::<u8>(), 0..600)) {
        wamd::noise::fuzz::frame_stream(&data);
        wamd::noise::fuzz::handshake_server_hello(&data);
        wamd::noise::fuzz::cert_chain(&data);
    }
}

fn hostile_set_up() -> (Server, CertificatePolicy, VerifiedChain) {
    let server = Server::new(&keys(1), keys(3));
    let policy = CertificatePolicy { roots: vec![*keys(1).public()], check_validity: true };
    let chain = policy.verify(&server.chain, server.static_keys.public(), 1_500).unwrap();
    (server, policy, chain)
}

/// Answers an XX and an IK hello, lets `tamper` change the answer, and gives what the client says to each.
fn hostile(
    tamper: impl Fn(&mut wamd_proto::wa6::handshake_message::ServerHello),
) -> [Result<Protocol, HandshakeError>; 2] {
    let (server, policy, chain) = hostile_set_up();
    let starts = [
        Handshake::xx(keys(2), keys(4), b"payload".to_vec(), policy.clone()),
        Handshake::ik(keys(2), keys(4), &chain, b"payload".to_vec(), policy).unwrap(),
    ];
    starts.map(|(machine, hello)| {
        let mut answer = server.answer(&hello, keys(5));
        tamper(&mut answer.hello);
        machine.read_server_hello(&answer.encode(), 1_500).map(|finished| finished.kind)
    })
}

fn both(fault: HandshakeFault) -> [Result<Protocol, HandshakeError>; 2] {
    [Protocol::Xx, Protocol::Ik].map(|during| Err(HandshakeError { during, fault }))
}

#[test]
fn post_quantum_fields_are_ignored() {
    let accepted = hostile(|hello| {
        hello.extended_static = Some(vec![1; 1_200].into());
        hello.padding_bytes = Some(vec![2; 100].into());
        hello.extended_ciphertext = Some(vec![3; 1_100].into());
    });
    assert_eq!(accepted, [Ok(Protocol::Xx), Ok(Protocol::Ik)]);
}

#[test]
fn unknown_fields_are_ignored() {
    let (server, policy, _) = hostile_set_up();
    let (machine, hello) = Handshake::xx(keys(2), keys(4), Vec::new(), policy);
    // Field 15, bytes "x", at the end of the outer message.
    let answer = [&server.answer(&hello, keys(5)).encode()[..], &[0x7A, 1, b'x']].concat();
    assert!(machine.read_server_hello(&answer, 1_500).is_ok());
}

#[test]
fn parts_of_the_wrong_length_are_refused() {
    for len in [1, 31, 33, 64] {
        let refused = hostile(|hello| hello.ephemeral = Some(vec![9; len].into()));
        assert_eq!(refused, both(HandshakeFault::Length { part: Part::ServerEphemeral, len, expected: 32 }));
    }
    // A static key in the answer to IK is a fallback, and counts as one.
    for len in [1, 32, 47, 49] {
        let refused = hostile(|hello| hello.r#static = Some(vec![9; len].into()));
        let fault = HandshakeFault::Length { part: Part::ServerStatic, len, expected: 48 };
        let during = [Protocol::Xx, Protocol::XxFallback];
        assert_eq!(refused, during.map(|during| Err(HandshakeError { during, fault })));
    }
    for len in [1, 15, 16, 100] {
        let refused = hostile(|hello| hello.payload = Some(vec![9; len].into()));
        assert_eq!(refused, both(HandshakeFault::Cipher { part: Part::ServerPayload, error: SymmetricError::Tag }));
    }
}

#[test]
fn absent_parts_are_refused() {
    for absent in [None, Some(Vec::new().into())] {
        let refused = hostile(|hello| hello.ephemeral.clone_from(&absent));
        assert_eq!(refused, both(HandshakeFault::Missing(Part::ServerEphemeral)));
        let refused = hostile(|hello| hello.payload.clone_from(&absent));
        assert_eq!(refused, both(HandshakeFault::Missing(Part::ServerPayload)));
        let [xx, ik] = hostile(|hello| hello.r#static.clone_from(&absent));
        let fault = HandshakeFault::Missing(Part::ServerStatic);
        assert_eq!(xx, Err(HandshakeError { during: Protocol::Xx, fault }));
        assert_eq!(ik, Ok(Protocol::Ik), "IK has none");
    }
}

#[test]
fn points_of_small_order_are_refused() {
    let refused = hostile(|hello| hello.ephemeral = Some(vec![0; 32].into()));
    assert_eq!(refused, both(HandshakeFault::SmallOrder(Part::ServerEphemeral)));
}

#[test]
fn a_static_key_of_small_order_is_refused() {
    // An authentic channel to a server that sends the zero key as its static key.
    let (_, policy, _) = hostile_set_up();
    let (machine, _) = Handshake::xx(keys(2), keys(4), Vec::new(), policy);
    let mut symmetric = SymmetricState::new(Protocol::Xx);
    symmetric.mix_hash(keys(4).public().as_bytes());
    symmetric.mix_hash(keys(5).public().as_bytes());
    symmetric.mix_key(&wamd::crypto::x25519(keys(5).private(), keys(4).public()).unwrap());
    let hello = wamd_proto::wa6::handshake_message::ServerHello {
        ephemeral: Some(keys(5).public().as_bytes().to_vec().into()),
        r#static: Some(symmetric.encrypt_and_hash(&[0; 32]).unwrap().into()),
        payload: Some(vec![0; 32].into()),
        ..Default::default()
    };
    let refused = machine.read_server_hello(&encode_hello(&hello), 1_500).unwrap_err();
    assert_eq!(refused.fault, HandshakeFault::SmallOrder(Part::ServerStatic));
}

#[test]
fn other_messages_and_garbage_are_refused() {
    let check = |payload: &[u8], fault| {
        let (_, policy, chain) = hostile_set_up();
        let (machine, _) = Handshake::xx(keys(2), keys(4), Vec::new(), policy.clone());
        let refused = machine.read_server_hello(payload, 1_500).unwrap_err();
        assert_eq!(refused, HandshakeError { during: Protocol::Xx, fault });
        assert!(!refused.is_ik_failure());
        let (machine, _) = Handshake::ik(keys(2), keys(4), &chain, Vec::new(), policy).unwrap();
        let refused = machine.read_server_hello(payload, 1_500).unwrap_err();
        assert_eq!(refused, HandshakeError { during: Protocol::Ik, fault });
        assert!(refused.is_ik_failure());
    };
    check(b"", HandshakeFault::NotServerHello);
    check(b"\xff\xff\xff", HandshakeFault::Undecodable);
    check(&Vector::xx().at("/client_hello/proto"), HandshakeFault::NotServerHello);
    check(&Vector::xx().at("/client_finish/proto"), HandshakeFault::NotServerHello);
    let hello = Vector::xx().at("/server_hello/proto");
    for len in 1..hello.len() {
        check(&hello[..len], HandshakeFault::Undecodable);
    }
    let empty = HandshakeMessage { server_hello: Some(Box::default()), ..Default::default() }.encode_to_vec();
    check(&empty, HandshakeFault::Missing(Part::ServerPayload));
}

#[test]
fn an_answer_for_another_client_is_refused() {
    for (vector, kind) in [(Vector::xx(), Protocol::Xx), (Vector::ik(), Protocol::Ik)] {
        let (machine, part) = match kind {
            Protocol::Xx => (
                Handshake::xx(vector.keys("client-noise-static"), keys(9), Vec::new(), test_policy()).0,
                Part::ServerStatic,
            ),
            _ => {
                let chain = test_chain(&vector);
                let ours = vector.keys("client-noise-static");
                (Handshake::ik(ours, keys(9), &chain, Vec::new(), test_policy()).unwrap().0, Part::ServerPayload)
            }
        };
        let refused = machine.read_server_hello(&vector.at("/server_hello/proto"), NOW).unwrap_err();
        let fault = HandshakeFault::Cipher { part, error: SymmetricError::Tag };
        assert_eq!(refused, HandshakeError { during: kind, fault });
    }
}

#[test]
fn a_server_of_another_root_learns_nothing() {
    let vector = Vector::xx();
    let (static_keys, ephemeral) = (vector.keys("client-noise-static"), vector.keys("client-ephemeral"));
    let (machine, _) = Handshake::xx(static_keys, ephemeral, Vec::new(), CertificatePolicy::default());
    let refused = machine.read_server_hello(&vector.at("/server_hello/proto"), NOW).unwrap_err();
    assert_eq!(refused.fault, HandshakeFault::Certificate(CertificateError::UntrustedRoot));
}

#[test]
fn a_fallback_needs_a_valid_chain_and_is_no_ik_failure() {
    let (machine, _) = start_ik(&Vector::ik());
    let refused = machine.read_server_hello(&Vector::fallback().at("/server_hello/proto"), 5_000_000_000).unwrap_err();
    assert_eq!(refused.during, Protocol::XxFallback);
    assert!(matches!(refused.fault, HandshakeFault::Certificate(CertificateError::Expired { .. })));
    assert!(!refused.is_ik_failure());
}

#[test]
fn a_cached_chain_of_a_root_no_longer_trusted_is_not_used() {
    let (_, policy, chain) = hostile_set_up();
    assert!(policy.trusts(&chain));
    let refused = Handshake::ik(keys(2), keys(4), &chain, Vec::new(), CertificatePolicy::default()).unwrap_err();
    assert_eq!(refused.fault, HandshakeFault::Certificate(CertificateError::UntrustedRoot));
    assert!(refused.is_ik_failure());
}

#[test]
fn frames_that_were_swapped_or_changed_end_the_connection() {
    let (server, policy, _) = hostile_set_up();
    let (machine, hello) = Handshake::xx(keys(2), keys(4), Vec::new(), policy);
    let answer = server.answer(&hello, keys(5));
    let mut finished = machine.read_server_hello(&answer.encode(), 1_500).unwrap();
    let (_, _, mut server) = answer.next.finish(finished.client_finish.as_deref());
    let mut out = BytesMut::new();
    server.sender.seal_into(b"node", &mut out).unwrap();
    let mut changed = BytesMut::from(&out[3..]);
    changed[0] ^= 1;
    assert_eq!(finished.transport.receiver.open(changed), Err(TransportError::Tag));
    assert_eq!(finished.transport.receiver.open(BytesMut::from(&out[3..])), Err(TransportError::Tag));
}

#[test]
fn secrets_do_not_print() {
    let vector = Vector::ik();
    let (machine, _) = start_ik(&vector);
    let mut text = format!("{machine:?}");
    let finished = machine.read_server_hello(&vector.at("/server_hello/proto"), NOW).unwrap();
    text += &format!("{finished:?}");
    for secret in ["/split/client_write__server_read", "/split/client_read__server_write", "/client_payload_plaintext"]
    {
        let secret = vector.at(secret);
        assert!(!text.contains(&hex::encode(&secret[..4])));
        assert!(!text.contains(&format!("{}, {}, {}, {}", secret[0], secret[1], secret[2], secret[3])));
    }
    assert!(text.contains("[redacted]"));
}
