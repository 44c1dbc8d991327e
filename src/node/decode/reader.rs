//! One pass over the node bytes, which writes the tape.
//!
//! The commonest forms are read here, in one step each: a piece of fixed size is looked at, so that one check of the length
//! serves all of it. What is longer, rarer or wrong goes to [`long`], which reads every form and has the errors.

use super::long;
use super::side::Side;
use super::{Limits, NodeError};
use crate::node::packed::{self, Alphabet};
use crate::node::tape::{ContentKind, Entry, Word};
use crate::node::tokens::Token;
use crate::node::wire::*;

/// Reads all of `data`, which is one node; gives how many entries of the tape are used, or `None` if they are too few.
pub(super) fn read(
    data: &[u8],
    entries: &mut [Entry],
    side: &mut Side<'_>,
    limits: &Limits,
) -> Result<Option<usize>, NodeError> {
    let mut rest = data;
    let mut used = 0usize;
    let (mut nodes_left, mut attrs_left, mut levels_left) = (limits.max_nodes, limits.max_attrs, limits.max_depth);
    // The innermost open node, and how many of its children are not read yet.
    let (mut parent, mut left) = (0usize, 0u16);
    if levels_left == 0 {
        return Err(NodeError::TooDeep { offset: 0, max: 0 });
    }
    loop {
        let (at, start) = (used, rest.len());
        let offset = |left: usize| data.len().wrapping_sub(left);
        nodes_left = match nodes_left.checked_sub(1) {
            Some(nodes) => nodes,
            None => return Err(NodeError::TooManyNodes { offset: offset(start), max: limits.max_nodes }),
        };
        let (size, tag) = match *rest {
            [LIST_8, size @ 1..=u8::MAX, tag @ 1..=LAST_TOKEN, ref behind @ ..] => {
                rest = behind;
                (u16::from(size), Word::token(Token::single(tag)))
            }
            _ => {
                let (size, tag, position) = long::head(data, offset(start), side)?;
                rest = data.get(position..).unwrap_or_default();
                (size, tag)
            }
        };
        let attrs = usize::from(size.wrapping_sub(1) / 2);
        if attrs.wrapping_mul(2) > rest.len() {
            return Err(NodeError::CountBeyondData { offset: offset(start), count: attrs });
        }
        attrs_left = match attrs_left.checked_sub(attrs as u32) {
            Some(attrs) => attrs,
            None => return Err(NodeError::TooManyAttrs { offset: offset(start), max: limits.max_attrs }),
        };

        let Some((head, free)) = entries.get_mut(at..).and_then(<[Entry]>::split_first_mut) else { return Ok(None) };
        let Some((slots, free)) = free.split_at_mut_checked(attrs) else { return Ok(None) };
        for slot in slots {
            let key = match short_key(&mut rest, side) {
                Some(key) => key,
                None => {
                    let (key, position) = long::key(data, offset(rest.len()), side)?;
                    rest = data.get(position..).unwrap_or_default();
                    key
                }
            };
            let (value, server) = match short_value(&mut rest, side) {
                Some(found) => found,
                None => {
                    let (value, server, position) = long::value(data, offset(rest.len()), side)?;
                    rest = data.get(position..).unwrap_or_default();
                    (value, server)
                }
            };
            *slot = [key, value, server];
        }
        used = at.wrapping_add(attrs).wrapping_add(1);

        let (mut kind, mut content, mut children) = (ContentKind::None, Word::EMPTY, 0);
        if size % 2 == 0 {
            match *rest {
                [LIST_8, count @ 1..=u8::MAX, ref behind @ ..]
                    if usize::from(count).wrapping_mul(MIN_NODE) <= behind.len() =>
                {
                    rest = behind;
                    (kind, children) = (ContentKind::Nodes, u16::from(count));
                }
                [BINARY_8, len, ref behind @ ..] if usize::from(len) <= behind.len() => {
                    kind = ContentKind::Bytes;
                    content = Word::frame(offset(behind.len()), usize::from(len));
                    rest = behind.get(usize::from(len)..).unwrap_or_default();
                }
                _ => {
                    let found = long::content(data, offset(rest.len()), side)?;
                    rest = data.get(found.position..).unwrap_or_default();
                    (kind, content, children) = (found.kind, found.word, found.children);
                    if let ContentKind::Jid = kind {
                        let Some(slot) = free.first_mut() else { return Ok(None) };
                        *slot = [content, found.server, Word::EMPTY];
                        used = used.wrapping_add(1);
                    }
                }
            }
        }

        if children > 0 {
            levels_left = levels_left.wrapping_sub(1);
            if levels_left == 0 {
                return Err(NodeError::TooDeep { offset: offset(rest.len()), max: limits.max_depth });
            }
            // While a node is open, its entry tells where its parent is, and what is left there.
            *head = [tag, Word::meta(kind, attrs, parent), Word::children(children, left)];
            (parent, left) = (at, children);
            continue;
        }
        *head = [tag, Word::meta(kind, attrs, used.wrapping_sub(at)), content];
        while left == 1 {
            (parent, left) = close(entries, parent, used);
            levels_left = levels_left.wrapping_add(1);
        }
        match left.checked_sub(1) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    if rest.is_empty() {
        Ok(Some(used))
    } else {
        Err(NodeError::TrailingBytes { offset: data.len().wrapping_sub(rest.len()) })
    }
}

/// All that is below the node stands on the tape; gives back its parent, and what is left there.
#[inline(always)]
fn close(entries: &mut [Entry], at: usize, used: usize) -> (usize, u16) {
    let Some([_, meta, content]) = entries.get_mut(at) else { return (0, 0) };
    let noted = (meta.low(), content.spare());
    *meta = meta.with_low(used.wrapping_sub(at));
    noted
}

/// A key that is a token of one byte or a short raw text. `None` for all others.
#[inline(always)]
fn short_key(rest: &mut &[u8], side: &mut Side<'_>) -> Option<Word> {
    match **rest {
        [tag @ 1..=LAST_TOKEN, ref behind @ ..] => {
            *rest = behind;
            Some(Word::token(Token::single(tag)))
        }
        [BINARY_8, ref behind @ ..] => short_ascii(rest, behind, side),
        _ => None,
    }
}

/// A value in one of the commonest forms: the text, or the user and the server of the JID. `None` for all others, and at
/// the end of the data.
#[inline(always)]
fn short_value(rest: &mut &[u8], side: &mut Side<'_>) -> Option<(Word, Word)> {
    let bytes = *rest;
    let window = bytes.first_chunk::<11>()?;
    match *window {
        [tag @ ..=LAST_TOKEN, ..] => {
            *rest = bytes.get(1..)?;
            Some((Word::token(Token::single(tag)), Word::EMPTY))
        }
        [tag @ DICTIONARY_0..=DICTIONARY_3, index, ..] => {
            *rest = bytes.get(2..)?;
            Some((Word::token(Token::double(tag, index)), Word::EMPTY))
        }
        [JID_PAIR, NIBBLE_8, header, ref packed @ ..] => {
            let (len, chars) = short_packed(header, packed)?;
            let [server @ 1..=LAST_TOKEN, behind @ ..] = bytes.get(len.wrapping_add(3)..)? else { return None };
            *rest = behind;
            Some((unpack(packed, chars, side), Word::token(Token::single(*server))))
        }
        [NIBBLE_8, header, ref packed @ .., _] => {
            let (len, chars) = short_packed(header, packed.first_chunk()?)?;
            *rest = bytes.get(len.wrapping_add(2)..)?;
            Some((unpack(packed.first_chunk()?, chars, side), Word::EMPTY))
        }
        [BINARY_8, ..] => Some((short_ascii(rest, bytes.get(1..)?, side)?, Word::EMPTY)),
        [HEX_8, ..] => {
            let (id, len) = id(bytes, side)?;
            *rest = bytes.get(len..)?;
            Some((id, Word::EMPTY))
        }
        [AD_JID, domain @ DOMAIN_PN..=DOMAIN_LID, device, NIBBLE_8, ..] => {
            let (header, packed) = bytes.get(4..)?.split_first()?;
            let packed = packed.first_chunk()?;
            let (len, chars) = short_packed(*header, packed)?;
            *rest = bytes.get(len.wrapping_add(5)..)?;
            let server = if domain == DOMAIN_PN { Token::PN } else { Token::LID };
            Some((unpack(packed, chars, side), Word::server(server, u16::from(device), 0)))
        }
        _ => None,
    }
}

/// A raw text of 1 to 16 bytes, all of them ASCII, from its length byte. It is copied to the side text, from where it is
/// read without checking it again. `None` for all others.
#[inline(always)]
fn short_ascii<'a>(rest: &mut &'a [u8], text: &'a [u8], side: &mut Side<'_>) -> Option<Word> {
    let (&len, text) = text.split_first()?;
    let (chunk, len) = (text.first_chunk::<16>()?, usize::from(len));
    let unused = 128usize.checked_sub(len.wrapping_mul(8))? as u32;
    let used = u128::from_le_bytes(*chunk) & u128::MAX.checked_shr(unused)?;
    if used & 0x8080_8080_8080_8080_8080_8080_8080_8080 != 0 {
        return None;
    }
    *rest = text.get(len..)?;
    Some(side.put(len, |to| *to = used.to_le_bytes()))
}

