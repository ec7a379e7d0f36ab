//! Ports: reservations first, then NICs of instances. Written by the resource-manager.
//!
//! A port made with its instance is `reserved` (with an expiry) → `active` (the owner committed; bound to a host under an epoch) →
//! `releasing` (the owner's deletion was accepted; quota given back) → gone, on the host's proof. A port of its own is `active` throughout:
//! it is taken (with an expiry), bound, and detached. Usage counts what is reserved or active, so ops that go together with a
//! [`crate::NetworkUsageAdd`] are guarded.

use crate::{Page, ReadError, Store, engine::read::text_array};
use domain::{
    HostId, InstanceId, Name, NetworkId, PortId, ProjectId, SecurityGroupId, Timestamp,
    network::{Cidr, FixedIp, MacAddr, Port, PortOwner, PortState, PortStatus, RateLimit},
};
use sqlx::AssertSqlSafe;
use std::collections::HashMap;

op! {
    /// A new port, bound to no host, at generation 1 or above the one an earlier port of this id ended at. One that stands already is `PortExists`: take it as done.
    PortInsert {
        id: PortId,
        project_id: ProjectId,
        network_id: NetworkId,
        name: Option<Name>,
        mac: MacAddr,
        fixed_ips: Vec<FixedIp>,
        allowed_addresses: Vec<Cidr>,
        rate_limit: RateLimit,
        hostname: String,
        state: PortState,
        instance_id: Option<InstanceId>,
        with_instance: bool,
        expires_at: Option<Timestamp>,
        generation: i64,
        created_at: Timestamp,
    }
    on port, Insert by (id), guard PortExists: insert {
        epoch = "0", instance_epoch = "0", metadata_digest = "''", status = "'down'", status_reason = "''",
        observed_epoch = "0", observed_start = "0", observed_counter = "0"
    }
    "WHERE TRUE ON CONFLICT (id) DO NOTHING"
}

op! {
    PortSecurityGroupPut { port_id: PortId, security_group_id: SecurityGroupId }
    on port_security_group, Insert by (port_id, security_group_id): insert
    "WHERE TRUE ON CONFLICT (port_id, security_group_id) DO NOTHING"
}

op! {
    PortSecurityGroupDelete { port_id: PortId, security_group_id: SecurityGroupId }
    on port_security_group, Change by (port_id, security_group_id):
    "DELETE FROM port_security_group
     WHERE (port_id, security_group_id) IN (SELECT r.port_id, r.security_group_id FROM {rows})"
}

op! {
    /// What its owner wants of it. Raises the generation.
    PortUpdate {
        id: PortId,
        expected_generation: i64,
        name: Option<Name>,
        allowed_addresses: Vec<Cidr>,
        rate_limit: RateLimit,
    }
    on port, Change by (id), guard PortGeneration:
    "UPDATE port SET name = r.name, allowed_addresses = r.allowed_addresses, rate_limit = r.rate_limit,
        generation = r.expected_generation + 1
     FROM {rows} WHERE port.id = r.id AND port.generation = r.expected_generation"
}

op! {
    /// A port of its own is taken for an instance that isn't committed yet. Raises the generation.
    PortTake {
        id: PortId,
        expected_generation: i64,
        instance_id: InstanceId,
        hostname: String,
        expires_at: Timestamp,
    }
    on port, Change by (id), guard PortState:
    "UPDATE port SET instance_id = r.instance_id, with_instance = FALSE, hostname = r.hostname, expires_at = r.expires_at,
        generation = r.expected_generation + 1
     FROM {rows} WHERE port.id = r.id AND port.generation = r.expected_generation
     AND port.instance_id IS NULL AND port.state = 'active'"
}

op! {
    /// The owner committed: bound to this host under this epoch. An epoch never falls. Raises the generation.
    PortBind {
        id: PortId,
        expected_generation: i64,
        instance_id: InstanceId,
        host_id: HostId,
        epoch: i64,
        instance_epoch: i64,
        metadata_digest: String,
        hostname: String,
        status: PortStatus,
    }
    on port, Change by (id), guard PortState:
    "UPDATE port SET state = 'active', expires_at = NULL, host_id = r.host_id, epoch = r.epoch,
        instance_epoch = r.instance_epoch, metadata_digest = r.metadata_digest, hostname = r.hostname, status = r.status,
        status_reason = '', generation = r.expected_generation + 1
     FROM {rows} WHERE port.id = r.id AND port.generation = r.expected_generation AND port.instance_id = r.instance_id
     AND port.epoch <= r.epoch AND port.state IN ('reserved', 'active')"
}

