use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};

use super::*;
use crate::node::{Content, Node};

fn zlib(node: &Node) -> Bytes {
    let mut encoder = ZlibEncoder::new(vec![FLAG_ZLIB], Compression::default());
    encoder.write_all(&node.encode().unwrap()[1..]).unwrap();
    encoder.finish().unwrap().into()
}

fn users(count: usize) -> Node {
    let user =
        |n: usize| Node::new("user").attr("jid", crate::jid::Jid::pn(format!("55119876{n:05}"))).bytes(vec![1; 20]);
    Node::new("list").children((0..count).map(user))
}

/// Where the tape and the side text lie, and how large they are.
fn memory(decoder: &Decoder) -> [(usize, usize); 2] {
    let Tape { entries, side, .. } = &decoder.tape;
    [(entries.as_ptr() as usize, entries.capacity()), (side.as_ptr() as usize, side.capacity())]
}

#[test]
fn a_steady_stream_uses_the_same_memory() {
    let mut decoder = Decoder::default();
    let (plain, compressed) = (Bytes::from(users(200).encode().unwrap()), zlib(&users(200)));
    decoder.decode(compressed.clone()).unwrap();
    let first = memory(&decoder);
    let inflated = decoder.tape.frame.as_ptr();
    for _ in 0..10 {
        decoder.decode(compressed.clone()).unwrap();
        assert_eq!(memory(&decoder), first);
        assert_eq!(decoder.tape.frame.as_ptr(), inflated);
    }
    decoder.decode(plain).unwrap();
    assert_eq!(memory(&decoder), first);
}

#[test]
fn bytes_that_somebody_holds_are_not_overwritten() {
    let mut decoder = Decoder::default();
    let held = decoder.decode(zlib(&users(3))).unwrap().first_child().unwrap().bytes().unwrap();
    let other = Node::new("list").child(Node::new("user").bytes(vec![9; 2_000]));
    decoder.decode(zlib(&other)).unwrap();
    assert_eq!(held, vec![1; 20]);
}

#[test]
fn memory_of_an_outlier_is_given_back() {
    let mut decoder = Decoder::default();
    let outlier = Node::new("list").children(vec![users(60_000)]).child(Node::new("enc").bytes(vec![0; 4 << 20]));
    decoder.decode(zlib(&outlier)).unwrap();
    assert!(decoder.tape.entries.capacity() > 60_000);
    for _ in 0..3 {
        decoder.decode(zlib(&users(3))).unwrap();
    }
    let held: usize = memory(&decoder).iter().map(|&(_, capacity)| capacity).sum();
    assert!(held < 1_000, "{held}");
    assert!(decoder.tape.frame.len() < 1_000);
    decoder.decode(zlib(&outlier)).unwrap();
    decoder.release();
    assert_eq!(memory(&decoder).map(|(_, capacity)| capacity), [0; 2]);
    assert!(decoder.tape.frame.is_empty());
}

#[test]
fn a_failed_frame_leaves_a_usable_decoder() {
    let mut decoder = Decoder::default();
    let mut broken = zlib(&users(50)).to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    assert!(matches!(decoder.decode(broken.into()), Err(NodeError::BadZlib { .. })));
    assert_eq!(decoder.decode(zlib(&users(50))).unwrap().to_node(), users(50));
    assert!(decoder.decode(Bytes::from_static(&[0, 0xf8, 0x02, 0x13, 0xf8])).is_err());
    assert_eq!(decoder.decode(zlib(&users(50))).unwrap().to_node(), users(50));
}

#[test]
fn byte_content_shares_the_frame() {
    let frame = Bytes::from(Node::new("enc").bytes(vec![5; 100]).encode().unwrap());
    let range = frame.as_ptr_range();
    let mut decoder = Decoder::default();
    let bytes = decoder.decode(frame.clone()).unwrap().bytes().unwrap();
    assert!(range.contains(&bytes.as_ptr()));
    assert_eq!(bytes, vec![5; 100]);
}

/// Content `<x1>` of the given tag bytes.
fn content(bytes: &[u8]) -> (Option<Bytes>, Option<String>, Node) {
    let frame = [&[0, 0xf8, 0x02, 0xfc, 0x02, b'x', b'1'][..], bytes].concat();
    let mut decoder = Decoder::default();
    let root = decoder.decode(frame.into()).unwrap();
    (root.bytes(), root.text().map(Into::into), root.to_node())
}

#[test]
fn every_kind_of_content_has_bytes_and_text() {
    let check = |tags: &[u8], expected: &str| {
        let (bytes, text, _) = content(tags);
        assert_eq!(bytes.as_deref(), Some(expected.as_bytes()), "{tags:x?}");
        assert_eq!(text.as_deref(), Some(expected), "{tags:x?}");
    };
    check(&[0x13], "message");
    check(&[0xec, 0x01], "active");
    check(&[0xff, 0x82, 0x12, 0x3f], "123");
    check(&[0xfc, 0x02, b'h', b'i'], "hi");
    check(&[0xf7, 0x00, 0x03, 0xff, 0x01, 0x55], "55:3@s.whatsapp.net");
    check(&[0xfa, 0x00, 0x1c], "g.us");
    assert_eq!(content(&[0x00]), (None, None, Node::new("x1")));
    assert_eq!(content(&[0xf8, 0x00]), (None, None, Node::new("x1")));
}

