//! What a decrypted message does: it is told, or it is housekeeping between our own devices.

use bytes::Bytes;

use super::{Context, Outcome};
use crate::{
    engine::{
        address, notices,
        step::{Miss, Step},
    },
    message::{normalise, protocol, unwrap_device_sent},
    proto::{Message as _, e2e},
    store::{Key, RecordKind},
};

/// Acts on a decrypted message, and tells the application when it is `news`.
///
/// # Errors
/// [`Miss`].
pub(super) fn deliver(
    step: &mut Step<'_>,
    context: &Context<'_>,
    content: e2e::Message,
    news: bool,
) -> Result<Outcome, Miss> {
    let inbound = context.message;
    let (content, destination) = unwrap_device_sent(content);
    if destination.is_some() && !inbound.from_me {
        tracing::warn!("somebody else sent a copy that only own devices send");
        return Ok(Outcome::Received);
    }
    let view = normalise(&content);
    if let Some(protocol) = view.content().protocol_message.as_deref()
        && protocol::own_sender(protocol).is_some()
    {
        return housekeeping(step, context, protocol);
    }
    if !notices::is_visible(&view) {
        return Ok(Outcome::Received);
    }
    if news {
        let prefer = step.config.prefer;
        let event = match inbound.from_me {
            true => notices::sent_elsewhere(inbound, context.chat, &content, prefer),
            false => notices::received(context, &content, prefer),
        };
        step.emit_from(inbound.offline, event);
    }
    Ok(Outcome::Received)
}

/// Messages by which own devices keep each other up to date (spec 06 §5). From anybody else they are dropped.
fn housekeeping(step: &mut Step<'_>, context: &Context<'_>, protocol: &e2e::ProtocolMessage) -> Result<Outcome, Miss> {
    let inbound = context.message;
    if !inbound.from_me {
        tracing::warn!("somebody else sent a message that only own devices send");
        return Ok(Outcome::Received);
    }
    if let Some(share) = &protocol.app_state_sync_key_share {
        for key in &share.keys {
            let id = key.key_id.as_ref().and_then(|id| id.key_id.as_ref());
            if let (Some(id), Some(data)) = (id, &key.key_data) {
                step.put(Key::new(RecordKind::AppStateKey, id), Bytes::from(data.encode_to_vec()));
            }
        }
    }
    if let Some(table) = &protocol.lid_migration_mapping_sync_message
        && inbound.sender.device() == 0
    {
        address::learn_table(step, table)?;
    }
    Ok(match protocol.history_sync_notification {
        Some(_) => Outcome::Handled("hist_sync"),
        None => Outcome::Received,
    })
}
