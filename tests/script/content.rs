//! Contents of messages, as a script says: what refers to messages that there are, and to some that there are not.

use wamd::{
    crypto::Secret,
    engine::{Content, MessageRef, PinDuration},
    event::EventAnswer,
    message::{
        MessageId,
        build::{self, Choice, EventDetails},
        secret::{Sealed, UseCase, addon},
    },
    proto::{common::MessageKey, e2e::Message},
};

use super::{
    Script,
    stanza::{self, Words},
};

/// Content of a message of ours.
pub(crate) fn content(script: &mut Script<'_>, words: &Words) -> Content {
    match script.byte() % 11 {
        0 => Content::Reaction { target: target(script, words), emoji: stanza::text(script, words) },
        1 => Content::Edit { id: id(script, words), message: Box::new(message(script, words)) },
        2 => Content::Delete { target: target(script, words) },
        3 => Content::Pin { target: target(script, words), duration: PinDuration::Day },
        4 => Content::Unpin { target: target(script, words) },
        5 => {
            let options = (0..script.pick(3)).map(|_| option(script).to_owned()).collect();
            Content::Vote { poll: target(script, words), options }
        }
        6 => {
            let answer = [EventAnswer::Going, EventAnswer::Maybe, EventAnswer::Unknown][script.pick(3)];
            let extra_guests = script.byte().into();
            Content::EventResponse { event: target(script, words), answer, extra_guests }
        }
        7 => Content::Comment { target: target(script, words), message: Box::new(message(script, words)) },
        8 | 9 => Content::Message(Box::new(message(script, words))),
        _ => Content::Text(stanza::text(script, words)),
    }
}

/// A message of a phone, which keeps to no rule.
pub(crate) fn message(script: &mut Script<'_>, words: &Words) -> Message {
    match script.byte() % 10 {
        0 => build::reaction(key(script, words), stanza::text(script, words), script.byte().into()),
        1 => build::edit(key(script, words), build::text(stanza::text(script, words)), script.byte().into()),
        2 => build::revoke(key(script, words)),
        3 => build::pin(key(script, words), script.byte().into(), 0),
        4 => build::poll("?", &["Yes", "No"], Choice::Any).expect("a poll"),
        5 => build::event(EventDetails { name: "party".to_owned(), ..EventDetails::default() }),
        6 | 7 => {
            let use_case = UseCase::ALL[script.pick(UseCase::ALL.len())];
            let sealed = Sealed { iv: [script.byte(); 12], payload: script.bytes().to_vec() };
            addon::carrier(use_case, key(script, words), sealed, script.byte().into())
        }
        8 => {
            // A secret that the next addon may be made with.
            let mut message = build::text(stanza::text(script, words));
            let secret = Secret::<32>::new([script.byte(); 32]);
            message.message_context_info.get_or_insert_default().message_secret = Some(secret.expose().to_vec().into());
            message
        }
        _ => build::text(stanza::text(script, words)),
    }
}

fn option(script: &mut Script<'_>) -> &'static str {
    ["Yes", "No", "?"][script.pick(3)]
}

fn id(script: &mut Script<'_>, words: &Words) -> MessageId {
    MessageId::new(stanza::text(script, words)).unwrap_or_else(|_| MessageId::new("3EB0").expect("an id"))
}

fn target(script: &mut Script<'_>, words: &Words) -> MessageRef {
    let id = id(script, words);
    match script.byte() % 3 {
        0 => MessageRef::own(id),
        1 => MessageRef::theirs(id),
        _ => MessageRef::of_member(id, stanza::jid(script, words)),
    }
}

fn key(script: &mut Script<'_>, words: &Words) -> MessageKey {
    let shown = script.byte();
    MessageKey {
        remote_jid: (shown & 1 == 0).then(|| stanza::jid(script, words).to_string()),
        from_me: (shown & 2 == 0).then_some(shown & 4 == 0),
        id: (shown & 8 == 0).then(|| stanza::text(script, words)),
        participant: (shown & 16 != 0).then(|| stanza::jid(script, words).to_string()),
    }
}
