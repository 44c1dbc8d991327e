//! Random conversations between a party of ours and one of theirs: what each makes, the other reads.
//!
//! Both start sessions, at the same time if it happens so, and the network reorders, drops, repeats and damages. Every message
//! that arrives is read once and gives its text; what is damaged or repeated is refused. A message may be lost only if its sender
//! has turned five times since its chain began, or the receiver has put forty sessions behind its own.
//!
//! `cargo run -- transcripts [COUNT [FIRST SEED]]`: a failing seed is named, and runs alone with `transcripts 1 SEED`.

use std::collections::BTreeMap;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wacore_libsignal::store::sender_key_name::SenderKeyName as TheirName;
use wamd::signal::sender_key::memory::MemorySenderKeyStore;
use wamd::signal::sender_key::{self, SenderKeyName};
use wamd::signal::wire::{PreKeyMessage, WhisperMessage};
use wamd::signal::{Address, CiphertextKind};

use super::{Ours, Party, Theirs};

/// Runs them, in both places of both parties, and says how many messages were read.
pub fn run() {
    let number = |at, or| std::env::args().nth(at).map_or(or, |text| text.parse().expect("a number"));
    let (count, first) = (number(2, 300), number(3, 0));
    let mut totals = Totals::default();
    for seed in first..first + count {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.run();
        totals.add(&world.totals);
        group(seed, &mut totals);
    }
    println!("{count} transcripts: {totals:?}");
    assert!(count < 20 || totals.is_complete(), "no transcript did what they are for");
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    read: u64,
    read_by_theirs: u64,
    pkmsgs: u64,
    repeated: u64,
    damaged: u64,
    sessions: u64,
    crossed: u64,
    out_of_reach: u64,
    group_messages: u64,
    group_refused: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.read_by_theirs += other.read_by_theirs;
        self.pkmsgs += other.pkmsgs;
        self.repeated += other.repeated;
        self.damaged += other.damaged;
        self.sessions += other.sessions;
        self.crossed += other.crossed;
        self.out_of_reach += other.out_of_reach;
    }

    fn is_complete(&self) -> bool {
        let all = [self.read, self.read_by_theirs, self.pkmsgs, self.repeated, self.damaged, self.crossed];
        all.into_iter().chain([self.group_messages, self.group_refused]).all(|count| count > 0)
    }
}

#[derive(Clone)]
struct Sent {
    to: usize,
    text: Vec<u8>,
    kind: CiphertextKind,
    bytes: Vec<u8>,
    ratchet: [u8; 32],
}

struct World {
    parties: [Party; 2],
    network: Vec<Sent>,
    read: Vec<Sent>,
    /// By party: ratchet keys of the other in the order in which they were first read.
    seen: [Vec<[u8; 32]>; 2],
    /// Highest counter of each ratchet key.
    counters: BTreeMap<[u8; 32], u32>,
    number: u32,
    rng: ChaCha20Rng,
    totals: Totals,
}

