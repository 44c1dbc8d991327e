//! What a companion does with sender keys: it writes to groups and audiences, and reads what others write there.

use wamd::jid::Jid;
use wamd::message::phash::phash;
use wamd::node::Node;
use wamd::proto::{Message as _, e2e};
use wamd::signal::sender_key::{self, SenderKeyName};
use wamd::signal::{SignalError, StepError};

use super::{Client, Device, World, iq, leaf, signal_address};

impl Device {
    /// `<enc>` with this device's sender key for a chat, for a device that there is a session with.
    pub fn distribute(&mut self, chat: &Jid, to: &Jid) -> Node {
        let name = sender_key_name(chat, &self.lid());
        let Ok(key) = sender_key::distribute(&mut self.sender_keys, &name, &mut self.rng);
        let key = e2e::SenderKeyDistributionMessage {
            group_id: Some(chat.to_string()),
            axolotl_sender_key_distribution_message: Some(key.encode().to_vec().into()),
        };
        let message = e2e::Message { sender_key_distribution_message: Some(Box::new(key)), ..e2e::Message::default() };
        self.encrypt_message(to, &message)
    }

    /// `<enc type="skmsg">` with a text. The sender key is made if there is none, and nobody has it then.
    pub fn encrypt_for_many(&mut self, chat: &Jid, text: &str) -> Node {
        let message = e2e::Message { conversation: Some(text.to_owned()), ..e2e::Message::default() };
        let mut plaintext = message.encode_to_vec();
        plaintext.push(1);
        let name = sender_key_name(chat, &self.lid());
        let Ok(_) = sender_key::distribute(&mut self.sender_keys, &name, &mut self.rng);
        let bytes = sender_key::encrypt(&mut self.sender_keys, &name, &plaintext, &mut self.rng).unwrap();
        Node::new("enc").attr("v", "2").attr("type", "skmsg").bytes(bytes)
    }

    /// A text for a group, with the sender key for these devices.
    pub fn group_message(&mut self, id: &str, group: &Jid, mode: &str, targets: &[Jid], text: &str) -> Node {
        let keys: Vec<Node> = targets.iter().map(|to| to_node(to, self.distribute(group, to))).collect();
        let body = self.encrypt_for_many(group, text);
        let participants = (!keys.is_empty()).then(|| Node::new("participants").children(keys));
        Node::new("message")
            .attr("to", group)
            .attr("id", id)
            .attr("type", "text")
            .attr("addressing_mode", mode)
            .child_opt(participants)
            .child(body)
            .child(leaf("device-identity", &self.device_identity))
    }

    /// Reads all that a message holds: the sender key for this device alone, then the text for all. Gives the text.
    pub fn read(&mut self, message: &Node) -> Result<String, SignalError> {
        let chat = message.attr_jid("from").unwrap();
        let author = message.attr_jid("participant").unwrap();
        let encs = |kind: &'static str| {
            let encs = message.child_nodes().iter().filter(|node| node.is("enc"));
            encs.filter(move |enc| (enc.attr_str("type").as_deref() == Some("skmsg")) == (kind == "skmsg"))
        };
        let mut text = None;
        for enc in encs("pairwise") {
            let alone = Node::new("message").attr("from", &author).child(enc.clone());
            let plain = self.decrypt(&alone)?;
            if let Some(key) = plain.sender_key_distribution_message {
                assert_eq!(key.group_id, Some(chat.to_string()));
                let bytes = key.axolotl_sender_key_distribution_message.unwrap();
                let name = sender_key_name(&chat, &author);
                sender_key::process(&mut self.sender_keys, &name, &bytes).unwrap();
            }
            text = text.or(plain.conversation);
        }
        for enc in encs("skmsg") {
            let bytes = enc.content_bytes().unwrap();
            let senders = [signal_address(&author)];
            match sender_key::decrypt(&mut self.sender_keys, &chat.to_string(), &senders, &bytes) {
                Ok(opened) => {
                    let padding = usize::from(*opened.plaintext.last().unwrap());
                    let plain = &opened.plaintext[..opened.plaintext.len() - padding];
                    let plain = e2e::Message::decode(plain).unwrap();
                    text = text.or(plain.conversation);
                }
                Err(StepError::Signal(error)) => return Err(error),
                Err(StepError::Miss(miss)) => match miss {},
            }
        }
        Ok(text.expect("a text"))
    }
}

impl World {
    /// Asks for something of a group, or of the server of groups. What has come before the answer stays to be looked at.
    pub fn group_iq(&mut self, client: &mut Client, device: &mut Device, kind: &str, to: &Jid, request: Node) -> Node {
        let id = device.id();
        self.send(client, &iq(kind, "w:g2").attr("to", to).attr("id", &id).child(request));
        self.pick(client, |node| node.is("iq") && node.attr_str("id").as_deref() == Some(&id[..]))
    }

    /// Takes the first stanza that fits; the others stay.
    pub fn pick(&mut self, client: &mut Client, fits: impl Fn(&Node) -> bool) -> Node {
        self.pump(client);
        let index = client.wire.nodes.iter().position(fits).expect("the stanza that is waited for");
        client.wire.nodes.remove(index).unwrap()
    }

    /// The next stanza, which is a notification of this type.
    pub fn expect_notice(&mut self, client: &mut Client, kind: &str) -> Node {
        let notice = self.expect(client, "notification");
        assert_eq!(notice.attr_str("type").as_deref(), Some(kind), "{notice:?}");
        notice
    }

    /// Everything that has come for the client.
    pub fn rest(&mut self, client: &mut Client) -> Vec<Node> {
        std::iter::from_fn(|| self.next(client)).collect()
    }
}

fn sender_key_name(chat: &Jid, sender: &Jid) -> SenderKeyName {
    SenderKeyName::new(&chat.to_string(), signal_address(sender))
}

/// An entry of `<participants>`.
pub fn to_node(jid: &Jid, enc: Node) -> Node {
    Node::new("to").attr("jid", jid).child(enc)
}

/// The hash over these devices.
pub fn hash(devices: &[Jid]) -> String {
    phash(devices)
}

/// Where requests go that are for no group.
pub fn group_server() -> Jid {
    "g.us".parse().unwrap()
}
