//! Receipts of others about our messages, and ours about theirs (spec 03 §6.2, §6.3).
//!
//! A message has a status per user that only goes up: delivered, read, played. What is told twice, or late, is not an
//! event again. In a group, and for a status, every member has a status of its own, and the first of each kind is marked.
//! It is a small record of its own: a thousand receipts about a message do not write the message a thousand times.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    clock::Now,
    engine::{
        ConnectionId, Queued,
        address::{self, User},
        command::{CommandError, CommandId, Reply},
        notices::{self, ReceiptStatus},
        records::{OutgoingRecord, Record, StatusRecord},
        send::{outgoing_key, sent_record, settle_as_sent},
        step::{Miss, Step},
    },
    event::MappingSource,
    jid::Jid,
    stanza::{
        ack::AckTarget,
        receipt::{InboundReceipt, MAX_IDS, ReadReceipt, ReceiptHead, ReceiptKind},
    },
    store::Key,
};

/// Handles a receipt. Gives the ids of sends that it settles: a message that arrived was taken by the server, even when its
/// acknowledgement was lost.
///
/// # Errors
/// [`Miss`].
pub(crate) fn receipt(step: &mut Step<'_>, receipt: &InboundReceipt, ack: &AckTarget) -> Result<Vec<String>, Miss> {
    address::learn_all(step, &receipt.people, MappingSource::Message)?;
    let (mut settled, mut missed) = (Vec::new(), Ok(()));
    // A device that cannot show a message has not got it.
    if !receipt.incapable {
        let chat = address::user(step, &receipt.from)?;
        // All messages are looked at, so that one round loads everything.
        for (id, readings) in readings(step, receipt, &chat)? {
            match message_receipt(step, receipt, &chat, id, &readings) {
                Ok(true) => settled.push(id.to_owned()),
                Ok(false) => {}
                Err(miss) => missed = Err(miss),
            }
        }
    }
    missed?;
    step.send(&ack.ack());
    Ok(settled)
}

/// What somebody did with a message.
struct Reading {
    /// As addressed, without device.
    jid: Jid,
    user: User,
    status: ReceiptStatus,
    timestamp: u64,
}

/// Who did what, message by message. What own devices received or read says nothing about the peer, and only whom a message
/// was sent to can confirm it.
fn readings<'r>(
    step: &mut Step<'_>,
    receipt: &'r InboundReceipt,
    chat: &User,
) -> Result<Vec<(&'r str, Vec<Reading>)>, Miss> {
    let many = receipt.from.is_group() || receipt.from.is_broadcast();
    let reader = match &receipt.participant {
        Some(participant) => Some(participant),
        None => Some(&receipt.from).filter(|_| !many),
    };
    let single = reader.into_iter().flat_map(|reader| receipt.ids.iter().map(move |id| (id, reader)));
    let single = single.map(|(id, reader)| (id, reader, &receipt.kind, receipt.timestamp));
    let each = receipt.marks.iter().map(|mark| (&mark.id, &mark.user, &mark.kind, mark.timestamp));
    let all: Vec<_> = if receipt.marks.is_empty() { single.collect() } else { each.filter(|_| many).collect() };

    let (mut readings, mut places, mut missed) = (Vec::<(&str, Vec<Reading>)>::new(), BTreeMap::new(), Ok(()));
    for (id, jid, kind, timestamp) in all {
        let status = match kind {
            ReceiptKind::Delivered => ReceiptStatus::Delivered,
            ReceiptKind::Read => ReceiptStatus::Read,
            ReceiptKind::Played => ReceiptStatus::Played,
            _ => continue,
        };
        if step.account().linked.as_ref().is_some_and(|linked| linked.own().is_account(jid)) {
            continue;
        }
        match address::user(step, jid) {
            Ok(user) if !many && chat.canonical != user.canonical => {
                tracing::debug!("somebody confirms what was sent to somebody else");
            }
            Ok(user) => {
                let reading = Reading { jid: jid.to_bare(), user, status, timestamp };
                let place = *places.entry(id.as_str()).or_insert(readings.len());
                match readings.get_mut(place) {
                    Some((_, of_message)) => of_message.push(reading),
                    None => readings.push((id, vec![reading])),
                }
            }
            Err(miss) => missed = Err(miss),
        }
    }
    missed.map(|()| readings)
}

