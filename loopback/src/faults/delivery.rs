//! What goes wrong with messages on their way to a device: ciphertexts lost, spoiled or replaced, messages twice, late, or in
//! another order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use wamd::node::{Node, NodeContent};

use crate::directory::Address;
use crate::queue::Entry;

/// What happens to a message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Damage {
    /// The ciphertexts are left out.
    Drop,
    /// One bit of each ciphertext is changed.
    Corrupt,
    /// `<unavailable/>` stands in the place of all ciphertexts.
    Unavailable {
        /// Its `type`.
        #[serde(default)]
        kind: Option<String>,
    },
    /// The message comes twice.
    Duplicate,
    /// The message comes later.
    Delay {
        /// By so many milliseconds.
        ms: u64,
    },
    /// The message comes after others.
    Behind {
        /// After so many.
        messages: u32,
    },
}

/// Which ciphertexts of a message are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncKind {
    /// `pkmsg` and `msg`: for the device alone.
    Pairwise,
    /// `skmsg`: for many.
    SenderKey,
    /// The pairwise one beside an `skmsg`: it brings the sender key.
    Distribution,
}

/// When it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) what: Damage,
    pub(crate) enc: Option<EncKind>,
    pub(crate) id: Option<String>,
    pub(crate) every: u32,
    /// How often it still happens; `None` for ever.
    pub(crate) left: Option<u32>,
    /// Messages that it could have happened to.
    pub(crate) seen: u32,
}

/// How a message goes on after the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) twice: bool,
    pub(crate) delay: Duration,
    pub(crate) behind: u32,
}

/// The rules of every device, and the messages that wait for others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    rules: BTreeMap<Address, Vec<Rule>>,
    waiting: BTreeMap<Address, Vec<(u32, Entry)>>,
}

impl Delivery {
    pub(crate) fn add(&mut self, address: Address, rule: Rule) {
        self.rules.entry(address).or_default().push(rule);
    }

    /// Ends all rules of a device; gives the messages that wait.
    pub(crate) fn clear(&mut self, address: Address) -> Vec<Entry> {
        self.rules.remove(&address);
        self.waiting.remove(&address).unwrap_or_default().into_iter().map(|(_, entry)| entry).collect()
    }

    /// Applies the rules of a device to a message for it.
    pub(crate) fn apply(&mut self, address: Address, entry: &mut Entry) -> Fate {
        let mut fate = Fate::default();
        for rule in self.rules.get_mut(&address).into_iter().flatten() {
            if rule.is_due(entry) {
                rule.carry_out(&mut entry.node, &mut fate);
            }
        }
        fate
    }

    /// Keeps a message back until so many others were delivered.
    pub(crate) fn hold(&mut self, address: Address, behind: u32, entry: Entry) {
        self.waiting.entry(address).or_default().push((behind, entry));
    }

    /// Notes that a message was delivered; gives those that waited for it.
    pub(crate) fn delivered(&mut self, address: Address) -> Vec<Entry> {
        let Some(waiting) = self.waiting.get_mut(&address) else { return Vec::new() };
        waiting.iter_mut().for_each(|(behind, _)| *behind = behind.saturating_sub(1));
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(waiting).into_iter().partition(|(behind, _)| *behind == 0);
        *waiting = rest;
        due.into_iter().map(|(_, entry)| entry).collect()
    }
}

impl Rule {
    /// Counts a message that the rule is about; true when it is its turn.
    fn is_due(&mut self, entry: &Entry) -> bool {
        let is_meant = self.id.as_ref().is_none_or(|id| *id == entry.id)
            && (self.enc != Some(EncKind::Distribution) || has_sender_key(&entry.node))
            && (self.enc.is_none() || entry.node.child_nodes().iter().any(|node| self.means(node)));
        if !is_meant {
            return false;
        }
        self.seen = self.seen.wrapping_add(1);
        if !self.seen.is_multiple_of(self.every.max(1)) {
            return false;
        }
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left = left.saturating_sub(1);
                true
            }
        }
    }

    /// Whether a node of a message that the rule is about is a ciphertext that it is about.
    fn means(&self, node: &Node) -> bool {
        let is_shared = node.attr_str("type").as_deref() == Some("skmsg");
        node.is("enc") && self.enc.is_none_or(|wanted| (wanted == EncKind::SenderKey) == is_shared)
    }

    fn carry_out(&self, node: &mut Node, fate: &mut Fate) {
        match &self.what {
            Damage::Drop => retain(node, |child| !self.means(child)),
            Damage::Corrupt => corrupt(node, |child| self.means(child)),
            Damage::Unavailable { kind } => {
                retain(node, |child| !child.is("enc"));
                let unavailable = Node::new("unavailable").attr_opt("type", kind.as_ref());
                *node = std::mem::replace(node, Node::new("")).child(unavailable);
            }
            Damage::Duplicate => fate.twice = true,
            Damage::Delay { ms } => fate.delay = fate.delay.saturating_add(Duration::from_millis(*ms)),
            Damage::Behind { messages } => fate.behind = fate.behind.max(*messages),
        }
    }
}

fn has_sender_key(message: &Node) -> bool {
    message.child_nodes().iter().any(|node| node.is("enc") && node.attr_str("type").as_deref() == Some("skmsg"))
}

fn retain(node: &mut Node, keep: impl Fn(&Node) -> bool) {
    if let NodeContent::Nodes(children) = &mut node.content {
        children.retain(|child| keep(child));
    }
}

/// Changes one bit of the ciphertexts that are meant. A message ends with its MAC, a prekey message with two short ids after
/// it; this far from the end is what the MAC covers, or the MAC itself, in both. A group message ends with its signature.
pub(crate) fn corrupt(node: &mut Node, means: impl Fn(&Node) -> bool) {
    const FROM_END: usize = 12;
    let NodeContent::Nodes(children) = &mut node.content else { return };
    for child in children.iter_mut().filter(|child| means(child)) {
        let NodeContent::Bytes(bytes) = &mut child.content else { continue };
        let mut changed = bytes.to_vec();
        if let Some(byte) = changed.iter_mut().nth_back(FROM_END) {
            *byte ^= 1;
        }
        *bytes = changed.into();
    }
}
