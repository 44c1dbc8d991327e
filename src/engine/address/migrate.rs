//! Records of a user move from the PN to the LID (spec 03 §4.10): sessions with their archives, identities, the device list.
//!
//! Nothing moves when a pair becomes known: there may be thousands of them, and most are of no use yet. A user moves, with all
//! devices that are known, in the step that first needs one of them, and so in that step's batch. A device that was not known
//! then moves when it is used. Messages and marks that stand under the PN are looked up under both identities, and sender keys
//! move when they are next used.

use std::collections::BTreeSet;

use crate::{
    engine::{
        address::address_of,
        devices, keys,
        step::{Miss, Step},
    },
    jid::Jid,
    signal::{self, StepError},
};

/// Sees to it that nothing of a device stands under the PN any more.
pub(super) fn before_use(step: &mut Step<'_>, pn: &Jid, lid: &Jid, device: u16) -> Result<(), Miss> {
    let (before, after) = (address_of(pn, device), address_of(lid, device));
    let (session, identity) = (keys::session(&before), keys::identity(&before));
    step.require([&session, &identity, &keys::session(&after)])?;
    if step.read(&session)?.is_none() && step.read(&identity)?.is_none() {
        return Ok(());
    }
    user(step, pn, lid, device)
}

/// The PN is not of this LID any more: what stands under it goes to the person that it is of.
pub(super) fn leave(step: &mut Step<'_>, pn: &Jid, lid: &Jid) -> Result<(), Miss> {
    user(step, pn, lid, 0)
}

/// Moves all devices that are known, and one that is.
fn user(step: &mut Step<'_>, pn: &Jid, lid: &Jid, device: u16) -> Result<(), Miss> {
    let (before, after) = (devices::known_ids(step, pn), devices::known_ids(step, lid));
    let ids: BTreeSet<u16> = before?.into_iter().chain(after?).chain([0, device]).collect();
    let mut all = Ok(());
    for id in ids {
        match signal::unite(step, &address_of(pn, id), &address_of(lid, id)) {
            Ok(()) => {}
            // All are read before one is missed.
            Err(StepError::Miss(miss)) => all = Err(miss),
            Err(StepError::Signal(error)) => tracing::warn!(%error, "a session cannot be moved to the LID"),
        }
    }
    all?;
    devices::move_list(step, pn, lid)
}
