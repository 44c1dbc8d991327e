//! What is measured.

use std::cell::RefCell;
use std::hint::black_box;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use wacore_libsignal::store::sender_key_name::SenderKeyName as TheirName;
use wamd::signal::memory::MemorySignalStore;
use wamd::signal::sender_key::memory::MemorySenderKeyStore;
use wamd::signal::sender_key::wire::SenderKeyMessage;
use wamd::signal::sender_key::{self, SenderKeyName};
use wamd::signal::wire::WhisperMessage;
use wamd::signal::{Address, CiphertextKind};

use super::primitives::Material;
use super::{Bundle, Ours, Theirs, theirs};
use crate::measure::{Case, Queue, run};

const PLAINTEXT: [u8; 256] = [0x5A; 256];

pub fn run_all() {
    let mut set_up = vec![initiator(), responder()];
    set_up.extend([receive_turn(), send_turn(), whole_turn()]);
    run("Sessions that start and turn: wamd and wacore-libsignal 0.7.0", set_up);

    let mut messages = vec![];
    for records in [false, true] {
        messages.extend([encrypt(records), decrypt(records)]);
    }
    messages.extend([search(), with_skipped_keys(2_000)]);
    run("Messages of 256 bytes: wamd and wacore-libsignal 0.7.0", messages);

    let mut groups = vec![group_key(), group_process()];
    for records in [false, true] {
        groups.extend([group_encrypt(records), group_decrypt(records)]);
    }
    run("Groups, messages of 256 bytes: wamd and wacore-libsignal 0.7.0", groups);

    run("Signal: wamd with and without skipped keys", vec![skipped_keys(2_000), skipped_keys(100)]);
    run("Signal: wamd and its primitives alone (dalek)", primitives());
}

// ---- sessions ---------------------------------------------------------------------------------------------------

/// A session to be started from a bundle with a one-time prekey. Nobody has a session before.
fn initiator<'a>() -> Case<'a> {
    let (mut own, mut remote) = (Ours::new(1), Ours::new(2));
    let bundle = Bundle::of_ours(&mut remote, true);
    let (own_bundle, fresh) = (bundle.ours(), own.store.clone());
    let case = Case::new("session: start from a bundle", move || {
        own.store = fresh.clone();
        own.establish(&own_bundle);
        1
    });
    let (bundle, fresh) = (bundle.theirs(), Theirs::new(1));
    case.theirs("process_prekey_bundle", move || {
        let mut own = fresh.clone();
        own.establish(&bundle);
        1
    })
}

/// The other side of it reads its first message.
fn responder<'a>() -> Case<'a> {
    let (mut sender, mut receiver) = (Ours::new(1), Ours::new(2));
    sender.establish(&Bundle::of_ours(&mut receiver, true).ours());
    let (first, fresh) = (sender.encrypt(&PLAINTEXT), receiver.store.clone());
    let case = Case::new("session: answer, first message read", move || {
        receiver.store = fresh.clone();
        sum(&receiver.decrypt(first.kind, &first.bytes).expect("a good message"))
    });
    let (mut sender, mut fresh) = (Theirs::new(1), Theirs::new(2));
    sender.establish(&Bundle::of_theirs(&mut fresh, true).theirs());
    let first = sender.encrypt(&PLAINTEXT);
    case.theirs("message_decrypt", move || {
        let mut receiver = fresh.clone();
        sum(&receiver.decrypt(theirs::kind(&first), first.serialize()).expect("a good message"))
    })
    .agree()
}

/// Two parties that have answered each other and turned often enough to have five receiver chains. Bob was the last to send.
pub fn established() -> (Ours, Ours) {
    let (mut alice, mut bob) = (Ours::new(1), Ours::new(2));
    alice.establish(&Bundle::of_ours(&mut bob, true).ours());
    for _ in 0..6 {
        let sent = alice.encrypt(&PLAINTEXT);
        bob.decrypt(sent.kind, &sent.bytes).expect("a good message");
        let sent = bob.encrypt(&PLAINTEXT);
        alice.decrypt(sent.kind, &sent.bytes).expect("a good message");
    }
    (alice, bob)
}

