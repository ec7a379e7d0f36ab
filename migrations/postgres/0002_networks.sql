-- Networks: written by the resource-manager, but for the limits (the api-gateway's). Addresses, MACs and VNIs have one owner each, and these
-- constraints are the final judges of it; the allocators in memory only propose. What cascades goes with its project, which is deleted only
-- when it has neither ports nor floating IPs, nor networks and groups but the `default` ones.

CREATE TABLE external_network (
    id          TEXT PRIMARY KEY NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    subnets     TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    CONSTRAINT external_network_name_unique UNIQUE (name)
);

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
    -- The group that the rule names, if it does. Deleting a group checks that none of another group does.
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
    -- NULL: made with its instance.
    name              TEXT,
    mac               TEXT NOT NULL,
    fixed_ips         TEXT NOT NULL,
    allowed_addresses TEXT NOT NULL,
    rate_limit        TEXT NOT NULL,
    hostname          TEXT NOT NULL,
    state             TEXT NOT NULL,
    -- The owner. Not a foreign key: a reservation is made before its owner is committed.
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
    -- The lower id of the two.
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
    -- `port`, `floating_ip`, `uplink`.
    owner_kind TEXT NOT NULL,
    owner_id   TEXT NOT NULL,
    -- Released: it rests until then, and belongs to nobody.
    free_at    BIGINT,
    CONSTRAINT address_pk PRIMARY KEY (scope_id, address)
);
CREATE INDEX address_owner ON address (owner_id);
CREATE INDEX address_subnet ON address (subnet_id);
CREATE INDEX address_free ON address (free_at) WHERE free_at IS NOT NULL;

-- A network's own address on an external network, per host that has the network: what its instances leave by.
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

-- What network-agents said of their hosts, and how far the words given to each are numbered.
CREATE TABLE network_host (
    host_id           TEXT PRIMARY KEY NOT NULL,
    name              TEXT NOT NULL,
    underlay_address  TEXT NOT NULL,
    underlay_mtu      BIGINT NOT NULL,
    external_networks TEXT NOT NULL,
    -- No word was given with a number above this.
    revision_limit    BIGINT NOT NULL,
    last_seen_at           BIGINT NOT NULL
);

-- Projects that got their `default` network and security group; what they do with them is theirs.
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

ALTER TABLE quota_limit ADD COLUMN networks BIGINT NOT NULL DEFAULT 20;
ALTER TABLE quota_limit ADD COLUMN subnets BIGINT NOT NULL DEFAULT 40;
ALTER TABLE quota_limit ADD COLUMN ports BIGINT NOT NULL DEFAULT 200;
ALTER TABLE quota_limit ADD COLUMN routers BIGINT NOT NULL DEFAULT 20;
ALTER TABLE quota_limit ADD COLUMN floating_ips BIGINT NOT NULL DEFAULT 50;
ALTER TABLE quota_limit ADD COLUMN security_groups BIGINT NOT NULL DEFAULT 50;
ALTER TABLE quota_limit ADD COLUMN security_rules BIGINT NOT NULL DEFAULT 500;
ALTER TABLE quota_limit ADD COLUMN peerings BIGINT NOT NULL DEFAULT 20;

CREATE TABLE resource_operation (
    id         TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT resource_operation_pk PRIMARY KEY (id)
);
CREATE INDEX resource_operation_created ON resource_operation (created_at);
