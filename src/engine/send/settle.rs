//! What becomes of a send: the server has it, refuses it, or does not answer.

use std::collections::BTreeSet;

use super::{SendOp, Stage, marks};
use crate::{
    clock::Now,
    engine::{
        Engine,
        address::{self, User},
        devices, groups,
        notices::{self, SendFailure},
        records::{OutgoingRecord, Record, SentRecord},
        restrictions,
        step::{Miss, Step},
        tokens,
    },
    jid::Jid,
    message::phash,
    stanza::{ack::MessageAck, iq::usync::Device},
    store::{Key, RecordKind},
};

/// The server's code for a message that uses another addressing mode than its group.
const STALE_MODE: u32 = 421;
/// For one to a group that we are not in, among others.
const NOT_ACCEPTABLE: u32 = 406;

/// Key of a send that is not settled.
pub(crate) fn outgoing_key(id: &str) -> Key {
    Key::new(RecordKind::Outgoing, id)
}

/// Key of a sent message. `chat` is the canonical identity of the user.
pub(crate) fn sent_key(chat: &Jid, id: &str) -> Key {
    Key::texts(RecordKind::Sent, &[chat, &id])
}

/// A message that was sent to a user, and its key: under the LID, or under the PN when it was sent before the LID was
/// known.
///
/// # Errors
/// [`Miss`].
pub(crate) fn sent_record(step: &mut Step<'_>, user: &User, id: &str) -> Result<Option<(Key, SentRecord)>, Miss> {
    let keys: Vec<_> = user.identities().map(|chat| sent_key(chat, id)).collect();
    step.require(&keys)?;
    for key in keys {
        if let Some(record) = step.record(&key)? {
            return Ok(Some((key, record)));
        }
    }
    Ok(None)
}

/// What the server's answer leads to.
#[derive(Debug)]
pub(crate) enum Acked {
    /// The send is over.
    Settled,
    /// The same, and the identities of this user must be asked for again.
    Stale(Jid),
    /// It is encrypted again: the group addresses its members in another way than we knew.
    Again,
}

/// The server's answer to a message of ours.
///
/// # Errors
/// [`Miss`].
pub(crate) fn acknowledged(step: &mut Step<'_>, ack: &MessageAck) -> Result<Acked, Miss> {
    let key = outgoing_key(&ack.id);
    let Some(outgoing) = step.record::<OutgoingRecord>(&key)? else { return Ok(Acked::Settled) };
    if outgoing.stanza.is_none() {
        tracing::warn!("the server acknowledges a message that it was not sent");
        return Ok(Acked::Settled);
    }
    if outgoing.peer != 0 {
        if let Some(code) = ack.error {
            tracing::warn!(code, "the server refuses a message to the phone");
        }
        step.delete(key);
        return Ok(Acked::Settled);
    }
    let chat = outgoing.chat.parse::<Jid>().unwrap_or_else(|_| ack.from.to_bare());
    let user = address::user(step, &chat)?;
    let sent = sent_record(step, &user, &ack.id)?;
    if let Some(code) = ack.error {
        if chat.is_group() && matches!(code, STALE_MODE | NOT_ACCEPTABLE) {
            groups::forget(step, &chat)?;
        }
        if chat.is_group() && code == STALE_MODE && !outgoing.rebuilt {
            let again = OutgoingRecord { stanza: None, distributed: None, phash: None, rebuilt: true, ..outgoing };
            step.put(key, again.to_bytes());
            return Ok(Acked::Again);
        }
        step.delete(key);
        if let Some((sent_key, _)) = sent {
            step.delete(sent_key);
        }
        restrictions::refused(step, &user, code)?;
        let failure = SendFailure::refused(code);
        let (client_ref, prefer) = (outgoing.client_ref.as_deref(), step.config.prefer);
        step.emit(notices::send_failed(&chat, &user, &ack.id, client_ref, &failure, prefer));
        return Ok(Acked::Settled);
    }
    if let Some(phash) = &ack.phash {
        compare(step, &chat, &user, outgoing.phash.as_deref(), phash)?;
    }
    tokens::wrote(step, &user)?;
    let sent = sent.unwrap_or_else(|| (sent_key(&user.canonical, &ack.id), SentRecord::default()));
    settle_as_sent(step, &ack.id, &chat, &user, &outgoing, sent, ack.timestamp)?;
    if ack.refresh_lid && (chat.is_pn_family() || chat.is_lid_family()) {
        devices::forget(step, &user);
        return Ok(Acked::Stale(user.pn.unwrap_or(chat)));
    }
    Ok(Acked::Settled)
}

