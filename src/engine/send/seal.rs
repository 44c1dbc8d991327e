//! A message under our sender key is encrypted (spec 03 §3.4, §4.5): the key for the devices that lack it, the content once
//! for all, one stanza, one batch.

use std::sync::Arc;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    Plan, SendOp, fail,
    fanout::{Fanout, Target},
    marks, outgoing_key, padded, padded_message, sent_key, status,
};
use crate::{
    clock::Now,
    engine::{
        Engine,
        account::Account,
        notices::SendFailure,
        records::{OutgoingRecord, Record, SentRecord},
        step::{Miss, Needs, Step, own},
    },
    event::AddressingMode,
    jid::Jid,
    message::{build, distribution::ROTATE_AFTER},
    signal::{
        self, Ciphertext, Session, SignalStore, StepError,
        sender_key::{self, SenderKeyStore, wire::DistributionMessage},
    },
    stanza::outgoing::{Head, SenderKeyMessage},
};

/// What came of it.
#[derive(Debug)]
pub(super) enum Sealed {
    Plan(Plan),
    /// Our key is not the one that the marks are of: look again whom the message is for.
    OtherKey,
}

/// To so many devices our key is handed in one step: some milliseconds of work.
const AT_ONCE: usize = 256;

/// Our key of a chat, encrypted for devices that lack it, so many at a time that other chats go on meanwhile.
///
/// Each part is a step of its own: the sessions are stored with it, the ciphertexts stay here until the stanza is made of all of
/// them. What is lost with the process was seen by nobody, and its counters are not used again.
#[derive(Debug)]
pub(super) struct Handing {
    fanout: Arc<Fanout>,
    /// Everybody has a session, or no keys.
    is_met: bool,
    /// For how many of its targets the key is encrypted.
    done: usize,
    /// How often it was for others before.
    again: u8,
    ciphertexts: Vec<(Jid, Ciphertext)>,
}

/// So often it begins anew because somebody joined, left or changed a device. Then it is done at once, or it might never be done.
const MAX_AGAIN: u8 = 3;

/// Whether a message for so many needs no parts.
pub(super) const fn is_done_at_once(fanout: &Fanout) -> bool {
    fanout.targets.len() <= AT_ONCE
}

impl SendOp {
    /// Whether the message can be encrypted now.
    pub(super) fn can_seal(&self, fanout: &Arc<Fanout>) -> bool {
        let hands = |handing: &Handing| handing.again >= MAX_AGAIN || handing.is_of(fanout) && handing.is_done();
        is_done_at_once(fanout) || self.handing.as_ref().is_some_and(hands)
    }
}

impl Handing {
    fn is_of(&self, fanout: &Fanout) -> bool {
        std::ptr::eq(&*self.fanout, fanout)
    }

    fn is_done(&self) -> bool {
        self.done == self.fanout.targets.len()
    }
}

impl Engine {
    /// Encrypts our key for some more devices of a large chat; first makes it, if there is none.
    ///
    /// # Errors
    /// [`Needs`]: run it again with them.
    pub(super) fn hand_over(&mut self, now: Now, op: &mut SendOp, fanout: &Arc<Fanout>) -> Result<Sealed, Needs> {
        let mut handing = match op.handing.take() {
            Some(begun) if begun.is_of(fanout) => begun,
            other => {
                let again = other.map_or(0, |before| before.again.saturating_add(u8::from(before.done > 0)));
                Handing { fanout: Arc::clone(fanout), is_met: false, done: 0, again, ciphertexts: Vec::new() }
            }
        };
        let part = self.step(now, |step| hand_part(step, op, &handing));
        let sealed = part.map(|part| match part {
            Part::Instead(sealed) => sealed,
            Part::Met => {
                handing.is_met = true;
                Sealed::Plan(Plan::Later)
            }
            Part::Made(ciphertexts) => {
                handing.ciphertexts.extend(ciphertexts);
                handing.done = handing.done.saturating_add(AT_ONCE).min(fanout.targets.len());
                Sealed::Plan(Plan::Later)
            }
        });
        op.handing = Some(handing);
        sealed
    }
}

