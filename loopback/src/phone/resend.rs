//! Retry receipts for what a phone has sent: it sends again, to the device that asks (spec 03 §5.7).

use wamd::jid::Jid;
use wamd::node::Node;
use wamd::proto::e2e;

use super::send::{self, distribution, encrypt, encrypt_for, establish};
use super::{MAX_RETRIES, Sent};
use crate::control::ControlError;
use crate::core::Core;
use crate::directory::{Address, Namespace};
use crate::keys::read_bundle;

/// A receipt for the phone: only a retry receipt makes it act.
pub(crate) fn receive_receipt(core: &mut Core, number: u64, receipt: &Node) {
    if receipt.attr_str("type").as_deref() != Some("retry") {
        return;
    }
    let Some(from) = receipt.attr_jid("participant").or_else(|| receipt.attr_jid("from")) else { return };
    let Some(target) = core.directory.resolve(&from) else { return };
    let id = receipt.attr_str("id").unwrap_or_default().into_owned();
    let count = receipt.find_child("retry").and_then(|retry| retry.attr_u64("count")).unwrap_or(1);
    let Some(account) = core.directory.account(number) else { return };
    let Some(sent) = account.phone.sent.get(&id).cloned() else { return };
    let bundle = receipt.find_child("keys").and_then(|keys| read_bundle(receipt, keys));
    if count > MAX_RETRIES || !is_meant(core, number, target, &sent.to) {
        return;
    }
    let prepared = match bundle {
        Some(bundle) => establish(core, number, target, &bundle),
        None => Ok(()),
    };
    if let Err(error) = prepared.and_then(|()| again(core, number, target, &id, &sent, count)) {
        tracing::warn!(%error, "a message could not be sent again");
    }
}

/// Whether a device may ask for what was sent to a chat: one of ours, or of somebody who is in it (spec 03 §5.7).
fn is_meant(core: &Core, number: u64, target: Address, chat: &Jid) -> bool {
    if target.number == number {
        return true;
    }
    if let Some(group) = core.groups.get(chat) {
        return group.rank(target.number).is_some();
    }
    let audience = core.directory.account(number).and_then(|account| account.phone.marks.get(chat));
    let recipient = core.directory.resolve(chat);
    recipient.is_some_and(|recipient| recipient.number == target.number)
        || audience.is_some_and(|audience| audience.contains(&target))
}

fn again(core: &mut Core, number: u64, target: Address, id: &str, sent: &Sent, count: u64) -> Result<(), ControlError> {
    let node = Node::new("message").attr("id", id).attr("type", "text");
    let node = match Namespace::of(&sent.to) {
        Some(namespace) => {
            let own = target.number == number;
            let enc = encrypt_for(core, number, target, &sent.to, &sent.message, Some(count))?;
            node.attr("to", core.jid(target, namespace)).attr_opt("recipient", own.then_some(&sent.to)).child(enc)
        }
        // In a group the sender key goes along.
        None => {
            let mode = core.groups.get(&sent.to).map_or(Namespace::Lid, |group| group.mode);
            let key = distribution(core, number, &sent.to)?.sender_key_distribution_message;
            let message = if target.number == number {
                let copy = e2e::DeviceSentMessage {
                    destination_jid: Some(sent.to.to_string()),
                    message: Some(Box::new(sent.message.clone())),
                    ..e2e::DeviceSentMessage::default()
                };
                e2e::Message { device_sent_message: Some(Box::new(copy)), ..e2e::Message::default() }
            } else {
                sent.message.clone()
            };
            let message = e2e::Message { sender_key_distribution_message: key, ..message };
            let enc = encrypt(core, number, target, &message, Some(count))?;
            node.attr("to", &sent.to).attr("participant", core.jid(target, mode)).child(enc)
        }
    };
    send::submit(core, number, &node)
}
