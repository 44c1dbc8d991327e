//! One state of a session: root key, sender chain, receiver chains.
//!
//! The other side turns when it answers with a new ratchet key. Reading that takes one exchange; the second one, for our new
//! chain, waits until something is sent (as X3DH and double ratchet §3.2 have it, only later):
//!
//! ```text
//!             begin_sending, or a message encrypted: root step with a fresh key
//!        ┌───────────────────────────────────────────────────────────────┐
//!      Due                                                             Chain
//!        └───────────────────────────────────────────────────────────────┘
//!             a message of an unknown ratchet key: root step with ours, which is then dropped
//! ```
//!
//! A chain that may have been used elsewhere is closed: nothing is sent on it any more, and the other side can still turn on its ratchet key.

use bytes::BufMut;

use crate::crypto::{CryptoRng, KeyPair, PublicKey, Secret};

use super::{
    PageId, PreKeyId, SignalError, SignedPreKeyId, StateId,
    chain::{ChainKey, root_step},
    codec::{Put, Reader, VERSION},
    lease::{Lease, Leased},
    skipped::SkippedIndex,
};

/// Receiver chains kept per state; the oldest is dropped (spec 03 §2.9).
pub(super) const MAX_RECEIVERS: usize = 5;

/// One state of a session, current or archived.
///
/// It knows which message keys were skipped, but not the keys: see [`super::SkippedPage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) id: StateId,
    pub(super) local_identity: PublicKey,
    pub(super) remote_identity: PublicKey,
    pub(super) local_registration_id: u32,
    pub(super) remote_registration_id: u32,
    /// The initiator's base key: two pkmsgs with the same belong to the same session.
    pub(super) base_key: PublicKey,
    /// After the last step of either direction.
    pub(super) root: Secret<32>,
    /// The last counter of the sender chain before this one.
    pub(super) previous_counter: u32,
    /// Set as long as the other side has not answered. The base key to send is [`Self::base_key`].
    pub(super) pending: Option<Pending>,
    pub(super) sender: Sender,
    /// Oldest first.
    pub(super) receivers: Vec<ReceiverChain>,
    /// The serial number of the next receiver chain.
    pub(super) next_chain: u32,
}

/// The prekeys of the other side that an unanswered session was built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) pre_key: Option<PreKeyId>,
    pub(super) signed_pre_key: SignedPreKeyId,
}

/// What we send with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// Nothing: some stores of other clients have such states.
    Missing,
    /// The other side has turned, with the ratchet key of the newest receiver chain. Our half of the turn is made when
    /// something is sent; until then nobody knows a key of ours that a message could turn on.
    Due,
    /// A chain.
    Chain(SenderChain),
    /// What is left of a chain that may have been used elsewhere.
    Closed {
        ratchet: KeyPair,
        /// Where the chain stood.
        counter: u32,
    },
}

/// The chain that we send on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SenderChain {
    pub(super) ratchet: KeyPair,
    pub(super) chain: ChainKey,
    pub(super) lease: Option<Lease>,
}

/// A chain that we receive on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReceiverChain {
    pub(super) serial: u32,
    pub(super) ratchet: PublicKey,
    pub(super) chain: ChainKey,
    pub(super) skipped: SkippedIndex,
}

/// Where the sender chain stands. A counter lease is taken on a ratchet key, and void when that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderPosition {
    /// The ratchet key of the chain.
    pub ratchet: PublicKey,
    /// The counter that the next message will have.
    pub counter: u32,
}

