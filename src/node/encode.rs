//! The encoder: an owned node as frame bytes, in the one canonical form (spec 02 §6 and §7).
//!
//! The functions below write one item each; [`NodeWriter`](super::NodeWriter) uses them, too. They write to a [`Sink`],
//! which is the buffer, or only counts, so that the length of a frame is known by the same code that writes it.

use super::owned::{AttrValue, NodeContent};
use super::packed;
use super::text::Repr;
use super::tokens::{Ends, Token};
use super::wire::*;
use super::{Node, NodeError, Text};
use crate::jid::{Jid, Server};

impl Node {
    /// The frame: flag byte 00 and the node, in a buffer of about its length. Frames are never compressed on this side.
    ///
    /// One pass and at most two allocations: a buffer that is certainly long enough, which is then cut to size. A caller
    /// that wants a single one of the right size reserves [`Node::encoded_len`].
    ///
    /// # Errors
    /// [`NodeError::UnnamedNode`], [`NodeError::ListTooLong`], [`NodeError::TooManyLevels`] (more than 128),
    /// [`NodeError::ContentTooLong`], [`NodeError::DeviceTooLarge`] and [`NodeError::UnnamedJid`]: what the other side
    /// could not read.
    pub fn encode(&self) -> Result<Vec<u8>, NodeError> {
        let mut out = Vec::with_capacity(room(self, 1).saturating_add(SLACK));
        self.encode_into(&mut out)?;
        if out.capacity() > out.len().saturating_add(out.len() / 16).saturating_add(SLACK) {
            out.shrink_to_fit();
        }
        Ok(out)
    }

    /// Appends the frame to `out`, which is left as it was after an error. A buffer that is used again for frame after
    /// frame makes this one pass without allocation.
    ///
    /// # Errors
    /// As [`Node::encode`].
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), NodeError> {
        let start = out.len();
        out.push(0x00);
        let written = node(out, self, 1);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// Length of the frame in bytes, exactly. Costs about as much as writing it. The encoder copies a few bytes more than
    /// it keeps, so that a buffer with 16 bytes more than this never grows.
    ///
    /// # Errors
    /// As [`Node::encode`].
    pub fn encoded_len(&self) -> Result<usize, NodeError> {
        let mut count = Count(1);
        node(&mut count, self, 1)?;
        Ok(count.0)
    }
}

/// At least as many bytes as the frame has, found without looking at the texts.
fn room(node: &Node, depth: u16) -> usize {
    // The longest head of a text or of bytes has 5 bytes; the other parts of a JID have no more than 9.
    let name = |text: &Text| match text.repr() {
        Repr::Word(_) => 2,
        Repr::Other(text) => text.len().wrapping_add(5),
    };
    let text = |text: &str| text.len().wrapping_add(5);
    let jid = |jid: &Jid| match jid.server() {
        Server::Other(server) => text(server).wrapping_add(text(jid.user())).wrapping_add(9),
        _ => text(jid.user()).wrapping_add(9).wrapping_add(LONGEST_SERVER),
    };
    let attrs = node.attrs.iter().map(|(key, value)| match value {
        AttrValue::Text(value) => name(key).wrapping_add(name(value)),
        AttrValue::Jid(value) => name(key).wrapping_add(jid(value)),
    });
    let content = match &node.content {
        NodeContent::None => 0,
        NodeContent::Bytes(bytes) => bytes.len().wrapping_add(5),
        NodeContent::Text(content) => name(content),
        NodeContent::Jid(content) => jid(content),
        // What is nested deeper is not written.
        NodeContent::Nodes(_) if depth >= MAX_DEPTH => 0,
        NodeContent::Nodes(nodes) => {
            nodes.iter().map(|node| room(node, depth.saturating_add(1))).fold(3, usize::wrapping_add)
        }
    };
    // The header and, for the root, the flag.
    name(&node.tag).wrapping_add(4).wrapping_add(attrs.fold(content, usize::wrapping_add))
}

/// Where encoded bytes go.
pub(super) trait Sink {
    /// Takes some bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Takes the first `len` of a few bytes. All of them are copied, which is faster than copying some.
    fn put_prefix<const N: usize>(&mut self, bytes: [u8; N], len: usize);
}

impl Sink for Vec<u8> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline(always)]
    fn put_prefix<const N: usize>(&mut self, bytes: [u8; N], len: usize) {
        let start = self.len();
        self.extend_from_slice(&bytes);
        self.truncate(start.wrapping_add(len));
    }
}

/// Only counts.
struct Count(usize);

