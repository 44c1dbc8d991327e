//! One engine with its disk: what its outputs lead to, and how it dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wamd::{
    Jid,
    engine::{
        Command, CommandError, CommandId, ConnectionId, CpuId, CpuJob, Engine, Input, LoadId, Loaded, Output, Reply,
        SendRequest,
    },
    event::SessionState,
    store::{Batch, Key, RecordKind},
};
use wamd_loopback::{ConnId, Input as ServerInput, ScanOptions};

use super::{Sim, disk::Disk, wire::Wire};

pub(crate) struct Account {
    pub(crate) name: &'static str,
    pub(crate) number: &'static str,
    pub(super) engine: Engine,
    /// Nothing to poll until the next input.
    pub(super) idle: bool,
    pub(crate) disk: Disk,
    pub(super) commits: VecDeque<(u64, Batch)>,
    /// Nothing becomes durable.
    pub(super) held: bool,
    pub(super) loads: VecDeque<(LoadId, Vec<Key>, Vec<RecordKind>)>,
    /// Work for the pool of threads.
    pub(super) work: VecDeque<(CpuId, CpuJob)>,
    /// Sends that were asked for and not answered, by command.
    pub(super) asked: BTreeMap<CommandId, SendRequest>,
    pub(crate) accepted: BTreeSet<String>,
    pub(super) qr: Option<String>,
    /// Its address once it was linked.
    pub(crate) device: Option<Jid>,
    /// The step since which it is there for others; `None` while it is not linked.
    pub(super) since: Option<u64>,
    /// The step at which everything had arrived that others had done.
    pub(super) knows: u64,
    pub(crate) crashes: u32,
    /// How often it lost its sessions, or sender keys.
    pub(crate) wipes: u32,
    /// Requests to send again, by the message and the device that is asked.
    pub(crate) retries: BTreeMap<(String, String), u32>,
}

impl Account {
    pub(super) fn new(name: &'static str, number: &'static str, engine: Engine) -> Self {
        Self {
            name,
            number,
            engine,
            idle: false,
            disk: Disk::default(),
            commits: VecDeque::new(),
            held: false,
            loads: VecDeque::new(),
            work: VecDeque::new(),
            asked: BTreeMap::new(),
            accepted: BTreeSet::new(),
            qr: None,
            device: None,
            since: None,
            knows: 0,
            crashes: 0,
            wipes: 0,
            retries: BTreeMap::new(),
        }
    }
}

impl Sim {
    pub(super) fn tell(&mut self, account: usize, input: Input) {
        let account = &mut self.accounts[account];
        account.engine.handle(self.now, input);
        account.idle = false;
    }

    pub(super) fn poll(&mut self, i: usize) {
        let Some(output) = self.accounts[i].engine.poll() else {
            self.accounts[i].idle = true;
            return self.link_again(i);
        };
        self.note(format!("{i}{output:?}").as_bytes());
        if let Output::Commit { batch, .. } = &output {
            batch.puts.iter().for_each(|(_, value)| self.note(value));
            batch.events.iter().for_each(|event| self.note(&event.body));
        }
        match output {
            Output::Open(id) => {
                self.wires.insert(ConnId(self.next_wire), Wire::new(i, id));
                self.next_wire += 1;
            }
            Output::Send(id, bytes) => {
                self.note(&bytes);
                let durable = self.accounts[i].disk.batches;
                if let Some(wire) = self.wire_of(i, id) {
                    wire.to_server.push_back((bytes, durable));
                }
            }
            Output::Close(id) => {
                if let Some(wire) = self.wire_of(i, id) {
                    wire.closing = true;
                }
            }
            Output::Load { id, keys, scans } => self.accounts[i].loads.push_back((id, keys, scans)),
            Output::Cpu(id, job) => self.accounts[i].work.push_back((id, job)),
            Output::RefreshVersion => self.tell(i, Input::Version(None)),
            Output::Commit { seq, batch } => self.accounts[i].commits.push_back((seq, batch)),
            Output::Event(envelope) => {
                self.trace(|sim| format!("{} tells {} {}", sim.accounts[i].name, envelope.event, envelope.data));
                if let Some(seq) = envelope.seq {
                    assert_eq!(
                        self.accounts[i].disk.outbox.get(&seq).map(|stored| &stored.event_id),
                        Some(&envelope.event_id),
                        "an event is told only when it is durable"
                    );
                    self.tell(i, Input::Acknowledged(seq));
                } else if envelope.event == "session.qr_updated" {
                    self.accounts[i].qr = envelope.data["qr"].as_str().map(str::to_owned);
                    self.scan(i);
                }
            }
            Output::Reply(id, reply) => {
                let Some(request) = self.accounts[i].asked.remove(&id) else {
                    // Started again in the middle of a link, or after a logout.
                    if reply == Err(CommandError::NotLinked) {
                        self.link(i);
                    }
                    return;
                };
                match reply {
                    Ok(Reply::Accepted { id, .. }) => {
                        self.accounts[i].accepted.insert(id.as_str().to_owned());
                    }
                    Ok(_) => panic!("a send is accepted or refused"),
                    // Its device was removed.
                    Err(CommandError::NotLinked | CommandError::Interrupted) if self.is_troubled => {
                        self.never_sent(&request)
                    }
                    // The store failed before it was accepted.
                    Err(CommandError::Interrupted) => self.ask(i, request),
                    Err(error) => panic!("send {:?} refused: {error}", request.id),
                }
            }
            _ => panic!("an output that the simulator does not know"),
        }
    }

