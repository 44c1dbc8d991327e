//! Which devices have our sender key for a chat (spec 03 §3.4). A mark is set when the server took the message that handed
//! the key over, and goes when the device asks for a message again, is not there any more, or the key is replaced.
//!
//! ```text
//!  SenderKeyMarks[chat]  the key's id, the devices by user, how many losses they take into account
//!  SenderKeyMarks[""]    the last losses: devices that lost everything, whatever the chat
//! ```
//!
//! A device that is gone may be marked in hundreds of chats. It is written down once, as a loss, and every chat takes that
//! into account when its marks are next looked at; marks from before the oldest loss that is still written down are void.
//! Devices are named by the canonical identity of their user: once that is the LID, marks under the number are not found,
//! and the device gets the key once more.

use std::collections::BTreeMap;

use crate::{
    engine::{
        account::Linked,
        address::User,
        records::{DistributedRecord, Loss, LossesRecord, MarkedDevices, MarksRecord, Record},
        step::{Miss, Step},
    },
    jid::Jid,
    signal::{
        Address,
        sender_key::{self, SenderKeyId, SenderKeyName, SenderKeyStore},
    },
    store::{Key, RecordKind},
};

/// So many losses are written down.
const MAX_LOSSES: usize = 256;

/// The devices of a chat that have our current key.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    users: BTreeMap<String, MarkedDevices>,
    /// Losses so far.
    losses: u64,
}

impl Marks {
    /// The marks of a chat for our key; none without a key, or when they are those of another one.
    ///
    /// # Errors
    /// [`Miss`].
    pub(crate) fn load(step: &mut Step<'_>, chat: &Jid, key: Option<SenderKeyId>) -> Result<Self, Miss> {
        let (marks, losses) = read(step, chat)?;
        let mut loaded = Self { users: BTreeMap::new(), losses: losses.count };
        if let Some(marks) = marks.filter(|marks| key == Some(SenderKeyId(marks.key))) {
            loaded.users = marks.users;
            losses.apply(&mut loaded.users, marks.losses);
        }
        Ok(loaded)
    }

    /// Everybody one of whose devices has the key, by the canonical identity; `None` for a name that cannot be read.
    pub(super) fn users(&self) -> impl Iterator<Item = Option<Jid>> {
        self.users.keys().map(|user| user.parse().ok())
    }

    /// The devices of a user that have the key, under another name of the user.
    pub(super) fn of<'a>(&'a self, canonical: &Jid, name: &'a Jid) -> impl Iterator<Item = Jid> + use<'a> {
        let marked = self.users.get(&canonical.to_string());
        let devices = marked.into_iter().flat_map(|marked| &marked.devices);
        devices.filter_map(|device| u16::try_from(*device).ok()).map(|device| name.with_device(device))
    }

    /// What a message that hands the key to these devices leaves behind, for [`add`]. A key that is not made yet has no id.
    pub(super) fn to_distribute(&self, key: Option<SenderKeyId>, devices: &[&Address]) -> DistributedRecord {
        let mut users: BTreeMap<String, MarkedDevices> = BTreeMap::new();
        for device in devices.iter().filter_map(|address| address.as_str().parse::<Jid>().ok()) {
            users.entry(device.to_bare().to_string()).or_default().devices.push(u32::from(device.device()));
        }
        DistributedRecord { key: key.map_or(0, |key| key.0), losses: self.losses, users }
    }
}

/// The server took a message that handed our key over.
///
/// # Errors
/// [`Miss`].
pub(crate) fn add(step: &mut Step<'_>, chat: &Jid, distributed: &DistributedRecord) -> Result<(), Miss> {
    // Both are read before either is missed.
    let (key, stored) = (own_key_id(step, chat), read(step, chat));
    let (key, (marks, losses)) = (key?, stored?);
    if key != Some(SenderKeyId(distributed.key)) {
        return Ok(());
    }
    let mut marks = marks.filter(|marks| marks.key == distributed.key).unwrap_or_default();
    losses.apply(&mut marks.users, marks.losses);
    let mut users = distributed.users.clone();
    losses.apply(&mut users, distributed.losses);
    for (user, marked) in users {
        let known = marks.users.entry(user).or_default();
        for device in marked.devices {
            if !known.devices.contains(&device) {
                known.devices.push(device);
            }
        }
    }
    let marks = MarksRecord { key: distributed.key, losses: losses.count, users: marks.users };
    step.put(marks_key(chat), marks.to_bytes());
    Ok(())
}

