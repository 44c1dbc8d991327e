//! Inbound messages (spec 03 §5): decrypt, deduplicate, tell, answer. One step, one batch: the ratchet's new state, the
//! mark that the message was received, and its event stand or fall together, and the receipt leaves after them.
//!
//! ```text
//!  <message> ──► people ──► pairwise encs ──► sender key ──► message secret ──► one answer
//!                               │ keys            │               │
//!                               └──────── plaintexts: deliver ────┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | who is concerned, and what has no ciphertext |
//! | `decrypt` | the ciphertexts in their order, and what comes of them together |
//! | `sender_keys` | keys of groups: taken, found, moved |
//! | `bot` | replies of bots |
//! | `marks` | what was received before |
//! | `deliver` | what a decrypted message does |
//! | `recovered` | what the phone sends again |
//! | `target`, `addons` | what refers to another message, encrypted with its secret or not |
//! | `answer` | the one answer that a stanza gets |

mod addons;
mod answer;
mod bot;
mod decrypt;
pub(crate) mod deliver;
mod marks;
mod recovered;
pub(crate) mod sender_keys;
pub(crate) mod target;

use crate::{
    engine::{
        address::{self, User},
        notices::Undecryptable,
        step::{Miss, Step},
    },
    event::{MappingSource, Source},
    message,
    stanza::{
        ack::Nack,
        message::{EncKind, InboundMessage},
    },
    store::Key,
};
pub(crate) use marks::{Seen, seen};

/// What became of the contents of a stanza.
pub(super) enum Outcome {
    /// Delivered, now or before: the sender gets a delivery receipt.
    Received,
    /// It was history or housekeeping of the phone and wants its own receipt.
    Handled(&'static str),
    /// Delivered; acknowledged without a receipt.
    Acknowledged,
    /// Cannot be decrypted now; the sender is asked to encrypt again, or the phone to send it.
    Retry(Failure),
    /// The content stayed on the phone, for this reason.
    Unavailable(String),
    /// Will never be read; acknowledged without a receipt.
    Dropped(Undecryptable),
    /// Refused, and told as unreadable when there is something to tell.
    Refused(Nack, Option<Undecryptable>),
}

/// A ciphertext that cannot be decrypted.
pub(crate) struct Failure {
    pub(crate) why: Undecryptable,
    /// The number for the retry receipt (spec 03 §5.4).
    pub(crate) reason: u8,
    /// How often the sender sent it again.
    pub(crate) resends: u32,
    /// The sender can do nothing without fresh keys of ours.
    pub(crate) needs_keys: bool,
}

/// A message with its people looked up.
pub(crate) struct Context<'a> {
    pub(crate) message: &'a InboundMessage,
    /// How it came to us.
    pub(crate) source: Source,
    pub(crate) chat: &'a User,
    pub(crate) sender: &'a User,
    /// The mark that it was received.
    pub(crate) received: Key,
    /// Where the mark stands when the message came before the LID was known.
    pub(crate) before: Vec<Key>,
}

impl<'a> Context<'a> {
    fn new(message: &'a InboundMessage, source: Source, chat: &'a User, sender: &'a User) -> Self {
        let mut marks = marks::received_keys(message, chat, sender);
        Self { message, source, chat, sender, received: marks.remove(0), before: marks }
    }
}

/// Handles a message.
///
/// # Errors
/// [`Miss`].
pub(crate) fn message(step: &mut Step<'_>, message: &InboundMessage) -> Result<(), Miss> {
    learn(step, message)?;
    let chat = address::user(step, &message.chat)?;
    let sender = address::user(step, &message.sender)?;
    let source = if message.offline { Source::Offline } else { Source::Live };
    let context = Context::new(message, source, &chat, &sender);
    let outcome = match message.encs.is_empty() {
        true => without_ciphertext(step, &context)?,
        false if message.encs.iter().all(|enc| enc.kind == EncKind::Unknown) => {
            Outcome::Refused(Nack::UnrecognisedStanza, None)
        }
        false => decrypt::decrypt_all(step, &context)?,
    };
    answer::answer(step, &context, outcome)
}

/// Stores who is who, as far as the stanza says it: before anything is told. A bot is nobody else.
fn learn(step: &mut Step<'_>, message: &InboundMessage) -> Result<(), Miss> {
    let of_sender = message.sender_alt.as_ref().map(|alt| (&message.sender, alt));
    let of_chat = message.chat_alt.as_ref().map(|alt| (&message.chat, alt));
    let of_audience = message.audience.iter().map(|(recipient, other)| (recipient, other));
    let mut missed = Ok(());
    for (jid, other) in of_sender.into_iter().chain(of_chat).chain(of_audience) {
        if !jid.is_bot() && !other.is_bot() {
            // All are looked at, so that one round loads everything.
            missed = address::learn(step, jid, other, MappingSource::Message).and(missed);
        }
    }
    missed
}

/// Newsletters carry plaintext, placeholders nothing.
fn without_ciphertext(step: &mut Step<'_>, context: &Context<'_>) -> Result<Outcome, Miss> {
    let inbound = context.message;
    if let Some(kind) = &inbound.unavailable {
        return Ok(Outcome::Unavailable(kind.clone()));
    }
    match &inbound.plaintext {
        Some(plaintext) if inbound.chat.is_newsletter() => match message::decode(plaintext) {
            Ok(content) => {
                let news = marks::mark(step, context)?;
                deliver::deliver(step, context, content, news)?;
                Ok(Outcome::Acknowledged)
            }
            Err(_) => Ok(Outcome::Refused(Nack::InvalidProtobuf, None)),
        },
        // Nobody but a newsletter may do without encryption.
        Some(_) => Ok(Outcome::Acknowledged),
        None => Ok(Outcome::Refused(Nack::UnrecognisedStanza, None)),
    }
}
