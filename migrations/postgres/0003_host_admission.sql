-- Which hosts are part of the fleet. Written by the cluster-manager.

-- A token admits one host, its first; that host may use it again until it expires. Of the secret only its SHA-256 is kept.
CREATE TABLE host_token (
    id          TEXT PRIMARY KEY NOT NULL,
    secret_hash TEXT NOT NULL,
    -- What the host will be called and where it is; NULL: what its agent says.
    host_name   TEXT,
    zone        TEXT,
    created_by  TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    -- The host it admitted, and the SHA-256 of that host's public key. Not a foreign key: the token outlives the host.
    host_id     TEXT,
    key_hash    TEXT,
    redeemed_at BIGINT,
    CONSTRAINT host_token_secret_unique UNIQUE (secret_hash)
);
CREATE INDEX host_token_expiry ON host_token (expires_at);
CREATE INDEX host_token_host ON host_token (host_id) WHERE host_id IS NOT NULL;

-- The hosts whose certificates are good, by the SHA-256 of their public key. No row: refused.
CREATE TABLE host_admission (
    host_id     TEXT PRIMARY KEY NOT NULL,
    key_hash    TEXT NOT NULL,
    admitted_at BIGINT NOT NULL,
    CONSTRAINT host_admission_host_fk FOREIGN KEY (host_id) REFERENCES host (id) ON DELETE CASCADE
);
