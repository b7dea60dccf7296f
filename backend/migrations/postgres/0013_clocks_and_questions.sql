ALTER TABLE servers ADD COLUMN clock_offset BIGINT;
ALTER TABLE servers ADD COLUMN machine_id TEXT;

CREATE TABLE questions (
    server_id BIGINT  NOT NULL REFERENCES servers (id),
    kind      TEXT    COLLATE "C" NOT NULL,
    holds     BOOLEAN NOT NULL,
    subject   TEXT    NOT NULL,
    detail    TEXT    NOT NULL,
    asked     BIGINT  NOT NULL,
    PRIMARY KEY (server_id, kind)
);
