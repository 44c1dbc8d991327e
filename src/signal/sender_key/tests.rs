//! The limits and refusals that the vectors do not reach.

use std::convert::Infallible;

use bytes::Bytes;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{memory::MemorySenderKeyStore, wire::DistributionMessage, wire::SenderKeyMessage, *};
use crate::{
    crypto::Secret,
    signal::{SignalError, StepError},
};

const GROUP: &str = "1@g.us";

struct Pair {
    sender: MemorySenderKeyStore,
    receiver: MemorySenderKeyStore,
    own: SenderKeyName,
    rng: ChaCha20Rng,
}

impl Pair {
    /// A sender whose key the receiver has.
    fn new() -> Self {
        let own = SenderKeyName::new(GROUP, Address::new("a:1"));
        let (sender, receiver) = (MemorySenderKeyStore::new(), MemorySenderKeyStore::new());
        let mut pair = Self { sender, receiver, own, rng: ChaCha20Rng::seed_from_u64(1) };
        assert_eq!(pair.distribute(), Processed::Added);
        pair
    }

    fn message(&mut self) -> DistributionMessage {
        let Ok(message) = distribute(&mut self.sender, &self.own, &mut self.rng);
        message
    }

    fn distribute(&mut self) -> Processed {
        let message = self.message();
        process(&mut self.receiver, &self.own, &message.encode()).unwrap()
    }

    fn rotate(&mut self) -> DistributionMessage {
        rotate(&mut self.sender, &self.own, &mut self.rng)
    }

    fn encrypt(&mut self) -> Bytes {
        encrypt(&mut self.sender, &self.own, b"hello", &mut self.rng).unwrap()
    }

    fn encrypt_many(&mut self, count: usize) -> Vec<Bytes> {
        (0..count).map(|_| self.encrypt()).collect()
    }

    fn decrypt(&mut self, bytes: &[u8]) -> Result<GroupPlaintext, SignalError> {
        self.decrypt_from(&[self.own.sender().clone()], bytes)
    }

    fn decrypt_from(&mut self, senders: &[Address], bytes: &[u8]) -> Result<GroupPlaintext, SignalError> {
        let before = self.receiver.encode();
        decrypt(&mut self.receiver, GROUP, senders, bytes).map_err(|error| {
            assert_eq!(self.receiver.encode(), before, "a refused message changed the store");
            signal_error(error)
        })
    }

    fn record(&mut self) -> SenderKeyRecord {
        let Ok(record) = self.receiver.sender_key(&self.own);
        record.unwrap()
    }
}

fn signal_error(error: StepError<Infallible>) -> SignalError {
    match error {
        StepError::Signal(refusal) => refusal,
        StepError::Miss(never) => match never {},
    }
}

#[test]
fn nothing_is_encrypted_without_a_key() {
    let mut pair = Pair::new();
    discard(&mut pair.sender, &pair.own);
    let refused = encrypt(&mut pair.sender, &pair.own, b"hello", &mut pair.rng);
    assert_eq!(refused, Err(SignalError::NoSenderKey.into()));
    assert_eq!(pair.sender, MemorySenderKeyStore::new());
}

#[test]
fn a_distributed_key_reads_from_its_iteration_on() {
    let mut pair = Pair::new();
    pair.receiver = MemorySenderKeyStore::new();
    let early = pair.encrypt();
    assert_eq!(pair.message().iteration, 1);
    pair.distribute();
    let later = pair.encrypt();
    assert_eq!(pair.decrypt(&early), Err(SignalError::Duplicate));
    let found = pair.decrypt(&later).unwrap();
    assert_eq!((found.plaintext, found.sender, found.iteration), (b"hello".to_vec(), 0, 1));
}

#[test]
fn an_end_of_the_chain_is_refused() {
    let mut pair = Pair::new();
    let Ok(key) = pair.sender.own_sender_key(&pair.own);
    let mut key = key.unwrap();
    key.chain.index = u32::MAX - 1;
    pair.sender.put_own_sender_key(&pair.own, key);
    pair.encrypt();
    let refused = encrypt(&mut pair.sender, &pair.own, b"hello", &mut pair.rng);
    assert_eq!(refused, Err(SignalError::Exhausted("chain").into()));
}

