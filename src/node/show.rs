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
