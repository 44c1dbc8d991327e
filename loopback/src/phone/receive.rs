//! What a phone reads, and how it answers: a delivery receipt, or a retry receipt (spec 03 §5.2–§5.6).

use bytes::Bytes;
use prost::Message as _;
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::proto::e2e;
use wamd::signal::sender_key::{self, SenderKeyName};
use wamd::signal::{self, CiphertextKind, Own, SignalError, StepError};

use super::{MAX_RETRIES, Phone, peer, signal_address, unpad};
use crate::control::ReceivedMessage;
use crate::core::{Core, leaf};
use crate::directory::{Account, Address};
use crate::keys::{KEY_TYPE, signed_prekey_node, write_id};
use crate::queue::Entry;
use crate::receipts;

/// Decrypts a message for the phone and answers it.
pub(crate) fn receive(core: &mut Core, number: u64, entry: &Entry) {
    let author = entry.author();
    let Some(sender) = core.directory.resolve(&author) else { return };
    let mute = core.faults.of(Address::phone(number)).mute;
    let is_known = is_known(core, number, sender, entry);
    let Some(account) = core.directory.account_mut(number) else { return };
    let opened = open(account, sender, entry, is_known);
    match opened {
        Err(SignalError::Duplicate) if !mute && is_known => confirm(core, number, sender, entry),
        Err(error) if !mute => ask_again(core, number, sender, entry, error),
        Err(_) => {}
        Ok(plaintexts) if plaintexts.is_empty() => {}
        Ok(plaintexts) => {
            // What came again in another ciphertext is one message all the same.
            let plaintexts = if is_known { Vec::new() } else { plaintexts };
            let messages: Vec<_> =
                plaintexts.iter().filter_map(|plaintext| keep(&mut account.phone, entry, plaintext)).collect();
            if !mute {
                confirm(core, number, sender, entry);
            }
            if sender.number == number {
                messages.iter().for_each(|message| peer::answer(core, sender, entry, message));
            }
        }
    }
}

/// Whether the message is in the mailbox. A key that is used up says nothing about that: an older message is beyond a sender
/// key that came with a later one.
fn is_known(core: &Core, number: u64, sender: Address, entry: &Entry) -> bool {
    let phone = core.directory.account(number).map(|account| &account.phone);
    let mut same = phone.into_iter().flat_map(|phone| &phone.received).filter(|message| message.id == entry.id);
    same.any(|message| core.directory.resolve(&message.from) == Some(sender))
}

/// Decrypts all that a stanza holds, what is for the phone alone first, because a sender key may be in there. Nothing when
/// it holds no ciphertext of a known kind.
fn open(account: &mut Account, sender: Address, entry: &Entry, is_known: bool) -> Result<Vec<Vec<u8>>, SignalError> {
    let own = Own { identity: &account.identity, registration_id: account.phone.registration_id };
    let (phone, address) = (&mut account.phone, signal_address(sender));
    let encs = |wanted: &'static [&'static str]| {
        let encs = entry.node.child_nodes().iter().filter(|node| node.is("enc"));
        encs.filter(|enc| enc.attr_str("type").is_some_and(|kind| wanted.contains(&&*kind)))
    };
    let (mut plaintexts, mut duplicate) = (Vec::new(), false);
    for enc in encs(&["pkmsg", "msg"]) {
        let is_prekey = enc.attr_str("type").as_deref() == Some("pkmsg");
        let kind = if is_prekey { CiphertextKind::PreKey } else { CiphertextKind::Whisper };
        let bytes = enc.content_bytes().unwrap_or_default();
        match signal::decrypt(&mut phone.store, &own, &address, kind, &bytes) {
            Ok(opened) => {
                take_sender_key(phone, sender, entry, &opened.plaintext);
                plaintexts.push(opened.plaintext);
            }
            Err(StepError::Signal(SignalError::Duplicate)) => duplicate = true,
            Err(StepError::Signal(error)) => return Err(error),
            Err(StepError::Miss(miss)) => match miss {},
        }
    }
    for enc in encs(&["skmsg"]) {
        let bytes = enc.content_bytes().unwrap_or_default();
        let chat = entry.from.to_string();
        match sender_key::decrypt(&mut phone.sender_keys, &chat, std::slice::from_ref(&address), &bytes) {
            Ok(opened) => plaintexts.push(opened.plaintext),
            Err(StepError::Signal(SignalError::Duplicate)) if is_known => duplicate = true,
            Err(StepError::Signal(error)) => return Err(error),
            Err(StepError::Miss(miss)) => match miss {},
        }
    }
    if plaintexts.is_empty() && duplicate { Err(SignalError::Duplicate) } else { Ok(plaintexts) }
}

impl Phone {
    /// Whether sender keys for a chat are kept. Groups exist; a list is what somebody calls one, so their number is bounded.
    fn knows_chat(&mut self, chat: &Jid) -> bool {
        if !chat.is_broadcast() || chat.is_status_broadcast() || self.lists.contains(chat) {
            return true;
        }
        self.lists.len() < MAX_LISTS && self.lists.insert(chat.clone())
    }
}

