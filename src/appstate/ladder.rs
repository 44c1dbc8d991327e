//! What happens next with a collection: the way from a trigger to a state that is up to date, and what is tried when it is
//! not to be had (spec 05 §A7). It decides, and carries nothing out.
//!
//! ```text
//!            wanted, notified, dirty                     answer applied, nothing more
//!   Idle ───────────────────────────► Asking ───────────────────────────────────────► Idle, or the changes that wait
//!    ▲                                 │ ▲ └─ has_more, and the version advanced ─► Asking    (at most 500 times)
//!    │                                 │ │
//!    │ 6 h                             │ ├─ keys are missing ──► Blocked ─ they came ─► Asking      (7 days)
//!   Stopped ◄── nothing is left ───────┤ ├─ transient error ───► Waiting ─ 1 s … 1 h ─► Asking      (2 days)
//!                                      │ └─ unusable, mismatch, 400, 404 ─► dropped, a snapshot is asked for (once)
//!                                      └─ that is unusable, too ─────────► AskingPhone (once) ─► Asking
//! ```
//!
//! **Every way is finite.** Each of the counters that bound it starts anew only when the collection was brought up to date, or
//! when what stopped it is six hours ago. That a mismatch is fetched anew only once, over restarts, too, is in the stored
//! [`Trust`](super::Trust).
//!
//! Changes that are commanded wait here as a flag; the changes are records of the caller, which builds a patch from them and the
//! current state whenever it is told [`Do::Upload`].

use std::time::Duration;

use smallvec::SmallVec;

use super::{AppStateError, KeyId};
use crate::clock::Now;

/// Most answers with `has_more_patches` in a row (spec 05 §A7.2).
pub const MAX_ROUNDS: u16 = 500;
/// Most conflicts in a row before changes are given up.
pub const MAX_CONFLICTS: u8 = 5;
/// How long a key may be waited for.
pub const KEY_PATIENCE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// After this time without a key from the phone, all own devices are asked (spec 05 §A2.4).
pub const ASK_ALL_AFTER: Duration = Duration::from_secs(10);
/// How often a key is asked for.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// The longest pause between attempts after transient errors; the first is a second, and each is twice the one before.
pub const MAX_PAUSE: Duration = Duration::from_secs(3_600);
/// How long transient errors are borne.
pub const PATIENCE: Duration = Duration::from_secs(2 * 24 * 3_600);
/// How long the phone may take to send a snapshot.
pub const PHONE_PATIENCE: Duration = Duration::from_secs(600);
/// How long a collection that stopped is left alone.
pub const STOPPED_FOR: Duration = Duration::from_secs(6 * 3_600);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// There is a connection that is logged in.
    Connected,
    /// There is none any more. What was asked is not answered.
    Disconnected,
    /// The collection is wanted: after linking, for `dirty`, by command.
    Wanted,
    /// The server says that this version is there.
    Notified(u64),
    /// A change was accepted, and waits to be sent.
    Commanded,
    /// The server took the patch that was sent.
    Uploaded,
    /// All of an answer was applied; the local version now, and whether there is more. A collection without anything new, and
    /// one that the answer does not name, count as applied.
    Applied {
        /// The local version.
        version: u64,
        /// Whether the server has more.
        more: bool,
    },
    /// A patch of an answer was not applied. What came before it was.
    PatchRefused(AppStateError),
    /// The snapshot of an answer was not applied.
    SnapshotRefused(AppStateError),
    /// The server refused the collection with this code. The patches that came with a conflict were applied.
    ServerRefused {
        /// The code.
        code: u32,
        /// How many patches were applied.
        applied: usize,
    },
    /// The query failed or timed out, or a blob could not be fetched.
    Failed,
    /// A key share arrived.
    KeysArrived,
    /// The snapshot that the phone was asked for was applied, or could not be.
    PhoneAnswered {
        /// Whether it was applied.
        applied: bool,
    },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Do {
    /// Ask the server: for what is newer than the local version, or for a snapshot when there is no local state.
    Query,
    /// Build a patch from the changes that wait, on the local state, and send it.
    Upload,
    /// Drop the local state. With `mismatch`, what is left is [`CollectionState::dropped_for_mismatch`](super::CollectionState::dropped_for_mismatch).
    Drop {
        /// Whether a MAC over the collection did not match.
        mismatch: bool,
    },
    /// Ask the phone, or all own devices, for keys.
    AskKeys {
        /// Which.
        ids: Vec<KeyId>,
        /// Not the phone alone.
        all_devices: bool,
    },
    /// Ask the phone for a snapshot (spec 05 §A7.8).
    AskPhone,
    /// The collection is up to date: `appstate.synced`.
    Synced,
    /// It cannot be brought up to date: `appstate.failed`.
    Failed(Failure),
    /// The changes that wait are given up.
    DropChanges(Failure),
}