/// One message of a receipt; true when its send is settled by it.
fn message_receipt(
    step: &mut Step<'_>,
    receipt: &InboundReceipt,
    chat: &User,
    id: &str,
    readings: &[Reading],
) -> Result<bool, Miss> {
    let outgoing_key = outgoing_key(id);
    // Both are read before either is missed.
    let (sent, outgoing) = (sent_record(step, chat, id), step.record::<OutgoingRecord>(&outgoing_key));
    let (Some((sent_key, mut sent)), outgoing) = (sent?, outgoing?) else { return Ok(false) };
    let keys_of = |reading: &Reading| -> Vec<Key> {
        reading.user.identities().map(|identity| status_key(&sent_key, identity)).collect()
    };
    let status_keys: Vec<Vec<Key>> = readings.iter().map(keys_of).collect();
    step.require(status_keys.iter().flatten())?;
    let addressed = sent.chat.parse::<Jid>().unwrap_or_else(|_| chat.canonical.clone());
    let timestamp = Some(receipt.timestamp).filter(|timestamp| *timestamp != 0);
    // Ids are the caller's: another chat may have a message with the same one.
    let outgoing = outgoing.filter(|pending| pending.stanza.is_some() && pending.chat == sent.chat);
    let settles = outgoing.is_some();
    if let Some(outgoing) = outgoing {
        settle_as_sent(step, id, &addressed, chat, &outgoing, (sent_key.clone(), sent.clone()), timestamp)?;
    }
    let known = sent.clone();
    if sent.timestamp == 0 {
        sent.timestamp = timestamp.unwrap_or_else(|| step.now.unix_seconds());
    }
    for (reading, keys) in readings.iter().zip(status_keys) {
        let status = reading.status;
        let mut before = 0;
        for key in &keys {
            before = before.max(step.record::<StatusRecord>(key)?.map_or(0, |known| known.status));
        }
        if status.number() <= before {
            continue;
        }
        let delivered = ReceiptStatus::Delivered;
        let implied = (before < delivered.number() && status != delivered).then_some(delivered);
        for (status, implied) in [(implied, true), (Some(status), false)] {
            let Some(status) = status else { continue };
            let first = sent.highest < status.number();
            let about = notices::ReceiptAbout {
                chat: &addressed,
                people: chat,
                id,
                jid: &reading.jid,
                reader: &reading.user,
                // What many have read is shown once.
                sent: Some(&sent).filter(|_| readings.len() == 1 || first),
                first,
                prefer: step.config.prefer,
            };
            step.emit_from(receipt.offline, notices::receipt(&about, status, reading.timestamp, implied));
        }
        if let Some(key) = keys.into_iter().next() {
            step.put(key, StatusRecord { status: status.number() }.to_bytes());
        }
        sent.highest = sent.highest.max(status.number());
    }
    if sent != known {
        step.put(sent_key, sent.to_bytes());
    }
    Ok(settles)
}

/// How far a user got with a message, by one of its identities: what is told under the number is not told again under the LID.
fn status_key(sent: &Key, identity: &Jid) -> Key {
    let mut id = sent.id.clone();
    id.push(0);
    let user = Key::texts(sent.kind, &[identity]);
    id.extend_from_slice(&user.id);
    Key { kind: sent.kind, id }
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

/// Joins receipts of the backlog that may leave now, one stanza for each place and kind; where the first of them stood.
pub(super) fn join(ready: VecDeque<Queued>, now: Now, waiting: &mut usize) -> VecDeque<Queued> {
    let mut joined = VecDeque::<Queued>::with_capacity(ready.len());
    // Where the one stands that may still have room.
    let mut places = BTreeMap::<(ConnectionId, ReceiptHead), usize>::new();
    for queued in ready {
        let Queued::Receipt(connection, mut receipt) = queued else {
            joined.push_back(queued);
            continue;
        };
        *waiting = waiting.saturating_sub(1);
        let place = (connection, receipt.head.clone());
        if let Some(Queued::Receipt(_, first)) = places.get(&place).and_then(|at| joined.get_mut(*at))
            && first.join(&mut receipt)
        {
            continue;
        }
        places.insert(place, joined.len());
        joined.push_back(Queued::Receipt(connection, receipt));
    }
    let encoded = joined.into_iter().filter_map(|queued| match queued {
        Queued::Receipt(connection, receipt) => match receipt.to_node(now.unix_seconds()).encode() {
            Ok(frame) => Some(Queued::Frame(connection, frame.into())),
            Err(error) => {
                tracing::error!(%error, "receipt cannot be encoded");
                None
            }
        },
        other => Some(other),
    });
    encoded.collect()
}
