//! Who exists: accounts by phone number and by LID, their companions, and the key bundles of both.
//!
//! An account is made the first time its number is named. Its phone is device 0 and always there; companions are
//! devices 1 to 98 (99 marks hosted devices, spec 02 §8). Ids and key indexes of companions only grow, so that a device
//! that was unlinked never comes back as another one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use wamd::crypto::{KeyPair, PublicKey, Rng};
use wamd::jid::Jid;
use wamd::proto::adv::AdvKeyIndexList;

use crate::ConnId;
use crate::adv;
use crate::phone::Phone;
use crate::queue::{self, Queue};

/// One device of one account, whatever address names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) number: u64,
    pub(crate) device: u16,
}

impl Address {
    pub(crate) const fn phone(number: u64) -> Self {
        Self { number, device: 0 }
    }
}

/// Which of the two names of an account an address uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Pn,
    Lid,
}

impl Namespace {
    /// The namespace of a user's JID; `None` for groups, servers and everything else.
    pub(crate) fn of(jid: &Jid) -> Option<Self> {
        match jid {
            jid if jid.is_server_only() => None,
            jid if jid.is_pn_family() => Some(Self::Pn),
            jid if jid.is_lid_family() => Some(Self::Lid),
            _ => None,
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Pn => Self::Lid,
            Self::Lid => Self::Pn,
        }
    }
}

/// A signed prekey as its owner published it. The signature is not checked here: that is the job of whoever uses it.
#[derive(Clone, Debug)]
pub(crate) struct SignedPreKey {
    pub(crate) id: u32,
    pub(crate) public: PublicKey,
    pub(crate) signature: Bytes,
}

/// What a peer gets to open a session with a device.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) registration_id: u32,
    pub(crate) identity: PublicKey,
    pub(crate) signed_prekey: SignedPreKey,
    pub(crate) prekey: Option<(u32, PublicKey)>,
    pub(crate) device_identity: Option<Bytes>,
}

/// A linked companion.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) key_index: u32,
    /// Whether the device list says that Meta hosts it.
    pub(crate) hosted: bool,
    pub(crate) noise: PublicKey,
    pub(crate) identity: PublicKey,
    pub(crate) registration_id: u32,
    pub(crate) signed_prekey: SignedPreKey,
    /// One-time keys that nobody has yet, oldest first.
    pub(crate) prekeys: VecDeque<(u32, PublicKey)>,
    /// One-time keys that somebody has: they are never given out again.
    pub(crate) spent: BTreeSet<u32>,
    /// Whether the device has uploaded its keys at all.
    pub(crate) uploaded: bool,
    /// Whether a low-count notification is out and not answered by an upload.
    pub(crate) told_low: bool,
    pub(crate) device_identity: Bytes,
    pub(crate) connection: Option<ConnId>,
    pub(crate) logins: u64,
    /// Whether the phone has shared its app state keys.
    pub(crate) greeted: bool,
    pub(crate) queue: Queue,
    /// The last message that was routed to the device, for replaying it.
    pub(crate) last_message: Option<queue::Entry>,
}

impl Device {
    /// Stores uploaded one-time keys; ids already given out are ignored, ids still here are replaced.
    pub(crate) fn store_prekeys(&mut self, keys: Vec<(u32, PublicKey)>) {
        for (id, key) in keys {
            if self.spent.contains(&id) {
                continue;
            }
            match self.prekeys.iter_mut().find(|held| held.0 == id) {
                Some(held) => held.1 = key,
                None => self.prekeys.push_back((id, key)),
            }
        }
        self.uploaded = true;
        self.told_low = false;
    }

    /// Spends all one-time keys, as if others had them.
    pub(crate) fn spend_prekeys(&mut self) {
        self.spent.extend(self.prekeys.drain(..).map(|(id, _)| id));
        self.told_low = false;
    }

    fn take_prekey(&mut self) -> Option<(u32, PublicKey)> {
        let key = self.prekeys.pop_front()?;
        self.spent.insert(key.0);
        Some(key)
    }
}

/// A phone number and everything that belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) number: u64,
    pub(crate) lid: u64,
    pub(crate) push_name: String,
    /// Unix seconds.
    pub(crate) created: u64,
    /// The account key, which is the Signal identity of the phone.
    pub(crate) identity: KeyPair,
    pub(crate) raw_id: u32,
    /// The index of the newest companion.
    pub(crate) key_index: u32,
    pub(crate) last_device: u16,
    pub(crate) devices: BTreeMap<u16, Device>,
    pub(crate) phone: Phone,
    /// Accounts that messages went to or came from: they hear of changes of the device list.
    pub(crate) contacts: BTreeSet<u64>,
    /// What the last linking failed of, as the client or the check of its answer says it.
    pub(crate) last_link_error: Option<String>,
    /// Whether others are not told the LID yet.
    pub(crate) lid_hidden: bool,
}

impl Account {
    /// The address of a device in one of the two namespaces.
    pub(crate) fn jid(&self, namespace: Namespace, device: u16) -> Jid {
        let bare = match namespace {
            Namespace::Pn => Jid::pn(self.number.to_string()),
            Namespace::Lid => Jid::lid(self.lid.to_string()),
        };
        bare.with_device(device)
    }

    /// The bare address in a namespace, as far as others are told it.
    pub(crate) fn alias(&self, namespace: Namespace) -> Option<Jid> {
        (namespace == Namespace::Pn || !self.lid_hidden).then(|| self.jid(namespace, 0))
    }

