-- What a server has signed last about all of it, as the answer to a sync.
CREATE TABLE sync_receipts (
    server_id INTEGER NOT NULL PRIMARY KEY REFERENCES servers (id),
    received  INTEGER NOT NULL,
    -- The receipt as JSON.
    body      TEXT    NOT NULL
);
