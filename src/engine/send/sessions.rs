//! Sessions with devices that there are none with yet: their bundles are fetched, checked and used (spec 03 §1.6, §2.1).
//!
//! A session costs some 350 µs of curve work. That is a job for the pool, a slice of devices at a time (`engine/slices.rs`); only
//! what it made is stored here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::Subject;
use crate::{
    clock::Now,
    crypto::{KeyPair, PublicKey, Secret},
    engine::{
        Engine, Job, address, devices, keys,
        queries::{Answer, Bundles, Query, QueryError},
        slices::{SLICE, Work},
        step::{Miss, Step},
    },
    jid::Jid,
    pairing::{PairError, adv},
    signal::{self, IdentityChange, Own, PreKeyBundle, Prepared, SignalError, SignalStore, StepError},
    stanza::iq::prekeys::{self, BundleError, FetchedBundle},
};

/// The server's code for a device that is not registered any more: the list it came from is stale (spec 03 §1.6).
const NOT_REGISTERED: u32 = 406;
/// Most devices of one request for bundles: some 80 KB of answer.
const MAX_DEVICES: usize = 256;

/// Sessions to be started.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// The devices that were asked for, also those without a bundle.
    pub(in crate::engine) asked: Vec<Jid>,
    /// The primary of a user stands in front of its companions.
    bundles: Vec<(Jid, FetchedBundle)>,
    /// The identities of the primaries that came with the same answer, by user: their sessions may be in another slice.
    primaries: BTreeMap<Jid, PublicKey>,
}

/// A job: checks bundles and does the curve work of sessions with them. Holds our identity, which is wiped with it.
pub(crate) struct PrepareSessions {
    identity: KeyPair,
    registration_id: u32,
    seed: Secret<32>,
    devices: Vec<DeviceToPrepare>,
}

struct DeviceToPrepare {
    bundle: PreKeyBundle,
    /// The device identity of a companion, if it came with one.
    proof: Option<Bytes>,
    account_key: Option<PublicKey>,
}

/// What came of it, in the same order.
pub(crate) struct PreparedSessions(Vec<(Option<PublicKey>, Result<Prepared, Refusal>)>);

impl fmt::Debug for PreparedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreparedSessions({})", self.0.len())
    }
}

/// Why there is no session with a device.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("companion of another account key")]
    OtherAccount,
    #[error("companion is not of this account: {0}")]
    Identity(PairError),
    #[error("bundle refused: {0}")]
    Bundle(#[from] SignalError),
}

impl PrepareSessions {
    pub(crate) fn run(self) -> PreparedSessions {
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        let mut rng = ChaCha20Rng::from_seed(*self.seed.expose());
        let prepare = |device: &DeviceToPrepare| (device.account_key, device.prepare(&own, &mut rng));
        PreparedSessions(self.devices.iter().map(prepare).collect())
    }
}

impl DeviceToPrepare {
    fn prepare(&self, own: &Own<'_>, rng: &mut ChaCha20Rng) -> Result<Prepared, Refusal> {
        if let Some(proof) = &self.proof {
            check(proof, &self.bundle.identity, self.account_key)?;
        }
        Ok(signal::prepare(own, &self.bundle, rng)?)
    }
}

/// A companion must show that the account's key vouches for it (spec 03 §1.6). One that shows nothing, or nothing that can be
/// checked yet, is taken, as the other clients do.
fn check(proof: &[u8], identity: &PublicKey, account_key: Option<PublicKey>) -> Result<(), Refusal> {
    match adv::verify_device(proof, identity, account_key.as_ref()) {
        // A key that the proof brings along vouches for nothing unless it is the account's.
        Ok(verified) if account_key.is_some_and(|known| known != *verified.account_key()) => Err(Refusal::OtherAccount),
        Ok(_) | Err(PairError::NoAccountKey) => Ok(()),
        Err(error) => Err(Refusal::Identity(error)),
    }
}

