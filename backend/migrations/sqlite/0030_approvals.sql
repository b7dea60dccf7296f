-- Requests that wait for a second operator, and those that did. No number is ever given twice.
CREATE TABLE proposals (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- open, approved, rejected, expired
    state     TEXT    NOT NULL,
    -- The API key that sent it, and the address.
    proposer  TEXT    NOT NULL,
    origin    TEXT,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    revision  INTEGER NOT NULL,
    reason    TEXT    NOT NULL,
    -- The request as it came.
    method    TEXT    NOT NULL,
    path      TEXT    NOT NULL,
    body      TEXT    NOT NULL,
    confirmed BOOLEAN NOT NULL,
    -- What it gives, as it was last worked out: JSON, a list of texts.
    gains     TEXT    NOT NULL,
    ended     INTEGER,
    ended_by  TEXT
);
CREATE INDEX proposals_open ON proposals (id) WHERE state = 'open';

-- The public keys with which operators approve, by API key.
CREATE TABLE operator_keys (
    api_key    TEXT    NOT NULL PRIMARY KEY REFERENCES api_keys (name) ON DELETE CASCADE,
    public_key TEXT    NOT NULL UNIQUE,
    since      INTEGER NOT NULL
);
