//! Measures the accelerators with a guest of our own.
//!
//! The guest (`probe_guest.S`) does what a 64-bit kernel does in its first second and prints how far it came. It runs
//! through the same launch and the same command line as every instance, so the sandbox, the unprivileged uid and the
//! access to `/dev/kvm` are tried along the way. It is started paused, and runs once QMP and the serial port are
//! connected: no line is missed, and times count from its first instruction.
//!
//! Everything has a limit: a run ends at the guest's power-off, at QEMU's end, when QMP reports that the guest can't go on, or at
//! `RUN_TIMEOUT`. The outcome is remembered for a boot of the host, a QEMU version and a kernel, since nothing else
//! changes it.

use service_kit::error_chain;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::image::DiskFormat;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::accel::{AccelDecision, AccelSetting, ProbeRun, Probed, Stage, decide, decide_tcg_by_setting};
use super::argv::{Accel, Boot, OnPowerOff, VmDisk, VmSpec};
use super::keeper::{final_output, tail};
use super::launch::{Confinement, Launcher, wait_ready};
use super::leftover::{self, PROBE_DIR};
use super::process::ProcessRef;
use super::socket::QemuSocket;
use super::version::QemuVersion;
use crate::host::facts;

/// The assembled guest, which has eight sectors.
pub const GUEST: &[u8] = include_bytes!("probe_guest.bin");
/// SeaBIOS reads no disk whose size makes less than one cylinder.
const DISK_BYTES: usize = 1 << 20;
/// A host where emulation takes longer than this can't run instances anyway.
const RUN_TIMEOUT: Duration = Duration::from_secs(5);
const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// Changes to `-cpu host` that make it work on some hosts, in the order in which they are tried.
const CPU_FLAGS: [&[&str]; 2] = [&[], &["arch-capabilities=off"]];
/// The probe's guest prints some lines.
const CONSOLE_BYTES_MAX: u64 = 1 << 20;
const KVM_NODE: &str = "/dev/kvm";

/// What a probe works with.
#[derive(Debug, Clone)]
pub struct Prober {
    pub launcher: Launcher,
    pub qemu_version: QemuVersion,
    /// The user and group that the probe guest runs as, unprivileged like those of instances.
    pub uid: u32,
    pub gid: u32,
    /// A directory of the agent, in which a subdirectory is made and removed.
    pub work_dir: PathBuf,
    /// The file in which the outcome is remembered.
    pub cache_file: PathBuf,
    /// A stock kernel to try under KVM once the probe guest has passed.
    pub kernel: Option<KernelProbe>,
}

/// A kernel that must write anything to its serial console in time.
#[derive(Debug, Clone)]
pub struct KernelProbe {
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    /// The kernel's command line, which must name the serial console and must not contain `quiet`.
    pub cmdline: String,
    pub timeout: Duration,
}

