//! One account behind JSON-RPC 2.0 on standard input and output, for programs in any language.
//!
//! ```text
//!   stdin ──lines──► requests, each a task ──► Client ──► account
//!                            │ answers                       │ events
//!   stdout ◄──lines──────────┴───────────────────────────────┘
//! ```
//!
//! One JSON object (or batch) per line in both directions, at most 1 MiB in. Nothing else is written to stdout; complaints
//! go to stderr.
//!
//! | method | params | result |
//! |---|---|---|
//! | `link_qr` | | `{}`; the codes come as events |
//! | `link_code` | `phone`, perhaps `code`, `notify` | `{"code","expiresAt"}` once the server has accepted the code |
//! | `passkey_assertion` | `credentialId` (base64url), `assertion` (JSON) | `{}`; answers `session.passkey_request` |
//! | `passkey_confirm` | | `{}`; answers `session.passkey_confirmation` |
//! | `connect`, `disconnect`, `reconnect`, `logout` | | `{}` |
//! | `send_text` | `to`, `text`, perhaps `id`, `clientRef` | `{"id","timestamp"}` once the message is stored |
//! | `group_create` | `subject`, `participants` | the group |
//! | `group_info` | `group` | the group; asked for if it is not known |
//! | `react` | `chat`, `id`, `emoji` (empty takes it away), perhaps `fromMe`, `participant` | as `send_text` |
//! | `edit` | `chat`, `id`, `text`; for 20 minutes | as `send_text` |
//! | `delete` | `chat`, `id`, perhaps `fromMe` (true unless given), `participant` | as `send_text` |
//! | `mark_read` | `chat`, `ids`, perhaps `participant` | `{}` |
//! | `snapshot` | | state, identities and counters of the account |
//! | `stats` | | memory and counters of the process |
//! | `shutdown` | | `{}`; then the program ends |
//!
//! Params are an object, or an array in the order of the table. `to` and `chat` are a JID or a phone number with its country
//! code. `id`, `fromMe` and `participant` are those of the key that an event shows. Requests reach the account in the order of their lines, run at the same time, and are answered as they finish. Texts
//! leave in the order in which they were asked for. Every event is a notification, `{"jsonrpc":"2.0","method":"event","params":{"event":…,"data":…}}`, and is
//! acknowledged once it is written: what was not comes again after a restart, with the same `eventId`.
//!
//! Errors of the account have code -32000 and `data: {"kind","retryable"}`.
//!
//! An account that is linked already connects at the start, unless `--no-connect` is given. The end of stdin, `shutdown`,
//! Ctrl-C and SIGTERM end the program in good order, with exit code 0.
#![expect(clippy::print_stderr, reason = "complaints go to stderr")]

use std::{
    fmt::Display,
    fs,
    future::{Future, poll_fn},
    io::{self, BufRead as _, BufWriter, Read as _, Write as _},
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Parser;
use futures_util::future::join_all;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use wamd::{
    Error, Jid,
    client::{Accepted, Client, DEFAULT_URL, Delivery, Events},
    crypto::PublicKey,
    engine::{CommandError, MessageRef, SendRequest, Snapshot},
    message::MessageId,
    pairing::code::{PairCode, PhoneNumber},
    stanza::iq::groups::NewGroup,
    store::{AccountId, SqliteStore},
};

/// One account behind JSON-RPC 2.0 on standard input and output.
#[derive(Debug, Parser)]
struct Args {
    /// The server.
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Trust servers with this certificate root (64 hex digits) instead of the real ones.
    #[arg(long, value_parser = root_key)]
    root_key: Option<PublicKey>,
    /// The database; made if it is missing.
    #[arg(long, default_value = "wamd.db")]
    store: PathBuf,
    /// The name of the account in the database and in events.
    #[arg(long, default_value = "default")]
    session: String,
    /// Stay offline until `connect` or `link_qr`, even if the account is linked.
    #[arg(long)]
    no_connect: bool,
}

fn root_key(text: &str) -> Result<PublicKey, String> {
    let bytes = hex::decode(text).map_err(|error| error.to_string())?;
    PublicKey::from_slice(&bytes).map_err(|error| error.to_string())
}

// ---- methods --------------------------------------------------------------------------------------------------

/// What a method can use.
#[derive(Clone, Debug)]
struct Account {
    client: Client,
    process: Arc<Process>,
}

#[derive(Debug)]
struct Process {
    started: Instant,
    requests: AtomicU64,
    stop: Notify,
}

type Outcome = Result<Value, RpcError>;
/// A request that runs.
type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A method by name. `params` are the names that the places of an array stand for.
struct Method {
    name: &'static str,
    params: &'static [&'static str],
    call: fn(Account, Params) -> Call,
}

