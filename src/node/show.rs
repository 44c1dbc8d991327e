//! How nodes look in logs: one XML-like line that gives away no content, no number and no name.
//!
//! Contents are shown as lengths and JIDs redacted. An attribute value is shown if it is a word of the dictionary, or one
//! of the [`PLAIN_KEYS`] without a long run of digits (which could be a phone number); else it is its length.

use std::fmt::{self, Formatter, Write};

use super::owned::NodeContent;
use super::tokens::Token;
use super::{Content, Node, NodeRef, Value};

pub(super) fn borrowed(f: &mut Formatter<'_>, node: NodeRef<'_>) -> fmt::Result {
    open(f, node.tag(), node.attrs())?;
    match node.content() {
        Content::None => return f.write_str("/>"),
        Content::Nodes(children) => {
            f.write_char('>')?;
            let hidden = children.len().saturating_sub(MAX_CHILDREN);
            children.take(MAX_CHILDREN).try_for_each(|child| borrowed(f, child))?;
            more(f, hidden)?;
        }
        leaf => {
            f.write_char('>')?;
            content(f, &leaf)?;
        }
    }
    close(f, node.tag())
}

pub(super) fn owned(f: &mut Formatter<'_>, node: &Node, depth: usize) -> fmt::Result {
    open(f, node.tag(), node.attrs())?;
    match &node.content {
        NodeContent::None => return f.write_str("/>"),
        NodeContent::Nodes(children) if children.is_empty() => return f.write_str("/>"),
        NodeContent::Nodes(_) if depth >= MAX_DEPTH => f.write_str(">…")?,
        NodeContent::Nodes(children) => {
            f.write_char('>')?;
            let deeper = depth.saturating_add(1);
            children.iter().take(MAX_CHILDREN).try_for_each(|child| owned(f, child, deeper))?;
            more(f, children.len().saturating_sub(MAX_CHILDREN))?;
        }
        leaf => {
            f.write_char('>')?;
            owned_content(f, leaf)?;
        }
    }
    close(f, node.tag())
}

pub(super) fn content(f: &mut Formatter<'_>, content: &Content<'_>) -> fmt::Result {
    match content {
        Content::None => f.write_str("[nothing]"),
        Content::Bytes(bytes) => write!(f, "[{} bytes]", bytes.len()),
        Content::Text(text) => value(f, None, Value::Text(text)),
        Content::Jid(jid) => jid.write_redacted(f),
        Content::Nodes(children) => fmt::Debug::fmt(children, f),
    }
}

pub(super) fn owned_content(f: &mut Formatter<'_>, content: &NodeContent) -> fmt::Result {
    match content {
        NodeContent::None => f.write_str("[nothing]"),
        NodeContent::Bytes(bytes) => write!(f, "[{} bytes]", bytes.len()),
        NodeContent::Text(text) => value(f, None, Value::Text(text)),
        NodeContent::Jid(jid) => write!(f, "{}", jid.redacted()),
        NodeContent::Nodes(children) => write!(f, "[{} nodes]", children.len()),
    }
}

/// A value; `key` is the attribute that has it.
pub(super) fn value(f: &mut Formatter<'_>, key: Option<&str>, value: Value<'_>) -> fmt::Result {
    match value {
        Value::Jid(jid) => jid.write_redacted(f),
        Value::Text(text) if text.is_empty() || is_plain(key, text) => write!(f, "{}", text.escape_debug()),
        Value::Text(text) => write!(f, "[{} bytes]", text.len()),
    }
}

pub(super) fn attrs<'a>(f: &mut Formatter<'_>, attrs: impl Iterator<Item = (&'a str, Value<'a>)>) -> fmt::Result {
    for (key, own) in attrs {
        write!(f, " {}=\"", key.escape_debug())?;
        value(f, Some(key), own)?;
        f.write_char('"')?;
    }
    Ok(())
}

fn open<'a>(f: &mut Formatter<'_>, tag: &str, own: impl Iterator<Item = (&'a str, Value<'a>)>) -> fmt::Result {
    write!(f, "<{}", tag.escape_debug())?;
    attrs(f, own)
}

