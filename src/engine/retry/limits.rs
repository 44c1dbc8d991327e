//! How many resends are asked for in a minute: a storm of messages that cannot be read must not become a storm of ours.
//!
//! What is above the limit is acknowledged and not asked for here; the phone may have it. Logged once a minute, as a number.

use std::{collections::BTreeMap, time::Duration};

use crate::jid::Jid;

/// The span in which requests are counted.
const SPAN: Duration = Duration::from_secs(60);
/// Requests to the devices of one user.
const MAX_PER_USER: u32 = 60;
/// Requests to anybody.
const MAX_PER_ACCOUNT: u32 = 300;

/// The requests of the current span, which begins with its first one. At most [`MAX_PER_ACCOUNT`] users.
#[derive(Debug, Default)]
pub(super) struct Limits {
    since: Duration,
    total: u32,
    by_user: BTreeMap<Jid, u32>,
    refused: u64,
}

impl Limits {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= SPAN
    }

    /// Whether one more request to this user may leave.
    pub(super) fn allow(&self, now: Duration, user: &Jid) -> bool {
        let of_user = self.by_user.get(user).copied().unwrap_or(0);
        self.is_over(now) || (self.total < MAX_PER_ACCOUNT && of_user < MAX_PER_USER)
    }

    /// A request to this user leaves.
    pub(super) fn asked(&mut self, now: Duration, user: Jid) {
        self.expire(now);
        self.begin(now);
        self.total = self.total.saturating_add(1);
        let of_user = self.by_user.entry(user).or_default();
        *of_user = of_user.saturating_add(1);
    }

    /// A request does not leave.
    pub(super) fn too_many(&mut self, now: Duration) {
        self.expire(now);
        self.begin(now);
        self.refused = self.refused.saturating_add(1);
    }

    fn begin(&mut self, now: Duration) {
        if self.total == 0 && self.refused == 0 {
            self.since = now;
        }
    }

    /// Ends a span that is over.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.total == 0 && self.refused == 0 || !self.is_over(now) {
            return;
        }
        if self.refused > 0 {
            tracing::warn!(asked = self.total, not_asked = self.refused, "too many messages cannot be read");
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_user_and_an_account_have_limits_that_end() {
        let mut limits = Limits::default();
        let user = |n: u32| Jid::lid(n.to_string());
        for n in 0..MAX_PER_USER {
            assert!(limits.allow(second(1_000), &user(0)), "{n}");
            limits.asked(second(1_000), user(0));
        }
        assert!(!limits.allow(second(1_059), &user(0)) && limits.allow(second(1_059), &user(1)));
        for n in MAX_PER_USER..MAX_PER_ACCOUNT {
            limits.asked(second(1_001), user(n));
        }
        assert!(!limits.allow(second(1_059), &user(1)));
        assert!(limits.allow(second(1_060), &user(0)));
        limits.asked(second(1_060), user(0));
        assert_eq!((limits.total, limits.by_user.len()), (1, 1));
    }

    #[test]
    fn what_is_not_asked_is_counted_for_a_minute() {
        let mut limits = Limits::default();
        limits.too_many(second(5));
        limits.too_many(second(64));
        assert_eq!(limits.refused, 2);
        limits.expire(second(64));
        assert_eq!(limits.refused, 2);
        limits.expire(second(65));
        assert_eq!(limits.refused, 0);
    }
}
