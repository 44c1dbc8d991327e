//! What is measured.

use wamd::node::Decoder;
use wamd::signal::sender_key::{self, SenderKeyName};

use super::check::{check, payload};
use super::theirs::MARSHAL;
use super::{Target, delivered_direct, delivered_to_group, direct, members, ours, theirs};
use crate::measure::{Case, Queue, run, wanted};
use crate::signal::{Ours, Party, Theirs, established, established_theirs, group_theirs};

pub fn run_all() {
    if !wanted(TITLE, NAMES) {
        return;
    }
    check();
    let [one, five, steady, turned, group, warm, fresh] = NAMES;
    let cases = vec![
        send(one, 1),
        send(five, 5),
        receive(steady),
        receive_turn(turned),
        receive_from_group(group),
        send_to_group(warm),
        send_with_fresh_key(fresh),
    ];
    run(TITLE, cases);
}

const TITLE: &str = "Stanza pipeline: wamd and the crates of wacore 0.7.0";
const NAMES: [&str; 7] = [
    "stanza: send to 1 device",
    "stanza: send to 5 devices",
    "stanza: receive",
    "stanza: receive, the ratchet turns",
    "stanza: receive from a group",
    "stanza: send to a group",
    "stanza: send to a group, fresh key to 256 devices",
];

fn our_sender(targets: &[Target]) -> ours::Sender {
    let mut receivers: Vec<_> =
        (0..targets.len() as u64).map(|seed| Party::Ours(Ours::new(100 + seed).into())).collect();
    ours::Sender::new(targets, &mut receivers)
}

fn their_sender(targets: &[Target]) -> theirs::Sender {
    let mut receivers: Vec<_> =
        (0..targets.len() as u64).map(|seed| Party::Theirs(Theirs::new(100 + seed).into())).collect();
    theirs::Sender::new(targets, &mut receivers)
}

fn send<'a>(name: &str, count: u16) -> Case<'a> {
    let targets = direct(count);
    let mut sender = our_sender(&targets);
    let case = Case::new(name, move || sender.send().len() as u64);
    MARSHAL.into_iter().fold(case, |case, (form, marshal)| {
        let mut sender = their_sender(&targets);
        case.theirs(form, move || sender.send(marshal).len() as u64)
    })
}

/// Messages in order; the next one has been waiting.
fn receive<'a>(name: &str) -> Case<'a> {
    let (mut alice, bob) = established();
    let (mut bob, mut decoder) = (ours::Receiver::new(bob), Decoder::default());
    let plain = payload();
    let mut frames = Queue::new(MANY, move || delivered_direct(&alice.encrypt(&plain).bytes));
    let case = Case::new(name, move || ours::checksum(&bob.receive(&mut decoder, frames.next())));
    [("message_decrypt", false), ("message_decrypt_owned", true)]
        .into_iter()
        .fold(case, |case, (form, in_place)| {
            let (mut alice, bob) = established_theirs();
            let (mut bob, plain) = (theirs::Receiver::new(bob.handing_out()), payload());
            let mut frames = Queue::new(MANY, move || delivered_direct(alice.encrypt(&plain).serialize()));
            case.theirs(form, move || theirs::checksum(&bob.receive(frames.next(), in_place)))
        })
        .agree()
}

/// The first message after the other side has turned. The same one each time, by a fresh copy of the receiver, which is made
/// before and dropped after.
fn receive_turn<'a>(name: &str) -> Case<'a> {
    let (mut alice, bob) = established();
    let frame = delivered_direct(&alice.encrypt(&payload()).bytes);
    let (bob, mut decoder) = (ours::Receiver::new(bob), Decoder::default());
    let mut copies = Queue::new(FEW, move || bob.clone());
    let mut spent = Vec::with_capacity(2 * FEW);
    let case = Case::new(name, move || {
        let mut bob = copies.next();
        let sum = ours::checksum(&bob.receive(&mut decoder, frame.clone()));
        spent.push(bob);
        sum
    });
    let (mut alice, bob) = established_theirs();
    let frame = delivered_direct(alice.encrypt(&payload()).serialize());
    let bob = theirs::Receiver::new(bob.handing_out());
    let mut copies = Queue::new(FEW, move || bob.clone());
    let mut spent = Vec::with_capacity(2 * FEW);
    case.theirs("message_decrypt", move || {
        let mut bob = copies.next();
        let sum = theirs::checksum(&bob.receive(frame.clone(), false));
        spent.push(bob);
        sum
    })
    .agree()
}

fn receive_from_group<'a>(name: &str) -> Case<'a> {
    let mut sender = our_sender(&[]);
    let (mut receiver, mut decoder) = (ours::Receiver::new(Ours::new(2)), Decoder::default());
    let group = SenderKeyName::new("group", receiver.sender.clone());
    receiver.process(&sender_key::rotate(&mut sender.keys, &group, &mut sender.device.rng).encode());
    let plain = payload();
    let mut frames = Queue::new(SOME, move || {
        let sent = sender_key::encrypt(&mut sender.keys, &group, &plain, &mut sender.device.rng);
        delivered_to_group(&sent.expect("a key"))
    });
    let case = Case::new(name, move || ours::checksum(&receiver.receive(&mut decoder, frames.next())));
    let (mut sender, receiver, their_name) = group_theirs();
    let mut receiver = theirs::Receiver::with_name(receiver, their_name.clone());
    let plain = payload();
    let mut frames = Queue::new(SOME, move || delivered_to_group(&sender.group_encrypt(&their_name, &plain)));
    case.theirs("group_decrypt", move || theirs::checksum(&receiver.receive(frames.next(), false))).agree()
}

fn send_to_group<'a>(name: &str) -> Case<'a> {
    let mut sender = our_sender(&[]);
    sender.send_with_fresh_key();
    let case = Case::new(name, move || sender.send_to_group().len() as u64);
    MARSHAL.into_iter().fold(case, |case, (form, marshal)| {
        let mut sender = their_sender(&[]);
        sender.send_with_fresh_key(marshal);
        case.theirs(form, move || sender.send_to_group(marshal).len() as u64)
    })
}

fn send_with_fresh_key<'a>(name: &str) -> Case<'a> {
    let targets = members(256);
    let mut sender = our_sender(&targets);
    let case = Case::new(name, move || sender.send_with_fresh_key().len() as u64);
    MARSHAL.into_iter().fold(case, |case, (form, marshal)| {
        let mut sender = their_sender(&targets);
        case.theirs(form, move || sender.send_with_fresh_key(marshal).len() as u64)
    })
}

/// More than a case of two microseconds takes in all of its rounds, about.
const MANY: usize = 100_000;
/// The same for ten and more.
const SOME: usize = 10_000;
/// The same for a copy of a receiver, of fifty microseconds and more.
const FEW: usize = 4_000;
