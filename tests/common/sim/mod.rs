//! Several engines and the loopback server in one thread, under a seeded scheduler that decides what happens next: one
//! output of one engine is carried out, one commit becomes durable, one load is answered, one message crosses a wire, a
//! wire is cut, an engine crashes and starts again from what is durable, or time passes.
//!
//! A crash drops the engine, everything that is not durable (any number of the batches under way may have become so), and
//! what is on the wire (any number of messages may have arrived).

#![allow(dead_code, reason = "each test file uses its own part of this module")]

mod account;
mod chats;
mod checks;
mod disk;
mod onwire;
mod seeds;
mod trouble;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use wamd::{
    clock::Now,
    engine::{Command, CommandId, Config, Engine, Input, SendRequest},
    store::AccountId,
};
use wamd_loopback::{ConnId, Input as ServerInput, Server};

use account::Account;
use chats::{Group, Sent};
pub(crate) use seeds::each_seed;
pub(crate) use trouble::Chaos;
use wire::Wire;

pub(crate) struct Sim {
    rng: ChaCha20Rng,
    pub(crate) now: Now,
    pub(crate) server: Server,
    pub(crate) accounts: Vec<Account>,
    wires: BTreeMap<ConnId, Wire>,
    next_wire: u64,
    next_command: u64,
    pub(crate) chaos: Chaos,
    pub(crate) sent: Vec<Sent>,
    groups: Vec<Group>,
    /// Devices were unlinked.
    is_troubled: bool,
    is_traced: bool,
    /// Sends may fail for what was done to them.
    may_fail: bool,
    /// Every message key seen on the wire, with the ciphertext it made.
    keys: BTreeMap<(usize, String, Vec<u8>, u32), Bytes>,
    /// How often the stanza of a message came to the server.
    times_sent: BTreeMap<String, u32>,
    pub(crate) steps: u64,
    /// FNV-1a over everything that the engines put out.
    pub(crate) fingerprint: u64,
}

