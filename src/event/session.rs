//! `session.*`: the life of a connection and of the link (spec 07 §3, §5, §7.1).
//!
//! ```text
//! connecting ─► qr_updated … ─► paired ─► reconnecting ─► connecting ─► connected ─► disconnected ─► reconnecting …
//!                    └► qr_exhausted                                        └► logged_out, banned, outdated: the end
//! ```

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::jid::Jid;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The socket closed, or pings were not answered.
    ConnectionLost,
    /// The server asked for a restart (after linking). Only in `session.reconnecting`: never shown as an outage.
    RestartRequired,
    /// The same credentials connected elsewhere. The engine does not fight back.
    Replaced,
    /// The device was unlinked.
    LoggedOut,
    /// The account was banned or locked.
    Banned,
    /// The protocol version was refused.
    Outdated,
    /// The embedding program stopped the session.
    Stopped,
    /// The server reported an error of its own, or asked to slow down.
    ServerError,
    /// The server could not be reached.
    Network,
    /// The server does not take how the client describes itself (failure 409).
    Refused,
    /// The store failed: the engine starts over from what is stored.
    Storage,
}

impl DisconnectReason {
    /// The number that consumers of Baileys know (spec 07 §3).
    pub const fn status_code(self) -> u16 {
        match self {
            Self::ConnectionLost | Self::Stopped => 428,
            Self::RestartRequired => 515,
            Self::Replaced => 440,
            Self::LoggedOut => 401,
            Self::Banned => 403,
            Self::Outdated => 405,
            Self::ServerError => 503,
            Self::Network => 408,
            Self::Refused => 409,
            Self::Storage => 500,
        }
    }

    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionLost => "connection_lost",
            Self::RestartRequired => "restart_required",
            Self::Replaced => "replaced",
            Self::LoggedOut => "logged_out",
            Self::Banned => "banned",
            Self::Outdated => "outdated",
            Self::Stopped => "stopped",
            Self::ServerError => "server_error",
            Self::Network => "network",
            Self::Refused => "refused",
            Self::Storage => "storage",
        }
    }

    /// Whether only the caller can bring the session back.
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::Replaced | Self::LoggedOut | Self::Banned | Self::Outdated | Self::Refused)
    }
}

/// How an account was banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BanKind {
    /// For a time (failure 402).
    Temporary,
    /// Locked until the owner acts on the phone, or the phone was registered again (failure 403).
    Locked,
    /// For good (failure 406).
    Permanent,
}

/// Why a device is not linked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogoutReason {
    /// By the embedding program.
    Requested,
    /// From the phone's list of devices.
    DeviceRemoved,
    /// The credentials were refused (failure 401, stream error 401 or 516).
    Unauthorized,
    /// The account is locked, or the phone was registered again (failure 403).
    Locked,
    /// The account is banned (failure 406).
    Banned,
    /// The server does not know the account (failure 415).
    NotFound,
}

event_data! {
    /// A connection is being opened.
    #[derive(Debug)]
    SessionConnecting {
        /// Counts from 1 since the last time that the session was connected, or stopped.
        attempt: u32,
    }
}

event_data! {
    /// The QR code to show from now on. `Debug` hides the code.
    SessionQrUpdated {
        /// The text to render as a QR code. Whoever scans it can link this device: show it, do not log it.
        qr: String,
        /// Which code of its batch, from 1.
        index: u32,
        /// Codes in the batch.
        total: u32,
        /// How long the code is valid from the timestamp of the envelope, in milliseconds.
        expires_in_ms: u64,
        /// Until when the code is valid, unix milliseconds.
        expires_at: u64,
    }
}

event_data! {
    /// No code was scanned in time.
    #[derive(Debug, Default)]
    SessionQrExhausted {}
}

event_data! {
    /// A phone without multi-device support scanned the code.
    #[derive(Debug, Default)]
    SessionQrScannedWithoutMultidevice {}
}

