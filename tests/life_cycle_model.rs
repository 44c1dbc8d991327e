//! The life cycle as a model: from every state that can be reached, everything that can happen happens once.
//!
//! States are told apart by [`Harness::key`]: what the engine does next, without times and data. The search is breadth
//! first from a device that is not linked and from one that is; since an engine is deterministic, a state is reached again by
//! the same inputs. After every input the harness checks what must hold: the snapshot is the last event, a command has the
//! answer of the table (at once, while the account is loaded and the store works), never more dials a minute than allowed, one
//! connection at a time, no deadline that stays in the past. From every state, a server that behaves leads within bounded time and
//! dials to `CONNECTED`, a code on the screen, a terminal state that was told, or a stop that the caller knows of.

#[path = "life_cycle_model/harness.rs"]
mod harness;
#[path = "noise/responder.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of the handshake use the rest")]
mod responder;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use bytes::Bytes;
use harness::{Answer, Answered, COMMANDS, Harness, Hello, In, alphabet, variants};
use wamd::store::Key;

type Store = BTreeMap<Key, Bytes>;

/// More states than this: the key tells apart what is alike.
const MAX_STATES: usize = 4_000;

/// A state, by how it was reached.
struct Reached {
    store: Store,
    path: Vec<In>,
    possible: Vec<In>,
}

/// Says how to get there when a check fails.
struct Trace<'a>(&'a [In], Option<In>);

impl Drop for Trace<'_> {
    #[expect(clippy::print_stdout, reason = "the test's own message")]
    fn drop(&mut self) {
        if thread::panicking() {
            println!("after {:?}, at {:?}", self.0, self.1);
        }
    }
}

fn replay(store: &Store, path: &[In]) -> Harness {
    let mut harness = Harness::new(store.clone());
    let _trace = Trace(path, None);
    path.iter().for_each(|input| harness.apply(*input));
    harness
}

/// From a new device to one that is online, by the short way.
const LINK: [In; 11] = [
    In::LinkQr,
    In::Opened,
    In::Hello(Hello::Good),
    In::PairDevice,
    In::PairSuccess,
    In::StreamError(harness::Stream::Code(515)),
    In::Opened,
    In::Hello(Hello::Good),
    In::Success,
    In::Answer(Answer::Result),
    In::Answer(Answer::Result),
];

fn linked_store() -> Store {
    let mut harness = replay(&Store::new(), &LINK);
    assert_eq!(harness.state(), "CONNECTED");
    harness.apply(In::Disconnect);
    harness.into_store()
}

/// What one input leads to.
struct Outcome {
    key: String,
    path: Vec<In>,
    possible: Vec<In>,
    row: String,
}

/// What can happen. Variants of refusals only in states where nothing else is special: they do the same everywhere.
fn possible(harness: &Harness) -> Vec<In> {
    let variants = if harness.is_plain() { variants() } else { Vec::new() };
    alphabet().into_iter().chain(variants).filter(|input| harness.is_possible(*input)).collect()
}

fn explore(reached: &Reached, input: In) -> Outcome {
    let mut path = reached.path.clone();
    let mut harness = replay(&reached.store, &path);
    let row = harness.row();
    let _trace = Trace(&reached.path, Some(input));
    harness.apply(input);
    path.push(input);
    let possible = possible(&harness);
    Outcome { key: harness.key(), path, possible, row }
}

