//! Compares the memory model with a real process.

use compute_agent::qemu::overhead::overhead_mib;

use crate::rig::{Scratch, Vm, guest, qemu};

/// The resident memory of the process in KiB, without the guest's own memory.
fn resident_beside_ram_kib(pid: i32, ram_kib: u64) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it runs");
    let (mut size, mut sum) = (0, 0);
    for line in smaps.lines() {
        let mut fields = line.split_whitespace();
        let key = fields.next().unwrap_or("");
        let value = || fields.next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        match key {
            "Size:" => size = { value }(),
            // The guest's memory is one mapping, of its size or joined by the kernel with a neighbour.
            "Rss:" if size < ram_kib => sum += { value }(),
            _ => {}
        }
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booted_guest_takes_less_than_what_is_counted_for_it() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    spec.vcpus = 2;
    spec.config_drive = Some(scratch.config_drive("heavy", b"").await);
    let vm = Vm::start(&qemu, &spec, &scratch.confinement()).await;
    vm.up().await;
    let used_mib = resident_beside_ram_kib(vm.process.pid, spec.memory_mib << 10) >> 10;
    let counted_mib = overhead_mib(&spec.accel, spec.vcpus, spec.memory_mib);
    println!("QEMU takes {used_mib} MiB beside the guest's memory; counted are {counted_mib} MiB");
    assert!(used_mib > 0 && used_mib < counted_mib, "{used_mib} MiB used, {counted_mib} MiB counted");
}
