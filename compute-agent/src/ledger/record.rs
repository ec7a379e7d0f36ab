//! How an entry looks on disk: the ledger's types as JSON, with the number of the format, so that a file of another format is told from
//! a damaged one. The golden text below is the contract: it shows when a change of a type changes the files.

use super::entry::Held;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The format of the files that this agent writes. It reads no other.
pub const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("it isn't JSON of the ledger's form")]
    Syntax(#[source] serde_json::Error),
    #[error("it has format {found}, and this agent knows only {FORMAT}")]
    Format { found: u32 },
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct File<'a> {
    format: u32,
    #[serde(flatten)]
    held: Cow<'a, Held>,
}

/// The bytes of an entry's file.
#[must_use]
pub fn encode(held: &Held) -> Vec<u8> {
    let file = File { format: FORMAT, held: Cow::Borrowed(held) };
    let mut bytes = serde_json::to_vec_pretty(&file).expect("plain data with text keys is always JSON");
    bytes.push(b'\n');
    bytes
}

pub fn decode(bytes: &[u8]) -> Result<Held, RecordError> {
    // The number is read first, because another format may be anything else.
    let head: Head = serde_json::from_slice(bytes).map_err(RecordError::Syntax)?;
    if head.format != FORMAT {
        return Err(RecordError::Format { found: head.format });
    }
    let file: File<'_> = serde_json::from_slice(bytes).map_err(RecordError::Syntax)?;
    Ok(file.held.into_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        ledger::{
            Desired, DesiredImage, Disk, DiskFile, Done, Entry, Halt, HaltCause, Launched, Nic, Running, Tombstone,
            Version,
        },
        qemu::process::ProcessRef,
    };
    use domain::{
        InstanceId, PortId, Timestamp,
        flavor::Size,
        image::{DiskFormat, ImageKind, ImagePart, ImagePartKind},
        instance::{InstanceSpec, OnCrash, Power},
        network::MacAddr,
        testing,
    };

    /// An instance whose fields are all set to something.
    pub(crate) fn full_entry() -> Entry {
        let id = |n: u8| uuid::Uuid::from_bytes([n; 16]);
        let nic = |n, epoch| Nic { port_id: PortId(id(n)), epoch, mac: MacAddr::local([1, 2, 3, 4, n]) };
        let version = Version { epoch: 3, generation: 9 };
        let spec = InstanceSpec {
            size: Size { vcpus: 2, memory_mib: 512, disk_gib: 3 },
            image_id: domain::ImageId(id(3)),
            power: Power::Paused,
            boot_seq: 4,
            boot_hard: true,
            root_seq: 1,
            stop_timeout_secs: 9,
            on_crash: OnCrash::Stop,
            ssh_keys: vec!["ssh-ed25519 AAAA".into()],
            user_data_base64: "aGk=".into(),
            zone: Some("a".into()),
            ..testing::spec()
        };
        let part = |kind, sum: &str, size_bytes| ImagePart { kind, sha256: sum.repeat(32), size_bytes };
        let launched = Launched {
            version,
            boot_seq: 4,
            root_seq: 1,
            size: spec.size,
            console_offset: 99,
            started_at: Timestamp(1_000),
            disks: vec![DiskFile { role: "root".into(), seq: 1 }],
        };
        Entry {
            desired: Desired {
                instance_id: InstanceId(id(1)),
                project_id: id(2).to_string(),
                name: "web-1".into(),
                version,
                nics: vec![nic(5, 2)],
                disks: vec![Disk {
                    disk_id: domain::DiskId(id(4)),
                    role: "root".into(),
                    size_gib: 3,
                    epoch: 3,
                    used_seq: Some(1),
                }],
                image: DesiredImage {
                    image_id: spec.image_id,
                    kind: ImageKind::Kernel,
                    format: DiskFormat::Raw,
                    cmdline: "console=ttyS0".into(),
                    parts: vec![part(ImagePartKind::Kernel, "ab", 7), part(ImagePartKind::Initrd, "cd", 8)],
                },
                spec,
                numa_node: Some(1),
                request_id: "req-1".into(),
                digest: 0,
                erase_shared: false,
            },
            done: Done {
                process: Some(Running {
                    process: ProcessRef { pid: 77, start_time_ticks: 1234, boot_id: "b".into() },
                    launched,
                    exec_ms: Some(21),
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
                nics: vec![nic(6, 1)],
                used_disks: vec![DiskFile { role: "root".into(), seq: 1 }],
                pins: vec![5, 4],
            },
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let live = Held::Live(full_entry());
        assert_eq!(decode(&encode(&live)).expect("read"), live);
        let (instance_id, version) = (live.instance_id(), live.version());
        let tombstone = Held::Tombstone(Tombstone { instance_id, version, deleted_at: Timestamp(5_000) });
        assert_eq!(decode(&encode(&tombstone)).expect("read"), tombstone);
    }

    /// Written files must stay readable: nothing may be removed from this text, and what is added needs a default, unless [`FORMAT`]
    /// changes.
    #[test]
    fn the_format_is_fixed() {
        insta::assert_snapshot!("ledger_v1", String::from_utf8(encode(&Held::Live(full_entry()))).expect("text"));
    }

    #[test]
    fn other_formats_and_damage_are_told_apart() {
        let text = String::from_utf8(encode(&Held::Live(full_entry()))).expect("text");
        let newer = text.replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(decode(newer.as_bytes()), Err(RecordError::Format { found: 2 })));
        let odd = text.replace("\"paused\"", "\"floating\"");
        for damaged in [&text.as_bytes()[..text.len() / 2], b"", odd.as_bytes()] {
            assert!(matches!(decode(damaged), Err(RecordError::Syntax(_))));
        }
    }
}
