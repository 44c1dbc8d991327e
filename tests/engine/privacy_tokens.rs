//! A stanza to a user carries what shows that we may write to it, and whom we write to gets a token of ours (spec 03 §4.7).

use crate::world::{self, Disk, World, named};
use bytes::Bytes;
use wamd::{
    Jid,
    engine::{Command, CommandError, Input, Reply},
    message::privacy_token::cstoken,
    node::Node,
    store::RecordKind,
};
use wamd_loopback::Fault;

/// Seconds of a bucket.
const WEEK: u64 = 604_800;

/// Alice has written to bob, who has not answered: she has no token of his.
fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.send("alice", "bob", "hello");
    world.forget();
    world
}

fn tokens(from: &Jid, tokens: &[(&[u8], u64)]) -> Node {
    let token = |(bytes, t): &(&[u8], u64)| {
        Node::new("token").attr("type", "trusted_contact").attr("t", *t).bytes(bytes.to_vec())
    };
    let notification = Node::new("notification").attr("type", "privacy_token").attr("id", "n1").attr("from", from);
    notification.child(Node::new("tokens").children(tokens.iter().map(token)))
}

/// What the next message of alice to bob carries.
fn carried(world: &mut World) -> (Option<Bytes>, Option<Bytes>) {
    world.heard("alice");
    world.send("alice", "bob", "hello");
    let heard = world.heard("alice");
    let message = heard.iter().find(|node| node.is("message")).expect("it was sent");
    let child = |name: &str| message.find_child(name).and_then(Node::content_bytes);
    (child("tctoken"), child("cstoken"))
}

/// The tokens that alice has issued since the last call: to whom, and when.
fn issued(world: &mut World) -> Vec<(String, u64)> {
    let heard = world.heard("alice");
    let tokens = heard.iter().filter(|node| node.attr_str("xmlns").as_deref() == Some("privacy"));
    let tokens = tokens.filter_map(|iq| iq.find_child("tokens")?.find_child("token"));
    let issued = |token: &Node| {
        assert_eq!(token.attr_str("type").as_deref(), Some("trusted_contact"));
        (token.attr_str("jid").expect("a peer").into_owned(), token.attr_u64("t").expect("a time"))
    };
    tokens.map(issued).collect()
}

#[test]
fn a_token_is_attached_while_it_is_valid() {
    let mut world = known();
    assert_eq!(carried(&mut world), (None, None));
    let (bob, now) = (world.lid("bob"), world.now().unix_seconds());
    world.stanza_arrives("alice", &tokens(&bob, &[(b"first", now)]));
    let acks =
        world.heard("alice").into_iter().filter(|node| node.attr_str("class").as_deref() == Some("notification"));
    assert_eq!(acks.count(), 1);
    let of = |token: &'static [u8]| (Some(Bytes::from_static(token)), None);
    assert_eq!(carried(&mut world), of(b"first"));
    // The newest counts, under whatever name it came, and nothing from the future.
    let phone = world.jid("bob");
    world.stanza_arrives("alice", &tokens(&phone, &[(b"newer", now + 5), (b"older", now - 5)]));
    world.stanza_arrives("alice", &tokens(&bob, &[(b"forged", now + 2 * 86_400), (b"", now + 6)]));
    assert_eq!(carried(&mut world), of(b"newer"));
    // It is kept.
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(carried(&mut world), of(b"newer"));
    // Not to somebody else, and not for ever.
    world.forget();
    world.send_to("alice", &Jid::pn("15550000007"), "who are you?");
    world.sleep(3 * WEEK);
    assert_eq!(carried(&mut world), of(b"newer"));
    world.sleep(WEEK);
    assert_eq!(carried(&mut world), (None, None));
}

#[test]
fn without_one_it_is_the_salted_one() {
    let mut world = known();
    let salt = Bytes::from_static(&[7; 32]);
    world.command("alice", Command::SetNctSalt(salt.clone())).unwrap();
    let bob = world.lid("bob");
    let expected = Bytes::copy_from_slice(&cstoken(&salt, &bob));
    assert_eq!(carried(&mut world), (None, Some(expected.clone())));
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(carried(&mut world), (None, Some(expected)));
    let now = world.now().unix_seconds();
    world.stanza_arrives("alice", &tokens(&bob, &[(b"better", now)]));
    assert_eq!(carried(&mut world), (Some(Bytes::from_static(b"better")), None), "never both");
    world.command("alice", Command::SetNctSalt(Bytes::new())).unwrap();
    world.sleep(5 * WEEK);
    assert_eq!(carried(&mut world), (None, None));
    assert!(!format!("{:?}", Command::SetNctSalt(salt)).contains('7'));
}

