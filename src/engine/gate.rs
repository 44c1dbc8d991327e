//! The gate: outputs that depend on a batch wait here until the batch is durable.
//!
//! ```text
//!             after ≤ durable
//!   push ───────────────────────► ready ──► poll
//!     │ after > durable              ▲
//!     └───────────► held ────────────┘ durable(seq)
//! ```
//!
//! Outputs leave in the order in which they were pushed, except that a free one may overtake a held one.

use std::collections::VecDeque;

/// Outputs of type `T`, in two queues.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    durable: u64,
    ready: VecDeque<T>,
    held: VecDeque<(u64, T)>,
}

impl<T> Gate<T> {
    pub(crate) const fn new() -> Self {
        Self { durable: 0, ready: VecDeque::new(), held: VecDeque::new() }
    }

    /// Number of the newest batch that is durable.
    pub(crate) const fn durable(&self) -> u64 {
        self.durable
    }

    /// An output that depends on nothing.
    pub(crate) fn push_free(&mut self, output: T) {
        self.ready.push_back(output);
    }

    /// An output that may leave once batch `after` is durable. Batch numbers never go down from call to call.
    pub(crate) fn push_after(&mut self, after: u64, output: T) {
        if after <= self.durable {
            self.ready.push_back(output);
        } else {
            self.held.push_back((after, output));
        }
    }

    /// The store has every batch up to `seq`.
    pub(crate) fn release(&mut self, seq: u64) {
        self.durable = self.durable.max(seq);
        while let Some((after, output)) = self.held.pop_front() {
            if after > self.durable {
                self.held.push_front((after, output));
                break;
            }
            self.ready.push_back(output);
        }
    }

    /// The next output that may leave.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    /// Everything that may leave, in order.
    pub(crate) fn take_ready(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.ready)
    }

    /// The next output, when it satisfies the condition.
    pub(crate) fn pop_if(&mut self, condition: impl FnOnce(&T) -> bool) -> Option<T> {
        match self.ready.front() {
            Some(output) if condition(output) => self.ready.pop_front(),
            _ => None,
        }
    }

    /// Everything that may not leave yet, in order.
    pub(crate) fn take_held(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.held).into_iter().map(|(_, output)| output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(gate: &mut Gate<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| gate.pop()).collect()
    }

    #[test]
    fn nothing_leaves_before_its_batch() {
        let mut gate = Gate::new();
        gate.push_after(1, "ack 1");
        gate.push_after(2, "ack 2");
        gate.push_free("ping");
        assert_eq!(drain(&mut gate), ["ping"]);
        gate.release(1);
        assert_eq!(drain(&mut gate), ["ack 1"]);
        gate.push_after(1, "late");
        assert_eq!(drain(&mut gate), ["late"]);
        gate.release(2);
        assert_eq!(drain(&mut gate), ["ack 2"]);
    }
}
