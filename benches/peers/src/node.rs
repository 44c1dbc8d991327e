//! The node codec, and the same work in `wacore-binary`.
//!
//! Both sides read the same frames. A case that reads asks for every tag, key, value and content, so that nobody gains by
//! being lazy; that both sides find the same is checked before. A case that encodes must write the same bytes.

use std::hint::black_box;

use bytes::Bytes;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::jid as peer_jid;
use wacore_binary::marshal as peer;
use wacore_binary::node as peer_node;
use wamd::node::{Content, Decoder, Node, NodeRef, Value};

use crate::measure::{Case, run};

#[path = "../../samples/node.rs"]
mod samples;

pub fn run_all() {
    let (ack, message, usync, group) = (samples::ack(), samples::message(), samples::usync(), samples::group());
    let samples = [
        ("ack", ack.node(), peer_ack(&ack)),
        ("message", message.node(), peer_message(&message)),
        ("usync", usync.node(), peer_usync(&usync)),
        ("group", group.node(), peer_group(&group)),
    ];
    let written: [&dyn Fn(&mut Vec<u8>); 4] =
        [&|out| ack.write(out), &|out| message.write(out), &|out| usync.write(out), &|out| group.write(out)];
    let frames: Vec<Bytes> = samples.iter().map(|(_, node, _)| node.encode().expect("a good node").into()).collect();
    for (((name, _, theirs), frame), write) in samples.iter().zip(&frames).zip(written) {
        assert!(peer::marshal(theirs).expect("a good node") == *frame, "{name}: the sides write different frames");
        let mut out = Vec::new();
        write(&mut out);
        assert!(out == *frame, "{name}: our writer and our tree write different frames");
        eprintln!("{name}: {} bytes, the same from both sides", frame.len());
    }

    let mut cases = vec![];
    for ((name, _, _), frame) in samples.iter().zip(&frames) {
        decode(&mut cases, name, frame);
    }
    for (name, ours, theirs) in &samples {
        encode(&mut cases, name, ours, theirs);
    }
    build(&mut cases, "ack", |out| ack.write(out), || peer_ack(&ack));
    build(&mut cases, "message", |out| message.write(out), || peer_message(&message));
    build(&mut cases, "usync", |out| usync.write(out), || peer_usync(&usync));
    build(&mut cases, "group", |out| group.write(out), || peer_group(&group));
    run("Node codec: wamd and wacore-binary 0.7.0", cases);
}

fn decode<'a>(cases: &mut Vec<Case<'a>>, name: &str, frame: &'a Bytes) {
    let (mut ours, mut theirs) = (Pieces::default(), Pieces::default());
    ours.ours(Decoder::default().decode(frame.clone()).expect("a good frame"));
    theirs.theirs(&peer::unmarshal_ref(&frame[1..]).expect("a good frame"));
    assert!(ours == theirs, "{name}: the sides read different things");

    let read_theirs = |frame: &Bytes| {
        let mut sum = Length::default();
        sum.theirs(&peer::unmarshal_ref(&frame[1..]).expect("a good frame"));
        sum.0
    };
    let mut reused = Decoder::default();
    let read = move || {
        let mut sum = Length::default();
        sum.ours(reused.decode(frame.clone()).expect("a good frame"));
        sum.0
    };
    let read_theirs_too = move || read_theirs(frame);
    let case = Case::new(format!("{name}: decode, read all"), read).theirs("unmarshal_ref", read_theirs_too).agree();
    cases.push(case);

    let read_fresh = move || {
        let mut sum = Length::default();
        sum.ours(Decoder::default().decode(frame.clone()).expect("a good frame"));
        sum.0
    };
    let case = Case::new(format!("{name}: decode fresh, read all"), read_fresh);
    cases.push(case.theirs("unmarshal_ref", move || read_theirs(frame)).agree());

    let mut reused = Decoder::default();
    let only = move || reused.decode(frame.clone()).expect("a good frame").tag().len() as u64;
    let only_theirs = move || black_box(peer::unmarshal_ref(&frame[1..]).expect("a good frame")).tag.len() as u64;
    cases.push(Case::new(format!("{name}: decode only"), only).theirs("unmarshal_ref", only_theirs).agree());
}