op! {
    /// The port goes above what a host holds of it: the database was restored from a backup. One that is bound is to be bound again, which its
    /// instance epoch of 0 says. Raises the generation.
    PortLift { id: PortId, expected_generation: i64, epoch: i64 }
    on port, Change by (id), guard PortState:
    "UPDATE port SET epoch = r.epoch, instance_epoch = 0, generation = r.expected_generation + 1
     FROM {rows} WHERE port.id = r.id AND port.generation = r.expected_generation AND port.epoch < r.epoch"
}

op! {
    /// Made with its instance, whose deletion was accepted. Not releasing already. Raises the generation.
    PortRelease { id: PortId, expected_generation: i64 }
    on port, Change by (id), guard PortState:
    "UPDATE port SET state = 'releasing', expires_at = NULL, generation = r.expected_generation + 1
     FROM {rows} WHERE port.id = r.id AND port.generation = r.expected_generation AND port.state <> 'releasing'"
}

op! {
    /// No instance has it any more: bound to no host. Raises epoch and generation.
    PortDetach { id: PortId, expected_generation: i64 }
    on port, Change by (id), guard PortState:
    "UPDATE port SET instance_id = NULL, with_instance = FALSE, hostname = '', host_id = NULL, epoch = port.epoch + 1,
        instance_epoch = 0, metadata_digest = '', expires_at = NULL, status = 'down', status_reason = '',
        generation = r.expected_generation + 1
     FROM {rows} WHERE port.id = r.id AND port.generation = r.expected_generation AND port.state = 'active'"
}

op! {
    /// The row goes, decided on this generation (else, when it is gone, or when a floating IP stands for it: `PortState`).
    PortDelete { id: PortId, expected_generation: i64 }
    on port, Change by (id), guard PortState:
    "DELETE FROM port WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM floating_ip WHERE floating_ip.port_id = port.id)"
}

op! {
    /// What a host said. Changes nothing unless newer than what was stored, and of the port's present epoch.
    PortObserved { id: PortId, epoch: i64, start: i64, counter: i64, status: PortStatus, status_reason: String }
    on port, Change by (id):
    "UPDATE port SET status = r.status, status_reason = r.status_reason, observed_epoch = r.epoch, observed_start = r.start,
        observed_counter = r.counter
     FROM {rows} WHERE port.id = r.id AND port.epoch = r.epoch AND port.host_id IS NOT NULL
     AND (port.observed_epoch < r.epoch OR (port.observed_epoch = r.epoch AND (port.observed_start < r.start
        OR (port.observed_start = r.start AND port.observed_counter < r.counter))))"
}

row! {
    struct Columns of port {
        id: PortId,
        project_id: ProjectId,
        network_id: NetworkId,
        name: Option<Name>,
        mac: MacAddr,
        fixed_ips: Vec<FixedIp>,
        allowed_addresses: Vec<Cidr>,
        rate_limit: RateLimit,
        hostname: String,
        state: PortState,
        instance_id: Option<InstanceId>,
        with_instance: bool,
        host_id: Option<HostId>,
        epoch: i64,
        instance_epoch: i64,
        metadata_digest: String,
        expires_at: Option<Timestamp>,
        status: PortStatus,
        status_reason: String,
        generation: i64,
        created_at: Timestamp,
    }
}

row! {
    struct OwnerRow { id: InstanceId }
}

row! {
    struct MembershipRow { port_id: PortId, security_group_id: SecurityGroupId }
}

/// Which ports. Every condition that is given must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortFilter {
    pub project_id: ProjectId,
    pub network_id: Option<NetworkId>,
    pub instance_id: Option<InstanceId>,
    pub security_group_id: Option<SecurityGroupId>,
}

fn port(row: Columns, security_group_ids: Vec<SecurityGroupId>) -> Port {
    Port {
        id: row.id,
        project_id: row.project_id,
        network_id: row.network_id,
        name: row.name,
        mac: row.mac,
        fixed_ips: row.fixed_ips,
        allowed_addresses: row.allowed_addresses,
        security_group_ids,
        rate_limit: row.rate_limit,
        hostname: row.hostname,
        state: row.state,
        owner: row.instance_id.map(|instance_id| PortOwner { instance_id, with_instance: row.with_instance }),
        host_id: row.host_id,
        epoch: row.epoch,
        instance_epoch: row.instance_epoch,
        metadata_digest: row.metadata_digest,
        expires_at: row.expires_at,
        status: row.status,
        status_reason: row.status_reason,
        generation: row.generation,
        created_at: row.created_at,
    }
}

