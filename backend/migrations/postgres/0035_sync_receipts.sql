CREATE TABLE sync_receipts (
    server_id BIGINT NOT NULL PRIMARY KEY REFERENCES servers (id),
    received  BIGINT NOT NULL,
    body      TEXT   NOT NULL
);
