//! From bytes to stanzas and back, and who handles each.

use bytes::{Bytes, BytesMut};

use super::{Loss, State, Stop, Wire};
use crate::{
    clock::Now,
    engine::{
        ConnectionId, Engine, Output, Queued,
        account::Linked,
        inbound::{self, Inbound},
        link::Link,
        notices,
        queries::Query,
    },
    node::{Decoder, Node},
    noise::{FrameError, frame},
    pairing::stanza::PairIq,
    stanza::{iq, stream::InfoBroadcast},
};

/// Most routing info that is kept, bytes. What was seen has a few dozen.
const MAX_ROUTING_INFO: usize = 4_096;

impl Engine {
    // ---- bytes ------------------------------------------------------------------------------------------------

    pub(crate) fn received(&mut self, now: Now, id: ConnectionId, bytes: Bytes) {
        if self.connection.id() != Some(id) {
            return;
        }
        self.last_received = Some(now.wall_ms);
        match &mut self.connection.state {
            State::Handshaking { frames, .. } => frames.push_owned(bytes),
            State::Linking { wire, .. } | State::LoggingIn { wire, .. } | State::Online { wire, .. } => {
                wire.frames.push_owned(bytes);
            }
            _ => return,
        }
        // Whatever a stanza leads to may end this connection.
        while self.connection.id() == Some(id) {
            match self.next_inbound(now) {
                Ok(Some((inbound, size))) => self.dispatch(now, inbound, size),
                Ok(None) => break,
                Err(fault) => return self.lose(now, fault),
            }
        }
    }

    /// Takes the next stanza off the connection; finishes the handshake on the way.
    fn next_inbound(&mut self, now: Now) -> Result<Option<(Inbound, usize)>, Loss> {
        loop {
            let wire = match &mut self.connection.state {
                State::Handshaking { frames, .. } => {
                    let Some(hello) = frames.next_frame().map_err(frame_loss)? else { return Ok(None) };
                    self.finish_handshake(now, &hello)?;
                    continue;
                }
                State::Linking { wire, .. } | State::LoggingIn { wire, .. } | State::Online { wire, .. } => wire,
                _ => return Ok(None),
            };
            let Some(sealed) = wire.frames.next_frame().map_err(frame_loss)? else { return Ok(None) };
            let size = sealed.len();
            // A frame that does not open means that the stream is damaged: nothing after it can be trusted.
            let opened =
                wire.transport.receiver.open(sealed).map_err(|error| Loss::network(format!("transport: {error}")))?;
            match wire.decoder.decode(opened) {
                Ok(node) => {
                    let own = self.account.linked.as_ref().map(Linked::own);
                    return Ok(Some((inbound::parse(node, own, &mut self.queries), size)));
                }
                // Each frame is authenticated on its own: one bad node is dropped, the connection goes on.
                Err(error) => tracing::warn!(%error, "frame is not a node"),
            }
        }
    }

    fn finish_handshake(&mut self, now: Now, hello: &[u8]) -> Result<(), Loss> {
        let state = std::mem::replace(&mut self.connection.state, State::Stopped(Stop::Idle));
        let State::Handshaking { id, handshake, mut frames, deadline } = state else {
            self.connection.state = state;
            return Ok(());
        };
        let finished = match handshake.read_server_hello(hello, now.unix_seconds()) {
            Ok(finished) => finished,
            Err(error) => {
                // The connection is still this one, for whoever closes it.
                self.connection.state = State::Opening { id, deadline };
                return Err(self.handshake_failed(now, &error));
            }
        };
        self.connection.resume.succeeded(finished.kind);
        self.connection.routing_failures = 0;
        frames.set_max(self.config.max_frame);
        let wire = Box::new(Wire::new(frames, finished.transport, Decoder::new(self.config.limits)));
        self.connection.state = match self.account.linked {
            Some(_) => State::LoggingIn { id, wire, deadline: now.mono.saturating_add(self.config.login_timeout) },
            None => State::Linking { id, wire, link: Link::new(now.mono.saturating_add(self.config.login_timeout)) },
        };
        if let Some(finish) = finished.client_finish {
            let mut out = BytesMut::new();
            frame::encode(&finish, &mut out).map_err(frame_loss)?;
            self.gate.push_free(Queued::Output(Output::Send(id, out.freeze())));
        }
        if let Some(chain) = finished.chain.filter(|_| self.account.linked.is_some()) {
            self.act(now, |step| step.account_mut().chain = Some(chain.encode().into()));
        }
        Ok(())
    }

