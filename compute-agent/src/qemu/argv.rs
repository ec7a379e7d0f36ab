//! Renders the QEMU command line as a pure function of the spec.
//!
//! Two instances with the same spec get the same machine, byte for byte: the golden files under `tests/golden` are the
//! contract, and what isn't written here isn't there (`-nodefaults`, `-no-user-config`). libvirt's XML in between was
//! rejected: it is a second daemon with a state of its own, and its translation is what has to be read in the end.
//!
//! Choices that aren't obvious:
//! - **Formats are never probed.** Every image, backing files included, is an explicit chain of blockdev nodes with its
//!   driver named; a qcow2 without a declared backing gets `"backing": null`, so that a header can't pull in a host file.
//! - **Guest disks bypass the page cache** (`cache.direct`), so that a crash of the host loses only what the guest
//!   hasn't flushed, and no late page reaches a disk that another host took over. Backing images are read through
//!   the page cache: they are immutable, and all instances of the host share them.
//! - **QEMU holds still when the guest ends** ([`OnPowerOff::Hold`], and after a panic or an expired watchdog always): `query-status` says
//!   `shutdown` or `guest-panicked` until the agent has read it. An agent that wasn't running at that moment can still read
//!   *why*, and an exit of QEMU always means that somebody killed it or that it broke.
//! - **`-sandbox` with everything denied** works because privileges are dropped before exec (see [`super::launch`]).
//! - Everything with a JSON form uses it, where a path needs no escaping; the rest doubles its commas.
//! - **NICs sit behind one PCI bridge**, because nothing on q35's root bus can be plugged or unplugged while the guest runs.
//!   A root port per NIC was rejected: sixteen of them are sixteen more devices for firmware and kernel to look at, also in
//!   instances without a NIC. The tap comes as an open file ([`nic_fd`]): QEMU needs no capability and enters no namespace.
//!   There is no vhost: its kernel thread would belong to the host, not to the instance's control group, and emulation gains nothing.
//! - PCI slots are assigned here, so that a device keeps its place in the guest when another one comes or goes.
//! - The watchdog is q35's own (Linux: iTCO_wdt): it costs no device, and nothing happens until the guest arms it.
//! - Under TCG the CPU is a *named* model with the features of x86-64-v3, minus what TCG lacks. `max` changes with each
//!   QEMU, and Debian's kernel took 5 % longer to boot on it; `qemu64` is as fast but lacks what today's distributions
//!   are built for.
//! - A pinned guest's memory comes from its node (`preferred`) as long as the node has any. `bind` was rejected: instances that aren't
//!   pinned take memory from every node, and where theirs is full the kernel would kill a guest rather than use the next node.
//! - HPET, SMM, vmport, SATA, SMBus and the keyboard controller are off: nothing of ours is attached to them, and
//!   firmware and kernel spend boot time on each (7 % together under TCG).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use domain::{image::DiskFormat, network::MacAddr};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

/// The longest path a unix socket can have, in bytes, without the terminating zero.
pub const SOCKET_PATH_MAX: usize = 107;
/// The longest serial number virtio-blk shows to a guest, in bytes.
pub const SERIAL_MAX: usize = 20;
/// How many disks one instance can have, the config drive not counted: they get the PCI slots 0x08 to 0x1c.
pub const DISKS_MAX: usize = 21;

/// How many NICs one instance can have: they get the slots 1 to 16 of their bridge.
pub const NICS_MAX: usize = domain::limits::NICS_PER_INSTANCE;
/// The file descriptor of the first NIC's tap. Whoever opens files before has far fewer open.
const NIC_FD_FIRST: u32 = 100;
/// The id of the PCI bridge that NICs are plugged into.
const NIC_BUS: &str = "nics";

/// The `tb-size` for `-accel tcg`, in MiB; [`super::overhead`] says why.
pub const TCG_TB_SIZE_MIB: u64 = 128;

