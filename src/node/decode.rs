//! The decoder: one pass over the node bytes into a [`Tape`] (spec 02 §1 to §7 and §9).
//!
//! There is no recursion: open nodes stand on an explicit stack of at most `max_depth` entries, and the parts of a JID are
//! plain texts. Every announced length and count is checked against the bytes that are left before anything is stored.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::inflate::Inflater;
use super::packed::Alphabet;
use super::tape::{AttrEntry, ContentEntry, JidEntry, NodeEntry, ServerEntry, Span, Tape, Text, ValueEntry, trim};
use super::tokens::Token;
use super::wire::*;
use super::{NodeError, NodeRef};

/// How much a frame may ask for. The defaults are far above real stanzas and far below what hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a node, checked while inflating. Default 16 MiB; values above 1 GiB count as 1 GiB.
    pub max_inflated: usize,
    /// Levels of nodes, the root being the first. Default 128; values above 256 count as 256.
    pub max_depth: u16,
    /// Nodes of a frame. Default 262,144 (about 10 MiB of tape).
    pub max_nodes: u32,
    /// Attributes of a frame. Default 524,288 (about 15 MiB of tape, 35 MiB if all are JIDs).
    pub max_attrs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_inflated: 16 << 20, max_depth: MAX_DEPTH, max_nodes: 262_144, max_attrs: 524_288 }
    }
}

/// Decodes frames one after the other, and owns the last one.
///
/// A stream of similar frames decodes without allocating: tables, side text, zlib state and inflate buffer are kept.
/// Memory of an outlier is given back when smaller frames follow; [`Decoder::release`] gives all of it back.
///
/// ```
/// use bytes::Bytes;
/// use wamd::node::{Decoder, Limits};
///
/// let mut decoder = Decoder::new(Limits::default());
/// let root = decoder.decode(Bytes::from_static(&[0x00, 0xf8, 0x03, 0x1b, 0x08, 0xff, 0x01, 0x77]))?;
/// assert_eq!(root.tag(), "ack");
/// assert_eq!(root.attr_u64("id"), Some(77));
/// # Ok::<(), wamd::node::NodeError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    tape: Tape,
    open: Vec<OpenNode>,
    inflater: Inflater,
}

/// A node whose children are being read.
#[derive(Clone, Copy, Debug)]
struct OpenNode {
    number: usize,
    children_left: u32,
}

impl Decoder {
    /// A decoder without memory; the first frames bring it.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            max_inflated: limits.max_inflated.min(MAX_NODE_BYTES),
            max_depth: limits.max_depth.min(MAX_DEPTH_LIMIT),
            ..limits
        };
        Self { limits, tape: Tape::default(), open: Vec::new(), inflater: Inflater::default() }
    }

    /// Decodes a frame: the flag byte, and node bytes or their zlib stream. The frame is held until the next call, and
    /// its bytes are shared, not copied.
    ///
    /// # Errors
    /// [`NodeError`] when the frame is not exactly one node (spec 02 §9), or is above a limit. The decoder can go on with
    /// the next frame.
    pub fn decode(&mut self, frame: Bytes) -> Result<NodeRef<'_>, NodeError> {
        let used = self.tape.frame.len();
        self.tape.clear();
        self.inflater.trim(used);
        self.tape.frame = self.node_bytes(frame)?;
        trim(&mut self.open);

        let Tape { frame, side, nodes, attrs, jids } = &mut self.tape;
        let cursor = Cursor { data: frame, position: 0 };
        Reader { cursor, limits: &self.limits, side, nodes, attrs, jids }.read_all(&mut self.open)?;
        NodeRef::root(&self.tape).ok_or(NodeError::EmptyFrame)
    }

    /// Lets the last frame go and gives all memory back; for a connection that is idle.
    pub fn release(&mut self) {
        self.tape = Tape::default();
        self.open = Vec::new();
        self.inflater.release();
    }

    /// Strips the flag byte, and inflates.
    fn node_bytes(&mut self, mut frame: Bytes) -> Result<Bytes, NodeError> {
        let max = self.limits.max_inflated;
        let &flags = frame.first().ok_or(NodeError::EmptyFrame)?;
        let body = frame.split_off(1);
        let bytes = match flags & FLAG_ZLIB {
            _ if body.is_empty() => body,
            0 if body.len() > max => return Err(NodeError::TooLarge { max }),
            0 => body,
            _ => self.inflater.inflate(&body, max)?,
        };
        if bytes.is_empty() { Err(NodeError::EmptyFrame) } else { Ok(bytes) }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// What becomes of bytes that are not UTF-8.
#[derive(Clone, Copy)]
enum Utf8 {
    /// Refused: tags, keys and parts of JIDs, which the program acts on.
    Strict,
    /// Replaced by U+FFFD: values, so that a bad display name loses no message.
    Repair,
}

/// Writes the tape while it reads the node bytes.
struct Reader<'a> {
    cursor: Cursor<'a>,
    limits: &'a Limits,
    side: &'a mut String,
    nodes: &'a mut Vec<NodeEntry>,
    attrs: &'a mut Vec<AttrEntry>,
    jids: &'a mut Vec<JidEntry>,
}

