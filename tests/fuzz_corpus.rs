//! The corpora of the fuzz targets hold on stable, too: every file below `fuzz/corpus` and every crash that was found goes
//! through the same function as in the fuzzer.
//!
//! The files named `seed-*` are made from the vectors, so that the fuzzer begins with what the protocol looks like, and the
//! dictionaries from the tables of words: `WAMD_WRITE_SEEDS=1 cargo test --test fuzz_corpus` writes both.

#[path = "script/node.rs"]
mod node;
#[path = "script/mod.rs"]
mod script;

use std::{collections::BTreeMap, fs, path::PathBuf};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::Value;
use wamd::{
    jid::Jid,
    node::Node,
    noise::{CertificatePolicy, fuzz},
    signal::{
        Address,
        import::import_record,
        sender_key::{self, SenderKeyName, SenderKeyStore, memory::MemorySenderKeyStore},
    },
};

type Target = fn(&[u8]);

/// As in `fuzz/targets`.
const TARGETS: &[(&str, Target)] = &[
    ("appstate_patch", wamd::appstate::fuzz::appstate_patch),
    ("appstate_snapshot", wamd::appstate::fuzz::appstate_snapshot),
    ("cert_chain", fuzz::cert_chain),
    ("engine", script::run),
    ("envelope", wamd::event::fuzz::envelope),
    ("frame_stream", fuzz::frame_stream),
    ("handshake_server_hello", fuzz::handshake_server_hello),
    ("jid_parse", wamd::jid::fuzz::jid_parse),
    ("json", wamd::proto::json::fuzz::json),
    ("message", wamd::message::fuzz::message),
    ("message_stanza", wamd::engine::fuzz::message_stanza),
    ("node_decode", wamd::node::fuzz_decode),
    ("node_roundtrip", node::roundtrip),
    ("prekey_message", wamd::signal::fuzz::prekey_message),
    ("qr_and_pair_stanzas", wamd::pairing::fuzz::qr_and_pair_stanzas),
    ("retry_receipt", wamd::engine::fuzz_retry_receipt),
    ("sender_key_message", sender_key::fuzz::sender_key_message),
    ("session_record", wamd::signal::fuzz::session_record),
    ("signal_message", wamd::signal::fuzz::signal_message),
    ("stanza", wamd::stanza::fuzz::stanza),
];

#[test]
fn every_target_holds_for_its_corpus() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "{name} has a corpus");
        for (file, bytes) in files {
            if let Err(panic) = std::panic::catch_unwind(|| target(&bytes)) {
                eprintln!("fuzz/corpus/{name}/{file}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Bytes cut off and bits turned over, so that the replay is more than the happy path.
#[test]
fn every_target_holds_for_damaged_seeds() {
    for (name, target) in TARGETS.iter().filter(|(name, _)| *name != "engine") {
        for (_, seed) in seeds().remove(name).unwrap_or_default() {
            for at in 0..seed.len().min(200) {
                target(&seed[..at]);
                let mut damaged = seed.clone();
                damaged[at] ^= 1 << (at % 8);
                target(&damaged);
            }
        }
    }
}

#[test]
fn the_seeds_are_those_of_the_vectors() {
    let write = std::env::var_os("WAMD_WRITE_SEEDS").is_some();
    for (target, seeds) in seeds() {
        let folder = folder(target);
        if write {
            fs::create_dir_all(&folder).unwrap();
            corpus(target)
                .keys()
                .filter(|name| name.starts_with("seed-"))
                .for_each(|name| fs::remove_file(folder.join(name)).unwrap());
            seeds.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        }
        let mut stored = corpus(target);
        stored.retain(|name, _| name.starts_with("seed-"));
        assert!(stored == seeds, "seeds of {target} are out of date: WAMD_WRITE_SEEDS=1 cargo test --test fuzz_corpus");
    }
}

#[test]
fn the_dictionaries_are_those_of_the_tables() {
    let folder = root().join("fuzz/dictionaries");
    if std::env::var_os("WAMD_WRITE_SEEDS").is_some() {
        fs::create_dir_all(&folder).unwrap();
        fs::read_dir(&folder).unwrap().for_each(|file| fs::remove_file(file.unwrap().path()).unwrap());
        for (target, text) in dictionaries() {
            fs::write(folder.join(format!("{target}.dict")), text).unwrap();
        }
    }
    let stored = fs::read_dir(&folder).unwrap().map(|file| {
        let path = file.unwrap().path();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
    });
    let stored: BTreeMap<String, String> = stored.collect();
    assert!(stored == dictionaries(), "dictionaries are out of date: WAMD_WRITE_SEEDS=1 cargo test --test fuzz_corpus");
    assert!(stored.keys().all(|name| TARGETS.iter().any(|(target, _)| target == name)), "each belongs to a target");
}

#[test]
fn every_target_is_replayed() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let mut names: Vec<&str> =
        manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    names.sort_unstable();
    assert_eq!(names, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

// ---- what the fuzzer found ------------------------------------------------------------------------------------

/// A number is read back to the last bit: an event that comes again from the outbox is the same, byte for byte.
#[test]
fn numbers_survive_the_outbox() {
    for number in ["5.3060787139089265e+178", "7.49838633330768e-67", "-23.5505199", "1e-7"] {
        let text = format!(
            r#"{{"event":"a","sessionId":"s","eventId":"01HYZDWW600000000000000000","timestamp":1,"offline":false,"data":{number}}}"#
        );
        let envelope = wamd::event::Envelope::from_json(text.as_bytes()).unwrap();
        assert_eq!(envelope.to_json(), text);
    }
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn folder(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let Ok(files) = fs::read_dir(folder(target)) else { return BTreeMap::new() };
    let files = files.map(|file| file.unwrap().path());
    files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())).collect()
}

// ---- seeds ----------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Seeds(BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: &str, parts: &[&[u8]]) {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let before = self.0.entry(target).or_default().insert(format!("seed-{name}"), parts.concat());
        assert!(before.is_none(), "two seeds of {target} are called {name}");
    }
}

fn seeds() -> BTreeMap<&'static str, BTreeMap<String, Vec<u8>>> {
    let mut seeds = Seeds::default();
    nodes(&mut seeds);
    noise(&mut seeds);
    signal(&mut seeds);
    message_stanzas(&mut seeds);
    contents(&mut seeds);
    pairing(&mut seeds);
    arbitrary_nodes(&mut seeds);
    scripts(&mut seeds);
    retry_receipts(&mut seeds);
    app_state(&mut seeds);
    seeds.0
}

