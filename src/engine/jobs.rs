//! Work that waits for records, and the account's own: loaded at the start, and again after the store failed.
//!
//! ```text
//!   step misses ──► parked, its reads pinned ──► Load ──► Loaded ──► runs again from its start
//! ```

use std::{sync::Arc, time::Duration};

use super::{
    Account, Cache, Command, CommandError, CommandId, Engine, LoadId, Loaded, Needs, Output, Phase, Queued, Record,
    RecordError, Retention, Sends, Stop, asked, devices, notices, queries::Answer, records::OutboxHeadRecord,
    retention::Queue, retry, send,
};
use crate::{
    clock::Now,
    event::{DisconnectReason, LinkFailure, SessionState},
    jid::Jid,
    store::{IMPORTED, Key, RecordKind, StoreError},
};

/// Pause before the account is loaded again after the store failed.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Work that was stopped by a missing record.
#[derive(Debug)]
pub(super) enum Job {
    /// The account and what was under way are loaded.
    Boot,
    /// The head of a lane.
    Lane(Jid),
    /// A send.
    Send(u64),
    /// The answer to a query.
    Answer(Answer),
    /// A command.
    Command(CommandId, Command),
    /// The first send that waits to be accepted.
    Accept,
    /// Records that may be too old.
    Trim(Queue),
    /// A request to send a message again.
    Resend(Box<asked::Asked>),
    /// Work for many devices.
    Slice(u64),
    /// A question about devices.
    AskDevices(devices::Asked),
}

/// A job whose records are being loaded.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) job: Job,
    /// Number of the newest batch when it asked.
    pub(super) asked: u64,
    /// What it has read already.
    pub(super) read: Vec<Key>,
}

impl Engine {
    /// Loads the account and what was under way.
    pub(super) fn load_account(&mut self) {
        self.phase = Phase::Booting;
        let keys = [account_key(), head_key(), imported_key()].into_iter().chain(Retention::keys());
        let needs = Needs { missing: keys.collect(), read: Vec::new() };
        self.request(Job::Boot, needs, vec![RecordKind::Outgoing, RecordKind::Placeholder]);
    }

    /// Stops a job until its records are there.
    pub(super) fn park(&mut self, job: Job, needs: Needs) {
        self.request(job, needs, Vec::new());
    }

    pub(super) fn request(&mut self, job: Job, needs: Needs, scans: Vec<RecordKind>) {
        let id = LoadId(self.next_load);
        self.next_load += 1;
        let Needs { missing: keys, read } = needs;
        self.cache.pin(&read);
        self.jobs.insert(id, Parked { job, asked: self.batches, read });
        self.gate.push_free(Queued::Output(Output::Load { id, keys, scans }));
    }

    pub(super) fn loaded(&mut self, now: Now, id: LoadId, loaded: Loaded) {
        let Some(Parked { job, read, .. }) = self.jobs.remove(&id) else { return };
        if matches!(job, Job::Boot) {
            return self.boot(now, loaded);
        }
        self.cache.fill(loaded.records, self.evictable());
        self.cache.unpin(&read);
        self.run(now, job);
    }

    /// What was written up to this batch may leave the cache: it is durable, and no load is under way whose answer is
    /// older than it.
    pub(super) fn evictable(&self) -> u64 {
        let oldest = self.jobs.first_key_value().map_or(u64::MAX, |(_, parked)| parked.asked);
        self.gate.durable().min(oldest)
    }

    /// Forgets every job, and with it the answers that are under way: they show what was before.
    pub(super) fn drop_jobs(&mut self) {
        for send::Waiting { command: id, .. } in std::mem::take(&mut self.accepting) {
            self.gate.push_free(Queued::Output(Output::Reply(id, Err(self.interruption()))));
        }
        self.interrupt_group_commands();
        for Parked { job, read, .. } in std::mem::take(&mut self.jobs).into_values() {
            self.cache.unpin(&read);
            if let Job::Command(id, _) | Job::Answer(Answer::GroupCommand(id, _)) = job {
                self.gate.push_free(Queued::Output(Output::Reply(id, Err(self.interruption()))));
            }
        }
    }

