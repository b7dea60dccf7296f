-- Numeric ids that belong to login names, for good: also those of people who were removed.
CREATE TABLE uids (
    uid    INTEGER NOT NULL PRIMARY KEY,
    login  TEXT    NOT NULL,
    -- Whether the accounts of that login have it where nobody has said otherwise. One a login at most.
    pooled BOOLEAN NOT NULL,
    since  INTEGER NOT NULL
);
CREATE INDEX uids_login ON uids (login);
INSERT INTO uids (uid, login, pooled, since)
SELECT json_extract(spec, '$.uid'), name, FALSE, created FROM users
WHERE json_extract(spec, '$.uid') IS NOT NULL ORDER BY id ON CONFLICT DO NOTHING;
