//! Which seeds a test runs, and the name of the one that fails.

use std::ops::Range;

fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("WAMD_SEEDS") else { return default };
    let (from, to) = text.split_once("..").expect("WAMD_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Runs every seed, or those of `WAMD_SEEDS=from..to`; one that fails is named.
#[expect(clippy::print_stderr, reason = "a failing seed is named")]
pub(crate) fn each_seed(default: Range<u64>, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds(default) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed} failed; again with WAMD_SEEDS={seed}..{}", seed + 1);
            std::panic::resume_unwind(panic);
        }
    }
}
