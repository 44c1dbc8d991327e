//! Clients that wait to be linked: what tests see of them, and what they can have the server do to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wamd::node::Node;

use crate::ConnId;
use crate::control::{ControlError, PasskeyView, parse_number};
use crate::core::Core;
use crate::{linking, pair_code, passkey, stanza};

/// A client that waits to be linked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitingView {
    /// The number of its connection.
    pub conn: u64,
    /// The refs that it was given last.
    pub refs: Vec<String>,
    /// Whether pair-success was sent, and the client's answer is awaited.
    pub offered: bool,
    /// Its exchange by pair code.
    pub code: Option<CodeView>,
    /// Its exchange by passkey.
    pub passkey: Option<PasskeyView>,
}

/// An exchange by pair code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeView {
    /// The phone number that the client named.
    pub number: String,
    /// Whether a code was typed, and the client's answer is awaited.
    pub typed: bool,
}

/// What the server does to a client that waits to be linked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum LinkAction {
    /// Send another pair-device, with so many refs; the former refs are void (spec 01 §4.2).
    NewRefs {
        /// How many.
        #[serde(default = "six")]
        count: u16,
    },
    /// Ask for a new ADV secret by `companion_reg_refresh`.
    RotateSecret {
        /// With the child `pair-device-rotate-qr` instead of `companion_reg_refresh`.
        #[serde(default)]
        rotate_qr: bool,
    },
    /// Ask for a new pair code by the stage `refresh_code` (spec 01 §5.5). The one that is shown is void.
    RefreshCode {
        /// With `force_manual_refresh`.
        #[serde(default)]
        force_manual: bool,
    },
    /// Tell that the phone has no support for companions (spec 01 §4.2).
    DowngradeWebclient,
    /// Close without a word.
    Close,
    /// Send a stream error, and close.
    StreamError {
        /// The `code`; none leaves it out.
        #[serde(default)]
        code: Option<u16>,
    },
    /// Send a failure, and close.
    Failure {
        /// The `reason`; none leaves it out.
        #[serde(default)]
        reason: Option<u16>,
        /// Further attributes.
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    },
    /// Send a ping.
    Ping,
    /// Send any stanza.
    Send {
        /// The stanza.
        #[serde(deserialize_with = "crate::json::node")]
        node: Node,
    },
}

const fn six() -> u16 {
    6
}

/// All that wait, in the order in which they came.
pub(crate) fn views(core: &Core) -> Vec<WaitingView> {
    let view = |(id, linking): (ConnId, &linking::Linking)| WaitingView {
        conn: id.0,
        refs: linking.refs().map(str::to_owned).collect(),
        offered: linking.is_offered(),
        code: linking.code.as_ref().map(|code| CodeView { number: code.number.to_string(), typed: code.is_typed() }),
        passkey: linking.passkey.as_ref().map(passkey::PasskeyLink::view),
    };
    linking::all(core).map(view).collect()
}

/// Does something to a waiting client, the one that came last unless a connection is named.
pub(crate) fn act(core: &mut Core, conn: Option<ConnId>, action: LinkAction) -> Result<(), ControlError> {
    let fits = |id: &ConnId| conn.is_none_or(|conn| conn == *id);
    let id = linking::all(core).map(|(id, _)| id).rev().find(fits).ok_or(ControlError::NotWaiting)?;
    match action {
        LinkAction::NewRefs { count } => linking::send_refs(core, id, count),
        LinkAction::RotateSecret { rotate_qr } => {
            let child = if rotate_qr { "pair-device-rotate-qr" } else { "companion_reg_refresh" };
            linking::notify(core, id, "companion_reg_refresh", Node::new(child));
        }
        LinkAction::RefreshCode { force_manual } => pair_code::refresh(core, id, force_manual),
        LinkAction::DowngradeWebclient => core.send(id, &stanza::ib(Node::new("downgrade_webclient"))),
        LinkAction::Close => core.close(id),
        LinkAction::StreamError { code } => core.send_last(id, &Node::new("stream:error").attr_opt("code", code)),
        LinkAction::Failure { reason, attrs } => core.send_last(id, &stanza::failure(reason, &attrs)),
        LinkAction::Ping => stanza::ping(core, id),
        LinkAction::Send { node } => {
            let plaintext = node.encode().map_err(|_| ControlError::Unencodable)?;
            core.send_plaintext(id, &plaintext);
        }
    }
    Ok(())
}

/// The phone's user declines; see [`Server::refuse_link`](crate::Server::refuse_link).
pub(crate) fn refuse(core: &mut Core, number: &str) -> Result<(), ControlError> {
    let number = parse_number(number).ok_or(ControlError::Number)?;
    let (code, passkey) = (pair_code::refuse(core, number), passkey::refuse(core, number));
    if code || passkey { Ok(()) } else { Err(ControlError::NotWaiting) }
}
