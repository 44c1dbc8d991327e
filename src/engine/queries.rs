//! The correlator: which answer belongs to which question (spec 01 §6.10).
//!
//! A query dies with its connection; whoever needs the answer asks again on the next one.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use crate::{
    crypto::Rng,
    engine::{
        CommandId,
        devices::Asked,
        dirty::Area,
        groups::{GroupAnswer, GroupCommand},
        notices::SendFailure,
    },
    jid::Jid,
    node::NodeRef,
    pairing::{PairError, code, passkey},
    stanza::{
        StanzaError,
        group::GroupInfo,
        iq::{self, IqError, groups, mex, prekeys, tokens, usync},
    },
};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    /// Is the connection alive?
    Keepalive,
    /// How many one-time prekeys does the server have?
    PreKeyCount,
    /// Take these prekeys.
    PreKeyUpload,
    /// What does the server hold of our keys?
    KeyDigest,
    /// Take this signed prekey, by its id.
    Rotate(u32),
    /// Start delivering.
    Active,
    /// Which devices do these users have?
    Devices(Asked),
    /// Which keys do these devices have?
    Bundles(Vec<Jid>),
    /// What is there to know of a group?
    Group(Jid),
    /// What the embedding program wants of groups.
    GroupCommand(GroupCommand),
    /// An area of server state was fetched again.
    Clean(Area),
    /// Is a code accepted? By its number.
    CodeHello(u64),
    /// Is the bundle of a code passed on?
    CodeFinish(u64),
    /// What does the phone want from an authenticator? By the number of the link.
    PasskeyOptions(u64),
    /// Which reference names the link?
    PasskeyReference(u64),
    /// Is a step of the link taken?
    PasskeyStep(u64),
    /// Give this peer a token of ours, dated so many unix seconds.
    IssueToken(Jid, u64),
    /// May the account write to strangers?
    ReachOut,
    /// How many chats may it still begin?
    MessageCap,
    /// Unlink this device.
    Logout,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error(transparent)]
    Refused(#[from] IqError),
    #[error(transparent)]
    Malformed(#[from] StanzaError),
    #[error(transparent)]
    Pairing(#[from] PairError),
    #[error("no answer in time")]
    TimedOut,
}

/// Bundles of devices, as the server answered.
pub(crate) type Bundles = Vec<(Jid, Result<prekeys::FetchedBundle, prekeys::BundleError>)>;

/// An answer, or that there is none.
#[derive(Debug)]
pub(crate) enum Answer {
    Keepalive,
    PreKeyCount(Result<u64, QueryError>),
    PreKeyUpload(Result<(), QueryError>),
    KeyDigest(Result<prekeys::Digest, QueryError>),
    Rotate(u32, Result<(), QueryError>),
    Active(Result<(), QueryError>),
    Devices(Asked, Result<usync::DevicesAnswer, QueryError>),
    /// The devices of these users are as they were known, if they were.
    SameDevices(Vec<Jid>),
    /// The devices of these users cannot be had.
    NoDevices(Vec<Jid>, SendFailure),
    Bundles(Vec<Jid>, Result<Bundles, QueryError>),
    /// The first have no bundle; the second are not registered any more.
    NoBundles(Vec<Jid>, Vec<Jid>),
    Group(Jid, Result<Box<GroupInfo>, QueryError>),
    GroupCommand(CommandId, Result<GroupAnswer, QueryError>),
    Clean(Area, Result<(), QueryError>),
    CodeHello(u64, Result<Bytes, QueryError>),
    CodeFinish(u64, Result<(), QueryError>),
    PasskeyOptions(u64, Result<Bytes, QueryError>),
    PasskeyReference(u64, Result<String, QueryError>),
    PasskeyStep(u64, Result<(), QueryError>),
    IssueToken(Jid, u64, Result<Vec<tokens::Token>, QueryError>),
    Restriction(Result<Option<mex::Restriction>, QueryError>),
    Logout,
}

impl Query {
    /// Whether it asks the same as another one, so that one of them is enough. Of those that handlers ask only.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::IssueToken(one, _), Self::IssueToken(other, _)) => one == other,
            (Self::ReachOut, Self::ReachOut) | (Self::MessageCap, Self::MessageCap) => true,
            _ => false,
        }
    }

    /// Reads the answer.
    fn parse(self, node: NodeRef<'_>) -> Answer {
        let result = iq::answer(node).map_err(QueryError::from);
        match self {
            Self::Keepalive => Answer::Keepalive,
            Self::PreKeyCount => Answer::PreKeyCount(result.and_then(|node| Ok(prekeys::count(node)?))),
            Self::PreKeyUpload => Answer::PreKeyUpload(result.map(|_| ())),
            Self::KeyDigest => Answer::KeyDigest(result.and_then(|node| Ok(prekeys::digest(node)?))),
            Self::Rotate(id) => Answer::Rotate(id, result.map(|_| ())),
            Self::Active => Answer::Active(result.map(|_| ())),
            Self::Devices(users) => Answer::Devices(users, result.and_then(|node| Ok(usync::devices(node)?))),
            Self::Bundles(devices) => Answer::Bundles(devices, result.and_then(|node| Ok(prekeys::bundles(node)?))),
            Self::Group(group) => Answer::Group(group, result.and_then(|node| Ok(Box::new(groups::info(node)?)))),
            Self::GroupCommand(command) => {
                Answer::GroupCommand(command.id, result.and_then(|node| Ok(command.parse(node)?)))
            }
            Self::Clean(area) => Answer::Clean(area, result.map(|_| ())),
            Self::CodeHello(code) => Answer::CodeHello(code, result.and_then(|node| Ok(code::parse_reference(node)?))),
            Self::CodeFinish(code) => Answer::CodeFinish(code, result.map(|_| ())),
            Self::PasskeyOptions(link) => {
                Answer::PasskeyOptions(link, result.and_then(|node| Ok(passkey::parse_options(node)?)))
            }
            Self::PasskeyReference(link) => {
                Answer::PasskeyReference(link, result.and_then(|node| Ok(passkey::parse_reference(node)?)))
            }
            Self::PasskeyStep(link) => Answer::PasskeyStep(link, result.map(|_| ())),
            Self::IssueToken(peer, at) => Answer::IssueToken(peer, at, result.map(tokens::tokens)),
            Self::ReachOut | Self::MessageCap => Answer::Restriction(result.map(mex::answer)),
            Self::Logout => Answer::Logout,
        }
    }

    /// What it means that nothing came in time. Nothing for a keepalive: its owner has a deadline of its own.
    fn timed_out(self) -> Option<Answer> {
        let error = QueryError::TimedOut;
        Some(match self {
            Self::Keepalive => return None,
            Self::PreKeyCount => Answer::PreKeyCount(Err(error)),
            Self::PreKeyUpload => Answer::PreKeyUpload(Err(error)),
            Self::KeyDigest => Answer::KeyDigest(Err(error)),
            Self::Rotate(id) => Answer::Rotate(id, Err(error)),
            Self::Active => Answer::Active(Err(error)),
            Self::Devices(users) => Answer::Devices(users, Err(error)),
            Self::Bundles(devices) => Answer::Bundles(devices, Err(error)),
            Self::Group(group) => Answer::Group(group, Err(error)),
            Self::GroupCommand(command) => Answer::GroupCommand(command.id, Err(error)),
            Self::Clean(area) => Answer::Clean(area, Err(error)),
            Self::CodeHello(code) => Answer::CodeHello(code, Err(error)),
            Self::CodeFinish(code) => Answer::CodeFinish(code, Err(error)),
            Self::PasskeyOptions(link) => Answer::PasskeyOptions(link, Err(error)),
            Self::PasskeyReference(link) => Answer::PasskeyReference(link, Err(error)),
            Self::PasskeyStep(link) => Answer::PasskeyStep(link, Err(error)),
            Self::IssueToken(peer, at) => Answer::IssueToken(peer, at, Err(error)),
            Self::ReachOut | Self::MessageCap => Answer::Restriction(Err(error)),
            Self::Logout => Answer::Logout,
        })
    }
}

