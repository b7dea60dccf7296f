-- How far the clock of its host was ahead of ours when we last compared them, in seconds.
ALTER TABLE servers ADD COLUMN clock_offset INTEGER;
-- The machine that we take it for; NULL before its agent has told.
ALTER TABLE servers ADD COLUMN machine_id TEXT;

-- What an operator must decide about a server.
CREATE TABLE questions (
    server_id INTEGER NOT NULL REFERENCES servers (id),
    -- same-name, machine, rivals
    kind      TEXT    NOT NULL,
    -- Whether its agent is kept waiting until then.
    holds     BOOLEAN NOT NULL,
    -- The name of the server that it would like to replace; the id of the other machine; nothing.
    subject   TEXT    NOT NULL,
    detail    TEXT    NOT NULL,
    asked     INTEGER NOT NULL,
    PRIMARY KEY (server_id, kind)
);
