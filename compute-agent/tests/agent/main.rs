//! Tests of the real agent, which a stand-in for its managers drives with the real protocol, with real guests under emulation.
//!
//! They need root and QEMU; the guest image comes from `IAAS_TEST_GUEST_DIR`, else from `target/guest/tiny`. A test that lacks something
//! prints `not run: …` and what. At most four guests run at once.

mod confinement;
mod console;
mod failures;
mod full_disk;
mod images;
mod lifecycle;
mod losses;
mod managers;
mod nics;
mod pinning;
mod pool;
mod ports;
mod restarts;
mod rig;
mod stand_in;
