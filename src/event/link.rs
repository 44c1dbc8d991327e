//! `session.pair_code*` and `session.passkey_*`: linking by phone number and with a passkey (spec 07 §7.1, 01 §5).
//!
//! ```text
//! pair_code ─► paired                     pair_code_refresh ─► pair_code …          pair_code_error
//! passkey_request ─► passkey_confirmation ─► paired                                 passkey_error
//! ```
//!
//! All are ephemeral: what they show is void after a restart, and codes do not belong into a store.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Why a link by code or with a passkey did not come about (spec 01 §5.4 to §5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinkFailure {
    /// The server answered 400: it does not like the request, or too many codes were asked for this number.
    BadRequest,
    /// The server answered 403.
    Forbidden,
    /// The server answered 429: wait for as long as it says.
    RateLimited,
    /// The server answered 452: the account cannot be linked this way.
    NotAvailable,
    /// The server answered 5xx.
    ServerError,
    /// The server answered another error.
    Refused,
    /// No answer in time: of the server, of the phone, or of the person in front of them.
    Timeout,
    /// The phone answered to another request than the last one. The code can still be typed.
    WrongRef,
    /// The phone tried the code too often, or too many new codes were needed.
    TooManyAttempts,
    /// Nobody typed the code in time.
    Expired,
    /// The connection ended.
    ConnectionLost,
    /// Another code was asked for, or the phone wants a passkey.
    Superseded,
    /// The embedding program stopped the session.
    Stopped,
    /// A key of the phone is unusable.
    WeakKey,
    /// What the server or the phone sent cannot be read.
    Malformed,
}

impl LinkFailure {
    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::NotAvailable => "not_available",
            Self::ServerError => "server_error",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::WrongRef => "wrong_ref",
            Self::TooManyAttempts => "too_many_attempts",
            Self::Expired => "expired",
            Self::ConnectionLost => "connection_lost",
            Self::Superseded => "superseded",
            Self::Stopped => "stopped",
            Self::WeakKey => "weak_key",
            Self::Malformed => "malformed",
        }
    }

    /// The reason that an error code of the server stands for.
    pub const fn of_code(code: u32) -> Self {
        match code {
            400 => Self::BadRequest,
            403 => Self::Forbidden,
            429 => Self::RateLimited,
            452 => Self::NotAvailable,
            500..=599 => Self::ServerError,
            _ => Self::Refused,
        }
    }

    /// Whether the same may succeed later without anybody doing something about it.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::ServerError
                | Self::Timeout
                | Self::Expired
                | Self::ConnectionLost
                | Self::TooManyAttempts
        )
    }
}

impl fmt::Display for LinkFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the code on the screen is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefreshReason {
    /// The server wants a new one.
    Server,
    /// A code was typed, and the phone did not go on: it was probably the wrong one.
    Unconfirmed,
}

event_data! {
    /// The code to type on the phone from now on. `Debug` hides it.
    SessionPairCode {
        /// `ABCD-1234`. Whoever sees it can link this device: show it, do not log it.
        code: String,
        /// How long the code is valid from the timestamp of the envelope, in milliseconds.
        expires_in_ms: u64,
        /// Until when the code is valid, unix milliseconds.
        expires_at: u64,
    }
}

event_data! {
    /// The code on the screen is void.
    #[derive(Debug)]
    SessionPairCodeRefresh {
        /// Why.
        reason: RefreshReason,
        /// A new code comes by itself, as `session.pair_code`. If not, ask for one.
        will_refresh: bool,
    }
}

event_data! {
    /// Linking by code did not go on.
    #[derive(Debug)]
    SessionPairCodeError {
        /// Why.
        error: LinkFailure,
        /// The server's code, when it answered with an error.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u32>,
        /// When the server takes another request, in milliseconds from the timestamp of the envelope.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// The code on the screen can still be typed.
        code_valid: bool,
    }
}

event_data! {
    /// The phone wants a passkey. `Debug` hides the options.
    SessionPasskeyRequest {
        /// The challenge of the options, when they have one.
        challenge: Option<String>,
        /// The request options of WebAuthn, as the server gives them.
        options: Value,
        /// How long the assertion is waited for from the timestamp of the envelope, in milliseconds.
        expires_in_ms: u64,
        /// Until when the assertion is waited for, unix milliseconds.
        expires_at: u64,
    }
}

event_data! {
    /// The code that phone and companion must both show. `Debug` hides it.
    SessionPasskeyConfirmation {
        /// `ABCD-1234`.
        code: String,
        /// The link waits for the word that both are the same. If not, it goes on by itself.
        required: bool,
    }
}

event_data! {
    /// Linking with a passkey did not come about.
    #[derive(Debug)]
    SessionPasskeyError {
        /// Why.
        error: LinkFailure,
        /// The server's code, when it answered with an error.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u32>,
    }
}

impl fmt::Debug for SessionPairCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPairCode").field("expires_in_ms", &self.expires_in_ms).finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionPasskeyConfirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPasskeyConfirmation").field("required", &self.required).finish_non_exhaustive()
    }
}

opaque_debug!(SessionPasskeyRequest);