fn encode<'a>(cases: &mut Vec<Case<'a>>, name: &str, node: &'a Node, theirs: &'a peer_node::Node) {
    let mut out = Vec::new();
    let ours = move || {
        out.clear();
        node.encode_into(&mut out).expect("a good node");
        black_box(&out).len() as u64
    };
    let (mut own, mut by_ref) = (Vec::new(), Vec::new());
    let borrowed = theirs.as_node_ref();
    let case = Case::new(format!("{name}: encode, reused buffer"), ours)
        .theirs("marshal_to_vec", move || {
            own.clear();
            peer::marshal_to_vec(theirs, &mut own).expect("a good node");
            black_box(&own).len() as u64
        })
        .theirs("marshal_ref_to_vec", move || {
            by_ref.clear();
            peer::marshal_ref_to_vec(&borrowed, &mut by_ref).expect("a good node");
            black_box(&by_ref).len() as u64
        });
    cases.push(case.agree());

    let length = |frame: Result<Vec<u8>, _>| black_box(frame.expect("a good node")).len() as u64;
    let case = Case::new(format!("{name}: encode, fresh"), move || {
        black_box(node.encode().expect("a good node")).len() as u64
    })
    .theirs("marshal", move || length(peer::marshal(theirs)))
    .theirs("marshal_auto", move || length(peer::marshal_auto(theirs)))
    .theirs("marshal_exact", move || length(peer::marshal_exact(theirs)));
    cases.push(case.agree());
}

/// From the data to the frame: ours with the writer that borrows, theirs with the builder that they offer.
fn build<'a>(
    cases: &mut Vec<Case<'a>>,
    name: &str,
    write: impl Fn(&mut Vec<u8>) + 'a,
    theirs: impl Fn() -> peer_node::Node + 'a,
) {
    let (mut out, mut own) = (Vec::new(), Vec::new());
    let case = Case::new(format!("{name}: build and encode"), move || {
        out.clear();
        write(&mut out);
        black_box(&out).len() as u64
    });
    let theirs = move || {
        own.clear();
        peer::marshal_to_vec(&theirs(), &mut own).expect("a good node");
        black_box(&own).len() as u64
    };
    cases.push(case.theirs("NodeBuilder, marshal_to_vec", theirs).agree());
}

/// Is shown all that a node holds.
trait Visitor {
    fn see(&mut self, bytes: &[u8]);

    fn see_jid(&mut self, user: &str, server: &str, device: u16) {
        self.see(user.as_bytes());
        self.see(server.as_bytes());
        self.see(&[b':', device as u8]);
    }

    fn ours(&mut self, node: NodeRef<'_>) {
        self.see(node.tag().as_bytes());
        for (key, value) in node.attrs() {
            self.see(key.as_bytes());
            match value {
                Value::Text(text) => self.see(text.as_bytes()),
                Value::Jid(jid) => self.see_jid(jid.user(), jid.server(), jid.device()),
            }
        }
        match node.content() {
            Content::None => {}
            Content::Bytes(bytes) => self.see(bytes),
            Content::Text(text) => self.see(text.as_bytes()),
            Content::Jid(jid) => self.see_jid(jid.user(), jid.server(), jid.device()),
            Content::Nodes(children) => children.for_each(|child| self.ours(child)),
        }
    }

    fn theirs(&mut self, node: &peer_node::NodeRef<'_>) {
        self.see(node.tag.as_bytes());
        for (key, value) in node.attrs_iter() {
            self.see(key.as_bytes());
            match value {
                peer_node::ValueRef::String(text) => self.see(text.as_bytes()),
                peer_node::ValueRef::Jid(jid) => self.see_jid(&jid.user, jid.server.as_str(), jid.device),
            }
        }
        match &node.content {
            None => {}
            Some(peer_node::NodeContentRef::Bytes(bytes)) => self.see(bytes),
            Some(peer_node::NodeContentRef::String(text)) => self.see(text.as_bytes()),
            Some(peer_node::NodeContentRef::Nodes(children)) => children.iter().for_each(|child| self.theirs(child)),
        }
    }
}