/// Patches and snapshots as they are, and plaintexts for the modes that seal them.
fn app_state(seeds: &mut Seeds) {
    let file = vectors("appstate");
    let scenario = &file["scenario"];
    for patch in scenario["patches"].as_array().unwrap() {
        let name = format!("version {}", patch["version"]);
        seeds.add("appstate_patch", &name, &[&[0], &hex(&patch["syncd_patch"])]);
    }
    seeds.add("appstate_snapshot", "raw", &[&[0], &hex(&scenario["snapshot"]["syncd_snapshot"])]);
    let mut all = Vec::new();
    for mutation in file["mutations"].as_array().unwrap() {
        let (name, plaintext) = (mutation["name"].as_str().unwrap(), hex(&mutation["action_data"]));
        let operation = mutation["operation"].as_u64().unwrap() as u8;
        let piece = [&[operation, plaintext.len() as u8], &plaintext[..]].concat();
        seeds.add("appstate_patch", &format!("sealed {name}"), &[&[1], &piece]);
        all.extend(piece);
    }
    seeds.add("appstate_snapshot", "sealed", &[&[1], &all[..600]]);
    seeds.add("appstate_snapshot", "sealed twice", &[&[1], &all[..200], &all[..200]]);
    let changes: Vec<u8> = (0..12_u8).flat_map(|i| [i.wrapping_mul(37), 1, i]).collect();
    seeds.add("appstate_patch", "many changes", &[&[2], &changes]);
    let key = &file["key_share"]["app_state_sync_key_share"];
    seeds.add("appstate_snapshot", "key", &[&[4], &hex(key)[14..70]]);
    seeds.add("appstate_snapshot", "page", &[&[4, 1], &[5; 128]]);
    let state = [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 9][..], &[3; 128], &[0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 2]].concat();
    seeds.add("appstate_snapshot", "collection", &[&[4], &state]);
}

fn nodes(seeds: &mut Seeds) {
    for stanza in vectors("stanzas")["stanzas"].as_array().unwrap() {
        let (name, frame) = (stanza["name"].as_str().unwrap(), hex(&stanza["encoded"]));
        if name.starts_with("pair-") {
            seeds.add("qr_and_pair_stanzas", name, &[&[1], &frame]);
        }
        seeds.add("stanza", name, &[&frame]);
    }
    for vector in vectors("binary_nodes")["vectors"].as_array().unwrap() {
        let frame = hex(&vector["frame"]);
        if frame.len() < 200 {
            seeds.add("node_decode", vector["name"].as_str().unwrap(), &[&frame]);
        }
    }
    let jids = vectors("jids");
    for (i, vector) in jids["vectors"].as_array().unwrap().iter().enumerate() {
        seeds.add("jid_parse", &i.to_string(), &[vector["in"].as_str().unwrap().as_bytes()]);
    }
}

