//! Messages that come later than they were sent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::Core;
use crate::directory::Address;
use crate::queue::Entry;
use crate::routing;

/// What is due when, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late {
    entries: BTreeMap<(Duration, u64), (Address, Entry)>,
    count: u64,
}

impl Late {
    pub(crate) fn push(&mut self, at: Duration, address: Address, entry: Entry) {
        self.count = self.count.wrapping_add(1);
        self.entries.insert((at, self.count), (address, entry));
    }

    /// When the next one is due, on the monotonic clock.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.entries.keys().next().map(|(at, _)| *at)
    }

    fn take_due(&mut self, now: Duration) -> Option<(Address, Entry)> {
        self.deadline().filter(|at| *at <= now)?;
        self.entries.pop_first().map(|(_, due)| due)
    }
}

/// Delivers what is due.
pub(crate) fn deliver(core: &mut Core) {
    while let Some((address, entry)) = core.late.take_due(core.now.mono) {
        routing::hand_over(core, address, entry);
    }
}
