//! What a gateway pays per device and per message: session set-up, 256-byte messages in an established session (with and
//! without the encoding of the record), a turn, and the record alone; for groups, a sender key made and taken over, and
//! 256-byte messages under it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use wamd::{
    crypto::{KeyPair, xeddsa},
    signal::{
        self, Address, Ciphertext, Own, PreKeyBundle, PreKeyId, Session, SignalStore, SignedPreKeyId,
        memory::MemorySignalStore,
        sender_key::{self, SenderKeyName, memory::MemorySenderKeyStore},
    },
};

const PLAINTEXT: [u8; 256] = [0x5A; 256];
/// Messages that are encrypted ahead of a timed run of decryptions.
const CHUNK: u64 = 1_000;

#[derive(Clone)]
struct Party {
    identity: KeyPair,
    bundle: PreKeyBundle,
    store: MemorySignalStore,
    peer: Address,
    rng: ChaCha20Rng,
}

impl Party {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let [identity, signed, one_time] = [(); 3].map(|()| KeyPair::generate(&mut rng));
        let bundle = PreKeyBundle {
            registration_id: 1,
            identity: *identity.public(),
            signed_pre_key_id: SignedPreKeyId(1),
            signed_pre_key: *signed.public(),
            signature: xeddsa::sign(identity.private(), &[&signed.public().to_typed()], &mut rng),
            pre_key: Some((PreKeyId(1), *one_time.public())),
        };
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(1), signed);
        store.put_pre_key(PreKeyId(1), one_time);
        Self { identity, bundle, store, peer: Address::new("4915112345678:3@s.whatsapp.net"), rng }
    }

    fn establish(&mut self, bundle: &PreKeyBundle) {
        let own = Own { identity: &self.identity, registration_id: 1 };
        signal::establish(&mut self.store, &own, &self.peer, bundle, &mut self.rng).expect("bundle");
    }

    fn encrypt(&mut self) -> Ciphertext {
        let own = Own { identity: &self.identity, registration_id: 1 };
        signal::encrypt(&mut self.store, &own, &self.peer, &PLAINTEXT, &mut self.rng).expect("session")
    }

    fn decrypt(&mut self, sent: &Ciphertext) {
        let own = Own { identity: &self.identity, registration_id: 1 };
        let found = signal::decrypt(&mut self.store, &own, &self.peer, sent.kind, &sent.bytes);
        black_box(found.expect("message"));
    }

    fn session(&mut self) -> Session {
        let Ok(session) = self.store.session(&self.peer.clone());
        session.expect("session")
    }
}

/// Two parties that have answered each other and turned often enough to have five receiver chains.
fn established() -> (Party, Party) {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.establish(&bob.bundle.clone());
    for _ in 0..6 {
        let sent = alice.encrypt();
        bob.decrypt(&sent);
        let sent = bob.encrypt();
        alice.decrypt(&sent);
    }
    (alice, bob)
}

fn set_up(c: &mut Criterion) {
    let (alice, bob) = (Party::new(1), Party::new(2));
    c.bench_function("signal/set-up/initiator", |b| {
        b.iter_batched_ref(|| alice.clone(), |alice| alice.establish(&bob.bundle), BatchSize::SmallInput);
    });
    let mut initiator = alice;
    initiator.establish(&bob.bundle);
    let first = initiator.encrypt();
    c.bench_function("signal/set-up/responder with first decrypt", |b| {
        b.iter_batched_ref(|| bob.clone(), |bob| bob.decrypt(&first), BatchSize::SmallInput);
    });
}

