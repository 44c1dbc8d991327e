//! Privacy tokens: what shows the server that a peer knows us (spec 03 §4.7). The decisions are those of
//! [`message::privacy_token`](crate::message::privacy_token); here is what is stored, sent and asked.
//!
//! ```text
//! notification, answer ──► record of the peer ──► <tctoken> on every 1:1 send      else <cstoken>, if the salt is known
//! a send is acknowledged in a new bucket ──► our own token is issued to the peer, and nobody waits for it
//! ```
//!
//! The record of a peer says, too, whether we ever had a word with it: while the account is restricted, only such chats go on.

use bytes::Bytes;

use crate::{
    clock::Now,
    engine::{
        Engine, Job,
        address::{self, User},
        queries::{Answer, Query, QueryError},
        records::{PrivacyTokenRecord, Record},
        step::{Miss, Step},
    },
    event::MappingSource,
    jid::Jid,
    message::privacy_token::{self, Attachment, Buckets, PrivacyToken},
    node::Node,
    stanza::iq::tokens::{self, Token},
    store::{Key, RecordKind},
};

/// The salt of [`privacy_token::cstoken`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NctSalt(pub(crate) Bytes);

impl std::fmt::Debug for NctSalt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NctSalt([redacted])")
    }
}

fn token_key(user: &Jid) -> Key {
    Key::new(RecordKind::PrivacyToken, user.to_string())
}

/// What is kept of a peer, and of it what tokens need.
#[derive(Debug, Default)]
struct Peer {
    record: PrivacyTokenRecord,
    /// Where it stands; another place is from before the LID was known.
    found: Vec<Key>,
}

impl Peer {
    /// # Errors
    /// [`Miss`].
    fn load(step: &mut Step<'_>, user: &User) -> Result<Self, Miss> {
        let keys: Vec<Key> = user.identities().map(token_key).collect();
        step.require(&keys)?;
        let mut peer = Self::default();
        for key in keys {
            if let Some(record) = step.record::<PrivacyTokenRecord>(&key)? {
                peer.unite(record);
                peer.found.push(key);
            }
        }
        Ok(peer)
    }

    /// What is known under both names is known of one peer; the newest token counts.
    fn unite(&mut self, other: PrivacyTokenRecord) {
        let record = &mut self.record;
        if !other.token.is_empty() && (record.token.is_empty() || other.received > record.received) {
            (record.token, record.received) = (other.token, other.received);
        }
        record.issued = record.issued.max(other.issued);
        record.talked |= other.talked;
    }

    fn token(&self) -> PrivacyToken {
        let PrivacyTokenRecord { token, received, issued, .. } = &self.record;
        PrivacyToken {
            received: (!token.is_empty()).then(|| (token.clone(), *received)),
            issued: Some(*issued).filter(|issued| *issued != 0),
        }
    }

    fn set_token(&mut self, token: PrivacyToken) {
        (self.record.token, self.record.received) = token.received.unwrap_or_default();
        self.record.issued = token.issued.unwrap_or(0);
    }

    fn store(self, step: &mut Step<'_>, user: &User) {
        let key = token_key(&user.canonical);
        self.found.into_iter().filter(|found| *found != key).for_each(|found| step.delete(found));
        step.put(key, self.record.to_bytes());
    }
}

/// Whether tokens are exchanged with somebody at all.
fn takes_token(step: &Step<'_>, user: &User) -> bool {
    let linked = step.account().linked.as_ref();
    let is_own = linked.is_some_and(|linked| linked.own().is_account(&user.canonical));
    privacy_token::takes_token(&user.canonical, is_own)
}

/// A message came from, or went to, this chat: it is not a new one any more.
///
/// # Errors
/// [`Miss`].
pub(crate) fn met(step: &mut Step<'_>, chat: &User) -> Result<(), Miss> {
    if !takes_token(step, chat) {
        return Ok(());
    }
    let mut peer = Peer::load(step, chat)?;
    if !peer.record.talked {
        peer.record.talked = true;
        peer.store(step, chat);
    }
    Ok(())
}

/// Whether there is a chat with somebody: we had a word, or a token shows that the peer knows us. What takes no token is no
/// stranger.
///
/// # Errors
/// [`Miss`].
pub(crate) fn knows(step: &mut Step<'_>, user: &User) -> Result<bool, Miss> {
    if !takes_token(step, user) {
        return Ok(true);
    }
    let peer = Peer::load(step, user)?;
    Ok(peer.record.talked || peer.token().valid(&Buckets::default(), step.now.unix_seconds()).is_some())
}

