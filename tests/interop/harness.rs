//! Both sides of an interop test as processes and clients that are told what to do, and what each of them got.
//!
//! Every text of a test is a different one, so a text alone tells what arrived, and how often.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module, and is a crate")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout_at},
};
use wamd::{
    Jid,
    client::{Client, Events},
    store::{AccountId, Batch, RecordKind, SqliteStore, Store as _},
};
use wamd_loopback::Loopback;

/// Nothing takes that long; a step that does is stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What one side got.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// By text: how often it came, and the message object of the last time.
    texts: BTreeMap<String, (u32, Value)>,
    /// Attempts to decrypt that failed.
    pub undecryptable: u32,
}

impl Arrivals {
    fn note(&mut self, text: &Value, message: Value) {
        let text = text.as_str().expect("a text").to_owned();
        let seen = self.texts.entry(text).or_default();
        *seen = (seen.0 + 1, message);
    }

    /// The message object of a text that came.
    pub fn get(&self, text: &str) -> Option<&Value> {
        self.texts.get(text).map(|(_, message)| message)
    }

    /// Everything that came.
    pub fn texts(&self) -> impl Iterator<Item = &String> {
        self.texts.keys()
    }

    /// Nothing came twice; gives the number of texts.
    pub fn check_once(&self) -> usize {
        for (text, (times, _)) in &self.texts {
            assert_eq!(*times, 1, "{text:?} arrived {times} times");
        }
        self.texts.len()
    }
}

/// Our client, with a database in a file.
#[derive(Debug)]
pub struct Ours {
    pub client: Client,
    pub number: &'static str,
    pub got: Arrivals,
    events: Events,
    path: PathBuf,
    url: String,
    root: wamd::crypto::PublicKey,
}

impl Ours {
    pub async fn start(folder: &Path, server: &Loopback, number: &'static str) -> Self {
        let path = folder.join(format!("{number}.db"));
        Self::open(path, server.ws_url(), server.root_public_key(), number).await
    }

    async fn open(path: PathBuf, url: String, root: wamd::crypto::PublicKey, number: &'static str) -> Self {
        let store = SqliteStore::open(&path).expect("a store");
        let builder = Client::builder(account(number)).shared_store(Arc::new(store));
        let client = builder.url(url.clone()).root_key(root).start().await.expect("a client");
        let events = client.events().expect("a client");
        Self { client, number, got: Arrivals::default(), events, path, url, root }
    }

    pub async fn link(&mut self, server: &Loopback) {
        self.client.link_qr().await.expect("linking starts");
        let qr = self.event("session.qr_updated").await["qr"].as_str().expect("a code").to_owned();
        server.scan(self.number, &qr).await.expect("we are scanned");
        self.event("session.connected").await;
    }

    pub async fn link_by_code(&mut self, server: &Loopback) {
        let phone = server.phone(self.number).await.expect("a phone");
        let linking = self.client.link_code(self.number.parse().expect("a number")).await.expect("a code");
        phone.enter_code(&linking.code.shown()).await.expect("it is typed");
        self.event("session.connected").await;
    }

    /// The next event of this name; texts that come before are noted.
    pub async fn event(&mut self, name: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (event, data) = self.next(until, name).await;
            if event == name {
                return data;
            }
        }
    }

    /// Waits for a text, unless it is there.
    pub async fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while self.got.get(text).is_none() {
            self.next(until, text).await;
        }
    }

    async fn next(&mut self, until: Instant, what: &str) -> (Cow<'static, str>, Value) {
        let event = timeout_at(until, self.events.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("{}: no {what:?} in time", self.number)).expect("the client runs");
        assert_ne!(event.event, "message.failed", "{}: {}", self.number, event.data);
        if event.event == "message.undecryptable" {
            // This Baileys may use a message key twice, or drop a session that it has just begun (see the README): a
            // second copy must then repair it.
            assert_eq!(event.data["willRetry"], true, "{}: {}", self.number, event.data);
            self.got.undecryptable += 1;
        }
        if event.event == "message.received" {
            for message in event.data["messages"].as_array().expect("messages") {
                self.got.note(&message["text"], message.clone());
            }
        }
        (event.event, event.data)
    }

    /// Stops, and starts again from what was stored; the connection is the caller's business.
    pub async fn restart(self) -> Self {
        self.restart_without(&[]).await
    }

    /// The same, after the records of these kinds got lost.
    pub async fn restart_without(self, lost: &[RecordKind]) -> Self {
        let Self { client, number, got, events, path, url, root } = self;
        drop(events);
        client.shutdown().await;
        if !lost.is_empty() {
            lose(&path, number, lost).await;
        }
        Self { got, ..Self::open(path, url, root, number).await }
    }

    pub async fn connect(&mut self) {
        self.client.connect().await.expect("we connect");
        self.event("session.connected").await;
    }

    pub async fn stop(self) {
        drop(self.events);
        self.client.shutdown().await;
    }
}

fn account(number: &str) -> AccountId {
    AccountId::new(number)
}

