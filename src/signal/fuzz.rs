//! One-line entries for fuzz targets. They hold on every input; a panic is a finding.
//!
//! | target | input |
//! |---|---|
//! | [`signal_message`] | what two devices do that have a session: send, deliver, repeat, damage, forge, start anew |
//! | [`prekey_message`] | the first message of a stranger, as it comes or under a good MAC |
//! | [`session_record`] | what stands in a store: each record read, and a session used |
//!
//! A forger cannot make a MAC, and neither can a fuzzer; so in both message targets the other side may be the liar, too: then
//! the input is sealed with its real keys.

use std::sync::OnceLock;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    Address, ArchiveIndex, Ciphertext, CiphertextKind, Own, PageId, PreKeyBundle, PreKeyId, Session, SignalError,
    SignalStore, SignedPreKeyId, SkippedPage, State, StepError,
    chain::MessageKeys,
    decrypt, encrypt, establish,
    import::import_record,
    memory::MemorySignalStore,
    sender_key,
    state::Sender,
    wire::{PreKeyMessage, WhisperMessage},
};
use crate::crypto::{KeyPair, PrivateKey, xeddsa};

/// Two devices with a session. The input is read as steps, of which the first byte says what to do; what follows it is as
/// long as the step needs. Every message that arrives is read once, and what is refused changes nothing.
///
/// # Panics
/// When that does not hold, which is what the fuzzer looks for.
pub fn signal_message(bytes: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    decode_messages(bytes);
    let mut world = WORLD.get_or_init(World::new).clone();
    let mut input = Input(bytes);
    for _ in 0..MAX_STEPS {
        let Some(step) = input.byte() else { break };
        let (from, value) = (step >> 3 & 1, input.0.first().copied().unwrap_or_default());
        match step & 7 {
            0 | 1 => world.send(from, step >> 4),
            2 => world.deliver(usize::from(step >> 3)),
            3 => world.repeat(usize::from(step >> 3)),
            4 => world.damage(usize::from(step >> 3), usize::from(input.short()), value & 7),
            5 => world.receive(from, CiphertextKind::Whisper, input.piece()),
            6 => world.lie(from, step >> 4, input.piece()),
            _ if step & 0x70 == 0 => world.establish(from),
            _ => assert_eq!(world.parties.each_mut().map(|party| party.store.reload()), [Ok(()), Ok(())]),
        }
    }
}

/// A stranger's first message. The first byte says whether the rest is the message as it comes, or the ciphertext inside of it,
/// sealed with real keys; its other bits spoil the header, which no MAC covers.
///
/// # Panics
/// As [`signal_message`].
pub fn prekey_message(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let mut party = Party::new(2, 1);
    party.store.put_pre_key(PreKeyId(1), pair(9));
    if how & 1 == 0 {
        decode_messages(bytes);
        return party.decrypt_in(CiphertextKind::PreKey, bytes);
    }
    static STRANGER: OnceLock<Party> = OnceLock::new();
    let mut stranger = STRANGER.get_or_init(stranger).clone();
    let Some(Ciphertext { bytes: honest, .. }) = stranger.encrypt(b"first") else { return };
    let Some(sealed) = stranger.seal(0, bytes) else { return };
    let Ok(mut outer) = PreKeyMessage::decode(&honest) else { return };
    outer.message = &sealed;
    if how & 2 != 0 {
        outer.pre_key_id = Some(PreKeyId(u32::from(how >> 5)));
    }
    if how & 4 != 0 {
        outer.identity = *pair(how).public();
    }
    if how & 8 != 0 {
        outer.base_key = *pair(how).public();
    }
    outer.registration_id = u32::from(how);
    party.decrypt_in(CiphertextKind::PreKey, &outer.encode());
    // An honest message after it is read, or its prekey is gone with the message before; and it is read once.
    let first = party.decrypt(CiphertextKind::PreKey, &honest);
    let second = party.decrypt(CiphertextKind::PreKey, &honest);
    assert!(first.is_err() || second == Err(SignalError::Duplicate), "a message was read twice");
}

