//! Work that would hold up everything else: owned data out, owned data back.
//!
//! ```text
//!   engine ── Output::Cpu(id, job) ──► driver: job.run() on a pool of threads ── Input::Computed(id, result) ──► engine
//! ```
//!
//! A job needs nothing but itself and decides nothing: the same job gives the same result, wherever and whenever it runs, so
//! that a simulation may run it at once or late; the randomness that it needs is a seed in it. Who asked remembers the id; a
//! result that nobody waits for any more (the connection is gone, another code was asked for) is dropped, and a result that
//! never comes is covered by the deadline of whoever waits.
//!
//! | job | how long | who waits |
//! |---|---|---|
//! | stretch a pair code | 50 ms | `link_code` |
//! | start sessions with up to 32 devices | 13 ms | `slices`, `send/sessions` |
//! | check up to 32 signed device lists | 3 ms | `slices`, `devices/answer` |
//! | make up to 128 prekeys | 2 ms | `prekeys` |

use std::fmt;

use crate::{
    crypto::{KeyPair, Secret},
    engine::{
        devices::{CheckLists, CheckedLists},
        prekeys::MakeKeys,
        send::{PrepareSessions, PreparedSessions},
    },
    pairing::code::{self, PairCode},
};

/// Names a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuId(pub u64);

/// A piece of work. Wiped when dropped, if it holds secrets; `Debug` tells its kind alone.
pub struct CpuJob(Work);

/// What came of a [`CpuJob`]. `Debug` tells its kind alone.
pub struct CpuResult(pub(crate) Computed);

enum Work {
    /// Stretch a pair code: 131,072 rounds of HMAC, some 50 ms.
    StretchCode {
        code: PairCode,
        salt: [u8; 32],
    },
    PrepareSessions(PrepareSessions),
    CheckLists(CheckLists),
    MakeKeys(MakeKeys),
}

/// The results, by kind.
pub(crate) enum Computed {
    /// The key that a pair code and a salt give.
    CodeKey(Secret<32>),
    /// Sessions that are ready to be stored, or why there are none.
    Sessions(PreparedSessions),
    /// Key-index lists, read and checked.
    Lists(CheckedLists),
    /// Key pairs for prekeys.
    Keys(Vec<KeyPair>),
}

impl CpuJob {
    pub(crate) const fn stretch_code(code: PairCode, salt: [u8; 32]) -> Self {
        Self(Work::StretchCode { code, salt })
    }

    /// Does the work. Takes long; not to be called where others wait.
    pub fn run(self) -> CpuResult {
        CpuResult(match self.0 {
            Work::StretchCode { code, salt } => Computed::CodeKey(code::stretch(&code, &salt)),
            Work::PrepareSessions(job) => Computed::Sessions(job.run()),
            Work::CheckLists(job) => Computed::Lists(job.run()),
            Work::MakeKeys(job) => Computed::Keys(job.run()),
        })
    }
}

impl From<PrepareSessions> for CpuJob {
    fn from(job: PrepareSessions) -> Self {
        Self(Work::PrepareSessions(job))
    }
}

impl From<CheckLists> for CpuJob {
    fn from(job: CheckLists) -> Self {
        Self(Work::CheckLists(job))
    }
}

impl From<MakeKeys> for CpuJob {
    fn from(job: MakeKeys) -> Self {
        Self(Work::MakeKeys(job))
    }
}

impl fmt::Debug for CpuJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Work::StretchCode { .. } => "StretchCode",
            Work::PrepareSessions(_) => "PrepareSessions",
            Work::CheckLists(_) => "CheckLists",
            Work::MakeKeys(_) => "MakeKeys",
        })
    }
}

impl fmt::Debug for CpuResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Computed::CodeKey(_) => "CodeKey",
            Computed::Sessions(_) => "Sessions",
            Computed::Lists(_) => "Lists",
            Computed::Keys(_) => "Keys",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_results_print_their_kind_alone() {
        let job = CpuJob::stretch_code("ABCD1234".parse().unwrap(), [7; 32]);
        assert_eq!(format!("{job:?}"), "StretchCode");
        let result = job.run();
        assert_eq!(format!("{result:?}"), "CodeKey");
        let Computed::CodeKey(key) = result.0 else { panic!("{result:?}") };
        assert_eq!(key, code::stretch(&"abcd-1234".parse().unwrap(), &[7; 32]));

        let job = CpuJob::from(MakeKeys::new(Secret::new([7; 32]), 2));
        assert_eq!(format!("{job:?}"), "MakeKeys");
        let result = job.run();
        assert_eq!(format!("{result:?}"), "Keys");
        let Computed::Keys(keys) = result.0 else { panic!("{result:?}") };
        assert_eq!(keys.len(), 2);
        assert_ne!(keys[0].public(), keys[1].public());
    }
}
