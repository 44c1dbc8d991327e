//! Whatever the network does, every group message that can be read is read exactly once (spec 03 §10.1).
//!
//! Three devices send to one group and distribute their keys, again and anew, while the network reorders, drops, repeats and
//! damages, and the senders crash. A model of the counters knows what each message must give. After every step all records go
//! through their encoded form, and every read of a record misses first, as in an engine that has not loaded it yet.

use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use wamd::signal::{
    Address, SignalError, SkippedPage, StepError,
    sender_key::{
        self, OwnSenderKey, Processed, SenderKeyId, SenderKeyName, SenderKeyPageId, SenderKeyPosition, SenderKeyRecord,
        SenderKeyStore, fuzz, memory::MemorySenderKeyStore, wire::DistributionMessage, wire::SenderKeyMessage,
    },
};

const GROUP: &str = "g";
const SENDERS: usize = 3;
/// Iterations that a sender reserves before it sends.
const LEASE: u32 = 64;

/// A step of the world. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Op {
    Send {
        from: usize,
        count: u8,
    },
    /// The distribution message goes onto the network, as pairwise ciphertexts do.
    Distribute {
        from: usize,
    },
    Rotate {
        from: usize,
    },
    Deliver {
        which: usize,
    },
    DeliverOldest,
    Drop {
        which: usize,
    },
    Replay {
        which: usize,
    },
    Damage {
        which: usize,
        at: usize,
        bit: u8,
    },
    /// A message is said to come from another device.
    Misattribute {
        which: usize,
        to: usize,
    },
    Crash {
        who: usize,
    },
    Garbage {
        from: usize,
        bytes: Vec<u8>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (which, who) = (any::<usize>, || 0..SENDERS);
    prop_oneof![
        8 => (who(), 1..5u8).prop_map(|(from, count)| Op::Send { from, count }),
        1 => (who(), 80..200u8).prop_map(|(from, count)| Op::Send { from, count }),
        4 => who().prop_map(|from| Op::Distribute { from }),
        2 => who().prop_map(|from| Op::Rotate { from }),
        10 => which().prop_map(|which| Op::Deliver { which }),
        5 => Just(Op::DeliverOldest),
        2 => which().prop_map(|which| Op::Drop { which }),
        3 => which().prop_map(|which| Op::Replay { which }),
        3 => (which(), which(), 0..8u8).prop_map(|(which, at, bit)| Op::Damage { which, at, bit }),
        2 => (which(), who()).prop_map(|(which, to)| Op::Misattribute { which, to }),
        1 => who().prop_map(|who| Op::Crash { who }),
        1 => (who(), vec(any::<u8>(), 0..200)).prop_map(|(from, bytes)| Op::Garbage { from, bytes }),
    ]
}

/// What is on the network.
#[derive(Clone, Debug)]
enum Packet {
    Distribution { from: usize, message: DistributionMessage },
    Message { from: usize, text: Vec<u8>, bytes: Bytes },
}

struct Sender {
    name: SenderKeyName,
    store: MemorySenderKeyStore,
    /// The store as a crash would leave it, and the iterations reserved in it.
    durable: MemorySenderKeyStore,
    lease: Option<SenderKeyPosition>,
    /// The keys that the receiver must have, newest first.
    model: Vec<KeyModel>,
}

/// What the receiver must know of a key.
struct KeyModel {
    id: SenderKeyId,
    next: u32,
    skipped: BTreeSet<u32>,
}

impl Sender {
    fn position(&mut self) -> Option<SenderKeyPosition> {
        let Ok(key) = self.store.own_sender_key(&self.name);
        key.map(|key| key.position())
    }

    fn make_durable(&mut self) {
        self.durable = self.store.clone();
        self.lease = self.position().map(|at| SenderKeyPosition { iteration: at.iteration + LEASE, ..at });
    }

    fn crash(&mut self) {
        self.store = self.durable.clone();
        if let Some(lease) = self.lease {
            let Ok(key) = self.store.own_sender_key(&self.name);
            let mut key = key.expect("a lease is on a key");
            assert_eq!((key.position().id, key.position().signing), (lease.id, lease.signing));
            key.advance(lease.iteration).expect("a lease is short");
            self.store.put_own_sender_key(&self.name, key);
        }
        self.make_durable();
    }

