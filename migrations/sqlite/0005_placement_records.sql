-- What placement refused, and what it decided of instances that are gone: kept for a while, for those who ask why. A standing instance's
-- own decision is in its row. Not a foreign key of its project: it goes by time alone, and is written after the answer was given.

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
CREATE INDEX placement_record_name ON placement_record (project_id, instance_name, id);
CREATE INDEX placement_record_instance ON placement_record (instance_id);
CREATE INDEX placement_record_kept_at ON placement_record (kept_at);