/// A CPU with x86-64-v3, without the features that TCG would warn about, and without nested virtualization.
pub const TCG_CPU: &str =
    "EPYC-v1,fxsr-opt=off,misalignsse=off,osvw=off,topoext=off,nrip-save=off,xsavec=off,svm=off,monitor=off";

/// The vendor that this CPU reports.
pub const TCG_CPU_VENDOR: &str = "AuthenticAMD";

/// What one QEMU process must be. Everything on its command line follows from this.
#[derive(Debug, Clone, PartialEq)]
pub struct VmSpec {
    /// The instance's id; the guest sees it as SMBIOS system UUID.
    pub uuid: Uuid,
    /// The name that `ps` and QEMU's messages show; any text.
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// The host's node that the guest's memory comes from; `None` leaves it to the kernel.
    pub numa_node: Option<u32>,
    pub boot: Boot,
    pub disks: Vec<VmDisk>,
    pub nics: Vec<VmNic>,
    /// A NoCloud ISO, attached read-only as the last virtio disk.
    pub config_drive: Option<PathBuf>,
    pub accel: Accel,
    /// Unix sockets that QEMU listens on, and the file it appends the serial console to. QEMU creates all three, so
    /// their directory belongs to its uid.
    pub qmp_socket: PathBuf,
    pub serial_socket: PathBuf,
    pub console_log: PathBuf,
    /// Whether QEMU starts with the vCPUs stopped, until QMP `cont`.
    pub paused: bool,
    pub on_poweroff: OnPowerOff,
}

/// What QEMU does when the guest has powered itself off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPowerOff {
    /// QEMU stays, with the status `shutdown`, until QMP `quit`.
    Hold,
    /// The process ends.
    Exit,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Boot {
    /// SeaBIOS, or OVMF where given, boots from the disk with the lowest `boot_index`.
    Disk { ovmf: Option<Ovmf> },
    /// QEMU boots a Linux kernel directly, without firmware in between.
    Kernel { kernel: PathBuf, initrd: Option<PathBuf>, cmdline: String },
}

/// UEFI firmware: the code, shared and read-only, and this instance's own copy of the variable store; both raw.
#[derive(Debug, Clone, PartialEq)]
pub struct Ovmf {
    pub code: PathBuf,
    pub vars: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VmDisk {
    /// The id, after which the block nodes ([`block_node`]) and the device ([`disk_device`]) are named in QMP.
    pub disk_id: Uuid,
    pub path: PathBuf,
    pub format: DiskFormat,
    /// The image that a qcow2 overlay lies on. It must be given for every qcow2 whose header names a backing file.
    pub backing: Option<DiskBacking>,
    pub read_only: bool,
    /// What the guest sees below `/dev/disk/by-id/virtio-…`; at most [`SERIAL_MAX`] bytes.
    pub serial: String,
    pub boot_index: Option<u32>,
    /// Whether the disk bypasses the page cache (O_DIRECT). False only where the file system can't do it.
    pub direct: bool,
}

/// A NIC of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmNic {
    /// The port's id, after which the device ([`nic_device`]) and its back end ([`nic_netdev`]) are named in QMP.
    pub port_id: Uuid,
    /// The slot on the bridge, 1 to [`NICS_MAX`]; guests name NICs in the order of slots.
    pub slot: u8,
    pub mac: MacAddr,
    /// The MTU that the guest is told to use.
    pub mtu: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DiskBacking {
    pub path: PathBuf,
    pub format: DiskFormat,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// Hardware virtualization, with the host's CPU model and these changes to it (`arch-capabilities=off`).
    Kvm { cpu_flags: Vec<String> },
    /// Emulation; `multi_threaded` gives each vCPU a thread, which is right wherever the host's memory model is at
    /// least as strong as the guest's. Known limitation: with several vCPUs QEMU 10.0 was seen to abort once in some 75
    /// boots (`iotlb_to_section: Assertion …`, a race of its memory map with running vCPUs); `on_crash` covers it.
    Tcg { multi_threaded: bool },
}

impl Accel {
    pub const TCG: Self = Self::Tcg { multi_threaded: true };

