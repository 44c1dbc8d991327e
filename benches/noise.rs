//! What a connection costs below the nodes: one handshake, then two frames per stanza and its answer.
//!
//! `handshake/*`: the client's whole work for one connection, an ephemeral key pair included, against the recorded
//! server hello of the test vectors; the server's work is not in it.
//!
//! `frame/*`: one frame, beside the cipher of the same library on the same bytes. `wamd` seals in the connection's buffer, as the
//! engine does, finds the frame in the message and opens it there; `aes-gcm` encrypts and decrypts in place in a buffer that
//! is there. What is between them is framing, counters and buffers; our target is 1.15 × at most.

use std::{hint::black_box, time::Duration};

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use wamd::{
    crypto::{KeyPair, PrivateKey, Secret},
    noise::{
        CertificatePolicy, FrameBuffer, Handshake, MessageBuffer, Transport, frame as framing,
        transport::FRAME_OVERHEAD,
    },
};

/// Inside the validity windows of the vectors' certificates.
const NOW: u64 = 1_700_000_100;

fn vector(text: &str) -> Value {
    serde_json::from_str(text).expect("vector file is JSON")
}

fn bytes(file: &Value, path: &str) -> Vec<u8> {
    hex::decode(file.pointer(path).and_then(Value::as_str).expect("hex text")).expect("hex")
}

fn private(file: &Value, path: &str) -> PrivateKey {
    PrivateKey::from_slice(&bytes(file, path)).expect("32 bytes")
}

fn handshake(c: &mut Criterion) {
    let certificates = vector(include_str!("../tests/vectors/cert_chain.json"));
    let policy =
        CertificatePolicy { roots: vec![private(&certificates, "/root/private").public()], check_validity: true };
    let server_static = private(&certificates, "/leaf/key/private").public();
    let chain = policy.verify(&bytes(&certificates, "/chain"), &server_static, NOW).expect("valid");

    let mut group = c.benchmark_group("handshake");
    for (name, file) in [
        ("xx", vector(include_str!("../tests/vectors/noise_xx.json"))),
        ("ik", vector(include_str!("../tests/vectors/noise_ik.json"))),
    ] {
        let static_keys = KeyPair::from_private(private(&file, "/keys/client-noise-static/private"));
        let ephemeral = private(&file, "/keys/client-ephemeral/private");
        let payload = bytes(&file, "/client_payload_plaintext");
        let server_hello = bytes(&file, "/server_hello/proto");
        group.bench_function(name, |b| {
            b.iter_batched(
                || (static_keys.clone(), ephemeral.clone(), payload.clone(), policy.clone()),
                |(static_keys, ephemeral, payload, policy)| {
                    let ephemeral = KeyPair::from_private(ephemeral);
                    let (machine, hello) = if name == "xx" {
                        Handshake::xx(static_keys, ephemeral, payload, policy)
                    } else {
                        Handshake::ik(static_keys, ephemeral, &chain, payload, policy).expect("usable chain")
                    };
                    black_box(hello);
                    machine.read_server_hello(&server_hello, NOW).expect("recorded for these keys")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn frame(c: &mut Criterion) {
    for len in [200_usize, 1024, 16 * 1024] {
        let mut group = c.benchmark_group(format!("frame/{len}"));
        group.throughput(Throughput::Bytes(len as u64));
        let plaintext = vec![7; len];

        let keys = || (Secret::new([1; 32]), Secret::new([2; 32]));
        let (mut client, mut server) = (Transport::initiator(keys()), Transport::responder(keys()));
        let (mut outgoing, mut frames) = (MessageBuffer::new(), FrameBuffer::new(framing::MAX_PAYLOAD));
        group.bench_function("wamd", |b| {
            b.iter(|| {
                client.sender.seal_into(&plaintext, outgoing.room(len + FRAME_OVERHEAD)).expect("fits");
                frames.push_owned(outgoing.take().freeze());
                let payload = frames.next_frame().expect("below the limit").expect("whole");
                server.receiver.open(payload).expect("authentic")
            });
        });

        let cipher = Aes256Gcm::new(&[1; 32].into());
        let (mut buffer, mut counter) = (plaintext.clone(), 0_u64);
        group.bench_function("aes-gcm", |b| {
            b.iter(|| {
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&counter.to_be_bytes());
                counter += 1;
                let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], (&mut buffer[..]).into()).expect("short");
                let opened = cipher.decrypt_inout_detached(&nonce.into(), &[], (&mut buffer[..]).into(), &tag);
                opened.expect("authentic");
                black_box(&mut buffer);
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = noise;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = handshake, frame
}
criterion_main!(noise);