impl Sessions {
    pub(in crate::engine) const fn len(&self) -> usize {
        self.bundles.len()
    }

    /// Reads what the curve work needs, and what the sessions will be written over.
    pub(in crate::engine) fn job(&self, step: &mut Step<'_>) -> Result<PrepareSessions, Miss> {
        let mut devices = Vec::with_capacity(self.bundles.len());
        let mut all = Ok(());
        for (jid, fetched) in &self.bundles {
            // All are read before one is missed.
            match self.to_prepare(step, jid, fetched) {
                Ok(device) => devices.push(device),
                Err(miss) => all = Err(miss),
            }
        }
        all?;
        let seed = Secret::random(step.rng);
        let account = step.account();
        Ok(PrepareSessions {
            identity: account.identity.clone(),
            registration_id: account.registration_id,
            seed,
            devices,
        })
    }

    fn to_prepare(&self, step: &mut Step<'_>, jid: &Jid, fetched: &FetchedBundle) -> Result<DeviceToPrepare, Miss> {
        let address = address::device(step, jid)?;
        let records =
            step.require([&keys::session(&address), &keys::identity(&address), &keys::archive_index(&address)]);
        // What is asked when the work is done.
        let is_gone = self.is_gone(step, jid);
        let account_key = match jid.device() {
            0 => None,
            _ => self.account_key(step, jid)?,
        };
        records?;
        is_gone?;
        let proof = fetched.device_identity.clone().filter(|_| jid.device() != 0);
        Ok(DeviceToPrepare { bundle: fetched.bundle.clone(), proof, account_key })
    }

    /// The key that must vouch for a companion: the identity of the primary, the fetched one if there is one.
    fn account_key(&self, step: &mut Step<'_>, companion: &Jid) -> Result<Option<PublicKey>, Miss> {
        let stored = stored_account_key(step, companion)?;
        Ok(self.primaries.get(&companion.to_account()).copied().or(stored))
    }

    /// Stores the sessions.
    pub(in crate::engine) fn finish(&self, step: &mut Step<'_>, prepared: &PreparedSessions) -> Result<Started, Miss> {
        let mut started = Started::default();
        let mut all = Ok(());
        for ((jid, _), (account_key, result)) in self.bundles.iter().zip(&prepared.0) {
            let is_fetched = account_key.is_some() && self.primaries.get(&jid.to_account()) == account_key.as_ref();
            match self.is_gone(step, jid) {
                Ok(false) => {}
                Ok(true) => continue,
                Err(miss) => {
                    all = Err(miss);
                    continue;
                }
            }
            match finish_one(step, jid, *account_key, is_fetched, result) {
                Ok(Finished::Started) => drop(started.with.insert(jid.clone())),
                Ok(Finished::Refused) => {}
                Ok(Finished::Again) => drop(started.again.insert(jid.clone())),
                // All are read before one is missed.
                Err(miss) => all = Err(miss),
            }
        }
        all.map(|()| started)
    }

    /// Whether a companion that was asked for is not one of its user's any more: nothing is kept of it.
    fn is_gone(&self, step: &mut Step<'_>, jid: &Jid) -> Result<bool, Miss> {
        if jid.device() == 0 || !self.asked.contains(jid) {
            return Ok(false);
        }
        let user = address::user(step, jid)?;
        let known = devices::known_ids(step, &user.canonical)?;
        Ok(!known.is_empty() && !known.contains(&jid.device()))
    }

    /// The part of it that is to be done again.
    pub(in crate::engine) fn split_off(&mut self, again: &BTreeSet<Jid>) -> Option<Self> {
        if again.is_empty() {
            return None;
        }
        let is_again = |jid: &Jid| again.contains(jid);
        let bundles = self.bundles.extract_if(.., |(jid, _)| is_again(jid)).collect();
        let asked = self.asked.extract_if(.., |jid| is_again(jid)).collect();
        // What is stored counts now.
        Some(Self { asked, bundles, primaries: BTreeMap::new() })
    }
}