    // ---- dispatch ---------------------------------------------------------------------------------------------

    fn dispatch(&mut self, now: Now, inbound: Inbound, size: usize) {
        match inbound {
            Inbound::Answer(answer) => self.run_answer(now, answer),
            Inbound::Stanza(stanza) => {
                self.offline_stanza(now, &stanza);
                self.arrive(now, *stanza, size);
            }
            Inbound::Pair(PairIq::Device(refs)) => self.pair_device(now, refs),
            Inbound::Pair(PairIq::Success(success)) => self.pair_success(now, *success),
            Inbound::Link(notice, ack) => {
                self.send_free(&ack.ack());
                self.link_notice(now, notice);
            }
            Inbound::PairFailed(error, id) => self.pair_failed(now, id.as_deref(), &error),
            Inbound::Ping { id, from } => {
                let node = Node::new("iq").attr("to", &from).attr("type", "result").attr_opt("id", id.as_deref());
                self.send_free(&node);
            }
            Inbound::Success(success) => self.logged_in(now, &success),
            Inbound::Failure(failure) => self.login_refused(now, &failure),
            Inbound::StreamError(error, shown) => self.stream_error(now, &error, &shown),
            Inbound::StreamEnd => self.lose(now, Loss::lost("the server ended the stream")),
            Inbound::Info(children) => children.into_iter().for_each(|child| self.info(now, child)),
            Inbound::Ack(target) => self.act(now, |step| step.send(&target.ack())),
            Inbound::Nack(target, reason) => self.act(now, |step| step.send(&target.nack(reason))),
            Inbound::Ignored => {}
        }
    }

    fn info(&mut self, now: Now, info: InfoBroadcast) {
        match info {
            InfoBroadcast::EdgeRouting(routing) => self.edge_routing(now, routing),
            InfoBroadcast::ClientExpiration(at) => self.emit(now, notices::client_expiration(at)),
            InfoBroadcast::DowngradeWebClient => {
                if self.connection.link().is_some() {
                    self.emit(now, notices::scanned_without_multidevice());
                }
            }
            // The rest is about a login that was accepted.
            _ if self.connection.online().is_none() => {}
            InfoBroadcast::OfflinePreview { count, messages, receipts, notifications } => {
                self.offline_preview(now, count, messages, receipts, notifications);
            }
            InfoBroadcast::Offline { count } => self.offline_done(now, count),
            InfoBroadcast::Dirty { kind, timestamp } => self.dirty(now, &kind, timestamp),
        }
    }

    /// Where the next connection is to be routed (spec 01 §1.3).
    fn edge_routing(&mut self, now: Now, routing: Bytes) {
        if routing.len() > MAX_ROUTING_INFO {
            tracing::warn!(len = routing.len(), "routing info is too long to be kept");
        } else if self.account.routing_info.as_ref() != Some(&routing) {
            self.connection.routing_failures = 0;
            self.act(now, |step| step.account_mut().routing_info = Some(routing));
        }
    }

    /// Sends a stanza that depends on nothing.
    pub(crate) fn send_free(&mut self, node: &Node) {
        let Some(id) = self.connection.speaking() else { return };
        match node.encode() {
            Ok(frame) => self.gate.push_free(Queued::Frame(id, frame.into())),
            Err(error) => tracing::error!(tag = node.tag(), %error, "stanza cannot be encoded"),
        }
    }

    /// Sends a question that depends on nothing.
    pub(crate) fn ask(&mut self, now: Now, query: Query, request: Node) {
        let id = self.queries.ask(query, now.mono.saturating_add(self.config.query_timeout));
        self.send_free(&request.attr("id", id));
    }

    /// Answers a request of the server with an empty result.
    pub(crate) fn send_result(&mut self, id: &str) {
        self.send_free(&iq::result(id));
    }
}

fn frame_loss(error: FrameError) -> Loss {
    Loss::network(error.to_string())
}
