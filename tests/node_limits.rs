//! Promise: no frame makes the codec recurse, spin, or use more memory than its limits say (spec 02 §9).

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::ZlibEncoder};
use wamd::jid::{Jid, Server};
use wamd::node::{Decoder, Limits, Node, NodeContent, NodeError, fuzz_decode};

fn plain(node: &[u8]) -> Bytes {
    [&[0x00], node].concat().into()
}

/// A decoder that looks at the other limits only: what repeats compresses beyond the ratio.
fn any_ratio() -> Decoder {
    let mut limits = Limits::default();
    limits.max_ratio = u32::MAX;
    Decoder::new(limits)
}

fn zlib(node: &[u8]) -> Bytes {
    let mut encoder = ZlibEncoder::new(vec![0x02], Compression::best());
    encoder.write_all(node).unwrap();
    encoder.finish().unwrap().into()
}

/// Both ways a frame can bring the node bytes.
fn refused(node: &[u8], expected: NodeError) {
    for frame in [plain(node), zlib(node)] {
        assert_eq!(any_ratio().decode(frame).map(|node| node.to_node()), Err(expected));
    }
}

/// `levels` nodes, each the only child of the one before.
fn nested(levels: usize) -> Vec<u8> {
    [[0xf8, 0x02, 0x13, 0xf8, 0x01].repeat(levels - 1), vec![0xf8, 0x01, 0x13]].concat()
}

#[test]
fn nodes_of_128_levels_are_read_and_129_are_not() {
    let mut decoder = any_ratio();
    let root = decoder.decode(plain(&nested(128))).expect("128 levels");
    let node = root.to_node();
    assert_eq!(node.encode().expect("128 levels")[1..], nested(128));
    fuzz_decode(&plain(&nested(128)));
    refused(&nested(129), NodeError::TooDeep { offset: 128 * 5, max: 128 });
    let deeper = Node::new("message").child(node);
    assert_eq!(deeper.encode(), Err(NodeError::TooManyLevels { max: 128 }));
}

#[test]
fn nodes_of_20_000_levels_are_refused() {
    refused(&nested(20_000), NodeError::TooDeep { offset: 128 * 5, max: 128 });
    refused(&nested(1_000_000), NodeError::TooDeep { offset: 128 * 5, max: 128 });
}

#[test]
fn a_larger_depth_limit_is_clamped() {
    let mut limits = Limits::default();
    limits.max_depth = u16::MAX;
    let mut decoder = Decoder::new(limits);
    assert_eq!(decoder.decode(plain(&nested(256))).map(|root| root.to_node().tag().len()), Ok(7));
    let error = decoder.decode(plain(&nested(20_000))).map(|_| ());
    assert_eq!(error, Err(NodeError::TooDeep { offset: 256 * 5, max: 256 }));
}

#[test]
fn nested_jid_tags_are_refused_at_the_second() {
    let many = 1 << 20;
    let value = |unit: &[u8]| [&[0xf8, 0x03, 0x13, 0x04][..], &unit.repeat(many)].concat();
    let content = |unit: &[u8]| [&[0xf8, 0x02, 0x13][..], &unit.repeat(many)].concat();
    for unit in [&[0xfa][..], &[0xf6], &[0xf5], &[0xf7, 0, 0], &[0xfa, 0x00], &[0xfa, 0x13]] {
        let second = NodeError::NotAText { offset: 4 + unit.len(), byte: unit[0] };
        refused(&value(unit), second);
        let second = NodeError::NotAText { offset: 3 + unit.len(), byte: unit[0] };
        refused(&content(unit), second);
    }
}

/// A frame of 419 bytes that inflates to 400,000 nested tags, and kills a decoder that recurses.
#[test]
fn nested_jid_tags_in_a_frame_of_419_bytes() {
    let frame = |tags: usize| {
        let mut encoder = ZlibEncoder::new(vec![0x02], Compression::best());
        encoder.write_all(&[0xf8, 0x03, 0x13, 0x04]).unwrap();
        encoder.write_all(&vec![0xfa; tags]).unwrap();
        Bytes::from(encoder.finish().unwrap())
    };
    let frame = (396_000..412_000).step_by(250).map(frame).find(|frame| frame.len() == 419).expect("such a frame");
    let error = any_ratio().decode(frame.clone()).map(|_| ());
    assert_eq!(error, Err(NodeError::NotAText { offset: 5, byte: 0xfa }));
    let error = Decoder::default().decode(frame).map(|_| ());
    assert_eq!(error, Err(NodeError::RatioTooHigh { len: 418, max: 256 }));
}

