//! The records that the engine keeps about itself, as versioned bytes: protobuf messages of our own behind one version
//! byte, so that fields can be added without a migration.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::proto::e2e;

/// Version byte in front of every record of this module.
pub(super) const VERSION: u8 = 1;

/// A stored record that cannot be read: the database is damaged or from a newer version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored record {0} cannot be read")]
pub struct RecordError(pub(crate) &'static str);

/// What can be written as the value of a record.
pub(crate) trait Value {
    /// Writes the stored form behind what `out` holds.
    fn write_to(&self, out: &mut BytesMut);
}

impl Value for [u8] {
    fn write_to(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
}

impl<R: Record> Value for R {
    fn write_to(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        self.encode_raw(out);
    }
}

/// The plaintext of a message.
impl Value for e2e::Message {
    fn write_to(&self, out: &mut BytesMut) {
        self.encode_raw(out);
    }
}

/// A record of the engine.
pub(crate) trait Record: Message + Default {
    /// Name for error messages.
    const NAME: &'static str;

    /// The stored form.
    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len().saturating_add(1));
        self.write_to(&mut out);
        out.freeze()
    }

    /// Reads the stored form.
    fn from_bytes(bytes: &Bytes) -> Result<Self, RecordError> {
        match bytes.first() {
            Some(&VERSION) => Self::decode(bytes.slice(1..)).map_err(|_| RecordError(Self::NAME)),
            _ => Err(RecordError(Self::NAME)),
        }
    }
}

/// Names a record and keeps its contents out of `Debug`.
macro_rules! record {
    ($name:ident) => {
        impl Record for $name {
            const NAME: &'static str = stringify!($name);
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

/// `RecordKind::Account`: everything about the linked device itself.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct AccountRecord {
    /// Signal identity key, private.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) identity: Bytes,
    /// Noise static key, private.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) noise: Bytes,
    #[prost(uint32, tag = "3")]
    pub(crate) registration_id: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) adv_secret: Bytes,
    #[prost(uint32, tag = "5")]
    pub(crate) signed_pre_key_id: u32,
    /// Private.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) signed_pre_key: Bytes,
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) signed_pre_key_signature: Bytes,
    /// Next one-time prekey id to give out.
    #[prost(uint32, tag = "8")]
    pub(crate) next_pre_key_id: u32,
    /// Own JID with device.
    #[prost(string, tag = "10")]
    pub(crate) jid: String,
    /// Own LID with device; empty when not known.
    #[prost(string, tag = "11")]
    pub(crate) lid: String,
    /// Serialised `ADVSignedDeviceIdentity` with the account's signature key.
    #[prost(bytes = "bytes", tag = "12")]
    pub(crate) device_identity: Bytes,
    #[prost(string, tag = "13")]
    pub(crate) platform: String,
    #[prost(string, optional, tag = "14")]
    pub(crate) business_name: Option<String>,
    #[prost(string, optional, tag = "15")]
    pub(crate) push_name: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "16")]
    pub(crate) routing_info: Option<Bytes>,
    /// Verified certificate chain of the server, for the IK handshake.
    #[prost(bytes = "bytes", optional, tag = "17")]
    pub(crate) chain: Option<Bytes>,
    /// Successful logins so far.
    #[prost(uint32, tag = "18")]
    pub(crate) logins: u32,
    /// Whether prekeys were ever uploaded.
    #[prost(bool, tag = "19")]
    pub(crate) uploaded: bool,
    /// The account talks to users by LID (spec 03 §4.10).
    #[prost(bool, tag = "20")]
    pub(crate) lid_migrated: bool,
    /// When the server's digest of our keys was last compared, unix seconds.
    #[prost(uint64, tag = "21")]
    pub(crate) digest_checked: u64,
    /// When the signed prekey was made, unix seconds; 0 when that is not known.
    #[prost(uint64, tag = "22")]
    pub(crate) signed_pre_key_made: u64,
    /// Signed prekeys that are not offered any more, or not yet, and are kept for messages on their way.
    #[prost(message, repeated, tag = "23")]
    pub(crate) retired_pre_keys: Vec<RetiredPreKeyRecord>,
    /// The salt of tokens for peers whose token we do not have.
    #[prost(bytes = "bytes", optional, tag = "40")]
    pub(crate) nct_salt: Option<Bytes>,
    #[prost(message, repeated, tag = "41")]
    pub(crate) restrictions: Vec<RestrictionRecord>,
    /// The newest run that has counter leases, or an earlier one without.
    #[prost(uint32, tag = "42")]
    pub(crate) run: u32,
    /// The first run since the account was imported.
    #[prost(uint32, tag = "43")]
    pub(crate) first_run: u32,
}
record!(AccountRecord);

