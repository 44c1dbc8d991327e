//! Work that would hold up everything else: owned data out, owned data back.
//!
//! ```text
//!   engine ── Output::Cpu(id, job) ──► driver: job.run() on a pool of threads ── Input::Computed(id, result) ──► engine
//! ```
//!
//! A job needs nothing but itself and decides nothing: the same job gives the same result, wherever and whenever it runs, so
//! that a simulation may run it at once or late. Who asked remembers the id; a result that nobody waits for any more (the
//! connection is gone, another code was asked for) is dropped, and a result that never comes is covered by the deadline of
//! whoever waits.

use std::fmt;

use crate::{
    crypto::Secret,
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
    StretchCode { code: PairCode, salt: [u8; 32] },
}

/// The results, by kind.
pub(crate) enum Computed {
    /// The key that a pair code and a salt give.
    CodeKey(Secret<32>),
}

impl CpuJob {
    pub(crate) const fn stretch_code(code: PairCode, salt: [u8; 32]) -> Self {
        Self(Work::StretchCode { code, salt })
    }

    /// Does the work. Takes long; not to be called where others wait.
    pub fn run(self) -> CpuResult {
        match self.0 {
            Work::StretchCode { code, salt } => CpuResult(Computed::CodeKey(code::stretch(&code, &salt))),
        }
    }
}

impl fmt::Debug for CpuJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Work::StretchCode { .. } => "StretchCode",
        })
    }
}

impl fmt::Debug for CpuResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Computed::CodeKey(_) => "CodeKey",
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
        let Computed::CodeKey(key) = result.0;
        assert_eq!(key, code::stretch(&"abcd-1234".parse().unwrap(), &[7; 32]));
    }
}
