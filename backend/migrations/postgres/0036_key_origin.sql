-- Whose edit brought the key, and by what.
ALTER TABLE user_keys ADD COLUMN origin TEXT NOT NULL DEFAULT '';
