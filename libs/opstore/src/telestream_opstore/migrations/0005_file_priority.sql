-- A backfill gives way to live records, also after the gateway was started anew.
ALTER TABLE file ADD COLUMN priority text NOT NULL DEFAULT 'live' CHECK (priority IN ('live', 'backfill'));
