-- The books: every judged record, whatever its verdict, at its source offset; duplicates and dead letters in full.
-- A row of these is written again only with the same content, so the last one may win.

CREATE TABLE IF NOT EXISTS {database}.judgement_all
(
    generation UInt32,
    type LowCardinality(String),
    src_partition UInt32,
    src_offset UInt64 CODEC(DoubleDelta, ZSTD(1)),
    booked_offset UInt64 CODEC(DoubleDelta, ZSTD(1)),
    verdict LowCardinality(String),
    sign Int8,
    rule LowCardinality(String),
    warned UInt8,
    source LowCardinality(String),
    batch_id Int64 CODEC(Delta, ZSTD(1)),
    appended_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    duration_ms Int64 CODEC(T64, LZ4),
    bytes Int64 CODEC(T64, LZ4),
    charge_micros Int64 CODEC(T64, LZ4),
    currency LowCardinality(String)
)
ENGINE = ReplacingMergeTree
PARTITION BY (generation, type)
ORDER BY (generation, type, src_partition, src_offset)
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.duplicate_all
(
    generation UInt32,
    type LowCardinality(String),
    src_partition UInt32,
    src_offset UInt64,
    appended_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    sign Int8,
    rule LowCardinality(Nullable(String)),
    first_offset Nullable(UInt64),
    event_uid String,
    event_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    subscriber_id Nullable(String),
    cell_id LowCardinality(Nullable(String)),
    source LowCardinality(String),
    batch_id Int64,
    line UInt64,
    duration_ms Nullable(Int64),
    bytes_up Nullable(Int64),
    bytes_down Nullable(Int64),
    charge_micros Nullable(Int64),
    currency LowCardinality(Nullable(String))
)
ENGINE = ReplacingMergeTree
PARTITION BY generation
ORDER BY (generation, type, src_partition, src_offset)
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.dead_letter_all
(
    generation UInt32,
    type LowCardinality(String),
    src_topic String,
    src_partition UInt32,
    src_offset UInt64,
    appended_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    rule LowCardinality(String),
    reason String,
    field LowCardinality(Nullable(String)),
    source LowCardinality(Nullable(String)),
    batch_id Nullable(Int64),
    line Nullable(UInt64),
    event_uid Nullable(String),
    rules_version UInt32,
    original String
)
ENGINE = ReplacingMergeTree
PARTITION BY (generation, toYYYYMM(appended_at))
ORDER BY (generation, type, appended_at, src_partition, src_offset)
SETTINGS min_bytes_for_wide_part = 1000000000;
