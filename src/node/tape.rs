//! The tape: a decoded frame as one flat list of words over the frame's own bytes.
//!
//! ```text
//! node  = tag  meta  content  { attribute }  [ user server ]  { node }
//! meta  = words of the whole subtree (32 bits) | attributes (16) | kind of content (3)
//! attribute = key  text
//!           | key  jid  user  server
//! ```
//!
//! A [`Word`] is a token, a range of the frame, or a range of `side`, which holds what does not stand in the frame as
//! UTF-8 (unpacked and repaired texts); or it is the head of a JID, whose user and server follow. The content of a node is
//! a word of that kind; for children it is their number and where they begin, counted from the node. A JID as content
//! stands after the attributes.

use std::ops::Range;

use bytes::Bytes;

use super::tokens::Token;

/// A decoded frame. Ranges and numbers in the words are valid for the other fields; readers still use checked access, and
/// read nothing where they would be wrong.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) frame: Bytes,
    pub(super) side: String,
    /// Words; what stands behind `used` is old.
    pub(super) words: Vec<u64>,
    pub(super) used: usize,
}

/// An entry of the tape. The upper two bits tell what the rest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// The empty text, in whatever form it came.
    pub(super) const EMPTY: Self = Self(0);

    #[inline(always)]
    pub(super) const fn token(token: Token) -> Self {
        Self(token.number() as u64)
    }

    /// A piece of the frame. Node bytes are limited so that start and length fit.
    #[inline(always)]
    pub(super) const fn frame(start: usize, len: usize) -> Self {
        Self(FRAME | (len as u64) << 32 | start as u64)
    }

    /// A piece of the side text, which is at most three times as long as the node bytes.
    #[inline(always)]
    pub(super) const fn side(start: usize, len: usize) -> Self {
        Self(SIDE | (len as u64) << 32 | start as u64)
    }

    /// The head of a JID; `at` tells where the user stands if it is a content, counted from the node.
    #[inline(always)]
    pub(super) const fn jid(device: u16, integrator: u16, at: usize) -> Self {
        Self(JID | (at as u64) << 32 | (integrator as u64) << 16 | device as u64)
    }

    /// The content of a node with children: how many, and where the first one begins, counted from the node.
    #[inline(always)]
    pub(super) const fn children(count: u16, first: usize) -> Self {
        Self((count as u64) << 32 | first as u64)
    }

    #[inline(always)]
    pub(super) const fn meta(kind: ContentKind, attrs: u16, size: usize) -> Self {
        Self((kind as u64) << 48 | (attrs as u64) << 32 | size as u64)
    }

    /// The token that the word is, if it is one of the dictionary.
    pub(super) const fn as_token(self) -> Option<Token> {
        match self.0 & KIND {
            0 => Token::word(self.0 as u16),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(super) const fn is_in_frame(self) -> bool {
        self.0 & KIND == FRAME
    }

    #[inline(always)]
    pub(super) const fn is_jid(self) -> bool {
        self.0 >= JID
    }

    /// The range of a piece.
    #[inline(always)]
    pub(super) const fn range(self) -> Range<usize> {
        let (start, len) = (self.low(), self.0 >> 32 & LEN);
        start..start.saturating_add(len as usize)
    }

    /// Device and integrator of a JID.
    #[inline(always)]
    pub(super) const fn device_and_integrator(self) -> (u16, u16) {
        (self.0 as u16, (self.0 >> 16) as u16)
    }

    /// Where the user of a JID content stands.
    #[inline(always)]
    pub(super) const fn jid_at(self) -> usize {
        (self.0 >> 32 & LEN) as usize
    }

    /// The second field: the number of children, the number of attributes in a meta word.
    #[inline(always)]
    pub(super) const fn count(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The first field: where the first child begins, the size in a meta word.
    #[inline(always)]
    pub(super) const fn low(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    #[inline(always)]
    pub(super) const fn kind(self) -> ContentKind {
        match self.0 >> 48 & 7 {
            0 => ContentKind::None,
            1 => ContentKind::Bytes,
            2 => ContentKind::Text,
            3 => ContentKind::Jid,
            _ => ContentKind::Nodes,
        }
    }

    /// The third field of a children word, used while the node is open.
    #[inline(always)]
    pub(super) const fn spare(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline(always)]
    pub(super) const fn with_spare(self, spare: u16) -> Self {
        Self(self.0 & 0xffff_ffff_ffff | (spare as u64) << 48)
    }

    #[inline(always)]
    pub(super) const fn with_low(self, low: usize) -> Self {
        Self(self.0 & !0xffff_ffff | low as u64 & 0xffff_ffff)
    }
}

/// What the content word of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentKind {
    None = 0,
    Bytes = 1,
    Text = 2,
    Jid = 3,
    Nodes = 4,
}

impl Tape {
    #[inline(always)]
    pub(super) fn text(&self, word: Word) -> &str {
        match word.0 & KIND {
            0 => Token::text_of(word.low()),
            SIDE => self.side.get(word.range()).unwrap_or_default(),
            _ => self.frame_text(word),
        }
    }

    /// Was checked when it was decoded; the type system wants it again.
    #[inline(never)]
    fn frame_text(&self, word: Word) -> &str {
        str::from_utf8(self.bytes(word)).unwrap_or_default()
    }

    /// Compares without checking the UTF-8 again.
    #[inline(always)]
    pub(super) fn text_is(&self, word: Word, other: &str) -> bool {
        match word.0 & KIND {
            FRAME => self.bytes(word) == other.as_bytes(),
            _ => self.text(word) == other,
        }
    }

    #[inline(always)]
    pub(super) fn bytes(&self, word: Word) -> &[u8] {
        self.frame.get(word.range()).unwrap_or_default()
    }

    /// Empties the tape and lets the frame go. Tables that are much larger than what stood in them are given back.
    pub(super) fn clear(&mut self) {
        self.frame = Bytes::new();
        let bytes = |words: usize| words.saturating_mul(size_of::<u64>());
        if is_outsized(bytes(self.words.capacity()), bytes(self.used)) {
            self.words = Vec::new();
        }
        self.used = 0;
        if is_outsized(self.side.capacity(), self.side.len()) {
            self.side = String::new();
        }
        self.side.clear();
    }
}

/// Whether a buffer holds much more memory than was used: a peak that is long past is not paid for ever.
fn is_outsized(held: usize, used: usize) -> bool {
    held > RETAIN && held / 4 > used
}

/// The bits that tell the kind of a word; a token has none of them.
const KIND: u64 = 3 << 62;
const FRAME: u64 = 1 << 62;
const SIDE: u64 = 2 << 62;
const JID: u64 = 3 << 62;
/// The bits of a length or of [`Word::jid_at`], after shifting.
const LEN: u64 = (1 << 30) - 1;
/// Buffers up to this many bytes are always kept.
const RETAIN: usize = 64 * 1_024;
