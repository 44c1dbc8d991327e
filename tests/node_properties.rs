//! Promise: what is written reads as the same, and no bytes make the decoder panic.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::ZlibEncoder};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use wamd::jid::{Jid, Server};
use wamd::node::{AttrValue, Decoder, Node, NodeContent, NodeError, NodeRef, NodeWriter, fuzz_decode};

/// Texts of every wire form: tokens of both sizes, packed, raw in all lengths.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec!["message", "type", "id", "from", "read-self", "mute_v2", "0", "s.whatsapp.net"])
            .prop_map(str::to_owned),
        "[0-9.-]{0,130}",
        "[0-9A-F]{0,130}",
        "\\PC{0,40}",
        ".{250,260}",
    ]
}

/// Texts with a form of their own as content, so that they are not read back as bytes.
fn content_text() -> impl Strategy<Value = String> {
    prop_oneof![Just("available".to_owned()), "[0-9.-]{1,127}", "[0-9A-F]{1,127}"]
}

/// JIDs in the normal form of their server: a device only where the wire has a place for it.
fn any_jid() -> impl Strategy<Value = Jid> {
    let servers = ["s.whatsapp.net", "lid", "hosted", "hosted.lid"];
    let with_device = ("[0-9]{1,20}|\\PC{1,30}", proptest::sample::select(servers.to_vec()), any::<u8>())
        .prop_map(|(user, server, device)| Jid::new(user, Server::parse(server).unwrap()).with_device(device.into()));
    let messenger =
        ("[0-9]{1,20}", any::<u16>()).prop_map(|(user, device)| Jid::new(user, Server::Messenger).with_device(device));
    let names = ["g.us", "broadcast", "newsletter", "bot", "call", "c.us", "new.server", "lid", "msgr", "interop"];
    let server_only =
        proptest::sample::select(names.to_vec()).prop_map(|name| Jid::new("", Server::parse(name).unwrap()));
    let pair = ("[0-9-]{1,30}|\\PC{1,30}", proptest::sample::select(names[..7].to_vec()))
        .prop_map(|(user, server)| Jid::new(user, Server::parse(server).unwrap()));
    prop_oneof![with_device, messenger, server_only, pair]
}

fn any_node() -> impl Strategy<Value = Node> {
    let value = prop_oneof![any_text().prop_map(AttrValue::from), any_jid().prop_map(AttrValue::from)];
    let tag = any_text().prop_filter("a tag is not empty", |tag| !tag.is_empty());
    let head = (tag, btree_map(any_text(), value, 0..6))
        .prop_map(|(tag, attrs)| attrs.into_iter().fold(Node::new(tag), |node, (key, value)| node.attr(key, value)));
    let content = prop_oneof![
        3 => Just(NodeContent::None),
        3 => vec(any::<u8>(), 0..300).prop_map(|bytes| NodeContent::Bytes(bytes.into())),
        1 => content_text().prop_map(|text| NodeContent::Text(text.into())),
        1 => any_jid().prop_map(NodeContent::Jid),
    ];
    let head = head.boxed();
    let leaf = (head.clone(), content).prop_map(|(mut node, content)| {
        node.content = content;
        node
    });
    leaf.prop_recursive(5, 40, 8, move |inner| {
        (head.clone(), vec(inner, 0..8)).prop_map(|(node, children)| node.children(children))
    })
}

fn zlib(node: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(vec![0x02], Compression::fast());
    encoder.write_all(node).unwrap();
    encoder.finish().unwrap()
}

/// Writes a tree with the writer that has none.
fn write(node: &Node) -> Vec<u8> {
    fn fill(writer: &mut NodeWriter<'_>, node: &Node) {
        for (key, value) in &node.attrs {
            match value {
                AttrValue::Text(text) => writer.attr(key, text),
                AttrValue::Jid(jid) => writer.attr(key, jid),
            };
        }
        match &node.content {
            NodeContent::None => {}
            NodeContent::Bytes(bytes) => writer.bytes(bytes),
            NodeContent::Text(text) => writer.value(text),
            NodeContent::Jid(jid) => writer.value(jid),
            NodeContent::Nodes(nodes) => {
                // Every other child as the tree that it is.
                for (index, child) in nodes.iter().enumerate() {
                    match index % 2 {
                        0 => writer.child(&child.tag, |writer| fill(writer, child)),
                        _ => writer.node(child),
                    };
                }
            }
        }
    }
    let mut out = Vec::new();
    NodeWriter::frame(&mut out, &node.tag, |writer| fill(writer, node)).unwrap();
    out
}

/// A borrowed node's parts can be written as they were read.
fn copy(node: NodeRef<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    NodeWriter::frame(&mut out, node.tag(), |writer| {
        node.attrs().for_each(|(key, value)| {
            writer.attr(key, value);
        });
    })
    .unwrap();
    out
}

#[test]
fn counts_of_every_size_are_written_alike() {
    for len in [0, 1, 127, 128, 255, 256, 1_000, 65_535] {
        let children = Node::new("list").children((0..len).map(|n| Node::new("item").attr("index", n)));
        assert!(write(&children) == children.encode().unwrap(), "{len} children");
        let mut attrs = Node::new("list").child(children);
        attrs.attrs = (0..len.min(32_766)).map(|n| (n.to_string().into(), AttrValue::from(n))).collect();
        assert!(write(&attrs) == attrs.encode().unwrap(), "{len} attributes");
    }
}

