CREATE TABLE drift_rules (
    selector TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    answer   TEXT NOT NULL
);

CREATE TABLE drift_heals (
    server_id BIGINT NOT NULL PRIMARY KEY REFERENCES servers (id),
    tries     TEXT   NOT NULL
);
