//! The launch shim as a program of its own, for this crate's tests; in production the same code is `iaasd vm-launch`.

use std::process::ExitCode;

fn main() -> ExitCode {
    compute_agent::qemu::shim::shim_main()
}