#[test]
fn jumps_are_limited_in_both_directions() {
    let mut pair = Pair::new();
    let mut sent = pair.encrypt_many(2_002);
    assert_eq!(pair.decrypt(&sent[2_001]), Err(SignalError::TooFarAhead { jump: 2_001, max: 2_000 }));
    pair.decrypt(&sent[2_000]).unwrap();
    assert_eq!(pair.receiver.page_count(&pair.own), 32);
    pair.decrypt(&sent.remove(0)).unwrap();
    let Ok(key) = pair.sender.own_sender_key(&pair.own);
    let mut key = key.unwrap();
    let at = key.position().iteration;
    assert_eq!(key.advance(at + 2_001), Err(SignalError::TooFarAhead { jump: 2_001, max: 2_000 }));
    assert_eq!((key.advance(at), key.advance(0), key.position().iteration), (Ok(()), Ok(()), at));
    assert_eq!(key.advance(at + 2_000), Ok(()));
    assert_eq!(key.position().iteration, at + 2_000);
}

#[test]
fn only_the_newest_2000_skipped_keys_are_kept() {
    let mut pair = Pair::new();
    let sent = pair.encrypt_many(2_200);
    pair.decrypt(&sent[1_999]).unwrap();
    pair.decrypt(&sent[2_199]).unwrap();
    // 1,999 and 199 were skipped; the oldest 198 of them are gone.
    assert_eq!(pair.decrypt(&sent[197]), Err(SignalError::Duplicate));
    for late in [198, 1_998, 2_000, 2_198] {
        pair.decrypt(&sent[late]).unwrap();
        assert_eq!(pair.decrypt(&sent[late]), Err(SignalError::Duplicate));
    }
    assert_eq!(pair.record().page_ids().count(), pair.receiver.page_count(&pair.own));
}

#[test]
fn a_receiver_too_far_behind_is_caught_up_by_a_distribution() {
    let mut pair = Pair::new();
    let first = pair.encrypt_many(3);
    pair.decrypt(&first[2]).unwrap();
    let lost = pair.encrypt_many(2_001);
    let far = pair.encrypt();
    assert_eq!(pair.decrypt(&far), Err(SignalError::TooFarAhead { jump: 2_001, max: 2_000 }));
    assert_eq!(pair.distribute(), Processed::CaughtUp);
    let now = pair.encrypt();
    assert_eq!(pair.decrypt(&now).map(|found| found.iteration), Ok(2_005));
    // What was skipped before is there still, what lies between is not.
    assert!(pair.decrypt(&first[0]).is_ok());
    assert_eq!(pair.decrypt(&first[2]), Err(SignalError::Duplicate));
    assert_eq!(pair.decrypt(&lost[2_000]), Err(SignalError::Duplicate));
}

#[test]
fn a_receiver_that_can_still_follow_stays_where_it_is() {
    let mut pair = Pair::new();
    let sent = pair.encrypt_many(2_000);
    assert_eq!(pair.distribute(), Processed::Known);
    let now = pair.encrypt();
    assert_eq!(pair.decrypt(&now).map(|found| found.iteration), Ok(2_000));
    assert!(pair.decrypt(&sent[0]).is_ok());
}

#[test]
fn a_repeated_distribution_does_not_rewind() {
    let mut pair = Pair::new();
    let old = pair.message();
    let sent = pair.encrypt_many(3);
    sent.iter().for_each(|sent| drop(pair.decrypt(sent).unwrap()));
    let before = pair.receiver.encode();
    assert_eq!(process(&mut pair.receiver, &pair.own, &old.encode()), Ok(Processed::Known));
    assert_eq!(pair.receiver.encode(), before, "nothing to write");
    assert!(sent.iter().all(|sent| pair.decrypt(sent) == Err(SignalError::Duplicate)));
    // Behind another key it moves to the front, and does not rewind either.
    let other = pair.rotate();
    process(&mut pair.receiver, &pair.own, &other.encode()).unwrap();
    assert_eq!(process(&mut pair.receiver, &pair.own, &old.encode()), Ok(Processed::Known));
    assert_eq!(pair.record().positions().collect::<Vec<_>>(), [(old.id, 3), (other.id, 0)]);
}

