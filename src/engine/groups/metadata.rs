//! The stored group: read, replaced, forgotten.

use std::collections::HashSet;

use rand_core::Rng;

use super::{
    MAX_TOLD,
    record::{GenerationRecord, HeadRecord, MembersRecord, generation_key, head_key, members_key},
    rotation,
};
use crate::{
    engine::{
        address,
        records::Record,
        step::{Miss, Step},
    },
    event::MappingSource,
    jid::Jid,
    stanza::group::{GroupInfo, Participant},
};

/// A group as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// What the server told, kept up to date.
    pub(crate) info: GroupInfo,
    /// The same number means the same participants in the same addressing mode.
    pub(crate) revision: u64,
}

/// A group and how certain it is.
pub(super) struct Stored {
    pub(super) group: Group,
    /// It must be asked for again.
    pub(super) stale: bool,
    learned: bool,
}

/// A group, with its participants; `None` when it must be asked for.
///
/// # Errors
/// [`Miss`].
pub(crate) fn get(step: &mut Step<'_>, jid: &Jid) -> Result<Option<Group>, Miss> {
    let Some(stored) = stored(step, jid)?.filter(|stored| !stored.stale) else { return Ok(None) };
    if !stored.learned {
        learn(step, &stored.group.info.participants)?;
        write_head(step, &stored.group, false)?;
    }
    Ok(Some(stored.group))
}

/// A group without its participants, which is cheap for large ones; `None` when it must be asked for.
///
/// # Errors
/// [`Miss`].
#[allow(dead_code, reason = "sends to groups use it")]
pub(crate) fn head(step: &mut Step<'_>, jid: &Jid) -> Result<Option<Group>, Miss> {
    step.require([&generation_key(), &head_key(jid)])?;
    let generation = generation(step)?;
    let head = step.record::<HeadRecord>(&head_key(jid))?;
    let head = head.filter(|head| !head.stale && head.learned && head.generation == generation);
    Ok(head.map(|head| Group { revision: head.revision, info: head.info(jid) }))
}

/// What is stored, whether it is certain or not.
///
/// # Errors
/// [`Miss`].
pub(super) fn stored(step: &mut Step<'_>, jid: &Jid) -> Result<Option<Stored>, Miss> {
    step.require([&generation_key(), &head_key(jid), &members_key(jid)])?;
    let generation = generation(step)?;
    let Some(head) = step.record::<HeadRecord>(&head_key(jid))? else { return Ok(None) };
    let members = step.record::<MembersRecord>(&members_key(jid))?.and_then(MembersRecord::participants);
    let (stale, learned) = (head.stale || members.is_none() || head.generation != generation, head.learned);
    let revision = head.revision;
    let info = GroupInfo { participants: members.unwrap_or_default(), ..head.info(jid) };
    Ok(Some(Stored { group: Group { info, revision }, stale, learned }))
}

fn generation(step: &mut Step<'_>) -> Result<u64, Miss> {
    Ok(step.record::<GenerationRecord>(&generation_key())?.map_or(0, |record| record.generation))
}

/// Stores what the server answered about one group, and notes both identities of everybody in it.
///
/// # Errors
/// [`Miss`].
pub(crate) fn store(step: &mut Step<'_>, info: &GroupInfo) -> Result<Group, Miss> {
    // Both are read before either is missed.
    let (group, learned) = (replace(step, info), learn(step, &info.participants));
    let (group, ()) = (group?, learned?);
    write(step, &group, false)?;
    Ok(group)
}

/// Stores many groups. Their people are noted when a group is first used.
///
/// # Errors
/// [`Miss`].
pub(crate) fn store_list(step: &mut Step<'_>, infos: &[GroupInfo]) -> Result<(), Miss> {
    let mut missed = Ok(());
    for info in infos.iter().filter(|info| !info.participants.is_empty()) {
        match replace(step, info) {
            Ok(group) => put(step, &group, Mark { stale: false, learned: false })?,
            // All are looked at, so that one round loads everything.
            Err(miss) => missed = Err(miss),
        }
    }
    missed
}

