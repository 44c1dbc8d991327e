//! The life cycle of the connection (spec 01 §6, 07 §3).
//!
//! ```text
//!            connect, link                    opened                 server hello
//!   Idle ──────────────────► Opening ─────────────────► Handshaking ──────────────┐
//!    ▲ ▲                        ▲                                                 │
//!    │ │ stop                   │ time is up                not linked            │ linked
//!    │ │                     Backoff                            ┌─────────────────┴──────┐
//!    │ └── replaced, banned,    ▲                               ▼                        ▼
//!    │     outdated, logged out │ lost                       Linking ──(515)──►      LoggingIn
//!    │                          │                               │                        │ success
//!    └── codes used up ─────────┼───────────────────────────────┘                        ▼
//!                               └────────────────────────────────────────────────────  Online
//! ```
//!
//! A connection that is lost comes back by itself after a pause: 1, 1, 2, 3, 5, 8 … seconds, ±10 %, at most
//! [`Config::max_backoff`](super::Config::max_backoff); the row starts again after 30 s of a standing connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand_core::Rng;

use super::{ConnectionId, Engine, Output, Phase, Queued, Reply};
use crate::{
    clock::Now,
    crypto::KeyPair,
    engine::{
        command::CommandError,
        inbound::{self, Inbound},
        link::Link,
        login::Online,
        notices,
        queries::Answer,
    },
    event::{DisconnectReason, LinkFailure, LogoutReason, SessionState},
    node::{Decoder, Node},
    noise::{FrameBuffer, FrameError, Handshake, HandshakeError, Transport, TransportError, VerifiedChain, frame},
    pairing::{
        payload::{self, Login, Registration},
        stanza::PairIq,
    },
    stanza::{
        iq,
        stream::{InfoBroadcast, StreamError},
    },
};

/// How long a connection must stand before the next loss starts the row of pauses again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How many steps a rate limit advances the row of pauses (spec 01 §6.4).
const RATE_LIMIT_STEPS: u32 = 5;

/// A connection after the handshake.
#[derive(Debug)]
pub(crate) struct Wire {
    frames: FrameBuffer,
    transport: Transport,
    decoder: Decoder,
}

impl Wire {
    /// Seals one stanza as a frame.
    pub(crate) fn seal(&mut self, stanza: &[u8], out: &mut BytesMut) -> Result<(), TransportError> {
        self.transport.sender.seal_into(stanza, out)
    }
}

/// What the engine works towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// No connection.
    Offline,
    /// Logged in, for ever.
    Online,
    /// Linked to a phone.
    Linked,
}

#[derive(Debug)]
enum State {
    Idle,
    Backoff { until: Duration },
    Opening { id: ConnectionId, deadline: Duration },
    Handshaking { id: ConnectionId, handshake: Box<Handshake>, frames: FrameBuffer, deadline: Duration },
    Linking { id: ConnectionId, wire: Box<Wire>, link: Link },
    LoggingIn { id: ConnectionId, wire: Box<Wire>, deadline: Duration },
    Online { id: ConnectionId, wire: Box<Wire>, online: Online },
}

/// The connection, and what is remembered from one to the next.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    goal: Goal,
    /// Losses in a row.
    attempt: u32,
    /// The application knows that we are offline.
    outage_told: bool,
    /// Resuming failed in this process: use the full handshake.
    resume_failed: bool,
}

/// Why a connection ends, and what follows.
#[derive(Debug)]
pub(crate) enum Loss {
    /// Connect again after a pause.
    Retry { reason: DisconnectReason, detail: String },
    /// Connect again at once; not an error.
    Restart,
    /// Stay offline until told otherwise.
    Stop,
}

impl Connection {
    pub(crate) const fn new() -> Self {
        Self { state: State::Idle, goal: Goal::Offline, attempt: 0, outage_told: false, resume_failed: false }
    }

    /// The connection that stands or is being made.
    pub(crate) const fn id(&self) -> Option<ConnectionId> {
        match &self.state {
            State::Idle | State::Backoff { .. } => None,
            State::Opening { id, .. }
            | State::Handshaking { id, .. }
            | State::Linking { id, .. }
            | State::LoggingIn { id, .. }
            | State::Online { id, .. } => Some(*id),
        }
    }

    /// The wire of a connection, after its handshake.
    pub(crate) fn wire(&mut self, wanted: ConnectionId) -> Option<&mut Wire> {
        match &mut self.state {
            State::Linking { id, wire, .. } | State::LoggingIn { id, wire, .. } | State::Online { id, wire, .. }
                if *id == wanted =>
            {
                Some(wire)
            }
            _ => None,
        }
    }

