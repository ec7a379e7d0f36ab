//! `host.json`: who this host is, how often its agent started, and which revision of its desired state it has.

use agent_kit::{HostRecord, LedgerError};
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};
use uuid::Uuid;

pub const NAME: &str = "host.json";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HostV1 {
    format: u32,
    /// Drawn when the ledger is made: it tells one ledger from another.
    ledger_id: Uuid,
    #[serde(flatten)]
    host: HostRecord,
}

#[must_use]
pub fn encode(ledger_id: Uuid, host: HostRecord) -> Vec<u8> {
    serde_json::to_vec_pretty(&HostV1 { format: FORMAT, ledger_id, host })
        .expect("plain data with text keys is always JSON")
}

/// What is written. A damaged record is an error that a person must look at: with a new host id, this would be a new host, and what
/// it runs would belong to nobody.
pub fn peek(dir: &Path) -> Result<Option<(Uuid, HostRecord)>, LedgerError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LedgerError::file("read", &path)(source)),
    };
    let damaged = |detail: String| LedgerError::Damaged { path: path.clone(), detail };
    let v1: HostV1 = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if v1.format != FORMAT {
        return Err(damaged(format!("format {}, of which this agent knows only {FORMAT}", v1.format)));
    }
    Ok(Some((v1.ledger_id, v1.host)))
}