#[test]
fn nothing_to_ourselves() {
    let mut world = known();
    world.command("alice", Command::SetNctSalt(Bytes::from_static(&[7; 32]))).unwrap();
    world.heard("alice");
    let own = world.jid("alice");
    world.send_to("alice", &own, "a note");
    let heard = world.heard("alice");
    let message = heard.iter().find(|node| node.is("message")).expect("it was sent");
    assert!(message.find_child("cstoken").is_none() && message.find_child("tctoken").is_none());
    assert!(heard.iter().all(|node| node.attr_str("xmlns").as_deref() != Some("privacy")));
    // A token that names ourselves is nobody's.
    let now = world.now().unix_seconds();
    let before = world.actor("alice").records(RecordKind::PrivacyToken);
    world.stanza_arrives("alice", &tokens(&own, &[(b"mine", now)]));
    assert_eq!(world.actor("alice").records(RecordKind::PrivacyToken), before);
}

#[test]
fn our_own_is_issued_once_in_a_bucket() {
    let mut world = World::online(&["alice", "bob"]);
    world.heard("alice");
    world.send("alice", "bob", "hello");
    let bob = world.lid("bob").to_string();
    let first = world.now().unix_seconds();
    assert_eq!(issued(&mut world), [(bob.clone(), first)]);
    for _ in 0..3 {
        world.send("alice", "bob", "hello");
    }
    assert_eq!(issued(&mut world), []);
    world.sleep(WEEK);
    world.send("alice", "bob", "hello");
    assert_eq!(issued(&mut world).len(), 1);
}

#[test]
fn a_new_identity_gets_the_same_again() {
    let mut world = World::online(&["alice", "bob"]);
    world.send("alice", "bob", "hello");
    let [(_, at)] = issued(&mut world)[..] else { panic!("one token") };
    world.advance_secs(60);
    let bob = world.lid("bob");
    let changed = Node::new("notification").attr("type", "encrypt").attr("id", "n2").attr("from", &bob);
    world.stanza_arrives("alice", &changed.child(Node::new("identity")));
    assert_eq!(issued(&mut world), [(bob.to_string(), at)], "of its own time");
}

#[test]
fn a_token_is_nobody_s_reason_to_wait() {
    let mut world = World::online(&["alice", "bob"]);
    world.forget();
    // While the store hangs, nothing that rests on it leaves; then the message and the token do.
    world.disk("alice", Disk::Stuck);
    let bob = world.jid("bob");
    let request = wamd::engine::SendRequest::text(bob, "hello");
    let id = world.begin("alice", Command::Send(request));
    world.settle();
    assert_eq!(world.answer("alice", id), None);
    assert_eq!(issued(&mut world), []);
    world.disk("alice", Disk::Works);
    assert!(matches!(world.answer("alice", id), Some(Ok(Reply::Accepted { .. }))));
    assert_eq!(issued(&mut world).len(), 1);
    world.say("alice", Input::Tick);
    world.talk("alice", "bob");
    let mut unlinked = World::new(&["carol"]);
    let refused = unlinked.command("carol", Command::SetNctSalt(Bytes::from_static(b"salt")));
    assert_eq!(refused, Err(CommandError::NotLinked));
}

/// The whole way round: the server lets nobody write to bob who does not show that bob knows them.
#[test]
fn it_opens_the_door() {
    let mut world = World::online(&["alice", "bob"]);
    let bob = world.jid("bob");
    world.fault(Fault::DemandToken { jid: bob, on: true });
    let refused = world.send("alice", "bob", "who is there?");
    let told = world.only("alice", "message.failed");
    assert_eq!(told["messages"][0]["key"]["id"], refused.as_str());
    assert_eq!(told["messages"][0]["error"]["code"], 463);
    assert_eq!(world.snapshot("alice").restrictions.len(), 1);
    // By the salt of her own account she shows it herself. The restriction is over by then.
    world.advance_secs(3_600);
    let salt = world.server.nct_salt("15550000001").unwrap();
    world.command("alice", Command::SetNctSalt(Bytes::copy_from_slice(&salt))).unwrap();
    world.forget();
    world.send("alice", "bob", "it is me");
    assert_eq!(world::text_of(named(&world.events("bob"), "message.received")[0]), Some("it is me"));

    // Whom bob writes to gets his token, and needs nothing else.
    let mut world = World::online(&["alice", "bob", "carol"]);
    for name in ["alice", "bob"] {
        let jid = world.jid(name);
        world.fault(Fault::DemandToken { jid, on: true });
    }
    world.send("alice", "carol", "hello");
    let issued = issued(&mut world);
    assert_eq!(issued.len(), 1, "alice gives carol a token");
    world.forget();
    world.send("carol", "alice", "hello, alice");
    let heard = world.heard("carol");
    let message = heard.iter().find(|node| node.is("message")).expect("it was sent");
    assert!(message.find_child("tctoken").is_some());
    assert_eq!(named(&world.events("alice"), "message.received").len(), 1);
}
