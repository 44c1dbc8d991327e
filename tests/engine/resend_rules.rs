//! A device that asks for a message again gets it, by the rules of spec 03 §5.7: which session, how often, and who.

use crate::people::{Person, Stage};
use crate::world::World;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use wamd::{
    Jid,
    crypto::{KeyPair, PrivateKey, xeddsa},
    engine::Command,
    message::MessageId,
    node::Node,
    store::RecordKind,
};
use wamd_loopback::Fault;

/// Alice has sent to bob, whose own device is down and whose phone says nothing by itself. Requests of bob's device are
/// made by hand.
fn world() -> (World, MessageId) {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    let id = world.send("alice", "bob", "hello");
    let phone = world.jid("bob");
    world.fault(Fault::MutePhone { jid: phone, on: true });
    world.crash("bob");
    world.heard("alice");
    world.forget();
    (world, id)
}

fn bob(world: &World) -> Jid {
    world.lid("bob").with_device(device_of(world, "bob"))
}

/// The companion of an account, which may be down.
fn device_of(world: &World, name: &str) -> u16 {
    let number = if name == "bob" { "15550000002" } else { "15550000001" };
    let account = world.server.accounts().into_iter().find(|account| account.number == number).expect("known");
    account.devices.iter().map(|device| device.device).find(|device| *device != 0).expect("a companion")
}

/// What bob's device keeps about itself: identity key and registration id.
fn own_keys(world: &mut World) -> (KeyPair, u32) {
    let (_, record) = world.actor("bob").records(RecordKind::Account).remove(0);
    // A version byte, then field 1 with 32 bytes; field 3 follows field 2.
    let identity: [u8; 32] = record[3..35].try_into().unwrap();
    let mut rest = &record[1 + 2 * 34..];
    assert_eq!(rest[0], 3 << 3, "the registration id");
    rest = &rest[1..];
    let (low, high) = (u32::from(rest[0]), u32::from(rest[1]));
    let id = if low < 0x80 { low } else { low & 0x7F | high << 7 };
    (KeyPair::from_private(PrivateKey::from_bytes(identity)), id)
}

/// Bob's device asks for messages.
struct Request<'a> {
    from: Jid,
    ids: Vec<&'a str>,
    count: u32,
    registration: u32,
    keys: Option<Node>,
}

impl Request<'_> {
    fn node(&self) -> Node {
        let (first, rest) = self.ids.split_first().expect("an id");
        let items = rest.iter().map(|id| Node::new("item").attr("id", *id));
        let list = (!rest.is_empty()).then(|| Node::new("list").children(items));
        Node::new("receipt")
            .attr("from", &self.from)
            .attr("id", *first)
            .attr("type", "retry")
            .child(Node::new("retry").attr("id", *first).attr("count", self.count).attr("v", 1))
            .child(Node::new("registration").bytes(self.registration.to_be_bytes().to_vec()))
            .children(self.keys.clone())
            .children(list)
    }
}

/// What alice answered: her messages, how often she asked for keys, how often she acknowledged the receipt.
#[derive(Debug)]
struct Answer {
    messages: Vec<Node>,
    fetches: usize,
    acks: usize,
}

fn ask(world: &mut World, request: &Request<'_>) -> Answer {
    world.heard("alice");
    world.stanza_arrives("alice", &request.node());
    let heard = world.heard("alice");
    let fetches = heard.iter().filter(|node| node.is("iq") && node.attr_str("xmlns").as_deref() == Some("encrypt"));
    let acks = heard.iter().filter(|node| node.is("ack") && node.attr_str("type").as_deref() == Some("retry"));
    let (fetches, acks) = (fetches.count(), acks.count());
    Answer { messages: heard.into_iter().filter(|node| node.is("message")).collect(), fetches, acks }
}

fn enc(message: &Node) -> (String, String) {
    let enc = message.child_node("enc").expect("one ciphertext");
    let text = |name: &str| enc.attr_str(name).map(|text| text.into_owned()).unwrap_or_default();
    (text("type"), text("count"))
}

