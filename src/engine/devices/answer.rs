//! Device lists that the server answered: what the primary signed about them is checked, then they are taken.

use super::{DeviceListRecord, Engine, is_own, list_key, take};
use crate::{
    clock::Now,
    crypto::PublicKey,
    engine::{
        address,
        notices::SendFailure,
        send::Subject,
        step::{Miss, Step},
    },
    event::MappingSource,
    jid::Jid,
    pairing::{
        PairError,
        key_index::{self, KeyIndexList},
    },
    signal::SignalStore,
    stanza::iq::usync::UserDevices,
};

/// Lists of some users, to be checked and taken. Each of them has one.
#[derive(Debug)]
pub(crate) struct Lists(pub(super) Vec<UserDevices>);

/// A job: reads signed key-index lists and checks their signatures, each some 40 µs. Public data only.
#[derive(Debug)]
pub(crate) struct CheckLists(Vec<(Option<bytes::Bytes>, Option<PublicKey>)>);

/// What came of it, in the same order: the account key that was known, and the list.
pub(crate) type CheckedLists = Vec<(Option<PublicKey>, Option<Result<KeyIndexList, PairError>>)>;

impl CheckLists {
    pub(crate) fn run(self) -> CheckedLists {
        let check = |bytes: &bytes::Bytes, key: &Option<PublicKey>| key_index::decode(bytes, key.as_ref());
        self.0.into_iter().map(|(bytes, key)| (key, bytes.map(|bytes| check(&bytes, &key)))).collect()
    }
}

impl Lists {
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn has(&self, user: &Jid) -> bool {
        self.0.iter().any(|answered| answered.user == *user)
    }

    pub(crate) fn job(&self, step: &mut Step<'_>) -> Result<CheckLists, Miss> {
        let mut jobs = Vec::with_capacity(self.0.len());
        let mut all = Ok(());
        for answered in &self.0 {
            // All are read before one is missed.
            match account_key(step, answered) {
                Ok(key) => {
                    let list = answered.list.as_ref().and_then(|list| list.key_index_list.clone());
                    jobs.push((list, key));
                }
                Err(miss) => all = Err(miss),
            }
        }
        all.map(|()| CheckLists(jobs))
    }

    pub(crate) fn finish(&self, step: &mut Step<'_>, checked: &CheckedLists) -> Result<(), Miss> {
        let mut all = Ok(());
        for (answered, (given, signed)) in self.0.iter().zip(checked) {
            let next = take_answer(step, answered, *given, signed.as_ref());
            all = all.and(next);
        }
        all
    }
}

/// The stored identity of a user's primary device.
pub(super) fn primary_key(step: &mut Step<'_>, user: &Jid) -> Result<Option<PublicKey>, Miss> {
    let primary = address::device(step, &user.to_account())?;
    SignalStore::identity(step, &primary)
}

fn account_key(step: &mut Step<'_>, answered: &UserDevices) -> Result<Option<PublicKey>, Miss> {
    let user = address::user(step, &answered.user)?;
    let (key, record) = (primary_key(step, &answered.user), step.read(&list_key(&user.canonical)));
    record?;
    key
}

fn take_answer(
    step: &mut Step<'_>,
    answered: &UserDevices,
    given: Option<PublicKey>,
    signed: Option<&Result<KeyIndexList, PairError>>,
) -> Result<(), Miss> {
    for other in answered.lid.iter().chain(&answered.pn) {
        address::learn(step, &answered.user, other, MappingSource::Usync)?;
    }
    let Some(list) = &answered.list else { return Ok(()) };
    let user = address::user(step, &answered.user)?;
    let known = step.record::<DeviceListRecord>(&list_key(&user.canonical))?;
    // That somebody is not there holds for now only: no notification would tell when that changes.
    if list.devices.is_empty() && !is_own(step, &answered.user) {
        step.delete(list_key(&user.canonical));
        return Ok(());
    }
    // Another identity showed itself meanwhile: the list is judged by that one.
    let now_known = primary_key(step, &answered.user)?;
    let again = match &list.key_index_list {
        Some(bytes) if now_known != given => Some(key_index::decode(bytes, now_known.as_ref())),
        _ => None,
    };
    let signed = match again.as_ref().or(signed) {
        Some(Ok(list)) => Some(list),
        Some(Err(error)) => {
            tracing::warn!(user = %user.canonical.redacted(), %error, "key-index list cannot be read");
            None
        }
        None => None,
    };
    // The hash is that of the list under the identity that was asked for.
    let hash = list.hash.clone().filter(|_| user.canonical == answered.user.to_account());
    take::take(step, &user, known, take::Given { devices: list.devices.clone(), hash, signed })
}

impl Engine {
    /// Lists are stored: whoever waited for them goes on.
    pub(in crate::engine) fn lists_taken(&mut self, now: Now, lists: &Lists) {
        let subjects: Vec<_> = lists.0.iter().map(|answered| Subject::Devices(answered.user.clone())).collect();
        let is_absent = |answered: &&UserDevices| answered.list.as_ref().is_some_and(|list| list.devices.is_empty());
        let own = |user: &Jid| self.account.linked.as_ref().is_some_and(|linked| linked.own().is_account(user));
        let absent: Vec<Jid> = lists.0.iter().filter(is_absent).map(|answered| answered.user.clone()).collect();
        let absent: Vec<Jid> = absent.into_iter().filter(|user| !own(user)).collect();
        self.sends_go_on(now, &subjects, |op, _| op.lacks_devices(&absent, &SendFailure::not_on_whatsapp()));
    }

    /// Lists could not be checked.
    pub(in crate::engine) fn lists_missing(&mut self, now: Now, lists: &Lists) {
        let users = lists.0.iter().map(|answered| answered.user.clone()).collect();
        self.devices_unknown(now, users, &SendFailure::new("devices", "the device lists could not be checked"));
    }
}
