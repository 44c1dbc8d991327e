//! A user has another identity key (spec 03 §4.9): by a notification, or because it showed itself in a session.
//!
//! What was built on the old one is of no use: sessions with all devices, the list of the devices, and our sender key for the
//! status, which the old devices have. The application hears of it once, however it became known.

use super::{DeviceListRecord, drop_device, is_own, list_key, notices};
use crate::{
    engine::{
        address::{self, User},
        keys,
        send::marks,
        step::{Miss, Step},
        tokens,
    },
    jid::Jid,
    store::Key,
};

/// A notification about a change that was seen so shortly before, in seconds, tells of the same.
const SAME: u64 = 300;

/// The server says that a user's identity changed. Companions and the own account tell nothing about the user's identity.
///
/// # Errors
/// [`Miss`].
pub(super) fn changed(step: &mut Step<'_>, jid: &Jid, at: Option<u64>, offline: bool) -> Result<(), Miss> {
    if is_own(step, jid) || jid.device() != 0 {
        return Ok(());
    }
    let user = address::user(step, jid)?;
    let identities: Vec<Key> = user.identities().map(|jid| keys::identity(&address::address_of(jid, 0))).collect();
    let record = step.record::<DeviceListRecord>(&list_key(&user.canonical));
    step.require(&identities)?;
    let record = record?.unwrap_or_default();
    let at = at.unwrap_or_else(|| step.now.unix_seconds());
    if record.identity_changed != 0 && at <= record.identity_changed.saturating_add(SAME) {
        return Ok(());
    }
    let mut was_known = false;
    for key in &identities {
        was_known |= step.read(key)?.is_some();
    }
    drop_sessions(step, &user, &record, true)?;
    for identity in user.identities() {
        step.delete(list_key(identity));
    }
    forget_sender_keys(step, &user)?;
    tokens::reissue(step, &user)?;
    if was_known {
        step.emit_from(offline, notices::identity_changed(jid, false));
    }
    Ok(())
}

/// A session with this device began with another identity than the one known. The new session stays.
///
/// # Errors
/// [`Miss`].
pub(crate) fn changed_implicitly(step: &mut Step<'_>, jid: &Jid, offline: bool) -> Result<(), Miss> {
    if is_own(step, jid) || jid.device() != 0 {
        tracing::debug!(device = %jid.redacted(), "another identity of a device");
        return Ok(());
    }
    let user = address::user(step, jid)?;
    let record = step.record::<DeviceListRecord>(&list_key(&user.canonical))?.unwrap_or_default();
    drop_sessions(step, &user, &record, false)?;
    // The list is asked for anew; that the change was told is remembered.
    let noted = DeviceListRecord { identity_changed: step.now.unix_seconds(), ..DeviceListRecord::default() };
    step.put(list_key(&user.canonical), &noted);
    forget_sender_keys(step, &user)?;
    tokens::reissue(step, &user)?;
    step.emit_from(offline, notices::identity_changed(jid, true));
    Ok(())
}

/// Drops the sessions with the devices that are known, those of the primary only if wanted.
fn drop_sessions(step: &mut Step<'_>, user: &User, record: &DeviceListRecord, primary: bool) -> Result<(), Miss> {
    let companions = record.devices.iter().filter_map(|device| u16::try_from(device.id).ok()).filter(|id| *id != 0);
    let mut all = Ok(());
    for id in companions.chain(primary.then_some(0)) {
        // All are read before one is missed.
        let next = drop_device(step, user, id);
        all = all.and(next);
    }
    all
}

/// No device of the user counts as having our sender keys. The old ones must not read the status any more: the next one is
/// sent with another key.
fn forget_sender_keys(step: &mut Step<'_>, user: &User) -> Result<(), Miss> {
    marks::rotate(step, &Jid::status_broadcast());
    marks::forget_user(step, user)
}
