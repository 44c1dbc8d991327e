//! App state is read, refused and written as by other implementations: `vectors/appstate.json` (spec 05, part A).

#[path = "common/vectors.rs"]
mod vectors;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use vectors::{array, bytes, vector};
use wamd::{
    appstate::{
        Action, AppStateError, Applied, Change, CollectionName, CollectionState, EntryChange, KeyId, Keyring, LtHash,
        Mutation, MutationKeys, Operation, Patch, PatchForm, Snapshot, Trust, apply_patch, apply_snapshot, build_patch,
        encode::{ExternalPatch, build_snapshot, index_macs},
        external_blob,
        index::Index,
        keys::{self, SharedKey},
        recovery,
    },
    crypto::{Secret, hkdf_sha256, sha256},
    proto::{Message, e2e::ProtocolMessage, syncd_recovery},
};

type Set = BTreeMap<[u8; 32], [u8; 32]>;

fn file() -> Value {
    vector("appstate.json")
}

fn keyring(file: &Value) -> Keyring {
    let keys = file["keys"].as_array().unwrap().iter();
    keys.map(|key| (id(&key["key_id"]), MutationKeys::expand(&Secret::new(array(&key["key_data"]))))).collect()
}

fn id(value: &Value) -> KeyId {
    KeyId::new(&bytes(value)).unwrap()
}

fn collection(value: &Value) -> CollectionName {
    CollectionName::parse(value.as_str().unwrap()).unwrap()
}

fn state(version: &Value, lthash: &Value) -> CollectionState {
    let lthash = LtHash::from_bytes(&array(lthash));
    CollectionState { version: version.as_u64().unwrap(), lthash, trust: Trust::Verified }
}

fn entries(store: &Value) -> Set {
    let pairs = store.as_array().unwrap().iter();
    pairs.map(|entry| (array(&entry["index_mac"]), array(&entry["value_mac"]))).collect()
}

fn carry_out(set: &mut Set, changes: &[EntryChange]) {
    for change in changes {
        match change {
            EntryChange::Put(index, value) => drop(set.insert(*index, *value)),
            EntryChange::Delete(index) => drop(set.remove(index)),
        }
    }
}

fn operation(value: &Value) -> Operation {
    if value == 1 { Operation::Remove } else { Operation::Set }
}

fn check_mutation(mutation: &Mutation, expected: &Value) {
    assert_eq!(mutation.operation, operation(&expected["operation"]));
    assert_eq!(std::str::from_utf8(&mutation.index).unwrap(), expected["index_json"].as_str().unwrap());
    assert_eq!(mutation.value, bytes(&expected["value"]));
    assert_eq!(i64::from(mutation.version), expected["version"].as_i64().unwrap());
    assert_eq!(mutation.index_mac, array(&expected["index_mac"]));
    assert_eq!(mutation.value_mac, array(&expected["value_mac"]));
}

#[test]
fn keys_expand() {
    let file = file();
    for key in file["keys"].as_array().unwrap() {
        let keys = MutationKeys::expand(&Secret::new(array(&key["key_data"])));
        let MutationKeys { index, value_encryption, value_mac, snapshot_mac, patch_mac } = &keys;
        let expected = ["index", "value_encryption", "value_mac", "snapshot_mac", "patch_mac"].map(|n| array(&key[n]));
        assert_eq!([index, value_encryption, value_mac, snapshot_mac, patch_mac].map(|k| *k.expose()), expected);
        assert_eq!(format!("{keys:?}"), "MutationKeys([redacted])");
    }
    let ring = keyring(&file);
    assert_eq!(ring.newest().unwrap().0.as_bytes(), hex::decode("0003000094a2").unwrap());
}

#[test]
fn the_newest_key_is_of_the_highest_epoch_and_the_lowest_device() {
    let check = |ids: &[&str], newest: Option<&str>| {
        let ids: Vec<KeyId> = ids.iter().map(|id| KeyId::new(&hex::decode(id).unwrap()).unwrap()).collect();
        let newest = newest.map(|id| KeyId::new(&hex::decode(id).unwrap()).unwrap());
        assert_eq!(KeyId::newest(&ids), newest.as_ref());
    };
    check(&["000000000001", "000500000002", "000300000002"], Some("000300000002"));
    check(&["ffffffffffffff", "000000000001"], Some("000000000001"));
    check(&["01", "00000000000000"], None);
    assert_eq!(KeyId::new(&[]), Err(AppStateError::NoKeyId));
    assert_eq!(KeyId::new(&[1; 65]), Err(AppStateError::NoKeyId));
}

