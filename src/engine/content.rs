//! What a message to be sent says: from what the caller wants to a `Message`, its secret kept (spec 03 §4.2, spec 06 §3).
//!
//! ```text
//! Content ──► checked ──► Message: built, or encrypted with the secret of the message that it refers to
//!                            │
//!                            ├── a secret of its own, for what will refer to it        ──► stored with the send
//!                            └── the secret and version that a reporting token needs   ──► token on the stanza
//! ```

use std::sync::Arc;

use crate::{
    engine::{
        CommandError, Content, MessageRef,
        account::Linked,
        address::{self, User},
        groups,
        receive::deliver::EDIT_WINDOW,
        secrets,
        send::sent_record,
        step::{Miss, Step},
    },
    event::{AddressingMode, EventAnswer},
    jid::Jid,
    message::{
        Action, MessageId, build,
        content::Field,
        normalise, poll_of, protocol, reporting,
        secret::{self, UseCase, addon},
    },
    proto::{
        Message as _,
        common::MessageKey,
        e2e::{EventResponseMessage, Message, ReactionMessage, event_response_message::EventResponseType},
    },
};

/// Longest text that is sent, in characters.
const MAX_TEXT: usize = 65_536;
/// Longest emoji: families with skin tones take some 40 bytes.
const MAX_EMOJI: usize = 64;
/// Largest message, encoded: others refuse larger ones (spec 06 §17).
const MAX_MESSAGE: usize = 1_048_576;
/// Most guests that come along to an event.
const MAX_GUESTS: u32 = 1_000;

/// Puts the message together that goes to a chat under an id, and keeps its secret. An error is the answer to the command; it
/// has changed nothing.
///
/// # Errors
/// [`Miss`].
pub(crate) fn compose(
    step: &mut Step<'_>,
    chat: &User,
    id: &MessageId,
    content: &Content,
) -> Result<Result<Message, CommandError>, Miss> {
    let account = Arc::clone(step.account());
    let Some(linked) = &account.linked else { return Ok(Err(CommandError::NotLinked)) };
    let own = address::user(step, &linked.pn)?;
    // What refers to no other message is the same in every group, however large.
    let refers = !matches!(content, Content::Text(_) | Content::Message(_));
    let group = if refers && chat.canonical.is_group() { groups::get(step, &chat.canonical)? } else { None };
    let addressed = chat.addressed(step.account()).clone();
    let me = match group.as_ref().map(|group| group.addressing_mode) {
        Some(AddressingMode::Pn) => linked.pn.to_account(),
        _ => own_in_family(linked, &addressed),
    };
    let announces = group.is_some_and(|group| group.is_announcement_group);
    let place = Place { chat, addressed, linked, own: &own, me, announces };
    let mut message = match built(step, &place, id, content)? {
        Ok(message) => message,
        Err(error) => return Ok(Err(error)),
    };
    build::ensure_secret(&mut message, step.rng);
    reporting::prepare(&mut message, step.rng);
    if message.encoded_len() > MAX_MESSAGE {
        return Ok(Err(CommandError::Content("the message has more than 1 MiB")));
    }
    let view = normalise(&message);
    if view.action() == Action::Content {
        secrets::remember(step, chat, &own, id.as_str(), step.now.unix_seconds(), &view);
    }
    Ok(Ok(message))
}

/// Our own identity in the family of somebody else's.
pub(crate) fn own_in_family(linked: &Linked, other: &Jid) -> Jid {
    match &linked.lid {
        Some(lid) if !other.is_pn_family() => lid.to_account(),
        _ => linked.pn.to_account(),
    }
}

/// Where a message goes, and who we are there.
struct Place<'a> {
    chat: &'a User,
    /// The chat, as the stanza addresses it.
    addressed: Jid,
    linked: &'a Linked,
    own: &'a User,
    /// Ourselves, as the chat addresses us.
    me: Jid,
    /// It is the announcement group of a community, whose members do not know each other: reactions are encrypted.
    announces: bool,
}

impl Place<'_> {
    /// Keys of messages name their author.
    fn has_authors(&self) -> bool {
        self.chat.canonical.is_group() || self.chat.canonical.is_broadcast()
    }
}

