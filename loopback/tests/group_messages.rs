//! Messages of groups, status audiences and broadcast lists: who gets which ciphertext, hashes, receipts, resends, phones.

mod common;

use common::many::{hash, to_node};
use common::{Client, Device, World, leaf, receipt};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::signal::SignalError;
use wamd_loopback::{Config, GroupChange, GroupMode, GroupSpec};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const CAROL: &str = "15550000003";

/// A group of three: Alice with two companions, Bob with one, Carol with her phone alone.
struct Group {
    world: World,
    alice: Device,
    alice_client: Client,
    other: Device,
    other_client: Client,
    bob: Device,
    bob_client: Client,
    carol: Jid,
    jid: Jid,
}

impl Group {
    fn new(mode: GroupMode) -> Self {
        let mut world = World::new(Config::default(), 1);
        let (mut alice, mut other, mut bob) = (Device::new(1), Device::new(2), Device::new(3));
        let mut alice_client = world.ready(&mut alice, ALICE);
        let mut other_client = world.ready(&mut other, ALICE);
        let mut bob_client = world.ready(&mut bob, BOB);
        let carol = world.server.phone(world.now, CAROL).unwrap().lid;
        let spec = GroupSpec {
            creator: ALICE.to_owned(),
            subject: "Picnic".to_owned(),
            members: vec![bob.lid().to_bare(), carol.clone()],
            mode: Some(mode),
            ..GroupSpec::default()
        };
        let jid = world.server.create_group(world.now, &spec).unwrap().jid;
        world.drain();
        for client in [&mut alice_client, &mut other_client, &mut bob_client] {
            world.rest(client);
        }
        Self { world, alice, alice_client, other, other_client, bob, bob_client, carol, jid }
    }

    /// The devices of the group by LID, Alice's phone first.
    fn devices(&self) -> Vec<Jid> {
        let phone = self.alice.lid().to_bare();
        vec![phone, self.alice.lid(), self.other.lid(), self.bob.lid().to_bare(), self.bob.lid(), self.carol.clone()]
    }

    /// Alice's companion sends, with its sender key for these devices.
    fn send(&mut self, id: &str, targets: &[Jid], text: &str) -> Node {
        for target in targets {
            self.world.open_session(&mut self.alice_client, &mut self.alice, target);
        }
        let message = self.alice.group_message(id, &self.jid, "lid", targets, text);
        let message = message.attr("phash", hash(&self.devices()));
        self.send_node(&message)
    }

    /// Sends a stanza of Alice's companion; gives its ack.
    fn send_node(&mut self, message: &Node) -> Node {
        self.world.send(&mut self.alice_client, message);
        let id = message.attr_str("id").unwrap().into_owned();
        self.world.pick(&mut self.alice_client, |node| node.is("ack") && node.attr_str("id").as_deref() == Some(&id))
    }
}

fn error(ack: &Node) -> Option<u64> {
    ack.attr_u64("error")
}

fn types(message: &Node) -> Vec<String> {
    let encs = message.child_nodes().iter().filter(|child| child.is("enc"));
    encs.map(|enc| enc.attr_str("type").unwrap().into_owned()).collect()
}

