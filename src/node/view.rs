//! Reading a decoded node: [`NodeRef`] and what it gives.
//!
//! All of these are `Copy` and borrow the decoder's tape. None of them panics or recurses.

use std::borrow::Cow;
use std::fmt;
use std::slice;

use bytes::Bytes;

use super::tape::{ContentKind, Entry, Tape, Word, nothing};
use super::tokens::Token;
use super::{AttrValue, Node, NodeContent, Text, show};
use crate::jid::{self, Jid, Server};

/// A node of the frame that a [`Decoder`](super::Decoder) holds.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    tape: &'a Tape,
    head: &'a Entry,
    /// What is behind the head, to the end of the tape.
    rest: &'a [Entry],
}

impl<'a> NodeRef<'a> {
    pub(super) fn root(tape: &'a Tape) -> Option<Self> {
        let (head, rest) = tape.entries.get(..tape.used)?.split_first()?;
        Some(Self { tape, head, rest })
    }

    #[inline(always)]
    const fn meta(&self) -> Word {
        self.head[1]
    }

    #[inline(always)]
    const fn content_word(&self) -> Word {
        self.head[2]
    }

    /// What is behind the attributes.
    #[inline(always)]
    fn behind_attrs(&self) -> &'a [Entry] {
        self.rest.get(usize::from(self.meta().count())..).unwrap_or_else(nothing)
    }

    /// The tag; never empty.
    #[inline(always)]
    pub fn tag(&self) -> &'a str {
        self.tape.text(self.head[0])
    }

    /// Whether the tag is `tag`.
    pub fn is(&self, tag: &str) -> bool {
        self.tape.text_is(self.head[0], tag)
    }

    /// The attribute's value. Of duplicate keys the last one counts.
    pub fn attr(&self, key: &str) -> Option<Value<'a>> {
        let found = self.attrs().entries.rfind(|[own, ..]| self.tape.text_is(*own, key));
        found.map(|&[_, value, server]| Value::read(self.tape, value, server))
    }

    /// All attributes in wire order, duplicates included.
    #[inline(always)]
    pub fn attrs(&self) -> Attrs<'a> {
        let own = self.rest.get(..usize::from(self.meta().count())).unwrap_or_else(nothing);
        Attrs { tape: self.tape, entries: own.iter() }
    }

    /// The attribute as text; a JID gives its canonical text.
    pub fn attr_str(&self, key: &str) -> Option<Cow<'a, str>> {
        self.attr(key).map(Value::as_text)
    }

    /// The attribute as JID, which may have been sent as JID or as text; `None` also for a text that is no JID, and for a JID
    /// whose text would be that of another.
    pub fn attr_jid(&self, key: &str) -> Option<Jid> {
        self.attr(key).and_then(Value::to_jid).filter(Jid::has_text_form)
    }

    /// The attribute as decimal number; `None` also for anything else.
    pub fn attr_u64(&self, key: &str) -> Option<u64> {
        self.attr(key).and_then(Value::as_u64)
    }

    /// The child nodes; none when the content is something else.
    #[inline(always)]
    pub fn children(&self) -> Children<'a> {
        match self.meta().kind() {
            ContentKind::Nodes => {
                Children { tape: self.tape, entries: self.behind_attrs(), left: self.content_word().count() }
            }
            _ => Children { tape: self.tape, entries: &[], left: 0 },
        }
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
    #[inline(always)]
    pub fn content(&self) -> Content<'a> {
        let tape = self.tape;
        match self.meta().kind() {
            ContentKind::None => Content::None,
            ContentKind::Bytes => Content::Bytes(tape.bytes(self.content_word())),
            ContentKind::Text => Content::Text(tape.text(self.content_word())),
            ContentKind::Jid => self.content_jid().map_or(Content::None, Content::Jid),
            ContentKind::Nodes => Content::Nodes(self.children()),
        }
    }

    /// The content as bytes: byte content as a slice that shares the frame's buffer (and keeps it alive), a text or JID as
    /// its UTF-8; `None` without content and for children.
    pub fn bytes(&self) -> Option<Bytes> {
        let tape = self.tape;
        match self.meta().kind() {
            ContentKind::Bytes => {
                let range = self.content_word().range();
                (range.end <= tape.frame.len()).then(|| tape.frame.slice(range))
            }
            ContentKind::Text => Some(Bytes::copy_from_slice(tape.text(self.content_word()).as_bytes())),
            ContentKind::Jid => self.content_jid().map(|jid| Bytes::from(jid.to_string())),
            ContentKind::None | ContentKind::Nodes => None,
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
        // The nodes whose children are being copied, and the children that are left.
        let mut open: Vec<(Node, Children<'a>)> = Vec::new();
        let (mut node, mut children) = (self.copy_without_children(), self.children());
        loop {
            if let Some(child) = children.next() {
                open.push((node, children));
                (node, children) = (child.copy_without_children(), child.children());
                continue;
            }
            let Some((mut parent, siblings)) = open.pop() else { return node };
            if let NodeContent::Nodes(nodes) = &mut parent.content {
                nodes.push(node);
            }
            (node, children) = (parent, siblings);
        }
    }

    fn copy_without_children(&self) -> Node {
        let content = match self.content() {
            Content::None => NodeContent::None,
            Content::Bytes(_) => NodeContent::Bytes(self.bytes().unwrap_or_default()),
            Content::Text(_) => NodeContent::Text(Text::read(self.tape, self.content_word())),
            Content::Jid(jid) => NodeContent::Jid(jid.to_jid()),
            Content::Nodes(children) => NodeContent::Nodes(Vec::with_capacity(children.len())),
        };
        let attrs = self.attrs().entries.map(|&[key, value, server]| {
            let value = match Value::read(self.tape, value, server) {
                Value::Text(_) => AttrValue::Text(Text::read(self.tape, value)),
                Value::Jid(jid) => AttrValue::Jid(jid.to_jid()),
            };
            (Text::read(self.tape, key), value)
        });
        Node { tag: Text::read(self.tape, self.head[0]), attrs: attrs.collect(), content }
    }

    fn content_jid(&self) -> Option<JidRef<'a>> {
        let [user, server, _] = self.behind_attrs().first()?;
        Some(JidRef::read(self.tape, *user, *server))
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
    /// From the second and the third word of an attribute.
    #[inline(always)]
    fn read(tape: &'a Tape, value: Word, server: Word) -> Self {
        if server.is_empty() { Self::Text(tape.text(value)) } else { Self::Jid(JidRef::read(tape, value, server)) }
    }

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
    #[inline(always)]
    fn read(tape: &'a Tape, user: Word, server: Word) -> Self {
        let user = tape.text(user);
        match server.as_server() {
            None => Self { user, server: tape.text(server), device: 0, integrator: 0 },
            Some((token, device, integrator)) => Self { user, server: Token::text_of(token), device, integrator },
        }
    }

    pub(super) fn new(jid: &'a Jid) -> Self {
        let (device, integrator) = (jid.device(), jid.integrator());
        Self { user: jid.user(), server: jid.server().as_str(), device, integrator }
    }

    /// The user part; empty for a server.
    #[inline(always)]
    pub fn user(self) -> &'a str {
        self.user
    }

    /// The server's name.
    #[inline(always)]
    pub fn server(self) -> &'a str {
        self.server
    }

    /// The device; 0 is the primary phone or none.
    #[inline(always)]
    pub fn device(self) -> u16 {
        self.device
    }

    /// The integrator; 0 on everything but `interop`.
    #[inline(always)]
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
    entries: slice::Iter<'a, Entry>,
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (&'a str, Value<'a>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let &[key, value, server] = self.entries.next()?;
        Some((self.tape.text(key), Value::read(self.tape, value, server)))
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
    entries: &'a [Entry],
    left: u16,
}

impl<'a> Iterator for Children<'a> {
    type Item = NodeRef<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<NodeRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (head, rest) = self.entries.split_first()?;
        let node = NodeRef { tape: self.tape, head, rest };
        self.entries = self.entries.get(node.meta().low()..).unwrap_or_else(nothing);
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Children<'_> {}

impl fmt::Debug for Children<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} nodes]", self.left)
    }
}