impl Sim {
    pub(crate) fn new(seed: u64, accounts: &[(&'static str, &'static str)]) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut server = Server::new(wamd_loopback::Config::default(), seed_of(&mut rng));
        server.record_stanzas();
        let mut sim = Self {
            now: Now { mono: Duration::ZERO, wall_ms: 1_716_894_200_000 },
            server,
            accounts: Vec::new(),
            wires: BTreeMap::new(),
            next_wire: 0,
            next_command: 0,
            chaos: Chaos::default(),
            sent: Vec::new(),
            groups: Vec::new(),
            is_troubled: false,
            is_traced: std::env::var_os("WAMD_TRACE").is_some(),
            may_fail: false,
            keys: BTreeMap::new(),
            times_sent: BTreeMap::new(),
            steps: 0,
            fingerprint: 0xcbf2_9ce4_8422_2325,
            rng,
        };
        for (name, number) in accounts {
            let engine = sim.boot(name);
            sim.accounts.push(Account::new(name, number, engine));
        }
        sim
    }

    fn boot(&mut self, name: &str) -> Engine {
        let mut config = Config::new(AccountId::new(name));
        config.certificates.roots = vec![self.server.root_public_key()];
        config.pre_key_batch = 12;
        // Small, so that records are missed all the time.
        config.cache_bytes = 6_000;
        Engine::new(config, seed_of(&mut self.rng))
    }

    // ---- wishes -----------------------------------------------------------------------------------------------

    /// Links every account, without chaos.
    pub(crate) fn link_all(&mut self) {
        for account in 0..self.accounts.len() {
            self.command(account, Command::LinkQr);
            self.run(20_000, |sim| sim.is_connected(account));
            assert!(self.is_connected(account), "{} is linked", self.accounts[account].name);
        }
        self.settle();
    }

    /// Links every account while things go wrong.
    pub(crate) fn link_all_in(&mut self, chaos: Chaos) {
        self.is_troubled = true;
        self.chaos = chaos;
        for account in 0..self.accounts.len() {
            self.command(account, Command::LinkQr);
        }
        self.run(40_000, |sim| (0..sim.accounts.len()).all(|account| sim.is_connected(account)));
        self.settle();
    }

    pub(crate) fn is_connected(&self, account: usize) -> bool {
        self.accounts[account].engine.snapshot().state == wamd::event::SessionState::Connected
    }

    fn ask(&mut self, account: usize, request: SendRequest) {
        let id = self.command(account, Command::Send(request.clone()));
        self.accounts[account].asked.insert(id, request);
    }

    pub(crate) fn command(&mut self, account: usize, command: Command) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.tell(account, Input::Command(id, command));
        id
    }

    // ---- running ----------------------------------------------------------------------------------------------

    /// Runs until the condition holds, or for so many steps.
    pub(crate) fn run(&mut self, steps: u32, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..steps {
            if done(self) {
                return;
            }
            self.step();
        }
    }

    /// Runs without chaos until everything that was asked for is settled everywhere.
    pub(crate) fn settle(&mut self) {
        self.mend();
        // Several times nothing was left to do but to let time pass, with everybody connected.
        let mut quiet = 0;
        let late = self.now.mono + trouble::MAX_DELAY;
        for _ in 0..200_000 {
            if self.step() {
                continue;
            }
            let waiting = |account: &Account| !account.asked.is_empty() || account.engine.snapshot().sends > 0;
            let connected = (0..self.accounts.len()).all(|account| self.is_connected(account));
            if self.now.mono > late && connected && !self.accounts.iter().any(waiting) {
                quiet += 1;
            }
            if quiet > 6 {
                return;
            }
        }
        panic!("does not settle: {:?}", self.accounts.iter().map(|a| a.engine.snapshot()).collect::<Vec<_>>());
    }

    /// One random thing happens; false when there was nothing but time to pass.
    pub(crate) fn step(&mut self) -> bool {
        self.steps += 1;
        if self.trouble() {
            return true;
        }
        let possible = self.possible();
        if possible.is_empty() {
            self.pass_time();
            return false;
        }
        let action = possible[self.pick(possible.len())];
        match action {
            Action::Poll(account) => self.poll(account),
            Action::Commit(account) => self.commit(account),
            Action::Load(account) => self.load(account),
            Action::Work(account) => self.work(account),
            Action::ToServer(wire) => self.deliver_to_server(wire),
            Action::ToClient(wire) => self.deliver_to_client(wire),
        }
        true
    }

    /// Runs until nothing can happen but that time passes.
    pub(crate) fn exhaust(&mut self) {
        while !self.possible().is_empty() {
            self.step();
        }
    }

    /// What can happen now.
    fn possible(&self) -> Vec<Action> {
        let mut possible: Vec<Action> = Vec::new();
        for (i, account) in self.accounts.iter().enumerate() {
            if !account.idle {
                possible.push(Action::Poll(i));
            }
            if !account.commits.is_empty() && !account.held {
                possible.push(Action::Commit(i));
            }
            if !account.loads.is_empty() {
                possible.push(Action::Load(i));
            }
            if !account.work.is_empty() {
                possible.push(Action::Work(i));
            }
        }
        for (id, wire) in &self.wires {
            if wire.fresh || !wire.to_server.is_empty() || wire.closing {
                possible.push(Action::ToServer(*id));
            }
            if !wire.fresh && (!wire.to_client.is_empty() || wire.closed) && self.reads(wire.account) {
                possible.push(Action::ToClient(*id));
            }
        }
        possible
    }

    fn reads(&self, account: usize) -> bool {
        self.accounts[account].engine.wants_read()
    }

    fn pass_time(&mut self) {
        let engines = self.accounts.iter().filter_map(|account| account.engine.deadline());
        let Some(next) = engines.chain(self.server.deadline()).min() else { return };
        self.advance(next.saturating_sub(self.now.mono).max(Duration::from_millis(1)));
    }

    fn advance(&mut self, step: Duration) {
        self.now.mono += step;
        self.now.wall_ms += u64::try_from(step.as_millis()).expect("a step of time");
        for account in 0..self.accounts.len() {
            self.tell(account, Input::Tick);
        }
        self.server.handle(self.now, ServerInput::Tick);
        self.drain_server();
    }

    // ---- chance -----------------------------------------------------------------------------------------------

    fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.next_u32().is_multiple_of(n)
    }

    pub(crate) fn pick(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    /// Shows what happens, when `WAMD_TRACE` is set.
    #[expect(clippy::print_stderr, reason = "for somebody who looks for the reason of a failure")]
    fn trace(&self, what: impl FnOnce(&Self) -> String) {
        if self.is_traced {
            eprintln!("{} {:?} {}", self.steps, self.now.mono, what(self));
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.fingerprint = (self.fingerprint ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Poll(usize),
    Commit(usize),
    Load(usize),
    Work(usize),
    ToServer(ConnId),
    ToClient(ConnId),
}

fn seed_of(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}
