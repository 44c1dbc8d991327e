//! One message against one state (spec 03 §2.4, §2.5).
//!
//! Decrypting goes in three parts, so that nothing changes before everything is known to be right:
//!
//! ```text
//! plan    counters only: which chain, what is skipped, which pages must be read      no key touched
//! open    derive, check the MAC, decrypt                                             &self
//! commit  the new chain if the other side turned; skipped keys into pages            &mut self, cannot fail half-way
//! ```

use crate::crypto::{CryptoRng, Secret, cipher::cbc_len};

use super::{
    Ciphertext, CiphertextKind, Own, PageId, SignalError, SkippedPage, State,
    chain::{ChainKey, MessageKeys, message_seed, root_step},
    skipped::{SkipPlan, SkippedIndex, SkippedKey, page_of},
    state::{MAX_RECEIVERS, ReceiverChain, Sender, SenderChain},
    wire::{PreKeyMessage, WhisperMessage},
};

/// Counters that a message may skip (spec 03 §2.9).
const MAX_JUMP: u32 = 2_000;
/// The same in a session of an identity with itself.
const MAX_JUMP_SELF: u32 = 25_000;
/// Hash steps that further candidate states may cost after the first one (spec 03 §8.3).
const EXTRA_WORK: u32 = 6_000;

/// The hash steps that a stanza may still cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget(u32);

impl Budget {
    /// What a stanza may cost that is tried against this state first.
    pub(super) fn of(first: Option<&State>) -> Self {
        Self(first.map_or(MAX_JUMP, State::max_jump).saturating_add(EXTRA_WORK))
    }

    fn charge(&mut self, steps: u32) -> Result<(), SignalError> {
        self.0 = self.0.checked_sub(steps).ok_or(SignalError::TooFarAhead { jump: steps, max: self.0 })?;
        Ok(())
    }
}

/// How a state would read a message.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    /// With a key that was skipped before.
    Late { chain: usize },
    /// By moving a receiver chain forward, or a new one if there is none for the ratchet key.
    Forward { chain: Option<usize>, skips: Option<SkipPlan> },
}

/// Pages that a plan asked for, as far as they exist.
pub(super) type Pages = Vec<(PageId, SkippedPage)>;

/// What a message gives, and what it would change.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) plaintext: Vec<u8>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Late {
        chain: usize,
    },
    Forward {
        chain: Option<usize>,
        /// The root key after the receiving half of a turn.
        root: Option<Secret<32>>,
        next: ChainKey,
        /// The chain keys of the skipped counters to keep; their seeds are derived once the message is known to be real.
        passed: Vec<Secret<32>>,
        skips: Option<SkipPlan>,
    },
}

/// Pages to write, or to delete (`None`).
pub(super) type PageWrites = Vec<(PageId, Option<SkippedPage>)>;

static NOTHING_SKIPPED: SkippedIndex = SkippedIndex::new();

impl State {
    /// Encrypts the next message of the sender chain, with a fresh ratchet key if the other side has turned.
    pub(super) fn encrypt(
        &mut self,
        own: &Own<'_>,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Ciphertext, SignalError> {
        let previous_counter = self.previous_counter;
        let (local, remote) = (self.local_identity, self.remote_identity);
        let sender = self.sender_chain(rng)?;
        let (seed, next) = sender.chain.step()?;
        let keys = MessageKeys::derive(&seed);
        let (ratchet, counter) = (sender.ratchet.public(), sender.chain.index);
        let mut bytes = WhisperMessage::begin(ratchet, counter, previous_counter, cbc_len(plaintext.len()));
        keys.append(plaintext, &mut bytes);
        let mac = keys.mac(&local, &remote, &bytes);
        bytes.extend_from_slice(&mac);
        sender.chain = next;
        let Some(pending) = &self.pending else {
            return Ok(Ciphertext { kind: CiphertextKind::Whisper, bytes: bytes.into() });
        };
        let outer = PreKeyMessage {
            pre_key_id: pending.pre_key,
            base_key: self.base_key,
            identity: self.local_identity,
            message: &bytes,
            registration_id: own.registration_id,
            signed_pre_key_id: pending.signed_pre_key,
        };
        Ok(Ciphertext { kind: CiphertextKind::PreKey, bytes: outer.encode().into() })
    }