#[test]
fn numbers_are_written_as_texts() {
    for number in [0, 1, 9, 10, 4_294_967_295, 1_755_873_901, u64::MAX - 1, u64::MAX] {
        let mut out = Vec::new();
        NodeWriter::frame(&mut out, "iq", |iq| {
            iq.number("t", number);
        })
        .unwrap();
        assert_eq!(out, Node::new("iq").attr("t", number).encode().unwrap(), "{number}");
    }
}

#[test]
fn the_writer_refuses_what_cannot_be_read_and_leaves_the_output_as_it_was() {
    let check = |expected: NodeError, build: &dyn Fn(&mut NodeWriter<'_>)| {
        let mut out = vec![1, 2, 3];
        assert_eq!(NodeWriter::frame(&mut out, "iq", build), Err(expected));
        assert_eq!(out, [1, 2, 3]);
    };
    check(NodeError::WrongOrder, &|iq| {
        iq.child("ack", |_| {}).attr("id", "1");
    });
    check(NodeError::WrongOrder, &|iq| {
        iq.bytes(b"1");
        iq.bytes(b"2");
    });
    check(NodeError::WrongOrder, &|iq| {
        iq.value("1");
        iq.child("ack", |_| {});
    });
    check(NodeError::WrongOrder, &|iq| iq.child("ack", |_| {}).bytes(b"1"));
    check(NodeError::UnnamedNode, &|iq| {
        iq.child("", |_| {}).child("ack", |_| {});
    });
    check(NodeError::UnnamedNode, &|iq| {
        iq.node(&Node::new("ack").child(Node::new("")));
    });
    check(NodeError::DeviceTooLarge { device: 256 }, &|iq| {
        iq.attr("to", &Jid::pn("55").with_device(256));
    });
    check(NodeError::ListTooLong { len: 65_536, max: 65_535 }, &|iq| {
        (0..65_536).for_each(|_| {
            iq.child("ack", |_| {});
        });
    });
    check(NodeError::ListTooLong { len: 32_767, max: 32_766 }, &|iq| {
        (0..32_767).for_each(|_| {
            iq.attr("id", "1");
        });
    });
    fn nest(node: &mut NodeWriter<'_>, levels: usize) {
        if levels > 0 {
            node.child("iq", |node| nest(node, levels - 1));
        }
    }
    check(NodeError::TooManyLevels { max: 128 }, &|iq| nest(iq, 128));
    let mut out = vec![];
    NodeWriter::frame(&mut out, "iq", |iq| nest(iq, 127)).unwrap();
    assert!(Node::decode(out).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_reads_as_the_same(node in any_node()) {
        let frame = node.encode().unwrap();
        let mut decoder = Decoder::default();
        let read = decoder.decode(Bytes::from(frame.clone())).unwrap().to_node();
        prop_assert!(read == node);
        prop_assert_eq!(read.encode().unwrap(), frame.clone());
        let compressed = decoder.decode(zlib(&frame[1..]).into()).unwrap().to_node();
        prop_assert!(compressed == node);
        fuzz_decode(&frame);
    }

    #[test]
    fn a_frame_is_as_long_as_was_said_and_the_same_without_a_tree(node in any_node()) {
        let frame = node.encode().unwrap();
        prop_assert_eq!(node.encoded_len(), Ok(frame.len()));
        prop_assert!(frame.capacity() <= frame.len() + frame.len() / 16 + 16);
        let mut out = Vec::with_capacity(frame.len() + 16);
        let before = out.as_ptr();
        node.encode_into(&mut out).unwrap();
        prop_assert!(out.as_ptr() == before && out == frame, "the buffer grew");
        prop_assert_eq!(write(&node), frame.clone());

        let head = Node { content: NodeContent::None, ..node };
        let mut decoder = Decoder::default();
        let root = decoder.decode(frame.into()).unwrap();
        prop_assert_eq!(copy(root), head.encode().unwrap());
    }

    #[test]
    fn mutated_frames_keep_the_promises(
        node in any_node(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        compress: bool,
    ) {
        let mut frame = node.encode().unwrap();
        if compress {
            frame = zlib(&frame[1..]);
        }
        for (index, byte) in changes {
            let len = frame.len();
            frame[index.index(len)] = byte;
        }
        fuzz_decode(&frame);
    }

    #[test]
    fn random_node_bytes_keep_the_promises(body in vec(any::<u8>(), 0..200)) {
        fuzz_decode(&[&[0x00], &body[..]].concat());
        fuzz_decode(&[&[0x02], &body[..]].concat());
        fuzz_decode(&zlib(&body));
    }

    /// Mostly tag bytes, so that the structure goes deeper than in random bytes.
    #[test]
    fn random_tags_keep_the_promises(
        body in vec(prop_oneof![0xecu8..=0xff, 0u8..4, Just(0x13u8), any::<u8>()], 0..60)
    ) {
        fuzz_decode(&[&[0x00, 0xf8], &body[..]].concat());
        fuzz_decode(&[&[0x00, 0xf8, 0x02, 0x13, 0xf8], &body[..]].concat());
        fuzz_decode(&[&[0x00, 0xf8, 0x03, 0x13, 0x04], &body[..]].concat());
    }
}
