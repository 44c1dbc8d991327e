//! The direction of dependencies: a module of `src/` uses only modules below it, and what is below `client` is pure.
//!
//! Reads the paths of every file: `use` declarations as well as paths in code, groups and `super` resolved. Comments and
//! texts do not count.

#[path = "layering/paths.rs"]
mod paths;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use paths::{Source, read};

/// Every top-level module and its layer. 0 is the vocabulary, which all may use.
const LAYERS: &[(&str, u8)] = &[
    ("clock", 0),
    ("crypto", 0),
    ("event", 0),
    ("jid", 0),
    ("proto", 0),
    ("store", 0),
    ("noise", 1),
    ("node", 2),
    ("media", 3),
    ("signal", 3),
    ("stanza", 3),
    ("appstate", 4),
    ("history", 4),
    ("message", 4),
    ("pairing", 4),
    ("engine", 5),
    ("client", 6),
];

/// Stanzas carry ciphertexts and key bundles as values of `signal`, which knows nothing of stanzas.
const EXCEPTIONS: &[(&str, &str)] = &[("stanza", "signal")];

/// Where the outside world may be touched: the driver, and the store's backends.
const IMPURE: &[&str] =
    &["src/client/", "src/store/postgres.rs", "src/store/postgres/", "src/store/sqlite.rs", "src/store/sqlite/"];

/// Paths that only those may have. A path counts when it begins so, whatever follows.
const OUTSIDE_WORLD: &[&str] = &[
    "deadpool_postgres",
    "futures_util",
    "getrandom",
    "qrcode",
    "rusqlite",
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "tokio_postgres",
    "tokio_rustls",
    "tokio_tungstenite",
];

/// Words that are impure wherever they stand.
const IMPURE_WORDS: &[&str] = &["Instant", "OsRng", "SystemTime", "thread_local"];

/// What only `crypto` may name, tests included; a curve and a cipher are reached through its functions.
const PRIMITIVES: &[&str] = &[
    "aes",
    "aes_gcm",
    "cbc",
    "ctr",
    "curve25519_dalek",
    "ed25519_dalek",
    "graviola",
    "hkdf",
    "hmac",
    "md5",
    "pbkdf2",
    "sha1",
    "sha2",
    "x25519_dalek",
];

