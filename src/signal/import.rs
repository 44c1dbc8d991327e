//! All records of one address together, and their protobuf form that other stores use (spec 03 §2.7).
//!
//! Import takes expanded message keys as they are. Export writes skipped keys in expanded form, since that is what every
//! reader of the format knows. Chains, keys and states above our limits are left out, the oldest first.

use crate::crypto::{CryptoRng, KeyPair, PrivateKey, Secret};

use super::{
    Address, ArchiveIndex, PageId, PreKeyId, Session, SignalError, SignalStore, SignedPreKeyId, SkippedPage, State,
    StateId,
    chain::ChainKey,
    record::{ArchiveEntry, MAX_ARCHIVED},
    skipped::{SkippedIndex, SkippedKey, page_of},
    state::{MAX_RECEIVERS, Pending, ReceiverChain, Sender, SenderChain},
    wire::{Fields, Value, put_bytes, put_varint},
};

/// Everything stored for one address but the identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The session record.
    pub session: Session,
    /// The list of the archived states.
    pub archive: ArchiveIndex,
    /// The archived states, newest first.
    pub states: Vec<State>,
    /// The skipped keys of all of them.
    pub pages: Vec<(PageId, SkippedPage)>,
}

/// Reads a `RecordStructure`.
///
/// # Errors
/// [`SignalError::Record`] for damaged or incomplete bytes or another session version, [`SignalError::Key`] for a bad key.
pub fn import_record(bytes: &[u8]) -> Result<Snapshot, SignalError> {
    let mut snapshot = Snapshot::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(damaged)? {
        let structure = match number {
            1 | 2 => value.bytes().map_err(damaged)?,
            _ => continue,
        };
        // Some stores write an empty structure for "no current session".
        if structure.is_empty() || number == 2 && snapshot.states.len() >= MAX_ARCHIVED {
            continue;
        }
        if number == 1 && snapshot.session.current.is_some() {
            return Err(SignalError::Record { what: WHAT, reason: "it has two current sessions" });
        }
        let id = snapshot.session.take_id()?;
        let state = import_state(id, structure, &mut snapshot.pages)?;
        if number == 1 {
            snapshot.session.current = Some(state);
        } else {
            snapshot.archive.entries.push(ArchiveEntry::of(&state));
            snapshot.states.push(state);
        }
    }
    Ok(snapshot)
}

impl Snapshot {
    /// Reads all records of an address; `None` without a session.
    ///
    /// # Errors
    /// A record is not loaded. All archived states, then all pages, are asked for in one round each.
    pub fn read<S: SignalStore>(store: &mut S, address: &Address) -> Result<Option<Self>, S::Miss> {
        let (session, archive) = (store.session(address), store.archive_index(address));
        let (Some(session), archive) = (session?, archive?.unwrap_or_default()) else { return Ok(None) };
        let states: Vec<_> = archive.states().map(|id| store.archived_state(address, id)).collect();
        let states = states.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
        let ids = states.iter().chain(&session.current).flat_map(State::page_ids);
        let pages: Vec<_> = ids.map(|id| store.skipped_page(address, id).map(|page| Some((id, page?)))).collect();
        let pages = pages.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok(Some(Self { session, archive, states, pages }))
    }

    /// Writes all records under an address, which must have none: see [`super::forget`].
    pub fn write<S: SignalStore>(self, store: &mut S, address: &Address) {
        if !self.archive.entries.is_empty() {
            store.put_archive_index(address, self.archive);
        }
        self.states.into_iter().for_each(|state| store.put_archived_state(address, state));
        self.pages.into_iter().for_each(|(id, page)| store.put_skipped_page(address, id, page));
        store.put_session(address, self.session);
    }

    /// Makes the sender chains that are due: that of the current state, then those of the archived ones (see
    /// [`State::begin_sending`]). Other stores have no form for a chain that is to be made yet.
    pub fn begin_sending(&mut self, rng: &mut impl CryptoRng) {
        for state in self.session.current.iter_mut().chain(&mut self.states) {
            // One that cannot send stays as it is.
            let _ = state.begin_sending(rng);
        }
    }

    /// Writes a `RecordStructure`. A state whose sender chain is due has none there: see [`Self::begin_sending`].
    pub fn export(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(state) = &self.session.current {
            put_bytes(&mut out, 1, &self.export_state(state));
        }
        for state in &self.states {
            put_bytes(&mut out, 2, &self.export_state(state));
        }
        out
    }

