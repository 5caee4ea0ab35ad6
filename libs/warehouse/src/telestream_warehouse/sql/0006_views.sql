-- What people query. Nothing here has a generation in its name: the active one is looked up when a view is read.

CREATE OR REPLACE VIEW {database}.active_generation AS
SELECT mapping.1 AS type, mapping.2 AS generation
FROM (SELECT arrayJoin(CAST(argMax(generations, version), 'Array(Tuple(String, UInt32))')) AS mapping FROM {database}.activation);

CREATE OR REPLACE VIEW {database}.fact_cdr AS
SELECT * EXCEPT (withdrawn, reverses_offset, max_age_days)
FROM {database}.fact_cdr_all FINAL
WHERE generation = (SELECT argMax(generations, version) FROM {database}.activation)['cdr'];

CREATE OR REPLACE VIEW {database}.fact_network_event AS
SELECT * EXCEPT (withdrawn, reverses_offset, max_age_days)
FROM {database}.fact_network_event_all FINAL
WHERE generation = (SELECT argMax(generations, version) FROM {database}.activation)['network'];

CREATE OR REPLACE VIEW {database}.judgement AS
SELECT *
FROM {database}.judgement_all FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type];

CREATE OR REPLACE VIEW {database}.duplicate AS
SELECT *
FROM {database}.duplicate_all FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type];

CREATE OR REPLACE VIEW {database}.dead_letter AS
SELECT *
FROM {database}.dead_letter_all FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type];

CREATE OR REPLACE VIEW {database}.agg_cell AS
SELECT
    a.generation AS generation,
    a.type AS type,
    a.size_s AS size_s,
    a.cell_id AS cell_id,
    a.window_start AS window_start,
    max(a.freshest_event_end_at) AS freshest_event_end_at,
    sum(a.records) AS records,
    sum(a.sms) AS sms,
    sum(a.mms) AS mms,
    sum(a.data_records) AS data_records,
    sum(a.ussd) AS ussd,
    sum(a.others) AS others,
    sum(a.attempts) AS attempts,
    sum(a.completed) AS completed,
    sum(a.no_answer) AS no_answer,
    sum(a.busy) AS busy,
    sum(a.cancelled) AS cancelled,
    sum(a.congestion) AS congestion,
    sum(a.failed) AS failed,
    sum(a.dropped) AS dropped,
    sum(a.unknown) AS unknown,
    sum(a.duration_ms) AS duration_ms,
    sum(a.holding_ms) AS holding_ms,
    sum(a.bytes_up) AS bytes_up,
    sum(a.bytes_down) AS bytes_down,
    mapFromArrays(sumMap(a.charge_currencies, a.charge_micros).1, sumMap(a.charge_currencies, a.charge_micros).2) AS charge_micros,
    sum(a.events) AS events,
    sum(a.samples) AS samples,
    sum(a.attaches) AS attaches,
    sum(a.handovers) AS handovers,
    sum(a.rrc_setups) AS rrc_setups,
    sum(a.radio_link_failures) AS radio_link_failures,
    sum(a.alarms) AS alarms,
    sum(a.cell_downs) AS cell_downs,
    sum(a.cell_ups) AS cell_ups,
    sum(a.success_known) AS success_known,
    sum(a.successes) AS successes,
    sum(a.latency_us) AS latency_us,
    sum(a.latency_us_count) AS latency_us_count,
    sum(a.throughput_dl_kbps) AS throughput_dl_kbps,
    sum(a.throughput_dl_kbps_count) AS throughput_dl_kbps_count,
    sum(a.throughput_ul_kbps) AS throughput_ul_kbps,
    sum(a.throughput_ul_kbps_count) AS throughput_ul_kbps_count,
    sum(a.packet_loss_ppm) AS packet_loss_ppm,
    sum(a.packet_loss_ppm_count) AS packet_loss_ppm_count
FROM {database}.agg_cell_all AS a FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type]
GROUP BY generation, type, size_s, cell_id, window_start;

