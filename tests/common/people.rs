//! People whom the loopback server does not know: the test answers for the server, and decides what it says about them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module, and is a crate")]

use std::time::Duration;

use bytes::Bytes;
use wamd::{
    Jid,
    crypto::{KeyPair, PrivateKey, sha256, xeddsa},
    message::phash::phash,
    node::Node,
    proto::{
        Message as _,
        adv::{AdvDeviceIdentity, AdvKeyIndexList, AdvSignedDeviceIdentity, AdvSignedKeyIndexList},
    },
};
use wamd_loopback::Fault;

use crate::world::World;

/// A user, as the server tells of it.
#[derive(Clone)]
pub struct Person {
    pub pn: Jid,
    pub lid: Jid,
    /// Told with usync, or not yet.
    pub tells_lid: bool,
    pub raw_id: u32,
    /// Of the key-index list, unix seconds.
    pub timestamp: u64,
    /// Who signs the lists and the companions: the identity of the primary.
    pub primary: KeyPair,
    pub current_index: u32,
    pub valid_indexes: Vec<u32>,
    /// The ids that the server lists; the key index of a device is its id.
    pub devices: Vec<u16>,
    pub hosted: Vec<u16>,
    /// Sends a key-index list.
    pub signs: bool,
    /// Of every device.
    pub registration_id: u32,
    /// Distinguishes identities of the companions.
    pub generation: u8,
}

/// A key pair by name.
pub fn pair(name: &str) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes(sha256(&[name.as_bytes()])))
}

impl Person {
    pub fn new(number: &str, devices: impl IntoIterator<Item = u16>) -> Self {
        let devices: Vec<u16> = devices.into_iter().collect();
        let valid_indexes: Vec<u32> = devices.iter().filter(|id| **id != 0).map(|id| u32::from(*id)).collect();
        Self {
            pn: Jid::pn(number),
            lid: Jid::lid(format!("9{number}")),
            tells_lid: false,
            raw_id: 7,
            timestamp: 1_759_000_000,
            primary: pair(number),
            current_index: valid_indexes.iter().copied().max().unwrap_or(0),
            valid_indexes,
            devices,
            hosted: Vec::new(),
            signs: true,
            registration_id: 77,
            generation: 0,
        }
    }

    pub fn jid_of(&self, user: &Jid, id: u16) -> Jid {
        match (self.hosted.contains(&id), user.is_lid_family()) {
            (false, _) => user.with_device(id),
            (true, true) => Jid::new(user.user(), wamd::jid::Server::HostedLid).with_device(id),
            (true, false) => Jid::new(user.user(), wamd::jid::Server::Hosted).with_device(id),
        }
    }

    /// The server's hash of the list.
    pub fn hash(&self, user: &Jid) -> String {
        let jids: Vec<Jid> = self.devices.iter().map(|id| self.jid_of(user, *id)).collect();
        phash(&jids)
    }

    pub fn key_index_list(&self) -> Node {
        let details = AdvKeyIndexList {
            raw_id: Some(self.raw_id),
            timestamp: Some(self.timestamp),
            current_index: Some(self.current_index),
            valid_indexes: self.valid_indexes.clone(),
            account_type: None,
        };
        let details = details.encode_to_vec();
        let signature = xeddsa::sign_with(self.primary.private(), &[&[6, 2], &details], &[1; 64]);
        let list = AdvSignedKeyIndexList {
            details: Some(details.into()),
            account_signature: Some(Bytes::copy_from_slice(&signature)),
            account_signature_key: Some(Bytes::copy_from_slice(self.primary.public().as_bytes())),
        };
        Node::new("key-index-list").attr("ts", self.timestamp).bytes(list.encode_to_vec())
    }

    /// The user in the answer to usync.
    pub fn listed(&self, asked: &Jid) -> Node {
        let device = |id: &u16| {
            let node = Node::new("device").attr("id", *id).attr_opt("key-index", (*id != 0).then_some(*id));
            node.attr_opt("is_hosted", self.hosted.contains(id).then_some("true"))
        };
        let list = Node::new("device-list").attr("hash", self.hash(asked));
        let list = list.children(self.devices.iter().map(device));
        let devices = Node::new("devices").child(list).child_opt(self.signs.then(|| self.key_index_list()));
        let lid = self.tells_lid.then(|| Node::new("lid").attr("val", &self.lid));
        Node::new("user").attr("jid", asked).child(devices).child_opt(lid)
    }

    fn identity(&self, id: u16) -> KeyPair {
        match id {
            0 => self.primary.clone(),
            id => pair(&format!("{} {id} {}", self.pn, self.generation)),
        }
    }

