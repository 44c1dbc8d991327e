//! Owned nodes, which a program builds and encodes.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};

use super::{Decoder, JidRef, Limits, NodeError, Text, Value, show};
use crate::jid::Jid;

/// A node as a value: tag, ordered attributes, content.
///
/// The builder methods take and return the node. Readers have the names that [`NodeRef`](super::NodeRef) has, unless a
/// builder method has that name.
///
/// Equality is of the parts as they stand, so that content `Text("1")` and `Bytes("1")` differ.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// The tag; must not be empty when the node is encoded.
    pub tag: Text,
    /// The attributes in the order in which they are written. Keys should be distinct: of duplicates the last one counts.
    pub attrs: Vec<(Text, AttrValue)>,
    /// The content.
    pub content: NodeContent,
}

/// An attribute's value. Only [`AttrValue::Jid`] is written in a JID form; a text stays a text, even with an `@` in it.
#[derive(Clone, PartialEq, Eq)]
pub enum AttrValue {
    /// A text; numbers and booleans are sent as text.
    Text(Text),
    /// A JID.
    Jid(Jid),
}

/// What an owned node holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum NodeContent {
    /// Nothing.
    #[default]
    None,
    /// Bytes; what real text is sent as, too.
    Bytes(Bytes),
    /// A text in a text form. One that is neither a word of the dictionary nor packable has the same form as bytes, and
    /// is read back as bytes.
    Text(Text),
    /// A JID in a JID form.
    Jid(Jid),
    /// Child nodes. An empty list is written as no content.
    Nodes(Vec<Node>),
}

impl Node {
    /// A node with neither attributes nor content.
    pub fn new(tag: impl Into<Text>) -> Self {
        Self { tag: tag.into(), attrs: Vec::new(), content: NodeContent::None }
    }

    /// Reads one frame with the default limits. For a stream of frames, and for reading without copies, use a
    /// [`Decoder`].
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode(frame: impl Into<Bytes>) -> Result<Self, NodeError> {
        Decoder::new(Limits::default()).decode(frame.into()).map(|root| root.to_node())
    }

    /// Sets an attribute: appends it, or replaces the value if the key is there.
    #[must_use]
    pub fn attr(mut self, key: impl Into<Text>, value: impl Into<AttrValue>) -> Self {
        let (key, value) = (key.into(), value.into());
        match self.attrs.iter_mut().find(|(own, _)| *own == key) {
            Some((_, own)) => *own = value,
            None => self.attrs.push((key, value)),
        }
        self
    }

    /// Sets an attribute if there is a value.
    #[must_use]
    pub fn attr_opt(self, key: impl Into<Text>, value: Option<impl Into<AttrValue>>) -> Self {
        match value {
            Some(value) => self.attr(key, value),
            None => self,
        }
    }

    /// Appends a child. Content that is not a list of children is replaced.
    #[must_use]
    pub fn child(self, child: Self) -> Self {
        self.children([child])
    }

    /// Appends a child if there is one.
    #[must_use]
    pub fn child_opt(self, child: Option<Self>) -> Self {
        self.children(child)
    }

