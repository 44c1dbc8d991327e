//! The limits and refusals that the vectors do not reach.

use std::convert::Infallible;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{memory::MemorySignalStore, *};
use crate::crypto::{CryptoError, xeddsa};
use import::Snapshot;

struct Party {
    identity: KeyPair,
    store: MemorySignalStore,
    bundle: PreKeyBundle,
    peer: Address,
    rng: ChaCha20Rng,
}

impl Party {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let identity = KeyPair::generate(&mut rng);
        Self::with_identity(identity, rng)
    }

    fn with_identity(identity: KeyPair, mut rng: ChaCha20Rng) -> Self {
        let signed = KeyPair::generate(&mut rng);
        let bundle = PreKeyBundle {
            registration_id: 5,
            identity: *identity.public(),
            signed_pre_key_id: SignedPreKeyId(1),
            signed_pre_key: *signed.public(),
            signature: xeddsa::sign(identity.private(), &[&signed.public().to_typed()], &mut rng),
            pre_key: None,
        };
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(1), signed);
        Self { identity, store, bundle, peer: Address::new("peer"), rng }
    }

    fn establish(&mut self, bundle: &PreKeyBundle) -> Result<IdentityChange, StepError<Infallible>> {
        let own = Own { identity: &self.identity, registration_id: 5 };
        establish(&mut self.store, &own, &self.peer, bundle, &mut self.rng)
    }

    fn encrypt(&mut self) -> Ciphertext {
        let own = Own { identity: &self.identity, registration_id: 5 };
        encrypt(&mut self.store, &own, &self.peer, b"hello", &mut self.rng).unwrap()
    }

    fn decrypt(&mut self, ciphertext: &Ciphertext) -> Result<Decrypted, SignalError> {
        let own = Own { identity: &self.identity, registration_id: 5 };
        let before = self.store.encode();
        decrypt(&mut self.store, &own, &self.peer, ciphertext.kind, &ciphertext.bytes).map_err(|error| {
            assert_eq!(self.store.encode(), before, "a refused message changed the store");
            match error {
                StepError::Signal(refusal) => refusal,
                StepError::Miss(never) => match never {},
            }
        })
    }

    fn snapshot(&mut self) -> Snapshot {
        let Ok(snapshot) = Snapshot::read(&mut self.store, &self.peer);
        let snapshot = snapshot.unwrap();
        assert_eq!(snapshot.pages.len(), self.store.page_count(&self.peer), "no page without its chain");
        snapshot
    }
}

/// Two parties with a session that both have used.
fn pair() -> (Party, Party) {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.establish(&bob.bundle.clone()).unwrap();
    bob.decrypt(&alice.encrypt()).unwrap();
    alice.decrypt(&bob.encrypt()).unwrap();
    (alice, bob)
}

/// `from` sends several messages of which only the last arrives.
fn skip(from: &mut Party, to: &mut Party, count: usize) -> Vec<Ciphertext> {
    let mut sent: Vec<_> = (0..=count).map(|_| from.encrypt()).collect();
    to.decrypt(&sent.pop().unwrap()).unwrap();
    sent
}

#[test]
fn bundles_must_be_signed_and_their_keys_real() {
    let (mut alice, bob) = (Party::new(1), Party::new(2));
    let mut bundle = bob.bundle.clone();
    bundle.signature[3] ^= 1;
    assert_eq!(alice.establish(&bundle), Err(SignalError::BadSignature.into()));
    let mut bundle = bob.bundle.clone();
    bundle.pre_key = Some((PreKeyId(1), PublicKey::from_bytes([0; 32])));
    assert_eq!(alice.establish(&bundle), Err(SignalError::Key(CryptoError::SmallOrder).into()));
    assert_eq!(alice.store, Party::new(1).store);
    // Id 0 would be read as "no one-time prekey" by the other side, so the key is not used.
    bundle.pre_key = Some((PreKeyId(0), *bob.identity.public()));
    assert_eq!(alice.establish(&bundle), Ok(IdentityChange::New));
    let mut bob = bob;
    assert_eq!(bob.decrypt(&alice.encrypt()).unwrap().used_pre_key, None);
}