#[test]
fn key_shares_are_read_and_requests_written() {
    let file = file();
    let message = ProtocolMessage::decode(&*bytes(&file["key_share"]["protocol_message"])).unwrap();
    let mut share = *message.app_state_sync_key_share.unwrap();
    assert_eq!(share.encode_to_vec(), bytes(&file["key_share"]["app_state_sync_key_share"]));
    // One that the phone does not have, one of the wrong length, one without an id.
    let mut bad = vec![share.keys[0].clone(), share.keys[0].clone(), share.keys[0].clone()];
    bad[0].key_data = None;
    bad[1].key_data.as_mut().unwrap().key_data = Some(vec![1; 31].into());
    bad[2].key_id = None;
    share.keys.extend(bad);
    let expected = file["keys"].as_array().unwrap();
    let found: Vec<SharedKey> = keys::shared_keys(&share).collect();
    assert_eq!(found.len(), 4);
    for (found, expected) in found.iter().zip(expected) {
        let SharedKey::Key(found, record) = found else { panic!("a key") };
        assert_eq!(found, &id(&expected["key_id"]));
        let keys = MutationKeys::expand(&Secret::new(array(&expected["key_data"])));
        assert!(MutationKeys::from_record(record) == Ok(keys));
    }
    assert!(matches!(&found[3], SharedKey::Absent(absent) if *absent == id(&expected[0]["key_id"])));
    let request = keys::key_request([&id(&expected[0]["key_id"]), &id(&expected[1]["key_id"])]);
    assert_eq!(request.encode_to_vec(), bytes(&file["key_share"]["key_request"]));
    assert!(MutationKeys::from_record(&[0x0a, 1, 1]).is_err() && MutationKeys::from_record(&[0xff]).is_err());
}

#[test]
fn lthash_adds_and_subtracts() {
    let lthash = &file()["lthash"];
    let info = lthash["info"].as_str().unwrap().as_bytes();
    for case in lthash["expand"].as_array().unwrap() {
        let expanded: [u8; 128] = hkdf_sha256(None, &array::<32>(&case["value_mac"]), info);
        assert_eq!(expanded, array(&case["expanded"]));
    }
    let mut hash = LtHash::new();
    for step in lthash["steps"].as_array().unwrap() {
        step["subtract"].as_array().unwrap().iter().for_each(|mac| hash.subtract(&array(mac)));
        step["add"].as_array().unwrap().iter().for_each(|mac| hash.add(&array(mac)));
        assert_eq!(hash.to_bytes(), array(&step["state"]));
        assert_eq!(LtHash::from_bytes(&hash.to_bytes()), hash);
    }
    let bulk = &lthash["bulk"];
    let mut hash = LtHash::new();
    for i in 0..bulk["n"].as_u64().unwrap() {
        let label = format!("{}/{i}", bulk["label"].as_str().unwrap());
        hash.add(&sha256(&[label.as_bytes(), &0_u32.to_be_bytes()]));
    }
    assert_eq!(hash.to_bytes(), array(&bulk["state"]));
}

