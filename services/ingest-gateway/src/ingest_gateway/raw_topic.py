"""What of a file already lies in its raw topic: asked after a crash or a lost acknowledgement, so that nothing is sent
twice."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from telestream_contracts import FRAME_BYTES, Schema, decode_payloads, prefix_schema
from telestream_domain import TelestreamError

READ_MESSAGES = 20_000
POLL_S = 1.0
PATIENCE = 10

Sent = set[tuple[int, bytes]]
"""Line and key of records."""


class RawTopics:
    """Looks into topics. One connection as long as all goes well; may be asked from any thread."""

    def __init__(self, bootstrap: str, timeout_s: float) -> None:
        self._bootstrap, self._timeout_s = bootstrap, timeout_s
        self._admin: Any = None

    def ends(self, topic: str, partitions: int) -> dict[str, int]:
        """The end offset of every partition. Raises TelestreamError if Kafka does not answer."""
        from confluent_kafka import KafkaException, TopicPartition
        from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(topic, partition): latest for partition in range(partitions)}
        admin, self._admin = self._admin, None
        if admin is None:
            admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 3})
        try:
            found = admin.list_offsets(asked, request_timeout=self._timeout_s)
            offsets = {
                str(place.partition): future.result(timeout=self._timeout_s + 1).offset
                for place, future in found.items()
            }
            # a broker that stood still gives an answer without offsets, and no error
            if min(offsets.values()) < 0:
                raise TimeoutError("no answer for some partitions")
            self._admin = admin
            return offsets
        except (KafkaException, TimeoutError) as err:
            # this client is not asked again: after a change of leader it goes on with the old epoch for ever
            raise TelestreamError(f"Kafka does not tell the ends of {topic}: {err}") from err

    def sent_lines(self, topic: str, start: Mapping[str, int], schema: Schema, batch_id: int) -> Sent:
        """Records of a batch in a topic, from ``start`` by partition to the ends of now. Raises TelestreamError."""
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        stop = self.ends(topic, len(start))
        open_ends = {int(place): stop[place] for place, first in start.items() if stop[place] > first}
        found: Sent = set()
        if not open_ends:
            return found
        consumer: Any = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": f"ingest-gateway-look-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # what retention took away cannot be found
                "log_level": 3,
            }
        )
        reading = prefix_schema(schema, "line") if _has_order(schema) else schema
        try:
            consumer.assign([TopicPartition(topic, place, start[str(place)]) for place in open_ends])
            patience = PATIENCE
            while open_ends:
                messages = consumer.consume(READ_MESSAGES, timeout=POLL_S)
                patience = PATIENCE if messages else patience - 1
                if not patience:
                    raise TelestreamError(f"{topic} cannot be read to its end")
                good = [message for message in messages if message.error() is None]
                if len(good) != len(messages):
                    bad = next(message.error() for message in messages if message.error() is not None)
                    raise TelestreamError(f"{topic} cannot be read: {bad.str()}")
                frame = decode_payloads([message.value()[FRAME_BYTES:] for message in good], reading)
                if good:
                    for message, batch, line in zip(
                        good, frame["batch_id"].to_list(), frame["line"].to_list(), strict=True
                    ):
                        if batch == batch_id:
                            found.add((line, message.key()))
                for message in good:
                    place = message.partition()
                    if place in open_ends and message.offset() >= open_ends[place] - 1:
                        del open_ends[place]
            return found
        except KafkaException as err:
            raise TelestreamError(f"{topic} cannot be read: {err}") from err
        finally:
            consumer.close()


def _has_order(schema: Schema) -> bool:
    names = [field["name"] for field in schema["fields"]]
    return names.index("line") > names.index("batch_id")
