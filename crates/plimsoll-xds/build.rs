//! Compiles `proto/xds/` without protoc: the part of the published xDS API that this crate speaks.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;
use tonic_prost_build::Config;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.join("xds").display());
    let descriptors = protox::compile(proto_files(&root.join("xds"))?, [&root])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = Config::new();
    // Resources travel as `Any`, with the full names of their types.
    config.enable_type_names();
    tonic_prost_build::configure()
        .btree_map(".")
        // Clients are made by `new` over a channel.
        .build_transport(false)
        .include_file("xds.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// The .proto files of the folder, by name, so that the output never depends on the file system's order.
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