/// Every kind of the vectors: its action is known, and written again it is the same, sealed with the same IV as well.
#[test]
fn mutations_are_written_and_read() {
    let file = file();
    let ring = keyring(&file);
    for case in file["mutations"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (index, value) = (case["index_json"].as_str().unwrap(), bytes(&case["value"]));
        let operation = operation(&case["operation"]);
        assert_eq!(Index::parse(index.as_bytes()).unwrap().to_json(), index, "{name}");
        let action = Action::parse(operation, index.as_bytes(), &value);
        if name == "empty-value" {
            assert_eq!(action, Action::Unknown, "a SET without its value");
        } else {
            let schema = action.schema().unwrap_or_else(|| panic!("{name} is known"));
            assert_eq!(schema.collection.as_str(), case["collection"], "{name}");
            assert_eq!(i64::from(schema.version.unwrap()), case["version"].as_i64().unwrap(), "{name}");
            assert_eq!(action.index().unwrap(), index, "{name}");
            assert_eq!(action.value(1_700_000_000_000).unwrap().encode_to_vec().len(), value.len(), "{name}");
        }
        let change =
            Change { operation, index: index.into(), value, version: case["version"].as_i64().unwrap() as i32 };
        let id = id(&case["key_id"]);
        let one: Keyring = [(id.clone(), ring.get(&id).unwrap().clone())].into_iter().collect();
        // What is removed must be there.
        let there: Set = [(array(&case["index_mac"]), [9; 32])].into();
        let local = CollectionState { version: 4, lthash: hash(&there), trust: Trust::Verified };
        let collection = collection(&case["collection"]);
        let mut rng = Script { bytes: bytes(&case["iv"]), at: 0 };
        let built = build_patch(collection, &local, &[change], &one, &there, &mut rng).unwrap();
        let PatchForm::Inline(patch) = built.form else { panic!("small") };
        let mutation = bytes(&case["syncd_mutation"]);
        assert_eq!(&patch[1..1 + mutation.len() + 2][2..], &mutation[..], "{name}");
        let applied = apply_patch(collection, &local, &Patch::decode(&patch).unwrap(), &one, &there).unwrap();
        assert_eq!(applied.state, built.state, "{name}");
        assert_eq!(applied.changes, built.changes, "{name}");
        check_mutation(&applied.mutations[0], case);
        let timestamp = (name != "empty-value").then_some(1_700_000_000_000);
        assert_eq!(applied.mutations[0].timestamp(), timestamp, "{name}");
    }
}

fn hash(set: &Set) -> LtHash {
    let mut hash = LtHash::new();
    set.values().for_each(|value| hash.add(value));
    hash
}

#[test]
fn the_scenario_is_followed() {
    let file = file();
    let (ring, scenario) = (keyring(&file), &file["scenario"]);
    let collection = collection(&scenario["collection"]);
    let snapshot = &scenario["snapshot"];
    let received = bytes(&snapshot["syncd_snapshot"]);
    let decoded = Snapshot::decode(&received).unwrap();
    assert!(decoded.key_ids().unwrap().contains(&id(&snapshot["key_id"])));
    let applied = apply_snapshot(collection, &CollectionState::default(), &decoded, &ring).unwrap();
    assert_eq!(applied.state, state(&snapshot["version"], &snapshot["lthash"]));
    let expected = snapshot["mutations"].as_array().unwrap();
    assert_eq!((applied.mutations.len(), applied.duplicates), (expected.len(), 0));
    applied.mutations.iter().zip(expected).for_each(|(found, expected)| check_mutation(found, expected));
    let blob = external_blob(&bytes(&snapshot["external_blob_reference"])).unwrap();
    assert!(blob.media_key.is_some_and(|key| key.len() == 32) && blob.direct_path.is_some());

    let (mut state_now, mut set): (_, Set) = (applied.state, applied.entries.into_iter().collect());
    for step in scenario["patches"].as_array().unwrap() {
        let (received, external) = (bytes(&step["syncd_patch"]), step.get("external_plaintext").map(bytes));
        let mut patch = Patch::decode(&received).unwrap();
        assert_eq!(patch.external().is_some(), external.is_some(), "{}", step["desc"]);
        if let Some(external) = &external {
            let early = apply_patch(collection, &state_now, &patch, &ring, &set);
            assert_eq!(early, Err(AppStateError::External));
            patch.set_external_mutations(external).unwrap();
        }
        let Applied { state: next, changes, mutations, missing_removes, mismatched } =
            apply_patch(collection, &state_now, &patch, &ring, &set).unwrap();
        carry_out(&mut set, &changes);
        assert_eq!(next, state(&step["version"], &step["lthash"]), "{}", step["desc"]);
        assert_eq!((set.len() as u64, mismatched), (step["store_size"].as_u64().unwrap(), false), "{}", step["desc"]);
        let expected = step["mutations"].as_array().unwrap();
        assert_eq!(mutations.len(), expected.len());
        mutations.iter().zip(expected).for_each(|(found, expected)| check_mutation(found, expected));
        let text = step["desc"].as_str().unwrap();
        assert_eq!(missing_removes, usize::from(text.contains("unknown entry")), "{text}");
        let superseded = mutations.iter().filter(|mutation| mutation.superseded).count();
        let turns = text.contains("same index under one key") || text.contains("rotation") || step["version"] == 47;
        assert_eq!(superseded, usize::from(turns), "{text}");
        state_now = next;
    }
    assert_eq!(state_now, state(&scenario["final"]["version"], &scenario["final"]["lthash"]));
    assert_eq!(set, entries(&scenario["final"]["store"]));
    assert_eq!(hash(&set), state_now.lthash);
}

