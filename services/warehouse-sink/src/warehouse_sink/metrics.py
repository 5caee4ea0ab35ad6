"""What the sink tells Prometheus."""

from __future__ import annotations

from telestream_runtime import counter, gauge, histogram

ROWS = counter("telestream_sink_rows", "Rows inserted into ClickHouse, repeats counted again", ("table",))
RECORDS = counter("telestream_sink_records", "Kafka records taken in", ("topic",))
REPEATS = counter("telestream_sink_repeated_records", "Judged records that came again and were written again")
INSERT_SECONDS = histogram("telestream_sink_insert_seconds", "Time of one insert that was answered", ("table",))
INSERT_FAILURES = counter("telestream_sink_insert_failures", "Inserts that were not answered or put off", ("table",))
LAG = gauge("telestream_sink_lag_records", "Records in this sink's partitions that are not in ClickHouse yet")
LAST_WRITE = gauge("telestream_sink_last_write_timestamp_seconds", "When a position was last written, as epoch seconds")
OLDEST_WAITING = gauge("telestream_sink_oldest_waiting_seconds", "Age of the oldest record taken in but not written")
PARTITIONS = gauge("telestream_sink_partitions", "Partitions assigned to this sink")
