//! The storage contract: what the engine keeps, under which keys, and what a backend promises.
//!
//! A backend is a small key-value store with one log per account:
//!
//! ```text
//! records   (account, kind, id) → bytes            load, scan, commit
//! outbox    (account, seq)      → event as JSON    appended by commit, read and trimmed by the consumer
//! ```
//!
//! **A [`Batch`] is atomic and durable: after `commit` answered `Ok`, all of it survives a crash; a crash before the
//! answer leaves all of it or nothing.** A caller has at most one `commit` per account under way; what comes up meanwhile it
//! joins into the next batch ([`Batch::append`]). The engine lets nothing out of the process that depends on a batch
//! before that answer (`ARCHITECTURE.md`, "Gate").
//!
//! **One store runs an account.** Who starts one takes its [`Lease`] first ([`Store::acquire`]); a second one is refused, and one that lost
//! its lease cannot write any more.
//!
//! What stands in a record is the engine's business: each has a version byte of its own. Backends never look inside.
//! [`MemoryStore`] is for tests and throw-away accounts, [`SqliteStore`] (feature `sqlite`) is the embedded default.
//! `PostgresStore` (feature `postgres`) is for several nodes. [`SealedStore`] encrypts what any of them keeps.

#[cfg(any(test, feature = "client", feature = "postgres", feature = "sqlite"))]
pub mod contract;
mod lease;
mod memory;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod pending;
#[cfg(feature = "postgres")]
mod postgres;
mod sealed;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use compact_str::CompactString;
use smallvec::SmallVec;

pub use lease::Lease;
pub use memory::{MemorySnapshot, MemoryStore};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStats, PostgresStore};
pub use sealed::{Resealed, SealKey, SealedStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStats, SqliteStore, Synchronous};

/// The embedding program's name of an account (a session id). Opaque; at most 255 bytes by convention.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(CompactString);

impl AccountId {
    /// Any text.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(CompactString::new(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a record holds. The numbers are stored: they never change, and a retired one is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum RecordKind {
    /// The account itself: keys, registration, own JIDs, counters. One record, empty id.
    Account = 1,
    /// Next sequence number of the outbox. One record, empty id.
    OutboxHead = 2,
    /// One-time prekey; id = prekey id, u32 big-endian.
    PreKey = 3,
    /// Signed prekey; id = signed prekey id, u32 big-endian.
    SignedPreKey = 4,
    /// Identity key of a remote device; id = address.
    Identity = 5,
    /// Current session with a remote device; id = address.
    Session = 6,
    /// Which archived states a remote device has; id = address.
    ArchiveIndex = 7,
    /// One archived session state; id = address, 0, state id.
    ArchivedState = 8,
    /// Up to 64 skipped message keys; id = address, 0, page id.
    SkippedPage = 9,
    /// Devices of a user; id = user JID.
    DeviceList = 10,
    /// The other identity (PN or LID) of a user; id = user JID.
    LidMap = 11,
    /// A send that was accepted and is not acknowledged by the server yet; id = message id.
    Outgoing = 12,
    /// A sent message, for receipts and retries; id = chat JID, 0, message id. How far a user got with it; id = chat JID, 0,
    /// message id, 0, user JID.
    Sent = 13,
    /// A received message id; id = chat, 0, sender, 0, message id.
    Received = 14,
    /// How often a resend of a message was asked for; id as in `Received`.
    RetryCount = 15,
    /// A key of the app-state collections, as the primary shared it; id = key id.
    AppStateKey = 16,
    /// Our own sender key for a group, a status or a broadcast list; id = chat JID, 0, own address.
    OwnSenderKey = 17,
    /// The sender keys of another device in a chat; id = chat JID, 0, address.
    SenderKey = 18,
    /// Up to 64 skipped message keys of a sender key; id = chat JID, 0, address, 0, page id.
    SenderKeyPage = 19,
    /// Which devices have our sender key for a chat; id = chat JID.
    SenderKeyMarks = 20,
    /// What is known of a group; id = group JID.
    Group = 21,
    /// The secret of a message, for what refers to it later; id as in `Received`.
    MessageSecret = 22,
    /// The privacy token of a user; id = user JID.
    PrivacyToken = 23,
    /// What was sent again to a device, and the base key of its session then; id = address, 0, message id. When its session
    /// was renewed; id = address.
    ResendBaseKey = 24,
    /// A message that our own phone is asked for; id as in `Received`.
    Placeholder = 25,
    /// Records that are kept for a time, oldest first. The state of a queue; id = its number, u8. An entry; id = its number, 0,
    /// number of the entry, u64 big-endian.
    Expiry = 26,
    /// The chats in which another device handed us sender keys; id = address.
    SenderKeyChats = 27,
    /// The account was imported. One record, empty id: 1 while that is under way, 2 when it is done and the account was not loaded since.
    Imported = 28,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 28] = [
        Self::Account,
        Self::OutboxHead,
        Self::PreKey,
        Self::SignedPreKey,
        Self::Identity,
        Self::Session,
        Self::ArchiveIndex,
        Self::ArchivedState,
        Self::SkippedPage,
        Self::DeviceList,
        Self::LidMap,
        Self::Outgoing,
        Self::Sent,
        Self::Received,
        Self::RetryCount,
        Self::AppStateKey,
        Self::OwnSenderKey,
        Self::SenderKey,
        Self::SenderKeyPage,
        Self::SenderKeyMarks,
        Self::Group,
        Self::MessageSecret,
        Self::PrivacyToken,
        Self::ResendBaseKey,
        Self::Placeholder,
        Self::Expiry,
        Self::SenderKeyChats,
        Self::Imported,
    ];
}

