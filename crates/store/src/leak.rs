//! The invariant checker's queries: what is held without an owner, and sums that don't match what they are the sums of. Each check is
//! one statement, so it sees one moment. On a healthy system the report is always empty.

use crate::{ReadError, Store};
use domain::Timestamp;
use sqlx::AssertSqlSafe;

/// A reservation may outlive its expiry by this much until the sweeper takes it, and an operation's outcome its retention.
const SWEEP_GRACE_SECS: u64 = 300;
const OUTCOME_KEPT_SECS: u64 = 26 * 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeakKind {
    /// What a host counts as used isn't what its instances claim.
    HostClaim,
    /// What a project counts as used isn't what its instances take.
    ComputeUsage,
    /// What a project counts as used isn't what its disks take.
    StorageUsage,
    /// What a project counts as used isn't what its images take.
    ImageUsage,
    /// What a project counts as used of SSH keys and placement groups isn't what there is.
    IdentityUsage,
    /// A confirmed disk whose instance is gone.
    DiskWithoutInstance,
    /// An instance, not being deleted, whose root disk has no row.
    InstanceWithoutDisk,
    /// An instance on a host that isn't known.
    InstanceWithoutHost,
    /// What a project counts as used of networks isn't what there is.
    NetworkUsage,
    /// An address that belongs to nobody who says that it is theirs.
    AddressWithoutOwner,
    /// A port, floating IP or uplink whose address isn't its own.
    OwnerWithoutAddress,
    /// A bound port whose instance is gone.
    PortWithoutInstance,
    /// An uplink of a network without a router.
    UplinkWithoutRouter,
    /// What a hard affinity group counts as members isn't what there are.
    PlacementAnchor,
    /// A reservation that expired long ago.
    ReservationExpired,
    /// An address that is quarantined though its time is long over.
    AddressUnswept,
    /// Outcomes of operations that are kept past their time.
    OperationExpired,
}

