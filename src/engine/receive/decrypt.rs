//! The ciphertexts of a stanza, in the order that the protocol wants (spec 03 §5.2): pairwise ones first, which may bring
//! the key for the sender-key one, then that, then the one by message secret.
//!
//! A stanza is one message, however many ciphertexts it has. What was delivered is received, whatever else failed; the
//! application would hear of it only once in any case.

use std::sync::Arc;

use super::{Context, Failure, Outcome, Seen, bot, deliver, marks, recovered, seen, sender_keys};
use crate::{
    engine::{
        Account, address, devices, keys,
        notices::Undecryptable,
        retry::{ask::retry_key, placeholder},
        step::{Miss, Step, own},
    },
    message::{self, Action, MessageError, content::has_unknown_field, normalise, padding},
    proto::e2e,
    signal::{self, Address, SignalError, StepError},
    stanza::{
        ack::Nack,
        message::{Enc, EncKind},
    },
};

/// What came of one ciphertext.
pub(super) enum Part {
    /// Its content was delivered, now or before.
    Delivered(Outcome),
    /// It brought a sender key and nothing else.
    Keys,
    /// It cannot be decrypted.
    Failed(Failure),
    /// It was decrypted and is no message.
    NoMessage,
    /// It will never be read.
    Lost(Outcome),
}

/// What came of the ciphertexts so far.
#[derive(Default)]
struct Parts {
    delivered: Option<Outcome>,
    failed: Option<Failure>,
    lost: Option<Outcome>,
    no_message: bool,
}

impl Parts {
    fn add(&mut self, part: Part) {
        match part {
            Part::Delivered(outcome) => drop(self.delivered.get_or_insert(outcome)),
            Part::Keys => {}
            Part::Failed(failure) => drop(self.failed.get_or_insert(failure)),
            Part::NoMessage => self.no_message = true,
            Part::Lost(outcome) => drop(self.lost.get_or_insert(outcome)),
        }
    }
}

/// Decrypts what can be, and delivers it.
///
/// # Errors
/// [`Miss`].
pub(super) fn decrypt_all(step: &mut Step<'_>, context: &Context<'_>) -> Result<Outcome, Miss> {
    let inbound = context.message;
    let sender = address::device(step, &inbound.sender)?;
    declare_reads(step, context, &sender)?;
    if inbound.is_by_sender_key() {
        sender_keys::relocate(step, context, &sender)?;
    }
    let account = Arc::clone(step.account());
    let mut parts = Parts::default();
    for enc in &inbound.encs {
        if let EncKind::Pairwise(kind) = enc.kind {
            parts.add(pairwise(step, context, &account, &sender, kind, enc)?);
        }
    }
    // Without what the pairwise one would have brought there is no use in trying.
    if parts.failed.is_none() {
        for enc in inbound.encs.iter().filter(|enc| enc.kind == EncKind::SenderKey) {
            parts.add(by_sender_key(step, context, &sender, enc)?);
        }
    }
    for enc in inbound.encs.iter().filter(|enc| enc.kind == EncKind::MessageSecret) {
        parts.add(bot::reply(step, context, enc)?);
    }
    let Parts { delivered, failed, lost, no_message } = parts;
    if delivered.is_none() && failed.is_none() && no_message {
        // The ciphertext is used up: when it comes again, there is nothing more to say about it.
        marks::mark(step, context)?;
        return Ok(Outcome::Refused(Nack::InvalidProtobuf, None));
    }
    Ok(delivered.or_else(|| failed.map(Outcome::Retry)).or(lost).unwrap_or(Outcome::Received))
}

/// Everything that is known to be read before the first curve operation.
fn declare_reads(step: &mut Step<'_>, context: &Context<'_>, sender: &Address) -> Result<(), Miss> {
    let mut reads = vec![context.received.clone(), keys::session(sender), keys::identity(sender), retry_key(context)];
    reads.extend(context.before.iter().cloned());
    for enc in &context.message.encs {
        let EncKind::Pairwise(kind) = enc.kind else { continue };
        let Ok(peek) = signal::peek(kind, &enc.bytes) else { continue };
        reads.extend(peek.pre_key.map(|id| keys::pre_key(id.0)));
        reads.extend(peek.signed_pre_key.map(|id| keys::signed_pre_key(id.0)));
        if peek.signed_pre_key.is_some() {
            reads.push(keys::archive_index(sender));
        }
    }
    if context.message.is_by_sender_key() {
        reads.extend(sender_keys::reads(context, sender));
    }
    step.require(&reads)
}