CREATE OR REPLACE VIEW {database}.agg_region AS
SELECT
    a.generation AS generation,
    a.type AS type,
    a.size_s AS size_s,
    a.region_id AS region_id,
    a.window_start AS window_start,
    max(a.freshest_event_end_at) AS freshest_event_end_at,
    sum(a.records) AS records,
    sum(a.sms) AS sms,
    sum(a.mms) AS mms,
    sum(a.data_records) AS data_records,
    sum(a.ussd) AS ussd,
    sum(a.others) AS others,
    sum(a.attempts) AS attempts,
    sum(a.completed) AS completed,
    sum(a.no_answer) AS no_answer,
    sum(a.busy) AS busy,
    sum(a.cancelled) AS cancelled,
    sum(a.congestion) AS congestion,
    sum(a.failed) AS failed,
    sum(a.dropped) AS dropped,
    sum(a.unknown) AS unknown,
    sum(a.duration_ms) AS duration_ms,
    sum(a.holding_ms) AS holding_ms,
    sum(a.bytes_up) AS bytes_up,
    sum(a.bytes_down) AS bytes_down,
    mapFromArrays(sumMap(a.charge_currencies, a.charge_micros).1, sumMap(a.charge_currencies, a.charge_micros).2) AS charge_micros,
    sum(a.events) AS events,
    sum(a.samples) AS samples,
    sum(a.attaches) AS attaches,
    sum(a.handovers) AS handovers,
    sum(a.rrc_setups) AS rrc_setups,
    sum(a.radio_link_failures) AS radio_link_failures,
    sum(a.alarms) AS alarms,
    sum(a.cell_downs) AS cell_downs,
    sum(a.cell_ups) AS cell_ups,
    sum(a.success_known) AS success_known,
    sum(a.successes) AS successes,
    sum(a.latency_us) AS latency_us,
    sum(a.latency_us_count) AS latency_us_count,
    sum(a.throughput_dl_kbps) AS throughput_dl_kbps,
    sum(a.throughput_dl_kbps_count) AS throughput_dl_kbps_count,
    sum(a.throughput_ul_kbps) AS throughput_ul_kbps,
    sum(a.throughput_ul_kbps_count) AS throughput_ul_kbps_count,
    sum(a.packet_loss_ppm) AS packet_loss_ppm,
    sum(a.packet_loss_ppm_count) AS packet_loss_ppm_count
FROM {database}.agg_region_all AS a FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type]
GROUP BY generation, type, size_s, region_id, window_start;

CREATE OR REPLACE VIEW {database}.agg_plan AS
SELECT
    a.generation AS generation,
    a.type AS type,
    a.size_s AS size_s,
    a.plan_id AS plan_id,
    a.window_start AS window_start,
    max(a.freshest_event_end_at) AS freshest_event_end_at,
    sum(a.records) AS records,
    sum(a.sms) AS sms,
    sum(a.mms) AS mms,
    sum(a.data_records) AS data_records,
    sum(a.ussd) AS ussd,
    sum(a.others) AS others,
    sum(a.attempts) AS attempts,
    sum(a.completed) AS completed,
    sum(a.no_answer) AS no_answer,
    sum(a.busy) AS busy,
    sum(a.cancelled) AS cancelled,
    sum(a.congestion) AS congestion,
    sum(a.failed) AS failed,
    sum(a.dropped) AS dropped,
    sum(a.unknown) AS unknown,
    sum(a.duration_ms) AS duration_ms,
    sum(a.holding_ms) AS holding_ms,
    sum(a.bytes_up) AS bytes_up,
    sum(a.bytes_down) AS bytes_down,
    mapFromArrays(sumMap(a.charge_currencies, a.charge_micros).1, sumMap(a.charge_currencies, a.charge_micros).2) AS charge_micros
FROM {database}.agg_plan_all AS a FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type]
GROUP BY generation, type, size_s, plan_id, window_start;

CREATE OR REPLACE VIEW {database}.agg_subscriber_day AS
SELECT
    a.generation AS generation,
    a.type AS type,
    a.size_s AS size_s,
    a.subscriber_id AS subscriber_id,
    a.window_start AS window_start,
    a.local_date AS local_date,
    a.plan_id AS plan_id,
    a.roaming AS roaming,
    a.direction AS direction,
    a.currency AS currency,
    sum(a.records) AS records,
    sum(a.sms) AS sms,
    sum(a.mms) AS mms,
    sum(a.data_records) AS data_records,
    sum(a.ussd) AS ussd,
    sum(a.others) AS others,
    sum(a.attempts) AS attempts,
    sum(a.completed) AS completed,
    sum(a.no_answer) AS no_answer,
    sum(a.busy) AS busy,
    sum(a.cancelled) AS cancelled,
    sum(a.congestion) AS congestion,
    sum(a.failed) AS failed,
    sum(a.dropped) AS dropped,
    sum(a.unknown) AS unknown,
    sum(a.duration_ms) AS duration_ms,
    sum(a.holding_ms) AS holding_ms,
    sum(a.bytes_up) AS bytes_up,
    sum(a.bytes_down) AS bytes_down,
    sum(a.charge_micros) AS charge_micros