#[derive(Debug, Error)]
pub enum ProbeError {
    #[error("the host can't be told apart from others")]
    Facts(#[source] facts::FactsError),
    #[error("the probe can't write to {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Why instances can't open `/dev/kvm`.
#[derive(Debug, Error)]
pub enum KvmAccessError {
    #[error(
        "/dev/kvm is missing: the CPU or its firmware settings lack virtualization, or the module kvm isn't loaded"
    )]
    Missing(#[source] io::Error),
    #[error("/dev/kvm can't be given to a group: run `chgrp kvm /dev/kvm && chmod 660 /dev/kvm` as root")]
    Grant(#[source] io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    boot_id: String,
    qemu_version: QemuVersion,
    kernel_release: String,
    probed: Probed,
}

impl Prober {
    /// The accelerator for this host. This takes milliseconds if the outcome is remembered, else at most some seconds.
    pub async fn accelerator(&self, setting: AccelSetting) -> Result<AccelDecision, ProbeError> {
        if setting == AccelSetting::Tcg {
            return Ok(decide_tcg_by_setting());
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned());
        let boot_id =
            boot_id.map_err(|source| ProbeError::Io { path: "/proc/sys/kernel/random/boot_id".into(), source })?;
        let kernel_release = facts::kernel_release().map_err(ProbeError::Facts)?;
        let remembered =
            fs::read(&self.cache_file).ok().and_then(|text| serde_json::from_slice::<Remembered>(&text).ok());
        if let Some(r) = remembered
            && (r.boot_id.as_str(), r.qemu_version, r.kernel_release.as_str())
                == (boot_id.as_str(), self.qemu_version, kernel_release.as_str())
        {
            return Ok(decide(setting, &r.probed));
        }
        let probed = self.probe().await?;
        let decision = decide(setting, &probed);
        // A kernel module that is loaded later creates the node, so nothing is remembered without the node.
        if Path::new(KVM_NODE).exists() {
            let qemu_version = self.qemu_version;
            self.remember(&Remembered { boot_id, qemu_version, kernel_release, probed })?;
        }
        Ok(decision)
    }

    /// Measures, even if an outcome is remembered.
    pub async fn probe(&self) -> Result<Probed, ProbeError> {
        let ended = leftover::end_probes(&self.work_dir);
        if ended > 0 {
            tracing::info!(ended, "probes that an agent left behind when it was killed are ended");
        }
        let tcg = self.run_probe_guest(Accel::TCG, vec![], RUN_TIMEOUT).await?;
        let mut kvm = vec![];
        match kvm_access_gid(self.gid) {
            Err(error) => kvm.push((vec![], ProbeRun::failed_at_start(error.to_string()))),
            Ok(kvm_gid) => {
                for flags in CPU_FLAGS {
                    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
                    let run = self
                        .run_probe_guest(Accel::Kvm { cpu_flags: flags.clone() }, vec![kvm_gid], RUN_TIMEOUT)
                        .await?;
                    let (stage, complete) = (run.stage, run.stage == Stage::Kernel);
                    // A try that came less far than the one before is less informative.
                    if kvm.last().is_none_or(|(_, best): &(Vec<String>, ProbeRun)| stage >= best.stage) {
                        kvm.push((flags, run));
                    }
                    if complete {
                        break;
                    }
                }
            }
        }
        let mut kernel_failure = None;
        if let (Some(probe), Some((flags, run))) = (&self.kernel, kvm.last())
            && run.stage == Stage::Kernel
        {
            let gids = kvm_access_gid(self.gid).into_iter().collect();
            kernel_failure = self.run_kernel(probe, Accel::Kvm { cpu_flags: flags.clone() }, gids).await?;
        }
        Ok(Probed { tcg, kvm, kernel_failure })
    }

    fn remember(&self, remembered: &Remembered) -> Result<(), ProbeError> {
        let half = self.cache_file.with_extension("new");
        let text = serde_json::to_vec_pretty(remembered).map_err(io::Error::from);
        text.and_then(|text| fs::write(&half, text))
            .and_then(|()| fs::rename(&half, &self.cache_file))
            .map_err(|source| ProbeError::Io { path: self.cache_file.clone(), source })
    }

    /// Runs the probe guest once, for at most `timeout`. An error means that the run couldn't be prepared; what goes wrong in the run is in its
    /// outcome.
    pub async fn run_probe_guest(
        &self,
        accel: Accel,
        supplementary_gids: Vec<u32>,
        timeout: Duration,
    ) -> Result<ProbeRun, ProbeError> {
        let scratch = Scratch::make(&self.work_dir, self.uid, self.gid)?;
        let disk = scratch.dir.join("guest.raw");
        let mut image = GUEST.to_vec();
        image.resize(DISK_BYTES, 0);
        scratch.file(&disk, &image)?;
        let disk = VmDisk {
            disk_id: Uuid::nil(),
            path: disk,
            format: DiskFormat::Raw,
            backing: None,
            read_only: false,
            serial: "probe".into(),
            boot_index: Some(0),
            direct: false,
        };
        let spec = scratch.spec(accel, Boot::Disk { ovmf: None }, vec![disk], 64);
        let mut lines = Lines::default();
        let end = self.watch(&scratch, &spec, supplementary_gids, timeout, |bytes, at| lines.push(bytes, at)).await;
        let mut run = lines.into_run();
        if run.stage < Stage::Kernel {
            run.failure = run.failure.or(Some(end));
        }
        Ok(run)
    }

    /// Boots a stock kernel. Returns `None` if it wrote to its console, else what happened instead.
    pub async fn run_kernel(
        &self,
        probe: &KernelProbe,
        accel: Accel,
        supplementary_gids: Vec<u32>,
    ) -> Result<Option<String>, ProbeError> {
        let scratch = Scratch::make(&self.work_dir, self.uid, self.gid)?;
        // Some distributions let only root read their kernels.
        let copy = |from: &Path, name: &str| {
            let to = scratch.dir.join(name);
            let content = fs::read(from).map_err(|source| ProbeError::Io { path: from.to_path_buf(), source })?;
            scratch.file(&to, &content).map(|()| to)
        };
        let kernel = copy(&probe.kernel, "kernel")?;
        let initrd = probe.initrd.as_ref().map(|initrd| copy(initrd, "initrd")).transpose()?;
        let boot = Boot::Kernel { kernel, initrd, cmdline: probe.cmdline.clone() };
        let spec = scratch.spec(accel, boot, vec![], 256);
        let mut spoke = false;
        let end = self
            .watch(&scratch, &spec, supplementary_gids, probe.timeout, |bytes, _| {
                spoke = spoke || !bytes.is_empty();
                !spoke
            })
            .await;
        Ok((!spoke).then_some(end))
    }

    /// Runs a guest and passes its output to `each` (with the time since its first instruction) until `each` returns false or the guest ends.
    /// Returns why it ended. QEMU is gone when this returns.
    async fn watch(
        &self,
        scratch: &Scratch,
        spec: &VmSpec,
        supplementary_gids: Vec<u32>,
        timeout: Duration,
        each: impl FnMut(&[u8], Duration) -> bool,
    ) -> String {
        let confinement = Confinement {
            uid: self.uid,
            gid: self.gid,
            supplementary_gids,
            cgroup_procs: vec![],
            pid_namespace: None,
            // The guest is the agent's own.
            isolation: None,
            stderr: scratch.dir.join("stderr"),
            console_max_bytes: CONSOLE_BYTES_MAX,
        };
        // The other end is open for as long as this agent lives.
        let (_lifeline, watched) = match io::pipe() {
            Ok((reader, writer)) => (writer, Arc::new(OwnedFd::from(reader))),
            Err(error) => return error_chain(&error),
        };
        let process = match self.launcher.launch_bound(spec, &confinement, watched).await {
            Ok(process) => process,
            Err(error) => return error_chain(&error),
        };
        let end = observe(&process, spec, &confinement, timeout, each).await;
        if let Err(error) = process.kill().await {
            tracing::warn!(pid = process.pid, error = error_chain(&error), "the probe's QEMU can't be ended");
        }
        end
    }
}

async fn observe(
    process: &ProcessRef,
    spec: &VmSpec,
    confinement: &Confinement,
    timeout: Duration,
    mut each: impl FnMut(&[u8], Duration) -> bool,
) -> String {
    let stderr = confinement.stderr.as_path();
    let socket = |path: &Path| QemuSocket::new(path, confinement.uid);
    let connect = async {
        let qmp =
            wait_ready(process, &socket(&spec.qmp_socket), stderr, READY_TIMEOUT).await.map_err(|e| error_chain(&e))?;
        let serial = socket(&spec.serial_socket).connect().await.map_err(|e| error_chain(&e))?;
        let mut events = qmp.events();
        qmp.cont().await.map_err(|e| error_chain(&e))?;
        // An error means that the connection is gone, which the exit below reports better.
        let stopped = async move { while events.recv().await.is_ok_and(|event| event.name != "STOP") {} };
        Ok::<_, String>((qmp, serial, stopped))
    };
    let (qmp, mut serial, stopped) = match connect.await {
        Ok(connected) => connected,
        Err(failure) => return first_error(&failure),
    };
    let started = Instant::now();
    let deadline = started + timeout;
    let mut chunk = [0; 1024];
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            biased;
            read = serial.read(&mut chunk) => match read {
                Ok(n) if n > 0 => if !each(&chunk[..n], started.elapsed()) { return "done".into() },
                Ok(_) | Err(_) => {
                    // QEMU closes its sockets a moment before it is gone, and its last words are complete only then.
                    let _ = tokio::time::timeout_at(deadline, process.wait_exit()).await;
                    return first_error(&final_output(stderr).await);
                }
            },
            () = &mut stopped => {
                let state = qmp.query_status().await.map_or_else(|e| error_chain(&e), |state| format!("{state:?}"));
                return format!("QEMU stopped it ({state}): {}", first_error(&tail(stderr)));
            }
            () = tokio::time::sleep_until(deadline) => return format!("it didn't end within {} s", timeout.as_secs()),
        }
    }
}

