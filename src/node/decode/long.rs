//! Every form of a head, a text, a value and a content, read byte by byte; with the errors.

use super::NodeError;
use super::reader::MIN_NODE;
use super::side::Side;
use crate::node::packed::{self, Alphabet};
use crate::node::tape::{ContentKind, Word};
use crate::node::tokens::Token;
use crate::node::wire::*;

/// What becomes of bytes that are not UTF-8.
#[derive(Clone, Copy)]
enum Utf8 {
    /// Refused: tags, keys and parts of JIDs, which the program acts on.
    Strict,
    /// Replaced by U+FFFD: values, so that a bad display name loses no message.
    Repair,
}

/// The content of a node, and the position after it.
pub(super) struct Found {
    pub(super) kind: ContentKind,
    /// Bytes, a text, or the user of a JID.
    pub(super) word: Word,
    /// The server, if it is a JID.
    pub(super) server: Word,
    pub(super) children: u16,
    pub(super) position: usize,
}

/// Reads the header of a node and its tag: the number of fields, the tag, and the position after it.
#[inline(never)]
pub(super) fn head(data: &[u8], offset: usize, side: &mut Side<'_>) -> Result<(u16, Word, usize), NodeError> {
    let mut cursor = Cursor { data, position: offset };
    let size = match cursor.u8()? {
        LIST_8 => u16::from(cursor.u8()?),
        LIST_16 => cursor.u16()?,
        byte => return Err(NodeError::NotANode { offset, byte }),
    };
    if size == 0 {
        return Err(NodeError::EmptyNode { offset });
    }
    let offset = cursor.position;
    let tag = cursor.strict_text(side)?;
    if tag.is_empty() {
        return Err(NodeError::EmptyTag { offset });
    }
    Ok((size, tag, cursor.position))
}

/// Reads the key of an attribute, and gives the position after it.
#[inline(never)]
pub(super) fn key(data: &[u8], position: usize, side: &mut Side<'_>) -> Result<(Word, usize), NodeError> {
    let mut cursor = Cursor { data, position };
    Ok((cursor.strict_text(side)?, cursor.position))
}

/// Reads the value of an attribute: the text, or the user and the server of the JID; and the position after it.
#[inline(never)]
pub(super) fn value(data: &[u8], position: usize, side: &mut Side<'_>) -> Result<(Word, Word, usize), NodeError> {
    let mut cursor = Cursor { data, position };
    let tag = cursor.u8()?;
    let (value, server) = match tag {
        JID_PAIR | AD_JID | FB_JID | INTEROP_JID => cursor.jid(side, tag)?,
        LIST_EMPTY => (Word::EMPTY, Word::EMPTY),
        LIST_8 | LIST_16 => return Err(NodeError::NotAValue { offset: position, byte: tag }),
        _ => (cursor.text(side, tag, Utf8::Repair)?, Word::EMPTY),
    };
    Ok((value, server, cursor.position))
}

/// Reads the content of a node.
#[inline(never)]
pub(super) fn content(data: &[u8], position: usize, side: &mut Side<'_>) -> Result<Found, NodeError> {
    let mut cursor = Cursor { data, position };
    let (mut word, mut server, mut children) = (Word::EMPTY, Word::EMPTY, 0);
    let tag = cursor.u8()?;
    let kind = match tag {
        LIST_8 | LIST_16 => {
            children = if tag == LIST_8 { u16::from(cursor.u8()?) } else { cursor.u16()? };
            if usize::from(children).saturating_mul(MIN_NODE) > cursor.left() {
                return Err(NodeError::CountBeyondData { offset: position, count: usize::from(children) });
            }
            // An empty list is no content.
            if children > 0 { ContentKind::Nodes } else { ContentKind::None }
        }
        LIST_EMPTY => ContentKind::None,
        BINARY_8 | BINARY_20 | BINARY_32 => {
            word = cursor.binary(tag)?;
            ContentKind::Bytes
        }
        INTEROP_JID | FB_JID | AD_JID | JID_PAIR => {
            (word, server) = cursor.jid(side, tag)?;
            ContentKind::Jid
        }
        _ => {
            word = cursor.text(side, tag, Utf8::Repair)?;
            ContentKind::Text
        }
    };
    Ok(Found { kind, word, server, children, position: cursor.position })
}

