//! Dialling: what callers ask for, when it is allowed, opening, and the first message.

use std::time::Duration;

use bytes::BytesMut;

use super::{Class, Goal, Loss, Row, State, Stop};
use crate::{
    clock::Now,
    crypto::KeyPair,
    engine::{
        ConnectionId, Engine, Output, Phase, Queued, Reply, command::CommandError, login::Online, notices,
        queries::Answer,
    },
    event::{DisconnectReason, LinkFailure, SessionState},
    noise::{FrameBuffer, Handshake, VerifiedChain, frame},
    pairing::{
        PairError,
        payload::{self, Login, Registration, Version},
    },
};

impl Engine {
    // ---- commands ---------------------------------------------------------------------------------------------

    pub(crate) fn connect(&mut self, now: Now) -> Result<Reply, CommandError> {
        if self.account.linked.is_none() {
            return Err(CommandError::NotLinked);
        }
        self.begin_if_stopped(now);
        Ok(Reply::Done)
    }

    pub(crate) fn link(&mut self, now: Now) -> Result<Reply, CommandError> {
        if self.account.linked.is_some() {
            return Err(CommandError::AlreadyLinked);
        }
        self.begin_if_stopped(now);
        // Somebody stands in front of the screen.
        self.cut_short(now);
        Ok(Reply::Done)
    }

    /// The caller wants what it did not have: everything that was counted against it before is forgotten, but for how
    /// often it dialled.
    fn begin_if_stopped(&mut self, now: Now) {
        if matches!(self.connection.state, State::Stopped(_)) {
            self.connection.row = Row::default();
            self.connection.refreshed = false;
            self.dial(now, DisconnectReason::Stopped);
        }
    }

    pub(crate) fn disconnect(&mut self, now: Now) {
        self.end_side_links(now, LinkFailure::Stopped);
        match self.connection.state {
            State::Stopped(_) => {}
            // The last event says so already.
            State::AwaitVersion { .. } => self.stop(now, Stop::Outdated),
            _ => {
                self.stop(now, Stop::Idle);
                let event = notices::stopped(&self.account);
                self.emit(now, event);
            }
        }
    }

    /// Connects anew. What is under way already is not started once more, however often the caller asks.
    pub(crate) fn reconnect(&mut self, now: Now) -> Result<Reply, CommandError> {
        if self.account.linked.is_none() {
            return Err(CommandError::NotLinked);
        }
        match self.connection.state {
            State::Stopped(_) => self.begin_if_stopped(now),
            State::Backoff { .. } => self.cut_short(now),
            State::Online { .. } if self.connection.is_online() => {
                self.drop_connection();
                self.connection.row = Row::default();
                self.dial_again(now, DisconnectReason::Stopped);
            }
            _ => {}
        }
        Ok(Reply::Done)
    }

    /// Dials now instead of later, if it waits and may.
    fn cut_short(&mut self, now: Now) {
        if let State::Backoff { until, reason } = self.connection.state {
            self.connection.row.step = 0;
            if self.connection.next_dial_at(now.mono) < until {
                self.dial(now, reason);
            }
        }
    }

    /// The account was loaded, perhaps once more: what was interrupted goes on.
    pub(crate) fn resume(&mut self, now: Now) {
        let is_linked = self.account.linked.is_some();
        match self.connection.state {
            State::Suspended(Goal::Login) if !is_linked => {
                self.stop(now, Stop::LoggedOut);
                if self.told.state() != SessionState::LoggedOut {
                    self.emit(now, notices::disconnected_for_good(DisconnectReason::LoggedOut));
                }
            }
            State::Suspended(_) => self.dial(now, DisconnectReason::Storage),
            State::Stopped(stop) if !self.connection.state.agrees_with(self.told.state()) => {
                self.emit(now, notices::disconnected_for_good(stop.reason()));
            }
            State::AwaitVersion { .. } => {
                if self.told.state() != SessionState::Outdated {
                    self.emit(now, notices::disconnected_for_good(DisconnectReason::Outdated));
                }
                // It may have come while the account was being loaded.
                self.set_version(now, self.config.client.version);
            }
            _ => {}
        }
    }

    // ---- the version of the client ----------------------------------------------------------------------------

    /// A version to state from now on. One dial is made with it when one was refused and it is another one.
    pub(crate) fn set_version(&mut self, now: Now, version: Version) {
        self.config.client.version = version;
        if let State::AwaitVersion { refused, .. } = self.connection.state
            && refused != version
            && self.phase == Phase::Ready
        {
            self.connection.refreshed = true;
            self.dial_again(now, DisconnectReason::Outdated);
        }
    }

    /// The driver's answer to the question for a newer version, or news without a question.
    pub(crate) fn version(&mut self, now: Now, version: Option<Version>) {
        if let Some(version) = version {
            self.set_version(now, version);
        }
        if let State::AwaitVersion { refused, .. } = self.connection.state
            && refused == self.config.client.version
        {
            self.stop(now, Stop::Outdated);
        }
    }

    // ---- dialling ---------------------------------------------------------------------------------------------

    /// Opens a connection, now or as soon as it is allowed.
    pub(super) fn dial(&mut self, now: Now, reason: DisconnectReason) {
        let at = self.connection.next_dial_at(now.mono);
        if at <= now.mono { self.open(now) } else { self.wait(now, at, reason) }
    }

