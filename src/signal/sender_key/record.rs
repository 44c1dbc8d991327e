//! What is kept of another device's sender keys: which there are, where their chains stand, what they skipped.

use std::fmt;

use bytes::BufMut;

use super::{
    MAX_JUMP, Processed, SenderKeyId, SenderKeyPageId, SenderKeySerial,
    wire::{DistributionMessage, SenderKeyMessage},
};
use crate::{
    crypto::{PublicKey, Secret, aes256_cbc_append, aes256_cbc_decrypt, hkdf_sha256, xeddsa::VerifyingKey},
    signal::{
        SignalError, SkippedPage,
        chain::{ChainKey, message_seed},
        codec::{Put, Reader, VERSION},
        skipped::{SkipPlan, SkippedIndex, SkippedKey, page_of},
    },
};

/// Keys kept per sender; the oldest is dropped (spec 03 §2.9).
pub(super) const MAX_KEYS: usize = 5;

/// The sender keys of one device in one group, the one distributed last in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderKeyRecord {
    pub(super) keys: Vec<SenderKey>,
    /// The serial for the next key. Never reused, so that a late deletion cannot hit another key's pages.
    next_serial: u32,
}

/// One key of a sender.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SenderKey {
    pub(super) serial: SenderKeySerial,
    pub(super) id: SenderKeyId,
    pub(super) signing: PublicKey,
    /// The same key as it verifies; `None` if it is no key, and no message is its own.
    verifying: Option<VerifyingKey>,
    pub(super) chain: ChainKey,
    pub(super) skipped: SkippedIndex,
}

/// How a key would read a message.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    /// With a message key that was skipped before.
    Late,
    /// By moving the chain forward.
    Forward(Option<SkipPlan>),
}

/// Pages that a plan asked for, as far as they exist.
pub(super) type Pages = Vec<(SenderKeyPageId, SkippedPage)>;
/// Pages to write, or to delete (`None`).
pub(super) type PageWrites = Vec<(SenderKeyPageId, Option<SkippedPage>)>;

/// The two keys of one message (spec 03 §3.1).
#[derive(Debug)]
pub(super) struct GroupKeys {
    iv: Secret<16>,
    cipher: Secret<32>,
}

