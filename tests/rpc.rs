//! The program `examples/rpc.rs` speaks JSON-RPC 2.0, and loses no message when it ends and starts again.
//!
//! The tests run the built program against a loopback server, as a program in another language would.
#![cfg(all(feature = "client", feature = "sqlite"))]

use std::{
    collections::{BTreeSet, VecDeque},
    env,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use wamd_loopback::Loopback;

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
/// Nothing takes as long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program. `cargo test` builds it; for `cargo test --test rpc` it is built here.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/<profile>/deps/rpc-…
        let test = env::current_exe().unwrap();
        let target = test.ancestors().nth(2).unwrap();
        let program = target.join("examples").join(format!("rpc{}", env::consts::EXE_SUFFIX));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rpc.rs");
        let age = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        if age(&program) < age(&source) {
            let profile = match target.file_name().unwrap().to_str().unwrap() {
                "debug" => "dev",
                profile => profile,
            };
            let mut cargo = std::process::Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["build", "--quiet", "--example", "rpc", "--profile", profile, "--target-dir"]);
            cargo.arg(target.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
            // What cargo sets for tests would make build scripts run again.
            for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
                cargo.env_remove(name);
            }
            cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
            assert!(cargo.status().unwrap().success());
        }
        program
    })
}

/// The program as it runs, and what it wrote that nobody asked for yet.
struct Rpc {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    answers: VecDeque<Value>,
    events: VecDeque<Value>,
    next_id: u64,
}

impl Rpc {
    fn start(server: &Loopback, store: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["--url", &server.ws_url(), "--root-key", &hex::encode(server.root_public_key().as_bytes())]);
        command.arg("--store").arg(store).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stdin = child.stdin.take();
        Self { child, stdin, lines, answers: VecDeque::new(), events: VecDeque::new(), next_id: 1 }
    }

    async fn write(&mut self, text: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_ref()).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
    }

    /// Reads a line and sorts it. False at the end.
    async fn read(&mut self) -> bool {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("no line in time").unwrap();
        let Some(line) = line else { return false };
        let line: Value = serde_json::from_str(&line).expect("only JSON is on stdout");
        if line["method"] == "event" {
            assert_eq!(line["jsonrpc"], "2.0");
            assert_eq!(line.as_object().unwrap().len(), 3, "a notification has no id");
            self.events.push_back(line["params"].clone());
        } else {
            self.answers.push_back(line);
        }
        true
    }

    /// The next answer, whatever it answers.
    async fn answer(&mut self) -> Value {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            assert!(self.read().await, "the program ended without an answer");
        }
    }

    /// Writes a line and gives the answer to it, when nothing else is asked.
    async fn ask(&mut self, line: impl AsRef<[u8]>) -> Value {
        self.write(line).await;
        self.answer().await
    }

    /// Calls a method.
    async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut answer = self.ask(request.to_string()).await;
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(id)));
        match answer["error"].take() {
            Value::Null => Ok(answer["result"].take()),
            error => Err(error),
        }
    }

    /// The next event of a name; those before it are forgotten.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["event"] == name {
                    return event;
                }
            }
            assert!(self.read().await, "the program ended without {name}");
        }
    }

    /// The next message, and its text.
    async fn received(&mut self) -> (Value, String) {
        let message = self.event("message.received").await["data"]["messages"][0].take();
        let text = message["text"].as_str().unwrap().to_owned();
        (message, text)
    }

    async fn link(&mut self, server: &Loopback, number: &str) {
        assert_eq!(self.call("link_qr", json!({})).await, Ok(json!({})));
        let code = self.event("session.qr_updated").await;
        server.scan(number, code["data"]["qr"].as_str().unwrap()).await.unwrap();
        self.event("session.connected").await;
    }

    /// Links by a code that is typed on the phone.
    async fn link_by_code(&mut self, server: &Loopback, number: &str) {
        let linking = self.call("link_code", json!({ "phone": format!("+{number}") })).await.unwrap();
        let code = linking["code"].as_str().unwrap();
        let phone = server.phone(number).await.unwrap();
        phone.enter_code(code).await.unwrap();
        assert_eq!(self.event("session.pair_code").await["data"]["expiresAt"], linking["expiresAt"]);
        self.event("session.connected").await;
    }

    /// Closes stdin; gives what was written until the program ended.
    async fn end(mut self) -> (Vec<Value>, Vec<Value>) {
        self.stdin = None;
        self.ended().await
    }

    /// Waits until the program ends by itself.
    async fn ended(mut self) -> (Vec<Value>, Vec<Value>) {
        while self.read().await {}
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the program goes on").unwrap();
        assert_eq!(status.code(), Some(0));
        (self.answers.into(), self.events.into())
    }
}