#[test]
fn a_collection_can_begin_with_its_first_patch() {
    let file = file();
    let (ring, genesis) = (keyring(&file), &file["genesis"]);
    let received = bytes(&genesis["syncd_patch"]);
    let patch = Patch::decode(&received).unwrap();
    let name = collection(&genesis["collection"]);
    let applied = apply_patch(name, &CollectionState::default(), &patch, &ring, &Set::new()).unwrap();
    assert_eq!(applied.state, state(&genesis["version"], &genesis["lthash"]));
}

#[test]
fn an_outgoing_patch_is_that_of_others() {
    let file = file();
    let (ring, outgoing) = (keyring(&file), &file["outgoing"]);
    let id = id(&outgoing["key_id"]);
    let ring: Keyring = [(id.clone(), ring.get(&id).unwrap().clone())].into_iter().collect();
    let mutations = outgoing["mutations"].as_array().unwrap();
    let changes: Vec<Change> = mutations
        .iter()
        .map(|case| {
            let (index, value) = (case["index_json"].as_str().unwrap(), bytes(&case["value"]));
            let action = Action::parse(Operation::Set, index.as_bytes(), &value);
            let timestamp = wamd::proto::sync_action::SyncActionValue::decode(&*value).unwrap().timestamp.unwrap();
            let change = Change::set(&action, timestamp).unwrap();
            assert_eq!((&change.value, i64::from(change.version)), (&value, case["version"].as_i64().unwrap()));
            change
        })
        .collect();
    let random = mutations.iter().flat_map(|case| bytes(&case["iv"])).collect();
    let (base, set) = (state(&outgoing["base_version"], &outgoing["base_lthash"]), entries(&outgoing["base_store"]));
    assert!(index_macs(&changes, &ring).contains(set.keys().next().unwrap()));
    let mut rng = Script { bytes: random, at: 0 };
    let collection = collection(&outgoing["collection"]);
    let built = build_patch(collection, &base, &changes, &ring, &set, &mut rng).unwrap();
    assert_eq!(built.state, state(&outgoing["new_version"], &outgoing["new_lthash"]));
    assert_eq!(built.form, PatchForm::Inline(bytes(&outgoing["syncd_patch"])));
}

