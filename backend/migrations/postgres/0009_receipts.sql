ALTER TABLE servers ADD COLUMN receipt_key TEXT;

ALTER TABLE users ADD COLUMN disabled BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE receipts (
    server_id BIGINT NOT NULL REFERENCES servers (id),
    login     TEXT   COLLATE "C" NOT NULL,
    received  BIGINT NOT NULL,
    body      TEXT,
    fault     TEXT,
    PRIMARY KEY (server_id, login)
);
CREATE INDEX receipts_login ON receipts (login);