/// The server has another idea of whom a message was for (spec 03 §4.6). It is not sent again: who did not get it asks for it.
fn compare(step: &mut Step<'_>, chat: &Jid, user: &User, ours: Option<&str>, theirs: &str) -> Result<(), Miss> {
    if chat.is_group() || chat.is_status_broadcast() {
        if ours == Some(theirs) {
            return Ok(());
        }
        tracing::debug!(chat = %chat.redacted(), "the server knows other devices");
        match chat.is_group() {
            // Marks and device lists stay, else a lasting difference would cost a distribution per message.
            true => groups::forget(step, chat)?,
            false => marks::clear(step, chat),
        }
        return Ok(());
    }
    let Some(linked) = step.account().linked.clone() else { return Ok(()) };
    let own = address::user(step, &linked.pn)?;
    // Both are read before either is missed.
    let (list, own_list) = (devices::devices(step, user), devices::devices(step, &own));
    let (Some(list), Some(own_list)) = (list?, own_list?) else { return Ok(()) };
    let own_jid = match &linked.lid {
        Some(lid) if chat.is_lid_family() => lid,
        _ => &linked.pn,
    };
    let with = |jid: &Jid, list: &[Device]| list.iter().map(|device| device.jid(jid)).collect::<BTreeSet<_>>();
    let mut all = with(chat, &list);
    all.extend(with(&own_jid.to_bare(), &own_list));
    // Whether the sending device counts is not known: either is right.
    all.remove(own_jid);
    let others = phash::phash(&all);
    all.insert(own_jid.clone());
    if theirs != others && theirs != phash::phash(&all) {
        tracing::debug!(chat = %chat.redacted(), "the server knows other devices");
        devices::forget(step, user);
        devices::forget_own(step);
    }
    Ok(())
}

/// A message is with the server: it becomes a sent one, and the application hears of it.
///
/// # Errors
/// [`Miss`].
pub(crate) fn settle_as_sent(
    step: &mut Step<'_>,
    id: &str,
    chat: &Jid,
    user: &User,
    outgoing: &OutgoingRecord,
    (sent_key, sent): (Key, SentRecord),
    timestamp: Option<u64>,
) -> Result<(), Miss> {
    if let Some(distributed) = &outgoing.distributed {
        marks::add(step, chat, distributed)?;
    }
    let timestamp = timestamp.unwrap_or_else(|| step.now.unix_seconds());
    let sent = SentRecord { timestamp, message: outgoing.message.clone(), ..sent };
    step.delete(outgoing_key(id));
    step.put(sent_key, sent.to_bytes());
    let client_ref = outgoing.client_ref.as_deref();
    let event = notices::sent(chat, user, id, timestamp, &outgoing.message, client_ref, step.config.prefer);
    step.emit(event);
    Ok(())
}

impl Engine {
    /// The server answered to a message.
    pub(in crate::engine) fn acked(&mut self, now: Now, id: &str, acked: Acked) {
        match acked {
            Acked::Settled => self.settle(now, std::slice::from_ref(&id)),
            Acked::Stale(user) => {
                self.settle(now, std::slice::from_ref(&id));
                self.ask_devices(now, vec![user]);
            }
            Acked::Again => {
                let Some(op) = self.sends.ops.values_mut().find(|op| op.is_encrypted() && op.id.as_str() == id) else {
                    return;
                };
                op.rebuilt = true;
                op.stage = Stage::Ready;
                let order = op.order;
                self.run_send(now, order);
            }
        }
    }

    /// These messages are settled, and those that waited for them go on.
    pub(in crate::engine) fn settle(&mut self, now: Now, ids: &[impl AsRef<str>]) {
        let is_settled = |op: &SendOp| op.is_encrypted() && ids.iter().any(|id| id.as_ref() == op.id.as_str());
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
                    let people = op.people_in(step);
                    // As the stanza had it, which may have got there.
                    let chat = if people.is(&op.to) { people.addressed(step.account()) } else { &op.to };
                    let failed = op.failed(chat, &people, &SendFailure::timeout(), step.config.prefer);
                    step.emit(failed);
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
