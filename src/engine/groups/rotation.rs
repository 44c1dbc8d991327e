//! Our sender key of a group is given up (spec 03 §3.4).

use crate::{
    engine::step::Step,
    jid::Jid,
    signal::{
        Address,
        sender_key::{self, SenderKeyName},
    },
    store::{Key, RecordKind},
};

/// The next message makes a new key and takes it to everybody.
pub(crate) fn rotate(step: &mut Step<'_>, chat: &Jid) {
    if let Some(linked) = step.account().linked.clone() {
        for own in [Some(&linked.pn), linked.lid.as_ref()].into_iter().flatten() {
            let name = SenderKeyName::new(&chat.to_string(), Address::new(&own.to_string()));
            sender_key::discard(step, &name);
        }
    }
    step.delete(Key::new(RecordKind::SenderKeyMarks, chat.to_string()));
}
