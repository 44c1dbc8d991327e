//! One step of the engine: what a handler reads and what it wants to happen.
//!
//! A handler reads records through [`Step::read`] and friends. A record that is not in the cache is noted and the
//! handler returns [`Miss`]; its writes are dropped, the record is loaded, and the handler runs again from the start.
//! What it writes, sends and emits is collected here and takes effect only when it returns `Ok`: as one batch, with
//! everything else waiting for it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;

use crate::{
    clock::Now,
    engine::{
        account::Account,
        cache::Cache,
        command::{CommandError, CommandId, Reply},
        config::Config,
        queries::Query,
        records::Record,
        retry,
    },
    event::Event,
    node::Node,
    signal::{Leased, Own},
    stanza::receipt::{DeliveryReceipt, DeliveryReceipts},
    store::Key,
};

/// A record that the handler needs is not in the cache. Which ones stands in [`Step::needs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Miss;

/// What a step that missed needs to run again: both, at the same time.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Records to be loaded.
    pub(crate) missing: Vec<Key>,
    /// Records that were there, and must still be then.
    pub(crate) read: Vec<Key>,
}

impl Needs {
    /// Room for so many keys is kept from step to step.
    const KEPT: usize = 32;

    /// Its room, for another step.
    fn emptied(mut self) -> Self {
        for keys in [&mut self.missing, &mut self.read] {
            keys.clear();
            keys.shrink_to(Self::KEPT);
        }
        self
    }
}

/// An event, with the mark of the backlog.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) event: Event,
    pub(crate) offline: bool,
}

/// A stanza in the clear.
#[derive(Debug)]
pub(crate) enum Frame {
    /// Of its own.
    Own(Vec<u8>),
    /// Kept elsewhere, too, until the server has it.
    Kept(Bytes),
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Own(bytes)
    }
}

impl From<Frame> for Bytes {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Own(bytes) => bytes.into(),
            Frame::Kept(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Frame {
    fn from(bytes: Bytes) -> Self {
        Self::Kept(bytes)
    }
}

/// Collects what a handler does.
#[derive(Debug)]
pub(crate) struct Step<'e> {
    /// The time of the input.
    pub(crate) now: Now,
    /// The engine's configuration.
    pub(crate) config: &'e Config,
    /// The engine's randomness. A handler that runs again draws again.
    pub(crate) rng: &'e mut ChaCha20Rng,
    /// What is remembered of messages that cannot be read.
    pub(crate) retries: &'e retry::Memory,
    cache: &'e mut Cache,
    account: Arc<Account>,
    account_changed: bool,
    pub(super) overlay: BTreeMap<Key, Option<Bytes>>,
    pub(super) needs: Needs,
    pub(super) frames: Vec<Frame>,
    pub(super) receipts: Vec<DeliveryReceipts>,
    pub(super) events: Vec<Emitted>,
    pub(super) replies: Vec<(CommandId, Result<Reply, CommandError>)>,
    pub(super) asks: Vec<(Query, Node)>,
    pub(super) notes: Vec<retry::Note>,
    pub(super) clear: bool,
    /// A sender chain has a new lease.
    took_lease: bool,
    /// Leases cover the message that is sent.
    is_covered: bool,
}

/// What is left of a step when its borrows end.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) account: Option<Arc<Account>>,
    /// For the next step, which need not make room again.
    pub(super) needs: Needs,
    pub(super) overlay: BTreeMap<Key, Option<Bytes>>,
    pub(super) frames: Vec<Frame>,
    pub(super) receipts: Vec<DeliveryReceipts>,
    pub(super) events: Vec<Emitted>,
    pub(super) replies: Vec<(CommandId, Result<Reply, CommandError>)>,
    pub(super) asks: Vec<(Query, Node)>,
    pub(super) notes: Vec<retry::Note>,
    pub(super) clear: bool,
    pub(super) took_lease: bool,
    pub(super) is_covered: bool,
}

impl<'e> Step<'e> {
    pub(super) fn new(
        now: Now,
        config: &'e Config,
        rng: &'e mut ChaCha20Rng,
        cache: &'e mut Cache,
        retries: &'e retry::Memory,
        account: Arc<Account>,
    ) -> Self {
        Self {
            now,
            config,
            rng,
            retries,
            cache,
            account,
            account_changed: false,
            overlay: BTreeMap::new(),
            needs: Needs::default(),
            frames: Vec::new(),
            receipts: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
            asks: Vec::new(),
            notes: Vec::new(),
            clear: false,
            took_lease: false,
            is_covered: false,
        }
    }

    pub(super) fn collect(self) -> Collected {
        let account = self.account_changed.then_some(self.account);
        Collected {
            account,
            needs: self.needs.emptied(),
            overlay: self.overlay,
            frames: self.frames,
            receipts: self.receipts,
            events: self.events,
            replies: self.replies,
            asks: self.asks,
            notes: self.notes,
            clear: self.clear,
            took_lease: self.took_lease,
            is_covered: self.is_covered,
        }
    }