#[test]
fn every_device_gets_the_message_and_its_own_key() {
    let mut group = Group::new(GroupMode::Lid);
    let targets: Vec<Jid> = group.devices().into_iter().filter(|device| *device != group.alice.lid()).collect();
    let ack = group.send("G1", &targets, "first");
    assert_eq!((error(&ack), ack.get_attr("phash")), (None, None), "both sides mean the same devices");
    assert_eq!(ack.attr_jid("from"), Some(group.jid.clone()));

    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(incoming.attr_jid("from"), Some(group.jid.clone()));
    assert_eq!(incoming.attr_jid("participant"), Some(group.alice.lid()));
    assert_eq!(incoming.attr_jid("participant_pn"), Some(group.alice.jid().to_bare()));
    assert_eq!(incoming.attr_str("addressing_mode").as_deref(), Some("lid"));
    assert_eq!(incoming.attr_str("notify").as_deref(), Some("User 0001"));
    assert_eq!(types(&incoming), ["pkmsg", "skmsg"]);
    assert!(incoming.find_child("device-identity").is_some() && incoming.find_child("participants").is_none());
    assert_eq!(group.bob.read(&incoming).as_deref(), Ok("first"));
    let copy = group.world.pick(&mut group.other_client, |node| node.is("message"));
    assert_eq!(copy.attr_jid("participant"), Some(group.alice.lid()), "the sender's other device reads along");
    assert_eq!(group.other.read(&copy).as_deref(), Ok("first"));
    let received = group.world.server.received(CAROL);
    assert_eq!(
        (received[0].text.as_deref(), &received[0].chat, &received[0].from),
        (Some("first"), &group.jid, &group.alice.lid())
    );

    // Whoever has the key gets the message alone.
    let ack = group.send("G2", &[], "second");
    assert_eq!(error(&ack), None);
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(types(&incoming), ["skmsg"]);
    assert!(incoming.find_child("device-identity").is_none());
    assert_eq!(group.bob.read(&incoming).as_deref(), Ok("second"));
    assert_eq!(group.world.server.received(CAROL)[1].text.as_deref(), Some("second"));
    assert_eq!(group.world.server.received(ALICE)[1].text.as_deref(), Some("second"), "the sender's own phone");
}

#[test]
fn a_group_by_number_names_numbers() {
    let mut group = Group::new(GroupMode::Pn);
    let bob = group.bob.jid();
    group.world.open_session(&mut group.alice_client, &mut group.alice, &bob);
    let message = group.alice.group_message("P1", &group.jid, "pn", std::slice::from_ref(&bob), "by number");
    // Without a word about the mode it is numbers, too.
    let silent = Node {
        attrs: message.attrs.iter().filter(|(name, _)| name != "addressing_mode").cloned().collect(),
        ..message
    };
    assert_eq!(error(&group.send_node(&silent)), None);
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(incoming.attr_jid("participant"), Some(group.alice.jid()));
    assert_eq!(incoming.attr_jid("participant_lid"), Some(group.alice.lid().to_bare()));
    assert_eq!(incoming.attr_str("addressing_mode").as_deref(), Some("pn"));
    assert_eq!(group.bob.read(&incoming).as_deref(), Ok("by number"));
}

#[test]
fn what_does_not_fit_the_group_is_refused() {
    let mut group = Group::new(GroupMode::Lid);
    let now = group.world.now;
    group.send("R0", &[], "the key exists from now on");
    let send = |group: &mut Group, id: &str, change: &dyn Fn(Node) -> Node| {
        let message = group.alice.group_message(id, &group.jid, "lid", &[], "x");
        error(&group.send_node(&change(message)))
    };
    assert_eq!(send(&mut group, "R1", &|node| node.attr("addressing_mode", "pn")), Some(421));
    let enc = || Node::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![1]);
    let number = group.bob.jid();
    let mixed = |node: Node| node.child(Node::new("participants").child(to_node(&number, enc())));
    assert_eq!(send(&mut group, "R2", &mixed), Some(400));
    let nowhere: Jid = "120363000000000000@g.us".parse().unwrap();
    assert_eq!(send(&mut group, "R3", &|node| node.attr("to", &nowhere)), Some(404));
    let empty = Node::new("message").attr("to", &group.jid).attr("id", "R4").attr("type", "text");
    assert_eq!(error(&group.send_node(&empty.attr("addressing_mode", "lid"))), Some(400));

    let (jid, alice, bob) = (group.jid.clone(), group.alice.lid().to_bare(), group.bob.lid().to_bare());
    let mode = GroupChange::Mode { mode: GroupMode::Pn };
    group.world.server.change_group(now, &jid, None, mode).unwrap();
    assert_eq!(send(&mut group, "R5", &|node| node), Some(421), "the group is addressed otherwise now");
    let mode = GroupChange::Mode { mode: GroupMode::Lid };
    group.world.server.change_group(now, &jid, None, mode).unwrap();

    // In an announcement group admins write, and who has left does not.
    let promote = GroupChange::Promote { participants: vec![bob.clone()] };
    group.world.server.change_group(now, &jid, None, promote).unwrap();
    group.world.server.change_group(now, &jid, None, GroupChange::Announcement { on: true }).unwrap();
    assert_eq!(send(&mut group, "R6", &|node| node), None);
    group.world.server.change_group(now, &jid, Some(&alice), GroupChange::Leave).unwrap();
    group.world.drain();
    group.world.rest(&mut group.alice_client);
    assert_eq!(send(&mut group, "R7", &|node| node), Some(406));
    let refused = group.world.server.send_text(now, CAROL, &jid, "not an admin");
    assert_eq!(refused.unwrap_err().to_string(), "the server refuses it with error 403");
}

