//! From `success` to active, and what goes on while online (spec 01 §6.2–6.9).
//!
//! ```text
//!   success ──► PreKeys: count, upload if few ──► Activating: active ──► Active: backlog, keepalive
//! ```

use std::time::Duration;

use rand_core::Rng;

use super::{Engine, connection::Loss};
use crate::{
    clock::Now,
    engine::{
        account::Account,
        command::CommandId,
        lanes::Stanza,
        notices,
        queries::{Answer, Query, QueryError},
    },
    event::{BanKind, DisconnectReason, LogoutReason},
    node::Node,
    stanza::{
        iq::{prekeys, session},
        stream::{Failure, Success},
    },
};

/// How many queued stanzas the server is asked for at a time (spec 01 §6.8).
const OFFLINE_BATCH: u32 = 200;
/// Pause between the first stanza of a batch and the request for the next.
const OFFLINE_PAUSE: Duration = Duration::from_millis(100);
/// Keepalives in a row without an answer after which the connection is given up (spec 01 §6.9).
const MAX_MISSES: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    PreKeys,
    Activating,
    Active,
}

/// A connection that is logged in.
#[derive(Debug)]
pub(crate) struct Online {
    stage: Stage,
    since: Duration,
    /// A rate limit ended it: it does not count as stable.
    unstable: bool,
    next_ping: Duration,
    pong_until: Option<Duration>,
    misses: u32,
    backlog: Backlog,
}

/// Delivery of what was queued while we were away.
#[derive(Debug, Default)]
struct Backlog {
    /// A batch is asked for and none of it has come.
    awaited: bool,
    /// When the next batch is asked for.
    request_at: Option<Duration>,
    /// The server says that this was all.
    end: Option<BacklogEnd>,
}

/// The end of the backlog, which is told once everything in front of it was handled.
#[derive(Debug)]
struct BacklogEnd {
    /// Stanzas that the server delivered.
    count: u64,
    /// The last one, by its number in the lanes.
    last: u64,
}

impl Online {
    const fn new(now: Duration, next_ping: Duration) -> Self {
        let backlog = Backlog { awaited: false, request_at: None, end: None };
        Self { stage: Stage::PreKeys, since: now, unstable: false, next_ping, pong_until: None, misses: 0, backlog }
    }

    /// Whether the server delivers and takes messages.
    pub(crate) fn is_active(&self) -> bool {
        self.stage == Stage::Active
    }

    pub(crate) fn stood_for(&self, now: Duration, span: Duration) -> bool {
        !self.unstable && now.saturating_sub(self.since) >= span
    }

    pub(crate) const fn never_stable(&mut self) {
        self.unstable = true;
    }

    pub(crate) fn deadline(&self) -> Duration {
        [Some(self.next_ping), self.pong_until, self.backlog.request_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_ping)
    }
}

impl Engine {
    pub(super) fn logged_in(&mut self, now: Now, success: &Success) {
        let next_ping = now.mono + self.ping_pause();
        if !self.now_online(Online::new(now.mono, next_ping)) {
            return;
        }
        self.act(now, |step| {
            let account = step.account_mut();
            account.logins = account.logins.saturating_add(1);
            if let (Some(linked), Some(lid)) =
                (&mut account.linked, success.lid.as_ref().filter(|lid| lid.is_lid_family()))
            {
                linked.lid = Some(lid.clone());
            }
        });
        if self.account.uploaded {
            self.ask(now, Query::PreKeyCount, prekeys::count_request());
        } else {
            self.upload_pre_keys(now);
        }
    }

    /// Takes the answer to a query.
    pub(super) fn run_answer(&mut self, now: Now, answer: Answer) {
        match answer {
            Answer::Keepalive => self.pong(now),
            Answer::PreKeyCount(Ok(count)) if count < self.config.pre_key_low_water => self.upload_pre_keys(now),
            Answer::PreKeyCount(result) => {
                log_failure("prekey count", result.err());
                self.activate(now);
            }
            Answer::PreKeyUpload(result) => {
                log_failure("prekey upload", result.err());
                self.activate(now);
            }
            Answer::Active(Err(QueryError::TimedOut)) => self.timed_out(now, "no answer to active in time"),
            Answer::Active(result) => {
                log_failure("active", result.err());
                self.active(now);
            }
            Answer::Devices(users, result) => self.devices_answered(now, users, result),
            Answer::Bundles(devices, result) => self.bundles_answered(now, devices, result),
            Answer::CodeHello(code, result) => self.code_accepted(now, code, result),
            Answer::CodeFinish(code, result) => self.code_finished(now, code, result),
            Answer::PasskeyOptions(link, result) => self.passkey_options(now, link, result),
            Answer::PasskeyReference(link, result) => self.passkey_reference(now, link, result),
            Answer::PasskeyStep(link, result) => self.passkey_step(now, link, result),
            Answer::Logout(command) => self.finish_logout(now, command),
        }
    }

