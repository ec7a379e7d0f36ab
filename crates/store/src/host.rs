//! Hosts: what the operator decided, what their agents reported, and what is claimed on them. Written by the cluster-manager.
//!
//! Claims are sums (`*_used`), guarded by capacity in the statement that adds to them, so creates on one host don't conflict with each
//! other: only cordon, tags, zone, reserve and overcommit are fenced by the host's generation. Each op that changes what the host must be raises its
//! `revision`.

use crate::{Page, ReadError, Store};
use domain::{
    HostId, Name, ProjectId, Timestamp,
    flavor::Size,
    host::{FoundLedger, Host, HostFacts, HostLedger, HostState, MemoryOverhead},
};
use std::collections::BTreeMap;

op! {
    /// Registration: a new host, or a known one (by id) that says what it is now; a lost one stays lost. A known one keeps its name, zone, tags, reserve,
    /// overcommit, cordon, usage and generation: those are the operator's and the manager's. One that was only expected (no overcommit, perhaps no
    /// zone) gets these from its agent.
    HostUpsert {
        id: HostId,
        name: Name,
        zone: String,
        tags: BTreeMap<String, String>,
        state: HostState,
        /// Hardware threads, MiB and GiB that its agent reports. Offered is what of it is accepted; capacity is what isn't reserved of that, times
        /// the overcommit.
        threads: u32,
        memory_mib: u64,
        disk_gib: u64,
        /// Whether what a host reports first is accepted by that, and whether what it reports later is.
        accept_first: bool,
        accept_later: bool,
        cpu_overcommit_permille: u32,
        overhead: MemoryOverhead,
        facts: HostFacts,
        at: Timestamp,
    }
    on host, Insert by (id):
    "INSERT INTO host (id, name, zone, tags, state, cordoned, cordon_reason, vcpus, memory_mib, disk_gib,
        cpu_overcommit_permille, vcpus_used, memory_mib_used, disk_gib_used, overhead, facts, generation, revision,
        registered_at, state_changed_at, reported_vcpus, reported_memory_mib, reported_disk_gib,
        accepted_vcpus, accepted_memory_mib, accepted_disk_gib, offered_vcpus, offered_memory_mib, offered_disk_gib)
     SELECT o.id, o.name, o.zone, o.tags, o.state, FALSE, '', o.offered_vcpus * o.cpu_overcommit_permille / 1000,
        o.offered_memory_mib, o.offered_disk_gib, o.cpu_overcommit_permille, 0, 0, 0, o.overhead, o.facts, 1, 0, o.at, o.at,
        o.threads, o.memory_mib, o.disk_gib, o.accepted_vcpus, o.accepted_memory_mib, o.accepted_disk_gib,
        o.offered_vcpus, o.offered_memory_mib, o.offered_disk_gib
     FROM (SELECT a.*,
            CASE WHEN a.accepted_vcpus < a.threads THEN a.accepted_vcpus ELSE a.threads END AS offered_vcpus,
            CASE WHEN a.accepted_memory_mib < a.memory_mib THEN a.accepted_memory_mib ELSE a.memory_mib END AS offered_memory_mib,
            CASE WHEN a.accepted_disk_gib < a.disk_gib THEN a.accepted_disk_gib ELSE a.disk_gib END AS offered_disk_gib
        FROM (SELECT r.*,
                CASE WHEN r.accept_later OR (r.accept_first AND COALESCE(h.accepted_vcpus, 0) = 0) THEN r.threads
                    ELSE COALESCE(h.accepted_vcpus, 0) END AS accepted_vcpus,
                CASE WHEN r.accept_later OR (r.accept_first AND COALESCE(h.accepted_vcpus, 0) = 0) THEN r.memory_mib
                    ELSE COALESCE(h.accepted_memory_mib, 0) END AS accepted_memory_mib,
                CASE WHEN r.accept_later OR (r.accept_first AND COALESCE(h.accepted_vcpus, 0) = 0) THEN r.disk_gib
                    ELSE COALESCE(h.accepted_disk_gib, 0) END AS accepted_disk_gib
            FROM {rows} LEFT JOIN host AS h ON h.id = r.id) AS a) AS o
     WHERE TRUE
     ON CONFLICT (id) DO UPDATE SET
        vcpus = CASE WHEN excluded.offered_vcpus <= host.reserved_vcpus THEN 0
            WHEN host.cpu_overcommit_permille = 0
            THEN (excluded.offered_vcpus - host.reserved_vcpus) * excluded.cpu_overcommit_permille / 1000
            ELSE (excluded.offered_vcpus - host.reserved_vcpus) * host.cpu_overcommit_permille / 1000 END,
        memory_mib = CASE WHEN excluded.offered_memory_mib <= host.reserved_memory_mib THEN 0
            ELSE (excluded.offered_memory_mib - host.reserved_memory_mib) * host.memory_overcommit_permille / 1000 END,
        disk_gib = CASE WHEN excluded.offered_disk_gib <= host.reserved_disk_gib THEN 0
            ELSE (excluded.offered_disk_gib - host.reserved_disk_gib) * host.disk_overcommit_permille / 1000 END,
        reported_vcpus = excluded.reported_vcpus, reported_memory_mib = excluded.reported_memory_mib,
        reported_disk_gib = excluded.reported_disk_gib,
        accepted_vcpus = excluded.accepted_vcpus, accepted_memory_mib = excluded.accepted_memory_mib,
        accepted_disk_gib = excluded.accepted_disk_gib,
        offered_vcpus = excluded.offered_vcpus, offered_memory_mib = excluded.offered_memory_mib,
        offered_disk_gib = excluded.offered_disk_gib,
        cpu_overcommit_permille = CASE WHEN host.cpu_overcommit_permille = 0 THEN excluded.cpu_overcommit_permille
            ELSE host.cpu_overcommit_permille END,
        zone = CASE WHEN host.zone = '' THEN excluded.zone ELSE host.zone END,
        overhead = excluded.overhead, facts = excluded.facts,
        state_changed_at = CASE WHEN host.state = excluded.state OR host.state = 'lost' THEN host.state_changed_at
            ELSE excluded.state_changed_at END,
        state = CASE WHEN host.state = 'lost' THEN host.state ELSE excluded.state END"
}

