//! What a test asks of the server from the side: views of its state, scans, disconnects.
//!
//! The types are serde values, because the HTTP control interface speaks them as JSON.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use wamd::jid::Jid;

/// How the phone and the server behave while one client is linked. The default is an honest Android phone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanOptions {
    /// The phone's platform: `android` unless given; `iphone`, `smba`, `smbi` …
    pub platform: Option<String>,
    /// The name of a business account.
    pub business_name: Option<String>,
    /// Link as a hosted (coexistence) account does (spec 01 §4.4).
    pub hosted: bool,
    /// Leave the LID out of pair-success.
    pub without_lid: bool,
    /// Spoil the HMAC of the device identity: the client must answer 401 `hmac-mismatch`.
    pub spoil_hmac: bool,
    /// Spoil the account signature: the client must answer 401 `signature-mismatch`.
    pub spoil_signature: bool,
    /// Add the newer children of pair-success: `client-props`, `encryption-metadata`, `jurisdiction`.
    pub newer_children: bool,
    /// Pair code: the ref in primary_hello was never given to anybody. The client must not take it, and the code can be
    /// typed again.
    pub foreign_ref: bool,
    /// Pair code: so many primary_hellos more, each with a key of its own; the phone knows the last one only.
    pub further_hellos: u8,
    /// Pair code: type it although one was typed and not answered yet; the phone forgets its former key.
    pub again: bool,
    /// Pair code: companion_finish is accepted, and nothing follows.
    pub silent: bool,
}

/// How phone and server behave while a passkey authorises a link (spec 01 §5.8). The default is an honest phone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasskeyOptions {
    /// The WebAuthn request options, JSON; some with a fresh challenge unless given.
    pub request: Option<String>,
    /// Leave the request options out of the notification: the client must ask for them.
    pub leave_out: bool,
    /// The notification comes from somebody else than the server: the client must ignore it.
    pub foreign_sender: bool,
    /// Refuse a prologue without a handoff proof. Only a phone that has read the QR code can check one.
    pub require_proof: bool,
    /// The phone does not go on after the prologue.
    pub hold: bool,
    /// What holds for pair-success.
    pub scan: ScanOptions,
}

/// A link by passkey as the control interface shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PasskeyView {
    /// The phone number.
    pub number: String,
    /// The credential id that the client has sent, hex digits.
    pub credential_id: String,
    /// The assertion that the client has sent, JSON.
    pub assertion: String,
    /// Whether a handoff proof came that fits the QR code which the phone has read.
    pub proven: bool,
    /// The code that the phone shows, once both sides have told their keys.
    pub code: Option<String>,
}

/// A scan that went well: pair-success is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Linked {
    /// The new device by phone number.
    pub jid: Jid,
    /// The new device by LID.
    pub lid: Jid,
    /// The device number, 1 to 98.
    pub device: u16,
}

/// Why the phone does not accept a QR code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The phone number is not 7 to 15 digits without a leading zero.
    #[error("the phone number must have 7 to 15 digits and not start with 0")]
    Number,
    /// The text is not five fields of the right form.
    #[error("the QR text is malformed: {0}")]
    Malformed(&'static str),
    /// No open connection was given this ref.
    #[error("no waiting client has this ref")]
    UnknownRef,
    /// The ref is not shown any more.
    #[error("the ref has expired")]
    ExpiredRef,
    /// The code was scanned before.
    #[error("the code was scanned already")]
    AlreadyScanned,
    /// The noise key is not the one that the connection authenticated.
    #[error("the noise key is not that of the waiting client")]
    NoiseKey,
    /// The identity key is not the one that the client registered with.
    #[error("the identity key is not that of the waiting client")]
    IdentityKey,
    /// The account has as many companions as it may.
    #[error("the account has too many linked devices")]
    TooManyDevices,
}

impl ScanError {
    /// A short name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Number => "bad_number",
            Self::Malformed(_) => "malformed_qr",
            Self::UnknownRef => "unknown_ref",
            Self::ExpiredRef => "expired_ref",
            Self::AlreadyScanned => "already_scanned",
            Self::NoiseKey => "noise_key_mismatch",
            Self::IdentityKey => "identity_key_mismatch",
            Self::TooManyDevices => "too_many_devices",
        }
    }
}

/// Why a control request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The phone number is not 7 to 15 digits without a leading zero.
    #[error("the phone number must have 7 to 15 digits and not start with 0")]
    Number,
    /// No device has this JID.
    #[error("no such device")]
    UnknownDevice,
    /// The device is not connected.
    #[error("the device is not connected")]
    NotConnected,
    /// No client waits to be linked, or not the one that is meant.
    #[error("no such client waits to be linked")]
    NotWaiting,
    /// The node cannot be encoded.
    #[error("the node cannot be encoded")]
    Unencodable,
    /// Nothing was sent to the device yet.
    #[error("no message was sent to the device yet")]
    NoMessage,
    /// No group has this JID.
    #[error("no such group")]
    UnknownGroup,
    /// The server refuses it with this code, as it would refuse a client.
    #[error("the server refuses it with error {0}")]
    Refused(u16),
    /// The phone could not encrypt for a device.
    #[error("the phone could not encrypt: {0}")]
    Encrypt(String),
}

