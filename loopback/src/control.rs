//! What a test asks of the server from the side: views of its state, scans, disconnects, faults.
//!
//! The types are serde values, because the HTTP control interface speaks them as JSON.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use wamd::jid::Jid;
use wamd::node::Node;

/// How the phone and the server behave in one scan. The default is an honest Android phone.
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
    /// The node cannot be encoded.
    #[error("the node cannot be encoded")]
    Unencodable,
    /// Nothing was sent to the device yet.
    #[error("no message was sent to the device yet")]
    NoMessage,
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
            Self::Unencodable => "unencodable",
            Self::NoMessage => "no_message",
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
    /// The device that sent it, as the stanza named it.
    pub from: Jid,
    /// For a copy of an own message: whom the message went to.
    pub recipient: Option<Jid>,
    /// The text, if it is a text message.
    pub text: Option<String>,
    /// The decrypted message without its padding.
    #[serde(skip)]
    pub message: Bytes,
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

/// What is to go wrong. Faults of a device count down or stay until they are switched off.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// Show a certificate chain of a root that nobody trusts.
    ForgedCertificate {
        /// On or off.
        on: bool,
    },
    /// Forget the server's static key and take another: IK hellos for the old one meet the XX fallback.
    RotateStatic,
    /// Whether a message that comes twice is routed once.
    Deduplicate {
        /// On is the default.
        on: bool,
    },
    /// Refuse clients older than this version with failure 405; `None` takes everybody.
    MinimumVersion {
        /// Primary, secondary, tertiary.
        version: Option<[u32; 3]>,
    },
    /// Spoil the signature of the signed prekey in every bundle of a device.
    ForgePrekeySignature {
        /// The device.
        jid: Jid,
        /// On or off.
        on: bool,
    },
    /// Let a phone read what it gets without a word: no receipts of any kind.
    MutePhone {
        /// The phone, without device.
        jid: Jid,
        /// On or off.
        on: bool,
    },
    /// Flip a bit in the next ciphertexts for a device.
    TamperNext {
        /// The device that receives.
        jid: Jid,
        /// How many messages.
        #[serde(default = "one")]
        count: u32,
    },
    /// Deliver the next messages for a device twice.
    DuplicateNext {
        /// The device that receives.
        jid: Jid,
        /// How many messages.
        #[serde(default = "one")]
        count: u32,
    },
    /// Deliver the last message for a device again.
    ReplayLast {
        /// The device that receives.
        jid: Jid,
    },
    /// Do not acknowledge the next messages of a device, though they are routed.
    DropAck {
        /// The device that sends.
        jid: Jid,
        /// How many messages.
        #[serde(default = "one")]
        count: u32,
    },
    /// Answer the next logins of a device with a failure.
    FailLogin {
        /// The device.
        jid: Jid,
        /// The `reason` of the failure.
        reason: u16,
        /// How many logins.
        #[serde(default = "one")]
        count: u32,
    },
    /// Answer the next login of a device with this stanza instead of `<success>`, and close.
    #[serde(skip)]
    RefuseLogin {
        /// The device.
        jid: Jid,
        /// The stanza, usually a `<failure>`.
        node: Node,
    },
    /// Send a ping to a device.
    Ping {
        /// The device.
        jid: Jid,
    },
    /// Send a stanza to a device, outside of its queue.
    #[serde(skip)]
    Inject {
        /// The device.
        jid: Jid,
        /// The stanza.
        node: Node,
    },
    /// Seal and send these bytes, flag byte included, to a device. In JSON they are hex digits.
    InjectRaw {
        /// The device.
        jid: Jid,
        /// The plaintext of the frame.
        #[serde(deserialize_with = "hex_bytes")]
        plaintext: Bytes,
    },
}

fn hex_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}

const fn one() -> u32 {
    1
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

    #[test]
    fn faults_are_tagged_json() {
        let fault = serde_json::from_str::<Fault>(r#"{"fault":"tamper_next","jid":"15551234567:1@s.whatsapp.net"}"#);
        let jid = "15551234567:1@s.whatsapp.net".parse().unwrap();
        assert_eq!(fault.unwrap(), Fault::TamperNext { jid, count: 1 });
        assert!(serde_json::from_str::<Fault>(r#"{"fault":"tamper_next"}"#).is_err());
        let raw = r#"{"fault":"inject_raw","jid":"15551234567:1@s.whatsapp.net","plaintext":"00f80102"}"#;
        assert!(matches!(serde_json::from_str(raw), Ok(Fault::InjectRaw { .. })));
    }
}
