"""Which topics the sink reads and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from telestream_contracts import Schema, topic_schemas
from telestream_domain import FAMILIES, REFERENCES, TYPES, Topics

Kind = Literal["enriched", "rejected", "agg", "ref"]


@dataclass(frozen=True, slots=True)
class Route:
    """``subject`` is the record type, the family or the entity, by ``kind``; ``schema`` is the one of this version."""

    topic: str
    kind: Kind
    subject: str
    schema: Schema

    @property
    def latest_by_key(self) -> bool:
        """Whether only a key's last value matters: an upsert carries the full state."""
        return self.kind == "agg"


def routes(topics: Topics, types: Sequence[str] = tuple(TYPES)) -> dict[str, Route]:
    """Topic → route, for everything of these types that goes into ClickHouse, and the dimensions."""
    wanted: list[tuple[str, Kind, str]] = [
        *((topics.enriched(name), "enriched", name) for name in types),
        *((topics.rejected(name), "rejected", name) for name in types),
        *((topics.agg(family), "agg", family) for family in FAMILIES),
        *((topics.ref(entity), "ref", entity) for entity in REFERENCES),
    ]
    schemas = topic_schemas(topics)
    return {topic: Route(topic, kind, subject, schemas[topic]) for topic, kind, subject in wanted}
