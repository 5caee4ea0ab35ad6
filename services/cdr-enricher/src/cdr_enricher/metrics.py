"""What the enricher counts."""

from __future__ import annotations

from telestream_runtime import counter, gauge, histogram

RECORDS = counter("telestream_enricher_records", "Records judged, by type and verdict", ("type", "verdict"))
REJECTED = counter("telestream_enricher_rejected_records", "Records rejected, by type and rule", ("type", "rule"))
REVERSALS = counter(
    "telestream_enricher_reversals",
    "Reversals judged, by type and verdict: STORED withdrew its original, DUPLICATE had no effect",
    ("type", "verdict"),
)
LAG = gauge(
    "telestream_enricher_lag_records",
    "Records accepted and not yet judged, by raw topic and partition",
    ("topic", "partition"),
)
ROUND_RECORDS = counter("telestream_enricher_round_records", "Records in committed rounds")
COMMIT_SECONDS = histogram("telestream_enricher_commit_seconds", "Time to commit a round")
JUDGE_SECONDS = histogram("telestream_enricher_judge_seconds", "Time to judge one batch")
REFERENCE_SECONDS = histogram(
    "telestream_enricher_reference_seconds", "Time to catch up with reference data, per round"
)
REFERENCE_VERSIONS = gauge("telestream_enricher_reference_versions", "Versions held, by entity", ("entity",))
REFERENCE_BYTES = gauge("telestream_enricher_reference_bytes", "Memory of these versions", ("entity",))
STOPPED = gauge(
    "telestream_enricher_stopped_partitions",
    "1 where a partition was stopped because too much of it is rejected",
    ("topic", "partition"),
)
SEEN_IDS = gauge("telestream_enricher_seen_ids", "Identities held to find duplicates", ("topic", "partition"))
SEEN_BYTES = gauge(
    "telestream_enricher_seen_bytes",
    "Bytes of these identities: those of closed segments are mapped from files, of which little is resident",
    ("topic", "partition"),
)
CLOSE_SECONDS = histogram(
    "telestream_enricher_segment_close_seconds", "Time to freeze and keep the identities of a segment that closed"
)
RESTORE_SECONDS = histogram("telestream_enricher_restore_seconds", "Time to rebuild a partition's state")
