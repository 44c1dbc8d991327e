//! The gate: outputs that depend on a batch wait here until the batch is durable.
//!
//! ```text
//!             after ≤ durable
//!   push ───────────────────────► ready ──► poll
//!     │ after > durable              ▲
//!     └───────────► held ────────────┘ durable(seq)
//! ```
//!
//! Outputs leave in the order in which they were pushed, with two exceptions: one that waits for less may overtake one that waits
//! for more, and the caller may [pick](Gate::pick) one from behind others.

use std::collections::VecDeque;

/// How many outputs one can be picked from behind: a queue of any length costs the same.
const LOOKAHEAD: usize = 64;

/// What becomes of an output that waits, when others behind it are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// It leaves now.
    Take,
    /// It waits, and the next is looked at.
    Pass,
    /// Nothing behind it may leave before it.
    Stop,
}

/// Outputs of type `T`, in two queues.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    durable: u64,
    ready: VecDeque<T>,
    /// By batch, and for one batch in the order in which they came.
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

    /// An output that may leave once batch `after` is durable, behind all that wait for this one or for earlier ones.
    pub(crate) fn push_after(&mut self, after: u64, output: T) {
        if after <= self.durable {
            self.ready.push_back(output);
        } else {
            // Mostly the newest batch.
            let place = match self.held.back() {
                Some((newest, _)) if *newest > after => self.held.partition_point(|(held, _)| *held <= after),
                _ => self.held.len(),
            };
            self.held.insert(place, (after, output));
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

    /// Changes what may leave, as a whole.
    pub(crate) fn rewrite(&mut self, change: impl FnOnce(VecDeque<T>) -> VecDeque<T>) {
        self.ready = change(std::mem::take(&mut self.ready));
    }

    /// Takes the first output that `judge` wants from behind those that it lets wait. `passed` counts the latter: begin with
    /// 0, and give it again to look for the next one. At most [`LOOKAHEAD`] are passed.
    pub(crate) fn pick(&mut self, passed: &mut usize, judge: impl Fn(&T) -> Pick) -> Option<T> {
        while *passed <= LOOKAHEAD {
            match judge(self.ready.get(*passed)?) {
                Pick::Take => return self.ready.remove(*passed),
                Pick::Pass => *passed += 1,
                Pick::Stop => break,
            }
        }
        None
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
    fn what_may_wait_is_passed_and_stays_in_order() {
        let mut gate = Gate::new();
        ["event 1", "frame 1", "event 2", "frame 2", "close", "frame 3"]
            .into_iter()
            .for_each(|output| gate.push_free(output));
        gate.push_after(1, "frame 4");
        let judge = |output: &&str| match &output[..5] {
            "frame" => Pick::Take,
            "event" => Pick::Pass,
            _ => Pick::Stop,
        };
        let mut passed = 0;
        let picked: Vec<_> = std::iter::from_fn(|| gate.pick(&mut passed, judge)).collect();
        assert_eq!((picked, passed), (vec!["frame 1", "frame 2"], 2));
        assert_eq!(drain(&mut gate), ["event 1", "event 2", "close", "frame 3"]);

        (0..LOOKAHEAD).for_each(|_| gate.push_free("event"));
        gate.push_free("frame");
        assert_eq!(gate.pick(&mut 0, judge), Some("frame"));
        gate.push_free("event");
        gate.push_free("frame");
        assert_eq!(gate.pick(&mut 0, judge), None, "too far behind");
        assert_eq!(drain(&mut gate).len(), LOOKAHEAD + 2);
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

    #[test]
    fn what_waits_for_less_overtakes_and_stays_in_order() {
        let mut gate = Gate::new();
        for (after, output) in [(2, "reply 2"), (3, "reply 3"), (2, "frame 2"), (1, "frame 1"), (2, "last 2")] {
            gate.push_after(after, output);
        }
        gate.release(1);
        assert_eq!(drain(&mut gate), ["frame 1"]);
        gate.release(2);
        assert_eq!(drain(&mut gate), ["reply 2", "frame 2", "last 2"]);
        gate.release(3);
        assert_eq!(drain(&mut gate), ["reply 3"]);
    }
}
