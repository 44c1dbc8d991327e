//! Writing a stanza straight into a buffer, without building a tree first.

use compact_str::CompactString;

use super::encode::{self, MAX_ATTRS, MAX_LIST};
use super::wire::{LIST_8, LIST_16, MAX_DEPTH};
use super::{JidRef, Node, NodeError, Text};
use crate::jid::Jid;

/// Writes one node into the caller's buffer: attributes first, then content.
///
/// Everything is borrowed, and nothing is kept but the bytes: the counts that stand before attributes and children are
/// filled in when they are known. The bytes are those that [`Node::encode`] gives for the same node.
///
/// ```
/// use wamd::jid::Jid;
/// use wamd::node::{Node, NodeWriter};
///
/// let users = [Jid::pn("5511987654321"), Jid::pn("5511987654322")];
/// let mut out = Vec::new();
/// NodeWriter::frame(&mut out, "iq", |iq| {
///     iq.attr("to", &Jid::whatsapp_server()).attr("type", "get").number("t", 1_755_873_901);
///     iq.child("list", |list| {
///         for user in &users {
///             list.child("user", |node| {
///                 node.attr("jid", user);
///             });
///         }
///     });
/// })?;
///
/// let user = |jid| Node::new("user").attr("jid", jid);
/// let tree = Node::new("iq")
///     .attr("to", Jid::whatsapp_server())
///     .attr("type", "get")
///     .attr("t", 1_755_873_901)
///     .child(Node::new("list").children(users.iter().map(user)));
/// assert_eq!(out, tree.encode()?);
/// # Ok::<(), wamd::node::NodeError>(())
/// ```
#[derive(Debug)]
pub struct NodeWriter<'a> {
    out: &'a mut Vec<u8>,
    /// The first error, after which nothing is written.
    error: &'a mut Option<NodeError>,
    depth: u16,
    /// Where the list header of the node is.
    start: usize,
    attrs: usize,
    content: State,
}

/// How far a node is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Attributes may follow.
    Attrs,
    /// Children may follow; their list header is at `start`.
    Children { start: usize, count: usize },
    /// Nothing may follow.
    Done,
}

impl NodeWriter<'_> {
    /// Appends a frame to `out`: flag byte 00, and the node that `build` writes. After an error `out` is left as it was.
    ///
    /// # Errors
    /// As [`Node::encode`]; [`NodeError::WrongOrder`] when an attribute is written after content, or content twice.
    pub fn frame(out: &mut Vec<u8>, tag: &str, build: impl FnOnce(&mut NodeWriter<'_>)) -> Result<(), NodeError> {
        let length = out.len();
        let mut error = None;
        out.push(0x00);
        node(out, &mut error, 1, tag, build);
        match error {
            None => Ok(()),
            Some(error) => {
                out.truncate(length);
                Err(error)
            }
        }
    }

    /// Writes an attribute. Keys should be distinct: of duplicates the last one counts.
    #[inline]
    pub fn attr<'v>(&mut self, key: &str, value: impl Into<WireValue<'v>>) -> &mut Self {
        let State::Attrs = self.content else {
            self.fail(NodeError::WrongOrder);
            return self;
        };
        self.attrs = self.attrs.saturating_add(1);
        let written = encode::text(self.out, key).and_then(|()| value.into().write(self.out));
        self.note(written);
        self
    }

    /// Writes an attribute if there is a value.
    #[inline]
    pub fn attr_opt<'v>(&mut self, key: &str, value: Option<impl Into<WireValue<'v>>>) -> &mut Self {
        match value {
            Some(value) => self.attr(key, value),
            None => self,
        }
    }

    /// Writes an attribute that is a decimal number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        // The digits from the last one to the first.
        let mut digits = [b'0'; 20];
        let (mut left, mut len) = (value, 0usize);
        for digit in digits.iter_mut().rev() {
            *digit = b'0'.wrapping_add((left % 10) as u8);
            left /= 10;
            len = len.wrapping_add(1);
            if left == 0 {
                break;
            }
        }
        let text = digits.get(digits.len().saturating_sub(len)..).unwrap_or_default();
        self.attr(key, str::from_utf8(text).unwrap_or_default())
    }

    /// Writes a child. A node has children or other content, not both.
    #[inline]
    pub fn child(&mut self, tag: &str, build: impl FnOnce(&mut NodeWriter<'_>)) -> &mut Self {
        if let Some(depth) = self.begin_child() {
            node(self.out, self.error, depth, tag, build);
        }
        self
    }

    /// Writes a child that exists as a tree.
    pub fn node(&mut self, child: &Node) -> &mut Self {
        if let Some(depth) = self.begin_child() {
            let written = encode::node(self.out, child, depth);
            self.note(written);
        }
        self
    }

    /// Writes byte content.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.begin_content() {
            let written = encode::binary(self.out, bytes);
            self.note(written);
        }
    }

    /// Writes content in a text or JID form; see [`NodeContent::Text`](super::NodeContent::Text). For real text the
    /// official client sends bytes.
    pub fn value<'v>(&mut self, value: impl Into<WireValue<'v>>) {
        if self.begin_content() {
            let written = value.into().write(self.out);
            self.note(written);
        }
    }

    /// Counts a child, and gives the level that it is on. The list header comes before the first one.
    #[inline]
    fn begin_child(&mut self) -> Option<u16> {
        if self.error.is_some() {
            return None;
        }
        let (start, count) = match self.content {
            State::Attrs => {
                let start = self.out.len();
                self.out.extend_from_slice(&[LIST_8, 0]);
                (start, 0)
            }
            State::Children { start, count } => (start, count),
            State::Done => {
                self.fail(NodeError::WrongOrder);
                return None;
            }
        };
        self.content = State::Children { start, count: count.saturating_add(1) };
        Some(self.depth.saturating_add(1))
    }

    fn begin_content(&mut self) -> bool {
        let begins = matches!(self.content, State::Attrs) && self.error.is_none();
        if !begins {
            self.fail(NodeError::WrongOrder);
        }
        self.content = State::Done;
        begins
    }

    /// Fills in the counts, the later one first, since it may move what follows by a byte.
    #[inline]
    fn end(&mut self) {
        let mut size = self.attrs.saturating_mul(2).saturating_add(1);
        match self.content {
            State::Attrs => {}
            State::Done => size = size.saturating_add(1),
            State::Children { start, count } => {
                size = size.saturating_add(1);
                let filled = fill_in(self.out, start, count);
                self.note(filled);
            }
        }
        let filled = match self.attrs {
            ..=MAX_ATTRS => fill_in(self.out, self.start, size),
            len => Err(NodeError::ListTooLong { len, max: MAX_ATTRS }),
        };
        self.note(filled);
    }

    #[inline]
    fn note(&mut self, written: Result<(), NodeError>) {
        if let Err(error) = written {
            self.fail(error);
        }
    }

    #[cold]
    fn fail(&mut self, error: NodeError) {
        self.error.get_or_insert(error);
    }
}

