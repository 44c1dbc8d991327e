//! The task of one account. It carries out the engine's outputs and feeds it what happens; it decides nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZero,
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::Instrument as _;

use crate::{
    client::{
        Client, Delivery, Error, Events, VersionError, VersionProvider, metrics,
        socket::{Connector, Socket},
    },
    clock::Now,
    engine::{
        Command, CommandError, CommandId, Config, CpuId, CpuResult, Engine, Input, LoadId, Loaded, Output, Reply,
        Snapshot,
    },
    event::Envelope,
    pairing::payload::Version,
    store::{AccountId, Batch, Key, Lease, RecordKind, Store, StoreError},
};

/// Commands that may wait for the task.
const REQUEST_CAPACITY: usize = 64;
/// How long the consumer may take to acknowledge its last events when the account stops.
const GRACE: Duration = Duration::from_millis(500);
/// How long the client that had the account before may take to give it back.
const LEASE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before the lease is asked for again.
const LEASE_PAUSE: Duration = Duration::from_millis(100);
/// Pause before the store is asked again to remove what it could not.
const TRIM_PAUSE: Duration = Duration::from_secs(1);
/// Events read from the store at a time when the account starts.
const REPLAY_PAGE: usize = 256;

/// Ephemeral events that wait for the consumer. They tell what is on now: the oldest of more than this have nothing to say.
const MAX_EPHEMERAL: usize = 256;

/// Jobs of all accounts of the process that run at a time: one for each core. An account has at most a handful of them out
/// (`engine/slices.rs`), and the places are given in the order of asking, so that no account holds up the others for long.
static CPU_PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, NonZero::get)));

/// The caller's answer.
type Answer = oneshot::Sender<Result<Reply, CommandError>>;

/// What handles ask of the task.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every request is a command, and it is boxed")]
pub(super) enum Request {
    Command(Command, Answer),
    Shutdown(oneshot::Sender<()>),
}

/// What the store and the pool of threads answered.
#[derive(Debug)]
enum Worked {
    Loaded(LoadId, Result<Loaded, StoreError>),
    Committed(u64, Result<(), StoreError>),
    Trimmed(u64, Result<(), StoreError>),
    /// Absent when the runtime is going down.
    Computed(CpuId, Option<CpuResult>),
}

/// What the task waited for.
#[expect(clippy::large_enum_variant, reason = "handled at once, and never kept")]
enum Happened {
    Worked(Worked),
    Request(Option<Box<Request>>),
    Acknowledged(u64),
    ConsumerGone,
    Input(Input),
    Version(Result<Version, VersionError>),
    LeaseLost,
}

/// The current version, asked for.
type Lookup = BoxFuture<'static, Result<Version, VersionError>>;

pub(super) struct Driver {
    account: AccountId,
    store: Arc<dyn Store>,
    /// The right to run the account here.
    lease: Option<Lease>,
    /// Another store has taken the account.
    lost: bool,
    engine: Engine,
    connector: Connector,
    started: Instant,
    requests: mpsc::Receiver<Box<Request>>,
    /// Goes with every event to the consumer.
    acknowledge: mpsc::UnboundedSender<u64>,
    acknowledged: mpsc::UnboundedReceiver<u64>,
    events: mpsc::Sender<Delivery>,
    /// Events that the channel has no room for. Bounded: the engine stops reading when too many are not acknowledged, and of
    /// those that nobody acknowledges the last [`MAX_EPHEMERAL`] wait.
    waiting_events: VecDeque<Box<Envelope>>,
    /// How long a provider of versions may take.
    version_timeout: Duration,
    snapshot: watch::Sender<Arc<Snapshot>>,
    socket: Option<Socket>,
    answers: BTreeMap<CommandId, Answer>,
    /// Answers of this round.
    replies: Vec<(Answer, Result<Reply, CommandError>)>,
    next_command: u64,
    work: FuturesUnordered<BoxFuture<'static, Worked>>,
    /// A commit is under way.
    committing: bool,
    /// What came up meanwhile: committed as one batch.
    waiting_batch: Option<(u64, Batch)>,
    trimming: bool,
    /// The consumer has everything up to here, and the store does not know yet.
    to_trim: Option<u64>,
    versions: Option<Arc<dyn VersionProvider>>,
    /// The version that the engine states.
    stated: Version,
    lookup: Option<Lookup>,
    /// The version that was refused: the engine waits for a newer one.
    refused: Option<Version>,
    /// The account is being stopped; who wants to know when everything is stored.
    stopping: Option<Vec<oneshot::Sender<()>>>,
}

