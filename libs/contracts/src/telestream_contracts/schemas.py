"""Avro schemas, read from ``schemas/avro``: the only place where a field is born.

An enriched record is its own fields first, then the raw record's fields in the same order. Avro is plain concatenation,
so a stage may decode a prefix and pass the rest on untouched.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from telestream_domain import FAMILIES, REFERENCES, TYPES, Topics

Schema = dict[str, Any]


def _directory() -> Any:
    packaged = resources.files("telestream_contracts") / "avro"
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[4] / "schemas" / "avro"


@cache
def _text(name: str) -> str:
    return str((_directory() / f"{name}.avsc").read_text(encoding="utf-8"))


def load_schema(name: str) -> Schema:
    """The parsed schema of one topic value, e.g. ``cdr``, ``agg_cell``, ``cdr_enriched_head``."""
    schema: Schema = json.loads(_text(name))
    return schema


def enriched_head(record_type: str) -> Schema:
    """The fields that judgement adds before the raw record's."""
    return load_schema(f"{record_type}_enriched_head")


def enriched_schema(record_type: str) -> Schema:
    """Head and raw fields as one record. Raw fields whose name the head uses do not exist, by a test."""
    head, raw = enriched_head(record_type), load_schema(record_type)
    return {
        "type": "record",
        "name": f"{record_type}_enriched",
        "namespace": "telestream",
        "doc": f"A judged {record_type} record: the head, then the raw record as it stood.",
        "fields": [*head["fields"], *raw["fields"]],
    }


def prefix_schema(schema: Schema, last_field: str) -> Schema:
    """The schema cut after ``last_field``: decoding with it reads the prefix and ignores the rest.

    Raises KeyError if there is no such field.
    """
    names = [field["name"] for field in schema["fields"]]
    if last_field not in names:
        raise KeyError(f"{schema['name']} has no field {last_field}")
    return {**schema, "fields": schema["fields"][: names.index(last_field) + 1]}


def schema_of_topic(topic: str, topics: Topics) -> Schema | None:
    """The schema of a topic's values, None if it has none of ours (yet)."""
    return topic_schemas(topics).get(topic)


def topic_schemas(topics: Topics) -> dict[str, Schema]:
    """Topic name → schema, for everything that is registered."""
    found: dict[str, Schema] = {}
    for record_type in TYPES:
        found[topics.raw(record_type)] = load_schema(record_type)
        found[topics.enriched(record_type)] = enriched_schema(record_type)
        found[topics.rejected(record_type)] = load_schema("dead_letter")
    for entity in REFERENCES:
        found[topics.ref(entity)] = load_schema(entity)
    for family in FAMILIES:
        found[topics.agg(family)] = load_schema(f"agg_{family}")
    found[topics.progress] = load_schema("progress")
    found[topics.state_dedup] = load_schema("state_dedup")
    return found
