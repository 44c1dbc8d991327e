//! The stored group: read, replaced, forgotten.

use std::collections::HashSet;

use rand_core::Rng;

use super::{
    MAX_TOLD,
    record::{GenerationRecord, GroupRecord, generation_key, group_key},
};
use crate::{
    engine::{
        address,
        send::marks,
        step::{Miss, Step},
    },
    event::MappingSource,
    jid::Jid,
    stanza::group::{GroupInfo, Participant},
};

/// A group as it is stored.
pub(super) struct Stored {
    /// As the server told it, kept up to date.
    pub(super) info: GroupInfo,
    /// It must be asked for again.
    pub(super) stale: bool,
    learned: bool,
}

/// A group; `None` when it must be asked for.
///
/// # Errors
/// [`Miss`].
pub(crate) fn get(step: &mut Step<'_>, jid: &Jid) -> Result<Option<GroupInfo>, Miss> {
    let Some(stored) = stored(step, jid)?.filter(|stored| !stored.stale) else { return Ok(None) };
    if !stored.learned {
        learn(step, &stored.info.participants)?;
        write(step, &stored.info, false)?;
    }
    Ok(Some(stored.info))
}

/// What is stored, whether it is certain or not.
///
/// # Errors
/// [`Miss`].
pub(super) fn stored(step: &mut Step<'_>, jid: &Jid) -> Result<Option<Stored>, Miss> {
    step.require([&generation_key(), &group_key(jid)])?;
    let generation = generation(step)?;
    let Some(record) = step.record::<GroupRecord>(&group_key(jid))? else { return Ok(None) };
    let (stale, learned) = (record.stale || record.generation != generation, record.learned);
    Ok(record.info(jid).map(|info| Stored { info, stale, learned }))
}

fn generation(step: &mut Step<'_>) -> Result<u64, Miss> {
    Ok(step.record::<GenerationRecord>(&generation_key())?.map_or(0, |record| record.generation))
}

/// Stores what the server answered about one group, and notes both identities of everybody in it.
///
/// # Errors
/// [`Miss`].
pub(super) fn store(step: &mut Step<'_>, info: &GroupInfo) -> Result<(), Miss> {
    // All is read before anything is missed.
    let (compared, learned) = (compare(step, info), learn(step, &info.participants));
    compared.and(learned)?;
    write(step, info, false)
}

/// Stores many groups. Their people are noted when a group is first used.
///
/// # Errors
/// [`Miss`].
pub(super) fn store_list(step: &mut Step<'_>, infos: &[GroupInfo]) -> Result<(), Miss> {
    let mut missed = Ok(());
    for info in infos.iter().filter(|info| !info.participants.is_empty()) {
        match compare(step, info) {
            Ok(()) => put(step, info, Mark { stale: false, learned: false })?,
            // All are looked at, so that one round loads everything.
            Err(miss) => missed = Err(miss),
        }
    }
    missed
}

/// Somebody in the stored group who is not in this one has left, so our sender key is given up.
fn compare(step: &mut Step<'_>, info: &GroupInfo) -> Result<(), Miss> {
    let before = stored(step, &info.id)?;
    let now: HashSet<&Jid> = info.participants.iter().flat_map(identities).collect();
    let left = |participant: &Participant| !identities(participant).any(|jid| now.contains(jid));
    // Without a list from before nobody knows who had the key.
    if before.is_none_or(|before| before.info.participants.iter().any(left)) {
        marks::rotate(step, &info.id);
    }
    Ok(())
}

fn identities(participant: &Participant) -> impl Iterator<Item = &Jid> {
    std::iter::once(&participant.person.jid).chain(&participant.person.alt)
}

/// How certain a stored group is, and whether its people were noted.
#[derive(Clone, Copy)]
struct Mark {
    stale: bool,
    learned: bool,
}

/// Writes a group whose people were noted.
///
/// # Errors
/// [`Miss`].
pub(super) fn write(step: &mut Step<'_>, info: &GroupInfo, stale: bool) -> Result<(), Miss> {
    put(step, info, Mark { stale, learned: true })
}

fn put(step: &mut Step<'_>, info: &GroupInfo, mark: Mark) -> Result<(), Miss> {
    let generation = generation(step)?;
    let mut record = GroupRecord::of(info);
    (record.generation, record.stale, record.learned) = (generation, mark.stale, mark.learned);
    step.put(group_key(&info.id), &record);
    Ok(())
}

/// The stored group is not certain any more: it is asked for when it is needed.
///
/// # Errors
/// [`Miss`].
pub(crate) fn forget(step: &mut Step<'_>, jid: &Jid) -> Result<(), Miss> {
    if let Some(mut record) = step.record::<GroupRecord>(&group_key(jid))? {
        record.stale = true;
        step.put(group_key(jid), &record);
    }
    Ok(())
}

/// We are not in the group any more, or it is none.
pub(super) fn remove(step: &mut Step<'_>, jid: &Jid) {
    step.delete(group_key(jid));
}

/// Any group may have changed: none is certain any more.
pub(crate) fn all_changed(step: &mut Step<'_>) {
    let generation = step.rng.next_u64();
    step.put(generation_key(), &GenerationRecord { generation });
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
