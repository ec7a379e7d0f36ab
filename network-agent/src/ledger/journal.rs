//! The ledger's file: lines of JSON, each with its own checksum, a batch at a time, each batch closed by a line that says how many they are.
//! A batch at the end that isn't closed was never promised to anybody, and isn't read.
//!
//! A line whose checksum is wrong loses its record alone: all others are read, and what is lost is asked for again from the manager. (A checksum of
//! the whole batch was rejected: after a start the file is one batch, so one flipped byte lost everything.) Whose host this is stands in
//! the file more than once for the same reason.
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
const FORMAT: u32 = 2;

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
        push(&mut out, &line);
    }
    push(&mut out, &CommitV1 { commit: FORMAT, lines: records.len(), host });
    out
}

/// A whole file: who the host is stands at both of its ends.
#[must_use]
pub fn encode_file(records: &[Record], host: HostRecord) -> Vec<u8> {
    [encode(&[], host), encode(records, host)].concat()
}

/// A line: JSON, a space, its checksum.
fn push(out: &mut Vec<u8>, line: &impl Serialize) {
    let at = out.len();
    serde_json::to_writer(&mut *out, line).expect("plain data is always JSON");
    let sum = sum(&out[at..]);
    out.push(b' ');
    out.extend(sum.as_bytes());
    out.push(b'\n');
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

/// What a file says besides its records.
#[derive(Debug, Default)]
pub struct Decoded {
    pub host: Option<HostRecord>,
    /// The bytes up to the end of the last closed batch.
    pub closed: usize,
    /// How many lines are damaged.
    pub damaged: usize,
}

enum Line {
    Record(Record),
    Commit(CommitV1),
    Damaged,
}

/// The records of a file, in order.
pub fn decode(bytes: &[u8], mut each: impl FnMut(Record)) -> Decoded {
    let (mut decoded, mut at, mut open) = (Decoded::default(), 0, Vec::new());
    let mut damaged_since = false;
    while let Some(length) = bytes[at..].iter().position(|b| *b == b'\n') {
        match decode_line(&bytes[at..at + length]) {
            Line::Record(record) => open.push(record),
            Line::Commit(commit) => {
                open.drain(..).for_each(&mut each);
                (decoded.host, decoded.closed, damaged_since) = (Some(commit.host), at + length + 1, false);
            }
            Line::Damaged => (decoded.damaged, damaged_since) = (decoded.damaged + 1, true),
        }
        at += length + 1;
    }
    // The damaged line may be the one that closed them. What was never promised does no harm: the manager sends it again.
    if damaged_since {
        open.into_iter().for_each(each);
    }
    decoded
}

fn decode_line(line: &[u8]) -> Line {
    let whole = line.len().checked_sub(SUM_BYTES + 1).and_then(|end| {
        let (json, rest) = line.split_at(end);
        (rest[0] == b' ' && sum(json).as_bytes() == &rest[1..]).then_some(json)
    });
    let Some(json) = whole else { return Line::Damaged };
    if let Ok(commit) = serde_json::from_slice::<CommitV1>(json) {
        return if commit.commit == FORMAT { Line::Commit(commit) } else { Line::Damaged };
    }
    let record = || {
        let line: LineV1 = serde_json::from_slice(json).ok()?;
        let message = STANDARD.decode(line.message).ok()?;
        Some(Record { desired: DesiredObject::decode(message.as_slice()).ok()?, acquired_epoch: line.acquired_epoch })
    };
    record().map_or(Line::Damaged, Line::Record)
}

/// The length of a checksum in text.
const SUM_BYTES: usize = 16;

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
            let Decoded { host, closed, damaged } = decode(&all[..cut], |_| count += 1);
            let expected = if cut == all.len() {
                (3, 2)
            } else if cut >= one.len() {
                (2, 1)
            } else {
                (0, 0)
            };
            assert_eq!((count, host.map_or(0, |h| h.revision)), expected, "cut at {cut}");
            assert!(closed <= cut && damaged == 0);
        }
    }

    #[test]
    fn a_flipped_byte_loses_at_most_the_records_that_it_touches() {
        let host = HostRecord { host_id: HostId::new(), start: 7, revision: 3 };
        let records: Vec<Record> = (1..6).map(record).collect();
        let good = [encode_file(&records[..3], host), encode(&records[3..], host)].concat();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let mut found = Vec::new();
            let Decoded { host: known, damaged, closed } = decode(&bad, |record| found.push(record));
            // The last line's end makes it one that isn't closed.
            assert!(damaged <= 2 && (damaged > 0 || closed < bad.len()), "byte {at}: {damaged} damaged lines");
            assert_eq!(known, Some(host), "byte {at}: who the host is");
            // A line's end that is lost makes one of two lines.
            assert!(found.len() >= 3 && found.iter().all(|record| records.contains(record)), "byte {at}: {found:?}");
        }
    }
}