event_data! {
    /// The device is linked.
    SessionPaired {
        /// Our phone-number JID, with device.
        jid: Jid,
        /// Our LID, with device.
        lid: Option<Jid>,
        /// What the phone is: `android`, `iphone`, `smba`, `smbi` …
        platform: Option<String>,
        /// Name of a business account.
        business_name: Option<String>,
    }
}

event_data! {
    /// Linking failed.
    #[derive(Debug)]
    SessionPairError {
        /// What the server was told: `hmac-mismatch`, `signature-mismatch`, `internal-error`; or another short word:
        /// `refused`, the server does not take the device.
        error: String,
    }
}

/// Logged in and able to send.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionConnected {
    /// Digits of our phone number.
    pub phone: String,
    /// Our phone-number JID, with device.
    pub jid: Jid,
    /// Our LID.
    pub lid: Option<Jid>,
    /// Our own display name, if known.
    pub push_name: Option<String>,
    /// What the phone is.
    pub platform: Option<String>,
    /// The first login after linking.
    pub is_new_login: bool,
    /// Name of a business account.
    pub business_name: Option<String>,
}

impl SessionConnected {
    /// For an account of which only the JID is known.
    pub fn new(jid: Jid) -> Self {
        Self {
            phone: jid.user().to_owned(),
            jid,
            lid: None,
            push_name: None,
            platform: None,
            is_new_login: false,
            business_name: None,
        }
    }
}

/// The connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionDisconnected {
    /// Why.
    pub reason: DisconnectReason,
    /// The number that consumers of Baileys know.
    pub status_code: u16,
    /// Only the caller can bring the session back.
    pub permanent: bool,
    /// The engine comes back by itself.
    pub will_reconnect: bool,
    /// The device is linked. Shown when it is not: then the session is `PENDING` after an attempt to link that ended.
    #[serde(skip_serializing_if = "is_true")]
    pub linked: bool,
    /// Which attempt comes next, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When it comes, in milliseconds from the timestamp of the envelope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_retry_ms: Option<u64>,
    /// More for a person, without personal data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl SessionDisconnected {
    /// For an outage after which nothing is scheduled yet.
    pub fn new(reason: DisconnectReason) -> Self {
        Self {
            reason,
            status_code: reason.status_code(),
            permanent: reason.is_permanent(),
            will_reconnect: false,
            linked: true,
            attempt: None,
            next_retry_ms: None,
            detail: None,
        }
    }

    /// With the attempt that comes next, and in how many milliseconds.
    #[must_use]
    pub fn with_retry(self, attempt: u32, next_retry_ms: u64) -> Self {
        Self { will_reconnect: true, attempt: Some(attempt), next_retry_ms: Some(next_retry_ms), ..self }
    }

    /// For a device that is not linked.
    #[must_use]
    pub fn unlinked(self) -> Self {
        Self { linked: false, ..self }
    }

    /// With more for a person.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

event_data! {
    /// A new attempt is scheduled.
    #[derive(Debug)]
    SessionReconnecting {
        /// Which attempt it will be, from 1 since the last time that the session was connected, or stopped.
        attempt: u32,
        /// When it comes, in milliseconds from the timestamp of the envelope; 0: at once.
        delay_ms: u64,
        /// Why.
        reason: DisconnectReason,
    }
}

event_data! {
    /// The device is not linked any more.
    #[derive(Debug)]
    SessionLoggedOut {
        /// Why.
        reason: LogoutReason,
        /// Found out at login, not while connected.
        on_connect: bool,
    }
}

/// WhatsApp banned or locked the account. `Debug` hides what the server wrote to the owner.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionBanned {
    /// How.
    pub kind: BanKind,
    /// The reason of the failure: 402, 403, 406.
    pub reason: u16,
    /// Why a temporary ban was given.
    pub code: Option<u16>,
    /// The same in words.
    pub code_text: Option<String>,
    /// Until when, unix milliseconds.
    pub expires_at: Option<u64>,
    /// A page for the owner.
    pub url: Option<String>,
    /// A text for the owner.
    pub message: Option<String>,
}

