CREATE TABLE extension_myext_tags (
    tag_id INTEGER NOT NULL PRIMARY KEY,
    machine_id TEXT NOT NULL,
    label TEXT NOT NULL,
    created_by TEXT NOT NULL
);
CREATE INDEX extension_myext_tags_machine ON extension_myext_tags (machine_id);