    /// Decides from the counters how to read a message.
    pub(super) fn plan(&self, message: &WhisperMessage<'_>, budget: &mut Budget) -> Result<Plan, SignalError> {
        let chain = self.receiver(&message.ratchet);
        let receiver = chain.and_then(|at| self.receivers.get(at));
        let (next, skipped) = receiver.map_or((0, &NOTHING_SKIPPED), |found| (found.chain.index, &found.skipped));
        if let Some(chain) = chain
            && message.counter < next
        {
            return if skipped.contains(message.counter) {
                Ok(Plan::Late { chain })
            } else {
                Err(SignalError::Duplicate)
            };
        }
        let jump = message.counter.saturating_sub(next);
        if jump > self.max_jump() {
            return Err(SignalError::TooFarAhead { jump, max: self.max_jump() });
        }
        match &self.sender {
            Sender::Missing if chain.is_none() => return Err(SignalError::NoSession),
            // It could only turn on a key that we have not drawn.
            Sender::Due if chain.is_none() => return Err(SignalError::BadMac),
            _ => {}
        }
        budget.charge(jump)?;
        Ok(Plan::Forward { chain, skips: skipped.plan(next, message.counter) })
    }

    /// The pages that must be read before [`Self::open`].
    pub(super) fn pages_for(&self, plan: &Plan, message: &WhisperMessage<'_>) -> impl Iterator<Item = PageId> {
        let (chain, late, skips) = match plan {
            Plan::Late { chain } => (Some(*chain), Some(page_of(message.counter)), None),
            Plan::Forward { chain, skips } => (*chain, None, skips.as_ref()),
        };
        let rewrites = skips.map_or(&[][..], |skips| &skips.rewrites);
        let pages = rewrites.iter().filter(|(_, exists)| *exists).map(|(entry, _)| entry.page).chain(late);
        let serial = chain.and_then(|at| self.receivers.get(at)).map(|receiver| receiver.serial);
        let state = self.id;
        pages.filter_map(move |page| Some(PageId { state, chain: serial?, page }))
    }

    /// Checks and decrypts a message.
    pub(super) fn open(&self, plan: Plan, message: &WhisperMessage<'_>, pages: &Pages) -> Result<Opened, SignalError> {
        let (keys, step) = match plan {
            Plan::Late { chain } => {
                let key = pages.iter().find_map(|(_, page)| page.key(message.counter));
                let missing = SignalError::Record { what: "skipped page", reason: "a key of the index is not there" };
                (key.ok_or(missing)?.message_keys(), Step::Late { chain })
            }
            Plan::Forward { chain, skips } => self.step_forward(chain, skips, message)?,
        };
        keys.verify(&self.remote_identity, &self.local_identity, message.body, message.mac)?;
        Ok(Opened { plaintext: keys.decrypt(message.ciphertext)?, step })
    }

    /// Takes a message over that was opened. An error leaves the state as it was.
    pub(super) fn commit(
        &mut self,
        step: Opened,
        message: &WhisperMessage<'_>,
        pages: Pages,
        writes: &mut PageWrites,
    ) -> Result<Vec<u8>, SignalError> {
        let Opened { plaintext, step } = step;
        match step {
            Step::Late { chain } => self.take_late(chain, message.counter, pages, writes),
            Step::Forward { chain, root, next, passed, skips } => {
                if let Some(root) = root {
                    self.turn(root, message, writes)?;
                }
                // A new chain was put at the end.
                let at = chain.unwrap_or_else(|| self.receivers.len().saturating_sub(1));
                if let Some(receiver) = self.receivers.get_mut(at) {
                    receiver.chain = next;
                    if let Some(skips) = skips {
                        keep_skipped(self.id, receiver, skips, &passed, pages, writes);
                    }
                }
            }
        }
        self.pending = None;
        Ok(plaintext)
    }

    fn step_forward(
        &self,
        at: Option<usize>,
        skips: Option<SkipPlan>,
        message: &WhisperMessage<'_>,
    ) -> Result<(MessageKeys, Step), SignalError> {
        let (root, mut chain) = match at.and_then(|at| self.receivers.get(at)) {
            Some(receiver) => (None, receiver.chain.clone()),
            None => {
                let (Sender::Chain(SenderChain { ratchet, .. }) | Sender::Closed { ratchet, .. }) = &self.sender else {
                    return Err(SignalError::NoSession);
                };
                let (root, chain) = root_step(&self.root, ratchet.private(), &message.ratchet)?;
                (Some(root), chain)
            }
        };
        let keep_from = skips.as_ref().map_or(message.counter, |skips| skips.keep_from);
        let mut passed = Vec::with_capacity(message.counter.saturating_sub(keep_from) as usize);
        while chain.index < message.counter {
            let next = chain.next()?;
            if chain.index >= keep_from {
                passed.push(chain.key);
            }
            chain = next;
        }
        let (seed, next) = chain.step()?;
        Ok((MessageKeys::derive(&seed), Step::Forward { chain: at, root, next, passed, skips }))
    }