/// Reads big-endian numbers and runs of bytes, and knows where it is. The position is never behind the end, so that
/// adding what was found there cannot overflow.
struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.data.len().saturating_sub(self.position)
    }

    #[inline(always)]
    fn take(&mut self, len: usize) -> Result<&'a [u8], NodeError> {
        let rest = self.data.get(self.position..).unwrap_or_default();
        let taken = rest.get(..len).ok_or_else(|| truncated(self.position, len))?;
        self.position = self.position.wrapping_add(len);
        Ok(taken)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], NodeError> {
        let found = self.data.get(self.position..).and_then(<[u8]>::first_chunk);
        let taken = *found.ok_or_else(|| truncated(self.position, N))?;
        self.position = self.position.wrapping_add(N);
        Ok(taken)
    }

    #[inline(always)]
    fn u8(&mut self) -> Result<u8, NodeError> {
        self.array().map(|[byte]| byte)
    }

    #[inline(always)]
    fn u16(&mut self) -> Result<u16, NodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Position of the last byte that was read.
    fn before(&self) -> usize {
        self.position.saturating_sub(1)
    }

    /// Reads a length and skips so many bytes.
    #[inline(always)]
    fn binary(&mut self, tag: u8) -> Result<Word, NodeError> {
        let len = match tag {
            BINARY_8 => usize::from(self.u8()?),
            // The upper four bits have no meaning.
            BINARY_20 => {
                let [high, middle, low] = self.array()?;
                u32::from_be_bytes([0, high & 0x0f, middle, low]) as usize
            }
            _ => u32::from_be_bytes(self.array()?) as usize,
        };
        let start = self.position;
        self.take(len)?;
        Ok(Word::frame(start, len))
    }

    fn strict_text(&mut self, side: &mut Side<'_>) -> Result<Word, NodeError> {
        let tag = self.u8()?;
        self.text(side, tag, Utf8::Strict)
    }

    /// Reads a text after its tag byte.
    #[inline(never)]
    fn text(&mut self, side: &mut Side<'_>, tag: u8, utf8: Utf8) -> Result<Word, NodeError> {
        match tag {
            1..=LAST_TOKEN => Ok(Word::token(Token::single(tag))),
            DICTIONARY_0..=DICTIONARY_3 => Ok(Word::token(Token::double(tag, self.u8()?))),
            NIBBLE_8 => self.packed(side, Alphabet::Nibble),
            HEX_8 => self.packed(side, Alphabet::Hex),
            BINARY_8 | BINARY_20 | BINARY_32 => self.raw(side, tag, utf8),
            UNASSIGNED_FIRST..=UNASSIGNED_LAST => Err(NodeError::UnknownToken { offset: self.before(), byte: tag }),
            byte => Err(NodeError::NotAText { offset: self.before(), byte }),
        }
    }

    fn raw(&mut self, side: &mut Side<'_>, tag: u8, utf8: Utf8) -> Result<Word, NodeError> {
        let span = self.binary(tag)?;
        let bytes = self.data.get(span.range()).unwrap_or_default();
        match (str::from_utf8(bytes), utf8) {
            (Ok(""), _) => Ok(Word::EMPTY),
            (Ok(_), _) => Ok(span),
            (Err(error), Utf8::Strict) => {
                Err(NodeError::BadUtf8 { offset: span.range().start.saturating_add(error.valid_up_to()) })
            }
            (Err(_), Utf8::Repair) => {
                let start = side.used();
                for chunk in bytes.utf8_chunks() {
                    side.push(chunk.valid());
                    if !chunk.invalid().is_empty() {
                        side.push("\u{fffd}");
                    }
                }
                Ok(Word::side(start, side.used().saturating_sub(start)))
            }
        }
    }

    fn packed(&mut self, side: &mut Side<'_>, alphabet: Alphabet) -> Result<Word, NodeError> {
        let header = self.u8()?;
        let (odd, len) = (usize::from(header >> 7), usize::from(header & 0x7f));
        let Some(chars) = len.wrapping_mul(2).checked_sub(odd) else {
            return Err(NodeError::BadPacked { offset: self.before() });
        };
        if chars == 0 {
            return Ok(Word::EMPTY);
        }
        let (start, position) = (side.used(), self.position);
        let mut left = chars;
        let (chunks, last) = self.take(len)?.as_chunks();
        let mut padded = [0; packed::CHUNK];
        padded.iter_mut().zip(last).for_each(|(to, from)| *to = *from);
        for chunk in chunks.iter().chain([&padded]) {
            if !alphabet.is_valid(*chunk, left) {
                return Err(bad_packed(self.data, position, alphabet, len, chars));
            }
            let taken = left.min(2 * packed::CHUNK);
            side.put(taken, |to| alphabet.unpack(chunk, to));
            left = left.wrapping_sub(taken);
        }
        Ok(Word::side(start, chars))
    }

    /// Reads a JID after its tag: its user and its server.
    fn jid(&mut self, side: &mut Side<'_>, tag: u8) -> Result<(Word, Word), NodeError> {
        match tag {
            JID_PAIR => {
                let user = match self.u8()? {
                    LIST_EMPTY => Word::EMPTY,
                    tag => self.text(side, tag, Utf8::Strict)?,
                };
                Ok((user, self.jid_part(side)?))
            }
            AD_JID => {
                let domain = self.u8()?;
                let server = match domain {
                    DOMAIN_PN => Token::PN,
                    DOMAIN_LID => Token::LID,
                    DOMAIN_HOSTED_LID => Token::HOSTED_LID,
                    _ if domain & 0x81 == DOMAIN_HOSTED => Token::HOSTED,
                    _ => return Err(NodeError::UnknownDomain { offset: self.before(), domain }),
                };
                let device = u16::from(self.u8()?);
                Ok((self.jid_part(side)?, Word::server(server, device, 0)))
            }
            _ => self.foreign_jid(side, tag),
        }
    }

    /// The `msgr` and `interop` forms, whose server is written out but has only one value.
    #[cold]
    fn foreign_jid(&mut self, side: &mut Side<'_>, tag: u8) -> Result<(Word, Word), NodeError> {
        let user = self.strict_text(side)?;
        let device = self.u16()?;
        let (integrator, expected) = if tag == INTEROP_JID { (self.u16()?, Token::INTEROP) } else { (0, Token::MSGR) };
        let offset = self.position;
        let server = self.jid_part(side)?;
        // Neither name can be packed.
        let is_raw = || self.data.get(server.range()) == Some(expected.text().as_bytes());
        if server != Word::token(expected) && !(server.is_in_frame() && is_raw()) {
            return Err(NodeError::WrongServer { offset });
        }
        Ok((user, Word::server(expected, device, integrator)))
    }

    /// A text that must not be empty.
    fn jid_part(&mut self, side: &mut Side<'_>) -> Result<Word, NodeError> {
        let offset = self.position;
        let text = self.strict_text(side)?;
        if text.is_empty() { Err(NodeError::IncompleteJid { offset }) } else { Ok(text) }
    }
}

/// Finds the first byte with a value outside of the alphabet.
#[cold]
#[inline(never)]
fn bad_packed(data: &[u8], position: usize, alphabet: Alphabet, len: usize, chars: usize) -> NodeError {
    let packed = data.get(position..).and_then(|rest| rest.get(..len)).unwrap_or_default();
    let index = alphabet.first_bad(packed, chars).unwrap_or_default();
    NodeError::BadPacked { offset: position.saturating_add(index) }
}

#[cold]
#[inline(never)]
fn truncated(offset: usize, wanted: usize) -> NodeError {
    NodeError::Truncated { offset, wanted }
}