    /// Appends children. Content that is not a list of children is replaced, unless there is nothing to append.
    #[must_use]
    pub fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        let mut children = children.into_iter().peekable();
        if children.peek().is_some() {
            match &mut self.content {
                NodeContent::Nodes(nodes) => nodes.extend(children),
                content => *content = NodeContent::Nodes(children.collect()),
            }
        }
        self
    }

    /// Sets byte content.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.content = NodeContent::Bytes(bytes.into());
        self
    }

    /// Sets text content in a text form; see [`NodeContent::Text`]. For real text (a group subject, a name) the official
    /// client sends bytes.
    #[must_use]
    pub fn text(mut self, text: impl Into<Text>) -> Self {
        self.content = NodeContent::Text(text.into());
        self
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether the tag is `tag`.
    pub fn is(&self, tag: &str) -> bool {
        self.tag == tag
    }

    /// The attribute's value. Of duplicate keys the last one counts.
    pub fn get_attr(&self, key: &str) -> Option<Value<'_>> {
        self.attrs.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.as_value())
    }

    /// All attributes in order.
    pub fn attrs(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.attrs.iter().map(|(key, value)| (key.as_str(), value.as_value()))
    }

    /// The attribute as text; a JID gives its canonical text.
    pub fn attr_str(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get_attr(key).map(Value::as_text)
    }

    /// The attribute as JID, which may stand there as JID or as text; `None` also for a JID whose text would be that of another.
    pub fn attr_jid(&self, key: &str) -> Option<Jid> {
        self.get_attr(key).and_then(Value::to_jid).filter(Jid::has_text_form)
    }

    /// The attribute as decimal number.
    pub fn attr_u64(&self, key: &str) -> Option<u64> {
        self.get_attr(key).and_then(Value::as_u64)
    }

    /// The child nodes; none when the content is something else.
    pub fn child_nodes(&self) -> &[Self] {
        if let NodeContent::Nodes(nodes) = &self.content { nodes } else { &[] }
    }

    /// The first child with this tag.
    pub fn find_child(&self, tag: &str) -> Option<&Self> {
        self.child_nodes().iter().find(|child| child.tag == tag)
    }

    /// The first child.
    pub fn first_child(&self) -> Option<&Self> {
        self.child_nodes().first()
    }

    /// The content as bytes, a text or JID as its UTF-8; `None` without content and for children.
    pub fn content_bytes(&self) -> Option<Bytes> {
        match &self.content {
            NodeContent::Bytes(bytes) => Some(bytes.clone()),
            NodeContent::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            NodeContent::Jid(jid) => Some(Bytes::from(jid.to_string())),
            NodeContent::None | NodeContent::Nodes(_) => None,
        }
    }

    /// The content as text, bytes read as UTF-8 with U+FFFD for what is wrong; `None` without content and for children.
    pub fn content_text(&self) -> Option<Cow<'_, str>> {
        match &self.content {
            NodeContent::Bytes(bytes) => Some(String::from_utf8_lossy(bytes)),
            NodeContent::Text(text) => Some(Cow::Borrowed(text)),
            NodeContent::Jid(jid) => Some(Cow::Owned(jid.to_string())),
            NodeContent::None | NodeContent::Nodes(_) => None,
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::owned(f, self, 1)
    }
}

impl fmt::Debug for NodeContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::owned_content(f, self)
    }
}

impl AttrValue {
    /// The same as a borrowed value, which has the conversions.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Jid(jid) => Value::Jid(JidRef::new(jid)),
        }
    }
}

impl fmt::Debug for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::value(f, None, self.as_value())
    }
}

impl From<Jid> for AttrValue {
    fn from(jid: Jid) -> Self {
        Self::Jid(jid)
    }
}

impl From<&Jid> for AttrValue {
    fn from(jid: &Jid) -> Self {
        Self::Jid(jid.clone())
    }
}

impl From<Text> for AttrValue {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for AttrValue {
    fn from(flag: bool) -> Self {
        Self::Text(if flag { "true" } else { "false" }.into())
    }
}

/// Texts that [`Text`] takes as they are.
macro_rules! from_text {
    ($($text:ty),*) => {$(
        impl From<$text> for AttrValue {
            fn from(text: $text) -> Self {
                Self::Text(text.into())
            }
        }
    )*};
}

/// Numbers are sent as decimal text.
macro_rules! from_number {
    ($($number:ty),*) => {$(
        impl From<$number> for AttrValue {
            fn from(number: $number) -> Self {
                Self::Text(number.to_compact_string().into())
            }
        }
    )*};
}

from_text!(&str, String, &String, CompactString, &CompactString, Cow<'_, str>);
from_number!(u8, u16, u32, u64, usize, i32, i64);
