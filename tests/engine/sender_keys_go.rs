//! Promise: the sender keys that a device handed us go with the device, in every chat, and nobody else's (spec 03 §4.9).

use crate::puppet::{self, Puppet, in_chat, online, text};
use crate::world::World;
use wamd::{Jid, node::Node, store::RecordKind};

const MEMBER: &str = "77777777777777";

fn groups() -> [Jid; 2] {
    ["120363041234567890@g.us", "120363041234567891@g.us"].map(|jid| jid.parse().unwrap())
}

/// A first message in each group, and then one behind a gap, so that there are skipped keys.
fn talks(world: &mut World, puppet: &mut Puppet, prefix: &str) {
    for chat in groups() {
        let key = puppet.key_for(&chat);
        let first = in_chat(&chat, &puppet.jid, &format!("{prefix}-1"));
        let first = first.child(puppet.tell(&key)).child(puppet.tell_all(&chat, &text("first")));
        world.stanza_arrives("alice", &first);
        puppet.tell_all(&chat, &text("lost"));
        let third = puppet.tell_all(&chat, &text("third"));
        world.stanza_arrives("alice", &in_chat(&chat, &puppet.jid, &format!("{prefix}-3")).child(third));
    }
}

/// How many records of a kind alice has.
fn count(world: &mut World, kind: RecordKind) -> usize {
    world.actor("alice").records(kind).len()
}

const KINDS: [RecordKind; 4] =
    [RecordKind::SenderKey, RecordKind::SenderKeyPage, RecordKind::SenderKeyChats, RecordKind::Session];

#[test]
fn a_removed_device_leaves_no_sender_key_behind() {
    let (mut world, upload) = online(&["alice"]);
    let mut stays = Puppet::new(&Jid::lid(MEMBER), &upload, 1);
    let mut goes = Puppet::new(&Jid::lid(MEMBER).with_device(3), &upload, 2);
    talks(&mut world, &mut stays, "STAYS");
    let before = KINDS.map(|kind| count(&mut world, kind));
    assert_eq!(before[..3], [2, 2, 1]);
    talks(&mut world, &mut goes, "GOES");
    assert_eq!(KINDS.map(|kind| count(&mut world, kind))[..3], [4, 4, 2]);
    world.forget();

    let removed = Node::new("remove").child(Node::new("device").attr("jid", &goes.jid));
    let notification = Node::new("notification")
        .attr("from", Jid::lid(MEMBER))
        .attr("id", "N")
        .attr("type", "devices")
        .attr("t", puppet::SENT)
        .child(removed);
    world.stanza_arrives("alice", &notification);
    assert_eq!(KINDS.map(|kind| count(&mut world, kind)), before, "what the device left, and nothing else, is gone");

    // The one that stays is read as before.
    let [chat, _] = groups();
    let next = stays.tell_all(&chat, &text("next"));
    world.stanza_arrives("alice", &in_chat(&chat, &stays.jid, "NEXT").child(next));
    assert_eq!(world.event_names("alice"), ["message.received"]);
}
