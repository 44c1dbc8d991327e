//! Whatever the network does, every message that arrives is read exactly once (spec 03 §10.1).
//!
//! Two parties send, turn and start sessions anew, at the same time if it happens so, while the network reorders, drops,
//! repeats and damages, and the parties crash. After every step all records go through their encoded form, and every read of a record misses
//! first, as in an engine that has not loaded it yet.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
};

use proptest::{collection::vec, prelude::*};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use wamd::{
    crypto::{KeyPair, PublicKey, xeddsa},
    signal::{
        self, Address, ArchiveIndex, Ciphertext, CiphertextKind, Decrypted, Own, PageId, PreKeyBundle, PreKeyId,
        SenderPosition, Session, SignalError, SignalStore, SignedPreKeyId, SkippedPage, State, StateId, StepError,
        import::Snapshot, memory::MemorySignalStore, wire::PreKeyMessage, wire::WhisperMessage,
    },
};

/// Counters that a party reserves before it sends.
const LEASE: u32 = 64;

/// A step of the world. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Op {
    Send {
        from: usize,
        count: u8,
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
    Establish {
        from: usize,
        with_pre_key: bool,
    },
    Garbage {
        to: usize,
        bytes: Vec<u8>,
    },
    /// The party starts again from what was durable, and jumps over the counters that it had reserved.
    Crash {
        who: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<usize>;
    prop_oneof![
        6 => (0..2usize, 1..4u8).prop_map(|(from, count)| Op::Send { from, count }),
        6 => which().prop_map(|which| Op::Deliver { which }),
        4 => Just(Op::DeliverOldest),
        1 => which().prop_map(|which| Op::Drop { which }),
        2 => which().prop_map(|which| Op::Replay { which }),
        2 => (which(), which(), 0..8u8).prop_map(|(which, at, bit)| Op::Damage { which, at, bit }),
        1 => (0..2usize, any::<bool>()).prop_map(|(from, with_pre_key)| Op::Establish { from, with_pre_key }),
        1 => (0..2usize).prop_map(|who| Op::Crash { who }),
        1 => (0..2usize, vec(any::<u8>(), 0..200)).prop_map(|(to, bytes)| Op::Garbage { to, bytes }),
    ]
}

struct Party {
    identity: KeyPair,
    signed_pre_key: PublicKey,
    signature: [u8; 64],
    next_pre_key: u32,
    store: MemorySignalStore,
    peer: Address,
    /// The store as a crash would leave it, and the counters reserved in it: sends below that are not durable.
    durable: MemorySignalStore,
    lease: Option<SenderPosition>,
    /// Ratchet keys of the peer in the order in which they were first read.
    seen: Vec<PublicKey>,
}

impl Party {
    fn new(name: &str, rng: &mut ChaCha20Rng) -> Self {
        let (identity, signed) = (KeyPair::generate(rng), KeyPair::generate(rng));
        let signature = xeddsa::sign(identity.private(), &[&signed.public().to_typed()], rng);
        let mut store = MemorySignalStore::new();
        let signed_pre_key = *signed.public();
        store.put_signed_pre_key(SignedPreKeyId(1), signed);
        Self {
            identity,
            signed_pre_key,
            signature,
            next_pre_key: 1,
            durable: store.clone(),
            store,
            peer: Address::new(name),
            lease: None,
            seen: Vec::new(),
        }
    }

    fn bundle(&mut self, with_pre_key: bool, rng: &mut ChaCha20Rng) -> PreKeyBundle {
        let pre_key = with_pre_key.then(|| {
            let (id, pair) = (PreKeyId(self.next_pre_key), KeyPair::generate(rng));
            self.next_pre_key += 1;
            let public = *pair.public();
            self.store.put_pre_key(id, pair);
            // A prekey is durable before it is handed out.
            self.make_durable();
            (id, public)
        });
        PreKeyBundle {
            registration_id: 7,
            identity: *self.identity.public(),
            signed_pre_key_id: SignedPreKeyId(1),
            signed_pre_key: self.signed_pre_key,
            signature: self.signature,
            pre_key,
        }
    }

    fn decrypt(&mut self, kind: CiphertextKind, bytes: &[u8]) -> Result<Decrypted, SignalError> {
        let own = Own { identity: &self.identity, registration_id: 7 };
        let before = self.store.encode();
        let mut lazy = Lazy { inner: &mut self.store, loaded: BTreeSet::new(), has_written: false };
        let mut rounds = 0;
        let result = loop {
            match signal::decrypt(&mut lazy, &own, &self.peer, kind, bytes) {
                Err(StepError::Miss(Missing)) => {
                    assert!(!lazy.has_written, "a step wrote and missed a record after it")
                }
                Err(StepError::Signal(refusal)) => break Err(refusal),
                Ok(found) => break Ok(found),
            }
            rounds += 1;
            assert!(rounds <= 4, "session; archive and prekeys; states; pages");
        };
        if result.is_err() {
            assert!(self.store.encode() == before, "a refused message changed the store");
        } else {
            self.make_durable();
        }
        self.settle();
        result
    }

    fn sender(&mut self) -> Option<SenderPosition> {
        let Ok(session) = self.store.session(&self.peer.clone());
        session?.current()?.sender()
    }

    /// What was just sent may leave before it is durable: its counter is reserved, on the ratchet key that it has.
    fn is_leased(&mut self) -> bool {
        let (sender, lease) = (self.sender().expect("it has just sent"), self.lease);
        lease.is_some_and(|lease| lease.ratchet == sender.ratchet && sender.counter <= lease.counter)
    }

    /// Makes the store durable with the next 64 counters reserved.
    fn make_durable(&mut self) {
        self.durable = self.store.clone();
        self.lease = self.sender().map(|at| SenderPosition { counter: at.counter + LEASE, ..at });
    }

    fn crash(&mut self) {
        self.store = self.durable.clone();
        if let Some(lease) = self.lease {
            let Ok(session) = self.store.session(&self.peer.clone());
            let mut session = session.expect("a lease is on a session");
            let state = session.current_mut().expect("a lease is on a state");
            assert_eq!(state.sender().expect("sender chain").ratchet, lease.ratchet);
            state.advance_sender(lease.counter).expect("a lease is short");
            self.store.put_session(&self.peer.clone(), session);
        }
        self.make_durable();
    }

    /// Reloads all records, and checks that no page outlives its chain and that records stay small.
    fn settle(&mut self) {
        self.store.reload().expect("records decode");
        let Ok(snapshot) = Snapshot::read(&mut self.store, &self.peer);
        let Some(snapshot) = snapshot else { return };
        assert_eq!(snapshot.pages.len(), self.store.page_count(&self.peer), "pages and index agree");
        assert!(snapshot.session.encode().len() < 800 + 12 * snapshot.pages.len());
        assert!(snapshot.pages.iter().all(|(_, page)| page.encode().len() < 2_100 && !page.is_empty()));
        assert_eq!(snapshot.states.len(), snapshot.archive.states().count());
        assert!(snapshot.archive.encode().len() < 3_500);
    }
}

/// A message on the network.
#[derive(Clone, Debug)]
struct Sent {
    to: usize,
    text: Vec<u8>,
    ciphertext: Ciphertext,
    ratchet: PublicKey,
}

struct World {
    parties: [Party; 2],
    network: Vec<Sent>,
    delivered: Vec<Sent>,
    /// Highest counter used with each ratchet key.
    counters: HashMap<PublicKey, u32>,
    sent: u32,
    rng: ChaCha20Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let parties = [Party::new("b", &mut rng), Party::new("a", &mut rng)];
        Self { parties, network: Vec::new(), delivered: Vec::new(), counters: HashMap::new(), sent: 0, rng }
    }

    fn establish(&mut self, from: usize, with_pre_key: bool) {
        let bundle = self.parties[1 - from].bundle(with_pre_key, &mut self.rng);
        let me = &mut self.parties[from];
        let own = Own { identity: &me.identity, registration_id: 7 };
        signal::establish(&mut me.store, &own, &me.peer, &bundle, &mut self.rng).expect("bundle is good");
        me.make_durable();
        me.settle();
    }

    fn send(&mut self, from: usize) {
        let Ok(session) = self.parties[from].store.session(&self.parties[from].peer.clone());
        if session.is_none() {
            self.establish(from, true);
        }
        let me = &mut self.parties[from];
        let own = Own { identity: &me.identity, registration_id: 7 };
        let text = format!("message {}", self.sent).into_bytes();
        self.sent += 1;
        let ciphertext =
            signal::encrypt(&mut me.store, &own, &me.peer, &text, &mut self.rng).expect("there is a session");
        if !me.is_leased() {
            me.make_durable();
        }
        me.settle();
        let inner = match ciphertext.kind {
            CiphertextKind::PreKey => PreKeyMessage::decode(&ciphertext.bytes).expect("own pkmsg").message,
            CiphertextKind::Whisper => &ciphertext.bytes,
        };
        let message = WhisperMessage::decode(inner).expect("own msg");
        let (ratchet, counter) = (message.ratchet, message.counter);
        let last = self.counters.insert(ratchet, counter);
        assert!(last.is_none_or(|last| last < counter), "counter {counter} after {last:?}");
        self.network.push(Sent { to: 1 - from, text, ciphertext, ratchet });
    }

    fn deliver(&mut self, which: usize) {
        if self.network.is_empty() {
            return;
        }
        let sent = self.network.remove(which % self.network.len());
        let receiver = &mut self.parties[sent.to];
        let first = receiver.seen.iter().position(|key| *key == sent.ratchet);
        match receiver.decrypt(sent.ciphertext.kind, &sent.ciphertext.bytes) {
            Ok(found) => {
                assert_eq!(found.plaintext, sent.text);
                if first.is_none() {
                    receiver.seen.push(sent.ratchet);
                }
                self.delivered.push(sent);
            }
            // Five chains are kept: a message may only be lost when the peer has turned five times since.
            Err(refusal) => {
                let turns = first.map_or(0, |first| receiver.seen.len() - 1 - first);
                assert!(turns >= 5, "message refused after {turns} turns: {refusal}");
                assert_eq!(refusal, SignalError::BadMac);
            }
        }
    }

    fn replay(&mut self, which: usize) {
        if self.delivered.is_empty() {
            return;
        }
        let sent = self.delivered[which % self.delivered.len()].clone();
        let receiver = &mut self.parties[sent.to];
        match receiver.decrypt(sent.ciphertext.kind, &sent.ciphertext.bytes) {
            Err(SignalError::Duplicate | SignalError::BadMac) => {}
            other => panic!("a message was taken twice: {other:?}"),
        }
    }

    /// Flips one bit of a message in flight. What is not authenticated may change, the text may not.
    fn damage(&mut self, which: usize, at: usize, bit: u8) {
        if self.network.is_empty() {
            return;
        }
        let which = which % self.network.len();
        let sent = self.network[which].clone();
        let mut bytes = sent.ciphertext.bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let receiver = &mut self.parties[sent.to];
        if let Ok(found) = receiver.decrypt(sent.ciphertext.kind, &bytes) {
            assert_eq!(found.plaintext, sent.text, "damage went through");
            assert_eq!(sent.ciphertext.kind, CiphertextKind::PreKey, "every bit of a msg is authenticated");
            if !receiver.seen.contains(&sent.ratchet) {
                receiver.seen.push(sent.ratchet);
            }
            self.delivered.push(self.network.remove(which));
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Send { from, count } => (0..count).for_each(|_| self.send(from)),
            Op::Deliver { which } => self.deliver(which),
            Op::DeliverOldest => self.deliver(0),
            Op::Drop { which } if !self.network.is_empty() => {
                self.network.remove(which % self.network.len());
            }
            Op::Drop { .. } => {}
            Op::Replay { which } => self.replay(which),
            Op::Damage { which, at, bit } => self.damage(which, at, bit),
            Op::Establish { from, with_pre_key } => self.establish(from, with_pre_key),
            Op::Crash { who } => self.parties[who].crash(),
            Op::Garbage { to, ref bytes } => {
                let party = &mut self.parties[to];
                let own = Own { identity: &party.identity, registration_id: 7 };
                signal::fuzz::decrypt_in(&mut party.store, &own, &party.peer, bytes);
                party.make_durable();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_read_exactly_once(seed in any::<u64>(), ops in vec(op(), 1..150)) {
        let mut world = World::new(seed);
        for op in &ops {
            world.run(op);
        }
        // What is still on its way arrives, newest first, and then everything once more.
        while !world.network.is_empty() {
            world.deliver(world.network.len() - 1);
        }
        for which in 0..world.delivered.len() {
            world.replay(which);
        }
    }

    #[test]
    fn simultaneous_initiation_resolves(seed in any::<u64>(), order in vec(any::<usize>(), 8..40)) {
        let mut world = World::new(seed);
        world.establish(0, true);
        world.establish(1, seed % 2 == 0);
        (0..3).for_each(|_| { world.send(0); world.send(1); });
        for which in order {
            world.deliver(which);
            if which % 3 == 0 { world.send(which % 2); }
        }
        while !world.network.is_empty() {
            world.deliver(0);
        }
        // Both can read each other, and neither sends pkmsgs any longer.
        (0..2).for_each(|_| { world.send(0); world.deliver(0); world.send(1); world.deliver(0); });
        prop_assert!(world.network.is_empty());
        prop_assert!(world.delivered.iter().rev().take(2).all(|sent| sent.ciphertext.kind == CiphertextKind::Whisper));
    }

    #[test]
    fn a_step_in_order_writes_one_small_record(seed in any::<u64>(), turns in vec(1..6u8, 1..30)) {
        let mut world = World::new(seed);
        for (turn, count) in turns.into_iter().enumerate() {
            for _ in 0..count {
                world.send(turn % 2);
                let to = &mut world.parties[1 - turn % 2];
                let before = to.store.encode();
                world.deliver(0);
                let to = &mut world.parties[1 - turn % 2];
                let peer = to.peer.clone();
                let Ok(session) = to.store.session(&peer);
                prop_assert!(session.expect("session").encode().len() < 800);
                prop_assert_eq!(to.store.page_count(&peer), 0);
                let after = to.store.encode();
                let changed = after.iter().filter(|record| !before.contains(record)).count();
                // The first message also writes the names of new records and the identity.
                prop_assert!(changed == 1 || turn == 0, "{} records changed", changed);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..600)) {
        let versions: [&[u8]; 4] = [&[], &[0x33], &[1], &[0x33, 0x0A, 33, 5]];
        for version in versions {
            let bytes = [version, &bytes].concat();
            signal::fuzz::decode_messages(&bytes);
            signal::fuzz::decode_records(&bytes);
            signal::fuzz::decrypt_without_session(&bytes);
        }
    }

    #[test]
    fn damaged_records_are_decoded_or_refused(seed in any::<u64>(), ops in vec(op(), 20..60), at in any::<usize>(), bit in 0..8u8) {
        let mut world = World::new(seed);
        ops.iter().for_each(|op| world.run(op));
        for party in &mut world.parties {
            let Ok(snapshot) = Snapshot::read(&mut party.store, &party.peer);
            let Some(snapshot) = snapshot else { continue };
            let pages = snapshot.pages.iter().map(|(_, page)| page.encode());
            let states = snapshot.states.iter().map(State::encode);
            let records = [snapshot.session.encode(), snapshot.archive.encode(), snapshot.export()];
            for mut record in records.into_iter().chain(pages).chain(states).filter(|record| !record.is_empty()) {
                let at = at % record.len();
                record[at] ^= 1 << bit;
                signal::fuzz::decode_records(&record);
                signal::fuzz::decode_records(&record[..at]);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing;

/// Lets the first read of every record miss.
struct Lazy<'a> {
    inner: &'a mut MemorySignalStore,
    loaded: BTreeSet<String>,
    has_written: bool,
}

impl Lazy<'_> {
    fn load<T>(
        &mut self,
        key: String,
        read: impl FnOnce(&mut MemorySignalStore) -> Result<T, Infallible>,
    ) -> Result<T, Missing> {
        if self.loaded.insert(key) {
            return Err(Missing);
        }
        let Ok(value) = read(self.inner);
        Ok(value)
    }

    fn write(&mut self) -> &mut MemorySignalStore {
        self.has_written = true;
        self.inner
    }
}

impl SignalStore for Lazy<'_> {
    type Miss = Missing;

    fn session(&mut self, address: &Address) -> Result<Option<Session>, Missing> {
        self.load("session".into(), |inner| inner.session(address))
    }
    fn archive_index(&mut self, address: &Address) -> Result<Option<ArchiveIndex>, Missing> {
        self.load("index".into(), |inner| inner.archive_index(address))
    }
    fn archived_state(&mut self, address: &Address, id: StateId) -> Result<Option<State>, Missing> {
        self.load(format!("{id:?}"), |inner| inner.archived_state(address, id))
    }
    fn skipped_page(&mut self, address: &Address, id: PageId) -> Result<Option<SkippedPage>, Missing> {
        self.load(format!("{id:?}"), |inner| inner.skipped_page(address, id))
    }
    fn identity(&mut self, address: &Address) -> Result<Option<PublicKey>, Missing> {
        self.load("identity".into(), |inner| inner.identity(address))
    }
    fn pre_key(&mut self, id: PreKeyId) -> Result<Option<KeyPair>, Missing> {
        self.load(format!("{id:?}"), |inner| inner.pre_key(id))
    }
    fn signed_pre_key(&mut self, id: SignedPreKeyId) -> Result<Option<KeyPair>, Missing> {
        self.load(format!("{id:?}"), |inner| inner.signed_pre_key(id))
    }
    fn put_session(&mut self, address: &Address, session: Session) {
        self.write().put_session(address, session);
    }
    fn delete_session(&mut self, address: &Address) {
        self.write().delete_session(address);
    }
    fn put_archive_index(&mut self, address: &Address, index: ArchiveIndex) {
        self.write().put_archive_index(address, index);
    }
    fn delete_archive_index(&mut self, address: &Address) {
        self.write().delete_archive_index(address);
    }
    fn put_archived_state(&mut self, address: &Address, state: State) {
        self.write().put_archived_state(address, state);
    }
    fn delete_archived_state(&mut self, address: &Address, id: StateId) {
        self.write().delete_archived_state(address, id);
    }
    fn put_skipped_page(&mut self, address: &Address, id: PageId, page: SkippedPage) {
        self.write().put_skipped_page(address, id, page);
    }
    fn delete_skipped_page(&mut self, address: &Address, id: PageId) {
        self.write().delete_skipped_page(address, id);
    }
    fn put_identity(&mut self, address: &Address, identity: PublicKey) {
        self.write().put_identity(address, identity);
    }
    fn delete_identity(&mut self, address: &Address) {
        self.write().delete_identity(address);
    }
    fn delete_pre_key(&mut self, id: PreKeyId) {
        self.write().delete_pre_key(id);
    }
}
