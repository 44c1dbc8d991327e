//! Groups and communities: who is in them, and how they are set (spec 06 §7, §8).
//!
//! A group addresses its members by number or by LID, all alike. A community is a group whose announcement group is made with
//! it; every member of the community is in that one, too.
//!
//! ```text
//!  w:g2 query ──▶ query ─┐
//!  test ───────▶ control ┴▶ change ──▶ Group, w:gp2 notifications ──▶ queues of the members' companions
//! ```
//!
//! What clients can make grow is bounded: groups by [`MAX_GROUPS`], members by the configuration, texts by their length.

pub(crate) mod change;
pub(crate) mod community;
pub(crate) mod control;
pub(crate) mod node;
pub(crate) mod notify;
pub(crate) mod query;

use std::collections::BTreeMap;

use wamd::crypto::Rng;
use wamd::jid::{Jid, Server};

use crate::core::Core;
use crate::directory::{Address, Namespace};

/// A group, a community, or a group of one.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The user part of its JID.
    pub(crate) id: String,
    /// How members are addressed.
    pub(crate) mode: Namespace,
    pub(crate) subject: Note,
    pub(crate) description: Option<(String, Note)>,
    pub(crate) creator: u64,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) members: BTreeMap<u64, Rank>,
    pub(crate) settings: Settings,
    pub(crate) kind: Kind,
    /// Counts changes of the members and of everything else: a client that misses one sees the gap.
    pub(crate) versions: (u64, u64),
}

/// A text that somebody set.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) text: String,
    /// Unix seconds.
    pub(crate) at: u64,
    pub(crate) by: u64,
}

/// The switches of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Only admins write.
    pub(crate) announcement: bool,
    /// Only admins change subject, description and timer.
    pub(crate) locked: bool,
    /// Every member adds others, not admins alone.
    pub(crate) all_add: bool,
    /// Admins approve whoever joins.
    pub(crate) approval: bool,
    /// Seconds after which messages vanish; 0 never.
    pub(crate) ephemeral: u32,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Member,
    Admin,
    /// Whoever made the group.
    Superadmin,
}

impl Rank {
    /// The `type` of a participant.
    pub(crate) const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Member => None,
            Self::Admin => Some("admin"),
            Self::Superadmin => Some("superadmin"),
        }
    }
}

/// How a group belongs to a community.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Community,
    /// A group of the community with this id; its announcement group is the default one.
    Sub {
        parent: String,
        is_default: bool,
    },
}

impl Group {
    pub(crate) fn jid(&self) -> Jid {
        Jid::new(&self.id, Server::Group)
    }

    /// The rank of an account; `None` for an outsider.
    pub(crate) fn rank(&self, number: u64) -> Option<Rank> {
        self.members.get(&number).copied()
    }

    pub(crate) fn is_admin(&self, number: u64) -> bool {
        self.rank(number) >= Some(Rank::Admin)
    }

    /// The group's addressing mode as stanzas have it.
    pub(crate) const fn mode_str(&self) -> &'static str {
        match self.mode {
            Namespace::Pn => "pn",
            Namespace::Lid => "lid",
        }
    }

    /// Every device that messages of the group go to: those of all members, hosted ones left out (spec 03 §3.4).
    pub(crate) fn devices(&self, core: &Core) -> Vec<Address> {
        self.members.keys().flat_map(|number| core.directory.addresses(*number)).collect()
    }
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    groups: BTreeMap<String, Group>,
}

impl Groups {
    /// The group that a JID names.
    pub(crate) fn get(&self, jid: &Jid) -> Option<&Group> {
        self.groups.get(jid.user()).filter(|_| jid.is_group())
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    pub(crate) fn by_id_mut(&mut self, id: &str) -> Option<&mut Group> {
        self.groups.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.groups.len() >= MAX_GROUPS
    }

    pub(crate) fn insert(&mut self, group: Group) {
        self.groups.insert(group.id.clone(), group);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Group> {
        self.groups.remove(id)
    }

    /// An id as the real ones are: 18 digits, starting with 120363.
    pub(crate) fn fresh_id(&self, rng: &mut impl Rng) -> String {
        loop {
            let id = format!("120363{:012}", rng.next_u64() % 1_000_000_000_000);
            if !self.groups.contains_key(&id) {
                return id;
            }
        }
    }
}

/// Groups that one server keeps.
const MAX_GROUPS: usize = 10_000;

/// Characters of a subject (spec 06 §7).
pub(crate) const MAX_SUBJECT: usize = 100;

/// Characters of a description (spec 06 §7).
pub(crate) const MAX_DESCRIPTION: usize = 2_048;
