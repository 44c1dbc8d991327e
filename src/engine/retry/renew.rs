//! Which session a message is encrypted in again (spec 03 §5.7, step 4).
//!
//! ```text
//!   registration id 0, the session names another ────────────► refused
//!   keys in the receipt ─────────────────────────────────────► a session from them, if they hold
//!   another registration id ─────────────► session dropped ──► keys are fetched
//!   count 2: the base key is remembered; later the same one ─► dropped, fetched
//!   no session; or count 2 and none was renewed for an hour ─► fetched
//!   else ────────────────────────────────────────────────────► the session that there is
//! ```
//!
//! A device may have drawn the registration id 0, which is none by the rules: it is answered like any other, but with keys that
//! the server has, never with those of the receipt. Where a session names another id, 0 says nothing about the device.
//!
//! A session is dropped with all that is archived of it, and the identity key stays: that it changes is still seen.

use std::time::Duration;

use crate::{
    engine::{
        keys,
        records::{RenewedRecord, ResendRecord},
        send,
        step::{Miss, Step},
    },
    jid::Jid,
    signal::{self, Address, Session, SignalStore},
    stanza::{iq::prekeys::FetchedBundle, receipt::RetryRequest},
    store::{Key, RecordKind},
};

/// A session is renewed for the second request and later ones once in this time: whoever asks for many messages at once asks
/// with the same count for each.
const RENEW_PAUSE: Duration = Duration::from_secs(3_600);

/// How often keys are fetched for one request.
const MAX_FETCHES: u8 = 2;

/// What there is to encrypt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// A session that the device should be able to read.
    Ready,
    /// The keys of the device must be fetched.
    Fetch,
    /// The keys that the device sent, or its registration id, are refused.
    Refused,
}

/// What is remembered of a message and a device.
pub(super) fn resend_key(address: &Address, id: &str) -> Key {
    Key::joined(RecordKind::ResendBaseKey, &[address.as_str().as_bytes(), id.as_bytes()])
}

/// When a session was last renewed.
fn renewed_key(address: &Address) -> Key {
    Key::new(RecordKind::ResendBaseKey, address.as_str())
}

/// Sees to it that there is a session, as far as that is possible without asking. `resend` is what is remembered of the
/// message and the device, `fetches` how often keys were fetched for it.
///
/// # Errors
/// [`Miss`].
pub(super) fn renew(
    step: &mut Step<'_>,
    device: &Jid,
    address: &Address,
    retry: &RetryRequest,
    resend: &mut ResendRecord,
    fetches: u8,
) -> Result<Renewal, Miss> {
    let renewed_key = renewed_key(address);
    step.require([&keys::session(address), &keys::identity(address), &keys::archive_index(address), &renewed_key])?;
    let now = step.now.unix_seconds();
    let session = step.session(address)?;
    let current = session.as_ref().and_then(Session::current);
    if fetches > 0 {
        if current.is_none() {
            // There are no keys, or they were those of an identity that is not any more, or that became known meanwhile.
            return Ok(if fetches < MAX_FETCHES { Renewal::Fetch } else { Renewal::Refused });
        }
        step.put(renewed_key, &RenewedRecord { at: now });
        return Ok(Renewal::Ready);
    }
    if retry.registration_id == 0 && current.is_some_and(|state| state.remote_registration_id() != 0) {
        tracing::debug!(device = %device.redacted(), "a device asks without its registration id");
        return Ok(Renewal::Refused);
    }
    if let Some(bundle) = &retry.keys {
        // The same identity under another registration id: a companion must show that it is one (spec 03 §1.6).
        let same_identity = step.identity(address)?.is_some_and(|known| known == bundle.identity);
        let other_id = current.is_some_and(|state| state.remote_registration_id() != bundle.registration_id);
        if same_identity && other_id && device.device() != 0 && retry.device_identity.is_none() {
            tracing::warn!(device = %device.redacted(), "keys under another registration id that nobody vouches for");
            return Ok(Renewal::Refused);
        }
        let sent = FetchedBundle { bundle: bundle.clone(), device_identity: retry.device_identity.clone() };
        if !send::establish_sent(step, device, &sent)? {
            return Ok(Renewal::Refused);
        }
        step.put(renewed_key, &RenewedRecord { at: now });
        return Ok(Renewal::Ready);
    }
    let Some(current) = current else { return Ok(Renewal::Fetch) };
    if current.remote_registration_id() != retry.registration_id {
        drop_session(step, address)?;
        return Ok(Renewal::Fetch);
    }
    let base_key = current.base_key().as_bytes().as_slice();
    match retry.count {
        2 => resend.base_key = base_key.to_vec().into(),
        // The peer never got anything of this session right.
        3.. if resend.base_key == base_key => {
            drop_session(step, address)?;
            return Ok(Renewal::Fetch);
        }
        _ => {}
    }
    let renewed = step.record::<RenewedRecord>(&renewed_key)?.map(|record| record.at);
    let lately = renewed.is_some_and(|at| now.saturating_sub(at) < RENEW_PAUSE.as_secs());
    Ok(if retry.count >= 2 && !lately { Renewal::Fetch } else { Renewal::Ready })
}

fn drop_session(step: &mut Step<'_>, address: &Address) -> Result<(), Miss> {
    let identity = step.identity(address)?;
    signal::forget(step, address)?;
    if let Some(identity) = identity {
        step.put_identity(address, identity);
    }
    Ok(())
}
