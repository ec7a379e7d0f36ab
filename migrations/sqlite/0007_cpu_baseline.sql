-- CPUs that hosts' guests see, each once, and which of them an instance was placed on: what it may migrate within.

CREATE TABLE cpu_baseline (
    id       TEXT PRIMARY KEY NOT NULL,
    document TEXT NOT NULL
);
ALTER TABLE instance ADD COLUMN cpu_baseline TEXT;