/// Stores a sender key that came for the chat of the stanza.
fn take_sender_key(phone: &mut Phone, sender: Address, entry: &Entry, plaintext: &[u8]) {
    let message = unpad(plaintext).and_then(|message| e2e::Message::decode(message).ok());
    let Some(key) = message.and_then(|message| message.sender_key_distribution_message) else { return };
    let chat = entry.from.to_string();
    if key.group_id.as_deref() != Some(&*chat) || !phone.knows_chat(&entry.from) {
        return;
    }
    let name = SenderKeyName::new(&chat, signal_address(sender));
    let bytes = key.axolotl_sender_key_distribution_message.unwrap_or_default();
    if let Err(error) = sender_key::process(&mut phone.sender_keys, &name, &bytes) {
        tracing::debug!(%error, "a phone got a bad sender key");
    }
}

/// Puts a decrypted message into the mailbox; `None` if it is no message, or holds a sender key only.
fn keep(phone: &mut Phone, entry: &Entry, plaintext: &[u8]) -> Option<e2e::Message> {
    let message = Bytes::copy_from_slice(unpad(plaintext)?);
    let decoded = e2e::Message::decode(message.clone()).ok()?;
    let rest = e2e::Message { sender_key_distribution_message: None, message_context_info: None, ..decoded.clone() };
    if decoded.sender_key_distribution_message.is_some() && rest == e2e::Message::default() {
        return None;
    }
    let content = match &decoded.device_sent_message {
        Some(sent) => sent.message.as_deref(),
        None => Some(&decoded),
    };
    let text = content.and_then(|content| {
        let extended = content.extended_text_message.as_ref().and_then(|extended| extended.text.clone());
        content.conversation.clone().or(extended)
    });
    let recipient = entry.node.attr_jid("recipient");
    let is_one_to_one = entry.node.get_attr("participant").is_none();
    let chat = recipient.clone().filter(|_| is_one_to_one).unwrap_or_else(|| entry.from.to_bare());
    if phone.received.len() >= MAX_RECEIVED {
        phone.received.drain(..MAX_RECEIVED / 2);
    }
    phone.received.push(ReceivedMessage {
        id: entry.id.clone(),
        chat,
        from: entry.author(),
        recipient,
        text,
        message,
        timestamp: entry.node.attr_u64("t").unwrap_or_default(),
    });
    Some(decoded)
}

/// Sends the delivery receipt of a message.
fn confirm(core: &mut Core, number: u64, sender: Address, entry: &Entry) {
    let participant = entry.node.attr_jid("participant");
    let kind = if entry.node.attr_str("category").as_deref() == Some("peer") {
        Some("peer_msg")
    } else if sender.number == number && participant.is_none() {
        Some("sender")
    } else {
        None
    };
    let recipient = entry.node.attr_jid("recipient").filter(|_| participant.is_none());
    let receipt = Node::new("receipt")
        .attr("id", &entry.id)
        .attr_opt("type", kind)
        .attr_opt("participant", participant)
        .attr_opt("recipient", recipient);
    receipts::pass_on(core, Address::phone(number), &entry.from, kind, receipt);
}

/// Sends a retry receipt, from the second one on with keys (spec 03 §5.6).
fn ask_again(core: &mut Core, number: u64, sender: Address, entry: &Entry, error: SignalError) {
    let now = core.now.unix_seconds();
    let Some(account) = core.directory.account_mut(number) else { return };
    let retries = &mut account.phone.retries;
    if retries.len() >= MAX_ASKED {
        retries.pop_first();
    }
    let count = retries.entry((sender, entry.id.clone())).or_default();
    // Whoever registered again has asked before, without knowing.
    let resends = entry.node.child_nodes().iter().filter_map(|enc| enc.attr_u64("count")).max();
    let resends = resends.and_then(|resends| u32::try_from(resends).ok()).unwrap_or(0);
    *count = resends.max(*count).saturating_add(1);
    let count = *count;
    if u64::from(count) > MAX_RETRIES {
        return;
    }
    let retry = Node::new("retry")
        .attr("v", "1")
        .attr("id", &entry.id)
        .attr("t", entry.node.attr_u64("t").unwrap_or(now))
        .attr("count", count)
        .attr("error", error.retry_reason());
    let keys = (count > 1).then(|| {
        let bundle = account.phone.take_bundle(&account.identity, &mut core.rng);
        let prekey = bundle
            .prekey
            .map(|(id, key)| Node::new("key").child(leaf("id", write_id(id))).child(leaf("value", key.as_bytes())));
        Node::new("keys")
            .child(leaf("type", KEY_TYPE))
            .child(leaf("identity", bundle.identity.as_bytes()))
            .child_opt(prekey)
            .child(signed_prekey_node(&bundle.signed_prekey))
    });
    let receipt = Node::new("receipt")
        .attr("id", &entry.id)
        .attr("type", "retry")
        .attr_opt("participant", entry.node.attr_jid("participant"))
        .attr_opt("recipient", entry.node.attr_jid("recipient"))
        .child(retry)
        .child(leaf("registration", account.phone.registration_id.to_be_bytes()))
        .child_opt(keys);
    receipts::pass_on(core, Address::phone(number), &entry.from, Some("retry"), receipt);
}

/// Messages that a phone keeps; the older half goes when there are so many.
const MAX_RECEIVED: usize = 100_000;

/// Broadcast lists that a phone keeps sender keys for.
const MAX_LISTS: usize = 1_000;

/// Messages that a phone remembers having asked for again.
const MAX_ASKED: usize = 10_000;
