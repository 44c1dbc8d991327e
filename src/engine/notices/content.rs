//! The events about what becomes of messages (spec 07 §5 and §7.2).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{content, inbound_key, object, received, sent_elsewhere};
use crate::{
    engine::{
        address::User,
        receive::{Context, target::Target},
        records::PollOption,
    },
    event::{
        AddressingMode, BotPiece, ChatObject, ChatsUpdate, DeleteReason, DeletedMessage, Event, EventAnswer,
        GroupMemberTag, Keep, MessageComment, MessageDeleted, MessageEventResponse, MessageKey, MessagePollVote,
        MessageReaction, MessageUndecryptable, MessageUpdated, Pin, PollResult, Prefer, ReactedMessage, Reaction,
        Reply, UpdatedMessage,
    },
    jid::Jid,
    message::{normalise, secret},
    proto::{
        common,
        e2e::{
            EventResponseMessage, KeepType, Message, ReactionMessage, event_response_message::EventResponseType,
            pin_in_chat_message,
        },
    },
};

/// The key of a message that another one is about.
fn target_key(target: &Target, prefer: Prefer) -> MessageKey {
    let mut key = MessageKey::new(target.chat.to_bare(), target.from_me, target.id.as_str());
    key.remote_jid_alt = target.place.other(&target.chat).cloned();
    key.addressing_mode = match (target.chat.is_lid_family(), target.chat.is_pn_family()) {
        (true, _) => Some(AddressingMode::Lid),
        (_, true) => Some(AddressingMode::Pn),
        _ => None,
    };
    if target.chat.is_group() || target.chat.is_broadcast() {
        key.participant_alt = target.person.other(&target.author).cloned();
        key.participant = Some(target.author.clone());
    }
    key.preferring(prefer)
}

/// Somebody as events show them, and the other identity.
fn person(jid: &Jid, user: &User, prefer: Prefer) -> (Jid, Option<Jid>) {
    let jid = jid.to_account();
    let other = user.other(&jid).cloned();
    let wanted = |jid: &Jid| match prefer {
        Prefer::Pn => jid.is_pn_family(),
        Prefer::Lid => jid.is_lid_family(),
        _ => false,
    };
    match other {
        Some(other) if wanted(&other) && !wanted(&jid) => (other, Some(jid)),
        other => (jid, other),
    }
}

fn sender(context: &Context<'_>, prefer: Prefer) -> (Jid, Option<Jid>) {
    person(&context.message.sender, context.sender, prefer)
}

/// A change of a message, with what all of them have.
fn updated(context: &Context<'_>, target: &Target, prefer: Prefer) -> UpdatedMessage {
    UpdatedMessage::new(target_key(target, prefer), context.message.timestamp, context.message.ack.id.as_str())
}

/// What is known of the target of an edit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// The edit came too late for official clients.
    pub(crate) late: bool,
    /// The message was not seen.
    pub(crate) orphan: bool,
}

/// A message has new content.
pub(crate) fn edited(
    context: &Context<'_>,
    target: &Target,
    message: &Message,
    standing: Standing,
    prefer: Prefer,
) -> Event {
    let mut update = updated(context, target, prefer);
    let view = normalise(message);
    update.message = content(view.original());
    update.text = view.text().map(str::to_owned);
    update.edited = true;
    update.late = standing.late;
    update.orphan = standing.orphan;
    update.update = update.message.as_ref().map(|content| {
        json!({"message": {"editedMessage": {"message": content}}, "messageTimestamp": context.message.timestamp})
    });
    MessageUpdated::new(vec![update]).into()
}

/// The reply of a bot has gone on: the piece takes the place of those before it.
pub(crate) fn bot_piece(
    context: &Context<'_>,
    target: &Target,
    message: &Message,
    orphan: bool,
    prefer: Prefer,
) -> Event {
    let standing = Standing { late: false, orphan };
    let mut event = edited(context, target, message, standing, prefer);
    if let Event::MessageUpdated(updated) = &mut event {
        let piece = BotPiece::new(context.message.bot.is_last);
        updated.messages.iter_mut().for_each(|message| message.bot = Some(piece));
    }
    event
}

