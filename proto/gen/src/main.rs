//! `cargo run -p wamd-proto-gen`: writes `proto/src/generated` anew and deletes what is no longer generated.

use std::fs;

fn main() -> Result<(), wamd_proto_gen::Error> {
    let files = wamd_proto_gen::generate(&wamd_proto_gen::schema_dir())?;
    let dir = wamd_proto_gen::generated_dir();
    fs::create_dir_all(&dir)?;
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(|name| !files.contains_key(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, content) in &files {
        fs::write(dir.join(name), content)?;
    }
    Ok(())
}
