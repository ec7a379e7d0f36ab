//! How much memory a QEMU process needs besides its guest's memory, for capacity and for cgroup limits.
//!
//! `fixed + per vCPU + per GiB of guest memory (+ the translation buffer under TCG)`, rounded up to what was seen and
//! then a margin: a host that counts too little gets its guests killed by the OOM killer; one that counts too much only
//! sells a little less.
//!
//! Sources of the figures, all for QEMU 10.0 with the command line of [`super::argv`]; measured as anonymous and shared
//! resident memory of the process beyond the guest's own RAM (`Rss` of all mappings but the `ram` block in
//! `/proc/PID/smaps`, file-backed text included once). `tests/vm/overhead.rs` repeats the measurement and fails when the
//! model falls below it.
//! - **fixed 96 MiB**: a QEMU whose guest hasn't run yet holds 55 MiB (of which 32 anonymous; the rest is mostly text,
//!   that all share), whatever its memory and vCPUs; qcow2's L2 cache adds up to 32 MiB (its default bound) once a disk
//!   has been used.
//! - **8 MiB per vCPU**: a thread's used stack, its CPU state and, under TCG, its jump caches and soft TLB (up to 1 MiB
//!   per MMU mode at their largest).
//! - **8 MiB per GiB**: dirty bitmaps, KVM's and the host's page tables (2 MiB per GiB for 4 KiB pages, twice for
//!   nested tables).
//! - **TCG: the translation buffer**, which fills up to `tb-size` and is then flushed. QEMU's default would be a GiB. A
//!   boot of Debian's kernel took the same time with 32, 64, 128, 256 MiB and with the default, so 128 MiB leaves room
//!   for a guest's steady working set; after the boot of a small guest 115 MiB are resident in all. The lookup
//!   tree beside the buffer is counted as a fourth of it.

use super::argv::{Accel, TCG_TB_SIZE_MIB};

const FIXED_MIB: u64 = 96;
const PER_VCPU_MIB: u64 = 8;
const PER_GUEST_GIB_MIB: u64 = 8;
const TCG_MIB: u64 = TCG_TB_SIZE_MIB + TCG_TB_SIZE_MIB / 4;

/// How much memory in MiB QEMU needs in addition to `memory_mib` of guest memory.
pub fn overhead_mib(accel: &Accel, vcpus: u32, memory_mib: u64) -> u64 {
    let tcg = match accel {
        Accel::Kvm { .. } => 0,
        Accel::Tcg { .. } => TCG_MIB,
    };
    FIXED_MIB + PER_VCPU_MIB * u64::from(vcpus) + (PER_GUEST_GIB_MIB * memory_mib).div_ceil(1024) + tcg
}

/// How many processes and threads one QEMU may have: vCPUs, the main loop, an iothread, RCU, a signal thread, and QEMU's pool
/// of at most 64 workers for each of the two AIO contexts.
pub fn tasks_max(vcpus: u32) -> u64 {
    u64::from(vcpus) + 4 + 2 * 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_each_part() {
        let kvm = Accel::Kvm { cpu_flags: vec![] };
        assert_eq!(overhead_mib(&kvm, 1, 1024), 96 + 8 + 8);
        assert_eq!(overhead_mib(&kvm, 4, 1024), 96 + 32 + 8);
        assert_eq!(overhead_mib(&kvm, 1, 1), 96 + 8 + 1, "a part of a GiB counts");
        assert_eq!(overhead_mib(&Accel::TCG, 1, 1024), 96 + 8 + 8 + 160);
    }
}
