//! The server is asked for device lists: at most once for a user at a time, in requests of bounded size, and by hash when a
//! list is known that got old.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{DeviceListRecord, Engine, Lists, list_key};
use crate::{
    clock::Now,
    engine::{
        Answer, Job, address,
        notices::SendFailure,
        queries::{Query, QueryError},
        records::Record,
        send::Subject,
        slices::{SLICE, Work},
        step::{Miss, Step},
    },
    jid::Jid,
    stanza::iq::{
        IqError,
        usync::{self, DevicesAnswer, DevicesOf, UserDevices},
    },
};

/// Most users of one request.
const MAX_USERS: usize = 256;
/// How often a request is made again that the server put off.
const MAX_TRIES: u8 = 3;
/// Longest time for which the server can put a request off; who waits longer is told that it failed.
const MAX_BACKOFF: Duration = Duration::from_secs(120);
/// How long a list that got old is used when the server cannot be asked.
const GRACE: Duration = Duration::from_secs(600);

/// Whom a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The users.
    pub(crate) users: Vec<Jid>,
    /// How often it was asked before.
    pub(crate) tries: u8,
}

/// Questions that the server put off.
#[derive(Debug, Default)]
pub(crate) struct Held {
    until: Option<Duration>,
    waiting: Vec<Asked>,
}

impl Held {
    /// The connection is gone; whoever waits asks again on the next one.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.until.filter(|_| !self.waiting.is_empty())
    }
}

impl Engine {
    /// Asks which devices users have; what is under way is not asked twice.
    pub(in crate::engine) fn ask_devices(&mut self, now: Now, users: Vec<Jid>) {
        if !self.connection.is_online() {
            // Nothing is noted that nobody will answer: whoever waits asks again with the next connection.
            return;
        }
        let mut users: Vec<Jid> =
            users.into_iter().filter(|user| self.sends.note_asked(Subject::Devices(user.clone()))).collect();
        // Answered already, and being checked.
        users.retain(|user| !self.slices.has_list_of(user));
        for users in users.chunks(MAX_USERS) {
            self.run_devices_query(now, Asked { users: users.to_vec(), tries: 0 });
        }
    }

    /// Asks, with the hashes of the lists that are known, unless the server wants to be left alone.
    pub(in crate::engine) fn run_devices_query(&mut self, now: Now, asked: Asked) {
        if !self.connection.is_online() {
            // Whoever waits asks again with the next connection.
            return;
        }
        if self.held.until.is_some_and(|until| until > now.mono) {
            return self.held.waiting.push(asked);
        }
        match self.step(now, |step| {
            asked.users.iter().map(|user| known(step, user)).collect::<Vec<_>>().into_iter().collect()
        }) {
            Err(needs) => self.park(Job::AskDevices(asked), needs),
            Ok(users) => {
                let users: Vec<DevicesOf> = users;
                let sid = self.queries.next_id();
                let request = usync::devices_request(&sid, &users);
                self.ask(now, Query::Devices(asked), request);
            }
        }
    }

    /// Asks what was put off.
    pub(in crate::engine) fn expire_held(&mut self, now: Now) {
        if self.held.until.is_some_and(|until| until > now.mono) {
            return;
        }
        self.held.until = None;
        for asked in std::mem::take(&mut self.held.waiting) {
            self.run_devices_query(now, asked);
        }
    }

    /// The server answered, or did not answer, which devices some users have.
    pub(in crate::engine) fn devices_answered(
        &mut self,
        now: Now,
        mut asked: Asked,
        result: Result<DevicesAnswer, QueryError>,
    ) {
        let (answered, error) = match result {
            Ok(DevicesAnswer { users, error: None }) => (users, None),
            Ok(DevicesAnswer { users, error: Some(error) }) => (users, Some(QueryError::from(error))),
            Err(error) => (Vec::new(), Some(error)),
        };
        // What nobody asked for is not believed, nor anything twice.
        let mut open: BTreeSet<&Jid> = asked.users.iter().collect();
        let mut lists: Vec<UserDevices> =
            answered.into_iter().filter(|user| user.list.is_some() && open.remove(&user.user)).collect();
        let open: Vec<Jid> = open.into_iter().cloned().collect();
        if let Some(error) = &error {
            asked.users = open;
            self.devices_refused(now, asked, error);
        } else if !open.is_empty() {
            self.run_answer(now, Answer::SameDevices(open));
        }
        let mut works = Vec::with_capacity(lists.len().div_ceil(SLICE));
        while !lists.is_empty() {
            let rest = lists.split_off(lists.len().min(SLICE));
            works.push(Work::Lists(Lists(std::mem::replace(&mut lists, rest))));
        }
        self.begin_slices(now, works);
    }

