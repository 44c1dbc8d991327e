//! What a test asks of the server from the side: views of its state, scans, disconnects, faults.
//!
//! The types are serde values, because the HTTP control interface speaks them as JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use wamd::jid::Jid;
use wamd::node::Node;

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
    /// Answer the next logins of a device with a failure of any shape (spec 01 §6.3).
    LoginFailure {
        /// The device.
        jid: Jid,
        /// The `reason`; none leaves it out.
        #[serde(default)]
        reason: Option<u16>,
        /// Further attributes: `code`, `expire`, `message`, `url` …
        #[serde(default)]
        attrs: BTreeMap<String, String>,
        /// How many logins.
        #[serde(default = "one")]
        count: u32,
    },
    /// Answer the next clients that want to be linked with a failure instead of refs.
    LinkFailure {
        /// The `reason`; none leaves it out.
        #[serde(default)]
        reason: Option<u16>,
        /// Further attributes.
        #[serde(default)]
        attrs: BTreeMap<String, String>,
        /// How many clients.
        #[serde(default = "one")]
        count: u32,
    },
    /// Answer the next login of a device with this stanza instead of `<success>`, and close.
    RefuseLogin {
        /// The device.
        jid: Jid,
        /// The stanza, usually a `<failure>`.
        #[serde(deserialize_with = "crate::json::node")]
        node: Node,
    },
    /// Answer the next queries of one stage of linking with an error, or not at all.
    LinkAnswer {
        /// Which queries.
        stage: LinkStage,
        /// The code of the error; without one nothing is answered.
        #[serde(default)]
        code: Option<u16>,
        /// The `backoff` of the error, seconds.
        #[serde(default)]
        backoff: Option<u32>,
        /// How many queries.
        #[serde(default = "one")]
        count: u32,
    },
    /// Answer the next queries of a device in one namespace with an error, or not at all: `w:p` are its pings.
    AnswerIq {
        /// The device.
        jid: Jid,
        /// The namespace.
        xmlns: String,
        /// The code of the error; without one nothing is answered.
        #[serde(default)]
        code: Option<u16>,
        /// The `backoff` of the error, seconds.
        #[serde(default)]
        backoff: Option<u32>,
        /// How many queries.
        #[serde(default = "one")]
        count: u32,
    },
    /// How many refs every pair-device has from now on.
    Refs {
        /// 6 is what the real server gives.
        count: u16,
    },
    /// Say nothing more to a device, whatever it asks: its connection is dead and still open.
    Silence {
        /// The device.
        jid: Jid,
        /// On or off.
        on: bool,
    },
    /// Send a stream error of any shape to a device (spec 01 §6.4).
    StreamError {
        /// The device.
        jid: Jid,
        /// The `code`; none leaves it out.
        #[serde(default)]
        code: Option<u16>,
        /// The `type` of a `<conflict>` child.
        #[serde(default)]
        conflict: Option<String>,
        /// The tag of another child: `xml-not-well-formed`, `ack` …
        #[serde(default)]
        child: Option<String>,
        /// Leave the connection open, as if the close were late.
        #[serde(default)]
        stay: bool,
    },
    /// Tell a device that an area is dirty (spec 01 §6.6).
    Dirty {
        /// The device.
        jid: Jid,
        /// The `type`: `account_sync`, `groups`, `syncd_app_state`, `newsletter_metadata`, `communities`.
        kind: String,
        /// The `timestamp`, unix seconds; now unless given.
        #[serde(default)]
        timestamp: Option<u64>,
    },
    /// Give a device other routing info (spec 01 §1.3). In JSON it is hex digits.
    EdgeRouting {
        /// The device.
        jid: Jid,
        /// The routing info.
        #[serde(deserialize_with = "hex_bytes")]
        info: Bytes,
        /// The domain beside it.
        #[serde(default)]
        dns_domain: Option<String>,
    },
    /// Tell a device that its version stops to work.
    ClientExpiration {
        /// The device.
        jid: Jid,
        /// When, unix seconds.
        t: u64,
    },
    /// Send a ping to a device.
    Ping {
        /// The device.
        jid: Jid,
    },
    /// Send a stanza to a device, outside of its queue.
    Inject {
        /// The device.
        jid: Jid,
        /// The stanza.
        #[serde(deserialize_with = "crate::json::node")]
        node: Node,
    },
    /// Send a last stanza to a device, and close.
    EndWith {
        /// The device.
        jid: Jid,
        /// The stanza.
        #[serde(deserialize_with = "crate::json::node")]
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

/// The queries of a client that is being linked (spec 01 §5.4, §5.6, §5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinkStage {
    /// Pair code: the companion's wrapped key.
    CompanionHello,
    /// Pair code: the key bundle.
    CompanionFinish,
    /// Passkey: the request options.
    PasskeyOptions,
    /// Passkey: the ref.
    PasskeyRef,
    /// Passkey: assertion and commitment.
    PasskeyPrologue,
    /// Passkey: the nonce of the commitment.
    CompanionNonce,
    /// Passkey: the sealed keys.
    PairingRequest,
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
