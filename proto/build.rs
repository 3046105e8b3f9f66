//! Compiles the API in process: no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["runtime/v1/api.proto"], ["."])?;
    println!("cargo:rerun-if-changed=runtime/v1/api.proto");
    tonic_prost_build::configure().bytes(".runtime.v1.ExecSyncResponse").compile_fds(files)?;
    Ok(())
}