/// [`RecordKind::Imported`] of an import that is complete.
pub(crate) const IMPORTED: &[u8] = &[2];

/// The key of one record of an account.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What the record holds.
    pub kind: RecordKind,
    /// Which one of its kind; arbitrary bytes, usually below 80.
    pub id: SmallVec<[u8; 80]>,
}

impl Key {
    /// Puts a key together.
    pub fn new(kind: RecordKind, id: impl AsRef<[u8]>) -> Self {
        Self { kind, id: SmallVec::from_slice(id.as_ref()) }
    }

    /// A key whose id is several parts with a zero byte between them.
    pub fn joined(kind: RecordKind, parts: &[&[u8]]) -> Self {
        let mut id = SmallVec::new();
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                id.push(0);
            }
            id.extend_from_slice(part);
        }
        Self { kind, id }
    }

    /// A key whose id is the texts of several things with a zero byte between them.
    pub fn texts(kind: RecordKind, parts: &[&dyn fmt::Display]) -> Self {
        let mut key = Self { kind, id: SmallVec::new() };
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                key.id.push(0);
            }
            // Only a `Display` that refuses by itself can fail, and what it wrote is its text then.
            let _written = write!(Id(&mut key.id), "{part}");
        }
        key
    }
}

/// An id that is written.
struct Id<'a>(&'a mut SmallVec<[u8; 80]>);

impl fmt::Write for Id<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl fmt::Debug for Key {
    /// The kind only: ids hold phone numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}[{}]", self.kind, self.id.len())
    }
}

/// One event that waits for the consumer.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Position in the account's outbox: from 1, without gaps. That there are none is the engine's care; a backend
    /// takes any number that is not in the outbox yet, and may refuse those above `i64::MAX`.
    pub seq: u64,
    /// The event's envelope as JSON.
    pub body: Bytes,
}

impl fmt::Debug for OutboxEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboxEntry({}, {} bytes)", self.seq, self.body.len())
    }
}

/// Everything that one step of the engine changes: applied whole or not at all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Removes every record of the account first; its outbox stays.
    pub clear: bool,
    /// Records written; at most one entry per key, and none of a key in `deletes`. Values may share memory with each other: who keeps
    /// one for long copies it.
    pub puts: Vec<(Key, Bytes)>,
    /// Records removed; removing an absent one is not an error.
    pub deletes: Vec<Key>,
    /// Events appended to the outbox, in order.
    pub events: Vec<OutboxEntry>,
}

impl fmt::Debug for Batch {
    /// Kinds of records, and no contents: these are keys and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let puts: Vec<&Key> = self.puts.iter().map(|(key, _)| key).collect();
        f.debug_struct("Batch")
            .field("clear", &self.clear)
            .field("puts", &puts)
            .field("deletes", &self.deletes)
            .field("events", &self.events)
            .finish()
    }
}

impl Batch {
    /// Whether nothing would change.
    pub const fn is_empty(&self) -> bool {
        !self.clear && self.puts.is_empty() && self.deletes.is_empty() && self.events.is_empty()
    }

    /// Joins a later batch to this one: what it writes or removes wins.
    pub fn append(&mut self, later: Self) {
        if later.clear {
            self.clear = true;
            self.puts.clear();
            self.deletes.clear();
        }
        let touched: HashSet<&Key> = later.puts.iter().map(|(key, _)| key).chain(&later.deletes).collect();
        self.puts.retain(|(key, _)| !touched.contains(key));
        self.deletes.retain(|key| !touched.contains(key));
        self.puts.extend(later.puts);
        self.deletes.extend(later.deletes);
        self.events.extend(later.events);
    }
}

