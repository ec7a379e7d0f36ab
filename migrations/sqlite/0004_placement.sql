-- Placement groups: what they say (the api-gateway's), where their members are (the cluster-manager's).

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

-- A group with members stays; a member goes with its instance. Of a hard anti-affinity group, no two have one place.
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

-- Later decisions must know of it: a member of a group, one that gives way, one that must survive its host.
ALTER TABLE instance ADD COLUMN attached BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX instance_attached ON instance (id) WHERE attached;

-- Being emptied: gets nothing new.
ALTER TABLE host ADD COLUMN draining BOOLEAN NOT NULL DEFAULT FALSE;
-- Takes that project's instances alone. Not a foreign key: a host whose project is gone stays closed until its operator decides.
ALTER TABLE host ADD COLUMN dedicated_to TEXT;