trait Children {
    fn child_node(&self, tag: &str) -> Option<&Node>;
}

impl Children for Node {
    fn child_node(&self, tag: &str) -> Option<&Node> {
        match &self.content {
            wamd::node::NodeContent::Nodes(nodes) => nodes.iter().find(|node| node.is(tag)),
            _ => None,
        }
    }
}

#[test]
fn the_first_request_is_answered_in_the_session_that_there_is() {
    let (mut world, id) = world();
    let (_, registration) = own_keys(&mut world);
    let request = Request { from: bob(&world), ids: vec![id.as_str()], count: 1, registration, keys: None };
    let answer = ask(&mut world, &request);
    assert_eq!((answer.messages.len(), answer.fetches, answer.acks), (1, 0, 1), "{answer:?}");
    let message = &answer.messages[0];
    assert_eq!(message.attr_jid("to"), Some(bob(&world)));
    assert_eq!(message.attr_str("device_fanout").as_deref(), Some("false"));
    assert!(message.attr_str("t").is_some() && message.attr_str("addressing_mode").is_none());
    assert_eq!(enc(message), ("msg".to_owned(), "1".to_owned()));
}

#[test]
fn a_second_request_renews_the_session_once_an_hour() {
    let (mut world, id) = world();
    let (_, registration) = own_keys(&mut world);
    let other = world.send("alice", "bob", "more");
    let from = bob(&world);
    let request = |id: &MessageId, count| {
        let ids = vec![Box::leak(id.as_str().to_owned().into_boxed_str()) as &str];
        Request { from: from.clone(), ids, count, registration, keys: None }
    };
    let answer = ask(&mut world, &request(&id, 2));
    assert_eq!((answer.messages.len(), answer.fetches, answer.acks), (1, 1, 1), "{answer:?}");
    assert_eq!(enc(&answer.messages[0]), ("pkmsg".to_owned(), "2".to_owned()));
    assert!(answer.messages[0].child_node("device-identity").is_some());
    // Not again for every message.
    let answer = ask(&mut world, &request(&other, 2));
    assert_eq!((answer.messages.len(), answer.fetches), (1, 0), "{answer:?}");
    // It is still of no use: the session that was there at the second request is dropped.
    let answer = ask(&mut world, &request(&other, 3));
    assert_eq!((answer.messages.len(), answer.fetches), (1, 1), "{answer:?}");
    // The first message was asked for under another session.
    let answer = ask(&mut world, &request(&id, 3));
    assert_eq!((answer.messages.len(), answer.fetches), (1, 0), "{answer:?}");
    world.advance_secs(3_601);
    let answer = ask(&mut world, &request(&id, 4));
    assert_eq!((answer.messages.len(), answer.fetches), (1, 1), "{answer:?}");
    // What is remembered outlives the process.
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    let answer = ask(&mut world, &request(&other, 2));
    assert_eq!((answer.messages.len(), answer.fetches), (1, 0), "{answer:?}");
}

#[test]
fn another_registration_id_ends_the_session() {
    let (mut world, id) = world();
    let (_, registration) = own_keys(&mut world);
    let identity = world.actor("alice").records(RecordKind::Identity);
    let request =
        Request { from: bob(&world), ids: vec![id.as_str()], count: 1, registration: registration ^ 1, keys: None };
    let answer = ask(&mut world, &request);
    assert_eq!((answer.messages.len(), answer.fetches, answer.acks), (1, 1, 1), "{answer:?}");
    assert_eq!(enc(&answer.messages[0]).0, "pkmsg");
    assert_eq!(world.actor("alice").records(RecordKind::Identity), identity, "who it is stays known");
    assert_eq!(world.data("alice", "identity.changed").len(), 0);
}

