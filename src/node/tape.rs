//! The tape: a decoded frame as one flat list of entries of three words over the frame's own bytes.
//!
//! ```text
//! node  = [ tag  meta  content ]  { attribute }  { [ user  server  0 ] }  { node }
//! meta  = entries of the whole subtree (32 bits) | attributes (16) | kind of content (3)
//! attribute = [ key  text  0 ]
//!           | [ key  user  server ]
//! ```
//!
//! A [`Word`] is a token, a range of the frame, or a range of `side`, which holds what does not stand in the frame as
//! UTF-8 (unpacked and repaired texts) and short texts. A server is such a text, too, or a word of its own with a token, a
//! device and an integrator; it is never 0. The content of a node is a word of that kind; for children it is their number.
//! A JID as content stands after the attributes.

use std::ops::Range;

use bytes::Bytes;

use super::tokens::Token;

/// A decoded frame. Ranges and numbers in the words are valid for the other fields; readers still use checked access, and
/// read nothing where they would be wrong.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) frame: Bytes,
    pub(super) side: String,
    /// Whether `side` is ASCII.
    pub(super) is_ascii: bool,
    /// What stands behind `used` is old.
    pub(super) entries: Vec<Entry>,
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

    /// The server of a JID that has more than a user.
    #[inline(always)]
    pub(super) const fn server(token: Token, device: u16, integrator: u16) -> Self {
        Self(SERVER | (integrator as u64) << 32 | (device as u64) << 16 | token.number() as u64)
    }

    /// The content of a node with children: how many. While the node is open, `spare` has a place there, too.
    #[inline(always)]
    pub(super) const fn children(count: u16, spare: u16) -> Self {
        Self((spare as u64) << 48 | (count as u64) << 32)
    }

    #[inline(always)]
    pub(super) const fn meta(kind: ContentKind, attrs: usize, size: usize) -> Self {
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

    /// The range of a piece.
    #[inline(always)]
    pub(super) const fn range(self) -> Range<usize> {
        let (start, len) = (self.low(), self.0 >> 32 & LEN);
        start..start.saturating_add(len as usize)
    }

    /// The number of the token, device and integrator of a server.
    #[inline(always)]
    pub(super) const fn as_server(self) -> Option<(usize, u16, u16)> {
        match self.0 & KIND {
            SERVER => Some((self.0 as u16 as usize, (self.0 >> 16) as u16, (self.0 >> 32) as u16)),
            _ => None,
        }
    }

    /// The second field: the number of children, the number of attributes in a meta word.
    #[inline(always)]
    pub(super) const fn count(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The first field: the size in a meta word.
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
        if word.0 < FRAME {
            Token::text_of(word.low())
        } else if word.0 < SIDE {
            self.frame_text(word)
        } else {
            self.side.get(word.range()).unwrap_or_else(nothing)
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
        self.frame.get(word.range()).unwrap_or_else(nothing)
    }

    /// Empties the tape. Tables that are much larger than what stood in them are given back. The frame stays for now.
    pub(super) fn clear(&mut self) {
        if is_outsized(self.entries.len(), self.used, RETAINED_ENTRIES) {
            self.entries = Vec::new();
        }
        self.used = 0;
        if is_outsized(self.side.capacity(), self.side.len(), RETAIN) {
            self.side = String::new();
        }
    }
}

/// What the tape is made of.
pub(super) type Entry = [Word; 3];
pub(super) const EMPTY_ENTRY: Entry = [Word::EMPTY; 3];

/// What is read where a word is wrong. A call, so that the compiler makes a branch of it and does not compute both.
#[cold]
#[inline(never)]
pub(super) fn nothing<T: Default>() -> T {
    T::default()
}

/// Whether a buffer holds much more than was used: a peak that is long past is not paid for ever.
#[inline(always)]
fn is_outsized(held: usize, used: usize, retain: usize) -> bool {
    held > retain && held / 4 > used
}

/// The bits that tell the kind of a word; a token has none of them.
const KIND: u64 = 3 << 62;
const FRAME: u64 = 1 << 62;
const SIDE: u64 = 2 << 62;
const SERVER: u64 = 3 << 62;
/// The bits of a length, after shifting.
const LEN: u64 = (1 << 30) - 1;
/// Buffers up to this many bytes are always kept.
const RETAIN: usize = 64 * 1_024;
/// The same in entries.
const RETAINED_ENTRIES: usize = RETAIN / size_of::<Entry>();
