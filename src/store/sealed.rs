//! Encryption at rest: a store whose values are sealed before a backend sees them.
//!
//! ```text
//! value    01 | key number, u32 big-endian | nonce, 24 bytes | ciphertext | tag, 16 bytes       45 bytes more than the plaintext
//! nonce    HMAC-SHA-256(MAC key, associated data, plaintext), its first 24 bytes
//! bound    the header, the account, and kind and id of the record or number of the event
//! ```
//!
//! Values of records and bodies of events are sealed with XAES-256-GCM under a key of the caller. A value that is moved to another
//! record, kind or account does not open there. Several keys may be given: the newest one seals, each opens what it
//! sealed, and [`SealedStore::reseal`] brings an account to the newest.
//!
//! **Nonces are derived and not drawn** (the construction of SIV): two different values get different nonces, but for a collision of 192 bits
//! of HMAC, so one key is good for more values than any disk holds, and neither a bad source of randomness nor a machine
//! that was restored from a snapshot uses one twice. The price: who reads the disk sees when a record returns to exactly the value
//! that it had before.
//!
//! **What is not hidden**: names of accounts, kinds and ids of records (they hold phone numbers), numbers of events, lengths. Nor is it
//! noticed when somebody who writes to the disk deletes a record or puts back an older value of it. Encrypt the disk for that.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{AccountId, Batch, Key, Lease, OutboxEntry, RecordKind, Store, StoreError, StoreFuture};
use crate::crypto::{HmacSha256, Secret, XAesGcm, hkdf_sha256};

/// The first byte of a sealed value.
const VERSION: u8 = 1;
/// Bytes before the ciphertext.
const HEADER_LEN: usize = 1 + 4 + NONCE_LEN;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
/// Records that [`SealedStore::reseal`] writes at a time.
const RESEAL_BATCH: usize = 256;

/// A key that seals values, and the number under which values name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealKey {
    id: u32,
    secret: Secret<32>,
}

impl SealKey {
    /// A key of 32 bytes that nobody can guess: random, or derived from something random, never a password as it is. The
    /// number is the caller's; it is stored in the clear and must not be given to another key.
    pub const fn new(id: u32, secret: Secret<32>) -> Self {
        Self { id, secret }
    }

    /// The number.
    pub const fn id(&self) -> u32 {
        self.id
    }

    #[cfg(feature = "client")]
    pub(crate) const fn secret(&self) -> &Secret<32> {
        &self.secret
    }
}

/// What [`SealedStore::reseal`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resealed {
    /// Records that are sealed with the newest key now, and were not before.
    pub records: u64,
    /// Events in the outbox that an older key has sealed: they go when they are acknowledged. That key is needed until then.
    pub older_events: u64,
}

/// A store that seals what the one inside of it keeps. Every value in that one must be sealed: a store that was used without
/// keys is not readable through this.
///
/// ```
/// use wamd::{crypto::Secret, store::{MemoryStore, SealKey, SealedStore}};
///
/// # let (first, second) = ([1; 32], [2; 32]);
/// // Key 2 seals from now on; key 1 opens what was sealed before.
/// let (newest, older) = (SealKey::new(2, Secret::new(second)), SealKey::new(1, Secret::new(first)));
/// let store = SealedStore::new(MemoryStore::new(), &newest).with_older(&older);
/// # drop(store);
/// ```
#[derive(Clone)]
pub struct SealedStore<S> {
    inner: S,
    keys: Keys,
}

impl<S: Store> SealedStore<S> {
    /// Seals everything with this key.
    pub fn new(inner: S, key: &SealKey) -> Self {
        let newest = key.id;
        Self { inner, keys: Keys { newest, all: BTreeMap::from([(newest, Sealer::new(key))]) } }
    }

    /// Opens what an older key has sealed, too. A key with the number of the newest is ignored.
    #[must_use]
    pub fn with_older(mut self, key: &SealKey) -> Self {
        self.keys.all.entry(key.id).or_insert_with(|| Sealer::new(key));
        self
    }

