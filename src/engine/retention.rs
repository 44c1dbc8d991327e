//! Records that are kept for a time: which, how long, and how they go without the store being searched.
//!
//! | kinds | kept |
//! |---|---|
//! | what we sent, to send it again | 7 days, and at most so many bytes ([`Config`]) |
//! | that a message was received, asked for (of its sender or of our phone), or sent again | 14 days |
//! | secrets of messages, what was voted | 30 days, of polls and events 90 ([`secret::retention`](crate::message::secret::retention)) |
//!
//! Each row is a queue. A batch that makes a record of these kinds appends an entry with its key to the queue, so the oldest
//! record is always the one at the front, and trimming reads entries whose keys are known: they are numbers.
//!
//! ```text
//!   batch: new record ──► entry `next`, head { first, next, bytes }     (one small record more, in the same batch)
//!   due:   load entries first..first+SLICE ──► too old, or too many bytes? ──► delete record and entry, first += 1
//!                                                            └── no: the rest is younger, stop
//! ```
//!
//! **Why it is bounded.** In memory stand four heads. Whatever was made in the time that is kept is on disk, once, with its
//! entry; of what we sent, no more than the cap. A slice is [`SLICE`] entries and one batch. It is due with the first record
//! after a start, then with the first of an hour, and whenever the cap is passed; while slices are full they follow each
//! other. An account that makes no records grows by nothing.
//!
//! A record is new when the cache does not know of it. One that is written again after it left the cache gets a second entry,
//! and the first one counts: it goes no later than it would have. A clock that goes back keeps things longer, and one that
//! jumps ahead lets them go.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{Engine, Job};
use crate::{
    clock::Now,
    engine::{
        Config,
        records::{MessageSecretRecord, Record, record},
        retry::Note,
        step::{Miss, Needs, Step},
    },
    store::{Batch, Key, RecordKind},
};

/// Entries that are looked at in one step.
const SLICE: u64 = 64;
/// What is kept for a time, and nothing else is removed.
const KINDS: [RecordKind; 6] = [
    RecordKind::Sent,
    RecordKind::Received,
    RecordKind::RetryCount,
    RecordKind::ResendBaseKey,
    RecordKind::Placeholder,
    RecordKind::MessageSecret,
];
/// How often at most it is looked whether something is too old.
const PAUSE: Duration = Duration::from_secs(3_600);
const DAY: u64 = 86_400;
/// Seconds that most secrets are kept.
const SHORT_SECRETS: u64 = 30 * DAY;

/// A queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Sent,
    Marks,
    /// Secrets that are kept longest, and votes.
    Secrets,
    /// Secrets of everything but polls and events.
    ShortSecrets,
}

impl Queue {
    const ALL: [Self; 4] = [Self::Sent, Self::Marks, Self::Secrets, Self::ShortSecrets];

    /// The queue of a record that is made now; `None` for one that is kept until it is removed.
    fn of(now: Now, kind: RecordKind, value: &Bytes) -> Option<Self> {
        match kind {
            RecordKind::Sent => Some(Self::Sent),
            RecordKind::Received | RecordKind::RetryCount | RecordKind::ResendBaseKey | RecordKind::Placeholder => {
                Some(Self::Marks)
            }
            RecordKind::MessageSecret => {
                let soon = now.unix_seconds().saturating_add(SHORT_SECRETS);
                // A vote is no secret, and goes with the longest.
                let is_short = MessageSecretRecord::from_bytes(value).is_ok_and(|record| record.expires <= soon);
                Some(if is_short { Self::ShortSecrets } else { Self::Secrets })
            }
            _ => None,
        }
    }

    /// How long, in seconds.
    fn age(self, config: &Config) -> u64 {
        match self {
            Self::Sent => config.sent_age.as_secs(),
            Self::Marks => 14 * DAY,
            Self::Secrets => 90 * DAY,
            Self::ShortSecrets => SHORT_SECRETS,
        }
    }

    /// How many bytes.
    const fn cap(self, config: &Config) -> u64 {
        match self {
            Self::Sent => config.sent_bytes,
            Self::Marks | Self::Secrets | Self::ShortSecrets => u64::MAX,
        }
    }

    fn head_key(self) -> Key {
        Key::new(RecordKind::Expiry, [self as u8])
    }

    fn entry_key(self, number: u64) -> Key {
        Key::joined(RecordKind::Expiry, &[&[self as u8], &number.to_be_bytes()])
    }
}

/// The state of a queue.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
struct QueueRecord {
    /// Number of the oldest entry.
    #[prost(uint64, tag = "1")]
    first: u64,
    /// Number of the next one.
    #[prost(uint64, tag = "2")]
    next: u64,
    /// Of all records in it, as they were made.
    #[prost(uint64, tag = "3")]
    bytes: u64,
}
record!(QueueRecord);

/// One record that is kept for a time.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct EntryRecord {
    /// Unix seconds when it was made.
    #[prost(uint64, tag = "1")]
    at: u64,
    /// Its length then.
    #[prost(uint64, tag = "2")]
    bytes: u64,
    /// Its kind, by the number in the store.
    #[prost(uint32, tag = "3")]
    kind: u32,
    /// Its id.
    #[prost(bytes = "vec", tag = "4")]
    id: Vec<u8>,
}
record!(EntryRecord);

impl EntryRecord {
    fn key(&self) -> Option<Key> {
        let kind = RecordKind::ALL.into_iter().find(|kind| *kind as u32 == self.kind)?;
        KINDS.contains(&kind).then(|| Key::new(kind, &self.id))
    }
}

