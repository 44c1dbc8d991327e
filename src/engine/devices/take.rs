//! A device list takes the place of the one that was known, and what hangs on devices that are gone goes with them.

use super::{DeviceListRecord, DeviceRecord, PRIMARY, drop_device, is_own, list_key};
use crate::{
    engine::{
        address::User,
        step::{Miss, Step},
    },
    pairing::key_index::{self, KeyIndexList, KnownList, ListChange, ListSignature},
    signal::{self, Address},
    stanza::iq::usync::Device,
};

/// A list as the server gives it.
pub(super) struct Given<'a> {
    pub(super) devices: Vec<Device>,
    /// The server's hash of it, under the canonical identity.
    pub(super) hash: Option<String>,
    /// What the primary says about its companions.
    pub(super) signed: Option<&'a KeyIndexList>,
}

/// Takes a list that the server answered or told of. `known` is the record there is.
///
/// # Errors
/// [`Miss`]; nothing was written then.
pub(super) fn take(
    step: &mut Step<'_>,
    user: &User,
    known: Option<DeviceListRecord>,
    given: Given<'_>,
) -> Result<(), Miss> {
    let known = known.unwrap_or_default();
    let before: Vec<Device> = known.devices.iter().filter_map(DeviceRecord::device).collect();
    let mut record = DeviceListRecord { fetched: step.now.unix_seconds(), ..known.clone() };
    if let Some(signed) = given.signed {
        if let ListSignature::OtherKey(_) = signed.signature() {
            return distrust(step, user, &before, &record);
        }
        match signed.change(known_list(&known).as_ref()) {
            ListChange::Older => {
                tracing::debug!(user = %user.canonical.redacted(), "an older device list, the known one stays");
                step.put(list_key(&user.canonical), &record);
                return Ok(());
            }
            ListChange::Registered => {
                tracing::info!(user = %user.canonical.redacted(), "the account was registered again");
                drop_all(step, user, before.iter().filter(|device| device.id != 0))?;
            }
            ListChange::First | ListChange::Current => {}
        }
    }
    let valid = key_index::valid_devices(given.devices, given.signed);
    if !valid.dropped.is_empty() {
        let dropped = valid.dropped.len();
        tracing::warn!(user = %user.canonical.redacted(), dropped, "devices that the primary does not vouch for");
    }
    let mut devices = valid.devices;
    if devices.iter().all(|device| device.id != 0) && !(devices.is_empty() && is_own(step, &user.canonical)) {
        devices.insert(0, PRIMARY);
    }
    drop_all(step, user, before.iter().filter(|before| devices.iter().all(|device| device.id != before.id)))?;
    record.devices = devices.iter().map(DeviceRecord::of).collect();
    record.hash = given.hash.filter(|_| !valid.forget_hash);
    if let Some(signed) = given.signed {
        record.raw_id = Some(signed.raw_id());
        record.timestamp = signed.timestamp();
    }
    step.put(list_key(&user.canonical), &record);
    Ok(())
}

/// The list is signed by another primary than the one we know. Either the account was registered again, or somebody else made
/// the list. The bundle of the primary tells which: until then it stands alone, and a new session with it is due.
fn distrust(step: &mut Step<'_>, user: &User, before: &[Device], record: &DeviceListRecord) -> Result<(), Miss> {
    tracing::warn!(user = %user.canonical.redacted(), "a device list of another primary");
    drop_all(step, user, before.iter().filter(|device| device.id != 0))?;
    let mut all = Ok(());
    for identity in user.identities() {
        let next = drop_session(step, &crate::engine::address::address_of(identity, 0));
        all = all.and(next);
    }
    all?;
    let devices = vec![DeviceRecord::of(&PRIMARY)];
    let record = DeviceListRecord { devices, hash: None, raw_id: None, timestamp: 0, ..record.clone() };
    step.put(list_key(&user.canonical), &record);
    Ok(())
}

/// Forgets a session, and keeps the identity: that another one comes is news then.
fn drop_session(step: &mut Step<'_>, address: &Address) -> Result<(), Miss> {
    let identity = signal::SignalStore::identity(step, address);
    signal::forget(step, address)?;
    if let Some(identity) = identity? {
        signal::SignalStore::put_identity(step, address, identity);
    }
    Ok(())
}

fn drop_all<'a>(step: &mut Step<'_>, user: &User, devices: impl Iterator<Item = &'a Device>) -> Result<(), Miss> {
    let mut all = Ok(());
    for device in devices {
        // All are read before one is missed.
        let next = drop_device(step, user, device.id);
        all = all.and(next);
    }
    all
}

fn known_list(record: &DeviceListRecord) -> Option<KnownList> {
    Some(KnownList { raw_id: record.raw_id?, timestamp: record.timestamp })
}
