//! `host.json`: who this host is, how often its agent started, and which revision of the manager's wishes it knows.

use super::{LedgerError, file};
use domain::HostId;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};

pub const NAME: &str = "host.json";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HostV1 {
    format: u32,
    host_id: HostId,
    start: i64,
    revision: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRecord {
    pub host_id: HostId,
    /// Raised durably at each start, so that reports of an earlier life are older than those of this one.
    pub start: i64,
    pub revision: i64,
}

#[must_use]
pub fn encode(record: HostRecord) -> Vec<u8> {
    let HostRecord { host_id, start, revision } = record;
    serde_json::to_vec_pretty(&HostV1 { format: FORMAT, host_id, start, revision })
        .expect("plain data with text keys is always JSON")
}

/// What is written. A damaged record is an error that a person must look at: with a new host id, this would be a new host, and what
/// it runs would belong to nobody.
pub fn peek(dir: &Path) -> Result<Option<HostRecord>, LedgerError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LedgerError::Read { path, source }),
    };
    let damaged = |detail: String| LedgerError::HostRecord { path: path.clone(), detail };
    let v1: HostV1 = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if v1.format != FORMAT {
        return Err(damaged(format!("format {}, of which this agent knows only {FORMAT}", v1.format)));
    }
    Ok(Some(HostRecord { host_id: v1.host_id, start: v1.start, revision: v1.revision }))
}

/// Reads the record, makes one (of the `given` host) at the first start, and raises the start number.
pub fn begin_start(dir: &Path, given: Option<HostId>) -> Result<HostRecord, LedgerError> {
    let found = peek(dir)?;
    if let (Some(HostRecord { host_id: held, .. }), Some(given)) = (found, given)
        && held != given
    {
        return Err(LedgerError::AnotherHost { dir: dir.to_path_buf(), held, given });
    }
    let mut record =
        found.unwrap_or_else(|| HostRecord { host_id: given.unwrap_or_else(HostId::new), start: 0, revision: 0 });
    record.start += 1;
    file::replace_all(dir, &[(NAME.to_owned(), encode(record))])
        .map_err(|source| LedgerError::Write { dir: dir.to_path_buf(), source })?;
    Ok(record)
}