/// Why a collection is given up for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// What the server has cannot be used, and the phone has not helped.
    Unusable,
    /// Keys did not come.
    Keys,
    /// The server did not answer for two days.
    Unreachable,
    /// The server always has more, or always a newer version than our changes.
    Endless,
}

/// What is to be done, in its order.
pub type Steps = SmallVec<[Do; 2]>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Asking { upload: bool },
    Blocked { missing: Vec<KeyId>, since: u64, next: u64 },
    Waiting { until: Duration },
    AskingPhone { until: Duration },
    Stopped { until: u64 },
}

/// Where a collection is on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    phase: Phase,
    online: bool,
    /// Wanted again while something was under way, or without a connection.
    wanted: bool,
    unsent: bool,
    rounds: u16,
    conflicts: u8,
    failures: u32,
    /// When the failures began, unix milliseconds.
    failing_since: Option<u64>,
    /// The version from which the server was asked again last.
    asked_from: Option<u64>,
    snapshot_asked: bool,
    phone_asked: bool,
}

impl Default for Ladder {
    fn default() -> Self {
        Self::new()
    }
}

impl Ladder {
    /// At rest, without a connection.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            online: false,
            wanted: false,
            unsent: false,
            rounds: 0,
            conflicts: 0,
            failures: 0,
            failing_since: None,
            asked_from: None,
            snapshot_asked: false,
            phone_asked: false,
        }
    }

    /// When [`Input::Tick`] is wanted, as a monotonic time.
    pub fn deadline(&self, now: Now) -> Option<Duration> {
        let wall = |at: u64| now.mono.saturating_add(Duration::from_millis(at.saturating_sub(now.wall_ms)));
        match &self.phase {
            Phase::Waiting { until } | Phase::AskingPhone { until } => Some(*until),
            Phase::Blocked { next, .. } => Some(wall(*next)),
            Phase::Stopped { until } if self.wanted || self.unsent => Some(wall(*until)),
            Phase::Idle | Phase::Asking { .. } | Phase::Stopped { .. } => None,
        }
    }

    /// The keys that are waited for.
    pub fn missing_keys(&self) -> &[KeyId] {
        match &self.phase {
            Phase::Blocked { missing, .. } => missing,
            _ => &[],
        }
    }

    /// Whether nothing is under way and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && !self.wanted && !self.unsent
    }

    /// Takes what happened; `local` is the version of the local state, 0 without any.
    pub fn handle(&mut self, now: Now, local: u64, input: Input) -> Steps {
        let mut steps = Steps::new();
        match input {
            Input::Connected => self.online = true,
            Input::Disconnected => self.disconnect(),
            Input::Wanted => self.wanted = true,
            Input::Notified(version) => self.wanted |= version > local,
            Input::Commanded => self.unsent = true,
            Input::Tick => self.tick(now, &mut steps),
            Input::KeysArrived => {
                if matches!(self.phase, Phase::Blocked { .. }) {
                    self.ask_again();
                }
            }
            Input::PhoneAnswered { applied } => {
                if matches!(self.phase, Phase::AskingPhone { .. }) {
                    if applied {
                        // What came after the phone made it. Nothing is forgiven before that is there.
                        self.ask_again();
                    } else {
                        self.stop(now, Failure::Unusable, &mut steps);
                    }
                }
            }
            answer => {
                if let Phase::Asking { upload } = self.phase {
                    self.answered(now, local, upload, answer, &mut steps);
                }
            }
        }
        self.go_on(&mut steps);
        steps
    }

    /// An answer to what was asked.
    fn answered(&mut self, now: Now, local: u64, upload: bool, answer: Input, steps: &mut Steps) {
        self.unsent |= upload && answer != Input::Uploaded;
        if !matches!(answer, Input::Failed | Input::ServerRefused { .. }) {
            (self.failures, self.failing_since) = (0, None);
        }
        match answer {
            Input::Uploaded => {
                // Our own patch comes back like any other.
                self.conflicts = 0;
                self.ask_again();
            }
            Input::Applied { more: false, .. } => self.up_to_date(steps),
            Input::Applied { version, more: true } => {
                self.rounds = self.rounds.saturating_add(1);
                let stands = self.asked_from.replace(version) == Some(version);
                if stands || self.rounds > MAX_ROUNDS {
                    self.stop(now, Failure::Endless, steps);
                } else {
                    self.ask_again();
                }
            }
            Input::PatchRefused(AppStateError::MissingKeys(ids))
            | Input::SnapshotRefused(AppStateError::MissingKeys(ids)) => {
                self.block(now, ids, steps);
            }
            // Patches are missing between ours and this one: once more from where we are.
            Input::PatchRefused(AppStateError::Version { version, .. })
                if version > local && self.asked_from.replace(local) != Some(local) =>
            {
                self.ask_again();
            }
            Input::PatchRefused(error) => self.fetch_anew(now, error == AppStateError::SnapshotMac, steps),
            Input::SnapshotRefused(_) => self.ask_phone(now, steps),
            Input::ServerRefused { code: 409, applied } if upload => {
                self.conflicts = self.conflicts.saturating_add(1);
                if self.conflicts > MAX_CONFLICTS {
                    self.conflicts = 0;
                    self.give_up_changes(Failure::Endless, steps);
                }
                self.phase = Phase::Idle;
                self.wanted |= applied == 0;
            }
            Input::ServerRefused { code: 400 | 404, .. } if self.snapshot_asked => self.ask_phone(now, steps),
            Input::ServerRefused { code: 400 | 404, .. } => self.fetch_anew(now, false, steps),
            _ => self.fail(now, steps),
        }
    }

    /// Does what waits, if it can be done now.
    fn go_on(&mut self, steps: &mut Steps) {
        if !self.online || self.phase != Phase::Idle {
            return;
        }
        let upload = !self.wanted && self.unsent;
        if self.wanted || self.unsent {
            self.wanted = false;
            // What is commanded from now on is not in the patch.
            self.unsent &= !upload;
            self.phase = Phase::Asking { upload };
            steps.push(if upload { Do::Upload } else { Do::Query });
        }
    }

    fn ask_again(&mut self) {
        (self.phase, self.wanted) = (Phase::Idle, true);
    }

    fn disconnect(&mut self) {
        self.online = false;
        if let Phase::Asking { upload } = self.phase {
            self.phase = Phase::Idle;
            self.wanted |= !upload;
            self.unsent |= upload;
        }
    }

    /// All counters begin anew.
    fn up_to_date(&mut self, steps: &mut Steps) {
        let Self { online, wanted, unsent, conflicts, .. } = *self;
        *self = Self { online, wanted, unsent, conflicts, ..Self::new() };
        steps.push(Do::Synced);
    }

    fn block(&mut self, now: Now, missing: Vec<KeyId>, steps: &mut Steps) {
        steps.push(Do::AskKeys { ids: missing.clone(), all_devices: false });
        let next = now.wall_ms.saturating_add(millis(ASK_ALL_AFTER));
        self.phase = Phase::Blocked { missing, since: now.wall_ms, next };
    }

    fn fail(&mut self, now: Now, steps: &mut Steps) {
        let since = *self.failing_since.get_or_insert(now.wall_ms);
        if now.wall_ms.saturating_sub(since) > millis(PATIENCE) {
            return self.stop(now, Failure::Unreachable, steps);
        }
        let pause = Duration::from_secs(1_u64.checked_shl(self.failures).unwrap_or(u64::MAX)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1).min(63);
        self.wanted |= !matches!(self.phase, Phase::Asking { upload: true });
        self.phase = Phase::Waiting { until: now.mono.saturating_add(pause) };
    }

    /// Drops what we have for a snapshot. Once; then the phone is asked.
    fn fetch_anew(&mut self, now: Now, mismatch: bool, steps: &mut Steps) {
        if self.snapshot_asked {
            return self.ask_phone(now, steps);
        }
        self.snapshot_asked = true;
        steps.push(Do::Drop { mismatch });
        self.ask_again();
    }

    fn ask_phone(&mut self, now: Now, steps: &mut Steps) {
        if self.phone_asked {
            return self.stop(now, Failure::Unusable, steps);
        }
        self.phone_asked = true;
        self.phase = Phase::AskingPhone { until: now.mono.saturating_add(PHONE_PATIENCE) };
        steps.push(Do::AskPhone);
    }

    fn stop(&mut self, now: Now, failure: Failure, steps: &mut Steps) {
        self.give_up_changes(failure, steps);
        let until = now.wall_ms.saturating_add(millis(STOPPED_FOR));
        *self = Self { online: self.online, phase: Phase::Stopped { until }, ..Self::new() };
        steps.push(Do::Failed(failure));
    }

    fn give_up_changes(&mut self, failure: Failure, steps: &mut Steps) {
        if std::mem::take(&mut self.unsent) {
            steps.push(Do::DropChanges(failure));
        }
    }

    fn tick(&mut self, now: Now, steps: &mut Steps) {
        match &mut self.phase {
            Phase::Waiting { until } if *until <= now.mono => self.phase = Phase::Idle,
            Phase::AskingPhone { until } if *until <= now.mono => self.stop(now, Failure::Unusable, steps),
            Phase::Stopped { until } if *until <= now.wall_ms => self.phase = Phase::Idle,
            Phase::Blocked { missing, since, next } if *next <= now.wall_ms => {
                if now.wall_ms.saturating_sub(*since) > millis(KEY_PATIENCE) {
                    return self.stop(now, Failure::Keys, steps);
                }
                *next = now.wall_ms.saturating_add(millis(ASK_AGAIN_AFTER));
                steps.push(Do::AskKeys { ids: missing.clone(), all_devices: true });
            }
            _ => {}
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
