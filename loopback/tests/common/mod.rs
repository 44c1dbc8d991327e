//! A small client for the tests: the wire without I/O, a companion with real keys, and a world that joins clients and the
//! server machine in one thread.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module, and is a crate")]

pub mod many;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use wamd::clock::Now;
use wamd::crypto::{KeyPair, PublicKey, hmac_sha256, xeddsa};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::noise::frame::{self, FrameBuffer};
use wamd::noise::{CertificatePolicy, Handshake, HandshakeError, Protocol, Transport, VerifiedChain};
use wamd::proto::adv::{AdvDeviceIdentity, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac};
use wamd::proto::e2e;
use wamd::proto::wa6::ClientPayload;
use wamd::proto::wa6::client_payload::user_agent::AppVersion;
use wamd::proto::wa6::client_payload::{DevicePairingRegistrationData, UserAgent};
use wamd::signal::memory::MemorySignalStore;
use wamd::signal::sender_key::memory::MemorySenderKeyStore;
use wamd::signal::{
    self, CiphertextKind, Decrypted, Own, PreKeyBundle, PreKeyId, SignalError, SignedPreKeyId, StepError,
};
use wamd_loopback::{Config, ConnId, Input, Linked, Output, ScanOptions, Server};

/// One connection of a client, without I/O.
pub struct Wire {
    handshake: Option<Handshake>,
    transport: Option<Transport>,
    frames: FrameBuffer,
    wall_s: u64,
    /// Stanzas received and not looked at.
    pub nodes: VecDeque<Node>,
    /// How the handshake went, once it is over.
    pub outcome: Option<Result<Protocol, HandshakeError>>,
    /// The chain that the handshake brought.
    pub chain: Option<VerifiedChain>,
}

impl Wire {
    /// Starts a connection; the bytes are the first websocket message.
    pub fn start(
        noise: &KeyPair,
        rng: &mut ChaCha20Rng,
        payload: &ClientPayload,
        root: PublicKey,
        resume: Option<&VerifiedChain>,
        wall_s: u64,
    ) -> (Self, Bytes) {
        let policy = CertificatePolicy { roots: vec![root], check_validity: true };
        let (ephemeral, payload) = (KeyPair::generate(rng), payload.encode_to_vec());
        let (handshake, hello) = match resume {
            None => Handshake::xx(noise.clone(), ephemeral, payload, policy),
            Some(chain) => Handshake::ik(noise.clone(), ephemeral, chain, payload, policy).unwrap(),
        };
        let mut first = BytesMut::from(&frame::intro(Some(b"routing"))[..]);
        frame::encode(&hello, &mut first).unwrap();
        let wire = Self {
            handshake: Some(handshake),
            transport: None,
            frames: FrameBuffer::new(0xFF_FFFF),
            wall_s,
            nodes: VecDeque::new(),
            outcome: None,
            chain: None,
        };
        (wire, first.freeze())
    }

    /// Takes bytes from the server; gives what must be sent in return.
    pub fn receive(&mut self, bytes: &[u8]) -> Option<Bytes> {
        self.frames.push(bytes);
        let mut reply = None;
        while let Some(payload) = self.frames.next_frame().unwrap() {
            if let Some(handshake) = self.handshake.take() {
                match handshake.read_server_hello(&payload, self.wall_s) {
                    Ok(finished) => {
                        self.outcome = Some(Ok(finished.kind));
                        self.chain = finished.chain;
                        self.transport = Some(finished.transport);
                        reply = finished.client_finish.map(|finish| {
                            let mut framed = BytesMut::new();
                            frame::encode(&finish, &mut framed).unwrap();
                            framed.freeze()
                        });
                    }
                    Err(error) => self.outcome = Some(Err(error)),
                }
                continue;
            }
            let transport = self.transport.as_mut().expect("the handshake is over");
            let plaintext = transport.receiver.open(payload).expect("the server's frames are authentic");
            self.nodes.push_back(Node::decode(plaintext).expect("the server's stanzas decode"));
        }
        reply
    }