    /// The store inside.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Seals every record of an account with the newest key that an older one has sealed. It takes the account's
    /// lease for that: what runs would write over it. An interrupted pass is taken up by the next.
    ///
    /// # Errors
    /// [`StoreError::Leased`] while the account runs. [`StoreError::UnknownKey`] and [`StoreError::Sealed`] for a value that does not open: what was sealed anew until then
    /// stays so, the rest is as it was. Else what the store inside answers.
    pub async fn reseal(&self, account: &AccountId) -> Result<Resealed, StoreError> {
        let lease = self.inner.acquire(account).await?;
        let done = self.reseal_leased(account).await;
        lease.release().await?;
        done
    }

    /// Opens records.
    fn open_all(&self, account: &AccountId, records: Vec<(Key, Bytes)>) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let open = |(key, value): (Key, Bytes)| {
            let value = self.keys.open(account, Place::Record(&key), &value)?;
            Ok((key, value))
        };
        records.into_iter().map(open).collect()
    }

    async fn reseal_leased(&self, account: &AccountId) -> Result<Resealed, StoreError> {
        let mut done = Resealed::default();
        for kind in RecordKind::ALL {
            let stored = self.inner.scan(account, kind).await?;
            let older: Vec<(Key, Bytes)> =
                stored.into_iter().filter(|(_, value)| key_id(value) != Some(self.keys.newest)).collect();
            for some in older.chunks(RESEAL_BATCH) {
                let open = |(key, value): &(Key, Bytes)| {
                    Ok((key.clone(), self.keys.open(account, Place::Record(key), value)?))
                };
                let puts = some.iter().map(open).collect::<Result<_, _>>()?;
                self.commit(account, Batch { puts, ..Batch::default() }).await?;
                done.records = done.records.saturating_add(some.len() as u64);
            }
        }
        let mut after = 0;
        loop {
            let page = self.inner.outbox(account, after, RESEAL_BATCH).await?;
            let Some(last) = page.last() else { return Ok(done) };
            after = last.seq;
            let older = page.iter().filter(|event| key_id(&event.body) != Some(self.keys.newest)).count();
            done.older_events = done.older_events.saturating_add(older as u64);
        }
    }
}

impl<S: Store> Store for SealedStore<S> {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        self.inner.acquire(account)
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        // Here, and not in the future: a call takes its place when it is made.
        let values = self.inner.load(account, keys);
        Box::pin(async move {
            let open = |(key, value): (&Key, Option<Bytes>)| {
                value.map(|value| self.keys.open(account, Place::Record(key), &value)).transpose()
            };
            keys.iter().zip(values.await?).map(open).collect()
        })
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        let records = self.inner.scan(account, kind);
        Box::pin(async move { self.open_all(account, records.await?) })
    }

    fn scan_part<'a>(
        &'a self,
        account: &'a AccountId,
        kind: RecordKind,
        from: &'a [u8],
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        let records = self.inner.scan_part(account, kind, from, limit);
        Box::pin(async move { self.open_all(account, records.await?) })
    }

    fn commit(&self, account: &AccountId, mut batch: Batch) -> StoreFuture<'static, ()> {
        for (key, value) in &mut batch.puts {
            *value = self.keys.seal(account, Place::Record(key), value);
        }
        for OutboxEntry { seq, body } in &mut batch.events {
            *body = self.keys.seal(account, Place::Event(*seq), body);
        }
        self.inner.commit(account, batch)
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        let events = self.inner.outbox(account, after, limit);
        Box::pin(async move {
            let open = |OutboxEntry { seq, body }| {
                Ok(OutboxEntry { seq, body: self.keys.open(account, Place::Event(seq), &body)? })
            };
            events.await?.into_iter().map(open).collect()
        })
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        self.inner.trim_outbox(account, through)
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        self.inner.accounts()
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        self.inner.remove(account)
    }
}

