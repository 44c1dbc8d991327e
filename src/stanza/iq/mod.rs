//! Requests and their answers. Matching is by id alone (spec 01 §6.10); the engine's correlator does it.

pub mod app_state;
pub mod groups;
pub mod mex;
pub mod prekeys;
pub mod session;
pub mod tokens;
pub mod usync;

use crate::{
    jid::Jid,
    node::{Node, NodeRef},
};

/// The server refused a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server answered {code} {text}")]
pub struct IqError {
    /// Numeric code (spec 01 §6.10); 0 when there was none.
    pub code: u32,
    /// Text of the server; short.
    pub text: String,
    /// Seconds to wait before trying again, when the server says so.
    pub backoff: Option<u64>,
}

/// A request to the server; the id is added when it is sent.
pub(crate) fn request(kind: &'static str, namespace: &'static str) -> Node {
    Node::new("iq").attr("to", Jid::whatsapp_server()).attr("type", kind).attr("xmlns", namespace)
}

/// The empty result that answers a request of the server.
pub fn result(id: &str) -> Node {
    Node::new("iq").attr("to", Jid::whatsapp_server()).attr("type", "result").attr("id", id)
}

/// Splits an answer into result and error.
///
/// # Errors
/// [`IqError`] when the server refused.
pub fn answer(node: NodeRef<'_>) -> Result<NodeRef<'_>, IqError> {
    if node.attr_str("type").as_deref() != Some("error") {
        return Ok(node);
    }
    Err(error_of(node))
}

/// The `<error>` child of an element.
pub(crate) fn error_of(node: NodeRef<'_>) -> IqError {
    let error = node.child("error");
    let number = |name| error.and_then(|error| error.attr_u64(name));
    let mut text = error.and_then(|error| error.attr_str("text")).map(|text| text.into_owned()).unwrap_or_default();
    // A text of the server that goes into logs and events; no real one is longer.
    text.truncate(text.char_indices().nth(64).map_or(text.len(), |(at, _)| at));
    IqError {
        code: number("code").and_then(|code| u32::try_from(code).ok()).unwrap_or(0),
        text,
        backoff: number("backoff"),
    }
}
