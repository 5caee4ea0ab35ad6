-- One row for each generation: what it derives, from where and with what, and whether its workers are wanted.
CREATE TABLE derivation (
    topic_prefix  text NOT NULL,
    generation    integer NOT NULL CHECK (generation >= 1),
    types         text[] NOT NULL CHECK (cardinality(types) > 0),
    state         text NOT NULL CHECK (state IN ('PREPARING', 'RUNNING', 'FINISHED', 'DROPPING', 'DROPPED')),
    compare_only  boolean NOT NULL DEFAULT false,
    plan          jsonb NOT NULL,
    reason        text NOT NULL,
    actor         text NOT NULL,
    problem       text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    caught_up_at  timestamptz,
    decided_at    timestamptz,
    dropped_at    timestamptz,
    PRIMARY KEY (topic_prefix, generation)
);
COMMENT ON COLUMN derivation.plan IS 'telestream_opstore.Plan: written once, never changed';
COMMENT ON COLUMN derivation.caught_up_at IS 'When all that lay in raw at the start was derived for the first time';
COMMENT ON COLUMN derivation.decided_at IS 'First activation: no longer a replay in work, another one of its types may begin';
