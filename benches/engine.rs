//! What a message costs the whole engine, from the command to the bytes for the socket, and from the acknowledgement to the
//! event: allocations, time, and the longest time that one input keeps everything else waiting.
//!
//! The loopback server plays the other side; what it does is not measured, and neither is the store, which answers at once.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use allocation_counter::measure;
use bytes::Bytes;
use wamd::{
    Jid,
    clock::Now,
    engine::{Command, CommandId, Config, ConnectionId, Engine, Input, Loaded, Output, SendRequest},
    event::SessionState,
    store::{AccountId, Key},
};
use wamd_loopback::{ConnId, Fault, GroupSpec, ScanOptions, Server};

const OWN: &str = "15550000001";
/// Messages that one figure is the mean of.
const ROUNDS: u32 = 50;

/// What the engine did.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    allocations: u64,
    bytes: u64,
    time: Duration,
    longest: Duration,
    /// What took longest.
    what: &'static str,
}

/// An engine on a wire to the server.
struct Line {
    engine: Engine,
    server: Server,
    records: BTreeMap<Key, Bytes>,
    conn: Option<(ConnectionId, ConnId)>,
    wires: u64,
    /// Bytes from the server; `None` is the end.
    to_engine: VecDeque<Option<Bytes>>,
    /// What the server sent waits.
    held: bool,
    qr: Option<String>,
    cost: Cost,
    commands: u64,
}

const NOW: Now = Now { mono: Duration::ZERO, wall_ms: 1_760_000_000_000 };

impl Line {
    fn new() -> Self {
        let mut server = Server::new(wamd_loopback::Config::default(), [42; 32]);
        server.phone(NOW, OWN).expect("a number");
        let mut config = Config::new(AccountId::new("bench"));
        config.certificates.roots = vec![server.root_public_key()];
        config.pre_key_batch = 20;
        config.cache_bytes = 16 << 20;
        let mut line = Self {
            engine: Engine::new(config, [7; 32]),
            server,
            records: BTreeMap::new(),
            conn: None,
            wires: 0,
            to_engine: VecDeque::new(),
            held: false,
            qr: None,
            cost: Cost::default(),
            commands: 0,
        };
        line.command(Command::LinkQr);
        let qr = line.qr.take().expect("a code is shown");
        line.server.scan(NOW, OWN, &qr, &ScanOptions::default()).expect("the phone takes the code");
        line.run();
        assert_eq!(line.engine.snapshot().state, SessionState::Connected);
        line
    }

    fn command(&mut self, command: Command) {
        self.commands += 1;
        self.tell(Input::Command(CommandId(self.commands), command));
        self.run();
    }

    /// Gives an input to the engine, and measures what that takes.
    fn tell(&mut self, input: Input) {
        let what = match &input {
            Input::Received(..) => "received",
            Input::Command(..) => "command",
            Input::Loaded(..) => "loaded",
            Input::Computed(..) => "computed",
            _ => "other",
        };
        let mut input = Some(input);
        let begin = Instant::now();
        let used = measure(|| self.engine.handle(NOW, input.take().expect("once")));
        self.count(what, used.count_total, used.bytes_total, begin.elapsed());
    }

    fn count(&mut self, what: &'static str, allocations: u64, bytes: u64, time: Duration) {
        let cost = &mut self.cost;
        cost.allocations += allocations;
        cost.bytes += bytes;
        cost.time += time;
        if time > cost.longest {
            (cost.longest, cost.what) = (time, what);
        }
    }

