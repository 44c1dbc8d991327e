//! The secrets of messages: what reactions, votes, edits, comments and replies of bots are encrypted with (spec 03 §5.8).
//!
//! ```text
//! chat, author, id          → secret, until when it is kept, and for a poll its options with their votes
//! chat, author, id, voter   → what somebody voted last
//! ```
//!
//! A message, ours or somebody's, leaves its secret with the batch that stores it. People go by the identity that records
//! are kept under; what was kept before the LID was known is found under the phone number. A secret whose time is up counts
//! as absent, and goes when somebody asks for it.

use bytes::Bytes;

use crate::{
    crypto::Secret,
    engine::{
        address::User,
        records::{MessageSecretRecord, PollOption, PollVoteRecord, Record},
        step::{Miss, Step},
    },
    jid::Jid,
    message::{MessageId, Normalised, normalise::poll_of, secret},
    store::{Key, RecordKind},
};

/// Options of a poll that are kept; official clients allow 12, and more can be added to some polls.
const MAX_OPTIONS: usize = secret::addon::MAX_OPTIONS;

/// Longest option that is kept, bytes; official clients allow 100 characters.
const MAX_OPTION: usize = 512;

/// A message whose secret is known.
#[derive(Debug)]
pub(crate) struct Kept {
    key: Key,
    pub(crate) record: MessageSecretRecord,
}

impl Kept {
    /// The secret; `None` when the record is damaged.
    pub(crate) fn secret(&self) -> Option<Secret<32>> {
        Secret::from_slice(&self.record.secret).ok()
    }

    /// Seconds between the message and `at`, for the window in which it may be edited.
    pub(crate) fn age(&self, at: u64) -> u64 {
        at.saturating_sub(self.record.sent)
    }

    /// Writes a changed record.
    pub(crate) fn store(self, step: &mut Step<'_>) {
        step.put(self.key, self.record.to_bytes());
    }

    /// Counts a vote in place of what this voter voted before, and tells whether it did: an older vote than the known one
    /// changes nothing. The tally stays that of the options the poll has.
    ///
    /// # Errors
    /// [`Miss`].
    pub(crate) fn count(
        &mut self,
        step: &mut Step<'_>,
        voter: &User,
        hashes: &[[u8; 32]],
        at_ms: i64,
    ) -> Result<bool, Miss> {
        let keys: Vec<Key> = voter.identities().map(|voter| vote_key(&self.key, voter)).collect();
        step.require(&keys)?;
        let mut before = None;
        for key in &keys {
            if let Some(record) = step.record::<PollVoteRecord>(key)? {
                before = Some(record);
                break;
            }
        }
        if before.as_ref().is_some_and(|before| before.at_ms > at_ms) {
            return Ok(false);
        }
        let before = before.unwrap_or_default().hashes;
        for option in &mut self.record.options {
            let hash = secret::option_hash(&option.name);
            let had = before.iter().any(|before| before[..] == hash);
            let has = hashes.contains(&hash);
            option.votes = match (had, has) {
                (false, true) => option.votes.saturating_add(1),
                (true, false) => option.votes.saturating_sub(1),
                _ => option.votes,
            };
        }
        for key in keys.iter().skip(1) {
            step.delete(key.clone());
        }
        if let Some(key) = keys.into_iter().next() {
            let hashes = hashes.iter().map(|hash| Bytes::copy_from_slice(hash)).collect();
            step.put(key, PollVoteRecord { at_ms, hashes }.to_bytes());
        }
        step.put(self.key.clone(), self.record.to_bytes());
        Ok(true)
    }

    /// Takes over the options of a poll that was changed. Votes stay with the options that stay.
    pub(crate) fn set_options<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        let before = std::mem::take(&mut self.record.options);
        let votes = |name: &str| before.iter().find(|option| option.name == name).map_or(0, |option| option.votes);
        let options = names
            .filter(|name| name.len() <= MAX_OPTION)
            .take(MAX_OPTIONS)
            .map(|name| PollOption { name: name.to_owned(), votes: votes(name) });
        self.record.options = options.collect();
    }

    /// Takes one more option over; false when it is there already, or there are too many.
    pub(crate) fn add_option(&mut self, name: &str) -> bool {
        let options = &mut self.record.options;
        let is_new =
            options.len() < MAX_OPTIONS && name.len() <= MAX_OPTION && options.iter().all(|option| option.name != name);
        if is_new {
            options.push(PollOption { name: name.to_owned(), votes: 0 });
        }
        is_new
    }
}

fn secret_key(chat: &Jid, author: &Jid, id: &str) -> Key {
    Key::texts(RecordKind::MessageSecret, &[chat, author, &id])
}

fn vote_key(poll: &Key, voter: &Jid) -> Key {
    Key::joined(RecordKind::MessageSecret, &[&poll.id, voter.to_string().as_bytes()])
}

/// Keeps the secret of a message, if it has one that may be asked for. `sent` is when it was sent, unix seconds.
pub(crate) fn remember(step: &mut Step<'_>, chat: &User, author: &User, id: &str, sent: u64, message: &Normalised<'_>) {
    let (Some(keep), Some(secret)) = (secret::retention(message), message.message_secret()) else { return };
    if MessageId::new(id).is_err() {
        return;
    }
    let options = poll_of(message).map(|poll| &poll.options[..]).unwrap_or_default();
    let options = options.iter().filter_map(|option| option.option_name.clone());
    let options = options.filter(|name| name.len() <= MAX_OPTION).take(MAX_OPTIONS);
    let record = MessageSecretRecord {
        secret: secret.to_vec(),
        expires: step.now.unix_seconds().saturating_add(keep.as_secs()),
        sent,
        options: options.map(|name| PollOption { name, votes: 0 }).collect(),
    };
    step.put(secret_key(&chat.canonical, &author.canonical, id), record.to_bytes());
}

/// The message with this id that somebody wrote in a chat, if its secret is known.
///
/// # Errors
/// [`Miss`].
pub(crate) fn lookup(step: &mut Step<'_>, chat: &User, author: &User, id: &str) -> Result<Option<Kept>, Miss> {
    if MessageId::new(id).is_err() {
        return Ok(None);
    }
    let authors = || author.identities();
    let keys: Vec<Key> =
        chat.identities().flat_map(|chat| authors().map(move |author| secret_key(chat, author, id))).collect();
    step.require(&keys)?;
    let now = step.now.unix_seconds();
    for key in keys {
        match step.record::<MessageSecretRecord>(&key)? {
            Some(record) if record.expires > now => return Ok(Some(Kept { key, record })),
            Some(_) => step.delete(key),
            None => {}
        }
    }
    Ok(None)
}