op! {
    /// A host that was admitted and whose agent has said nothing yet: no room, no overcommit. A known one stays as it is.
    HostExpect { id: HostId, name: Name, zone: String, facts: HostFacts, overhead: MemoryOverhead, at: Timestamp }
    on host, Insert by (id):
    "INSERT INTO host (id, name, zone, tags, state, cordoned, cordon_reason, vcpus, memory_mib, disk_gib,
        cpu_overcommit_permille, vcpus_used, memory_mib_used, disk_gib_used, overhead, facts, generation, revision,
        registered_at, state_changed_at)
     SELECT r.id, r.name, r.zone, '{}', 'disconnected', FALSE, '', 0, 0, 0, 0, 0, 0, 0, r.overhead, r.facts, 1, 0, r.at, r.at
     FROM {rows} WHERE TRUE
     ON CONFLICT (id) DO NOTHING"
}

op! {
    /// Removal, with its admission. The sums say what the rows of instances may not show yet: a claim that is committed at the same time.
    HostDelete { id: HostId, expected_generation: i64 }
    on host, Change by (id), guard HostInUse:
    "DELETE FROM host WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})
     AND vcpus_used = 0 AND memory_mib_used = 0 AND disk_gib_used = 0
     AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.host_id = host.id)"
}

op! {
    /// What is seen of a host. A verdict is another matter: a host that is lost stays so.
    HostStateSet { id: HostId, state: HostState, at: Timestamp }
    on host, Change by (id):
    "UPDATE host SET state = r.state, state_changed_at = r.at FROM {rows}
     WHERE host.id = r.id AND host.state <> r.state AND host.state <> 'lost'"
}