fn messages(c: &mut Criterion) {
    for (suffix, with_record) in [("", false), (" + record encode and decode", true)] {
        c.bench_function(&format!("signal/encrypt 256 B{suffix}"), |b| {
            let (mut alice, _) = established();
            b.iter(|| {
                if with_record {
                    alice.store.reload().expect("record");
                }
                black_box(alice.encrypt())
            });
        });
        c.bench_function(&format!("signal/decrypt 256 B in order{suffix}"), |b| {
            let (mut alice, mut bob) = established();
            b.iter_custom(|iterations| {
                let (mut left, mut spent) = (iterations, Duration::ZERO);
                while left > 0 {
                    let sent: Vec<_> = (0..left.min(CHUNK)).map(|_| alice.encrypt()).collect();
                    left -= sent.len() as u64;
                    let start = Instant::now();
                    for sent in &sent {
                        if with_record {
                            bob.store.reload().expect("record");
                        }
                        bob.decrypt(sent);
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    c.bench_function("signal/turn: two messages, both sides ratchet", |b| {
        let (mut alice, mut bob) = established();
        b.iter(|| {
            let sent = alice.encrypt();
            bob.decrypt(&sent);
            let sent = bob.encrypt();
            alice.decrypt(&sent);
        });
    });
    c.bench_function("signal/decrypt after 500 skipped", |b| {
        let (mut alice, bob) = established();
        let sent = (0..=500).map(|_| alice.encrypt()).last().expect("last of many");
        b.iter_batched_ref(|| bob.clone(), |bob| bob.decrypt(&sent), BatchSize::SmallInput);
    });
}

fn records(c: &mut Criterion) {
    let session = established().0.session();
    let bytes = session.encode();
    c.bench_function("signal/record/encode", |b| b.iter(|| black_box(session.encode())));
    c.bench_function("signal/record/decode", |b| b.iter(|| Session::decode(black_box(&bytes)).expect("record")));
}

/// A sender with a key for a group, and a receiver that has it.
struct Group {
    name: SenderKeyName,
    sender: MemorySenderKeyStore,
    receiver: MemorySenderKeyStore,
    rng: ChaCha20Rng,
}

impl Group {
    fn new() -> Self {
        let name = SenderKeyName::new("120363000000000000@g.us", Address::new("100000012345678:3@lid"));
        let (sender, receiver) = (MemorySenderKeyStore::new(), MemorySenderKeyStore::new());
        let mut group = Self { name, sender, receiver, rng: ChaCha20Rng::seed_from_u64(1) };
        group.establish();
        group
    }

    fn establish(&mut self) {
        let message = sender_key::rotate(&mut self.sender, &self.name, &mut self.rng).encode();
        sender_key::process(&mut self.receiver, &self.name, &message).expect("distribution message");
    }

    fn encrypt(&mut self) -> bytes::Bytes {
        sender_key::encrypt(&mut self.sender, &self.name, &PLAINTEXT, &mut self.rng).expect("own key")
    }

    fn decrypt(&mut self, sent: &[u8]) {
        let senders = std::slice::from_ref(self.name.sender());
        black_box(sender_key::decrypt(&mut self.receiver, self.name.group(), senders, sent).expect("message"));
    }
}

fn sender_keys(c: &mut Criterion) {
    let mut group = c.benchmark_group("sender_key");
    group.bench_function("establish: make, distribute, take over", |b| {
        let mut group = Group::new();
        b.iter(|| group.establish());
    });
    for (suffix, with_record) in [("", false), (" + record encode and decode", true)] {
        group.bench_function(format!("encrypt 256 B{suffix}"), |b| {
            let mut group = Group::new();
            b.iter(|| {
                if with_record {
                    group.sender.reload().expect("record");
                }
                black_box(group.encrypt())
            });
        });
        group.bench_function(format!("decrypt 256 B in order{suffix}"), |b| {
            let mut group = Group::new();
            b.iter_custom(|iterations| {
                let (mut left, mut spent) = (iterations, Duration::ZERO);
                while left > 0 {
                    let sent: Vec<_> = (0..left.min(CHUNK)).map(|_| group.encrypt()).collect();
                    left -= sent.len() as u64;
                    let start = Instant::now();
                    for sent in &sent {
                        if with_record {
                            group.receiver.reload().expect("record");
                        }
                        group.decrypt(sent);
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, set_up, messages, records, sender_keys);
criterion_main!(benches);