/// What came of one part.
enum Part {
    Met,
    Made(Vec<(Jid, Ciphertext)>),
    Instead(Sealed),
}

fn hand_part(step: &mut Step<'_>, op: &SendOp, handing: &Handing) -> Result<Part, Miss> {
    let fanout = &*handing.fanout;
    let account = Arc::clone(step.account());
    let key = step.own_sender_key(&fanout.key_name)?.filter(|key| key.position().iteration < ROTATE_AFTER);
    if key.as_ref().map(|key| key.position().id) != fanout.key {
        return Ok(Part::Instead(Sealed::OtherKey));
    }
    let Some(key) = key else {
        // Nobody has it yet; the next look finds it.
        marks::clear(step, &op.lane.chat);
        let mut rng = ChaCha20Rng::from_rng(step.rng);
        sender_key::rotate(step, &fanout.key_name, &mut rng);
        return Ok(Part::Instead(Sealed::Plan(Plan::Later)));
    };
    // All that are missing are asked for at the same time.
    let targets = if handing.is_met { part(&fanout.targets, handing.done) } else { &fanout.targets };
    let usable = match with_sessions(step, op, targets)? {
        Sessions::There(usable) => usable,
        Sessions::Missing(devices) => return Ok(Part::Instead(Sealed::Plan(Plan::Bundles(devices)))),
    };
    if !handing.is_met {
        return Ok(Part::Met);
    }
    Ok(Part::Made(distribute(step, &account, op, usable, &key.distribution())))
}

/// The targets after the first `done`.
fn part(targets: &[Target], done: usize) -> &[Target] {
    let rest = targets.get(done..).unwrap_or_default();
    rest.get(..AT_ONCE).unwrap_or(rest)
}

