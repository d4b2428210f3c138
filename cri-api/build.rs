//! Generates messages, clients and servers from `proto/cri.proto`, without protoc.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/cri.proto");
    let mut files = protox::compile(["cri.proto"], ["proto"])?;

    tonic_prost_build::configure()
        // Sorted maps: equal messages encode to equal bytes and print alike.
        .btree_map(".")
        .codec_path("crate::codec::WholeCodec")
        .extern_path(
            ".runtime.v1.ListContainersResponse",
            "crate::list::ListContainersResponse",
        )
        .extern_path(
            ".runtime.v1.ListPodSandboxResponse",
            "crate::list::ListPodSandboxResponse",
        )
        .compile_fds(files.clone())?;

    // The comments went into the generated code; the descriptor carries only the wire format.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let path = Path::new(&env::var("OUT_DIR")?).join("cri.bin");
    fs::write(path, files.encode_to_vec())?;
    Ok(())
}
