//! Receipts of others about our messages, and ours about theirs (spec 03 §6.2, §6.3).
//!
//! A message has a status per user that only goes up: delivered, read, played. What is told twice, or late, is not an
//! event again.

use crate::{
    engine::{
        address::{self, User},
        command::{CommandError, CommandId, Reply},
        notices::{self, ReceiptStatus},
        records::{OutgoingRecord, Record},
        send::{outgoing_key, sent_record, settle_as_sent},
        step::{Miss, Step},
    },
    jid::Jid,
    stanza::{
        ack::AckTarget,
        receipt::{InboundReceipt, MAX_IDS, ReadReceipt, ReceiptKind},
    },
};

/// Handles a receipt. Gives the ids of sends that it settles: a message that arrived was taken by the server, even when its
/// acknowledgement was lost.
///
/// # Errors
/// [`Miss`].
pub(crate) fn receipt(step: &mut Step<'_>, receipt: &InboundReceipt, ack: &AckTarget) -> Result<Vec<String>, Miss> {
    let mut settled = Vec::new();
    let reader = receipt.participant.as_ref().unwrap_or(&receipt.from);
    let own = step.account().linked.as_ref().is_some_and(|linked| linked.own().is_account(reader));
    let status = match receipt.kind {
        ReceiptKind::Delivered => Some(ReceiptStatus::Delivered),
        ReceiptKind::Read => Some(ReceiptStatus::Read),
        ReceiptKind::Played => Some(ReceiptStatus::Played),
        _ => None,
    };
    // What own devices received or read says nothing about the peer.
    if let Some(status) = status.filter(|_| !own) {
        let reader = address::user(step, reader)?;
        let chat = address::user(step, &receipt.from)?;
        if !receipt.from.is_group() && !receipt.from.is_broadcast() && chat.canonical != reader.canonical {
            tracing::warn!("somebody confirms what was sent to somebody else");
            step.send(&ack.ack());
            return Ok(settled);
        }
        let mut missed = Ok(());
        for id in &receipt.ids {
            match message_receipt(step, receipt, &chat, &reader, id, status) {
                Ok(true) => settled.push(id.clone()),
                Ok(false) => {}
                // All messages are looked at, so that one round loads everything.
                Err(miss) => missed = Err(miss),
            }
        }
        missed?;
    }
    step.send(&ack.ack());
    Ok(settled)
}

/// One message of a receipt; true when its send is settled by it.
fn message_receipt(
    step: &mut Step<'_>,
    receipt: &InboundReceipt,
    chat: &User,
    reader: &User,
    id: &str,
    status: ReceiptStatus,
) -> Result<bool, Miss> {
    let outgoing_key = outgoing_key(id);
    // Both are read before either is missed.
    let (sent, outgoing) = (sent_record(step, chat, id), step.record::<OutgoingRecord>(&outgoing_key));
    let (Some((sent_key, mut sent)), outgoing) = (sent?, outgoing?) else { return Ok(false) };
    let addressed = sent.chat.parse::<Jid>().unwrap_or_else(|_| chat.canonical.clone());
    let timestamp = Some(receipt.timestamp).filter(|timestamp| *timestamp != 0);
    // Ids are the caller's: another chat may have a message with the same one.
    let outgoing = outgoing.filter(|pending| pending.stanza.is_some() && pending.chat == sent.chat);
    let settles = outgoing.is_some();
    if let Some(outgoing) = outgoing {
        settle_as_sent(step, id, &addressed, chat, &outgoing, (sent_key.clone(), sent.clone()), timestamp)?;
    }
    if sent.timestamp == 0 {
        sent.timestamp = timestamp.unwrap_or_else(|| step.now.unix_seconds());
    }
    let name = reader.canonical.to_string();
    let before = sent.status.get(&name).copied().unwrap_or(0);
    if status.number() <= before {
        return Ok(settles);
    }
    let first = sent.status.values().all(|known| *known < status.number());
    let about = notices::ReceiptAbout {
        chat: &addressed,
        people: chat,
        id,
        reader,
        sent: &sent,
        first,
        prefer: step.config.prefer,
    };
    let delivered = ReceiptStatus::Delivered;
    if before < delivered.number() && status != delivered {
        step.emit_from(receipt.offline, notices::receipt(&about, delivered, receipt.timestamp, true));
    }
    step.emit_from(receipt.offline, notices::receipt(&about, status, receipt.timestamp, false));
    sent.status.insert(name, status.number());
    step.put(sent_key, sent.to_bytes());
    Ok(settles)
}

/// Tells the author of messages that they were read.
///
/// # Errors
/// [`Miss`].
pub(crate) fn mark_read(
    step: &mut Step<'_>,
    command: CommandId,
    chat: &Jid,
    participant: Option<&Jid>,
    ids: &[String],
) -> Result<(), Miss> {
    if ids.is_empty() {
        step.reply(command, Err(CommandError::NoIds));
        return Ok(());
    }
    let user = address::user(step, chat)?;
    let chat = if chat.is_pn_family() || chat.is_lid_family() { user.canonical } else { chat.to_bare() };
    let participant = participant.map(Jid::to_bare);
    let timestamp = step.now.unix_seconds();
    for ids in ids.chunks(MAX_IDS) {
        let receipt = ReadReceipt { chat: &chat, participant: participant.as_ref(), ids, timestamp };
        if let Some(node) = receipt.to_node() {
            step.send(&node);
        }
    }
    step.reply(command, Ok(Reply::Done));
    Ok(())
}
