//! Each side reads what the other has written.

use wamd::jid::Jid;
use wamd::message::{build, padding};
use wamd::node::Decoder;
use wamd::proto::{Message as _, e2e::Message};
use wamd::stanza::message::InboundMessage;

use super::{ID, NAME, PHONE, TEXT, TIME, Target, USER, sum};
use super::{delivered_direct, delivered_to_group, direct, introduce, members, ours, theirs};
use crate::signal::{Ours, Party, Theirs};

/// Direct messages and group messages, sent and received, both directions.
///
/// # Panics
/// One side cannot read the other, or reads something else.
pub fn check() {
    ours_to_theirs();
    theirs_to_ours();
    received();
    println!("crossed: each side reads the stanzas of the other");
}

/// A padded payload with [`TEXT`].
pub fn payload() -> Vec<u8> {
    let mut payload = build::text(TEXT).encode_to_vec();
    padding::pad_with(&mut payload, 7);
    payload
}

fn our_devices(targets: &[Target]) -> Vec<Party> {
    (0..targets.len() as u64).map(|number| Party::Ours(Box::new(Ours::new(100 + number)))).collect()
}

fn their_devices(targets: &[Target]) -> Vec<Party> {
    (0..targets.len() as u64).map(|number| Party::Theirs(Box::new(Theirs::new(100 + number)))).collect()
}

fn ours_to_theirs() {
    for count in [1, 5] {
        let targets = direct(count);
        let mut devices = their_devices(&targets);
        let mut sender = ours::Sender::new(&targets, &mut devices);
        for _ in 0..2 {
            let frame = sender.send();
            for (target, device) in targets.iter().zip(&mut devices) {
                let Party::Theirs(device) = device else { unreachable!("all are theirs") };
                let message = theirs::read_sent(device, target, &frame);
                let message = if target.own {
                    let sent = message.device_sent_message.as_option().expect("a copy");
                    assert_eq!(sent.destination_jid.as_deref(), Some(format!("{USER}@lid").as_str()));
                    sent.message.as_option().expect("a message")
                } else {
                    &message
                };
                assert_eq!(message.conversation.as_deref(), Some(TEXT));
            }
        }
    }
    let targets = members(6);
    let mut devices = their_devices(&targets);
    let mut sender = ours::Sender::new(&targets, &mut devices);
    let (first, second) = (sender.send_with_fresh_key(), sender.send_to_group());
    for (target, device) in targets.iter().zip(devices) {
        let Party::Theirs(mut device) = device else { unreachable!("all are theirs") };
        let message = theirs::read_sent(&mut device, target, &first);
        let key = message.sender_key_distribution_message.as_option().expect("a key");
        let key = key.axolotl_sender_key_distribution_message.clone().expect("a key");
        let mut receiver = theirs::Receiver::new(*device);
        receiver.process(&key);
        for frame in [&first, &second] {
            let frame = delivered_to_group(&ours::sent_body(frame.clone()));
            check_theirs(&receiver.receive(frame, false));
        }
    }
}

fn theirs_to_ours() {
    for (_, marshal) in theirs::MARSHAL {
        for count in [1, 5] {
            let targets = direct(count);
            let mut devices = our_devices(&targets);
            let mut sender = theirs::Sender::new(&targets, &mut devices);
            for _ in 0..2 {
                let frame = sender.send(marshal);
                for (target, device) in targets.iter().zip(&mut devices) {
                    let Party::Ours(device) = device else { unreachable!("all are ours") };
                    let mut message = ours::read_sent(device, &target.jid(), frame.clone());
                    if target.own {
                        let sent = message.device_sent_message.expect("a copy");
                        assert_eq!(sent.destination_jid.as_deref(), Some(format!("{USER}@lid").as_str()));
                        message = *sent.message.expect("a message");
                    }
                    assert_eq!(message.conversation.as_deref(), Some(TEXT));
                }
            }
        }
        let targets = members(6);
        let mut devices = our_devices(&targets);
        let mut sender = theirs::Sender::new(&targets, &mut devices);
        let (first, second) = (sender.send_with_fresh_key(marshal), sender.send_to_group(marshal));
        for (target, device) in targets.iter().zip(devices) {
            let Party::Ours(mut device) = device else { unreachable!("all are ours") };
            let message = ours::read_sent(&mut device, &target.jid(), first.clone());
            let (_, key) = build::handed_sender_key(&message).expect("a key");
            let mut receiver = ours::Receiver::new(*device);
            receiver.process(key);
            for frame in [&first, &second] {
                let frame = delivered_to_group(&theirs::sent_body(frame));
                check_ours(&receiver.receive(&mut Decoder::default(), frame));
            }
        }
    }
}

/// Frames as the server hands them over.
fn received() {
    let (mut own, mut other) = (Party::Ours(Box::new(Ours::new(1))), Party::Theirs(Box::new(Theirs::new(2))));
    introduce(&mut own, &mut other);
    let frames = |party: &mut Party| [(); 3].map(|()| delivered_direct(&party.encrypt(&payload()).1));
    let (to_theirs, to_ours) = (frames(&mut own), frames(&mut other));
    let (Party::Ours(own), Party::Theirs(other)) = (own, other) else { unreachable!("as they were made") };
    let (mut own, mut other) = (ours::Receiver::new(*own), theirs::Receiver::new(*other));
    for frame in to_ours {
        check_ours(&own.receive(&mut Decoder::default(), frame));
    }
    for (frame, in_place) in to_theirs.into_iter().zip([false, true, true]) {
        check_theirs(&other.receive(frame, in_place));
    }
}

fn check_ours(received: &(InboundMessage, Message)) {
    let (inbound, message) = received;
    assert_eq!(message.conversation.as_deref(), Some(TEXT));
    assert_eq!((inbound.ack.id.as_str(), inbound.push_name.as_deref()), (ID, Some(NAME)));
    assert_eq!(inbound.sender, Jid::lid(USER).with_device(3));
    assert_eq!(inbound.sender_alt, Some(Jid::pn(PHONE)));
    assert_eq!(ours::checksum(received), expected());
}

fn check_theirs(received: &theirs::Received) {
    assert_eq!(received.message.conversation.as_deref(), Some(TEXT));
    assert_eq!(theirs::checksum(received), expected());
}

/// The checksum of every received frame.
fn expected() -> u64 {
    sum([ID, USER, NAME, TEXT]) + TIME + 3
}
