//! What a decrypted message does: it is told, it changes another message, or it is housekeeping between our own devices.

use bytes::Bytes;

use super::{
    Context, Outcome, addons,
    target::{self, Target, target},
};
use crate::{
    appstate::keys::{SharedKey, shared_keys},
    engine::{
        address, groups,
        notices::{self, Standing},
        secrets,
        step::{Miss, Step},
        tokens,
    },
    event::{ChatObject, DeleteReason, Event},
    message::{
        Action, Normalised,
        content::Field,
        normalise, poll_of,
        protocol::{self, OwnSender, ProtocolKind, ProtocolType},
        unwrap_device_sent,
    },
    proto::e2e::{self, KeepType, pin_in_chat_message::Type as PinType},
    stanza::group::Role,
    store::{Key, RecordKind},
};

/// Official clients take an edit that was sent within this many seconds of the message (spec 03 §4.4).
pub(crate) const EDIT_WINDOW: u64 = 1_200;

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
        && let Some(sender) = protocol::own_sender(protocol)
    {
        return housekeeping(step, context, protocol, sender);
    }
    if news {
        tokens::met(step, context.chat)?;
        act(step, context, &content, &view)?;
    }
    Ok(Outcome::Received)
}

/// Tells what a message says or does.
fn act(step: &mut Step<'_>, context: &Context<'_>, content: &e2e::Message, view: &Normalised<'_>) -> Result<(), Miss> {
    let inner = view.content();
    match view.action() {
        Action::Content => match view.field() {
            Some(Field::PollUpdate | Field::EncEventResponse | Field::EncComment) => {
                addons::addon(step, context, content, inner)
            }
            _ if context.message.bot.is_edit => bot_piece(step, context, content),
            _ => {
                secrets::remember(step, context.chat, context.sender, &context.message.ack.id, sent_at(context), view);
                let event = notices::told(context, content, step.config.prefer);
                tell(step, context, event);
                Ok(())
            }
        },
        Action::Reaction => match &inner.reaction_message {
            Some(reaction) => {
                let target = target(step, context, reaction.key.as_deref())?;
                with(target, |target| self::reaction(step, context, target, reaction))
            }
            None => addons::addon(step, context, content, inner),
        },
        Action::Edit { target: key, message, timestamp_ms } => {
            let target = target(step, context, key)?;
            with(target, |target| edit(step, context, target, message, timestamp_ms))
        }
        Action::Revoke { target: key } => {
            let target = target(step, context, key)?;
            with(target, |target| revoke(step, context, target))
        }
        Action::AddOn => match view.field() {
            Some(Field::PinInChat) => pin(step, context, view),
            Some(Field::KeepInChat) => keep(step, context, inner),
            _ => addons::addon(step, context, content, inner),
        },
        Action::Protocol(kind, protocol) => {
            setting(step, context, kind, protocol);
            Ok(())
        }
        Action::Signalling | Action::KeyDistribution => Ok(()),
    }
}

/// What refers to no message that can be named is of no use to anybody.
fn with(target: Option<Target>, act: impl FnOnce(&Target) -> Result<(), Miss>) -> Result<(), Miss> {
    match target {
        Some(target) => act(&target),
        None => {
            tracing::warn!("a message refers to another one without naming it");
            Ok(())
        }
    }
}

pub(super) fn tell(step: &mut Step<'_>, context: &Context<'_>, event: Event) {
    step.emit_from(context.message.offline, event);
}

/// When the message was sent, unix seconds.
pub(super) fn sent_at(context: &Context<'_>) -> u64 {
    context.message.timestamp
}

/// An emoji was put on a message, or taken away.
pub(super) fn reaction(
    step: &mut Step<'_>,
    context: &Context<'_>,
    target: &Target,
    reaction: &e2e::ReactionMessage,
) -> Result<(), Miss> {
    let orphan = !target::is_known(step, target)?;
    let event = notices::reaction(context, target, reaction, orphan, step.config.prefer);
    tell(step, context, event);
    Ok(())
}