op! {
    /// Which ledger the host's agent speaks from. What it follows from must still stand: an operator may have accepted a loss meanwhile.
    HostLedgerSet {
        id: HostId,
        known_ledger_id: String,
        known_found_ledger_id: String,
        ledger_id: String,
        ledger_start: i64,
        found_ledger_id: Option<String>,
        found_ledger_start: Option<i64>,
    }
    on host, Change by (id), guard HostGeneration:
    "UPDATE host SET ledger_id = r.ledger_id, ledger_start = r.ledger_start, found_ledger_id = r.found_ledger_id,
        found_ledger_start = r.found_ledger_start
     FROM {rows} WHERE host.id = r.id AND host.ledger_id = r.known_ledger_id
        AND COALESCE(host.found_ledger_id, '') = r.known_found_ledger_id"
}

op! {
    /// The operator gives up the ledger that counted: the one that the agent came with counts from now on, and starts are numbered above all
    /// that were seen before.
    HostLedgerAccept { id: HostId, found_ledger_id: String }
    on host, Change by (id), guard HostGeneration:
    "UPDATE host SET ledger_id = r.found_ledger_id, ledger_start = host.found_ledger_start, found_ledger_id = NULL,
        found_ledger_start = NULL, ledger_start_floor = CASE WHEN host.ledger_start < host.ledger_start_floor
            THEN host.ledger_start_floor ELSE host.ledger_start + 1 END
     FROM {rows} WHERE host.id = r.id AND host.found_ledger_id = r.found_ledger_id"
}

op! {
    /// What the operator decides. Raises the generation. Capacity follows from what the row says is offered: an agent may have said
    /// something new since it was read, which raises no generation.
    HostChange {
        id: HostId,
        expected_generation: i64,
        cordoned: bool,
        cordon_reason: String,
        draining: bool,
        dedicated_to: Option<ProjectId>,
        zone: String,
        tags: BTreeMap<String, String>,
        cpu_overcommit_permille: u32,
        memory_overcommit_permille: u32,
        disk_overcommit_permille: u32,
        reserved_vcpus: u32,
        reserved_memory_mib: u64,
        reserved_disk_gib: u64,
        /// All that its agent reports is accepted.
        accept_capacity: bool,
    }
    on host, Change by (id), guard HostGeneration:
    "UPDATE host SET cordoned = r.cordoned, cordon_reason = r.cordon_reason, draining = r.draining,
        dedicated_to = r.dedicated_to, zone = r.zone, tags = r.tags,
        cpu_overcommit_permille = r.cpu_overcommit_permille, memory_overcommit_permille = r.memory_overcommit_permille,
        disk_overcommit_permille = r.disk_overcommit_permille, reserved_vcpus = r.reserved_vcpus,
        reserved_memory_mib = r.reserved_memory_mib, reserved_disk_gib = r.reserved_disk_gib,
        accepted_vcpus = CASE WHEN r.accept_capacity THEN host.reported_vcpus ELSE host.accepted_vcpus END,
        accepted_memory_mib = CASE WHEN r.accept_capacity THEN host.reported_memory_mib ELSE host.accepted_memory_mib END,
        accepted_disk_gib = CASE WHEN r.accept_capacity THEN host.reported_disk_gib ELSE host.accepted_disk_gib END,
        offered_vcpus = CASE WHEN r.accept_capacity THEN host.reported_vcpus ELSE host.offered_vcpus END,
        offered_memory_mib = CASE WHEN r.accept_capacity THEN host.reported_memory_mib ELSE host.offered_memory_mib END,
        offered_disk_gib = CASE WHEN r.accept_capacity THEN host.reported_disk_gib ELSE host.offered_disk_gib END,
        vcpus = CASE WHEN (CASE WHEN r.accept_capacity THEN host.reported_vcpus ELSE host.offered_vcpus END) <= r.reserved_vcpus THEN 0
            ELSE ((CASE WHEN r.accept_capacity THEN host.reported_vcpus ELSE host.offered_vcpus END) - r.reserved_vcpus) * r.cpu_overcommit_permille / 1000 END,
        memory_mib = CASE WHEN (CASE WHEN r.accept_capacity THEN host.reported_memory_mib ELSE host.offered_memory_mib END) <= r.reserved_memory_mib THEN 0
            ELSE ((CASE WHEN r.accept_capacity THEN host.reported_memory_mib ELSE host.offered_memory_mib END) - r.reserved_memory_mib) * r.memory_overcommit_permille / 1000 END,
        disk_gib = CASE WHEN (CASE WHEN r.accept_capacity THEN host.reported_disk_gib ELSE host.offered_disk_gib END) <= r.reserved_disk_gib THEN 0
            ELSE ((CASE WHEN r.accept_capacity THEN host.reported_disk_gib ELSE host.offered_disk_gib END) - r.reserved_disk_gib) * r.disk_overcommit_permille / 1000 END,
        generation = r.expected_generation + 1
     FROM {rows} WHERE host.id = r.id AND host.generation = r.expected_generation"
}

