//! What is stored of groups.
//!
//! | id | what |
//! |---|---|
//! | empty | [`GenerationRecord`]: tells the groups that were stored before the server said that any may have changed |
//! | group JID | [`GroupRecord`] |

use prost::Message;

use crate::{
    engine::records::{Record, record},
    event::AddressingMode,
    jid::Jid,
    stanza::group::{Description, GroupInfo, Participant, Person, Role, Settings, Subject},
    store::{Key, RecordKind},
};

pub(super) fn generation_key() -> Key {
    Key::new(RecordKind::Group, b"")
}

pub(super) fn group_key(group: &Jid) -> Key {
    Key::texts(RecordKind::Group, &[group])
}

/// Another number whenever all groups may have changed.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct GenerationRecord {
    #[prost(uint64, tag = "1")]
    pub(super) generation: u64,
}
record!(GenerationRecord);

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct GroupRecord {
    /// [`GenerationRecord`] when it was stored; with another one it must be asked for again.
    #[prost(uint64, tag = "1")]
    pub(super) generation: u64,
    /// Something about it is not known: it must be asked for again.
    #[prost(bool, tag = "2")]
    pub(super) stale: bool,
    /// Both identities of all participants were noted.
    #[prost(bool, tag = "4")]
    pub(super) learned: bool,
    #[prost(string, tag = "5")]
    subject: String,
    #[prost(message, optional, tag = "6")]
    subject_owner: Option<PersonRecord>,
    #[prost(uint64, optional, tag = "7")]
    subject_time: Option<u64>,
    #[prost(message, optional, tag = "8")]
    owner: Option<PersonRecord>,
    #[prost(uint64, optional, tag = "9")]
    creation: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    size: Option<u32>,
    /// By LID, not by phone number.
    #[prost(bool, tag = "11")]
    lid: bool,
    #[prost(message, optional, tag = "12")]
    description: Option<DescriptionRecord>,
    #[prost(bool, tag = "13")]
    locked: bool,
    #[prost(bool, tag = "14")]
    announcement: bool,
    #[prost(uint32, tag = "15")]
    ephemeral: u32,
    #[prost(bool, tag = "16")]
    join_approval: bool,
    #[prost(bool, tag = "17")]
    all_may_add: bool,
    #[prost(bool, tag = "18")]
    is_community: bool,
    #[prost(bool, tag = "19")]
    is_announcement_group: bool,
    #[prost(string, optional, tag = "20")]
    linked_parent: Option<String>,
    #[prost(bool, tag = "21")]
    suspended: bool,
    #[prost(string, optional, tag = "22")]
    participant_version: Option<String>,
    #[prost(string, optional, tag = "23")]
    attribute_version: Option<String>,
    #[prost(message, repeated, tag = "3")]
    members: Vec<MemberRecord>,
}
record!(GroupRecord);

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct PersonRecord {
    #[prost(string, tag = "1")]
    jid: String,
    #[prost(string, optional, tag = "2")]
    alt: Option<String>,
    #[prost(string, optional, tag = "3")]
    username: Option<String>,
}
record!(PersonRecord);

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct DescriptionRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(message, optional, tag = "3")]
    owner: Option<PersonRecord>,
    #[prost(uint64, optional, tag = "4")]
    time: Option<u64>,
}
record!(DescriptionRecord);

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct MemberRecord {
    #[prost(message, optional, tag = "1")]
    person: Option<PersonRecord>,
    /// 0 member, 1 admin, 2 the admin who made the group.
    #[prost(uint32, tag = "2")]
    role: u32,
    #[prost(string, optional, tag = "3")]
    label: Option<String>,
}
record!(MemberRecord);

impl GroupRecord {
    /// The stored form of a group.
    pub(super) fn of(info: &GroupInfo) -> Self {
        Self {
            generation: 0,
            stale: false,
            learned: false,
            subject: info.subject.text.clone(),
            subject_owner: info.subject.owner.as_ref().map(PersonRecord::of),
            subject_time: info.subject.time,
            owner: info.owner.as_ref().map(PersonRecord::of),
            creation: info.creation,
            size: info.size,
            lid: info.addressing_mode == AddressingMode::Lid,
            description: info.description.as_ref().map(DescriptionRecord::of),
            locked: info.settings.locked,
            announcement: info.settings.announcement,
            ephemeral: info.settings.ephemeral,
            join_approval: info.settings.join_approval,
            all_may_add: info.settings.all_may_add,
            is_community: info.is_community,
            is_announcement_group: info.is_announcement_group,
            linked_parent: info.linked_parent.as_ref().map(Jid::to_string),
            suspended: info.suspended,
            participant_version: info.participant_version.clone(),
            attribute_version: info.attribute_version.clone(),
            members: info.participants.iter().map(MemberRecord::of).collect(),
        }
    }

    /// The group; `None` when a participant cannot be read.
    pub(super) fn info(self, id: &Jid) -> Option<GroupInfo> {
        Some(GroupInfo {
            id: id.clone(),
            subject: Subject {
                text: self.subject,
                owner: self.subject_owner.and_then(PersonRecord::person),
                time: self.subject_time,
            },
            owner: self.owner.and_then(PersonRecord::person),
            creation: self.creation,
            size: self.size,
            addressing_mode: if self.lid { AddressingMode::Lid } else { AddressingMode::Pn },
            description: self.description.map(DescriptionRecord::description),
            participants: self.members.into_iter().map(MemberRecord::participant).collect::<Option<_>>()?,
            settings: Settings {
                locked: self.locked,
                announcement: self.announcement,
                ephemeral: self.ephemeral,
                join_approval: self.join_approval,
                all_may_add: self.all_may_add,
            },
            is_community: self.is_community,
            is_announcement_group: self.is_announcement_group,
            linked_parent: self.linked_parent.and_then(|parent| parent.parse().ok()),
            suspended: self.suspended,
            participant_version: self.participant_version,
            attribute_version: self.attribute_version,
        })
    }
}

impl MemberRecord {
    fn of(participant: &Participant) -> Self {
        let role = match participant.role {
            Role::Member => 0,
            Role::Admin => 1,
            Role::SuperAdmin => 2,
        };
        Self { person: Some(PersonRecord::of(&participant.person)), role, label: participant.label.clone() }
    }

    fn participant(self) -> Option<Participant> {
        let role = match self.role {
            1 => Role::Admin,
            2 => Role::SuperAdmin,
            _ => Role::Member,
        };
        Some(Participant { person: self.person?.person()?, role, label: self.label })
    }
}

impl PersonRecord {
    fn of(person: &Person) -> Self {
        let alt = person.alt.as_ref().map(Jid::to_string);
        Self { jid: person.jid.to_string(), alt, username: person.username.clone() }
    }

    fn person(self) -> Option<Person> {
        let alt = self.alt.and_then(|alt| alt.parse().ok());
        Some(Person { jid: self.jid.parse().ok()?, alt, username: self.username })
    }
}

impl DescriptionRecord {
    fn of(description: &Description) -> Self {
        let Description { id, text, owner, time } = description.clone();
        Self { id, text, owner: owner.as_ref().map(PersonRecord::of), time }
    }

    fn description(self) -> Description {
        let Self { id, text, owner, time } = self;
        Description { id, text, owner: owner.and_then(PersonRecord::person), time }
    }
}
