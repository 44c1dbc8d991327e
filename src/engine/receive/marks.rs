//! Marks of what was received: a message is told once, however often and under whatever identity it comes.

use super::Context;
use crate::{
    engine::{
        address::User,
        records::{ReceivedRecord, Record},
        step::{Miss, Step},
    },
    jid::Jid,
    stanza::message::InboundMessage,
    store::{Key, RecordKind},
};

/// How much of a message was received before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing.
    Nothing,
    /// The sender key that came with it, and not the content.
    Keys,
    /// All of it.
    Whole,
}

/// Ids are unique per chat and sender; both under the identity that does not change from stanza to stanza, then under the
/// one that was known before. At least one key.
pub(super) fn received_keys(message: &InboundMessage, chat: &User, sender: &User) -> Vec<Key> {
    let key = |chat: &Jid, sender: &Jid| {
        let (chat, sender) = (chat.to_string(), sender.to_string());
        Key::joined(RecordKind::Received, &[chat.as_bytes(), sender.as_bytes(), message.ack.id.as_bytes()])
    };
    if chat == sender {
        return chat.identities().map(|user| key(user, user)).collect();
    }
    match message.from_me {
        true => chat.identities().map(|chat| key(chat, &sender.canonical)).collect(),
        false => sender.identities().map(|sender| key(&chat.canonical, sender)).collect(),
    }
}

/// How much of the message was received before.
///
/// # Errors
/// [`Miss`].
pub(crate) fn seen(step: &mut Step<'_>, context: &Context<'_>) -> Result<Seen, Miss> {
    let keys = || std::iter::once(&context.received).chain(&context.before);
    step.require(keys())?;
    let mut seen = Seen::Nothing;
    for key in keys() {
        // A damaged mark is one all the same: it says that there was a message.
        let Some(bytes) = step.read(key)? else { continue };
        match ReceivedRecord::from_bytes(&bytes) {
            Ok(record) if record.keys_only => seen = Seen::Keys,
            _ => return Ok(Seen::Whole),
        }
    }
    Ok(seen)
}

/// Notes that a message was received; false when it was before.
///
/// # Errors
/// [`Miss`].
pub(super) fn mark(step: &mut Step<'_>, context: &Context<'_>) -> Result<bool, Miss> {
    if seen(step, context)? == Seen::Whole {
        return Ok(false);
    }
    put(step, context, false);
    Ok(true)
}

/// Notes that the sender key was received that came with a message.
///
/// # Errors
/// [`Miss`].
pub(super) fn mark_keys(step: &mut Step<'_>, context: &Context<'_>) -> Result<(), Miss> {
    if seen(step, context)? == Seen::Nothing {
        put(step, context, true);
    }
    Ok(())
}

fn put(step: &mut Step<'_>, context: &Context<'_>, keys_only: bool) {
    step.put(context.received.clone(), &ReceivedRecord { at: step.now.unix_seconds(), keys_only });
}
