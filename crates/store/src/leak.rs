//! The invariant checker's queries: what is held without an owner, and sums that don't match what they are the sums of. On a healthy system the
//! report is always empty.
//!
//! **However much there is, one read is small.** Each check walks one table in the order of its primary key, a page at a time
//! ([`Store::leak_page`]), and looks up by an index what belongs to the row: so it costs what the page costs, whether there are ten rows or a
//! million. A sum is compared for one host or one project; what it reads is bounded by what they may have. Whether there is a row is asked as a
//! count, and what a project counts as a subquery: of `EXISTS` and of a join PostgreSQL may make a pass over the other table. Each row is looked
//! at in one statement, so it sees one moment. What is looked for by its age needs no walk: an index has the oldest first.
//!
//! **Rejected:** one statement for all rows, with joins and groups over whole tables: at a million instances it holds its snapshot for minutes.

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

    /// How its leaks are found: one walk for each table in which they may be.
    fn walks(self) -> &'static [Walk] {
        match self {
            Self::HostClaim => &[Walk::Sum {
                key: "h.id",
                from: "host AS h",
                what: "host",
                counted: "h.vcpus_used || ' vCPUs, ' || h.memory_mib_used || ' MiB, ' || h.disk_gib_used || ' GiB'",
                there: "(SELECT COALESCE(sum(i.claim_vcpus), 0) || ' vCPUs, ' || COALESCE(sum(i.claim_memory_mib), 0)
                    || ' MiB, ' || COALESCE(sum(i.claim_disk_gib), 0) || ' GiB' FROM instance AS i WHERE i.host_id = h.id)",
            }],
            Self::ComputeUsage => &[Walk::Sum {
                key: "p.id",
                from: "project AS p",
                what: "project",
                counted: "COALESCE((SELECT u.instances || ' instances, ' || u.vcpus || ' vCPUs, ' || u.memory_mib || ' MiB'
                    FROM compute_usage AS u WHERE u.project_id = p.id), '0 instances, 0 vCPUs, 0 MiB')",
                there: "(SELECT count(*) || ' instances, ' || COALESCE(sum({vcpus}), 0) || ' vCPUs, '
                    || COALESCE(sum({memory_mib}), 0) || ' MiB' FROM instance AS i
                    WHERE i.project_id = p.id AND NOT i.quota_released)",
            }],
            Self::StorageUsage => &[Walk::Sum {
                key: "p.id",
                from: "project AS p",
                what: "project",
                counted: "COALESCE((SELECT u.disk_gib FROM storage_usage AS u WHERE u.project_id = p.id), 0)
                    || ' GiB of disks'",
                there: "(SELECT COALESCE(sum(d.size_gib), 0) || ' GiB of disks' FROM disk AS d
                    WHERE d.project_id = p.id AND d.state <> 'releasing')",
            }],
            Self::ImageUsage => &[Walk::Sum {
                key: "p.id",
                from: "project AS p",
                what: "project",
                counted: "COALESCE((SELECT u.images || ' images, ' || u.image_gib || ' GiB' FROM storage_usage AS u
                    WHERE u.project_id = p.id), '0 images, 0 GiB')",
                there: "(SELECT count(*) || ' images, ' || COALESCE(sum(m.size_gib + m.reserved_gib), 0) || ' GiB'
                    FROM image AS m WHERE m.project_id = p.id)",
            }],
            Self::IdentityUsage => &[Walk::Sum {
                key: "p.id",
                from: "project AS p",
                what: "project",
                counted: "COALESCE((SELECT u.ssh_keys || ' SSH keys, ' || u.placement_groups || ' placement groups'
                    FROM identity_usage AS u WHERE u.project_id = p.id), '0 SSH keys, 0 placement groups')",
                there: "(SELECT count(*) FROM ssh_key AS k WHERE k.project_id = p.id) || ' SSH keys, '
                    || (SELECT count(*) FROM placement_group AS g WHERE g.project_id = p.id) || ' placement groups'",
            }],
            Self::NetworkUsage => &[Walk::Sum {
                key: "x.id",
                from: "project AS x",
                what: "project",
                counted: NETWORKS_COUNTED,
                there: NETWORKS_THERE,
            }],
            Self::PlacementAnchor => &[Walk::Sum {
                key: "a.group_id",
                from: "placement_anchor AS a",
                what: "placement group",
                counted: "a.members || ' members at its place'",
                there: "(SELECT count(*) || ' members at its place' FROM placement_member AS m
                    WHERE m.group_id = a.group_id AND m.place = a.place)",
            }],
            Self::DiskWithoutInstance => &[Walk::Rows {
                keys: ["d.id", "''"],
                from: "disk AS d",
                leaks: "d.state = 'confirmed' AND (SELECT count(*) FROM instance AS i WHERE i.id = d.instance_id) = 0",
                detail: "'disk ' || d.id || ' is confirmed for instance ' || d.instance_id || ', which is gone'",
            }],
            Self::InstanceWithoutDisk => &[Walk::Rows {
                keys: ["i.id", "''"],
                from: "instance AS i",
                leaks: "i.root_disk_id IS NOT NULL AND i.state <> 'deleting'
                    AND (SELECT count(*) FROM disk AS d WHERE d.id = i.root_disk_id AND d.instance_id = i.id) = 0",
                detail: "'instance ' || i.id || ' names root disk ' || i.root_disk_id || ', which has no row'",
            }],
            Self::InstanceWithoutHost => &[Walk::Rows {
                keys: ["i.id", "''"],
                from: "instance AS i",
                leaks: "i.host_id IS NOT NULL AND (SELECT count(*) FROM host AS h WHERE h.id = i.host_id) = 0",
                detail: "'instance ' || i.id || ' is on host ' || i.host_id || ', which is not known'",
            }],
            Self::PortWithoutInstance => &[Walk::Rows {
                keys: ["p.id", "''"],
                from: "port AS p",
                leaks: "p.instance_id IS NOT NULL AND p.expires_at IS NULL
                    AND (SELECT count(*) FROM instance AS i WHERE i.id = p.instance_id) = 0",
                detail: "'port ' || p.id || ' is bound for instance ' || p.instance_id || ', which is gone'",
            }],
            Self::UplinkWithoutRouter => &[Walk::Rows {
                keys: ["u.network_id", "u.host_id"],
                from: "uplink AS u",
                leaks: "(SELECT count(*) FROM router AS r WHERE r.network_id = u.network_id
                    AND r.external_network_id = u.external_network_id) = 0",
                detail: "'network ' || u.network_id || ' has an uplink on host ' || u.host_id || ', and no router to '
                    || u.external_network_id",
            }],
            Self::AddressWithoutOwner => &[Walk::Rows {
                keys: ["a.scope_id", "a.address"],
                from: "address AS a",
                leaks: ADDRESS_WITHOUT_OWNER,
                detail: "'address ' || a.address || ' of ' || a.scope_id || ' belongs to ' || a.owner_kind || ' ' || a.owner_id
                    || ', which doesn''t have it'",
            }],
            Self::OwnerWithoutAddress => &[
                Walk::Rows {
                    keys: ["p.id", "''"],
                    from: "port AS p",
                    leaks: "(SELECT count(*) FROM {fixed_ips} WHERE (SELECT count(*) FROM address AS a
                        WHERE a.scope_id = p.network_id AND a.address = {fixed_ip} AND a.owner_kind = 'port'
                        AND a.owner_id = p.id AND a.free_at IS NULL) = 0) > 0",
                    detail: "'port ' || p.id || ' has an address of ' || p.network_id || ', which is not its own'",
                },
                Walk::Rows {
                    keys: ["f.id", "''"],
                    from: "floating_ip AS f",
                    leaks: "(SELECT count(*) FROM address AS a WHERE a.scope_id = f.external_network_id
                        AND a.address = f.address AND a.owner_kind = 'floating_ip' AND a.owner_id = f.id
                        AND a.free_at IS NULL) = 0",
                    detail: "'floating_ip ' || f.id || ' has ' || f.address || ' of ' || f.external_network_id
                        || ', which is not its own'",
                },
                Walk::Rows {
                    keys: ["u.network_id", "u.host_id"],
                    from: "uplink AS u",
                    leaks: "(SELECT count(*) FROM {uplinks} WHERE (SELECT count(*) FROM address AS a
                        WHERE a.scope_id = u.external_network_id AND a.address = {uplink} AND a.owner_kind = 'uplink'
                        AND a.owner_id = u.network_id || '/' || u.host_id AND a.free_at IS NULL) = 0) > 0",
                    detail: "'the uplink of network ' || u.network_id || ' on host ' || u.host_id
                        || ' has an address that is not its own'",
                },
            ],
            Self::ReservationExpired => &[
                Walk::Oldest {
                    sql: "SELECT 'disk ' || id || ' is reserved for instance ' || instance_id || ' and expired long ago' AS detail
                        FROM disk WHERE expires_at IS NOT NULL AND expires_at < $1 AND state = 'reserved'",
                    grace_secs: SWEEP_GRACE_SECS,
                },
                Walk::Oldest {
                    sql: "SELECT 'port ' || id || ' is reserved for instance ' || COALESCE(instance_id, '(none)')
                        || ' and expired long ago' AS detail FROM port WHERE expires_at IS NOT NULL AND expires_at < $1",
                    grace_secs: SWEEP_GRACE_SECS,
                },
            ],
            Self::AddressUnswept => &[Walk::Oldest {
                sql: "SELECT 'address ' || address || ' of ' || scope_id || ' is still quarantined, and should be free' AS detail
                    FROM address WHERE free_at IS NOT NULL AND free_at < $1",
                grace_secs: SWEEP_GRACE_SECS,
            }],
            Self::OperationExpired => &[Walk::Oldest {
                sql: "SELECT 'the outcome of operation ' || id || ' is kept past its time' AS detail FROM (
                    SELECT id FROM identity_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM compute_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM storage_operation WHERE created_at < $1
                    UNION ALL SELECT id FROM resource_operation WHERE created_at < $1) AS o",
                grace_secs: OUTCOME_KEPT_SECS,
            }],
        }
    }
}

