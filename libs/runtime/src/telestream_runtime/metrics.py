"""Metrics are declared once, with type, unit and a line of help; the reference page is made from ``DECLARED``.

Names are ``telestream_<service>_…`` in base units (seconds, bytes, records).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the reference page."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


DECLARED: dict[str, Metric] = {}


def _declare(name: str, kind: str, help_text: str, labels: Sequence[str]) -> None:
    if not name.startswith("telestream_"):
        raise ValueError(f"metric {name} must start with telestream_<service>_")
    DECLARED[name] = Metric(name, kind, help_text, tuple(labels))


def counter(name: str, help_text: str, labels: Sequence[str] = (), registry: CollectorRegistry = REGISTRY) -> Counter:
    """A value that only grows; ``name`` without ``_total``."""
    _declare(name, "counter", help_text, labels)
    return Counter(name, help_text, labels, registry=registry)


def gauge(name: str, help_text: str, labels: Sequence[str] = (), registry: CollectorRegistry = REGISTRY) -> Gauge:
    """A value that goes up and down."""
    _declare(name, "gauge", help_text, labels)
    return Gauge(name, help_text, labels, registry=registry)


def histogram(
    name: str,
    help_text: str,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = LATENCY_BUCKETS,
    registry: CollectorRegistry = REGISTRY,
) -> Histogram:
    """A distribution, by default of seconds."""
    _declare(name, "histogram", help_text, labels)
    return Histogram(name, help_text, labels, buckets=buckets, registry=registry)