impl ControlError {
    /// A short name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Number => "bad_number",
            Self::UnknownDevice => "unknown_device",
            Self::NotConnected => "not_connected",
            Self::NotWaiting => "not_waiting",
            Self::Unencodable => "unencodable",
            Self::NoMessage => "no_message",
            Self::UnknownGroup => "unknown_group",
            Self::Refused(_) => "refused",
            Self::Encrypt(_) => "encrypt",
        }
    }
}

/// An account as the control interface shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// The phone number, digits only.
    pub number: String,
    /// The account by phone number.
    pub jid: Jid,
    /// The account by LID.
    pub lid: Jid,
    /// The name that travels with its messages.
    pub push_name: String,
    /// The linked companions.
    pub devices: Vec<DeviceView>,
    /// What the last attempt to link a companion failed of: the client's error code and text, or what was wrong with its
    /// answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_link_error: Option<String>,
}

/// A companion as the control interface shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceView {
    /// The device number.
    pub device: u16,
    /// The device by phone number.
    pub jid: Jid,
    /// The device by LID.
    pub lid: Jid,
    /// Whether it is logged in now.
    pub connected: bool,
    /// Whether it has logged in since it was linked.
    pub registered: bool,
    /// One-time keys left.
    pub prekeys: usize,
    /// Stanzas that wait for its answer.
    pub queued: usize,
}

/// A message that a simulated phone received and could decrypt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceivedMessage {
    /// The stanza id.
    pub id: String,
    /// The group, status or list that it came in; for a chat with one user, that user.
    pub chat: Jid,
    /// The device that sent it, as the stanza named it.
    pub from: Jid,
    /// For a copy of an own message: whom the message went to.
    pub recipient: Option<Jid>,
    /// The text, if it is a text message.
    pub text: Option<String>,
    /// The decrypted message without its padding.
    #[serde(skip)]
    pub message: Bytes,
    /// When it was sent, unix seconds.
    #[serde(skip)]
    pub timestamp: u64,
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disconnect {
    /// Close without a word.
    #[default]
    Plain,
    /// `<stream:error code=N/>`, then close. 409 carries the conflict `replaced`.
    StreamError(u16),
    /// `<stream:error code="401"><conflict type="device_removed"/>`; the device is unlinked.
    DeviceRemoved,
    /// `<stream:error><conflict type="replaced"/>`; the device stays linked.
    Replaced,
    /// `<xmlstreamend/>`, then close.
    XmlStreamEnd,
}

impl<'de> Deserialize<'de> for Disconnect {
    /// Reads a number, or one of the words `device_removed`, `replaced`, `xmlstreamend`, `plain`. 401 unlinks.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Code {
            Number(u16),
            Word(String),
        }
        match Code::deserialize(deserializer)? {
            Code::Number(code) => Ok(Self::from_code(code)),
            Code::Word(word) => match word.as_str() {
                "plain" => Ok(Self::Plain),
                "device_removed" => Ok(Self::DeviceRemoved),
                "replaced" => Ok(Self::Replaced),
                "xmlstreamend" => Ok(Self::XmlStreamEnd),
                number => match number.parse() {
                    Ok(code) => Ok(Self::from_code(code)),
                    Err(_) => {
                        Err(serde::de::Error::custom("a number, replaced, device_removed, xmlstreamend or plain"))
                    }
                },
            },
        }
    }
}

impl Disconnect {
    /// The stream error with this code; 401 is the removal of the device.
    pub const fn from_code(code: u16) -> Self {
        if code == 401 { Self::DeviceRemoved } else { Self::StreamError(code) }
    }
}

/// Reads a phone number: 7 to 15 digits, no leading zero, perhaps a `+` in front.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let fine =
        (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if fine { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_international_digits() {
        assert_eq!(parse_number("+15551234567"), Some(15_551_234_567));
        for bad in ["", "123456", "0155512345", "15551234567x", "1234567890123456", "++15551234567"] {
            assert_eq!(parse_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn disconnects_are_numbers_or_words() {
        let read = |json: &str| serde_json::from_str::<Disconnect>(json).ok();
        assert_eq!(read("503"), Some(Disconnect::StreamError(503)));
        assert_eq!(read("\"515\""), Some(Disconnect::StreamError(515)));
        assert_eq!(read("401"), Some(Disconnect::DeviceRemoved));
        assert_eq!(read("\"replaced\""), Some(Disconnect::Replaced));
        assert_eq!(read("\"other\""), None);
    }
}
