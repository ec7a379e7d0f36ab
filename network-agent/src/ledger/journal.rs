//! The ledger's file: lines of JSON, a batch at a time, each batch closed by a line that says how many they are and what they sum
//! to. A batch that isn't closed, or doesn't sum up, was never promised to anybody, and ends the reading.
//!
//! A file per object was rejected here, although the compute-agent does it: a host has ten instances, but a network brings the
//! addresses of all its ports everywhere, and a snapshot of thousands of files costs a second of syncs where this costs one. What
//! the file holds can still be read with any tool; what the manager said is in it as it said it (the wire message, which only ever
//! gains fields).

use agent_kit::HostRecord;
use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use proto::sync::v1::DesiredObject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub const NAME: &str = "network.journal";
const FORMAT: u32 = 1;

/// One object as it is held: the manager's message, and under which epoch its instance has acquired it (0: it hasn't).
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub desired: DesiredObject,
    pub acquired_epoch: i64,
}

#[derive(Serialize, Deserialize)]
struct LineV1 {
    kind: String,
    id: String,
    epoch: i64,
    generation: i64,
    deleted: bool,
    acquired_epoch: i64,
    message: String,
}

#[derive(Serialize, Deserialize)]
struct CommitV1 {
    commit: u32,
    lines: usize,
    sum: String,
    #[serde(flatten)]
    host: HostRecord,
}

#[must_use]
pub fn encode(records: &[Record], host: HostRecord) -> Vec<u8> {
    let mut out = Vec::new();
    for Record { desired, acquired_epoch } in records {
        let line = LineV1 {
            kind: desired.kind().as_str_name().trim_start_matches("OBJECT_KIND_").to_ascii_lowercase(),
            id: desired.id.clone(),
            epoch: desired.epoch,
            generation: desired.generation,
            deleted: desired.deleted,
            acquired_epoch: *acquired_epoch,
            message: STANDARD.encode(desired.encode_to_vec()),
        };
        serde_json::to_writer(&mut out, &line).expect("plain data is always JSON");
        out.push(b'\n');
    }
    let sum = sum(&out);
    let commit = CommitV1 { commit: FORMAT, lines: records.len(), sum, host };
    serde_json::to_writer(&mut out, &commit).expect("plain data is always JSON");
    out.push(b'\n');
    out
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

/// The closed batches of a file, in order, and how many bytes they are.
pub fn decode(bytes: &[u8], mut each: impl FnMut(Record)) -> (Option<HostRecord>, usize) {
    let (mut host, mut good, mut at, mut lines) = (None, 0, 0, Vec::new());
    while let Some(length) = bytes[at..].iter().position(|b| *b == b'\n') {
        let line = &bytes[at..at + length];
        if let Ok(commit) = serde_json::from_slice::<CommitV1>(line) {
            if commit.commit != FORMAT || commit.lines != lines.len() || commit.sum != sum(&bytes[good..at]) {
                break;
            }
            lines.drain(..).for_each(&mut each);
            host = Some(commit.host);
            good = at + length + 1;
        } else {
            let Some(record) = decode_line(line) else { break };
            lines.push(record);
        }
        at += length + 1;
    }
    (host, good)
}

fn decode_line(line: &[u8]) -> Option<Record> {
    let line: LineV1 = serde_json::from_slice(line).ok()?;
    let message = STANDARD.decode(line.message).ok()?;
    Some(Record { desired: DesiredObject::decode(message.as_slice()).ok()?, acquired_epoch: line.acquired_epoch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::HostId;

    fn record(generation: i64) -> Record {
        let desired = DesiredObject {
            id: domain::PortId::new().to_string(),
            kind: proto::sync::v1::ObjectKind::Port.into(),
            epoch: 1,
            generation,
            ..Default::default()
        };
        Record { desired, acquired_epoch: 0 }
    }

    #[test]
    fn whatever_a_crash_leaves_reads_as_whole_batches() {
        let host = |revision| HostRecord { host_id: HostId::new(), start: 1, revision };
        let (one, two) = (encode(&[record(1), record(2)], host(1)), encode(&[record(3)], host(2)));
        let all = [one.clone(), two].concat();
        for cut in 0..=all.len() {
            let mut count = 0;
            let (host, good) = decode(&all[..cut], |_| count += 1);
            let expected = if cut == all.len() {
                (3, 2)
            } else if cut >= one.len() {
                (2, 1)
            } else {
                (0, 0)
            };
            assert_eq!((count, host.map_or(0, |h| h.revision)), expected, "cut at {cut}");
            assert!(good <= cut);
        }
        let mut damaged = all.clone();
        damaged[one.len() + 20] ^= 1;
        assert_eq!(decode(&damaged, |_| {}).1, one.len());
    }
}