impl SenderKeyRecord {
    /// Writes the record: version, next serial, the keys with 111 bytes each and 12 for each page of skipped message keys.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.len().saturating_mul(128).saturating_add(7));
        self.write_to(&mut out);
        out
    }

    /// Writes the record behind what `out` holds.
    pub fn write_to(&self, out: &mut impl BufMut) {
        out.put_u8(VERSION);
        out.put_u32(self.next_serial);
        out.put_count(self.keys.len());
        for key in &self.keys {
            out.put_u32(key.serial.0);
            out.put_u32(key.id.0);
            out.put_slice(key.signing.as_bytes());
            out.put_u8(key.verifying.is_some().into());
            key.verifying.iter().for_each(|key| out.put_slice(key.as_bytes()));
            out.put_u32(key.chain.index);
            out.put_slice(key.chain.key.expose());
            key.skipped.encode_into(out);
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`SignalError::RecordVersion`] or [`SignalError::Record`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let mut reader = Reader::new("sender key", bytes)?;
        let next_serial = reader.u32()?;
        let count = reader.count(MAX_KEYS)?;
        let mut keys: Vec<SenderKey> = Vec::with_capacity(count);
        for _ in 0..count {
            let (serial, id) = (SenderKeySerial(reader.u32()?), SenderKeyId(reader.u32()?));
            let own_names = keys.iter().all(|key| key.serial != serial && key.id != id);
            reader.ensure(own_names && serial.0 < next_serial, "name of a key is not its own")?;
            let signing = reader.public()?;
            let verifying = match reader.u8()? {
                0 => None,
                1 => Some(VerifyingKey::from_bytes(reader.array()?)),
                _ => return Err(reader.damaged("unknown flag")),
            };
            let index = reader.u32()?;
            let chain = ChainKey { index, key: reader.secret()? };
            let skipped = SkippedIndex::decode_from(&mut reader, index)?;
            keys.push(SenderKey { serial, id, signing, verifying, chain, skipped });
        }
        reader.finish()?;
        Ok(Self { keys, next_serial })
    }

    /// The ids of the keys and the iteration that each chain stands at, newest first.
    pub fn positions(&self) -> impl Iterator<Item = (SenderKeyId, u32)> {
        self.keys.iter().map(|key| (key.id, key.chain.index))
    }

    /// The pages that belong to the record.
    pub fn page_ids(&self) -> impl Iterator<Item = SenderKeyPageId> {
        self.keys.iter().flat_map(SenderKey::page_ids)
    }

    /// The keys that verify messages.
    pub fn verifying_keys_mut(&mut self) -> impl Iterator<Item = &mut VerifyingKey> {
        self.keys.iter_mut().filter_map(|key| key.verifying.as_mut())
    }

    /// The key with an id; there is one at most.
    pub(super) fn key_mut(&mut self, id: SenderKeyId) -> Option<&mut SenderKey> {
        self.keys.iter_mut().find(|key| key.id == id)
    }

    /// Takes a distribution message over, and tells which keys are gone by it (spec 03 §3.2).
    ///
    /// A known key keeps its place in the chain, so that it neither loses what it skipped nor reads anything twice. Only when
    /// it is so far behind that no message could be read any more, it jumps to where the sender is; what lies between is lost.
    pub(super) fn add(&mut self, message: &DistributionMessage) -> Result<(Processed, Vec<SenderKey>), SignalError> {
        let distributed = ChainKey { key: message.chain_key.clone(), index: message.iteration };
        let at = self.keys.iter().position(|key| key.id == message.id);
        let mut gone = Vec::new();
        let (processed, key) = match at.map(|at| self.keys.remove(at)) {
            Some(mut key) if key.signing == message.signing => {
                if message.iteration.saturating_sub(key.chain.index) > MAX_JUMP {
                    key.chain = distributed;
                    (Processed::CaughtUp, key)
                } else {
                    (Processed::Known, key)
                }
            }
            other => {
                let (serial, skipped) = (self.take_serial()?, SkippedIndex::new());
                gone.extend(other);
                let processed = if gone.is_empty() { Processed::Added } else { Processed::Replaced };
                let (id, signing) = (message.id, message.signing);
                let verifying = VerifyingKey::new(&signing);
                (processed, SenderKey { serial, id, signing, verifying, chain: distributed, skipped })
            }
        };
        self.keys.insert(0, key);
        gone.extend(self.keys.drain(MAX_KEYS.min(self.keys.len())..));
        Ok((processed, gone))
    }

    /// Takes a key over from another record of the same device, and says under which serial if its pages are to come along.
    ///
    /// When both have the key, what either has read stays read: the one that is further ahead stays, and of what it skipped
    /// only that which the other has not read either. A key with the same id but another signing key is left behind, and so
    /// is one for which there is no room.
    pub(super) fn adopt(&mut self, key: &SenderKey) -> Result<Option<SenderKeySerial>, SignalError> {
        let at = self.keys.iter().position(|own| own.id == key.id);
        let Some(own) = at.and_then(|at| self.keys.get_mut(at)) else {
            if self.keys.len() >= MAX_KEYS {
                return Ok(None);
            }
            let serial = self.take_serial()?;
            self.keys.push(SenderKey { serial, ..key.clone() });
            return Ok(Some(serial));
        };
        if own.signing != key.signing {
            return Ok(None);
        }
        if key.chain.index <= own.chain.index {
            own.skipped = own.unread_by(key);
            return Ok(None);
        }
        let skipped = key.unread_by(own);
        let serial = self.take_serial()?;
        if let Some(own) = at.and_then(|at| self.keys.get_mut(at)) {
            *own = SenderKey { serial, skipped, ..key.clone() };
        }
        Ok(Some(serial))
    }

    fn take_serial(&mut self) -> Result<SenderKeySerial, SignalError> {
        let serial = SenderKeySerial(self.next_serial);
        self.next_serial = self.next_serial.checked_add(1).ok_or(SignalError::Exhausted("sender key number"))?;
        Ok(serial)
    }
}

impl SenderKey {
    /// Decides from the counters how to read a message.
    pub(super) fn plan(&self, iteration: u32) -> Result<Plan, SignalError> {
        let Some(jump) = iteration.checked_sub(self.chain.index) else {
            return if self.skipped.contains(iteration) { Ok(Plan::Late) } else { Err(SignalError::Duplicate) };
        };
        if jump > MAX_JUMP {
            return Err(SignalError::TooFarAhead { jump, max: MAX_JUMP });
        }
        Ok(Plan::Forward(self.skipped.plan(self.chain.index, iteration)))
    }

    /// The pages that must be read before [`Self::read`].
    pub(super) fn pages_for(&self, plan: &Plan, iteration: u32) -> Vec<SenderKeyPageId> {
        match plan {
            Plan::Late => vec![self.page_id(page_of(iteration))],
            Plan::Forward(None) => Vec::new(),
            Plan::Forward(Some(skips)) => {
                let existing = skips.rewrites.iter().filter(|(_, exists)| *exists);
                existing.map(|(entry, _)| self.page_id(entry.page)).collect()
            }
        }
    }

    /// Checks the signature of a message.
    pub(super) fn verify(&self, message: &SenderKeyMessage<'_>) -> Result<(), SignalError> {
        message.verify(self.verifying.as_ref().ok_or(SignalError::BadSignature)?)
    }

    /// Decrypts a message whose signature was checked, and moves on. Works on a copy: an error leaves it unspecified.
    pub(super) fn read(
        &mut self,
        plan: Plan,
        message: &SenderKeyMessage<'_>,
        pages: Pages,
    ) -> Result<(Vec<u8>, PageWrites), SignalError> {
        match plan {
            Plan::Late => self.read_late(message, pages),
            Plan::Forward(skips) => self.read_forward(skips, message, pages),
        }
    }