#[test]
fn the_oldest_of_six_keys_goes_with_its_pages() {
    let mut pair = Pair::new();
    let sent = pair.encrypt_many(70);
    pair.decrypt(&sent[69]).unwrap();
    assert_eq!(pair.receiver.page_count(&pair.own), 2);
    let mut last = Vec::new();
    for _ in 0..5 {
        let message = pair.rotate();
        process(&mut pair.receiver, &pair.own, &message.encode()).unwrap();
        last.push(pair.encrypt());
    }
    assert_eq!(pair.receiver.page_count(&pair.own), 0);
    assert_eq!(pair.decrypt(&sent[0]), Err(SignalError::NoSenderKey));
    last.iter().for_each(|sent| drop(pair.decrypt(sent).unwrap()));
    assert!(pair.record().encode().len() < 600);
}

#[test]
fn a_replaced_key_goes_with_its_pages() {
    let mut pair = Pair::new();
    let mut message = pair.message();
    let sent = pair.encrypt_many(2);
    pair.decrypt(&sent[1]).unwrap();
    message.signing = *crate::crypto::KeyPair::generate(&mut pair.rng).public();
    assert_eq!(process(&mut pair.receiver, &pair.own, &message.encode()), Ok(Processed::Replaced));
    assert_eq!(pair.receiver.page_count(&pair.own), 0);
    assert_eq!(pair.decrypt(&sent[0]), Err(SignalError::BadSignature));
}

#[test]
fn a_key_is_found_at_other_addresses_of_the_user() {
    let mut pair = Pair::new();
    let [bare, device, twin] = ["a", "a:1", "number:1"].map(Address::new);
    let sent = pair.encrypt_many(2);
    let found = pair.decrypt_from(&[bare.clone(), twin.clone(), device.clone()], &sent[0]).unwrap();
    assert_eq!(found.sender, 2);
    assert_eq!(pair.decrypt_from(&[bare.clone(), twin.clone()], &sent[1]), Err(SignalError::NoSenderKey));
    assert_eq!(pair.decrypt_from(&[], &sent[1]), Err(SignalError::NoSenderKey));
    // A record with a key of this id, but another signing key, does not hide the right one.
    let mut wrong = pair.message();
    wrong.signing = *crate::crypto::KeyPair::generate(&mut pair.rng).public();
    let at_twin = SenderKeyName::new(GROUP, twin.clone());
    process(&mut pair.receiver, &at_twin, &wrong.encode()).unwrap();
    assert_eq!(pair.decrypt_from(std::slice::from_ref(&twin), &sent[1]), Err(SignalError::BadSignature));
    assert_eq!(pair.decrypt_from(&[bare, twin, device.clone()], &sent[1]).map(|found| found.sender), Ok(2));
    // More addresses than allowed are not looked at.
    let sent = pair.encrypt();
    let mut many: Vec<Address> = (0..MAX_SENDERS).map(|at| Address::new(&at.to_string())).collect();
    many.push(device);
    assert_eq!(pair.decrypt_from(&many, &sent), Err(SignalError::NoSenderKey));
    assert!(pair.decrypt_from(&many[1..], &sent).is_ok());
}

#[test]
fn another_group_has_other_keys() {
    let mut pair = Pair::new();
    let sent = pair.encrypt();
    let found = decrypt(&mut pair.receiver, "2@g.us", &[pair.own.sender().clone()], &sent);
    assert_eq!(found.map_err(signal_error), Err(SignalError::NoSenderKey));
}

#[test]
fn a_signed_message_with_bad_padding_changes_nothing() {
    let mut pair = Pair::new();
    let Ok(key) = pair.sender.own_sender_key(&pair.own);
    let mut key = key.unwrap();
    let mut bad = SenderKeyMessage::begin(key.id, 5, 32);
    bad.extend_from_slice(&[0xC1; 32]);
    SenderKeyMessage::sign(&mut bad, &mut key.signing, &mut pair.rng);
    assert_eq!(pair.decrypt(&bad), Err(SignalError::Padding));
    assert_eq!(SignalError::Padding.retry_reason(), 4);
    let sent = pair.encrypt();
    assert_eq!(pair.decrypt(&sent).map(|found| found.iteration), Ok(0));
}

#[test]
fn forget_takes_the_pages_along() {
    let mut pair = Pair::new();
    let sent = pair.encrypt_many(200);
    pair.decrypt(&sent[199]).unwrap();
    assert_eq!(pair.receiver.page_count(&pair.own), 4);
    assert_eq!(forget(&mut pair.receiver, &pair.own), Ok(()));
    assert_eq!(pair.receiver, MemorySenderKeyStore::new());
    assert_eq!(forget(&mut pair.receiver, &pair.own), Ok(()));
}

