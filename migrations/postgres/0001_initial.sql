-- The first schema. Ids are UUIDv7 text, times are milliseconds since the epoch (UTC), JSON is text.
-- Who writes which table: docs/ARCHITECTURE.md. Constraints are named; crates/store maps them to errors by name.

-- Identity and catalog: written by the api-gateway ------------------------------------------------------------------

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

-- A refresh token is used once; using one again revokes its whole family.
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
    description TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT flavor_name_unique UNIQUE (name)
);

CREATE TABLE quota_limit (
    project_id TEXT PRIMARY KEY NOT NULL,
    instances  BIGINT NOT NULL,
    vcpus      BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disk_gib   BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    CONSTRAINT quota_limit_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

-- (principal, key) -> the operation that answers it. The operation's outcome is with the service that owns the object.
CREATE TABLE idempotency (
    principal    TEXT NOT NULL,
    idem_key     TEXT NOT NULL,
    body_hash    TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    new_ids      TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    CONSTRAINT idempotency_pk PRIMARY KEY (principal, idem_key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Outcomes, one table per owning service. `outcome` is base64 of the answer, encoded by that service.
CREATE TABLE identity_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT identity_operation_pk PRIMARY KEY (id)
);
CREATE INDEX identity_operation_created ON identity_operation (created_at);

-- Compute: written by the cluster-manager ----------------------------------------------------------------------------

CREATE TABLE host (
    id                      TEXT PRIMARY KEY NOT NULL,
    name                    TEXT NOT NULL,
    zone                    TEXT NOT NULL,
    tags                    TEXT NOT NULL,
    state                   TEXT NOT NULL,
    cordoned                BOOLEAN NOT NULL,
    cordon_reason           TEXT NOT NULL,
    vcpus                   BIGINT NOT NULL,
    memory_mib              BIGINT NOT NULL,
    disk_gib                BIGINT NOT NULL,
    cpu_overcommit_permille BIGINT NOT NULL,
    vcpus_used              BIGINT NOT NULL,
    memory_mib_used         BIGINT NOT NULL,
    disk_gib_used           BIGINT NOT NULL,
    overhead                TEXT NOT NULL,
    facts                   TEXT NOT NULL,
    generation              BIGINT NOT NULL,
    revision                BIGINT NOT NULL,
    registered_at           BIGINT NOT NULL,
    state_changed_at        BIGINT NOT NULL,
    CONSTRAINT host_name_unique UNIQUE (name),
    CONSTRAINT host_used_not_negative CHECK (vcpus_used >= 0 AND memory_mib_used >= 0 AND disk_gib_used >= 0)
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
    image_id            TEXT NOT NULL,
    spec                TEXT NOT NULL,
    placement           TEXT NOT NULL,
    -- What is claimed on the host; memory includes QEMU's overhead. Released with the row.
    claim_vcpus         BIGINT NOT NULL,
    claim_memory_mib    BIGINT NOT NULL,
    claim_disk_gib      BIGINT NOT NULL,
    -- Whether the quota was given back already (it is when deletion is accepted; the claim only on proof).
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
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    CONSTRAINT instance_name_unique UNIQUE (project_id, name),
    -- No cascade: a project with instances can't go, whatever commits at the same moment. The image is no foreign key: an instance
    -- that is being deleted may outlive it.
    CONSTRAINT instance_project_fk FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE INDEX instance_project_id ON instance (project_id, id);
CREATE INDEX instance_host ON instance (host_id);
CREATE INDEX instance_image ON instance (image_id);
CREATE INDEX instance_deadline ON instance (deadline_at) WHERE deadline_at IS NOT NULL;

CREATE TABLE compute_usage (
    project_id TEXT PRIMARY KEY NOT NULL,
    instances  BIGINT NOT NULL,
    vcpus      BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    CONSTRAINT compute_usage_not_negative CHECK (instances >= 0 AND vcpus >= 0 AND memory_mib >= 0),
    CONSTRAINT compute_usage_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

-- What a host runs and nobody here knows of: kept and shown, never deleted by absence.
CREATE TABLE orphan (
    host_id     TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    epoch       BIGINT NOT NULL,
    detail      TEXT NOT NULL,
    last_seen_at     BIGINT NOT NULL,
    CONSTRAINT orphan_pk PRIMARY KEY (host_id, instance_id)
);

CREATE TABLE compute_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT compute_operation_pk PRIMARY KEY (id)
);
CREATE INDEX compute_operation_created ON compute_operation (created_at);

-- Storage: written by the storage-manager ----------------------------------------------------------------------------

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
    reason         TEXT NOT NULL,
    deadline_at    BIGINT,
    generation     BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    CONSTRAINT image_name_unique UNIQUE (project_id, name),
    CONSTRAINT image_project_fk FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE INDEX image_name ON image (name);
CREATE INDEX image_deadline ON image (deadline_at) WHERE deadline_at IS NOT NULL;

CREATE TABLE disk (
    id          TEXT PRIMARY KEY NOT NULL,
    project_id  TEXT NOT NULL,
    -- The owner. Not a foreign key: a reservation is made before its owner is committed.
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
    CONSTRAINT storage_usage_not_negative CHECK (disk_gib >= 0),
    CONSTRAINT storage_usage_project_fk FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE
);

CREATE TABLE storage_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT storage_operation_pk PRIMARY KEY (id)
);
CREATE INDEX storage_operation_created ON storage_operation (created_at);

-- Append-only, written by all ------------------------------------------------------------------------------------------

-- One row. Its lock makes the order of event ids the order of commits.
CREATE TABLE event_head (
    one     BIGINT PRIMARY KEY NOT NULL,
    last_id BIGINT NOT NULL,
    CONSTRAINT event_head_one CHECK (one = 1)
);
INSERT INTO event_head (one, last_id) VALUES (1, 0);

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
    detail         TEXT NOT NULL
);
CREATE INDEX audit_project ON audit (project_id, id);
