//! Sessions with devices that there are none with yet: their bundles are fetched, checked and used (spec 03 §1.6, §2.1).

use std::{collections::BTreeSet, sync::Arc};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::Subject;
use crate::{
    clock::Now,
    engine::{
        Account, Engine, Job, address, devices, notices,
        queries::{Answer, Bundles, Query, QueryError},
        step::{Miss, Step, own},
    },
    jid::Jid,
    pairing::{PairError, adv},
    signal::{self, Address, IdentityChange, PreKeyBundle, StepError},
    stanza::iq::prekeys::{self, BundleError, FetchedBundle},
};

/// The server's code for a device that is not registered any more: the list it came from is stale (spec 03 §1.6).
const NOT_REGISTERED: u32 = 406;

/// Starts sessions from bundles and answers for which devices it succeeded. A bundle that is refused concerns only its
/// device.
///
/// # Errors
/// [`Miss`].
fn establish(step: &mut Step<'_>, bundles: &Bundles) -> Result<BTreeSet<Jid>, Miss> {
    let account = Arc::clone(step.account());
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    let mut established = BTreeSet::new();
    let mut missed = Ok(());
    for (jid, fetched) in bundles {
        let bundle = match fetched {
            Ok(bundle) => bundle,
            Err(error) => {
                tracing::warn!(device = %jid.redacted(), %error, "no bundle");
                if matches!(error, BundleError::Refused(refused) if refused.code == NOT_REGISTERED) {
                    let user = address::user(step, jid)?;
                    devices::forget(step, &user);
                }
                continue;
            }
        };
        // Every device's reads are noted, so that one round loads them all.
        match establish_one(step, &account, jid, bundle, &mut rng) {
            Ok(true) => {
                established.insert(jid.clone());
            }
            Ok(false) => {}
            Err(miss) => missed = Err(miss),
        }
    }
    missed.map(|()| established)
}

fn establish_one(
    step: &mut Step<'_>,
    account: &Account,
    jid: &Jid,
    fetched: &FetchedBundle,
    rng: &mut ChaCha20Rng,
) -> Result<bool, Miss> {
    let address = address::device(step, jid)?;
    if jid.device() != 0 && !is_authentic(step, jid, fetched)? {
        return Ok(false);
    }
    start_session(step, account, &address, &fetched.bundle, rng)
}

/// Starts a session from keys that a device sent along with a retry receipt; false when they are refused.
///
/// # Errors
/// [`Miss`].
pub(crate) fn establish_sent(step: &mut Step<'_>, jid: &Jid, sent: &FetchedBundle) -> Result<bool, Miss> {
    let account = Arc::clone(step.account());
    let mut rng = ChaCha20Rng::from_rng(step.rng);
    establish_one(step, &account, jid, sent, &mut rng)
}

fn start_session(
    step: &mut Step<'_>,
    account: &Account,
    address: &Address,
    bundle: &PreKeyBundle,
    rng: &mut ChaCha20Rng,
) -> Result<bool, Miss> {
    match signal::establish(step, &own(account), address, bundle, rng) {
        Ok(change) => {
            if let (IdentityChange::Changed { .. }, Ok(jid)) = (change, address.as_str().parse::<Jid>()) {
                step.emit(notices::identity_changed(&jid, true));
            }
            Ok(true)
        }
        Err(StepError::Miss(miss)) => Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::warn!(%error, "bundle refused");
            Ok(false)
        }
    }
}

/// A companion must show that the account's key vouches for it (spec 03 §1.6). A bundle that shows nothing, or nothing that
/// can be checked yet, is taken, as the other clients do.
fn is_authentic(step: &mut Step<'_>, jid: &Jid, fetched: &FetchedBundle) -> Result<bool, Miss> {
    let Some(identity) = &fetched.device_identity else {
        tracing::debug!(device = %jid.redacted(), "companion without device identity");
        return Ok(true);
    };
    let primary = address::device(step, &jid.with_device(0))?;
    let known = signal::SignalStore::identity(step, &primary)?;
    match adv::verify_device(identity, &fetched.bundle.identity, known.as_ref()) {
        // A key that the blob brings along vouches for nothing unless it is the account's.
        Ok(verified) if known.is_some_and(|known| known != *verified.account_key()) => {
            tracing::warn!(device = %jid.redacted(), "companion of another account key");
            Ok(false)
        }
        Ok(_) | Err(PairError::NoAccountKey) => Ok(true),
        Err(error) => {
            tracing::warn!(device = %jid.redacted(), %error, "companion is not of this account");
            Ok(false)
        }
    }
}

impl Engine {
    /// Asks for the keys of devices; what is under way is not asked twice.
    pub(in crate::engine) fn ask_bundles(&mut self, now: Now, devices: Vec<Jid>) {
        let devices: Vec<Jid> =
            devices.into_iter().filter(|jid| self.sends.asked.insert(Subject::Keys(jid.clone()))).collect();
        if !devices.is_empty() {
            let request = prekeys::bundles_request(&devices);
            self.ask(now, Query::Bundles(devices), request);
        }
    }

    /// The server answered, or did not answer, with bundles.
    pub(in crate::engine) fn bundles_answered(
        &mut self,
        now: Now,
        asked: Vec<Jid>,
        result: Result<Bundles, QueryError>,
    ) {
        let subjects: Vec<_> = asked.iter().cloned().map(Subject::Keys).collect();
        let bundles = match result {
            // What nobody asked for is not believed.
            Ok(bundles) => bundles.into_iter().filter(|(jid, _)| asked.contains(jid)).collect(),
            Err(error) => {
                tracing::warn!(%error, "no bundles");
                // There may be an answer for whoever asks the next time.
                self.sends_go_on(now, &subjects, |op, waited| {
                    op.skipped.extend(asked.iter().filter(|_| waited).cloned());
                });
                return self.resends_go_on(now, &asked);
            }
        };
        match self.step(now, |step| establish(step, &bundles)) {
            Err(needs) => self.park(Job::Answer(Answer::Bundles(asked, Ok(bundles))), needs),
            Ok(established) => {
                let without: Vec<Jid> = asked.iter().filter(|jid| !established.contains(jid)).cloned().collect();
                self.sends_go_on(now, &subjects, |op, _| op.skipped.extend(without.iter().cloned()));
                self.resends_go_on(now, &asked);
            }
        }
    }
}
