//! What the embedding program asks of an account, and the answers.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    engine::{groups::GroupRequest, records::RecordError},
    event::{EventAnswer, GroupObject, LinkFailure, RestrictionKind},
    jid::Jid,
    message::MessageId,
    pairing::{
        code::{PairCode, PhoneNumber},
        payload::Version,
    },
    proto::e2e,
    stanza::iq::groups::MemberResult,
};

/// Names a command, so that its [`Reply`] finds the caller. Chosen by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// A command to an account.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Command {
    /// Stay connected from now on: log in, and connect again whenever the connection is lost. Ends `REPLACED`, `BANNED` and
    /// `OUTDATED`, also before a temporary ban ends: the server decides. While it is under way already, nothing more
    /// happens. For an account that is not linked, use [`Command::LinkQr`] or [`Command::LinkCode`].
    Connect,
    /// Link this account by QR code: connect and emit `session.qr_updated` until it is scanned or the codes are used up.
    LinkQr,
    /// Link this account by a code that is typed on the phone: connect if that is needed, and answer with
    /// [`Reply::PairCode`] when the server has accepted the code, which `session.pair_code` tells, too. QR codes are shown
    /// beside it. A code that was asked for before becomes void.
    LinkCode {
        /// The number of the account to link to.
        phone: PhoneNumber,
        /// A code of the caller's choice; without one it is drawn.
        code: Option<PairCode>,
        /// Whether the phone shows a notification.
        notify: bool,
    },
    /// Hand in the WebAuthn assertion that `session.passkey_request` asked for.
    PasskeyAssertion {
        /// The raw id of the credential, 1 to 65,536 bytes.
        credential_id: Bytes,
        /// The assertion as JSON, 1 to 65,536 bytes.
        assertion: Bytes,
    },
    /// The code of `session.passkey_confirmation` is the one that the phone shows.
    PasskeyConfirm,
    /// Close the connection and stay offline.
    Disconnect,
    /// As [`Command::Connect`]; besides, drop the connection that stands, or end the pause before the next one. A connection
    /// that is being made already is the one that was asked for. It may have to wait:
    /// [`Config::max_dials_per_minute`](super::Config::max_dials_per_minute), or too many replacements in a short time;
    /// `session.reconnecting` tells how long.
    Reconnect,
    /// Unlink this device and remove everything that is stored of it.
    Logout,
    /// State this version of the client from now on. A standing connection is not touched; an account that is
    /// `OUTDATED` connects with it when it is told to, or at once while a newer version is being looked for.
    SetVersion(Version),
    /// Send a message to a user, to a group, or as a status.
    Send(SendRequest),
    /// Keep the NCT salt of the account, with which tokens for strangers are made; an empty one forgets it. For a program that
    /// brings an account along from elsewhere.
    SetNctSalt(Bytes),
    /// Ask the server what the account may not do at present. What it answers comes as `account.restricted` and
    /// `account.message_cap`.
    CheckRestrictions,
    /// Ask about groups, or change one.
    Group(GroupRequest),
    /// Tell the authors of messages that they were read.
    MarkRead {
        /// The chat.
        chat: Jid,
        /// The author, in groups.
        participant: Option<Jid>,
        /// Message ids; more than 256 go out as several receipts.
        ids: Vec<String>,
    },
}

/// A message to send.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct SendRequest {
    /// A user, by phone number or LID, whose device part is ignored; a group; or `status@broadcast`.
    pub to: Jid,
    /// What to send.
    pub content: Content,
    /// Who may see a status; for nothing else.
    pub audience: Option<Audience>,
    /// The message id. A second send to the same chat with the id of an accepted one is answered alike and sends nothing,
    /// unless the first was reported as failed.
    pub id: Option<MessageId>,
    /// The caller's correlation text, given back in `message.sent`.
    pub client_ref: Option<String>,
}

impl SendRequest {
    /// Any content.
    pub fn new(to: Jid, content: Content) -> Self {
        Self { to, content, audience: None, id: None, client_ref: None }
    }

    /// A text message.
    pub fn text(to: Jid, text: impl Into<String>) -> Self {
        Self::new(to, Content::Text(text.into()))
    }