/// All queues of the account.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    queues: [QueueState; 4],
}

#[derive(Clone, Copy, Debug, Default)]
struct QueueState {
    head: QueueRecord,
    /// When it was last looked at, on the monotonic clock.
    looked: Option<Duration>,
    /// A slice is being loaded.
    busy: bool,
    /// The head is to be written with the batch.
    changed: bool,
}

impl Retention {
    /// The records that it begins with.
    pub(crate) fn keys() -> impl Iterator<Item = Key> {
        Queue::ALL.into_iter().map(Queue::head_key)
    }

    /// Takes over what is stored.
    pub(crate) fn restore(records: &[(Key, Option<Bytes>)]) -> Self {
        let mut restored = Self::default();
        for queue in Queue::ALL {
            let found = records.iter().find(|(key, _)| *key == queue.head_key());
            let head = found.and_then(|(_, value)| QueueRecord::from_bytes(value.as_ref()?).ok());
            restored.state(queue).head = head.unwrap_or_default();
        }
        restored
    }

    fn state(&mut self, queue: Queue) -> &mut QueueState {
        let [sent, marks, secrets, short_secrets] = &mut self.queues;
        match queue {
            Queue::Sent => sent,
            Queue::Marks => marks,
            Queue::Secrets => secrets,
            Queue::ShortSecrets => short_secrets,
        }
    }

    /// A batch makes a record.
    pub(crate) fn note(&mut self, now: Now, key: &Key, value: &Bytes, batch: &mut Batch) {
        let Some(queue) = Queue::of(now, key.kind, value) else { return };
        let bytes = value.len().saturating_add(key.id.len()) as u64;
        let entry = EntryRecord { at: now.unix_seconds(), bytes, kind: key.kind as u32, id: key.id.to_vec() };
        let state = self.state(queue);
        batch.puts.push((queue.entry_key(state.head.next), entry.to_bytes()));
        state.head.next = state.head.next.saturating_add(1);
        state.head.bytes = state.head.bytes.saturating_add(bytes);
        state.changed = true;
    }

    /// The batch is complete; whether it makes records that are kept for a time.
    pub(crate) fn seal(&mut self, batch: &mut Batch) -> bool {
        let mut any = false;
        for queue in Queue::ALL {
            let state = self.state(queue);
            if std::mem::take(&mut state.changed) {
                batch.puts.push((queue.head_key(), state.head.to_bytes()));
                any = true;
            }
        }
        any
    }

    /// A queue that must be looked at, which is under way from now on.
    fn due(&mut self, now: Now, config: &Config) -> Option<Queue> {
        let due = Queue::ALL.into_iter().find(|queue| {
            let state = self.state(*queue);
            let late = state.looked.is_none_or(|at| now.mono.saturating_sub(at) >= PAUSE);
            !state.busy && state.head.first < state.head.next && (late || state.head.bytes > queue.cap(config))
        })?;
        let state = self.state(due);
        (state.busy, state.looked) = (true, Some(now.mono));
        Some(due)
    }
}

/// The next entries of a queue.
fn slice(queue: Queue, head: &QueueRecord) -> Vec<Key> {
    let end = head.first.saturating_add(SLICE).min(head.next);
    (head.first..end).map(|number| queue.entry_key(number)).collect()
}

/// Removes what is too old, or too much; gives the state of the queue then.
fn trim(step: &mut Step<'_>, queue: Queue, mut head: QueueRecord) -> Result<QueueRecord, Miss> {
    let keys = slice(queue, &head);
    step.require(&keys)?;
    let (now, age, cap) = (step.now.unix_seconds(), queue.age(step.config), queue.cap(step.config));
    let before = head;
    for key in keys {
        // An entry that cannot be read names nothing that could be removed.
        if let Some(entry) = step.record::<EntryRecord>(&key)? {
            if now.saturating_sub(entry.at) < age && head.bytes <= cap {
                break;
            }
            head.bytes = head.bytes.saturating_sub(entry.bytes);
            if let Some(record) = entry.key() {
                if record.kind == RecordKind::Placeholder {
                    step.note(Note::Settled(record.clone()));
                }
                step.delete(record);
            }
        }
        step.delete(key);
        head.first = head.first.saturating_add(1);
    }
    if head.first == head.next {
        head.bytes = 0;
    }
    if head != before {
        step.put(queue.head_key(), head.to_bytes());
    }
    Ok(head)
}

impl Engine {
    /// Looks at what may be too old, if it is time.
    pub(super) fn trim_records(&mut self, now: Now) {
        while let Some(queue) = self.retention.due(now, &self.config) {
            let needs = Needs { missing: slice(queue, &self.retention.state(queue).head), read: Vec::new() };
            self.park(Job::Trim(queue), needs);
        }
    }

    /// A slice of a queue is loaded.
    pub(super) fn run_trim(&mut self, now: Now, queue: Queue) {
        let head = self.retention.state(queue).head;
        match self.step(now, |step| trim(step, queue, head)) {
            Err(needs) => self.park(Job::Trim(queue), needs),
            Ok(after) => {
                let state = self.retention.state(queue);
                let full = after.first.saturating_sub(head.first) >= SLICE;
                (state.head, state.busy) = (after, false);
                if full {
                    state.looked = None;
                }
                self.trim_records(now);
            }
        }
    }
}