#[test]
fn the_ack_tells_a_hash_only_when_the_devices_differ() {
    let mut group = Group::new(GroupMode::Lid);
    group.send("H0", &[], "x");
    let mut third = Device::new(4);
    group.world.link(&mut third, BOB);
    group.world.rest(&mut group.alice_client);
    let ack = group.send("H1", &[], "Bob has a device that Alice does not know");
    let mut devices = group.devices();
    devices.push(third.lid());
    assert_eq!(ack.attr_str("phash").as_deref(), Some(&hash(&devices)[..]));
    assert_eq!(error(&ack), None, "the message is on its way all the same");
    let mut client = group.world.login(&mut third, false);
    let backlog = group.world.backlog(&mut client);
    let message = backlog.iter().find(|node| node.is("message")).unwrap();
    assert_eq!(third.read(message), Err(SignalError::NoSenderKey));
    let silent = group.alice.group_message("H2", &group.jid, "lid", &[], "no hash");
    assert_eq!(group.send_node(&silent).get_attr("phash"), None);
}

#[test]
fn a_direct_message_is_acknowledged_with_the_hash_of_its_devices() {
    let mut group = Group::new(GroupMode::Lid);
    let bob = group.bob.lid();
    group.world.open_session(&mut group.alice_client, &mut group.alice, &bob);
    let enc = group.alice.encrypt(&bob, "to Bob");
    let message = common::fan_out("D1", &bob.to_bare(), vec![(bob.clone(), enc)], &group.alice);
    let ack = group.send_node(&message);
    let devices = [bob.to_bare(), bob.clone(), group.alice.lid().to_bare(), group.other.lid()];
    assert_eq!(ack.attr_str("phash").as_deref(), Some(&hash(&devices)[..]));
    let enc = group.alice.encrypt(&bob, "again").attr("count", "1");
    let again = Node::new("message").attr("to", &bob).attr("id", "D1").attr("type", "text").child(enc);
    assert_eq!(group.send_node(&again).get_attr("phash"), None);
}

#[test]
fn receipts_find_the_author() {
    let mut group = Group::new(GroupMode::Lid);
    let targets: Vec<Jid> = vec![group.bob.lid(), group.other.lid()];
    group.send("T1", &targets, "hello");
    group.world.rest(&mut group.alice_client);
    group.world.rest(&mut group.other_client);
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(group.world.server.accounts()[1].devices[0].queued, 2, "the notification of the group, and the message");
    group.world.send(&mut group.bob_client, &receipt(&incoming, None));
    let ack = group.world.expect(&mut group.bob_client, "ack");
    assert_eq!(ack.attr_jid("participant"), Some(group.alice.lid()));
    assert_eq!(group.world.server.accounts()[1].devices[0].queued, 1);
    for client in [&mut group.alice_client, &mut group.other_client] {
        let delivered = group.world.expect(client, "receipt");
        assert_eq!(delivered.attr_jid("from"), Some(group.jid.clone()));
        assert_eq!(delivered.attr_jid("participant"), Some(group.bob.lid()));
        assert_eq!(delivered.attr_jid("participant_pn"), Some(group.bob.jid().to_bare()));
        assert_eq!(delivered.get_attr("type"), None);
    }
    // A read receipt names the author without device.
    let read = receipt(&incoming, Some("read")).attr("participant", group.alice.lid().to_bare());
    group.world.send(&mut group.bob_client, &read);
    let read = group.world.expect(&mut group.other_client, "receipt");
    assert_eq!(read.attr_str("type").as_deref(), Some("read"));
    assert_eq!(read.attr_jid("participant"), Some(group.bob.lid()));
}