    fn export_state(&self, state: &State) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, 1, SESSION_VERSION.into());
        put_bytes(&mut out, 2, &state.local_identity.to_typed());
        put_bytes(&mut out, 3, &state.remote_identity.to_typed());
        put_bytes(&mut out, 4, state.root.expose());
        put_varint(&mut out, 5, state.previous_counter.into());
        // A closed chain is left out: whoever reads this would send on it.
        if let Sender::Chain(sender) = &state.sender {
            let mut chain = Vec::new();
            put_bytes(&mut chain, 1, &sender.ratchet.public().to_typed());
            put_bytes(&mut chain, 2, sender.ratchet.private().expose());
            export_chain_key(&mut chain, &sender.chain);
            put_bytes(&mut out, 6, &chain);
        }
        for receiver in &state.receivers {
            put_bytes(&mut out, 7, &self.export_receiver(state.id, receiver));
        }
        if let Some(pending) = &state.pending {
            let mut inner = Vec::new();
            if let Some(PreKeyId(id)) = pending.pre_key {
                put_varint(&mut inner, 1, id.into());
            }
            put_bytes(&mut inner, 2, &state.base_key.to_typed());
            put_varint(&mut inner, 3, pending.signed_pre_key.0.into());
            put_bytes(&mut out, 9, &inner);
        }
        put_varint(&mut out, 10, state.remote_registration_id.into());
        put_varint(&mut out, 11, state.local_registration_id.into());
        put_bytes(&mut out, 13, &state.base_key.to_typed());
        out
    }

    fn export_receiver(&self, state: StateId, receiver: &ReceiverChain) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &receiver.ratchet.to_typed());
        export_chain_key(&mut out, &receiver.chain);
        for counter in receiver.skipped.counters() {
            let id = PageId { state, chain: receiver.serial, page: page_of(counter) };
            let page = self.pages.iter().find(|(found, _)| *found == id);
            let Some(key) = page.and_then(|(_, page)| page.key(counter)) else { continue };
            let keys = key.message_keys();
            let (cipher, mac, iv) = keys.parts();
            let mut inner = Vec::new();
            put_varint(&mut inner, 1, counter.into());
            put_bytes(&mut inner, 2, cipher);
            put_bytes(&mut inner, 3, mac);
            put_bytes(&mut inner, 4, iv);
            put_bytes(&mut out, 4, &inner);
        }
        out
    }
}

fn import_state(id: StateId, bytes: &[u8], pages: &mut Vec<(PageId, SkippedPage)>) -> Result<State, SignalError> {
    let (mut local_identity, mut remote_identity, mut root, mut base_key) = (None, None, None, None);
    let (mut version, mut previous_counter) = (0, 0);
    let (mut local_registration_id, mut remote_registration_id) = (0, 0);
    let (mut sender, mut pending, mut chains) = (Sender::Missing, None, Vec::new());
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(damaged)? {
        match number {
            1 => version = value.uint32().map_err(damaged)?,
            2 => local_identity = Some(value.key().map_err(damaged)?),
            3 => remote_identity = Some(value.key().map_err(damaged)?),
            4 => root = Some(secret(value)?),
            5 => previous_counter = value.truncated().map_err(damaged)?,
            6 => sender = Sender::Chain(import_sender(value.bytes().map_err(damaged)?)?),
            7 => chains.push(value.bytes().map_err(damaged)?),
            9 => pending = Some(import_pending(value.bytes().map_err(damaged)?)?),
            10 => remote_registration_id = value.uint32().map_err(damaged)?,
            11 => local_registration_id = value.uint32().map_err(damaged)?,
            13 => base_key = Some(value.key().map_err(damaged)?),
            _ => {}
        }
    }
    if version != SESSION_VERSION {
        return Err(SignalError::Record { what: WHAT, reason: "its version is not 3" });
    }
    // Newest last, and only those count.
    let newest = chains.into_iter().rev().take(MAX_RECEIVERS).rev();
    let receivers: Vec<_> =
        (0..).zip(newest).map(|(serial, bytes)| import_receiver(id, serial, bytes, pages)).collect::<Result<_, _>>()?;
    Ok(State {
        id,
        local_identity: required(local_identity, "local identity is missing")?,
        remote_identity: required(remote_identity, "remote identity is missing")?,
        local_registration_id,
        remote_registration_id,
        base_key: required(base_key, "base key is missing")?,
        root: required(root, "root key is missing")?,
        previous_counter,
        pending,
        sender,
        next_chain: receivers.last().map_or(0, |last| last.serial.saturating_add(1)),
        receivers,
    })
}

fn import_sender(bytes: &[u8]) -> Result<SenderChain, SignalError> {
    let (mut public, mut private, mut chain) = (None, None, None);
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(damaged)? {
        match number {
            1 => public = Some(value.key().map_err(damaged)?),
            2 => {
                let bytes = value.bytes().map_err(damaged)?;
                private = Some(PrivateKey::from_slice(bytes).map_err(SignalError::Key)?);
            }
            3 => chain = Some(import_chain_key(value.bytes().map_err(damaged)?)?),
            _ => {}
        }
    }
    let private = required(private, "private ratchet key is missing")?;
    let ratchet = KeyPair::from_parts(private, required(public, "ratchet key is missing")?);
    Ok(SenderChain { ratchet, chain: required(chain, "chain key is missing")?, lease: None })
}

