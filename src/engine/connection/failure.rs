//! The end of a connection, and what follows. The tables stand in the [module above](super).

use std::time::Duration;

use rand_core::Rng;

use super::{Class, Goal, Loss, MAX_ROUTING_FAILURES, REPLACED_SPAN, Row, STABLE_AFTER, State, Stop};
use crate::{
    clock::Now,
    engine::{ConnectionId, Engine, Output, Queued, STORE_PAUSE, login::Online, notices},
    event::{BanKind, DisconnectReason, LinkFailure, LogoutReason},
    noise::{HandshakeError, HandshakeFault},
    stanza::stream::{Failure, StreamError},
};

impl Engine {
    // ---- losing -----------------------------------------------------------------------------------------------

    pub(crate) fn closed(&mut self, now: Now, id: ConnectionId, reason: &str) {
        if self.connection.id() != Some(id) {
            return;
        }
        let reason = match reason {
            "" => "connection closed".to_owned(),
            text => text.chars().take(200).collect(),
        };
        self.lose(now, Loss::lost(reason));
    }

    /// Ends the connection, tells it once, and decides what follows.
    pub(crate) fn lose(&mut self, now: Now, loss: Loss) {
        let loss = self.link_lost(now, loss);
        if self.connection.online().is_some_and(|online| online.stood_for(now.mono, STABLE_AFTER)) {
            self.connection.row.step = 0;
        }
        let unanswered = matches!(self.connection.state, State::Handshaking { .. });
        match loss {
            Loss::Stop => self.stop(now, Stop::Idle),
            // Whatever went wrong, it was not this connection.
            _ if self.connection.id().is_none() => {}
            Loss::Restart => {
                self.drop_connection();
                self.connection.row.dials = 0;
                self.dial_again(now, DisconnectReason::RestartRequired);
            }
            Loss::Retry { class, reason, detail } => {
                self.drop_connection();
                if unanswered {
                    self.handshake_unanswered(now);
                }
                self.back_off(now, class, reason, detail);
            }
        }
    }

    fn back_off(&mut self, now: Now, class: Class, reason: DisconnectReason, detail: String) {
        let pause = self.connection.row.lost(class, self.config.max_backoff);
        let pause = self.jitter(pause);
        let until = now.mono.saturating_add(pause).max(self.connection.next_dial_at(now.mono));
        let pause = until.saturating_sub(now.mono);
        let attempt = self.connection.row.next_dial();
        self.connection.state = State::Backoff { until, reason };
        let first = !std::mem::replace(&mut self.connection.row.told, true);
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
        pause.saturating_mul(percent) / 100
    }

    /// Ends whatever there is; offline until the caller acts. What comes then is another outage with a row of pauses of
    /// its own.
    pub(crate) fn stop(&mut self, now: Now, stop: Stop) {
        self.end_side_links(now, LinkFailure::ConnectionLost);
        self.drop_connection();
        self.connection.row = Row::default();
        self.connection.state = State::Stopped(stop);
    }

    /// The store failed: what is under way goes on when the account is loaded again, and the outage is told without it.
    pub(crate) fn suspend_told(&mut self, now: Now) {
        let is_told = self.connection.agrees_with(self.told.state());
        let goal = match &self.connection.state {
            // What was removed may be there again.
            State::Stopped(Stop::LoggedOut) if !is_told => Goal::Login,
            State::Stopped(stop) => {
                let reason = stop.reason();
                return self.tell_unless(now, is_told, reason);
            }
            State::AwaitVersion { .. } => return self.tell_unless(now, is_told, DisconnectReason::Outdated),
            State::Suspended(goal) => *goal,
            // That it is linked may not be durable.
            State::Linking { .. } => Goal::Link,
            _ if self.account.linked.is_none() => Goal::Link,
            _ => Goal::Login,
        };
        self.drop_connection();
        self.connection.state = State::Suspended(goal);
        let (attempt, pause, reason) = (self.connection.row.next_dial(), STORE_PAUSE, DisconnectReason::Storage);
        if !std::mem::replace(&mut self.connection.row.told, true) {
            let detail = "the store failed".to_owned();
            self.emit_unstored(now, &notices::disconnected(reason, detail, attempt, pause));
        }
        self.emit_unstored(now, &notices::reconnecting(attempt, pause, reason));
    }