/// The line of QEMU's stderr that says what is wrong; registers and similar output follow it.
fn first_error(stderr: &str) -> String {
    let relevant = |line: &&str| ["error", "failed", "Assertion", "Could not"].iter().any(|text| line.contains(text));
    let line = stderr.lines().find(relevant).or(stderr.lines().next()).unwrap_or("QEMU ended without any output");
    line.trim().to_owned()
}

/// Collects the guest's lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    reached: Vec<(Stage, Duration)>,
    trapped: bool,
}

impl Lines {
    /// Takes output; false when the guest has printed its last line.
    fn push(&mut self, bytes: &[u8], at: Duration) -> bool {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            // The firmware may have left something in front of the first line.
            let Some((_, name)) = line.trim().rsplit_once("iaas-probe: ") else { continue };
            self.trapped |= name == "trap";
            self.reached.extend(Stage::ALL.into_iter().find(|stage| stage.as_str() == name).map(|stage| (stage, at)));
        }
        !self.trapped && self.at(Stage::Kernel).is_none()
    }

    fn at(&self, stage: Stage) -> Option<Duration> {
        self.reached.iter().find(|(reached, _)| *reached == stage).map(|(_, at)| *at)
    }

    fn into_run(self) -> ProbeRun {
        // Whole microseconds have so few digits that JSON gives back the same number.
        let ms = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        ProbeRun {
            stage: self.reached.iter().map(|(stage, _)| *stage).max().unwrap_or(Stage::Start),
            loops_ms: self.at(Stage::User).zip(self.at(Stage::Kernel)).map(|(from, to)| ms(to - from)),
            firmware_ms: self.at(Stage::Real).map(ms),
            failure: self.trapped.then(|| "the CPU raised an exception that no CPU should".to_owned()),
        }
    }
}

