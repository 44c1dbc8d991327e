//! The decoder: one pass over the node bytes into a [`Tape`] (spec 02 §1 to §7 and §9).
//!
//! There is no recursion: while a node is open, its entry on the tape holds the way back to its parent, and the parts of a
//! JID are plain texts. Every announced length and count is checked against the bytes that are left before anything is
//! stored.

mod long;
mod reader;
mod side;
#[cfg(test)]
mod tests;

use std::mem;

use bytes::{Buf as _, Bytes};

use super::inflate::Inflater;
use super::tape::{EMPTY_ENTRY, Entry, Tape};
use super::wire::{FLAG_ZLIB, MAX_DEPTH};
use super::{NodeError, NodeRef};
use side::Side;

/// How much a frame may ask for. The defaults are far above real stanzas and far below what hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a node, checked while inflating. Default 16 MiB; values above 256 MiB count as 256 MiB.
    pub max_inflated: usize,
    /// How many times the compressed body the inflated node may be, checked while inflating; a node of up to 256 KiB may
    /// always be. Default 256: real stanzas are below 30, and zlib reaches about 1,030.
    pub max_ratio: u32,
    /// Levels of nodes, the root being the first. Default 128; values above 256 count as 256.
    pub max_depth: u16,
    /// Nodes of a frame. Default 262,144 (6 MiB of tape).
    pub max_nodes: u32,
    /// Attributes of a frame. Default 524,288 (12 MiB of tape).
    pub max_attrs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_inflated: 16 << 20, max_ratio: 256, max_depth: MAX_DEPTH, max_nodes: 262_144, max_attrs: 524_288 }
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
    inflater: Inflater,
}

impl Decoder {
    /// A decoder without memory; the first frames bring it.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            max_inflated: limits.max_inflated.min(MAX_NODE_BYTES),
            max_depth: limits.max_depth.min(MAX_DEPTH_LIMIT),
            ..limits
        };
        Self { limits, tape: Tape::default(), inflater: Inflater::default() }
    }

    /// Decodes a frame: the flag byte, and node bytes or their zlib stream. The frame is held until the next call, and
    /// its bytes are shared, not copied.
    ///
    /// # Errors
    /// [`NodeError`] when the frame is not exactly one node (spec 02 §9), or is above a limit. The decoder can go on with
    /// the next frame.
    pub fn decode(&mut self, frame: Bytes) -> Result<NodeRef<'_>, NodeError> {
        let earlier = self.tape.frame.len();
        self.tape.clear();
        self.inflater.trim(earlier);
        let read = self.node_bytes(frame).and_then(|bytes| {
            self.tape.frame = bytes;
            self.read(earlier)
        });
        if let Err(error) = read {
            self.tape.frame = Bytes::new();
            return Err(error);
        }
        NodeRef::root(&self.tape).ok_or(NodeError::EmptyFrame)
    }

    /// Reads the frame to the tape. The one before it had `earlier` bytes.
    fn read(&mut self, earlier: usize) -> Result<(), NodeError> {
        let Tape { frame, side, is_ascii, entries, used } = &mut self.tape;
        let mut texts = mem::take(side).into_bytes();
        if entries.is_empty() || texts.capacity() == 0 {
            first_tables(frame.len(), entries, &mut texts);
        }
        if !*is_ascii {
            texts.clear();
        }
        // What is there already need not be set to zero again.
        if frame.len() > earlier || texts.is_empty() {
            let likely = frame.len().saturating_add(SMALL_SIDE).min(texts.capacity());
            texts.resize(likely.max(texts.len()), 0);
        }
        let read = loop {
            let mut side = Side::new(&mut texts);
            let read = reader::read(frame, entries, &mut side, &self.limits);
            let written = side.finish();
            *is_ascii = written.is_ascii;
            // What was enough for other frames may be too little for this one. Then all is read again.
            match read {
                Ok(None) => {
                    let enough = (frame.len() / 8).min(FIRST_ENTRIES);
                    entries.resize(entries.len().saturating_mul(2).max(enough), EMPTY_ENTRY);
                }
                Ok(Some(_)) if written.is_full => {
                    let enough = frame.len().min(FIRST_SIDE);
                    let len = texts.len().saturating_mul(2).max(enough);
                    texts.clear();
                    texts.resize(len, 0);
                }
                Ok(Some(entries)) => break Ok((entries, written.used)),
                Err(error) => break Err(error),
            }
        };
        match read {
            // All that was written is UTF-8, each piece by itself. Checking whole chunks is faster; ASCII is what follows.
            // One chunk more is kept, because the last text of the next frame may need it.
            Ok((_, len)) => texts.truncate(len.next_multiple_of(side::CHUNK).saturating_add(side::CHUNK)),
            Err(_) => texts.clear(),
        }
        *side = String::from_utf8(texts).unwrap_or_default();
        *used = read?.0;
        Ok(())
    }

    /// Lets the last frame go and gives all memory back; for a connection that is idle.
    pub fn release(&mut self) {
        self.tape = Tape::default();
        self.inflater.release();
    }

    /// Strips the flag byte, and inflates.
    fn node_bytes(&mut self, mut frame: Bytes) -> Result<Bytes, NodeError> {
        let max = self.limits.max_inflated;
        let &flags = frame.first().ok_or(NodeError::EmptyFrame)?;
        frame.advance(1);
        let bytes = match flags & FLAG_ZLIB {
            _ if frame.is_empty() => frame,
            0 if frame.len() > max => return Err(NodeError::TooLarge { max }),
            0 => frame,
            _ => {
                // The buffer of the frame before can be used again when nobody holds it.
                self.tape.frame = Bytes::new();
                self.inflater.inflate(&frame, &self.limits)?
            }
        };
        if bytes.is_empty() { Err(NodeError::EmptyFrame) } else { Ok(bytes) }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// The first frame gets two allocations, of which real stanzas use one to two thirds.
#[cold]
#[inline(never)]
fn first_tables(frame: usize, entries: &mut Vec<Entry>, texts: &mut Vec<u8>) {
    let (first_entries, first_side) = match frame {
        ..=SMALL => (SMALL_ENTRIES, SMALL_SIDE),
        _ => ((frame / 8).min(FIRST_ENTRIES), frame.min(FIRST_SIDE)),
    };
    if entries.is_empty() {
        *entries = vec![EMPTY_ENTRY; first_entries];
    }
    if texts.capacity() == 0 {
        *texts = vec![0; first_side];
    }
}

/// Frames up to this length have few nodes and much content, if any.
const SMALL: usize = 2_048;
/// Entries that the first frame reserves if it is small.
const SMALL_ENTRIES: usize = 24;
/// Bytes of side text that the first frame reserves if it is small.
const SMALL_SIDE: usize = 256;
/// Most entries that the first frame reserves: 240 KiB.
const FIRST_ENTRIES: usize = 10 * 1_024;
/// Most bytes of side text that the first frame reserves.
const FIRST_SIDE: usize = 48 * 1_024;
/// Largest accepted [`Limits::max_inflated`]: side text can grow to three times the node, and a [`Word`] has 30 bits for
/// a length.
const MAX_NODE_BYTES: usize = 1 << 28;
/// Largest accepted [`Limits::max_depth`]: owned nodes are dropped and compared by recursion.
const MAX_DEPTH_LIMIT: u16 = 256;
