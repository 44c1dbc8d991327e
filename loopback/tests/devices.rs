//! Devices of accounts: lists with hashes and signed indexes, what others are told of changes, LIDs, and what a phone does
//! for its companions.

mod common;

use common::many::hash;
use common::{Client, Device, World, ack, iq, leaf, receipt};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::pairing::key_index::{self, ListSignature};
use wamd::proto::e2e::{
    self, peer_data_operation_request_message::PlaceholderMessageResendRequest, protocol_message::Type,
};
use wamd::proto::{Message as _, common as protocol, web};
use wamd_loopback::{Config, Disconnect, Fault, GroupMode, GroupSpec};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";

/// Alice with two companions, Bob with one.
struct Devices {
    world: World,
    alice: Device,
    alice_client: Client,
    other: Device,
    other_client: Client,
    bob: Device,
    bob_client: Client,
}

impl Devices {
    fn new() -> Self {
        let mut world = World::new(Config::default(), 1);
        let (mut alice, mut other, mut bob) = (Device::new(1), Device::new(2), Device::new(3));
        let mut alice_client = world.ready(&mut alice, ALICE);
        let other_client = world.ready(&mut other, ALICE);
        let bob_client = world.ready(&mut bob, BOB);
        world.rest(&mut alice_client);
        Self { world, alice, alice_client, other, other_client, bob, bob_client }
    }

    /// Bob's companion writes to Alice's companion by one of its names; gives the ack.
    fn bob_writes(&mut self, id: &str, to: &Jid, text: &str) -> Node {
        self.world.open_session(&mut self.bob_client, &mut self.bob, to);
        let enc = self.bob.encrypt(to, text);
        let message = common::fan_out(id, &to.to_bare(), vec![(to.clone(), enc)], &self.bob);
        self.world.send(&mut self.bob_client, &message);
        self.world.pick(&mut self.bob_client, |node| node.is("ack") && node.attr_str("id").as_deref() == Some(id))
    }

    /// Bob's companion asks for devices and LIDs; gives the users of the answer.
    fn bob_looks_up(&mut self, users: Vec<Node>) -> Vec<Node> {
        let query = Node::new("query").child(Node::new("devices").attr("version", "2")).child(Node::new("lid"));
        let usync = Node::new("usync").attr("sid", "S").child(query).child(Node::new("list").children(users));
        let answer = self.world.ask(&mut self.bob_client, &mut self.bob, iq("get", "usync").child(usync));
        answer.find_child("usync").unwrap().find_child("list").unwrap().child_nodes().to_vec()
    }

    fn fault(&mut self, fault: Fault) {
        self.world.server.fault(self.world.now, fault).unwrap();
        self.world.drain();
    }
}

fn user(jid: &Jid) -> Node {
    Node::new("user").attr("jid", jid)
}

fn device_list(user: &Node) -> &Node {
    user.find_child("devices").unwrap().find_child("device-list").unwrap()
}

#[test]
fn a_list_has_its_hash_and_is_left_out_when_that_is_known() {
    let mut devices = Devices::new();
    let (pn, lid) = (devices.alice.jid().to_bare(), devices.alice.lid().to_bare());
    let by_pn = [pn.clone(), devices.alice.jid(), devices.other.jid()];
    let by_lid = [lid.clone(), devices.alice.lid(), devices.other.lid()];
    let users = devices.bob_looks_up(vec![user(&pn), user(&lid)]);
    for (user, devices) in users.iter().zip([&by_pn, &by_lid]) {
        assert_eq!(device_list(user).attr_str("hash").as_deref(), Some(&hash(devices)[..]));
    }
    let index = users[1].find_child("devices").unwrap().find_child("key-index-list").unwrap();
    let list = key_index::decode(&index.content_bytes().unwrap(), None).unwrap();
    assert!(matches!(list.signature(), ListSignature::FirstUse(_)));
    assert!(list.accepts(1) && list.accepts(2));

    let asked = |jid: &Jid, hash: String| user(jid).child(Node::new("devices").attr("device_hash", hash));
    assert!(devices.bob_looks_up(vec![asked(&lid, hash(&by_lid))]).is_empty(), "nothing is new");
    assert_eq!(devices.bob_looks_up(vec![asked(&lid, hash(&by_pn))]).len(), 1);

    let jid = devices.other.lid();
    devices.fault(Fault::Hosted { jid, on: true });
    let users = devices.bob_looks_up(vec![user(&lid)]);
    let hosted: Vec<_> =
        device_list(&users[0]).child_nodes().iter().map(|one| one.attr_str("is_hosted").is_some()).collect();
    assert_eq!(hosted, [false, false, true]);
}

