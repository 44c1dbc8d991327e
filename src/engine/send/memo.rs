//! Whom the last messages of a chat were for, kept while nothing about it changes.
//!
//! What could change it goes through the records, so that every batch shows it: the group, the marks, the devices and names
//! of its people. A change of our key shows when a message is encrypted. Besides, it holds as long as a device list does.
//!
//! ```text
//!   send ──► kept? ──no──► look at everybody ──► keep
//!              └─yes─► encrypt             batch: record of the group, its marks, one of its people ──► forget
//! ```

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Plan, SendOp, fail,
    fanout::{Fanout, hash_name},
    group,
    seal::{self, Sealed},
    status,
};
use crate::{
    clock::Now,
    engine::{Engine, notices::SendFailure, step::Needs},
    jid::Jid,
    store::{Key, RecordKind},
};

/// Chats that are kept at most; the one that was not used for the longest time goes.
const MAX_KEPT: usize = 64;

/// What a look at everybody came to.
#[derive(Debug)]
pub(super) enum Look {
    /// The message can be encrypted.
    Found(Box<Fanout>),
    /// Something else comes first, or it failed.
    Plan(Plan),
}

/// One chat.
#[derive(Debug)]
struct Kept {
    fanout: Arc<Fanout>,
    /// The viewers of the status, as the caller gave them.
    viewers: Arc<[Jid]>,
    used: u64,
    /// When it was found out, unix seconds: device lists hold for some time only.
    found: u64,
}

/// The chats whose people are known.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    kept: BTreeMap<Jid, Kept>,
    uses: u64,
}

impl Memo {
    /// `age` is for how long device lists hold, seconds.
    pub(super) fn get(&mut self, now: Now, age: u64, chat: &Jid, viewers: &[Jid]) -> Option<Arc<Fanout>> {
        let holds = |kept: &&mut Kept| *kept.viewers == *viewers && now.unix_seconds().saturating_sub(kept.found) < age;
        let kept = self.kept.get_mut(chat).filter(holds)?;
        self.uses += 1;
        kept.used = self.uses;
        Some(Arc::clone(&kept.fanout))
    }

    fn keep(&mut self, now: Now, op: &SendOp, fanout: Arc<Fanout>) {
        if self.kept.len() >= MAX_KEPT
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(chat, _)| chat.clone())
        {
            self.kept.remove(&oldest);
        }
        self.uses += 1;
        let kept = Kept { fanout, viewers: Arc::clone(&op.viewers), used: self.uses, found: now.unix_seconds() };
        self.kept.insert(op.lane.chat.clone(), kept);
    }

    /// A record is written or removed.
    pub(in crate::engine) fn changed(&mut self, key: &Key) {
        if self.kept.is_empty() {
            return;
        }
        match key.kind {
            // The ids begin with the chat; those that do not are about all chats.
            RecordKind::Group | RecordKind::SenderKeyMarks => {
                let chat = key.id.split(|byte| *byte == 0).next().unwrap_or_default();
                match std::str::from_utf8(chat).ok().filter(|chat| !chat.is_empty()).map(str::parse::<Jid>) {
                    Some(Ok(chat)) => drop(self.kept.remove(&chat)),
                    _ => self.clear(),
                }
            }
            RecordKind::DeviceList | RecordKind::LidMap => {
                let name = hash_name(&key.id);
                self.kept.retain(|_, kept| !kept.fanout.concerns(name));
            }
            RecordKind::Account => self.clear(),
            _ => {}
        }
    }

    /// Forgets everything.
    pub(in crate::engine) fn clear(&mut self) {
        self.kept.clear();
    }
}

impl Engine {
    /// Goes on with a message under our sender key.
    ///
    /// # Errors
    /// [`Needs`]: run it again with them.
    pub(super) fn plan_fanout(&mut self, now: Now, op: &mut SendOp) -> Result<Plan, Needs> {
        let age = self.config.device_list_age.as_secs();
        loop {
            let (fanout, is_new) = match self.sends.memo.get(now, age, &op.lane.chat, &op.viewers) {
                Some(kept) => (kept, false),
                None => {
                    let op = &*op;
                    let look = self.step(now, |step| match op.to.is_group() {
                        true => group::look(step, op),
                        false => status::look(step, op),
                    })?;
                    match look {
                        Look::Found(fanout) => (Arc::from(fanout), true),
                        Look::Plan(plan) => return Ok(plan),
                    }
                }
            };
            // Before the step: what that changes must be seen.
            if is_new {
                self.sends.memo.keep(now, op, Arc::clone(&fanout));
                if !op.can_seal(&fanout) {
                    // To look at so many took long enough.
                    return Ok(Plan::Later);
                }
            }
            let sealed = match op.can_seal(&fanout) {
                true => self.step(now, |step| seal::seal(step, op, &fanout))?,
                false => self.hand_over(now, op, &fanout)?,
            };
            match sealed {
                Sealed::Plan(plan) => return Ok(plan),
                // What was found a moment ago holds.
                Sealed::OtherKey if is_new => {
                    let failure = SendFailure::new("sender_key", "our key of the chat is not what it was a moment ago");
                    return self.step(now, |step| Ok(fail(step, op, &failure)));
                }
                Sealed::OtherKey => drop(self.sends.memo.kept.remove(&op.lane.chat)),
            }
        }
    }
}