#[test]
fn keys_move_to_another_name() {
    let mut pair = Pair::new();
    let to = SenderKeyName::new(GROUP, Address::new("lid:1"));
    let sent = pair.encrypt_many(100);
    pair.decrypt(&sent[80]).unwrap();
    relocate(&mut pair.receiver, &pair.own, &to).unwrap();
    assert_eq!((pair.receiver.page_count(&pair.own), pair.receiver.page_count(&to)), (0, 2));
    let senders = [to.sender().clone()];
    for readable in [3, 79, 81] {
        assert!(pair.decrypt_from(&senders, &sent[readable]).is_ok());
    }
    assert_eq!(pair.decrypt_from(&senders, &sent[80]), Err(SignalError::Duplicate));
    let before = pair.receiver.encode();
    relocate(&mut pair.receiver, &to, &to).unwrap();
    relocate(&mut pair.receiver, &pair.own.clone(), &to).unwrap();
    assert_eq!(pair.receiver.encode(), before, "nothing to move");
}

/// The same key under both names, each of which has read other messages: each combination of who is ahead.
#[test]
fn two_copies_of_a_key_are_united() {
    for (first, second) in [(90, 150), (150, 90), (90, 90)] {
        let mut pair = Pair::new();
        let to = SenderKeyName::new(GROUP, Address::new("lid:1"));
        let message = pair.message();
        process(&mut pair.receiver, &to, &message.encode()).unwrap();
        let sent = pair.encrypt_many(200);
        let [here, there] = [&pair.own, &to].map(|name| [name.sender().clone()]);
        for at in [first, 2, 7] {
            pair.decrypt_from(&here, &sent[at]).unwrap();
        }
        for at in [second, 3, 7] {
            pair.decrypt_from(&there, &sent[at]).unwrap();
        }
        relocate(&mut pair.receiver, &pair.own.clone(), &to).unwrap();
        let Ok(record) = pair.receiver.sender_key(&to);
        assert_eq!(record.unwrap().page_ids().count(), pair.receiver.page_count(&to));
        assert_eq!(pair.receiver.page_count(&pair.own), 0);
        pair.receiver.reload().unwrap();
        for (at, sent) in sent.iter().enumerate() {
            let was_read = [first, second, 2, 3, 7].contains(&at);
            let found = pair.decrypt_from(&there, sent);
            assert_eq!(found.is_ok(), !was_read, "{first} {second}: message {at}: {found:?}");
            assert_eq!(pair.decrypt_from(&there, sent), Err(SignalError::Duplicate));
        }
    }
}

#[test]
fn a_union_keeps_the_limits() {
    let mut pair = Pair::new();
    let to = SenderKeyName::new(GROUP, Address::new("lid:1"));
    let first = pair.message();
    // The same id with another signing key: the one under the new name stays.
    let mut other = first.clone();
    other.signing = *crate::crypto::KeyPair::generate(&mut pair.rng).public();
    process(&mut pair.receiver, &to, &other.encode()).unwrap();
    let mut expected = vec![other.id];
    for _ in 0..3 {
        let message = pair.rotate();
        process(&mut pair.receiver, &to, &message.encode()).unwrap();
        expected.insert(0, message.id);
    }
    // Of two more only the newer one has room.
    let [old, new] = [(); 2].map(|()| pair.rotate());
    for message in [&old, &new] {
        process(&mut pair.receiver, &pair.own, &message.encode()).unwrap();
    }
    relocate(&mut pair.receiver, &pair.own.clone(), &to).unwrap();
    expected.push(new.id);
    let Ok(record) = pair.receiver.sender_key(&to);
    let record = record.unwrap();
    assert_eq!(record.positions().map(|(id, _)| id).collect::<Vec<_>>(), expected);
    assert_eq!(record.keys.iter().find(|key| key.id == first.id).unwrap().signing, other.signing);
}