#[test]
fn texts_and_bytes_are_kept_apart() {
    let kind = |tags: &[u8]| {
        let frame = [&[0, 0xf8, 0x02, 0x13][..], tags].concat();
        let mut decoder = Decoder::default();
        match decoder.decode(frame.into()).unwrap().content() {
            Content::None => "none",
            Content::Bytes(_) => "bytes",
            Content::Text(_) => "text",
            Content::Jid(_) => "jid",
            Content::Nodes(_) => "nodes",
        }
    };
    assert_eq!(kind(&[0xfc, 0x01, b'1']), "bytes");
    assert_eq!(kind(&[0xfd, 0, 0, 0x01, b'1']), "bytes");
    assert_eq!(kind(&[0xff, 0x81, 0x1f]), "text");
    assert_eq!(kind(&[0x0b]), "text");
    assert_eq!(kind(&[0xfa, 0x00, 0x03]), "jid");
    assert_eq!(kind(&[0xf8, 0x01, 0xf8, 0x01, 0x13]), "nodes");
    assert_eq!(kind(&[0x00]), "none");
}

#[test]
fn attributes_are_read_in_either_form() {
    let node = Node::new("iq")
        .attr("a", crate::jid::Jid::pn("55"))
        .attr("b", "55@s.whatsapp.net")
        .attr("c", "no jid")
        .attr("d", u64::MAX)
        .attr("e", "+1")
        .attr("f", "");
    let mut decoder = Decoder::default();
    let root = decoder.decode(node.encode().unwrap().into()).unwrap();
    assert_eq!(root.attr_jid("a"), Some(crate::jid::Jid::pn("55")));
    assert_eq!(root.attr_jid("b"), root.attr_jid("a"));
    assert_eq!(root.attr_str("a").as_deref(), Some("55@s.whatsapp.net"));
    assert_eq!(root.attr_jid("c"), None);
    assert_eq!(root.attr_u64("d"), Some(u64::MAX));
    assert_eq!(["a", "c", "e", "f", "missing"].map(|key| root.attr_u64(key)), [None; 5]);
    assert!(root.attr("c").unwrap() == "no jid");
    assert_eq!(root.attr("missing"), None);
    assert_eq!(root.attrs().len(), 6);
}

#[test]
fn children_are_walked_in_order_over_their_subtrees() {
    let deep = Node::new("a").child(Node::new("b").child(Node::new("c"))).child(Node::new("d"));
    let node = Node::new("iq").child(deep.clone()).child(Node::new("e")).child(deep.clone().attr("n", 2));
    let mut decoder = Decoder::default();
    let root = decoder.decode(node.encode().unwrap().into()).unwrap();
    assert_eq!(root.children().map(|child| child.tag()).collect::<Vec<_>>(), ["a", "e", "a"]);
    assert_eq!(root.children_named("a").count(), 2);
    assert_eq!(root.child("a").unwrap().to_node(), deep);
    assert_eq!(root.child("e").unwrap().children().len(), 0);
    assert!(root.child("b").is_none());
    assert!(root.child("e").unwrap().first_child().is_none());
    assert_eq!(root.children().last().unwrap().child("b").unwrap().first_child().unwrap().tag(), "c");
}

/// The last server stands in no dictionary, so it always comes as raw text.
#[test]
fn an_interop_jid_may_have_anything_behind_it() {
    let jid = [&[0xf5, 0xff, 0x01, 0x55, 0, 3, 0, 7, 0xfc, 7][..], b"interop"].concat();
    for behind in 0..40 {
        let frame =
            [&[0, 0xf8, 0x04, 0x13, 0x06][..], &jid, &[0xfc, behind], &vec![b'x'; usize::from(behind)]].concat();
        let mut decoder = Decoder::default();
        let root = decoder.decode(frame.into()).unwrap();
        let jid = root.attr_jid("from").unwrap();
        assert_eq!((jid.user(), jid.server().as_str(), jid.device(), jid.integrator()), ("55", "interop", 3, 7));
        assert_eq!(root.bytes().unwrap().len(), usize::from(behind));
    }
}

#[test]
fn what_was_in_the_memory_before_does_not_show() {
    let wide = |count: usize| {
        let frame = [&[0, 0xf8, 0x03, 0x13, 0x06, 0xfd, 0, 0, count as u8][..], &[0xff; 200][..count]].concat();
        (Bytes::from(frame), "\u{fffd}".repeat(count))
    };
    let mut decoder = Decoder::default();
    for count in [1, 5, 200, 3, 16, 17, 1, 100] {
        let (frame, text) = wide(count);
        assert_eq!(decoder.decode(frame).unwrap().attr_str("from").as_deref(), Some(&text[..]));
        // Each overwrites a part of what was there, and some need more than there was.
        for count in [1, 2, count, 3 * count, 500, 2] {
            let node = users(count).attr("id", "3EB0C767D71D7A7C5CB5").attr("t", "1").attr("name", "short");
            assert_eq!(decoder.decode(node.encode().unwrap().into()).unwrap().to_node(), node);
        }
    }
}

#[test]
fn a_frame_with_more_in_it_than_its_length_promises_fits() {
    // Two bytes of a packed text become four characters, two of a node an entry.
    let texts = |count: usize| {
        let list = (0..count).map(|n| Node::new("user").attr("id", format!("{:030}", n)).child(Node::new("user")));
        Node::new("list").children(list)
    };
    let mut decoder = Decoder::default();
    for count in [1, 3, 100, 1_000, 2, 20_000, 1] {
        let node = texts(count);
        assert_eq!(decoder.decode(node.encode().unwrap().into()).unwrap().to_node(), node);
    }
}
