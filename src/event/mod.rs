//! What the embedding program hears: event names, their JSON, and the envelope they travel in (spec 07).
//!
//! ```text
//! engine ── Event ── data() ──► Envelope { event, sessionId, eventId, seq, timestamp, offline, data } ──► JSON
//!                                                   │
//!                             durable: outbox, numbered by seq        ephemeral: straight to the channel, no seq
//! ```
//!
//! Names are `area.verb_past` and stable. [`Event::data`] gives exactly the JSON of spec 07 §3 to §5: a member that the
//! specification shows as `null` is always there, every other absent member is left out. JIDs in messages have no device.
//!
//! **Durable and ephemeral.** Most events are appended to the outbox in the same commit as what caused them, carry a `seq`,
//! and come again after a crash until they are acknowledged. Those that only describe the present moment
//! ([`Event::is_ephemeral`]: codes, dial attempts, keepalive, the store) never enter the outbox: shown again after a restart they
//! would be wrong. Their envelope has no `seq`.
//!
//! `Debug` of what holds phone numbers, names, texts or codes prints none of them.
//!
//! | file | what |
//! |---|---|
//! | [`envelope`] | the envelope |
//! | [`id`] | event ids that are the same when an event comes again |
//! | [`session`], [`link`] | `session.*` |
//! | [`message`] | `message.*` and the message object |
//! | [`content`] | edits, deletions, reactions, votes, answers, comments |
//! | [`chat`] | `chats.*` |
//! | [`account`] | `account.*`, `lid_mapping.*`, `identity.*` |
//! | [`group`] | `groups.*`, `group-participants.*`, `group.*`, `community.*` |
//! | [`store`] | `store.*` |
//! | [`state`] | the session state that follows from an event |

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// A struct of event data: public fields, serde in lowerCamel, and a constructor that takes every field.
macro_rules! event_data {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $name {
            /// From its fields.
            #[allow(clippy::too_many_arguments, reason = "an event has as many fields as the specification gives it")]
            pub fn new($($field: $ty),*) -> Self {
                Self { $($field),* }
            }
        }
    };
}

/// `Debug` that prints the name of a type and nothing of its content.
macro_rules! opaque_debug {
    ($($name:ident),* $(,)?) => {
        $(
            impl std::fmt::Debug for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct(stringify!($name)).finish_non_exhaustive()
                }
            }
        )*
    };
}

pub mod account;
pub mod chat;
pub mod content;
pub mod envelope;
#[doc(hidden)]
pub mod fuzz;
pub mod group;
pub mod id;
pub mod link;
pub mod message;
pub mod session;
pub mod state;
pub mod store;

use serde::Serialize;
use serde_json::Value;

pub use account::{
    AccountDirty, AccountMessageCap, AccountRestricted, IdentityChanged, LidMappingUpdated, MappingSource,
    RestrictionKind,
};
pub use chat::{ChatObject, ChatsUpdate, GroupMemberTag};
pub use content::{
    BotPiece, DeleteReason, DeleteScope, DeletedMessage, EventAnswer, Keep, MessageComment, MessageDeleted,
    MessageEventResponse, MessagePollVote, MessageReaction, MessageUpdated, Pin, PollResult, ReactedMessage, Reaction,
    UpdatedMessage,
};
pub use envelope::Envelope;
pub use group::{
    CommunityAction, CommunityUpdate, GroupAction, GroupAdmin, GroupJoinRequest, GroupObject, GroupParticipant,
    GroupParticipantsUpdate, GroupsUpdate, GroupsUpsert, JoinRequestAction, Known,
};
pub use id::EventId;
pub use link::{
    LinkFailure, RefreshReason, SessionPairCode, SessionPairCodeError, SessionPairCodeRefresh,
    SessionPasskeyConfirmation, SessionPasskeyError, SessionPasskeyRequest,
};
pub use message::{
    AddressingMode, MessageDelivered, MessageFailed, MessageKey, MessageObject, MessageRead, MessageReceived,
    MessageSent, MessageStatus, MessageUndecryptable, Prefer, Receipt, ReceiptKind, Reply, SendError, Source,
};
pub use session::{
    BanKind, DisconnectReason, LogoutReason, OfflineCounts, SessionBanned, SessionClientExpiration,
    SessionConnectFailure, SessionConnected, SessionConnecting, SessionDisconnected, SessionKeepaliveLost,
    SessionKeepaliveRestored, SessionLoggedOut, SessionOfflineSyncCompleted, SessionOfflineSyncStarted,
    SessionOutdated, SessionPairError, SessionPaired, SessionQrExhausted, SessionQrScannedWithoutMultidevice,
    SessionQrUpdated, SessionReconnecting, SessionStreamError,
};
pub use state::SessionState;
pub use store::{StoreFailed, StoreFault, StoreRecovered};

