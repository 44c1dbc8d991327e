//! Types of `protocolMessage` (spec 06 §5), and who may send them (spec 03 §5.2).

use crate::proto::e2e::ProtocolMessage;

/// The types that the schema knows.
#[doc(no_inline)]
pub use crate::proto::e2e::protocol_message::Type as ProtocolKind;

/// The type of a protocol message as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolType {
    /// Delete a message for everyone.
    Revoke,
    /// Replace the content of a message.
    MessageEdit,
    /// Another type of the schema.
    Other(ProtocolKind),
    /// A type of a newer schema.
    Unknown(i32),
}

/// Which of our own devices may send a protocol message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnSender {
    /// Any device of the account.
    AnyDevice,
    /// The primary, device 0.
    Primary,
}

/// The type of a protocol message. An absent one is REVOKE, the default of the schema.
pub fn type_of(protocol: &ProtocolMessage) -> ProtocolType {
    let number = protocol.r#type.unwrap_or_default();
    match ProtocolKind::try_from(number) {
        Ok(ProtocolKind::Revoke) => ProtocolType::Revoke,
        Ok(ProtocolKind::MessageEdit) => ProtocolType::MessageEdit,
        Ok(other) => ProtocolType::Other(other),
        Err(_) => ProtocolType::Unknown(number),
    }
}

/// Whether only our own account may send this protocol message, and which of its devices. `None`: anybody may.
///
/// From anybody else it is an attack or a bug: drop that part, acknowledge, count. The payload is looked at as well as the
/// type, so that a key share under an innocent type does not slip through.
pub fn own_sender(protocol: &ProtocolMessage) -> Option<OwnSender> {
    let ProtocolType::Other(kind) = type_of(protocol) else {
        return by_payload(protocol);
    };
    match kind {
        ProtocolKind::PeerDataOperationRequestResponseMessage => Some(OwnSender::Primary),
        ProtocolKind::HistorySyncNotification
        | ProtocolKind::AppStateSyncKeyShare
        | ProtocolKind::AppStateSyncKeyRequest
        | ProtocolKind::MsgFanoutBackfillRequest
        | ProtocolKind::InitialSecurityNotificationSettingSync
        | ProtocolKind::AppStateFatalExceptionNotification
        | ProtocolKind::PeerDataOperationRequestMessage
        | ProtocolKind::LidMigrationMappingSync => by_payload(protocol).or(Some(OwnSender::AnyDevice)),
        _ => by_payload(protocol),
    }
}

fn by_payload(protocol: &ProtocolMessage) -> Option<OwnSender> {
    if protocol.peer_data_operation_request_response_message.is_some() {
        return Some(OwnSender::Primary);
    }
    let own = protocol.history_sync_notification.is_some()
        || protocol.app_state_sync_key_share.is_some()
        || protocol.app_state_sync_key_request.is_some()
        || protocol.initial_security_notification_setting_sync.is_some()
        || protocol.app_state_fatal_exception_notification.is_some()
        || protocol.peer_data_operation_request_message.is_some()
        || protocol.lid_migration_mapping_sync_message.is_some();
    own.then_some(OwnSender::AnyDevice)
}