fn noise(seeds: &mut Seeds) {
    let (xx, ik) = (vectors("noise_xx"), vectors("noise_ik"));
    let stream = [hex(&xx["transport"][0]["frame"]), hex(&xx["transport"][1]["frame"])].concat();
    seeds.add("frame_stream", "frames", &[&[0, 2, 1, 7], &stream]);
    seeds.add("frame_stream", "frames whole", &[&[0, 0], &stream]);
    for name in ["wire_first_message", "wire_first_message_with_edge_routing_0a0b0c"] {
        seeds.add("frame_stream", name, &[&[1, 1, 3], &hex(&xx["client_hello"][name])]);
    }
    seeds.add("frame_stream", "sealed", &[&[2, 3, 40, 1, 2], &stream]);
    seeds.add("frame_stream", "sealed damaged", &[&[6 | 12 << 3, 1, 50], &stream]);
    seeds.add("frame_stream", "unsealed", &[&[3, 1, 40], &hex(&xx["transport"][3]["ciphertext"])]);

    let hello = "handshake_server_hello";
    seeds.add(hello, "xx", &[&[0], &hex(&xx["server_hello"]["proto"])]);
    seeds.add(hello, "ik", &[&[0], &hex(&ik["server_hello"]["proto"])]);
    let (chain, server) = (fuzz::good_chain(), fuzz::server_static());
    for mode in [1, 3] {
        seeds.add(hello, &format!("{mode} good"), &[&[mode, 32], server.as_bytes(), &chain]);
        seeds.add(hello, &format!("{mode} small order"), &[&[mode, 32], &[0; 32], &chain]);
        seeds.add(hello, &format!("{mode} short key"), &[&[mode, 31], &server.as_bytes()[1..], &chain]);
        seeds.add(hello, &format!("{mode} other key"), &[&[mode, 32], &[9; 32], &chain]);
    }
    seeds.add(hello, "2", &[&[2], &chain]);

    seeds.add("cert_chain", "vector", &[&[0], &hex(&xx["cert_chain_plaintext"])]);
    seeds.add("cert_chain", "good", &[&[0], &chain]);
    seeds.add("cert_chain", "leaf", &[&[1], &fuzz::leaf_details()]);
    seeds.add("cert_chain", "intermediate", &[&[2], &fuzz::intermediate_details()]);
    let policy = CertificatePolicy { roots: vec![fuzz::root()], check_validity: true };
    let verified = policy.verify(&chain, &server, 1_700_000_100).expect("a good chain");
    seeds.add("cert_chain", "cached", &[&[3], &verified.encode()]);
}

fn signal(seeds: &mut Seeds) {
    for file in ["double_ratchet", "signal_x3dh"] {
        let vectors = vectors(file);
        let steps = vectors["transcripts"].as_array().unwrap().iter().flat_map(|t| t["steps"].as_array().unwrap());
        let (records, messages): (Vec<_>, Vec<_>) =
            steps.filter(|step| step["op"] == "encrypt" || step["op"] == "state").partition(|s| s["op"] == "state");
        for (i, step) in messages.iter().step_by(5).enumerate() {
            let bytes = hex(&step["bytes"]);
            let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            match step["type"].as_str().unwrap() {
                "pkmsg" => seeds.add("prekey_message", &format!("{file} {i}"), &[&[0], &bytes]),
                _ => seeds.add("signal_message", &format!("{file} {i}"), &[&[5], &len, &bytes]),
            }
        }
        for (i, step) in records.iter().step_by(3).enumerate() {
            let bytes = hex(&step["record_proto"]);
            seeds.add("session_record", &format!("{file} import {i}"), &[&bytes]);
            let session = import_record(&bytes).unwrap().session.encode();
            let len = u16::try_from(session.len()).unwrap().to_be_bytes();
            seeds.add("session_record", &format!("{file} session {i}"), &[&session]);
            seeds.add("session_record", &format!("{file} used {i}"), &[&len, &session]);
        }
    }
    for (how, name) in [(1, "sealed"), (2, "other prekey"), (4, "other identity"), (8, "other base key")] {
        seeds.add("prekey_message", name, &[&[how | 1 | 1 << 5], &[0xC1; 32]]);
    }
    // Send, deliver, repeat, damage, lie, start anew, reload: see `signal_message`.
    let scripts: [(&str, &[u8]); 6] = [
        ("turns", &[0, 2, 8, 2, 0, 2, 8, 2, 0, 2, 8, 2, 0, 2, 8, 2, 0, 2, 8, 2, 0, 2, 8, 2]),
        ("late", &[0, 0, 0, 0x30, 0xF0, 2, 10, 18, 26, 0x17, 2, 2, 2, 3, 11, 19]),
        ("crossing", &[7, 15, 0, 8, 0, 8, 10, 2, 2, 2, 0, 8, 2, 2, 3, 11]),
        ("damage", &[0, 4, 0, 9, 8, 4, 0, 60, 2, 4, 0, 45, 7, 0, 4, 0, 9, 2]),
        ("lie", &[6, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0x4E, 0, 1, 7, 0, 2]),
        ("archived", &[0, 0, 0, 7, 7, 7, 0, 2, 26, 18, 10, 8, 2]),
    ];
    scripts.iter().for_each(|(name, script)| seeds.add("signal_message", name, &[script]));

    let sender_key = vectors("sender_key");
    let steps = sender_key["transcripts"].as_array().unwrap().iter().flat_map(|t| t["steps"].as_array().unwrap());
    for (i, step) in steps.filter(|step| step["bytes"].is_string()).enumerate() {
        let bytes = hex(&step["bytes"]);
        let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let how = u8::from(step["op"] != "make_skdm" && step["op"] != "process_skdm");
        if bytes.len() < 400 {
            seeds.add("sender_key_message", &format!("decode {i}"), &[&[0], &bytes]);
            seeds.add("sender_key_message", &format!("receive {i}"), &[&[1, how], &len, &bytes]);
        }
    }
    // The body of a message to the key that `receive` knows: id 1, iteration 3, two blocks.
    let body = [&[0x33, 0x08, 1, 0x10, 3, 0x1A, 32][..], &[0xC1; 32]].concat();
    seeds.add("sender_key_message", "signed", &[&[1, 2, 0, 39], &body, &[2, 0, 39], &body]);
    seeds.add("sender_key_message", "conversation", &[&[2, 0, 5, 5, 9, 0x21, 2, 6, 10, 14, 2, 1, 0, 5, 2, 3]]);
    let (mut store, mut rng) = (MemorySenderKeyStore::new(), ChaCha20Rng::from_seed([3; 32]));
    let name = SenderKeyName::new("1@g.us", Address::new("a"));
    let message = sender_key::rotate(&mut store, &name, &mut rng);
    assert!(sender_key::process(&mut store, &name, &message.encode()).is_ok());
    let (Ok(own), Ok(received)) = (store.own_sender_key(&name), store.sender_key(&name));
    seeds.add("session_record", "own sender key", &[&own.unwrap().encode()]);
    seeds.add("session_record", "sender key", &[&received.unwrap().encode()]);
}