#[test]
fn a_session_is_prepared_elsewhere_and_installed_once() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let (bundle, identity, mut rng) = (bob.bundle.clone(), alice.identity.clone(), alice.rng.clone());
    let job = move || prepare(&Own { identity: &identity, registration_id: 5 }, &bundle, &mut rng);
    let prepared = std::thread::spawn(job).join().unwrap().unwrap();
    let text = format!("{prepared:?}");
    assert!(!text.contains(&hex::encode(prepared.identity().as_bytes())) && text.contains("[redacted]"));
    // The other side starts a session, too, while ours is prepared.
    bob.establish(&alice.bundle.clone()).unwrap();
    let crossed = bob.encrypt();
    alice.decrypt(&crossed).unwrap();
    let mut in_one_step = Party { store: alice.store.clone(), identity: alice.identity.clone(), ..Party::new(1) };

    let peer = alice.peer.clone();
    assert_eq!(install(&mut alice.store, &peer, &prepared), Ok(IdentityChange::Unchanged));
    in_one_step.establish(&bob.bundle.clone()).unwrap();
    assert!(alice.store == in_one_step.store, "the same as establish with the same randomness");
    bob.decrypt(&alice.encrypt()).unwrap();
    alice.decrypt(&bob.encrypt()).unwrap();

    let before = alice.store.clone();
    assert_eq!(install(&mut alice.store, &peer, &prepared), Ok(IdentityChange::Unchanged));
    assert!(alice.store == before, "its first keys are used up");
    alice.establish(&bob.bundle.clone()).unwrap();
    let before = alice.store.clone();
    assert_eq!(install(&mut alice.store, &peer, &prepared), Ok(IdentityChange::Unchanged));
    assert!(alice.store == before, "nor when it is archived");
}

#[test]
fn a_changed_identity_drops_what_was_built_on_the_old_one() {
    let (mut alice, mut bob) = pair();
    skip(&mut bob, &mut alice, 3);
    alice.establish(&bob.bundle.clone()).unwrap();
    skip(&mut bob, &mut alice, 70);
    assert!(alice.snapshot().states.len() == 1 && alice.snapshot().pages.len() >= 2);

    let mut new_bob = Party::new(3);
    let previous = *bob.identity.public();
    let mut by_bundle = Party { store: alice.store.clone(), identity: alice.identity.clone(), ..Party::new(1) };
    assert_eq!(by_bundle.establish(&new_bob.bundle.clone()), Ok(IdentityChange::Changed { previous }));
    new_bob.establish(&alice.bundle.clone()).unwrap();
    let first = new_bob.encrypt();
    let found = alice.decrypt(&first).unwrap();
    assert!(found.identity_changed && found.identity == *new_bob.identity.public());
    for party in [&mut alice, &mut by_bundle] {
        let snapshot = party.snapshot();
        assert!(snapshot.states.is_empty() && snapshot.pages.is_empty());
        assert_eq!(snapshot.session.current().unwrap().remote_identity(), new_bob.identity.public());
        assert_eq!(party.store.identity(&party.peer.clone()), Ok(Some(*new_bob.identity.public())));
    }
    assert_eq!(alice.decrypt(&bob.encrypt()), Err(SignalError::BadMac), "the old session is gone");
    let found = alice.decrypt(&new_bob.encrypt()).unwrap();
    assert!(!found.identity_changed);
}

#[test]
fn forty_states_are_archived_and_the_oldest_goes_with_its_pages() {
    let (mut alice, mut bob) = pair();
    skip(&mut bob, &mut alice, 5);
    let late = bob.encrypt();
    for archived in 1..=40 {
        alice.establish(&bob.bundle.clone()).unwrap();
        assert_eq!(alice.snapshot().states.len(), archived);
    }
    assert_eq!(alice.store.page_count(&alice.peer), 1);
    // The first state is the oldest of forty: it is found, and promoted.
    let mut promoted = Party { store: alice.store.clone(), identity: alice.identity.clone(), ..Party::new(1) };
    promoted.decrypt(&late).unwrap();
    assert_eq!((promoted.snapshot().states.len(), promoted.store.page_count(&alice.peer)), (40, 1));
    alice.establish(&bob.bundle.clone()).unwrap();
    assert_eq!((alice.snapshot().states.len(), alice.store.page_count(&alice.peer)), (40, 0));
    assert_eq!(alice.decrypt(&late), Err(SignalError::BadMac));
}

#[test]
fn the_sixth_receiver_chain_drops_the_oldest_with_its_pages() {
    let (mut alice, mut bob) = pair();
    let late = skip(&mut alice, &mut bob, 2);
    let turn = |alice: &mut Party, bob: &mut Party| {
        alice.decrypt(&bob.encrypt()).unwrap();
        bob.decrypt(&alice.encrypt()).unwrap();
    };
    (0..4).for_each(|_| turn(&mut alice, &mut bob));
    bob.decrypt(&late[0]).unwrap();
    assert_eq!(bob.store.page_count(&bob.peer), 1);
    turn(&mut alice, &mut bob);
    assert_eq!((bob.store.page_count(&bob.peer), bob.snapshot().pages.len()), (0, 0));
    assert_eq!(bob.decrypt(&late[1]), Err(SignalError::BadMac));
}

