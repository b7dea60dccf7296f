-- Whether a rule about drift asked for it: such a request is looked at again before it is sent.
ALTER TABLE requests ADD COLUMN by_rule BOOLEAN NOT NULL DEFAULT FALSE;