/// A directory for one run, removed at the end. QEMU's user can write only the directory of its sockets in it, and root makes no file there: a
/// program of that user finds no path to swap.
struct Scratch {
    dir: PathBuf,
    sockets: PathBuf,
    uid: u32,
    gid: u32,
}

impl Scratch {
    fn make(work_dir: &Path, uid: u32, gid: u32) -> Result<Self, ProbeError> {
        let dir = work_dir.join(format!("{PROBE_DIR}{}", Uuid::new_v4().simple()));
        let io = |source| ProbeError::Io { path: dir.clone(), source };
        fs::create_dir_all(&dir).map_err(io)?;
        let sockets = dir.join("run");
        let scratch = Self { dir: dir.clone(), sockets: sockets.clone(), uid, gid };
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).map_err(io)?;
        fs::DirBuilder::new().mode(0o700).create(&sockets).map_err(io)?;
        chown(&sockets, Some(uid), Some(gid)).map_err(io)?;
        Ok(scratch)
    }

    fn file(&self, path: &Path, content: &[u8]) -> Result<(), ProbeError> {
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        made.and_then(|mut file| file.write_all(content))
            .and_then(|()| chown(path, Some(self.uid), Some(self.gid)))
            .map_err(|source| ProbeError::Io { path: path.to_path_buf(), source })
    }

    fn spec(&self, accel: Accel, boot: Boot, disks: Vec<VmDisk>, memory_mib: u64) -> VmSpec {
        VmSpec {
            uuid: Uuid::nil(),
            name: "probe".into(),
            vcpus: 1,
            memory_mib,
            numa_node: None,
            boot,
            disks,
            nics: vec![],
            config_drive: None,
            accel,
            qmp_socket: self.sockets.join("qmp"),
            serial_socket: self.sockets.join("serial"),
            console_log: self.sockets.join("log"),
            paused: true,
            on_poweroff: OnPowerOff::Exit,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "a probe's directory can't be removed");
        }
    }
}