/// Some devices draw the registration id 0. What they cannot read must reach them all the same.
#[test]
fn a_device_whose_registration_id_is_0_is_answered_with_keys_of_the_server() {
    const NUMBER: &str = "16660000001";
    let mut stage = Stage::new(vec![Person { registration_id: 0, ..Person::new(NUMBER, [0, 3]) }]);
    // The server must have the number, else it refuses the message.
    let now = stage.world.now();
    stage.world.server.phone(now, NUMBER).expect("a number");
    stage.world.fault(Fault::MutePhone { jid: Jid::pn(NUMBER), on: true });
    stage.send(&Jid::pn(NUMBER), "hello");
    let sent = std::mem::take(&mut stage.sent);
    let id = sent[0].attr_str("id").expect("an id").into_owned();
    stage.fetched.clear();
    let from = Jid::pn(NUMBER).with_device(3);
    let mut again = |count, keys: Option<Node>| {
        let request = Request { from: from.clone(), ids: vec![&id], count, registration: 0, keys };
        stage.arrives(&request.node());
        let encs: Vec<_> = std::mem::take(&mut stage.sent).iter().map(enc).collect();
        (encs, std::mem::take(&mut stage.fetched))
    };
    let answer = |count: &str| vec![("pkmsg".to_owned(), count.to_owned())];
    assert_eq!(again(1, None), (answer("1"), vec![]), "in the session that there is");
    // Whether its own keys are good does not matter: they are not used.
    let keys = Node::new("keys").child(Node::new("type").bytes(vec![5]));
    assert_eq!(again(2, Some(keys)), (answer("2"), vec![vec![from.clone()]]), "with keys of the server");
}

#[test]
fn limits_of_count_and_repetition() {
    let (mut world, id) = world();
    let (_, registration) = own_keys(&mut world);
    let from = bob(&world);
    let request =
        |count, registration| Request { from: from.clone(), ids: vec![id.as_str()], count, registration, keys: None };
    for refused in [request(5, registration), request(u32::MAX, registration), request(1, 0)] {
        let answer = ask(&mut world, &refused);
        assert_eq!((answer.messages.len(), answer.fetches, answer.acks), (0, 0, 1), "{answer:?}");
    }
    let answered: usize = (0..15).map(|_| ask(&mut world, &request(1, registration)).messages.len()).sum();
    assert_eq!(answered, 10);
    let unknown = Request { ids: vec!["3EB0NEVERSENT"], ..request(1, registration) };
    assert_eq!(ask(&mut world, &unknown).messages.len(), 0);
}

#[test]
fn a_storm_is_answered_in_part_and_acknowledged_in_full() {
    let (mut world, _) = world();
    let (_, registration) = own_keys(&mut world);
    let ids: Vec<MessageId> = (0..70).map(|n| world.send("alice", "bob", &n.to_string())).collect();
    let from = bob(&world);
    let (mut messages, mut acks) = (0, 0);
    for _ in 0..10 {
        for id in &ids {
            let request = Request { from: from.clone(), ids: vec![id.as_str()], count: 1, registration, keys: None };
            let answer = ask(&mut world, &request);
            messages += answer.messages.len();
            acks += answer.acks;
        }
    }
    assert_eq!((messages, acks), (600, 700));
    world.advance_secs(61);
    let last = ids.last().unwrap().as_str();
    let request = Request { from, ids: vec![last], count: 1, registration, keys: None };
    assert_eq!(ask(&mut world, &request).messages.len(), 1);
}

#[test]
fn several_messages_of_one_receipt() {
    let (mut world, id) = world();
    let (_, registration) = own_keys(&mut world);
    let ids: Vec<MessageId> = (0..3).map(|n| world.send("alice", "bob", &n.to_string())).collect();
    let mut wanted: Vec<&str> = ids.iter().map(MessageId::as_str).collect();
    // One that was never sent, and one twice.
    wanted.extend([id.as_str(), "3EB0NEVERSENT", id.as_str()]);
    for count in [1, 2] {
        let request = Request { from: bob(&world), ids: wanted.clone(), count, registration, keys: None };
        let answer = ask(&mut world, &request);
        let mut sent: Vec<_> = answer.messages.iter().map(|node| node.attr_str("id").unwrap().into_owned()).collect();
        sent.sort();
        let mut expected: Vec<_> = wanted[..4].iter().map(|id| (*id).to_owned()).collect();
        expected.sort();
        assert_eq!(sent, expected);
        assert_eq!((answer.fetches, answer.acks), (count as usize - 1, 1), "one question for all");
    }
}

