//! The decoder: one pass over the node bytes into a [`Tape`] (spec 02 §1 to §7 and §9).
//!
//! There is no recursion: while a node is open, its entry on the tape holds the way back to its parent, and the parts of a
//! JID are plain texts. Every announced length and count is checked against the bytes that are left before anything is
//! stored.

#[cfg(test)]
mod tests;

use std::mem;

use bytes::{Buf as _, Bytes};

use super::inflate::Inflater;
use super::packed::{self, Alphabet};
use super::tape::{ContentKind, Tape, Word};
use super::tokens::Token;
use super::wire::*;
use super::{NodeError, NodeRef};

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
    /// Attributes of a frame. Default 524,288 (8 MiB of tape, 16 MiB if all are JIDs).
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
        let used = self.tape.frame.len();
        self.tape.clear();
        self.inflater.trim(used);
        self.tape.frame = self.node_bytes(frame)?;

        let Tape { frame, side, words, used } = &mut self.tape;
        // The first frame gets two allocations, of which real stanzas use one to two thirds.
        let (first_words, first_side) = match frame.len() {
            ..=SMALL => (SMALL_WORDS, SMALL_SIDE),
            len => ((len / 8).saturating_mul(3).min(FIRST_WORDS), len.min(FIRST_SIDE)),
        };
        if words.is_empty() {
            *words = vec![0; first_words];
        }
        let mut texts = mem::take(side).into_bytes();
        if texts.capacity() == 0 {
            texts.reserve_exact(first_side);
        }
        let mut reader = Reader { data: frame, side: &mut texts, words, used: 0 };
        let read = reader.read_all(&self.limits);
        *used = reader.used;
        // All that was written there is UTF-8, each piece by itself.
        *side = String::from_utf8(texts).unwrap_or_default();
        read?;
        NodeRef::root(&self.tape).ok_or(NodeError::EmptyFrame)
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
            _ => self.inflater.inflate(&frame, &self.limits)?,
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
    data: &'a [u8],
    side: &'a mut Vec<u8>,
    /// The tape; what stands behind `used` is old.
    words: &'a mut Vec<u64>,
    used: usize,
}

