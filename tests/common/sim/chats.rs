//! Chats, and for whom each message is: what the invariants at the end are about.

use std::collections::BTreeSet;

use wamd::{Jid, engine::SendRequest, message::MessageId};
use wamd_loopback::{GroupMode, GroupSpec};

use super::Sim;

/// A group. Whoever made it stays in it.
pub(super) struct Group {
    pub(super) jid: Jid,
    pub(super) creator: &'static str,
    /// The numbers of its members, and the step at which each came.
    pub(super) members: Vec<(&'static str, u64)>,
}

/// A message that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The device that sends; `None` for the phone of the number.
    pub(crate) from: Option<usize>,
    pub(super) number: &'static str,
    pub(super) to: Jid,
    /// Whom it reaches at most, without the sender.
    pub(super) audience: Vec<&'static str>,
    /// The devices that must get it: those that were there as far as the sender could know, and are there still.
    pub(super) devices: BTreeSet<usize>,
    /// The numbers whose phones must get it.
    pub(super) phones: BTreeSet<&'static str>,
    /// The sender was removed meanwhile: it may be with the server or not.
    pub(super) is_orphan: bool,
    pub(crate) id: String,
    pub(super) text: String,
}

impl Sim {
    /// Makes a group of these numbers; the first one makes it.
    pub(crate) fn create_group(&mut self, mode: GroupMode, members: &[&'static str]) -> Jid {
        let spec = GroupSpec {
            creator: members[0].to_owned(),
            subject: "of the simulation".to_owned(),
            members: members[1..].iter().map(Jid::pn).collect(),
            mode: Some(mode),
            ..GroupSpec::default()
        };
        let group = self.server.create_group(self.now, &spec).expect("a group");
        self.drain_server();
        let members: Vec<_> = members.iter().map(|member| (*member, 0)).collect();
        self.groups.push(Group { jid: group.jid.clone(), creator: members[0].0, members });
        group.jid
    }

    /// Somebody writes to somebody else, or to a group. Now and then it is a phone.
    pub(crate) fn say_something(&mut self, text: &str) {
        let device = self.pick(self.accounts.len());
        let own = self.accounts[device].number;
        let mut people: Vec<&'static str> = self.accounts.iter().map(|account| account.number).collect();
        people.retain(|number| *number != own);
        people.dedup();
        let is_in = |number: &str, members: &[(&str, u64)]| members.iter().any(|(member, _)| *member == number);
        let groups = self.groups.iter().filter(|group| is_in(own, &group.members));
        let groups: Vec<Jid> = groups.map(|group| group.jid.clone()).collect();
        let chat = self.pick(people.len() + groups.len());
        let to = people.get(chat).map_or_else(|| groups[chat - people.len()].clone(), Jid::pn);
        match self.pick(6) {
            0 => self.send_by_phone(own, to, text),
            _ => self.send_to(device, &to, text),
        }
    }

    /// All phones but one write to the first group: its members are each other's contacts from then on.
    pub(crate) fn greet(&mut self) {
        let group = &self.groups[0];
        let (jid, members) = (group.jid.clone(), group.members.clone());
        for (number, _) in &members[1..] {
            self.send_by_phone(number, jid.clone(), "hello");
        }
    }

    pub(crate) fn send(&mut self, from: usize, to: &'static str, text: &str) {
        self.send_to(from, &Jid::pn(to), text);
    }

    /// Sends from a linked device.
    pub(crate) fn send_to(&mut self, from: usize, to: &Jid, text: &str) {
        let id = format!("3EB0{:018X}", self.sent.len() + 1);
        let request = SendRequest::text(to.clone(), text).with_id(MessageId::new(&id).expect("an id"));
        self.note_sent(Some(from), self.accounts[from].number, to.clone(), id.clone(), text);
        self.trouble_message(Some(from), self.accounts[from].number, to, Some(&id));
        self.ask(from, request);
    }

    /// Sends from a phone.
    fn send_by_phone(&mut self, number: &'static str, to: Jid, text: &str) {
        self.trouble_message(None, number, &to, None);
        let id = self.server.send_text(self.now, number, &to, text).expect("a phone sends");
        self.note_sent(None, number, to, id, text);
        self.drain_server();
    }

    /// The numbers of a chat, each with the step since which it is in there.
    pub(super) fn members(&self, chat: &Jid) -> Vec<(&'static str, u64)> {
        match self.groups.iter().find(|group| group.jid == *chat) {
            Some(group) => group.members.clone(),
            None => {
                let account = self.accounts.iter().find(|account| Jid::pn(account.number) == *chat);
                vec![(account.expect("a chat with somebody").number, 0)]
            }
        }
    }

    fn note_sent(&mut self, from: Option<usize>, number: &'static str, to: Jid, id: String, text: &str) {
        self.learn();
        let knows = from.map_or(u64::MAX, |from| self.accounts[from].knows);
        let members = self.members(&to);
        let known = |number: &str| members.iter().any(|(member, since)| *member == number && *since <= knows);
        let is_there = |since: Option<u64>| since.is_some_and(|since| since <= knows);
        let devices = self
            .accounts
            .iter()
            .enumerate()
            .filter(|(_, account)| is_there(account.since) && (account.number == number || known(account.number)));
        let mut phones: BTreeSet<_> = members.iter().map(|(number, _)| *number).filter(|one| known(one)).collect();
        let sender = from.map(|_| number);
        phones.remove(number);
        phones.extend(sender);
        let mut sent = Sent {
            from,
            number,
            audience: members.iter().map(|(member, _)| *member).filter(|member| *member != number).collect(),
            devices: devices.map(|(i, _)| i).collect(),
            phones,
            is_orphan: false,
            id,
            text: text.to_owned(),
            to,
        };
        // Unlinked, and it may not know yet.
        if from.is_some_and(|from| self.accounts[from].device.is_none()) {
            sent.orphan();
        }
        self.sent.push(sent);
    }

    /// Notes who is linked, and who has heard of everything that the server has told.
    fn learn(&mut self) {
        let views = self.server.accounts();
        let devices: Vec<_> = views.iter().flat_map(|account| &account.devices).collect();
        for i in 0..self.accounts.len() {
            let is_connected = self.is_connected(i);
            let account = &mut self.accounts[i];
            let device = devices.iter().find(|device| account.device.as_ref() == Some(&device.jid));
            let Some(device) = device else { continue };
            if is_connected {
                account.since.get_or_insert(self.steps);
            }
            if device.queued == 0 {
                account.knows = self.steps;
            }
        }
    }

    /// A device that is not linked refused to send it.
    pub(super) fn never_sent(&mut self, request: &SendRequest) {
        let is_it = |sent: &&mut Sent| request.id.as_ref().is_some_and(|id| id.as_str() == sent.id);
        self.sent.iter_mut().filter(is_it).for_each(Sent::orphan);
    }

    /// A device is gone: nothing must reach it, and what it sent need not have been sent.
    pub(super) fn forget_device(&mut self, device: usize) {
        for sent in &mut self.sent {
            sent.devices.remove(&device);
            if sent.from == Some(device) {
                sent.orphan();
            }
        }
    }

    /// A phone has lost what it sent: nobody can ask it again.
    pub(super) fn forget_phone(&mut self, number: &str) {
        let lost = |sent: &&mut Sent| sent.from.is_none() && sent.number == number;
        self.sent.iter_mut().filter(lost).for_each(Sent::orphan);
    }

    /// Somebody has left a group: nothing that was said there must reach them, and they cannot say it again.
    pub(super) fn forget_member(&mut self, group: &Jid, number: &str) {
        for sent in self.sent.iter_mut().filter(|sent| sent.to == *group) {
            sent.devices.retain(|device| self.accounts[*device].number != number);
            sent.phones.remove(number);
            if sent.number == number {
                sent.orphan();
            }
        }
    }
}

impl Sent {
    pub(super) fn orphan(&mut self) {
        self.is_orphan = true;
        self.devices.clear();
        self.phones.clear();
    }
}