/// Removes records from a database that nobody uses.
async fn lose(path: &Path, number: &str, kinds: &[RecordKind]) {
    let store = SqliteStore::open(path).expect("a store");
    let mut batch = Batch::default();
    for kind in kinds {
        let records = store.scan(&account(number), *kind).await.expect("records");
        batch.deletes.extend(records.into_iter().map(|(key, _)| key));
    }
    assert!(!batch.is_empty(), "there was nothing to lose");
    store.commit(&account(number), batch).await.expect("it is stored");
}

/// Baileys, in a process of its own.
#[derive(Debug)]
pub struct Baileys {
    pub got: Arrivals,
    pub number: &'static str,
    child: Child,
    commands: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    package: PathBuf,
    auth: PathBuf,
    url: String,
    /// Instead of the one that it draws.
    registration_id: Option<u32>,
}

impl Baileys {
    /// `package` is what [`installed`] gave; Baileys keeps its files below `folder`.
    pub fn start(package: &Path, folder: &Path, server: &Loopback, number: &'static str) -> Self {
        Self::spawn(package.to_owned(), folder.join("baileys"), server.ws_url(), number, None)
    }

    /// The same with this registration id.
    pub fn start_as(package: &Path, folder: &Path, server: &Loopback, number: &'static str, registration: u32) -> Self {
        Self::spawn(package.to_owned(), folder.join("baileys"), server.ws_url(), number, Some(registration))
    }

    fn spawn(package: PathBuf, auth: PathBuf, url: String, number: &'static str, registration_id: Option<u32>) -> Self {
        let mut child = Command::new("node")
            .current_dir(&package)
            .args(["client.mjs", "--url", &url, "--auth"])
            .arg(&auth)
            .args(registration_id.map(|id| format!("--registration-id={id}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("LOG_LEVEL").is_some() { Stdio::inherit() } else { Stdio::null() })
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let commands = child.stdin.take().expect("stdin");
        let events = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { got: Arrivals::default(), number, child, commands, events, package, auth, url, registration_id }
    }

    pub async fn link(&mut self, server: &Loopback) {
        let qr = self.event("qr").await["qr"].as_str().expect("a code").to_owned();
        server.scan(self.number, &qr).await.expect("Baileys is scanned");
        self.event("open").await;
    }

    pub async fn tell(&mut self, command: Value) {
        let line = format!("{command}\n");
        self.commands.write_all(line.as_bytes()).await.expect("Baileys reads");
    }

    pub async fn send_text(&mut self, to: &Jid, text: &str) {
        self.tell(json!({"cmd": "send", "to": to.to_string(), "text": text, "ref": 0})).await;
    }

    /// The next event of this name; texts that come before are noted.
    pub async fn event(&mut self, name: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let event = self.next(until, name).await;
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Waits for a text, unless it is there.
    pub async fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while self.got.get(text).is_none() {
            self.next(until, text).await;
        }
    }

    async fn next(&mut self, until: Instant, what: &str) -> Value {
        let line = timeout_at(until, self.events.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("Baileys: no {what:?} in time")).expect("a line");
        let event: Value = serde_json::from_str(&line.expect("Baileys runs")).expect("JSON");
        assert_ne!(event["event"], "error", "{event}");
        if event["event"] == "undecryptable" {
            self.got.undecryptable += 1;
        }
        if event["event"] == "message" {
            self.got.note(&event["text"], event.clone());
        }
        event
    }

    /// Ends unless it has, and starts again from what was stored.
    pub async fn restart(&mut self) {
        self.restart_without(|_| false).await;
    }

    /// The same, after the files of these names got lost. A file has the name of its kind, a hyphen, and an id.
    pub async fn restart_without(&mut self, lost: impl Fn(&str) -> bool) {
        self.quit().await;
        let files = std::fs::read_dir(&self.auth).expect("a folder").map(|file| file.expect("a file"));
        for file in files.filter(|file| lost(&file.file_name().to_string_lossy())) {
            std::fs::remove_file(file.path()).expect("it is removed");
        }
        let got = std::mem::take(&mut self.got);
        let (package, auth, url) = (self.package.clone(), self.auth.clone(), self.url.clone());
        *self = Self { got, ..Self::spawn(package, auth, url, self.number, self.registration_id) };
    }

    pub async fn quit(&mut self) {
        if self.child.try_wait().expect("a process").is_none() {
            self.tell(json!({"cmd": "quit"})).await;
            let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        }
    }
}

/// The folder of the package, when everything is there to run it.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
pub fn installed() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/baileys");
    let node = std::process::Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    let missing = match (node, folder.join("node_modules/baileys").is_dir()) {
        (true, true) => return Some(folder),
        (false, _) => "Node is not installed",
        (true, false) => "run `npm ci` in tests/interop/baileys first",
    };
    assert!(std::env::var_os("WAMD_INTEROP").is_none(), "interop with Baileys cannot run: {missing}");
    eprintln!("interop with Baileys skipped: {missing}");
    None
}
