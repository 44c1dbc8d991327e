//! A message under our sender key is encrypted (spec 03 §3.4, §4.5): the key for the devices that lack it, the content once
//! for all, one stanza, one batch.

use std::sync::Arc;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    Plan, SendOp, fail,
    fanout::{Fanout, Target},
    marks, outgoing_key, padded, sent_key, status,
};
use crate::{
    engine::{
        account::Account,
        content,
        notices::SendFailure,
        records::{OutgoingRecord, Record, SentRecord},
        step::{Miss, Step, own},
    },
    event::AddressingMode,
    jid::Jid,
    message::{build, distribution::ROTATE_AFTER},
    proto::Message as _,
    signal::{
        self, Ciphertext, Session, SignalStore, StepError,
        sender_key::{self, SenderKeyStore, wire::DistributionMessage},
    },
    stanza::outgoing::{Head, SenderKeyMessage},
};

/// What came of it.
#[derive(Debug)]
pub(super) enum Sealed {
    Plan(Plan),
    /// Our key is not the one that the marks are of: look again whom the message is for.
    OtherKey,
}

/// Encrypts a message for everybody, unless sessions are missing.
///
/// # Errors
/// [`Miss`].
pub(super) fn seal(step: &mut Step<'_>, op: &SendOp, fanout: &Fanout) -> Result<Sealed, Miss> {
    let account = Arc::clone(step.account());
    let Some(linked) = &account.linked else {
        return Ok(Sealed::Plan(fail(step, op, &SendFailure::logged_out())));
    };
    // The key and the sessions are read before any is missed.
    let key = step.own_sender_key(&fanout.key_name);
    let usable = with_sessions(step, op, fanout);
    let (key, usable) = (key?, usable?);
    let going_on = key.filter(|key| fanout.key.is_some() && key.position().iteration < ROTATE_AFTER);
    if going_on.as_ref().map(|key| key.position().id) != fanout.key {
        return Ok(Sealed::OtherKey);
    }
    let usable = match usable {
        Sessions::There(usable) => usable,
        Sessions::Missing(devices) => return Ok(Sealed::Plan(Plan::Bundles(devices))),
    };

    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let distribution = match &going_on {
        Some(key) => key.distribution(),
        None => {
            marks::clear(step, &op.lane.chat);
            sender_key::rotate(step, &fanout.key_name, &mut rng)
        }
    };
    let devices = distribute(step, &account, op, &usable, &distribution)?;
    let plaintext = padded(&op.message, step.rng);
    let body = match sender_key::encrypt(step, &fanout.key_name, &plaintext, &mut rng) {
        Ok(body) => body,
        Err(StepError::Miss(miss)) => return Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::error!(%error, "our own sender key cannot encrypt");
            return Ok(Sealed::Plan(fail(step, op, &SendFailure::encoding())));
        }
    };

    let words = &op.words;
    let is_status = op.to.is_status_broadcast();
    let mut meta = words.meta.clone();
    meta.extend(status::setting(op));
    let me = match fanout.addressing {
        Some(AddressingMode::Pn) => &linked.pn,
        _ => linked.lid.as_ref().unwrap_or(&linked.pn),
    };
    let report = if is_status { None } else { content::group_report(&op.lane.chat, me, &op.id, &op.message) };
    let head = Head {
        to: &op.lane.chat,
        id: op.id.as_str(),
        kind: words.stanza_type.as_str(),
        edit: words.edit.map(|edit| edit.as_str()),
        media_type: words.media_type,
        hide_failure: words.hide_failure,
        meta: &meta,
        device_identity: &linked.device_identity,
        children: report.as_slice(),
    };
    let viewers = if is_status { status::viewers(fanout, &devices) } else { Vec::new() };
    let stanza = SenderKeyMessage {
        head,
        phash: (!is_status).then_some(&*fanout.phash),
        addressing_mode: fanout.addressing.map(mode),
        distribution: &devices,
        viewers: &viewers,
        body: &body,
    };
    let Ok(encoded) = stanza.encode() else {
        return Ok(Sealed::Plan(fail(step, op, &SendFailure::encoding())));
    };
    let encoded = Bytes::from(encoded);
    let chat = &op.lane.chat;
    let distributed = fanout.distributes.clone().map(|mut distributed| {
        distributed.key = distribution.id.0;
        distributed
    });
    let holds = distributed.is_some();
    let audience = op.viewers.iter().map(Jid::to_string).collect();
    let sent = SentRecord { message: op.message.clone(), chat: chat.to_string(), audience, ..SentRecord::default() };
    step.put(sent_key(chat, op.id.as_str()), sent.to_bytes());
    let outgoing =
        OutgoingRecord { distributed, phash: Some(fanout.phash.clone()), ..op.to_record(chat, Some(encoded.clone())) };
    step.put(outgoing_key(op.id.as_str()), outgoing.to_bytes());
    step.send_encoded(&encoded);
    Ok(Sealed::Plan(if holds { Plan::Distributed(encoded) } else { Plan::Sent(encoded) }))
}

const fn mode(mode: AddressingMode) -> &'static str {
    match mode {
        AddressingMode::Pn => "pn",
        AddressingMode::Lid => "lid",
    }
}

/// Whether all targets have sessions.
enum Sessions<'f> {
    /// The targets that have one; the others have no keys.
    There(Vec<&'f Target>),
    /// The keys of these devices must be fetched.
    Missing(Vec<Jid>),
}

fn with_sessions<'f>(step: &mut Step<'_>, op: &SendOp, fanout: &'f Fanout) -> Result<Sessions<'f>, Miss> {
    let (mut usable, mut missing, mut missed) = (Vec::with_capacity(fanout.targets.len()), Vec::new(), Ok(()));
    for target in &fanout.targets {
        match step.session(&target.address) {
            Err(miss) => missed = Err(miss),
            Ok(session) if session.as_ref().and_then(Session::current).is_some() => usable.push(target),
            Ok(_) => missing.extend(target.address.as_str().parse::<Jid>().ok()),
        }
    }
    missed?;
    missing.retain(|device| !op.skipped.contains(device));
    Ok(if missing.is_empty() { Sessions::There(usable) } else { Sessions::Missing(missing) })
}

/// The key, encrypted for each device. One that cannot be encrypted for is left out: it asks for the message again.
fn distribute(
    step: &mut Step<'_>,
    account: &Account,
    op: &SendOp,
    targets: &[&Target],
    key: &DistributionMessage,
) -> Result<Vec<(Jid, Ciphertext)>, Miss> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let message = build::sender_key_distribution(&op.lane.chat, key.encode());
    let plaintext = padded(&message.encode_to_vec(), step.rng);
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let mut ciphertexts = Vec::with_capacity(targets.len());
    for target in targets {
        match signal::encrypt(step, &own(account), &target.address, &plaintext, &mut rng) {
            Ok(ciphertext) => ciphertexts.push((target.jid.clone(), ciphertext)),
            Err(StepError::Miss(miss)) => return Err(miss),
            Err(StepError::Signal(error)) => tracing::warn!(%error, "a device cannot be given the sender key"),
        }
    }
    Ok(ciphertexts)
}