    pub(super) fn page_ids(&self) -> impl Iterator<Item = SenderKeyPageId> {
        self.skipped.pages().iter().map(|entry| self.page_id(entry.page))
    }

    fn read_late(
        &mut self,
        message: &SenderKeyMessage<'_>,
        pages: Pages,
    ) -> Result<(Vec<u8>, PageWrites), SignalError> {
        let missing = SignalError::Record { what: "skipped page", reason: "a key of the index is not there" };
        let (id, mut page) = pages.into_iter().next().ok_or(missing)?;
        let Some(SkippedKey::Seed(seed)) = page.key(message.iteration) else { return Err(missing) };
        let plaintext = GroupKeys::derive(seed).decrypt(message.ciphertext)?;
        page.retain(self.skipped.bitmap_without(message.iteration));
        Ok((plaintext, vec![self.store_page(id.page, page)]))
    }

    fn read_forward(
        &mut self,
        skips: Option<SkipPlan>,
        message: &SenderKeyMessage<'_>,
        pages: Pages,
    ) -> Result<(Vec<u8>, PageWrites), SignalError> {
        let keep_from = skips.as_ref().map_or(message.iteration, |skips| skips.keep_from);
        let mut passed = Vec::with_capacity(message.iteration.saturating_sub(keep_from) as usize);
        while self.chain.index < message.iteration {
            let next = self.chain.next()?;
            let here = std::mem::replace(&mut self.chain, next);
            if here.index >= keep_from {
                passed.push(here.key);
            }
        }
        let (seed, next) = self.chain.step()?;
        let plaintext = GroupKeys::derive(&seed).decrypt(message.ciphertext)?;
        self.chain = next;
        let writes = skips.map_or_else(Vec::new, |skips| self.keep_skipped(skips, &passed, pages));
        Ok((plaintext, writes))
    }

    /// Puts the keys of skipped iterations into pages.
    fn keep_skipped(&mut self, skips: SkipPlan, passed: &[Secret<32>], mut pages: Pages) -> PageWrites {
        let mut writes: PageWrites = skips.deletes.into_iter().map(|page| (self.page_id(page), None)).collect();
        self.skipped = skips.index;
        let mut keys = (skips.keep_from..).zip(passed).peekable();
        for (entry, _) in skips.rewrites {
            let at = pages.iter().position(|(id, _)| id.page == entry.page);
            let mut page = at.map(|at| pages.swap_remove(at).1).unwrap_or_default();
            page.retain(entry.bitmap);
            while let Some((iteration, key)) = keys.next_if(|(iteration, _)| page_of(*iteration) == entry.page) {
                page.insert(iteration, SkippedKey::Seed(message_seed(key)));
            }
            writes.push(self.store_page(entry.page, page));
        }
        writes
    }

    /// Lets the index say what a page really holds, and gives the write.
    fn store_page(&mut self, number: u32, page: SkippedPage) -> (SenderKeyPageId, Option<SkippedPage>) {
        self.skipped.set(number, page.bitmap());
        (self.page_id(number), (!page.is_empty()).then_some(page))
    }

    /// What this key skipped and `behind`, a copy that is not further ahead, has not read either.
    fn unread_by(&self, behind: &Self) -> SkippedIndex {
        let is_unread = |at: &u32| *at >= behind.chain.index || behind.skipped.contains(*at);
        SkippedIndex::of(self.skipped.counters().filter(is_unread))
    }

    const fn page_id(&self, page: u32) -> SenderKeyPageId {
        SenderKeyPageId { serial: self.serial, page }
    }
}

impl fmt::Debug for SenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderKey")
            .field("serial", &self.serial)
            .field("id", &self.id)
            .field("iteration", &self.chain.index)
            .finish_non_exhaustive()
    }
}

impl GroupKeys {
    /// Expands the seed of a message.
    pub(super) fn derive(seed: &Secret<32>) -> Self {
        let okm = Secret::<48>::new(hkdf_sha256(None, seed.expose(), b"WhisperGroup"));
        let (mut iv, mut cipher) = ([0; 16], [0; 32]);
        iv.copy_from_slice(&okm.expose()[..16]);
        cipher.copy_from_slice(&okm.expose()[16..]);
        Self { iv: Secret::new(iv), cipher: Secret::new(cipher) }
    }

    /// Encrypts behind what `out` holds.
    pub(super) fn append(&self, plaintext: &[u8], out: &mut Vec<u8>) {
        aes256_cbc_append(self.cipher.expose(), self.iv.expose(), plaintext, out);
    }

    /// Decrypts ciphertext whose signature was checked.
    pub(super) fn decrypt(&self, ciphertext: &[u8]) -> Result<Vec<u8>, SignalError> {
        aes256_cbc_decrypt(self.cipher.expose(), self.iv.expose(), ciphertext).map_err(|_| SignalError::Padding)
    }
}
