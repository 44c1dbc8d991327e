//! The WhatsApp protobuf schema as prost types, and its JSON form.
//!
//! Each package of the schema is a module with a short name: [`e2e`] holds `Message`, [`wa6`] the handshake and the client
//! payload, [`adv`] the device identity … Everything in them is generated from `proto/schema` by `wamd-proto-gen` and
//! checked in. [`json`] turns their wire bytes into the JSON form of spec 07 §2. See the README of this crate for how, and for the shape of the types (boxed members, `Bytes`, enums as
//! `i32`).
//!
//! ```
//! use wamd_proto::{Message as _, e2e};
//!
//! let message = e2e::Message { conversation: Some("hi".into()), ..Default::default() };
//! let wire = message.encode_to_vec();
//! assert_eq!(wire, b"\x0a\x02hi");
//! assert_eq!(e2e::Message::decode(&wire[..]).unwrap(), message);
//! ```
//!
//! **`Debug` of the generated types prints everything**, keys and message text included. It is for tests; it must not
//! reach a log or an error.
//!
//! Decoding limits: prost refuses nesting below 100 levels and never allocates more than a small multiple of its input;
//! the length of the input is for the caller to check.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod generated;
pub mod json;

pub use prost;
pub use prost::Message;
pub use prost::bytes::Bytes;

/// `WAAdv`: signed device identity and device lists: `AdvSignedDeviceIdentity`, `AdvKeyIndexList` …
#[doc(inline)]
pub use generated::wa_adv as adv;
/// `WACert`: the certificate chain of the Noise handshake: `CertChain`, `NoiseCertificate`.
#[doc(inline)]
pub use generated::wa_cert as cert;
/// `WACommon`: shared by the other packages: `MessageKey`, `LimitSharing` …
#[doc(inline)]
pub use generated::wa_common as common;
/// `WACompanionReg`: what a companion says about itself when it pairs: `DeviceProps`, `PairingRequest` …
#[doc(inline)]
pub use generated::wa_companion_reg as companion;
/// `WAFingerprint`: the scannable security code: `CombinedFingerprint` …
#[doc(inline)]
pub use generated::wa_fingerprint as fingerprint;
/// `WAMediaEntryData`.
#[doc(inline)]
pub use generated::wa_media_entry_data as media_entry;
/// `WAMmsRetry`: the answer to a request to upload a media file again: `MediaRetryNotification`, `ServerErrorReceipt`.
#[doc(inline)]
pub use generated::wa_mms_retry as mms_retry;
/// `WASignalLocalStorageProtocol`: Signal records at rest: `SessionStructure`, `SenderKeyRecordStructure` …
#[doc(inline)]
pub use generated::wa_signal_local_storage_protocol as signal_store;
/// `WASignalWhisperTextProtocol`: Signal messages on the wire: `SignalMessage`, `PreKeySignalMessage`, `SenderKeyMessage` …
#[doc(inline)]
pub use generated::wa_signal_whisper_text_protocol as signal_wire;
/// `WAStatusAttributions`.
#[doc(inline)]
pub use generated::wa_status_attributions as status;
/// `WAWebProtobufLidMigrationSyncPayload`.
#[doc(inline)]
pub use generated::wa_web_protobuf_lid_migration_sync_payload as lid_migration;
/// `WAWebProtobufSyncAction`: app state actions: `SyncActionData`, `SyncActionValue` …
#[doc(inline)]
pub use generated::wa_web_protobuf_sync_action as sync_action;
/// `WAWebProtobufsAea`.
#[doc(inline)]
pub use generated::wa_web_protobufs_aea as aea;
/// `WAWebProtobufsAICommon`: bot metadata and rich bot answers: `BotMetadata`, `AiRichResponseMessage` …
#[doc(inline)]
pub use generated::wa_web_protobufs_ai_common as ai;
/// `WAWebProtobufsChatLockSettings`.
#[doc(inline)]
pub use generated::wa_web_protobufs_chat_lock_settings as chat_lock;
/// `WAWebProtobufsDeviceCapabilities`.
#[doc(inline)]
pub use generated::wa_web_protobufs_device_capabilities as device_capabilities;
/// `WAWebProtobufsE2E`: end-to-end content: `Message` and all its kinds, `ContextInfo`, `MessageContextInfo` …
#[doc(inline)]
pub use generated::wa_web_protobufs_e2e as e2e;
/// `WAWebProtobufsE2EGuest`.
#[doc(inline)]
pub use generated::wa_web_protobufs_e2e_guest as e2e_guest;
/// `WAWebProtobufsEphemeral`.
#[doc(inline)]
pub use generated::wa_web_protobufs_ephemeral as ephemeral;
/// `WAWebProtobufsGroupHistory`.
#[doc(inline)]
pub use generated::wa_web_protobufs_group_history as group_history;
/// `WAWebProtobufsHistorySync`: history sync: `HistorySync`, `Conversation`, `Pushname` …
#[doc(inline)]
pub use generated::wa_web_protobufs_history_sync as history;
/// `WAWebProtobufsQuickPromotionSurfaces`.
#[doc(inline)]
pub use generated::wa_web_protobufs_quick_promotion_surfaces as quick_promotion;
/// `WAWebProtobufsReporting`: which fields a reporting token covers: `Reportable`, `Config`, `Field`.
#[doc(inline)]
pub use generated::wa_web_protobufs_reporting as reporting;
/// `WAWebProtobufsRoutingInfo`: edge routing: `RoutingInfo`.
#[doc(inline)]
pub use generated::wa_web_protobufs_routing_info as routing;
/// `WAWebProtobufsServerSync`: app state on the wire: `SyncdPatch`, `SyncdSnapshot`, `SyncdMutation` …
#[doc(inline)]
pub use generated::wa_web_protobufs_server_sync as server_sync;
/// `WAWebProtobufsSyncdSnapshotRecovery`: a snapshot that the primary sends when app state is broken: `SyncdSnapshotRecovery`.
#[doc(inline)]
pub use generated::wa_web_protobufs_syncd_snapshot_recovery as syncd_recovery;
/// `WAWebProtobufsUserPassword`.
#[doc(inline)]
pub use generated::wa_web_protobufs_user_password as user_password;
/// `WAWebProtobufsVnameCert`: verified business names: `VerifiedNameCertificate`, `BizAccountPayload` …
#[doc(inline)]
pub use generated::wa_web_protobufs_vname_cert as vname;
/// `WAWebProtobufsWa6`: connection set-up: `HandshakeMessage`, `ClientPayload`.
#[doc(inline)]
pub use generated::wa_web_protobufs_wa6 as wa6;
/// `WAWebProtobufsWeb`: a message with its envelope, as history and phones store it: `WebMessageInfo`, `WebFeatures` …
#[doc(inline)]
pub use generated::wa_web_protobufs_web as web;
/// `WAAICommonDeprecated`.
#[doc(inline)]
pub use generated::waai_common_deprecated as ai_deprecated;
