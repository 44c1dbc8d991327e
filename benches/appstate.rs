//! What app state costs: the hash of 10,000 values; a snapshot of 10,000 contacts decoded, verified and its actions read, and
//! laid out in pages; a patch with one mutation read and written. Allocations are printed in front.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::{collections::BTreeMap, hint::black_box};

use allocation_counter::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use wamd::{
    appstate::{
        Action, Change, CollectionName, CollectionState, KeyId, Keyring, LtHash, MutationKeys, Patch, PatchForm,
        Snapshot, apply_patch, apply_snapshot, build_patch, encode::build_snapshot, pages::Layout,
    },
    crypto::{Secret, sha256},
    jid::Jid,
};

const COUNT: u32 = 10_000;
const NAME: CollectionName = CollectionName::CriticalUnblockLow;

struct World {
    keys: Keyring,
    snapshot: Vec<u8>,
    patch: Vec<u8>,
    state: CollectionState,
    entries: BTreeMap<[u8; 32], [u8; 32]>,
    rng: ChaCha20Rng,
}

fn contact(number: u32) -> Change {
    let (jid, name) = (Jid::pn(format!("1555{number:07}")), format!("Contact Number {number}"));
    let action = Action::contact(jid, Some(name), Some(String::from("Contact")), true);
    Change::set(&action, 1_700_000_000_000).expect("a known version")
}

impl World {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (id, own) = (KeyId::new(&[0, 0, 0, 0, 0, 1]).expect("an id"), MutationKeys::expand(&Secret::new([1; 32])));
        let contacts: Vec<Change> = (0..COUNT).map(contact).collect();
        let (snapshot, entries) = build_snapshot(NAME, 1, &contacts, (&id, &own), &mut rng);
        let keys: Keyring = [(id, own)].into_iter().collect();
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        let decoded = Snapshot::decode(&snapshot).expect("a snapshot");
        let state = apply_snapshot(NAME, &CollectionState::default(), &decoded, &keys).expect("a snapshot").state;
        let built = build_patch(NAME, &state, &[contact(7)], &keys, &entries, &mut rng).expect("a patch");
        let PatchForm::Inline(patch) = built.form else { unreachable!("one mutation") };
        Self { keys, snapshot, patch, state, entries, rng }
    }

    fn snapshot(&self) -> usize {
        let decoded = Snapshot::decode(&self.snapshot).expect("a snapshot");
        let applied = apply_snapshot(NAME, &CollectionState::default(), &decoded, &self.keys).expect("verified");
        let known = applied.mutations.iter().filter(|mutation| mutation.action() != Action::Unknown).count();
        assert_eq!(known, COUNT as usize);
        applied.entries.len()
    }

    fn patch(&self) -> CollectionState {
        let patch = Patch::decode(&self.patch).expect("a patch");
        apply_patch(NAME, &self.state, &patch, &self.keys, &self.entries).expect("verified").state
    }
}

fn appstate(c: &mut Criterion) {
    let mut world = World::new();
    let macs: Vec<[u8; 32]> = (0..COUNT).map(|i| sha256(&[&i.to_be_bytes()])).collect();
    for (name, work) in [
        ("a snapshot of 10,000 contacts", &(|| _ = black_box(world.snapshot())) as &dyn Fn()),
        ("a patch with one mutation", &|| _ = black_box(world.patch())),
    ] {
        let cost = measure(work);
        println!(
            "{name}: {} allocations, {} bytes, at most {} at once",
            cost.count_total, cost.bytes_total, cost.bytes_max
        );
    }
    println!("the snapshot has {} bytes", world.snapshot.len());
    c.bench_function("appstate/lthash of 10,000", |b| {
        b.iter(|| {
            let mut hash = LtHash::new();
            macs.iter().for_each(|mac| hash.add(mac));
            black_box(hash)
        });
    });
    c.bench_function("appstate/snapshot of 10,000 contacts, verified and read", |b| b.iter(|| world.snapshot()));
    let entries: Vec<_> = world.entries.iter().map(|(index, value)| (*index, *value)).collect();
    c.bench_function("appstate/10,000 entries to pages", |b| b.iter(|| Layout::of_snapshot(black_box(&entries))));
    c.bench_function("appstate/patch with one mutation, read", |b| b.iter(|| world.patch()));
    c.bench_function("appstate/patch with one mutation, written", |b| {
        let change = contact(8);
        b.iter(|| {
            let changes = std::slice::from_ref(&change);
            build_patch(NAME, &world.state, changes, &world.keys, &world.entries, &mut world.rng).expect("a patch")
        });
    });
}

criterion_group!(benches, appstate);
criterion_main!(benches);