fn contents(seeds: &mut Seeds) {
    for vector in vectors("reporting_token")["vectors"].as_array().unwrap() {
        let (name, bytes) = (vector["name"].as_str().unwrap(), hex(&vector["message"]));
        seeds.add("message", name, &[&bytes]);
        // The type `Message` is converted whatever the first two bytes say.
        seeds.add("json", name, &[&[0, 0], &bytes]);
    }
    seeds.add("message", "padded", &[&hex(&vectors("padding")["vectors"][1]["padded"])]);
    let envelope = br#"{"event":"message.received","sessionId":"s1","eventId":"01HYZDWW600000000000000000","seq":7,"timestamp":1716894200000,"offline":true,"data":{"messages":[{"key":{"id":"3EB0","fromMe":false},"text":"hi","number":1.5e-7}]}}"#;
    seeds.add("envelope", "message", &[envelope]);
}

fn pairing(seeds: &mut Seeds) {
    let vector = vectors("adv_pairing");
    seeds.add("qr_and_pair_stanzas", "qr", &[&[0], vector["qr"]["deep_link"].as_str().unwrap().as_bytes()]);
    for kind in ["e2ee", "hosted"] {
        for (field, bytes) in vector[kind].as_object().unwrap() {
            let Some(bytes) = bytes.as_str().filter(|text| text.len() > 100).and_then(|text| hex::decode(text).ok())
            else {
                continue;
            };
            for reader in [2, 3] {
                seeds.add("qr_and_pair_stanzas", &format!("{kind} {field} {reader}"), &[&[reader], &bytes]);
            }
        }
    }
    let code = vectors("pair_code");
    let leaf = |tag: &str, value: &Value| Node::new(tag).bytes(hex(value));
    let stage = Node::new("link_code_companion_reg").attr("stage", "primary_hello");
    let stage = stage.children([
        leaf("link_code_pairing_wrapped_primary_ephemeral_pub", &code["primary"]["wrapped_primary_ephemeral_pub_80"]),
        leaf("primary_identity_pub", &code["primary"]["identity"]["public"]),
        Node::new("link_code_pairing_ref").bytes(&b"reference"[..]),
    ]);
    let notification =
        |kind: &str| Node::new("notification").attr("from", Jid::whatsapp_server()).attr("type", kind).attr("id", "1");
    let refresh =
        Node::new("link_code_companion_reg").attr("stage", "refresh_code").attr("force_manual_refresh", "true");
    let reference = Node::new("link_code_companion_reg").child(Node::new("link_code_pairing_ref").bytes(&b"ref"[..]));
    // PrimaryEphemeralIdentity: public key and nonce.
    let primary = [&[0x0A, 32][..], &[9; 32], &[0x12, 32], &[8; 32]].concat();
    let stanzas = [
        ("primary hello", notification("link_code_companion_reg").child(stage)),
        ("refresh code", notification("link_code_companion_reg").child(refresh)),
        ("code reference", Node::new("iq").attr("type", "result").attr("id", "1").child(reference)),
        ("rotate", notification("companion_reg_refresh").child(Node::new("pair-device-rotate-qr"))),
        (
            "passkey request",
            notification("passkey_prologue_request").child(Node::new("passkey_request_options").bytes(&b"{}"[..])),
        ),
        (
            "continuation",
            notification("crsc_continuation").child(Node::new("primary_ephemeral_identity").bytes(primary.clone())),
        ),
    ];
    for (name, node) in stanzas {
        seeds.add("qr_and_pair_stanzas", name, &[&[1], &node.encode().unwrap()]);
    }
    seeds.add("qr_and_pair_stanzas", "identity", &[&[5], &primary]);
    for (i, text) in ["+49 (0) 151-23456789", "15550000001", "HLPB-F19S", "hlpbf19s"].iter().enumerate() {
        seeds.add("qr_and_pair_stanzas", &format!("typed {i}"), &[&[4], text.as_bytes()]);
    }
}

