//! The corpora of the fuzz targets hold on stable, too: every file below `fuzz/corpus` and every crash that was found goes
//! through the same function as in the fuzzer.
//!
//! The files named `seed-*` are made from the vectors, so that the fuzzer begins with what the protocol looks like:
//! `WAMD_WRITE_SEEDS=1 cargo test --test fuzz_corpus` writes them.

#[path = "script/mod.rs"]
mod script;

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;

type Target = fn(&[u8]);

/// As in `fuzz/targets`.
const TARGETS: &[(&str, Target)] = &[
    ("engine", script::run),
    ("envelope", wamd::event::fuzz::envelope),
    ("jid", wamd::jid::fuzz::jid),
    ("json", wamd::proto::json::fuzz::json),
    ("message", wamd::message::fuzz::message),
    ("node", wamd::node::fuzz_decode),
    ("noise", wamd::noise::fuzz::noise),
    ("pairing", wamd::pairing::fuzz::pairing),
    ("signal", wamd::signal::fuzz::signal),
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
fn every_target_is_replayed() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let mut names: Vec<&str> =
        manifest.split("name = \"fuzz_").skip(1).filter_map(|rest| rest.split('"').next()).collect();
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
    contents(&mut seeds);
    pairing(&mut seeds);
    scripts(&mut seeds);
    seeds.0
}

fn nodes(seeds: &mut Seeds) {
    for stanza in vectors("stanzas")["stanzas"].as_array().unwrap() {
        let (name, frame) = (stanza["name"].as_str().unwrap(), hex(&stanza["encoded"]));
        if name.starts_with("pair-") {
            seeds.add("pairing", name, &[&[1], &frame]);
        }
        seeds.add("stanza", name, &[&frame]);
    }
    for vector in vectors("binary_nodes")["vectors"].as_array().unwrap() {
        let frame = hex(&vector["frame"]);
        if frame.len() < 200 {
            seeds.add("node", vector["name"].as_str().unwrap(), &[&frame]);
        }
    }
    let jids = vectors("jids");
    for (i, vector) in jids["vectors"].as_array().unwrap().iter().enumerate() {
        seeds.add("jid", &i.to_string(), &[vector["in"].as_str().unwrap().as_bytes()]);
    }
}

fn noise(seeds: &mut Seeds) {
    let (xx, ik) = (vectors("noise_xx"), vectors("noise_ik"));
    seeds.add("noise", "frames", &[&[0, 7], &hex(&xx["transport"][0]["frame"]), &hex(&xx["transport"][1]["frame"])]);
    seeds.add("noise", "intro", &[&[1, 3], &hex(&xx["client_hello"]["wire_first_message"])]);
    seeds.add("noise", "server hello xx", &[&[2, 0], &hex(&xx["server_hello"]["proto"])]);
    seeds.add("noise", "server hello ik", &[&[2, 0], &hex(&ik["server_hello"]["proto"])]);
    seeds.add("noise", "certificates", &[&[3, 0], &hex(&xx["cert_chain_plaintext"])]);
    seeds.add("noise", "transport", &[&[4, 40], &hex(&xx["transport"][3]["ciphertext"])]);
}

fn signal(seeds: &mut Seeds) {
    for file in ["double_ratchet", "signal_x3dh"] {
        let vectors = vectors(file);
        let steps = vectors["transcripts"].as_array().unwrap().iter().flat_map(|t| t["steps"].as_array().unwrap());
        for (i, step) in steps.filter(|step| step["op"] == "encrypt").step_by(7).enumerate() {
            let (bytes, is_pkmsg) = (hex(&step["bytes"]), u8::from(step["type"] == "pkmsg"));
            seeds.add("signal", &format!("{file} decode {i}"), &[&[0], &bytes]);
            seeds.add("signal", &format!("{file} new {i}"), &[&[2, is_pkmsg], &bytes]);
            seeds.add("signal", &format!("{file} known {i}"), &[&[3, is_pkmsg], &bytes]);
        }
    }
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
    seeds.add("pairing", "qr", &[&[0], vector["qr"]["deep_link"].as_str().unwrap().as_bytes()]);
    for kind in ["e2ee", "hosted"] {
        for (field, bytes) in vector[kind].as_object().unwrap() {
            let Some(bytes) = bytes.as_str().filter(|text| text.len() > 100).and_then(|text| hex::decode(text).ok())
            else {
                continue;
            };
            for reader in [2, 3] {
                seeds.add("pairing", &format!("{kind} {field} {reader}"), &[&[reader], &bytes]);
            }
        }
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

fn vectors(name: &str) -> Value {
    let path = root().join("tests/vectors").join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_else(|| panic!("no hex: {value}"))).unwrap()
}
