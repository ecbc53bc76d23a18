-- What allows heed to skip reading, or to empty a warehouse, stands in the rows that it is about.
ALTER TABLE raw.loads ADD COLUMN simulation jsonb;
ALTER TABLE quality.checked_rows ADD COLUMN cluster text, ADD COLUMN written_by bigint;
