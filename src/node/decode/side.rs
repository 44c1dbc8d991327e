//! The side text: what a frame says in a form that is not UTF-8 as it stands, one text behind the other.

use crate::node::tape::Word;

/// Takes texts. Short ones are written as a chunk of fixed size of which only the beginning counts, which is faster than
/// copying just that; the next text overwrites the rest.
///
/// It does not grow. When the room ends it takes nothing more, and says so at the end: then all begins anew with more room.
pub(super) struct Side<'a> {
    bytes: &'a mut [u8],
    used: usize,
    is_full: bool,
    is_ascii: bool,
}

/// What became of a [`Side`].
pub(super) struct Written {
    /// How many bytes are texts; zeros and ASCII follow.
    pub(super) used: usize,
    /// Whether something found no room.
    pub(super) is_full: bool,
    /// Whether all texts are ASCII.
    pub(super) is_ascii: bool,
}

impl<'a> Side<'a> {
    /// Writes over `bytes`, which are ASCII.
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, used: 0, is_full: false, is_ascii: true }
    }

    /// Appends a text of at most [`CHUNK`] bytes: `write` sets a whole chunk, of which the first `len` bytes are the text,
    /// and all of it ASCII.
    #[inline(always)]
    pub(super) fn put(&mut self, len: usize, write: impl FnOnce(&mut [u8; CHUNK])) -> Word {
        let start = self.used;
        match self.bytes.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            Some(chunk) => {
                write(chunk);
                self.used = start.wrapping_add(len);
                Word::side(start, len)
            }
            None => self.no_room(),
        }
    }

    /// Appends a text of any length, or a part of one.
    pub(super) fn push(&mut self, text: &str) {
        self.is_ascii = false;
        let end = self.used.saturating_add(text.len());
        match self.bytes.get_mut(self.used..end) {
            Some(room) => {
                room.copy_from_slice(text.as_bytes());
                self.used = end;
            }
            None => {
                self.no_room();
            }
        }
    }

    /// Where the next text begins.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    pub(super) const fn finish(self) -> Written {
        Written { used: self.used, is_full: self.is_full, is_ascii: self.is_ascii }
    }

    #[cold]
    #[inline(never)]
    const fn no_room(&mut self) -> Word {
        self.is_full = true;
        Word::EMPTY
    }
}

/// Bytes of a chunk.
pub(super) const CHUNK: usize = 16;
