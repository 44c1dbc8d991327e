//! The steps of the receiving side (spec 03 §3.2, §3.3).
//!
//! Every step reads, then computes, then writes. The writes are plain calls at its end, none of which can fail.

use super::{
    GroupPlaintext, Processed, SenderKeyName, SenderKeyPageId, SenderKeyRecord, SenderKeySerial, SenderKeyStore,
    record::Pages,
    wire::{DistributionMessage, SenderKeyMessage},
};
use crate::signal::{Address, SignalError, StepError};

/// Senders among whose records [`decrypt`] looks for a key; more are ignored.
pub const MAX_SENDERS: usize = 16;

/// Takes a distribution message over: from now on messages of this key can be read.
///
/// `name` holds the chat that the message came in, and the device whose pairwise session authenticated it; the caller has
/// compared that chat with the `groupId` next to the bytes (spec 03 §5.2).
///
/// # Errors
/// As [`DistributionMessage::decode`], [`SignalError::Exhausted`] after 2^32 keys; [`StepError::Miss`] when the record is not
/// loaded. Nothing is written then.
pub fn process<S: SenderKeyStore>(
    store: &mut S,
    name: &SenderKeyName,
    bytes: &[u8],
) -> Result<Processed, StepError<S::Miss>> {
    let message = DistributionMessage::decode(bytes)?;
    let mut record = store.sender_key(name).map_err(StepError::Miss)?.unwrap_or_default();
    let is_newest = record.keys.first().is_some_and(|key| key.id == message.id);
    let (processed, gone) = record.add(&message)?;
    if processed == Processed::Known && is_newest {
        return Ok(processed);
    }
    gone.iter().flat_map(|key| key.page_ids()).for_each(|id| store.delete_sender_key_page(name, id));
    store.put_sender_key(name, record);
    Ok(processed)
}

/// Decrypts a `skmsg`.
///
/// `senders` starts with the exact device, under its canonical address. Behind it may stand other addresses of the same
/// user, since a group message may name its sender without the device, or by the number instead of the LID (spec 03 §3.3):
/// where the key is found, the signature tells. At most [`MAX_SENDERS`] are tried.
///
/// # Errors
/// [`StepError::Signal`] says why the message is refused: [`SignalError::NoSenderKey`], [`SignalError::BadSignature`],
/// [`SignalError::Duplicate`] (also for what lies before the iteration that was distributed),
/// [`SignalError::TooFarAhead`], [`SignalError::Padding`], or a malformed message; see [`SignalError::retry_reason`] for the
/// answer to the sender. [`StepError::Miss`] when a record is not loaded: at most three rounds, unless several records have
/// the key id. Nothing is written in either case.
pub fn decrypt<S: SenderKeyStore>(
    store: &mut S,
    group: &str,
    senders: &[Address],
    bytes: &[u8],
) -> Result<GroupPlaintext, StepError<S::Miss>> {
    let message = SenderKeyMessage::decode(bytes)?;
    let names = senders.iter().take(MAX_SENDERS).map(|sender| SenderKeyName::new(group, sender.clone()));
    let names: Vec<SenderKeyName> = names.collect();
    let mut failure = SignalError::NoSenderKey;
    for (at, name) in names.iter().enumerate() {
        if at == 1 {
            request(store, names.iter().skip(1)).map_err(StepError::Miss)?;
        }
        match read(store, name, &message) {
            Ok(plaintext) => {
                return Ok(GroupPlaintext { plaintext, sender: at, id: message.id, iteration: message.iteration });
            }
            Err(StepError::Signal(SignalError::NoSenderKey)) => {}
            Err(StepError::Signal(SignalError::BadSignature)) => failure = SignalError::BadSignature,
            // The signature holds, so this is the key, and there is no other.
            Err(other) => return Err(other),
        }
    }
    Err(failure.into())
}

/// Removes all sender keys of a device in a group.
///
/// # Errors
/// The record is not loaded; nothing was removed then.
pub fn forget<S: SenderKeyStore>(store: &mut S, name: &SenderKeyName) -> Result<(), S::Miss> {
    if let Some(record) = store.sender_key(name)? {
        record.page_ids().for_each(|id| store.delete_sender_key_page(name, id));
        store.delete_sender_key(name);
    }
    Ok(())
}

