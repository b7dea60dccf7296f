-- What is asked of a server as a whole.
CREATE TABLE requests (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    server_id      INTEGER NOT NULL REFERENCES servers (id),
    -- sync, check, report
    kind           TEXT    NOT NULL,
    allow_no_admin BOOLEAN NOT NULL,
    -- The message as it was last sent, and its id: another one each time, as what is wanted may
    -- have changed meanwhile.
    mid            TEXT    UNIQUE,
    message        TEXT,
    -- queued, sent, done, failed
    state          TEXT    NOT NULL,
    tries          INTEGER NOT NULL DEFAULT 0,
    status         INTEGER,
    feedback       TEXT,
    -- What the agent said for programs: JSON.
    detail         TEXT,
    created        INTEGER NOT NULL,
    finished_at    INTEGER
);
CREATE INDEX requests_open ON requests (server_id, id) WHERE state IN ('queued', 'sent');
CREATE INDEX requests_server ON requests (server_id, id);

-- What the agent said for programs: JSON.
ALTER TABLE actions ADD COLUMN detail TEXT;

-- The last that a server's agent has said unasked of what others have changed there.
CREATE TABLE drifts (
    server_id INTEGER NOT NULL PRIMARY KEY REFERENCES servers (id),
    -- The message as it came: JSON.
    drift     TEXT    NOT NULL,
    healed    BOOLEAN NOT NULL
);