    /// Seals a stanza.
    pub fn seal(&mut self, node: &Node) -> Bytes {
        let mut framed = BytesMut::new();
        let transport = self.transport.as_mut().expect("the handshake is over");
        transport.sender.seal_into(&node.encode().unwrap(), &mut framed).unwrap();
        framed.freeze()
    }
}

/// Everything that a companion keeps.
pub struct Device {
    pub rng: ChaCha20Rng,
    pub noise: KeyPair,
    pub identity: KeyPair,
    signed_prekey: KeyPair,
    signature: [u8; 64],
    registration_id: u32,
    pub adv_secret: [u8; 32],
    pub store: MemorySignalStore,
    pub sender_keys: MemorySenderKeyStore,
    next_prekey: u32,
    pub chain: Option<VerifiedChain>,
    pub jid: Option<Jid>,
    pub lid: Option<Jid>,
    pub device_identity: Bytes,
    ids: u32,
}

impl Device {
    pub fn new(seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let (noise, identity) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let signed_prekey = KeyPair::generate(&mut rng);
        let signature = xeddsa::sign(identity.private(), &[&signed_prekey.public().to_typed()], &mut rng);
        let mut adv_secret = [0; 32];
        rng.fill_bytes(&mut adv_secret);
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(1), signed_prekey.clone());
        let registration_id = rng.next_u32() % 16_380 + 1;
        Self {
            rng,
            noise,
            identity,
            signed_prekey,
            signature,
            registration_id,
            adv_secret,
            store,
            sender_keys: MemorySenderKeyStore::new(),
            next_prekey: 1,
            chain: None,
            jid: None,
            lid: None,
            device_identity: Bytes::new(),
            ids: 0,
        }
    }

    pub fn jid(&self) -> Jid {
        self.jid.clone().expect("linked")
    }

    pub fn lid(&self) -> Jid {
        self.lid.clone().expect("linked")
    }

    pub fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:04X}.{}", self.registration_id, self.ids)
    }

    pub fn registration_payload(&self) -> ClientPayload {
        let bytes = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
        let data = DevicePairingRegistrationData {
            e_regid: bytes(&self.registration_id.to_be_bytes()),
            e_keytype: bytes(&[5]),
            e_ident: bytes(self.identity.public().as_bytes()),
            e_skey_id: bytes(&[0, 0, 1]),
            e_skey_val: bytes(self.signed_prekey.public().as_bytes()),
            e_skey_sig: bytes(&self.signature),
            build_hash: bytes(&[0; 16]),
            device_props: bytes(&[]),
        };
        ClientPayload {
            passive: Some(false),
            pull: Some(false),
            user_agent: Some(Box::new(user_agent())),
            device_pairing_data: Some(Box::new(data)),
            ..ClientPayload::default()
        }
    }

    pub fn login_payload(&self, passive: bool) -> ClientPayload {
        let jid = self.jid();
        ClientPayload {
            username: Some(jid.user().parse().unwrap()),
            device: Some(u32::from(jid.device())),
            passive: Some(passive),
            pull: Some(true),
            user_agent: Some(Box::new(user_agent())),
            ..ClientPayload::default()
        }
    }

    /// The text of the QR code for a ref.
    pub fn qr(&self, reference: &str) -> String {
        let key = |key: &[u8]| STANDARD.encode(key);
        format!(
            "https://wa.me/settings/linked_devices#{reference},{},{},{},1",
            key(self.noise.public().as_bytes()),
            key(self.identity.public().as_bytes()),
            key(&self.adv_secret)
        )
    }

    /// Checks a pair-success as a strict client does, and gives the answer: the identity or the error.
    pub fn answer_pair_success(&mut self, iq: &Node) -> Result<Node, &'static str> {
        let success = iq.find_child("pair-success").unwrap();
        let container = success.find_child("device-identity").unwrap().content_bytes().unwrap();
        let container = AdvSignedDeviceIdentityHmac::decode(container).unwrap();
        let details = container.details.unwrap();
        if hmac_sha256(&self.adv_secret, &[&details])[..] != container.hmac.unwrap()[..] {
            return Err("hmac-mismatch");
        }
        let mut signed = AdvSignedDeviceIdentity::decode(details).unwrap();
        let inner = signed.details.clone().unwrap();
        let account = PublicKey::from_slice(signed.account_signature_key.as_ref().unwrap()).unwrap();
        let identity = *self.identity.public();
        let message: [&[u8]; 3] = [&[6, 0], &inner, identity.as_bytes()];
        if xeddsa::verify(&account, &message, signed.account_signature.as_ref().unwrap()).is_err() {
            return Err("signature-mismatch");
        }
        let message: [&[u8]; 4] = [&[6, 1], &inner, identity.as_bytes(), account.as_bytes()];
        let signature = xeddsa::sign(self.identity.private(), &message, &mut self.rng);
        signed.device_signature = Some(Bytes::copy_from_slice(&signature));
        self.device_identity = signed.encode_to_vec().into();
        signed.account_signature_key = None;
        let device = success.find_child("device").unwrap();
        (self.jid, self.lid) = (device.attr_jid("jid"), device.attr_jid("lid"));
        let key_index = AdvDeviceIdentity::decode(inner).unwrap().key_index.unwrap();
        let identity = Node::new("device-identity").attr("key-index", key_index).bytes(signed.encode_to_vec());
        Ok(result(iq).child(Node::new("pair-device-sign").child(identity)))
    }

    /// An upload of `count` fresh one-time keys.
    pub fn upload(&mut self, count: u32) -> Node {
        let mut list = Vec::new();
        for _ in 0..count {
            let pair = KeyPair::generate(&mut self.rng);
            let id = Node::new("id").bytes(self.next_prekey.to_be_bytes()[1..].to_vec());
            list.push(Node::new("key").child(id).child(leaf("value", pair.public().as_bytes())));
            self.store.put_pre_key(PreKeyId(self.next_prekey), pair);
            self.next_prekey += 1;
        }
        let skey = Node::new("skey")
            .child(leaf("id", &[0, 0, 1]))
            .child(leaf("value", self.signed_prekey.public().as_bytes()))
            .child(leaf("signature", &self.signature));
        iq("set", "encrypt")
            .child(leaf("registration", &self.registration_id.to_be_bytes()))
            .child(leaf("type", &[5]))
            .child(leaf("identity", self.identity.public().as_bytes()))
            .child(Node::new("list").children(list))
            .child(skey)
    }

    /// Starts a session from a `<user>` of the answer to a key query.
    pub fn establish(&mut self, user: &Node) -> Result<(), SignalError> {
        let bytes = |node: &Node, tag: &str| node.find_child(tag).unwrap().content_bytes().unwrap();
        let id = |node: &Node| {
            let id = bytes(node, "id");
            u32::from_be_bytes([0, id[0], id[1], id[2]])
        };
        let key = |node: &Node| PublicKey::from_slice(&bytes(node, "value")).unwrap();
        let skey = user.find_child("skey").unwrap();
        let bundle = PreKeyBundle {
            registration_id: u32::from_be_bytes(bytes(user, "registration")[..].try_into().unwrap()),
            identity: PublicKey::from_slice(&bytes(user, "identity")).unwrap(),
            signed_pre_key_id: SignedPreKeyId(id(skey)),
            signed_pre_key: key(skey),
            signature: bytes(skey, "signature")[..].try_into().unwrap(),
            pre_key: user.find_child("key").map(|node| (PreKeyId(id(node)), key(node))),
        };
        let address = signal_address(&user.attr_jid("jid").unwrap());
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        match signal::establish(&mut self.store, &own, &address, &bundle, &mut self.rng) {
            Ok(_) => Ok(()),
            Err(StepError::Signal(error)) => Err(error),
            Err(StepError::Miss(miss)) => match miss {},
        }
    }

    /// `<enc>` with a text for a device that there is a session with.
    pub fn encrypt(&mut self, to: &Jid, text: &str) -> Node {
        let message = e2e::Message { conversation: Some(text.to_owned()), ..e2e::Message::default() };
        self.encrypt_message(to, &message)
    }

    pub fn encrypt_message(&mut self, to: &Jid, message: &e2e::Message) -> Node {
        let mut plaintext = message.encode_to_vec();
        plaintext.push(1);
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        let sealed = signal::encrypt(&mut self.store, &own, &signal_address(to), &plaintext, &mut self.rng).unwrap();
        Node::new("enc").attr("v", "2").attr("type", sealed.kind.as_str()).bytes(sealed.bytes)
    }

    /// Decrypts the `<enc>` of a message.
    pub fn decrypt(&mut self, message: &Node) -> Result<e2e::Message, SignalError> {
        let enc = message.find_child("enc").expect("an enc");
        let kind = match enc.attr_str("type").as_deref() {
            Some("pkmsg") => CiphertextKind::PreKey,
            _ => CiphertextKind::Whisper,
        };
        let bytes = enc.content_bytes().unwrap();
        let author = message.get_attr("participant").or_else(|| message.get_attr("from"));
        let from = signal_address(&author.unwrap().to_jid().unwrap());
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        match signal::decrypt(&mut self.store, &own, &from, kind, &bytes) {
            Ok(Decrypted { plaintext, .. }) => {
                let padding = usize::from(*plaintext.last().unwrap());
                Ok(e2e::Message::decode(&plaintext[..plaintext.len() - padding]).unwrap())
            }
            Err(StepError::Signal(error)) => Err(error),
            Err(StepError::Miss(miss)) => match miss {},
        }
    }
}

