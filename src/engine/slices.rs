//! Curve work for many devices at once goes out in slices, so that no step of the engine takes longer than some milliseconds
//! and other chats go on meanwhile.
//!
//! ```text
//!                  ┌─ few: all in one step ──────────────────────────────────────────┐
//!   answer ──► slice of 32 ──► read what the work needs ──► job on the pool ──► write its results ──► whoever waited goes on
//!                  ▲   (parked until it is loaded)              │        (parked likewise)   │
//!                  └───────────── given again ◄── no result in time, or what it rested on has changed
//! ```
//!
//! At most [`MAX_COMPUTING`] slices of an account are with the pool at a time; the others wait for their turn. A slice needs no
//! connection: its results are good whatever became of the one that its question went out on. A job whose result does not come
//! is given up after [`PATIENCE`], and what waited for it goes on without. When the store fails or the account is gone, nothing
//! is left of any slice, and late results are dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Engine, Job, Output, Queued};
use crate::{
    clock::Now,
    engine::{
        cpu::{Computed, CpuId, CpuJob},
        devices::{CheckedLists, Lists},
        send::{PreparedSessions, Sessions, Started},
        step::{Miss, Step},
    },
    jid::Jid,
};

/// Most devices or users of a slice.
pub(crate) const SLICE: usize = 32;
/// Up to so many are done at once, in the step that reads what they need.
const INLINE: usize = 4;
/// How many slices of one account the pool has at a time.
const MAX_COMPUTING: usize = 4;
/// How long a result is waited for. A pool that is so far behind has other troubles.
const PATIENCE: Duration = Duration::from_secs(60);

/// What there is to do, for at most [`SLICE`] devices or users.
#[derive(Debug)]
pub(crate) enum Work {
    /// Signed device lists are checked and taken.
    Lists(Lists),
    /// Sessions are started.
    Sessions(Sessions),
}

/// What a job made.
#[derive(Debug)]
pub(crate) enum Results {
    Lists(CheckedLists),
    Sessions(PreparedSessions),
}

/// What the results led to.
#[derive(Debug)]
pub(crate) enum Done {
    Lists,
    Sessions(Started),
    /// There are no results.
    Nothing,
}

impl Work {
    fn len(&self) -> usize {
        match self {
            Self::Lists(lists) => lists.len(),
            Self::Sessions(sessions) => sessions.len(),
        }
    }

    /// Reads what the work needs, and what its results will be written over.
    fn job(&self, step: &mut Step<'_>) -> Result<CpuJob, Miss> {
        Ok(match self {
            Self::Lists(lists) => lists.job(step)?.into(),
            Self::Sessions(sessions) => sessions.job(step)?.into(),
        })
    }

    fn finish(&self, step: &mut Step<'_>, results: &Results) -> Result<Done, Miss> {
        match (self, results) {
            (Self::Lists(lists), Results::Lists(checked)) => lists.finish(step, checked).map(|()| Done::Lists),
            (Self::Sessions(sessions), Results::Sessions(prepared)) => {
                sessions.finish(step, prepared).map(Done::Sessions)
            }
            // The results of another kind of work are none.
            _ => Ok(Done::Nothing),
        }
    }
}

impl Results {
    fn of(computed: Computed) -> Option<Self> {
        match computed {
            Computed::Lists(lists) => Some(Self::Lists(lists)),
            Computed::Sessions(sessions) => Some(Self::Sessions(sessions)),
            Computed::CodeKey(_) | Computed::Keys(_) => None,
        }
    }
}

#[derive(Debug)]
enum Stage {
    /// Its turn has not come, or it waits for the records that the work needs.
    Waiting { parked: bool },
    /// The pool has it.
    Computing { job: CpuId, until: Duration },
    /// Waits for the records that the results are written over.
    Computed(Results),
}

#[derive(Debug)]
struct Slice {
    work: Work,
    stage: Stage,
    /// How often what it rested on changed.
    again: u8,
}

impl Slice {
    /// It is under way.
    fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Waiting { parked: false })
    }
}

/// All slices that are not done.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    open: BTreeMap<u64, Slice>,
    next: u64,
}

impl Slices {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Whether the devices of a user are being taken.
    pub(crate) fn has_list_of(&self, user: &Jid) -> bool {
        self.open.values().any(|slice| matches!(&slice.work, Work::Lists(lists) if lists.has(user)))
    }

    /// The devices with which sessions are being started.
    pub(crate) fn devices(&self) -> BTreeSet<Jid> {
        let sessions = self.open.values().filter_map(|slice| match &slice.work {
            Work::Sessions(sessions) => Some(sessions),
            Work::Lists(_) => None,
        });
        sessions.flat_map(|sessions| sessions.asked.iter().cloned()).collect()
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        let deadlines = self.open.values().filter_map(|slice| match slice.stage {
            Stage::Computing { until, .. } => Some(until),
            _ => None,
        });
        deadlines.min()
    }
}