/// Arbitrary bytes as each record; what decodes encodes to something equal. And a session with a page of skipped keys (a
/// length of 16 bits in front of the session) is used, as if it stood in a damaged store.
///
/// # Panics
/// As [`signal_message`].
pub fn session_record(bytes: &[u8]) {
    decode_records(bytes);
    sender_key::fuzz::decode_records(bytes);
    let mut input = Input(bytes);
    let Ok(session) = Session::decode(input.piece()) else { return };
    let mut party = Party::new(1, 2);
    let ids: Vec<PageId> = session.current().into_iter().flat_map(State::page_ids).take(3).collect();
    if let Ok(page) = SkippedPage::decode(input.0) {
        ids.iter().for_each(|id| party.store.put_skipped_page(&party.peer, *id, page.clone()));
    }
    let ratchets = session.current().map(|state| state.receivers.clone()).unwrap_or_default();
    party.store.put_session(&party.peer, session);
    for chain in ratchets.iter().take(2) {
        let counters = [chain.skipped.counters().next(), Some(chain.chain.index)];
        for counter in counters.into_iter().flatten() {
            let mut message = WhisperMessage::begin(&chain.ratchet, counter, 0, 16);
            message.extend_from_slice(&[7; 24]);
            party.decrypt_in(CiphertextKind::Whisper, &message);
        }
    }
    drop(party.encrypt(b"text"));
    assert_eq!(party.store.reload(), Ok(()));
}

/// Decodes arbitrary bytes as each message; what decodes survives its canonical form.
pub fn decode_messages(bytes: &[u8]) {
    if let Ok(message) = WhisperMessage::decode(bytes) {
        let canonical = message.encode();
        let again = WhisperMessage::decode(&canonical).map(|again| again.encode());
        assert_eq!(again.as_ref(), Ok(&canonical), "msg");
    }
    if let Ok(message) = PreKeyMessage::decode(bytes) {
        assert_eq!(PreKeyMessage::decode(&message.encode()), Ok(message), "pkmsg");
    }
}

/// Decodes arbitrary bytes as each record; what decodes encodes to something equal.
pub fn decode_records(bytes: &[u8]) {
    if let Ok(record) = Session::decode(bytes) {
        assert_eq!(Session::decode(&record.encode()), Ok(record), "session");
    }
    if let Ok(record) = State::decode(bytes) {
        assert_eq!(State::decode(&record.encode()), Ok(record), "state");
    }
    if let Ok(record) = ArchiveIndex::decode(bytes) {
        assert_eq!(ArchiveIndex::decode(&record.encode()), Ok(record), "archive index");
    }
    if let Ok(record) = SkippedPage::decode(bytes) {
        assert_eq!(SkippedPage::decode(&record.encode()), Ok(record), "skipped page");
    }
    if let Ok(snapshot) = import_record(bytes) {
        assert_eq!(Session::decode(&snapshot.session.encode()), Ok(snapshot.session), "imported session");
    }
}

/// Decrypts arbitrary bytes, taken as a pkmsg if the first one is odd, in the place of a device without a session.
pub fn decrypt_without_session(bytes: &[u8]) {
    let mut party = Party::new(2, 1);
    party.store.put_pre_key(PreKeyId(1), pair(9));
    let own = Own { identity: &party.identity, registration_id: 1 };
    decrypt_in(&mut party.store, &own, &party.peer, bytes);
}

/// Decrypts arbitrary bytes in a store, taken as a pkmsg if the first one is odd. A refusal leaves it as it was.
pub fn decrypt_in(store: &mut MemorySignalStore, own: &Own<'_>, address: &Address, bytes: &[u8]) {
    let Some((&selector, bytes)) = bytes.split_first() else { return };
    let kind = if selector % 2 == 1 { CiphertextKind::PreKey } else { CiphertextKind::Whisper };
    let before = store.encode();
    match decrypt(store, own, address, kind, bytes) {
        Ok(_) => {}
        Err(StepError::Signal(_)) => assert!(store.encode() == before, "a refused message changed the store"),
        Err(StepError::Miss(never)) => match never {},
    }
}