/// A restriction of the account.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RestrictionRecord {
    /// The code of the refusal that it is about: 463 or 475.
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    /// Unix milliseconds.
    #[prost(uint64, tag = "2")]
    pub(crate) until_ms: u64,
    /// Whether the server told the end.
    #[prost(bool, tag = "3")]
    pub(crate) is_told: bool,
    #[prost(string, optional, tag = "4")]
    pub(crate) enforcement: Option<String>,
}

/// A signed prekey in an [`AccountRecord`] that is not the current one.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct RetiredPreKeyRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    /// Unix seconds.
    #[prost(uint64, tag = "2")]
    pub(crate) since: u64,
}
record!(RetiredPreKeyRecord);

/// `RecordKind::OutboxHead`.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct OutboxHeadRecord {
    /// Sequence number of the newest event.
    #[prost(uint64, tag = "1")]
    pub(crate) last: u64,
}
record!(OutboxHeadRecord);

/// `RecordKind::DeviceList`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct DeviceListRecord {
    // Tag 1 was the ids of the devices, without what is needed to judge a change, and tag 2 when they were answered: such a list
    // is asked for again.
    /// Unix seconds of the answer; 0 when the list must be asked for.
    #[prost(uint64, tag = "8")]
    pub(crate) fetched: u64,
    /// The devices that count.
    #[prost(message, repeated, tag = "3")]
    pub(crate) devices: Vec<DeviceRecord>,
    /// The server's hash of the list, under the identity that the record has.
    #[prost(string, optional, tag = "4")]
    pub(crate) hash: Option<String>,
    /// Which registration of the account the key-index list is of.
    #[prost(uint32, optional, tag = "5")]
    pub(crate) raw_id: Option<u32>,
    /// When the primary made the key-index list, unix seconds.
    #[prost(uint64, tag = "6")]
    pub(crate) timestamp: u64,
    /// When another identity of the user showed itself in a session, unix seconds; 0 for never. The notification that says the
    /// same is no news.
    #[prost(uint64, tag = "7")]
    pub(crate) identity_changed: u64,
}
record!(DeviceListRecord);

/// One device in a [`DeviceListRecord`].
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct DeviceRecord {
    /// 0 is the primary.
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(uint32, optional, tag = "2")]
    pub(crate) key_index: Option<u32>,
    #[prost(bool, tag = "3")]
    pub(crate) hosted: bool,
}
record!(DeviceRecord);

/// `RecordKind::Outgoing`: a send that was accepted and is not settled yet.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct OutgoingRecord {
    /// Order of acceptance.
    #[prost(uint64, tag = "1")]
    pub(crate) order: u64,
    /// The user as the caller named it.
    #[prost(string, tag = "2")]
    pub(crate) to: String,
    /// Serialised `Message`.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) message: Bytes,
    /// The caller's correlation text.
    #[prost(string, optional, tag = "4")]
    pub(crate) client_ref: Option<String>,
    /// Unix milliseconds of acceptance.
    #[prost(uint64, tag = "5")]
    pub(crate) accepted_ms: u64,
    /// The encoded stanza, once it is encrypted: sent again as it is until it is acknowledged.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(crate) stanza: Option<Bytes>,
    /// The chat: its canonical name at acceptance, then as addressed in the stanza.
    #[prost(string, tag = "7")]
    pub(crate) chat: String,
    /// Its other name at acceptance.
    #[prost(string, optional, tag = "10")]
    pub(crate) other: Option<String>,
    /// For the own phone, and no message to anybody: how urgent, as `Urgency` numbers it; 0 for other sends.
    #[prost(uint32, tag = "8")]
    pub(crate) peer: u32,
    /// Who has our sender key once the server takes the stanza.
    #[prost(message, optional, tag = "9")]
    pub(crate) distributed: Option<DistributedRecord>,
    /// Who may see a status.
    #[prost(string, repeated, tag = "11")]
    pub(crate) viewers: Vec<String>,
    /// How they were chosen, as `AudienceSetting` numbers it; 0 for no status.
    #[prost(uint32, tag = "12")]
    pub(crate) setting: u32,
    /// Hash of the devices that the message is for, of those under a sender key.
    #[prost(string, optional, tag = "13")]
    pub(crate) phash: Option<String>,
    /// The server wanted it in another addressing mode, once.
    #[prost(bool, tag = "14")]
    pub(crate) rebuilt: bool,
}
record!(OutgoingRecord);

