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
    /// A confirmed disk whose instance is gone.
    DiskWithoutInstance,
    /// An instance, not being deleted, whose root disk has no row.
    InstanceWithoutDisk,
    /// An instance on a host that isn't known.
    InstanceWithoutHost,
    /// A reservation long expired.
    ReservationExpired,
    /// Outcomes of operations kept past their time.
    OperationExpired,
}

impl LeakKind {
    pub const ALL: [Self; 8] = [
        Self::HostClaim,
        Self::ComputeUsage,
        Self::StorageUsage,
        Self::DiskWithoutInstance,
        Self::InstanceWithoutDisk,
        Self::InstanceWithoutHost,
        Self::ReservationExpired,
        Self::OperationExpired,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostClaim => "host_claim",
            Self::ComputeUsage => "compute_usage",
            Self::StorageUsage => "storage_usage",
            Self::DiskWithoutInstance => "disk_without_instance",
            Self::InstanceWithoutDisk => "instance_without_disk",
            Self::InstanceWithoutHost => "instance_without_host",
            Self::ReservationExpired => "reservation_expired",
            Self::OperationExpired => "operation_expired",
        }
    }

    /// Gives `detail`; `$1` is the time before which it counts.
    fn sql(self) -> &'static str {
        match self {
            Self::HostClaim => {
                "SELECT 'host ' || h.id || ' counts ' || h.vcpus_used || ' vCPUs, ' || h.memory_mib_used || ' MiB, '
                    || h.disk_gib_used || ' GiB; its instances claim ' || COALESCE(i.vcpus, 0) || ', '
                    || COALESCE(i.memory_mib, 0) || ', ' || COALESCE(i.disk_gib, 0) AS detail
                 FROM host AS h LEFT JOIN (SELECT host_id, sum(claim_vcpus) AS vcpus, sum(claim_memory_mib) AS memory_mib,
                    sum(claim_disk_gib) AS disk_gib FROM instance GROUP BY host_id) AS i ON i.host_id = h.id
                 WHERE h.vcpus_used <> COALESCE(i.vcpus, 0) OR h.memory_mib_used <> COALESCE(i.memory_mib, 0)
                    OR h.disk_gib_used <> COALESCE(i.disk_gib, 0)"
            }
            Self::ComputeUsage => {
                "SELECT 'project ' || p.id || ' counts ' || COALESCE(u.instances, 0) || ' instances, '
                    || COALESCE(u.vcpus, 0) || ' vCPUs, ' || COALESCE(u.memory_mib, 0) || ' MiB; its instances take '
                    || COALESCE(i.instances, 0) || ', ' || COALESCE(i.vcpus, 0) || ', ' || COALESCE(i.memory_mib, 0) AS detail
                 FROM project AS p LEFT JOIN compute_usage AS u ON u.project_id = p.id
                    LEFT JOIN (SELECT project_id, count(*) AS instances, sum({vcpus}) AS vcpus,
                        sum({memory_mib}) AS memory_mib FROM instance WHERE NOT quota_released GROUP BY project_id) AS i
                    ON i.project_id = p.id
                 WHERE COALESCE(u.instances, 0) <> COALESCE(i.instances, 0) OR COALESCE(u.vcpus, 0) <> COALESCE(i.vcpus, 0)
                    OR COALESCE(u.memory_mib, 0) <> COALESCE(i.memory_mib, 0)"
            }
            Self::StorageUsage => {
                "SELECT 'project ' || p.id || ' counts ' || COALESCE(u.disk_gib, 0) || ' GiB; its disks take '
                    || COALESCE(d.disk_gib, 0) AS detail
                 FROM project AS p LEFT JOIN storage_usage AS u ON u.project_id = p.id
                    LEFT JOIN (SELECT project_id, sum(size_gib) AS disk_gib FROM disk WHERE state <> 'releasing'
                        GROUP BY project_id) AS d ON d.project_id = p.id
                 WHERE COALESCE(u.disk_gib, 0) <> COALESCE(d.disk_gib, 0)"
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
            Self::ReservationExpired => {
                "SELECT 'disk ' || id || ' is reserved for instance ' || instance_id || ' and expired long ago' AS detail
                 FROM disk WHERE expires_at IS NOT NULL AND expires_at < $1 AND state = 'reserved'"
            }
            Self::OperationExpired => {
                "SELECT 'the outcome of operation ' || id || ' is kept past its time' AS detail FROM (
                    SELECT id FROM identity_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM compute_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM storage_operation WHERE created_at < $1) AS o"
            }
        }
    }

    /// The longest age that is no leak, seconds; `None` where age says nothing.
    fn grace_secs(self) -> Option<u64> {
        match self {
            Self::ReservationExpired => Some(SWEEP_GRACE_SECS),
            Self::OperationExpired => Some(OUTCOME_KEPT_SECS),
            Self::HostClaim
            | Self::ComputeUsage
            | Self::StorageUsage
            | Self::DiskWithoutInstance
            | Self::InstanceWithoutDisk
            | Self::InstanceWithoutHost => None,
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
        let now = Timestamp::now();
        let mut leaks = Vec::new();
        for kind in LeakKind::ALL {
            let sql = kind.sql().replace("{vcpus}", &size("vcpus")).replace("{memory_mib}", &size("memory_mib"));
            let binds = kind.grace_secs().map(|secs| {
                let millis = i64::try_from(secs * 1000).unwrap_or(i64::MAX);
                Timestamp(now.0 - millis).into()
            });
            let rows: Vec<DetailRow> = self.pool().fetch_all(AssertSqlSafe(format!("{sql} LIMIT 100")), binds).await?;
            leaks.extend(rows.into_iter().map(|row| Leak { kind, detail: row.detail }));
        }
        Ok(leaks)
    }
}
