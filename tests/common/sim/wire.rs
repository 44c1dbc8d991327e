//! The wires between engines and the server.

use std::collections::VecDeque;

use bytes::Bytes;
use rand_core::Rng as _;
use wamd::engine::{ConnectionId, Input};
use wamd_loopback::{ConnId, Input as ServerInput, Output as ServerOutput};

use super::Sim;

/// A wire between an engine and the server.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) account: usize,
    pub(super) id: ConnectionId,
    /// With the number of batches that were durable when each left.
    pub(super) to_server: VecDeque<(Bytes, u64)>,
    /// That of the newest bytes that came to the server.
    left: u64,
    pub(super) to_client: VecDeque<Bytes>,
    /// The server does not know it yet.
    pub(super) fresh: bool,
    /// The client closes when everything was sent.
    pub(super) closing: bool,
    /// The server closed when everything was sent.
    pub(super) closed: bool,
}

impl Wire {
    pub(super) const fn new(account: usize, id: ConnectionId) -> Self {
        Self {
            account,
            id,
            to_server: VecDeque::new(),
            left: 0,
            to_client: VecDeque::new(),
            fresh: true,
            closing: false,
            closed: false,
        }
    }
}

impl Sim {
    pub(super) fn cut(&mut self, id: ConnId) {
        let Some(wire) = self.wires.remove(&id) else { return };
        if !wire.fresh {
            self.server.handle(self.now, ServerInput::Closed(id));
            self.drain_server();
        }
        self.tell(wire.account, Input::Closed(wire.id, "cut".to_owned()));
    }

    pub(super) fn deliver_to_server(&mut self, id: ConnId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if wire.fresh {
            wire.fresh = false;
            let (account, connection) = (wire.account, wire.id);
            self.server.handle(self.now, ServerInput::Opened(id));
            self.tell(account, Input::Opened(connection));
        } else if let Some((bytes, left)) = wire.to_server.pop_front() {
            wire.left = left;
            self.server.handle(self.now, ServerInput::Bytes(id, bytes));
        } else if wire.closing {
            self.wires.remove(&id);
            self.server.handle(self.now, ServerInput::Closed(id));
        }
        self.drain_server();
    }

    /// Messages arrive in pieces.
    pub(super) fn deliver_to_client(&mut self, id: ConnId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let (account, connection) = (wire.account, wire.id);
        match wire.to_client.pop_front() {
            Some(mut bytes) => {
                if bytes.len() > 1 && self.rng.next_u32().is_multiple_of(4) {
                    let at = 1 + self.rng.next_u32() as usize % (bytes.len() - 1);
                    wire.to_client.push_front(bytes.split_off(at));
                }
                self.tell(account, Input::Received(connection, bytes));
            }
            None if wire.closed => {
                self.wires.remove(&id);
                self.tell(account, Input::Closed(connection, "closed by the server".to_owned()));
            }
            None => {}
        }
    }

    pub(super) fn drain_server(&mut self) {
        while let Some(output) = self.server.poll() {
            match output {
                ServerOutput::Send(id, bytes) => {
                    if let Some(wire) = self.wires.get_mut(&id) {
                        wire.to_client.push_back(bytes);
                    }
                }
                ServerOutput::Close(id) => {
                    if let Some(wire) = self.wires.get_mut(&id) {
                        wire.closed = true;
                    }
                }
            }
        }
        for (wire, stanza) in self.server.take_stanzas() {
            if let Some((account, left)) = self.wires.get(&wire).map(|wire| (wire.account, wire.left)) {
                self.check_stanza(account, left, &stanza);
            }
        }
    }
}