#[test]
fn a_session_with_oneself_may_jump_further() {
    let identity = KeyPair::generate(&mut ChaCha20Rng::seed_from_u64(9));
    let mut phone = Party::with_identity(identity.clone(), ChaCha20Rng::seed_from_u64(1));
    let mut tablet = Party::with_identity(identity, ChaCha20Rng::seed_from_u64(2));
    phone.establish(&tablet.bundle.clone()).unwrap();
    tablet.decrypt(&phone.encrypt()).unwrap();
    let sent: Vec<_> = (0..=25_001).map(|_| phone.encrypt()).collect();
    assert_eq!(tablet.decrypt(&sent[25_001]), Err(SignalError::TooFarAhead { jump: 25_001, max: 25_000 }));
    tablet.decrypt(&sent[25_000]).unwrap();
    assert_eq!(tablet.decrypt(&sent[22_999]), Err(SignalError::Duplicate), "only the newest 2,000 keys are kept");
    tablet.decrypt(&sent[23_000]).unwrap();
    tablet.decrypt(&sent[24_999]).unwrap();
    assert!(tablet.snapshot().pages.len() <= 33);
}

#[test]
fn two_thousand_keys_are_kept_over_several_jumps() {
    let (mut alice, mut bob) = pair();
    let mut sent = skip(&mut alice, &mut bob, 1_500);
    sent.extend(skip(&mut alice, &mut bob, 700));
    assert_eq!(bob.decrypt(&sent[199]), Err(SignalError::Duplicate));
    for late in &sent[200..] {
        bob.decrypt(late).unwrap();
    }
    assert_eq!(bob.store.page_count(&bob.peer), 0);
}

#[test]
fn a_turn_is_made_whole_when_something_is_sent() {
    let (mut alice, mut bob) = pair();
    alice.decrypt(&bob.encrypt()).unwrap();
    let position = |party: &mut Party| party.snapshot().session.current().unwrap().sender();
    assert_eq!(position(&mut alice), None, "bob has turned");
    let record = alice.snapshot().session.encode();
    assert_eq!(Session::decode(&record).unwrap(), alice.snapshot().session);

    // Nobody can have turned on a key that is not drawn yet, so this costs no exchange and says the same as if it were.
    let mut forged = bob.encrypt().bytes.to_vec();
    forged[5] ^= 1;
    let forged = Ciphertext { kind: CiphertextKind::Whisper, bytes: forged.into() };
    assert_eq!(alice.decrypt(&forged), Err(SignalError::BadMac));
    alice.decrypt(&bob.encrypt()).unwrap();

    // Archived and promoted, it still waits; and it can be made ahead of the message.
    let late = bob.encrypt();
    alice.establish(&bob.bundle.clone()).unwrap();
    assert_eq!(alice.snapshot().states[0].sender(), None);
    alice.decrypt(&late).unwrap();
    assert_eq!(position(&mut alice), None);
    let Ok(session) = alice.store.session(&alice.peer.clone());
    let (mut session, mut rng) = (session.unwrap(), alice.rng.clone());
    let state = session.current_mut().unwrap();
    assert_eq!(state.advance_sender(1), Err(SignalError::NoSession), "there is nothing to reserve");
    state.begin_sending(&mut rng).unwrap();
    let mut ahead = Party { store: alice.store.clone(), identity: alice.identity.clone(), ..Party::new(1) };
    ahead.store.put_session(&alice.peer.clone(), session);
    let sent = alice.encrypt();
    assert_eq!(ahead.encrypt(), sent);
    assert_eq!(position(&mut alice).unwrap().counter, 1);
    bob.decrypt(&sent).unwrap();
    bob.decrypt(&alice.encrypt()).unwrap();
}

#[test]
fn a_due_turn_needs_a_chain_to_turn_on() {
    let (mut alice, _) = pair();
    let mut snapshot = alice.snapshot();
    let state = snapshot.session.current.as_mut().unwrap();
    state.receivers.clear();
    let damaged = SignalError::Record { what: "state", reason: "nobody turned, but a turn is due" };
    assert_eq!(State::decode(&state.encode()), Err(damaged));
}