#[test]
fn every_bad_patch_is_refused_for_its_reason() {
    let file = file();
    let (ring, base) = (keyring(&file), &file["reject_base"]);
    let (name, local, set) =
        (collection(&base["collection"]), state(&base["version"], &base["lthash"]), entries(&base["store"]));
    let apply = |case: &Value, local: &CollectionState| {
        let received = bytes(&case["syncd_patch"]);
        let patch = Patch::decode(&received)?;
        apply_patch(name, local, &patch, &ring, &set)
    };
    let control = apply(&file["accept_control"], &local).unwrap();
    assert_eq!(control.state.version, file["accept_control"]["version"].as_u64().unwrap());
    let mut reasons = BTreeSet::new();
    for case in file["reject"].as_array().unwrap() {
        let error = apply(case, &local).expect_err(case["name"].as_str().unwrap());
        let reason = match &error {
            AppStateError::PatchMac => "patch_mac",
            AppStateError::SnapshotMac => "snapshot_mac",
            AppStateError::Version { .. } => "version",
            AppStateError::NoKeyId => "key",
            AppStateError::MissingKeys(ids) => {
                assert_eq!(*ids, [id(&case["missing_key"])]);
                "missing_key"
            }
            AppStateError::ValueMac => "value_mac",
            AppStateError::IndexMac => "index_mac",
            AppStateError::Decrypt => "decrypt",
            AppStateError::DuplicateIndex => "duplicate_index",
            AppStateError::Malformed(_) => "malformed",
            other => panic!("{}: {other}", case["name"]),
        };
        assert_eq!(reason, case["reason"], "{}", case["name"]);
        reasons.insert(reason);
    }
    assert_eq!(reasons.len(), 10);

    // The second mismatch in a row is applied and told, and from then on nothing is compared until a snapshot comes.
    let cases = file["reject"].as_array().unwrap();
    let case = cases.iter().find(|case| case["reason"] == "snapshot_mac").unwrap();
    let applied = apply(case, &CollectionState { trust: Trust::Refetched, ..local.clone() }).unwrap();
    assert_eq!((applied.state.trust, applied.mismatched), (Trust::Mismatched, true));
    let applied = apply(case, &CollectionState { trust: Trust::Mismatched, ..local.clone() }).unwrap();
    assert_eq!((applied.state.trust, applied.mismatched), (Trust::Mismatched, false));
    let applied = apply(&file["accept_control"], &CollectionState { trust: Trust::Refetched, ..local }).unwrap();
    assert_eq!((applied.state.trust, applied.mismatched), (Trust::Verified, false));
}

#[test]
fn every_bad_snapshot_is_refused() {
    let file = file();
    let (ring, cases) = (keyring(&file), &file["snapshot_reject"]);
    let collection = collection(&cases["collection"]);
    let apply = |case: &Value, local: &CollectionState| {
        let received = bytes(&case["syncd_snapshot"]);
        apply_snapshot(collection, local, &Snapshot::decode(&received)?, &ring)
    };
    let control = apply(&cases["control"], &CollectionState::default()).unwrap();
    assert_eq!(control.state.lthash.to_bytes(), array(&cases["control"]["lthash"]));
    let (local, version) = (CollectionState { version: 5, ..Default::default() }, control.state.version);
    assert_eq!(apply(&cases["control"], &local), Err(AppStateError::Version { version, local: 5 }));
    for case in cases["cases"].as_array().unwrap() {
        assert!(apply(case, &CollectionState::default()).is_err(), "{}", case["name"]);
    }
}

/// An entry of an older key is replaced, and readers do not hear that it was removed.
#[test]
fn a_change_replaces_what_an_older_key_made() {
    let file = file();
    let ring = keyring(&file);
    let (old, new) = (id(&file["keys"][0]["key_id"]), ring.newest().unwrap().0.clone());
    let chat = wamd::Jid::pn("15550001111");
    let mute = Change::set(&Action::mute(chat.clone(), wamd::appstate::Mute::Forever), 1).unwrap();
    let name = CollectionName::RegularHigh;
    let (snapshot, _) =
        build_snapshot(name, 7, std::slice::from_ref(&mute), (&old, ring.get(&old).unwrap()), &mut Counting(1));
    let fresh = CollectionState::default();
    let snapshot = apply_snapshot(name, &fresh, &Snapshot::decode(&snapshot).unwrap(), &ring).unwrap();
    let mut set: Set = snapshot.entries.into_iter().collect();
    let built = build_patch(name, &snapshot.state, std::slice::from_ref(&mute), &ring, &set, &mut Counting(2)).unwrap();
    let PatchForm::Inline(patch) = built.form else { panic!("small") };
    let applied = apply_patch(name, &snapshot.state, &Patch::decode(&patch).unwrap(), &ring, &set).unwrap();
    let kinds: Vec<_> = applied.mutations.iter().map(|m| (m.operation, &m.key_id, m.superseded)).collect();
    assert_eq!(kinds, [(Operation::Set, &new, false), (Operation::Remove, &old, true)]);
    carry_out(&mut set, &applied.changes);
    assert_eq!((set.len(), hash(&set)), (1, applied.state.lthash));
    // A removal of what is not there is not sent.
    let remove = Change { operation: Operation::Remove, index: b"[\"mute\",\"1@s.whatsapp.net\"]".into(), ..mute };
    let nothing = build_patch(name, &applied.state, &[remove], &ring, &set, &mut Counting(3));
    assert!(matches!(nothing, Err(AppStateError::Unsendable(_))));
    let keyless = build_patch(name, &applied.state, &[], &Keyring::new(), &set, &mut Counting(3));
    assert!(matches!(keyless, Err(AppStateError::Unsendable(_))));
}