impl Reader<'_> {
    fn read_all(&mut self, limits: &Limits) -> Result<(), NodeError> {
        // Numbers that every step needs live in variables, so that they can stay in registers.
        let (mut cursor, mut used) = (Cursor { data: self.data, position: 0 }, 0);
        let (mut nodes, mut attrs, mut depth) = (0u32, 0u32, 0u16);
        // The innermost open node, and how many of its children are not read yet.
        let (mut parent, mut left) = (0usize, 0u16);
        if limits.max_depth == 0 {
            return Err(NodeError::TooDeep { offset: 0, max: 0 });
        }
        loop {
            let at = used;
            let start = cursor.position;
            if nodes >= limits.max_nodes {
                return Err(NodeError::TooManyNodes { offset: start, max: limits.max_nodes });
            }
            nodes = nodes.wrapping_add(1);
            let size = match cursor.array() {
                Some([LIST_8, size]) => u16::from(size),
                _ => {
                    let (size, position) = long_header(cursor.data, start)?;
                    cursor.position = position;
                    size
                }
            };
            let attr_count = match size.checked_sub(1) {
                Some(fields) => fields / 2,
                None => return Err(NodeError::EmptyNode { offset: start }),
            };
            let tag_start = cursor.position;
            let tag = strict_text(&mut cursor, self.side)?;
            if tag.is_empty() {
                return Err(NodeError::EmptyTag { offset: tag_start });
            }
            if usize::from(attr_count).wrapping_mul(2) > cursor.left() {
                return Err(NodeError::CountBeyondData { offset: start, count: usize::from(attr_count) });
            }
            attrs = attrs.saturating_add(u32::from(attr_count));
            if attrs > limits.max_attrs {
                return Err(NodeError::TooManyAttrs { offset: start, max: limits.max_attrs });
            }

            // Room for the node, as if all attributes were JIDs and the content, too.
            let room = usize::from(attr_count).wrapping_mul(4).wrapping_add(5);
            let own = match self.words.get_mut(used..).and_then(|rest| rest.get_mut(..room)) {
                Some(own) => own,
                None => more_room(self.words, used, room),
            };
            let Some((head, mut free)) = own.split_first_chunk_mut::<3>() else { break };
            used = used.wrapping_add(3);
            if attr_count > 0 {
                let (position, words) = read_attrs(cursor.data, cursor.position, self.side, free, attr_count)?;
                cursor.position = position;
                used = used.wrapping_add(words);
                free = free.get_mut(words..).unwrap_or_default();
            }

            let (mut kind, mut content, mut children) = (ContentKind::None, Word::EMPTY, 0);
            if size % 2 == 0 {
                let start = cursor.position;
                let tag = cursor.u8()?;
                match tag {
                    LIST_8 | LIST_16 => {
                        children = if tag == LIST_8 { u16::from(cursor.u8()?) } else { cursor.u16()? };
                        // The smallest node has three bytes.
                        if usize::from(children).wrapping_mul(3) > cursor.left() {
                            return Err(NodeError::CountBeyondData { offset: start, count: usize::from(children) });
                        }
                        // An empty list is no content.
                        if children > 0 {
                            kind = ContentKind::Nodes;
                            content = Word::children(children, used.wrapping_sub(at));
                        }
                    }
                    BINARY_8 | BINARY_20 | BINARY_32 => {
                        kind = ContentKind::Bytes;
                        content = cursor.binary(tag)?;
                    }
                    LIST_EMPTY => {}
                    INTEROP_JID | FB_JID | AD_JID | JID_PAIR => {
                        let (jid, user, server) = jid(&mut cursor, self.side, tag, used.wrapping_sub(at))?;
                        let Some((slots, _)) = mem::take(&mut free).split_first_chunk_mut() else { break };
                        *slots = [user.0, server.0];
                        used = used.wrapping_add(2);
                        (kind, content) = (ContentKind::Jid, jid);
                    }
                    _ => (kind, content) = (ContentKind::Text, text(&mut cursor, self.side, tag, Utf8::Repair)?),
                }
            }
            *head = [tag.0, Word::meta(kind, attr_count, used.wrapping_sub(at)).0, content.0];

            if children > 0 {
                depth = depth.wrapping_add(1);
                if depth >= limits.max_depth {
                    return Err(NodeError::TooDeep { offset: cursor.position, max: limits.max_depth });
                }
                // While a node is open, its entry tells where its parent is, and what is left there.
                let [_, meta, content] = head;
                *meta = Word(*meta).with_low(parent).0;
                *content = Word(*content).with_spare(left).0;
                (parent, left) = (at, children);
                continue;
            }
            while left == 1 {
                (parent, left) = self.close(parent, used);
                depth = depth.wrapping_sub(1);
            }
            match left.checked_sub(1) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        self.used = used;
        match cursor.left() {
            0 => Ok(()),
            _ => Err(NodeError::TrailingBytes { offset: cursor.position }),
        }
    }

    /// All that is below the node stands on the tape; gives back its parent, and what is left there.
    fn close(&mut self, at: usize, used: usize) -> (usize, u16) {
        let head = self.words.get_mut(at..).and_then(<[u64]>::first_chunk_mut);
        let Some([_, meta, content]) = head else { return (0, 0) };
        let noted = (Word(*meta).low(), Word(*content).spare());
        *meta = Word(*meta).with_low(used.wrapping_sub(at)).0;
        *content = Word(*content).with_spare(0).0;
        noted
    }
}

