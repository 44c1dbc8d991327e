//! Notifications about devices and keys (spec 03 §1.4, §4.9).

use super::{
    DeviceListRecord, DeviceRecord, answer::primary_key, drop_device, forget, identity, is_own, list_key, take,
};
use crate::{
    engine::{
        address::{self, User},
        restrictions,
        step::{Miss, Step},
        tokens,
    },
    event::MappingSource,
    jid::Jid,
    message::phash::phash,
    pairing::key_index::{self, KeyIndexList},
    stanza::{
        ack::AckTarget,
        iq::usync::Device,
        stream::{ChangedDevices, DeviceChange, Notification},
    },
};

/// What the server wants of our own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Nothing,
    /// More one-time prekeys.
    PreKeys,
    /// That we compare what it holds.
    Digest,
}

/// Handles a notification.
///
/// # Errors
/// [`Miss`].
pub(crate) fn notification(
    step: &mut Step<'_>,
    notification: &Notification,
    ack: &AckTarget,
    offline: bool,
) -> Result<Wanted, Miss> {
    let mut wanted = Wanted::Nothing;
    match notification {
        Notification::PreKeysLow { count } => {
            tracing::debug!(count, "prekeys run low");
            wanted = Wanted::PreKeys;
        }
        Notification::KeyDigest => wanted = Wanted::Digest,
        Notification::DevicesChanged { user, other, change } => {
            if let Some(other) = other {
                address::learn(step, user, other, MappingSource::Notification)?;
            }
            changed(step, user, change)?;
        }
        Notification::OwnDevices { user, devices, hash } => own_devices(step, user, devices, hash.as_deref())?,
        Notification::IdentityChanged { user, timestamp } => identity::changed(step, user, *timestamp, offline)?,
        Notification::Tokens { user, lid, tokens } => tokens::received(step, user, lid.as_ref(), tokens)?,
        Notification::Restrictions(updates) => updates.iter().for_each(|update| restrictions::told(step, update)),
        Notification::Group(_) | Notification::Other => {}
    }
    step.send(&ack.ack());
    Ok(wanted)
}

/// Patches the list that is known. What is not clear is asked for again with the next send.
fn changed(step: &mut Step<'_>, user: &Jid, change: &DeviceChange) -> Result<(), Miss> {
    let user = address::user(step, user)?;
    let key = primary_key(step, &user.canonical);
    let known = step.record::<DeviceListRecord>(&list_key(&user.canonical))?;
    let key = key?;
    if let DeviceChange::Removed(removed) = change {
        let mut all = Ok(());
        for device in removed.devices.iter().filter(|device| device.id != 0) {
            let next = drop_device(step, &user, device.id);
            all = all.and(next);
        }
        all?;
    }
    let Some(known) = known.filter(|known| !known.devices.is_empty()) else { return Ok(()) };
    let before: Vec<Device> = known.devices.iter().filter_map(DeviceRecord::device).collect();
    let (devices, changed) = match change {
        DeviceChange::Unknown => {
            forget(step, &user);
            return Ok(());
        }
        DeviceChange::Added(added) => {
            let is_new = |device: &&Device| added.devices.iter().all(|added| added.id != device.id);
            let devices = before.iter().filter(is_new).chain(&added.devices).copied().collect();
            (devices, added)
        }
        DeviceChange::Removed(removed) => {
            let stays = |device: &&Device| device.id == 0 || removed.devices.iter().all(|gone| gone.id != device.id);
            (before.iter().filter(stays).copied().collect::<Vec<_>>(), removed)
        }
    };
    let Some(signed) = signed_list(changed, key.as_ref()) else {
        // Nobody vouches for what is left: the whole list comes with the next question.
        forget(step, &user);
        return Ok(());
    };
    if !agrees(&user, &devices, changed, &signed) {
        tracing::debug!(user = %user.canonical.redacted(), "the device list differs from the server's");
        forget(step, &user);
        return Ok(());
    }
    let hash = if user.canonical.is_lid_family() { &changed.lid_hash } else { &changed.hash };
    let fetched = known.fetched;
    take::take(step, &user, Some(known), take::Given { devices, hash: hash.clone(), signed: Some(&signed) })?;
    if fetched == 0 {
        forget(step, &user);
    }
    Ok(())
}

fn signed_list(changed: &ChangedDevices, key: Option<&crate::crypto::PublicKey>) -> Option<KeyIndexList> {
    let decoded = key_index::decode(changed.key_index_list.as_ref()?, key);
    decoded.inspect_err(|error| tracing::warn!(%error, "key-index list cannot be read")).ok()
}

/// Whether the list, as far as the primary vouches for it, has the hashes that the server gives, under each identity that we
/// know.
fn agrees(user: &User, devices: &[Device], changed: &ChangedDevices, signed: &KeyIndexList) -> bool {
    let valid = key_index::valid_devices(devices.iter().copied(), Some(signed)).devices;
    let agrees = |identity: &Option<Jid>, hash: &Option<String>| match (identity, hash) {
        (Some(identity), Some(hash)) => hash_of(identity, &valid) == *hash,
        _ => true,
    };
    agrees(&user.pn, &changed.hash) && agrees(&user.lid, &changed.lid_hash)
}

/// The participant hash of a user's devices.
fn hash_of(user: &Jid, devices: &[Device]) -> String {
    let jids: Vec<Jid> = devices.iter().map(|device| device.jid(user)).collect();
    phash(&jids)
}

/// Our own devices, all of them.
fn own_devices(step: &mut Step<'_>, user: &Jid, devices: &[Device], hash: Option<&str>) -> Result<(), Miss> {
    if !is_own(step, user) {
        tracing::warn!("devices of somebody else as our own");
        return Ok(());
    }
    let user = address::user(step, user)?;
    let known = step.record::<DeviceListRecord>(&list_key(&user.canonical))?;
    let is_hash_of = |identity: &Jid| hash.is_none_or(|hash| hash_of(identity, devices) == hash);
    if devices.is_empty() || !user.identities().any(is_hash_of) {
        tracing::debug!("the list of the own devices differs from the server's");
        forget(step, &user);
        return Ok(());
    }
    let known = known.unwrap_or_default();
    let is_gone = |device: &&DeviceRecord| devices.iter().all(|listed| u32::from(listed.id) != device.id);
    let gone: Vec<u16> = known.devices.iter().filter(is_gone).filter_map(|gone| u16::try_from(gone.id).ok()).collect();
    let mut all = Ok(());
    for id in gone {
        let next = drop_device(step, &user, id);
        all = all.and(next);
    }
    all?;
    // The hash is left out: with the next question the primary vouches for the list.
    let record = DeviceListRecord {
        fetched: step.now.unix_seconds(),
        devices: devices.iter().map(DeviceRecord::of).collect(),
        hash: None,
        ..known
    };
    step.put(list_key(&user.canonical), &record);
    Ok(())
}
