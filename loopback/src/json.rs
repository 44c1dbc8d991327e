//! A stanza as JSON: `{"tag","attrs":{"to":{"jid":"1@lid"},"t":5,"type":"x"},"children":[…]}`, or `"text"` or `"hex"` in the
//! place of `"children"`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use wamd::jid::Jid;
use wamd::node::Node;

/// Reads a stanza, for fields of serde values.
pub(crate) fn node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
    Shape::deserialize(deserializer)?.build().map_err(D::Error::custom)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    tag: String,
    #[serde(default)]
    attrs: BTreeMap<String, Attr>,
    #[serde(default)]
    children: Vec<Self>,
    text: Option<String>,
    hex: Option<String>,
}

/// A JID goes over the wire in a form of its own, so it has one here.
#[derive(Deserialize)]
#[serde(untagged)]
enum Attr {
    Jid { jid: Jid },
    Number(u64),
    Text(String),
}

impl Shape {
    fn build(self) -> Result<Node, String> {
        let node = self.attrs.into_iter().fold(Node::new(self.tag), |node, (name, value)| match value {
            Attr::Jid { jid } => node.attr(name, jid),
            Attr::Number(number) => node.attr(name, number),
            Attr::Text(text) => node.attr(name, text),
        });
        match (self.children.is_empty(), self.text, self.hex) {
            (_, None, None) => {
                let children: Result<Vec<Node>, String> = self.children.into_iter().map(Self::build).collect();
                Ok(node.children(children?))
            }
            (true, Some(text), None) => Ok(node.text(text)),
            (true, None, Some(digits)) => Ok(node.bytes(hex::decode(digits).map_err(|error| error.to_string())?)),
            _ => Err("only one of children, text and hex".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Holder(#[serde(deserialize_with = "node")] Node);

    fn read(json: &str) -> Option<Node> {
        serde_json::from_str::<Holder>(json).ok().map(|holder| holder.0)
    }

    #[test]
    fn stanzas_are_json() {
        let json = r#"{"tag":"a","attrs":{"j":{"jid":"1:2@lid"},"n":5,"s":"x"},"children":[{"tag":"b","text":"hi"},
            {"tag":"c","hex":"00ff"}]}"#;
        let jid: Jid = "1:2@lid".parse().unwrap();
        let expected = Node::new("a").attr("j", jid).attr("n", 5_u64).attr("s", "x");
        let expected = expected.child(Node::new("b").text("hi")).child(Node::new("c").bytes(vec![0, 255]));
        assert_eq!(read(json), Some(expected));
        assert_eq!(read(r#"{"tag":"a"}"#), Some(Node::new("a")));
        for bad in [r#"{}"#, r#"{"tag":"a","hex":"0"}"#, r#"{"tag":"a","text":"x","hex":"00"}"#, r#"{"tag":"a","x":1}"#]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
