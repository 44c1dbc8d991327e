//! What goes wrong on purpose: switches and countdowns. See [`Fault`](crate::Fault) for what each does.

pub(crate) mod acks;
mod apply;
pub(crate) mod delivery;

use std::collections::BTreeMap;

use wamd::node::Node;

use crate::directory::Address;
use crate::fault::LinkStage;

pub(crate) use apply::apply;

/// The faults of the whole server and of each device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) forged_certificate: bool,
    devices: BTreeMap<Address, DeviceFaults>,
    refusals: BTreeMap<Address, Countdown<Node>>,
    registrations: Countdown<Node>,
    stages: BTreeMap<LinkStage, Countdown<Option<Refusal>>>,
    queries: BTreeMap<(Address, String), Countdown<Option<Refusal>>>,
    notices: BTreeMap<(Address, String), Countdown<()>>,
    pub(crate) delivery: delivery::Delivery,
    pub(crate) acks: acks::Acks,
}

/// The faults of one device: switches, and how often each of the others still happens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceFaults {
    pub(crate) forge_prekey_signature: bool,
    pub(crate) mute: bool,
    pub(crate) silence: bool,
    pub(crate) tamper: u32,
    pub(crate) duplicate: u32,
    pub(crate) drop_ack: u32,
    pub(crate) fail_login: u32,
    pub(crate) failure: u16,
    pub(crate) withhold_prekey: bool,
    pub(crate) refuse_bundle: u32,
    pub(crate) bundle_error: u16,
}

/// An error that a query is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    /// Seconds.
    pub(crate) backoff: Option<u32>,
}

/// What happens so often, and then no more.
#[derive(Clone, Debug)]
struct Countdown<T> {
    what: Option<T>,
    left: u32,
}

impl<T> Default for Countdown<T> {
    fn default() -> Self {
        Self { what: None, left: 0 }
    }
}

impl<T: Clone> Countdown<T> {
    const fn new(what: T, left: u32) -> Self {
        Self { what: Some(what), left }
    }

    fn take(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        self.what.clone()
    }
}

impl Faults {
    pub(crate) fn of(&self, address: Address) -> DeviceFaults {
        self.devices.get(&address).copied().unwrap_or_default()
    }

    pub(crate) fn of_mut(&mut self, address: Address) -> &mut DeviceFaults {
        self.devices.entry(address).or_default()
    }

    /// Answers the next logins of a device with this stanza.
    pub(crate) fn refuse(&mut self, address: Address, node: Node, count: u32) {
        self.refusals.insert(address, Countdown::new(node, count));
    }

    /// What the login of a device is answered with.
    pub(crate) fn take_refusal(&mut self, address: Address) -> Option<Node> {
        self.refusals.get_mut(&address)?.take()
    }

    /// Answers the next registrations with this stanza.
    pub(crate) fn refuse_registrations(&mut self, node: Node, count: u32) {
        self.registrations = Countdown::new(node, count);
    }

    /// What a registration is answered with.
    pub(crate) fn take_registration_refusal(&mut self) -> Option<Node> {
        self.registrations.take()
    }

    /// Answers the next queries of a stage of linking with this error, or not at all.
    pub(crate) fn refuse_stage(&mut self, stage: LinkStage, refusal: Option<Refusal>, count: u32) {
        self.stages.insert(stage, Countdown::new(refusal, count));
    }

    /// What a query of this stage is answered with; `Some(None)` is nothing at all.
    pub(crate) fn take_stage_refusal(&mut self, stage: LinkStage) -> Option<Option<Refusal>> {
        self.stages.get_mut(&stage)?.take()
    }

    /// Answers the next queries of a device in a namespace with this error, or not at all.
    pub(crate) fn refuse_queries(&mut self, address: Address, xmlns: String, refusal: Option<Refusal>, count: u32) {
        self.queries.insert((address, xmlns), Countdown::new(refusal, count));
    }

    /// What a query of a device is answered with; `Some(None)` is nothing at all.
    pub(crate) fn take_query_refusal(&mut self, address: Address, xmlns: &str) -> Option<Option<Refusal>> {
        if self.queries.is_empty() {
            return None;
        }
        self.queries.get_mut(&(address, xmlns.to_owned()))?.take()
    }

    /// Loses the next notifications of a type for a device.
    pub(crate) fn lose_notices(&mut self, address: Address, kind: String, count: u32) {
        self.notices.insert((address, kind), Countdown::new((), count));
    }

    /// Whether a notification is lost.
    pub(crate) fn takes_notice(&mut self, address: Address, kind: &str) -> bool {
        !self.notices.is_empty()
            && self.notices.get_mut(&(address, kind.to_owned())).is_some_and(|left| left.take().is_some())
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
