//! The steps on the records of one address: which state reads a message, and what becomes of the others (spec 03 §2.6).
//!
//! Every step reads, then computes, then writes. The writes are plain calls at its end, none of which can fail.

use crate::crypto::{CryptoRng, KeyPair, PublicKey, Secret, constant_time_eq};

use super::{
    Address, ArchiveIndex, Ciphertext, CiphertextKind, Decrypted, IdentityChange, Own, Peek, Session, SignalError,
    SignalStore, State, StateId, StepError,
    archive::{Replacement, archive, archived_pages, write_index},
    chain::ChainKey,
    ratchet::{Budget, Opened, PageWrites, Pages},
    record::ArchiveEntry,
    state::{Sender, SenderChain},
    wire::{PreKeyMessage, WhisperMessage},
    x3dh,
};

/// Encrypts a message (padded already, spec 03 §4.1) with the current state.
///
/// The first message after the other side has turned draws a ratchet key from `rng` and makes an exchange; others are without.
///
/// The bytes may reach the wire only once the session written here is durable, or a lease covers its counter. A lease is on
/// a ratchet key, so the first message with a new one always waits.
///
/// # Errors
/// [`SignalError::NoSession`] when there is none, [`SignalError::Exhausted`] after 2^32 messages without an answer;
/// [`StepError::Miss`] when the session is not loaded.
pub fn encrypt<S: SignalStore>(
    store: &mut S,
    own: &Own<'_>,
    address: &Address,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Ciphertext, StepError<S::Miss>> {
    let session = store.session(address).map_err(StepError::Miss)?.ok_or(SignalError::NoSession)?;
    Ok(encrypt_with(store, own, address, session, plaintext, rng)?)
}

/// The same with the session that the store has for the address.
///
/// # Errors
/// [`SignalError`] as there; the store is as it was then.
pub fn encrypt_with<S: SignalStore>(
    store: &mut S,
    own: &Own<'_>,
    address: &Address,
    mut session: Session,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Ciphertext, SignalError> {
    let ciphertext = session.current.as_mut().ok_or(SignalError::NoSession)?.encrypt(own, plaintext, rng)?;
    store.put_session(address, session);
    Ok(ciphertext)
}

/// Decrypts a message, and moves the state that could read it to the front.
///
/// A pkmsg of an unknown base key opens a new session: it consumes its one-time prekey, is trusted with its identity, and
/// when that changed, the sessions built on the old one are dropped.
///
/// A forged msg costs at most 41 Diffie-Hellman operations, if its ratchet key is unknown, and 8,000 hash steps (31,000
/// in a session of an identity with itself); a
/// forged pkmsg 5 and 2,000.
///
/// # Errors
/// [`StepError::Signal`] says why the message is refused; see [`SignalError::retry_reason`] for the answer to the sender.
/// [`StepError::Miss`] when a record is not loaded. Nothing is written in either case.
pub fn decrypt<S: SignalStore>(
    store: &mut S,
    own: &Own<'_>,
    address: &Address,
    kind: CiphertextKind,
    bytes: &[u8],
) -> Result<Decrypted, StepError<S::Miss>> {
    match kind {
        CiphertextKind::Whisper => decrypt_whisper(store, address, &WhisperMessage::decode(bytes)?),
        CiphertextKind::PreKey => {
            let outer = PreKeyMessage::decode(bytes)?;
            decrypt_pre_key(store, own, address, &outer, &WhisperMessage::decode(outer.message)?)
        }
    }
}

/// Removes everything known of a device: session, archived states, skipped keys, identity.
///
/// # Errors
/// The records are not loaded; nothing was removed then.
pub fn forget<S: SignalStore>(store: &mut S, address: &Address) -> Result<(), S::Miss> {
    let (session, index) = (store.session(address), store.archive_index(address));
    let (session, index) = (session?, index?.unwrap_or_default());
    let mut pages = archived_pages(store, address, &index.entries)?;
    pages.extend(session.iter().flat_map(|session| &session.current).flat_map(State::page_ids));
    pages.into_iter().for_each(|id| store.delete_skipped_page(address, id));
    index.states().for_each(|id| store.delete_archived_state(address, id));
    store.delete_archive_index(address);
    store.delete_session(address);
    store.delete_identity(address);
    Ok(())
}

/// Moves everything of one address to another that has no session: the same device under a new name.
///
/// # Errors
/// The records are not loaded; nothing was moved then.
pub fn relocate<S: SignalStore>(store: &mut S, from: &Address, to: &Address) -> Result<(), S::Miss> {
    let (session, index, identity) = (store.session(from), store.archive_index(from), store.identity(from));
    let (session, index, identity) = (session?, index?, identity?);
    let entries = index.as_ref().map(|index| index.entries.as_slice()).unwrap_or_default();
    let mut pages = archived_pages(store, from, entries)?;
    pages.extend(session.iter().flat_map(|session| &session.current).flat_map(State::page_ids));
    let states: Vec<StateId> = index.iter().flat_map(ArchiveIndex::states).collect();
    let states = states.into_iter().map(|id| store.archived_state(from, id)).collect::<Result<Vec<_>, _>>()?;
    let pages = pages.into_iter().map(|id| Ok((id, store.skipped_page(from, id)?))).collect::<Result<Vec<_>, _>>()?;

    for (id, page) in pages {
        store.delete_skipped_page(from, id);
        if let Some(page) = page {
            store.put_skipped_page(to, id, page);
        }
    }
    for state in states.into_iter().flatten() {
        store.delete_archived_state(from, state.id());
        store.put_archived_state(to, state);
    }
    if let Some(index) = index {
        store.delete_archive_index(from);
        store.put_archive_index(to, index);
    }
    if let Some(identity) = identity {
        store.delete_identity(from);
        store.put_identity(to, identity);
    }
    if let Some(session) = session {
        store.delete_session(from);
        store.put_session(to, session);
    }
    Ok(())
}

/// What a ciphertext says about itself in the clear: the prekeys that [`decrypt`] may ask for.
///
/// # Errors
/// As [`decrypt`] for bytes that break the format.
pub fn peek(kind: CiphertextKind, bytes: &[u8]) -> Result<Peek, SignalError> {
    match kind {
        CiphertextKind::Whisper => WhisperMessage::decode(bytes).map(|_| Peek {
            pre_key: None,
            signed_pre_key: None,
            identity: None,
            registration_id: None,
        }),
        CiphertextKind::PreKey => {
            let outer = PreKeyMessage::decode(bytes)?;
            WhisperMessage::decode(outer.message)?;
            Ok(Peek {
                pre_key: outer.pre_key_id,
                signed_pre_key: Some(outer.signed_pre_key_id),
                identity: Some(outer.identity),
                registration_id: Some(outer.registration_id),
            })
        }
    }
}

fn decrypt_whisper<S: SignalStore>(
    store: &mut S,
    address: &Address,
    message: &WhisperMessage<'_>,
) -> Result<Decrypted, StepError<S::Miss>> {
    let session = store.session(address).map_err(StepError::Miss)?.ok_or(SignalError::NoSession)?;
    let mut budget = Budget::of(session.current.as_ref());
    let (mut failure, is_own_chain) = match &session.current {
        None => (SignalError::NoSession, false),
        Some(current) => match read(store, address, current, message, &mut budget) {
            Ok(found) => return accept_current(store, address, session, message, found),
            Err(StepError::Signal(failure)) => (failure, current.receiver(&message.ratchet).is_some()),
            Err(miss) => return Err(miss),
        },
    };
    // A ratchet key belongs to one state, so a message of a chain that the current state has can be of no other.
    if is_own_chain {
        return Err(failure.into());
    }
    let (index, known) = (store.archive_index(address), store.identity(address));
    let index = index.map_err(StepError::Miss)?.unwrap_or_default();
    let known = known.map_err(StepError::Miss)?;
    for state in candidates(store, address, &index, message, failure).map_err(StepError::Miss)? {
        if known.is_some_and(|known| known != state.remote_identity) {
            continue;
        }
        match read(store, address, &state, message, &mut budget) {
            Ok(found) => return promote(store, address, session, index, state, message, found),
            Err(StepError::Signal(other)) if telling(&other) > telling(&failure) => failure = other,
            Err(StepError::Signal(_)) => {}
            Err(miss) => return Err(miss),
        }
    }
    Err(failure.into())
}

fn decrypt_pre_key<S: SignalStore>(
    store: &mut S,
    own: &Own<'_>,
    address: &Address,
    outer: &PreKeyMessage<'_>,
    message: &WhisperMessage<'_>,
) -> Result<Decrypted, StepError<S::Miss>> {
    let mut session = store.session(address).map_err(StepError::Miss)?.unwrap_or_default();
    if let Some(current) = session.current.as_ref().filter(|state| is_session_of(state, outer)) {
        check_identity(current, &outer.identity)?;
        let found = read(store, address, current, message, &mut Budget::of(Some(current)))?;
        return accept_current(store, address, session, message, found);
    }

    let (index, known) = (store.archive_index(address), store.identity(address));
    let signed_pre_key = store.signed_pre_key(outer.signed_pre_key_id);
    let pre_key = outer.pre_key_id.map(|id| store.pre_key(id));
    let (index, known) = (index.map_err(StepError::Miss)?, known.map_err(StepError::Miss)?);
    if let Some(id) = index.as_ref().and_then(|index| index.by_base_key(&outer.base_key)) {
        let missing = SignalError::Record { what: "state", reason: "it stands in the index, but is not there" };
        let state = store.archived_state(address, id).map_err(StepError::Miss)?.ok_or(missing)?;
        check_identity(&state, &outer.identity)?;
        check_identity(&state, &known.unwrap_or(outer.identity))?;
        let found = read(store, address, &state, message, &mut Budget::of(Some(&state)))?;
        return promote(store, address, session, index.unwrap_or_default(), state, message, found);
    }

    let unknown = SignalError::InvalidSignedPreKeyId(outer.signed_pre_key_id.0);
    let signed_pre_key = signed_pre_key.map_err(StepError::Miss)?.ok_or(unknown)?;
    let pre_key = match (outer.pre_key_id, pre_key) {
        (Some(id), Some(found)) => Some(found.map_err(StepError::Miss)?.ok_or(SignalError::InvalidPreKeyId(id.0))?),
        _ => None,
    };
    let current = session.current.as_ref();
    let replacement =
        Replacement::plan(store, address, current, index, &outer.identity, known).map_err(StepError::Miss)?;

    let (root, chain) =
        x3dh::respond(own.identity, &signed_pre_key, pre_key.as_ref(), &outer.identity, &outer.base_key)?;
    let mut state = responder_state(own, outer, session.take_id()?, root, signed_pre_key, chain);
    let (opened, pages) = read(store, address, &state, message, &mut Budget::of(Some(&state)))?;
    let mut writes = PageWrites::new();
    let plaintext = state.commit(opened, message, pages, &mut writes)?;

    let identity_changed = matches!(replacement.change(&outer.identity), IdentityChange::Changed { .. });
    replacement.write(store, address, &mut session, state, outer.identity);
    write_pages(store, address, writes);
    store.put_session(address, session);
    if let Some(id) = outer.pre_key_id {
        store.delete_pre_key(id);
    }
    Ok(Decrypted { plaintext, identity: outer.identity, identity_changed, used_pre_key: outer.pre_key_id })
}

/// The responder's state before the first message (spec 03 §2.1).
fn responder_state(
    own: &Own<'_>,
    outer: &PreKeyMessage<'_>,
    id: StateId,
    root: Secret<32>,
    signed_pre_key: KeyPair,
    chain: ChainKey,
) -> State {
    State {
        id,
        local_identity: *own.identity.public(),
        remote_identity: outer.identity,
        local_registration_id: own.registration_id,
        remote_registration_id: outer.registration_id,
        base_key: outer.base_key,
        root,
        previous_counter: 0,
        pending: None,
        sender: Sender::Chain(SenderChain { ratchet: signed_pre_key, chain, lease: None }),
        receivers: Vec::new(),
        next_chain: 0,
    }
}

/// The archived states that could read a message which the current one could not (spec 03 §8.3).
///
/// Those that have a receiver chain for its ratchet key; if there are none and the current state did not recognise the
/// message, it may be the first of a new chain, of any of them. All are asked for before a miss counts.
fn candidates<S: SignalStore>(
    store: &mut S,
    address: &Address,
    index: &ArchiveIndex,
    message: &WhisperMessage<'_>,
    failure: SignalError,
) -> Result<Vec<State>, S::Miss> {
    let is_known = |entry: &&ArchiveEntry| entry.may_know(&message.ratchet);
    let only_known = index.entries.iter().any(|entry| is_known(&entry));
    if !only_known && !matches!(failure, SignalError::BadMac | SignalError::NoSession) {
        return Ok(Vec::new());
    }
    let entries = index.entries.iter().filter(|entry| !only_known || is_known(entry));
    let found: Vec<_> = entries.map(|entry| store.archived_state(address, entry.id)).collect();
    found.into_iter().filter_map(Result::transpose).collect()
}

/// Lets one state read a message. Changes nothing.
fn read<S: SignalStore>(
    store: &mut S,
    address: &Address,
    state: &State,
    message: &WhisperMessage<'_>,
    budget: &mut Budget,
) -> Result<(Opened, Pages), StepError<S::Miss>> {
    let plan = state.plan(message, budget)?;
    let mut pages = Pages::new();
    let mut miss = None;
    for id in state.pages_for(&plan, message) {
        match store.skipped_page(address, id) {
            Ok(Some(page)) => pages.push((id, page)),
            Ok(None) => {}
            Err(missing) => miss = miss.or(Some(missing)),
        }
    }
    if let Some(miss) = miss {
        return Err(StepError::Miss(miss));
    }
    let opened = state.open(plan, message, &pages)?;
    Ok((opened, pages))
}

/// The current state has read the message.
fn accept_current<S: SignalStore>(
    store: &mut S,
    address: &Address,
    mut session: Session,
    message: &WhisperMessage<'_>,
    (opened, pages): (Opened, Pages),
) -> Result<Decrypted, StepError<S::Miss>> {
    let state = session.current.as_mut().ok_or(SignalError::NoSession)?;
    let mut writes = PageWrites::new();
    let plaintext = state.commit(opened, message, pages, &mut writes)?;
    let identity = state.remote_identity;
    write_pages(store, address, writes);
    store.put_session(address, session);
    Ok(Decrypted { plaintext, identity, identity_changed: false, used_pre_key: None })
}

/// An archived state has read the message: it becomes the current one, and that is archived.
fn promote<S: SignalStore>(
    store: &mut S,
    address: &Address,
    mut session: Session,
    mut index: ArchiveIndex,
    mut state: State,
    message: &WhisperMessage<'_>,
    (opened, pages): (Opened, Pages),
) -> Result<Decrypted, StepError<S::Miss>> {
    let mut writes = PageWrites::new();
    let plaintext = state.commit(opened, message, pages, &mut writes)?;
    let identity = state.remote_identity;
    index.entries.retain(|entry| entry.id != state.id);
    store.delete_archived_state(address, state.id);
    if let Some(current) = session.current.replace(state) {
        archive(store, address, &mut index, current);
    }
    write_index(store, address, index);
    write_pages(store, address, writes);
    store.put_session(address, session);
    Ok(Decrypted { plaintext, identity, identity_changed: false, used_pre_key: None })
}

fn write_pages<S: SignalStore>(store: &mut S, address: &Address, writes: PageWrites) {
    for (id, page) in writes {
        match page {
            Some(page) => store.put_skipped_page(address, id, page),
            None => store.delete_skipped_page(address, id),
        }
    }
}

/// A pkmsg belongs to a session that exists.
fn is_session_of(state: &State, outer: &PreKeyMessage<'_>) -> bool {
    constant_time_eq(state.base_key.as_bytes(), outer.base_key.as_bytes())
}

/// The outer identity of a pkmsg is not authenticated when the session exists already, so it has to be the same.
fn check_identity(state: &State, identity: &PublicKey) -> Result<(), SignalError> {
    if state.remote_identity == *identity { Ok(()) } else { Err(SignalError::IdentityMismatch) }
}

/// Which of several failures says most about a message (spec 03 §2.6).
const fn telling(failure: &SignalError) -> u8 {
    match failure {
        SignalError::Duplicate => 3,
        SignalError::BadMac => 2,
        SignalError::NoSession => 0,
        _ => 1,
    }
}