    /// Until nothing is to be done.
    fn run(&mut self) {
        loop {
            let mut output = None;
            let begin = Instant::now();
            let used = measure(|| output = self.engine.poll());
            self.count("output", used.count_total, used.bytes_total, begin.elapsed());
            if let Some(output) = output {
                self.carry_out(output);
                continue;
            }
            while let Some(output) = self.server.poll() {
                match (output, self.conn) {
                    (wamd_loopback::Output::Send(wire, bytes), Some((_, own))) if wire == own => {
                        self.to_engine.push_back(Some(bytes));
                    }
                    (wamd_loopback::Output::Close(wire), Some((_, own))) if wire == own => {
                        self.to_engine.push_back(None);
                    }
                    _ => {}
                }
            }
            let next = if self.held { None } else { self.to_engine.pop_front() };
            match (next, self.conn) {
                (Some(Some(bytes)), Some((conn, _))) => self.tell(Input::Received(conn, bytes)),
                (Some(None), Some((conn, _))) => self.tell(Input::Closed(conn, "closed".to_owned())),
                _ => return,
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Open(id) => {
                self.wires += 1;
                let wire = ConnId(self.wires);
                self.conn = Some((id, wire));
                self.to_engine.clear();
                self.server.handle(NOW, wamd_loopback::Input::Opened(wire));
                self.tell(Input::Opened(id));
            }
            Output::Send(_, bytes) => {
                let (_, wire) = self.conn.expect("open");
                self.server.handle(NOW, wamd_loopback::Input::Bytes(wire, bytes));
            }
            Output::Close(_) => {
                if let Some((_, wire)) = self.conn.take() {
                    self.server.handle(NOW, wamd_loopback::Input::Closed(wire));
                }
            }
            Output::Load { id, keys, scans } => {
                let scanned = self.records.iter().filter(|(key, _)| scans.contains(&key.kind));
                let scanned = scanned.map(|(key, value)| (key.clone(), value.clone())).collect();
                let records = keys.into_iter().map(|key| (key.clone(), self.records.get(&key).cloned())).collect();
                self.tell(Input::Loaded(id, Loaded { records, scanned }));
            }
            Output::Commit { seq, batch } => {
                for key in batch.deletes {
                    self.records.remove(&key);
                }
                self.records.extend(batch.puts);
                self.tell(Input::Durable(seq));
            }
            Output::Event(event) => {
                if event.event == "session.qr_updated" {
                    self.qr = event.data["qr"].as_str().map(str::to_owned);
                }
                if let Some(seq) = event.seq {
                    self.tell(Input::Acknowledged(seq));
                }
            }
            Output::Cpu(id, job) => {
                let result = job.run();
                self.tell(Input::Computed(id, result));
            }
            Output::Reply(_, reply) => drop(reply.expect("accepted")),
            _ => {}
        }
    }

    /// A group with so many members, us included, whose phones keep silent.
    fn group(&mut self, members: usize) -> Jid {
        let numbers: Vec<String> = (2..=members).map(|n| format!("1555{n:07}")).collect();
        for number in &numbers {
            let phone = self.server.phone(NOW, number).expect("a number");
            self.server.fault(NOW, Fault::MutePhone { jid: phone.jid, on: true }).expect("a phone");
        }
        let spec = GroupSpec {
            creator: OWN.to_owned(),
            subject: "us".to_owned(),
            members: numbers.iter().map(Jid::pn).collect(),
            ..GroupSpec::default()
        };
        let group = self.server.create_group(NOW, &spec).expect("a group").jid;
        self.run();
        group
    }

    /// Sends a message of 256 characters; what it costs until it left, and then until it is settled.
    fn send(&mut self, to: &Jid) -> [Cost; 2] {
        let command = Command::Send(SendRequest::text(to.clone(), "x".repeat(256)));
        self.held = true;
        self.cost = Cost::default();
        self.command(command);
        let sent = std::mem::take(&mut self.cost);
        self.held = false;
        self.run();
        assert_eq!(self.engine.snapshot().sends, 0, "settled");
        [sent, std::mem::take(&mut self.cost)]
    }

    /// Sends so often that the mean counts.
    fn warm(&mut self, to: &Jid, rounds: u32) -> [Cost; 2] {
        for _ in 0..3 {
            self.send(to);
        }
        let mut sum = [Cost::default(); 2];
        for _ in 0..rounds {
            for (sum, cost) in sum.iter_mut().zip(self.send(to)) {
                sum.allocations += cost.allocations;
                sum.bytes += cost.bytes;
                sum.time += cost.time;
                if cost.longest > sum.longest {
                    (sum.longest, sum.what) = (cost.longest, cost.what);
                }
            }
        }
        sum.map(|sum| Cost {
            allocations: sum.allocations / u64::from(rounds),
            bytes: sum.bytes / u64::from(rounds),
            time: sum.time / rounds,
            longest: sum.longest,
            what: sum.what,
        })
    }
}

fn print(name: &str, cost: &Cost) {
    let Cost { allocations, bytes, time, longest, what } = cost;
    println!("{name:<44} {allocations:>9} {bytes:>10} {time:>12.1?} {longest:>12.1?} ({what})");
}

fn main() {
    // Only whether it runs, when the tests are run.
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let (sizes, rounds): (&[usize], u32) = if quick { (&[8], 2) } else { (&[8, 256, 1_024], ROUNDS) };
    println!("{:<44} {:>9} {:>10} {:>12} {:>12}", "", "allocs", "bytes", "time", "longest");
    for &members in sizes {
        let mut line = Line::new();
        let group = line.group(members);
        line.cost = Cost::default();
        line.command(Command::Send(SendRequest::text(group.clone(), "x".repeat(256))));
        print(&format!("first message, {members} members, no sessions"), &line.cost);
        let [sent, settled] = line.warm(&group, rounds);
        print(&format!("warm message, {members} members, sent"), &sent);
        print(&format!("warm message, {members} members, settled"), &settled);
    }
    let mut line = Line::new();
    line.server.phone(NOW, "15550000002").expect("a number");
    let silent = Fault::MutePhone { jid: Jid::pn("15550000002"), on: true };
    line.server.fault(NOW, silent).expect("a phone");
    let [sent, settled] = line.warm(&Jid::pn("15550000002"), rounds);
    print("warm message to a user, sent", &sent);
    print("warm message to a user, settled", &settled);
}
