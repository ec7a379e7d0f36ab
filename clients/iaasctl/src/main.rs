//! The binary: everything is in the library, so that tests can look at the command tree, and so that its code is made there alone.

fn main() -> std::process::ExitCode {
    iaasctl::run()
}