    /// What goes on while logged in.
    pub(crate) fn online(&mut self) -> Option<&mut Online> {
        match &mut self.state {
            State::Online { online, .. } => Some(online),
            _ => None,
        }
    }

    /// What goes on while linking.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Linking { link, .. } => Some(link),
            _ => None,
        }
    }

    /// Whether messages can be sent.
    pub(crate) fn is_online(&self) -> bool {
        matches!(&self.state, State::Online { online, .. } if online.is_active())
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Idle => None,
            State::Backoff { until } => Some(*until),
            State::Opening { deadline, .. }
            | State::Handshaking { deadline, .. }
            | State::LoggingIn { deadline, .. } => Some(*deadline),
            State::Linking { link, .. } => link.deadline(),
            State::Online { online, .. } => Some(online.deadline()),
        }
    }

    /// The application was told that we are online.
    pub(crate) const fn told_online(&mut self) {
        self.outage_told = false;
    }

    /// Offline until somebody wants otherwise: what comes then is another outage with a row of pauses of its own.
    const fn stop(&mut self) {
        self.goal = Goal::Offline;
        self.attempt = 0;
        self.outage_told = false;
    }

    /// Linking succeeded: from now on the goal is to be online.
    pub(crate) const fn now_linked(&mut self) {
        self.goal = Goal::Online;
    }
}

/// The pause before attempt number `attempt` (from 1), without jitter.
fn pause(attempt: u32, max: Duration) -> Duration {
    let (mut current, mut next) = (1u64, 1u64);
    for _ in 1..attempt {
        if current >= max.as_secs() {
            break;
        }
        (current, next) = (next, current.saturating_add(next));
    }
    Duration::from_secs(current).min(max)
}

impl Engine {
    // ---- commands ---------------------------------------------------------------------------------------------

    pub(super) fn connect(&mut self, now: Now) -> Result<Reply, CommandError> {
        if self.account.linked.is_none() {
            return Err(CommandError::NotLinked);
        }
        self.connection.goal = Goal::Online;
        self.open_if_idle(now);
        Ok(Reply::Done)
    }

    pub(super) fn link(&mut self, now: Now) -> Result<Reply, CommandError> {
        if self.account.linked.is_some() {
            return Err(CommandError::AlreadyLinked);
        }
        self.connection.goal = Goal::Linked;
        if matches!(self.connection.state, State::Backoff { .. }) {
            // Somebody stands in front of the screen.
            self.connection.state = State::Idle;
        }
        self.open_if_idle(now);
        Ok(Reply::Done)
    }

    pub(super) fn disconnect(&mut self, now: Now) {
        let was_up = self.connection.id().is_some() || matches!(self.connection.state, State::Backoff { .. });
        self.end_side_links(now, LinkFailure::Stopped);
        self.connection.stop();
        self.drop_connection();
        if was_up {
            let event = notices::stopped(&self.account);
            self.emit(now, event);
        }
    }

    pub(super) fn reconnect(&mut self, now: Now) -> Result<Reply, CommandError> {
        if self.account.linked.is_none() {
            return Err(CommandError::NotLinked);
        }
        self.connection.goal = Goal::Online;
        self.connection.attempt = 0;
        if self.connection.id().is_some() {
            self.drop_connection();
            self.emit(now, notices::reconnecting(1, Duration::ZERO, DisconnectReason::Stopped));
        }
        self.connection.state = State::Idle;
        self.open_if_idle(now);
        Ok(Reply::Done)
    }

    /// The account was loaded again: goes on with what was wanted.
    pub(super) fn resume(&mut self, now: Now) {
        match self.connection.goal {
            Goal::Offline => {}
            Goal::Online | Goal::Linked => self.open_if_idle(now),
        }
    }

    // ---- opening ----------------------------------------------------------------------------------------------

    fn open_if_idle(&mut self, now: Now) {
        if matches!(self.connection.state, State::Idle) && self.phase == Phase::Ready {
            self.open(now);
        }
    }

    fn open(&mut self, now: Now) {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connection.state = State::Opening { id, deadline: now.mono + self.config.handshake_timeout };
        let attempt = self.connection.attempt + 1;
        self.emit(now, notices::connecting(attempt));
        self.gate.push_free(Queued::Output(Output::Open(id)));
    }