/// A poll has one more option.
pub(crate) fn option_added(context: &Context<'_>, target: &Target, name: &str, prefer: Prefer) -> Event {
    let mut update = updated(context, target, prefer);
    update.added_option = Some(name.to_owned());
    MessageUpdated::new(vec![update]).into()
}

/// A message was pinned, for so many seconds, or the pin was taken off.
pub(crate) fn pinned(
    context: &Context<'_>,
    target: &Target,
    kind: pin_in_chat_message::Type,
    seconds: Option<u32>,
    orphan: bool,
    prefer: Prefer,
) -> Event {
    let mut update = updated(context, target, prefer);
    let end = |seconds: u32| context.message.timestamp.saturating_add(seconds.into()).saturating_mul(1_000);
    let is_pin = kind == pin_in_chat_message::Type::PinForAll;
    let expires = seconds.filter(|seconds| is_pin && *seconds != 0).map(end);
    update.pin = Some(Pin::new(kind.as_str_name(), sender(context, prefer).0, expires));
    update.orphan = orphan;
    MessageUpdated::new(vec![update]).into()
}

/// A message is kept although its chat forgets, or not any more.
pub(crate) fn kept(context: &Context<'_>, target: &Target, kind: KeepType, orphan: bool, prefer: Prefer) -> Event {
    let mut update = updated(context, target, prefer);
    update.keep = Some(Keep::new(kind.as_str_name(), sender(context, prefer).0));
    update.orphan = orphan;
    MessageUpdated::new(vec![update]).into()
}

/// A message was deleted for everybody.
pub(crate) fn deleted(
    context: &Context<'_>,
    target: &Target,
    reason: DeleteReason,
    orphan: bool,
    prefer: Prefer,
) -> Event {
    let by = sender(context, prefer).0;
    let mut deleted = DeletedMessage::new(target_key(target, prefer), context.message.timestamp, by, reason);
    deleted.orphan = orphan;
    MessageDeleted::new(vec![deleted]).into()
}

/// A reaction, whether it came encrypted or not.
pub(crate) fn reaction(
    context: &Context<'_>,
    target: &Target,
    reaction: &ReactionMessage,
    orphan: bool,
    prefer: Prefer,
) -> Event {
    let key = target_key(target, prefer);
    let shown = Reaction::new(
        inbound_key(context, prefer),
        reaction.text.clone().unwrap_or_default(),
        reaction.sender_timestamp_ms,
    );
    let own_view = common::MessageKey {
        remote_jid: Some(target.chat.to_bare().to_string()),
        from_me: Some(target.from_me),
        id: Some(target.id.clone()),
        participant: key.participant.as_ref().map(|_| target.author.to_string()),
    };
    let as_content = ReactionMessage { key: Some(Box::new(own_view)), ..reaction.clone() };
    let mut reacted = ReactedMessage::new(key, shown, context.message.timestamp);
    reacted.push_name = context.message.push_name.as_ref().map(ToString::to_string);
    reacted.message = content(&Message { reaction_message: Some(Box::new(as_content)), ..Default::default() });
    reacted.orphan = orphan;
    MessageReaction::new(vec![reacted]).into()
}

/// A vote that could be read.
#[derive(Debug)]
pub(crate) struct Vote<'a> {
    pub(crate) hashes: &'a [[u8; 32]],
    pub(crate) at_ms: i64,
    /// A later one is known.
    pub(crate) outdated: bool,
    /// The options of the poll, with this vote counted.
    pub(crate) options: &'a [PollOption],
}

impl Vote<'_> {
    /// The names of the options chosen that are known, in the order of the poll.
    fn selected(&self) -> Vec<String> {
        let chosen = |option: &&PollOption| self.hashes.contains(&secret::option_hash(&option.name));
        self.options.iter().filter(chosen).map(|option| option.name.clone()).collect()
    }
}

