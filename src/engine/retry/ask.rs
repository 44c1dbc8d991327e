//! A message that cannot be decrypted is asked for again (spec 03 §5.6).

use std::sync::Arc;

use crate::{
    engine::{
        keys, prekeys,
        receive::{Context, Failure, Seen, seen},
        records::RetryCountRecord,
        retry::Note,
        signal_store::pair_of,
        step::{Miss, Step},
    },
    stanza::{
        message::InboundMessage,
        receipt::{RetryKeys, RetryReceipt},
    },
    store::{Key, RecordKind},
};

/// How often a resend is asked for (spec 03 §5.6).
const MAX_RETRIES: u32 = 5;
/// Seconds after which nobody sees a status any more.
const STATUS_LIFETIME: u64 = 24 * 3_600;

pub(crate) fn retry_key(context: &Context<'_>) -> Key {
    Key { kind: RecordKind::RetryCount, id: context.received.id.clone() }
}

/// Where something may be noted about a message.
fn noted_under(context: &Context<'_>) -> Vec<Key> {
    let before = context.before.iter().map(|mark| Key { kind: RecordKind::RetryCount, id: mark.id.clone() });
    std::iter::once(retry_key(context)).chain(before).collect()
}

/// What is noted about a message that could not be read: under its key, or where that was before the LID was known.
///
/// # Errors
/// [`Miss`].
fn known(step: &mut Step<'_>, context: &Context<'_>) -> Result<Option<RetryCountRecord>, Miss> {
    let keys = noted_under(context);
    step.require(&keys)?;
    for key in keys {
        if step.read(&key)?.is_some() {
            // A damaged note is one all the same: something was told.
            return Ok(Some(step.record(&key)?.unwrap_or_default()));
        }
    }
    Ok(None)
}

/// Asks the sending device to encrypt again, unless nothing would come of it or it was asked too often (spec 03 §5.6). Answers
/// whether it was asked.
///
/// # Errors
/// [`Miss`].
pub(crate) fn ask_again(step: &mut Step<'_>, context: &Context<'_>, failure: &Failure) -> Result<bool, Miss> {
    let inbound = context.message;
    let now = step.now;
    if !is_worth_asking(inbound, now.unix_seconds()) {
        return Ok(false);
    }
    let before = known(step, context)?.unwrap_or_default();
    let is_asked_here = noted_under(context).iter().any(|key| step.retries.is_asked_here(key));
    // The server has it still and it is no answer: a request on an earlier connection did not get there, and is made once more.
    let is_lost = before.count > failure.resends && !is_asked_here;
    // After a restart without a record the sender's own count goes on.
    let count = if is_lost { before.count } else { before.count.max(failure.resends).saturating_add(1) };
    if count > MAX_RETRIES {
        return Ok(false);
    }
    let user = &context.sender.canonical;
    if !step.retries.allow(now, user) {
        step.note(Note::TooMany);
        return Ok(false);
    }
    let account = Arc::clone(step.account());
    let Some(linked) = &account.linked else { return Ok(false) };
    let pre_key = match (count >= 2 || failure.needs_keys, before.pre_key_id) {
        (false, _) => None,
        (true, 0) => Some(prekeys::single(step)),
        (true, id) => match step.read(&keys::pre_key(id))? {
            Some(record) => pair_of(&record).map(|pair| (id, pair)),
            None => Some(prekeys::single(step)),
        },
    };
    let signed = &account.signed_pre_key;
    let receipt = RetryReceipt {
        id: &inbound.ack.id,
        to: &inbound.ack.from,
        participant: inbound.ack.participant.as_ref(),
        recipient: inbound.ack.recipient.as_ref(),
        peer: inbound.peer,
        timestamp: inbound.timestamp,
        count,
        reason: failure.reason,
        registration_id: account.registration_id,
        keys: pre_key.as_ref().map(|(id, pair)| RetryKeys {
            identity: *account.identity.public().as_bytes(),
            pre_key: (*id, *pair.public().as_bytes()),
            signed_pre_key: (signed.id, *signed.pair.public().as_bytes(), signed.signature),
            device_identity: &linked.device_identity,
        }),
    };
    let record =
        RetryCountRecord { count, at: step.now.unix_seconds(), pre_key_id: pre_key.as_ref().map_or(0, |(id, _)| *id) };
    let key = retry_key(context);
    step.put(key.clone(), &record);
    step.send(&receipt.to_node());
    step.note(Note::Asked(user.clone(), key));
    Ok(true)
}

/// Whether somebody would send the message again, and anybody would still want it (spec 03 §5.4).
fn is_worth_asking(inbound: &InboundMessage, now: u64) -> bool {
    let is_stray_copy = inbound.from_me && inbound.ack.recipient.is_none() && !inbound.peer;
    let is_old_status = inbound.chat.is_status_broadcast() && now.saturating_sub(inbound.timestamp) > STATUS_LIFETIME;
    !(is_stray_copy || is_old_status || inbound.chat.is_newsletter() || inbound.is_of_bot_elsewhere())
}

/// Notes that a message cannot be read, or not yet; false when that was told before, or the message was received. When it
/// can be read after all, it still is news.
pub(crate) fn mark_failed(step: &mut Step<'_>, context: &Context<'_>) -> Result<bool, Miss> {
    // Both are read before either is missed.
    let (told, seen) = (known(step, context).map(drop), seen(step, context));
    told?;
    Ok(seen? != Seen::Whole && mark_told(step, context)?)
}

/// Notes that it was told that a message, or a part of it, cannot be read; false when it was before.
fn mark_told(step: &mut Step<'_>, context: &Context<'_>) -> Result<bool, Miss> {
    if known(step, context)?.is_some() {
        return Ok(false);
    }
    let record = RetryCountRecord { at: step.now.unix_seconds(), ..RetryCountRecord::default() };
    step.put(retry_key(context), &record);
    Ok(true)
}