/// Scripts for `message_stanza`: one of each source, and what may go wrong with it. A stanza is its sender, place, id, two
/// bytes of attributes, and the number of its parts but one; then the parts.
fn message_stanzas(seeds: &mut Seeds) {
    const FRIEND: u8 = 0;
    const NUMBER: u8 = 1;
    const PHONE: u8 = 2;
    const COMPANION: u8 = 3;
    const BOT: u8 = 5;
    const DIRECT: u8 = 0;
    const GROUP: u8 = 1;
    const STATUS: u8 = 7;
    const LIST: u8 = 10;
    const NEWSLETTER: u8 = 13;
    let text: &[u8] = &[0, 0, 0, 2, b'h', b'i'];
    let to_all: &[u8] = &[2, 0, 0, 2, b'h', b'i'];
    let own_key: &[u8] = &[0, 0, 2];
    let mut add = |name: &str, parts: &[&[u8]]| seeds.add("message_stanza", name, parts);
    add("direct", &[&[FRIEND, DIRECT, 0, 0, 0, 0], text, &[FRIEND, DIRECT, 1, 4, 0, 0], text]);
    for (name, place) in [("group", GROUP), ("status", STATUS), ("list", LIST)] {
        let (first, next) = ([FRIEND, place, 0, 0, 0, 1], [FRIEND, place, 1, 4, 0, 0]);
        add(name, &[&first, own_key, to_all, &next, to_all]);
        add(&format!("{name} without key"), &[&[FRIEND, place, 0, 0, 0, 0], &[7, 2, 4, 0x33, 8, 1, 16]]);
        let own = [COMPANION, place, 2, 0, 0, 1];
        add(&format!("own {name}"), &[&own, &[0, 0, 6], to_all]);
    }
    let (by_number, by_lid) = ([NUMBER, GROUP, 0, 0, 0, 1], [NUMBER, GROUP, 1, 64, 0, 0]);
    add("number and lid", &[&by_number, own_key, to_all, &by_lid, to_all]);
    add("key for another chat", &[&[FRIEND, GROUP, 0, 0, 0, 1], &[0, 0, 0x13], to_all]);
    add("newsletter", &[&[FRIEND, NEWSLETTER, 0, 0, 17, 0], &[9, 0, 0, 2, b'h', b'i']]);
    add("unavailable", &[&[FRIEND, GROUP, 0, 0, 0, 0], &[8, 0], &[FRIEND, GROUP, 1, 0, 0, 0], &[8, 1]]);
    let question = [COMPANION, DIRECT, 0, 16, 0, 0];
    let reply: &[u8] = &[4, 0, 0, 2, b'h', b'i', 0, 0, 1];
    add("bot", &[&question, &[0, 0, 1, 0], &[BOT, DIRECT, 1, 0, 0, 1], reply, &[11, 4, 0]]);
    add("bot without secret", &[&[BOT, DIRECT, 1, 0, 0, 1], reply, &[11, 0, 0]]);
    let unreadable: [&[u8]; 2] = [&[NUMBER, DIRECT, 3, 0, 0, 0], &[7, 0, 3, 1, 2, 3]];
    let answer: [&[u8]; 2] = [&[PHONE, DIRECT, 4, 8, 0, 0], &[0, 0, 10, 1, 0x31, 1]];
    add("phone", &[unreadable, answer].concat());
    add("housekeeping", &[&[PHONE, DIRECT, 0, 8, 0, 0], &[0, 0, 9], &[FRIEND, DIRECT, 1, 0, 0, 0], &[0, 0, 9]]);
    add("damaged", &[&[FRIEND, DIRECT, 0, 0, 0, 1], text, &[6, 9, 1], &[FRIEND, DIRECT, 1, 0, 0, 0], &[5, 1]]);
    add("no message", &[&[FRIEND, DIRECT, 0, 0, 0, 0], &[0, 0, 11, 3, 0xff, 0xff, 0xff]]);
    add("edit", &[&[FRIEND, GROUP, 0, 128, 0, 0], &[0, 0, 8, 1, 14]]);
    add("reaction", &[&[FRIEND, DIRECT, 0, 0, 0, 0], &[0, 0, 7, 1]]);
    add("long id", &[&[FRIEND, DIRECT, 7, 0, 0, 0], text]);
}