/// More than a hundred changes travel in a file.
#[test]
fn large_patches_are_external() {
    let file = file();
    let (ring, name) = (keyring(&file), CollectionName::CriticalUnblockLow);
    let changes: Vec<Change> = (0..150)
        .map(|i| {
            let action = Action::contact(wamd::Jid::pn(format!("1555000{i:04}")), Some(format!("N {i}")), None, true);
            Change::set(&action, 5).unwrap()
        })
        .collect();
    let fresh = CollectionState::default();
    let built = build_patch(name, &fresh, &changes, &ring, &Set::new(), &mut Counting(1)).unwrap();
    let PatchForm::External(external) = built.form else { panic!("large") };
    let reference = external_blob(&bytes(&file["scenario"]["snapshot"]["external_blob_reference"])).unwrap();
    let sent = ExternalPatch::finish(&external, &reference);
    let mut patch = Patch::decode(&sent).unwrap();
    assert_eq!(patch.external(), Some(&reference));
    patch.set_external_mutations(&external.mutations).unwrap();
    let applied = apply_patch(name, &fresh, &patch, &ring, &Set::new()).unwrap();
    assert_eq!((applied.state, applied.mutations.len()), (built.state, 150));
}

/// An index that stands twice in a snapshot: both count in the hash, the last one is the entry.
#[test]
fn the_last_of_a_repeated_index_counts() {
    let file = file();
    let (ring, name) = (keyring(&file), CollectionName::RegularLow);
    let id = id(&file["keys"][1]["key_id"]);
    let keys = ring.get(&id).unwrap();
    let pin = |pinned| Change::set(&Action::pin(wamd::Jid::pn("15550001111"), pinned), 1).unwrap();
    let (one, entries_one) = build_snapshot(name, 3, &[pin(true)], (&id, keys), &mut Counting(1));
    let (two, entries_two) = build_snapshot(name, 3, &[pin(false)], (&id, keys), &mut Counting(2));
    let record = |snapshot: &[u8]| snapshot[4..snapshot.len() - 34 - 10].to_vec();
    let mut lthash = LtHash::new();
    lthash.add(&entries_one[0].1);
    lthash.add(&entries_two[0].1);
    let mac = keys.snapshot_mac(name, 3, &lthash);
    let both = [&one[..4], &record(&one), &record(&two), &[0x1a, 32], &mac, &one[one.len() - 10..]].concat();
    let applied = apply_snapshot(name, &CollectionState::default(), &Snapshot::decode(&both).unwrap(), &ring).unwrap();
    assert_eq!((&applied.entries, applied.duplicates), (&entries_two, 1));
    assert_eq!((applied.mutations.len(), applied.state.lthash), (1, lthash));
    assert_eq!(applied.mutations[0].action(), Action::pin(wamd::Jid::pn("15550001111"), false));
}