FROM {database}.agg_subscriber_day_all AS a FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type]
GROUP BY generation, type, size_s, subscriber_id, window_start, local_date, plan_id, roaming, direction, currency;

CREATE OR REPLACE VIEW {database}.agg_quality AS
SELECT
    a.generation AS generation,
    a.type AS type,
    a.size_s AS size_s,
    a.source AS source,
    a.verdict AS verdict,
    a.rule AS rule,
    a.window_start AS window_start,
    sum(a.records) AS records,
    sum(a.reversals) AS reversals,
    sum(a.warned) AS warned,
    sum(a.duration_ms) AS duration_ms,
    sum(a.bytes) AS bytes,
    sum(a.latency_ms) AS latency_ms,
    mapFromArrays(sumMap(a.charge_currencies, a.charge_micros).1, sumMap(a.charge_currencies, a.charge_micros).2) AS charge_micros
FROM {database}.agg_quality_all AS a FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type]
GROUP BY generation, type, size_s, source, verdict, rule, window_start;

-- Rows per cell and quarter hour; hours and local days are their sums (every time zone is a multiple of 15 minutes).
CREATE OR REPLACE VIEW {database}.fact_cell_kpi AS
SELECT
    a.cell_id AS cell_id,
    a.window_start AS window_start,
    a.size_s AS size_s,
    max(a.freshest_event_end_at) AS freshest_event_end_at,
    sum(a.records) AS records,
    sum(a.sms) AS sms,
    sum(a.mms) AS mms,
    sum(a.data_records) AS data_records,
    sum(a.ussd) AS ussd,
    sum(a.others) AS others,
    sum(a.attempts) AS attempts,
    sum(a.completed) AS completed,
    sum(a.no_answer) AS no_answer,
    sum(a.busy) AS busy,
    sum(a.cancelled) AS cancelled,
    sum(a.congestion) AS congestion,
    sum(a.failed) AS failed,
    sum(a.dropped) AS dropped,
    sum(a.unknown) AS unknown,
    sum(a.duration_ms) AS duration_ms,
    sum(a.holding_ms) AS holding_ms,
    sum(a.bytes_up) AS bytes_up,
    sum(a.bytes_down) AS bytes_down,
    mapFromArrays(sumMap(a.charge_currencies, a.charge_micros).1, sumMap(a.charge_currencies, a.charge_micros).2) AS charge_micros,
    sum(a.events) AS events,
    sum(a.samples) AS samples,
    sum(a.attaches) AS attaches,
    sum(a.handovers) AS handovers,
    sum(a.rrc_setups) AS rrc_setups,
    sum(a.radio_link_failures) AS radio_link_failures,
    sum(a.alarms) AS alarms,
    sum(a.cell_downs) AS cell_downs,
    sum(a.cell_ups) AS cell_ups,
    sum(a.success_known) AS success_known,
    sum(a.successes) AS successes,
    sum(a.latency_us) AS latency_us,
    sum(a.latency_us_count) AS latency_us_count,
    sum(a.throughput_dl_kbps) AS throughput_dl_kbps,
    sum(a.throughput_dl_kbps_count) AS throughput_dl_kbps_count,
    sum(a.throughput_ul_kbps) AS throughput_ul_kbps,
    sum(a.throughput_ul_kbps_count) AS throughput_ul_kbps_count,
    sum(a.packet_loss_ppm) AS packet_loss_ppm,
    sum(a.packet_loss_ppm_count) AS packet_loss_ppm_count
FROM {database}.agg_cell_all AS a FINAL
WHERE generation IN mapValues((SELECT argMax(generations, version) FROM {database}.activation))
  AND generation = (SELECT argMax(generations, version) FROM {database}.activation)[type]
  AND size_s = 900
GROUP BY cell_id, window_start, size_s;

CREATE OR REPLACE VIEW {database}.dim_customer AS
SELECT
    identifier,
    valid_from,
    valid_to,
    identifier_kind,
    customer_id,
    plan_id,
    segment,
    region_id,
    status,
    activated_at,
    bill_cycle_day
