//! Prekeys of our own (spec 03 §1.3–1.7): made, stored, and only then uploaded.
//!
//! ```text
//!   few left on the server ──► ids are taken ──► keys are made on the pool, 128 at a time, and stored ──► upload
//!                              (durable, never taken again)
//! ```
//!
//! There is one upload at a time. Ids count as given out before anything of them leaves, whatever becomes of the request. Keys
//! that are made when the connection is lost go out with the next upload; those of a request that was not answered do not, as
//! the server may have them.
//!
//! | file | what |
//! |---|---|
//! | `upload` | when, how many, and what follows from a failure |
//! | `upkeep` | once a day: the server's digest of our keys, the signed prekey and its predecessors |

mod upkeep;
mod upload;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{
    crypto::{KeyPair, Secret},
    engine::{keys, step::Step},
};

pub(crate) use upkeep::Rotation;
pub(crate) use upload::Upload;

/// A job: makes key pairs, each some 16 µs. The seed is wiped with it.
pub(crate) struct MakeKeys {
    seed: Secret<32>,
    count: usize,
}

impl MakeKeys {
    pub(crate) const fn new(seed: Secret<32>, count: usize) -> Self {
        Self { seed, count }
    }

    pub(crate) fn run(self) -> Vec<KeyPair> {
        let mut rng = ChaCha20Rng::from_seed(*self.seed.expose());
        (0..self.count).map(|_| KeyPair::generate(&mut rng)).collect()
    }
}

/// Makes and stores one prekey that is given out by other means than an upload.
pub(crate) fn single(step: &mut Step<'_>) -> (u32, KeyPair) {
    let id = step.account_mut().take_pre_key_ids(1).first().copied().unwrap_or(1);
    let pair = KeyPair::generate(step.rng);
    step.put(keys::pre_key(id), &pair);
    (id, pair)
}
