//! Device lists: which devices a user has, kept until the server says that they changed (spec 03 §4.9).
//!
//! ```text
//!   ask ──► usync answer ──► check the primary's signature ──► take ──► DeviceListRecord ──► who sends
//!                                                               ▲
//!   notification: added, removed, the own devices ──────────────┘       unclear, or a hash that differs: forget
//! ```
//!
//! A list from the server is only its word. Companions count as far as the key-index list allows, which the user's primary
//! signed.
//!
//! | file | what |
//! |---|---|
//! | `query` | the server is asked, once for a user at a time, and by hash when a list is known |
//! | `answer` | key-index lists are checked |
//! | `take` | a list takes the place of the one before |
//! | `change` | notifications |
//! | `identity` | a user has another identity |

mod answer;
mod change;
mod identity;
mod query;
mod take;

use super::{Engine, notices};
use crate::{
    engine::{
        address::{self, User},
        receive::sender_keys,
        records::{DeviceListRecord, DeviceRecord, Record},
        send::marks,
        step::{Miss, Step},
    },
    jid::Jid,
    signal,
    stanza::iq::usync::Device,
    store::{Key, RecordKind},
};

pub(crate) use answer::{CheckLists, CheckedLists, Lists};
pub(crate) use change::{Wanted, notification};
pub(crate) use identity::changed_implicitly;
pub(crate) use query::{Asked, Held};

fn list_key(user: &Jid) -> Key {
    Key::new(RecordKind::DeviceList, user.to_string())
}

/// The devices of a user; `None` when they must be asked for. A bot has one, and nobody need be asked.
///
/// # Errors
/// [`Miss`].
pub(crate) fn devices(step: &mut Step<'_>, user: &User) -> Result<Option<Vec<Device>>, Miss> {
    if user.identities().any(Jid::is_bot) {
        return Ok(Some(vec![PRIMARY]));
    }
    let Some(record) = step.record::<DeviceListRecord>(&list_key(&user.canonical))? else { return Ok(None) };
    let age = step.now.unix_seconds().saturating_sub(record.fetched);
    let holds = record.fetched != 0 && age < step.config.device_list_age.as_secs();
    Ok(holds.then(|| record.devices.iter().filter_map(DeviceRecord::device).collect()))
}

/// The ids of the devices of a user, as [`devices`].
///
/// # Errors
/// [`Miss`].
pub(crate) fn list(step: &mut Step<'_>, user: &User) -> Result<Option<Vec<u16>>, Miss> {
    Ok(devices(step, user)?.map(|devices| devices.iter().map(|device| device.id).collect()))
}

/// Forgets the devices of a user; they are asked for when they are needed. Which they were is remembered, as far as it is at
/// hand: what there is for those that are gone goes when the next list comes.
pub(crate) fn forget(step: &mut Step<'_>, user: &User) {
    for identity in user.identities() {
        forget_record(step, list_key(identity));
    }
}

/// Forgets our own devices, under either identity.
pub(crate) fn forget_own(step: &mut Step<'_>) {
    let Some(linked) = step.account().linked.clone() else { return };
    for own in [Some(linked.pn), linked.lid].into_iter().flatten() {
        forget_record(step, list_key(&own.to_account()));
    }
}

fn forget_record(step: &mut Step<'_>, key: Key) {
    match step.record::<DeviceListRecord>(&key) {
        Ok(Some(record)) => {
            let stale = DeviceListRecord { fetched: 0, hash: None, ..record };
            step.put(key, stale.to_bytes());
        }
        Ok(None) => {}
        Err(Miss) => step.delete(key),
    }
}

fn is_own(step: &Step<'_>, user: &Jid) -> bool {
    step.account().linked.as_ref().is_some_and(|linked| linked.own().is_account(user))
}

/// A device is not one of its user any more: its sessions and its sender keys go, under every identity, and the marks that say
/// that it has ours.
fn drop_device(step: &mut Step<'_>, user: &User, id: u16) -> Result<(), Miss> {
    let mut all = marks::forget_device(step, user, id);
    for identity in user.identities() {
        // All are read before one is missed.
        let address = address::address_of(identity, id);
        let (session, sender_keys) = (signal::forget(step, &address), sender_keys::forget(step, &address));
        all = all.and(session).and(sender_keys);
    }
    all
}

/// The devices in the record of one identity, however old.
///
/// # Errors
/// [`Miss`].
pub(crate) fn known_ids(step: &mut Step<'_>, identity: &Jid) -> Result<Vec<u16>, Miss> {
    let record = step.record::<DeviceListRecord>(&list_key(identity))?.unwrap_or_default();
    Ok(record.devices.iter().filter_map(|device| u16::try_from(device.id).ok()).collect())
}

/// Moves the record of a user from the PN to the LID, unless there is one.
///
/// # Errors
/// [`Miss`].
pub(crate) fn move_list(step: &mut Step<'_>, pn: &Jid, lid: &Jid) -> Result<(), Miss> {
    let (before, after) = (step.record::<DeviceListRecord>(&list_key(pn)), step.read(&list_key(lid)));
    if let (Some(record), None) = (before?, after?) {
        // The hash was that of the list under the PN.
        step.put(list_key(lid), DeviceListRecord { hash: None, ..record }.to_bytes());
        step.delete(list_key(pn));
    }
    Ok(())
}

impl DeviceRecord {
    fn of(device: &Device) -> Self {
        Self { id: device.id.into(), key_index: device.key_index, hosted: device.hosted }
    }

    fn device(&self) -> Option<Device> {
        Some(Device { id: u16::try_from(self.id).ok()?, key_index: self.key_index, hosted: self.hosted })
    }
}

/// The phone.
const PRIMARY: Device = Device { id: 0, key_index: None, hosted: false };
