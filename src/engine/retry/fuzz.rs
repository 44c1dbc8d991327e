//! The fuzz target `retry_receipt`: everything that a request to send again leads to, on an account that has sent to a friend,
//! to a group and as a status.
//!
//! ```text
//! script  = receipt*                                everything absent reads as 0
//! receipt = time chat asker count registration keys ids answers       see `Bench::receipt`
//! ```
//!
//! What must hold whatever is asked: no panic; a handler has its records after a few rounds, and its answers after a few
//! questions; one ack; nothing for strangers, for nobody more than asked for, and no message to a device too often; no message
//! key is used twice; what goes out in the session that the friend has is read by the friend, and says what was sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    Memory,
    asked::{Asked, Outcome, resend},
};
use crate::{
    clock::Now,
    crypto::{KeyPair, xeddsa},
    engine::{
        Config,
        account::Account,
        address,
        cache::Cache,
        fuzz::linked_account,
        groups,
        records::{DeviceListRecord, DeviceRecord, Record, SentRecord},
        send::{self, marks, sent_key},
        step::{Collected, Miss, Step},
    },
    event::MappingSource,
    jid::Jid,
    message::{build, padding},
    node::{Decoder, Node},
    proto::Message as _,
    signal::{
        self, Address, CiphertextKind, Own, PreKeyBundle, PreKeyId, SignedPreKeyId, memory::MemorySignalStore,
        sender_key, wire,
    },
    stanza::{ack::AckTarget, group_notice::GroupNotice, iq::prekeys::FetchedBundle, receipt::InboundReceipt},
    store::{AccountId, Key, RecordKind},
};

/// Our own device.
const OWN: (&str, &str) = ("15550000001:2@s.whatsapp.net", "100000000000001:2@lid");
/// Who may ask: the friend's companion by both names, its phone, a device of it that is not listed, our own phone, this
/// device, a stranger by both names.
const ASKERS: [&str; 8] = [
    "200000000000002:3@lid",
    "15550000002:3@s.whatsapp.net",
    "200000000000002@lid",
    "200000000000002:77@lid",
    "100000000000001@lid",
    OWN.1,
    "300000000000003@lid",
    "15550000003@s.whatsapp.net",
];
const FRIEND: &str = "200000000000002@lid";
const GROUP: &str = "120363000000000001@g.us";
const STATUS: &str = "status@broadcast";
/// Chats that messages were sent to, and one that none was.
const CHATS: [&str; 4] = [FRIEND, GROUP, STATUS, "120363000000000002@g.us"];
/// Messages that were sent to each, and one that was not.
const IDS: [&str; 4] = ["3EB0A", "3EB0B", "3EB0C", "NEVER"];
/// Registration ids of everybody.
const REGISTRATION: u32 = 7;
/// Receipts of one script.
const MAX_RECEIPTS: u32 = 32;
/// Rounds of loading, and questions, that a request may need.
const MAX_ROUNDS: u32 = 24;

/// Runs a script.
///
/// # Panics
/// When something does not hold that must, which is what the fuzzer looks for.
pub fn retry_receipt(data: &[u8]) {
    static PREPARED: OnceLock<Bench> = OnceLock::new();
    let (mut bench, mut script) = (PREPARED.get_or_init(Bench::new).clone(), Script(data));
    for _ in 0..MAX_RECEIPTS {
        if script.0.is_empty() {
            return;
        }
        bench.receipt(&mut script);
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

    fn pick<T: Copy + Default>(&mut self, of: &[T]) -> T {
        let at = usize::from(self.byte()).checked_rem(of.len()).unwrap_or(0);
        of.get(at).copied().unwrap_or_default()
    }

    /// A length byte and so many bytes, as far as they are there.
    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }
}

/// The account with its records, and its friend.
#[derive(Clone)]
struct Bench {
    config: Config,
    account: Arc<Account>,
    memory: Arc<Memory>,
    records: BTreeMap<Key, Bytes>,
    /// Of every device that is not made up.
    identity: KeyPair,
    signed: KeyPair,
    pre_key: KeyPair,
    /// The sessions of the friend's companion.
    sessions: MemorySignalStore,
    /// It has no session any more that we have, too.
    lost: bool,
    /// Chain and counter of every message that left.
    used: BTreeSet<(String, Vec<u8>, u32)>,
    served: BTreeMap<(String, String), u32>,
    seconds: u64,
    rng: ChaCha20Rng,
}