    /// What a message must give, and what the receiver knows after it.
    fn expect(&mut self, id: SenderKeyId, iteration: u32) -> Result<(), SignalError> {
        let Some(key) = self.model.iter_mut().find(|key| key.id == id) else { return Err(SignalError::NoSenderKey) };
        if iteration < key.next {
            return if key.skipped.remove(&iteration) { Ok(()) } else { Err(SignalError::Duplicate) };
        }
        let jump = iteration - key.next;
        if jump > 2_000 {
            return Err(SignalError::TooFarAhead { jump, max: 2_000 });
        }
        key.skipped.extend(key.next..iteration);
        while key.skipped.len() > 2_000 {
            key.skipped.pop_first();
        }
        key.next = iteration + 1;
        Ok(())
    }

    fn expect_processed(&mut self, message: &DistributionMessage) -> Processed {
        let at = self.model.iter().position(|key| key.id == message.id);
        let (processed, key) = match at.map(|at| self.model.remove(at)) {
            Some(mut key) if message.iteration.saturating_sub(key.next) > 2_000 => {
                key.next = message.iteration;
                (Processed::CaughtUp, key)
            }
            Some(key) => (Processed::Known, key),
            None => {
                let key = KeyModel { id: message.id, next: message.iteration, skipped: BTreeSet::new() };
                (Processed::Added, key)
            }
        };
        self.model.insert(0, key);
        self.model.truncate(5);
        processed
    }
}