/// One more piece of the reply of a bot (spec 06 §3.33): the reply has the id of its first piece.
fn bot_piece(step: &mut Step<'_>, context: &Context<'_>, content: &e2e::Message) -> Result<(), Miss> {
    let inbound = context.message;
    let target = inbound.bot.edit_target_id.as_ref().map(|id| Target {
        chat: inbound.chat.clone(),
        place: context.chat.clone(),
        id: id.clone(),
        author: inbound.sender.to_account(),
        person: context.sender.clone(),
        from_me: false,
    });
    with(target, |target| {
        let orphan = !target::is_known(step, target)?;
        let event = notices::bot_piece(context, target, content, orphan, step.config.prefer);
        tell(step, context, event);
        Ok(())
    })
}

/// A message got new content. Only its author may do that.
pub(super) fn edit(
    step: &mut Step<'_>,
    context: &Context<'_>,
    target: &Target,
    message: &e2e::Message,
    timestamp_ms: Option<i64>,
) -> Result<(), Miss> {
    if !target.is_by(context.sender) {
        tracing::warn!("somebody edits a message of somebody else");
        return Ok(());
    }
    // Both are read before either is missed.
    let (known, kept) =
        (target::is_known(step, target), secrets::lookup(step, &target.place, &target.person, &target.id));
    let (known, kept) = (known?, kept?);
    let edited_at = timestamp_ms.and_then(|at| u64::try_from(at / 1_000).ok()).unwrap_or_else(|| sent_at(context));
    let late = kept.as_ref().is_some_and(|kept| kept.age(edited_at) > EDIT_WINDOW);
    if let (Some(mut kept), Some(poll)) = (kept, poll_of(&normalise(message))) {
        kept.set_options(poll.options.iter().filter_map(|option| option.option_name.as_deref()));
        kept.store(step);
    }
    let standing = Standing { late, orphan: !known };
    let event = notices::edited(context, target, message, standing, step.config.prefer);
    tell(step, context, event);
    Ok(())
}

/// A message was deleted for everybody: by its author, or by an admin of the group, whom the server lets say so.
fn revoke(step: &mut Step<'_>, context: &Context<'_>, target: &Target) -> Result<(), Miss> {
    let reason = match target.is_by(context.sender) {
        true => DeleteReason::Author,
        false if is_by_admin(step, context)? => DeleteReason::Admin,
        false => {
            tracing::warn!("somebody deletes a message of somebody else");
            return Ok(());
        }
    };
    let orphan = !target::is_known(step, target)?;
    let event = notices::deleted(context, target, reason, orphan, step.config.prefer);
    tell(step, context, event);
    Ok(())
}

/// Whether an admin of a group does something to what others wrote: the server lets admins alone say so in the stanza, and what
/// is known of the group must not say otherwise.
fn is_by_admin(step: &mut Step<'_>, context: &Context<'_>) -> Result<bool, Miss> {
    let inbound = context.message;
    if !inbound.chat.is_group() || inbound.edit.as_deref() != Some("8") {
        return Ok(false);
    }
    let Some(group) = groups::get(step, &inbound.chat)? else { return Ok(true) };
    let mut members = group.participants.into_iter();
    let sender = members.find(|member| context.sender.identities().any(|jid| member.person.is(jid)));
    Ok(sender.is_none_or(|sender| sender.role != Role::Member))
}

/// A message was pinned for so many seconds, or the pin was taken off.
fn pin(step: &mut Step<'_>, context: &Context<'_>, view: &Normalised<'_>) -> Result<(), Miss> {
    let Some(pin) = view.content().pin_in_chat_message.as_deref() else { return Ok(()) };
    let kind = pin.r#type.and_then(|kind| PinType::try_from(kind).ok());
    let Some(kind @ (PinType::PinForAll | PinType::UnpinForAll)) = kind else { return Ok(()) };
    let seconds = view.message_context().and_then(|context| context.message_add_on_duration_in_secs);
    let target = target(step, context, pin.key.as_deref())?;
    with(target, |target| {
        let orphan = !target::is_known(step, target)?;
        let event = notices::pinned(context, target, kind, seconds, orphan, step.config.prefer);
        tell(step, context, event);
        Ok(())
    })
}