pub fn established_theirs() -> (Theirs, Theirs) {
    let (mut alice, mut bob) = (Theirs::new(1), Theirs::new(2));
    alice.establish(&Bundle::of_theirs(&mut bob, true).theirs());
    for round in 0..12 {
        let sent = alice.encrypt(&PLAINTEXT);
        bob.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message");
        let sent = bob.encrypt(&PLAINTEXT);
        alice.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message");
        // It skips the counters that were reserved; their keys are kept in that chain, so five later ones must follow.
        if round == 2 {
            (alice, bob) = (alice.without_leases(), bob.without_leases());
        }
    }
    // The next message is the first of its chain, as on our side: nothing is skipped.
    let next = alice.clone().encrypt(&PLAINTEXT);
    let counter = WhisperMessage::decode(next.serialize()).expect("a msg").counter;
    assert_eq!(counter, 0, "the peer's next message skips counters");
    (alice, bob)
}

/// The other side has turned: its first message is read. The same one each time, from a copy of the records.
fn receive_turn<'a>() -> Case<'a> {
    let (mut alice, mut bob) = established();
    let (sent, before) = (alice.encrypt(&PLAINTEXT), bob.store.clone());
    let case = Case::new("session: message that turns, read", move || {
        bob.store = before.clone();
        sum(&bob.decrypt(sent.kind, &sent.bytes).expect("a good message"))
    });
    let (mut alice, before) = established_theirs();
    let (sent, before) = (alice.encrypt(&PLAINTEXT), before.handing_out());
    case.theirs("message_decrypt, record handed out", move || {
        let mut bob = before.clone();
        sum(&bob.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message"))
    })
    .agree()
}

/// The first message to a side that has turned, from a copy of the records.
fn send_turn<'a>() -> Case<'a> {
    let (mut alice, _) = established();
    let before = alice.store.clone();
    let case = Case::new("session: first message after one that turned, written", move || {
        alice.store = before.clone();
        alice.encrypt(&PLAINTEXT).bytes.len() as u64
    });
    let (before, _) = established_theirs();
    case.theirs("message_encrypt", move || before.clone().encrypt(&PLAINTEXT).serialize().len() as u64).agree()
}

/// A message each way, and both turn.
fn whole_turn<'a>() -> Case<'a> {
    let (mut alice, mut bob) = established();
    let case = Case::new("session: a message each way, both turn", move || {
        let sent = alice.encrypt(&PLAINTEXT);
        let there = bob.decrypt(sent.kind, &sent.bytes).expect("a good message");
        let sent = bob.encrypt(&PLAINTEXT);
        sum(&there) + sum(&alice.decrypt(sent.kind, &sent.bytes).expect("a good message"))
    });
    let (alice, bob) = established_theirs();
    let (mut alice, mut bob) = (alice.handing_out(), bob.handing_out());
    case.theirs("message_encrypt, message_decrypt", move || {
        let sent = alice.encrypt(&PLAINTEXT);
        let there = bob.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message");
        let sent = bob.encrypt(&PLAINTEXT);
        sum(&there) + sum(&alice.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message"))
    })
    .agree()
}

fn suffix(records: bool) -> &'static str {
    if records { ", with records" } else { "" }
}

fn encrypt<'a>(records: bool) -> Case<'a> {
    let (mut alice, _) = established();
    let _first = alice.encrypt(&PLAINTEXT);
    let case = Case::new(format!("message: encrypt{}", suffix(records)), move || {
        if records {
            alice.reload();
        }
        black_box(alice.encrypt(&PLAINTEXT));
        1
    });
    let (alice, _) = established_theirs();
    [("copied record", alice.clone()), ("record handed out", alice.handing_out())].into_iter().fold(
        case,
        |case, (form, mut alice)| {
            let _first = alice.encrypt(&PLAINTEXT);
            case.theirs(form, move || {
                if records {
                    alice.reload();
                }
                black_box(alice.encrypt(&PLAINTEXT));
                1
            })
        },
    )
}

fn decrypt<'a>(records: bool) -> Case<'a> {
    let (mut alice, mut bob) = established();
    let mut sent = Queue::new(MANY, move || alice.encrypt(&PLAINTEXT).bytes);
    let case = Case::new(format!("message: decrypt{}", suffix(records)), move || {
        if records {
            bob.reload();
        }
        sum(&bob.decrypt(CiphertextKind::Whisper, &sent.next()).expect("a good message"))
    });
    let (alice, bob) = established_theirs();
    let case = {
        let (mut alice, mut bob) = (alice.clone(), bob.clone());
        let mut sent = Queue::new(MANY, move || Bytes::copy_from_slice(alice.encrypt(&PLAINTEXT).serialize()));
        case.theirs("message_decrypt", move || {
            if records {
                bob.reload();
            }
            sum(&bob.decrypt(CiphertextKind::Whisper, &sent.next()).expect("a good message"))
        })
    };
    let (mut alice, mut bob) = (alice, bob.handing_out());
    let mut sent = Queue::new(MANY, move || Bytes::copy_from_slice(alice.encrypt(&PLAINTEXT).serialize()));
    let case = case.theirs("message_decrypt_owned, record handed out", move || {
        if records {
            bob.reload();
        }
        sum(&bob.decrypt_owned(sent.next()).expect("a good message"))
    });
    case.agree()
}

/// Messages of eleven sessions in turn, so that each is of the oldest of ten archived states, which then is the current one.
fn search<'a>() -> Case<'a> {
    let mut bob = Ours::new(2);
    let mut senders: Vec<Ours> = vec![];
    for _ in 0..11 {
        let mut alice = Ours::new(1);
        alice.rng = ChaCha20Rng::seed_from_u64(100 + senders.len() as u64);
        alice.establish(&Bundle::of_ours(&mut bob, true).ours());
        for _ in 0..2 {
            let sent = alice.encrypt(&PLAINTEXT);
            bob.decrypt(sent.kind, &sent.bytes).expect("a good message");
            let sent = bob.encrypt(&PLAINTEXT);
            alice.decrypt(sent.kind, &sent.bytes).expect("a good message");
        }
        let sent = alice.encrypt(&PLAINTEXT);
        bob.decrypt(sent.kind, &sent.bytes).expect("a good message");
        senders.push(alice);
    }
    let mut turn = 0;
    let mut sent = Queue::new(FEW, move || {
        turn += 1;
        senders[(turn - 1) % 11].encrypt(&PLAINTEXT).bytes
    });
    let case = Case::new("message: of the oldest of ten archived sessions", move || {
        sum(&bob.decrypt(CiphertextKind::Whisper, &sent.next()).expect("a good message"))
    });

    let mut bob = Theirs::new(2);
    let mut senders: Vec<Theirs> = vec![];
    for _ in 0..11 {
        let mut alice = Theirs::new(1);
        alice.rng = ChaCha20Rng::seed_from_u64(100 + senders.len() as u64);
        alice.establish(&Bundle::of_theirs(&mut bob, true).theirs());
        for _ in 0..2 {
            let sent = alice.encrypt(&PLAINTEXT);
            bob.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message");
            let sent = bob.encrypt(&PLAINTEXT);
            alice.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message");
        }
        let sent = alice.encrypt(&PLAINTEXT);
        bob.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message");
        senders.push(alice);
    }
    let (mut turn, mut bob) = (0, bob.handing_out());
    case.theirs("message_decrypt, record handed out", move || {
        turn += 1;
        // Made as needed: it is less than a hundredth of the search.
        let sent = senders[(turn - 1) % 11].encrypt(&PLAINTEXT);
        sum(&bob.decrypt(CiphertextKind::Whisper, sent.serialize()).expect("a good message"))
    })
    .agree()
}

/// Messages in order, in a session that has the keys of `count` others which never came.
fn with_skipped_keys<'a>(count: usize) -> Case<'a> {
    let (mut alice, mut bob) = established();
    skip(&mut alice, &mut bob, count);
    let mut sent = Queue::new(MANY, move || alice.encrypt(&PLAINTEXT).bytes);
    let case = Case::new(format!("message: decrypt beside {count} skipped keys"), move || {
        sum(&bob.decrypt(CiphertextKind::Whisper, &sent.next()).expect("a good message"))
    });
    let (mut alice, mut bob) = established_theirs();
    // The peer refuses 2,000 at once.
    for half in [count / 2, count - count / 2] {
        (0..half).for_each(|_| drop(alice.encrypt(&PLAINTEXT)));
        let sent = alice.encrypt(&PLAINTEXT);
        bob.decrypt(theirs::kind(&sent), sent.serialize()).expect("a good message");
    }
    let mut sent = Queue::new(MANY, move || Bytes::copy_from_slice(alice.encrypt(&PLAINTEXT).serialize()));
    let mut bob = bob.handing_out();
    case.theirs("message_decrypt_owned, record handed out", move || {
        sum(&bob.decrypt_owned(sent.next()).expect("a good message"))
    })
    .agree()
}

/// Ours only: with skipped keys, and without.
fn skipped_keys<'a>(count: usize) -> Case<'a> {
    let receiver = |count| {
        let (mut alice, mut bob) = established();
        skip(&mut alice, &mut bob, count);
        let mut sent = Queue::new(MANY, move || alice.encrypt(&PLAINTEXT).bytes);
        move || sum(&bob.decrypt(CiphertextKind::Whisper, &sent.next()).expect("a good message"))
    };
    Case::new(format!("message: decrypt, {count} skipped keys to none"), receiver(count)).theirs("none", receiver(0))
}

fn skip(alice: &mut Ours, bob: &mut Ours, count: usize) {
    (0..count).for_each(|_| drop(alice.encrypt(&PLAINTEXT)));
    let sent = alice.encrypt(&PLAINTEXT);
    bob.decrypt(sent.kind, &sent.bytes).expect("a good message");
}

// ---- groups -----------------------------------------------------------------------------------------------------

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
        let rng = ChaCha20Rng::seed_from_u64(1);
        let mut group = Self { name, sender: MemorySenderKeyStore::new(), receiver: MemorySenderKeyStore::new(), rng };
        let message = group.rotate();
        sender_key::process(&mut group.receiver, &group.name, &message).expect("a good message");
        group
    }

    fn rotate(&mut self) -> Vec<u8> {
        sender_key::rotate(&mut self.sender, &self.name, &mut self.rng).encode()
    }

    fn encrypt(&mut self) -> Bytes {
        sender_key::encrypt(&mut self.sender, &self.name, &PLAINTEXT, &mut self.rng).expect("a key")
    }

    fn decrypt(&mut self, bytes: &[u8]) -> u64 {
        let senders = std::slice::from_ref(self.name.sender());
        let found = sender_key::decrypt(&mut self.receiver, self.name.group(), senders, bytes);
        sum(&found.expect("a good message").plaintext)
    }
}