impl Reader<'_> {
    fn read_all(&mut self, open: &mut Vec<OpenNode>) -> Result<(), NodeError> {
        loop {
            if open.len() >= usize::from(self.limits.max_depth) {
                return Err(NodeError::TooDeep { offset: self.cursor.position, max: self.limits.max_depth });
            }
            let number = self.nodes.len();
            let children_left = self.node()?;
            if children_left > 0 {
                open.push(OpenNode { number, children_left });
                continue;
            }
            self.close(number);
            loop {
                let Some(parent) = open.last_mut() else { return self.end() };
                parent.children_left = parent.children_left.saturating_sub(1);
                if parent.children_left > 0 {
                    break;
                }
                let number = parent.number;
                open.pop();
                self.close(number);
            }
        }
    }

    /// All that is below the node stands on the tape.
    fn close(&mut self, number: usize) {
        let next = self.nodes.len() as u32;
        if let Some(entry) = self.nodes.get_mut(number) {
            entry.next = next;
        }
    }

    fn end(&self) -> Result<(), NodeError> {
        match self.cursor.left() {
            0 => Ok(()),
            _ => Err(NodeError::TrailingBytes { offset: self.cursor.position }),
        }
    }

    /// Reads a node up to its children, and returns how many follow.
    fn node(&mut self) -> Result<u32, NodeError> {
        let offset = self.cursor.position;
        if self.nodes.len() >= self.limits.max_nodes as usize {
            return Err(NodeError::TooManyNodes { offset, max: self.limits.max_nodes });
        }
        let size = match self.cursor.u8()? {
            LIST_8 => usize::from(self.cursor.u8()?),
            LIST_16 => usize::from(self.cursor.u16()?),
            byte => return Err(NodeError::NotANode { offset, byte }),
        };
        let attr_count = size.checked_sub(1).ok_or(NodeError::EmptyNode { offset })? / 2;

        let tag_offset = self.cursor.position;
        let tag = self.strict_text()?;
        if tag.is_empty() {
            return Err(NodeError::EmptyTag { offset: tag_offset });
        }

        if attr_count.saturating_mul(2) > self.cursor.left() {
            return Err(NodeError::CountBeyondData { offset, count: attr_count });
        }
        if self.attrs.len().saturating_add(attr_count) > self.limits.max_attrs as usize {
            return Err(NodeError::TooManyAttrs { offset, max: self.limits.max_attrs });
        }
        let first_attr = self.attrs.len() as u32;
        for _ in 0..attr_count {
            let key = self.strict_text()?;
            let value = self.value()?;
            self.attrs.push(AttrEntry { key, value });
        }

        let content = if size % 2 == 0 { self.content()? } else { ContentEntry::None };
        self.nodes.push(NodeEntry { tag, first_attr, attr_count: attr_count as u32, next: 0, content });
        Ok(if let ContentEntry::Nodes(count) = content { count } else { 0 })
    }

    fn value(&mut self) -> Result<ValueEntry, NodeError> {
        let offset = self.cursor.position;
        match self.cursor.u8()? {
            LIST_EMPTY => Ok(ValueEntry::Text(Text::EMPTY)),
            tag @ (INTEROP_JID | FB_JID | AD_JID | JID_PAIR) => Ok(ValueEntry::Jid(self.jid(tag)?)),
            byte @ (LIST_8 | LIST_16) => Err(NodeError::NotAValue { offset, byte }),
            tag => Ok(ValueEntry::Text(self.text(tag, Utf8::Repair)?)),
        }
    }

    fn content(&mut self) -> Result<ContentEntry, NodeError> {
        let offset = self.cursor.position;
        match self.cursor.u8()? {
            LIST_EMPTY => Ok(ContentEntry::None),
            LIST_8 => {
                let count = u16::from(self.cursor.u8()?);
                self.children(offset, count)
            }
            LIST_16 => {
                let count = self.cursor.u16()?;
                self.children(offset, count)
            }
            tag @ (BINARY_8 | BINARY_20 | BINARY_32) => Ok(ContentEntry::Bytes(self.binary(tag)?)),
            tag @ (INTEROP_JID | FB_JID | AD_JID | JID_PAIR) => Ok(ContentEntry::Jid(self.jid(tag)?)),
            tag => Ok(ContentEntry::Text(self.text(tag, Utf8::Repair)?)),
        }
    }

    /// An empty list is no content. The smallest node has three bytes.
    fn children(&self, offset: usize, count: u16) -> Result<ContentEntry, NodeError> {
        if usize::from(count).saturating_mul(3) > self.cursor.left() {
            return Err(NodeError::CountBeyondData { offset, count: usize::from(count) });
        }
        Ok(if count == 0 { ContentEntry::None } else { ContentEntry::Nodes(u32::from(count)) })
    }

    /// Reads a JID after its tag, and returns its number in the table.
    fn jid(&mut self, tag: u8) -> Result<u32, NodeError> {
        let entry = match tag {
            AD_JID => self.device_jid()?,
            JID_PAIR => self.jid_pair()?,
            _ => self.foreign_jid(tag)?,
        };
        let number = self.jids.len() as u32;
        self.jids.push(entry);
        Ok(number)
    }

    fn device_jid(&mut self) -> Result<JidEntry, NodeError> {
        let offset = self.cursor.position;
        let server = match self.cursor.u8()? {
            DOMAIN_PN => "s.whatsapp.net",
            DOMAIN_LID => "lid",
            DOMAIN_HOSTED_LID => "hosted.lid",
            domain if domain & 0x81 == DOMAIN_HOSTED => "hosted",
            domain => return Err(NodeError::UnknownDomain { offset, domain }),
        };
        let device = u16::from(self.cursor.u8()?);
        let user = self.jid_part()?;
        Ok(JidEntry { user, server: ServerEntry::Known(server), device, integrator: 0 })
    }

    fn jid_pair(&mut self) -> Result<JidEntry, NodeError> {
        let user = match self.cursor.u8()? {
            LIST_EMPTY => Text::EMPTY,
            tag => self.text(tag, Utf8::Strict)?,
        };
        let server = ServerEntry::Text(self.jid_part()?);
        Ok(JidEntry { user, server, device: 0, integrator: 0 })
    }

    /// The `msgr` and `interop` forms, whose server is written out but has only one value.
    fn foreign_jid(&mut self, tag: u8) -> Result<JidEntry, NodeError> {
        let user = self.strict_text()?;
        let device = self.cursor.u16()?;
        let (integrator, expected) = if tag == INTEROP_JID { (self.cursor.u16()?, "interop") } else { (0, "msgr") };
        let offset = self.cursor.position;
        let server = self.jid_part()?;
        if !self.text_is(server, expected) {
            return Err(NodeError::WrongServer { offset });
        }
        Ok(JidEntry { user, server: ServerEntry::Known(expected), device, integrator })
    }

    /// A text that must not be empty.
    fn jid_part(&mut self) -> Result<Text, NodeError> {
        let offset = self.cursor.position;
        let text = self.strict_text()?;
        if text.is_empty() { Err(NodeError::IncompleteJid { offset }) } else { Ok(text) }
    }

    fn strict_text(&mut self) -> Result<Text, NodeError> {
        let tag = self.cursor.u8()?;
        self.text(tag, Utf8::Strict)
    }

    /// Reads a text after its tag byte.
    fn text(&mut self, tag: u8, utf8: Utf8) -> Result<Text, NodeError> {
        match tag {
            1..=LAST_TOKEN => Ok(Text::Token(Token::single(tag))),
            DICTIONARY_0..=DICTIONARY_3 => Ok(Text::Token(Token::double(tag, self.cursor.u8()?))),
            NIBBLE_8 => self.packed(Alphabet::Nibble),
            HEX_8 => self.packed(Alphabet::Hex),
            BINARY_8 | BINARY_20 | BINARY_32 => self.raw(tag, utf8),
            byte => {
                let offset = self.cursor.position.saturating_sub(1);
                Err(match byte {
                    UNASSIGNED_FIRST..=UNASSIGNED_LAST => NodeError::UnknownToken { offset, byte },
                    _ => NodeError::NotAText { offset, byte },
                })
            }
        }
    }

    fn packed(&mut self, alphabet: Alphabet) -> Result<Text, NodeError> {
        let offset = self.cursor.position;
        let header = self.cursor.u8()?;
        let (odd, len) = (header & 0x80 != 0, usize::from(header & 0x7f));
        if odd && len == 0 {
            return Err(NodeError::BadPacked { offset });
        }
        let offset = self.cursor.position;
        let packed = self.cursor.take(len)?;
        let start = self.side.len();
        alphabet
            .unpack(packed, odd, self.side)
            .map_err(|index| NodeError::BadPacked { offset: offset.saturating_add(index) })?;
        Ok(self.side_text(start))
    }

    fn raw(&mut self, tag: u8, utf8: Utf8) -> Result<Text, NodeError> {
        let span = self.binary(tag)?;
        let bytes = self.cursor.data.get(span.range()).unwrap_or_default();
        match (str::from_utf8(bytes), utf8) {
            (Ok(_), _) => Ok(Text::Frame(span)),
            (Err(error), Utf8::Strict) => {
                Err(NodeError::BadUtf8 { offset: span.range().start.saturating_add(error.valid_up_to()) })
            }
            (Err(_), Utf8::Repair) => {
                let start = self.side.len();
                for chunk in bytes.utf8_chunks() {
                    self.side.push_str(chunk.valid());
                    if !chunk.invalid().is_empty() {
                        self.side.push(char::REPLACEMENT_CHARACTER);
                    }
                }
                Ok(self.side_text(start))
            }
        }
    }

    /// Reads the length and skips the bytes.
    fn binary(&mut self, tag: u8) -> Result<Span, NodeError> {
        let len = match tag {
            BINARY_8 => usize::from(self.cursor.u8()?),
            BINARY_20 => self.cursor.u20()?,
            _ => self.cursor.u32()? as usize,
        };
        let start = self.cursor.position;
        self.cursor.take(len)?;
        Ok(Span::new(start, len))
    }

    fn side_text(&self, start: usize) -> Text {
        Text::Side(Span::new(start, self.side.len().saturating_sub(start)))
    }

    fn text_is(&self, text: Text, expected: &str) -> bool {
        match text {
            Text::Token(token) => token.text() == expected,
            Text::Frame(span) => self.cursor.data.get(span.range()) == Some(expected.as_bytes()),
            Text::Side(span) => self.side.get(span.range()) == Some(expected),
        }
    }
}

/// Reads big-endian numbers and runs of bytes, and knows where it is.
struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.data.len().saturating_sub(self.position)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], NodeError> {
        let offset = self.position;
        let end = offset.saturating_add(len);
        let taken = self.data.get(offset..end).ok_or(NodeError::Truncated { offset, wanted: len })?;
        self.position = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NodeError> {
        let offset = self.position;
        let rest = self.data.get(offset..).unwrap_or_default();
        let taken = rest.first_chunk().copied().ok_or(NodeError::Truncated { offset, wanted: N })?;
        self.position = offset.saturating_add(N);
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, NodeError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, NodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Three bytes, of which the upper four bits have no meaning.
    fn u20(&mut self) -> Result<usize, NodeError> {
        let [high, middle, low] = self.array()?;
        Ok(u32::from_be_bytes([0, high & 0x0f, middle, low]) as usize)
    }

    fn u32(&mut self) -> Result<u32, NodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }
}

/// Largest accepted [`Limits::max_inflated`]: side text can grow to three times the node, and its positions are `u32`.
const MAX_NODE_BYTES: usize = 1 << 30;
/// Largest accepted [`Limits::max_depth`]: owned nodes are dropped and compared by recursion.
const MAX_DEPTH_LIMIT: u16 = 256;