    fn tell_unless(&mut self, now: Now, is_told: bool, reason: DisconnectReason) {
        if !is_told {
            self.emit_unstored(now, &notices::disconnected_for_good(reason));
        }
    }

    /// Closes whatever there is and forgets what belonged to it.
    pub(super) fn drop_connection(&mut self) {
        if let Some(id) = self.connection.id() {
            self.flush(id);
            self.gate.push_free(Queued::Output(Output::Close(id)));
        }
        self.connection.state = State::Stopped(Stop::Idle);
        self.interrupt_group_commands();
        self.queries.clear();
        // A logout whose connection went away: the server may or may not have taken it. Everything is removed.
        self.logouts.connection_lost();
        self.sends.connection_lost();
        self.retries.connection_lost();
        self.held.clear();
        self.rotation = None;
        // Not acknowledged: the receipts come again.
        self.resends.clear();
    }

    /// Seals what may leave already, while there are keys for it: an error answer, acks.
    fn flush(&mut self, id: ConnectionId) {
        let mut outputs = Vec::new();
        while let Some(queued) = self.gate.pop() {
            match queued {
                Queued::Frame(to, frame) if to == id => {
                    outputs.extend(self.seal(id, frame.as_ref()).map(|bytes| Queued::Output(Output::Send(id, bytes))));
                }
                other => outputs.push(other),
            }
        }
        outputs.into_iter().for_each(|output| self.gate.push_free(output));
    }

    /// Ends the attempt to link: the codes are used up, which was told.
    pub(crate) fn link_exhausted(&mut self, now: Now) {
        self.lose(now, Loss::Stop);
    }

    // ---- the handshake failed ---------------------------------------------------------------------------------

    /// What a failed handshake leads to. The connection still stands.
    pub(super) fn handshake_failed(&mut self, now: Now, error: &HandshakeError) -> Loss {
        tracing::warn!(%error, "handshake failed");
        if error.is_ik_failure() {
            self.resume_failed(now);
        }
        self.drop_routing(now);
        let class = match error.fault {
            // Somebody else answers, or the clock is wrong: nothing that passes in a second.
            HandshakeFault::Certificate(_) => Class::Refused,
            _ => Class::Network,
        };
        Loss::Retry { class, reason: DisconnectReason::Network, detail: error.to_string() }
    }

    /// Resuming failed for cryptographic reasons: it is counted, and the chain is not used again (spec 01 §2.4).
    pub(super) fn resume_failed(&mut self, now: Now) {
        self.connection.resume.failed();
        self.act(now, |step| step.account_mut().chain = None);
    }

    /// The server said nothing to the client hello. Once may be the network.
    fn handshake_unanswered(&mut self, now: Now) {
        if self.account.routing_info.is_none() {
            return;
        }
        self.connection.routing_failures += 1;
        if self.connection.routing_failures >= MAX_ROUTING_FAILURES {
            self.drop_routing(now);
        }
    }

    /// Routing info that leads nowhere must not lead there again (spec 01 §1.3).
    fn drop_routing(&mut self, now: Now) {
        self.connection.routing_failures = 0;
        if self.account.routing_info.is_some() {
            self.act(now, |step| step.account_mut().routing_info = None);
        }
    }

    // ---- the server says no -----------------------------------------------------------------------------------