struct World {
    senders: Vec<Sender>,
    receiver: MemorySenderKeyStore,
    network: Vec<Packet>,
    delivered: Vec<Packet>,
    /// What was read, to see that nothing is read twice. A key that was dropped for five newer ones and comes anew starts
    /// over.
    read: HashSet<(SenderKeyId, Vec<u8>)>,
    /// Key and iteration of everything that was sent.
    used: HashSet<(SenderKeyId, [u8; 32], u32)>,
    sent: u32,
    rng: ChaCha20Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let sender = |at: usize| Sender {
            name: SenderKeyName::new(GROUP, Address::new(&format!("sender {at}"))),
            store: MemorySenderKeyStore::new(),
            durable: MemorySenderKeyStore::new(),
            lease: None,
            model: Vec::new(),
        };
        Self {
            senders: (0..SENDERS).map(sender).collect(),
            receiver: MemorySenderKeyStore::new(),
            network: Vec::new(),
            delivered: Vec::new(),
            read: HashSet::new(),
            used: HashSet::new(),
            sent: 0,
            rng: ChaCha20Rng::seed_from_u64(seed),
        }
    }

    fn distribute(&mut self, from: usize) {
        let sender = &mut self.senders[from];
        let Ok(message) = sender_key::distribute(&mut sender.store, &sender.name, &mut self.rng);
        // A distributed chain is durable before it leaves, with its lease.
        sender.make_durable();
        self.network.push(Packet::Distribution { from, message });
    }

    fn rotate(&mut self, from: usize) {
        let sender = &mut self.senders[from];
        let message = sender_key::rotate(&mut sender.store, &sender.name, &mut self.rng);
        sender.make_durable();
        self.network.push(Packet::Distribution { from, message });
    }

    fn send(&mut self, from: usize) {
        if self.senders[from].position().is_none() {
            self.distribute(from);
        }
        let sender = &mut self.senders[from];
        if sender.position().map(|at| at.iteration) >= sender.lease.map(|lease| lease.iteration) {
            sender.make_durable();
        }
        let position = sender.position().expect("a key");
        let text = format!("message {}", self.sent).into_bytes();
        self.sent += 1;
        let bytes = sender_key::encrypt(&mut sender.store, &sender.name, &text, &mut self.rng).expect("a key");
        sender.store.reload().expect("own records decode");
        let message = SenderKeyMessage::decode(&bytes).expect("own skmsg");
        assert_eq!((message.id, message.iteration), (position.id, position.iteration));
        let is_fresh = self.used.insert((message.id, *position.signing.as_bytes(), message.iteration));
        assert!(is_fresh, "iteration {} was used twice", message.iteration);
        self.network.push(Packet::Message { from, text, bytes });
    }

    /// Runs a step on the receiver's store; every record misses once, and a refusal changes nothing.
    fn step<T>(
        &mut self,
        mut step: impl FnMut(&mut Lazy<'_>) -> Result<T, StepError<Missing>>,
    ) -> Result<T, SignalError> {
        let before = self.receiver.encode();
        let mut lazy = Lazy { inner: &mut self.receiver, loaded: BTreeSet::new(), has_written: false };
        let mut rounds = 0;
        let result = loop {
            match step(&mut lazy) {
                Err(StepError::Miss(Missing)) => {
                    assert!(!lazy.has_written, "a step wrote and missed a record after it")
                }
                Err(StepError::Signal(refusal)) => break Err(refusal),
                Ok(found) => break Ok(found),
            }
            rounds += 1;
            assert!(rounds <= 3, "the exact device; the others; pages");
        };
        if result.is_err() {
            assert!(self.receiver.encode() == before, "a refused message changed the store");
        }
        self.settle();
        result
    }

    fn decrypt(&mut self, from: usize, bytes: &[u8]) -> Result<Vec<u8>, SignalError> {
        // An address without a record in front: a group message may name its sender without the device.
        let senders = [Address::new("unknown"), self.senders[from].name.sender().clone()];
        self.step(|lazy| sender_key::decrypt(lazy, GROUP, &senders, bytes)).map(|found| {
            assert_eq!(found.sender, 1);
            found.plaintext
        })
    }

    fn receive(&mut self, packet: &Packet) {
        match packet {
            Packet::Distribution { from, message } => {
                let name = self.senders[*from].name.clone();
                let found = self.step(|lazy| sender_key::process(lazy, &name, &message.encode()));
                let expected = self.senders[*from].expect_processed(message);
                assert_eq!(found, Ok(expected));
                if expected == Processed::Added {
                    self.read.retain(|(id, _)| *id != message.id);
                }
            }
            Packet::Message { from, text, bytes } => {
                let message = SenderKeyMessage::decode(bytes).expect("own skmsg");
                let expected = self.senders[*from].expect(message.id, message.iteration);
                assert_eq!(self.decrypt(*from, bytes), expected.map(|()| text.clone()));
                if expected.is_ok() {
                    assert!(self.read.insert((message.id, text.clone())), "a message was read twice");
                }
            }
        }
    }

    fn deliver(&mut self, which: usize) {
        if self.network.is_empty() {
            return;
        }
        let packet = self.network.remove(which % self.network.len());
        self.receive(&packet);
        self.delivered.push(packet);
    }

    /// Flips one bit of a message in flight. Every bit of it is signed, so it is refused.
    fn damage(&mut self, which: usize, at: usize, bit: u8) {
        let messages: Vec<_> = self.network.iter().filter_map(as_message).collect();
        let Some(&(from, bytes)) = messages.get(which % messages.len().max(1)) else { return };
        let mut bytes = bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        assert!(self.decrypt(from, &bytes).is_err(), "bit {bit} of byte {at} does not count");
    }

    fn misattribute(&mut self, which: usize, to: usize) {
        let messages: Vec<_> = self.network.iter().filter_map(as_message).collect();
        let Some(&(from, bytes)) = messages.get(which % messages.len().max(1)) else { return };
        if from != to {
            let bytes = bytes.clone();
            assert_eq!(self.decrypt(to, &bytes), Err(SignalError::NoSenderKey));
        }
    }

    /// Reloads all records, and checks that no page outlives its key, that records stay small, and that they know what the
    /// model does.
    fn settle(&mut self) {
        self.receiver.reload().expect("records decode");
        for sender in &self.senders {
            let Ok(record) = self.receiver.sender_key(&sender.name);
            let Some(record) = record else { continue };
            let pages: Vec<_> = record.page_ids().collect();
            assert_eq!(pages.len(), self.receiver.page_count(&sender.name), "pages and index agree");
            assert!(record.encode().len() < 600 + 12 * pages.len());
            for id in pages {
                let Ok(page) = self.receiver.sender_key_page(&sender.name, id);
                let page = page.expect("the page of the index");
                assert!(!page.is_empty() && page.encode().len() < 2_100);
            }
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Send { from, count } => (0..count).for_each(|_| self.send(from)),
            Op::Distribute { from } => self.distribute(from),
            Op::Rotate { from } => self.rotate(from),
            Op::Deliver { which } => self.deliver(which),
            Op::DeliverOldest => self.deliver(0),
            Op::Drop { which } if !self.network.is_empty() => {
                self.network.remove(which % self.network.len());
            }
            Op::Drop { .. } => {}
            Op::Replay { which } if !self.delivered.is_empty() => {
                let packet = self.delivered[which % self.delivered.len()].clone();
                self.receive(&packet);
            }
            Op::Replay { .. } => {}
            Op::Damage { which, at, bit } => self.damage(which, at, bit),
            Op::Misattribute { which, to } => self.misattribute(which, to),
            Op::Crash { who } => self.senders[who].crash(),
            Op::Garbage { from, ref bytes } => {
                assert!(self.decrypt(from, bytes).is_err());
                let name = self.senders[from].name.clone();
                // Only a well-formed distribution message would get in, and random bytes are none.
                assert!(self.step(|lazy| sender_key::process(lazy, &name, bytes)).is_err());
            }
        }
    }
}