    fn activate(&mut self, now: Now) {
        let Some(online) = self.connection.online().filter(|online| online.stage == Stage::PreKeys) else { return };
        online.stage = Stage::Activating;
        self.ask(now, Query::Active, session::active());
    }

    fn active(&mut self, now: Now) {
        let Some(online) = self.connection.online().filter(|online| online.stage == Stage::Activating) else { return };
        online.stage = Stage::Active;
        self.connection.told_online();
        if let Some(event) = notices::connected(&self.account) {
            self.emit(now, event);
        }
        self.resume_sends(now);
    }

    // ---- prekeys ----------------------------------------------------------------------------------------------

    /// The server runs low on one-time prekeys.
    pub(super) fn refill_pre_keys(&mut self, now: Now) {
        let under_way = self.queries.any(|query| matches!(query, Query::PreKeyUpload));
        if self.connection.online().is_some() && !under_way {
            self.upload_pre_keys(now);
        }
    }

    fn upload_pre_keys(&mut self, now: Now) {
        let id = self.queries.ask(Query::PreKeyUpload, now.mono + self.config.query_timeout);
        self.act(now, |step| {
            let request = super::prekeys::upload(step);
            step.send(&request.attr("id", id));
        });
    }

    // ---- backlog ----------------------------------------------------------------------------------------------

    pub(super) fn offline_preview(&mut self, now: Now, count: u64, messages: u64, receipts: u64, notifications: u64) {
        self.emit(now, notices::offline_started(count, messages, receipts, notifications));
        if count > 0 {
            self.request_backlog();
        }
    }

    /// A stanza of the backlog has come: the first of a batch leads to the request for the next.
    pub(super) fn offline_stanza(&mut self, now: Now, stanza: &Stanza) {
        let offline = match stanza {
            Stanza::Message(message) => message.offline,
            Stanza::Receipt(receipt, _) => receipt.offline,
            Stanza::Notification(_, _, offline) => *offline,
            Stanza::Ack(_) => false,
        };
        if let Some(online) = self.connection.online()
            && offline
            && std::mem::take(&mut online.backlog.awaited)
        {
            online.backlog.request_at = Some(now.mono + OFFLINE_PAUSE);
        }
    }

    fn request_backlog(&mut self) {
        if let Some(online) = self.connection.online() {
            online.backlog = Backlog { awaited: true, ..Backlog::default() };
            self.send_free(&Node::new("ib").child(Node::new("offline_batch").attr("count", OFFLINE_BATCH)));
        }
    }

    pub(super) fn offline_done(&mut self, now: Now, count: u64) {
        let last = self.lanes.arrived();
        if let Some(online) = self.connection.online() {
            online.backlog = Backlog { end: Some(BacklogEnd { count, last }), ..Backlog::default() };
            self.tell_backlog_end(now);
        }
    }

    /// Tells that the backlog is through, when it is.
    pub(super) fn tell_backlog_end(&mut self, now: Now) {
        let Some(online) = self.connection.online() else { return };
        if let Some(end) = online.backlog.end.take_if(|end| self.lanes.is_through(end.last)) {
            self.emit(now, notices::offline_completed(end.count));
        }
    }

    // ---- keepalive --------------------------------------------------------------------------------------------