    /// Runs a job, or goes on with it.
    pub(super) fn run(&mut self, now: Now, job: Job) {
        match job {
            Job::Boot => {}
            Job::Lane(lane) => self.run_lane(now, lane),
            Job::Send(order) => self.run_send(now, order),
            Job::Answer(answer) => self.run_answer(now, answer),
            Job::Command(id, command) => self.run_command(now, id, command),
            Job::Accept => self.run_accepting(now),
            Job::Trim(queue) => self.run_trim(now, queue),
            Job::Resend(asked) => self.run_resend(now, *asked),
            Job::Slice(slice) => self.run_slice(now, slice),
            Job::AskDevices(asked) => self.run_devices_query(now, asked),
        }
    }

    /// The account is loaded.
    pub(super) fn boot(&mut self, now: Now, loaded: Loaded) {
        let Loaded { records, scanned } = loaded;
        let of = |wanted: Key| records.iter().find(|(key, _)| *key == wanted).and_then(|(_, value)| value.clone());
        if let Some(head) = of(head_key()) {
            match OutboxHeadRecord::from_bytes(&head) {
                Ok(head) => self.last_event = self.last_event.max(head.last),
                Err(error) => return self.broken(now, error),
            }
        }
        let last = Some(self.last_event);
        for envelope in std::mem::take(&mut self.unconfirmed).into_iter().filter(|envelope| envelope.seq <= last) {
            self.gate.push_free(Queued::Output(Output::Event(Box::new(envelope))));
        }
        self.told.restore(self.last_event);
        // Without word from the driver nothing waits in the outbox.
        self.acknowledged = self.acknowledged_before.take().unwrap_or(self.last_event).min(self.last_event);
        let mut is_imported = None;
        if let Some(record) = of(account_key()) {
            match Account::from_record(&record) {
                Ok(mut account) => {
                    // Also when the store failed meanwhile, and forgot the last run.
                    account.run = account.run.max(self.account.run.saturating_add(1));
                    self.account = Arc::new(account);
                }
                Err(error) => return self.broken(now, error),
            }
            if let Some(mark) = of(imported_key()) {
                if mark != IMPORTED {
                    return self.broken(now, RecordError("Imported (the import is not finished)"));
                }
                let mut account = (*self.account).clone();
                account.begin_anew();
                is_imported = Some(account);
            }
        } else if of(imported_key()).is_some() {
            return self.broken(now, RecordError("Imported (the import is not finished)"));
        } else if self.account.linked.is_some() || self.account.kept {
            // The store lost the account while we ran: nothing of the old keys may be used again.
            let run = self.account.run.saturating_add(1);
            self.account = Arc::new(Account { run, ..Account::generate(&mut self.rng) });
        }
        self.retention = Retention::restore(&records);
        let (wanted, sends) = scanned.into_iter().partition(|(key, _)| key.kind == RecordKind::Placeholder);
        self.sends.restore(sends);
        self.retries = retry::Memory::default();
        self.retries.wanted.restore(now, wanted);
        self.phase = Phase::Ready;
        if let Some(account) = is_imported {
            self.act(now, |step| {
                *step.account_mut() = account;
                step.delete(imported_key());
            });
        }
        if self.account.linked.is_some() && self.told.state() == SessionState::Pending {
            self.told.begin(SessionState::Disconnected);
        }
        self.resume(now);
        for (id, command) in std::mem::take(&mut self.early) {
            self.run_command(now, id, command);
        }
    }

    /// What is stored cannot be read: nothing is touched, and every command is refused.
    pub(super) fn broken(&mut self, now: Now, error: RecordError) {
        tracing::error!(%error, "the account cannot be loaded");
        self.phase = Phase::Broken(error);
        if self.connection.is_suspended() {
            self.stop(now, Stop::Idle);
            self.emit_unstored(now, &notices::disconnected_for_good(DisconnectReason::Storage));
        }
        for id in self.logouts.give_up() {
            self.answer(id, Err(error.into()));
        }
        for (id, command) in std::mem::take(&mut self.early) {
            self.run_command(now, id, command);
        }
    }