impl LeakKind {
    pub const ALL: [Self; 17] = [
        Self::HostClaim,
        Self::ComputeUsage,
        Self::StorageUsage,
        Self::ImageUsage,
        Self::IdentityUsage,
        Self::DiskWithoutInstance,
        Self::InstanceWithoutDisk,
        Self::InstanceWithoutHost,
        Self::NetworkUsage,
        Self::AddressWithoutOwner,
        Self::OwnerWithoutAddress,
        Self::PortWithoutInstance,
        Self::UplinkWithoutRouter,
        Self::PlacementAnchor,
        Self::ReservationExpired,
        Self::AddressUnswept,
        Self::OperationExpired,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostClaim => "host_claim",
            Self::ComputeUsage => "compute_usage",
            Self::StorageUsage => "storage_usage",
            Self::ImageUsage => "image_usage",
            Self::IdentityUsage => "identity_usage",
            Self::DiskWithoutInstance => "disk_without_instance",
            Self::InstanceWithoutDisk => "instance_without_disk",
            Self::InstanceWithoutHost => "instance_without_host",
            Self::NetworkUsage => "network_usage",
            Self::AddressWithoutOwner => "address_without_owner",
            Self::OwnerWithoutAddress => "owner_without_address",
            Self::PortWithoutInstance => "port_without_instance",
            Self::UplinkWithoutRouter => "uplink_without_router",
            Self::PlacementAnchor => "placement_anchor",
            Self::ReservationExpired => "reservation_expired",
            Self::AddressUnswept => "address_unswept",
            Self::OperationExpired => "operation_expired",
        }
    }

    /// The query that gives `detail`. `$1` is the time before which something counts.
    fn sql(self) -> &'static str {
        match self {
            Self::HostClaim => HOST_CLAIM,
            Self::ComputeUsage => COMPUTE_USAGE,
            Self::StorageUsage => {
                "SELECT 'project ' || p.id || ' counts ' || COALESCE(u.disk_gib, 0) || ' GiB; its disks take '
                    || COALESCE(d.disk_gib, 0) AS detail
                 FROM project AS p LEFT JOIN storage_usage AS u ON u.project_id = p.id
                    LEFT JOIN (SELECT project_id, sum(size_gib) AS disk_gib FROM disk WHERE state <> 'releasing'
                        GROUP BY project_id) AS d ON d.project_id = p.id
                 WHERE COALESCE(u.disk_gib, 0) <> COALESCE(d.disk_gib, 0)"
            }
            Self::ImageUsage => {
                "SELECT 'project ' || p.id || ' counts ' || COALESCE(u.images, 0) || ' images, ' || COALESCE(u.image_gib, 0)
                    || ' GiB; it has ' || COALESCE(m.images, 0) || ', which take ' || COALESCE(m.image_gib, 0) AS detail
                 FROM project AS p LEFT JOIN storage_usage AS u ON u.project_id = p.id
                    LEFT JOIN (SELECT project_id, count(*) AS images, sum(size_gib + reserved_gib) AS image_gib FROM image
                        GROUP BY project_id) AS m ON m.project_id = p.id
                 WHERE COALESCE(u.images, 0) <> COALESCE(m.images, 0) OR COALESCE(u.image_gib, 0) <> COALESCE(m.image_gib, 0)"
            }
            Self::IdentityUsage => {
                "SELECT 'project ' || t.id || ' counts ' || t.counted || '; it has ' || t.there AS detail FROM (SELECT p.id,
                    COALESCE(u.ssh_keys, 0) || ' SSH keys, ' || COALESCE(u.placement_groups, 0) || ' placement groups'
                        AS counted,
                    (SELECT count(*) FROM ssh_key AS k WHERE k.project_id = p.id) || ' SSH keys, '
                        || (SELECT count(*) FROM placement_group AS g WHERE g.project_id = p.id) || ' placement groups'
                        AS there
                    FROM project AS p LEFT JOIN identity_usage AS u ON u.project_id = p.id) AS t
                 WHERE t.counted <> t.there"
            }
            Self::DiskWithoutInstance => {
                "SELECT 'disk ' || d.id || ' is confirmed for instance ' || d.instance_id || ', which is gone' AS detail
                 FROM disk AS d WHERE d.state = 'confirmed'
                 AND NOT EXISTS (SELECT 1 FROM instance AS i WHERE i.id = d.instance_id)"
            }
            Self::InstanceWithoutDisk => {
                "SELECT 'instance ' || i.id || ' names root disk ' || i.root_disk_id || ', which has no row' AS detail
                 FROM instance AS i WHERE i.root_disk_id IS NOT NULL AND i.state <> 'deleting'
                 AND NOT EXISTS (SELECT 1 FROM disk AS d WHERE d.id = i.root_disk_id AND d.instance_id = i.id)"
            }
            Self::InstanceWithoutHost => {
                "SELECT 'instance ' || i.id || ' is on host ' || i.host_id || ', which is not known' AS detail
                 FROM instance AS i WHERE i.host_id IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM host AS h WHERE h.id = i.host_id)"
            }
            Self::PlacementAnchor => {
                "SELECT 'placement group ' || a.group_id || ' counts ' || a.members || ' members at its place; there are '
                    || (SELECT count(*) FROM placement_member AS m WHERE m.group_id = a.group_id AND m.place = a.place)
                    AS detail
                 FROM placement_anchor AS a WHERE a.members <> (SELECT count(*) FROM placement_member AS m
                    WHERE m.group_id = a.group_id AND m.place = a.place)"
            }
            Self::ReservationExpired => {
                "SELECT 'disk ' || id || ' is reserved for instance ' || instance_id || ' and expired long ago' AS detail
                 FROM disk WHERE expires_at IS NOT NULL AND expires_at < $1 AND state = 'reserved'
                 UNION ALL SELECT 'port ' || id || ' is reserved for instance ' || COALESCE(instance_id, '(none)')
                    || ' and expired long ago' AS detail FROM port WHERE expires_at IS NOT NULL AND expires_at < $1"
            }
            Self::NetworkUsage => NETWORK_USAGE,
            Self::AddressWithoutOwner => {
                "SELECT 'address ' || a.address || ' of ' || a.scope_id || ' belongs to ' || a.owner_kind || ' ' || a.owner_id
                    || ', which doesn''t have it' AS detail
                 FROM address AS a LEFT JOIN ({claims}) AS c ON c.scope_id = a.scope_id AND c.address = a.address
                    AND c.owner_kind = a.owner_kind AND c.owner_id = a.owner_id
                 WHERE a.free_at IS NULL AND c.owner_id IS NULL"
            }
            Self::OwnerWithoutAddress => {
                "SELECT c.owner_kind || ' ' || c.owner_id || ' has ' || c.address || ' of ' || c.scope_id
                    || ', which is not its own' AS detail
                 FROM ({claims}) AS c LEFT JOIN address AS a ON a.scope_id = c.scope_id AND a.address = c.address
                    AND a.owner_kind = c.owner_kind AND a.owner_id = c.owner_id AND a.free_at IS NULL
                 WHERE a.owner_id IS NULL"
            }
            Self::PortWithoutInstance => {
                "SELECT 'port ' || p.id || ' is bound for instance ' || p.instance_id || ', which is gone' AS detail
                 FROM port AS p WHERE p.instance_id IS NOT NULL AND p.expires_at IS NULL
                 AND NOT EXISTS (SELECT 1 FROM instance AS i WHERE i.id = p.instance_id)"
            }
            Self::UplinkWithoutRouter => {
                "SELECT 'network ' || u.network_id || ' has an uplink on host ' || u.host_id || ', and no router to '
                    || u.external_network_id AS detail
                 FROM uplink AS u WHERE NOT EXISTS (SELECT 1 FROM router AS r WHERE r.network_id = u.network_id
                    AND r.external_network_id = u.external_network_id)"
            }
            Self::AddressUnswept => {
                "SELECT 'address ' || address || ' of ' || scope_id || ' is still quarantined, and should be free' AS detail
                 FROM address WHERE free_at IS NOT NULL AND free_at < $1"
            }
            Self::OperationExpired => {
                "SELECT 'the outcome of operation ' || id || ' is kept past its time' AS detail FROM (
                    SELECT id FROM identity_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM compute_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM storage_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM resource_operation WHERE created_at < $1) AS o"
            }
        }
    }

    /// The longest age that is no leak, seconds; `None` where age says nothing.
    fn grace_secs(self) -> Option<u64> {
        match self {
            Self::ReservationExpired | Self::AddressUnswept => Some(SWEEP_GRACE_SECS),
            Self::OperationExpired => Some(OUTCOME_KEPT_SECS),
            Self::HostClaim
            | Self::ComputeUsage
            | Self::StorageUsage
            | Self::ImageUsage
            | Self::IdentityUsage
            | Self::DiskWithoutInstance
            | Self::InstanceWithoutDisk
            | Self::InstanceWithoutHost
            | Self::NetworkUsage
            | Self::AddressWithoutOwner
            | Self::OwnerWithoutAddress
            | Self::PortWithoutInstance
            | Self::UplinkWithoutRouter
            | Self::PlacementAnchor => None,
        }
    }
}

