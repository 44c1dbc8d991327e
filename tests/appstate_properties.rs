//! Devices that hear the same patches hold the same collection, whoever wrote them and however late they hear of them (spec 05
//! §A7); and what is written is read as it was meant.
//!
//! Two devices change a few settings, under keys that are renewed, while a server orders their patches and refuses those that
//! were built on an old version. One device keeps its entries in a map, the other in pages of records, of which only those are
//! loaded that it asks for. A third one comes late, by way of a snapshot.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use wamd::{
    appstate::{
        Action, AppStateError, Change, CollectionName, CollectionState, EntryChange, KeyId, Keyring, Ladder, LtHash,
        MutationKeys, Mute, Operation, Patch, PatchForm, Snapshot, Trust, apply_patch, apply_snapshot, build_patch,
        encode::{build_snapshot, index_macs},
        fuzz,
        ladder::{Do, Input},
        pages::{Layout, LoadedPages, StoredCollection},
    },
    clock::Now,
    crypto::Secret,
    jid::Jid,
};

const NAME: CollectionName = CollectionName::RegularHigh;

#[derive(Clone, Debug)]
enum Op {
    /// A device changes some settings, and sends.
    Change { device: usize, changes: Vec<(u8, u8)>, key: u8 },
    /// A device hears of so many patches.
    Hear { device: usize, count: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let change = (0..2_usize, vec((0..6_u8, 0..5_u8), 1..4), 0..3_u8);
    prop_oneof![
        3 => change.prop_map(|(device, changes, key)| Op::Change { device, changes, key }),
        1 => (0..2_usize, 1..4_u8).prop_map(|(device, count)| Op::Hear { device, count }),
    ]
}

fn key(number: u8) -> (KeyId, MutationKeys) {
    let id = KeyId::new(&[0, 0, 0, 0, 0, number]).expect("six bytes");
    (id, MutationKeys::expand(&Secret::new([number; 32])))
}

fn change(chat: u8, what: u8) -> Change {
    let chat = Jid::pn(format!("1555000000{chat}"));
    let set = |mute| Change::set(&Action::mute(chat.clone(), mute), 1).expect("a known version");
    match what {
        0 => Change { operation: Operation::Remove, ..set(Mute::Off) },
        1 => set(Mute::Off),
        2 => set(Mute::Forever),
        other => set(Mute::Until(std::time::Duration::from_secs(other.into()))),
    }
}

/// Where a device keeps its entries.
enum Kept {
    Map(BTreeMap<[u8; 32], [u8; 32]>),
    Pages { layout: Layout, records: BTreeMap<u32, Vec<u8>> },
}

struct Device {
    state: CollectionState,
    kept: Kept,
    /// Index to value, as the mutations told.
    settings: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Device {
    fn new(kept: Kept) -> Self {
        Self { state: CollectionState::default(), kept, settings: BTreeMap::new() }
    }

    fn entries(&self, indexes: &[[u8; 32]]) -> LoadedPages {
        let Kept::Pages { layout, records } = &self.kept else { unreachable!() };
        let mut loaded = LoadedPages::new(*layout);
        for page in layout.pages_of(indexes) {
            loaded.load(page, records.get(&page).map(|record| &record[..])).expect("our own record");
        }
        loaded
    }

    fn build(&self, changes: &[Change], keys: &Keyring, rng: &mut ChaCha20Rng) -> Option<Vec<u8>> {
        let built = match &self.kept {
            Kept::Map(map) => build_patch(NAME, &self.state, changes, keys, map, rng),
            Kept::Pages { .. } => {
                let loaded = self.entries(&index_macs(changes, keys));
                build_patch(NAME, &self.state, changes, keys, &loaded, rng)
            }
        };
        match built.map(|built| built.form) {
            Ok(PatchForm::Inline(patch)) => Some(patch),
            Err(AppStateError::Unsendable(_)) => None,
            other => panic!("{other:?}"),
        }
    }

    fn hear(&mut self, patch: &[u8], keys: &Keyring) {
        let patch = Patch::decode(patch).expect("a patch");
        let indexes: Vec<[u8; 32]> = patch.index_macs().copied().collect();
        let applied = match &mut self.kept {
            Kept::Map(map) => {
                let applied = apply_patch(NAME, &self.state, &patch, keys, map).expect("a good patch");
                for change in &applied.changes {
                    match change {
                        EntryChange::Put(index, value) => drop(map.insert(*index, *value)),
                        EntryChange::Delete(index) => drop(map.remove(index)),
                    }
                }
                applied
            }
            Kept::Pages { .. } => {
                let loaded = self.entries(&indexes);
                let applied = apply_patch(NAME, &self.state, &patch, keys, &loaded).expect("a good patch");
                let writes = loaded.apply(&applied.changes);
                let Kept::Pages { layout, records } = &mut self.kept else { unreachable!() };
                *layout = writes.layout;
                records.extend(writes.puts);
                applied
            }
        };
        for mutation in applied.mutations.iter().filter(|mutation| !mutation.superseded) {
            assert_ne!(mutation.action(), Action::Unknown);
            match mutation.operation {
                Operation::Set => drop(self.settings.insert(mutation.index.to_vec(), mutation.value.to_vec())),
                Operation::Remove => drop(self.settings.remove(&mutation.index[..])),
            }
        }
        assert_eq!(applied.state.trust, Trust::Verified);
        assert_eq!(applied.missing_removes, 0, "nobody removes what is not there");
        let stored = StoredCollection { state: applied.state, layout: Layout::default() };
        self.state = StoredCollection::decode(&stored.encode()).expect("our own record").state;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

    #[test]
    fn devices_converge(ops in vec(op(), 1..40)) {
        let keys: Keyring = (0..3).map(key).collect();
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let pages = Kept::Pages { layout: Layout::default(), records: BTreeMap::new() };
        let mut devices = [Device::new(Kept::Map(BTreeMap::new())), Device::new(pages)];
        let mut log: Vec<Vec<u8>> = Vec::new();
        let mut conflicts = 0;
        for op in ops {
            match op {
                Op::Change { device, changes, key: newest } => {
                    let changes: Vec<Change> = changes.into_iter().map(|(chat, what)| change(chat, what)).collect();
                    // A device may not have the newest key yet; what it has covers what it knows.
                    let own: Keyring = (0..=newest).map(key).collect();
                    // The server takes what is built on its version, and refuses everything else.
                    loop {
                        let device = &mut devices[device];
                        let patch = device.build(&changes, if newest == 2 { &keys } else { &own }, &mut rng);
                        if device.state.version == log.len() as u64 {
                            log.extend(patch);
                            break;
                        }
                        conflicts += 1;
                        for patch in &log[device.state.version as usize..] {
                            device.hear(patch, &keys);
                        }
                    }
                }
                Op::Hear { device, count } => {
                    let from = devices[device].state.version as usize;
                    for patch in log.iter().skip(from).take(count.into()) {
                        devices[device].hear(patch, &keys);
                    }
                }
            }
        }
        for device in &mut devices {
            for patch in &log[device.state.version as usize..] {
                device.hear(patch, &keys);
            }
        }
        let [a, b] = &devices;
        prop_assert_eq!(&a.state, &b.state);
        prop_assert_eq!(&a.settings, &b.settings);
        let Kept::Map(map) = &a.kept else { unreachable!() };
        let mut sum = LtHash::new();
        map.values().for_each(|value| sum.add(value));
        prop_assert_eq!(sum, a.state.lthash);
        let indexes: Vec<[u8; 32]> = map.keys().copied().collect();
        let loaded = b.entries(&indexes);
        for (index, value) in map {
            prop_assert_eq!(wamd::appstate::Entries::value_mac(&loaded, index), Some(*value));
        }
        let _ = conflicts;
    }

    /// Whoever comes by way of a snapshot has what the others have.
    #[test]
    fn a_snapshot_says_what_the_patches_said(changes in vec((0..6_u8, 1..5_u8), 1..20)) {
        let keys: Keyring = [key(1)].into_iter().collect();
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let changes: Vec<Change> = changes.into_iter().map(|(chat, what)| change(chat, what)).collect();
        let (id, own) = key(1);
        let (bytes, entries) = build_snapshot(NAME, 9, &changes, (&id, &own), &mut rng);
        let fresh = CollectionState::default();
        let applied = apply_snapshot(NAME, &fresh, &Snapshot::decode(&bytes).unwrap(), &keys).unwrap();
        prop_assert_eq!(&applied.entries, &entries);
        let told: BTreeMap<_, _> = applied.mutations.iter().map(|m| (m.index.to_vec(), m.value.to_vec())).collect();
        let meant: BTreeMap<_, _> = changes.iter().map(|c| (c.index.clone(), c.value.clone())).collect();
        prop_assert_eq!(told, meant);
        // And can write on.
        let set: BTreeMap<_, _> = entries.into_iter().collect();
        let built = build_patch(NAME, &applied.state, &[change(1, 2)], &keys, &set, &mut rng).unwrap();
        let PatchForm::Inline(patch) = built.form else { unreachable!() };
        let patch = Patch::decode(&patch).unwrap();
        prop_assert_eq!(apply_patch(NAME, &applied.state, &patch, &keys, &set).unwrap().state, built.state);
    }

    /// One damaged bit anywhere, and a patch is refused or says the same.
    #[test]
    fn damage_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8, cut in any::<bool>()) {
        let keys: Keyring = [key(1)].into_iter().collect();
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        let (fresh, none) = (CollectionState::default(), BTreeMap::new());
        let built = build_patch(NAME, &fresh, &[change(1, 2), change(2, 1)], &keys, &none, &mut rng).unwrap();
        let PatchForm::Inline(good) = built.form else { unreachable!() };
        let expected = apply_patch(NAME, &fresh, &Patch::decode(&good).unwrap(), &keys, &none).unwrap();
        let (mut bad, at) = (good.clone(), at.index(good.len()));
        if cut { bad.truncate(at) } else { bad[at] ^= 1 << bit }
        if let Ok(applied) = Patch::decode(&bad).and_then(|patch| apply_patch(NAME, &fresh, &patch, &keys, &none)) {
            prop_assert_eq!(applied, expected);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..600)) {
        fuzz::appstate_patch(&bytes);
        fuzz::appstate_snapshot(&bytes);
    }

    /// Whatever the server and the phone answer, one trigger leads to a bounded number of questions.
    #[test]
    fn recovery_ends(answers in vec(0..11_u8, 1..40), local in 0..3_u64) {
        let mut ladder = Ladder::new();
        let mut now = Now { mono: std::time::Duration::ZERO, wall_ms: 1_700_000_000_000 };
        let mut steps = ladder.handle(now, local, Input::Connected);
        steps.extend(ladder.handle(now, local, Input::Wanted));
        let (mut drops, mut phones, mut failed, mut version) = (0, 0, 0, local);
        // The answers, again and again.
        for answer in answers.iter().cycle().take(20_000) {
            let Some(next) = steps.pop() else {
                let Some(deadline) = ladder.deadline(now) else { break };
                let passed = deadline.saturating_sub(now.mono).max(std::time::Duration::from_millis(1));
                now = Now { mono: now.mono + passed, wall_ms: now.wall_ms + passed.as_millis() as u64 };
                steps = ladder.handle(now, version, Input::Tick);
                continue;
            };
            let input = match next {
                Do::Drop { .. } => { drops += 1; version = 0; continue }
                Do::AskPhone => { phones += 1; Input::PhoneAnswered { applied: answer % 2 == 0 } }
                Do::Failed(_) => { failed += 1; break }
                Do::Synced | Do::DropChanges(_) => continue,
                Do::AskKeys { .. } => if answer % 2 == 0 { Input::KeysArrived } else { continue },
                Do::Upload => unreachable!("nothing was commanded"),
                Do::Query => match answer {
                    0 => Input::Applied { version, more: false },
                    1 => { version += 1; Input::Applied { version, more: true } }
                    2 => Input::Applied { version, more: true },
                    3 => Input::PatchRefused(AppStateError::SnapshotMac),
                    4 => Input::PatchRefused(AppStateError::PatchMac),
                    5 => Input::PatchRefused(AppStateError::Version { version: version + 5, local: version }),
                    6 => Input::SnapshotRefused(AppStateError::SnapshotMac),
                    7 => Input::ServerRefused { code: 404, applied: 0 },
                    8 => Input::ServerRefused { code: 500, applied: 0 },
                    9 => Input::Failed,
                    _ => Input::PatchRefused(AppStateError::MissingKeys(vec![key(9).0])),
                },
            };
            steps.extend(ladder.handle(now, version, input));
        }
        prop_assert!(drops <= 3 && phones <= 2, "{} drops, {} questions to the phone", drops, phones);
        // Keys that come and are never the right ones are the only thing that has no end of its own: each arrival is a trigger.
        prop_assert!(failed == 1 || ladder.is_idle() || answers.contains(&10), "{:?}", ladder);
    }
}

/// The right way through the ladder, step by step.
#[test]
fn a_broken_collection_is_fetched_anew_once() {
    let now = Now { mono: std::time::Duration::ZERO, wall_ms: 1_700_000_000_000 };
    let mut ladder = Ladder::new();
    let mut check = |local, input, expected: &[Do]| assert_eq!(ladder.handle(now, local, input).as_slice(), expected);
    check(0, Input::Wanted, &[]);
    check(0, Input::Connected, &[Do::Query]);
    check(0, Input::Wanted, &[]);
    check(4, Input::Applied { version: 4, more: true }, &[Do::Query]);
    check(6, Input::Applied { version: 6, more: false }, &[Do::Synced]);
    check(6, Input::Notified(6), &[]);
    check(6, Input::Notified(7), &[Do::Query]);
    check(6, Input::PatchRefused(AppStateError::SnapshotMac), &[Do::Drop { mismatch: true }, Do::Query]);
    check(0, Input::SnapshotRefused(AppStateError::ValueMac), &[Do::AskPhone]);
    check(0, Input::Commanded, &[]);
    check(8, Input::PhoneAnswered { applied: true }, &[Do::Query]);
    check(8, Input::Applied { version: 8, more: false }, &[Do::Synced, Do::Upload]);
    check(9, Input::ServerRefused { code: 409, applied: 1 }, &[Do::Upload]);
    check(9, Input::ServerRefused { code: 409, applied: 0 }, &[Do::Query]);
    check(10, Input::Applied { version: 10, more: false }, &[Do::Synced, Do::Upload]);
    check(10, Input::Disconnected, &[]);
    check(10, Input::Connected, &[Do::Upload]);
    // Too late for the patch that is under way.
    check(10, Input::Commanded, &[]);
    check(10, Input::Uploaded, &[Do::Query]);
    check(11, Input::Applied { version: 11, more: false }, &[Do::Synced, Do::Upload]);
    check(11, Input::Uploaded, &[Do::Query]);
    check(12, Input::Applied { version: 12, more: false }, &[Do::Synced]);
    assert!(ladder.is_idle());
}

/// A server that always has a newer version than our changes.
#[test]
fn changes_are_given_up_after_five_conflicts() {
    let now = Now { mono: std::time::Duration::ZERO, wall_ms: 1_700_000_000_000 };
    let mut ladder = Ladder::new();
    ladder.handle(now, 3, Input::Connected);
    assert_eq!(ladder.handle(now, 3, Input::Commanded).as_slice(), [Do::Upload]);
    for version in 4..9 {
        let conflict = Input::ServerRefused { code: 409, applied: 1 };
        assert_eq!(ladder.handle(now, version, conflict).as_slice(), [Do::Upload]);
    }
    let steps = ladder.handle(now, 9, Input::ServerRefused { code: 409, applied: 1 });
    assert_eq!(steps.as_slice(), [Do::DropChanges(wamd::appstate::ladder::Failure::Endless)]);
    assert!(ladder.is_idle());
}

#[test]
fn a_change_survives_its_record() {
    let change = change(3, 4);
    let record = change.encode();
    assert_eq!(Change::decode(&record), Ok(change));
    assert!((0..14).all(|at| Change::decode(&record[..at]).is_err()));
}

#[test]
fn keys_are_waited_for_and_given_up() {
    let mut now = Now { mono: std::time::Duration::ZERO, wall_ms: 1_700_000_000_000 };
    let (mut ladder, id) = (Ladder::new(), key(9).0);
    ladder.handle(now, 0, Input::Connected);
    ladder.handle(now, 0, Input::Wanted);
    let blocked = || Input::PatchRefused(AppStateError::MissingKeys(vec![key(9).0]));
    let ask = |all_devices| Do::AskKeys { ids: vec![key(9).0], all_devices };
    assert_eq!(ladder.handle(now, 0, blocked()).as_slice(), [ask(false)]);
    assert_eq!(ladder.missing_keys(), std::slice::from_ref(&id));
    assert!(ladder.handle(now, 0, Input::Notified(9)).is_empty(), "blocked is blocked");
    assert_eq!(ladder.handle(now, 0, Input::KeysArrived).as_slice(), [Do::Query]);
    assert_eq!(ladder.handle(now, 0, blocked()).as_slice(), [ask(false)]);
    let mut asked = 0;
    let failed = loop {
        let passed = ladder.deadline(now).expect("a deadline").saturating_sub(now.mono);
        now = Now { mono: now.mono + passed, wall_ms: now.wall_ms + passed.as_millis() as u64 };
        match ladder.handle(now, 0, Input::Tick).as_slice() {
            [Do::AskKeys { all_devices: true, .. }] => asked += 1,
            other => break other.to_vec(),
        }
    };
    assert_eq!((asked, failed), (7, vec![Do::Failed(wamd::appstate::ladder::Failure::Keys)]));
    assert!(ladder.handle(now, 0, Input::Wanted).is_empty(), "left alone for a while");
    let later = ladder.deadline(now).expect("then again").saturating_sub(now.mono);
    now = Now { mono: now.mono + later, wall_ms: now.wall_ms + later.as_millis() as u64 };
    assert_eq!(ladder.handle(now, 0, Input::Tick).as_slice(), [Do::Query]);
}