    /// A message that was put together by the caller, see [`message::build`](crate::message::build).
    pub fn message(to: Jid, message: e2e::Message) -> Self {
        Self::new(to, Content::Message(Box::new(message)))
    }

    /// Says who may see a status.
    #[must_use]
    pub fn with_audience(mut self, audience: Audience) -> Self {
        self.audience = Some(audience);
        self
    }

    /// Sets the message id.
    #[must_use]
    pub fn with_id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the correlation text.
    #[must_use]
    pub fn with_client_ref(mut self, client_ref: impl Into<String>) -> Self {
        self.client_ref = Some(client_ref.into());
        self
    }
}

/// A message that is referred to: the `fromMe`, `id` and `participant` of the key that events show.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageRef {
    /// Its id.
    pub id: MessageId,
    /// We wrote it.
    pub from_me: bool,
    /// Who wrote it, exactly as the event shows; in groups, unless we did.
    pub participant: Option<Jid>,
}

impl MessageRef {
    /// A message of ours.
    pub fn own(id: MessageId) -> Self {
        Self { id, from_me: true, participant: None }
    }

    /// A message of the other side of a chat with one user.
    pub fn theirs(id: MessageId) -> Self {
        Self { id, from_me: false, participant: None }
    }

    /// A message of a member of a group.
    pub fn of_member(id: MessageId, author: Jid) -> Self {
        Self { id, from_me: false, participant: Some(author) }
    }
}

/// Who may see a status. The engine does not know the address book: the viewers are all that the caller names, and the
/// setting is what the server is told about how they were chosen.
#[derive(Clone, PartialEq, Eq)]
pub struct Audience {
    /// How the viewers were chosen.
    pub setting: AudienceSetting,
    /// The viewers, by phone number or LID; 1 to 8,192.
    pub viewers: Vec<Jid>,
}

/// How the viewers of a status are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AudienceSetting {
    /// All contacts.
    Contacts,
    /// Only some.
    Allowlist,
    /// All but some.
    Denylist,
}

impl AudienceSetting {
    /// As the stanza has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Contacts => "contacts",
            Self::Allowlist => "allowlist",
            Self::Denylist => "denylist",
        }
    }

    /// As it is stored.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Contacts => 1,
            Self::Allowlist => 2,
            Self::Denylist => 3,
        }
    }

    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Contacts),
            2 => Some(Self::Allowlist),
            3 => Some(Self::Denylist),
            _ => None,
        }
    }
}

/// The content of a message to send.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// Plain text; not empty, at most 65,536 characters.
    Text(String),
    /// Anything else that users see, or that a program knows how to build: [`message::build`](crate::message::build) has replies,
    /// mentions, polls, events. Not what own devices alone send each other, and at most 1 MiB.
    Message(Box<e2e::Message>),
    /// An emoji on a message; an empty one takes it away.
    Reaction {
        /// The message.
        target: MessageRef,
        /// The emoji; at most 64 bytes.
        emoji: String,
    },
    /// New content for a text or a caption of ours, within 20 minutes; for a poll or an event of ours at any time.
    Edit {
        /// The id of our message.
        id: MessageId,
        /// All of the new content.
        message: Box<e2e::Message>,
    },
    /// Deletes a message for everybody: one of ours, or in a group, as an admin, anybody's.
    Delete {
        /// The message.
        target: MessageRef,
    },
    /// Pins a message for everybody.
    Pin {
        /// The message.
        target: MessageRef,
        /// For how long.
        duration: PinDuration,
    },
    /// Takes a pin off.
    Unpin {
        /// The message.
        target: MessageRef,
    },
    /// A vote in a poll whose secret is known, that is one which was received or sent since this device is linked.
    Vote {
        /// The poll.
        poll: MessageRef,
        /// The names of all options that are chosen now; none takes the vote back.
        options: Vec<String>,
    },
    /// An answer to an event whose secret is known.
    EventResponse {
        /// The event.
        event: MessageRef,
        /// The answer.
        answer: EventAnswer,
        /// How many guests come along.
        extra_guests: u32,
    },
    /// A comment on a message whose secret is known, in an announcement group.
    Comment {
        /// The message.
        target: MessageRef,
        /// The comment.
        message: Box<e2e::Message>,
    },
}