/// Adds up the lengths, which takes no more than the pieces being there. What a case is measured with.
#[derive(Default)]
struct Length(u64);

impl Visitor for Length {
    #[inline]
    fn see(&mut self, bytes: &[u8]) {
        self.0 += black_box(bytes).len() as u64;
    }
}

/// Copies the pieces, to compare them.
#[derive(Default, PartialEq)]
struct Pieces(Vec<Vec<u8>>);

impl Visitor for Pieces {
    fn see(&mut self, bytes: &[u8]) {
        self.0.push(bytes.to_vec());
    }
}

fn peer_ack(ack: &samples::Ack) -> peer_node::Node {
    NodeBuilder::new("ack")
        .attr("class", "message")
        .attr("id", ack.id)
        .attr("from", peer_jid::Jid::pn(ack.from))
        .build()
}

fn peer_message(message: &samples::Message) -> peer_node::Node {
    let enc = NodeBuilder::new("enc").attr("v", "2").attr("type", "msg").bytes(message.ciphertext.clone()).build();
    NodeBuilder::new("message")
        .attr("from", peer_jid::Jid::pn_device(message.from, message.device))
        .attr("id", message.id)
        .attr("type", "text")
        .attr("t", message.t)
        .attr("notify", message.notify)
        .children([enc])
        .build()
}

fn peer_usync(usync: &samples::Usync) -> peer_node::Node {
    let device = |id: &String, key_index: Option<&String>| match key_index {
        Some(key_index) => NodeBuilder::new("device").attr("id", id).attr("key-index", key_index).build(),
        None => NodeBuilder::new("device").attr("id", id).build(),
    };
    let user = |user: &samples::UsyncUser| {
        let [primary, first, second] = &user.devices;
        let [first_key, second_key] = &user.key_index;
        let devices = [device(primary, None), device(first, Some(first_key)), device(second, Some(second_key))];
        let keys = NodeBuilder::new("key-index-list").attr("ts", &user.ts).bytes(user.key_index_list.clone()).build();
        let list = NodeBuilder::new("device-list").children(devices).build();
        let devices = NodeBuilder::new("devices").children([list, keys]).build();
        NodeBuilder::new("user").attr("jid", peer_jid::Jid::pn(user.user.as_str())).children([devices]).build()
    };
    let result = NodeBuilder::new("result").children([NodeBuilder::new("devices").build()]).build();
    let list = NodeBuilder::new("list").children(usync.users.iter().map(user)).build();
    let root = NodeBuilder::new("usync")
        .attr("sid", usync.sid)
        .attr("mode", "query")
        .attr("last", "true")
        .attr("index", "0")
        .attr("context", "message")
        .children([result, list])
        .build();
    NodeBuilder::new("iq")
        .attr("from", peer_jid::Jid::new("", peer_jid::Server::Pn))
        .attr("id", usync.id)
        .attr("type", "result")
        .children([root])
        .build()
}

fn peer_group(group: &samples::Group) -> peer_node::Node {
    let participant = |own: &samples::Participant| {
        let node = NodeBuilder::new("participant")
            .attr("jid", peer_jid::Jid::lid(own.lid.as_str()))
            .attr("phone_number", peer_jid::Jid::pn(own.pn.as_str()));
        if own.admin { node.attr("type", "admin").build() } else { node.build() }
    };
    let root = NodeBuilder::new("group")
        .attr("id", group.group)
        .attr("creation", group.creation)
        .attr("subject", group.subject)
        .attr("addressing_mode", "lid")
        .children(group.participants.iter().map(participant))
        .build();
    NodeBuilder::new("iq")
        .attr("from", peer_jid::Jid::group(group.group))
        .attr("id", group.id)
        .attr("type", "result")
        .children([root])
        .build()
}