/// Devices that a message hands our sender key to.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct DistributedRecord {
    /// Id of the sender key.
    #[prost(uint32, tag = "1")]
    pub(crate) key: u32,
    /// Losses ([`LossesRecord`]) when it was encrypted.
    #[prost(uint64, tag = "2")]
    pub(crate) losses: u64,
    /// By canonical user.
    #[prost(btree_map = "string, message", tag = "3")]
    pub(crate) users: BTreeMap<String, MarkedDevices>,
}
record!(DistributedRecord);

/// Devices of one user.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct MarkedDevices {
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) devices: Vec<u32>,
}
record!(MarkedDevices);

/// `RecordKind::SenderKeyMarks`, of a chat: the devices that have our sender key.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct MarksRecord {
    /// Id of the sender key.
    #[prost(uint32, tag = "1")]
    pub(crate) key: u32,
    /// Losses ([`LossesRecord`]) that are taken into account.
    #[prost(uint64, tag = "2")]
    pub(crate) losses: u64,
    /// By canonical user.
    #[prost(btree_map = "string, message", tag = "3")]
    pub(crate) users: BTreeMap<String, MarkedDevices>,
}
record!(MarksRecord);

/// `RecordKind::SenderKeyMarks`, under the empty id: devices that lost every sender key.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct LossesRecord {
    /// How many there ever were.
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    /// The last of them, in their order.
    #[prost(message, repeated, tag = "2")]
    pub(crate) last: Vec<Loss>,
}
record!(LossesRecord);

/// One device, or all of a user.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Loss {
    /// Canonical user.
    #[prost(string, tag = "1")]
    pub(crate) user: String,
    /// Without it: all of them.
    #[prost(uint32, optional, tag = "2")]
    pub(crate) device: Option<u32>,
}
record!(Loss);

/// `RecordKind::SenderKeyChats`, of a device: where it handed us sender keys.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct SenderKeyChatsRecord {
    /// JIDs of groups and broadcast lists.
    #[prost(string, repeated, tag = "1")]
    pub(crate) chats: Vec<String>,
}
record!(SenderKeyChatsRecord);

/// `RecordKind::Sent`: a message of ours, for receipts and resends.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct SentRecord {
    /// Serialised `Message`.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) message: Bytes,
    /// Server time of the acknowledgement, unix seconds.
    #[prost(uint64, tag = "2")]
    pub(crate) timestamp: u64,
    // Tag 3 was the status of each user, which is a record of its own now ([`StatusRecord`]).
    /// The highest status that anybody reported so far (spec 07 §5): 3 delivered, 4 read, 5 played.
    #[prost(uint32, tag = "7")]
    pub(crate) highest: u32,
    /// The chat as addressed in the stanza.
    #[prost(string, tag = "4")]
    pub(crate) chat: String,
    /// Who may see it, of a status; of a reaction to one, its author.
    #[prost(string, repeated, tag = "6")]
    pub(crate) audience: Vec<String>,
}
record!(SentRecord);

/// `RecordKind::Sent`, of a message of ours and a user.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct StatusRecord {
    /// The highest status that the user reported, numbered as in [`SentRecord`].
    #[prost(uint32, tag = "1")]
    pub(crate) status: u32,
}
record!(StatusRecord);

/// `RecordKind::ResendBaseKey`, of a device and a message: what was sent to it again.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct ResendRecord {
    /// How often.
    #[prost(uint32, tag = "1")]
    pub(crate) count: u32,
    /// Unix seconds of the last time.
    #[prost(uint64, tag = "2")]
    pub(crate) at: u64,
    /// Base key of the session at the second request; empty before.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) base_key: Bytes,
}
record!(ResendRecord);