    /// The same for one that is not asked for: it is told in any case.
    pub(super) fn dial_again(&mut self, now: Now, reason: DisconnectReason) {
        let at = self.connection.next_dial_at(now.mono);
        self.wait(now, at, reason);
        if at <= now.mono {
            self.open(now);
        }
    }

    /// Tells when the next dial comes.
    fn wait(&mut self, now: Now, until: Duration, reason: DisconnectReason) {
        let cools = self.connection.cool_until > now.mono && self.connection.cool_until >= until;
        let reason = if cools { DisconnectReason::Replaced } else { reason };
        self.connection.state = State::Backoff { until, reason };
        let event = notices::reconnecting(self.connection.row.next_dial(), until.saturating_sub(now.mono), reason);
        self.emit(now, event);
    }

    fn open(&mut self, now: Now) {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connection.dials.note(now.mono);
        self.connection.row.dials = self.connection.row.next_dial();
        let deadline = now.mono.saturating_add(self.config.handshake_timeout);
        self.connection.state = State::Opening { id, deadline };
        self.emit(now, notices::connecting(self.connection.row.dials));
        self.gate.push_free(Queued::Output(Output::Open(id)));
    }

    /// The websocket stands: the first message is intro and client hello.
    pub(crate) fn opened(&mut self, now: Now, id: ConnectionId) {
        if !matches!(&self.connection.state, State::Opening { id: open, .. } if *open == id) {
            return;
        }
        let refused = |detail| Loss::Retry { class: Class::Refused, reason: DisconnectReason::Network, detail };
        let (handshake, hello) = match self.start_handshake(now) {
            Ok(started) => started,
            Err(error) => return self.lose(now, refused(error.to_string())),
        };
        let mut out = BytesMut::from(&frame::intro(self.account.routing_info.as_deref())[..]);
        if let Err(error) = frame::encode(&hello, &mut out) {
            return self.lose(now, refused(error.to_string()));
        }
        self.connection.state = State::Handshaking {
            id,
            handshake: Box::new(handshake),
            frames: FrameBuffer::new(frame::MAX_HANDSHAKE_PAYLOAD),
            deadline: now.mono.saturating_add(self.config.handshake_timeout),
        };
        self.gate.push_free(Queued::Output(Output::Send(id, out.freeze())));
    }

    /// Chooses the pattern: resume when the server's key is known and that does not fail (spec 01 §2.4).
    fn start_handshake(&mut self, now: Now) -> Result<(Handshake, Vec<u8>), PairError> {
        let payload = self.client_payload()?;
        let ephemeral = KeyPair::generate(&mut self.rng);
        let noise = self.account.noise.clone();
        let policy = self.config.certificates.clone();
        let chain = self.account.chain.as_deref().and_then(VerifiedChain::decode);
        let usable = chain.filter(|chain| chain.usable_at(now.unix_seconds()));
        if let Some(chain) = usable
            && self.config.resume
            && self.account.linked.is_some()
            && self.connection.resume.is_allowed()
        {
            match Handshake::ik(noise.clone(), ephemeral.clone(), &chain, payload.clone(), policy.clone()) {
                Ok(started) => return Ok(started),
                Err(error) => {
                    tracing::debug!(%error, "cannot resume");
                    self.resume_failed(now);
                }
            }
        }
        Ok(Handshake::xx(noise, ephemeral, payload, policy))
    }

    fn client_payload(&self) -> Result<Vec<u8>, PairError> {
        let account = &self.account;
        let mut client = self.config.client.clone();
        if client.push_name.is_none() {
            client.push_name.clone_from(&account.push_name);
        }
        match &account.linked {
            Some(linked) => {
                // The counter is a signed number on the wire.
                let login_counter = account.logins.saturating_add(1).min(i32::MAX.unsigned_abs());
                let login = Login { login_counter, ..Login::default() };
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

    // ---- time -------------------------------------------------------------------------------------------------

    pub(crate) fn expire_connection(&mut self, now: Now) {
        if self.phase == Phase::Ready && self.logouts.is_due() {
            self.run_answer(now, Answer::Logout);
        }
        if self.connection.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        if let Some(error) = self.connection.wire_failure() {
            return self.lose(now, Loss::network(error.to_string()));
        }
        match self.connection.state {
            State::Stopped(_) | State::Suspended(_) => {}
            State::Backoff { reason, .. } => self.dial(now, reason),
            State::AwaitVersion { .. } => self.stop(now, Stop::Outdated),
            State::Opening { .. } => self.timed_out(now, "no connection in time"),
            State::Handshaking { .. } => self.timed_out(now, "no answer to the handshake in time"),
            State::LoggingIn { .. } => self.timed_out(now, "no answer to the login in time"),
            State::Linking { .. } => self.expire_link(now),
            State::Online { .. } => self.expire_online(now),
        }
    }

    pub(crate) fn timed_out(&mut self, now: Now, what: &str) {
        self.lose(now, Loss::lost(what));
    }

    /// The login was accepted: the connection is online, although not active yet.
    pub(crate) fn now_online(&mut self, online: Online) -> bool {
        match std::mem::replace(&mut self.connection.state, State::Stopped(Stop::Idle)) {
            State::LoggingIn { id, wire, .. } => {
                self.connection.state = State::Online { id, wire, online };
                self.connection.login_accepted();
                true
            }
            other => {
                self.connection.state = other;
                false
            }
        }
    }
}
