-- Grants that begin later.
ALTER TABLE grants ADD COLUMN starts INTEGER;
-- Whether its begin has been planned.
ALTER TABLE grants ADD COLUMN begun BOOLEAN NOT NULL DEFAULT TRUE;
CREATE INDEX grants_starts ON grants (starts) WHERE begun = FALSE;
