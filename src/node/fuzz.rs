//! Entry point of the fuzz target, which an ordinary test replays, too.

use bytes::Bytes;

use super::{AttrValue, Decoder, Limits, Node, NodeContent, NodeRef};
use crate::jid::{Jid, Server};

/// Decodes `data` as a frame. If it is one: the borrowed and the owned node agree, the node can be written, and what was
/// written reads as the same node.
///
/// # Panics
/// When one of these does not hold, which is what the fuzzer looks for.
#[doc(hidden)]
pub fn fuzz_decode(data: &[u8]) {
    let mut decoder = Decoder::new(Limits::default());
    let Ok(root) = decoder.decode(Bytes::copy_from_slice(data)) else { return };
    let node = root.to_node();
    assert_same(root, &node);
    assert_eq!(format!("{root:?}"), format!("{node:?}"));
    let encoded = node.encode();
    assert!(encoded.is_ok(), "a decoded node does not encode: {encoded:?}");
    // The interop form is written without a server and read with one.
    if !has_interop_jid(&node) {
        let again = Node::decode(encoded.unwrap_or_default());
        assert_eq!(again.map(normal), Ok(normal(node)));
    }
}

fn assert_same(borrowed: NodeRef<'_>, owned: &Node) {
    assert_eq!(borrowed.tag(), owned.tag());
    assert!(borrowed.attrs().eq(owned.attrs()));
    for (key, _) in borrowed.attrs().take(64) {
        assert_eq!(borrowed.attr(key), owned.get_attr(key));
        assert_eq!(borrowed.attr_str(key), owned.attr_str(key));
        assert_eq!(borrowed.attr_jid(key), owned.attr_jid(key));
        assert_eq!(borrowed.attr_u64(key), owned.attr_u64(key));
    }
    assert_eq!(borrowed.bytes(), owned.content_bytes());
    assert_eq!(borrowed.text(), owned.content_text());
    assert_eq!(borrowed.children().count(), owned.child_nodes().len());
    for (borrowed, owned) in borrowed.children().zip(owned.child_nodes()) {
        assert_same(borrowed, owned);
    }
}

/// Text content that has no form of its own is written like bytes.
fn normal(mut node: Node) -> Node {
    node.content = match node.content {
        NodeContent::Text(text) => NodeContent::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        NodeContent::Nodes(nodes) => NodeContent::Nodes(nodes.into_iter().map(normal).collect()),
        other => other,
    };
    node
}

fn has_interop_jid(node: &Node) -> bool {
    let is_interop = |jid: &Jid| *jid.server() == Server::Interop;
    let in_content = matches!(&node.content, NodeContent::Jid(jid) if is_interop(jid));
    let in_attrs = node.attrs.iter().any(|(_, value)| matches!(value, AttrValue::Jid(jid) if is_interop(jid)));
    in_content || in_attrs || node.child_nodes().iter().any(has_interop_jid)
}