/// A vote as a message, with what was picked.
pub(crate) fn vote_message(context: &Context<'_>, message: &Message, vote: &Vote<'_>, prefer: Prefer) -> Event {
    let selected = vote.selected();
    let reply = (!selected.is_empty()).then(|| Reply::new(None, Some(selected.join(", "))));
    let mut event = told(context, message, prefer);
    if let Event::MessageReceived(crate::event::MessageReceived { messages, .. })
    | Event::MessageSent(crate::event::MessageSent { messages, .. }) = &mut event
    {
        messages.iter_mut().for_each(|message| message.reply.clone_from(&reply));
    }
    event
}

/// The vote itself.
pub(crate) fn poll_vote(context: &Context<'_>, target: &Target, vote: &Vote<'_>, prefer: Prefer) -> Event {
    let (voter, voter_alt) = sender(context, prefer);
    let tally = vote.options.iter().map(|option| PollResult::new(option.name.clone(), option.votes)).collect();
    MessagePollVote::new(
        inbound_key(context, prefer),
        target_key(target, prefer),
        voter,
        voter_alt,
        vote.selected(),
        vote.hashes.iter().map(|hash| STANDARD.encode(hash)).collect(),
        vote.at_ms,
        vote.outdated,
        tally,
    )
    .into()
}

/// An answer to an event.
pub(crate) fn event_response(
    context: &Context<'_>,
    target: &Target,
    response: &EventResponseMessage,
    prefer: Prefer,
) -> Event {
    let (responder, responder_alt) = sender(context, prefer);
    let answer = match response.response.map(EventResponseType::try_from) {
        Some(Ok(EventResponseType::Going)) => EventAnswer::Going,
        Some(Ok(EventResponseType::NotGoing)) => EventAnswer::NotGoing,
        Some(Ok(EventResponseType::Maybe)) => EventAnswer::Maybe,
        _ => EventAnswer::Unknown,
    };
    MessageEventResponse::new(
        inbound_key(context, prefer),
        target_key(target, prefer),
        responder,
        responder_alt,
        answer,
        u32::try_from(response.extra_guest_count.unwrap_or(0)).unwrap_or(0),
        response.timestamp_ms,
    )
    .into()
}

/// A comment that could be read.
pub(crate) fn comment(context: &Context<'_>, target: &Target, message: &Message, prefer: Prefer) -> Event {
    let inbound = context.message;
    let mut comment = object(inbound_key(context, prefer), message);
    comment.message_timestamp = Some(inbound.timestamp);
    comment.push_name = inbound.push_name.as_ref().map(ToString::to_string);
    comment.source = Some(context.source);
    MessageComment::new(target_key(target, prefer), comment).into()
}

/// Something that refers to a message and cannot be read without its secret.
pub(crate) fn unreadable_addon(
    context: &Context<'_>,
    target: Option<&Target>,
    message: &Message,
    reason: &'static str,
    prefer: Prefer,
) -> Event {
    let hidden = context.message.encs.iter().all(|enc| enc.hide);
    let mut event = MessageUndecryptable::new(inbound_key(context, prefer), reason.to_owned(), false, hidden);
    event.kind = Some(normalise(message).kind().as_str());
    event.target_key = target.map(|target| target_key(target, prefer));
    event.message = content(message);
    event.into()
}

/// What a chat is set to now.
pub(crate) fn chat_set(context: &Context<'_>, prefer: Prefer, set: impl FnOnce(&mut ChatObject)) -> Event {
    let (id, alt) = person(&context.message.chat, context.chat, prefer);
    let mut chat = ChatObject::new(id, alt);
    set(&mut chat);
    ChatsUpdate::new(vec![chat]).into()
}

/// A member of a group has another label.
pub(crate) fn member_tag(context: &Context<'_>, label: Option<&str>, prefer: Prefer) -> Event {
    let (participant, alt) = sender(context, prefer);
    let label = label.filter(|label| !label.is_empty()).map(str::to_owned);
    GroupMemberTag::new(context.message.chat.clone(), participant, alt, label).into()
}

/// A message with content of its own.
pub(crate) fn told(context: &Context<'_>, message: &Message, prefer: Prefer) -> Event {
    match context.message.from_me {
        true => sent_elsewhere(context.message, context.chat, message, prefer),
        false => received(context, message, prefer),
    }
}