    /// The bundle of a device.
    pub fn bundle(&self, jid: &Jid) -> Node {
        let id = jid.device();
        let identity = self.identity(id);
        let signed = pair(&format!("signed {} {id}", self.pn));
        let signature = xeddsa::sign_with(identity.private(), &[&signed.public().to_typed()], &[2; 64]);
        let number = |id: u32| Node::new("id").bytes(id.to_be_bytes()[1..].to_vec());
        let value = |pair: &KeyPair| Node::new("value").bytes(pair.public().as_bytes().to_vec());
        let skey = Node::new("skey").child(number(1)).child(value(&signed));
        let one_time = pair(&format!("one-time {} {id}", self.pn));
        Node::new("user")
            .attr("jid", jid)
            .child(Node::new("registration").bytes(self.registration_id.to_be_bytes().to_vec()))
            .child(Node::new("type").bytes(vec![5]))
            .child(Node::new("identity").bytes(identity.public().as_bytes().to_vec()))
            .child(Node::new("key").child(number(9)).child(value(&one_time)))
            .child(skey.child(Node::new("signature").bytes(signature.to_vec())))
            .child_opt((id != 0).then(|| Node::new("device-identity").bytes(self.proof(&identity, id))))
    }

    /// What shows that a companion is of this account.
    fn proof(&self, identity: &KeyPair, id: u16) -> Vec<u8> {
        let details = AdvDeviceIdentity {
            raw_id: Some(self.raw_id),
            timestamp: Some(self.timestamp),
            key_index: Some(id.into()),
            account_type: None,
            device_type: None,
        };
        let details = details.encode_to_vec();
        let account = self.primary.public().as_bytes();
        let by_account = [&[6, 0], &details[..], identity.public().as_bytes()];
        let by_account = xeddsa::sign_with(self.primary.private(), &by_account, &[3; 64]);
        let by_device = [&[6, 1], &details[..], identity.public().as_bytes(), account];
        let by_device = xeddsa::sign_with(identity.private(), &by_device, &[4; 64]);
        let signed = AdvSignedDeviceIdentity {
            details: Some(details.into()),
            account_signature_key: Some(Bytes::copy_from_slice(account)),
            account_signature: Some(Bytes::copy_from_slice(&by_account)),
            device_signature: Some(Bytes::copy_from_slice(&by_device)),
        };
        signed.encode_to_vec()
    }

    fn is(&self, jid: &Jid) -> bool {
        self.pn.same_account(jid) || self.lid.same_account(jid)
    }

    /// A notification about the devices: `what` is `add`, `remove` or `update`.
    pub fn change(&self, id: &str, what: &str, devices: &[u16]) -> Node {
        let device = |id: &u16| Node::new("device").attr("jid", self.jid_of(&self.pn, *id)).attr("key-index", *id);
        let change = Node::new(what.to_owned())
            .attr("device_hash", self.hash(&self.pn))
            .attr("device_lid_hash", self.hash(&self.lid))
            .children(devices.iter().map(device))
            .child_opt(self.signs.then(|| self.key_index_list()));
        Node::new("notification").attr("type", "devices").attr("from", &self.pn).attr("id", id).child(change)
    }
}

/// The server as this test plays it for one account.
pub struct Stage {
    pub world: World,
    /// The prekeys that alice has uploaded.
    pub upload: Node,
    pub people: Vec<Person>,
    /// Users asked for, question by question, each with the hash that was shown.
    pub asked: Vec<Vec<(Jid, Option<String>)>>,
    /// Devices whose bundles were asked for, question by question.
    pub fetched: Vec<Vec<Jid>>,
    /// Messages that left.
    pub sent: Vec<Node>,
    /// Answers usync with these instead.
    pub usync: Vec<Node>,
    /// Leaves questions unanswered.
    pub silent: bool,
    /// Bundles of these devices are somebody else's.
    pub forged: Vec<(Jid, Person)>,
}

impl Stage {
    /// `alice` is online, and the server does not answer her questions about people.
    pub fn new(people: Vec<Person>) -> Self {
        let mut world = World::new(&[]);
        world.add("alice", "15550000001", |config| config.device_list_age = LIST_AGE);
        world.link("alice");
        let upload = world.heard("alice").into_iter().find(|node| node.is("iq") && node.find_child("skey").is_some());
        world.forget();
        mute(&mut world);
        Self {
            world,
            upload: upload.expect("prekeys are uploaded"),
            people,
            asked: vec![],
            fetched: vec![],
            sent: vec![],
            usync: vec![],
            silent: false,
            forged: vec![],
        }
    }

    /// Something happens by which the connection goes and comes back.
    pub fn reconnects(&mut self, how: impl FnOnce(&mut World)) {
        how(&mut self.world);
        for _ in 0..10 {
            self.world.advance_secs(1);
            self.serve();
        }
        assert_eq!(self.world.state("alice"), "CONNECTED");
    }