impl SessionBanned {
    /// A ban for a time: `code` as the failure gives it, `expires_at` in unix milliseconds.
    pub fn temporary(code: Option<u16>, expires_at: Option<u64>) -> Self {
        Self { code, code_text: code.and_then(ban_text).map(str::to_owned), expires_at, ..Self::of(BanKind::Temporary) }
    }

    /// Locked until the owner acts.
    pub fn locked() -> Self {
        Self::of(BanKind::Locked)
    }

    /// For good.
    pub fn permanent() -> Self {
        Self::of(BanKind::Permanent)
    }

    fn of(kind: BanKind) -> Self {
        let reason = match kind {
            BanKind::Temporary => 402,
            BanKind::Locked => 403,
            BanKind::Permanent => 406,
        };
        Self { kind, reason, code: None, code_text: None, expires_at: None, url: None, message: None }
    }
}

event_data! {
    /// This version of the protocol is refused. If a newer one is found at once, `session.reconnecting` follows with the
    /// reason `outdated`; otherwise the session stays so until the caller acts.
    #[derive(Debug)]
    SessionOutdated {
        /// The version that was refused, `2.3000.…`.
        version: String,
    }
}

event_data! {
    /// This version of the protocol will be refused.
    #[derive(Debug)]
    SessionClientExpiration {
        /// From when on, unix milliseconds.
        expires_at: u64,
    }
}

event_data! {
    /// The login was refused for a reason without an event of its own. `Debug` hides the attributes.
    SessionConnectFailure {
        /// The `reason` of the failure, if it is a number.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<u16>,
        /// All attributes of the failure as texts: some are sent once only.
        attrs: BTreeMap<String, String>,
    }
}

event_data! {
    /// A stream error without a meaning of its own.
    #[derive(Debug)]
    SessionStreamError {
        /// Its `code`.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// The stanza in the form of logs: contents as lengths, JIDs redacted.
        node: String,
    }
}

event_data! {
    /// A ping was not answered.
    #[derive(Debug)]
    SessionKeepaliveLost {
        /// How many in a row.
        error_count: u32,
        /// When the last one was answered, unix milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_success: Option<u64>,
    }
}

event_data! {
    /// Pings are answered again.
    #[derive(Debug)]
    SessionKeepaliveRestored {
        /// How many in a row were not.
        error_count: u32,
        /// When this one was answered, unix milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_success: Option<u64>,
    }
}

/// How many stanzas the server had queued. What it does not say is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OfflineCounts {
    /// All of them.
    pub total: u64,
    /// Messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Receipts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<u64>,
    /// Notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notifications: Option<u64>,
    /// App-state changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_data: Option<u64>,
    /// Calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
}

impl OfflineCounts {
    /// Of which only the total is known.
    pub fn new(total: u64) -> Self {
        Self { total, ..Self::default() }
    }
}

event_data! {
    /// The server starts to deliver what was queued.
    #[derive(Debug)]
    SessionOfflineSyncStarted {
        /// What it announces.
        counts: OfflineCounts,
    }
}

event_data! {
    /// Everything that was queued has been delivered.
    #[derive(Debug)]
    SessionOfflineSyncCompleted {
        /// What it says it delivered.
        counts: OfflineCounts,
    }
}

opaque_debug!(SessionPaired, SessionConnected);

impl fmt::Debug for SessionQrUpdated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionQrUpdated")
            .field("qr", &"[redacted]")
            .field("index", &self.index)
            .field("total", &self.total)
            .field("expires_in_ms", &self.expires_in_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionBanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBanned")
            .field("kind", &self.kind)
            .field("code", &self.code)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConnectFailure").field("reason", &self.reason).finish_non_exhaustive()
    }
}

const fn is_true(value: &bool) -> bool {
    *value
}

/// Why a temporary ban was given, in words (spec 07 §3).
fn ban_text(code: u16) -> Option<&'static str> {
    Some(match code {
        101 => "too many messages to strangers",
        102 => "blocked by too many people",
        103 => "too many groups created",
        104 => "same message sent too often",
        106 => "too many broadcasts",
        _ => return None,
    })
}
