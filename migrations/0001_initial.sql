-- The schema. Ids are UUIDv7 text, times are milliseconds since the epoch (UTC), JSON is text.
-- Both databases run this one text. Who writes which table is in docs/ARCHITECTURE.md. Constraints are named; crates/store maps them to errors
-- by name.

-- Identity and catalog: written by the api-gateway --------------------------------------------------------------------

CREATE TABLE project (
    id          TEXT PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT project_name_unique UNIQUE (name)
);

CREATE TABLE user_account (
    id            TEXT PRIMARY KEY NOT NULL,
    name          TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    system_admin  BOOLEAN NOT NULL,
    enabled       BOOLEAN NOT NULL,
    generation    BIGINT NOT NULL,
    -- Access tokens carry it. It rises with each new password and when the user is disabled: tokens of before end.
    session_version BIGINT NOT NULL DEFAULT 1,
    -- The project that requests mean which name none. It is no foreign key: it counts only while the user has a role there.
    home_project_id TEXT,
    created_at    BIGINT NOT NULL,
    CONSTRAINT user_account_name_unique UNIQUE (name)
);

CREATE TABLE role_binding (
    project_id TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    role       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT role_binding_pk PRIMARY KEY (project_id, user_id),
    CONSTRAINT role_binding_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE,
    CONSTRAINT role_binding_user_fk FOREIGN KEY (user_id) REFERENCES user_account (id) ON DELETE CASCADE
);
CREATE INDEX role_binding_user ON role_binding (user_id);

CREATE TABLE api_key (
    id          TEXT PRIMARY KEY NOT NULL,
    user_id     TEXT NOT NULL,
    project_id  TEXT,
    name        TEXT NOT NULL,
    prefix      TEXT NOT NULL,
    secret_hash TEXT NOT NULL,
    role        TEXT,
    expires_at  BIGINT,
    created_at  BIGINT NOT NULL,
    CONSTRAINT api_key_name_unique UNIQUE (user_id, name),
    CONSTRAINT api_key_prefix_unique UNIQUE (prefix),
    CONSTRAINT api_key_user_fk FOREIGN KEY (user_id) REFERENCES user_account (id) ON DELETE CASCADE,
    CONSTRAINT api_key_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);
CREATE INDEX api_key_project ON api_key (project_id);

-- A refresh token is used once. Using one again revokes its whole family.
CREATE TABLE refresh_token (
    secret_hash TEXT PRIMARY KEY NOT NULL,
    family      TEXT NOT NULL,
    user_id     TEXT NOT NULL,
    used_at     BIGINT,
    expires_at  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT refresh_token_user_fk FOREIGN KEY (user_id) REFERENCES user_account (id) ON DELETE CASCADE
);
CREATE INDEX refresh_token_family ON refresh_token (family);
CREATE INDEX refresh_token_user ON refresh_token (user_id);
CREATE INDEX refresh_token_expiry ON refresh_token (expires_at);

CREATE TABLE signing_key (
    kid            TEXT PRIMARY KEY NOT NULL,
    wrapped_secret TEXT NOT NULL,
    public_key     TEXT NOT NULL,
    created_at     BIGINT NOT NULL,
    retired_at     BIGINT
);