/// Bytes and characters of a packed text of digits. `None` for one that is longer than 16 or empty, and for what has a
/// value outside of the alphabet.
#[inline(always)]
fn short_packed(header: u8, packed: &[u8; packed::CHUNK]) -> Option<(usize, usize)> {
    let (odd, len) = (usize::from(header >> 7), usize::from(header & 0x7f));
    let chars = len.wrapping_mul(2).wrapping_sub(odd);
    let is_short = chars.wrapping_sub(1) < 2 * packed::CHUNK;
    (is_short && Alphabet::Nibble.is_valid(*packed, chars)).then_some((len, chars))
}

#[inline(always)]
fn unpack(packed: &[u8; packed::CHUNK], chars: usize, side: &mut Side<'_>) -> Word {
    side.put(chars, |to| Alphabet::Nibble.unpack(packed, to))
}

/// A packed text of 1 to 32 characters, as message ids are, from its tag `HEX_8`; and how many bytes it takes. `None` for all
/// others, and near the end of the data.
#[inline(never)]
fn id(bytes: &[u8], side: &mut Side<'_>) -> Option<(Word, usize)> {
    let [_, header, packed @ ..] = bytes.first_chunk::<{ 2 + 2 * packed::CHUNK }>()?;
    let (odd, len) = (usize::from(header >> 7), usize::from(header & 0x7f));
    let chars = len.wrapping_mul(2).wrapping_sub(odd);
    if chars.wrapping_sub(1) >= 4 * packed::CHUNK {
        return None;
    }
    let (first, second) = (packed.first_chunk()?, packed.last_chunk()?);
    let start = side.used();
    side.put(chars.min(2 * packed::CHUNK), |to| Alphabet::Hex.unpack(first, to));
    side.put(chars.saturating_sub(2 * packed::CHUNK), |to| Alphabet::Hex.unpack(second, to));
    Some((Word::side(start, chars), len.wrapping_add(2)))
}

/// The smallest node has three bytes.
pub(super) const MIN_NODE: usize = 3;
