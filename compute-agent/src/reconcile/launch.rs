//! What QEMU is started as. Pure.

use super::layout::Paths;
use crate::{
    host::cgroup::Limits,
    ledger::{Desired, Entry},
    qemu::{
        argv::{Accel, Boot, DiskBacking, DiskFormat, OnPowerOff, VmDisk, VmNic, VmSpec},
        overhead::{overhead_mib, tasks_max},
    },
};
use domain::{
    image::{ImageKind, ImagePartKind},
    instance::Power,
};
use std::path::PathBuf;

/// An image without a part that its kind needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image has no {part}")]
pub struct MissingPart {
    pub part: &'static str,
}

/// What the launch adds to what is desired.
#[derive(Debug, Clone)]
pub struct LaunchParameters {
    pub accel: Accel,
    /// Of the root disk that is there.
    pub root_seq: u64,
    /// Whether the root disk lies on an image.
    pub backed: bool,
    pub direct: bool,
    pub config_drive: PathBuf,
    /// The cached kernel and initrd, for kernel images.
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    /// Of the NICs' networks, in the NICs' order.
    pub mtus: Vec<u32>,
}

pub fn vm_spec(entry: &Entry, paths: &Paths, with: &LaunchParameters) -> Result<VmSpec, MissingPart> {
    let Desired { instance_id, name, spec, image, root_disk, .. } = &entry.desired;
    let boot = match image.kind {
        ImageKind::Disk => Boot::Disk { ovmf: None },
        ImageKind::Kernel => Boot::Kernel {
            kernel: with.kernel.clone().ok_or(MissingPart { part: ImagePartKind::Kernel.as_str() })?,
            initrd: with.initrd.clone(),
            cmdline: image.cmdline.clone(),
        },
    };
    let disks = root_disk.iter().map(|disk| VmDisk {
        disk_id: disk.disk_id.0,
        path: paths.root_disk(with.root_seq),
        format: DiskFormat::Qcow2,
        backing: with
            .backed
            .then(|| DiskBacking { path: paths.base(with.root_seq), format: disk_format(image.format) }),
        read_only: false,
        serial: serial(disk.disk_id),
        boot_index: Some(0),
        direct: with.direct,
    });
    Ok(VmSpec {
        uuid: instance_id.0,
        name: name.clone(),
        vcpus: spec.size.vcpus,
        memory_mib: spec.size.memory_mib,
        numa_node: entry.desired.numa_node,
        boot,
        disks: disks.collect(),
        nics: nics(&entry.desired, &with.mtus),
        config_drive: Some(with.config_drive.clone()),
        accel: with.accel.clone(),
        qmp_socket: paths.qmp_socket(),
        serial_socket: paths.serial_socket(),
        console_log: paths.console_log(),
        paused: spec.power == Power::Paused,
        on_poweroff: OnPowerOff::Hold,
    })
}

/// The first NIC in the first slot, and so on.
fn nics(desired: &Desired, mtus: &[u32]) -> Vec<VmNic> {
    let slots = 1..=u8::MAX;
    let nics = desired.nics.iter().zip(mtus).zip(slots);
    nics.map(|((nic, mtu), slot)| VmNic { port_id: nic.port_id.0, slot, mac: nic.mac, mtu: *mtu }).collect()
}

/// The first 20 characters of a disk's id without hyphens: what virtio-blk has room for.
fn serial(disk_id: domain::DiskId) -> String {
    let mut text = disk_id.0.simple().to_string();
    text.truncate(crate::qemu::argv::SERIAL_MAX);
    text
}

pub fn disk_format(format: domain::image::DiskFormat) -> DiskFormat {
    match format {
        domain::image::DiskFormat::Qcow2 => DiskFormat::Qcow2,
        domain::image::DiskFormat::Raw => DiskFormat::Raw,
    }
}

/// What the instance's control group allows.
pub fn limits(desired: &Desired, accel: &Accel) -> Limits {
    let size = desired.spec.size;
    let memory_mib = size.memory_mib + overhead_mib(accel, size.vcpus, size.memory_mib);
    Limits { memory_bytes: memory_mib << 20, vcpus: size.vcpus, tasks_max: tasks_max(size.vcpus) }
}