#[test]
fn a_retry_receipt_reaches_the_sender_and_its_answer_one_device() {
    let mut group = Group::new(GroupMode::Lid);
    group.send("A1", &[], "without a key");
    group.world.rest(&mut group.alice_client);
    group.world.rest(&mut group.other_client);
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(group.bob.read(&incoming), Err(SignalError::NoSenderKey));
    let retry = Node::new("retry").attr("v", "1").attr("id", "A1").attr("count", "1").attr("t", "1");
    let asked = receipt(&incoming, Some("retry")).child(retry).child(leaf("registration", &[0, 0, 0, 1]));
    group.world.send(&mut group.bob_client, &asked);
    let request = group.world.expect(&mut group.alice_client, "receipt");
    assert_eq!(request.attr_jid("from"), Some(group.jid.clone()));
    assert_eq!(request.attr_jid("participant"), Some(group.bob.lid()));
    assert!(request.find_child("retry").is_some() && request.find_child("registration").is_some());
    group.world.expect_silence(&mut group.other_client);

    let bob = group.bob.lid();
    group.world.open_session(&mut group.alice_client, &mut group.alice, &bob);
    let enc = group.alice.encrypt(&bob, "once more").attr("count", "1");
    let again = Node::new("message")
        .attr("to", &group.jid)
        .attr("id", "A1")
        .attr("type", "text")
        .attr("participant", &bob)
        .child(enc);
    assert_eq!(error(&group.send_node(&again.clone())), None);
    let incoming = group.world.rest(&mut group.bob_client).pop().unwrap();
    assert_eq!((incoming.attr_jid("from"), types(&incoming)), (Some(group.jid.clone()), vec!["pkmsg".to_owned()]));
    assert_eq!(incoming.attr_jid("participant"), Some(group.alice.lid()));
    assert_eq!(group.bob.read(&incoming).as_deref(), Ok("once more"));
    group.world.expect_silence(&mut group.other_client);
    let stranger = group.world.server.phone(group.world.now, "15550000009").unwrap().lid;
    assert_eq!(error(&group.send_node(&again.attr("participant", stranger).attr("id", "A2"))), Some(406));
}