    /// The next free companion id and key index; `None` when the account has as many companions as it may.
    pub(crate) fn reserve_device(&mut self, max: u16) -> Option<(u16, u32)> {
        let limit = max.min(LAST_DEVICE);
        if self.devices.len() >= usize::from(limit) {
            return None;
        }
        let next = |id: u16| if id >= LAST_DEVICE { 1 } else { id.saturating_add(1) };
        let mut id = next(self.last_device);
        while self.devices.contains_key(&id) {
            id = next(id);
        }
        self.last_device = id;
        self.key_index = self.key_index.saturating_add(1);
        Some((id, self.key_index))
    }

    /// Device 0 and the companions with their key indexes.
    pub(crate) fn device_list(&self) -> impl Iterator<Item = (u16, Option<u32>)> + '_ {
        let companions = self.devices.iter().map(|(id, device)| (*id, Some(device.key_index)));
        std::iter::once((0, None)).chain(companions)
    }

    /// The signed list of valid key indexes at a moment in unix seconds.
    pub(crate) fn key_index_list(&self, timestamp: u64) -> Vec<u8> {
        let valid = std::iter::once(0).chain(self.devices.values().map(|device| device.key_index));
        let list = AdvKeyIndexList {
            raw_id: Some(self.raw_id),
            timestamp: Some(timestamp),
            current_index: Some(self.key_index),
            valid_indexes: valid.collect(),
            account_type: None,
        };
        adv::key_index_list(&self.identity, &list)
    }

    /// Takes a bundle of a device, and with it one of its one-time keys unless it is to go without.
    pub(crate) fn take_bundle(&mut self, device: u16, without_prekey: bool, rng: &mut impl Rng) -> Option<Bundle> {
        if device == 0 {
            let bundle = self.phone.take_bundle(&self.identity, rng);
            return Some(Bundle { prekey: bundle.prekey.filter(|_| !without_prekey), ..bundle });
        }
        let device = self.devices.get_mut(&device)?;
        Some(Bundle {
            registration_id: device.registration_id,
            identity: device.identity,
            signed_prekey: device.signed_prekey.clone(),
            prekey: if without_prekey { None } else { device.take_prekey() },
            device_identity: Some(device.device_identity.clone()),
        })
    }
}

/// All accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    accounts: BTreeMap<u64, Account>,
    lids: BTreeMap<u64, u64>,
}

impl Directory {
    /// The account of a number, made if it is new. `now` is in unix seconds.
    pub(crate) fn get_or_create(&mut self, number: u64, now: u64, rng: &mut impl Rng) -> &mut Account {
        let lids = &mut self.lids;
        self.accounts.entry(number).or_insert_with(|| {
            let lid = fresh_lid(lids, number, rng);
            let identity = KeyPair::generate(rng);
            Account {
                number,
                lid,
                push_name: format!("User {:04}", number % 10_000),
                created: now,
                phone: Phone::new(&identity, rng),
                identity,
                raw_id: rng.next_u32() >> 1,
                key_index: 0,
                last_device: 0,
                devices: BTreeMap::new(),
                contacts: BTreeSet::new(),
                last_link_error: None,
                lid_hidden: false,
            }
        })
    }

    /// Gives an account another LID. The former one goes on naming it.
    pub(crate) fn change_lid(&mut self, number: u64, rng: &mut impl Rng) {
        let lid = fresh_lid(&mut self.lids, number, rng);
        if let Some(account) = self.accounts.get_mut(&number) {
            account.lid = lid;
        }
    }

    pub(crate) fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    pub(crate) fn account(&self, number: u64) -> Option<&Account> {
        self.accounts.get(&number)
    }

    pub(crate) fn account_mut(&mut self, number: u64) -> Option<&mut Account> {
        self.accounts.get_mut(&number)
    }

    /// The account and device that a JID names. The account exists; the device may not.
    pub(crate) fn resolve(&self, jid: &Jid) -> Option<Address> {
        let user: u64 = jid.user().parse().ok()?;
        let number = match Namespace::of(jid)? {
            Namespace::Pn => self.accounts.contains_key(&user).then_some(user)?,
            Namespace::Lid => *self.lids.get(&user)?,
        };
        Some(Address { number, device: jid.device() })
    }

    /// All devices of an account, its phone first.
    pub(crate) fn all_addresses(&self, number: u64) -> impl Iterator<Item = Address> + '_ {
        let devices = self.account(number).into_iter().flat_map(Account::device_list);
        devices.map(move |(device, _)| Address { number, device })
    }

    /// The devices of an account that messages to many go to: all but hosted ones.
    pub(crate) fn addresses(&self, number: u64) -> impl Iterator<Item = Address> + '_ {
        self.all_addresses(number).filter(|address| !self.device(*address).is_some_and(|device| device.hosted))
    }

    /// The companions of an account.
    pub(crate) fn companions(&self, number: u64) -> impl Iterator<Item = Address> + '_ {
        self.all_addresses(number).filter(|address| address.device != 0)
    }

    /// Whether the device exists: every phone does.
    pub(crate) fn exists(&self, address: Address) -> bool {
        self.account(address.number)
            .is_some_and(|account| address.device == 0 || account.devices.contains_key(&address.device))
    }

    pub(crate) fn device(&self, address: Address) -> Option<&Device> {
        self.account(address.number)?.devices.get(&address.device)
    }

    pub(crate) fn device_mut(&mut self, address: Address) -> Option<&mut Device> {
        self.account_mut(address.number)?.devices.get_mut(&address.device)
    }
}

fn fresh_lid(lids: &mut BTreeMap<u64, u64>, number: u64, rng: &mut impl Rng) -> u64 {
    loop {
        let lid = 100_000_000_000_000 + rng.next_u64() % 900_000_000_000_000;
        if let Entry::Vacant(free) = lids.entry(lid) {
            free.insert(number);
            return lid;
        }
    }
}

/// The highest companion id; 99 marks hosted devices.
const LAST_DEVICE: u16 = 98;
