//! Limits (written by the api-gateway) and usage (written by the service that owns the objects, in the transaction that changes them).
//! Usage is a sum over a batch: what is given back in it counts before what is taken.

use crate::{ReadError, Store};
use domain::{ProjectId, quota::QuotaAmounts};

op! {
    /// Sets all limits. `expected_generation` 0 means any; starts at generation 1.
    QuotaLimitPut {
        project_id: ProjectId,
        instances: i64,
        vcpus: i64,
        memory_mib: i64,
        disk_gib: i64,
        images: i64,
        image_gib: i64,
        networks: i64,
        subnets: i64,
        ports: i64,
        routers: i64,
        floating_ips: i64,
        security_groups: i64,
        security_rules: i64,
        peerings: i64,
        ssh_keys: i64,
        placement_groups: i64,
        expected_generation: i64,
    }
    on quota_limit, Insert by (project_id), guard QuotaGeneration:
    "INSERT INTO quota_limit (project_id, instances, vcpus, memory_mib, disk_gib, images, image_gib, networks, subnets,
        ports, routers, floating_ips, security_groups, security_rules, peerings, ssh_keys, placement_groups, generation)
     SELECT r.project_id, r.instances, r.vcpus, r.memory_mib, r.disk_gib, r.images, r.image_gib, r.networks, r.subnets,
        r.ports, r.routers, r.floating_ips, r.security_groups, r.security_rules, r.peerings, r.ssh_keys,
        r.placement_groups, r.expected_generation + 1 FROM {rows}
     WHERE r.expected_generation = 0
        OR EXISTS (SELECT 1 FROM quota_limit AS there WHERE there.project_id = r.project_id)
     ON CONFLICT (project_id) DO UPDATE SET instances = excluded.instances, vcpus = excluded.vcpus,
        memory_mib = excluded.memory_mib, disk_gib = excluded.disk_gib, images = excluded.images,
        image_gib = excluded.image_gib, networks = excluded.networks,
        subnets = excluded.subnets, ports = excluded.ports, routers = excluded.routers,
        floating_ips = excluded.floating_ips, security_groups = excluded.security_groups,
        security_rules = excluded.security_rules, peerings = excluded.peerings, ssh_keys = excluded.ssh_keys,
        placement_groups = excluded.placement_groups, generation = quota_limit.generation + 1
     WHERE excluded.generation IN (1, quota_limit.generation + 1)"
}

impl QuotaLimitPut {
    #[must_use]
    pub fn new(project_id: ProjectId, limit: &QuotaAmounts, expected_generation: i64) -> Self {
        Self {
            project_id,
            instances: limit.instances,
            vcpus: limit.vcpus,
            memory_mib: limit.memory_mib,
            disk_gib: limit.disk_gib,
            images: limit.images,
            image_gib: limit.image_gib,
            networks: limit.networks,
            subnets: limit.subnets,
            ports: limit.ports,
            routers: limit.routers,
            floating_ips: limit.floating_ips,
            security_groups: limit.security_groups,
            security_rules: limit.security_rules,
            peerings: limit.peerings,
            ssh_keys: limit.ssh_keys,
            placement_groups: limit.placement_groups,
            expected_generation,
        }
    }
}

op! {
    /// Takes (or with negative amounts gives back) what instances use. An amount that rises must stay within the limit; a project
    /// without a limit has none left.
    ComputeUsageAdd { project_id: ProjectId, instances: i64, vcpus: i64, memory_mib: i64 }
    on compute_usage, Add by (project_id), guard ComputeQuota,
    ensure "INSERT INTO compute_usage (project_id, instances, vcpus, memory_mib)
     SELECT DISTINCT r.project_id, 0, 0, 0 FROM {rows}
     WHERE EXISTS (SELECT 1 FROM project WHERE project.id = r.project_id)
     ON CONFLICT (project_id) DO NOTHING":
    "UPDATE compute_usage SET instances = compute_usage.instances + s.instances,
        vcpus = compute_usage.vcpus + s.vcpus, memory_mib = compute_usage.memory_mib + s.memory_mib
     FROM (SELECT r.project_id, CAST(sum(r.instances) AS BIGINT) AS instances, CAST(sum(r.vcpus) AS BIGINT) AS vcpus,
            CAST(sum(r.memory_mib) AS BIGINT) AS memory_mib FROM {rows} GROUP BY r.project_id) AS s
        LEFT JOIN quota_limit AS q ON q.project_id = s.project_id
     WHERE compute_usage.project_id = s.project_id
     AND (s.instances <= 0 OR compute_usage.instances + s.instances <= COALESCE(q.instances, 0))
     AND (s.vcpus <= 0 OR compute_usage.vcpus + s.vcpus <= COALESCE(q.vcpus, 0))
     AND (s.memory_mib <= 0 OR compute_usage.memory_mib + s.memory_mib <= COALESCE(q.memory_mib, 0))"
}

