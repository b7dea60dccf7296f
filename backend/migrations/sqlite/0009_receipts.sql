-- The key that signs what a server's root processor certifies, as base64.
ALTER TABLE servers ADD COLUMN receipt_key TEXT;

-- A person without any access: no keys, no rights, and the sessions were ended.
ALTER TABLE users ADD COLUMN disabled BOOLEAN NOT NULL DEFAULT FALSE;

-- What a server has signed last about an account.
CREATE TABLE receipts (
    server_id INTEGER NOT NULL REFERENCES servers (id),
    login     TEXT    NOT NULL,
    received  INTEGER NOT NULL,
    -- The receipt as JSON; absent when the answer had none.
    body      TEXT,
    -- Why it proves nothing; absent when it does.
    fault     TEXT,
    PRIMARY KEY (server_id, login)
);
CREATE INDEX receipts_login ON receipts (login);