impl Sink for Count {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    #[inline(always)]
    fn put_prefix<const N: usize>(&mut self, _bytes: [u8; N], len: usize) {
        self.0 = self.0.saturating_add(len);
    }
}

/// Writes a node; recursion ends at [`MAX_DEPTH`].
pub(super) fn node(out: &mut impl Sink, node: &Node, depth: u16) -> Result<(), NodeError> {
    if depth > MAX_DEPTH {
        return Err(NodeError::TooManyLevels { max: MAX_DEPTH });
    }
    if node.tag.is_empty() {
        return Err(NodeError::UnnamedNode);
    }
    if node.attrs.len() > MAX_ATTRS {
        return Err(NodeError::ListTooLong { len: node.attrs.len(), max: MAX_ATTRS });
    }
    let has_content = match &node.content {
        NodeContent::None => false,
        NodeContent::Nodes(nodes) => !nodes.is_empty(),
        NodeContent::Bytes(_) | NodeContent::Text(_) | NodeContent::Jid(_) => true,
    };
    let size = node.attrs.len().saturating_mul(2).saturating_add(1);
    list(out, size.saturating_add(usize::from(has_content)))?;
    known_text(out, &node.tag)?;
    for (key, value) in &node.attrs {
        known_text(out, key)?;
        match value {
            AttrValue::Text(value) => known_text(out, value)?,
            AttrValue::Jid(value) => jid(out, value)?,
        }
    }
    match &node.content {
        NodeContent::None => Ok(()),
        NodeContent::Bytes(bytes) => binary(out, bytes),
        NodeContent::Text(content) => known_text(out, content),
        NodeContent::Jid(content) => jid(out, content),
        NodeContent::Nodes(nodes) if nodes.is_empty() => Ok(()),
        NodeContent::Nodes(nodes) => {
            list(out, nodes.len())?;
            nodes.iter().try_for_each(|child| self::node(out, child, depth.saturating_add(1)))
        }
    }
}

#[inline(always)]
fn list(out: &mut impl Sink, len: usize) -> Result<(), NodeError> {
    if let Ok(len) = u8::try_from(len) {
        out.put_prefix([LIST_8, len], 2);
        return Ok(());
    }
    let [high, low] = u16::try_from(len).map_err(|_| NodeError::ListTooLong { len, max: MAX_LIST })?.to_be_bytes();
    out.put_prefix([LIST_16, high, low], 3);
    Ok(())
}

/// Writes a text of which is known whether it is a token.
#[inline(always)]
fn known_text(out: &mut impl Sink, text: &Text) -> Result<(), NodeError> {
    match text.repr() {
        Repr::Word(token) => self::token(out, *token),
        Repr::Other(text) if text.len() > 16 => return longer_text(out, text),
        Repr::Other(text) => short_text(out, Ends::of(text.as_bytes()), text.len()),
    }
    Ok(())
}

#[inline(always)]
fn token(out: &mut impl Sink, token: Token) {
    let (bytes, len) = token.bytes();
    out.put_prefix(bytes, len);
}

/// Writes a text in the first form that fits: token, packed, raw.
#[inline(always)]
pub(super) fn text(out: &mut impl Sink, text: &str) -> Result<(), NodeError> {
    if text.len() > 16 {
        return long_text(out, text);
    }
    // All that follows works on the two numbers that the text is. Most texts are tokens.
    let ends = Ends::of(text.as_bytes());
    match Token::find_short(ends, text.len()) {
        Some(token) => self::token(out, token),
        None => short_text(out, ends, text.len()),
    }
    Ok(())
}

/// The same for a text of at most 16 bytes that is no token.
#[inline(never)]
fn short_text(out: &mut impl Sink, ends: Ends, len: usize) {
    if let Some((alphabet, packed)) = packed::pack_short(ends, len) {
        let [a, b, c, d, e, f, g, h] = packed;
        let (count, header) = packed::header(len);
        out.put_prefix([alphabet.tag(), header, a, b, c, d, e, f, g, h], count.wrapping_add(2));
    } else {
        out.put_prefix([BINARY_8, len as u8], 2);
        out.put_prefix((u128::from(ends.tail) << 64 | u128::from(ends.head)).to_le_bytes(), len);
    }
}

/// The same for a text of more than 16 bytes.
#[inline(never)]
fn long_text(out: &mut impl Sink, text: &str) -> Result<(), NodeError> {
    if let Some(token) = Token::find_long(text) {
        self::token(out, token);
        return Ok(());
    }
    longer_text(out, text)
}