fn as_message(packet: &Packet) -> Option<(usize, &Bytes)> {
    match packet {
        Packet::Message { from, bytes, .. } => Some((*from, bytes)),
        Packet::Distribution { .. } => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_read_exactly_once(seed in any::<u64>(), ops in vec(op(), 1..120)) {
        let mut world = World::new(seed);
        for op in &ops {
            world.run(op);
        }
        // What is still on its way arrives, newest first, and then everything once more.
        while !world.network.is_empty() {
            world.deliver(world.network.len() - 1);
        }
        for packet in world.delivered.clone() {
            world.receive(&packet);
        }
    }

    #[test]
    fn a_step_in_order_writes_one_small_record(seed in any::<u64>(), count in 1..40usize) {
        let mut world = World::new(seed);
        world.distribute(0);
        world.deliver(0);
        for _ in 0..count {
            world.send(0);
            let before = world.receiver.encode();
            world.deliver(0);
            let after = world.receiver.encode();
            let changed: Vec<_> = after.iter().filter(|record| !before.contains(record)).collect();
            prop_assert_eq!(changed.len(), 1);
            prop_assert_eq!(changed[0].len(), 7 + 111);
            prop_assert_eq!(world.receiver.page_count(&world.senders[0].name), 0);
        }
    }

    #[test]
    fn arbitrary_bytes_are_taken_or_refused(bytes in vec(any::<u8>(), 0..600)) {
        for prefix in [&[][..], &[0x33], &[1], &[0x33, 0x08, 1, 0x10, 2, 0x1A, 32]] {
            let bytes = [prefix, &bytes].concat();
            (0..3).for_each(|kind| fuzz::sender_key_message(&[&[kind], &bytes[..]].concat()));
        }
        fuzz::converse(&bytes);
    }

    #[test]
    fn damaged_records_are_decoded_or_refused(seed in any::<u64>(), ops in vec(op(), 20..60), at in any::<usize>(), bit in 0..8u8) {
        let mut world = World::new(seed);
        ops.iter().for_each(|op| world.run(op));
        let records = world.senders.iter().flat_map(|sender| sender.store.encode()).chain(world.receiver.encode());
        for mut record in records {
            let at = at % record.len();
            record[at] ^= 1 << bit;
            fuzz::decode_records(&record);
            fuzz::decode_records(&record[..at]);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing;

/// Lets the first read of every record miss.
struct Lazy<'a> {
    inner: &'a mut MemorySenderKeyStore,
    loaded: BTreeSet<String>,
    has_written: bool,
}

impl Lazy<'_> {
    fn load<T>(
        &mut self,
        key: String,
        read: impl FnOnce(&mut MemorySenderKeyStore) -> Result<T, Infallible>,
    ) -> Result<T, Missing> {
        if self.loaded.insert(key) {
            return Err(Missing);
        }
        let Ok(value) = read(self.inner);
        Ok(value)
    }

    fn write(&mut self) -> &mut MemorySenderKeyStore {
        self.has_written = true;
        self.inner
    }
}

impl SenderKeyStore for Lazy<'_> {
    type Miss = Missing;

    fn own_sender_key(&mut self, name: &SenderKeyName) -> Result<Option<OwnSenderKey>, Missing> {
        self.load(format!("own {}", name.sender().as_str()), |inner| inner.own_sender_key(name))
    }
    fn sender_key(&mut self, name: &SenderKeyName) -> Result<Option<SenderKeyRecord>, Missing> {
        self.load(format!("record {}", name.sender().as_str()), |inner| inner.sender_key(name))
    }
    fn sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId) -> Result<Option<SkippedPage>, Missing> {
        self.load(format!("{id:?}"), |inner| inner.sender_key_page(name, id))
    }
    fn put_own_sender_key(&mut self, name: &SenderKeyName, key: OwnSenderKey) {
        self.write().put_own_sender_key(name, key);
    }
    fn delete_own_sender_key(&mut self, name: &SenderKeyName) {
        self.write().delete_own_sender_key(name);
    }
    fn put_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) {
        self.write().put_sender_key(name, record);
    }
    fn delete_sender_key(&mut self, name: &SenderKeyName) {
        self.write().delete_sender_key(name);
    }
    fn put_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId, page: SkippedPage) {
        self.write().put_sender_key_page(name, id, page);
    }
    fn delete_sender_key_page(&mut self, name: &SenderKeyName, id: SenderKeyPageId) {
        self.write().delete_sender_key_page(name, id);
    }
}