/// Bytes that decide what `node_roundtrip` builds: enough of each value for a few nodes.
fn arbitrary_nodes(seeds: &mut Seeds) {
    for byte in 0..=6_u8 {
        seeds.add("node_roundtrip", &format!("even {byte}"), &[&[byte; 200]]);
        let mixed: Vec<u8> = (0..400_u16).map(|i| (i.wrapping_mul(31 + u16::from(byte)) >> 3) as u8).collect();
        seeds.add("node_roundtrip", &format!("mixed {byte}"), &[&mixed]);
    }
}

/// Codes as in `World::operation`.
fn scripts(seeds: &mut Seeds) {
    const LINKED: &[u8] = &[1, 0];
    const RUN: &[u8] = &[0, 0, 1, 200];
    const SETTLE: &[u8] = &[2, 0];
    const PASS: &[u8] = &[4, 0];
    let send = |from: u8| [7, from, 8, 1];
    let command = |account: u8, which: u8| [7, account, which];
    seeds.add("engine", "link", &[&[0, 1], &command(0, 4), &[0], SETTLE, &command(1, 5), &[4], SETTLE]);
    seeds.add("engine", "link spoiled", &[&[0, 1], &command(0, 4), &[1], SETTLE, &command(1, 4), &[2], SETTLE]);
    seeds.add(
        "engine",
        "link unscanned",
        &[&[0, 1], &command(0, 4), &[7], SETTLE, PASS, PASS, PASS, PASS, PASS, PASS, PASS],
    );
    seeds.add("engine", "exchange", &[LINKED, &send(0), SETTLE, &send(1), SETTLE, &send(0), &send(1), RUN, SETTLE]);
    seeds.add("engine", "phone", &[LINKED, &[16, 0, 1, 60], SETTLE, &[16, 1, 0, 61], SETTLE]);
    seeds.add("engine", "crash", &[LINKED, &send(0), &[0, 0, 1, 9], &[6, 0, 1], SETTLE, &[6, 1, 0], &send(1), SETTLE]);
    seeds.add("engine", "cut", &[LINKED, &send(0), &[0, 0, 1, 9], &[5, 0, 0], SETTLE, PASS, SETTLE]);
    seeds.add("engine", "store fails", &[LINKED, &send(0), &[17, 0], SETTLE, PASS, SETTLE, &send(0), SETTLE]);
    seeds.add("engine", "damage", &[LINKED, &send(0), SETTLE, &[18, 0, 2, 1, 255], SETTLE, &[18, 1, 5, 0, 1], SETTLE]);
    seeds.add("engine", "logout", &[LINKED, &command(0, 3), SETTLE, &command(0, 4), &[0], SETTLE]);
    for how in 0..6 {
        seeds.add(
            "engine",
            &format!("disconnect {how}"),
            &[LINKED, &[15, 0, how, 103], SETTLE, PASS, SETTLE, &send(0), SETTLE],
        );
    }
    for fault in 0..10 {
        seeds.add(
            "engine",
            &format!("fault {fault}"),
            &[LINKED, &[14, 1, 1, 0, fault, 1], &send(0), SETTLE, PASS, SETTLE],
        );
    }
    for tag in 0..14 {
        seeds.add(
            "engine",
            &format!("stanza {tag}"),
            &[LINKED, &send(0), SETTLE, &[9, 0, tag, 0, 2, 2, 0, 1, 1, 0, 1, 0, 3, 2, 0], SETTLE],
        );
    }
    seeds.add(
        "engine",
        "raw",
        &[LINKED, &[12, 0, 6, 0, 0xF8, 4, 8, 0x0B, 9, 0x0B], RUN, &[13, 0, 0, 4, 0, 0, 1, 0], SETTLE],
    );
    seeds.add("engine", "read", &[LINKED, &send(0), SETTLE, &[7, 1, 6, 2, 2, 0, 1, 1], SETTLE]);
}

