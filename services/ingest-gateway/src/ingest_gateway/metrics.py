"""The gateway's metrics."""

from __future__ import annotations

from telestream_runtime import counter, gauge, histogram

RECORDS_ACCEPTED = counter("telestream_gateway_records_accepted", "Records acknowledged by Kafka", ("type", "path"))
RECORDS_REFUSED = counter("telestream_gateway_records_refused", "Records refused, by code", ("type", "code"))
REQUESTS = counter("telestream_gateway_requests", "Requests answered", ("route", "status"))
REQUEST_SECONDS = histogram("telestream_gateway_request_seconds", "Time to answer a request", ("route",))
ACK_SECONDS = histogram("telestream_gateway_ack_seconds", "Time from handing records to Kafka to all acknowledgements")
UNACKNOWLEDGED = counter("telestream_gateway_unacknowledged", "Sends that Kafka did not acknowledge in time")
IN_FLIGHT_BYTES = gauge("telestream_gateway_in_flight_bytes", "Bytes of bodies being judged or sent")
BACKFILL_RATE = gauge("telestream_gateway_backfill_rate", "Records a second that backfills may send, all together")
LIVE_WAIT_SECONDS = gauge(
    "telestream_gateway_live_wait_seconds",
    "How long live records waited for enricher and aggregator while a backfill looked; NaN: unknown",
)
BACKFILL_UNSEEN = counter(
    "telestream_gateway_backfill_unseen",
    "Looks at the live records that gave no answer: the backfill went at its floor",
)
FILES = counter("telestream_gateway_files", "Files by their last state", ("state",))
