//! Entry point of the fuzz target, which an ordinary test replays, too.

use bytes::Bytes;

use super::{
    ack::{AckTarget, MessageAck, Nack},
    iq::{self, groups::MemberAction},
    message::{InboundMessage, Own},
    receipt::InboundReceipt,
    stream::{Failure, InfoBroadcast, Notification, StreamError, Success},
};
use crate::{jid::Jid, node::Decoder};

/// Decodes `data` as a frame and reads it as every stanza. What we answer can be encoded.
///
/// # Panics
/// When a reader panics or an answer does not encode, which is what the fuzzer looks for.
pub fn stanza(data: &[u8]) {
    let mut decoder = Decoder::default();
    let Ok(node) = decoder.decode(Bytes::copy_from_slice(data)) else { return };
    let (pn, lid) = (Jid::pn("15550000001").with_device(2), Jid::lid("100000000000001").with_device(2));
    let _ = InboundMessage::parse(node, &Own { pn: &pn, lid: Some(&lid) });
    let _ = InboundReceipt::parse(node);
    let _ = MessageAck::parse(node);
    if let Some(target) = AckTarget::of(node) {
        assert!(target.ack().encode().is_ok());
        assert!(target.nack(Nack::InvalidProtobuf).encode().is_ok());
    }
    let _ = (Success::parse(node), Failure::parse(node), StreamError::parse(node));
    let _ = (InfoBroadcast::parse(node), Notification::parse(node));
    let _ = (iq::answer(node).is_ok(), iq::usync::devices(node), iq::prekeys::bundles(node), iq::prekeys::count(node));
    let _ = (iq::groups::info(node).is_ok(), iq::groups::participating(node).is_ok());
    let _ = (iq::app_state::collections(node).is_ok(), iq::app_state::notified(node));
    let _ = (iq::groups::members(node, MemberAction::Add).is_ok(), iq::groups::left(node).is_ok());
}
