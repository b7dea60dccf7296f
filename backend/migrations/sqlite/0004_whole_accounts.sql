-- What version 2 can say of accounts. JSON where the values are the wire's.
ALTER TABLE users ADD COLUMN spec TEXT NOT NULL DEFAULT '{}';
ALTER TABLE users ADD COLUMN locked BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE user_keys ADD COLUMN options TEXT NOT NULL DEFAULT '';
ALTER TABLE user_keys ADD COLUMN until INTEGER;
CREATE INDEX user_keys_until ON user_keys (until) WHERE until IS NOT NULL;
ALTER TABLE grants ADD COLUMN until INTEGER;
ALTER TABLE grants ADD COLUMN sudo_policy TEXT REFERENCES sudo_policies (name);
ALTER TABLE grants ADD COLUMN key_options TEXT NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN take_over BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX grants_until ON grants (until) WHERE until IS NOT NULL;

CREATE TABLE sudo_policies (
    name     TEXT    NOT NULL PRIMARY KEY,
    -- The policy as on the wire.
    policy   TEXT    NOT NULL,
    created  INTEGER NOT NULL
);

-- What becomes of the accounts of people who were removed; where nothing is said, each server's
-- own rule counts.
CREATE TABLE removals (
    login   TEXT NOT NULL PRIMARY KEY,
    removal TEXT NOT NULL
);

-- The whole account as confirmed, where that is more than sudo and keys.
ALTER TABLE accounts ADD COLUMN wanted TEXT;
