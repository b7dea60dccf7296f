CREATE TABLE uids (
    uid    BIGINT  NOT NULL PRIMARY KEY,
    login  TEXT    COLLATE "C" NOT NULL,
    pooled BOOLEAN NOT NULL,
    since  BIGINT  NOT NULL
);
CREATE INDEX uids_login ON uids (login);
INSERT INTO uids (uid, login, pooled, since)
SELECT CAST(CAST(spec AS json) ->> 'uid' AS BIGINT), name, FALSE, created FROM users
WHERE CAST(spec AS json) ->> 'uid' IS NOT NULL ORDER BY id ON CONFLICT DO NOTHING;
