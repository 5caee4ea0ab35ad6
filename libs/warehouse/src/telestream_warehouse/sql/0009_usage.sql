-- Usage by customer. A view knows no business time zone, so the days on which an identifier may have changed hands are
-- the three around the change by UTC: they are counted from the stored records, as of each one's time, which is as right
-- for a day without a change. All other days have one holder and come from the aggregates.

-- Identifiers that came into other hands, the first version left out: a number's first day is its first holder's.
CREATE OR REPLACE VIEW {database}.holder_change AS
SELECT identifier, changed_at
FROM
(
    SELECT
        identifier,
        valid_from AS changed_at,
        if(deleted, NULL, customer_id) AS holder,
        lagInFrame(if(deleted, NULL, customer_id)) OVER (
            PARTITION BY identifier ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS before,
        row_number() OVER (
            PARTITION BY identifier ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS version
    FROM {database}.reference_customer FINAL
)
WHERE version > 1 AND ifNull(holder, '') != ifNull(before, '');

-- Whose identifiers, without reading all of them. A customer is in no key; versions of one row may differ in it, so it is
-- only ever asked without FINAL.
ALTER TABLE {database}.reference_customer
    ADD INDEX IF NOT EXISTS by_customer customer_id TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE {database}.reference_customer MATERIALIZE INDEX by_customer;

-- The same for all versions of a row: the key's window and the date say the same.
ALTER TABLE {database}.agg_subscriber_day_all
    ADD INDEX IF NOT EXISTS by_local_date local_date TYPE minmax GRANULARITY 1;
ALTER TABLE {database}.agg_subscriber_day_all MATERIALIZE INDEX by_local_date;

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
    a.sessions AS sessions,
    a.sms_segments AS sms_segments,
    a.late_records AS late_records,
    a.reversals AS reversals,
    a.charge_micros AS charge_micros,
    a.late_at AS late_at
FROM
(
    SELECT *, window_start + INTERVAL 1 DAY AS day_end
    FROM {database}.agg_subscriber_day
    WHERE (subscriber_id, local_date) NOT IN (
        SELECT identifier, toDate32(changed_at) + arrayJoin([-1, 0, 1])
        FROM {database}.holder_change
    )
) AS a
ASOF LEFT JOIN
(
    SELECT identifier, valid_from, valid_to, customer_id
    FROM {database}.dim_customer
) AS c
ON a.subscriber_id = c.identifier AND a.day_end > c.valid_from
UNION ALL
SELECT
    assumeNotNull(f.local_date) AS local_date,
    d.window_start AS day_start,
    f.subscriber_id AS subscriber_id,
    if(c.valid_to > f.started_at, c.customer_id, NULL) AS customer_id,
    ifNull(f.plan_id, '') AS plan_id,
    f.roaming AS roaming,
    ifNull(f.direction, '') AS direction,
    ifNull(f.currency, '') AS currency,
    sum(toInt64(1)) AS records,
    sum(toInt64(f.record_type = 'SMS')) AS sms,
    sum(toInt64(f.record_type = 'MMS')) AS mms,
    sum(toInt64(f.record_type = 'DATA')) AS data_records,
    sum(toInt64(f.record_type = 'USSD')) AS ussd,
    sum(toInt64(f.record_type = 'OTHER')) AS others,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')), 0))) AS attempts,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'COMPLETED', 0))) AS completed,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'NO_ANSWER', 0))) AS no_answer,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'BUSY', 0))) AS busy,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'CANCELLED', 0))) AS cancelled,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'CONGESTION', 0))) AS congestion,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'FAILED', 0))) AS failed,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'DROPPED', 0))) AS dropped,
    sum(toInt64(ifNull((f.record_type IN ('VOICE', 'VIDEO')) AND f.status = 'UNKNOWN', 0))) AS unknown,
    sum(toInt64(if((f.record_type IN ('VOICE', 'VIDEO')), ifNull(f.duration_ms, 0), 0))) AS duration_ms,
    sum(toInt64(if((f.record_type IN ('VOICE', 'VIDEO')), ifNull(coalesce(f.holding_ms, f.duration_ms), 0), 0))) AS holding_ms,
    sum(toInt64(if(1, ifNull(f.bytes_up, 0), 0))) AS bytes_up,
    sum(toInt64(if(1, ifNull(f.bytes_down, 0), 0))) AS bytes_down,
    sum(toInt64(ifNull((f.record_type = 'DATA') AND NOT f.is_partial, 0))) AS sessions,
    sum(toInt64(if(f.record_type = 'SMS', ifNull(f.segments, 1), 0))) AS sms_segments,
    CAST(NULL, 'Nullable(Int64)') AS late_records,
    CAST(NULL, 'Nullable(Int64)') AS reversals,
    sum(toInt64(ifNull(f.charge_micros, 0))) AS charge_micros,
    CAST(NULL, 'Nullable(DateTime64(3, \'UTC\'))') AS late_at
FROM
(
    SELECT *, assumeNotNull(local_date) AS day
    FROM {database}.fact_cdr
    WHERE subscriber_id IN (SELECT identifier FROM {database}.holder_change) AND subscriber_kind != 'NONE'
      AND (subscriber_id, assumeNotNull(local_date)) IN (
        SELECT identifier, toDate32(changed_at) + arrayJoin([-1, 0, 1])
        FROM {database}.holder_change
    )
) AS f
ASOF LEFT JOIN
(
    SELECT identifier, valid_from, valid_to, customer_id
    FROM {database}.dim_customer
) AS c
ON f.subscriber_id = c.identifier AND f.started_at >= c.valid_from
INNER JOIN
(
    SELECT subscriber_id, local_date, min(window_start) AS window_start
    FROM {database}.agg_subscriber_day
    WHERE subscriber_id IN (SELECT identifier FROM {database}.holder_change)
    GROUP BY subscriber_id, local_date
) AS d
ON f.subscriber_id = d.subscriber_id AND f.day = d.local_date
GROUP BY local_date, day_start, subscriber_id, customer_id, plan_id, roaming, direction, currency;