op! {
    /// Takes (or with negative amounts gives back) what disks and images use; as [`ComputeUsageAdd`].
    StorageUsageAdd { project_id: ProjectId, disk_gib: i64, images: i64, image_gib: i64 }
    on storage_usage, Add by (project_id), guard StorageQuota,
    ensure "INSERT INTO storage_usage (project_id, disk_gib, images, image_gib)
     SELECT DISTINCT r.project_id, 0, 0, 0 FROM {rows}
     WHERE EXISTS (SELECT 1 FROM project WHERE project.id = r.project_id)
     ON CONFLICT (project_id) DO NOTHING":
    "UPDATE storage_usage SET disk_gib = storage_usage.disk_gib + s.disk_gib, images = storage_usage.images + s.images,
        image_gib = storage_usage.image_gib + s.image_gib
     FROM (SELECT r.project_id, CAST(sum(r.disk_gib) AS BIGINT) AS disk_gib, CAST(sum(r.images) AS BIGINT) AS images,
            CAST(sum(r.image_gib) AS BIGINT) AS image_gib FROM {rows} GROUP BY r.project_id) AS s
        LEFT JOIN quota_limit AS q ON q.project_id = s.project_id
     WHERE storage_usage.project_id = s.project_id
     AND (s.disk_gib <= 0 OR storage_usage.disk_gib + s.disk_gib <= COALESCE(q.disk_gib, 0))
     AND (s.images <= 0 OR storage_usage.images + s.images <= COALESCE(q.images, 0))
     AND (s.image_gib <= 0 OR storage_usage.image_gib + s.image_gib <= COALESCE(q.image_gib, 0))"
}

impl StorageUsageAdd {
    /// Takes what disks use, or gives it back.
    #[must_use]
    pub fn disk(project_id: ProjectId, disk_gib: i64) -> Self {
        Self { project_id, disk_gib, images: 0, image_gib: 0 }
    }

    /// Takes what images use, or gives it back.
    #[must_use]
    pub fn image(project_id: ProjectId, images: i64, image_gib: i64) -> Self {
        Self { project_id, disk_gib: 0, images, image_gib }
    }
}

op! {
    /// Takes (or with negative amounts gives back) what the gateway keeps for a project; as [`ComputeUsageAdd`].
    IdentityUsageAdd { project_id: ProjectId, ssh_keys: i64, placement_groups: i64 }
    on identity_usage, Add by (project_id), guard IdentityQuota,
    ensure "INSERT INTO identity_usage (project_id, ssh_keys, placement_groups)
     SELECT DISTINCT r.project_id, 0, 0 FROM {rows}
     WHERE EXISTS (SELECT 1 FROM project WHERE project.id = r.project_id)
     ON CONFLICT (project_id) DO NOTHING":
    "UPDATE identity_usage SET ssh_keys = identity_usage.ssh_keys + s.ssh_keys,
        placement_groups = identity_usage.placement_groups + s.placement_groups
     FROM (SELECT r.project_id, CAST(sum(r.ssh_keys) AS BIGINT) AS ssh_keys,
            CAST(sum(r.placement_groups) AS BIGINT) AS placement_groups FROM {rows} GROUP BY r.project_id) AS s
        LEFT JOIN quota_limit AS q ON q.project_id = s.project_id
     WHERE identity_usage.project_id = s.project_id
     AND (s.ssh_keys <= 0 OR identity_usage.ssh_keys + s.ssh_keys <= COALESCE(q.ssh_keys, 0))
     AND (s.placement_groups <= 0
        OR identity_usage.placement_groups + s.placement_groups <= COALESCE(q.placement_groups, 0))"
}