#[test]
fn a_hosted_device_gets_no_group_messages() {
    let mut devices = Devices::new();
    let jid = devices.other.lid();
    devices.fault(Fault::Hosted { jid, on: true });
    let members = vec![devices.bob.lid().to_bare()];
    let spec = GroupSpec {
        creator: ALICE.to_owned(),
        subject: "G".to_owned(),
        members,
        mode: Some(GroupMode::Lid),
        ..GroupSpec::default()
    };
    let group = devices.world.server.create_group(devices.world.now, &spec).unwrap().jid;
    devices.world.drain();
    for client in [&mut devices.alice_client, &mut devices.other_client] {
        devices.world.rest(client);
    }
    let meant = [devices.alice.lid().to_bare(), devices.alice.lid(), devices.bob.lid().to_bare(), devices.bob.lid()];
    let message = devices.bob.group_message("G1", &group, "lid", &[], "x").attr("phash", hash(&meant));
    devices.world.send(&mut devices.bob_client, &message);
    let ack = devices.world.pick(&mut devices.bob_client, |node| node.is("ack"));
    assert_eq!((ack.get_attr("phash"), ack.get_attr("error")), (None, None));
    devices.world.expect(&mut devices.alice_client, "message");
    devices.world.expect_silence(&mut devices.other_client);
}

#[test]
fn own_devices_and_contacts_hear_of_changes() {
    let mut devices = Devices::new();
    let alice = devices.alice.lid();
    devices.bob_writes("C1", &alice, "so that they know each other");
    devices.world.rest(&mut devices.alice_client);
    let mut third = Device::new(4);
    devices.world.link(&mut third, ALICE);
    let own = devices.world.expect_notice(&mut devices.alice_client, "account_sync");
    let list = own.find_child("devices").unwrap();
    let jids: Vec<_> = list.child_nodes().iter().map(|one| one.attr_jid("jid").unwrap()).collect();
    let by_pn = vec![alice_pn(&devices), devices.alice.jid(), devices.other.jid(), third.jid()];
    assert_eq!((list.attr_str("dhash").as_deref(), &jids), (Some(&hash(&by_pn)[..]), &by_pn));
    let notice = devices.world.expect_notice(&mut devices.bob_client, "devices");
    let add = notice.find_child("add").unwrap();
    assert_eq!(add.attr_str("device_hash").as_deref(), Some(&hash(&by_pn)[..]));
    let by_lid = [devices.alice.lid().to_bare(), devices.alice.lid(), devices.other.lid(), third.lid()];
    assert_eq!(add.attr_str("device_lid_hash").as_deref(), Some(&hash(&by_lid)[..]));
    assert_eq!(add.find_child("device").unwrap().attr_jid("lid"), Some(third.lid()));
    let index = add.find_child("key-index-list").unwrap().content_bytes().unwrap();
    assert!(key_index::decode(&index, None).unwrap().accepts(3));
    devices.world.send(&mut devices.bob_client, &ack(&notice));

    devices.world.server.disconnect(devices.world.now, &third.lid(), Disconnect::DeviceRemoved).unwrap();
    devices.world.drain();
    let notice = devices.world.expect_notice(&mut devices.bob_client, "devices");
    let remove = notice.find_child("remove").unwrap();
    assert_eq!(remove.attr_str("device_hash").as_deref(), Some(&hash(&by_pn[..3])[..]));
    let index = remove.find_child("key-index-list").unwrap().content_bytes().unwrap();
    assert!(!key_index::decode(&index, None).unwrap().accepts(3), "the index of the removed device is void");

    let jid = alice_pn(&devices);
    devices.fault(Fault::DevicesUpdate { jid });
    let notice = devices.world.expect_notice(&mut devices.bob_client, "devices");
    assert_eq!(notice.find_child("update").unwrap().attr_str("hash").as_deref(), Some(&hash(&by_pn[..3])[..]));
}

