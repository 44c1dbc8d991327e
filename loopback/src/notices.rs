//! Changes of an account's devices: who is told, and the removal itself (spec 01 §6.12, spec 03 §4.9).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use wamd::crypto::sha256;
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
    account.phone.forget(address);
    tell(core, address, "remove", Some(device.key_index));
}

/// The account's other companions get the whole list, the companions of its contacts the change.
fn tell(core: &mut Core, changed: Address, change: &str, key_index: Option<u32>) {
    let now = core.now.unix_seconds();
    let Some(account) = core.directory.account(changed.number) else { return };
    let (pn, lid) = (account.jid(Namespace::Pn, 0), account.jid(Namespace::Lid, 0));
    let own: Vec<Address> = companions(account).filter(|address| *address != changed).collect();
    let contacts = account.contacts.iter().filter(|number| **number != changed.number);
    let others: Vec<Address> =
        contacts.filter_map(|number| core.directory.account(*number)).flat_map(companions).collect();

    let list = account.device_list().map(|(id, index)| {
        Node::new("device").attr("jid", account.jid(Namespace::Pn, id)).attr_opt("key-index", index)
    });
    let list = Node::new("devices").attr("dhash", device_hash(account, Namespace::Pn)).children(list);
    let device = Node::new("device")
        .attr("jid", account.jid(Namespace::Pn, changed.device))
        .attr_opt("key-index", key_index)
        .attr("lid", account.jid(Namespace::Lid, changed.device));
    let indexes = leaf("key-index-list", account.key_index_list(now)).attr("ts", now);
    let change = Node::new(change)
        .attr("device_hash", device_hash(account, Namespace::Pn))
        .attr("device_lid_hash", device_hash(account, Namespace::Lid))
        .child(device)
        .child(indexes);

    for address in own {
        core.notify(address, "account_sync", pn.clone(), |node| node.child(list.clone()));
    }
    for address in others {
        core.notify(address, "devices", pn.clone(), |node| node.attr("lid", lid.clone()).child(change.clone()));
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
