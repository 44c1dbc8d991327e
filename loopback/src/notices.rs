//! Changes of an account's devices: who is told, and the removal itself (spec 01 §6.12, spec 03 §4.9).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use wamd::crypto::{KeyPair, Rng as _, sha256};
use wamd::node::Node;

use crate::ConnId;
use crate::core::{Core, leaf};
use crate::directory::{Account, Address, Namespace};
use crate::group::Group;
use crate::stanza;

/// Tells everybody concerned that a companion was added. It stands in the directory already.
pub(crate) fn device_added(core: &mut Core, address: Address) {
    let key_index = core.directory.device(address).map(|device| device.key_index);
    tell(core, address, "add", key_index);
}

/// Unlinks a companion: ends its connection, forgets it, tells everybody concerned.
pub(crate) fn remove(core: &mut Core, _: ConnId, address: Address) {
    unlink(core, address);
}

/// See [`remove`].
pub(crate) fn unlink(core: &mut Core, address: Address) {
    if let Some(id) = core.connection_of(address) {
        core.send_last(id, &stanza::device_removed());
    }
    let Some(account) = core.directory.account_mut(address.number) else { return };
    let Some(device) = account.devices.remove(&address.device) else { return };
    forget(core, address);
    tell(core, address, "remove", Some(device.key_index));
}

/// An account registers again: its companions are gone, its phone has another identity, and its contacts hear of it
/// (spec 03 §4.9).
pub(crate) fn change_identity(core: &mut Core, number: u64) {
    let companions: Vec<Address> = core.directory.companions(number).collect();
    for companion in companions {
        unlink(core, companion);
    }
    forget(core, Address::phone(number));
    core.routed.forget(Address::phone(number));
    let Some(account) = core.directory.account_mut(number) else { return };
    account.identity = KeyPair::generate(&mut core.rng);
    account.raw_id = core.rng.next_u32() >> 1;
    account.phone.registered_again(&account.identity, &mut core.rng);
    tell_contacts(core, number, "encrypt", &Node::new("identity"));
}

/// The phones of an account and of its contacts forget a device.
fn forget(core: &mut Core, address: Address) {
    let Some(account) = core.directory.account(address.number) else { return };
    let phones: Vec<u64> = account.contacts.iter().copied().chain([address.number]).collect();
    for number in phones {
        if let Some(account) = core.directory.account_mut(number) {
            account.phone.forget(address);
        }
    }
}

/// The account's other companions get the whole list, the companions of its contacts the change.
fn tell(core: &mut Core, changed: Address, change: &str, key_index: Option<u32>) {
    let now = core.now.unix_seconds();
    let Some(account) = core.directory.account(changed.number) else { return };
    let pn = account.jid(Namespace::Pn, 0);
    let own: Vec<Address> = companions(account).filter(|address| *address != changed).collect();
    let list = account.device_list().map(|(id, index)| {
        Node::new("device").attr("jid", account.jid(Namespace::Pn, id)).attr_opt("key-index", index)
    });
    let list = Node::new("devices").attr("dhash", device_hash(account, Namespace::Pn)).children(list);
    let lid = (!account.lid_hidden).then(|| account.jid(Namespace::Lid, changed.device));
    let device = Node::new("device")
        .attr("jid", account.jid(Namespace::Pn, changed.device))
        .attr_opt("key-index", key_index)
        .attr_opt("lid", lid);
    let indexes = leaf("key-index-list", account.key_index_list(now)).attr("ts", now);
    let change = hashed(account, Node::new(change.to_owned())).child(device).child(indexes);

    for address in own {
        core.notify(address, "account_sync", pn.clone(), |node| node.child(list.clone()));
    }
    tell_contacts(core, changed.number, "devices", &change);
}

/// Tells the contacts of an account that its devices are others now, without saying which.
pub(crate) fn devices_updated(core: &mut Core, number: u64) {
    let Some(account) = core.directory.account(number) else { return };
    let update = hashed(account, Node::new("update")).attr("hash", device_hash(account, Namespace::Pn));
    tell_contacts(core, number, "devices", &update);
}

/// The hashes of an account's device list as they are now, by both names.
fn hashed(account: &Account, change: Node) -> Node {
    let lid_hash = (!account.lid_hidden).then(|| device_hash(account, Namespace::Lid));
    change.attr("device_hash", device_hash(account, Namespace::Pn)).attr_opt("device_lid_hash", lid_hash)
}

/// Queues a notification of an account for the companions of all that it exchanged messages with.
pub(crate) fn tell_contacts(core: &mut Core, number: u64, kind: &str, content: &Node) {
    let Some(account) = core.directory.account(number) else { return };
    let (pn, lid) = (account.jid(Namespace::Pn, 0), account.alias(Namespace::Lid));
    let contacts = account.contacts.iter().filter(|contact| **contact != number);
    let others: Vec<Address> = contacts.flat_map(|contact| core.directory.companions(*contact)).collect();
    for address in others {
        core.notify(address, kind, pn.clone(), |node| node.attr_opt("lid", lid.as_ref()).child(content.clone()));
    }
}

fn companions(account: &Account) -> impl Iterator<Item = Address> + '_ {
    account.devices.keys().map(|device| Address { number: account.number, device: *device })
}

/// The hash over a device list: `2:` and the start of a SHA-256 in Base64 (spec 03 §4.6).
pub(crate) fn device_hash(account: &Account, namespace: Namespace) -> String {
    let devices = account.device_list().map(|(id, _)| account.jid(namespace, id).ad_string());
    participant_hash(devices.collect())
}

/// The hash over the devices of a group's members, as its messages go to them.
pub(crate) fn group_hash(core: &Core, group: &Group) -> String {
    let devices = group.devices(core).into_iter();
    participant_hash(devices.map(|address| core.jid(address, group.mode).ad_string()).collect())
}

/// See [`device_hash`].
pub(crate) fn participant_hash(mut devices: Vec<String>) -> String {
    devices.sort_unstable();
    let hash = sha256(&[devices.concat().as_bytes()]);
    let start = hash.first_chunk::<6>().map_or(&hash[..], |start| &start[..]);
    format!("2:{}", STANDARD_NO_PAD.encode(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participant_hash_of_the_specification() {
        assert_eq!(participant_hash(vec!["5511999999999.0:3@s.whatsapp.net".to_owned()]), "2:5s+YxCff");
    }
}
