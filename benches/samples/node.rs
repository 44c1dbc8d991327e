//! The four stanzas that the benches of the node codec work on: as plain data, as our nodes, and written straight into a
//! buffer. `benches/node.rs` and `benches/peers` share this file.
//!
//! Numbers and keys are made up; shapes and sizes are those of real stanzas.

use wamd::jid::{Jid, Server};
use wamd::node::{Node, NodeWriter};

/// A server's ack of a message: 31 bytes.
pub(crate) struct Ack {
    pub(crate) id: &'static str,
    pub(crate) from: &'static str,
}

/// A message to one device: 1 KiB, most of it ciphertext.
pub(crate) struct Message {
    pub(crate) id: &'static str,
    pub(crate) from: &'static str,
    pub(crate) device: u16,
    pub(crate) notify: &'static str,
    pub(crate) t: &'static str,
    pub(crate) ciphertext: Vec<u8>,
}

/// The answer to a query for the devices of 500 users, three each.
pub(crate) struct Usync {
    pub(crate) id: &'static str,
    pub(crate) sid: &'static str,
    pub(crate) users: Vec<UsyncUser>,
}

pub(crate) struct UsyncUser {
    pub(crate) user: String,
    pub(crate) ts: String,
    pub(crate) devices: [String; 3],
    pub(crate) key_index: [String; 2],
    pub(crate) key_index_list: Vec<u8>,
}

/// The answer to a query for a group with 1,000 participants.
pub(crate) struct Group {
    pub(crate) id: &'static str,
    pub(crate) group: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) creation: &'static str,
    pub(crate) participants: Vec<Participant>,
}

pub(crate) struct Participant {
    pub(crate) lid: String,
    pub(crate) pn: String,
    pub(crate) admin: bool,
}

pub(crate) fn ack() -> Ack {
    Ack { id: "3EB0C767D71D7A7C5CB5", from: "5511987654321" }
}

pub(crate) fn message() -> Message {
    Message {
        id: "3EB0C767D71D7A7C5CB5",
        from: "5511987654321",
        device: 12,
        notify: "Maria da Silva",
        t: "1755873901",
        ciphertext: (0..954u32).map(|i| (i * 167 + 13) as u8).collect(),
    }
}

pub(crate) fn usync() -> Usync {
    let user = |number: u64| UsyncUser {
        user: format!("5511{:09}", 900_000_000 + number * 7_919),
        ts: format!("{}", 1_755_000_000 + number * 61),
        devices: ["0".into(), format!("{}", 1 + number % 40), format!("{}", 41 + number % 50)],
        key_index: [format!("{}", 1 + number % 20), format!("{}", 21 + number % 30)],
        key_index_list: (0..84).map(|i| (number * 31 + i * 131 + 7) as u8).collect(),
    };
    Usync { id: "26.61405-112", sid: "usync-26.61405-111", users: (0..500).map(user).collect() }
}

pub(crate) fn group() -> Group {
    let participant = |number: u64| Participant {
        lid: format!("{}", 100_000_000_000_000 + number * 87_178_291_199),
        pn: format!("5511{:09}", 900_000_000 + number * 7_919),
        admin: number.is_multiple_of(50),
    };
    Group {
        id: "26.61405-113",
        group: "120363041234567890",
        subject: "Condomínio Jardim das Flores",
        creation: "1700000000",
        participants: (0..1_000).map(participant).collect(),
    }
}

impl Ack {
    pub(crate) fn node(&self) -> Node {
        Node::new("ack").attr("class", "message").attr("id", self.id).attr("from", Jid::pn(self.from))
    }
}

impl Message {
    pub(crate) fn node(&self) -> Node {
        Node::new("message")
            .attr("from", Jid::pn(self.from).with_device(self.device))
            .attr("id", self.id)
            .attr("type", "text")
            .attr("t", self.t)
            .attr("notify", self.notify)
            .child(Node::new("enc").attr("v", "2").attr("type", "msg").bytes(self.ciphertext.clone()))
    }
}

