//! Our own sender key for a group.

use std::fmt;

use super::{MAX_JUMP, SenderKeyId, wire::DistributionMessage};
use crate::{
    crypto::{CryptoRng, PublicKey, Secret, xeddsa::SigningKey},
    signal::{
        SignalError,
        chain::ChainKey,
        codec::{Put, Reader, VERSION},
        lease::{Lease, Leased},
    },
};

/// The key that we send to a group with.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnSenderKey {
    pub(super) id: SenderKeyId,
    pub(super) chain: ChainKey,
    pub(super) signing: SigningKey,
    lease: Option<Lease>,
}

/// Where our chain stands. A counter lease is taken on a key, and void when that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderKeyPosition {
    /// The id of the key.
    pub id: SenderKeyId,
    /// Its signing key: ids are random, and may repeat.
    pub signing: PublicKey,
    /// The iteration that the next message will have.
    pub iteration: u32,
}

impl OwnSenderKey {
    /// Draws a fresh key: the id (31 bits, as other clients accept no more), the chain key, the signing key, in this order.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut id = [0; 4];
        rng.fill_bytes(&mut id);
        let id = SenderKeyId(u32::from_be_bytes(id) >> 1);
        let chain = ChainKey::first(Secret::random(rng));
        Self { id, chain, signing: SigningKey::generate(rng), lease: None }
    }

    /// Writes the record: 137 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(145);
        out.push(VERSION);
        out.put_u32(self.id.0);
        out.put_u32(self.chain.index);
        out.extend_from_slice(self.chain.key.expose());
        out.put_pair(self.signing.pair());
        out.extend_from_slice(&self.signing.edwards());
        self.lease.iter().for_each(|lease| lease.encode_into(&mut out));
        out
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`SignalError::RecordVersion`] or [`SignalError::Record`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SignalError> {
        let mut reader = Reader::new("own sender key", bytes)?;
        let (id, index) = (SenderKeyId(reader.u32()?), reader.u32()?);
        let chain = ChainKey { index, key: reader.secret()? };
        let signing = SigningKey::from_parts(reader.pair()?, reader.array()?);
        let lease = if reader.is_at_end() { None } else { Some(Lease::decode_from(&mut reader)?) };
        reader.finish()?;
        Ok(Self { id, chain, signing, lease })
    }

    /// Makes sure that the chain has a lease of this run before the record is written.
    pub fn lease(&mut self, run: u32) -> Leased {
        Lease::renew(&mut self.lease, &self.chain, run)
    }

    /// The record was read in this run: what an earlier one may have sent is passed over.
    ///
    /// # Errors
    /// [`SignalError::TooFarAhead`] for a lease that nobody takes, [`SignalError::Exhausted`] at the end of the chain.
    pub fn resume(mut self, run: u32) -> Result<Self, SignalError> {
        Lease::resume(&mut self.lease, &mut self.chain, run)?;
        Ok(self)
    }

    /// Moves the chain forward to `iteration`, which skips what was reserved but perhaps sent before a crash.
    ///
    /// # Errors
    /// [`SignalError::TooFarAhead`] for more than 2,000 iterations (receivers would not follow). An iteration behind the
    /// chain changes nothing.
    pub fn advance(&mut self, iteration: u32) -> Result<(), SignalError> {
        let jump = iteration.saturating_sub(self.chain.index);
        if jump > MAX_JUMP {
            return Err(SignalError::TooFarAhead { jump, max: MAX_JUMP });
        }
        for _ in 0..jump {
            self.chain = self.chain.next()?;
        }
        Ok(())
    }

    /// Where the chain stands.
    pub const fn position(&self) -> SenderKeyPosition {
        SenderKeyPosition { id: self.id, signing: *self.signing.pair().public(), iteration: self.chain.index }
    }

    /// What a new receiver needs: it reads from the next message on, and nothing before it.
    pub fn distribution(&self) -> DistributionMessage {
        DistributionMessage {
            id: self.id,
            iteration: self.chain.index,
            chain_key: self.chain.key.clone(),
            signing: *self.signing.pair().public(),
        }
    }
}

impl fmt::Debug for OwnSenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnSenderKey")
            .field("id", &self.id)
            .field("iteration", &self.chain.index)
            .finish_non_exhaustive()
    }
}
