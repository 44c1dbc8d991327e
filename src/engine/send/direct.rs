//! A message to a user (spec 03 §4.2, §4.5): which devices, which sessions, one ciphertext each.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{Plan, SendOp, fail, outgoing_key, padded, padded_message, sent_key};
use crate::{
    engine::{
        account::Linked,
        address::{self, User},
        content, devices, keys,
        notices::SendFailure,
        records::{Record, SentRecord},
        restrictions,
        step::{Miss, Step, own},
        tokens,
    },
    jid::Jid,
    message::{self, build},
    signal::{self, Address, Ciphertext, Session, SignalStore},
    stanza::{
        iq::usync::Device,
        outgoing::{Head, UserMessage},
    },
};

/// A device to encrypt for.
struct Target {
    /// As addressed.
    jid: Jid,
    /// Whose keys are fetched: the device under the identity that its session is stored under.
    keys: Jid,
    address: Address,
    session: Option<Session>,
    /// One of our own: it gets the copy that says whom the message went to.
    own: bool,
}

/// Goes on with a send to a user, or with one about a user's status.
///
/// # Errors
/// [`Miss`].
pub(super) fn plan(step: &mut Step<'_>, op: &SendOp, recipient: &Jid) -> Result<Plan, Miss> {
    let Some(linked) = step.account().linked.clone() else {
        return Ok(fail(step, op, &SendFailure::logged_out()));
    };
    let user = address::user(step, recipient)?;
    let own_user = address::user(step, &linked.pn)?;

    // Both lists are read before either is missed.
    let (recipients, own_devices) = (devices::devices(step, &user), devices::devices(step, &own_user));
    let (recipients, own_devices) = (recipients?, own_devices?);
    let mut unknown = Vec::new();
    if recipients.is_none() {
        unknown.push(user.canonical.clone());
    }
    if own_devices.is_none() && !linked.own().is_account(recipient) {
        unknown.push(own_user.canonical.clone());
    }
    if !unknown.is_empty() {
        return Ok(Plan::Devices(unknown));
    }
    let (recipients, own_devices) = (recipients.unwrap_or_default(), own_devices.unwrap_or_default());
    if restrictions::check(step, &user)?.is_err() {
        return Ok(fail(step, op, &SendFailure::restricted()));
    }
    if recipients.is_empty() {
        return Ok(fail(step, op, &SendFailure::not_on_whatsapp()));
    }

    let targets = targets(step, (&user, &recipients), (&own_user, &own_devices), &linked)?;
    let session_keys: Vec<_> = targets.iter().map(|target| keys::session(&target.address)).collect();
    step.require(&session_keys)?;
    let mut usable = Vec::new();
    let mut missing = Vec::new();
    for mut target in targets {
        // A damaged record is none.
        target.session = step.session(&target.address)?.filter(|session| session.current().is_some());
        match &target.session {
            Some(_) => usable.push(target),
            None if op.skipped.contains(&target.keys) => {}
            None => missing.push(target.keys),
        }
    }
    if !missing.is_empty() {
        return Ok(Plan::Bundles(missing));
    }
    let to_self = linked.own().is_account(recipient);
    if usable.is_empty() || !to_self && usable.iter().all(|target| target.own) {
        let failure = SendFailure::new("no_session", "no device of the recipient has usable keys");
        return Ok(fail(step, op, &failure));
    }
    seal(step, op, &user, &linked, usable)
}

/// The recipient's devices and our own other ones, in the namespace of the chat, each once and in order.
fn targets(
    step: &mut Step<'_>,
    (user, recipients): (&User, &[Device]),
    (own_user, own_devices): (&User, &[Device]),
    linked: &Linked,
) -> Result<Vec<Target>, Miss> {
    let chat = user.addressed(step.account()).clone();
    let own_chat = match &linked.lid {
        Some(lid) if chat.is_lid_family() => lid.to_bare(),
        _ => linked.pn.to_bare(),
    };
    let to_self = linked.own().is_account(&chat);
    let recipients = recipients.iter().filter(|_| !to_self).map(|device| (device, &chat, user, false));
    let own = own_devices.iter().map(|device| (device, &own_chat, own_user, true));
    let mut targets = BTreeMap::new();
    let mut all = Ok(());
    for (device, chat, user, own) in recipients.chain(own) {
        let jid = device.jid(chat);
        if linked.own().is_device(&jid) {
            continue;
        }
        // All are read before one is missed.
        match address::device(step, &jid) {
            Ok(address) => {
                let keys = device.jid(&user.canonical);
                targets.insert((jid.clone(), own), Target { jid, keys, address, session: None, own });
            }
            Err(miss) => all = Err(miss),
        }
    }
    all.map(|()| targets.into_values().collect())
}

/// Encrypts for every device and puts the stanza behind the batch.
fn seal(step: &mut Step<'_>, op: &SendOp, user: &User, linked: &Linked, targets: Vec<Target>) -> Result<Plan, Miss> {
    let chat = if op.to.is_status_broadcast() { &op.to } else { &user.addressed(step.account()).clone() };
    let Ok(message) = message::decode(&op.message) else {
        return Ok(fail(step, op, &SendFailure::new("damaged", "the stored message cannot be read")));
    };
    let class = &op.words;
    let token = match user.is(chat) {
        true => tokens::attach(step, user)?,
        false => None,
    };
    let plain = padded(&op.message, step.rng);
    let copy = padded_message(&build::device_sent(chat, message), step.rng);

    let account = Arc::clone(step.account());
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let mut ciphertexts: Vec<(Jid, Ciphertext)> = Vec::with_capacity(targets.len());
    for target in targets {
        let plaintext = if target.own { &copy } else { &plain };
        let session = target.session.unwrap_or_default();
        match signal::encrypt_with(step, &own(&account), &target.address, session, plaintext, &mut rng) {
            Ok(ciphertext) => ciphertexts.push((target.jid, ciphertext)),
            Err(error) => tracing::warn!(%error, "a device cannot be encrypted for"),
        }
    }
    if ciphertexts.is_empty() {
        return Ok(fail(step, op, &SendFailure::new("no_session", "no device of the recipient has usable keys")));
    }
    let head = Head {
        to: chat,
        id: op.id.as_str(),
        kind: class.stanza_type.as_str(),
        edit: class.edit.map(|edit| edit.as_str()),
        media_type: class.media_type,
        hide_failure: class.hide_failure,
        meta: &class.meta,
        device_identity: &linked.device_identity,
        report: op.report(&content::own_in_family(linked, chat), chat),
        token: token.as_ref(),
    };
    let recipient_pn = user.pn.as_ref().filter(|pn| chat.is_lid_family() && *pn != chat);
    let stanza = UserMessage { head, recipient_pn, devices: &ciphertexts };
    let Ok(encoded) = stanza.encode() else { return Ok(fail(step, op, &SendFailure::encoding())) };
    let encoded = Bytes::from(encoded);
    // What is said of a status is for its author alone.
    let audience = chat.is_broadcast().then(|| user.canonical.to_string()).into_iter().collect();
    let sent = SentRecord { message: op.message.clone(), chat: chat.to_text(), audience, ..SentRecord::default() };
    step.put(sent_key(if chat.is_broadcast() { chat } else { &user.canonical }, op.id.as_str()), sent.to_bytes());
    step.put(outgoing_key(op.id.as_str()), op.to_record(chat, Some(encoded.clone())).to_bytes());
    step.send_message(encoded.clone());
    Ok(Plan::Sent(encoded))
}
