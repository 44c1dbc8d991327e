//! The end of a connection, and what follows.

use std::time::Duration;

use rand_core::Rng;

use super::{Goal, Loss, STABLE_AFTER, State, dial::pause};
use crate::{
    clock::Now,
    engine::{ConnectionId, Engine, Output, Queued, notices},
    event::DisconnectReason,
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
        self.lose(now, Loss::Retry { reason: DisconnectReason::ConnectionLost, detail: reason });
    }

    /// Ends the connection, tells it once, and decides what follows.
    pub(crate) fn lose(&mut self, now: Now, loss: Loss) {
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
    pub(crate) fn drop_connection(&mut self) {
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
        let mut outputs = Vec::new();
        while let Some(queued) = self.gate.pop() {
            match queued {
                Queued::Frame(to, frame) if to == id => {
                    outputs.extend(self.seal(id, &frame).map(|bytes| Queued::Output(Output::Send(id, bytes))));
                }
                other => outputs.push(other),
            }
        }
        outputs.into_iter().for_each(|output| self.gate.push_free(output));
    }
}