/// The machine, the clock, and the bytes between them and the clients.
pub struct World {
    pub server: Server,
    pub now: Now,
    connections: u64,
    inboxes: BTreeMap<ConnId, VecDeque<Bytes>>,
    closed: BTreeSet<ConnId>,
    /// Every output of the machine, in order.
    pub trace: Vec<Output>,
}

/// A client on a connection of a world.
pub struct Client {
    pub id: ConnId,
    pub wire: Wire,
}

impl World {
    pub fn new(config: Config, seed: u8) -> Self {
        Self {
            server: Server::new(config, [seed; 32]),
            now: Now { mono: Duration::from_secs(1), wall_ms: 1_700_000_000_000 },
            connections: 0,
            inboxes: BTreeMap::new(),
            closed: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    pub fn feed(&mut self, input: Input) {
        self.server.handle(self.now, input);
        self.drain();
    }

    /// Takes the machine's outputs.
    pub fn drain(&mut self) {
        while let Some(output) = self.server.poll() {
            match &output {
                Output::Send(id, bytes) => self.inboxes.entry(*id).or_default().push_back(bytes.clone()),
                Output::Close(id) => {
                    self.closed.insert(*id);
                }
            }
            self.trace.push(output);
        }
    }

    /// Lets time pass, with a tick at every deadline on the way.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now.mono + by;
        loop {
            let next = self.server.deadline().filter(|deadline| *deadline <= end).unwrap_or(end);
            let step = next.saturating_sub(self.now.mono);
            self.now.mono += step;
            self.now.wall_ms += u64::try_from(step.as_millis()).unwrap();
            self.feed(Input::Tick);
            if next == end {
                return;
            }
        }
    }

    /// Connects a device. The handshake is over when this returns.
    pub fn connect(&mut self, device: &mut Device, payload: &ClientPayload, resume: bool) -> Client {
        self.connections += 1;
        let id = ConnId(self.connections);
        let root = self.server.root_public_key();
        let chain = device.chain.clone().filter(|_| resume);
        let wall_s = self.now.unix_seconds();
        let (wire, first) = Wire::start(&device.noise, &mut device.rng, payload, root, chain.as_ref(), wall_s);
        self.feed(Input::Opened(id));
        // Single bytes: frames may be cut anywhere.
        for byte in first.chunks(1) {
            self.feed(Input::Bytes(id, Bytes::copy_from_slice(byte)));
        }
        let mut client = Client { id, wire };
        self.pump(&mut client);
        if let Some(chain) = &client.wire.chain {
            device.chain = Some(chain.clone());
        }
        client
    }

    /// Moves what the server has sent to the client, and the client's handshake answers back.
    pub fn pump(&mut self, client: &mut Client) {
        while let Some(bytes) = self.inboxes.entry(client.id).or_default().pop_front() {
            if let Some(reply) = client.wire.receive(&bytes) {
                self.feed(Input::Bytes(client.id, reply));
            }
        }
    }

    pub fn send(&mut self, client: &mut Client, node: &Node) {
        let bytes = client.wire.seal(node);
        self.feed(Input::Bytes(client.id, bytes));
    }

    /// The next stanza for the client.
    pub fn next(&mut self, client: &mut Client) -> Option<Node> {
        self.pump(client);
        client.wire.nodes.pop_front()
    }

    /// The next stanza, which has this tag.
    pub fn expect(&mut self, client: &mut Client, tag: &str) -> Node {
        let node = self.next(client).unwrap_or_else(|| panic!("{tag} expected, nothing came"));
        assert_eq!(node.tag(), tag, "{node:?}");
        node
    }

    /// Nothing more has come for the client.
    pub fn expect_silence(&mut self, client: &mut Client) {
        let next = self.next(client);
        assert!(next.is_none(), "{next:?}");
    }

    /// Sends a query and takes its answer, which must be the next iq.
    pub fn ask(&mut self, client: &mut Client, device: &mut Device, query: Node) -> Node {
        let id = device.id();
        self.send(client, &query.attr("id", &id));
        let answer = self.expect(client, "iq");
        assert_eq!(answer.attr_str("id").as_deref(), Some(&id[..]));
        answer
    }

    pub fn is_closed(&self, client: &Client) -> bool {
        self.closed.contains(&client.id)
    }

    pub fn close(&mut self, client: &Client) {
        self.feed(Input::Closed(client.id));
    }

    /// Connects for linking; gives the first ref.
    pub fn begin_link(&mut self, device: &mut Device) -> (Client, Vec<String>) {
        let payload = device.registration_payload();
        let mut client = self.connect(device, &payload, false);
        let iq = self.expect(&mut client, "iq");
        let refs = iq.find_child("pair-device").expect("pair-device").child_nodes();
        let refs = refs.iter().map(|one| String::from_utf8(one.content_bytes().unwrap().to_vec()).unwrap());
        let refs: Vec<String> = refs.collect();
        self.send(&mut client, &result(&iq));
        (client, refs)
    }

    /// Links a device to an account.
    pub fn link(&mut self, device: &mut Device, number: &str) -> Linked {
        let (mut client, refs) = self.begin_link(device);
        let linked = self.server.scan(self.now, number, &device.qr(&refs[0]), &ScanOptions::default()).unwrap();
        self.drain();
        let success = self.expect(&mut client, "iq");
        let answer = device.answer_pair_success(&success).unwrap();
        self.send(&mut client, &answer);
        let error = self.expect(&mut client, "stream:error");
        assert_eq!(error.attr_u64("code"), Some(515));
        assert!(!self.is_closed(&client), "the client has time to read it");
        self.advance(Duration::from_millis(200));
        assert!(self.is_closed(&client));
        linked
    }

    /// Logs a device in, up to the edge-routing info.
    pub fn login(&mut self, device: &mut Device, passive: bool) -> Client {
        let payload = device.login_payload(passive);
        let mut client = self.connect(device, &payload, false);
        let success = self.expect(&mut client, "success");
        assert_eq!(success.attr_jid("lid"), device.lid);
        assert_eq!(success.attr_u64("t"), Some(self.now.unix_seconds()));
        assert!(self.expect(&mut client, "ib").find_child("edge_routing").is_some());
        client
    }

    /// Takes the backlog that follows now.
    pub fn backlog(&mut self, client: &mut Client) -> Vec<Node> {
        assert!(self.expect(client, "ib").find_child("offline_preview").is_some());
        let mut backlog = Vec::new();
        loop {
            let node = self.next(client).expect("the end of the backlog");
            if node.is("ib") {
                let end = node.find_child("offline").expect("offline");
                assert_eq!(end.attr_u64("count"), Some(backlog.len() as u64));
                return backlog;
            }
            assert!(node.attr_u64("offline").is_some(), "{node:?}");
            backlog.push(node);
        }
    }

    /// Logs in, uploads keys, becomes active and takes the app state keys: a device ready for messages.
    pub fn ready(&mut self, device: &mut Device, number: &str) -> Client {
        self.link(device, number);
        let mut client = self.login(device, true);
        let upload = device.upload(30);
        assert_eq!(self.ask(&mut client, device, upload).attr_str("type").as_deref(), Some("result"));
        self.ask(&mut client, device, iq("set", "passive").child(Node::new("active")));
        let backlog = self.backlog(&mut client);
        assert!(backlog.is_empty(), "{backlog:?}");
        let share = self.expect(&mut client, "message");
        assert_eq!(share.attr_str("category").as_deref(), Some("peer"));
        let keys = device.decrypt(&share).unwrap().protocol_message.unwrap().app_state_sync_key_share.unwrap();
        assert_eq!(keys.keys.len(), 1);
        self.send(&mut client, &receipt(&share, Some("peer_msg")));
        self.expect(&mut client, "ack");
        client
    }

    /// Opens a session of `device` with `to`.
    pub fn open_session(&mut self, client: &mut Client, device: &mut Device, to: &Jid) {
        let query = iq("get", "encrypt").child(Node::new("key").child(Node::new("user").attr("jid", to)));
        let answer = self.ask(client, device, query);
        let user = answer.find_child("list").unwrap().find_child("user").unwrap().clone();
        device.establish(&user).unwrap();
    }
}

pub fn iq(kind: &str, namespace: &str) -> Node {
    Node::new("iq").attr("to", Jid::whatsapp_server()).attr("type", kind).attr("xmlns", namespace)
}

pub fn result(iq: &Node) -> Node {
    Node::new("iq").attr("to", Jid::whatsapp_server()).attr("type", "result").attr_opt("id", iq.get_attr("id"))
}

pub fn leaf(tag: &str, bytes: &[u8]) -> Node {
    Node::new(tag).bytes(bytes.to_vec())
}

/// The receipt for a message.
pub fn receipt(message: &Node, kind: Option<&str>) -> Node {
    Node::new("receipt")
        .attr_opt("id", message.get_attr("id"))
        .attr_opt("to", message.get_attr("from"))
        .attr_opt("participant", message.get_attr("participant"))
        .attr_opt("type", kind)
        .attr_opt("recipient", message.get_attr("recipient"))
}

/// The ack for a stanza.
pub fn ack(stanza: &Node) -> Node {
    Node::new("ack")
        .attr("class", stanza.tag())
        .attr_opt("id", stanza.get_attr("id"))
        .attr_opt("to", stanza.get_attr("from"))
        .attr_opt("participant", stanza.get_attr("participant"))
        .attr_opt("type", stanza.get_attr("type"))
}

/// A message with ciphertexts for several devices.
pub fn fan_out(id: &str, to: &Jid, copies: Vec<(Jid, Node)>, device: &Device) -> Node {
    let targets = copies.into_iter().map(|(jid, enc)| Node::new("to").attr("jid", jid).child(enc));
    Node::new("message")
        .attr("to", to)
        .attr("id", id)
        .attr("type", "text")
        .child(Node::new("participants").children(targets))
        .child(leaf("device-identity", &device.device_identity))
}

fn user_agent() -> UserAgent {
    let version =
        AppVersion { primary: Some(2), secondary: Some(3000), tertiary: Some(1_045_649_367), ..Default::default() };
    UserAgent { app_version: Some(Box::new(version)), ..UserAgent::default() }
}

fn signal_address(jid: &Jid) -> signal::Address {
    signal::Address::new(&jid.to_string())
}
