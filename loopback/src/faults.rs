//! The faults that are switched on. See [`Fault`](crate::Fault) for what each does.

use std::collections::BTreeMap;

use wamd::node::Node;

use crate::directory::Address;

/// The faults of the whole server and of each device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) forged_certificate: bool,
    devices: BTreeMap<Address, DeviceFaults>,
    refusals: BTreeMap<Address, Node>,
}

/// The faults of one device: switches, and how often each of the others still happens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceFaults {
    pub(crate) forge_prekey_signature: bool,
    pub(crate) mute: bool,
    pub(crate) tamper: u32,
    pub(crate) duplicate: u32,
    pub(crate) drop_ack: u32,
    pub(crate) fail_login: u32,
    pub(crate) failure: u16,
}

impl Faults {
    pub(crate) fn of(&self, address: Address) -> DeviceFaults {
        self.devices.get(&address).copied().unwrap_or_default()
    }

    pub(crate) fn of_mut(&mut self, address: Address) -> &mut DeviceFaults {
        self.devices.entry(address).or_default()
    }

    /// Answers the next login of a device with this stanza.
    pub(crate) fn refuse(&mut self, address: Address, node: Node) {
        self.refusals.insert(address, node);
    }

    /// What the login of a device is answered with, once.
    pub(crate) fn take_refusal(&mut self, address: Address) -> Option<Node> {
        self.refusals.remove(&address)
    }

    /// Counts one of the countdowns of a device down; false when it stands at 0.
    pub(crate) fn take(&mut self, address: Address, which: impl Fn(&mut DeviceFaults) -> &mut u32) -> bool {
        let Some(faults) = self.devices.get_mut(&address) else { return false };
        let left = which(faults);
        let due = *left > 0;
        *left = left.saturating_sub(1);
        due
    }
}