#[test]
fn a_jump_over_reserved_counters_is_followed() {
    let (mut alice, mut bob) = pair();
    bob.decrypt(&alice.encrypt()).unwrap();
    let Ok(session) = alice.store.session(&alice.peer.clone());
    let mut session = session.unwrap();
    let before = session.current().unwrap().sender().unwrap();
    let state = session.current_mut().unwrap();
    assert_eq!(state.advance_sender(before.counter + 2_000), Err(SignalError::TooFarAhead { jump: 2_000, max: 1_999 }));
    state.advance_sender(before.counter + 64).unwrap();
    state.advance_sender(before.counter).unwrap();
    let after = SenderPosition { counter: before.counter + 64, ..before };
    assert_eq!(state.sender(), Some(after), "a chain never goes back");
    alice.store.put_session(&alice.peer.clone(), session);
    bob.decrypt(&alice.encrypt()).unwrap();
}

#[test]
fn an_archived_state_is_found_without_loading_the_others() {
    let (mut alice, mut bob) = pair();
    bob.decrypt(&alice.encrypt()).unwrap();
    let early = bob.encrypt();
    alice.decrypt(&early).unwrap();
    for _ in 0..10 {
        alice.establish(&bob.bundle.clone()).unwrap();
    }
    let index = ArchiveIndex::decode(&alice.snapshot().archive.encode()).unwrap();
    let message = bob.encrypt();
    let ratchet = wire::WhisperMessage::decode(&message.bytes).unwrap().ratchet;
    assert_eq!(index.entries.len(), 10);
    assert_eq!(index.entries.iter().filter(|entry| entry.may_know(&ratchet)).count(), 1);
    alice.decrypt(&message).unwrap();
    assert_eq!(alice.decrypt(&early), Err(SignalError::Duplicate));
}

#[test]
fn the_ignored_bit_of_a_base_key_does_not_make_another_session() {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    alice.establish(&bob.bundle.clone()).unwrap();
    let (original, next) = (alice.encrypt(), alice.encrypt());
    let mut bytes = original.bytes.to_vec();
    let base_key = *wire::PreKeyMessage::decode(&bytes).unwrap().base_key.as_bytes();
    let at = bytes.windows(32).position(|window| window == base_key).unwrap();
    bytes[at + 31] ^= 0x80;
    bob.decrypt(&Ciphertext { bytes: bytes.into(), ..original.clone() }).unwrap();
    assert_eq!(bob.decrypt(&original), Err(SignalError::Duplicate));
    bob.decrypt(&next).unwrap();
    assert!(bob.snapshot().states.is_empty());
}

#[test]
fn forgetting_a_device_leaves_nothing() {
    let (mut alice, mut bob) = pair();
    skip(&mut bob, &mut alice, 100);
    alice.establish(&bob.bundle.clone()).unwrap();
    let Ok(()) = forget(&mut alice.store, &alice.peer.clone());
    assert_eq!(alice.store, Party::new(1).store);
    assert_eq!(alice.decrypt(&bob.encrypt()), Err(SignalError::NoSession));
}

#[test]
fn peek_names_what_a_pkmsg_needs() {
    let (mut alice, bob) = (Party::new(1), Party::new(2));
    let mut bundle = bob.bundle.clone();
    bundle.pre_key = Some((PreKeyId(77), *bob.identity.public()));
    alice.establish(&bundle).unwrap();
    let ciphertext = alice.encrypt();
    let found = peek(ciphertext.kind, &ciphertext.bytes).unwrap();
    assert_eq!((found.pre_key, found.signed_pre_key), (Some(PreKeyId(77)), Some(SignedPreKeyId(1))));
    assert_eq!((found.identity, found.registration_id), (Some(*alice.identity.public()), Some(5)));
    let mut bob = bob;
    assert_eq!(bob.decrypt(&ciphertext), Err(SignalError::InvalidPreKeyId(77)));
    assert_eq!(SignalError::InvalidPreKeyId(77).retry_reason(), 3);
}

#[test]
fn nothing_secret_is_printed() {
    let (mut alice, mut bob) = pair();
    skip(&mut bob, &mut alice, 2);
    let text = format!("{:?} {:?}", alice.snapshot(), alice.decrypt(&bob.encrypt()).unwrap());
    let snapshot = alice.snapshot();
    let secrets = [alice.identity.private().expose(), snapshot.session.current().unwrap().root.expose()];
    for secret in secrets {
        assert!(!text.contains(&format!("{:?}", &secret[..4])[1..10]) && !text.contains(&hex::encode(&secret[..4])));
    }
    assert!(text.contains("[redacted]") && !text.contains("hello"));
    assert!(!format!("{:?}", Address::new("491701234567")).contains("4917"));
}
