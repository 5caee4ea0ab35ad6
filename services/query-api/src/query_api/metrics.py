"""Metrics of the query API."""

from __future__ import annotations

from telestream_runtime import counter, gauge, histogram

REQUESTS = counter(
    "telestream_query_requests", "Requests answered, by route pattern and status", labels=("route", "status")
)
REQUEST_SECONDS = histogram("telestream_query_request_seconds", "Time to answer, by route pattern", labels=("route",))
CLICKHOUSE_SECONDS = histogram("telestream_query_clickhouse_seconds", "Time of one question to ClickHouse")
CLICKHOUSE_FAILURES = counter("telestream_query_clickhouse_failures", "Questions that ClickHouse did not answer")
TAIL_KEYS = gauge("telestream_query_tail_keys", "Rows of live minutes held in memory", labels=("generation",))
TAIL_LAG_SECONDS = gauge(
    "telestream_query_tail_lag_seconds",
    "Age of the newest upsert taken in, when it was taken in",
    labels=("generation",),
)
TAIL_UPSERTS = counter("telestream_query_tail_upserts", "Upserts read from the aggregates", labels=("family",))
TAIL_UNDECODABLE = counter("telestream_query_tail_undecodable", "Upserts that could not be decoded", labels=("family",))
TAIL_RESTARTS = counter("telestream_query_tail_restarts", "Times the tail was read anew after an error")
KEY_LOOKUPS = counter("telestream_query_key_lookups", "API keys looked up, by outcome", labels=("outcome",))