const MAX_STEPS: usize = 48;

/// A cursor over the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn short(&mut self) -> u16 {
        let Some((bytes, rest)) = self.0.split_first_chunk() else { return 0 };
        self.0 = rest;
        u16::from_be_bytes(*bytes)
    }

    /// As many bytes as the next two say, or all.
    fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.short()).min(self.0.len());
        let (piece, rest) = self.0.split_at_checked(len).unwrap_or_default();
        self.0 = rest;
        piece
    }
}

#[derive(Clone)]
struct Party {
    identity: KeyPair,
    store: MemorySignalStore,
    peer: Address,
    rng: ChaCha20Rng,
}

impl Party {
    /// A device with signed prekey 1.
    fn new(own: u8, peer: u8) -> Self {
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(1), pair(own | 0x40));
        let peer = Address::new(if peer == 1 { "a" } else { "b" });
        Self { identity: pair(own), store, peer, rng: ChaCha20Rng::from_seed([own; 32]) }
    }

    fn own(&self) -> Own<'_> {
        Own { identity: &self.identity, registration_id: 1 }
    }

    /// Starts a session with the device whose keys have these numbers.
    fn establish(&mut self, peer: u8, pre_key: Option<(PreKeyId, u8)>) {
        let (identity, signed) = (pair(peer), pair(peer | 0x40));
        let bundle = PreKeyBundle {
            registration_id: 1,
            identity: *identity.public(),
            signed_pre_key_id: SignedPreKeyId(1),
            signed_pre_key: *signed.public(),
            signature: xeddsa::sign_with(identity.private(), &[&signed.public().to_typed()], &[0; 64]),
            pre_key: pre_key.map(|(id, key)| (id, *pair(key).public())),
        };
        let Self { identity, store, peer, rng } = self;
        let own = Own { identity, registration_id: 1 };
        assert!(establish(store, &own, peer, &bundle, rng).is_ok(), "the bundle is good");
    }

    fn encrypt(&mut self, text: &[u8]) -> Option<Ciphertext> {
        let Self { identity, store, peer, rng } = self;
        encrypt(store, &Own { identity, registration_id: 1 }, peer, text, rng).ok()
    }

    fn decrypt(&mut self, kind: CiphertextKind, bytes: &[u8]) -> Result<Vec<u8>, SignalError> {
        let Self { identity, store, peer, .. } = self;
        let before = store.encode();
        match decrypt(store, &Own { identity, registration_id: 1 }, peer, kind, bytes) {
            Ok(found) => Ok(found.plaintext),
            Err(StepError::Signal(refusal)) => {
                assert!(store.encode() == before, "a refused message changed the store");
                Err(refusal)
            }
            Err(StepError::Miss(never)) => match never {},
        }
    }

    fn decrypt_in(&mut self, kind: CiphertextKind, bytes: &[u8]) {
        drop(self.decrypt(kind, bytes));
    }

    /// The next message but `skip` with these bytes as its ciphertext, under a good MAC. The chain does not move.
    fn seal(&mut self, skip: u8, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let Ok(session) = self.store.session(&self.peer);
        let mut state = session?.current?;
        state.begin_sending(&mut self.rng).ok()?;
        state.advance_sender(state.sender()?.counter.saturating_add(skip.into())).ok()?;
        let Sender::Chain(sender) = &state.sender else { return None };
        let (counter, previous) = (sender.chain.index, state.previous_counter);
        let mut out = WhisperMessage::begin(sender.ratchet.public(), counter, previous, ciphertext.len());
        out.extend_from_slice(ciphertext);
        let (seed, _) = sender.chain.step().ok()?;
        let mac = MessageKeys::derive(&seed).mac(self.own().identity.public(), &state.remote_identity, &out);
        out.extend_from_slice(&mac);
        Some(out)
    }
}

/// A device that has started a session with another, of number 2, and has not sent anything.
fn stranger() -> Party {
    let mut party = Party::new(1, 2);
    party.establish(2, Some((PreKeyId(1), 9)));
    party
}