impl<S: fmt::Debug> fmt::Debug for SealedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&u32> = self.keys.all.keys().collect();
        f.debug_struct("SealedStore").field("inner", &self.inner).field("keys", &keys).finish()
    }
}

/// All keys, and which one seals.
#[derive(Clone)]
struct Keys {
    newest: u32,
    all: BTreeMap<u32, Sealer>,
}

/// What one key does.
#[derive(Clone)]
struct Sealer {
    cipher: XAesGcm,
    mac: HmacSha256,
}

/// Where a value stands.
#[derive(Clone, Copy)]
enum Place<'a> {
    Record(&'a Key),
    Event(u64),
}

impl Keys {
    fn seal(&self, account: &AccountId, place: Place<'_>, plain: &[u8]) -> Bytes {
        #[expect(clippy::expect_used, reason = "`new` puts it there, and nothing takes one away")]
        let sealer = self.all.get(&self.newest).expect("the newest key is one of them");
        let bound = bound(self.newest, account, place);
        let mac = sealer.mac.mac(&[&bound, plain]);
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        let mut sealed = Vec::with_capacity(HEADER_LEN.saturating_add(plain.len()).saturating_add(TAG_LEN));
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.newest.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let ciphertext = sealed.get_mut(HEADER_LEN..).unwrap_or_default();
        let tag = sealer.cipher.seal_detached(&nonce, &bound, ciphertext);
        sealed.extend_from_slice(&tag);
        sealed.into()
    }

    fn open(&self, account: &AccountId, place: Place<'_>, sealed: &[u8]) -> Result<Bytes, StoreError> {
        const SHORT: StoreError = StoreError::Sealed("it is too short");
        let (version, rest) = sealed.split_first().ok_or(SHORT)?;
        if *version != VERSION {
            return Err(StoreError::Sealed("it is not sealed, or by a newer version"));
        }
        let (id, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (nonce, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let id = u32::from_be_bytes(*id);
        let sealer = self.all.get(&id).ok_or(StoreError::UnknownKey { id })?;
        let mut plain = rest.to_vec();
        let opened = sealer.cipher.open(nonce, &bound(id, account, place), &mut plain).map(|plain| plain.len());
        let len = opened.map_err(|_| StoreError::Sealed("its key, its place or its bytes are others"))?;
        plain.truncate(len);
        Ok(plain.into())
    }
}

impl Sealer {
    fn new(key: &SealKey) -> Self {
        let keys: Zeroizing<[u8; 64]> = Zeroizing::new(hkdf_sha256(None, key.secret.expose(), b"wamd sealed values 1"));
        let (mut cipher, mut mac) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        let (left, right) = keys.split_at(32);
        cipher.copy_from_slice(left);
        mac.copy_from_slice(right);
        Self { cipher: XAesGcm::new(&cipher), mac: HmacSha256::new(&*mac) }
    }
}

/// What a value is bound to, so that no two places are written alike: lengths stand before what has no fixed one.
fn bound(key: u32, account: &AccountId, place: Place<'_>) -> Vec<u8> {
    let account = account.as_str().as_bytes();
    let mut bound = Vec::with_capacity(account.len().saturating_add(96));
    bound.push(VERSION);
    bound.extend_from_slice(&key.to_be_bytes());
    bound.extend_from_slice(&(account.len() as u64).to_be_bytes());
    bound.extend_from_slice(account);
    match place {
        Place::Record(key) => {
            bound.extend_from_slice(&[0, key.kind as u8]);
            bound.extend_from_slice(&(key.id.len() as u64).to_be_bytes());
            bound.extend_from_slice(&key.id);
        }
        Place::Event(seq) => {
            bound.push(1);
            bound.extend_from_slice(&seq.to_be_bytes());
        }
    }
    bound
}

/// The number of the key that sealed a value.
fn key_id(sealed: &[u8]) -> Option<u32> {
    let (version, rest) = sealed.split_first()?;
    (*version == VERSION).then_some(u32::from_be_bytes(*rest.first_chunk()?))
}
