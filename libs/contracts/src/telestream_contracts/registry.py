"""The schema registry, through confluent-kafka's own client. Subject = topic name + ``-value``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from telestream_contracts.errors import RegistryError
from telestream_contracts.schemas import Schema, topic_schemas
from telestream_domain import TYPES, Topics


def subject_of(topic: str) -> str:
    """The registry subject of a topic's values."""
    return f"{topic}-value"


class Registry:
    """Ids and schemas by id, cached for the life of the process: a registry that goes away later stops nobody."""

    def __init__(self, url: str) -> None:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        self.url = url
        self._client: Any = SchemaRegistryClient({"url": url, "timeout": 10, "max.retries": 2})
        self._ids: dict[str, int] = {}
        self._schemas: dict[int, Schema | None] = {}

    def register_all(self, topics: Topics) -> dict[str, int]:
        """Register every topic's schema with its compatibility; returns topic → id. Doing it again is harmless."""
        raw = {topics.raw(record_type) for record_type in TYPES}
        return {
            topic: self.register(topic, schema, "FULL" if topic in raw else "BACKWARD")
            for topic, schema in topic_schemas(topics).items()
        }

    def register(self, topic: str, schema: Schema, compatibility: str = "BACKWARD") -> int:
        """Register one schema; raises RegistryError if the registry refuses it (named) or does not answer."""
        from confluent_kafka.schema_registry import Schema as RegisteredSchema

        subject = subject_of(topic)
        try:
            schema_id = int(self._client.register_schema(subject, RegisteredSchema(json.dumps(schema), "AVRO")))
            self._client.set_compatibility(subject_name=subject, level=compatibility)
        except Exception as err:
            raise RegistryError(
                f"{subject}: the registry at {self.url} did not take the schema: {_brief(err)}; "
                'check that it runs, then run "telestream schemas check"'
            ) from err
        self._ids[topic] = schema_id
        return schema_id

    def register_derived(self, topics: Topics) -> dict[str, int]:
        """``register_all`` of what belongs to this generation alone."""
        schemas = topic_schemas(topics).items()
        return {topic: self.register(topic, schema) for topic, schema in schemas if topics.is_derived(topic)}

    def forget_derived(self, topics: Topics) -> list[str]:
        """Delete the subjects that belong to this generation alone; returns those that were there. Ids of other
        subjects stay. Raises RegistryError."""
        try:
            there = set(self._client.get_subjects())
            gone = [
                subject
                for topic in topic_schemas(topics)
                if topics.is_derived(topic)
                if (subject := subject_of(topic)) in there
            ]
            for subject in gone:
                self._client.delete_subject(subject)
        except Exception as err:
            raise RegistryError(f"the registry at {self.url} did not delete a subject: {_brief(err)}") from err
        return gone

    def check_all(self, topics: Topics) -> list[str]:
        """What differs between the registry and ``schemas/``: one line each, empty if nothing."""
        wrong = []
        for topic, schema in topic_schemas(topics).items():
            try:
                latest = self._client.get_latest_version(subject_of(topic))
            except Exception as err:
                wrong.append(f"{subject_of(topic)}: {_brief(err)}")
                continue
            if json.loads(latest.schema.schema_str) != json.loads(json.dumps(schema)):
                wrong.append(f"{subject_of(topic)}: version {latest.version} differs from schemas/avro")
        return wrong

    def id_for(self, topic: str, schema: Schema | None = None) -> int:
        """The id under which this code's schema of a topic is registered. Raises RegistryError if it is not."""
        from confluent_kafka.schema_registry import Schema as RegisteredSchema

        if topic not in self._ids:
            wanted = schema or _schema_in(topic)
            try:
                if wanted is None:
                    found = self._client.get_latest_version(subject_of(topic)).schema_id
                else:
                    found = self._client.lookup_schema(
                        subject_of(topic), RegisteredSchema(json.dumps(wanted), "AVRO")
                    ).schema_id
            except Exception as err:
                raise RegistryError(
                    f'{subject_of(topic)} at {self.url}: {_brief(err)}; run "telestream schemas register"'
                ) from err
            self._ids[topic] = int(found)
        return self._ids[topic]

    def schema(self, schema_id: int) -> Schema | None:
        """The schema of an id, None if the registry knows none; raises RegistryError if it does not answer."""
        if schema_id not in self._schemas:
            from confluent_kafka.schema_registry.error import SchemaRegistryError

            try:
                text = self._client.get_schema(schema_id).schema_str
                self._schemas[schema_id] = json.loads(text)
            except SchemaRegistryError as err:
                if err.http_status_code != 404:
                    raise RegistryError(f"schema id {schema_id} at {self.url}: {_brief(err)}") from err
                # not kept: it may be registered in the next minute
                return None
            except Exception as err:
                raise RegistryError(f"schema id {schema_id} at {self.url}: {_brief(err)}") from err
        return self._schemas[schema_id]

    def version(self, topic: str, schema_id: int) -> int | None:
        """Which version of a topic's subject has this schema id; None if none has, or the registry does not answer."""
        from confluent_kafka.schema_registry import Schema as RegisteredSchema

        schema = self.schema(schema_id)
        if schema is None:
            return None
        try:
            found = self._client.lookup_schema(subject_of(topic), RegisteredSchema(json.dumps(schema), "AVRO"))
        except Exception:
            return None
        return int(found.version)

    def preload(self, topics: Iterable[str]) -> None:
        """Ask for the ids of these topics now, so that a mistake shows at start."""
        for topic in topics:
            self.id_for(topic)


def _schema_in(topic: str) -> Schema | None:
    """Our schema for a full topic name, whatever prefix and generation it has."""
    for known, schema in topic_schemas(Topics(prefix="", generation=0)).items():
        stem = known.removesuffix(".g0")
        bare = topic.rsplit(".g", 1)[0] if known.endswith(".g0") else topic
        if bare == stem or bare.endswith("." + stem):
            return schema
    return None


def _brief(err: BaseException) -> str:
    return " ".join(str(err).split())[:300] or type(err).__name__