/// One thing that shouldn't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    pub kind: LeakKind,
    /// One sentence with ids and figures.
    pub detail: String,
}

const HOST_CLAIM: &str =
    "SELECT 'host ' || h.id || ' counts ' || h.vcpus_used || ' vCPUs, ' || h.memory_mib_used || ' MiB, '
        || h.disk_gib_used || ' GiB; its instances claim ' || COALESCE(i.vcpus, 0) || ', '
        || COALESCE(i.memory_mib, 0) || ', ' || COALESCE(i.disk_gib, 0) AS detail
     FROM host AS h LEFT JOIN (SELECT host_id, sum(claim_vcpus) AS vcpus, sum(claim_memory_mib) AS memory_mib,
        sum(claim_disk_gib) AS disk_gib FROM instance GROUP BY host_id) AS i ON i.host_id = h.id
     WHERE h.vcpus_used <> COALESCE(i.vcpus, 0) OR h.memory_mib_used <> COALESCE(i.memory_mib, 0)
        OR h.disk_gib_used <> COALESCE(i.disk_gib, 0)";

const COMPUTE_USAGE: &str = "SELECT 'project ' || p.id || ' counts ' || COALESCE(u.instances, 0) || ' instances, '
        || COALESCE(u.vcpus, 0) || ' vCPUs, ' || COALESCE(u.memory_mib, 0) || ' MiB; its instances take '
        || COALESCE(i.instances, 0) || ', ' || COALESCE(i.vcpus, 0) || ', ' || COALESCE(i.memory_mib, 0) AS detail
     FROM project AS p LEFT JOIN compute_usage AS u ON u.project_id = p.id
        LEFT JOIN (SELECT project_id, count(*) AS instances, sum({vcpus}) AS vcpus,
            sum({memory_mib}) AS memory_mib FROM instance WHERE NOT quota_released GROUP BY project_id) AS i
        ON i.project_id = p.id
     WHERE COALESCE(u.instances, 0) <> COALESCE(i.instances, 0) OR COALESCE(u.vcpus, 0) <> COALESCE(i.vcpus, 0)
        OR COALESCE(u.memory_mib, 0) <> COALESCE(i.memory_mib, 0)";

