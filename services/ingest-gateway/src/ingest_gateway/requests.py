"""Judging one request: bytes in, messages for Kafka and refusals out. Runs on the one judging thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest_gateway.domain.accepted import Entry
from ingest_gateway.domain.body import Format, fault_of, records_of, unpack
from ingest_gateway.domain.direct import Direct, event_id_of
from ingest_gateway.domain.refusal import Refusal
from ingest_gateway.encode import BatchHead, Encoder
from ingest_gateway.kafka import messages_of


@dataclass(frozen=True, slots=True)
class Judged:
    """``accepted`` and ``refused`` count the producer's records; ``messages`` are what goes to Kafka."""

    accepted: int
    refusals: list[Refusal]
    messages: list[dict[str, Any]] = field(repr=False)
    nbytes: int

    def by_code(self) -> Mapping[str, int]:
        return Counter(refusal.code for refusal in self.refusals)


class RequestJudge:
    """One type's direct path, from body to messages."""

    def __init__(self, direct: Direct, encoder: Encoder, partitions: int) -> None:
        self._direct, self._encoder, self._partitions = direct, encoder, partitions

    def judge(self, body: bytes, encoding: str, body_format: Format, head: BatchHead) -> Judged:
        """Raises BodyRefused if the body as a whole cannot be read."""
        records = records_of(unpack(body, encoding), body_format)
        entries: list[Entry] = []
        lines: list[int] = []
        refusals: list[Refusal] = []
        judge, source = self._direct.judge, head.source
        for index, record in enumerate(records):
            fault = fault_of(record)
            if fault is None:
                judged = judge(record, source)
                if type(judged) is list:
                    entries.extend(judged)
                    lines.extend([index + 1] * len(judged))
                    continue
                fault = judged  # type: ignore[assignment]
            code, name, message = fault  # type: ignore[misc]
            refusals.append(Refusal(index, code, name, message, event_id_of(record)))
        values = self._encoder.entries(entries, lines, head)
        messages = messages_of(
            values, [entry.key for entry in entries], [entry.shard for entry in entries], self._partitions
        )
        return Judged(len(records) - len(refusals), refusals, messages, sum(map(len, values)))
