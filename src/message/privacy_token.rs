//! Privacy tokens: what shows the server that a peer knows us, so that we may write to it (spec 03 §4.7).
//!
//! ```text
//! tctoken    made by the peer for us, comes by notification or history; valid for some buckets of time
//! cstoken    HMAC( NCT salt, our text form of the peer's LID ): in place of a tctoken that we do not have
//! ours       issued to a peer after we wrote to it, once per bucket
//! ```
//!
//! Pure decisions: what to attach, what to keep, when to issue. Times are unix seconds, of the server where there is a choice.

use std::fmt;

use bytes::Bytes;

use crate::{crypto::hmac_sha256, jid::Jid};

/// Tokens have some 10 to 40 bytes; a longer one than this is not kept.
pub const MAX_TOKEN_LEN: usize = 1_024;
/// How far the clocks of server and peers may run ahead of ours: a token that is dated further in the future is dropped, since
/// it could never be replaced by a newer one.
pub const MAX_AHEAD: u64 = 86_400;

/// The windows of validity. The server may set others by its props; the default is what holds without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Seconds of a bucket (`tctoken_duration`), not 0.
    duration: u64,
    /// Buckets that a token is valid for, the one it was made in included (`tctoken_num_buckets`), not 0.
    count: u64,
}

impl Default for Buckets {
    /// Four weeks, aligned to seven days.
    fn default() -> Self {
        Self { duration: 604_800, count: 4 }
    }
}

impl Buckets {
    /// Takes the props of the server; `None` when one of them is 0.
    pub const fn new(duration: u64, count: u64) -> Option<Self> {
        if duration == 0 || count == 0 { None } else { Some(Self { duration, count }) }
    }

    /// The number of the bucket of a time.
    pub const fn bucket(&self, at: u64) -> u64 {
        match at.checked_div(self.duration) {
            Some(bucket) => bucket,
            None => 0,
        }
    }

    /// The earliest timestamp that is valid at `now`.
    pub const fn cutoff(&self, now: u64) -> u64 {
        self.bucket(now).saturating_sub(self.count.saturating_sub(1)).saturating_mul(self.duration)
    }

    /// Whether a token of `timestamp` is valid at `now`.
    pub const fn is_valid(&self, timestamp: u64, now: u64) -> bool {
        timestamp >= self.cutoff(now)
    }

    /// Whether a token of ours must be issued to a peer that we wrote to at `now`: none was in this bucket or a later one.
    pub fn must_issue(&self, issued: Option<u64>, now: u64) -> bool {
        issued.is_none_or(|issued| self.bucket(issued) < self.bucket(now))
    }
}

/// What is kept for a peer, under its LID.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PrivacyToken {
    /// The peer's token for us, and its timestamp.
    pub received: Option<(Bytes, u64)>,
    /// The timestamp of the token that we issued last.
    pub issued: Option<u64>,
}

impl fmt::Debug for PrivacyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivacyToken")
            .field("received", &self.received.as_ref().map(|(_, timestamp)| timestamp))
            .field("issued", &self.issued)
            .finish()
    }
}

impl PrivacyToken {
    /// Takes a token over that came from a notification, from history or in an answer; whether it did.
    ///
    /// The newest counts; one of the same time replaces, for it may be a correction. Empty, too long, and dated more than a day
    /// ahead of `now`: not kept.
    pub fn receive(&mut self, token: Bytes, timestamp: u64, now: u64) -> bool {
        let is_sound = !token.is_empty() && token.len() <= MAX_TOKEN_LEN;
        let is_possible = timestamp <= now.saturating_add(MAX_AHEAD);
        let is_newest = self.received.as_ref().is_none_or(|(_, known)| *known <= timestamp);
        let takes = is_sound && is_possible && is_newest;
        if takes {
            self.received = Some((token, timestamp));
        }
        takes
    }

    /// Notes that a token of ours was issued, or that history says so. An earlier time changes nothing.
    pub fn issue(&mut self, timestamp: u64) {
        self.issued = self.issued.max(Some(timestamp));
    }

    /// Whether nothing of it is of use any more: the record can go.
    pub fn is_stale(&self, received: &Buckets, issued: &Buckets, now: u64) -> bool {
        self.valid(received, now).is_none() && self.issued.is_none_or(|issued_at| !issued.is_valid(issued_at, now))
    }

    /// The peer's token, if it is valid.
    pub fn valid(&self, buckets: &Buckets, now: u64) -> Option<&Bytes> {
        let (token, timestamp) = self.received.as_ref()?;
        buckets.is_valid(*timestamp, now).then_some(token)
    }

    /// The timestamp to issue our token with again, after the peer's identity changed: that of the last one. `None` if none
    /// was issued, or it has expired.
    pub fn reissue(&self, issued: &Buckets, now: u64) -> Option<u64> {
        self.issued.filter(|timestamp| issued.is_valid(*timestamp, now))
    }
}

/// What goes into a stanza to a peer.
#[derive(Clone, PartialEq, Eq)]
pub enum Attachment {
    /// `<tctoken>`.
    Trusted(Bytes),
    /// `<cstoken>`.
    Salted([u8; 32]),
    /// Neither.
    None,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trusted(_) => "Trusted([redacted])",
            Self::Salted(_) => "Salted([redacted])",
            Self::None => "None",
        })
    }
}

/// Whether stanzas to `to` carry a token at all: those to a user do, other than ourselves and bots. `is_own` tells what only the
/// LID mapping can.
///
/// Peer messages and resends for a retry receipt carry none either; the caller knows those.
pub fn takes_token(to: &Jid, is_own: bool) -> bool {
    let is_user = (to.is_pn_family() || to.is_lid_family()) && !to.is_server_only();
    is_user && !is_own && !to.is_bot() && to.user() != ANNOUNCEMENTS
}

/// What to attach to a stanza for which [`takes_token`] holds: the peer's token while it is valid, else the salted one if
/// salt and LID are known.
pub fn attach(
    token: Option<&PrivacyToken>,
    salt: Option<&[u8]>,
    lid: Option<&Jid>,
    buckets: &Buckets,
    now: u64,
) -> Attachment {
    if let Some(token) = token.and_then(|token| token.valid(buckets, now)) {
        return Attachment::Trusted(token.clone());
    }
    match (salt, lid) {
        (Some(salt), Some(lid)) if !salt.is_empty() => Attachment::Salted(cstoken(salt, lid)),
        _ => Attachment::None,
    }
}

/// The salted token for a peer. `salt` is the NCT salt of history sync or of the app-state action `nct_salt_sync`; the device of
/// the LID does not count.
pub fn cstoken(salt: &[u8], lid: &Jid) -> [u8; 32] {
    hmac_sha256(salt, &[lid.to_account().to_string().as_bytes()])
}

/// The account of the service itself, whose announcements need no token to be answered.
const ANNOUNCEMENTS: &str = "0";