fn alice_pn(devices: &Devices) -> Jid {
    devices.alice.jid().to_bare()
}

#[test]
fn an_account_may_get_its_lid_later() {
    let mut devices = Devices::new();
    let (pn, lid) = (alice_pn(&devices), devices.alice.lid().to_bare());
    let own_pn = devices.alice.jid();
    devices.fault(Fault::HideLid { jid: pn.clone(), on: true });
    assert!(devices.bob_looks_up(vec![user(&pn)])[0].find_child("lid").is_none());
    devices.bob_writes("L1", &own_pn, "by number");
    // What Alice writes says nothing of it, either.
    devices.world.rest(&mut devices.alice_client);
    let bob = devices.bob.jid();
    devices.world.open_session(&mut devices.alice_client, &mut devices.alice, &bob);
    let enc = devices.alice.encrypt(&bob, "an answer");
    let message = common::fan_out("L2", &bob.to_bare(), vec![(bob.clone(), enc)], &devices.alice);
    devices.world.send(&mut devices.alice_client, &message);
    let incoming = devices.world.pick(&mut devices.bob_client, |node| node.is("message"));
    assert_eq!((incoming.attr_jid("from"), incoming.get_attr("sender_lid")), (Some(own_pn), None));
    let spec = GroupSpec {
        creator: BOB.to_owned(),
        subject: "G".to_owned(),
        members: vec![pn.clone()],
        mode: Some(GroupMode::Pn),
        ..GroupSpec::default()
    };
    devices.world.server.create_group(devices.world.now, &spec).unwrap();
    devices.world.drain();
    let notice = devices.world.expect_notice(&mut devices.bob_client, "w:gp2");
    let members = notice.find_child("create").unwrap().find_child("group").unwrap().child_nodes();
    let lids: Vec<_> = members.iter().filter(|one| one.is("participant")).map(|one| one.attr_jid("lid")).collect();
    assert_eq!(lids, [None, Some(devices.bob.lid().to_bare())]);

    devices.fault(Fault::HideLid { jid: pn.clone(), on: false });
    let users = devices.bob_looks_up(vec![user(&pn)]);
    assert_eq!(users[0].find_child("lid").unwrap().attr_jid("val"), Some(lid));
}

#[test]
fn a_former_lid_still_works_and_says_that_it_is_stale() {
    let mut devices = Devices::new();
    let former = devices.alice.lid();
    assert_eq!(devices.bob_writes("M1", &former, "before").get_attr("refresh_lid"), None);
    let jid = alice_pn(&devices);
    devices.fault(Fault::ChangeLid { jid: jid.clone() });
    let ack = devices.bob_writes("M2", &former, "after");
    assert_eq!((ack.attr_str("refresh_lid").as_deref(), ack.get_attr("error")), (Some("true"), None));
    let users = devices.bob_looks_up(vec![user(&jid)]);
    let fresh = users[0].find_child("lid").unwrap().attr_jid("val").unwrap();
    assert_ne!(fresh, former.to_bare());
    assert_eq!(devices.bob_writes("M3", &fresh.with_device(former.device()), "again").get_attr("refresh_lid"), None);
    let messages = devices.world.rest(&mut devices.alice_client).into_iter().filter(|node| node.is("message"));
    assert_eq!(messages.count(), 3);
}