    /// The websocket stands: the first message is intro and client hello.
    pub(super) fn opened(&mut self, now: Now, id: ConnectionId) {
        if !matches!(&self.connection.state, State::Opening { id: open, .. } if *open == id) {
            return;
        }
        let (handshake, hello) = match self.start_handshake(now) {
            Ok(started) => started,
            Err(detail) => return self.lose(now, Loss::Retry { reason: DisconnectReason::Network, detail }),
        };
        let mut out = BytesMut::from(&frame::intro(self.account.routing_info.as_deref())[..]);
        if let Err(error) = frame::encode(&hello, &mut out) {
            return self.lose(now, Loss::Retry { reason: DisconnectReason::Network, detail: error.to_string() });
        }
        self.connection.state = State::Handshaking {
            id,
            handshake: Box::new(handshake),
            frames: FrameBuffer::new(frame::MAX_HANDSHAKE_PAYLOAD),
            deadline: now.mono + self.config.handshake_timeout,
        };
        self.gate.push_free(Queued::Output(Output::Send(id, out.freeze())));
    }

    /// Chooses the pattern: resume when the server's key is known and it never failed in this process.
    fn start_handshake(&mut self, now: Now) -> Result<(Handshake, Vec<u8>), String> {
        let payload = self.client_payload().map_err(|error| error.to_string())?;
        let ephemeral = KeyPair::generate(&mut self.rng);
        let noise = self.account.noise.clone();
        let policy = self.config.certificates.clone();
        let chain = self.account.chain.as_deref().and_then(VerifiedChain::decode);
        let usable = chain.filter(|chain| chain.usable_at(now.unix_seconds()));
        if let Some(chain) = usable
            && self.config.resume
            && !self.connection.resume_failed
        {
            match Handshake::ik(noise.clone(), ephemeral.clone(), &chain, payload.clone(), policy.clone()) {
                Ok(started) => return Ok(started),
                Err(error) => {
                    tracing::debug!(%error, "cannot resume");
                    self.connection.resume_failed = true;
                }
            }
        }
        Ok(Handshake::xx(noise, ephemeral, payload, policy))
    }

    fn client_payload(&self) -> Result<Vec<u8>, crate::pairing::PairError> {
        let account = &self.account;
        let mut client = self.config.client.clone();
        if client.push_name.is_none() {
            client.push_name.clone_from(&account.push_name);
        }
        match &account.linked {
            Some(linked) => {
                let login = Login { login_counter: account.logins.saturating_add(1), ..Login::default() };
                payload::login(&client, &linked.pn, &login)
            }
            None => payload::registration(
                &client,
                &Registration {
                    registration_id: account.registration_id,
                    identity: *account.identity.public(),
                    signed_prekey_id: account.signed_pre_key.id,
                    signed_prekey: *account.signed_pre_key.pair.public(),
                    signed_prekey_signature: account.signed_pre_key.signature,
                },
            ),
        }
    }

    // ---- bytes ------------------------------------------------------------------------------------------------