/// Moves the sender keys of a device to another name of the same device: its number became known to be a LID
/// (spec 03 §4.10).
///
/// Keys that stand under the new name already stay in front. A key that both have is united: what was read under either
/// name cannot be read again.
///
/// # Errors
/// [`StepError::Miss`] when a record is not loaded, [`SignalError::Exhausted`] after 2^32 keys; nothing was moved then.
pub fn relocate<S: SenderKeyStore>(
    store: &mut S,
    from: &SenderKeyName,
    to: &SenderKeyName,
) -> Result<(), StepError<S::Miss>> {
    if from == to {
        return Ok(());
    }
    let (source, target) = (store.sender_key(from), store.sender_key(to));
    let (source, target) = (source.map_err(StepError::Miss)?, target.map_err(StepError::Miss)?.unwrap_or_default());
    let Some(source) = source else { return Ok(()) };
    let mut record = target.clone();
    let mut moved = Vec::new();
    for key in &source.keys {
        moved.extend(record.adopt(key)?.map(|serial| (serial, key.serial)));
    }
    let changed = changed_pages(&record, &target, &moved);
    let pages: Vec<_> = changed
        .iter()
        .map(|change| store.sender_key_page(if change.is_moved { from } else { to }, change.origin))
        .collect();
    let pages = pages.into_iter().collect::<Result<Vec<_>, _>>().map_err(StepError::Miss)?;

    source.page_ids().for_each(|id| store.delete_sender_key_page(from, id));
    let kept: Vec<SenderKeyPageId> = record.page_ids().collect();
    target.page_ids().filter(|id| !kept.contains(id)).for_each(|id| store.delete_sender_key_page(to, id));
    for (change, page) in changed.iter().zip(pages) {
        if let Some(mut page) = page {
            page.retain(change.bitmap);
            store.put_sender_key_page(to, change.page, page);
        }
    }
    store.delete_sender_key(from);
    store.put_sender_key(to, record);
    Ok(())
}

/// A page that another key, or fewer message keys, belong to than before.
struct PageChange {
    page: SenderKeyPageId,
    bitmap: u64,
    /// Where its message keys stand now, and whether that is under the old name.
    origin: SenderKeyPageId,
    is_moved: bool,
}

/// The pages of `record` that are not as they were in `target`. `moved` has the new and the old serials of its new keys.
fn changed_pages(
    record: &SenderKeyRecord,
    target: &SenderKeyRecord,
    moved: &[(SenderKeySerial, SenderKeySerial)],
) -> Vec<PageChange> {
    let mut changed = Vec::new();
    for key in &record.keys {
        let moved_from = moved.iter().find(|(new, _)| *new == key.serial).map(|(_, old)| *old);
        let before = target.keys.iter().find(|old| old.serial == key.serial);
        for entry in key.skipped.pages() {
            let is_same = before.is_some_and(|old| old.skipped.pages().contains(entry));
            if !is_same {
                changed.push(PageChange {
                    page: SenderKeyPageId { serial: key.serial, page: entry.page },
                    bitmap: entry.bitmap,
                    origin: SenderKeyPageId { serial: moved_from.unwrap_or(key.serial), page: entry.page },
                    is_moved: moved_from.is_some(),
                });
            }
        }
    }
    changed
}

/// Reads a message with the keys under one name.
fn read<S: SenderKeyStore>(
    store: &mut S,
    name: &SenderKeyName,
    message: &SenderKeyMessage<'_>,
) -> Result<Vec<u8>, StepError<S::Miss>> {
    let mut record = store.sender_key(name).map_err(StepError::Miss)?.ok_or(SignalError::NoSenderKey)?;
    let key = record.key_mut(message.id).ok_or(SignalError::NoSenderKey)?;
    // Counters first: they say which pages to load, and a step that must wait for those has cost nothing.
    let plan = key.plan(message.iteration);
    let pages = match &plan {
        Ok(plan) => load(store, name, &key.pages_for(plan, message.iteration)).map_err(StepError::Miss)?,
        Err(_) => Pages::new(),
    };
    // What the counters say counts only if the sender says it.
    key.verify(message)?;
    let (plaintext, writes) = key.read(plan?, message, pages)?;

    store.put_sender_key(name, record);
    for (id, page) in writes {
        match page {
            Some(page) => store.put_sender_key_page(name, id, page),
            None => store.delete_sender_key_page(name, id),
        }
    }
    Ok(plaintext)
}

/// Asks for all records before a miss counts.
fn request<'a, S: SenderKeyStore>(
    store: &mut S,
    names: impl Iterator<Item = &'a SenderKeyName>,
) -> Result<(), S::Miss> {
    let found: Vec<_> = names.map(|name| store.sender_key(name).map(drop)).collect();
    found.into_iter().collect()
}

/// Reads pages; all are asked for before a miss counts.
fn load<S: SenderKeyStore>(store: &mut S, name: &SenderKeyName, ids: &[SenderKeyPageId]) -> Result<Pages, S::Miss> {
    let found: Vec<_> = ids.iter().map(|id| store.sender_key_page(name, *id)).collect();
    let mut pages = Pages::with_capacity(found.len());
    for (id, page) in ids.iter().zip(found) {
        pages.extend(page?.map(|page| (*id, page)));
    }
    Ok(pages)
}