/// Keys of a device as a retry receipt brings them.
fn keys(identity: &KeyPair, device_identity: Option<Vec<u8>>) -> Node {
    let signed = KeyPair::from_private(PrivateKey::from_bytes([9; 32]));
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let signature = xeddsa::sign(identity.private(), &[&signed.public().to_typed()], &mut rng);
    let signed_key = Node::new("skey")
        .child(Node::new("id").bytes(vec![0, 0, 1]))
        .child(Node::new("value").bytes(signed.public().as_bytes().to_vec()))
        .child(Node::new("signature").bytes(signature.to_vec()));
    Node::new("keys")
        .child(Node::new("type").bytes(vec![5]))
        .child(Node::new("identity").bytes(identity.public().as_bytes().to_vec()))
        .child(signed_key)
        .children(device_identity.map(|identity| Node::new("device-identity").bytes(identity)))
}

#[test]
fn keys_in_the_receipt_make_a_session_when_they_hold() {
    let (mut world, id) = world();
    let (identity, registration) = own_keys(&mut world);
    let from = bob(&world);
    let request = |registration, keys| Request {
        from: from.clone(),
        ids: vec![id.as_str()],
        count: 2,
        registration,
        keys: Some(keys),
    };
    let answer = ask(&mut world, &request(registration, keys(&identity, None)));
    assert_eq!((answer.messages.len(), answer.fetches, answer.acks), (1, 0, 1), "{answer:?}");
    assert_eq!(enc(&answer.messages[0]).0, "pkmsg");
    // The same identity under another registration id, and nobody who vouches for it.
    let sessions = world.actor("alice").records(RecordKind::Session);
    let forged = keys(&identity, None);
    let answer = ask(&mut world, &request(registration ^ 1, forged));
    assert_eq!((answer.messages.len(), answer.fetches, answer.acks), (0, 0, 1), "{answer:?}");
    // A device identity of somebody else is none, and keys whose signature does not hold are none.
    let answer = ask(&mut world, &request(registration ^ 1, keys(&identity, Some(vec![1, 2, 3]))));
    assert_eq!((answer.messages.len(), answer.acks), (0, 1), "{answer:?}");
    let other = KeyPair::from_private(PrivateKey::from_bytes([7; 32]));
    let mut mixed = keys(&other, None);
    if let wamd::node::NodeContent::Nodes(nodes) = &mut mixed.content {
        nodes[1] = Node::new("identity").bytes(identity.public().as_bytes().to_vec());
    }
    let answer = ask(&mut world, &request(registration, mixed));
    assert_eq!((answer.messages.len(), answer.acks), (0, 1), "{answer:?}");
    assert_eq!(world.actor("alice").records(RecordKind::Session), sessions, "nothing was made of them");
}

#[test]
fn another_own_device_gets_its_copy() {
    let (mut world, id) = world();
    let phone = world.lid("alice");
    let before = world.server.received("15550000001").len();
    let request = Request { from: phone.clone(), ids: vec![id.as_str()], count: 1, registration: 1, keys: None };
    let to_bob = request.node().attr("recipient", world.lid("bob"));
    world.heard("alice");
    world.stanza_arrives("alice", &to_bob);
    let heard = world.heard("alice");
    let message = heard.iter().find(|node| node.is("message")).expect("a message");
    assert_eq!((message.attr_jid("to"), message.attr_jid("recipient")), (Some(phone), Some(world.lid("bob"))));
    // The phone can read it, or would ask again; it has the message already, and takes the copy as the same.
    assert_eq!(heard.iter().filter(|node| node.is("message")).count(), 1);
    assert_eq!(world.server.received("15550000001").len(), before);
    // This very device asks for nothing.
    let own = world.lid("alice").with_device(device_of(&world, "alice"));
    let request = Request { from: own, ids: vec![id.as_str()], count: 1, registration: 1, keys: None };
    assert_eq!(ask(&mut world, &request).messages.len(), 0);
}

