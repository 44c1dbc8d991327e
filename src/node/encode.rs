//! The encoder: an owned node as frame bytes, in the one canonical form (spec 02 §6 and §7).

use super::owned::{AttrValue, NodeContent};
use super::packed::Alphabet;
use super::tokens::Token;
use super::wire::*;
use super::{Node, NodeError};
use crate::jid::{Jid, Server};

impl Node {
    /// The frame: flag byte 00 and the node. Frames are never compressed on this side.
    ///
    /// # Errors
    /// [`NodeError::UnnamedNode`], [`NodeError::ListTooLong`], [`NodeError::TooDeep`] (more than 128 levels),
    /// [`NodeError::ContentTooLong`], [`NodeError::DeviceTooLarge`] and [`NodeError::UnnamedJid`]: what the other side
    /// could not read.
    pub fn encode(&self) -> Result<Vec<u8>, NodeError> {
        let mut out = Vec::new();
        self.encode_into(&mut out)?;
        Ok(out)
    }

    /// Appends the frame to `out`, which is left as it was after an error.
    ///
    /// # Errors
    /// As [`Node::encode`].
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), NodeError> {
        let start = out.len();
        out.push(0x00);
        let node_start = out.len();
        let written = Writer { out, node_start }.node(self, 1);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    node_start: usize,
}

impl Writer<'_> {
    /// Writes a node; recursion ends at [`MAX_DEPTH`].
    fn node(&mut self, node: &Node, depth: u16) -> Result<(), NodeError> {
        if depth > MAX_DEPTH {
            let offset = self.out.len().saturating_sub(self.node_start);
            return Err(NodeError::TooDeep { offset, max: MAX_DEPTH });
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
        self.list(size.saturating_add(usize::from(has_content)))?;
        self.text(&node.tag)?;
        for (key, value) in &node.attrs {
            self.text(key)?;
            match value {
                AttrValue::Text(text) => self.text(text)?,
                AttrValue::Jid(jid) => self.jid(jid)?,
            }
        }
        match &node.content {
            NodeContent::None => Ok(()),
            NodeContent::Bytes(bytes) => self.binary(bytes),
            NodeContent::Text(text) => self.text(text),
            NodeContent::Jid(jid) => self.jid(jid),
            NodeContent::Nodes(nodes) if nodes.is_empty() => Ok(()),
            NodeContent::Nodes(nodes) => {
                self.list(nodes.len())?;
                nodes.iter().try_for_each(|child| self.node(child, depth.saturating_add(1)))
            }
        }
    }

    fn list(&mut self, len: usize) -> Result<(), NodeError> {
        if let Ok(len) = u8::try_from(len) {
            self.out.extend_from_slice(&[LIST_8, len]);
            return Ok(());
        }
        let [high, low] = u16::try_from(len).map_err(|_| NodeError::ListTooLong { len, max: MAX_LIST })?.to_be_bytes();
        self.out.extend_from_slice(&[LIST_16, high, low]);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), NodeError> {
        if let Some(token) = Token::find(text) {
            token.encode(self.out);
        } else if let Some(alphabet) = Alphabet::of(text) {
            self.out.push(alphabet.tag());
            alphabet.pack(text, self.out);
        } else {
            self.binary(text.as_bytes())?;
        }
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), NodeError> {
        let len = bytes.len();
        let [a, b, c, d] = u32::try_from(len).map_err(|_| NodeError::ContentTooLong { len })?.to_be_bytes();
        match (a, b) {
            (0, 0) if c == 0 => self.out.extend_from_slice(&[BINARY_8, d]),
            (0, ..=0x0f) => self.out.extend_from_slice(&[BINARY_20, b, c, d]),
            _ => self.out.extend_from_slice(&[BINARY_32, a, b, c, d]),
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes the form that the server has. A device on a server whose form has no place for one is dropped.
    fn jid(&mut self, jid: &Jid) -> Result<(), NodeError> {
        let domain = match jid.server() {
            Server::Pn => DOMAIN_PN,
            Server::Lid => DOMAIN_LID,
            Server::Hosted => DOMAIN_HOSTED,
            Server::HostedLid => DOMAIN_HOSTED_LID,
            Server::Messenger if !is_server(jid) => return self.messenger(jid),
            Server::Interop if !is_server(jid) => return self.interop(jid),
            _ => return self.pair(jid),
        };
        match u8::try_from(jid.device()) {
            Err(_) => Err(NodeError::DeviceTooLarge { device: jid.device() }),
            Ok(0) => self.pair(jid),
            Ok(_) if jid.user().is_empty() => Err(NodeError::UnnamedJid),
            Ok(device) => {
                self.out.extend_from_slice(&[AD_JID, domain, device]);
                self.text(jid.user())
            }
        }
    }

    fn pair(&mut self, jid: &Jid) -> Result<(), NodeError> {
        if jid.server().as_str().is_empty() {
            return Err(NodeError::UnnamedJid);
        }
        self.out.push(JID_PAIR);
        match jid.user() {
            "" => self.out.push(LIST_EMPTY),
            user => self.text(user)?,
        }
        self.text(jid.server().as_str())
    }

    fn messenger(&mut self, jid: &Jid) -> Result<(), NodeError> {
        self.out.push(FB_JID);
        self.text(jid.user())?;
        self.out.extend_from_slice(&jid.device().to_be_bytes());
        self.text(jid.server().as_str())
    }

    /// Without the server, which the server adds when it sends this form (spec 02 §7): our decoder does not read it back.
    fn interop(&mut self, jid: &Jid) -> Result<(), NodeError> {
        self.out.push(INTEROP_JID);
        self.text(jid.user())?;
        self.out.extend_from_slice(&jid.device().to_be_bytes());
        self.out.extend_from_slice(&jid.integrator().to_be_bytes());
        Ok(())
    }
}

/// The server's own JID is always a pair, also on servers that have a form of their own.
fn is_server(jid: &Jid) -> bool {
    jid.is_server_only() && jid.device() == 0 && jid.integrator() == 0
}

/// Longest list: a count of two bytes.
const MAX_LIST: usize = 0xffff;
/// Most attributes of a node: the header counts the tag, each key, each value and the content.
const MAX_ATTRS: usize = (MAX_LIST - 2) / 2;
