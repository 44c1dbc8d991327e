//! The end of the link (spec 01 §6.12): by the caller, by the phone, or by the server.

use super::{CommandError, CommandId, Engine, Reply, connection::Stop};
use crate::{
    clock::Now,
    engine::{account::Account, notices, queries::Query},
    event::{DisconnectReason, LogoutReason},
    stanza::iq::session,
};

/// Logouts that are not answered yet. They are one: however many callers want it, the server is told once.
#[derive(Debug, Default)]
pub(crate) struct Logouts {
    commands: Vec<CommandId>,
    /// The server's answer will not come any more.
    due: bool,
}

impl Logouts {
    /// Whether the account must be removed now.
    pub(crate) const fn is_due(&self) -> bool {
        self.due
    }

    /// The account cannot be read: gives who waits, for whom nothing will be removed.
    pub(crate) fn give_up(&mut self) -> Vec<CommandId> {
        std::mem::take(self).commands
    }

    /// The connection went away, and with it the answer.
    pub(crate) const fn connection_lost(&mut self) {
        self.due = !self.commands.is_empty();
    }
}

impl Engine {
    /// Unlinks the device. The server is told when it can be; what is stored is removed in any case.
    pub(super) fn log_out(&mut self, now: Now, command: CommandId) {
        let Some(linked) = &self.account.linked else {
            return self.answer(command, Err(CommandError::NotLinked));
        };
        let waiting = self.logouts.commands.len();
        if waiting >= self.config.max_sends.max(1) {
            return self.answer(command, Err(CommandError::Busy { waiting }));
        }
        self.logouts.commands.push(command);
        if !self.connection.is_online() {
            self.finish_logout(now);
        } else if waiting == 0 {
            let request = session::remove_companion(&linked.pn);
            let id = self.queries.ask(Query::Logout, now.mono.saturating_add(self.config.logout_timeout));
            self.send_free(&request.attr("id", id));
        }
    }

    pub(super) fn finish_logout(&mut self, now: Now) {
        let commands = std::mem::take(&mut self.logouts).commands;
        self.logged_out(now, LogoutReason::Requested);
        for command in commands {
            self.answer(command, Ok(Reply::Done));
        }
    }

    /// The device is not linked any more: keys, sessions and what was under way are removed in one batch with the events
    /// that tell it. The outbox stays.
    pub(super) fn logged_out(&mut self, now: Now, reason: LogoutReason) {
        if self.account.linked.is_none() {
            return;
        }
        let on_connect = !self.connection.is_online();
        self.stop(now, Stop::LoggedOut);
        let given_up = self.sends.give_up(self.config.prefer);
        let fresh = Account::generate(&mut self.rng);
        self.act(now, |step| {
            step.clear_records();
            *step.account_mut() = fresh;
            for event in given_up {
                step.emit(event);
            }
            if reason != LogoutReason::Requested {
                step.emit(notices::disconnected_for_good(DisconnectReason::LoggedOut));
            }
            step.emit(notices::logged_out(reason, on_connect));
        });
        self.lanes.clear();
        self.slices.clear();
        self.upload = None;
        self.drop_jobs();
    }
}