    /// Without the features by which a guest runs virtual machines itself: its hypervisor would reach the code of the host's kernel that the
    /// most escapes were found in. An emulated CPU has none of them.
    #[must_use]
    pub fn without_nesting(self) -> Self {
        match self {
            Self::Kvm { mut cpu_flags } => {
                cpu_flags.extend(["vmx=off", "svm=off"].map(str::to_owned));
                Self::Kvm { cpu_flags }
            }
            Self::Tcg { multi_threaded } => Self::Tcg { multi_threaded },
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm { .. } => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }
}

/// Why a spec can't be expressed by a command line. All of these are the caller's mistakes, none the guest's.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    #[error("{what} must be at least 1")]
    Zero { what: &'static str },
    #[error(
        "the socket path {path} has {len} bytes, and the kernel allows {SOCKET_PATH_MAX}: choose a shorter run directory"
    )]
    SocketPathTooLong { path: PathBuf, len: usize },
    #[error("the path {path:?} is not absolute UTF-8 without control characters")]
    Path { path: PathBuf },
    #[error("the disk serial {serial:?} is empty, longer than {SERIAL_MAX} bytes or not plain ASCII")]
    Serial { serial: String },
    #[error("an instance can have {DISKS_MAX} disks, and {count} are given")]
    TooManyDisks { count: usize },
    #[error("the disk {disk_id} is raw and can't have a backing image")]
    RawWithBacking { disk_id: Uuid },
    #[error("two NICs are in slot {slot}, or it isn't one of the {NICS_MAX} slots")]
    NicSlot { slot: u8 },
    #[error("booting from disk needs a disk with a boot index")]
    NothingToBoot,
}

impl VmSpec {
    /// Checks what [`render_argv`] assumes.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.vcpus == 0 {
            return Err(SpecError::Zero { what: "vcpus" });
        }
        if self.memory_mib == 0 {
            return Err(SpecError::Zero { what: "memory_mib" });
        }
        for socket in [&self.qmp_socket, &self.serial_socket] {
            let len = socket.as_os_str().len();
            if len > SOCKET_PATH_MAX {
                return Err(SpecError::SocketPathTooLong { path: socket.clone(), len });
            }
        }
        if self.disks.len() > DISKS_MAX {
            return Err(SpecError::TooManyDisks { count: self.disks.len() });
        }
        for disk in &self.disks {
            if disk.format == DiskFormat::Raw && disk.backing.is_some() {
                return Err(SpecError::RawWithBacking { disk_id: disk.disk_id });
            }
            let plain = disk.serial.bytes().all(|b| b.is_ascii_graphic());
            if disk.serial.is_empty() || disk.serial.len() > SERIAL_MAX || !plain {
                return Err(SpecError::Serial { serial: disk.serial.clone() });
            }
        }
        for (index, nic) in self.nics.iter().enumerate() {
            let taken = self.nics[..index].iter().any(|other| other.slot == nic.slot);
            if taken || !(1..=NICS_MAX).contains(&usize::from(nic.slot)) {
                return Err(SpecError::NicSlot { slot: nic.slot });
            }
        }
        if matches!(self.boot, Boot::Disk { .. }) && self.disks.iter().all(|d| d.boot_index.is_none()) {
            return Err(SpecError::NothingToBoot);
        }
        match self.paths().find(|path| !printable_absolute(path)) {
            Some(path) => Err(SpecError::Path { path: path.to_path_buf() }),
            None => Ok(()),
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let boot: Vec<&Path> = match &self.boot {
            Boot::Disk { ovmf: None } => vec![],
            Boot::Disk { ovmf: Some(ovmf) } => vec![&ovmf.code, &ovmf.vars],
            Boot::Kernel { kernel, initrd, .. } => {
                std::iter::once(kernel).chain(initrd).map(PathBuf::as_path).collect()
            }
        };
        let disks = self.disks.iter().flat_map(|d| {
            std::iter::once(d.path.as_path()).chain(d.backing.iter().map(|backing| backing.path.as_path()))
        });
        [&self.qmp_socket, &self.serial_socket, &self.console_log]
            .into_iter()
            .chain(&self.config_drive)
            .map(PathBuf::as_path)
            .chain(boot)
            .chain(disks)
    }
}