CREATE TABLE ssh_key (
    id          TEXT PRIMARY KEY NOT NULL,
    project_id  TEXT NOT NULL,
    name        TEXT NOT NULL,
    public_key  TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT ssh_key_name_unique UNIQUE (project_id, name),
    CONSTRAINT ssh_key_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

CREATE TABLE flavor (
    id          TEXT PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    vcpus       BIGINT NOT NULL,
    memory_mib  BIGINT NOT NULL,
    disk_gib    BIGINT NOT NULL,
    -- `numa`: the vCPUs get threads of their own on one NUMA node.
    pinning     TEXT NOT NULL DEFAULT 'none',
    description TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT flavor_name_unique UNIQUE (name)
);

-- What a group says. Where its members are is the cluster-manager's (placement_member, placement_anchor).
CREATE TABLE placement_group (
    id         TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name       TEXT NOT NULL,
    policy     TEXT NOT NULL,
    scope      TEXT NOT NULL,
    strength   TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT placement_group_name_unique UNIQUE (project_id, name),
    CONSTRAINT placement_group_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);
CREATE INDEX placement_group_project_id ON placement_group (project_id, id);

CREATE TABLE quota_limit (
    project_id      TEXT PRIMARY KEY NOT NULL,
    instances       BIGINT NOT NULL,
    vcpus           BIGINT NOT NULL,
    memory_mib      BIGINT NOT NULL,
    disk_gib        BIGINT NOT NULL,
    images          BIGINT NOT NULL,
    image_gib       BIGINT NOT NULL,
    networks        BIGINT NOT NULL,
    subnets         BIGINT NOT NULL,
    ports           BIGINT NOT NULL,
    routers         BIGINT NOT NULL,
    floating_ips    BIGINT NOT NULL,
    security_groups BIGINT NOT NULL,
    security_rules  BIGINT NOT NULL,
    peerings        BIGINT NOT NULL,
    ssh_keys         BIGINT NOT NULL,
    placement_groups BIGINT NOT NULL,
    generation      BIGINT NOT NULL,
    CONSTRAINT quota_limit_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

CREATE TABLE identity_usage (
    project_id       TEXT PRIMARY KEY NOT NULL,
    ssh_keys         BIGINT NOT NULL,
    placement_groups BIGINT NOT NULL,
    CONSTRAINT identity_usage_not_negative CHECK (ssh_keys >= 0 AND placement_groups >= 0),
    CONSTRAINT identity_usage_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

-- (principal, key) is mapped to the operation that answers it. The operation's outcome is with the service that owns the object.
CREATE TABLE idempotency (
    principal    TEXT NOT NULL,
    idem_key     TEXT NOT NULL,
    body_hash    TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    -- Existing objects that the request named. Ids of new ones follow from the operation's.
    object_ids   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    CONSTRAINT idempotency_pk PRIMARY KEY (principal, idem_key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Outcomes of operations have one table per owning service. `outcome` is base64 of the message that answers the call (crates/operation).
CREATE TABLE identity_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT identity_operation_pk PRIMARY KEY (id)
);
CREATE INDEX identity_operation_created ON identity_operation (created_at);

-- Written by the storage-manager. It stands here because instances refer to it.
CREATE TABLE image (
    id             TEXT PRIMARY KEY NOT NULL,
    project_id     TEXT NOT NULL,
    name           TEXT NOT NULL,
    visibility     TEXT NOT NULL,
    kind           TEXT NOT NULL,
    format         TEXT NOT NULL,
    cmdline        TEXT NOT NULL,
    min_disk_gib   BIGINT NOT NULL,
    min_memory_mib BIGINT NOT NULL,
    state          TEXT NOT NULL,
    parts          TEXT NOT NULL,
    -- What its parts take of the project's quota, and what uploads in progress have reserved of it.
    size_gib       BIGINT NOT NULL,
    reserved_gib   BIGINT NOT NULL,
    reason         TEXT NOT NULL,
    deadline_at    BIGINT,
    generation     BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    CONSTRAINT image_name_unique UNIQUE (project_id, name),
    CONSTRAINT image_project_fk FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE INDEX image_name ON image (name);
CREATE INDEX image_deleting ON image (id) WHERE state = 'deleting';
CREATE INDEX image_deadline ON image (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX image_reserved ON image (id) WHERE reserved_gib > 0;

-- The objects that images' parts name, by SHA-256: who needs an object is found by its hash.
CREATE TABLE image_object (
    sha256   TEXT NOT NULL,
    image_id TEXT NOT NULL,
    CONSTRAINT image_object_pk PRIMARY KEY (sha256, image_id),
    CONSTRAINT image_object_image_fk FOREIGN KEY (image_id) REFERENCES image (id) ON DELETE CASCADE
);
CREATE INDEX image_object_image ON image_object (image_id);

-- Which process leads a manager's role, and under which term. Every unit of a manager is checked against its role's term. On PostgreSQL the
-- leader renews its row within ttl_ms; on SQLite (ttl_ms is 0) a lock on a file beside the database decides who leads.
CREATE TABLE manager_lease (
    role       TEXT PRIMARY KEY NOT NULL,
    term       BIGINT NOT NULL,
    -- The process: drawn when it starts, and what people know it by.
    holder     TEXT NOT NULL,
    host       TEXT NOT NULL,
    pid        BIGINT NOT NULL,
    -- Where it is reached.
    address    TEXT NOT NULL,
    -- Rises with every renewal and every takeover.
    renewals   BIGINT NOT NULL,
    ttl_ms     BIGINT NOT NULL,
    led_since  BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL,
    -- The leader ended on purpose: nobody has to wait for ttl_ms.
    resigned   BOOLEAN NOT NULL
);
-- Unique, so that on PostgreSQL an update of the term conflicts with FOR KEY SHARE, under which units are committed, and a renewal doesn't.
CREATE UNIQUE INDEX manager_lease_term ON manager_lease (role, term);

-- The processes that wait to lead a role. Each writes its own row every few seconds.
CREATE TABLE manager_standby (
    id         TEXT PRIMARY KEY NOT NULL,
    role       TEXT NOT NULL,
    host       TEXT NOT NULL,
    pid        BIGINT NOT NULL,
    address    TEXT NOT NULL,
    since      BIGINT NOT NULL,
    renewed_at BIGINT NOT NULL
);
CREATE INDEX manager_standby_renewed ON manager_standby (renewed_at);

-- Compute: written by the cluster-manager -----------------------------------------------------------------------------

-- vcpus, memory_mib and disk_gib are what placement may use: (offered - reserved) * overcommit / 1000, never below 0.
CREATE TABLE host (
    id                         TEXT PRIMARY KEY NOT NULL,
    name                       TEXT NOT NULL,
    zone                       TEXT NOT NULL,
    tags                       TEXT NOT NULL,
    state                      TEXT NOT NULL,
    cordoned                   BOOLEAN NOT NULL,
    cordon_reason              TEXT NOT NULL,
    -- A host that is being emptied gets nothing new.
    draining                   BOOLEAN NOT NULL DEFAULT FALSE,
    -- The only project whose instances it takes. It is no foreign key: a host whose project is gone stays closed until its operator decides.
    dedicated_to               TEXT,
    vcpus                      BIGINT NOT NULL,
    memory_mib                 BIGINT NOT NULL,
    disk_gib                   BIGINT NOT NULL,
    -- What its agent says it has, what of that an operator accepted at most, and the lesser of the two, which is offered.
    reported_vcpus             BIGINT NOT NULL DEFAULT 0,
    reported_memory_mib        BIGINT NOT NULL DEFAULT 0,
    reported_disk_gib          BIGINT NOT NULL DEFAULT 0,
    accepted_vcpus             BIGINT NOT NULL DEFAULT 0,
    accepted_memory_mib        BIGINT NOT NULL DEFAULT 0,
    accepted_disk_gib          BIGINT NOT NULL DEFAULT 0,
    offered_vcpus              BIGINT NOT NULL DEFAULT 0,
    offered_memory_mib         BIGINT NOT NULL DEFAULT 0,
    offered_disk_gib           BIGINT NOT NULL DEFAULT 0,
    reserved_vcpus             BIGINT NOT NULL DEFAULT 0,
    reserved_memory_mib        BIGINT NOT NULL DEFAULT 0,
    reserved_disk_gib          BIGINT NOT NULL DEFAULT 0,
    cpu_overcommit_permille    BIGINT NOT NULL,
    memory_overcommit_permille BIGINT NOT NULL DEFAULT 1000,
    disk_overcommit_permille   BIGINT NOT NULL DEFAULT 1000,
    vcpus_used                 BIGINT NOT NULL,
    memory_mib_used            BIGINT NOT NULL,
    disk_gib_used              BIGINT NOT NULL,
    overhead                   TEXT NOT NULL,
    facts                      TEXT NOT NULL,
    generation                 BIGINT NOT NULL,
    revision                   BIGINT NOT NULL,
    registered_at              BIGINT NOT NULL,
    state_changed_at           BIGINT NOT NULL,
    -- The ledger that its agent speaks from, the highest start that was seen of it, and where starts are to be numbered from.
    ledger_id                  TEXT NOT NULL DEFAULT '',
    ledger_start               BIGINT NOT NULL DEFAULT 0,
    ledger_start_floor         BIGINT NOT NULL DEFAULT 0,
    -- What its agent came with instead. NULL: it isn't held.
    found_ledger_id            TEXT,
    found_ledger_start         BIGINT,
    CONSTRAINT host_name_unique UNIQUE (name),
    CONSTRAINT host_used_not_negative CHECK (vcpus_used >= 0 AND memory_mib_used >= 0 AND disk_gib_used >= 0)
);

-- A token admits one host, the first that comes with it. That host may use it again until it expires. Of the secret only the SHA-256 is kept.
CREATE TABLE host_token (
    id          TEXT PRIMARY KEY NOT NULL,
    secret_hash TEXT NOT NULL,
    -- The name and zone that the host gets. NULL means that its agent says them.
    host_name   TEXT,
    zone        TEXT,
    created_by  TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    -- The host it admitted, and the SHA-256 of that host's public key. It is no foreign key, since the token outlives the host.
    host_id     TEXT,
    key_hash    TEXT,
    redeemed_at BIGINT,
    CONSTRAINT host_token_secret_unique UNIQUE (secret_hash)
);
CREATE INDEX host_token_expiry ON host_token (expires_at);
CREATE INDEX host_token_host ON host_token (host_id) WHERE host_id IS NOT NULL;

-- The hosts whose certificates are valid, by the SHA-256 of their public key. A host without a row is refused.
CREATE TABLE host_admission (
    host_id     TEXT PRIMARY KEY NOT NULL,
    key_hash    TEXT NOT NULL,
    admitted_at BIGINT NOT NULL,
    CONSTRAINT host_admission_host_fk FOREIGN KEY (host_id) REFERENCES host (id) ON DELETE CASCADE
);

-- The CPUs that hosts' guests see, each once. An instance may migrate within the one it was placed on.
CREATE TABLE cpu_baseline (
    id       TEXT PRIMARY KEY NOT NULL,
    document TEXT NOT NULL
);

CREATE TABLE instance (
    id                  TEXT PRIMARY KEY NOT NULL,
    project_id          TEXT NOT NULL,
    name                TEXT NOT NULL,
    tags                TEXT NOT NULL,
    generation          BIGINT NOT NULL,
    epoch               BIGINT NOT NULL,
    host_id             TEXT,
    root_disk_id        TEXT,
    -- The image that it holds: NULL once its deletion was accepted, since a deletion needs none.
    image_id            TEXT,
    spec                TEXT NOT NULL,
    placement           TEXT NOT NULL,
    -- What is claimed on the host. Memory includes QEMU's overhead. The claim is released with the row.
    claim_vcpus         BIGINT NOT NULL,
    claim_memory_mib    BIGINT NOT NULL,
    claim_disk_gib      BIGINT NOT NULL,
    -- Whether the quota was released already. It is when deletion is accepted; the claim is only on proof.
    quota_released      BOOLEAN NOT NULL,
    state               TEXT NOT NULL,
    step                TEXT NOT NULL,
    reason              TEXT NOT NULL,
    deadline_at         BIGINT,
    started_at          BIGINT,
    guest_up_at         BIGINT,
    crash_count         BIGINT NOT NULL,
    -- The fence of the last stored report.
    observed_epoch      BIGINT NOT NULL,
    observed_generation BIGINT NOT NULL,
    observed_start      BIGINT NOT NULL,
    observed_counter    BIGINT NOT NULL,
    -- Whether later decisions must know it: a member of a group, a preemptible instance, one that must survive its host.
    attached            BOOLEAN NOT NULL DEFAULT FALSE,
    -- The CPU baseline that it may migrate within, and the NUMA node whose threads it has.
    cpu_baseline        TEXT,
    numa_node           BIGINT,
    -- The number of the root disk that it ran with on its host: a host that has lost it makes no other under this number.
    root_used_seq       BIGINT,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    CONSTRAINT instance_name_unique UNIQUE (project_id, name),
    -- There is no cascade: a project with instances, or an image that they hold, can't be deleted, whatever commits at the same moment.
    CONSTRAINT instance_project_fk FOREIGN KEY (project_id) REFERENCES project (id),
    CONSTRAINT instance_image_fk FOREIGN KEY (image_id) REFERENCES image (id)
);
CREATE INDEX instance_project_id ON instance (project_id, id);
CREATE INDEX instance_host ON instance (host_id);
CREATE INDEX instance_image ON instance (image_id);
CREATE INDEX instance_deadline ON instance (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX instance_attached ON instance (id) WHERE attached;

CREATE INDEX instance_unsettled ON instance (id) WHERE state NOT IN ('running', 'paused', 'stopped', 'suspended');

-- What is left to do for instances: a row goes when it is done. The instance is no foreign key: for one that is gone, its disks and ports are
-- left to be removed.
CREATE TABLE instance_todo (
    todo        TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT instance_todo_pk PRIMARY KEY (todo, instance_id)
);

-- A group with members can't be deleted. A member goes with its instance. In a hard anti-affinity group no two members have the same place.
CREATE TABLE placement_member (
    group_id        TEXT NOT NULL,
    instance_id     TEXT NOT NULL,
    place           TEXT NOT NULL,
    exclusive_place TEXT,
    CONSTRAINT placement_member_pk PRIMARY KEY (group_id, instance_id),
    CONSTRAINT placement_member_place_unique UNIQUE (group_id, exclusive_place),
    CONSTRAINT placement_member_group_fk FOREIGN KEY (group_id) REFERENCES placement_group (id),
    CONSTRAINT placement_member_instance_fk FOREIGN KEY (instance_id) REFERENCES instance (id) ON DELETE CASCADE
);
CREATE INDEX placement_member_instance ON placement_member (instance_id);

-- Where all members of a hard affinity group are, while it has any.
CREATE TABLE placement_anchor (
    group_id TEXT PRIMARY KEY NOT NULL,
    place    TEXT NOT NULL,
    members  BIGINT NOT NULL,
    CONSTRAINT placement_anchor_members_not_negative CHECK (members >= 0),
    CONSTRAINT placement_anchor_group_fk FOREIGN KEY (group_id) REFERENCES placement_group (id) ON DELETE CASCADE
);

-- What placement refused, and what it decided of instances that are gone. It is kept for a while for those who ask why. A standing
-- instance's own decision is in its row. The project is no foreign key: a record goes by time alone, and is written after the answer was given.
CREATE TABLE placement_record (
    id            TEXT PRIMARY KEY NOT NULL,
    project_id    TEXT NOT NULL,
    instance_id   TEXT NOT NULL,
    instance_name TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    record        TEXT NOT NULL,
    kept_at       BIGINT NOT NULL
);
CREATE INDEX placement_record_project ON placement_record (project_id, id);
CREATE INDEX placement_record_name ON placement_record (instance_name, project_id, id);
CREATE INDEX placement_record_instance ON placement_record (instance_id);
CREATE INDEX placement_record_kept_at ON placement_record (kept_at);

CREATE TABLE compute_usage (
    project_id TEXT PRIMARY KEY NOT NULL,
    instances  BIGINT NOT NULL,
    vcpus      BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    CONSTRAINT compute_usage_not_negative CHECK (instances >= 0 AND vcpus >= 0 AND memory_mib >= 0),
    CONSTRAINT compute_usage_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

-- What a host runs and no row here knows. It is kept and shown, never deleted by absence.
CREATE TABLE orphan (
    host_id     TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    epoch       BIGINT NOT NULL,
    detail      TEXT NOT NULL,
    last_seen_at     BIGINT NOT NULL,
    CONSTRAINT orphan_pk PRIMARY KEY (host_id, instance_id)
);

-- A host that is lost (its state says so as well): it is admitted again only when it has proved that it holds nothing of what was taken from it.
CREATE TABLE host_verdict (
    host_id      TEXT PRIMARY KEY NOT NULL,
    proof        TEXT NOT NULL,
    lease_number BIGINT,
    declared_by  TEXT NOT NULL,
    lost_at      BIGINT NOT NULL,
    declared_at  BIGINT NOT NULL,
    -- Every instance of it that is to be recovered has its row in recovery.
    listed       BOOLEAN NOT NULL,
    CONSTRAINT host_verdict_host_fk FOREIGN KEY (host_id) REFERENCES host (id) ON DELETE CASCADE
);

-- What a lost host held when it was given to another host, or deleted. A row goes when the host proves that it holds it no longer.
CREATE TABLE host_taken (
    host_id     TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    epoch       BIGINT NOT NULL,
    generation  BIGINT NOT NULL,
    taken_at    BIGINT NOT NULL,
    CONSTRAINT host_taken_pk PRIMARY KEY (host_id, instance_id),
    CONSTRAINT host_taken_host_fk FOREIGN KEY (host_id) REFERENCES host (id) ON DELETE CASCADE
);

-- The recovery of an instance from the loss of its host: work while closed_at is NULL, a report for a time after that. Nothing is a foreign
-- key: a report outlives all that it names.
CREATE TABLE recovery (
    id            TEXT PRIMARY KEY NOT NULL,
    instance_id   TEXT NOT NULL,
    instance_name TEXT NOT NULL,
    project_id    TEXT NOT NULL,
    host_id       TEXT NOT NULL,
    host_name     TEXT NOT NULL,
    to_host_id    TEXT,
    epoch         BIGINT NOT NULL,
    policy        TEXT NOT NULL,
    rto_seconds   BIGINT NOT NULL,
    phase         TEXT NOT NULL,
    reason        TEXT NOT NULL,
    lost_at       BIGINT NOT NULL,
    detected_at   BIGINT NOT NULL,
    placed_at     BIGINT,
    started_at    BIGINT,
    reachable_at  BIGINT,
    verified_at   BIGINT,
    closed_at     BIGINT
);
CREATE INDEX recovery_open ON recovery (id) WHERE closed_at IS NULL;
CREATE INDEX recovery_instance ON recovery (instance_id);
CREATE INDEX recovery_closed_at ON recovery (closed_at) WHERE closed_at IS NOT NULL;

CREATE TABLE compute_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT compute_operation_pk PRIMARY KEY (id)
);
CREATE INDEX compute_operation_created ON compute_operation (created_at);

-- Networks: written by the resource-manager ---------------------------------------------------------------------------
--
-- Addresses, MACs and VNIs have one owner each, and these constraints are the final judges of it; the allocators in memory only propose. What
-- cascades goes with its project, which is deleted only when it has neither ports nor floating IPs, nor networks and groups but the
-- `default` ones.

CREATE TABLE external_network (
    id          TEXT PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    subnets     TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT external_network_name_unique UNIQUE (name)
);

-- The blocks of external networks, once more beside `external_network.subnets`: so that the database sees what an address is of, and no block goes
-- while somebody has an address of it.
CREATE TABLE external_block (
    -- `<external network>/<CIDR>`.
    id                  TEXT PRIMARY KEY NOT NULL,
    external_network_id TEXT NOT NULL,
    CONSTRAINT external_block_external_network_fk FOREIGN KEY (external_network_id) REFERENCES external_network (id) ON DELETE CASCADE
);
CREATE INDEX external_block_external_network ON external_block (external_network_id);

CREATE TABLE network (
    id          TEXT PRIMARY KEY NOT NULL,
    project_id  TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    vni         BIGINT NOT NULL,
    mtu         BIGINT,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT network_name_unique UNIQUE (project_id, name),
    CONSTRAINT network_vni_unique UNIQUE (vni),
    CONSTRAINT network_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);
CREATE INDEX network_project_id ON network (project_id, id);

CREATE TABLE subnet (
    id         TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    network_id TEXT NOT NULL,
    name       TEXT NOT NULL,
    spec       TEXT NOT NULL,
    dhcp       BOOLEAN NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT subnet_name_unique UNIQUE (network_id, name),
    CONSTRAINT subnet_network_fk FOREIGN KEY (network_id) REFERENCES network (id) ON DELETE CASCADE
);
CREATE INDEX subnet_project_id ON subnet (project_id, id);

CREATE TABLE router (
    id                  TEXT PRIMARY KEY NOT NULL,
    project_id          TEXT NOT NULL,
    name                TEXT NOT NULL,
    network_id          TEXT NOT NULL,
    external_network_id TEXT NOT NULL,
    source_nat          BOOLEAN NOT NULL,
    generation          BIGINT NOT NULL,
    created_at          BIGINT NOT NULL,
    CONSTRAINT router_name_unique UNIQUE (project_id, name),
    CONSTRAINT router_network_unique UNIQUE (network_id),
    CONSTRAINT router_network_fk FOREIGN KEY (network_id) REFERENCES network (id) ON DELETE CASCADE,
    CONSTRAINT router_external_network_fk FOREIGN KEY (external_network_id) REFERENCES external_network (id)
);
CREATE INDEX router_project_id ON router (project_id, id);
CREATE INDEX router_external_network ON router (external_network_id);

-- A network's own address on an external network, per host that has the network. Its instances leave by this address.
CREATE TABLE uplink (
    network_id          TEXT NOT NULL,
    host_id             TEXT NOT NULL,
    external_network_id TEXT NOT NULL,
    addresses           TEXT NOT NULL,
    mac                 TEXT NOT NULL,
    CONSTRAINT uplink_pk PRIMARY KEY (network_id, host_id),
    CONSTRAINT uplink_mac_unique UNIQUE (mac),
    CONSTRAINT uplink_network_fk FOREIGN KEY (network_id) REFERENCES network (id) ON DELETE CASCADE,
    CONSTRAINT uplink_external_network_fk FOREIGN KEY (external_network_id) REFERENCES external_network (id)
);
CREATE INDEX uplink_host ON uplink (host_id);
CREATE INDEX uplink_external_network ON uplink (external_network_id);

CREATE TABLE security_group (
    id          TEXT PRIMARY KEY NOT NULL,
    project_id  TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT security_group_name_unique UNIQUE (project_id, name),
    CONSTRAINT security_group_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);
CREATE INDEX security_group_project_id ON security_group (project_id, id);

CREATE TABLE security_rule (
    id                TEXT PRIMARY KEY NOT NULL,
    security_group_id TEXT NOT NULL,
    rule              TEXT NOT NULL,
    -- The group that the rule names, if it names one. A group that rules of other groups name can't be deleted.
    remote_group_id   TEXT,
    description       TEXT NOT NULL,
    CONSTRAINT security_rule_group_fk FOREIGN KEY (security_group_id) REFERENCES security_group (id) ON DELETE CASCADE,
    CONSTRAINT security_rule_remote_fk FOREIGN KEY (remote_group_id) REFERENCES security_group (id) ON DELETE CASCADE
);
CREATE INDEX security_rule_group ON security_rule (security_group_id);
CREATE INDEX security_rule_remote ON security_rule (remote_group_id);

CREATE TABLE port (
    id                TEXT PRIMARY KEY NOT NULL,
    project_id        TEXT NOT NULL,
    network_id        TEXT NOT NULL,
    -- NULL for a port that was made with its instance.
    name              TEXT,
    mac               TEXT NOT NULL,
    fixed_ips         TEXT NOT NULL,
    allowed_addresses TEXT NOT NULL,
    rate_limit        TEXT NOT NULL,
    hostname          TEXT NOT NULL,
    state             TEXT NOT NULL,
    -- The owner. It is no foreign key, since a reservation is made before its owner is committed.
    instance_id       TEXT,
    with_instance     BOOLEAN NOT NULL,
    host_id           TEXT,
    epoch             BIGINT NOT NULL,
    instance_epoch    BIGINT NOT NULL,
    metadata_digest   TEXT NOT NULL,
    expires_at        BIGINT,
    status            TEXT NOT NULL,
    status_reason     TEXT NOT NULL,
    -- The fence of the last stored report.
    observed_epoch    BIGINT NOT NULL,
    observed_start    BIGINT NOT NULL,
    observed_counter  BIGINT NOT NULL,
    generation        BIGINT NOT NULL,
    created_at        BIGINT NOT NULL,
    CONSTRAINT port_name_unique UNIQUE (project_id, name),
    CONSTRAINT port_mac_unique UNIQUE (mac),
    CONSTRAINT port_network_fk FOREIGN KEY (network_id) REFERENCES network (id),
    CONSTRAINT port_project_fk FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE INDEX port_project_id ON port (project_id, id);
CREATE INDEX port_network ON port (network_id);
CREATE INDEX port_instance ON port (instance_id);
CREATE INDEX port_host ON port (host_id);
-- Those that must be bound again, since a restored database was behind their host.
CREATE INDEX port_lifted ON port (instance_id) WHERE instance_epoch = 0 AND host_id IS NOT NULL;
CREATE INDEX port_expiry ON port (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE port_security_group (
    port_id           TEXT NOT NULL,
    security_group_id TEXT NOT NULL,
    CONSTRAINT port_security_group_pk PRIMARY KEY (port_id, security_group_id),
    CONSTRAINT port_security_group_port_fk FOREIGN KEY (port_id) REFERENCES port (id) ON DELETE CASCADE,
    CONSTRAINT port_security_group_group_fk FOREIGN KEY (security_group_id) REFERENCES security_group (id)
);
CREATE INDEX port_security_group_group ON port_security_group (security_group_id);

CREATE TABLE floating_ip (
    id                  TEXT PRIMARY KEY NOT NULL,
    project_id          TEXT NOT NULL,
    external_network_id TEXT NOT NULL,
    address             TEXT NOT NULL,
    description         TEXT NOT NULL,
    port_id             TEXT,
    fixed_ip            TEXT,
    generation          BIGINT NOT NULL,
    created_at          BIGINT NOT NULL,
    CONSTRAINT floating_ip_target_unique UNIQUE (port_id, fixed_ip),
    CONSTRAINT floating_ip_port_fk FOREIGN KEY (port_id) REFERENCES port (id),
    CONSTRAINT floating_ip_external_network_fk FOREIGN KEY (external_network_id) REFERENCES external_network (id),
    CONSTRAINT floating_ip_project_fk FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE INDEX floating_ip_project_id ON floating_ip (project_id, id);
CREATE INDEX floating_ip_external_network ON floating_ip (external_network_id);

CREATE TABLE peering (
    id              TEXT PRIMARY KEY NOT NULL,
    project_id      TEXT NOT NULL,
    name            TEXT NOT NULL,
    -- The lower id of the two networks.
    network_id      TEXT NOT NULL,
    peer_network_id TEXT NOT NULL,
    generation      BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    CONSTRAINT peering_name_unique UNIQUE (project_id, name),
    CONSTRAINT peering_pair_unique UNIQUE (network_id, peer_network_id),
    CONSTRAINT peering_network_fk FOREIGN KEY (network_id) REFERENCES network (id) ON DELETE CASCADE,
    CONSTRAINT peering_peer_fk FOREIGN KEY (peer_network_id) REFERENCES network (id) ON DELETE CASCADE
);
CREATE INDEX peering_project_id ON peering (project_id, id);
CREATE INDEX peering_peer ON peering (peer_network_id);

-- Every address that somebody has, or had until a moment ago. `scope_id` is a network's or an external network's id.
CREATE TABLE address (
    scope_id   TEXT NOT NULL,
    address    TEXT NOT NULL,
    subnet_id  TEXT,
    -- Of an external network's address, while somebody has it.
    block_id   TEXT,
    -- `port`, `floating_ip`, `uplink`.
    owner_kind TEXT NOT NULL,
    owner_id   TEXT NOT NULL,
    -- Set when it was released: it is quarantined until then and belongs to nobody.
    free_at    BIGINT,
    CONSTRAINT address_pk PRIMARY KEY (scope_id, address),
    CONSTRAINT address_block_fk FOREIGN KEY (block_id) REFERENCES external_block (id)
);
CREATE INDEX address_block ON address (block_id) WHERE block_id IS NOT NULL;
CREATE INDEX address_owner ON address (owner_id);
CREATE INDEX address_subnet ON address (subnet_id);
CREATE INDEX address_free ON address (free_at) WHERE free_at IS NOT NULL;

-- What network-agents reported of their hosts, and how far the messages to each are numbered.
CREATE TABLE network_host (
    host_id           TEXT PRIMARY KEY NOT NULL,
    name              TEXT NOT NULL,
    underlay_address  TEXT NOT NULL,
    -- The same, unless it is one that every host has (loopback): where other hosts send its packets, and so nobody else's.
    exclusive_underlay TEXT,
    -- Its own addresses besides, which no instance of the fleet may reach.
    addresses         TEXT NOT NULL,
    underlay_mtu      BIGINT NOT NULL,
    external_networks TEXT NOT NULL,
    -- No message was sent with a revision above this.
    revision_limit    BIGINT NOT NULL,
    last_seen_at           BIGINT NOT NULL,
    CONSTRAINT network_host_underlay_unique UNIQUE (exclusive_underlay)
);

-- The projects that got their `default` network and security group. What they do with these is their own affair.
CREATE TABLE project_network_default (
    project_id TEXT PRIMARY KEY NOT NULL,
    made_at    BIGINT NOT NULL,
    CONSTRAINT project_network_default_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

CREATE TABLE network_usage (
    project_id      TEXT PRIMARY KEY NOT NULL,
    networks        BIGINT NOT NULL,
    subnets         BIGINT NOT NULL,
    ports           BIGINT NOT NULL,
    routers         BIGINT NOT NULL,
    floating_ips    BIGINT NOT NULL,
    security_groups BIGINT NOT NULL,
    security_rules  BIGINT NOT NULL,
    peerings        BIGINT NOT NULL,
    CONSTRAINT network_usage_not_negative CHECK (networks >= 0 AND subnets >= 0 AND ports >= 0 AND routers >= 0
        AND floating_ips >= 0 AND security_groups >= 0 AND security_rules >= 0 AND peerings >= 0),
    CONSTRAINT network_usage_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

CREATE TABLE resource_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT resource_operation_pk PRIMARY KEY (id)
);
CREATE INDEX resource_operation_created ON resource_operation (created_at);

-- Storage: written by the storage-manager (so is `image`, which stands above) ------------------------------------------

CREATE TABLE disk (
    id          TEXT PRIMARY KEY NOT NULL,
    project_id  TEXT NOT NULL,
    -- The owner. It is no foreign key, since a reservation is made before its owner is committed.
    instance_id TEXT NOT NULL,
    role        TEXT NOT NULL,
    pool        TEXT NOT NULL,
    size_gib    BIGINT NOT NULL,
    -- The host it is attached on, and the instance's epoch there.
    host_id     TEXT,
    epoch       BIGINT NOT NULL,
    state       TEXT NOT NULL,
    expires_at  BIGINT,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT disk_role_unique UNIQUE (instance_id, role),
    CONSTRAINT disk_project_fk FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE INDEX disk_project_id ON disk (project_id, id);
CREATE INDEX disk_expiry ON disk (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE storage_usage (
    project_id TEXT PRIMARY KEY NOT NULL,
    disk_gib   BIGINT NOT NULL,
    images     BIGINT NOT NULL,
    image_gib  BIGINT NOT NULL,
    CONSTRAINT storage_usage_not_negative CHECK (disk_gib >= 0 AND images >= 0 AND image_gib >= 0),
    CONSTRAINT storage_usage_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

CREATE TABLE storage_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT storage_operation_pk PRIMARY KEY (id)
);
CREATE INDEX storage_operation_created ON storage_operation (created_at);

-- Append-only: written by all -----------------------------------------------------------------------------------------

-- There is one row. Its lock makes the order of event ids the order of commits.
CREATE TABLE event_head (
    id      BIGINT PRIMARY KEY NOT NULL,
    last_id BIGINT NOT NULL,
    CONSTRAINT event_head_single CHECK (id = 1)
);
INSERT INTO event_head (id, last_id) VALUES (1, 0);

CREATE TABLE event (
    id          BIGINT PRIMARY KEY NOT NULL,
    at          BIGINT NOT NULL,
    project_id  TEXT,
    kind        TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object_id   TEXT NOT NULL,
    message     TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    data        TEXT NOT NULL
);
CREATE INDEX event_object ON event (object_id, id);
CREATE INDEX event_project ON event (project_id, id);
CREATE INDEX event_at ON event (at);

CREATE TABLE audit (
    id             TEXT PRIMARY KEY NOT NULL,
    at             BIGINT NOT NULL,
    principal      TEXT NOT NULL,
    principal_name TEXT NOT NULL,
    project_id     TEXT,
    action         TEXT NOT NULL,
    object_kind    TEXT NOT NULL,
    object_id      TEXT NOT NULL,
    request_id     TEXT NOT NULL,
    outcome        TEXT NOT NULL,
    detail         TEXT NOT NULL,
    -- How often it happened within its minute: repeated refusals are one line.
    count          BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX audit_project ON audit (project_id, id);
CREATE INDEX audit_at ON audit (at);