/// A message that was sent, and whether it was read.
#[derive(Clone)]
struct Sent {
    to: u8,
    text: Vec<u8>,
    ciphertext: Ciphertext,
    was_read: bool,
}

/// Two devices and what they have sent.
#[derive(Clone)]
struct World {
    parties: [Party; 2],
    sent: Vec<Sent>,
}

impl World {
    /// Both have answered.
    fn new() -> Self {
        let mut world = Self { parties: [Party::new(1, 2), Party::new(2, 1)], sent: Vec::new() };
        world.establish(0);
        for from in [0, 1, 0] {
            world.send(from, 0);
            world.deliver(0);
        }
        world.sent.clear();
        world
    }

    fn party(&mut self, number: u8) -> &mut Party {
        let [first, second] = &mut self.parties;
        if number == 0 { first } else { second }
    }

    fn establish(&mut self, from: u8) {
        self.party(from).establish(2_u8.saturating_sub(from), None);
    }

    fn send(&mut self, from: u8, skip: u8) {
        let text = (self.sent.len() as u64).to_be_bytes().to_vec();
        let party = self.party(from);
        let Ok(session) = party.store.session(&party.peer);
        let Some(mut session) = session else { return };
        if let (Some(state), true) = (session.current_mut(), skip > 0)
            && let Some(at) = state.sender()
        {
            assert_eq!(state.advance_sender(at.counter.saturating_add(u32::from(skip).saturating_mul(40))), Ok(()));
            party.store.put_session(&party.peer, session);
        }
        if let Some(ciphertext) = party.encrypt(&text) {
            self.sent.push(Sent { to: 1_u8.saturating_sub(from), text, ciphertext, was_read: false });
        }
    }

    /// The `back`th message from the last that was not read. A peer may have turned, skipped or lied it out of reach.
    fn deliver(&mut self, back: usize) {
        let unread = self.sent.iter().enumerate().rev().filter(|(_, sent)| !sent.was_read);
        let Some((at, sent)) = unread.map(|(at, sent)| (at, sent.clone())).nth(back) else { return };
        if let Ok(text) = self.party(sent.to).decrypt(sent.ciphertext.kind, &sent.ciphertext.bytes) {
            assert_eq!(text, sent.text);
            self.sent.iter_mut().skip(at).take(1).for_each(|sent| sent.was_read = true);
        }
    }

    fn repeat(&mut self, back: usize) {
        let Some(sent) = self.sent.iter().rev().filter(|sent| sent.was_read).nth(back).cloned() else { return };
        let again = self.party(sent.to).decrypt(sent.ciphertext.kind, &sent.ciphertext.bytes);
        assert!(again.is_err(), "a message was read twice");
    }

    fn damage(&mut self, back: usize, at: usize, bit: u8) {
        let unread = self.sent.iter().enumerate().rev().filter(|(_, sent)| !sent.was_read);
        let Some((which, sent)) = unread.map(|(at, sent)| (at, sent.clone())).nth(back) else { return };
        let mut bytes = sent.ciphertext.bytes.to_vec();
        let at = at.checked_rem(bytes.len()).unwrap_or_default();
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1_u8.wrapping_shl(bit.into()));
        if let Ok(text) = self.party(sent.to).decrypt(sent.ciphertext.kind, &bytes) {
            assert_eq!(text, sent.text, "damage went through");
            assert_eq!(sent.ciphertext.kind, CiphertextKind::PreKey, "every bit of a msg is authenticated");
            self.sent.iter_mut().skip(which).take(1).for_each(|sent| sent.was_read = true);
        }
    }

    fn receive(&mut self, to: u8, kind: CiphertextKind, bytes: &[u8]) {
        self.party(to).decrypt_in(kind, bytes);
    }

    /// A message under a good MAC, of whatever is inside.
    fn lie(&mut self, from: u8, skip: u8, ciphertext: &[u8]) {
        if let Some(message) = self.party(from).seal(skip, ciphertext) {
            self.receive(1_u8.saturating_sub(from), CiphertextKind::Whisper, &message);
        }
    }
}

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes([seed; 32]))
}