fn printable_absolute(path: &Path) -> bool {
    path.is_absolute() && path.to_str().is_some_and(|text| !text.chars().any(char::is_control))
}

/// The name of a disk's top block node, for commands such as `block_resize`. QEMU takes at most 31 characters, so the id's
/// first eight digits are left out: the coarse part of its time.
pub fn block_node(disk_id: Uuid) -> String {
    format!("disk-{}", &disk_id.simple().to_string()[8..])
}

/// The name of a disk's device, for `device_del`.
pub fn disk_device(disk_id: Uuid) -> String {
    format!("vd-{disk_id}")
}

/// The name of a NIC's device. It contains the slot, so QEMU's list of device names is all that has to be queried.
#[must_use]
pub fn nic_device(slot: u8, port_id: Uuid) -> String {
    format!("nic{slot}-{port_id}")
}

/// The slot and the port in a device's name, if the device is a NIC.
#[must_use]
pub fn nic_of_device(name: &str) -> Option<(u8, Uuid)> {
    let (slot, port_id) = name.strip_prefix("nic")?.split_once('-')?;
    Some((slot.parse().ok()?, port_id.parse().ok()?))
}

/// The name of a NIC's back end.
#[must_use]
pub fn nic_netdev(port_id: Uuid) -> String {
    format!("net-{port_id}")
}

/// The file descriptor under which QEMU finds a NIC's tap at its start.
#[must_use]
pub fn nic_fd(slot: u8) -> u32 {
    NIC_FD_FIRST + u32::from(slot)
}

/// The options of a NIC's back end. `fd` is a number at the start, and later a name that `getfd` was given.
#[must_use]
pub fn nic_netdev_options(port_id: Uuid, fd: &str) -> Value {
    json!({"type": "tap", "id": nic_netdev(port_id), "fd": fd, "vhost": false})
}

/// The options of a NIC's device, the same at the start and when it is plugged in later. It has no boot ROM, because nothing boots from a
/// network here and firmware would spend time on it.
#[must_use]
pub fn nic_device_options(nic: &VmNic) -> Value {
    json!({
        "driver": "virtio-net-pci", "id": nic_device(nic.slot, nic.port_id), "netdev": nic_netdev(nic.port_id),
        "mac": nic.mac.to_string(), "host_mtu": nic.mtu, "bus": NIC_BUS, "addr": format!("{:#x}", nic.slot),
        "romfile": "", "disable-legacy": "on",
    })
}

