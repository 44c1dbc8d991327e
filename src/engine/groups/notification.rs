//! What a `w:gp2` notification does: events, the stored group, our sender key, and the ack, in one batch (spec 06 §7.1).

use super::{metadata, notices};
use crate::{
    engine::{
        account::Linked,
        send::marks,
        step::{Miss, Step},
    },
    event::{
        CommunityAction, CommunityUpdate, Event, GroupAction, GroupJoinRequest, GroupObject, GroupParticipantsUpdate,
        GroupsUpdate, GroupsUpsert, JoinRequestAction, Known, Prefer,
    },
    jid::Jid,
    message::distribution::{Occurrence, must_rotate},
    stanza::{
        ack::AckTarget,
        group::{GroupInfo, MAX_PARTICIPANTS, Participant, Person, Role},
        group_notice::{Action, Change, GroupNotice, Relation},
        iq::groups::MemberAction,
    },
};

/// A change of more participants is not applied to what is stored: all of them are asked for again.
const MAX_APPLIED: usize = 256;

/// Handles a notification.
///
/// # Errors
/// [`Miss`].
pub(crate) fn notification(
    step: &mut Step<'_>,
    notice: &GroupNotice,
    ack: &AckTarget,
    offline: bool,
) -> Result<(), Miss> {
    let mut notice = notice.clone();
    // Everything is read before anything is missed.
    let stored = metadata::stored(step, &notice.group);
    let learned = metadata::learn(step, &people(&notice));
    let completed = notices::complete(step, people_mut(&mut notice));
    let (stored, ()) = (stored?, learned?);
    completed?;

    let mut change = Changing {
        notice: &notice,
        own: step.account().linked.clone(),
        prefer: step.config.prefer,
        certain: stored.as_ref().is_none_or(|stored| !stored.stale),
        group: stored.map(|stored| stored.info),
        rotate: false,
        events: Vec::new(),
    };
    let (before, was_certain) = (change.group.clone(), change.certain);
    if let (Some(mode), Some(group)) = (notice.addressing_mode, &change.group) {
        change.certain &= group.addressing_mode == mode;
    }
    for one in &notice.changes {
        if let Action::Created { group, .. } = &one.action
            && group.id == notice.group
            && !group.participants.is_empty()
        {
            metadata::store(step, group)?;
            change.group = Some(GroupInfo::clone(group));
            change.certain = true;
        }
        change.apply(one);
    }
    let Changing { group, certain, rotate, events, .. } = change;
    if rotate {
        marks::rotate(step, &notice.group);
    }
    match group {
        Some(group) if before.as_ref() != Some(&group) || certain != was_certain => {
            metadata::write(step, &group, !certain)?;
        }
        None if before.is_some() => metadata::remove(step, &notice.group),
        _ => {}
    }
    events.into_iter().for_each(|event| step.emit_from(offline, event));
    step.send(&ack.ack());
    Ok(())
}

/// Everybody whose identities a notification tells.
fn people(notice: &GroupNotice) -> Vec<Participant> {
    let as_participant = |person: &Person| Participant { person: person.clone(), role: Role::Member, label: None };
    let mut list: Vec<_> = notice.author.iter().map(as_participant).collect();
    for change in &notice.changes {
        match &change.action {
            Action::Members { participants, .. } | Action::Modified { participants } => {
                list.extend(participants.iter().cloned());
            }
            Action::Created { group, .. } => list.extend(group.participants.iter().cloned()),
            Action::JoinRequests { people, .. } => list.extend(people.iter().map(as_participant)),
            _ => {}
        }
    }
    list
}

fn people_mut(notice: &mut GroupNotice) -> impl Iterator<Item = &mut Person> {
    let of_changes = notice.changes.iter_mut().flat_map(|change| -> Vec<&mut Person> {
        match &mut change.action {
            Action::Members { participants, .. } | Action::Modified { participants } => {
                participants.iter_mut().map(|participant| &mut participant.person).collect()
            }
            Action::JoinRequests { people, .. } => people.iter_mut().collect(),
            Action::Subject(subject) => subject.owner.iter_mut().collect(),
            _ => Vec::new(),
        }
    });
    notice.author.iter_mut().chain(of_changes)
}

/// A notification that is being applied.
struct Changing<'n> {
    notice: &'n GroupNotice,
    own: Option<Linked>,
    prefer: Prefer,
    /// As stored; `None` when it is not, or not any more.
    group: Option<GroupInfo>,
    /// What is stored is what the server has.
    certain: bool,
    /// Our sender key is given up.
    rotate: bool,
    events: Vec<Event>,
}

