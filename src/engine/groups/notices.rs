//! Groups as the embedding program sees them (spec 07 §5, §7.4).

use crate::{
    engine::address,
    engine::step::{Miss, Step},
    event::{GroupAdmin, GroupObject, GroupParticipant, Known, Prefer},
    jid::Jid,
    stanza::group::{GroupInfo, Participant, Person, Role, Setting},
};

/// A person's identity that is shown first, and its phone number when that is another one.
pub(super) fn shown(person: &Person, prefer: Prefer) -> (Jid, Option<Jid>) {
    let preferred = match prefer {
        Prefer::Addressed => None,
        Prefer::Pn => person.pn(),
        Prefer::Lid => person.lid(),
    };
    (preferred.unwrap_or(&person.jid).clone(), person.pn().cloned())
}

/// The same for somebody who may not be known.
pub(super) fn author(person: Option<&Person>, prefer: Prefer) -> (Option<Jid>, Option<Jid>) {
    person.map(|person| shown(person, prefer)).map_or((None, None), |(jid, pn)| (Some(jid), pn))
}

/// Somebody in a group.
pub(super) fn participant(participant: &Participant, prefer: Prefer) -> GroupParticipant {
    let person = &participant.person;
    let (id, pn) = shown(person, prefer);
    let mut shown = GroupParticipant::new(id, pn, person.lid().cloned());
    shown.username.clone_from(&person.username);
    shown.label.clone_from(&participant.label);
    shown.admin = match participant.role {
        Role::Member => None,
        Role::Admin => Some(GroupAdmin::Admin),
        Role::SuperAdmin => Some(GroupAdmin::SuperAdmin),
    };
    shown
}

/// Everything that is known of a group.
pub(super) fn object(info: &GroupInfo, prefer: Prefer) -> GroupObject {
    let mut object = GroupObject::new(info.id.clone());
    object.subject = Some(info.subject.text.clone());
    (object.subject_owner, object.subject_owner_pn) = author(info.subject.owner.as_ref(), prefer);
    object.subject_time = info.subject.time;
    (object.owner, object.owner_pn) = author(info.owner.as_ref(), prefer);
    object.creation = info.creation;
    if let Some(description) = &info.description {
        object.desc = Some(description.text.clone());
        object.desc_id = Some(description.id.clone());
        object.desc_owner = author(description.owner.as_ref(), prefer).0;
        object.desc_time = description.time;
    }
    object.size = info.size.or_else(|| u32::try_from(info.participants.len()).ok());
    object.addressing_mode = Some(info.addressing_mode);
    let settings = info.settings;
    for setting in [
        Setting::Locked(settings.locked),
        Setting::Announcement(settings.announcement),
        Setting::Ephemeral(settings.ephemeral),
        Setting::JoinApproval(settings.join_approval),
        Setting::AllMayAdd(settings.all_may_add),
    ] {
        set(&mut object, setting);
    }
    object.is_community = Some(info.is_community);
    object.is_community_announce = Some(info.is_announcement_group);
    object.linked_parent = Known::from_option(info.linked_parent.clone());
    object.invite_code = Known::Nothing;
    object.suspended = info.suspended.then_some(true);
    object.participants = Some(info.participants.iter().map(|one| participant(one, prefer)).collect());
    object
}

/// Shows where a switch stands.
pub(super) const fn set(object: &mut GroupObject, setting: Setting) {
    match setting {
        Setting::Locked(on) => object.restrict = Some(on),
        Setting::Announcement(on) => object.announce = Some(on),
        Setting::Ephemeral(seconds) => object.ephemeral_duration = Some(seconds),
        Setting::JoinApproval(on) => object.join_approval_mode = Some(on),
        Setting::AllMayAdd(on) => object.member_add_mode = Some(on),
    }
}

/// Fills in the other identity of people, where it is known and the server did not tell it.
///
/// # Errors
/// [`Miss`].
pub(super) fn complete<'p>(step: &mut Step<'_>, people: impl IntoIterator<Item = &'p mut Person>) -> Result<(), Miss> {
    let mut missed = Ok(());
    for person in people.into_iter().filter(|person| person.alt.is_none()) {
        match address::user(step, &person.jid) {
            Ok(user) => person.alt = user.other(&person.jid).cloned(),
            Err(miss) => missed = Err(miss),
        }
    }
    missed
}