#[test]
fn modules_use_only_what_is_below_them() {
    let sources = sources();
    let findings: Vec<String> = sources.iter().flat_map(upward_edges).collect();
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn modules_do_not_use_each_other() {
    let edges = sources().iter().flat_map(edges).collect();
    assert_eq!(cycle(&edges), None);
}

#[test]
fn what_is_below_the_driver_is_pure() {
    let findings: Vec<String> = sources().iter().flat_map(impurities).collect();
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn only_crypto_names_primitives() {
    let mut sources = sources();
    sources.extend(sources_in("loopback/src"));
    let findings: Vec<String> = sources.iter().flat_map(primitives).collect();
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    let curve = sources.iter().filter(|source| {
        source.paths.iter().any(|path| ["curve25519_dalek", "graviola", "x25519_dalek"].contains(&&path.root[..]))
    });
    let curve: BTreeSet<&str> = curve.map(|source| &source.file[..]).collect();
    assert_eq!(curve, BTreeSet::from(["src/crypto/x25519.rs", "src/crypto/xeddsa.rs"]));
}

/// The rules find what they are for.
#[test]
fn violations_are_found() {
    let upward = |file: &str, text: &str| upward_edges(&read(file, text)).len();
    assert_eq!(upward("src/node/view.rs", "use crate::jid::Jid; use crate::node::Node;"), 0);
    assert_eq!(upward("src/node/view.rs", "use crate::{jid::Jid, engine::{Engine, Config}};"), 2);
    assert_eq!(upward("src/node/view.rs", "fn f() { let x = crate::stanza::result(); }"), 1);
    assert_eq!(upward("src/node/view.rs", "use super::super::signal::Session;"), 1);
    assert_eq!(upward("src/node/view.rs", "mod tests { use super::super::Decoder; }"), 0);
    assert_eq!(upward("src/node/view.rs", "mod tests { use super::super::super::{jid, message}; }"), 1);
    assert_eq!(
        upward("src/node/view.rs", "// crate::engine\n/* crate::engine */ const A: &str = \"crate::engine\";"),
        0
    );
    assert_eq!(upward("src/signal/wire.rs", "use crate::stanza::ack;"), 1);
    assert_eq!(upward("src/stanza/ack.rs", "use crate::signal::Address;"), 0);
    assert_eq!(upward("src/message/id.rs", "use crate::pairing::qr;"), 1);
    assert_eq!(upward("src/jid.rs", "use crate::Client;"), 1, "a shortcut of the root hides its module");

    let impure = |file: &str, text: &str| impurities(&read(file, text)).len();
    assert_eq!(impure("src/engine/step.rs", "use std::{collections::BTreeMap, time::Duration};"), 0);
    assert_eq!(impure("src/engine/step.rs", "use std::{fs, time::{Duration, Instant}};"), 3);
    assert_eq!(impure("src/engine/step.rs", "let t = std::time::SystemTime::now(); thread_local! {}"), 3);
    assert_eq!(impure("src/engine/step.rs", "async fn f() { tokio::spawn(g()); }"), 2);
    assert_eq!(impure("src/engine/step.rs", "#[cfg(test)] mod tests { use std::fs; }"), 0);
    assert_eq!(impure("src/client/driver.rs", "use std::fs;"), 0);

    let named = |file: &str, text: &str| primitives(&read(file, text)).len();
    assert_eq!(named("src/node/view.rs", "use crate::crypto::{md5, sha1}; fn f() { md5(sha1(&[])) }"), 0);
    assert_eq!(named("src/node/view.rs", "use sha2::{Digest, Sha256};"), 2);
    assert_eq!(named("src/node/view.rs", "use sha2 as hash; extern crate aes;"), 2);
    assert_eq!(named("src/node/view.rs", "fn f() { ::hmac::Hmac::new(); }"), 1);
    assert_eq!(named("src/node/view.rs", "#[cfg(test)] mod tests { use aes_gcm::Aes256Gcm; }"), 1);
    assert_eq!(named("loopback/src/keys.rs", "use wamd::crypto::sha1; use x25519_dalek::x25519;"), 1);
    assert_eq!(named("src/crypto/hash.rs", "use sha2::Sha256;"), 0);

    let edge = |a, b| (String::from(a), String::from(b));
    assert_eq!(cycle(&[edge("jid", "event"), edge("event", "crypto")].into()), None);
    assert!(cycle(&[edge("jid", "event"), edge("event", "jid")].into()).is_some());
}

fn sources() -> Vec<Source> {
    let sources = sources_in("src");
    assert!(sources.len() > 100, "only {} files under src", sources.len());
    sources
}

fn sources_in(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut sources) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                sources.push(read(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    // A file that is declared as `#[cfg(test)] mod name;` is a test.
    let tests: BTreeSet<Vec<String>> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    for source in &mut sources {
        source.is_test = tests.iter().any(|test| source.module.starts_with(test));
    }
    assert!(!sources.is_empty(), "no files under {folder}");
    sources
}

fn primitives(source: &Source) -> Vec<String> {
    if source.file.starts_with("src/crypto/") {
        return Vec::new();
    }
    let paths = source.paths.iter().filter(|path| PRIMITIVES.contains(&&path.root[..]));
    let paths = paths.map(|path| format!("{}:{}: {}::{}", source.file, path.line, path.root, path.segments.join("::")));
    // `use sha2 as hash` has no path.
    let renamed = source.words.windows(2).filter(|words| ["use", "crate"].contains(&&words[0].text[..]));
    let renamed = renamed.filter(|words| PRIMITIVES.contains(&&words[1].text[..]));
    let renamed = renamed.map(|words| &words[1]).filter(|word| !source.paths.iter().any(|path| path.root == word.text));
    paths.chain(renamed.map(|word| format!("{}:{}: {}", source.file, word.line, word.text))).collect()
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn upward_edges(source: &Source) -> Vec<String> {
    // The root declares the modules and shows the paved path.
    let Some(from) = source.module.first() else { return Vec::new() };
    let Some(own) = layer(from) else { return vec![format!("{}: no layer is known for {from}", source.file)] };
    let mut findings = Vec::new();
    for path in source.paths.iter().filter(|path| path.root == "crate") {
        let Some(to) = path.segments.first() else { continue };
        let problem = match layer(to) {
            _ if to == from || EXCEPTIONS.contains(&(from, to)) => continue,
            None => "is not a module with a layer",
            Some(0) if own == 0 => continue,
            Some(other) if other < own => continue,
            Some(other) if other == own => "is of the same layer",
            Some(_) => "is above",
        };
        findings.push(format!("{}:{}: {from} uses {to}, which {problem}", source.file, path.line));
    }
    findings
}

fn edges(source: &Source) -> Vec<(String, String)> {
    let Some(from) = source.module.first() else { return Vec::new() };
    let used = source.paths.iter().filter(|path| path.root == "crate" && !path.in_test);
    let used = used.filter_map(|path| path.segments.first()).filter(|to| *to != from);
    used.map(|to| (from.clone(), to.clone())).collect()
}

/// A chain of modules that ends where it began.
fn cycle(edges: &BTreeSet<(String, String)>) -> Option<Vec<String>> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in edges {
        uses.entry(from).or_default().insert(to);
    }
    // What uses nothing that is left cannot be in a cycle.
    while let Some(done) = uses.iter().find(|(_, to)| to.iter().all(|to| !uses.contains_key(to))).map(|(from, _)| *from)
    {
        uses.remove(done);
    }
    (!uses.is_empty()).then(|| uses.keys().map(|name| (*name).to_owned()).collect())
}

fn impurities(source: &Source) -> Vec<String> {
    if source.is_test || IMPURE.iter().any(|place| source.file.starts_with(place)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let outside = source.paths.iter().filter(|path| !path.in_test);
    for path in outside {
        let full = format!("{}::{}", path.root, path.segments.join("::"));
        let hit = OUTSIDE_WORLD
            .iter()
            .any(|bad| full.strip_prefix(bad).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")));
        if hit {
            findings.push(format!("{}:{}: {full}", source.file, path.line));
        }
    }
    for word in source.words.iter().filter(|word| !word.in_test) {
        // The contract of the store is asynchronous, and so is the suite that checks a backend.
        let is_async = word.text == "async" && !source.file.starts_with("src/store/");
        if is_async || IMPURE_WORDS.contains(&&word.text[..]) {
            findings.push(format!("{}:{}: {}", source.file, word.line, word.text));
        }
    }
    findings
}