    /// `<failure>` (spec 01 §6.3, 07 §3).
    pub(super) fn login_refused(&mut self, now: Now, failure: &Failure) {
        match failure.reason {
            401 | 403 | 406 | 415 if self.account.linked.is_none() => {
                self.emit(now, notices::connect_failure(failure));
                self.link_refused(now);
            }
            401 => self.logged_out(now, LogoutReason::Unauthorized),
            415 => self.logged_out(now, LogoutReason::NotFound),
            403 => self.locked_out(now, LogoutReason::Locked, BanKind::Locked, failure),
            406 => self.locked_out(now, LogoutReason::Banned, BanKind::Permanent, failure),
            402 => {
                let until_ms = notices::ban_end(now, failure);
                self.stop_told(now, Stop::Banned { until_ms });
                self.emit(now, notices::banned(BanKind::Temporary, now, failure));
            }
            405 => self.outdated(now),
            409 => {
                self.emit(now, notices::connect_failure(failure));
                self.stop_told(now, Stop::Refused);
            }
            reason => {
                self.emit(now, notices::connect_failure(failure));
                let class = if matches!(reason, 500 | 501 | 503) { Class::Server } else { Class::Refused };
                self.lose(now, Loss::server(class, format!("login refused ({reason})")));
            }
        }
    }

    /// `<stream:error>` (spec 01 §6.4, 07 §3).
    pub(super) fn stream_error(&mut self, now: Now, error: &StreamError, shown: &str) {
        match error {
            StreamError::RestartRequired => self.lose(now, Loss::Restart),
            StreamError::LoggedOut if self.account.linked.is_none() => self.link_refused(now),
            StreamError::LoggedOut => self.logged_out(now, LogoutReason::DeviceRemoved),
            StreamError::Replaced => self.replaced(now),
            StreamError::RateLimited => {
                self.connection.online().map(Online::never_stable);
                self.lose(now, Loss::server(Class::RateLimited, "rate limited (429)"));
            }
            StreamError::Unavailable(code) => {
                self.lose(now, Loss::server(Class::Server, format!("server unavailable ({code})")));
            }
            StreamError::NotWellFormed | StreamError::MissingAck | StreamError::Unknown(_) => {
                self.emit(now, notices::stream_error(error, shown));
                let class = if *error == StreamError::NotWellFormed { Class::Refused } else { Class::Server };
                self.lose(now, Loss::server(class, format!("stream error: {error:?}")));
            }
        }
    }

    fn stop_told(&mut self, now: Now, stop: Stop) {
        self.stop(now, stop);
        self.emit(now, notices::disconnected_for_good(stop.reason()));
    }

    fn locked_out(&mut self, now: Now, reason: LogoutReason, kind: BanKind, failure: &Failure) {
        self.logged_out(now, reason);
        self.stop(now, Stop::Banned { until_ms: None });
        self.emit(now, notices::banned(kind, now, failure));
    }

    /// A device that is not linked has nothing to lose: the attempt to link ends.
    fn link_refused(&mut self, now: Now) {
        self.emit(now, notices::link_refused());
        self.lose(now, Loss::Stop);
    }

    /// The same credentials connected elsewhere: not to be fought (spec 07 §3).
    fn replaced(&mut self, now: Now) {
        if self.connection.replaced.is_full(now.mono) {
            self.connection.cool_until = now.mono.saturating_add(REPLACED_SPAN);
        }
        self.connection.replaced.note(now.mono);
        self.stop_told(now, Stop::Replaced);
    }

    /// The version is refused. Unless the refused one was just refreshed, the driver is asked for another one.
    fn outdated(&mut self, now: Now) {
        let refused = self.config.client.version;
        let again = self.connection.refreshed;
        self.stop_told(now, Stop::Outdated);
        self.emit(now, notices::outdated(refused));
        if !again {
            let until = now.mono.saturating_add(self.config.version_timeout);
            self.connection.state = State::AwaitVersion { refused, until };
            self.gate.push_free(Queued::Output(Output::RefreshVersion));
        }
    }
}