/// The group through which unprivileged QEMUs open `/dev/kvm`. Where no group may open it (there is no udev), the node is given to the group
/// `kvm`, else to `fallback_gid`, with the mode 0660 that udev's own rule has.
pub fn kvm_access_gid(fallback_gid: u32) -> Result<u32, KvmAccessError> {
    let node = fs::metadata(KVM_NODE).map_err(KvmAccessError::Missing)?;
    if node.gid() != 0 && node.mode() & 0o060 == 0o060 {
        return Ok(node.gid());
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let gid = gid_of("kvm", &groups).unwrap_or(fallback_gid);
    chown(KVM_NODE, None, Some(gid))
        .and_then(|()| fs::set_permissions(KVM_NODE, fs::Permissions::from_mode(0o660)))
        .map_err(KvmAccessError::Grant)?;
    Ok(gid)
}

fn gid_of(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_eight_sectors_and_bootable() {
        assert_eq!(GUEST.len(), 4096);
        assert_eq!(GUEST[510..512], [0x55, 0xaa]);
    }

    #[test]
    fn the_checked_in_guest_is_what_its_source_assembles_to() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/qemu/probe_guest.S");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (object, binary) = (dir.path().join("o"), dir.path().join("bin"));
        let run = |program: &str, args: &[&std::ffi::OsStr]| std::process::Command::new(program).args(args).status();
        match run("as", &["--64".as_ref(), source.as_ref(), "-o".as_ref(), object.as_ref()]) {
            Err(error) => return println!("not run: no assembler here ({error})"),
            Ok(status) => assert!(status.success()),
        }
        let mut link: Vec<&std::ffi::OsStr> =
            "-m elf_x86_64 -Ttext 0x7c00 -e _start --oformat binary".split(' ').map(std::ffi::OsStr::new).collect();
        link.extend([object.as_os_str(), "-o".as_ref(), binary.as_os_str()]);
        assert!(run("ld", &link).expect("ld comes with as").success());
        assert!(fs::read(binary).expect("linked") == GUEST, "probe_guest.bin is older than probe_guest.S");
    }

    #[test]
    fn lines_become_a_run() {
        let ms = Duration::from_millis;
        let mut lines = Lines::default();
        assert!(lines.push(b"SeaBIOS\x1b[2Jiaas-probe: re", ms(40)));
        assert!(lines.push(b"al\niaas-probe: long\niaas-probe: msr\niaas-probe: timer\n", ms(50)));
        assert!(lines.push(b"iaas-probe: user\n", ms(60)) && lines.push(b"iaas-probe: cpu\n", ms(80)));
        assert!(!lines.push(b"iaas-probe: kernel\n", ms(100)));
        let run = lines.into_run();
        assert_eq!((run.stage, run.loops_ms, run.failure), (Stage::Kernel, Some(40.0), None));
        assert_eq!(run.firmware_ms, Some(50.0));

        let mut lines = Lines::default();
        assert!(!lines.push(b"iaas-probe: real\niaas-probe: long\niaas-probe: trap\n", ms(1)));
        let run = lines.into_run();
        assert_eq!((run.stage, run.loops_ms), (Stage::Long, None));
        assert!(run.failure.is_some());
    }

    #[test]
    fn the_relevant_line_of_qemus_output_is_found() {
        let stderr = "2026-01-01T00:00:00Z qemu: warning: x\nqemu: error: failed to set MSR 0x10a\nAssertion";
        assert_eq!(first_error(stderr), "qemu: error: failed to set MSR 0x10a");
        assert_eq!(first_error(""), "QEMU ended without any output");
    }

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nkvm:x:106:a,b\n";
        assert_eq!((gid_of("kvm", groups), gid_of("kv", groups)), (Some(106), None));
    }
}