/// A device lacks our key of this chat, whatever it was sent: it asks for a message again.
///
/// # Errors
/// [`Miss`].
pub(crate) fn unmark(step: &mut Step<'_>, chat: &Jid, device: &Address) -> Result<(), Miss> {
    let Some(mut marks) = step.record::<MarksRecord>(&marks_key(chat))? else { return Ok(()) };
    let Ok(device) = device.as_str().parse::<Jid>() else { return Ok(()) };
    let user = device.to_bare().to_string();
    let Some(marked) = marks.users.get_mut(&user) else { return Ok(()) };
    let before = marked.devices.len();
    marked.devices.retain(|id| *id != u32::from(device.device()));
    if marked.devices.is_empty() {
        marks.users.remove(&user);
    } else if marked.devices.len() == before {
        return Ok(());
    }
    step.put(marks_key(chat), marks.to_bytes());
    Ok(())
}

/// No device counts as having our key of this chat: the next message takes it to all of them.
pub(crate) fn clear(step: &mut Step<'_>, chat: &Jid) {
    step.delete(marks_key(chat));
}

/// Our key of this chat is given up, with its marks: the next message makes a new one (see
/// [`must_rotate`](crate::message::distribution::must_rotate)).
pub(crate) fn rotate(step: &mut Step<'_>, chat: &Jid) {
    if let Some(linked) = step.account().linked.clone() {
        for own in [Some(&linked.pn), linked.lid.as_ref()].into_iter().flatten() {
            sender_key::discard(step, &name_for(chat, own));
        }
    }
    clear(step, chat);
}

/// A device is gone, or is another one under its old number: it has no key of any chat.
///
/// # Errors
/// [`Miss`].
pub(crate) fn forget_device(step: &mut Step<'_>, user: &User, device: u16) -> Result<(), Miss> {
    lose(step, user, Some(device))
}

/// The same for every device of a user: the account was registered again, or its identity changed.
///
/// # Errors
/// [`Miss`].
pub(crate) fn forget_user(step: &mut Step<'_>, user: &User) -> Result<(), Miss> {
    lose(step, user, None)
}

fn lose(step: &mut Step<'_>, user: &User, device: Option<u16>) -> Result<(), Miss> {
    let mut losses = step.record::<LossesRecord>(&losses_key())?.unwrap_or_default();
    losses.count = losses.count.saturating_add(1);
    losses.last.push(Loss { user: user.canonical.to_string(), device: device.map(u32::from) });
    let surplus = losses.last.len().saturating_sub(MAX_LOSSES);
    losses.last.drain(..surplus);
    step.put(losses_key(), losses.to_bytes());
    Ok(())
}

impl LossesRecord {
    /// Takes the marks of devices off that were lost after the first `seen` losses. What is older than the oldest loss that
    /// is known is void.
    fn apply(&self, users: &mut BTreeMap<String, MarkedDevices>, seen: u64) {
        let unseen = usize::try_from(self.count.saturating_sub(seen)).unwrap_or(usize::MAX);
        let Some(first) = self.last.len().checked_sub(unseen) else { return users.clear() };
        for loss in self.last.iter().skip(first) {
            match (loss.device, users.get_mut(&loss.user)) {
                (Some(device), Some(marked)) => marked.devices.retain(|id| *id != device),
                (None, Some(_)) => drop(users.remove(&loss.user)),
                (_, None) => {}
            }
        }
    }
}

/// The name of our own key of a chat: under our LID once it is known.
pub(crate) fn own_key_name(chat: &Jid, linked: &Linked) -> SenderKeyName {
    name_for(chat, linked.lid.as_ref().unwrap_or(&linked.pn))
}

fn name_for(chat: &Jid, own: &Jid) -> SenderKeyName {
    SenderKeyName::new(&chat.to_string(), Address::new(&own.to_string()))
}

fn own_key_id(step: &mut Step<'_>, chat: &Jid) -> Result<Option<SenderKeyId>, Miss> {
    let Some(linked) = step.account().linked.clone() else { return Ok(None) };
    let key = step.own_sender_key(&own_key_name(chat, &linked))?;
    Ok(key.map(|key| key.position().id))
}

fn read(step: &mut Step<'_>, chat: &Jid) -> Result<(Option<MarksRecord>, LossesRecord), Miss> {
    // Both are read before either is missed.
    let (marks, losses) = (step.record(&marks_key(chat)), step.record(&losses_key()));
    Ok((marks?, losses?.unwrap_or_default()))
}

fn marks_key(chat: &Jid) -> Key {
    Key::texts(RecordKind::SenderKeyMarks, &[chat])
}

