//! How an entry looks on disk: a format of its own with a number, so that a refactoring of the agent's types changes no file, and
//! a file of another version is told from a damaged one. The golden texts below are the contract.

use super::entry::{Desired, DesiredImage, Done, Entry, Halt, HaltCause, Held, Nic, RootDisk, Running, Tombstone};
use crate::qemu::process::ProcessRef;
use agent_kit::Version;
use domain::{
    InstanceId, Timestamp,
    flavor::Size,
    image::{DiskFormat, ImageKind, ImagePart, ImagePartKind},
    instance::{InstanceSpec, OnCrash, OnHostLoss, Power},
    placement::PlacementConstraints,
};
use serde::{Deserialize, Serialize};

/// Of the files this agent writes. It reads no other.
pub const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("not JSON of the ledger's form")]
    Syntax(#[source] serde_json::Error),
    #[error("format {found}, of which this agent knows only {FORMAT}")]
    Format { found: u32 },
    #[error("`{field}` has the unknown value `{value}`")]
    Value { field: &'static str, value: String },
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    instance_id: InstanceId,
    epoch: i64,
    generation: i64,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Instance(Box<InstanceV1>),
    Tombstone(TombstoneV1),
}

#[derive(Serialize, Deserialize)]
struct TombstoneV1 {
    deleted_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct InstanceV1 {
    project_id: String,
    name: String,
    request_id: String,
    power: String,
    boot_seq: u64,
    boot_hard: bool,
    root_seq: u64,
    stop_timeout_secs: u32,
    on_crash: String,
    on_host_loss: String,
    vcpus: u32,
    memory_mib: u64,
    disk_gib: u64,
    flavor: String,
    zone: Option<String>,
    ssh_keys: Vec<String>,
    user_data_base64: String,
    deleted: bool,
    root_disk: Option<RootDiskV1>,
    image: ImageV1,
    // Not in the files of the first release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nics: Vec<NicV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numa_node: Option<u32>,
    done: DoneV1,
}

#[derive(Serialize, Deserialize)]
struct NicV1 {
    port_id: domain::PortId,
    epoch: i64,
    mac: domain::network::MacAddr,
}

#[derive(Serialize, Deserialize)]
struct RootDiskV1 {
    disk_id: domain::DiskId,
    size_gib: u64,
    epoch: i64,
}

#[derive(Serialize, Deserialize)]
struct ImageV1 {
    image_id: domain::ImageId,
    kind: String,
    format: String,
    cmdline: String,
    parts: Vec<PartV1>,
}

#[derive(Serialize, Deserialize)]
struct PartV1 {
    kind: String,
    sha256: String,
    size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct DoneV1 {
    process: Option<RunningV1>,
    boot_seq: u64,
    root_seq: u64,
    halt: Option<HaltV1>,
    crash_count: u32,
    quick_crashes: u32,
    started_at: Option<Timestamp>,
    guest_up_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nics: Vec<NicV1>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pins: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct RunningV1 {
    pid: i32,
    start_time_ticks: u64,
    boot_id: String,
    vcpus: u32,
    memory_mib: u64,
    disk_gib: u64,
    root_seq: u64,
    started_at: Timestamp,
    exec_ms: Option<i64>,
    console_offset: u64,
}

#[derive(Serialize, Deserialize)]
struct HaltV1 {
    cause: String,
    boot_seq: u64,
    epoch: i64,
    generation: i64,
    reason: String,
    at: Timestamp,
}

macro_rules! texts {
    ($write:ident, $read:ident, $field:literal, $ty:ty { $($variant:path => $text:literal),+ $(,)? }) => {
        fn $write(value: $ty) -> String {
            match value { $($variant => $text),+ }.to_owned()
        }
        fn $read(text: &str) -> Result<$ty, RecordError> {
            match text {
                $($text => Ok($variant),)+
                _ => Err(RecordError::Value { field: $field, value: text.to_owned() }),
            }
        }
    };
}

texts!(power_write, power_read, "power", Power { Power::On => "on", Power::Off => "off", Power::Paused => "paused" });
texts!(crash_write, crash_read, "on_crash", OnCrash { OnCrash::Restart => "restart", OnCrash::Stop => "stop" });
texts!(loss_write, loss_read, "on_host_loss", OnHostLoss {
    OnHostLoss::Wait => "wait", OnHostLoss::Restart => "restart", OnHostLoss::Recreate => "recreate",
});
texts!(cause_write, cause_read, "halt.cause", HaltCause {
    HaltCause::GuestPowerOff => "guest_power_off", HaltCause::Crash => "crash", HaltCause::CrashLoop => "crash_loop",
});

fn image_kind_read(text: &str) -> Result<ImageKind, RecordError> {
    ImageKind::parse(text).ok_or_else(|| RecordError::Value { field: "image.kind", value: text.to_owned() })
}

fn format_read(text: &str) -> Result<DiskFormat, RecordError> {
    DiskFormat::parse(text).ok_or_else(|| RecordError::Value { field: "image.format", value: text.to_owned() })
}

fn part_kind_read(text: &str) -> Result<ImagePartKind, RecordError> {
    ImagePartKind::parse(text).ok_or_else(|| RecordError::Value { field: "image.parts.kind", value: text.to_owned() })
}

/// The bytes of an entry's file.
#[must_use]
pub fn encode(held: &Held) -> Vec<u8> {
    let kind = match held {
        Held::Live(entry) => Kind::Instance(Box::new(instance_write(entry))),
        Held::Tombstone(tombstone) => Kind::Tombstone(TombstoneV1 { deleted_at: tombstone.deleted_at }),
    };
    let Version { epoch, generation } = held.version();
    let file = File { format: FORMAT, instance_id: held.instance_id(), epoch, generation, kind };
    let mut bytes = serde_json::to_vec_pretty(&file).expect("plain data with text keys is always JSON");
    bytes.push(b'\n');
    bytes
}

pub fn decode(bytes: &[u8]) -> Result<Held, RecordError> {
    // First the number: a newer format may be anything else.
    let head: Head = serde_json::from_slice(bytes).map_err(RecordError::Syntax)?;
    if head.format != FORMAT {
        return Err(RecordError::Format { found: head.format });
    }
    let file: File = serde_json::from_slice(bytes).map_err(RecordError::Syntax)?;
    let version = Version { epoch: file.epoch, generation: file.generation };
    Ok(match file.kind {
        Kind::Tombstone(t) => {
            Held::Tombstone(Tombstone { instance_id: file.instance_id, version, deleted_at: t.deleted_at })
        }
        Kind::Instance(instance) => Held::Live(instance_read(file.instance_id, version, *instance)?),
    })
}

fn instance_write(entry: &Entry) -> InstanceV1 {
    let Entry { desired, done } = entry;
    let spec = &desired.spec;
    InstanceV1 {
        project_id: desired.project_id.clone(),
        name: desired.name.clone(),
        request_id: desired.request_id.clone(),
        power: power_write(spec.power),
        boot_seq: spec.boot_seq,
        boot_hard: spec.boot_hard,
        root_seq: spec.root_seq,
        stop_timeout_secs: spec.stop_timeout_secs,
        on_crash: crash_write(spec.on_crash),
        on_host_loss: loss_write(spec.on_host_loss),
        vcpus: spec.size.vcpus,
        memory_mib: spec.size.memory_mib,
        disk_gib: spec.size.disk_gib,
        flavor: spec.flavor.clone(),
        zone: spec.zone.clone(),
        ssh_keys: spec.ssh_keys.clone(),
        user_data_base64: spec.user_data_base64.clone(),
        deleted: spec.deleted,
        root_disk: desired.root_disk.as_ref().map(|d| RootDiskV1 {
            disk_id: d.disk_id,
            size_gib: d.size_gib,
            epoch: d.epoch,
        }),
        image: ImageV1 {
            image_id: desired.image.image_id,
            kind: desired.image.kind.as_str().to_owned(),
            format: desired.image.format.as_str().to_owned(),
            cmdline: desired.image.cmdline.clone(),
            parts: desired.image.parts.iter().map(part_write).collect(),
        },
        nics: desired.nics.iter().map(nic_write).collect(),
        numa_node: desired.numa_node,
        done: DoneV1 {
            process: done.process.as_ref().map(running_write),
            boot_seq: done.boot_seq,
            root_seq: done.root_seq,
            halt: done.halt.as_ref().map(halt_write),
            crash_count: done.crash_count,
            quick_crashes: done.quick_crashes,
            started_at: done.started_at,
            guest_up_at: done.guest_up_at,
            nics: done.nics.iter().map(nic_write).collect(),
            pins: done.pins.clone(),
        },
    }
}

fn nic_write(nic: &Nic) -> NicV1 {
    NicV1 { port_id: nic.port_id, epoch: nic.epoch, mac: nic.mac }
}

fn nic_read(nic: &NicV1) -> Nic {
    Nic { port_id: nic.port_id, epoch: nic.epoch, mac: nic.mac }
}

fn part_write(part: &ImagePart) -> PartV1 {
    PartV1 { kind: part.kind.as_str().to_owned(), sha256: part.sha256.clone(), size_bytes: part.size_bytes }
}

fn running_write(running: &Running) -> RunningV1 {
    RunningV1 {
        pid: running.process.pid,
        start_time_ticks: running.process.start_time_ticks,
        boot_id: running.process.boot_id.clone(),
        vcpus: running.vcpus,
        memory_mib: running.memory_mib,
        disk_gib: running.disk_gib,
        root_seq: running.root_seq,
        started_at: running.started_at,
        exec_ms: running.exec_ms,
        console_offset: running.console_offset,
    }
}

fn halt_write(halt: &Halt) -> HaltV1 {
    HaltV1 {
        cause: cause_write(halt.cause),
        boot_seq: halt.boot_seq,
        epoch: halt.version.epoch,
        generation: halt.version.generation,
        reason: halt.reason.clone(),
        at: halt.at,
    }
}

fn instance_read(instance_id: InstanceId, version: Version, v1: InstanceV1) -> Result<Entry, RecordError> {
    let part_read = |part: PartV1| {
        Ok(ImagePart { kind: part_kind_read(&part.kind)?, sha256: part.sha256, size_bytes: part.size_bytes })
    };
    let desired = Desired {
        instance_id,
        project_id: v1.project_id,
        name: v1.name,
        version,
        spec: InstanceSpec {
            size: Size { vcpus: v1.vcpus, memory_mib: v1.memory_mib, disk_gib: v1.disk_gib },
            flavor: v1.flavor,
            image_id: v1.image.image_id,
            power: power_read(&v1.power)?,
            boot_seq: v1.boot_seq,
            boot_hard: v1.boot_hard,
            root_seq: v1.root_seq,
            stop_timeout_secs: v1.stop_timeout_secs,
            on_crash: crash_read(&v1.on_crash)?,
            on_host_loss: loss_read(&v1.on_host_loss)?,
            ssh_keys: v1.ssh_keys,
            user_data_base64: v1.user_data_base64,
            zone: v1.zone,
            // The scheduler's alone: a host does nothing about it.
            placement: PlacementConstraints::default(),
            nics: vec![],
            deleted: v1.deleted,
        },
        nics: v1.nics.iter().map(nic_read).collect(),
        numa_node: v1.numa_node,
        root_disk: v1.root_disk.map(|d| RootDisk { disk_id: d.disk_id, size_gib: d.size_gib, epoch: d.epoch }),
        image: DesiredImage {
            image_id: v1.image.image_id,
            kind: image_kind_read(&v1.image.kind)?,
            format: format_read(&v1.image.format)?,
            cmdline: v1.image.cmdline,
            parts: v1.image.parts.into_iter().map(part_read).collect::<Result<_, _>>()?,
        },
        request_id: v1.request_id,
    };
    let halt = match v1.done.halt {
        None => None,
        Some(h) => Some(Halt {
            cause: cause_read(&h.cause)?,
            boot_seq: h.boot_seq,
            version: Version { epoch: h.epoch, generation: h.generation },
            reason: h.reason,
            at: h.at,
        }),
    };
    let process = v1.done.process.map(|r| Running {
        process: ProcessRef { pid: r.pid, start_time_ticks: r.start_time_ticks, boot_id: r.boot_id },
        vcpus: r.vcpus,
        memory_mib: r.memory_mib,
        disk_gib: r.disk_gib,
        root_seq: r.root_seq,
        started_at: r.started_at,
        exec_ms: r.exec_ms,
        console_offset: r.console_offset,
    });
    let done = Done {
        process,
        boot_seq: v1.done.boot_seq,
        root_seq: v1.done.root_seq,
        halt,
        crash_count: v1.done.crash_count,
        quick_crashes: v1.done.quick_crashes,
        started_at: v1.done.started_at,
        guest_up_at: v1.done.guest_up_at,
        nics: v1.done.nics.iter().map(nic_read).collect(),
        pins: v1.done.pins,
    };
    Ok(Entry { desired, done })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An instance with every field set to something.
    pub(crate) fn full_entry() -> Entry {
        let id = |n: u8| uuid::Uuid::from_bytes([n; 16]);
        Entry {
            desired: Desired {
                instance_id: InstanceId(id(1)),
                project_id: id(2).to_string(),
                name: "web-1".into(),
                version: Version { epoch: 3, generation: 9 },
                spec: InstanceSpec {
                    size: Size { vcpus: 2, memory_mib: 512, disk_gib: 3 },
                    flavor: "small".into(),
                    image_id: domain::ImageId(id(3)),
                    power: Power::Paused,
                    boot_seq: 4,
                    boot_hard: true,
                    root_seq: 1,
                    stop_timeout_secs: 9,
                    on_crash: OnCrash::Stop,
                    on_host_loss: OnHostLoss::Recreate,
                    ssh_keys: vec!["ssh-ed25519 AAAA".into()],
                    user_data_base64: "aGk=".into(),
                    zone: Some("a".into()),
                    placement: PlacementConstraints::default(),
                    nics: vec![],
                    deleted: false,
                },
                nics: vec![Nic {
                    port_id: domain::PortId(id(5)),
                    epoch: 2,
                    mac: domain::network::MacAddr::local([1, 2, 3, 4, 5]),
                }],
                root_disk: Some(RootDisk { disk_id: domain::DiskId(id(4)), size_gib: 3, epoch: 3 }),
                image: DesiredImage {
                    image_id: domain::ImageId(id(3)),
                    kind: ImageKind::Kernel,
                    format: DiskFormat::Raw,
                    cmdline: "console=ttyS0".into(),
                    parts: vec![
                        ImagePart { kind: ImagePartKind::Kernel, sha256: "ab".repeat(32), size_bytes: 7 },
                        ImagePart { kind: ImagePartKind::Initrd, sha256: "cd".repeat(32), size_bytes: 8 },
                    ],
                },
                numa_node: Some(1),
                request_id: "req-1".into(),
            },
            done: Done {
                process: Some(Running {
                    process: ProcessRef { pid: 77, start_time_ticks: 1234, boot_id: "b".into() },
                    vcpus: 2,
                    memory_mib: 512,
                    disk_gib: 3,
                    root_seq: 1,
                    started_at: Timestamp(1_000),
                    exec_ms: Some(21),
                    console_offset: 99,
                }),
                boot_seq: 4,
                root_seq: 1,
                halt: Some(Halt {
                    cause: HaltCause::CrashLoop,
                    boot_seq: 4,
                    version: Version { epoch: 3, generation: 8 },
                    reason: "it broke".into(),
                    at: Timestamp(2_000),
                }),
                crash_count: 6,
                quick_crashes: 5,
                started_at: Some(Timestamp(1_000)),
                guest_up_at: Some(Timestamp(3_000)),
                nics: vec![Nic {
                    port_id: domain::PortId(id(6)),
                    epoch: 1,
                    mac: domain::network::MacAddr::local([1, 2, 3, 4, 6]),
                }],
                pins: vec![5, 4],
            },
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let live = Held::Live(full_entry());
        assert_eq!(decode(&encode(&live)).expect("read"), live);
        let tombstone = Held::Tombstone(Tombstone {
            instance_id: live.instance_id(),
            version: live.version(),
            deleted_at: Timestamp(5_000),
        });
        assert_eq!(decode(&encode(&tombstone)).expect("read"), tombstone);
    }

    /// A file of the first release, which knew no NICs and no pinning, must stay readable.
    #[test]
    fn a_file_without_nics_or_pins_is_read() {
        let mut entry = full_entry();
        (entry.desired.nics, entry.done.nics) = (vec![], vec![]);
        (entry.desired.numa_node, entry.done.pins) = (None, vec![]);
        let live = Held::Live(entry);
        let text = String::from_utf8(encode(&live)).expect("text");
        assert!(!text.contains("nics") && !text.contains("numa_node") && !text.contains("pins"));
        assert_eq!(decode(text.as_bytes()).expect("read"), live);
    }

    /// Files that were written must stay readable: nothing goes from this text, and what comes has a default, unless [`FORMAT`] changes.
    #[test]
    fn the_format_is_fixed() {
        insta::assert_snapshot!("ledger_v1", String::from_utf8(encode(&Held::Live(full_entry()))).expect("text"));
    }

    #[test]
    fn other_formats_and_damage_are_told_apart() {
        let text = String::from_utf8(encode(&Held::Live(full_entry()))).expect("text");
        let newer = text.replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(decode(newer.as_bytes()), Err(RecordError::Format { found: 2 })));
        assert!(matches!(decode(&text.as_bytes()[..text.len() / 2]), Err(RecordError::Syntax(_))));
        assert!(matches!(decode(b""), Err(RecordError::Syntax(_))));
        let odd = text.replace("\"paused\"", "\"floating\"");
        assert!(matches!(decode(odd.as_bytes()), Err(RecordError::Value { field: "power", .. })));
    }
}
