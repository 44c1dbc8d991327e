//! Typed stanzas: what the engine acts on, read from nodes and written to nodes. No state and no decisions.
//!
//! One file per family. A query is a type with two pure functions: its request as a [`Node`](crate::node::Node), and
//! its answer from a [`NodeRef`]. Everything read is owned by the typed value (ciphertexts share the frame's buffer),
//! because a stanza may wait for records while the decoder goes on.
//!
//! | file | stanzas | spec |
//! |---|---|---|
//! | [`iq`] | requests and answers, one file per namespace | 01 §6, 03 §1, §4.9 |
//! | [`message`] | `<message>` in | 03 §5.1 |
//! | [`outgoing`] | `<message>` out | 03 §4.5 |
//! | [`resend`] | `<message>` out, to a device that asked for it again | 03 §5.7 |
//! | [`receipt`] | `<receipt>` in and out | 03 §5.5, §5.6, §6.2 |
//! | [`ack`] | `<ack>` in and out | 01 §6.11, 03 §6.1 |
//! | [`group`], [`group_notice`] | `<group>`, notifications about groups | 06 §7 |
//! | [`stream`] | `success`, `failure`, `stream:error`, `ib`, `notification` | 01 §6 |
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod ack;
#[doc(hidden)]
pub mod fuzz;
pub mod group;
pub mod group_notice;
pub mod iq;
pub mod message;
pub mod outgoing;
pub mod receipt;
pub mod resend;
pub mod stream;

use crate::{jid::Jid, node::NodeRef};

/// A stanza that lacks what its kind must have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StanzaError {
    /// An attribute is missing or not of its form.
    #[error("<{tag}> without a usable attribute {name:?}")]
    Attribute {
        /// Tag of the stanza.
        tag: &'static str,
        /// Name of the attribute.
        name: &'static str,
    },
    /// A child is missing.
    #[error("<{tag}> without a child {child:?}")]
    Child {
        /// Tag of the stanza.
        tag: &'static str,
        /// Tag of the child.
        child: &'static str,
    },
    /// A content has the wrong number of bytes or is not what its element must hold.
    #[error("<{tag}> with unusable content")]
    Content {
        /// Tag of the element.
        tag: &'static str,
    },
    /// There are more elements of a kind than are taken.
    #[error("more than {max} <{tag}>")]
    TooMany {
        /// Tag of the elements.
        tag: &'static str,
        /// How many are taken.
        max: usize,
    },
}

/// A required attribute as text.
fn required_text(node: NodeRef<'_>, tag: &'static str, name: &'static str) -> Result<String, StanzaError> {
    match node.attr_str(name) {
        Some(text) if !text.is_empty() => Ok(text.into_owned()),
        _ => Err(StanzaError::Attribute { tag, name }),
    }
}

/// Longest id of a message that is taken, bytes: the official ones have at most 40, and ours are parts of record keys.
pub const MAX_ID: usize = 128;

/// The id of a message, which is there and not too long.
fn required_id(node: NodeRef<'_>, tag: &'static str) -> Result<String, StanzaError> {
    let id = required_text(node, tag, "id")?;
    if id.len() > MAX_ID { Err(StanzaError::Attribute { tag, name: "id" }) } else { Ok(id) }
}

/// A required attribute as JID.
fn required_jid(node: NodeRef<'_>, tag: &'static str, name: &'static str) -> Result<Jid, StanzaError> {
    node.attr_jid(name).ok_or(StanzaError::Attribute { tag, name })
}

/// Most children of a stanza whose identities are looked at.
const MAX_PEOPLE: usize = 16;

/// Both identities of the people that a stanza names, as far as it has them; without device. For stanzas that are not read
/// in detail: `participant`, `from` and `recipient` by the attributes that go with them, and whoever calls in a child.
pub fn people(node: NodeRef<'_>) -> Vec<(Jid, Jid)> {
    let mut people = Vec::new();
    for (who, others) in [
        ("participant", ["participant_pn", "participant_lid"]),
        ("from", ["sender_pn", "sender_lid"]),
        ("recipient", ["peer_recipient_pn", "peer_recipient_lid"]),
        ("recipient", ["recipient_pn", "recipient_lid"]),
    ] {
        people.extend(node.attr_jid(who).and_then(|jid| other_identity(node, &jid, &others)));
    }
    for child in node.children().take(MAX_PEOPLE) {
        let caller = child.attr_jid("call-creator");
        people.extend(caller.and_then(|jid| other_identity(child, &jid, &["caller_pn", "caller_lid"])));
    }
    people
}

/// Somebody, and the other identity that one of these attributes has.
fn other_identity(node: NodeRef<'_>, jid: &Jid, names: &[&str]) -> Option<(Jid, Jid)> {
    let other = names.iter().filter_map(|name| node.attr_jid(name)).find(|other| !other.same_account(jid))?;
    Some((jid.to_account(), other.to_account()))
}

/// A child that must be there.
fn required_child<'a>(node: NodeRef<'a>, tag: &'static str, child: &'static str) -> Result<NodeRef<'a>, StanzaError> {
    node.child(child).ok_or(StanzaError::Child { tag, child })
}

/// The content of an element as exactly `N` bytes.
fn fixed<const N: usize>(node: NodeRef<'_>, tag: &'static str) -> Result<[u8; N], StanzaError> {
    node.bytes().and_then(|bytes| bytes.as_ref().try_into().ok()).ok_or(StanzaError::Content { tag })
}
