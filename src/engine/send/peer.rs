//! Messages to our own phone: requests for what only the primary device has (spec 03 §4.5, "Peer"; spec 06 §1.12).
//!
//! They are sends as others are, stored until the server has them, but nobody is told what becomes of them: whoever asks the
//! phone waits for its answer, and may ask again.

use std::sync::Arc;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{Lane, Plan, SendOp, fail, outgoing_key, padded};
use crate::{
    clock::Now,
    engine::{
        Engine, address,
        notices::SendFailure,
        records::Record,
        step::{Miss, Step, own},
    },
    jid::Jid,
    message::MessageId,
    proto::e2e,
    signal::{self, StepError},
    stanza::outgoing::PeerMessage,
};

/// So many messages to the phone may wait at a time.
const MAX_PEERS: usize = 256;

/// How much of a phone's attention a message wants. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Urgency {
    /// Keys of the app state, and what else can wait for the phone's next look.
    Normal = 1,
    /// Somebody waits for the answer: a message that cannot be read, a link preview.
    Force = 2,
    /// History that a user asked for.
    Private = 3,
}

impl Urgency {
    /// As stored; `None` for a send to somebody else.
    pub(super) const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => None,
            2 => Some(Self::Force),
            3 => Some(Self::Private),
            _ => Some(Self::Normal),
        }
    }

    const fn push_priority(self) -> &'static str {
        match self {
            Self::Normal => "high",
            Self::Force | Self::Private => "high_force",
        }
    }
}

impl Engine {
    /// Sends a message to our own phone, as soon as there is a connection. Gives its id, which the answer names; `None` when
    /// there is no account, or too many of these wait.
    pub(in crate::engine) fn send_peer(
        &mut self,
        now: Now,
        message: &e2e::Message,
        urgency: Urgency,
    ) -> Option<MessageId> {
        let to = self.account.linked.as_ref()?.pn.to_bare();
        if self.sends.peers() >= MAX_PEERS {
            tracing::warn!("too many messages to the phone wait");
            return None;
        }
        let id = self.next_message_id(now);
        let op = SendOp {
            to,
            lane: Lane::of(LANE),
            peer: Some(urgency),
            ..SendOp::new(self.sends.next_order(), id.clone(), message, now)
        };
        self.act(now, |step| step.put(outgoing_key(op.id.as_str()), op.to_record(&LANE, None).to_bytes()));
        let order = op.order;
        self.sends.insert(op);
        self.run_send(now, order);
        Some(id)
    }
}

/// Messages to the phone have an order of their own.
const LANE: Jid = Jid::whatsapp_server();

/// Goes on with a message to the phone.
///
/// # Errors
/// [`Miss`].
pub(super) fn plan(step: &mut Step<'_>, op: &SendOp, urgency: Urgency) -> Result<Plan, Miss> {
    let account = Arc::clone(step.account());
    let Some(linked) = &account.linked else { return Ok(fail(step, op, &SendFailure::logged_out())) };
    let phone = address::user(step, &linked.pn)?.canonical;
    let address = address::device(step, &phone)?;
    let session = signal::SignalStore::session(step, &address)?;
    if session.as_ref().and_then(signal::Session::current).is_none() {
        return Ok(match op.skipped.contains(&phone) {
            true => fail(step, op, &SendFailure::new("no_session", "the phone has no usable keys")),
            false => Plan::Bundles(vec![phone]),
        });
    }
    let plaintext = padded(&op.message, step.rng);
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let ciphertext = match signal::encrypt(step, &own(&account), &address, &plaintext, &mut rng) {
        Ok(ciphertext) => ciphertext,
        Err(StepError::Miss(miss)) => return Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::warn!(%error, "the phone cannot be encrypted for");
            return Ok(fail(step, op, &SendFailure::new("no_session", "the phone has no usable keys")));
        }
    };
    let stanza = PeerMessage {
        to: &op.to,
        id: op.id.as_str(),
        push_priority: urgency.push_priority(),
        privacy_sensitive: urgency == Urgency::Private,
        ciphertext: &ciphertext,
        device_identity: &linked.device_identity,
    };
    let Ok(encoded) = stanza.encode() else { return Ok(fail(step, op, &SendFailure::encoding())) };
    let encoded = Bytes::from(encoded);
    step.put(outgoing_key(op.id.as_str()), op.to_record(&LANE, Some(encoded.clone())).to_bytes());
    step.send_encoded(encoded.clone());
    Ok(Plan::Sent(encoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::send::desk::{Desk, Device, OWN_LID, OWN_PN, jid, op},
        message::build,
    };

    #[test]
    fn the_phone_reads_it_and_nobody_else_is_addressed() {
        let mut desk = Desk::new();
        let mut phone = Device::new(&jid(OWN_LID).to_bare().to_string());
        let request = build::text("stands for a request");
        let op = SendOp { to: jid(OWN_PN).to_bare(), peer: Some(Urgency::Private), ..op("3EB0AA", &request) };
        match desk.get(|step| plan(step, &op, Urgency::Private)) {
            Plan::Bundles(devices) => assert_eq!(devices, [phone.jid.clone()]),
            other => panic!("{other:?}"),
        }
        desk.meet(&phone);
        let (planned, sent) = desk.run(|step| plan(step, &op, Urgency::Private));
        assert!(matches!(planned, Plan::Sent(_)));
        let [message] = sent.as_slice() else { panic!("{sent:?}") };
        for (name, value) in [
            ("to", "15550000001@s.whatsapp.net"),
            ("id", "3EB0AA"),
            ("type", "text"),
            ("category", "peer"),
            ("push_priority", "high_force"),
            ("privacy_sensitive", "1"),
        ] {
            assert_eq!(message.attr_str(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(message.find_child("meta").unwrap().attr_str("appdata").as_deref(), Some("default"));
        assert_eq!(message.find_child("device-identity").unwrap().content_bytes().unwrap(), b"adv".as_slice());
        assert_eq!(phone.read(message.find_child("enc").unwrap()), request);
        assert_eq!(desk.records.keys().filter(|key| key.kind == crate::store::RecordKind::Sent).count(), 0);
    }

    #[test]
    fn without_keys_of_the_phone_it_is_given_up() {
        let mut desk = Desk::new();
        let phone = jid(OWN_LID).to_bare();
        let mut op = SendOp { peer: Some(Urgency::Normal), ..op("3EB0AA", &build::text("x")) };
        op.skipped.insert(phone);
        desk.get(|step| {
            step.put(outgoing_key("3EB0AA"), op.to_record(&LANE, None).to_bytes());
            Ok(())
        });
        let planned = desk.get(|step| {
            let planned = plan(step, &op, Urgency::Normal)?;
            assert_eq!(step.events.len(), 0, "nobody is told");
            Ok(planned)
        });
        assert!(matches!(planned, Plan::Failed));
        assert!(!desk.records.contains_key(&outgoing_key("3EB0AA")));
    }
}