    /// Drops everything that is not durable, as a crash would, and loads the account again after a pause.
    pub(super) fn store_failed(&mut self, now: Now, error: &StoreError) {
        if self.phase == Phase::Lost {
            return;
        }
        let is_lost = *error == StoreError::LeaseLost;
        match is_lost {
            true => tracing::error!("another store runs this account: it has ended here"),
            false => tracing::error!(%error, "the store failed, starting over"),
        }
        self.store_failures = self.store_failures.saturating_add(1);
        if is_lost {
            self.phase = Phase::Lost;
        }
        self.clear_gate();
        self.told.fail();
        self.drop_jobs();
        self.lanes.clear();
        self.sends = Sends::default();
        self.resends.clear();
        self.slices.clear();
        self.held.clear();
        self.upload = None;
        self.cache = Cache::new(self.config.cache_bytes);
        self.end_side_links(now, LinkFailure::ConnectionLost);
        if self.phase == Phase::Ready {
            self.acknowledged_before = Some(self.acknowledged);
        } else {
            // It failed twice: who asked meanwhile has waited long enough.
            for (id, _) in std::mem::take(&mut self.early) {
                self.gate.push_free(Queued::Output(Output::Reply(id, Err(self.interruption()))));
            }
        }
        self.last_event = 0;
        self.acknowledged = 0;
        if is_lost {
            for id in self.logouts.give_up() {
                self.answer(id, Err(CommandError::LeaseLost));
            }
            self.stop(now, Stop::Idle);
            self.emit_unstored(now, &notices::store_failed(error, None, self.store_failures));
            self.emit_unstored(now, &notices::disconnected_for_good(DisconnectReason::Storage));
            return;
        }
        self.emit_unstored(now, &notices::store_failed(error, Some(STORE_PAUSE), self.store_failures));
        self.suspend_told(now);
        self.phase = Phase::Halted { until: now.mono.saturating_add(STORE_PAUSE) };
    }

    /// A batch is durable.
    pub(super) fn store_works(&mut self, now: Now) {
        // Those of before the failure do not count: the account is not loaded again yet.
        if self.store_failures > 0 && self.phase == Phase::Ready {
            let failures = std::mem::take(&mut self.store_failures);
            self.emit_unstored(now, &notices::store_recovered(failures));
        }
    }

    /// What they hear whose command came to nothing.
    pub(super) const fn interruption(&self) -> CommandError {
        match self.phase {
            Phase::Lost => CommandError::LeaseLost,
            _ => CommandError::Interrupted,
        }
    }

    /// Drops what was to leave, but for what is durable and what somebody waits for.
    pub(super) fn clear_gate(&mut self) {
        let (ready, held) = (self.gate.take_ready(), self.gate.take_held());
        self.waiting_receipts = 0;
        // Batches that failed are never confirmed; later ones must not wait for them.
        self.gate.release(self.batches);
        for queued in ready {
            if let Queued::Output(Output::Event(_) | Output::Reply(..) | Output::Close(_)) = queued {
                self.gate.push_free(queued);
            }
        }
        for queued in held {
            match queued {
                Queued::Output(Output::Reply(id, _)) => {
                    self.gate.push_free(Queued::Output(Output::Reply(id, Err(self.interruption()))));
                }
                // A batch whose confirmation is under way may be durable: the outbox tells when it is loaded again.
                Queued::Output(Output::Event(envelope)) if envelope.seq.is_some() => self.unconfirmed.push(*envelope),
                _ => {}
            }
        }
    }
}

pub(super) fn account_key() -> Key {
    Key::new(RecordKind::Account, b"")
}

/// That the account was imported.
fn imported_key() -> Key {
    Key::new(RecordKind::Imported, b"")
}

pub(super) fn head_key() -> Key {
    Key::new(RecordKind::OutboxHead, b"")
}
