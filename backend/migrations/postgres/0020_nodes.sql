-- Backend processes that share this database. One that has stopped saying so is gone.
CREATE TABLE nodes (
    node  TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    -- Until when it is taken for alive, by the clock of the database.
    until BIGINT NOT NULL
);

-- Which node serves a server's agent. The epoch rises with each session: whoever wrote down an
-- older one changes nothing any more.
CREATE TABLE leases (
    server_id BIGINT NOT NULL PRIMARY KEY REFERENCES servers (id),
    epoch     BIGINT NOT NULL,
    -- NULL after its session has ended.
    node      TEXT   COLLATE "C",
    -- The node that had it before, while it has not heard of its loss otherwise.
    lost_by   TEXT   COLLATE "C"
);
CREATE INDEX leases_node ON leases (node) WHERE node IS NOT NULL;
CREATE INDEX leases_lost_by ON leases (lost_by) WHERE lost_by IS NOT NULL;

-- The keys that all nodes share, each sealed with the cluster key.
CREATE TABLE secrets (
    name   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sealed TEXT NOT NULL
);

-- The oldest version of the schema that a program must know to work on this database. A migration
-- that older programs cannot work beside raises it to its own number.
CREATE TABLE compatibility (needs BIGINT NOT NULL);
INSERT INTO compatibility (needs) VALUES (20);
