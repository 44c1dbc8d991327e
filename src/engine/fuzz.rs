//! The fuzz target `message_stanza`: the whole receive path, on an account that knows a few people.
//!
//! ```text
//! script = stanza*                                everything absent reads as 0
//! stanza = sender place id flags count part*      see `Bench::stanza`
//! part   = kind argument*                         ciphertexts that are good, damaged or repeated, and what else may stand there
//! ```
//!
//! What must hold whatever arrives: no panic; a handler has all its records after a few rounds; a stanza gets exactly one
//! answer and at most one request to send again; nothing is told a second time when it comes twice more; keys stay short.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    Config,
    account::{Account, Linked},
    cache::Cache,
    keys, prekeys, receive,
    records::Value as _,
    retry,
    step::{Collected, Miss, Step},
};
use crate::{
    clock::Now,
    crypto::{KeyPair, Secret},
    jid::Jid,
    message::{
        build, padding,
        secret::bot::{bot_secret, seal_reply},
    },
    node::{Decoder, Node},
    proto::{Message as _, common, e2e, web},
    signal::{
        self, Address, Own, PreKeyBundle, PreKeyId, SignedPreKeyId,
        memory::MemorySignalStore,
        sender_key::{self, SenderKeyName, memory::MemorySenderKeyStore},
    },
    stanza::message::{InboundMessage, Own as OwnJids},
    store::{AccountId, Key},
};

/// Our own device.
const OWN: (&str, &str) = ("15550000001:2@s.whatsapp.net", "100000000000001:2@lid");
/// Devices that have a session with us: a friend by LID and by number, the own phone and companion, a hosted one, a bot.
const PEOPLE: [&str; 6] = [
    "200000000000002:3@lid",
    "15550000003@s.whatsapp.net",
    "100000000000001@lid",
    "100000000000001:5@lid",
    "200000000000002:99@hosted.lid",
    "867051314767696@bot",
];
/// Chats with many authors, and one without encryption.
const PLACES: [&str; 5] = [
    "120363000000000001@g.us",
    "120363000000000002@g.us",
    "status@broadcast",
    "1594499999@broadcast",
    "120363000000000009@newsletter",
];
/// When everything happens, unix seconds.
const NOW: u64 = 1_760_000_000;
/// Stanzas of one script.
const MAX_STANZAS: u32 = 24;
/// Rounds of loading that a handler may need.
const MAX_ROUNDS: u32 = 24;

/// Runs a script.
///
/// # Panics
/// When something does not hold that must, which is what the fuzzer looks for.
pub fn message_stanza(data: &[u8]) {
    static PREPARED: OnceLock<Bench> = OnceLock::new();
    let mut bench = PREPARED.get_or_init(Bench::new).clone();
    let (mut script, mut memory) = (Script(data), retry::Memory::default());
    for _ in 0..MAX_STANZAS {
        if script.0.is_empty() {
            return;
        }
        if let Some(node) = bench.stanza(&mut script) {
            bench.arrives(&mut memory, &node);
        }
    }
}

/// The bytes that decide.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = usize::from(self.byte()).checked_rem(of.len())?;
        of.get(at).copied()
    }

    /// A length byte and so many bytes, as far as they are there.
    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// A device of somebody.
#[derive(Clone)]
struct Person {
    jid: Jid,
    identity: KeyPair,
    sessions: MemorySignalStore,
    keys: MemorySenderKeyStore,
}

/// A linked account for bodies and tests inside the engine.
pub(super) fn linked_account(rng: &mut ChaCha20Rng, pn: &Jid, lid: &Jid) -> Account {
    let mut account = Account::generate(rng);
    account.linked = Some(Linked {
        pn: pn.clone(),
        lid: Some(lid.clone()),
        device_identity: Bytes::from_static(b"adv"),
        platform: String::new(),
        business_name: None,
    });
    account
}

/// The account with its records, and those who write to it.
#[derive(Clone)]
struct Bench {
    config: Config,
    account: Arc<Account>,
    records: BTreeMap<Key, Bytes>,
    people: Vec<Person>,
    /// Every `<enc>` so far.
    sealed: Vec<Node>,
    rng: ChaCha20Rng,
}

