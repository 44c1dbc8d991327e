//! What becomes of a send: the server has it, refuses it, or does not answer.

use super::{SendOp, Stage};
use crate::{
    clock::Now,
    engine::{
        Engine, address,
        notices::{self, SendFailure},
        records::{OutgoingRecord, Record, SentRecord},
        restrictions,
        step::{Miss, Step},
        tokens,
    },
    jid::Jid,
    stanza::ack::MessageAck,
    store::{Key, RecordKind},
};

/// Key of a send that is not settled.
pub(crate) fn outgoing_key(id: &str) -> Key {
    Key::new(RecordKind::Outgoing, id)
}

/// Key of a sent message. `chat` is the canonical identity of the user.
pub(crate) fn sent_key(chat: &Jid, id: &str) -> Key {
    Key::joined(RecordKind::Sent, &[chat.to_string().as_bytes(), id.as_bytes()])
}

/// A message that was sent to a user, and its key: under the LID, or under the PN when it was sent before the LID was
/// known.
///
/// # Errors
/// [`Miss`].
pub(crate) fn sent_record(
    step: &mut Step<'_>,
    user: &address::User,
    id: &str,
) -> Result<Option<(Key, SentRecord)>, Miss> {
    let keys: Vec<_> = user.identities().map(|chat| sent_key(chat, id)).collect();
    step.require(&keys)?;
    for key in keys {
        if let Some(record) = step.record(&key)? {
            return Ok(Some((key, record)));
        }
    }
    Ok(None)
}

/// The server's answer to a message of ours.
///
/// # Errors
/// [`Miss`].
pub(crate) fn acknowledged(step: &mut Step<'_>, ack: &MessageAck) -> Result<(), Miss> {
    let key = outgoing_key(&ack.id);
    let Some(outgoing) = step.record::<OutgoingRecord>(&key)? else { return Ok(()) };
    if outgoing.stanza.is_none() {
        tracing::warn!("the server acknowledges a message that it was not sent");
        return Ok(());
    }
    if outgoing.peer != 0 {
        if let Some(code) = ack.error {
            tracing::warn!(code, "the server refuses a message to the phone");
        }
        step.delete(key);
        return Ok(());
    }
    let chat = outgoing.chat.parse::<Jid>().unwrap_or_else(|_| ack.from.to_bare());
    let user = address::user(step, &chat)?;
    let sent = sent_record(step, &user, &ack.id)?;
    step.delete(key);
    if let Some(code) = ack.error {
        if let Some((sent_key, _)) = sent {
            step.delete(sent_key);
        }
        restrictions::refused(step, &user, code)?;
        let failure = SendFailure::refused(code);
        step.emit(notices::send_failed(&chat, &ack.id, outgoing.client_ref.as_deref(), &failure));
        return Ok(());
    }
    tokens::wrote(step, &user)?;
    let sent = sent.unwrap_or_else(|| (sent_key(&user.canonical, &ack.id), SentRecord::default()));
    settle_as_sent(step, &ack.id, &chat, &user, &outgoing, sent, ack.timestamp);
    Ok(())
}

/// A message is with the server: it becomes a sent one, and the application hears of it.
pub(crate) fn settle_as_sent(
    step: &mut Step<'_>,
    id: &str,
    chat: &Jid,
    user: &address::User,
    outgoing: &OutgoingRecord,
    (sent_key, sent): (Key, SentRecord),
    timestamp: Option<u64>,
) {
    let timestamp = timestamp.unwrap_or_else(|| step.now.unix_seconds());
    let sent = SentRecord { timestamp, message: outgoing.message.clone(), ..sent };
    step.delete(outgoing_key(id));
    step.put(sent_key, sent.to_bytes());
    let client_ref = outgoing.client_ref.as_deref();
    let event = notices::sent(chat, user, id, timestamp, &outgoing.message, client_ref, step.config.prefer);
    step.emit(event);
}

impl Engine {
    /// These messages are settled, and those that waited for them go on.
    pub(in crate::engine) fn settle(&mut self, now: Now, ids: &[String]) {
        let is_settled = |op: &SendOp| op.is_encrypted() && ids.iter().any(|id| id == op.id.as_str());
        let settled: Vec<SendOp> = self.sends.ops.extract_if(.., |_, op| is_settled(op)).map(|(_, op)| op).collect();
        self.chats_go_on(now, &settled);
    }

    /// Reports the sends whose acknowledgement did not come.
    pub(in crate::engine) fn expire_sends(&mut self, now: Now) {
        let late = |op: &SendOp| matches!(op.stage, Stage::AwaitAck { deadline: Some(at), .. } if at <= now.mono);
        let late: Vec<SendOp> = self.sends.ops.extract_if(.., |_, op| late(op)).map(|(_, op)| op).collect();
        for op in &late {
            self.act(now, |step| {
                step.delete(outgoing_key(op.id.as_str()));
                if op.peer.is_none() {
                    let failure = SendFailure::timeout();
                    step.emit(notices::send_failed(&op.to, op.id.as_str(), op.client_ref.as_deref(), &failure));
                }
            });
        }
        self.chats_go_on(now, &late);
    }

    /// Sends that are over hold up no others.
    fn chats_go_on(&mut self, now: Now, over: &[SendOp]) {
        for op in over.iter().filter(|op| !op.is_through()) {
            self.run_chat(now, &op.lane);
        }
    }
}
