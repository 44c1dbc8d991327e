//! What the phone sends again because we asked for it (spec 03 §5.6): delivered as the message that it was, and as nothing
//! else.

use super::{Context, deliver, marks};
use crate::{
    engine::{
        address,
        retry::placeholder,
        step::{Miss, Step},
    },
    event::Source,
    message::{MAX_PAYLOAD, normalise},
    proto::{Message as _, e2e, web},
};

/// Takes the answer of the phone out of a message, if it is one and comes from the phone. What was not asked for, or came
/// meanwhile, changes nothing.
///
/// # Errors
/// [`Miss`].
pub(super) fn answered(step: &mut Step<'_>, context: &Context<'_>, content: &e2e::Message) -> Result<(), Miss> {
    if !context.message.from_me || context.message.sender.device() != 0 {
        return Ok(());
    }
    let view = normalise(content);
    let protocol = view.content().protocol_message.as_deref();
    let Some(response) = protocol.and_then(|message| message.peer_data_operation_request_response_message.as_deref())
    else {
        return Ok(());
    };
    let mut missed = Ok(());
    for result in &response.peer_data_operation_result {
        let resent = result.placeholder_message_resend_response.as_deref();
        let Some(bytes) = resent.and_then(|resent| resent.web_message_info_bytes.as_ref()) else { continue };
        let Some(info) = decode(bytes) else {
            tracing::debug!("what the phone sends again is not a message");
            continue;
        };
        // All are looked at, so that one round loads everything.
        missed = recover(step, context, info).and(missed);
    }
    missed
}

fn decode(bytes: &[u8]) -> Option<web::WebMessageInfo> {
    if bytes.len() > MAX_PAYLOAD { None } else { web::WebMessageInfo::decode(bytes).ok() }
}

fn recover(step: &mut Step<'_>, answer: &Context<'_>, info: web::WebMessageInfo) -> Result<(), Miss> {
    let (Some(key), Some(mut content)) = (info.key, info.message) else { return Ok(()) };
    let Some(mut message) = placeholder::find(step, &key)? else { return Ok(()) };
    message.push_name = info.push_name.filter(|name| !name.is_empty()).map(Into::into);
    message.offline = answer.message.offline;
    let (chat, sender) = (address::user(step, &message.chat)?, address::user(step, &message.sender)?);
    let context = Context::new(&message, Source::PhoneResend, &chat, &sender);
    // The phone keeps the secret beside the message.
    if let Some(secret) = info.message_secret {
        content.message_context_info.get_or_insert_default().message_secret.get_or_insert(secret);
    }
    placeholder::arrived(step, &context);
    let news = marks::mark(step, &context)?;
    deliver::deliver(step, &context, *content, news)?;
    Ok(())
}