#[test]
fn a_body_inflates_to_a_multiple_of_itself_or_to_256_kib() {
    let enc = |len: usize| zlib(&Node::new("enc").bytes(vec![0; len]).encode().unwrap()[1..]);
    let decode = |frame: &Bytes| Decoder::default().decode(frame.clone()).map(|root| root.bytes().unwrap().len());
    // 3 bytes of header and tag, 4 of the length.
    let floor = (256 << 10) - 7;
    let (most, more) = (enc(floor), enc(floor + 1));
    assert!(most.len() < 512, "{}", most.len());
    assert_eq!(decode(&most), Ok(floor));
    assert_eq!(decode(&more), Err(NodeError::RatioTooHigh { len: more.len() - 1, max: 256 }));
    assert_eq!(NodeError::RatioTooHigh { len: 1, max: 2 }.offset(), None);

    // Real stanzas do not come near it: a list that is as monotonous as can be.
    let user = |n: u64| Node::new("user").attr("jid", Jid::pn((5_511_900_000_000 + n).to_string()));
    let list = Node::new("list").children((0..30_000).map(user)).encode().unwrap();
    let frame = zlib(&list[1..]);
    assert!(list.len() > 256 << 10 && list.len() < frame.len() * 60, "{} {}", list.len(), frame.len());
    assert_eq!(Decoder::default().decode(frame).map(|root| root.children().len()), Ok(30_000));
}

#[test]
fn a_zlib_bomb_stops_at_16_mib() {
    let too_large = NodeError::TooLarge { max: 16 << 20 };
    for size in [(16 << 20) + 1, 17 << 20, 200 << 20] {
        let frame = zlib(&vec![0; size]);
        assert!(frame.len() < 1 << 20);
        assert_eq!(any_ratio().decode(frame).map(|_| ()), Err(too_large), "{size}");
    }
}

#[test]
fn a_node_of_exactly_the_limit_is_read() {
    let content = (16 << 20) - 8;
    let node = |content: usize| Node::new("enc").bytes(vec![0; content]).encode().unwrap()[1..].to_vec();
    assert_eq!(node(content).len(), 16 << 20);
    for frame in [plain(&node(content)), zlib(&node(content))] {
        let len = any_ratio().decode(frame).map(|root| root.bytes().map(|bytes| bytes.len()));
        assert_eq!(len, Ok(Some(content)));
    }
    refused(&node(content + 1), NodeError::TooLarge { max: 16 << 20 });
}

#[test]
fn announced_counts_reserve_nothing() {
    let level = [0xf8, 0x02, 0x13, 0xf9, 0xff, 0xff];
    refused(&level.repeat(127), NodeError::CountBeyondData { offset: 3, count: 65_535 });
    // With enough bytes behind it each level passes; the tables hold what was read, and no more.
    let node = [level.repeat(127), vec![0x13; 200_000]].concat();
    refused(&node, NodeError::NotANode { offset: 127 * 6, byte: 0x13 });
}

/// A root with lists of `width` times `unit`, `lists` of them.
fn wide(lists: usize, width: u16, unit: &[u8]) -> Vec<u8> {
    let [high, low] = width.to_be_bytes();
    let list = [&[0xf8, 0x02, 0x13, 0xf9, high, low][..], &unit.repeat(usize::from(width))].concat();
    [&[0xf8, 0x02, 0x13, 0xf8, lists as u8][..], &list.repeat(lists)].concat()
}

#[test]
fn nodes_are_counted() {
    let leaf = [0xf8, 0x01, 0x13];
    // 1 + 4 * (1 + 65,534) = 262,141 nodes.
    let mut decoder = any_ratio();
    let below = wide(4, 65_534, &leaf);
    assert_eq!(
        decoder.decode(plain(&below)).map(|root| root.children().map(|list| list.children().len()).sum()),
        Ok(262_136)
    );
    let offset = 5 + 4 * (6 + 65_534 * 3) + 6 + 2 * 3;
    refused(&wide(5, 65_534, &leaf), NodeError::TooManyNodes { offset, max: 262_144 });
}

#[test]
fn attributes_are_counted() {
    let leaf = [&[0xf9, 0xff, 0xff, 0x13][..], &[0x04, 0x00].repeat(32_767)].concat();
    let mut decoder = any_ratio();
    assert!(decoder.decode(plain(&wide(1, 16, &leaf))).is_ok());
    let offset = 5 + 6 + 16 * leaf.len();
    refused(&wide(1, 17, &leaf), NodeError::TooManyAttrs { offset, max: 524_288 });
}