#[test]
fn phones_write_to_groups_and_send_again() {
    let mut group = Group::new(GroupMode::Lid);
    let now = group.world.now;
    let (jid, bob) = (group.jid.clone(), group.bob.lid().to_bare());
    let id = group.world.server.send_text(now, CAROL, &jid, "from a phone").unwrap();
    group.world.drain();
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(incoming.attr_jid("participant"), Some(group.carol.clone()));
    assert_eq!(group.bob.read(&incoming).as_deref(), Ok("from a phone"));
    assert_eq!(group.world.server.received(BOB)[0].text.as_deref(), Some("from a phone"));
    group.world.server.send_text(now, CAROL, &jid, "warm").unwrap();
    group.world.drain();
    let warm = group.world.expect(&mut group.bob_client, "message");
    assert_eq!((types(&warm), group.bob.read(&warm)), (vec!["skmsg".to_owned()], Ok("warm".to_owned())));

    // Asked again, it sends the text with its key to the device that asks.
    let retry = Node::new("retry").attr("v", "1").attr("id", &id).attr("count", "1").attr("t", "1");
    let asked = receipt(&incoming, Some("retry")).child(retry).child(leaf("registration", &[0, 0, 0, 1]));
    group.world.send(&mut group.bob_client, &asked);
    group.world.expect(&mut group.bob_client, "ack");
    let again = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(again.find_child("enc").unwrap().attr_u64("count"), Some(1));
    group.bob.sender_keys = Default::default();
    assert_eq!(group.bob.read(&again).as_deref(), Ok("from a phone"));
    group.world.server.send_text(now, CAROL, &jid, "and on").unwrap();
    group.world.drain();
    let on = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(group.bob.read(&on).as_deref(), Ok("and on"), "the key came with the resend");

    // A stranger who knows the id gets nothing.
    let mut mallory = Device::new(9);
    let mut client = group.world.ready(&mut mallory, "15550000009");
    let carol = group.carol.clone();
    group.world.send(&mut client, &asked.clone().attr("participant", &carol));
    group.world.expect(&mut client, "ack");
    group.world.expect_silence(&mut client);

    // When somebody is gone the key is another one.
    let alice = GroupChange::Remove { participants: vec![group.alice.lid().to_bare()], linked_groups: false };
    let promote = GroupChange::Promote { participants: vec![bob] };
    group.world.server.change_group(now, &jid, None, promote).unwrap();
    let by_alice = group.alice.lid();
    group.world.server.change_group(now, &jid, Some(&by_alice), alice).unwrap();
    group.world.server.send_text(now, CAROL, &jid, "without Alice").unwrap();
    group.world.drain();
    let fresh = group.world.rest(&mut group.bob_client).pop().unwrap();
    assert_eq!(types(&fresh), ["pkmsg", "skmsg"]);
    assert_eq!(group.bob.read(&fresh).as_deref(), Ok("without Alice"));
    assert!(
        group
            .world
            .rest(&mut group.other_client)
            .iter()
            .all(|node| node.attr_str("id").as_deref() != fresh.attr_str("id").as_deref())
    );
}

#[test]
fn a_phone_that_cannot_read_asks_the_author() {
    let mut group = Group::new(GroupMode::Lid);
    group.send("Z1", &[], "Carol has no key");
    let receipts = group.world.rest(&mut group.alice_client);
    let carol = group.carol.clone();
    let asked = receipts.iter().find(|node| node.attr_jid("participant") == Some(carol.clone())).unwrap();
    assert_eq!((asked.attr_str("type").as_deref(), asked.attr_jid("from")), (Some("retry"), Some(group.jid.clone())));
    assert!(group.world.server.received(CAROL).is_empty());
    // The next message brings it.
    group.send("Z2", &[carol], "with the key");
    assert_eq!(group.world.server.received(CAROL)[0].text.as_deref(), Some("with the key"));
}