macro_rules! method {
    ($name:ident($($param:literal),*)) => {
        Method {
            name: stringify!($name),
            params: &[$($param),*],
            call: |account, params| Box::pin(async move { $name(account, params.read()?).await }),
        }
    };
}

/// A new method is a line here and a function below.
const METHODS: &[Method] = &[
    method!(link_qr()),
    method!(link_code("phone", "code", "notify")),
    method!(passkey_assertion("credentialId", "assertion")),
    method!(passkey_confirm()),
    method!(connect()),
    method!(disconnect()),
    method!(reconnect()),
    method!(logout()),
    method!(send_text("to", "text", "id", "clientRef")),
    method!(group_create("subject", "participants")),
    method!(group_info("group")),
    method!(react("chat", "id", "emoji", "fromMe", "participant")),
    method!(edit("chat", "id", "text")),
    method!(delete("chat", "id", "fromMe", "participant")),
    method!(mark_read("chat", "ids", "participant")),
    method!(snapshot()),
    method!(stats()),
    method!(shutdown()),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn link_qr(account: Account, _: Nothing) -> Outcome {
    account.client.link_qr().await?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkCode {
    phone: Parsed<PhoneNumber>,
    code: Option<Parsed<PairCode>>,
    notify: Option<bool>,
}

async fn link_code(account: Account, params: LinkCode) -> Outcome {
    let code = params.code.map(|code| code.0);
    let linking = account.client.link_code_with(params.phone.0, code, params.notify.unwrap_or(true)).await?;
    Ok(json!({ "code": linking.code.shown(), "expiresAt": linking.expires_at }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PasskeyAssertion {
    credential_id: String,
    assertion: Value,
}

async fn passkey_assertion(account: Account, params: PasskeyAssertion) -> Outcome {
    let id = params.credential_id.trim_end_matches('=');
    let id = URL_SAFE_NO_PAD.decode(id).map_err(|error| RpcError::params(format!("credentialId: {error}")))?;
    account.client.passkey_assertion(id.into(), params.assertion.to_string().into()).await?;
    done()
}

async fn passkey_confirm(account: Account, _: Nothing) -> Outcome {
    account.client.passkey_confirm().await?;
    done()
}

async fn connect(account: Account, _: Nothing) -> Outcome {
    account.client.connect().await?;
    done()
}

async fn disconnect(account: Account, _: Nothing) -> Outcome {
    account.client.disconnect().await?;
    done()
}

async fn reconnect(account: Account, _: Nothing) -> Outcome {
    account.client.reconnect().await?;
    done()
}

async fn logout(account: Account, _: Nothing) -> Outcome {
    account.client.logout().await?;
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SendText {
    to: Address,
    text: String,
    id: Option<MessageId>,
    client_ref: Option<String>,
}

async fn send_text(account: Account, params: SendText) -> Outcome {
    let mut request = SendRequest::text(params.to.0, params.text);
    request.id = params.id;
    request.client_ref = params.client_ref;
    let accepted = account.client.send(request).await?;
    stored(&accepted)
}

fn stored(accepted: &Accepted) -> Outcome {
    Ok(json!({ "id": accepted.id, "timestamp": accepted.timestamp }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct React {
    chat: Address,
    id: MessageId,
    emoji: String,
    #[serde(default)]
    from_me: bool,
    participant: Option<Address>,
}

async fn react(account: Account, params: React) -> Outcome {
    let target = message_ref(params.id, params.from_me, params.participant);
    stored(&account.client.react(&params.chat.0, target, params.emoji).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    chat: Address,
    id: MessageId,
    text: String,
}

async fn edit(account: Account, params: Edit) -> Outcome {
    stored(&account.client.edit(&params.chat.0, params.id, params.text).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Delete {
    chat: Address,
    id: MessageId,
    from_me: Option<bool>,
    participant: Option<Address>,
}

async fn delete(account: Account, params: Delete) -> Outcome {
    let target = message_ref(params.id, params.from_me.unwrap_or(true), params.participant);
    stored(&account.client.delete(&params.chat.0, target).await?)
}

/// A message, by the members of the key that events show.
fn message_ref(id: MessageId, from_me: bool, participant: Option<Address>) -> MessageRef {
    match (from_me, participant) {
        (true, _) => MessageRef::own(id),
        (false, Some(author)) => MessageRef::of_member(id, author.0),
        (false, None) => MessageRef::theirs(id),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupCreate {
    subject: String,
    participants: Vec<Address>,
}

async fn group_create(account: Account, params: GroupCreate) -> Outcome {
    let participants = params.participants.into_iter().map(|participant| participant.0).collect();
    let group = account.client.groups().create(NewGroup::new(params.subject, participants)).await?;
    Ok(json!(group))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupInfo {
    group: Address,
}

async fn group_info(account: Account, params: GroupInfo) -> Outcome {
    Ok(json!(account.client.groups().info(&params.group.0).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkRead {
    chat: Address,
    ids: Vec<String>,
    participant: Option<Address>,
}

async fn mark_read(account: Account, params: MarkRead) -> Outcome {
    let ids: Vec<&str> = params.ids.iter().map(String::as_str).collect();
    let participant = params.participant.as_ref().map(|participant| &participant.0);
    account.client.mark_read(&params.chat.0, participant, &ids).await?;
    done()
}

async fn snapshot(account: Account, _: Nothing) -> Outcome {
    let known = account.client.snapshot();
    Ok(json!({
        "state": known.state.as_str(),
        "jid": known.jid,
        "lid": known.lid,
        "phone": known.jid.as_ref().map(Jid::user),
        "pushName": known.push_name,
        "lastSeen": known.last_seen_ms,
        "counters": counters(&known),
    }))
}

async fn stats(account: Account, _: Nothing) -> Outcome {
    let mut counters = counters(&account.client.snapshot());
    counters["requests"] = account.process.requests.load(Ordering::Relaxed).into();
    counters["uptimeMs"] = json!(account.process.started.elapsed().as_millis());
    Ok(json!({ "memory": { "residentBytes": resident_bytes() }, "counters": counters }))
}

/// The answer is written before the program ends.
async fn shutdown(account: Account, _: Nothing) -> Outcome {
    account.process.stop.notify_one();
    done()
}

fn done() -> Outcome {
    Ok(json!({}))
}

fn counters(known: &Snapshot) -> Value {
    json!({
        "batches": known.batches,
        "events": known.last_event,
        "unacknowledged": known.unacknowledged,
        "sends": known.sends,
        "waitingBytes": known.waiting_bytes,
    })
}

/// Memory of this process that is in RAM, where the system says (Linux).
fn resident_bytes() -> Option<u64> {
    // In kB, whatever the size of a page is; `/proc/self/statm` counts pages.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// What stands in a text.
#[derive(Deserialize)]
#[serde(try_from = "String", bound = "T: FromStr<Err: Display>")]
struct Parsed<T>(T);

impl<T: FromStr<Err: Display>> TryFrom<String> for Parsed<T> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| error.to_string())
    }
}

/// A JID, or a phone number.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Address(Jid);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix('+').unwrap_or(&text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self(Jid::pn(digits)));
        }
        if !text.contains('@') {
            return Err("neither a JID nor a phone number".to_owned());
        }
        text.parse().map(Self).map_err(|error| format!("not a JID: {error}"))
    }
}

// ---- JSON-RPC -------------------------------------------------------------------------------------------------

const PARSE_ERROR: i32 = -32_700;
const INVALID_REQUEST: i32 = -32_600;
const METHOD_NOT_FOUND: i32 = -32_601;
const INVALID_PARAMS: i32 = -32_602;
/// The account or its store refused; `data` says why.
const REFUSED: i32 = -32_000;

/// The `error` of an answer.
#[derive(Debug)]
struct RpcError {
    code: i32,
    message: String,
    data: Option<Value>,
}

impl RpcError {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    fn parse(why: impl Display) -> Self {
        Self::new(PARSE_ERROR, format!("parse error: {why}"))
    }

    fn invalid(why: &str) -> Self {
        Self::new(INVALID_REQUEST, format!("invalid request: {why}"))
    }

    fn params(why: impl Display) -> Self {
        Self::new(INVALID_PARAMS, format!("invalid params: {why}"))
    }
}

impl From<Error> for RpcError {
    fn from(error: Error) -> Self {
        let data = json!({ "kind": kind(&error), "retryable": error.is_retryable() });
        Self { data: Some(data), ..Self::new(REFUSED, error.to_string()) }
    }
}

/// A stable word for what went wrong.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::Command(error) => match error {
            CommandError::NotLinked => "not_linked",
            CommandError::AlreadyLinked => "already_linked",
            CommandError::Link { error, .. } => error.as_str(),
            CommandError::LinkUnderWay => "link_under_way",
            CommandError::NoPasskey => "no_passkey",
            CommandError::NotConnected => "not_connected",
            CommandError::NotAChat(_) => "not_a_chat",
            CommandError::Audience(_) => "audience",
            CommandError::Content(_) => "content",
            CommandError::UnknownMessage => "unknown_message",
            CommandError::TooLate => "too_late",
            CommandError::Restricted { .. } => "restricted",
            CommandError::MessageId => "message_id",
            CommandError::NoIds => "no_ids",
            CommandError::Busy { .. } => "busy",
            CommandError::Record(_) => "record",
            CommandError::Interrupted => "interrupted",
            CommandError::NotAGroup(_) => "not_a_group",
            CommandError::Refused { .. } => "refused",
            CommandError::NoAnswer | CommandError::Answer => "no_answer",
            _ => "other",
        },
        Error::Store(_) => "store",
        Error::Stopped => "stopped",
        _ => "other",
    }
}

/// The params of a request, and what the places of an array stand for.
struct Params {
    names: &'static [&'static str],
    given: Option<Value>,
}

impl Params {
    fn read<P: DeserializeOwned>(self) -> Result<P, RpcError> {
        let object = match self.given {
            None => Map::new(),
            Some(Value::Object(object)) => object,
            Some(Value::Array(values)) if values.len() <= self.names.len() => {
                self.names.iter().map(|name| (*name).to_owned()).zip(values).collect()
            }
            Some(_) => return Err(RpcError::params(format!("at most {} expected", self.names.len()))),
        };
        serde_json::from_value(Value::Object(object)).map_err(RpcError::params)
    }
}

/// The answer to a line; `None` when nothing in it wants one.
async fn answer_line(account: Account, line: Line) -> Option<Value> {
    let text = match line {
        Line::Text(text) => text,
        Line::TooLong => {
            return Some(answer(&Value::Null, Err(RpcError::parse(format!("line above {MAX_LINE} bytes")))));
        }
    };
    let requests = match serde_json::from_slice(&text) {
        Ok(Value::Array(requests)) => requests,
        Ok(request) => return answer_request(account, request).await,
        Err(error) => return Some(answer(&Value::Null, Err(RpcError::parse(error)))),
    };
    if requests.is_empty() || requests.len() > MAX_BATCH {
        let why = format!("a batch has 1 to {MAX_BATCH} requests");
        return Some(answer(&Value::Null, Err(RpcError::invalid(&why))));
    }
    let answers = join_all(requests.into_iter().map(|request| answer_request(account.clone(), request))).await;
    let answers: Vec<Value> = answers.into_iter().flatten().collect();
    (!answers.is_empty()).then_some(Value::Array(answers))
}

/// The answer to one request; `None` for a notification.
async fn answer_request(account: Account, request: Value) -> Option<Value> {
    account.process.requests.fetch_add(1, Ordering::Relaxed);
    let Value::Object(mut request) = request else {
        return Some(answer(&Value::Null, Err(RpcError::invalid("not an object"))));
    };
    let id = request.remove("id");
    if !id.as_ref().is_none_or(is_id) {
        return Some(answer(&Value::Null, Err(RpcError::invalid("id is not a string or number"))));
    }
    let outcome = match dispatch(account, request) {
        Ok(call) => call.await,
        // Nobody knows whether this was meant as a notification.
        Err(error) if error.code == INVALID_REQUEST => return Some(answer(&id.unwrap_or_default(), Err(error))),
        Err(error) => Err(error),
    };
    id.map(|id| answer(&id, outcome))
}

/// Finds the method, and starts nothing yet.
fn dispatch(account: Account, mut request: Map<String, Value>) -> Result<Call, RpcError> {
    if request.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(RpcError::invalid("jsonrpc is not \"2.0\""));
    }
    let given = request.remove("params");
    if !matches!(given, None | Some(Value::Object(_) | Value::Array(_))) {
        return Err(RpcError::invalid("params are not an object or array"));
    }
    let Some(Value::String(name)) = request.remove("method") else {
        return Err(RpcError::invalid("method is not a string"));
    };
    let Some(method) = METHODS.iter().find(|method| method.name == name) else {
        return Err(RpcError::new(METHOD_NOT_FOUND, format!("no method {name:?}")));
    };
    Ok((method.call)(account, Params { names: method.params, given }))
}

const fn is_id(id: &Value) -> bool {
    matches!(id, Value::Null | Value::String(_) | Value::Number(_))
}

fn answer(id: &Value, outcome: Outcome) -> Value {
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(RpcError { code, message, data }) => {
            let mut error = json!({ "code": code, "message": message });
            if let Some(data) = data {
                error["data"] = data;
            }
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        }
    }
}

// ---- lines ----------------------------------------------------------------------------------------------------

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 1024 * 1024;
/// Most requests in a batch.
const MAX_BATCH: usize = 1_000;
/// Lines that wait to be written.
const OUTPUT_CAPACITY: usize = 256;
/// Most lines that are written before a flush.
const FLUSH_LINES: usize = 64;

/// A line of stdin.
enum Line {
    Text(Vec<u8>),
    TooLong,
}

/// What goes to stdout.
enum Written {
    Answer(Value),
    Event(Delivery),
}

/// Reads stdin in a thread of its own, which nobody has to wait for when the program ends.
fn start_reader() -> mpsc::Receiver<Line> {
    let (lines, queue) = mpsc::channel(1);
    thread::spawn(move || {
        if let Err(error) = read_lines(&lines) {
            eprintln!("stdin cannot be read: {error}");
        }
    });
    queue
}

fn read_lines(lines: &mpsc::Sender<Line>) -> io::Result<()> {
    let mut input = io::stdin().lock();
    loop {
        let mut text = Vec::new();
        if input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut text)? == 0 {
            return Ok(());
        }
        let line = if text.len() > MAX_LINE && text.last() != Some(&b'\n') {
            input.skip_until(b'\n')?;
            Line::TooLong
        } else if text.trim_ascii().is_empty() {
            continue;
        } else {
            Line::Text(text)
        };
        if lines.blocking_send(line).is_err() {
            return Ok(());
        }
    }
}

/// Writes stdout in a thread of its own; what became of it comes when every sender is gone, or when it fails.
fn start_writer() -> (mpsc::Sender<Written>, oneshot::Receiver<io::Result<()>>) {
    let (output, queue) = mpsc::channel(OUTPUT_CAPACITY);
    let (end, ended) = oneshot::channel();
    thread::spawn(move || end.send(write_lines(queue)));
    (output, ended)
}

fn write_lines(mut queue: mpsc::Receiver<Written>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut events = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let more = std::iter::from_fn(|| queue.try_recv().ok()).take(FLUSH_LINES);
        for line in std::iter::once(first).chain(more) {
            match line {
                Written::Answer(answer) => writeln!(out, "{answer}")?,
                Written::Event(event) => {
                    let envelope = event.envelope().to_json();
                    writeln!(out, r#"{{"jsonrpc":"2.0","method":"event","params":{envelope}}}"#)?;
                    events.push(event);
                }
            }
        }
        out.flush()?;
        // Only now are they out of our hands.
        events.drain(..).for_each(|event: Delivery| event.acknowledge());
    }
    Ok(())
}

/// Carries events to stdout. A reader that is slow slows the account down.
async fn write_events(mut events: Events, output: mpsc::Sender<Written>) {
    while let Some(event) = events.next().await {
        if output.send(Written::Event(event)).await.is_err() {
            return;
        }
    }
}

// ---- the program ----------------------------------------------------------------------------------------------

/// Most lines whose requests run at a time; more wait in stdin.
const MAX_RUNNING: usize = 64;
/// How long the end waits, for each: running requests, the account, a reader of stdout.
const GRACE: Duration = Duration::from_secs(10);

/// One account needs one thread; reading and writing have theirs.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Client::builder(AccountId::new(args.session)).store(SqliteStore::open(args.store)?).url(args.url);
    if let Some(root) = args.root_key {
        builder = builder.root_key(root);
    }
    let client = builder.start().await?;
    let events = client.events()?;
    let (output, written) = start_writer();
    tokio::spawn(write_events(events, output.clone()));

    // Both answer when the account is loaded, so that the first snapshot shows it.
    let started = if args.no_connect { client.disconnect().await } else { client.connect().await };
    if let Err(error) = started
        && !error.is_logged_out()
    {
        eprintln!("the account does not connect: {error}");
    }
    let process = Process { started: Instant::now(), requests: AtomicU64::new(0), stop: Notify::new() };
    let account = Account { client: client.clone(), process: Arc::new(process) };
    serve(&account, &output).await?;
    let _ = timeout(GRACE, client.shutdown()).await;
    drop((account, output));
    match timeout(GRACE, written).await {
        Ok(result) => Ok(result??),
        Err(_) => Err("nobody reads stdout".into()),
    }
}

/// Answers requests until something wants the end, and then those that run.
async fn serve(account: &Account, output: &mpsc::Sender<Written>) -> io::Result<()> {
    let mut lines = start_reader();
    let mut running = JoinSet::new();
    let signal = stop_signal();
    tokio::pin!(signal);
    loop {
        tokio::select! {
            line = lines.recv(), if running.len() < MAX_RUNNING => {
                let Some(line) = line else { break };
                let output = output.clone();
                let mut answer = Box::pin(answer_line(account.clone(), line));
                // Begun here, so that requests reach the account in the order of their lines.
                let begun = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
                running.spawn(async move {
                    let answer = match begun {
                        Poll::Ready(answer) => answer,
                        Poll::Pending => answer.await,
                    };
                    if let Some(answer) = answer {
                        // Without a reader the program ends anyway.
                        let _ = output.send(Written::Answer(answer)).await;
                    }
                });
            }
            Some(_) = running.join_next() => {}
            () = account.process.stop.notified() => break,
            () = output.closed() => break,
            received = &mut signal => {
                received?;
                break;
            }
        }
    }
    let finished = async { while running.join_next().await.is_some() {} };
    let _ = timeout(GRACE, finished).await;
    Ok(())
}

/// Waits for Ctrl-C, or on Unix for SIGTERM.
async fn stop_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
