//! Uploads of one-time prekeys (spec 03 §1.3).

use std::time::Duration;

use super::MakeKeys;
use crate::{
    clock::Now,
    crypto::{KeyPair, PublicKey, Secret},
    engine::{
        Engine, Output, Queued,
        cpu::CpuId,
        keys,
        queries::{Query, QueryError},
    },
    stanza::iq::prekeys,
};

/// How many keys are made at a time.
const SLICE: usize = 128;
/// Up to so many are made at once, in the step that asks.
const INLINE: usize = 32;
/// How long the pool may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest pause before an upload that failed is tried again, seconds; the pauses before are 1, 2, 3, 5, 8 … (spec 03 §1.3).
const LONGEST_PAUSE: u64 = 610;

/// Keys that will be uploaded.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Ids without a key yet.
    ids: Vec<u32>,
    /// What is stored.
    made: Vec<(u32, PublicKey)>,
    /// What the pool is doing, and until when.
    job: Option<(CpuId, Duration)>,
}

impl Upload {
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.job.map(|(_, until)| until)
    }
}

impl Engine {
    /// Makes and uploads prekeys, unless that is under way. False when it was done too often lately: keys are made and stored for
    /// as long as they are not used, and how often they run low is what the server says. Then they are counted when it may be
    /// done again.
    pub(in crate::engine) fn upload_pre_keys(&mut self, now: Now) -> bool {
        if self.upload.is_some() {
            self.go_on_with_upload(now);
            return true;
        }
        if self.queries.any(|query| matches!(query, Query::PreKeyUpload)) {
            return true;
        }
        if self.uploads.is_full(now.mono) {
            let at = self.uploads.free_at(now.mono);
            if let Some(online) = self.connection.online() {
                online.refill_at = Some(at);
            }
            return false;
        }
        self.uploads.note(now.mono);
        let mut ids = Vec::new();
        let count = self.config.pre_key_batch;
        self.act(now, |step| ids = step.account_mut().take_pre_key_ids(count));
        self.upload = Some(Upload { ids, made: Vec::new(), job: None });
        self.go_on_with_upload(now);
        true
    }

    /// Makes the next keys, or sends them when all are there.
    fn go_on_with_upload(&mut self, now: Now) {
        let Some(upload) = self.upload.as_ref().filter(|upload| upload.job.is_none()) else { return };
        let count = upload.ids.len().min(SLICE);
        if count == 0 {
            return self.send_upload(now);
        }
        let job = MakeKeys::new(Secret::random(&mut self.rng), count);
        if count <= INLINE {
            return self.store_keys(now, &job.run());
        }
        let id = CpuId(self.next_cpu);
        self.next_cpu += 1;
        self.gate.push_free(Queued::Output(Output::Cpu(id, job.into())));
        if let Some(upload) = &mut self.upload {
            upload.job = Some((id, now.mono.saturating_add(PATIENCE)));
        }
    }

    /// The pool has made keys.
    pub(in crate::engine) fn keys_made(&mut self, now: Now, job: CpuId, made: &[KeyPair]) {
        let is_awaited = |upload: &Upload| upload.job.is_some_and(|(awaited, _)| awaited == job);
        if self.upload.as_ref().is_some_and(is_awaited) {
            self.store_keys(now, made);
        }
    }

    fn store_keys(&mut self, now: Now, made: &[KeyPair]) {
        let Some(mut upload) = self.upload.take() else { return };
        upload.job = None;
        let count = made.len().min(upload.ids.len());
        let with_ids: Vec<_> = upload.ids.drain(..count).zip(made).collect();
        upload.made.extend(with_ids.iter().map(|(id, pair)| (*id, *pair.public())));
        self.act(now, |step| {
            for (id, pair) in with_ids {
                step.put(keys::pre_key(id), pair);
            }
        });
        self.upload = Some(upload);
        self.go_on_with_upload(now);
    }

    /// All keys are stored. Without a connection they wait for the next.
    fn send_upload(&mut self, now: Now) {
        if self.connection.online().is_none() {
            return;
        }
        let Some(upload) = self.upload.take() else { return };
        let id = self.queries.ask(Query::PreKeyUpload, now.mono.saturating_add(self.config.query_timeout));
        self.act(now, |step| {
            step.account_mut().uploaded = true;
            let account = step.account();
            let signed = &account.signed_pre_key;
            let request = prekeys::Upload {
                registration_id: account.registration_id,
                identity: account.identity.public(),
                pre_keys: &upload.made,
                signed_pre_key: (signed.id, *signed.pair.public(), signed.signature),
            }
            .request();
            step.send(&request.attr("id", id));
        });
    }

    /// The pool does not answer: goes on without an upload, and counts again later.
    pub(in crate::engine) fn expire_upload(&mut self, now: Now) {
        let is_late = |upload: &mut Upload| upload.deadline().is_some_and(|until| until <= now.mono);
        if self.upload.take_if(is_late).is_some() {
            tracing::error!("prekeys were not made in time");
            self.upload_failed(now);
            self.activate(now);
        }
    }

    /// The server took an upload, or did not.
    pub(in crate::engine) fn uploaded(&mut self, now: Now, result: Result<(), QueryError>) {
        match result {
            Ok(()) => {
                self.upload_failures = 0;
                // What it holds is known.
                self.act(now, |step| step.account_mut().digest_checked = step.now.unix_seconds());
            }
            Err(error) => {
                tracing::warn!(%error, "prekey upload failed");
                self.upload_failed(now);
            }
        }
        self.activate(now);
    }

    /// Keys are counted after a pause; it may be that the server has them after all.
    fn upload_failed(&mut self, now: Now) {
        self.upload_failures = self.upload_failures.saturating_add(1);
        let at = now.mono.saturating_add(Duration::from_secs(pause(self.upload_failures)));
        if let Some(online) = self.connection.online() {
            online.refill_at = Some(at);
        }
    }
}

/// The pause after so many failures in a row, seconds.
fn pause(failures: u32) -> u64 {
    let (mut pause, mut next) = (1, 2);
    for _ in 1..failures.min(32) {
        (pause, next) = (next, pause + next);
    }
    pause.min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let pauses: Vec<u64> = (1..8).map(pause).collect();
        assert_eq!(pauses, [1, 2, 3, 5, 8, 13, 21]);
        assert_eq!((pause(14), pause(15), pause(u32::MAX)), (610, 610, 610));
    }
}
