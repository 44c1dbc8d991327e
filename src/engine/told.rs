//! Which state the application was told last, also when the store forgets an event.
//!
//! The session's state is that of the last event (spec 07 §3). An event is out when its batch is durable; if the store
//! fails before that, the event is gone, and the state is again what it was before it.

use std::collections::VecDeque;

use crate::event::SessionState;

/// The state of an event whose batch may not be durable.
#[derive(Debug)]
struct Waiting {
    batch: u64,
    /// Number of the event; an ephemeral one has none.
    seq: Option<u64>,
    state: SessionState,
}

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    state: SessionState,
    durable: SessionState,
    waiting: VecDeque<Waiting>,
    /// Events of which only the store knows whether they are durable: it failed.
    doubtful: Vec<(u64, SessionState)>,
}

impl Told {
    /// The state of the newest event.
    pub(crate) const fn state(&self) -> SessionState {
        self.state
    }

    /// The state before any event.
    pub(crate) const fn begin(&mut self, state: SessionState) {
        self.state = state;
        self.durable = state;
    }

    /// An event of a batch tells a state.
    pub(crate) fn follow(&mut self, batch: u64, seq: Option<u64>, state: SessionState) {
        self.state = state;
        self.waiting.push_back(Waiting { batch, seq, state });
    }

    /// The store has every batch up to this one.
    pub(crate) fn release(&mut self, batch: u64) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.batch <= batch) {
            self.durable = waiting.state;
        }
    }

    /// The store failed: what is not durable was not told.
    pub(crate) fn fail(&mut self) {
        self.state = self.durable;
        self.doubtful.extend(self.waiting.drain(..).filter_map(|waiting| Some((waiting.seq?, waiting.state))));
    }

    /// The outbox holds every event up to this one.
    pub(crate) fn restore(&mut self, last: u64) {
        for (seq, state) in std::mem::take(&mut self.doubtful) {
            if seq <= last {
                self.begin(state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SessionState::{Connected, Connecting, Disconnected, Pending};

    #[test]
    fn what_the_store_forgot_was_not_told() {
        let mut told = Told::default();
        told.follow(1, Some(1), Connecting);
        told.follow(2, Some(2), Connected);
        told.follow(2, None, Pending);
        told.follow(3, Some(3), Disconnected);
        assert_eq!(told.state(), Disconnected);
        told.release(1);
        told.fail();
        assert_eq!(told.state(), Connecting);
        // The second batch had arrived after all.
        told.restore(2);
        assert_eq!(told.state(), Connected);
        told.restore(3);
        assert_eq!(told.state(), Connected);
    }
}
