//! Dialling: what callers ask for, opening, the first message, and the pauses in between.

use std::time::Duration;

use bytes::BytesMut;

use super::{Goal, Loss, State};
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

/// The pause before attempt number `attempt` (from 1), without jitter.
pub(super) fn pause(attempt: u32, max: Duration) -> Duration {
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

    pub(crate) fn connect(&mut self, now: Now) -> Result<Reply, CommandError> {
        if self.account.linked.is_none() {
            return Err(CommandError::NotLinked);
        }
        self.connection.goal = Goal::Online;
        self.open_if_idle(now);
        Ok(Reply::Done)
    }

    pub(crate) fn link(&mut self, now: Now) -> Result<Reply, CommandError> {
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

    pub(crate) fn disconnect(&mut self, now: Now) {
        let was_up = self.connection.id().is_some() || matches!(self.connection.state, State::Backoff { .. });
        self.end_side_links(now, LinkFailure::Stopped);
        self.connection.stop();
        self.drop_connection();
        if was_up {
            let event = notices::stopped(&self.account);
            self.emit(now, event);
        }
    }

    pub(crate) fn reconnect(&mut self, now: Now) -> Result<Reply, CommandError> {
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
    pub(crate) fn resume(&mut self, now: Now) {
        match self.connection.goal {
            Goal::Offline => {}
            Goal::Online | Goal::Linked => self.open_if_idle(now),
        }
    }

    /// The driver, or the caller, tells a version of the client.
    pub(crate) fn version(&mut self, _now: Now, version: Option<Version>) {
        if let Some(version) = version {
            self.config.client.version = version;
        }
    }

    // ---- opening ----------------------------------------------------------------------------------------------

    fn open_if_idle(&mut self, now: Now) {
        if matches!(self.connection.state, State::Idle) && self.phase == Phase::Ready {
            self.open(now);
        }
    }

    pub(super) fn open(&mut self, now: Now) {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connection.state = State::Opening { id, deadline: now.mono + self.config.handshake_timeout };
        let attempt = self.connection.attempt + 1;
        self.emit(now, notices::connecting(attempt));
        self.gate.push_free(Queued::Output(Output::Open(id)));
    }

    /// The websocket stands: the first message is intro and client hello.
    pub(crate) fn opened(&mut self, now: Now, id: ConnectionId) {
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

    fn client_payload(&self) -> Result<Vec<u8>, PairError> {
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

    // ---- time -------------------------------------------------------------------------------------------------

    pub(crate) fn expire_connection(&mut self, now: Now) {
        while self.phase == Phase::Ready
            && let Some(command) = self.logouts.pop_front()
        {
            self.run_answer(now, Answer::Logout(command));
        }
        if self.connection.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        if let Some(error) = self.connection.wire_failure() {
            return self.lose(now, Loss::Retry { reason: DisconnectReason::Network, detail: error.to_string() });
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

    pub(crate) fn timed_out(&mut self, now: Now, what: &str) {
        self.lose(now, Loss::Retry { reason: DisconnectReason::ConnectionLost, detail: what.to_owned() });
    }

    /// The login was accepted: the connection is online, although not active yet.
    pub(crate) fn now_online(&mut self, online: Online) -> bool {
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
    pub(crate) fn link_exhausted(&mut self, now: Now) {
        self.lose(now, Loss::Stop);
        self.state = SessionState::Pending;
    }
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
