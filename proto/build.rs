//! Compiles the .proto files without a system protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/iaas/cluster/v1/cluster.proto",
        "proto/iaas/agent/v1/agent.proto",
        "proto/iaas/leader/v1/leader.proto",
        "proto/iaas/network/v1/network.proto",
        "proto/iaas/resource/v1/resource.proto",
        "proto/iaas/storage/v1/storage.proto",
        "proto/iaas/sync/v1/sync.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    // Most desired objects are small; the largest kind would make each of them as large.
    let boxed = ".iaas.sync.v1.DesiredObject.object.instance";
    tonic_prost_build::configure().bytes(".").boxed(boxed).compile_fds(descriptors)?;
    Ok(())
}
