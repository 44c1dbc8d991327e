//! Whom a message under our sender key is for (spec 03 §3.4): everybody's devices, and those of them that lack the key.
//!
//! To find that costs something for every member, so what was found is kept ([`super::memo`]) until something about it changes.
//! While nobody lacks the key, a message costs the same for ten members and for a thousand.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    SendOp,
    marks::{self, Marks},
};
use crate::{
    engine::{
        account::Linked,
        address::{self, User},
        devices,
        records::DistributedRecord,
        step::{Miss, Step},
    },
    event::AddressingMode,
    jid::Jid,
    message::{
        distribution::{DistributionPlan, KeyAction},
        phash,
    },
    signal::{
        Address,
        sender_key::{SenderKeyId, SenderKeyName, SenderKeyStore},
    },
    stanza::iq::usync::Device,
};

/// What a look at everybody found.
#[derive(Debug)]
pub(crate) struct Fanout {
    /// Our key of the chat.
    pub(super) key_name: SenderKeyName,
    /// The key that goes on; `None` when a new one must be made.
    pub(super) key: Option<SenderKeyId>,
    /// How the chat addresses its people, in groups.
    pub(super) addressing: Option<AddressingMode>,
    /// The participant hash.
    pub(super) phash: String,
    /// The devices that get the key with the message: those that lack it, and all our own others.
    pub(super) targets: Vec<Target>,
    /// People one of whose devices has the key already.
    pub(super) warm: Vec<Jid>,
    /// Whom to mark when the server has the message, for `key` or the new one; `None` when everybody has it.
    pub(super) distributes: Option<DistributedRecord>,
    /// Hashes of all names of everybody, sorted: what concerns one of them makes this void.
    people: Vec<u64>,
}

/// A device that gets the key.
#[derive(Debug)]
pub(super) struct Target {
    /// As the chat addresses it.
    pub(super) jid: Jid,
    /// Where its session is.
    pub(super) address: Address,
    pub(super) is_own: bool,
}

/// What [`find`] found.
pub(super) enum Found {
    /// Everything.
    Fanout(Box<Fanout>),
    /// The devices of these people must be asked for.
    Unknown(Vec<Jid>),
    /// There is nobody but ourselves whose devices are known.
    Nobody,
}

impl Fanout {
    /// Whether what is stored about a user is part of this. `name` is any identity of the user, as text.
    pub(super) fn concerns(&self, name: u64) -> bool {
        self.people.binary_search(&name).is_ok()
    }
}

/// See [`Fanout::concerns`].
pub(super) fn hash_name(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Finds out whom a message is for. `people` are everybody as the chat addresses them, without device, ourselves included.
///
/// Somebody whose devices the server does not tell is left out: a message to a thousand people does not fail because of one.
///
/// # Errors
/// [`Miss`].
pub(super) fn find(
    step: &mut Step<'_>,
    op: &SendOp,
    linked: &Linked,
    addressing: Option<AddressingMode>,
    people: &[Jid],
) -> Result<Found, Miss> {
    let users = all(people, |jid| address::user(step, jid))?;
    let lists = all(&users, |user| devices::devices(step, user));
    let chat = &op.lane.chat;
    let key_name = marks::own_key_name(chat, linked);
    let key = step.own_sender_key(&key_name).map(|key| key.map(|key| key.position()));
    // What is stored of the marks is read before anything is missed; whether they are of this key is seen then.
    let marks = Marks::load(step, chat, key.ok().flatten().map(|key| key.id));
    let (lists, key, marks) = (lists?, key?, marks?);

    // One name for one person, so that sends to the person and to other groups ask the same.
    let unknown = users.iter().zip(&lists).filter(|(_, list)| list.is_none()).map(|(user, _)| &user.canonical);
    let unknown: Vec<Jid> = unknown.filter(|user| op.may_ask(user)).cloned().collect();
    if !unknown.is_empty() {
        return Ok(Found::Unknown(unknown));
    }
    let is_own = |jid: &Jid, user: &User| linked.own().is_account(jid) || user.is(&linked.pn);
    let others = || people.iter().zip(&users).zip(&lists).filter(|((jid, user), _)| !is_own(jid, user));
    if others().next().is_some() && !others().any(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty())) {
        return Ok(Found::Nobody);
    }
    // Somebody who has the key and is not among the people any more has left: the key is spent.
    let present: HashSet<&Jid> = users.iter().flat_map(|user| user.identities().chain(&user.lid)).collect();
    let is_spent = marks.users().any(|user| user.is_none_or(|user| !present.contains(&user)));
    let key = key.filter(|_| !is_spent);
    let marked: HashSet<Jid> =
        people.iter().zip(&users).flat_map(|(jid, user)| marks.of(&user.canonical, jid)).collect();

    let sending = people.iter().zip(&users).find(|(jid, user)| is_own(jid, user));
    let sending = sending.map(|(jid, _)| jid.with_device(linked.pn.device()));
    let own: Vec<Jid> =
        [Some(&linked.pn), linked.lid.as_ref(), sending.as_ref()].into_iter().flatten().cloned().collect();
    let devices = each_device(people, &lists);
    let iteration = key.map(|key| key.iteration);
    let plan = DistributionPlan::new(&own, iteration, &devices, |device| marked.contains(device));

    let addresses = all(&plan.targets, |target| address::device(step, target.device))?;
    let key = key.filter(|_| plan.key == KeyAction::Keep).map(|key| key.id);
    let to_mark = plan.targets.iter().zip(&addresses).filter(|(target, _)| !target.is_own);
    let to_mark: Vec<&Address> = to_mark.map(|(_, address)| address).collect();
    let distributes = (!to_mark.is_empty()).then(|| marks.to_distribute(key, &to_mark));
    let warm: BTreeSet<Jid> = plan.warm.iter().map(|device| device.to_bare()).collect();
    let mut people: Vec<u64> = users.iter().flat_map(names).collect();
    people.sort_unstable();
    people.dedup();
    let phash = phash::phash(plan.addressed().chain(&sending));
    let targets = plan.targets.iter().zip(addresses);
    let targets = targets
        .map(|(target, address)| Target { jid: target.device.clone(), address, is_own: target.is_own })
        .collect();
    Ok(Found::Fanout(Box::new(Fanout {
        key_name,
        key,
        addressing,
        phash,
        targets,
        warm: warm.into_iter().collect(),
        distributes,
        people,
    })))
}

/// Looks at all, so that one round loads everything that is missing.
fn all<T, R>(items: &[T], mut look: impl FnMut(&T) -> Result<R, Miss>) -> Result<Vec<R>, Miss> {
    let (mut found, mut missed) = (Vec::with_capacity(items.len()), Ok(()));
    for item in items {
        match look(item) {
            Ok(result) => found.push(result),
            Err(miss) => missed = Err(miss),
        }
    }
    missed.map(|()| found)
}

/// Every device of everybody, as the chat addresses them. Those that Meta hosts read no groups.
fn each_device(people: &[Jid], lists: &[Option<Vec<Device>>]) -> Vec<Jid> {
    let of = |(jid, list): (&Jid, &Option<Vec<Device>>)| {
        let devices = list.iter().flatten().filter(|device| !device.hosted);
        devices.map(|device| jid.with_device(device.id)).collect::<Vec<_>>()
    };
    people.iter().zip(lists).flat_map(of).collect()
}

/// All names of a user.
fn names(user: &User) -> impl Iterator<Item = u64> {
    let names = [Some(&user.canonical), user.pn.as_ref(), user.lid.as_ref()];
    names.map(|name| name.map(|name| hash_name(name.to_string().as_bytes()))).into_iter().flatten()
}
