//! What must hold of every stanza that leaves an engine.

use bytes::Bytes;
use wamd::node::Node;
use wamd::signal::{
    sender_key::wire::SenderKeyMessage,
    wire::{PreKeyMessage, WhisperMessage},
};

use super::Sim;

impl Sim {
    /// Checks a stanza that left when so many batches were durable.
    pub(super) fn check_stanza(&mut self, account: usize, durable: u64, stanza: &Node) {
        self.trace(|sim| format!("{} sends {stanza:?}", sim.accounts[account].name));
        match stanza.tag() {
            "message" => {
                let enc = stanza.find_child("enc");
                if enc.is_none_or(|enc| enc.get_attr("count").is_none()) {
                    let id = stanza.attr_str("id").expect("an id").into_owned();
                    *self.times_sent.entry(id).or_default() += 1;
                }
                self.check_keys(account, durable, stanza);
            }
            "receipt" if stanza.attr_str("type").as_deref() == Some("retry") => self.count_retry(account, stanza),
            "receipt" if stanza.attr_str("type").as_deref() != Some("read") => self.check_event(account, stanza),
            _ => {}
        }
    }

    /// No message key makes two ciphertexts, and none leaves that a crash could let be taken again.
    fn check_keys(&mut self, account: usize, durable: u64, stanza: &Node) {
        let participants = stanza.find_child("participants");
        let addressed = participants.iter().flat_map(|all| all.child_nodes()).map(|to| (to, "jid"));
        // Encrypted for one device, or for a group.
        let target = if stanza.attr_jid("participant").is_some() { "participant" } else { "to" };
        for (node, target) in addressed.chain([(stanza, target)]) {
            let target = node.attr_jid(target).expect("a JID").to_string();
            for enc in node.child_nodes().iter().filter(|child| child.tag() == "enc") {
                let message = enc.content_bytes().expect("bytes");
                let (message, name, counter) = match enc.attr_str("type").as_deref() {
                    Some("skmsg") => {
                        let inner = SenderKeyMessage::decode(&message).expect("a skmsg");
                        (message.clone(), inner.id.0.to_be_bytes().to_vec(), inner.iteration)
                    }
                    kind => {
                        let message = match kind {
                            Some("pkmsg") => PreKeyMessage::decode(&message).expect("a pkmsg").message.to_vec(),
                            _ => message.to_vec(),
                        };
                        let inner = WhisperMessage::decode(&message).expect("a msg");
                        let (name, counter) = (inner.ratchet.as_bytes().to_vec(), inner.counter);
                        (Bytes::from(message), name, counter)
                    }
                };
                let who = &self.accounts[account];
                assert!(who.disk.is_passed(&name, counter, durable), "{} may use {name:?} {counter} again", who.name);
                let key = (account, target.clone(), name, counter);
                let before = self.keys.insert(key.clone(), message.clone());
                assert!(before.is_none_or(|before| before == message), "message key {key:?} was used twice");
            }
        }
    }

    /// The counters that an account sent with to a device or a group, in order of the keys' names.
    pub(crate) fn counters(&self, account: usize, target: &str) -> Vec<u32> {
        let of_target = |key: &&(usize, String, Vec<u8>, u32)| key.0 == account && key.1 == target;
        self.keys.keys().filter(of_target).map(|key| key.3).collect()
    }

    /// Nobody asks for one message more than five times.
    fn count_retry(&mut self, account: usize, stanza: &Node) {
        let id = stanza.attr_str("id").expect("an id").into_owned();
        let asked = stanza.attr_jid("participant").or_else(|| stanza.attr_jid("to")).expect("a device");
        let count = self.accounts[account].retries.entry((id, asked.to_string())).or_default();
        *count += 1;
    }

    /// A message is acknowledged only when its event is durable.
    fn check_event(&self, account: usize, stanza: &Node) {
        let id = stanza.attr_str("id").expect("an id").into_owned();
        let Some(sent) = self.sent.iter().find(|sent| sent.id == id) else { return };
        let account = &self.accounts[account];
        let event = if account.number == sent.number { "message.sent" } else { "message.received" };
        assert_eq!(account.disk.count(event, &id), 1, "{} acknowledged {id} without its event", account.name);
    }
}
