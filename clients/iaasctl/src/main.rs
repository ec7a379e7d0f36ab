//! The binary: everything is in the library, so that tests can look at the command tree.

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    iaasctl::run().await
}
