-- What is done when servers report that others have changed something there.
CREATE TABLE drift_rules (
    -- As `bastio drift set` takes it.
    selector TEXT NOT NULL PRIMARY KEY,
    -- heal, show, leave
    answer   TEXT NOT NULL
);

-- When servers were brought back last, so that it does not go on for ever: JSON, a list of times.
CREATE TABLE drift_heals (
    server_id INTEGER NOT NULL PRIMARY KEY REFERENCES servers (id),
    tries     TEXT    NOT NULL
);