fn pairwise(
    step: &mut Step<'_>,
    context: &Context<'_>,
    account: &Account,
    sender: &Address,
    kind: signal::CiphertextKind,
    enc: &Enc,
) -> Result<Part, Miss> {
    let decrypted = match signal::decrypt(step, &own(account), sender, kind, &enc.bytes) {
        Ok(decrypted) => decrypted,
        Err(StepError::Miss(miss)) => return Err(miss),
        Err(StepError::Signal(error)) => return refused(step, context, enc, &error),
    };
    if decrypted.identity_changed {
        devices::changed_implicitly(step, &context.message.sender, context.message.offline)?;
    }
    take(step, context, sender, enc, &decrypted.plaintext)
}

fn by_sender_key(step: &mut Step<'_>, context: &Context<'_>, sender: &Address, enc: &Enc) -> Result<Part, Miss> {
    match sender_keys::decrypt(step, context, sender, &enc.bytes) {
        // A key that comes this way is not taken: only a pairwise session says whose it is.
        Ok(decrypted) => match decode(enc, &decrypted.plaintext) {
            Ok((content, _)) => delivered(step, context, content),
            Err(error) => Ok(no_message(&error)),
        },
        Err(StepError::Miss(miss)) => Err(miss),
        Err(StepError::Signal(error)) => refused(step, context, enc, &error),
    }
}

/// The Signal layer refuses a ciphertext. One that was decrypted before is fine: what was in it is stored since the step that
/// moved the chain.
fn refused(step: &mut Step<'_>, context: &Context<'_>, enc: &Enc, error: &SignalError) -> Result<Part, Miss> {
    if *error == SignalError::Duplicate {
        match (seen(step, context)?, &enc.kind) {
            (Seen::Whole, _) => return Ok(Part::Delivered(Outcome::Received)),
            (Seen::Keys, EncKind::Pairwise(_)) => return Ok(Part::Keys),
            _ => {}
        }
    }
    tracing::debug!(%error, "message cannot be decrypted");
    // A sender that has given its key to nobody cannot know that we lack it; one that is hosted has no other way.
    let alone = !context.message.encs.iter().any(|enc| matches!(enc.kind, EncKind::Pairwise(_)));
    let needs_keys = (alone && *error == SignalError::NoSenderKey) || context.message.sender.is_hosted();
    let why = Undecryptable::failed(error, enc.hide);
    Ok(Part::Failed(Failure { why, reason: error.retry_reason(), resends: enc.count, needs_keys }))
}

/// Takes a payload of a pairwise session: the sender key in it first, then its content.
fn take(step: &mut Step<'_>, context: &Context<'_>, sender: &Address, enc: &Enc, padded: &[u8]) -> Result<Part, Miss> {
    let (content, plaintext) = match decode(enc, padded) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(no_message(&error)),
    };
    sender_keys::take(step, context, sender, &content)?;
    if is_keys_only(&content, plaintext) {
        marks::mark_keys(step, context)?;
        return Ok(Part::Keys);
    }
    delivered(step, context, content)
}

/// The message in a payload, and its bytes.
fn decode<'p>(enc: &Enc, padded: &'p [u8]) -> Result<(e2e::Message, &'p [u8]), MessageError> {
    let version = u8::try_from(enc.version).unwrap_or(u8::MAX);
    let plaintext = padding::unpad(version, padded)?;
    Ok((message::decode(plaintext)?, plaintext))
}

pub(super) fn no_message(error: &MessageError) -> Part {
    tracing::debug!(%error, "plaintext is not a message");
    Part::NoMessage
}

/// Delivers a content, once.
///
/// # Errors
/// [`Miss`].
pub(super) fn delivered(step: &mut Step<'_>, context: &Context<'_>, content: e2e::Message) -> Result<Part, Miss> {
    let news = marks::mark(step, context)?;
    placeholder::arrived(step, context);
    recovered::answered(step, context, &content)?;
    deliver::deliver(step, context, content, news).map(Part::Delivered)
}

/// Whether a payload brings a sender key and nothing that anybody could want to see.
fn is_keys_only(content: &e2e::Message, plaintext: &[u8]) -> bool {
    let view = normalise(content);
    let handed = |message: &e2e::Message| {
        message.sender_key_distribution_message.is_some()
            || message.fast_ratchet_key_sender_key_distribution_message.is_some()
    };
    let is_handed = handed(content) || handed(view.content());
    is_handed && view.action() == Action::KeyDistribution && !has_unknown_field(plaintext)
}
