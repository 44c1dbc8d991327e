//! The `<group>` element: what the server tells of a group (spec 06 §7). It comes in answers to queries and in notifications.
//!
//! A list of participants is taken whole or not at all: a message to a group of which a part is not known would miss the
//! others. Texts are cut at [`MAX_TEXT`] characters.

use std::{collections::HashSet, fmt};

use crate::{
    event::AddressingMode,
    jid::{Jid, Server},
    node::NodeRef,
    stanza::{StanzaError, required_text},
};

/// Most participants of one group: real ones have at most some thousand.
pub const MAX_PARTICIPANTS: usize = 8_192;
/// Most characters of a subject, a description, a label or a name.
pub const MAX_TEXT: usize = 4_096;

/// What the server tells of a group. `Debug` shows no names and texts.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// The group.
    pub id: Jid,
    /// Its name.
    pub subject: Subject,
    /// Who made it.
    pub owner: Option<Person>,
    /// When, unix seconds.
    pub creation: Option<u64>,
    /// How many participants it has, by the server's count.
    pub size: Option<u32>,
    /// How it addresses its participants.
    pub addressing_mode: AddressingMode,
    /// Its description.
    pub description: Option<Description>,
    /// Everybody in it, each once; empty when the server does not tell.
    pub participants: Vec<Participant>,
    /// Its switches.
    pub settings: Settings,
    /// It is a community: the parent of other groups.
    pub is_community: bool,
    /// It is the announcement group of its community.
    pub is_announcement_group: bool,
    /// The community that it belongs to.
    pub linked_parent: Option<Jid>,
    /// The server suspended it.
    pub suspended: bool,
    /// Version of the list of participants.
    pub participant_version: Option<String>,
    /// Version of everything else.
    pub attribute_version: Option<String>,
}

/// A user under one or both identities, without device.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    /// As addressed.
    pub jid: Jid,
    /// The other identity, if known.
    pub alt: Option<Jid>,
    /// The user name, if the server gives it.
    pub username: Option<String>,
}

impl Person {
    /// The phone number.
    pub fn pn(&self) -> Option<&Jid> {
        [Some(&self.jid), self.alt.as_ref()].into_iter().flatten().find(|jid| jid.is_pn_family())
    }

    /// The hidden id.
    pub fn lid(&self) -> Option<&Jid> {
        [Some(&self.jid), self.alt.as_ref()].into_iter().flatten().find(|jid| jid.is_lid_family())
    }

    /// Whether a JID is one of this user's.
    pub fn is(&self, jid: &Jid) -> bool {
        self.jid.same_account(jid) || self.alt.as_ref().is_some_and(|alt| alt.same_account(jid))
    }

    /// From a JID and an attribute that may hold the other identity.
    fn new(jid: &Jid, alt: Option<Jid>, username: Option<String>) -> Self {
        let jid = jid.to_account();
        let other = |alt: &Jid| match jid.is_lid_family() {
            true => alt.is_pn_family(),
            false => jid.is_pn_family() && alt.is_lid_family(),
        };
        let alt = alt.map(|alt| alt.to_account()).filter(other);
        Self { jid, alt, username }
    }

    /// Reads an element with the attribute `name` and, when that is a LID, `phone_number`, else `lid`.
    pub(crate) fn with_number(node: NodeRef<'_>, name: &str) -> Option<Self> {
        let jid = user(&node.attr_jid(name)?)?;
        let alt = node.attr_jid(if jid.is_lid_family() { "phone_number" } else { "lid" });
        Some(Self::new(&jid, alt, text(node, "username")))
    }

    /// Reads the attributes `name`, `name_pn` or `name_lid`, and `name_username`.
    pub(crate) fn of(node: NodeRef<'_>, name: &str) -> Option<Self> {
        let jid = user(&node.attr_jid(name)?)?;
        let attr = |suffix| format!("{name}_{suffix}");
        let alt = node.attr_jid(&attr(if jid.is_lid_family() { "pn" } else { "lid" }));
        Some(Self::new(&jid, alt, text(node, &attr("username"))))
    }
}

