//! What a gateway pays for the node codec: frames in, frames out, and the texts in them.
//!
//! The stanzas are those of `benches/peers`, which compares with other crates and counts instructions and allocations;
//! this bench tells how a change of our own moves the times.

use std::hint::black_box;
use std::io::Write as _;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compression, write::ZlibEncoder};
use wamd::jid::Jid;
use wamd::node::{Content, Decoder, Node, NodeRef, Value};

#[path = "samples/node.rs"]
mod samples;

const GOOD: &str = "a good frame";

fn nodes() -> [(&'static str, Node); 4] {
    [
        ("ack", samples::ack().node()),
        ("message", samples::message().node()),
        ("usync", samples::usync().node()),
        ("group", samples::group().node()),
    ]
}

fn zlib(node: &Node) -> Bytes {
    let mut encoder = ZlibEncoder::new(vec![0x02], Compression::default());
    encoder.write_all(&node.encode().expect(GOOD)[1..]).expect("writing to a Vec");
    encoder.finish().expect("writing to a Vec").into()
}

/// Asks for every tag, key, value and content.
fn read(node: NodeRef<'_>) -> usize {
    let attrs = node.attrs().map(|(key, value)| match value {
        Value::Text(text) => black_box(key).len() + black_box(text).len(),
        Value::Jid(jid) => black_box(key).len() + black_box(jid.user()).len() + black_box(jid.server()).len(),
    });
    let content = match node.content() {
        Content::None => 0,
        Content::Bytes(bytes) => black_box(bytes).len(),
        Content::Text(text) => black_box(text).len(),
        Content::Jid(jid) => black_box(jid.user()).len() + black_box(jid.server()).len(),
        Content::Nodes(children) => children.map(read).sum(),
    };
    black_box(node.tag()).len() + attrs.sum::<usize>() + content
}

fn decode(c: &mut Criterion) {
    for (name, node) in nodes() {
        for (form, frame) in [("", Bytes::from(node.encode().expect(GOOD))), ("_zlib", zlib(&node))] {
            let mut group = c.benchmark_group(format!("node/decode/{name}{form}"));
            group.throughput(Throughput::Bytes(frame.len() as u64));
            let mut decoder = Decoder::default();
            group.bench_function("reused", |b| {
                b.iter(|| black_box(decoder.decode(frame.clone()).expect(GOOD).tag().len()));
            });
            group.bench_function("reused_read_all", |b| {
                b.iter(|| read(decoder.decode(frame.clone()).expect(GOOD)));
            });
            group.bench_function("fresh_read_all", |b| {
                b.iter(|| read(Decoder::default().decode(frame.clone()).expect(GOOD)));
            });
            group.bench_function("to_node", |b| {
                b.iter(|| black_box(decoder.decode(frame.clone()).expect(GOOD).to_node()));
            });
            group.finish();
        }
    }
}

fn encode(c: &mut Criterion) {
    for (name, node) in nodes() {
        let mut group = c.benchmark_group(format!("node/encode/{name}"));
        group.throughput(Throughput::Bytes(node.encoded_len().expect(GOOD) as u64));
        let mut out = Vec::new();
        group.bench_function("reused", |b| {
            b.iter(|| {
                out.clear();
                black_box(&node).encode_into(&mut out).expect("a node that encodes");
                black_box(out.len())
            });
        });
        group.bench_function("fresh", |b| b.iter(|| black_box(black_box(&node).encode())));
        group.bench_function("length", |b| b.iter(|| black_box(black_box(&node).encoded_len())));
        group.finish();
    }
}

/// From plain data to the frame, without a tree.
fn write(c: &mut Criterion) {
    let (ack, message, usync, group) = (samples::ack(), samples::message(), samples::usync(), samples::group());
    let mut out = Vec::new();
    let mut bench = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        c.bench_function(&format!("node/write/{name}"), |b| {
            b.iter(|| {
                out.clear();
                write(&mut out);
                black_box(out.len())
            });
        });
    };
    bench("ack", &|out| ack.write(out));
    bench("message", &|out| message.write(out));
    bench("usync", &|out| usync.write(out));
    bench("group", &|out| group.write(out));
}

fn jids(c: &mut Criterion) {
    c.bench_function("jid/parse", |b| {
        b.iter(|| black_box(black_box("5511987654321:3@s.whatsapp.net").parse::<Jid>()));
    });
    let jid = Jid::pn("5511987654321").with_device(3);
    c.bench_function("jid/print", |b| b.iter(|| black_box(black_box(&jid).to_string())));
}

criterion_group!(benches, decode, encode, write, jids);
criterion_main!(benches);