fn close(f: &mut Formatter<'_>, tag: &str) -> fmt::Result {
    write!(f, "</{}>", tag.escape_debug())
}

fn more(f: &mut Formatter<'_>, hidden: usize) -> fmt::Result {
    if hidden == 0 { Ok(()) } else { write!(f, "[{hidden} more]") }
}

fn is_plain(key: Option<&str>, text: &str) -> bool {
    if Token::find(text).is_some() {
        return true;
    }
    let digits_in_a_row = || text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or_default();
    match key {
        Some("t") => text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit()),
        Some(key) => PLAIN_KEYS.contains(&key) && text.len() <= MAX_PLAIN && digits_in_a_row() < PHONE_DIGITS,
        None => false,
    }
}

/// Attributes whose values name stanzas and states, never people.
const PLAIN_KEYS: [&str; 10] = ["id", "type", "xmlns", "code", "count", "v", "version", "class", "offline", "retry"];
/// Longest value that is shown, in bytes.
const MAX_PLAIN: usize = 40;
/// A run of digits of this length could be a phone number.
const PHONE_DIGITS: usize = 7;
/// Children that are shown.
const MAX_CHILDREN: usize = 64;
/// Levels of an owned node that are shown; a decoded one is limited by its decoder.
const MAX_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::Jid;

    fn check(node: &Node, expected: &str) {
        assert_eq!(format!("{node:?}"), expected);
        let mut decoder = super::super::Decoder::default();
        let frame = node.encode().unwrap().into();
        assert_eq!(format!("{:?}", decoder.decode(frame).unwrap()), expected);
    }

    #[test]
    fn logs_show_structure_and_no_contents() {
        let node = Node::new("message")
            .attr("from", Jid::pn("5511987654321").with_device(2))
            .attr("to", "5511987654321@s.whatsapp.net")
            .attr("type", "text")
            .attr("id", "3EB0C767D71D7A7C5CB5")
            .attr("t", 1_755_873_901)
            .attr("notify", "Maria")
            .attr("empty", "")
            .child(Node::new("enc").attr("v", 2).bytes(vec![7; 300]))
            .child(Node::new("user").text("5511987654321"));
        check(
            &node,
            "<message from=\"**21:2@s.whatsapp.net\" to=\"[28 bytes]\" type=\"text\" id=\"3EB0C767D71D7A7C5CB5\" \
             t=\"1755873901\" notify=\"[5 bytes]\" empty=\"\"><enc v=\"2\">[300 bytes]</enc>\
             <user>[13 bytes]</user></message>",
        );
    }

    #[test]
    fn a_phone_number_is_hidden_in_plain_keys_too() {
        check(&Node::new("group").attr("id", "5511987654321-1415389947"), "<group id=\"[24 bytes]\"/>");
        check(&Node::new("group").attr("t", "5511987654321"), "<group t=\"[13 bytes]\"/>");
    }

    #[test]
    fn remote_control_characters_and_long_lists_do_not_flood_the_log() {
        check(&Node::new("a\nb").attr("c\u{1b}", true), "<a\\nb c\\u{1b}=\"true\"/>");
        let many = Node::new("list").children(vec![Node::new("item"); 70]);
        check(&many, &format!("<list>{}[6 more]</list>", "<item/>".repeat(64)));
    }

    #[test]
    fn parts_are_redacted_too() {
        let node = Node::new("user").attr("jid", Jid::lid("210987654321098"));
        assert_eq!(format!("{:?}", node.attrs), "[(\"jid\", **98@lid)]");
        assert_eq!(format!("{:?}", node.get_attr("jid").unwrap()), "**98@lid");
        assert_eq!(format!("{:?}", NodeContent::Text("secret".into())), "[6 bytes]");
        assert_eq!(format!("{:?}", NodeContent::Jid(Jid::lid("210987654321098"))), "**98@lid");
        assert_eq!(format!("{:?}", NodeContent::Nodes(vec![node])), "[1 nodes]");
        assert_eq!(format!("{:?}", NodeContent::None), "[nothing]");
    }
}
