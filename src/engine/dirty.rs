//! Areas of server state that changed while we were away (spec 01 §6.6): told, fetched again, and reported as clean.
//!
//! | area | what is kept of it | reported as clean |
//! |---|---|---|
//! | `account_sync` | the own list of devices, which is forgotten | at once |
//! | `groups`, `communities` | what groups are, which is asked for again when it is needed | when the backlog is through, or 60 s after the login |
//! | `newsletter_metadata` | nothing | the same |
//! | `syncd_app_state` and unknown ones | | not at all: what was not fetched is not clean |
//!
//! There is one report per area at a time, so the server decides neither how many are under way nor what is remembered.

use std::{collections::BTreeMap, time::Duration};

use super::Engine;
use crate::{
    clock::Now,
    engine::{
        devices, groups,
        login::log_failure,
        notices,
        queries::{Query, QueryError},
    },
    stanza::iq::session,
};

/// How long the end of the backlog is waited for (spec 01 §6.8).
const BACKLOG_WAIT: Duration = Duration::from_secs(60);
/// Longest name of an area that is told, in characters.
const MAX_KIND: usize = 64;

/// An area that is reported as clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Area {
    AccountSync,
    Groups,
    Communities,
    NewsletterMetadata,
}

impl Area {
    const ALL: [Self; 4] = [Self::AccountSync, Self::Groups, Self::Communities, Self::NewsletterMetadata];

    const fn as_str(self) -> &'static str {
        match self {
            Self::AccountSync => "account_sync",
            Self::Groups => "groups",
            Self::Communities => "communities",
            Self::NewsletterMetadata => "newsletter_metadata",
        }
    }

    fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|area| area.as_str() == kind)
    }

    /// Whether it waits for the end of the backlog.
    fn waits(self) -> bool {
        self != Self::AccountSync
    }
}

/// What is dirty on this connection.
#[derive(Debug)]
pub(crate) struct Dirty {
    /// The newest timestamp of each.
    areas: BTreeMap<Area, u64>,
    /// When the backlog counts as through; absent when it is.
    backlog_until: Option<Duration>,
}

impl Dirty {
    pub(crate) const fn new(now: Duration) -> Self {
        Self { areas: BTreeMap::new(), backlog_until: Some(now.saturating_add(BACKLOG_WAIT)) }
    }

    /// When the backlog counts as through, if it does not yet.
    pub(crate) const fn backlog_until(&self) -> Option<Duration> {
        self.backlog_until
    }

    /// When the waiting areas are reported, whatever the backlog does.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.backlog_until.filter(|_| self.areas.keys().any(|area| area.waits()))
    }

    /// An area that can be reported now.
    fn ready(&self, is_under_way: impl Fn(Area) -> bool) -> Option<Area> {
        let mut areas = self.areas.keys().copied();
        areas.find(|area| {
            let must_wait = area.waits() && self.backlog_until.is_some();
            !must_wait && !is_under_way(*area)
        })
    }
}

impl Engine {
    /// The server says that an area changed.
    pub(super) fn dirty(&mut self, now: Now, kind: &str, timestamp: Option<u64>) {
        let area = Area::of(kind);
        self.emit(now, notices::dirty(kind.chars().take(MAX_KIND).collect(), timestamp));
        if area == Some(Area::AccountSync) {
            self.act(now, devices::forget_own);
        }
        if matches!(area, Some(Area::Groups | Area::Communities)) {
            self.act(now, groups::all_changed);
        }
        if let (Some(area), Some(timestamp), Some(online)) = (area, timestamp, self.connection.online()) {
            online.dirty.areas.insert(area, timestamp);
            self.clean(now);
        }
    }

    /// The backlog is through, or does not come to an end.
    pub(super) fn backlog_is_over(&mut self, now: Now) {
        if let Some(online) = self.connection.online() {
            online.dirty.backlog_until = None;
            self.clean(now);
            self.refill_after_backlog(now);
        }
    }

    /// The server took a report, or did not: that it is dirty still comes with the next login then.
    pub(super) fn cleaned(&mut self, now: Now, area: Area, result: Result<(), QueryError>) {
        log_failure(area.as_str(), result.err());
        self.clean(now);
    }

    /// Reports what can be reported.
    fn clean(&mut self, now: Now) {
        while let Some(online) = self.connection.online() {
            let under_way = |area| self.queries.any(|query| matches!(query, Query::Clean(asked) if *asked == area));
            let Some(area) = online.dirty.ready(under_way) else { return };
            let Some(timestamp) = online.dirty.areas.remove(&area) else { return };
            // What was forgotten must be so for good before the server is told.
            let id = self.queries.ask(Query::Clean(area), now.mono.saturating_add(self.config.query_timeout));
            let report = session::clean(area.as_str(), timestamp).attr("id", id);
            self.act(now, |step| step.send(&report));
        }
    }
}