pub fn group_theirs() -> (Theirs, Theirs, TheirName) {
    let name = TheirName::from_parts("120363000000000000@g.us", "100000012345678:3@lid");
    let (mut sender, mut receiver) = (Theirs::new(1), Theirs::new(2));
    sender.distribute(&name);
    // It skips what was reserved, so the receiver comes after it.
    let mut sender = sender.without_leases();
    let message = sender.distribute(&name);
    receiver.process(&name, message.serialized()).expect("a good message");
    let sent = sender.clone().group_encrypt(&name, &PLAINTEXT);
    let iteration = SenderKeyMessage::decode(&sent).expect("a skmsg").iteration;
    assert_eq!(iteration, message.iteration(), "the peer's next message skips iterations");
    (sender, receiver, name)
}

/// A fresh key and its distribution message.
fn group_key<'a>() -> Case<'a> {
    let mut group = Group::new();
    let case = Case::new("group: fresh key, distribution message", move || {
        black_box(group.rotate());
        1
    });
    let (mut sender, _, name) = group_theirs();
    case.theirs("create_sender_key_distribution_message", move || {
        sender.forget_sender_keys();
        black_box(sender.distribute(&name).into_serialized());
        1
    })
}

/// A distribution message of an unknown key, taken over.
fn group_process<'a>() -> Case<'a> {
    let mut group = Group::new();
    let message = group.rotate();
    let case = Case::new("group: distribution message taken over", move || {
        let mut receiver = MemorySenderKeyStore::new();
        sender_key::process(&mut receiver, &group.name, &message).expect("a good message");
        black_box(receiver);
        1
    });
    let (mut sender, mut receiver, name) = group_theirs();
    let message = sender.distribute(&name).into_serialized();
    case.theirs("process_sender_key_distribution_message", move || {
        receiver.forget_sender_keys();
        receiver.process(&name, &message).expect("a good message");
        1
    })
}