    /// The account as this step sees it.
    pub(crate) const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The account, to be changed; it is stored with the step.
    pub(crate) fn account_mut(&mut self) -> &mut Account {
        self.account_changed = true;
        Arc::make_mut(&mut self.account)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Miss`] when it has to be loaded first.
    pub(crate) fn read(&mut self, key: &Key) -> Result<Option<Bytes>, Miss> {
        if let Some(written) = self.overlay.get(key) {
            return Ok(written.clone());
        }
        match self.cache.read(key) {
            Some(value) => {
                self.cache.touch(key);
                self.needs.read.push(key.clone());
                Ok(value)
            }
            None => {
                self.needs.missing.push(key.clone());
                Err(Miss)
            }
        }
    }

    /// Declares several reads, so that all that are missing are loaded in one round.
    ///
    /// # Errors
    /// [`Miss`] when any has to be loaded first.
    pub(crate) fn require<'k>(&mut self, keys: impl IntoIterator<Item = &'k Key>) -> Result<(), Miss> {
        let mut all_there = Ok(());
        for key in keys {
            if self.read(key).is_err() {
                all_there = Err(Miss);
            }
        }
        all_there
    }

    /// Reads and decodes a record. One that cannot be decoded counts as absent and is reported to the log: what is
    /// read this way can be fetched or built again.
    ///
    /// # Errors
    /// [`Miss`] when it has to be loaded first.
    pub(crate) fn record<R: Record>(&mut self, key: &Key) -> Result<Option<R>, Miss> {
        Ok(self.read(key)?.and_then(|bytes| usable(R::from_bytes(&bytes), key)))
    }

    /// Writes a record.
    pub(crate) fn put(&mut self, key: Key, value: impl Into<Bytes>) {
        self.overlay.insert(key, Some(value.into()));
    }

    /// Removes a record.
    pub(crate) fn delete(&mut self, key: Key) {
        self.overlay.insert(key, None);
    }

    /// Sends a stanza once the step is durable, if the connection still stands then.
    pub(crate) fn send(&mut self, node: &Node) {
        match node.encode() {
            Ok(frame) => self.frames.push(frame.into()),
            // Our own stanzas are encodable; what could fail is a JID that came in and cannot go out.
            Err(error) => tracing::error!(tag = node.tag(), %error, "stanza cannot be encoded"),
        }
    }

    /// Sends an encoded message as soon as no crash can make us use its keys again: once the step is durable, or, if leases
    /// cover all that the step encrypted, once they are. It leaves after every message before it.
    pub(crate) fn send_message(&mut self, frame: Bytes) {
        self.is_covered = !self.took_lease;
        self.frames.push(frame.into());
    }

    /// A sender chain was written.
    pub(super) fn note_lease(&mut self, leased: Leased) {
        if leased == Leased::Taken {
            self.took_lease = true;
            // What says which run this is stands in the store before the first lease of it.
            if !self.account.is_run_stored {
                self.account_mut().is_run_stored = true;
            }
        }
    }

    /// Sends an encoded stanza once the step is durable.
    pub(crate) fn send_encoded(&mut self, frame: Bytes) {
        self.frames.push(frame.into());
    }

    /// Confirms that a message arrived, once the step is durable. Those of the backlog may go out together.
    pub(crate) fn confirm(&mut self, offline: bool, receipt: &DeliveryReceipt<'_>) {
        match offline {
            true => self.receipts.push(receipt.into()),
            false => self.send(&receipt.to_node()),
        }
    }

    /// Asks the server once the step is durable, unless it is being asked the same already. `request` has no id yet. Without a
    /// connection nothing is asked: only what may be left out goes this way.
    pub(crate) fn ask(&mut self, query: Query, request: Node) {
        self.asks.push((query, request));
    }

    /// Emits an event once the step is durable.
    pub(crate) fn emit(&mut self, event: impl Into<Event>) {
        self.events.push(Emitted { event: event.into(), offline: false });
    }

    /// Emits an event that belongs to a stanza, once the step is durable.
    pub(crate) fn emit_from(&mut self, offline: bool, event: impl Into<Event>) {
        self.events.push(Emitted { event: event.into(), offline });
    }

    /// Answers a command once the step is durable.
    pub(crate) fn reply(&mut self, command: CommandId, reply: Result<Reply, CommandError>) {
        self.replies.push((command, reply));
    }

    /// Has something about messages that cannot be read remembered, when the step is done.
    pub(crate) fn note(&mut self, note: retry::Note) {
        self.notes.push(note);
    }

    /// Removes every record of the account, before what the step writes.
    pub(crate) fn clear_records(&mut self) {
        self.overlay.clear();
        self.clear = true;
    }

    /// Reads a record of the Signal layer, in its own form. A damaged one counts as absent.
    pub(super) fn signal_record<T, E: std::fmt::Display>(
        &mut self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Option<T>, Miss> {
        Ok(self.read(key)?.and_then(|bytes| usable(decode(&bytes), key)))
    }
}

/// A damaged record counts as absent.
fn usable<T, E: std::fmt::Display>(decoded: Result<T, E>, key: &Key) -> Option<T> {
    decoded.inspect_err(|error| tracing::error!(?key, %error, "stored record is unusable")).ok()
}

/// Our own side of every session.
pub(crate) fn own(account: &Account) -> Own<'_> {
    Own { identity: &account.identity, registration_id: account.registration_id }
}
