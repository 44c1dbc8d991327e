//! What follows the handshake: a new client is linked, a known device is logged in, everybody else is refused
//! (spec 01 §6.1–§6.3, §6.8, §7.2).

use std::collections::BTreeMap;

use prost::Message as _;
use wamd::crypto::PublicKey;
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::proto::wa6::ClientPayload;

use crate::ConnId;
use crate::connection::{ConnectionError, Phase, Session};
use crate::core::{Core, leaf};
use crate::directory::{Address, Namespace};
use crate::handshake::Pattern;
use crate::queue::{Class, Queue};
use crate::{linking, phone, stanza};

/// Reads the client payload and goes on accordingly.
pub(crate) fn begin(
    core: &mut Core,
    id: ConnId,
    client: PublicKey,
    pattern: Pattern,
    payload: &[u8],
) -> Result<(), ConnectionError> {
    let payload = ClientPayload::decode(payload).map_err(|_| ConnectionError::Payload)?;
    if core.config.minimum_version.is_some_and(|minimum| version(&payload) < minimum) {
        fail(core, id, OUTDATED);
        return Ok(());
    }
    match payload.device_pairing_data.as_deref() {
        Some(registration) => match core.faults.take_registration_refusal() {
            Some(failure) => core.send_last(id, &failure),
            None => linking::begin(core, id, client, registration),
        },
        None => login(core, id, client, pattern, &payload),
    }
    Ok(())
}

/// Refuses a client and closes.
pub(crate) fn fail(core: &mut Core, id: ConnId, reason: u16) {
    let failure = stanza::failure(Some(reason), &BTreeMap::new());
    core.send_last(id, &failure);
}

/// Sends the backlog between its two markers; from then on stanzas go out as they come.
pub(crate) fn deliver_backlog(core: &mut Core, id: ConnId, address: Address) {
    let Some(Phase::Online(session)) = core.connections.get_mut(&id).map(|connection| &mut connection.phase) else {
        return;
    };
    if session.live {
        return;
    }
    session.live = true;
    let Some(device) = core.directory.device_mut(address) else { return };
    let preview = preview(&device.queue);
    let backlog = device.queue.deliver_all();
    core.send(id, &stanza::ib(preview));
    let count = backlog.len();
    for (index, node) in backlog.into_iter().enumerate() {
        core.send(id, &node.attr("offline", index));
    }
    core.send(id, &stanza::ib(Node::new("offline").attr("count", count)));
    phone::greet(core, address);
}

/// Keeps stanzas back until the client is active again.
pub(crate) fn hold(core: &mut Core, id: ConnId, _: Address) {
    if let Some(Phase::Online(session)) = core.connections.get_mut(&id).map(|connection| &mut connection.phase) {
        session.live = false;
    }
}

fn login(core: &mut Core, id: ConnId, client: PublicKey, pattern: Pattern, payload: &ClientPayload) {
    let device = payload.device.and_then(|device| u16::try_from(device).ok());
    let address = Address { number: payload.username.unwrap_or(0), device: device.unwrap_or(0) };
    let known = core.directory.device(address).is_some_and(|device| device.noise == client);
    if !known {
        return fail(core, id, UNLINKED);
    }
    if core.faults.take(address, |faults| &mut faults.fail_login) {
        return fail(core, id, core.faults.of(address).failure);
    }
    if let Some(refusal) = core.faults.take_refusal(address) {
        return core.send_last(id, &refusal);
    }
    if let Some(former) = core.connection_of(address) {
        core.send_last(former, &stanza::replaced(None));
    }
    let ping_at = core.config.ping_every.map(|every| core.now.mono.saturating_add(every));
    if let Some(connection) = core.connections.get_mut(&id) {
        connection.phase = Phase::Online(Session { address, pattern, live: false, ping_at, unanswered_ping: None });
    }
    if let Some(device) = core.directory.device_mut(address) {
        device.connection = Some(id);
        device.logins = device.logins.saturating_add(1);
    }
    let success = success(core, address);
    core.send(id, &success);
    if let Some(info) = core.config.edge_routing.clone() {
        core.send(id, &stanza::ib(Node::new("edge_routing").child(leaf("routing_info", info))));
    }
    if !payload.passive.unwrap_or(false) {
        deliver_backlog(core, id, address);
    }
}

fn success(core: &Core, address: Address) -> Node {
    let (created, number) =
        core.directory.account(address.number).map_or((0, 0), |account| (account.created, account.number));
    Node::new("success")
        .attr("t", core.now.unix_seconds())
        .attr("props", "27")
        .attr("companion_enc_static", "NULL")
        .attr("lid", core.jid(address, Namespace::Lid))
        .attr("display_name", format!("+{number}"))
        .attr("abprops", "8")
        .attr("group_abprops", "24")
        .attr("location", LOCATION)
        .attr("creation", created)
}

fn preview(queue: &Queue) -> Node {
    let count = |class| queue.count(class);
    Node::new("offline_preview")
        .attr("count", queue.len())
        .attr("message", count(Class::Message))
        .attr("receipt", count(Class::Receipt))
        .attr("notification", count(Class::Notification))
        .attr("appdata", "0")
        .attr("call", "0")
}

/// The version that a client says it has; a missing part counts as 0.
fn version(payload: &ClientPayload) -> [u32; 3] {
    let version = payload.user_agent.as_ref().and_then(|agent| agent.app_version.as_ref());
    version
        .map_or([0; 3], |version| [version.primary, version.secondary, version.tertiary].map(Option::unwrap_or_default))
}

/// The `from` of everything that the server says itself.
pub(crate) const fn server() -> Jid {
    Jid::whatsapp_server()
}

/// Failure reasons (spec 01 §6.3).
pub(crate) const BAD_REQUEST: u16 = 400;
const UNLINKED: u16 = 401;
const OUTDATED: u16 = 405;

/// The data centre that the server claims to be in.
pub(crate) const LOCATION: &str = "loop";
