//! What QEMU is started as. Pure.

use super::layout::{DiskFile, Paths};
use crate::{
    host::cgroup::Limits,
    ledger::{Desired, Disk, Entry},
    qemu::{
        argv::{Accel, Boot, DiskBacking, OnPowerOff, SERIAL_MAX, VmDisk, VmNic, VmSpec},
        overhead::{overhead_mib, tasks_max},
    },
};
use domain::{
    image::{DiskFormat, ImageKind, ImagePartKind},
    instance::Power,
};
use std::path::PathBuf;

/// The image lacks a part that its kind needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image has no {part}")]
pub struct MissingPart {
    pub part: &'static str,
}

/// What the host adds to the desired state for a launch.
#[derive(Debug, Clone)]
pub struct LaunchParameters {
    pub accel: Accel,
    /// The files of the desired disks, in the disks' order, and whether each lies on an image.
    pub disks: Vec<(DiskFile, bool)>,
    /// Whether disks bypass the page cache.
    pub direct: bool,
    pub config_drive: PathBuf,
    /// The cached kernel and initrd, for kernel images.
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    /// The MTUs of the NICs' networks, in the NICs' order.
    pub mtus: Vec<u32>,
}

pub fn vm_spec(entry: &Entry, paths: &Paths, with: &LaunchParameters) -> Result<VmSpec, MissingPart> {
    let Desired { instance_id, name, spec, image, disks, nics, .. } = &entry.desired;
    let boot = match image.kind {
        ImageKind::Disk => Boot::Disk { ovmf: None },
        ImageKind::Kernel => Boot::Kernel {
            kernel: with.kernel.clone().ok_or(MissingPart { part: ImagePartKind::Kernel.as_str() })?,
            initrd: with.initrd.clone(),
            cmdline: image.cmdline.clone(),
        },
    };
    let format = image.format;
    let vm_disk = |(disk, (file, backed)): (&Disk, &(DiskFile, bool))| VmDisk {
        disk_id: disk.disk_id.0,
        path: paths.disk(file),
        format: DiskFormat::Qcow2,
        backing: backed.then(|| DiskBacking { path: paths.base(file), format }),
        read_only: false,
        serial: serial(disk.disk_id),
        boot_index: disk.is_root().then_some(0),
        direct: with.direct,
    };
    // The first NIC gets the first slot, and so on.
    let vm_nics = nics.iter().zip(&with.mtus).zip(1..=u8::MAX);
    Ok(VmSpec {
        uuid: instance_id.0,
        name: name.clone(),
        vcpus: spec.size.vcpus,
        memory_mib: spec.size.memory_mib,
        numa_node: entry.desired.numa_node,
        boot,
        disks: disks.iter().zip(&with.disks).map(vm_disk).collect(),
        nics: vm_nics
            .map(|((nic, mtu), slot)| VmNic { port_id: nic.port_id.0, slot, mac: nic.mac, mtu: *mtu })
            .collect(),
        config_drive: Some(with.config_drive.clone()),
        accel: with.accel.clone(),
        qmp_socket: paths.qmp_socket(),
        serial_socket: paths.serial_socket(),
        console_log: paths.console_log(),
        paused: spec.power == Power::Paused,
        on_poweroff: OnPowerOff::Hold,
    })
}

/// The first 20 characters of a disk's id without hyphens, which is what virtio-blk can show.
fn serial(disk_id: domain::DiskId) -> String {
    let mut text = disk_id.0.simple().to_string();
    text.truncate(SERIAL_MAX);
    text
}

/// What the instance's control group allows.
pub fn limits(desired: &Desired, accel: &Accel) -> Limits {
    let size = desired.spec.size;
    let memory_mib = size.memory_mib + overhead_mib(accel, size.vcpus, size.memory_mib);
    Limits { memory_bytes: memory_mib << 20, vcpus: size.vcpus, tasks_max: tasks_max(size.vcpus) }
}
