//! Device lists: which devices a user has, kept until the server says that they changed (spec 03 §4.9).

use super::{
    Engine,
    notices::{self, SendFailure},
};
use crate::{
    clock::Now,
    engine::{
        address::{self, User},
        queries::QueryError,
        records::{DeviceListRecord, Record},
        restrictions,
        send::Subject,
        step::{Miss, Step},
        tokens,
    },
    event::MappingSource,
    jid::Jid,
    signal::{self, Address},
    stanza::{ack::AckTarget, iq::usync::UserDevices, stream::Notification},
    store::{Key, RecordKind},
};

fn list_key(user: &User) -> Key {
    Key::new(RecordKind::DeviceList, user.canonical.to_string())
}

/// The devices of a user; `None` when they must be asked for.
///
/// # Errors
/// [`Miss`].
pub(crate) fn list(step: &mut Step<'_>, user: &User) -> Result<Option<Vec<u16>>, Miss> {
    let record = step.record::<DeviceListRecord>(&list_key(user))?;
    Ok(record.map(|record| record.devices.iter().filter_map(|id| u16::try_from(*id).ok()).collect()))
}

/// Forgets the devices of a user; they are asked for when they are needed.
pub(crate) fn forget(step: &mut Step<'_>, user: &User) {
    step.delete(list_key(user));
}

/// Forgets our own devices, under either identity.
pub(crate) fn forget_own(step: &mut Step<'_>) {
    let Some(linked) = step.account().linked.clone() else { return };
    for own in [Some(linked.pn), linked.lid].into_iter().flatten() {
        step.delete(Key::new(RecordKind::DeviceList, own.to_bare().to_string()));
    }
}

fn is_own(step: &Step<'_>, user: &Jid) -> bool {
    step.account().linked.as_ref().is_some_and(|linked| linked.own().is_account(user))
}

/// Stores what the server answered about some users.
///
/// # Errors
/// [`Miss`].
pub(crate) fn store(step: &mut Step<'_>, answered: &[UserDevices]) -> Result<(), Miss> {
    for user in answered {
        if let Some(lid) = &user.lid {
            address::learn(step, &user.user, lid, MappingSource::Usync)?;
        }
        let Some(devices) = &user.devices else { continue };
        let key = list_key(&address::user(step, &user.user)?);
        // That somebody is not there holds for now only: no notification would tell when that changes.
        if devices.is_empty() && !is_own(step, &user.user) {
            step.delete(key);
            continue;
        }
        let record = DeviceListRecord {
            devices: devices.iter().map(|device| u32::from(device.id)).collect(),
            fetched: step.now.unix_seconds(),
        };
        step.put(key, record.to_bytes());
    }
    Ok(())
}

/// Handles a notification; true when prekeys must be refilled.
///
/// # Errors
/// [`Miss`].
pub(crate) fn notification(
    step: &mut Step<'_>,
    notification: &Notification,
    ack: &AckTarget,
    offline: bool,
) -> Result<bool, Miss> {
    let mut refill = false;
    match notification {
        Notification::PreKeysLow { count } => {
            tracing::debug!(count, "prekeys run low");
            refill = true;
        }
        Notification::DevicesChanged { user, lid } => {
            if let Some(lid) = lid {
                address::learn(step, user, lid, MappingSource::Notification)?;
            }
            let key = list_key(&address::user(step, user)?);
            step.delete(key);
        }
        Notification::IdentityChanged { user } => identity_changed(step, user, offline)?,
        Notification::Tokens { user, lid, tokens } => tokens::received(step, user, lid.as_ref(), tokens)?,
        Notification::Restrictions(updates) => updates.iter().for_each(|update| restrictions::told(step, update)),
        Notification::Group(_) | Notification::Other => {}
    }
    step.send(&ack.ack());
    Ok(refill)
}

/// A user has a new identity key: sessions with the old one are of no use (spec 03 §4.9). Companions and the own account
/// tell nothing about the user's identity.
fn identity_changed(step: &mut Step<'_>, jid: &Jid, offline: bool) -> Result<(), Miss> {
    if is_own(step, jid) || jid.device() != 0 {
        return Ok(());
    }
    let user = address::user(step, jid)?;
    let mut devices = list(step, &user)?.unwrap_or_default();
    if !devices.contains(&0) {
        devices.push(0);
    }
    for device in devices {
        let address: Address = address::device(step, &user.canonical.with_device(device))?;
        signal::forget(step, &address)?;
    }
    step.delete(list_key(&user));
    tokens::reissue(step, &user)?;
    step.emit_from(offline, notices::identity_changed(jid, false));
    Ok(())
}

impl Engine {
    /// The server answered, or did not answer, which devices some users have.
    pub(super) fn devices_answered(&mut self, now: Now, asked: Vec<Jid>, result: Result<Vec<UserDevices>, QueryError>) {
        let subjects: Vec<_> = asked.iter().cloned().map(Subject::Devices).collect();
        match result {
            Ok(mut answered) => {
                // What nobody asked for is not believed.
                answered.retain(|user| asked.contains(&user.user));
                if let Err(needs) = self.step(now, |step| store(step, &answered)) {
                    let answer = super::Answer::Devices(asked, Ok(answered));
                    return self.park(super::Job::Answer(answer), needs);
                }
                let known = answered.iter().filter(|user| user.devices.is_some()).map(|user| &user.user);
                let unanswered = asked.iter().filter(|jid| !known.clone().any(|known| known == *jid)).cloned();
                let unanswered: Vec<Jid> = unanswered.collect();
                let empty = answered.iter().filter(|user| user.devices.as_ref().is_some_and(Vec::is_empty));
                let own = |user: &Jid| self.account.linked.as_ref().is_some_and(|linked| linked.own().is_account(user));
                let absent: Vec<Jid> = empty.map(|user| user.user.clone()).filter(|user| !own(user)).collect();
                self.sends_go_on(now, &subjects, |op, _| {
                    op.lacks_devices(&unanswered, &SendFailure::new("devices", "the server does not know the user"));
                    op.lacks_devices(&absent, &SendFailure::not_on_whatsapp());
                });
            }
            Err(error) => {
                let failure = SendFailure::new("devices", &error.to_string());
                self.sends_go_on(now, &subjects, |op, _| op.lacks_devices(&asked, &failure));
            }
        }
    }
}