/// A snapshot that the phone sends when nothing else helps.
#[test]
fn the_phone_can_send_a_snapshot() {
    use std::io::Write as _;

    let file = file();
    let (ring, scenario) = (keyring(&file), &file["scenario"]);
    let name = collection(&scenario["collection"]);
    let received = bytes(&scenario["snapshot"]["syncd_snapshot"]);
    let fresh = CollectionState::default();
    let applied = apply_snapshot(name, &fresh, &Snapshot::decode(&received).unwrap(), &ring).unwrap();
    let records = applied.mutations.iter().map(|mutation| syncd_recovery::SyncdPlainTextRecord {
        value: Some(Box::new(wamd::proto::sync_action::SyncActionData {
            index: Some(mutation.index.clone()),
            value: Some(Box::new(Message::decode(&*mutation.value).unwrap())),
            padding: None,
            version: Some(mutation.version),
        })),
        key_id: Some(mutation.key_id.as_bytes().to_vec().into()),
        mac: Some(mutation.value_mac.to_vec().into()),
    });
    let recovery = syncd_recovery::SyncdSnapshotRecovery {
        version: Some(Box::new(syncd_recovery::SyncdVersion { version: Some(41) })),
        collection_name: Some(name.to_string()),
        mutation_records: records.collect(),
        collection_lthash: Some(applied.state.lthash.to_bytes().to_vec().into()),
    };
    let plain = recovery.encode_to_vec();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    for (sent, compressed) in [(&plain, false), (&gzip, true)] {
        let read = recovery::decode_recovery(sent, compressed).unwrap();
        assert_eq!(recovery::apply_recovery(name, read, &ring).as_ref(), Ok(&applied));
    }
    let refused = |change: &dyn Fn(&mut syncd_recovery::SyncdSnapshotRecovery), error| {
        let mut bad = recovery.clone();
        change(&mut bad);
        assert_eq!(recovery::apply_recovery(name, bad, &ring), Err(error));
    };
    refused(&|bad| bad.collection_lthash = None, AppStateError::LtHash);
    refused(&|bad| drop(bad.mutation_records.pop()), AppStateError::LtHash);
    refused(&|bad| bad.mutation_records[0].mac = None, AppStateError::ValueMac);
    refused(&|bad| bad.mutation_records[0].key_id = None, AppStateError::NoKeyId);
    assert!(recovery::decode_recovery(&gzip[..gzip.len() - 9], true).is_err(), "cut off");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; 64 << 20]).unwrap();
    let bomb = recovery::decode_recovery(&bomb.finish().unwrap(), true);
    assert!(matches!(bomb, Err(AppStateError::TooLarge { .. })));
}

/// What this version does not know is kept as it stands, and so is what does not fit its index.
#[test]
fn unknown_actions_are_no_errors() {
    let check = |index: &str, value: &str| {
        let value = hex::decode(value).unwrap();
        assert_eq!(Action::parse(Operation::Set, index.as_bytes(), &value), Action::Unknown, "{index}");
    };
    check(r#"["a_new_action","x"]"#, "0801");
    check(r#"["mute","15550001111@s.whatsapp.net"]"#, "2a020801");
    check(r#"["mute"]"#, "22020801");
    check(r#"["mute","15550001111@s.whatsapp.net","x"]"#, "22020801");
    check(r#"["mute","no jid@"]"#, "22020801");
    check(r#"["mute","15550001111@s.whatsapp.net"]"#, "2202");
    let fits = Action::parse(Operation::Set, br#"["mute","15550001111@s.whatsapp.net"]"#, &[0x22, 2, 8, 1]);
    assert_eq!(fits.event(Operation::Set), Some("chats.update"));
    let gone = Action::parse(Operation::Remove, br#"["contact","15550001111@s.whatsapp.net"]"#, &[]);
    assert_eq!(gone.event(Operation::Remove), Some("contacts.deleted"));
    assert_eq!(format!("{gone:?}"), "Action(contact)");
}

#[test]
fn the_table_has_no_name_twice_and_nothing_unknown_is_sent() {
    let names: BTreeSet<&str> = Action::SCHEMAS.iter().map(|schema| schema.name).collect();
    assert_eq!((names.len(), Action::SCHEMAS.len()), (92, 92));
    assert!(Action::SCHEMAS.iter().all(|schema| schema.version.is_none_or(|version| (1..=8).contains(&version))));
    let unknown = Action::parse(Operation::Set, br#"["setting_securityNotification"]"#, &[]);
    assert!(unknown.schema().is_some() && Change::set(&unknown, 1).is_none());
    assert!(Change::set(&Action::Unknown, 1).is_none());
}

/// Gives out the bytes of a vector in order.
struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("IVs are filled, not drawn by number")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("IVs are filled, not drawn by number")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.bytes[self.at..self.at + to.len()]);
        self.at += to.len();
        Ok(())
    }
}

impl TryCryptoRng for Script {}

/// Bytes that are not random, and not the same twice.
struct Counting(u8);

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("IVs are filled, not drawn by number")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("IVs are filled, not drawn by number")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.fill(self.0);
        self.0 = self.0.wrapping_add(16);
        Ok(())
    }
}

impl TryCryptoRng for Counting {}