    /// What is told from now on is told of the new device.
    fn link(&mut self, i: usize) {
        if let Some(jid) = self.accounts[i].device.clone() {
            // It was cut off in the middle of a link, before the server knew that it was made.
            let views = self.server.accounts();
            let is_linked = views.iter().flat_map(|account| &account.devices).any(|device| device.jid == jid);
            assert!(!is_linked, "{} is logged out without a reason", self.accounts[i].name);
            self.unlinked(i);
        }
        let disk = &mut self.accounts[i].disk;
        disk.first = disk.outbox.keys().next_back().map_or(0, |last| last + 1);
        self.command(i, Command::LinkQr);
    }

    /// Links a device that was unlinked, as a new one.
    fn link_again(&mut self, i: usize) {
        if self.accounts[i].engine.snapshot().state == SessionState::LoggedOut {
            self.link(i);
        }
    }

    fn wire_of(&mut self, account: usize, id: ConnectionId) -> Option<&mut Wire> {
        self.wires.values_mut().find(|wire| wire.account == account && wire.id == id)
    }

    fn scan(&mut self, i: usize) {
        if let Some(qr) = self.accounts[i].qr.take() {
            let linked = self.server.scan(self.now, self.accounts[i].number, &qr, &ScanOptions::default());
            self.drain_server();
            match linked {
                Ok(linked) => self.accounts[i].device = Some(linked.jid),
                // A wire was cut, and the code came too late.
                Err(error) => assert!(self.is_troubled, "scanned: {error}"),
            }
        }
    }

    pub(super) fn commit(&mut self, i: usize) {
        let Some((seq, batch)) = self.accounts[i].commits.pop_front() else { return };
        self.accounts[i].disk.apply(&batch);
        self.tell(i, Input::Durable(seq));
    }

    /// Reads see every batch that was queued before, durable or not. They are answered in any order.
    pub(super) fn load(&mut self, i: usize) {
        let which = self.pick(self.accounts[i].loads.len());
        let account = &mut self.accounts[i];
        let Some((id, keys, scans)) = account.loads.remove(which) else { return };
        let mut records = account.disk.records.clone();
        for (_, batch) in &account.commits {
            if batch.clear {
                records.clear();
            }
            for key in &batch.deletes {
                records.remove(key);
            }
            records.extend(batch.puts.iter().cloned());
        }
        let scanned = records.iter().filter(|(key, _)| scans.contains(&key.kind));
        let scanned = scanned.map(|(key, value)| (key.clone(), value.clone())).collect();
        let records = keys.into_iter().map(|key| (key.clone(), records.get(&key).cloned())).collect();
        self.tell(i, Input::Loaded(id, Loaded { records, scanned }));
    }

    /// A job is done, sooner or later.
    pub(super) fn work(&mut self, i: usize) {
        let Some((id, job)) = self.accounts[i].work.pop_front() else { return };
        self.tell(i, Input::Computed(id, job.run()));
    }

    /// Lets nothing of an account become durable, or lets it again.
    pub(crate) fn hold_commits(&mut self, account: usize, on: bool) {
        self.accounts[account].held = on;
    }

    /// The process dies with everything that is not durable.
    pub(crate) fn crash_now(&mut self, i: usize) {
        self.accounts[i].commits.clear();
        self.accounts[i].held = false;
        self.crash(i);
    }

    /// The store fails: what it does not have is lost, and the engine begins again from what it has.
    pub(crate) fn fail_store(&mut self, i: usize) {
        let account = &mut self.accounts[i];
        account.commits.clear();
        account.loads.clear();
        account.held = false;
        self.tell(i, Input::StoreFailed(wamd::store::StoreError::Backend("disk full".into())));
    }

    /// The process dies and starts again from the disk.
    pub(super) fn crash(&mut self, i: usize) {
        self.crash_without(i, &[]);
    }

    pub(super) fn crash_without(&mut self, i: usize, lost: &[RecordKind]) {
        let durable = self.pick(self.accounts[i].commits.len() + 1);
        for _ in 0..durable {
            if let Some((_, batch)) = self.accounts[i].commits.pop_front() {
                self.accounts[i].disk.apply(&batch);
            }
        }
        self.accounts[i].disk.records.retain(|key, _| !lost.contains(&key.kind));
        let wires: Vec<ConnId> = self.wires.iter().filter(|(_, wire)| wire.account == i).map(|(id, _)| *id).collect();
        for wire in wires {
            let arrived = self.pick(self.wires[&wire].to_server.len() + 1);
            for _ in 0..arrived {
                self.deliver_to_server(wire);
            }
            if let Some(wire_state) = self.wires.remove(&wire)
                && !wire_state.fresh
            {
                self.server.handle(self.now, ServerInput::Closed(wire));
                self.drain_server();
            }
        }
        let engine = self.boot(self.accounts[i].name);
        let account = &mut self.accounts[i];
        account.engine = engine;
        account.commits.clear();
        account.loads.clear();
        account.work.clear();
        account.crashes += 1;
        // Whoever got no answer asks again with the same message id.
        let unanswered: Vec<SendRequest> = std::mem::take(&mut account.asked).into_values().collect();
        self.command(i, Command::Connect);
        for request in unanswered {
            self.ask(i, request);
        }
    }
}
