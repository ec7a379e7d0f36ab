//! The real thing: `iaasd` as a process, REST over loopback, real QEMU guests under whatever accelerator the host has.
//!
//! What a machine can't do is printed as `not run: why`, never skipped in silence.

mod bad_input;
mod crash;
mod debian;
mod full_disk;
mod join;
mod lab;
mod lifecycle;
mod many;
mod network;
mod networks;
mod pinning;
mod process;
mod recovery;
mod roles;
mod support;