#[test]
fn a_status_goes_to_its_audience() {
    let mut group = Group::new(GroupMode::Lid);
    let status = Jid::status_broadcast();
    let bob = group.bob.lid();
    let post = |group: &mut Group, id: &str, keys: &[Jid], bare: &[Jid], text: &str| {
        let bare: Vec<Node> = bare.iter().map(|jid| Node::new("to").attr("jid", jid)).collect();
        let keys: Vec<Node> =
            keys.iter().map(|to| to_node(to, group.alice.distribute(&Jid::status_broadcast(), to))).collect();
        let body = group.alice.encrypt_for_many(&Jid::status_broadcast(), text);
        Node::new("message")
            .attr("to", Jid::status_broadcast())
            .attr("id", id)
            .attr("type", "text")
            .child(Node::new("participants").children(keys).children(bare))
            .child(body)
            .child(leaf("device-identity", &group.alice.device_identity))
    };
    group.world.open_session(&mut group.alice_client, &mut group.alice, &bob);
    let first = post(&mut group, "S1", std::slice::from_ref(&bob), &[bob.to_bare()], "first");
    let first = first.child(Node::new("meta").attr("status_setting", "contacts"));
    assert_eq!(error(&group.send_node(&first)), None);
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(
        (incoming.attr_jid("from"), incoming.attr_jid("participant")),
        (Some(status.clone()), Some(group.alice.lid()))
    );
    assert_eq!(types(&incoming), ["pkmsg", "skmsg"]);
    assert_eq!(group.bob.read(&incoming).as_deref(), Ok("first"));
    let copy = group.world.pick(&mut group.other_client, |node| node.is("message"));
    let audience = copy.find_child("participants").unwrap().child_nodes();
    assert_eq!((audience.len(), audience[0].attr_jid("jid")), (1, Some(bob.to_bare())));
    assert_eq!(audience[0].attr_jid("peer_recipient_pn"), Some(group.bob.jid().to_bare()));
    assert!(group.world.server.received(CAROL).is_empty(), "Carol is not in the audience");

    group.world.rest(&mut group.alice_client);
    let second = post(&mut group, "S2", &[], &[bob.to_bare()], "second");
    assert_eq!(error(&group.send_node(&second.clone())), None);
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!((types(&incoming), group.bob.read(&incoming)), (vec!["skmsg".to_owned()], Ok("second".to_owned())));
    // A view is a read receipt, for all of the author's devices.
    let viewed = receipt(&incoming, Some("read")).attr("context", "status");
    group.world.send(&mut group.bob_client, &viewed);
    let viewed = group.world.rest(&mut group.alice_client).pop().unwrap();
    assert_eq!((viewed.attr_jid("from"), viewed.attr_jid("participant")), (Some(status), Some(group.bob.lid())));

    let malformed: [(&str, &dyn Fn(Node) -> Node); 4] = [
        ("S3", &|node| node.attr("addressing_mode", "lid")),
        ("S4", &|node| node.attr("type", "reaction").child(Node::new("meta").attr("status_setting", "contacts"))),
        ("S5", &|node| node.attr("edit", "7").child(Node::new("meta").attr("status_setting", "contacts"))),
        ("S6", &|node| node.child(Node::new("meta").attr("status_setting", "everybody"))),
    ];
    for (id, spoil) in malformed {
        assert_eq!(error(&group.send_node(&spoil(second.clone().attr("id", id)))), Some(479), "{id}");
    }
    assert_eq!(error(&group.send_node(&second.attr("id", "S7").attr("type", "reaction"))), None);
    group.world.rest(&mut group.bob_client);

    // A reaction goes pairwise.
    let enc = group.alice.encrypt(&bob, "a reaction");
    let reaction = common::fan_out("S8", &Jid::status_broadcast(), vec![(bob.clone(), enc)], &group.alice);
    assert_eq!(error(&group.send_node(&reaction.attr("type", "reaction"))), None);
    let incoming = group.world.expect(&mut group.bob_client, "message");
    assert_eq!(types(&incoming), ["pkmsg"]);
    assert_eq!(group.bob.read(&incoming).as_deref(), Ok("a reaction"));
}

#[test]
fn phones_post_to_audiences_and_lists() {
    let mut group = Group::new(GroupMode::Lid);
    let now = group.world.now;
    let audience = [group.bob.lid().to_bare()];
    let list: Jid = "1700000000@broadcast".parse().unwrap();
    for (to, text) in [(Jid::status_broadcast(), "a status"), (list, "to a list")] {
        group.world.server.send_to_audience(now, CAROL, &to, &audience, text).unwrap();
        group.world.drain();
        let incoming = group.world.expect(&mut group.bob_client, "message");
        assert_eq!(
            (incoming.attr_jid("from"), incoming.attr_jid("participant")),
            (Some(to.clone()), Some(group.carol.clone()))
        );
        let owner = (!to.is_status_broadcast()).then(|| group.carol.clone());
        assert_eq!(incoming.attr_jid("recipient"), owner);
        assert_eq!(group.bob.read(&incoming).as_deref(), Ok(text));
        let received = group.world.server.received(BOB);
        assert_eq!(received.last().map(|message| (message.text.as_deref(), &message.chat)), Some((Some(text), &to)));
    }
    let group_jid = group.jid.clone();
    assert!(group.world.server.send_to_audience(now, CAROL, &group_jid, &audience, "x").is_err());
}
