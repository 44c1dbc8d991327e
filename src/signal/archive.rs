//! What becomes of the other states of an address when one takes the place of the current one (spec 03 §2.6).
//!
//! Reads and writes are apart, so that a caller can do its curve work between them, and write only once that is done.

use crate::crypto::PublicKey;

use super::{
    Address, ArchiveIndex, IdentityChange, PageId, Session, SignalStore, State, StateId,
    record::{ArchiveEntry, MAX_ARCHIVED},
};

/// How a new state takes the place of the current one.
pub(super) struct Replacement {
    /// The identity known before.
    known: Option<PublicKey>,
    /// The current state has the identity of the new one, and goes to the archive.
    keep_current: bool,
    /// What stays archived.
    index: ArchiveIndex,
    /// There was an archive.
    had_index: bool,
    /// Archived states to delete.
    drop_states: Vec<StateId>,
    /// Pages to delete.
    drop_pages: Vec<PageId>,
}

impl Replacement {
    /// Reads the records of an address, all before a miss counts, and decides what is kept beside a state of `identity`.
    pub(super) fn read<S: SignalStore>(
        store: &mut S,
        address: &Address,
        identity: &PublicKey,
    ) -> Result<(Session, Self), S::Miss> {
        let (session, index, known) = (store.session(address), store.archive_index(address), store.identity(address));
        let (session, index, known) = (session?.unwrap_or_default(), index?, known?);
        let replacement = Self::plan(store, address, session.current.as_ref(), index, identity, known)?;
        Ok((session, replacement))
    }

    /// Decides what is kept and reads what must be known of the rest.
    pub(super) fn plan<S: SignalStore>(
        store: &mut S,
        address: &Address,
        current: Option<&State>,
        index: Option<ArchiveIndex>,
        identity: &PublicKey,
        known: Option<PublicKey>,
    ) -> Result<Self, S::Miss> {
        let known = known.or_else(|| current.map(|state| state.remote_identity));
        let is_foreign = known.is_some_and(|known| known != *identity)
            || current.is_some_and(|state| state.remote_identity != *identity);
        let had_index = index.is_some();
        let mut index = index.unwrap_or_default();
        let room = match current {
            _ if is_foreign => 0,
            Some(_) => MAX_ARCHIVED.saturating_sub(1),
            None => MAX_ARCHIVED,
        };
        let dropped = index.entries.split_off(room.min(index.entries.len()));
        let mut drop_pages = archived_pages(store, address, &dropped)?;
        if let Some(current) = current.filter(|_| is_foreign) {
            drop_pages.extend(current.page_ids());
        }
        let drop_states = dropped.into_iter().map(|entry| entry.id).collect();
        Ok(Self { known, keep_current: !is_foreign, index, had_index, drop_states, drop_pages })
    }

    /// A state with this base key is archived, and stays.
    pub(super) fn keeps(&self, base_key: &PublicKey) -> bool {
        self.index.by_base_key(base_key).is_some()
    }

    /// What the identity of the new state is to the one known before.
    pub(super) fn change(&self, identity: &PublicKey) -> IdentityChange {
        match self.known {
            None => IdentityChange::New,
            Some(previous) if previous != *identity => IdentityChange::Changed { previous },
            Some(_) => IdentityChange::Unchanged,
        }
    }

    /// Writes it; the session itself is the caller's to write.
    pub(super) fn write<S: SignalStore>(
        mut self,
        store: &mut S,
        address: &Address,
        session: &mut Session,
        state: State,
        identity: PublicKey,
    ) {
        self.drop_states.into_iter().for_each(|id| store.delete_archived_state(address, id));
        self.drop_pages.into_iter().for_each(|id| store.delete_skipped_page(address, id));
        if let Some(current) = session.current.replace(state).filter(|_| self.keep_current) {
            archive(store, address, &mut self.index, current);
        }
        if self.had_index || !self.index.entries.is_empty() {
            write_index(store, address, self.index);
        }
        if self.known != Some(identity) {
            store.put_identity(address, identity);
        }
    }
}

/// Puts a state in front of the archive. The caller has made room.
pub(super) fn archive<S: SignalStore>(store: &mut S, address: &Address, index: &mut ArchiveIndex, mut state: State) {
    state.pending = None;
    index.entries.insert(0, ArchiveEntry::of(&state));
    store.put_archived_state(address, state);
}

pub(super) fn write_index<S: SignalStore>(store: &mut S, address: &Address, index: ArchiveIndex) {
    if index.entries.is_empty() {
        store.delete_archive_index(address);
    } else {
        store.put_archive_index(address, index);
    }
}

/// The pages of archived states: their ids stand in the states, which are read only if they have any.
pub(super) fn archived_pages<S: SignalStore>(
    store: &mut S,
    address: &Address,
    entries: &[ArchiveEntry],
) -> Result<Vec<PageId>, S::Miss> {
    let with_pages = entries.iter().filter(|entry| entry.has_pages);
    let states: Vec<_> = with_pages.map(|entry| store.archived_state(address, entry.id)).collect();
    let mut pages = Vec::new();
    for state in states {
        pages.extend(state?.iter().flat_map(State::page_ids));
    }
    Ok(pages)
}