impl Bench {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let account = linked_account(&mut rng, &jid(OWN.0), &jid(OWN.1));
        let (identity, signed, pre_key) =
            (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let mut sessions = MemorySignalStore::new();
        sessions.put_signed_pre_key(SignedPreKeyId(1), signed.clone());
        sessions.put_pre_key(PreKeyId(1), pre_key.clone());
        let mut bench = Self {
            config: Config::new(AccountId::new("bench")),
            account: Arc::new(account),
            memory: Arc::default(),
            records: BTreeMap::new(),
            identity,
            signed,
            pre_key,
            sessions,
            lost: false,
            used: BTreeSet::new(),
            served: BTreeMap::new(),
            seconds: 0,
            rng,
        };
        let friend = jid(FRIEND);
        bench.step(|step| address::learn(step, &friend, &jid("15550000002@s.whatsapp.net"), MappingSource::Usync));
        for (user, list) in [(FRIEND, vec![0, 3]), ("100000000000001@lid", vec![0, 2])] {
            let devices = list.into_iter().map(|id| DeviceRecord { id, ..DeviceRecord::default() }).collect();
            let record = DeviceListRecord { devices, fetched: u64::MAX, ..DeviceListRecord::default() };
            bench.records.insert(Key::new(RecordKind::DeviceList, user), record.to_bytes());
        }
        for device in [ASKERS[0], ASKERS[2], ASKERS[4]] {
            bench.meet(&jid(device));
        }
        bench.joins();
        for chat in [GROUP, STATUS] {
            bench.step(|step| {
                let Some(linked) = step.account().linked.clone() else { return Ok(()) };
                let mut rng = ChaCha20Rng::from_rng(step.rng);
                sender_key::distribute(step, &marks::own_key_name(&jid(chat), &linked), &mut rng).map(drop)
            });
        }
        for (chat, id) in [FRIEND, GROUP, STATUS].into_iter().flat_map(|chat| IDS.map(|id| (chat, id))) {
            if id == "NEVER" {
                continue;
            }
            let audience = if chat == STATUS { vec![FRIEND.to_owned()] } else { Vec::new() };
            let message = build::text(format!("{id} to {chat}")).encode_to_vec().into();
            let sent = SentRecord { message, chat: chat.to_owned(), audience, timestamp: 1, ..SentRecord::default() };
            bench.records.insert(sent_key(&jid(chat), id), sent.to_bytes());
        }
        bench
    }

    fn now(&self) -> Now {
        let wall_ms = 1_760_000_000_000_u64.saturating_add(self.seconds.saturating_mul(1_000));
        Now { mono: Duration::from_secs(self.seconds), wall_ms }
    }