/// Reads attributes to the tape, and gives the position after them and how many words they are. Not inlined, so that its
/// loop has the registers for itself.
#[inline(never)]
fn read_attrs(
    data: &[u8],
    position: usize,
    side: &mut Vec<u8>,
    free: &mut [u64],
    count: u16,
) -> Result<(usize, usize), NodeError> {
    let mut cursor = Cursor { data, position };
    let room = free.len();
    let mut free = free;
    for _ in 0..count {
        let key = strict_text(&mut cursor, side)?;
        let tag = cursor.u8()?;
        if let JID_PAIR | AD_JID | FB_JID | INTEROP_JID = tag {
            let (jid, user, server) = jid(&mut cursor, side, tag, 0)?;
            let Some((slots, rest)) = mem::take(&mut free).split_first_chunk_mut() else { break };
            *slots = [key.0, jid.0, user.0, server.0];
            free = rest;
        } else {
            let value = match tag {
                LIST_EMPTY..=LAST_TOKEN => Word::token(Token::single(tag)),
                LIST_8 | LIST_16 => return Err(NodeError::NotAValue { offset: cursor.before(), byte: tag }),
                _ => long_text(&mut cursor, side, tag, Utf8::Repair)?,
            };
            let Some((slots, rest)) = mem::take(&mut free).split_first_chunk_mut() else { break };
            *slots = [key.0, value.0];
            free = rest;
        }
    }
    Ok((cursor.position, room.wrapping_sub(free.len())))
}

/// Makes the tape longer.
#[cold]
#[inline(never)]
fn more_room(words: &mut Vec<u64>, used: usize, room: usize) -> &mut [u64] {
    let len = used.saturating_add(room);
    words.resize(len.max(words.len().saturating_mul(2)), 0);
    words.get_mut(used..len).unwrap_or_default()
}

/// A header with a count of two bytes, and the position after it; or what is none.
#[cold]
#[inline(never)]
fn long_header(data: &[u8], offset: usize) -> Result<(u16, usize), NodeError> {
    let mut cursor = Cursor { data, position: offset };
    let size = match cursor.u8()? {
        LIST_8 => u16::from(cursor.u8()?),
        LIST_16 => cursor.u16()?,
        byte => return Err(NodeError::NotANode { offset, byte }),
    };
    Ok((size, cursor.position))
}

/// Reads a JID after its tag: its head (which notes `at`), its user and its server.
#[inline(always)]
fn jid(cursor: &mut Cursor<'_>, side: &mut Vec<u8>, tag: u8, at: usize) -> Result<(Word, Word, Word), NodeError> {
    match tag {
        JID_PAIR => {
            let user = match cursor.u8()? {
                NIBBLE_8 => packed(cursor, side, Alphabet::Nibble)?,
                LIST_EMPTY => Word::EMPTY,
                tag => text(cursor, side, tag, Utf8::Strict)?,
            };
            Ok((Word::jid(0, 0, at), user, jid_part(cursor, side)?))
        }
        AD_JID => {
            let domain = cursor.u8()?;
            let server = match domain {
                DOMAIN_PN => Token::PN,
                DOMAIN_LID => Token::LID,
                DOMAIN_HOSTED_LID => Token::HOSTED_LID,
                _ if domain & 0x81 == DOMAIN_HOSTED => Token::HOSTED,
                _ => return Err(NodeError::UnknownDomain { offset: cursor.before(), domain }),
            };
            let device = u16::from(cursor.u8()?);
            Ok((Word::jid(device, 0, at), jid_part(cursor, side)?, Word::token(server)))
        }
        _ => {
            let (jid, user, server, position) = foreign_jid(cursor.data, cursor.position, side, tag, at)?;
            cursor.position = position;
            Ok((jid, user, server))
        }
    }
}

