-- Flavors whose instances' vCPUs get threads of their own, and the NUMA node of their host that instances got these of.

ALTER TABLE flavor ADD COLUMN pinning TEXT NOT NULL DEFAULT 'none';
ALTER TABLE instance ADD COLUMN numa_node BIGINT;
