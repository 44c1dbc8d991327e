//! What is looked after once a day: whether the server holds the keys that we think (spec 03 §1.5), and whether the signed prekey
//! is due to be replaced (spec 03 §1.7).

use std::time::Duration;

use crate::{
    clock::Now,
    crypto::{KeyPair, PublicKey, xeddsa},
    engine::{
        Engine, Job,
        account::SignedPreKey,
        keys,
        login::log_failure,
        queries::{Answer, Query, QueryError},
        signal_store::pair_of,
        step::{Miss, Step},
    },
    stanza::iq::prekeys::{self, Digest},
};

/// How often.
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How long the private half of a former signed prekey is kept at least: messages that were built on it arrive late.
const KEPT: u64 = 30 * 24 * 3_600;
/// The server's code for a device of which it holds nothing.
const NOTHING_THERE: u32 = 404;
/// Largest id of a prekey (spec 03 §1.1).
const MAX_ID: u32 = 0xFF_FFFF;

/// A signed prekey that the server was told and has not confirmed.
pub(crate) type Rotation = SignedPreKey;

impl Engine {
    /// Once a day, and after a login when the last time is a day ago.
    pub(in crate::engine) fn upkeep(&mut self, now: Now) {
        let Some(online) = self.connection.online() else { return };
        online.upkeep_at = Some(now.mono.saturating_add(DAY));
        let seconds = now.unix_seconds();
        // A clock that was set back does not put it off for long.
        let age = seconds.checked_sub(self.account.digest_checked);
        if age.is_none_or(|age| age >= DAY.as_secs()) {
            self.check_digest(now);
        }
        self.trim_signed_pre_keys(now);
        let Some(interval) = self.config.signed_pre_key_age else { return };
        match self.account.signed_pre_key_made {
            0 => self.act(now, |step| step.account_mut().signed_pre_key_made = seconds),
            made if seconds.saturating_sub(made) >= interval.as_secs() => self.rotate(now),
            _ => {}
        }
    }

    // ---- digest -------------------------------------------------------------------------------------------------

    /// Asks what the server holds of our keys, unless that is under way or was asked often lately.
    pub(in crate::engine) fn check_digest(&mut self, now: Now) {
        let under_way = self.queries.any(|query| matches!(query, Query::KeyDigest));
        if under_way || self.digests.is_full(now.mono) || self.connection.online().is_none() {
            return;
        }
        self.digests.note(now.mono);
        self.ask(now, Query::KeyDigest, prekeys::digest_request());
    }

    /// The server said what it holds. If that is nothing, it gets everything; a difference is told in the log, and nothing is
    /// changed: a key may just have been used.
    pub(in crate::engine) fn digest_answered(&mut self, now: Now, result: Result<Digest, QueryError>) {
        let digest = match result {
            Ok(digest) => digest,
            Err(QueryError::Refused(refused)) if refused.code == NOTHING_THERE => {
                tracing::warn!("the server has none of our prekeys");
                self.upload_pre_keys(now);
                return;
            }
            Err(error) => return log_failure("key digest", Some(error)),
        };
        match self.step(now, |step| compare(step, &digest)) {
            Err(needs) => self.park(Job::Answer(Answer::KeyDigest(Ok(digest))), needs),
            Ok(Comparison::Same) => tracing::debug!("the server holds our prekeys"),
            Ok(Comparison::Unknown(keys)) => tracing::warn!(keys, "the server holds prekeys that we do not have"),
            Ok(Comparison::Different) => tracing::warn!("the server holds other prekeys than we have"),
        }
    }

    // ---- signed prekey ------------------------------------------------------------------------------------------

    /// Makes another signed prekey and offers it. It is stored before the server hears of it, and counts as ours from the
    /// server's answer on.
    fn rotate(&mut self, now: Now) {
        if self.queries.any(|query| matches!(query, Query::Rotate(_))) {
            return;
        }
        let account = &self.account;
        let used = account.retired_pre_keys.iter().map(|(id, _)| *id).chain([account.signed_pre_key.id]);
        let id = used.max().filter(|id| *id < MAX_ID).map_or(1, |id| id + 1);
        let pair = KeyPair::generate(&mut self.rng);
        let signature = xeddsa::sign(account.identity.private(), &[&pair.public().to_typed()], &mut self.rng);
        let query = self.queries.ask(Query::Rotate(id), now.mono.saturating_add(self.config.query_timeout));
        self.act(now, |step| {
            step.put(keys::signed_pre_key(id), &pair);
            let since = step.now.unix_seconds();
            step.account_mut().retired_pre_keys.push((id, since));
            step.send(&prekeys::rotate_request(id, pair.public(), &signature).attr("id", query));
        });
        self.rotation = Some(SignedPreKey { id, pair, signature });
    }

    /// The server took the signed prekey, or did not; then the old one stays, and another is made the next time.
    pub(in crate::engine) fn rotated(&mut self, now: Now, id: u32, result: Result<(), QueryError>) {
        let Some(next) = self.rotation.take_if(|next| next.id == id) else { return };
        if let Err(error) = result {
            return log_failure("rotation of the signed prekey", Some(error));
        }
        self.act(now, |step| {
            let since = step.now.unix_seconds();
            let account = step.account_mut();
            let former = std::mem::replace(&mut account.signed_pre_key, next);
            account.retired_pre_keys.retain(|(retired, _)| *retired != id);
            account.retired_pre_keys.push((former.id, since));
            account.signed_pre_key_made = since;
        });
    }

    /// Removes former signed prekeys after their time.
    fn trim_signed_pre_keys(&mut self, now: Now) {
        let seconds = now.unix_seconds();
        let is_over = |since: u64| seconds.saturating_sub(since) > KEPT;
        if self.account.retired_pre_keys.iter().any(|(_, since)| is_over(*since)) {
            self.act(now, |step| {
                let over = step.account_mut().retired_pre_keys.extract_if(.., |(_, since)| is_over(*since));
                for (id, _) in over.collect::<Vec<_>>() {
                    step.delete(keys::signed_pre_key(id));
                }
            });
        }
    }
}

/// How what the server holds compares with what we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Same,
    /// So many of its one-time prekeys are not there.
    Unknown(usize),
    Different,
}

fn compare(step: &mut Step<'_>, digest: &Digest) -> Result<Comparison, Miss> {
    let records: Vec<_> = digest.pre_keys.iter().map(|id| keys::pre_key(*id)).collect();
    step.require(&records)?;
    let mut public: Vec<PublicKey> = Vec::with_capacity(records.len());
    for record in &records {
        public.extend(step.read(record)?.and_then(|bytes| pair_of(&bytes)).map(|pair| *pair.public()));
    }
    let checked = step.now.unix_seconds();
    step.account_mut().digest_checked = checked;
    if public.len() < records.len() {
        return Ok(Comparison::Unknown(records.len().saturating_sub(public.len())));
    }
    let account = step.account();
    let signed = &account.signed_pre_key;
    let hash = prekeys::key_hash(account.identity.public(), signed.pair.public(), &signed.signature, &public);
    Ok(if hash == digest.hash { Comparison::Same } else { Comparison::Different })
}
