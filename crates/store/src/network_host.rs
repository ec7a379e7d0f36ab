//! What network-agents said of their hosts. Written by the resource-manager.
//!
//! Each word that a host is given carries a number that rises with every word to that host, also across restarts of the manager. So that
//! this costs no commit per word, numbers are reserved in blocks: `revision_limit` is above all that were given, and a manager that
//! starts goes on from there.

use crate::{ReadError, Store};
use core::net::IpAddr;
use domain::{HostId, Timestamp};

op! {
    /// The limit only rises. Two hosts never have one underlay address.
    NetworkHostPut {
        host_id: HostId,
        name: String,
        underlay_address: IpAddr,
        exclusive_underlay: Option<IpAddr>,
        addresses: Vec<IpAddr>,
        underlay_mtu: u32,
        external_networks: Vec<String>,
        revision_limit: i64,
        last_seen_at: Timestamp,
    }
    on network_host, Insert by (host_id): insert
    "WHERE TRUE ON CONFLICT (host_id) DO UPDATE SET name = excluded.name, underlay_address = excluded.underlay_address, exclusive_underlay = excluded.exclusive_underlay, addresses = excluded.addresses, underlay_mtu = excluded.underlay_mtu, external_networks = excluded.external_networks, last_seen_at = excluded.last_seen_at, revision_limit = CASE WHEN network_host.revision_limit > excluded.revision_limit THEN network_host.revision_limit ELSE excluded.revision_limit END"
}

op! {
    /// The host was removed.
    NetworkHostDelete { host_id: HostId }
    on network_host, Change by (host_id):
    "DELETE FROM network_host WHERE host_id IN (SELECT r.host_id FROM {rows})"
}

row! {
    #[derive(Eq)]
    pub struct NetworkHostRow of network_host {
        pub host_id: HostId,
        pub name: String,
        pub underlay_address: IpAddr,
        pub addresses: Vec<IpAddr>,
        pub underlay_mtu: u32,
        pub external_networks: Vec<String>,
        pub revision_limit: i64,
        pub last_seen_at: Timestamp,
    }
}

impl From<NetworkHostRow> for NetworkHostPut {
    fn from(row: NetworkHostRow) -> Self {
        let NetworkHostRow {
            host_id,
            name,
            underlay_address,
            addresses,
            underlay_mtu,
            external_networks,
            revision_limit,
            last_seen_at,
        } = row;
        // A host without an underlay is alone, and has the address that every host has.
        let exclusive_underlay = Some(underlay_address).filter(|address| !address.is_loopback());
        Self {
            host_id,
            name,
            underlay_address,
            exclusive_underlay,
            addresses,
            underlay_mtu,
            external_networks,
            revision_limit,
            last_seen_at,
        }
    }
}

impl Store {
    /// Those whose host isn't part of the fleet (any more, or yet).
    pub async fn network_host_without_host(&self) -> Result<Vec<HostId>, ReadError> {
        let sql = "WHERE NOT EXISTS (SELECT 1 FROM host WHERE host.id = network_host.host_id) ORDER BY host_id";
        let rows: Vec<NetworkHostRow> = self.pool().list(sql, []).await?;
        Ok(rows.into_iter().map(|row| row.host_id).collect())
    }

    pub async fn network_host_load_all(&self) -> Result<Vec<NetworkHostRow>, ReadError> {
        self.pool().list("ORDER BY host_id", []).await
    }
}
