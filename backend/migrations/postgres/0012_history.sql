CREATE TABLE model_history (
    revision BIGINT NOT NULL,
    kind     TEXT   COLLATE "C" NOT NULL,
    name     TEXT   COLLATE "C" NOT NULL,
    before   TEXT,
    PRIMARY KEY (revision, kind, name)
);
INSERT INTO model_history (revision, kind, name, before)
SELECT COALESCE(MAX(revision), 0), 'begin', '', NULL FROM revisions;

CREATE TABLE revision_actors (
    revision BIGINT NOT NULL PRIMARY KEY REFERENCES revisions (revision),
    actor    TEXT   NOT NULL
);

CREATE TABLE adoptions (
    server_id BIGINT NOT NULL REFERENCES servers (id),
    login     TEXT   COLLATE "C" NOT NULL,
    user_name TEXT   NOT NULL,
    before    TEXT   NOT NULL,
    release   TEXT,
    since     BIGINT NOT NULL,
    PRIMARY KEY (server_id, login)
);