/// What a backend answers when it could not do its work. Nothing of a failed batch is visible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The backend failed (disk full, I/O error, connection lost); the text is its own and holds no record content.
    #[error("store failed: {0}")]
    Backend(String),
    /// The database is not one of ours, or of a newer version.
    #[error("not a usable database: {0}")]
    Incompatible(String),
    /// The database is damaged.
    #[error("database is damaged: {0}")]
    Damaged(String),
    /// An event of the batch has the sequence number of one that is in the outbox, or of another one in the batch. A
    /// second writer runs the same account, or the caller went on from an old state.
    #[error("event {seq} is in the outbox already")]
    Conflict {
        /// The sequence number that was taken.
        seq: u64,
    },
    /// Another store runs the account: another process, another node, or another client of this process.
    #[error("the account is run by {by}")]
    Leased {
        /// Who, in words of the backend.
        by: String,
        /// When the lease runs out unless it is renewed, unix milliseconds. `None`: when its owner ends, in whatever way.
        until: Option<u64>,
    },
    /// This store had the lease of the account, and another one has taken it meanwhile. What was acknowledged is stored;
    /// the account must not go on here.
    #[error("the lease of the account was lost")]
    LeaseLost,
    /// A value is sealed with a key that was not given. Nothing is wrong with the value.
    #[error("a value is sealed with key {id}, which was not given")]
    UnknownKey {
        /// The number of the key.
        id: u32,
    },
    /// A sealed value does not open: its key is another one of the same number, or it was changed, cut, put in the place
    /// of another one, or never sealed. It is left as it is.
    #[error("a sealed value does not open: {0}")]
    Sealed(&'static str),
    /// The store was shut down.
    #[error("store is closed")]
    Closed,
}

/// What the calls of a [`Store`] return: boxed, so that the trait is object-safe.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A storage backend. Test your own with [`contract`].
///
/// Every call takes its place in the store's queue when it is made, not when its future is first polled. A read may
/// also see batches that were queued after it, never a part of one.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Takes the account for this store: until the lease is gone, every write of another store to it fails with
    /// [`StoreError::Leased`]. The store renews the lease by itself. If another store took it after all, because this
    /// one was away for longer than its lease, every write here fails with [`StoreError::LeaseLost`], as long as the lost lease is
    /// held: a write counts only while its lease does. A backend that notices a loss by itself tells it by [`Lease::lost`]. Reads need no lease. Writes without one are for tools, and succeed while
    /// nobody has the account.
    ///
    /// # Errors
    /// [`StoreError::Leased`] if any store has the account, this one included.
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease>;

    /// Reads records; the answer has one entry per key, in order. Sees every batch whose `commit` was called before.
    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>>;

    /// Reads all records of a kind, ordered by id. Sees every batch whose `commit` was called before.
    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>>;

    /// Reads up to `limit` records of a kind whose id is not below `from`, ordered by id: a part of [`scan`](Self::scan), for
    /// those who read all of a large account. The next part begins at the last id with a zero byte behind it. A backend without it reads
    /// everything and leaves out the rest.
    fn scan_part<'a>(
        &'a self,
        account: &'a AccountId,
        kind: RecordKind,
        from: &'a [u8],
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        let all = self.scan(account, kind);
        Box::pin(async move { Ok(all.await?.into_iter().filter(|(key, _)| *key.id >= *from).take(limit).collect()) })
    }

    /// Applies a batch. The batch is queued when the call is made, not when the future is first polled; the future
    /// is ready once the batch is durable. Dropping the future does not take the batch back. Batches of several
    /// accounts may share one transaction.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if an event's sequence number is taken, [`StoreError::Leased`] and [`StoreError::LeaseLost`] as
    /// `acquire` says, else whatever the backend reports. The batch
    /// then has no effect: the caller starts again from what is stored.
    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()>;

    /// Reads up to `limit` events with a sequence number above `after`, in order.
    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>>;

    /// Removes the events up to and including `through`: the consumer has them. Those that are gone already are not
    /// an error.
    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()>;

    /// The accounts that have at least one record, in no particular order.
    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>>;

    /// Removes everything of an account, its outbox included. An unknown account is not an error.
    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()>;
}

/// A shared store is a store.
impl<S: Store + ?Sized> Store for Arc<S> {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        (**self).acquire(account)
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        (**self).load(account, keys)
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        (**self).scan(account, kind)
    }

    fn scan_part<'a>(
        &'a self,
        account: &'a AccountId,
        kind: RecordKind,
        from: &'a [u8],
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        (**self).scan_part(account, kind, from, limit)
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        (**self).commit(account, batch)
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        (**self).outbox(account, after, limit)
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        (**self).trim_outbox(account, through)
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        (**self).accounts()
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        (**self).remove(account)
    }
}
