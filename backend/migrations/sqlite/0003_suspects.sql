-- What was sent to be given and failed: it may be there all the same.
CREATE TABLE suspects (
    server_id  INTEGER NOT NULL REFERENCES servers (id),
    login      TEXT    NOT NULL,
    -- 'account', 'sudo', or the fingerprint of a key.
    gift       TEXT    NOT NULL,
    -- For a key.
    public_key TEXT,
    PRIMARY KEY (server_id, login, gift)
);
CREATE INDEX suspects_login ON suspects (login);