    pub(super) fn received(&mut self, now: Now, id: ConnectionId, bytes: Bytes) {
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
            let opened = wire.transport.receiver.open(sealed).map_err(|error| Loss::Retry {
                reason: DisconnectReason::Network,
                detail: format!("transport: {error}"),
            })?;
            match wire.decoder.decode(opened) {
                Ok(node) => {
                    let own = self.account.linked.as_ref().map(super::account::Linked::own);
                    return Ok(Some((inbound::parse(node, own, &mut self.queries), size)));
                }
                // Each frame is authenticated on its own: one bad node is dropped, the connection goes on.
                Err(error) => tracing::warn!(%error, "frame is not a node"),
            }
        }
    }

    fn finish_handshake(&mut self, now: Now, hello: &[u8]) -> Result<(), Loss> {
        let state = std::mem::replace(&mut self.connection.state, State::Idle);
        let State::Handshaking { id, handshake, mut frames, deadline } = state else { return Ok(()) };
        let finished = match handshake.read_server_hello(hello, now.unix_seconds()) {
            Ok(finished) => finished,
            Err(error) => {
                // The connection is still this one, for whoever closes it.
                self.connection.state = State::Opening { id, deadline };
                return Err(self.handshake_failed(now, &error));
            }
        };
        self.connection.resume_failed = false;
        frames.set_max(self.config.max_frame);
        let wire = Box::new(Wire { frames, transport: finished.transport, decoder: Decoder::new(self.config.limits) });
        self.connection.state = match self.account.linked {
            Some(_) => State::LoggingIn { id, wire, deadline: now.mono + self.config.login_timeout },
            None => State::Linking { id, wire, link: Link::new(now.mono + self.config.login_timeout) },
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

    fn handshake_failed(&mut self, now: Now, error: &HandshakeError) -> Loss {
        tracing::warn!(%error, "handshake failed");
        if error.is_ik_failure() {
            self.connection.resume_failed = true;
            self.act(now, |step| step.account_mut().chain = None);
        }
        // Routing info that leads nowhere must not lead there again.
        if self.account.routing_info.is_some() {
            self.act(now, |step| step.account_mut().routing_info = None);
        }
        Loss::Retry { reason: DisconnectReason::Network, detail: error.to_string() }
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
            Inbound::StreamError(error, shown) => self.stream_error(now, &error, shown),
            Inbound::StreamEnd => self.lose(
                now,
                Loss::Retry {
                    reason: DisconnectReason::ConnectionLost,
                    detail: "the server ended the stream".to_owned(),
                },
            ),
            Inbound::Info(children) => children.into_iter().for_each(|child| self.info(now, child)),
            Inbound::Ack(target) => self.act(now, |step| step.send(&target.ack())),
            Inbound::Nack(target, reason) => self.act(now, |step| step.send(&target.nack(reason))),
            Inbound::Ignored => {}
        }
    }

    fn info(&mut self, now: Now, info: InfoBroadcast) {
        match info {
            InfoBroadcast::EdgeRouting(routing) => self.act(now, |step| {
                step.account_mut().routing_info = Some(routing);
            }),
            InfoBroadcast::OfflinePreview { count, messages, receipts, notifications } => {
                self.offline_preview(now, count, messages, receipts, notifications);
            }
            InfoBroadcast::Offline { count } => self.offline_done(now, count),
            InfoBroadcast::Dirty { kind, timestamp } => self.emit(now, notices::dirty(kind, timestamp)),
            InfoBroadcast::DowngradeWebClient => {
                if self.connection.link().is_some() {
                    self.emit(now, notices::scanned_without_multidevice());
                }
            }
            InfoBroadcast::ClientExpiration(at) => self.emit(now, notices::client_expiration(at)),
        }
    }

    fn stream_error(&mut self, now: Now, error: &StreamError, shown: String) {
        let retry = |reason, detail: String| Loss::Retry { reason, detail };
        match error {
            StreamError::RestartRequired => self.lose(now, Loss::Restart),
            StreamError::LoggedOut => self.logged_out(now, LogoutReason::DeviceRemoved),
            StreamError::Replaced => {
                self.lose(now, Loss::Stop);
                self.emit(now, notices::disconnected_for_good(DisconnectReason::Replaced));
            }
            StreamError::RateLimited => {
                self.connection.attempt = self.connection.attempt.saturating_add(RATE_LIMIT_STEPS);
                self.connection.online().map(Online::never_stable);
                self.lose(now, retry(DisconnectReason::ServerError, "rate limited (429)".to_owned()));
            }
            StreamError::Unavailable(code) => {
                self.lose(now, retry(DisconnectReason::ServerError, format!("server unavailable ({code})")));
            }
            StreamError::NotWellFormed | StreamError::MissingAck | StreamError::Unknown(_) => {
                self.emit(now, notices::stream_error(error, shown));
                self.lose(now, retry(DisconnectReason::ServerError, format!("stream error: {error:?}")));
            }
        }
    }

    /// Sends a stanza that depends on nothing.
    pub(super) fn send_free(&mut self, node: &Node) {
        let Some(id) = self.connection.id() else { return };
        match node.encode() {
            Ok(frame) => self.gate.push_free(Queued::Frame(id, frame)),
            Err(error) => tracing::error!(tag = node.tag(), %error, "stanza cannot be encoded"),
        }
    }

    /// Sends a question that depends on nothing.
    pub(super) fn ask(&mut self, now: Now, query: super::queries::Query, request: Node) {
        let id = self.queries.ask(query, now.mono + self.config.query_timeout);
        self.send_free(&request.attr("id", id));
    }

    /// Answers a request of the server with an empty result.
    pub(super) fn send_result(&mut self, id: &str) {
        self.send_free(&iq::result(id));
    }

    // ---- losing -----------------------------------------------------------------------------------------------

    pub(super) fn closed(&mut self, now: Now, id: ConnectionId, reason: &str) {
        if self.connection.id() != Some(id) {
            return;
        }
        let reason = match reason {
            "" => "connection closed".to_owned(),
            text => text.chars().take(200).collect(),
        };
        self.lose(now, Loss::Retry { reason: DisconnectReason::ConnectionLost, detail: reason });
    }

    /// Ends the connection, tells it once, and decides what follows.
    pub(super) fn lose(&mut self, now: Now, loss: Loss) {
        let loss = self.link_lost(now, loss);
        let stable = self.connection.online().is_some_and(|online| online.stood_for(now.mono, STABLE_AFTER));
        if stable {
            self.connection.attempt = 0;
        }
        self.drop_connection();
        match loss {
            Loss::Stop => self.connection.stop(),
            Loss::Restart => {
                self.emit(now, notices::reconnecting(1, Duration::ZERO, DisconnectReason::RestartRequired));
                self.open(now);
            }
            Loss::Retry { reason, detail } => self.back_off(now, reason, detail),
        }
    }

    fn back_off(&mut self, now: Now, reason: DisconnectReason, detail: String) {
        if self.connection.goal == Goal::Offline {
            return;
        }
        self.connection.attempt = self.connection.attempt.saturating_add(1);
        let attempt = self.connection.attempt;
        let pause = self.jitter(pause(attempt, self.config.max_backoff));
        self.connection.state = State::Backoff { until: now.mono + pause };
        let first = !std::mem::replace(&mut self.connection.outage_told, true);
        self.act(now, |step| {
            if first {
                step.emit(notices::disconnected(reason, detail, attempt, pause));
            }
            step.emit(notices::reconnecting(attempt, pause, reason));
        });
    }

    /// ±10 %.
    fn jitter(&mut self, pause: Duration) -> Duration {
        let percent = 90 + self.rng.next_u32() % 21;
        pause * percent / 100
    }

    /// Closes whatever there is and forgets what belonged to it.
    pub(super) fn drop_connection(&mut self) {
        if let Some(id) = self.connection.id() {
            self.flush(id);
            self.gate.push_free(Queued::Output(Output::Close(id)));
        }
        self.connection.state = State::Idle;
        for command in self.queries.clear() {
            // A logout whose connection went away: the server may or may not have taken it. Everything is removed.
            self.logouts.push_back(command);
        }
        self.sends.connection_lost();
        // Not acknowledged: the receipts come again.
        self.resends.clear();
    }

    /// Seals what may leave already, while there are keys for it: an error answer, acks.
    fn flush(&mut self, id: ConnectionId) {
        for queued in self.gate.take_ready() {
            match queued {
                Queued::Frame(to, frame) if to == id => {
                    let mut out = BytesMut::new();
                    let sealed = self.connection.wire(id).is_some_and(|wire| wire.seal(&frame, &mut out).is_ok());
                    if sealed {
                        self.gate.push_free(Queued::Output(Output::Send(id, out.freeze())));
                    }
                }
                other => self.gate.push_free(other),
            }
        }
    }

    // ---- time -------------------------------------------------------------------------------------------------

    pub(super) fn expire_connection(&mut self, now: Now) {
        while self.phase == Phase::Ready
            && let Some(command) = self.logouts.pop_front()
        {
            self.run_answer(now, Answer::Logout(command));
        }
        if self.connection.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        match &mut self.connection.state {
            State::Idle => {}
            State::Backoff { .. } => self.open(now),
            State::Opening { .. } => self.timed_out(now, "no connection in time"),
            State::Handshaking { .. } => self.timed_out(now, "no answer to the handshake in time"),
            State::LoggingIn { .. } => self.timed_out(now, "no answer to the login in time"),
            State::Linking { .. } => self.expire_link(now),
            State::Online { .. } => self.expire_online(now),
        }
    }

    pub(super) fn timed_out(&mut self, now: Now, what: &str) {
        self.lose(now, Loss::Retry { reason: DisconnectReason::ConnectionLost, detail: what.to_owned() });
    }

    /// The login was accepted: the connection is online, although not active yet.
    pub(super) fn now_online(&mut self, online: Online) -> bool {
        match std::mem::replace(&mut self.connection.state, State::Idle) {
            State::LoggingIn { id, wire, .. } => {
                self.connection.state = State::Online { id, wire, online };
                true
            }
            other => {
                self.connection.state = other;
                false
            }
        }
    }

    /// Ends the attempt to link: the codes are used up.
    pub(super) fn link_exhausted(&mut self, now: Now) {
        self.lose(now, Loss::Stop);
        self.state = SessionState::Pending;
    }
}

fn frame_loss(error: FrameError) -> Loss {
    Loss::Retry { reason: DisconnectReason::Network, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_like_fibonacci_up_to_the_limit() {
        let max = Duration::from_secs(900);
        let pauses: Vec<u64> = (1..20).map(|attempt| pause(attempt, max).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 900, 900, 900, 900]);
        assert_eq!(pause(u32::MAX, max), max);
    }
}