/// What became of sessions that were to be started.
#[derive(Debug, Default)]
pub(crate) struct Started {
    /// The devices that have one now.
    pub(in crate::engine) with: BTreeSet<Jid>,
    /// Companions that were checked with a key which is not that of their primary, or not any more.
    pub(in crate::engine) again: BTreeSet<Jid>,
}

enum Finished {
    Started,
    Refused,
    Again,
}

fn stored_account_key(step: &mut Step<'_>, companion: &Jid) -> Result<Option<PublicKey>, Miss> {
    let primary = address::device(step, &companion.to_account())?;
    SignalStore::identity(step, &primary)
}

fn finish_one(
    step: &mut Step<'_>,
    jid: &Jid,
    account_key: Option<PublicKey>,
    is_fetched: bool,
    result: &Result<Prepared, Refusal>,
) -> Result<Finished, Miss> {
    let address = address::device(step, jid)?;
    if jid.device() != 0 {
        let stored = stored_account_key(step, jid)?;
        // The primary that was fetched with it may be stored later, or be refused.
        if stored != account_key && !(is_fetched && stored.is_none()) {
            return Ok(Finished::Again);
        }
    }
    let prepared = match result {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::warn!(device = %jid.redacted(), %error, "no session");
            return Ok(Finished::Refused);
        }
    };
    match signal::install(step, &address, prepared) {
        Ok(IdentityChange::Changed { .. }) => devices::changed_implicitly(step, jid, false)?,
        Ok(IdentityChange::New | IdentityChange::Unchanged) => {}
        Err(StepError::Miss(miss)) => return Err(miss),
        Err(StepError::Signal(error)) => {
            tracing::warn!(device = %jid.redacted(), %error, "no session");
            return Ok(Finished::Refused);
        }
    }
    Ok(Finished::Started)
}

/// Starts a session from keys that a device sent along with a retry receipt; false when they are refused.
///
/// # Errors
/// [`Miss`].
pub(crate) fn establish_sent(step: &mut Step<'_>, jid: &Jid, sent: &FetchedBundle) -> Result<bool, Miss> {
    let bundles = vec![(jid.clone(), sent.clone())];
    let sessions = Sessions { asked: Vec::new(), bundles, primaries: BTreeMap::new() };
    let prepared = sessions.job(step)?.run();
    Ok(!sessions.finish(step, &prepared)?.with.is_empty())
}

impl Engine {
    /// Asks for the keys of devices; what is under way is not asked twice.
    pub(in crate::engine) fn ask_bundles(&mut self, now: Now, devices: Vec<Jid>) {
        let mut devices: Vec<Jid> =
            devices.into_iter().filter(|jid| self.sends.asked.insert(Subject::Keys(jid.clone()))).collect();
        // Fetched already, perhaps on a connection before this one.
        let started = self.slices.devices();
        devices.retain(|jid| !started.contains(jid));
        for devices in devices.chunks(MAX_DEVICES) {
            let request = prekeys::bundles_request(devices);
            self.ask(now, Query::Bundles(devices.to_vec()), request);
        }
    }

