//! The documents tell of things that are there: links lead to files, and the code map has every module.

use std::{fs, path::Path};

const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/guarantees.md",
    "docs/protocol-notes.md",
    "loopback/README.md",
    "proto/README.md",
    "tests/interop/README.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// Paths between backticks, such as `tests/rpc.rs`: with a folder, and without anything that stands for something else.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    let quoted = prose.flat_map(|part| part.split('`').skip(1).step_by(2));
    let folders =
        ["src/", "tests/", "examples/", "proto/", "loopback/", "benches/", "fuzz/", "docs/", "engine/", "store/"];
    quoted
        .filter(move |path| folders.iter().any(|folder| path.starts_with(folder)))
        .filter(|path| !path.contains(['*', ' ', '<']))
}

#[test]
fn links_lead_to_files() {
    let mut seen = 0;
    for document in DOCUMENTS {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let target = link.split('#').next().unwrap();
            assert!(folder.join(target).exists(), "{document} links to {link}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} links were found");
}

#[test]
fn paths_that_are_named_are_there() {
    let mut seen = 0;
    for document in &DOCUMENTS[..7] {
        let text = read(document);
        for path in paths(&text) {
            let there = root().join(path).exists() || root().join("src").join(path).exists();
            assert!(there, "{document} names {path}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "only {seen} paths were found");
}

#[test]
fn every_guarantee_names_a_test_that_is_there() {
    let text = read("docs/guarantees.md");
    let mut seen = 0;
    for quoted in text.split('`').skip(1).step_by(2).filter(|quoted| quoted.starts_with("tests/")) {
        let Some((file, test)) = quoted.split_once(": ") else { continue };
        assert!(
            read(file).contains(&format!("\nfn {test}()")) || read(file).contains(&format!("\nasync fn {test}()")),
            "there is no {quoted}"
        );
        seen += 1;
    }
    assert!(seen >= 25, "only {seen} tests are named");
    let promises = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise"));
    promises.for_each(|line| assert!(line.contains("`tests/"), "nothing proves: {line}"));
}

#[test]
fn the_code_map_has_every_module() {
    let architecture = read("ARCHITECTURE.md");
    let map = architecture.split("## Code map").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_there = name == "lib" || map.contains(&format!("{name}.rs")) || map.contains(&format!("{name}/"));
        assert!(is_there, "the code map has no {name}");
    }
}
