//! What is checked in is what the generator writes: no stale, missing, left-over or hand-edited file.

use std::collections::BTreeSet;
use std::fs;

#[test]
fn checked_in_code_is_what_the_generator_writes() {
    let generated = wamd_proto_gen::generate(&wamd_proto_gen::schema_dir()).unwrap();
    let dir = wamd_proto_gen::generated_dir();
    let found: BTreeSet<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let expected: BTreeSet<String> = generated.keys().cloned().collect();
    assert_eq!(found, expected, "run `cargo run -p wamd-proto-gen`");
    for (name, content) in &generated {
        let checked_in = fs::read_to_string(dir.join(name)).unwrap();
        assert!(checked_in == *content, "{name} differs: run `cargo run -p wamd-proto-gen`");
    }
}
