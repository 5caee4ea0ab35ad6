"""Which page of the runbook belongs to what stopped a service. A class without a page of its own takes its base's."""

from __future__ import annotations

from telestream_domain import TelestreamError

FOLDER = "docs/runbook"

PAGES = {
    # telestream_guards, faust_batch, warehouse_sink
    "TopicMadeAnew": "topic-made-anew",
    "OffsetOutOfRange": "position-outside-the-log",
    "PositionLost": "position-outside-the-log",
    "PartitionsChanged": "partition-count-changed",
    "SettingsDiffer": "settings-differ-from-the-generation",
    "GenerationNotWanted": "generation-not-wanted",
    "WrongKey": "key-is-another",
    # cdr_enricher
    "RawNotDense": "raw-has-a-hole",
    "JudgedNotDense": "judged-records-gap-or-repeat",
    "PositionForeign": "position-without-metadata",
    "PositionGone": "position-gone",
    "JudgedCut": "derived-topic-was-cut",
    # window_aggregator
    "NotDense": "judged-records-gap-or-repeat",
    "LogCut": "derived-topic-was-cut",
    # warehouse_sink
    "GapFound": "judged-records-gap-or-repeat",
}
"""Names of error classes: this library knows neither the services nor the others."""


def page_of(error: BaseException) -> str | None:
    """Path of the page in the repository, None if there is none."""
    for kind in type(error).__mro__:
        if page := PAGES.get(kind.__name__):
            return f"{FOLDER}/{page}.md"
    return None


def stated(error: Exception) -> Exception:
    """What to tell: the error that a library's own was raised from, if it is one of ours; else the error itself."""
    cause = error.__cause__
    if not isinstance(error, TelestreamError) and isinstance(cause, TelestreamError):
        return cause
    return error
