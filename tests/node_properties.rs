//! Promise: what is written reads as the same, and no bytes make the decoder panic.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::ZlibEncoder};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use wamd::jid::{Jid, Server};
use wamd::node::{AttrValue, Decoder, Node, NodeContent, fuzz_decode};

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
