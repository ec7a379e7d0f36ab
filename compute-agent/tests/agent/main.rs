//! The real agent, driven over the real protocol by a stand-in for its managers, with real guests under emulation.
//!
//! Needs root and QEMU; the guest image comes from `IAAS_TEST_GUEST_DIR`, else from `target/guest/tiny`. A test that lacks something
//! prints `not run: …` and what. At most four guests run at once.

mod console;
mod failures;
mod images;
mod lifecycle;
mod managers;
mod nics;
mod pinning;
mod ports;
mod restarts;
mod rig;
mod stand_in;
