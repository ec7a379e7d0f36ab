//! Tests with real QEMU, which is launched, controlled, observed and ended as the agent does it, with emulated guests (and one under KVM).
//!
//! They need root and QEMU; a test that needs something this machine lacks prints `not run: …` and what. At most four guests
//! run at once, in this binary; the guest image comes from `IAAS_TEST_GUEST_DIR`, else from `target/guest/tiny`.

mod accel;
mod cgroup;
mod disks;
mod launch;
mod lifecycle;
mod overhead;
mod rig;
