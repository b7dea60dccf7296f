-- Groups of people: people and other groups are in them, never one in itself.
CREATE TABLE user_groups (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name    TEXT    NOT NULL UNIQUE,
    created INTEGER NOT NULL
);

CREATE TABLE user_group_users (
    group_id INTEGER NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    user_id  INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX user_group_users_user ON user_group_users (user_id);

CREATE TABLE user_group_groups (
    group_id  INTEGER NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    -- The group inside it.
    member_id INTEGER NOT NULL REFERENCES user_groups (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, member_id)
);
CREATE INDEX user_group_groups_member ON user_group_groups (member_id);

-- Grants are a person's or a group's. No other table refers to them, so the old table can go
-- while foreign keys are checked.
CREATE TABLE new_grants (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id     INTEGER REFERENCES users (id) ON DELETE CASCADE,
    group_id    INTEGER REFERENCES user_groups (id) ON DELETE CASCADE,
    target      TEXT    NOT NULL,
    -- Absent for a group: everybody's own name.
    login       TEXT,
    sudo        BOOLEAN NOT NULL,
    reason      TEXT    NOT NULL,
    created     INTEGER NOT NULL,
    until       INTEGER,
    sudo_policy TEXT    REFERENCES sudo_policies (name),
    key_options TEXT    NOT NULL DEFAULT '',
    take_over   BOOLEAN NOT NULL DEFAULT FALSE,
    CHECK ((user_id IS NULL) <> (group_id IS NULL)),
    CHECK (user_id IS NULL OR login IS NOT NULL)
);
INSERT INTO new_grants (id, user_id, target, login, sudo, reason, created, until, sudo_policy,
                        key_options, take_over)
SELECT id, user_id, target, login, sudo, reason, created, until, sudo_policy, key_options, take_over
FROM grants;
-- Numbers of grants that are gone are given to no other.
DELETE FROM sqlite_sequence WHERE name = 'new_grants';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'new_grants', seq FROM sqlite_sequence WHERE name = 'grants';
DROP TABLE grants;
ALTER TABLE new_grants RENAME TO grants;
CREATE INDEX grants_login ON grants (login);
CREATE INDEX grants_user ON grants (user_id);
CREATE INDEX grants_group ON grants (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX grants_until ON grants (until) WHERE until IS NOT NULL;
