"""What the aggregator counts about itself."""

from __future__ import annotations

from telestream_runtime import counter, gauge, histogram

RECORDS = counter("telestream_aggregator_records", "Judged records taken in", ["type"])
UPSERTS = counter("telestream_aggregator_upserts", "Upserts sent, markers included", ["family"])
RESTORES = counter("telestream_aggregator_restores", "Partitions restored, from a snapshot or the log alone", ["base"])
LAG = gauge(
    "telestream_aggregator_lag_records",
    "Records between the committed position and the end of the log",
    ["topic", "partition"],
)
OPEN_WINDOWS = gauge("telestream_aggregator_open_windows", "Windows held for the open segments, all families", ["type"])
STRETCH = gauge(
    "telestream_aggregator_beat_stretch_ratio",
    "How many times longer than set the beat of a family is, so that upserts stay below their share of the records",
    ["family"],
)
FLUSH_SECONDS = histogram("telestream_aggregator_flush_seconds", "Time to gather and encode what the clock asked for")
COMMIT_SECONDS = histogram("telestream_aggregator_commit_seconds", "Time to commit a round")