/// A question that waits.
#[derive(Debug)]
struct Pending {
    query: Query,
    deadline: Duration,
}

/// All questions of one connection.
#[derive(Debug)]
pub(crate) struct Queries {
    prefix: [u8; 2],
    next: u64,
    pending: BTreeMap<String, Pending>,
}

impl Queries {
    /// No questions yet. Ids start with two random bytes, so that two processes do not use the same.
    pub(crate) fn new(rng: &mut impl Rng) -> Self {
        let mut prefix = [0; 2];
        rng.fill_bytes(&mut prefix);
        Self { prefix, next: 1, pending: BTreeMap::new() }
    }

    /// A unique id.
    pub(crate) fn next_id(&mut self) -> String {
        let [a, b] = self.prefix;
        let id = format!("{a}.{b}-{}", self.next);
        self.next += 1;
        id
    }

    /// Notes a question; the id goes into its stanza.
    pub(crate) fn ask(&mut self, query: Query, deadline: Duration) -> String {
        let id = self.next_id();
        self.pending.insert(id.clone(), Pending { query, deadline });
        id
    }

    /// Reads an answer; `None` when nobody asked.
    pub(crate) fn answer(&mut self, id: &str, node: NodeRef<'_>) -> Option<Answer> {
        self.pending.remove(id).map(|pending| pending.query.parse(node))
    }

    /// Takes one question whose time is up.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<Answer> {
        loop {
            let id = self.pending.iter().find(|(_, pending)| pending.deadline <= now).map(|(id, _)| id.clone())?;
            if let Some(answer) = self.pending.remove(&id)?.query.timed_out() {
                return Some(answer);
            }
        }
    }

    /// Nobody reads, so that answers may well be there: gives every question whose time is up some more. A logout does not
    /// depend on its answer.
    pub(crate) fn postpone(&mut self, now: Duration, until: Duration) {
        let waiting = self.pending.values_mut().filter(|pending| !matches!(pending.query, Query::Logout));
        waiting.filter(|pending| pending.deadline <= now).for_each(|pending| pending.deadline = until);
    }

    /// The next deadline.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Forgets every question: the connection is gone.
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Whether a question waits for which `is` holds.
    pub(crate) fn any(&self, mut is: impl FnMut(&Query) -> bool) -> bool {
        self.pending.values().any(|pending| is(&pending.query))
    }

    /// How many questions wait for which `is` holds.
    pub(crate) fn count(&self, mut is: impl FnMut(&Query) -> bool) -> usize {
        self.pending.values().filter(|pending| is(&pending.query)).count()
    }

    /// The commands about groups that wait for an answer.
    pub(crate) fn group_commands(&self) -> Vec<CommandId> {
        let queries = self.pending.values().map(|pending| &pending.query);
        let commands = queries.filter_map(|query| match query {
            Query::GroupCommand(command) => Some(command.id),
            _ => None,
        });
        commands.collect()
    }
}
