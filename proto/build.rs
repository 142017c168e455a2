//! Generates the Rust code and the descriptor from the `.proto` files; no `protoc` is needed.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use prost::Message as _;

/// The contract of the relay and, apart from it, what sealed bodies hold: the descriptor that a
/// relay shows to its callers has nothing of the latter.
const FILES: [(&str, &str); 2] =
    [("sns/relay/v1/relay.proto", "relay.bin"), ("sns/device/v1/content.proto", "content.bin")];

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var("OUT_DIR")?;
    for (file, descriptor) in FILES {
        println!("cargo::rerun-if-changed={file}");
        let descriptors = protox::compile([file], ["."])?;
        fs::write(Path::new(&out).join(descriptor), descriptors.encode_to_vec())?;
        tonic_prost_build::configure()
            .codec_path("crate::codec::SmallCodec")
            .build_transport(false)
            .compile_fds(descriptors)?;
    }
    Ok(())
}