fn built(
    step: &mut Step<'_>,
    place: &Place<'_>,
    id: &MessageId,
    content: &Content,
) -> Result<Result<Message, CommandError>, Miss> {
    let refused = |why| Ok(Err(CommandError::Content(why)));
    let now_ms = i64::try_from(step.now.wall_ms).unwrap_or(i64::MAX);
    match content {
        Content::Text(text) => Ok(checked_text(text).map(|()| build::text(text.as_str()))),
        Content::Message(message) => Ok(checked(message).map(|()| Message::clone(message))),
        Content::Reaction { emoji, .. } if emoji.len() > MAX_EMOJI => refused("a reaction is one emoji"),
        Content::Reaction { target, emoji } if place.announces => {
            let reaction =
                ReactionMessage { text: Some(emoji.clone()), sender_timestamp_ms: Some(now_ms), ..Default::default() };
            seal(step, place, target, UseCase::Reaction, &reaction.encode_to_vec(), now_ms)
        }
        Content::Reaction { target, emoji } => {
            Ok(key(place, target).map(|key| build::reaction(key, emoji.as_str(), now_ms)))
        }
        Content::Edit { id, message } => edit(step, place, id, message, now_ms),
        Content::Delete { target } if !target.from_me && !place.chat.canonical.is_group() => {
            refused("only own messages can be deleted here")
        }
        Content::Delete { target } => Ok(key(place, target).map(build::revoke)),
        Content::Pin { target, duration } => {
            Ok(key(place, target).map(|key| build::pin(key, duration.seconds(), now_ms)))
        }
        Content::Unpin { target } => Ok(key(place, target).map(|key| build::unpin(key, now_ms))),
        Content::Vote { poll, options } => vote(step, place, poll, options, now_ms),
        Content::EventResponse { extra_guests, .. } if *extra_guests > MAX_GUESTS => refused("too many guests"),
        Content::EventResponse { event, answer, extra_guests } => {
            let Some(response) = response(*answer) else { return refused("this is not an answer") };
            let response = EventResponseMessage {
                response: Some(response as i32),
                timestamp_ms: Some(now_ms),
                extra_guest_count: i32::try_from(*extra_guests).ok().filter(|guests| *guests != 0),
            };
            seal(step, place, event, UseCase::EventResponse, &response.encode_to_vec(), now_ms)
        }
        Content::Comment { target, message } => {
            if let Err(error) = checked(message) {
                return Ok(Err(error));
            }
            let mut message = Message::clone(message);
            build::ensure_secret(&mut message, step.rng);
            let carrier = seal(step, place, target, UseCase::Comment, &message.encode_to_vec(), now_ms)?;
            if carrier.is_ok() {
                secrets::remember(
                    step,
                    place.chat,
                    place.own,
                    id.as_str(),
                    step.now.unix_seconds(),
                    &normalise(&message),
                );
            }
            Ok(carrier)
        }
    }
}

fn checked_text(text: &str) -> Result<(), CommandError> {
    match text {
        "" => Err(CommandError::Content("the text is empty")),
        text if text.chars().count() > MAX_TEXT => {
            Err(CommandError::Content("the text has more than 65,536 characters"))
        }
        _ => Ok(()),
    }
}

/// Content that the engine makes itself, or that only own devices send each other, does not come from callers.
fn checked(message: &Message) -> Result<(), CommandError> {
    let view = normalise(message);
    let is_internal = message.device_sent_message.is_some()
        || message.sender_key_distribution_message.is_some()
        || view.content().protocol_message.as_deref().is_some_and(|protocol| protocol::own_sender(protocol).is_some());
    match view.field() {
        _ if is_internal => Err(CommandError::Content("messages of this type are not for users")),
        None => Err(CommandError::Content("the message is empty")),
        Some(Field::Conversation) => checked_text(view.text().unwrap_or_default()),
        Some(_) => Ok(()),
    }
}

/// The key that others find a message by. In a group it names the author.
fn key(place: &Place<'_>, target: &MessageRef) -> Result<MessageKey, CommandError> {
    let participant = match (place.has_authors(), target.from_me, &target.participant) {
        (false, _, _) => None,
        (true, true, _) => Some(place.me.clone()),
        (true, false, Some(participant)) => Some(participant.to_bare()),
        (true, false, None) => return Err(CommandError::Content("the author of the message is missing")),
    };
    Ok(MessageKey {
        remote_jid: Some(place.addressed.to_string()),
        from_me: Some(target.from_me),
        id: Some(target.id.as_str().to_owned()),
        participant: participant.map(|jid| jid.to_string()),
    })
}