/// The arguments of `qemu-system-x86_64`. The spec must have passed [`VmSpec::check`].
pub fn render_argv(spec: &VmSpec) -> Vec<OsString> {
    let mut argv = Argv::default();
    argv.flag("-nodefaults");
    argv.flag("-no-user-config");
    argv.opt("-name", format!("guest={},debug-threads=on", escape(&spec.name)));
    argv.opt("-uuid", spec.uuid.to_string());
    argv.opt("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    argv.opt("-msg", "timestamp=on");
    machine(&mut argv, spec);
    monitor_and_console(&mut argv, spec);
    argv.json("-object", json!({"qom-type": "rng-builtin", "id": "rng0"}));
    argv.json(
        "-device",
        json!({"driver": "virtio-rng-pci", "rng": "rng0", "id": "rng", "bus": "pcie.0", "addr": "0x2"}),
    );
    argv.json("-device", json!({"driver": "pvpanic", "id": "panic"}));
    argv.json("-device", json!({"driver": "pcie-pci-bridge", "id": NIC_BUS, "bus": "pcie.0", "addr": "0x3"}));
    boot(&mut argv, spec);
    disks(&mut argv, spec);
    for nic in &spec.nics {
        argv.json("-netdev", nic_netdev_options(nic.port_id, &nic_fd(nic.slot).to_string()));
        argv.json("-device", nic_device_options(nic));
    }
    if spec.paused {
        argv.flag("-S");
    }
    argv.0
}

fn machine(argv: &mut Argv, spec: &VmSpec) {
    let pflash = match &spec.boot {
        Boot::Disk { ovmf: Some(_) } => ",pflash0=ovmf-code,pflash1=ovmf-vars",
        Boot::Disk { ovmf: None } | Boot::Kernel { .. } => "",
    };
    argv.opt(
        "-machine",
        format!(
            "q35,memory-backend=ram,mem-merge=off,dump-guest-core=off,smm=off,vmport=off,hpet=off,sata=off,smbus=off,\
             i8042=off{pflash}"
        ),
    );
    match &spec.accel {
        Accel::Kvm { cpu_flags } => {
            argv.opt("-accel", "kvm");
            let flags: String = cpu_flags.iter().flat_map(|flag| [",", flag]).collect();
            argv.opt("-cpu", format!("host{flags}"));
            argv.opt("-rtc", "base=utc,driftfix=slew");
        }
        Accel::Tcg { multi_threaded } => {
            let thread = if *multi_threaded { "multi" } else { "single" };
            argv.opt("-accel", format!("tcg,thread={thread},tb-size={TCG_TB_SIZE_MIB}"));
            argv.opt("-cpu", TCG_CPU);
            argv.opt("-rtc", "base=utc");
        }
    }
    argv.opt("-smp", format!("cpus={n},sockets=1,cores={n},threads=1", n = spec.vcpus));
    argv.opt("-m", format!("size={}M", spec.memory_mib));
    let size = spec.memory_mib << 20;
    let mut ram = json!({
        "qom-type": "memory-backend-ram", "id": "ram", "size": size, "merge": false, "dump": false, "share": false, "prealloc": false,
    });
    if let Some(node) = spec.numa_node {
        (ram["host-nodes"], ram["policy"]) = (json!([node]), json!("preferred"));
    }
    argv.json("-object", ram);
    argv.opt("-smbios", format!("type=1,manufacturer=iaas,product=instance,serial={0},uuid={0}", spec.uuid));
    argv.opt("-display", "none");
    argv.opt("-vga", "none");
    argv.opt("-boot", "strict=on");
    let shutdown = match spec.on_poweroff {
        OnPowerOff::Hold => "pause",
        OnPowerOff::Exit => "poweroff",
    };
    argv.opt("-global", "ICH9-LPC.noreboot=off");
    argv.opt("-action", format!("reboot=reset,shutdown={shutdown},panic=pause,watchdog=pause"));
}

fn monitor_and_console(argv: &mut Argv, spec: &VmSpec) {
    argv.opt("-chardev", format!("socket,id=qmp,path={},server=on,wait=off", escape_path(&spec.qmp_socket)));
    argv.opt("-mon", "chardev=qmp,mode=control");
    argv.opt(
        "-chardev",
        format!(
            "socket,id=serial,path={},server=on,wait=off,logfile={},logappend=on",
            escape_path(&spec.serial_socket),
            escape_path(&spec.console_log)
        ),
    );
    argv.json("-device", json!({"driver": "isa-serial", "chardev": "serial", "id": "serial0"}));
}

fn boot(argv: &mut Argv, spec: &VmSpec) {
    match &spec.boot {
        Boot::Disk { ovmf: None } => {}
        Boot::Disk { ovmf: Some(ovmf) } => {
            let node = |name: &str, path: &Path, read_only: bool| {
                json!({"driver": "raw", "node-name": name, "read-only": read_only,
                    "file": {"driver": "file", "filename": path, "read-only": read_only}})
            };
            argv.json("-blockdev", node("ovmf-code", &ovmf.code, true));
            argv.json("-blockdev", node("ovmf-vars", &ovmf.vars, false));
        }
        Boot::Kernel { kernel, initrd, cmdline } => {
            argv.opt("-kernel", kernel.as_os_str());
            if let Some(initrd) = initrd {
                argv.opt("-initrd", initrd.as_os_str());
            }
            argv.opt("-append", cmdline);
        }
    }
}

fn disks(argv: &mut Argv, spec: &VmSpec) {
    if !spec.disks.is_empty() {
        argv.json("-object", json!({"qom-type": "iothread", "id": "io0"}));
    }
    for (index, disk) in spec.disks.iter().enumerate() {
        let node = block_node(disk.disk_id);
        let backing = disk.backing.as_ref().map(|backing| {
            let name = format!("{node}b");
            argv.json("-blockdev", backing_node(&name, backing));
            name
        });
        argv.json("-blockdev", disk_node(&node, disk, backing));
        let mut device = json!({
            "driver": "virtio-blk-pci", "id": disk_device(disk.disk_id), "drive": node, "serial": disk.serial,
            "iothread": "io0", "bus": "pcie.0", "addr": format!("{:#x}", 8 + index),
            "werror": "enospc", "rerror": "report",
        });
        // The kernel's direct boot comes first; an index in addition would only make SeaBIOS try twice.
        if let (Some(boot_index), Boot::Disk { .. }) = (disk.boot_index, &spec.boot) {
            device["bootindex"] = json!(boot_index);
        }
        argv.json("-device", device);
    }
    // The config drive is in the last slot, because guests name disks in the order of slots, and the root disk must be /dev/vda.
    if let Some(path) = &spec.config_drive {
        argv.json(
            "-blockdev",
            json!({"driver": "raw", "node-name": "config-drive", "read-only": true,
                "file": {"driver": "file", "filename": path, "read-only": true}}),
        );
        argv.json(
            "-device",
            json!({"driver": "virtio-blk-pci", "id": "config", "drive": "config-drive", "serial": "config-drive",
                "bus": "pcie.0", "addr": "0x1d"}),
        );
    }
}

fn disk_node(node: &str, disk: &VmDisk, backing: Option<String>) -> Value {
    let cache = json!({"direct": disk.direct, "no-flush": false});
    let aio = if disk.direct { "native" } else { "threads" };
    let mut top = json!({
        "driver": disk.format.as_str(), "node-name": node, "read-only": disk.read_only, "discard": "unmap",
        "cache": cache.clone(),
        "file": {"driver": "file", "node-name": format!("{node}f"), "filename": disk.path, "read-only": disk.read_only,
            "discard": "unmap", "locking": "on", "aio": aio, "cache": cache},
    });
    if disk.format == DiskFormat::Qcow2 {
        top["backing"] = backing.map_or(Value::Null, Value::String);
    }
    top
}

fn backing_node(name: &str, backing: &DiskBacking) -> Value {
    let mut node = json!({
        "driver": backing.format.as_str(), "node-name": name, "read-only": true,
        "file": {"driver": "file", "node-name": format!("{name}f"), "filename": backing.path, "read-only": true,
            "aio": "threads"},
    });
    if backing.format == DiskFormat::Qcow2 {
        node["backing"] = Value::Null;
    }
    node
}

/// QEMU's option lists end a value at a comma, so a comma in a value is doubled.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

fn escape_path(path: &Path) -> String {
    escape(path.to_str().unwrap_or_default())
}

/// JSON with sorted keys, even if some crate of the build makes `serde_json` keep the order of insertion.
fn sorted_json(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let body: Vec<String> =
                entries.into_iter().map(|(key, value)| format!("{}:{}", json!(key), sorted_json(value))).collect();
            format!("{{{}}}", body.join(","))
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[derive(Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn opt(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn json(&mut self, option: &str, value: Value) {
        self.opt(option, sorted_json(&value));
    }
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
