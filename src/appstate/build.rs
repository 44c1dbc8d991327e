//! The actions that a program takes, put together.
//!
//! Each gives the actions of one patch: archiving takes the pin away, so it is two (spec 05 §A8.1).

use std::time::Duration;

use super::{Action, index::MessageRef};
use crate::{
    jid::Jid,
    proto::{
        common::MessageKey,
        sync_action::{
            ArchiveChatAction, ClearChatAction, ContactAction, DeleteChatAction, DeleteMessageForMeAction,
            LabelAssociationAction, LabelEditAction, LockChatAction, MarkChatAsReadAction, MuteAction, PinAction,
            PushNameSetting, QuickReplyAction, StarAction, SyncActionMessage, SyncActionMessageRange,
            UserStatusMuteAction,
        },
    },
};

/// Until when a chat is muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mute {
    /// It is not.
    Off,
    /// A time since the Unix epoch.
    Until(Duration),
    /// For ever.
    Forever,
}

/// The newest message of a chat that is known when an action is taken on it, and when it was sent (unix seconds). What is
/// newer is left alone by those who carry the action out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastMessage {
    /// Which one.
    pub message: MessageRef,
    /// When, in unix seconds.
    pub timestamp: i64,
}

fn range(chat: &Jid, last: Option<&LastMessage>) -> Option<Box<SyncActionMessageRange>> {
    let last = last?;
    let key = MessageKey {
        remote_jid: Some(chat.to_bare().to_string()),
        from_me: Some(last.message.from_me),
        id: Some(last.message.id.clone()),
        participant: last.message.participant.as_ref().map(|participant| participant.to_bare().to_string()),
    };
    let message = SyncActionMessage { key: Some(Box::new(key)), timestamp: Some(last.timestamp) };
    Some(Box::new(SyncActionMessageRange {
        last_message_timestamp: Some(last.timestamp),
        last_system_message_timestamp: None,
        messages: vec![message],
    }))
}

