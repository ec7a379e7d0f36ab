//! Tests of disks as a guest uses them: the overlay over a shared image, freed space, and what is left of them.

use compute_agent::disk::erase::erase;
use compute_agent::disk::overlay::{QemuImg, supports_direct};
use compute_agent::qemu::argv::{DiskBacking, VmDisk, block_node};
use compute_agent::qemu::throttle::limit_disks;
use compute_agent::qmp::commands::DiskLimits;
use domain::image::DiskFormat;
use uuid::Uuid;

use crate::rig::{OWNER, Scratch, Vm, guest, qemu};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_reads_its_image_writes_its_overlay_and_grows() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let img = QemuImg::new(qemu.with_file_name("qemu-img"));
    let (base, path) = (scratch.dir.path().join("base"), scratch.run.join("disk"));
    let mut content = b"from-the-image\n".to_vec();
    content.resize(MIB as usize, 0);
    std::fs::write(&base, &content).expect("written");
    img.create_overlay(&base, DiskFormat::Raw, 64 * MIB, &path, OWNER).await.expect("created");
    let disk_id = Uuid::now_v7();
    let mut spec = scratch.spec(&guest);
    spec.disks = vec![VmDisk {
        disk_id,
        path: path.clone(),
        format: DiskFormat::Qcow2,
        backing: Some(DiskBacking { path: base.clone(), format: DiskFormat::Raw }),
        read_only: false,
        serial: "root-disk".into(),
        boot_index: Some(0),
        direct: supports_direct(&scratch.run).expect("known"),
    }];
    let script = b"#!/bin/sh\ngrep -l root-disk /sys/block/*/serial\nD=/dev/$(basename $(dirname $(grep -l root-disk /sys/block/*/serial)))\n\
        read -r line <$D && echo \"read $line\"\necho written-by-the-guest | dd of=$D bs=512 seek=100 conv=fsync 2>/dev/null\n\
        echo size $(cat /sys/block/${D#/dev/}/size)\n";
    spec.config_drive = Some(scratch.config_drive("disky", script).await);
    let vm = Vm::start(&qemu, &spec, &scratch.confinement()).await;
    vm.up().await;
    let log = compute_agent::console::ConsoleLog::new(&spec.console_log);
    let said = String::from_utf8_lossy(&log.tail(64 << 10).expect("readable").bytes).into_owned();
    assert!(said.contains("read from-the-image") && said.contains("size 131072"), "{said}");

    let block = vm.qmp.query_block().await.expect("answered");
    let node = block_node(disk_id);
    let inserted = block.iter().filter_map(|device| device.inserted.as_ref());
    let disk = inserted.clone().find(|disk| disk.node_name.as_deref() == Some(&node)).expect("our disk");
    assert_eq!((disk.driver.as_str(), disk.read_only, disk.image.virtual_size_bytes), ("qcow2", false, 64 * MIB));
    // The disk and the config drive, once; then they have them.
    let limits = DiskLimits { iops: 500, bytes_per_sec: 20 * MIB };
    for (limits, changed) in [(limits, 2), (limits, 0), (DiskLimits { iops: 0, bytes_per_sec: 0 }, 2), (limits, 2)] {
        assert_eq!(limit_disks(&vm.qmp, limits).await.expect("limited"), changed);
        for device in vm.qmp.query_block().await.expect("answered") {
            let disk = device.inserted.expect("every device has a disk");
            let found = DiskLimits { iops: disk.iops, bytes_per_sec: disk.bytes_per_sec };
            assert_eq!(found, limits, "{:?}", device.qdev);
        }
    }
    vm.qmp.block_resize(&node, 128 * MIB).await.expect("grown while it runs");
    let error = vm.qmp.block_resize("nothing", MIB).await.expect_err("no such node");
    assert!(error.refused());

    // A second QEMU on the same disk is refused by QEMU's lock, whatever the agent believes.
    let second = Scratch::make().await;
    let mut other = second.spec(&guest);
    other.disks = spec.disks.clone();
    let process =
        crate::rig::launcher(&qemu).launch(&other, &second.confinement(), vec![]).await.expect("the exec succeeds");
    let stderr = second.confinement().stderr;
    let refused = compute_agent::qemu::launch::wait_ready(
        &process,
        &compute_agent::qemu::socket::QemuSocket::new(second.run.join("never"), crate::rig::UID),
        &stderr,
        crate::rig::TIMEOUT,
    )
    .await;
    let message = refused.expect_err("it ended").to_string();
    assert!(message.contains("lock"), "{message}");

    vm.qmp.quit().await.expect("quits");
    vm.gone().await;
    assert_eq!(
        img.info(&path, DiskFormat::Qcow2, crate::rig::OWNER).await.expect("readable").virtual_size_bytes,
        128 * MIB
    );
    assert_eq!(std::fs::read(&base).expect("readable"), content, "the image is as it was");
    let holds = |needle: &[u8], bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"written-by-the-guest", &std::fs::read(&path).expect("readable")));
    let mut open = std::fs::File::open(&path).expect("open");
    erase(&path).await.expect("erased");
    let mut left = vec![];
    std::io::Read::read_to_end(&mut open, &mut left).expect("readable");
    assert!(!path.exists() && !holds(b"written-by-the-guest", &left));
}
