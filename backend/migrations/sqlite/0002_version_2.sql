-- The number of the last order that was signed for the server.
ALTER TABLE servers ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
-- Fingerprint of the signing key that its agent obeys, as far as we know.
ALTER TABLE servers ADD COLUMN signing_key TEXT;
-- What its agent has told about it: a JSON object of texts.
ALTER TABLE servers ADD COLUMN facts TEXT;
