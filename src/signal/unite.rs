//! Two addresses turn out to be one device (spec 03 §4.10): what stands under one goes to the other.

use super::{
    Address, PageId, SignalStore, SkippedPage, State, StepError,
    record::{ArchiveEntry, MAX_ARCHIVED},
};

/// Moves everything of one address to another name of the same device; what either could read stays readable.
///
/// The session under the new name stays the current one, as the newer of the two: the old name is not used any more once the
/// new one is known. That of the old name becomes current if there is no other, else it goes to the archive, with what was
/// archived behind it; what does not fit there is dropped, the oldest first. An identity under the new name stays, and
/// sessions with another one are dropped.
///
/// # Errors
/// [`StepError::Miss`] when a record is not loaded, [`SignalError::Exhausted`](super::SignalError::Exhausted) after 2^32
/// sessions. Nothing was moved then.
pub fn unite<S: SignalStore>(store: &mut S, from: &Address, to: &Address) -> Result<(), StepError<S::Miss>> {
    if from == to {
        return Ok(());
    }
    let Some(old) = Old::read(store, from).map_err(StepError::Miss)? else { return Ok(()) };
    let (session, index, known) = (store.session(to), store.archive_index(to), store.identity(to));
    let mut session = session.map_err(StepError::Miss)?.unwrap_or_default();
    let mut index = index.map_err(StepError::Miss)?.unwrap_or_default();
    let known = known.map_err(StepError::Miss)?;
    let identity = known.or_else(|| session.current.as_ref().map(|state| state.remote_identity)).or(old.identity);

    let mut archived = Vec::new();
    let mut pages = Vec::new();
    for (mut state, state_pages) in old.states {
        let is_there = session.current.as_ref().is_some_and(|current| current.base_key == state.base_key)
            || index.by_base_key(&state.base_key).is_some();
        let is_foreign = identity.is_some_and(|identity| identity != state.remote_identity);
        let is_full = session.current.is_some() && index.entries.len() >= MAX_ARCHIVED;
        if is_there || is_foreign || is_full {
            continue;
        }
        // Ids are unique under one address.
        state.id = session.take_id()?;
        pages.extend(state_pages.into_iter().map(|(id, page)| (PageId { state: state.id, ..id }, page)));
        if session.current.is_none() {
            session.current = Some(state);
        } else {
            state.pending = None;
            index.entries.push(ArchiveEntry::of(&state));
            archived.push(state);
        }
    }

    old.gone.into_iter().for_each(|gone| gone.delete(store, from));
    pages.into_iter().for_each(|(id, page)| store.put_skipped_page(to, id, page));
    archived.into_iter().for_each(|state| store.put_archived_state(to, state));
    if !index.entries.is_empty() {
        store.put_archive_index(to, index);
    }
    if let Some(identity) = identity.filter(|_| known.is_none()) {
        store.put_identity(to, identity);
    }
    if session.current.is_some() {
        store.put_session(to, session);
    }
    Ok(())
}

/// What stands under the old name.
struct Old {
    identity: Option<crate::crypto::PublicKey>,
    /// The current state, then the archived ones, newest first, each with its pages.
    states: Vec<(State, Vec<(PageId, SkippedPage)>)>,
    /// Every record.
    gone: Vec<Gone>,
}

/// A record that is deleted.
enum Gone {
    Page(PageId),
    State(super::StateId),
    Rest,
}

impl Gone {
    fn delete<S: SignalStore>(self, store: &mut S, address: &Address) {
        match self {
            Self::Page(id) => store.delete_skipped_page(address, id),
            Self::State(id) => store.delete_archived_state(address, id),
            Self::Rest => {
                store.delete_archive_index(address);
                store.delete_identity(address);
                store.delete_session(address);
            }
        }
    }
}

impl Old {
    /// Reads it, all of a round before a miss counts; `None` when there is nothing.
    fn read<S: SignalStore>(store: &mut S, address: &Address) -> Result<Option<Self>, S::Miss> {
        let (session, index, identity) =
            (store.session(address), store.archive_index(address), store.identity(address));
        let (session, index, identity) = (session?, index?, identity?);
        if session.is_none() && index.is_none() && identity.is_none() {
            return Ok(None);
        }
        let ids: Vec<_> = index.iter().flat_map(super::ArchiveIndex::states).collect();
        let archived: Vec<_> = ids.iter().map(|id| store.archived_state(address, *id)).collect();
        let archived = archived.into_iter().collect::<Result<Vec<_>, _>>()?;
        let states: Vec<State> =
            session.into_iter().filter_map(|session| session.current).chain(archived.into_iter().flatten()).collect();
        let page_ids: Vec<Vec<PageId>> = states.iter().map(|state| state.page_ids().collect()).collect();
        let pages: Vec<Vec<_>> = page_ids
            .iter()
            .map(|ids| ids.iter().map(|id| store.skipped_page(address, *id).map(|page| (*id, page))).collect())
            .collect();
        let mut with_pages = Vec::with_capacity(states.len());
        for (state, pages) in states.into_iter().zip(pages) {
            let pages = pages.into_iter().collect::<Result<Vec<_>, _>>()?;
            with_pages.push((state, pages.into_iter().filter_map(|(id, page)| Some((id, page?))).collect()));
        }
        let gone = page_ids.into_iter().flatten().map(Gone::Page);
        let gone = gone.chain(ids.into_iter().map(Gone::State)).chain([Gone::Rest]).collect();
        Ok(Some(Self { identity, states: with_pages, gone }))
    }
}