/// Why an event or its stored form cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// Stored bytes are not an envelope.
    #[error("stored event is not an envelope: line {line}, column {column}")]
    Malformed {
        /// Line of the JSON text, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The content of a message has no JSON form.
    #[error("message content has no JSON form: {0}")]
    Content(#[from] crate::proto::json::JsonError),
}

macro_rules! events {
    ($($(#[$meta:meta])* $name:literal $variant:ident($data:ident);)*) => {
        /// Something that happened. Each variant holds the data of one event.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Event {
            $(
                #[doc = concat!("`", $name, "`.")]
                $(#[$meta])*
                $variant($data),
            )*
        }

        impl Event {
            /// Every name, in the order of the variants.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The name that consumers subscribe to.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// The `data` of the envelope.
            pub fn data(&self) -> Value {
                match self {
                    $(Self::$variant(data) => json(data),)*
                }
            }
        }

        $(
            impl From<$data> for Event {
                fn from(data: $data) -> Self {
                    Self::$variant(data)
                }
            }
        )*
    };
}

events! {
    /// A connection is being opened. Ephemeral. Next: a QR code, connected, or disconnected.
    "session.connecting" Connecting(SessionConnecting);
    /// Show this QR code instead of the one before. Ephemeral.
    "session.qr_updated" QrUpdated(SessionQrUpdated);
    /// No code was scanned in time. Ephemeral. The connection is closed, unless a pair code or a passkey is under way. Link
    /// again for new codes.
    "session.qr_exhausted" QrExhausted(SessionQrExhausted);
    /// A phone without multi-device support scanned the code. Ephemeral. The code stays valid.
    "session.qr_scanned_without_multidevice" QrScannedWithoutMultidevice(SessionQrScannedWithoutMultidevice);
    /// Show this pair code instead of the one before: the server accepted it. Ephemeral.
    "session.pair_code" PairCode(SessionPairCode);
    /// The pair code on the screen is void. Ephemeral. `willRefresh` tells whether a new one comes by itself.
    "session.pair_code_refresh" PairCodeRefresh(SessionPairCodeRefresh);
    /// Linking by code did not go on. Ephemeral. Unless `codeValid`, the code is void: ask for another one.
    "session.pair_code_error" PairCodeError(SessionPairCodeError);
    /// The phone wants a passkey: obtain an assertion and hand it in. Ephemeral.
    "session.passkey_request" PasskeyRequest(SessionPasskeyRequest);
    /// The code that the phone must show, too. Ephemeral. If `required`, confirm it.
    "session.passkey_confirmation" PasskeyConfirmation(SessionPasskeyConfirmation);
    /// Linking with a passkey did not come about. Ephemeral. Link again.
    "session.passkey_error" PasskeyError(SessionPasskeyError);
    /// The device is linked and its identity stored. Next: a reconnect by itself, then connected.
    "session.paired" Paired(SessionPaired);
    /// A phone scanned the code but its answer did not verify; nothing was stored. Connect again to retry.
    "session.pair_error" PairError(SessionPairError);
    /// Logged in and able to send.
    "session.connected" Connected(SessionConnected);
    /// The connection is gone; once per outage. `willReconnect` tells whether the engine comes back by itself.
    "session.disconnected" Disconnected(SessionDisconnected);
    /// A new attempt is scheduled. Ephemeral.
    "session.reconnecting" Reconnecting(SessionReconnecting);
    /// The device is not linked any more; its credentials are void. Link it again.
    "session.logged_out" LoggedOut(SessionLoggedOut);
    /// WhatsApp banned or locked the account.
    "session.banned" Banned(SessionBanned);
    /// This version of the protocol is refused. Configure a newer one, then connect again.
    "session.outdated" Outdated(SessionOutdated);
    /// This version of the protocol will be refused from a known moment on.
    "session.client_expiration" ClientExpiration(SessionClientExpiration);
    /// The login was refused for another reason. Followed by disconnected.
    "session.connect_failure" ConnectFailure(SessionConnectFailure);
    /// The server reported a stream error without a meaning of its own. Followed by disconnected.
    "session.stream_error" StreamError(SessionStreamError);
    /// A ping was not answered. Ephemeral. Next: restored, or disconnected.
    "session.keepalive_lost" KeepaliveLost(SessionKeepaliveLost);
    /// Pings are answered again. Ephemeral.
    "session.keepalive_restored" KeepaliveRestored(SessionKeepaliveRestored);
    /// The server starts to deliver what was queued while we were away.
    "session.offline_sync_started" OfflineSyncStarted(SessionOfflineSyncStarted);
    /// Everything that was queued has been delivered.
    "session.offline_sync_completed" OfflineSyncCompleted(SessionOfflineSyncCompleted);
    /// Content from somebody else, live or from the offline queue.
    "message.received" MessageReceived(MessageReceived);
    /// The server accepted a message of ours, or another device of the account sent one.
    "message.sent" MessageSent(MessageSent);
    /// A message of ours was refused, or its fate is unknown.
    "message.failed" MessageFailed(MessageFailed);
    /// A message of ours reached a recipient.
    "message.delivered" MessageDelivered(MessageDelivered);
    /// A message of ours was read or played.
    "message.read" MessageRead(MessageRead);
    /// A message arrived that could not be decrypted.
    "message.undecryptable" MessageUndecryptable(MessageUndecryptable);
    /// A message was edited, pinned or kept.
    "message.updated" MessageUpdated(MessageUpdated);
    /// A message was deleted.
    "message.deleted" MessageDeleted(MessageDeleted);
    /// Somebody put an emoji on a message, or took it away.
    "message.reaction" MessageReaction(MessageReaction);
    /// Somebody voted in a poll. Follows the `message.received` or `message.sent` of the vote.
    "message.poll_vote" MessagePollVote(MessagePollVote);
    /// Somebody answered to an event.
    "message.event_response" MessageEventResponse(MessageEventResponse);
    /// Somebody commented on a message.
    "message.comment" MessageComment(MessageComment);
    /// A chat is set to something else.
    "chats.update" ChatsUpdate(ChatsUpdate);
    /// A member of a group took another label, or dropped it.
    "group.member_tag" GroupMemberTag(GroupMemberTag);
    /// A phone number and a hidden id turned out to be the same account.
    "lid_mapping.updated" LidMappingUpdated(LidMappingUpdated);
    /// The server says that a part of the account's data changed.
    "account.dirty" AccountDirty(AccountDirty);
    /// WhatsApp restricts the account, or does not any more.
    "account.restricted" AccountRestricted(AccountRestricted);
    /// How many chats the account may still begin.
    "account.message_cap" AccountMessageCap(AccountMessageCap);
    /// A contact's security code changed: new phone or reinstalled app.
    "identity.changed" IdentityChanged(IdentityChanged);
    /// We are in a group from now on, or it was made.
    "groups.upsert" GroupsUpsert(GroupsUpsert);
    /// Something about a group changed: name, description, a switch.
    "groups.update" GroupsUpdate(GroupsUpdate);
    /// Participants of a group came, went, or changed.
    "group-participants.update" GroupParticipantsUpdate(GroupParticipantsUpdate);
    /// Somebody wants to join a group, or wants no longer.
    "group.join_request" GroupJoinRequest(GroupJoinRequest);
    /// A group became a part of a community, or ceased to be one.
    "community.update" CommunityUpdate(CommunityUpdate);
    /// The store failed. Ephemeral. What was not stored did not happen; nothing was acknowledged that is not stored. If
    /// `willRetry`, the account goes on by itself; otherwise it has ended here: with `lease_lost` it runs elsewhere.
    "store.failed" StoreFailed(StoreFailed);
    /// The store works again. Ephemeral.
    "store.recovered" StoreRecovered(StoreRecovered);
}

impl Event {
    /// Whether the event describes only the present moment: it never enters the outbox and its envelope has no `seq`.
    pub fn is_ephemeral(&self) -> bool {
        matches!(
            self,
            Self::Connecting(_)
                | Self::QrUpdated(_)
                | Self::QrExhausted(_)
                | Self::QrScannedWithoutMultidevice(_)
                | Self::PairCode(_)
                | Self::PairCodeRefresh(_)
                | Self::PairCodeError(_)
                | Self::PasskeyRequest(_)
                | Self::PasskeyConfirmation(_)
                | Self::PasskeyError(_)
                | Self::Reconnecting(_)
                | Self::KeepaliveLost(_)
                | Self::KeepaliveRestored(_)
                | Self::StoreFailed(_)
                | Self::StoreRecovered(_)
        )
    }

    /// The state of the session after the event; `None` when the event says nothing about it ([`SessionState::after`]).
    pub fn state(&self) -> Option<SessionState> {
        SessionState::after(self)
    }

    /// The messages of a `message.*` event that has a list of them.
    pub fn messages(&self) -> &[MessageObject] {
        match self {
            Self::MessageReceived(event) => &event.messages,
            Self::MessageSent(event) => &event.messages,
            Self::MessageFailed(event) => &event.messages,
            Self::MessageDelivered(event) => &event.messages,
            Self::MessageRead(event) => &event.messages,
            _ => &[],
        }
    }
}

/// The JSON value of event data. Its keys are texts and its `Serialize` never refuses, which are the only ways to fail.
fn json(data: &impl Serialize) -> Value {
    #[expect(clippy::expect_used, reason = "keys are texts and no Serialize of this module fails")]
    serde_json::to_value(data).expect("event data always has a JSON form")
}