/// What an account is started with.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) account: AccountId,
    pub(super) config: Config,
    pub(super) store: Arc<dyn Store>,
    pub(super) connector: Connector,
    pub(super) versions: Option<Arc<dyn VersionProvider>>,
    pub(super) consumer: Consumer,
}

/// Where events go.
#[derive(Debug)]
pub(super) enum Consumer {
    /// To a channel of the account's own, with room for so many.
    Own(usize),
    /// To one that several accounts share.
    Shared(mpsc::Sender<Delivery>),
}

impl Driver {
    pub(super) async fn start(setup: Setup) -> Result<Client, Error> {
        let Setup { account, config, store, connector, versions, consumer } = setup;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| Error::Random)?;
        let lease = acquire(&*store, &account).await?;
        let waiting_events = replay(&*store, &account).await?;
        let stated = config.client.version;
        let version_timeout = config.version_timeout;
        let mut engine = Engine::new(config, seed);
        let started = Instant::now();
        if let Some(seq) = waiting_events.front().and_then(|envelope| envelope.seq) {
            engine.handle(now(started), Input::Acknowledged(seq.saturating_sub(1)));
        }
        let (requests, request_queue) = mpsc::channel(REQUEST_CAPACITY);
        let (acknowledge, acknowledged) = mpsc::unbounded_channel();
        let (events, queue) = match consumer {
            Consumer::Own(capacity) => {
                let (events, queue) = mpsc::channel(capacity);
                (events, Some(Events { queue, acknowledged: acknowledge.clone(), handled: None }))
            }
            Consumer::Shared(events) => (events, None),
        };
        let (snapshot, snapshots) = watch::channel(Arc::new(engine.snapshot()));
        let driver = Self {
            account,
            store,
            lease: Some(lease),
            lost: false,
            engine,
            connector,
            started,
            requests: request_queue,
            acknowledge,
            acknowledged,
            events,
            waiting_events,
            version_timeout,
            snapshot,
            socket: None,
            answers: BTreeMap::new(),
            replies: Vec::new(),
            next_command: 0,
            work: FuturesUnordered::new(),
            committing: false,
            waiting_batch: None,
            trimming: false,
            to_trim: None,
            versions,
            stated,
            lookup: None,
            refused: None,
            stopping: None,
        };
        let span = tracing::info_span!("account", id = %driver.account);
        tokio::spawn(driver.run().instrument(span));
        Ok(Client { requests, snapshot: snapshots, events: Arc::new(Mutex::new(queue)) })
    }

    /// Runs until the account is stopped, everything is stored, and the consumer has what is left or is gone.
    async fn run(mut self) {
        metrics::state(None, Some(self.snapshot.borrow().state));
        loop {
            while let Some(output) = self.engine.poll() {
                self.carry_out(output);
            }
            // Before the answers: who has one finds the state that it is about.
            self.snapshot.send_if_modified(|known| {
                let current = self.engine.snapshot();
                let changed = **known != current;
                if changed {
                    if known.state != current.state {
                        metrics::state(Some(known.state), Some(current.state));
                    }
                    *known = Arc::new(current);
                }
                changed
            });
            for (answer, reply) in self.replies.drain(..) {
                metrics::command(reply.is_ok());
                let _ = answer.send(reply);
            }
            if self.lost || (self.stopping.is_some() && self.work.is_empty()) {
                break;
            }
            self.wait().await;
        }
        metrics::state(Some(self.snapshot.borrow().state), None);
        self.finish().await;
    }

    /// Everything is stored. The consumer takes what is left in its own time, and what it acknowledges on the way out does
    /// not come again. Whoever waits for the end is told when the consumer is done, or after [`GRACE`].
    async fn finish(self) {
        let Self {
            events, acknowledge, mut acknowledged, store, account, stopping, mut waiting_events, mut lease, ..
        } = self;
        let mut consumer = Some((events, acknowledge));
        let mut waiting = stopping.unwrap_or_default();
        let grace = tokio::time::sleep(GRACE);
        tokio::pin!(grace);
        let mut to_trim = self.to_trim;
        loop {
            if let Some(seq) = to_trim.take()
                && let Err(error) = store.trim_outbox(&account, seq).await
            {
                tracing::warn!(%error, "acknowledged events cannot be removed");
            }
            if waiting_events.is_empty() {
                // The consumer sees the end of its events.
                consumer = None;
            }
            tokio::select! {
                room = room(consumer.as_ref()) => match (room, waiting_events.pop_front()) {
                    (Some((room, acknowledged)), Some(envelope)) => {
                        metrics::event(&envelope);
                        room.send(Delivery { envelope, acknowledged: acknowledged.clone() });
                    }
                    _ => waiting_events.clear(),
                },
                seq = acknowledged.recv() => match seq {
                    Some(seq) => to_trim = Some(seq),
                    None => break,
                },
                () = &mut grace, if !waiting.is_empty() || lease.is_some() => {
                    give_back(&mut lease).await;
                    tell(&mut waiting);
                }
            }
        }
        give_back(&mut lease).await;
        tell(&mut waiting);
    }

    /// Waits for the next thing to happen and tells the engine.
    async fn wait(&mut self) {
        let deadline = self.engine.deadline().map(|at| tokio::time::Instant::from_std(self.started + at));
        let until = deadline.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3_600));
        let reading = self.engine.wants_read();
        let has_events = !self.waiting_events.is_empty();
        let happened = tokio::select! {
            Some(worked) = self.work.next(), if !self.work.is_empty() => Happened::Worked(worked),
            request = self.requests.recv(), if self.stopping.is_none() => Happened::Request(request),
            Some(seq) = self.acknowledged.recv() => Happened::Acknowledged(seq),
            room = self.events.reserve(), if has_events => match (room, self.waiting_events.pop_front()) {
                (Ok(room), Some(envelope)) => {
                    metrics::event(&envelope);
                    room.send(Delivery { envelope, acknowledged: self.acknowledge.clone() });
                    return;
                }
                _ => Happened::ConsumerGone,
            },
            input = inbound(&mut self.socket), if reading && self.socket.is_some() => Happened::Input(input),
            found = looked_up(&mut self.lookup), if self.lookup.is_some() => Happened::Version(found),
            () = lost(&mut self.lease) => Happened::LeaseLost,
            () = tokio::time::sleep_until(until) => Happened::Input(Input::Tick),
        };
        if let Happened::Input(input) = &happened {
            match input {
                Input::Opened(_) => metrics::connection("opened"),
                Input::Received(_, bytes) => metrics::message("in", bytes.len()),
                Input::Closed(..) => metrics::connection("closed"),
                _ => {}
            }
        }
        match happened {
            Happened::Worked(worked) => self.worked(worked),
            Happened::Request(Some(request)) => self.request(request),
            // Nobody can ask for anything any more.
            Happened::Request(None) => self.stop(None),
            Happened::Acknowledged(seq) => self.acknowledge(seq),
            // The events stay in the store for the next consumer.
            Happened::ConsumerGone => self.waiting_events.clear(),
            Happened::Input(input) => self.tell(input),
            Happened::Version(found) => self.version_found(found),
            Happened::LeaseLost => self.store_failed(StoreError::LeaseLost),
        }
    }

    fn tell(&mut self, input: Input) {
        self.engine.handle(now(self.started), input);
    }

    fn request(&mut self, request: Box<Request>) {
        match *request {
            Request::Command(command, answer) => {
                if let Command::SetVersion(version) = &command {
                    self.stated = *version;
                    // It is this one that is tried next; what is being looked up answers the refusal of another.
                    self.refused.take_if(|refused| refused != version);
                }
                let id = CommandId(self.next_command);
                self.next_command = self.next_command.saturating_add(1);
                self.answers.insert(id, answer);
                self.tell(Input::Command(id, command));
            }
            Request::Shutdown(stopped) => self.stop(Some(stopped)),
        }
    }

    /// Goes offline; the task ends when everything is stored.
    fn stop(&mut self, stopped: Option<oneshot::Sender<()>>) {
        let id = CommandId(self.next_command);
        self.next_command = self.next_command.saturating_add(1);
        self.tell(Input::Command(id, Command::Disconnect));
        let stopping = self.stopping.get_or_insert_default();
        stopping.extend(stopped);
        // Nothing is taken any more; commands that came too late are dropped, which answers them.
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            if let Request::Shutdown(stopped) = *request {
                stopping.push(stopped);
            }
        }
    }

    // ---- outputs ----------------------------------------------------------------------------------------------

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Open(id) => {
                metrics::connection("dialled");
                self.socket = Some(self.connector.open(id));
                self.look_up(None);
            }
            Output::Send(id, bytes) => {
                if let Some(socket) = self.socket.as_ref().filter(|socket| socket.id == id) {
                    metrics::message("out", bytes.len());
                    socket.send(bytes);
                }
            }
            Output::Close(id) => drop(self.socket.take_if(|socket| socket.id == id)),
            Output::Load { id, keys, scans } => {
                self.work.push(load(self.store.clone(), self.account.clone(), id, keys, scans).boxed());
            }
            Output::Commit { seq, batch } => {
                match &mut self.waiting_batch {
                    Some((last, waiting)) => {
                        *last = seq;
                        waiting.append(batch);
                    }
                    None => self.waiting_batch = Some((seq, batch)),
                }
                self.commit();
            }
            Output::Cpu(id, job) => {
                let computed = async move {
                    // The runtime's threads for blocking work are many; the cores are not.
                    let _place = CPU_PLACES.acquire().await.ok()?;
                    tokio::task::spawn_blocking(move || job.run()).await.ok()
                };
                let asked = Instant::now();
                let computed = computed.map(move |result| {
                    metrics::computed(asked.elapsed());
                    Worked::Computed(id, result)
                });
                self.work.push(computed.boxed());
            }
            Output::Event(envelope) => queue(&mut self.waiting_events, envelope),
            Output::RefreshVersion => {
                self.refused = Some(self.stated);
                self.look_up(self.refused);
            }
            Output::Reply(id, reply) => {
                if let Some(answer) = self.answers.remove(&id) {
                    self.replies.push((answer, reply));
                }
            }
        }
    }

    /// Commits what waits, unless a commit is under way.
    fn commit(&mut self) {
        if self.committing {
            return;
        }
        if let Some((seq, batch)) = self.waiting_batch.take() {
            self.committing = true;
            metrics::batch(&batch);
            let (commit, given) = (self.store.commit(&self.account, batch), Instant::now());
            let committed = move |result: Result<_, _>| {
                metrics::committed(given.elapsed(), result.is_ok());
                Worked::Committed(seq, result)
            };
            self.work.push(commit.map(committed).boxed());
        }
    }

    // ---- the version ------------------------------------------------------------------------------------------

    /// Asks for the current version, unless that is being done. Connecting does not wait for it.
    fn look_up(&mut self, refused: Option<Version>) {
        if self.lookup.is_some() {
            return;
        }
        self.lookup = Some(match self.versions.clone() {
            Some(provider) => {
                let network = self.connector.network.clone();
                let lookup = async move {
                    match (provider.current(&network, refused).await, refused) {
                        (Ok(version), Some(refused)) if version <= refused => Err(VersionError::NothingNewer(refused)),
                        (found, _) => found,
                    }
                };
                // A provider of the embedding program takes nobody with it, and keeps nobody from asking again.
                let limit = self.version_timeout;
                let lookup = tokio::time::timeout(limit, AssertUnwindSafe(lookup).catch_unwind());
                let answer = move |found| match found {
                    Ok(Ok(found)) => found,
                    Ok(Err(_)) => Err(VersionError::Other("it panicked".to_owned())),
                    Err(_) => Err(VersionError::Timeout(limit)),
                };
                lookup.map(answer).boxed()
            }
            None => std::future::ready(Err(VersionError::NothingNewer(self.stated))).boxed(),
        });
    }

    fn version_found(&mut self, found: Result<Version, VersionError>) {
        match (found, self.refused.take()) {
            (Ok(version), refused) if version > refused.unwrap_or(self.stated) => {
                self.stated = version;
                self.tell(Input::Version(Some(version)));
            }
            (Ok(_), None) => {}
            // It was asked for before the refusal came: the answer may be another one now.
            (Ok(_), Some(refused)) => {
                self.refused = Some(refused);
                self.look_up(Some(refused));
            }
            (Err(error), refused) => {
                if self.versions.is_some() {
                    tracing::warn!(%error, "the current version of the client is not known");
                }
                if refused.is_some() {
                    self.tell(Input::Version(None));
                }
            }
        }
    }

    // ---- the store and the pool -------------------------------------------------------------------------------

    fn worked(&mut self, worked: Worked) {
        match worked {
            Worked::Loaded(id, Ok(loaded)) => self.tell(Input::Loaded(id, loaded)),
            Worked::Loaded(_, Err(error)) => self.store_failed(error),
            Worked::Committed(seq, Ok(())) => {
                self.committing = false;
                self.tell(Input::Durable(seq));
                self.commit();
            }
            Worked::Committed(_, Err(error)) => {
                self.committing = false;
                self.store_failed(error);
            }
            Worked::Computed(id, Some(result)) => self.tell(Input::Computed(id, result)),
            Worked::Computed(id, None) => tracing::error!(?id, "work was not done"),
            Worked::Trimmed(seq, result) => {
                self.trimming = false;
                match result {
                    Ok(()) => self.tell(Input::Acknowledged(seq)),
                    Err(StoreError::LeaseLost) => return self.store_failed(StoreError::LeaseLost),
                    // Nobody else will ask for it again: the consumer may be waiting for what the engine reads next.
                    Err(error) => {
                        tracing::warn!(%error, "acknowledged events cannot be removed");
                        self.to_trim = self.to_trim.max(Some(seq));
                        // When the account stops, it is tried once more at the end.
                        return if self.stopping.is_none() {
                            self.trim(TRIM_PAUSE)
                        };
                    }
                }
                self.trim(Duration::ZERO);
            }
        }
    }

    /// What waits for a commit rests on the one that failed.
    fn store_failed(&mut self, error: StoreError) {
        if error == StoreError::LeaseLost && !self.lost {
            // The engine tells it, and nothing of it is stored or sent any more.
            self.lost = true;
            self.requests.close();
            self.stopping.get_or_insert_default();
        }
        self.waiting_batch = None;
        self.tell(Input::StoreFailed(error));
    }

    fn acknowledge(&mut self, seq: u64) {
        self.to_trim = self.to_trim.max(Some(seq));
        self.trim(Duration::ZERO);
    }

    fn trim(&mut self, pause: Duration) {
        if self.trimming {
            return;
        }
        if let Some(seq) = self.to_trim.take() {
            self.trimming = true;
            let (store, account) = (self.store.clone(), self.account.clone());
            let trim = async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                Worked::Trimmed(seq, store.trim_outbox(&account, seq).await)
            };
            self.work.push(trim.boxed());
        }
    }
}