/// Tokens arrived from a peer.
///
/// # Errors
/// [`Miss`].
pub(crate) fn received(step: &mut Step<'_>, from: &Jid, lid: Option<&Jid>, tokens: &[Token]) -> Result<(), Miss> {
    if let Some(lid) = lid {
        address::learn(step, from, lid, MappingSource::Notification)?;
    }
    let user = address::user(step, from)?;
    keep(step, &user, tokens, None)
}

/// The server took the token that we issued to a peer at `issued`; it may answer with the peer's own.
///
/// # Errors
/// [`Miss`].
pub(crate) fn was_issued(step: &mut Step<'_>, peer: &Jid, issued: u64, tokens: &[Token]) -> Result<(), Miss> {
    let user = address::user(step, peer)?;
    keep(step, &user, tokens, Some(issued))
}

fn keep(step: &mut Step<'_>, user: &User, tokens: &[Token], issued: Option<u64>) -> Result<(), Miss> {
    if !takes_token(step, user) {
        return Ok(());
    }
    let mut peer = Peer::load(step, user)?;
    let before = peer.token();
    let mut token = before.clone();
    for Token { bytes, timestamp } in tokens {
        token.receive(bytes.clone(), *timestamp, step.now.unix_seconds());
    }
    if let Some(issued) = issued {
        token.issue(issued);
    }
    if token != before {
        peer.set_token(token);
        peer.store(step, user);
    }
    Ok(())
}

/// The child of a stanza to a user that shows that we may write to it, if there is one.
///
/// # Errors
/// [`Miss`].
pub(crate) fn attach(step: &mut Step<'_>, user: &User) -> Result<Option<Node>, Miss> {
    if !takes_token(step, user) {
        return Ok(None);
    }
    let token = Peer::load(step, user)?.token();
    let salt = step.account().nct_salt.clone();
    let now = step.now.unix_seconds();
    Ok(
        match privacy_token::attach(
            Some(&token),
            salt.as_ref().map(|salt| &salt.0[..]),
            user.lid.as_ref(),
            &Buckets::default(),
            now,
        ) {
            Attachment::Trusted(token) => Some(tokens::trusted(token)),
            Attachment::Salted(token) => Some(tokens::salted(token)),
            Attachment::None => None,
        },
    )
}

/// The server took a message of ours to somebody: the chat is not new any more, and a token of ours is issued, once in a bucket.
///
/// # Errors
/// [`Miss`].
pub(crate) fn wrote(step: &mut Step<'_>, user: &User) -> Result<(), Miss> {
    met(step, user)?;
    issue(step, user)
}

/// Issues a token of ours to a peer unless it has one of this bucket. That it has is noted when the server answers.
///
/// # Errors
/// [`Miss`].
pub(crate) fn issue(step: &mut Step<'_>, user: &User) -> Result<(), Miss> {
    if !takes_token(step, user) {
        return Ok(());
    }
    let now = step.now.unix_seconds();
    if Buckets::default().must_issue(Peer::load(step, user)?.token().issued, now) {
        let peer = user.canonical.clone();
        let request = tokens::issue(&peer, now);
        step.ask(Query::IssueToken(peer, now), request);
    }
    Ok(())
}

/// A peer has a new identity key and lost our token with its old one: it gets the same again.
///
/// # Errors
/// [`Miss`].
pub(crate) fn reissue(step: &mut Step<'_>, user: &User) -> Result<(), Miss> {
    if !takes_token(step, user) {
        return Ok(());
    }
    let issued = Peer::load(step, user)?.token().reissue(&Buckets::default(), step.now.unix_seconds());
    if let Some(issued) = issued {
        let peer = user.canonical.clone();
        let request = tokens::issue(&peer, issued);
        step.ask(Query::IssueToken(peer, issued), request);
    }
    Ok(())
}

/// Keeps the salt of [`privacy_token::cstoken`], as history and app state tell it; an empty one forgets it.
pub(crate) fn set_salt(step: &mut Step<'_>, salt: Bytes) {
    let salt = Some(NctSalt(salt)).filter(|salt| !salt.0.is_empty());
    if step.account().nct_salt != salt {
        step.account_mut().nct_salt = salt;
    }
}

impl Engine {
    /// The server took a token of ours, or did not: then it is issued again with the next message.
    pub(super) fn token_issued(&mut self, now: Now, peer: Jid, at: u64, result: Result<Vec<Token>, QueryError>) {
        let tokens = match result {
            Ok(tokens) => tokens,
            Err(error) => return tracing::debug!(%error, "a privacy token was not issued"),
        };
        if let Err(needs) = self.step(now, |step| was_issued(step, &peer, at, &tokens)) {
            self.park(Job::Answer(Answer::IssueToken(peer, at, Ok(tokens))), needs);
        }
    }
}
