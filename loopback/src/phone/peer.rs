//! What a phone does for its companions alone: app state keys, and messages that they could not read (spec 03 §5.6,
//! spec 05 A2, spec 06 §5.1).

use bytes::Bytes;
use prost::Message as _;
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::proto::e2e::peer_data_operation_request_response_message::{
    PeerDataOperationResult, peer_data_operation_result::PlaceholderMessageResendResponse,
};
use wamd::proto::e2e::{self, PeerDataOperationRequestType, protocol_message::Type};
use wamd::proto::{common, web};

use super::send::{encrypt, submit};
use super::{Phone, message_id};
use crate::core::Core;
use crate::directory::{Account, Address, Directory, Namespace};
use crate::queue::Entry;

/// Sends the app state keys to a companion once it is there and has uploaded its keys, once in its life.
pub(crate) fn greet(core: &mut Core, address: Address) {
    let wanted = core.directory.device(address).is_some_and(|device| device.uploaded && !device.greeted);
    if !wanted || !core.config.share_app_state_keys || core.live_connection(address).is_none() {
        return;
    }
    if let Some(device) = core.directory.device_mut(address) {
        device.greeted = true;
    }
    share_app_state_keys(core, address);
}

/// Answers a message of an own companion that asks for something.
pub(super) fn answer(core: &mut Core, companion: Address, entry: &Entry, message: &e2e::Message) {
    let Some(protocol) = &message.protocol_message else { return };
    if protocol.app_state_sync_key_request.is_some() {
        share_app_state_keys(core, companion);
    }
    if let Some(request) = &protocol.peer_data_operation_request_message
        && request.peer_data_operation_request_type() == PeerDataOperationRequestType::PlaceholderMessageResend
    {
        resend_placeholders(core, companion, &entry.id, request);
    }
}

fn share_app_state_keys(core: &mut Core, address: Address) {
    let Some(account) = core.directory.account(address.number) else { return };
    let message = app_state_key_share(account, core.now.wall_ms);
    send(core, address, &message);
}

/// Hands out what a companion asks for by key; what the phone does not have is left out.
fn resend_placeholders(
    core: &mut Core,
    companion: Address,
    request_id: &str,
    request: &e2e::PeerDataOperationRequestMessage,
) {
    let Some(account) = core.directory.account(companion.number) else { return };
    let keys = request.placeholder_message_resend_request.iter().filter_map(|one| one.message_key.as_deref());
    let found = keys.take(MAX_PLACEHOLDERS).filter_map(|key| find(&core.directory, &account.phone, key));
    let results = found.map(|info| PeerDataOperationResult {
        placeholder_message_resend_response: Some(Box::new(PlaceholderMessageResendResponse {
            web_message_info_bytes: Some(info.encode_to_vec().into()),
        })),
        ..PeerDataOperationResult::default()
    });
    let response = e2e::PeerDataOperationRequestResponseMessage {
        peer_data_operation_request_type: Some(PeerDataOperationRequestType::PlaceholderMessageResend.into()),
        stanza_id: Some(request_id.to_owned()),
        peer_data_operation_result: results.collect(),
    };
    let protocol = e2e::ProtocolMessage {
        r#type: Some(Type::PeerDataOperationRequestResponseMessage.into()),
        peer_data_operation_request_response_message: Some(Box::new(response)),
        ..e2e::ProtocolMessage::default()
    };
    send(core, companion, &protocol_message(protocol));
}

/// The message of a key, as the phone has received or sent it.
fn find(directory: &Directory, phone: &Phone, key: &common::MessageKey) -> Option<web::WebMessageInfo> {
    let (id, chat) = (key.id.as_deref()?, key.remote_jid.as_deref()?.parse::<Jid>().ok()?);
    let is_chat = |other: &Jid| {
        *other == chat || directory.resolve(other).is_some_and(|address| Some(address) == directory.resolve(&chat))
    };
    let received = phone.received.iter().rev().find(|message| message.id == id && is_chat(&message.chat));
    let (message, at) = match received {
        Some(received) => {
            let message = e2e::Message::decode(received.message.clone()).ok()?;
            let inner = message.device_sent_message.as_ref().and_then(|sent| sent.message.as_deref().cloned());
            (inner.unwrap_or(message), received.timestamp)
        }
        None => {
            let sent = phone.sent.get(id).filter(|sent| is_chat(&sent.to))?;
            (sent.message.clone(), sent.at)
        }
    };
    Some(web::WebMessageInfo {
        key: Some(Box::new(key.clone())),
        message: Some(Box::new(message)),
        message_timestamp: Some(at),
        participant: key.participant.clone(),
        ..web::WebMessageInfo::default()
    })
}

/// Sends a peer message, by LID.
fn send(core: &mut Core, companion: Address, message: &e2e::Message) {
    let sent = encrypt(core, companion.number, companion, message, None).and_then(|enc| {
        let node = Node::new("message")
            .attr("to", core.jid(companion, Namespace::Lid))
            .attr("id", message_id(&mut core.rng))
            .attr("type", "text")
            .attr("category", "peer")
            .child(enc);
        submit(core, companion.number, &node)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "a peer message could not be sent");
    }
}

/// The account's one app state key, for all devices that there are (spec 05 A2.3).
fn app_state_key_share(account: &Account, wall_ms: u64) -> e2e::Message {
    let indexes = account.device_list().map(|(_, index)| index.unwrap_or(0));
    let fingerprint = e2e::AppStateSyncKeyFingerprint {
        raw_id: Some(account.raw_id),
        current_index: Some(account.key_index),
        device_indexes: indexes.collect(),
    };
    let data = e2e::AppStateSyncKeyData {
        key_data: Some(Bytes::copy_from_slice(account.phone.app_state_key.expose())),
        fingerprint: Some(Box::new(fingerprint)),
        timestamp: i64::try_from(wall_ms).ok(),
    };
    let id = e2e::AppStateSyncKeyId { key_id: Some(Bytes::from_static(&APP_STATE_KEY_ID)) };
    let key = e2e::AppStateSyncKey { key_id: Some(Box::new(id)), key_data: Some(Box::new(data)) };
    protocol_message(e2e::ProtocolMessage {
        r#type: Some(Type::AppStateSyncKeyShare.into()),
        app_state_sync_key_share: Some(Box::new(e2e::AppStateSyncKeyShare { keys: vec![key] })),
        ..e2e::ProtocolMessage::default()
    })
}

fn protocol_message(protocol: e2e::ProtocolMessage) -> e2e::Message {
    e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() }
}

/// Device 0, epoch 1 (spec 05 A2.2).
const APP_STATE_KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];

/// Messages that one request gets.
const MAX_PLACEHOLDERS: usize = 256;
