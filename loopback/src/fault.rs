//! What a test can have go wrong, as values and as JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use wamd::jid::Jid;
use wamd::node::Node;

use crate::faults::delivery::{Damage, EncKind};

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
    /// Have the device list of an account say that Meta hosts a companion: messages to many pass it by, and hashes of groups do
    /// not count it.
    Hosted {
        /// The companion.
        jid: Jid,
        /// On or off.
        on: bool,
    },
    /// Tell nobody the LID of an account, as if it had none yet; switched off, it has one from now on.
    HideLid {
        /// The account.
        jid: Jid,
        /// On or off.
        on: bool,
    },
    /// Give an account another LID. Messages to the former one still arrive; their acks have `refresh_lid`.
    ChangeLid {
        /// The account.
        jid: Jid,
    },
    /// Tell the contacts of an account that its devices changed, without saying how.
    DevicesUpdate {
        /// The account.
        jid: Jid,
    },
    /// Have an account register again: another identity, no companions. Contacts are told.
    ChangeIdentity {
        /// The account.
        jid: Jid,
    },
    /// Give out all one-time keys of a companion at once. It is told that none is left.
    EmptyPrekeys {
        /// The companion.
        jid: Jid,
    },
    /// Leave the one-time key out of the bundles of a device, as if it had none.
    WithholdPrekey {
        /// The device.
        jid: Jid,
        /// On or off.
        on: bool,
    },
    /// Answer the next queries for the bundle of a device with an error.
    RefuseBundle {
        /// The device.
        jid: Jid,
        /// The code of the error: 406 says that the device is not registered.
        #[serde(default = "not_acceptable")]
        code: u16,
        /// How many queries.
        #[serde(default = "one")]
        count: u32,
    },
    /// Ask a companion to compare its keys with the server's digest.
    AskDigest {
        /// The companion.
        jid: Jid,
    },
    /// Something happens to messages on their way to a device, beside what other such faults do.
    Delivery {
        /// The device that receives.
        jid: Jid,
        /// What.
        what: Damage,
        /// To these ciphertexts, and to messages that have such; to all unless given.
        #[serde(default)]
        enc: Option<EncKind>,
        /// To messages with this id; to all unless given.
        #[serde(default)]
        id: Option<String>,
        /// To every so many of them.
        #[serde(default = "one")]
        every: u32,
        /// So often; for ever unless given.
        #[serde(default)]
        count: Option<u32>,
    },
    /// End all that [`Delivery`](Self::Delivery) does to a device. What waits for later messages comes now.
    Mend {
        /// The device.
        jid: Jid,
    },
    /// Acknowledge messages of a device otherwise.
    Acks {
        /// The device that sends.
        jid: Jid,
        /// To this chat, by any of its names; to all chats without a rule of their own unless given.
        #[serde(default)]
        chat: Option<Jid>,
        /// Refuse them with this code: they are not routed.
        #[serde(default)]
        error: Option<u16>,
        /// Say that the server means these devices.
        #[serde(default)]
        phash: Option<String>,
        /// Say that the LID of the chat is stale.
        #[serde(default)]
        refresh_lid: bool,
        /// So often; for ever unless given. 0 ends it.
        #[serde(default)]
        count: Option<u32>,
    },
    /// Let nobody open a chat with an account who shows no token: its `tctoken`, or a `cstoken`. Others get error 463.
    DemandToken {
        /// The account.
        jid: Jid,
        /// On or off.
        on: bool,
    },
    /// Lose the next notifications for a companion.
    LoseNotices {
        /// The companion.
        jid: Jid,
        /// Their `type`.
        kind: String,
        /// How many.
        #[serde(default = "one")]
        count: u32,
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

const fn not_acceptable() -> u16 {
    406
}

const fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_tagged_json() {
        let fault = serde_json::from_str::<Fault>(r#"{"fault":"tamper_next","jid":"15551234567:1@s.whatsapp.net"}"#);
        let jid = "15551234567:1@s.whatsapp.net".parse().unwrap();
        assert_eq!(fault.unwrap(), Fault::TamperNext { jid, count: 1 });
        assert!(serde_json::from_str::<Fault>(r#"{"fault":"tamper_next"}"#).is_err());
        let raw = r#"{"fault":"inject_raw","jid":"15551234567:1@s.whatsapp.net","plaintext":"00f80102"}"#;
        assert!(matches!(serde_json::from_str(raw), Ok(Fault::InjectRaw { .. })));
        let delivery =
            r#"{"fault":"delivery","jid":"1:1@lid","what":{"delay":{"ms":500}},"enc":"sender_key","every":3}"#;
        let (jid, what) = ("1:1@lid".parse().unwrap(), Damage::Delay { ms: 500 });
        let enc = Some(EncKind::SenderKey);
        let expected = Fault::Delivery { jid, what, enc, id: None, every: 3, count: None };
        assert_eq!(serde_json::from_str::<Fault>(delivery).unwrap(), expected);
        for what in
            [r#""drop""#, r#""corrupt""#, r#""duplicate""#, r#"{"unavailable":{}}"#, r#"{"behind":{"messages":2}}"#]
        {
            assert!(serde_json::from_str::<Damage>(what).is_ok(), "{what}");
        }
        assert!(serde_json::from_str::<Fault>(r#"{"fault":"acks","jid":"1:1@lid","error":463,"count":2}"#).is_ok());
        assert!(serde_json::from_str::<Fault>(r#"{"fault":"acks","jid":"1:1@lid","errors":463}"#).is_err());
    }
}