impl State {
    /// Writes the record of an archived state.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIZE_HINT);
        self.write_to(&mut out);
        out
    }

    /// Writes the record behind what `out` holds.
    pub fn write_to(&self, out: &mut impl BufMut) {
        out.put_u8(VERSION);
        self.encode_into(out);
    }

    /// Reads the record of an archived state.
    ///
    /// # Errors
    /// [`SignalError::RecordVersion`] or [`SignalError::Record`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let mut reader = Reader::new("state", bytes)?;
        let state = Self::decode_from(&mut reader)?;
        reader.finish()?;
        Ok(state)
    }

    /// Moves the sender chain forward to `counter`, which skips what was reserved but perhaps sent before a crash.
    ///
    /// # Errors
    /// [`SignalError::NoSession`] without a sender chain (there is then nothing that could be reserved), [`SignalError::TooFarAhead`] for more than 2,000 counters
    /// (the other side would not follow). A counter behind the chain changes nothing.
    pub fn advance_sender(&mut self, counter: u32) -> Result<(), SignalError> {
        let Sender::Chain(sender) = &mut self.sender else { return Err(SignalError::NoSession) };
        let jump = counter.saturating_sub(sender.chain.index);
        if jump > MAX_ADVANCE {
            return Err(SignalError::TooFarAhead { jump, max: MAX_ADVANCE });
        }
        for _ in 0..jump {
            sender.chain = sender.chain.next()?;
        }
        Ok(())
    }

    /// Makes sure that the sender chain has a lease of this run before its record is written. Without a chain nothing was sent.
    pub fn lease(&mut self, run: u32) -> Leased {
        match &mut self.sender {
            Sender::Chain(sender) => Lease::renew(&mut sender.lease, &sender.chain, run),
            Sender::Missing | Sender::Due | Sender::Closed { .. } => Leased::Held,
        }
    }

    /// The record was read in this run: what an earlier one may have sent is passed over. A chain of a run before `first` is closed:
    /// the record is a copy, and somebody else may have gone on from the same state.
    ///
    /// # Errors
    /// [`SignalError::TooFarAhead`] for a lease that nobody takes, [`SignalError::Exhausted`] at the end of a chain.
    pub fn resume(mut self, run: u32, first: u32) -> Result<Self, SignalError> {
        if let Sender::Chain(sender) = &mut self.sender {
            if Lease::is_of_run_before(sender.lease, first) {
                self.sender = Sender::Closed { ratchet: sender.ratchet.clone(), counter: sender.chain.index };
            } else {
                Lease::resume(&mut sender.lease, &mut sender.chain, run)?;
            }
        }
        Ok(self)
    }

    /// Whether it has a chain to send on, or can begin one.
    pub(super) const fn can_send(&self) -> bool {
        matches!(self.sender, Sender::Due | Sender::Chain(_))
    }

    /// Makes the sender chain if it is due, with a ratchet key drawn from `rng`. Encrypting does it by itself; to do it
    /// before takes the curve work out of the way of the next message.
    ///
    /// # Errors
    /// [`SignalError::NoSession`] if nothing can be sent with this state.
    pub fn begin_sending(&mut self, rng: &mut impl CryptoRng) -> Result<(), SignalError> {
        self.sender_chain(rng).map(drop)
    }

    /// The chain to send on, made if it is due. An error leaves the state as it was.
    pub(super) fn sender_chain(&mut self, rng: &mut impl CryptoRng) -> Result<&mut SenderChain, SignalError> {
        if self.sender == Sender::Due {
            let theirs = &self.receivers.last().ok_or(SignalError::NoSession)?.ratchet;
            let ratchet = KeyPair::generate(rng);
            let (root, chain) = root_step(&self.root, ratchet.private(), theirs)?;
            self.root = root;
            self.sender = Sender::Chain(SenderChain { ratchet, chain, lease: None });
        }
        match &mut self.sender {
            Sender::Chain(sender) => Ok(sender),
            Sender::Missing | Sender::Due | Sender::Closed { .. } => Err(SignalError::NoSession),
        }
    }

    /// The id under which the state and its pages are stored.
    pub const fn id(&self) -> StateId {
        self.id
    }

    /// The identity of the other side.
    pub const fn remote_identity(&self) -> &PublicKey {
        &self.remote_identity
    }

    /// The registration id that the other side had when the session was set up.
    pub const fn remote_registration_id(&self) -> u32 {
        self.remote_registration_id
    }

    /// The initiator's base key, which names the session.
    pub const fn base_key(&self) -> &PublicKey {
        &self.base_key
    }

    /// The other side has not answered yet, so that messages go out as pkmsg.
    pub const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Where the sender chain stands; `None` also when it is not made yet, because the other side has turned since.
    pub fn sender(&self) -> Option<SenderPosition> {
        let Sender::Chain(sender) = &self.sender else { return None };
        Some(SenderPosition { ratchet: *sender.ratchet.public(), counter: sender.chain.index })
    }

    /// Both sides have the same identity.
    pub(super) fn is_self(&self) -> bool {
        self.local_identity == self.remote_identity
    }

    /// The position of the receiver chain with a ratchet key.
    pub(super) fn receiver(&self, ratchet: &PublicKey) -> Option<usize> {
        // Newest first: messages are mostly of the newest chain.
        self.receivers.iter().rposition(|chain| chain.ratchet == *ratchet)
    }

    /// The ids of all pages with skipped keys.
    pub(super) fn page_ids(&self) -> impl Iterator<Item = PageId> {
        self.receivers.iter().flat_map(|chain| {
            chain.skipped.pages().iter().map(|entry| PageId { state: self.id, chain: chain.serial, page: entry.page })
        })
    }

    pub(super) fn encode_into(&self, out: &mut impl BufMut) {
        out.put_u32(self.id.0);
        out.put_slice(self.local_identity.as_bytes());
        out.put_slice(self.remote_identity.as_bytes());
        out.put_u32(self.local_registration_id);
        out.put_u32(self.remote_registration_id);
        out.put_slice(self.base_key.as_bytes());
        out.put_slice(self.root.expose());
        out.put_u32(self.previous_counter);
        match self.pending {
            None => out.put_u8(0),
            Some(Pending { pre_key: None, signed_pre_key }) => {
                out.put_u8(1);
                out.put_u32(signed_pre_key.0);
            }
            Some(Pending { pre_key: Some(pre_key), signed_pre_key }) => {
                out.put_u8(2);
                out.put_u32(signed_pre_key.0);
                out.put_u32(pre_key.0);
            }
        }
        match &self.sender {
            Sender::Missing => out.put_u8(0),
            Sender::Chain(sender) => {
                out.put_u8(if sender.lease.is_some() { 3 } else { 1 });
                out.put_pair(&sender.ratchet);
                encode_chain(out, &sender.chain);
                sender.lease.iter().for_each(|lease| lease.encode_into(out));
            }
            Sender::Due => out.put_u8(2),
            Sender::Closed { ratchet, counter } => {
                out.put_u8(4);
                out.put_pair(ratchet);
                out.put_u32(*counter);
            }
        }
        out.put_u32(self.next_chain);
        out.put_count(self.receivers.len());
        for receiver in &self.receivers {
            out.put_u32(receiver.serial);
            out.put_slice(receiver.ratchet.as_bytes());
            encode_chain(out, &receiver.chain);
            receiver.skipped.encode_into(out);
        }
    }

    pub(super) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, SignalError> {
        let id = StateId(reader.u32()?);
        let (local_identity, remote_identity) = (reader.public()?, reader.public()?);
        let (local_registration_id, remote_registration_id) = (reader.u32()?, reader.u32()?);
        let (base_key, root, previous_counter) = (reader.public()?, reader.secret()?, reader.u32()?);
        let pending = match reader.u8()? {
            0 => None,
            1 => Some(Pending { signed_pre_key: SignedPreKeyId(reader.u32()?), pre_key: None }),
            2 => {
                Some(Pending { signed_pre_key: SignedPreKeyId(reader.u32()?), pre_key: Some(PreKeyId(reader.u32()?)) })
            }
            _ => return Err(reader.damaged("unknown tag of the pending prekey")),
        };
        let sender = match reader.u8()? {
            0 => Sender::Missing,
            tag @ (1 | 3) => {
                let (ratchet, chain) = (reader.pair()?, decode_chain(reader)?);
                let lease = if tag == 3 { Some(Lease::decode_from(reader)?) } else { None };
                Sender::Chain(SenderChain { ratchet, chain, lease })
            }
            2 => Sender::Due,
            4 => Sender::Closed { ratchet: reader.pair()?, counter: reader.u32()? },
            _ => return Err(reader.damaged("unknown tag of the sender chain")),
        };
        let next_chain = reader.u32()?;
        let count = reader.count(MAX_RECEIVERS)?;
        reader.ensure(count > 0 || sender != Sender::Due, "nobody turned, but a turn is due")?;
        let mut receivers: Vec<ReceiverChain> = Vec::with_capacity(count);
        for _ in 0..count {
            let (serial, ratchet, chain) = (reader.u32()?, reader.public()?, decode_chain(reader)?);
            let unique = receivers.iter().all(|other| other.serial != serial) && serial < next_chain;
            reader.ensure(unique, "serial number of a receiver chain is not its own")?;
            let skipped = SkippedIndex::decode_from(reader, chain.index)?;
            receivers.push(ReceiverChain { serial, ratchet, chain, skipped });
        }
        Ok(Self {
            id,
            local_identity,
            remote_identity,
            local_registration_id,
            remote_registration_id,
            base_key,
            root,
            previous_counter,
            pending,
            sender,
            receivers,
            next_chain,
        })
    }
}

fn encode_chain(out: &mut impl BufMut, chain: &ChainKey) {
    out.put_slice(chain.key.expose());
    out.put_u32(chain.index);
}

fn decode_chain(reader: &mut Reader<'_>) -> Result<ChainKey, SignalError> {
    Ok(ChainKey { key: reader.secret()?, index: reader.u32()? })
}

/// Bytes of a state with five receiver chains and nothing skipped, rounded up.
pub(super) const SIZE_HINT: usize = 704;
/// Counters that a sender may skip at most: what every known receiver follows.
const MAX_ADVANCE: u32 = 1_999;
