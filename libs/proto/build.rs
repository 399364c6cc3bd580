//! Compiles every `.proto` of the workspace without a system compiler and keeps the descriptor set for reflection.
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 6] = [
    "tracklayer/event/v1/event.proto",
    "tracklayer/ingest/v1/ingest.proto",
    "tracklayer/identity/v1/identity.proto",
    "tracklayer/consent/v1/consent.proto",
    "tracklayer/delivery/v1/delivery.proto",
    "tracklayer/control/v1/control.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    // JSON kept as bytes and event bytes copied unchanged: `Bytes` makes both a reference count instead of a copy.
    tonic_prost_build::configure().bytes(".tracklayer.event.v1").compile_fds(descriptors)?;
    Ok(())
}
