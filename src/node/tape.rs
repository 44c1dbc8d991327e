//! The tape: a decoded frame as flat tables over the frame's own bytes.
//!
//! `nodes` stands in document order, so that a node's first child is the entry after it, and `next` leads over its whole
//! subtree to its sibling. Texts are a token, a range of the frame, or a range of `side`, which holds what does not stand
//! in the frame as UTF-8 (unpacked and repaired texts).

use std::ops::Range;

use bytes::Bytes;

use super::tokens::Token;

/// A decoded frame. Ranges and numbers in the entries are valid for the other fields; readers still use checked access,
/// and read nothing where they would be wrong.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) frame: Bytes,
    pub(super) side: String,
    pub(super) nodes: Vec<NodeEntry>,
    pub(super) attrs: Vec<AttrEntry>,
    pub(super) jids: Vec<JidEntry>,
}

/// A piece of the frame or of the side text. Node bytes are limited so that both fit in `u32`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    pub(super) fn new(start: usize, len: usize) -> Self {
        Self { start: start as u32, len: len as u32 }
    }

    pub(super) fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start.saturating_add(self.len as usize)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    Token(Token),
    Frame(Span),
    Side(Span),
}

impl Text {
    pub(super) const EMPTY: Self = Self::Side(Span { start: 0, len: 0 });

    pub(super) fn is_empty(self) -> bool {
        matches!(self, Self::Frame(span) | Self::Side(span) if span.len == 0)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ServerEntry {
    Known(&'static str),
    Text(Text),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct JidEntry {
    pub(super) user: Text,
    pub(super) server: ServerEntry,
    pub(super) device: u16,
    pub(super) integrator: u16,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ValueEntry {
    Text(Text),
    Jid(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AttrEntry {
    pub(super) key: Text,
    pub(super) value: ValueEntry,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ContentEntry {
    None,
    Bytes(Span),
    Text(Text),
    Jid(u32),
    /// Number of children.
    Nodes(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NodeEntry {
    pub(super) tag: Text,
    pub(super) first_attr: u32,
    pub(super) attr_count: u32,
    /// Number of the node after this one and all that is below it.
    pub(super) next: u32,
    pub(super) content: ContentEntry,
}

impl NodeEntry {
    pub(super) fn attrs(self) -> Range<usize> {
        let first = self.first_attr as usize;
        first..first.saturating_add(self.attr_count as usize)
    }
}

impl Tape {
    pub(super) fn text(&self, text: Text) -> &str {
        match text {
            Text::Token(token) => token.text(),
            Text::Frame(span) => str::from_utf8(self.bytes(span)).unwrap_or_default(),
            Text::Side(span) => self.side.get(span.range()).unwrap_or_default(),
        }
    }

    /// Compares without checking the UTF-8 again.
    pub(super) fn text_is(&self, text: Text, other: &str) -> bool {
        match text {
            Text::Token(token) => token.text() == other,
            Text::Frame(span) => self.bytes(span) == other.as_bytes(),
            Text::Side(span) => self.side.get(span.range()) == Some(other),
        }
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        self.frame.get(span.range()).unwrap_or_default()
    }

    /// Empties the tape and lets the frame go. Tables that are much larger than what stood in them are given back.
    pub(super) fn clear(&mut self) {
        self.frame = Bytes::new();
        trim(&mut self.nodes);
        trim(&mut self.attrs);
        trim(&mut self.jids);
        if self.side.capacity() > RETAIN && self.side.capacity() / 4 > self.side.len() {
            self.side = String::new();
        }
        self.side.clear();
    }
}

/// Empties a table; a peak that is long past does not hold memory for ever.
pub(super) fn trim<T>(table: &mut Vec<T>) {
    if table.capacity().saturating_mul(size_of::<T>()) > RETAIN && table.capacity() / 4 > table.len() {
        *table = Vec::new();
    }
    table.clear();
}

/// Tables up to this many bytes are always kept.
const RETAIN: usize = 64 * 1_024;
