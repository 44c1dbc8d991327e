//! Replies of bots, encrypted with the secret of the message that they answer (spec 03 §5.8).
//!
//! There is no chain: what comes again is decrypted again, and the mark tells that it was told.

use super::{
    Context, Outcome,
    decrypt::{Part, delivered, no_message},
};
use crate::{
    engine::{
        address::{self, User},
        notices::Undecryptable,
        secrets,
        step::{Miss, Step},
    },
    jid::Jid,
    message::{
        self,
        secret::{
            Person,
            bot::{BotReply, bot_secret, open_reply},
        },
    },
    stanza::{ack::Nack, message::Enc},
};

/// Decrypts a reply, and delivers it.
///
/// # Errors
/// [`Miss`].
pub(super) fn reply(step: &mut Step<'_>, context: &Context<'_>, enc: &Enc) -> Result<Part, Miss> {
    let inbound = context.message;
    let info = &inbound.bot;
    let asker = asker(step, context)?;
    // Without a target it is the first piece that a later one goes on with, if at all.
    let target = info.target_id.as_ref().or(info.edit_target_id.as_ref());
    let kept = match (&asker, target) {
        (Some((_, user)), Some(id)) => secrets::lookup(step, context.chat, user, id)?,
        _ => None,
    };
    let (Some((jid, user)), Some(secret)) = (&asker, kept.and_then(|kept| kept.secret())) else {
        let why = Undecryptable::no_message_secret();
        return Ok(Part::Lost(Outcome::Refused(Nack::MissingMessageSecret, Some(why))));
    };
    let person = match user.other(jid) {
        Some(other) => Person::with_alternate(jid, other),
        None => Person::new(jid),
    };
    let reply = BotReply {
        secret: &bot_secret(&secret),
        user: person,
        bot: &inbound.sender,
        stanza_id: &inbound.ack.id,
        edit_target_id: info.edit_target_id.as_deref(),
        is_edit: info.is_edit,
    };
    let plaintext = match open_reply(&reply, &enc.bytes) {
        Ok(plaintext) => plaintext,
        Err(error) => {
            tracing::debug!(%error, "the reply of a bot cannot be decrypted");
            return Ok(Part::Lost(Outcome::Dropped(Undecryptable::bot_reply(enc.hide))));
        }
    };
    match message::decode(&plaintext) {
        Ok(content) => match delivered(step, context, content)? {
            // In a chat with somebody else it is no message that was delivered to us (spec 03 §5.3).
            Part::Delivered(_) if inbound.is_of_bot_elsewhere() => Ok(Part::Delivered(Outcome::Acknowledged)),
            part => Ok(part),
        },
        Err(error) => Ok(no_message(&error)),
    }
}

/// Who wrote the message that is answered, as the bot knows them: whom it names, else we ourselves, by LID to a bot that
/// has no number.
fn asker(step: &mut Step<'_>, context: &Context<'_>) -> Result<Option<(Jid, User)>, Miss> {
    let jid = match (&context.message.bot.target_sender, &step.account().linked) {
        (Some(named), _) => named.clone(),
        (None, Some(linked)) => {
            let by_number = context.message.sender.is_pn_family();
            let lid = linked.lid.as_ref().filter(|_| !by_number);
            lid.unwrap_or(&linked.pn).to_bare()
        }
        (None, None) => return Ok(None),
    };
    let user = address::user(step, &jid)?;
    Ok(Some((jid, user)))
}