/// How often a slice is given again before what waits for it goes on without.
const MAX_AGAIN: u8 = 2;

impl Engine {
    /// Begins work: what is little at once, the rest when its turn comes.
    pub(super) fn begin_slices(&mut self, now: Now, works: impl IntoIterator<Item = Work>) {
        for work in works {
            let is_little = work.len() <= INLINE;
            let id = self.add_slice(work, 0);
            if is_little {
                self.go_on_with_slice(now, id);
            }
        }
        self.start_slices(now);
    }

    fn add_slice(&mut self, work: Work, again: u8) -> u64 {
        let id = self.slices.next;
        self.slices.next += 1;
        self.slices.open.insert(id, Slice { work, stage: Stage::Waiting { parked: false }, again });
        id
    }

    /// Lets as many slices run as may.
    fn start_slices(&mut self, now: Now) {
        loop {
            let busy = self.slices.open.values().filter(|slice| slice.is_busy()).count();
            let next = self.slices.open.iter().find(|(_, slice)| !slice.is_busy()).map(|(id, _)| *id);
            let Some(next) = next.filter(|_| busy < MAX_COMPUTING) else { return };
            self.go_on_with_slice(now, next);
        }
    }

    /// The records of a slice are loaded.
    pub(super) fn run_slice(&mut self, now: Now, id: u64) {
        self.go_on_with_slice(now, id);
        self.start_slices(now);
    }

    /// Goes on with a slice as far as its records allow.
    fn go_on_with_slice(&mut self, now: Now, id: u64) {
        let Some(mut slice) = self.slices.open.remove(&id) else { return };
        let done = match &slice.stage {
            Stage::Computing { .. } => {
                self.slices.open.insert(id, slice);
                return;
            }
            Stage::Computed(results) => self.step(now, |step| slice.work.finish(step, results)),
            Stage::Waiting { .. } if slice.work.len() <= INLINE => self.step(now, |step| {
                let computed = slice.work.job(step)?.run().0;
                Results::of(computed).map_or(Ok(Done::Nothing), |results| slice.work.finish(step, &results))
            }),
            Stage::Waiting { .. } => match self.step(now, |step| slice.work.job(step)) {
                Err(needs) => Err(needs),
                Ok(job) => {
                    let cpu = CpuId(self.next_cpu);
                    self.next_cpu += 1;
                    self.gate.push_free(Queued::Output(Output::Cpu(cpu, job)));
                    slice.stage = Stage::Computing { job: cpu, until: now.mono.saturating_add(PATIENCE) };
                    self.slices.open.insert(id, slice);
                    return;
                }
            },
        };
        match done {
            Err(needs) => {
                if let Stage::Waiting { parked } = &mut slice.stage {
                    *parked = true;
                }
                self.slices.open.insert(id, slice);
                self.park(Job::Slice(id), needs);
            }
            Ok(done) => self.slice_done(now, slice, done),
        }
    }

    /// The pool has done a job.
    pub(super) fn slice_computed(&mut self, now: Now, job: CpuId, computed: Computed) {
        let of_job = |slice: &Slice| matches!(slice.stage, Stage::Computing { job: waited, .. } if waited == job);
        let Some((id, slice)) = self.slices.open.iter_mut().find(|(_, slice)| of_job(slice)) else { return };
        let Some(results) = Results::of(computed) else { return };
        slice.stage = Stage::Computed(results);
        let id = *id;
        self.run_slice(now, id);
    }

    /// Gives up the slices whose results do not come.
    pub(super) fn expire_slices(&mut self, now: Now) {
        let late = |slice: &Slice| matches!(slice.stage, Stage::Computing { until, .. } if until <= now.mono);
        let late: Vec<_> = self.slices.open.extract_if(.., |_, slice| late(slice)).collect();
        for (_, slice) in late {
            tracing::error!("work for the pool was not done in time");
            self.slice_done(now, slice, Done::Nothing);
        }
        self.start_slices(now);
    }

    /// Whoever waited for a slice goes on.
    fn slice_done(&mut self, now: Now, slice: Slice, done: Done) {
        match (slice.work, done) {
            (Work::Lists(lists), Done::Lists) => self.lists_taken(now, &lists),
            (Work::Lists(lists), _) => self.lists_missing(now, &lists),
            (Work::Sessions(mut sessions), Done::Sessions(started)) => {
                match sessions.split_off(&started.again) {
                    Some(rest) if slice.again < MAX_AGAIN => {
                        let again = slice.again + 1;
                        self.add_slice(Work::Sessions(rest), again);
                    }
                    Some(rest) => self.sessions_started(now, &rest.asked, &BTreeSet::new()),
                    None => {}
                }
                self.sessions_started(now, &sessions.asked, &started.with);
            }
            (Work::Sessions(sessions), _) => self.sessions_started(now, &sessions.asked, &BTreeSet::new()),
        }
    }
}
