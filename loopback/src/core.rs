//! What the handlers share: configuration, randomness, accounts, connections, outputs, and the time of the input that is
//! being handled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha20Rng;
use wamd::clock::Now;
use wamd::jid::Jid;
use wamd::node::{Decoder, Node};

use crate::authority::Authority;
use crate::config::Config;
use crate::connection::{Connection, Phase, Session};
use crate::control::ControlError;
use crate::directory::{Address, Directory, Namespace};
use crate::faults::Faults;
use crate::group::Groups;
use crate::late::Late;
use crate::queue::{Class, Entry};
use crate::tokens::Tokens;
use crate::{ConnId, Output};

/// The state of the server.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) authority: Authority,
    pub(crate) directory: Directory,
    pub(crate) groups: Groups,
    pub(crate) faults: Faults,
    pub(crate) connections: BTreeMap<ConnId, Connection>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) routed: Routed,
    pub(crate) late: Late,
    pub(crate) tokens: Tokens,
    pub(crate) now: Now,
    /// Reads one stanza after the other; taken out while its stanza is handled.
    pub(crate) decoder: Decoder,
    /// What clients sent, when somebody wants to see it.
    pub(crate) recorded: Option<Vec<(ConnId, Node)>>,
    /// While a query is handled: what devices are told of it, so that the answer goes first.
    held: Option<Vec<(Address, Entry)>>,
    stanzas: u64,
}

impl Core {
    pub(crate) fn new(config: Config, rng: ChaCha20Rng, authority: Authority) -> Self {
        Self {
            config,
            rng,
            authority,
            directory: Directory::default(),
            groups: Groups::default(),
            faults: Faults::default(),
            connections: BTreeMap::new(),
            outputs: VecDeque::new(),
            routed: Routed::default(),
            late: Late::default(),
            tokens: Tokens::default(),
            now: Now { mono: std::time::Duration::ZERO, wall_ms: 0 },
            decoder: Decoder::default(),
            recorded: None,
            held: None,
            stanzas: 0,
        }
    }

    /// An id for a stanza of the server's own.
    pub(crate) fn stanza_id(&mut self) -> String {
        self.stanzas = self.stanzas.wrapping_add(1);
        format!("{}-{}", self.now.unix_seconds() % 1_000_000_000, self.stanzas)
    }

    /// A JID of a device that is known to exist; the server's own otherwise.
    pub(crate) fn jid(&self, address: Address, namespace: Namespace) -> Jid {
        let account = self.directory.account(address.number);
        account.map_or_else(Jid::whatsapp_server, |account| account.jid(namespace, address.device))
    }

    /// Seals a stanza for a connection. A connection without transport, or one that is closing, gets nothing more.
    pub(crate) fn send(&mut self, id: ConnId, node: &Node) {
        match node.encode() {
            Ok(plaintext) => self.send_plaintext(id, &plaintext),
            Err(error) => tracing::warn!(conn = id.0, %error, "a stanza could not be encoded"),
        }
    }

    /// Seals the plaintext of a frame for a connection.
    pub(crate) fn send_plaintext(&mut self, id: ConnId, plaintext: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match &connection.phase {
            Phase::Closing(_) => return,
            Phase::Online(session) if self.faults.of(session.address).silence => return,
            _ => {}
        }
        let Some(transport) = connection.transport.as_mut() else { return };
        let mut frame = BytesMut::new();
        match transport.sender.seal_into(plaintext, &mut frame) {
            Ok(()) => self.outputs.push_back(Output::Send(id, frame.freeze())),
            Err(error) => {
                tracing::debug!(conn = id.0, %error, "the connection cannot carry a frame");
                self.close(id);
            }
        }
    }

    /// Sends a last stanza and closes a little later, so that the client can read it.
    pub(crate) fn send_last(&mut self, id: ConnId, node: &Node) {
        self.send(id, node);
        self.close_soon(id);
    }

