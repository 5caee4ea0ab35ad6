-- The producer's own number of a file: gaps are found with it.
ALTER TABLE file ADD COLUMN sequence bigint;
CREATE INDEX file_by_source ON file (source, type, finished_at);
