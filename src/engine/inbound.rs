//! From a decrypted frame to something owned that the engine acts on. Pure: no state but the correlator's.

use crate::{
    engine::{
        lanes::Stanza,
        queries::{Answer, Queries},
    },
    jid::Jid,
    node::NodeRef,
    pairing::{
        PairError,
        notice::{self, LinkNotice},
        stanza::{self as pair, PairIq},
    },
    stanza::{
        ack::{AckTarget, MessageAck, Nack},
        message::{InboundMessage, Own},
        people,
        receipt::InboundReceipt,
        stream::{Failure, InfoBroadcast, Notification, StreamError, Success},
    },
};

/// What the server sent.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// The answer to one of our queries.
    Answer(Answer),
    /// A stanza that is handled in the lane of its chat.
    Stanza(Box<Stanza>),
    /// Refs to be shown as QR codes, or the answer of the phone that scanned one.
    Pair(PairIq),
    /// One of these that cannot be used, and its id.
    PairFailed(PairError, Option<String>),
    /// A notification about linking, which is owed an ack.
    Link(LinkNotice, AckTarget),
    /// The server wants to know whether we live.
    Ping {
        id: Option<String>,
        from: Jid,
    },
    Success(Success),
    Failure(Failure),
    /// And how the stanza looks in logs.
    StreamError(StreamError, String),
    StreamEnd,
    Info(Vec<InfoBroadcast>),
    /// Owed an ack, and nothing else.
    Ack(AckTarget),
    /// Owed a refusal.
    Nack(AckTarget, Nack),
    /// Needs no answer.
    Ignored,
}

/// Reads a stanza. `own` is absent while the device is not linked.
pub(crate) fn parse(node: NodeRef<'_>, own: Option<Own<'_>>, queries: &mut Queries) -> Inbound {
    match node.tag() {
        "iq" => parse_iq(node, queries),
        "message" => match own {
            Some(own) => parse_message(node, &own),
            None => Inbound::Ignored,
        },
        "receipt" => match (InboundReceipt::parse(node), AckTarget::of(node)) {
            (Ok(receipt), Some(ack)) => stanza(Stanza::Receipt(receipt, ack)),
            (_, Some(ack)) => Inbound::Ack(ack),
            _ => Inbound::Ignored,
        },
        "ack" => match MessageAck::parse(node) {
            Ok(ack) if node.attr_str("class").as_deref() == Some("message") => stanza(Stanza::Ack(ack)),
            _ => Inbound::Ignored,
        },
        "notification" => match AckTarget::of(node) {
            Some(ack) => {
                // A linked device has nothing to do with them but the ack.
                if own.is_none()
                    && let Some(notice) = notice::parse(node)
                {
                    return Inbound::Link(notice, ack);
                }
                let offline = node.attr_str("offline").is_some();
                match (Notification::parse(node), people(node)) {
                    (Notification::Other, people) if own.is_some() && !people.is_empty() => {
                        stanza(Stanza::People(people, ack, offline))
                    }
                    (notification, _) => stanza(Stanza::Notification(notification, ack, offline)),
                }
            }
            None => Inbound::Ignored,
        },
        "success" => Inbound::Success(Success::parse(node)),
        "failure" => Inbound::Failure(Failure::parse(node)),
        "stream:error" => Inbound::StreamError(StreamError::parse(node), format!("{node:?}")),
        "xmlstreamend" => Inbound::StreamEnd,
        "ib" => Inbound::Info(InfoBroadcast::parse(node)),
        "call" | "status" | "appdata" => match AckTarget::of(node) {
            Some(ack) if own.is_some() => match people(node) {
                people if people.is_empty() => Inbound::Ack(ack),
                people => stanza(Stanza::People(people, ack, node.attr_str("offline").is_some())),
            },
            Some(ack) => Inbound::Ack(ack),
            None => Inbound::Ignored,
        },
        "presence" | "chatstate" | "error" | "xmlstreamstart" => Inbound::Ignored,
        _ => match AckTarget::of(node) {
            Some(target) => Inbound::Nack(target, Nack::UnrecognisedStanza),
            None => Inbound::Ignored,
        },
    }
}

fn stanza(stanza: Stanza) -> Inbound {
    Inbound::Stanza(Box::new(stanza))
}

fn parse_message(node: NodeRef<'_>, own: &Own<'_>) -> Inbound {
    match InboundMessage::parse(node, own) {
        Ok(message) => stanza(Stanza::Message(message)),
        Err(error) => match AckTarget::of(node) {
            Some(target) => {
                tracing::warn!(%error, "message cannot be parsed");
                Inbound::Nack(target, Nack::Parsing)
            }
            None => Inbound::Ignored,
        },
    }
}

fn parse_iq(node: NodeRef<'_>, queries: &mut Queries) -> Inbound {
    let id = node.attr_str("id").map(|id| id.into_owned());
    match (node.attr_str("type").as_deref(), id) {
        (Some("result" | "error"), Some(id)) => queries.answer(&id, node).map_or(Inbound::Ignored, Inbound::Answer),
        (Some("set"), id) => match pair::parse(node) {
            Ok(Some(iq)) => Inbound::Pair(iq),
            Ok(None) => Inbound::Ignored,
            Err(error) => Inbound::PairFailed(error, id),
        },
        (Some("get") | None, id) if is_ping(node) => {
            Inbound::Ping { id, from: node.attr_jid("from").unwrap_or_else(Jid::whatsapp_server) }
        }
        _ => Inbound::Ignored,
    }
}

fn is_ping(node: NodeRef<'_>) -> bool {
    node.attr_str("xmlns").as_deref() == Some("urn:xmpp:ping") || node.child("ping").is_some()
}