    /// Stops listening to a connection and closes it after the delay of the configuration.
    pub(crate) fn close_soon(&mut self, id: ConnId) {
        self.detach(id);
        let at = self.now.mono.saturating_add(self.config.close_delay);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Closing(at);
        }
    }

    /// Closes a connection now.
    pub(crate) fn close(&mut self, id: ConnId) {
        self.detach(id);
        if self.connections.remove(&id).is_some() {
            self.outputs.push_back(Output::Close(id));
        }
    }

    /// Forgets that a device is on this connection.
    pub(crate) fn detach(&mut self, id: ConnId) {
        let Some(Phase::Online(session)) = self.connections.get(&id).map(|connection| &connection.phase) else {
            return;
        };
        let address = session.address;
        if let Some(device) = self.directory.device_mut(address)
            && device.connection == Some(id)
        {
            device.connection = None;
        }
    }

    /// Puts a stanza into a device's queue, and on its connection if its backlog is through.
    pub(crate) fn enqueue(&mut self, address: Address, mut entry: Entry) {
        if let Some(held) = &mut self.held {
            return held.push((address, entry));
        }
        let live = self.live_connection(address);
        let Some(device) = self.directory.device_mut(address) else { return };
        entry.delivered = live.is_some();
        let node = live.map(|id| (id, entry.node.clone()));
        device.queue.push(entry);
        if let Some((id, node)) = node {
            self.send(id, &node);
        }
    }

    /// Runs a handler, and keeps back what devices are told by it until [`release`](Self::release).
    pub(crate) fn hold<R>(&mut self, handler: impl FnOnce(&mut Self) -> R) -> R {
        self.held = Some(Vec::new());
        handler(self)
    }

    /// Tells the devices.
    pub(crate) fn release(&mut self) {
        for (address, entry) in self.held.take().unwrap_or_default() {
            self.enqueue(address, entry);
        }
    }

    /// Queues a notification, whose content `fill` adds.
    pub(crate) fn notify(&mut self, address: Address, kind: &str, from: Jid, fill: impl FnOnce(Node) -> Node) {
        if self.faults.takes_notice(address, kind) {
            return;
        }
        let id = self.stanza_id();
        let node = Node::new("notification")
            .attr("from", &from)
            .attr("type", kind)
            .attr("id", &id)
            .attr("t", self.now.unix_seconds());
        let node = fill(node);
        self.enqueue(
            address,
            Entry { class: Class::Notification, id, from, kind: Some(kind.to_owned()), node, delivered: false },
        );
    }

    /// The connection of a device that gets stanzas as they come.
    pub(crate) fn live_connection(&self, address: Address) -> Option<ConnId> {
        let id = self.directory.device(address)?.connection?;
        match &self.connections.get(&id)?.phase {
            Phase::Online(session) if session.live => Some(id),
            _ => None,
        }
    }

    /// The session of a device that is logged in on this connection.
    pub(crate) fn session_mut(&mut self, id: ConnId) -> Option<&mut Session> {
        match &mut self.connections.get_mut(&id)?.phase {
            Phase::Online(session) => Some(session),
            _ => None,
        }
    }

    /// The device that a test names.
    pub(crate) fn named(&self, jid: &Jid) -> Result<Address, ControlError> {
        let address = self.directory.resolve(jid).ok_or(ControlError::UnknownDevice)?;
        if self.directory.exists(address) { Ok(address) } else { Err(ControlError::UnknownDevice) }
    }

    /// The companion that a test names.
    pub(crate) fn named_companion(&self, jid: &Jid) -> Result<Address, ControlError> {
        self.named(jid).and_then(|address| match address.device {
            0 => Err(ControlError::UnknownDevice),
            _ => Ok(address),
        })
    }

    /// The connection of the companion that a test names.
    pub(crate) fn named_connection(&self, jid: &Jid) -> Result<ConnId, ControlError> {
        self.connection_of(self.named_companion(jid)?).ok_or(ControlError::NotConnected)
    }

    /// The connection of a device, whatever it has been sent already.
    pub(crate) fn connection_of(&self, address: Address) -> Option<ConnId> {
        self.directory.device(address)?.connection
    }
}

/// What was routed already, so that a client may send a message again when an ack got lost (spec 03 §6.1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Routed {
    seen: BTreeSet<Passage>,
    order: VecDeque<Passage>,
}

/// One ciphertext on its way. A resend that answers a retry receipt has a count, and passes beside the first one.
pub(crate) type Passage = (Address, String, Address, Option<String>);

impl Routed {
    /// A device begins anew, and counts its requests anew.
    pub(crate) fn forget(&mut self, target: Address) {
        self.seen.retain(|passage| passage.2 != target);
        self.order.retain(|passage| passage.2 != target);
    }

    /// Notes a passage; false when it was made before.
    pub(crate) fn pass(&mut self, passage: Passage) -> bool {
        if !self.seen.insert(passage.clone()) {
            return false;
        }
        self.order.push_back(passage);
        if self.order.len() > MAX_ROUTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

/// Passages remembered; a resend comes within minutes, long before so many others.
const MAX_ROUTED: usize = 200_000;

/// Bytes of a leaf that come as a slice.
pub(crate) fn leaf(tag: &str, bytes: impl AsRef<[u8]>) -> Node {
    Node::new(tag).bytes(Bytes::copy_from_slice(bytes.as_ref()))
}
