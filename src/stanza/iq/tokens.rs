//! Privacy tokens on the wire (spec 03 §4.7): issuing our own, and reading those of others.

use bytes::Bytes;

use super::request;
use crate::{
    jid::Jid,
    node::{Node, NodeRef},
};

/// Most tokens of one stanza that are read. One is usual.
const MAX_TOKENS: usize = 16;
/// The only type of tokens there is.
const TRUSTED: &str = "trusted_contact";

/// A token of a peer for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Opaque.
    pub bytes: Bytes,
    /// Unix seconds.
    pub timestamp: u64,
}

/// Gives `peer` a token of ours, dated `timestamp`, unix seconds.
pub fn issue(peer: &Jid, timestamp: u64) -> Node {
    let token = Node::new("token").attr("jid", peer).attr("t", timestamp).attr("type", TRUSTED);
    request("set", "privacy").child(Node::new("tokens").child(token))
}

/// The tokens of a `<notification type="privacy_token">`, or of the answer to [`issue`]. Those of an unknown type, or without
/// bytes or time, are left out.
pub fn tokens(node: NodeRef<'_>) -> Vec<Token> {
    let tokens = node.child("tokens").into_iter().flat_map(|tokens| tokens.children()).take(MAX_TOKENS);
    let trusted = tokens.filter(|token| token.tag() == "token" && token.attr_str("type").as_deref() == Some(TRUSTED));
    trusted.filter_map(|token| Some(Token { bytes: token.bytes()?, timestamp: token.attr_u64("t")? })).collect()
}

/// `<tctoken>`: the peer's token, in a stanza to it.
pub fn trusted(token: Bytes) -> Node {
    Node::new("tctoken").bytes(token)
}

/// `<cstoken>`: the salted token, in a stanza to somebody whose token we do not have.
pub fn salted(token: [u8; 32]) -> Node {
    Node::new("cstoken").bytes(token.to_vec())
}
