//! Reading a decoded node: [`NodeRef`] and what it gives.
//!
//! All of these are `Copy` and borrow the decoder's tape. None of them panics or recurses.

use std::borrow::Cow;
use std::fmt;
use std::slice;

use bytes::Bytes;

use super::tape::{AttrEntry, ContentEntry, JidEntry, NodeEntry, ServerEntry, Tape, Text, ValueEntry};
use super::{AttrValue, Node, NodeContent, show};
use crate::jid::{self, Jid, Server};

/// A node of the frame that a [`Decoder`](super::Decoder) holds.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    tape: &'a Tape,
    entry: &'a NodeEntry,
    number: u32,
}

impl<'a> NodeRef<'a> {
    pub(super) fn root(tape: &'a Tape) -> Option<Self> {
        Self::at(tape, 0)
    }

    fn at(tape: &'a Tape, number: u32) -> Option<Self> {
        Some(Self { tape, entry: tape.nodes.get(number as usize)?, number })
    }

    /// The tag; never empty.
    pub fn tag(&self) -> &'a str {
        self.tape.text(self.entry.tag)
    }

    /// Whether the tag is `tag`.
    pub fn is(&self, tag: &str) -> bool {
        self.tape.text_is(self.entry.tag, tag)
    }

    /// The attribute's value. Of duplicate keys the last one counts.
    pub fn attr(&self, key: &str) -> Option<Value<'a>> {
        let attrs = self.attr_entries().iter();
        let entry = attrs.rev().find(|entry| self.tape.text_is(entry.key, key))?;
        Some(value(self.tape, entry.value))
    }

    /// All attributes in wire order, duplicates included.
    pub fn attrs(&self) -> Attrs<'a> {
        Attrs { tape: self.tape, entries: self.attr_entries().iter() }
    }

    /// The attribute as text; a JID gives its canonical text.
    pub fn attr_str(&self, key: &str) -> Option<Cow<'a, str>> {
        self.attr(key).map(Value::as_text)
    }

    /// The attribute as JID, which may have been sent as JID or as text; `None` also for a text that is no JID.
    pub fn attr_jid(&self, key: &str) -> Option<Jid> {
        self.attr(key).and_then(Value::to_jid)
    }

    /// The attribute as decimal number; `None` also for anything else.
    pub fn attr_u64(&self, key: &str) -> Option<u64> {
        self.attr(key).and_then(Value::as_u64)
    }

    /// The child nodes; none when the content is something else.
    pub fn children(&self) -> Children<'a> {
        let left = if let ContentEntry::Nodes(count) = self.entry.content { count } else { 0 };
        Children { tape: self.tape, next: self.number.saturating_add(1), left }
    }

    /// The first child with this tag.
    pub fn child(&self, tag: &str) -> Option<Self> {
        self.children().find(|child| child.is(tag))
    }

    /// The children with this tag.
    pub fn children_named<'t>(&self, tag: &'t str) -> impl Iterator<Item = Self> + use<'a, 't> {
        self.children().filter(move |child| child.is(tag))
    }

    /// The first child.
    pub fn first_child(&self) -> Option<Self> {
        self.children().next()
    }

    /// The content as it came.
    pub fn content(&self) -> Content<'a> {
        let tape = self.tape;
        match self.entry.content {
            ContentEntry::None => Content::None,
            ContentEntry::Bytes(span) => Content::Bytes(tape.bytes(span)),
            ContentEntry::Text(text) => Content::Text(tape.text(text)),
            ContentEntry::Jid(number) => jid(tape, number).map_or(Content::None, Content::Jid),
            ContentEntry::Nodes(_) => Content::Nodes(self.children()),
        }
    }

    /// The content as bytes: byte content as a slice that shares the frame's buffer (and keeps it alive), a text or JID as
    /// its UTF-8; `None` without content and for children.
    pub fn bytes(&self) -> Option<Bytes> {
        let tape = self.tape;
        let slice = |span: super::tape::Span| {
            let range = span.range();
            (range.end <= tape.frame.len()).then(|| tape.frame.slice(range))
        };
        match self.entry.content {
            ContentEntry::Bytes(span) | ContentEntry::Text(Text::Frame(span)) => slice(span),
            ContentEntry::Text(Text::Token(token)) => Some(Bytes::from_static(token.text().as_bytes())),
            ContentEntry::Text(text) => Some(Bytes::copy_from_slice(tape.text(text).as_bytes())),
            ContentEntry::Jid(number) => jid(tape, number).map(|jid| Bytes::from(jid.to_string())),
            ContentEntry::None | ContentEntry::Nodes(_) => None,
        }
    }

    /// The content as text: a text as it is, a JID as its canonical text, bytes read as UTF-8 with U+FFFD for what is
    /// wrong; `None` without content and for children.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self.content() {
            Content::Bytes(bytes) => Some(String::from_utf8_lossy(bytes)),
            Content::Text(text) => Some(Cow::Borrowed(text)),
            Content::Jid(jid) => Some(Cow::Owned(jid.to_string())),
            Content::None | Content::Nodes(_) => None,
        }
    }

    /// An owned copy of the whole subtree. Byte content still shares the frame's buffer.
    pub fn to_node(&self) -> Node {
        // Backwards through the subtree, so that the children of a node lie finished on the stack, the first one on top.
        let mut finished: Vec<Node> = Vec::new();
        for number in (self.number..self.entry.next).rev() {
            let Some(source) = Self::at(self.tape, number) else { continue };
            let content = match source.content() {
                Content::None => NodeContent::None,
                Content::Bytes(_) => NodeContent::Bytes(source.bytes().unwrap_or_default()),
                Content::Text(text) => NodeContent::Text(text.into()),
                Content::Jid(jid) => NodeContent::Jid(jid.to_jid()),
                Content::Nodes(children) => {
                    let mut nodes = finished.split_off(finished.len().saturating_sub(children.len()));
                    nodes.reverse();
                    NodeContent::Nodes(nodes)
                }
            };
            let attrs = source.attrs().map(|(key, value)| (key.into(), value.into())).collect();
            finished.push(Node { tag: source.tag().into(), attrs, content });
        }
        finished.pop().unwrap_or_else(|| Node::new(self.tag()))
    }

    fn attr_entries(&self) -> &'a [AttrEntry] {
        self.tape.attrs.get(self.entry.attrs()).unwrap_or_default()
    }
}

