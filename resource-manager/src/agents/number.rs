//! The numbers of the messages to a host: each is higher than all before it, whoever sent them.
//!
//! They are reserved in blocks (`network_host.revision_limit`), so that a message costs no commit: a manager that starts goes on above the
//! block of the one before it. An agent that holds a higher number than any we reserved got it from a database that is no more (a backup
//! was restored): we go on above that.

use domain::{HostId, Timestamp};
use std::net::IpAddr;
use store::{CommitError, NetworkHostPut, NetworkHostRow, Store, Unit};

const BLOCK: i64 = 10_000;

#[derive(Debug)]
pub(super) struct Numbers {
    row: NetworkHostRow,
    last: i64,
}

/// What an agent says of itself.
#[derive(Debug, Clone)]
pub(super) struct HostIdentity {
    pub host_id: HostId,
    pub name: String,
    pub underlay_address: IpAddr,
    pub addresses: Vec<IpAddr>,
    pub underlay_mtu: u32,
    pub external_networks: Vec<String>,
    /// The highest number in its ledger.
    pub highest: i64,
}

impl Numbers {
    /// Reserves the first block of a stream. `known_limit` is the row's, 0 for a new host.
    pub(super) async fn begin(store: &Store, host: HostIdentity, known_limit: i64) -> Result<Self, CommitError> {
        let last = known_limit.max(host.highest);
        let row = NetworkHostRow {
            host_id: host.host_id,
            name: host.name,
            underlay_address: host.underlay_address,
            addresses: host.addresses,
            underlay_mtu: host.underlay_mtu,
            external_networks: host.external_networks,
            revision_limit: last + BLOCK,
            last_seen_at: Timestamp::now(),
        };
        let numbers = Self { row, last };
        numbers.put(store).await?;
        Ok(numbers)
    }

    pub(super) fn row(&self) -> &NetworkHostRow {
        &self.row
    }

    pub(super) async fn next(&mut self, store: &Store) -> Result<i64, CommitError> {
        if self.last >= self.row.revision_limit {
            self.row.revision_limit = self.last + BLOCK;
            self.put(store).await?;
        }
        self.last += 1;
        Ok(self.last)
    }

    async fn put(&self, store: &Store) -> Result<(), CommitError> {
        store.commit(Unit::new().op(NetworkHostPut::from(self.row.clone()))).await
    }
}
