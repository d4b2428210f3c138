//! Generates messages from `proto/nri.proto`, without protoc.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/nri.proto");
    let mut files = protox::compile(["nri.proto"], ["proto"])?;

    prost_build::Config::new()
        // Sorted maps: equal messages encode to equal bytes, and plugins are applied in one order.
        .btree_map(["."])
        .compile_fds(files.clone())?;

    // The comments went into the generated code; the descriptor carries only the wire format.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let path = Path::new(&env::var("OUT_DIR")?).join("nri.bin");
    fs::write(path, files.encode_to_vec())?;
    Ok(())
}
