//! Counter leases: a sender chain reserves its next counters durably, so that messages with these need not wait for the store.
//!
//! ```text
//!                 lease { run, until }
//!   counter  ─────┬──────────────────┬─────►
//!                 taken with a       until: the next lease
//!                 record that is     must be taken
//!                 waited for
//! ```
//!
//! A run is the time between two loads of the account. A record that is read in another run than that of its lease may be older
//! than what was sent: its chain jumps to the end of the lease, so that no counter is used twice. The other side skips at most
//! [`LEASE`] message keys then. A new chain, after a turn of the ratchet or with a new sender key, has no lease.

use bytes::BufMut;

use super::{SignalError, chain::ChainKey, codec::Reader};

/// Counters of one lease: far fewer than the 2,000 that a receiver skips.
pub const LEASE: u32 = 64;

/// Counters of a chain that are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Who reserved them.
    run: u32,
    /// The first counter that is not reserved.
    until: u32,
}

/// Whether a chain may go on before its record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leased {
    /// All counters used so far are within the lease.
    Held,
    /// There was none, or it is used up: there is a new one, which is good once the record is durable.
    Taken,
}

impl Lease {
    /// Makes sure that there is a lease of this run that covers what a chain has used.
    pub(super) const fn renew(lease: &mut Option<Self>, chain: &ChainKey, run: u32) -> Leased {
        match lease {
            Some(held) if held.run == run && chain.index <= held.until => Leased::Held,
            _ => {
                *lease = Some(Self { run, until: chain.index.saturating_add(LEASE) });
                Leased::Taken
            }
        }
    }

    /// A record is read: behind the lease of another run its chain goes on.
    pub(super) fn resume(lease: &mut Option<Self>, chain: &mut ChainKey, run: u32) -> Result<(), SignalError> {
        let Some(other) = lease.take_if(|lease| lease.run != run) else { return Ok(()) };
        let jump = other.until.saturating_sub(chain.index);
        if jump > LEASE {
            return Err(SignalError::TooFarAhead { jump, max: LEASE });
        }
        for _ in 0..jump {
            *chain = chain.next()?;
        }
        Ok(())
    }

    /// Whether a chain was last used before a run.
    pub(super) fn is_of_run_before(lease: Option<Self>, first: u32) -> bool {
        lease.map_or(0, |lease| lease.run) < first
    }

    pub(super) fn encode_into(self, out: &mut impl BufMut) {
        out.put_u32(self.run);
        out.put_u32(self.until);
    }

    pub(super) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, SignalError> {
        Ok(Self { run: reader.u32()?, until: reader.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{crypto::Secret, signal::sender_key::OwnSenderKey};

    fn chain(index: u32) -> ChainKey {
        let mut chain = ChainKey::first(Secret::new([7; 32]));
        (0..index).for_each(|_| chain = chain.next().unwrap());
        chain
    }

    #[test]
    fn a_lease_covers_64_counters_of_its_run() {
        let mut lease = None;
        assert_eq!(Lease::renew(&mut lease, &chain(3), 1), Leased::Taken);
        assert_eq!(lease, Some(Lease { run: 1, until: 67 }));
        assert_eq!(Lease::renew(&mut lease, &chain(67), 1), Leased::Held, "counter 66 is the last one");
        assert_eq!(Lease::renew(&mut lease, &chain(68), 1), Leased::Taken);
        assert_eq!(lease, Some(Lease { run: 1, until: 132 }));
        assert_eq!(Lease::renew(&mut lease, &chain(69), 2), Leased::Taken, "that was somebody else's");
    }

    #[test]
    fn another_run_goes_on_behind_it() {
        let mut lease = Some(Lease { run: 1, until: 67 });
        let mut at = chain(5);
        Lease::resume(&mut lease, &mut at, 1).unwrap();
        assert_eq!((at.index, lease), (5, Some(Lease { run: 1, until: 67 })), "its own run does not");
        Lease::resume(&mut lease, &mut at, 2).unwrap();
        assert_eq!((&at, lease), (&chain(67), None));
        Lease::resume(&mut lease, &mut at, 3).unwrap();
        assert_eq!(at, chain(67), "without a lease nothing was sent that is not stored");

        let mut damaged = Some(Lease { run: 1, until: 200 });
        let mut at = chain(5);
        let refused = Err(SignalError::TooFarAhead { jump: 195, max: LEASE });
        assert_eq!(Lease::resume(&mut damaged, &mut at, 2), refused);
    }

    #[test]
    fn a_record_of_before_there_were_leases_has_none() {
        let mut key = OwnSenderKey::generate(&mut ChaCha20Rng::from_seed([7; 32]));
        assert_eq!(key.encode().len(), 137);
        assert_eq!(OwnSenderKey::decode(&key.encode()), Ok(key.clone()));
        assert_eq!(key.clone().resume(9), Ok(key.clone()), "nothing is passed over");
        assert_eq!(key.lease(1), Leased::Taken);
        let stored = OwnSenderKey::decode(&key.encode()).unwrap();
        assert_eq!(stored, key);
        assert_eq!(stored.resume(2).unwrap().position().iteration, LEASE);
    }
}