op! {
    /// Takes room on a host that is up, not cordoned and not being emptied, within its capacity. An amount of 0 always fits.
    HostClaim {
        host_id: HostId,
        /// What the operator decided of the host (tags, zone, dedication) is as it was when it was chosen. None: that doesn't matter.
        generation: Option<i64>,
        vcpus: u32,
        memory_mib: u64,
        disk_gib: u64,
    }
    on host, Add by (host_id), guard HostCapacity:
    "UPDATE host SET vcpus_used = host.vcpus_used + c.vcpus, memory_mib_used = host.memory_mib_used + c.memory_mib,
        disk_gib_used = host.disk_gib_used + c.disk_gib, revision = host.revision + c.claims
     FROM (SELECT r.host_id, CAST(sum(r.vcpus) AS BIGINT) AS vcpus, CAST(sum(r.memory_mib) AS BIGINT) AS memory_mib,
            CAST(sum(r.disk_gib) AS BIGINT) AS disk_gib, count(*) AS claims, min(r.generation) AS oldest,
            max(r.generation) AS newest FROM {rows} GROUP BY r.host_id) AS c
     WHERE host.id = c.host_id AND host.state = 'up' AND NOT host.cordoned AND NOT host.draining
     AND (c.oldest IS NULL OR (host.generation = c.oldest AND host.generation = c.newest))
     AND (c.vcpus = 0 OR host.vcpus_used + c.vcpus <= host.vcpus)
     AND (c.memory_mib = 0 OR host.memory_mib_used + c.memory_mib <= host.memory_mib)
     AND (c.disk_gib = 0 OR host.disk_gib_used + c.disk_gib <= host.disk_gib)"
}

op! {
    /// Gives room back. The unit must hold a fence of its own (an [`crate::InstanceDelete`], an [`crate::InstanceDesired`]), so that it
    /// is given back once.
    HostRelease { host_id: HostId, vcpus: u32, memory_mib: u64, disk_gib: u64 }
    on host, Add by (host_id):
    "UPDATE host SET vcpus_used = host.vcpus_used - c.vcpus, memory_mib_used = host.memory_mib_used - c.memory_mib,
        disk_gib_used = host.disk_gib_used - c.disk_gib, revision = host.revision + c.claims
     FROM (SELECT r.host_id, CAST(sum(r.vcpus) AS BIGINT) AS vcpus, CAST(sum(r.memory_mib) AS BIGINT) AS memory_mib,
            CAST(sum(r.disk_gib) AS BIGINT) AS disk_gib, count(*) AS claims FROM {rows} GROUP BY r.host_id) AS c
     WHERE host.id = c.host_id"
}

op! {
    /// Raises the revision by one: what the host must be changed.
    HostRevision { host_id: HostId }
    on host, Add by (host_id):
    "UPDATE host SET revision = host.revision + c.changes
     FROM (SELECT r.host_id, count(*) AS changes FROM {rows} GROUP BY r.host_id) AS c
     WHERE host.id = c.host_id"
}