fn losses_key() -> Key {
    Key::new(RecordKind::SenderKeyMarks, b"")
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::engine::send::desk::{Desk, jid};

    const GROUP: &str = "120363000000000001@g.us";

    /// Makes a key for a group, and hands it to devices.
    fn distribute(desk: &mut Desk, group: &str, devices: &[&str]) -> DistributedRecord {
        let group = jid(group);
        let key = desk.get(|step| {
            let linked = step.account().linked.clone().unwrap();
            let mut rng = ChaCha20Rng::from_seed([1; 32]);
            sender_key::distribute(step, &own_key_name(&group, &linked), &mut rng).map(|message| message.id)
        });
        let devices: Vec<Address> = devices.iter().map(|device| Address::new(device)).collect();
        desk.get(|step| {
            let marks = Marks::load(step, &group, Some(key))?;
            Ok(marks.to_distribute(Some(key), &devices.iter().collect::<Vec<_>>()))
        })
    }

    fn marked(desk: &mut Desk, group: &str, devices: &[&str]) -> Vec<bool> {
        let group = jid(group);
        desk.get(|step| {
            let key = own_key_id(step, &group)?;
            let marks = Marks::load(step, &group, key)?;
            let has = |device: &Jid| marks.of(&device.to_bare(), &device.to_bare()).any(|marked| marked == *device);
            Ok(devices.iter().map(|device| has(&jid(device))).collect())
        })
    }

    const DEVICES: [&str; 3] = ["1@lid", "1:7@lid", "2@lid"];

    fn with_marks() -> Desk {
        let mut desk = Desk::new();
        for group in [GROUP, "120363000000000002@g.us"] {
            let distributed = distribute(&mut desk, group, &DEVICES);
            assert_eq!(marked(&mut desk, group, &DEVICES), [false; 3], "not before the server has it");
            desk.get(|step| add(step, &jid(group), &distributed));
            assert_eq!(marked(&mut desk, group, &DEVICES), [true; 3]);
        }
        desk
    }

    #[test]
    fn who_asks_again_is_unmarked_in_this_chat_alone() {
        let mut desk = with_marks();
        desk.get(|step| unmark(step, &jid(GROUP), &Address::new("1:7@lid")));
        assert_eq!(marked(&mut desk, GROUP, &DEVICES), [true, false, true]);
        desk.get(|step| unmark(step, &jid(GROUP), &Address::new("2@lid")));
        assert_eq!(marked(&mut desk, GROUP, &DEVICES), [true, false, false]);
        assert_eq!(marked(&mut desk, "120363000000000002@g.us", &DEVICES), [true; 3]);
        let before = desk.records.clone();
        for unknown in ["2@lid", "9@lid", "not a device"] {
            desk.get(|step| unmark(step, &jid(GROUP), &Address::new(unknown)));
        }
        assert!(desk.records == before);
    }

    #[test]
    fn marks_are_of_one_key() {
        let mut desk = with_marks();
        let distributed = distribute(&mut desk, GROUP, &["3@lid"]);
        desk.get(|step| {
            rotate(step, &jid(GROUP));
            Ok(())
        });
        assert_eq!(marked(&mut desk, GROUP, &DEVICES), [false; 3]);
        // What was sent with the old key is acknowledged when there is another one.
        desk.get(|step| add(step, &jid(GROUP), &distributed));
        assert!(!desk.get(|step| Ok(step.record::<MarksRecord>(&marks_key(&jid(GROUP)))?.is_some())));
    }

    #[test]
    fn a_lost_device_has_no_key_of_any_chat() {
        let mut desk = with_marks();
        let user = desk.user("1@lid");
        let under_way = distribute(&mut desk, GROUP, &["1:7@lid", "1:8@lid"]);
        desk.get(|step| forget_device(step, &user, 7));
        for group in [GROUP, "120363000000000002@g.us"] {
            assert_eq!(marked(&mut desk, group, &DEVICES), [true, false, true], "{group}");
        }
        desk.get(|step| add(step, &jid(GROUP), &under_way));
        assert_eq!(marked(&mut desk, GROUP, &["1:7@lid", "1:8@lid"]), [false, true], "lost after it was encrypted");
        // It comes back and gets the key again.
        let again = distribute(&mut desk, GROUP, &["1:7@lid"]);
        desk.get(|step| add(step, &jid(GROUP), &again));
        assert_eq!(marked(&mut desk, GROUP, &DEVICES), [true; 3]);
        desk.get(|step| forget_user(step, &user));
        assert_eq!(marked(&mut desk, GROUP, &DEVICES), [false, false, true]);
    }

    #[test]
    fn losses_that_were_forgotten_void_all_marks() {
        let mut desk = with_marks();
        let user = desk.user("99@lid");
        for device in 0..256 {
            desk.get(|step| forget_device(step, &user, device));
        }
        assert_eq!(marked(&mut desk, GROUP, &DEVICES), [true; 3]);
        desk.get(|step| forget_device(step, &user, 0));
        assert_eq!(marked(&mut desk, GROUP, &DEVICES), [false; 3]);
    }
}