/// The same for a text of more than 16 bytes that is no token.
fn longer_text(out: &mut impl Sink, text: &str) -> Result<(), NodeError> {
    match packed::Alphabet::of(text) {
        Some(alphabet) => {
            let (_, header) = packed::header(text.len());
            out.put_prefix([alphabet.tag(), header], 2);
            for chunk in text.as_bytes().chunks(16) {
                // Cannot fail: the alphabet has all characters.
                if let Some((_, packed)) = packed::pack_short(Ends::of(chunk), chunk.len()) {
                    out.put_prefix(packed, chunk.len().div_ceil(2));
                }
            }
            Ok(())
        }
        None => binary(out, text.as_bytes()),
    }
}

#[inline]
pub(super) fn binary(out: &mut impl Sink, bytes: &[u8]) -> Result<(), NodeError> {
    let len = bytes.len();
    let [a, b, c, d] = u32::try_from(len).map_err(|_| NodeError::ContentTooLong { len })?.to_be_bytes();
    match (a, b) {
        (0, 0) if c == 0 => out.put_prefix([BINARY_8, d], 2),
        (0, ..=0x0f) => out.put_prefix([BINARY_20, b, c, d], 4),
        _ => out.put_prefix([BINARY_32, a, b, c, d], 5),
    }
    out.put(bytes);
    Ok(())
}

/// Writes the form that the server has. A device on a server whose form has no place for one is dropped.
#[inline(never)]
pub(super) fn jid(out: &mut impl Sink, jid: &Jid) -> Result<(), NodeError> {
    let domain = match jid.server() {
        Server::Pn => DOMAIN_PN,
        Server::Lid => DOMAIN_LID,
        Server::Hosted => DOMAIN_HOSTED,
        Server::HostedLid => DOMAIN_HOSTED_LID,
        Server::Messenger if !is_server(jid) => return messenger(out, jid),
        Server::Interop if !is_server(jid) => return interop(out, jid),
        _ => return pair(out, jid),
    };
    match u8::try_from(jid.device()) {
        Err(_) => Err(NodeError::DeviceTooLarge { device: jid.device() }),
        Ok(0) => pair(out, jid),
        Ok(_) if jid.user().is_empty() => Err(NodeError::UnnamedJid),
        Ok(device) => {
            out.put_prefix([AD_JID, domain, device], 3);
            text(out, jid.user())
        }
    }
}

#[inline]
fn pair(out: &mut impl Sink, jid: &Jid) -> Result<(), NodeError> {
    if jid.server().as_str().is_empty() {
        return Err(NodeError::UnnamedJid);
    }
    out.put_prefix([JID_PAIR], 1);
    match jid.user() {
        "" => out.put_prefix([LIST_EMPTY], 1),
        user => text(out, user)?,
    }
    server(out, jid)
}

#[inline]
fn server(out: &mut impl Sink, jid: &Jid) -> Result<(), NodeError> {
    let token = match jid.server() {
        Server::Pn => Token::PN,
        Server::Lid => Token::LID,
        Server::Group => Token::GROUP,
        other => return text(out, other.as_str()),
    };
    self::token(out, token);
    Ok(())
}

fn messenger(out: &mut impl Sink, jid: &Jid) -> Result<(), NodeError> {
    out.put_prefix([FB_JID], 1);
    text(out, jid.user())?;
    out.put_prefix(jid.device().to_be_bytes(), 2);
    server(out, jid)
}

/// Without the server, which the server adds when it sends this form (spec 02 §7): our decoder does not read it back.
fn interop(out: &mut impl Sink, jid: &Jid) -> Result<(), NodeError> {
    out.put_prefix([INTEROP_JID], 1);
    text(out, jid.user())?;
    out.put_prefix(jid.device().to_be_bytes(), 2);
    out.put_prefix(jid.integrator().to_be_bytes(), 2);
    Ok(())
}

/// The server's own JID is always a pair, also on servers that have a form of their own.
fn is_server(jid: &Jid) -> bool {
    jid.is_server_only() && jid.device() == 0 && jid.integrator() == 0
}

/// Bytes that [`Sink::put_prefix`] copies beyond what it keeps, at most.
const SLACK: usize = 16;
/// Length of `s.whatsapp.net`.
const LONGEST_SERVER: usize = 14;
/// Longest list: a count of two bytes.
pub(super) const MAX_LIST: usize = 0xffff;
/// Most attributes of a node: the header counts the tag, each key, each value and the content.
pub(super) const MAX_ATTRS: usize = (MAX_LIST - 2) / 2;
