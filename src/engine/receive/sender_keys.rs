//! Sender keys of others (spec 03 §3.2, §3.3): taken from the messages that hand them over, found for those that need them.
//!
//! A key stands under the chat and the device that handed it over, by LID once that is known. What began under the number
//! moves with the next message of the device. Beside the keys it is kept in which chats a device has any, so that they go with
//! the device and the store need not be searched.

use super::Context;
use crate::{
    engine::{
        address, devices, keys,
        records::{Record, SenderKeyChatsRecord},
        step::{Miss, Step},
    },
    jid::Jid,
    message::build,
    proto::e2e,
    signal::{
        Address, SignalError, StepError,
        sender_key::{self, GroupPlaintext, MAX_SENDERS, SenderKeyName},
    },
    store::Key,
};

fn name(context: &Context<'_>, sender: &Address) -> SenderKeyName {
    SenderKeyName::new(&context.message.chat.to_string(), sender.clone())
}

/// The address of the sending device under the identity that was known before its LID; `None` when there is none.
fn before(context: &Context<'_>) -> Option<Address> {
    let sender = context.sender;
    let pn = sender.pn.as_ref().filter(|pn| **pn != sender.canonical)?;
    Some(address::address_of(pn, context.message.sender.device()))
}

/// The records of the sending device that [`decrypt`] and [`take`] read in any case.
pub(super) fn reads(context: &Context<'_>, sender: &Address) -> Vec<Key> {
    let names = std::iter::once(sender.clone()).chain(before(context));
    names.map(|sender| keys::sender_key(&name(context, &sender))).collect()
}

/// Moves the keys of the sending device to its LID, if they still stand under its number.
///
/// # Errors
/// [`Miss`].
pub(super) fn relocate(step: &mut Step<'_>, context: &Context<'_>, sender: &Address) -> Result<(), Miss> {
    let Some(before) = before(context).map(|before| name(context, &before)) else { return Ok(()) };
    if step.read(&keys::sender_key(&before))?.is_none() {
        return Ok(());
    }
    match sender_key::relocate(step, &before, &name(context, sender)) {
        Ok(()) => note_chat(step, context, sender),
        Err(StepError::Miss(miss)) => Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::debug!(%error, "sender keys stay under the number");
            Ok(())
        }
    }
}

/// Takes the sender key that a message hands over, for the chat it came in and from the device that sent it. What is wrong
/// with it shows when it is needed.
///
/// # Errors
/// [`Miss`].
pub(super) fn take(
    step: &mut Step<'_>,
    context: &Context<'_>,
    sender: &Address,
    content: &e2e::Message,
) -> Result<(), Miss> {
    // Own devices may wrap it as they wrap all that they send to each other.
    let copy = content.device_sent_message.as_deref().filter(|_| context.message.from_me);
    let inner = copy.and_then(|copy| copy.message.as_deref());
    let Some((group, key)) = build::handed_sender_key(content).or_else(|| build::handed_sender_key(inner?)) else {
        return Ok(());
    };
    let chat = &context.message.chat;
    if !context.message.is_by_sender_key() || group.parse::<Jid>().ok().as_ref() != Some(chat) {
        tracing::debug!("a sender key for another chat than that of the message");
        return Ok(());
    }
    match sender_key::process(step, &name(context, sender), key) {
        Ok(_) => note_chat(step, context, sender),
        Err(StepError::Miss(miss)) => Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::debug!(%error, "sender key refused");
            Ok(())
        }
    }
}

/// The device has sender keys in this chat.
fn note_chat(step: &mut Step<'_>, context: &Context<'_>, sender: &Address) -> Result<(), Miss> {
    let (key, chat) = (keys::sender_key_chats(sender), context.message.chat.to_string());
    let mut record = step.record::<SenderKeyChatsRecord>(&key)?.unwrap_or_default();
    if record.chats.len() < MAX_CHATS && !record.chats.contains(&chat) {
        record.chats.push(chat);
        step.put(key, record.to_bytes());
    }
    Ok(())
}

/// A device is gone: its sender keys go, in every chat (spec 03 §4.9).
///
/// # Errors
/// [`Miss`].
pub(crate) fn forget(step: &mut Step<'_>, address: &Address) -> Result<(), Miss> {
    let key = keys::sender_key_chats(address);
    let Some(record) = step.record::<SenderKeyChatsRecord>(&key)? else { return Ok(()) };
    let mut all = Ok(());
    for chat in &record.chats {
        // All are read before one is missed.
        let next = sender_key::forget(step, &SenderKeyName::new(chat, address.clone()));
        all = all.and(next);
    }
    step.delete(key);
    all
}

/// Chats of one device that are remembered; in further ones its keys stay when it goes, where they are of no use.
const MAX_CHATS: usize = 4_096;

/// Decrypts a message of the chat: with the keys of the very device, else with those of the user's other devices, since a
/// stanza may name the user without the device.
///
/// # Errors
/// As [`sender_key::decrypt`].
pub(super) fn decrypt(
    step: &mut Step<'_>,
    context: &Context<'_>,
    sender: &Address,
    bytes: &[u8],
) -> Result<GroupPlaintext, StepError<Miss>> {
    let group = context.message.chat.to_string();
    let failure = match sender_key::decrypt(step, &group, std::slice::from_ref(sender), bytes) {
        Err(StepError::Signal(failure @ (SignalError::NoSenderKey | SignalError::BadSignature))) => failure,
        other => return other,
    };
    let others = other_devices(step, context, sender).map_err(StepError::Miss)?;
    match sender_key::decrypt(step, &group, &others, bytes) {
        Err(StepError::Signal(SignalError::NoSenderKey)) => Err(failure.into()),
        other => other,
    }
}

/// The user's other devices, by LID and by number.
fn other_devices(step: &mut Step<'_>, context: &Context<'_>, sender: &Address) -> Result<Vec<Address>, Miss> {
    let user = context.sender;
    let listed = devices::list(step, user)?.unwrap_or_default();
    let mut others = Vec::new();
    for device in std::iter::once(0).chain(listed) {
        for identity in user.identities() {
            let address = address::address_of(identity, device);
            if address != *sender && !others.contains(&address) {
                others.push(address);
            }
        }
        if others.len() >= MAX_SENDERS {
            break;
        }
    }
    others.truncate(MAX_SENDERS);
    Ok(others)
}
