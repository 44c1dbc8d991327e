//! Export and import: an account goes from one store into a sealed file, and from there into any other store.
//!
//! ```text
//!   store A ── export_account ──► file, sealed ── import_account ──► store B
//! ```
//!
//! The account does not run meanwhile: both take its lease. To move it, export it, import it, and
//! [remove](crate::store::Store::remove) it from the store where it was; an account that is connected from two places loses each connection to the
//! other.
//!
//! **A file may be older than what was sent since, and may be imported more than once.** Whoever goes on from an old state of a sender
//! chain encrypts other messages with keys that were used before. So nothing of a file is ever sent with: what is
//! imported receives in the sessions that it has, and begins new ones when it sends, with new sender keys for its groups and new prekeys for
//! the server. It costs a query of keys for each chat; what the other side sent in the meantime on keys that are
//! not in the file is asked for again. Sends that were accepted and not acknowledged when the file was
//! written are sent by both; recipients tell a message once, by its id. Events have the numbers that follow those of
//! the file.
//!
//! The file has the names, keys and messages of the account, and nobody reads or changes anything of it without the key. Only its length can be seen.

mod file;

use std::io;

use self::file::{Entry, Reader, SALT_LEN, Writer};
use crate::store::{AccountId, Batch, IMPORTED, Key, Lease, OutboxEntry, RecordKind, SealKey, Store, StoreError};

/// Records and events that are written at a time.
const BATCH: usize = 256;
/// Bytes of values after which a batch takes no more.
const BATCH_BYTES: usize = 1 << 20;
/// [`RecordKind::Imported`] while the import is not complete: such an account does not run, and may be imported again.
const UNDER_WAY: &[u8] = &[1];

/// Why an account was not exported or imported. After a failed import nothing of it is in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// A store failed; [`StoreError::Leased`]: the account runs.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read or written.
    #[error("the file: {0}")]
    Io(io::ErrorKind),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// The store does not have the account, or it was never linked.
    #[error("there is no such account")]
    NoAccount,
    /// The store has the account already.
    #[error("the account is there already")]
    Exists,
    /// The file is sealed with another key.
    #[error("the export is sealed with key {id}, which was not given")]
    UnknownKey {
        /// The number of the key.
        id: u32,
    },
    /// The file does not open: another key of the same number, or its bytes were changed, moved or left out.
    #[error("the export does not open: its key or its bytes are others")]
    Sealed,
    /// The file ends too early.
    #[error("the export is cut off")]
    Truncated,
    /// It is no file of ours, or of a newer version.
    #[error("not a usable export: {0}")]
    Format(&'static str),
    /// Something is larger than any account has it.
    #[error("{0} is too large for an export")]
    TooLarge(&'static str),
}

impl From<io::Error> for TransferError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// What an export or import took along.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transferred {
    /// The account.
    pub account: AccountId,
    /// Its records in the file.
    pub records: u64,
    /// Its events that no consumer has acknowledged.
    pub events: u64,
}

/// Writes an account to a file, which [`import_account`] reads. The store keeps it. In memory are a chunk of 64 KiB and
/// 256 records at a time. The file is written between reads of the store, on the calling thread.
///
/// # Errors
/// [`TransferError::NoAccount`], [`TransferError::Store`] (with [`StoreError::Leased`] while the account runs), [`TransferError::Io`];
/// what was written until then is no usable file.
///
/// ```
/// use wamd::{client::{TransferError, import_account}, crypto::Secret, store::{MemoryStore, SealKey}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (store, key) = (MemoryStore::new(), SealKey::new(1, Secret::new([7; 32])));
/// let imported = import_account(&store, &key, &mut &b"no export at all, but long enough to be the header of one"[..]).await;
/// assert_eq!(imported, Err(TransferError::Format("it is no export")));
/// # }
/// ```
pub async fn export_account(
    store: &dyn Store,
    account: &AccountId,
    key: &SealKey,
    out: &mut (dyn io::Write + Send),
) -> Result<Transferred, TransferError> {
    let lease = store.acquire(account).await?;
    let done = export_leased(store, account, key, out).await;
    give_back(lease).await;
    done
}

