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
FILES = counter("telestream_gateway_files", "Files by their last state", ("state",))
