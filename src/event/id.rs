//! Event ids: 26 characters of Crockford's base32, as in a ULID (spec 07 §1).
//!
//! The id of a `message.*` event is derived from what the event is about, so that the same event has the same id however
//! often it is produced. Every other id is a ULID: 48 bits of time and 80 random ones.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Event, MessageKey, MessageObject};
use crate::crypto::sha256;

/// Identifies an event; stable when it is delivered again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(String);

impl EventId {
    /// The id of an event: derived for `message.*`, else from the time (unix ms) and ten random bytes.
    pub fn of(event: &Event, session_id: &str, wall_ms: u64, random: &[u8; 10]) -> Self {
        let about = subjects(event);
        if about.is_empty() {
            return Self::random(wall_ms, random);
        }
        Self::derive(session_id, event.name(), &about)
    }

    /// A ULID from the time in unix milliseconds (its low 48 bits) and ten random bytes.
    pub fn random(wall_ms: u64, random: &[u8; 10]) -> Self {
        let [_, _, a, b, c, d, e, f] = wall_ms.to_be_bytes();
        let [g, h, i, j, k, l, m, n, o, p] = *random;
        Self::encode(u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 over session, event and, for each message, chat, author, id and status; every part with its length in front.
    fn derive(session_id: &str, event: &str, about: &[Subject<'_>]) -> Self {
        let mut input = Vec::with_capacity(512);
        let mut part = |text: &str| {
            input.extend_from_slice(&(text.len() as u64).to_be_bytes());
            input.extend_from_slice(text.as_bytes());
        };
        part(session_id);
        part(event);
        for (key, status, receiver) in about {
            part(&key.remote_jid.to_bare().to_string());
            part(if key.from_me { "me" } else { "other" });
            part(&key.participant.as_ref().map(|jid| jid.to_bare().to_string()).unwrap_or_default());
            part(&key.id);
            part(status);
            part(receiver.as_deref().unwrap_or_default());
        }
        let [head @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = sha256(&[&input]);
        Self::encode(u128::from_be_bytes(head))
    }

    /// 128 bits as 26 characters, most significant first: 130 bits, the first two of which are zero.
    fn encode(bits: u128) -> Self {
        let digit = |position: u32| {
            let value = (bits >> position.saturating_mul(5)) as usize & 0x1f;
            char::from(ALPHABET.get(value).copied().unwrap_or(b'0'))
        };
        Self((0..LEN).rev().map(digit).collect())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which message, its status or what changed it, and whose doing it was.
type Subject<'a> = (&'a MessageKey, &'a str, Option<String>);

/// What an event is about. What refers to another message goes by its own id: a message may be reacted to and edited often.
fn subjects(event: &Event) -> Vec<Subject<'_>> {
    match event {
        // One that could not be decrypted may be so later, and refer to what is not known.
        Event::MessageUndecryptable(event) => {
            let reason = event.target_key.as_ref().map_or("", |_| &event.reason[..]);
            vec![(&event.key, reason, None)]
        }
        Event::MessageUpdated(event) => {
            event.messages.iter().map(|message| (&message.key, &message.edit_id[..], None)).collect()
        }
        Event::MessageDeleted(event) => {
            let by = |message: &super::DeletedMessage| Some(message.deleted_by.to_bare().to_string());
            event.messages.iter().map(|message| (&message.key, "", by(message))).collect()
        }
        Event::MessageReaction(event) => {
            event.messages.iter().map(|message| (&message.reaction.key, "", None)).collect()
        }
        Event::MessagePollVote(event) => vec![(&event.key, "", None)],
        Event::MessageEventResponse(event) => vec![(&event.key, "", None)],
        Event::MessageComment(event) => vec![(&event.comment.key, "", None)],
        _ => event.messages().iter().map(about).collect(),
    }
}

fn about(message: &MessageObject) -> Subject<'_> {
    let status = message.status.map_or("", |status| status.as_str());
    let receiver = message.receipt.as_ref().map(|receipt| receipt.user.to_bare().to_string());
    (&message.key, status, receiver)
}

/// Crockford's base32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of an id.
const LEN: u32 = 26;