/// Queues an event for the consumer.
fn queue(waiting: &mut VecDeque<Box<Envelope>>, envelope: Box<Envelope>) {
    let is_ephemeral = |envelope: &Envelope| envelope.seq.is_none();
    if is_ephemeral(&envelope)
        && waiting.len() >= MAX_EPHEMERAL
        && waiting.iter().filter(|envelope| is_ephemeral(envelope)).count() >= MAX_EPHEMERAL
        && let Some(oldest) = waiting.iter().position(|envelope| is_ephemeral(envelope))
    {
        waiting.remove(oldest);
    }
    waiting.push_back(envelope);
}

/// Tells whoever waits for the end.
fn tell(waiting: &mut Vec<oneshot::Sender<()>>) {
    for stopped in waiting.drain(..) {
        let _ = stopped.send(());
    }
}

/// Room for an event; `None` when the consumer is gone. Never ready without a channel.
async fn room(
    consumer: Option<&(mpsc::Sender<Delivery>, mpsc::UnboundedSender<u64>)>,
) -> Option<(mpsc::Permit<'_, Delivery>, &mpsc::UnboundedSender<u64>)> {
    match consumer {
        Some((events, acknowledge)) => Some((events.reserve().await.ok()?, acknowledge)),
        None => std::future::pending().await,
    }
}

