//! Carries faults out.

use wamd::jid::Jid;
use wamd::node::Node;

use super::Refusal;
use super::acks::AckRule;
use super::delivery::Rule;
use crate::control::ControlError;
use crate::core::{Core, leaf};
use crate::fault::Fault;
use crate::{keys, notices, routing, stanza};

/// See [`Server::fault`](crate::Server::fault).
pub(crate) fn apply(core: &mut Core, fault: Fault) -> Result<(), ControlError> {
    match fault {
        Fault::ForgedCertificate { on } => core.faults.forged_certificate = on,
        Fault::RotateStatic => core.authority.rotate(),
        Fault::Deduplicate { on } => core.config.deduplicate = on,
        Fault::MinimumVersion { version } => core.config.minimum_version = version,
        Fault::ForgePrekeySignature { jid, on } => {
            let address = core.named(&jid)?;
            core.faults.of_mut(address).forge_prekey_signature = on;
        }
        Fault::MutePhone { jid, on } => {
            let address = core.named(&jid)?;
            core.faults.of_mut(address).mute = on;
        }
        Fault::TamperNext { jid, count } => {
            let address = core.named(&jid)?;
            core.faults.of_mut(address).tamper = count;
        }
        Fault::DuplicateNext { jid, count } => {
            let address = core.named(&jid)?;
            core.faults.of_mut(address).duplicate = count;
        }
        Fault::DropAck { jid, count } => {
            let address = core.named(&jid)?;
            core.faults.of_mut(address).drop_ack = count;
        }
        Fault::FailLogin { jid, reason, count } => {
            let address = core.named_companion(&jid)?;
            let faults = core.faults.of_mut(address);
            (faults.fail_login, faults.failure) = (count, reason);
        }
        Fault::RefuseLogin { jid, node } => {
            let address = core.named_companion(&jid)?;
            core.faults.refuse(address, node, 1);
        }
        Fault::LoginFailure { jid, reason, attrs, count } => {
            let address = core.named_companion(&jid)?;
            core.faults.refuse(address, stanza::failure(reason, &attrs), count);
        }
        Fault::LinkFailure { reason, attrs, count } => {
            core.faults.refuse_registrations(stanza::failure(reason, &attrs), count);
        }
        Fault::LinkAnswer { stage, code, backoff, count } => {
            core.faults.refuse_stage(stage, code.map(|code| Refusal { code, backoff }), count);
        }
        Fault::AnswerIq { jid, xmlns, code, backoff, count } => {
            let address = core.named_companion(&jid)?;
            let refusal = code.map(|code| Refusal { code, backoff });
            core.faults.refuse_queries(address, xmlns, refusal, count);
        }
        Fault::Refs { count } => core.config.refs = count,
        Fault::Silence { jid, on } => {
            let address = core.named_companion(&jid)?;
            core.faults.of_mut(address).silence = on;
        }
        Fault::StreamError { jid, code, conflict, child, stay } => {
            let id = core.named_connection(&jid)?;
            let conflict = conflict.map(|kind| Node::new("conflict").attr("type", kind));
            let error = Node::new("stream:error").attr_opt("code", code);
            let error = error.child_opt(conflict).child_opt(child.map(Node::new));
            if stay { core.send(id, &error) } else { core.send_last(id, &error) }
        }
        Fault::Dirty { jid, kind, timestamp } => {
            let timestamp = timestamp.unwrap_or_else(|| core.now.unix_seconds());
            let dirty = Node::new("dirty").attr("type", kind).attr("timestamp", timestamp);
            tell(core, &jid, dirty)?;
        }
        Fault::EdgeRouting { jid, info, dns_domain } => {
            let domain = dns_domain.map(|domain| leaf("dns_domain", domain));
            tell(core, &jid, Node::new("edge_routing").child(leaf("routing_info", info)).child_opt(domain))?;
        }
        Fault::ClientExpiration { jid, t } => tell(core, &jid, Node::new("client_expiration").attr("t", t))?,
        Fault::EndWith { jid, node } => {
            let id = core.named_connection(&jid)?;
            let plaintext = node.encode().map_err(|_| ControlError::Unencodable)?;
            core.send_plaintext(id, &plaintext);
            core.close_soon(id);
        }
        Fault::ReplayLast { jid } => {
            let address = core.named_companion(&jid)?;
            let last = core.directory.device(address).and_then(|device| device.last_message.clone());
            routing::deliver(core, address, last.ok_or(ControlError::NoMessage)?);
        }
        Fault::Hosted { jid, on } => {
            let address = core.named_companion(&jid)?;
            if let Some(device) = core.directory.device_mut(address) {
                device.hosted = on;
            }
        }
        Fault::HideLid { jid, on } => {
            let number = core.named(&jid)?.number;
            if let Some(account) = core.directory.account_mut(number) {
                account.lid_hidden = on;
            }
        }
        Fault::ChangeLid { jid } => {
            let number = core.named(&jid)?.number;
            core.directory.change_lid(number, &mut core.rng);
        }
        Fault::DevicesUpdate { jid } => {
            let number = core.named(&jid)?.number;
            notices::devices_updated(core, number);
        }
        Fault::ChangeIdentity { jid } => {
            let number = core.named(&jid)?.number;
            notices::change_identity(core, number);
        }
        Fault::EmptyPrekeys { jid } => {
            let address = core.named_companion(&jid)?;
            if let Some(device) = core.directory.device_mut(address) {
                device.spend_prekeys();
            }
            keys::report_low(core, address);
        }
        Fault::WithholdPrekey { jid, on } => {
            let address = core.named(&jid)?;
            core.faults.of_mut(address).withhold_prekey = on;
        }
        Fault::RefuseBundle { jid, code, count } => {
            let address = core.named(&jid)?;
            let faults = core.faults.of_mut(address);
            (faults.refuse_bundle, faults.bundle_error) = (count, code);
        }
        Fault::AskDigest { jid } => {
            let address = core.named_companion(&jid)?;
            core.notify(address, "encrypt", Jid::whatsapp_server(), |node| node.child(Node::new("digest")));
        }
        Fault::Delivery { jid, what, enc, id, every, count } => {
            let address = core.named(&jid)?;
            core.faults.delivery.add(address, Rule { what, enc, id, every, left: count, seen: 0 });
        }
        Fault::Mend { jid } => {
            let address = core.named(&jid)?;
            for entry in core.faults.delivery.clear(address) {
                routing::hand_over(core, address, entry);
            }
        }
        Fault::Acks { jid, chat, error, phash, refresh_lid, count } => {
            let address = core.named_companion(&jid)?;
            core.faults.acks.set(address, chat, AckRule { error, phash, refresh_lid, left: count });
        }
        Fault::DemandToken { jid, on } => {
            let number = core.named(&jid)?.number;
            let demanded_by = &mut core.tokens.demanded_by;
            let _ = if on { demanded_by.insert(number) } else { demanded_by.remove(&number) };
        }
        Fault::LoseNotices { jid, kind, count } => {
            let address = core.named_companion(&jid)?;
            core.faults.lose_notices(address, kind, count);
        }
        Fault::Ping { jid } => {
            let id = core.named_connection(&jid)?;
            stanza::ping(core, id);
        }
        Fault::Inject { jid, node } => {
            let id = core.named_connection(&jid)?;
            let plaintext = node.encode().map_err(|_| ControlError::Unencodable)?;
            core.send_plaintext(id, &plaintext);
        }
        Fault::InjectRaw { jid, plaintext } => {
            let id = core.named_connection(&jid)?;
            core.send_plaintext(id, &plaintext);
        }
    }
    Ok(())
}

/// Sends an `<ib>` to a device.
fn tell(core: &mut Core, jid: &Jid, content: Node) -> Result<(), ControlError> {
    let id = core.named_connection(jid)?;
    core.send(id, &stanza::ib(content));
    Ok(())
}
