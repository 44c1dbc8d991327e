//! What WhatsApp does not let the account do for a while, as state (spec 03 §6.1, spec 06 §9.9 and §15).
//!
//! ```text
//!   free ──463, 475, push──► restricted until its end ──its time, push, answer──► free
//!                               │ new chats are refused here, before the server sees them
//! ```
//!
//! A refused message says that there is a restriction and not how long: the server is asked once. Without an answer it
//! ends after [`UNKNOWN_END`]; the next refusal begins it anew. Nothing is sent again by itself.

use std::time::Duration;

use crate::{
    clock::Now,
    engine::{
        CommandError, Engine, Phase,
        address::User,
        queries::{Query, QueryError},
        records::RestrictionRecord,
        step::{Miss, Step},
        tokens,
    },
    event::{AccountMessageCap, AccountRestricted, RestrictionKind},
    stanza::iq::mex::{self, MessageCap, ReachOut},
};

/// How long a restriction holds of which the server does not tell the end.
const UNKNOWN_END: Duration = Duration::from_secs(3_600);
/// The server refuses to let the account write to a stranger.
const REACH_OUT: u32 = 463;
/// The server refuses to let the account begin one more chat.
const CAPPED: u32 = 475;

/// A restriction that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restriction {
    /// What the account may not do.
    pub kind: RestrictionKind,
    /// When it ends, unix milliseconds; an hour after it began when the server does not say.
    pub until_ms: u64,
    /// Whether the end is the server's word.
    pub is_told: bool,
    /// The server's own word for it.
    pub enforcement: Option<String>,
}

impl Restriction {
    pub(crate) fn to_record(&self) -> RestrictionRecord {
        RestrictionRecord {
            kind: match self.kind {
                RestrictionKind::ReachOut => REACH_OUT,
                RestrictionKind::MessageCap => CAPPED,
            },
            until_ms: self.until_ms,
            is_told: self.is_told,
            enforcement: self.enforcement.clone(),
        }
    }

    /// `None` for a kind of a newer version.
    pub(crate) fn from_record(record: RestrictionRecord) -> Option<Self> {
        let kind = match record.kind {
            REACH_OUT => RestrictionKind::ReachOut,
            CAPPED => RestrictionKind::MessageCap,
            _ => return None,
        };
        let RestrictionRecord { until_ms, is_told, enforcement, .. } = record;
        Some(Self { kind, until_ms, is_told, enforcement })
    }
}

/// A message to somebody was refused with this code.
///
/// # Errors
/// [`Miss`].
pub(crate) fn refused(step: &mut Step<'_>, user: &User, code: u32) -> Result<(), Miss> {
    match code {
        REACH_OUT => {
            // What the peer needs to know us by, for a next time; the message is not sent again.
            tokens::issue(step, user)?;
            restrict(step, RestrictionKind::ReachOut, None, None);
            step.ask(Query::ReachOut, mex::reach_out_request());
        }
        CAPPED => {
            restrict(step, RestrictionKind::MessageCap, None, None);
            step.ask(Query::MessageCap, mex::message_cap_request());
        }
        _ => {}
    }
    Ok(())
}

/// The server says what holds.
pub(crate) fn told(step: &mut Step<'_>, restriction: &mex::Restriction) {
    match restriction {
        mex::Restriction::ReachOut(ReachOut { is_active: false, .. }) => lift(step, RestrictionKind::ReachOut),
        mex::Restriction::ReachOut(told) => {
            restrict(step, RestrictionKind::ReachOut, told.ends_ms, told.enforcement.clone());
        }
        mex::Restriction::MessageCap(cap) => {
            let MessageCap { total, used, status, ends_ms } = cap.clone();
            step.emit(AccountMessageCap::new(total, used, status, ends_ms));
            match cap.is_capped() {
                true => restrict(step, RestrictionKind::MessageCap, ends_ms, None),
                false => lift(step, RestrictionKind::MessageCap),
            }
        }
    }
}

/// Notes a restriction, and tells it when it is news. An end that has passed, or is not told, is not known; it does not replace
/// one that is.
fn restrict(step: &mut Step<'_>, kind: RestrictionKind, end: Option<u64>, enforcement: Option<String>) {
    let now = step.now.wall_ms;
    let end = end.filter(|end| *end > now);
    let known = step.account().restrictions.iter().find(|known| known.kind == kind).cloned();
    if end.is_none() && known.is_some() {
        return;
    }
    let unknown = now.saturating_add(u64::try_from(UNKNOWN_END.as_millis()).unwrap_or(u64::MAX));
    let restriction = Restriction {
        kind,
        until_ms: end.unwrap_or(unknown),
        is_told: end.is_some(),
        enforcement: enforcement.clone(),
    };
    if known.as_ref() == Some(&restriction) {
        return;
    }
    let restrictions = &mut step.account_mut().restrictions;
    restrictions.retain(|known| known.kind != kind);
    restrictions.push(restriction);
    step.emit(AccountRestricted::new(kind, true, end, enforcement));
}

/// A restriction is over.
fn lift(step: &mut Step<'_>, kind: RestrictionKind) {
    if step.account().restrictions.iter().any(|known| known.kind == kind) {
        step.account_mut().restrictions.retain(|known| known.kind != kind);
        step.emit(AccountRestricted::new(kind, false, None, None));
    }
}

/// Asks the server what holds.
pub(crate) fn ask(step: &mut Step<'_>) {
    step.ask(Query::ReachOut, mex::reach_out_request());
    step.ask(Query::MessageCap, mex::message_cap_request());
}

/// Whether a message to somebody may be sent: while the account is restricted, only to whom it had a word with.
///
/// # Errors
/// [`Miss`].
pub(crate) fn check(step: &mut Step<'_>, user: &User) -> Result<Result<(), CommandError>, Miss> {
    let Some(restriction) = step.account().restrictions.first().cloned() else { return Ok(Ok(())) };
    Ok(match tokens::knows(step, user)? {
        true => Ok(()),
        false => Err(CommandError::Restricted { kind: restriction.kind, until_ms: restriction.until_ms }),
    })
}

impl Engine {
    /// When the next restriction ends.
    pub(super) fn restriction_deadline(&self, now: Now) -> Option<Duration> {
        let end = self.account.restrictions.iter().map(|restriction| restriction.until_ms).min()?;
        Some(now.mono.saturating_add(Duration::from_millis(end.saturating_sub(now.wall_ms))))
    }

    /// Lifts the restrictions whose time is up.
    pub(super) fn expire_restrictions(&mut self, now: Now) {
        self.restriction_ends = None;
        if self.phase != Phase::Ready {
            return;
        }
        let over: Vec<_> = self.account.restrictions.iter().filter(|known| known.until_ms <= now.wall_ms).collect();
        let over: Vec<_> = over.into_iter().map(|known| known.kind).collect();
        if !over.is_empty() {
            self.act(now, |step| over.iter().for_each(|kind| lift(step, *kind)));
        }
        self.restriction_ends = self.restriction_deadline(now);
    }

    /// The server answered, or did not, what holds.
    pub(super) fn restriction_answered(&mut self, now: Now, answer: Result<Option<mex::Restriction>, QueryError>) {
        match answer {
            Ok(Some(restriction)) => self.act(now, |step| told(step, &restriction)),
            Ok(None) => tracing::debug!("the server says nothing about restrictions"),
            Err(error) => tracing::debug!(%error, "restrictions cannot be asked for"),
        }
    }
}
