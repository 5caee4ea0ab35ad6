-- What state depends on is fixed by whoever starts first. Generation 0: what belongs to raw, and so to every generation.
ALTER TABLE generation ADD COLUMN topic_prefix text NOT NULL DEFAULT 'telestream.';
ALTER TABLE generation ALTER COLUMN topic_prefix DROP DEFAULT;
ALTER TABLE generation DROP CONSTRAINT generation_pkey;
ALTER TABLE generation ADD PRIMARY KEY (topic_prefix, generation, type);
COMMENT ON COLUMN generation.settings IS 'Name to value; only ever added to, a later version may fix more';