/// Runs the jobs on all cores there are, and keeps their order.
fn in_parallel<J: Sync, R: Send>(jobs: &[J], run: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = jobs.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = jobs
            .chunks(share)
            .map(|jobs| {
                let run = &run;
                scope.spawn(move || jobs.iter().map(run).collect::<Vec<R>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker failed; its message is above")).collect()
    })
}

#[test]
fn every_state_answers_everything_and_comes_to_a_good_end() {
    let mut known = BTreeSet::new();
    let mut transitions = 0;
    let mut ends: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut cells: BTreeMap<String, BTreeSet<In>> = BTreeMap::new();
    let mut frontier: Vec<Reached> = Vec::new();
    for store in [Store::new(), linked_store()] {
        let harness = Harness::new(store.clone());
        known.insert(harness.key());
        let possible = possible(&harness);
        frontier.push(Reached { store, path: Vec::new(), possible });
    }
    let mut depth = 0;
    while !frontier.is_empty() {
        for end in in_parallel(&frontier, ends_well) {
            *ends.entry(end).or_default() += 1;
        }
        in_parallel(&frontier, reconnect_is_idempotent);
        let jobs: Vec<_> =
            frontier.iter().flat_map(|reached| reached.possible.iter().map(move |input| (reached, *input))).collect();
        let outcomes = in_parallel(&jobs, |(reached, input)| explore(reached, *input));
        let mut next = Vec::new();
        for ((reached, input), outcome) in jobs.iter().zip(outcomes) {
            transitions += 1;
            cells.entry(outcome.row).or_default().insert(*input);
            if known.insert(outcome.key) {
                let Outcome { path, possible, .. } = outcome;
                next.push(Reached { store: reached.store.clone(), path, possible });
            }
        }
        depth += 1;
        println!("depth {depth}: {} new states", next.len());
        assert!(known.len() < MAX_STATES, "{} states", known.len());
        frontier = next;
    }
    println!("{} states, {transitions} transitions, {depth} deep; ends: {ends:?}", known.len());

    // Every row of the table was seen with every command.
    let states = ["CONNECTING", "CONNECTED", "DISCONNECTED", "REPLACED", "BANNED", "OUTDATED"];
    let linked = states.map(|state| format!("linked {state}"));
    let unlinked = ["PENDING", "CONNECTING", "DISCONNECTED", "LOGGED_OUT", "BANNED", "OUTDATED", "REPLACED"];
    let unlinked = unlinked.map(|state| format!("unlinked {state}"));
    for row in linked.into_iter().chain(unlinked).chain(["being loaded".to_owned()]) {
        let seen = cells.get(&row).unwrap_or_else(|| panic!("never {row}"));
        for command in COMMANDS.into_iter().chain([In::SetVersion(Answered::Another)]) {
            assert!(seen.contains(&command), "{command:?} never when {row}");
        }
    }
    for end in ["CONNECTED", "a code on the screen", "LOGGED_OUT", "BANNED", "REPLACED", "OUTDATED", "stopped"] {
        assert!(ends.contains_key(end), "{end} is never the end: {ends:?}");
    }
}

fn ends_well(reached: &Reached) -> &'static str {
    let mut harness = replay(&reached.store, &reached.path);
    let _trace = Trace(&reached.path, None);
    harness.goes_well()
}

/// What waited for records when its connection went away is not sent before the next login is accepted: the server would
/// take it for a client that talks out of turn.
#[test]
fn what_answers_an_old_connection_does_not_overtake_the_login() {
    let login = [In::Connect, In::Opened, In::Hello(Hello::Good), In::Success];
    let active = [In::Answer(Answer::Result), In::Answer(Answer::Result)];
    for again in 1..=4 {
        let mut harness = replay(&linked_store(), &login);
        active.into_iter().for_each(|input| harness.apply(input));
        harness.hold_loads();
        harness.apply(In::DevicesChanged);
        harness.apply(In::Closed);
        harness.apply(In::ToDeadline);
        [In::Opened, In::Hello(Hello::Good)].into_iter().take(again - 1).for_each(|input| harness.apply(input));
        if again < 4 {
            assert_eq!(harness.answer_loads(), 1);
            assert!(harness.heard().is_empty(), "{:?} when {}", harness.heard(), harness.shape());
        } else {
            harness.apply(In::Success);
            assert_eq!(harness.answer_loads(), 1);
            assert_eq!(harness.heard(), ["iq", "ack"], "the count of prekeys, and what was owed");
        }
        assert_eq!(harness.goes_well(), "CONNECTED");
    }
}

/// However often it is asked for, it is one dial.
fn reconnect_is_idempotent(reached: &Reached) {
    let mut harness = replay(&reached.store, &reached.path);
    if !reached.possible.contains(&In::Reconnect) {
        return;
    }
    let opens = harness.opens.len();
    let _trace = Trace(&reached.path, Some(In::Reconnect));
    harness.apply(In::Reconnect);
    let shape = harness.shape();
    for _ in 0..4 {
        if harness.is_possible(In::Reconnect) {
            harness.apply(In::Reconnect);
        }
    }
    assert!(harness.opens.len() <= opens + 1, "{shape}");
    if !shape.contains("booting") && !shape.contains("halted") {
        assert_eq!(harness.shape(), shape, "asking again changes nothing");
    }
}
