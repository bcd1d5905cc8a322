-- +goose Up
-- +goose StatementBegin

CREATE TABLE subjects (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    team TEXT COLLATE "C" NOT NULL,
    attributes TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    recall BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE UNIQUE INDEX subjects_name ON subjects (kind, name) WHERE state NOT IN ('revoked', 'rejected');
CREATE INDEX subjects_recall ON subjects (recall) WHERE recall > 0;

CREATE TABLE certificates (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    serial TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    not_after BIGINT NOT NULL,
    revoked BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX certificates_subject ON certificates (subject);
CREATE INDEX certificates_serial ON certificates (serial);

CREATE TABLE sessions (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    parent TEXT COLLATE "C" NOT NULL,
    certificate TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX sessions_subject ON sessions (subject, expires);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE passports (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    token TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);
CREATE UNIQUE INDEX passports_expires ON passports (expires, digest);

CREATE TABLE invitations (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    role TEXT COLLATE "C" NOT NULL,
    team TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    used BIGINT NOT NULL,
    used_by TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

-- prints are the fingerprints of what was given out. They are random: an index by
-- them would touch a page of its own with every grant, so they are found through
-- ledger_names.
CREATE TABLE grants (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    document TEXT COLLATE "C" NOT NULL,
    handle TEXT COLLATE "C" NOT NULL,
    prints TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    attempts BIGINT NOT NULL,
    issued BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    due BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX grants_due ON grants (due) WHERE due > 0;
CREATE INDEX grants_revoked ON grants (kind, expires) WHERE state = 'revoked';

CREATE TABLE resources (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    deleted BIGINT NOT NULL
);

-- What stood at a path before, under path@version.
CREATE TABLE resource_versions (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    bytes BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    deleted BIGINT NOT NULL
);

CREATE TABLE policies (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE policy_versions (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE publishers (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    threshold BIGINT NOT NULL,
    serial BIGINT NOT NULL,
    at BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE trust (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    publisher TEXT COLLATE "C" NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    public_key TEXT COLLATE "C" NOT NULL,
    names TEXT COLLATE "C" NOT NULL,
    not_before BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE floors (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    lowest TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE plugins (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    package_version TEXT COLLATE "C" NOT NULL,
    digest TEXT COLLATE "C" NOT NULL,
    publisher TEXT COLLATE "C" NOT NULL,
    key_ids TEXT COLLATE "C" NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    offer TEXT COLLATE "C" NOT NULL,
    asks TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE installations (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    package_version TEXT COLLATE "C" NOT NULL,
    repository TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE repositories (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    root TEXT COLLATE "C" NOT NULL,
    timestamp TEXT COLLATE "C" NOT NULL,
    snapshot TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE upload_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    digest TEXT NOT NULL,
    publisher TEXT NOT NULL,
    names TEXT NOT NULL,
    audience TEXT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT NOT NULL,
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    created BIGINT NOT NULL,
    mac BYTEA NOT NULL
);
CREATE INDEX upload_tokens_expires ON upload_tokens (expires);

CREATE TABLE endorsements (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    about TEXT COLLATE "C" NOT NULL,
    data BYTEA NOT NULL,
    issued BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE reference_values (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    expires BIGINT NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    author TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    mac BYTEA NOT NULL
);

-- What plugins keep for themselves: the id is the plugin's name, @, its publisher, a
-- slash, and the key.
CREATE TABLE plugin_values (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    value BYTEA NOT NULL,
    changed BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE keys (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    algorithm TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    public TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    created BIGINT NOT NULL,
    signs_from BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    mac BYTEA NOT NULL
);

CREATE TABLE outcomes (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX outcomes_expires ON outcomes (expires);

CREATE TABLE deliveries (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    channel TEXT COLLATE "C" NOT NULL,
    message TEXT COLLATE "C" NOT NULL,
    attempts BIGINT NOT NULL,
    due BIGINT NOT NULL,
    error TEXT COLLATE "C" NOT NULL,
    done BIGINT NOT NULL
);
CREATE INDEX deliveries_due ON deliveries (due) WHERE due > 0;

CREATE TABLE nonces (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    expires BIGINT NOT NULL
);
CREATE INDEX nonces_expires ON nonces (expires);

-- What a decision relied upon as a whole: it grows with each change.
CREATE TABLE generations (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
);
INSERT INTO generations (name, version) VALUES ('policy', 1), ('trust', 1), ('plugins', 1), ('keys', 1), ('reference', 1);

-- The highest time that was ever seen.
CREATE TABLE clock (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    highest BIGINT NOT NULL
);
INSERT INTO clock (name, highest) VALUES ('clock', 0);

CREATE TABLE leases (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    epoch BIGINT NOT NULL,
    counter BIGINT NOT NULL
);

-- How far a subscriber has come; always a position of the ledger.
CREATE TABLE cursors (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL
);

-- Databases of extensions: a row is locked while that of a plugin is made or
-- purged, and counts how often it was purged.
CREATE TABLE annexes (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    purges BIGINT NOT NULL
);

-- Records that are committed and have no position yet.
CREATE TABLE pending (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    subject TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    grant_id TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    leaf TEXT COLLATE "C" NOT NULL
);

-- A leaf is exactly what was hashed. Positions are dense from 0.
CREATE TABLE ledger (
    position BIGINT NOT NULL PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    grant_id TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    leaf TEXT COLLATE "C" NOT NULL
);

-- Where names stand in the ledger: ids of records, subjects and grants, and
-- fingerprints, for whole runs of records. An index would touch pages of its own in every commit.
CREATE TABLE ledger_names (
    id BIGINT NOT NULL PRIMARY KEY,
    data BYTEA NOT NULL
);

CREATE TABLE tiles (
    level BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (level, idx)
);

CREATE TABLE heads (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    root TEXT COLLATE "C" NOT NULL,
    note TEXT COLLATE "C" NOT NULL,
    changed BIGINT NOT NULL
);
INSERT INTO heads (name, size, epoch, root, note, changed)
VALUES ('ledger', 0, 1, '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=', '', 0);
-- +goose StatementEnd
