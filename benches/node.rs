//! What a gateway pays for the node codec: frames in, frames out, and the texts in them.

use std::hint::black_box;
use std::io::Write as _;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::ZlibEncoder};
use wamd::jid::{Jid, Server};
use wamd::node::{Decoder, Node};

/// A group message as a companion receives it.
fn message() -> Node {
    Node::new("message")
        .attr("from", Jid::new("120363041234567890", Server::Group))
        .attr("participant", Jid::lid("210987654321098").with_device(7))
        .attr("participant_pn", Jid::pn("5511987654321"))
        .attr("id", "3EB0C767D71D7A7C5CB5")
        .attr("type", "text")
        .attr("t", 1_755_873_901)
        .attr("notify", "Maria da Silva")
        .child(Node::new("enc").attr("v", "2").attr("type", "skmsg").bytes(vec![0x5a; 220]))
}

fn receipt() -> Node {
    Node::new("receipt")
        .attr("from", Jid::pn("5511987654321").with_device(2))
        .attr("id", "3EB0C767D71D7A7C5CB5")
        .attr("type", "read")
        .attr("t", 1_755_873_901)
}

/// The fan-out of a message to `devices` devices, as a client sends it.
fn fan_out(devices: u16) -> Node {
    let to = |device: u16| {
        Node::new("to")
            .attr("jid", Jid::pn(format!("55119876{:05}", device / 4)).with_device(device % 4))
            .child(Node::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x5a; 180]))
    };
    let participants = Node::new("participants").children((0..devices).map(to));
    Node::new("message")
        .attr("to", Jid::new("120363041234567890", Server::Group))
        .attr("id", "3EB0C767D71D7A7C5CB5")
        .attr("type", "text")
        .child(participants)
}

fn zlib(node: &Node) -> Bytes {
    let mut encoder = ZlibEncoder::new(vec![0x02], Compression::default());
    encoder.write_all(&node.encode().expect("a node that encodes")[1..]).expect("writing to a Vec");
    encoder.finish().expect("writing to a Vec").into()
}

fn decode(c: &mut Criterion) {
    let plain = |node: &Node| Bytes::from(node.encode().expect("a node that encodes"));
    let frames = [
        ("receipt", plain(&receipt())),
        ("message", plain(&message())),
        ("fan_out_256", plain(&fan_out(256))),
        ("fan_out_256_zlib", zlib(&fan_out(256))),
    ];
    let mut group = c.benchmark_group("node/decode");
    for (name, frame) in frames {
        let mut decoder = Decoder::default();
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| black_box(decoder.decode(black_box(frame.clone())).expect("a good frame").tag().len()));
        });
    }
    group.finish();
}

/// Decoding and what the dispatcher reads from a message.
fn read(c: &mut Criterion) {
    let frame = Bytes::from(message().encode().expect("a node that encodes"));
    let mut decoder = Decoder::default();
    c.bench_function("node/read/message", |b| {
        b.iter(|| {
            let root = decoder.decode(frame.clone()).expect("a good frame");
            let enc = root.child("enc").expect("an enc node");
            black_box((
                root.attr_jid("from"),
                root.attr_jid("participant"),
                root.attr_str("id").map(|id| id.len()),
                root.attr_u64("t"),
                enc.attr_str("type").map(|kind| kind.len()),
                enc.bytes(),
            ))
        });
    });
    c.bench_function("node/to_node/message", |b| {
        b.iter(|| black_box(decoder.decode(frame.clone()).expect("a good frame").to_node()));
    });
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("node/encode");
    for (name, node) in [("receipt", receipt()), ("message", message()), ("fan_out_256", fan_out(256))] {
        let mut out = Vec::new();
        node.encode_into(&mut out).expect("a node that encodes");
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                black_box(&node).encode_into(&mut out).expect("a node that encodes");
                black_box(out.len())
            });
        });
    }
    group.finish();
    c.bench_function("node/build_and_encode/receipt", |b| b.iter(|| black_box(receipt().encode())));
}

fn jids(c: &mut Criterion) {
    c.bench_function("jid/parse", |b| {
        b.iter(|| black_box(black_box("5511987654321:3@s.whatsapp.net").parse::<Jid>()));
    });
    let jid = Jid::pn("5511987654321").with_device(3);
    c.bench_function("jid/print", |b| b.iter(|| black_box(black_box(&jid).to_string())));
}

criterion_group!(benches, decode, read, encode, jids);
criterion_main!(benches);