/// What the lookup has found, which is over then.
async fn looked_up(lookup: &mut Option<Lookup>) -> Result<Version, VersionError> {
    let Some(running) = lookup else { return std::future::pending().await };
    let found = running.await;
    *lookup = None;
    found
}

/// Another store has taken the account, and this one has noticed before anything was written.
async fn lost(lease: &mut Option<Lease>) {
    match lease {
        Some(lease) => lease.lost().await,
        None => std::future::pending().await,
    }
}

/// The next thing of the socket.
async fn inbound(socket: &mut Option<Socket>) -> Input {
    let Some(open) = socket else { return std::future::pending().await };
    match open.inbound.recv().await {
        Some(input) => input,
        None => {
            let id = open.id;
            *socket = None;
            Input::Closed(id, String::new())
        }
    }
}

async fn load(store: Arc<dyn Store>, account: AccountId, id: LoadId, keys: Vec<Key>, scans: Vec<RecordKind>) -> Worked {
    let load = async {
        let values = store.load(&account, &keys).await?;
        let mut scanned = Vec::new();
        for kind in scans {
            scanned.extend(store.scan(&account, kind).await?);
        }
        Ok(Loaded { records: keys.iter().cloned().zip(values).collect(), scanned })
    };
    let asked = Instant::now();
    let loaded = load.await;
    metrics::loaded(asked.elapsed(), loaded.is_ok());
    Worked::Loaded(id, loaded)
}

