//! Queries in JSON (spec 06 §9.9, §10, §15): a document id, variables, and the data of the answer; the same data comes as
//! notifications, too. Read are those about restrictions of the account.

use serde_json::{Value, json};

use super::request;
use crate::node::{Node, NodeRef};

/// Documents of the server; they change rarely.
mod document {
    /// Whether the account may write to strangers.
    pub(super) const REACH_OUT: &str = "23983697327930364";
    /// How many chats it may still begin.
    pub(super) const MESSAGE_CAP: &str = "27910975521856601";
}

/// Longest JSON text that is read, bytes. Those about restrictions have some hundred.
const MAX_JSON: usize = 262_144;
/// Times above this are milliseconds: as seconds it would be the year 5138.
const MILLIS: u64 = 100_000_000_000;

/// Whether the account may write to strangers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReachOut {
    /// It may not.
    pub is_active: bool,
    /// The server's word for why.
    pub enforcement: Option<String>,
    /// When that ends, unix milliseconds.
    pub ends_ms: Option<u64>,
}

/// How many chats the account may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageCap {
    /// In one cycle.
    pub total: Option<u64>,
    /// Those of this cycle that are used up.
    pub used: Option<u64>,
    /// `NONE`, `FIRST_WARNING`, `SECOND_WARNING`, `CAPPED`.
    pub status: Option<String>,
    /// When the cycle ends, unix milliseconds.
    pub ends_ms: Option<u64>,
}

impl MessageCap {
    /// No more chats can be begun.
    pub fn is_capped(&self) -> bool {
        self.status.as_deref() == Some("CAPPED")
    }
}

/// Something about restrictions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restriction {
    /// Writing to strangers.
    ReachOut(ReachOut),
    /// Beginning chats.
    MessageCap(MessageCap),
}

/// Asks whether the account may write to strangers.
pub fn reach_out_request() -> Node {
    query(document::REACH_OUT, &json!({"variables": {}}))
}

/// Asks how many chats the account may begin.
pub fn message_cap_request() -> Node {
    query(document::MESSAGE_CAP, &json!({"variables": {"input": {"type": "INDIVIDUAL_NEW_CHAT_MSG"}}}))
}

fn query(document: &'static str, variables: &Value) -> Node {
    let query = Node::new("query").attr("query_id", document).bytes(variables.to_string().into_bytes());
    request("get", "w:mex").child(query)
}

/// What an answer says about restrictions; `None` when it says nothing that is understood.
pub fn answer(node: NodeRef<'_>) -> Option<Restriction> {
    restriction(&parse(node.child("result")?)?)
}

/// What the updates of a `<notification type="mex">` say about restrictions.
pub fn updates(node: NodeRef<'_>) -> Vec<Restriction> {
    let updates = node.children().take(MAX_UPDATES).filter(|child| child.tag() == "update");
    updates.filter_map(|update| restriction(&parse(update)?)).collect()
}

/// Most updates of one notification that are read. One is usual.
const MAX_UPDATES: usize = 16;

fn parse(node: NodeRef<'_>) -> Option<Value> {
    let bytes = node.bytes().filter(|bytes| bytes.len() <= MAX_JSON)?;
    // The parser has a limit of its own for nesting.
    serde_json::from_slice(&bytes).ok()
}

/// The names of the data differ between query and notification; what is inside does not.
fn restriction(json: &Value) -> Option<Restriction> {
    let data = json.get("data").unwrap_or(json).as_object()?;
    let text =
        |found: &Value, name| found.get(name).and_then(Value::as_str).map(|text| text.chars().take(64).collect());
    for found in data.values() {
        if let Some(is_active) = found.get("is_active").and_then(Value::as_bool) {
            return Some(Restriction::ReachOut(ReachOut {
                is_active,
                enforcement: text(found, "enforcement_type"),
                ends_ms: found.get("time_enforcement_ends").and_then(time),
            }));
        }
        if found.get("capping_status").is_some() || found.get("total_quota").is_some() {
            return Some(Restriction::MessageCap(MessageCap {
                total: found.get("total_quota").and_then(number),
                used: found.get("used_quota").and_then(number),
                status: text(found, "capping_status"),
                ends_ms: found.get("cycle_end_timestamp").and_then(time),
            }));
        }
    }
    None
}

/// A number, or one as a text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A time in seconds, or in milliseconds, as unix milliseconds. 0 is none.
fn time(value: &Value) -> Option<u64> {
    number(value).filter(|at| *at != 0).map(|at| if at < MILLIS { at.saturating_mul(1_000) } else { at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Restriction> {
        restriction(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn restrictions_under_whatever_name() {
        let expected = Restriction::ReachOut(ReachOut {
            is_active: true,
            enforcement: Some("BIZ_QUALITY".to_owned()),
            ends_ms: Some(1_760_000_000_000),
        });
        let inside = r#"{"is_active":true,"enforcement_type":"BIZ_QUALITY","time_enforcement_ends":"1760000000"}"#;
        for name in ["xwa2_fetch_account_reachout_timelock", "xwa2_notify_account_reachout_timelock"] {
            assert_eq!(read(&format!(r#"{{"data":{{"{name}":{inside}}}}}"#)), Some(expected.clone()));
            assert_eq!(read(&format!(r#"{{"{name}":{inside}}}"#)), Some(expected.clone()));
        }
        let lifted = Restriction::ReachOut(ReachOut::default());
        assert_eq!(read(r#"{"data":{"a":{"is_active":false,"time_enforcement_ends":0}}}"#), Some(lifted));
        let cap = r#"{"data":{"xwa2_notify_new_chat_messages_capping_info_update":{"total_quota":"250","used_quota":250,
            "capping_status":"CAPPED","cycle_end_timestamp":1760000000000}}}"#;
        let Some(Restriction::MessageCap(cap)) = read(cap) else { panic!("a cap") };
        assert!(cap.is_capped());
        assert_eq!((cap.total, cap.used, cap.ends_ms), (Some(250), Some(250), Some(1_760_000_000_000)));
    }

    #[test]
    fn other_json_says_nothing() {
        for text in
            ["1", "[]", "{}", r#"{"data":null}"#, r#"{"data":{"a":{"is_active":"yes"}}}"#, r#"{"data":{"a":[1]}}"#]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
