//! Generates the Rust code and the descriptor from the `.proto` files; no `protoc` is needed.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use prost::Message as _;

const FILE: &str = "sns/relay/v1/relay.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let descriptors = protox::compile([FILE], ["."])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("relay.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