/// What a handler did.
struct Done {
    frames: Vec<Node>,
    receipts: usize,
    /// Names of the events about messages.
    told: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let account = linked_account(&mut rng, &jid(OWN.0), &jid(OWN.1));
        let mut bench = Self {
            config: Config::new(AccountId::new("bench")),
            account: Arc::new(account),
            records: BTreeMap::new(),
            people: Vec::new(),
            sealed: Vec::new(),
            rng,
        };
        let signed = &bench.account.signed_pre_key;
        let mut pair = BytesMut::new();
        signed.pair.write_to(&mut pair);
        bench.records.insert(keys::signed_pre_key(signed.id), pair.freeze());
        for name in PEOPLE {
            let pre_key = bench.step(&retry::Memory::default(), |step| Ok(prekeys::single(step)));
            let identity = KeyPair::generate(&mut bench.rng);
            let (account, mut sessions) = (&bench.account, MemorySignalStore::new());
            let bundle = PreKeyBundle {
                registration_id: account.registration_id,
                identity: *account.identity.public(),
                signed_pre_key_id: SignedPreKeyId(account.signed_pre_key.id),
                signed_pre_key: *account.signed_pre_key.pair.public(),
                signature: account.signed_pre_key.signature,
                pre_key: Some((PreKeyId(pre_key.0), *pre_key.1.public())),
            };
            let own = Own { identity: &identity, registration_id: 1 };
            let met = signal::establish(&mut sessions, &own, &peer(), &bundle, &mut bench.rng);
            assert!(met.is_ok(), "our own keys are good");
            bench.people.push(Person { jid: jid(name), identity, sessions, keys: MemorySenderKeyStore::new() });
        }
        bench
    }

    /// Runs a handler as the engine does, and keeps what it writes.
    fn step<T>(&mut self, memory: &retry::Memory, handler: impl Fn(&mut Step<'_>) -> Result<T, Miss>) -> T {
        let (value, collected) = self.run(memory, handler);
        self.keep(&collected);
        value
    }

    fn run<T>(&mut self, memory: &retry::Memory, handler: impl Fn(&mut Step<'_>) -> Result<T, Miss>) -> (T, Collected) {
        let mut cache = Cache::new(1 << 24);
        let mut rounds = 0;
        loop {
            let account = Arc::clone(&self.account);
            let mut step = Step::new(now(), &self.config, &mut self.rng, &mut cache, memory, account);
            match handler(&mut step) {
                Ok(value) => return (value, step.collect()),
                Err(Miss) => {
                    let missing = step.needs.missing;
                    rounds += 1;
                    assert!(!missing.is_empty() && rounds < MAX_ROUNDS, "a handler never has what it needs");
                    let load = |key: Key| (key.clone(), self.records.get(&key).cloned());
                    cache.fill(missing.into_iter().map(load).collect(), 0);
                }
            }
        }
    }

    fn keep(&mut self, collected: &Collected) {
        if let Some(account) = &collected.account {
            self.account = Arc::clone(account);
        }
        for (key, value) in &collected.overlay {
            assert!(key.id.len() <= 1_024, "{key:?} is long");
            match value {
                Some(value) => drop(self.records.insert(key.clone(), value.clone())),
                None => drop(self.records.remove(key)),
            }
        }
    }

    /// A stanza arrives, and twice more. What a sender with two identities says may be unreadable from the second time on, but
    /// that is told once as well.
    fn arrives(&mut self, memory: &mut retry::Memory, node: &Node) {
        let Ok(frame) = node.encode() else { return };
        let mut decoder = Decoder::default();
        let Ok(node) = decoder.decode(frame.into()) else { return };
        let (pn, lid) = (jid(OWN.0), jid(OWN.1));
        let own = OwnJids { pn: &pn, lid: Some(&lid) };
        let Ok(message) = InboundMessage::parse(node, &own) else { return };
        let mut unreadable = 0;
        for again in [false, true, true] {
            let done = self.handle(memory, &message);
            let is = |node: &&Node, tag: &str, kinds: &[&str]| {
                node.is(tag) && kinds.contains(&node.attr_str("type").as_deref().unwrap_or_default())
            };
            let acks = done.frames.iter().filter(|node| node.is("ack")).count();
            let confirmed = ["", "inactive", "sender", "peer_msg"];
            let confirmed = done.frames.iter().filter(|node| is(node, "receipt", &confirmed)).count();
            let retries = done.frames.iter().filter(|node| is(node, "receipt", &["retry"])).count();
            assert_eq!(acks + confirmed + done.receipts, 1, "one answer: {:?}", done.frames);
            assert!(retries <= acks, "one request, and then an ack: {:?}", done.frames);
            let (failed, told): (Vec<_>, Vec<_>) = done.told.iter().partition(|name| *name == "message.undecryptable");
            unreadable += failed.len();
            assert!(told.is_empty() || !again, "told a second time: {told:?}");
            assert!(unreadable <= 1, "told a second time that it is unreadable");
        }
    }

    fn handle(&mut self, memory: &mut retry::Memory, message: &InboundMessage) -> Done {
        let ((), collected) = self.run(memory, |step| receive::message(step, message));
        self.keep(&collected);
        let told = collected.events.iter().map(|emitted| emitted.event.name().to_owned());
        let told = told.filter(|name| name.starts_with("message.")).collect();
        let frames = collected.frames.into_iter().filter_map(|frame| Node::decode(frame).ok()).collect();
        for note in collected.notes {
            memory.note(now(), note);
        }
        Done { frames, receipts: collected.receipts.len(), told }
    }

    /// Puts a stanza together: who sends it, where, under which id, with which attributes, and its parts.
    fn stanza(&mut self, script: &mut Script<'_>) -> Option<Node> {
        let who = usize::from(script.byte()).checked_rem(PEOPLE.len())?;
        let (place, flags) = (script.byte(), u16::from_le_bytes([script.byte(), script.byte()]));
        let sender = self.people.get(who)?.jid.clone();
        let by_many = !place.is_multiple_of(3);
        let chat = if by_many { jid(one_of(&PLACES, place / 3)?) } else { sender.clone() };
        let id = id(script.byte());
        let mut node = Node::new("message").attr("id", &*id).attr("type", "text");
        node = node.attr("from", if by_many { &chat } else { &sender });
        let has = |at: u16, bit: u16| flags & (bit << (8 * at)) != 0;
        if by_many && !has(1, 1) {
            node = node.attr("participant", &sender);
        }
        let age = if has(0, 1) { 86_401 } else { u64::from(has(0, 2)) * 15 * 86_400 };
        node = node.attr("t", NOW - age);
        for (at, bit, name, value) in [
            (0, 4, "offline", "1"),
            (0, 8, "category", "peer"),
            (0, 16, "recipient", PEOPLE[0]),
            (0, 32, "sender_lid", "300000000000003@lid"),
            (0, 64, "participant_pn", "15550000002@s.whatsapp.net"),
            (0, 128, "edit", "8"),
            (1, 2, "sender_pn", "15550000002@s.whatsapp.net"),
            (1, 4, "participant_lid", OWN.1),
            (1, 8, "recipient", PLACES[3]),
            (1, 16, "server_id", "117"),
            (1, 32, "peer_recipient_pn", "15550000002@s.whatsapp.net"),
        ] {
            if has(at, bit) {
                node = match value.parse::<Jid>() {
                    Ok(value) => node.attr(name, &value),
                    Err(_) => node.attr(name, value),
                };
            }
        }
        for _ in 0..1 + script.byte() % 4 {
            node = node.children(self.part(script, who, &chat));
        }
        Some(node)
    }

    fn part(&mut self, script: &mut Script<'_>, who: usize, chat: &Jid) -> Option<Node> {
        let kind = script.byte();
        let part = match kind % 12 {
            0 | 1 => {
                let content = content(script, chat, self.people.get_mut(who)?);
                self.people.get_mut(who)?.seal(&content, &mut self.rng)
            }
            2 | 3 => {
                let content = content(script, chat, self.people.get_mut(who)?);
                self.people.get_mut(who)?.seal_for_all(chat, &content, &mut self.rng)?
            }
            4 => {
                let content = content(script, chat, self.people.get_mut(who)?);
                let asker = script.pick(&[OWN.1, OWN.0, PEOPLE[0]]).map(jid)?.to_bare();
                let secret = bot_secret(&Secret::new([script.byte() % 2; 32]));
                let made_with = id(script.byte());
                let bot = self.people.get(who)?.jid.clone();
                enc("msmsg", seal_reply(&secret, &made_with, &asker, &bot, &content, &mut self.rng))
            }
            5 => {
                let at = usize::from(script.byte()).checked_rem(self.sealed.len())?;
                self.sealed.get(at)?.clone()
            }
            6 => damaged(self.sealed.last()?, script)?,
            7 => {
                let kind = script.pick(&["msg", "pkmsg", "skmsg", "msmsg", "zzmsg"])?;
                enc(kind, script.bytes().to_vec())
            }
            8 => {
                let kinds = ["", "view_once", "view_once_unavailable_fanout", "hosted_unavailable_fanout", "new"];
                return Some(Node::new("unavailable").attr("type", script.pick(&kinds)?));
            }
            9 => {
                let content = content(script, chat, self.people.get_mut(who)?);
                return Some(Node::new("plaintext").bytes(content));
            }
            10 => {
                let to = Node::new("to").attr("jid", jid(script.pick(&[OWN.0, OWN.1, PEOPLE[0]])?));
                let to = to.attr("peer_recipient_pn", jid(PEOPLE[1]));
                return Some(Node::new("participants").child(to.children(self.sealed.last().cloned())));
            }
            _ => return Some(meta(script)),
        };
        self.sealed.push(part.clone());
        Some(part)
    }
}

impl Person {
    fn seal(&mut self, content: &[u8], rng: &mut ChaCha20Rng) -> Node {
        let mut padded = content.to_vec();
        padding::pad(&mut padded, rng);
        let own = Own { identity: &self.identity, registration_id: 1 };
        match signal::encrypt(&mut self.sessions, &own, &peer(), &padded, rng) {
            Ok(ciphertext) => enc(ciphertext.kind.as_str(), ciphertext.bytes),
            Err(_) => enc("msg", Vec::new()),
        }
    }

    fn seal_for_all(&mut self, chat: &Jid, content: &[u8], rng: &mut ChaCha20Rng) -> Option<Node> {
        let mut padded = content.to_vec();
        padding::pad(&mut padded, rng);
        sender_key::encrypt(&mut self.keys, &name(chat), &padded, rng).ok().map(|bytes| enc("skmsg", bytes))
    }

    /// The message that hands over the key for a chat.
    fn key_for(&mut self, chat: &Jid, rng: &mut ChaCha20Rng) -> e2e::Message {
        let Ok(key) = sender_key::distribute(&mut self.keys, &name(chat), rng);
        build::sender_key_distribution(chat, key.encode())
    }
}

/// A payload: something of every kind that the receive path looks into.
fn content(script: &mut Script<'_>, chat: &Jid, sender: &mut Person) -> Vec<u8> {
    let mut rng = ChaCha20Rng::from_seed([script.byte(); 32]);
    let kind = script.byte();
    let elsewhere = jid(one_of(&PLACES, kind / 16).unwrap_or_default());
    let protocol = |protocol: e2e::ProtocolMessage| e2e::Message {
        protocol_message: Some(Box::new(protocol)),
        ..e2e::Message::default()
    };
    let message = match kind % 12 {
        0 => build::text(script.text()),
        1 => {
            let secret = Bytes::copy_from_slice(&[script.byte() % 2; 32]);
            let context = e2e::MessageContextInfo { message_secret: Some(secret), ..Default::default() };
            e2e::Message { message_context_info: Some(Box::new(context)), ..build::text("with a secret") }
        }
        2 => sender.key_for(chat, &mut rng),
        3 => sender.key_for(&elsewhere, &mut rng),
        4 => e2e::Message { conversation: Some("with a key".to_owned()), ..sender.key_for(chat, &mut rng) },
        5 => build::device_sent(&elsewhere, build::text("copy")),
        6 => build::device_sent(chat, sender.key_for(chat, &mut rng)),
        7 => {
            let target = key(script, chat);
            let reaction = e2e::ReactionMessage { key: Some(Box::new(target)), ..Default::default() };
            e2e::Message { reaction_message: Some(Box::new(reaction)), ..Default::default() }
        }
        8 => protocol(e2e::ProtocolMessage {
            key: Some(Box::new(key(script, chat))),
            r#type: Some(i32::from(script.byte() % 40)),
            edited_message: Some(Box::new(build::text("edited"))),
            ..Default::default()
        }),
        9 => protocol(e2e::ProtocolMessage {
            history_sync_notification: Some(Box::default()),
            r#type: Some(5),
            ..Default::default()
        }),
        10 => protocol(answer(script, chat)),
        _ => return script.bytes().to_vec(),
    };
    message.encode_to_vec()
}

/// What the phone sends again.
fn answer(script: &mut Script<'_>, chat: &Jid) -> e2e::ProtocolMessage {
    use e2e::peer_data_operation_request_response_message::{
        PeerDataOperationResult, peer_data_operation_result::PlaceholderMessageResendResponse,
    };

    let results = (0..script.byte() % 4).map(|_| {
        let info = web::WebMessageInfo {
            key: Some(Box::new(key(script, chat))),
            message: Some(Box::new(build::text("again"))),
            ..Default::default()
        };
        let bytes = if script.byte().is_multiple_of(4) { script.bytes().to_vec() } else { info.encode_to_vec() };
        PeerDataOperationResult {
            placeholder_message_resend_response: Some(Box::new(PlaceholderMessageResendResponse {
                web_message_info_bytes: Some(bytes.into()),
            })),
            ..Default::default()
        }
    });
    let response = e2e::PeerDataOperationRequestResponseMessage {
        peer_data_operation_request_type: Some(4),
        peer_data_operation_result: results.collect(),
        ..Default::default()
    };
    e2e::ProtocolMessage {
        r#type: Some(17),
        peer_data_operation_request_response_message: Some(Box::new(response)),
        ..Default::default()
    }
}

fn key(script: &mut Script<'_>, chat: &Jid) -> common::MessageKey {
    let flags = script.byte();
    common::MessageKey {
        remote_jid: Some(if flags & 1 == 0 { chat.to_string() } else { PEOPLE[1].to_owned() }),
        from_me: Some(flags & 2 != 0),
        id: Some(id(flags >> 4)),
        participant: one_of(&PEOPLE, flags >> 3).filter(|_| flags & 4 != 0).map(str::to_owned),
    }
}

fn meta(script: &mut Script<'_>) -> Node {
    let flags = script.byte();
    if flags & 1 != 0 {
        let kind = script.pick(&["first", "inner", "last"]).unwrap_or_default();
        return Node::new("bot").attr("edit", kind).attr("edit_target_id", id(script.byte()));
    }
    let target = Node::new("meta").attr("target_id", id(script.byte()));
    let target = target.attr_opt("target_sender_jid", (flags & 2 != 0).then(|| jid(PEOPLE[0])).as_ref());
    target.attr_opt("target_chat_jid", (flags & 4 != 0).then(|| jid(PEOPLE[0])).as_ref())
}

fn one_of(names: &[&'static str], which: u8) -> Option<&'static str> {
    names.get(usize::from(which).checked_rem(names.len())?).copied()
}

/// One of a few message ids; one of them is longer than any that is taken.
fn id(which: u8) -> String {
    match which % 8 {
        7 => "L".repeat(129),
        n => format!("3EB0{n:016X}"),
    }
}

fn damaged(enc: &Node, script: &mut Script<'_>) -> Option<Node> {
    let mut bytes = enc.content_bytes()?.to_vec();
    let at = usize::from(script.byte()).checked_rem(bytes.len())?;
    *bytes.get_mut(at)? ^= script.byte().max(1);
    let kind = enc.attr_str("type")?.into_owned();
    Some(Node::new("enc").attr("v", "2").attr("type", kind).bytes(bytes))
}

fn enc(kind: &str, bytes: impl Into<Bytes>) -> Node {
    Node::new("enc").attr("v", "2").attr("type", kind).bytes(bytes)
}

fn name(chat: &Jid) -> SenderKeyName {
    SenderKeyName::new(&chat.to_string(), Address::new("self"))
}

fn peer() -> Address {
    Address::new("peer")
}

fn jid(text: &str) -> Jid {
    text.parse().unwrap_or_else(|_| Jid::whatsapp_server())
}

fn now() -> Now {
    Now { mono: Duration::from_secs(1), wall_ms: NOW * 1_000 }
}
