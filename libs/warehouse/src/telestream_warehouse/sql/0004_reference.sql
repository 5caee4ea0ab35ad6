-- Reference data belongs to no generation: all versions as they came. Of two with one valid_from the later offset wins.

CREATE TABLE IF NOT EXISTS {database}.reference_customer
(
    src_partition UInt32,
    src_offset UInt64,
    identifier String,
    identifier_kind LowCardinality(String),
    valid_from DateTime64(3, 'UTC'),
    deleted Bool,
    customer_id Nullable(String),
    plan_id LowCardinality(Nullable(String)),
    segment LowCardinality(Nullable(String)),
    region_id LowCardinality(Nullable(String)),
    status LowCardinality(Nullable(String)),
    activated_at Nullable(DateTime64(3, 'UTC')),
    bill_cycle_day Nullable(Int64),
    source LowCardinality(String),
    batch_id Int64,
    line UInt64,
    ingested_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(src_offset)
ORDER BY (identifier, valid_from)
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.reference_cell
(
    src_partition UInt32,
    src_offset UInt64,
    cell_id String,
    valid_from DateTime64(3, 'UTC'),
    deleted Bool,
    name Nullable(String),
    region_id LowCardinality(Nullable(String)),
    latitude Nullable(Float64),
    longitude Nullable(Float64),
    technology LowCardinality(Nullable(String)),
    vendor LowCardinality(Nullable(String)),
    source LowCardinality(String),
    batch_id Int64,
    line UInt64,
    ingested_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(src_offset)
ORDER BY (cell_id, valid_from)
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.reference_region
(
    src_partition UInt32,
    src_offset UInt64,
    region_id String,
    valid_from DateTime64(3, 'UTC'),
    deleted Bool,
    name Nullable(String),
    country LowCardinality(Nullable(String)),
    source LowCardinality(String),
    batch_id Int64,
    line UInt64,
    ingested_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(src_offset)
ORDER BY (region_id, valid_from)
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.reference_plan
(
    src_partition UInt32,
    src_offset UInt64,
    plan_id String,
    valid_from DateTime64(3, 'UTC'),
    deleted Bool,
    name Nullable(String),
    payment LowCardinality(Nullable(String)),
    currency LowCardinality(Nullable(String)),
    monthly_fee_micros Nullable(Int64),
    voice_allowance_s Nullable(Int64),
    sms_allowance Nullable(Int64),
    data_allowance_bytes Nullable(Int64),
    source LowCardinality(String),
    batch_id Int64,
    line UInt64,
    ingested_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(src_offset)
ORDER BY (plan_id, valid_from)
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.calendar
(
    hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    date Date,
    hour_of_day UInt8,
    day_of_week UInt8,
    day_of_month UInt8,
    iso_week UInt8,
    month UInt8,
    quarter UInt8,
    year UInt16,
    is_weekend Bool
)
ENGINE = ReplacingMergeTree
ORDER BY hour;

INSERT INTO {database}.calendar
SELECT
    toDateTime('2015-01-01 00:00:00', 'UTC') + toIntervalHour(number) AS hour,
    toDate(hour),
    toHour(hour),
    toDayOfWeek(hour),
    toDayOfMonth(hour),
    toISOWeek(hour),
    toMonth(hour),
    toQuarter(hour),
    toYear(hour),
    toDayOfWeek(hour) >= 6
FROM numbers(dateDiff('hour', toDateTime('2015-01-01 00:00:00', 'UTC'), toDateTime('2046-01-01 00:00:00', 'UTC')))
WHERE (SELECT count() FROM {database}.calendar) = 0;