    /// Runs a handler as the engine does, and keeps what it writes. Gives what it answered and the stanzas that it sent.
    fn run<T>(&mut self, handler: impl Fn(&mut Step<'_>) -> Result<T, Miss>) -> (T, Vec<Node>) {
        let (mut cache, now, memory) = (Cache::new(1 << 24), self.now(), Arc::clone(&self.memory));
        for _ in 0..MAX_ROUNDS {
            let account = Arc::clone(&self.account);
            let mut step = Step::new(now, &self.config, &mut self.rng, &mut cache, &memory, account);
            match handler(&mut step) {
                Ok(value) => {
                    let Collected { overlay, frames, .. } = step.collect();
                    for (key, value) in overlay {
                        match value {
                            Some(value) => drop(self.records.insert(key, value)),
                            None => drop(self.records.remove(&key)),
                        }
                    }
                    return (value, frames.into_iter().filter_map(|frame| Node::decode(frame).ok()).collect());
                }
                Err(Miss) => {
                    let missing = step.needs.missing;
                    assert!(!missing.is_empty(), "a handler misses nothing and stops");
                    let load = |key: Key| (key.clone(), self.records.get(&key).cloned());
                    cache.fill(missing.into_iter().map(load).collect(), 0);
                }
            }
        }
        unreachable!("a handler never has what it needs");
    }

    fn step<T>(&mut self, handler: impl Fn(&mut Step<'_>) -> Result<T, Miss>) -> T {
        self.run(handler).0
    }

    /// The keys of any device that is there.
    fn bundle(&self) -> PreKeyBundle {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        PreKeyBundle {
            registration_id: REGISTRATION,
            identity: *self.identity.public(),
            signed_pre_key_id: SignedPreKeyId(1),
            signed_pre_key: *self.signed.public(),
            signature: xeddsa::sign(self.identity.private(), &[&self.signed.public().to_typed()], &mut rng),
            pre_key: None,
        }
    }

    /// Starts a session from fetched keys.
    fn meet(&mut self, device: &Jid) {
        let fetched = FetchedBundle { bundle: self.bundle(), device_identity: None };
        self.step(|step| send::establish_sent(step, device, &fetched));
    }

    /// We and the friend are in the group.
    fn joins(&mut self) {
        let member = |text: &str| Node::new("participant").attr("jid", jid(text));
        let group = Node::new("group").attr("id", GROUP).attr("addressing_mode", "lid");
        let group = group.child(member("100000000000001@lid")).child(member(FRIEND));
        let create = Node::new("create").child(group);
        let node = Node::new("notification").attr("from", jid(GROUP)).attr("type", "w:gp2").attr("id", "1");
        let (mut decoder, node) = (Decoder::default(), node.child(create));
        let Ok(frame) = node.encode() else { return };
        let Ok(node) = decoder.decode(frame.into()) else { return };
        let (Ok(notice), Some(ack)) = (GroupNotice::parse(node), AckTarget::of(node)) else { return };
        self.step(|step| groups::notification(step, &notice, &ack, false));
    }

    /// One receipt, and what comes of it.
    fn receipt(&mut self, script: &mut Script<'_>) {
        self.seconds = self.seconds.saturating_add(u64::from(script.byte() % 16).saturating_pow(4));
        let (chat, asker) = (script.pick(&CHATS), script.pick(&ASKERS));
        let flags = script.byte();
        let count = u32::from(script.byte() % 8);
        let registration = script.pick(&[REGISTRATION, REGISTRATION, 8, 0]);
        let ids: Vec<&str> = (0..=script.byte() % 4).map(|_| script.pick(&IDS)).collect();
        let keys = (flags & 7 >= 4).then(|| self.keys(script, flags));
        let shared = chat != FRIEND;
        let mut node = Node::new("receipt").attr("type", "retry").attr("from", jid(if shared { chat } else { asker }));
        node = node.attr("id", ids.first().copied().unwrap_or_default());
        if shared && flags & 0x08 == 0 {
            node = node.attr("participant", jid(asker));
        }
        if flags & 0x10 != 0 {
            node = node.attr("recipient", jid(script.pick(&CHATS)));
        }
        let items = ids.iter().skip(1).map(|id| Node::new("item").attr("id", *id));
        node = node
            .child(Node::new("retry").attr("count", count))
            .child(Node::new("registration").bytes(registration.to_be_bytes().to_vec()))
            .children(keys)
            .child(Node::new("list").children(items));
        if flags & 0x20 != 0 {
            self.step(|step| {
                groups::all_changed(step);
                Ok(())
            });
        }
        let Ok(frame) = node.encode() else { return };
        let mut decoder = Decoder::default();
        let Ok(node) = decoder.decode(frame.into()) else { return };
        let (Ok(receipt), Some(ack)) = (InboundReceipt::parse(node), AckTarget::of(node)) else { return };
        let with_keys = receipt.retry.as_ref().is_some_and(|retry| retry.keys.is_some());
        let mut renewed = with_keys;
        let mut asked = Asked::new(&receipt, &ack);
        for _ in 0..MAX_ROUNDS {
            let (outcome, frames) = self.run(|step| resend(step, &asked));
            let there = !script.byte().is_multiple_of(4);
            match outcome {
                Outcome::Done(_) => return self.check(&receipt, &ids, count, registration, renewed, &frames),
                Outcome::Keys(device) => {
                    renewed = true;
                    if there {
                        self.meet(&device);
                    }
                    asked = asked.with_keys();
                }
                Outcome::Group(group) => {
                    if there && group == jid(GROUP) {
                        self.joins();
                    }
                    asked = asked.with_group(true);
                }
            }
            assert!(frames.is_empty(), "nothing leaves before everything is known");
        }
        unreachable!("a request never has its answers");
    }

    /// Keys as a receipt brings them: good ones, under another identity, with a bad signature, or cut off.
    fn keys(&self, script: &mut Script<'_>, flags: u8) -> Node {
        let mut bundle = self.bundle();
        match script.byte() % 4 {
            1 => bundle.identity = *self.pre_key.public(),
            2 => bundle.signature = [script.byte(); 64],
            3 => bundle.signed_pre_key = crate::crypto::PublicKey::from_bytes([script.byte(); 32]),
            _ => {}
        }
        let key = |tag: &'static str, id: u8, value: &[u8]| {
            Node::new(tag).child(Node::new("id").bytes(vec![0, 0, id])).child(Node::new("value").bytes(value.to_vec()))
        };
        let signed = key("skey", 1, bundle.signed_pre_key.as_bytes());
        let shown = (flags & 0x40 != 0).then(|| Node::new("device-identity").bytes(script.bytes().to_vec()));
        Node::new("keys")
            .child(Node::new("type").bytes(vec![5]))
            .child(Node::new("identity").bytes(bundle.identity.as_bytes().to_vec()))
            .children((flags & 0x80 != 0).then(|| key("key", 1, self.pre_key.public().as_bytes())))
            .child(signed.child(Node::new("signature").bytes(bundle.signature.to_vec())))
            .children(shown)
    }

    /// What must hold of an answer.
    fn check(
        &mut self,
        receipt: &InboundReceipt,
        ids: &[&str],
        count: u32,
        registration: u32,
        renewed: bool,
        frames: &[Node],
    ) {
        let acks = frames.iter().filter(|node| node.is("ack")).count();
        assert_eq!(acks, 1, "one ack: {frames:?}");
        let messages: Vec<&Node> = frames.iter().filter(|node| node.is("message")).collect();
        assert_eq!(messages.len() + acks, frames.len(), "messages and an ack: {frames:?}");
        assert!(messages.len() <= ids.len(), "no more than was asked for");
        let asker = receipt.participant.as_ref().unwrap_or(&receipt.from);
        let (friend, number) = (jid(FRIEND), jid("15550000002@s.whatsapp.net"));
        let is_friend = asker.same_account(&friend) || asker.same_account(&number);
        let is_own = asker.same_account(&jid(OWN.1)) && asker.device() != 2;
        if !messages.is_empty() {
            assert!(is_friend || is_own, "for a stranger: {frames:?}");
            assert!(count < 5 && (registration != 0 || renewed), "against the rules: {frames:?}");
        }
        for message in messages {
            let id = message.attr_str("id").unwrap_or_default().into_owned();
            let user = if is_own { jid(OWN.1).to_bare() } else { friend.clone() };
            let device = user.with_device(asker.device()).to_string();
            let served = self.served.entry((device.clone(), format!("{} {id}", receipt.from))).or_default();
            *served += 1;
            assert!(*served <= 10, "too often");
            let enc = message.find_child("enc").and_then(|enc| {
                let kind = enc.attr_str("type")?;
                let bytes = enc.content_bytes()?;
                Some((if kind == "pkmsg" { CiphertextKind::PreKey } else { CiphertextKind::Whisper }, bytes))
            });
            let Some((kind, bytes)) = enc else { unreachable!("a message without ciphertext") };
            self.key_is_new(&device, kind, &bytes);
            self.friend_reads(&device, renewed, kind, &bytes, &id);
        }
    }

    fn key_is_new(&mut self, device: &str, kind: CiphertextKind, bytes: &[u8]) {
        let inner = match kind {
            CiphertextKind::PreKey => wire::PreKeyMessage::decode(bytes).map(|outer| outer.message),
            CiphertextKind::Whisper => Ok(bytes),
        };
        let Ok(message) = inner.and_then(wire::WhisperMessage::decode) else { unreachable!("we write what we read") };
        let key = (device.to_owned(), message.ratchet.as_bytes().to_vec(), message.counter);
        assert!(self.used.insert(key), "a message key is used twice");
    }

    /// The friend's companion has what is needed to read every session but those from keys that were made up.
    fn friend_reads(&mut self, device: &str, renewed: bool, kind: CiphertextKind, bytes: &[u8], id: &str) {
        if device != ASKERS[0] {
            return;
        }
        self.lost |= renewed;
        if self.lost {
            return;
        }
        let own = Own { identity: &self.identity, registration_id: REGISTRATION };
        let peer = Address::new(OWN.1);
        let Ok(read) = signal::decrypt(&mut self.sessions, &own, &peer, kind, bytes) else {
            unreachable!("the friend cannot read {id}");
        };
        let message = padding::unpad(2, &read.plaintext).ok().and_then(|plain| crate::message::decode(plain).ok());
        let text = message.and_then(|message| message.extended_text_message?.text.or(message.conversation));
        assert!(text.is_none_or(|text| text.starts_with(id)), "another message");
    }
}

fn jid(text: &str) -> Jid {
    text.parse().unwrap_or_else(|_| Jid::whatsapp_server())
}