/// How long a message stays pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PinDuration {
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
}

impl PinDuration {
    /// In seconds.
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Day => 86_400,
            Self::Week => 604_800,
            Self::Month => 2_592_000,
        }
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Done, or under way with events to follow.
    Done,
    /// The server accepted a code to link with.
    PairCode {
        /// To be typed on the phone.
        code: PairCode,
        /// Until when, unix milliseconds.
        expires_at: u64,
    },
    /// The message is accepted: it is stored, and will be sent or reported as failed, whatever crashes.
    Accepted {
        /// Its id.
        id: MessageId,
        /// When it was accepted, unix seconds.
        timestamp: u64,
    },
    /// A group.
    Group(Box<GroupObject>),
    /// All groups that we are in.
    Groups(Vec<GroupObject>),
    /// What became of each participant.
    Members(Vec<MemberResult>),
}

/// Why a command was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The account is not linked to a phone.
    #[error("the account is not linked")]
    NotLinked,
    /// The account is linked already.
    #[error("the account is linked already")]
    AlreadyLinked,
    /// The phone has answered to a code, or a passkey is being used: another code would spoil it. Wait for the next
    /// `session.*` event.
    #[error("a link is under way that another code would spoil")]
    LinkUnderWay,
    /// Linking by code failed before the code could be shown.
    #[error("linking by code failed: {error}")]
    Link {
        /// Why.
        error: LinkFailure,
        /// The server's code, when it answered with an error.
        code: Option<u32>,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// No passkey is asked for, or its code is not there to be confirmed.
    #[error("no passkey waits for this")]
    NoPasskey,
    /// Another store has taken the account, which has ended here.
    #[error("the account runs elsewhere: its lease was lost")]
    LeaseLost,
    /// There is no connection that the command could use.
    #[error("the account is not connected")]
    NotConnected,
    /// The recipient is not a chat of a kind that messages can be sent to.
    #[error("{0} is not a chat that a message can be sent to")]
    NotAChat(String),
    /// The audience of a status is missing, or is not usable, or the message is no status.
    #[error("the audience cannot be used: {0}")]
    Audience(&'static str),
    /// The content cannot be sent.
    #[error("the content cannot be sent: {0}")]
    Content(&'static str),
    /// The message that is referred to is not known well enough: its secret is needed, and this device has not seen it or has
    /// forgotten it (after 30 days, 90 for polls and events).
    #[error("the message that is referred to is not known")]
    UnknownMessage,
    /// Messages can be edited for 20 minutes only.
    #[error("the message can be edited no longer")]
    TooLate,
    /// WhatsApp restricts the account: it may not write to somebody whom it had no word with. Existing chats go on.
    #[error("the account is restricted")]
    Restricted {
        /// What it may not do.
        kind: RestrictionKind,
        /// Until when, unix milliseconds.
        until_ms: u64,
    },
    /// The message id is empty, too long or has characters that do not belong into one; or a message to somebody else has
    /// it that is not settled yet.
    #[error("the message id is not usable")]
    MessageId,
    /// No message ids were given.
    #[error("no message ids")]
    NoIds,
    /// It is not a group.
    #[error("{0} is not a group")]
    NotAGroup(String),
    /// The server refused it.
    #[error("the server refused it: {code} {text}")]
    Refused {
        /// Its code (spec 01 §6.10): 401 and 403 not allowed, 404 unknown, 429 too often.
        code: u32,
        /// Its text.
        text: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server did not answer in time: it may or may not have been done.
    #[error("the server did not answer in time")]
    NoAnswer,
    /// The server's answer is not what it must be: it may or may not have been done.
    #[error("the server's answer cannot be read")]
    Answer,
    /// Too many requests wait already.
    #[error("{waiting} requests wait already")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// What is stored of the account cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The engine started over (the store failed, or the account was removed), or the connection was lost; the command had
    /// no effect, or its effect is not known.
    #[error("the command was interrupted")]
    Interrupted,
}
