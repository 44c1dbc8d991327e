//! `Debug` of what the driver handles: names, counts and redacted ids, and never keys, numbers, names or text.

use std::fmt::{Debug, Formatter, Result};

use super::{Audience, Command, Content, Engine, Input, Loaded, MessageRef, Output, Phase, SendRequest, Snapshot};
use crate::{clock::Now, jid::Jid};

impl Debug for Engine {
    /// The parts of the snapshot that are nobody's business but the program's.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Engine")
            .field("session", &self.config.session)
            .field("phase", &self.phase)
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Where the life cycle stands, without times, counters and data: two engines of the same shape do the same next, as
    /// far as the connection is concerned. For tests that explore the machine.
    #[doc(hidden)]
    pub fn shape(&self, now: Now) -> String {
        let phase = match self.phase {
            Phase::Booting => "booting",
            Phase::Ready => "ready",
            Phase::Halted { .. } => "halted",
            Phase::Broken(_) => "broken",
            Phase::Lost => "lost",
        };
        let linked = if self.account.linked.is_some() { "linked" } else { "unlinked" };
        let (connection, told) = (self.connection.shape(now.mono), self.told.state().as_str());
        format!("{connection} {phase} {linked} {told}")
    }
}

impl Debug for Snapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Snapshot")
            .field("state", &self.state)
            .field("jid", &self.jid.as_ref().map(Jid::redacted))
            .field("lid", &self.lid.as_ref().map(Jid::redacted))
            .field("last_seen_ms", &self.last_seen_ms)
            .field("last_event", &self.last_event)
            .field("unacknowledged", &self.unacknowledged)
            .field("banned_until_ms", &self.banned_until_ms)
            .field("version", &self.version)
            .field("resume_failures", &self.resume_failures)
            .field("sends", &self.sends)
            .field("batches", &self.batches)
            .field("waiting_bytes", &self.waiting_bytes)
            .field("restrictions", &self.restrictions)
            .finish_non_exhaustive()
    }
}

impl Debug for Input {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Opened(id) => f.debug_tuple("Opened").field(id).finish(),
            Self::Received(id, bytes) => f.debug_tuple("Received").field(id).field(&Len(bytes.len())).finish(),
            Self::Closed(id, reason) => f.debug_tuple("Closed").field(id).field(reason).finish(),
            Self::Command(id, command) => f.debug_tuple("Command").field(id).field(command).finish(),
            Self::Loaded(id, loaded) => f.debug_tuple("Loaded").field(id).field(loaded).finish(),
            Self::Durable(seq) => f.debug_tuple("Durable").field(seq).finish(),
            Self::StoreFailed(error) => f.debug_tuple("StoreFailed").field(error).finish(),
            Self::Acknowledged(seq) => f.debug_tuple("Acknowledged").field(seq).finish(),
            Self::Computed(id, result) => f.debug_tuple("Computed").field(id).field(result).finish(),
            Self::Version(version) => f.debug_tuple("Version").field(version).finish(),
            Self::Tick => f.write_str("Tick"),
        }
    }
}

impl Debug for Loaded {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let found = self.records.iter().filter(|(_, record)| record.is_some()).count();
        f.debug_struct("Loaded")
            .field("asked", &self.records.len())
            .field("found", &found)
            .field("scanned", &self.scanned.len())
            .finish()
    }
}

impl Debug for Output {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Open(id) => f.debug_tuple("Open").field(id).finish(),
            Self::Send(id, bytes) => f.debug_tuple("Send").field(id).field(&Len(bytes.len())).finish(),
            Self::Close(id) => f.debug_tuple("Close").field(id).finish(),
            Self::Load { id, keys, scans } => {
                f.debug_struct("Load").field("id", id).field("keys", keys).field("scans", scans).finish()
            }
            Self::Commit { seq, batch } => f.debug_struct("Commit").field("seq", seq).field("batch", batch).finish(),
            Self::Event(envelope) => f.debug_tuple("Event").field(envelope).finish(),
            Self::RefreshVersion => f.write_str("RefreshVersion"),
            Self::Reply(id, reply) => f.debug_tuple("Reply").field(id).field(reply).finish(),
            Self::Cpu(id, job) => f.debug_tuple("Cpu").field(id).field(job).finish(),
        }
    }
}

impl Debug for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Connect => f.write_str("Connect"),
            Self::LinkQr => f.write_str("LinkQr"),
            Self::LinkCode { phone, code, notify } => {
                f.debug_struct("LinkCode").field("phone", phone).field("code", code).field("notify", notify).finish()
            }
            Self::PasskeyAssertion { assertion, .. } => {
                f.debug_struct("PasskeyAssertion").field("assertion", &Len(assertion.len())).finish_non_exhaustive()
            }
            Self::PasskeyConfirm => f.write_str("PasskeyConfirm"),
            Self::Disconnect => f.write_str("Disconnect"),
            Self::Reconnect => f.write_str("Reconnect"),
            Self::Logout => f.write_str("Logout"),
            Self::SetVersion(version) => f.debug_tuple("SetVersion").field(version).finish(),
            Self::SetNctSalt(_) => f.write_str("SetNctSalt([redacted])"),
            Self::CheckRestrictions => f.write_str("CheckRestrictions"),
            Self::Send(request) => f.debug_tuple("Send").field(request).finish(),
            Self::Group(request) => f.debug_tuple("Group").field(request).finish(),
            Self::MarkRead { chat, participant, ids } => f
                .debug_struct("MarkRead")
                .field("chat", &chat.redacted())
                .field("participant", &participant.as_ref().map(Jid::redacted))
                .field("ids", &ids.len())
                .finish(),
        }
    }
}

impl Debug for SendRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("SendRequest")
            .field("to", &self.to.redacted())
            .field("content", &self.content)
            .field("viewers", &self.audience.as_ref().map(|audience| audience.viewers.len()))
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Debug for Audience {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Audience")
            .field("setting", &self.setting)
            .field("viewers", &self.viewers.len())
            .finish_non_exhaustive()
    }
}

impl Debug for Content {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Text(text) => f.debug_tuple("Text").field(&Len(text.len())).finish(),
            Self::Message(_) => f.write_str("Message"),
            Self::Reaction { target, .. } => f.debug_tuple("Reaction").field(target).finish(),
            Self::Edit { id, .. } => f.debug_tuple("Edit").field(id).finish(),
            Self::Delete { target } => f.debug_tuple("Delete").field(target).finish(),
            Self::Pin { target, duration } => f.debug_tuple("Pin").field(target).field(duration).finish(),
            Self::Unpin { target } => f.debug_tuple("Unpin").field(target).finish(),
            Self::Vote { poll, .. } => f.debug_tuple("Vote").field(poll).finish(),
            Self::EventResponse { event, .. } => f.debug_tuple("EventResponse").field(event).finish(),
            Self::Comment { target, .. } => f.debug_tuple("Comment").field(target).finish(),
        }
    }
}

impl Debug for MessageRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("MessageRef")
            .field("id", &self.id)
            .field("from_me", &self.from_me)
            .field("participant", &self.participant.as_ref().map(Jid::redacted))
            .finish()
    }
}

/// So many bytes of something.
struct Len(usize);

impl Debug for Len {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} bytes", self.0)
    }
}