impl World {
    fn new(seed: u64) -> Self {
        let (ours, theirs) = (Party::Ours(Ours::new(seed * 2).into()), Party::Theirs(Theirs::new(seed * 2 + 1).into()));
        let parties = if seed.is_multiple_of(2) { [ours, theirs] } else { [theirs, ours] };
        Self {
            parties,
            network: vec![],
            read: vec![],
            seen: Default::default(),
            counters: BTreeMap::new(),
            number: 0,
            rng: ChaCha20Rng::seed_from_u64(seed),
            totals: Totals::default(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.rng.next_u64() % bound as u64) as usize
    }

    fn run(&mut self) {
        // Half of them begin on both sides at once.
        if self.below(2) == 0 {
            self.establish(0);
            self.establish(1);
            self.send(0);
            self.send(1);
            self.totals.crossed += 1;
        }
        for _ in 0..60 + self.below(60) {
            match self.below(26) {
                0..8 => {
                    let from = self.below(2);
                    (0..=self.below(3)).for_each(|_| self.send(from));
                }
                8..14 => self.deliver_any(),
                14..18 if !self.network.is_empty() => self.deliver(0),
                18 if !self.network.is_empty() => {
                    let which = self.below(self.network.len());
                    self.network.remove(which);
                }
                19..21 => self.repeat(),
                21..23 => self.damage(),
                23 => {
                    let from = self.below(2);
                    self.establish(from);
                }
                24 => self.parties.iter_mut().for_each(Party::reload),
                _ => {
                    let from = self.below(2);
                    self.skip(from);
                }
            }
        }
        while !self.network.is_empty() {
            self.deliver(self.network.len() - 1);
        }
        // Everything is in order again: an answer each way is a msg.
        for turn in 0..4 {
            self.send(turn % 2);
            self.deliver(0);
        }
        let last = self.read.last().expect("something was read");
        assert!(last.kind == CiphertextKind::Whisper, "both have answered");
    }

    fn establish(&mut self, from: usize) {
        let with_pre_key = self.below(3) > 0;
        let bundle = self.parties[1 - from].bundle(with_pre_key);
        self.parties[from].establish(&bundle);
        self.totals.sessions += 1;
    }

    fn send(&mut self, from: usize) {
        if !self.parties[from].has_session() {
            self.establish(from);
        }
        let more = self.below(70);
        let text = format!("message {} {}", self.number, "x".repeat(more)).into_bytes();
        self.number += 1;
        let (kind, bytes) = self.parties[from].encrypt(&text);
        let inner = match kind {
            CiphertextKind::PreKey => PreKeyMessage::decode(&bytes).expect("a pkmsg").message,
            CiphertextKind::Whisper => &bytes,
        };
        let message = WhisperMessage::decode(inner).expect("a msg");
        let ratchet = *message.ratchet.as_bytes();
        let last = self.counters.insert(ratchet, message.counter);
        assert!(last.is_none_or(|last| last < message.counter), "a message key is used twice");
        self.totals.pkmsgs += u64::from(kind == CiphertextKind::PreKey);
        self.network.push(Sent { to: 1 - from, text, kind, bytes, ratchet });
    }

    /// Many messages of which only the last arrives some time.
    fn skip(&mut self, from: usize) {
        let before = self.network.len();
        (0..=self.below(200)).for_each(|_| self.send(from));
        let keep = self.network.pop();
        self.network.truncate(before);
        self.network.extend(keep);
    }

    fn deliver_any(&mut self) {
        if !self.network.is_empty() {
            let which = self.below(self.network.len());
            self.deliver(which);
        }
    }

    fn deliver(&mut self, which: usize) {
        let sent = self.network.remove(which);
        let first = self.seen[sent.to].iter().position(|key| *key == sent.ratchet);
        match self.parties[sent.to].decrypt(sent.kind, &sent.bytes) {
            Ok(text) => {
                assert_eq!(text, sent.text);
                if first.is_none() {
                    self.seen[sent.to].push(sent.ratchet);
                }
                self.totals.read += 1;
                self.totals.read_by_theirs += u64::from(matches!(self.parties[sent.to], Party::Theirs(_)));
                self.read.push(sent);
            }
            Err(refusal) => {
                let turns = first.map_or(0, |first| self.seen[sent.to].len() - 1 - first);
                assert!(turns >= 5, "message refused after {turns} turns: {refusal}");
                self.totals.out_of_reach += 1;
            }
        }
    }

    fn repeat(&mut self) {
        if self.read.is_empty() {
            return;
        }
        let which = self.below(self.read.len());
        let sent = self.read[which].clone();
        let again = self.parties[sent.to].decrypt(sent.kind, &sent.bytes);
        assert!(again.is_err(), "a message was read twice");
        self.totals.repeated += 1;
    }

    /// One bit of a message is turned over. A party of theirs may store what no MAC covers, so only a msg comes to it.
    fn damage(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let which = self.below(self.network.len());
        let sent = self.network[which].clone();
        if sent.kind == CiphertextKind::PreKey && matches!(self.parties[sent.to], Party::Theirs(_)) {
            return;
        }
        let (mut bytes, at, bit) = (sent.bytes.clone(), self.below(sent.bytes.len()), self.below(8));
        bytes[at] ^= 1 << bit;
        match self.parties[sent.to].decrypt(sent.kind, &bytes) {
            Err(_) => self.totals.damaged += 1,
            Ok(text) => {
                assert!(text == sent.text && sent.kind == CiphertextKind::PreKey, "damage went through");
                self.network.retain(|other| other.bytes != sent.bytes);
                self.seen[sent.to].push(sent.ratchet);
                self.read.push(sent);
            }
        }
    }
}

const GROUP: &str = "120363000000000000@g.us";
const SENDER: &str = "100000012345678:3@lid";

/// A sender key each way: reordered, with gaps, repeated, damaged, distributed again, replaced.
fn group(seed: u64, totals: &mut Totals) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed ^ 0x6702);
    let (name, their_name) = (SenderKeyName::new(GROUP, Address::new(SENDER)), TheirName::from_parts(GROUP, SENDER));
    let (mut own, mut theirs) = (MemorySenderKeyStore::new(), Theirs::new(seed));
    let ours_sends = seed.is_multiple_of(2);
    let distribute = |own: &mut MemorySenderKeyStore, theirs: &mut Theirs, fresh: bool, rng: &mut ChaCha20Rng| {
        if ours_sends {
            let message = if fresh {
                sender_key::rotate(own, &name, rng).encode()
            } else {
                let Ok(message) = sender_key::distribute(own, &name, rng);
                message.encode()
            };
            theirs.process(&their_name, &message).expect("a good distribution message");
        } else {
            if fresh {
                theirs.forget_sender_keys();
            }
            let message = theirs.distribute(&their_name).into_serialized();
            sender_key::process(own, &name, &message).expect("a good distribution message");
        }
    };
    let name = SenderKeyName::new(GROUP, Address::new(SENDER));
    let their_name = TheirName::from_parts(GROUP, SENDER);
    let read = |own: &mut MemorySenderKeyStore, theirs: &mut Theirs, bytes: &[u8]| {
        if ours_sends {
            theirs.group_decrypt(&their_name, bytes).map_err(|error| error.to_string())
        } else {
            let found = sender_key::decrypt(own, GROUP, std::slice::from_ref(name.sender()), bytes);
            found.map(|found| found.plaintext).map_err(|error| error.to_string())
        }
    };
    distribute(&mut own, &mut theirs, true, &mut rng);
    let mut sent: Vec<(Vec<u8>, Vec<u8>, bool)> = vec![];
    for number in 0..40 {
        let below = |rng: &mut ChaCha20Rng, bound: usize| (rng.next_u64() % bound as u64) as usize;
        match below(&mut rng, 12) {
            0..5 => {
                let text = format!("to all, {number}").into_bytes();
                let bytes = if ours_sends {
                    sender_key::encrypt(&mut own, &name, &text, &mut rng).expect("a key").to_vec()
                } else {
                    theirs.group_encrypt(&their_name, &text).into_vec()
                };
                sent.push((text, bytes, false));
            }
            5..9 if !sent.is_empty() => {
                let at = below(&mut rng, sent.len());
                let (text, bytes, was_read) = &mut sent[at];
                match read(&mut own, &mut theirs, bytes) {
                    Ok(found) => {
                        assert!(found == *text && !*was_read, "a group message was read twice, or is another");
                        *was_read = true;
                        totals.group_messages += 1;
                    }
                    Err(refusal) => {
                        assert!(*was_read, "a group message was refused: {refusal}");
                        totals.group_refused += 1;
                    }
                }
            }
            9 if !sent.is_empty() => {
                let at = below(&mut rng, sent.len());
                let mut bytes = sent[at].1.clone();
                let at = below(&mut rng, bytes.len());
                bytes[at] ^= 1 << below(&mut rng, 8);
                assert!(read(&mut own, &mut theirs, &bytes).is_err(), "every bit of a skmsg is signed");
                totals.group_refused += 1;
            }
            10 => distribute(&mut own, &mut theirs, false, &mut rng),
            // Old keys stay readable on our side for five of them; on theirs the fresh key is another device's, so it is alone.
            11 if ours_sends && below(&mut rng, 4) == 0 => distribute(&mut own, &mut theirs, true, &mut rng),
            _ => {}
        }
    }
}
