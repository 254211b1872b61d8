//! Compiles `proto/` without protoc: message types, services, their proto3 JSON forms, and the descriptor set that
//! reflection serves.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

/// Packages whose messages have a JSON form.
const JSON_PACKAGES: [&str; 1] = [".plimsoll.v1"];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut files = proto_files(&root.join("plimsoll/v1"))?;
    files.extend(proto_files(&root.join("plimsoll/log/v1"))?);
    println!("cargo::rerun-if-changed={}", root.join("plimsoll/v1").display());
    println!("cargo::rerun-if-changed={}", root.join("plimsoll/log/v1").display());

    let descriptors = protox::compile(&files, [&root])?;
    let encoded = descriptors.encode_to_vec();
    fs::write(out.join("descriptors.bin"), &encoded)?;

    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        // No `connect` constructors: the agent's rpc has that name. Clients are made by `new` over a channel.
        .build_transport(false)
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new().register_descriptors(&encoded)?.btree_map(["."]).build(&JSON_PACKAGES)?;
    Ok(())
}

/// The .proto files of one folder, by name, so that the output never depends on the file system's order.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