/// The `msgr` and `interop` forms, whose server is written out but has only one value.
#[cold]
#[inline(never)]
fn foreign_jid(
    data: &[u8],
    position: usize,
    side: &mut Vec<u8>,
    tag: u8,
    at: usize,
) -> Result<(Word, Word, Word, usize), NodeError> {
    let mut cursor = Cursor { data, position };
    let user = strict_text(&mut cursor, side)?;
    let device = cursor.u16()?;
    let (integrator, expected) = if tag == INTEROP_JID { (cursor.u16()?, Token::INTEROP) } else { (0, Token::MSGR) };
    let offset = cursor.position;
    let server = jid_part(&mut cursor, side)?;
    // Neither name can be packed.
    let is_raw = || cursor.data.get(server.range()) == Some(expected.text().as_bytes());
    if server != Word::token(expected) && !(server.is_in_frame() && is_raw()) {
        return Err(NodeError::WrongServer { offset });
    }
    Ok((Word::jid(device, integrator, at), user, Word::token(expected), cursor.position))
}

/// A text that must not be empty.
#[inline(always)]
fn jid_part(cursor: &mut Cursor<'_>, side: &mut Vec<u8>) -> Result<Word, NodeError> {
    let offset = cursor.position;
    let text = strict_text(cursor, side)?;
    if text.is_empty() { Err(NodeError::IncompleteJid { offset }) } else { Ok(text) }
}

#[inline(always)]
fn strict_text(cursor: &mut Cursor<'_>, side: &mut Vec<u8>) -> Result<Word, NodeError> {
    let tag = cursor.u8()?;
    text(cursor, side, tag, Utf8::Strict)
}

/// Reads a text after its tag byte.
#[inline(always)]
fn text(cursor: &mut Cursor<'_>, side: &mut Vec<u8>, tag: u8, utf8: Utf8) -> Result<Word, NodeError> {
    match tag {
        1..=LAST_TOKEN => Ok(Word::token(Token::single(tag))),
        _ => long_text(cursor, side, tag, utf8),
    }
}

/// A text of more than one byte.
#[inline(always)]
fn long_text(cursor: &mut Cursor<'_>, side: &mut Vec<u8>, tag: u8, utf8: Utf8) -> Result<Word, NodeError> {
    if let DICTIONARY_0..=DICTIONARY_3 = tag {
        return Ok(Word::token(Token::double(tag, cursor.u8()?)));
    }
    if tag == BINARY_8
        && let Some(word) = short_ascii(cursor, side)
    {
        return Ok(word);
    }
    let (word, position) = longer_text(cursor.data, cursor.position, side, tag, utf8)?;
    cursor.position = position;
    Ok(word)
}

/// A raw text of at most 16 bytes, all of them ASCII, after its tag: the commonest kind. It is copied to the side text,
/// from where it is read without checking it again. `None` for all others.
#[inline(always)]
fn short_ascii(cursor: &mut Cursor<'_>, side: &mut Vec<u8>) -> Option<Word> {
    let (&len, rest) = cursor.data.get(cursor.position..)?.split_first()?;
    let (chunk, len) = (rest.first_chunk::<16>()?, usize::from(len));
    let unused = 128usize.checked_sub(len.wrapping_mul(8))? as u32;
    let used = u128::from_le_bytes(*chunk) & u128::MAX.checked_shr(unused)?;
    if used & 0x8080_8080_8080_8080_8080_8080_8080_8080 != 0 {
        return None;
    }
    let start = side.len();
    side.extend_from_slice(chunk);
    side.truncate(start.wrapping_add(len));
    cursor.position = cursor.position.wrapping_add(len).wrapping_add(1);
    Some(Word::side(start, len))
}

/// A text that is no token, and the position after it.
#[inline(never)]
fn longer_text(
    data: &[u8],
    position: usize,
    side: &mut Vec<u8>,
    tag: u8,
    utf8: Utf8,
) -> Result<(Word, usize), NodeError> {
    let mut cursor = Cursor { data, position };
    let word = match tag {
        NIBBLE_8 => packed(&mut cursor, side, Alphabet::Nibble)?,
        HEX_8 => packed(&mut cursor, side, Alphabet::Hex)?,
        BINARY_8 | BINARY_20 | BINARY_32 => raw(&mut cursor, side, tag, utf8)?,
        byte => {
            let offset = cursor.before();
            return Err(match byte {
                UNASSIGNED_FIRST..=UNASSIGNED_LAST => NodeError::UnknownToken { offset, byte },
                _ => NodeError::NotAText { offset, byte },
            });
        }
    };
    Ok((word, cursor.position))
}