/// What a participant may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// An ordinary one.
    #[default]
    Member,
    /// An admin.
    Admin,
    /// The admin who made the group.
    SuperAdmin,
}

/// Somebody in a group.
#[derive(Clone, PartialEq, Eq)]
pub struct Participant {
    /// Who.
    pub person: Person,
    /// What it may do.
    pub role: Role,
    /// What the group calls it.
    pub label: Option<String>,
}

/// The name of a group.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The text.
    pub text: String,
    /// Who set it.
    pub owner: Option<Person>,
    /// When, unix seconds.
    pub time: Option<u64>,
}

/// The description of a group.
#[derive(Clone, PartialEq, Eq)]
pub struct Description {
    /// Names this version of it.
    pub id: String,
    /// The text.
    pub text: String,
    /// Who set it.
    pub owner: Option<Person>,
    /// When, unix seconds.
    pub time: Option<u64>,
}

/// The switches of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Only admins change subject, description and the like.
    pub locked: bool,
    /// Only admins send.
    pub announcement: bool,
    /// After how many seconds messages disappear; 0 for never.
    pub ephemeral: u32,
    /// Admins approve who joins by link.
    pub join_approval: bool,
    /// Every participant may add others.
    pub all_may_add: bool,
}

/// One switch of a group and where it is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// Only admins change subject, description and the like.
    Locked(bool),
    /// Only admins send.
    Announcement(bool),
    /// After how many seconds messages disappear; 0 for never.
    Ephemeral(u32),
    /// Admins approve who joins by link.
    JoinApproval(bool),
    /// Every participant may add others.
    AllMayAdd(bool),
}

impl Setting {
    /// Reads the element that sets a switch, in a `<group>` or a notification; `None` for any other.
    pub(crate) fn parse(node: NodeRef<'_>) -> Option<Self> {
        Some(match node.tag() {
            "locked" => Self::Locked(true),
            "unlocked" => Self::Locked(false),
            "announcement" => Self::Announcement(true),
            "not_announcement" => Self::Announcement(false),
            "ephemeral" => Self::Ephemeral(number(node, "expiration").unwrap_or(0)),
            "not_ephemeral" => Self::Ephemeral(0),
            "membership_approval_mode" => {
                let state = node.first_child().and_then(|join| join.attr_str("state"));
                Self::JoinApproval(state.as_deref() == Some("on"))
            }
            "member_add_mode" => Self::AllMayAdd(node.text().as_deref() == Some("all_member_add")),
            _ => return None,
        })
    }
}

impl Settings {
    /// Moves one switch.
    pub const fn apply(&mut self, setting: Setting) {
        match setting {
            Setting::Locked(on) => self.locked = on,
            Setting::Announcement(on) => self.announcement = on,
            Setting::Ephemeral(seconds) => self.ephemeral = seconds,
            Setting::JoinApproval(on) => self.join_approval = on,
            Setting::AllMayAdd(on) => self.all_may_add = on,
        }
    }
}

impl GroupInfo {
    /// Reads a `<group>`.
    ///
    /// # Errors
    /// [`StanzaError::Attribute`] without a usable id or with a participant without JID, and [`StanzaError::TooMany`].
    pub fn parse(node: NodeRef<'_>) -> Result<Self, StanzaError> {
        let flag = |tag| node.child(tag).is_some();
        let mut settings = Settings::default();
        node.children().filter_map(Setting::parse).for_each(|setting| settings.apply(setting));
        let lid = node.attr_str("addressing_mode").as_deref() == Some("lid");
        Ok(Self {
            id: id(node)?,
            subject: Subject {
                text: text(node, "subject").unwrap_or_default(),
                owner: Person::of(node, "s_o"),
                time: node.attr_u64("s_t"),
            },
            owner: Person::of(node, "creator"),
            creation: node.attr_u64("creation"),
            size: number(node, "size"),
            addressing_mode: if lid { AddressingMode::Lid } else { AddressingMode::Pn },
            description: node.child("description").and_then(Description::parse),
            participants: participants(node)?,
            settings,
            is_community: flag("parent"),
            is_announcement_group: flag("default_sub_group"),
            linked_parent: node.child("linked_parent").and_then(|parent| parent.attr_jid("jid")).filter(Jid::is_group),
            suspended: flag("suspended"),
            participant_version: text(node, "p_v_id"),
            attribute_version: text(node, "a_v_id"),
        })
    }
}

