//! Messages that could not be decrypted, both ways (spec 03 §5.6, §5.7).
//!
//! | file | what |
//! |---|---|
//! | `ask` | the sending device is asked to encrypt again |
//! | `limits` | how often in a minute |
//! | `placeholder` | our own phone is asked for the message |
//! | `asked` | a device asks us |
//! | `renew` | which session it is answered in |

pub(crate) mod ask;
pub(crate) mod asked;
pub(super) mod fuzz;
mod limits;
pub(crate) mod placeholder;
mod renew;

use std::collections::HashSet;

use crate::{clock::Now, engine::records::PlaceholderRecord, jid::Jid, store::Key};
use limits::Limits;
use placeholder::Wanted;

/// What an engine remembers of its own requests to send again, besides what is stored.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    limits: Limits,
    pub(crate) wanted: Wanted,
    /// The messages that were asked for on this connection, [`MAX_HERE`] at most.
    here: HashSet<Key>,
}

/// Requests of one connection that are remembered; one more, and it begins anew.
const MAX_HERE: usize = 1_024;

/// Something that a step has to say to the [`Memory`]; it counts when the step is done.
#[derive(Debug)]
pub(crate) enum Note {
    /// This user was asked to encrypt again, what is noted under the key.
    Asked(Jid, Key),
    /// A user was not, since there were too many requests already.
    TooMany,
    /// The phone is to be asked for a message, or was.
    Wanted(Key, PlaceholderRecord),
    /// It need not be asked any more.
    Settled(Key),
}

impl Memory {
    /// Whether this user may be asked to encrypt something again.
    pub(crate) fn allow(&self, now: Now, user: &Jid) -> bool {
        self.limits.allow(now.mono, user)
    }

    pub(crate) fn note(&mut self, now: Now, note: Note) {
        match note {
            Note::Asked(user, key) => {
                self.limits.asked(now.mono, user);
                if self.here.len() >= MAX_HERE {
                    self.here.clear();
                }
                self.here.insert(key);
            }
            Note::TooMany => self.limits.too_many(now.mono),
            Note::Wanted(key, record) => self.wanted.put(now, key, record),
            Note::Settled(key) => self.wanted.remove(&key),
        }
    }

    /// Whether a message was asked for on this connection.
    pub(crate) fn is_asked_here(&self, key: &Key) -> bool {
        self.here.contains(key)
    }

    /// The connection is gone, and perhaps requests with it.
    pub(crate) fn connection_lost(&mut self) {
        self.here.clear();
    }

    /// Time has passed.
    pub(crate) fn expire(&mut self, now: Now) {
        self.limits.expire(now.mono);
    }
}