/// `RecordKind::ResendBaseKey`, of a device: when its session was renewed.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct RenewedRecord {
    /// Unix seconds.
    #[prost(uint64, tag = "1")]
    pub(crate) at: u64,
}
record!(RenewedRecord);

/// `RecordKind::Received`.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct ReceivedRecord {
    /// Unix seconds.
    #[prost(uint64, tag = "1")]
    pub(crate) at: u64,
    /// The sender key that came with it was taken, and its content was not read.
    #[prost(bool, tag = "2")]
    pub(crate) keys_only: bool,
}
record!(ReceivedRecord);

/// `RecordKind::RetryCount`.
#[derive(Clone, Copy, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct RetryCountRecord {
    /// How often a resend was asked for.
    #[prost(uint32, tag = "1")]
    pub(crate) count: u32,
    /// Unix seconds of the last request.
    #[prost(uint64, tag = "2")]
    pub(crate) at: u64,
    /// Id of the one-time prekey given out with it; 0 for none.
    #[prost(uint32, tag = "3")]
    pub(crate) pre_key_id: u32,
}
record!(RetryCountRecord);

/// `RecordKind::Placeholder`: what the stanza said of a message that the phone is asked for.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct PlaceholderRecord {
    /// As addressed.
    #[prost(string, tag = "1")]
    pub(crate) chat: String,
    /// The sending device, as addressed.
    #[prost(string, tag = "2")]
    pub(crate) sender: String,
    #[prost(bool, tag = "3")]
    pub(crate) from_me: bool,
    #[prost(string, tag = "4")]
    pub(crate) id: String,
    /// Unix seconds of the message.
    #[prost(uint64, tag = "5")]
    pub(crate) timestamp: u64,
    /// The `edit` attribute.
    #[prost(string, optional, tag = "6")]
    pub(crate) edit: Option<String>,
    /// Unix milliseconds at which the phone is to be asked.
    #[prost(uint64, tag = "7")]
    pub(crate) due_ms: u64,
    /// Unix seconds at which it was; 0 before that.
    #[prost(uint64, tag = "8")]
    pub(crate) asked: u64,
}
record!(PlaceholderRecord);

/// `RecordKind::MessageSecret`: what belongs to a message that others may refer to.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct MessageSecretRecord {
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) secret: Bytes,
    /// Unix seconds from which on it counts as absent.
    #[prost(uint64, tag = "2")]
    pub(crate) expires: u64,
    /// Unix seconds of the message.
    #[prost(uint64, tag = "3")]
    pub(crate) sent: u64,
    /// What can be voted for, when it is a poll.
    #[prost(message, repeated, tag = "4")]
    pub(crate) options: Vec<PollOption>,
}
record!(MessageSecretRecord);

/// An option of a poll.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PollOption {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Whose last vote names it.
    #[prost(uint32, tag = "2")]
    pub(crate) votes: u32,
}

/// `RecordKind::MessageSecret` with a voter: what somebody voted last.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct PollVoteRecord {
    /// When, by the clock of the voter, unix milliseconds.
    #[prost(int64, tag = "1")]
    pub(crate) at_ms: i64,
    /// The options, by their hashes.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) hashes: Vec<Bytes>,
}
record!(PollVoteRecord);

/// `RecordKind::PrivacyToken`: what shows that a user and we know each other.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct PrivacyTokenRecord {
    /// The user's token for us; empty for none.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) token: Bytes,
    /// Its timestamp, unix seconds.
    #[prost(uint64, tag = "2")]
    pub(crate) received: u64,
    /// The timestamp of the token that we issued last; 0 for none.
    #[prost(uint64, tag = "3")]
    pub(crate) issued: u64,
    /// A message went to or came from this user.
    #[prost(bool, tag = "4")]
    pub(crate) talked: bool,
}
record!(PrivacyTokenRecord);
pub(crate) use record;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_list_of_an_earlier_version_is_asked_for_again() {
        // Devices 0 and 3, answered at 1,760,000,000.
        let stored = [&[VERSION, 0x0A, 2, 0, 3, 0x10][..], &[0x80, 0xF8, 0x9C, 0xC7, 0x06]].concat();
        let record = DeviceListRecord::from_bytes(&stored.into()).unwrap();
        assert_eq!((record.fetched, record.devices.len()), (0, 0));
    }
}