/// A peer message of a companion to its phone, with these bytes in its protocol message.
fn ask_phone(devices: &mut Devices, id: &str, request: e2e::ProtocolMessage) {
    let phone = devices.alice.lid().to_bare();
    if id == "P1" {
        devices.world.open_session(&mut devices.alice_client, &mut devices.alice, &phone);
    }
    let message = e2e::Message { protocol_message: Some(Box::new(request)), ..e2e::Message::default() };
    let enc = devices.alice.encrypt_message(&phone, &message);
    let node = Node::new("message")
        .attr("to", &phone)
        .attr("id", id)
        .attr("type", "text")
        .attr("category", "peer")
        .attr("push_priority", "high_force")
        .child(Node::new("meta").attr("appdata", "default"))
        .child(enc);
    devices.world.send(&mut devices.alice_client, &node);
}

fn placeholders(keys: &[protocol::MessageKey]) -> e2e::ProtocolMessage {
    let key = |key: &protocol::MessageKey| PlaceholderMessageResendRequest { message_key: Some(Box::new(key.clone())) };
    let request = e2e::PeerDataOperationRequestMessage {
        peer_data_operation_request_type: Some(e2e::PeerDataOperationRequestType::PlaceholderMessageResend.into()),
        placeholder_message_resend_request: keys.iter().map(key).collect(),
        ..e2e::PeerDataOperationRequestMessage::default()
    };
    e2e::ProtocolMessage {
        r#type: Some(Type::PeerDataOperationRequestMessage.into()),
        peer_data_operation_request_message: Some(Box::new(request)),
        ..e2e::ProtocolMessage::default()
    }
}

