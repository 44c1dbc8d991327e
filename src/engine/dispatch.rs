//! What comes in goes to whom it concerns: stanzas in the lanes of their chats, commands of the embedding program.

use super::{
    Command, CommandError, CommandId, Engine, Job, Output, Phase, Queued, Reply, address, devices, groups,
    lanes::Stanza, link_code, receipts, receive, restrictions, send, step::Needs, tokens,
};
use crate::{
    clock::Now, event::MappingSource, jid::Jid, message::MessageId, pairing::passkey::Assertion,
    stanza::stream::Notification,
};

impl Engine {
    /// Queues a stanza and handles it when its turn has come.
    pub(super) fn arrive(&mut self, now: Now, stanza: Stanza, size: usize) {
        let lane = stanza.lane();
        if self.lanes.push(lane.clone(), stanza, size) {
            self.run_lane(now, lane);
        }
    }

    pub(super) fn run_lane(&mut self, now: Now, lane: Jid) {
        while let Some(stanza) = self.lanes.take_head(&lane) {
            match self.handle_stanza(now, &stanza) {
                Ok(()) => self.lanes.pop(&lane),
                Err(needs) => {
                    self.lanes.put_head(&lane, stanza);
                    return self.park(Job::Lane(lane), needs);
                }
            }
        }
        self.tell_backlog_end(now);
    }

    fn handle_stanza(&mut self, now: Now, stanza: &Stanza) -> Result<(), Needs> {
        match stanza {
            Stanza::Message(message) => self.step(now, |step| receive::message(step, message)),
            Stanza::Receipt(receipt, ack) if receipt.retry.is_some() => self.asked_again(now, receipt, ack),
            Stanza::Receipt(receipt, ack) => {
                let settled = self.step(now, |step| receipts::receipt(step, receipt, ack))?;
                self.settle(now, &settled);
                Ok(())
            }
            Stanza::Ack(ack) => {
                let acked = self.step(now, |step| send::acknowledged(step, ack))?;
                self.acked(now, &ack.id, acked);
                Ok(())
            }
            Stanza::People(people, ack, _) => self.step(now, |step| {
                address::learn_all(step, people, MappingSource::Notification)?;
                step.send(&ack.ack());
                Ok(())
            }),
            Stanza::Notification(Notification::Group(notice), ack, offline) => {
                self.step(now, |step| groups::notification(step, notice, ack, *offline))
            }
            Stanza::Notification(notification, ack, offline) => {
                match self.step(now, |step| devices::notification(step, notification, ack, *offline))? {
                    devices::Wanted::Nothing => {}
                    devices::Wanted::PreKeys => self.refill_pre_keys(now),
                    devices::Wanted::Digest => self.check_digest(now),
                }
                Ok(())
            }
        }
    }

    pub(super) fn command(&mut self, now: Now, id: CommandId, command: Command) {
        match self.phase {
            Phase::Booting | Phase::Halted { .. } if self.early.len() >= self.config.max_sends => {
                self.answer(id, Err(CommandError::Busy { waiting: self.early.len() }));
            }
            Phase::Booting | Phase::Halted { .. } => self.early.push_back((id, command)),
            Phase::Ready | Phase::Broken(_) | Phase::Lost => self.run_command(now, id, command),
        }
    }

    pub(super) fn run_command(&mut self, now: Now, id: CommandId, command: Command) {
        match self.phase {
            Phase::Broken(error) => return self.answer(id, Err(error.into())),
            Phase::Lost => return self.answer(id, Err(CommandError::LeaseLost)),
            Phase::Booting | Phase::Ready | Phase::Halted { .. } => {}
        }
        match command {
            Command::Connect => {
                let reply = self.connect(now);
                self.answer(id, reply);
            }
            Command::LinkQr => {
                let reply = self.link(now);
                self.answer(id, reply);
            }
            Command::LinkCode { phone, code, notify } => {
                self.link_code(now, id, link_code::Request { phone, code, notify });
            }
            Command::PasskeyAssertion { credential_id, assertion } => {
                let reply = self.passkey_assertion(now, Assertion { credential_id, json: assertion });
                self.answer(id, reply);
            }
            Command::PasskeyConfirm => {
                let reply = self.passkey_confirm(now);
                self.answer(id, reply);
            }
            Command::Disconnect => {
                self.disconnect(now);
                self.answer(id, Ok(Reply::Done));
            }
            Command::Reconnect => {
                let reply = self.reconnect(now);
                self.answer(id, reply);
            }
            Command::Logout => self.log_out(now, id),
            Command::SetVersion(version) => {
                self.set_version(now, version);
                self.answer(id, Ok(Reply::Done));
            }
            Command::Send(request) => self.accept_send(now, id, request),
            Command::SetNctSalt(_) | Command::CheckRestrictions if self.account.linked.is_none() => {
                self.answer(id, Err(CommandError::NotLinked));
            }
            Command::SetNctSalt(salt) => self.act(now, |step| {
                tokens::set_salt(step, salt);
                step.reply(id, Ok(Reply::Done));
            }),
            Command::CheckRestrictions if !self.connection.is_online() => {
                self.answer(id, Err(CommandError::NotConnected));
            }
            Command::CheckRestrictions => self.act(now, |step| {
                restrictions::ask(step);
                step.reply(id, Ok(Reply::Done));
            }),
            Command::Group(request) => {
                if let Err(needs) = self.group_command(now, id, &request) {
                    self.park(Job::Command(id, Command::Group(request)), needs);
                }
            }
            Command::MarkRead { chat, participant, ids } => {
                // Also when it comes back with its records: what it sends must not wait for another login.
                if !self.connection.is_online() {
                    return self.answer(id, Err(CommandError::NotConnected));
                }
                let done = self.step(now, |step| receipts::mark_read(step, id, &chat, participant.as_ref(), &ids));
                if let Err(needs) = done {
                    self.park(Job::Command(id, Command::MarkRead { chat, participant, ids }), needs);
                }
            }
        }
    }

    /// Answers a command that wrote nothing.
    pub(super) fn answer(&mut self, id: CommandId, reply: Result<Reply, CommandError>) {
        self.gate.push_after(self.batches, Queued::Output(Output::Reply(id, reply)));
    }

    /// A message id for a send without one.
    pub(super) fn next_message_id(&mut self, now: Now) -> MessageId {
        let user = self.account.linked.as_ref().map(|linked| linked.pn.user());
        MessageId::generate(now.unix_seconds(), user, &mut self.rng)
    }
}
