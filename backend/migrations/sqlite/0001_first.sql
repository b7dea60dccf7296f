-- Times are whole seconds since the Unix epoch.

CREATE TABLE servers (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    last_seen INTEGER,
    address   TEXT,
    agent     TEXT,
    -- A removed server stays as the name in old changes; its name is free again.
    removed   INTEGER
);
CREATE UNIQUE INDEX servers_name ON servers (name) WHERE removed IS NULL;

CREATE TABLE server_keys (
    fingerprint TEXT    NOT NULL PRIMARY KEY,
    server_id   INTEGER NOT NULL UNIQUE REFERENCES servers (id),
    public_key  TEXT    NOT NULL,
    created     INTEGER NOT NULL
);

CREATE TABLE labels (
    server_id INTEGER NOT NULL REFERENCES servers (id),
    name      TEXT    NOT NULL,
    value     TEXT    NOT NULL,
    PRIMARY KEY (server_id, name)
);

CREATE TABLE users (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT    NOT NULL UNIQUE,
    full_name TEXT    NOT NULL,
    mail      TEXT    NOT NULL,
    created   INTEGER NOT NULL
);

CREATE TABLE user_keys (
    user_id     INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    fingerprint TEXT    NOT NULL,
    public_key  TEXT    NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (user_id, fingerprint)
);

CREATE TABLE grants (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    target  TEXT    NOT NULL,
    login   TEXT    NOT NULL,
    sudo    BOOLEAN NOT NULL,
    reason  TEXT    NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX grants_login ON grants (login);
CREATE INDEX grants_user ON grants (user_id);

-- What each server's agent has confirmed.
CREATE TABLE accounts (
    server_id INTEGER NOT NULL REFERENCES servers (id),
    login     TEXT    NOT NULL,
    sudo      BOOLEAN NOT NULL,
    -- Not what the plan counted on: to be looked at once nothing is under way for it.
    doubtful  BOOLEAN NOT NULL,
    PRIMARY KEY (server_id, login)
);
CREATE INDEX accounts_login ON accounts (login);

CREATE TABLE account_keys (
    server_id   INTEGER NOT NULL,
    login       TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    public_key  TEXT    NOT NULL,
    PRIMARY KEY (server_id, login, fingerprint),
    FOREIGN KEY (server_id, login) REFERENCES accounts (server_id, login) ON DELETE CASCADE
);

-- One row an edit of the model.
CREATE TABLE revisions (
    revision INTEGER NOT NULL PRIMARY KEY,
    summary  TEXT    NOT NULL,
    at       INTEGER NOT NULL
);

-- The queue of every server, in the order of the ids, and what became of it.
CREATE TABLE actions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    mid         TEXT    NOT NULL UNIQUE,
    server_id   INTEGER NOT NULL REFERENCES servers (id),
    login       TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    -- The message as it stands on the wire.
    message     TEXT    NOT NULL,
    -- queued, sent, done, failed
    state       TEXT    NOT NULL,
    -- A failure that no later edit has taken up again.
    standing    BOOLEAN NOT NULL DEFAULT FALSE,
    tries       INTEGER NOT NULL DEFAULT 0,
    -- Changes of state so far.
    steps       INTEGER NOT NULL DEFAULT 0,
    status      INTEGER,
    feedback    TEXT,
    created     INTEGER NOT NULL,
    sent_at     INTEGER,
    finished_at INTEGER
);
CREATE INDEX actions_pending ON actions (server_id, id) WHERE state IN ('queued', 'sent');
CREATE INDEX actions_pending_login ON actions (login) WHERE state IN ('queued', 'sent');
CREATE INDEX actions_standing ON actions (server_id, login) WHERE standing = TRUE;

-- The actions that an edit waits for: those it made, and those of the same accounts still under way.
CREATE TABLE revision_actions (
    revision  INTEGER NOT NULL REFERENCES revisions (revision),
    action_id INTEGER NOT NULL REFERENCES actions (id),
    PRIMARY KEY (revision, action_id)
);
CREATE INDEX revision_actions_action ON revision_actions (action_id);

CREATE TABLE api_keys (
    name      TEXT    NOT NULL PRIMARY KEY,
    role      TEXT    NOT NULL,
    -- SHA-256 of the secret, in hexadecimal digits.
    hash      TEXT    NOT NULL UNIQUE,
    created   INTEGER NOT NULL,
    last_used INTEGER
);

-- Only ever inserted into; each row's hash covers the row before.
CREATE TABLE audit (
    id        INTEGER NOT NULL PRIMARY KEY,
    at        INTEGER NOT NULL,
    actor     TEXT    NOT NULL,
    origin    TEXT,
    action    TEXT    NOT NULL,
    username  TEXT,
    server    TEXT,
    detail    TEXT    NOT NULL,
    prev_hash TEXT    NOT NULL,
    hash      TEXT    NOT NULL
);