const NETWORK_USAGE: &str =
    "SELECT 'project ' || p.id || ' counts ' || COALESCE(u.used, '(nothing)') || ' and has ' || t.there AS detail
     FROM project AS p
        LEFT JOIN (SELECT project_id, {counts} AS used FROM (SELECT project_id, networks AS a, subnets AS b,
            ports AS c, routers AS d, floating_ips AS e, security_groups AS f, security_rules AS g, peerings AS h
            FROM network_usage) AS n) AS u ON u.project_id = p.id
        JOIN (SELECT id AS project_id, {counts} AS there FROM (SELECT x.id,
            (SELECT count(*) FROM network AS y WHERE y.project_id = x.id) AS a,
            (SELECT count(*) FROM subnet AS y WHERE y.project_id = x.id) AS b,
            (SELECT count(*) FROM port AS y WHERE y.project_id = x.id AND y.state <> 'releasing') AS c,
            (SELECT count(*) FROM router AS y WHERE y.project_id = x.id) AS d,
            (SELECT count(*) FROM floating_ip AS y WHERE y.project_id = x.id) AS e,
            (SELECT count(*) FROM security_group AS y WHERE y.project_id = x.id) AS f,
            (SELECT count(*) FROM security_rule AS r JOIN security_group AS y ON y.id = r.security_group_id
                WHERE y.project_id = x.id) AS g,
            (SELECT count(*) FROM peering AS y WHERE y.project_id = x.id) AS h
            FROM project AS x) AS n) AS t ON t.project_id = p.id
     WHERE COALESCE(u.used, {nothing}) <> t.there";

/// A row of counts as one text, in the terms of the quotas.
const COUNTS: &str =
    "a || ' networks, ' || b || ' subnets, ' || c || ' ports, ' || d || ' routers, ' || e || ' floating IPs, ' || f
    || ' security groups, ' || g || ' security rules, ' || h || ' peerings'";
const NOTHING: &str =
    "'0 networks, 0 subnets, 0 ports, 0 routers, 0 floating IPs, 0 security groups, 0 security rules, 0 peerings'";

row! {
    struct DetailRow { detail: String }
}

impl Store {
    /// Every leak there is, at most 100 of a kind. Between two services' commits a disk without its instance can be seen for a moment:
    /// what two reports in a row name is a leak.
    pub async fn leak_report(&self) -> Result<Vec<Leak>, ReadError> {
        let size = |field: &str| {
            self.pool().pick(
                format!("spec ->> '$.size.{field}'"),
                format!("CAST(spec::jsonb -> 'size' ->> '{field}' AS BIGINT)"),
            )
        };
        let claims = self.claims();
        let now = Timestamp::now();
        let mut leaks = Vec::new();
        for kind in LeakKind::ALL {
            let sql = kind.sql().replace("{vcpus}", &size("vcpus")).replace("{memory_mib}", &size("memory_mib"));
            let sql = sql.replace("{claims}", &claims).replace("{counts}", COUNTS).replace("{nothing}", NOTHING);
            let binds = kind.grace_secs().map(|secs| {
                let millis = i64::try_from(secs * 1000).unwrap_or(i64::MAX);
                Timestamp(now.0 - millis).into()
            });
            let rows: Vec<DetailRow> = self.pool().fetch_all(AssertSqlSafe(format!("{sql} LIMIT 100")), binds).await?;
            leaks.extend(rows.into_iter().map(|row| Leak { kind, detail: row.detail }));
        }
        Ok(leaks)
    }

    /// Every address as its owner's row has it.
    fn claims(&self) -> String {
        let (fixed_ips, fixed_ip) = self.pool().pick(
            ("json_each(p.fixed_ips) AS f", "f.value ->> '$.address'"),
            ("jsonb_array_elements(p.fixed_ips::jsonb) AS f(value)", "f.value ->> 'address'"),
        );
        let (uplinks, uplink) = self.pool().pick(
            ("json_each(u.addresses) AS f", "substr(f.value, 1, instr(f.value, '/') - 1)"),
            ("jsonb_array_elements_text(u.addresses::jsonb) AS f(value)", "split_part(f.value, '/', 1)"),
        );
        format!(
            "SELECT p.network_id AS scope_id, {fixed_ip} AS address, 'port' AS owner_kind, p.id AS owner_id
                FROM port AS p, {fixed_ips}
             UNION ALL SELECT external_network_id, address, 'floating_ip', id FROM floating_ip
             UNION ALL SELECT u.external_network_id, {uplink}, 'uplink', u.network_id || '/' || u.host_id
                FROM uplink AS u, {uplinks}"
        )
    }
}