/// Takes the account. A client of it that is just being stopped is waited for.
async fn acquire(store: &dyn Store, account: &AccountId) -> Result<Lease, StoreError> {
    let started = Instant::now();
    loop {
        match store.acquire(account).await {
            Err(StoreError::Leased { .. }) if started.elapsed() < LEASE_PATIENCE => {
                tokio::time::sleep(LEASE_PAUSE).await;
            }
            acquired => return acquired,
        }
    }
}

async fn give_back(lease: &mut Option<Lease>) {
    if let Some(lease) = lease.take()
        && let Err(error) = lease.release().await
    {
        tracing::warn!(%error, "the lease of the account was not given back");
    }
}

/// The events that were not acknowledged when the account stopped.
async fn replay(store: &dyn Store, account: &AccountId) -> Result<VecDeque<Box<Envelope>>, StoreError> {
    let mut events = VecDeque::new();
    let mut after = 0;
    loop {
        let page = store.outbox(account, after, REPLAY_PAGE).await?;
        let Some(last) = page.last() else { return Ok(events) };
        after = last.seq;
        for entry in page {
            match Envelope::from_json(&entry.body) {
                Ok(envelope) => events.push_back(Box::new(envelope)),
                Err(error) => tracing::error!(seq = entry.seq, %error, "a stored event is unusable"),
            }
        }
    }
}

fn now(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: started.elapsed(), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventId, SessionConnecting};

    #[test]
    fn of_events_that_nobody_acknowledges_the_last_ones_wait() {
        let event = |at| Envelope::new(&Event::from(SessionConnecting::new(1)), "a", EventId::random(at, &[0; 10]), at);
        let mut waiting = VecDeque::new();
        for at in 0..1_000 {
            queue(&mut waiting, Box::new(event(at)));
            queue(&mut waiting, Box::new(event(at).with_seq(at)));
        }
        let (stored, ephemeral): (Vec<_>, Vec<_>) = waiting.iter().partition(|envelope| envelope.seq.is_some());
        assert_eq!(stored.len(), 1_000, "what the store has is never dropped");
        assert_eq!(ephemeral.len(), MAX_EPHEMERAL);
        assert!(ephemeral.iter().map(|envelope| envelope.timestamp).eq(1_000 - 256..1_000), "in order");
    }
}