    pub fn send(&mut self, to: &Jid, text: &str) {
        self.world.send_to("alice", to, text);
        self.serve();
    }

    pub fn arrives(&mut self, node: &Node) {
        self.world.stanza_arrives("alice", node);
        self.serve();
    }

    /// Answers everything that was asked, until nothing more is.
    pub fn serve(&mut self) {
        loop {
            let heard = self.world.heard("alice");
            let mut answers = Vec::new();
            for node in heard {
                if node.is("message") {
                    self.sent.push(node);
                } else if let Some(answer) = self.answer(&node) {
                    answers.push(answer);
                }
            }
            if self.silent {
                answers.retain(|answer| answer.find_child("count").is_some());
            }
            if answers.is_empty() {
                return;
            }
            for answer in answers {
                self.world.stanza_arrives("alice", &answer);
            }
        }
    }

    /// What the server answers to a question.
    pub fn answer(&mut self, node: &Node) -> Option<Node> {
        let id = node.attr_str("id").filter(|_| node.is("iq"))?.into_owned();
        let result = Node::new("iq").attr("from", Jid::whatsapp_server()).attr("id", id);
        if let Some(usync) = node.find_child("usync") {
            let users = usync.find_child("list")?.child_nodes();
            let users: Vec<_> = users
                .iter()
                .map(|user| {
                    let known = user.find_child("devices").and_then(|known| known.attr_str("device_hash"));
                    (user.attr_jid("jid").expect("a user"), known.map(|hash| hash.into_owned()))
                })
                .collect();
            self.asked.push(users.clone());
            if !self.usync.is_empty() {
                let answer = self.usync.remove(0);
                let kind = if answer.is("error") { "error" } else { "result" };
                return Some(result.attr("type", kind).child(answer));
            }
            let own = Person::own(&self.world);
            let answered = users.iter().filter_map(|(jid, known)| {
                let person = self.people.iter().find(|person| person.is(jid)).unwrap_or(&own);
                let same = known.as_ref() == Some(&person.hash(jid));
                (!same).then(|| person.listed(jid))
            });
            let list = Node::new("list").children(answered);
            return Some(result.attr("type", "result").child(Node::new("usync").child(list)));
        }
        if node.find_child("count").is_some() {
            return Some(result.attr("type", "result").child(Node::new("count").attr("value", 800)));
        }
        let asked = node.find_child("key")?.child_nodes();
        let asked: Vec<Jid> = asked.iter().map(|user| user.attr_jid("jid").expect("a device")).collect();
        let forged = |jid: &Jid| self.forged.iter().find(|(forged, _)| forged == jid).map(|(_, person)| person);
        let person = |jid: &Jid| forged(jid).or_else(|| self.people.iter().find(|person| person.is(jid)));
        let bundles = asked.iter().filter_map(|jid| Some(person(jid)?.bundle(jid))).collect::<Vec<_>>();
        self.fetched.push(asked);
        Some(result.attr("type", "result").child(Node::new("list").children(bundles)))
    }

    /// The devices that the messages since the last call are for, message by message, without those of alice.
    pub fn recipients(&mut self) -> Vec<Vec<Jid>> {
        let own = [self.world.jid("alice"), self.world.lid("alice")];
        let sent = std::mem::take(&mut self.sent);
        let of = |message: &Node| {
            let to = message.find_child("participants").expect("a fan-out").child_nodes().to_vec();
            let jids = to.iter().map(|to| to.attr_jid("jid").expect("a device"));
            jids.filter(|jid| !own.iter().any(|own| own.same_account(jid))).collect()
        };
        sent.iter().map(of).collect()
    }

    /// The users that were asked for since the last call, without alice.
    pub fn users_asked(&mut self) -> Vec<(Jid, Option<String>)> {
        let own = [self.world.jid("alice"), self.world.lid("alice")];
        let asked = std::mem::take(&mut self.asked).concat();
        asked.into_iter().filter(|(jid, _)| !own.contains(jid)).collect()
    }
}

/// The server of the loopback does not answer questions about people and keys.
fn mute(world: &mut World) {
    for xmlns in ["usync", "encrypt"] {
        let (jid, xmlns) = (world.device("alice"), xmlns.to_owned());
        world.fault(Fault::AnswerIq { jid, xmlns, code: None, backoff: None, count: u32::MAX });
    }
}

/// How long a device list is used in these worlds.
pub const LIST_AGE: Duration = Duration::from_secs(3_600);

impl Person {
    /// Alice herself: her device alone, and nobody who vouches for it.
    fn own(world: &World) -> Self {
        let pn = world.jid("alice");
        let lid = world.lid("alice");
        Self { pn, lid, signs: false, ..Self::new("0", [0]) }
    }
}
