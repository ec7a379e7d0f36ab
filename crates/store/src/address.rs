//! Who has which address: one row per address of a scope (a network or an external network), so that the primary key is the final judge.
//! Written by the resource-manager.
//!
//! A released address keeps its row until `free_at`: packets and caches of its last owner are still on their way. After that anybody may
//! take the row over, swept or not.

use crate::{ReadError, Store, engine::read::Count};
use core::net::IpAddr;
use domain::{SubnetId, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressOwner {
    Port,
    FloatingIp,
    Uplink,
}

impl AddressOwner {
    pub const ALL: [Self; 3] = [Self::Port, Self::FloatingIp, Self::Uplink];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::FloatingIp => "floating_ip",
            Self::Uplink => "uplink",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == text)
    }
}

op! {
    /// Succeeds for an address that nobody has and whose quarantine is over at `at`, and for one that this owner has; not in a subnet or a block
    /// that is gone.
    AddressTake {
        /// A network's or an external network's id.
        scope_id: String,
        address: IpAddr,
        subnet_id: Option<SubnetId>,
        /// Of an external network's address ([`crate::external_block_id`]).
        block_id: Option<String>,
        owner_kind: AddressOwner,
        /// Of a port or a floating IP; `<network>/<host>` of an uplink.
        owner_id: String,
        at: Timestamp,
    }
    on address, Insert by (scope_id, address), guard AddressTaken:
    "INSERT INTO address (scope_id, address, subnet_id, block_id, owner_kind, owner_id, free_at)
     SELECT r.scope_id, r.address, r.subnet_id, r.block_id, r.owner_kind, r.owner_id, NULL FROM {rows}
     WHERE r.subnet_id IS NULL OR EXISTS (SELECT 1 FROM subnet WHERE subnet.id = r.subnet_id)
     ON CONFLICT (scope_id, address) DO UPDATE SET subnet_id = excluded.subnet_id, block_id = excluded.block_id, owner_kind = excluded.owner_kind,
        owner_id = excluded.owner_id, free_at = NULL
     WHERE (address.free_at IS NULL AND address.owner_id = excluded.owner_id)
        OR address.free_at <= (SELECT min(r.at) FROM {rows})"
}

op! {
    /// It is quarantined until `free_at`. Changes nothing when another has it by now.
    AddressRelease { scope_id: String, address: IpAddr, owner_id: String, free_at: Timestamp }
    on address, Change by (scope_id, address):
    "UPDATE address SET free_at = r.free_at, block_id = NULL FROM {rows}
     WHERE address.scope_id = r.scope_id AND address.address = r.address AND address.owner_id = r.owner_id
     AND address.free_at IS NULL"
}

op! {
    /// Removes rows whose quarantine is over, at most 2,000.
    AddressSweep { before: Timestamp }
    on address, Change by (before):
    "DELETE FROM address WHERE (scope_id, address) IN (SELECT scope_id, address FROM address
        WHERE free_at <= (SELECT max(r.before) FROM {rows}) ORDER BY free_at LIMIT 2000)"
}

row! {
    #[derive(Eq)]
    pub struct AddressRow of address {
        pub scope_id: String,
        pub address: IpAddr,
        pub subnet_id: Option<SubnetId>,
        pub owner_kind: AddressOwner,
        pub owner_id: String,
        pub free_at: Option<Timestamp>,
    }
}

impl Store {
    /// All, for the resource-manager's memory.
    pub async fn address_load_all(&self) -> Result<Vec<AddressRow>, ReadError> {
        let sql = "SELECT scope_id, address, subnet_id, owner_kind, owner_id, free_at FROM address";
        self.pool().fetch_all(sql, []).await
    }

    /// Those of one network, or of one external network.
    pub async fn address_list_of_scope(&self, scope_id: &str) -> Result<Vec<AddressRow>, ReadError> {
        self.pool().list("WHERE scope_id = $1 ORDER BY address", [scope_id.into()]).await
    }

    /// Whether there are rows whose quarantine is over at `now`.
    pub async fn address_quarantine_over(&self, now: Timestamp) -> Result<bool, ReadError> {
        let sql = "SELECT count(*) AS n FROM (SELECT 1 FROM address WHERE free_at <= $1 LIMIT 1) AS x";
        let count: Count = self.pool().fetch_one(sql, [now.into()]).await?;
        Ok(count.n > 0)
    }

    pub async fn address_find(&self, scope_id: &str, address: IpAddr) -> Result<Option<AddressRow>, ReadError> {
        self.pool().find("WHERE scope_id = $1 AND address = $2", [scope_id.into(), address.to_string().into()]).await
    }
}