struct World {
    server: Loopback,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        Self { server: Loopback::start().await.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    fn start(&self, name: &str) -> Rpc {
        self.start_with(name, &[])
    }

    fn start_with(&self, name: &str, more: &[&str]) -> Rpc {
        Rpc::start(&self.server, &self.folder.path().join(format!("{name}.db")), more)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_write_to_each_other_and_one_starts_again() {
    let world = World::new().await;
    let (mut alice, mut bob) = (world.start_with("alice", &["--session", "a"]), world.start("bob"));
    alice.link(&world.server, ALICE).await;
    bob.link_by_code(&world.server, BOB).await;

    // By number with plus, with an id and a reference of the caller's.
    let sent = json!({ "to": format!("+{BOB}"), "text": "Hello Bob", "id": "CALLERS-1", "clientRef": "order 7" });
    let accepted = alice.call("send_text", sent).await.unwrap();
    assert_eq!(accepted["id"], "CALLERS-1");
    assert!(accepted["timestamp"].as_u64() > Some(1_700_000_000));
    let told = alice.event("message.sent").await;
    assert_eq!(told["sessionId"], "a");
    assert_eq!(told["data"]["messages"][0]["clientRef"], "order 7");
    let (message, text) = bob.received().await;
    assert_eq!((text.as_str(), &message["key"]["id"]), ("Hello Bob", &json!("CALLERS-1")));

    // By JID, with params by place, and read.
    let chat = message["key"]["remoteJid"].clone();
    let params = json!({ "chat": chat, "ids": ["CALLERS-1"] });
    assert_eq!(bob.call("mark_read", params).await, Ok(json!({})));
    assert_eq!(alice.event("message.read").await["data"]["messages"][0]["key"]["id"], "CALLERS-1");
    bob.call("send_text", json!([chat, "Hello Alice", null, "by place"])).await.unwrap();
    assert_eq!(alice.received().await.1, "Hello Alice");
    assert_eq!(bob.event("message.sent").await["data"]["messages"][0]["clientRef"], "by place");

    // A group, made by one and seen by the other.
    let made = alice.call("group_create", json!(["Team", [BOB]])).await.unwrap();
    assert_eq!((&made["subject"], made["participants"].as_array().map(Vec::len)), (&json!("Team"), Some(2)));
    assert_eq!(bob.event("groups.upsert").await["data"]["groups"][0]["id"], made["id"]);
    let seen = bob.call("group_info", json!({ "group": made["id"] })).await.unwrap();
    assert_eq!(seen["subject"], "Team");
    assert_eq!(bob.call("group_info", json!([ALICE])).await.unwrap_err()["data"]["kind"], "not_a_group");

    // Bob ends; what is written to him meanwhile waits.
    let known = bob.call("snapshot", json!({})).await.unwrap();
    assert_eq!(known["state"], "CONNECTED");
    let (_, last) = bob.end().await;
    assert_eq!(last.last().unwrap()["data"]["reason"], "stopped");
    for text in ["one", "two", "three"] {
        alice.call("send_text", json!({ "to": BOB, "text": text })).await.unwrap();
    }
    for _ in 0..3 {
        alice.event("message.sent").await;
    }

    // He connects by himself and gets each of them once, and nothing that he had before.
    let mut bob = world.start("bob");
    for expected in ["one", "two", "three"] {
        assert_eq!(bob.received().await.1, expected);
    }
    bob.call("send_text", json!({ "to": ALICE, "text": "all here" })).await.unwrap();
    assert_eq!(alice.received().await.1, "all here");
    let again = bob.call("snapshot", json!({})).await.unwrap();
    assert_eq!((&again["jid"], &again["phone"]), (&known["jid"], &json!(BOB)));
    let (_, rest) = bob.end().await;
    assert!(rest.iter().all(|event| event["event"] != "message.received"), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_not_written_come_again_and_others_do_not() {
    let world = World::new().await;
    let mut bob = world.start("bob");
    bob.link(&world.server, BOB).await;
    let (_, first) = bob.end().await;
    let last = first.last().unwrap()["seq"].as_u64().unwrap();

    let mut bob = world.start_with("bob", &["--no-connect"]);
    let known = bob.call("snapshot", json!({})).await.unwrap();
    assert_eq!((&known["state"], &known["phone"]), (&json!("DISCONNECTED"), &json!(BOB)));
    assert_eq!(known["counters"]["unacknowledged"], 0);
    assert_eq!(known["counters"]["events"], last);
    bob.call("connect", json!({})).await.unwrap();
    let connected = bob.event("session.connected").await;
    assert_eq!(connected["seq"], last + 1);
    // A kill is a crash: the account goes on from what is stored.
    bob.child.kill().await.unwrap();

    let mut bob = world.start("bob");
    let phone = world.server.phone(ALICE).await.unwrap();
    phone.send_text(&wamd::Jid::pn(BOB), "after the crash").await.unwrap();
    assert_eq!(bob.received().await.1, "after the crash");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_rpc_is_refused_as_the_specification_says() {
    let world = World::new().await;
    let mut rpc = world.start("nobody");
    let code = |answer: &Value| (answer["error"]["code"].as_i64(), answer["id"].clone());

    for (line, expected, id) in [
        ("{\"jsonrpc\": \"2.0\", \"method\"", -32_700, json!(null)),
        ("[1,", -32_700, json!(null)),
        ("\u{1}", -32_700, json!(null)),
        ("{}", -32_600, json!(null)),
        ("7", -32_600, json!(null)),
        ("[]", -32_600, json!(null)),
        (r#"{"id":1,"method":"snapshot"}"#, -32_600, json!(1)),
        (r#"{"jsonrpc":"1.0","id":1,"method":"snapshot"}"#, -32_600, json!(1)),
        (r#"{"jsonrpc":"2.0","id":2,"method":5}"#, -32_600, json!(2)),
        (r#"{"jsonrpc":"2.0","id":3,"method":"snapshot","params":1}"#, -32_600, json!(3)),
        (r#"{"jsonrpc":"2.0","id":{},"method":"snapshot"}"#, -32_600, json!(null)),
        (r#"{"jsonrpc":"2.0","id":"x","method":"no_such"}"#, -32_601, json!("x")),
        (r#"{"jsonrpc":"2.0","id":4,"method":"send_text"}"#, -32_602, json!(4)),
        (r#"{"jsonrpc":"2.0","id":5,"method":"send_text","params":{"to":"1555","text":7}}"#, -32_602, json!(5)),
        (r#"{"jsonrpc":"2.0","id":6,"method":"send_text","params":["1555","hi",null,null,1]}"#, -32_602, json!(6)),
        (r#"{"jsonrpc":"2.0","id":7,"method":"send_text","params":{"to":"Ada","text":"hi"}}"#, -32_602, json!(7)),
        (
            r#"{"jsonrpc":"2.0","id":8,"method":"send_text","params":{"to":"1555","text":"hi","x":1}}"#,
            -32_602,
            json!(8),
        ),
        (r#"{"jsonrpc":"2.0","id":9,"method":"connect","params":{"now":true}}"#, -32_602, json!(9)),
        (r#"{"jsonrpc":"2.0","id":null,"method":"connect"}"#, -32_000, json!(null)),
        (r#"{"jsonrpc":"2.0","id":-0.5,"method":"connect","params":[]}"#, -32_000, json!(-0.5)),
    ] {
        let answer = rpc.ask(line).await;
        assert_eq!(code(&answer), (Some(expected), id), "{line} → {answer}");
    }

    // Bytes that are no text, a line of the greatest length, and one above it.
    assert_eq!(code(&rpc.ask(b"\"\xff\"").await).0, Some(-32_700));
    let mut longest = r#"{"jsonrpc":"2.0","id":1,"method":"snapshot"}"#.to_owned();
    longest.push_str(&" ".repeat((1 << 20) - longest.len()));
    assert_eq!(rpc.ask(&longest).await["result"]["state"], "PENDING");
    assert_eq!(code(&rpc.ask(longest + " ").await), (Some(-32_700), json!(null)));
    assert_eq!(code(&rpc.ask("[".repeat(100_000)).await), (Some(-32_700), json!(null)));
    assert_eq!(code(&rpc.ask(format!("[{}1]", "1,".repeat(1_000))).await), (Some(-32_600), json!(null)));

    // Batches: in order, without the notifications, each by itself.
    let batch = rpc
        .ask(
            r#"[{"jsonrpc":"2.0","id":1,"method":"snapshot"},1,{"jsonrpc":"2.0","method":"snapshot"},
                {"jsonrpc":"2.0","id":2,"method":"nothing"},{"jsonrpc":"2.0","id":3,"method":"logout"}]"#
                .replace('\n', " "),
        )
        .await;
    let batch = batch.as_array().unwrap();
    assert_eq!(batch.len(), 4);
    assert_eq!((&batch[0]["id"], &batch[0]["result"]["state"]), (&json!(1), &json!("PENDING")));
    assert_eq!(code(&batch[1]), (Some(-32_600), json!(null)));
    assert_eq!(code(&batch[2]), (Some(-32_601), json!(2)));
    assert_eq!(batch[3]["error"]["data"], json!({ "kind": "not_linked", "retryable": false }));

    // Notifications have no answer, whatever is wrong with them; the next answer is that of the last line.
    for line in [
        "",
        "   ",
        r#"{"jsonrpc":"2.0","method":"snapshot"}"#,
        r#"{"jsonrpc":"2.0","method":"no_such"}"#,
        r#"{"jsonrpc":"2.0","method":"send_text","params":[]}"#,
        r#"[{"jsonrpc":"2.0","method":"connect"},{"jsonrpc":"2.0","method":"snapshot"}]"#,
    ] {
        rpc.write(line).await;
    }
    rpc.call("snapshot", json!({})).await.unwrap();
    let (answers, events) = rpc.end().await;
    assert_eq!((answers, events), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_account_say_what_and_whether_to_try_again() {
    let world = World::new().await;
    let mut rpc = world.start("bob");
    let refused = |answer: Result<Value, Value>| {
        let error = answer.unwrap_err();
        assert_eq!(error["code"], -32_000);
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
        (error["data"]["kind"].as_str().unwrap().to_owned(), error["data"]["retryable"].as_bool().unwrap())
    };
    let text = json!({ "to": ALICE, "text": "hi" });
    for (method, params) in
        [("connect", json!({})), ("reconnect", json!({})), ("logout", json!({})), ("send_text", text)]
    {
        assert_eq!(refused(rpc.call(method, params).await), ("not_linked".to_owned(), false), "{method}");
    }
    let read = json!({ "chat": ALICE, "ids": ["X"] });
    assert_eq!(refused(rpc.call("mark_read", read.clone()).await), ("not_connected".to_owned(), true));
    assert_eq!(rpc.call("disconnect", json!({})).await, Ok(json!({})));

    rpc.link(&world.server, BOB).await;
    for (method, params) in [("link_qr", json!({})), ("link_code", json!([BOB]))] {
        assert_eq!(refused(rpc.call(method, params).await), ("already_linked".to_owned(), false));
    }
    assert_eq!(refused(rpc.call("passkey_confirm", json!({})).await), ("no_passkey".to_owned(), false));
    let assertion = json!({ "credentialId": "AAEC", "assertion": {} });
    assert_eq!(refused(rpc.call("passkey_assertion", assertion).await), ("no_passkey".to_owned(), false));
    for params in [json!(["0171 1234567"]), json!([BOB, "no code"]), json!({})] {
        assert_eq!(rpc.call("link_code", params).await.unwrap_err()["code"], -32602);
    }
    let channel = json!({ "to": "120363041234567890@newsletter", "text": "hi" });
    assert_eq!(refused(rpc.call("send_text", channel).await), ("not_a_chat".to_owned(), false));
    assert_eq!(refused(rpc.call("send_text", json!([ALICE, ""])).await), ("content".to_owned(), false));
    assert_eq!(refused(rpc.call("mark_read", json!([ALICE, []])).await), ("no_ids".to_owned(), false));

    assert_eq!(rpc.call("reconnect", json!([])).await, Ok(json!({})));
    rpc.event("session.connected").await;
    assert_eq!(rpc.call("disconnect", json!({})).await, Ok(json!({})));
    assert_eq!(rpc.event("session.disconnected").await["data"]["reason"], "stopped");
    assert_eq!(refused(rpc.call("mark_read", read).await), ("not_connected".to_owned(), true));
    rpc.call("connect", json!({})).await.unwrap();
    rpc.event("session.connected").await;
    assert_eq!(rpc.call("logout", json!({})).await, Ok(json!({})));
    assert_eq!(rpc.event("session.logged_out").await["data"]["reason"], "requested");
    let known = rpc.call("snapshot", json!({})).await.unwrap();
    assert_eq!((&known["state"], &known["jid"]), (&json!("LOGGED_OUT"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_run_at_a_time_and_the_end_waits_for_their_answers() {
    let world = World::new().await;
    let (mut alice, mut bob) = (world.start("alice"), world.start("bob"));
    alice.link(&world.server, ALICE).await;
    bob.link(&world.server, BOB).await;

    // A hundred lines in one write, and then the end of stdin.
    let lines: Vec<String> = (0..100)
        .map(|n| json!({ "jsonrpc": "2.0", "id": n, "method": "send_text", "params": [BOB, format!("text {n}")] }))
        .map(|request| request.to_string())
        .collect();
    alice.write(lines.join("\n")).await;
    let (answers, _) = alice.end().await;
    assert_eq!(answers.len(), 100);
    assert!(answers.iter().all(|answer| answer["result"]["id"].is_string()), "{answers:?}");

    // What did not leave before the end leaves with the next start.
    let mut alice = world.start("alice");
    let mut texts = BTreeSet::new();
    for _ in 0..100 {
        texts.insert(bob.received().await.1);
    }
    assert_eq!(texts, (0..100).map(|n| format!("text {n}")).collect());

    let counters = alice.call("stats", json!({})).await.unwrap();
    assert_eq!(counters["counters"]["requests"], 1);
    assert!(counters["counters"]["uptimeMs"].is_u64());
    for name in ["batches", "events", "unacknowledged", "sends", "waitingBytes"] {
        assert!(counters["counters"][name].is_u64(), "{name}: {counters}");
    }
    let resident = counters["memory"]["residentBytes"].as_u64();
    if cfg!(target_os = "linux") {
        assert!(resident > Some(1 << 20) && resident < Some(1 << 30), "{resident:?}");
    }
    assert_eq!(alice.call("shutdown", json!({})).await, Ok(json!({})));
    alice.ended().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_program_in_good_order() {
    let world = World::new().await;
    let mut rpc = world.start("bob");
    rpc.link(&world.server, BOB).await;
    let pid = rpc.child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (_, events) = rpc.ended().await;
    assert_eq!(events.last().unwrap()["data"]["reason"], "stopped");
}