impl fmt::Debug for NodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::borrowed(f, *self)
    }
}

/// An attribute's value.
///
/// Only what was typed as a JID on the wire is [`Value::Jid`]; the conversions accept both forms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text, which may be empty.
    Text(&'a str),
    /// A JID.
    Jid(JidRef<'a>),
}

impl<'a> Value<'a> {
    /// The text, or the JID's canonical text.
    pub fn as_text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Jid(jid) => Cow::Owned(jid.to_string()),
        }
    }

    /// The JID, or the text parsed as one.
    pub fn to_jid(self) -> Option<Jid> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Jid(jid) => Some(jid.to_jid()),
        }
    }

    /// The text as decimal number: digits only, no sign.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::value(f, None, *self)
    }
}

impl PartialEq<str> for Value<'_> {
    fn eq(&self, text: &str) -> bool {
        matches!(self, Self::Text(own) if *own == text)
    }
}

impl PartialEq<&str> for Value<'_> {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
    }
}

impl From<Value<'_>> for AttrValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Text(text) => Self::Text(text.into()),
            Value::Jid(jid) => Self::Jid(jid.to_jid()),
        }
    }
}

/// A JID in a frame; [`JidRef::to_jid`] makes it a value of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JidRef<'a> {
    user: &'a str,
    server: &'a str,
    device: u16,
    integrator: u16,
}

impl<'a> JidRef<'a> {
    pub(super) fn new(jid: &'a Jid) -> Self {
        let (device, integrator) = (jid.device(), jid.integrator());
        Self { user: jid.user(), server: jid.server().as_str(), device, integrator }
    }

    /// The user part; empty for a server.
    pub fn user(self) -> &'a str {
        self.user
    }

    /// The server's name.
    pub fn server(self) -> &'a str {
        self.server
    }

    /// The device; 0 is the primary phone or none.
    pub fn device(self) -> u16 {
        self.device
    }

    /// The integrator; 0 on everything but `interop`.
    pub fn integrator(self) -> u16 {
        self.integrator
    }

    /// An owned copy; without allocation unless a part is longer than 24 bytes.
    pub fn to_jid(self) -> Jid {
        Jid::from_parts(self.user, Server::from_wire(self.server), self.device, self.integrator)
    }

    pub(super) fn write_redacted(self, f: &mut dyn fmt::Write) -> fmt::Result {
        jid::write_redacted(f, self.user, self.server, self.device)
    }
}

/// The canonical text, as [`Jid`] prints it.
impl fmt::Display for JidRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        jid::write_text(f, self.user, self.server, self.device, self.integrator)
    }
}

/// The form for logs, as [`Jid::redacted`] prints it.
impl fmt::Debug for JidRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_redacted(f)
    }
}

impl From<JidRef<'_>> for Jid {
    fn from(jid: JidRef<'_>) -> Self {
        jid.to_jid()
    }
}

/// What a node holds.
#[derive(Clone)]
pub enum Content<'a> {
    /// Nothing; also an empty child list.
    None,
    /// Bytes, also where they look like text.
    Bytes(&'a [u8]),
    /// A text sent in a text form (a token or packed).
    Text(&'a str),
    /// A JID sent in a JID form.
    Jid(JidRef<'a>),
    /// Child nodes, at least one.
    Nodes(Children<'a>),
}

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::content(f, self)
    }
}

/// The attributes of a node in wire order.
#[derive(Clone)]
pub struct Attrs<'a> {
    tape: &'a Tape,
    entries: slice::Iter<'a, AttrEntry>,
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some((self.tape.text(entry.key), value(self.tape, entry.value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Attrs<'_> {}

impl fmt::Debug for Attrs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::attrs(f, self.clone())
    }
}

/// The children of a node in order.
#[derive(Clone)]
pub struct Children<'a> {
    tape: &'a Tape,
    next: u32,
    left: u32,
}

impl<'a> Iterator for Children<'a> {
    type Item = NodeRef<'a>;

    fn next(&mut self) -> Option<NodeRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        let node = NodeRef::at(self.tape, self.next)?;
        self.next = node.entry.next;
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Children<'_> {}

impl fmt::Debug for Children<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} nodes]", self.left)
    }
}

fn value(tape: &Tape, entry: ValueEntry) -> Value<'_> {
    match entry {
        ValueEntry::Text(text) => Value::Text(tape.text(text)),
        ValueEntry::Jid(number) => jid(tape, number).map_or(Value::Text(""), Value::Jid),
    }
}

fn jid(tape: &Tape, number: u32) -> Option<JidRef<'_>> {
    let &JidEntry { user, server, device, integrator } = tape.jids.get(number as usize)?;
    let server = match server {
        ServerEntry::Known(name) => name,
        ServerEntry::Text(text) => tape.text(text),
    };
    Some(JidRef { user: tape.text(user), server, device, integrator })
}
