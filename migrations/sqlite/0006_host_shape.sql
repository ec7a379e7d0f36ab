-- What a host offers, what its operator keeps of that, and how far each resource is shared out. vcpus, memory_mib and disk_gib
-- stay what placement may use: (offered - reserved) * overcommit / 1000, never below 0.

ALTER TABLE host ADD COLUMN offered_vcpus BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN offered_memory_mib BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN offered_disk_gib BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN reserved_vcpus BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN reserved_memory_mib BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN reserved_disk_gib BIGINT NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN memory_overcommit_permille BIGINT NOT NULL DEFAULT 1000;
ALTER TABLE host ADD COLUMN disk_overcommit_permille BIGINT NOT NULL DEFAULT 1000;
UPDATE host SET offered_vcpus = (vcpus * 1000 + cpu_overcommit_permille - 1) / cpu_overcommit_permille,
    offered_memory_mib = memory_mib, offered_disk_gib = disk_gib
WHERE cpu_overcommit_permille > 0;