#[test]
fn what_was_sent_is_there_after_a_restart_and_found_under_either_identity() {
    let (mut world, id) = world();
    let (_, registration) = own_keys(&mut world);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    let device = device_of(&world, "bob");
    for from in [world.lid("bob").with_device(device), Jid::pn("15550000002").with_device(device)] {
        let request = Request { from: from.clone(), ids: vec![id.as_str()], count: 1, registration, keys: None };
        let answer = ask(&mut world, &request);
        assert_eq!((answer.messages.len(), answer.acks), (1, 1), "{answer:?}");
        assert_eq!(answer.messages[0].attr_jid("to"), Some(from), "as it asked");
    }
}

/// A resend carries the message as it was, and none of what belongs to the first time.
#[test]
fn what_belongs_to_the_first_time_does_not_come_again() {
    let (mut world, _) = world();
    let (lid, now) = (world.lid("bob"), world.now().unix_seconds());
    let token = Node::new("token").attr("type", "trusted_contact").attr("t", now).bytes(vec![7; 16]);
    let notice = Node::new("notification").attr("type", "privacy_token").attr("id", "T").attr("from", &lid);
    world.stanza_arrives("alice", &notice.child(Node::new("tokens").child(token)));
    world.heard("alice");
    let id = world.send("alice", "bob", "with all of it");
    let first = world.heard("alice").into_iter().find(|node| node.is("message")).unwrap();
    assert!(first.find_child("tctoken").is_some() && first.find_child("reporting").is_some());
    let (_, registration) = own_keys(&mut world);
    let request = Request { from: bob(&world), ids: vec![id.as_str()], count: 1, registration, keys: None };
    let answer = ask(&mut world, &request);
    let [again] = &answer.messages[..] else { panic!("{answer:?}") };
    for child in ["tctoken", "cstoken", "reporting", "participants"] {
        assert!(again.child_node(child).is_none(), "{child}");
    }
    assert!(again.attr_str("phash").is_none() && again.attr_str("peer_recipient_pn").is_none());
}

/// A companion that Meta hosts asks under its hosted name, and is answered there; one that nobody has heard of makes the list be
/// asked for.
#[test]
fn hosted_and_unknown_companions_ask() {
    let number = "16660000001";
    let mut stage = Stage::new(vec![Person { hosted: vec![99], ..Person::new(number, [0, 99]) }]);
    let (zoe, alice, now) = (Jid::pn(number), stage.world.device("alice"), stage.world.now());
    // The server of the loopback knows other devices of her, and must not say so.
    stage.world.server.phone(now, number).unwrap();
    stage.world.fault(Fault::MutePhone { jid: zoe.clone(), on: true });
    stage.world.fault(Fault::DropAck { jid: alice, count: 1 });
    let id = stage.world.send_to("alice", &zoe, "hello");
    stage.serve();
    stage.recipients();
    let asks = |stage: &mut Stage, from: Jid| {
        let request = Request { from, ids: vec![id.as_str()], count: 1, registration: 77, keys: None };
        stage.world.heard("alice");
        stage.world.stanza_arrives("alice", &request.node());
        let heard = stage.world.heard("alice");
        let acks = heard.iter().filter(|node| node.is("ack")).count();
        (heard.into_iter().filter(|node| node.is("message")).collect::<Vec<_>>(), acks)
    };
    let hosted: Jid = format!("{number}:99@hosted").parse().unwrap();
    let (messages, acks) = asks(&mut stage, hosted.clone());
    assert_eq!((messages.len(), acks), (1, 1));
    assert_eq!(messages[0].attr_jid("to"), Some(hosted));
    let (messages, acks) = asks(&mut stage, zoe.with_device(7));
    assert_eq!((messages.len(), acks), (0, 1), "who is that?");
    stage.users_asked();
    stage.send(&zoe, "more");
    assert_eq!(stage.users_asked().len(), 1);
    assert_eq!(stage.recipients()[0].len(), 2);
}