    /// The server left users out that were asked for with a hash: what is known of them holds. Of others nothing is known.
    pub(in crate::engine) fn devices_unchanged(&mut self, now: Now, users: Vec<Jid>) {
        match self.step(now, |step| renew(step, &users, None)) {
            Err(needs) => self.park(Job::Answer(Answer::SameDevices(users)), needs),
            Ok(unknown) => {
                let failure = SendFailure::new("devices", "the server does not know the user");
                let subjects: Vec<_> = users.into_iter().map(Subject::Devices).collect();
                self.sends_go_on(now, &subjects, |op, _| op.lacks_devices(&unknown, &failure));
            }
        }
    }

    fn devices_refused(&mut self, now: Now, asked: Asked, error: &QueryError) {
        let backoff = match error {
            QueryError::Refused(IqError { backoff: Some(seconds), .. }) => Some(Duration::from_secs(*seconds)),
            _ => None,
        };
        if let Some(backoff) = backoff {
            let until = now.mono.saturating_add(backoff.min(MAX_BACKOFF));
            self.held.until = self.held.until.max(Some(until));
            let tries = asked.tries.saturating_add(1);
            if backoff <= MAX_BACKOFF && tries < MAX_TRIES {
                tracing::warn!(%error, "device lists are put off");
                return self.held.waiting.push(Asked { tries, ..asked });
            }
        }
        self.devices_unknown(now, asked.users, &SendFailure::new("devices", &error.to_string()));
    }

    /// The devices of users cannot be had. Lists that got old serve a while longer.
    pub(in crate::engine) fn devices_unknown(&mut self, now: Now, users: Vec<Jid>, why: &SendFailure) {
        match self.step(now, |step| renew(step, &users, Some(GRACE))) {
            Err(needs) => self.park(Job::Answer(Answer::NoDevices(users, why.clone())), needs),
            Ok(unknown) => {
                let subjects: Vec<_> = users.into_iter().map(Subject::Devices).collect();
                self.sends_go_on(now, &subjects, |op, _| op.lacks_devices(&unknown, why));
            }
        }
    }
}

/// What is known of a user, for the question.
fn known(step: &mut Step<'_>, user: &Jid) -> Result<DevicesOf, Miss> {
    let people = address::user(step, user)?;
    let record = step.record::<DeviceListRecord>(&list_key(&people.canonical))?;
    // The hash is that of the list under the canonical identity.
    let record = record.filter(|record| !record.devices.is_empty() && people.canonical == user.to_account());
    let hash = record.as_ref().and_then(|record| record.hash.clone());
    let timestamp = record.map(|record| record.timestamp).filter(|timestamp| *timestamp != 0 && hash.is_some());
    Ok(DevicesOf { user: user.clone(), hash, timestamp })
}

/// Lets the known lists of users count as new, or as new enough for so much longer; gives the users without one.
fn renew(step: &mut Step<'_>, users: &[Jid], longer: Option<Duration>) -> Result<Vec<Jid>, Miss> {
    let fetched = match longer {
        None => step.now.unix_seconds(),
        Some(longer) => {
            let back = step.config.device_list_age.saturating_sub(longer);
            step.now.unix_seconds().saturating_sub(back.as_secs()).max(1)
        }
    };
    let mut known = BTreeMap::new();
    let mut all = Ok(());
    for user in users {
        // All are read before one is missed.
        match address::user(step, user).and_then(|people| {
            let key = list_key(&people.canonical);
            Ok((key.clone(), step.record::<DeviceListRecord>(&key)?))
        }) {
            Ok(found) => drop(known.insert(user, found)),
            Err(miss) => all = Err(miss),
        }
    }
    all?;
    let mut unknown = Vec::new();
    for (user, (key, record)) in known {
        match record.filter(|record| !record.devices.is_empty() && record.fetched != 0) {
            Some(record) => {
                let fetched = fetched.max(record.fetched);
                step.put(key, DeviceListRecord { fetched, ..record }.to_bytes());
            }
            None => unknown.push(user.clone()),
        }
    }
    Ok(unknown)
}
