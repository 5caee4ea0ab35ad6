-- Aggregates: full-state upserts, the one that includes most source offsets wins; readers sum over partitions and
-- segments. Markers of the aggregator are not stored. One-minute windows are for now, quarter hours and days for ever.

CREATE TABLE IF NOT EXISTS {database}.agg_cell_all
(
    generation UInt32,
    type LowCardinality(String),
    size_s UInt32,
    window_start DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    cell_id LowCardinality(String),
    partition UInt32,
    segment UInt64,
    src_to UInt64,
    freshest_event_end_at Nullable(DateTime64(3, 'UTC')),
    records Int64,
    sms Int64,
    mms Int64,
    data_records Int64,
    ussd Int64,
    others Int64,
    attempts Int64,
    completed Int64,
    no_answer Int64,
    busy Int64,
    cancelled Int64,
    congestion Int64,
    failed Int64,
    dropped Int64,
    unknown Int64,
    duration_ms Int64,
    holding_ms Int64,
    bytes_up Int64,
    bytes_down Int64,
    charge_currencies Array(LowCardinality(String)),
    charge_micros Array(Int64),
    events Int64,
    samples Int64,
    attaches Int64,
    handovers Int64,
    rrc_setups Int64,
    radio_link_failures Int64,
    alarms Int64,
    cell_downs Int64,
    cell_ups Int64,
    success_known Int64,
    successes Int64,
    latency_us Int64,
    latency_us_count Int64,
    throughput_dl_kbps Int64,
    throughput_dl_kbps_count Int64,
    throughput_ul_kbps Int64,
    throughput_ul_kbps_count Int64,
    packet_loss_ppm Int64,
    packet_loss_ppm_count Int64
)
ENGINE = ReplacingMergeTree(src_to)
PARTITION BY (generation, toYYYYMM(window_start))
ORDER BY (generation, type, size_s, cell_id, window_start, partition, segment)
TTL toDateTime(window_start) + INTERVAL 14 DAY DELETE WHERE size_s = 60
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.agg_region_all
(
    generation UInt32,
    type LowCardinality(String),
    size_s UInt32,
    window_start DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    region_id LowCardinality(String),
    partition UInt32,
    segment UInt64,
    src_to UInt64,
    freshest_event_end_at Nullable(DateTime64(3, 'UTC')),
    records Int64,
    sms Int64,
    mms Int64,
    data_records Int64,
    ussd Int64,
    others Int64,
    attempts Int64,
    completed Int64,
    no_answer Int64,
    busy Int64,
    cancelled Int64,
    congestion Int64,
    failed Int64,
    dropped Int64,
    unknown Int64,
    duration_ms Int64,
    holding_ms Int64,
    bytes_up Int64,
    bytes_down Int64,
    charge_currencies Array(LowCardinality(String)),
    charge_micros Array(Int64),
    events Int64,
    samples Int64,
    attaches Int64,
    handovers Int64,
    rrc_setups Int64,
    radio_link_failures Int64,
    alarms Int64,
    cell_downs Int64,
    cell_ups Int64,
    success_known Int64,
    successes Int64,
    latency_us Int64,
    latency_us_count Int64,
    throughput_dl_kbps Int64,
    throughput_dl_kbps_count Int64,
    throughput_ul_kbps Int64,
    throughput_ul_kbps_count Int64,
    packet_loss_ppm Int64,
    packet_loss_ppm_count Int64
)
ENGINE = ReplacingMergeTree(src_to)
PARTITION BY (generation, toYYYYMM(window_start))
ORDER BY (generation, type, size_s, region_id, window_start, partition, segment)
TTL toDateTime(window_start) + INTERVAL 14 DAY DELETE WHERE size_s = 60
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.agg_plan_all
(
    generation UInt32,
    type LowCardinality(String),
    size_s UInt32,
    window_start DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    plan_id LowCardinality(String),
    partition UInt32,
    segment UInt64,
    src_to UInt64,
    freshest_event_end_at Nullable(DateTime64(3, 'UTC')),
    records Int64,
    sms Int64,
    mms Int64,
    data_records Int64,
    ussd Int64,
    others Int64,
    attempts Int64,
    completed Int64,
    no_answer Int64,
    busy Int64,
    cancelled Int64,
    congestion Int64,
    failed Int64,
    dropped Int64,
    unknown Int64,
    duration_ms Int64,
    holding_ms Int64,
    bytes_up Int64,
    bytes_down Int64,
    charge_currencies Array(LowCardinality(String)),
    charge_micros Array(Int64)
)
ENGINE = ReplacingMergeTree(src_to)
PARTITION BY (generation, toYYYYMM(window_start))
ORDER BY (generation, type, size_s, plan_id, window_start, partition, segment)
TTL toDateTime(window_start) + INTERVAL 14 DAY DELETE WHERE size_s = 60
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.agg_subscriber_day_all
(
    generation UInt32,
    type LowCardinality(String),
    size_s UInt32,
    window_start DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    local_date Date32,
    subscriber_id String,
    plan_id LowCardinality(String),
    roaming LowCardinality(String),
    direction LowCardinality(String),
    currency LowCardinality(String),
    partition UInt32,
    segment UInt64,
    src_to UInt64,
    records Int64,
    sms Int64,
    mms Int64,
    data_records Int64,
    ussd Int64,
    others Int64,
    attempts Int64,
    completed Int64,
    no_answer Int64,
    busy Int64,
    cancelled Int64,
    congestion Int64,
    failed Int64,
    dropped Int64,
    unknown Int64,
    duration_ms Int64,
    holding_ms Int64,
    bytes_up Int64,
    bytes_down Int64,
    charge_micros Int64
)
ENGINE = ReplacingMergeTree(src_to)
PARTITION BY (generation, toYYYYMM(window_start))
ORDER BY (generation, type, size_s, subscriber_id, window_start, plan_id, roaming, direction, currency, partition, segment)
SETTINGS min_bytes_for_wide_part = 1000000000;

CREATE TABLE IF NOT EXISTS {database}.agg_quality_all
(
    generation UInt32,
    type LowCardinality(String),
    size_s UInt32,
    window_start DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    source LowCardinality(String),
    verdict LowCardinality(String),
    rule LowCardinality(String),
    partition UInt32,
    segment UInt64,
    src_to UInt64,
    records Int64,
    reversals Int64,
    warned Int64,
    duration_ms Int64,
    bytes Int64,
    latency_ms Int64,
    charge_currencies Array(LowCardinality(String)),
    charge_micros Array(Int64)
)
ENGINE = ReplacingMergeTree(src_to)
PARTITION BY (generation, toYYYYMM(window_start))
ORDER BY (generation, type, size_s, source, verdict, rule, window_start, partition, segment)
SETTINGS min_bytes_for_wide_part = 1000000000;
