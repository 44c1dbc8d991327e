//! The one answer that a stanza gets (spec 03 §5.3), and what is told when it cannot be read.

use std::time::Duration;

use super::{Context, Failure, Outcome};
use crate::{
    engine::{
        notices::{self, Undecryptable},
        retry::{ask, placeholder},
        step::{Miss, Step},
    },
    jid::Jid,
    stanza::{message::InboundMessage, receipt::DeliveryReceipt},
};

/// Answers a stanza.
///
/// # Errors
/// [`Miss`].
pub(super) fn answer(step: &mut Step<'_>, context: &Context<'_>, outcome: Outcome) -> Result<(), Miss> {
    let inbound = context.message;
    match outcome {
        Outcome::Received => {
            let receipt = delivery_receipt(step, inbound);
            step.confirm(inbound.offline, &receipt);
        }
        Outcome::Handled(kind) => {
            let receipt = delivery_receipt(step, inbound);
            step.send(&receipt.to_node());
            let own = step.account().linked.as_ref().map(|linked| linked.pn.to_bare());
            if let Some(own) = own {
                step.send(&handled(&own, &inbound.ack.id, kind).to_node());
            }
        }
        Outcome::Acknowledged => step.send(&inbound.ack.ack()),
        Outcome::Retry(failure) => {
            ask_again(step, context, failure)?;
            step.send(&inbound.ack.ack());
        }
        Outcome::Unavailable(kind) => {
            if ask::mark_failed(step, context)? {
                let comes = placeholder::is_given_away(&kind) && placeholder::want(step, context, Duration::ZERO);
                tell(step, context, &Undecryptable::unavailable(&kind).asked_again(comes));
            }
            step.send(&inbound.ack.ack());
        }
        Outcome::Dropped(why) => {
            if ask::mark_failed(step, context)? {
                tell(step, context, &why);
            }
            step.send(&inbound.ack.ack());
        }
        Outcome::Refused(reason, why) => {
            if let Some(why) = why
                && ask::mark_failed(step, context)?
            {
                tell(step, context, &why);
            }
            step.send(&inbound.ack.nack(reason));
        }
    }
    Ok(())
}

/// Asks the sender, has the phone asked unless that helps soon, and tells that the message cannot be read, or not yet.
fn ask_again(step: &mut Step<'_>, context: &Context<'_>, failure: Failure) -> Result<(), Miss> {
    let news = ask::mark_failed(step, context)?;
    let again = ask::ask_again(step, context, &failure)?;
    if news {
        let comes = placeholder::want(step, context, placeholder::DELAY) || again;
        tell(step, context, &failure.why.asked_again(comes));
    }
    Ok(())
}

/// Tells that a message cannot be shown. Housekeeping of our own devices never would be.
fn tell(step: &mut Step<'_>, context: &Context<'_>, why: &Undecryptable) {
    if context.message.from_me && context.message.peer {
        tracing::debug!(?why, "a message between our own devices cannot be read");
        return;
    }
    let event = notices::undecryptable(context, why, step.config.prefer);
    step.emit_from(context.message.offline, event);
}

/// The receipt that takes the place of an ack (spec 03 §5.5).
fn delivery_receipt<'a>(step: &Step<'_>, inbound: &'a InboundMessage) -> DeliveryReceipt<'a> {
    let ack = &inbound.ack;
    let is_status = inbound.chat.is_status_broadcast();
    let (kind, recipient) = match (inbound.from_me, inbound.peer) {
        (true, true) => (Some("peer_msg"), None),
        (true, false) => (Some("sender"), ack.recipient.as_ref()),
        // Whatever somebody else calls it, it is no housekeeping.
        (false, _) => ((!step.config.online && !is_status).then_some("inactive"), None),
    };
    DeliveryReceipt {
        id: &ack.id,
        to: &ack.from,
        participant: ack.participant.as_ref(),
        recipient,
        kind,
        context: is_status.then_some("status"),
    }
}

/// Tells our own devices that history or housekeeping was taken.
fn handled<'a>(own: &'a Jid, id: &'a str, kind: &'static str) -> DeliveryReceipt<'a> {
    DeliveryReceipt { id, to: own, participant: None, recipient: None, kind: Some(kind), context: None }
}
