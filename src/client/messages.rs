//! Sending more than texts, and referring to messages: reactions, edits, deletions, polls, votes, pins, answers.

use super::{Accepted, Client, Error};
use crate::{
    engine::{Command, CommandError, Content, MessageRef, PinDuration, SendRequest},
    event::EventAnswer,
    jid::Jid,
    message::{
        MessageId,
        build::{self, Choice, EventDetails},
    },
    proto::e2e,
};

/// Each of these answers when the message is stored: from then on it will be sent, or reported by `message.failed`, whatever
/// crashes.
///
/// ```no_run
/// # async fn example(client: wamd::client::Client, chat: wamd::Jid) -> Result<(), Box<dyn std::error::Error>> {
/// use wamd::{engine::MessageRef, message::{MessageId, build::Choice}};
///
/// let sent = client.send_text(&chat, "Lunhc at one?").await?;
/// client.edit(&chat, sent.id, "Lunch at one?").await?;
/// // The key of a `message.received`, from its event.
/// let theirs = MessageRef::theirs(MessageId::new("3EB0A1B2C3D4E5F60718")?);
/// client.react(&chat, theirs, "👍").await?;
/// client.poll(&chat, "Where?", &["Here", "There"], Choice::Single).await?;
/// # Ok(())
/// # }
/// ```
impl Client {
    /// Sends a message that was put together by the caller, see [`message::build`](crate::message::build).
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub async fn send_message(&self, to: &Jid, message: e2e::Message) -> Result<Accepted, Error> {
        self.send(SendRequest::message(to.clone(), message)).await
    }

    /// Puts an emoji on a message; an empty one takes it away.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub async fn react(&self, chat: &Jid, target: MessageRef, emoji: impl Into<String>) -> Result<Accepted, Error> {
        self.send_content(chat, Content::Reaction { target, emoji: emoji.into() }).await
    }

    /// Replaces a text of ours, for 20 minutes after it was sent. For captions and other content, see
    /// [`Content::Edit`].
    ///
    /// # Errors
    /// [`CommandError::TooLate`], and as [`send_text`](Self::send_text).
    pub async fn edit(&self, chat: &Jid, id: MessageId, text: impl Into<String>) -> Result<Accepted, Error> {
        self.send_content(chat, Content::Edit { id, message: Box::new(build::text(text)) }).await
    }

    /// Deletes a message for everybody: one of ours, or in a group, as an admin, anybody's.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub async fn delete(&self, chat: &Jid, target: MessageRef) -> Result<Accepted, Error> {
        self.send_content(chat, Content::Delete { target }).await
    }

    /// Pins a message for everybody.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub async fn pin(&self, chat: &Jid, target: MessageRef, duration: PinDuration) -> Result<Accepted, Error> {
        self.send_content(chat, Content::Pin { target, duration }).await
    }

    /// Takes the pin off a message.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub async fn unpin(&self, chat: &Jid, target: MessageRef) -> Result<Accepted, Error> {
        self.send_content(chat, Content::Unpin { target }).await
    }

    /// Puts a question to the vote; `message.poll_vote` tells the votes.
    ///
    /// # Errors
    /// [`CommandError::Content`] unless there are 2 to 12 different options, and as [`send_text`](Self::send_text).
    pub async fn poll(
        &self,
        chat: &Jid,
        question: impl Into<String>,
        options: &[&str],
        choice: Choice,
    ) -> Result<Accepted, Error> {
        let poll = build::poll(question, options, choice);
        let poll = poll.map_err(|_| CommandError::Content("a poll needs a question and 2 to 12 different options"))?;
        self.send_message(chat, poll).await
    }

    /// Votes in a poll: with all options that are chosen now, none to take the vote back.
    ///
    /// # Errors
    /// [`CommandError::UnknownMessage`] when this device has not seen the poll, and as [`send_text`](Self::send_text).
    pub async fn vote(&self, chat: &Jid, poll: MessageRef, options: &[&str]) -> Result<Accepted, Error> {
        let options = options.iter().map(|name| (*name).to_owned()).collect();
        self.send_content(chat, Content::Vote { poll, options }).await
    }

    /// Invites to an event; `message.event_response` tells the answers.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    pub async fn event(&self, chat: &Jid, details: EventDetails) -> Result<Accepted, Error> {
        self.send_message(chat, build::event(details)).await
    }

    /// Answers to an event.
    ///
    /// # Errors
    /// [`CommandError::UnknownMessage`] when this device has not seen the event, and as [`send_text`](Self::send_text).
    pub async fn respond(
        &self,
        chat: &Jid,
        event: MessageRef,
        answer: EventAnswer,
        extra_guests: u32,
    ) -> Result<Accepted, Error> {
        self.send_content(chat, Content::EventResponse { event, answer, extra_guests }).await
    }

    /// Asks the server what the account may not do at present; `account.restricted` and `account.message_cap` tell what it
    /// answers.
    ///
    /// # Errors
    /// [`CommandError::NotLinked`], [`CommandError::NotConnected`], and [`Error::Stopped`].
    pub async fn check_restrictions(&self) -> Result<(), Error> {
        self.command(Command::CheckRestrictions).await.map(drop)
    }

    async fn send_content(&self, chat: &Jid, content: Content) -> Result<Accepted, Error> {
        self.send(SendRequest::new(chat.clone(), content)).await
    }
}