#[inline(always)]
fn packed(cursor: &mut Cursor<'_>, side: &mut Vec<u8>, alphabet: Alphabet) -> Result<Word, NodeError> {
    let header = cursor.u8()?;
    let (odd, len) = (header >> 7, usize::from(header & 0x7f));
    let chars = len.wrapping_mul(2).wrapping_sub(usize::from(odd));
    let start = side.len();
    // Most texts have at most 16 characters, and are not the last 8 bytes of the frame.
    match cursor.data.get(cursor.position..).and_then(<[u8]>::first_chunk) {
        Some(chunk) if chars.wrapping_sub(1) < 2 * packed::CHUNK => {
            let (text, valid) = alphabet.unpack(*chunk, chars);
            if !valid {
                return Err(bad_packed(cursor.data, cursor.position, alphabet, len, chars));
            }
            side.extend_from_slice(&text);
            side.truncate(start.wrapping_add(chars));
            cursor.position = cursor.position.wrapping_add(len);
        }
        _ => cursor.position = packed_in_chunks(cursor.data, cursor.position, side, alphabet, len, chars)?,
    }
    Ok(if chars == 0 { Word::EMPTY } else { Word::side(start, chars) })
}

#[inline(always)]
fn two_chunks(data: &[u8], position: usize) -> Option<[[u8; packed::CHUNK]; 2]> {
    let (first, rest) = data.get(position..)?.split_first_chunk()?;
    Some([*first, *rest.first_chunk()?])
}

/// Any packed text; gives the position after it.
#[inline(never)]
fn packed_in_chunks(
    data: &[u8],
    position: usize,
    side: &mut Vec<u8>,
    alphabet: Alphabet,
    len: usize,
    chars: usize,
) -> Result<usize, NodeError> {
    // Most message ids have 17 to 32 characters.
    if chars.wrapping_sub(2 * packed::CHUNK + 1) < 2 * packed::CHUNK
        && let Some([first, second]) = two_chunks(data, position)
    {
        let (head, head_valid) = alphabet.unpack(first, 2 * packed::CHUNK);
        let (tail, tail_valid) = alphabet.unpack(second, chars.wrapping_sub(2 * packed::CHUNK));
        if !(head_valid && tail_valid) {
            return Err(bad_packed(data, position, alphabet, len, chars));
        }
        let start = side.len();
        side.extend_from_slice([head, tail].as_flattened());
        side.truncate(start.wrapping_add(chars));
        return Ok(position.wrapping_add(len));
    }
    let mut cursor = Cursor { data, position };
    // Odd without bytes.
    if chars > len.saturating_mul(2) {
        return Err(NodeError::BadPacked { offset: cursor.before() });
    }
    let start = side.len();
    let mut left = chars;
    for chunk in cursor.take(len)?.chunks(packed::CHUNK) {
        let mut padded = [0; packed::CHUNK];
        padded.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        let (text, valid) = alphabet.unpack(padded, left);
        if !valid {
            return Err(bad_packed(data, position, alphabet, len, chars));
        }
        side.extend_from_slice(&text);
        left = left.saturating_sub(text.len());
    }
    side.truncate(start.saturating_add(chars));
    Ok(cursor.position)
}

/// Finds the first byte with a value outside of the alphabet, or that there are too few bytes.
#[cold]
#[inline(never)]
fn bad_packed(data: &[u8], position: usize, alphabet: Alphabet, len: usize, chars: usize) -> NodeError {
    match data.get(position..).and_then(|rest| rest.get(..len)) {
        Some(packed) => {
            let index = alphabet.first_bad(packed, chars).unwrap_or_default();
            NodeError::BadPacked { offset: position.saturating_add(index) }
        }
        None => truncated(position, len),
    }
}