impl Store {
    /// With their groups.
    async fn ports(&self, rows: Vec<Columns>) -> Result<Vec<Port>, ReadError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<PortId> = rows.iter().map(|row| row.id).collect();
        let sql = format!(
            "SELECT port_id, security_group_id FROM port_security_group WHERE port_id {} ORDER BY port_id, security_group_id",
            self.pool().in_texts(1)
        );
        let members: Vec<MembershipRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(&ids)]).await?;
        let mut groups: HashMap<PortId, Vec<SecurityGroupId>> = HashMap::new();
        for member in members {
            groups.entry(member.port_id).or_default().push(member.security_group_id);
        }
        Ok(rows
            .into_iter()
            .map(|row| (groups.remove(&row.id).unwrap_or_default(), row))
            .map(|(g, row)| port(row, g))
            .collect())
    }

    pub async fn port_find(&self, id: PortId) -> Result<Option<Port>, ReadError> {
        let rows = self.pool().list("WHERE id = $1", [id.into()]).await?;
        Ok(self.ports(rows).await?.pop())
    }

    pub async fn port_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Port>, ReadError> {
        let rows = self.pool().list("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await?;
        Ok(self.ports(rows).await?.pop())
    }

    pub async fn port_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Port>, ReadError> {
        let rows = self.pool().page(project_id, page).await?;
        self.ports(rows).await
    }

    /// Ordered by id, which is by creation.
    pub async fn port_list_filtered(&self, filter: &PortFilter, page: Page) -> Result<Vec<Port>, ReadError> {
        let sql = "WHERE project_id = $1 AND id > $2 AND ($3 = '' OR network_id = $3) AND ($4 = '' OR instance_id = $4)
            AND ($5 = '' OR EXISTS (SELECT 1 FROM port_security_group AS member
                WHERE member.port_id = port.id AND member.security_group_id = $5))
            ORDER BY id LIMIT $6";
        let any = |id: Option<String>| id.unwrap_or_default();
        let binds = [
            filter.project_id.into(),
            page.after_text().into(),
            any(filter.network_id.map(|id| id.to_string())).into(),
            any(filter.instance_id.map(|id| id.to_string())).into(),
            any(filter.security_group_id.map(|id| id.to_string())).into(),
            page.limit.into(),
        ];
        let rows = self.pool().list(sql, binds).await?;
        self.ports(rows).await
    }

    /// The instance's ports, by id.
    pub async fn port_list_of_instance(&self, instance_id: InstanceId) -> Result<Vec<Port>, ReadError> {
        let rows = self.pool().list("WHERE instance_id = $1 ORDER BY id", [instance_id.into()]).await?;
        self.ports(rows).await
    }

    pub async fn port_list_of_network(&self, network_id: NetworkId) -> Result<Vec<Port>, ReadError> {
        let rows = self.pool().list("WHERE network_id = $1 ORDER BY id", [network_id.into()]).await?;
        self.ports(rows).await
    }

    pub async fn port_load_many(&self, ids: &[PortId]) -> Result<Vec<Port>, ReadError> {
        let rows = self.pool().list_among("id", ids).await?;
        self.ports(rows).await
    }

    pub async fn port_load_many_of_instances(&self, ids: &[InstanceId]) -> Result<Vec<Port>, ReadError> {
        let rows = self.pool().list_among("instance_id", ids).await?;
        self.ports(rows).await
    }

    /// All rows of all projects, for the resource-manager's memory.
    pub async fn port_load_all(&self) -> Result<Vec<Port>, ReadError> {
        let rows: Vec<Columns> = self.pool().list("ORDER BY id", []).await?;
        let sql = "SELECT port_id, security_group_id FROM port_security_group ORDER BY port_id, security_group_id";
        let members: Vec<MembershipRow> = self.pool().fetch_all(sql, []).await?;
        let mut groups: HashMap<PortId, Vec<SecurityGroupId>> = HashMap::new();
        for member in members {
            groups.entry(member.port_id).or_default().push(member.security_group_id);
        }
        Ok(rows
            .into_iter()
            .map(|row| (groups.remove(&row.id).unwrap_or_default(), row))
            .map(|(g, row)| port(row, g))
            .collect())
    }

    /// Reservations that nobody confirmed in time, the longest overdue first.
    pub async fn port_expired(&self, now: Timestamp, limit: u32) -> Result<Vec<Port>, ReadError> {
        let sql = "WHERE expires_at IS NOT NULL AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2";
        let rows = self.pool().list(sql, [now.into(), limit.into()]).await?;
        self.ports(rows).await
    }

    /// Instances whose ports were lifted ([`PortLift`]) and must be bound again.
    pub async fn instance_list_with_lifted_ports(&self, limit: u32) -> Result<Vec<InstanceId>, ReadError> {
        let sql = "SELECT DISTINCT instance_id AS id FROM port WHERE instance_epoch = 0 AND host_id IS NOT NULL
            AND instance_id IS NOT NULL ORDER BY instance_id LIMIT $1";
        let rows: Vec<OwnerRow> = self.pool().fetch_all(sql, [limit.into()]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// All ports, a page of them by id, for sweeps that take one page at a time.
    pub async fn port_list_all(&self, page: Page) -> Result<Vec<Port>, ReadError> {
        let rows = self.pool().page(None, page).await?;
        self.ports(rows).await
    }
}
