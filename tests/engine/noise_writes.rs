//! What leaves a connection: several frames in one message of the websocket, within bounds, each sealed once. A write that fails
//! ends the connection together with its keys: nothing that was sealed for it appears on another one (spec 01 §2.6).

use std::{collections::BTreeSet, time::Duration};

use crate::world::{self, Disk, Network, World};
use bytes::Bytes;
use wamd::{
    message::MessageId,
    noise::{FrameBuffer, IntroReader},
};

const MAX_FRAMES: usize = 16;

/// The frames of each message, as sizes with their length in front.
fn frames(messages: &[Bytes]) -> Vec<Vec<usize>> {
    let split = |message: &Bytes| {
        let mut frames = FrameBuffer::new(usize::MAX);
        frames.push(message);
        let sizes = std::iter::from_fn(|| frames.next_frame().unwrap()).map(|frame| frame.len() + 3).collect();
        assert_eq!(frames.buffered(), 0, "a message ends with a frame");
        sizes
    };
    messages.iter().map(split).collect()
}

/// Receipts wait for their batches, and then leave together.
#[test]
fn a_burst_shares_messages_of_bounded_size() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.actor("alice").disk = Disk::Stuck;
    let written = world.actor("alice").sent.last().map_or(0, Vec::len);
    let ids: Vec<MessageId> = (0..40).map(|n| world.send("bob", "alice", &format!("burst {n}"))).collect();
    assert_eq!(world.actor("alice").sent.last().map_or(0, Vec::len), written, "nothing leaves before its batch");

    world.disk("alice", Disk::Works);
    let sent = frames(&world.actor("alice").sent.last().unwrap()[written..]);
    assert!(sent.iter().map(Vec::len).all(|frames| frames <= MAX_FRAMES), "{sent:?}");
    assert!(sent.len() <= ids.len() * 2 / MAX_FRAMES + 3, "{sent:?}");
    // The server opened them all: bob hears of every message once.
    let delivered = world.data("bob", "message.delivered");
    assert_eq!(delivered.len(), ids.len() + 1);
}

#[test]
fn what_could_not_be_written_is_sealed_anew_with_other_keys() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.events("bob");
    // Sealed and handed out, and the write fails: none of it arrives.
    let connections = world.actor("alice").sent.len();
    let written = world.actor("alice").sent[connections - 1].len();
    world.network("alice", Network::Stalled);
    let texts: Vec<String> = (0..20).map(|n| format!("lost at first {n}")).collect();
    for text in &texts {
        world.send("alice", "bob", text);
    }
    let unwritten = frames(&world.actor("alice").sent[connections - 1][written..]).concat().len();
    world.cut("alice");
    assert!(world.events("bob").iter().all(|event| world::text_of(event).is_none()));
    world.network("alice", Network::Up);
    world.advance(Duration::from_secs(10));
    assert_eq!(world.state("alice"), "CONNECTED");
    let arrived: Vec<String> = world.events("bob").iter().filter_map(world::text_of).map(str::to_owned).collect();
    assert_eq!(arrived, texts, "each once, under the new keys");

    // The server opens frame n with counter n, so on one connection every counter is used once. Between connections, neither
    // the client's ephemeral key nor a ciphertext comes again.
    let sent = &world.actor("alice").sent;
    assert!(sent.len() > connections && unwritten >= texts.len());
    let mut seen = BTreeSet::new();
    for messages in sent {
        let mut intro = IntroReader::new(1000);
        messages.iter().for_each(|message| intro.push(message));
        let mut frames = FrameBuffer::new(usize::MAX);
        frames.push_owned(intro.next_intro().unwrap().expect("a whole intro").rest);
        while let Some(frame) = frames.next_frame().unwrap() {
            assert!(seen.insert(frame.freeze()), "a frame was sent twice");
        }
    }
}