    /// The other side has turned: a receiver chain for its key, and a sender chain that is due.
    fn turn(
        &mut self,
        root: Secret<32>,
        message: &WhisperMessage<'_>,
        writes: &mut PageWrites,
    ) -> Result<(), SignalError> {
        let serial = self.next_chain;
        let next_chain = serial.checked_add(1).ok_or(SignalError::Exhausted("receiver chain number"))?;
        self.next_chain = next_chain;
        self.root = root;
        // The last counter used on the retired chain; 0 also if none was (spec 03 §2.4).
        self.previous_counter = match &self.sender {
            Sender::Chain(old) => old.chain.index.saturating_sub(1),
            Sender::Closed { counter, .. } => counter.saturating_sub(1),
            Sender::Missing | Sender::Due => 0,
        };
        self.sender = Sender::Due;
        if self.receivers.len() >= MAX_RECEIVERS {
            let dropped = self.receivers.remove(0);
            let pages = dropped.skipped.pages().iter();
            writes.extend(pages.map(|entry| (page_id(self.id, &dropped, entry.page), None)));
        }
        self.receivers.push(ReceiverChain {
            serial,
            ratchet: message.ratchet,
            // Replaced by the caller at once, by the key behind the message.
            chain: ChainKey::first(Secret::new([0; 32])),
            skipped: SkippedIndex::default(),
        });
        Ok(())
    }

    /// Removes the key of a late message.
    fn take_late(&mut self, at: usize, counter: u32, pages: Pages, writes: &mut PageWrites) {
        let Some(receiver) = self.receivers.get_mut(at) else { return };
        let id = page_id(self.id, receiver, page_of(counter));
        let mut page = take_page(pages, id);
        page.retain(receiver.skipped.bitmap_without(counter));
        store_page(receiver, id, page, writes);
    }

    fn max_jump(&self) -> u32 {
        if self.is_self() { MAX_JUMP_SELF } else { MAX_JUMP }
    }
}

/// Puts the keys of skipped counters into pages.
fn keep_skipped(
    state: super::StateId,
    receiver: &mut ReceiverChain,
    skips: SkipPlan,
    passed: &[Secret<32>],
    mut pages: Pages,
    writes: &mut PageWrites,
) {
    for page in skips.deletes {
        writes.push((page_id(state, receiver, page), None));
    }
    receiver.skipped = skips.index;
    let mut seeds = (skips.keep_from..).zip(passed).peekable();
    for (entry, _) in skips.rewrites {
        let id = page_id(state, receiver, entry.page);
        let at = pages.iter().position(|(found, _)| *found == id);
        let mut page = at.map(|at| pages.swap_remove(at).1).unwrap_or_default();
        page.retain(entry.bitmap);
        while let Some((counter, key)) = seeds.next_if(|(counter, _)| page_of(*counter) == entry.page) {
            page.insert(counter, SkippedKey::Seed(message_seed(key)));
        }
        store_page(receiver, id, page, writes);
    }
}

/// Writes a page and lets the index say what it really holds.
fn store_page(receiver: &mut ReceiverChain, id: PageId, page: SkippedPage, writes: &mut PageWrites) {
    receiver.skipped.set(id.page, page.bitmap());
    writes.push((id, (!page.is_empty()).then_some(page)));
}

fn take_page(pages: Pages, id: PageId) -> SkippedPage {
    pages.into_iter().find(|(found, _)| *found == id).map(|(_, page)| page).unwrap_or_default()
}

const fn page_id(state: super::StateId, receiver: &ReceiverChain, page: u32) -> PageId {
    PageId { state, chain: receiver.serial, page }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_states_together_may_cost_eight_thousand_steps() {
        let mut budget = Budget::of(None);
        (0..4).for_each(|_| budget.charge(MAX_JUMP).unwrap());
        assert_eq!(budget.charge(1), Err(SignalError::TooFarAhead { jump: 1, max: 0 }));
    }
}