/// One way through one table.
enum Walk {
    /// Each row of `from`, in the order of `keys`, is a leak when `leaks` holds.
    Rows { keys: [&'static str; 2], from: &'static str, leaks: &'static str, detail: &'static str },
    /// Each row of `from`, in the order of `key`, must count what there is. Both are texts of the same form.
    Sum { key: &'static str, from: &'static str, what: &'static str, counted: &'static str, there: &'static str },
    /// The oldest of what should be gone: `$1` is the time before which something counts.
    Oldest { sql: &'static str, grace_secs: u64 },
}

impl Walk {
    /// The statement, in which `$1` and `$2` are the keys behind which the page begins, and `$3` is its size. An empty one is before all keys.
    fn page(&self) -> String {
        match self {
            Self::Rows { keys: [first, "''"], from, leaks, detail } => format!(
                "SELECT {first} AS first, '' AS second, CASE WHEN {leaks} THEN {detail} END AS detail FROM {from}
                 WHERE {first} > $1 AND $2 = '' ORDER BY {first} LIMIT $3"
            ),
            Self::Rows { keys: [first, second], from, leaks, detail } => format!(
                "SELECT {first} AS first, {second} AS second, CASE WHEN {leaks} THEN {detail} END AS detail FROM {from}
                 WHERE ({first}, {second}) > ($1, $2) ORDER BY {first}, {second} LIMIT $3"
            ),
            Self::Sum { key, from, what, counted, there } => format!(
                "SELECT t.first, '' AS second, CASE WHEN t.counted <> t.there
                    THEN '{what} ' || t.first || ' counts ' || t.counted || '; there are ' || t.there END AS detail
                 FROM (SELECT {key} AS first, {counted} AS counted, {there} AS there FROM {from}
                    WHERE {key} > $1 AND $2 = '' ORDER BY {key} LIMIT $3) AS t ORDER BY t.first"
            ),
            Self::Oldest { sql, .. } => format!("{sql} LIMIT {OLDEST_MAX}"),
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

/// Where a look for leaks goes on. The default is the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeakCursor {
    kind: usize,
    walk: usize,
    after: [String; 2],
}

impl LeakCursor {
    /// The walk behind this one.
    fn next(self) -> Option<Self> {
        let after = Default::default();
        if self.walk + 1 < LeakKind::ALL.get(self.kind)?.walks().len() {
            return Some(Self { walk: self.walk + 1, after, ..self });
        }
        (self.kind + 1 < LeakKind::ALL.len()).then_some(Self { kind: self.kind + 1, walk: 0, after })
    }
}

/// So many of what is found by its age are named.
const OLDEST_MAX: u32 = 100;

/// What a project counts as used of networks, and what there is, in the terms of the quotas.
const NETWORKS_COUNTED: &str =
    "COALESCE((SELECT u.networks || ' networks, ' || u.subnets || ' subnets, ' || u.ports || ' ports, ' || u.routers
        || ' routers, ' || u.floating_ips || ' floating IPs, ' || u.security_groups || ' security groups, '
        || u.security_rules || ' security rules, ' || u.peerings || ' peerings'
        FROM network_usage AS u WHERE u.project_id = x.id),
    '0 networks, 0 subnets, 0 ports, 0 routers, 0 floating IPs, 0 security groups, 0 security rules, 0 peerings')";
const NETWORKS_THERE: &str = "(SELECT count(*) FROM network AS y WHERE y.project_id = x.id) || ' networks, '
    || (SELECT count(*) FROM subnet AS y WHERE y.project_id = x.id) || ' subnets, '
    || (SELECT count(*) FROM port AS y WHERE y.project_id = x.id AND y.state <> 'releasing') || ' ports, '
    || (SELECT count(*) FROM router AS y WHERE y.project_id = x.id) || ' routers, '
    || (SELECT count(*) FROM floating_ip AS y WHERE y.project_id = x.id) || ' floating IPs, '
    || (SELECT count(*) FROM security_group AS y WHERE y.project_id = x.id) || ' security groups, '
    || (SELECT count(*) FROM security_rule AS r JOIN security_group AS y ON y.id = r.security_group_id
        WHERE y.project_id = x.id) || ' security rules, '
    || (SELECT count(*) FROM peering AS y WHERE y.project_id = x.id) || ' peerings'";

/// Whether the owner that an address `a` names doesn't have it. An uplink is named by its network and its host, 36 characters each.
const ADDRESS_WITHOUT_OWNER: &str = "a.free_at IS NULL AND NOT CASE a.owner_kind
    WHEN 'port' THEN (SELECT count(*) FROM port AS p, {fixed_ips} WHERE p.id = a.owner_id AND p.network_id = a.scope_id
        AND {fixed_ip} = a.address) > 0
    WHEN 'floating_ip' THEN (SELECT count(*) FROM floating_ip AS i WHERE i.id = a.owner_id
        AND i.external_network_id = a.scope_id AND i.address = a.address) > 0
    WHEN 'uplink' THEN (SELECT count(*) FROM uplink AS u, {uplinks} WHERE u.network_id = substr(a.owner_id, 1, 36)
        AND u.host_id = substr(a.owner_id, 38) AND u.external_network_id = a.scope_id AND {uplink} = a.address) > 0
    ELSE 1 = 0 END";

row! {
    struct PageRow { first: String, second: String, detail: Option<String> }
}

row! {
    struct DetailRow { detail: String }
}

impl Store {
    /// Every leak there is, page by page. Between two services' commits a disk without its instance can be found for a moment: what two reports
    /// in a row name is a leak.
    pub async fn leak_report(&self) -> Result<Vec<Leak>, ReadError> {
        let (mut leaks, mut cursor) = (Vec::new(), LeakCursor::default());
        loop {
            let (found, next) = self.leak_page(&cursor, 1000).await?;
            leaks.extend(found);
            match next {
                Some(next) => cursor = next,
                None => return Ok(leaks),
            }
        }
    }

    /// The leaks among the next `rows` rows, and where to go on; `None` at the end.
    pub async fn leak_page(
        &self,
        cursor: &LeakCursor,
        rows: u32,
    ) -> Result<(Vec<Leak>, Option<LeakCursor>), ReadError> {
        let Some(kind) = LeakKind::ALL.get(cursor.kind).copied() else { return Ok((Vec::new(), None)) };
        let Some(walk) = kind.walks().get(cursor.walk) else { return Ok((Vec::new(), cursor.clone().next())) };
        let sql = AssertSqlSafe(self.of_this_database(walk.page()));
        let leak = |detail| Leak { kind, detail };
        if let Walk::Oldest { grace_secs, .. } = walk {
            let millis = i64::try_from(grace_secs * 1000).unwrap_or(i64::MAX);
            let before = Timestamp(Timestamp::now().0 - millis);
            let found: Vec<DetailRow> = self.pool().fetch_all(sql, [before.into()]).await?;
            return Ok((found.into_iter().map(|row| leak(row.detail)).collect(), cursor.clone().next()));
        }
        let [first, second] = cursor.after.clone();
        let binds = [first.into(), second.into(), i64::from(rows).into()];
        let page: Vec<PageRow> = self.pool().fetch_all(sql, binds).await?;
        let next = match page.last() {
            Some(last) if page.len() >= rows as usize => {
                Some(LeakCursor { after: [last.first.clone(), last.second.clone()], ..cursor.clone() })
            }
            Some(_) | None => cursor.clone().next(),
        };
        Ok((page.into_iter().filter_map(|row| row.detail.map(leak)).collect(), next))
    }

    /// The statement with what the two databases say differently.
    fn of_this_database(&self, sql: String) -> String {
        let size = |field: &str| {
            self.pool().pick(
                format!("i.spec ->> '$.size.{field}'"),
                format!("CAST(i.spec::jsonb -> 'size' ->> '{field}' AS BIGINT)"),
            )
        };
        let (fixed_ips, fixed_ip) = self.pool().pick(
            ("json_each(p.fixed_ips) AS f", "f.value ->> '$.address'"),
            ("jsonb_array_elements(p.fixed_ips::jsonb) AS f(value)", "f.value ->> 'address'"),
        );
        let (uplinks, uplink) = self.pool().pick(
            ("json_each(u.addresses) AS f", "substr(f.value, 1, instr(f.value, '/') - 1)"),
            ("jsonb_array_elements_text(u.addresses::jsonb) AS f(value)", "split_part(f.value, '/', 1)"),
        );
        let sql = sql.replace("{vcpus}", &size("vcpus")).replace("{memory_mib}", &size("memory_mib"));
        let sql = sql.replace("{fixed_ips}", fixed_ips).replace("{fixed_ip}", fixed_ip);
        sql.replace("{uplinks}", uplinks).replace("{uplink}", uplink)
    }
}