fn import_receiver(
    state: StateId,
    serial: u32,
    bytes: &[u8],
    pages: &mut Vec<(PageId, SkippedPage)>,
) -> Result<ReceiverChain, SignalError> {
    let (mut ratchet, mut chain, mut keys) = (None, None, Vec::new());
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(damaged)? {
        match number {
            1 => ratchet = Some(value.key().map_err(damaged)?),
            3 => chain = Some(import_chain_key(value.bytes().map_err(damaged)?)?),
            4 => keys.push(import_message_key(value.bytes().map_err(damaged)?)?),
            _ => {}
        }
    }
    let chain: ChainKey = required(chain, "chain key is missing")?;
    keys.retain(|(counter, _)| *counter < chain.index);
    keys.sort_by_key(|(counter, _)| *counter);
    keys.dedup_by_key(|(counter, _)| *counter);
    let skipped = SkippedIndex::of(keys.iter().map(|(counter, _)| *counter));
    for (counter, key) in keys {
        if !skipped.contains(counter) {
            continue;
        }
        let id = PageId { state, chain: serial, page: page_of(counter) };
        match pages.last_mut() {
            Some((last, page)) if *last == id => page.insert(counter, key),
            _ => {
                let mut page = SkippedPage::default();
                page.insert(counter, key);
                pages.push((id, page));
            }
        }
    }
    Ok(ReceiverChain { serial, ratchet: required(ratchet, "ratchet key is missing")?, chain, skipped })
}

fn import_chain_key(bytes: &[u8]) -> Result<ChainKey, SignalError> {
    let (mut index, mut key) = (0, None);
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(damaged)? {
        match number {
            1 => index = value.uint32().map_err(damaged)?,
            2 => key = Some(secret(value)?),
            _ => {}
        }
    }
    Ok(ChainKey { index, key: required(key, "chain key is missing")? })
}

fn import_message_key(bytes: &[u8]) -> Result<(u32, SkippedKey), SignalError> {
    let (mut counter, mut keys) = (0, [0; 80]);
    let (mut cipher, mut mac, mut iv) = (None, None, None);
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(damaged)? {
        match number {
            1 => counter = value.uint32().map_err(damaged)?,
            2 => cipher = Some(secret::<32>(value)?),
            3 => mac = Some(secret::<32>(value)?),
            4 => iv = Some(secret::<16>(value)?),
            _ => {}
        }
    }
    keys[..32].copy_from_slice(required(cipher, "cipher key is missing")?.expose());
    keys[32..64].copy_from_slice(required(mac, "MAC key is missing")?.expose());
    keys[64..].copy_from_slice(required(iv, "IV is missing")?.expose());
    Ok((counter, SkippedKey::Expanded(Box::new(Secret::new(keys)))))
}

fn import_pending(bytes: &[u8]) -> Result<Pending, SignalError> {
    let (mut pre_key, mut signed_pre_key) = (None, 0);
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next().map_err(damaged)? {
        match number {
            1 => pre_key = Some(value.uint32().map_err(damaged)?).filter(|&id| id != 0).map(PreKeyId),
            3 => signed_pre_key = value.truncated().map_err(damaged)?,
            _ => {}
        }
    }
    Ok(Pending { pre_key, signed_pre_key: SignedPreKeyId(signed_pre_key) })
}

fn export_chain_key(out: &mut Vec<u8>, chain: &ChainKey) {
    let mut inner = Vec::new();
    put_varint(&mut inner, 1, chain.index.into());
    put_bytes(&mut inner, 2, chain.key.expose());
    put_bytes(out, 3, &inner);
}

fn secret<const N: usize>(value: Value<'_>) -> Result<Secret<N>, SignalError> {
    let bytes = value.bytes().map_err(damaged)?;
    Secret::from_slice(bytes).map_err(|_| SignalError::Record { what: WHAT, reason: "a key has the wrong length" })
}

fn required<T>(value: Option<T>, reason: &'static str) -> Result<T, SignalError> {
    value.ok_or(SignalError::Record { what: WHAT, reason })
}

/// Errors of the wire layer are those of a record here.
const fn damaged(error: SignalError) -> SignalError {
    match error {
        SignalError::Malformed(reason) => SignalError::Record { what: WHAT, reason },
        other => other,
    }
}

const WHAT: &str = "imported session";
const SESSION_VERSION: u32 = 3;