#[test]
fn limits_are_arguments() {
    let mut limits = Limits::default();
    (limits.max_inflated, limits.max_nodes, limits.max_attrs, limits.max_depth) = (100, 3, 2, 2);
    let decode = |node: &Node| Decoder::new(limits).decode(node.encode().unwrap().into()).map(|root| root.to_node());
    let leaf = Node::new("item");
    let good = Node::new("list").attr("a", 1).attr("b", 2).child(leaf.clone()).child(leaf.clone());
    assert_eq!(decode(&good), Ok(good.clone()));
    let end = good.encode().unwrap().len() - 1;
    assert_eq!(decode(&good.clone().child(leaf.clone())), Err(NodeError::TooManyNodes { offset: end, max: 3 }));
    assert_eq!(decode(&good.attr("c", 3)), Err(NodeError::TooManyAttrs { offset: 0, max: 2 }));
    let deep = Node::new("list").child(Node::new("list").child(leaf.clone()));
    let offset = deep.encode().unwrap().len() - leaf.encode().unwrap().len();
    assert_eq!(decode(&deep), Err(NodeError::TooDeep { offset, max: 2 }));
    assert_eq!(decode(&Node::new("list").bytes(vec![0; 100])), Err(NodeError::TooLarge { max: 100 }));
}

#[test]
fn the_encoder_refuses_what_cannot_be_read() {
    let encode = |node: Node| node.encode().map(|frame| frame.len());
    assert_eq!(encode(Node::new("")), Err(NodeError::UnnamedNode));
    assert_eq!(encode(Node::new("a").child(Node::new(""))), Err(NodeError::UnnamedNode));

    let list = |len: usize| Node::new("list").children(vec![Node::new("item"); len]);
    assert!(encode(list(65_535)).is_ok());
    assert_eq!(encode(list(65_536)), Err(NodeError::ListTooLong { len: 65_536, max: 65_535 }));

    let mut attrs = Node::new("list");
    attrs.attrs = vec![("a".into(), "b".into()); 32_766];
    assert!(Node::decode(attrs.encode().unwrap()) == Ok(attrs.clone()));
    let attrs = attrs.bytes(vec![1]);
    assert!(Node::decode(attrs.encode().unwrap()) == Ok(attrs.clone()));
    let mut more = attrs;
    more.attrs.push(("a".into(), "b".into()));
    more.attrs.push(("a".into(), "b".into()));
    assert!(matches!(encode(more), Err(NodeError::ListTooLong { .. })));

    let to = |jid: Jid| encode(Node::new("iq").attr("to", jid));
    for server in [Server::Pn, Server::Lid, Server::Hosted, Server::HostedLid] {
        let jid = Jid::new("5511", server.clone());
        assert!(to(jid.with_device(255)).is_ok());
        assert_eq!(to(jid.with_device(256)), Err(NodeError::DeviceTooLarge { device: 256 }));
        assert_eq!(to(Jid::new("", server).with_device(1)), Err(NodeError::UnnamedJid));
    }
    assert_eq!(to(Jid::new("5511", Server::Other("".into()))), Err(NodeError::UnnamedJid));
}

#[test]
fn an_error_leaves_the_output_as_it_was() {
    let mut out = vec![1, 2, 3];
    let node = Node::new("list").child(Node::new("item").bytes(vec![1; 50])).child(Node::new(""));
    assert_eq!(node.encode_into(&mut out), Err(NodeError::UnnamedNode));
    assert_eq!(out, [1, 2, 3]);
    Node::new("ack").encode_into(&mut out).unwrap();
    assert_eq!(out, [1, 2, 3, 0x00, 0xf8, 0x01, 0x1b]);
}

#[test]
fn jid_forms_without_agreement_are_written_like_the_official_client() {
    let check = |jid: &str, expected: &str| {
        let node = Node::new("x1").attr("to", jid.parse::<Jid>().unwrap());
        assert_eq!(hex::encode(node.encode().unwrap()), format!("00f803fc02783111{expected}"), "{jid}");
        let mut content = Node::new("x1");
        content.content = NodeContent::Jid(jid.parse().unwrap());
        assert_eq!(hex::encode(content.encode().unwrap()), format!("00f802fc027831{expected}"), "{jid}");
    };
    check("100000123456789:5@msgr", "f6ff88100000123456789f0005cc");
    check("3-98765432101@interop", "f5ff8698765432101f00000003");
    check("5511987654321@hosted", "faff875511987654321ffc06686f73746564");
    check("16505361212:1@c.us", "faff8616505361212ffc04632e7573");
    check("msgr", "fa00cc");
    check("interop", "fa00fc07696e7465726f70");
}
