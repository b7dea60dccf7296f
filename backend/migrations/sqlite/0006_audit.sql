-- Why, in the words of whoever did it; and what the server answered, as its status on the wire.
ALTER TABLE audit ADD COLUMN reason TEXT;
ALTER TABLE audit ADD COLUMN status INTEGER;

-- Rows are appended, nothing else. REPLACE deletes without a DELETE (lang_conflict in SQLite's
-- documentation): a row that is not the next one is refused before it comes to that.
CREATE TRIGGER audit_append BEFORE INSERT ON audit
WHEN NEW.id IS NOT (SELECT COALESCE(MAX(id), 0) + 1 FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is only appended to');
END;
CREATE TRIGGER audit_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is only appended to');
END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is only appended to');
END;
