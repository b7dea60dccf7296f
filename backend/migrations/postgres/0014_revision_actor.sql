-- Who made the edit, as the audit log names them; NULL for edits before this was kept.
ALTER TABLE revisions ADD COLUMN actor TEXT;