/// Fields as in `retry::fuzz`: time, chat, asker, flags, count, registration id, number of ids, ids, and what is answered.
fn retry_receipts(seeds: &mut Seeds) {
    const ANSWERED: [u8; 3] = [1; 3];
    let ask = |chat: u8, asker: u8, flags: u8, count: u8| [0, chat, asker, flags, count, 0, 0, 0];
    for (chat, asker) in (0..4).flat_map(|chat| (0..8).map(move |asker| (chat, asker))) {
        let (first, second) = (ask(chat, asker, 0, 1), ask(chat, asker, 0, 2));
        seeds.add("retry_receipt", &format!("chat {chat} asker {asker}"), &[&first, &ANSWERED, &second, &ANSWERED]);
    }
    let counts: Vec<u8> = (1..8).flat_map(|count| [&ask(0, 0, 0, count)[..], &ANSWERED].concat()).collect();
    seeds.add("retry_receipt", "counts", &[&counts, &counts, &[9], &counts]);
    let often: Vec<u8> = (0..14).flat_map(|_| [&ask(1, 0, 0, 1)[..], &[1]].concat()).collect();
    seeds.add("retry_receipt", "often", &[&often]);
    seeds.add("retry_receipt", "list", &[&[0, 1, 0, 0, 1, 0, 3, 0, 1, 2, 3, 1]]);
    seeds.add(
        "retry_receipt",
        "group unknown",
        &[&[0, 1, 0, 0x20, 1, 0, 0, 0, 1, 1], &[0, 1, 0, 0x20, 1, 0, 0, 0, 0, 1]],
    );
    seeds.add("retry_receipt", "recipient", &[&[0, 0, 4, 0x10, 1, 0, 0, 0, 0, 1], &[0, 0, 4, 0x10, 1, 0, 0, 0, 1, 1]]);
    for (kind, flags) in (0..4).flat_map(|kind| [0x04, 0x84, 0x44].map(|flags| (kind, flags))) {
        let request = [0, 0, 0, flags, 2, 0, 0, 0, kind, 3, 2, 10, 11, 1];
        seeds.add("retry_receipt", &format!("keys {kind} {flags}"), &[&request, &ask(0, 0, 0, 1), &ANSWERED]);
    }
    for seed in 1..9_u32 {
        let mut state = seed;
        let mixed: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(400)
        .collect();
        seeds.add("retry_receipt", &format!("mixed {seed}"), &[&mixed]);
    }
}

// ---- dictionaries ---------------------------------------------------------------------------------------------