impl Changing<'_> {
    fn apply(&mut self, change: &Change) {
        self.follow(change);
        match &change.action {
            Action::Created { group, reason } => {
                let object = notices::object(group, self.prefer);
                self.events.push(GroupsUpsert::new(vec![object]).into());
                let own: Vec<_> = group.participants.iter().filter(|one| self.is_own(&one.person)).cloned().collect();
                let by_us = self.notice.author.as_ref().is_some_and(|author| self.is_own(author));
                if !by_us {
                    self.tell_members(GroupAction::Add, &own, reason.clone(), None);
                }
            }
            Action::Members { action, participants, reason } => self.members(*action, participants, reason.as_ref()),
            Action::Modified { participants } => self.modified(participants),
            Action::Deleted { reason } => {
                self.tell(|object, _| {
                    object.deleted = Some(true);
                    object.reason.clone_from(reason);
                });
                self.gone();
            }
            Action::JoinRequests { people, revoked, method } => self.join_requests(people, *revoked, method.as_ref()),
            Action::Linked { groups, relation, unlinked } => self.linked(groups, *relation, *unlinked),
            Action::Remark => {}
            Action::Unknown => self.certain = false,
            _ => self.attribute(&change.action),
        }
    }

    /// Something other than participants changed.
    fn attribute(&mut self, action: &Action) {
        self.tell(|object, prefer| match action {
            Action::Subject(subject) => {
                object.subject = Some(subject.text.clone());
                (object.subject_owner, object.subject_owner_pn) = notices::author(subject.owner.as_ref(), prefer);
                object.subject_time = subject.time;
            }
            Action::Described { id, description } => {
                let text = description.as_ref().map(|description| description.text.clone());
                object.desc = Some(text.unwrap_or_default());
                object.desc_id.clone_from(id);
            }
            Action::Setting(setting) => notices::set(object, *setting),
            Action::InviteLink(code) => object.invite_code = Known::Value(code.clone()),
            Action::Suspended(on) => object.suspended = Some(*on),
            Action::GrowthLocked(on) => object.growth_locked = Some(*on),
            _ => {}
        });
        let Some(info) = &mut self.group else { return };
        match action {
            Action::Subject(subject) => info.subject = subject.clone(),
            Action::Described { description, .. } => info.description.clone_from(description),
            Action::Setting(setting) => info.settings.apply(*setting),
            Action::Suspended(on) => info.suspended = *on,
            _ => {}
        }
    }

    /// Whether a change follows upon what is stored. Which of the two versions it means shows by which fits.
    fn follow(&mut self, change: &Change) {
        let Some(info) = &mut self.group else { return };
        let Some(previous) = &change.previous else { return };
        let mut versions = [&mut info.participant_version, &mut info.attribute_version];
        if !matches!(change.action, Action::Members { .. } | Action::Modified { .. }) {
            versions.reverse();
        }
        let unknown = versions.iter().all(|version| version.is_none());
        match versions.into_iter().find(|version| version.as_ref() == Some(previous)) {
            Some(version) => version.clone_from(&change.version),
            None => self.certain &= unknown,
        }
    }

    fn members(&mut self, action: MemberAction, participants: &[Participant], reason: Option<&String>) {
        let told = match action {
            MemberAction::Add => GroupAction::Add,
            MemberAction::Remove => GroupAction::Remove,
            MemberAction::Promote => GroupAction::Promote,
            MemberAction::Demote => GroupAction::Demote,
        };
        let shown = participants.iter().cloned().map(|mut participant| {
            participant.role = match action {
                MemberAction::Promote if participant.role == Role::Member => Role::Admin,
                MemberAction::Demote => Role::Member,
                _ => participant.role,
            };
            participant
        });
        self.tell_members(told, &shown.collect::<Vec<_>>(), reason.cloned(), None);
        if action == MemberAction::Remove && participants.iter().any(|one| self.is_own(&one.person)) {
            return self.gone();
        }
        // Everybody may have had the key.
        self.rotate |=
            action == MemberAction::Remove && must_rotate(&self.notice.group, Occurrence::Left { had_key: true });
        if participants.len() > MAX_APPLIED {
            self.certain = false;
            return;
        }
        let Some(info) = &mut self.group else { return };
        let list = &mut info.participants;
        for participant in participants {
            let at = list.iter().position(|one| is_same(&one.person, &participant.person));
            match (action, at.and_then(|at| list.get_mut(at).map(|one| (at, one)))) {
                (MemberAction::Add, None) => list.push(participant.clone()),
                (MemberAction::Add, Some((_, one))) => *one = participant.clone(),
                (MemberAction::Remove, Some((at, _))) => drop(list.remove(at)),
                (MemberAction::Promote, Some((_, one))) => one.role = one.role.max(Role::Admin),
                (MemberAction::Demote, Some((_, one))) => one.role = Role::Member,
                (_, None) => self.certain = false,
            }
        }
        // A list that is too long is refused when it is asked for.
        self.certain &= list.len() <= MAX_PARTICIPANTS;
        list.truncate(MAX_PARTICIPANTS);
        info.size = u32::try_from(list.len()).ok();
    }

    /// Somebody is called otherwise from now on: whose sessions are meant is asked anew.
    fn modified(&mut self, participants: &[Participant]) {
        let old = self.notice.author.as_ref();
        let old = old.filter(|author| !participants.iter().any(|one| is_same(&one.person, author)));
        let old = old.map(|author| notices::shown(author, self.prefer).0);
        self.tell_members(GroupAction::Modify, participants, None, old);
        self.rotate |= must_rotate(&self.notice.group, Occurrence::Modified);
        self.certain = false;
    }

    fn join_requests(&mut self, people: &[Person], revoked: bool, method: Option<&String>) {
        let author = self.notice.author.as_ref();
        let by_author = |person: &Person| author.is_some_and(|author| is_same(author, person));
        for person in if people.is_empty() { author.into_iter().collect() } else { people.iter().collect::<Vec<_>>() } {
            let (jid, pn) = notices::shown(person, self.prefer);
            let action = match revoked {
                false => JoinRequestAction::Created,
                true if by_author(person) => JoinRequestAction::Revoked,
                true => JoinRequestAction::Rejected,
            };
            let event = GroupJoinRequest::new(self.notice.group.clone(), jid, pn, action, method.cloned());
            self.events.push(event.into());
        }
    }

    fn linked(&mut self, groups: &[Jid], relation: Relation, unlinked: bool) {
        let this = &self.notice.group;
        let action = if unlinked { CommunityAction::Unlink } else { CommunityAction::Link };
        for other in groups {
            let (parent, group) = match relation {
                Relation::Parent => (other, this),
                Relation::Part => (this, other),
                Relation::Sibling => continue,
            };
            self.events.push(CommunityUpdate::new(parent.clone(), group.clone(), action).into());
        }
        match (relation, &mut self.group) {
            (Relation::Parent, Some(group)) => group.linked_parent = groups.first().filter(|_| !unlinked).cloned(),
            (Relation::Part, Some(group)) => group.is_community |= !unlinked,
            _ => {}
        }
    }

    /// We are not in it any more.
    fn gone(&mut self) {
        self.rotate = true;
        self.group = None;
    }

    fn is_own(&self, person: &Person) -> bool {
        let own = self.own.as_ref().map(Linked::own);
        own.is_some_and(|own| own.is_account(&person.jid) || person.alt.as_ref().is_some_and(|alt| own.is_account(alt)))
    }

    /// Tells that something about the group changed.
    fn tell(&mut self, change: impl FnOnce(&mut GroupObject, Prefer)) {
        let mut object = GroupObject::new(self.notice.group.clone());
        change(&mut object, self.prefer);
        (object.author, object.author_pn) = notices::author(self.notice.author.as_ref(), self.prefer);
        self.events.push(GroupsUpdate::new(vec![object]).into());
    }

    fn tell_members(
        &mut self,
        action: GroupAction,
        participants: &[Participant],
        reason: Option<String>,
        old: Option<Jid>,
    ) {
        let (author, author_pn) = notices::author(self.notice.author.as_ref(), self.prefer);
        let event = GroupParticipantsUpdate {
            author_username: self.notice.author.as_ref().and_then(|author| author.username.clone()),
            author,
            author_pn,
            own: participants.iter().any(|one| self.is_own(&one.person)),
            ..GroupParticipantsUpdate::new(
                self.notice.group.clone(),
                None,
                None,
                None,
                action,
                reason,
                old,
                participants.iter().map(|one| notices::participant(one, self.prefer)).collect(),
                false,
                self.notice.timestamp,
            )
        };
        self.events.push(event.into());
    }
}

/// Whether two are the same person, as far as is known.
fn is_same(a: &Person, b: &Person) -> bool {
    a.is(&b.jid) || b.alt.as_ref().is_some_and(|alt| a.is(alt))
}