#[test]
fn damaged_records_are_refused() {
    let mut pair = Pair::new();
    let sent = pair.encrypt_many(3);
    pair.decrypt(&sent[2]).unwrap();
    let message = pair.rotate();
    process(&mut pair.receiver, &pair.own, &message.encode()).unwrap();
    let record = pair.record();
    let Ok(own) = pair.sender.own_sender_key(&pair.own);
    let (bytes, own) = (record.encode(), own.unwrap().encode());
    assert_eq!((bytes.len(), own.len()), (7 + 2 * 111 + 12, 137));
    for len in 0..bytes.len() {
        assert!(SenderKeyRecord::decode(&bytes[..len]).is_err());
    }
    for len in 0..own.len() {
        assert!(OwnSenderKey::decode(&own[..len]).is_err());
    }
    assert!(SenderKeyRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
    assert!(OwnSenderKey::decode(&[&own[..], &[0]].concat()).is_err());
    let version = |what| Err(SignalError::RecordVersion { what, version: 2 });
    assert_eq!(SenderKeyRecord::decode(&[2]).map(drop), version("sender key"));
    assert_eq!(OwnSenderKey::decode(&[2]).map(drop), version("own sender key"));
    // Two keys of one id or of one serial, a serial that is still to come.
    let mut twice = record.clone();
    twice.keys[1].id = twice.keys[0].id;
    assert!(SenderKeyRecord::decode(&twice.encode()).is_err());
    let mut twice = record.clone();
    twice.keys[1].serial = twice.keys[0].serial;
    assert!(SenderKeyRecord::decode(&twice.encode()).is_err());
    let mut early = record;
    early.keys[0].serial = SenderKeySerial(2);
    assert!(SenderKeyRecord::decode(&early.encode()).is_err());
}

#[test]
fn a_page_that_is_not_there_is_a_damaged_record() {
    let mut pair = Pair::new();
    let sent = pair.encrypt_many(2);
    pair.decrypt(&sent[1]).unwrap();
    let id = pair.record().page_ids().next().unwrap();
    pair.receiver.delete_sender_key_page(&pair.own, id);
    let missing = SignalError::Record { what: "skipped page", reason: "a key of the index is not there" };
    assert_eq!(pair.decrypt(&sent[0]), Err(missing));
}

#[test]
fn ids_have_31_bits_and_keys_differ() {
    let mut pair = Pair::new();
    let keys: Vec<_> = (0..64).map(|_| pair.rotate()).collect();
    assert!(keys.iter().all(|key| key.id.0 >> 31 == 0));
    let distinct: std::collections::BTreeSet<_> = keys.iter().map(|key| (key.id, key.signing)).collect();
    assert_eq!(distinct.len(), 64);
    assert!(keys.iter().any(|key| key.id.0 >> 30 == 1), "all 31 bits are used");
}

#[test]
fn nothing_prints_secrets_or_addresses() {
    let mut pair = Pair::new();
    let Ok(own) = pair.sender.own_sender_key(&pair.own);
    let own = own.unwrap();
    let chain = own.chain.key.clone();
    let sent = pair.encrypt();
    let found = pair.decrypt(&sent).unwrap();
    let record = pair.record();
    let printed = format!("{:?} {own:?} {found:?} {record:?} {:?}", pair.own, pair.receiver);
    let hex_of = |secret: &Secret<32>| format!("{:02x}{:02x}", secret.expose()[0], secret.expose()[1]);
    assert!(!printed.contains("a:1") && !printed.contains("hello"));
    assert!(!printed.contains(&format!("{:?}", &chain.expose()[..4])) && !printed.contains(&hex_of(&chain)));
    assert!(printed.contains("SenderKeyName([redacted])"));
}

#[test]
fn fuzz_entries_take_what_the_tests_make() {
    let mut pair = Pair::new();
    let (message, sent) = (pair.message().encode(), pair.encrypt());
    for selector in 0..3 {
        fuzz::sender_key_message(&[&[selector], &message[..]].concat());
        fuzz::sender_key_message(&[&[selector], &sent[..]].concat());
    }
    let piece = |kind: u8, bytes: &[u8]| [&[kind], &(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let block = [&[0x33, 8, 1, 16, 9, 26, 16][..], &[9; 16]].concat();
    fuzz::receive(&[piece(0, &message), piece(1, &sent), piece(2, &block), piece(0, &message)].concat());
    fuzz::converse(&[0, 1 | 60 << 2, 2 | 30 << 2, 0, 2, 3, 1, 0, 1 | 63 << 2, 2 | 62 << 2, 3 | 40 << 2, 2 | 40 << 2]);
}