fn group_encrypt<'a>(records: bool) -> Case<'a> {
    let mut group = Group::new();
    let case = Case::new(format!("group: encrypt{}", suffix(records)), move || {
        if records {
            group.sender.reload().expect("records decode");
        }
        black_box(group.encrypt());
        1
    });
    let (mut sender, _, name) = group_theirs();
    case.theirs("group_encrypt", move || {
        if records {
            sender.reload_sender_keys();
        }
        black_box(sender.group_encrypt(&name, &PLAINTEXT));
        1
    })
}

fn group_decrypt<'a>(records: bool) -> Case<'a> {
    let group = RefCell::new(Group::new());
    let mut receiver = Group { receiver: group.borrow().receiver.clone(), ..Group::new() };
    let mut sent = Queue::new(FEW, move || group.borrow_mut().encrypt());
    let case = Case::new(format!("group: decrypt{}", suffix(records)), move || {
        if records {
            receiver.receiver.reload().expect("records decode");
        }
        receiver.decrypt(&sent.next())
    });
    let (mut sender, mut receiver, name) = group_theirs();
    let own_name = name.clone();
    let mut sent = Queue::new(FEW, move || Bytes::from(sender.group_encrypt(&name, &PLAINTEXT)));
    case.theirs("group_decrypt", move || {
        if records {
            receiver.reload_sender_keys();
        }
        sum(&receiver.group_decrypt(&own_name, &sent.next()).expect("a good message"))
    })
    .agree()
}