/// The group that takes the place of the stored one. Somebody in the stored one who is not in this one has left, so our
/// sender key is replaced.
fn replace(step: &mut Step<'_>, info: &GroupInfo) -> Result<Group, Miss> {
    let before = stored(step, &info.id)?.map(|stored| stored.group);
    let same = |before: &&Group| {
        before.info.addressing_mode == info.addressing_mode
            && same_people(&before.info.participants, &info.participants)
    };
    let kept = before.as_ref().filter(same).map(|before| before.revision);
    let revision = kept.unwrap_or_else(|| step.rng.next_u64());
    if kept.is_none() {
        let now: HashSet<&Jid> = identities(&info.participants).collect();
        let gone =
            |participant: &Participant| !identities(std::slice::from_ref(participant)).any(|jid| now.contains(jid));
        // Without a list from before nobody knows who had the key.
        if before.is_none_or(|before| before.info.participants.iter().any(gone)) {
            rotation::rotate(step, &info.id);
        }
    }
    Ok(Group { info: info.clone(), revision })
}

fn identities(participants: &[Participant]) -> impl Iterator<Item = &Jid> {
    participants.iter().flat_map(|participant| std::iter::once(&participant.person.jid).chain(&participant.person.alt))
}

fn same_people(a: &[Participant], b: &[Participant]) -> bool {
    let people = |list: &[Participant]| list.iter().map(|one| one.person.jid.clone()).collect::<HashSet<_>>();
    a.len() == b.len() && people(a) == people(b)
}

/// How certain a stored group is, and whether its people were noted.
#[derive(Clone, Copy)]
struct Mark {
    stale: bool,
    learned: bool,
}

/// Writes a group whose people were noted.
pub(super) fn write(step: &mut Step<'_>, group: &Group, stale: bool) -> Result<(), Miss> {
    put(step, group, Mark { stale, learned: true })
}

fn put(step: &mut Step<'_>, group: &Group, mark: Mark) -> Result<(), Miss> {
    put_head(step, group, mark)?;
    step.put(members_key(&group.info.id), MembersRecord::of(&group.info.participants).to_bytes());
    Ok(())
}

/// Writes a group whose participants did not change.
pub(super) fn write_head(step: &mut Step<'_>, group: &Group, stale: bool) -> Result<(), Miss> {
    put_head(step, group, Mark { stale, learned: true })
}

fn put_head(step: &mut Step<'_>, group: &Group, mark: Mark) -> Result<(), Miss> {
    let generation = generation(step)?;
    let mut head = HeadRecord::of(&group.info);
    (head.generation, head.stale, head.revision, head.learned) = (generation, mark.stale, group.revision, mark.learned);
    step.put(head_key(&group.info.id), head.to_bytes());
    Ok(())
}

/// A list of participants that is not the one before.
pub(super) fn renew(step: &mut Step<'_>, group: &mut Group) {
    group.revision = step.rng.next_u64();
}

/// The stored group is not certain any more: it is asked for when it is needed.
///
/// # Errors
/// [`Miss`].
pub(crate) fn forget(step: &mut Step<'_>, jid: &Jid) -> Result<(), Miss> {
    if let Some(mut head) = step.record::<HeadRecord>(&head_key(jid))? {
        head.stale = true;
        step.put(head_key(jid), head.to_bytes());
    }
    Ok(())
}

/// We are not in the group any more, or it is none.
pub(super) fn remove(step: &mut Step<'_>, jid: &Jid) {
    step.delete(head_key(jid));
    step.delete(members_key(jid));
}

/// Any group may have changed: none is certain any more.
pub(crate) fn all_changed(step: &mut Step<'_>) {
    let generation = step.rng.next_u64();
    step.put(generation_key(), GenerationRecord { generation }.to_bytes());
}

/// Notes both identities of people, in one round of loads.
///
/// # Errors
/// [`Miss`].
pub(super) fn learn(step: &mut Step<'_>, participants: &[Participant]) -> Result<(), Miss> {
    let (mut missed, mut news) = (Ok(()), Vec::new());
    for person in participants.iter().map(|participant| &participant.person) {
        let Some(alt) = &person.alt else { continue };
        match address::note(step, &person.jid, alt, MappingSource::Group) {
            Ok(noted) => news.extend(noted),
            Err(miss) => missed = Err(miss),
        }
    }
    missed?;
    // What was told otherwise before must be set right.
    news.sort_by_key(|noted| !noted.corrects);
    if news.len() > MAX_TOLD {
        tracing::debug!(news = news.len(), "not all identities of a group are told");
    }
    news.into_iter().take(MAX_TOLD).for_each(|noted| step.emit(noted.event));
    Ok(())
}