    pub(super) fn expire_online(&mut self, now: Now) {
        let reading = self.wants_read();
        let (timeout, pause) = (self.config.keepalive_timeout, self.ping_pause());
        let Some(online) = self.connection.online() else { return };
        if online.backlog.request_at.is_some_and(|at| at <= now.mono) {
            return self.request_backlog();
        }
        if online.pong_until.is_some_and(|until| until <= now.mono) {
            if !reading {
                // Nobody reads the socket, so nothing is known about the server.
                online.pong_until = Some(now.mono + timeout);
                return;
            }
            online.misses += 1;
            online.pong_until = None;
            online.next_ping = now.mono;
            let misses = online.misses;
            let last_success = self.last_pong;
            self.emit(now, notices::keepalive_lost(misses, last_success));
            if misses >= MAX_MISSES {
                return self.timed_out(now, "keepalives are not answered");
            }
        }
        let Some(online) = self.connection.online() else { return };
        if online.next_ping <= now.mono {
            online.next_ping = now.mono + pause;
            online.pong_until.get_or_insert(now.mono + timeout);
            self.ask(now, Query::Keepalive, session::ping());
        }
    }

    fn pong(&mut self, now: Now) {
        let Some(online) = self.connection.online() else { return };
        online.pong_until = None;
        let misses = std::mem::take(&mut online.misses);
        self.last_pong = Some(now.wall_ms);
        if misses > 0 {
            self.emit(now, notices::keepalive_restored(misses, now));
        }
    }

    fn ping_pause(&mut self) -> Duration {
        let (from, to) = (*self.config.keepalive.start(), *self.config.keepalive.end());
        let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(0);
        from + Duration::from_millis(self.rng.next_u64() % span.saturating_add(1))
    }

    // ---- refused ----------------------------------------------------------------------------------------------

    /// `<failure>` (spec 01 §6.3, 07 §3).
    pub(super) fn login_refused(&mut self, now: Now, failure: &Failure) {
        match failure.reason {
            401 => self.logged_out(now, LogoutReason::Unauthorized),
            415 => self.logged_out(now, LogoutReason::NotFound),
            403 => {
                self.logged_out(now, LogoutReason::Locked);
                self.emit(now, notices::banned(BanKind::Locked, now, failure));
            }
            406 => {
                self.logged_out(now, LogoutReason::Banned);
                self.emit(now, notices::banned(BanKind::Permanent, now, failure));
            }
            402 => {
                self.lose(now, Loss::Stop);
                self.emit(now, notices::disconnected_for_good(DisconnectReason::Banned));
                self.emit(now, notices::banned(BanKind::Temporary, now, failure));
            }
            405 => {
                self.lose(now, Loss::Stop);
                self.emit(now, notices::disconnected_for_good(DisconnectReason::Outdated));
                let event = notices::outdated(&self.config.client);
                self.emit(now, event);
            }
            409 => {
                self.emit(now, notices::connect_failure(failure));
                self.lose(now, Loss::Stop);
                self.emit(now, notices::disconnected_for_good(DisconnectReason::ServerError));
            }
            reason => {
                self.emit(now, notices::connect_failure(failure));
                let detail = format!("login refused ({reason})");
                self.lose(now, Loss::Retry { reason: DisconnectReason::ServerError, detail });
            }
        }
    }

    // ---- logout -----------------------------------------------------------------------------------------------

    /// Unlinks the device. The server is told when it can be; what is stored is removed in any case.
    pub(super) fn log_out(&mut self, now: Now, command: CommandId) {
        let Some(linked) = &self.account.linked else {
            return self.answer(command, Err(super::CommandError::NotLinked));
        };
        if !self.connection.is_online() {
            return self.finish_logout(now, command);
        }
        let request = session::remove_companion(&linked.pn);
        let id = self.queries.ask(Query::Logout(command), now.mono + self.config.logout_timeout);
        self.send_free(&request.attr("id", id));
    }

    fn finish_logout(&mut self, now: Now, command: CommandId) {
        self.logged_out(now, LogoutReason::Requested);
        self.answer(command, Ok(super::Reply::Done));
    }

    /// The device is not linked any more: keys, sessions and what was under way are removed in one batch with the events
    /// that tell it. The outbox stays.
    pub(super) fn logged_out(&mut self, now: Now, reason: LogoutReason) {
        if self.account.linked.is_none() {
            return;
        }
        let on_connect = !self.connection.is_online();
        self.lose(now, Loss::Stop);
        let given_up = self.sends.give_up();
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
        self.drop_jobs();
    }
}

fn log_failure(what: &str, error: Option<QueryError>) {
    if let Some(error) = error {
        tracing::warn!(%error, "{what} failed");
    }
}