impl Usync {
    pub(crate) fn node(&self) -> Node {
        let device = |id: &String, key_index: Option<&String>| {
            Node::new("device").attr("id", id).attr_opt("key-index", key_index)
        };
        let user = |user: &UsyncUser| {
            let [primary, first, second] = &user.devices;
            let [first_key, second_key] = &user.key_index;
            let devices = [device(primary, None), device(first, Some(first_key)), device(second, Some(second_key))];
            let keys = Node::new("key-index-list").attr("ts", &user.ts).bytes(user.key_index_list.clone());
            let devices = Node::new("devices").child(Node::new("device-list").children(devices)).child(keys);
            Node::new("user").attr("jid", Jid::pn(&user.user)).child(devices)
        };
        let usync = Node::new("usync")
            .attr("sid", self.sid)
            .attr("mode", "query")
            .attr("last", "true")
            .attr("index", "0")
            .attr("context", "message")
            .child(Node::new("result").child(Node::new("devices")))
            .child(Node::new("list").children(self.users.iter().map(user)));
        Node::new("iq").attr("from", Jid::whatsapp_server()).attr("id", self.id).attr("type", "result").child(usync)
    }
}

impl Group {
    pub(crate) fn node(&self) -> Node {
        let participant = |own: &Participant| {
            Node::new("participant")
                .attr("jid", Jid::lid(&own.lid))
                .attr("phone_number", Jid::pn(&own.pn))
                .attr_opt("type", own.admin.then_some("admin"))
        };
        let group = Node::new("group")
            .attr("id", self.group)
            .attr("creation", self.creation)
            .attr("subject", self.subject)
            .attr("addressing_mode", "lid")
            .children(self.participants.iter().map(participant));
        Node::new("iq")
            .attr("from", Jid::new(self.group, Server::Group))
            .attr("id", self.id)
            .attr("type", "result")
            .child(group)
    }
}

const GOOD: &str = "a node that encodes";

impl Ack {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        NodeWriter::frame(out, "ack", |ack| {
            ack.attr("class", "message").attr("id", self.id).attr("from", &Jid::pn(self.from));
        })
        .expect(GOOD);
    }
}

impl Message {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        NodeWriter::frame(out, "message", |message| {
            message
                .attr("from", &Jid::pn(self.from).with_device(self.device))
                .attr("id", self.id)
                .attr("type", "text")
                .attr("t", self.t)
                .attr("notify", self.notify)
                .child("enc", |enc| enc.attr("v", "2").attr("type", "msg").bytes(&self.ciphertext));
        })
        .expect(GOOD);
    }
}

impl Usync {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        NodeWriter::frame(out, "iq", |iq| {
            iq.attr("from", &Jid::whatsapp_server()).attr("id", self.id).attr("type", "result");
            iq.child("usync", |usync| {
                usync
                    .attr("sid", self.sid)
                    .attr("mode", "query")
                    .attr("last", "true")
                    .attr("index", "0")
                    .attr("context", "message")
                    .child("result", |result| {
                        result.child("devices", |_| {});
                    })
                    .child("list", |list| {
                        for user in &self.users {
                            list.child("user", |node| user.write(node));
                        }
                    });
            });
        })
        .expect(GOOD);
    }
}

impl UsyncUser {
    fn write(&self, node: &mut NodeWriter<'_>) {
        node.attr("jid", &Jid::pn(&self.user)).child("devices", |devices| {
            devices.child("device-list", |list| {
                let key_indexes = [None, self.key_index.first(), self.key_index.last()];
                for (id, key_index) in self.devices.iter().zip(key_indexes) {
                    list.child("device", |device| {
                        device.attr("id", id).attr_opt("key-index", key_index);
                    });
                }
            });
            devices.child("key-index-list", |keys| keys.attr("ts", &self.ts).bytes(&self.key_index_list));
        });
    }
}

impl Group {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        NodeWriter::frame(out, "iq", |iq| {
            let from = Jid::new(self.group, Server::Group);
            iq.attr("from", &from).attr("id", self.id).attr("type", "result").child("group", |group| {
                group
                    .attr("id", self.group)
                    .attr("creation", self.creation)
                    .attr("subject", self.subject)
                    .attr("addressing_mode", "lid");
                for own in &self.participants {
                    group.child("participant", |participant| {
                        participant
                            .attr("jid", &Jid::lid(&own.lid))
                            .attr("phone_number", &Jid::pn(&own.pn))
                            .attr_opt("type", own.admin.then_some("admin"));
                    });
                }
            });
        })
        .expect(GOOD);
    }
}
