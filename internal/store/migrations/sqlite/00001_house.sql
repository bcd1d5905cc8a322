-- +goose Up
-- +goose StatementBegin

CREATE TABLE subjects (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    team TEXT NOT NULL,
    attributes TEXT NOT NULL,
    reason TEXT NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    recall INTEGER NOT NULL,
    mac BLOB NOT NULL
);
CREATE UNIQUE INDEX subjects_name ON subjects (kind, name) WHERE state NOT IN ('revoked', 'rejected');
CREATE INDEX subjects_recall ON subjects (recall) WHERE recall > 0;

CREATE TABLE certificates (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    subject TEXT NOT NULL,
    serial TEXT NOT NULL,
    issuer TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    reason TEXT NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX certificates_subject ON certificates (subject);
CREATE INDEX certificates_serial ON certificates (serial);

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    subject TEXT NOT NULL,
    parent TEXT NOT NULL,
    certificate TEXT NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    reason TEXT NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX sessions_subject ON sessions (subject, expires);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE passports (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    subject TEXT NOT NULL,
    digest TEXT NOT NULL,
    token TEXT NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    reason TEXT NOT NULL,
    mac BLOB NOT NULL
);
CREATE UNIQUE INDEX passports_expires ON passports (expires, digest);

CREATE TABLE invitations (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    role TEXT NOT NULL,
    team TEXT NOT NULL,
    name TEXT NOT NULL,
    author TEXT NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL,
    used_by TEXT NOT NULL,
    mac BLOB NOT NULL
);

-- prints are the fingerprints of what was given out. They are random: an index by
-- them would touch a page of its own with every grant, so they are found through
-- ledger_names.
CREATE TABLE grants (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    subject TEXT NOT NULL,
    session TEXT NOT NULL,
    kind TEXT NOT NULL,
    document TEXT NOT NULL,
    handle TEXT NOT NULL,
    prints TEXT NOT NULL,
    sealed BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    issued INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    due INTEGER NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX grants_due ON grants (due) WHERE due > 0;
CREATE INDEX grants_revoked ON grants (kind, expires) WHERE state = 'revoked';

CREATE TABLE resources (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    author TEXT NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    deleted INTEGER NOT NULL
);

-- What stood at a path before, under path@version.
CREATE TABLE resource_versions (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    author TEXT NOT NULL,
    at INTEGER NOT NULL,
    deleted INTEGER NOT NULL
);

CREATE TABLE policies (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    author TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE policy_versions (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    source TEXT NOT NULL,
    author TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE publishers (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    threshold INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE trust (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    publisher TEXT NOT NULL,
    purpose TEXT NOT NULL,
    public_key TEXT NOT NULL,
    names TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE floors (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    lowest TEXT NOT NULL,
    origin TEXT NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE plugins (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    package_version TEXT NOT NULL,
    digest TEXT NOT NULL,
    publisher TEXT NOT NULL,
    key_ids TEXT NOT NULL,
    purpose TEXT NOT NULL,
    offer TEXT NOT NULL,
    asks TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE installations (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    name TEXT NOT NULL,
    package_version TEXT NOT NULL,
    repository TEXT NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE repositories (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    url TEXT NOT NULL,
    root TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    author TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE upload_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    publisher TEXT NOT NULL,
    names TEXT NOT NULL,
    audience TEXT NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    reason TEXT NOT NULL,
    author TEXT NOT NULL,
    created INTEGER NOT NULL,
    mac BLOB NOT NULL
);
CREATE INDEX upload_tokens_expires ON upload_tokens (expires);

CREATE TABLE endorsements (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    about TEXT NOT NULL,
    data BLOB NOT NULL,
    issued INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    source TEXT NOT NULL,
    author TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE reference_values (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    value TEXT NOT NULL,
    expires INTEGER NOT NULL,
    source TEXT NOT NULL,
    author TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    mac BLOB NOT NULL
);

-- What plugins keep for themselves: the id is the plugin's name, @, its publisher, a
-- slash, and the key.
CREATE TABLE plugin_values (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    value BLOB NOT NULL,
    changed INTEGER NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    state TEXT NOT NULL,
    public TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created INTEGER NOT NULL,
    signs_from INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    mac BLOB NOT NULL
);

CREATE TABLE outcomes (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    expires INTEGER NOT NULL
);

CREATE TABLE deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    channel TEXT NOT NULL,
    message TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due INTEGER NOT NULL,
    error TEXT NOT NULL,
    done INTEGER NOT NULL
);
CREATE INDEX deliveries_due ON deliveries (due) WHERE due > 0;

CREATE TABLE nonces (
    id TEXT NOT NULL PRIMARY KEY,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX nonces_expires ON nonces (expires);

-- What a decision relied upon as a whole: it grows with each change.
CREATE TABLE generations (
    name TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO generations (name, version) VALUES ('policy', 1), ('trust', 1), ('plugins', 1), ('keys', 1), ('reference', 1);

-- The highest time that was ever seen.
CREATE TABLE clock (
    name TEXT NOT NULL PRIMARY KEY,
    highest INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO clock (name, highest) VALUES ('clock', 0);

CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    counter INTEGER NOT NULL
) WITHOUT ROWID;

-- How far a subscriber has come; always a position of the ledger.
CREATE TABLE cursors (
    name TEXT NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;

-- A leaf is exactly what was hashed. Positions are dense from 0. One process
-- writes, so that its order of commits is the order of the ledger; a record
-- counts from the moment that the head covers it.
CREATE TABLE ledger (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    subject TEXT NOT NULL,
    type TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    leaf TEXT NOT NULL
);

-- Where names stand in the ledger: ids of records, subjects and grants, and
-- fingerprints, for whole runs of records. An index would touch pages of its own in every commit.
CREATE TABLE ledger_names (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

CREATE TABLE tiles (
    level INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (level, idx)
);

CREATE TABLE heads (
    name TEXT NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    root TEXT NOT NULL,
    note TEXT NOT NULL,
    changed INTEGER NOT NULL
);
INSERT INTO heads (name, size, epoch, root, note, changed)
VALUES ('ledger', 0, 1, '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=', '', 0);

-- Records that are committed and that no head covers yet.
CREATE VIEW pending AS
SELECT position, id, subject, type, grant_id, at, leaf FROM ledger
WHERE position >= (SELECT size FROM heads WHERE name = 'ledger');
-- +goose StatementEnd