/// An edit: plain within its time, or of an event or a poll, encrypted at any time.
fn edit(
    step: &mut Step<'_>,
    place: &Place<'_>,
    id: &MessageId,
    message: &Message,
    now_ms: i64,
) -> Result<Result<Message, CommandError>, Miss> {
    let view = normalise(message);
    if let Err(error) = checked(message) {
        return Ok(Err(error));
    }
    if view.action() != Action::Content {
        return Ok(Err(CommandError::Content("only content can take the place of a message")));
    }
    let sealed = match view.field() {
        Some(Field::Event) => Some(UseCase::EventEdit),
        _ if poll_of(&view).is_some() => Some(UseCase::PollEdit),
        _ => None,
    };
    if let Some(use_case) = sealed {
        let target = MessageRef::own(id.clone());
        return seal(step, place, &target, use_case, &message.encode_to_vec(), now_ms);
    }
    let sent = sent_record(step, place.chat, id.as_str())?.map(|(_, sent)| sent.timestamp).filter(|at| *at != 0);
    if sent.is_some_and(|at| step.now.unix_seconds() > at.saturating_add(EDIT_WINDOW)) {
        return Ok(Err(CommandError::TooLate));
    }
    let key = key(place, &MessageRef::own(id.clone()));
    Ok(key.map(|key| build::edit(key, message.clone(), now_ms)))
}

fn vote(
    step: &mut Step<'_>,
    place: &Place<'_>,
    poll: &MessageRef,
    options: &[String],
    now_ms: i64,
) -> Result<Result<Message, CommandError>, Miss> {
    if options.len() > addon::MAX_OPTIONS {
        return Ok(Err(CommandError::Content("too many options")));
    }
    let author = match author(step, place, poll)? {
        Ok((_, author)) => author,
        Err(error) => return Ok(Err(error)),
    };
    let Some(mut kept) = secrets::lookup(step, place.chat, &author, poll.id.as_str())? else {
        return Ok(Err(CommandError::UnknownMessage));
    };
    let known = &kept.record.options;
    if options.iter().any(|name| known.iter().all(|option| option.name != *name)) {
        return Ok(Err(CommandError::Content("the poll has no such option")));
    }
    let hashes: Vec<[u8; 32]> = options.iter().map(|name| secret::option_hash(name)).collect();
    let plaintext = addon::AddonContent::Vote(hashes.clone()).encode();
    let message = seal(step, place, poll, UseCase::PollVote, &plaintext, now_ms)?;
    if message.is_ok() {
        kept.count(step, place.own, &hashes, now_ms)?;
    }
    Ok(message)
}

/// Encrypts with the secret of the message that it is about.
fn seal(
    step: &mut Step<'_>,
    place: &Place<'_>,
    target: &MessageRef,
    use_case: UseCase,
    plaintext: &[u8],
    now_ms: i64,
) -> Result<Result<Message, CommandError>, Miss> {
    let key = match key(place, target) {
        Ok(key) => key,
        Err(error) => return Ok(Err(error)),
    };
    let (jid, author) = match author(step, place, target)? {
        Ok(author) => author,
        Err(error) => return Ok(Err(error)),
    };
    let kept = secrets::lookup(step, place.chat, &author, target.id.as_str())?;
    let Some(secret) = kept.and_then(|kept| kept.secret()) else { return Ok(Err(CommandError::UnknownMessage)) };
    let about = secret::Target {
        secret: &secret,
        id: target.id.as_str(),
        author: secret::Person { jid: &jid, alternate: None },
    };
    let sealed = secret::seal(&about, &own_in_family(place.linked, &jid), use_case, plaintext, step.rng);
    Ok(Ok(addon::carrier(use_case, key, sealed, now_ms)))
}

/// Who wrote a message that is referred to: as the chat addresses them, and under both identities.
fn author(
    step: &mut Step<'_>,
    place: &Place<'_>,
    target: &MessageRef,
) -> Result<Result<(Jid, User), CommandError>, Miss> {
    if target.from_me {
        return Ok(Ok((place.me.clone(), place.own.clone())));
    }
    let jid = match (place.has_authors(), &target.participant) {
        (true, Some(participant)) => participant.to_account(),
        (true, None) => return Ok(Err(CommandError::Content("the author of the message is missing"))),
        (false, _) => place.addressed.clone(),
    };
    let user = address::user(step, &jid)?;
    Ok(Ok((jid, user)))
}

fn response(answer: EventAnswer) -> Option<EventResponseType> {
    match answer {
        EventAnswer::Going => Some(EventResponseType::Going),
        EventAnswer::NotGoing => Some(EventResponseType::NotGoing),
        EventAnswer::Maybe => Some(EventResponseType::Maybe),
        EventAnswer::Unknown => None,
    }
}
