//! Inbound messages (spec 03 §5): decrypt, deduplicate, tell, answer. One step, one batch: the ratchet's new state, the
//! mark that the message was received, and its event stand or fall together, and the receipt leaves after them.

mod deliver;

use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{
    engine::{
        Account,
        address::{self, User},
        devices, keys,
        notices::{self, Undecryptable},
        records::{ReceivedRecord, Record},
        retry::ask::{ask_again, mark_failed, mark_told, retry_key},
        step::{Miss, Step, own},
    },
    event::{Event, MappingSource, Source},
    jid::Jid,
    message::{self, padding},
    signal::{self, Address, SignalError, StepError},
    stanza::{
        ack::Nack,
        message::{Enc, EncKind, InboundMessage},
        receipt::DeliveryReceipt,
    },
    store::{Key, RecordKind},
};

/// What became of the ciphertexts of a stanza.
enum Outcome {
    /// Decrypted, or decrypted before: the sender gets a delivery receipt.
    Received,
    /// It was history or housekeeping of the phone and wants its own receipt.
    Handled(&'static str),
    /// Cannot be decrypted now; the sender is asked to encrypt again.
    Retry(Undecryptable, u8, u32),
    /// Will never be processed; acknowledged without a receipt.
    Dropped(Undecryptable),
    /// Refused.
    Refused(Nack),
}

/// Handles a message.
///
/// # Errors
/// [`Miss`].
pub(crate) fn message(step: &mut Step<'_>, message: &InboundMessage) -> Result<(), Miss> {
    if let Some(alt) = &message.sender_alt {
        address::learn(step, &message.sender, alt, MappingSource::Message)?;
    }
    if let Some(alt) = &message.chat_alt {
        address::learn(step, &message.chat, alt, MappingSource::Message)?;
    }
    let chat = address::user(step, &message.chat)?;
    let sender = address::user(step, &message.sender)?;
    let mut marks = received_keys(message, &chat, &sender);
    let source = if message.offline { Source::Offline } else { Source::Live };
    let context = Context { message, source, chat: &chat, sender: &sender, received: marks.remove(0), before: marks };

    if message.encs.is_empty() {
        return without_ciphertext(step, &context);
    }
    if message.encs.iter().all(|enc| enc.kind == EncKind::Unknown) {
        step.send(&message.ack.nack(Nack::UnrecognisedStanza));
        return Ok(());
    }
    let outcome = decrypt_all(step, &context)?;
    answer(step, &context, outcome)
}

/// A message with its people looked up.
pub(crate) struct Context<'a> {
    pub(crate) message: &'a InboundMessage,
    /// How it came to us.
    pub(crate) source: Source,
    pub(crate) chat: &'a User,
    pub(crate) sender: &'a User,
    /// The mark that it was received.
    pub(crate) received: Key,
    /// Where the mark stands when the message came before the LID was known.
    pub(crate) before: Vec<Key>,
}