impl Description {
    /// Reads a `<description>`; `None` when it is deleted or has no text.
    pub(crate) fn parse(node: NodeRef<'_>) -> Option<Self> {
        Some(Self {
            id: text(node, "id").unwrap_or_default(),
            text: cut(&node.child("body")?.text()?),
            owner: Person::of(node, "participant"),
            time: node.attr_u64("t"),
        })
    }
}

/// The participants inside an element, each once.
///
/// # Errors
/// [`StanzaError::Attribute`] when one has no JID of a user, and [`StanzaError::TooMany`].
pub(crate) fn participants(node: NodeRef<'_>) -> Result<Vec<Participant>, StanzaError> {
    let mut list = Vec::new();
    let mut seen = HashSet::new();
    for child in node.children_named("participant") {
        let participant = participant(child)?;
        if list.len() >= MAX_PARTICIPANTS {
            return Err(StanzaError::TooMany { tag: "participant", max: MAX_PARTICIPANTS });
        }
        if seen.insert(participant.person.jid.clone()) {
            list.push(participant);
        }
    }
    Ok(list)
}

fn participant(node: NodeRef<'_>) -> Result<Participant, StanzaError> {
    let person = Person::with_number(node, "jid");
    let person = person.ok_or(StanzaError::Attribute { tag: "participant", name: "jid" })?;
    let role = match node.attr_str("type").as_deref() {
        Some("superadmin") => Role::SuperAdmin,
        Some("admin") => Role::Admin,
        _ => Role::Member,
    };
    Ok(Participant { person, role, label: text(node, "participant_label") })
}

/// The JID of a group: with its server, or the user part alone.
///
/// # Errors
/// [`StanzaError::Attribute`].
fn id(node: NodeRef<'_>) -> Result<Jid, StanzaError> {
    const BAD: StanzaError = StanzaError::Attribute { tag: "group", name: "id" };
    let text = required_text(node, "group", "id")?;
    let jid = if text.contains('@') { text.parse().map_err(|_| BAD)? } else { Jid::new(&text, Server::Group) };
    // What is no JID as text would not be found again under its name.
    let stands = jid.is_group() && jid.device() == 0 && jid.to_string().parse::<Jid>().is_ok_and(|read| read == jid);
    stands.then_some(jid).ok_or(BAD)
}

/// A user, without device; `None` for anything else.
fn user(jid: &Jid) -> Option<Jid> {
    let is_user = !jid.user().is_empty() && (jid.is_pn_family() || jid.is_lid_family() || jid.is_bot());
    is_user.then(|| jid.to_account())
}

/// An attribute as text that is not empty.
pub(crate) fn text(node: NodeRef<'_>, name: &str) -> Option<String> {
    node.attr_str(name).filter(|text| !text.is_empty()).map(|text| cut(&text))
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

pub(crate) fn number(node: NodeRef<'_>, name: &str) -> Option<u32> {
    node.attr_u64(name).and_then(|number| number.try_into().ok())
}

/// `Debug` that shows of whom or what it is, and no name or text.
macro_rules! debug_jid {
    ($($name:ident: $($field:ident).+;)*) => {
        $(
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_tuple(stringify!($name)).field(&self.$($field).+).finish()
                }
            }
        )*
    };
}

debug_jid! {
    GroupInfo: id;
    Person: jid;
    Participant: person.jid;
    Subject: time;
    Description: time;
}
