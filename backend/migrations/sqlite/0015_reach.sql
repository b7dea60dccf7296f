-- Which servers have a label, without reading those of all.
CREATE INDEX labels_value ON labels (name, value);
