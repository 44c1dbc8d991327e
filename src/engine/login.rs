//! From `success` to active, and what goes on while online (spec 01 §6.2–6.9).
//!
//! ```text
//!   success ──► PreKeys: count, upload if few ──► Activating: active ──► Active: backlog, keepalive
//! ```

use std::time::Duration;

use rand_core::Rng;

use super::Engine;
use crate::{
    clock::Now,
    engine::{
        dirty::Dirty,
        lanes::Stanza,
        notices,
        queries::{Answer, Query, QueryError},
    },
    node::Node,
    stanza::{
        iq::{prekeys, session},
        stream::Success,
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
    /// Areas of server state that changed.
    pub(super) dirty: Dirty,
    /// When prekeys are counted that could not be uploaded yet.
    pub(super) refill_at: Option<Duration>,
    /// They run low, and are refilled when the backlog is through.
    refill_after: bool,
    /// When our keys are looked after the next time.
    pub(super) upkeep_at: Option<Duration>,
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
        Self {
            stage: Stage::PreKeys,
            since: now,
            unstable: false,
            next_ping,
            pong_until: None,
            misses: 0,
            backlog,
            dirty: Dirty::new(now),
            refill_at: None,
            refill_after: false,
            upkeep_at: None,
        }
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
        let refill = self.refill_at.or_else(|| self.dirty.backlog_until().filter(|_| self.refill_after));
        let backlog = [self.backlog.request_at, self.dirty.deadline()];
        [Some(self.next_ping), self.pong_until, refill, self.upkeep_at]
            .into_iter()
            .chain(backlog)
            .flatten()
            .min()
            .unwrap_or(self.next_ping)
    }

    /// What decides what comes next.
    pub(crate) fn shape(&self) -> String {
        let Self { stage, pong_until, misses, backlog, refill_at, .. } = self;
        format!(
            "{stage:?} ping {} misses {misses} backlog {} {} refill {}",
            pong_until.is_some(),
            backlog.awaited,
            backlog.request_at.is_some(),
            refill_at.is_some(),
        )
    }
}

impl Engine {
    pub(super) fn logged_in(&mut self, now: Now, success: &Success) {
        let next_ping = now.mono.saturating_add(self.ping_pause());
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
        } else if !self.upload_pre_keys(now) {
            self.activate(now);
        }
    }

    /// Takes the answer to a query.
    pub(super) fn run_answer(&mut self, now: Now, answer: Answer) {
        match answer {
            Answer::Keepalive => self.pong(now),
            Answer::PreKeyCount(Ok(count)) if count < self.config.pre_key_low_water => {
                if !self.upload_pre_keys(now) {
                    self.activate(now);
                }
            }
            Answer::PreKeyCount(result) => {
                log_failure("prekey count", result.err());
                self.activate(now);
            }
            Answer::PreKeyUpload(result) => self.uploaded(now, result),
            Answer::KeyDigest(result) => self.digest_answered(now, result),
            Answer::Rotate(id, result) => self.rotated(now, id, result),
            Answer::Active(Err(QueryError::TimedOut)) => self.timed_out(now, "no answer to active in time"),
            Answer::Active(result) => {
                log_failure("active", result.err());
                self.active(now);
            }
            Answer::Devices(asked, result) => self.devices_answered(now, asked, result),
            Answer::SameDevices(users) => self.devices_unchanged(now, users),
            Answer::NoDevices(users, why) => self.devices_unknown(now, users, &why),
            Answer::Bundles(devices, result) => self.bundles_answered(now, devices, result),
            Answer::NoBundles(without, stale) => self.without_bundles(now, without, stale),
            Answer::Group(group, result) => self.group_answered(now, group, result),
            Answer::GroupCommand(id, result) => self.group_command_answered(now, id, result),
            Answer::Clean(area, result) => self.cleaned(now, area, result),
            Answer::CodeHello(code, result) => self.code_accepted(now, code, result),
            Answer::CodeFinish(code, result) => self.code_finished(now, code, result),
            Answer::PasskeyOptions(link, result) => self.passkey_options(now, link, result),
            Answer::PasskeyReference(link, result) => self.passkey_reference(now, link, result),
            Answer::PasskeyStep(link, result) => self.passkey_step(now, link, result),
            Answer::IssueToken(peer, at, result) => self.token_issued(now, peer, at, result),
            Answer::Restriction(result) => self.restriction_answered(now, result),
            Answer::Logout => self.finish_logout(now),
        }
    }

    pub(super) fn activate(&mut self, now: Now) {
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
        self.trim_records(now);
        self.upkeep(now);
    }

    // ---- prekeys ----------------------------------------------------------------------------------------------

    /// The server runs low on one-time prekeys. While it still delivers what waited for us, keys that are used up there would be
    /// counted as low again and again.
    pub(super) fn refill_pre_keys(&mut self, now: Now) {
        let Some(online) = self.connection.online() else { return };
        if online.dirty.backlog_until().is_some() {
            online.refill_after = true;
        } else {
            self.upload_pre_keys(now);
        }
    }

    /// The backlog is through, or does not come to an end.
    pub(super) fn refill_after_backlog(&mut self, now: Now) {
        let wanted = self.connection.online().is_some_and(|online| std::mem::take(&mut online.refill_after));
        if wanted {
            self.upload_pre_keys(now);
        }
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
            Stanza::Notification(_, _, offline) | Stanza::People(_, _, offline) => *offline,
            Stanza::Ack(_) => false,
        };
        if let Some(online) = self.connection.online()
            && offline
            && std::mem::take(&mut online.backlog.awaited)
        {
            online.backlog.request_at = Some(now.mono.saturating_add(OFFLINE_PAUSE));
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
            self.backlog_is_over(now);
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
        if online.refill_at.take_if(|at| *at <= now.mono).is_some() {
            return self.ask(now, Query::PreKeyCount, prekeys::count_request());
        }
        if online.dirty.backlog_until().is_some_and(|at| at <= now.mono) {
            return self.backlog_is_over(now);
        }
        if online.upkeep_at.is_some_and(|at| at <= now.mono) {
            return self.upkeep(now);
        }
        if online.pong_until.is_some_and(|until| until <= now.mono) {
            if !reading {
                // Nobody reads the socket, so nothing is known about the server.
                online.pong_until = Some(now.mono.saturating_add(timeout));
                return;
            }
            online.misses = online.misses.saturating_add(1);
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
            online.next_ping = now.mono.saturating_add(pause);
            online.pong_until.get_or_insert_with(|| now.mono.saturating_add(timeout));
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
        from.saturating_add(Duration::from_millis(self.rng.next_u64() % span.saturating_add(1)))
    }
}

pub(super) fn log_failure(what: &str, error: Option<QueryError>) {
    if let Some(error) = error {
        tracing::warn!(%error, "{what} failed");
    }
}
