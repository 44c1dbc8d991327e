//! Time as an argument. Machines without I/O never read a clock; whoever drives them says what time it is.

use std::time::Duration;

/// One reading of both clocks, taken by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since an arbitrary start of the driver. Deadlines are measured on it.
    pub mono: Duration,
    /// Wall clock in milliseconds since the Unix epoch. Timestamps of stanzas and events come from it.
    pub wall_ms: u64,
}

impl Now {
    /// Wall clock in whole seconds since the Unix epoch.
    pub const fn unix_seconds(&self) -> u64 {
        self.wall_ms / 1_000
    }
}