// ---- primitives -------------------------------------------------------------------------------------------------

fn primitives<'a>() -> Vec<Case<'a>> {
    let material = || Material::new();
    let (mut own, mut remote) = (Ours::new(1), Ours::new(2));
    let bundle = Bundle::of_ours(&mut remote, true).ours();
    let one = material();
    let start = Case::new("session: start from a bundle", move || {
        own.store = MemorySignalStore::new();
        own.establish(&bundle);
        1
    })
    .theirs("primitives", move || one.initiate());

    let (mut sender, mut receiver) = (Ours::new(1), Ours::new(2));
    sender.establish(&Bundle::of_ours(&mut receiver, true).ours());
    let (first, fresh, one) = (sender.encrypt(&PLAINTEXT), receiver.store.clone(), material());
    let answer = Case::new("session: answer, first message read", move || {
        receiver.store = fresh.clone();
        sum(&receiver.decrypt(first.kind, &first.bytes).expect("a good message"))
    })
    .theirs("primitives", move || one.respond(PLAINTEXT.len()));

    let (mut group, one) = (Group::new(), material());
    let key = Case::new("group: fresh key, distribution message", move || group.rotate().len() as u64)
        .theirs("primitives", move || one.group_key());
    let (mut group, one) = (Group::new(), material());
    let encrypt = Case::new("group: encrypt", move || group.encrypt().len() as u64)
        .theirs("primitives", move || one.group_encrypt(PLAINTEXT.len()));
    let group = RefCell::new(Group::new());
    let mut receiver = Group { receiver: group.borrow().receiver.clone(), ..Group::new() };
    let (mut sent, one) = (Queue::new(FEW, move || group.borrow_mut().encrypt()), material());
    let decrypt = Case::new("group: decrypt", move || receiver.decrypt(&sent.next()))
        .theirs("primitives", move || one.group_decrypt(PLAINTEXT.len()));
    vec![start, answer, key, encrypt, decrypt]
}

/// More than a case of two microseconds takes in all of its rounds, about.
const MANY: usize = 60_000;
/// The same for ten and more.
const FEW: usize = 10_000;

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}
