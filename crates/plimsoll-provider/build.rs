//! Compiles `proto/externalgrpc/` without protoc.

use std::env;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let file = root.join("externalgrpc/externalgrpc.proto");
    println!("cargo::rerun-if-changed={}", file.display());
    let descriptors = protox::compile([&file], [&root])?;
    tonic_prost_build::configure()
        .btree_map(".")
        // Clients are made by `new` over a channel.
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
