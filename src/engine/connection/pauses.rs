//! How long to wait before the next dial, and how many dials there may be.
//!
//! | class | why a connection ended | first pause | then |
//! |---|---|---|---|
//! | [`Network`](Class::Network) | closed, timed out, damaged, a handshake that failed | 1 s | 1, 2, 3, 5, 8 … |
//! | [`Server`](Class::Server) | the server has an error of its own, goes away, or says what nobody knows | 2 s | 3, 5, 8, 13 … |
//! | [`Refused`](Class::Refused) | a login refused for now, certificates that are not trusted, a stanza of ours that was not well formed | 8 s | 13, 21, 34 … |
//! | [`RateLimited`](Class::RateLimited) | 429 | five steps on | as the others, and standing does not count this time |
//!
//! All classes share one row, which never goes back to an earlier step before a connection stood for
//! [`STABLE_AFTER`]. Pauses are ±10 %, and at most [`Config::max_backoff`](crate::engine::Config::max_backoff).

use std::{collections::VecDeque, time::Duration};

/// How long a connection must stand before the next loss starts the row of pauses again (spec 01 §6.13).
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How many steps a rate limit advances the row of pauses (spec 01 §6.4).
const RATE_LIMIT_STEPS: u32 = 5;

/// What kind of trouble ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Network,
    Server,
    Refused,
    RateLimited,
}

impl Class {
    /// The step of the row that the first loss of this class leads to at least.
    const fn first_step(self) -> u32 {
        match self {
            Self::Network | Self::RateLimited => 1,
            Self::Server => 3,
            Self::Refused => 6,
        }
    }
}

/// Where the account stands in the row of pauses.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Dials since the session was last connected.
    pub(super) dials: u32,
    /// The step that the last loss led to; 0 after a connection that stood.
    pub(super) step: u32,
    /// The application knows of this outage.
    pub(super) told: bool,
}

impl Row {
    /// The number of the dial that comes next, from 1.
    pub(super) const fn next_dial(&self) -> u32 {
        self.dials.saturating_add(1)
    }

    /// A connection ended: goes on in the row, and gives the pause without jitter.
    pub(super) fn lost(&mut self, class: Class, max: Duration) -> Duration {
        let further = match class {
            Class::RateLimited => 1 + RATE_LIMIT_STEPS,
            _ => 1,
        };
        self.step = self.step.saturating_add(further).max(class.first_step());
        pause(self.step, max)
    }
}

/// The pause of a step, from 1.
fn pause(step: u32, max: Duration) -> Duration {
    let (mut current, mut next) = (1u64, 1u64);
    for _ in 1..step {
        if current >= max.as_secs() {
            break;
        }
        (current, next) = (next, current.saturating_add(next));
    }
    Duration::from_secs(current).min(max)
}

/// At most so many in any span of time.
#[derive(Debug)]
pub(crate) struct Window {
    max: usize,
    span: Duration,
    times: VecDeque<Duration>,
}

impl Window {
    /// At most `max` (but at least one) in any `span`.
    pub(crate) fn new(max: u32, span: Duration) -> Self {
        Self { max: usize::try_from(max).unwrap_or(usize::MAX).max(1), span, times: VecDeque::new() }
    }

    /// From when on there is room for one more: now, or later.
    pub(crate) fn free_at(&self, now: Duration) -> Duration {
        let first = self.times.len().checked_sub(self.max).and_then(|index| self.times.get(index));
        first.map_or(now, |first| first.saturating_add(self.span).max(now))
    }

    /// One happens now.
    pub(crate) fn note(&mut self, now: Duration) {
        while self.times.front().is_some_and(|first| first.saturating_add(self.span) <= now) {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }

    /// Whether the next one would have to wait.
    pub(crate) fn is_full(&self, now: Duration) -> bool {
        self.free_at(now) > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(900);

    #[test]
    fn pauses_grow_like_fibonacci_up_to_the_limit() {
        let pauses: Vec<u64> = (1..20).map(|step| pause(step, MAX).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 900, 900, 900, 900]);
        assert_eq!(pause(u32::MAX, MAX), MAX);
        assert_eq!(pause(u32::MAX, Duration::MAX), Duration::from_secs(u64::MAX));
        assert_eq!(pause(1, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn every_class_has_its_place_in_the_row() {
        let pauses = |classes: &[Class]| {
            let mut row = Row::default();
            classes.iter().map(|class| row.lost(*class, MAX).as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(&[Class::Network; 6]), [1, 1, 2, 3, 5, 8]);
        assert_eq!(pauses(&[Class::Server; 4]), [2, 3, 5, 8]);
        assert_eq!(pauses(&[Class::Refused; 3]), [8, 13, 21]);
        assert_eq!(pauses(&[Class::RateLimited; 2]), [8, 144]);
        // None starts the row again.
        assert_eq!(pauses(&[Class::Refused, Class::Network, Class::Server]), [8, 13, 21]);
        let mut row = Row { step: u32::MAX, ..Row::default() };
        assert_eq!(row.lost(Class::RateLimited, MAX), MAX);
    }

    #[test]
    fn a_window_is_full_and_empties() {
        let second = Duration::from_secs;
        let mut window = Window::new(2, second(60));
        assert_eq!(window.free_at(second(5)), second(5));
        window.note(second(5));
        window.note(second(10));
        assert_eq!(window.free_at(second(20)), second(65));
        assert!(window.is_full(second(64)) && !window.is_full(second(65)));
        window.note(second(65));
        assert_eq!(window.free_at(second(65)), second(70));
        assert_eq!(window.times.len(), 2);
        // None at all would be never.
        assert!(!Window::new(0, second(60)).is_full(second(0)));
    }
}
