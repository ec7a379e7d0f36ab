//! The QEMU of this host and the accelerator that was found to work. They are found once. While there is no QEMU they are looked for again,
//! so that installing QEMU is all it takes.

use crate::{
    config::Config,
    disk::overlay::QemuImg,
    host::facts,
    qemu::{
        accel::AccelDecision,
        argv::Accel,
        launch::Launcher,
        probe::{KernelProbe, ProbeError, Prober, kvm_access_gid},
        version::{Qemu, VersionError, find_qemu},
    },
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::OnceCell;

/// A kernel that has printed nothing after this time never will.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(8);

/// The programs and settings that instances are run with.
#[derive(Debug)]
pub struct Hypervisor {
    pub qemu: Qemu,
    pub accel: AccelDecision,
    pub launcher: Launcher,
    pub img: QemuImg,
    /// The groups that QEMU needs to open /dev/kvm.
    pub gids: Vec<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    #[error("{0}")]
    Qemu(VersionError),
    #[error("the accelerators can't be measured")]
    Probe(#[source] ProbeError),
}

#[derive(Debug, Default)]
pub struct HypervisorCell(OnceCell<Arc<Hypervisor>>);

#[must_use]
pub fn launcher(config: &Config, qemu: &Qemu) -> Launcher {
    match &config.launch_program {
        Some(program) => Launcher::new(&qemu.binary, program, &["vm-launch"]),
        None => Launcher::this_binary(&qemu.binary),
    }
}

impl HypervisorCell {
    /// Finds the hypervisor. At the first start on a host this measures the accelerators, which takes some seconds.
    pub async fn get(&self, config: &Config, probe_uid: u32) -> Result<Arc<Hypervisor>, HypervisorError> {
        self.0.get_or_try_init(|| find(config, probe_uid)).await.cloned()
    }

    #[must_use]
    pub fn found(&self) -> Option<Arc<Hypervisor>> {
        self.0.get().cloned()
    }
}

/// The prober that measures the accelerators on this host.
#[must_use]
pub fn prober(config: &Config, qemu: &Qemu, probe_uid: u32) -> Prober {
    Prober {
        launcher: launcher(config, qemu),
        qemu_version: qemu.version,
        uid: probe_uid,
        gid: probe_uid,
        work_dir: config.run_dir.clone(),
        cache_file: config.state_dir.join("accelerator.json"),
        kernel: host_kernel(),
    }
}

/// The kernel that this host itself runs, which represents those of the guests. `None` where it can't be read.
fn host_kernel() -> Option<KernelProbe> {
    let release = facts::kernel_release().ok()?;
    let kernel = PathBuf::from(format!("/boot/vmlinuz-{release}"));
    let cmdline = "console=ttyS0 panic=-1".to_owned();
    kernel.is_file().then_some(KernelProbe { kernel, initrd: None, cmdline, timeout: KERNEL_TIMEOUT })
}

async fn find(config: &Config, probe_uid: u32) -> Result<Arc<Hypervisor>, HypervisorError> {
    let qemu = find_qemu(config.qemu.as_deref()).await.map_err(HypervisorError::Qemu)?;
    let mut accel =
        prober(config, &qemu, probe_uid).accelerator(config.accelerator).await.map_err(HypervisorError::Probe)?;
    if !config.nested {
        accel.accel = accel.accel.without_nesting();
    }
    for warning in &accel.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(qemu = %qemu.version, accelerator = accel.accel.name(), reason = accel.reason, "ready to run instances");
    let gids = match &accel.accel {
        Accel::Kvm { .. } => kvm_access_gid(probe_uid).into_iter().collect(),
        Accel::Tcg { .. } => Vec::new(),
    };
    let (launcher, img) = (launcher(config, &qemu), QemuImg::new(&qemu.qemu_img));
    Ok(Arc::new(Hypervisor { qemu, accel, launcher, img, gids }))
}
