//! What is encrypted with the secret of the message that it refers to (spec 03 §5.8, spec 06 §4): votes, answers to events,
//! reactions and comments of announcement groups, edits.
//!
//! Nobody can be asked for the secret of another message. What cannot be opened is told with its reason and the content as it
//! came, and is acknowledged like any other message.

use super::{
    Context,
    deliver::{edit, reaction, sent_at, tell},
    target::{Target, target},
};
use crate::{
    engine::{
        notices::{self, Vote},
        secrets::{self, Kept},
        step::{Miss, Step},
    },
    message::{
        Action, normalise,
        secret::{
            self, Person, Spelling, UseCase,
            addon::{Addon, AddonContent},
        },
    },
    proto::e2e::Message,
};

/// Why an addon cannot be read; words of `message.undecryptable`.
mod reason {
    /// The secret of the message that it refers to is not known.
    pub(super) const MISSING_SECRET: &str = "missing_secret";
    /// It was not made with that secret, or by somebody else than it says.
    pub(super) const BAD_SECRET: &str = "bad_secret";
    /// It names no message, or what is inside is not what it says.
    pub(super) const INVALID: &str = "invalid_addon";
    /// Of a type that nobody here can read.
    pub(super) const UNSUPPORTED: &str = "unsupported";
}

/// Acts on a message that is encrypted with the secret of another one. `content` is the message as it came, `inner` what is left
/// without wrappers.
///
/// # Errors
/// [`Miss`].
pub(super) fn addon(
    step: &mut Step<'_>,
    context: &Context<'_>,
    content: &Message,
    inner: &Message,
) -> Result<(), Miss> {
    let unreadable = |step: &mut Step<'_>, target: Option<&Target>, reason| {
        let event = notices::unreadable_addon(context, target, content, reason, step.config.prefer);
        tell(step, context, event);
        Ok(())
    };
    let Some(addon) = Addon::find(inner) else { return unreadable(step, None, reason::UNSUPPORTED) };
    let Some(target) = target(step, context, Some(addon.target))? else {
        return unreadable(step, None, reason::INVALID);
    };
    let kept = secrets::lookup(step, &target.place, &target.person, &target.id)?;
    let Some((kept, secret)) = kept.and_then(|kept| kept.secret().map(|secret| (kept, secret))) else {
        return unreadable(step, Some(&target), reason::MISSING_SECRET);
    };
    let sender = context.message.sender.to_account();
    let person = Person { jid: &sender, alternate: context.sender.other(&sender) };
    let author = Person { jid: &target.author, alternate: target.person.other(&target.author) };
    let about = secret::Target { secret: &secret, id: &target.id, author };
    let opened = secret::open(&about, person, addon.use_case, addon.iv, addon.payload, Spelling::default());
    let Ok(opened) = opened else { return unreadable(step, Some(&target), reason::BAD_SECRET) };
    let Ok(inside) = AddonContent::decode(addon.use_case, &opened.plaintext) else {
        return unreadable(step, Some(&target), reason::INVALID);
    };
    match inside {
        AddonContent::Vote(hashes) => {
            let at_ms = addon.sent_at_ms.unwrap_or_else(|| millis(sent_at(context)));
            vote(step, context, &target, kept, content, &hashes, at_ms)
        }
        AddonContent::EventResponse(response) => {
            let event = notices::event_response(context, &target, &response, step.config.prefer);
            tell(step, context, event);
            Ok(())
        }
        AddonContent::Reaction(inside) => reaction(step, context, &target, &inside),
        AddonContent::Message(message) => match addon.use_case {
            UseCase::Comment => comment(step, context, &target, content, &message),
            UseCase::PollAddOption => match added_option(&message) {
                Some(name) => {
                    add_option(step, context, &target, kept, name);
                    Ok(())
                }
                None => unreadable(step, Some(&target), reason::INVALID),
            },
            _ => match normalise(&message).action() {
                Action::Edit { message, timestamp_ms, .. } => edit(step, context, &target, message, timestamp_ms),
                _ => edit(step, context, &target, &message, None),
            },
        },
    }
}

fn vote(
    step: &mut Step<'_>,
    context: &Context<'_>,
    target: &Target,
    mut kept: Kept,
    content: &Message,
    hashes: &[[u8; 32]],
    at_ms: i64,
) -> Result<(), Miss> {
    let outdated = !kept.count(step, context.sender, hashes, at_ms)?;
    let vote = Vote { hashes, at_ms, outdated, options: &kept.record.options };
    let prefer = step.config.prefer;
    let message = notices::vote_message(context, content, &vote, prefer);
    tell(step, context, message);
    let event = notices::poll_vote(context, target, &vote, prefer);
    tell(step, context, event);
    Ok(())
}

/// A comment can be reacted to in turn: it brings a secret of its own, inside or outside.
fn comment(
    step: &mut Step<'_>,
    context: &Context<'_>,
    target: &Target,
    carrier: &Message,
    message: &Message,
) -> Result<(), Miss> {
    let (id, inner) = (&context.message.ack.id, normalise(message));
    let view = if inner.message_secret().is_some() { inner } else { normalise(carrier) };
    secrets::remember(step, context.chat, context.sender, id, sent_at(context), &view);
    let event = notices::comment(context, target, message, step.config.prefer);
    tell(step, context, event);
    Ok(())
}

fn added_option(message: &Message) -> Option<&str> {
    let name = message.poll_add_option_message.as_deref()?.add_option.as_deref()?.option_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

fn add_option(step: &mut Step<'_>, context: &Context<'_>, target: &Target, mut kept: Kept, name: &str) {
    if kept.add_option(name) {
        kept.store(step);
        let event = notices::option_added(context, target, name, step.config.prefer);
        tell(step, context, event);
    }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