/// What a fuzzer puts together inputs from, by target, in the format of libFuzzer.
fn dictionaries() -> BTreeMap<String, String> {
    let table = |name: &str| fs::read_to_string(root().join("src/node/tokens").join(name)).unwrap();
    let byte = |text: &str| text.parse::<u8>().unwrap();
    let mut words: Vec<(String, Vec<u8>)> = Vec::new();
    for line in table("single_byte.tsv").lines() {
        let (token, word) = line.split_once('\t').unwrap();
        words.push((word.to_owned(), vec![byte(token)]));
    }
    for line in table("double_byte.tsv").lines() {
        let mut columns = line.split('\t');
        let mut number = || byte(columns.next().unwrap());
        let token = vec![0xEC + number(), number()];
        words.push((columns.next().unwrap().to_owned(), token));
    }
    assert!(words.len() > 1_200, "both tables");

    // Words as on the wire, and the tags in front of what is no word (spec 02 §3).
    let mut wire: Vec<(String, Vec<u8>)> = words.clone();
    for (name, bytes) in [
        ("empty list", &[0x00][..]),
        ("jid with device", &[0xF7, 0x00, 0x00]),
        ("list", &[0xF8, 0x03]),
        ("long list", &[0xF9, 0x01, 0x00]),
        ("jid", &[0xFA]),
        ("hex", &[0xFB, 0x03]),
        ("text", &[0xFC, 0x03]),
        ("longer text", &[0xFD, 0x00, 0x01, 0x00]),
        ("longest text", &[0xFE, 0x00, 0x00, 0x01, 0x00]),
        ("digits", &[0xFF, 0x82]),
        ("messenger jid", &[0xF6]),
        ("interop jid", &[0xF5]),
        ("zlib", &[0x02, 0x78, 0x9C]),
    ] {
        wire.push((name.to_owned(), bytes.to_vec()));
    }
    let raw = |word: &&str| (String::from(*word), [&[0xFC, word.len() as u8], word.as_bytes()].concat());
    let linking = [&wire[..], &LINKING_WORDS.iter().map(raw).collect::<Vec<_>>()].concat();

    let servers =
        ["s.whatsapp.net", "lid", "hosted", "hosted.lid", "msgr", "interop", "g.us", "broadcast", "newsletter"];
    let servers = servers.iter().chain(&["bot", "call", "c.us", "status@broadcast"]);
    let mut jid: Vec<(String, Vec<u8>)> = servers.map(|server| named(&format!("@{server}"))).collect();
    jid.extend(["@", ":", ".", "_", ":1", ".0:", "15550000001", "-", "65536", "255"].map(named));

    let streams = [
        ("header", &b"WA\x06\x03"[..]),
        ("pre-intro", b"ED\x00\x01\x00\x00\x02"),
        ("frame", &[0, 0, 4]),
        ("empty frame", &[0, 0, 0]),
        ("largest frame", &[0, 0x40, 0]),
        ("above the limit", &[0, 0x40, 1]),
        ("longest length", &[0xFF; 3]),
    ];
    // Tags of the fields, with the lengths that they must have (spec 01 §2.1, §2.5).
    let hello = [
        ("server hello", &[0x1A, 0x70][..]),
        ("ephemeral", &[0x0A, 32]),
        ("static", &[0x12, 48]),
        ("payload", &[0x1A, 16]),
    ];
    let chain = [
        ("leaf", &[0x0A, 0x70][..]),
        ("intermediate", &[0x12, 0x70]),
        ("details", &[0x0A, 0x30]),
        ("signature", &[0x12, 64]),
        ("serial", &[0x08, 7]),
        ("issuer serial", &[0x10, 7]),
        ("issuer is the root", &[0x10, 0]),
        ("key", &[0x1A, 32]),
        ("not before", &[0x20, 0]),
        ("not after", &[0x28, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        ("now", &[0x28, 0xE4, 0xE2, 0xCF, 0xAA, 0x06]),
    ];
    // Fields of the messages (spec 03 §2.2, §3.1), of stored sessions of other clients (§2.7), and what our records begin with.
    let msg = [
        ("version", &[0x33][..]),
        ("ratchet key", &[0x0A, 33, 5]),
        ("counter", &[0x10, 3]),
        ("previous counter", &[0x18, 0]),
        ("underflown counter", &[0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        ("ciphertext", &[0x22, 16]),
    ];
    let pkmsg = [
        ("prekey id", &[0x08, 1][..]),
        ("base key", &[0x12, 33, 5]),
        ("identity key", &[0x1A, 33, 5]),
        ("inner message", &[0x22, 66, 0x33]),
        ("registration id", &[0x28, 1]),
        ("signed prekey id", &[0x30, 1]),
    ];
    let skmsg = [
        ("version", &[0x33][..]),
        ("key id", &[0x08, 1]),
        ("iteration", &[0x10, 3]),
        ("chain key", &[0x1A, 32]),
        ("signing key", &[0x22, 33, 5]),
        ("ciphertext", &[0x1A, 32]),
        ("furthest iteration", &[0x10, 0xD0, 0x0F]),
    ];
    let records = [
        ("record version", &[1][..]),
        ("session with a state", &[1, 0, 0, 0, 1, 1, 0, 0, 0, 0]),
        ("current session", &[0x0A]),
        ("archived session", &[0x12]),
        ("session version", &[0x08, 3]),
        ("chain", &[0x3A]),
        ("sender chain", &[0x32]),
        ("pending prekey", &[0x4A]),
        ("five chains", &[0, 5]),
        ("a page of the index", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    let own = |entries: &[(&str, &[u8])]| -> Vec<(String, Vec<u8>)> {
        entries.iter().map(|(name, bytes)| (String::from(*name), bytes.to_vec())).collect()
    };
    let dictionary = |target: &str, entries: &[(String, Vec<u8>)]| {
        let line = |(name, bytes): &(String, Vec<u8>)| {
            let bytes: String = bytes.iter().map(|byte| format!("\\x{byte:02X}")).collect();
            format!("# {name}\n\"{bytes}\"\n")
        };
        (target.to_owned(), entries.iter().map(line).collect())
    };
    BTreeMap::from([
        dictionary("cert_chain", &own(&chain)),
        dictionary("frame_stream", &own(&streams)),
        dictionary("handshake_server_hello", &[own(&hello), own(&chain)].concat()),
        dictionary("jid_parse", &jid),
        dictionary("node_decode", &wire),
        dictionary("prekey_message", &[own(&msg), own(&pkmsg)].concat()),
        dictionary("qr_and_pair_stanzas", &linking),
        dictionary("sender_key_message", &own(&skmsg)),
        dictionary("session_record", &own(&records)),
        dictionary("signal_message", &own(&msg)),
        dictionary("stanza", &wire),
    ])
}

fn named(text: &str) -> (String, Vec<u8>) {
    (text.to_owned(), text.as_bytes().to_vec())
}

/// Words of linking that are not in the tables.
const LINKING_WORDS: [&str; 19] = [
    "pair-device",
    "pair-success",
    "pair-device-rotate-qr",
    "link_code_companion_reg",
    "link_code_pairing_ref",
    "link_code_pairing_wrapped_primary_ephemeral_pub",
    "primary_identity_pub",
    "primary_hello",
    "refresh_code",
    "force_manual_refresh",
    "companion_reg_refresh",
    "passkey_prologue_request",
    "passkey_request_options",
    "crsc_continuation",
    "primary_ephemeral_identity",
    "device-identity",
    "stage",
    "ref",
    "biz",
];

fn vectors(name: &str) -> Value {
    let path = root().join("tests/vectors").join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_else(|| panic!("no hex: {value}"))).unwrap()
}
