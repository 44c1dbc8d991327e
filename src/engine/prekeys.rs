//! One-time prekeys of our own (spec 03 §1.3): made, stored, and only then uploaded.

use crate::{
    crypto::KeyPair,
    engine::{keys, signal_store::pair_record, step::Step},
    node::Node,
    stanza::iq::prekeys::Upload,
};

/// Makes a batch of prekeys and the request that uploads them. The keys are in the step's batch, so the request leaves
/// only when they are durable; their ids are never given out again, whatever becomes of the request.
pub(crate) fn upload(step: &mut Step<'_>) -> Node {
    let count = step.config.pre_key_batch;
    let ids = step.account_mut().take_pre_key_ids(count);
    step.account_mut().uploaded = true;
    let made: Vec<_> = ids.into_iter().map(|id| (id, make(step, id))).collect();
    let public: Vec<_> = made.iter().map(|(id, pair)| (*id, *pair.public())).collect();
    let account = step.account();
    let signed = &account.signed_pre_key;
    Upload {
        registration_id: account.registration_id,
        identity: account.identity.public(),
        pre_keys: &public,
        signed_pre_key: (signed.id, *signed.pair.public(), signed.signature),
    }
    .request()
}

/// Makes and stores one prekey that is given out by other means than an upload.
pub(crate) fn single(step: &mut Step<'_>) -> (u32, KeyPair) {
    let id = step.account_mut().take_pre_key_ids(1).first().copied().unwrap_or(1);
    (id, make(step, id))
}

fn make(step: &mut Step<'_>, id: u32) -> KeyPair {
    let pair = KeyPair::generate(step.rng);
    step.put(keys::pre_key(id), pair_record(&pair));
    pair
}