/// Encrypts a message for everybody, unless sessions are missing.
///
/// # Errors
/// [`Miss`].
pub(super) fn seal(step: &mut Step<'_>, op: &SendOp, fanout: &Fanout) -> Result<Sealed, Miss> {
    let account = Arc::clone(step.account());
    let Some(linked) = &account.linked else {
        return Ok(Sealed::Plan(fail(step, op, &SendFailure::logged_out())));
    };
    // The key and the sessions are read before any is missed.
    let key = step.own_sender_key(&fanout.key_name);
    let handed = op.handing.as_ref().filter(|handing| handing.is_of(fanout) && handing.is_done());
    let usable = match handed {
        Some(_) => None,
        None => Some(with_sessions(step, op, &fanout.targets)),
    };
    let (key, usable) = (key?, usable.transpose()?);
    let going_on = key.filter(|key| fanout.key.is_some() && key.position().iteration < ROTATE_AFTER);
    if going_on.as_ref().map(|key| key.position().id) != fanout.key {
        return Ok(Sealed::OtherKey);
    }
    let usable = match usable {
        Some(Sessions::There(usable)) => usable,
        Some(Sessions::Missing(devices)) => return Ok(Sealed::Plan(Plan::Bundles(devices))),
        None => Vec::new(),
    };

    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let distribution = match &going_on {
        Some(key) => key.distribution(),
        None => {
            marks::clear(step, &op.lane.chat);
            sender_key::rotate(step, &fanout.key_name, &mut rng)
        }
    };
    let made;
    let devices = match handed {
        Some(handing) => &handing.ciphertexts,
        None => {
            made = distribute(step, &account, op, usable, &distribution);
            &made
        }
    };
    let plaintext = padded(&op.message, step.rng);
    let body = match sender_key::encrypt(step, &fanout.key_name, &plaintext, &mut rng) {
        Ok(body) => body,
        Err(StepError::Miss(miss)) => return Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::error!(%error, "our own sender key cannot encrypt");
            return Ok(Sealed::Plan(fail(step, op, &SendFailure::encoding())));
        }
    };

    let words = &op.words;
    let is_status = op.to.is_status_broadcast();
    let mut meta = words.meta.clone();
    meta.extend(status::setting(op));
    let me = match fanout.addressing {
        Some(AddressingMode::Pn) => &linked.pn,
        _ => linked.lid.as_ref().unwrap_or(&linked.pn),
    };
    let head = Head {
        to: &op.lane.chat,
        id: op.id.as_str(),
        kind: words.stanza_type.as_str(),
        edit: words.edit.map(|edit| edit.as_str()),
        media_type: words.media_type,
        hide_failure: words.hide_failure,
        meta: &meta,
        device_identity: &linked.device_identity,
        report: if is_status { None } else { op.report(me, &op.lane.chat) },
        token: None,
    };
    let viewers = if is_status { status::viewers(fanout, devices) } else { Vec::new() };
    let stanza = SenderKeyMessage {
        head,
        phash: (!is_status).then_some(&*fanout.phash),
        addressing_mode: fanout.addressing.map(mode),
        distribution: devices,
        viewers: &viewers,
        body: &body,
    };
    let Ok(encoded) = stanza.encode() else {
        return Ok(Sealed::Plan(fail(step, op, &SendFailure::encoding())));
    };
    let encoded = Bytes::from(encoded);
    let chat = &op.lane.chat;
    let distributed = fanout.distributes.clone().map(|mut distributed| {
        distributed.key = distribution.id.0;
        distributed
    });
    let holds = distributed.is_some();
    let audience = op.viewers.iter().map(Jid::to_text).collect();
    let sent = SentRecord { message: op.message.clone(), chat: chat.to_text(), audience, ..SentRecord::default() };
    step.put(sent_key(chat, op.id.as_str()), sent.to_bytes());
    let outgoing =
        OutgoingRecord { distributed, phash: Some(fanout.phash.clone()), ..op.to_record(chat, Some(encoded.clone())) };
    step.put(outgoing_key(op.id.as_str()), outgoing.to_bytes());
    match holds {
        // Who is to have our key must be known for certain.
        true => step.send_encoded(encoded.clone()),
        false => step.send_message(encoded.clone()),
    }
    Ok(Sealed::Plan(if holds { Plan::Distributed(encoded) } else { Plan::Sent(encoded) }))
}

const fn mode(mode: AddressingMode) -> &'static str {
    match mode {
        AddressingMode::Pn => "pn",
        AddressingMode::Lid => "lid",
    }
}