/// Ids are unique per chat and sender; both under the identity that does not change from stanza to stanza, then under the
/// one that was known before.
fn received_keys(message: &InboundMessage, chat: &User, sender: &User) -> Vec<Key> {
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

/// Whether the message was received before.
pub(crate) fn is_received(step: &mut Step<'_>, context: &Context<'_>) -> Result<bool, Miss> {
    let keys = || std::iter::once(&context.received).chain(&context.before);
    step.require(keys())?;
    for key in keys() {
        if step.read(key)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Newsletters carry plaintext, placeholders nothing.
fn without_ciphertext(step: &mut Step<'_>, context: &Context<'_>) -> Result<(), Miss> {
    let message = context.message;
    match &message.unavailable {
        Some(kind) => {
            if mark_failed(step, context)? {
                let why = Undecryptable::unavailable(kind);
                let event = undecryptable(step, context, &why);
                step.emit_from(message.offline, event);
            }
            step.send(&message.ack.ack());
        }
        None if message.plaintext => step.send(&message.ack.ack()),
        None => step.send(&message.ack.nack(Nack::UnrecognisedStanza)),
    }
    Ok(())
}

fn undecryptable(step: &Step<'_>, context: &Context<'_>, why: &Undecryptable) -> Event {
    notices::undecryptable(context, why, step.config.prefer)
}

/// Pairwise ciphertexts first, in their order; the others cannot be read yet, and a message with one of them is told as
/// undecryptable, although the keys that came along are taken.
fn decrypt_all(step: &mut Step<'_>, context: &Context<'_>) -> Result<Outcome, Miss> {
    let address = address::device(step, &context.message.sender)?;
    declare_reads(step, context, &address)?;
    let account = Arc::clone(step.account());
    let mut outcome = None;
    for enc in &context.message.encs {
        let EncKind::Pairwise(kind) = enc.kind else { continue };
        let next = decrypt(step, context, &account, &address, kind, enc)?;
        outcome = Some(match (outcome, next) {
            // One failure decides, whatever else was readable.
            (Some(failed @ (Outcome::Retry(..) | Outcome::Refused(_))), _) => failed,
            (_, next) => next,
        });
    }
    let readable = |enc: &Enc| matches!(enc.kind, EncKind::Pairwise(_));
    match outcome {
        Some(Outcome::Received) | None if !context.message.encs.iter().all(readable) => {
            Ok(Outcome::Dropped(Undecryptable::unsupported(&context.message.encs)))
        }
        outcome => Ok(outcome.unwrap_or(Outcome::Received)),
    }
}

/// Everything that is known to be read before the first curve operation.
fn declare_reads(step: &mut Step<'_>, context: &Context<'_>, address: &Address) -> Result<(), Miss> {
    let mut reads = vec![context.received.clone(), keys::session(address), keys::identity(address), retry_key(context)];
    reads.extend(context.before.iter().cloned());
    for enc in &context.message.encs {
        let EncKind::Pairwise(kind) = enc.kind else { continue };
        let Ok(peek) = signal::peek(kind, &enc.bytes) else { continue };
        reads.extend(peek.pre_key.map(|id| keys::pre_key(id.0)));
        reads.extend(peek.signed_pre_key.map(|id| keys::signed_pre_key(id.0)));
        if peek.signed_pre_key.is_some() {
            reads.push(keys::archive_index(address));
        }
    }
    step.require(&reads)
}

fn decrypt(
    step: &mut Step<'_>,
    context: &Context<'_>,
    account: &Account,
    address: &Address,
    kind: signal::CiphertextKind,
    enc: &Enc,
) -> Result<Outcome, Miss> {
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let decrypted = match signal::decrypt(step, &own(account), address, kind, &enc.bytes, &mut rng) {
        Ok(decrypted) => decrypted,
        Err(StepError::Miss(miss)) => return Err(miss),
        // Whatever it was, it is stored since the step that advanced the ratchet.
        Err(StepError::Signal(SignalError::Duplicate)) if is_received(step, context)? => {
            return Ok(Outcome::Received);
        }
        Err(StepError::Signal(error)) => {
            tracing::debug!(%error, "message cannot be decrypted");
            let why = Undecryptable::failed(&error, enc.hide);
            return Ok(Outcome::Retry(why, error.retry_reason(), enc.count));
        }
    };
    if decrypted.identity_changed {
        devices::changed_implicitly(step, &context.message.sender, context.message.offline)?;
    }
    let version = u8::try_from(enc.version).unwrap_or(u8::MAX);
    let content = padding::unpad(version, &decrypted.plaintext)
        .and_then(|plaintext| message::decode(plaintext).map(|content| (content, plaintext.len())));
    match content {
        Ok((content, _)) => {
            let news = mark_received(step, context)?;
            deliver::deliver(step, context, content, news)
        }
        Err(error) => {
            tracing::warn!(%error, "plaintext is not a message");
            Ok(Outcome::Refused(Nack::InvalidProtobuf))
        }
    }
}

/// Notes that a message was received; false when it was before.
fn mark_received(step: &mut Step<'_>, context: &Context<'_>) -> Result<bool, Miss> {
    if is_received(step, context)? {
        return Ok(false);
    }
    step.put(context.received.clone(), ReceivedRecord { at: step.now.unix_seconds() }.to_bytes());
    Ok(true)
}

/// Exactly one answer per stanza.
fn answer(step: &mut Step<'_>, context: &Context<'_>, outcome: Outcome) -> Result<(), Miss> {
    let inbound = context.message;
    match outcome {
        Outcome::Received => step.send(&delivery_receipt(step, inbound).to_node()),
        Outcome::Handled(kind) => {
            let receipt = delivery_receipt(step, inbound);
            step.send(&receipt.to_node());
            let own = step.account().linked.as_ref().map(|linked| linked.pn.to_bare());
            if let Some(own) = own {
                let id = inbound.ack.id.as_str();
                let handled = DeliveryReceipt { id, to: &own, participant: None, recipient: None, kind: Some(kind) };
                step.send(&handled.to_node());
            }
        }
        Outcome::Retry(why, reason, count) => {
            let news = mark_failed(step, context)?;
            let again = ask_again(step, context, reason, count)?;
            if news {
                let why = why.asked_again(again.is_some());
                let event = undecryptable(step, context, &why);
                step.emit_from(inbound.offline, event);
            }
            step.send(&inbound.ack.ack());
        }
        Outcome::Dropped(why) => {
            if mark_told(step, context)? {
                let event = undecryptable(step, context, &why);
                step.emit_from(inbound.offline, event);
            }
            step.send(&inbound.ack.ack());
        }
        Outcome::Refused(reason) => step.send(&inbound.ack.nack(reason)),
    }
    Ok(())
}

/// The receipt that takes the place of an ack (spec 03 §5.5).
fn delivery_receipt<'a>(step: &Step<'_>, inbound: &'a InboundMessage) -> DeliveryReceipt<'a> {
    let ack = &inbound.ack;
    let (kind, recipient) = match (inbound.peer, inbound.from_me) {
        (true, _) => (Some("peer_msg"), None),
        (false, true) => (Some("sender"), ack.recipient.as_ref()),
        (false, false) => ((!step.config.online).then_some("inactive"), None),
    };
    DeliveryReceipt { id: &ack.id, to: &ack.from, participant: ack.participant.as_ref(), recipient, kind }
}