impl Action {
    /// Mutes a chat, or ends that.
    pub fn mute(chat: Jid, mute: Mute) -> Self {
        let mute_end_timestamp = match mute {
            Mute::Off => None,
            Mute::Until(time) => Some(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
            Mute::Forever => Some(-1),
        };
        let value = MuteAction { muted: Some(mute != Mute::Off), mute_end_timestamp, ..Default::default() };
        Self::Mute { chat, value: Box::new(value) }
    }

    /// Pins a chat, or ends that.
    pub fn pin(chat: Jid, pinned: bool) -> Self {
        Self::Pin { chat, value: Box::new(PinAction { pinned: Some(pinned) }) }
    }

    /// Archives a chat, which also takes its pin away, or takes it out of the archive.
    pub fn archive(chat: Jid, archived: bool, last: Option<&LastMessage>) -> Vec<Self> {
        let value = ArchiveChatAction { archived: Some(archived), message_range: range(&chat, last) };
        let mut actions = vec![Self::Archive { chat: chat.clone(), value: Box::new(value) }];
        if archived {
            actions.push(Self::pin(chat, false));
        }
        actions
    }

    /// Marks a chat as read, or as unread.
    pub fn mark_read(chat: Jid, read: bool, last: Option<&LastMessage>) -> Self {
        let value = MarkChatAsReadAction { read: Some(read), message_range: range(&chat, last) };
        Self::MarkChatAsRead { chat, value: Box::new(value) }
    }

    /// Deletes the messages of a chat, the starred ones and the files on request, too.
    pub fn clear(chat: Jid, delete_starred: bool, delete_media: bool, last: Option<&LastMessage>) -> Self {
        let value = ClearChatAction { message_range: range(&chat, last) };
        Self::ClearChat { chat, delete_starred, delete_media, value: Box::new(value) }
    }

    /// Deletes a chat.
    pub fn delete_chat(chat: Jid, delete_media: bool, last: Option<&LastMessage>) -> Self {
        let value = DeleteChatAction { message_range: range(&chat, last) };
        Self::DeleteChat { chat, delete_media, value: Box::new(value) }
    }

    /// Locks a chat, or ends that.
    pub fn lock(chat: Jid, locked: bool) -> Self {
        Self::LockChat { chat, value: Box::new(LockChatAction { locked: Some(locked) }) }
    }

    /// Stars a message, or ends that.
    pub fn star(message: MessageRef, starred: bool) -> Self {
        Self::Star { message, value: Box::new(StarAction { starred: Some(starred) }) }
    }

    /// Deletes a message on our own devices. `timestamp` is that of the message, in unix seconds.
    pub fn delete_for_me(message: MessageRef, delete_media: bool, timestamp: i64) -> Self {
        let value = DeleteMessageForMeAction { delete_media: Some(delete_media), message_timestamp: Some(timestamp) };
        Self::DeleteMessageForMe { message, value: Box::new(value) }
    }

    /// Mutes the status updates of a user, or ends that.
    pub fn mute_status(user: Jid, muted: bool) -> Self {
        Self::UserStatusMute { user, value: Box::new(UserStatusMuteAction { muted: Some(muted) }) }
    }

    /// Our own name.
    pub fn push_name(name: impl Into<String>) -> Self {
        Self::PushName { value: Box::new(PushNameSetting { name: Some(name.into()) }) }
    }

    /// A contact with its names, to be written to the address book of the phone on request.
    pub fn contact(user: Jid, full_name: Option<String>, first_name: Option<String>, on_phone: bool) -> Self {
        let value =
            ContactAction { full_name, first_name, save_on_primary_addressbook: Some(on_phone), ..Default::default() };
        Self::Contact { user, value: Box::new(value) }
    }

    /// Makes or changes a label; `color` is 0 to 19.
    pub fn label(label: impl Into<String>, name: impl Into<String>, color: i32) -> Self {
        let value =
            LabelEditAction { name: Some(name.into()), color: Some(color), deleted: Some(false), ..Default::default() };
        Self::LabelEdit { label: label.into(), value: Box::new(value) }
    }

    /// Deletes a label.
    pub fn delete_label(label: impl Into<String>) -> Self {
        let value = LabelEditAction { deleted: Some(true), ..Default::default() };
        Self::LabelEdit { label: label.into(), value: Box::new(value) }
    }

    /// Gives a chat a label, or takes it away.
    pub fn label_chat(label: impl Into<String>, chat: Jid, labeled: bool) -> Self {
        let value = LabelAssociationAction { labeled: Some(labeled), ..Default::default() };
        Self::LabelChat { label: label.into(), chat, value: Box::new(value) }
    }

    /// Gives a message a label, or takes it away.
    pub fn label_message(label: impl Into<String>, chat: Jid, id: impl Into<String>, labeled: bool) -> Self {
        let value = LabelAssociationAction { labeled: Some(labeled), ..Default::default() };
        let (zero, also_zero) = Default::default();
        Self::LabelMessage { label: label.into(), chat, id: id.into(), zero, also_zero, value: Box::new(value) }
    }

    /// Makes or changes a quick reply. `id` is the unix time, in seconds, at which it was made.
    pub fn quick_reply(id: impl Into<String>, shortcut: impl Into<String>, message: impl Into<String>) -> Self {
        let value = QuickReplyAction {
            shortcut: Some(shortcut.into()),
            message: Some(message.into()),
            count: Some(0),
            deleted: Some(false),
            ..Default::default()
        };
        Self::QuickReply { id: id.into(), value: Box::new(value) }
    }

    /// Deletes a quick reply.
    pub fn delete_quick_reply(id: impl Into<String>) -> Self {
        let value = QuickReplyAction { deleted: Some(true), ..Default::default() };
        Self::QuickReply { id: id.into(), value: Box::new(value) }
    }
}