    /// The server answered, or did not answer, with bundles.
    pub(in crate::engine) fn bundles_answered(
        &mut self,
        now: Now,
        asked: Vec<Jid>,
        result: Result<Bundles, QueryError>,
    ) {
        let bundles = match result {
            Ok(bundles) => bundles,
            Err(error) => {
                tracing::warn!(%error, "no bundles");
                let stale = if is_not_registered(&error) { asked.clone() } else { Vec::new() };
                return self.without_bundles(now, asked, stale);
            }
        };
        // What nobody asked for is not believed, nor anything twice.
        let mut open: BTreeSet<Jid> = asked.into_iter().collect();
        let mut usable = BTreeMap::new();
        let (mut without, mut stale) = (Vec::new(), Vec::new());
        for (jid, fetched) in bundles {
            if !open.remove(&jid) {
                continue;
            }
            match fetched {
                Ok(bundle) => drop(usable.insert(jid, bundle)),
                Err(error) => {
                    tracing::warn!(device = %jid.redacted(), %error, "no bundle");
                    if matches!(error, BundleError::Refused(refused) if refused.code == NOT_REGISTERED) {
                        stale.push(jid.clone());
                    }
                    without.push(jid);
                }
            }
        }
        without.extend(open);
        if !without.is_empty() {
            self.without_bundles(now, without, stale);
        }
        self.begin_slices(now, slices(usable).into_iter().map(Work::Sessions));
    }

    /// These devices have no bundle; the lists with the stale ones are forgotten.
    pub(in crate::engine) fn without_bundles(&mut self, now: Now, without: Vec<Jid>, stale: Vec<Jid>) {
        let forgotten = self.step(now, |step| {
            let mut all = Ok(());
            for jid in &stale {
                let next = address::user(step, jid).map(|user| devices::forget(step, &user));
                all = all.and(next);
            }
            all
        });
        match forgotten {
            Err(needs) => self.park(Job::Answer(Answer::NoBundles(without, stale)), needs),
            Ok(()) => self.sessions_started(now, &without, &BTreeSet::new()),
        }
    }

    /// Sessions with some of the devices that were asked for are stored, with the others there are none.
    pub(in crate::engine) fn sessions_started(&mut self, now: Now, asked: &[Jid], established: &BTreeSet<Jid>) {
        let subjects: Vec<_> = asked.iter().cloned().map(Subject::Keys).collect();
        let without: Vec<&Jid> = asked.iter().filter(|jid| !established.contains(*jid)).collect();
        self.sends_go_on(now, &subjects, |op, waited| {
            op.skipped.extend(without.iter().filter(|_| waited).map(|jid| (*jid).clone()));
        });
        self.resends_go_on(now, asked);
    }
}

fn is_not_registered(error: &QueryError) -> bool {
    matches!(error, QueryError::Refused(refused) if refused.code == NOT_REGISTERED)
}

/// Splits bundles into slices. A user's devices stay together as far as they fit, the primary first.
fn slices(bundles: BTreeMap<Jid, FetchedBundle>) -> Vec<Sessions> {
    let mut slices: Vec<Sessions> = Vec::new();
    let mut users: Vec<Vec<(Jid, FetchedBundle)>> = Vec::new();
    let mut sorted: Vec<_> = bundles.into_iter().collect();
    // By user, whatever the server part of a hosted device is.
    sorted.sort_by(|(a, _), (b, _)| (a.user(), a.device()).cmp(&(b.user(), b.device())));
    for (jid, bundle) in sorted {
        match users.last_mut().filter(|user| user.first().is_some_and(|(first, _)| first.same_account(&jid))) {
            Some(user) => user.push((jid, bundle)),
            None => users.push(vec![(jid, bundle)]),
        }
    }
    for user in users {
        let primary = user.first().filter(|(jid, _)| jid.device() == 0);
        let primary = primary.map(|(jid, fetched)| (jid.to_account(), fetched.bundle.identity));
        for part in user.chunks(SLICE) {
            match slices.last_mut().filter(|slice| slice.len() + part.len() <= SLICE) {
                Some(slice) => slice.bundles.extend_from_slice(part),
                None => {
                    let primaries = BTreeMap::new();
                    slices.push(Sessions { asked: Vec::new(), bundles: part.to_vec(), primaries });
                }
            }
            if let Some(slice) = slices.last_mut() {
                slice.primaries.extend(primary.clone());
            }
        }
    }
    for slice in &mut slices {
        slice.asked = slice.bundles.iter().map(|(jid, _)| jid.clone()).collect();
    }
    slices
}
