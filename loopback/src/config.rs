//! The knobs of the server machine.

use std::time::Duration;

use bytes::Bytes;
use wamd::crypto::PrivateKey;

use crate::authority::Validity;
use crate::group::control::GroupMode;

/// How the server behaves. The default is what every public client expects; tests change single fields.
#[derive(Clone, Debug)]
pub struct Config {
    /// The root of the certificate chain; `None` derives one from the seed.
    pub root: Option<PrivateKey>,
    /// When the certificates hold.
    pub validity: Validity,
    /// Clients that say they are older are refused with failure 405.
    pub minimum_version: Option<[u32; 3]>,
    /// Between a stream error and the end of the connection, so that the client has read it (spec 01 §7.3).
    pub close_delay: Duration,
    /// From the opening of a connection to the end of its handshake.
    pub handshake_timeout: Duration,
    /// Refs of one pair-device (spec 01 §4.2).
    pub refs: u16,
    /// How long the first and each further ref can be scanned (spec 01 §4.2).
    pub ref_lifetimes: (Duration, Duration),
    /// Added to the life of every ref, because the client's clock starts later than the server's.
    pub ref_grace: Duration,
    /// Companions that one account may have, at most 98.
    pub max_companions: u16,
    /// How groups that clients make address their members.
    pub group_mode: GroupMode,
    /// Members that a group may have.
    pub max_members: usize,
    /// Below this number of one-time keys the device is told to upload more (spec 03 §1.4).
    pub low_prekeys: usize,
    /// Whether the phone shares app state keys with a freshly linked device (spec 01 §7.7).
    pub share_app_state_keys: bool,
    /// Whether a message that comes a second time is routed once only (spec 03 §6.1).
    pub deduplicate: bool,
    /// Sent after every login; comes back in front of the next connection (spec 01 §1.3).
    pub edge_routing: Option<Bytes>,
    /// How often the server pings a client; `None` never.
    pub ping_every: Option<Duration>,
    /// How long a client may take to answer a ping before its connection is closed; `None` for ever.
    pub ping_timeout: Option<Duration>,
    /// The host that `media_conn` names.
    pub media_host: String,
    /// The largest frame that a client may send, in bytes.
    pub max_frame: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: None,
            validity: Validity { not_before: 1_500_000_000, not_after: 4_102_444_800 },
            minimum_version: None,
            close_delay: Duration::from_millis(200),
            handshake_timeout: Duration::from_secs(20),
            refs: 6,
            ref_lifetimes: (Duration::from_secs(60), Duration::from_secs(20)),
            ref_grace: Duration::from_secs(10),
            max_companions: 98,
            group_mode: GroupMode::Lid,
            max_members: 1_024,
            low_prekeys: 5,
            share_app_state_keys: true,
            deduplicate: true,
            edge_routing: Some(Bytes::from_static(&[0x08, 0x02, 0x08, 0x05, 0x12, 0x01])),
            ping_every: None,
            ping_timeout: None,
            media_host: "localhost".to_owned(),
            max_frame: 0xFF_FFFF,
        }
    }
}
