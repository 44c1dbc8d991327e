//! What goes wrong: every so many steps, or with every so many messages.

use std::time::Duration;

use rand_core::Rng as _;
use wamd::{Jid, store::RecordKind};
use wamd_loopback::{ConnId, ControlError, Damage, Disconnect, EncKind, Fault, GroupChange};

use super::Sim;

/// How often bad things happen; 0 never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chaos {
    // One in so many steps:
    /// A process dies and starts again from what is durable.
    pub(crate) crash: u32,
    /// A wire is cut.
    pub(crate) cut: u32,
    /// An account starts again without its sessions, or without the sender keys of others, or without its own.
    pub(crate) wipe: u32,
    /// The last message of a device comes once more.
    pub(crate) replay: u32,
    /// All one-time keys of a device are given out.
    pub(crate) exhaust: u32,
    /// A device is unlinked, and links again as a new one, with another identity.
    pub(crate) relink: u32,
    /// An account registers again: its phone has another identity, and its devices link again.
    pub(crate) reregister: u32,
    /// Somebody is added to a group, or removed.
    pub(crate) members: u32,

    // One in so many messages for each device, phones among them:
    /// It comes twice.
    pub(crate) duplicate: u32,
    /// It comes up to 20 seconds later. Time passes meanwhile.
    pub(crate) delay: u32,
    /// It comes behind up to three later ones, whoever wrote them.
    pub(crate) reorder: u32,
    /// A bit of its ciphertexts is changed, and perhaps once more when it is sent again.
    pub(crate) corrupt: u32,
    /// The sender key that it brings is left out.
    pub(crate) lose: u32,
    /// It is said to be on the phone alone. No phone.
    pub(crate) hide: u32,

    // One in so many messages:
    /// The server refuses it.
    pub(crate) refuse: u32,
    /// The server routes it and does not say so.
    pub(crate) unacked: u32,
}

/// How late a message comes.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(20);

impl Sim {
    /// Perhaps something goes wrong, instead of the next step.
    pub(super) fn trouble(&mut self) -> bool {
        let chaos = self.chaos;
        if self.one_in(chaos.crash) {
            let account = self.pick(self.accounts.len());
            self.crash(account);
        } else if self.one_in(chaos.wipe) {
            let account = self.pick(self.accounts.len());
            self.wipe(account);
        } else if self.one_in(chaos.cut) {
            let wires: Vec<ConnId> = self.wires.keys().copied().collect();
            if wires.is_empty() {
                return false;
            }
            let wire = wires[self.pick(wires.len())];
            self.cut(wire);
        } else if self.one_in(chaos.replay) {
            if let Some(jid) = self.any_device() {
                self.fault(Fault::ReplayLast { jid });
            }
        } else if self.one_in(chaos.exhaust) {
            if let Some(jid) = self.any_device() {
                self.fault(Fault::EmptyPrekeys { jid });
            }
        } else if self.one_in(chaos.relink) {
            self.relink();
        } else if self.one_in(chaos.reregister) {
            self.reregister();
        } else if self.one_in(chaos.members) {
            self.change_members();
        } else if chaos.delay > 0 && self.one_in(8) {
            let millis = 1 + self.pick(500);
            self.advance(Duration::from_millis(millis as u64));
        } else {
            return false;
        }
        true
    }

    /// Decides what happens to a message on its way. `id` is not known yet when a phone sends it.
    pub(super) fn trouble_message(&mut self, from: Option<usize>, own: &'static str, to: &Jid, id: Option<&str>) {
        let chaos = self.chaos;
        let mut numbers: Vec<_> = self.members(to).into_iter().map(|(number, _)| number).chain([own]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let devices = self.accounts.iter().filter(|account| account.number == number);
            let devices: Vec<Jid> = devices.filter_map(|account| account.device.clone()).collect();
            let mut is_hidden = false;
            for jid in devices {
                if self.one_in(chaos.hide) {
                    is_hidden = true;
                    self.damage(&jid, id, Damage::Unavailable { kind: None }, None, 1);
                } else {
                    self.damage_somehow(&jid, id);
                }
            }
            // What a device asks its phone for must be there. Copies of what its own account wrote to a group it asks for
            // nowhere else (spec 03 §5.4).
            let asks_phone = is_hidden || own == number && (from.is_none() || to.is_group());
            if !asks_phone {
                self.damage_somehow(&Jid::pn(number), id);
            }
        }
        if let Some(jid) = from.and_then(|from| self.accounts[from].device.clone()) {
            self.trouble_ack(jid, to);
        }
    }