impl IdentityUsageAdd {
    #[must_use]
    pub fn ssh_keys(project_id: ProjectId, ssh_keys: i64) -> Self {
        Self { project_id, ssh_keys, placement_groups: 0 }
    }

    #[must_use]
    pub fn placement_groups(project_id: ProjectId, placement_groups: i64) -> Self {
        Self { project_id, ssh_keys: 0, placement_groups }
    }

    /// What it takes, in the terms of the quotas.
    #[must_use]
    pub fn amounts(&self) -> QuotaAmounts {
        QuotaAmounts { ssh_keys: self.ssh_keys, placement_groups: self.placement_groups, ..QuotaAmounts::NONE }
    }
}

op! {
    /// Takes (or with negative amounts gives back) what networks use; as [`ComputeUsageAdd`].
    NetworkUsageAdd {
        project_id: ProjectId,
        networks: i64,
        subnets: i64,
        ports: i64,
        routers: i64,
        floating_ips: i64,
        security_groups: i64,
        security_rules: i64,
        peerings: i64,
    }
    on network_usage, Add by (project_id), guard NetworkQuota,
    ensure "INSERT INTO network_usage (project_id, networks, subnets, ports, routers, floating_ips, security_groups,
        security_rules, peerings)
     SELECT DISTINCT r.project_id, 0, 0, 0, 0, 0, 0, 0, 0 FROM {rows}
     WHERE EXISTS (SELECT 1 FROM project WHERE project.id = r.project_id)
     ON CONFLICT (project_id) DO NOTHING":
    "UPDATE network_usage SET networks = network_usage.networks + s.networks,
        subnets = network_usage.subnets + s.subnets,
        ports = network_usage.ports + s.ports,
        routers = network_usage.routers + s.routers,
        floating_ips = network_usage.floating_ips + s.floating_ips,
        security_groups = network_usage.security_groups + s.security_groups,
        security_rules = network_usage.security_rules + s.security_rules,
        peerings = network_usage.peerings + s.peerings
     FROM (SELECT r.project_id, CAST(sum(r.networks) AS BIGINT) AS networks,
            CAST(sum(r.subnets) AS BIGINT) AS subnets,
            CAST(sum(r.ports) AS BIGINT) AS ports,
            CAST(sum(r.routers) AS BIGINT) AS routers,
            CAST(sum(r.floating_ips) AS BIGINT) AS floating_ips,
            CAST(sum(r.security_groups) AS BIGINT) AS security_groups,
            CAST(sum(r.security_rules) AS BIGINT) AS security_rules,
            CAST(sum(r.peerings) AS BIGINT) AS peerings
            FROM {rows} GROUP BY r.project_id) AS s
        LEFT JOIN quota_limit AS q ON q.project_id = s.project_id
     WHERE network_usage.project_id = s.project_id
     AND (s.networks <= 0 OR network_usage.networks + s.networks <= COALESCE(q.networks, 0))
     AND (s.subnets <= 0 OR network_usage.subnets + s.subnets <= COALESCE(q.subnets, 0))
     AND (s.ports <= 0 OR network_usage.ports + s.ports <= COALESCE(q.ports, 0))
     AND (s.routers <= 0 OR network_usage.routers + s.routers <= COALESCE(q.routers, 0))
     AND (s.floating_ips <= 0 OR network_usage.floating_ips + s.floating_ips <= COALESCE(q.floating_ips, 0))
     AND (s.security_groups <= 0 OR network_usage.security_groups + s.security_groups <= COALESCE(q.security_groups, 0))
     AND (s.security_rules <= 0 OR network_usage.security_rules + s.security_rules <= COALESCE(q.security_rules, 0))
     AND (s.peerings <= 0 OR network_usage.peerings + s.peerings <= COALESCE(q.peerings, 0))"
}

impl NetworkUsageAdd {
    /// Takes `amounts`; what is of other owners in them is left out.
    #[must_use]
    pub fn take(project_id: ProjectId, amounts: &QuotaAmounts) -> Self {
        Self {
            project_id,
            networks: amounts.networks,
            subnets: amounts.subnets,
            ports: amounts.ports,
            routers: amounts.routers,
            floating_ips: amounts.floating_ips,
            security_groups: amounts.security_groups,
            security_rules: amounts.security_rules,
            peerings: amounts.peerings,
        }
    }

