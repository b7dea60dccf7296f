-- How the things of the model were before a revision changed them: one row for each, JSON as in
-- `bastio export`, absent where it was not there.
CREATE TABLE model_history (
    revision INTEGER NOT NULL,
    -- user, group, grants-of-user, grants-of-group, sudo-policy, labels; renamed and removed for
    -- servers; begin: from that revision on all changes are here.
    kind     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    before   TEXT,
    PRIMARY KEY (revision, kind, name)
);
INSERT INTO model_history (revision, kind, name, before)
SELECT COALESCE(MAX(revision), 0), 'begin', '', NULL FROM revisions;

-- Who made a revision.
CREATE TABLE revision_actors (
    revision INTEGER NOT NULL PRIMARY KEY REFERENCES revisions (revision),
    actor    TEXT    NOT NULL
);

-- Accounts that were on a server before, and became somebody's.
CREATE TABLE adoptions (
    server_id INTEGER NOT NULL REFERENCES servers (id),
    login     TEXT    NOT NULL,
    user_name TEXT    NOT NULL,
    -- How it was: JSON.
    before    TEXT    NOT NULL,
    -- What it is to be when it is given back: an account as on the wire. Absent until then.
    release   TEXT,
    since     INTEGER NOT NULL,
    PRIMARY KEY (server_id, login)
);
