//! The records of one address: [`Session`] with the current state, [`ArchiveIndex`] with what else there is.

use bytes::BufMut;

use crate::crypto::{PublicKey, constant_time_eq};

use super::{
    SignalError, State, StateId,
    codec::{Put, Reader, VERSION},
    state::{MAX_RECEIVERS, SIZE_HINT},
};

/// Archived states kept per address; the oldest is dropped (spec 03 §2.6).
pub(super) const MAX_ARCHIVED: usize = 40;

/// The session with one remote device: its current state, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    pub(super) current: Option<State>,
    /// The id for the next state. Never reused, so that a late deletion cannot hit another state's pages.
    pub(super) next_state: u32,
}

impl Session {
    /// Writes the record: below 800 bytes plus 12 for each page of skipped keys.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIZE_HINT);
        self.write_to(&mut out);
        out
    }

    /// Writes the record behind what `out` holds.
    pub fn write_to(&self, out: &mut impl BufMut) {
        out.put_u8(VERSION);
        out.put_u32(self.next_state);
        out.put_u8(self.current.is_some().into());
        if let Some(state) = &self.current {
            state.encode_into(out);
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`SignalError::RecordVersion`] or [`SignalError::Record`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let mut reader = Reader::new("session", bytes)?;
        let next_state = reader.u32()?;
        let current = match reader.u8()? {
            0 => None,
            1 => Some(State::decode_from(&mut reader)?),
            _ => return Err(reader.damaged("unknown tag of the current state")),
        };
        reader
            .ensure(current.as_ref().is_none_or(|state| state.id.0 < next_state), "id of the state is not its own")?;
        reader.finish()?;
        Ok(Self { current, next_state })
    }

    /// The record was read in this run; see [`State::resume`].
    ///
    /// # Errors
    /// As there.
    pub fn resume(self, run: u32, first: u32) -> Result<Self, SignalError> {
        let current = self.current.map(|state| state.resume(run, first)).transpose()?;
        Ok(Self { current, ..self })
    }

    /// The state that messages are sent with. `None` also when there is one that only receives: it came from elsewhere.
    pub fn current(&self) -> Option<&State> {
        self.current.as_ref().filter(|state| state.can_send())
    }

    /// The newest state, to move its sender chain.
    pub const fn current_mut(&mut self) -> Option<&mut State> {
        self.current.as_mut()
    }

    /// Takes the next state id.
    pub(super) fn take_id(&mut self) -> Result<StateId, SignalError> {
        let id = StateId(self.next_state);
        self.next_state = self.next_state.checked_add(1).ok_or(SignalError::Exhausted("state id"))?;
        Ok(id)
    }
}

/// What is archived for an address, newest first: enough to find the right state without loading any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveIndex {
    pub(super) entries: Vec<ArchiveEntry>,
}

/// An archived state, in brief.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchiveEntry {
    pub(super) id: StateId,
    pub(super) base_key: PublicKey,
    /// It has skipped keys, hence pages to delete together with it.
    pub(super) has_pages: bool,
    /// The first bytes of the ratchet keys of its receiver chains: which state a msg of a known chain belongs to.
    pub(super) tags: Vec<[u8; 8]>,
}

impl ArchiveEntry {
    pub(super) fn of(state: &State) -> Self {
        Self {
            id: state.id,
            base_key: state.base_key,
            has_pages: state.page_ids().next().is_some(),
            tags: state.receivers.iter().map(|chain| tag(&chain.ratchet)).collect(),
        }
    }

    /// The state may have a receiver chain for this ratchet key.
    pub(super) fn may_know(&self, ratchet: &PublicKey) -> bool {
        self.tags.contains(&tag(ratchet))
    }
}

impl ArchiveIndex {
    /// Writes the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len().saturating_mul(79).saturating_add(3));
        out.push(VERSION);
        out.put_count(self.entries.len());
        for entry in &self.entries {
            out.put_u32(entry.id.0);
            out.extend_from_slice(entry.base_key.as_bytes());
            out.push(entry.has_pages.into());
            out.put_count(entry.tags.len());
            entry.tags.iter().for_each(|tag| out.extend_from_slice(tag));
        }
        out
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`SignalError::RecordVersion`] or [`SignalError::Record`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let mut reader = Reader::new("archive index", bytes)?;
        let count = reader.count(MAX_ARCHIVED)?;
        let mut entries: Vec<ArchiveEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, base_key) = (StateId(reader.u32()?), reader.public()?);
            reader.ensure(entries.iter().all(|entry| entry.id != id), "id of a state is not its own")?;
            let has_pages = match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(reader.damaged("unknown flag")),
            };
            let tags = (0..reader.count(MAX_RECEIVERS)?).map(|_| reader.array()).collect::<Result<_, _>>()?;
            entries.push(ArchiveEntry { id, base_key, has_pages, tags });
        }
        reader.finish()?;
        Ok(Self { entries })
    }

    /// The ids of the archived states, newest first.
    pub fn states(&self) -> impl Iterator<Item = StateId> {
        self.entries.iter().map(|entry| entry.id)
    }

    /// The archived state with a base key.
    pub(super) fn by_base_key(&self, base_key: &PublicKey) -> Option<StateId> {
        self.entries
            .iter()
            .find(|entry| constant_time_eq(entry.base_key.as_bytes(), base_key.as_bytes()))
            .map(|entry| entry.id)
    }
}

fn tag(ratchet: &PublicKey) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *ratchet.as_bytes();
    [a, b, c, d, e, f, g, h]
}