/// A message is kept in a chat whose messages disappear, or not any more.
fn keep(step: &mut Step<'_>, context: &Context<'_>, content: &e2e::Message) -> Result<(), Miss> {
    let Some(keep) = content.keep_in_chat_message.as_deref() else { return Ok(()) };
    let kind = keep.keep_type.and_then(|kind| KeepType::try_from(kind).ok());
    let Some(kind @ (KeepType::KeepForAll | KeepType::UndoKeepForAll)) = kind else { return Ok(()) };
    let target = target(step, context, keep.key.as_deref())?;
    with(target, |target| {
        let orphan = !target::is_known(step, target)?;
        let event = notices::kept(context, target, kind, orphan, step.config.prefer);
        tell(step, context, event);
        Ok(())
    })
}

/// Somebody sets something about the chat, or about themselves in it.
fn setting(step: &mut Step<'_>, context: &Context<'_>, kind: ProtocolType, protocol: &e2e::ProtocolMessage) {
    let prefer = step.config.prefer;
    let is_group = context.message.chat.is_group();
    let event = match kind {
        // The timer of a group is the server's word (spec 06 §3.23).
        ProtocolType::Other(ProtocolKind::EphemeralSetting | ProtocolKind::EphemeralSyncResponse) if !is_group => {
            notices::chat_set(context, prefer, |chat: &mut ChatObject| {
                chat.ephemeral_expiration = Some(protocol.ephemeral_expiration.unwrap_or(0));
                let at = protocol.ephemeral_setting_timestamp.and_then(|at| u64::try_from(at).ok());
                chat.ephemeral_setting_timestamp = at.or_else(|| Some(sent_at(context)));
            })
        }
        ProtocolType::Other(ProtocolKind::LimitSharing) => {
            let limited = protocol.limit_sharing.as_ref().and_then(|limit| limit.sharing_limited);
            notices::chat_set(context, prefer, |chat| chat.limit_sharing = limited)
        }
        ProtocolType::Other(ProtocolKind::GroupMemberLabelChange) if is_group => {
            let label = protocol.member_label.as_ref().and_then(|label| label.label.as_deref());
            notices::member_tag(context, label, prefer)
        }
        _ => return,
    };
    tell(step, context, event);
}

/// Messages by which own devices keep each other up to date (spec 06 §5). From anybody else they are dropped, and those of the
/// phone from any other device (spec 03 §5.2).
fn housekeeping(
    step: &mut Step<'_>,
    context: &Context<'_>,
    protocol: &e2e::ProtocolMessage,
    sender: OwnSender,
) -> Result<Outcome, Miss> {
    let inbound = context.message;
    if !inbound.from_me || sender == OwnSender::Primary && inbound.sender.device() != 0 {
        tracing::warn!("somebody else sent a message that only own devices send");
        return Ok(Outcome::Received);
    }
    if let Some(share) = &protocol.app_state_sync_key_share {
        keep_keys(step, share)?;
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

/// Keeps keys of app state that another own device shares. One that is known stays as it is (spec 05 §A2.3).
fn keep_keys(step: &mut Step<'_>, share: &e2e::AppStateSyncKeyShare) -> Result<(), Miss> {
    let shared: Vec<_> = shared_keys(share)
        .filter_map(|shared| match shared {
            SharedKey::Key(id, key) => Some((Key::new(RecordKind::AppStateKey, id.as_bytes()), key)),
            SharedKey::Absent(_) => None,
        })
        .collect();
    step.require(shared.iter().map(|(name, _)| name))?;
    for (name, key) in shared {
        match step.read(&name)? {
            None => step.put(name, Bytes::copy_from_slice(&key)),
            Some(known) if known[..] != key[..] => tracing::warn!("another key of app state under a known id"),
            Some(_) => {}
        }
    }
    Ok(())
}