#[test]
fn a_phone_hands_out_what_a_companion_could_not_read() {
    let mut devices = Devices::new();
    let (alice, bob) = (devices.alice.lid().to_bare(), devices.bob.lid());
    devices.bob_writes("B1", &alice, "for the phone alone");
    let sent = devices.world.server.send_text(devices.world.now, ALICE, &bob.to_bare(), "by the phone").unwrap();
    devices.world.drain();
    devices.world.rest(&mut devices.alice_client);
    let key = |id: &str, from_me: bool, chat: &Jid| protocol::MessageKey {
        remote_jid: Some(chat.to_string()),
        from_me: Some(from_me),
        id: Some(id.to_owned()),
        participant: None,
    };
    // Asked by the other name of the chat it is the same message; a stranger's is none.
    let bob_pn = devices.bob.jid().to_bare();
    let keys = [
        key("B1", false, &bob_pn),
        key(&sent, true, &bob.to_bare()),
        key("B1", false, &alice),
        key("none", false, &bob_pn),
    ];
    ask_phone(&mut devices, "P1", placeholders(&keys));
    let answer = devices.world.pick(&mut devices.alice_client, |node| node.is("message"));
    assert_eq!((answer.attr_str("category").as_deref(), answer.attr_jid("from")), (Some("peer"), Some(alice)));
    let message = devices.alice.decrypt(&answer).unwrap().protocol_message.unwrap();
    assert_eq!(message.r#type(), Type::PeerDataOperationRequestResponseMessage);
    let response = message.peer_data_operation_request_response_message.unwrap();
    assert_eq!(response.stanza_id.as_deref(), Some("P1"));
    assert_eq!(
        response.peer_data_operation_request_type(),
        e2e::PeerDataOperationRequestType::PlaceholderMessageResend
    );
    let infos: Vec<_> = response
        .peer_data_operation_result
        .into_iter()
        .map(|result| {
            let bytes = result.placeholder_message_resend_response.unwrap().web_message_info_bytes.unwrap();
            web::WebMessageInfo::decode(bytes).unwrap()
        })
        .collect();
    let texts: Vec<_> = infos.iter().map(|info| info.message.as_ref().unwrap().conversation.clone().unwrap()).collect();
    assert_eq!(texts, ["for the phone alone", "by the phone"]);
    assert_eq!(infos[0].key.as_deref(), Some(&keys[0]));
    assert_eq!(infos[0].message_timestamp, Some(devices.world.now.unix_seconds()));
    devices.world.send(&mut devices.alice_client, &receipt(&answer, Some("peer_msg")));
    devices
        .world
        .pick(&mut devices.alice_client, |node| node.is("ack") && node.attr_str("class").as_deref() == Some("receipt"));

    // The keys of app state are to be had the same way, and for own companions only.
    let request = e2e::ProtocolMessage {
        r#type: Some(Type::AppStateSyncKeyRequest.into()),
        app_state_sync_key_request: Some(Box::default()),
        ..e2e::ProtocolMessage::default()
    };
    ask_phone(&mut devices, "P2", request.clone());
    let share = devices.world.pick(&mut devices.alice_client, |node| node.is("message"));
    let keys = devices.alice.decrypt(&share).unwrap().protocol_message.unwrap().app_state_sync_key_share.unwrap();
    assert_eq!(keys.keys.len(), 1);
    devices.world.rest(&mut devices.bob_client);
    let phone = devices.alice.lid().to_bare();
    let message = e2e::Message { protocol_message: Some(Box::new(request)), ..e2e::Message::default() };
    let enc = devices.bob.encrypt_message(&phone, &message);
    devices
        .world
        .send(&mut devices.bob_client, &common::fan_out("X1", &phone, vec![(phone.clone(), enc)], &devices.bob));
    assert!(devices.world.rest(&mut devices.bob_client).iter().all(|node| !node.is("message")));
}

#[test]
fn all_devices_of_a_number_get_what_is_for_them() {
    let mut devices = Devices::new();
    let targets = [devices.alice.lid(), devices.other.lid(), devices.alice.lid().to_bare()];
    let mut copies = Vec::new();
    for to in &targets {
        devices.world.open_session(&mut devices.bob_client, &mut devices.bob, to);
        copies.push((to.clone(), devices.bob.encrypt(to, &format!("for {to}"))));
    }
    let message = common::fan_out("F1", &targets[2], copies, &devices.bob);
    devices.world.send(&mut devices.bob_client, &message);
    for (device, client) in
        [(&mut devices.alice, &mut devices.alice_client), (&mut devices.other, &mut devices.other_client)]
    {
        let incoming = devices.world.expect(client, "message");
        assert_eq!(device.decrypt(&incoming).unwrap().conversation, Some(format!("for {}", device.lid())));
        let identity = incoming.find_child("device-identity").unwrap().content_bytes().unwrap();
        assert_eq!(identity, devices.bob.device_identity);
    }
    assert_eq!(devices.world.server.received(ALICE)[0].text, Some(format!("for {}", targets[2])));
}

#[test]
fn a_phone_sends_again_only_to_whom_it_wrote() {
    let mut devices = Devices::new();
    let bob = devices.bob.lid().to_bare();
    let id = devices.world.server.send_text(devices.world.now, ALICE, &bob, "for Bob").unwrap();
    devices.world.drain();
    let message = devices.world.pick(&mut devices.bob_client, |node| node.is("message"));
    let retry = Node::new("retry").attr("v", "1").attr("id", &id).attr("count", "1").attr("t", "1");
    let asked = receipt(&message, Some("retry")).child(retry).child(leaf("registration", &[0, 0, 0, 1]));
    let mut mallory = Device::new(9);
    let mut client = devices.world.ready(&mut mallory, "15550000009");
    devices.world.send(&mut client, &asked);
    devices.world.expect(&mut client, "ack");
    devices.world.expect_silence(&mut client);
    devices.world.send(&mut devices.bob_client, &asked);
    let again = devices.world.pick(&mut devices.bob_client, |node| node.is("message"));
    assert_eq!(devices.bob.decrypt(&again).unwrap().conversation.as_deref(), Some("for Bob"));
}
