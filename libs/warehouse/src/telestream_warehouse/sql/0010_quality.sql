-- Numbers of switches beside every verdict, and indexes that find hours of arrival, reversals and amended windows.

ALTER TABLE {database}.judgement_all
    ADD COLUMN IF NOT EXISTS node_id LowCardinality(Nullable(String)),
    ADD COLUMN IF NOT EXISTS node_seq Nullable(Int64) CODEC(Delta, ZSTD(1));

-- Old rows lie in old, large parts: these are skipped whole. A reversal carries its original's time of arrival, so the
-- index never tells two versions of one row apart.
ALTER TABLE {database}.judgement_all
    ADD INDEX IF NOT EXISTS by_arrival appended_at TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.judgement_all MATERIALIZE INDEX by_arrival;
ALTER TABLE {database}.fact_cdr_all
    ADD INDEX IF NOT EXISTS by_arrival appended_at TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.fact_cdr_all MATERIALIZE INDEX by_arrival;
ALTER TABLE {database}.fact_network_event_all
    ADD INDEX IF NOT EXISTS by_arrival appended_at TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.fact_network_event_all MATERIALIZE INDEX by_arrival;

-- Null counts as infinite in a minmax index, and an index on an expression is not used; so a column, which * leaves out.
ALTER TABLE {database}.agg_cell_all
    ADD COLUMN IF NOT EXISTS late_ms Int64 MATERIALIZED ifNull(toUnixTimestamp64Milli(late_at), 0) CODEC(ZSTD(1)),
    ADD INDEX IF NOT EXISTS by_late_ms late_ms TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.agg_cell_all MATERIALIZE INDEX by_late_ms;
ALTER TABLE {database}.agg_region_all
    ADD COLUMN IF NOT EXISTS late_ms Int64 MATERIALIZED ifNull(toUnixTimestamp64Milli(late_at), 0) CODEC(ZSTD(1)),
    ADD INDEX IF NOT EXISTS by_late_ms late_ms TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.agg_region_all MATERIALIZE INDEX by_late_ms;
ALTER TABLE {database}.agg_plan_all
    ADD COLUMN IF NOT EXISTS late_ms Int64 MATERIALIZED ifNull(toUnixTimestamp64Milli(late_at), 0) CODEC(ZSTD(1)),
    ADD INDEX IF NOT EXISTS by_late_ms late_ms TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.agg_plan_all MATERIALIZE INDEX by_late_ms;
ALTER TABLE {database}.agg_subscriber_day_all
    ADD COLUMN IF NOT EXISTS late_ms Int64 MATERIALIZED ifNull(toUnixTimestamp64Milli(late_at), 0) CODEC(ZSTD(1)),
    ADD INDEX IF NOT EXISTS by_late_ms late_ms TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.agg_subscriber_day_all MATERIALIZE INDEX by_late_ms;

-- The judgement view with the columns above.
CREATE OR REPLACE VIEW {database}.judgement AS
SELECT *
FROM {database}.judgement_all FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type];
