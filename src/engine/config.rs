//! What an account can be configured with. Every number has a default that suits a gateway.

use std::{ops::RangeInclusive, time::Duration};

use crate::{event::Prefer, node::Limits, noise::CertificatePolicy, pairing::payload::ClientConfig, store::AccountId};

/// No time is longer than this: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// Keepalives are at least so far apart.
const SHORTEST_KEEPALIVE: Duration = Duration::from_millis(100);

/// Configuration of one engine. Times of more than ten years count as ten years, and keepalives are at least 100 ms
/// apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The embedding program's name of the account; `sessionId` of its events.
    pub session: AccountId,
    /// What the device tells the server about itself.
    pub client: ClientConfig,
    /// Which servers are trusted.
    pub certificates: CertificatePolicy,
    /// Whether to resume with the IK handshake when the server's key is known (spec 01 §2.4).
    pub resume: bool,
    /// Which identity events show first where both are known.
    pub prefer: Prefer,
    /// Limits of the node decoder.
    pub limits: Limits,
    /// Largest frame taken from the server, bytes.
    pub max_frame: usize,
    /// Bytes of records kept in memory.
    pub cache_bytes: usize,
    /// How many events may wait for the consumer before the socket is not read any more.
    pub max_unacknowledged: u64,
    /// Bytes of stanzas that may wait for records before the socket is not read any more.
    pub max_waiting_bytes: usize,
    /// How long what was sent is kept, to send it again to devices that ask for it (spec 03 §5.7).
    pub sent_age: Duration,
    /// How many bytes of it are kept on disk; the oldest go first.
    pub sent_bytes: u64,
    /// Most sends that may wait at a time.
    pub max_sends: usize,
    /// How many one-time prekeys an upload holds (spec 03 §1.3).
    pub pre_key_batch: u32,
    /// Fewer one-time prekeys than this on the server lead to an upload.
    pub pre_key_low_water: u64,
    /// How long a signed prekey is offered before another takes its place (spec 03 §1.7). `None`: for as long as the device is
    /// linked, as the widespread clients do; what the server makes of a change is not known well.
    pub signed_pre_key_age: Option<Duration>,
    /// How long the list of a user's devices is used before the server is asked whether it still holds. It tells of changes,
    /// too; this is for those that got lost.
    pub device_list_age: Duration,
    /// The client is shown as online: delivery receipts count as seen by the peer (spec 03 §5.5).
    pub online: bool,
    /// Pause between keepalives.
    pub keepalive: RangeInclusive<Duration>,
    /// How long a keepalive may stay unanswered.
    pub keepalive_timeout: Duration,
    /// How long connecting and the handshake may take, each.
    pub handshake_timeout: Duration,
    /// How long the login may take after the handshake.
    pub login_timeout: Duration,
    /// How long a query may stay unanswered.
    pub query_timeout: Duration,
    /// How long a sent message may stay unacknowledged on a standing connection.
    pub ack_timeout: Duration,
    /// How long a logout waits for the server before everything is removed.
    pub logout_timeout: Duration,
    /// Longest pause between attempts to connect.
    pub max_backoff: Duration,
    /// Most connections opened in any 60 seconds, whoever asks for them; at least 1.
    pub max_dials_per_minute: u32,
    /// How long a newer version of the client is waited for after the server refused ours.
    pub version_timeout: Duration,
}

impl Config {
    /// The defaults for an account.
    pub fn new(session: AccountId) -> Self {
        Self {
            session,
            client: ClientConfig::default(),
            certificates: CertificatePolicy::default(),
            resume: true,
            prefer: Prefer::Addressed,
            limits: Limits::default(),
            max_frame: 0xFF_FFFF,
            cache_bytes: 256 * 1024,
            max_unacknowledged: 2_000,
            max_waiting_bytes: 4 * 1024 * 1024,
            sent_age: Duration::from_secs(7 * 86_400),
            sent_bytes: 64 * 1024 * 1024,
            max_sends: 1_000,
            pre_key_batch: 812,
            pre_key_low_water: 5,
            signed_pre_key_age: None,
            device_list_age: Duration::from_secs(7 * 24 * 3_600),
            online: false,
            keepalive: Duration::from_secs(20)..=Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(20),
            login_timeout: Duration::from_secs(60),
            query_timeout: Duration::from_secs(75),
            ack_timeout: Duration::from_secs(75),
            logout_timeout: Duration::from_secs(5),
            max_backoff: Duration::from_secs(900),
            max_dials_per_minute: 12,
            version_timeout: Duration::from_secs(30),
        }
    }

    /// With every time in a range in which clocks can be added to it and nothing spins.
    pub(super) fn bounded(mut self) -> Self {
        let Self {
            sent_age,
            keepalive_timeout,
            handshake_timeout,
            login_timeout,
            query_timeout,
            ack_timeout,
            logout_timeout,
            max_backoff,
            version_timeout,
            ..
        } = &mut self;
        for span in [
            sent_age,
            keepalive_timeout,
            handshake_timeout,
            login_timeout,
            query_timeout,
            ack_timeout,
            logout_timeout,
            max_backoff,
            version_timeout,
        ] {
            *span = (*span).min(LONGEST);
        }
        let (from, to) = (*self.keepalive.start(), *self.keepalive.end());
        let from = from.clamp(SHORTEST_KEEPALIVE, LONGEST);
        self.keepalive = from..=to.clamp(from, LONGEST);
        self
    }
}
