//! Promise: every class of malformed frame in the table of spec 02 §9 is treated as its column "rule" says, and a refusal
//! names the fault and where it is.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use wamd::jid::{Jid, Server};
use wamd::node::{Content, Decoder, Node, NodeError, NodeRef};

/// Frame bytes: flag 00 and the node bytes, given in hexadecimal.
fn frame(node: &str) -> Bytes {
    hex::decode(format!("00{}", node.replace(' ', ""))).expect("hex").into()
}

fn refused(node: &str, expected: NodeError) {
    assert_eq!(Decoder::default().decode(frame(node)).map(|n| n.to_node()), Err(expected), "{node}");
}

fn accepted(node: &str, check: impl FnOnce(NodeRef<'_>)) {
    let mut decoder = Decoder::default();
    check(decoder.decode(frame(node)).unwrap_or_else(|error| panic!("{node}: {error}")));
}

fn decode(frame: &[u8]) -> Result<Node, NodeError> {
    Node::decode(frame.to_vec())
}

const ACK: [u8; 3] = [0xf8, 0x01, 0x1b];

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(vec![0x02], Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn empty_frame_and_flag_only() {
    assert_eq!(decode(&[]), Err(NodeError::EmptyFrame));
    assert_eq!(decode(&[0x00]), Err(NodeError::EmptyFrame));
    assert_eq!(decode(&[0x02]), Err(NodeError::EmptyFrame));
    assert_eq!(decode(&zlib(&[])), Err(NodeError::EmptyFrame));
}

#[test]
fn unknown_flag_bits_are_ignored() {
    for flags in [0x01, 0x04, 0x80, 0xfd] {
        assert_eq!(decode(&[&[flags], &ACK[..]].concat()), Ok(Node::new("ack")));
        let mut compressed = zlib(&ACK);
        compressed[0] |= flags;
        assert_eq!(decode(&compressed), Ok(Node::new("ack")));
    }
}

#[test]
fn broken_zlib_streams() {
    let good = zlib(&ACK);
    assert_eq!(decode(&good), Ok(Node::new("ack")));
    for len in 2..good.len() {
        assert_eq!(decode(&good[..len]), Err(NodeError::TruncatedZlib { len: len - 1 }), "cut at {len}");
    }
    let broken = |index: usize, bits: u8| {
        let mut frame = good.clone();
        frame[index] ^= bits;
        matches!(decode(&frame), Err(NodeError::BadZlib { .. }))
    };
    assert!(broken(1, 0x01), "compression method");
    assert!(broken(2, 0x01), "header check");
    assert!(broken(good.len() - 1, 0x01), "checksum");
    assert!(broken(good.len() - 4, 0x80), "checksum");
    // A preset dictionary (header 78 BB) cannot be known.
    assert!(matches!(decode(&[0x02, 0x78, 0xbb, 1, 2, 3, 4, 5]), Err(NodeError::BadZlib { .. })));
}

#[test]
fn raw_deflate_and_gzip_are_not_zlib() {
    let mut deflate = DeflateEncoder::new(vec![0x02], Compression::default());
    deflate.write_all(&ACK).unwrap();
    assert!(matches!(decode(&deflate.finish().unwrap()), Err(NodeError::BadZlib { .. })));
    let mut gzip = GzEncoder::new(vec![0x02], Compression::default());
    gzip.write_all(&ACK).unwrap();
    assert!(matches!(decode(&gzip.finish().unwrap()), Err(NodeError::BadZlib { .. })));
}

#[test]
fn bytes_after_the_zlib_stream_are_ignored() {
    let frame = [zlib(&ACK), vec![0xc0, 0xff, 0xee]].concat();
    assert_eq!(decode(&frame), Ok(Node::new("ack")));
}

#[test]
fn offsets_count_in_the_inflated_bytes() {
    let node = [&[0xf8, 0x02, 0x13][..], &[0xf8, 0x01, 0xf8, 0x01, 0xf1]].concat();
    assert_eq!(decode(&zlib(&node)), Err(NodeError::UnknownToken { offset: 7, byte: 0xf1 }));
    assert_eq!(decode(&zlib(&node)).unwrap_err().offset(), Some(7));
}

#[test]
fn a_node_is_a_list_that_is_not_empty() {
    for byte in [0x13, 0x00, 0xec, 0xf0, 0xf7, 0xfa, 0xfb, 0xfc, 0xff] {
        refused(&format!("{byte:02x} 01 13 13 13"), NodeError::NotANode { offset: 0, byte });
        refused(&format!("f802 13 f801 {byte:02x} 01 13 13"), NodeError::NotANode { offset: 5, byte });
    }
    refused("f800", NodeError::EmptyNode { offset: 0 });
    refused("f90000", NodeError::EmptyNode { offset: 0 });
    refused("f802 13 f801 f800 13", NodeError::EmptyNode { offset: 5 });
}

#[test]
fn counts_larger_than_the_data() {
    refused("f8", NodeError::Truncated { offset: 1, wanted: 1 });
    refused("f900", NodeError::Truncated { offset: 1, wanted: 2 });
    refused("f801", NodeError::Truncated { offset: 2, wanted: 1 });
    refused("f803 13", NodeError::CountBeyondData { offset: 0, count: 1 });
    refused("f9ffff 13", NodeError::CountBeyondData { offset: 0, count: 32_767 });
    refused("f805 13 0404 04", NodeError::CountBeyondData { offset: 0, count: 2 });
    refused("f803 13 04 ec", NodeError::Truncated { offset: 5, wanted: 1 });
    refused("f802 13", NodeError::Truncated { offset: 3, wanted: 1 });
    refused("f802 13 f803 f80113 f80113 f801", NodeError::CountBeyondData { offset: 3, count: 3 });
    refused("f802 13 f9ffff f80113", NodeError::CountBeyondData { offset: 3, count: 65_535 });
    refused("f802 13 f902", NodeError::Truncated { offset: 4, wanted: 2 });
}

#[test]
fn tags() {
    refused("f801 00", NodeError::NotAText { offset: 2, byte: 0x00 });
    refused("f801 fc00", NodeError::EmptyTag { offset: 2 });
    refused("f801 ff00", NodeError::EmptyTag { offset: 2 });
    refused("f801 fd000000", NodeError::EmptyTag { offset: 2 });
    for jid in ["fa 13 03", "f7 00 01 13", "f6 13 0000 cc", "f5 13 0000 0000 fc07696e7465726f70"] {
        let byte = u8::from_str_radix(&jid[..2], 16).unwrap();
        refused(&format!("f801 {jid}"), NodeError::NotAText { offset: 2, byte });
    }
    refused("f801 f80113", NodeError::NotAText { offset: 2, byte: 0xf8 });
}

#[test]
fn keys() {
    refused("f803 13 00 13", NodeError::NotAText { offset: 3, byte: 0x00 });
    refused("f803 13 fa0003 13", NodeError::NotAText { offset: 3, byte: 0xfa });
    refused("f803 13 f70001ff0112 13", NodeError::NotAText { offset: 3, byte: 0xf7 });
    refused("f803 13 f80113 13", NodeError::NotAText { offset: 3, byte: 0xf8 });
    accepted("f803 13 fc00 13", |node| assert!(node.attr("").unwrap() == "message"));
}

#[test]
fn values() {
    accepted("f803 13 04 00", |node| assert!(node.attr("type").unwrap() == ""));
    refused("f803 13 04 f80113", NodeError::NotAValue { offset: 4, byte: 0xf8 });
    refused("f803 13 04 f9000113", NodeError::NotAValue { offset: 4, byte: 0xf9 });
}

#[test]
fn of_duplicate_keys_the_last_counts_for_every_reader() {
    // type="user", type="text" as token and as raw bytes of the key
    accepted("f805 13 04 0e fc0474797065 fc0474657874", |node| {
        assert_eq!(node.attr_str("type").as_deref(), Some("text"));
        assert_eq!(node.to_node().attr_str("type").as_deref(), Some("text"));
        assert_eq!(node.attrs().count(), 2);
    });
}

#[test]
fn unassigned_tokens() {
    for byte in 0xf0..=0xf4u8 {
        refused(&format!("f801 {byte:02x}"), NodeError::UnknownToken { offset: 2, byte });
        refused(&format!("f803 13 {byte:02x} 13"), NodeError::UnknownToken { offset: 3, byte });
        refused(&format!("f803 13 04 {byte:02x}"), NodeError::UnknownToken { offset: 4, byte });
        refused(&format!("f802 13 {byte:02x}"), NodeError::UnknownToken { offset: 3, byte });
        refused(&format!("f803 13 04 fa {byte:02x} 03"), NodeError::UnknownToken { offset: 5, byte });
        refused(&format!("f803 13 04 fa 13 {byte:02x}"), NodeError::UnknownToken { offset: 6, byte });
    }
}

#[test]
fn packed_texts() {
    for half in 12..=15u8 {
        refused(&format!("f803 13 04 ff02 12 {:02x}", 0x10 | half), NodeError::BadPacked { offset: 7 });
        refused(&format!("f803 13 04 ff02 {:02x} 12", half << 4), NodeError::BadPacked { offset: 6 });
        refused(&format!("f803 13 04 ff82 12 {:02x}", half << 4 | 0x0f), NodeError::BadPacked { offset: 7 });
        let padding = format!("f803 13 04 ff82 12 {:02x}", 0x30 | half);
        accepted(&padding, |node| assert!(node.attr("type").unwrap() == "123"));
    }
    refused("f803 13 04 ff80", NodeError::BadPacked { offset: 5 });
    refused("f803 13 04 fb80", NodeError::BadPacked { offset: 5 });
    refused("f802 13 ff80", NodeError::BadPacked { offset: 4 });
    accepted("f803 13 04 ff00", |node| assert!(node.attr("type").unwrap() == ""));
}

#[test]
fn lengths_beyond_the_data() {
    refused("f803 13 04 ff04 12", NodeError::Truncated { offset: 6, wanted: 4 });
    refused("f802 13 fc05 616263", NodeError::Truncated { offset: 5, wanted: 5 });
    refused("f802 13 fd00", NodeError::Truncated { offset: 4, wanted: 3 });
    refused("f802 13 fd000400 aa", NodeError::Truncated { offset: 7, wanted: 0x400 });
    refused("f802 13 fe000004", NodeError::Truncated { offset: 4, wanted: 4 });
    refused("f802 13 fe00000400 aa", NodeError::Truncated { offset: 8, wanted: 0x400 });
    refused("f802 13 fe80000000 aa", NodeError::Truncated { offset: 8, wanted: 0x8000_0000 });
    refused("f802 13 feffffffff aa", NodeError::Truncated { offset: 8, wanted: 0xffff_ffff });
}

#[test]
fn invalid_utf8_is_refused_where_the_program_acts_on_it() {
    refused("f801 fc03 61ff62", NodeError::BadUtf8 { offset: 5 });
    refused("f803 13 fc02 c328 13", NodeError::BadUtf8 { offset: 5 });
    refused("f803 13 04 fa fc01ff 03", NodeError::BadUtf8 { offset: 7 });
    refused("f803 13 04 fa 13 fc02 61ff", NodeError::BadUtf8 { offset: 9 });
    refused("f803 13 04 f70001 fc01ff", NodeError::BadUtf8 { offset: 9 });
    refused("f803 13 04 f6 fc01ff 0000 cc", NodeError::BadUtf8 { offset: 7 });
    // Cut in the middle of a character, and a surrogate.
    refused("f801 fc02 61c3", NodeError::BadUtf8 { offset: 5 });
    refused("f801 fc03 eda080", NodeError::BadUtf8 { offset: 4 });
}

#[test]
fn invalid_utf8_in_values_is_replaced() {
    accepted("f803 13 04 fc03 61ff62", |node| assert!(node.attr("type").unwrap() == "a\u{fffd}b"));
    accepted("f805 13 04 fc02 c328 08 fc01ff", |node| {
        assert!(node.attr("type").unwrap() == "\u{fffd}(");
        assert!(node.attr("id").unwrap() == "\u{fffd}");
    });
    // Byte content stays as it is, its text is repaired.
    accepted("f802 13 fc03 61ff62", |node| {
        assert_eq!(node.bytes().as_deref(), Some(&[0x61, 0xff, 0x62][..]));
        assert_eq!(node.text().as_deref(), Some("a\u{fffd}b"));
    });
}

#[test]
fn nul_characters_are_text() {
    accepted("f803 13 04 fc03 610062", |node| assert!(node.attr("type").unwrap() == "a\0b"));
    accepted("f801 fc01 00", |node| assert_eq!(node.tag(), "\0"));
}

fn jid_value(form: &str, expected: Result<Jid, NodeError>) {
    let attr = format!("f803 13 04 {form}");
    let content = format!("f802 13 {form}");
    match expected {
        Err(error) => refused(&attr, error),
        Ok(jid) => {
            accepted(&attr, |node| assert_eq!(node.attr_jid("type"), Some(jid.clone()), "{form}"));
            accepted(&content, |node| match node.content() {
                Content::Jid(own) => assert_eq!(own.to_jid(), jid, "{form}"),
                other => panic!("{form}: {other:?}"),
            });
        }
    }
}

#[test]
fn jid_pairs() {
    jid_value("fa ff0155 00", Err(NodeError::NotAText { offset: 8, byte: 0 }));
    jid_value("fa ff0155 fc00", Err(NodeError::IncompleteJid { offset: 8 }));
    jid_value("fa ff0155 fc04 6e657721", Ok(Jid::new("55", Server::Other("new!".into()))));
    jid_value("fa ff0155 fc04 672e7573", Ok(Jid::new("55", Server::Group)));
    jid_value("fa 00 1c", Ok(Jid::new("", Server::Group)));
    jid_value("fa fc00 1c", Ok(Jid::new("", Server::Group)));
}

#[test]
fn device_jids() {
    let jid = |server| Jid::new("55", server).with_device(3);
    for domain in 0..=255u8 {
        let expected = match domain {
            0 => Ok(jid(Server::Pn)),
            1 => Ok(jid(Server::Lid)),
            129 => Ok(jid(Server::HostedLid)),
            _ if domain >= 128 && domain % 2 == 0 => Ok(jid(Server::Hosted)),
            _ => Err(NodeError::UnknownDomain { offset: 5, domain }),
        };
        jid_value(&format!("f7 {domain:02x} 03 ff0155"), expected);
    }
    jid_value("f7 00 03 00", Err(NodeError::NotAText { offset: 7, byte: 0 }));
    jid_value("f7 00 03 fc00", Err(NodeError::IncompleteJid { offset: 7 }));
    jid_value("f7 00 ff ff0155", Ok(Jid::pn("55").with_device(255)));
    jid_value("f7 00", Err(NodeError::Truncated { offset: 6, wanted: 1 }));
}

#[test]
fn messenger_and_interop_jids_have_one_server() {
    jid_value("f6 ff0155 0102 cc", Ok(Jid::new("55", Server::Messenger).with_device(0x102)));
    jid_value("f6 ff0155 0102 03", Err(NodeError::WrongServer { offset: 10 }));
    jid_value("f6 ff0155 0102 fc04 6d736773", Err(NodeError::WrongServer { offset: 10 }));
    let interop = Jid::new("55", Server::Interop).with_device(0x102).with_integrator(3);
    jid_value("f5 ff0155 0102 0003 fc07 696e7465726f70", Ok(interop));
    jid_value("f5 ff0155 0102 0003 cc", Err(NodeError::WrongServer { offset: 12 }));
    jid_value("f5 ff0155 0102 0003", Err(NodeError::Truncated { offset: 12, wanted: 1 }));
    jid_value("f5 ff0155 0102 0003 fc00", Err(NodeError::IncompleteJid { offset: 12 }));
}

#[test]
fn a_jid_in_a_jid() {
    for (inner, byte) in
        [("fa 13 03", 0xfa), ("f7 00 01 13", 0xf7), ("f6 13 0000 cc", 0xf6), ("f5 13 0000 0000 13", 0xf5)]
    {
        jid_value(&format!("fa {inner} 03"), Err(NodeError::NotAText { offset: 5, byte }));
        jid_value(&format!("fa 13 {inner}"), Err(NodeError::NotAText { offset: 6, byte }));
        jid_value(&format!("f7 00 01 {inner}"), Err(NodeError::NotAText { offset: 7, byte }));
        jid_value(&format!("f6 {inner} 0000 cc"), Err(NodeError::NotAText { offset: 5, byte }));
        jid_value(&format!("f6 13 0000 {inner}"), Err(NodeError::NotAText { offset: 8, byte }));
        jid_value(&format!("f5 {inner} 0000 0000 cc"), Err(NodeError::NotAText { offset: 5, byte }));
    }
}

#[test]
fn bytes_after_the_root_node() {
    refused("f80113 00", NodeError::TrailingBytes { offset: 3 });
    refused("f80113 f80113", NodeError::TrailingBytes { offset: 3 });
    refused("f802 13 f801 f80113 13", NodeError::TrailingBytes { offset: 8 });
    assert_eq!(decode(&zlib(&[0xf8, 0x01, 0x1b, 0x00])), Err(NodeError::TrailingBytes { offset: 3 }));
}

#[test]
fn every_cut_of_a_frame_is_refused() {
    let node = Node::new("message")
        .attr("to", Jid::pn("5511987654321").with_device(2))
        .attr("from", Jid::new("1-2", Server::Group))
        .attr("x", Jid::new("7", Server::Messenger))
        .attr("notify", "Ünïcode")
        .child(Node::new("enc").attr("v", 2).bytes(vec![1; 300]))
        .child(Node::new("user").text("2026-08"));
    let frame = node.encode().unwrap();
    assert_eq!(decode(&frame), Ok(node));
    for len in 0..frame.len() {
        let error = decode(&frame[..len]).expect_err("a cut frame");
        let counted = matches!(error, NodeError::CountBeyondData { .. } | NodeError::Truncated { .. });
        assert!(counted || len < 2, "{len}: {error}");
    }
}
