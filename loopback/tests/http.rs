//! The server over real sockets: the HTTP control interface, a websocket client, the handle, the program.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use common::{Device, Wire};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use wamd::crypto::PrivateKey;
use wamd::node::Node;
use wamd::proto::wa6::ClientPayload;
use wamd_loopback::{Disconnect, Loopback, LoopbackError};

const ALICE: &str = "15550000001";

/// One request; the status and the JSON of the answer.
async fn http(loopback: &Loopback, method: &str, path: &str, body: &str) -> (u16, Value) {
    let url = loopback.http_url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A client on a real websocket.
struct Socket {
    wire: Wire,
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    async fn connect(loopback: &Loopback, path: &str, device: &mut Device, payload: &ClientPayload) -> Self {
        let url = loopback.ws_url().replace("/ws/chat", path);
        let (mut stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let wall_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let root = loopback.root_public_key();
        let (wire, first) = Wire::start(&device.noise, &mut device.rng, payload, root, None, wall_s);
        stream.send(Message::Binary(first)).await.unwrap();
        Self { wire, stream }
    }

    async fn send(&mut self, node: &Node) {
        let bytes: Bytes = self.wire.seal(node);
        self.stream.send(Message::Binary(bytes)).await.unwrap();
    }

    /// The next stanza; `None` when the server has closed.
    async fn next(&mut self) -> Option<Node> {
        loop {
            if let Some(node) = self.wire.nodes.pop_front() {
                return Some(node);
            }
            match tokio::time::timeout(Duration::from_secs(10), self.stream.next()).await.expect("an answer in time") {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Some(reply) = self.wire.receive(&bytes) {
                        self.stream.send(Message::Binary(reply)).await.unwrap();
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

#[tokio::test]
async fn a_client_links_through_the_control_interface() {
    let loopback = Loopback::start().await.unwrap();
    let mut device = Device::new(1);
    let payload = device.registration_payload();
    let mut socket = Socket::connect(&loopback, "/ws/chat", &mut device, &payload).await;
    let refs = socket.next().await.unwrap();
    let reference = refs.find_child("pair-device").unwrap().first_child().unwrap().content_bytes().unwrap();
    let qr = device.qr(std::str::from_utf8(&reference).unwrap());

    let (status, linked) =
        http(&loopback, "POST", "/control/scan", &json!({ "number": ALICE, "qr": qr }).to_string()).await;
    assert_eq!((status, &linked["device"]), (200, &json!(1)), "{linked}");
    assert_eq!(linked["jid"], json!("15550000001:1@s.whatsapp.net"));
    let (status, error) =
        http(&loopback, "POST", "/control/scan", &json!({ "number": ALICE, "qr": qr }).to_string()).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("already_scanned")));

    let success = socket.next().await.unwrap();
    let answer = device.answer_pair_success(&success).unwrap();
    socket.send(&answer).await;
    assert!(socket.next().await.unwrap().is("stream:error"));
    assert!(socket.next().await.is_none());

    let payload = device.login_payload(false);
    let mut socket = Socket::connect(&loopback, "/another/path", &mut device, &payload).await;
    let success = socket.next().await.unwrap();
    assert_eq!(success.attr_jid("lid").unwrap().to_string(), linked["lid"].as_str().unwrap());
    loop {
        let node = socket.next().await.unwrap();
        if let Some(end) = node.find_child("offline") {
            assert_eq!(end.attr_u64("count"), Some(0));
            break;
        }
    }

    let (status, accounts) = http(&loopback, "GET", "/control/accounts", "").await;
    let expected = json!({
        "device": 1, "jid": linked["jid"], "lid": linked["lid"],
        "connected": true, "registered": true, "prekeys": 0, "queued": 0,
    });
    assert_eq!((status, &accounts["accounts"][0]["devices"][0]), (200, &expected));

    let disconnect = |code: Value| json!({ "jid": linked["jid"], "code": code }).to_string();
    assert_eq!(http(&loopback, "POST", "/control/disconnect", &disconnect(json!(503))).await.0, 200);
    assert_eq!(socket.next().await.unwrap().attr_u64("code"), Some(503));
    assert!(socket.next().await.is_none());
    let (status, error) = http(&loopback, "POST", "/control/disconnect", &disconnect(json!(503))).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("not_connected")));
    assert_eq!(http(&loopback, "POST", "/control/disconnect", &disconnect(json!("device_removed"))).await.0, 200);
    assert_eq!(loopback.accounts().await.unwrap()[0].devices, []);
    loopback.shutdown().await;
}

#[tokio::test]
async fn waiting_clients_and_devices_are_at_the_tests_mercy() {
    let loopback = Loopback::start().await.unwrap();
    let post = async |path: &'static str, body: Value| {
        let (status, answer) = http(&loopback, "POST", path, &body.to_string()).await;
        assert_eq!(status, 200, "{path} {body}: {answer}");
    };
    let mut device = Device::new(1);
    let payload = device.registration_payload();
    let mut socket = Socket::connect(&loopback, "/", &mut device, &payload).await;
    socket.next().await.unwrap();
    let (_, waiting) = http(&loopback, "GET", "/control/waiting", "").await;
    let conn = waiting["waiting"][0]["conn"].as_u64().unwrap();
    assert_eq!(waiting["waiting"][0]["refs"].as_array().unwrap().len(), 6);
    assert_eq!(waiting["waiting"][0]["passkey"], Value::Null);

    let node = json!({ "tag": "ib", "attrs": { "from": { "jid": "s.whatsapp.net" } }, "children": [{ "tag": "x" }] });
    post("/control/link", json!({ "conn": conn, "do": { "action": "send", "node": node } })).await;
    let sent = socket.next().await.unwrap();
    assert_eq!((sent.attr_jid("from"), sent.find_child("x").is_some()), (Some(wamd::Jid::whatsapp_server()), true));
    post("/control/link", json!({ "do": { "action": "new_refs" } })).await;
    assert_eq!(socket.next().await.unwrap().find_child("pair-device").unwrap().child_nodes().len(), 6);
    post("/control/passkey", json!({ "number": ALICE, "options": { "hold": true } })).await;
    assert_eq!(socket.next().await.unwrap().attr_str("type").as_deref(), Some("passkey_prologue_request"));
    let (_, waiting) = http(&loopback, "GET", "/control/waiting", "").await;
    assert_eq!(waiting["waiting"][0]["passkey"]["number"], json!(ALICE));
    post("/control/refuse", json!({ "number": ALICE })).await;

    let faults = [
        json!({ "fault": "refs", "count": 2 }),
        json!({ "fault": "link_failure", "reason": 405, "attrs": { "url": "x" } }),
        json!({ "fault": "link_answer", "stage": "companion_hello", "code": 429, "backoff": 5, "count": 3 }),
        json!({ "fault": "hide_lid", "jid": format!("{ALICE}@s.whatsapp.net"), "on": true }),
        json!({ "fault": "change_lid", "jid": format!("{ALICE}@s.whatsapp.net") }),
        json!({ "fault": "devices_update", "jid": format!("{ALICE}@s.whatsapp.net") }),
        json!({ "fault": "change_identity", "jid": format!("{ALICE}@s.whatsapp.net") }),
        json!({ "fault": "demand_token", "jid": format!("{ALICE}@s.whatsapp.net"), "on": true }),
    ];
    for fault in faults {
        post("/control/faults", fault).await;
    }
    // Faults of a device are read before it is looked for.
    let jid = "15550000001:1@s.whatsapp.net";
    let faults = [
        json!({ "fault": "login_failure", "jid": jid, "reason": 402, "attrs": { "expire": "60" } }),
        json!({ "fault": "answer_iq", "jid": jid, "xmlns": "w:p" }),
        json!({ "fault": "silence", "jid": jid, "on": true }),
        json!({ "fault": "stream_error", "jid": jid, "code": 401, "conflict": "other" }),
        json!({ "fault": "dirty", "jid": jid, "kind": "groups" }),
        json!({ "fault": "edge_routing", "jid": jid, "info": "0102" }),
        json!({ "fault": "client_expiration", "jid": jid, "t": 5 }),
        json!({ "fault": "refuse_login", "jid": jid, "node": { "tag": "failure" } }),
        json!({ "fault": "inject", "jid": jid, "node": { "tag": "ib" } }),
        json!({ "fault": "end_with", "jid": jid, "node": { "tag": "xmlstreamend" } }),
        json!({ "fault": "hosted", "jid": jid, "on": true }),
        json!({ "fault": "empty_prekeys", "jid": jid }),
        json!({ "fault": "ask_digest", "jid": jid }),
        json!({ "fault": "refuse_bundle", "jid": jid }),
        json!({ "fault": "withhold_prekey", "jid": jid, "on": true }),
        json!({ "fault": "delivery", "jid": jid, "what": { "unavailable": { "kind": "x" } }, "every": 2, "count": 1 }),
        json!({ "fault": "delivery", "jid": jid, "what": "drop", "enc": "pairwise", "id": "A" }),
        json!({ "fault": "mend", "jid": jid }),
        json!({ "fault": "acks", "jid": jid, "chat": "1@g.us", "phash": "2:AAAAAAAA", "refresh_lid": true }),
        json!({ "fault": "lose_notices", "jid": jid, "kind": "devices" }),
    ];
    for fault in faults {
        let (status, error) = http(&loopback, "POST", "/control/faults", &fault.to_string()).await;
        assert_eq!((status, &error["error"]["code"]), (404, &json!("unknown_device")), "{fault}");
    }
    let payload = device.registration_payload();
    let mut socket = Socket::connect(&loopback, "/", &mut device, &payload).await;
    let failure = socket.next().await.unwrap();
    assert_eq!((failure.attr_u64("reason"), failure.attr_str("url").as_deref()), (Some(405), Some("x")));
    loopback.shutdown().await;
}

#[tokio::test]
async fn the_control_interface_refuses_politely() {
    let loopback = Loopback::start().await.unwrap();
    let post = |path: &'static str, body: &'static str| http(&loopback, "POST", path, body);
    assert_eq!(http(&loopback, "GET", "/control/health", "").await, (200, json!({ "status": "ok" })));

    let (status, first) = post("/control/phones", r#"{"number":"15550000001"}"#).await;
    assert_eq!((status, &first["jid"]), (200, &json!("15550000001@s.whatsapp.net")));
    assert_eq!(post("/control/phones", r#"{"number":"+15550000001"}"#).await, (200, first), "get or create");

    let refusals = [
        ("/control/phones", r#"{"number":"123"}"#, 400, "bad_number"),
        ("/control/phones", r#"{"number":5}"#, 400, "bad_json"),
        ("/control/phones", "", 400, "bad_json"),
        ("/control/phones", "{", 400, "bad_json"),
        ("/control/scan", r#"{"number":"15550000001"}"#, 400, "bad_json"),
        ("/control/scan", r#"{"number":"15550000001","qr":"x"}"#, 400, "malformed_qr"),
        ("/control/disconnect", r#"{"jid":"@"}"#, 400, "bad_json"),
        ("/control/disconnect", r#"{"jid":"15550000001:1@s.whatsapp.net","code":"x"}"#, 400, "bad_json"),
        ("/control/disconnect", r#"{"jid":"15550000001:1@s.whatsapp.net"}"#, 404, "unknown_device"),
        ("/control/disconnect", r#"{"jid":"15550000001@s.whatsapp.net"}"#, 404, "unknown_device"),
        ("/control/link", r#"{"do":{"action":"close"}}"#, 404, "not_waiting"),
        ("/control/link", r#"{"do":{"action":"unheard_of"}}"#, 400, "bad_json"),
        ("/control/refuse", r#"{"number":"15550000001"}"#, 404, "not_waiting"),
        ("/control/refuse", r#"{"number":"1"}"#, 400, "bad_number"),
        ("/control/passkey", r#"{"number":"15550000001"}"#, 404, "unknown_ref"),
        ("/control/faults", r#"{"fault":"unheard_of"}"#, 400, "bad_json"),
        ("/control/faults", r#"{"fault":"tamper_next","jid":"1@lid"}"#, 404, "unknown_device"),
        ("/control/messages", r#"{"number":"15550000001","to":"1@lid","text":""}"#, 404, "unknown_device"),
        ("/elsewhere", "", 404, "not_found"),
        ("/control/health", "", 405, "method_not_allowed"),
    ];
    for (path, body, status, code) in refusals {
        let answer = post(path, body).await;
        assert_eq!((answer.0, &answer.1["error"]["code"]), (status, &json!(code)), "{path} {body}");
    }
    for fault in [r#"{"fault":"rotate_static"}"#, r#"{"fault":"minimum_version","version":[2,3000,1]}"#] {
        assert_eq!(post("/control/faults", fault).await.0, 200);
    }
    assert_eq!(post("/control/received", r#"{"number":"15550000001"}"#).await, (200, json!({ "messages": [] })));

    // Phones write to each other without any client.
    post("/control/phones", r#"{"number":"15550000002"}"#).await;
    let text = r#"{"number":"15550000001","to":"15550000002@s.whatsapp.net","text":"hello"}"#;
    let (status, sent) = post("/control/messages", text).await;
    assert_eq!(status, 200);
    let (_, received) = post("/control/received", r#"{"number":"15550000002"}"#).await;
    assert_eq!((&received["messages"][0]["text"], &received["messages"][0]["id"]), (&json!("hello"), &sent["id"]));
}

#[tokio::test]
async fn dropping_it_stops_it() {
    let loopback = Loopback::start().await.unwrap();
    let phone = loopback.phone(ALICE).await.unwrap();
    assert_eq!(phone.jid(), &phone.account().jid);
    let missing = loopback.disconnect(phone.jid(), Disconnect::Plain).await;
    assert!(matches!(missing, Err(LoopbackError::Control(_))));
    let address = loopback.http_url().strip_prefix("http://").unwrap().to_owned();
    drop(loopback);
    tokio::time::timeout(Duration::from_secs(5), async {
        while TcpStream::connect(&address).await.is_ok() || phone.received().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it stops soon");
    assert_eq!(phone.received().await, Err(LoopbackError::Gone));
}

#[tokio::test]
async fn the_root_key_decides_the_root() {
    let start = |byte: u8| Loopback::builder().root_key(PrivateKey::from_bytes([byte; 32])).start();
    let (one, same, other) = (start(1).await.unwrap(), start(1).await.unwrap(), start(2).await.unwrap());
    assert_eq!(one.root_public_key(), PrivateKey::from_bytes([1; 32]).public());
    assert_eq!(one.root_public_key(), same.root_public_key());
    assert_ne!(one.root_public_key(), other.root_public_key());
    for loopback in [one, same, other] {
        loopback.shutdown().await;
    }
}

#[test]
fn the_program_says_where_it_listens() {
    let file = std::env::temp_dir().join(format!("wamd-loopback-root-{}", std::process::id()));
    let run = || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wamd-loopback"))
            .args(["--listen", "127.0.0.1:0", "--root-key-file"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(stopped.success());
        assert!(child.wait().unwrap().success(), "it stops in order");
        let mut rest = String::new();
        output.read_line(&mut rest).unwrap();
        assert_eq!(rest, "", "and says nothing else");
        line
    };
    let (first, second) = (run(), run());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(first["root_public_key"].as_str().unwrap().len(), 64);
    assert_eq!(first["root_public_key"], second["root_public_key"]);
    let listening = first["listening"].as_str().unwrap();
    assert!(listening.starts_with("ws://127.0.0.1:") && listening.ends_with("/ws/chat"));
    assert!(first["http"].as_str().unwrap().starts_with("http://127.0.0.1:"));
}

#[tokio::test]
async fn groups_are_made_and_changed_over_http() {
    let loopback = Loopback::start().await.unwrap();
    let bob = loopback.phone("15550000002").await.unwrap();
    let (bob, lid) = (bob.jid().to_string(), bob.lid().to_string());
    let body = json!({ "creator": ALICE, "subject": "Picnic", "members": [bob], "mode": "pn" }).to_string();
    let (status, group) = http(&loopback, "POST", "/control/groups", &body).await;
    assert_eq!((status, &group["mode"], &group["subject"]), (200, &json!("pn"), &json!("Picnic")));
    let jid = group["jid"].as_str().unwrap();

    let text = json!({ "number": ALICE, "to": jid, "text": "hello" }).to_string();
    let (status, sent) = http(&loopback, "POST", "/control/messages", &text).await;
    assert_eq!(status, 200, "{sent}");
    let status_post = json!({ "number": ALICE, "to": "status@broadcast", "audience": [lid], "text": "seen?" });
    assert_eq!(http(&loopback, "POST", "/control/audience", &status_post.to_string()).await.0, 200);
    let (_, received) = http(&loopback, "POST", "/control/received", r#"{"number":"15550000002"}"#).await;
    let read: Vec<_> =
        received["messages"].as_array().unwrap().iter().map(|one| (&one["chat"], &one["text"])).collect();
    assert_eq!(read, [(&json!(jid), &json!("hello")), (&json!("status@broadcast"), &json!("seen?"))]);

    let change = |change: Value| json!({ "group": jid, "do": change }).to_string();
    let promote = change(json!({ "change": "promote", "participants": [bob] }));
    assert_eq!(http(&loopback, "POST", "/control/groups/change", &promote).await.0, 200);
    let (_, groups) = http(&loopback, "GET", "/control/groups", "").await;
    let ranks: Vec<_> =
        groups["groups"][0]["members"].as_array().unwrap().iter().map(|member| member["type"].clone()).collect();
    assert_eq!(ranks, [json!("superadmin"), json!("admin")]);
    let (status, refused) = http(&loopback, "POST", "/control/groups/change", &promote.replace(&bob, "1@lid")).await;
    assert_eq!((status, &refused["error"]["code"]), (422, &json!("refused")));
    let unknown = change(json!({ "change": "leave" })).replace(jid, "1@g.us");
    assert_eq!(http(&loopback, "POST", "/control/groups/change", &unknown).await.0, 404);
    loopback.shutdown().await;
}
