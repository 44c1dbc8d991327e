//! What a send leaves in the store, written from what is at hand: it is done with every message.
//!
//! ```text
//! Outgoing   the send, with its stanza once it is encrypted        until it is settled
//! Sent       the message, for receipts and to send it again        for a time
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{AudienceSetting, SendOp, outgoing_key};
use crate::{
    engine::{
        records::{DistributedRecord, VERSION, Value},
        step::Step,
    },
    jid::Jid,
    message::fields::Fields,
};

/// An [`OutgoingRecord`](crate::engine::records::OutgoingRecord).
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) op: &'a SendOp,
    /// The chat, as `OutgoingRecord` wants it.
    pub(super) chat: &'a Jid,
    pub(super) distributed: Option<&'a DistributedRecord>,
    pub(super) phash: Option<&'a str>,
    /// The frame, when it is encrypted.
    pub(super) stanza: Option<&'a [u8]>,
}

impl<'a> Outgoing<'a> {
    /// A send that is not encrypted yet.
    pub(super) const fn new(op: &'a SendOp, chat: &'a Jid) -> Self {
        Self { op, chat, distributed: None, phash: None, stanza: None }
    }

    /// Stores the send.
    pub(super) fn put(&self, step: &mut Step<'_>) {
        step.put(outgoing_key(self.op.id.as_str()), self);
    }

    /// Stores the send with its stanza. Gives the frame, which shares the memory of the record.
    pub(super) fn put_encrypted(self, step: &mut Step<'_>, stanza: &'a [u8]) -> Bytes {
        let record = step.put(outgoing_key(self.op.id.as_str()), &Self { stanza: Some(stanza), ..self });
        record.slice(record.len().saturating_sub(stanza.len())..)
    }
}

impl Value for Outgoing<'_> {
    fn write_to(&self, out: &mut BytesMut) {
        let op = self.op;
        out.put_u8(VERSION);
        let mut fields = Fields(out);
        fields.number(1, op.order).text(2, &op.to).bytes(3, &op.message);
        fields.bytes_opt(4, op.client_ref.as_deref().map(str::as_bytes)).number(5, op.accepted_ms);
        fields.text(7, self.chat).number(8, op.peer.map_or(0, |urgency| urgency as u64));
        if let Some(distributed) = self.distributed {
            fields.message(9, distributed);
        }
        if let Some(other) = &op.lane.other {
            fields.text(10, other);
        }
        for viewer in &*op.viewers {
            fields.text(11, viewer);
        }
        fields.number(12, op.setting.map_or(0, AudienceSetting::number).into());
        fields.bytes_opt(13, self.phash.map(str::as_bytes)).number(14, op.rebuilt.into());
        // At the end: that is where the frame is.
        fields.bytes_opt(6, self.stanza);
    }
}

/// A [`SentRecord`](crate::engine::records::SentRecord) of a message that nobody has acknowledged yet.
pub(super) struct Sent<'a> {
    pub(super) op: &'a SendOp,
    /// The chat as addressed in the stanza.
    pub(super) chat: &'a Jid,
    /// Who may see it, of a status; of a reaction to one, its author.
    pub(super) audience: &'a [Jid],
}

impl Value for Sent<'_> {
    fn write_to(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        let mut fields = Fields(out);
        fields.bytes(1, &self.op.message).text(4, self.chat);
        for viewer in self.audience {
            fields.text(6, viewer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        engine::{
            records::{MarkedDevices, OutgoingRecord, Record, SentRecord},
            send::{
                Lane,
                desk::{jid, op},
                peer::Urgency,
            },
        },
        message::build,
    };

    fn written(value: &impl Value) -> Bytes {
        let mut out = BytesMut::new();
        value.write_to(&mut out);
        out.freeze()
    }

    #[test]
    fn what_is_written_is_read_as_the_records_say() {
        let (group, viewers) = (jid("120363000000000001@g.us"), [jid("1@lid"), jid("15550000002@s.whatsapp.net")]);
        let mut op = op("3EB0A1", &build::text("hello"));
        let plain = OutgoingRecord {
            to: op.to.to_string(),
            message: op.message.clone(),
            accepted_ms: op.accepted_ms,
            chat: group.to_string(),
            ..OutgoingRecord::default()
        };
        assert_eq!(OutgoingRecord::from_bytes(&written(&Outgoing::new(&op, &group))), Ok(plain.clone()));

        (op.order, op.rebuilt, op.to) = (7, true, group.clone());
        (op.client_ref, op.peer) = (Some("mine".to_owned()), Some(Urgency::Private));
        (op.viewers, op.setting) = (viewers.as_slice().into(), Some(AudienceSetting::Denylist));
        op.lane = Lane { chat: viewers[0].clone(), other: Some(viewers[1].clone()) };
        let users = BTreeMap::from([("1@lid".to_owned(), MarkedDevices { devices: vec![0, 3] })]);
        let distributed = DistributedRecord { key: 9, losses: 2, users };
        let texts: Vec<String> = viewers.iter().map(Jid::to_string).collect();
        let full = OutgoingRecord {
            order: 7,
            to: group.to_string(),
            client_ref: Some("mine".to_owned()),
            stanza: Some(Bytes::from_static(b"a frame")),
            other: Some(texts[1].clone()),
            peer: Urgency::Private as u32,
            distributed: Some(distributed.clone()),
            viewers: texts.clone(),
            setting: AudienceSetting::Denylist.number(),
            phash: Some("2:abc".to_owned()),
            rebuilt: true,
            ..plain
        };
        let outgoing = Outgoing {
            distributed: Some(&distributed),
            phash: Some("2:abc"),
            stanza: Some(b"a frame"),
            ..Outgoing::new(&op, &group)
        };
        let bytes = written(&outgoing);
        assert!(bytes.ends_with(b"a frame"));
        assert_eq!(OutgoingRecord::from_bytes(&bytes), Ok(full));

        let sent = SentRecord {
            message: op.message.clone(),
            chat: group.to_string(),
            audience: texts,
            ..SentRecord::default()
        };
        let bytes = written(&Sent { op: &op, chat: &group, audience: &viewers });
        assert_eq!(SentRecord::from_bytes(&bytes), Ok(sent));
    }
}