async fn export_leased(
    store: &dyn Store,
    account: &AccountId,
    key: &SealKey,
    out: &mut (dyn io::Write + Send),
) -> Result<Transferred, TransferError> {
    let linked = store.load(account, &[Key::new(RecordKind::Account, b"")]).await?;
    if linked.into_iter().flatten().next().is_none() {
        return Err(TransferError::NoAccount);
    }
    let mut salt = [0; SALT_LEN];
    getrandom::fill(&mut salt).map_err(|_| TransferError::Random)?;
    let mut file = Writer::begin(out, key, salt, account.as_str())?;
    for kind in RecordKind::ALL.into_iter().filter(|kind| travels(*kind)) {
        let mut from = Vec::new();
        loop {
            let records = store.scan_part(account, kind, &from, BATCH).await?;
            let Some((last, _)) = records.last() else { break };
            from = [&last.id[..], &[0]].concat();
            for (key, value) in &records {
                file.record(key, value)?;
            }
        }
    }
    let mut after = 0;
    loop {
        let events = store.outbox(account, after, BATCH).await?;
        let Some(last) = events.last() else { break };
        after = last.seq;
        for event in &events {
            file.event(event)?;
        }
    }
    // Nobody has written in between: a lease that was lost shows itself here.
    store.commit(account, Batch::default()).await?;
    let (records, events) = file.finish()?;
    Ok(Transferred { account: account.clone(), records, events })
}

/// Reads an account from a file into a store, under the name that it had. It can be started afterwards; see the
/// [module](self) for what is begun anew. In memory are a chunk of 64 KiB, and a batch of at most 256 records.
///
/// An import that was interrupted, by a crash for example, leaves an account that does not run; it is imported again with the
/// same call.
///
/// # Errors
/// [`TransferError::Exists`] if the store has anything of the account, and those of the file; nothing of it is in the store then.
pub async fn import_account(
    store: &dyn Store,
    key: &SealKey,
    input: &mut (dyn io::Read + Send),
) -> Result<Transferred, TransferError> {
    let (mut file, name) = Reader::begin(input, key)?;
    let account = AccountId::new(name);
    let lease = store.acquire(&account).await?;
    let done = import_leased(store, &account, &mut file).await;
    give_back(lease).await;
    done
}

async fn import_leased(
    store: &dyn Store,
    account: &AccountId,
    file: &mut Reader<'_>,
) -> Result<Transferred, TransferError> {
    let mark = store.load(account, &[imported_key()]).await?.into_iter().flatten().next();
    if mark.is_some_and(|mark| mark == UNDER_WAY) {
        store.remove(account).await?;
    } else if store.accounts().await?.contains(account) || !store.outbox(account, 0, 1).await?.is_empty() {
        return Err(TransferError::Exists);
    }
    let done = import_entries(store, account, file).await;
    if done.is_err() {
        // If this fails, too, the mark says that the account is not whole.
        store.remove(account).await?;
    }
    done
}

async fn import_entries(
    store: &dyn Store,
    account: &AccountId,
    file: &mut Reader<'_>,
) -> Result<Transferred, TransferError> {
    let mut batch = Batch { puts: vec![(imported_key(), UNDER_WAY.into())], ..Batch::default() };
    let (mut records, mut events, mut bytes) = (0_u64, 0_u64, 0_usize);
    let (mut last_key, mut last_event) = (None, None);
    // Comes last: without it there is no account.
    let mut linked = None;
    loop {
        match file.entry()? {
            Entry::Record(key, value) => {
                if last_key.as_ref().is_some_and(|last| *last >= key) {
                    return Err(TransferError::Format("its records are not in order"));
                }
                last_key = Some(key.clone());
                records = records.saturating_add(1);
                bytes = bytes.saturating_add(value.len());
                if key.kind == RecordKind::Account {
                    linked = Some((key, value));
                } else if travels(key.kind) {
                    batch.puts.push((key, value));
                }
            }
            Entry::Event(OutboxEntry { seq, body }) => {
                if last_event.is_some_and(|last| last >= seq) {
                    return Err(TransferError::Format("its events are not in order"));
                }
                last_event = Some(seq);
                events = events.saturating_add(1);
                bytes = bytes.saturating_add(body.len());
                batch.events.push(OutboxEntry { seq, body });
            }
            Entry::End { records: all_records, events: all_events } => {
                if (all_records, all_events) != (records, events) {
                    return Err(TransferError::Format("it says that there is more in it"));
                }
                break;
            }
        }
        if batch.puts.len().saturating_add(batch.events.len()) >= BATCH || bytes >= BATCH_BYTES {
            store.commit(account, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    store.commit(account, batch).await?;
    let linked = linked.ok_or(TransferError::Format("the account itself is not in it"))?;
    let puts = vec![linked, (imported_key(), IMPORTED.into())];
    store.commit(account, Batch { puts, ..Batch::default() }).await?;
    Ok(Transferred { account: account.clone(), records, events })
}

/// Whether records of a kind go along. Sender keys of our own do not: somebody else may go on with them.
const fn travels(kind: RecordKind) -> bool {
    !matches!(kind, RecordKind::OwnSenderKey | RecordKind::SenderKeyMarks | RecordKind::Imported)
}

fn imported_key() -> Key {
    Key::new(RecordKind::Imported, b"")
}

async fn give_back(lease: Lease) {
    if let Err(error) = lease.release().await {
        tracing::warn!(%error, "the lease of the account was not given back");
    }
}