FROM
(
    SELECT
        *,
        leadInFrame(valid_from, 1, toDateTime64('2299-12-31 00:00:00', 3, 'UTC')) OVER (
            PARTITION BY identifier ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS valid_to
    FROM {database}.reference_customer FINAL
)
WHERE NOT deleted;

CREATE OR REPLACE VIEW {database}.dim_customer_current AS
SELECT *
FROM {database}.dim_customer
WHERE valid_from <= now64(3) AND valid_to > now64(3);

CREATE OR REPLACE VIEW {database}.dim_cell_version AS
SELECT
    cell_id,
    valid_from,
    valid_to,
    name,
    region_id,
    latitude,
    longitude,
    technology,
    vendor
FROM
(
    SELECT
        *,
        leadInFrame(valid_from, 1, toDateTime64('2299-12-31 00:00:00', 3, 'UTC')) OVER (
            PARTITION BY cell_id ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS valid_to
    FROM {database}.reference_cell FINAL
)
WHERE NOT deleted;

CREATE OR REPLACE VIEW {database}.dim_cell AS
SELECT *
FROM {database}.dim_cell_version
WHERE valid_from <= now64(3) AND valid_to > now64(3);

CREATE OR REPLACE VIEW {database}.dim_region_version AS
SELECT
    region_id,
    valid_from,
    valid_to,
    name,
    country
FROM
(
    SELECT
        *,
        leadInFrame(valid_from, 1, toDateTime64('2299-12-31 00:00:00', 3, 'UTC')) OVER (
            PARTITION BY region_id ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS valid_to
    FROM {database}.reference_region FINAL
)
WHERE NOT deleted;

CREATE OR REPLACE VIEW {database}.dim_region AS
SELECT *
FROM {database}.dim_region_version
WHERE valid_from <= now64(3) AND valid_to > now64(3);

CREATE OR REPLACE VIEW {database}.dim_service_plan_version AS
SELECT
    plan_id,
    valid_from,
    valid_to,
    name,
    payment,
    currency,
    monthly_fee_micros,
    voice_allowance_s,
    sms_allowance,
    data_allowance_bytes
FROM
(
    SELECT
        *,
        leadInFrame(valid_from, 1, toDateTime64('2299-12-31 00:00:00', 3, 'UTC')) OVER (
            PARTITION BY plan_id ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS valid_to
    FROM {database}.reference_plan FINAL
)
WHERE NOT deleted;

CREATE OR REPLACE VIEW {database}.dim_service_plan AS
SELECT *
FROM {database}.dim_service_plan_version
WHERE valid_from <= now64(3) AND valid_to > now64(3);

CREATE OR REPLACE VIEW {database}.dim_time AS
SELECT *
FROM {database}.calendar FINAL;

-- The customer is joined when read: the last one who held the identifier during that local day.
CREATE OR REPLACE VIEW {database}.fact_customer_usage_daily AS
SELECT
    a.local_date AS local_date,
    a.window_start AS day_start,
    a.subscriber_id AS subscriber_id,
    if(c.valid_to > a.window_start, c.customer_id, NULL) AS customer_id,
    a.plan_id AS plan_id,
    a.roaming AS roaming,
    a.direction AS direction,
    a.currency AS currency,
    a.records AS records,
    a.sms AS sms,
    a.mms AS mms,
    a.data_records AS data_records,
    a.ussd AS ussd,
    a.others AS others,
    a.attempts AS attempts,
    a.completed AS completed,
    a.no_answer AS no_answer,
    a.busy AS busy,
    a.cancelled AS cancelled,
    a.congestion AS congestion,
    a.failed AS failed,
    a.dropped AS dropped,
    a.unknown AS unknown,
    a.duration_ms AS duration_ms,
    a.holding_ms AS holding_ms,
    a.bytes_up AS bytes_up,
    a.bytes_down AS bytes_down,
    a.charge_micros AS charge_micros
FROM
(
    SELECT *, window_start + INTERVAL 1 DAY AS day_end
    FROM {database}.agg_subscriber_day
) AS a
ASOF LEFT JOIN
(
    SELECT identifier, valid_from, valid_to, customer_id
    FROM {database}.dim_customer
) AS c
ON a.subscriber_id = c.identifier AND a.day_end > c.valid_from;