row! {
    struct HostRow of host {
        id: HostId,
        name: String,
        zone: String,
        tags: BTreeMap<String, String>,
        state: HostState,
        cordoned: bool,
        cordon_reason: String,
        draining: bool,
        dedicated_to: Option<ProjectId>,
        vcpus: u32,
        memory_mib: u64,
        disk_gib: u64,
        reported_vcpus: u32,
        reported_memory_mib: u64,
        reported_disk_gib: u64,
        accepted_vcpus: u32,
        accepted_memory_mib: u64,
        accepted_disk_gib: u64,
        offered_vcpus: u32,
        offered_memory_mib: u64,
        offered_disk_gib: u64,
        reserved_vcpus: u32,
        reserved_memory_mib: u64,
        reserved_disk_gib: u64,
        cpu_overcommit_permille: u32,
        memory_overcommit_permille: u32,
        disk_overcommit_permille: u32,
        vcpus_used: u32,
        memory_mib_used: u64,
        disk_gib_used: u64,
        overhead: MemoryOverhead,
        facts: HostFacts,
        generation: i64,
        revision: i64,
        registered_at: Timestamp,
        state_changed_at: Timestamp,
        ledger_id: String,
        ledger_start: i64,
        ledger_start_floor: i64,
        found_ledger_id: Option<String>,
        found_ledger_start: Option<i64>,
    }
}

row! {
    #[derive(Eq)]
    pub struct HostStateRow of host {
        pub id: HostId,
        pub state: HostState,
        pub state_changed_at: Timestamp,
    }
}

impl From<HostRow> for Host {
    fn from(row: HostRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            zone: row.zone,
            tags: row.tags,
            state: row.state,
            cordoned: row.cordoned,
            cordon_reason: row.cordon_reason,
            draining: row.draining,
            dedicated_to: row.dedicated_to,
            capacity: Size { vcpus: row.vcpus, memory_mib: row.memory_mib, disk_gib: row.disk_gib },
            reported: Size {
                vcpus: row.reported_vcpus,
                memory_mib: row.reported_memory_mib,
                disk_gib: row.reported_disk_gib,
            },
            accepted: Size {
                vcpus: row.accepted_vcpus,
                memory_mib: row.accepted_memory_mib,
                disk_gib: row.accepted_disk_gib,
            },
            offered: Size {
                vcpus: row.offered_vcpus,
                memory_mib: row.offered_memory_mib,
                disk_gib: row.offered_disk_gib,
            },
            reserved: Size {
                vcpus: row.reserved_vcpus,
                memory_mib: row.reserved_memory_mib,
                disk_gib: row.reserved_disk_gib,
            },
            cpu_overcommit_permille: row.cpu_overcommit_permille,
            memory_overcommit_permille: row.memory_overcommit_permille,
            disk_overcommit_permille: row.disk_overcommit_permille,
            used: Size { vcpus: row.vcpus_used, memory_mib: row.memory_mib_used, disk_gib: row.disk_gib_used },
            overhead: row.overhead,
            facts: row.facts,
            generation: row.generation,
            revision: row.revision,
            registered_at: row.registered_at,
            state_changed_at: row.state_changed_at,
            ledger: HostLedger {
                id: row.ledger_id,
                start: row.ledger_start,
                start_floor: row.ledger_start_floor,
                found: row.found_ledger_id.map(|id| FoundLedger { id, start: row.found_ledger_start.unwrap_or(0) }),
            },
        }
    }
}

record! { Host, from HostRow }

impl Store {
    pub async fn host_find(&self, id: HostId) -> Result<Option<Host>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn host_find_by_name(&self, name: &str) -> Result<Option<Host>, ReadError> {
        self.pool().find("WHERE name = $1", [name.into()]).await
    }

    /// The states of these hosts, and since when they are in them.
    pub async fn host_states(&self, ids: &[HostId]) -> Result<Vec<HostStateRow>, ReadError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.pool().list_among("id", ids).await
    }

    /// All of them, by id.
    pub async fn host_list(&self) -> Result<Vec<Host>, ReadError> {
        self.pool().list("ORDER BY id", []).await
    }

    pub async fn host_list_page(&self, page: Page) -> Result<Vec<Host>, ReadError> {
        self.pool().page(None, page).await
    }
}