/// Writes a node that `build` fills.
#[inline]
fn node(
    out: &mut Vec<u8>,
    error: &mut Option<NodeError>,
    depth: u16,
    tag: &str,
    build: impl FnOnce(&mut NodeWriter<'_>),
) {
    let begin = match tag {
        _ if depth > MAX_DEPTH => Err(NodeError::TooManyLevels { max: MAX_DEPTH }),
        "" => Err(NodeError::UnnamedNode),
        tag => {
            let start = out.len();
            out.extend_from_slice(&[LIST_8, 0]);
            encode::text(out, tag).map(|()| start)
        }
    };
    match begin {
        Err(first) => {
            error.get_or_insert(first);
        }
        Ok(start) => {
            let mut writer = NodeWriter { out, error, depth, start, attrs: 0, content: State::Attrs };
            build(&mut writer);
            writer.end();
        }
    }
}

/// Writes the count of a list whose header of two bytes is at `start`. A large count needs a third byte.
#[inline]
fn fill_in(out: &mut Vec<u8>, start: usize, count: usize) -> Result<(), NodeError> {
    match (out.get_mut(start..).and_then(<[u8]>::first_chunk_mut), u8::try_from(count)) {
        (Some(header), Ok(count)) => {
            *header = [LIST_8, count];
            Ok(())
        }
        _ => widen(out, start, count),
    }
}

#[cold]
fn widen(out: &mut Vec<u8>, start: usize, count: usize) -> Result<(), NodeError> {
    let too_long = NodeError::ListTooLong { len: count, max: MAX_LIST };
    let [high, low] = u16::try_from(count).map_err(|_| too_long)?.to_be_bytes();
    out.push(0);
    let Some(list) = out.get_mut(start..) else { return Err(too_long) };
    list.rotate_right(1);
    if let Some(header) = list.first_chunk_mut() {
        *header = [LIST_16, high, low];
    }
    Ok(())
}

/// A text or a JID to be written, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct WireValue<'a>(Kind<'a>);

#[derive(Clone, Copy)]
enum Kind<'a> {
    Text(&'a str),
    Jid(&'a Jid),
    JidRef(JidRef<'a>),
}

/// As the decoded value, whose `Debug` is for logs.
impl std::fmt::Debug for Kind<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Text(text) => super::Value::Text(text).fmt(f),
            Self::Jid(jid) => JidRef::new(jid).fmt(f),
            Self::JidRef(jid) => jid.fmt(f),
        }
    }
}

impl WireValue<'_> {
    #[inline]
    fn write(self, out: &mut Vec<u8>) -> Result<(), NodeError> {
        match self.0 {
            Kind::Text(text) => encode::text(out, text),
            Kind::Jid(jid) => encode::jid(out, jid),
            Kind::JidRef(jid) => encode::jid(out, &jid.to_jid()),
        }
    }
}

impl<'a> From<&'a str> for WireValue<'a> {
    fn from(text: &'a str) -> Self {
        Self(Kind::Text(text))
    }
}

impl<'a> From<&'a String> for WireValue<'a> {
    fn from(text: &'a String) -> Self {
        Self(Kind::Text(text))
    }
}

impl<'a> From<&'a Text> for WireValue<'a> {
    fn from(text: &'a Text) -> Self {
        Self(Kind::Text(text))
    }
}

impl<'a> From<&'a CompactString> for WireValue<'a> {
    fn from(text: &'a CompactString) -> Self {
        Self(Kind::Text(text))
    }
}

impl<'a> From<&'a Jid> for WireValue<'a> {
    fn from(jid: &'a Jid) -> Self {
        Self(Kind::Jid(jid))
    }
}

impl<'a> From<JidRef<'a>> for WireValue<'a> {
    fn from(jid: JidRef<'a>) -> Self {
        Self(Kind::JidRef(jid))
    }
}

impl<'a> From<super::Value<'a>> for WireValue<'a> {
    fn from(value: super::Value<'a>) -> Self {
        match value {
            super::Value::Text(text) => Self(Kind::Text(text)),
            super::Value::Jid(jid) => Self(Kind::JidRef(jid)),
        }
    }
}
