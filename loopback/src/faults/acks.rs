//! What the server says about the messages of a device: errors, and more than there is to say.

use std::collections::BTreeMap;

use wamd::jid::Jid;

use crate::directory::Address;

/// How messages are acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AckRule {
    /// The message is refused with this code, and goes nowhere.
    pub(crate) error: Option<u16>,
    /// The server claims to mean other devices.
    pub(crate) phash: Option<String>,
    /// The LID of the chat is said to be stale.
    pub(crate) refresh_lid: bool,
    /// How often it still happens; `None` for ever.
    pub(crate) left: Option<u32>,
}

/// The rules of every device, for one chat or for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acks {
    rules: BTreeMap<(Address, Option<Jid>), AckRule>,
}

impl Acks {
    /// Sets the rule of a device for a chat, or for all chats. It replaces the former one; a rule that never happens ends it.
    pub(crate) fn set(&mut self, address: Address, chat: Option<Jid>, rule: AckRule) {
        let key = (address, chat.map(|chat| chat.to_bare()));
        if rule.left == Some(0) {
            self.rules.remove(&key);
        } else {
            self.rules.insert(key, rule);
        }
    }

    /// The rule for a message of a device, one for its chat first. `names` are all that the chat is called.
    pub(crate) fn take(&mut self, address: Address, names: &[Jid]) -> AckRule {
        if self.rules.is_empty() {
            return AckRule::default();
        }
        let keys = names.iter().cloned().map(Some).chain([None]).map(|chat| (address, chat));
        for key in keys {
            let Some(rule) = self.rules.get_mut(&key) else { continue };
            let taken = rule.clone();
            if let Some(left) = &mut rule.left {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.rules.remove(&key);
                }
            }
            return taken;
        }
        AckRule::default()
    }
}
