//! The notifications that belong to linking (spec 01 §4.2, §5.5, §5.8). All are owed an ack, like any notification.
//!
//! ```text
//! link_code_companion_reg    stage primary_hello, refresh_code; others mean nothing to us
//! companion_reg_refresh      child companion_reg_refresh or pair-device-rotate-qr
//! passkey_prologue_request   perhaps with the options for WebAuthn
//! crsc_continuation          primary_ephemeral_identity
//! ```

use bytes::Bytes;

use super::{
    PairError, code,
    code::PrimaryHello,
    passkey::{self, PrimaryIdentity},
};
use crate::{jid::Jid, node::NodeRef};

/// A notification of the server to a device that is being linked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkNotice {
    /// Somebody typed a code on the phone.
    PrimaryHello(Result<PrimaryHello, PairError>),
    /// The code on the screen is void; a new one is wanted.
    RefreshCode {
        /// Only if a person asks for it.
        manual: bool,
    },
    /// A new ADV secret is wanted, and a QR code that shows it.
    RotateSecret,
    /// The phone wants a passkey. The options for WebAuthn are absent when they have to be asked for.
    PasskeyRequest(Result<Option<Bytes>, PairError>),
    /// The phone's answer to the prologue.
    PasskeyContinuation(Result<PrimaryIdentity, PairError>),
}

/// Reads a notification. `None`: it is about something else, in a stage that means nothing to us, or not from the server.
pub fn parse(node: NodeRef<'_>) -> Option<LinkNotice> {
    if !node.is("notification") || node.attr_jid("from") != Some(Jid::whatsapp_server()) {
        return None;
    }
    match node.attr_str("type")?.as_ref() {
        code::TAG => code_stage(node),
        "companion_reg_refresh" => {
            let known = ["companion_reg_refresh", "pair-device-rotate-qr"];
            known.iter().any(|tag| node.child(tag).is_some()).then_some(LinkNotice::RotateSecret)
        }
        "passkey_prologue_request" => Some(LinkNotice::PasskeyRequest(match passkey::parse_options(node) {
            Ok(options) => Ok(Some(options)),
            Err(PairError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        })),
        "crsc_continuation" => {
            let identity = node.child("primary_ephemeral_identity").and_then(|identity| identity.bytes());
            let identity = identity.ok_or(PairError::Missing("primary_ephemeral_identity"));
            let identity = identity.and_then(|bytes| PrimaryIdentity::decode(&bytes));
            Some(LinkNotice::PasskeyContinuation(identity))
        }
        _ => None,
    }
}

fn code_stage(node: NodeRef<'_>) -> Option<LinkNotice> {
    let stage = node.child(code::TAG)?;
    match stage.attr_str("stage")?.as_ref() {
        "primary_hello" => Some(LinkNotice::PrimaryHello(PrimaryHello::parse(stage))),
        "refresh_code" => {
            let manual = stage.attr_str("force_manual_refresh").is_some_and(|force| !matches!(&*force, "false" | "0"));
            Some(LinkNotice::RefreshCode { manual })
        }
        _ => None,
    }
}
