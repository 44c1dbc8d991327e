//! Binary nodes: the form in which everything after the handshake travels (spec 02).
//!
//! A node is a tag, ordered attributes, and content: nothing, bytes, a text, a JID, or child nodes.
//!
//! ```text
//! frame   = flag (bit 02: the rest is one zlib stream)  node
//! node    = list-header(1 + 2 * attributes + (1 if content))  tag  { key value }  [ content ]
//! text    = token (1 or 2 bytes) | packed (two characters per byte) | raw UTF-8 with a length
//! ```
//!
//! Reading: a [`Decoder`] turns a frame in one pass into a flat tape over the frame's own bytes, and a [`NodeRef`] is a
//! cursor into it: no tree of boxes, no copies of texts, byte content shared with the frame. Writing: [`Node`] is an owned
//! tree with builder methods, and [`Node::encode`]; [`NodeWriter`] writes the same bytes from borrowed parts without a tree.
//! [`NodeRef::to_node`] leads from reading to writing.
//!
//! Remote bytes never make this module panic, recurse without bound, or use more memory than a small multiple of what was
//! received; see [`Limits`]. A frame that fails to decode is one lost frame: the connection goes on.
//!
//! `Debug` of nodes is for logs: an XML-like line in which contents are lengths, JIDs are redacted and attribute values
//! are shown only if they are words of the dictionary or plain ids, codes and times.
//!
//! ```
//! use bytes::Bytes;
//! use wamd::jid::Jid;
//! use wamd::node::{Decoder, Node};
//!
//! let to = Jid::pn("5511987654321").with_device(2);
//! let message = Node::new("message")
//!     .attr("to", &to)
//!     .attr("id", "3EB0A1")
//!     .child(Node::new("enc").attr("v", "2").bytes(vec![1, 2]));
//! let frame = Bytes::from(message.encode()?);
//!
//! let mut decoder = Decoder::default();
//! let root = decoder.decode(frame)?;
//! assert_eq!(root.attr_jid("to"), Some(to));
//! let enc = root.child("enc").expect("just written");
//! assert_eq!(enc.bytes().as_deref(), Some(&[1, 2][..]));
//! assert_eq!(
//!     format!("{root:?}"),
//!     r#"<message to="**21:2@s.whatsapp.net" id="3EB0A1"><enc v="2">[2 bytes]</enc></message>"#
//! );
//! assert_eq!(root.to_node(), message);
//! # Ok::<(), wamd::node::NodeError>(())
//! ```

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod decode;
mod encode;
mod error;
mod fuzz;
mod inflate;
mod owned;
mod packed;
mod show;
mod tape;
mod text;
mod tokens;
mod view;
mod wire;
mod write;

pub use decode::{Decoder, Limits};
pub use error::NodeError;
#[doc(hidden)]
pub use fuzz::fuzz_decode;
pub use owned::{AttrValue, Node, NodeContent};
pub use text::Text;
pub use tokens::DICTIONARY_VERSION;
pub use view::{Attrs, Children, Content, JidRef, NodeRef, Value};
pub use write::{NodeWriter, WireValue};