fn raw(cursor: &mut Cursor<'_>, side: &mut Vec<u8>, tag: u8, utf8: Utf8) -> Result<Word, NodeError> {
    let span = cursor.binary(tag)?;
    let bytes = cursor.data.get(span.range()).unwrap_or_default();
    match (str::from_utf8(bytes), utf8) {
        (Ok(""), _) => Ok(Word::EMPTY),
        (Ok(_), _) => Ok(span),
        (Err(error), Utf8::Strict) => {
            Err(NodeError::BadUtf8 { offset: span.range().start.saturating_add(error.valid_up_to()) })
        }
        (Err(_), Utf8::Repair) => {
            let start = side.len();
            for chunk in bytes.utf8_chunks() {
                side.extend_from_slice(chunk.valid().as_bytes());
                if !chunk.invalid().is_empty() {
                    side.extend_from_slice("\u{fffd}".as_bytes());
                }
            }
            Ok(Word::side(start, side.len().saturating_sub(start)))
        }
    }
}

/// Reads big-endian numbers and runs of bytes, and knows where it is. The position is never behind the end, so that
/// adding what was found there cannot overflow.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn left(&self) -> usize {
        self.data.len().wrapping_sub(self.position)
    }

    #[inline(always)]
    fn take(&mut self, len: usize) -> Result<&'a [u8], NodeError> {
        let rest = self.data.get(self.position..).unwrap_or_default();
        let taken = rest.get(..len).ok_or_else(|| truncated(self.position, len))?;
        self.position = self.position.wrapping_add(len);
        Ok(taken)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.data.get(self.position..)?.first_chunk()?;
        self.position = self.position.wrapping_add(N);
        Some(taken)
    }

    #[inline(always)]
    fn u8(&mut self) -> Result<u8, NodeError> {
        let byte = *self.data.get(self.position).ok_or_else(|| truncated(self.position, 1))?;
        self.position = self.position.wrapping_add(1);
        Ok(byte)
    }

    #[inline(always)]
    fn u16(&mut self) -> Result<u16, NodeError> {
        Ok(u16::from_be_bytes(self.array().ok_or_else(|| truncated(self.position, 2))?))
    }

    /// Reads a length and skips so many bytes.
    #[inline(always)]
    fn binary(&mut self, tag: u8) -> Result<Word, NodeError> {
        let len = match tag {
            BINARY_8 => usize::from(self.u8()?),
            // The upper four bits have no meaning.
            BINARY_20 => {
                let [high, middle, low] = self.array().ok_or_else(|| truncated(self.position, 3))?;
                u32::from_be_bytes([0, high & 0x0f, middle, low]) as usize
            }
            _ => u32::from_be_bytes(self.array().ok_or_else(|| truncated(self.position, 4))?) as usize,
        };
        let start = self.position;
        self.take(len)?;
        Ok(Word::frame(start, len))
    }

    /// Position of the last byte that was read.
    #[inline(always)]
    fn before(&self) -> usize {
        self.position.saturating_sub(1)
    }
}

#[cold]
#[inline(never)]
fn truncated(offset: usize, wanted: usize) -> NodeError {
    NodeError::Truncated { offset, wanted }
}

/// Frames up to this length have few nodes and much content, if any.
const SMALL: usize = 2_048;
/// Words that the first frame reserves if it is small.
const SMALL_WORDS: usize = 64;
/// Bytes of side text that the first frame reserves if it is small.
const SMALL_SIDE: usize = 256;
/// Most words that the first frame reserves: 256 KiB.
const FIRST_WORDS: usize = 32 * 1_024;
/// Most bytes of side text that the first frame reserves.
const FIRST_SIDE: usize = 48 * 1_024;
/// Largest accepted [`Limits::max_inflated`]: side text can grow to three times the node, and a [`Word`] has 30 bits for
/// a length.
const MAX_NODE_BYTES: usize = 1 << 28;
/// Largest accepted [`Limits::max_depth`]: owned nodes are dropped and compared by recursion.
const MAX_DEPTH_LIMIT: u16 = 256;