    /// Gives `amounts` back.
    #[must_use]
    pub fn release(project_id: ProjectId, amounts: &QuotaAmounts) -> Self {
        Self::take(project_id, &amounts.negated())
    }
}

row! {
    struct LimitRow of quota_limit {
        project_id: ProjectId,
        instances: i64,
        vcpus: i64,
        memory_mib: i64,
        disk_gib: i64,
        images: i64,
        image_gib: i64,
        networks: i64,
        subnets: i64,
        ports: i64,
        routers: i64,
        floating_ips: i64,
        security_groups: i64,
        security_rules: i64,
        peerings: i64,
        ssh_keys: i64,
        placement_groups: i64,
        generation: i64,
    }
}

row! {
    struct UsageRow {
        instances: i64,
        vcpus: i64,
        memory_mib: i64,
        disk_gib: i64,
        images: i64,
        image_gib: i64,
        networks: i64,
        subnets: i64,
        ports: i64,
        routers: i64,
        floating_ips: i64,
        security_groups: i64,
        security_rules: i64,
        peerings: i64,
        ssh_keys: i64,
        placement_groups: i64,
    }
}

/// A project's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaLimitRow {
    pub project_id: ProjectId,
    pub limit: QuotaAmounts,
    pub generation: i64,
}

/// Both rows have the fields of the amounts.
macro_rules! amounts {
    ($row:expr) => {
        QuotaAmounts {
            instances: $row.instances,
            vcpus: $row.vcpus,
            memory_mib: $row.memory_mib,
            disk_gib: $row.disk_gib,
            images: $row.images,
            image_gib: $row.image_gib,
            networks: $row.networks,
            subnets: $row.subnets,
            ports: $row.ports,
            routers: $row.routers,
            floating_ips: $row.floating_ips,
            security_groups: $row.security_groups,
            security_rules: $row.security_rules,
            peerings: $row.peerings,
            ssh_keys: $row.ssh_keys,
            placement_groups: $row.placement_groups,
        }
    };
}

impl From<LimitRow> for QuotaLimitRow {
    fn from(row: LimitRow) -> Self {
        Self { project_id: row.project_id, limit: amounts!(row), generation: row.generation }
    }
}

record! { QuotaLimitRow, from LimitRow }

impl Store {
    pub async fn quota_limit_find(&self, project_id: ProjectId) -> Result<Option<QuotaLimitRow>, ReadError> {
        self.pool().find("WHERE project_id = $1", [project_id.into()]).await
    }

    /// What the project uses, of everything.
    pub async fn quota_usage(&self, project_id: ProjectId) -> Result<QuotaAmounts, ReadError> {
        let sql = "SELECT COALESCE(c.instances, 0) AS instances, COALESCE(c.vcpus, 0) AS vcpus,
            COALESCE(c.memory_mib, 0) AS memory_mib, COALESCE(s.disk_gib, 0) AS disk_gib,
            COALESCE(s.images, 0) AS images, COALESCE(s.image_gib, 0) AS image_gib,
            COALESCE(n.networks, 0) AS networks, COALESCE(n.subnets, 0) AS subnets, COALESCE(n.ports, 0) AS ports,
            COALESCE(n.routers, 0) AS routers, COALESCE(n.floating_ips, 0) AS floating_ips,
            COALESCE(n.security_groups, 0) AS security_groups, COALESCE(n.security_rules, 0) AS security_rules,
            COALESCE(n.peerings, 0) AS peerings, COALESCE(i.ssh_keys, 0) AS ssh_keys,
            COALESCE(i.placement_groups, 0) AS placement_groups
            FROM (SELECT CAST($1 AS TEXT) AS project_id) AS p
            LEFT JOIN compute_usage AS c ON c.project_id = p.project_id
            LEFT JOIN storage_usage AS s ON s.project_id = p.project_id
            LEFT JOIN network_usage AS n ON n.project_id = p.project_id
            LEFT JOIN identity_usage AS i ON i.project_id = p.project_id";
        let row: UsageRow = self.pool().fetch_one(sql, [project_id.into()]).await?;
        Ok(amounts!(row))
    }
}