    fn damage_somehow(&mut self, jid: &Jid, id: Option<&str>) {
        let chaos = self.chaos;
        if self.one_in(chaos.duplicate) {
            self.damage(jid, id, Damage::Duplicate, None, 1);
        }
        if self.one_in(chaos.delay) {
            let ms = 1 + self.rng.next_u64() % MAX_DELAY.as_millis() as u64;
            self.damage(jid, id, Damage::Delay { ms }, None, 1);
        }
        if self.one_in(chaos.reorder) {
            let messages = 1 + self.pick(3) as u32;
            self.damage(jid, id, Damage::Behind { messages }, None, 1);
        }
        // What is meant for a message of unknown id must fit it, lest it happens to another one.
        if id.is_none() {
            if self.one_in(chaos.corrupt) {
                self.damage(jid, id, Damage::Corrupt, None, 1);
            }
            return;
        }
        if self.one_in(chaos.corrupt) {
            let enc = [None, Some(EncKind::Pairwise), Some(EncKind::SenderKey)][self.pick(3)];
            let count = 1 + self.pick(2) as u32;
            self.damage(jid, id, Damage::Corrupt, enc, count);
        }
        if self.one_in(chaos.lose) {
            self.damage(jid, id, Damage::Drop, Some(EncKind::Distribution), 1);
        }
    }

    fn damage(&mut self, jid: &Jid, id: Option<&str>, what: Damage, enc: Option<EncKind>, count: u32) {
        let (jid, id) = (jid.clone(), id.map(str::to_owned));
        self.fault(Fault::Delivery { jid, what, enc, id, every: 1, count: Some(count) });
    }

    fn trouble_ack(&mut self, jid: Jid, to: &Jid) {
        if self.one_in(self.chaos.refuse) {
            // Groups have a refusal after which the same message is encrypted once more.
            let error = if to.is_group() && self.one_in(2) { 421 } else { 500 };
            let chat = Some(to.clone());
            self.may_fail = true;
            let (phash, refresh_lid) = (None, false);
            self.fault(Fault::Acks { jid, chat, error: Some(error), phash, refresh_lid, count: Some(1) });
        } else if self.one_in(self.chaos.unacked) {
            self.may_fail = true;
            self.fault(Fault::DropAck { jid, count: 1 });
        }
    }

    /// Ends everything that goes wrong; what was kept back comes.
    pub(super) fn mend(&mut self) {
        self.chaos = Chaos::default();
        let phones = self.accounts.iter().map(|account| Jid::pn(account.number));
        let devices = self.accounts.iter().filter_map(|account| account.device.clone());
        for jid in phones.chain(devices).collect::<Vec<_>>() {
            self.fault(Fault::Mend { jid });
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.trace(|_| format!("{fault:?}"));
        match self.server.fault(self.now, fault) {
            // Unlinked just now, or nothing came yet.
            Ok(()) | Err(ControlError::UnknownDevice | ControlError::NoMessage) => {}
            Err(error) => panic!("{error}"),
        }
        self.drain_server();
    }

    fn any_device(&mut self) -> Option<Jid> {
        let account = self.pick(self.accounts.len());
        self.accounts[account].device.clone()
    }

    /// The process dies and starts again from a disk that has lost some keys.
    fn wipe(&mut self, i: usize) {
        let lost: &[RecordKind] = match self.pick(3) {
            0 => &[RecordKind::Session, RecordKind::ArchiveIndex, RecordKind::ArchivedState, RecordKind::SkippedPage],
            1 => &[RecordKind::SenderKey, RecordKind::SenderKeyPage],
            _ => &[RecordKind::OwnSenderKey, RecordKind::SenderKeyMarks],
        };
        self.crash_without(i, lost);
        self.accounts[i].wipes += 1;
    }

    fn relink(&mut self) {
        let account = self.pick(self.accounts.len());
        // One that is being linked is left alone.
        if let (Some(jid), Some(_)) = (self.accounts[account].device.clone(), self.accounts[account].since) {
            self.server.disconnect(self.now, &jid, Disconnect::DeviceRemoved).expect("unlinked");
            self.unlinked(account);
            self.drain_server();
        }
    }

    fn reregister(&mut self) {
        let account = self.pick(self.accounts.len());
        let number = self.accounts[account].number;
        let devices: Vec<usize> = (0..self.accounts.len()).filter(|i| self.accounts[*i].number == number).collect();
        if devices.iter().any(|device| self.accounts[*device].since.is_none()) {
            return;
        }
        devices.into_iter().for_each(|device| self.unlinked(device));
        self.forget_phone(number);
        self.fault(Fault::ChangeIdentity { jid: Jid::pn(number) });
    }

    pub(super) fn unlinked(&mut self, account: usize) {
        (self.is_troubled, self.may_fail) = (true, true);
        self.forget_device(account);
        let account = &mut self.accounts[account];
        (account.device, account.since) = (None, None);
    }

    fn change_members(&mut self) {
        if self.groups.is_empty() {
            return;
        }
        let (which, who) = (self.pick(self.groups.len()), self.pick(self.accounts.len()));
        let (number, since) = (self.accounts[who].number, self.steps);
        let group = &mut self.groups[which];
        if group.creator == number {
            return;
        }
        let jid = group.jid.clone();
        let (participants, before) = (vec![Jid::pn(number)], group.members.len());
        group.members.retain(|(member, _)| *member != number);
        let change = if group.members.len() < before {
            self.forget_member(&jid, number);
            GroupChange::Remove { participants, linked_groups: false }
        } else {
            group.members.push((number, since));
            GroupChange::Add { participants }
        };
        self.may_fail = true;
        self.server.change_group(self.now, &jid, None, change).expect("members change");
        self.drain_server();
    }
}