/// Whether all targets have sessions.
enum Sessions<'f> {
    /// The targets that have one, with it; the others have no keys.
    There(Vec<(&'f Target, Session)>),
    /// The keys of these devices must be fetched.
    Missing(Vec<Jid>),
}

fn with_sessions<'f>(step: &mut Step<'_>, op: &SendOp, targets: &'f [Target]) -> Result<Sessions<'f>, Miss> {
    let (mut usable, mut missing, mut missed) = (Vec::with_capacity(targets.len()), Vec::new(), Ok(()));
    for target in targets {
        match step.session(&target.address) {
            Err(miss) => missed = Err(miss),
            Ok(Some(session)) if session.current().is_some() => usable.push((target, session)),
            Ok(_) => missing.extend(target.address.as_str().parse::<Jid>().ok()),
        }
    }
    missed?;
    missing.retain(|device| !op.skipped.contains(device));
    Ok(if missing.is_empty() { Sessions::There(usable) } else { Sessions::Missing(missing) })
}

/// The key, encrypted for each device. One that cannot be encrypted for is left out: it asks for the message again.
fn distribute(
    step: &mut Step<'_>,
    account: &Account,
    op: &SendOp,
    targets: Vec<(&Target, Session)>,
    key: &DistributionMessage,
) -> Vec<(Jid, Ciphertext)> {
    if targets.is_empty() {
        return Vec::new();
    }
    let message = build::sender_key_distribution(&op.lane.chat, key.encode());
    let plaintext = padded_message(&message, step.rng);
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let mut ciphertexts = Vec::with_capacity(targets.len());
    for (target, session) in targets {
        match signal::encrypt_with(step, &own(account), &target.address, session, &plaintext, &mut rng) {
            Ok(ciphertext) => ciphertexts.push((target.jid.clone(), ciphertext)),
            Err(error) => tracing::warn!(%error, "a device cannot be given the sender key"),
        }
    }
    ciphertexts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{
            records::{DeviceListRecord, DeviceRecord, OutgoingRecord},
            send::{
                Lane,
                desk::{Desk, Device, OWN_LID, jid, op},
                fanout::{Found, find},
            },
        },
        node::Node,
        proto::e2e,
        store::{Key, RecordKind},
    };

    const GROUP: &str = "120363000000000001@g.us";

    /// A group of ourselves and of a user with two devices; there are sessions with all.
    fn group() -> (Desk, Vec<Device>) {
        let mut desk = Desk::new();
        let own = jid(OWN_LID).to_bare().to_string();
        let devices: Vec<Device> = [own.as_str(), "2@lid", "2:7@lid"].map(Device::new).into();
        devices.iter().for_each(|device| desk.meet(device));
        for (user, ids) in [(own.as_str(), [0, 2]), ("2@lid", [0, 7])] {
            let devices = ids.map(|id| DeviceRecord { id, key_index: None, hosted: false }).into();
            let list = DeviceListRecord { fetched: 1_760_000_000, devices, ..DeviceListRecord::default() };
            desk.records.insert(Key::new(RecordKind::DeviceList, user), list.to_bytes());
        }
        (desk, devices)
    }

    fn look(desk: &mut Desk, op: &SendOp) -> Fanout {
        let linked = desk.account.linked.clone().unwrap();
        let people = [jid(OWN_LID).to_bare(), jid("2@lid")];
        match desk.get(|step| find(step, op, &linked, Some(AddressingMode::Lid), &people)) {
            Found::Fanout(fanout) => *fanout,
            _ => panic!("everybody is known"),
        }
    }

    /// Sends a text, and lets the server take it. Gives the stanza.
    fn send(desk: &mut Desk, id: &str, text: &str) -> Node {
        let op = SendOp { to: jid(GROUP), lane: Lane::of(jid(GROUP)), ..op(id, &build::text(text)) };
        let fanout = look(desk, &op);
        let (sealed, mut sent) = desk.run(|step| seal(step, &op, &fanout));
        assert!(matches!(sealed, Sealed::Plan(Plan::Sent(_) | Plan::Distributed(_))), "{sealed:?}");
        desk.get(|step| {
            let outgoing = step.record::<OutgoingRecord>(&outgoing_key(id))?.unwrap();
            outgoing.distributed.map_or(Ok(()), |distributed| marks::add(step, &jid(GROUP), &distributed))
        });
        sent.remove(0)
    }

    /// The devices that a stanza hands the key to, each of which takes it.
    fn take_keys(stanza: &Node, devices: &mut [Device]) -> Vec<String> {
        let targets = stanza.find_child("participants").map_or(&[][..], Node::child_nodes);
        let take = |to: &Node| {
            let target = to.attr_jid("jid").unwrap();
            let device = devices.iter_mut().find(|device| device.jid == target).unwrap();
            let message = device.read(to.first_child().unwrap());
            assert!(message.sender_key_distribution_message.is_some() && message.conversation.is_none());
            target.to_string()
        };
        targets.iter().map(take).collect()
    }

    fn read(stanza: &Node, device: &mut Device) -> Option<e2e::Message> {
        device.read_group(&jid(GROUP), stanza.find_child("enc").unwrap())
    }

    fn wear(desk: &mut Desk, iteration: u32) {
        desk.get(|step| {
            let name = marks::own_key_name(&jid(GROUP), &step.account().linked.clone().unwrap());
            let mut key = step.own_sender_key(&name)?.unwrap();
            key.advance(iteration).unwrap();
            step.put_own_sender_key(&name, key);
            Ok(())
        });
    }

    #[test]
    fn who_got_the_key_reads_every_message_until_it_is_worn() {
        let (mut desk, mut devices) = group();
        let phone = jid(OWN_LID).to_bare().to_string();
        let all = [phone.clone(), "2@lid".to_owned(), "2:7@lid".to_owned()];
        let first = send(&mut desk, "3EB0A1", "first");
        assert_eq!(take_keys(&first, &mut devices), all);
        let second = send(&mut desk, "3EB0A2", "second");
        assert_eq!(take_keys(&second, &mut devices), std::slice::from_ref(&phone));
        for device in &mut devices[1..] {
            assert_eq!(read(&first, device), Some(build::text("first")));
            assert_eq!(read(&second, device), Some(build::text("second")));
        }

        wear(&mut desk, ROTATE_AFTER - 1);
        let last = send(&mut desk, "3EB0A3", "the thousandth");
        assert_eq!(take_keys(&last, &mut devices), [phone]);
        let fresh = send(&mut desk, "3EB0A4", "under a new key");
        assert_eq!(read(&fresh, &mut devices[2]), None);
        assert_eq!(take_keys(&fresh, &mut devices), all);
        for device in &mut devices[1..] {
            assert_eq!(read(&last, device), Some(build::text("the thousandth")));
            assert_eq!(read(&fresh, device), Some(build::text("under a new key")));
        }
    }

    #[test]
    fn what_was_found_is_of_no_use_with_another_key() {
        let (mut desk, _) = group();
        send(&mut desk, "3EB0A1", "first");
        let op = SendOp { to: jid(GROUP), lane: Lane::of(jid(GROUP)), ..op("3EB0A2", &build::text("second")) };
        let found = look(&mut desk, &op);
        assert!(found.distributes.is_none());
        wear(&mut desk, ROTATE_AFTER);
        assert!(matches!(desk.get(|step| seal(step, &op, &found)), Sealed::OtherKey));
        desk.get(|step| {
            marks::rotate(step, &jid(GROUP));
            Ok(())
        });
        assert!(matches!(desk.get(|step| seal(step, &op, &found)), Sealed::OtherKey));
        assert_eq!(look(&mut desk, &op).distributes.map(|distributed| distributed.users.len()), Some(1));
    }

    #[test]
    fn a_device_without_keys_stops_nobody() {
        let (mut desk, mut devices) = group();
        let lost = desk.get(|step| address_of(step, "2:7@lid"));
        desk.records.remove(&crate::engine::keys::session(&lost));
        let mut op = SendOp { to: jid(GROUP), lane: Lane::of(jid(GROUP)), ..op("3EB0A1", &build::text("hello")) };
        let fanout = look(&mut desk, &op);
        match desk.get(|step| seal(step, &op, &fanout)) {
            Sealed::Plan(Plan::Bundles(missing)) => assert_eq!(missing, [jid("2:7@lid")]),
            other => panic!("{other:?}"),
        }
        op.skipped.insert(jid("2:7@lid"));
        let (_, sent) = desk.run(|step| seal(step, &op, &fanout));
        assert_eq!(take_keys(&sent[0], &mut devices).len(), 2);
        assert_eq!(read(&sent[0], &mut devices[1]), Some(build::text("hello")));
        assert_eq!(fanout.distributes.unwrap().users["2@lid"].devices, [0, 7], "it is not tried with every message");
    }

    fn address_of(step: &mut Step<'_>, device: &str) -> Result<signal::Address, Miss> {
        crate::engine::address::device(step, &jid(device))
    }
}
