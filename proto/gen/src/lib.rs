//! Generates `proto/src/generated` from `proto/schema`: `.proto` files → descriptors (protox) → Rust (prost-build).
//!
//! Everything happens in memory: [`generate`] returns the files by name. The binary writes them, the test `fresh`
//! compares them with what is checked in. No `protoc`, no network, no clock, and the same input gives the same output.

mod code;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

/// Why nothing was generated. The text of the cause is for the developer who runs the tool.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The generated files: name inside `proto/src/generated` → content.
pub type Files = BTreeMap<String, String>;

/// The folder of the `.proto` files in this workspace.
#[must_use]
pub fn schema_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema")
}

/// The folder of the generated files in this workspace.
#[must_use]
pub fn generated_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/generated")
}

/// Compiles every `.proto` file below `schema` and generates all files.
///
/// # Errors
/// When a file cannot be read, does not compile, or prost-build refuses it.
pub fn generate(schema: &Path) -> Result<Files, Error> {
    let set = compile(schema)?;
    let table = table::generate(&set)?;
    let mut files = code::generate(set)?;
    files.insert("descriptor.rs".into(), table);
    Ok(files)
}

/// The schema as descriptors, files in a stable order (imports before importers).
fn compile(schema: &Path) -> Result<FileDescriptorSet, Error> {
    let mut files = Vec::new();
    collect(schema, &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([schema])?;
    compiler.include_source_info(false).include_imports(true).open_files(&files)?;
    Ok(compiler.file_descriptor_set())
}

/// Appends every `.proto` file below `dir`.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
